"""Events: a flag that threads wait on.

Source: "Event Objects", "CreateEvent", "SetEvent", "ResetEvent"; section 11 of
`docs/semantics/completion-port.md`.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import Deadlock, EngineError, InvalidHandle
from .afterwards import afterwards
from .checks import check_flag
from .dispatcher import WaitBlock, dispatcher_lock, finish
from .lock import each
from .thread import ThreadRecord
from .waitable import Flag


class Event(Flag):
    """A flag that is signaled by `set`. Threads, callbacks and, with `await`, tasks can wait for it.

    Args:
        manual_reset: True: stays signaled, for every wait, until `reset`. False: each `set` satisfies one
            wait, which makes it nonsignaled again; a set that finds no wait stays until one comes, and sets
            in between coalesce.
        signaled: the state to begin with.

    The event belongs to who made it: close it, or use it as a context manager. One that is dropped open is
    reported as a `ResourceWarning`.

    Which of several pending waits a signal goes to is not promised.

    In a signal handler only `set` is safe.
    """

    __slots__ = ()

    _harvested = True

    def __init__(self, manual_reset: bool = False, signaled: bool = False) -> None:
        check_flag("manual_reset", manual_reset)
        check_flag("signaled", signaled)
        super().__init__()
        self._manual_reset = manual_reset
        self._signaled = signaled

    @property
    def manual_reset(self) -> bool:
        """Whether the event stays signaled until `reset`."""
        return self._manual_reset

    def set(self) -> None:
        """Make the event signaled. Raises: `InvalidHandle` if it is closed.

        Blocks: never. Safe in a signal handler; if that interrupted the engine itself, the event may be signaled a
        moment after the return.
        """
        satisfied: list[WaitBlock] = []
        try:
            with dispatcher_lock:
                self._require_open()
                self._signaled = True
                if not self._blocks:
                    return
                self._release_locked(satisfied)
            finish(satisfied)
        except Deadlock:  # In a signal handler that interrupted this thread under the lock: nothing was changed.
            afterwards(self._set_if_open)
        except BaseException:
            finish(satisfied)
            raise

    def _set_if_open(self) -> None:
        with suppress(InvalidHandle):  # Closed meanwhile, as if a moment later.
            self.set()

    def _set_locked(self, errors: list[EngineError], satisfied: list[WaitBlock]) -> None:
        """`set` as one of many: add to `errors` why it cannot be."""
        try:
            self._require_open()
        except EngineError as error:
            errors.append(error)
            return
        self._signaled = True
        if self._blocks:
            self._release_locked(satisfied)

    def reset(self) -> None:
        """Make the event nonsignaled. Blocks: never. Raises: `InvalidHandle` if it is closed."""
        with dispatcher_lock:
            self._require_open()
            self._signaled = False

    if TYPE_CHECKING:

        def is_set(self) -> bool: ...
    else:
        is_set = Flag.is_signaled

    def _signal_locked(self, record: ThreadRecord, satisfied: list[WaitBlock]) -> None:
        self._signaled = True
        self._release_locked(satisfied)

    def __repr__(self) -> str:
        kind = "manual-reset" if self._manual_reset else "auto-reset"
        return f"<Event {kind} {self._state()} waiting={len(self._blocks)}>"


def set_events(events: Iterable[Event]) -> list[EngineError]:
    """Set each of these, in their order, in one round under the lock; return why some could not be.

    Any thread. Blocks: never.
    """
    errors: list[EngineError] = []
    satisfied: list[WaitBlock] = []
    left = iter(events)
    try:
        with dispatcher_lock:
            each(lambda event: event._set_locked(errors, satisfied), left)
        finish(satisfied)
    except BaseException:  # A signal handler raised.
        finish(satisfied)
        set_events(left)
        raise
    return errors
