"""Servers that know who calls, beside others that do not: each decides for itself, in one process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import zmq

from engine import Server
from engine.testing import wait_until
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

        def start(**options: Any) -> Server:
            server = stack.enter_context(Server("tcp://127.0.0.1:*", workers=1, **options))
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
