"""Processes that end in a hurry: nothing is closed, and threads are in the midst of things.

    python -m tests.lifecycle.leaving WAY

WAY is one of `WAYS`. Each prints "leaving" last, and ends at once, with code 0 unless it says otherwise.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from engine import (
    Client,
    CompletionPort,
    Event,
    Executor,
    Interface,
    Semaphore,
    Server,
    ServerCall,
    ThreadPool,
    Timer,
    Wait,
    WaitableTimer,
    default_pool,
    manager,
    operation,
    queue_apc,
    register_wait,
    sleep,
    wait_all,
    wait_any,
)
from engine.testing import LIMIT, wait_until
from transport import OverlappedDescriptor

CLIENTS = 9

# What is left open must not be dropped before the end.
left: list[Any] = []


class Kept(Interface, id="tests.leaving.Kept", version=(1, 0)):
    """Calls that are never answered, and others."""

    @operation
    def keep(self) -> int:
        """Not answered."""

    @operation
    def echo(self, value: int) -> int:
        """Return the value."""

    @operation
    def leave(self, code: int) -> int:
        """Call `sys.exit`."""

    @operation
    def sleep(self) -> int:
        """Wait for ever, in the library."""

    @operation
    def sleep_async(self) -> int:
        """Wait for ever, in a coroutine."""


class Keeping:
    """Keeps its calls."""

    def __init__(self) -> None:
        self.calls: list[ServerCall] = []
        self.entered = threading.Semaphore(0)

    @manager
    def keep(self, call: ServerCall) -> None:
        """Keep the call."""
        self.calls.append(call)
        self.entered.release()

    def echo(self, value: int) -> int:
        """Return the value."""
        return value

    def leave(self, code: int) -> int:
        """Leave."""
        sys.exit(code)

    def sleep(self) -> int:
        """Wait."""
        self.entered.release()
        sleep(None)
        return 0

    async def sleep_async(self) -> int:
        """Wait."""
        self.entered.release()
        await asyncio.sleep(1000)  # The process is to leave meanwhile.
        return 0


def serve(scheme: str = "ipc") -> tuple[Server, Keeping]:
    """A server that is left open."""
    name = f"leaving-{os.getpid()}-{len(left)}"
    endpoint = {"ipc": f"ipc://@{name}", "tcp": "tcp://127.0.0.1:*", "loopback": f"loopback://{name}"}[scheme]
    server = Server(endpoint, workers=2)
    keeping = Keeping()
    server.register(Kept, keeping)
    server.listen()
    left.append(server)
    return server, keeping


def serve_elsewhere(pipe: Any, pid: int) -> None:
    """A server in a process of its own, which dies with its parent, or of it."""
    server, _ = serve("tcp")
    pipe.send(server.endpoint)
    signal.pause()


def told(call: Any, kind: Any) -> None:
    """Called with what became of a call."""


def callbacks(endpoints: list[str]) -> None:
    """Clients that are left open, each with a call outstanding that is told by callback."""
    for endpoint in endpoints:
        client = Client(endpoint)
        left.append(client)
        kept = client.bind(Kept)
        assert kept.echo(1) == 1
        left.append(kept.keep.begin(notify=told))


# The ways.


def clients_of_open_servers() -> None:
    """The servers are of this process, and are left open too."""
    callbacks([serve(scheme)[0].endpoint for scheme in ("ipc", "tcp", "loopback") for _ in range(CLIENTS // 3)])


def clients_of_dying_servers() -> None:
    """The servers are daemon processes, which are killed as this one ends."""
    endpoints = []
    context = multiprocessing.get_context("fork")
    for _ in range(CLIENTS):
        ours, theirs = context.Pipe()
        context.Process(target=serve_elsewhere, args=(theirs, os.getpid()), daemon=True).start()
        endpoints.append(ours.recv())
    callbacks(endpoints)


def clients_of_killed_servers() -> None:
    """The servers are processes that a hook of the user's kills, as the interpreter ends."""
    import atexit

    endpoints = []
    context = multiprocessing.get_context("fork")
    for _ in range(CLIENTS):
        ours, theirs = context.Pipe()
        process = context.Process(target=serve_elsewhere, args=(theirs, os.getpid()), daemon=True)
        process.start()
        atexit.register(process.kill)
        endpoints.append(ours.recv())
    callbacks(endpoints)


def clients_of_closed_servers() -> None:
    """The servers are closed by a hook of the user's, as the interpreter ends."""
    import atexit

    servers = [serve("tcp")[0] for _ in range(CLIENTS)]
    callbacks([server.endpoint for server in servers])
    for server in servers:
        atexit.register(server.close, 0)


def clients_of_nobody() -> None:
    """Nobody listens there."""
    for number in range(CLIENTS):
        client = Client(f"ipc://@leaving-{os.getpid()}-nobody-{number}")
        left.append(client)
        left.append(client.bind(Kept).keep.begin(notify=told))


def routines_that_wait() -> None:
    """Routines wait, on workers and on the loop, and callers in daemon threads."""
    server, keeping = serve()
    client = Client(server.endpoint)
    left.append(client)
    kept = client.bind(Kept)
    for call in (kept.sleep, kept.sleep_async, kept.keep):
        threading.Thread(target=call, daemon=True).start()
        keeping.entered.acquire()


def routine_that_leaves() -> None:
    """`sys.exit` in a routine fails its call and nothing else."""
    logging.getLogger("engine.rpc.faults").setLevel(logging.CRITICAL)  # It tells what routines raise.
    server, _ = serve()
    with Client(server.endpoint) as client:
        kept = client.bind(Kept)
        try:
            kept.leave(3)
        except Exception as error:
            print(type(error).__name__)
        assert kept.echo(2) == 2
    server.close()


def open_objects() -> None:
    """Pools, executors, timers, waits, ports and sources, all idle or armed."""
    pool, executor, port, event = ThreadPool(4), Executor(2), CompletionPort(), Event()
    timer, due = Timer(int, pool=pool), WaitableTimer()
    timer.set(100)
    due.set(100)
    wait = Wait(print, pool=pool)
    wait.set(Semaphore(0, 1))
    ours, theirs = socket.socketpair()
    source = OverlappedDescriptor(ours)
    port.associate(source)
    source.begin_read(10)
    registered = register_wait(event, lambda status: print("told"), 100)
    executor.submit(int).result()
    default_pool().submit(int)
    port.associate_wait(due)
    left.extend([pool, executor, port, event, timer, due, wait, ours, theirs, source, registered])


def waiting_daemons() -> None:
    """Daemon threads are in each kind of wait."""
    server, keeping = serve()
    client, port, event, semaphore = Client(server.endpoint), CompletionPort(), Event(), Semaphore(0, 1)
    left.extend([client, port, event, semaphore])
    kept = client.bind(Kept)
    call = kept.keep.begin()
    waits: list[Callable[[], object]] = [
        event.wait, port.get, lambda: port.get_many(4, alertable=True), semaphore.wait, call.wait, call.result,
        lambda: wait_any([event, semaphore]), lambda: wait_all([event, semaphore]), lambda: sleep(None),
        lambda: sleep(None, alertable=True), kept.keep, server.wait, lambda: time.sleep(1000),
        lambda: asyncio.run(event.wait_async()),
    ]  # fmt: skip
    threads = [threading.Thread(target=wait, daemon=True) for wait in waits]
    for thread in threads:
        thread.start()
    wait_until(lambda: event.statistics().waiting >= 3)


def busy_daemons() -> None:
    """Daemon threads go on using the library as the interpreter ends."""
    server, _ = serve()
    client, port, executor, pool = Client(server.endpoint), CompletionPort(), Executor(2), ThreadPool(2)
    left.extend([client, port, executor, pool])
    kept = client.bind(Kept)
    turns = [0] * 5

    def repeat(number: int, body: Callable[[], object]) -> None:
        while True:
            try:
                body()
            except Exception:
                time.sleep(0.001)  # It is over: do not spin until the process ends.
            turns[number] += 1

    def round_trip() -> None:
        port.post()
        port.get(1)

    bodies: list[Callable[[], object]] = [
        lambda: kept.echo(1), round_trip, lambda: executor.submit(int).result(), lambda: pool.submit(int),
        lambda: queue_apc(int),
    ]  # fmt: skip
    for number, body in enumerate(bodies):
        threading.Thread(target=repeat, args=(number, body), daemon=True).start()
    wait_until(lambda: all(turns))


def waiting_threads() -> None:
    """Threads that are no daemons wait in the library; what they wait for comes after the main thread's end."""
    server, keeping = serve()
    client, event, port = Client(server.endpoint), Event(), CompletionPort()
    left.extend([client, event, port])
    kept = client.bind(Kept)

    def finish() -> None:
        threading.main_thread().join()
        assert kept.echo(3, timeout=LIMIT) == 3
        event.set()
        port.post()
        keeping.entered.acquire()
        keeping.calls[0].complete(5)

    waits: list[Callable[[], object]] = [
        lambda: event.wait(LIMIT), lambda: port.get(LIMIT), lambda: kept.keep(timeout=LIMIT),
    ]  # fmt: skip
    for body in (*waits, finish):
        threading.Thread(target=body).start()


def first_use_after_the_main_thread() -> None:
    """A thread that is no daemon uses the library for the first time when the main thread has ended."""

    def late() -> None:
        threading.main_thread().join()
        with Event() as event, Event() as called:
            register_wait(event, lambda status: called.set(), 0.01)
            called.wait(LIMIT)
        server, _ = serve()
        with Client(server.endpoint) as client:
            assert client.bind(Kept).echo(1, timeout=LIMIT) == 1
        server.close()

    threading.Thread(target=late).start()


def async_clients() -> None:
    """An event loop is left with calls that were awaited."""
    server, _ = serve()
    client = Client(server.endpoint)
    left.append(client)

    async def run() -> None:
        kept = client.bind(Kept)
        assert await kept.echo.begin(1) == 1
        waiting = asyncio.ensure_future(_await(kept.keep.begin()))
        await asyncio.sleep(0)  # One turn: it awaits.
        waiting.cancel()

    asyncio.run(run())


async def _await(call: Any) -> None:
    await call


def hooks_of_users() -> None:
    """The user's exit hooks use what is open, and make something new."""
    import atexit

    server, _ = serve()
    client = Client(server.endpoint)
    left.append(client)
    kept = client.bind(Kept)
    kept.echo(1)

    def hook() -> None:
        assert kept.echo(4, timeout=LIMIT) == 4
        with Event(signaled=True) as event:
            assert event.wait(LIMIT)

    atexit.register(hook)


def a_code() -> None:
    """`sys.exit` with a code, everything open."""
    callbacks([serve()[0].endpoint])
    print("leaving", flush=True)
    sys.exit(7)


def a_text() -> None:
    """`sys.exit` with a text, everything open."""
    callbacks([serve()[0].endpoint])
    print("leaving", flush=True)
    sys.exit("for a reason")


WAYS = {
    name.replace("_", "-"): value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__module__", "") == __name__ and value.__annotations__ == {"return": None}
    and not isinstance(value, type)
}  # fmt: skip


if __name__ == "__main__":
    WAYS[sys.argv[1]]()
    print("leaving", flush=True)
