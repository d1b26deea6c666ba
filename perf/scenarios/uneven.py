"""What becomes of the calls of a client of three servers of which one is slow, or fails at once?

Unit: calls a second with 24 outstanding, where the routine of one server sleeps 50 ms and those of the others 5
(`calls_per_s_slow`); and the part of calls that fail, in percent, where that of one server raises at once and those of
the others sleep 5 ms (`failed_percent`). Servers have their four workers, so calls queue at the slow one. `round-robin`
is three clients of one server each, used in turn.

What would make it wrong: a window that is not full; calls that fail for another reason (any other error ends the run).
"""

from collections.abc import Callable
from contextlib import ExitStack
from itertools import cycle
from time import perf_counter, sleep
from typing import Any

from engine import Client, CompletionPort, Interface, RemoteFault, operation
from perf.lab import Lab
from perf.measure import ANSWER_TIMEOUT
from perf.scenario import NATIVE, TLS, Against, Figures, Scenario, over_links
from perf.scenarios.fleet import connected
from perf.subjects.engine import serve_until_end
from perf.worker import Control

OUTSTANDING = 24
SLOW, QUICK = 0.05, 0.005  # Seconds.
WARM_UP = 0.3  # Part of the time, before what counts.


class Uneven(Interface, id="perf.Uneven"):
    """What takes longer on one server than on others."""

    @operation
    def sleep(self) -> None:
        """Sleep for as long as this server takes."""

    @operation
    def fail(self) -> None:
        """The same, or raise at once on one server."""


class Routines:
    """It, served by an odd server or an ordinary one."""

    def __init__(self, odd: bool) -> None:
        self._odd = odd

    def sleep(self) -> None:
        """Sleep."""
        sleep(SLOW if self._odd else QUICK)

    def fail(self) -> None:
        """Raise, or sleep."""
        if self._odd:
            raise RuntimeError("this server is broken")
        sleep(QUICK)


def serve(settings: dict[str, Any], control: Control) -> None:
    """Worker function: serve, with settings["odd"]."""
    serve_until_end(settings, control, {Uneven: Routines(settings["odd"])})


def stream(begins: list[Callable[..., Any]], seconds: float) -> tuple[float, float]:
    """Keep calls outstanding, by each of `begins` in turn; return calls a second, and how many of a hundred fail."""
    turn = cycle(begins)
    with CompletionPort() as port:
        told = port.packet()
        for _ in range(OUTSTANDING):
            next(turn)(notify=told)
        start = perf_counter() + WARM_UP * seconds
        ended = failed = 0
        while (now := perf_counter()) < start + seconds:
            packet = port.get(ANSWER_TIMEOUT)
            try:
                packet.overlapped.complete()
                failure = 0
            except RemoteFault:
                failure = 1
            if now >= start:
                ended += 1
                failed += failure
            next(turn)(notify=told)
        for _ in range(OUTSTANDING):
            port.get(ANSWER_TIMEOUT)
    return ended / seconds, 100 * failed / max(1, ended)


def call(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: call the servers at settings["endpoints"], of which the first is the odd one."""
    with ExitStack() as opened:
        if settings["several"]:
            clients = [opened.enter_context(connected(settings["endpoints"]))]
            bindings = [clients[0].bind(Uneven, causal=False)]
        else:
            clients = [opened.enter_context(Client(endpoint)) for endpoint in settings["endpoints"]]
            bindings = [client.bind(Uneven) for client in clients]
        rate, _ = stream([binding.sleep.begin for binding in bindings], settings["seconds"])
        _, failed = stream([binding.fail.begin for binding in bindings], settings["seconds"])
    return {"calls_per_s_slow": rate, "failed_percent": failed}


def run(lab: Lab, subject: str) -> Figures:
    """Measure one subject once."""
    with ExitStack() as processes:
        servers = [processes.enter_context(lab.server(f"{__name__}:serve", odd=not number)) for number in range(3)]
        figures: Figures = lab.measure(
            f"{__name__}:call", endpoints=[server.endpoint for server in servers], several=subject == "engine"
        )
        return figures


SCENARIO = Scenario(
    name="uneven",
    run=over_links(run),
    subjects=("engine", NATIVE, TLS, "round-robin"),
    ratios=(Against("engine", "round-robin"), Against(NATIVE, "engine"), Against(TLS, "engine")),
)
