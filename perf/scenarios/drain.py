"""Does a drain at full rate lose a call?

Unit: calls that failed (`lost`), of all (`ended_calls`), over so many `drains`; 64-byte echo with 256 calls
outstanding, which are not idempotent. `engine` is a client of three servers that drain in turn and come back;
`engine-one` one of a single server that drains and comes back at the same endpoint.

What would make it wrong: drains between which no call is outstanding (the window is full at all times); a failure that
is not counted (each call is completed, and any error counts); a server that has not come back when the next one goes,
which calls survive, too, but more slowly.
"""

from contextlib import ExitStack, suppress
from time import perf_counter, sleep
from typing import Any

from engine import CallError, Client, CompletionPort, Server, WaitTimeout
from perf.certificates import server_options
from perf.lab import Lab
from perf.measure import ANSWER_TIMEOUT
from perf.scenario import NATIVE, TLS, Figures, Scenario, over_links
from perf.scenarios.fleet import connected
from perf.subjects.engine import Echo, EchoService
from perf.worker import Control

OUTSTANDING = 256
SERVERS = {"engine": 3, "engine-one": 1}
STAY = 0.5  # Seconds that a server serves before it drains.
PAYLOAD = bytes(range(64))


def serve(settings: dict[str, Any], control: Control) -> None:
    """Worker function: serve at settings["endpoint"] for a while, drain, and begin again; settings["after"] seconds
    later than the others.
    """
    control.end_with_parent()
    endpoint = settings["endpoint"]
    first = True
    while True:
        server = Server(endpoint, **server_options(endpoint))
        server.register(Echo, EchoService())
        server.listen()
        endpoint = server.endpoint
        if first:
            control.ready(endpoint)
            sleep(settings["after"])
            first = False
        sleep(STAY)
        server.drain()


def call(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: keep calls outstanding, and count those that fail."""
    endpoints = settings["endpoints"]
    with ExitStack() as opened:
        if len(endpoints) > 1:
            client = opened.enter_context(connected(endpoints))
            begin = client.bind(Echo, causal=False).echo.begin
        else:
            client = opened.enter_context(Client(endpoints[0], connect_timeout=ANSWER_TIMEOUT))
            begin = client.bind(Echo).echo.begin
        port = opened.enter_context(CompletionPort())
        told = port.packet()
        begun = ended = lost = 0
        end = perf_counter() + 10 * settings["seconds"]
        while perf_counter() < end or ended < begun:
            if perf_counter() < end:
                for _ in range(OUTSTANDING - (begun - ended)):
                    begin(PAYLOAD, notify=told)
                    begun += 1
            with suppress(WaitTimeout):
                for packet in port.get_many(OUTSTANDING, 0.1):
                    ended += 1
                    try:
                        lost += packet.overlapped.complete() != PAYLOAD
                    except CallError:
                        lost += 1
        drains = client.statistics().connections - len(endpoints)
    return {"ended_calls": ended, "lost": lost, "drains": drains}


def run(lab: Lab, subject: str) -> Figures:
    """Measure one subject once."""
    with ExitStack() as processes:
        number = SERVERS[subject]
        servers = [
            processes.enter_context(lab.server(f"{__name__}:serve", after=STAY * turn / number))
            for turn in range(number)
        ]
        figures: Figures = lab.measure(f"{__name__}:call", endpoints=[server.endpoint for server in servers])
        return figures


SCENARIO = Scenario(name="drain", run=over_links(run), subjects=(*SERVERS, NATIVE, TLS))
