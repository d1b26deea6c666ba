"""Signal handlers that call the library, wherever in the library they have interrupted their thread.

A handler runs in the main thread, between two steps of what that thread was doing. Here it is called at each line of
the library's code that an operation meets.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor as StandardExecutor
from functools import partial
from types import CodeType
from typing import Any

import pytest

from engine import (
    Alerted,
    Client,
    CompletionPort,
    Deadlock,
    EngineError,
    Event,
    Executor,
    Mutex,
    Semaphore,
    Server,
    ThreadPool,
    WaitableTimer,
    queue_apc,
    register_wait,
    sleep,
)
from engine.testing import LIMIT, wait_until
from transport import TransportError

from .helpers import at_line, code_in, reach
from .interfaces import Probe
from .service import make_server

LINES = 400  # More than any operation below has; each is tried until it ends before the line that was asked for.


def library(code: CodeType) -> bool:
    """Pick the library's code, but for the look at the stack that takes as many lines as the stack has frames."""
    return code_in("engine/")(code) and code.co_name != "interrupting"


class World:
    """What the operations below use."""

    def __init__(self, connect_timeout: float = LIMIT) -> None:
        self.event = Event(manual_reset=True)
        self.semaphore = Semaphore(0, 1 << 20)
        self.mutex = Mutex()
        self.timer = WaitableTimer()
        self.port = CompletionPort(4)
        self.pool = ThreadPool(1, 2)
        self.executor = Executor(2)
        self.server, _ = make_server("loopback://signal-handlers")
        self.server.listen()
        self.client = Client("loopback://signal-handlers", connect_timeout=connect_timeout)
        self.probe = self.client.bind(Probe)
        reach(self.client)
        self.probe.nothing()

    def close(self) -> None:
        """Close all of it."""
        self.client.close()
        self.server.close()
        self.executor.shutdown()
        self.pool.close()
        self.port.close()
        for thing in (self.event, self.semaphore, self.mutex, self.timer):
            thing.close()


@pytest.fixture
def world() -> Iterator[World]:
    """One of each."""
    made = World()
    yield made
    made.close()


def wait_registered(world: World) -> None:
    """An event with a registered wait is signaled."""
    register_wait(world.event, lambda status: None, 0)
    handle = register_wait(world.event, lambda status: None)
    world.event.set()
    handle.cancel()
    world.event.reset()


def take_all(world: World) -> None:
    """A dequeue that finds packets, or nothing."""
    try:
        world.port.get_many(1000, 0)
    except TimeoutError:
        pass


# What the main thread is doing as the signal comes.
INTERRUPTED: dict[str, Callable[[World], object]] = {
    "set": lambda world: world.event.set(),
    "wait": lambda world: world.event.wait(0),
    "registered wait": wait_registered,
    "release": lambda world: world.semaphore.release(),
    "mutex": lambda world: (world.mutex.wait(), world.mutex.release()),
    "timer": lambda world: (world.timer.set(60), world.timer.cancel()),
    "post": lambda world: world.port.post(),
    "get": take_all,
    "wait for a port": lambda world: register_wait(world.port, lambda status: None).cancel(),
    "queue_apc": lambda world: queue_apc(int),
    "alertable wait": lambda world: sleep(0, alertable=True),
    "submit": lambda world: world.pool.submit(int),
    "executor": lambda world: world.executor.submit(int).result(LIMIT),
    "call": lambda world: world.probe.nothing(),
    "statistics": lambda world: world.server.statistics(),
}


def at_each_line(world: World, operation: Callable[[World], object], handler: Callable[[], None], step: int = 1) -> int:
    """Call `handler` at each (or each third, ...) line of the library that `operation` meets; return how often."""
    for called, number in enumerate(range(0, LINES, step)):
        with at_line(number, library, handler) as reached:
            operation(world)
        if reached[0] <= number:
            return called
    raise AssertionError(f"more than {LINES} lines")


class TestSafe:
    """What a signal handler may call, wherever it interrupted its thread."""

    @pytest.mark.parametrize("interrupted", INTERRUPTED)
    def test_event_set(self, world: World, interrupted: str) -> None:
        """`Event.set` returns, and the event is signaled then or a moment later: every wait for it ends."""
        with Event() as told, Event(manual_reset=True) as done:

            def handler() -> None:
                told.set()
                done.set()

            for number in range(LINES):
                calls: list[int] = []
                register_wait(done, partial(lambda calls, status: calls.append(1), calls))
                with at_line(number, library, handler) as reached:
                    INTERRUPTED[interrupted](world)
                if reached[0] <= number:
                    break
                assert told.wait(LIMIT), f"not signaled at line {number}"
                assert done.wait(LIMIT), f"not signaled at line {number}"
                wait_until(lambda: calls == [1])  # noqa: B023  # called in this turn
                done.reset()

    @pytest.mark.parametrize("interrupted", INTERRUPTED)
    def test_port_post(self, world: World, interrupted: str) -> None:
        """`CompletionPort.post` returns, and each packet is takeable then or a moment later, once."""
        with CompletionPort(2) as port:
            posted = at_each_line(world, INTERRUPTED[interrupted], lambda: port.post(7))
            for _ in range(posted):
                assert port.get(LIMIT).key == 7
            assert len(port) == 0

    @pytest.mark.parametrize("interrupted", ["post", "get", "wait for a port"])
    def test_the_port_itself(self, world: World, interrupted: str) -> None:
        """So it is with a port in the midst of whose own use the handler comes."""
        posted, taken = [0], [0]

        def handler() -> None:
            world.port.post("handler")
            posted[0] += 1

        def operation(world: World) -> None:
            if interrupted == "get":
                try:
                    taken[0] += sum(packet.key == "handler" for packet in world.port.get_many(1000, 0))
                except TimeoutError:
                    pass
            else:
                INTERRUPTED[interrupted](world)

        at_each_line(world, operation, handler)
        while taken[0] < posted[0]:
            taken[0] += sum(packet.key == "handler" for packet in world.port.get_many(1000, LIMIT))
        assert taken == posted

    @pytest.mark.parametrize("interrupted", INTERRUPTED)
    def test_queue_apc(self, world: World, interrupted: str) -> None:
        """`queue_apc` returns, and the function runs once, in the thread's next alertable waits."""
        ran: list[int] = []
        queued = at_each_line(world, INTERRUPTED[interrupted], lambda: queue_apc(ran.append, 1))
        while len(ran) < queued:
            try:
                sleep(LIMIT, alertable=True)
            except Alerted:
                pass
        assert len(ran) == queued

    @pytest.mark.parametrize("interrupted", ["call", "statistics", "registered wait", "post", "submit"])
    @pytest.mark.parametrize("ask", [Server.request_stop, Server.stop])
    def test_stop(self, world: World, interrupted: str, ask: Callable[[Server], None]) -> None:
        """`Server.request_stop` and `stop` return, and the server stops then or a moment later."""
        for number in range(LINES):
            with Server(f"loopback://stopped-{interrupted.replace(' ', '-')}") as server:
                server.listen()
                server.register("probe", Routines())
                with Client(server.endpoint) as client:
                    probe = client.bind("probe")
                    probe.nothing()

                    def operation(world: World, server: Server = server, probe: Any = probe) -> None:
                        if interrupted == "call":
                            probe.nothing.begin().wait(LIMIT)
                        elif interrupted == "statistics":
                            server.statistics()
                        else:
                            INTERRUPTED[interrupted](world)

                    with at_line(number, library, partial(ask, server)) as reached:
                        operation(world)
                    if reached[0] <= number:
                        return
                    assert server.wait(LIMIT), f"it did not stop at line {number}"
                    assert not server.listening


class Routines:
    """What the servers above serve."""

    def nothing(self) -> None:
        """Answer."""


# What is not meant for handlers, and what people write there all the same.
UNSAFE: dict[str, Callable[[World], object]] = {
    "Event.reset": lambda world: world.event.reset(),
    "Event.is_set": lambda world: world.event.is_set(),
    "Semaphore.release": lambda world: world.semaphore.release(),
    "WaitableTimer.set": lambda world: world.timer.set(60),
    "CompletionPort.get": take_all,
    "CompletionPort.statistics": lambda world: world.port.statistics(),
    "register_wait": lambda world: register_wait(world.event, lambda status: None).cancel(),
    "ThreadPool.submit": lambda world: world.pool.submit(int),
    "Executor.submit": lambda world: world.executor.submit(int),
    "begin": lambda world: world.probe.nothing.begin(),
    "Server.statistics": lambda world: world.server.statistics(),
    "Client.statistics": lambda world: world.client.statistics(),
}
CLOSING: dict[str, Callable[[World], object]] = {
    "Client.close": lambda world: world.client.close(),
    "Server.close": lambda world: world.server.close(0.0),
    "Executor.shutdown": lambda world: world.executor.shutdown(wait=False),
    "ThreadPool.close": lambda world: world.pool.close(),
    "CompletionPort.close": lambda world: world.port.close(),
    "Event.close": lambda world: world.event.close(),
}


class TestUnsafe:
    """What a signal handler should not call says so, and does not hang."""

    @pytest.mark.parametrize("interrupted", INTERRUPTED)
    @pytest.mark.parametrize("called", UNSAFE)
    def test_it_does_its_work_or_raises(self, world: World, called: str, interrupted: str) -> None:
        """Any other function either does its work or raises `Deadlock`, having changed nothing; it never hangs."""
        refused: list[BaseException] = []

        def handler() -> None:
            try:
                UNSAFE[called](world)
            except (Deadlock, TransportError) as error:
                refused.append(error)

        at_each_line(world, INTERRUPTED[interrupted], handler, step=3)
        for error in refused:
            assert "signal handler" in str(error)
        assert world.probe.echo("goes on") == "goes on"

    @pytest.mark.parametrize("called", CLOSING)
    @pytest.mark.parametrize("interrupted", ["set", "post", "submit", "executor", "call"])
    def test_closing(self, called: str, interrupted: str) -> None:
        """Closing, too, works or raises; what is closed afterwards ends well."""
        # A call to a server that was closed takes all of its time.
        for number in range(0, LINES, 11 if called == "Server.close" else 7):
            world = World(connect_timeout=0.5)
            try:

                def handler(world: World = world) -> None:
                    try:
                        CLOSING[called](world)
                    except (EngineError, TransportError):
                        pass

                with at_line(number, library, handler) as reached:
                    try:
                        INTERRUPTED[interrupted](world)
                    except (EngineError, TransportError, RuntimeError):
                        pass  # What it used was closed under it.
            finally:
                world.close()
            if reached[0] <= number:
                break


def test_the_main_thread_runs_this() -> None:
    """Handlers run in the main thread, and so does this suite."""
    assert threading.current_thread() is threading.main_thread()
    assert issubclass(Executor, StandardExecutor)
