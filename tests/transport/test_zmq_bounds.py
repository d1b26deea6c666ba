"""What a peer can do to a server over libzmq: it is bounded, its connection is ended, and no other one notices."""

import itertools
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from engine.testing import wait_until
from tests.transport.helpers import Party, exchange, settle
from tests.zmtp import Zmtp
from transport import Buffer, PeerLost, bind, connect
from transport.zmq_link import server as bounds
from transport.zmq_link.door import Pace


class House:
    """A server, and whom it has to do with."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self.parties: list[Party] = []
        self.strangers: list[Zmtp] = []
        self.server: Party

    def open(self, **options: Any) -> Party:
        self.server = Party(bind(self._endpoint, **options))
        self.parties.append(self.server)
        return self.server

    @property
    def reasons(self) -> list[str]:
        """What the server has said of those that it turned away, but for where they came from."""
        return [each.partition(": ")[2] for each in self.server.refusals]

    def stranger(self, name: bytes = b"") -> Zmtp:
        made = Zmtp(self.server.link.endpoint, name, small=True)
        self.strangers.append(made)
        return made

    def still_serves(self) -> None:
        """Another client is heard, and answered."""
        client = Party(connect(self.server.link.endpoint))
        self.parties.append(client)
        exchange(self.parties, lambda: client.ups)
        before = len(self.server.messages)
        assert client.send(b"", [b"I am honest"])
        exchange(self.parties, lambda: len(self.server.messages) > before)
        assert self.server.send(self.server.messages[-1][0], [b"so you are"])
        exchange(self.parties, lambda: client.messages)


@pytest.fixture(params=["tcp", "ipc"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    found = House(f"{request.param}://{'127.0.0.1:*' if request.param == 'tcp' else tmp_path / 's'}")
    yield found
    for stranger in found.strangers:
        stranger.close()
    for party in found.parties:
        party.close()


def test_who_does_not_speak(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is ready and has sent no message in time is disconnected; who has, stays."""
    monkeypatch.setattr(bounds, "_LOOK", 0.05)
    server = house.open(heartbeat=0, greeting_timeout=0.3)
    silent, speaking = house.stranger(), house.stranger()
    speaking.ready().say(b"hello")
    exchange([server], lambda: house.reasons)
    assert silent.ended() and house.reasons == ["it did not speak in time"]
    settle([server], 0.4)
    assert server.losses == [] and len(house.reasons) == 1


def test_connections_are_counted(house: House) -> None:
    """The one above `max_connections` is disconnected, and the others are left alone."""
    server = house.open(max_connections=2)
    for _ in range(2):
        house.stranger().ready().say(b"hello")
    exchange([server], lambda: len(server.messages) == 2)
    third = house.stranger()
    exchange([server], lambda: house.reasons)
    assert third.ended() and house.reasons == ["there are too many connections"]
    settle([server])
    assert server.losses == []


def test_connections_of_an_address() -> None:
    """The one above `max_address_connections` of its address is disconnected; from other addresses one may come."""
    server = Party(bind("tcp://127.0.0.1:*", max_address_connections=2))
    endpoint = server.link.endpoint
    try:
        with Zmtp(endpoint) as first, Zmtp(endpoint) as second:
            for each in (first, second):
                each.ready().say(b"hello")
            exchange([server], lambda: len(server.messages) == 2)
            with Zmtp(endpoint) as third, Zmtp(endpoint, host="127.0.0.2") as other:
                other.ready().say(b"hello")
                exchange([server], lambda: server.refusals and len(server.messages) == 3)
                assert third.ended() and server.losses == []
                why = "127.0.0.1: 2 connections from its address are open, max_address_connections allows no more"
                assert server.refusals == [why]
        exchange([server], lambda: len(server.losses) == 3)
        with Zmtp(endpoint) as again:
            again.ready().say(b"hello")
            exchange([server], lambda: len(server.messages) == 4)
    finally:
        server.close()


def test_they_come_at_a_pace(house: House) -> None:
    """Those of ten seconds are let in at once; the next one waits, but comes."""
    house.open(connection_rate=0.5)
    for _ in range(5):
        house.stranger().ready()
    late = house.stranger()
    late.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        late.ready()
    late.socket.settimeout(60)
    late.ready()


def test_who_would_wait_too_long() -> None:
    """It takes nobody's place, so a flood keeps nobody out for longer than it lasts; the others wait in turn."""
    pace = Pace(rate=0.5, patience=4.0)
    assert [pace.wait(1000.0) for _ in range(5)] == [0.0] * 5
    assert [pace.wait(1000.0) for _ in range(30)] == [2.0, 4.0] + [None] * 28
    assert pace.wait(1004.0) == 2.0


def test_a_number_that_a_peer_gives_itself(house: House) -> None:
    """Who announces a number as ZeroMQ gives them out is disconnected as it speaks; a name is taken."""
    server = house.open()
    liar, named = house.stranger(b"\0abcd"), house.stranger(b"named")
    for each in (liar, named):
        each.ready().say(b"hello")
    exchange([server], lambda: house.reasons and server.messages)
    assert liar.ended() and house.reasons == ["it gave itself a number as ZeroMQ gives them"]
    assert server.messages == [(b"named", [b"hello"])]
    house.still_serves()


def test_numbers_begin_anywhere(house: House) -> None:
    """Nobody can tell from one server what numbers another gives out."""
    firsts = set()
    for _ in range(2):
        server = house.open()
        house.stranger().ready().say(b"hello")
        exchange([server], lambda: server.messages)  # noqa: B023  # called in this turn
        firsts |= set(server.ups)
        house.parties.remove(server)
        server.close()
    assert len(firsts) == 2


def test_who_does_not_read(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past a bound it is given no more, and after a grace it is lost; others are served meanwhile."""
    server = house.open(max_queued_bytes=32 << 20)
    house.stranger().ready().say(b"hello")
    exchange([server], lambda: server.messages)
    (peer,) = server.ups
    sent = itertools.count()

    def has_no_room() -> bool:
        """Offer it one more. What had not left yet may have by the next time."""
        refused = not server.send(peer, [bytes(1 << 16)])
        assert next(sent) < 2000
        return refused

    def is_full() -> bool:
        return all(has_no_room() for _ in range(10))

    exchange([server], is_full)
    house.still_serves()
    exchange([server], is_full)
    monkeypatch.setattr(bounds, "GRACE", 0.0)
    exchange([server], lambda: server.losses or (has_no_room() and server.losses))
    assert server.losses == [peer] and "unread" in str(server.of("lost")[0][1])


def test_many_who_do_not_read(house: House) -> None:
    """Past the bound for all together those for which most waits are lost, as evicted; who reads is served on."""
    server = house.open(max_queued_bytes=1 << 30, max_total_bytes=64 << 20)
    reader = Party(connect(server.link.endpoint))
    house.parties.append(reader)
    exchange(house.parties, lambda: reader.ups)
    assert reader.send(b"", [b"hello"])
    exchange([server], lambda: server.messages)
    (mine,) = server.ups
    for _ in range(8):
        house.stranger().ready().say(b"hello")
    exchange([server], lambda: len(server.ups) == 9)
    others = [peer for peer in server.ups if peer != mine]
    sent = 0
    while not server.reasons:
        for peer in (*others, others[0]):  # Twice as much for one.
            with suppress(PeerLost):
                sent += server.send(peer, [bytes(1 << 18)])
        exchange(house.parties, lambda: server.send(mine, [b"more"]))
        assert sent < 500
    assert 60 << 20 < sent << 18 < 80 << 20
    assert server.evictions[0] == others[0] and mine not in server.losses
    assert re.search(r"most of the \d+ that wait for all .* max_total_bytes allows 67108864", server.reasons[0])
    house.still_serves()


def test_what_the_disconnected_have_sent(house: House) -> None:
    """It is passed over, and their loss is told when it was read; others are heard."""
    server = house.open()
    stranger = house.stranger().ready()
    stranger.say(b"hello")
    exchange([server], lambda: server.messages)
    (peer,) = server.ups
    for number in range(100):
        stranger.say(b"more", b"%d" % number)
    wait_until(server.link.ready)
    server.link.disconnect(peer, "it talks too much")
    exchange([server], lambda: server.losses)
    assert [message[0] for message in server.messages] == [peer]
    house.still_serves()


def test_what_the_disconnected_have_not_read(house: House) -> None:
    """While ZeroMQ has much of it, who has not read what it was handed is handed no more; then it is."""
    server = house.open(max_queued_bytes=1 << 30, max_total_bytes=48 << 20)
    for _ in range(2):
        house.stranger().ready().say(b"hello")
    exchange([server], lambda: len(server.ups) == 2)
    gone, other = server.ups
    for _ in range(40):
        assert server.send(gone, [bytes(1 << 20)])
    server.link.disconnect(gone, "it does not read")
    sent = 0
    while server.send(other, [bytes(1 << 18)]):
        sent += 1
        assert sent < 60, "15 MiB are more than the system takes, and a mark"
    exchange([server], lambda: server.losses)
    assert server.losses == [gone]
    assert server.send(other, [bytes(1 << 18)])


@pytest.mark.parametrize("size", [1000, 1 << 16, 1 << 20])
def test_who_reads(house: House, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """It is given more by and by, however much that is in all."""
    monkeypatch.setattr(bounds, "MARK_BYTES", 1 << 18)
    server = house.open(max_queued_bytes=32 << 20)
    client = Party(connect(server.link.endpoint))
    house.parties.append(client)
    exchange(house.parties, lambda: client.ups)
    assert client.send(b"", [b"hello"])
    exchange(house.parties, lambda: server.messages)
    (peer,) = server.ups
    count = (16 << 20) // size
    for number in range(count):
        message: list[Buffer] = [b"%d" % number + bytes(size)]
        exchange(house.parties, lambda: server.send(peer, message))  # noqa: B023  # called in this turn
    exchange(house.parties, lambda: len(client.messages) == count)
    assert not house.reasons
