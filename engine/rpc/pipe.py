"""Pipes: typed streams beside the arguments of a call, the same at both ends.

Theory of operation. An operation declares a pipe by an annotation; each end of the call then has a `Pipe` in its place.
Both ends are active: `push` encodes elements at once and hands them to the call's `PipeSet`, `pull` takes what has
arrived. What is pushed gathers in a shipment, which is one message: it leaves at once if nothing left for `GATHER`
seconds, else with the next library wait or tick, so that elements that follow each other closely travel together.

    push -> shipment -> queue of the connection ~~~ arrived -> chunks -> pull -> decode -> credit ~~~ granted -> push

A window bounds what is on the way: pushing takes the encoded bytes off it, and the reader gives them back (credit) as
its program pulls. While the window is not above zero a push is not taken: `push` says "pending" (997), its twins wait.
So a slow reader stops a fast writer, and each end holds a window's worth of elements at the most, and one chunk.

Three forms of each verb: `pull` (now, or 997 and a signal later), `pull_wait` (the thread waits, driving the network),
`pull_async` (the task waits). Iterating is pulling until the end.

Guarantees: elements arrive in order, once; each end of a stream is seen once; whoever waits is woken when the call
ends, after its outcome was recorded. A push or pull that fails with anything but 997 ends the call.

Guarded by the set's lock: windows, chunks, flags and waiters of all its pipes. Guarded by a pipe's `reading`: decoded
elements. Lock order: link.lock, then `reading`, then the set's lock, then that of its signals; the queue that shipments
are appended to takes no lock.

Source: "Asynchronous Pipes", "Asynchronous Pipe State", "Client-side Asynchronous Pipe Handling", "Server-side
Asynchronous Pipe Handling", "Rules for Multiple Pipes". Different from Windows: a push may be refused with 997 for want
of room, where Windows buffers without a bound; "send complete" means that the next push will be taken.
"""

import logging
from _thread import allocate_lock
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from time import monotonic
from typing import Any, Final, Generic, NoReturn, Protocol, TypeVar

import msgspec

from transport import PIPE_WINDOW_BYTES, Buffer, Credit, PayloadTooLarge, PipeChunk, RemoteProtocolError, encode
from transport import Pipe as PipeMessage
from transport import encode_value as encode_elements

from ..kernel.driver import driver
from ..kernel.errors import CallError, CallPending, InvalidArgumentType, InvalidParameter
from ..kernel.status import Status
from ..kernel.thread import park
from ..kernel.waiter import Waiter
from .errors import BadStubData, PipeError
from .notify import EventKind
from .signals import Signals

log = logging.getLogger("engine.rpc")

T = TypeVar("T")
R = TypeVar("R")

GATHER = 2e-3  # Seconds; the monitor's tick: what waits for company waits no longer.
SHIPMENT_BYTES = 16 * 1024  # A shipment of this size waits for no company; a message costs as much as 4 KiB of copying.
SHIPMENT_CHUNKS = 1024  # Far below what a message may have, and enough to make its own cost vanish.
BATCH = 1024  # Elements that iterating pulls at once, if they are there.
UNBOUNDED = 1 << 62  # The window of a peer that sets no limit, in bytes.

_EMPTY: Final = b"\x90"  # An encoded array of no elements.


class PipePending(CallPending):
    """Nothing can be pulled, or pushed, just now (997). The pipe and the call stay good, and a signal follows:
    RECEIVE_COMPLETE when there is something to pull, SEND_COMPLETE when there is room again."""


class CallOver(Exception):
    """The call has its outcome, or was collected: no pipe of it moves any more. Stays inside the package."""


class Wakeable(Protocol):
    """A thread or a task that waits."""

    def wake(self) -> None: ...


# One try to push or pull; if it has to be made again, it had a waiter made, which is woken at the right time.
Attempt = Callable[[Callable[[], Wakeable]], R]


class PipeSpec:
    """One parameter that is a pipe: where it stands, which way it goes, what its elements are."""

    __slots__ = ("decode", "direction", "inbound", "name", "outbound", "position")

    def __init__(self, name: str, position: int, direction: str, element: Any) -> None:
        self.name = name
        self.position = position
        # As on the wire: "i" to the server, "o" from it, "b" both.
        self.direction = direction
        self.inbound = direction in "ib"
        self.outbound = direction in "ob"
        self.decode: Callable[[Buffer | msgspec.Raw], list[Any]] = msgspec.msgpack.Decoder(list[element]).decode


class Pipe(Generic[T]):
    """One end of a pipe: push elements into it, pull elements out of it, or iterate over what comes.

    Which of them is allowed follows from the side and the declaration: the client pushes an `InPipe` and the server
    pulls it, and the other way round for an `OutPipe`; an `InOutPipe` goes first in, then out. Inputs come first, from
    left to right, each drained before the next; then the outputs. `@operation(duplex=True)` lifts that order.

    A push or pull that raises anything but `PipePending` ends the call on this side; there is nothing left to complete.
    What it may raise: `PipeError` 1916 (pushed after the end), 1918 (pulled after the end), 1831 (not its turn, or the
    wrong way); `BadStubData` (an element is not what the annotation says); the error that the call failed with;
    `InvalidAsyncHandle` (1914) if the call is over already. Only `InvalidArgumentType`, for elements that cannot be
    encoded, leaves the call as it was.

    Threads: any; elements pushed or pulled by several threads at once are divided between them.
    Source: "Asynchronous Pipes".
    """

    def __init__(self, owner: "PipeSet", index: int, spec: PipeSpec, sends: bool, receives: bool, limit: int) -> None:
        self.owner = owner
        self.index = index
        self.spec = spec
        self.sends = sends
        self.receives = receives
        # All below: guarded by the set's lock. `window` is what may still be pushed, in bytes.
        self.window = owner.base
        # The null push was made; an iterable is being pushed by the library.
        self.ended = False
        self.fed = False
        # A signal was promised: for room, for elements.
        self.push_pending = False
        self.pull_pending = False
        self.pushers: list[Wakeable] = []
        self.pullers: list[Wakeable] = []
        # What the peer may still send, and what it may send again as soon as that is worth a message.
        self.allowance = limit
        self.taken = 0
        self.chunks: deque[msgspec.Raw] = deque()
        # The end has arrived; it was pulled.
        self.finished = False
        self.drained = False
        # Elements that are decoded and not pulled, and the size of their chunk. Guarded by `reading`.
        self.reading = allocate_lock()
        self.items: deque[Any] = deque()
        self.items_bytes = 0

    @property
    def name(self) -> str:
        """The name of the parameter."""
        return self.spec.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {self.owner.signals.subject!r}>"

    # Pushing

    def push(self, elements: Iterable[T]) -> None:
        """Push elements; none of them ("the null push") ends the stream. They may change once this has returned.

        Raises: `PipePending` (997) if the reader is behind: nothing was pushed, and SEND_COMPLETE follows.
        Blocks: never.
        """
        raw = _encode(elements)
        driver().run_ready()
        if not self.owner.guard(lambda: self.owner.offer(self, raw, None)):
            raise PipePending(f"pipe {self.name!r} has no room: the reader is behind")

    def push_wait(self, elements: Iterable[T], timeout: float | None = None) -> None:
        """As `push`, but wait for room. Raises `PipePending` if `timeout` (seconds, None for ever) ran out first."""
        raw = _encode(elements)
        if not self.owner.wait(lambda make: self.owner.offer(self, raw, make), self.pushers, timeout):
            raise PipePending(f"pipe {self.name!r} had no room for {timeout} s: the reader is behind")

    async def push_async(self, elements: Iterable[T]) -> None:
        """As `push`, but the task waits for room."""
        raw = _encode(elements)
        await self.owner.wait_async(lambda make: self.owner.offer(self, raw, make), self.pushers)

    # Pulling

    def pull(self, maximum: int = BATCH) -> list[T]:
        """Pull what is there, `maximum` elements at the most. An empty list is the end of the stream.

        Raises: `PipePending` (997) if nothing is there yet: RECEIVE_COMPLETE follows; then pull again.
        Blocks: never.
        """
        _check_maximum(maximum)
        if not self.chunks and not self.items:
            driver().run_ready()
        taken: list[T] | None = self.owner.guard(lambda: self.owner.take(self, maximum, None))
        if taken is None:
            raise PipePending(f"pipe {self.name!r} has nothing to pull yet")
        return taken

    def pull_wait(self, maximum: int = BATCH, timeout: float | None = None) -> list[T]:
        """As `pull`, but wait for elements, or the end; not until there are `maximum`.

        Raises: `PipePending` if `timeout` (seconds, None for ever) ran out first.
        """
        _check_maximum(maximum)
        taken: list[T] | None = self.owner.wait(
            lambda make: self.owner.take(self, maximum, make), self.pullers, timeout
        )
        if taken is None:
            raise PipePending(f"pipe {self.name!r} had nothing to pull for {timeout} s")
        return taken

    async def pull_async(self, maximum: int = BATCH) -> list[T]:
        """As `pull`, but the task waits for elements, or the end."""
        _check_maximum(maximum)
        taken = await self.owner.wait_async(lambda make: self.owner.take(self, maximum, make), self.pullers)
        assert taken is not None, "without a time limit there is an answer"
        return taken

    def __iter__(self) -> Iterator[T]:
        """Pull until the end; the thread waits."""
        while items := self.pull_wait():
            yield from items

    async def __aiter__(self) -> AsyncIterator[T]:
        """Pull until the end; the task waits."""
        while items := await self.pull_async():
            for item in items:
                yield item


class InPipe(Pipe[T]):
    """A stream from the client to the server: the annotation of a parameter, and what stands in its place."""


class OutPipe(Pipe[T]):
    """A stream from the server to the client: the annotation of a parameter, and what stands in its place."""


class InOutPipe(Pipe[T]):
    """A stream to the server and then back: the annotation of a parameter, and what stands in its place."""


DIRECTIONS: dict[Any, str] = {InPipe: "i", OutPipe: "o", InOutPipe: "b"}
_KINDS: dict[str, type[Pipe[Any]]] = {direction: kind for kind, direction in DIRECTIONS.items()}


class Shipment:
    """Chunks of one call's pipes that leave in one message."""

    __slots__ = ("_set", "chunks", "size")

    def __init__(self, owner: "PipeSet") -> None:
        self._set = owner
        # Guarded by the set's lock, as long as this is the one it gathers in.
        self.chunks: list[PipeChunk] = []
        self.size = 0

    def take(self) -> list[Buffer]:
        """The frames of the message; nothing is added from now on."""
        self._set.seal(self)
        return encode(PipeMessage(self.chunks))


class PipeSet:
    """The pipes of one call, at one end of it. The client's and the server's ends derive from it.

    Args:
        specs: the pipes; `client`: which end this is; `duplex`: whether they may be used in any order.
        window: bytes that may be pushed into each pipe to begin with.
        limit: bytes that the peer may push into each pipe to begin with.
        signals: what is told, and to whom; `send_complete`: whether sends are told of too.
    """

    def __init__(
        self, specs: Sequence[PipeSpec], client: bool, duplex: bool, window: int, limit: int, signals: Signals,
        send_complete: bool,
    ) -> None:  # fmt: skip
        self.signals = signals
        self.send_complete = send_complete
        self.lock = allocate_lock()
        self._client = client
        self._duplex = duplex
        self._limit = limit
        # All below: guarded by lock. The window that each pipe began with.
        self.base = window
        self._gathering: Shipment | None = None
        self._left = 0.0
        self.pipes: list[Pipe[Any]] = [
            _KINDS[spec.direction](
                self, index, spec, spec.inbound if client else spec.outbound, spec.outbound if client else spec.inbound,
                limit,
            )
            for index, spec in enumerate(specs)
        ]  # fmt: skip

    # What each side does in its own way

    def state_locked(self) -> int:
        """0 while the call runs, 1 once it has its outcome, 2 once that was collected."""
        raise NotImplementedError

    def broken(self, error: CallError) -> None:
        """End the call: a push or pull failed with `error`, which the caller gets."""
        raise NotImplementedError

    def raise_outcome(self) -> NoReturn:
        """Raise what the call ended with, which ends it on this side."""
        raise NotImplementedError

    def ship(self, shipment: Shipment) -> None:
        """Queue a message for the peer. Takes no lock: the set's own is held, which keeps messages in order."""
        raise NotImplementedError

    def send(self, frames: list[Buffer]) -> None:
        """Queue a message for the peer, and send it."""
        raise NotImplementedError

    def flush(self, soon: bool) -> None:
        """Send what is queued; `soon`: it may wait for company."""
        raise NotImplementedError

    def call_id(self) -> int:
        """The call's number on its connection."""
        raise NotImplementedError

    # Pushing and pulling

    def guard(self, action: Callable[[], R]) -> R:
        """Run an attempt to push or pull; if it fails, the call ends."""
        try:
            return action()
        except CallError as error:
            self.broken(error)
            raise
        except CallOver:
            self.raise_outcome()

    def wait(
        self, attempt: Attempt[R], waiters: list[Wakeable], timeout: float | None = None, guarded: bool = True
    ) -> R:
        """Attempt until it succeeds, waiting in between; return the last answer, None or False if the time ran out.

        Not `guarded`: a failure leaves the call as it is, and `CallOver` comes out.
        """
        deadline = None
        if timeout is not None:
            if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
                raise InvalidParameter(f"timeout must be None or a number of seconds of 0 or more, not {timeout!r}")
            driver().run_ready()
            deadline = monotonic() + timeout
        made: list[Waiter] = []

        def make() -> Waiter:
            made.append(Waiter())
            return made[-1]

        while True:
            answer = self.guard(lambda: attempt(make)) if guarded else attempt(make)
            if not made:
                return answer
            waiter = made.pop()
            signalled = False
            try:
                signalled = park(waiter, None if deadline is None else max(0.0, deadline - monotonic()))
            finally:
                if not signalled:
                    self._forget(waiters, waiter)
            if not signalled:
                return answer

    async def wait_async(self, attempt: Attempt[R], waiters: list[Wakeable], guarded: bool = True) -> R:
        """As `wait`, but the task waits, for ever."""
        from ..kernel.aio import Completion  # Here, because who does not await need not import asyncio.

        made: list[Completion] = []

        def make() -> Completion:
            made.append(Completion())
            return made[-1]

        while True:
            answer = self.guard(lambda: attempt(make)) if guarded else attempt(make)
            if not made:
                return answer
            completion = made.pop()
            self.flush(soon=False)
            try:
                await completion
            except BaseException:
                self._forget(waiters, completion)
                raise

    def feed(self, pipe: Pipe[Any], elements: Sequence[Any]) -> None:
        """Push for the library itself: raises `CallOver` when the call is over, and leaves its outcome alone."""
        raw = _encode(elements)
        self.wait(lambda make: self.offer(pipe, raw, make), pipe.pushers, guarded=False)

    async def feed_async(self, pipe: Pipe[Any], elements: Sequence[Any]) -> None:
        """As `feed`; the task waits."""
        raw = _encode(elements)
        await self.wait_async(lambda make: self.offer(pipe, raw, make), pipe.pushers, guarded=False)

    def _forget(self, waiters: list[Wakeable], waiter: Wakeable) -> None:
        with self.lock:
            if waiter in waiters:
                waiters.remove(waiter)

    def offer(self, pipe: Pipe[Any], raw: msgspec.Raw, make: Callable[[], Wakeable] | None) -> bool:
        """Push encoded elements; False if there is no room: what `make` makes is woken, or SEND_COMPLETE signalled."""
        size = len(memoryview(raw))
        end = size == 1
        told = False
        with self.lock:
            state = self.state_locked()
            if state != 2:
                self._check_push_locked(pipe)
            if state:
                raise CallOver
            if not end and pipe.window <= 0:
                if make is None:
                    pipe.push_pending = True
                else:
                    pipe.pushers.append(make())
                return False
            shipment = self._gathering
            if shipment is None or len(shipment.chunks) >= SHIPMENT_CHUNKS or shipment.size >= SHIPMENT_BYTES:
                shipment = self._gathering = Shipment(self)
                self.ship(shipment)
            shipment.chunks.append(PipeChunk(self.call_id(), pipe.index, end, raw))
            shipment.size += size
            if end:
                pipe.ended = True
            else:
                pipe.window -= size
            if self.send_complete:
                if end or pipe.window > 0:
                    self.signals.add(EventKind.SEND_COMPLETE)
                    told = True
                else:
                    pipe.push_pending = True
            now = monotonic()
            soon = now - self._left < GATHER and shipment.size < SHIPMENT_BYTES
            if not soon:
                self._left = now
        self.flush(soon)
        if told:
            self.signals.tell()
        return True

    def seal(self, shipment: Shipment) -> None:
        """`shipment` leaves: what is pushed from now on goes into another one."""
        with self.lock:
            if self._gathering is shipment:
                self._gathering = None

    def take(self, pipe: Pipe[Any], maximum: int, make: Callable[[], Wakeable] | None) -> list[Any] | None:
        """Pull elements; None if there are none: what `make` makes is woken then, or RECEIVE_COMPLETE signalled."""
        elements: list[Any] = []
        freed = 0
        with pipe.reading:
            with self.lock:
                self._check_pull_locked(pipe)
            items = pipe.items
            while len(elements) < maximum:
                if not items:
                    with self.lock:
                        if not pipe.chunks:
                            if not elements and not self._at_end_locked(pipe, make):
                                return None
                            break
                        raw = pipe.chunks.popleft()
                    pipe.items_bytes = len(memoryview(raw))
                    items.extend(_decode(pipe.spec, raw))
                wanted = maximum - len(elements)
                if wanted >= len(items):
                    elements += items
                    items.clear()
                    freed += pipe.items_bytes
                else:
                    elements += [items.popleft() for _ in range(wanted)]
        if freed:
            self._give_back(pipe, freed)
        return elements

    def _at_end_locked(self, pipe: Pipe[Any], make: Callable[[], Wakeable] | None) -> bool:
        """Nothing is left to pull: because of the end, or so far."""
        if pipe.finished:
            pipe.drained = True
            return True
        if self.state_locked():
            raise CallOver
        if make is None:
            pipe.pull_pending = True
        else:
            pipe.pullers.append(make())
        return False

    def _give_back(self, pipe: Pipe[Any], size: int) -> None:
        """The program took so many bytes of elements: let the peer push as many again."""
        with self.lock:
            pipe.taken += size
            # By halves of the window: the writer can go on while the credit is on its way, and it costs few messages.
            if pipe.finished or pipe.taken * 2 < self._limit:
                return
            grant, pipe.taken = pipe.taken, 0
            pipe.allowance += grant
        self.send(encode(Credit([(self.call_id(), pipe.index, grant)])))

    # Order and discipline

    def _check_push_locked(self, pipe: Pipe[Any]) -> None:
        if not pipe.sends:
            side = "server" if self._client else "client"
            raise _error(Status.WRONG_PIPE_ORDER, f"pipe {pipe.name!r} is pushed by the {side}")
        if pipe.ended:
            raise _error(Status.PIPE_CLOSED, f"pipe {pipe.name!r} was ended by a null push")
        self._check_turn_locked(pipe, self._client)

    def _check_pull_locked(self, pipe: Pipe[Any]) -> None:
        if self.state_locked() == 2:
            raise CallOver
        if not pipe.receives:
            side = "server" if self._client else "client"
            raise _error(Status.WRONG_PIPE_ORDER, f"pipe {pipe.name!r} is pulled by the {side}")
        if pipe.drained:
            raise _error(Status.PIPE_EMPTY, f"the end of pipe {pipe.name!r} was pulled before")
        self._check_turn_locked(pipe, not self._client)

    def _check_turn_locked(self, pipe: Pipe[Any], inward: bool) -> None:
        """All inputs from left to right, then all outputs, each to its end. `inward`: the pipe is used as an input."""
        if self._duplex or len(self.pipes) == 1 and pipe.spec.direction != "b":
            return
        client = self._client
        for other in self.pipes:
            if inward and other is pipe:
                return
            if other.spec.inbound and not (other.ended or other.fed if client else other.drained):
                raise _error(Status.WRONG_PIPE_ORDER, f"pipe {pipe.name!r}: input {other.name!r} comes first")
        for other in self.pipes:
            if other is pipe:
                return
            if other.spec.outbound and not (other.drained if client else other.ended):
                raise _error(Status.WRONG_PIPE_ORDER, f"pipe {pipe.name!r}: output {other.name!r} comes first")

    def unprocessed_locked(self) -> Pipe[Any] | None:
        """A pipe that is not at its end, so that the call cannot be completed."""
        for pipe in self.pipes:
            if (pipe.sends and not (pipe.ended or pipe.fed)) or (pipe.receives and not pipe.drained):
                return pipe
        return None

    # What arrives. Under link.lock; the actions returned are for afterwards.

    def arrived(self, chunk: PipeChunk) -> list[Callable[[], object]]:
        """Take a chunk from the peer. Raises `RemoteProtocolError` if it was not the peer's turn."""
        size = len(memoryview(chunk.elements))
        with self.lock:
            if chunk.pipe >= len(self.pipes) or not self.pipes[chunk.pipe].receives:
                raise RemoteProtocolError(f"call {chunk.id} has no pipe {chunk.pipe} that its peer sends")
            pipe = self.pipes[chunk.pipe]
            if pipe.finished:
                raise RemoteProtocolError(f"pipe {pipe.name!r} of call {chunk.id} goes on after its end")
            if size > 1 or bytes(memoryview(chunk.elements)) != _EMPTY:
                # A peer that does not know this side's window yet takes the standard one for granted.
                if pipe.allowance <= min(0, self._limit - PIPE_WINDOW_BYTES):
                    raise RemoteProtocolError(f"pipe {pipe.name!r} of call {chunk.id} was pushed beyond its window")
                pipe.allowance -= size
                pipe.chunks.append(chunk.elements)
            pipe.finished = chunk.end
            waiters = pipe.pullers[:]
            pipe.pullers.clear()
            pending, pipe.pull_pending = pipe.pull_pending, False
            if pending:
                self.signals.add(EventKind.RECEIVE_COMPLETE)
        return self._actions(waiters, pending)

    def granted(self, index: int, size: int) -> list[Callable[[], object]]:
        """Take a credit from the peer."""
        with self.lock:
            if index >= len(self.pipes) or not self.pipes[index].sends:
                raise RemoteProtocolError(f"credit for pipe {index}, which is not sent to its peer")
            return self._widen_locked(self.pipes[index], size)

    def opened(self, limit: int) -> list[Callable[[], object]]:
        """The peer said how much may be pushed to begin with."""
        actions: list[Callable[[], object]] = []
        with self.lock:
            more, self.base = limit - self.base, limit
            for pipe in self.pipes:
                actions += self._widen_locked(pipe, more)
        return actions

    def _widen_locked(self, pipe: Pipe[Any], size: int) -> list[Callable[[], object]]:
        pipe.window += size
        if pipe.window <= 0:
            return []
        waiters = pipe.pushers[:]
        pipe.pushers.clear()
        pending, pipe.push_pending = pipe.push_pending, False
        if pending:
            self.signals.add(EventKind.SEND_COMPLETE)
        return self._actions(waiters, pending)

    def _actions(self, waiters: list[Wakeable], signalled: bool) -> list[Callable[[], object]]:
        actions: list[Callable[[], object]] = [waiter.wake for waiter in waiters]
        if signalled:
            actions.append(self.signals.tell)
        return actions

    def release_locked(self) -> list[Wakeable]:
        """The call is over: everybody who waits for one of its pipes is to be woken."""
        waiters: list[Wakeable] = []
        for pipe in self.pipes:
            waiters += pipe.pushers + pipe.pullers
            pipe.pushers.clear()
            pipe.pullers.clear()
        return waiters

    def find(self, name: str) -> Pipe[Any]:
        """The pipe of that name."""
        for pipe in self.pipes:
            if pipe.name == name:
                return pipe
        raise InvalidParameter(f"no pipe {name!r}; there are: {', '.join(pipe.name for pipe in self.pipes)}")


def _encode(elements: Iterable[Any]) -> msgspec.Raw:
    """Encode what is to be pushed, now."""
    if isinstance(elements, (str, bytes, bytearray, memoryview)) or not isinstance(elements, Iterable):
        raise InvalidArgumentType(f"elements must be a list or another iterable, not {type(elements).__name__}")
    try:
        return encode_elements(elements if isinstance(elements, (list, tuple)) else list(elements))
    except (TypeError, ValueError, OverflowError, RecursionError, PayloadTooLarge) as error:
        raise InvalidArgumentType(f"an element cannot be pushed: {error}") from error


def _decode(spec: PipeSpec, raw: msgspec.Raw) -> list[Any]:
    try:
        return spec.decode(raw)
    except msgspec.MsgspecError as error:
        raise BadStubData(f"an element of pipe {spec.name!r} is not what its annotation says: {error}") from error


def _error(status: int, text: str) -> PipeError:
    return PipeError(text, status=status)


def _check_maximum(maximum: int) -> None:
    if not isinstance(maximum, int) or isinstance(maximum, bool) or maximum < 1:
        raise InvalidParameter(f"maximum must be an int of 1 or more, not {maximum!r}")


def check_window(window: int) -> int:
    """Return `window` if it is a number of bytes of 1 or more; raise `InvalidParameter` otherwise."""
    if not isinstance(window, int) or isinstance(window, bool) or not 1 <= window < UNBOUNDED:
        raise InvalidParameter(f"pipe_window must be an int of 1 or more, not {window!r}")
    return window
