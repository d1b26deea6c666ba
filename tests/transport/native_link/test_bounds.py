"""What a peer can do to a native server: it is bounded, its connection is closed, and no other one notices."""

import os
import re
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.transport.helpers import Party, exchange, settle
from transport import EndpointError, PeerLost, bind, connect
from transport.native_link import server as bounds
from transport.native_link.framing import GREETING_BYTES, command, head, hello, in_frames, ping


class House:
    """A native server, and whom it has to do with."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.parties: list[Party] = []
        self.strangers: list[socket.socket] = []
        self.server: Party

    def open(self, **options: Any) -> Party:
        self.server = Party(bind(self.endpoint, **options))
        self.parties.append(self.server)
        return self.server

    def client(self) -> Party:
        client = Party(connect(self.server.link.endpoint))
        self.parties.append(client)
        exchange(self.parties, lambda: client.ups)
        return client

    def stranger(self, says: bytes = b"") -> socket.socket:
        """A bare socket, connected, that has sent this."""
        where = self.server.link.endpoint.partition("://")[2]
        if self.endpoint.startswith("native+ipc"):
            made = socket.socket(socket.AF_UNIX)
            made.connect(where)
        else:
            host, _, port = where.rpartition(":")
            made = socket.create_connection((host, int(port)))
        self.strangers.append(made)
        made.setblocking(False)
        assert made.send(says) == len(says)
        return made

    def stranger_from(self, address: str, says: bytes) -> None:
        """Likewise, from another address of this machine."""
        host, _, port = self.server.link.endpoint.partition("://")[2].rpartition(":")
        made = socket.create_connection((host, int(port)), source_address=(address, 0))
        self.strangers.append(made)
        made.sendall(says)

    def ended(self, stranger: socket.socket) -> bool:
        """Whether the server has closed its connection."""
        try:
            while stranger.recv(1 << 20):
                pass
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def still_serves(self) -> None:
        """Another client is heard, and answered."""
        client = self.client()
        before = len(self.server.messages)
        assert client.send(b"", [b"I am honest"])
        exchange(self.parties, lambda: len(self.server.messages) > before)
        assert self.server.send(self.server.messages[-1][0], [b"so you are"])
        exchange(self.parties, lambda: client.messages)


@pytest.fixture(params=["native+tcp", "native+ipc"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    found = House(f"{request.param}://{'127.0.0.1:*' if 'tcp' in request.param else tmp_path / 's'}")
    yield found
    for stranger in found.strangers:
        stranger.close()
    for party in found.parties:
        party.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server looks often, and is not patient with who reads slowly."""
    monkeypatch.setattr(bounds, "GRACE", 0.05)
    monkeypatch.setattr(bounds, "LOOK", 0.05)


def server_side_of(stranger: socket.socket) -> str:
    """What a server calls a peer of this process."""
    if stranger.family == socket.AF_INET:
        return "127.0.0.1"
    return f"localhost:{os.getuid()}:{os.getgid()}:{os.getpid()}"


TOO_MUCH: dict[str, Callable[[], bytes]] = {
    "no ZMTP": lambda: b"GET / HTTP/1.1\r\n\r\n",
    "a frame larger than memory": lambda: hello(b"DEALER") + head(1 << 62),
    "a first message too large": lambda: hello(b"DEALER") + head(100_000),
    "a frame too large": lambda: hello(b"DEALER") + b"\0\5hello" + head(2_000_000),
    "a message without end": lambda: hello(b"DEALER") + b"\0\5hello" + head(0, more=True) * 100_000,
    "a large message without end": lambda: (
        hello(b"DEALER") + b"\0\5hello" + (head(500_000, more=True) + bytes(500_000)) * 5
    ),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_too_much(house: House, name: str) -> None:
    """It is disconnected at once, and nothing of it is delivered; others are served."""
    server = house.open(max_message_bytes=1_000_000)
    stranger, data, sent = house.stranger(), TOO_MUCH[name](), 0

    def send() -> bool:
        nonlocal sent
        try:
            sent += stranger.send(data[sent : sent + 100_000])
        except BlockingIOError:
            return False
        except OSError:
            return True
        return sent == len(data)

    exchange([server], send)
    exchange([server], lambda: house.ended(stranger))
    assert [frames for _, frames in server.messages if frames != [b"hello"]] == []
    assert server.losses == server.ups
    house.still_serves()


@pytest.mark.parametrize("says", [b"", hello(b"DEALER")[:20], hello(b"DEALER"), hello(b"DEALER") + b"\1\1x"])
def test_who_does_not_speak(house: House, says: bytes) -> None:
    """Who has sent no whole message in time is disconnected, whatever of the greeting it has sent."""
    server = house.open(heartbeat=0, greeting_timeout=0.05)
    stranger = house.stranger(says)
    exchange([server], lambda: house.ended(stranger))
    assert server.refusals == [f"{server_side_of(stranger)}: it did not speak in time"] and not server.ups


def test_connections_are_counted(house: House) -> None:
    """No more than so many are there at once; who comes then waits until one of them goes."""
    server = house.open(max_connections=2)
    one, _ = house.client(), house.client()
    third = Party(connect(server.link.endpoint))
    house.parties.append(third)
    exchange(house.parties, lambda: server.refusals)
    assert server.refusals[0] == "2 connections are open, max_connections allows no more: new connections wait"
    assert not third.ups
    house.parties.remove(one)
    one.close()
    exchange(house.parties, lambda: third.ups)


def test_connections_of_an_address() -> None:
    """The one above `max_address_connections` of its address is closed at once, and told of; others are not affected,
    and once one has gone another may come.
    """
    house = House("native+tcp://127.0.0.1:*")
    server = house.open(max_address_connections=2)
    try:
        says = hello(b"DEALER") + b"".join(bytes(piece) for piece in in_frames([b"hello"]))
        here = [house.stranger(says) for _ in range(2)]
        exchange([server], lambda: len(server.messages) == 2)
        third = house.stranger()
        exchange([server], lambda: server.refusals)
        assert house.ended(third) and server.vain == [True]
        why = "127.0.0.1: 2 connections from its address are open, max_address_connections allows no more"
        assert server.refusals == [why]
        house.stranger_from("127.0.0.2", says)
        exchange([server], lambda: len(server.messages) == 3)
        here[0].close()
        exchange([server], lambda: len(server.losses) == 1)
        house.still_serves()
    finally:
        for stranger in house.strangers:
            stranger.close()
        for party in house.parties:
            party.close()


def test_few_descriptors(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes then waits; whoever operates the server is told why."""
    monkeypatch.setattr(bounds, "to_keep", lambda: 5)
    monkeypatch.setattr(bounds, "left", lambda: 4)
    server = house.open()
    house.client()
    exchange(house.parties, lambda: server.refusals)
    assert re.match(r"only 4 of \d+ file descriptors are left .*: new connections wait$", server.refusals[0])
    waiting = Party(connect(server.link.endpoint))
    house.parties.append(waiting)
    settle(house.parties, 0.1)
    monkeypatch.setattr(bounds, "left", lambda: 100)
    exchange(house.parties, lambda: waiting.ups)


def test_who_does_not_read(house: House) -> None:
    """What waits for it is bounded: past that it is lost, and `send` says so. Nobody else waits for it."""
    server = house.open(max_queued_bytes=1 << 20)
    house.stranger(hello(b"DEALER") + b"".join(bytes(piece) for piece in in_frames([b"hello"])))
    exchange([server], lambda: server.messages)
    peer = server.messages[0][0]
    with pytest.raises(PeerLost):
        for _ in range(1000):
            assert server.send(peer, [os.urandom(1 << 16)])
    exchange([server], lambda: server.losses)
    assert re.match(r"it left \d+ bytes unread, max_queued_bytes allows 1048576$", str(server.of("lost")[0][1]))
    assert server.evictions == server.losses and server.link.queued_bytes == 0
    house.still_serves()


def test_one_message_may_be_larger(house: House) -> None:
    """The bound is about what waits already: a message that is larger than it reaches who reads it."""
    server = house.open(max_queued_bytes=1000, max_total_bytes=20 << 20)
    client = house.client()
    assert client.send(b"", [b"hello"])
    exchange(house.parties, lambda: server.messages)
    assert server.send(server.ups[0], [bytes(10 << 20)])
    assert server.link.queued_bytes > 1000
    exchange(house.parties, lambda: client.messages)
    assert server.link.queued_bytes == 0


def test_many_who_do_not_read(house: House) -> None:
    """What waits for all together is bounded: past that it is who has most that is lost, and the others are served."""
    server = house.open(max_queued_bytes=1 << 30, max_total_bytes=128 << 20)
    client = house.client()
    for number in range(5):
        house.stranger(hello(b"DEALER") + head(1) + b"%d" % number)
    exchange(house.parties, lambda: len(server.messages) == 5)
    greedy = server.messages[0][0]
    # The system takes some megabytes of each.
    assert server.send(greedy, [bytes(100 << 20)])
    for peer in [peer for peer in server.ups if peer != greedy][:3]:
        assert server.send(peer, [bytes(40 << 20)])
        assert server.link.queued_bytes <= 128 << 20
    exchange(house.parties, lambda: server.losses)
    assert server.evictions == [greedy]
    assert re.search(r"most of the \d+ that wait for all .* max_total_bytes allows 134217728", server.reasons[0])
    assert client.send(b"", [b"hello"])
    exchange(house.parties, lambda: len(server.messages) == 6)


def test_who_asks_and_does_not_hear(house: House) -> None:
    """Answers to its PINGs do not heap up."""
    server = house.open()
    stranger = house.stranger(hello(b"DEALER") + b"\0\5hello")
    pings, sent = command(b"PING", bytes(18)) * 3000, 0

    def flood() -> bool:
        nonlocal sent
        with suppress(BlockingIOError):
            sent += stranger.send(pings[sent % 25 :])
        return sent > 4 << 20

    exchange([server], flood)
    assert server.link.queued_bytes < 200_000 and server.losses == []
    house.still_serves()


@pytest.mark.usefixtures("soon")
def test_who_reads_slowly(house: House) -> None:
    """Who leaves much unread, and takes next to nothing of it, is disconnected, though nothing more is sent to it."""
    server = house.open(heartbeat=0, max_queued_bytes=1 << 20)
    house.stranger(hello(b"DEALER") + b"\0\5hello")
    exchange([server], lambda: server.messages)
    assert server.send(server.messages[0][0], [bytes(40 << 20)])
    exchange([server], lambda: server.losses)
    assert re.match(r"it left \d+ bytes unread, and took 0 in 0.05 s", server.reasons[0])
    assert server.evictions == server.losses


@pytest.mark.usefixtures("soon")
def test_who_takes_its_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who goes on reading keeps its connection, however long it takes for all of it."""
    monkeypatch.setattr(bounds, "SLOW_RATE", 1)
    now = time.monotonic()
    monkeypatch.setattr("transport.native_link.base.monotonic", lambda: now)
    server = house.open(heartbeat=0, max_queued_bytes=1 << 20)
    stranger = house.stranger(hello(b"DEALER") + b"\0\5hello")
    exchange([server], lambda: server.messages)
    assert server.send(server.messages[0][0], [bytes(40 << 20)])
    got, looked, rest = 0, 0, server.link.queued_bytes

    def slowly() -> bool:
        nonlocal got, looked, now, rest
        # As much as shows at the server, once in each of its looks.
        while server.link.queued_bytes == rest and rest:
            try:
                got += len(stranger.recv(1 << 16))
            except BlockingIOError:
                break
            server.harvest()
        rest = server.link.queued_bytes
        now += 0.06
        while server.harvest():
            pass
        looked += 1
        return looked == 5

    exchange([server], slowly)
    assert server.losses == [] and rest > 1 << 20


def test_what_nobody_read_is_given_back(house: House) -> None:
    """The memory of what waited for a peer that was disconnected is free at once."""
    server = house.open(max_queued_bytes=20 << 20)
    house.stranger(hello(b"DEALER") + b"\0\5hello")
    exchange([server], lambda: server.messages)
    tracemalloc.start()
    try:
        with pytest.raises(PeerLost):
            while server.send(server.ups[0], [bytes(100_000)]):
                pass
        exchange([server], lambda: server.losses)
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak > 20 << 20 and left < 1 << 20


def test_a_peer_is_disconnected(house: House) -> None:
    """At once: it is lost on both sides, and its client comes as another peer."""
    server = house.open()
    client = house.client()
    assert client.send(b"", [b"hello"])
    exchange(house.parties, lambda: server.messages)
    (peer,) = server.ups
    link: Any = server.link
    with link.lock:
        link.disconnect(peer, "disconnected")
        link.disconnect(peer, "disconnected")
        link.disconnect(b"nobody", "disconnected")
    with pytest.raises(PeerLost):
        server.send(peer, [b"too late"])
    exchange(house.parties, lambda: len(client.ups) == 2 and server.losses == [peer])
    house.still_serves()


def test_a_peer_that_goes_in_the_midst_of_a_message(house: House) -> None:
    """What was whole is delivered, the rest is not."""
    server = house.open()
    stranger = house.stranger(hello(b"DEALER") + b"\0\5hello" + head(1 << 20) + bytes(50_000))
    stranger.close()
    exchange([server], lambda: server.losses)
    assert [frames for _, frames in server.messages] == [[b"hello"]]


def test_keys_are_refused(house: House) -> None:
    """A link that would leave them unused is not opened."""

    class Keys:
        def apply_to_server(self, socket: object) -> None:
            raise AssertionError("nobody asks")

    with pytest.raises(EndpointError, match="keys"):
        house.open(curve=Keys())


@pytest.mark.parametrize("closing", ["server", "client"])
def test_what_was_handed_over_leaves(house: House, closing: str) -> None:
    """A link that is closed sends what it had taken, though the other side reads it later."""
    server = house.open(linger=60.0)
    client = Party(connect(server.link.endpoint, linger=60.0))
    house.parties.append(client)
    exchange(house.parties, lambda: client.ups)
    assert client.send(b"", [b"hello"])
    exchange(house.parties, lambda: server.messages)
    large = os.urandom(30 << 20)
    party, other, peer = (server, client, server.ups[0]) if closing == "server" else (client, server, b"")
    assert party.send(peer, [b"large", large]) and party.send(peer, [b"last"])
    house.parties.remove(party)
    party.close()
    exchange([other], lambda: other.losses)
    assert [frames for _, frames in other.messages if frames != [b"hello"]] == [[b"large", large], [b"last"]]


def test_a_name_that_a_peer_gives_itself(house: House) -> None:
    """It counts for nothing: two that say the same, even that of another peer, are two peers; others are served."""
    server = house.open()
    client = house.client()
    assert client.send(b"", [b"mine"])
    exchange(house.parties, lambda: server.messages)
    (name,) = server.ups
    described = b"\x0bSocket-Type\0\0\0\6DEALER\x08Identity" + len(name).to_bytes(4) + name
    for _ in range(2):
        house.stranger(hello(b"DEALER")[:GREETING_BYTES] + command(b"READY", described) + b"\0\5hello")
    exchange(house.parties, lambda: len(server.messages) == 3)
    assert len(set(server.ups)) == 3 and server.losses == []
    assert server.send(name, [b"yours"])
    exchange(house.parties, lambda: client.messages)
    house.still_serves()


def test_who_dies_while_nobody_looks(house: House) -> None:
    """What it had sent by then, messages and PINGs, is read once somebody does; then it is lost."""
    server = house.open()
    house.stranger(hello(b"DEALER") + (b"\0\5hello" + ping(15)) * 1000).close()
    exchange([server], lambda: server.losses)
    assert len(server.messages) == 1000
    house.still_serves()
