"""What do several processes of a service give, beside one?

Unit: calls a second, by a client of the endpoint that all processes share (`engine.processes.serve`), which follows
all of them. `computing-N`: N processes whose routine holds the interpreter for some 5 ms; `sleeping-N`: N processes,
4 workers each, whose routine sleeps 10 ms. 64 bytes go there and back; each process has as many calls outstanding.

What would make it wrong: processes that do not serve yet, or that the client has not found (it waits until it knows
all, and each has to have answered); answers that are not compared; fewer processors than processes that compute, and
processors that somebody else uses: then more processes share what one had.
"""

import os
from collections.abc import Mapping
from time import perf_counter, sleep
from typing import Any

from engine import Client as EngineClient
from engine import Server
from engine.processes import Supervisor
from perf.lab import Lab
from perf.measure import ANSWER_TIMEOUT, calibrated, payloads
from perf.scenario import Against, Figures, Scenario
from perf.subjects.engine import WORKERS, Client, Echo
from perf.worker import Control

COMPUTING, SLEEPING = (1, 2), (1, 2, 4, 8)
SUBJECTS: Mapping[str, tuple[str, int]] = {
    f"{kind}-{number}": (kind, number)
    for kind, numbers in (("computing", COMPUTING), ("sleeping", SLEEPING))
    for number in numbers
}
STEPS = 100_000  # Of a loop in Python: some 5 ms.
SLEEP = 0.01  # Seconds.
WIDTH = 4 * WORKERS  # Calls outstanding for each process: its workers have some, and some come with the next message.
LOOK = 0.01  # Seconds.
ALL_SERVE = 60.0  # Seconds until all processes have started; on a busy machine each takes some.
GRACE = 1.0  # Seconds; when the supervisor ends nothing runs.
FIRST_CALLS = 64
MOST_CALLS = 100_000


class Computing:
    """Echo, computed."""

    def echo(self, data: bytes) -> bytes:
        """Return `data`, after a loop that holds the interpreter."""
        for _ in range(STEPS):
            pass
        return data


class Sleeping:
    """Echo, after a while."""

    def echo(self, data: bytes) -> bytes:
        """Return `data`, after a sleep."""
        sleep(SLEEP)
        return data


def computing(*endpoints: str) -> Server:
    """What each process has that computes."""
    return _server(Computing(), endpoints)


def sleeping(*endpoints: str) -> Server:
    """What each process has that sleeps."""
    return _server(Sleeping(), endpoints)


def _server(service: object, endpoints: tuple[str, ...]) -> Server:
    server = Server(*endpoints, workers=WORKERS)
    server.register(Echo, service)
    return server


def serve(settings: dict[str, Any], control: Control) -> None:
    """Worker function: the supervisor of settings["processes"] processes that do what settings["kind"] says."""
    make = {"computing": computing, "sleeping": sleeping}[settings["kind"]]
    supervisor = Supervisor(make, settings["endpoint"], processes=settings["processes"], grace=GRACE)
    control.end_with_parent(supervisor.request_stop)
    control.ready(supervisor.endpoint)
    supervisor.run()


def following(endpoint: str, processes: int) -> EngineClient:
    """Return a client of the shared endpoint that has found all processes, and is connected to each."""
    client = EngineClient(endpoint, connect_timeout=ALL_SERVE)
    client.bind(Echo, causal=False)  # Calls without an order are what it follows the others for.
    deadline = perf_counter() + ALL_SERVE
    # The connection that it has begun with, and one to each.
    while [member.state for member in client.members].count("ready") <= processes:
        if perf_counter() > deadline:
            raise TimeoutError(f"of {processes} processes only these are ready: {client.members}")
        sleep(LOOK)
    return client


def call(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: call the processes at settings["endpoint"]."""
    processes = settings["processes"]
    pool = payloads(MOST_CALLS)
    with following(settings["endpoint"], processes) as shared:
        client = Client("", shared, causal=False)
        try:
            count = calibrated(
                lambda number: client.stream(pool[:number], WIDTH * processes), settings["seconds"],
                FIRST_CALLS * processes, MOST_CALLS,
            )  # fmt: skip
            before = {member.endpoint: member.calls_finished for member in shared.members}
            start = perf_counter()
            client.stream(pool[:count], WIDTH * processes)
            took = perf_counter() - start
            worked = [member for member in shared.members if member.calls_finished > before[member.endpoint]]
        finally:
            client.close()
    if len(worked) != processes:
        raise TimeoutError(f"of {processes} processes only {len(worked)} have answered within {ANSWER_TIMEOUT:g} s")
    return {"calls_per_s": count / took}


def missing(subject: str) -> str | None:
    """Processes that compute need a processor each."""
    kind, number = SUBJECTS[subject]
    there = len(os.sched_getaffinity(0))
    return f"there are only {there} processors" if kind == "computing" and there < number else None


def run(lab: Lab, subject: str) -> Figures:
    """Measure one subject once."""
    kind, number = SUBJECTS[subject]
    with lab.server(f"{__name__}:serve", endpoint="tcp://127.0.0.1:*", kind=kind, processes=number) as server:
        figures: Figures = lab.measure(f"{__name__}:call", server, processes=number)
        return figures


SCENARIO = Scenario(
    name="processes",
    run=run,
    subjects=tuple(SUBJECTS),
    ratios=tuple(Against(subject, f"{kind}-1") for subject, (kind, number) in SUBJECTS.items() if number > 1),
    missing=missing,
)
