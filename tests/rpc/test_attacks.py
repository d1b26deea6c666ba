"""Attacks on a server in a process of its own, over each link that others reach; `docs/security.md` has them all."""

import os
import re
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine import Client, CompletionPort, RemoteFault
from engine.testing import LIMIT, wait_until
from transport.frames import Blob, CallGroup, CallOptions, Hello, Kind, Reject, Target
from transport.native_link.framing import hello, in_frames, ping
from transport.wire.codec import decode, encode

from ..certificates import client_context
from ..garbage import calls, prefix
from ..one_by_one import one_call, replies_in
from ..zmtp import Zmtp
from .helpers import Bench, RawClient, Service, new_endpoint, status_of
from .interfaces import Probe

Services = Callable[..., Service]
MIB = 1024 * 1024


@pytest.fixture(params=["tcp", "native+tcp", "tls"])
def victim(request: pytest.FixtureRequest, service: Services, folder: Path) -> Service:
    """The server that is attacked."""
    return service(new_endpoint(request.param, folder))


class Usage:
    """What a process has used since: seconds of processors, and bytes of memory at its highest."""

    def __init__(self, service: Service) -> None:
        self._process = Path("/proc") / str(service.pid)
        if not self._process.exists():
            pytest.skip("what a process uses is read from /proc")
        self._seconds, self._bytes = self._read()

    def _read(self) -> tuple[float, int]:
        ticks = (self._process / "stat").read_text().rpartition(")")[2].split()[11:13]
        peak = next(line for line in (self._process / "status").read_text().splitlines() if line.startswith("VmHWM"))
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), int(peak.split()[1]) * 1024

    def since(self) -> tuple[float, int]:
        seconds, peak = self._read()
        return seconds - self._seconds, peak - self._bytes


def array_of(count: int) -> bytes:
    """The head of an array of so many elements."""
    return b"\xdd" + count.to_bytes(4)


def bombs(size: int) -> list[bytes]:
    """Messages of about that size that take long to decode."""
    return [
        prefix(Kind.CALLS) + b"\x92" + array_of(size // 6) + b"\x93\0\x91\0\x91\x90" * (size // 6) + b"\x90",
        prefix(Kind.CALLS) + b"\x92\x91\x93\0\x91\0\x91\x90" + array_of(size // 5) + b"\x94\xa0\0\0\xa0" * (size // 5),
        prefix(Kind.CANCEL) + b"\x91" + array_of(size // 3) + b"\x92\0\xc3" * (size // 3),
        prefix(Kind.CREDIT) + b"\x91" + array_of(size // 4) + b"\x93\0\0\0" * (size // 4),
        prefix(Kind.CALLS) + b"\x92\x91\x93\0\x91\0\x91\x91" + array_of(size) + b"\x90" * size + b"\x90",
    ]


LINKS = ("tcp", "ipc", "native+tcp", "native+ipc")


@pytest.fixture(params=LINKS)
def busy(request: pytest.FixtureRequest, service: Services, folder: Path) -> Service:
    """A server with routines that are slow, stick, or answer at length."""
    return service(new_endpoint(request.param, folder), module="tests.rpc.victim", max_calls=MAX_CALLS)


MAX_CALLS = 1000


def victim_of(client: Client) -> Any:
    """Its routines."""
    return client.bind("victim")


class TestT1:
    """Peers that give themselves the numbers that libzmq gives out."""

    def test_the_next_number(self, busy: Service) -> None:
        """The numbers that every process began with, and those after it, are nobody's: the server goes on."""
        with ExitStack() as made:
            for later in range(5, 10):
                made.enter_context(Zmtp(busy.endpoint, b"\0" + (FIRST + later).to_bytes(4)).ready())
            for _ in range(20):
                made.enter_context(Zmtp(busy.endpoint).greet())
            with Client(busy.endpoint) as client:
                assert victim_of(client).echo("served") == "served"


# What C's `rand` returns first, unless it is seeded.
FIRST = 0x6B8B4567


class TestT2:
    """Peers that die while Python is stuck."""

    def test_a_ping_is_unread(self, busy: Service) -> None:
        """Their messages, above a thousand, and the PING behind them are read afterwards, and all goes on. The others
        keep their connections.
        """
        with Zmtp(busy.endpoint) as dying, Client(busy.endpoint, timeout=LIMIT) as client:
            dying.greet()
            victim = victim_of(client)
            victim.echo(1)
            stuck = victim.stick.begin(1.0)
            wait_until(lambda: "stuck" in busy.log())
            # All in one piece that libzmq reads at once: the mark was at 1000 messages.
            dying.socket.sendall(b"\0\5hello" * 1050 + ping(15) * 20)
            dying.reset()
            stuck.result(LIMIT)
            assert victim.echo("served") == "served"
            assert client.statistics().connections == 1


class TestT3:
    """Clients that keep all workers busy."""

    def test_an_occasional_client(self, service: Services, folder: Path) -> None:
        """Four clients keep 50 calls of 2 ms open each, for which there are four workers: each of them gets on, and a
        fifth client's calls are answered before the others have had a few turns each.
        """
        mine = service(module="tests.rpc.victim", workers=4)
        with ExitStack() as made:
            clients = [made.enter_context(Client(mine.endpoint, timeout=LIMIT)) for _ in range(4)]
            port = made.enter_context(CompletionPort())
            done = [0] * len(clients)

            def begin(which: int) -> None:
                victim_of(clients[which]).slow.begin(0.002, notify=port.packet(key=which))

            for which in range(len(clients)):
                for _ in range(50):
                    begin(which)

            def go_on() -> None:
                packet = port.get(LIMIT)
                packet.overlapped.complete()
                done[packet.key] += 1
                begin(packet.key)

            occasional = made.enter_context(Client(mine.endpoint, timeout=LIMIT))
            waited = []
            for _ in range(10):
                call, before = victim_of(occasional).echo.begin(1), sum(done)
                while not call.done():
                    go_on()
                waited.append(sum(done) - before)
            while sum(done) < 400:
                go_on()
            # Behind all that the others had open it would be 200 each time. Counted in calls, not in time.
            assert sorted(waited)[len(waited) // 2] < 100, waited
            assert min(done) > sum(done) / len(done) / 2, done


class TestT4:
    """Messages that take long to decode."""

    @pytest.mark.parametrize("size", [MIB, 16 * MIB, 64 * MIB])
    def test_of_a_stranger(self, victim: Service, benches: Callable[..., Bench], size: int) -> None:
        """They cost less than their weight: 16 MiB of calls took 12 s of the processor and half a gigabyte. A client is
        served after each.
        """
        other = benches(victim.endpoint)
        other.probe.nothing()
        usage = Usage(victim)
        for bomb in bombs(size)[:1] if size > MIB else bombs(size):
            with RawClient(victim.endpoint, greet=False) as raw:
                raw.send(bomb)
                if victim.endpoint.startswith("tcp"):  # A native link closes the connection without a word.
                    assert type(raw.hear()) is Reject
                assert other.probe.echo("served") == "served"
        seconds, memory = usage.since()
        assert seconds < 1.0 + size / (64 * MIB)
        assert memory < 50 * MIB + 3 * size
        assert other.client.statistics().connections == 1

    def test_of_a_client(self, victim: Service, benches: Callable[..., Bench]) -> None:
        """So do those of one that has greeted: what is decoded is bounded, and so is what it may hold."""
        other = benches(victim.endpoint)
        other.probe.nothing()
        usage = Usage(victim)
        for bomb in [*bombs(MIB - 200), *bombs(16 * MIB)[:1]]:
            with RawClient(victim.endpoint) as raw:
                raw.send(bomb)
                assert type(decode(raw.receive())) is Reject
                assert other.probe.echo("served") == "served"
        seconds, memory = usage.since()
        assert seconds < 3.0 and memory < 200 * MIB
        assert other.client.statistics().connections == 1


class TestWhoDoesNotRead:
    """Peers that have this side keep what they do not take."""

    def test_answers_that_nobody_reads(self, busy: Service) -> None:
        """A client that asks for a gigabyte and reads nothing is disconnected, named in the log, and has cost a part of
        that. Others are served meanwhile.
        """
        with Client(busy.endpoint, timeout=LIMIT) as client, Zmtp(busy.endpoint, small=True) as greedy:
            victim = victim_of(client)
            victim.echo(1)
            usage = Usage(busy)
            greedy.greet()
            args = msgspec.Raw(msgspec.msgpack.encode([[1 << 20]]))
            with suppress(ConnectionError):  # It is disconnected by then.
                for number in range(1000):
                    greedy.say(calls(CallGroup(0, [number], args), targets=(MUCH,)))
                    if number % 100 == 0:
                        assert victim.echo(number) == number
            wait_until(lambda: busy.order("statistics")["clients_evicted"])
            assert victim.echo("served") == "served"
            _, memory = usage.since()
            assert memory < 300 * MIB
            wait_until(lambda: "unread" in busy.log())

    def test_one_way_calls(self, busy: Service) -> None:
        """They count: no more are kept than `max_calls`, however many a client sends."""
        options = CallOptions(one_way=True)
        args = msgspec.msgpack.encode([[0.5]])
        with Client(busy.endpoint, timeout=LIMIT) as client, Zmtp(busy.endpoint) as greedy:
            victim = victim_of(client)
            victim.echo(1)
            greedy.greet()
            for first in range(0, 10_000, 100):
                groups = [CallGroup(0, [first + n], msgspec.Raw(args), options) for n in range(100)]
                greedy.say(calls(*groups, targets=(SLOW,)))
            wait_until(lambda: busy.order("statistics")["refused"] > 9000 - MAX_CALLS)
            assert busy.order("statistics")["active"] <= MAX_CALLS
            assert victim.echo("served") == "served"


MUCH, SLOW = Target("victim", 0, 0, "much"), Target("victim", 0, 0, "slow")


class TestT6:
    """One client that begins more calls than the server may have open."""

    def test_another_one_is_served(self, busy: Service) -> None:
        """Its calls are refused above the limit less a part, and that is for the others."""
        with Client(busy.endpoint, timeout=LIMIT) as greedy, Client(busy.endpoint, timeout=LIMIT) as modest:
            victim_of(modest).echo(1)
            calls = [victim_of(greedy).slow.begin(0.3) for _ in range(3 * MAX_CALLS)]
            wait_until(lambda: busy.order("statistics")["refused"])
            for number in range(20):
                assert victim_of(modest).echo(number) == number
            assert sum(call.done() for call in calls) > MAX_CALLS
            for call in calls:
                call.cancel(abort=True)


class TestWhoDoesNotGreet:
    """Connections that never greet."""

    def test_they_end(self, busy: Service) -> None:
        """They are closed, 10 s after they came, whether they said that they were ready or nothing at all."""
        with ExitStack() as made:
            silent = [made.enter_context(Zmtp(busy.endpoint).ready()) for _ in range(10)]
            with Client(busy.endpoint) as client:
                assert victim_of(client).echo("served") == "served"
                assert all(each.ended() for each in silent)
                assert victim_of(client).echo("still") == "still"
            assert busy.order("statistics")["strangers_refused"] == 10


class TestT8:
    """Arrays that are not what they say."""

    LIES: tuple[tuple[str, tuple[int, ...], bytes], ...] = (
        ("|S0", (1 << 40,), b""), ("<U0", (1 << 40,), b""), ("|V0", (1 << 20, 1 << 20), b""), ("|S0", (1,), b""),
        ("<f8", (1 << 40,), bytes(8)), ("<f8", (1 << 63, 1 << 63), b""), ("<f8", (1,) * 100_000, bytes(8)),
        ("<f8", ((1 << 64) - 1,) * 60_000, b""), ("<f8," * 50_000, (1,), bytes(8)), ("(" * 200_000, (0,), b""),
    )  # fmt: skip

    def test_end_their_call(self, victim: Service) -> None:
        """A few bytes become no array of more, and a type is no programme: the call ends with 1783, at once."""
        pytest.importorskip("numpy")
        usage = Usage(victim)
        with RawClient(victim.endpoint) as raw:
            for number, (dtype, shape, blob) in enumerate(self.LIES):
                options = CallOptions(blobs=[Blob(0, "a", dtype, shape)])
                raw.send(calls(one_call(number, 0, msgspec.Raw(b"\x91\xc0"), options), targets=(ECHO,)), blob)
                (record,) = replies_in(raw.hear())
                assert (record.id, record.status) == (number, 1783)
        seconds, memory = usage.since()
        assert seconds < 3.0 and memory < 100 * MIB  # NumPy itself is imported for the first.


ECHO = Target("test.Probe", 1, 2, "echo")


class TestT12:
    """The texts of exceptions."""

    @pytest.mark.parametrize("hidden", [True, False])
    def test_stay_at_home(self, service: Services, hidden: bool) -> None:
        """A stranger reads none of them, if the server says so; who operates it does."""
        mine = service("tcp://127.0.0.1:*", fault_details=not hidden)
        with Client(mine.endpoint) as client, pytest.raises(RemoteFault) as caught:
            client.bind(Probe).fail("ValueError", "the key is 1234")
        assert ("1234" in str(caught.value)) is not hidden
        if hidden:
            (number,) = re.findall("under ([0-9a-f]{16})", str(caught.value))
            assert number in mine.log() and "the key is 1234" in mine.log()


@pytest.fixture(params=["native+tcp", "tls"])
def scheme(request: pytest.FixtureRequest) -> str:
    """The links that are for networks of strangers."""
    return str(request.param)


def connection(endpoint: str, says: bytes = b"") -> socket.socket:
    """A client's connection by hand, under TLS if that is asked for, that has said this."""
    made = socket.create_connection(("127.0.0.1", int(endpoint.rpartition(":")[2])), timeout=LIMIT)
    if endpoint.startswith("tls:"):
        made = client_context().wrap_socket(made, server_hostname="127.0.0.1")
    made.sendall(says)
    return made


GREETING = hello(b"DEALER") + b"".join(in_frames(encode(Hello(bytes(16), pid=1, host="raw"))))


class TestT5:
    """Answers that nobody reads."""

    def test_of_many(self, service: Services, benches: Callable[..., Bench], folder: Path, scheme: str) -> None:
        """What waits to be written to all together is bounded, and another client is served. (How many results may wait
        to be handed to the link, `max_calls` bounds.)
        """
        bounds = {"max_calls": 500, "max_queued_bytes": 16 * MIB, "max_total_bytes": 48 * MIB}
        mine = service(new_endpoint(scheme, folder), **bounds)
        other = benches(mine.endpoint)
        other.probe.echo(bytes(4 * MIB))
        usage = Usage(mine)
        target, size = Target("test.Probe", 1, 2, "zeros"), msgspec.Raw(msgspec.msgpack.encode([60_000]))
        asks = [b"".join(in_frames([calls(one_call(1 + number, 0, size), targets=(target,))])) for number in range(600)]
        with ExitStack() as stack:
            greedy = [stack.enter_context(connection(mine.endpoint, GREETING)) for _ in range(16)]
            for each in greedy:
                with suppress(OSError):  # It is disconnected in the midst of it.
                    each.sendall(b"".join(asks))
            # As long as that many calls are open, its own may be refused.
            wait_until(lambda: status_of(lambda: other.probe.echo("served")) == 0)
            statistics = mine.order("statistics")
        assert statistics["queued_bytes"] <= 48 * MIB
        assert usage.since()[1] < 250 * MIB
        assert other.client.statistics().connections == 1


def wait_for(mine: Service, condition: Callable[[Any], Any]) -> Any:
    """Wait until the server's statistics are such; return them."""
    found: list[Any] = []
    wait_until(lambda: found.append(mine.order("statistics")) or condition(found[-1]))
    return found[-1]


class TestAnswersOverZeroMQ:
    """Answers that nobody reads, where the transport has only so much of each client."""

    BOUNDS = {"max_calls": 500, "max_queued_bytes": 16 * MIB}

    def ask(self, stack: ExitStack, mine: Service, size: int, clients: int = 16, count: int = 600) -> None:
        """Have so many clients ask for so many results of that size, each, and read none."""
        target, args = Target("test.Probe", 1, 2, "filled"), msgspec.Raw(msgspec.msgpack.encode([size]))
        asks = b"".join(
            b"".join(map(bytes, in_frames([calls(one_call(1 + number, 0, args), targets=(target,))])))
            for number in range(count)
        )
        for greedy in [stack.enter_context(Zmtp(mine.endpoint)).greet() for _ in range(clients)]:
            with suppress(OSError):  # It is disconnected in the midst of it.
                greedy.socket.sendall(asks)

    def test_take_no_room(self, service: Services, benches: Callable[..., Bench]) -> None:
        """Calls whose answers wait for who does not read are not among the `max_calls` that others are refused for."""
        mine = service("tcp://127.0.0.1:*", **self.BOUNDS)
        other = benches(mine.endpoint)
        other.probe.nothing()
        with ExitStack() as stack:
            self.ask(stack, mine, 60_000)
            # On a machine that is slow they may be disconnected before so many are open.
            gone = wait_for(mine, lambda found: found["active"] > 1000 or found["clients_evicted"])["clients_evicted"]
            wait_until(lambda: status_of(lambda: other.probe.echo("served")) == 0)
            assert gone or not mine.order("statistics")["clients_evicted"], "it was served because they were gone"
        assert other.client.statistics().connections == 1

    def test_take_little_memory(self, service: Services, benches: Callable[..., Bench]) -> None:
        """Large results leave one by one, and none is made for who was disconnected."""
        mine = service("tcp://127.0.0.1:*", max_total_bytes=48 * MIB, **self.BOUNDS)
        other = benches(mine.endpoint)
        other.probe.echo(bytes(4 * MIB))
        usage = Usage(mine)
        with ExitStack() as stack:
            self.ask(stack, mine, MIB)
            wait_until(lambda: mine.order("statistics")["clients_evicted"] == 16)
            assert status_of(lambda: other.probe.echo("served")) == 0
        assert usage.since()[1] < 400 * MIB
        assert mine.order("statistics")["clients_evicted"] == 16
        assert other.client.statistics().connections == 1

    def test_of_many_take_little_memory(self, service: Services, benches: Callable[..., Bench]) -> None:
        """What was handed to ZeroMQ and what waits behind it have one bound, and those who are disconnected are soon
        forgotten, however much they have asked for.
        """
        mine = service("tcp://127.0.0.1:*", max_total_bytes=48 * MIB, **self.BOUNDS)
        other = benches(mine.endpoint)
        other.probe.echo(bytes(4 * MIB))
        usage = Usage(mine)
        with ExitStack() as stack:
            self.ask(stack, mine, 30_000, clients=100, count=300)
            wait_until(lambda: mine.order("statistics")["clients_evicted"] > 60)
            assert status_of(lambda: other.probe.echo("served")) == 0
        assert usage.since()[1] < 200 * MIB
        assert other.client.statistics().connections == 1

    def test_one_bound(self, service: Services) -> None:
        """Who is handed no more is disconnected before as much waits behind that as may wait for all.

        Unless that much was answered at once, as may be on a slow machine.
        """
        said = re.compile(r"it left (\d+) bytes unread, more than any other; (\d+) wait for all")
        for _ in range(20):
            mine = service("tcp://127.0.0.1:*", max_calls=5000, max_queued_bytes=64 * MIB, max_total_bytes=16 * MIB)
            with ExitStack() as stack:
                self.ask(stack, mine, 60_000, clients=1)
                wait_until(lambda mine=mine: said.search(mine.log()))  # type: ignore[misc]  # in this turn
            behind, in_all = map(int, said.findall(mine.log())[0])
            assert in_all > 16 * MIB
            if behind < 16 * MIB:
                break
        else:
            pytest.fail("it was never disconnected for both parts together")


class TestT7:
    """Connections that never greet."""

    @pytest.mark.parametrize("says", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40)])
    def test_of_many(
        self, service: Services, benches: Callable[..., Bench], folder: Path, scheme: str, says: bytes
    ) -> None:
        """They are closed when their time is up, handshakes included, and another client is served meanwhile."""
        mine = service(new_endpoint(scheme, folder), greeting_timeout=1.0)
        other = benches(mine.endpoint)
        with ExitStack() as stack:
            strangers = [
                stack.enter_context(socket.create_connection(("127.0.0.1", int(mine.endpoint.rpartition(":")[2]))))
                for _ in range(200)
            ]
            for each in strangers:
                with suppress(OSError):  # It is closed already.
                    each.sendall(says)
                each.settimeout(LIMIT)
            assert other.probe.echo("served") == "served"
            for each in strangers:
                with suppress(ConnectionResetError):
                    while each.recv(4096):
                        pass
        wait_until(lambda: mine.order("statistics")["strangers_refused"] == 200)
        assert 1 <= mine.log().count("refused a connection from 127.0.0.1") < 50
        assert other.client.statistics().connections == 1


class TestHandshakes:
    """What costs a server computing."""

    def test_of_many(self, service: Services, benches: Callable[..., Bench], folder: Path) -> None:
        """Two hundred that shake hands, and then again, keep no client from being served between them."""
        mine = service(new_endpoint("tls", folder))
        other = benches(mine.endpoint)
        other.probe.nothing()
        for _ in range(2):
            with ExitStack() as stack:
                for _ in range(100):
                    stack.enter_context(connection(mine.endpoint))
                assert other.probe.echo("served") == "served"
        assert other.client.statistics().connections == 1
