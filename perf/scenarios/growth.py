"""Does ten times as much cost ten times as much, or more?

Unit: how many times the processor time grows when there are ten times as many calls outstanding, clients,
threads that call, timers that expire, and events that are waited for; client and server processes together.
10 is linear; more than 12 is not any more.

What would make it wrong: a small end so small that fixed costs hide growth (each takes tens of milliseconds);
wall time, which depends on who else runs (this is processor time); work that was not done (every answer and
every callback is counted).
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from engine import Client, CompletionPort, Event, ThreadPool, Timer, Wait
from perf.lab import Lab
from perf.measure import ANSWER_TIMEOUT, CpuMeter, WrongAnswer, payloads
from perf.scenario import Figures, Scenario
from perf.streams import by_threads
from perf.subjects.engine import Client as PortClient
from perf.subjects.engine import Echo
from perf.worker import Control

TIMES = 10
CALLS_OF_A_THREAD = 50
DUE = 0.05  # Seconds until timers expire; time enough to set many of them.


def calls(endpoint: str, count: int) -> None:
    """Have `count` calls outstanding at once."""
    client = PortClient(endpoint)
    client.stream(payloads(count), count)
    client.close()


def clients(endpoint: str, count: int) -> None:
    """Connect `count` clients, and call once with each."""
    with ExitStack() as opened:
        for turn, payload in enumerate(payloads(count)):
            client = opened.enter_context(Client(endpoint))
            if client.bind(Echo).echo.begin(payload, timeout=ANSWER_TIMEOUT).result() != payload:
                raise WrongAnswer(f"to client {turn}")


def threads(endpoint: str, count: int) -> None:
    """Call from `count` threads that share a client."""
    with Client(endpoint) as client:
        echo = client.bind(Echo).echo
        by_threads([echo] * count, payloads(count * CALLS_OF_A_THREAD))


def timers(endpoint: str, count: int) -> None:
    """Set `count` timers, and wait until each has expired."""
    with ThreadPool(1, 4) as pool, CompletionPort() as port:
        made = [Timer(port.post, turn, pool=pool) for turn in range(count)]
        for timer in made:
            timer.set(DUE)
        collect(port, count)
        for timer in made:
            timer.close()


def waits(endpoint: str, count: int) -> None:
    """Have `count` events waited for, and set each."""
    with ThreadPool(1, 4) as pool, CompletionPort() as port:
        events = [Event() for _ in range(count)]
        made = [Wait(lambda turn, status: port.post(turn), turn, pool=pool) for turn in range(count)]
        for wait, event in zip(made, events, strict=True):
            wait.set(event)
        for event in events:
            event.set()
        collect(port, count)
        for wait in made:
            wait.close()


def collect(port: CompletionPort, count: int) -> None:
    """Take a packet of each number below `count`."""
    seen = {port.get(ANSWER_TIMEOUT).key for _ in range(count)}
    if seen != set(range(count)):
        raise WrongAnswer(f"{len(seen)} of {count} callbacks ran")


# What grows, and its small end.
KINDS: dict[str, tuple[Callable[[str, int], None], int]] = {
    "calls": (calls, 5_000),
    "clients": (clients, 30),
    "threads": (threads, 20),
    "timers": (timers, 1_000),
    "waits": (waits, 1_000),
}


def measure(settings: dict[str, Any], control: Control) -> float:
    """Worker function: processor time of the large end by that of the small end."""
    work, count = KINDS[settings["kind"]]
    meter = CpuMeter(os.getpid(), settings["server_pid"])
    work(settings["endpoint"], count)  # What is needed only once is not counted.
    spent = []
    for size in (count, count * TIMES):
        meter.start()
        work(settings["endpoint"], size)
        meter.stop()
        spent.append(meter.seconds)
    return spent[1] / spent[0]


def run(lab: Lab, subject: str) -> Figures:
    """Measure each kind once."""
    figures = {}
    for kind in KINDS:
        with lab.server("engine") as server:
            figures[f"{kind}_growth"] = lab.measure(f"{__name__}:measure", server, kind=kind)
    return figures


SCENARIO = Scenario(name="growth", run=run, subjects=("engine",), rounds=(1, 3, 5))
