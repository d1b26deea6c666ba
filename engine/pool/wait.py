"""Wait objects: one callback when something is signaled, or when the time is up.

Theory of operation. Setting the object registers one asynchronous wait with the kernel. Whoever decides that
wait, the thread that signals or the monitor, consumes the signal then and there and delivers it: queues the
callback. The callback itself comes later, or never if it is discarded, in which case the signal is lost. No
thread is spent on a wait.

    pending --signal, timeout, close of the object--> on its way --delivered--> queued --worker--> running
    pending --withdrawn (set again, disarmed, closed)--> over
    on its way --wait(cancel_pending=True), group cancel--> discarded
    on its way --this object is closed, or its pool stopped--> over, the signal given back

A thread that signals may be held up while a wait is on its way, and nobody can withdraw it then. So what is on
its way counts as queued: it is waited for, and can be discarded.

Source: "SetThreadpoolWait", "SetThreadpoolWaitEx"; "Wait Functions".
"""

from collections.abc import Callable
from contextvars import Context
from typing import Any

from ..kernel.checks import check_clock
from ..kernel.clock import Cancellable, Clock, Due, call_at_wall, read_due
from ..kernel.waitable import RegisteredWait, prepare_wait
from ..status import Status
from .backlog import Turn
from .callback_object import CallbackObject
from .environment import Environment
from .pool import ThreadPool


class _Registration:
    """What one `set` asked for, and what the kernel calls with the status when its wait is decided."""

    __slots__ = ("block", "context", "limit", "owner")

    # The kernel's wait.
    block: RegisteredWait

    def __init__(self, owner: "Wait", context: Context) -> None:
        self.owner = owner
        self.context = context
        # An absolute time limit, which the kernel's waits do not have.
        self.limit: Cancellable | None = None

    def __call__(self, status: Status) -> None:
        self.owner._deliver(self, status)

    def withdraw(self) -> bool:
        withdrawn = self.block.cancel()
        if self.limit is not None:
            self.limit.cancel()
        return withdrawn

    def withdrawn(self) -> bool:
        return self.block.status is Status.OPERATION_ABORTED

    def on_its_way(self) -> bool:
        return self.block.status is not Status.PENDING and not self.withdrawn()


class Wait(CallbackObject):
    """A callback that is queued once when an object is signaled or the time is up, each time the wait is set.

    Args:
        function, args: the callback is `function(*args, status)`: `Status.OK` (0) when signaled,
            `Status.TIMEOUT` (258) when the time was up, `Status.ABANDONED_WAIT` (735) when the object was
            closed.
        pool, environment: where and how callbacks run; give at most one of them.
        context: anything; handed to cancel and finalization callbacks.
        clock: where time comes from; None: the pool's clock.

    Thousands may be set at once.
    """

    __slots__ = ("_clock", "_registrations")

    def __init__(
        self,
        function: Callable[..., object],
        *args: Any,
        pool: ThreadPool | None = None,
        environment: Environment | None = None,
        context: object = None,
        clock: Clock | None = None,
    ) -> None:
        if clock is not None:
            check_clock(clock)
        # Guarded by the port's lock. Those that may still bring a callback: the one set last while it is pending,
        # and all that are on their way.
        self._registrations: list[_Registration] = []
        super().__init__(function, args, environment, pool, context)
        self._clock = self._pool._clock if clock is None else clock

    def set(self, waitable: Any, timeout: Due | None = None) -> bool:
        """Wait for `waitable`, replacing an earlier wait, or for nothing any more.

        Args:
            waitable: anything that `wait_any` takes except a mutex, which belongs to a thread; None ends the
                wait, and a signal that comes later stays in its object.
            timeout: seconds, or a `datetime`; None for ever; 0 looks once. Ignored when `waitable` is None.
        Returns: True if a pending wait was withdrawn. False: there was none, and a callback may be queued or
            running.
        Raises: `InvalidHandle` if this object, its pool or `waitable` is closed; `InvalidParameter`,
            `InvalidArgumentType`. A call that raises changes nothing.
        Blocks: never. The signal is consumed when the wait is satisfied, before the callback runs.
        Source: "SetThreadpoolWaitEx".
        """
        if waitable is None:
            self._require_open()
            return self._replace(None)
        self._require_live()
        when, absolute = (None, False) if timeout is None else read_due(timeout)
        registration = _Registration(self, self._capture())
        block = registration.block = prepare_wait(waitable, registration)
        withdrawn = self._replace(registration)
        # Replaced or disarmed by another thread meanwhile, it does not begin.
        block.begin(None if absolute else when, self._clock)
        if absolute and when is not None and block.status is Status.PENDING:
            limit = registration.limit = call_at_wall(self._clock, when, block.expire)
            if block.status is not Status.PENDING:
                limit.cancel()
        return withdrawn

    def _replace(self, registration: _Registration | None) -> bool:
        with self._port.lock:
            former = list(self._registrations)
            if registration is not None:
                self._registrations.append(registration)
        if not former:
            return False
        withdrawn = [each.withdraw() for each in former]
        with self._port.lock:
            self._drop_withdrawn_locked()
        return any(withdrawn)

    def _drop_withdrawn_locked(self) -> None:
        self._registrations = [each for each in self._registrations if not each.withdrawn()]

    def _deliver(self, registration: _Registration, status: Status) -> None:
        if registration.limit is not None:
            registration.limit.cancel()
        with self._port.lock:
            if registration not in self._registrations:
                return  # Discarded on its way.
            self._registrations.remove(registration)
            wanted = not self._closed and not self._port.stopped
            if wanted:
                todo = self._port.push_locked(Turn(self, registration.context, (status,)))
            else:
                todo = self._quiet_locked(), 0, False
        self._port.act(todo)
        if not wanted:
            registration.block.abandon()

    def _transit_locked(self) -> int:
        return sum(each.on_its_way() for each in self._registrations)

    def _forget_locked(self) -> int:
        before = len(self._registrations)
        self._registrations = [each for each in self._registrations if not each.on_its_way()]
        return before - len(self._registrations)

    def _disarm(self) -> None:
        self._replace(None)
