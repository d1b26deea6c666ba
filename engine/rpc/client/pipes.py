"""Pipes at the client: operations with pipes on a binding, what a caller passes for a pipe, and the ends of one call.

Theory of operation. A caller passes nothing for a pipe and finds this side's end on the call, or passes an iterable for
a pipe that it would push: then the library pushes what the iterable yields. A call by `begin` or `stream` is fed from a
thread of the default pool, or, if an iterable is asynchronous, by a task of the running event loop; a blocking call is
fed by the calling thread. An iterable that raises ends its call.

    upload("name", lines)                        stream-unary
    for line in download.stream("name"): ...     unary-stream; `async for` likewise
    for line in convert.stream(lines): ...       stream-stream

The pipes are made before the call is begun and hang on its handle, so that what the server pushes finds them. They wait
for the call's outcome as a thread would (`wake`): the call's table notifies no other target, and the signals of the
pipes and of the call reach the caller's target through one queue, call-complete last. A push or pull that fails aborts
the call, notifies the server, and throws the outcome away: the handle is spent.

Source: "Asynchronous Pipes", "Client-side Asynchronous Pipe Handling", "Asynchronous Pipe State". Iterables are an
addition.
"""

import inspect
from collections.abc import AsyncIterable, Iterable
from contextvars import copy_context
from functools import partial
from typing import Any, NoReturn

from transport import Buffer
from transport.foreign import text_of, type_name
from transport.frames import Cancel, CancelledCall
from transport.wire.codec import encode

from ...errors import CallError, EngineError, InvalidArgumentType, InvalidAsyncHandle, InvalidParameter
from ...kernel.aio import start_task
from ...kernel.checks import check_flag, check_names
from ...kernel.loops import holding, loop_to_hold
from ...kernel.notification import Notification
from ...kernel.thread import blocking
from ...pool.pool import default_pool
from ..call import Call, abandon, carrying, handle_of, pipes_of, progress_of, throw_away
from ..contract.spec import OperationSpec
from ..errors import BadStubData, CallCancelled
from ..notify import EventKind, Notify, snapshot
from ..pipes.pipe import CallOver, PipeState, Progress
from ..pipes.pipe_set import PipeSet
from ..pipes.shipment import Shipment
from ..pipes.signals import Signals
from ..pipes.stream import Stream
from ..state import Failure
from .binding import BoundOperation, Starter, awaited
from .buffers import filling
from .carrier import Carrier
from .interception import Interception

# What is pushed into which pipe.
Feeds = list[tuple[PipeState, Any]]


class ClientPipes(PipeSet):
    """The pipes of one call, at the client."""

    def __init__(
        self, carrier: Carrier, call: Call[Any], spec: OperationSpec, notify: Notification | None, send_complete: bool
    ) -> None:
        check_flag("send_complete", send_complete)
        signals = Signals(call, notify)
        window, limit = carrier.session.pipe_window, carrier.connection.pipe_window
        # The number of the call is set as the handle takes it.
        super().__init__(spec.pipes, True, spec.duplex, window, limit, signals, send_complete, 0, carrier.channel)
        self.call = call
        self.carrier: Carrier = carrier
        self._carrier = carrier
        # The notification does not change: `wake` takes from the count what `begun` has added.
        self._needs_driver = notify is not None and notify.needs_driver
        # Set once, by the push or pull that failed.
        self._spent = False

    def begun(self) -> None:
        """The call was accepted: wait for its outcome, and notify the caller then."""
        carrier = self._carrier
        if self._needs_driver:
            carrier.need_driver(1)
        for act in self.opened(carrier.session.pipe_window):  # It may have been said since this was made.
            act()
        if self.send_complete and any(pipe.sends for pipe in self.pipes):
            self.signals.add(EventKind.SEND_COMPLETE)  # The issue counts as a send.
            self.signals.deliver()
        if not carrier.table.await_outcome(self.number, self.call, self):
            self.wake()

    def wake(self) -> None:
        """The call has its outcome: release the threads and tasks that wait for a pipe, and notify the caller."""
        with self.lock:
            waiters = self.release_locked()
            self.signals.add(EventKind.CALL_COMPLETE, last=True)
        for waiter in waiters:
            waiter.wake()
        self.signals.deliver()
        if self._needs_driver:
            self._carrier.need_driver(-1)

    def check_complete(self) -> None:
        """The call is to be completed: raise `PipeError` 1917 if its pipes are not at their end, unless it failed."""
        with self.lock:
            progress = self.progress_locked()
            error = self.unprocessed_locked()
        if progress is Progress.COLLECTED or error is None:
            return
        if progress is Progress.ENDED and self.call.status() != 0:
            return
        self.broken(error)
        raise error

    def progress_locked(self) -> Progress:
        return Progress.COLLECTED if self._spent else progress_of(self.call, self)

    def broken(self, error: CallError) -> None:
        self._spent = True
        self.signals.mute()
        if pipes_of(self.call) is self:  # Else the handle carries another call by now.
            self._carrier.cancel(self.number, self.call, abort=True)
            throw_away(self.call)

    def given_up(self) -> None:
        if pipes_of(self.call) is self and not self._spent:
            self._carrier.give_up_waiting(self.number, self.call, None)

    def raise_outcome(self) -> NoReturn:
        if pipes_of(self.call) is self and not self._spent:
            self.call.complete()
        raise InvalidAsyncHandle("the call of this pipe is over")

    def fail(self, error: CallError) -> None:
        """End the call, for a reason that the server does not know."""
        if self._carrier.table.finish(self.number, Failure(error)):
            self._carrier.tell_cancel(self.number, True)

    def drop(self) -> None:
        """Notify the server that no thread is going to complete the call; the reply to that ends it here.

        Takes no lock, because a finalizer calls it: the message leaves before the next wait of any thread.
        """
        if not self._spent:
            self._carrier.send(encode(Cancel([CancelledCall(self.number, True)])), soon=True)

    def ship(self, shipment: Shipment) -> None:
        self._carrier.ship(shipment)

    def send(self, frames: list[Buffer]) -> None:
        self._carrier.send(frames)

    def check_size(self, pipe: PipeState, size: int) -> None:
        self._carrier.session.limit.check_push(pipe.name, size)


class PipedOperation(BoundOperation):
    """An operation with pipes, of one binding.

    Positional arguments are the operation's own without its pipes. If there are more of them, they stand in their
    places among all parameters but the pipes that the server pushes, and those for pipes are iterables. An iterable may
    also be given by the parameter's name.
    """

    def __init__(self, starter: Starter, interception: Interception, spec: OperationSpec, described: Any) -> None:
        super().__init__(starter, interception, spec, described)
        assert spec.signature is not None
        self._pushed = [pipe for pipe in spec.pipes if pipe.inbound]
        names = {pipe.name for pipe in spec.pipes}
        parameters = [p for p in spec.signature.parameters.values() if p.name not in names]
        self._plain: inspect.Signature = spec.signature.replace(parameters=parameters)

    def begin(
        self,
        *args: Any,
        notify: Notify[Call[Any]] = None,
        timeout: float | None = None,
        metadata: dict[str, str] | None = None,
        handle: Call[Any] | None = None,
        send_complete: bool = False,
        into: Any = None,
        user_data: Any = None,
        **kwargs: Any,
    ) -> Call[Any]:
        """Begin the call and return its handle at once; the pipes are on it: `call.pipe(name)`.

        Args: as `BoundOperation.begin`, and
            send_complete: signal SEND_COMPLETE too: when the call was issued, and after each push as soon as the next
                one would be taken. RECEIVE_COMPLETE follows each pull that said "pending" in any case.
        Source: "RPC_ASYNC_STATE" (RPC_C_NOTIFY_ON_SEND_COMPLETE).
        """
        handle = carrying(handle, user_data)
        call, feeds = self._issue(args, kwargs, notify, timeout, metadata, handle, send_complete, into)
        _feed_aside(call, feeds)
        return call

    def __call__(
        self,
        *args: Any,
        timeout: float | None = None,
        metadata: dict[str, str] | None = None,
        into: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Call the server, push what the iterables yield, wait, and return the result."""
        if any(pipe.outbound for pipe in self.spec.pipes):
            raise InvalidParameter(f"{self.name} has a pipe to pull: use `.stream(...)`, or `.begin(...)`")
        if (loop := loop_to_hold()) is not None:
            with holding(loop, awaited(self)):
                return self(*args, timeout=timeout, metadata=metadata, into=into, **kwargs)
        call, feeds = self._issue(args, kwargs, None, timeout, metadata, None, False, into)
        try:
            if len(feeds) < len(self.spec.pipes) or any(not isinstance(items, Iterable) for _, items in feeds):
                raise InvalidArgumentType(f"{self.name}: each pipe of a blocking call needs an iterable")
            try:
                _feed(feeds)
            except CallOver:
                pass  # The outcome says why.
            call.wait()
        except BaseException:
            abandon(call)
            raise
        return call.complete()

    def stream(
        self,
        *args: Any,
        timeout: float | None = None,
        metadata: dict[str, str] | None = None,
        into: Any = None,
        **kwargs: Any,
    ) -> Stream[Any, Any]:
        """Begin the call and return what is to be iterated over: the elements of the one pipe that is to be pulled.

        Args: as `begin`; each pipe that is to be pushed needs an iterable.
        """
        outputs = [pipe for pipe in self.spec.pipes if pipe.outbound]
        if len(outputs) != 1:
            raise InvalidParameter(f"{self.name} has {len(outputs)} pipes to pull, not one: use `.begin(...)`")
        call, feeds = self._issue(args, kwargs, None, timeout, metadata, None, False, into)
        missing = {pipe.name for pipe in self.spec.pipes if pipe.inbound} - {pipe.name for pipe, _ in feeds}
        if missing:
            abandon(call)
            raise InvalidArgumentType(f"{self.name}: an iterable is needed for {', '.join(sorted(missing))}")
        _feed_aside(call, feeds)
        return Stream(call, call.pipe(outputs[0].name))

    def _issue(
        self, args: Any, kwargs: Any, notify: Any, timeout: Any, metadata: Any, handle: Any, send_complete: bool,
        into: Any,
    ) -> tuple[Call[Any], Feeds]:  # fmt: skip
        spec = self.spec if into is None else filling(self.spec, into)
        if notify is not None:
            notify = snapshot(notify)
        call: Call[Any] = Call() if handle is None else handle_of(handle)
        values, given = self._arrange(args, kwargs)
        pipes = ClientPipes(self._starter.place(), call, self.spec, notify, send_complete)
        feeds: Feeds = []
        for name, items in given.items():
            pipe = pipes.find(name)
            pipe.fed = True
            feeds.append((pipe, items))
        self._begin(spec, values, None, None, timeout, metadata, call, pipes)
        pipes.begun()
        return call, feeds

    def _arrange(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments in wire order, with None for each pipe, and the iterables by the names of their pipes,
        in the order of the parameters.
        """
        spec = self.spec
        check_names(self.name, "parameter", kwargs, spec.parameters)
        found: dict[str, Any] = {}
        plain = list(args)
        if len(args) > len(self._plain.parameters):
            passed = spec.pipes if len(args) == len(spec.parameters) else self._pushed
            for pipe in spec.pipes:  # From left to right, so that each position is the final one.
                if pipe not in passed:
                    plain.insert(pipe.position, None)
            if len(plain) != len(spec.parameters):
                raise InvalidArgumentType(f"{self.name}{spec.signature}: {len(args)} arguments do not fit")
            for pipe in reversed(spec.pipes):
                found[pipe.name] = plain.pop(pipe.position)
        for pipe in spec.pipes:
            if pipe.name in kwargs:
                if found.get(pipe.name) is not None:
                    raise InvalidArgumentType(f"{self.name}: pipe {pipe.name!r} is given twice")
                found[pipe.name] = kwargs.pop(pipe.name)
        given = {pipe.name: found[pipe.name] for pipe in spec.pipes if found.get(pipe.name) is not None}
        for pipe in spec.pipes:
            items = given.get(pipe.name)
            if items is None:
                continue
            if not pipe.inbound:
                raise InvalidArgumentType(f"{self.name}: pipe {pipe.name!r} is pushed by the server; leave it out")
            if isinstance(items, (str, bytes)) or not isinstance(items, (Iterable, AsyncIterable)):
                raise InvalidArgumentType(f"{self.name}: pipe {pipe.name!r} takes an iterable, not {type_name(items)}")
        try:
            bound = self._plain.bind(*plain, **kwargs)
        except TypeError as error:
            why = text_of(error)
            raise InvalidArgumentType(f"{self.name}{text_of(self._plain)}, without its pipes: {why}") from None
        bound.apply_defaults()
        values = list(bound.arguments.values())
        for pipe in spec.pipes:
            values.insert(pipe.position, None)
        return tuple(values), given


def operation_kind(spec: OperationSpec) -> type[BoundOperation]:
    """The class of an operation on a binding."""
    return PipedOperation if spec.pipes else BoundOperation


def _feed(feeds: Feeds) -> None:
    for pipe, items in feeds:
        for item in items:
            pipe.owner.feed(pipe, (item,))
        pipe.owner.feed(pipe, ())


async def _feed_in_task(feeds: Feeds) -> None:
    for pipe, items in feeds:
        if isinstance(items, AsyncIterable):
            async for item in items:
                await pipe.owner.feed_async(pipe, (item,))
        else:
            for item in items:
                await pipe.owner.feed_async(pipe, (item,))
        await pipe.owner.feed_async(pipe, ())


def _feed_aside(call: Call[Any], feeds: Feeds) -> None:
    """Feed a call from somewhere else; what goes wrong there ends the call."""
    if not feeds:
        return
    pipes: ClientPipes = pipes_of(call)

    def failed(error: BaseException) -> None:
        if type(error) is CallOver:
            return  # Its outcome is for the holder of the handle.
        if type(error) is BadStubData and error.args:
            failure: CallError = BadStubData(text_of(error.args[0]))
        else:
            failure = CallCancelled(f"what was to be pushed ended with {type_name(error)}: {text_of(error)}")
        failure.__cause__ = error
        pipes.fail(failure)

    if not any(isinstance(items, AsyncIterable) for _, items in feeds):

        def run() -> None:
            try:
                with blocking():  # What the iterable waits for is not known.
                    _feed(feeds)
            except BaseException as error:
                failed(error)

        try:
            default_pool().post(partial(copy_context().run, run))
        except EngineError:
            abandon(call)
            raise
        return

    async def run_in_task() -> None:
        try:
            await _feed_in_task(feeds)
        except BaseException as error:
            failed(error)
            if not isinstance(error, Exception):
                raise

    try:
        start_task(run_in_task)
    except RuntimeError:
        abandon(call)
        raise InvalidArgumentType("an asynchronous iterable needs a running event loop to be iterated in") from None
