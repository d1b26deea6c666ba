"""Which message is allowed when: the whole product of sides, states, ways and kinds."""

import pytest

from transport.errors import LocalProtocolError, RemoteProtocolError
from transport.frames import Kind
from transport.wire.conversation import TRANSITIONS, Conversation, ConversationState, Direction, Side

# How to bring a fresh conversation into each state. (No message leads to PARTING: the session of a server does.)
PATHS: dict[Side, dict[ConversationState, list[tuple[Direction, Kind]]]] = {
    Side.CLIENT: {
        ConversationState.FRESH: [],
        ConversationState.GREETED: [(Direction.SENT, Kind.HELLO)],
        ConversationState.OPEN: [(Direction.SENT, Kind.HELLO), (Direction.RECEIVED, Kind.WELCOME)],
        ConversationState.LEAVING: [
            (Direction.SENT, Kind.HELLO),
            (Direction.RECEIVED, Kind.WELCOME),
            (Direction.SENT, Kind.BYE),
        ],
        ConversationState.CLOSED: [(Direction.SENT, Kind.HELLO), (Direction.RECEIVED, Kind.BYE)],
        ConversationState.REJECTED: [(Direction.SENT, Kind.HELLO), (Direction.RECEIVED, Kind.REJECT)],
    },
    Side.SERVER: {
        ConversationState.FRESH: [],
        ConversationState.GREETED: [(Direction.RECEIVED, Kind.HELLO)],
        ConversationState.OPEN: [(Direction.RECEIVED, Kind.HELLO), (Direction.SENT, Kind.WELCOME)],
        ConversationState.LEAVING: [
            (Direction.RECEIVED, Kind.HELLO),
            (Direction.SENT, Kind.WELCOME),
            (Direction.SENT, Kind.BYE),
        ],
        ConversationState.CLOSED: [
            (Direction.RECEIVED, Kind.HELLO),
            (Direction.SENT, Kind.WELCOME),
            (Direction.RECEIVED, Kind.BYE),
        ],
        ConversationState.REJECTED: [(Direction.SENT, Kind.REJECT)],
    },
}


def note(conversation: Conversation, direction: Direction, kind: Kind) -> None:
    if direction is Direction.SENT:
        conversation.sent(kind)
    else:
        conversation.received(kind)


def in_state(side: Side, state: ConversationState) -> Conversation:
    conversation = Conversation(side)
    for direction, kind in PATHS[side][state]:
        note(conversation, direction, kind)
    assert conversation.state is state
    return conversation


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("state", PATHS[Side.SERVER])
@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("kind", Kind)
def test_every_cell(side: Side, state: ConversationState, direction: Direction, kind: Kind) -> None:
    """A cell of the table leads on; a missing one raises, ours or the peer's error, and changes nothing."""
    conversation = in_state(side, state)
    following = TRANSITIONS[side][state].get((direction, kind))
    if direction is Direction.SENT:
        assert conversation.may_say(kind) == (following is not None)
    if following is not None:
        note(conversation, direction, kind)
        assert conversation.state is following
        return
    with pytest.raises(LocalProtocolError if direction is Direction.SENT else RemoteProtocolError, match=kind.name):
        note(conversation, direction, kind)
    assert conversation.state is state


def test_two_sides_agree() -> None:
    """What one side may send, the other may receive, as long as both are open."""
    client, server = TRANSITIONS[Side.CLIENT], TRANSITIONS[Side.SERVER]
    for one, other in ((client, server), (server, client)):
        sent = {kind for direction, kind in one[ConversationState.OPEN] if direction is Direction.SENT}
        taken = {kind for direction, kind in other[ConversationState.OPEN] if direction is Direction.RECEIVED}
        assert sent == taken


def test_nothing_after_a_bye() -> None:
    """Whoever said goodbye sends nothing more, and whoever was told takes nothing more."""
    for side in Side:
        leaving = in_state(side, ConversationState.LEAVING)
        assert not any(leaving.may_say(kind) for kind in Kind)
        told = in_state(side, ConversationState.OPEN)
        told.received(Kind.BYE)
        for kind in Kind:
            with pytest.raises(RemoteProtocolError):
                told.received(kind)


def test_calls_may_follow_the_hello() -> None:
    """A client need not wait for the WELCOME."""
    client = in_state(Side.CLIENT, ConversationState.GREETED)
    client.sent(Kind.CALLS)
    client.received(Kind.WELCOME)
    assert client.state is ConversationState.OPEN


def test_repr() -> None:
    """It says side and state."""
    assert repr(Conversation(Side.SERVER)) == "<Conversation server fresh>"
