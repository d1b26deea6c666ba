"""The pool against small models: section 13's invariants."""

import random
import threading
import time
from collections import deque
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine import CleanupGroup, Environment, Event, Priority, ThreadPool, Timer, Wait, Work, blocking, current_callback
from engine.testing import LIMIT, wait_until

from .helpers import in_thread


class Model:
    """What a pool of one thread has queued: three strict classes, in which objects take turns."""

    def __init__(self) -> None:
        self.rings: dict[Priority, deque[int]] = {priority: deque() for priority in Priority}
        self.queued: dict[int, int] = {}

    def submit(self, name: int, priority: Priority) -> None:
        if not self.queued.get(name):
            self.rings[priority].append(name)
        self.queued[name] = self.queued.get(name, 0) + 1

    def take(self) -> int:
        for ring in self.rings.values():
            if ring:
                name = ring.popleft()
                self.queued[name] -= 1
                if self.queued[name]:
                    ring.append(name)
                return name
        raise AssertionError("nothing is queued")

    def discard(self, name: int) -> int:
        number = self.queued.get(name, 0)
        self.queued[name] = 0
        for ring in self.rings.values():
            if name in ring:
                ring.remove(name)
        return number

    @property
    def total(self) -> int:
        return sum(self.queued.values())


class PoolMachine(RuleBasedStateMachine):
    """A pool of one thread whose callbacks return when told to, beside its model."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = ThreadPool(1, 1)
        self.model = Model()
        self.cancelled: list[int] = []
        self.group = CleanupGroup()
        self.permits = threading.Semaphore(0)
        self.log: list[int] = []
        self.expected: list[int] = []
        self.running = False
        self.works: dict[int, Work] = {}
        self.made: dict[int, Work] = {}
        self.priorities: dict[int, Priority] = {}
        self.returned: dict[int, int] = {}
        self.totals: dict[int, list[int]] = {}
        self.names = 0
        for priority in Priority:
            self.make(priority)

    def make(self, priority: Priority) -> None:
        environment = Environment(
            pool=self.pool, priority=priority, cleanup_group=self.group,
            cancel_callback=lambda context, cleanup: self.cancelled.append(context),
        )  # fmt: skip
        name, self.names = self.names, self.names + 1
        self.works[name] = Work(self.body, name, environment=environment, context=name)
        self.made[name] = self.works[name]
        self.priorities[name] = priority
        # Submitted, started, discarded.
        self.totals[name] = [0, 0, 0]

    def body(self, name: int) -> None:
        self.log.append(name)
        if not self.permits.acquire(timeout=LIMIT):
            raise AssertionError("nobody let the callback return")

    def begin_next(self) -> None:
        """If the worker is free and something is queued, the model says what begins now."""
        if not self.running and self.model.total:
            name = self.model.take()
            self.expected.append(name)
            self.totals[name][1] += 1
            self.running = True
        wait_until(lambda: len(self.log) >= len(self.expected))
        assert self.log == self.expected

    def pick(self, number: int) -> int:
        names = sorted(self.works)
        return names[number % len(names)]

    @rule(priority=st.sampled_from(Priority))
    @precondition(lambda self: len(self.works) < 8)
    def create(self, priority: Priority) -> None:
        self.make(priority)

    @rule(number=st.integers(0, 7), times=st.integers(1, 5))
    def submit(self, number: int, times: int) -> None:
        name = self.pick(number)
        work = self.works[name]
        for _ in range(times):
            work.submit()
            self.model.submit(name, self.priorities[name])
            self.totals[name][0] += 1
            self.begin_next()

    @rule()
    @precondition(lambda self: self.running)
    def let_return(self) -> None:
        name = self.expected[-1]
        self.returned[name] = self.returned.get(name, 0) + 1
        self.permits.release()
        self.running = False
        self.begin_next()
        work = self.made[name]
        wait_until(lambda: work.statistics().started - work.statistics().running >= self.returned[name])

    @rule(number=st.integers(0, 7))
    def cancel(self, number: int) -> None:
        name = self.pick(number)
        quiet = self.works[name].wait(0, cancel_pending=True)
        self.totals[name][2] += self.model.discard(name)
        busy = self.running and self.expected[-1] == name
        assert quiet or busy

    @rule(number=st.integers(0, 7))
    @precondition(lambda self: len(self.works) > 1)
    def close(self, number: int) -> None:
        name = self.pick(number)
        self.works.pop(name).close()

    @rule()
    @precondition(lambda self: not self.running)
    def release(self) -> None:
        before = len(self.cancelled)
        self.group.close_members(True)
        assert sorted(self.cancelled[before:]) == sorted(self.works)
        self.works.clear()
        self.make(Priority.NORMAL)

    @invariant()
    def callbacks_are_accounted_for(self) -> None:
        for name, work in self.works.items():
            seen = work.statistics()
            assert [seen.total, seen.started, seen.discarded] == self.totals[name]
            assert seen.queued == self.model.queued.get(name, 0)

    @invariant()
    def workers_stay_within_the_limits(self) -> None:
        assert self.pool.statistics().workers == 1

    def teardown(self) -> None:
        self.permits.release(10_000)
        assert self.pool.stop(LIMIT)
        assert len(self.log) == len(self.expected) + self.model.total
        for work in self.works.values():
            work.close()


TestPoolModel = PoolMachine.TestCase
TestPoolModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def hammer(seconds: float, seed: int) -> None:  # noqa: C901  # one branch for each thing that a thread may do
    """Use a pool from several threads in every way at once; then account for every callback."""
    chance = random.Random(seed)
    workers_seen = 0
    with ThreadPool(1, 6, idle_limit=0.005) as pool:
        ran = [0] * 12
        lock = threading.Lock()

        def body(index: int) -> None:
            nonlocal workers_seen
            with lock:
                ran[index] += 1
                workers_seen = max(workers_seen, pool.statistics().workers)
            kind = random.random()
            if kind < 0.02:
                time.sleep(0.002)  # Load: a callback that overruns a tick.
            elif kind < 0.06:
                with blocking():
                    time.sleep(0.0005)  # Load: a callback that blocks.
            elif kind < 0.08:
                current_callback().may_run_long()
            elif kind < 0.1:
                current_callback().disassociate()

        works = [
            Work(body, index, environment=Environment(pool=pool, priority=Priority(index % 3), runs_long=index == 5))
            for index in range(8)
        ]
        timers = [Timer(body, index, pool=pool) for index in (8, 9)]
        waits = [Wait(lambda status, index=index: body(index), pool=pool) for index in (10, 11)]
        event = Event()
        deadline = time.monotonic() + seconds

        def use(rng: random.Random) -> None:
            while time.monotonic() < deadline:
                work = rng.choice(works)
                kind = rng.random()
                if kind < 0.8:
                    for _ in range(rng.randrange(30)):
                        work.submit()
                elif kind < 0.85:
                    work.wait(0.001, cancel_pending=rng.random() < 0.5)
                elif kind < 0.9:
                    assert work.wait(LIMIT)
                elif kind < 0.93:
                    rng.choice(timers).set(rng.random() * 0.002, 0.001)
                elif kind < 0.96:
                    rng.choice(waits).set(event, rng.random() * 0.002)
                    event.set()
                else:
                    pool.statistics()

        generators = [random.Random(chance.random()) for _ in range(4)]
        threads = [in_thread(partial(use, generator)) for generator in generators]
        for thread in threads:
            thread.join(seconds + LIMIT)
            assert not thread.is_alive()
        for timer in timers:
            timer.set(None)
        for wait in waits:
            wait.set(None)
        for each in (*works, *timers, *waits):
            assert each.wait(LIMIT)
            wait_until(lambda: each.statistics().running == 0)  # noqa: B023  # called in this turn
            seen = each.statistics()
            assert seen.total == seen.started + seen.discarded
        started = [each.statistics().started for each in (*works, *timers, *waits)]
        assert started == ran
        for each in (*works, *timers, *waits):
            each.close()
        event.close()
    whole = pool.statistics()
    assert whole.submitted == whole.started + whole.discarded
    assert workers_seen <= 6


class TestHammer:
    """Section 13, under every schedule."""

    @pytest.mark.parametrize("seed", range(3))
    def test_nothing_is_lost_or_run_twice(self, seed: int) -> None:
        """Started + discarded = queued for each object; workers stay within the maximum."""
        import sys

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            hammer(0.4, seed)
        finally:
            sys.setswitchinterval(interval)

    @pytest.mark.stress
    def test_for_longer(self) -> None:
        """The same for a minute."""
        hammer(60, 99)
