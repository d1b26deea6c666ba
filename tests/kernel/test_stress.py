"""Everything at once, for a while: no hang, no loss, no duplicate. `make stress` runs it."""

import os
import random
import threading
import time
from collections.abc import Callable

import pytest

from engine import (
    Alerted,
    CompletionPort,
    Event,
    Mutex,
    Semaphore,
    WaitTimeout,
    blocking,
    queue_apc,
    register_wait,
    sleep,
    wait_all,
    wait_any,
)
from engine.testing import LIMIT, wait_until

from .helpers import Actor, result

Make = Callable[[], Actor]
SECONDS = float(os.environ.get("STRESS_SECONDS", "10"))

pytestmark = [pytest.mark.stress, pytest.mark.timeout(SECONDS + LIMIT)]


def test_ports_waits_and_apcs(actor: Make) -> None:  # noqa: C901  # threads of five kinds, each a few lines
    """Packets from posts, signals and APCs, taken in every way by threads that block, move and end: each comes once."""
    ports = [CompletionPort(limit) for limit in (1, 2, 3)]
    posted: list[int] = []
    taken: list[int] = []
    numbers = iter(range(10**9))
    numbers_lock = threading.Lock()
    end = time.monotonic() + SECONDS
    idle = Event()
    mutex = Mutex()
    counter = Semaphore(0, 10**9)
    inside = [0]

    def fresh() -> int:
        with numbers_lock:
            number = next(numbers)
            posted.append(number)
            return number

    def post() -> None:
        while time.monotonic() < end:
            port = random.choice(ports)
            what = random.random()
            if what < 0.6:
                port.post(fresh())
            elif what < 0.8:
                event = Event()
                port.associate_wait(event, fresh())
                register_wait(event, lambda status: counter.release())
                event.set()
                event.set()
                event.close()
            else:
                thread = random.choice(takers).thread
                number = fresh()
                try:
                    queue_apc(taken.append, number, thread=thread)
                except Exception:
                    taken.append(number)  # The thread has ended.
            while sum(map(len, ports)) > 1000 and time.monotonic() < end:
                sleep(0.0005)  # The library's own wait, which gives the slot back: part of the traffic.

    def take() -> None:
        rounds = random.randint(50, 500)
        while time.monotonic() < end and rounds:
            rounds -= 1
            port = random.choice(ports)
            try:
                what = random.random()
                if what < 0.3:
                    taken.append(port.get(random.choice((0, 0.0002, 0.002))).key)
                elif what < 0.8:
                    alertable = random.random() < 0.5
                    found = port.get_many(random.randint(1, 8), random.choice((0, 0.001)), alertable=alertable)
                    taken.extend(packet.key for packet in found)
                elif what < 0.85:
                    idle.wait(0.0003, alertable=True)
                elif what < 0.9:
                    wait_any([idle, counter], 0.0003)
                elif what < 0.95:
                    with blocking():
                        time.sleep(0.0002)  # A block that the library cannot see; nothing waits by it.
                else:
                    wait_all([mutex, counter], 0.001)
                    inside[0] += 1
                    assert inside[0] == 1
                    inside[0] -= 1
                    mutex.release()
            except (WaitTimeout, Alerted):
                pass
        while sleep(0, alertable=True):
            pass

    takers = [actor() for _ in range(5)]
    taking = [each.start(take) for each in takers]
    posting = [actor().start(post) for _ in range(3)]
    while time.monotonic() < end:
        for index, each in enumerate(taking):
            if each.done():
                result(each)
                if random.random() < 0.5:
                    takers[index].do(sleep, 0, alertable=True)
                taking[index] = takers[index].start(take)
        time.sleep(0.01)  # How long the traffic lasts; no promise is timed by it.
    for each in posting + taking:
        result(each)
    for taker in takers:
        while taker.do(sleep, 0, alertable=True):
            pass

    def drain() -> bool:
        for port in ports:
            try:
                while True:
                    taken.extend(packet.key for packet in port.get_many(1000, 0))
            except WaitTimeout:
                pass
        return len(taken) >= len(posted)

    for taker in takers:
        taker.end()
    wait_until(drain, LIMIT)
    assert sorted(taken) == sorted(posted)
    for port in ports:
        statistics = port.statistics()
        assert (statistics.waiting, statistics.depth) == (0, 0) and statistics.active <= 1
        port.close()
    idle.close()


def test_slots_never_leak(actor: Make) -> None:
    """However threads come, block and go, a port at rest counts none of them."""
    end = time.monotonic() + SECONDS / 4
    with CompletionPort(2) as port:
        while time.monotonic() < end:
            workers = [Actor() for _ in range(4)]

            def work() -> None:
                for _ in range(20):
                    try:
                        port.get(random.choice((0, 0.0001)))
                    except WaitTimeout:
                        pass
                    if random.random() < 0.3:
                        sleep(0.0001)  # As above.

            working = [worker.start(work) for worker in workers]
            for _ in range(40):
                port.post()
            for each in working:
                result(each)
            for worker in workers:
                worker.end()
            assert port.statistics().active == 0
            while len(port):
                port.get_many(100)
            with pytest.raises(WaitTimeout), CompletionPort(1) as other:
                other.get(0)  # This thread leaves the port.
            assert port.statistics().active == 0
