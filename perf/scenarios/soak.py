"""Does it stay as it is, hour after hour?

Unit: calls a second over the whole run, the slowest stretch of it as a percentage of the median one, and KiB
that client and server have grown by between the first tenth and the end. 64-byte echo, 256 outstanding; a
second a stretch.

What would make it wrong: growth that is only the warm-up's (the first tenth is not counted); a machine that
is busy with something else (which shows as a slow stretch that is nobody's fault: look again).
"""

import os
import statistics
from time import monotonic, perf_counter
from typing import Any

from perf.lab import Lab
from perf.measure import calibrated, payloads, rss_bytes
from perf.scenario import Figures, Scenario
from perf.subjects.engine import Client
from perf.worker import Control

SECONDS = (20.0, 120.0, 1800.0)
OUTSTANDING = 256
MOST_CALLS = 400_000


def call(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: the client."""
    client = Client(settings["endpoint"])
    pool = payloads(MOST_CALLS)
    seconds, pids = settings["seconds"], (os.getpid(), settings["server_pid"])
    count = calibrated(lambda count: client.stream(pool[:count], OUTSTANDING), 1.0, 4096, MOST_CALLS)
    rates: list[float] = []
    begin = monotonic()
    grown: list[int] | None = None
    while (passed := monotonic() - begin) < seconds:
        control.progress(int(passed), int(seconds))
        if grown is None and passed > seconds / 10:
            grown = [rss_bytes(pid) for pid in pids]
        start = perf_counter()
        client.stream(pool[:count], OUTSTANDING)
        rates.append(count / (perf_counter() - start))
    now = [rss_bytes(pid) for pid in pids]
    client.close()
    client_growth, server_growth = (after - before for after, before in zip(now, grown or now, strict=True))
    return {
        "calls_per_s": statistics.harmonic_mean(rates),
        "slowest_percent": min(rates) / statistics.median(rates) * 100,
        "client_growth_kib": client_growth / 1024,
        "server_growth_kib": server_growth / 1024,
    }


def run(lab: Lab, subject: str) -> Figures:
    """Run once, for long."""
    seconds = lab.effort.pick(*SECONDS)
    with lab.server("engine") as server:
        measured: Figures = lab.measure(f"{__name__}:call", server, limit=2 * seconds + 60, seconds=seconds)
        return measured


SCENARIO = Scenario(name="soak", run=run, subjects=("engine",), rounds=(1, 1, 1), default=(False, False, False))
