"""How much do quick calls suffer while a handler holds the interpreter's lock?

Unit: microseconds of a 64-byte echo, one call outstanding, while another client process keeps one call of a
routine running that computes for 20 ms without ever waiting; beside it, the same without that client.

What would make it wrong: a routine that does wait now and then; a hog that is not always there (it counts its
calls, and a run in which it made none fails). Python switches threads every 5 ms when one does not let go, so
milliseconds are expected; what is to be seen is that it is bounded by that, and not by the length of the
routine.
"""

import itertools
import threading
from time import perf_counter
from typing import Any

from engine import Client, Interface, operation
from perf.lab import Lab
from perf.scenario import NATIVE, TLS, Against, Figures, Scenario, over_links
from perf.subjects.engine import Echo, EchoService, serve_until_end
from perf.worker import Control

BUSY = 0.02  # Seconds.


class Hog(Interface, id="perf.Hog"):
    """Calls that compute."""

    @operation
    def compute(self, seconds: float) -> int:
        """Compute for some time, and return how far it came."""


class HogService:
    """It, served."""

    def compute(self, seconds: float) -> int:
        """Count as far as it goes."""
        end = perf_counter() + seconds
        return next(turn for turn in itertools.count(1) if perf_counter() >= end)


def serve(settings: dict[str, Any], control: Control) -> None:
    """Worker function: both services in one server."""
    serve_until_end(settings, control, {Echo: EchoService(), Hog: HogService()})


def hog(settings: dict[str, Any], control: Control) -> None:
    """Worker function: keep one call of the slow routine running until the parent wants the end."""
    over = threading.Event()
    with Client(settings["endpoint"]) as client:
        compute = client.bind(Hog).compute
        compute(BUSY)
        control.ready()

        def watch() -> None:
            control.wait_for_end()
            over.set()

        threading.Thread(target=watch, daemon=True).start()
        turns = 0
        while not over.is_set():
            turns += compute.begin(BUSY, timeout=10.0).result() > 0
        if not turns:
            raise RuntimeError("the hog never ran")


def run(lab: Lab, subject: str) -> Figures:
    """Measure with or without the hog."""
    measured: Figures
    with lab.server(f"{__name__}:serve") as server:
        if subject == "engine-quiet":
            measured = lab.measure("perf.echo:latency", server, subject="engine")
        else:
            with lab.server(f"{__name__}:hog", endpoint=server.endpoint):
                measured = lab.measure("perf.echo:latency", server, subject="engine")
    return measured


SCENARIO = Scenario(
    name="gil_hog",
    run=over_links(run),
    subjects=("engine", NATIVE, TLS, "engine-quiet"),
    ratios=(Against("engine", "engine-quiet"), Against(NATIVE, "engine"), Against(TLS, "engine")),
    rounds=(1, 3, 3),
    headline=("p50_us", "p90_us", "p99_us"),
)
