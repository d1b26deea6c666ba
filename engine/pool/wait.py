"""Wait objects: one callback when something is signaled, or when the time is up.

Theory of operation. Setting the object registers one asynchronous wait with the kernel. The thread that decides that
wait, the thread that signals or the monitor, consumes the signal then and there and delivers it: queues the
callback. The callback itself comes later, or never if it is discarded, in which case the signal is lost. No
thread is spent on a wait.

    pending --signal, timeout, close of the object--> on its way --delivered--> queued --worker--> running
    pending --withdrawn (set again, disarmed, closed)--> over
    on its way --wait(cancel_pending=True), group cancel--> discarded
    on its way --this object is closed, or its pool stopped--> over, the signal given back

A thread that signals may be held up while a wait is on its way, and no thread can withdraw it then. So what is on
its way counts as queued: it is waited for, and can be discarded.

Source: "SetThreadpoolWait", "SetThreadpoolWaitEx"; "Wait Functions".
"""

from contextvars import Context
from typing import Any

from ..kernel.clock import Cancellable, Due, WallCall, read_due
from ..kernel.registered_wait import CallbackBlock
from ..kernel.waitable import prepare_wait
from ..status import Status
from .callback_object import ClockedObject
from .core import CallbackCore
from .fair_queue import ObjectCallback


class Registration:
    """What one `set` asked for, and what the kernel calls with the status when its wait is decided."""

    __slots__ = ("block", "context", "limit", "owner")

    # The kernel's wait.
    block: CallbackBlock

    def __init__(self, owner: "Wait", context: Context) -> None:
        self.owner: Wait = owner
        self.context: Context = context
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


class WaitCore(CallbackCore):
    """The inside of a `Wait`."""

    __slots__ = ("registrations",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Guarded by the port's lock. Those that may still bring a callback: the one set last while it is pending,
        # and all that are on their way.
        self.registrations: list[Registration] = []

    def replace(self, registration: Registration | None) -> bool:
        """Have another wait, or none; return whether a pending one was withdrawn."""
        with self.port.lock:
            former = list(self.registrations)
            if registration is not None:
                self.registrations.append(registration)
        if not former:
            return False
        withdrawn = [each.withdraw() for each in former]
        with self.port.lock:
            self._drop_withdrawn_locked()
        return any(withdrawn)

    def _drop_withdrawn_locked(self) -> None:
        self.registrations = [each for each in self.registrations if not each.withdrawn()]

    def disarm(self) -> None:
        """Wait for nothing any more."""
        self.replace(None)

    def transit_locked(self) -> int:
        """The number of waits that are on their way."""
        return sum(each.on_its_way() for each in self.registrations)

    def forget_locked(self) -> int:
        """Forget those that are on their way; return how many there were."""
        before = len(self.registrations)
        self.registrations = [each for each in self.registrations if not each.on_its_way()]
        return before - len(self.registrations)


class Wait(ClockedObject):
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

    __slots__ = ()

    _core: WaitCore
    _kind = WaitCore

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
        core = self._core
        if waitable is None:
            if core.closed or core.port.forked:
                core.require_open()
            return core.replace(None)
        if core.closed or core.port.ending:
            core.require_live()
        when, absolute = (None, False) if timeout is None else read_due(timeout)
        registration = Registration(self, core.capture())
        block = registration.block = prepare_wait(waitable, registration)
        withdrawn = core.replace(registration)
        # Replaced or disarmed by another thread meanwhile, it does not begin.
        block.begin(None if absolute else when, core.clock)
        if absolute and when is not None and block.status is Status.PENDING:
            limit = registration.limit = WallCall(core.clock, when, block.expire)
            if block.status is not Status.PENDING:
                limit.cancel()
        return withdrawn

    def _deliver(self, registration: Registration, status: Status) -> None:
        if registration.limit is not None:
            registration.limit.cancel()
        core = self._core
        port = core.port
        with port.lock:
            if registration not in core.registrations:
                return  # Discarded on its way.
            core.registrations.remove(registration)
            wanted = not core.closed and not port.stopped
            if wanted:
                todo = port.push_locked(ObjectCallback(core, self, registration.context, (status,)))
            else:
                todo = core.quiet_locked(), 0, False
        port.act(todo)
        if not wanted:
            registration.block.abandon()
