"""The answers of one endpoint: a call is closed, its answer encoded, queued and sent.

Theory of operation. Answering takes the call out of its peer's table, which closes it, and appends the answer to the
peer's queue; neither takes a lock. What queues behind a send shares a message, encoded in one step. An answer that
cannot be encoded, or is too large alone, is replaced by its call's failure; of several answers that are too large
together, half wait for the next message.

    routine -> conclude -> peer's queue -> channel.flush -> next_message -> link.send

A message that the link does not take is kept for its client, and offered again every `OFFER_AGAIN` seconds. What waits
behind it is counted then: past `max_unread_bytes` the client is disconnected, and past `max_total_bytes` of all such
clients, with what the link has for its peers, the one for which most waits. So one that does not read costs others
nothing, and this side no more than that.

Assumes: `deque.append` and `popleft`, and removal of one key of a `dict`, are atomic and are not reordered. A thread
that appends an answer does so before it looks at `Peer.queued`; the sender clears that before it empties the queue: one
of the two sees the other, so no answer is left behind.

One class: what is queued, what is kept for who does not read, and what is counted of both change together, in the steps
of one send: hence the length.

Source: "Generating Error Information".
"""

from collections import deque
from collections.abc import Callable, Sized
from functools import partial
from itertools import starmap
from operator import attrgetter
from os import urandom
from typing import Any, NoReturn

from transport import Buffer, PayloadTooLarge
from transport.foreign import is_interrupt, text_of, type_name
from transport.frames import Fault, ReplyOptions
from transport.log import Log
from transport.realtime import monotonic
from transport.wire.blobs import split_out_of_band
from transport.wire.codec import (
    DEFERRABLE_BYTES,
    MAX_RECORD_BYTES,
    EncodedReply,
    PendingReply,
    deferrable,
    encode,
    encode_parts,
    encode_replies,
    encode_reply,
    encode_value,
)
from transport.wire.large import LARGE_BYTES
from transport.wire.session import Received

from ...errors import Forked, InvalidArgumentType, InvalidAsyncHandle
from ...kernel.driver import driver
from ...status import Status
from ..channel import Channel, OutgoingMessage, take_together
from ..errors import error_for
from ..limits import SizeLimit, size_of, split_to_fit
from ..pipes.shipment import Shipment
from .admission import Admission, EndpointCounters
from .contexts import ContextBook
from .faults import describe, is_for_clients, short_of
from .open_call import CloseReason, OpenCall, Peer

log: Log = Log("engine.rpc")
# What routines raise. A logger of its own: its level and its filters decide what of it is kept.
faults: Log = Log("engine.rpc.faults")

_ONCE: tuple[tuple[()], ...] = ((),)  # The arguments of one call without any.
AROUND_BYTES = 1024  # More than what is around a lone answer in its message.
SHORT_BYTES = 100  # What is said of an answer that was not encoded yet, and of what is around each.
OFFER_AGAIN = 0.02  # Seconds; arbitrary: a slow reader makes room for some megabytes.


class Answers:
    """Closes the calls of one endpoint, and sends their answers.

    Args: `contexts` has the context handles of the server; `tracebacks`: send those of routines that raised;
        `details`: send what exceptions say that were not raised for the client;
        `authentication_level`: how well the connections to the endpoint are protected; `max_unread_bytes` and
        `max_total_bytes`: how much may wait for one client that the link does not take, and for all, in the link too.
    Threads: any, except where it says so.
    """

    # Joins the link to the driver. Set once, by the listener, before anything arrives.
    channel: Channel

    def __init__(
        self, endpoint: str, counters: EndpointCounters, contexts: ContextBook, tracebacks: bool, details: bool,
        authentication_level: int, max_unread_bytes: int, max_total_bytes: int,
    ) -> None:  # fmt: skip
        self.counters: EndpointCounters = counters
        self.admission: Admission = counters.admission
        self.contexts: ContextBook = contexts
        self.authentication_level: int = authentication_level
        self.size_limit: SizeLimit = SizeLimit(endpoint, "the client")
        self._endpoint = endpoint
        self._tracebacks = tracebacks
        self._details = details
        # Peers that have answers to be sent. Appended anywhere, taken under link.lock.
        self.outgoing: deque[Peer] = deque()
        # Under link.lock: what is to be done after it was released.
        self.actions: list[Callable[[], object]] = []
        # Peers for whom a message is kept. Appended under link.lock, taken by the monitor.
        self._keeping: deque[Peer] = deque()
        self._max_unread_bytes = max_unread_bytes
        self._max_total_bytes = max_total_bytes
        # Bytes that wait for all of them, as they were counted last; and that wait in the link for all peers, as of the
        # first message that it did not take since the others were offered again. Under link.lock.
        self._unread_bytes = 0
        self._handed_bytes = 0
        # The endpoint goes away. Set once, under link.lock; read anywhere.
        self.closing: bool = False
        # Whom the message taken last is for, and the answers in it. Under link.lock.
        self._recipient: Peer | None = None
        self._taken: Sized = ()

    # What the channel asks for. Under link.lock.

    def drop(self) -> None:
        """The endpoint is closed: the calls that routines have ended since then are over all the same."""
        while self.next_message() is not None:
            pass

    def next_message(self, for_others: bool = False) -> OutgoingMessage | None:
        """Take the next message to send, or None."""
        counters = self.counters
        while self.outgoing:
            peer = self._recipient = self.outgoing[0]
            # First, for who appends an answer meanwhile queues the peer once more.
            peer.queued = False
            self.outgoing.popleft()
            answers = peer.answers
            if peer.lost or peer.kept is not None:
                if (frames := self._take_kept(peer)) is None:
                    continue
                return peer.id, frames
            if not answers:
                continue
            taken: list[Any] = []
            self._taken = taken
            over = 0
            try:
                # In one step: an interrupt finds it in one or the other.
                taken += starmap(answers.popleft, _ONCE)
                first = taken[0]
                if isinstance(first, tuple):
                    if answers:
                        take_together(answers, taken)
                    try:
                        frames = encode_replies(taken)
                    except Exception:
                        frames = encode_answers(taken)
                    if (size := len(frames[0])) > peer.session.message_limit:
                        frames = fit_replies(peer, taken, self.size_limit)
                    peer.bytes_out += size
                    over = len(taken)
                    counters.open -= over
                    self._taken = ()
                    if self.admission.draining:  # Counted off first, looked second.
                        self.admission.end_stop()
                else:
                    self._taken = ()
                    frames = first.take() if type(first) is Shipment else first
                    peer.bytes_out += size_of(frames)
                counters.messages_out += 1
            except BaseException as error:
                if not isinstance(error, Exception):  # They leave the next time.
                    answers.extendleft(reversed(taken))
                    counters.open += over
                    self.enqueue(peer)
                raise
            if answers and not peer.queued:
                peer.queued = True
                self.outgoing.append(peer)
            return peer.id, frames
        return None

    def _take_kept(self, peer: Peer) -> list[Buffer] | None:
        """Take the message that is kept for a client, if it is time to offer it; one that is lost gets none."""
        frames, answers = peer.kept, peer.answers
        if peer.lost:
            peer.kept = None
            self._note_unread(peer, 0, 0)
            gone = 0
            while answers:  # One by one: other threads may append meanwhile.
                gone += isinstance(answers.popleft(), tuple)
            self.counters.count_off(gone)
            return None
        if not peer.again:
            return None
        peer.kept = None
        self._note_unread(peer, 0, 0)
        if answers:
            self.enqueue(peer)
        return frames

    def keep(self, message: OutgoingMessage) -> bool:
        """The link does not take a message now: it is for its client alone."""
        peer = self._recipient
        assert peer is not None, "it is that of the message taken last"
        peer.kept, peer.again = message[1], False
        if not self._keeping:
            self._handed_bytes = self.channel.link.unread_bytes()
            driver().monitor.call_at(monotonic() + OFFER_AGAIN, self._offer_again)
        self._keeping.append(peer)
        waiting = unread_bytes(peer)
        self._note_unread(peer, waiting, sum(map(_ends_a_call, peer.answers.copy())))
        if waiting > self._max_unread_bytes:
            self._evict(peer, f"it left {waiting} bytes unread, max_unread_bytes allows {self._max_unread_bytes}")
        elif (total := self._unread_bytes + self._handed_bytes) > self._max_total_bytes:
            most = max((peer, *self._keeping.copy()), key=attrgetter("unread_bytes"))
            self._evict(most, (
                f"it left {most.unread_bytes} bytes unread, more than any other; {total} wait for all, with those that "
                f"were handed over, and max_total_bytes allows {self._max_total_bytes}"
            ))  # fmt: skip
        return True

    def _note_unread(self, peer: Peer, size: int, answers: int) -> None:
        """So much waits for a client because it does not read. Its calls are open, but take no room from others."""
        self._unread_bytes += size - peer.unread_bytes
        self.counters.unread += answers - peer.unread_answers
        peer.unread_bytes, peer.unread_answers = size, answers

    def _evict(self, peer: Peer, reason: str) -> None:
        """End the connection of a client that does not read. Nothing is kept for it, and nothing of it begun, from now
        on, whatever it has sent that is to be read before its end is.
        """
        with self.admission.lock:
            peer.lost = peer.parting = True
        self._note_unread(peer, 0, 0)
        self.enqueue(peer)
        self.counters.evicted += 1
        where = peer.address or peer.id.hex()
        self.admission.complaints.warning("%s: disconnected the client at %s: %s", self._endpoint, where, reason)
        self.channel.link.disconnect(peer.id, reason)
        self._handed_bytes = self.channel.link.unread_bytes()

    def _offer_again(self) -> None:
        """The monitor's: what was kept may leave now."""
        for _ in range(len(self._keeping)):
            peer = self._keeping.popleft()
            peer.again = True
            self.enqueue(peer)
        self.channel.flush()

    def unsendable(self, error: Exception, made: bool) -> None:
        """A message cannot be sent, or not be made: what its calls came to is lost, and its client is notified."""
        peer = self._recipient
        if not made:
            self.counters.count_off(len(self._taken))  # Their calls are over all the same.
        if peer is not None and not peer.lost:
            self.fail(peer, error)
            if peer.answers:
                self.enqueue(peer)

    def enqueue(self, peer: Peer) -> None:
        """`peer` has something to send."""
        if not peer.queued:
            peer.queued = True
            self.outgoing.append(peer)

    def send_alone(self, peer: Peer, frames: list[Buffer]) -> None:
        """Send a message of its own to `peer` with the next flush."""
        peer.answers.append(frames)
        self.enqueue(peer)

    def answer(self, call: OpenCall, value: object) -> None:
        """Close `call` with a result and send it now, with everything else that waits."""
        try:
            self.reply(call, value)
        finally:
            self.channel.flush()  # A result that cannot be sent raises, and leaves a fault to be sent instead.

    def answer_fault(self, call: OpenCall, status: int, text: str, error: BaseException | None = None) -> None:
        """Close `call` as `reply_fault`, and send that now, with everything else that waits."""
        self.reply_fault(call, status, error, text)
        self.channel.flush()

    def abandon(self, call: OpenCall, error: BaseException) -> None:
        """This side has failed at the answer of `call`: close it, or break off with its client, if it was closed.

        What that says leaves with the next flush.
        """
        try:
            self.reply_fault(call, Status.CALL_FAILED, None, f"the server failed at it: {type_name(error)}")
        except InvalidAsyncHandle:
            self.fail_at(call.peer, error, call.id)

    def reply(self, call: OpenCall, value: object) -> None:
        """Close `call` with a result, which leaves with the next flush."""
        if call.extra is not None and (around := call.extra.around) is not None:
            around.call.result = value
            error = around.end(None)
            if error is not None:
                self._close_failed(call, 0, error, "")
                if is_interrupt(error):
                    raise error
                return
            value = around.call.result
        if call.peer.calls.pop(call.id, None) is not call:
            raise _closed_before(call)
        self.conclude(call, value)

    def conclude(self, call: OpenCall, value: object) -> None:
        """Answer a call that was just taken out of its peer's table."""
        peer = call.peer
        if call.extra is not None:
            self._reply_with_extras(call, peer, value)
            return
        options = call.options
        if peer.lost or (options is not None and options.one_way):
            self.counters.count_off_apart()
            return
        if value is None or (type(value) is bytes and len(value) <= DEFERRABLE_BYTES) or deferrable((value,)):
            peer.answers.append((call.id, value))
        else:
            self._reply_now(call, peer, value)
        if not peer.queued:  # `enqueue` in line.
            peer.queued = True
            self.outgoing.append(peer)

    def _reply_with_extras(self, call: OpenCall, peer: Peer, value: object) -> None:
        """As `conclude`, for a call that has extras: whether the result can be sent decides what becomes of it."""
        extras = call.extra
        assert extras is not None
        options = call.options
        if peer.lost or (options is not None and options.one_way):
            extras.run_callbacks(CloseReason.UNSENT)
            self.counters.count_off_apart()
            return
        # Run close callbacks after encoding and before sending, so that context handles in the result are registered
        # before the client can use them.
        ended = partial(extras.run_callbacks, CloseReason.ANSWERED)
        try:
            self._reply_now(call, peer, value, ended)
        except BaseException:
            extras.run_callbacks(CloseReason.UNSENT)
            raise
        finally:
            self.enqueue(peer)

    def _reply_now(
        self, call: OpenCall, peer: Peer, value: object, encoded: Callable[[], object] | None = None
    ) -> None:
        """Encode a result that may change later, or is large. `encoded` is called when it is, before it can leave."""
        try:
            answer: list[Buffer] | EncodedReply
            options = _reply_options(call)
            if call.extra is not None and call.extra.outputs is not None:
                alone = True
                answer = encode_parts(call.id, (value, *call.extra.outputs), options)
            elif alone := options is not None or split_out_of_band((value,)) is not None:
                answer = encode_reply(call.id, value, 0, options)
            else:
                answer = EncodedReply(call.id, 0, encode_value(value))
            size = size_of(answer) if isinstance(answer, list) else len(memoryview(answer.value))
            if size > peer.session.message_limit:
                raise PayloadTooLarge(self.size_limit.report("the result", size, peer.session.message_limit))
        except BaseException as error:  # Encoding runs the value's own code, which raises what it likes.
            text = f"the result of {call.entry.spec.name} cannot be sent: {text_of(error)}"
            fault = Fault(type_name(error), text)
            if not self._details and type(error) is not PayloadTooLarge:
                fault = Fault("", self._report(call, error))
            self.fault(peer, call.id, Status.BAD_STUB_DATA, fault)
            if is_interrupt(error):
                raise
            raise InvalidArgumentType(text) from error
        if encoded is not None:
            encoded()
        peer.answers.append(answer)
        if alone:
            self.counters.count_off_apart()
        if size > LARGE_BYTES:  # It shares no message: nothing is gained if it waits, but memory is taken.
            self.enqueue(peer)
            self.channel.flush_now()

    def reply_fault(self, call: OpenCall, status: int, error: BaseException | None, text: str = "") -> None:
        """Close `call` with a failure, which leaves with the next flush; an `error` brings its own status."""
        if call.extra is not None and (around := call.extra.around) is not None:
            failed = error_for(status, text) if error is None else error
            ended = around.end(failed)
            if ended is None:
                try:
                    self.reply(call, around.call.result)
                except InvalidArgumentType as unsendable:
                    log.error("%r: %s", call, unsendable)
                return
            error = error if ended is failed else ended
        self._close_failed(call, status, error, text)

    def _close_failed(self, call: OpenCall, status: int, error: BaseException | None, text: str) -> None:
        peer = call.peer
        if peer.calls.get(call.id) is not call:  # Looked at first: the log must not say that this was sent to a client.
            raise _closed_before(call)
        if error is None:
            fault = Fault("", text)
        else:
            raises = call.entry.spec.raises
            status, fault = describe(error, self._tracebacks, raises)
            if not is_for_clients(error, raises):
                text = self._report(call, error)
                fault = fault if self._details else Fault("", text)
        if peer.calls.pop(call.id, None) is not call:
            raise _closed_before(call)
        if call.extra is not None:
            call.extra.run_callbacks(CloseReason.FAILED)
        if peer.lost or (call.options is not None and call.options.one_way):
            self.counters.count_off_apart()
        else:
            self.fault(peer, call.id, status, fault, _reply_options(call))

    def _report(self, call: OpenCall, error: BaseException) -> str:
        """Log what a routine has raised, and not for its client; return what is sent to that instead."""
        number, peer, spec = urandom(8).hex(), call.peer, call.entry.spec
        operation = f"{spec.target.interface}.{spec.name}"
        process = f"process {peer.process} on {peer.host}" if peer.process else ""
        caller = " ".join(filter(None, (peer.user, process, peer.address))) or peer.id.hex()
        faults.error(
            "%s: %s raised %s in call %d of %s (fault %s)",
            self._endpoint, operation, type_name(error), call.id, caller, number,
            exc_info=error, extra={"operation": operation, "call_id": call.id, "caller": caller, "fault": number},
        )  # fmt: skip
        return f"the server failed at the call; its log says why, under {number}"

    def fault(self, peer: Peer, call_id: int, status: int, fault: Fault, options: ReplyOptions | None = None) -> None:
        """Queue a failure as the answer to a call that is in no table, or not any more."""
        with self.admission.lock:
            self.admission.faults += 1
        try:
            value = encode_value(fault, min(MAX_RECORD_BYTES, peer.session.message_limit - AROUND_BYTES))
        except BaseException:  # What it carries is of the program's own making, too.
            # It cannot be sent, or not to this client: the status is what counts, and the text for people is cut.
            value = encode_value(Fault(short_of(fault.type), short_of(fault.text)))
        alone = None if options is None else encode_reply(call_id, value, status, options)
        if alone is not None and size_of(alone) <= peer.session.message_limit:
            peer.answers.append(alone)
            self.counters.count_off_apart()
        else:
            peer.answers.append(EncodedReply(call_id, status, value))
        self.enqueue(peer)

    def give_up(self, call: OpenCall) -> bool:
        """Close a call that was not begun, and whose client is gone, or will hear that the server closes.

        False, and it is to be run, if it is one way: for its client it was done as it was begun. Once the endpoint
        closes no thread is left to run it.
        """
        if not self.closing and call.options is not None and call.options.one_way:
            return False
        try:
            self.reply_fault(call, Status.SERVER_UNAVAILABLE, None, "the server closed before the call was begun")
        except InvalidAsyncHandle:
            log.debug("%r was closed before it was begun", call)
        return True

    def reply_with(self, peer: Peer, received: Received) -> None:
        """Send what the session answers; if it has ended the conversation, run down its contexts. Under link.lock."""
        for answer in received.answers:
            self.send_alone(peer, encode(answer))
        if received.ended:
            self.actions += self.contexts.leave(peer.key, peer)

    def fail(self, peer: Peer, error: BaseException) -> None:
        """This side fails at a message of, or for, a client, which may be lost: break off. Under link.lock."""
        text = self._count_failure(peer, error)
        self.reply_with(peer, peer.session.break_off(Status.OUT_OF_RESOURCES, text))

    def _count_failure(self, peer: Peer, error: BaseException) -> str:
        """Count a failure, and return what it was. Under link.lock."""
        self.counters.failures += 1
        text = f"a message could not be dealt with: {type_name(error)}"
        where = peer.address or peer.id.hex()
        self.admission.complaints.error("%s: %s: %s", self._endpoint, where, text, exc_info=error, later=True)
        return text

    def fail_at(self, peer: Peer, error: BaseException, closed: int | None) -> None:
        """A worker has failed at calls of a client, and at the answer of one that it had `closed`. Holding nothing."""
        with self.channel.link.lock:
            if closed is None or self.answered(peer, closed):
                self._count_failure(peer, error)
            else:
                self.counters.count_off(1)
                if not peer.lost:
                    self.fail(peer, error)
            peer.queued = False  # It may have failed just before it queued the peer.
            self.enqueue(peer)

    def answered(self, peer: Peer, call_id: int) -> bool:
        """Whether the answer to that call waits to be sent. Under link.lock."""
        return any(map(partial(_answers, call_id), peer.answers.copy()))

    def forked(self) -> None:
        """In a forked child: the calls are the parent's to answer. Takes no lock."""

        def refuse(*args: object) -> NoReturn:
            raise Forked("this call came before fork(): it is the parent's to answer")

        for name in ("answer", "answer_fault"):
            setattr(self, name, refuse)


def _answers(call_id: int, answer: object) -> bool:
    """Whether this is the answer to the call of that number."""
    return isinstance(answer, tuple) and answer[0] == call_id


def unread_bytes(peer: Peer) -> int:
    """How many bytes wait to be sent to a client, about."""
    return sum(map(_bytes_of, peer.answers.copy())) + (0 if peer.kept is None else size_of(peer.kept))


def _bytes_of(answer: object) -> int:
    if isinstance(answer, Shipment):
        return answer.size
    if isinstance(answer, list):
        return size_of(answer)
    return SHORT_BYTES + (len(memoryview(answer.value)) if isinstance(answer, EncodedReply) else 0)


def _ends_a_call(answer: object) -> bool:
    """Whether it is an answer whose call is open until it leaves."""
    return isinstance(answer, tuple)


def _reply_options(call: OpenCall) -> ReplyOptions | None:
    """What travels beside the answer to a call."""
    extra = call.extra
    return None if extra is None or not extra.metadata else ReplyOptions(metadata=extra.metadata)


def _closed_before(call: OpenCall) -> InvalidAsyncHandle:
    return InvalidAsyncHandle(f"{call!r} was closed before: the first closing is the one that counts")


def encode_answers(taken: list[PendingReply]) -> list[Buffer]:
    """Return the message of these answers; in the place of one that cannot be encoded its call's failure is `taken`."""
    try:
        return encode_replies(taken)
    except Exception:
        for at, answer in enumerate(taken):
            try:
                encode_replies([answer])
            except Exception as error:
                fault = Fault(type_name(error), f"the answer cannot be sent: {text_of(error)}")
                taken[at] = EncodedReply(answer[0], int(Status.BAD_STUB_DATA), encode_value(fault))
                log.error("an answer cannot be sent", exc_info=error, later=True)
        return encode_replies(taken)


def fit_replies(peer: Peer, taken: list[PendingReply], limit: SizeLimit) -> list[Buffer]:
    """Return a message of less answers than `taken`, which are more than the client takes; the others wait again.

    `taken` holds, afterwards, those that are in the message.
    """
    frames, number = split_to_fit(taken, encode_replies, peer.session.message_limit)
    peer.answers.extendleft(reversed(taken[number:]))
    del taken[number:]
    if len(frames[0]) <= peer.session.message_limit:
        return frames
    call_id = taken[0][0]
    text = limit.report("the answer", len(memoryview(encode_value(taken[0]))), peer.session.message_limit)
    taken[0] = EncodedReply(call_id, int(Status.BAD_STUB_DATA), encode_value(Fault("PayloadTooLarge", text)))
    return encode_replies(taken)
