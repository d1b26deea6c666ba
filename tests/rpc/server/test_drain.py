"""A server that drains: no call is lost, none is refused, and what runs goes on to its end."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine import (
    Call,
    CallFailed,
    CallFailedDne,
    Client,
    CompletionPort,
    Context,
    InPipe,
    Interface,
    Presence,
    Server,
    WaitTimeout,
    current_call,
    operation,
)
from engine.testing import LIMIT, Gate, wait_until

from ..helpers import RawClient, new_endpoint, reach, status_of, untyped


class Words(Interface, id="tests.Drained"):
    """What is served."""

    @operation
    def echo(self, number: int) -> int:
        """Return it."""

    @operation
    def hold(self) -> str:
        """Answer once the gate is open."""

    @operation
    def total(self, numbers: InPipe[int]) -> int:
        """Add up."""

    @operation
    def open(self) -> Context[int]:
        """Open a context."""

    @operation
    def use(self, context: Context[int]) -> int:
        """Return its state."""


class Routines:
    """It, served; with what ran."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.ran: list[int] = []

    def echo(self, number: int) -> int:
        """Note and return it."""
        self.ran.append(number)
        return number

    def hold(self) -> str:
        """Stay until the gate is open, or the caller cancels."""
        self.gate.pass_through()
        return "cancelled" if current_call().test_cancel() else "held"

    def total(self, numbers: InPipe[int]) -> int:
        """Add up."""
        return sum(untyped(numbers))

    def open(self) -> Context[int]:
        """Open a context."""
        return current_call().open_context(7)

    def use(self, context: Context[int]) -> int:
        """Return its state."""
        return context.state


Serve = Callable[[str, Routines], Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Makes servers that listen."""
    with ExitStack() as made:

        def start(endpoint: str, routines: Routines) -> Server:
            server = Server(endpoint, workers=2)
            made.callback(server.close, 0)
            server.register(Words, routines)
            server.listen()
            return server

        yield start


@pytest.fixture
def routines() -> Routines:
    """What the first server runs."""
    return Routines()


@pytest.fixture(params=["ipc", "native+tcp", "loopback"])
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where they listen, one after the other."""
    where = new_endpoint(request.param, tmp_path)
    if where.startswith("native+tcp"):
        with Server(where) as probe:
            probe.listen()
            where = probe.endpoint
    return where


@pytest.fixture
def client(endpoint: str) -> Iterator[Client]:
    """Its client."""
    with Client(endpoint, connect_timeout=LIMIT) as made:
        yield made


def draining(server: Server, grace: float | None = LIMIT) -> threading.Thread:
    """Begin to drain in another thread, and return when no calls are taken any more."""
    thread = threading.Thread(target=server.drain, args=(grace,))
    thread.start()
    wait_until(lambda: not server.listening)
    return thread


class TestOneEndpoint:
    """A client of one endpoint waits for the next server."""

    def test_goes_to_the_next_server(self, serve: Serve, endpoint: str, client: Client, routines: Routines) -> None:
        """Calls that come while a server drains run at the next one, in their order; what runs is answered first."""
        server, words = serve(endpoint, routines), client.bind(Words)
        held = words.hold.begin()
        routines.gate.wait_for_arrivals()
        thread = draining(server)
        calls = [words.echo.begin(number) for number in range(100)]
        assert not calls[0].wait(0.05) and not held.done()
        routines.gate.open()
        assert held.result(LIMIT) == "held"
        thread.join(LIMIT)
        assert server.closed and not routines.ran
        later = Routines()
        serve(endpoint, later)
        assert [call.result(LIMIT) for call in calls] == list(range(100))
        assert later.ran == list(range(100))

    def test_cancels_count(self, serve: Serve, endpoint: str, client: Client, routines: Routines) -> None:
        """A call that runs while its server drains hears that it was cancelled."""
        server, words = serve(endpoint, routines), client.bind(Words)
        held = words.hold.begin()
        routines.gate.wait_for_arrivals()
        thread = draining(server)
        held.cancel()
        behind = words.echo.begin(1)  # What is behind the cancel shows that it was taken.
        wait_until(lambda: server.statistics().messages_in >= 4)
        behind.cancel(abort=True)
        routines.gate.open()
        assert held.result(LIMIT) == "cancelled"
        thread.join(LIMIT)

    def test_pipes_go_on(self, serve: Serve, endpoint: str, client: Client, routines: Routines) -> None:
        """A stream that runs while its server drains comes to its end."""
        server = serve(endpoint, routines)
        call = untyped(client.bind(Words)).total.begin()
        pipe = call.pipe("numbers")
        pipe.push([1, 2])
        wait_until(lambda: server.statistics().active == 1)
        thread = draining(server)
        for _ in range(100):
            pipe.push([1])
        pipe.push([])
        assert call.result(LIMIT) == 103
        thread.join(LIMIT)

    def test_what_cannot_go_elsewhere(self, serve: Serve, endpoint: str, client: Client, routines: Routines) -> None:
        """Calls with pipes or a context handle, which end with the connection, end with 1727: they did not run."""
        server, words = serve(endpoint, routines), client.bind(Words)
        context = words.open()
        held = words.hold.begin()
        routines.gate.wait_for_arrivals()
        thread = draining(server)
        calls: list[Call[Any]] = [words.use.begin(context), untyped(words).total.begin()]
        routines.gate.open()
        assert held.result(LIMIT) == "held"
        for call in calls:
            with pytest.raises(CallFailedDne, match="before it took this call"):
                call.result(LIMIT)
        thread.join(LIMIT)

    def test_after_the_grace(self, serve: Serve, endpoint: str, client: Client, routines: Routines) -> None:
        """What runs longer than the grace ends with 1726, as when the server closes; the server ends in time."""
        server, words = serve(endpoint, routines), client.bind(Words)
        held = words.hold.begin()
        routines.gate.wait_for_arrivals()
        try:
            server.drain(0.05)
            with pytest.raises(CallFailed):
                held.result(LIMIT)
        finally:
            routines.gate.open()

    def test_who_comes_meanwhile(self, serve: Serve, endpoint: str, client: Client, routines: Routines) -> None:
        """A client that connects while the server drains is refused by it, and served by the next."""
        server, words = serve(endpoint, routines), client.bind(Words)
        held = words.hold.begin()
        routines.gate.wait_for_arrivals()
        thread = draining(server)
        with Client(endpoint, connect_timeout=LIMIT) as late:
            call = late.bind(Words).echo.begin(1)
            wait_until(lambda: call.done() or late.statistics().connections > 1)
            routines.gate.open()
            assert held.result(LIMIT) == "held"
            thread.join(LIMIT)
            serve(endpoint, Routines())
            assert call.result(LIMIT) == 1

    def test_in_a_coroutine(self, serve: Serve, endpoint: str, client: Client, routines: Routines) -> None:
        """`drain_async` lets the loop go on."""
        server, words = serve(endpoint, routines), client.bind(Words)
        held = words.hold.begin()
        routines.gate.wait_for_arrivals()

        async def main() -> str:
            ending = asyncio.create_task(server.drain_async(LIMIT))
            await asyncio.sleep(0)
            routines.gate.open()
            result = await held
            await ending
            return result

        assert asyncio.run(main()) == "held" and server.closed

    def test_without_a_call(self, serve: Serve, endpoint: str, client: Client, routines: Routines) -> None:
        """An idle server is drained at once; draining a closed one does nothing."""
        server = serve(endpoint, routines)
        reach(client)
        server.drain(None)
        assert server.closed
        server.drain(None)


def test_stop_refuses(serve: Serve, tmp_path: Path, routines: Routines) -> None:
    """A stop refuses at once, as before: 1722."""
    server = serve(f"ipc://{tmp_path}/stop", routines)
    with Client(server.endpoint) as client:
        words = client.bind(Words)
        held = words.hold.begin()
        routines.gate.wait_for_arrivals()
        server.stop()
        assert status_of(partial(words.echo, 1)) == 1722
        routines.gate.open()
        assert held.result(LIMIT) == "held"


def test_leaves_the_registry_first(tmp_path: Path) -> None:
    """A server that drains leaves its registry first, while calls are taken still."""
    seen: list[bool] = []

    class Registry:
        def announce(self, presence: Presence) -> None:
            """Stay until the server leaves."""
            presence.wait()
            seen.append(server.listening)

    with Server(f"ipc://{tmp_path}/registry", announce=Registry()) as server:
        server.listen()
        server.drain()
        assert seen == [True]


def test_at_full_rate(serve: Serve, tmp_path: Path) -> None:
    """Eight drains, one after the other, of servers that are kept busy with 256 calls: none is lost, each ran once."""
    endpoint, ran = f"ipc://{tmp_path}/rolling", Routines()
    with Client(endpoint, connect_timeout=LIMIT) as client, CompletionPort() as port:
        begin, template = client.bind(Words).echo.begin, port.packet()
        begun = ended = 0
        for _ in range(8):
            server = serve(endpoint, ran)
            goal = ended + 2000
            thread = threading.Thread(target=server.drain, args=(LIMIT,))
            while ended < goal or not server.closed:
                for _ in range(256 - (begun - ended)):
                    begin(begun, notify=template)
                    begun += 1
                if ended >= goal and thread.ident is None:
                    thread.start()
                with suppress(WaitTimeout):  # While the server drains nothing may come.
                    for packet in port.get_many(256, 0.01 if ended >= goal else LIMIT):
                        packet.overlapped.complete()
                        ended += 1
            thread.join(LIMIT)
        serve(endpoint, ran)
        while ended < begun:
            port.get(LIMIT).overlapped.complete()
            ended += 1
    assert sorted(ran.ran) == list(range(begun))


def test_a_client_that_knows_no_parting(serve: Serve, tmp_path: Path, routines: Routines) -> None:
    """A client of another make hears the goodbye, which counts what was taken of it."""
    server = serve(f"ipc://{tmp_path}/other", routines)
    with RawClient(server.endpoint) as raw:
        server.drain()
        heard: Any = raw.hear()
        assert type(heard).__name__ == "Bye" and heard.taken == 0
