"""Programs that `test_interrupts.py` runs, each in the main thread of a process of its own: only there do handlers run.

python -X dev -m tests.kernel.interrupted NAME
"""

import faulthandler
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence

from engine import (
    Alerted,
    CompletionPort,
    EngineError,
    Event,
    Semaphore,
    WaitTimeout,
    blocking,
    queue_apc,
    sleep,
    wait_all,
    wait_any,
)
from engine.kernel.driver import driver
from engine.kernel.lock import Lock
from engine.testing import LIMIT, wait_until, wait_until_blocked


class Interrupt(BaseException):
    """What the handler raises."""


armed = False


def interrupt(number: int, frame: object) -> None:
    """The handler: raises once each time it was armed."""
    global armed
    if armed:
        armed = False
        raise Interrupt


def interrupted(function: Callable[[], object], seconds: float = 0.02) -> bool:
    """Call `function`, interrupt it after a while, wherever it is; return whether that came to pass."""
    global armed
    try:
        armed = True
        signal.setitimer(signal.ITIMER_REAL, seconds)
        function()
        armed = False
    except Interrupt:
        return True
    return False


class Wire:
    """A source that the driver drives: what comes by its socket pair makes it act."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.a, self.b = socket.socketpair()
        self.a.setblocking(False)
        self.action = action
        self.lock = Lock()
        driver().register(self)

    def descriptors(self) -> Sequence[int]:
        return [self.a.fileno()]

    def drive(self, readable: bool) -> bool:
        with self.lock:
            try:
                self.a.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return False
            self.action()  # A harvest that is broken off is made again.
            self.a.recv(1)
            return True

    def close(self) -> None:
        driver().unregister(self)
        self.a.close()
        self.b.close()


def every_wait_can_be_interrupted() -> None:
    """Ctrl-C works in every wait, and leaves nothing pending."""
    with CompletionPort(1) as port, Event() as event:
        for wait in (
            port.get,
            lambda: port.get_many(4),
            lambda: port.get_many(4, alertable=True),
            event.wait,
            lambda: event.wait(alertable=True),
            lambda: wait_any([event]),
            lambda: wait_all([event]),
            lambda: sleep(None),
            lambda: sleep(None, alertable=True),
        ):
            assert interrupted(wait), wait
            assert port.statistics().waiting == event.statistics().waiting == 0


def a_leader_can_be_interrupted() -> None:
    """So does a wait that drives sources; the leadership is given up."""
    with Event() as event, CompletionPort(1) as port:
        wire = Wire(event.set)
        for wait in (event.wait, port.get, lambda: sleep(None)):
            assert interrupted(wait)
            assert driver()._leader is None
        threading.Timer(0.01, wire.b.send, (b"x",)).start()
        assert event.wait(LIMIT)
        wire.close()


def the_thread_is_active_afterwards() -> None:
    """An interrupted dequeue holds a slot, as one that timed out."""
    with CompletionPort(1) as port:
        assert interrupted(port.get)
        assert port.statistics().active == 1
        with Event() as event:
            assert interrupted(event.wait)
        assert port.statistics().active == 1
        with blocking():
            assert port.statistics().active == 0


def polls_go_on_afterwards() -> None:
    """After an interrupt the same objects serve as before."""
    with CompletionPort(1) as port, Event() as event:
        assert interrupted(event.wait) and interrupted(port.get)
        event.set()
        assert event.wait(0) and not event.wait(0)
        port.post(1)
        assert port.get(0).key == 1


def a_packet_that_goes_back_is_seen() -> None:
    """A thread that waits for the port itself hears of a packet that an interrupted dequeue puts back."""
    went_back = 0
    for _ in range(20):
        with CompletionPort(1) as port:
            seen: list[int] = []
            watcher = threading.Thread(target=lambda: seen.append(wait_any([port], LIMIT)))  # noqa: B023  # joined in this turn
            watcher.start()
            wait_until_blocked(watcher)

            def post() -> None:
                global armed
                wait_until_blocked(port)
                armed = True
                signal.raise_signal(signal.SIGALRM)
                port.post()

            poster = threading.Thread(target=post)
            poster.start()
            try:
                port.get()
                port.post()
            except Interrupt:
                went_back += len(port)
            poster.join()
            watcher.join()
            assert seen == [0], port
    assert went_back


def signals_are_conserved() -> None:
    """A semaphore's count that an interrupted wait had taken is given back or handed on."""
    semaphore = Semaphore(0, 10**6)
    end, taken, released = time.monotonic() + 1, [0], 0
    others = [0]

    def other() -> None:
        while semaphore.wait(0.5):
            others[0] += 1

    thread = threading.Thread(target=other)
    thread.start()

    def wait() -> None:
        if semaphore.wait(0.0001):
            taken[0] += 1

    interrupts = 0
    while time.monotonic() < end or interrupts <= 100:
        if released - taken[0] - others[0] < 3:
            semaphore.release(2)
            released += 2
        interrupts += interrupted(wait, random.uniform(2e-6, 2e-4))
    thread.join()
    rest = 0
    while semaphore.wait(0):
        rest += 1
    assert released == taken[0] + others[0] + rest, (released, taken, others, rest, interrupts)
    assert semaphore.statistics().waiting == 0


def interrupted_signals_wake() -> None:
    """A thread that a signal was given to wakes up, wherever the thread that signals is interrupted."""
    waiting: threading.Thread
    stop: list[int] = []
    woken = [0]

    def go_on(wait: Callable[[], object]) -> None:
        while not stop:
            try:
                assert wait()
            except Alerted:
                pass
            woken[0] += 1

    def queue() -> None:
        queue_apc(int, thread=waiting)

    with Event() as event, Event() as other, CompletionPort(1) as port:
        semaphore = Semaphore(0, 10**6)
        ways: list[tuple[Callable[[], object], Callable[[], object], Callable[[], object]]] = [
            (lambda: event.wait(LIMIT), event.set, event.set),
            (lambda: semaphore.wait(LIMIT), semaphore.release, semaphore.release),
            (lambda: other.wait(LIMIT, alertable=True), queue, other.set),
            (lambda: port.get_many(1, LIMIT, alertable=True), queue, port.post),
        ]
        for wait, signal_it, satisfy in ways:
            stop.clear()
            waiting = threading.Thread(target=go_on, args=(wait,))
            waiting.start()
            end, interrupts = time.monotonic() + 0.5, 0
            while time.monotonic() < end or interrupts <= 25:
                wait_until_blocked(waiting)
                before = woken[0]
                interrupts += interrupted(signal_it, random.uniform(2e-6, 4e-5))
                satisfy()
                wait_until(lambda: woken[0] > before)  # noqa: B023  # called in this turn
            stop.append(1)
            satisfy()
            waiting.join()
        assert port.statistics().active == 0


def ports_neither_hang_nor_drift() -> None:
    """The accounting of a port is intact after thousands of interrupted dequeues."""
    with CompletionPort(2) as port:
        end, interrupts = time.monotonic() + 1, 0
        stop, got, posted = list[int](), [0], [0]

        def other() -> None:
            while not stop:
                port.post(1)
                posted[0] += 1
                try:
                    port.get(0.0005)
                    got[0] += 1
                except WaitTimeout:
                    pass

        def take() -> None:
            try:
                for _ in range(20):
                    port.get(0)
                    got[0] += 1
                port.get(0.0001)
                got[0] += 1
                got[0] += len(port.get_many(8, 0.0001, alertable=True))
            except WaitTimeout:
                pass

        thread = threading.Thread(target=other)
        thread.start()
        while time.monotonic() < end or interrupts <= 100:
            interrupts += interrupted(take, random.uniform(2e-6, 2e-4))
        stop.append(1)
        thread.join()
        while True:
            try:
                got[0] += len(port.get_many(1000, 0))
            except WaitTimeout:
                break
        statistics = port.statistics()
        assert (statistics.waiting, statistics.depth, statistics.active) == (0, 0, 1), statistics
        # An interrupt may strike after a packet was returned and before it is counted here.
        assert 0 <= posted[0] - got[0] <= interrupts // 50, (posted, got, interrupts)


def interrupted_posts_are_seen() -> None:
    """A thread that waits for the port itself takes what interrupted posts have queued, to the last packet."""
    with CompletionPort(2) as port:
        stop: list[int] = []

        def watch() -> None:
            while not stop:
                wait_any([port], LIMIT)
                try:
                    port.get_many(1000, 0)
                except WaitTimeout:
                    pass

        watcher = threading.Thread(target=watch)
        watcher.start()
        end, interrupts = time.monotonic() + 1, 0
        while time.monotonic() < end or interrupts <= 50:
            wait_until_blocked(watcher)
            interrupts += interrupted(port.post, random.uniform(2e-6, 4e-5))
            wait_until(lambda: not len(port))
        stop.append(1)
        port.post()
        watcher.join()


def the_leadership_survives() -> None:
    """However often the leader is interrupted, other threads go on being served."""
    with Event() as mine, CompletionPort(1) as port:
        wire = Wire(port.post)
        served, stop, failed = [0], list[int](), list[EngineError]()

        def other() -> None:
            try:
                while not stop:
                    wire.b.send(b"x")
                    port.get_many(100, LIMIT)
                    served[0] += 1
            except EngineError as error:
                failed.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        end, interrupts = time.monotonic() + 1, 0
        while time.monotonic() < end or interrupts <= 100 or served[0] <= 50:
            interrupts += interrupted(lambda: mine.wait(0.001), random.uniform(2e-6, 3e-4))
        stop.append(1)
        thread.join()
        assert not failed
        assert driver()._leader is None
        wire.close()


if __name__ == "__main__":
    faulthandler.dump_traceback_later(100, exit=True)
    signal.signal(signal.SIGALRM, interrupt)
    globals()[sys.argv[1]]()
