"""Waits end though a test has frozen time: the library's own waits go by clocks that nobody replaces."""

import asyncio
import sys
import time
from typing import Any

import pytest

from engine import (
    CallTimeout,
    Client,
    CompletionPort,
    Event,
    Executor,
    Interface,
    Server,
    ServerUnavailable,
    ThreadPool,
    Timer,
    WaitTimeout,
    Work,
    operation,
    register_wait,
    wait_any,
)
from engine.testing import LIMIT

CLOCKS = ("monotonic", "perf_counter", "process_time", "thread_time", "time")
SOON = 0.02  # Seconds that each wait lasts.


class Probe(Interface, id="test.Frozen"):
    """What is called."""

    @operation
    def nap(self) -> None:
        """Take longer than the caller waits."""

    @operation
    def rest(self) -> None:
        """Sleep in the server's event loop."""


class Routines:
    """They take longer than their callers wait."""

    def __init__(self, over: Event) -> None:
        self.over = over

    def nap(self) -> None:
        self.over.wait(LIMIT)

    async def rest(self) -> None:
        await asyncio.sleep(SOON)  # What the routine does; that it comes to an end is what is tested.


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freeze time as the known tools do it: in `time`, and in each module that imported one of its clocks by name."""
    for name in CLOCKS:
        real = getattr(time, name)
        stopped = real()

        def clock(stopped: float = stopped) -> float:
            return stopped

        for module in list(sys.modules.values()):
            if module is None or module.__name__.partition(".")[0] not in ("engine", "transport", "time"):
                continue
            for attribute, value in list(vars(module).items()):
                if value is real:
                    monkeypatch.setattr(module, attribute, clock)


def test_no_module_keeps_a_clock_that_can_be_replaced() -> None:
    """No name in any module of the library is a function of `time` that tells the time."""
    replaceable = {id(getattr(time, name)) for name in CLOCKS}
    found = [
        f"{module.__name__}.{name}"
        for module in list(sys.modules.values())
        if module is not None and module.__name__.partition(".")[0] in ("engine", "transport")
        for name, value in vars(module).items()
        if id(value) in replaceable or value is time and "win32" not in module.__name__ and _tells(module)
    ]
    assert found == []


def _tells(module: Any) -> bool:
    """Whether the source of a module asks `time` what time it is."""
    with open(module.__file__, encoding="utf-8") as source:
        text = source.read()
    return any(f"time.{name}()" in text for name in CLOCKS)


@pytest.mark.usefixtures("frozen")
class TestFrozen:
    """While no clock of `time` moves."""

    def test_waits_of_the_kernel(self) -> None:
        """A wait with a time limit ends at its limit: for an event, for several, for a packet, of a callback."""
        with Event() as event, Event() as other, CompletionPort() as port:
            assert not event.wait(SOON)
            assert not event.wait(SOON, alertable=True)
            with pytest.raises(WaitTimeout):
                wait_any([event, other], SOON)
            with pytest.raises(WaitTimeout):
                port.get(SOON)
            with Event() as told:
                register_wait(event, lambda status: told.set(), SOON)
                assert told.wait(LIMIT)

    def test_waits_of_the_pool(self) -> None:
        """Timers fire, and waits for the end of work end at their limits."""
        with Event(manual_reset=True) as fired, Event(manual_reset=True) as over, ThreadPool(name="frozen") as pool:
            with Timer(lambda: fired.set(), pool=pool) as timer:
                timer.set(SOON)
                assert fired.wait(LIMIT)
            with Work(lambda: over.wait(LIMIT), pool=pool) as work:
                work.submit()
                assert not work.wait(SOON)
                assert not pool.stop(SOON)
                over.set()

    def test_waits_of_an_executor(self) -> None:
        """Shutting down waits no longer than it was told to."""
        with Event(manual_reset=True) as over, Executor(1) as executor:
            executor.submit(over.wait, 10.0)
            over.set()

    def test_time_limits_of_calls(self) -> None:
        """A call's time runs out; so does that of looking for a server; an `async def` routine sleeps and wakes."""
        with Event(manual_reset=True) as over, Server("tcp://127.0.0.1:0", workers=2) as server:
            server.register(Probe, Routines(over))
            server.listen()
            with Client(server.endpoint) as client:
                probe = client.bind(Probe)
                with pytest.raises(CallTimeout):
                    probe.nap.begin(timeout=SOON).result()
                over.set()
                probe.rest()
            with Client("tcp://127.0.0.1:9", connect_timeout=SOON) as client, pytest.raises(ServerUnavailable):
                client.bind(Probe).nap()
