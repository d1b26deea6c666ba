"""Peers that send what they should not: dropped, counted, logged now and then; never an exception, never a hang."""

import logging
import re
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import BadStubData, Client, RemoteFault, Server
from engine.testing import LIMIT, wait_until
from transport.frames import (
    Blob,
    Bye,
    CallGroup,
    CallOptions,
    Calls,
    Kind,
    Reject,
    Replies,
    ReplyOptions,
    Target,
    Welcome,
)
from transport.wire.codec import encode

from ..certificates import for_client
from ..garbage import GARBAGE, GOOD, NIL, SILENT, TARGET, call, calls, prefix
from ..one_by_one import calls_in, one_call, one_reply, replies_in
from .helpers import PENDING, Bench, RawClient, RawServer, Service, new_endpoint, status_of
from .interfaces import Probe

Benches = Callable[..., Bench]

# A few of each sort go over real links; `tests/transport/wire/test_session.py` has them all.
FEW = ("noise", "truncated", "a second hello", "one number twice")


@pytest.fixture(params=["ipc", "native+ipc", "tls"])
def endpoint(request: pytest.FixtureRequest, folder: Path) -> str:
    """An endpoint that nobody uses, on each link that reaches other processes."""
    return new_endpoint(request.param, folder)


@pytest.fixture
def local(local: Callable[..., Server], endpoint: str) -> Callable[..., Server]:
    """A function that makes a listening server there."""
    return lambda **options: local(endpoint, **options)


def client_of(server: RawServer) -> Client:
    """A client of it."""
    return Client(server.endpoint, connect_timeout=LIMIT, **for_client(server.endpoint))


def send_garbage(raw: RawClient, name: str) -> None:
    """Send it, and begin the conversation again where the server has ended it."""
    raw.send(*GARBAGE[name])
    if name not in SILENT:
        answer = raw.hear()
        assert type(answer) is Reject and answer.status == 1728
        raw.greet()


class TestToAServer:
    """What a server does with them."""

    @pytest.mark.parametrize("transport", ["tcp", "ipc", "native+tcp", "native+ipc", "tls"])
    def test_everything_at_once(self, transport: str, services: Callable[..., str], benches: Benches) -> None:
        """After each sort of garbage the same peer is served, and so are others."""
        other = benches(services(transport))
        with RawClient(other.endpoint) as raw:
            for number, name in enumerate(GARBAGE):
                send_garbage(raw, name)
                raw.send(calls(call(1000 + number)))
                reply = raw.hear()
                assert type(reply) is Replies
                assert [(record.id, record.status) for record in replies_in(reply)] == [(1000 + number, 0)]
        assert other.probe.echo("alive") == "alive"

    @pytest.mark.parametrize("name", FEW)
    def test_each_is_dropped_and_counted(
        self, local: Callable[..., Server], name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Each is dropped and counted, and no call comes of it."""
        server = local()
        with RawClient(server.endpoint) as raw, caplog.at_level(logging.WARNING):
            send_garbage(raw, name)
            raw.send(calls(call(77)))
            reply = raw.hear()
            assert type(reply) is Replies and [record.id for record in replies_in(reply)] == [77]
            assert server.statistics().garbage_received == 1
            assert server.statistics().calls_in == 1
        wait_until(lambda: "dropped a message" in caplog.text)
        assert not [record for record in caplog.records if record.levelno > logging.WARNING]

    def test_calls_lost_in_garbage_do_not_hang(self, local: Callable[..., Server]) -> None:
        """A message that is ours and cannot be read may have held calls: its sender is rejected, once for each."""
        server = local()
        with RawClient(server.endpoint) as raw:
            for _ in range(2):
                raw.send(GOOD[:-1])
                assert type(raw.hear()) is Reject
                raw.send(calls(call(1)))  # On its way already: not run, and not rejected again.
                raw.greet()
            raw.send(calls(call(2)))
            assert [record.id for record in replies_in(raw.hear())] == [2]
        assert server.statistics().calls_in == 1

    def test_the_log_is_not_theirs(self, service: Callable[..., Service], endpoint: str) -> None:
        """However many peers send garbage, there is a line at once, and then one in three seconds at most: it names one
        of them, and says how many were left out, so that the lines account for every piece.
        """
        mine = service(endpoint)
        begun = time.monotonic()
        for _ in range(10):
            with RawClient(mine.endpoint) as raw:
                for _ in range(50):
                    raw.send(b"garbage")
                raw.send(calls(call(1)))
                raw.hear()
        assert mine.order("statistics")["garbage_received"] == 500

        def lines() -> list[str]:
            return re.findall(r"dropped a message from \S+: not a message of this protocol(.*)", mine.log())

        def told() -> int:
            left_out = [re.match("; ([0-9]+) more like it", line) for line in lines()]
            return len(left_out) + sum(int(match[1]) for match in left_out if match)

        wait_until(lambda: told() == 500)
        assert len(lines()) <= 2 + (time.monotonic() - begun) / 3
        assert "Traceback" not in mine.log()

    @pytest.mark.parametrize("message", [calls(call(1)), b"noise"])
    def test_from_a_stranger(self, local: Callable[..., Server], message: bytes) -> None:
        """One who does not begin with a greeting is not served; a greeting later on is too late or answered."""
        server = local()
        with RawClient(server.endpoint, greet=False) as raw:
            raw.send(message)
            wait_until(lambda: server.statistics().garbage_received == 1)
            assert server.statistics().calls_in == 0

    def test_a_number_in_use(self, local: Callable[..., Server], benches: Benches, key: str) -> None:
        """A second call under a number that is in use is dropped; the first is answered once, others as ever."""
        server = local()
        hold = Target("test.Probe", 1, 2, "hold")
        control = benches(server.endpoint).control
        with RawClient(server.endpoint) as raw:
            args = msgspec.Raw(msgspec.msgpack.encode((key,)))
            raw.send(calls(one_call(5, 0, args), targets=(hold,)))
            control.arrived(key)
            raw.send(calls(call(6), call(5), call(7)))
            ids: list[int] = []
            while len(ids) < 2:
                ids += [record.id for record in replies_in(raw.hear())]
            assert sorted(ids) == [6, 7]
            control.complete(key, "first")
            (record,) = replies_in(raw.hear())
            assert (record.id, msgspec.msgpack.decode(record.value)) == (5, "first")
        wait_until(lambda: server.statistics().active == 0)

    def test_arguments_that_are_none(self, local: Callable[..., Server]) -> None:
        """Arguments that cannot be read end their call with 1783, and no other."""
        server = local()
        bad = [
            b"\xc1", b"\xc0", b"\x91\xdb\xff\xff\xff\xff", b"\x92\x01", b"\x91" * 1000, b"\x91\xa2\xff\xff",
            b"\x91" * 900 + b"\x01", b"\x91\x81\x90\x01", b"\x91\xc7\x01\x05\x00", b"\x91\xd6\xff\xff\xff\xff\xff",
        ]  # fmt: skip
        with RawClient(server.endpoint) as raw:
            for number, args in enumerate(bad):
                raw.send(calls(one_call(number, 0, msgspec.Raw(args))))
                answer = raw.hear()
                if type(answer) is Reject:  # The message as a whole could not be read.
                    raw.greet()
                else:
                    assert [record.status for record in replies_in(answer)][0] in (0, 1783)
            raw.send(calls(call(99)))
            assert [record.id for record in replies_in(raw.hear())] == [99]

    @pytest.mark.parametrize("args", [b"\x91\x91\x07", b"\x93\x91\x07\x91\x07\x91\x07", b"\xc0", b"\x92\x91\x07\xc1"])
    def test_arguments_for_other_calls(self, local: Callable[..., Server], args: bytes) -> None:
        """A group that has arguments for less or more calls than it names ends with 1783, each of its calls, and no
        other.
        """
        server = local()
        with RawClient(server.endpoint) as raw:
            raw.send(bytes(encode(Calls([CallGroup(0, [1, 2], msgspec.Raw(args)), call(3)], [TARGET]))[0]))
            answers: dict[int, int] = {}
            while len(answers) < 3:
                message = raw.hear()
                if type(message) is Reject:  # The message as a whole could not be read.
                    return
                answers |= {reply.id: reply.status for reply in replies_in(message)}
            assert answers == {1: 1783, 2: 1783, 3: 0}
        wait_until(lambda: server.statistics().active == 0)

    @pytest.mark.parametrize("number", [0, -1, 1 << 63, (1 << 64) - 1])
    def test_odd_numbers(self, local: Callable[..., Server], number: int) -> None:
        """A call's number is the client's affair: it comes back as it was, or the message is dropped."""
        server = local()
        with RawClient(server.endpoint) as raw:
            raw.send(calls(call(number)))
            raw.send(calls(call(42)))
            ids: list[int] = []
            while 42 not in ids:
                ids += [record.id for record in replies_in(raw.hear())]
            assert ids in ([number, 42], [42])

    def test_options_that_make_no_sense(self, local: Callable[..., Server]) -> None:
        """Odd time limits, unknown pipes and lanes harm nobody."""
        server = local()
        odd = [
            CallOptions(time_left=float("nan")),
            CallOptions(time_left=-1.0),
            CallOptions(time_left=float("inf")),
            CallOptions(time_left=1e308),
            CallOptions(lane=-5),
            CallOptions(attempt=3),
            CallOptions(blobs=[]),
            CallOptions(metadata={"": ""}),
        ]
        with RawClient(server.endpoint) as raw:
            for number, options in enumerate(odd):
                raw.send(calls(call(number, 0, options)))
                (record,) = replies_in(raw.hear())
                assert record.id == number and record.status in (0, 1818)

    def test_a_goodbye_and_then_more(self, local: Callable[..., Server]) -> None:
        """What comes after a goodbye is dropped."""
        server = local()
        with RawClient(server.endpoint) as raw:
            raw.say(Bye(0, "gone"))
            raw.send(calls(call(1)))
            raw.send(b"noise")
        with RawClient(server.endpoint) as raw:
            raw.send(calls(call(2)))
            assert [record.id for record in replies_in(raw.hear())] == [2]
        assert server.statistics().calls_in == 1

    @pytest.mark.parametrize("transport", ["tcp", "native+tcp", "tls"])
    def test_a_message_above_the_limit(
        self, transport: str, service: Callable[..., Service], benches: Benches, folder: Path
    ) -> None:
        """One who sends more than the server takes loses the connection; others stay."""
        mine = service(new_endpoint(transport, folder), max_message_bytes=100_000)
        other = benches(mine.endpoint)
        other.probe.nothing()
        with RawClient(mine.endpoint) as raw:
            raw.send(bytes(1_000_000))
            assert other.probe.echo("served") == "served"
        assert other.client.statistics().connections == 1

    @pytest.mark.parametrize("transport", ["tcp", "native+tcp", "tls"])
    def test_something_that_is_no_zeromq(self, transport: str, services: Callable[..., str], benches: Benches) -> None:
        """A connection that does not speak ZMTP is closed, and nobody else notices."""
        endpoint = services(transport)
        host, port = endpoint.partition("://")[2].split(":")
        with socket.create_connection((host, int(port)), timeout=LIMIT) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
            assert benches(endpoint).probe.echo("served") == "served"

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        data=st.one_of(
            st.binary(max_size=200),
            st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)).map(
                lambda change: GOOD[: change[0]] + bytes((change[1],)) + GOOD[change[0] + 1 :]
            ),
            st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=64)).map(lambda pair: prefix(pair[0]) + pair[1]),
        )
    )
    def test_anything(self, fuzzed: tuple[RawClient, Server], data: bytes) -> None:
        """Whatever bytes come, the server lives, and serves the next one."""
        raw, server = fuzzed
        with RawClient(server.endpoint) as fuzzer:
            fuzzer.send(data)
            raw.send(calls(call(4242)))
            assert 4242 in {record.id for record in replies_in(raw.hear())}


@pytest.fixture
def fuzzed(local: Callable[..., Server]) -> Any:
    """A server and a client that goes on using it."""
    server = local()
    with RawClient(server.endpoint) as raw:
        yield raw, server


class TestToAClient:
    """What a client does with them."""

    @pytest.fixture
    def pair(self, endpoint: str) -> Any:
        """A raw server, a client that it has greeted, and a call that it was sent."""
        with RawServer(endpoint) as raw, client_of(raw) as client:
            call = client.bind(Probe).echo.begin("x")
            raw.greet()
            message = raw.hear()
            assert type(message) is Calls
            yield raw, client, call, calls_in(message)[0].id

    @pytest.mark.parametrize("name", FEW)
    def test_each_is_dropped_and_counted(
        self, pair: tuple[RawServer, Client, Any, int], name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Each is dropped and counted, and the call waits on for its answer."""
        raw, client, call, number = pair
        raw.send(*GARBAGE[name])
        raw.say(Replies([one_reply(number, 0, msgspec.Raw(msgspec.msgpack.encode("answer")))]))
        assert call.result(LIMIT) == "answer"
        assert client.statistics().garbage_received == 1
        wait_until(lambda: caplog.text.count(f"{raw.endpoint}: dropped a message") == 1)

    def test_logged_once(self, pair: tuple[RawServer, Client, Any, int], caplog: pytest.LogCaptureFixture) -> None:
        """Garbage of one server is logged once; further pieces are only counted."""
        raw, client, call, number = pair
        for _ in range(20):
            raw.send(b"garbage")
        raw.say(Replies([one_reply(number, 0, NIL)]))
        assert call.result(LIMIT) is None
        assert client.statistics().garbage_received == 20
        wait_until(lambda: caplog.text.count(f"{raw.endpoint}: dropped a message") == 1)

    def test_answers_to_nobody(self, pair: tuple[RawServer, Client, Any, int]) -> None:
        """An answer to a call that does not exist is counted as late."""
        raw, client, call, number = pair
        raw.say(Replies([one_reply(number + 1000, 0, NIL), one_reply(-1, 0, NIL)]))
        raw.say(Replies([one_reply(number, 0, NIL)]))
        raw.say(Replies([one_reply(number, 0, NIL)]))
        assert call.result(LIMIT) is None
        pending = client.bind(Probe).echo.begin("to poll")
        wait_until(lambda: pending.status() == PENDING and client.statistics().replies_late == 3)

    def test_answers_twice(self, pair: tuple[RawServer, Client, Any, int]) -> None:
        """Of two answers to one call the first is the outcome."""
        raw, _, call, number = pair
        for value in ("first", "second"):
            raw.say(Replies([one_reply(number, 0, msgspec.Raw(msgspec.msgpack.encode(value)))]))
        assert call.result(LIMIT) == "first"

    @pytest.mark.parametrize(
        "value",
        [
            b"\xc1",
            b"\xdb\xff\xff\xff\xff",
            b"",
            b"\x91" * 100_000,
            b"\xa2\xff\xff",
            b"\x91" * 900 + b"\x01",
            b"\x81\x90\x01",
        ],
    )
    def test_a_result_that_cannot_be_read(self, pair: tuple[RawServer, Client, Any, int], value: bytes) -> None:
        """A result that cannot be read is an outcome, or its message is dropped; never an exception elsewhere."""
        raw, client, call, number = pair
        raw.say(Replies([one_reply(number, 0, msgspec.Raw(value))]))
        raw.say(Replies([one_reply(number, 1726, NIL)]))
        assert call.wait(LIMIT)
        assert status_of(call.complete) in (1783, 1726, 0)
        assert client.statistics().outstanding == 0

    @pytest.mark.parametrize(
        "value", [b"\xc0", b"\x90", b"\x01", b"\xa4text", b"\x94\x01\x02\x03\x04", b"\x91\xa1\xff"]
    )
    @pytest.mark.parametrize("status", [1726, 4711, -1, 1 << 40])
    def test_a_fault_that_is_none(self, pair: tuple[RawServer, Client, Any, int], value: bytes, status: int) -> None:
        """A failure whose description cannot be read keeps its status."""
        raw, _, call, number = pair
        raw.say(Replies([one_reply(number, status, msgspec.Raw(value))]))
        assert call.wait(LIMIT)
        assert status_of(call.complete) == status

    def test_answers_before_the_greeting(self, endpoint: str) -> None:
        """A server that answers before it has greeted is not believed."""
        with RawServer(endpoint) as raw, client_of(raw) as client:
            call = client.bind(Probe).echo.begin("x")
            raw.hear()
            raw.say(Replies([one_reply(1, 0, NIL)]))
            raw.say(Welcome(b"\2" * 16))
            message = raw.hear()
            assert type(message) is Calls
            raw.say(Replies([one_reply(calls_in(message)[0].id, 0, msgspec.Raw(b"\x07"))]))
            assert call.result(LIMIT) == 7
            assert client.statistics().garbage_received == 1

    def test_a_blob_that_does_not_fit(self, pair: tuple[RawServer, Client, Any, int]) -> None:
        """A large value whose description does not fit its bytes gives 1783."""
        raw, _, call, number = pair
        options = ReplyOptions(blobs=[Blob(0, "a", "f8", (1000, 1000))])
        raw.send(bytes(encode(Replies([one_reply(number, 0, NIL, options)]))[0]), struct.pack("d", 1.0))
        assert call.wait(LIMIT)
        with pytest.raises(BadStubData):
            call.complete()

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=64)))
    def test_anything(self, fuzzed_client: tuple[RawServer, Client], data: tuple[Kind, bytes]) -> None:
        """Whatever bytes come, the client lives, and its calls end."""
        raw, client = fuzzed_client
        if data[0] in (Kind.BYE, Kind.REJECT):
            return  # They may be in order, and end the connection.
        call = client.bind(Probe).echo.begin("x")
        message = raw.hear()
        assert type(message) is Calls
        raw.send(prefix(data[0]) + data[1])
        raw.say(Replies([one_reply(calls_in(message)[-1].id, 4711, NIL)]))
        assert call.wait(LIMIT)
        with pytest.raises(RemoteFault):
            call.complete()

    @pytest.fixture
    def fuzzed_client(self, endpoint: str) -> Any:
        """A raw server and a client that it has greeted."""
        with RawServer(endpoint) as raw, client_of(raw) as client:
            client.bind(Probe).note.begin("connect")
            raw.greet()
            assert type(raw.hear()) is Calls
            yield raw, client
