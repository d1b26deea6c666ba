"""Does a service whose routines block still scale with its workers?

Unit: calls a second to a server with 16 workers whose routine sleeps for 1 ms, 64 calls outstanding; 16,000
would be ideal. Beside it, 16 plain threads that do nothing but sleep for 1 ms, which is what this machine's
clock allows.

What would make it wrong: a sleep that is shorter or longer than asked for (the plain threads show it); a
window too small to keep 16 workers busy; answers that are not compared.
"""

import os
import threading
from time import perf_counter, sleep
from typing import Any

from perf.lab import Lab
from perf.measure import CpuMeter, calibrated, payloads
from perf.scenario import NATIVE, TLS, Against, Figures, Scenario, over_links
from perf.subjects.engine import Client, Echo, serve_until_end
from perf.worker import Control

WORKERS = 16
OUTSTANDING = 64
SLEEP = 0.001


class SleepyService:
    """Echo, after a while."""

    def echo(self, data: bytes) -> bytes:
        """Return `data`, after a sleep."""
        sleep(SLEEP)
        return data


def serve(settings: dict[str, Any], control: Control) -> None:
    """Worker function: the service."""
    serve_until_end(settings, control, {Echo: SleepyService()}, workers=WORKERS)


def call(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: the client."""
    client = Client(settings["endpoint"])
    pool = payloads(100_000)
    count = calibrated(lambda count: client.stream(pool[:count], OUTSTANDING), settings["seconds"], 1000, len(pool))
    meter = CpuMeter(os.getpid(), settings["server_pid"])
    meter.start()
    start = perf_counter()
    client.stream(pool[-count:], OUTSTANDING)
    took = perf_counter() - start
    meter.stop()
    client.close()
    return {"calls_per_s": count / took, "cpu_us_per_call": meter.seconds / count * 1e6}


def threads(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: the same sleeps, in threads that do nothing else."""
    each = int(settings["seconds"] / SLEEP)

    def work() -> None:
        for _ in range(each):
            sleep(SLEEP)

    workers = [threading.Thread(target=work) for _ in range(WORKERS)]
    meter = CpuMeter(os.getpid())
    meter.start()
    start = perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    took = perf_counter() - start
    meter.stop()
    count = each * WORKERS
    return {"calls_per_s": count / took, "cpu_us_per_call": meter.seconds / count * 1e6}


def run(lab: Lab, subject: str) -> Figures:
    """Measure one subject once."""
    measured: Figures
    if subject == "plain-threads":
        measured = lab.measure(f"{__name__}:threads")
    else:
        with lab.server(f"{__name__}:serve") as server:
            measured = lab.measure(f"{__name__}:call", server)
    return measured


SCENARIO = Scenario(
    name="blocking",
    run=over_links(run),
    subjects=("engine", NATIVE, TLS, "plain-threads"),
    ratios=(Against("engine", "plain-threads"), Against(NATIVE, "engine"), Against(TLS, "engine")),
    default=(True, True, True),
)
