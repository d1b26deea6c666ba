"""Operations with pipes on a binding: what a caller passes for a pipe.

Theory of operation. A caller passes nothing for a pipe and finds this side's end on the call, or passes an iterable for
a pipe that it would push: then the library pushes what the iterable yields. A call by `begin` or `stream` is fed from a
thread of the default pool, or, if an iterable is asynchronous, by a task of the running event loop; a blocking call is
fed by the calling thread. An iterable that raises ends its call.

    upload("name", lines)                        stream-unary
    for line in download.stream("name"): ...     unary-stream; `async for` likewise
    for line in convert.stream(lines): ...       stream-stream

Source: "Asynchronous Pipes". Iterables are an addition.
"""

import inspect
from collections.abc import AsyncIterable, Iterable
from contextvars import copy_context
from functools import partial
from typing import Any

from transport.foreign import text_of, type_name

from ...errors import CallError, EngineError, InvalidArgumentType, InvalidParameter
from ...kernel.loops import holding, loop_to_hold
from ...kernel.thread import blocking
from ...pool.pool import default_pool
from ..call import Call, abandon, handle_of, pipes_of
from ..contract.spec import OperationSpec
from ..errors import BadStubData, CallCancelled
from ..notify import snapshot
from ..pipes.pipe import CallOver, PipeState
from ..pipes.stream import Stream
from .binding import BoundOperation
from .buffers import filling
from .carrier import Carrier
from .pipes import ClientPipes

# What is pushed into which pipe.
Feeds = list[tuple[PipeState, Any]]

# Feeding tasks: an event loop refers to its tasks weakly. Guarded by the atomicity of adding and discarding.
_tasks: set[Any] = set()


class PipedOperation(BoundOperation):
    """An operation with pipes, of one binding.

    Positional arguments are the operation's own without its pipes. If there are more of them, they stand in their
    places among all parameters but the pipes that the server pushes, and those for pipes are iterables. An iterable may
    also be given by the parameter's name.
    """

    def __init__(self, carrier: Carrier, spec: OperationSpec, doc: str | None) -> None:
        super().__init__(carrier, spec, doc)
        self._carrier = carrier
        assert spec.signature is not None
        self._pushed = [pipe for pipe in spec.pipes if pipe.inbound]
        names = {pipe.name for pipe in spec.pipes}
        parameters = [p for p in spec.signature.parameters.values() if p.name not in names]
        self._plain: inspect.Signature = spec.signature.replace(parameters=parameters)

    def begin(
        self,
        *args: Any,
        notify: Any = None,
        timeout: float | None = None,
        metadata: dict[str, str] | None = None,
        handle: Call[Any] | None = None,
        send_complete: bool = False,
        into: Any = None,
        **kwargs: Any,
    ) -> Call[Any]:
        """Begin the call and return its handle at once; the pipes are on it: `call.pipe(name)`.

        Args: as `BoundOperation.begin`, and
            send_complete: signal SEND_COMPLETE too: when the call was issued, and after each push as soon as the next
                one would be taken. RECEIVE_COMPLETE follows each pull that said "pending" in any case.
        Source: "RPC_ASYNC_STATE" (RPC_C_NOTIFY_ON_SEND_COMPLETE).
        """
        call, feeds = self._issue(args, kwargs, notify, timeout, metadata, handle, send_complete, into)
        _feed_aside(call, feeds)
        return call

    def __call__(
        self, *args: Any, timeout: float | None = None, metadata: Any = None, into: Any = None, **kwargs: Any
    ) -> Any:
        """Call the server, push what the iterables yield, wait, and return the result."""
        if any(pipe.outbound for pipe in self.spec.pipes):
            raise InvalidParameter(f"{self.name} has a pipe to pull: use `.stream(...)`, or `.begin(...)`")
        if (loop := loop_to_hold()) is not None:
            with holding(loop):
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
        pipes = ClientPipes(self._carrier, call, self.spec, notify, send_complete)
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
            except CallOver:
                pass  # Its outcome is for the holder of the handle.
            except BaseException as error:
                failed(error)

        try:
            default_pool().post(partial(copy_context().run, run))
        except EngineError:
            abandon(call)
            raise
        return

    import asyncio  # Takes longer to import than the whole engine; a program with asynchronous iterables has it.

    async def run_in_task() -> None:
        try:
            await _feed_in_task(feeds)
        except CallOver:
            pass  # As above.
        except BaseException as error:
            failed(error)
            if not isinstance(error, Exception):
                raise

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        abandon(call)
        raise InvalidArgumentType("an asynchronous iterable needs a running event loop to be iterated in") from None
    task = loop.create_task(run_in_task())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
