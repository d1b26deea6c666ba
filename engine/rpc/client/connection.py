"""A client's association with its server: the life of the connection, and what becomes of calls when it goes.

Theory of operation. The link connects, and connects again, by itself; it notifies the client (`on_connected`,
`on_lost`, `on_connect_failed` of its `Callbacks`), and so does the server (`WELCOME`, `REJECT`, `BYE`).

    CONNECTING --connected--> GREETING --WELCOME--> CONNECTED --lost, BYE--> CONNECTING      any --close--> CLOSED

While there is no connection, calls wait in the client; once there is one they follow this side's greeting. Each has
`connect_timeout` seconds until the server has greeted, after which it ends: with `ServerUnavailable` (or
`CallFailedDne`, if the server was reached before) if it has not left, and never will; with `CallFailed` if it has, as
what accepts a connection and does not greet may be a slow server. That is told not to begin it, and may have.

When the connection is lost, calls that had left end with `CallFailed`, at once, unless they are sent again
(`retry.py`); the others wait for the next connection. A server that says goodbye may keep its socket, so the client
closes the connection and begins on a new one.

Guarded by the table's lock: the connection's state. Only under link.lock: what a harvest brought to be done. Lock
order: link.lock, then the table's lock.

Assumes: what `client.py` says: `_lost` stores `_state` before it looks at the calls and the queue.
"""

import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import repeat

from transport import Buffer
from transport.errors import RemoteProtocolError
from transport.foreign import text_of
from transport.frames import (
    LIBRARY,
    PIPE_WINDOW_BYTES,
    Bye,
    Cancel,
    Chunks,
    Credit,
    Hello,
    Kind,
    Limits,
    Message,
    Reject,
    Welcome,
)
from transport.realtime import monotonic
from transport.wire.codec import PendingCall, encode
from transport.wire.conversation import Conversation, Side

from ...errors import CallError
from ...kernel.driver import driver
from ...kernel.monitor import TimerHandle
from ...status import Status
from ..call import Failure, Outcome
from ..channel import Channel, Parcel
from ..errors import CallFailed, CallFailedDne, ServerUnavailable, error_for
from ..limits import UNGREETED_BYTES, Oversize, end_unsent, largest_message
from . import pipes as pipe_client
from .call_table import CallTable, perform
from .outbox import Outbox, Special
from .retry import Retries
from .sent import Sent
from .statistics import Connection

LEAVE_AGAIN = 1.0  # Seconds; arbitrary: how soon a client leaves a server that says goodbye again and again.


class Callbacks:
    """What a client's channel calls: methods of the client, and none of them a public name of it."""

    __slots__ = (
        "actions", "failed", "next_message", "on_connect_failed", "on_connected", "on_lost", "on_message", "outgoing",
        "silence", "unsendable",
    )  # fmt: skip

    def __init__(self, client: "Association") -> None:
        # Under link.lock: what a harvest brought to be done after it.
        self.actions: list[Callable[[], object]] = []
        # Bound once: calling one costs what calling a method of the client does.
        self.outgoing: deque[PendingCall | Special] = client._outgoing
        self.next_message: Callable[[], Parcel | None] = client._next_message
        self.on_message: Callable[[bytes, list[Buffer]], bool] = client._on_message
        self.on_connected: Callable[[bytes], None] = client._on_connected
        self.on_lost: Callable[[bytes, str], None] = client._on_lost
        self.on_connect_failed: Callable[[str], None] = client._on_connect_failed
        self.failed: Callable[[Exception], None] = client._on_failed
        self.unsendable: Callable[[Exception, bool], None] = client._on_unsendable
        self.silence: Callable[[], str] = client._silence


class Association:
    """What a client is to its connection. `Client` derives from it, and adds the calls."""

    # Made by the client, with its own settings.
    _retries: Retries
    # Made last by the client, which the channel works for.
    _channel: Channel
    # What the client adds to them.
    _next_message: Callable[[], Parcel | None]
    _on_message: Callable[[bytes, list[Buffer]], bool]
    _on_unsendable: Callable[[Exception, bool], None]
    _on_failed: Callable[[Exception], None]

    def __init__(
        self, endpoint: str, connect_timeout: float | None, pipe_window: int, metadata: dict[str, str], largest: int
    ) -> None:
        self.endpoint = endpoint
        self._connect_timeout = connect_timeout
        self._pipe_window = pipe_window
        # What the server lets this side push into each pipe; the standard one until it has said so.
        self._peer_window = PIPE_WINDOW_BYTES
        # How large a message each side takes, in bytes; the server's is that of `fit.py` until it has said so.
        self._largest = largest
        self._message_limit: int = UNGREETED_BYTES
        self._metadata = metadata
        self._table = CallTable()
        self._lock = self._table.lock
        # All below: guarded by _lock, except as said.
        self._calls = self._table.calls
        self._outbox = Outbox(partial(end_unsent, self))
        # What has left over this connection. Under link.lock.
        self._sent = Sent()
        # Its truth is asked for by the channel: is there something to send?
        self._outgoing = self._outbox.queue
        self._state = Connection.CONNECTING
        self._conversation = Conversation(Side.CLIENT)
        # A server has greeted, or spoken at all.
        self._was_connected = False
        # There is a connection to send over: GREETING or CONNECTED, until `close`.
        self._linked = False
        # (when the server must have greeted, call number), in order, for calls begun or stranded before it has.
        self._stranded: deque[tuple[float, int]] = deque()
        self._stranded_timer: TimerHandle | None = None
        self._callbacks = Callbacks(self)
        self._association = os.urandom(16)
        self._attended = False
        # What is to be sent waits for the greeting; see `fit.py`.
        self._held = False
        self._hello = Special([])
        # The server has greeted: replies are in order. Under link.lock.
        self._greeted = False
        # Closed while there was a connection: what is queued still leaves.
        self._closing = False
        # When this side may next leave a connection over which the server has said goodbye.
        self._leave_at = 0.0
        self._connections = 0
        self._refusal = ""
        self._oversize: Oversize = Oversize(endpoint)

    # What the link and the server tell. Under link.lock, one at a time.

    def _take(self, message: Message) -> None:
        """Take a message that is not replies."""
        if type(message) is Welcome:
            self._conversation.received(Kind.WELCOME)
            self._welcomed(message)
            pipe_client.widen(self, message.limits.pipe_window_bytes)
        elif type(message) is Chunks or type(message) is Credit:
            self._conversation.received(Kind.PIPE)  # Allowed in the same states as CREDIT.
            pipe_client.take(self, message)
        elif type(message) is Reject:
            self._conversation.received(Kind.REJECT)
            self._rejected(message)
        elif type(message) is Bye:
            self._conversation.received(Kind.BYE)
            self._left(message)
        else:
            raise RemoteProtocolError(f"a server does not send {type(message).__name__}")

    def _welcomed(self, message: Welcome) -> None:
        """The server has greeted."""
        self._greeted = True
        self._message_limit = largest_message(message.limits.message_bytes)
        with self._lock:
            if self._state is Connection.GREETING:
                self._state = _CONNECTED
                self._was_connected = True
                self._stranded.clear()
                self._attend_locked()
        self._hold(False)

    def _hold(self, held: bool) -> None:
        """Something is too large to leave before the greeting; or that has come. Under link.lock."""
        if held is not self._held:
            with self._lock:
                self._held = held
                self._attend_locked()
            if not held:
                self._do_later((self._channel.flush,))

    def _on_connected(self, peer: bytes) -> None:
        """The connection is up."""
        hello = Hello(
            self._association, os.getpid(), text_of(socket.gethostname()), LIBRARY, self._channel.link.heartbeat,
            Limits(message_bytes=self._largest, pipe_window_bytes=self._pipe_window), self._metadata,
        )  # fmt: skip
        with self._lock:
            if self._state is _CLOSED:
                return
            self._conversation = Conversation(Side.CLIENT)
            self._conversation.sent(Kind.HELLO)
            self._sent = Sent()
            self._greeted = False
            self._message_limit = UNGREETED_BYTES
            self._connections += 1
            self._refusal = ""
            # The time limit of a call ran while it waited for the connection.
            self._outbox.refresh_limits(self._time_left_locked())
            self._hello = Special(encode(hello))
            self._outgoing.appendleft(self._hello)
            self._state = Connection.GREETING
            self._linked = True
            self._attend_locked()
        # The greeting, and the calls that wait behind it, leave though no thread may come to wait.
        self._channel.expect()

    def _time_left_locked(self) -> dict[int, float]:
        """What is left of the time of each call that has a limit."""
        now = monotonic()
        limited = [(i, call._timer) for i, call in list(self._calls.items()) if call._timer is not None]
        return {i: max(0.0, timer.when - now) for i, timer in limited}

    def _on_lost(self, peer: bytes, reason: str) -> None:
        """The connection is gone: calls that had left may have run, the others have not."""
        self._lost(reason, True)

    def _lost(self, reason: str, again: bool, read: int | None = None) -> None:
        """The connection is gone; `again`: calls that had left may be sent over the next one.

        `read`: how many messages with calls the server says it has taken; the calls of the later ones did not run.
        """
        text = f"the connection to {self.endpoint} was lost: {reason}"
        with self._lock:
            if not self._linked:
                return
            self._state = Connection.CONNECTING
            self._linked = False
            self._refusal = reason
            self._held = False
            pipe_client.widen(self, PIPE_WINDOW_BYTES)  # Until the next server says so itself.
            if self._channel.take_back():
                self._outbox.put_back()
            self._outbox.discard(self._hello)
            self._retries.collect_locked()
            ended = self._sort_out_locked(text, again, read)
        self._finish(ended)

    def _sort_out_locked(self, text: str, again: bool, read: int | None) -> dict[int, Outcome]:
        """What becomes of each call: it waits for the next connection, is sent again, or ends as returned."""
        # What waits in the queue again has not left after all.
        left = self._sent.numbers()
        unsent = self._outbox.numbers()
        retried: list[int] = []
        ended: dict[int, Outcome] = {}
        for call_id, call in list(self._calls.items()):
            if call_id in unsent or call_id not in left:
                self._strand_locked(call_id)
            elif again and self._retries.take_locked(call, text):
                self._strand_locked(call_id)
                retried.append(call_id)
            elif read is not None and left[call_id] > read:
                ended[call_id] = Failure(CallFailedDne(f"{text}, before it took this call"))
            else:
                ended[call_id] = Failure(CallFailed(text))
        for wait, group in self._retries.waits_locked(retried):
            driver().monitor.call_at(monotonic() + wait, partial(self._send_again, group))
        return ended

    def _send_again(self, call_ids: list[int]) -> None:
        """These calls have backed off."""
        with self._lock:
            if self._state is _CLOSED:
                return
            self._queue_again_locked(call_ids)
        self._channel.flush()

    def _queue_again_locked(self, call_ids: list[int]) -> None:
        # A call whose connection was lost while it was being begun is there already.
        queued = self._outbox.numbers()
        for call_id in call_ids:
            pending = self._retries.renew_locked(call_id)
            if pending is not None and call_id not in queued:
                self._outgoing.append(pending)

    def _on_connect_failed(self, reason: str) -> None:
        """An attempt to connect failed; the link goes on trying."""
        self._refusal = reason

    def _rejected(self, message: Reject) -> None:
        """The server will not talk, or has lost the thread of the conversation."""
        reason = message.reason or f"it speaks versions {message.versions}"
        if self._greeted:
            # What it had taken may run; the conversation begins again on the same connection.
            # Nothing is sent again: it may have been what the server could not read.
            self._lost(f"the server broke off: {reason}", False)
            self._on_connected(b"")
            return
        # Our greeting was refused: nothing that was sent has run, and on this connection nothing will.
        text = f"{self.endpoint} refused to talk: {reason}"
        with self._lock:
            self._state = Connection.CONNECTING
            self._linked = False
            self._was_connected = True
            self._refusal = text
            self._outgoing.clear()
            ended = self._refused_locked(message.status or Status.PROTOCOL_ERROR, text)
        self._finish(ended)

    def _refused_locked(self, status: int, text: str) -> dict[int, Outcome]:
        """How the outstanding calls end: over a former connection they may have run."""
        return {
            call_id: Failure(CallFailed(f"{lost}; {text}") if lost else error_for(status, text))
            for call_id in list(self._calls)
            for lost in (self._retries.lost_locked(call_id),)
        }

    def _left(self, message: Bye) -> None:
        """The server closed in good order: what it had not answered by then it will not answer."""
        self._lost(message.reason or "the server closed", True, message.taken)
        now = monotonic()
        leave = partial(self._leave, self._conversation)
        if now >= self._leave_at:
            self._do_later((leave,))
        else:
            driver().monitor.call_at(self._leave_at, leave)
        self._leave_at = max(now, self._leave_at) + LEAVE_AGAIN

    def _leave(self, conversation: Conversation) -> None:
        """Close the connection over which the server ended `conversation`, and begin on a new one."""
        with self._channel.link.lock:
            if self._state is _CLOSED or self._conversation is not conversation:
                return  # It is closed already.
            self._channel.link.leave()
        driver().mark_ready(self._channel)

    def _silence(self) -> str:
        """Why no answer comes to the calls that are outstanding, if that is for want of a server; else ""."""
        if self._state is _CONNECTED:
            return ""
        with self._lock:
            number = len(self._calls)
            if not number or self._state is _CLOSED:
                return ""
            if self._state is Connection.GREETING:
                what = f"what accepts connections at {self.endpoint} has not greeted"
            elif self._was_connected:
                what = f"there is no connection to {self.endpoint} any more"
            else:
                what = f"no server was ever reached at {self.endpoint}"
            why = f" ({self._refusal})" if self._refusal else ""
            return f"{what}, {number} {'call waits' if number == 1 else 'calls wait'} for it{why}"

    # What a harvest leaves

    def _do_later(self, actions: Sequence[Callable[[], object]]) -> None:
        """Have the actions done after link.lock was released."""
        self._callbacks.actions += actions

    def _finish(self, outcomes: Mapping[int, Outcome]) -> None:
        """Record outcomes, by the numbers of their calls; they are told of after link.lock was released."""
        with self._lock:
            self._table.finish_locked(outcomes.keys(), outcomes.values(), self._callbacks.actions)
            if self._attended:
                self._attend_locked()

    # Calls that wait for a server

    def _strand_locked(self, call_id: int) -> None:
        """Give a call its time limit until a server has greeted, and see to it that somebody looks for one."""
        self._attend_locked()
        if self._connect_timeout is None:
            return
        when = monotonic() + self._connect_timeout
        self._stranded.append((when, call_id))
        if self._stranded_timer is None:
            self._stranded_timer = driver().monitor.call_at(when, self._give_up)

    def _give_up(self) -> None:
        """End the calls that have waited for a server too long."""
        actions: list[Callable[[], object]] = []
        driver().harvest(self._channel)  # A greeting that has arrived counts.
        try:
            with self._lock:
                self._stranded_timer = None
                expired = self._expired_locked(monotonic())
                if self._stranded:
                    self._stranded_timer = driver().monitor.call_at(self._stranded[0][0], self._give_up)
                left = self._end_unreached_locked(expired, actions)
                if left and self._linked:
                    self._outgoing.append(Special(encode(Cancel(list(zip(left, repeat(True)))))))
                self._attend_locked()
        finally:
            perform(actions)
        if left:
            self._channel.flush()

    def _end_unreached_locked(self, expired: list[int], actions: list[Callable[[], object]]) -> list[int]:
        """End the calls that waited for a server too long; return those that may have left."""
        # They must not run later on, after their callers were told that they did not. What may have left, a server
        # that greets late may run before it reads that it should not.
        unsent = self._outbox.withdraw(set(expired)) | self._retries.backing_off
        ended = list(filter(self._calls.__contains__, expired))
        left = [call_id for call_id in ended if call_id not in unsent]
        waited = self._connect_timeout
        assert waited is not None
        outcomes = [Failure(self._unreachable_locked(call_id, waited, call_id not in unsent)) for call_id in ended]
        self._table.finish_locked(ended, outcomes, actions)
        return left

    def _expired_locked(self, now: float) -> list[int]:
        expired: list[int] = []
        while self._stranded and self._stranded[0][0] <= now:
            expired.append(self._stranded.popleft()[1])
        return expired

    def _unreachable_locked(self, call_id: int, waited: float, left: bool = False) -> CallError:
        """Why a call ends that waited for a server; `left`: it may have left, though none has greeted."""
        lost = self._retries.lost_locked(call_id)
        kind = CallFailed if lost or left else CallFailedDne if self._was_connected else ServerUnavailable
        first = f"{lost}; to send it again there was " if lost else ""
        if self._linked:
            text = f"no greeting from {self.endpoint} within {waited} s: what accepts connections there says nothing"
            text += "; the call was sent to it, and may run" if left else ""
        else:
            text = f"no connection to {self.endpoint} within {waited} s" + (self._refusal and f": {self._refusal}")
        return kind(first + text)

    def _withdraw_locked(self, call_id: int) -> bool:
        """Have a call not leave that waits to; False if it leaves just now, or has left."""
        return call_id in self._retries.backing_off or call_id in self._outbox.withdraw({call_id})

    def _attend_locked(self) -> None:
        """Say whether the network must be driven though no thread waits: for a callback, a connection, a greeting."""
        waits = self._state is not _CONNECTED and self._state is not _CLOSED and bool(self._calls or self._outgoing)
        wanted = waits or self._held or self._table.need_driver > 0
        if wanted is not self._attended:
            self._attended = wanted
            self._channel.needs_progress(wanted)


_CONNECTED = Connection.CONNECTED
_CLOSED = Connection.CLOSED
