"""Semaphores: a count that waits take from.

Source: "Semaphore Objects", "CreateSemaphore", "ReleaseSemaphore"; section 11 of
`docs/semantics/completion-port.md`.
"""

from ..errors import InvalidParameter, LimitExceeded
from .checks import check_count
from .dispatcher import WaitBlock, decide
from .thread import ThreadRecord
from .waitable import Acquirable


class Semaphore(Acquirable):
    """A count; signaled while it is above 0. A satisfied wait takes 1.

    Args:
        initial: the count to begin with, 0 to `maximum`.
        maximum: what the count may not pass, 1 or more.

    As a context manager it is acquired and released; it needs no closing.

    Not for signal handlers, which `Event.set` is for.
    """

    __slots__ = ("_count", "_maximum")

    _harvested = True

    def __init__(self, initial: int, maximum: int) -> None:
        for name, value in (("initial", initial), ("maximum", maximum)):
            check_count(name, value)
        if maximum < 1 or not 0 <= initial <= maximum:
            raise InvalidParameter(f"0 <= initial <= maximum and maximum >= 1 must hold, not {initial} and {maximum}")
        super().__init__()
        self._maximum = maximum
        # Guarded by dispatcher_lock. Invariant: 0 <= _count <= _maximum.
        self._count = initial

    def release(self, count: int = 1) -> int:
        """Add `count` to the semaphore's count, which satisfies up to as many waits.

        Returns: the count before. Raises: `LimitExceeded` (298), with nothing changed, if the maximum would
        be passed; `InvalidParameter` for a `count` below 1; `InvalidHandle` if closed. Threads: any, owner or
        not. Blocks: never.
        """
        check_count("count", count, least=1)
        return decide(self._add_locked, count)

    def _add_locked(self, count: int, satisfied: list[WaitBlock]) -> int:
        self._require_open()
        before = self._count
        if before + count > self._maximum:
            raise LimitExceeded(f"{before} + {count} would pass the semaphore's maximum of {self._maximum}")
        self._count += count
        self._release_locked(satisfied)
        return before

    def _signal_locked(self, record: ThreadRecord, satisfied: list[WaitBlock]) -> None:
        self._add_locked(1, satisfied)

    def _signaled_locked(self, record: ThreadRecord | None) -> bool:
        return self._count > 0

    def _consume_locked(self, record: ThreadRecord | None) -> bool:
        self._count -= 1
        return False

    def _restore_locked(self, record: ThreadRecord | None, abandoned: bool) -> None:
        # At the maximum a thread released more meanwhile than there was room for without this wait: the limit
        # stands.
        self._count = min(self._count + 1, self._maximum)

    def __repr__(self) -> str:
        state = "closed" if self._life is None else f"count={self._count}/{self._maximum}"
        return f"<Semaphore {state} waiting={len(self._blocks)}>"
