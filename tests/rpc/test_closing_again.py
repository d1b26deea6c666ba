"""Closing that a signal handler has broken off, wherever that was: closing again goes on, and nothing is left.

The handler raises at each line of the library that the closing meets.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from engine import (
    AbandonedWait,
    Call,
    Client,
    CompletionPort,
    Event,
    Executor,
    InvalidHandle,
    Semaphore,
    Server,
    ThreadPool,
    WaitableTimer,
    default_pool,
)
from engine.testing import LIMIT, wait_until, wait_until_blocked

from .helpers import at_line, at_step, code_in, new_endpoint, uses_steps

# What a pool does outside of its lock.
POOL = ("close", "stop", "wait_ended", "shutdown", "settle_queued", "_settle")
POOL_TOO = (*POOL, "end", "armed", "disarm", "_drain_locked", "_retire_locked", "_joiners_locked", "_settle_locked")
LINES = 2000  # More than any of these has.
pytestmark = pytest.mark.timeout(10 * LIMIT)  # Each closes some hundred times.
TRANSPORTS = ("loopback", "inproc", "ipc", "tcp")


class Broken(BaseException):
    """What the signal handler raises."""


def library(code: CodeType) -> bool:
    """Pick the code of what is closed; not what all of the process shares, nor what runs under a pool's own lock."""
    if code.co_name in ("record_locked", "__del__"):
        return False
    closing = any(
        code_in(folder)(code)
        for folder in (
            "engine/rpc/",
            "transport/",
            "engine/kernel/port.py",
            "engine/kernel/event.py",
            "engine/kernel/waitable.py",
        )
    )
    return closing or (code_in("engine/pool/")(code) and code.co_name in POOL)


def break_off() -> None:
    raise Broken


def threads() -> set[threading.Thread]:
    """Return the threads that belong to what is closed here."""
    shared = ("engine:monitor", "engine:default", "transport:log", "transport:sent-buffers")
    return {thread for thread in threading.enumerate() if not thread.name.startswith(shared)}


def descriptors() -> int:
    """Return how many files, sockets and pipes are open."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@pytest.fixture(scope="module")
def opened_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the process opens once, for the first of each kind, is open."""
    for transport in TRANSPORTS:
        with Server(new_endpoint(transport, tmp_path_factory.mktemp("once"))) as server:
            server.register("echo", Echo())
            server.listen()
            with Client(server.endpoint) as client:
                echo = client.bind("echo").echo
                assert [len(echo(bytes(2 << 20))) for _ in range(3)] == [2 << 20] * 3


class Echo:
    """A service of large values."""

    def echo(self, value: bytes) -> bytes:
        """Return the value."""
        return value


@pytest.fixture(autouse=True)
def nothing_left(opened_once: None) -> Iterator[None]:
    """Nothing is open afterwards that was not before."""
    default_pool().submit(int)
    before, opened = threads(), descriptors()
    yield
    wait_until(lambda: threads() <= before)
    wait_until(lambda: descriptors() <= opened + 4)  # What the process opens once, for the first of each kind.


def kernel(code: CodeType) -> bool:
    """Pick the code of what is closed in the kernel, and of how waits end."""
    files = ("waitable.py", "event.py", "dispatcher.py", "semaphore.py", "thread.py")
    return code.co_name != "__del__" and any(code_in(f"engine/kernel/{file}")(code) for file in files)


def pool_too(code: CodeType) -> bool:
    """Pick the code of a pool's end, with what runs under its lock."""
    files = ("pool.py", "workers.py", "dispatch.py")
    return code.co_name in POOL_TOO and any(code_in(f"engine/pool/{file}")(code) for file in files)


def at_each_line(
    make: Callable[[], Any], close: Callable[[Any], object], check: Callable[[Any], None],
    at: Callable[..., Any] = at_line, where: Callable[[CodeType], bool] = library,
) -> None:  # fmt: skip
    """Break `close(make())` off at each line, or step, close again, and check."""
    for number in range(LINES):
        thing = make()
        try:
            with at(number, where, break_off) as reached:
                close(thing)
        except Broken:
            pass
        finally:
            close(thing)
        check(thing)
        if reached[0] <= number:
            return
    raise AssertionError(f"more than {LINES} lines")


class Routines:
    """What the server serves."""

    def nothing(self) -> None:
        """Answer."""

    async def soon(self) -> None:
        """Answer, in the server's loop."""


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_server(transport: str, tmp_path: Path) -> None:
    """A server gives back its endpoint, its threads and its event."""
    where = new_endpoint(transport, tmp_path)
    clients: list[Client] = []

    def make() -> Server:
        server = Server(where, workers=1)
        server.register("probe", Routines())
        server.listen()
        clients.append(Client(server.endpoint))
        probe = clients[-1].bind("probe")
        probe.nothing()
        probe.soon()
        return server

    def check(server: Server) -> None:
        assert server.closed
        clients.pop().close()
        with Server(where) as another:
            another.listen()
        wait_until(lambda: not [thread for thread in threads() if "server" in thread.name])

    at_each_line(make, lambda server: server.close(LIMIT), check)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_client(transport: str, tmp_path: Path) -> None:
    """A client tells of the end of each of its calls, and gives back its connection."""
    with Server(new_endpoint(transport, tmp_path)) as server, CompletionPort() as port:
        gate = threading.Event()
        server.register("gate", Waiting(gate))
        server.listen()
        calls: list[list[Call[Any]]] = []

        def make() -> Client:
            client = Client(server.endpoint)
            bound = client.bind("gate")
            told = Event()
            calls.append([bound.pause.begin(notify=port), bound.pause.begin(notify=told), bound.pause.begin()])
            calls[-1][1].user_data = told
            return client

        def check(client: Client) -> None:
            assert client.closed
            begun = calls.pop()
            for call in begun:
                assert call.wait(LIMIT) and call.status() != 0
            assert port.get(LIMIT).overlapped is begun[0]
            while len(port):  # Told twice, if it was broken off in the midst of that.
                assert port.get(LIMIT).overlapped is begun[0]
            assert begun[1].user_data.wait(LIMIT)
            begun[1].user_data.close()

        try:
            at_each_line(make, Client.close, check)
        finally:
            gate.set()


class Waiting:
    """What the client's calls wait for."""

    def __init__(self, gate: threading.Event) -> None:
        self._gate = gate

    def pause(self) -> None:
        """Answer once the gate is open."""
        self._gate.wait(LIMIT)


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("close", [lambda pool: pool.stop(LIMIT), lambda pool: (pool.close(), pool.stop(LIMIT))])
def test_pool(close: Callable[[ThreadPool], object], busy: bool) -> None:
    """A pool ends its threads."""
    pools: list[threading.Event] = []

    def make() -> ThreadPool:
        pool = ThreadPool(2, 2)
        done = threading.Event()
        pool.submit(done.set)
        assert done.wait(LIMIT)
        if busy:
            for _ in range(3):
                pool.submit(int)
        pools.append(done)
        return pool

    def check(pool: ThreadPool) -> None:
        assert pool.closed and pool.statistics().workers == 0 and pool.statistics().queued == 0

    at_each_line(make, close, check)


@uses_steps
@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("close", [lambda pool: pool.stop(LIMIT), lambda pool: (pool.close(), pool.stop(LIMIT))])
def test_pool_at_each_step(close: Callable[[ThreadPool], object], busy: bool) -> None:
    """So does one that was broken off at any step, under its lock, too: what was queued runs or is discarded, once."""
    queued: list[list[int]] = []

    def make() -> ThreadPool:
        pool = ThreadPool(1, 2)
        ran: list[int] = []
        queued.append(ran)
        if busy:
            for number in range(3):
                pool.submit(ran.append, number)
        return pool

    def check(pool: ThreadPool) -> None:
        assert pool.closed and pool.statistics().workers == 0 and pool.statistics().queued == 0
        ran = queued.pop()
        assert len(ran) == len(set(ran))

    at_each_line(make, close, check, at_step, pool_too)


@uses_steps
@pytest.mark.parametrize("make_it", [Event, partial(Event, True), partial(Semaphore, 0, 1), WaitableTimer])
def test_waitable(make_it: Callable[[], Any]) -> None:
    """An event, a semaphore or a timer ends every wait for it: of a thread, of a port, and a registered one."""
    waits: list[tuple[threading.Thread, list[type], CompletionPort]] = []

    def make() -> Any:
        thing, port = make_it(), CompletionPort()
        port.associate_wait(thing)
        ended: list[type] = []

        def wait() -> None:
            try:
                thing.wait(LIMIT)
            except AbandonedWait:
                ended.append(AbandonedWait)

        thread = threading.Thread(target=wait)
        thread.start()
        wait_until_blocked(thread)
        waits.append((thread, ended, port))
        return thing

    def check(thing: Any) -> None:
        thread, ended, port = waits.pop()
        thread.join(LIMIT)
        assert ended == [AbandonedWait]
        with pytest.raises(InvalidHandle):
            thing.wait(0)
        port.get(LIMIT)
        port.close()

    at_each_line(make, lambda thing: thing.close(), check, at_step, kernel)


def test_port() -> None:
    """A port releases who waits for it, and withdraws its waits."""
    event = Event(manual_reset=True)
    waiting: list[tuple[threading.Thread, list[type]]] = []

    def make() -> CompletionPort:
        port = CompletionPort()
        port.associate_wait(event)
        ended: list[type] = []

        def get() -> None:
            try:
                port.get()
            except AbandonedWait:
                ended.append(AbandonedWait)

        thread = threading.Thread(target=get)
        thread.start()
        wait_until_blocked(thread)
        waiting.append((thread, ended))
        return port

    def check(port: CompletionPort) -> None:
        thread, ended = waiting.pop()
        thread.join(LIMIT)
        assert ended == [AbandonedWait]
        assert event.statistics().waiting == 0

    at_each_line(make, CompletionPort.close, check)
    event.close()


@pytest.mark.parametrize("cancel", [False, True])
def test_executor(cancel: bool) -> None:
    """An executor ends its threads, and settles each future."""
    made: list[list[Future[Any]]] = []

    def make() -> Executor:
        executor = Executor(1)
        made.append([executor.submit(int) for _ in range(4)])
        return executor

    def check(executor: Executor) -> None:
        assert executor.statistics().workers == 0
        assert all(future.done() for future in made.pop())

    at_each_line(make, lambda executor: executor.shutdown(cancel_futures=cancel, timeout=LIMIT), check)
