"""One endpoint of a server: its peers, the calls that arrive from them, and the answers that go back.

Theory of operation. A harvest decodes a message, enters its calls in their peer's table and in its lane, which is run
by the server's pool. Answering takes the call out of that table, which closes it, and appends the answer to its peer's
queue; neither takes a lock. A lane's runner sends when nothing is left to run, everybody else at once, and what queues
behind a send shares a message, encoded in one step.

    link.harvest -> on_message -> Lane -> pool ... routine -> answer -> peer's queue -> channel.flush -> link.send

Lock order: link.lock, then the server's lock.

Assumes: `deque.append` and `popleft`, and insertion and removal of one key of a `dict`, are atomic and are not
reordered. Whoever appends an answer does so before looking at `Peer.queued`; the sender clears that before it empties
the queue: one of the two sees the other, so no answer is left behind.
"""

import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Sized
from contextlib import suppress
from contextvars import Context
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from transport import Buffer, Link, LinkClosed, PayloadTooLarge
from transport.errors import RemoteProtocolError, VersionMismatch
from transport.foreign import is_interrupt, text_of, type_name
from transport.frames import (
    MAGIC,
    NO_LANE,
    VERSION,
    Bye,
    CallGroup,
    CallOptions,
    Calls,
    Cancel,
    Chunks,
    Credit,
    Fault,
    Hello,
    Kind,
    Reject,
    ReplyOptions,
)
from transport.log import Log
from transport.realtime import monotonic, sleep
from transport.wire.blobs import split_out_of_band
from transport.wire.codec import (
    DEFERRABLE_BYTES,
    MAX_RECORD_BYTES,
    EncodedReply,
    decode,
    deferrable,
    encode,
    encode_parts,
    encode_reply,
    encode_value,
    split_args,
)
from transport.wire.conversation import Conversation, Side

from ...errors import Forked, InvalidArgumentType, InvalidAsyncHandle
from ...kernel.each import each
from ...status import Status
from ..batching import take_together
from ..channel import Channel, OutgoingMessage
from ..errors import CallCancelled, CallFailed
from ..limits import SizeLimit, largest_message, size_of
from ..notify import EventKind
from ..pipes.shipment import Shipment
from . import pipes as pipe_server
from .admission import is_local
from .authentication import level_of
from .batch import Batch
from .call import ServerCall
from .contexts import ContextBook, key_of
from .encoding import encode_answers, fit_replies
from .extras import Closing, when_closed
from .fault import describe, short
from .lane import FIRST_LOOK, Lane
from .peer import Peer
from .pipes import ServerPipes
from .registry import Entry, Refusal

if TYPE_CHECKING:
    from .server import Server

log: Log = Log("engine.rpc")

AROUND_BYTES = 1024  # More than what is around a lone answer in its message.
SETTLING = 0.1  # Seconds that a closing listener waits for threads that are just entering a routine, at the most.


def _part_from(peer: Peer) -> None:
    peer.parting = True
    peer.greeted = False  # Nor is anything taken of it from here on.


class Listener:
    """Serves one endpoint. The server makes one for each endpoint that it listens on."""

    def __init__(self, server: "Server", link: Link) -> None:
        self._server = server
        self._link = link
        self._lock = server._lock
        self._peers: dict[bytes, Peer] = {}
        # Those that are gone while calls of theirs still run. Under link.lock.
        self._departed: weakref.WeakSet[Peer] = weakref.WeakSet()
        # The context handles of the server.
        self.contexts: ContextBook = server._contexts
        # Peers that have answers to be sent. Appended anywhere, taken under link.lock.
        self.outgoing: deque[Peer] = deque()
        # How many calls of the message that is being taken count as active and are not entered yet. Under link.lock.
        self._entering = 0
        # Whom the message taken last is for. Under link.lock.
        self._serving: Peer | None = None
        # The answers in it. Under link.lock.
        self._taken: Sized = ()
        # Lanes that were posted and not begun: while there are any, answers wait for theirs.
        self.posted: deque[Lane] = deque()
        # Under link.lock: what a harvest brought to be done after it.
        self.actions: list[Callable[[], object]] = []
        self.endpoint: str = link.endpoint
        self.size_limit: SizeLimit = SizeLimit(self.endpoint, "the client")
        # How well the connections to this endpoint are protected.
        self.authentication_level: int = level_of(self.endpoint, server._encrypts)
        # Set once, under link.lock; read anywhere.
        self._closing = False
        self.channel: Channel = Channel(link, self, self.outgoing, self._lock)
        self.channel.open()
        self.channel.needs_progress(True)

    # The channel's side: sending

    def silence(self) -> str:
        """Nothing: a server waits for anybody."""
        return ""

    def next_message(self) -> OutgoingMessage | None:
        """Take the next message to send, or None. Under link.lock."""
        while self.outgoing:
            peer = self._serving = self.outgoing.popleft()
            peer.queued = False
            answers = peer.answers
            if peer.lost:
                gone = 0
                while answers:  # One by one: others may append meanwhile.
                    gone += isinstance(answers.popleft(), tuple)
                self._sent(gone, 0)
                continue
            if not answers:
                continue
            first = answers.popleft()
            if isinstance(first, tuple):
                self._taken = taken = [first]
                if answers:
                    take_together(answers, taken)
                frames = encode_answers(taken)
                if len(frames[0]) > peer.message_limit:
                    frames = fit_replies(peer, taken, self.size_limit)
                self._sent(len(taken))
            else:
                self._taken = ()
                frames = first.take() if type(first) is Shipment else first  # type: ignore[assignment]  # no tuple
            if answers:
                self.tell(peer)
            return peer.id, frames
        return None

    def _sent(self, answers: int, messages: int = 1) -> None:
        """These answers leave, in so many messages, or are for nobody: their calls are over."""
        server, lock = self._server, self._lock
        if lock.owned():
            lock.refuse()
        try:
            lock.acquire()
            server._counters.messages_out += messages
            server._active -= answers
            if server._draining:
                server._closed_locked()
        except BaseException:
            if lock.owned():
                lock.release()
            raise
        lock.release()

    def tell(self, peer: Peer) -> None:
        """`peer` has something to send."""
        if not peer.queued:
            peer.queued = True
            self.outgoing.append(peer)

    def send_alone(self, peer: Peer, frames: list[Buffer]) -> None:
        """Send a message of its own to `peer` with the next flush."""
        peer.answers.append(frames)
        self.tell(peer)

    # The channel's side: receiving. Under link.lock, one at a time.

    def on_connected(self, peer: bytes) -> None:
        """A client was heard of."""
        info = self._link.peer_info(peer)
        known = Peer(peer, info, is_local(self.endpoint, info.address), Lane(self, self._server.pool))
        known.parting = self._closing
        self._peers[peer] = known

    def on_lost(self, peer: bytes, reason: str) -> None:
        """A client is gone. Its running calls go on; their answers will go nowhere."""
        with self._lock:
            known = self._peers.pop(peer, None)
            if known is None:
                return
            known.lost = known.parting = True
        self.actions += self._part(known, f"the client is gone: {reason}")

    def _part(self, peer: Peer, why: str) -> list[Callable[[], object]]:
        """What is to be done after a client has gone: end pipes, tell subscribers, run contexts down."""
        acts: list[Callable[[], object]] = []
        if peer.calls:
            self._departed.add(peer)
        # Of calls without a handle there is nobody to be told.
        for call in [call for call in peer.calls.copy().values() if isinstance(call, ServerCall)]:
            if call._pipes is not None:
                acts += call._pipes.fail(CallFailed, why)
            if call._extra is not None:
                acts.append(partial(_tell, call, EventKind.CLIENT_DISCONNECT))
        if peer.joined:
            peer.joined = False
            acts += self.contexts.leave(key_of(peer))
        return acts

    def on_connect_failed(self, reason: str) -> None:
        """Does not happen on a server."""

    def on_message(self, peer: bytes, frames: list[Buffer]) -> bool:
        """Take one message from a client. True: more is hardly there, so the harvest may end."""
        known = self._peers.get(peer)
        if known is None:
            return False
        try:
            self._server._counters.messages_in += 1
            message = decode(frames)
        except RemoteProtocolError as error:
            self._drop(known, error, isinstance(error, VersionMismatch))
            if known.greeted and bytes(frames[0][:2]) == MAGIC:
                self._break_off(known, Status.PROTOCOL_ERROR, str(error))
            return False
        except Exception as error:  # No memory for it, for one: the others are served all the same.
            self._fail(known, error)
            return False
        try:
            if type(message) is Calls:
                if not known.greeted:
                    known.conversation.received(Kind.CALLS)  # Raises if it is out of turn.
                    return False  # We are about to say goodbye, and that we have not taken this.
                known.taken += 1
                self._take_calls(known, message, frames[1:])
                # The only client waits for its only call: look for more after that was answered.
                return len(known.calls) == 1 and len(self._peers) == 1
            elif type(message) is Hello:
                known.conversation.received(Kind.HELLO)
                self._greet(known, message)
            elif type(message) is Cancel:
                known.conversation.received(Kind.CANCEL)
                self._cancel(known, message)
            elif type(message) is Bye:
                known.conversation.received(Kind.BYE)
                known.greeted = False
                self.on_lost(peer, message.reason)
            elif type(message) is Chunks or type(message) is Credit:
                known.conversation.received(Kind.PIPE)  # Allowed in the same states as CREDIT.
                self.actions += pipe_server.take(known.calls, message)
            else:
                raise RemoteProtocolError(f"a client does not send {type(message).__name__}")
        except RemoteProtocolError as error:
            self._drop(known, error, True)
        except Exception as error:  # As above.
            # What was entered before runs; the others are nobody's calls.
            not_entered, self._entering = self._entering, 0
            self._sent(not_entered, 0)
            if known.lane.calls:
                self.actions.append(known.lane.post)
            self._fail(known, error)
        return False

    def _break_off(self, peer: Peer, status: int, text: str) -> None:
        """A message of a client is lost, or one to it. Calls in it would wait for ever, so the conversation begins
        again, and all that it has open fail there. What is on its way from before is dropped in silence.
        """
        peer.greeted = False
        peer.refused = True
        peer.conversation = Conversation(Side.SERVER)
        if peer.joined:
            peer.joined = False
            self.actions += self.contexts.leave(key_of(peer))
        self.send_alone(peer, encode(Reject([VERSION], status, text)))

    def _fail(self, peer: Peer, error: BaseException) -> None:
        """This side fails at a message of, or for, one client. Under link.lock."""
        text = self._failed(peer, error)
        if not peer.refused:
            self._break_off(peer, Status.OUT_OF_RESOURCES, text)

    def _failed(self, peer: Peer, error: BaseException) -> str:
        """Count a failure, and return what it was. Under link.lock."""
        self._server._counters.failures += 1
        text = f"a message could not be dealt with: {type_name(error)}"
        log.error("%s: %s: %s", self.endpoint, peer.address or peer.id.hex(), text, exc_info=error, later=True)
        return text

    def fail_at(self, peer: Peer, error: BaseException, closed: int | None) -> None:
        """A worker has failed at calls of a client, and at the answer of one that it had `closed`. Holding nothing."""
        with self.channel.link.lock:
            if closed is None or any(map(partial(_answers, closed), peer.answers.copy())):
                self._failed(peer, error)
            else:
                self._sent(1, 0)
                if not peer.lost:
                    self._fail(peer, error)
            peer.queued = False  # It may have failed just before it told of the answers.
            self.tell(peer)

    def unsendable(self, error: Exception, made: bool) -> None:
        """A message cannot be sent, or not be made: what its calls came to is lost, and its client is told."""
        peer = self._serving
        if not made:
            self._sent(len(self._taken), 0)  # Their calls are over all the same.
        if peer is not None and not peer.lost:
            self._fail(peer, error)
            if peer.answers:
                self.tell(peer)

    def failed(self, error: Exception) -> None:
        """A harvest failed, for nobody's message; it will be tried again."""
        self._server._counters.failures += 1

    def _greet(self, peer: Peer, hello: Hello) -> None:
        if self._closing:
            peer.refused = True
            peer.conversation = Conversation(Side.SERVER)
            text = "the server is closing"
            self.send_alone(peer, encode(Reject([VERSION], Status.SERVER_UNAVAILABLE, text)))
            return
        peer.association = hello.association
        peer.process = hello.pid
        peer.host = hello.host
        peer.metadata = hello.metadata
        peer.message_limit = largest_message(hello.limits.message_bytes)
        peer.pipe_window = hello.limits.pipe_window_bytes
        peer.conversation.sent(Kind.WELCOME)
        peer.greeted = True
        peer.taken = 0
        peer.refused = False
        peer.joined = True
        self.contexts.join(key_of(peer))
        self.send_alone(peer, encode(self._server._welcome(self._link.heartbeat)))

    def _drop(self, peer: Peer, error: RemoteProtocolError, understood: bool) -> None:
        self._server._counters.garbage += 1
        peer.garbage += 1
        if peer.garbage == 1:
            where = peer.address or peer.id.hex()
            log.warning("%s: dropped a message from %s: %s; further ones are only counted", self.endpoint, where, error)
        if understood and not peer.greeted and not peer.refused:
            # It speaks our protocol, but not in our version, or without a greeting: say so, once. The conversation
            # stays fresh, so that a greeting may still come.
            peer.refused = True
            self.send_alone(peer, encode(Reject([VERSION], Status.PROTOCOL_ERROR, str(error))))

    def _take_calls(self, peer: Peer, message: Calls, blobs: list[Buffer]) -> None:
        server = self._server
        groups = message.groups
        count = len(groups[0].ids) if len(groups) == 1 else sum(len(group.ids) for group in groups)
        lock = self._lock
        if lock.owned():
            lock.refuse()
        try:
            lock.acquire()
            room = server._room_locked()
            server._counters.calls_in += count
            # As if all were accepted; refusals are answered, and an answer that leaves is counted off.
            server._active += count
            no_room = server._refusal_locked() if room < count else None
        except BaseException:
            if lock.owned():
                lock.release()
            raise
        lock.release()
        self._entering = count
        lane = peer.lane.calls
        for group in groups:
            entry = server._registry.find(message.targets[group.target])
            if (
                no_room is None
                and group.options is None
                and type(entry) is Entry
                and not (entry.takes_handle or entry.needs_no_worker or entry.gate)
                and peer.calls.keys().isdisjoint(group.ids)
            ):
                # The usual way.
                batch = Batch(self, peer, entry, group)
                if len(group.ids) == 1:
                    peer.calls[group.ids[0]] = batch
                else:
                    peer.calls.update(zip(group.ids, repeat(batch), strict=False))
                lane.append(batch)
                self._entering -= len(group.ids)
            else:
                room -= self._take_one_by_one(peer, group, entry, room if no_room else count, no_room, blobs)
        if lane:
            self.actions.append(peer.lane.post)

    def _take_one_by_one(
        self,
        peer: Peer,
        group: CallGroup,
        entry: Entry | Refusal,
        room: int,
        no_room: tuple[int, str] | None,
        blobs: list[Buffer],
    ) -> int:
        """Take calls each of which has a handle from the beginning, or is refused; return how many took of `room`."""
        server, options = self._server, group.options
        try:
            all_args = split_args(group)
        except msgspec.MsgspecError as error:
            if isinstance(entry, Entry):
                entry = Refusal(Status.BAD_STUB_DATA, f"the arguments cannot be read: {error}")
            all_args = [group.args] * len(group.ids)
        took = turned_away = 0
        apart: list[ServerCall] = []
        for call_id, args in zip(group.ids, all_args, strict=True):
            self._entering -= 1
            refusal: tuple[int, str] | None = None
            if isinstance(entry, Refusal):
                refusal = entry.status, entry.text
            elif entry.auto is None and took >= room:
                refusal = no_room
                turned_away += 1
            elif call_id in peer.calls:
                # Whose call is it? Both ends would be wrong for one of them.
                self._sent(1, 0)
                peer.garbage += 1
                server._counters.garbage += 1
                continue
            elif entry.auto is not None and (refusal := server._enter(entry.auto)) is not None:
                turned_away += 1
            if refusal is not None:
                if options is not None and options.one_way:
                    self._sent(1, 0)
                else:
                    self._fault(peer, call_id, refusal[0], Fault("", refusal[1]))
                continue
            assert isinstance(entry, Entry)
            if options is None:
                call = ServerCall(self, peer, call_id, entry, args, _begun=False)
            else:
                call = self._call_with_options(peer, call_id, entry, args, options, blobs)
            peer.calls[call_id] = call
            if entry.auto is None:
                took += 1
            else:
                when_closed(call, partial(server._leave, entry.auto))
            # Last: whoever finds it there may run and close it at once.
            (apart if options is not None and options.lane == NO_LANE else peer.lane.calls).append(call)
        if turned_away:
            with self._lock:
                server._counters.refused += turned_away
        if apart:
            self.actions.append(self._run_apart(apart))
        return took

    def _run_apart(self, calls: list[ServerCall]) -> Callable[[], object]:
        """Return what has these calls run, outside of their connection's order."""
        lane = Lane(self, self._server.pool)
        lane.calls.extend(calls)
        return lane.post

    def _call_with_options(
        self, peer: Peer, call_id: int, entry: Any, args: Any, options: CallOptions, blobs: list[Buffer]
    ) -> ServerCall:
        deadline = None if options.time_left is None else monotonic() + options.time_left
        call = ServerCall(self, peer, call_id, entry, args, options, blobs or None, deadline, _begun=False)
        if options.pipes is not None and options.pipes == entry.spec.directions:
            call._pipes = ServerPipes(self, peer, call, entry.spec, self._server._pipe_window)
        return call

    def _cancel(self, peer: Peer, message: Cancel) -> None:
        with self._lock:
            each(partial(self._cancel_locked, peer), message.calls)

    def _cancel_locked(self, peer: Peer, asked: tuple[int, bool]) -> None:
        call_id, abort = asked
        call = peer.calls.get(call_id)
        if isinstance(call, Batch):
            call = call.open(call_id)
        if call is None:
            return
        call._cancelled = True
        call._aborted |= abort
        if abort and call._pipes is not None:
            self.actions += call._pipes.fail(CallCancelled, "the client has cancelled the call")
        if call._extra is not None:
            self.actions.append(partial(_tell, call, EventKind.CLIENT_CANCEL))

    # Answers

    def answer(self, call: ServerCall, value: object) -> None:
        """Close `call` with a result and send it now, with whatever else waits."""
        try:
            self.reply(call, value)
        finally:
            self.channel.flush()  # A result that cannot be sent raises, and leaves a fault to be sent instead.

    def answer_fault(self, call: ServerCall, status: int, text: str) -> None:
        """Close `call` with a failure and send it now, with whatever else waits."""
        self.reply_fault(call, status, None, text)
        self.channel.flush()

    def answer_error(self, call: ServerCall, error: BaseException) -> None:
        """Close `call` with what its routine raised and send it now, with whatever else waits."""
        self.reply_fault(call, 0, error)
        self.channel.flush()

    def serves(self, server: "Server") -> bool:
        """Whether this is an endpoint of `server`."""
        return self._server is server

    def start(self, call: ServerCall, coroutine: Coroutine[Any, Any, Any], context: Context) -> None:
        """Run an `async def` routine in the server's event loop, in `context`; its end closes the call."""
        self._server._runner.start(self, call, coroutine, context)

    def reply(self, call: ServerCall, value: object) -> None:
        """Close `call` with a result, which leaves with the next flush."""
        if call._peer.calls.pop(call._id, None) is not call:
            raise _closed_before(call)
        self.conclude(call, value)

    def conclude(self, call: ServerCall, value: object) -> None:
        """Answer a call that was just taken out of its peer's table."""
        peer = call._peer
        if call._extra is not None:
            self._reply_attached(call, peer, value)
            return
        options = call._options
        if peer.lost or (options is not None and options.one_way):
            self._sent(1, 0)
            return
        if value is None or (type(value) is bytes and len(value) <= DEFERRABLE_BYTES) or deferrable((value,)):
            peer.answers.append((call._id, value))
        else:
            self._reply_now(call, peer, value)
        if not peer.queued:
            peer.queued = True
            self.outgoing.append(peer)

    def _reply_attached(self, call: ServerCall, peer: Peer, value: object) -> None:
        """As `reply`, for a call that has an attachment: whether the result can be sent decides what becomes of it."""
        attachment = call._extra
        assert attachment is not None
        options = call._options
        if peer.lost or (options is not None and options.one_way):
            attachment.end(Closing.UNSENT)
            self._sent(1, 0)
            return
        # Ended between packing and sending: what the result refers to is there when it arrives.
        ended = partial(attachment.end, Closing.ANSWERED)
        try:
            self._reply_now(call, peer, value, ended)
        except BaseException:
            attachment.end(Closing.UNSENT)
            raise
        finally:
            self.tell(peer)

    def _reply_now(
        self, call: ServerCall, peer: Peer, value: object, packed: Callable[[], object] | None = None
    ) -> None:
        """Encode a result that may change later, or is large. `packed` is called when it is, before it can leave."""
        try:
            answer: list[Buffer] | EncodedReply
            options = _reply_options(call)
            if call._extra is not None and call._extra.outputs is not None:
                parts = (value, *call._extra.outputs)
                if alone := options is not None or split_out_of_band(parts) is not None:
                    answer = encode_parts(call._id, parts, options)
                else:
                    answer = EncodedReply(call._id, 0, encode_value(parts))
            elif alone := options is not None or split_out_of_band((value,)) is not None:
                answer = encode_reply(call._id, value, 0, options)
            else:
                answer = EncodedReply(call._id, 0, encode_value(value))
            size = size_of(answer) if isinstance(answer, list) else len(memoryview(answer.value))
            if size > peer.message_limit:
                raise PayloadTooLarge(self.size_limit.report("the result", size, peer.message_limit))
        except BaseException as error:  # Encoding runs the value's own code, which raises what it likes.
            text = f"the result of {call._entry.spec.name} cannot be sent: {text_of(error)}"
            self._fault(peer, call._id, Status.BAD_STUB_DATA, Fault(type_name(error), text))
            if is_interrupt(error):
                raise
            raise InvalidArgumentType(text) from error
        if packed is not None:
            packed()
        peer.answers.append(answer)
        if alone:
            self._sent(1)

    def reply_fault(self, call: ServerCall, status: int, error: BaseException | None, text: str = "") -> None:
        """Close `call` with a failure, which leaves with the next flush; an `error` brings its own status."""
        peer = call._peer
        if error is None:
            fault = Fault("", text)
        else:
            status, fault = describe(error, self._server._tracebacks)
        if peer.calls.pop(call._id, None) is not call:
            raise _closed_before(call)
        if call._extra is not None:
            call._extra.status = status
            call._extra.end(Closing.FAILED)
        if peer.lost or (call._options is not None and call._options.one_way):
            self._sent(1, 0)
        else:
            self._fault(peer, call._id, status, fault, _reply_options(call))

    def _fault(self, peer: Peer, call_id: int, status: int, fault: Fault, options: ReplyOptions | None = None) -> None:
        with self._lock:
            self._server._counters.faults += 1
        try:
            value = encode_value(fault, min(MAX_RECORD_BYTES, peer.message_limit - AROUND_BYTES))
        except BaseException:  # What it carries is of the program's own making, too.
            # It cannot be sent, or not to this client: the status is what counts, and the text for people is cut.
            value = encode_value(Fault(short(fault.type), short(fault.text)))
        alone = None if options is None else encode_reply(call_id, value, status, options)
        if alone is not None and size_of(alone) <= peer.message_limit:
            peer.answers.append(alone)
            self._sent(1)
        else:
            peer.answers.append(EncodedReply(call_id, status, value))
        self.tell(peer)

    # End

    def give_up(self, call: ServerCall) -> bool:
        """Close a call that was not begun, and whose client is gone or is about to be told that the server closes.

        False, and it is to be run, if it is one way: its client was told that it is done when it was begun. Once the
        listener closes there is nobody left to run it.
        """
        if not self._closing and call._options is not None and call._options.one_way:
            return False
        try:
            self.reply_fault(call, Status.SERVER_UNAVAILABLE, None, "the server closed before the call was begun")
        except InvalidAsyncHandle:
            log.debug("%r was closed before it was begun", call)
        return True

    def close(self) -> None:
        """Tell every client that this endpoint goes away, send what can be sent at once, and close.

        Calls that were taken and have not begun end with `ServerUnavailable`, and never run. Closing again goes on
        where it was broken off.
        """
        with self.channel.link.lock:
            self._closing = True
            peers = list(self._peers.values())
            each(_part_from, peers)
        deadline = monotonic() + SETTLING
        for peer in peers:
            self._give_up_waiting(peer, deadline)
        with self.channel.link.lock:
            if not self.channel._closed:  # By a closing that was broken off.
                with suppress(LinkClosed):  # Before us, as the process ends.
                    self._link.harvest(self)  # Who has greeted meanwhile is told as well.
            each(self._say_goodbye, list(self._peers.values()))
        self.channel.close()
        with self.channel.link.lock:
            each(self._lose, list(self._peers.values()))
        # Nobody else takes them any more.
        while self.actions:
            self.actions.pop(0)()

    def _lose(self, peer: Peer) -> None:
        peer.lost = True
        self.actions += self._part(peer, "the server was closed")
        del self._peers[peer.id]

    def _give_up_waiting(self, peer: Peer, deadline: float) -> None:
        """Close the calls of a parting client that were not begun."""
        # Threads that are just about to begin one see to it that they do not, or that it shows.
        while peer.calls and not peer.lane.is_settled() and monotonic() < deadline:
            sleep(FIRST_LOOK)
        waiting = [call for call in peer.calls.copy().values() if isinstance(call, ServerCall) and not call._begun]
        for call in [*waiting, *peer.lane.waiting()]:
            self.give_up(call)

    def forked(self) -> None:
        """In a forked child: the calls are the parent's to answer. Takes no lock, for who had it may not be there."""

        def refuse(*args: object) -> NoReturn:
            raise Forked("this call came before fork(): it is the parent's to answer")

        for name in ("answer", "answer_fault"):
            setattr(self, name, refuse)
        for peer in [*self._peers.values(), *self._departed]:
            for call in peer.calls.values():
                if isinstance(call, ServerCall) and call._pipes is not None:
                    call._pipes.forked()
            peer.calls.clear()

    def _say_goodbye(self, peer: Peer) -> None:
        """Tell a client that nothing of it is taken from here on. Under link.lock."""
        if peer.conversation.may_say(Kind.BYE):
            peer.conversation.sent(Kind.BYE)
            self.send_alone(peer, encode(Bye(Status.SERVER_UNAVAILABLE, "the server closed", peer.taken)))

    def running(self, entries: set[Entry]) -> list[ServerCall]:
        """Return the open calls of these operations, those of clients that are gone included."""
        with self.channel.link.lock:
            peers = [*self._peers.values(), *self._departed]
            return list(chain.from_iterable(map(partial(_running, entries=entries), peers)))

    def called_out(self) -> None:
        """A routine has begun a call of its own."""
        with self._lock:
            self._server._counters.calls_out += 1

    def resume(self, call: ServerCall) -> None:
        """Run a call again that had to wait for a context handle."""
        self._run_apart([call])()


def _answers(call_id: int, answer: object) -> bool:
    """Whether this is the answer to the call of that number."""
    return isinstance(answer, tuple) and answer[0] == call_id


def _running(peer: Peer, entries: set[Entry]) -> list[ServerCall]:
    """Return the open calls of `peer` that are of these operations."""
    return [
        call.open(call_id) if isinstance(call, Batch) else call
        for call_id, call in list(peer.calls.items())
        if call._entry in entries
    ]


def _tell(call: ServerCall, kind: EventKind) -> None:
    """Tell the subscribers of a call, if it has any."""
    if call._extra is not None and call._extra.subscriptions is not None:
        call._extra.subscriptions.notify(kind)


def _reply_options(call: ServerCall) -> ReplyOptions | None:
    """What travels beside the answer to a call."""
    extra = call._extra
    return None if extra is None or not extra.metadata else ReplyOptions(metadata=extra.metadata)


def _closed_before(call: ServerCall) -> InvalidAsyncHandle:
    return InvalidAsyncHandle(f"{call!r} was closed before: the first closing is the one that counts")
