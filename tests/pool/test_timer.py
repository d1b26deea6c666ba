"""Timer objects."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine import Event, InvalidArgumentType, InvalidParameter, ThreadPool, Timer, Wait
from engine.testing import LIMIT, Gate, ManualClock

from .helpers import Blocker, Recorder, in_thread, joined, occupy, settle

START = datetime(2030, 1, 1, tzinfo=UTC)


class TestDue:
    """Section 6, due time forms."""

    def test_relative(self, pool: ThreadPool, clock: ManualClock) -> None:
        """A relative timer fires when its time has passed, not before."""
        recorder = Recorder()
        with Timer(recorder, 1, pool=pool, clock=clock) as timer:
            timer.set(0.5)
            clock.advance(0.499)
            settle(pool)
            assert recorder.count == 0
            clock.advance(0.001)
            recorder.wait_for(1)
            assert recorder.calls == [(1,)]

    def test_a_timedelta_is_relative(self, pool: ThreadPool, clock: ManualClock) -> None:
        """A `timedelta` is a relative due time."""
        recorder = Recorder()
        with Timer(recorder, pool=pool, clock=clock) as timer:
            timer.set(timedelta(minutes=1))
            clock.advance(60)
            recorder.wait_for(1)

    def test_zero_expires_now(self, pool: ThreadPool, clock: ManualClock) -> None:
        """A due time of zero expires now."""
        recorder = Recorder()
        with Timer(recorder, pool=pool, clock=clock) as timer:
            timer.set(0)
            recorder.wait_for(1)

    def test_zero_with_a_period(self, pool: ThreadPool, clock: ManualClock) -> None:
        """Zero with a period: now and then every period."""
        recorder = Recorder()
        with Timer(recorder, pool=pool, clock=clock) as timer:
            timer.set(0, 1)
            recorder.wait_for(1)
            clock.advance(2)
            recorder.wait_for(3)
            settle(pool)
            assert recorder.count == 3

    def test_absolute(self, pool: ThreadPool) -> None:
        """An absolute due time is wall time; setting the wall clock moves it."""
        clock = ManualClock(wall=START)
        recorder = Recorder()
        with Timer(recorder, pool=pool, clock=clock) as timer:
            timer.set(START + timedelta(seconds=100))
            clock.advance(10)
            settle(pool)
            assert recorder.count == 0
            clock.set_wall(START + timedelta(seconds=101))
            clock.advance(1.5)
            recorder.wait_for(1)

    def test_absolute_is_never_early(self, pool: ThreadPool) -> None:
        """An absolute timer does not fire before the wall clock reads its due time."""
        clock = ManualClock(wall=START)
        recorder = Recorder()
        with Timer(recorder, pool=pool, clock=clock) as timer:
            timer.set(START + timedelta(seconds=2))
            clock.advance(1.999)
            settle(pool)
            assert recorder.count == 0
            clock.advance(0.002)
            recorder.wait_for(1)

    def test_absolute_in_the_past_is_now(self, pool: ThreadPool) -> None:
        """An absolute due time that has passed means now."""
        clock = ManualClock(wall=START)
        recorder = Recorder()
        with Timer(recorder, pool=pool, clock=clock) as timer:
            timer.set(START - timedelta(days=1))
            recorder.wait_for(1)

    def test_absolute_with_a_period_continues_relative(self, pool: ThreadPool) -> None:
        """An absolute periodic timer continues relative to its first expiry."""
        clock = ManualClock(wall=START)
        recorder = Recorder()
        with Timer(recorder, pool=pool, clock=clock) as timer:
            timer.set(START + timedelta(seconds=1), 1)
            clock.advance(1)
            recorder.wait_for(1)
            clock.set_wall(START - timedelta(days=1))
            clock.advance(1)
            recorder.wait_for(2)

    def test_none_disarms(self, single: ThreadPool, clock: ManualClock) -> None:
        """None disarms; what is queued already still runs."""
        blocker, recorder = occupy(single), Recorder()
        with Timer(recorder, pool=single, clock=clock) as timer:
            timer.set(1, 1)
            clock.advance(1)
            timer.set(None)
            clock.advance(10)
            blocker.release()
            settle(single)
            assert recorder.count == 1

    def test_the_beginning_of_the_calendar_is_past(self, pool: ThreadPool) -> None:
        """The earliest datetime, which has no local time everywhere, fires at once."""
        recorder = Recorder()
        with Timer(recorder, pool=pool) as timer:
            timer.set(datetime.min)
            recorder.wait_for(1)

    @pytest.mark.parametrize("bad", [-1, float("nan"), timedelta(seconds=-1)])
    def test_bad_times_are_refused(self, pool: ThreadPool, bad: float) -> None:
        """Negative and undefined times are refused, wherever they are given."""
        with Timer(print, pool=pool) as timer:
            for arguments in ((bad,), (1, bad), (1, 0, bad)):
                with pytest.raises(InvalidParameter):
                    timer.set(*arguments)
            assert not timer.is_set()

    def test_other_types_are_refused(self, pool: ThreadPool) -> None:
        """What is no time is refused."""
        with Timer(print, pool=pool) as timer:
            wrong: Any
            for wrong in (("1",), (1, "1")):
                with pytest.raises(InvalidArgumentType):
                    timer.set(*wrong)


class TestPeriod:
    """Section 6, periods."""

    def test_no_period_is_one_shot(self, pool: ThreadPool, clock: ManualClock) -> None:
        """Without a period the timer fires once."""
        recorder = Recorder()
        with Timer(recorder, pool=pool, clock=clock) as timer:
            timer.set(1)
            clock.advance(100)
            settle(pool)
            assert recorder.count == 1

    def test_the_first_interval_is_the_due_time(self, pool: ThreadPool, clock: ManualClock) -> None:
        """Due 200 ms and period 200 ms give three callbacks in 600 ms."""
        recorder = Recorder()
        with Timer(recorder, pool=pool, clock=clock) as timer:
            timer.set(0.2, 0.2)
            for expected in (1, 2, 3):
                clock.advance(0.2)
                recorder.wait_for(expected)
            settle(pool)
            assert recorder.count == 3

    def test_periods_count_from_the_scheduled_time(self, pool: ThreadPool) -> None:
        """A relative timer does not drift: a late expiry does not move the next."""
        clock = LateClock()
        recorder = Recorder()
        with Timer(recorder, pool=pool, clock=clock) as timer:
            timer.set(1, 1)
            clock.jump(1.4)
            recorder.wait_for(1)
            assert clock.due() == [2.0]

    def test_missed_periods_are_made_up_by_one_callback(self, pool: ThreadPool) -> None:
        """Of several missed periods one extra callback is queued at once, and the beat goes on from there."""
        clock = LateClock()
        recorder = Recorder()
        with Timer(recorder, pool=pool, clock=clock) as timer:
            timer.set(1, 1)
            clock.jump(5.3)
            recorder.wait_for(2)
            settle(pool)
            assert recorder.count == 2
            assert clock.due() == [6.3]

    def test_a_slow_callback_does_not_hold_the_next_one_back(self, pool: ThreadPool, clock: ManualClock) -> None:
        """The next callback of a periodic timer is queued though the last one still runs; they run in parallel."""
        blocker = Blocker()
        with Timer(blocker, pool=pool, clock=clock) as timer:
            timer.set(1, 1)
            clock.advance(3)
            blocker.wait_until_running(3)
            timer.set(None)
            blocker.release()

    def test_a_full_queue_drops_periodic_expiries(self, clock: ManualClock) -> None:
        """A periodic timer does not fill a queue beyond its limit: the expiry is dropped and reported."""
        told: list[BaseException] = []
        recorder = Recorder()
        with ThreadPool(1, 1, queue_limit=2, on_error=lambda error, owner: told.append(error)) as pool:
            blocker = occupy(pool)
            with Timer(recorder, pool=pool, clock=clock) as timer:
                timer.set(1, 1)
                clock.advance(5)
                timer.set(None)
                assert timer.statistics().queued == 2
                blocker.release()
        assert len(told) == 3
        assert recorder.count == 2


class TestWindow:
    """Section 6, the window."""

    def test_never_early_and_at_most_the_window_late(self, pool: ThreadPool, clock: ManualClock) -> None:
        """The callback comes in [due, due + window]."""
        recorder = Recorder()
        with Timer(recorder, pool=pool, clock=clock) as timer:
            timer.set(1, 0, 0.5)
            clock.advance(0.999)
            settle(pool)
            assert recorder.count == 0
            clock.advance(0.501)
            recorder.wait_for(1)

    @pytest.mark.parametrize("due", [0.1, START + timedelta(seconds=0.1), 0, START - timedelta(days=1)])
    def test_expiries_within_the_window_come_together(self, pool: ThreadPool, due: float | datetime) -> None:
        """Due 100 with window 200 comes together with due 250, in whichever form it is given; so does one due now."""
        order: list[str] = []
        clock = ManualClock(wall=START)
        with (
            Timer(order.append, "wide", pool=pool, clock=clock) as wide,
            Timer(order.append, "exact", pool=pool, clock=clock) as exact,
        ):
            wide.set(due, 0, 0.3)
            exact.set(0.25)
            clock.advance(0.249)
            settle(pool)
            assert order == []
            clock.advance(0.001)
            settle(pool)
            assert sorted(order) == ["exact", "wide"]
            clock.advance(1)
            settle(pool)
            assert len(order) == 2

    def test_absolute_expiries_go_by_the_wall_clock(self, pool: ThreadPool) -> None:
        """A timer with an absolute due time and a window keeps company once it is due by the wall clock, not before."""
        clock = ManualClock(wall=START)
        recorder = Recorder()
        with (
            Timer(recorder, "wide", pool=pool, clock=clock) as wide,
            Timer(recorder, "exact", pool=pool, clock=clock) as exact,
        ):
            wide.set(START + timedelta(seconds=100), 1, 1000)
            for expected in (1, 2):
                exact.set(0.5)
                clock.advance(0.5)
                recorder.wait_for(expected)
            settle(pool)
            assert recorder.calls == [("exact",)] * 2
            clock.set_wall(START + timedelta(seconds=100))
            exact.set(0)
            settle(pool)
            assert sorted(recorder.calls[2:]) == [("exact",), ("wide",)]
            # From here on it counts by its period.
            clock.set_wall(START)
            for _ in range(2):
                clock.advance(0.5)
                exact.set(0)
                settle(pool)
            assert sorted(recorder.calls[4:]) == [("exact",), ("exact",), ("wide",)]
            assert recorder.calls[4] == ("exact",)

    def test_expiries_outside_the_window_stay_apart(self, pool: ThreadPool, clock: ManualClock) -> None:
        """Due 100 with window 75 stays apart from due 250."""
        recorder = Recorder()
        with (
            Timer(recorder, "narrow", pool=pool, clock=clock) as narrow,
            Timer(recorder, "exact", pool=pool, clock=clock) as exact,
        ):
            narrow.set(0.1, 0, 0.075)
            exact.set(0.25)
            clock.advance(0.175)
            recorder.wait_for(1)
            assert recorder.calls == [("narrow",)]
            clock.advance(0.075)
            recorder.wait_for(2)

    def test_company_does_not_make_a_timer_early(self, pool: ThreadPool, clock: ManualClock) -> None:
        """A timer that waits for company is not fired by one that expires before it is due."""
        recorder = Recorder()
        with (
            Timer(recorder, "wide", pool=pool, clock=clock) as wide,
            Timer(recorder, "early", pool=pool, clock=clock) as early,
        ):
            wide.set(0.2, 0, 1)
            early.set(0.1)
            clock.advance(0.1)
            recorder.wait_for(1)
            settle(pool)
            assert recorder.calls == [("early",)]

    def test_a_periodic_timer_with_a_window(self, pool: ThreadPool, clock: ManualClock) -> None:
        """Each expiry of a periodic timer has the window, counted from when it was due."""
        recorder = Recorder()
        with Timer(recorder, pool=pool, clock=clock) as timer:
            timer.set(1, 1, 0.25)
            clock.advance(1.25)
            recorder.wait_for(1)
            clock.advance(1)
            recorder.wait_for(2)
            settle(pool)
            assert recorder.count == 2


class TestSetting:
    """Section 6, setting, its result, and IsThreadpoolTimerSet."""

    def test_setting_replaces_the_whole_setting(self, pool: ThreadPool, clock: ManualClock) -> None:
        """Setting again replaces due time, period and window."""
        recorder = Recorder()
        with Timer(recorder, pool=pool, clock=clock) as timer:
            timer.set(1, 1, 1)
            timer.set(5)
            clock.advance(4.9)
            settle(pool)
            assert recorder.count == 0
            clock.advance(10)
            recorder.wait_for(1)
            settle(pool)
            assert recorder.count == 1

    def test_setting_does_not_withdraw_what_is_queued(self, single: ThreadPool, clock: ManualClock) -> None:
        """A callback that is queued already stays queued when the timer is set again."""
        blocker, recorder = occupy(single), Recorder()
        with Timer(recorder, pool=single, clock=clock) as timer:
            timer.set(1)
            clock.advance(1)
            timer.set(1)
            blocker.release()
            recorder.wait_for(1)

    def test_set_tells_whether_an_expiry_was_withdrawn(self, pool: ThreadPool, clock: ManualClock) -> None:
        """True if a pending expiry was withdrawn; False for a fresh timer and after a one-shot fired."""
        with Timer(print, pool=pool, clock=clock) as timer:
            assert timer.set(1) is False
            assert timer.set(1) is True
            clock.advance(1)
            assert timer.set(1) is False
            assert timer.set(None) is True
            assert timer.set(None) is False
            timer.set(1, 1)
            clock.advance(3)
            assert timer.set(None) is True

    def test_is_set(self, pool: ThreadPool, clock: ManualClock) -> None:
        """False on a fresh timer, True after a one-shot fired, False only by setting None."""
        with Timer(print, pool=pool, clock=clock) as timer:
            assert not timer.is_set()
            timer.set(1)
            assert timer.is_set()
            clock.advance(1)
            assert timer.is_set()
            timer.set(None)
            assert not timer.is_set()

    def test_a_callback_may_set_its_own_timer(self, pool: ThreadPool, clock: ManualClock) -> None:
        """A callback may arm its own timer again."""
        recorder = Recorder()

        def again() -> None:
            if recorder.count < 2:
                timer.set(0)
            recorder()

        with Timer(again, pool=pool, clock=clock) as timer:
            timer.set(0)
            recorder.wait_for(3)

    def test_disarming_during_an_expiry_is_final(self, pool: ThreadPool) -> None:
        """A timer disarmed while it expires has its callback queued already: a wait with cancel is final."""
        clock, recorder = HeldClock(), Recorder()
        timer = Timer(recorder, pool=pool, clock=clock)
        timer.set(1)
        expiring = in_thread(lambda: clock.advance(1))
        clock.gate.wait_for_arrivals()
        assert timer.set(None) is False
        assert timer.wait(LIMIT, cancel_pending=True)
        timer.close()
        count = recorder.count
        clock.gate.open()
        joined(expiring)
        settle(pool)
        assert recorder.count == count
        assert timer.statistics().total == 1

    def test_a_pool_has_a_clock(self, clock: ManualClock) -> None:
        """The pool's clock is that of its timers and waits, unless they name another."""
        recorder = Recorder()
        with ThreadPool(clock=clock) as pool, Timer(recorder, pool=pool) as timer, Event() as event:
            with Wait(recorder, pool=pool) as wait:
                timer.set(1)
                wait.set(event, 1)
                clock.advance(1)
                recorder.wait_for(2)

    def test_the_system_clock_is_never_early(self, pool: ThreadPool) -> None:
        """On the machine's clock no callback observes its timer early."""
        from time import monotonic

        seen: list[float] = []
        done = Event(True)

        def note() -> None:
            seen.append(monotonic())
            if len(seen) == 3:
                done.set()

        with done, Timer(note, pool=pool) as timer:
            began = monotonic()
            timer.set(0.02, 0.02)
            assert done.wait(LIMIT)
        assert all(at >= began + 0.02 * number for number, at in enumerate(seen, 1))


class HeldClock(ManualClock):
    """A clock that holds up whoever withdraws what it has called already, as a timer does while it expires."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    def call_at(self, when: float, function: Callable[[], None]) -> "HeldCall":
        return HeldCall(super().call_at(when, function), self.gate)


class HeldCall:
    """A call of a `HeldClock`."""

    def __init__(self, call: Any, gate: Gate) -> None:
        self.call = call
        self.gate = gate

    def cancel(self) -> bool:
        withdrawn: bool = self.call.cancel()
        if not withdrawn:
            self.gate.pass_through()
        return withdrawn


class LateClock:
    """A clock that can be late: it jumps, and fires what it jumped over when it has landed."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[LateCall] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, function: Callable[[], None]) -> "LateCall":
        call = LateCall(when, function)
        self.calls.append(call)
        return call

    def due(self) -> list[float]:
        return [call.when for call in self.calls if call.function is not None]

    def jump(self, seconds: float) -> None:
        self.now += seconds
        while ready := [call for call in self.calls if call.function is not None and call.when <= self.now]:
            for call in ready:
                function, call.function = call.function, None
                assert function is not None
                function()


class LateCall:
    """A call that a `LateClock` will make."""

    def __init__(self, when: float, function: Callable[[], None]) -> None:
        self.when = when
        self.function: Callable[[], None] | None = function

    def cancel(self) -> bool:
        pending, self.function = self.function, None
        return pending is not None
