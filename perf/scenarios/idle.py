"""What does an idle client and server cost?

Unit: percent of one core, client and server together, while a connected client waits on its port for a packet
that does not come; and how often the two are woken (voluntary context switches) a second.

What would make it wrong: counting the start or the first call; an interval so short that one timer's beat
decides.
"""

import os
from time import perf_counter
from typing import Any

from engine import Client, CompletionPort, WaitTimeout
from perf.counting import switches
from perf.lab import Lab
from perf.measure import CpuMeter, WrongAnswer
from perf.scenario import NATIVE, TLS, Against, Figures, Scenario, over_links
from perf.subjects.engine import Echo
from perf.worker import Control

SECONDS = (3.0, 5.0, 10.0)
SETTLE = 0.3  # Seconds for threads to find that nothing is left to do, before it counts.


def call(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: connect, call once, and wait."""
    pids = (os.getpid(), settings["server_pid"])
    meter = CpuMeter(*pids)
    with Client(settings["endpoint"]) as client, CompletionPort() as port:
        if client.bind(Echo).echo(b"hello") != b"hello":
            raise WrongAnswer("to the first call")
        _wait(port, SETTLE)
        before = sum(map(switches, pids))
        meter.start()
        start = perf_counter()
        _wait(port, settings["seconds"])
        took = perf_counter() - start
        meter.stop()
        woken = sum(map(switches, pids)) - before
    return {"cpu_percent": meter.seconds / took * 100, "wakes_per_s": woken / took}


def _wait(port: CompletionPort, seconds: float) -> None:
    try:
        packet = port.get(seconds)
    except WaitTimeout:
        return
    raise WrongAnswer(f"nothing was asked, and yet there is {packet}")


def run(lab: Lab, subject: str) -> Figures:
    """Measure once."""
    with lab.server("engine") as server:
        measured: Figures = lab.measure(f"{__name__}:call", server, seconds=lab.effort.pick(*SECONDS))
        return measured


SCENARIO = Scenario(
    name="idle",
    run=over_links(run),
    subjects=("engine", NATIVE, TLS),
    ratios=(
        Against(NATIVE, "engine"),
        Against(TLS, "engine"),
    ),
    rounds=(1, 3, 3),
    default=(True, True, True),
)
