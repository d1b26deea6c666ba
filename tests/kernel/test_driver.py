"""The driver: waiting threads harvest the sources, and no wake-up is lost.

White box: sources are made by the transport's links, so that no public name reaches the driver alone.
"""

import _thread
import asyncio
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any

import pytest

from engine import CompletionPort, Event, WaitTimeout, register_wait, sleep, wait_any
from engine.kernel.afterwards import afterwards
from engine.kernel.dispatcher import dispatcher_lock
from engine.kernel.driver import PROCESSORS, Driver, driver
from engine.kernel.leadership import LEADER_MISSES
from engine.kernel.monitor import TICK
from engine.kernel.waiter import Waiter
from engine.testing import LIMIT, Gate, wait_until, wait_until_blocked

from .helpers import Actor, asleep, error, getter, result

Make = Callable[[], Actor]


class Wire:
    """A source on one end of a socket pair: each byte that arrives is one action, done by whoever harvests."""

    def __init__(self, action: Callable[[], object], chunk: int = 1) -> None:
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self.action = action
        self.chunk = chunk
        self.threads: list[threading.Thread] = []
        driver().register(self)

    def send(self, count: int = 1) -> None:
        """Have `count` actions done."""
        self._far.send(b"x" * count)

    def descriptors(self) -> Sequence[int]:
        return [self._near.fileno()]

    def drive(self, readable: bool) -> bool:
        try:
            data = self._near.recv(self.chunk)
        except BlockingIOError:
            return False
        self.threads.append(threading.current_thread())
        for _ in data:
            self.action()
        return len(data) == self.chunk

    def close(self) -> None:
        driver().unregister(self)
        self._near.close()
        self._far.close()


@pytest.fixture
def wires() -> Iterator[Callable[..., Wire]]:
    """A function that makes wires; they are closed at the end."""
    made: list[Wire] = []

    def make(action: Callable[[], object], **named: int) -> Wire:
        made.append(Wire(action, **named))
        return made[-1]

    yield make
    for wire in made:
        wire.close()


@pytest.fixture
def event() -> Iterator[Event]:
    with Event() as made:
        yield made


class TestWhoHarvests:
    """The thread that waits does the work."""

    def test_a_waiting_thread_harvests_itself(
        self, wires: Callable[..., Wire], port: CompletionPort, actor: Make
    ) -> None:
        """What arrives for a thread is harvested by that very thread."""
        worker, wire = actor(), wires(port.post)
        waiting = getter(worker, port)
        wire.send()
        result(waiting)
        assert wire.threads == [worker.thread]

    def test_every_kind_of_wait_does(self, wires: Callable[..., Wire], event: Event, actor: Make) -> None:
        """Waits for objects, and sleeps, harvest as waits on a port do."""
        worker, wire = actor(), wires(event.set)
        for wait in (event.wait, lambda: wait_any([event])):
            waiting = asleep(worker, wait)
            wire.send()
            result(waiting)
        sleeping = asleep(worker, sleep, 0.05)
        wire.send()
        result(sleeping)
        assert wire.threads == [worker.thread] * 3 and event.is_signaled()

    def test_a_poll_harvests_what_is_there(self, wires: Callable[..., Wire], event: Event) -> None:
        """A wait with a timeout of 0 that finds nothing looks at the sources once."""
        wire = wires(event.set)
        wire.send()
        assert event.wait(0)
        wire.send()
        assert wait_any([event], 0) == 0
        with CompletionPort(1) as port:
            wire.action = port.post
            wire.send()
            assert port.get(0)
            wire.send()
            assert len(port.get_many(1, 0)) == 1

    def test_another_waiter_parks(self, wires: Callable[..., Wire], actor: Make) -> None:
        """While one thread leads, another one's packet is harvested by the leader and handed over."""
        with CompletionPort(2) as first, CompletionPort(2) as second:
            leader, follower, wire = actor(), actor(), wires(second.post)
            leading = getter(leader, first)
            following = getter(follower, second)
            wire.send()
            result(following)
            assert wire.threads == [leader.thread]
            first.post()
            result(leading)

    def test_a_vacant_leadership_is_filled(self, wires: Callable[..., Wire], actor: Make) -> None:
        """When the leader leaves while another one waits, that one gets what arrives."""
        with CompletionPort(2) as first, CompletionPort(2) as second:
            leader, follower, wire = actor(), actor(), wires(second.post)
            leading = getter(leader, first)
            following = getter(follower, second)
            first.post()
            result(leading)
            wire.send()
            result(following)
            assert leader.thread not in wire.threads

    def test_a_successor_without_anything_to_lead(self, wires: Callable[..., Wire], event: Event, actor: Make) -> None:
        """A thread that is to lead next, and finds the last source gone, does not keep others from leading later."""
        with CompletionPort(2) as first, CompletionPort(2) as second:
            inside, go_on = threading.Event(), threading.Event()
            done = 0

            def act() -> None:
                nonlocal done
                done += 1
                if done == 10:  # The leader has had many rounds for nothing of its own, and is in the midst of one.
                    inside.set()
                    assert go_on.wait(LIMIT)

            gone = wires(act)
            leading = getter(actor(), first)
            for number in range(1, 11):
                gone.send()
                wait_until(lambda: done == number)  # noqa: B023  # called in this turn
            assert inside.wait(LIMIT)
            inheriting = getter(actor(), second)
            wait_until(lambda: driver()._successor is not None)
            driver().unregister(gone)
            go_on.set()
            wait_until(lambda: driver()._successor is None)
            wire = wires(event.set)
            wire.send()
            assert event.wait(LIMIT)
            for port, waiting in ((first, leading), (second, inheriting)):
                port.post()
                result(waiting)

    def test_a_source_that_needs_progress_needs_no_waiter(self, wires: Callable[..., Wire], event: Event) -> None:
        """What must go on though no thread waits is driven by the monitor."""
        wire = wires(event.set)
        driver().needs_progress(wire, True)
        told: list[int] = []
        register_wait(event, told.append)
        wire.send()
        wait_until(lambda: told)
        assert wire.threads[0].name == "engine:monitor"

    def test_a_source_that_needs_progress_goes_on_while_the_monitor_watches(
        self, wires: Callable[..., Wire], event: Event
    ) -> None:
        """That holds while the monitor has something to tick for as well."""

        class Watched:
            on = True

            def tick(self) -> bool:
                return self.on

        watched, wire = Watched(), wires(event.set)
        driver().needs_progress(wire, True)
        driver().monitor.watch(watched)
        try:
            for _ in range(3):
                told: list[int] = []
                register_wait(event, told.append)
                wire.send()
                wait_until(lambda: told)  # noqa: B023  # called in this turn
        finally:
            watched.on = False

    def test_a_loop_harvests_on_its_own_thread(self, wires: Callable[..., Wire], event: Event, actor: Make) -> None:
        """What a task awaits is harvested by its event loop. The monitor, which stands in for a late one, is busy."""
        worker, wire, busy = actor(), wires(event.set), Gate()

        async def main() -> bool:
            asyncio.get_running_loop().call_later(0.001, wire.send)
            return await event

        driver().monitor.call_at(time.monotonic(), busy.pass_through)
        busy.wait_for_arrivals()
        try:
            assert worker.do(lambda: asyncio.run(main()))
        finally:
            busy.open()
        assert wire.threads == [worker.thread]

    def test_a_loop_goes_on_with_what_is_left(self, wires: Callable[..., Wire], actor: Make) -> None:
        """A source with much to harvest is harvested to the end, and other callbacks run in between."""
        done: list[int] = []
        wire = wires(lambda: done.append(1))

        async def main() -> None:
            with Event() as event:
                wire.action = lambda: (done.append(1), len(done) == 500 and event.set())
                wire.send(500)
                await event

        asyncio.run(main())
        assert len(done) == 500


class TestVacantLeadership:
    """Which of the parked threads leads when the leader has left."""

    @pytest.fixture
    def by_hand(self, monkeypatch: pytest.MonkeyPatch) -> Driver:
        """A driver of its own with something to lead, which no monitor helps: the test moves its waiters."""
        made = Driver()
        made.sources[TestTouching.Silent(int)] = []
        monkeypatch.setattr(made.monitor, "arm", lambda: None)
        return made

    def waiters(self, driver: Driver) -> tuple[Waiter, Waiter, Waiter]:
        """Return one that leads, and two that have parked, in this order."""
        leader, first, last = Waiter(), Waiter(), Waiter()
        assert [driver._take_lead(waiter) for waiter in (leader, first, last)] == [True, False, False]
        return leader, first, last

    def nudged(self, *waiters: Waiter) -> list[bool]:
        """Return which of them were nudged since they were looked at."""
        return [waiter.gate.acquire(False) for waiter in waiters]

    def test_it_goes_to_who_parked_last(self, wires: Callable[..., Wire], actor: Make) -> None:
        """Two threads are parked as the leader leaves: the later one of them leads, and harvests."""
        with CompletionPort(1) as port, CompletionPort(2) as parked:
            wire = wires(parked.post)
            leader, first, last = actor(), actor(), actor()
            leading = getter(leader, port)
            waiting = [getter(worker, parked) for worker in (first, last)]
            port.post()
            result(leading)
            wait_until(lambda: driver().leader_ident == last.thread.ident)
            wire.send(2)
            for each in waiting:
                result(each)
            assert wire.threads[0] is last.thread

    def test_a_leader_that_leaves_wakes_no_thread(self, by_hand: Driver) -> None:
        """Most come back at once: only `offer`, by who knows better, wakes one of those that are parked."""
        leader, first, last = self.waiters(by_hand)
        by_hand._leave(leader)
        assert by_hand.vacant() and self.nudged(first, last) == [False, False]
        assert by_hand.offer() and self.nudged(first, last) == [False, True]
        assert by_hand._take_lead(last)

    def test_who_is_satisfied_is_passed_over(self, by_hand: Driver) -> None:
        """The leadership is not offered to a thread whose wait has ended; if no other is parked, to none."""
        leader, first, last = self.waiters(by_hand)
        by_hand._leave(leader)
        last.signalled = True
        assert by_hand.offer() and self.nudged(first, last) == [True, False]
        assert not by_hand.offer()

    def test_no_offer_while_one_leads(self, by_hand: Driver) -> None:
        """While a thread leads no other is woken."""
        _, first, last = self.waiters(by_hand)
        assert by_hand.offer() and self.nudged(first, last) == [False, False]

    def test_no_offer_while_a_successor_comes(self, by_hand: Driver) -> None:
        """The successor is nudged as the leader leaves, and no other beside it."""
        leader, first, last = self.waiters(by_hand)
        by_hand._misses = LEADER_MISSES
        successor, later = Waiter(), Waiter()
        assert not by_hand._take_lead(successor) and not by_hand._take_lead(later)
        by_hand._leave(leader)
        assert by_hand.offer() and self.nudged(first, last, successor, later) == [False, False, True, False]
        assert not by_hand._take_lead(later) and by_hand._take_lead(successor)

    def test_each_term_begins_anew(self, by_hand: Driver) -> None:
        """What one leader polled in vain does not count against the next: who comes then parks, and succeeds no one."""
        leader, _, last = self.waiters(by_hand)
        by_hand._misses = LEADER_MISSES
        by_hand._leave(leader)
        later = Waiter()
        assert by_hand._take_lead(last) and not by_hand._take_lead(later)
        by_hand._leave(last)
        assert self.nudged(later) == [False]

    def test_a_waiting_thread_takes_it_from_the_monitor(
        self, wires: Callable[..., Wire], event: Event, actor: Make
    ) -> None:
        """A thread that waits while the monitor leads leads in its place, and harvests itself."""
        worker, wire = actor(), wires(event.set)
        driver().needs_progress(wire, True)
        wait_until(lambda: driver()._standby is not None)
        waiting = asleep(worker, event.wait)
        wait_until(lambda: driver().leader_ident == worker.thread.ident)
        wire.send()
        assert result(waiting) and wire.threads == [worker.thread]


class TestTouching:
    """A source that was used from outside."""

    class Silent:
        """A source that no descriptor speaks for: `mark_ready` alone tells that there is something."""

        def __init__(self, action: Callable[[], object]) -> None:
            self.action = action
            self.due = 0

        def descriptors(self) -> Sequence[int]:
            return ()

        def drive(self, readable: bool) -> bool:
            if self.due:
                self.due -= 1
                self.action()
            return self.due > 0

    def test_who_touches_harvests_for_a_polling_leader(self, event: Event, actor: Make) -> None:
        """If a thread is polling, the toucher harvests in its place."""
        threads: list[threading.Thread] = []
        source = self.Silent(lambda: (threads.append(threading.current_thread()), event.set()))
        driver().register(source)
        try:
            waiting = asleep(actor(), event.wait)
            wait_until(lambda: driver()._polling)
            source.due = 1
            driver().mark_ready(source)
            assert result(waiting)
            assert threads == [threading.current_thread()]
        finally:
            driver().unregister(source)

    def test_what_the_toucher_leaves_is_not_forgotten(self, event: Event, actor: Make) -> None:
        """If there is more than one pass takes, the polling leader goes on with it."""
        source = self.Silent(lambda: None)
        source.action = lambda: source.due or event.set()
        driver().register(source)
        try:
            waiting = asleep(actor(), event.wait)
            wait_until(lambda: driver()._polling)
            source.due = 100
            driver().mark_ready(source)
            assert result(waiting)
        finally:
            driver().unregister(source)

    def test_touching_inside_a_harvest_does_not_nest(self, event: Event, actor: Make) -> None:
        """A source that touches itself while it is harvested is harvested again afterwards, not inside."""
        depths: list[int] = []
        depth = 0

        def action() -> None:
            nonlocal depth
            depth += 1
            depths.append(depth)
            driver().mark_ready(source)
            depth -= 1
            if not source.due:
                event.set()

        source = self.Silent(action)
        driver().register(source)
        try:
            waiting = asleep(actor(), event.wait)
            wait_until(lambda: driver()._polling)
            source.due = 50
            driver().mark_ready(source)
            assert result(waiting)
            assert max(depths) == 1 and len(depths) == 50
        finally:
            driver().unregister(source)

    def test_a_loop_hears_of_it(self, event: Event, actor: Make) -> None:
        """A source marked ready while only an event loop watches is harvested too."""
        source = self.Silent(event.set)
        driver().register(source)

        def touch() -> None:
            source.due = 1
            driver().mark_ready(source)

        async def main() -> bool:
            awaiting = asyncio.ensure_future(event.wait_async())
            await asyncio.sleep(0)
            actor().start(touch)
            return await asyncio.wait_for(awaiting, LIMIT)

        try:
            assert asyncio.run(main())
        finally:
            driver().unregister(source)

    def test_a_touch_before_a_wait_is_seen_by_it(self, event: Event) -> None:
        """A source marked ready while nobody polls is harvested by the next thread that waits."""
        source = self.Silent(event.set)
        driver().register(source)
        try:
            source.due = 1
            driver().schedule(source)
            assert event.wait(LIMIT)
        finally:
            driver().unregister(source)


class TestTime:
    """Deadlines and timers."""

    def test_traffic_for_others_does_not_delay_a_timeout(self, wires: Callable[..., Wire], event: Event) -> None:
        """A leader's own time runs out although its sources always have more."""

        class Endless:
            def descriptors(self) -> Sequence[int]:
                return ()

            def drive(self, readable: bool) -> bool:
                return True

        source = Endless()
        driver().register(source)
        try:
            start = time.monotonic()
            assert not event.wait(0.02)
            assert 0.02 <= time.monotonic() - start < LIMIT
        finally:
            driver().unregister(source)

    @pytest.mark.parametrize("timeout", [1e10, float("inf")])
    def test_a_leader_may_have_a_huge_timeout(
        self, wires: Callable[..., Wire], event: Event, actor: Make, timeout: float
    ) -> None:
        """A timeout longer than a poll allows is a wait all the same."""
        wire = wires(event.set)
        waiting = asleep(actor(), event.wait, timeout)
        wire.send()
        assert result(waiting)

    def test_timers_fire_while_the_monitor_stands_by(self, wires: Callable[..., Wire]) -> None:
        """A timer armed while the monitor leads the driver is on time, earlier ones than before too."""
        wire = wires(int)
        driver().needs_progress(wire, True)
        wait_until(lambda: driver()._standby is not None)
        for _ in range(20):
            fired = threading.Event()
            late = driver().monitor.call_at(time.monotonic() + 60, lambda: None)
            driver().monitor.call_at(time.monotonic() + 0.001, fired.set)
            assert fired.wait(LIMIT)
            late.cancel()

    def test_withdrawn_timers_cost_little(self) -> None:
        """A hundred thousand live timers, and as many withdrawn ones, take no quadratic time."""
        monitor = driver().monitor
        when = time.monotonic() + 3600
        start = time.monotonic()
        kept = [monitor.call_at(when, lambda: None) for _ in range(100_000)]
        for _ in range(100_000):
            monitor.call_at(when, lambda: None).cancel()
        assert time.monotonic() - start < LIMIT
        assert len(monitor._timers) <= 2 * len(kept) + 1
        for each in kept:
            assert each.cancel()

    def test_the_monitor_sleeps_when_all_is_idle(self) -> None:
        """With nothing to do the monitor stops ticking."""
        driver().monitor.arm()
        wait_for_idleness()

    def test_a_tick_is_short(self) -> None:
        """A stall is noticed within a few milliseconds."""
        assert TICK <= 0.005

    @pytest.mark.parametrize("error", [KeyError("tick"), SystemExit("tick"), GeneratorExit("tick")], ids=repr)
    def test_a_failing_tick_is_watched_no_longer(self, caplog: pytest.LogCaptureFixture, error: BaseException) -> None:
        """What a tick, or a timer, raises is logged once, and the monitor goes on; `SystemExit` ends nothing."""

        class Failing:
            def tick(self) -> bool:
                raise error

        def fail() -> None:
            if not isinstance(error, KeyError):
                raise error
            raise ZeroDivisionError

        driver().monitor.watch(Failing())
        fired = threading.Event()
        driver().monitor.call_at(time.monotonic(), fail)
        driver().monitor.call_at(time.monotonic() + 0.01, fired.set)
        assert fired.wait(LIMIT)
        wait_until(lambda: "a monitor tick of" in caplog.text and "a timer function" in caplog.text)
        assert caplog.text.count("a monitor tick of") == caplog.text.count("a timer function") == 1


class TestStayingAwake:
    """A thread that expects an answer at once does not sleep before it."""

    @staticmethod
    def awake_for(actor: Actor, event: Event, said_by: Callable[[Callable[[], object]], object]) -> float:
        """Let the actor wait for 0.2 s after `spin_until` was said; return the processor time that this took it."""

        def waits() -> float:
            said_by(lambda: driver().spin_until(time.monotonic() + LIMIT))
            before = time.thread_time()
            assert not event.wait(0.2)
            return time.thread_time() - before

        return actor.do(waits)

    @pytest.mark.skipif(PROCESSORS < 2, reason="with one processor nobody stays awake")
    def test_it_polls_all_the_time(self, wires: Callable[..., Wire], event: Event, actor: Make) -> None:
        """The leader spends its wait awake, but no longer than its own time limit."""
        wires(event.set)
        worker = actor()
        # A busy machine gives it a share of that time only; who sleeps does not take as much in all the waits together.
        shares = (self.awake_for(worker, event, lambda say: say()) for _ in range(20))
        assert any(spent > 0.01 for spent in accumulate(shares))

    def test_not_for_another_thread(self, wires: Callable[..., Wire], event: Event, actor: Make) -> None:
        """What one thread expects keeps no other one awake."""
        wires(event.set)
        other = actor()
        assert self.awake_for(actor(), event, other.do) < 0.01

    def test_it_sees_what_arrives(self, wires: Callable[..., Wire], event: Event, actor: Make) -> None:
        """What arrives, and what another thread does, ends the wait."""
        worker, wire = actor(), wires(event.set)
        for act in (wire.send, event.set):
            said = threading.Event()

            def waits(said: threading.Event = said) -> bool:
                driver().spin_until(time.monotonic() + LIMIT)
                said.set()
                return event.wait(LIMIT / 2)

            waiting = worker.start(waits)
            assert said.wait(LIMIT)
            act()
            assert result(waiting)


class TestFailures:
    """Sources that misbehave."""

    def test_a_failing_source_is_dropped(
        self, wires: Callable[..., Wire], event: Event, actor: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What a source raises does not reach the thread that happens to wait; it is left alone for a while."""
        failing, sound = wires(lambda: 1 / 0), wires(event.set)
        waiting = asleep(actor(), event.wait)
        failing.send()
        wait_until(lambda: "ZeroDivisionError" in caplog.text)
        sound.send()
        assert result(waiting)

    def test_a_source_that_cannot_be_polled_is_refused(self, event: Event) -> None:
        """Registering a descriptor that is none fails, and leaves nothing behind."""

        class Broken:
            def descriptors(self) -> Sequence[int]:
                return [10**6]

            def drive(self, readable: bool) -> bool:
                raise AssertionError

        source = Broken()
        with pytest.raises(OSError):
            driver().register(source)
        assert source not in driver().sources and not event.wait(0.001)

    def test_a_source_may_leave_inside_its_harvest(self, wires: Callable[..., Wire], event: Event, actor: Make) -> None:
        """Unregistering from inside a harvest is allowed."""
        wire = wires(event.set)
        wire.action = lambda: (driver().unregister(wire), event.set())
        waiting = asleep(actor(), event.wait)
        wire.send()
        assert result(waiting)


class TestLostWakeups:
    """Each primitive under a fuzzed schedule: threads switched all the time, and no wake-up is lost."""

    ROUNDS = 1000

    @pytest.fixture(autouse=True)
    def switch_often(self) -> Iterator[None]:
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        yield
        sys.setswitchinterval(before)

    def ping_pong(self, actor: Make, ping: Callable[[], object], pong: Callable[[], object],
                  wait_ping: Callable[[], object], wait_pong: Callable[[], object]) -> None:  # fmt: skip
        """Two threads take turns; one lost wake-up and it hangs."""

        def first() -> None:
            for _ in range(self.ROUNDS):
                ping()
                wait_pong()

        def second() -> None:
            for _ in range(self.ROUNDS):
                wait_ping()
                pong()

        for each in [actor().start(first), actor().start(second)]:
            result(each)

    @pytest.mark.parametrize("with_source", [False, True], ids=["parked", "led"])
    def test_events(self, wires: Callable[..., Wire], actor: Make, with_source: bool) -> None:
        """Events that two threads set for each other."""
        with Event() as a, Event() as b:
            if with_source:
                wires(int)
            self.ping_pong(actor, a.set, b.set, a.wait, b.wait)

    def test_events_set_by_a_source(self, wires: Callable[..., Wire], actor: Make) -> None:
        """Events that are set by a harvest, whichever thread makes it."""
        with Event() as a, Event() as b:
            first, second = wires(a.set), wires(b.set)
            self.ping_pong(actor, first.send, second.send, a.wait, b.wait)

    @pytest.mark.parametrize("with_source", [False, True], ids=["parked", "led"])
    def test_ports(self, wires: Callable[..., Wire], actor: Make, with_source: bool) -> None:
        """Packets that two threads post to each other."""
        with CompletionPort(1) as a, CompletionPort(1) as b:
            if with_source:
                wires(int)
            self.ping_pong(actor, a.post, b.post, a.get, b.get)

    def test_ports_posted_to_by_a_source(self, wires: Callable[..., Wire], actor: Make) -> None:
        """Packets that a harvest posts."""
        with CompletionPort(1) as a, CompletionPort(1) as b:
            first, second = wires(a.post), wires(b.post)
            self.ping_pong(actor, first.send, second.send, a.get, lambda: b.get_many(4))

    def test_short_timeouts_lose_nothing(self, wires: Callable[..., Wire], actor: Make) -> None:
        """Waits that time out and are repeated lose neither packet nor signal."""
        with CompletionPort(1) as port, Event() as event:
            wire = wires(port.post)

            def get() -> None:
                while True:
                    try:
                        port.get(0.0002)
                        return
                    except WaitTimeout:
                        pass

            def wait() -> None:
                while not event.wait(0.0002):
                    pass

            self.ping_pong(actor, wire.send, event.set, get, wait)

    def test_semaphores_and_wait_any(self, actor: Make) -> None:
        """Waits for any of several objects."""
        with Event() as a, Event() as b, Event() as idle:
            self.ping_pong(actor, a.set, b.set, lambda: wait_any([idle, a]), lambda: wait_any([b, idle]))

    def test_many_threads_one_port(self, wires: Callable[..., Wire], actor: Make) -> None:
        """Packets from posts and from a source, several takers: each is taken once."""
        with CompletionPort(2) as port:
            wire = wires(lambda: port.post("wire"))
            total = 4 * self.ROUNDS
            taken: list[object] = []

            def take() -> None:
                while True:
                    taken.append(port.get().key)

            taking = [actor().start(take) for _ in range(3)]
            for number in range(total // 2):
                port.post(number)
                wire.send()
            wait_until(lambda: len(taken) == total, LIMIT)
            port.close()
            for each in taking:
                error(each)
            numbers = [key for key in taken if key != "wire"]
            assert sorted(numbers) == list(range(total // 2))  # type: ignore[type-var]  # no None is left

    def test_blocking_threads_hand_over(self, actor: Make) -> None:
        """Threads that block after each packet let others in, and all packets are taken."""
        with CompletionPort(1) as port, Event(manual_reset=True) as end:
            taken: list[int] = []

            def work() -> None:
                while True:
                    taken.append(port.get().key)
                    end.wait(0.0001)

            working = [actor().start(work) for _ in range(4)]
            for number in range(self.ROUNDS):
                port.post(number)
            wait_until(lambda: len(taken) == self.ROUNDS)
            port.close()
            for each in working:
                error(each)
            assert sorted(taken) == list(range(self.ROUNDS))

    def test_closing_under_traffic(self, actor: Make) -> None:
        """A port that closes while threads come and go releases every one."""
        for _ in range(20):
            port = CompletionPort(1)

            def take() -> None:
                while True:
                    port.get()  # noqa: B023  # called in this turn

            taking = [actor().start(take) for _ in range(2)]
            for number in range(5):
                port.post(number)
            port.close()
            assert {getattr(error(each), "status", None) for each in taking} <= {6, 735}

    def test_registered_waits_are_told_once(self, actor: Make) -> None:
        """Signals and cancels at the same time: told or withdrawn, never both, never neither."""
        with Event() as event:
            for _ in range(self.ROUNDS):
                told: list[int] = []
                handle = register_wait(event, told.append)
                setting = actor_pool(actor).start(event.set)
                withdrawn = handle.cancel()
                result(setting)
                assert withdrawn != bool(told)
                event.reset()


_pool: list[Actor] = []


def actor_pool(actor: Make) -> Actor:
    """One actor for a whole test."""
    if not _pool or not _pool[0].thread.is_alive():
        _pool[:] = [actor()]
    return _pool[0]


def test_a_source_that_cannot_be_left_alone(
    wires: Callable[..., Wire], event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source whose harvest fails is polled again, though it cannot be left alone meanwhile, nor told of it."""
    errors = [ValueError("its harvest")]
    refusals = [MemoryError("a timer"), MemoryError("being told")]

    def act() -> None:
        if errors:
            raise errors.pop()
        event.set()

    def refuse(*args: object) -> None:
        raise refusals.pop(0)

    wire = wires(act)
    monkeypatch.setattr(driver().monitor, "call_at", refuse)
    wire.failed = refuse  # type: ignore[attr-defined]  # it has none
    wire.send(2)
    assert event.wait(LIMIT)
    assert not errors and not refusals


def test_a_source_that_fails_still_needs_progress(wires: Callable[..., Wire]) -> None:
    """A source that somebody depends on while no thread waits is harvested then, also after it failed and rested."""
    errors = [ValueError(), ValueError()]
    done = threading.Event()

    def act() -> None:
        if errors:
            raise errors.pop()
        done.set()

    wire = wires(act)
    driver().needs_progress(wire, True)
    wire.send(3)
    assert done.wait(LIMIT)


@pytest.mark.skipif(sys.platform == "win32", reason="raises SIGTERM")
def test_a_signal_handler_whose_thread_is_refused(event: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that a signal handler sets while its own thread changes one is set, though nobody waits."""
    refusals: list[Exception] = [RuntimeError("can't start new thread"), MemoryError()]
    real = _thread.start_new_thread

    def start(*args: Any) -> int:
        if refusals:
            raise refusals.pop()
        return real(*args)

    monkeypatch.setattr("engine.kernel.afterwards.start_new_thread", start)
    driver().monitor.arm()
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        with dispatcher_lock:
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    wait_until(event.is_set)
    assert not refusals


def test_what_a_signal_handler_left_to_be_done_fails(event: Event, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it raises, `SystemExit` too, is logged, and what else was left is done."""
    afterwards(sys.exit, "left")
    afterwards(event.set)
    assert event.wait(LIMIT)
    wait_until(lambda: "which a signal handler had asked for" in caplog.text)


def wait_for_idleness() -> None:
    """Wait until the monitor has nothing to do, not even for what other tests have dropped open.

    Collecting keeps the monitor from running, so there is ever more time between.
    """
    for limit in (0.1, 1.0, 10.0, LIMIT):
        gc.collect()
        with suppress(WaitTimeout):
            wait_until(lambda: not driver().monitor.armed, limit)
            return
    pytest.fail("the monitor goes on ticking")


@pytest.fixture
def no_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The monitor's thread cannot be had: as if it did not run, and could not be started."""
    monitor = driver().monitor
    wait_for_idleness()
    monkeypatch.setattr(monitor._service, "ensure", lambda: False)
    monkeypatch.setattr(monitor._service, "running", False)
    monkeypatch.setattr(monitor, "_ring", lambda: None)
    for name in ("late", "armed"):  # Nor is it what it is now afterwards.
        monkeypatch.setattr(monitor, name, False)


def test_a_timer_for_a_thread_that_sleeps_without_a_monitor(event: Event, actor: Make, no_monitor: None) -> None:
    """A timer that is set when no monitor can be had fires, though all who wait were asleep already."""
    waiting = asleep(actor(), event.wait)
    driver().monitor.call_at(time.monotonic(), event.set)
    assert result(waiting)


def test_a_tick_for_a_thread_that_sleeps_without_a_monitor(event: Event, no_monitor: None) -> None:
    """Who waits keeps the ticks of a monitor that cannot be had; what interrupts one of them costs none."""

    class Watched:
        def __init__(self, act: Callable[[], object]) -> None:
            self.act = act

        def tick(self) -> bool:
            self.act()
            return False

    def interrupt() -> None:
        if first:
            first.pop()
            raise KeyboardInterrupt

    first = [True]
    driver().monitor.watch(Watched(interrupt))
    driver().monitor.watch(Watched(event.set))
    with pytest.raises(KeyboardInterrupt):
        event.wait(LIMIT)
    assert event.wait(LIMIT)


def test_wait_until_blocked_sees_a_leader(wires: Callable[..., Wire], event: Event, actor: Make) -> None:
    """A thread that leads is asleep, too."""
    wire, worker = wires(event.set), actor()
    waiting = worker.start(event.wait)
    wait_until_blocked(worker.thread)
    wire.send()
    assert result(waiting)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_a_driver_of_its_own(wires: Callable[..., Wire], event: Event, actor: Make) -> None:
    """A child forked while a thread leads waits, drives and fires timers by itself."""
    wire = wires(event.set)
    waiting = asleep(actor(), event.wait)
    child = os.fork()
    if not child:
        code = 1
        try:
            with Event() as own:
                inner = Wire(own.set)
                inner.send()
                fired = threading.Event()
                driver().monitor.call_at(time.monotonic(), fired.set)
                code = 0 if own.wait(LIMIT) and fired.wait(LIMIT) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    wire.send()
    assert result(waiting)
