"""What do a thousand connected clients cost, most of which say nothing?

Unit: calls a second, all clients together, of 64 busy clients in one process with 4 calls outstanding each;
the server has either no other client, or 936 idle ones, connected from other processes.

What would make it wrong: idle clients that never connected (each makes a call, whose answer is compared,
before it idles); busy clients that take turns (all have calls outstanding at all times).
"""

import os
from collections import deque
from contextlib import ExitStack
from time import perf_counter
from typing import Any

import zmq

from engine import Client, CompletionPort
from perf.lab import Lab
from perf.measure import ANSWER_TIMEOUT, CpuMeter, WrongAnswer, calibrated, payloads
from perf.scenario import NATIVE, TLS, Against, Figures, Scenario, over_links
from perf.subjects.engine import Echo
from perf.worker import Control

BUSY = 64
OUTSTANDING = 4
IDLE = {"engine": 0, "engine-1000": 936}
PROCESSES = 4  # For the idle ones.
FIRST_CALLS = 4096
MOST_CALLS = 200_000


def idle(settings: dict[str, Any], control: Control) -> None:
    """Worker function: connect settings["clients"] clients, call once with each, and stay."""
    # A client has a socket and its monitor: the default limit of a context is 1023.
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.max_sockets = 8 * settings["clients"] + 64
    with ExitStack() as clients:
        for turn in range(settings["clients"]):
            client = clients.enter_context(Client(settings["endpoint"], context=context))
            hello = b"%d" % turn
            if client.bind(Echo).echo.begin(hello, timeout=ANSWER_TIMEOUT).result() != hello:
                raise WrongAnswer(f"to client {turn}")
        control.ready()
        control.wait_for_end()
    context.destroy(linger=0)


def call(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: the busy clients, all on one port and one thread."""
    pool = payloads(MOST_CALLS)
    with ExitStack() as opened:
        port = opened.enter_context(CompletionPort())
        clients = [opened.enter_context(Client(settings["endpoint"])) for _ in range(BUSY)]
        # The key says which client's call has ended, and so who begins the next one.
        senders = [(client.bind(Echo).echo.begin, port.packet(key=turn)) for turn, client in enumerate(clients)]

        def stream(count: int) -> None:
            waiting = deque(pool[:count])
            for _ in range(OUTSTANDING):
                for begin, told in senders:
                    payload = waiting.popleft()
                    begin(payload, notify=told).user_data = payload
            for _ in range(count):
                packet = port.get(ANSWER_TIMEOUT)
                finished = packet.overlapped
                if finished.complete() != finished.user_data:
                    raise WrongAnswer(f"to client {packet.key}")
                if waiting:
                    payload = waiting.popleft()
                    begin, told = senders[packet.key]
                    begin(payload, notify=told).user_data = payload

        count = calibrated(stream, settings["seconds"], FIRST_CALLS, MOST_CALLS)
        meter = CpuMeter(os.getpid(), settings["server_pid"])
        meter.start()
        start = perf_counter()
        stream(count)
        took = perf_counter() - start
        meter.stop()
    return {"calls_per_s": count / took, "cpu_us_per_call": meter.seconds / count * 1e6}


def run(lab: Lab, subject: str) -> Figures:
    """Measure with or without the idle clients."""
    with ExitStack() as processes:
        server = processes.enter_context(lab.server("engine"))
        for _ in range(PROCESSES if IDLE[subject] else 0):
            processes.enter_context(
                lab.server(f"{__name__}:idle", endpoint=server.endpoint, clients=IDLE[subject] // PROCESSES)
            )
        measured: Figures = lab.measure(f"{__name__}:call", server)
        return measured


SCENARIO = Scenario(
    name="clients",
    run=over_links(run),
    subjects=(*IDLE, NATIVE, TLS),
    ratios=(Against("engine-1000", "engine"), Against(NATIVE, "engine"), Against(TLS, "engine")),
)
