"""Workers and the driver: who waits does the work."""

import socket
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from engine import ThreadPool
from engine.kernel.driver import driver
from engine.testing import wait_until

from .helpers import Blocker, settle


class Wire:
    """A source of work: for each byte that arrives a callback is posted."""

    def __init__(self, pool: ThreadPool) -> None:
        self.pool = pool
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.drove: list[int] = []
        self.ran: list[int] = []

    def descriptors(self) -> list[int]:
        return [self.near.fileno()]

    def drive(self, readable: bool) -> bool:
        try:
            data = self.near.recv(64)
        except BlockingIOError:
            return False
        for _ in data:
            self.drove.append(threading.get_ident())
            self.pool.post(lambda: self.ran.append(threading.get_ident()))
        return False

    def send(self, count: int = 1) -> None:
        self.far.send(b"x" * count)


@pytest.fixture
def wire(pool: ThreadPool) -> Iterator[Wire]:
    made = Wire(pool)
    driver().register(made)
    yield made
    driver().unregister(made)
    made.near.close()
    made.far.close()


class TestHarvest:
    """Idle workers lead the driver, and run what they harvest themselves."""

    def test_a_worker_runs_what_it_harvests(self, pool: ThreadPool, wire: Wire) -> None:
        """An idle worker that harvests work takes it itself, without a hand-over to another thread."""
        pool.set_minimum(4)
        wait_until(lambda: driver().leader_ident in {thread.ident for thread in threading.enumerate()})
        for count in range(1, 21):
            wire.send()
            wait_until(lambda: len(wire.ran) == count)  # noqa: B023  # called in this turn
            settle(pool)
        assert wire.ran == wire.drove

    def test_a_batch_stays_on_the_worker_that_harvested_it(self, pool: ThreadPool, wire: Wire) -> None:
        """Of several messages harvested at once no second worker is woken while the callbacks are quick."""
        pool.set_minimum(4)
        wait_until(lambda: driver().leader_ident != 0)
        wire.send(20)
        wait_until(lambda: len(wire.ran) == 20)
        assert wire.ran == wire.drove

    def test_workers_that_slept_before_there_was_a_source_come_to_lead(self, pool: ThreadPool) -> None:
        """Once a source is registered, workers that slept without the driver lead it, one after the other."""
        pool.set_minimum(3)
        wait_until(lambda: pool.statistics().idle == 3)
        late = Wire(pool)
        driver().register(late)
        driver().needs_progress(late, True)
        try:
            late.send()
            wait_until(lambda: len(late.ran) == 1)
            wait_until(lambda: driver().leader_ident in worker_idents())
            blockers = [Blocker() for _ in range(2)]
            for count, blocker in enumerate(blockers, 1):
                pool.post(partial(slowly, pool, blocker))
                blocker.wait_until_running()
                # Another worker leads now, neither the monitor nor one that is away.
                wait_until(lambda: driver().leader_ident in worker_idents())
                late.send()
                wait_until(lambda: len(late.ran) == 1 + count)  # noqa: B023  # called in this turn
            for blocker in blockers:
                blocker.release()
        finally:
            driver().unregister(late)
            late.near.close()
            late.far.close()


def slowly(pool: ThreadPool, blocker: Blocker) -> None:
    with pool.slow():
        blocker()


def worker_idents() -> set[int | None]:
    return {thread.ident for thread in threading.enumerate() if "worker" in thread.name}
