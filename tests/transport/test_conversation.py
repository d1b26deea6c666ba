"""Which message is allowed when: the whole product of sides, states, ways and kinds."""

import pytest

from transport.errors import LocalProtocolError, RemoteProtocolError
from transport.frames import Kind
from transport.wire.conversation import TRANSITIONS, Conversation, ConversationState, Side, Way

# How to bring a fresh conversation into each state.
PATHS: dict[Side, dict[ConversationState, list[tuple[Way, Kind]]]] = {
    Side.CLIENT: {
        ConversationState.FRESH: [],
        ConversationState.GREETED: [(Way.SENT, Kind.HELLO)],
        ConversationState.OPEN: [(Way.SENT, Kind.HELLO), (Way.RECEIVED, Kind.WELCOME)],
        ConversationState.LEAVING: [
            (Way.SENT, Kind.HELLO),
            (Way.RECEIVED, Kind.WELCOME),
            (Way.SENT, Kind.BYE),
        ],
        ConversationState.CLOSED: [(Way.SENT, Kind.HELLO), (Way.RECEIVED, Kind.REJECT)],
    },
    Side.SERVER: {
        ConversationState.FRESH: [],
        ConversationState.GREETED: [(Way.RECEIVED, Kind.HELLO)],
        ConversationState.OPEN: [(Way.RECEIVED, Kind.HELLO), (Way.SENT, Kind.WELCOME)],
        ConversationState.LEAVING: [
            (Way.RECEIVED, Kind.HELLO),
            (Way.SENT, Kind.WELCOME),
            (Way.SENT, Kind.BYE),
        ],
        ConversationState.CLOSED: [(Way.SENT, Kind.REJECT)],
    },
}


def note(conversation: Conversation, way: Way, kind: Kind) -> None:
    if way is Way.SENT:
        conversation.sent(kind)
    else:
        conversation.received(kind)


def in_state(side: Side, state: ConversationState) -> Conversation:
    conversation = Conversation(side)
    for way, kind in PATHS[side][state]:
        note(conversation, way, kind)
    assert conversation.state is state
    return conversation


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("state", ConversationState)
@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("kind", Kind)
def test_every_cell(side: Side, state: ConversationState, way: Way, kind: Kind) -> None:
    """A cell of the table leads on; a missing one raises, ours or the peer's error, and changes nothing."""
    conversation = in_state(side, state)
    following = TRANSITIONS[side][state].get((way, kind))
    if way is Way.SENT:
        assert conversation.may_send(kind) == (following is not None)
    if following is not None:
        note(conversation, way, kind)
        assert conversation.state is following
        return
    with pytest.raises(LocalProtocolError if way is Way.SENT else RemoteProtocolError, match=kind.name):
        note(conversation, way, kind)
    assert conversation.state is state


def test_two_sides_agree() -> None:
    """What one side may send, the other may receive, as long as both are open."""
    client, server = TRANSITIONS[Side.CLIENT], TRANSITIONS[Side.SERVER]
    for one, other in ((client, server), (server, client)):
        sent = {kind for way, kind in one[ConversationState.OPEN] if way is Way.SENT}
        taken = {kind for way, kind in other[ConversationState.OPEN] if way is Way.RECEIVED}
        assert sent == taken


def test_nothing_after_a_bye() -> None:
    """Whoever said goodbye sends nothing more, and whoever was told takes nothing more."""
    for side in Side:
        leaving = in_state(side, ConversationState.LEAVING)
        assert not any(leaving.may_send(kind) for kind in Kind)
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
