"""Which message may be sent or taken when, on one connection: a table, for each side.

`PROTOCOL.md` explains the states. After a server's BYE or REJECT a HELLO begins another conversation. A `Conversation`
knows no socket and no role beyond its table; a session (`session`) is one that knows what the messages mean, too.
"""

from enum import Enum, auto
from typing import Final

from transport.errors import LocalProtocolError, RemoteProtocolError
from transport.frames import Kind


class Side(Enum):
    """Which end of the connection."""

    CLIENT = auto()
    SERVER = auto()


class ConversationState(Enum):
    """How far a connection has come."""

    #: No HELLO was sent.
    FRESH = auto()
    #: HELLO was sent, and not answered yet.
    GREETED = auto()
    #: WELCOME was sent.
    OPEN = auto()
    #: A server that is about to say BYE, and has counted what it has taken.
    PARTING = auto()
    #: This side has said BYE.
    LEAVING = auto()
    #: The other side has said BYE, or the connection is gone.
    CLOSED = auto()
    #: REJECT was sent.
    REJECTED = auto()


class Direction(Enum):
    """Which way a message goes, seen from this side."""

    SENT = auto()
    RECEIVED = auto()


_S, _R = Direction.SENT, Direction.RECEIVED
_State = ConversationState
_Row = dict[tuple[Direction, Kind], ConversationState]


def _stay(state: ConversationState, direction: Direction, *kinds: Kind) -> _Row:
    return {(direction, kind): state for kind in kinds}


_FROM_CLIENT = (Kind.CALLS, Kind.CANCEL, Kind.PIPE, Kind.CREDIT)
_FROM_SERVER = (Kind.REPLIES, Kind.PIPE, Kind.CREDIT)


def _serving(state: ConversationState) -> _Row:
    """What an open server may take and say; it stays in its state until one of the two ends the conversation."""
    return {
        **_stay(state, _R, *_FROM_CLIENT),
        **_stay(state, _S, *_FROM_SERVER),
        (_S, Kind.BYE): _State.LEAVING,
        (_S, Kind.REJECT): _State.REJECTED,
        (_R, Kind.BYE): _State.CLOSED,
    }


#: Side -> state -> (direction, kind) -> next state. A missing cell is an error: ours if sent, the peer's if received.
TRANSITIONS: Final[dict[Side, dict[ConversationState, _Row]]] = {
    Side.CLIENT: {
        _State.FRESH: {(_S, Kind.HELLO): _State.GREETED},
        # Calls may follow the HELLO at once: if a REJECT answers it, none of them has run.
        _State.GREETED: {
            **_stay(_State.GREETED, _S, *_FROM_CLIENT),
            (_S, Kind.BYE): _State.LEAVING,
            (_R, Kind.WELCOME): _State.OPEN,
            (_R, Kind.REJECT): _State.REJECTED,
            (_R, Kind.BYE): _State.CLOSED,
        },
        _State.OPEN: {
            **_stay(_State.OPEN, _S, *_FROM_CLIENT),
            **_stay(_State.OPEN, _R, *_FROM_SERVER),
            (_S, Kind.BYE): _State.LEAVING,
            (_R, Kind.REJECT): _State.REJECTED,
            (_R, Kind.BYE): _State.CLOSED,
        },
        _State.PARTING: {},
        # What was on its way may still arrive, and is of no interest.
        _State.LEAVING: {
            **_stay(_State.LEAVING, _R, *_FROM_SERVER, Kind.WELCOME),
            (_R, Kind.REJECT): _State.CLOSED,
            (_R, Kind.BYE): _State.CLOSED,
        },
        # Whoever said goodbye says nothing more but what answers a HELLO.
        _State.CLOSED: {(_S, Kind.HELLO): _State.GREETED},
        # Replies to calls of before may still come.
        _State.REJECTED: {(_S, Kind.HELLO): _State.GREETED, (_R, Kind.REPLIES): _State.REJECTED},
    },
    Side.SERVER: {
        # Anything but a HELLO from a stranger is answered with a REJECT.
        _State.FRESH: {(_R, Kind.HELLO): _State.GREETED, (_S, Kind.REJECT): _State.REJECTED},
        _State.GREETED: {(_S, Kind.WELCOME): _State.OPEN, (_S, Kind.REJECT): _State.REJECTED},
        _State.OPEN: _serving(_State.OPEN),
        # Calls that come now are left alone, and not counted.
        _State.PARTING: _serving(_State.PARTING),
        # What comes before a HELLO was on its way.
        _State.LEAVING: {
            **_stay(_State.LEAVING, _R, *_FROM_CLIENT),
            (_R, Kind.HELLO): _State.GREETED,
            (_R, Kind.BYE): _State.CLOSED,
        },
        _State.CLOSED: {},
        _State.REJECTED: {
            (_R, Kind.HELLO): _State.GREETED,
            (_S, Kind.REPLIES): _State.REJECTED,
            (_S, Kind.BYE): _State.LEAVING,
        },
    },
}


# The same, laid out for looking up: side and state -> (kind -> next state) for sending, and for receiving.
_LAYOUT: Final = {
    (side, state): [{kind: following for (way, kind), following in row.items() if way is each} for each in (_S, _R)]
    for side, table in TRANSITIONS.items()
    for state, row in table.items()
}


class Conversation:
    """How far one connection has come.

    Threads: not safe; guarded by what guards the connection.
    """

    __slots__ = ("_receiving", "_sending", "side", "state")

    def __init__(self, side: Side) -> None:
        self.side: Side = side
        self._enter(ConversationState.FRESH)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.side.name.lower()} {self.state.name.lower()}>"

    def _enter(self, state: ConversationState) -> None:
        self.state: ConversationState = state
        self._sending, self._receiving = _LAYOUT[self.side, state]

    def sent(self, kind: Kind) -> None:
        """Note that a message of `kind` is sent now.

        Raises: LocalProtocolError if it may not be; then nothing has changed.
        """
        following = self._sending.get(kind)
        if following is not self.state:
            if following is None:
                raise LocalProtocolError(
                    f"a {self.side.name.lower()} may not send {kind.name} while {self.state.name.lower()}"
                )
            self._enter(following)

    def received(self, kind: Kind) -> None:
        """Note that a message of `kind` arrived.

        Raises: RemoteProtocolError if it may not have; then nothing has changed.
        """
        following = self._receiving.get(kind)
        if following is not self.state:
            if following is None:
                raise RemoteProtocolError(
                    f"{kind.name} may not reach a {self.side.name.lower()} that is {self.state.name.lower()}"
                )
            self._enter(following)

    def may_say(self, kind: Kind) -> bool:
        """Whether `sent(kind)` would succeed."""
        return kind in self._sending
