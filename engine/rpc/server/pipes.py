"""The server's ends of one call's pipes, and the routines that use them.

Theory of operation. A call that brings pipes gets its ends of them as it arrives, because elements may follow at once.
Before its routine runs, the ends are put in their places among its arguments (see `routines.py`). A generator or an
asynchronous generator serves the operation's one out pipe: what it yields is pushed, its end is the end of the stream,
what it returns is the result.

A push or pull that fails closes the call with that status; what the routine then does with the error changes nothing.
When the client cancels for good, or is gone, the pipes fail at once, so that no routine waits for a reader that left.

Source: "Server-side Asynchronous Pipe Handling", "Asynchronous Pipe State".
"""

from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import suppress
from inspect import GEN_CREATED, getgeneratorstate
from operator import attrgetter
from types import AsyncGeneratorType, FrameType, GeneratorType
from typing import Any, NoReturn

from transport import Buffer
from transport.errors import RemoteProtocolError
from transport.frames import Chunks, Credit, Grant
from transport.log import Log

from ...errors import CallError, InvalidArgumentType, InvalidAsyncHandle, InvalidParameter
from ...kernel.checks import check_flag
from ..errors import BadStubData, PeerProtocolError, PipeError
from ..notify import EventKind, snapshot
from ..pipes.pipe import UNBOUNDED, PipeState, Progress
from ..pipes.pipe_set import PipeSet
from ..pipes.shipment import Shipment
from ..pipes.signals import Signals
from .answers import Answers
from .open_call import OpenCall

log: Log = Log("engine.rpc")


class ServerPipes(PipeSet):
    """The pipes of one call, at the server."""

    def __init__(self, answers: Answers, call: OpenCall, limit: int) -> None:
        spec, window = call.entry.spec, call.peer.session.limits.pipe_window_bytes or UNBOUNDED
        signals, channel = Signals(call, None), answers.channel
        super().__init__(spec.pipes, False, spec.duplex, window, limit, signals, False, call.id, channel)
        self.call = call
        self._answers = answers
        # Guarded by lock. Why nothing moves any more; each failure is raised as an error of its own.
        self._failure: Callable[[], CallError] | None = None
        self._closed = False
        # Set once: the error that closed the call, and that the routine got.
        self.closed_by: CallError | None = None

    def notify(self, notify: Any, send_complete: bool, handle: object) -> None:
        """Choose what is notified, and of what."""
        check_flag("send_complete", send_complete)
        self.signals.notify = snapshot(notify)
        self.signals.subject = handle
        self.send_complete: bool = send_complete

    def fail(self, kind: type[CallError], text: str) -> list[Callable[[], object]]:
        """The client is gone, or has given the call up: nothing moves any more. Returns what is to be done then."""
        with self.lock:
            if self._failure is not None or self._closed:
                return []
            self._failure = lambda: kind(text)
            waiters = self.release_locked()
            pulls = any(map(attrgetter("pull_pending"), self.pipes))
            pushes = any(map(attrgetter("push_pending"), self.pipes))
            if pulls:
                self.signals.add(EventKind.RECEIVE_COMPLETE)
            if pushes:
                self.signals.add(EventKind.SEND_COMPLETE)
        return self._actions(waiters, pulls or pushes)

    def close(self) -> None:
        """The call was closed: wake the threads that still wait for one of its pipes."""
        self.signals.mute()
        with self.lock:
            self._closed = True
            waiters = self.release_locked()
        for waiter in waiters:
            waiter.wake()

    def forked(self) -> None:
        """In a forked child: nothing moves here any more."""
        self._closed = True

    def before_complete(self) -> None:
        """The call is to be completed: close it with an error instead if its pipes failed, or are not at their end."""
        with self.lock:
            if self._closed:
                return  # Completing it will say so.
            error = self.unprocessed_locked() if self._failure is None else self._failure()
        if error is not None:
            self.broken(error)
            raise error
        self.close()

    def check_size(self, pipe: PipeState, size: int) -> None:
        self._answers.size_limit.check_push(pipe.name, size, self.call.peer.session.message_limit)

    def progress_locked(self) -> Progress:
        if self._closed:
            return Progress.COLLECTED
        return Progress.RUNNING if self._failure is None else Progress.ENDED

    def broken(self, error: CallError) -> None:
        self.closed_by = error
        self.close()
        with suppress(InvalidAsyncHandle):  # Closed before: that is what counts.
            self._answers.answer_fault(self.call, int(error.status), str(error.args[0]))

    def raise_outcome(self) -> NoReturn:
        with self.lock:
            failure = None if self._closed else self._failure
        if failure is None:
            raise InvalidAsyncHandle("the call of this pipe is over")
        error = failure()
        self.broken(error)
        raise error

    def ship(self, shipment: Shipment) -> None:
        self.call.peer.answers.append(shipment)
        self._answers.enqueue(self.call.peer)

    def send(self, frames: list[Buffer]) -> None:
        self._answers.send_alone(self.call.peer, frames)
        self._answers.channel.flush()

    def only_output(self) -> PipeState:
        """The pipe that a generator serves."""
        outputs = [pipe for pipe in self.pipes if pipe.sends]
        if len(outputs) != 1:
            raise InvalidParameter(f"a generator serves one out pipe, and this operation has {len(outputs)}")
        return outputs[0]


def take(calls: Mapping[int, object], message: Chunks | Credit) -> list[Callable[[], object]]:
    """Take elements of pipes, or credit for them. Calls that are closed have none. Under link.lock."""
    actions: list[Callable[[], object]] = []
    for item in message.chunks if isinstance(message, Chunks) else message.grants:
        call = calls.get(item.id)
        if not isinstance(call, OpenCall) or call.pipes is None:
            continue
        pipes: ServerPipes = call.pipes
        try:
            actions += pipes.granted(item) if isinstance(item, Grant) else pipes.arrived(item)
        except RemoteProtocolError as error:
            call.answers.admission.complaints.warning("%r: %s", call, error)
            actions += pipes.fail(PeerProtocolError, str(error))
    return actions


_ADVICE = "pipes need the Interface class that declares them, a binding by name has none"


def advice(call: OpenCall) -> str:
    """What to add to an error about the arguments of `call`: they do not fit if its caller knows nothing of pipes."""
    return f"; {_ADVICE}" if call.entry.spec.pipes and call.pipes is None else ""


def put_pipes(call: OpenCall, args: list[Any]) -> bool:
    """Put the server's ends of a call's pipes in their places among the arguments."""
    pipes: ServerPipes | None = call.pipes
    spec = call.entry.spec
    if pipes is None:
        raise BadStubData(f"{spec.name} has other pipes than the call says: {_ADVICE}")
    for pipe in spec.pipes:
        args[pipe.position] = pipes.ends[pipe.name]
    return True


def generated(pipes: ServerPipes, value: Any) -> Any:
    """Return what a routine has returned, or, if that generates elements, what comes of pushing them."""
    if type(value) is AsyncGeneratorType:
        return _serve_async(pipes, value)
    return _serve(pipes, value) if type(value) is GeneratorType else value


def ended_by(call: OpenCall, pipes: ServerPipes, error: BaseException) -> bool:
    """The routine raised `error`; whether the call was closed with that very error before."""
    if error is pipes.closed_by:
        level = log.error if isinstance(error, PipeError) else log.debug
        level("%r ended: %s", call, error)
        return True
    pipes.close()
    return False


def _serve(pipes: ServerPipes, generator: Generator[Any, Any, Any]) -> Any:
    """Push what the generator yields; return what it returns."""
    output = pipes.only_output()
    pipe = pipes.ends[output.name]
    try:
        while True:
            try:
                item = next(generator)
            except StopIteration as stop:
                result = stop.value
                break
            try:
                pipe.push_wait((item,))
            except InvalidArgumentType as error:
                raise _unsendable(error) from error
    finally:
        generator.close()
    if not output.ended:
        pipe.push(())
    return result


def pushes(frame: FrameType | None, call_id: int) -> bool:
    """Whether a thread with this stack pushes what the routine of the call generates: it has begun, though it is not on
    the stack.
    """
    while frame is not None and (frame.f_code is not _serve.__code__ or frame.f_locals["pipes"].call.id != call_id):
        frame = frame.f_back
    return frame is not None and getgeneratorstate(frame.f_locals["generator"]) != GEN_CREATED


async def _serve_async(pipes: ServerPipes, generator: AsyncGenerator[Any, Any]) -> None:
    """Push what the asynchronous generator yields."""
    output = pipes.only_output()
    pipe = pipes.ends[output.name]
    try:
        async for item in generator:
            try:
                await pipe.push_async((item,))
            except InvalidArgumentType as error:
                raise _unsendable(error) from error
    finally:
        await generator.aclose()
    if not output.ended:
        pipe.push(())


def _unsendable(error: InvalidArgumentType) -> BadStubData:
    """What the client gets for a yielded element that cannot be sent: the same as for a result."""
    return BadStubData(str(error.args[0]))
