"""Whole exchanges without a socket, a thread or a clock: two sessions joined by lists.

Source: PROTOCOL.md, sections 3 and 4.
"""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport import Buffer
from transport.errors import LocalProtocolError, RemoteProtocolError
from transport.frames import (
    KIND_OF,
    Bye,
    Calls,
    Cancel,
    CancelledCall,
    Chunks,
    Credit,
    Grant,
    Hello,
    Kind,
    Limits,
    Message,
    PipeChunk,
    Reject,
    Replies,
    Welcome,
)
from transport.wire.codec import decode, encode
from transport.wire.conversation import ConversationState
from transport.wire.session import ClientSession, Received, ServerSession

from ...garbage import GARBAGE, GOOD, NIL, SILENT, TARGET, call, prefix
from ...one_by_one import calls_in, one_reply

HELLO = Hello(b"\1" * 16, 1, "here", limits=Limits(message_bytes=100_000, pipe_window_bytes=7))
WELCOME = Welcome(b"\2" * 16, limits=Limits(message_bytes=200_000, pipe_window_bytes=9))
CLOSING = Reject([1], 1722, "the server is closing")


def some_calls(*numbers: int) -> Calls:
    """A message with calls of these numbers."""
    return Calls([call(number) for number in numbers], [TARGET])


def replies(*numbers: int) -> Replies:
    """A message with replies to these calls."""
    return Replies([one_reply(number, 0, NIL) for number in numbers])


def take(session: ClientSession | ServerSession, frames: list[Buffer]) -> Received:
    """What a runtime does with each message that arrives."""
    try:
        message = decode(frames)
    except RemoteProtocolError as error:
        return session.unreadable(error, frames)
    return session.receive(message)


class Exchange:
    """A client and a server, and what is on its way between them."""

    def __init__(self, greeting: Callable[[], Welcome | Reject] = lambda: WELCOME) -> None:
        self.client = ClientSession()
        self.server = ServerSession(greeting)
        self.to_server: list[list[Buffer]] = []
        self.to_client: list[list[Buffer]] = []

    def greet(self) -> "Exchange":
        """Begin a conversation, and have it open."""
        self.begin()
        self.at_server()
        self.at_client()
        assert self.client.is_open and self.server.is_open
        return self

    def begin(self) -> None:
        """The client says hello."""
        self.client.begin()
        self.to_server.append(encode(HELLO))

    def call(self, *numbers: int) -> None:
        """The client sends calls."""
        self.client.sent(Kind.CALLS)
        self.client.calls_sent += 1
        self.to_server.append(encode(some_calls(*numbers)))

    def at_server(self) -> list[Received]:
        """All that is on its way to the server arrives; what that answers is on its way."""
        found = [take(self.server, frames) for frames in self.to_server]
        self.to_server.clear()
        self.to_client += [encode(answer) for each in found for answer in each.answers]
        return found

    def at_client(self) -> list[Received]:
        """All that is on its way to the client arrives."""
        found = [take(self.client, frames) for frames in self.to_client]
        self.to_client.clear()
        return found


def messages(found: list[Received]) -> list[Message]:
    """What is to be dealt with."""
    return [each.message for each in found if each.message is not None]


def numbers(found: list[Received]) -> list[int]:
    """The numbers of the calls that were taken."""
    return [one.id for message in messages(found) if type(message) is Calls for one in calls_in(message)]


@pytest.fixture
def fresh() -> Exchange:
    """Nothing was said."""
    return Exchange()


@pytest.fixture
def opened() -> Exchange:
    """Both have greeted."""
    return Exchange().greet()


class TestGreeting:
    """HELLO, WELCOME, and what each side learns from them."""

    def test_both_learn(self, fresh: Exchange) -> None:
        """The server gets the HELLO, the client the WELCOME, and each knows what the other takes."""
        fresh.begin()
        assert messages(fresh.at_server()) == [HELLO]
        assert messages(fresh.at_client()) == [WELCOME]
        assert (fresh.server.message_limit, fresh.server.limits.pipe_window_bytes) == (100_000, 7)
        assert (fresh.client.message_limit, fresh.client.limits.pipe_window_bytes) == (200_000, 9)

    def test_calls_at_once(self, fresh: Exchange) -> None:
        """Calls may follow the HELLO at once; the server takes them after it, and counts their messages."""
        fresh.begin()
        fresh.call(1, 2)
        fresh.call(3)
        assert numbers(fresh.at_server()) == [1, 2, 3]
        assert fresh.server.calls_taken == fresh.client.calls_sent == 2
        assert not fresh.client.is_open
        assert messages(fresh.at_client()) == [WELCOME] and fresh.client.is_open

    def test_what_is_too_large_waits(self, fresh: Exchange) -> None:
        """Before the WELCOME no message leaves above 65,536 bytes and 1,024 calls; after it, none above the limits."""
        fresh.begin()
        assert (fresh.client.message_limit, fresh.client.limits.records) == (65_536, 1024)
        assert fresh.client.limits.pipe_window_bytes == 262_144
        fresh.at_server()
        fresh.at_client()
        assert (fresh.client.message_limit, fresh.client.limits.records) == (200_000, 65_536)
        assert fresh.server.message_limit == 100_000

    def test_no_limit(self) -> None:
        """A limit of 0 is none."""
        exchange = Exchange(lambda: Welcome(b"\2" * 16, limits=Limits(0, 0))).greet()
        assert exchange.client.message_limit > 1 << 40

    def test_a_server_that_closes(self) -> None:
        """It answers each HELLO with its REJECT: nothing has run, and the client may greet again."""
        exchange = Exchange(lambda: CLOSING)
        for turn in (1, 2):
            exchange.begin()
            exchange.call(1)
            hello, calls = exchange.at_server()
            assert hello.message is None and calls.message is None and calls.error is not None
            assert exchange.at_client() == [Received(CLOSING)]
            assert exchange.client.conversation == turn
        assert not exchange.server.is_open


class TestStrangers:
    """Who does not begin with HELLO is told so once, and not served."""

    @pytest.mark.parametrize(
        "message",
        [
            some_calls(1),
            Cancel([CancelledCall(1, True)]),
            Bye(),
            Chunks([PipeChunk(1, 0, True, memoryview(b""))]),
            replies(1),
            WELCOME,
        ],
    )
    def test_told_once(self, fresh: Exchange, message: Message) -> None:
        """What can be read gets one REJECT with 1728; what follows is dropped until a HELLO."""
        fresh.to_server += [encode(message)] * 3
        first, *others = fresh.at_server()
        assert [(type(answer), answer.status) for answer in first.answers if type(answer) is Reject] == [(Reject, 1728)]
        assert [(each.message, each.answers) for each in others] == [(None, ())] * 2
        assert all(each.error is not None for each in (first, *others))
        fresh.to_client.clear()
        fresh.greet()

    @pytest.mark.parametrize("frames", [[GOOD[:-1]], [prefix(200)], [prefix(Kind.HELLO) + b"\x90"], [b"CP"]])
    def test_unreadable(self, fresh: Exchange, frames: list[Buffer]) -> None:
        """So is what cannot be read, if it is ours."""
        fresh.to_server += [frames] * 2
        first, second = fresh.at_server()
        assert [answer.status for answer in first.answers if type(answer) is Reject] == [1728]
        assert second.answers == () and first.error is not None and second.error is not None
        fresh.to_client.clear()
        fresh.greet()

    @pytest.mark.parametrize("frames", [[b"noise"], [b""], [b"XX" + GOOD[2:]]])
    def test_what_is_not_ours(self, fresh: Exchange, frames: list[Buffer]) -> None:
        """What is not ours is dropped without an answer."""
        fresh.to_server.append(frames)
        (found,) = fresh.at_server()
        assert found.error is not None and found == Received(error=found.error)
        fresh.greet()

    def test_another_version(self, fresh: Exchange) -> None:
        """Another version gets a REJECT that says which there are, once."""
        fresh.to_server += [[prefix(Kind.HELLO, 99) + b"\x90"]] * 2
        first, second = fresh.at_server()
        assert [answer.versions for answer in first.answers if type(answer) is Reject] == [[1]]
        assert second.answers == () and second.error is not None


class TestBrokenOff:
    """A REJECT in the midst of a conversation: what it had open is over, and another may begin."""

    def test_calls_lost_in_garbage(self, opened: Exchange) -> None:
        """Both sides know that the conversation is over, and begin another, which counts from nothing."""
        opened.call(1)
        opened.to_server.append([GOOD[:-1]])
        opened.call(2)  # On its way already: not run, and not rejected again.
        taken, garbage, dropped = opened.at_server()
        assert numbers([taken, dropped]) == [1]
        assert (taken.ended, garbage.ended, dropped.ended, dropped.answers) == (False, True, False, ())
        assert not opened.server.is_open
        (rejected,) = opened.at_client()
        assert type(rejected.message) is Reject and rejected.message.status == 1728 and rejected.ended
        opened.greet()
        assert (opened.client.conversation, opened.client.calls_sent, opened.server.calls_taken) == (2, 0, 0)
        opened.call(3)
        assert numbers(opened.at_server()) == [3]

    def test_by_the_server(self, opened: Exchange) -> None:
        """A server that has lost a message breaks off, once."""
        first, second = opened.server.break_off(14, "no memory"), opened.server.break_off(14, "no memory")
        assert first == Received(None, (Reject([1], 14, "no memory"),), ended=True)
        assert second == Received()

    def test_at_a_message_that_is_lost(self, opened: Exchange) -> None:
        """A server whose link has lost a message breaks off, once; after that, what was lost may have been a HELLO."""
        broken = take(opened.server, [])
        assert [type(answer) for answer in broken.answers] == [Reject] and broken.ended
        bye = take(opened.server, [])
        assert [type(answer) for answer in bye.answers] == [Bye] and not bye.ended
        assert isinstance(bye.answers[0], Bye) and bye.answers[0].taken == 0
        assert opened.server.state is ConversationState.LEAVING
        assert take(opened.server, []).answers == ()
        opened.client.receive(bye.answers[0])
        opened.greet()

    def test_at_a_message_that_both_have_lost(self, opened: Exchange) -> None:
        """The message that this side has broken off at is told of once."""
        assert opened.server.break_off(14, "no memory").answers
        assert take(opened.server, []).answers == ()
        opened.client.receive(Reject([1], 14, "no memory"))
        opened.client.settled()
        opened.greet()

    def test_at_the_first_message(self, fresh: Exchange) -> None:
        """A stranger whose first message is lost is refused."""
        assert [type(answer) for answer in take(fresh.server, []).answers] == [Reject]

    def test_replies_of_before(self, opened: Exchange) -> None:
        """Replies to calls of the conversation that is over may come, and are ignored."""
        opened.call(1)
        opened.at_server()
        opened.to_client += [encode(answer) for answer in opened.server.break_off(14, "").answers]
        opened.server.sent(Kind.REPLIES)
        opened.to_client.append(encode(replies(1)))
        rejected, reply = opened.at_client()
        assert rejected.ended and reply == Received()

    def test_before_the_welcome(self, fresh: Exchange) -> None:
        """If the REJECT comes before a WELCOME, no open conversation has ended: nothing has run."""
        fresh.begin()
        assert fresh.client.receive(CLOSING) == Received(CLOSING)
        fresh.client.begin()


class TestGoodbye:
    """BYE of either side."""

    def test_of_a_server(self, opened: Exchange) -> None:
        """A server counts what it takes, parts, and says how much it was: what is above did not run."""
        opened.call(1)
        opened.at_server()
        opened.server.part()
        opened.call(2)
        opened.to_server.append(encode(Cancel([CancelledCall(1, True)])))
        late, cancel = opened.at_server()
        assert late == Received() and type(cancel.message) is Cancel  # What runs may still be cancelled.
        bye = opened.server.leave(1722, "the server closed")
        assert bye == Bye(1722, "the server closed", 1)
        assert opened.server.leave() is None
        assert opened.client.receive(bye) == Received(bye, ended=True)
        assert opened.client.calls_sent == 2
        opened.greet()  # Over that connection, or over another.
        assert (opened.client.calls_sent, opened.server.calls_taken) == (0, 0)

    def test_of_a_client(self, opened: Exchange) -> None:
        """A client's BYE ends what belongs to the conversation; what comes after it is dropped."""
        bye = opened.client.leave(0, "done")
        assert bye == Bye(0, "done") and opened.client.leave() is None
        opened.to_server += [encode(bye), encode(some_calls(1)), encode(HELLO)]
        first, *others = opened.at_server()
        assert first == Received(bye, ended=True)
        assert [(each.message, each.answers) for each in others] == [(None, ())] * 2
        assert opened.client.receive(replies(1)) == Received()  # It was on its way.

    def test_before_the_welcome(self, fresh: Exchange) -> None:
        """A client may leave before the WELCOME, and a server's WELCOME then comes too late to mean anything."""
        fresh.begin()
        assert fresh.client.leave() == Bye()
        assert fresh.client.receive(WELCOME) == Received()

    @pytest.mark.parametrize("greeting", [lambda: WELCOME, lambda: CLOSING])
    def test_to_nobody(self, greeting: Callable[[], Welcome | Reject]) -> None:
        """A server says goodbye to those only that it has welcomed."""
        exchange = Exchange(greeting)
        exchange.server.part()
        assert exchange.server.leave() is None
        exchange.begin()
        (found,) = exchange.at_server()
        assert found.answers == (greeting(),)

    def test_nothing_begins_after_leaving(self, fresh: Exchange) -> None:
        """A client that has left, connected or not, begins nothing any more, whatever becomes of its connection."""
        assert fresh.client.leave() is None
        assert not fresh.client.lost()
        fresh.client.settled()
        with pytest.raises(LocalProtocolError):
            fresh.client.begin()


class TestLost:
    """The connection is gone."""

    def test_a_client_begins_again(self, opened: Exchange) -> None:
        """It says whether there is a conversation to settle, forgets what the server takes, and begins anew."""
        assert opened.client.lost() and opened.client.lost()  # Until that was settled.
        assert opened.client.message_limit == 65_536 and not opened.client.is_open
        opened.client.settled()
        assert not opened.client.lost()
        opened.client.begin()
        assert opened.client.lost()


CLIENTS: list[Message] = [
    HELLO, some_calls(1), Cancel([CancelledCall(1, False)]), Bye(),
    Chunks([PipeChunk(1, 0, False, memoryview(b""))]), Credit([Grant(1, 0, 5)]),
]  # fmt: skip
SERVERS: list[Message] = [WELCOME, CLOSING, replies(1)]


def test_every_kind() -> None:
    """The product below has each kind of message that there is."""
    assert {KIND_OF[type(message)] for message in (*CLIENTS, *SERVERS)} == set(Kind)


def client_in(state: ConversationState) -> ClientSession:
    """A client's session that has come so far."""
    session = ClientSession()
    if state is not ConversationState.FRESH:
        session.begin()
    if state not in (ConversationState.FRESH, ConversationState.GREETED):
        session.receive(WELCOME)
    if state is ConversationState.LEAVING:
        session.leave()
    elif state is ConversationState.CLOSED:
        session.receive(Bye())
    elif state is ConversationState.REJECTED:
        session.receive(CLOSING)
    return session


def server_in(state: ConversationState) -> ServerSession:
    """A server's session that has come so far."""
    session = ServerSession(lambda: WELCOME)
    if state is not ConversationState.FRESH:
        session.receive(HELLO)
    if state is ConversationState.PARTING:
        session.part()
    elif state is ConversationState.LEAVING:
        session.leave()
    elif state is ConversationState.CLOSED:
        session.receive(Bye())
    elif state is ConversationState.REJECTED:
        session.break_off(1728, "")
    return session


@pytest.mark.parametrize("message", [*CLIENTS, *SERVERS], ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("state", ConversationState)
class TestEveryState:
    """The product of states and messages: each is taken, answered or dropped, and nothing raises."""

    def test_of_a_client(self, state: ConversationState, message: Message) -> None:
        """A client never answers; what the table does not allow is garbage and changes nothing."""
        if state is ConversationState.PARTING:
            return  # Only a server is.
        session = client_in(state)
        assert session.state is state
        found = session.receive(message)
        assert found.answers == ()
        if found.error is not None:
            assert found == Received(error=found.error) and session.state is state
        assert not found.ended or state is ConversationState.OPEN

    def test_of_a_server(self, state: ConversationState, message: Message) -> None:
        """A server answers HELLO; what the table does not allow is garbage, which it refuses of those that it has not
        refused yet, but for a HELLO too many.
        """
        if state is ConversationState.GREETED:
            return  # It answers a HELLO at once.
        session = server_in(state)
        assert session.state is state
        found = session.receive(message)
        refused = found.error is not None and state in (ConversationState.FRESH, ConversationState.OPEN)
        if type(message) is Hello:
            refused = False
        assert bool(found.answers) == (refused or (found.error is None and type(message) is Hello))
        if found.error is not None:
            assert found.message is None
            assert session.state is (ConversationState.REJECTED if refused else state)
        left = found.error is None and type(message) is Bye
        assert found.ended == (left or (refused and state is ConversationState.OPEN))


class TestGarbage:
    """Messages that are none, or are out of turn, in an open conversation."""

    @pytest.mark.parametrize("name", GARBAGE)
    def test_to_a_server(self, opened: Exchange, name: str) -> None:
        """Each is garbage and no part of it is used. If calls may be lost with it, the conversation is broken off."""
        opened.to_server.append(list(GARBAGE[name]))
        (found,) = opened.at_server()
        assert found.error is not None and found.message is None
        answers = opened.at_client()
        if name in SILENT:
            assert answers == [] and not found.ended
        else:
            assert found.ended and [each.ended for each in answers] == [True]
            opened.greet()
        opened.call(77)
        assert numbers(opened.at_server()) == [77]
        assert opened.server.calls_taken == 1

    @pytest.mark.parametrize("name", sorted(set(GARBAGE) - {"a reply to a server", "a welcome to a server"}))
    def test_to_a_client(self, opened: Exchange, name: str) -> None:
        """Each is garbage, and changes nothing: the calls wait on for their answers."""
        opened.call(1)
        opened.to_client += [list(GARBAGE[name]), encode(replies(1))]
        garbage, answer = opened.at_client()
        assert garbage == Received(error=garbage.error) and garbage.error is not None
        assert type(answer.message) is Replies

    ANYTHING = st.one_of(
        st.binary(max_size=200),
        st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)).map(
            lambda change: GOOD[: change[0]] + bytes((change[1],)) + GOOD[change[0] + 1 :]
        ),
        st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=64)).map(lambda pair: prefix(pair[0]) + pair[1]),
    )

    @given(data=st.lists(ANYTHING, max_size=5))
    def test_anything_to_a_server(self, data: list[bytes]) -> None:
        """Whatever bytes come, one who has not said goodbye may greet and call."""
        exchange = Exchange()
        exchange.to_server += [[each] for each in data]
        exchange.at_server()
        if exchange.server.state is ConversationState.CLOSED:
            return
        if not exchange.server.is_open:
            exchange.to_client.clear()
            exchange.greet()
        before = exchange.server.calls_taken
        exchange.to_server.append(encode(some_calls(4242)))
        assert numbers(exchange.at_server()) == [4242] and exchange.server.calls_taken == before + 1

    @given(data=st.lists(ANYTHING, max_size=5))
    def test_anything_to_a_client(self, data: list[bytes]) -> None:
        """Whatever bytes come, a client that was neither rejected nor left goes on."""
        exchange = Exchange().greet()
        exchange.to_client += [[each] for each in data]
        exchange.at_client()
        if exchange.client.is_open:
            assert type(exchange.client.receive(replies(1)).message) is Replies
        else:
            assert exchange.client.state in (ConversationState.REJECTED, ConversationState.CLOSED)


def test_what_runs_without_a_session(opened: Exchange) -> None:
    """The way of a message with calls, and of replies, asks for one attribute: `is_open` is true between both."""
    for session in (opened.client, opened.server):
        assert session.is_open
        session.sent(Kind.BYE)
        assert not session.is_open


def test_repr() -> None:
    """It says side and state."""
    assert repr(ClientSession()) == "<ClientSession client fresh>"
