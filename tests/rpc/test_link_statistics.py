"""What clients and servers tell of the link that carries their messages."""

import socket
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest

from engine import Client, Server
from engine.testing import wait_until
from transport.frames import Hello, Target
from transport.native_link.framing import hello, in_frames
from transport.wire.codec import encode

from ..certificates import folder as certificates
from ..certificates import for_client
from ..garbage import calls
from ..one_by_one import one_call
from .helpers import Bench
from .interfaces import Probe

ECHO = Target("test.Probe", 1, 2, "echo")
KINDS = {"native+tcp": "native", "native+ipc": "native", "tls": "tls", "loopback": "loopback"}


def test_which_link(any_bench: Bench) -> None:
    """The statistics of a client name its link, and so does its `repr`."""
    any_bench.probe.nothing()
    kind = KINDS.get(any_bench.endpoint.partition("://")[0], "zmq")
    assert any_bench.client.statistics().link == kind
    assert f" link={kind} " in repr(any_bench.client)


def test_links_of_a_server(servers: Callable[..., Server]) -> None:
    """Those of a server name the link of each endpoint, once it listens."""
    server = servers("tcp://127.0.0.1:*", "native+tcp://127.0.0.1:*", "loopback://links")
    assert server.statistics().link == "" and "link=" not in repr(server)
    server.listen()
    assert server.statistics().link == "zmq, native, loopback"
    assert " link=zmq, native, loopback " in repr(server)


@pytest.mark.parametrize("transport", ["native+tcp", "tls"])
def test_strangers_are_counted(
    local: Callable[..., Server], clients: Callable[..., Client], caplog: pytest.LogCaptureFixture, transport: str
) -> None:
    """Who is refused is counted and logged, with what it did; clients are counted while they are there."""
    if transport == "tls":
        certificates()
    server = local(f"{transport}://127.0.0.1:*")
    port = int(server.endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        wait_until(lambda: server.statistics().strangers_refused == 1)
    wait_until(lambda: "refused a connection from 127.0.0.1: " in caplog.text and "it does not speak" in caplog.text)
    client = clients(server.endpoint, **for_client(server.endpoint))
    client.bind(Probe).nothing()
    assert (server.statistics().clients, server.statistics().strangers_refused) == (1, 1)
    client.close()
    wait_until(lambda: server.statistics().clients == 0)


def test_who_does_not_read_is_counted(local: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    """A client that leaves too much unread is disconnected: counted, and logged with the bound."""
    server = local("native+tcp://127.0.0.1:*", max_queued_bytes=1 << 20)
    port = int(server.endpoint.rpartition(":")[2])
    data = msgspec.Raw(msgspec.msgpack.encode([bytes(60_000)]))
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(hello(b"DEALER") + b"".join(in_frames(encode(Hello(bytes(16), pid=1, host="raw")))))
        with suppress(OSError):  # It is closed in the midst of it.
            for number in range(1, 1000):
                client.sendall(b"".join(in_frames([calls(one_call(number, 0, data), targets=(ECHO,))])))
        wait_until(lambda: server.statistics().clients_evicted == 1)
    wait_until(lambda: "max_queued_bytes allows 1048576" in caplog.text)
    assert "disconnected the client at 127.0.0.1: it left " in caplog.text
    assert (server.statistics().clients, server.statistics().queued_bytes) == (0, 0)
