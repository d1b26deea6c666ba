"""What does each way of being notified cost?

Unit: calls a second with 256 outstanding, 64-byte echo, one client thread; the completion port is the measure
of the others, and the floor that of `await`.

What would make it wrong: a way that looks at fewer answers than another (each compares all of them); a way
that is measured in a form that nobody would use. So: with events, one auto-reset event for each outstanding
call, waited for in the order of the calls; with APCs and callbacks, the routine that collects a reply begins
the next call; with `await`, one task for each outstanding call; without notification, a wait on the oldest
call.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from itertools import islice
from time import monotonic, perf_counter
from typing import Any

from engine import Call, Client, Event, apc, sleep
from perf.lab import Lab
from perf.measure import ANSWER_TIMEOUT, CpuMeter, WrongAnswer, calibrated, payloads
from perf.scenario import NATIVE, TLS, Against, Figures, Scenario, over_links
from perf.streams import needs
from perf.subjects.engine import Client as PortClient
from perf.subjects.engine import Echo
from perf.worker import Control

OUTSTANDING = 256
FIRST_CALLS = 2000
MOST_CALLS = 400_000


def check(answer: bytes, sent: bytes) -> None:
    """Compare an answer with what was sent."""
    if answer != sent:
        raise WrongAnswer(f"{answer[:16]!r} for {sent[:16]!r}")


def by_event(client: Client, sent: list[bytes]) -> None:
    """Wait for each call's own event, oldest call first."""
    begin = client.bind(Echo).echo.begin
    waiting = iter(sent)
    open_calls: deque[tuple[Call[bytes], bytes, Event]] = deque()
    for payload in islice(waiting, OUTSTANDING):
        event = Event()
        open_calls.append((begin(payload, notify=event), payload, event))
    while open_calls:
        call, payload, event = open_calls.popleft()
        if not event.wait(ANSWER_TIMEOUT):
            raise TimeoutError(f"{call} was not answered")
        check(call.complete(), payload)
        for further in islice(waiting, 1):
            open_calls.append((begin(further, notify=event), further, event))


def by_nothing(client: Client, sent: list[bytes]) -> None:
    """Wait on the oldest call itself."""
    begin = client.bind(Echo).echo.begin
    waiting = iter(sent)
    open_calls = deque((begin(payload), payload) for payload in islice(waiting, OUTSTANDING))
    while open_calls:
        call, payload = open_calls.popleft()
        check(call.result(ANSWER_TIMEOUT), payload)
        for further in islice(waiting, 1):
            open_calls.append((begin(further), further))


class Relay:
    """Collects replies wherever it is called, and begins the next call there."""

    def __init__(self, client: Client, sent: list[bytes]) -> None:
        self._begin = client.bind(Echo).echo.begin
        self._waiting = deque(sent)
        self._left = len(sent)
        self.failure: BaseException | None = None
        self.over = Event(manual_reset=True)
        self.notify: Any = self.completed

    def start(self) -> None:
        """Begin the first calls."""
        for _ in range(min(OUTSTANDING, len(self._waiting))):
            self._next()

    def _next(self) -> None:
        try:
            payload = self._waiting.popleft()
        except IndexError:
            return
        self._begin(payload, notify=self.notify, handle=Call(user_data=payload))

    def completed(self, call: Call[bytes], kind: int) -> None:
        """Be told of one call."""
        try:
            check(call.complete(), call.user_data)
            self._next()
        except BaseException as failure:
            self.failure = failure
            self.over.set()
        self._left -= 1
        if not self._left:
            self.over.set()

    def finish(self) -> None:
        """Raise what went wrong, an answer that never came among it."""
        if self.failure is not None:
            raise self.failure
        if self._left:
            raise WrongAnswer(f"{self._left} calls were not answered")


def by_apc(client: Client, sent: list[bytes]) -> None:
    """Let APCs run in this thread's alertable sleep."""
    relay = Relay(client, sent)
    relay.notify = apc(relay.completed)
    relay.start()
    deadline = monotonic() + ANSWER_TIMEOUT + len(sent) / 1000
    while not relay.over.is_signaled():
        sleep(ANSWER_TIMEOUT, alertable=True)
        if monotonic() > deadline:
            raise TimeoutError("calls were not answered")
    relay.finish()


def by_callback(client: Client, sent: list[bytes]) -> None:
    """Let callbacks run on the default pool."""
    relay = Relay(client, sent)
    relay.start()
    if not relay.over.wait(ANSWER_TIMEOUT + len(sent) / 1000):
        raise TimeoutError("calls were not answered")
    relay.finish()


def by_await(client: Client, sent: list[bytes], loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    """Await each call, in 256 tasks."""
    begin = client.bind(Echo).echo.begin

    async def task(turn: int) -> None:
        for payload in sent[turn::OUTSTANDING]:
            check(await begin(payload), payload)

    async def main() -> None:
        async with asyncio.timeout(ANSWER_TIMEOUT + len(sent) / 1000), asyncio.TaskGroup() as group:
            for turn in range(OUTSTANDING):
                group.create_task(task(turn))

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


def by_uvloop(client: Client, sent: list[bytes]) -> None:
    """The same on uvloop's loop."""
    import uvloop

    by_await(client, sent, uvloop.new_event_loop)


WAYS: dict[str, Any] = {
    "engine-event": by_event,
    "engine-callback": by_callback,
    "engine-apc": by_apc,
    "engine-await": by_await,
    "engine-await-uvloop": by_uvloop,
    "engine-none": by_nothing,
}


def call(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: the client."""
    way = WAYS.get(settings["subject"])
    pool = payloads(MOST_CALLS)
    meter = CpuMeter(os.getpid(), settings["server_pid"])
    with Client(settings["endpoint"]) as client:
        port_client = PortClient("", client)

        def stream(count: int) -> None:
            if way is None:
                port_client.stream(pool[:count], OUTSTANDING)
            else:
                way(client, pool[:count])

        count = calibrated(stream, settings["seconds"], FIRST_CALLS, len(pool))
        meter.start()
        start = perf_counter()
        stream(count)
        took = perf_counter() - start
        meter.stop()
        port_client.close()
    return {"calls_per_s_256": count / took, "cpu_us_per_call_256": meter.seconds / count * 1e6}


def missing(subject: str) -> str | None:
    """One way needs uvloop, and TLS a certificate."""
    return {"engine-await-uvloop": needs("uvloop", "uvloop"), TLS: needs("trustme", "trustme")}.get(subject)


def run(lab: Lab, subject: str) -> Figures:
    """Measure one way once."""
    if subject == "raw-zmq":
        with lab.server(subject) as server:
            floor: Figures = lab.measure("perf.echo:throughput", server, subject=subject, outstanding=[OUTSTANDING])
        return {name: floor[name] for name in ("calls_per_s_256", "cpu_us_per_call_256")}
    with lab.server("engine") as server:
        measured: Figures = lab.measure(f"{__name__}:call", server, subject=subject)
        return measured


SCENARIO = Scenario(
    name="notify",
    run=over_links(run),
    subjects=("engine", *WAYS, NATIVE, TLS, "raw-zmq"),
    ratios=(
        *(Against(way, "engine") for way in (*WAYS, NATIVE, TLS)),
        Against("engine-await", "raw-zmq"),
        Against("engine-await-uvloop", "raw-zmq"),
    ),
    missing=missing,
)
