"""Dispatch: order, priorities, fairness, parallelism."""

import threading

import pytest

from engine import (
    CompletionPort,
    Environment,
    InvalidArgumentType,
    InvalidHandle,
    InvalidParameter,
    Priority,
    ThreadPool,
    WaitTimeout,
    Work,
    blocking,
    current_callback,
    submit_callback,
)
from engine.testing import LIMIT, wait_until

from .helpers import Blocker, Recorder, occupy, settle


class TestObjects:
    """Section 1, objects: what can fail fails at creation, callbacks run on workers."""

    def test_a_simple_callback_runs_once_with_its_arguments(self, pool: ThreadPool) -> None:
        """A simple callback runs once, with the arguments given."""
        recorder = Recorder()
        pool.submit(recorder, 1, "two")
        recorder.wait_for(1)
        settle(pool)
        assert recorder.calls == [(1, "two")]

    def test_callbacks_run_on_workers(self, pool: ThreadPool) -> None:
        """Callbacks run on pool workers, never on the caller's thread."""
        recorder = Recorder()
        pool.submit(recorder)
        pool.post(recorder)
        with Work(recorder, pool=pool) as work:
            work.submit()
        recorder.wait_for(3)
        assert all(thread.name.startswith("engine:test-worker-") for thread in recorder.threads)

    def test_a_work_object_runs_once_for_each_submission(self, pool: ThreadPool) -> None:
        """Each submission of a work object gives one callback."""
        recorder = Recorder()
        with Work(recorder, "a", pool=pool) as work:
            for _ in range(3):
                work.submit()
            assert work.wait(LIMIT)
        assert recorder.calls == [("a",)] * 3

    def test_a_function_that_is_none_is_refused_at_creation(self, pool: ThreadPool) -> None:
        """What can fail because of an argument fails at creation."""
        with pytest.raises(InvalidArgumentType):
            Work(3, pool=pool)  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(InvalidArgumentType):
            pool.submit(None)  # type: ignore[arg-type]  # wrong on purpose

    def test_an_object_cannot_be_made_for_a_closed_pool(self) -> None:
        """Creating an object for a closed pool fails."""
        closed = ThreadPool()
        closed.close()
        with pytest.raises(InvalidHandle):
            Work(print, pool=closed)

    def test_a_pool_and_an_environment_are_not_given_both(self, pool: ThreadPool) -> None:
        """A pool beside an environment, which names one too, is refused."""
        with pytest.raises(InvalidParameter):
            Work(print, pool=pool, environment=Environment(pool=pool))


class TestOrder:
    """Section 3, dispatch order and parallelism."""

    def test_submissions_are_counted(self, single: ThreadPool) -> None:
        """Five submissions on a one-thread pool are five runs."""
        blocker = occupy(single)
        recorder = Recorder()
        with Work(recorder, pool=single) as work:
            for _ in range(5):
                work.submit()
            assert work.statistics().queued == 5
            blocker.release()
            assert work.wait(LIMIT)
        assert recorder.count == 5

    def test_callbacks_of_one_object_run_in_parallel(self, pool: ThreadPool) -> None:
        """Callbacks of one work object may run in parallel, up to the thread limit."""
        blocker = Blocker()
        with Work(blocker, pool=pool) as work:
            for _ in range(8):
                work.submit()
            blocker.wait_until_running(8)
            blocker.release()

    def test_one_thread_means_one_at_a_time(self, single: ThreadPool) -> None:
        """On a pool of one thread callbacks run one at a time."""
        running, most = 0, 0

        def count() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            running -= 1

        with Work(count, pool=single) as work:
            for _ in range(100):
                work.submit()
            assert work.wait(LIMIT)
        assert most == 1

    def test_simple_callbacks_start_in_order(self, single: ThreadPool) -> None:
        """Simple callbacks of one class start in the order of their submission."""
        recorder = Recorder()
        for number in range(50):
            single.submit(recorder, number)
        recorder.wait_for(50)
        assert recorder.calls == [(number,) for number in range(50)]

    def test_service_is_fair_across_objects(self, single: ThreadPool) -> None:
        """With ten posts of A ahead of ten of B, both have run after a few turns."""
        blocker = occupy(single)
        order: list[str] = []
        with Work(order.append, "A", pool=single) as first, Work(order.append, "B", pool=single) as second:
            for _ in range(10):
                first.submit()
            for _ in range(10):
                second.submit()
            blocker.release()
            assert first.wait(LIMIT)
            assert second.wait(LIMIT)
        assert order == ["A", "B"] * 10

    def test_a_late_object_gets_its_turn_at_once(self, single: ThreadPool) -> None:
        """An object that is submitted while another has many queued is served next, though they were fetched."""
        blocker = occupy(single)
        order: list[str] = []

        def submit_other() -> None:
            order.append("A")
            if len(order) == 5:
                second.submit()

        with Work(submit_other, pool=single) as first, Work(order.append, "B", pool=single) as second:
            for _ in range(20):
                first.submit()
            blocker.release()
            assert first.wait(LIMIT)
            assert second.wait(LIMIT)
        assert order.index("B") in (5, 6)

    def test_a_callback_may_submit_its_own_object(self, single: ThreadPool) -> None:
        """A callback may submit any object, its own included."""
        runs = 0

        def again() -> None:
            nonlocal runs
            runs += 1
            if runs < 5:
                work.submit()

        with Work(again, pool=single) as work:
            work.submit()
            assert work.wait(LIMIT)
        assert runs == 5

    def test_a_callback_may_create_and_close_objects(self, pool: ThreadPool) -> None:
        """A callback may create, submit and close any object, its own included."""
        recorder = Recorder()

        def make() -> None:
            inner = Work(recorder, pool=pool)
            inner.submit()
            inner.close()
            outer.close()

        outer = Work(make, pool=pool)
        outer.submit()
        recorder.wait_for(1)
        settle(pool)
        assert outer.closed


class TestPriority:
    """Section 2, priority: strict at dispatch, nothing is preempted."""

    def test_a_free_worker_takes_the_highest_class_first(self, single: ThreadPool) -> None:
        """A free worker takes the highest non-empty class first."""
        blocker = occupy(single)
        order: list[str] = []
        for name, priority in (("low", Priority.LOW), ("normal", Priority.NORMAL), ("high", Priority.HIGH)):
            environment = Environment(pool=single, priority=priority)
            for _ in range(3):
                submit_callback(order.append, name, environment=environment)
        blocker.release()
        settle(single)
        assert order == ["high"] * 3 + ["normal"] * 3 + ["low"] * 3

    @pytest.mark.parametrize("priority", [Priority.HIGH, Priority.LOW])
    def test_one_that_comes_late_takes_its_place(self, single: ThreadPool, priority: Priority) -> None:
        """High goes before normal ones that a worker has fetched already, low behind them."""
        blocker = occupy(single)
        order: list[str] = []

        def normal() -> None:
            order.append("normal")
            if len(order) == 1:
                late.submit()

        with (
            Work(normal, pool=single) as work,
            Work(order.append, "late", environment=Environment(pool=single, priority=priority)) as late,
        ):
            for _ in range(5):
                work.submit()
            blocker.release()
            assert work.wait(LIMIT)
            assert late.wait(LIMIT)
        assert order.index("late") == (1 if priority is Priority.HIGH else 5)

    def test_another_priority_is_refused(self, single: ThreadPool) -> None:
        """A priority that does not exist fails the creation with 87."""
        with pytest.raises(InvalidParameter) as refused:
            Work(print, environment=Environment(pool=single, priority=10))
        assert refused.value.status == 87

    def test_high_normal_and_low_are_0_1_and_2(self) -> None:
        """The priorities have the numbers 0, 1, 2."""
        assert [int(each) for each in (Priority.HIGH, Priority.NORMAL, Priority.LOW)] == [0, 1, 2]


class TestSlots:
    """Sections 4 and 12: who blocks gives its slot back."""

    def test_quick_callbacks_share_one_thread(self, pool: ThreadPool) -> None:
        """Callbacks that are quick run on one thread, however many are queued."""
        recorder = Recorder()
        with Work(recorder, pool=pool) as work:
            for _ in range(1000):
                work.submit()
            assert work.wait(LIMIT)
        assert pool.statistics().workers <= 2
        assert recorder.count == 1000

    def test_a_blocking_scope_lets_the_next_callback_run(self, pool: ThreadPool) -> None:
        """Inside `blocking()` the slot is another callback's."""
        both = threading.Barrier(2)

        def meet() -> None:
            with blocking():
                both.wait(LIMIT)

        pool.submit(meet)
        pool.submit(meet)
        settle(pool)
        assert not both.broken

    def test_a_blocking_scope_lets_fetched_callbacks_go(self, pool: ThreadPool) -> None:
        """What a worker fetched together with a callback that blocks runs elsewhere meanwhile."""
        pool.set_maximum(2)
        first, second = occupy(pool), occupy(pool)
        both = threading.Barrier(2)

        def meet() -> None:
            with blocking():
                both.wait(LIMIT)

        with Work(meet, pool=pool) as work:
            for _ in range(4):
                work.submit()
            first.release()
            second.release()
            assert work.wait(LIMIT)
        assert not both.broken

    def test_an_overrun_lets_fetched_callbacks_go(self, pool: ThreadPool) -> None:
        """The same where the callback blocks unseen, and nothing else is queued."""
        blocker, meeting = occupy(pool), threading.Barrier(3)
        with Work(meeting.wait, 10, pool=pool) as work:
            for _ in range(3):
                work.submit()
            blocker.release()
            assert work.wait(LIMIT)
        assert not meeting.broken

    def test_what_is_long_stays_long_when_a_scope_ends(self, pool: ThreadPool) -> None:
        """A callback that says it runs long inside a `blocking()` scope takes no slot when it leaves the scope."""
        blocker = Blocker()

        def body() -> None:
            with blocking():
                current_callback().may_run_long()
            blocker()

        pool.submit(body)
        blocker.wait_until_running()
        assert pool.statistics().running == 0
        blocker.release()
        settle(pool)
        assert pool.statistics().off_slot == 0

    def test_a_library_wait_lets_the_next_callback_run(self, pool: ThreadPool) -> None:
        """A callback that waits for another object lets that one's callback run."""
        recorder = Recorder()
        with Work(recorder, pool=pool) as inner:

            def outer() -> None:
                inner.submit()
                assert inner.wait(LIMIT)
                recorder("outer")

            pool.submit(outer)
            recorder.wait_for(2)
        assert recorder.calls == [(), ("outer",)]

    def test_a_stalled_queue_gets_another_thread(self, pool: ThreadPool, errors: list[object]) -> None:
        """A callback that blocks unseen while others are queued loses its slot to them."""
        blocker = Blocker()
        recorder = Recorder()
        pool.submit(blocker)
        pool.submit(recorder)
        recorder.wait_for(1)
        blocker.release()
        settle(pool)
        assert pool.statistics().workers == 2
        assert not errors

    def test_the_slow_scope_gives_the_slot_away(self, pool: ThreadPool) -> None:
        """Inside `pool.slow()` others run, and the slot stays theirs until the callback returns."""
        blocker, recorder = Blocker(), Recorder()

        def slowly() -> None:
            with pool.slow():
                pass
            blocker()

        pool.submit(slowly)
        blocker.wait_until_running()
        assert pool.statistics().running == 0
        assert pool.statistics().off_slot == 1
        pool.submit(recorder)
        recorder.wait_for(1)
        blocker.release()
        settle(pool)
        assert pool.statistics().off_slot == 0

    def test_a_dequeue_from_a_port_inside_a_callback_keeps_the_pool_going(self, single: ThreadPool) -> None:
        """A callback may take from a completion port of its own; its worker comes back to the pool."""
        recorder = Recorder()
        with CompletionPort(1) as port:

            def take() -> None:
                port.post(7)
                recorder(port.get(1).key)

            single.submit(take)
            single.submit(recorder, "next")
            recorder.wait_for(2)
        assert recorder.calls == [(7,), ("next",)]

    def test_the_slot_of_another_port_is_not_the_pools(self, pool: ThreadPool) -> None:
        """A callback that has taken from a port has its slot there: the pool takes none from it when it overruns."""
        taken, blocker, recorder = Blocker(), Blocker(), Recorder()
        with CompletionPort() as port:

            def take() -> None:
                with pytest.raises(WaitTimeout):
                    port.get(0)
                taken()

            pool.submit(take)
            taken.wait_until_running()
            pool.submit(blocker)
            blocker.wait_until_running()
            pool.submit(recorder)
            recorder.wait_for(1)  # The monitor has taken the slot from a callback that overran.
            assert (pool.statistics().running, pool.statistics().off_slot) == (0, 1)
            taken.gate.open()
            blocker.gate.open()
            wait_until(lambda: pool.statistics().idle == pool.statistics().workers)
            assert (pool.statistics().running, pool.statistics().off_slot) == (0, 0)
