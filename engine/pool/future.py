"""The futures of an executor: standard ones that make their condition variable only when a thread needs it.

Theory of operation. Making and using a `Condition` is half the cost of a quick call, and most futures are
settled before any thread waits for them. So a `CallFuture` has none at first, and one process-wide lock guards
its few transitions. The thread that asks for `_condition`, as all inherited methods, `wait` and `as_completed` do,
gets one made under that lock; from there on the inherited methods do everything, under that condition, as for
any future. A settled future never changes again, so all that were settled without a condition share one.

`result` and `exception` need no condition: they sleep in the library, so that a call of the executor that waits for
another one gives its slot back, and the sockets are attended to.

In a forked child the threads that would settle an inherited future are not there, and may hold its condition. So it
counts as settled from the first look at it: unless it was settled in the parent, its call failed with `Forked`.

Guarantees: a transition is made either under `_guard` while there is no condition, or under the condition: never both.
"""

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from threading import TIMEOUT_MAX, Condition
from typing import TYPE_CHECKING, TypeVar

from transport.foreign import is_interrupt, number_of
from transport.log import Log

from ..errors import Forked
from ..kernel.checks import check_timeout
from ..kernel.lock import Lock
from ..kernel.thread import park
from ..kernel.waiter import Waiter
from ..lifecycle import Uncopyable, fork_safe, in_child

if TYPE_CHECKING:
    from .dispatch import WorkPort

log: Log = Log("concurrent.futures")

T = TypeVar("T")

_guard = Lock()
# Whether this process was forked since this module was imported: only then are there inherited futures.
_in_child = False
# What settled futures without a condition of their own are locked by; reentrant, since `wait` locks many at once.
_settled = fork_safe(Condition())


class CallFuture(Future[T], Uncopyable):
    """A future of an executor's call; see `concurrent.futures.Future`."""

    _instead = "hand over its result"

    def __init__(self, port: "WorkPort | None" = None) -> None:
        # The port of its executor.
        self._port = port
        # The rest is not that of the base, whose point is the condition.
        self._own: Condition | None = None
        self._state = PENDING
        self._result = None
        self._exception = None
        self._waiters = []
        self._done_callbacks: list[Callable[[Future[T]], object]] = []
        # Threads in `result` or `exception`. Appended to under _guard while there is no condition.
        self._sleepers: list[Waiter] | None = None

    @property
    def _condition(self) -> Condition:  # type: ignore[override]  # read only: typeshed has an attribute
        if _in_child:
            self._settle_if_inherited()
        own = self._own
        if own is not None:
            return own
        with _guard:
            if self._own is None:
                if self._state in (FINISHED, CANCELLED_AND_NOTIFIED):
                    return _settled
                self._own = Condition()
            return self._own

    def set_running_or_notify_cancel(self) -> bool:
        """Begin, unless the future was cancelled; for the executor."""
        with _guard:
            if self._own is None and self._state == PENDING:
                self._state = RUNNING
                return True
        return super().set_running_or_notify_cancel()

    def set_result(self, result: T) -> None:
        """Settle the future; for the executor."""
        if not self._settle(result, None):
            super().set_result(result)
        self._wake()

    def set_exception(self, exception: BaseException | None) -> None:
        """Settle the future; for the executor."""
        if not self._settle(None, exception):
            super().set_exception(exception)
        self._wake()

    def cancel(self) -> bool:
        """Cancel the call if it has not begun; whether it is cancelled."""
        cancelled = super().cancel()
        if cancelled:
            self._wake()
            if self._port is not None:
                self._port.note_cancelled()
        return cancelled

    def is_cancelled(self) -> bool:
        """`cancelled`, for a thread that holds the port's lock: it takes none."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def result(self, timeout: float | None = None) -> T:
        """Return the call's result, or raise what it raised; see `concurrent.futures.Future.result`."""
        return super().result(self._sleep(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, or None; see `concurrent.futures.Future.exception`."""
        return super().exception(self._sleep(timeout))

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Have `fn(future)` called when the future is settled or cancelled; at once if it is already."""
        if _in_child:
            self._settle_if_inherited()
        with _guard:
            if self._own is None and self._state in (PENDING, RUNNING):
                self._done_callbacks.append(fn)
                return
        super().add_done_callback(fn)

    def _settle(self, result: T | None, exception: BaseException | None) -> bool:
        """Make the last transition, if no thread has asked for the condition yet."""
        with _guard:
            if self._own is not None or self._state not in (PENDING, RUNNING):
                return False
            self._result = result
            self._exception = exception
            self._state = FINISHED
        self._invoke_callbacks()
        return True

    def _invoke_callbacks(self) -> None:
        for callback in self._done_callbacks:
            try:
                callback(self)
            except BaseException as error:  # Not `Exception` as in the base: others wait for this future.
                if is_interrupt(error):
                    raise
                log.error("exception calling callback for %r", self, exc_info=error)

    def _sleep(self, timeout: float | None) -> float | None:
        """Sleep until the future is settled if no thread has asked for the condition; return the time left for that."""
        if self._state == FINISHED:
            return 0
        if timeout is not None:
            seconds = number_of(timeout)  # Negative ones are none to the standard library's.
            timeout = 0.0 if seconds is not None and seconds < 0 else check_timeout(timeout) or 0.0
            timeout = min(timeout, TIMEOUT_MAX)  # More is for ever.
        if _in_child:
            self._settle_if_inherited()
        with _guard:
            if self._own is not None or self._state not in (PENDING, RUNNING):
                return timeout
            waiter = Waiter()
            if self._sleepers is None:
                self._sleepers = []
            self._sleepers.append(waiter)
        park(waiter, timeout)
        return 0

    def _settle_if_inherited(self) -> None:
        """In a forked child settle a future of the parent's; its callbacks are the parent's affair."""
        if self._port is None or not self._port.forked:
            return
        self._own = None
        if self._state in (PENDING, RUNNING):
            self._exception = Forked("the call was submitted before fork(): it ends in the parent only")
            self._state = FINISHED
        elif self._state == CANCELLED:
            self._state = CANCELLED_AND_NOTIFIED

    def _wake(self) -> None:
        if self._sleepers is not None:
            for waiter in self._sleepers:
                waiter.wake()


@in_child
def _note_child() -> None:
    global _in_child
    _in_child = True


# What its `repr`, and with that the errors of a wrong transition, call it: as people and programs know it.
CallFuture.__name__ = CallFuture.__qualname__ = "Future"
