"""Threads: limits, growth, shrink, closing, stopping, and what happens when the queue is full."""

import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from engine import (
    CleanupGroup,
    Deadlock,
    Environment,
    Event,
    Executor,
    InvalidArgumentType,
    InvalidHandle,
    InvalidParameter,
    InvalidState,
    QueueFull,
    ThreadPool,
    Timer,
    Work,
    current_callback,
    default_pool,
    submit_callback,
)
from engine.testing import LIMIT, Gate, ManualClock, wait_until, wait_until_blocked

from .helpers import Blocker, Recorder, in_thread, joined, occupy, settle


class TestLimits:
    """Section 4, minimum and maximum."""

    def test_the_defaults(self) -> None:
        """A pool has a minimum of 0 and a maximum of 500 threads, and starts none."""
        with ThreadPool() as pool:
            seen = pool.statistics()
        assert (seen.minimum, seen.maximum, seen.workers) == (0, 500, 0)

    def test_the_minimum_is_started_at_once(self) -> None:
        """Setting the minimum creates threads up to it at once."""
        with ThreadPool() as pool:
            assert pool.set_minimum(3)
            assert pool.statistics().workers == 3
        with ThreadPool(2) as pool:
            assert pool.statistics().workers == 2

    def test_a_minimum_above_the_maximum_raises_it(self) -> None:
        """A minimum above the maximum raises the maximum."""
        with ThreadPool(0, 1) as pool:
            assert pool.set_minimum(2)
            assert pool.statistics().maximum == 2

    def test_a_maximum_below_the_minimum_lowers_it(self) -> None:
        """A maximum below the minimum lowers the minimum; the excess threads leave."""
        with ThreadPool(3, 5) as pool:
            pool.set_maximum(1)
            assert pool.statistics().minimum == 1
            wait_until(lambda: pool.statistics().workers == 1)

    def test_idle_threads_above_a_lowered_maximum_leave_at_once(self) -> None:
        """Of the idle threads as many leave at once as there are above a lowered maximum, and no more."""
        with ThreadPool(3, 5) as pool:
            settle(pool)
            pool.set_minimum(0)
            pool.set_maximum(2)
            assert pool.statistics().workers == 2

    def test_a_maximum_of_0_is_1(self) -> None:
        """A maximum of 0 is taken as 1."""
        with ThreadPool(0, 0) as pool:
            assert pool.statistics().maximum == 1
            pool.set_maximum(0)
            assert pool.statistics().maximum == 1

    def test_threads_above_a_lowered_maximum_finish_their_callbacks(self, pool: ThreadPool) -> None:
        """Running threads above a lowered maximum are not killed; they leave when they come back."""
        blocker, recorder = Blocker(), Recorder()
        with Work(blocker, pool=pool) as work:
            for _ in range(4):
                work.submit()
            blocker.wait_until_running(4)
            pool.set_maximum(1)
            assert pool.statistics().workers == 4
            blocker.release()
            assert work.wait(LIMIT)
        wait_until(lambda: pool.statistics().workers == 1)
        pool.submit(recorder)
        recorder.wait_for(1)

    def test_one_thread_is_always_the_same(self, single: ThreadPool) -> None:
        """Minimum = maximum = 1 is a persistent single worker: every callback has the same thread."""
        recorder = Recorder()
        for _ in range(10):
            single.submit(recorder)
        recorder.wait_for(10)
        assert len(set(recorder.threads)) == 1

    @pytest.mark.parametrize("bad", [-1, -500])
    def test_negative_limits_are_refused(self, pool: ThreadPool, bad: int) -> None:
        """A negative limit is refused."""
        for call in (pool.set_minimum, pool.set_maximum, ThreadPool):
            with pytest.raises(InvalidParameter):
                call(bad)

    def test_limits_of_another_type_are_refused(self) -> None:
        """A limit that is not an int is refused."""
        for bad in ("3", 2.5, None, True):
            with pytest.raises(InvalidArgumentType):
                ThreadPool(bad)  # type: ignore[arg-type]  # wrong on purpose

    def test_a_minimum_above_the_maximum_is_refused_at_creation(self) -> None:
        """A new pool's minimum must not exceed its maximum."""
        with pytest.raises(InvalidParameter):
            ThreadPool(3, 2)


class TestGrowth:
    """Section 4, growth and shrink."""

    def test_a_thread_is_started_when_something_is_queued(self, pool: ThreadPool) -> None:
        """The first callback starts the first thread."""
        recorder = Recorder()
        assert pool.statistics().workers == 0
        pool.submit(recorder)
        recorder.wait_for(1)
        assert pool.statistics().workers == 1

    def test_growth_ends_at_the_maximum(self, pool: ThreadPool) -> None:
        """Blocked callbacks get company up to the maximum, and no further."""
        blocker = Blocker()
        with Work(blocker, pool=pool) as work:
            for _ in range(20):
                work.submit()
            blocker.wait_until_running(8)
            assert pool.statistics().workers == 8
            assert work.statistics().queued == 12
            blocker.release()
            assert work.wait(LIMIT)
        assert pool.statistics().workers <= 8

    def test_idle_threads_leave_down_to_the_minimum(self) -> None:
        """Threads above the minimum leave after the idle limit; never below the minimum."""
        with ThreadPool(1, 8, idle_limit=0.02) as pool:
            blocker = Blocker()
            for _ in range(4):
                pool.submit(blocker)
            blocker.wait_until_running(4)
            blocker.release()
            wait_until(lambda: pool.statistics().workers == 1)
            threading.Event().wait(0.1)  # Several idle limits.
            assert pool.statistics().workers == 1

    def test_all_threads_leave_where_the_minimum_is_0(self) -> None:
        """With a minimum of 0 and no objects the last thread leaves too."""
        with ThreadPool(idle_limit=0.02) as pool:
            pool.submit(print)
            wait_until(lambda: pool.statistics().started and not pool.statistics().workers)

    def test_the_last_thread_stays_while_there_are_objects(self) -> None:
        """With a minimum of 0 the last thread is kept while the pool has objects."""
        with ThreadPool(idle_limit=0.01) as pool:
            with Work(print, pool=pool) as work:
                work.submit()
                assert work.wait(LIMIT)
                threading.Event().wait(0.1)
                assert pool.statistics().workers == 1
            wait_until(lambda: not pool.statistics().workers)

    def test_a_pool_that_shrank_grows_again(self) -> None:
        """After all threads left, the next callback starts one."""
        recorder = Recorder()
        with ThreadPool(idle_limit=0.01) as pool:
            for number in range(1, 6):
                pool.submit(recorder)
                recorder.wait_for(number)
                wait_until(lambda: not pool.statistics().workers)

    def test_a_persistent_callback_keeps_its_thread(self) -> None:
        """A thread that ran a persistent callback never leaves by itself."""
        with ThreadPool(idle_limit=0.01) as pool:
            recorder = Recorder()
            submit_callback(recorder, environment=Environment(pool=pool, persistent=True))
            recorder.wait_for(1)
            threading.Event().wait(0.1)
            assert pool.statistics().workers == 1

    @pytest.mark.parametrize("busy", [False, True])
    def test_persistent_threads_above_a_lowered_maximum_leave(self, busy: bool) -> None:
        """Threads that ran persistent callbacks stay up to a lowered maximum; the others leave as they become idle."""
        with ThreadPool(maximum=4) as pool:
            gate, environment = Blocker(), Environment(pool=pool, persistent=True)
            with Work(gate, environment=environment) as work:
                for number in (4, 8) if busy else (4,):
                    for _ in range(4):
                        work.submit()
                    gate.wait_until_running(number)
                    if number == 4:
                        gate.release()
                        settle(pool)
                        gate.gate.close()
                pool.set_maximum(1)
                gate.release()
                wait_until(lambda: pool.statistics().workers == 1)

    @pytest.mark.parametrize("busy", [False, True])
    def test_a_persistent_thread_outlasts_others(self, busy: bool) -> None:
        """Where the maximum is lowered, a thread that ran a persistent callback stays, and others leave."""
        with ThreadPool(maximum=3) as pool:
            persistent, others, recorder = Blocker(), Blocker(), Recorder()

            def keep() -> None:
                recorder()
                persistent()

            # The first thread, which would be the first to leave.
            submit_callback(keep, environment=Environment(pool=pool, persistent=True))
            persistent.wait_until_running()
            for _ in range(2):
                pool.submit(others)
            others.wait_until_running(2)
            if busy:
                pool.set_maximum(1)
            persistent.release()
            wait_until(lambda: pool.statistics().idle == 1)
            others.release()
            if not busy:
                settle(pool)
                pool.set_maximum(1)
            wait_until(lambda: pool.statistics().workers == 1)
            pool.submit(recorder)
            recorder.wait_for(2)
        assert recorder.threads[0] is recorder.threads[1]

    def test_many_long_callbacks_run_side_by_side(self) -> None:
        """Callbacks that are known to block are not held up by the one slot: their threads grow with them."""
        with ThreadPool(0, 16) as pool:
            blocker = Blocker()
            for _ in range(64):
                pool.submit(blocker)
            blocker.wait_until_running(16)
            blocker.release()
            settle(pool)


class TestMayRunLong:
    """Section 4, CallbackMayRunLong."""

    def test_true_when_another_worker_can_be_started(self, pool: ThreadPool) -> None:
        """TRUE when another worker is free or could be started, which it is."""
        answers: list[bool] = []
        pool.submit(lambda: answers.append(current_callback().may_run_long()))
        settle(pool)
        assert answers == [True]
        assert pool.statistics().workers == 2

    def test_false_on_a_pool_of_one(self, single: ThreadPool) -> None:
        """FALSE on a pool with a maximum of 1."""
        answers: list[bool] = []
        single.submit(lambda: answers.append(current_callback().may_run_long()))
        settle(single)
        assert answers == [False]

    def test_false_on_a_full_pool_though_it_runs_without_a_slot(self, single: ThreadPool) -> None:
        """The answer is FALSE on a full pool, too, if the callback has lost its slot to others, or is known as long."""
        gate, answers = Gate(), Recorder()

        def overrun() -> None:
            gate.pass_through()
            answers(current_callback().may_run_long())

        single.submit(overrun)
        gate.wait_for_arrivals()
        single.submit(int)
        wait_until(lambda: single.statistics().off_slot == 1)
        gate.open()
        settle(single)
        assert answers.calls == [(False,)]
        assert single.statistics().off_slot == 0

        def compute() -> None:
            away = single.statistics().off_slot
            end = time.monotonic() + 0.001
            while time.monotonic() < end:
                pass
            answers(current_callback().may_run_long(), away)

        with Work(compute, pool=single) as work:
            for _ in range(6):
                work.submit()
                assert work.wait(LIMIT)
        assert not any(answer for answer, *_ in answers.calls)
        assert answers.calls[-1] == (False, 1)
        assert single.statistics().off_slot == 0

    def test_true_though_it_runs_without_a_slot(self) -> None:
        """The answer is TRUE, and a worker is started, if there may be another one."""
        with Executor(2) as executor:
            assert executor.submit(lambda: current_callback().may_run_long()).result(LIMIT)
            assert executor.statistics().workers == 2

    def test_it_counts_as_long_in_both_cases(self, single: ThreadPool) -> None:
        """The callback counts as long even if the answer is FALSE."""
        blocker = Blocker()

        def long() -> None:
            current_callback().may_run_long()
            blocker()

        single.submit(long)
        blocker.wait_until_running()
        assert single.statistics().off_slot == 1
        blocker.release()
        settle(single)
        assert single.statistics().off_slot == 0

    def test_others_run_meanwhile(self, pool: ThreadPool) -> None:
        """A callback that said it runs long holds no other up."""
        blocker, recorder = Blocker(), Recorder()

        def long() -> None:
            current_callback().may_run_long()
            blocker()

        pool.submit(long)
        blocker.wait_until_running()
        pool.submit(recorder)
        recorder.wait_for(1)
        blocker.release()

    def test_saying_it_twice_is_harmless(self, single: ThreadPool) -> None:
        """Said again, the answer is TRUE and nothing is counted twice."""
        answers: list[bool] = []

        def twice() -> None:
            answers.extend(current_callback().may_run_long() for _ in range(2))

        single.submit(twice)
        settle(single)
        assert answers == [False, True]
        assert single.statistics().off_slot == 0

    def test_a_runs_long_environment_answers_true(self, single: ThreadPool) -> None:
        """In an environment marked runs-long the answer is TRUE and nothing is started."""
        answers: list[bool] = []
        environment = Environment(pool=single, runs_long=True)
        submit_callback(lambda: answers.append(current_callback().may_run_long()), environment=environment)
        settle(single)
        assert answers == [True]
        assert single.statistics().workers == 1

    def test_runs_long_callbacks_start_without_a_slot(self, pool: ThreadPool) -> None:
        """Callbacks of a runs-long environment run side by side from the first one on."""
        blocker = Blocker()
        with Work(blocker, environment=Environment(pool=pool, runs_long=True)) as work:
            for _ in range(5):
                work.submit()
            blocker.wait_until_running(5)
            assert pool.statistics().off_slot == 5
            blocker.release()


class TestClose:
    """Section 4, CloseThreadpool, and stopping, which Windows does not have."""

    def test_close_returns_at_once_and_queued_callbacks_run(self) -> None:
        """Closing returns at once; what is queued still runs; the threads leave after that."""
        pool = ThreadPool(1, 1)
        blocker, recorder = occupy(pool), Recorder()
        pool.submit(recorder)
        pool.close()
        assert pool.closed
        blocker.release()
        recorder.wait_for(1)
        wait_until(lambda: not pool.statistics().workers)

    def test_submitting_to_a_closed_pool_is_refused(self) -> None:
        """After the close submitting, arming and setting limits are refused with 6."""
        pool = ThreadPool()
        work, timer = Work(print, pool=pool), Timer(print, pool=pool)
        pool.close()
        for call in (
            lambda: pool.submit(print), work.submit, lambda: timer.set(1), lambda: pool.set_minimum(1),
            lambda: pool.set_maximum(1),
        ):  # fmt: skip
            with pytest.raises(InvalidHandle) as refused:
                call()
            assert refused.value.status == 6
        work.close()
        timer.close()

    def test_an_armed_timer_fires_after_the_close(self, clock: ManualClock) -> None:
        """The pool goes when its last object goes: what was armed before the close still fires."""
        recorder = Recorder()
        pool = ThreadPool()
        timer = Timer(recorder, pool=pool, clock=clock)
        timer.set(1)
        pool.close()
        clock.advance(1)
        recorder.wait_for(1)
        timer.close()
        assert pool.stop(LIMIT)

    def test_closing_twice_does_nothing(self) -> None:
        """Closing and stopping again does nothing."""
        pool = ThreadPool(1)
        pool.close()
        pool.close()
        assert pool.stop(LIMIT)
        assert pool.stop(LIMIT)

    def test_stop_runs_what_is_queued(self) -> None:
        """Stopping runs what is queued, and returns when all threads have ended."""
        pool, recorder = ThreadPool(1, 1), Recorder()
        for _ in range(100):
            pool.submit(recorder)
        assert pool.stop(LIMIT)
        assert recorder.count == 100
        assert not any(thread.is_alive() for thread in recorder.threads)

    def test_stop_can_discard_what_is_queued(self) -> None:
        """Stopping with cancel discards what is queued and waits for what runs."""
        pool, recorder = ThreadPool(1, 1), Recorder()
        blocker = occupy(pool)
        pool.submit(recorder)
        stopper = in_thread(lambda: pool.stop(LIMIT, cancel_pending=True))
        wait_until(lambda: pool.statistics().discarded)
        blocker.release()
        joined(stopper)
        assert recorder.count == 0

    def test_stop_ends_within_its_limit(self) -> None:
        """Stopping ends when the time is up: what is queued is discarded, what runs is left alone."""
        pool, recorder = ThreadPool(1, 1), Recorder()
        blocker = occupy(pool)
        pool.submit(recorder)
        assert not pool.stop(0.05)
        assert pool.statistics().discarded == 1
        blocker.release()
        assert pool.stop(LIMIT)
        assert recorder.count == 0

    def test_stop_disarms_objects(self, clock: ManualClock) -> None:
        """Stopping disarms the pool's timers and waits: a signal that comes later stays in its object."""
        recorder = Recorder()
        with ThreadPool() as pool, Event() as event:
            from engine import Wait

            timer, wait = Timer(recorder, pool=pool, clock=clock), Wait(recorder, pool=pool)
            timer.set(1)
            wait.set(event)
            assert pool.stop(LIMIT)
            clock.advance(2)
            event.set()
            assert event.is_signaled()
            timer.close()
            wait.close()
        assert recorder.count == 0

    def test_a_callback_cannot_stop_its_own_pool(self, pool: ThreadPool) -> None:
        """Stopping a pool from its own callback raises, since it would wait for itself."""
        caught: list[Deadlock] = []

        def stop() -> None:
            with pytest.raises(Deadlock) as refused:
                pool.stop()
            caught.append(refused.value)

        pool.submit(stop)
        settle(pool)
        assert [error.status for error in caught] == [1131]

    def test_leaving_the_with_block_stops(self) -> None:
        """A pool as a context manager is stopped at the end of the block."""
        recorder = Recorder()
        with ThreadPool() as pool:
            pool.submit(recorder)
        assert recorder.count == 1
        assert pool.closed
        assert not pool.statistics().workers

    def test_a_dropped_pool_is_reported_and_ends(self) -> None:
        """A pool that is dropped open is a ResourceWarning, and its threads leave."""
        pool = ThreadPool(2, name="dropped")
        before = {thread for thread in threading.enumerate() if "dropped" in thread.name}
        assert len(before) == 2
        with pytest.warns(ResourceWarning, match="dropped"):
            del pool
        wait_until(lambda: not any(thread.is_alive() for thread in before))


class TestDefaultPool:
    """Sections 1 and 2: the process default pool."""

    def test_there_is_one(self) -> None:
        """The process has one default pool, which objects use that name no other."""
        assert default_pool() is default_pool()
        with Work(print) as work:
            assert work.pool is default_pool()

    def test_it_is_not_closed(self) -> None:
        """The default pool cannot be closed or stopped."""
        for call in (default_pool().close, default_pool().stop):
            with pytest.raises(InvalidState):
                call()


class TestFullQueue:
    """Section 12: a bounded queue and what a submission does when it is full."""

    def test_reject(self) -> None:
        """Under "reject" a submission to a full queue raises 1816 and queues nothing."""
        with ThreadPool(1, 1, queue_limit=2, policy="reject") as pool:
            blocker = occupy(pool)
            recorder = Recorder()
            with Work(recorder, pool=pool) as work:
                pool.submit(recorder)
                work.submit()
                calls: list[Callable[[], object]] = [lambda: pool.submit(recorder), work.submit]
                for call in calls:
                    with pytest.raises(QueueFull) as refused:
                        call()
                    assert refused.value.status == 1816
                assert pool.statistics().queued == 2
                blocker.release()
        assert recorder.count == 2

    def test_block(self) -> None:
        """Under "block" a submission to a full queue waits for room."""
        with ThreadPool(1, 1, queue_limit=1) as pool:
            blocker, recorder = occupy(pool), Recorder()
            pool.submit(recorder, 1)
            submitter = in_thread(lambda: pool.submit(recorder, 2))
            wait_until_blocked(submitter)
            assert pool.statistics().queued == 1
            blocker.release()
            joined(submitter)
        assert recorder.calls == [(1,), (2,)]

    def test_block_ends_when_the_pool_closes(self) -> None:
        """A submission that waits for room is refused when the pool is closed."""
        with ThreadPool(1, 1, queue_limit=1) as pool:
            blocker, refusals = occupy(pool), Recorder()
            pool.submit(print)

            def submit() -> None:
                with pytest.raises(InvalidHandle):
                    pool.submit(print)
                refusals()

            submitter = in_thread(submit)
            wait_until_blocked(submitter)
            pool.close()
            joined(submitter)
            blocker.release()
        assert refusals.count == 1

    def test_block_ends_when_the_object_closes(self) -> None:
        """A submission that waits for room is refused if its object was closed, or its group released, meanwhile."""
        recorder, cancelled = Recorder(), Recorder()
        with ThreadPool(1, 1, queue_limit=1) as pool:
            blocker, group = occupy(pool), CleanupGroup()
            environment = Environment(pool=pool, cleanup_group=group, cancel_callback=cancelled)
            work = Work(recorder, environment=environment)
            pool.submit(int)
            refusals = Recorder()

            def refused(submit: Callable[[], None]) -> None:
                with pytest.raises(InvalidHandle):
                    submit()
                refusals()

            submitters = [
                in_thread(partial(refused, submit))
                for submit in (work.submit, lambda: submit_callback(recorder, environment=environment))
            ]
            for submitter in submitters:
                wait_until_blocked(submitter)
            group.close_members(True)
            assert cancelled.count == 2
            blocker.release()
            for submitter in submitters:
                joined(submitter)
        assert refusals.count == 2
        assert recorder.count == 0

    def test_many_blocked_submitters_all_get_through(self) -> None:
        """Many threads that block on a full queue all get their callbacks in."""
        recorder = Recorder()
        with ThreadPool(1, 1, queue_limit=2) as pool:
            threads = [in_thread(lambda: [pool.submit(recorder) for _ in range(100)]) for _ in range(4)]
            for thread in threads:
                joined(thread)
        assert recorder.count == 400

    def test_discarding_makes_room(self) -> None:
        """Each callback that is discarded leaves its place to a thread that blocks."""
        with ThreadPool(1, 1, queue_limit=3) as pool, Work(print, pool=pool) as work:
            blocker, recorder = occupy(pool), Recorder()
            for _ in range(3):
                work.submit()
            submitters = [in_thread(lambda: pool.submit(recorder)) for _ in range(3)]
            for submitter in submitters:
                wait_until_blocked(submitter)
            assert work.wait(0, cancel_pending=True)
            for submitter in submitters:
                wait_until(lambda: not submitter.is_alive(), LIMIT)  # noqa: B023  # called in this turn
            blocker.release()
        assert recorder.count == 3

    def test_room_that_is_not_used_goes_to_the_next(self) -> None:
        """A thread that is woken for room and refused, since its object was closed, leaves it to the next one."""
        recorder = Recorder()
        with ThreadPool(1, 1, queue_limit=1) as pool:
            first, second, work = occupy(pool), Blocker(), Work(recorder, pool=pool)
            pool.submit(second)

            def submit() -> None:
                with pytest.raises(InvalidHandle):
                    work.submit()

            submitters = []
            for call in (submit, lambda: pool.submit(recorder, "next")):
                submitters.append(in_thread(call))
                wait_until_blocked(submitters[-1])
            work.close()
            first.release()
            for submitter in submitters:
                wait_until(lambda: not submitter.is_alive(), LIMIT)  # noqa: B023  # called in this turn
            second.release()
        assert recorder.calls == [("next",)]

    def test_room_that_an_idle_worker_makes(self) -> None:
        """A callback that an idle worker is handed leaves its place to a thread that blocks."""
        recorder = Recorder()
        with ThreadPool(2, 2, queue_limit=1) as pool:
            settle(pool)
            first, second = occupy(pool), Blocker()
            pool.submit(second)
            submitter = in_thread(lambda: pool.submit(recorder))
            second.wait_until_running()
            wait_until(lambda: not submitter.is_alive(), LIMIT)
            first.release()
            second.release()
        assert recorder.count == 1

    def test_a_callback_does_not_block_on_its_own_pool(self, errors: list[tuple[BaseException, object]]) -> None:
        """A callback that finds its own pool's queue full gets QueueFull: waiting might never end."""
        recorder, gate = Recorder(), Gate()
        with ThreadPool(1, 1, queue_limit=1) as pool:

            def submit() -> None:
                gate.pass_through()
                with pytest.raises(QueueFull):
                    pool.submit(recorder)
                recorder("refused")

            pool.submit(submit)
            gate.wait_for_arrivals()
            pool.submit(recorder)
            gate.open()
            recorder.wait_for(2)
        assert ("refused",) in recorder.calls

    def test_caller_runs(self) -> None:
        """Under "caller_runs" a submission to a full queue runs on the submitting thread."""
        recorder = Recorder()
        with ThreadPool(1, 1, queue_limit=1, policy="caller_runs") as pool:
            blocker = occupy(pool)
            pool.submit(recorder)
            pool.submit(recorder)
            with Work(recorder, pool=pool) as work:
                work.submit()
                assert work.statistics().started == 1
            assert recorder.threads == [threading.current_thread()] * 2
            blocker.release()
        assert recorder.count == 3

    def test_waiting_for_what_the_caller_runs(self) -> None:
        """A wait for the callbacks of an object ends when the last of them ends on its submitter's thread."""
        blocker = Blocker()
        with ThreadPool(1, 1, queue_limit=1, policy="caller_runs") as pool, Work(blocker, pool=pool) as work:
            busy = occupy(pool)
            pool.submit(int)
            submitter = in_thread(work.submit)
            blocker.wait_until_running()
            waiter = in_thread(work.wait)
            wait_until_blocked(work)
            blocker.release()
            joined(waiter)
            joined(submitter)
            busy.release()

    def test_post_is_not_limited(self) -> None:
        """`post`, the lean way in, does not know the limit."""
        recorder = Recorder()
        with ThreadPool(1, 1, queue_limit=1, policy="reject") as pool:
            blocker = occupy(pool)
            for _ in range(10):
                pool.post(recorder)
            blocker.release()
        assert recorder.count == 10

    def test_unknown_policies_are_refused(self) -> None:
        """A policy that does not exist is refused."""
        with pytest.raises(InvalidParameter):
            ThreadPool(policy="drop")  # type: ignore[arg-type]  # wrong on purpose


def test_workers_that_die_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callbacks run though every worker dies as it becomes idle, and though the monitor cannot be told of the pool."""

    def refuse() -> None:
        raise MemoryError

    with ThreadPool(0, 1) as pool:
        monkeypatch.setattr("engine.pool.dispatch.driver", refuse)
        for _ in range(3):
            ran = threading.Event()
            pool.submit(ran.set)
            assert ran.wait(LIMIT)
            wait_until(lambda: pool.statistics().workers == 0)
        monkeypatch.undo()
        ran = threading.Event()
        pool.submit(ran.set)
        assert ran.wait(LIMIT)


def test_a_minimum_that_was_refused(pool: ThreadPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads up to the minimum, which the system refused to start, are started later, though nothing is queued."""
    with monkeypatch.context() as refusing:

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        refusing.setattr(threading.Thread, "start", refuse)
        assert not pool.set_minimum(2)
    wait_until(lambda: pool.statistics().workers == 2)


def test_an_interrupt_just_before_a_thread_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that was not started for an interrupt is none of the pool's: the pool stops as ever."""
    with monkeypatch.context() as patch, ThreadPool() as pool:

        def interrupted(thread: threading.Thread) -> None:
            raise KeyboardInterrupt

        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.submit(int)
        patch.undo()
        assert pool.stop(LIMIT)
