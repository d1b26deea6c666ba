"""Does a server that is offered five times what it can do still do what it can?

Unit: percent of the server's capacity that is answered in time; of the calls offered, percent that came too late and
percent that were refused, and milliseconds until a refusal came. 4 workers, a routine that sleeps 1 ms, and a limit of
100 ms for each call. Capacity is what one client with 64 calls outstanding gets, in the same server just before; then
two clients offer five times that between them, whether or not they are answered.

What would make it wrong: clients that cannot offer so much (how much they did is shown); calls that wait longer than
their limit and count all the same; a rate of which the clients forgive the server a part when they are held up (calls
that were due are made up for).
"""

from time import perf_counter, sleep
from typing import Any

from engine import CallTimeout, Client, CompletionPort, Interface, Server, ServerTooBusy, WaitTimeout, operation
from perf.certificates import server_options
from perf.lab import Lab
from perf.measure import ANSWER_TIMEOUT, WrongAnswer, payloads, percentile
from perf.scenario import NATIVE, TLS, Against, Figures, Scenario, over_links
from perf.worker import Control

WORKERS = 4
NAP = 0.001  # Seconds that a routine takes.
LIMIT = 0.1  # Seconds that a call may take.
CLIENTS = 2
TIMES = 5
TICK = 0.002  # Seconds between two bursts of an offering client.
SECONDS = (1.5, 3.0, 5.0)


class Nap(Interface, id="perf.Nap"):
    """A routine that takes its time."""

    @operation
    def nap(self, data: bytes) -> bytes:
        """Return `data` after 1 ms."""


class NapService:
    """It, served."""

    def nap(self, data: bytes) -> bytes:
        """Return `data` after 1 ms."""
        sleep(NAP)
        return data


def serve(settings: dict[str, Any], control: Control) -> None:
    """Worker function: the server."""
    with Server(settings["endpoint"], workers=WORKERS, **server_options(settings["endpoint"])) as server:
        server.register(Nap, NapService())
        server.listen()
        control.ready(server.endpoint)
        control.wait_for_end()


def capacity(settings: dict[str, Any], control: Control) -> float:
    """Worker function: calls a second of one client that keeps the server busy."""
    with Client(settings["endpoint"]) as client, CompletionPort() as port:
        begin, told = client.bind(Nap).nap.begin, port.packet()
        pool = payloads(64)
        answered = 0
        start = perf_counter()
        for payload in pool:
            begin(payload, notify=told).user_data = payload
        while (took := perf_counter() - start) < settings["seconds"]:
            for packet in port.get_many(64, ANSWER_TIMEOUT):
                call = packet.overlapped
                payload = call.user_data
                if call.complete() != payload:
                    raise WrongAnswer(f"to {payload[:16]!r}")
                answered += 1
                begin(payload, notify=told).user_data = payload
        return answered / took


def offer(settings: dict[str, Any], control: Control) -> dict[str, Any]:
    """Worker function: offer settings["rate"] calls a second; return what became of them."""
    pool = payloads(1 << 12)
    found: dict[str, Any] = {"offered": 0, "in_time": 0, "late": 0, "refused": []}
    with Client(settings["endpoint"]) as client, CompletionPort() as port:
        begin, told = client.bind(Nap).nap.begin, port.packet()
        begin(pool[0], timeout=ANSWER_TIMEOUT).result()
        control.wait_for_start(settings["start"])
        start = perf_counter()
        pending = 0
        while (now := perf_counter() - start) < settings["seconds"] or pending:
            due = int(min(now, settings["seconds"]) * settings["rate"])
            for serial in range(found["offered"], due):
                payload = pool[serial & 0xFFF]
                begin(payload, timeout=LIMIT, notify=told).user_data = payload, perf_counter()
                pending += 1
            found["offered"] = due
            try:
                packets = port.get_many(1 << 12, TICK)
            except WaitTimeout:
                packets = []
            for packet in packets:
                settle(packet.overlapped, found)
            pending -= len(packets)
    return found


def settle(call: Any, found: dict[str, Any]) -> None:
    """Note what became of one call."""
    payload, begun = call.user_data
    try:
        answer = call.complete()
    except CallTimeout:
        found["late"] += 1
    except ServerTooBusy:
        found["refused"].append(perf_counter() - begun)
    else:
        found["in_time"] += 1
        if answer != payload:
            raise WrongAnswer(f"{answer[:16]!r} for {payload[:16]!r}")


def run(lab: Lab, subject: str) -> Figures:
    """Measure capacity, then offer too much."""
    seconds = lab.effort.pick(*SECONDS)
    with lab.server(f"{__name__}:serve") as server:
        able: float = lab.measure(f"{__name__}:capacity", server, seconds=seconds)
        each = {"rate": able * TIMES / CLIENTS, "seconds": seconds}
        clients = lab.together(f"{__name__}:offer", server, [each] * CLIENTS)
    total = {name: sum(client[name] for client in clients) for name in ("offered", "in_time", "late")}
    refused = sorted(wait for client in clients for wait in client["refused"])
    figures = {
        "calls_per_s": able,
        "offered_ops_per_s": total["offered"] / seconds,
        "goodput_percent": total["in_time"] / seconds / able * 100,
        "late_percent": total["late"] / total["offered"] * 100,
        "refused_percent": len(refused) / total["offered"] * 100,
    }
    return figures | ({"refused_p99_ms": percentile(refused, 99) * 1000} if refused else {})


SCENARIO = Scenario(
    name="overload",
    run=over_links(run),
    subjects=("engine", NATIVE, TLS),
    ratios=(
        Against(NATIVE, "engine"),
        Against(TLS, "engine"),
    ),
    rounds=(1, 3, 5),
)
