"""One endpoint of a server: its peers, the calls that arrive from them, and the answers that go back.

Theory of operation. A harvest decodes a message, enters its calls in their peer's table and posts one batch to the
server's pool. Answers are encoded into their peer's next message; a batch's runner sends when the batch is done or a
message is full, everybody else at once, and what queues behind a send shares a message.

    link.harvest -> message -> Batch -> pool ... routine -> answer -> writer -> channel.flush -> link.send

Lock order: link.lock, then the server's lock, which guards all fields here unless said otherwise.
"""

import logging
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from transport import (
    Buffer,
    Bye,
    CallOptions,
    Calls,
    Cancel,
    Conversation,
    Fault,
    Hello,
    Kind,
    Link,
    PayloadTooLarge,
    RemoteProtocolError,
    Reject,
    ReplyWriter,
    Side,
    VersionMismatch,
    Welcome,
    decode,
    encode,
    encode_reply,
    split_out_of_band,
)

from ..kernel.errors import EngineError, InvalidArgumentType, InvalidAsyncHandle
from ..kernel.status import Status
from .batch import Batch
from .channel import Channel, Parcel
from .errors import RemoteFault
from .registry import Refusal
from .server_call import ServerCall

if TYPE_CHECKING:
    from .server import Server

log = logging.getLogger("engine.rpc")

COALESCE_REPLIES = 32  # Replies in one message at the most, as with calls: a message costs ~3 us, a reply ~1.
COALESCE_BYTES = 64 * 1024  # A message of this size leaves: from here on copying costs more than sending.

_SMALL = frozenset((int, float, bool, str, type(None)))  # Types whose values never travel out of band.


class Peer:
    """A connected client. Guarded by the server's lock; `lost` is set once and read anywhere."""

    __slots__ = (
        "address", "association", "calls", "conversation", "garbage", "greeted", "host", "id", "lost", "metadata", "process", "user",
        "writer",
    )  # fmt: skip

    def __init__(self, id: bytes) -> None:
        self.id = id
        self.lost = False
        self.conversation = Conversation(Side.SERVER)
        self.writer = ReplyWriter()
        # Calls that arrived and are not closed. Taking a call out is closing it.
        self.calls: dict[int, ServerCall] = {}
        self.garbage = 0
        # Calls are in order: after the greeting, before the goodbye.
        self.greeted = False
        self.association = b""
        self.process = 0
        self.host = ""
        self.address = ""
        self.user = ""
        self.metadata: dict[str, str] = {}


class Listener:
    """Serves one endpoint. The server makes one for each endpoint that it listens on."""

    def __init__(self, server: "Server", link: Link) -> None:
        self._server = server
        self._link = link
        self._lock = server.lock
        self._peers: dict[bytes, Peer] = {}
        # Peers whose writer holds something.
        self._dirty: deque[Peer] = deque()
        self._outbox: deque[Parcel] = deque()
        self.outgoing = False
        # Found by a harvest, done by `collect` in the same hold of link.lock.
        self._actions: list[Callable[[], object]] = []
        self.endpoint = link.endpoint
        self.channel = Channel(link, self)
        self.channel.attend(True)

    # The channel's side: sending

    def next_message(self) -> Parcel | None:
        """Take the next message to send, or None."""
        with self._lock:
            parcel = None
            if self._outbox:
                parcel = self._outbox.popleft()
            while parcel is None and self._dirty:
                peer = self._dirty.popleft()
                if peer.writer.count and not peer.lost:
                    self._server.counters.messages_out += 1
                    parcel = peer.id, peer.writer.take()
            self.outgoing = bool(self._dirty or self._outbox)
            return parcel

    # The channel's side: receiving. Under link.lock, one at a time.

    def connected(self, peer: bytes) -> None:
        """A client was heard of."""
        known = Peer(peer)
        info = self._link.peer_info(peer)
        known.address, known.user = info.address, info.user
        with self._lock:
            self._peers[peer] = known

    def lost(self, peer: bytes, reason: str) -> None:
        """A client is gone. Its running calls go on; their answers will go nowhere."""
        with self._lock:
            known = self._peers.pop(peer, None)
            if known is None:
                return
            known.lost = True

    def refused(self, reason: str) -> None:
        """Does not happen on a server."""

    def message(self, peer: bytes, frames: list[Buffer]) -> None:
        """Take one message from a client."""
        known = self._peers.get(peer)
        if known is None:
            return
        self._server.counters.messages_in += 1
        try:
            message = decode(frames)
            if type(message) is Calls:
                if not known.greeted:
                    known.conversation.received(Kind.CALLS)  # Raises: it is out of turn.
                self._take_calls(known, message, frames[1:])
            elif type(message) is Hello:
                known.conversation.received(Kind.HELLO)
                self._greet(known, message)
            elif type(message) is Cancel:
                known.conversation.received(Kind.CANCEL)
                self._cancel(known, message)
            elif type(message) is Bye:
                known.conversation.received(Kind.BYE)
                known.greeted = False
                self.lost(peer, message.reason)
            else:
                raise RemoteProtocolError(f"a client does not send {type(message).__name__}")
        except RemoteProtocolError as error:
            self._drop(known, error)

    def collect(self) -> Sequence[Callable[[], object]]:
        """What is to be done after a harvest: post the batches."""
        actions, self._actions = self._actions, []
        return actions

    def _post_locked(self, peer: Peer, frames: list[Buffer]) -> None:
        """Send a message of its own to `peer` with the next flush."""
        self._outbox.append((peer.id, frames))
        self.outgoing = True

    def _greet(self, peer: Peer, hello: Hello) -> None:
        peer.association = hello.association
        peer.process = hello.pid
        peer.host = hello.host
        peer.metadata = hello.metadata
        with self._lock:
            peer.conversation.sent(Kind.WELCOME)
            peer.greeted = True
            self._post_locked(peer, encode(self._server.welcome()))

    def _drop(self, peer: Peer, error: RemoteProtocolError) -> None:
        self._server.counters.garbage += 1
        peer.garbage += 1
        if peer.garbage == 1:
            where = peer.address or peer.id.hex()
            log.warning("%s: dropped a message from %s: %s; further ones are only counted", self.endpoint, where, error)
        if isinstance(error, VersionMismatch) and peer.conversation.may_send(Kind.REJECT):
            with self._lock:
                peer.conversation.sent(Kind.REJECT)
                self._post_locked(peer, encode(Reject([1], Status.PROTOCOL_ERROR, str(error))))

    def _take_calls(self, peer: Peer, message: Calls, blobs: list[Buffer]) -> None:
        server = self._server
        find = server.registry.find
        found = [find(target) for target in message.targets]
        accepted: deque[ServerCall] = deque()
        refused: list[tuple[int, int, str]] = []
        calls = peer.calls
        with self._lock:
            room = server.room_locked()
            for record in message.records:
                entry = found[record.target]
                call_id = record.id
                options = record.options
                if type(entry) is Refusal:
                    refused.append((call_id, entry.status, entry.text))
                elif room <= 0:
                    refused.append((call_id, *server.refusal_locked()))
                elif call_id in calls:
                    raise RemoteProtocolError(f"call number {call_id} is in use already")
                else:
                    room -= 1
                    if options is None:
                        call = ServerCall(self, peer, call_id, entry, record.args)
                    else:
                        call = self._call_with_options(peer, call_id, entry, record.args, options, blobs)
                    calls[call_id] = call
                    accepted.append(call)
            server.active += len(accepted)
            server.counters.calls_in += len(message.records)
            for call_id, status, text in refused:
                self._fault_locked(peer, call_id, status, Fault("", text))
        if accepted:
            self._actions.append(Batch(self, server.pool, accepted).post)

    def _call_with_options(
        self, peer: Peer, call_id: int, entry: Any, args: Any, options: CallOptions, blobs: list[Buffer]
    ) -> ServerCall:
        deadline = None if options.time_left is None else monotonic() + options.time_left
        return ServerCall(self, peer, call_id, entry, args, options, blobs or None, deadline)

    def _cancel(self, peer: Peer, message: Cancel) -> None:
        with self._lock:
            for call_id, _ in message.calls:
                call = peer.calls.get(call_id)
                if call is not None:
                    call._cancelled = True

    # Answers

    def answer(self, call: ServerCall, value: object) -> None:
        """Close `call` with a result and send it now, with whatever else waits."""
        self.reply(call, value)
        self.channel.flush()

    def answer_fault(self, call: ServerCall, status: int, text: str) -> None:
        """Close `call` with a failure and send it now, with whatever else waits."""
        self.reply_fault(call, status, None, text)
        self.channel.flush()

    def answer_error(self, call: ServerCall, error: BaseException) -> None:
        """Close `call` with what its routine raised and send it now, with whatever else waits."""
        self.reply_fault(call, 0, error)
        self.channel.flush()

    def start(self, call: ServerCall, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run an `async def` routine in the server's event loop; its end closes the call."""
        self._server.coroutines.start(self, call, coroutine)

    def reply(self, call: ServerCall, value: object) -> None:
        """Close `call` with a result, which leaves with the next flush."""
        # Flat on purpose: this runs for every call.
        peer = call._peer
        server = self._server
        large = type(value) not in _SMALL and split_out_of_band((value,)) is not None
        with self._lock:
            if peer.calls.pop(call._id, None) is not call:
                raise _closed_before(call)
            server.active -= 1
            if server.draining:
                server.closed_locked()
            options = call._options
            if peer.lost or (options is not None and options.one_way):
                return
            writer = peer.writer
            try:
                if large:
                    self._post_locked(peer, encode_reply(call._id, value))
                    return
                writer.add(call._id, value)
            except (TypeError, msgspec.MsgspecError, PayloadTooLarge) as error:
                text = f"the result of {call._entry.spec.name} cannot be sent: {error}"
                self._fault_locked(peer, call._id, Status.BAD_STUB_DATA, Fault(type(error).__name__, text))
                raise InvalidArgumentType(text) from error
            count = writer.count
            if count == 1:
                self._dirty.append(peer)
                self.outgoing = True
            full = count >= COALESCE_REPLIES or writer.size >= COALESCE_BYTES
        if full:
            self.channel.flush()

    def reply_fault(self, call: ServerCall, status: int, error: BaseException | None, text: str = "") -> None:
        """Close `call` with a failure, which leaves with the next flush; an `error` brings its own status."""
        peer = call._peer
        if error is None:
            fault = Fault("", text)
        else:
            status, fault = describe(error, self._server.tracebacks)
        with self._lock:
            if peer.calls.pop(call._id, None) is not call:
                raise _closed_before(call)
            self._server.active -= 1
            if self._server.draining:
                self._server.closed_locked()
            if not peer.lost and not (call._options is not None and call._options.one_way):
                self._fault_locked(peer, call._id, status, fault)

    def _fault_locked(self, peer: Peer, call_id: int, status: int, fault: Fault) -> None:
        self._server.counters.faults += 1
        try:
            peer.writer.add_fault(call_id, status, fault)
        except (TypeError, msgspec.MsgspecError, PayloadTooLarge):
            peer.writer.add_fault(call_id, status, Fault(fault.type, fault.text[:1000]))
        if peer.writer.count == 1:
            self._dirty.append(peer)
            self.outgoing = True

    # End

    def say_bye(self, reason: str) -> None:
        """Tell every client that this endpoint goes away."""
        with self._lock:
            for peer in self._peers.values():
                if peer.writer.count:
                    self._post_locked(peer, peer.writer.take())
                if peer.conversation.may_send(Kind.BYE):
                    peer.conversation.sent(Kind.BYE)
                    self._post_locked(peer, encode(Bye(Status.SERVER_UNAVAILABLE, reason)))

    def close(self) -> None:
        """Close the endpoint; what can be sent at once is sent."""
        self.say_bye("the server closed")
        self.channel.close()
        with self._lock:
            for peer in self._peers.values():
                peer.lost = True
            self._peers.clear()


def _closed_before(call: ServerCall) -> InvalidAsyncHandle:
    return InvalidAsyncHandle(f"{call!r} was closed before: the first closing is the one that counts")


def describe(error: BaseException, tracebacks: bool) -> tuple[int, Fault]:
    """Return the status and the fault that stand for an exception raised by a routine."""
    text = "".join(traceback.format_exception(error)) if tracebacks else None
    if isinstance(error, RemoteFault):
        # A fault of a call that this routine made travels on as it came.
        return int(error.status), Fault(error.type_name, error.text, text or error.traceback, error.data)
    if isinstance(error, EngineError):
        return int(error.status), Fault(type(error).__name__, str(error.args[0]) if error.args else "", text)
    return Status.REMOTE_FAULT, Fault(type(error).__name__, str(error), text)
