"""How long do calls take that come when they come, whether or not earlier ones were answered?

Unit: microseconds from the moment at which a call was *meant* to leave to its answer, by the rate at which
calls come (evenly spaced); and the rate that was served.

What would make it wrong: counting from when the call did leave, which forgives every stall before it; a
sender that waits for answers. The sender sleeps between calls and so oversleeps by some 60 us, which counts,
for both sides alike. Each side sends in the way that suits it: ours from a thread of its own, the floor, whose
socket belongs to one thread, between two looks at the socket.
"""

import select
import threading
from collections.abc import Callable
from time import perf_counter, perf_counter_ns, sleep
from typing import Any

from perf.lab import Lab
from perf.measure import ANSWER_TIMEOUT, WrongAnswer, payloads, spread_us
from perf.scenario import NATIVE, TLS, Against, Figures, Scenario, over_links
from perf.worker import Control

RATES = ((2_000, 20_000), (2_000, 10_000, 40_000), (1_000, 3_000, 10_000, 30_000, 60_000, 100_000))
WARM_UP = 1000
NANO = 1_000_000_000

Finish = Callable[[int], None]


def engine(endpoint: str) -> tuple[Callable[[int, int, Finish], None], Callable[[], None]]:
    """Return a function that sends calls `gap` ns apart and tells of each answer, and one that closes."""
    from engine import Client, CompletionPort
    from perf.subjects.engine import Echo

    client, port = Client(endpoint), CompletionPort()
    begin = client.bind(Echo).echo.begin
    pool = payloads(1 << 16)

    def stream(count: int, gap: int, finish: Finish) -> None:
        start = perf_counter_ns()

        def send() -> None:
            for serial in range(count):
                ahead = start + serial * gap - perf_counter_ns()
                if ahead > 0:
                    sleep(ahead / NANO)
                begin(pool[serial & 0xFFFF], notify=port.packet(key=serial))

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        done = 0
        while done < count:
            for packet in port.get_many(64, ANSWER_TIMEOUT):
                if packet.overlapped.complete() != pool[packet.key & 0xFFFF]:
                    raise WrongAnswer(f"to call {packet.key}")
                finish(perf_counter_ns() - start - packet.key * gap)
                done += 1
        sender.join(ANSWER_TIMEOUT)

    def close() -> None:
        client.close()
        port.close()

    return stream, close


def raw(endpoint: str) -> tuple[Callable[[int, int, Finish], None], Callable[[], None]]:
    """The same over a bare DEALER, in one thread."""
    import zmq

    context: zmq.Context[Any] = zmq.Context()
    socket: Any = context.socket(zmq.DEALER)  # Its `events` have no type of their own.
    socket.set_hwm(0)
    socket.connect(endpoint)
    descriptors = [socket.fileno()]
    pool = payloads(1 << 16)

    def stream(count: int, gap: int, finish: Finish) -> None:
        start = perf_counter_ns()
        sent = done = 0
        heard = perf_counter()
        while done < count:
            due = min(count, (perf_counter_ns() - start) // gap + 1)
            while sent < due:
                socket.send(pool[sent & 0xFFFF])
                sent += 1
            # Edge-triggered: the socket is asked first, and the descriptor waited for only when it has
            # nothing.
            if socket.events & zmq.POLLIN:
                if socket.recv() != pool[done & 0xFFFF]:
                    raise WrongAnswer(f"to call {done}")
                finish(perf_counter_ns() - start - done * gap)
                done += 1
                heard = perf_counter()
                continue
            if perf_counter() - heard > ANSWER_TIMEOUT:
                raise TimeoutError(f"call {done} was not answered")
            # Until the next call is due; when all are sent, until something comes.
            ahead = start + sent * gap - perf_counter_ns() if sent < count else NANO // 100
            if ahead > 0:
                select.select(descriptors, [], [], ahead / NANO)

    return stream, lambda: context.destroy(linger=0)


SUBJECTS = {"engine": engine, "raw-zmq": raw}


def call(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: the client, rate after rate."""
    stream, close = SUBJECTS[settings["subject"]](settings["endpoint"])
    stream(WARM_UP, NANO // 10_000, lambda late: None)
    figures = {}
    for done, rate in enumerate(settings["rates"]):
        control.progress(done, len(settings["rates"]))
        late: list[int] = []
        count = int(rate * settings["seconds"])
        start = perf_counter()
        stream(count, NANO // rate, late.append)
        took = perf_counter() - start
        if len(late) != count:
            raise WrongAnswer(f"{len(late)} of {count} calls were answered")
        figures.update({f"{name}_at_{rate}": value for name, value in spread_us(late).items()})
        figures[f"served_calls_per_s_at_{rate}"] = count / took
    close()
    return figures


def run(lab: Lab, subject: str) -> Figures:
    """Measure one subject once, at each rate."""
    with lab.server(subject) as server:
        measured: Figures = lab.measure(f"{__name__}:call", server, subject=subject, rates=lab.effort.pick(*RATES))
        return measured


SCENARIO = Scenario(
    name="open_loop",
    run=over_links(run),
    subjects=("engine", NATIVE, TLS, "raw-zmq"),
    ratios=(Against("engine", "raw-zmq"), Against(NATIVE, "engine"), Against(TLS, "engine")),
    rounds=(1, 3, 5),
)
