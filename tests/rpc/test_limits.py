"""`max_message_bytes`: what is too large for the other side is refused, and harms nobody else (section 10)."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine import (
    BadStubData,
    CallPending,
    Client,
    CompletionPort,
    EngineError,
    InPipe,
    Interface,
    InvalidArgumentType,
    OutPipe,
    RemoteFault,
    Server,
    ServerCall,
    manager,
    operation,
)
from engine.testing import LIMIT, wait_until
from transport.frames import Calls, Hello, Limits, Target, Welcome
from transport.wire.codec import encode_value

from ..one_by_one import calls_in, one_call, replies_in
from .helpers import Bench, RawClient, RawServer, Service, new_endpoint, status_of
from .interfaces import Probe

Benches = Callable[..., Bench]
Services = Callable[..., Service]


def hear_call(server: RawServer) -> Any:
    """Take a message of one call."""
    message = server.hear()
    assert isinstance(message, Calls)
    (record,) = calls_in(message)
    return record


LEAST = 64 * 1024  # The smallest limit that there is.


@pytest.fixture(params=["tcp", "ipc", "loopback"])
def narrow(request: pytest.FixtureRequest, benches: Benches, folder: Any) -> Bench:
    """A client that takes 200,000 bytes, of a server that takes 100,000."""
    endpoint = new_endpoint(request.param, folder)
    if request.param == "loopback":
        request.getfixturevalue("local")(endpoint, max_message_bytes=100_000)
    else:
        endpoint = request.getfixturevalue("service")(endpoint, max_message_bytes=100_000).endpoint
    return benches(endpoint, max_message_bytes=200_000, connect_timeout=LIMIT)


class TestCalls:
    """Calls that are larger than the server takes."""

    @pytest.mark.parametrize("value", [bytes(300_000), ["x" * 1000] * 300], ids=["beside", "inside"])
    def test_refused_in_begin(self, narrow: Bench, value: Any, key: str, port: CompletionPort) -> None:
        """`begin` raises, naming the setting and both sizes; nobody is told, and other calls go on."""
        assert narrow.probe.echo("the server has said what it takes") is not None
        held = narrow.held(key)
        with pytest.raises(InvalidArgumentType, match=r"echo takes 30\d{4} bytes.* 100000 .*max_message_bytes"):
            narrow.probe.echo.begin(value, notify=port)
        assert status_of(lambda: port.get(0)) == 258
        assert narrow.control.complete(key, "unharmed") == 0 and held.result(LIMIT) == "unharmed"
        assert narrow.client.statistics().connections == 1

    def test_refused_when_it_would_be_sent(self, service: Services, endpoint: str, port: CompletionPort) -> None:
        """One that was begun before there was a connection ends with 1783, saying the same; others are served."""
        with Client(endpoint, connect_timeout=LIMIT) as client:
            probe = client.bind(Probe)
            before = [probe.echo.begin(number) for number in range(10)]
            large = [probe.echo.begin(value, notify=port) for value in (bytes(300_000), ["x" * 1000] * 300)]
            after = [probe.echo.begin(value) for value in (bytes(90_000), ["x" * 1000] * 90, "small")]
            service(endpoint, max_message_bytes=100_000)
            assert {id(port.get(LIMIT).overlapped) for _ in large} == {id(call) for call in large}
            for call in large:
                with pytest.raises(BadStubData, match=r"takes 30\d{4} bytes.* 100000 .*max_message_bytes"):
                    call.complete()
            assert [call.result(LIMIT) for call in before] == list(range(10))
            assert [call.result(LIMIT) for call in after] == [bytes(90_000), ["x" * 1000] * 90, "small"]
            assert client.statistics().connections == 1

    def test_many_small_arguments(self, service: Services, benches: Benches) -> None:
        """One whose size shows only when it is sent ends so too."""
        bench = benches(service(max_message_bytes=LEAST).endpoint)
        bench.probe.nothing()
        untyped = bench.client.bind("test.Probe")
        with pytest.raises(BadStubData, match=f" {LEAST} .*max_message_bytes"):
            untyped.nothing(*["x" * 1000] * 100)
        assert bench.probe.echo("goes on") == "goes on"
        assert bench.client.statistics().connections == 1

    def test_many_calls(self, narrow: Bench) -> None:
        """Calls that share messages, and their answers, stay below the limit of either side together."""
        calls = [narrow.probe.echo.begin(f"{number:01000}") for number in range(2000)]
        assert [call.result(LIMIT) for call in calls] == [f"{number:01000}" for number in range(2000)]
        assert narrow.client.statistics().connections == 1

    def test_many_calls_before_the_connection(self, service: Services, endpoint: str) -> None:
        """So do calls that wait for a connection, though the limit is not known yet."""
        with Client(endpoint, connect_timeout=LIMIT) as client:
            calls = [client.bind(Probe).echo.begin("x" * 1000) for _ in range(500)]
            service(endpoint, max_message_bytes=LEAST)
            assert {call.result(LIMIT) for call in calls} == {"x" * 1000}
            assert client.statistics().connections == 1

    def test_nobody_waits(self, endpoint: str) -> None:
        """A large call that waits for the greeting leaves when it comes, though no thread waits for anything."""
        with RawServer(endpoint) as server, Client(endpoint, connect_timeout=None) as client:
            call = client.bind(Probe).echo.begin(bytes(300_000))
            client.bind(Probe).echo.begin("behind")
            server.greet()
            greeted = time.monotonic()
            assert [hear_call(server).id for _ in range(2)] == [1, 2]
            assert time.monotonic() - greeted < LIMIT / 2, "somebody else came by"
            with pytest.raises(CallPending):
                call.complete()

    def test_closing_before_the_greeting(self, endpoint: str) -> None:
        """A client that closes while a large call waits for the greeting still says goodbye."""
        with RawServer(endpoint) as server, Client(endpoint, connect_timeout=None) as client:
            call = client.bind(Probe).echo.begin(bytes(300_000))
            assert type(server.hear()) is Hello
            client.close()
            assert type(server.hear()).__name__ == "Bye"
            assert status_of(call.complete) == 1818


class TestAnswers:
    """Results that are larger than the client takes."""

    @pytest.mark.parametrize("value", [b"x" * 90_000, ["x" * 1000] * 90], ids=["beside", "inside"])
    def test_end_their_call(self, value: Any, service: Services, benches: Benches, key: str) -> None:
        """The call ends with 1783, naming the setting and both sizes; other calls go on."""
        bench = benches(service().endpoint, max_message_bytes=LEAST)
        held, other = bench.held(key), bench.held(f"{key}-other")
        assert bench.control.complete(f"{key}-other", value) == 87
        with pytest.raises(BadStubData, match=rf"result.* takes 9\d{{4}} bytes.* {LEAST} .*max_message_bytes"):
            other.result(LIMIT)
        assert bench.control.complete(key, "unharmed") == 0 and held.result(LIMIT) == "unharmed"
        assert bench.client.statistics().connections == 1

    def test_many(self, service: Services, benches: Benches) -> None:
        """Answers that share messages stay below the client's limit together."""
        bench = benches(service().endpoint, max_message_bytes=LEAST)
        calls = [bench.probe.echo.begin("x" * 1000) for _ in range(1000)]
        assert {call.result(LIMIT) for call in calls} == {"x" * 1000}
        assert bench.client.statistics().connections == 1

    @pytest.mark.parametrize("size", [LEAST // 2 - 10, LEAST // 2, LEAST])
    @pytest.mark.parametrize("name", ["raising", "aborting"])
    def test_a_failure_with_a_long_text(
        self, local: Callable[..., Server], benches: Benches, name: str, size: int
    ) -> None:
        """Of a text that is too long for the client the beginning arrives, and the status unchanged."""
        text = "\u00fc" * size  # Each takes two bytes.

        class Routines:
            def raising(self) -> None:
                raise RemoteFault(text, status=4711, type_name="Long")

            @manager
            def aborting(self, call: ServerCall) -> None:
                call.abort(4711, text)

        server = local(tracebacks=True)
        server.register("long", Routines())
        client = benches(server.endpoint, max_message_bytes=LEAST).client
        with pytest.raises(RemoteFault) as raised:
            getattr(client.bind("long"), name)(timeout=LIMIT)
        assert raised.value.status == 4711
        assert raised.value.text[:1000] == text[:1000] and raised.value.text.endswith("...")
        assert client.statistics().connections == 1

    def test_a_client_that_takes_nothing(self, local: Callable[..., Server]) -> None:
        """One that says it takes next to nothing gets a fault, and the server lives."""
        server = local()
        with RawClient(server.endpoint, greet=False) as raw:
            raw.say(Hello(b"\1" * 16, limits=Limits(message_bytes=1)))
            raw.hear()
            target = Target("test.Probe", 1, 2, "echo")
            raw.say(Calls([one_call(1, 0, encode_value(["x"]))], [target]))
            (record,) = replies_in(raw.hear())
            assert record.status == 1783


class TestPipes:
    """Pushes that are larger than the other side takes."""

    @pytest.fixture
    def blocks(self, folder: Any) -> Iterator[tuple[Any, Client]]:
        """A binding to an interface with pipes, between two sides that take 100,000 bytes."""

        class Blocks(Interface, id="test.Blocks"):
            @operation
            def total(self, blocks: InPipe[bytes]) -> int:
                """Return how many bytes came."""

            @operation
            def make(self, size: int, blocks: OutPipe[bytes]) -> None:
                """Push a small block, then one of that size."""

        class Routines:
            def total(self, blocks: Any) -> int:
                return sum(map(len, blocks))

            def make(self, size: int, blocks: Any) -> Iterator[bytes]:
                yield b"small"
                yield bytes(size)

        endpoint = new_endpoint("ipc", folder)
        with Server(endpoint, max_message_bytes=100_000) as server:
            server.register(Blocks, Routines())
            server.listen()
            with Client(endpoint, max_message_bytes=100_000) as client:
                yield client.bind(Blocks), client

    def test_by_the_client(self, blocks: tuple[Any, Client]) -> None:
        """A push that is too large fails, naming the pipe and the setting, and ends its call."""
        binding, client = blocks
        assert binding.total([b"x" * 60_000] * 5) == 300_000
        call = binding.total.begin(None)
        with pytest.raises(BadStubData, match=r"'blocks'.* 100000 .*max_message_bytes"):
            call.pipe("blocks").push([bytes(200_000)])
        assert status_of(call.complete) == 1914
        assert binding.total([b"goes on"]) == 7 and client.statistics().connections == 1

    def test_by_the_routine(self, blocks: tuple[Any, Client]) -> None:
        """So does one by the routine."""
        binding, client = blocks
        assert [len(block) for block in binding.make.stream(60_000)] == [5, 60_000]
        with pytest.raises(BadStubData, match=r"'blocks'.* 100000 .*max_message_bytes"):
            list(binding.make.stream(200_000))
        assert binding.total([b"goes on"]) == 7 and client.statistics().connections == 1


class TestSaid:
    """What the two sides say of it."""

    def test_each_says_what_it_takes(self, local: Callable[..., Server], endpoint: str) -> None:
        """The greeting names the limit of its sender."""
        server = local(max_message_bytes=123_456)
        with RawClient(server.endpoint, greet=False) as raw:
            raw.say(Hello(b"\1" * 16))
            welcome = raw.hear()
        assert isinstance(welcome, Welcome) and welcome.limits.message_bytes == 123_456
        with RawServer(endpoint) as other, Client(endpoint, max_message_bytes=65_536):
            hello = other.hear()
        assert isinstance(hello, Hello) and hello.limits.message_bytes == 65_536

    def test_logged_once(
        self, local: Callable[..., Server], benches: Benches, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Each side logs the first that it does not send, and no other."""
        bench = benches(local(max_message_bytes=100_000).endpoint, max_message_bytes=LEAST)
        bench.probe.nothing()
        with caplog.at_level(logging.WARNING, "engine.rpc"):
            for _ in range(3):
                assert status_of(lambda: bench.probe.echo(bytes(300_000))) == 87
                assert status_of(lambda: bench.probe.echo(bytes(90_000))) == 1783
            wait_until(lambda: caplog.text.count("not sent") == 2)
        assert caplog.text.count(" 100000 ") == 1

    @pytest.mark.parametrize("value", [0, LEAST - 1, -1, 1e6, "1000000", None, True])
    def test_settings_that_are_none(self, value: Any, endpoint: str) -> None:
        """Both sides take an int of 64 KiB or more."""
        for kind in (Client, Server):
            with pytest.raises(EngineError, match="max_message_bytes"):
                kind(endpoint, max_message_bytes=value)
