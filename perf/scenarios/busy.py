"""What is left of latency and throughput on a busy machine?

Unit: microseconds a round trip and calls a second with one call outstanding and with 16, 64-byte echo between two
processes, while others compute: one for each processor, two at least, which never wait.

What would make it wrong: absolute figures, which depend on how the kernel shares the processors out (a ratio to the
floor in the same round does not); processes beside it that did not compute (each must have had a tenth of a
processor).
"""

import os
from contextlib import ExitStack
from time import perf_counter
from typing import Any

from perf.lab import Lab
from perf.measure import cpu_seconds
from perf.scenario import NATIVE, TLS, Against, Figures, Scenario, over_links
from perf.worker import Control

LEAST_SHARE = 0.1  # Of a processor, that each process beside us must have had.
OUTSTANDING = (1, 16)


def compute(settings: dict[str, Any], control: Control) -> None:
    """Worker function: compute until the end."""
    control.end_with_parent()
    control.ready()
    value = 1
    while True:
        value = value * 1_103_515_245 + 12_345 & 0x7FFF_FFFF


def run(lab: Lab, subject: str) -> Figures:
    """Measure one subject once."""
    with ExitStack() as processes:
        server = processes.enter_context(lab.server(subject))
        others = [
            processes.enter_context(lab.server(f"{__name__}:compute")).pid
            for _ in range(max(2, len(os.sched_getaffinity(0))))
        ]
        start, used = perf_counter(), [cpu_seconds(pid) for pid in others]
        latency: Figures = lab.measure("perf.echo:latency", server, subject=subject)
        throughput: Figures = lab.measure("perf.echo:throughput", server, subject=subject, outstanding=OUTSTANDING)
        took = perf_counter() - start
        for pid, before in zip(others, used, strict=True):
            if cpu_seconds(pid) - before < LEAST_SHARE * took:
                raise RuntimeError("a process that was to compute beside the measurement hardly ran: nothing was busy")
    return {**latency, **throughput}


SCENARIO = Scenario(
    name="busy",
    run=over_links(run),
    subjects=("engine", NATIVE, TLS, "raw-zmq"),
    ratios=(Against("engine", "raw-zmq"), Against(NATIVE, "engine"), Against(TLS, "engine")),
    rounds=(1, 5, 5),
    headline=("p50_us", "p99_us", "calls_per_s_1", "calls_per_s_16", "cpu_us_per_call_1", "cpu_us_per_call_16"),
)
