"""What does a client of several servers cost, beside one of a single server?

Unit: microseconds of one call alone, and calls a second and the client's microseconds of processor time a call, with
256 calls outstanding in all (`_256`) and 256 for each server (`_each`); 64-byte echo, each server in a process of its
own, one client thread. `engine` is a client of one endpoint; `engine-N` one that a resolver gives N servers.

What would make it wrong: servers that are not connected yet (the client waits until all are ready); answers that are
not compared; fewer processors than processes: then more servers share what one had, and the rate can only fall.
"""

import os
from contextlib import ExitStack
from time import perf_counter, sleep
from typing import Any

from engine import Client as EngineClient
from engine import Discovery
from perf.lab import Lab
from perf.measure import ANSWER_TIMEOUT, CpuMeter, calibrated, payloads, spread_us
from perf.scenario import Against, Figures, Scenario
from perf.subjects.engine import Client
from perf.worker import Control

SERVERS = {"engine": 1, "engine-1": 1, "engine-2": 2, "engine-4": 4}
WIDTH = 256
FIRST_CALLS = 500
MOST_CALLS = 400_000
LOOK = 0.002  # Seconds.


class Found:
    """A resolver that knows all servers from the beginning."""

    def __init__(self, endpoints: list[str]) -> None:
        self._endpoints = endpoints

    def run(self, discovery: Discovery) -> None:
        """Say the list, once."""
        discovery.update(self._endpoints)


def connected(endpoints: list[str]) -> EngineClient:
    """Return a client of several servers to which all of them are ready."""
    client = EngineClient(Found(endpoints), connect_timeout=ANSWER_TIMEOUT)
    deadline = perf_counter() + ANSWER_TIMEOUT
    while [member.state for member in client.members].count("ready") < len(endpoints):
        if perf_counter() > deadline:
            raise TimeoutError(f"of {len(endpoints)} servers only these are ready: {client.members}")
        sleep(LOOK)
    return client


def call(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: call the servers at settings["endpoints"], as a client of several if settings["several"]."""
    endpoints = settings["endpoints"]
    if settings["several"]:
        shared = connected(endpoints)
        client = Client("", shared, causal=False)
    else:
        shared = None
        client = Client(endpoints[0])
    pool = payloads(MOST_CALLS)
    figures: dict[str, float] = {}
    try:
        count = calibrated(lambda number: client.one_by_one(pool[:number]), settings["seconds"], FIRST_CALLS, 100_000)
        figures |= spread_us(client.one_by_one(pool[:count]))
        for name, width in ((f"{WIDTH}", WIDTH), ("each", WIDTH * len(endpoints))):
            count = calibrated(
                lambda number, width=width: client.stream(pool[:number], width), settings["seconds"], FIRST_CALLS,
                MOST_CALLS,
            )  # fmt: skip
            meter = CpuMeter(os.getpid())
            meter.start()
            start = perf_counter()
            client.stream(pool[:count], width)
            took = perf_counter() - start
            meter.stop()
            figures[f"calls_per_s_{name}"] = count / took
            figures[f"client_cpu_us_per_call_{name}"] = meter.seconds / count * 1e6
    finally:
        client.close()
        if shared is not None:
            shared.close()
    return figures


def run(lab: Lab, subject: str) -> Figures:
    """Measure one subject once."""
    with ExitStack() as processes:
        servers = [processes.enter_context(lab.server("engine")) for _ in range(SERVERS[subject])]
        figures: Figures = lab.measure(
            f"{__name__}:call", endpoints=[server.endpoint for server in servers], several=subject != "engine"
        )
        return figures


SCENARIO = Scenario(
    name="fleet",
    run=run,
    subjects=tuple(SERVERS),
    ratios=tuple(Against(subject, "engine") for subject in SERVERS if subject != "engine"),
    headline=("p50_us", f"calls_per_s_{WIDTH}", "calls_per_s_each", f"client_cpu_us_per_call_{WIDTH}"),
)
