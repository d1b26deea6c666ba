"""What becomes of calls when there is no memory or no descriptor left: they end with a status, and service goes on."""

import errno
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import zmq

from engine import Call, CallError, CallFailed, CallFailedDne, Client, Event, Interface, Server, operation
from engine.testing import LIMIT, wait_until
from transport import EndpointError
from transport.frames import Bye, Calls

from .helpers import RawServer, reach, status_of


class Probe(Interface, id="test.Shortage"):
    """What is called."""

    @operation
    def echo(self, value: Any) -> Any:
        """Return the value."""

    @operation
    def hold(self) -> None:
        """Return when the test is over."""


class Routines:
    """The routines of `Probe`."""

    def __init__(self, over: Event) -> None:
        self.over = over

    def echo(self, value: Any) -> Any:
        return value

    def hold(self) -> None:
        self.over.wait(LIMIT)


@pytest.fixture
def over() -> Iterator[Event]:
    """Set when the test is over."""
    with Event(manual_reset=True) as event:
        yield event


Serve = Callable[..., Server]


@pytest.fixture
def serve(over: Event) -> Iterator[Serve]:
    """Makes servers that listen; they are closed afterwards."""
    servers: list[Server] = []

    def make(endpoint: str = "tcp://127.0.0.1:0") -> Server:
        server = Server(endpoint, workers=2)
        servers.append(server)
        server.register(Probe, Routines(over))
        server.listen()
        return server

    yield make
    over.set()
    for server in servers:
        server.close()


class Shortage:
    """While it is on, ZeroMQ has no more sockets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = False
        real = zmq.Context.socket

        def socket(context: Any, *args: Any, **options: Any) -> Any:
            if self.on:
                raise zmq.ZMQError(errno.EMFILE)
            return real(context, *args, **options)

        monkeypatch.setattr(zmq.Context, "socket", socket)


@pytest.fixture
def shortage(monkeypatch: pytest.MonkeyPatch) -> Shortage:
    """A shortage to be turned on."""
    return Shortage(monkeypatch)


def once(error: Exception, function: Callable[..., Any], often: int = 1) -> Callable[..., Any]:
    """The function, which raises the first times."""
    left = [error] * often

    def failing(*args: Any, **options: Any) -> Any:
        if left:
            raise left.pop()
        return function(*args, **options)

    return failing


@contextmanager
def probing(server: Server) -> Iterator[Any]:
    """A binding of a client of `server` that was answered a call."""
    with Client(server.endpoint) as client:
        probe = client.bind(Probe)
        assert probe.echo(1) == 1
        yield probe


class TestDescriptors:
    """Descriptors run out."""

    def test_opening(self, shortage: Shortage, over: Event) -> None:
        """A client, and a server that listens, raise `EndpointError`; later they can be had."""
        shortage.on = True
        with pytest.raises(EndpointError):
            Client("tcp://127.0.0.1:9")
        with Server("tcp://127.0.0.1:0") as server:
            with pytest.raises(EndpointError):
                server.listen()
            shortage.on = False
            server.register(Probe, Routines(over))
            server.listen()
            with Client(server.endpoint) as client:
                assert client.bind(Probe).echo(1) == 1

    @pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs /proc")
    def test_a_poll_set_that_cannot_be_had(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """So does one whose poll set is refused."""
        monkeypatch.setattr("selectors.DefaultSelector", once(OSError(errno.EMFILE, "none left"), object))
        with pytest.raises(EndpointError):
            Client("tcp://127.0.0.1:9")

    def test_connecting_again(self, serve: Serve, shortage: Shortage) -> None:
        """Calls of a lost connection end, the state is true, later ones end in time; then it connects again."""
        server = serve()
        endpoint = server.endpoint
        with Client(endpoint, connect_timeout=0.2) as client:
            reach(client)
            probe = client.bind(Probe)
            held: Call[Any] = probe.hold.begin()
            assert probe.echo(1) == 1
            shortage.on = True
            server.close(0.0)
            with pytest.raises(CallError):
                held.result(LIMIT)
            wait_until(lambda: client.statistics().connection == "connecting")
            for _ in range(3):
                with pytest.raises(CallFailedDne):
                    probe.echo(2)
            assert client.statistics().outstanding == 0
            shortage.on = False
            serve(endpoint)
            wait_until(lambda: answered(probe))  # There is a pause between attempts.

    def test_closing(self, serve: Serve, shortage: Shortage) -> None:
        """A client that cannot connect again can be closed."""
        server = serve()
        client = Client(server.endpoint, connect_timeout=0.1)
        reach(client)
        probe = client.bind(Probe)
        assert probe.echo(1) == 1
        shortage.on = True
        server.close(0.0)
        with pytest.raises(CallError):
            probe.echo(2)
        client.close()
        with Client("loopback://shortage"):
            pass

    def test_a_context_that_is_terminated(self, serve: Serve) -> None:
        """Calls end with a status when the sockets are taken away, and so do later ones."""
        context: zmq.Context[Any] = zmq.Context()
        with Client(serve().endpoint, context=context, connect_timeout=0.1) as client:
            reach(client)
            probe = client.bind(Probe)
            assert probe.echo(1) == 1
            held: Call[Any] = probe.hold.begin()
            ending = threading.Thread(target=context.term)
            ending.start()
            with pytest.raises(CallFailed):
                held.result(LIMIT)
            ending.join(LIMIT)
            assert not ending.is_alive()
            with pytest.raises(CallFailedDne):
                probe.echo(2)


class TestMemory:
    """There is no memory for a message."""

    @pytest.mark.parametrize("often", [1, 5])
    def test_for_connecting_again(self, serve: Serve, monkeypatch: pytest.MonkeyPatch, often: int) -> None:
        """A native client that has no memory for a new connection is connected again later."""
        server = serve("native+tcp://127.0.0.1:0")
        endpoint = server.endpoint
        with Client(endpoint, connect_timeout=0.2) as client:
            reach(client)
            probe = client.bind(Probe)
            assert probe.echo(1) == 1
            left = [MemoryError("none left")] * often
            real = socket.socket

            def refuse(*args: Any, **options: Any) -> Any:
                if left:
                    raise left.pop()
                return real(*args, **options)

            with monkeypatch.context() as patched:
                patched.setattr(socket, "socket", refuse)
                server.close(0.0)
                wait_until(lambda: client.members and not left)
            serve(endpoint)
            wait_until(lambda: client.members[0].state == "ready")
            assert probe.echo(2) == 2

    @pytest.mark.parametrize("name", ["read_calls", "decode"])
    def test_for_reading_one(self, serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """The calls of that client fail; it can go on, others notice nothing, and the server counts it."""
        server = serve()
        with Client(server.endpoint) as client, Client(server.endpoint) as other:
            probe, bystander = client.bind(Probe), other.bind(Probe)
            assert (probe.echo(1), bystander.echo(1)) == (1, 1)
            held: Call[Any] = bystander.hold.begin()
            wait_until(lambda: not held.wait(0.001) and server.statistics().active == 1)
            path = f"engine.rpc.server.listener.{name}"
            monkeypatch.setattr(path, once(MemoryError(), getattr_of(path)))
            with pytest.raises(CallFailed):
                probe.echo.begin(2, timeout=LIMIT if name == "decode" else None).result(LIMIT)
            assert (probe.echo(3), bystander.echo(3)) == (3, 3)
            assert not held.done()
        assert server.statistics().failures == 1

    def test_for_counting_one(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its calls end, too, if the counter of messages cannot grow."""

        class Counters:
            def __init__(self, real: Any) -> None:
                self.real = real

            def __getattr__(self, name: str) -> Any:
                if name == "messages_in" and self.real.messages_in == before:
                    self.real.messages_in += 1  # The client's next greeting may come at once.
                    raise MemoryError
                return getattr(self.real, name)

        server = serve()
        with probing(server) as probe:
            listener = server._listeners[0]
            before = listener._counters.messages_in
            monkeypatch.setattr(listener, "_counters", Counters(listener._counters))
            call: Call[Any] = probe.echo.begin(2)
            with pytest.raises(CallFailed):
                call.result(LIMIT)
            monkeypatch.undo()
            assert probe.echo(3) == 3

    @pytest.mark.parametrize("often", [1, 4])
    def test_for_a_harvest(self, serve: Serve, monkeypatch: pytest.MonkeyPatch, often: int) -> None:
        """A harvest that fails is tried again."""
        path = "transport.zmq_link.server.ZmqServer.harvest"
        server = serve()
        monkeypatch.setattr(path, once(MemoryError(), getattr_of(path), often))
        with Client(server.endpoint) as client:
            assert client.bind(Probe).echo.begin(1).result(LIMIT) == 1
        wait_until(lambda: server.statistics().failures == often)

    def test_for_sending_a_call(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """The call did not run; the next one does."""
        path = "transport.zmq_link.client.ZmqClient.send"
        with probing(serve()) as probe:
            monkeypatch.setattr(path, once(MemoryError(), getattr_of(path)))
            with pytest.raises(CallFailedDne):
                probe.echo.begin(2).result(LIMIT)
            assert probe.echo(3) == 3

    def test_the_goodbye_after_one_that_could_not_be_sent(self, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A message that did not leave is not counted: a call that the server says it has taken may have run."""
        path = "transport.zmq_link.client.ZmqClient.send"
        with RawServer(endpoint) as raw, Client(endpoint) as client:
            probe = client.bind(Probe)
            first: Call[Any] = probe.echo.begin(1)
            raw.greet()
            assert type(raw.hear()) is Calls
            wait_until(lambda: client.statistics().connection == "connected")
            sent = client.statistics().messages_sent
            monkeypatch.setattr(path, once(MemoryError(), getattr_of(path)))
            with pytest.raises(CallFailedDne):
                probe.echo.begin(2).result(LIMIT)
            assert client.statistics().messages_sent == sent
            taken: Call[Any] = probe.echo.begin(3)
            assert not taken.wait(0)
            assert type(raw.hear()) is Calls
            raw.say(Bye(0, "over", 2))
            assert status_of(lambda: first.result(LIMIT)) == 1726
            assert status_of(lambda: taken.result(LIMIT)) == 1726

    def test_for_making_a_message_of_calls(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """They did not run, and end so; the next one does."""
        with Client(serve().endpoint) as client:
            probe = client.bind(Probe)
            assert probe.echo(1) == 1
            path = "engine.rpc.client.outbox.monotonic"
            monkeypatch.setattr(path, once(MemoryError(), getattr_of(path)))
            with pytest.raises(CallFailedDne):
                probe.echo.begin(2).result(LIMIT)
            assert probe.echo(3) == 3

    def test_for_encoding_answers(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """The call fails, having run; the server counts it as over, and goes on."""
        server = serve()
        with probing(server) as probe:
            path = "engine.rpc.server.answers.encode_replies"
            # All together, and again; alone; and what is to be said instead.
            monkeypatch.setattr(path, once(MemoryError(), getattr_of(path), 4))
            with pytest.raises(CallFailed):
                probe.echo.begin(2).result(LIMIT)
            assert probe.echo(3) == 3
            assert server.statistics().active == 0

    @pytest.mark.parametrize("name", ["Batch", "split_args"])
    def test_for_taking_calls(self, serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """Calls that arrived, and could not be taken, end, and do not stay open in the server."""
        server = serve()
        with probing(server) as probe:
            path = f"engine.rpc.server.listener.{name}"
            monkeypatch.setattr(path, once(MemoryError(), getattr_of(path)))
            with pytest.raises(CallFailed):
                probe.echo.begin(2, timeout=LIMIT if name == "split_args" else None).result(LIMIT)
            assert probe.echo(3) == 3
            assert server.statistics().active == 0

    @pytest.mark.parametrize(
        "path",
        [
            "engine.rpc.server.open_call.Batch.apart",  # Nothing of them has run.
            "engine.rpc.server.runner.perf_counter",
            "engine.rpc.server.runner.deferrable",  # The first has run.
            "engine.rpc.server.answers.Answers.conclude",  # And was closed.
            "engine.rpc.server.answers.encode_value",  # This one can be told.
        ],
    )
    def test_for_running_calls(self, serve: Serve, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
        """The calls at which a worker failed end as having run, perhaps; the worker goes on, and no call stays open."""
        if path.endswith("apart"):

            def made(*args: Any) -> Any:
                entry = make(*args)
                entry.decode_many = lambda several: []
                return entry

            make = getattr_of("engine.rpc.server.registry.Entry")
            monkeypatch.setattr("engine.rpc.server.registry.Entry", made)
        server = serve()
        with probing(server) as probe:
            monkeypatch.setattr(path, once(MemoryError(), getattr_of(path)))
            calls: list[Call[Any]] = [probe.echo.begin([number]) for number in range(20)]
            outcomes = {status_of(partial(call.result, LIMIT)) for call in calls}
            assert outcomes <= {0, 1726, 1783} and outcomes != {0}
            monkeypatch.undo()
            assert [probe.echo(number) for number in range(3)] == [0, 1, 2]
            assert server.statistics().active == 0

    @pytest.mark.parametrize("endpoint", ["loopback://scarce", "tcp://127.0.0.1:0"])
    def test_for_a_place_in_the_ring(self, serve: Serve, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
        """A client whose calls cannot be put where they wait for a thread is put there once more: none is lost."""

        class Ring(deque[Any]):
            missing = 0

            def extend(self, things: Any) -> None:
                taken = list(things)  # A deque that has no memory left has got them, too.
                if Ring.missing:
                    Ring.missing -= 1
                    raise MemoryError
                super().extend(taken)

        monkeypatch.setattr("engine.pool.workers.deque", Ring)
        server = serve(endpoint)
        monkeypatch.undo()
        with probing(server) as probe:
            Ring.missing = 1
            assert [call.result(LIMIT) for call in [probe.echo.begin(number) for number in range(20)]] == [*range(20)]
            assert Ring.missing == 0

    def test_for_queueing_an_answer(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """An answer that was made, and could not be queued for its client, is sent all the same."""
        refusals: list[Exception] = []

        class Queue(deque[Any]):
            def append(self, item: Any) -> None:
                if refusals and type(item).__name__ == "Peer":
                    raise refusals.pop()
                super().append(item)

        monkeypatch.setattr("engine.rpc.server.answers.deque", Queue)
        server = serve()
        with probing(server) as probe:
            refusals.append(MemoryError())
            assert probe.echo.begin(2).result(LIMIT) == 2
        assert server.statistics().failures == 1

    @pytest.mark.parametrize("step", ["reply", "conclude"])
    def test_for_the_answer_of_a_task(self, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
        """The call of an `async def` routine fails, having run; the next one is answered, and none stays open."""

        class Tasks:
            async def echo(self, value: Any) -> Any:
                return value

            def hold(self) -> None: ...

        path = f"engine.rpc.server.answers.Answers.{step}"
        with Server("tcp://127.0.0.1:0", workers=2) as server:
            server.register(Probe, Tasks())
            server.listen()
            with probing(server) as probe:
                monkeypatch.setattr(path, once(MemoryError(), getattr_of(path)))
                with pytest.raises(CallFailed):
                    probe.echo.begin(2).result(LIMIT)
                assert probe.echo(3) == 3
                wait_until(lambda: server.statistics().active == 0)

    def test_for_sending_an_answer(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """The call fails, having run; the next one is answered."""
        path = "transport.zmq_link.server.ZmqServer.send"
        with probing(serve()) as probe:
            monkeypatch.setattr(path, once(MemoryError(), getattr_of(path)))
            with pytest.raises(CallFailed):
                probe.echo.begin(2).result(LIMIT)
            assert probe.echo(3) == 3


def answered(probe: Any) -> bool:
    """Whether a call is answered now."""
    try:
        return bool(probe.echo(3) == 3)
    except CallError:  # On a slow machine it is given up while it waits for the greeting, too.
        return False


def getattr_of(path: str) -> Any:
    """What is found at a dotted path."""
    import pkgutil

    return pkgutil.resolve_name(path)
