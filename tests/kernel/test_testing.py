"""The testing kit itself."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import pytest

from engine import CompletionPort, Event, InvalidParameter, WaitTimeout
from engine.testing import Gate, ManualClock, Sequencer, wait_until, wait_until_blocked

from .helpers import Actor, active, getter, join_as_active, result

Make = Callable[[], Actor]


class TestManualClock:
    """A clock moved by hand."""

    def test_time_stands_still(self) -> None:
        """Nothing moves but by `advance`, which moves both times alike."""
        clock = ManualClock(5.0, datetime(2030, 1, 1, tzinfo=UTC))
        wall = clock.time()
        assert clock.monotonic() == clock.monotonic() == 5.0
        clock.advance(1.5)
        assert (clock.monotonic(), clock.time()) == (6.5, wall + 1.5)

    def test_timers_fire_in_order_at_their_times(self) -> None:
        """Functions run in the order of their due times, and see the clock show them."""
        clock, fired = ManualClock(), list[tuple[str, float]]()
        for name, when in (("late", 3.0), ("early", 1.0), ("early too", 1.0)):
            clock.call_at(when, partial(lambda name: fired.append((name, clock.monotonic())), name))
        clock.advance(2)
        assert fired == [("early", 1.0), ("early too", 1.0)]
        clock.advance(2)
        assert fired[2:] == [("late", 3.0)] and clock.monotonic() == 4.0

    def test_what_a_timer_arms_fires_in_the_same_advance(self) -> None:
        """A function armed by another one fires too, if it is due by then."""
        clock, fired = ManualClock(), list[float]()

        def again() -> None:
            fired.append(clock.monotonic())
            clock.call_at(clock.monotonic() + 1, again)

        clock.call_at(1, again)
        clock.advance(3.5)
        assert fired == [1, 2, 3] and clock.pending == 1

    def test_cancel_withdraws_once(self) -> None:
        """A withdrawn function is not called; a second cancel is late."""
        clock, fired = ManualClock(), list[int]()
        call = clock.call_at(1, lambda: fired.append(1))
        assert call.cancel() and not call.cancel() and clock.pending == 0
        clock.advance(1)
        assert fired == []

    def test_time_does_not_go_back(self) -> None:
        """A negative advance is refused."""
        with pytest.raises(InvalidParameter):
            ManualClock().advance(-1)

    def test_the_wall_clock_may_be_set(self) -> None:
        """Setting the wall time leaves monotonic time alone."""
        clock = ManualClock()
        clock.set_wall(100.0)
        assert (clock.time(), clock.monotonic()) == (100.0, 0.0)


class TestSequencer:
    """Steps of several threads in order."""

    def test_steps_run_in_order(self, actor: Make) -> None:
        """Whatever order the threads come in, steps run by number."""
        step, ran = Sequencer(), list[int]()

        def take(number: int) -> None:
            with step(number):
                ran.append(number)

        taking = [actor().start(take, number) for number in (3, 1, 2, 0)]
        for each in taking:
            result(each)
        assert ran == [0, 1, 2, 3]

    def test_a_step_that_never_comes_is_a_timeout(self) -> None:
        """A step waits no longer than its limit."""
        with pytest.raises(WaitTimeout), Sequencer()(1, limit=0.01):
            pass

    def test_a_step_is_used_once(self) -> None:
        """A number that has been is refused."""
        step = Sequencer()
        with step(0):
            pass
        with pytest.raises(InvalidParameter), step(0):
            pass

    def test_a_failed_step_lets_the_next_one_run(self) -> None:
        """An exception in a step does not stop the others."""
        step = Sequencer()
        with pytest.raises(KeyError), step(0):
            raise KeyError
        with step(1, limit=0.01):
            pass


class TestGate:
    """A place where threads stop."""

    def test_threads_stop_until_it_opens(self, actor: Make) -> None:
        """A closed gate holds threads, an open one does not."""
        gate = Gate()
        passing = [actor().start(gate.pass_through) for _ in range(2)]
        gate.wait_for_arrivals(2)
        assert gate.arrivals == 2 and not any(each.done() for each in passing)
        gate.open()
        for each in passing:
            result(each)
        gate.pass_through()
        gate.close()
        with pytest.raises(WaitTimeout):
            gate.pass_through(limit=0.01)

    def test_arrivals_that_do_not_come_are_a_timeout(self) -> None:
        """Waiting for arrivals ends at the limit."""
        with pytest.raises(WaitTimeout, match="0 of 1"):
            Gate().wait_for_arrivals(limit=0.01)

    def test_a_thread_in_a_gate_keeps_its_slot(self, port: CompletionPort, actor: Make) -> None:
        """A gate is not a wait of the engine."""
        worker, gate = actor(), Gate()
        join_as_active(worker, port)
        passing = worker.start(gate.pass_through)
        gate.wait_for_arrivals()
        assert active(port) == 1
        gate.open()
        result(passing)


class TestWaiting:
    """Waiting until something is so."""

    def test_until_a_condition_holds(self) -> None:
        """`wait_until` returns when the condition is true, and raises at the limit."""
        turns = iter([0, 0, 1])
        wait_until(lambda: next(turns))
        with pytest.raises(WaitTimeout, match="the moon"):
            wait_until(lambda: False, 0.01, "the moon")

    def test_until_threads_wait_on_a_port(self, port: CompletionPort, actor: Make) -> None:
        """`wait_until_blocked` returns when so many threads wait on the port."""
        waiting = getter(actor(), port)
        wait_until_blocked(port, 1)
        port.post()
        result(waiting)
        with pytest.raises(WaitTimeout):
            wait_until_blocked(port, 1, limit=0.01)

    def test_until_something_waits_on_an_object(self, actor: Make) -> None:
        """So it does for an event."""
        with Event() as event:
            waiting = actor().start(event.wait)
            wait_until_blocked(event)
            event.set()
            assert result(waiting)

    def test_until_a_thread_sleeps(self) -> None:
        """A thread that does not wait is not found asleep."""
        with pytest.raises(WaitTimeout):
            wait_until_blocked(threading.current_thread(), limit=0.01)
