"""How far one client's conversation with its server has come: greeting, refusal, limits, goodbye. No I/O, no locks.

    CONNECTING --connected--> GREETING --WELCOME--> CONNECTED --lost, REJECT, BYE--> CONNECTING   any --close--> CLOSED

Guarded by the table's lock: `state`, `reached`, `refusal` (writes; reads of one are atomic). Under link.lock: the
others.
"""

from enum import Enum

from transport.errors import RemoteProtocolError
from transport.frames import PIPE_WINDOW_BYTES, Bye, Chunks, Credit, Kind, Message, Reject, Welcome
from transport.wire.conversation import Conversation, Side

from ...errors import CallError
from ..errors import CallFailed, CallFailedDne, ServerUnavailable
from ..limits import SizeLimit


class ConnectionState(Enum):
    """Where a client's connection is in its life."""

    CONNECTING = "connecting"  # There is no connection.
    GREETING = "greeting"  # There is one, and this side has greeted; the server has not.
    CONNECTED = "connected"
    CLOSED = "closed"


_CONNECTING, _GREETING, _CONNECTED, _CLOSED = ConnectionState
_KINDS: dict[type, Kind] = {
    Welcome: Kind.WELCOME, Reject: Kind.REJECT, Bye: Kind.BYE, Chunks: Kind.PIPE, Credit: Kind.CREDIT,
}  # fmt: skip


class Session:
    """The conversation with one server, over one connection after another."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint: str = endpoint
        self.state: ConnectionState = _CONNECTING
        # How large a message the server takes.
        self.limit: SizeLimit = SizeLimit(endpoint, endpoint)
        # What the server lets this side push into each pipe; the standard one until it has said so.
        self.pipe_window: int = PIPE_WINDOW_BYTES
        # A server has greeted, or spoken at all.
        self.reached: bool = False
        # Why the last connection, or attempt to make one, has failed; "" if there is a connection.
        self.refusal: str = ""
        # How often a connection was made.
        self.connections: int = 0
        # Another one for each greeting of ours.
        self.conversation: Conversation = Conversation(Side.CLIENT)

    @property
    def linked(self) -> bool:
        """Whether there is a connection to send over."""
        return self.state is _GREETING or self.state is _CONNECTED

    def check_turn(self, message: Message) -> None:
        """Raise `RemoteProtocolError` for a message, not of replies, that a server may not send now."""
        kind = _KINDS.get(type(message))
        if kind is None:
            raise RemoteProtocolError(f"a server does not send {type(message).__name__}")
        self.conversation.received(kind)

    def check_replies(self) -> None:
        """Raise `RemoteProtocolError` if replies are out of turn."""
        self.conversation.received(Kind.REPLIES)

    def connected(self) -> None:
        """There is a connection, and this side greets."""
        self.conversation = Conversation(Side.CLIENT)
        self.conversation.sent(Kind.HELLO)
        self.limit.forget()
        self.connections += 1
        self.refusal = ""
        self.state = _GREETING

    def welcomed(self, message: Welcome) -> bool:
        """The server has greeted; return whether that is news."""
        self.limit.learn(message.limits.message_bytes)
        if self.state is not _GREETING:
            return False
        self.state = _CONNECTED
        self.reached = True
        return True

    def lost(self, reason: str) -> None:
        """The connection, or the conversation, is over."""
        self.state = _CONNECTING
        self.refusal = reason

    def rejected(self, text: str) -> None:
        """The server has refused to talk, in answer to the greeting."""
        self.lost(text)
        self.reached = True

    def may_say_goodbye(self) -> bool:
        """Whether there is a server to say goodbye to."""
        return self.linked and self.conversation.may_say(Kind.BYE)

    # What callers are told

    def silence(self, outstanding: int) -> str:
        """Why no answer comes to so many calls, if that is for want of a server; else ""."""
        if not outstanding or self.state is _CONNECTED or self.state is _CLOSED:
            return ""
        if self.state is _GREETING:
            what = f"what accepts connections at {self.endpoint} has not greeted"
        elif self.reached:
            what = f"there is no connection to {self.endpoint} any more"
        else:
            what = f"no server was ever reached at {self.endpoint}"
        why = f" ({self.refusal})" if self.refusal else ""
        return f"{what}, {outstanding} {'call waits' if outstanding == 1 else 'calls wait'} for it{why}"

    def unreachable(self, waited: float, lost: str, left: bool) -> CallError:
        """Return what ends a call that has waited for a server.

        Args: `waited` in seconds. `lost`: how the connection was lost that it was sent over before, or "". `left`: it
            may have been sent, though no server has greeted.
        """
        kind = CallFailed if lost or left else CallFailedDne if self.reached else ServerUnavailable
        first = f"{lost}; to send it again there was " if lost else ""
        if self.linked:
            text = f"no greeting from {self.endpoint} within {waited} s: what accepts connections there says nothing"
            text += "; the call was sent to it, and may run" if left else ""
        else:
            text = f"no connection to {self.endpoint} within {waited} s" + (self.refusal and f": {self.refusal}")
        return kind(first + text)
