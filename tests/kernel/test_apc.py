"""APCs, alertable sleep, waitable timers."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine import (
    Alerted,
    CompletionPort,
    EngineError,
    Event,
    InvalidArgumentType,
    InvalidHandle,
    InvalidParameter,
    Semaphore,
    Status,
    WaitableTimer,
    WaitTimeout,
    queue_apc,
    signal_and_wait,
    sleep,
    wait_any,
)
from engine.testing import LIMIT, Gate, ManualClock, wait_until, wait_until_blocked

from .helpers import Actor, asleep, error, interleaved, result

Make = Callable[[], Actor]


class TestQueue:
    """Section 12: the APC queue."""

    def test_it_is_first_in_first_out(self) -> None:
        """APCs run in the order in which they were queued."""
        ran: list[int] = []
        for number in range(5):
            queue_apc(ran.append, number)
        assert sleep(0, alertable=True) == 192
        assert ran == [0, 1, 2, 3, 4]

    def test_each_thread_has_its_own(self, actor: Make) -> None:
        """An APC runs in the thread it was queued to, and in no other."""
        worker, ran = actor(), list[Any]()
        queue_apc(lambda: ran.append(threading.current_thread()), thread=worker.thread)
        assert sleep(0, alertable=True) == 0
        assert worker.do(sleep, 0, alertable=True) == 192
        assert ran == [worker.thread]

    def test_it_waits_for_an_alertable_wait(self, actor: Make) -> None:
        """Nothing runs before the thread waits alertably, whatever else it does."""
        worker, ran = actor(), list[Any]()
        queue_apc(ran.append, 1, thread=worker.thread)
        with Event() as event, CompletionPort(1) as port:
            worker.do(event.wait, 0)
            worker.do(event.wait, 0.001)
            worker.do(sleep, 0)
            worker.do(sleep, 0.001)
            assert isinstance(error(worker.start(port.get, 0)), WaitTimeout)
            assert ran == []
            assert isinstance(error(worker.start(event.wait, alertable=True)), Alerted)
        assert ran == [1]

    def test_one_wait_drains_the_queue(self) -> None:
        """One alertable wait runs all of them and returns 192 once."""
        ran: list[int] = []
        for number in range(3):
            queue_apc(ran.append, number)
        assert [sleep(0, alertable=True), sleep(0, alertable=True)] == [192, 0]
        assert ran == [0, 1, 2]

    def test_one_queued_from_inside_joins_the_drain(self) -> None:
        """An APC that is queued by an APC runs in the same wait."""
        ran: list[str] = []
        queue_apc(lambda: (ran.append("outer"), queue_apc(ran.append, "inner")))
        assert sleep(0, alertable=True) == 192
        assert ran == ["outer", "inner"]

    def test_an_alertable_wait_inside_dispatches_recursively(self) -> None:
        """An APC may wait alertably: what is behind it in the queue runs inside it."""
        ran: list[Any] = []
        queue_apc(lambda: ran.append(sleep(0, alertable=True)))
        queue_apc(ran.append, "behind")
        assert sleep(0, alertable=True) == 192
        assert ran == ["behind", 192]

    def test_a_wait_inside_is_allowed(self) -> None:
        """An APC may wait for objects."""
        ran: list[bool] = []
        with Event(signaled=True) as event:
            queue_apc(lambda: ran.append(event.wait()))
            assert sleep(0, alertable=True) == 192
        assert ran == [True]

    def test_what_it_raises_leaves_the_wait(self) -> None:
        """An exception comes out of the alertable wait; the APCs behind stay queued."""
        ran: list[int] = []
        queue_apc(lambda: 1 / 0)
        queue_apc(ran.append, 1)
        with pytest.raises(ZeroDivisionError):
            sleep(0, alertable=True)
        assert ran == []
        assert sleep(0, alertable=True) == 192 and ran == [1]

    def test_a_satisfied_wait_leaves_it_queued(self) -> None:
        """A wait that is satisfied returns the object; the APC stays for the next alertable wait."""
        ran: list[int] = []
        with Event(signaled=True) as event:
            queue_apc(ran.append, 1)
            assert event.wait(LIMIT, alertable=True)
        assert ran == [] and sleep(0, alertable=True) == 192

    def test_one_that_signals_the_object_still_alerts(self) -> None:
        """The wait ends with 192; the next wait yields the object."""
        with Event() as event:
            queue_apc(event.set)
            with pytest.raises(Alerted):
                event.wait(LIMIT, alertable=True)
            assert event.wait(0)

    def test_an_interrupted_wait_consumes_nothing(self, actor: Make) -> None:
        """A wait that APCs ended left the object alone and is not pending any more."""
        worker = actor()
        with Event() as event:
            waiting = asleep(worker, event.wait, alertable=True)
            queue_apc(int, thread=worker.thread)
            assert isinstance(error(waiting), Alerted)
            assert event.statistics().waiting == 0
            event.set()
            assert event.wait(0)

    def test_it_wakes_a_sleeping_thread(self, actor: Make) -> None:
        """A thread that sleeps alertably runs it at once, on itself."""
        worker, ran = actor(), list[Any]()
        for wait in (lambda: sleep(None, alertable=True), lambda: sleep(60, alertable=True)):
            waiting = asleep(worker, wait)
            queue_apc(lambda: ran.append(threading.current_thread()), thread=worker.thread)
            assert result(waiting) == 192
        assert ran == [worker.thread] * 2

    def test_arguments_are_passed(self) -> None:
        """The function gets the arguments it was queued with."""
        ran: list[tuple[int, ...]] = []
        queue_apc(lambda *args: ran.append(args), 1, 2, 3)
        sleep(0, alertable=True)
        assert ran == [(1, 2, 3)]

    def test_a_thread_may_be_named_by_identifier(self, actor: Make) -> None:
        """An identifier of a thread that has used the library will do."""
        worker, ran = actor(), list[Any]()
        worker.do(sleep, 0)
        assert worker.thread.ident is not None
        queue_apc(ran.append, 1, thread=worker.thread.ident)
        assert worker.do(sleep, 0, alertable=True) == 192 and ran == [1]

    @pytest.mark.parametrize("thing", ["thread", 1.5])
    def test_other_targets_are_refused(self, thing: Any) -> None:
        """Anything else is error 87, as is a function that cannot be called."""
        with pytest.raises(InvalidArgumentType):
            queue_apc(int, thread=thing)
        with pytest.raises(InvalidArgumentType):
            queue_apc(None)  # type: ignore[arg-type]  # wrong on purpose

    def test_many_queued_at_once_all_run(self, actor: Make) -> None:
        """Threads that queue at the same time lose nothing."""
        worker, ran = actor(), list[Any]()
        posters = [actor() for _ in range(4)]

        def queue(first: int) -> None:
            for number in range(first, first + 100):
                queue_apc(ran.append, number, thread=worker.thread)

        queueing = [poster.start(queue, 100 * index) for index, poster in enumerate(posters)]
        while len(ran) < 400:
            worker.do(sleep, 1, alertable=True)
        for each in queueing:
            result(each)
        assert sorted(ran) == list(range(400))
        for first in range(0, 400, 100):  # Each poster's in its order.
            own = [number for number in ran if first <= number < first + 100]
            assert own == sorted(own)


class TestThreads:
    """Section 12: threads that begin and end."""

    def test_one_queued_before_the_thread_starts_runs(self) -> None:
        """An APC queued to a thread that has not started yet runs in its first alertable wait."""
        ran: list[object] = []
        outcome: list[Status] = []
        thread = threading.Thread(target=lambda: outcome.append(sleep(0, alertable=True)))
        queue_apc(lambda: ran.append(threading.current_thread()), thread=thread)
        thread.start()
        thread.join()
        assert (ran, outcome) == ([thread], [192])

    def test_one_queued_before_the_first_use_runs(self) -> None:
        """So does one that is queued to a running thread which has not used the library yet."""
        gate, ran = Gate(), list[Any]()
        thread = threading.Thread(target=lambda: (gate.pass_through(), sleep(0, alertable=True)))
        thread.start()
        gate.wait_for_arrivals()
        queue_apc(ran.append, 1, thread=thread)
        gate.open()
        thread.join()
        assert ran == [1]

    def test_those_of_an_ended_thread_are_lost(self, actor: Make) -> None:
        """What is queued when the thread ends never runs."""
        worker, ran = actor(), list[Any]()
        worker.do(sleep, 0)
        queue_apc(ran.append, 1, thread=worker.thread)
        worker.end()
        sleep(0, alertable=True)
        assert ran == []

    def test_queueing_to_an_ended_thread_fails(self, actor: Make) -> None:
        """Error 31, whether it ever used the library or not, by object and by identifier."""
        user, stranger = actor(), actor()
        user.do(sleep, 0)
        ident = user.thread.ident
        user.end()
        stranger.end()
        for target in (user.thread, stranger.thread, ident):
            with pytest.raises(EngineError) as raised:
                queue_apc(int, thread=target)
            assert raised.value.status == 31

    def test_queueing_to_an_unknown_identifier_fails(self) -> None:
        """Error 31."""
        with pytest.raises(EngineError) as raised:
            queue_apc(int, thread=1)
        assert raised.value.status == 31


class TestAlertableSleep:
    """Section 12: alertable sleep."""

    @pytest.mark.parametrize("seconds", [0, 5, None])
    def test_a_pending_apc_ends_it_at_once(self, seconds: float | None) -> None:
        """192, even for zero."""
        queue_apc(int)
        assert sleep(seconds, alertable=True) is Status.WAIT_IO_COMPLETION

    def test_a_full_sleep_returns_zero(self) -> None:
        """0 after the full time."""
        start = time.monotonic()
        assert sleep(0.01, alertable=True) is Status.OK
        assert time.monotonic() - start >= 0.01

    @pytest.mark.parametrize("seconds", [0, 0.001])
    def test_a_plain_sleep_is_never_192(self, seconds: float) -> None:
        """Without `alertable` APCs stay queued."""
        ran: list[int] = []
        queue_apc(ran.append, 1)
        assert sleep(seconds) == 0 and ran == []
        assert sleep(0, alertable=True) == 192

    @pytest.mark.parametrize("seconds", [-1, float("nan")])
    def test_a_negative_time_is_refused(self, seconds: float) -> None:
        """Error 87."""
        with pytest.raises(InvalidParameter):
            sleep(seconds)


@pytest.fixture
def local_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """A function that sets the local time's hours east of UTC; set back with the test."""
    if not hasattr(time, "tzset"):
        pytest.skip("the zone cannot be set here")

    def set_to(hours: int) -> None:
        monkeypatch.setenv("TZ", f"ABC{-hours:+}")
        time.tzset()

    yield set_to
    monkeypatch.undo()
    time.tzset()


class TestTimer:
    """Section 12: waitable timers."""

    def test_it_is_signaled_when_due(self) -> None:
        """Nonsignaled before the due time, signaled from then on."""
        clock = ManualClock()
        with WaitableTimer(clock=clock) as timer:
            timer.set(2.0)
            clock.advance(1.999)
            assert not timer.wait(0)
            clock.advance(0.001)
            assert timer.wait(0)

    def test_a_synchronization_timer_satisfies_one_wait(self) -> None:
        """Satisfying a wait makes it nonsignaled."""
        clock = ManualClock()
        with WaitableTimer(clock=clock) as timer:
            timer.set(1)
            clock.advance(1)
            assert timer.wait(0) and not timer.wait(0)

    def test_a_manual_reset_timer_stays_signaled(self) -> None:
        """It satisfies every wait until it is set again."""
        clock = ManualClock()
        with WaitableTimer(manual_reset=True, clock=clock) as timer:
            timer.set(1)
            clock.advance(1)
            assert timer.wait(0) and timer.wait(0)
            timer.set(1)
            assert not timer.wait(0)

    def test_it_wakes_a_waiting_thread(self, actor: Make) -> None:
        """A thread that waits goes when the timer is due."""
        clock = ManualClock()
        with WaitableTimer(clock=clock) as timer:
            timer.set(1)
            waiting = asleep(actor(), wait_any, [timer])
            clock.advance(1)
            assert result(waiting) == 0

    def test_a_period_repeats(self) -> None:
        """After the due time it expires every period, counted from when it was due."""
        clock = ManualClock()
        with WaitableTimer(clock=clock) as timer:
            timer.set(1.0, period=0.5)
            for moment in (1.0, 0.5, 0.5, 0.5):
                clock.advance(moment)
                assert timer.wait(0) and not timer.wait(0)

    def test_expiries_coalesce(self) -> None:
        """Expiries that find no wait are one signal."""
        clock = ManualClock()
        with WaitableTimer(clock=clock) as timer:
            timer.set(1, period=1)
            clock.advance(5)
            assert timer.wait(0) and not timer.wait(0)

    def test_setting_cancels_the_earlier_setting(self) -> None:
        """Only the last setting counts."""
        clock = ManualClock()
        with WaitableTimer(clock=clock) as timer:
            timer.set(1, period=1)
            timer.set(10)
            clock.advance(9)
            assert not timer.wait(0)
            clock.advance(1)
            assert timer.wait(0)
            clock.advance(10)
            assert not timer.wait(0)

    def test_setting_clears_the_signal(self) -> None:
        """A timer that is set again is nonsignaled."""
        clock = ManualClock()
        with WaitableTimer(clock=clock) as timer:
            timer.set(1)
            clock.advance(1)
            timer.set(1)
            assert not timer.is_signaled()

    def test_cancelling_keeps_the_signal(self) -> None:
        """Cancelling does not change the signal; the timer does not expire any more."""
        clock = ManualClock()
        with WaitableTimer(clock=clock) as timer:
            timer.set(1, period=1)
            clock.advance(1)
            timer.cancel()
            assert timer.is_signaled() and timer.wait(0)
            clock.advance(5)
            assert not timer.is_signaled() and clock.pending == 0

    def test_an_absolute_time_is_wall_time(self) -> None:
        """A datetime is due when the wall clock shows it."""
        clock = ManualClock(wall=datetime(2030, 1, 1, tzinfo=UTC))
        with WaitableTimer(clock=clock) as timer:
            timer.set(datetime(2030, 1, 1, 0, 0, 10, tzinfo=UTC))
            clock.advance(9.5)
            assert not timer.wait(0)
            clock.advance(0.5)
            assert timer.wait(0)

    def test_an_absolute_time_follows_the_wall_clock(self) -> None:
        """If the wall clock is set forwards it is due earlier, if backwards later; never early by that clock."""
        clock = ManualClock(wall=datetime(2030, 1, 1, tzinfo=UTC))
        with WaitableTimer(clock=clock) as timer:
            timer.set(datetime(2030, 1, 1, 1, tzinfo=UTC))
            clock.set_wall(datetime(2030, 1, 1, 2, tzinfo=UTC))
            clock.advance(1)
            assert timer.wait(0)
            timer.set(datetime(2030, 1, 1, 3, tzinfo=UTC))
            clock.set_wall(datetime(2030, 1, 1, tzinfo=UTC))
            clock.advance(2 * 3600)
            assert not timer.wait(0)
            clock.advance(3600)
            assert timer.wait(0)

    def test_a_relative_time_ignores_the_wall_clock(self) -> None:
        """A relative due time does not move when the wall clock is set."""
        clock = ManualClock()
        with WaitableTimer(clock=clock) as timer:
            timer.set(10)
            clock.set_wall(datetime(2040, 1, 1, tzinfo=UTC))
            clock.advance(9)
            assert not timer.wait(0)
            clock.advance(1)
            assert timer.wait(0)

    def test_a_past_time_is_now(self) -> None:
        """An absolute time that is past is due at once."""
        clock = ManualClock(wall=datetime(2030, 1, 1, tzinfo=UTC))
        with WaitableTimer(clock=clock) as timer:
            timer.set(datetime(1999, 1, 1, tzinfo=UTC))
            clock.advance()
            assert timer.wait(0)

    @pytest.mark.parametrize("zone", [-12, 14])
    def test_the_ends_of_the_calendar(self, local_zone: Callable[[int], None], zone: int) -> None:
        """The earliest datetime is due at once, the latest as good as never, in whichever time zone."""
        clock = ManualClock()
        local_zone(zone)
        with WaitableTimer(clock=clock) as timer:
            for due in (datetime.max, datetime.max.replace(tzinfo=UTC)):
                timer.set(due)
                clock.advance(3600)
                assert not timer.wait(0)
            for due in (datetime.min, datetime.min.replace(tzinfo=UTC)):
                timer.set(due)
                clock.advance()
                assert timer.wait(0)

    def test_a_timedelta_is_a_relative_time(self) -> None:
        """Due time and period may be timedeltas."""
        clock = ManualClock()
        with WaitableTimer(clock=clock) as timer:
            timer.set(timedelta(seconds=2), period=timedelta(milliseconds=500))
            clock.advance(2)
            assert timer.wait(0)
            clock.advance(0.5)
            assert timer.wait(0)

    def test_it_runs_by_the_machines_clock(self) -> None:
        """Without a clock of its own it is due by the machine's, and never early."""
        with WaitableTimer() as timer:
            start = time.monotonic()
            timer.set(0.02)
            assert timer.wait(LIMIT)
            assert time.monotonic() - start >= 0.02

    @pytest.mark.parametrize(
        ("due", "period"),
        [(-1, 0), (float("nan"), 0), (1, -1), (1, float("inf")), (10**400, 0), (1, 10**400)],
    )
    def test_times_out_of_range_are_refused(self, due: float, period: float) -> None:
        """Error 87, and the setting stays."""
        clock = ManualClock()
        with WaitableTimer(clock=clock) as timer:
            timer.set(1)
            with pytest.raises(InvalidParameter):
                timer.set(due, period)
            clock.advance(1)
            assert timer.wait(0)

    def test_wrong_types_are_refused(self) -> None:
        """Error 87, and a TypeError."""
        with WaitableTimer(clock=ManualClock()) as timer:
            for arguments in (("soon",), (1, "often"), (1, 0, "apc")):
                with pytest.raises(InvalidArgumentType):
                    timer.set(*arguments)

    def test_a_closed_timer_is_refused(self) -> None:
        """Setting and cancelling a closed timer is error 6; it does not expire."""
        clock = ManualClock()
        timer = WaitableTimer(clock=clock)
        timer.set(1)
        timer.close()
        assert clock.pending == 0
        uses: list[Callable[[], object]] = [lambda: timer.set(1), timer.cancel]
        for use in uses:
            with pytest.raises(InvalidHandle):
                use()


class TestTimerApc:
    """Section 12: a timer's APC."""

    def test_it_runs_in_the_thread_that_set_the_timer(self, actor: Make) -> None:
        """At the expiry the APC is queued to the thread that called `set`."""
        clock, worker, ran = ManualClock(), actor(), []
        with WaitableTimer(clock=clock) as timer:
            worker.do(timer.set, 1, 0, lambda: ran.append(threading.current_thread()))
            waiting = asleep(worker, sleep, None, alertable=True)
            clock.advance(1)
            assert result(waiting) == 192
            assert ran == [worker.thread]

    def test_the_timer_is_signaled_as_well(self) -> None:
        """The expiry signals the object and queues the APC."""
        clock, ran = ManualClock(), list[Any]()
        with WaitableTimer(clock=clock) as timer:
            timer.set(1, apc=lambda: ran.append(1))
            clock.advance(1)
            assert timer.wait(0, alertable=True)  # The object is there: the APC stays queued.
            assert ran == []
            assert sleep(0, alertable=True) == 192 and ran == [1]

    def test_each_period_queues_it(self) -> None:
        """It runs once for each expiry that finds it not queued."""
        clock, ran = ManualClock(), list[Any]()
        with WaitableTimer(clock=clock) as timer:
            timer.set(1, 1, lambda: ran.append(clock.monotonic()))
            for _ in range(3):
                clock.advance(1)
                assert sleep(0, alertable=True) == 192
            assert ran == [1.0, 2.0, 3.0]

    def test_it_is_queued_once_at_a_time(self) -> None:
        """Expiries while it is queued do not queue it again."""
        clock, ran = ManualClock(), list[Any]()
        with WaitableTimer(clock=clock) as timer:
            timer.set(1, 1, lambda: ran.append(1))
            clock.advance(5)
            sleep(0, alertable=True)
            assert ran == [1]

    @pytest.mark.parametrize("how", ["set", "cancel", "close"])
    def test_a_queued_one_is_withdrawn(self, how: str) -> None:
        """Setting, cancelling or closing the timer takes an APC that has not run out of the queue."""
        clock, ran = ManualClock(), list[Any]()
        with WaitableTimer(clock=clock) as timer:
            timer.set(1, apc=lambda: ran.append(1))
            clock.advance(1)
            {"set": lambda: timer.set(1), "cancel": timer.cancel, "close": timer.close}[how]()
            assert sleep(0, alertable=True) == 0
            assert ran == []

    def test_withdrawing_leaves_other_apcs(self) -> None:
        """Only the timer's own APC is withdrawn."""
        clock, ran = ManualClock(), list[Any]()
        with WaitableTimer(clock=clock) as timer:
            queue_apc(ran.append, "before")
            timer.set(1, apc=lambda: ran.append("timer"))
            clock.advance(1)
            queue_apc(ran.append, "after")
            timer.cancel()
        assert sleep(0, alertable=True) == 192
        assert ran == ["before", "after"]

    def test_withdrawing_asks_nothing_of_other_apcs(self) -> None:
        """Functions in the queue are not compared, which might run code of theirs."""

        class Incomparable:
            def __eq__(self, other: object) -> bool:
                raise AssertionError("compared")

            def __call__(self) -> None:
                ran.append("other")

        clock, ran = ManualClock(), list[Any]()
        with WaitableTimer(clock=clock) as timer:
            queue_apc(Incomparable())
            timer.set(1, apc=lambda: ran.append("timer"))
            clock.advance(1)
            timer.cancel()
        assert sleep(0, alertable=True) == 192 and ran == ["other"]

    def test_it_may_be_withdrawn_at_any_moment(self) -> None:
        """Whenever another thread cancels the timer, a wait runs the APC and says so, or neither."""
        clock, ran = ManualClock(), list[Any]()

        def wait() -> int:
            ran.clear()
            timer.set(1, apc=lambda: ran.append(1))
            clock.advance(1)
            return sleep(0, alertable=True)

        with WaitableTimer(clock=clock) as timer:
            for outcome in interleaved(wait, timer.cancel):
                assert result(outcome) == (192 if ran else 0)

    def test_waits_go_on_if_it_is_withdrawn(self, actor: Make) -> None:
        """An alertable wait that found it withdrawn ends as if it had never been queued: when its time is up."""
        clock, worker, ran = ManualClock(), actor(), []
        signal = Semaphore(0, 2)
        with WaitableTimer(clock=clock) as timer, Event() as event, CompletionPort() as port:
            for wait in (
                lambda: sleep(0.05, alertable=True),
                lambda: event.wait(0.05, alertable=True),
                lambda: signal_and_wait(signal, event, 0.05, alertable=True),
                lambda: port.get_many(4, 0.05, alertable=True),
            ):
                worker.do(timer.set, 1, 0, lambda: ran.append(1))
                start = time.monotonic()
                waiting = asleep(worker, wait)
                clock.advance(1)
                timer.cancel()
                error(waiting)
                assert ran or time.monotonic() - start >= 0.05
                ran.clear()
            assert signal.release() == 1

    def test_it_is_lost_with_its_thread(self, actor: Make) -> None:
        """If the thread has ended the expiry only signals."""
        clock, worker, ran = ManualClock(), actor(), []
        with WaitableTimer(clock=clock) as timer:
            worker.do(timer.set, 1, 0, lambda: ran.append(1))
            worker.end()
            clock.advance(1)
            assert timer.wait(0) and ran == []

    def test_it_may_set_the_timer_again(self) -> None:
        """An APC may set its own timer."""
        clock, ran = ManualClock(), list[Any]()

        def again() -> None:
            ran.append(clock.monotonic())
            if len(ran) < 3:
                timer.set(1, apc=again)

        with WaitableTimer(clock=clock) as timer:
            timer.set(1, apc=again)
            for _ in range(5):
                clock.advance(1)
                sleep(0, alertable=True)
        assert ran == [1.0, 2.0, 3.0]


def test_a_thread_asleep_is_found(actor: Make) -> None:
    """`wait_until_blocked` knows of a thread that sleeps alertably."""
    worker = actor()
    sleeping = worker.start(sleep, None, alertable=True)
    wait_until_blocked(worker.thread)
    queue_apc(int, thread=worker.thread)
    assert result(sleeping) == 192
    wait_until(lambda: worker.do(sleep, 0) == 0)
