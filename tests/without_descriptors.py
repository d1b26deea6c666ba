"""Programs with no file descriptor left when they first use the library: `python -m tests.without_descriptors NAME`.

Each prints what came of it. They are processes of their own because a poll set, once made, stays.
"""

import asyncio
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable

from engine import (
    Client,
    CompletionPort,
    EngineError,
    Event,
    Executor,
    Server,
    ThreadPool,
    Timer,
    register_wait,
    wait_any,
)
from engine.testing import LIMIT
from transport import EndpointError, OverlappedDescriptor

MOST = 64
held: list[int] = []


def fill() -> None:
    """Open all that may be opened."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass


def free(most: int = MOST) -> None:
    """Close so many of them."""
    for _ in range(min(most, len(held))):
        os.close(held.pop())


def wait() -> bool:
    """A wait that ends by its limit, and one that is satisfied."""
    with Event() as event:
        fill()
        ended = not event.wait(0.01)
        event.set()
        return ended and event.wait(LIMIT)


def port() -> bool:
    """A packet that another thread posts."""
    with CompletionPort() as port:
        fill()
        threading.Timer(0.01, port.post, (7,)).start()
        return bool(port.get(LIMIT).key == 7)


def timer() -> bool:
    """A timer's callback, on a worker of a pool."""
    fired = threading.Event()
    timer = Timer(fired.set)
    fill()
    timer.set(0.01)
    return fired.wait(LIMIT)


def registered() -> bool:
    """A registered wait."""
    told = threading.Event()
    event = Event()
    fill()
    register_wait(event, lambda status: told.set())
    event.set()
    return told.wait(LIMIT)


def pool() -> bool:
    """A pool: callbacks run, before and after its worker was idle."""
    with ThreadPool(1, 1) as pool:
        fill()
        for _ in range(3):
            done = Event()
            pool.submit(done.set)
            if not done.wait(LIMIT):
                return False
        return True


def executor() -> bool:
    """An executor."""
    with Executor(2) as executor:
        fill()
        return executor.submit(pow, 2, 3).result(LIMIT) == 8


def awaited() -> bool:
    """A task's wait that ends by its limit, and one that is satisfied."""

    async def main() -> bool:
        with Event() as event:
            fill()
            ended = not await event.wait_async(0.01)
            threading.Timer(0.01, event.set).start()
            return ended and await event.wait_async(LIMIT)

    return asyncio.run(main())


def process() -> bool:
    """The end of a process, whose own descriptor is the last one."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        fill()
        free(1)
        threading.Timer(0.1, child.stdin.close).start()
        return wait_any([child], LIMIT) == 0


def source() -> bool:
    """A source cannot be polled, and says so; later it can."""
    with CompletionPort() as port:
        one, other = os.pipe()
        with OverlappedDescriptor(one) as reading:
            fill()
            try:
                port.associate(reading, 1)
            except EngineError as error:
                refused = int(error.status)
            free()
            port.associate(reading, 1)
            reading.begin_read(bytearray(1))
            os.write(other, b"x")
            return refused == 1816 and port.get(LIMIT).key == 1


def client() -> bool:
    """A client says that it cannot be had; later it can, but nobody is there."""
    fill()
    refused = 0
    for _ in range(30):
        try:
            Client("tcp://127.0.0.1:9").close()
            break
        except EndpointError:
            refused += 1
        free(1)
    free()
    Client("tcp://127.0.0.1:9").close()
    return 10 < refused < 30


def server() -> bool:
    """A server says that it cannot listen; later it can."""
    fill()
    refused = 0
    for _ in range(30):
        with Server("tcp://127.0.0.1:0") as server:
            try:
                server.listen()
                break
            except EndpointError:
                refused += 1
        free(1)
    free()
    with Server("tcp://127.0.0.1:0") as server:
        server.listen()
    return 10 < refused < 30


def another() -> bool:
    """A client of a process that has one already."""
    with Client("tcp://127.0.0.1:9"):
        return client()


PROGRAMS: dict[str, Callable[[], bool]] = {
    each.__name__: each
    for each in (wait, port, timer, registered, pool, executor, awaited, process, source, client, server, another)
}

if __name__ == "__main__":
    print(PROGRAMS[sys.argv[1]](), flush=True)
    free()
