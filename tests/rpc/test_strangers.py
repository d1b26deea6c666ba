"""What a peer may send before it has greeted, and how much of a message a server decodes."""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from engine import BadStubData, Client, InPipe, Interface, InvalidArgumentType, InvalidParameter, Server, operation
from engine.testing import LIMIT, wait_until
from transport.errors import RemoteProtocolError
from transport.frames import Hello, Kind, Reject, Welcome
from transport.wire.blobs import ArgsDecoder
from transport.wire.codec import decode, encode

from ..garbage import GOOD, call, calls, prefix
from ..one_by_one import replies_in
from .helpers import Bench, RawClient, Service
from .interfaces import Probe

GREETING = 64 * 1024  # Bytes of the largest HELLO.
BODY = 1024 * 1024  # Bytes of the largest frame 0, if nothing else is said.


def array_of(count: int) -> bytes:
    """The head of an array of so many elements."""
    return b"\xdd" + count.to_bytes(4)


class TestBeforeTheGreeting:
    """A stranger's messages."""

    @pytest.mark.parametrize(
        "message",
        [
            GOOD[:-1],
            prefix(Kind.CALLS),
            prefix(Kind.CANCEL) + b"\xc1",
            prefix(Kind.REJECT, 7) + b"\xc1",
            prefix(Kind.HELLO) + bytes(GREETING),
            encode(Hello(b"\1" * 16, metadata={"x": "x" * GREETING}))[0],
            prefix(Kind.CALLS) + b"\x91" * GREETING,
            prefix(99),
            prefix(Kind.HELLO) + b"\x91\xc4\x01x",
        ],
        ids=[
            "cut",
            "empty",
            "cancel",
            "another version",
            "large hello",
            "good large hello",
            "large",
            "kind",
            "bad hello",
        ],
    )
    def test_is_refused_unread(self, local: Callable[..., Server], message: bytes) -> None:
        """What is ours and no greeting, or larger than one, is rejected whatever is in it, once; then he may greet."""
        server = local()
        with RawClient(server.endpoint, greet=False) as raw:
            raw.send(message)
            answer = raw.hear()
            assert type(answer) is Reject and answer.status == 1728
            raw.send(message)
            wait_until(lambda: server.statistics().garbage_received == 2)
            raw.greet()
            raw.send(calls(call(5)))
            assert [record.id for record in replies_in(raw.hear())] == [5]

    @pytest.mark.parametrize("sent", [b"noise", b"noise" * GREETING])
    def test_noise_is_dropped(self, local: Callable[..., Server], sent: bytes) -> None:
        """What is not ours gets no answer, however large it is."""
        server = local()
        with RawClient(server.endpoint, greet=False) as raw:
            raw.send(sent)
            wait_until(lambda: server.statistics().garbage_received == 1)
            raw.greet()

    def test_frames_beyond_the_first_count(self, local: Callable[..., Server]) -> None:
        """A greeting with large frames behind it is refused for its size."""
        with RawClient(local().endpoint, greet=False) as raw:
            raw.send(bytes(encode(Hello(b"\1" * 16))[0]), bytes(GREETING))
            answer = raw.hear()
            assert type(answer) is Reject and "65536" in answer.reason

    def test_after_a_rejection(self, local: Callable[..., Server]) -> None:
        """One whose conversation was broken off is a stranger again."""
        server = local()
        with RawClient(server.endpoint) as raw:
            raw.send(GOOD[:-1])
            assert type(raw.hear()) is Reject
            raw.send(prefix(Kind.CALLS) + b"\x91" * GREETING)
            raw.greet()
        assert server.statistics().garbage_received == 2

    def test_a_client_keeps_its_greeting_small(self, endpoint: str) -> None:
        """A client with more metadata than a greeting has room for is not made; the error says how much."""
        with pytest.raises(InvalidArgumentType, match="metadata .* 49152 are allowed"):
            Client(endpoint, metadata={"x": "x" * 50_000})
        with pytest.raises(InvalidArgumentType, match="metadata has 1025 texts, 1024 are allowed"):
            Client(endpoint, metadata={str(number): "" for number in range(1025)})

    def test_the_largest_greeting(self, local: Callable[..., Server], benches: Callable[..., Bench]) -> None:
        """The largest metadata that a client takes arrive."""
        metadata = {f"{number:04}": "x" * 44 for number in range(1024)}
        bench = benches(local().endpoint, metadata=metadata)
        assert bench.probe.echo("served") == "served"


class TestTheBody:
    """`max_body_bytes`: frame 0, which is decoded."""

    def test_it_is_told(self, local: Callable[..., Server]) -> None:
        """The greeting says what the server takes: 1 MiB if it was not asked for anything else."""
        for options, expected in (({}, BODY), ({"max_body_bytes": 100_000}, 100_000)):
            with RawClient(local(**options).endpoint, greet=False) as raw:
                raw.say(Hello(b"\1" * 16))
                welcome = raw.hear()
                assert type(welcome) is Welcome and welcome.body_bytes == expected

    @pytest.mark.parametrize("size", [0, GREETING - 1, 257 * 1024 * 1024])
    def test_settings_that_are_none(self, endpoint: str, size: int) -> None:
        """It is 64 KiB or more, and not more than any message may have."""
        with pytest.raises(InvalidParameter, match="max_body_bytes"):
            Server(endpoint, max_body_bytes=size)

    def test_more_is_garbage(self, local: Callable[..., Server]) -> None:
        """A peer that sends more is rejected, and the reason names the setting."""
        server = local(max_body_bytes=100_000)
        with RawClient(server.endpoint) as raw:
            raw.send(prefix(Kind.CALLS) + bytes(100_000))
            answer = raw.hear()
            assert type(answer) is Reject and "max_body_bytes" in answer.reason

    def test_a_call_that_is_too_large(self, local: Callable[..., Server], benches: Callable[..., Bench]) -> None:
        """`begin` raises, naming the setting and both sizes; bytes and other calls go on, over the same connection."""
        bench = benches(local().endpoint)
        bench.probe.nothing()
        with pytest.raises(InvalidArgumentType, match=rf"echo takes 20\d{{5}} bytes .* {BODY} .*max_body_bytes"):
            bench.probe.echo(["x" * 1000] * 2000)
        assert len(bench.probe.echo(bytes(3 * BODY))) == 3 * BODY
        assert len(bench.probe.echo(["x" * 1000] * 1000)) == 1000
        assert bench.client.statistics().connections == 1

    def test_before_the_greeting(self, service: Callable[..., Service], endpoint: str) -> None:
        """A call that was begun before the server was there ends saying the same."""
        with Client(endpoint, connect_timeout=LIMIT) as client:
            large = client.bind(Probe).echo.begin(["x" * 1000] * 200)
            small = client.bind(Probe).echo.begin("small")
            service(endpoint, max_body_bytes=100_000)
            with pytest.raises(BadStubData, match=r"takes 20\d{4} bytes .* 100000 .*max_body_bytes"):
                large.result(LIMIT)
            assert small.result(LIMIT) == "small"

    def test_calls_that_share_messages(self, local: Callable[..., Server], benches: Callable[..., Bench]) -> None:
        """Calls that would share a larger frame than the server decodes are split up."""
        bench = benches(local(max_body_bytes=GREETING).endpoint)
        started = [bench.probe.echo.begin("x" * 1000) for _ in range(2000)]
        assert {each.result(LIMIT) for each in started} == {"x" * 1000}
        assert bench.client.statistics().connections == 1

    def test_pushes(self, local: Callable[..., Server], benches: Callable[..., Bench]) -> None:
        """A push that is larger is refused, and names the setting."""
        server = local(max_body_bytes=100_000)

        class Routines:
            def total(self, blocks: Any) -> int:
                return sum(map(len, blocks))

        class Blocks(Interface, id="test.Blocks"):
            @operation
            def total(self, blocks: InPipe[bytes]) -> int:
                """Return how many bytes came."""

        server.register(Blocks, Routines())
        binding: Any = benches(server.endpoint).client.bind(Blocks)
        assert binding.total([b"x" * 60_000] * 5) == 300_000
        started = binding.total.begin(None)
        with pytest.raises(BadStubData, match=r"'blocks'.* 100000 .*max_body_bytes"):
            started.pipe("blocks").push([bytes(200_000)])


MANY = 65537  # One more than there may be.
LIMITED: dict[str, bytes] = {
    "groups": prefix(Kind.CALLS) + b"\x92" + array_of(MANY) + b"\x93\0\x91\0\x91\x90" * MANY + b"\x90",
    "ids": prefix(Kind.CALLS) + b"\x92\x91\x93\0" + array_of(MANY) + b"\0" * MANY + b"\x90\x90",
    "targets": prefix(Kind.CALLS) + b"\x92\x91\x93\0\x91\0\x91\x90" + array_of(MANY) + b"\x94\xa0\0\0\xa0" * MANY,
    "cancels": prefix(Kind.CANCEL) + b"\x91" + array_of(MANY) + b"\x92\0\xc3" * MANY,
    "credits": prefix(Kind.CREDIT) + b"\x91" + array_of(MANY) + b"\x93\0\0\0" * MANY,
    "chunks": prefix(Kind.PIPE) + b"\x91" + array_of(MANY) + b"\x94\0\0\xc2\x90" * MANY,
    "a name": prefix(Kind.CALLS) + b"\x92\x91\x93\0\x91\0\x91\x90\x91\x94\xda\x04\x01" + b"x" * 1025 + b"\0\0\xa0",
    "metadata": prefix(Kind.HELLO)
    + msgspec.msgpack.encode([bytes(16), 0, "", "", 0.0, [], {str(number): "" for number in range(1025)}]),
}


@pytest.mark.parametrize("name", LIMITED)
def test_more_entries_than_allowed(name: str) -> None:
    """More of anything than there may be in one message is garbage, by the number in the head of the array."""
    with pytest.raises(RemoteProtocolError, match=r"length <= (65536|1024)"):
        decode([LIMITED[name]])


def test_the_names_of_a_contract(endpoint: str) -> None:
    """A name that no server would read is refused where it is given."""
    with Client(endpoint) as client, pytest.raises(InvalidParameter, match="1025 characters, 1024 are allowed"):
        client.bind("x" * 1025)


@pytest.fixture
def collections() -> Iterator[list[Any]]:
    """What the collector has done since, one entry for each time."""
    done: list[Any] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            done.append(info)

    gc.collect()
    gc.callbacks.append(note)
    yield done
    gc.callbacks.remove(note)


NESTED = array_of(BODY) + b"\x90" * BODY


class TestTheCollector:
    """Python's collector waits while a large frame is decoded."""

    def test_arguments(self, collections: list[Any]) -> None:
        """It does not run in the midst of a million lists, and runs again afterwards."""
        (value,) = ArgsDecoder([Any])(b"\x91" + NESTED)
        during = len(collections)
        assert len(value) == BODY and gc.isenabled()
        assert during <= 1, "it ran as they were made"

    def test_refused_arguments(self, collections: list[Any]) -> None:
        """Nor if they are refused in the end."""
        with pytest.raises(msgspec.DecodeError):
            ArgsDecoder([Any])(b"\x91" + NESTED[:-1])
        assert len(collections) <= 1 and gc.isenabled()

    def test_it_stays_off(self) -> None:
        """A program that has switched it off finds it off."""
        gc.disable()
        try:
            ArgsDecoder([Any])(b"\x91" + NESTED)
            assert not gc.isenabled()
        finally:
            gc.enable()

    @pytest.mark.parametrize("count", [1, 2])
    def test_calls(self, local: Callable[..., Server], collections: list[Any], count: int) -> None:
        """So it is with calls that a server runs, one or several of a message."""
        server = local()

        class Sizes:
            def size(self, value: Any) -> int:
                return len(value)

        server.register("sizes", Sizes())
        nested = array_of(BODY // 2) + b"\x90" * (BODY // 2)
        args = array_of(count) + b"\x91\x90" * (count - 1) + b"\x91" + nested
        group = b"\x93\0" + bytes((0x90 | count, *range(1, count + 1))) + args
        target = msgspec.msgpack.encode(["sizes", 0, 0, "size"])
        with RawClient(server.endpoint) as raw:
            collections.clear()
            raw.send(prefix(Kind.CALLS) + b"\x92\x91" + group + b"\x91" + target)
            found: dict[int, Any] = {}
            while len(found) < count:
                found |= {one.id: msgspec.msgpack.decode(one.value) for one in replies_in(raw.hear())}
            assert found[count] == BODY // 2
            assert len(collections) < 20, "it ran as they were made"
