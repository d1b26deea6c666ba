"""The native link and libzmq's own sockets, each in the other's place."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq

from engine.testing import LIMIT
from tests.transport.helpers import Party, exchange, settle
from transport import bind, connect

FRAMES = [b"", b"small", bytes(255), bytes(256), os.urandom(40_000), os.urandom(3 << 20)]


@pytest.fixture
def zeromq() -> Iterator[Callable[[int], Any]]:
    """A function that makes a socket of libzmq's; they are closed with the test."""
    with ExitStack() as made:
        context = made.enter_context(zmq.Context())

        def make(kind: int) -> Any:
            new = made.enter_context(context.socket(kind))
            new.setsockopt(zmq.LINGER, 0)
            new.setsockopt(zmq.IPV6, 1)
            new.setsockopt(zmq.RCVTIMEO, int(LIMIT * 1000))
            return new

        yield make


@pytest.fixture(params=["tcp", "tcp6", "ipc", "abstract"])
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An endpoint of ZeroMQ's that nobody uses."""
    if request.param == "tcp6" and not has_ipv6():
        pytest.skip("there is no IPv6 here")
    return {
        "tcp": "tcp://127.0.0.1:*",
        "tcp6": "tcp://[::1]:*",
        "ipc": f"ipc://{tmp_path}/s",
        "abstract": f"ipc://@callport-interop-{os.getpid()}",
    }[str(request.param)]


def has_ipv6() -> bool:
    """Whether this machine has a loopback address of IPv6."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.fixture
def parties() -> Iterator[list[Party]]:
    """Links, to be closed with the test."""
    made: list[Party] = []
    yield made
    for party in made:
        party.close()


def served(parties: list[Party], endpoint: str, **options: Any) -> tuple[Party, str]:
    """A native server, and where libzmq finds it."""
    server = Party(bind(f"native+{endpoint}", **options))
    parties.append(server)
    return server, server.link.endpoint.removeprefix("native+")


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ])
def test_a_client_of_libzmq(kind: int, zeromq: Callable[[int], Any], endpoint: str, parties: list[Party]) -> None:
    """A native server takes and answers its messages, frames as they were, whatever it calls itself."""
    server, where = served(parties, endpoint)
    peers = zeromq(kind)
    peers.routing_id = b"\1 a name"
    peers.connect(where)
    envelope = [b""] if kind == zmq.REQ else []
    for turn, frames in enumerate(([b"hello"], FRAMES, [b"last"])):
        peers.send_multipart(frames, copy=False)
        exchange([server], lambda: len(server.messages) > turn)  # noqa: B023  # called in this turn
        peer, got = server.messages[turn]
        assert got == [*envelope, *frames]
        assert server.send(peer, [*envelope, *frames])
        answered: list[bytes] = []

        def answer() -> bool:
            if peers.poll(10):
                answered[:] = peers.recv_multipart()  # noqa: B023  # called in this turn
            return bool(answered)  # noqa: B023  # called in this turn

        exchange([server], answer)
        assert answered == frames
    assert len(server.ups) == 1
    peers.close()
    exchange([server], lambda: server.losses)


def test_a_server_of_libzmq(zeromq: Callable[[int], Any], endpoint: str, parties: list[Party]) -> None:
    """A ROUTER takes a native client's messages, and answers them; the client comes again when it does."""
    router = zeromq(zmq.ROUTER)
    router.bind(endpoint)
    where = router.get_string(zmq.LAST_ENDPOINT)
    client = Party(connect(f"native+{where}"))
    parties.append(client)
    exchange([client], lambda: client.ups)
    for turn, frames in enumerate((FRAMES, [b"last"])):
        assert client.send(b"", list(frames))
        got: list[bytes] = []

        def hear() -> bool:
            if router.poll(10):
                got[:] = router.recv_multipart()  # noqa: B023  # called in this turn
            return bool(got)  # noqa: B023  # called in this turn

        exchange([client], hear)
        assert got[1:] == frames
        router.send_multipart(got, copy=False)
        exchange([client], lambda: len(client.messages) > turn)  # noqa: B023  # called in this turn
        assert client.messages[turn] == (b"", frames)
    router.close()
    exchange([client], lambda: client.losses)
    again = zeromq(zmq.ROUTER)
    exchange([client], lambda: _bound(again, where))
    exchange([client], lambda: len(client.ups) == 2)


def _bound(socket: "zmq.Socket[bytes]", endpoint: str) -> bool:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError:  # It is given free in the background.
        return False
    return True


def test_heartbeats(zeromq: Callable[[int], Any], endpoint: str, parties: list[Party]) -> None:
    """Each side answers the other's PINGs, and neither takes the other for dead."""
    server, where = served(parties, endpoint, heartbeat=0.4)
    dealer, router = zeromq(zmq.DEALER), zeromq(zmq.ROUTER)
    for each in (dealer, router):
        each.setsockopt(zmq.HEARTBEAT_IVL, 400)
        each.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3000)
        each.setsockopt(zmq.HEARTBEAT_TTL, 3000)
    dealer.connect(where)
    dealer.send(b"hello")
    router.bind("tcp://127.0.0.1:*")
    client = Party(connect(f"native+{router.get_string(zmq.LAST_ENDPOINT)}", heartbeat=0.4))
    parties.append(client)
    exchange([server, client], lambda: server.ups and client.ups)
    settle([server, client], 2.0)
    assert (server.of("lost"), client.of("lost")) == ([], [])
    assert client.send(b"", [b"alive"])
    assert router.recv_multipart()[1] == b"alive"


def test_a_peer_that_answers_no_ping(endpoint: str, parties: list[Party]) -> None:
    """It is lost after three: here nobody harvests the client."""
    server = Party(bind(f"native+{endpoint}", heartbeat=0.05))
    client = Party(connect(server.link.endpoint, heartbeat=0))
    parties += [server, client]
    exchange([server, client], lambda: client.ups)
    assert client.send(b"", [b"my only words"])
    exchange([server], lambda: server.losses)
    assert "was not heard" in str(server.of("lost")[0][1])
