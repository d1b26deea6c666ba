"""What does a completion port cost beside the queues of the standard library?

Unit: nanoseconds a packet: posted and got on one thread; streamed from one thread to another; and dequeued
(without the posting) when 64 are queued, in one batch where the queue can do that, and one by one where not.

What would make it wrong: packets that are lost or come out of order (each is compared with its serial
number); a consumer that never waits because the producer was given a head start (both start together).
"""

import queue
import threading
from collections.abc import Callable
from time import perf_counter, perf_counter_ns
from typing import Any

from engine import CompletionPort
from perf.lab import Lab
from perf.measure import WrongAnswer, calibrated
from perf.scenario import Against, Figures, Scenario
from perf.worker import Control

BATCH = 64
FIRST = 2000
MOST = 500_000
LIMIT = 60.0  # Seconds: a packet that is lost is waited for without a limit, as one does with a queue.


def wrong(got: object, wanted: object) -> WrongAnswer:
    """Return the error of a packet that is not the one that was due."""
    return WrongAnswer(f"packet {got} where {wanted} was due")


def produce(put: Callable[[int], None], count: int) -> threading.Thread:
    """Start a thread that puts `count` serial numbers, and return when it runs."""
    gate = threading.Barrier(2)

    def main() -> None:
        gate.wait()
        for serial in range(count):
            put(serial)

    producer = threading.Thread(target=main, daemon=True)
    producer.start()
    gate.wait()
    return producer


class Port:
    """The completion port. Loops are written out for each kind: a call in between would be measured."""

    def __init__(self) -> None:
        self._port = CompletionPort()

    def one_thread(self, count: int) -> None:
        """Put and get, in turn."""
        post, get = self._port.post, self._port.get
        for serial in range(count):
            post(serial)
            if (got := get().key) != serial:
                raise wrong(got, serial)

    def two_threads(self, count: int) -> None:
        """Stream from another thread to this one."""
        get = self._port.get
        producer = produce(self._port.post, count)
        for serial in range(count):
            if (got := get().key) != serial:
                raise wrong(got, serial)
        producer.join()

    def batches(self, count: int) -> int:
        """Queue 64, take 64, and so on; return the nanoseconds that the taking took."""
        post, get_many, now = self._port.post, self._port.get_many, perf_counter_ns
        spent = 0
        for _ in range(count // BATCH):
            for serial in range(BATCH):
                post(serial)
            start = now()
            packets = get_many(BATCH)
            spent += now() - start
            if (got := [packet.key for packet in packets]) != list(range(BATCH)):
                raise wrong(got, f"0 to {BATCH - 1}")
        return spent

    def close(self) -> None:
        """Close the port."""
        self._port.close()


class Queue:
    """A queue of the standard library."""

    def __init__(self, kind: Callable[[], Any]) -> None:
        self._queue = kind()

    def one_thread(self, count: int) -> None:
        """Put and get, in turn."""
        put, get = self._queue.put, self._queue.get
        for serial in range(count):
            put(serial)
            if (got := get()) != serial:
                raise wrong(got, serial)

    def two_threads(self, count: int) -> None:
        """Stream from another thread to this one."""
        get = self._queue.get
        producer = produce(self._queue.put, count)
        for serial in range(count):
            if (got := get()) != serial:
                raise wrong(got, serial)
        producer.join()

    def batches(self, count: int) -> int:
        """Queue 64, take 64, and so on; return the nanoseconds that the taking took."""
        put, get, now = self._queue.put, self._queue.get, perf_counter_ns
        spent = 0
        for _ in range(count // BATCH):
            for serial in range(BATCH):
                put(serial)
            start = now()
            got = [get() for _ in range(BATCH)]
            spent += now() - start
            if got != list(range(BATCH)):
                raise wrong(got, f"0 to {BATCH - 1}")
        return spent

    def close(self) -> None:
        """Nothing is to be let go of."""


SUBJECTS: dict[str, Callable[[], Any]] = {
    "engine": Port,
    "queue.Queue": lambda: Queue(queue.Queue),
    "SimpleQueue": lambda: Queue(queue.SimpleQueue),
}


def measure(settings: dict[str, Any], control: Control) -> dict[str, float]:
    """Worker function: all three figures of one queue."""
    subject = SUBJECTS[settings["subject"]]()
    seconds = settings["seconds"] / 2
    figures = {}
    for name, way in (("one_thread_ns", subject.one_thread), ("two_threads_ns", subject.two_threads)):
        count = calibrated(way, seconds, FIRST, MOST)
        start = perf_counter()
        way(count)
        figures[name] = (perf_counter() - start) / count * 1e9
    count = calibrated(subject.batches, seconds, FIRST, MOST) // BATCH * BATCH
    figures["dequeue_64_ns"] = subject.batches(count) / count
    subject.close()
    return figures


def run(lab: Lab, subject: str) -> Figures:
    """Measure one queue once."""
    measured: Figures = lab.measure(f"{__name__}:measure", subject=subject, limit=LIMIT)
    return measured


SCENARIO = Scenario(
    name="port",
    run=run,
    subjects=tuple(SUBJECTS),
    ratios=(Against("engine", "queue.Queue"), Against("engine", "SimpleQueue")),
)
