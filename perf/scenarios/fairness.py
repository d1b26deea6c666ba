"""Does every client get its share of a server that has more to do than it can?

Unit: percent of the answers that each busy client got, the least first, and by how many percent the one that got the
most or the least differs from an equal share; milliseconds until a lone call of an occasional client is answered, and
how many percent of those never were; calls a second of all clients together. Each client is a process of its own; all
begin together and have the same time.

`engine`: 4 workers; 4 clients with 50 calls outstanding that sleep 2 ms each; one client that calls, waits for the
answer, and pauses for 20 ms. `engine-held`: the same, beside a client whose four calls, begun with the others', do not
end. `engine-echo`: quick calls, of clients with 1, 16 and 256 outstanding; the occasional one stays.

What would make it wrong: an answer that never came and is not counted (a call without one counts with the time that
it has waited, and as unanswered); clients that begin one after another; answers that are not compared.
"""

import threading
from contextlib import ExitStack
from time import perf_counter, sleep
from typing import Any

from engine import CallPending, Client, CompletionPort, Interface, Server, WaitTimeout, operation
from perf.certificates import server_options
from perf.lab import Lab
from perf.measure import WrongAnswer, payloads, percentile
from perf.scenario import NATIVE, TLS, Against, Figures, Scenario, over_links
from perf.worker import Control

WORKERS = 4
NAP = 0.002  # Seconds that a slow call takes.
PAUSE = 0.02  # Seconds between two calls of the occasional client.
SECONDS = (1.5, 3.0, 5.0)
HELD_CALLS = 4

# What each busy client does, and how many calls it has outstanding.
CLIENTS = {
    "engine": [("nap", 50)] * 4,
    "engine-held": [("nap", 50)] * 4,  # And one more, with HELD_CALLS.
    "engine-echo": [("echo", 1), ("echo", 16), ("echo", 256)],
}


class Service(Interface, id="perf.Fairness"):
    """Quick calls, calls that take their time, and calls that do not end."""

    @operation
    def echo(self, data: bytes) -> bytes:
        """Return `data`."""

    @operation
    def nap(self, data: bytes) -> bytes:
        """Return `data` after 2 ms."""

    @operation
    def hold(self) -> None:
        """Return when the server ends."""


class Served:
    """It, served."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def echo(self, data: bytes) -> bytes:
        """Return `data`."""
        return data

    def nap(self, data: bytes) -> bytes:
        """Return `data` after 2 ms."""
        sleep(NAP)
        return data

    def hold(self) -> None:
        """Return when the server ends."""
        self.ended.wait()


def serve(settings: dict[str, Any], control: Control) -> None:
    """Worker function: the server."""
    served = Served()
    with Server(settings["endpoint"], workers=WORKERS, **server_options(settings["endpoint"])) as server:
        server.register(Service, served)
        server.listen()
        control.ready(server.endpoint)
        control.wait_for_end()
        served.ended.set()


def call(settings: dict[str, Any], control: Control) -> dict[str, Any]:
    """Worker function: one client, for settings["seconds"]; returns how many calls were answered.

    With settings["outstanding"] 0 it is the occasional one, which returns how long each call took, too. Calls of `hold`
    do not end.
    """
    with Client(settings["endpoint"]) as client, CompletionPort() as port:
        operation = getattr(client.bind(Service), settings["operation"])
        if not settings["outstanding"]:
            control.wait_for_start(settings["start"])
            return occasional(operation, settings["seconds"])
        if settings["operation"] == "hold":
            control.wait_for_start(settings["start"])
            for _ in range(settings["outstanding"]):
                operation.begin()
            sleep(settings["seconds"])
            return {"answered": 0}
        told = port.packet()
        pool = payloads(1 << 12)
        control.wait_for_start(settings["start"])
        end = perf_counter() + settings["seconds"]
        begun = answered = 0
        for _ in range(settings["outstanding"]):
            operation.begin(pool[begun & 0xFFF], notify=told).user_data = pool[begun & 0xFFF]
            begun += 1
        while (left := end - perf_counter()) > 0:
            try:
                packets = port.get_many(settings["outstanding"], left)
            except WaitTimeout:
                break
            for packet in packets:
                finished = packet.overlapped
                if finished.complete() != finished.user_data:
                    raise WrongAnswer(f"to {finished.user_data[:16]!r}")
                operation.begin(pool[begun & 0xFFF], notify=told).user_data = pool[begun & 0xFFF]
                begun += 1
            answered += len(packets)
        return {"answered": answered}


def occasional(operation: Any, seconds: float) -> dict[str, Any]:
    """Call, wait, pause, until the time is over."""
    times, answered = [], 0
    end = perf_counter() + seconds
    for payload in payloads(int(seconds / PAUSE)):
        start = perf_counter()
        if start >= end:
            break
        call = operation.begin(payload)
        try:
            answer = call.result(end - start)
        except CallPending:
            times.append(perf_counter() - start)
            break  # The time is over.
        times.append(perf_counter() - start)
        answered += 1
        if answer != payload:
            raise WrongAnswer(f"{answer[:16]!r} for {payload[:16]!r}")
        sleep(PAUSE)
    return {"answered": answered, "times": times}


def run(lab: Lab, subject: str) -> Figures:
    """Let all clients call at once, for some seconds."""
    seconds = lab.effort.pick(*SECONDS)
    busy = CLIENTS[subject]
    with ExitStack() as processes:
        server = processes.enter_context(lab.server(f"{__name__}:serve"))
        held = [("hold", HELD_CALLS)] if subject == "engine-held" else []
        *shares, lone = lab.together(
            f"{__name__}:call",
            server,
            [
                {"operation": operation, "outstanding": outstanding, "seconds": seconds}
                for operation, outstanding in [*held, *busy, (busy[0][0], 0)]
            ],
        )
    answered = [share["answered"] for share in shares[len(held) :]]
    times = sorted(lone["times"])
    figures = {
        "calls_per_s": (sum(answered) + lone["answered"]) / seconds,
        "occasional_p50_ms": percentile(times, 50) * 1000,
        "occasional_p99_ms": percentile(times, 99) * 1000,
        "unanswered_percent": (len(times) - lone["answered"]) / len(times) * 100,
    }
    if subject == "engine-echo":
        return figures | {
            f"calls_per_s_{outstanding}": count / seconds
            for (_, outstanding), count in zip(busy, answered, strict=True)
        }
    total = max(1, sum(answered))
    fair = 100 / len(answered)
    percent = [count / total * 100 for count in sorted(answered)]
    return {
        **figures,
        **{f"share_{place}_percent": share for place, share in enumerate(percent, 1)},
        "uneven_percent": max(abs(share - fair) for share in percent) / fair * 100,
    }


SCENARIO = Scenario(
    name="fairness",
    run=over_links(run),
    subjects=(*CLIENTS, NATIVE, TLS),
    ratios=(
        Against(NATIVE, "engine"),
        Against(TLS, "engine"),
    ),
    rounds=(1, 3, 5),
)
