"""Waits in which no thread sleeps: a function is called once the wait was decided.

Theory of operation. The wait is a `CallbackBlock` among the blocks of its object. Whichever thread decides it, by a
signal, a timeout or closing the object, calls the function after it has released the lock.
"""

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from transport.foreign import is_interrupt, shown
from transport.log import Log
from transport.realtime import monotonic

from ..errors import AbandonedWait
from ..lifecycle import Uncopyable
from ..status import Status
from .afterwards import afterwards, interrupting
from .clock import Cancellable, Clock
from .dispatcher import CANCELLED, CLOSED, TIMED_OUT, DispatcherObject, WaitBlock, dispatcher_lock
from .driver import driver

log: Log = Log("engine.kernel")


class CallbackBlock(WaitBlock, Uncopyable):
    """A wait at whose end a function is called.

    In two steps, because some must know it before it can be decided: it is made, then `begin` is called.
    """

    __slots__ = ("_callback", "_registered", "_timer")

    outcome: int | None

    def __init__(self, waitable: DispatcherObject, callback: Callable[[Status], object], needs_progress: bool) -> None:
        super().__init__((waitable,), False, None)
        # Where it shows itself while it is pending, if it depends on what is harvested and no thread sees to that.
        self._registered = driver().registered if needs_progress else None
        # None once it was called.
        self._callback: Callable[[Status], object] | None = callback
        self._timer: Cancellable | None = None

    def begin(self, timeout: float | None, clock: Clock) -> None:
        """Look at the object, and be pending if it is not signaled; do nothing if withdrawn already."""
        try:
            with dispatcher_lock:
                if self.outcome is not None:
                    return
                if self.closed_locked():
                    self.outcome = CLOSED  # Since the wait was prepared: as if a moment later.
                elif not self.attempt_locked():
                    if timeout == 0:
                        self.outcome = TIMED_OUT
                    else:
                        self.link_locked()
                decided = self.outcome is not None
            if not decided:
                self.watch()
                if self._registered is not None:
                    driver().ensure_led()
                if timeout is not None:
                    self._timer = clock.call_at(clock.monotonic() + timeout, self.expire)
                    if self.outcome is not None:
                        self._timer.cancel()  # It was decided before there was a timer for `finish` to cancel.
        except BaseException:  # The caller gets no handle: there shall be no wait.
            self._callback = None
            self.abandon()
            raise
        if decided:
            _finish_in_turn(self)

    def link_locked(self) -> None:
        """Become pending; a thread has to harvest meanwhile."""
        super().link_locked()
        if self._registered is not None:
            self._registered[id(self)] = None

    def unlink_locked(self) -> None:
        """Be pending no longer."""
        super().unlink_locked()
        if self._registered is not None:
            self._registered.pop(id(self), None)

    def __del__(self) -> None:
        registered = getattr(self, "_registered", None)
        if registered is not None:  # Dropped together with its object.
            registered.pop(id(self), None)

    def expire(self) -> None:
        """End the wait as when its time is up; nothing if it was decided already."""
        if self._registered is not None and self.outcome is None:
            driver().catch_up(lambda: self.outcome is not None)  # A signal that has arrived counts.
        with dispatcher_lock:
            expired = self.decide_locked(TIMED_OUT)
        if expired:
            self.finish()

    def finish(self) -> None:
        """Call the function; afterwards, if a signal handler that interrupted the engine has signaled the object."""
        if interrupting():
            afterwards(self.finish)
            return
        self._retire()
        callback, self._callback = self._callback, None
        if callback is not None:
            try:
                callback(self.status)
            except BaseException as error:
                if is_interrupt(error):
                    raise
                log.error("the callback %s of a registered wait failed", shown(callback), exc_info=error)

    @property
    def status(self) -> Status:
        """How the wait ended, or `PENDING`."""
        if self.outcome is None:
            return Status.PENDING
        return _STATUSES[self.outcome]

    def cancel(self) -> bool:
        """Withdraw the wait; see `RegisteredWait`."""
        with dispatcher_lock:
            withdrawn = self.decide_locked(CANCELLED)
        if withdrawn:
            self._retire()
        return withdrawn

    def abandon(self) -> None:
        """Withdraw the wait, and give back what it consumed if it was satisfied already."""
        if self.undo(CANCELLED):
            self._retire()

    def _retire(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.watch()  # One pending wait less: less may have to be watched.

    def collect(self) -> bool:
        """The result of a wait that was decided: True if satisfied, False if timed out."""
        if self.outcome == CLOSED:
            raise AbandonedWait("the object was closed while it was waited for")
        return self.outcome == 0


class RegisteredWait(Uncopyable):
    """What `register_wait` returns: a wait that may be withdrawn."""

    __slots__ = ("_block",)

    def __init__(self, block: CallbackBlock) -> None:
        self._block = block

    @property
    def status(self) -> Status:
        """How the wait ended, or `PENDING`."""
        return self._block.status

    def cancel(self) -> bool:
        """Withdraw the wait; True if the function will not be called. Blocks: never.

        False says that the wait was decided: the function was called, or another thread is about to.
        """
        return self._block.cancel()


class _Finishing(threading.local):
    # The waits that were decided as they began, inside the callback of another one that was; None outside of that.
    later: "deque[CallbackBlock] | None" = None


_finishing = _Finishing()


def _finish_in_turn(wait: CallbackBlock) -> None:
    """Call the function of a wait that was decided as it began: one that begins again each time does not nest."""
    if _finishing.later is not None:
        _finishing.later.append(wait)
        return
    later = _finishing.later = deque((wait,))
    try:
        _finish_all(later)
    finally:
        _finishing.later = None
        if later:  # A signal handler raised.
            driver().monitor.call_at(monotonic(), partial(_finish_all, later))


def _finish_all(waits: "deque[CallbackBlock]") -> None:
    while waits:
        waits.popleft().finish()


_STATUSES = {
    0: Status.OK,
    TIMED_OUT: Status.TIMEOUT,
    CLOSED: Status.ABANDONED_WAIT,
    CANCELLED: Status.OPERATION_ABORTED,
}
