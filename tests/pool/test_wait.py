"""Wait objects."""

import gc
import threading
import weakref
from datetime import UTC, datetime, timedelta

import pytest

from engine import (
    Event,
    InvalidArgumentType,
    InvalidHandle,
    InvalidParameter,
    Misuse,
    Mutex,
    Semaphore,
    Status,
    ThreadPool,
    Wait,
    WaitableTimer,
)
from engine.testing import LIMIT, ManualClock, wait_until_blocked

from .helpers import Delivery, Recorder, in_thread, joined, occupy, settle


class TestWaits:
    """Section 7."""

    def test_one_callback_with_0_when_signaled(self, pool: ThreadPool) -> None:
        """A signal gives one callback with result 0."""
        recorder = Recorder()
        with Event(True) as event, Wait(recorder, "mine", pool=pool) as wait:
            wait.set(event)
            event.set()
            recorder.wait_for(1)
            settle(pool)
            assert recorder.calls == [("mine", Status.OK)]

    def test_one_callback_with_258_when_the_time_is_up(self, pool: ThreadPool, clock: ManualClock) -> None:
        """A timeout gives one callback with result 258."""
        recorder = Recorder()
        with Event() as event, Wait(recorder, pool=pool, clock=clock) as wait:
            wait.set(event, 1)
            clock.advance(1)
            recorder.wait_for(1)
            event.set()
            settle(pool)
            assert recorder.calls == [(258,)]
            assert event.is_signaled()

    def test_one_callback_for_each_set(self, pool: ThreadPool) -> None:
        """After its callback the object is idle; it is set again for the next one."""
        recorder = Recorder()
        with Event() as event, Wait(recorder, pool=pool) as wait:
            for count in (1, 2, 3):
                wait.set(event)
                event.set()
                recorder.wait_for(count)
            event.set()
            settle(pool)
            assert recorder.count == 3
            assert event.is_signaled()

    def test_an_absolute_time_limit(self, pool: ThreadPool) -> None:
        """The time limit may be absolute."""
        start = datetime(2030, 1, 1, tzinfo=UTC)
        clock = ManualClock(wall=start)
        recorder = Recorder()
        with Event() as event, Wait(recorder, pool=pool, clock=clock) as wait:
            wait.set(event, start + timedelta(seconds=5))
            clock.advance(4)
            settle(pool)
            assert recorder.count == 0
            clock.advance(1)
            recorder.wait_for(1)
            assert recorder.calls == [(258,)]

    def test_a_signal_before_an_absolute_time_limit(self, pool: ThreadPool) -> None:
        """A signal before an absolute limit gives the one callback; the limit gives none."""
        start = datetime(2030, 1, 1, tzinfo=UTC)
        clock = ManualClock(wall=start)
        recorder = Recorder()
        with Event() as event, Wait(recorder, pool=pool, clock=clock) as wait:
            wait.set(event, start + timedelta(seconds=5))
            event.set()
            recorder.wait_for(1)
            clock.advance(10)
            settle(pool)
            assert recorder.calls == [(0,)]

    def test_a_limit_of_zero_times_out_at_once(self, pool: ThreadPool) -> None:
        """A time limit of zero on an object that is not signaled times out at once."""
        recorder = Recorder()
        with Event() as event, Wait(recorder, pool=pool) as wait:
            wait.set(event, 0)
            recorder.wait_for(1)
            assert recorder.calls == [(258,)]

    def test_the_signal_is_consumed_when_satisfied(self, single: ThreadPool) -> None:
        """The side effect happens when the wait is satisfied, before the callback runs."""
        blocker, recorder = occupy(single), Recorder()
        with Event() as event, Wait(recorder, pool=single) as wait:
            wait.set(event)
            event.set()
            assert not event.is_signaled()
            assert recorder.count == 0
            blocker.release()
            recorder.wait_for(1)

    def test_a_signal_that_was_there_satisfies_at_once(self, pool: ThreadPool) -> None:
        """Setting a wait for something that is signaled queues the callback at once."""
        recorder = Recorder()
        with Event(False, True) as event, Wait(recorder, pool=pool) as wait:
            wait.set(event)
            assert not event.is_signaled()
            recorder.wait_for(1)

    def test_none_unregisters(self, pool: ThreadPool) -> None:
        """None ends the wait; a signal that comes later stays in the object."""
        recorder = Recorder()
        with Event() as event, Wait(recorder, pool=pool) as wait:
            wait.set(event)
            wait.set(None, 5)
            event.set()
            assert event.is_signaled()
            settle(pool)
            assert recorder.count == 0

    def test_another_object_replaces_the_first(self, pool: ThreadPool) -> None:
        """Setting another object leaves the old one alone."""
        recorder = Recorder()
        with Event() as first, Event() as second, Wait(recorder, pool=pool) as wait:
            wait.set(first)
            wait.set(second)
            first.set()
            assert first.is_signaled()
            second.set()
            recorder.wait_for(1)
            assert not second.is_signaled()

    def test_set_tells_whether_a_wait_was_withdrawn(self, pool: ThreadPool) -> None:
        """True if a pending wait was withdrawn, False if there was none."""
        recorder = Recorder()
        with Event() as event, Wait(recorder, pool=pool) as wait:
            assert wait.set(event) is False
            assert wait.set(event) is True
            event.set()
            assert wait.set(None) is False
            assert wait.set(event) is False
            assert wait.set(None) is True
            recorder.wait_for(1)

    def test_semaphores(self, pool: ThreadPool) -> None:
        """One release with two waits on it gives one callback, two releases two."""
        recorder = Recorder()
        semaphore = Semaphore(0, 10)
        with Wait(recorder, 1, pool=pool) as one, Wait(recorder, 2, pool=pool) as two:
            one.set(semaphore)
            two.set(semaphore)
            semaphore.release()
            recorder.wait_for(1)
            settle(pool)
            assert recorder.count == 1
            semaphore.release()
            recorder.wait_for(2)
            assert semaphore.release() == 0

    def test_timers_and_threads_can_be_waited_for(self, pool: ThreadPool, clock: ManualClock) -> None:
        """Waitable timers and threads are targets too."""
        recorder = Recorder()
        with WaitableTimer(clock=clock) as timer, Wait(recorder, pool=pool) as wait:
            timer.set(1)
            wait.set(timer)
            clock.advance(1)
            recorder.wait_for(1)
            stop = threading.Event()
            thread = in_thread(stop.wait)
            wait.set(thread)
            stop.set()
            recorder.wait_for(2)
            joined(thread)

    def test_a_wait_that_was_replaced_keeps_nothing_alive(self, pool: ThreadPool) -> None:
        """What was waited for before is not kept alive by the object."""
        first = Event()
        gone = weakref.ref(first)
        with Event() as second, Wait(print, pool=pool) as wait:
            wait.set(first)
            wait.set(second)
            first.close()
            del first
            gc.collect()
            assert gone() is None

    def test_512_at_once(self, pool: ThreadPool) -> None:
        """512 waits at once: each signal finds its own callback."""
        recorder = Recorder()
        events = [Event() for _ in range(512)]
        waits = [Wait(recorder, number, pool=pool) for number in range(512)]
        for wait, event in zip(waits, events, strict=True):
            wait.set(event)
        for event in reversed(events):
            event.set()
        recorder.wait_for(512)
        assert sorted(recorder.calls) == [(number, 0) for number in range(512)]
        for wait, event in zip(waits, events, strict=True):
            wait.set(event)
        for wait, event in zip(waits, events, strict=True):
            wait.close()
            event.close()
        settle(pool)
        assert recorder.count == 512

    def test_closing_one_target_leaves_the_others_alone(self, pool: ThreadPool) -> None:
        """Closing an object under a pending wait ends that wait with 735 and disturbs no other."""
        recorder = Recorder()
        with Event() as event, Wait(recorder, "a", pool=pool) as one, Wait(recorder, "b", pool=pool) as two:
            closed = Event()
            one.set(closed)
            two.set(event)
            closed.close()
            event.set()
            recorder.wait_for(2)
        assert sorted(recorder.calls) == [("a", Status.ABANDONED_WAIT), ("b", 0)]

    def test_a_mutex_is_refused(self, pool: ThreadPool) -> None:
        """A mutex belongs to a thread, so it is refused as a target."""
        with Mutex() as mutex, Wait(print, pool=pool) as wait, pytest.raises(InvalidParameter):
            wait.set(mutex)

    def test_what_cannot_be_waited_for_is_refused(self, pool: ThreadPool) -> None:
        """What is not waitable, and a closed object, are refused; a negative limit too."""
        closed = Event()
        closed.close()
        with Event() as event, Wait(print, pool=pool) as wait:
            with pytest.raises(InvalidArgumentType):
                wait.set(7)
            with pytest.raises(InvalidHandle):
                wait.set(closed)
            with pytest.raises(InvalidParameter):
                wait.set(event, -1)

    def test_a_bad_argument_changes_nothing(self, pool: ThreadPool) -> None:
        """A call that is refused leaves the wait that was set before in place."""
        recorder, closed = Recorder(), Event()
        closed.close()
        with Event() as event, Mutex() as mutex, Wait(recorder, pool=pool) as wait:
            wait.set(event)
            for bad in ((7,), (closed,), (mutex,), (event, -1), (event, "soon")):
                with pytest.raises(Misuse):
                    wait.set(*bad)
            event.set()
            recorder.wait_for(1)
            assert recorder.calls == [(0,)]

    def test_a_callback_may_set_its_own_wait(self, pool: ThreadPool) -> None:
        """A callback may arm its own object again."""
        recorder = Recorder()

        def again(status: int) -> None:
            wait.set(event)
            recorder(status)

        with Event() as event, Wait(again, pool=pool) as wait:
            wait.set(event)
            for count in (1, 2, 3):
                event.set()
                recorder.wait_for(count)


class TestOnItsWay:
    """Sections 5, 7 and 13: the wait was satisfied, and whoever signals is held up before the callback is queued."""

    def test_it_is_waited_for(self, pool: ThreadPool) -> None:
        """Waiting without cancel covers it, whether or not the object was disarmed."""
        recorder = Recorder()
        with Event(True) as event, Wait(recorder, pool=pool) as wait:
            delivery = Delivery(event)
            wait.set(event)
            delivery.begin(event.set)
            assert not wait.wait(0)
            assert wait.set(None) is False
            assert not wait.wait(0)
            assert wait.statistics().queued == 1
            sleeper = in_thread(wait.wait)
            wait_until_blocked(wait)
            delivery.end()
            joined(sleeper)
            assert recorder.calls == [(0,)]

    def test_cancel_discards_it(self, pool: ThreadPool) -> None:
        """Waiting with cancel discards and counts it; no callback comes after that, and other waiters are released."""
        recorder = Recorder()
        with Event(True) as event:
            delivery = Delivery(event)
            wait = Wait(recorder, pool=pool)
            wait.set(event)
            delivery.begin(event.set)
            assert wait.set(None) is False
            sleeper = in_thread(wait.wait)
            wait_until_blocked(wait)
            assert wait.wait(LIMIT, cancel_pending=True)
            joined(sleeper)
            delivery.end()
            settle(pool)
            wait.close()
            seen, of_pool = wait.statistics(), pool.statistics()
        assert recorder.count == 0
        assert (seen.total, seen.started, seen.discarded) == (1, 0, 1)
        assert (of_pool.submitted, of_pool.started, of_pool.discarded) == (1, 0, 1)

    def test_several_may_be(self, pool: ThreadPool) -> None:
        """Each of several sets may be on its way; all are waited for."""
        recorder = Recorder()
        with Event(True) as event, Wait(recorder, pool=pool) as wait:
            delivery = Delivery(event)
            wait.set(event)
            delivery.begin(event.set)
            event.reset()
            second = Delivery(event)
            assert wait.set(event) is False
            second.begin(event.set)
            assert wait.set(None) is False
            assert wait.statistics().queued == 2
            second.end()
            assert not wait.wait(0)
            delivery.end()
            assert wait.wait(LIMIT)
        assert recorder.count == 2

    def test_closing_gives_the_signal_back(self, pool: ThreadPool) -> None:
        """Closing the object ends the wait; its signal stays in what was waited for."""
        recorder, semaphore = Recorder(), Semaphore(0, 9)
        delivery = Delivery(semaphore)
        wait = Wait(recorder, pool=pool)
        wait.set(semaphore)
        delivery.begin(lambda: semaphore.release(2))
        wait.close()
        delivery.end()
        settle(pool)
        assert recorder.count == 0
        assert semaphore.release() == 1

    def test_stopping_the_pool_gives_the_signal_back(self) -> None:
        """A pool that was stopped meanwhile runs nothing; whoever waits for the object is released."""
        recorder, semaphore = Recorder(), Semaphore(0, 9)
        with ThreadPool() as pool, Wait(recorder, pool=pool) as wait:
            delivery = Delivery(semaphore)
            wait.set(semaphore)
            delivery.begin(lambda: semaphore.release(2))
            assert pool.stop(LIMIT)
            sleeper = in_thread(wait.wait)
            wait_until_blocked(wait)
            delivery.end()
            joined(sleeper)
        assert recorder.count == 0
        assert semaphore.release() == 1
