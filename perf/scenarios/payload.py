"""How fast do large payloads go there and back?

Unit: MB of payload a second (what goes there and comes back counts once), one echo outstanding, by size. The
floor is raw pyzmq with `copy=False`; ours takes and returns a `memoryview`, or a NumPy array, which travel
without a copy.

What would make it wrong: answers that are not compared byte by byte (both sides compare by memcmp, which
takes the same time for both); a payload that is always the same object and so lies in the cache (a few take
turns, each stamped with a serial number).
"""

import importlib.util
import os
from collections.abc import Callable
from time import perf_counter
from typing import Any

from perf.lab import Lab
from perf.measure import ANSWER_TIMEOUT, CpuMeter, WrongAnswer, calibrated, payloads
from perf.scenario import Against, Figures, Scenario
from perf.worker import Control

SIZES = {"16b": 16, "1kib": 1 << 10, "64kib": 1 << 16, "1mib": 1 << 20, "16mib": 1 << 24}
QUICK = ("1kib", "1mib", "16mib")
TURNS = 4  # Payloads that take turns.
SHORTER = 2  # Each size gets the effort's seconds divided by this: there are five.


def same(answer: Any, sent: bytes) -> None:
    """Compare an answer, any buffer, with what was sent."""
    # memoryview's own == goes byte by byte; startswith compares memory.
    if len(answer) != len(sent) or not sent.startswith(answer):
        raise WrongAnswer(f"{len(answer)} bytes that are not the {len(sent)} bytes sent")


def raw(endpoint: str) -> tuple[Callable[[bytes], None], Callable[[], None]]:
    """Return a function that echoes and compares, and one that closes, over a bare DEALER."""
    import zmq

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.rcvtimeo = int(ANSWER_TIMEOUT * 1000)
    socket.connect(endpoint)

    def echo(sent: bytes) -> None:
        socket.send(sent, copy=False)
        same(socket.recv(copy=False).buffer, sent)

    return echo, lambda: context.destroy(linger=0)


def ours(endpoint: str) -> tuple[Callable[[bytes], None], Callable[[], None]]:
    """The same over the engine, through a port."""
    from engine import Client, CompletionPort

    client, port = Client(endpoint), CompletionPort()
    begin = client.bind(contract()).echo.begin
    told = port.packet()

    def echo(sent: bytes) -> None:
        begin(memoryview(sent), notify=told)
        same(port.get(ANSWER_TIMEOUT).overlapped.complete(), sent)

    def close() -> None:
        client.close()
        port.close()

    return echo, close


def arrays(endpoint: str) -> tuple[Callable[[bytes], None], Callable[[], None]]:
    """The same with NumPy arrays."""
    import numpy

    from engine import Client, CompletionPort

    client, port = Client(endpoint), CompletionPort()
    begin = client.bind(contract()).echo_array.begin
    told = port.packet()

    def echo(sent: bytes) -> None:
        begin(numpy.frombuffer(sent, dtype="<u8"), notify=told)
        answer = port.get(ANSWER_TIMEOUT).overlapped.complete()
        if answer.dtype != "<u8":
            raise WrongAnswer(f"an array of {answer.dtype}")
        same(answer.data.cast("B"), sent)

    def close() -> None:
        client.close()
        port.close()

    return echo, close


def contract() -> Any:
    """Return the interface; in a function, for the floor's processes load neither the engine nor NumPy."""
    from engine import Interface, operation

    try:
        from numpy import ndarray
    except ImportError:
        ndarray = bytes  # type: ignore[assignment,misc]  # never called: `missing` says so

    class Buffers(Interface, id="perf.Buffers"):
        """Echo, without copies."""

        @operation
        def echo(self, data: memoryview) -> memoryview:
            """Return `data`."""

        @operation
        def echo_array(self, data: ndarray) -> ndarray:
            """Return `data`."""

    return Buffers


class BuffersService:
    """It, served."""

    def echo(self, data: memoryview) -> memoryview:
        """Return `data`."""
        return data

    def echo_array(self, data: Any) -> Any:
        """Return `data`."""
        return data


def serve(settings: dict[str, Any], control: Control) -> None:
    """Worker function: our server."""
    from engine import Server

    with Server(settings["link"] + settings["endpoint"]) as server:
        server.register(contract(), BuffersService())
        server.listen()
        control.ready(server.endpoint)
        control.wait_for_end()


SUBJECTS = {"engine": ours, "engine-native": ours, "engine-array": arrays, "raw-zmq": raw}


def call(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: the client, size after size."""
    echo, close = SUBJECTS[settings["subject"]](settings["endpoint"])
    meter = CpuMeter(os.getpid(), settings["server_pid"])
    figures = {}
    for done, name in enumerate(settings["sizes"]):
        control.progress(done, len(settings["sizes"]))
        size = SIZES[name]
        pool = payloads(TURNS, size)

        def stream(count: int, pool: list[bytes] = pool) -> None:
            for turn in range(count):
                echo(pool[turn % TURNS])

        count = calibrated(stream, settings["seconds"] / SHORTER, 8)
        meter.start()
        start = perf_counter()
        stream(count)
        took = perf_counter() - start
        meter.stop()
        figures[f"mb_per_s_{name}"] = count * size / took / 1e6
        figures[f"cpu_us_per_call_{name}"] = meter.seconds / count * 1e6
    close()
    return figures


def missing(subject: str) -> str | None:
    """Arrays need NumPy."""
    return "NumPy is not installed" if subject == "engine-array" and not importlib.util.find_spec("numpy") else None


def run(lab: Lab, subject: str) -> Figures:
    """Measure one subject once, at each size."""
    sizes = lab.effort.pick(QUICK, tuple(SIZES), tuple(SIZES))
    if subject == "raw-zmq":
        server = lab.server("raw-zmq", copy=False)
    else:
        server = lab.server(f"{__name__}:serve", link="native+" if subject == "engine-native" else "")
    with server as running:
        measured: Figures = lab.measure(f"{__name__}:call", running, subject=subject, sizes=sizes)
        return measured


SCENARIO = Scenario(
    name="payload",
    run=run,
    subjects=tuple(SUBJECTS),
    ratios=(Against("engine", "raw-zmq"), Against("engine-native", "raw-zmq"), Against("engine-array", "raw-zmq")),
    missing=missing,
)
