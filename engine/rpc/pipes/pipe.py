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

Guarantees: elements arrive in order, once; each end of a stream is seen once; the threads and tasks that wait are woken
when the call ends, after its outcome was recorded. A push or pull that fails with anything but 997 ends the call.

Source: "Asynchronous Pipes", "Asynchronous Pipe State", "Client-side Asynchronous Pipe Handling", "Server-side
Asynchronous Pipe Handling", "Rules for Multiple Pipes". Different from Windows: a push may be refused with 997 for want
of room, where Windows buffers without a bound; "send complete" means that the next push will be taken.
"""

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import msgspec

from transport import Buffer
from transport.foreign import is_interrupt, text_of, type_name
from transport.wire.codec import encode_value
from transport.wire.own_types import decoder

from ...errors import CallPending, InvalidArgumentType
from ...kernel.checks import NoNumber, check_count
from ...kernel.driver import driver
from ...kernel.lock import Lock
from ...kernel.waiter import Wakeable
from ...lifecycle import Uncopyable
from ..errors import BadStubData
from ..wire_types import first_mismatch
from .signals import Signals

T = TypeVar("T")
R = TypeVar("R")

BATCH = 1024  # Elements that iterating pulls at once, if they are there.
UNBOUNDED = 1 << 62  # The window of a peer that sets no limit, in bytes.
MAX_WINDOW = UNBOUNDED - 1


class Progress(IntEnum):
    """How far a call is, as its pipes see it."""

    RUNNING = 0
    ENDED = 1  # Its outcome is known.
    COLLECTED = 2  # The program has the outcome, or can have it no more.


class PipePending(CallPending):
    """Nothing can be pulled, or pushed, just now (997). The pipe and the call stay good, and a signal follows:
    RECEIVE_COMPLETE when there is something to pull, SEND_COMPLETE when there is room again."""


class CallOver(Exception):
    """The call has its outcome, or was collected: no pipe of it moves any more. Stays inside the package."""


# One try to push or pull; if it has to be made again, it had a waiter made, which is woken at the right time.
Attempt = Callable[[Callable[[], Wakeable]], R]


class PipeSpec:
    """One parameter that is a pipe: where it stands, which way it goes, what its elements are."""

    __slots__ = ("decode", "direction", "element", "inbound", "name", "outbound", "position")

    def __init__(self, name: str, position: int, direction: str, element: Any) -> None:
        self.name: str = name
        self.position: int = position
        # As on the wire: "i" to the server, "o" from it, "b" both.
        self.direction: str = direction
        self.element: Any = element
        self.inbound: bool = direction in "ib"
        self.outbound: bool = direction in "ob"
        self.decode: Callable[[Buffer | msgspec.Raw], list[Any]] = decoder(list[element])


class Owner(Protocol):
    """The pipes of one call, as each of them sees it: see `PipeSet`."""

    base: int
    signals: Signals

    def guard(self, action: Callable[[], R]) -> R: ...
    def wait(self, attempt: Attempt[R], waiters: list[Wakeable], timeout: float | None = None) -> R: ...
    async def wait_async(self, attempt: Attempt[R], waiters: list[Wakeable]) -> R: ...
    def encode(self, pipe: "PipeState", elements: Iterable[Any]) -> msgspec.Raw: ...
    def offer(self, pipe: "PipeState", raw: msgspec.Raw, make: Callable[[], Wakeable] | None) -> bool: ...
    def take(self, pipe: "PipeState", maximum: int, make: Callable[[], Wakeable] | None) -> list[Any] | None: ...
    def feed(self, pipe: "PipeState", elements: Sequence[Any]) -> None: ...
    async def feed_async(self, pipe: "PipeState", elements: Sequence[Any]) -> None: ...


class PipeState:
    """One end of a pipe: what its program has pushed and pulled, and what may move. `Pipe` is its face."""

    __slots__ = (
        "allowance", "chunks", "drained", "ended", "fed", "finished", "index", "items", "items_bytes", "name", "owner",
        "pull_pending", "pullers", "push_pending", "pushers", "reading", "receives", "sends", "spec", "taken", "window",
    )  # fmt: skip

    def __init__(self, owner: Owner, index: int, spec: PipeSpec, sends: bool, receives: bool, limit: int) -> None:
        self.owner: Owner = owner
        self.name: str = spec.name
        self.index: int = index
        self.spec: PipeSpec = spec
        self.sends: bool = sends
        self.receives: bool = receives
        # All below: guarded by the owner's lock. `window` is what may still be pushed, in bytes.
        self.window: int = owner.base
        # The null push was made; an iterable is being pushed by the library.
        self.ended: bool = False
        self.fed: bool = False
        # A signal was promised: for room, for elements.
        self.push_pending: bool = False
        self.pull_pending: bool = False
        self.pushers: list[Wakeable] = []
        self.pullers: list[Wakeable] = []
        # What the peer may still send, and what it may send again as soon as that is worth a message.
        self.allowance: int = limit
        self.taken: int = 0
        self.chunks: deque[memoryview] = deque()
        # The end has arrived; it was pulled.
        self.finished: bool = False
        self.drained: bool = False
        # Elements that are decoded and not pulled, and the size of their chunk. Guarded by `reading`.
        self.reading: Lock = Lock()
        self.items: deque[Any] = deque()
        self.items_bytes: int = 0


class Pipe(Uncopyable, Generic[T]):
    """One end of a pipe: push elements into it, pull elements out of it, or iterate over what comes.

    Which of them is allowed follows from the side and the declaration: the client pushes an `InPipe` and the server
    pulls it, and the other way round for an `OutPipe`; an `InOutPipe` goes first in, then out. Inputs come first, from
    left to right, each drained before the next; then the outputs. `@operation(duplex=True)` lifts that order.

    A push or pull that raises anything but `PipePending` ends the call on this side; there is nothing left to complete.
    What it may raise: `PipeError` 1916 (pushed after the end), 1918 (pulled after the end), 1831 (not its turn, or the
    wrong way); `BadStubData` (an element, pushed or pulled, is not what the annotation says); the error that the call
    failed with; `InvalidAsyncHandle` (1914) if the call is over already. Only `InvalidArgumentType`, for elements that
    cannot be encoded, leaves the call as it was.

    A task that is cancelled while it pulls or pushes, at the client, cancels the call, abortively, as one that awaits
    the call does; unless another task or thread waits for the call or a pipe of it (`asyncio.shield` keeps it from
    that). The handle can still be completed, with 1818. A loop over a pipe that is left between two elements
    leaves the call open: cancel it then, or iterate over `.stream(...)`, which does.

    Threads: any; elements pushed or pulled by several threads at once are divided between them.
    Source: "Asynchronous Pipes".
    """

    _instead = "hand over its elements"

    def __init__(self, state: PipeState) -> None:
        self._state = state

    @property
    def name(self) -> str:
        """The name of the parameter."""
        return self._state.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {self._state.owner.signals.subject!r}>"

    # Pushing

    def push(self, elements: Iterable[T]) -> None:
        """Push elements; none of them ("the null push") ends the stream. They may change once this has returned.

        Raises: `PipePending` (997) if the reader is behind: nothing was pushed, and SEND_COMPLETE follows.
        Blocks: never.
        """
        state, owner = self._state, self._state.owner
        raw = owner.guard(lambda: owner.encode(state, elements))
        driver().run_ready()
        if not owner.guard(lambda: owner.offer(state, raw, None)):
            raise PipePending(f"pipe {self.name!r} has no room: the reader is its pipe_window behind")

    def push_wait(self, elements: Iterable[T], timeout: float | None = None) -> None:
        """As `push`, but wait for room. Raises `PipePending` if `timeout` (seconds, None for ever) ran out first."""
        state, owner = self._state, self._state.owner
        raw = owner.guard(lambda: owner.encode(state, elements))
        if not owner.wait(lambda make: owner.offer(state, raw, make), state.pushers, timeout):
            raise PipePending(f"pipe {self.name!r} had no room for {timeout} s: the reader is its pipe_window behind")

    async def push_async(self, elements: Iterable[T]) -> None:
        """As `push`, but the task waits for room."""
        state, owner = self._state, self._state.owner
        raw = owner.guard(lambda: owner.encode(state, elements))
        await owner.wait_async(lambda make: owner.offer(state, raw, make), state.pushers)

    # Pulling

    def pull(self, maximum: int = BATCH) -> list[T]:
        """Pull what is there, `maximum` elements at the most. An empty list is the end of the stream.

        Raises: `PipePending` (997) if nothing is there yet: RECEIVE_COMPLETE follows; then pull again.
        Blocks: never.
        """
        check_count("maximum", maximum, least=1)
        state, owner = self._state, self._state.owner
        if not state.chunks and not state.items:
            driver().catch_up(lambda: bool(state.chunks))
        taken: list[T] | None = owner.guard(lambda: owner.take(state, maximum, None))
        if taken is None:
            raise PipePending(f"pipe {self.name!r} has nothing to pull yet")
        return taken

    def pull_wait(self, maximum: int = BATCH, timeout: float | None = None) -> list[T]:
        """As `pull`, but wait for elements, or the end; not until there are `maximum`.

        Raises: `PipePending` if `timeout` (seconds, None for ever) ran out first.
        """
        check_count("maximum", maximum, least=1)
        state, owner = self._state, self._state.owner
        taken: list[T] | None = owner.wait(lambda make: owner.take(state, maximum, make), state.pullers, timeout)
        if taken is None:
            raise PipePending(f"pipe {self.name!r} had nothing to pull for {timeout} s")
        return taken

    async def pull_async(self, maximum: int = BATCH) -> list[T]:
        """As `pull`, but the task waits for elements, or the end."""
        check_count("maximum", maximum, least=1)
        state, owner = self._state, self._state.owner
        taken = await owner.wait_async(lambda make: owner.take(state, maximum, make), state.pullers)
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


if TYPE_CHECKING:
    # In a contract they say what a caller passes, and a caller passes what is to be pushed; a routine gets a `Pipe`.
    # `...` stands for a pipe that is left out.

    class Outbound(Generic[T]):
        """Marks a pipe that callers pull, so that `stream` knows the type of its elements; there is no such object."""

        element: T

    InPipe = Iterable[T] | AsyncIterable[T] | EllipsisType
    OutPipe = Outbound[T] | EllipsisType
    InOutPipe = Outbound[T] | Iterable[T] | AsyncIterable[T] | EllipsisType
else:

    class InPipe(Pipe[T]):
        """A stream from the client to the server: the annotation of a parameter, and what stands in its place.

        To type checkers it is what a caller may pass, any iterable; annotate the parameter of a routine `Pipe[T]`.
        """

    class OutPipe(Pipe[T]):
        """A stream from the server to the client: the annotation of a parameter, and what stands in its place.

        Callers pass nothing for it. Written `numbers: OutPipe[int] = ...` in the contract, type checkers know.
        """

    class InOutPipe(Pipe[T]):
        """A stream to the server and then back: the annotation of a parameter, and what stands in its place.

        To type checkers it is what a caller may pass, any iterable; annotate the parameter of a routine `Pipe[T]`.
        """


DIRECTIONS: dict[Any, str] = {InPipe: "i", OutPipe: "o", InOutPipe: "b"}
KINDS: dict[str, type[Pipe[Any]]] = {direction: kind for kind, direction in DIRECTIONS.items()}


def encode_elements(spec: PipeSpec, elements: Iterable[Any]) -> msgspec.Raw:
    """Encode what is to be pushed, now.

    Raises: `BadStubData` for elements that are not what the annotation says, `InvalidArgumentType` for what cannot be
        encoded, or is no iterable.
    """
    if isinstance(elements, (str, bytes, bytearray, memoryview)) or not isinstance(elements, Iterable):
        raise InvalidArgumentType(
            f"elements must be a list or another iterable, not {type_name(elements)}: push([element]) pushes one"
        )
    values = elements if isinstance(elements, (list, tuple)) else list(elements)
    if (why := first_mismatch(values, spec.element)) is not None:
        raise BadStubData(f"an element pushed into pipe {spec.name!r} {why}")
    try:
        return encode_value(values)
    except OverflowError as error:
        raise NoNumber(f"an element pushed into pipe {spec.name!r} is out of range: {text_of(error)}") from None
    except BaseException as error:  # Encoding runs the elements' own code, which raises what it likes.
        if is_interrupt(error):
            raise
        raise InvalidArgumentType(f"an element cannot be pushed into pipe {spec.name!r}: {text_of(error)}") from error
