"""Calls, streams, ports and servers in event loops of all kinds, through anyio: asyncio's own, uvloop, trio."""

import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from engine import (
    CallCancelled,
    CallError,
    Client,
    CompletionPort,
    Event,
    EventKind,
    InOutPipe,
    InPipe,
    Interface,
    OutPipe,
    Pipe,
    RemoteFault,
    Server,
    State,
    current_call,
    operation,
)
from engine.testing import LIMIT

anyio = pytest.importorskip("anyio", reason="anyio is not installed: it is part of the extra `test`")

BACKENDS: dict[str, tuple[str, dict[str, object]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


class Probe(Interface, id="test.Anyio"):
    """What is called."""

    @operation
    def echo(self, value: int) -> int: ...

    @operation
    def fail(self) -> None: ...

    @operation
    def hold(self) -> bool: ...

    @operation
    def later(self, value: int) -> int: ...

    @operation
    def count(self, to: int, numbers: OutPipe[int] = ...) -> None: ...

    @operation
    def total(self, numbers: InPipe[int] = ...) -> int: ...

    @operation(duplex=True)
    def doubled(self, numbers: InOutPipe[int] = ...) -> None: ...


class Routines:
    """The routines of `Probe`; a held call ends when its client cancels it, or is gone."""

    def __init__(self) -> None:
        self.holding = Event(manual_reset=True)
        self.ended = Event(manual_reset=True)

    def echo(self, value: int) -> int:
        return value

    def fail(self) -> None:
        raise LookupError("not here")

    def hold(self) -> bool:
        with Event() as cancelled:
            current_call().subscribe(EventKind.CLIENT_CANCEL, cancelled)
            self.holding.set()
            found = cancelled.wait(LIMIT)
            self.ended.set()
            return found

    async def later(self, value: int) -> int:
        return value

    def count(self, to: int, numbers: Pipe[int]) -> Any:
        yield from range(to)

    def total(self, numbers: Pipe[int]) -> int:
        return sum(numbers)

    def doubled(self, numbers: Pipe[int]) -> Any:
        for number in numbers:
            yield 2 * number


Test = Callable[[Probe, Routines], Awaitable[None]]


@pytest.fixture(params=BACKENDS)
def run(request: pytest.FixtureRequest) -> Callable[[Test], None]:
    """Runs a test in a loop of each kind, with a server and a client that are entered there."""
    backend, options = BACKENDS[request.param]
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed: it is part of the extra `test`")

    def run(test: Test) -> None:
        async def main() -> None:
            with anyio.fail_after(LIMIT):
                async with Server("tcp://127.0.0.1:0") as server:
                    routines = Routines()
                    with routines.holding, routines.ended:
                        server.register(Probe, routines)
                        server.listen()
                        async with Client(server.endpoint) as client:
                            await test(client.bind(Probe), routines)

        anyio.run(main, backend=backend, backend_options=options)

    return run


def test_calls(run: Callable[[Test], None]) -> None:
    """A call is awaited, and again; what the routine raised is raised; `async def` routines answer, too."""

    async def test(probe: Probe, routines: Routines) -> None:
        call = probe.echo.begin(5)
        assert await call == await call == 5
        assert await probe.later.begin(6) == 6
        with pytest.raises(RemoteFault, match="LookupError: not here"):
            await probe.fail.begin()

    run(test)


def test_many_tasks(run: Callable[[Test], None]) -> None:
    """Tasks of one group await calls side by side."""

    async def test(probe: Probe, routines: Routines) -> None:
        found: list[int] = []

        async def one(number: int) -> None:
            found.append(await probe.echo.begin(number))

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(one, number)
        assert sorted(found) == list(range(50))

    run(test)


@pytest.mark.parametrize("how", ["timeout", "group"])
def test_what_is_cancelled(run: Callable[[Test], None], how: str) -> None:
    """A time-out, and a task group that ends, abort the call, and the server is told at once."""

    async def test(probe: Probe, routines: Routines) -> None:
        call = probe.hold.begin()

        async def wait() -> None:
            await call

        assert await routines.holding.wait_async(LIMIT)
        if how == "timeout":
            with anyio.move_on_after(0.001) as scope:
                await call
            assert scope.cancelled_caught
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await anyio.sleep(0)
                group.cancel_scope.cancel()
        assert call.state is State.DONE
        with pytest.raises(CallCancelled):
            await call
        assert await routines.ended.wait_async(LIMIT)

    run(test)


def test_streams(run: Callable[[Test], None]) -> None:
    """Streams are iterated over, fed by asynchronous iterables, and left."""

    async def numbers() -> AsyncIterator[int]:
        for number in range(5):
            await anyio.sleep(0)
            yield number

    async def test(probe: Probe, routines: Routines) -> None:
        assert [number async for number in probe.count.stream(5)] == [0, 1, 2, 3, 4]
        assert await probe.total.begin(numbers()) == 10
        assert [number async for number in probe.doubled.stream(numbers())] == [0, 2, 4, 6, 8]
        async with probe.count.stream(1_000_000) as stream:
            async for _ in stream:
                break
        with pytest.raises(CallError):
            await stream.call

    run(test)


def test_a_port_and_events(run: Callable[[Test], None]) -> None:
    """Tasks take packets, and wait for events that threads set."""

    async def test(probe: Probe, routines: Routines) -> None:
        with CompletionPort() as port, Event() as event:
            probe.echo.begin(5, notify=port.packet(key=7))
            packet = await port.get_async(LIMIT)
            assert (packet.key, packet.overlapped.complete()) == (7, 5)
            call = probe.echo.begin(6, notify=event)
            assert await event.wait_async(LIMIT)
            assert call.complete() == 6
            assert not await event.wait_async(0.001)
            with pytest.raises(TimeoutError):
                await port.get_async(0.001)

            async def iterate() -> None:
                assert [packet.key async for packet in port] == [1, 2]

            async with anyio.create_task_group() as group:
                group.start_soon(iterate)
                await anyio.to_thread.run_sync(port.post, 1)
                await anyio.to_thread.run_sync(port.post, 2)
                while len(port):
                    await anyio.sleep(0)
                port.close()

    run(test)


def test_a_blocking_call(run: Callable[[Test], None]) -> None:
    """A blocking call in a task warns, in every kind of loop."""

    async def test(probe: Probe, routines: Routines) -> None:
        with pytest.warns(RuntimeWarning, match="blocks the event loop"):
            for _ in range(100):  # One whose answer is there by the time it would wait has not blocked.
                assert probe.echo(5) == 5

    run(test)


def test_closing_in_a_cancelled_scope(run: Callable[[Test], None]) -> None:
    """What is closed while its task is being cancelled is closed all the same."""

    async def test(probe: Probe, routines: Routines) -> None:
        with anyio.move_on_after(0.001):
            async with Client("tcp://127.0.0.1:1") as client:
                await anyio.sleep(LIMIT)  # Until it is cancelled.
        while not client.closed:
            await anyio.sleep(0.001)  # Between two looks.

    run(test)


def test_draining(run: Callable[[Test], None]) -> None:
    """A server is drained by a task, and the loop goes on with others, which end its last call."""

    async def test(probe: Probe, routines: Routines) -> None:
        server = Server("tcp://127.0.0.1:0")
        server.register(Probe, routines)
        server.listen()
        async with Client(server.endpoint) as client, anyio.create_task_group() as group:
            call = client.bind(Probe).hold.begin()
            assert await routines.holding.wait_async(LIMIT)
            group.start_soon(server.drain_async, LIMIT)
            call.cancel(abort=False)
            assert await call is True
        assert server.closed

    run(test)
