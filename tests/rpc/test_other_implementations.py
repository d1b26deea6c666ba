"""What the protocol allows, and this implementation's own peers never do.

Source: PROTOCOL.md, sections 2, 3, 4 and 5.
"""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from engine import Client, Interface, Out, Server, current_call, operation
from engine.testing import LIMIT
from transport.frames import Bye, Calls, Credit, Hello, Kind, Reject, Replies, Welcome
from transport.wire.codec import decode
from transport.wire.session import ServerSession

from ..garbage import GOOD, call, calls, prefix
from ..one_by_one import calls_in, replies_in
from .helpers import RawClient, RawServer

PROBE = ["test.Probe", 1, 2, "echo"]


def message(kind: Kind, *body: object) -> bytes:
    """A message with that body, however wrong."""
    return prefix(kind) + msgspec.msgpack.encode(body)


def answers(raw: RawClient, count: int) -> dict[int, tuple[int, Any]]:
    """The status and the value of so many replies, by the numbers of their calls."""
    found: dict[int, tuple[int, Any]] = {}
    while len(found) < count:
        for one in replies_in(raw.hear()):
            found[one.id] = (one.status, msgspec.msgpack.decode(one.value))
    return found


class Camera(Interface, id="test.Camera"):
    """One operation, with an output."""

    @operation
    def grab(self, frame: Out[bytearray]) -> int:
        """Fill the frame; return its size."""


class Frames:
    """Implements `Camera`."""

    def grab(self, frame: bytearray) -> int:
        frame[:] = b"x" * len(frame)
        return len(frame)


class Looking:
    """Routines that say what they see of the call."""

    def metadata(self) -> dict[str, str]:
        return dict(current_call().metadata)

    def time_left(self) -> float | None:
        return current_call().time_left()


@pytest.fixture
def raw(local: Callable[..., Server]) -> Any:
    """A client that says what it likes, of a server with `Probe` and `look`."""
    server = local()
    server.register("look", Looking())
    with RawClient(server.endpoint) as made:
        yield made


class TestOptions:
    """Options hold for each call of a group."""

    def test_of_calls(self, raw: RawClient) -> None:
        """Each of them gets the metadata; one way, none is answered; out of time, none is begun."""
        target = ["look", 0, 0, "metadata"]
        raw.send(message(Kind.CALLS, [[0, [1, 2, 3], [[], [], []], {"m": {"a": "b"}, "l": -1}]], [target]))
        assert answers(raw, 3) == dict.fromkeys((1, 2, 3), (0, {"a": "b"}))
        raw.send(message(Kind.CALLS, [[0, [4, 5], [[], []], {"w": True}], [0, [6, 7], [[], []], {"t": 0}]], [target]))
        assert {number: status for number, (status, _) in answers(raw, 2).items()} == {6: 1818, 7: 1818}

    def test_of_replies(self, endpoint: str) -> None:
        """Each call of the group has what the server says beside its results."""
        with RawServer(endpoint) as server, Client(endpoint) as client:
            begun = [client.bind("any").echo.begin(number) for number in (1, 2)]
            server.greet()
            heard: list[int] = []
            while len(heard) < 2:
                heard += [one.id for one in calls_in(server.hear())]
            server.send(message(Kind.REPLIES, [[[1, 2], ["a", "b"], 0, {"m": {"k": "v"}}]]))
            assert [each.result(LIMIT) for each in begun] == ["a", "b"]
            assert [each.trailing_metadata for each in begun] == [{"k": "v"}] * 2

    @pytest.mark.parametrize("left", [math.nan, math.inf])
    def test_a_time_that_is_none(self, raw: RawClient, left: float) -> None:
        """A time that is no number, or has no end, sets no limit."""
        raw.send(message(Kind.CALLS, [[0, [1], [[]], {"t": left}]], [["look", 0, 0, "time_left"]]))
        assert answers(raw, 1) == {1: (0, None)}

    @pytest.mark.parametrize("left", [0, -1, -math.inf])
    def test_no_time(self, raw: RawClient, left: float) -> None:
        """With no time left a call is not begun: 1818."""
        raw.send(message(Kind.CALLS, [[0, [1], [["x"]], {"t": left if left != -math.inf else -1e308}]], [PROBE]))
        assert answers(raw, 1)[1][0] == 1818

    @pytest.mark.parametrize("args", [None, 5, [], [["a"]], [["a"], ["b"], ["c"]]])
    def test_arguments_of_nobody(self, raw: RawClient, args: object) -> None:
        """If there are not as many arguments as calls, all calls of that group end with 1783, and no others."""
        raw.send(message(Kind.CALLS, [[0, [1, 2], args], [0, [3], [["c"]]]], [PROBE]))
        found = answers(raw, 3)
        assert [found[number][0] for number in (1, 2, 3)] == [1783, 1783, 0]


class TestTrailing:
    """A peer of a later version says more, at the end of any array: it is ignored."""

    def test_to_a_server(self, raw: RawClient) -> None:
        """In a call and all that is in it, in a CANCEL and a CREDIT."""
        blob = [0, "b", "", [], "new"]
        group = [0, [1], [[None]], {"b": [blob], "new": 1, "t": 60}, "new"]
        raw.send(message(Kind.CALLS, [group], [[*PROBE, "new"]], "new"), b"large")
        assert answers(raw, 1) == {1: (0, b"large")}
        raw.send(message(Kind.CANCEL, [[77, True, "new"]], "new"))
        raw.send(message(Kind.CREDIT, [[77, 0, 5, "new"]], "new"))
        raw.send(message(Kind.PIPE, [[77, 0, False, b"", "new"]], "new"))
        raw.send(calls(call(2)))
        assert answers(raw, 1) == {2: (0, 2)}

    def test_to_a_client(self, endpoint: str) -> None:
        """In a WELCOME, its limits, a reply, its options, and a BYE."""
        with RawServer(endpoint) as server, Client(endpoint) as client:
            begun = client.bind("any").echo.begin("x")
            assert type(server.hear()) is Hello
            limits = [0, 0, 0, 0, 100, "new"]
            server.send(message(Kind.WELCOME, b"\2" * 16, 1, "", "", 0, limits, {}, 0, ["tcp://other:1"], "new"))
            server.hear()
            server.send(message(Kind.CREDIT, []))
            server.send(message(Kind.REPLIES, [[[1], [7], 0, {"m": {}, "new": 2}, "new"]], "new"))
            assert begun.result(LIMIT) == 7
            server.send(message(Kind.BYE, 0, "", 1, "new"))
            assert type(server.hear()) is Hello
            assert client.statistics().garbage_received == 0


class TestConversations:
    """How conversations end and begin on one connection."""

    def test_a_probe(self, raw: RawClient) -> None:
        """A CREDIT without grants means nothing to who knows the conversation."""
        raw.say(Credit([]))
        raw.send(calls(call(1)))
        assert answers(raw, 1) == {1: (0, 1)}

    def test_a_probe_of_a_stranger(self, local: Callable[..., Server]) -> None:
        """Whoever does not know it refuses: so a client learns that its server is another one."""
        with RawClient(local().endpoint, greet=False) as raw:
            raw.say(Credit([]))
            assert type(answer := raw.hear()) is Reject and answer.status == 1728
            raw.greet()

    def test_a_hello_too_many(self, raw: RawClient) -> None:
        """It is dropped, and the conversation goes on."""
        raw.say(Hello(b"\1" * 16))
        raw.send(calls(call(1)))
        assert answers(raw, 1) == {1: (0, 1)}

    @pytest.mark.parametrize("kind", [Kind.WELCOME, Kind.REJECT, Kind.REPLIES])
    def test_out_of_turn(self, raw: RawClient, kind: Kind) -> None:
        """What a client may not say now ends the conversation; another begins with HELLO."""
        body = {Kind.REPLIES: ([[[1], [5]]],), Kind.REJECT: ([1], 0)}.get(kind, (b"\1" * 16,))
        raw.send(message(kind, *body))
        assert type(answer := raw.hear()) is Reject and answer.status == 1728
        raw.send(calls(call(1)))
        raw.greet()
        raw.send(calls(call(2)))
        assert answers(raw, 1) == {2: (0, 2)}

    def test_a_client_that_keeps_its_connection(self, local: Callable[..., Server]) -> None:
        """After garbage it greets again on the same connection, as often as it likes."""
        with RawClient(local().endpoint) as raw:
            for number in range(1, 4):
                raw.send(GOOD[:-1])
                assert type(raw.hear()) is Reject
                raw.greet()
                raw.send(calls(call(number)))
                assert answers(raw, 1) == {number: (0, number)}

    def test_one_client_is_dismissed(self, endpoint: str) -> None:
        """A server says BYE to one client and goes on with the next conversation of it; what it had not taken comes
        again.
        """
        with RawServer(endpoint) as server, Client(endpoint, connect_timeout=LIMIT) as client:
            begun = client.bind("any").echo.begin("lost")
            server.greet()
            server.hear()
            server.say(Bye(0, "another one, please", 0))
            server.greet()
            assert isinstance(server.hear(), Calls)
            assert begun.status() == 997

    def test_who_greets_a_server_that_has_said_bye(self) -> None:
        """A server that closes answers each HELLO with a REJECT: that it is closing."""
        greetings: list[Any] = [Welcome(b"\2" * 16), Reject([1], 1722)]
        session = ServerSession(lambda: greetings.pop(0))
        hello = decode([message(Kind.HELLO, b"\1" * 16)])
        session.receive(hello)
        session.part()
        assert session.leave() is not None
        assert session.receive(hello).answers == (Reject([1], 1722),)


class TestOutputs:
    """A reply says that its value is the result and outputs."""

    def test_by_name(self, endpoint: str) -> None:
        """Without a contract a client gets them as a list, though some came out of band."""
        with RawServer(endpoint) as server, Client(endpoint) as client:
            begun = client.bind("any").grab.begin(3)
            server.greet()
            server.hear()
            options = {"o": 2, "b": [[2, "b"]]}
            server.send(message(Kind.REPLIES, [[[1], [[7, b"abc", None]], 0, options]]), b"large")
            assert begun.result(LIMIT) == [7, b"abc", b"large"]

    def test_what_a_server_says(self, local: Callable[..., Server]) -> None:
        """It says how many outputs there are."""
        server = local()
        server.register(Camera, Frames())
        with RawClient(server.endpoint) as raw:
            raw.send(message(Kind.CALLS, [[0, [1], [[3]]]], [["test.Camera", 1, 0, "grab"]]))
            heard = raw.hear()
            assert type(heard) is Replies
            (reply,) = replies_in(heard)
            assert msgspec.msgpack.decode(reply.value) == [3, b"xxx"]
            assert reply.options is not None and reply.options.outputs == 1


class TestSockets:
    """A client whose sockets hide connections."""

    def test_a_server_that_begins_anew(self, local: Callable[..., Server], folder: Any) -> None:
        """One DEALER socket, no monitor: a probe tells that the server is another one, and a HELLO goes on."""
        endpoint = f"ipc://{folder}/anew"
        first = local(endpoint)
        with RawClient(endpoint) as raw:
            raw.send(calls(call(1)))
            assert answers(raw, 1) == {1: (0, 1)}
            first.close(0)
            assert type(raw.hear()) is Bye
            local(endpoint)
            raw.say(Hello(b"\1" * 16))  # It may be lost with the connection that was.
            while type(answer := self.asked(raw)) is not Welcome:
                assert type(answer) is Reject
                raw.say(Hello(b"\1" * 16))
            raw.send(calls(call(2)))
            assert answers(raw, 1) == {2: (0, 2)}

    @staticmethod
    def asked(raw: RawClient) -> Any:
        """What the server says, to a probe if need be."""
        while not raw.socket.poll(100):
            raw.say(Credit([]))
        return raw.hear()
