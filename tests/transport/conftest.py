"""Fixtures of the transport's tests.

pyzmq's thread that frees large buffers is the process's: it starts before tests count threads.
"""

from collections.abc import Iterator

import pytest
import zmq

from engine import CompletionPort
from tests.transport.helpers import Party, exchange
from tests.transport.overlapped import Wires
from transport import OverlappedSocket, bind, connect


@pytest.fixture(scope="session", autouse=True)
def sent_buffers_thread() -> None:
    server = Party(bind("inproc://start-the-thread"))
    client = Party(connect("inproc://start-the-thread"))
    exchange([server, client], lambda: client.ups)
    client.send(b"", [bytes(1 << 20)])
    exchange([server, client], lambda: server.messages)
    client.close()
    server.close()


@pytest.fixture
def wires() -> Iterator[Wires]:
    """Makes sockets, which are closed at the end."""
    made = Wires()
    yield made
    made.close()


@pytest.fixture
def port() -> Iterator[CompletionPort]:
    """A port with a concurrency value of 1."""
    with CompletionPort(1) as made:
        yield made


@pytest.fixture
def peer(wires: Wires) -> "tuple[OverlappedSocket, zmq.Socket[bytes]]":
    """An overlapped socket, and the plain one that it is connected with."""
    mine, other = wires.pair()
    return wires.overlapped(mine), other
