"""Peers that do not keep to the rules: PROTOCOL.md, "Pipes"."""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import zmq

from engine import Client, PipePending, Server
from engine.testing import LIMIT, wait_until
from transport import Buffer
from transport.frames import (
    PIPE_WINDOW_BYTES,
    CallOptions,
    Calls,
    Chunks,
    Credit,
    Grant,
    Hello,
    Limits,
    Message,
    PipeArgument,
    PipeChunk,
    Replies,
    Target,
    Welcome,
)
from transport.wire.codec import decode, encode, encode_calls

from ...one_by_one import calls_in, one_reply, replies_in
from ..helpers import present, status_of
from .interfaces import Streams
from .service import Board, make_server


class Raw:
    """A ZeroMQ socket that says what it likes."""

    def __init__(self, kind: int) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket = self.context.socket(kind)
        self.socket.set(zmq.LINGER, 0)
        self.peer: list[bytes] = []

    def say(self, message: Message) -> None:
        self.send(encode(message))

    def send(self, frames: list[Buffer]) -> None:
        self.socket.send_multipart([*self.peer, *frames])

    def hear(self, kind: type[Any]) -> Any:
        while True:
            assert self.socket.poll(int(LIMIT * 1000)), "nothing came"
            frames = self.socket.recv_multipart()
            if self.socket.type == zmq.ROUTER:
                self.peer = [frames.pop(0)]
            message = decode(frames)
            if type(message) is kind:
                return message

    def close(self) -> None:
        self.socket.close()
        self.context.term()


@pytest.fixture
def server(folder: Any) -> Iterator[tuple[Server, Board]]:
    """A server in this process, over ipc."""
    made, board = make_server(f"ipc://{folder}/raw-server")
    yield made, board
    made.close(0)
    board.close()


@pytest.fixture
def raw_client(server: tuple[Server, Board]) -> Iterator[Raw]:
    """A client that says what it likes, greeted, with a call of `held_both` whose number is 1 and key is "raw"."""
    raw = Raw(zmq.DEALER)
    raw.socket.connect(server[0].endpoint)
    raw.say(Hello(b"\1" * 16, limits=Limits(pipe_window_bytes=100)))
    assert raw.hear(Welcome).limits.pipe_window_bytes == PIPE_WINDOW_BYTES
    target = Target("test.Streams", 1, 0, "held_both")
    raw.send(encode_calls([(1, target, ("raw", None), CallOptions(pipes=[PipeArgument(1, "b")]))]))
    server[1].get("raw")
    yield raw
    raw.close()


def chunk(elements: object, pipe: int = 0, end: bool = False, call: int = 1) -> Chunks:
    encoded = msgspec.msgpack.encode(elements) if elements else b""
    return Chunks([PipeChunk(call, pipe, end, memoryview(encoded))])


def elements_of(part: PipeChunk) -> list[Any]:
    """The elements of a chunk."""
    return list(msgspec.msgpack.decode(part.elements)) if part.elements else []


class TestServer:
    """What a server does with a client that breaks the rules: the call ends with 1728, and others go on."""

    @pytest.mark.parametrize(
        "messages",
        [
            pytest.param([chunk([1], pipe=1)], id="a pipe that is not there"),
            pytest.param([chunk([], end=True), chunk([1])], id="elements after the end"),
            pytest.param([chunk([1] * PIPE_WINDOW_BYTES), chunk([1])], id="beyond the window"),
            pytest.param([Credit([Grant(1, 3, 100)])], id="credit for a pipe that is not there"),
        ],
    )
    def test_out_of_order(
        self, server: tuple[Server, Board], raw_client: Raw, messages: list[Message], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nothing is made of a chunk that must not be; the routine's next pull or push fails."""
        for message in messages:
            raw_client.say(message)
        call = server[1].get("raw")
        wait_until(lambda: any("ServerCall 1" in record.message for record in caplog.records))

        def pull_all() -> None:
            while True:
                call.pipe("numbers").pull_wait(timeout=LIMIT)

        assert status_of(pull_all) in (1728, 1918)
        record = replies_in(raw_client.hear(Replies))[0]
        assert (record.id, record.status) in ((1, 1728), (1, 1918))

    def test_what_is_ignored(self, server: tuple[Server, Board], raw_client: Raw) -> None:
        """Chunks and credit for calls that have ended, or never were, are nobody's."""
        raw_client.say(chunk([1], call=77))
        raw_client.say(Credit([Grant(77, 0, 5)]))
        raw_client.say(chunk([1, 2]))
        call = server[1].get("raw")
        assert call.pipe("numbers").pull_wait(timeout=LIMIT) == [1, 2]
        call.abort(4711)
        raw_client.say(chunk([1]))
        assert replies_in(raw_client.hear(Replies))[0].status == 4711
        assert server[0].statistics().garbage_received == 0

    def test_what_are_no_elements(self, server: tuple[Server, Board], raw_client: Raw) -> None:
        """Something else than an array is 1783 for who pulls it."""
        raw_client.say(chunk({"not": "an array"}))
        assert status_of(lambda: server[1].get("raw").pipe("numbers").pull_wait(timeout=LIMIT)) == 1783

    def test_the_window_of_the_client(self, server: tuple[Server, Board], raw_client: Raw) -> None:
        """The server pushes until the window is used up, and goes on after a credit."""
        raw_client.say(chunk([], end=True))
        pipe = server[1].get("raw").pipe("numbers")
        assert pipe.pull_wait(timeout=LIMIT) == []
        for _ in range(10):
            pipe.push([1] * 9)  # Ten bytes each.
        assert status_of(lambda: pipe.push([1])) == 997
        raw_client.say(Credit([Grant(1, 0, 1)]))
        pipe.push_wait([1], LIMIT)
        assert status_of(lambda: pipe.push([1])) == 997

    @pytest.mark.parametrize("routine", ["count", "count_async"])
    def test_a_client_that_grants_chunk_by_chunk(
        self, server: tuple[Server, Board], raw_client: Raw, routine: str
    ) -> None:
        """What a routine yields in a row shares a chunk: credit for each chunk keeps a long stream going."""
        target = Target("test.Streams", 1, 0, routine)
        raw_client.send(encode_calls([(2, target, (20_000, None), CallOptions(pipes=[PipeArgument(1, "o")]))]))
        numbers: list[int] = []
        end = False
        while not end:
            message = raw_client.hear(Chunks)
            assert len(message.chunks) == 1
            (part,) = message.chunks
            numbers += elements_of(part)
            raw_client.say(Credit([Grant(2, 0, len(part.elements))]))
            end = part.end
        assert numbers == list(range(20_000))

    def test_pipes_that_do_not_fit(self, server: tuple[Server, Board], raw_client: Raw) -> None:
        """A call that says nothing of its pipes, or something else, is refused with 1783."""
        target = Target("test.Streams", 1, 0, "held_both")
        for number, options in (
            (2, None),
            (3, CallOptions(pipes=[PipeArgument(1, "i")])),
            (4, CallOptions(pipes=[PipeArgument(0, "b")])),
        ):
            raw_client.send(encode_calls([(number, target, ("other", None), options)]))
            record = replies_in(raw_client.hear(Replies))[0]
            assert (record.id, record.status) == (number, 1783)


class TestClient:
    """What a client does with a server that breaks the rules."""

    @pytest.fixture
    def streams(self, folder: Any) -> Iterator[Callable[..., tuple[Raw, Streams]]]:
        """A raw server, and a client's binding to it."""
        raw = Raw(zmq.ROUTER)
        raw.socket.bind(f"ipc://{folder}/raw-client")
        with Client(f"ipc://{folder}/raw-client") as client:
            streams = client.bind(Streams)

            def greet(**limits: int) -> tuple[Raw, Streams]:
                raw.hear(Hello)
                raw.say(Welcome(b"\2" * 16, limits=Limits(**limits)))
                return raw, streams

            yield greet
        raw.close()

    @pytest.mark.parametrize(
        "message",
        [
            pytest.param(chunk([1], pipe=1), id="a pipe that is not there"),
            pytest.param(Chunks([*chunk([], end=True).chunks, *chunk([1]).chunks]), id="elements after the end"),
            pytest.param(Credit([Grant(1, 0, 5)]), id="credit for a pipe that the server pushes"),
        ],
    )
    def test_out_of_order(self, streams: Callable[..., tuple[Raw, Any]], message: Message) -> None:
        """The call ends with 1728, which every wait of it gets."""
        raw, binding = streams()
        call = binding.count.begin(5)
        raw.hear(Calls)
        raw.say(message)
        assert call.wait(LIMIT)
        assert status_of(lambda: [call.pipe("numbers").pull_wait() for _ in range(2)]) in (1728, 1918)

    def test_a_success_without_an_end(self, streams: Callable[..., tuple[Raw, Any]]) -> None:
        """A call that succeeded though its out pipe has no end fails the pull with 1917."""
        raw, binding = streams()
        call = binding.count.begin(5)
        raw.hear(Calls)
        raw.say(chunk([1]))
        raw.say(Replies([one_reply(1, 0, msgspec.Raw(b"\xa0"))]))
        assert call.wait(LIMIT)
        assert call.pipe("numbers").pull() == [1]
        assert status_of(call.pipe("numbers").pull) == 1917

    def test_what_a_call_says_of_its_pipes(self, streams: Callable[..., tuple[Raw, Any]]) -> None:
        """Position and direction, and nil in the place of the argument."""
        raw, binding = streams()
        call = binding.held_many.begin("k")
        message = raw.hear(Calls)
        assert present(calls_in(message)[0].options).pipes == [
            PipeArgument(at, direction) for at, direction in enumerate("iioo", 1)
        ]
        assert msgspec.msgpack.decode(calls_in(message)[0].args) == ["k", None, None, None, None]
        call.cancel(abort=True)

    def test_a_server_without_a_limit(self, streams: Callable[..., tuple[Raw, Any]]) -> None:
        """A window of 0 bytes says that there is none."""
        raw, binding = streams(pipe_window_bytes=0)
        call = binding.total.begin(5)
        raw.hear(Calls)
        for _ in range(20):
            call.pipe("numbers").push_wait([1] * PIPE_WINDOW_BYTES, LIMIT)
            raw.hear(Chunks)
        call.cancel(abort=True)

    def test_the_window_of_the_next_server(self, folder: Any) -> None:
        """What one server has said of its window holds for no other: until that has greeted, it is the standard one."""
        endpoint = f"ipc://{folder}/raw-next"
        raw = Raw(zmq.ROUTER)
        raw.socket.bind(endpoint)
        with Client(endpoint) as client:
            binding = client.bind(Streams)
            raw.hear(Hello)
            raw.say(Welcome(b"\2" * 16, limits=Limits(pipe_window_bytes=0)))
            wait_until(lambda: client.statistics().connection == "connected")
            raw.close()
            wait_until(lambda: client.statistics().connection == "connecting")
            call = binding.total.begin(5)
            call.pipe("numbers").push([1] * PIPE_WINDOW_BYTES)
            with pytest.raises(PipePending):
                call.pipe("numbers").push([1])
            call.cancel(abort=True)

    def test_what_shares_a_chunk(self, streams: Callable[..., tuple[Raw, Any]]) -> None:
        """What is pushed into one pipe in a row arrives whole and in order, in one chunk a message, and is charged as
        it travels: a window that is granted chunk by chunk never runs dry.
        """
        raw, binding = streams(pipe_window_bytes=300)
        pushed: list[object] = [*range(300), *range(70_000, 70_300)]
        call = binding.total.begin(5)
        pusher = threading.Thread(target=lambda: [call.pipe("numbers").push_wait([n], LIMIT) for n in pushed])
        raw.hear(Calls)
        pusher.start()
        pulled: list[object] = []
        while len(pulled) < len(pushed):
            message = raw.hear(Chunks)
            assert len(message.chunks) == 1
            (part,) = message.chunks
            pulled += elements_of(part)
            raw.say(Credit([Grant(1, 0, len(part.elements))]))
        pusher.join(LIMIT)
        assert pulled == pushed
        call.cancel(abort=True)

    def test_what_is_logged_once(
        self, streams: Callable[..., tuple[Raw, Any]], caplog: pytest.LogCaptureFixture
    ) -> None:
        """A chunk out of turn is counted and logged as any other message that must not be."""
        raw, binding = streams()
        with caplog.at_level(logging.WARNING, "engine.rpc"):
            call = binding.count.begin(5)
            raw.hear(Calls)
            raw.say(chunk([1], pipe=9))
            assert call.wait(LIMIT)
            wait_until(lambda: any("has no pipe 9" in record.message for record in caplog.records))
        assert sum("has no pipe 9" in record.message for record in caplog.records) == 1
