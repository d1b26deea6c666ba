"""Both sides of the protocol without sockets, threads or clocks: what a message means, and what answers it.

Theory of operation. A session is a conversation that knows more than the kinds of its messages: what each side takes,
how many messages with calls there were, what becomes of garbage. One state, moved by the table of `conversation`,
decides everything. The runtime hands over what has arrived, sends what the session answers, and does the rest.

    client                          server
    begin(), says Hello     ---->   receive() -> answers (Welcome,), or (Reject,)
    receive() <- Welcome    <----
    Calls, Chunks, ...      ---->   receive() -> the message
    receive() <- Reject     <----   unreadable() -> answers (Reject,): what it had open is over
    begin(), says Hello     ---->   ... the next conversation
    receive() <- Bye        <----   part(); leave() -> Bye, which says how many messages with calls were taken

Messages with calls, replies, elements and credit take no call of a session: if `is_open`, they are in order, and the
runtime itself counts those with calls (`calls_sent`, `calls_taken`).

Threads: not safe; guarded by what guards the connection. Single attributes may be read by any thread.
"""

import sys
from collections.abc import Callable
from typing import Final, NamedTuple

from transport.errors import RemoteProtocolError
from transport.foreign import text_of
from transport.frames import (
    KIND_OF,
    MAGIC,
    MAX_GREETING_BYTES,
    PIPE_WINDOW_BYTES,
    PREFIX_BYTES,
    VERSION,
    Buffer,
    Bye,
    Calls,
    Hello,
    Kind,
    Limits,
    Message,
    Reject,
    Welcome,
)
from transport.wire.conversation import Conversation, ConversationState, Side

#: What every peer takes before it has said what it takes: bytes, and calls, of a message.
UNGREETED: Final = Limits(message_bytes=64 * 1024, records=1024, pipe_window_bytes=PIPE_WINDOW_BYTES)

# The numbers of all kinds but HELLO.
_NOT_GREETINGS: Final = frozenset(kind.value for kind in Kind if kind is not Kind.HELLO)

# What a server answers to what is no message, or out of turn.
PROTOCOL_ERROR: Final = 1728

_FRESH, _GREETED, _OPEN = ConversationState.FRESH, ConversationState.GREETED, ConversationState.OPEN
_PARTING, _LEAVING, _CLOSED = ConversationState.PARTING, ConversationState.LEAVING, ConversationState.CLOSED
_REJECTED = ConversationState.REJECTED

# In these a server knows no client: only a HELLO means anything.
_STRANGE: Final = frozenset((_FRESH, _REJECTED, _LEAVING))


class Received(NamedTuple):
    """What a message that has arrived comes to."""

    #: To be dealt with; None: it is dropped.
    message: Message | None = None
    #: To be sent, before anything else.
    answers: tuple[Message, ...] = ()
    #: Why it is garbage: it is counted, and the first is logged.
    error: RemoteProtocolError | None = None
    #: An open conversation is over: calls without an answer may have run, and what belongs to it is to be run down.
    ended: bool = False


class Session(Conversation):
    """What both sides have in common."""

    __slots__ = ("is_open", "limits", "message_limit")

    def __init__(self, side: Side) -> None:
        super().__init__(side)
        self._learn(UNGREETED)

    def _enter(self, state: ConversationState) -> None:
        super()._enter(state)
        #: Calls and replies are in order, in both directions.
        self.is_open: bool = state is _OPEN

    def _learn(self, limits: Limits) -> None:
        #: What the other side takes. Its `pipe_window_bytes` is what each of its pipes takes unasked.
        self.limits: Limits = limits
        #: The most bytes of a message that may leave now. A client keeps what is larger, and what is behind it, until
        #: the WELCOME has come; in an open session it may never leave.
        self.message_limit: int = limits.message_bytes or sys.maxsize

    def leave(self, status: int = 0, reason: str = "") -> Bye | None:
        """End the conversation: return what to say, or None if there is none to end."""
        if not self.may_say(Kind.BYE):
            return None
        self.sent(Kind.BYE)
        return Bye(status, reason, self._taken())

    def _taken(self) -> int | None:
        return None


class ClientSession(Session):
    """The client's side of a connection, and of those after it."""

    __slots__ = ("body_limit", "calls_sent", "conversation")

    def __init__(self) -> None:
        #: The most bytes of frame 0 of a message, where `message_limit` allows more.
        self.body_limit: int = sys.maxsize
        super().__init__(Side.CLIENT)
        #: Which conversation this is, from 1.
        self.conversation: int = 0
        #: How many messages with calls were sent in it.
        self.calls_sent: int = 0

    def begin(self) -> None:
        """Begin a conversation: a HELLO is sent, on a new connection, or after the server's REJECT or BYE.

        Raises: LocalProtocolError in the midst of one, and after `leave`.
        """
        self.sent(Kind.HELLO)
        self._learn(UNGREETED)
        self.conversation += 1
        self.calls_sent = 0

    def lost(self) -> bool:
        """The connection is gone. Return whether there was a conversation, whose end is not `settled` yet."""
        if self.state is _FRESH or self.state is _LEAVING:
            return False
        if self.state is _GREETED or self.is_open:
            self._enter(_CLOSED)
        self._learn(UNGREETED)
        return True

    def settled(self) -> None:
        """The runtime has dealt with what the conversation that is over has left: another may begin."""
        if self.state is not _LEAVING:
            self._enter(_FRESH)

    def leave(self, status: int = 0, reason: str = "") -> Bye | None:
        """End the conversation for good, if there is one: return what to say, else None. None begins after that."""
        bye = super().leave(status, reason)
        self._enter(_LEAVING)
        return bye

    def receive(self, message: Message) -> Received:
        """Take a message of the server. REPLIES, PIPE and CREDIT in an open session need not come here."""
        was_open = self.is_open
        leaving = self.state is _LEAVING
        try:
            self.received(KIND_OF[type(message)])
        except RemoteProtocolError as error:
            return Received(error=error)
        if leaving or self.state is _REJECTED and type(message) is not Reject:
            return Received()  # It was on its way.
        if type(message) is Welcome:
            self.body_limit = message.body_bytes or sys.maxsize
            self._learn(message.limits)
        # A REJECT before the WELCOME: nothing has run.
        return Received(message, ended=was_open and not self.is_open)

    def unreadable(self, error: RemoteProtocolError, frames: list[Buffer]) -> Received:
        """Take what `decode` has refused: a client drops it, and its calls wait on."""
        return Received(error=error)


class ServerSession(Session):
    """The server's side of a connection, however many conversations it sees.

    Args: `greeting` makes the answer to a HELLO: a WELCOME, or the REJECT of a server that closes.
    """

    __slots__ = ("_at_fault", "_greeting", "calls_taken")

    def __init__(self, greeting: Callable[[], Welcome | Reject]) -> None:
        super().__init__(Side.SERVER)
        self._greeting = greeting
        # The conversation was broken off at the message that came last.
        self._at_fault = False
        #: How many messages with calls were taken since the WELCOME.
        self.calls_taken: int = 0

    def receive(self, message: Message) -> Received:
        """Take a message of the client. CALLS in an open session need not come here, if the runtime counts them."""
        before = self.state
        kind = KIND_OF[type(message)]
        self._at_fault = False
        try:
            self.received(kind)
        except RemoteProtocolError as error:
            # A client may greet twice: one whose socket hides connections was refused for words of before its HELLO.
            return Received(error=error) if type(message) is Hello else self._refuse(error)
        if type(message) is Hello:
            return self._greet(message)
        if before is _LEAVING or (before is _PARTING and type(message) is Calls):
            return Received(ended=kind is Kind.BYE)  # It was on its way.
        self.calls_taken += kind is Kind.CALLS
        return Received(message, ended=kind is Kind.BYE)

    def screen(self, frames: list[Buffer]) -> Received | None:
        """Look at a message before it is decoded; None: decode it.

        Of a stranger nothing is decoded but a greeting, and that only if it is not larger than greetings are: the
        prefix and the length are enough to refuse everything else.
        """
        if self.state not in _STRANGE or not frames:
            return None
        prefix = bytes(frames[0][:PREFIX_BYTES])
        ours = prefix[: len(MAGIC)] == MAGIC
        size = sum(map(len, frames))
        try:
            if size > MAX_GREETING_BYTES:
                raise RemoteProtocolError(f"{size} bytes before a greeting, which may have {MAX_GREETING_BYTES}")
            kind = prefix[-1] if ours and len(prefix) == PREFIX_BYTES else 0
            if kind in _NOT_GREETINGS and (prefix[len(MAGIC)] == VERSION or kind == Kind.REJECT):
                self.received(Kind(kind))  # It was on its way to a server that has left, or this raises.
                return Received(ended=kind == Kind.BYE)
        except RemoteProtocolError as error:
            self._at_fault = False
            return self._refuse(error) if ours else Received(error=error)
        return None

    def unreadable(self, error: RemoteProtocolError, frames: list[Buffer]) -> Received:
        """Take what `decode` has refused. If it is ours, calls may be lost with it: the conversation is broken off.

        Without frames: it is lost, and what it was is not known. After a REJECT it may have been a HELLO; but not if it
        is the message that this side has just broken off at.
        """
        lost = not frames
        at_fault, self._at_fault = self._at_fault, False
        if self.state is _REJECTED and lost and not at_fault:
            self.calls_taken = 0
            bye = self.leave(PROTOCOL_ERROR, str(error))
            assert bye is not None, "the table allows it"
            return Received(None, (bye,), error)
        return self._refuse(error) if lost or bytes(frames[0][: len(MAGIC)]) == MAGIC else Received(error=error)

    def break_off(self, status: int, reason: str) -> Received:
        """This side has lost a message: calls in it would wait for ever, so another conversation has to begin.

        Nothing happens if the last one was rejected, and no other has begun.
        """
        ended = self.is_open or self.state is _PARTING
        self._at_fault = True
        return Received(None, self._reject(reason, status), ended=ended)

    def part(self) -> None:
        """Take no calls any more: `leave` will say how many messages with calls were taken until here."""
        if self.is_open:
            self._enter(_PARTING)

    def _greet(self, hello: Hello) -> Received:
        answer = self._greeting()
        self.sent(KIND_OF[type(answer)])
        if type(answer) is Reject:
            return Received(None, (answer,))
        self.calls_taken = 0
        self._learn(hello.limits)
        return Received(hello, (answer,))

    def _refuse(self, error: RemoteProtocolError) -> Received:
        """What cannot be made use of is answered once: a stranger has to learn that it is not served, others that the
        conversation, whose calls may have been lost with it, is over. Of what comes then, no call is lost.
        """
        ended = self.is_open
        answers = self._reject(text_of(error)) if ended or self.state is _FRESH else ()
        return Received(None, answers, error, ended)

    def _reject(self, reason: str, status: int = PROTOCOL_ERROR) -> tuple[Message, ...]:
        if not self.may_say(Kind.REJECT):
            return ()
        self.sent(Kind.REJECT)
        return (Reject([VERSION], status, reason),)

    def _taken(self) -> int | None:
        return self.calls_taken
