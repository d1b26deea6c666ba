"""A client's connection to one server: its messages, and its life.

Theory of operation. The link connects, and connects again, by itself; the channel calls this object with what happens
(`on_connected`, `on_message`, `on_lost`, `on_connect_failed`), and the outbox for what is to be sent (`next_message`).

While there is no connection, calls wait in the outbox; once there is one they follow this side's greeting. What becomes
of calls that wait too long, and of those that had left when the connection is lost, is in `awaiting.py`. A server that
says goodbye may keep its socket, so the client closes the connection and begins on a new one.

Replies are harvested by whichever thread waits. What arrives, what leaves and what a loss means are the steps of one
state, and each is short: hence the length.

Lock order: link.lock, then the table's lock.

Assumes: `deque.append` and `popleft`, and insertion and removal of one key of a `dict`, are atomic and are not
reordered. Beginning a call (`carrier.py`) enters and appends it before it looks at the session's state; `_lose` and
`close` store that state before they look at the calls and the queue. One of the two sees the other, so no call is left
behind.
"""

import os
import socket
from _thread import get_ident
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial

import msgspec

from transport import Buffer, Endpoint, TransportOptions, connect
from transport.errors import RemoteProtocolError
from transport.foreign import shown, text_of
from transport.frames import (
    LIBRARY,
    MAX_RECORDS,
    PIPE_WINDOW_BYTES,
    PREFIX_BYTES,
    VERSION,
    Bye,
    Chunks,
    Credit,
    Grant,
    Hello,
    Limits,
    Message,
    PipeChunk,
    Reject,
    Replies,
    ReplyGroup,
    Welcome,
)
from transport.log import Log
from transport.realtime import monotonic
from transport.wire.codec import REPLIES_PREFIX, decode, encode, read_results
from transport.wire.conversation import ConversationState

from ...kernel.driver import driver
from ...status import Status
from ..call import give_up_at_fork, outcomes_of, pipes_of, time_left
from ..channel import Channel, OutgoingMessage
from ..errors import BadStubData, CallCancelled, CallFailed, CallFailedDne, PeerProtocolError
from ..pipes.pipe import UNBOUNDED
from ..state import Failure, Outcome
from .awaiting import AwaitingConnection
from .call_table import CallTable, perform
from .elsewhere import Elsewhere
from .outbox import MOST_WAITING, LoneMessage, Outbox
from .retry import Retries
from .session import EndpointSession
from .spinning import SPIN_CALLS, SPIN_TIME, Spinning

log: Log = Log("engine.rpc")

_GREETED = ConversationState.GREETED

LEAVE_AGAIN = 1.0  # Seconds; arbitrary: how soon a client leaves a server that says goodbye again and again.


class Connection:
    """One connection of a client, with the calls that were begun on it.

    Args:
        endpoint: of the server.
        options: of the transport, checked.
        largest: how large a message this side takes, in bytes.
        connect_timeout: see `Client`, as the others.
    """

    def __init__(
        self,
        endpoint: str | Endpoint,
        options: TransportOptions,
        largest: int,
        retries: Retries,
        *,
        connect_timeout: float | None,
        metadata: dict[str, str],
        pipe_window: int,
        beside: "Connection | None" = None,
        name: str = "",
    ) -> None:
        self.endpoint: str = name or str(endpoint)
        self.metadata: dict[str, str] = metadata
        # What this side lets the server push into each pipe.
        self.pipe_window: int = pipe_window
        self._largest = largest
        self._association = os.urandom(16)
        self.session: EndpointSession = EndpointSession(self.endpoint)
        self.table: CallTable = CallTable(None if beside is None else beside.table)
        # The other servers of the client, if it has several; set once, before anything arrives.
        self.elsewhere: Elsewhere | None = None
        self.opened: bool = False
        # The servers that the last greeting has named; and what to call about that, outside all locks. Stored in that
        # order here, in the other by the one that is to be called: one of the two sees the other.
        self.members: list[str] = []
        self.follow: Callable[[], object] | None = None
        # Whether a thread that has sent stays awake for the answer. Under link.lock.
        self.local: bool = Endpoint.parse(endpoint).local
        self.spinning: Spinning = Spinning(0 if self.local else SPIN_CALLS)
        self.outbox: Outbox = Outbox(self.session, self.table.calls.keys(), self._refuse, self._attend, self.spinning)
        if self.local:
            self.outbox.few, self.outbox.halves = 1, 0
        self.next_message: Callable[..., OutgoingMessage | None] = self.outbox.next_message
        self.retries: Retries = retries
        with self.table.lock:
            retries.add_table(self.table)
        # Guarded by the table's lock: whether the network is driven though no thread waits.
        self.attended: bool = False
        # What `close` has found to be done.
        self._last_actions: list[Callable[[], object]] = []
        # Under link.lock: what a harvest brought to be done after it.
        self.actions: list[Callable[[], object]] = []
        self._hello = LoneMessage([])
        # When this side may next leave a connection over which the server has said goodbye.
        self._leave_at = 0.0
        # Counters; under link.lock.
        self.messages_received: int = 0
        self.garbage: int = 0
        # The client: it stays open without a reference from the program.
        self.client: object = None
        # This is the copy of a forked child.
        self.forked: bool = False
        self._link = connect(endpoint, **options)
        self.channel: Channel = Channel(self._link, self, self, self.outbox.queue, self.table.lock)
        # Guarded by the table's lock.
        self.awaiting: AwaitingConnection = AwaitingConnection(
            self.channel, self.attend_locked, self.session, self.table, self.outbox, self.retries, connect_timeout
        )
        self.outbox.spin_until = driver().spin_until

    def open(self, elsewhere: Elsewhere | None = None) -> None:
        """Begin to connect, for a client that has no other server, or some."""
        self.opened = True
        self.elsewhere = self.awaiting.elsewhere = elsewhere
        self.channel.open()

    # The channel's side: sending. Under link.lock. `next_message` is the outbox's.

    def drop(self) -> None:
        """Nothing: the one that closes the link ends the calls that wait here."""

    def keep(self, message: OutgoingMessage) -> bool:
        """No: all goes to one server."""
        return False

    def unsendable(self, error: Exception, made: bool) -> None:
        """A message cannot be sent, or not be made: its calls end; if it may have left, the connection does."""
        if isinstance(error, InterruptedError):
            self._link.leave()
            return
        numbers = self.outbox.taken_numbers()
        self.outbox.uncount()
        if made:
            self.outbox.messages_sent -= 1
        if 0 in numbers:  # It was about the connection, which cannot do without it.
            self._link.leave()
        text = f"the message that held the call could not be sent: {shown(error)}"
        self._finish({number: Failure(CallFailedDne(text)) for number in numbers - {0}})

    def _refuse(self, call_id: int, why: str) -> None:
        """End a call that cannot be sent."""
        actions: list[Callable[[], object]] = []
        try:
            with self.table.lock:
                self.table.finish_locked((call_id,), (Failure(BadStubData(why)),), actions)
        finally:
            if actions:
                # Soon, on a thread that holds no link's lock.
                driver().monitor.call_at(monotonic(), partial(perform, actions))

    def silence(self) -> str:
        """Why no answer comes to the calls that are outstanding, if that is for want of a server; else ""."""
        if self.session.is_open:
            return ""
        with self.table.lock:
            return self.session.silence(len(self.table.calls))

    # The channel's side: receiving. Under link.lock, one at a time.

    def on_message(self, peer: bytes, frames: list[Buffer]) -> bool:
        """Take one message from the server. True: no more is expected now, so the harvest may end."""
        self.messages_received += 1
        table, outbox, spinning = self.table, self.outbox, self.spinning
        if spinning.sent_at:
            spinning.took = took = monotonic() - spinning.sent_at
            spinning.swift = took < SPIN_TIME
            spinning.sent_at = 0.0
        outstanding = len(table.calls) + outbox.answered
        if outstanding > outbox.few or (
            # The thread that leads waits, and so does one that takes this though none leads.
            outstanding > 1 and outbox.sender == (driver().leader_ident or get_ident())
        ):
            outbox.batch_threshold = min(outstanding >> outbox.halves, MOST_WAITING)
        else:
            outbox.batch_threshold = 0
        # This is the way of nearly every message. It refuses what is more than short results, which `_receive` takes.
        if len(frames) != 1 or type(head := frames[0]) is not bytes or head[:PREFIX_BYTES] != REPLIES_PREFIX:
            return self._receive(frames)
        try:
            # Copying a small body is cheaper than two views.
            body = head[PREFIX_BYTES:] if len(head) < 2048 else memoryview(head)[PREFIX_BYTES:]
            (((call_ids, values),),) = read_results(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return self._receive(frames)
        count = len(call_ids)
        if (
            len(values) != count
            or not self.session.is_open
            or (count != 1 and (len(set(call_ids)) != count or not 0 < count <= MAX_RECORDS))
        ):
            return self._receive(frames)
        # This thread does not have the lock: the channel has looked.
        lock = table.lock
        try:
            lock.acquire()
            outbox.answered += table.record_locked(call_ids, values, self.actions)
            if self.attended:
                self.attend_locked()
        except BaseException:
            if lock.owned():
                try:
                    table.record_again_locked(call_ids, values, self.actions)
                finally:
                    lock.release()
            raise
        lock.release()
        return not table.calls

    def _receive(self, frames: list[Buffer]) -> bool:
        """Take one message, whatever it is; as `on_message`."""
        try:
            message = decode(frames)
            if type(message) is Replies and self.session.is_open:
                for group in message.groups:
                    self._record(group, frames[1:])
            else:
                self._take(message)
        except RemoteProtocolError as error:
            self.garbage += 1
            if self.garbage == 1:
                log.warning("%s: dropped a message: %s; further ones are only counted", self.endpoint, error)
        return not self.table.calls

    def _record(self, group: ReplyGroup, blobs: list[Buffer]) -> None:
        """End the calls of a group of replies; callers are notified after link.lock was released."""
        table = self.table
        with table.lock:
            outcomes: Sequence[Outcome] = group.values
            call_ids: Sequence[int] = group.ids
            if group.status or group.options is not None:
                outcomes = outcomes_of(group, blobs, table.calls)
                if group.status and self.elsewhere is not None:
                    moved = self.elsewhere.answered_locked(group.status, call_ids, self.actions)
                    call_ids, outcomes = _without(moved, call_ids, outcomes)
            self.outbox.answered += table.finish_locked(call_ids, outcomes, self.actions)
            if self.attended:
                self.attend_locked()

    def _take(self, message: Message) -> None:
        """Take a message that is not replies, or out of turn."""
        ended = False
        if not self.session.is_open or (type(message) is not Chunks and type(message) is not Credit):
            with self.table.lock:
                received = self.session.receive(message)
            if received.error is not None:
                raise received.error
            if received.message is None:
                return  # The client closes, and has ended the calls.
            ended = received.ended
        if type(message) is Welcome:
            self._welcomed(message)
        elif type(message) is Chunks:
            for chunk in message.chunks:
                self._arrived(chunk)
        elif type(message) is Credit:
            for grant in message.grants:
                self._arrived(grant)
        elif type(message) is Reject:
            self._rejected(message, ended)
        elif type(message) is Bye:
            self._left(message)

    def _arrived(self, item: PipeChunk | Grant) -> None:
        """Take elements of a pipe, or credit for it. Calls that have ended have none."""
        call = self.table.calls.get(item.id)
        pipes = None if call is None else pipes_of(call)
        if pipes is None:
            return
        try:
            self.actions += pipes.arrived(item) if isinstance(item, PipeChunk) else pipes.granted(item)
        except RemoteProtocolError as error:
            self._finish({item.id: Failure(PeerProtocolError(str(error)))})
            raise

    def _widen(self, window: int) -> None:
        """The server says how much may be pushed into each pipe to begin with."""
        if window == self.session.pipe_window:
            return
        self.session.pipe_window = window
        for call in list(self.table.calls.values()):
            if (pipes := pipes_of(call)) is not None:
                self.actions += pipes.opened(window)

    def _finish(self, outcomes: Mapping[int, Outcome]) -> None:
        """Record outcomes, by the numbers of their calls; callers are notified after link.lock was released."""
        with self.table.lock:
            self.table.finish_locked(outcomes.keys(), outcomes.values(), self.actions)
            if self.attended:
                self.attend_locked()

    # The life of the connection: what the link and the server say. Under link.lock, one at a time.

    def on_connected(self, peer: bytes) -> None:
        """There is a connection: greet, and send what waits."""
        self._lose(self.session.refusal, True)  # Only if an interrupt has broken that off before.
        hello = Hello(
            self._association, os.getpid(), text_of(socket.gethostname()), LIBRARY, self._link.heartbeat,
            Limits(message_bytes=self._largest, pipe_window_bytes=self.pipe_window), self.metadata,
        )  # fmt: skip
        with self.table.lock:
            if self.session.has_left:
                return
            self.outbox.forget()
            # The time limit of a call ran while it waited for the connection.
            self.outbox.refresh_limits(self._time_left_locked())
            self._hello = LoneMessage(encode(hello))
            self.outbox.queue.appendleft(self._hello)
            self.session.begin()
            self.session.refusal = ""
            self.attend_locked()
        # The greeting, and the calls that wait behind it, leave though no thread may come to wait.
        self.channel.defer()

    def _time_left_locked(self) -> dict[int, float]:
        """What is left of the time of each call that has a limit."""
        return {i: left for i, call in list(self.table.calls.items()) if (left := time_left(call)) is not None}

    def on_connect_failed(self, reason: str, vain: bool = False) -> None:
        """An attempt to connect failed; the link goes on trying. If that is in `vain`, no call waits for it."""
        with self.table.lock:
            self.session.refusal = reason
            if vain and not self.session.has_left:
                self.outbox.queue.clear()
                ended = self.awaiting.refused_locked(
                    Status.CALL_FAILED_DNE if self.session.reached else Status.SERVER_UNAVAILABLE, reason
                )
                self.table.finish_locked(ended.keys(), ended.values(), self.actions)
                self.attend_locked()
        if self.elsewhere is not None:
            self.elsewhere.unreachable(reason)

    def on_lost(self, peer: bytes, reason: str, evicted: bool = False) -> None:
        """The connection is gone: calls that had left may have run, the others have not."""
        self._lose(reason, True)

    def failed(self, error: Exception) -> None:
        """A harvest failed: the link notifies of what it has lost by that."""

    def _welcomed(self, message: Welcome) -> None:
        """The server has greeted."""
        with self.table.lock:
            self.session.reached = True
            self.session.wary = False
            self.awaiting.clear_locked()
            if self.elsewhere is not None:
                self.elsewhere.greeted_locked(self.actions)
            self.attend_locked()
        if self.outbox.queue:
            self.actions.append(self.channel.flush)  # What is too large to leave before the greeting, for one.
        self._widen(message.limits.pipe_window_bytes or UNBOUNDED)
        if message.members:
            self.members = message.members
            if self.follow is not None:
                self.actions.append(self.follow)

    def _rejected(self, message: Reject, open: bool) -> None:
        """The server will not talk, or has lost the thread of the conversation, which was `open`."""
        reason = message.reason or f"it speaks versions {message.versions}"
        if open:
            # What it had taken may run; the conversation begins again on the same connection.
            # Nothing is sent again: it may have been what the server could not read.
            self._lose(f"the server broke off: {reason}", False)
            self.on_connected(b"")
        elif self.elsewhere is not None or (
            message.status == Status.SERVER_UNAVAILABLE and VERSION in message.versions
        ):
            # It closes: nothing that was sent has run, and all of it waits for the next server, or goes to another.
            self._lose(f"{self.endpoint} refused to talk: {reason}", True, 0, False)
            if VERSION in message.versions:
                self._leave_soon()
        else:
            # Our greeting was refused: nothing that was sent has run, and on this connection nothing will.
            text = f"{self.endpoint} refused to talk: {reason}"
            with self.table.lock:
                if self.session.has_left:
                    return
                self.session.refusal = text
                self.session.reached = True
                self.outbox.queue.clear()
                ended = self.awaiting.refused_locked(message.status or Status.PROTOCOL_ERROR, text)
                self._settle_locked(ended)
            if VERSION in message.versions:  # It may talk another time.
                self._leave_soon()

    def _left(self, message: Bye) -> None:
        """The server closed in good order: what it had not answered by then it will not answer."""
        self._lose(message.reason or "the server closed", True, message.taken)
        self._leave_soon()

    def _leave_soon(self) -> None:
        """Leave a connection over which the server ended the conversation: at once, but not again and again."""
        now = monotonic()
        leave = partial(self._leave, self.session.conversation)
        if now >= self._leave_at:
            self.actions.append(leave)
        else:
            driver().monitor.call_at(self._leave_at, leave)
        self._leave_at = max(now, self._leave_at) + LEAVE_AGAIN

    def _leave(self, conversation: int) -> None:
        """Close the connection over which the server ended that conversation, and begin on a new one."""
        with self._link.lock:
            if self.session.has_left or self.session.conversation != conversation:
                return  # It is closed already.
            self._link.leave()
        driver().mark_ready(self.channel)

    # What becomes of the calls of a connection that is gone

    def _lose(self, reason: str, again: bool, read: int | None = None, greeted: bool = True) -> None:
        """The conversation is over; `again`: calls that had left may be sent over the next connection.

        `read`: how many messages with calls the server says it has taken; the calls of the later ones did not run.
        `greeted`: the server has welcomed this side.
        """
        text = f"the connection to {self.endpoint} was lost: {reason}"
        with self.table.lock:
            if not self.session.lost():
                return
            self.session.refusal = reason
            self.session.wary = self.session.wary or read is not None
            self._widen(PIPE_WINDOW_BYTES)  # Until the next server says so itself.
            if self.channel.take_back():
                self.outbox.put_back()
            self.outbox.discard(self._hello)
            if self.elsewhere is not None:
                self.elsewhere.lost_locked(read is not None, self.actions)
            self._settle_locked(self.awaiting.sort_out_locked(text, again, read, greeted, self.actions))

    def _settle_locked(self, ended: dict[int, Outcome]) -> None:
        """End these calls of the conversation that is over. An interrupt before the last line has it done again."""
        self.table.finish_locked(ended.keys(), ended.values(), self.actions)
        self.attend_locked()
        self.session.settled()

    def _attend(self) -> None:
        with self.table.lock:
            self.attend_locked()

    def attend_locked(self) -> None:
        """Say whether the network must be driven though no thread waits: for a callback, a connection, a greeting."""
        session, table = self.session, self.table
        waits = not session.is_open and bool(table.calls or self.outbox.queue) and not session.has_left
        wanted = waits or table.need_driver > 0
        if wanted is not self.attended:
            self.attended = wanted
            self.channel.needs_progress(wanted)

    # End

    def close(self, notify: bool) -> None:
        """Close, and end the calls; `notify` the threads and tasks that wait for them, too.

        All of it may have been begun before, and broken off by a signal handler: what was done is not done again.
        """
        table = self.table
        if table.calls:
            driver().harvest(self.channel)  # Answers that have arrived count.
        actions = self._last_actions
        with table.lock:
            bye = self.session.leave(0, "the client closed")
            if bye is not None:
                self.outbox.queue.append(LoneMessage(encode(bye)))
                self.outbox.closing = True
            ended = list(table.calls)
            failures = [Failure(CallCancelled("the client was closed"))] * len(ended)
            table.finish_locked(ended, failures, actions)
            self.awaiting.stop_locked()
        while actions and notify:
            actions[0]()  # Taken out afterwards: rather notified twice, if that is broken off, than not at all.
            del actions[0]

    def disable(self) -> None:
        """This is the copy of a forked child: end what is outstanding, and take nothing more."""
        self.session.leave()
        self.forked = True
        while self.table.calls:
            _, call = self.table.calls.popitem()
            text = "the call was begun before fork(): its reply goes to the parent"
            give_up_at_fork(call, Failure(CallFailed(text)))


def _without(
    moved: Container[int], call_ids: Sequence[int], outcomes: Sequence[Outcome]
) -> tuple[list[int], list[Outcome]]:
    """Return the numbers and the outcomes of those calls that have not moved elsewhere."""
    kept = [(call_id, outcome) for call_id, outcome in zip(call_ids, outcomes, strict=True) if call_id not in moved]
    return [call_id for call_id, _ in kept], [outcome for _, outcome in kept]
