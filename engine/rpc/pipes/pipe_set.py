"""The pipes of one call, at one end of it: what moves, in which order, and which threads and tasks wait for it.

Theory of operation. See `pipe.py`. What both ends have in common is here; `client/pipes.py` and `server/pipes.py` add
how a call ends.

    offer (push): outcome? order? room? -> gathering shipment -> flush now, or soon
    take (pull):  outcome? order? -> decoded elements, chunks, the end, else a waiter or a promised signal -> credit

Guarded by `lock`: all fields of the set and of its pipes but those of `PipeState.reading`. Lock order: link.lock, then
`reading`, then `lock`, then that of the signals. Shipping appends to a queue under `lock`, which keeps messages in
order; the set wakes, notifies, sends and decodes without it.

Source: "Asynchronous Pipe State", "Rules for Multiple Pipes".
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import msgspec

from transport import Buffer
from transport.errors import RemoteProtocolError
from transport.foreign import is_interrupt, shown, text_of
from transport.frames import PIPE_WINDOW_BYTES, Credit, Grant, PipeChunk
from transport.realtime import monotonic
from transport.wire.codec import encode
from transport.wire.large import read_large

from ...errors import CallError, InvalidParameter
from ...kernel.aio import Completion
from ...kernel.checks import Deadline, check_timeout
from ...kernel.driver import driver
from ...kernel.lock import Lock, each
from ...kernel.thread import park
from ...kernel.waiter import Waiter, Wakeable
from ...status import Status
from ..channel import Channel
from ..errors import BadStubData, PipeError
from ..notify import EventKind
from .pipe import KINDS, Attempt, CallOver, Pipe, PipeSpec, PipeState, Progress, R, encode_elements
from .shipment import SHIPMENT_BYTES, SHIPMENT_CHUNKS, Shipment
from .signals import Signals

GATHER = 2e-3  # Seconds; the monitor's tick: a push waits no longer for others that share its message.


class PipeSet:
    """The pipes of one call, at one end of it. The client's and the server's ends derive from it.

    Args:
        specs: the pipes; `client`: which end this is; `duplex`: whether they may be used in any order.
        window: bytes that may be pushed into each pipe to begin with.
        limit: bytes that the peer may push into each pipe to begin with.
        signals: where what happens is notified of; `send_complete`: whether the end of a push is, too.
        number: that of the call on its connection, whose `channel` sends.
    """

    def __init__(
        self, specs: Sequence[PipeSpec], client: bool, duplex: bool, window: int, limit: int, signals: Signals,
        send_complete: bool, number: int, channel: Channel,
    ) -> None:  # fmt: skip
        self.signals = signals
        self.send_complete = send_complete
        self.number: int = number
        self._channel = channel
        # Called before the first push or pull; it may still choose the notification. None: it was called, or not given.
        self.prepare: Callable[[], object] | None = None
        self.lock: Lock = Lock()
        self._client = client
        self._duplex = duplex
        self._limit = limit
        # All below: guarded by lock. The window that each pipe began with.
        self.base: int = window
        self._gathering: Shipment | None = None
        self._left = 0.0
        self.pipes: list[PipeState] = [
            PipeState(
                self, index, spec, spec.inbound if client else spec.outbound, spec.outbound if client else spec.inbound,
                limit,
            )
            for index, spec in enumerate(specs)
        ]  # fmt: skip
        # What the program has of them, by name.
        self.ends: dict[str, Pipe[Any]] = {pipe.name: KINDS[pipe.spec.direction](pipe) for pipe in self.pipes}

    # What each side does in its own way

    def progress_locked(self) -> Progress:
        """Return how far the call is."""
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

    def given_up(self) -> None:
        """A task that waited for a pipe was cancelled. A server's routine answers for its call itself."""

    def waited_for(self) -> bool:
        """Whether a thread or a task of the program waits for one of the pipes."""
        with self.lock:
            return _any_waits(self.pipes)

    def check_size(self, pipe: PipeState, size: int) -> None:
        """Raise `BadStubData` if a push of so many bytes is more than the peer takes."""
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
        timeout = check_timeout(timeout)
        if timeout is not None:
            driver().run_ready()
        deadline = Deadline(timeout)
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
                signalled = park(waiter, deadline.left())
            finally:
                if not signalled:
                    self._forget(waiters, waiter)
            if not signalled:
                return answer

    async def wait_async(self, attempt: Attempt[R], waiters: list[Wakeable], guarded: bool = True) -> R:
        """As `wait`, but the task waits, for ever."""
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
                if guarded:
                    self.given_up()
                raise

    def feed(self, pipe: PipeState, elements: Sequence[Any]) -> None:
        """Push for the library itself: raises `CallOver` when the call is over, and leaves its outcome alone."""
        raw = self.encode(pipe, elements)
        self.wait(lambda make: self.offer(pipe, raw, make), pipe.pushers, guarded=False)

    async def feed_async(self, pipe: PipeState, elements: Sequence[Any]) -> None:
        """As `feed`; the task waits."""
        raw = self.encode(pipe, elements)
        await self.wait_async(lambda make: self.offer(pipe, raw, make), pipe.pushers, guarded=False)

    def flush(self, soon: bool) -> None:
        """Send what is queued; `soon`: it may wait for others that share its message."""
        if not soon:
            self._channel.flush()
        elif not self._channel.deferred:
            self._channel.defer()

    def _forget(self, waiters: list[Wakeable], waiter: Wakeable) -> None:
        with self.lock:
            if waiter in waiters:
                waiters.remove(waiter)

    def encode(self, pipe: PipeState, elements: Iterable[Any]) -> msgspec.Raw:
        """Encode what is to be pushed; elements that are wrong are refused here, unless the call is over already."""
        try:
            return encode_elements(pipe.spec, elements)
        except BadStubData:
            with self.lock:
                over = self.progress_locked() is not Progress.RUNNING
            if over:
                raise CallOver from None
            raise

    def offer(self, pipe: PipeState, raw: msgspec.Raw, make: Callable[[], Wakeable] | None) -> bool:
        """Push encoded elements; False if there is no room: what `make` makes is woken, or SEND_COMPLETE signalled."""
        if self.prepare is not None:
            self._begin()
        size = len(memoryview(raw))
        end = size == 1
        if size > SHIPMENT_BYTES:
            self.check_size(pipe, size)
        signalled = False
        with self.lock:
            progress = self.progress_locked()
            if progress is not Progress.COLLECTED:
                self._check_push_locked(pipe)
            if progress is not Progress.RUNNING:
                raise CallOver
            if not end and pipe.window <= 0:
                if make is None:
                    pipe.push_pending = True
                else:
                    pipe.pushers.append(make())
                return False
            shipment = self._gathering
            if shipment is None or len(shipment.chunks) >= SHIPMENT_CHUNKS or shipment.size >= SHIPMENT_BYTES:
                shipment = self._gathering = Shipment(self.seal)
                self.ship(shipment)
            if end:
                shipment.end(self.number, pipe.index)
                pipe.ended = True
            else:
                pipe.window -= shipment.add(self.number, pipe.index, raw)
            if self.send_complete:
                if end or pipe.window > 0:
                    self.signals.add(EventKind.SEND_COMPLETE)
                    signalled = True
                else:
                    pipe.push_pending = True
            now = monotonic()
            soon = now - self._left < GATHER and shipment.size < SHIPMENT_BYTES
            if not soon:
                self._left = now
        self.flush(soon)
        if signalled:
            self.signals.deliver()
        return True

    def _begin(self) -> None:
        """The first push or pull is about to be made."""
        if (prepare := self.prepare) is not None:
            prepare()
            self.prepare = None

    def seal(self, shipment: Shipment) -> None:
        """`shipment` leaves: what is pushed from now on goes into another one. Under link.lock."""
        with self.lock:
            if self._gathering is shipment:
                self._gathering = None

    def take(self, pipe: PipeState, maximum: int, make: Callable[[], Wakeable] | None) -> list[Any] | None:
        """Pull elements; None if there are none: what `make` makes is woken then, or RECEIVE_COMPLETE signalled."""
        if self.prepare is not None:
            self._begin()
        elements: list[Any] = []
        with pipe.reading:
            with self.lock:
                self._check_pull_locked(pipe)
            freed = self._read(pipe, maximum, make, elements)
        if freed:
            self._give_back(pipe, freed)
        return elements if freed is not None else None

    def _read(
        self, pipe: PipeState, maximum: int, make: Callable[[], Wakeable] | None, elements: list[Any]
    ) -> int | None:
        """Add to `elements` up to `maximum`; return how many bytes that freed, None if there are no elements yet."""
        freed = 0
        items = pipe.items
        while len(elements) < maximum:
            if not items:
                with self.lock:
                    if not pipe.chunks:
                        if not elements and not self._at_end_locked(pipe, make):
                            return None
                        break
                    raw = pipe.chunks.popleft()
                pipe.items_bytes = len(raw)
                items.extend(_decode(pipe.spec, raw))
            wanted = maximum - len(elements)
            if wanted >= len(items):
                elements += items
                items.clear()
                freed += pipe.items_bytes
            else:
                elements += [items.popleft() for _ in range(wanted)]
        return freed

    def _at_end_locked(self, pipe: PipeState, make: Callable[[], Wakeable] | None) -> bool:
        """Nothing is left to pull: because of the end, or so far."""
        if pipe.finished:
            pipe.drained = True
            return True
        if self.progress_locked() is not Progress.RUNNING:
            raise CallOver
        if make is None:
            pipe.pull_pending = True
        else:
            pipe.pullers.append(make())
        return False

    def _give_back(self, pipe: PipeState, size: int) -> None:
        """The program took so many bytes of elements: let the peer push as many again."""
        with self.lock:
            pipe.taken += size
            # By halves of the window: the writer can go on while the credit is on its way, and it costs few messages.
            if pipe.finished or pipe.taken * 2 < self._limit:
                return
            grant, pipe.taken = pipe.taken, 0
            pipe.allowance += grant
        self.send(encode(Credit([Grant(self.number, pipe.index, grant)])))

    # Order and discipline

    def _check_push_locked(self, pipe: PipeState) -> None:
        if not pipe.sends:
            side = "server" if self._client else "client"
            raise PipeError(f"pipe {pipe.name!r} is pushed by the {side}", status=Status.WRONG_PIPE_ORDER)
        if pipe.ended:
            raise PipeError(f"pipe {pipe.name!r} was ended by a null push", status=Status.PIPE_CLOSED)
        self._check_turn_locked(pipe, self._client)

    def _check_pull_locked(self, pipe: PipeState) -> None:
        if self.progress_locked() is Progress.COLLECTED:
            raise CallOver
        if not pipe.receives:
            side = "server" if self._client else "client"
            raise PipeError(f"pipe {pipe.name!r} is pulled by the {side}", status=Status.WRONG_PIPE_ORDER)
        if pipe.drained:
            raise PipeError(f"the end of pipe {pipe.name!r} was pulled before", status=Status.PIPE_EMPTY)
        self._check_turn_locked(pipe, not self._client)

    def _check_turn_locked(self, pipe: PipeState, inward: bool) -> None:
        """All inputs from left to right, then all outputs, each to its end. `inward`: the pipe is used as an input."""
        if self._duplex or len(self.pipes) == 1 and pipe.spec.direction != "b":
            return
        client = self._client
        for other in self.pipes:
            if inward and other is pipe:
                return
            if other.spec.inbound and not (other.ended or other.fed if client else other.drained):
                raise _wrong_order(pipe, other, "pushed" if client else "pulled")
        for other in self.pipes:
            if other is pipe:
                return
            if other.spec.outbound and not (other.drained if client else other.ended):
                raise _wrong_order(pipe, other, "pulled" if client else "pushed")

    def unprocessed_locked(self) -> PipeError | None:
        """Return the error of completing the call now; None if all pipes are at their end."""
        for pipe in self.pipes:
            if pipe.sends and not (pipe.ended or pipe.fed):
                how = "pushed to its end: push an empty list last, push([])"
            elif pipe.receives and not pipe.drained:
                how = "pulled to its end: iterate over it, or pull until an empty list comes"
            else:
                continue
            return PipeError(f"pipe {pipe.name!r} was not {how}", status=Status.PIPE_DISCIPLINE_ERROR)
        return None

    # What arrives. Under link.lock; the actions returned are for afterwards.

    def arrived(self, chunk: PipeChunk) -> list[Callable[[], object]]:
        """Take a chunk from the peer. Raises `RemoteProtocolError` if it was not the peer's turn."""
        size = len(chunk.elements)
        with self.lock:
            if chunk.pipe >= len(self.pipes) or not self.pipes[chunk.pipe].receives:
                raise RemoteProtocolError(f"call {chunk.id} has no pipe {chunk.pipe} that its peer sends")
            pipe = self.pipes[chunk.pipe]
            if pipe.finished:
                raise RemoteProtocolError(f"pipe {pipe.name!r} of call {chunk.id} goes on after its end")
            if size:
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

    def granted(self, grant: Grant) -> list[Callable[[], object]]:
        """Take a credit from the peer."""
        with self.lock:
            if grant.pipe >= len(self.pipes) or not self.pipes[grant.pipe].sends:
                raise RemoteProtocolError(f"credit for pipe {grant.pipe}, which is not sent to its peer")
            return self._widen_locked(self.pipes[grant.pipe], grant.size)

    def opened(self, limit: int) -> list[Callable[[], object]]:
        """The peer said how much may be pushed to begin with."""
        actions: list[Callable[[], object]] = []
        with self.lock:
            more, self.base = limit - self.base, limit
            each(lambda pipe: actions.extend(self._widen_locked(pipe, more)), self.pipes)
        return actions

    def _widen_locked(self, pipe: PipeState, size: int) -> list[Callable[[], object]]:
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
            actions.append(self.signals.deliver)
        return actions

    def release_locked(self) -> list[Wakeable]:
        """The call is over: return the threads and tasks that wait for one of its pipes, for the caller to wake."""
        waiters: list[Wakeable] = []
        for pipe in self.pipes:
            waiters += pipe.pushers + pipe.pullers
            pipe.pushers.clear()
            pipe.pullers.clear()
        return waiters

    def find(self, name: str) -> PipeState:
        """Return the pipe of that name."""
        for pipe in self.pipes:
            if pipe.name == name:
                return pipe
        raise InvalidParameter(f"no pipe {shown(name)}; there are: {', '.join(self.ends)}")

    def end_of(self, name: str) -> Pipe[Any]:
        """Return what the program has of the pipe of that name."""
        return self.ends[self.find(name).name]


def _decode(spec: PipeSpec, raw: memoryview) -> list[Any]:
    try:
        return read_large(spec.decode, raw)
    except BaseException as error:  # Decoding runs the types' own checks, which raise what they like.
        if is_interrupt(error):
            raise
        why = text_of(error)
        raise BadStubData(f"an element of pipe {spec.name!r} is not what its annotation says: {why}") from error


def _wrong_order(pipe: PipeState, first: PipeState, how: str) -> PipeError:
    if first is pipe:
        later = "it is pulled" if how == "pushed" else "it is pushed"
    else:
        later = f"pipe {pipe.name!r} is used"
    text = f"pipe {first.name!r} must be {how} to its end before {later}: @operation(duplex=True) allows any order"
    return PipeError(text, status=Status.WRONG_PIPE_ORDER)


def _any_waits(pipes: Sequence[PipeState]) -> bool:
    """Whether a thread or a task waits for one of these."""
    return any(pipe.pullers or (pipe.pushers and not pipe.fed) for pipe in pipes)
