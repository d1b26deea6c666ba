"""How much memory does an outstanding call take, and how much an idle client, server and pool?

Unit: bytes of resident memory a call, with 100,000 outstanding on one client, for the client's process and
for the server's; and KiB that a process with an idle client, server and pool has more than one with a bare
DEALER and ROUTER that exchange one message.

What would make it wrong: calls that are not really outstanding (the server says how many it holds, and each
is answered and compared in the end); memory that the test itself takes (payloads exist before the first
look); memory that was used before and is used again (each figure has fresh processes).
"""

import gc
import os
from time import monotonic
from typing import Any

from engine import Client, CompletionPort, Interface, Server, ServerCall, manager, operation
from perf.certificates import server_options
from perf.lab import Lab
from perf.measure import ANSWER_TIMEOUT, WrongAnswer, payloads, rss_bytes
from perf.scenario import NATIVE, TLS, Against, Figures, Scenario, over_links
from perf.subjects.engine import serve_until_end
from perf.worker import Control

CALLS = 100_000


class Cloakroom(Interface, id="perf.Cloakroom"):
    """Calls that are answered on demand."""

    @operation
    def hold(self, data: bytes) -> bytes:
        """Return `data` once `release` was called."""

    @operation
    def held(self) -> int:
        """Return how many calls are being held."""

    @operation
    def release(self) -> None:
        """Answer all calls that are held."""


class CloakroomService:
    """It, served."""

    def __init__(self) -> None:
        self._calls: list[tuple[ServerCall, bytes]] = []

    @manager
    def hold(self, call: ServerCall, data: bytes) -> None:
        """Keep the call for later."""
        self._calls.append((call, data))

    def held(self) -> int:
        """Return how many calls are being held."""
        return len(self._calls)

    def release(self) -> None:
        """Answer all calls that are held."""
        while self._calls:
            call, data = self._calls.pop()
            call.complete(data)


def serve(settings: dict[str, Any], control: Control) -> None:
    """Worker function: the service."""
    serve_until_end(settings, control, {Cloakroom: CloakroomService()})


def call(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: begin all calls, look, and collect all replies."""
    count, server_pid = settings["calls"], settings["server_pid"]
    sent = payloads(count)
    with Client(settings["endpoint"]) as client, CompletionPort() as port:
        room = client.bind(Cloakroom)
        room.held()  # Connects.
        told = port.packet()
        gc.collect()
        before, server_before = rss_bytes(os.getpid()), rss_bytes(server_pid)
        for payload in sent:
            room.hold.begin(payload, notify=told).user_data = payload
        deadline = monotonic() + ANSWER_TIMEOUT
        while (held := room.held()) < count:
            if monotonic() > deadline:
                raise WrongAnswer(f"the server holds {held} of {count} calls")
        used, server_used = rss_bytes(os.getpid()) - before, rss_bytes(server_pid) - server_before
        room.release()
        for _ in range(count):
            finished = port.get(ANSWER_TIMEOUT).overlapped
            if finished.complete() != finished.user_data:
                raise WrongAnswer("a held call came back with another one's data")
    return {"client_bytes_per_call": used / count, "server_bytes_per_call": server_used / count}


def idle_engine(settings: dict[str, Any], control: Control) -> int:
    """Worker function: the memory of a process with an idle client, server and pool."""
    endpoint = settings["endpoint"]
    with Server(endpoint, **server_options(endpoint)) as server:
        server.register(Cloakroom, CloakroomService())
        server.listen()
        with Client(server.endpoint) as client:
            if client.bind(Cloakroom).held() != 0:
                raise WrongAnswer("a call is held that nobody made")
            return rss_bytes(os.getpid())


def idle_bare(settings: dict[str, Any], control: Control) -> int:
    """Worker function: the memory of a process with a ROUTER, a DEALER and msgspec."""
    import msgspec
    import zmq

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    router.bind(settings["endpoint"])
    dealer.connect(settings["endpoint"])
    dealer.rcvtimeo = router.rcvtimeo = int(ANSWER_TIMEOUT * 1000)
    dealer.send(msgspec.msgpack.encode(0))
    router.send_multipart(router.recv_multipart())
    if msgspec.msgpack.decode(dealer.recv()) != 0:
        raise WrongAnswer("to the only message")
    used = rss_bytes(os.getpid())
    context.destroy(linger=0)
    return used


def run(lab: Lab, subject: str) -> Figures:
    """Measure once."""
    with lab.server(f"{__name__}:serve") as server:
        figures: dict[str, float] = lab.measure(f"{__name__}:call", server, calls=CALLS)
    bare = lab.measure(f"{__name__}:idle_bare", endpoint=f"ipc://{lab.scratch}/bare")
    engine = lab.measure(f"{__name__}:idle_engine", endpoint=lab.endpoint(str(lab.scratch)))
    return figures | {"idle_over_bare_kib": (engine - bare) / 1024}


SCENARIO = Scenario(
    name="memory",
    run=over_links(run),
    subjects=("engine", NATIVE, TLS),
    ratios=(
        Against(NATIVE, "engine"),
        Against(TLS, "engine"),
    ),
    rounds=(1, 3, 3),
)
