"""Mutexes: owned by one thread at a time, and handed on when that thread ends.

Theory of operation. The owner is a thread's record. When a thread ends, its record's mutexes are abandoned:
they become free, and the next wait that takes one says so, because what the mutex protects may have been
left half changed.

Source: "Mutex Objects", "CreateMutex", "ReleaseMutex"; section 11 of `docs/semantics/completion-port.md`.
"""

from ..errors import NotOwner
from .checks import check_flag
from .dispatcher import WaitBlock, decide, dispatcher_lock
from .lock import each
from .thread import ThreadRecord, end_hooks, local
from .waitable import Acquirable


class Mutex(Acquirable):
    """A lock that a thread owns, recursively; signaled while no thread owns it.

    A wait that is satisfied makes the thread the owner; waiting again while owning succeeds at once, and as
    many releases are needed. `wait` (also called `acquire`) returns True or False as for any object; whether
    the mutex came from a thread that ended without releasing it shows in `abandoned`.

    Args: initially_owned: whether the creating thread owns the mutex to begin with.

    As a context manager it is acquired and released; it needs no closing. It cannot be waited for by a
    callback or a task: those have no thread to own it.

    Not for signal handlers, which `Event.set` is for.
    """

    __slots__ = ("_abandoned", "_depth", "_owner", "_was_abandoned")

    _owned_by_threads = True

    def __init__(self, initially_owned: bool = False) -> None:
        check_flag("initially_owned", initially_owned)
        super().__init__()
        # All guarded by dispatcher_lock. Invariant: (_owner is None) == (_depth == 0).
        self._owner: ThreadRecord | None = None
        self._depth = 0
        # The last owner ended without releasing, and no thread has taken the mutex since.
        self._abandoned = False
        # The present owner took the mutex over from a thread that had ended.
        self._was_abandoned = False
        if initially_owned:
            record = local.record
            with dispatcher_lock:
                self._consume_locked(record)

    @property
    def abandoned(self) -> bool:
        """Whether the owner took the mutex over from a thread that ended. True until it is released."""
        return self._was_abandoned

    def release(self) -> None:
        """Give the mutex up, once for each time it was acquired.

        Raises: `NotOwner` (288) if the calling thread does not own it; `InvalidHandle` if closed. Blocks:
            never.
        """
        decide(self._signal_locked, local.record)

    def close(self) -> None:
        """Close the mutex, owned or not: pending waits end with `AbandonedWait`, later use is refused."""
        super().close()
        with dispatcher_lock:
            self._free_locked()

    def _signal_locked(self, record: ThreadRecord, satisfied: list[WaitBlock]) -> None:
        self._require_open()
        if self._owner is not record:
            raise NotOwner("the mutex is not owned by this thread")
        if self._depth > 1:
            self._depth -= 1
        else:
            self._free_locked()
            self._release_locked(satisfied)

    def _free_locked(self) -> None:
        if self._owner is not None:
            self._owner.mutexes.discard(self)
        self._owner = None
        self._depth = 0
        self._was_abandoned = False

    def _abandon_locked(self, satisfied: list[WaitBlock]) -> None:
        self._free_locked()
        self._abandoned = True
        self._release_locked(satisfied)

    def _signaled_locked(self, record: ThreadRecord | None) -> bool:
        return self._owner is None or self._owner is record

    def _consume_locked(self, record: ThreadRecord | None) -> bool:
        assert record is not None, "only threads wait for a mutex"
        if self._depth == 0:
            record.mutexes.add(self)
            self._was_abandoned, self._abandoned = self._abandoned, False
        self._owner = record
        self._depth += 1
        return self._depth == 1 and self._was_abandoned

    def _restore_locked(self, record: ThreadRecord | None, abandoned: bool) -> None:
        if self._owner is record and self._depth:
            self._depth -= 1
            if not self._depth:
                self._free_locked()
                self._abandoned = abandoned

    def __repr__(self) -> str:
        owner = self._owner
        state = (
            "closed" if self._life is None else "free" if owner is None else f"owned by {owner.ident} x{self._depth}"
        )
        return f"<Mutex {state} waiting={len(self._blocks)}>"


def _abandon(record: ThreadRecord) -> None:
    """A thread ended: its mutexes go to the threads that wait for them."""
    decide(_abandon_locked, record)


def _abandon_locked(record: ThreadRecord, satisfied: list[WaitBlock]) -> None:
    each(lambda mutex: mutex._abandon_locked(satisfied), list(record.mutexes))


end_hooks.append(_abandon)
