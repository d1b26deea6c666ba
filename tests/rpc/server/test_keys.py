"""Servers that know who calls, beside others that do not: each decides for itself, in one process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq

from engine import Call, Client, Server
from engine.testing import LIMIT, Gate, wait_until
from tests.transport.helpers import Party, exchange
from transport import Curve, EndpointError, connect

Keys = tuple[str, str]


class Routines:
    """Answers."""

    def echo(self, value: int) -> int:
        return value


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """A function that starts a server with these options."""
    with ExitStack() as stack:

        def start(endpoint: str = "tcp://127.0.0.1:*", **options: Any) -> Server:
            server = stack.enter_context(Server(endpoint, workers=1, **options))
            server.register("r", Routines())
            server.listen()
            return server

        yield start


@pytest.fixture
def keys() -> dict[str, Keys]:
    return {name: Curve.new_keys() for name in ("server", "other", "friend", "stranger")}


def admitted(server: Server, mine: Keys | None = None, its: Keys | None = None) -> bool:
    """Whether a client with these keys is."""
    curve = None if mine is None or its is None else Curve(*mine, server_key=its[0])
    client = Party(connect(server.endpoint, curve=curve))
    try:
        exchange([client], lambda: client.ups or client.refusals)
        return bool(client.ups)
    finally:
        client.close()


class TestNeighbours:
    """A list of allowed clients is its own server's alone."""

    def test_others_take_everybody(self, serve: Callable[..., Server], keys: dict[str, Keys]) -> None:
        """A server without a list takes whoever knows its key, and one without keys everybody, beside one with a list;
        before that one listens, while it does and after it was closed.
        """
        before = serve(curve=Curve(*keys["other"]))
        listed = serve(curve=Curve(*keys["server"], allowed=frozenset({keys["friend"][0]})))
        after, plain = serve(curve=Curve(*keys["other"])), serve()

        def others_do() -> bool:
            friend, stranger, other = keys["friend"], keys["stranger"], keys["other"]
            return admitted(plain) and all(
                admitted(server, mine, other) for server in (before, after) for mine in (friend, stranger)
            )

        assert others_do()
        assert admitted(listed, keys["friend"], keys["server"])
        assert not admitted(listed, keys["stranger"], keys["server"])
        listed.close()
        assert others_do()

    def test_each_has_its_own_list(self, serve: Callable[..., Server], keys: dict[str, Keys]) -> None:
        """Two lists in one process: a client of one is a stranger to the other; closing one leaves the other's."""
        here = serve(curve=Curve(*keys["server"], allowed=frozenset({keys["friend"][0]})))
        there = serve(curve=Curve(*keys["other"], allowed=frozenset({keys["stranger"][0]})))
        assert admitted(here, keys["friend"], keys["server"])
        assert not admitted(there, keys["friend"], keys["other"])
        here.close()
        assert admitted(there, keys["stranger"], keys["other"])
        assert not admitted(there, keys["friend"], keys["other"])

    def test_contexts_of_the_users(self, serve: Callable[..., Server], keys: dict[str, Keys]) -> None:
        """Lists work in contexts of the user's too, several in one; after the last server the context terminates, and
        no thread is left.
        """
        threads = threading.active_count()
        friend = frozenset({keys["friend"][0]})
        with zmq.Context() as one, zmq.Context() as another:
            curve = Curve(*keys["server"], allowed=friend)
            servers = [serve(curve=curve, context=each) for each in (one, one, another)]
            for server in servers:
                assert admitted(server, keys["friend"], keys["server"])
                assert not admitted(server, keys["stranger"], keys["server"])
            for server in servers:
                server.close()
        wait_until(lambda: threading.active_count() <= threads)

    def test_a_handler_of_the_users(self, serve: Callable[..., Server], keys: dict[str, Keys]) -> None:
        """Where the user's own authenticator answers for the context, a list is refused with the reason; servers
        without a list are not its business.
        """
        with zmq.Context() as context, context.socket(zmq.REP) as handler:
            handler.bind("inproc://zeromq.zap.01")
            with pytest.raises(EndpointError, match="another ZAP handler"):
                serve(curve=Curve(*keys["server"], allowed=frozenset()), context=context)
            server = serve(curve=Curve(*keys["server"]), context=context)
            assert admitted(server, keys["friend"], keys["server"])
            server.close()


@pytest.fixture
def call(keys: dict[str, Keys]) -> Iterator[Callable[..., Call[Any]]]:
    """A function that begins a call by a client of its own: one with the friend's keys, or with none."""
    with ExitStack() as stack:

        def begin(server: Server, who: str = "friend") -> Call[Any]:
            curve = Curve(*keys[who], server_key=keys["server"][0]) if who else None
            client = stack.enter_context(Client(server.endpoint, curve=curve, connect_timeout=LIMIT))
            return client.bind("r").echo.begin(7)

        yield begin


class TestAsking:
    """Who is allowed may be asked of a function, which may take long."""

    @pytest.fixture
    def gate(self) -> Iterator[Gate]:
        made = Gate()
        yield made
        made.open()

    def test_one_that_blocks(
        self, serve: Callable[..., Server], keys: dict[str, Keys], call: Callable[..., Call[Any]], gate: Gate
    ) -> None:
        """It holds up the clients of its own server, and of no other one in the process, whoever that one takes."""
        asked = serve(curve=Curve(*keys["server"], allowed=lambda key: gate.pass_through() is None))
        waiting = call(asked)
        gate.wait_for_arrivals()
        friend = frozenset({keys["friend"][0]})
        for other in (
            serve(curve=Curve(*keys["server"], allowed=friend)),
            serve(curve=Curve(*keys["server"], allowed=lambda key: key in friend)),
            serve(curve=Curve(*keys["server"])),
        ):
            assert call(other).result(LIMIT) == 7
        assert call(serve(), "").result(LIMIT) == 7
        assert not waiting.done()
        gate.open()
        assert waiting.result(LIMIT) == 7

    def test_a_server_that_is_closed_meanwhile(
        self, serve: Callable[..., Server], keys: dict[str, Keys], call: Callable[..., Call[Any]], gate: Gate
    ) -> None:
        """It closes, though the function has not returned; the next one there takes who waited. An answer that comes
        after that lets nobody in.
        """
        asked = serve(curve=Curve(*keys["server"], allowed=lambda key: gate.pass_through() is None))
        waiting, stranger = call(asked), call(asked, "stranger")
        gate.wait_for_arrivals()
        asked.close()
        other = serve(asked.endpoint, curve=Curve(*keys["server"], allowed=frozenset({keys["friend"][0]})))
        assert waiting.result(LIMIT) == 7
        gate.open()
        assert call(other).result(LIMIT) == 7
        assert not stranger.done() and len(other.peers) == 2

    def test_a_thread_that_ends_late(
        self,
        serve: Callable[..., Server],
        keys: dict[str, Keys],
        call: Callable[..., Call[Any]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Nothing depends on how soon the thread that answers ends: the next server's door is opened all the same."""
        monkeypatch.setattr("transport.zmq_link.door._ENDING", 0.0)
        curve = Curve(*keys["server"], allowed=frozenset({keys["friend"][0]}))
        for _ in range(100):
            serve(curve=curve).close()
        assert call(serve(curve=curve)).result(LIMIT) == 7

    def test_many_that_wait(
        self,
        serve: Callable[..., Server],
        keys: dict[str, Keys],
        call: Callable[..., Call[Any]],
        gate: Gate,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """How many are asked about is bounded; the others are let in later."""
        monkeypatch.setattr("transport.zmq_link.door.MOST_QUESTIONS", 2)
        curve = Curve(*keys["server"], allowed=lambda key: gate.pass_through() is None)
        asked = serve(curve=curve, greeting_timeout=1.0)  # After which ZeroMQ ends the connection of one put off.
        waiting = [call(asked) for _ in range(8)]
        gate.wait_for_arrivals()
        assert not any(each.done() for each in waiting)
        gate.open()
        assert [each.result(LIMIT) for each in waiting] == [7] * 8

    def test_one_that_fails(
        self, serve: Callable[..., Server], keys: dict[str, Keys], call: Callable[..., Call[Any]]
    ) -> None:
        """While it raises nobody is let in; then who waited is."""
        asked: list[str] = []

        def fail_at_first(key: str) -> bool:
            asked.append(key)
            if len(asked) < 3:
                raise OSError("the list cannot be read now")
            return True

        server = serve(curve=Curve(*keys["server"], allowed=fail_at_first), greeting_timeout=0.5)
        assert call(server).result(LIMIT) == 7 and len(asked) >= 3


class TestChanges:
    """A list that changes while the server runs."""

    def test_a_file(
        self, serve: Callable[..., Server], keys: dict[str, Keys], call: Callable[..., Call[Any]], tmp_path: Path
    ) -> None:
        """Who is added is let in, by itself, while it waits; who is taken out is not let in again, and stays until it
        is disconnected.
        """
        path, mine = tmp_path / "allowed", keys["friend"][0]
        path.write_text("# nobody yet\n")
        server = serve(curve=Curve(*keys["server"], allowed=path))
        assert not admitted(server, keys["friend"], keys["server"])
        waiting = call(server)
        path.write_text(f"{mine} the friend\n")
        assert waiting.result(LIMIT) == 7
        (peer,) = server.peers
        assert peer.principal == mine
        path.write_text("# nobody any more\n")
        assert not admitted(server, keys["friend"], keys["server"])
        assert [each.id for each in server.peers] == [peer.id]
        assert server.disconnect(peer)
        wait_until(lambda: not server.peers)
        assert not admitted(server, keys["friend"], keys["server"])
