"""A process that forks inside code that the library runs; the children use new objects of every kind, and end.

    python -m tests.lifecycle.inside PLACE FORKS

PLACE is one of `PLACES`. Threads of the parent use the same objects meanwhile. It prints how each child ended that did
not end well.
"""

import asyncio
import contextlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator

from engine import (
    Alerted,
    Client,
    Event,
    Executor,
    Interface,
    Server,
    ThreadPool,
    Timer,
    operation,
    queue_apc,
    register_wait,
    sleep,
)

from .forking import LIMIT, Echo, Echoing, in_child

THREADS = 3


def fork() -> int:
    """Fork a child that uses everything; in the parent return how it ended."""
    child = os.fork()
    if child == 0:
        in_child()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextlib.contextmanager
def busy(body: Callable[[], object]) -> Iterator[None]:
    """Threads repeat `body` meanwhile."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            body()

    threads = [threading.Thread(target=loop) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def in_a_callback(forks: int) -> list[int]:
    """In a callback of a pool that others use."""
    codes: list[int] = []
    # Nobody waits by the sleep: one that submits without end lets the others run.
    with ThreadPool(2) as pool, busy(lambda: (pool.submit(int), time.sleep(0))):  # Lets others run: it is to be busy.
        for _ in range(forks):
            with Event() as done:
                pool.submit(lambda done=done: (codes.append(fork()), done.set()))
                done.wait()
    return codes


def in_a_timer(forks: int) -> list[int]:
    """In the callback of a timer."""
    codes: list[int] = []
    for _ in range(forks):
        with Event() as done, Timer(lambda done=done: (codes.append(fork()), done.set())) as timer:
            timer.set(0)
            done.wait()
    return codes


def in_an_executor(forks: int) -> list[int]:
    """In a call of an executor that others use."""
    with Executor(2) as executor, busy(lambda: executor.submit(int).result()):
        return [executor.submit(fork).result() for _ in range(forks)]


def in_an_apc(forks: int) -> list[int]:
    """In an APC, with others behind it."""
    codes: list[int] = []

    def busily() -> None:
        queue_apc(int)
        with contextlib.suppress(Alerted):
            sleep(0, alertable=True)

    with busy(busily):
        for _ in range(forks):
            queue_apc(lambda: codes.append(fork()))
            queue_apc(int)
            with contextlib.suppress(Alerted):
                sleep(LIMIT, alertable=True)
    return codes


def in_a_registered_wait(forks: int) -> list[int]:
    """In the callback of a registered wait, on the thread that signals."""
    codes: list[int] = []
    for _ in range(forks):
        with Event() as event:
            register_wait(event, lambda status: codes.append(fork()))
            event.set()
    return codes


def in_a_task(forks: int) -> list[int]:
    """In a task of an event loop that waits for calls."""

    async def run() -> list[int]:
        with Server(f"ipc://@forks-{os.getpid()}") as server, Client(server.endpoint) as client:
            server.register(Echo, Echoing())
            server.listen()
            calls = [client.bind(Echo).echo.begin(number) for number in range(THREADS)]
            codes = [fork() for _ in range(forks)]
            assert [await call for call in calls] == list(range(THREADS))
            return codes

    return asyncio.run(run())


class Forking(Interface, id="tests.forks.Forking", version=(1, 0)):
    """A routine that forks."""

    @operation
    def fork(self) -> int:
        """How the child ended, which called out."""

    @operation
    def fork_async(self) -> int:
        """As `fork`, on the server's event loop."""


class Routines:
    """Forks."""

    def fork(self) -> int:
        """Fork on a worker."""
        return fork()

    async def fork_async(self) -> int:
        """Fork on the loop."""
        return fork()


def in_a_routine(forks: int, name: str = "fork") -> list[int]:
    """In a routine of a server that others call; its child calls other servers by new clients."""
    with Server(f"ipc://@forks-{os.getpid()}", workers=4) as server, Client(server.endpoint) as client:
        server.register(Echo, Echoing())
        server.register(Forking, Routines())
        server.listen()
        echo, forking = client.bind(Echo), client.bind(Forking)
        with busy(lambda: echo.echo(1, timeout=4 * LIMIT)):
            return [getattr(forking, name)() for _ in range(forks)]


def in_a_coroutine(forks: int) -> list[int]:
    """In an `async def` routine."""
    return in_a_routine(forks, "fork_async")


PLACES = {
    function.__name__.removeprefix("in_").replace("_", "-"): function
    for function in (
        in_a_callback, in_a_timer, in_an_executor, in_an_apc, in_a_registered_wait, in_a_task, in_a_routine,
        in_a_coroutine,
    )
}  # fmt: skip


def main(place: str, forks: int) -> None:
    """Fork there that often."""
    warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks in a process with threads.
    codes = PLACES[place](forks)
    assert len(codes) == forks
    for number, code in enumerate(codes):
        if code:
            print(f"child {number} forked in {place}: {code}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
