"""What happens when several threads share one client?

Unit: calls a second, all threads together, each with its own completion port; named by threads x outstanding
calls of each. One thread with 256 outstanding is the measure of the others, and so is the floor with one thread.

`pinned`: the threads that call are held to one processor; they run one at a time anyhow, and moving from one to another
costs. After its client is made, the main thread calls `os.sched_setaffinity(0, {processor})`: the threads that it
starts from then on inherit that, and ZeroMQ's, which are there already, stay free.

What would make it wrong: threads that do not run at the same time (they start together, each has the same
number of calls to make, and the clock runs until the last one is done); answers that are not compared.
"""

import os
import threading
from time import perf_counter
from typing import Any

from engine import Client as EngineClient
from perf.lab import Lab
from perf.measure import CpuMeter, calibrated, payloads
from perf.scenario import NATIVE, TLS, Against, Figures, Scenario, over_links
from perf.subjects.engine import Client
from perf.worker import Control

FIRST_CALLS = 4096
MOST_CALLS = 400_000
JOIN_TIMEOUT = 120.0  # Seconds after which a thread counts as hung.

# (threads, outstanding calls of each) by the subject's name.
SHAPES = {
    "engine": (1, 256),
    "engine-2x128": (2, 128),
    "engine-8x32": (8, 32),
    "engine-8x256": (8, 256),
    "engine-8x32-pinned": (8, 32),
    "engine-8x256-pinned": (8, 256),
}


def call(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: one client, settings["threads"] threads."""
    threads, outstanding = settings["threads"], settings["outstanding"]
    pool = payloads(MOST_CALLS)
    with EngineClient(settings["endpoint"]) as shared:
        if settings["pinned"]:
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # The threads below inherit it.
        sessions = [Client("", shared) for _ in range(threads)]

        def stream(count: int) -> None:
            together(lambda turn: sessions[turn].stream(pool[turn:count:threads], outstanding), threads)

        count = calibrated(stream, settings["seconds"], FIRST_CALLS, len(pool))
        meter = CpuMeter(os.getpid(), settings["server_pid"])
        meter.start()
        start = perf_counter()
        stream(count)
        took = perf_counter() - start
        meter.stop()
        for session in sessions:
            session.close()
    return {"calls_per_s": count / took, "cpu_us_per_call": meter.seconds / count * 1e6}


def together(work: Any, threads: int) -> None:
    """Run work(0), work(1), ... each in a thread, all starting at once; raise the first failure."""
    gate = threading.Barrier(threads)
    failures: list[BaseException] = []

    def main(turn: int) -> None:
        try:
            gate.wait(JOIN_TIMEOUT)
            work(turn)
        except BaseException as failure:
            failures.append(failure)

    workers = [threading.Thread(target=main, args=(turn,), daemon=True) for turn in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(JOIN_TIMEOUT)
        if worker.is_alive() and not failures:
            raise TimeoutError(f"a thread was still busy after {JOIN_TIMEOUT:g} s")
    if failures:
        raise failures[0]


def run(lab: Lab, subject: str) -> Figures:
    """Measure one shape once."""
    if subject == "raw-zmq":
        with lab.server(subject) as server:
            floor: Figures = lab.measure("perf.echo:throughput", server, subject=subject, outstanding=[256])
        return {"calls_per_s": floor["calls_per_s_256"], "cpu_us_per_call": floor["cpu_us_per_call_256"]}
    threads, outstanding = SHAPES[subject]
    pinned = subject.endswith("pinned")
    with lab.server("engine") as server:
        measured: Figures = lab.measure(
            f"{__name__}:call", server, threads=threads, outstanding=outstanding, pinned=pinned
        )
        return measured


SCENARIO = Scenario(
    name="threads",
    run=over_links(run),
    subjects=(*SHAPES, NATIVE, TLS, "raw-zmq"),
    ratios=(
        *(Against(subject, "engine") for subject in SHAPES if subject != "engine"),
        Against("engine-8x256", "raw-zmq"),
        Against(NATIVE, "engine"),
        Against(TLS, "engine"),
    ),
)
