"""The interceptors of a client: calls begin and end through them.

Theory of operation. Bindings of a client that has interceptors begin calls by `Interception.around(begin)`, which runs
what comes before the call, in a copy of the caller's context. Then the call is as any other, until its outcome is
there: it leaves the table of its connection for that of the interception, where it stays outstanding, and a thread of
the default pool runs what comes after the call. What is left of the outcome is then the outcome: who waits is woken,
and who is to be notified is. A blocking call is spared that: its thread runs what comes after it.

    a connection's table --its outcome--> the interception's table --resumed, on the pool--> its outcome

A call that its caller cancels abortively, or by closing the client, has its interceptors resumed there and then.
Without interceptors nothing of this is on the way of a call: bindings begin calls as the carrier does.

Guarantees: a call has one outcome, whatever its interceptors do; they are resumed once.
"""

from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from functools import partial
from itertools import count
from typing import Any
from weakref import WeakMethod

import msgspec

from transport.foreign import is_interrupt

from ...errors import EngineError, InvalidState, QueueFull, status_in
from ...kernel.aio import Completion
from ...kernel.notification import Notification
from ...pool.pool import default_pool
from ...status import Status
from ..call import (
    Call,
    CallCarrier,
    abandon,
    adopt,
    carrier_of,
    give_up_at_fork,
    handle_of,
    read,
    surround,
    uncover,
)
from ..contract.spec import OperationSpec
from ..errors import CallCancelled, CallFailed
from ..interceptors import Around, Interceptor, OutgoingCall, check_interceptor
from ..notify import snapshot
from ..state import Failure, Outcome, Reply, Settled, status_of
from ..wire_types import check_metadata
from .call_table import CallTable
from .carrier import Begin, Carrier

_NOTHING = msgspec.Raw(b"\xc0")


class Interception:
    """The interceptors of one client, and the calls that are answered and wait for them.

    Args: `beside`: a table of the client; `endpoint`: where it calls; `max_calls`: how many may wait.
    """

    def __init__(self, interceptors: tuple[Interceptor, ...], beside: CallTable, endpoint: str, max_calls: int) -> None:
        self._max_calls = max_calls
        # The outermost first. Replaced as a whole.
        self.interceptors: tuple[Interceptor, ...] = interceptors
        self.endpoint: str = endpoint
        self.table: CallTable = CallTable(beside)
        # Numbers of calls that no server is asked for: those of the others are above 0.
        self._numbers = count(-1, -1)
        # What operations of bindings do when interceptors are added. Single atomic operations only.
        self._followers: set[WeakMethod[Callable[[], None]]] = set()

    def follow(self, equip: Callable[[], None]) -> None:
        """Have a bound method called now, and whenever interceptors are added; it is referred to weakly."""
        self._followers.add(WeakMethod(equip, self._followers.discard))
        equip()  # Afterwards: one that is added meanwhile is not missed.

    def add(self, interceptor: Interceptor) -> None:
        """Have `interceptor` run around those that there are."""
        check_interceptor(interceptor)
        with self.table.lock:
            self.interceptors = (interceptor, *self.interceptors)
        for follower in self._followers.copy():
            equip = follower()
            if equip is not None:
                equip()

    def around(self, begin: Begin) -> Begin:
        """Return what begins calls as `begin` does, through the interceptors."""
        return partial(self._begin, begin)

    def _begin(
        self, begin: Begin, spec: OperationSpec, args: tuple[Any, ...], kwargs: dict[str, Any] | None, notify: Any,
        timeout: float | None, metadata: dict[str, str] | None, handle: Call[Any] | None, pipes: Any = None,
    ) -> Call[Any]:  # fmt: skip
        if len(self.table.calls) >= self._max_calls:
            raise QueueFull(
                f"{len(self.table.calls)} calls are answered and wait for their interceptors, max_calls allows no more"
            )
        handle = Call() if handle is None else handle_of(handle)
        around, call, wrong = self._open(spec, args, kwargs, timeout, metadata)
        try:
            if around.proceeds(self.interceptors, wrong):
                surround(handle, around)
                more = () if pipes is None else (pipes,)
                return begin(spec, tuple(call.args), None, notify, call.timeout, call.metadata or None, handle, *more)
            error = around.end(None)
        except BaseException as raised:
            uncover(handle, around)
            error = around.end(raised)
            if error is raised:
                raise
        if error is not None:
            raise error
        return self._answered(handle, spec, notify, pipes, call.result)

    def call(
        self, begin: Begin, spec: OperationSpec, args: tuple[Any, ...], kwargs: dict[str, Any] | None,
        timeout: float | None, metadata: dict[str, str] | None,
    ) -> Any:  # fmt: skip
        """Make a blocking call through the interceptors, all of it in this thread; return the result, or raise."""
        around, call, wrong = self._open(spec, args, kwargs, timeout, metadata)
        error: BaseException | None = None
        try:
            if around.proceeds(self.interceptors, wrong):
                handle = begin(spec, tuple(call.args), None, None, call.timeout, call.metadata or None, None)
                try:
                    handle.wait()
                except BaseException:
                    abandon(handle)
                    raise
                call.endpoint = carrier_of(handle).connection.endpoint
                call.result = handle.complete()
        except BaseException as raised:
            error = around.end(raised)
            if error is raised:
                raise
        else:
            error = around.end(None)
        if error is not None:
            raise error
        return call.result

    def _open(
        self, spec: OperationSpec, args: tuple[Any, ...], kwargs: dict[str, Any] | None, timeout: float | None,
        metadata: dict[str, str] | None,
    ) -> "tuple[CallAround, OutgoingCall, EngineError | None]":  # fmt: skip
        """Return what runs around a call that is to be begun, the call as that finds it, and what is wrong with it."""
        target = spec.target
        version = (target.major, target.minor)
        call = OutgoingCall(
            target.interface, target.operation, version, list(args), {}, spec.one_way,
            timeout=timeout, endpoint=self.endpoint,
        )  # fmt: skip
        wrong: EngineError | None = None
        try:
            call.args = list(spec.arrange(args, kwargs or {}))
            call.metadata = {} if metadata is None else check_metadata(metadata)
        except EngineError as misuse:  # They may see it: it is what the call ends with.
            wrong = misuse
        return CallAround(self, call), call, wrong

    def _answered(self, handle: Call[Any], spec: OperationSpec, notify: Any, pipes: Any, result: Any) -> Call[Any]:
        """Return a call that no server was asked for: an interceptor has answered it."""
        if pipes is not None:
            raise InvalidState(f"{spec.name} has pipes: an interceptor can let it proceed or raise, and not answer it")
        target: Notification | None = snapshot(notify)
        number = next(self._numbers)
        adopt(handle, self, spec, target, number, None)
        with self.table.lock:
            self.table.calls[number] = handle
            self.table.need_driver += target is not None and target.needs_driver
        self.table.finish(number, _settled(0, result=result))
        return handle

    def disable(self) -> None:
        """This is the copy of a forked child: end what is outstanding."""
        while self.table.calls:
            _, call = self.table.calls.popitem()
            give_up_at_fork(call, Failure(CallFailed("the call was begun before fork(): its reply goes to the parent")))

    # What calls ask for that wait here: see `CallCarrier`

    def expect(self, call_id: int, call: Call[Any]) -> Completion | None:
        """Return what the running event loop can await until `call` has its outcome; None if it has it."""
        completion = Completion()
        return completion if self.table.await_outcome(call_id, call, completion) else None

    def give_up_waiting(self, call_id: int, call: Call[Any], completion: Completion | None) -> None:
        """Cancel `call`, if no thread or task waits for it any more."""
        if self.table.is_given_up(call_id, call, completion):
            self.cancel(call_id, call, abort=True)

    def cancel(self, call_id: int, call: Call[Any], abort: bool) -> None:
        """With `abort`, end the call here: its interceptors go on, and their result goes nowhere."""
        if abort:
            self.table.finish(call_id, Failure(CallCancelled("cancelled by its caller")))

    def silence(self) -> str:
        """Nothing: a server has answered."""
        return ""

    def _expire(self, *call: Any) -> None:
        """The time limit of a call is over, which was answered within it."""


class CallAround(Around):
    """The interceptors around one call of a client, in a context of their own."""

    __slots__ = ("_context", "home")

    call: OutgoingCall

    def __init__(self, home: Interception, call: OutgoingCall) -> None:
        super().__init__(call)
        self.home: Interception = home
        self._context: Context = copy_context()

    def begin(self, interceptors: Iterable[Interceptor]) -> bool:
        return self._context.run(super().begin, interceptors)

    def proceeds(self, interceptors: Iterable[Interceptor], wrong: EngineError | None) -> bool:
        """Begin them; whether the call is to be begun now. Raises what they raise, or what is `wrong` with the call."""
        proceeds = self.begin(interceptors)
        if wrong is not None:
            raise wrong
        return proceeds

    def end(self, error: BaseException | None) -> BaseException | None:
        return self._context.run(super().end, error)

    def resume(self, call_id: int, spec: OperationSpec, outcome: Outcome, carrier: CallCarrier | None) -> None:
        """The call has ended so at `carrier`: see `Resumed`."""
        now = partial(self._settle, call_id, spec, outcome, carrier)
        if type(outcome) is Failure and type(outcome.error) is CallCancelled:
            now()  # In the thread of who has cancelled it, and may complete it next.
            return
        try:
            default_pool().post(now)
        except EngineError:  # The process ends.
            now()

    def _settle(self, call_id: int, spec: OperationSpec, outcome: Outcome, carrier: CallCarrier | None) -> None:
        if isinstance(carrier, Carrier):
            self.call.endpoint = carrier.connection.endpoint
        failed: BaseException | None = None
        try:
            self.call.result = read(spec, outcome)
        except BaseException as raised:
            failed = raised
        error = self.end(failed)
        if error is None:
            status = 0
        else:
            status = status_of(outcome) if error is failed else status_in(error, Status.CALL_FAILED)
        trailing = outcome.metadata if isinstance(outcome, Reply) else None
        self.home.table.finish(call_id, _settled(status, trailing, self.call.result, error))
        if error is not None and is_interrupt(error):
            raise error


def _settled(
    status: int, metadata: dict[str, str] | None = None, result: Any = None, error: BaseException | None = None
) -> Settled:
    return Settled(status, _NOTHING, metadata=metadata, result=result, error=error)
