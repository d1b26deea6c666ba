"""Programs in which the system refuses to start threads, for a while or for good: `python -m tests.starving NAME`.

Each prints what came of it. They are processes of their own because the library's threads, once started, stay.
"""

import asyncio
import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from engine import (
    CallError,
    CallTimeout,
    Client,
    Discovery,
    Event,
    Interface,
    Server,
    ThreadPool,
    WaitableTimer,
    operation,
)
from engine import register_wait as register
from engine.testing import wait_until, wait_until_blocked

LONG = 100.0  # Seconds that only a hang lasts.
START = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
REAL: Callable[..., Any] = getattr(threading, START)


class Refusals(logging.Handler):
    """Refuses to start the library's threads of these names, so often; counts that, and what is logged meanwhile."""

    def __init__(self, often: float, *names: str, error: type[Exception] = RuntimeError) -> None:
        super().__init__()
        self.left = often
        self.names = names
        self.error = error
        self.refused = 0
        self.records = 0
        logging.getLogger().addHandler(self)
        setattr(threading, START, self.start)

    def start(self, function: Any, *args: Any, **more: Any) -> Any:
        thread = getattr(function, "__self__", None)
        if self.left > 0 and isinstance(thread, threading.Thread) and any(map(thread.name.count, self.names)):
            self.left -= 1
            self.refused += 1
            raise self.error("can't start new thread")
        return REAL(function, *args, **more)

    def emit(self, record: logging.LogRecord) -> None:
        self.records += 1


class Probe(Interface, id="test.Starving"):
    """What is called."""

    @operation
    def echo(self, value: int) -> int:
        """Return the value."""

    @operation
    def hold(self) -> None:
        """Take long."""

    @operation
    def later(self, value: int) -> int:
        """Return the value, from the event loop."""


class Routines:
    """The routines of `Probe`."""

    def __init__(self, over: Event) -> None:
        self.over = over

    def echo(self, value: int) -> int:
        return value

    def hold(self) -> None:
        self.over.wait(LONG)

    async def later(self, value: int) -> int:
        return value


@contextlib.contextmanager
def served() -> Iterator[Any]:
    """A probe of a server in this process."""
    with Event(manual_reset=True) as over, Server("tcp://127.0.0.1:0", workers=2) as server:
        server.register(Probe, Routines(over))
        server.listen()
        with Client(server.endpoint) as client:
            yield client.bind(Probe)
            over.set()


def timer(often: float) -> str:
    """A wait for a timer that needs the monitor."""
    Refusals(often, "monitor")
    with WaitableTimer() as due:
        due.set(0.02)
        return "fired" if due.wait(LONG) else "hung"


def timer_without_wait() -> str:
    """A callback at the end of a time limit, while no thread waits in the library; refused once."""
    Refusals(1, "monitor")
    told = threading.Event()
    with Event() as never:
        register(never, lambda status: told.set(), 0.02)
        return "fired" if told.wait(LONG) else "hung"


def timer_while_another_waits() -> str:
    """A callback at the end of a time limit, while another thread waits in the library already; refused for good."""
    Refusals(FOREVER, "monitor")
    told = threading.Event()
    with Event() as over, Event() as never:
        waiting = threading.Thread(target=over.wait)
        waiting.start()
        wait_until_blocked(waiting)
        register(never, lambda status: told.set(), 0.02)
        fired = told.wait(LONG)
        over.set()
        waiting.join()
    return "fired" if fired else "hung"


def overrun() -> str:
    """A callback that waits for what another does, which is queued behind it; refused for good."""
    Refusals(FOREVER, "monitor")
    done = threading.Event()
    with ThreadPool(maximum=2) as pool, Event() as seen:
        pool.submit(lambda: seen.set() if done.wait(LONG) else None)  # The pool does not see that it waits.
        pool.submit(done.set)
        return "ran" if seen.wait(LONG) else "held up"


def limit(often: float) -> str:
    """The time limit of a call, and that of the connection."""
    Refusals(often, "monitor", error=MemoryError)
    with served() as probe:
        assert probe.echo(1) == 1
        try:
            probe.hold.begin(timeout=0.02).result()
        except CallTimeout:
            return "timeout"
    return "returned"


def loop(often: float) -> str:
    """An `async def` routine, whose loop cannot be started."""
    refusals = Refusals(often, "loop")
    with served() as probe:
        try:
            found = probe.later(1)
        except CallError as error:
            found = error.status
        refusals.left = 0
        answers: list[int] = []

        def answered() -> bool:
            with contextlib.suppress(CallError):  # There is a pause between attempts.
                answers.append(probe.later(2))
            return bool(answers)

        wait_until(answered)
        return f"{int(found)},{answers[0]}"


def pool() -> str:
    """A pool whose workers cannot be started for a while."""
    refusals = Refusals(float("inf"), "worker")
    done = threading.Event()
    with ThreadPool(name="starved") as pool:
        pool.submit(done.set)
        time.sleep(0.5)  # What is counted is what is attempted meanwhile; more time does no harm.
        few = refusals.refused < 30 and refusals.records < 30
        refusals.left = 0
        return f"{few},{done.wait(LONG)}"


def minimum() -> str:
    """A pool that keeps two workers, and has nothing to run; thrice none could be started."""
    Refusals(3, "worker")
    with ThreadPool(minimum=2) as pool:
        wait_until(lambda: pool.statistics().workers == 2)
        return "two"


def awaited(often: float) -> str:
    """A task that awaits something for a limited time."""
    Refusals(often, "monitor")

    async def main() -> str:
        with Event() as never:
            return "satisfied" if await never.wait_async(0.02) else "timeout"

    return asyncio.run(main())


def handler() -> str:
    """A signal handler sets an event while the thread that it interrupts is changing one; refused for good."""
    Refusals(FOREVER, "monitor")

    def refuse(*args: object) -> int:
        raise RuntimeError("can't start new thread")

    sys.modules["engine.kernel.afterwards"].start_new_thread = refuse  # type: ignore[attr-defined]  # of a module
    with Event() as event:
        signal.signal(signal.SIGTERM, lambda *_: event.set())
        with sys.modules["engine.kernel.waitable"].dispatcher_lock:  # No public name interrupts it at this place.
            signal.raise_signal(signal.SIGTERM)
        return "satisfied" if event.wait(LONG) else "lost"


class Finding:
    """A resolver that finds one server."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def run(self, discovery: Discovery) -> None:
        """Find it."""
        discovery.update([self.endpoint])


def resolver() -> str:
    """A client of a resolver, whose thread is refused thrice."""
    refusals = Refusals(3, "resolver")
    with Server("loopback://found") as server, Event() as over:
        server.register(Probe, Routines(over))
        server.listen()
        with Client(Finding("loopback://found")) as client:
            return f"{client.bind(Probe, causal=False).echo(1, timeout=LONG)},{refusals.refused}"


FOREVER = float("inf")
PROGRAMS: dict[str, Callable[[], str]] = {
    "timer": lambda: timer(3),
    "timer_for_good": lambda: timer(FOREVER),
    "timer_without_wait": timer_without_wait,
    "timer_while_another_waits": timer_while_another_waits,
    "overrun": overrun,
    "limit": lambda: limit(3),
    "limit_for_good": lambda: limit(FOREVER),
    "loop_once": lambda: loop(1),
    "loop": lambda: loop(FOREVER),
    "pool": pool,
    "minimum": minimum,
    "handler": handler,
    "resolver": resolver,
    "awaited": lambda: awaited(3),
    "awaited_for_good": lambda: awaited(FOREVER),
}

if __name__ == "__main__":
    print(PROGRAMS[sys.argv[1]]())
