"""`transport/vectors.json` on a real server and on a real client."""

from collections.abc import Iterator
from typing import Any

import pytest

from engine import Client, InPipe, Interface, Server, operation
from engine.testing import LIMIT, wait_until
from transport.frames import Hello, Reject, Welcome
from transport.wire.codec import encode_replies

from ..one_by_one import calls_in, replies_in
from ..transport.wire.test_vectors import frames_of, named, of
from .helpers import RawClient, RawServer

#: Calls of the vectors have lower numbers.
LAST = 1_000_000


class Echo(Interface, id="vectors.Echo", version=(1, 2)):
    """What a server has that runs the vectors."""

    @operation
    def echo(self, value: Any) -> Any:
        """Return the value."""

    @operation
    def add(self, left: int, right: int = 10) -> int:
        """Return the sum."""

    @operation
    def total(self, numbers: InPipe[int]) -> int:
        """Return the sum of what is pushed."""


class Routines:
    """Implements `Echo`."""

    def echo(self, value: Any) -> Any:
        return value

    def add(self, left: int, right: int = 10) -> int:
        return left + right

    def total(self, numbers: Any) -> int:
        return sum(numbers)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of `vectors.Echo`."""
    with Server(f"ipc://{tmp_path_factory.mktemp('vectors')}/s") as made:
        made.register(Echo, Routines())
        made.listen()
        yield made
        made.close(0)


def frames(vector: dict[str, Any]) -> list[bytes]:
    return [bytes(frame) for frame in frames_of(vector)]


def echo(raw: RawClient) -> None:
    """Have a call answered, and nothing before it but replies."""
    raw.send(*(bytes(frame) for frame in named("server", "a call")))
    heard: list[int] = []
    while 7 not in heard:
        heard += [one.id for one in replies_in(raw.hear())]


@pytest.mark.parametrize("vector", of("server"))
def test_of_a_server(server: Server, vector: dict[str, Any]) -> None:
    """It does what the file says, ends calls with the statuses that the file says, and serves the client again."""
    with RawClient(server.endpoint, greet=False) as raw:
        hello = [bytes(frame) for frame in named("server", "hello")]
        if vector["state"] != "fresh":
            raw.send(*hello)
            assert type(raw.hear()) is Welcome
        if vector["state"] == "rejected":
            raw.send(b"CP")
            assert type(raw.hear()) is Reject
        raw.send(*frames(vector))
        consequence = vector["consequence"]
        if consequence == "rejected":
            answer = raw.hear()
            assert type(answer) is Reject and answer.status == 1728 and answer.versions == [1]
        elif consequence == "welcomed":
            assert type(raw.hear()) is Welcome
        elif "answers" in vector:
            wanted: dict[int, int] = dict(vector["answers"])
            found: dict[int, int] = {}
            while len(found) < len(wanted):
                found.update({one.id: one.status for one in replies_in(raw.hear())})
            assert found == wanted
        if consequence == "rejected" or (consequence == "dropped" and vector["state"] != "open"):
            raw.send(*hello)
            assert type(raw.hear()) is Welcome
        if consequence != "ends" and "a pipe" not in vector["name"]:
            echo(raw)


@pytest.mark.parametrize("vector", of("client"))
def test_of_a_client(endpoint: str, vector: dict[str, Any]) -> None:
    """A call is served after what is taken or dropped; after what ends the conversation the client begins another, if
    the server has its version.
    """
    with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=LIMIT) as client:
        begun = client.bind("any").echo.begin("x")
        greeting = [bytes(frame) for frame in named("client", "welcome")]
        assert type(raw.hear()) is Hello
        if vector["state"] != "greeted":
            raw.send(*greeting)
            (call,) = calls_in(raw.hear())
        if vector["state"] == "rejected":
            raw.say(Reject([1], 1728))
            assert type(raw.hear()) is Hello
        raw.send(*frames(vector))
        if vector["consequence"] == "ends":
            if vector["name"] != "a refusal by a later version":
                while type(raw.hear()) is not Hello:
                    pass
                raw.send(*greeting)
            if vector["name"] == "a refusal":  # The call waits for the next server.
                assert [call.id for call in calls_in(raw.hear())] == [1]
                return
            wait_until(lambda: begun.done() or raw.socket.poll(0))
            if begun.done():
                assert begun.status() in (1722, 1726, 1727, 1728)
            else:  # Nor had it left yet.
                assert [call.id for call in calls_in(raw.hear())] == [1]
            return
        if vector["state"] == "greeted":
            if vector["consequence"] == "dropped":
                raw.send(*greeting)
            (call,) = calls_in(raw.hear())
        if vector["state"] == "rejected":
            raw.send(*greeting)
            wait_until(lambda: client.statistics().connection == "connected")
            return
        dropped = vector["consequence"] == "dropped"
        wait_until(lambda: client.statistics().garbage_received == dropped)
        if not begun.done():
            assert call.id == 1
            raw.send(*(bytes(frame) for frame in encode_replies([(call.id, "served")])))
        assert begun.wait(LIMIT)
        assert client.statistics().connections == 1
