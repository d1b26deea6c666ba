"""What a connection has to send: calls that wait to be batched, and messages of their own; and what has left.

Theory of operation. Any thread appends, with no lock; one thread at a time takes, under link.lock. Most calls wait as
the tuple that is encoded with others as it leaves. What may change until then, or is large, is encoded when the call is
begun (`encode_eagerly`): small calls still share a message, a call with large values or arrays is a `LoneMessage`.

A message of such tuples is made in `next_message` itself, in few steps; it refuses what is anything else, which `_take`
makes in its place, from the same queue.

While few calls are outstanding each leaves at once; beyond that calls wait to be batched: they leave when half as many
wait as were outstanding lately (at most `COALESCE_RECORDS`), when any thread is about to wait, or at the monitor's next
tick (2 ms), whichever comes first. Few are four, as long as one thread begins calls and another takes the answers: who
begins them may never wait. Of a thread that does both, only a call by itself leaves at once. Within one process nothing
is gained by the server's beginning earlier: as many may wait there as are outstanding, and one is few.

What is larger than the server takes does not leave (`limits.py`); a shipment of elements leaves chunk by chunk then.

A server that closes says how many of the messages with calls it has taken. So the outbox counts them, and keeps the
numbers of the calls of each. Those whose calls have all ended are forgotten now and then: when twice as many messages
are kept as had outstanding calls the last time, so that looking costs little for each call, and what is kept is in
proportion to what is outstanding.

Guarantees: what one thread appends leaves in the order in which it was appended. A call that cannot be encoded ends by
itself, and those that would have shared its message leave. An outstanding call is among those that have left if, and
only if, it has left over this connection, or was just put back into the queue because the link had no room for it. An
interrupt at any step of taking costs no call: what was taken waits again (`undo`).

Assumes: `deque.append`, `popleft`, `copy` and `remove` are atomic.
"""

from _thread import get_ident
from collections import deque
from collections.abc import Callable, KeysView, Sequence
from contextlib import suppress
from itertools import repeat, starmap
from operator import itemgetter
from typing import Any

import msgspec

from transport import Buffer
from transport.foreign import is_interrupt, text_of
from transport.frames import CallOptions, Cancel, CancelledCall, Chunks
from transport.log import Log
from transport.realtime import monotonic
from transport.wire.blobs import split_out_of_band
from transport.wire.codec import EncodedCall, PendingCall, encode, encode_call, encode_calls, encode_value
from transport.wire.conversation import ConversationState

from ...errors import InvalidArgumentType
from ...kernel.checks import NoNumber
from ..channel import COALESCE_RECORDS, OutgoingMessage, take_together
from ..contract.spec import OperationSpec
from ..limits import SizeLimit, size_of, split_to_fit
from ..pipes.shipment import Shipment
from .session import EndpointSession
from .spinning import SPIN_TIME, Spinning

log: Log = Log("engine.rpc")

FEW_CALLS = 4  # As long as no more are outstanding, those of a thread that takes no answers leave at once.
MOST_WAITING = COALESCE_RECORDS - 1  # How many calls may wait to be batched, at most.
LONE_BYTES = 16 * 1024  # A call of this size leaves at once.
FEW_MESSAGES = 64  # Arbitrary: with up to 128 calls each, what is kept of ended calls is some hundred KB.

_first: Callable[[Any], int] = itemgetter(0)
_ONCE: tuple[tuple[()], ...] = ((),)  # The arguments of one call without any.
_PLAIN = {tuple}
_GREETED = ConversationState.GREETED


class LoneMessage(msgspec.Struct, eq=False):
    """A message of its own in the queue: a call with large values, or one that is no call (number 0).

    One without frames is a shipment of elements for pipes; its frames are made as it leaves.
    """

    frames: list[Buffer]
    call_id: int = 0
    shipment: Shipment | None = None


class Outbox:
    """The queue of one connection. `queue` is public: beginning a call appends to it directly.

    Args:
        session: what the server takes in one message, and how many with calls it was sent.
        outstanding: the numbers of the calls that have no outcome yet.
        refuse: `refuse(call_id, why)` ends a call that cannot be sent; under link.lock.
        attend: what is queued waits for the greeting; under link.lock.
        spinning: whether the thread that sends a message stays awake for the answer.
    """

    __slots__ = (
        "_attend",
        "_kept",
        "_kept_most",
        "_limit",
        "_outstanding",
        "_refuse",
        "_session",
        "_spinning",
        "answered",
        "batch_threshold",
        "closing",
        "few",
        "halves",
        "messages_sent",
        "queue",
        "sender",
        "spin_until",
        "taken",
    )

    def __init__(
        self, session: EndpointSession, outstanding: KeysView[int], refuse: Callable[[int, str], None],
        attend: Callable[[], None], spinning: Spinning,
    ) -> None:  # fmt: skip
        self._session = session
        self._limit = session.limit
        self._outstanding = outstanding
        self._refuse = refuse
        self._attend = attend
        self._spinning = spinning
        # Oldest first.
        self.queue: deque[PendingCall | LoneMessage] = deque()
        # How many calls may wait to be batched. Written under link.lock, read as a hint. Derived from the calls in
        # flight plus the replies received since the last send, because callers usually begin one call per reply.
        self.batch_threshold: int = 0
        # How many outstanding calls are few, which is set once; and whether no more than half of them wait, as 0 or 1.
        self.few: int = FEW_CALLS
        self.halves: int = 1
        # All below: under link.lock. Those replies.
        self.answered: int = 0
        # The thread that has sent the last message of its own calls while some, but few were outstanding.
        self.sender: int = 0
        # `Driver.spin_until`; set once, before anything is sent.
        self.spin_until: Callable[[float], object] = bool
        # For statistics.
        self.messages_sent: int = 0
        # What the message taken last was made of.
        self.taken: Sequence[PendingCall | LoneMessage] = ()
        # The client closes, and what is queued still leaves. Its calls have ended, so nothing waits for a greeting.
        self.closing: bool = False
        # The messages with calls that have left over this connection: (which it is, the numbers of its calls), oldest
        # first; and with how many of these it is time to forget some.
        self._kept: list[tuple[int, Sequence[int]]] = []
        self._kept_most: int = FEW_MESSAGES

    # Taking. Under link.lock.

    def next_message(self, for_others: bool = False) -> OutgoingMessage | None:  # noqa: C901  # a hot path
        """Take the next message to send, or None: there is none, or it waits for the greeting.

        `for_others`: the thread that harvests asks, which need not be the one that began these calls.
        """
        queue, session = self.queue, self._session
        # A client that closes still sends what was accepted, and its goodbye.
        if not queue or not (session.is_open or self._may_leave_early()):
            return None
        try:
            # The way of nearly every message.
            calls: list[Any] = []
            self.taken = calls
            frames: list[Buffer] = []
            numbers: Sequence[int]
            waiting = len(queue)
            try:
                if type(queue[0]) is tuple:
                    # In one step: an interrupt finds each of them in one or the other.
                    calls += starmap(
                        queue.popleft, _ONCE if waiting == 1 else repeat((), min(waiting, COALESCE_RECORDS))
                    )
            except IndexError:
                pass  # Others have taken some out.
            if calls and (waiting == 1 or set(map(type, calls)) == _PLAIN):
                try:
                    frames = encode_calls(calls)
                except Exception:  # Which of them it was is found out, and said, the long way.
                    frames = []
            if frames and len(frames[0]) <= self._limit.body:
                numbers = [*map(_first, calls)]
            else:
                self.put_back()
                frames = self._take()
                if not frames:
                    if queue:
                        self._attend()
                    return None  # What there was has been withdrawn.
                first = self.taken[0]
                if not isinstance(first, LoneMessage):
                    numbers = [*map(_first, self.taken)]
                else:
                    numbers = (first.call_id,) if first.call_id else ()
            outstanding = len(self._outstanding)
            if numbers:
                number = session.calls_sent + 1
                if outstanding == 1 and numbers[0] in self._outstanding:
                    # Of the calls that have left before, none is outstanding.
                    self._kept = [(number, numbers)]
                else:
                    if len(self._kept) > self._kept_most:
                        self._forget_ended()
                    self._kept.append((number, numbers))
                session.calls_sent = number
            self.answered = 0
            if outstanding > self.few:
                self.batch_threshold = max(self.batch_threshold, min(outstanding >> self.halves, MOST_WAITING))
            elif outstanding > 1 and not for_others:
                self.sender = get_ident()
            spinning = self._spinning
            if 0 < outstanding <= spinning.most:
                spinning.sent_at = now = monotonic()
                if now >= spinning.due:
                    spinning.look(now)
                if spinning.swift and not spinning.scarce:
                    self.spin_until(now + SPIN_TIME)
            self.messages_sent += 1
            return b"", frames
        except BaseException as error:
            if not isinstance(error, Exception):  # An interrupt.
                self.undo()
            raise

    def _may_leave_early(self) -> bool:
        """Whether what is first in the queue may leave before the server has greeted."""
        if self.closing or self._session.state is not _GREETED:
            return self.closing
        # Behind a server that closes, no call is sent to what may be the same one, which would never say of it that it
        # did not run.
        try:
            return not self._session.wary or not number_of(self.queue[0])
        except IndexError:
            return False  # It was withdrawn just now.

    def _take(self) -> list[Buffer]:
        """Take the frames of the next message, whatever it is; none if there is none, or it waits for the greeting."""
        queue = self.queue
        while True:
            calls: list[Any] = []
            self.taken = calls
            try:
                calls += starmap(queue.popleft, _ONCE)  # In one step: an interrupt finds it in one or the other.
            except IndexError:
                return []
            first = calls[0]
            if isinstance(first, LoneMessage):
                frames = first.frames
                if first.shipment is not None and not frames:
                    frames = first.frames = first.shipment.take()  # Kept: the link may not take them.
            else:
                if queue:
                    take_together(queue, calls)
                try:
                    frames = encode_calls(calls)
                except Exception:
                    frames = self._encode_individually(calls)
            if len(frames) == 1 and len(frames[0]) <= self._limit.body:
                return frames
            fitting = self._fit(frames) if frames else None
            if fitting is not None:
                return fitting

    def _encode_individually(self, calls: list[PendingCall]) -> list[Buffer]:
        """Return the frames of those of `calls` that can be encoded; the others end. [] if none can."""
        good: list[PendingCall] = []
        for call in calls:
            try:
                encode_calls([call])
                good.append(call)
            except Exception as error:
                text = f"the call cannot be sent: {text_of(error)}"
                log.error("%s", text, exc_info=error, later=True)
                self._refuse(call[0], text)
        self.taken = good
        try:
            return encode_calls(good) if good else []
        except BaseException:
            self.put_back()  # No memory for all of them, for one.
            raise

    def _fit(self, frames: list[Buffer]) -> list[Buffer] | None:
        """Return `frames`, which were just taken, or less of them; [] if they wait, None if they were left out."""
        limit = self._limit
        if limit.fits(frames):
            return frames
        if len(self.taken) > 1:
            calls: Any = self.taken  # No message of its own shares one.
            frames, number = split_to_fit(calls, encode_calls, limit.body)
            self.queue.extendleft(reversed(calls[number:]))
            self.taken = calls[:number]
            if limit.fits(frames):
                return frames
        first = self.taken[0]
        shipment = first.shipment if isinstance(first, LoneMessage) else None
        if shipment is None and not number_of(first):
            return frames  # It is about the connection, which cannot do without it.
        if not limit.known:
            if self.closing:
                return None
            self.put_back()
            return []
        if shipment is not None:
            self._split(shipment)
        else:
            self._refuse(number_of(first), limit.report("the call", size_of(frames), body=len(frames[0])))
        return None

    def _split(self, shipment: Shipment) -> None:
        """Have each chunk of a shipment leave alone; a call that has one that is too large ends."""
        alone: list[LoneMessage] = []
        for chunk in shipment.chunks:
            frames = encode(Chunks([chunk]))
            size = size_of(frames)
            if size <= self._limit.body:
                alone.append(LoneMessage(frames))
            else:
                self._refuse(chunk.id, self._limit.report(f"what was pushed into pipe {chunk.pipe}", size, body=size))
                alone.append(LoneMessage(encode(Cancel([CancelledCall(chunk.id, True)]))))
        self.queue.extendleft(reversed(alone))
        self.taken = ()

    def put_back(self) -> None:
        """The message taken last did not leave: what it was made of is the oldest again."""
        self.queue.extendleft(reversed(self.taken))
        self.taken = ()

    def undo(self) -> None:
        """An interrupt broke in on `next_message`, and nothing was sent: all that was taken waits again.

        Some of it may have been put back already.
        """
        self.uncount()
        waiting = self.queue.copy()
        there = set(map(id, waiting))
        self.taken = [pending for pending in self.taken if id(pending) not in there]
        self.put_back()

    def taken_numbers(self) -> set[int]:
        """The numbers of the calls in the message taken last; 0 stands for what is no call."""
        return {number_of(pending) for pending in self.taken}

    # What has left. Under link.lock.

    def _forget_ended(self) -> None:
        """Keep the messages of which calls are outstanding."""
        outstanding = self._outstanding
        self._kept = [message for message in self._kept if not outstanding.isdisjoint(message[1])]
        self._kept_most = FEW_MESSAGES + 2 * len(self._kept)

    def uncount(self) -> None:
        """The message taken last did not leave after all, and will not."""
        numbers = self.taken_numbers()
        # It may be kept and not counted yet.
        if numbers and self._kept and self._kept[-1][0] >= self._session.calls_sent:
            number, calls = self._kept[-1]
            if numbers.issubset(calls):
                self._session.calls_sent = number - 1
                self._kept.pop()

    def forget(self) -> None:
        """There is a new connection, over which nothing has left."""
        self._kept, self._kept_most = [], FEW_MESSAGES

    def left(self) -> dict[int, int]:
        """Return, for each outstanding call that has left, the number of its message."""
        return {call_id: number for number, calls in self._kept for call_id in calls}

    # What waits. Any thread.

    def numbers(self) -> set[int]:
        """The numbers of the calls that have not left."""
        return {number_of(pending) for pending in self.queue.copy()}

    def withdraw(self, call_ids: set[int]) -> set[int]:
        """Take these calls out of the queue; return those that never leave now: the others do just now, or have."""
        found: set[int] = set()
        for pending in self.queue.copy():
            if (number := number_of(pending)) in call_ids:
                with suppress(ValueError):  # It leaves just now.
                    self.queue.remove(pending)
                    found.add(number)
        return found

    def discard(self, message: LoneMessage) -> None:
        """Take a message of its own out of the queue, if it is still there."""
        with suppress(ValueError):  # It has left.
            self.queue.remove(message)

    def refresh_limits(self, time_left: dict[int, float]) -> None:
        """Write into calls that waited for a connection what is left of their time limits."""
        for pending in self.queue.copy():
            if not isinstance(pending, LoneMessage) and pending[3] is not None and pending[0] in time_left:
                pending[3].time_left = time_left[pending[0]]


def number_of(pending: PendingCall | LoneMessage) -> int:
    """The number of the call; 0 for what is none."""
    return pending.call_id if isinstance(pending, LoneMessage) else pending[0]


def encode_eagerly(
    limit: SizeLimit, spec: OperationSpec, call_id: int, args: tuple[Any, ...], options: CallOptions | None
) -> tuple[PendingCall | LoneMessage, bool]:
    """Encode a call as it is begun; return it, and whether it is to leave at once.

    Raises: `InvalidArgumentType` if it cannot be sent, or not to this server, naming the parameter or the size; for an
        int that does not fit 64 bits one that is an `InvalidParameter` too.
    """
    pending: EncodedCall | LoneMessage
    try:
        if split_out_of_band(args) is not None:
            frames = encode_call(spec.target, call_id, args, options)
            pending, size, due = LoneMessage(frames, call_id), size_of(frames), True
            body = len(frames[0])
        else:
            encoded = encode_value(args)
            size = body = len(memoryview(encoded))
            pending, due = EncodedCall(call_id, spec.target, encoded, options), size > LONE_BYTES
    except OverflowError as error:
        text = f"{spec.name}: {_find_unencodable(spec, args)} is out of range: {text_of(error)}"
        raise NoNumber(text) from None
    except BaseException as error:  # Encoding runs the values' own code, which raises what it likes.
        if is_interrupt(error):
            raise
        text = f"{spec.name}: {_find_unencodable(spec, args)} cannot be sent: {text_of(error)}"
        raise InvalidArgumentType(text) from error
    if limit.known and (size > limit.bytes or body > limit.body):
        raise InvalidArgumentType(limit.report(f"a call of {spec.name}", size, body=body))
    return pending, due


def _find_unencodable(spec: OperationSpec, args: tuple[Any, ...]) -> str:
    """Name the argument that cannot be encoded."""
    for position, value in enumerate(args):
        try:
            encode_call(spec.target, 0, (value,))
        except BaseException as error:
            if is_interrupt(error):
                raise
            return f"parameter {spec.parameters[position]!r}" if spec.parameters else f"argument {position}"
    return "what it is called with, taken together,"
