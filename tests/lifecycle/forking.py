"""A process with busy threads that forks children, each of which uses new objects of every kind and ends.

    python -m tests.lifecycle.forking BUSY FORKS

BUSY is one of `BUSY_WITH`: what three threads of the parent do in a loop meanwhile. It prints what became of the
children that did not end well; nothing if all did.
"""

import contextlib
import faulthandler
import itertools
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

from engine import (
    Alerted,
    Client,
    CompletionPort,
    Event,
    Executor,
    Interface,
    Mutex,
    Semaphore,
    Server,
    ThreadPool,
    Timer,
    WaitableTimer,
    WaitTimeout,
    Work,
    default_pool,
    operation,
    queue_apc,
    register_wait,
    signal_and_wait,
    sleep,
    wait_all,
    wait_any,
)
from transport import OverlappedDescriptor

LIMIT = 40.0  # Seconds; spent only by a child that hangs. Twice that is over before its test's own time is.
THREADS = 3

_names = itertools.count(1)
_folder = tempfile.mkdtemp(prefix="forks-")


class Echo(Interface, id="tests.forks.Echo", version=(1, 0)):
    """What every server here serves."""

    @operation
    def echo(self, value: int) -> int:
        """Return the value."""


class Echoing:
    """Answers."""

    def echo(self, value: int) -> int:
        """Return the value."""
        return value


@contextlib.contextmanager
def serving(scheme: str) -> Iterator[str]:
    """A server of this process; yields its endpoint."""
    name = f"{os.getpid()}-{next(_names)}"
    with Server(f"ipc://{_folder}/{name}" if scheme == "ipc" else f"loopback://{name}") as server:
        server.register(Echo, Echoing())
        server.listen()
        yield server.endpoint


# What a child does. Each uses new objects only.


def events() -> None:
    """Events, mutexes and semaphores are signaled, waited for and consumed."""
    three = Semaphore(0, 1)
    with Event(signaled=True) as one, Event() as two, Mutex():
        assert one.wait(LIMIT)
        two.set()
        assert wait_any([one, two], LIMIT) == 1
        assert signal_and_wait(three, three, LIMIT) == 0
        one.set(), two.set(), three.release()
        assert wait_all([one, two, three], LIMIT) == 0


def ports() -> None:
    """A port takes packets, of a wait too."""
    with CompletionPort() as port, Event() as event:
        port.post(key=1)
        assert port.get(LIMIT).key == 1
        port.associate_wait(event, key=2)
        event.set()
        assert port.get(LIMIT).key == 2


def apcs() -> None:
    """An APC runs in the next alertable wait, and none of the parent's does."""
    ran: list[int] = []
    queue_apc(ran.append, 1)
    try:
        sleep(LIMIT, alertable=True)
    except Alerted:
        pass
    assert ran == [1]


def pools() -> None:
    """Work objects, the default pool, timers and executors run callbacks."""
    with Event() as ran, ThreadPool(2) as pool:
        with Work(ran.set, pool=pool) as work:
            work.submit()
            assert ran.wait(LIMIT)
        with Timer(ran.set, pool=pool) as timer:
            timer.set(0.001)
            assert ran.wait(LIMIT)
        default_pool().submit(ran.set)
        assert ran.wait(LIMIT)
    with Executor(2) as executor:
        assert executor.submit(pow, 2, 5).result(LIMIT) == 32


def waits() -> None:
    """Timers become signaled, threads are waited for, registered waits are called."""
    with WaitableTimer() as timer, Event() as called, Event() as event:
        timer.set(0.001)
        assert timer.wait(LIMIT)
        register_wait(event, lambda status: called.set())
        event.set()
        assert called.wait(LIMIT)
    thread = threading.Thread(target=int)
    thread.start()
    assert wait_any([thread], LIMIT) == 0


def calls() -> None:
    """A client calls a server, over a socket and in memory, with a packet and with a callback."""
    for scheme in ("ipc", "loopback"):
        with serving(scheme) as endpoint, Client(endpoint) as client, CompletionPort() as port, Event() as told:
            echo = client.bind(Echo).echo
            assert echo(1, timeout=LIMIT) == 1
            call = echo.begin(2, notify=port)
            assert port.get(LIMIT).overlapped is call and call.complete() == 2
            echo.begin(3, notify=lambda call, kind: told.set())
            assert told.wait(LIMIT)


def sources() -> None:
    """What arrives on a socket completes a read."""
    ours, theirs = socket.socketpair()
    with ours, theirs, CompletionPort() as port, OverlappedDescriptor(ours) as source:
        port.associate(source, key=5)
        source.begin_read(10)
        theirs.send(b"hello")
        assert port.get(LIMIT).key == 5


KINDS: tuple[Callable[[], None], ...] = (events, ports, apcs, pools, waits, calls, sources)


def in_child() -> None:
    """Use everything, and end; the alarm ends a child that hangs, with a look at where."""
    signal.alarm(int(2 * LIMIT))
    faulthandler.dump_traceback_later(LIMIT)
    code = 1
    try:
        for kind in KINDS:
            kind()
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


# What the parent's threads do meanwhile, again and again. Each yields what a thread repeats.

Body = Callable[[], object]


@contextlib.contextmanager
def busy_events() -> Iterator[Body]:
    """Set an event and wait for it."""
    with Event() as event:
        yield lambda: (event.set(), event.wait(0))


@contextlib.contextmanager
def busy_apcs() -> Iterator[Body]:
    """Queue an APC to oneself, and let it run."""

    def body() -> None:
        queue_apc(int)
        with contextlib.suppress(Alerted):
            sleep(0, alertable=True)

    yield body


@contextlib.contextmanager
def busy_threads() -> Iterator[Body]:
    """Start a thread and wait for its end."""

    def body() -> None:
        thread = threading.Thread(target=int)
        thread.start()
        wait_any([thread], LIMIT)

    yield body


@contextlib.contextmanager
def busy_ports() -> Iterator[Body]:
    """Post to a port and take the packet, and make ports."""
    with CompletionPort() as port:

        def body() -> None:
            port.post(key=1)
            with contextlib.suppress(WaitTimeout):  # Another thread took it.
                port.get_many(4, 0)
            with CompletionPort() as other, Event(signaled=True) as event:
                other.associate_wait(event)

        yield body


@contextlib.contextmanager
def busy_pools() -> Iterator[Body]:
    """Run work on a pool, with a new timer each time."""
    with ThreadPool(2) as pool:

        def body() -> None:
            with Event() as ran, Timer(ran.set, pool=pool) as timer:
                timer.set(0)
                pool.submit(int)
                ran.wait(LIMIT)

        yield body


@contextlib.contextmanager
def busy_executors() -> Iterator[Body]:
    """Submit calls and wait for their results."""
    with Executor(2) as executor:
        yield lambda: executor.submit(int).result()


@contextlib.contextmanager
def busy_calls(scheme: str) -> Iterator[Body]:
    """Call a server of this process, by a client that stays and by a new one."""
    with serving(scheme) as endpoint, Client(endpoint) as client:
        echo = client.bind(Echo).echo

        def body() -> None:
            echo(1, timeout=LIMIT)
            echo.begin(2, notify=lambda call, kind: None)
            with Client(endpoint) as other:
                other.bind(Echo).echo(3, timeout=LIMIT)

        yield body


@contextlib.contextmanager
def busy_sources() -> Iterator[Body]:
    """Read from a socket what was written to the other end."""
    with CompletionPort(THREADS) as port:  # With fewer, two threads that always find a packet would starve the third.

        def body() -> None:
            ours, theirs = socket.socketpair()
            with ours, theirs, OverlappedDescriptor(ours) as source:
                port.associate(source)
                source.begin_read(10)
                theirs.send(b"hello")
                port.get(LIMIT)

        yield body


@contextlib.contextmanager
def busy_waits() -> Iterator[Body]:
    """Register waits for a timer and for an event."""

    def body() -> None:
        with WaitableTimer() as timer, Event() as called:
            register_wait(timer, lambda status: called.set())
            timer.set(0)
            called.wait(LIMIT)

    yield body


@contextlib.contextmanager
def busy_logging() -> Iterator[Body]:
    """Have the library log, from a callback that fails."""
    logging.getLogger("engine").addHandler(logging.NullHandler())
    logging.getLogger("engine").propagate = False

    def body() -> None:
        with Event(signaled=True) as event:
            register_wait(event, lambda status: 1 // 0)
        default_pool().submit(lambda: 1 // 0)

    yield body


BUSY_WITH: dict[str, Callable[[], AbstractContextManager[Callable[[], object]]]] = {
    "events": busy_events,
    "apcs": busy_apcs,
    "threads": busy_threads,
    "ports": busy_ports,
    "pools": busy_pools,
    "executors": busy_executors,
    "calls-ipc": partial(busy_calls, "ipc"),
    "calls-loopback": partial(busy_calls, "loopback"),
    "sources": busy_sources,
    "waits": busy_waits,
    "logging": busy_logging,
}


def main(busy: str, forks: int) -> None:
    """Fork that many children, one after the other, while threads are busy."""
    warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks in a process with threads.
    stop = threading.Event()
    turns = [0] * THREADS

    with BUSY_WITH[busy]() as body:

        def loop(number: int) -> None:
            try:
                while not stop.is_set():
                    body()
                    turns[number] += 1
            finally:
                turns[number] += 1  # Whatever happened, it is not waited for.

        threads = [threading.Thread(target=loop, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        while not all(turns):
            os.sched_yield()
        for number in range(forks):
            child = os.fork()
            if child == 0:
                in_child()
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if code:
                print(f"child {number} of a parent with {busy}: {code}")
        stop.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
