"""The callback instance, and the callback environment."""

import contextvars
import threading
from typing import Any

import pytest

from engine import (
    CallbackInstance,
    CleanupGroup,
    Environment,
    Event,
    InvalidParameter,
    InvalidState,
    Mutex,
    Semaphore,
    ThreadPool,
    Timer,
    Work,
    current_callback,
    submit_callback,
)
from engine.testing import LIMIT, ManualClock

from .helpers import Blocker, Recorder, occupy, settle

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="none")


class TestInstance:
    """Section 8."""

    def test_there_is_none_outside_of_callbacks(self) -> None:
        """Outside of callbacks there is no instance."""
        with pytest.raises(InvalidState):
            current_callback()

    def test_it_knows_object_and_context(self, pool: ThreadPool) -> None:
        """The instance tells the object and its context."""
        seen: list[Any] = []

        def look() -> None:
            instance = current_callback()
            assert current_callback() is instance
            seen.extend([instance.source, instance.context])

        with Work(look, pool=pool, context="mine") as work:
            work.submit()
            assert work.wait(LIMIT)
            assert seen == [work, "mine"]

    def test_a_simple_callback_has_one(self, pool: ThreadPool) -> None:
        """A simple callback has an instance without an object."""
        seen: list[Any] = []
        pool.submit(lambda: seen.append(current_callback().source))
        pool.post(lambda: seen.append(current_callback().source))
        submit_callback(lambda: seen.append(current_callback().source), environment=Environment(pool=pool))
        settle(pool)
        assert seen == [None, None, None]

    def test_a_simple_callback_that_fails_is_known_by_its_function(
        self, single: ThreadPool, errors: list[tuple[BaseException, object]]
    ) -> None:
        """What a simple callback raises, and what is done when it returns, is reported with its function."""

        def fail() -> None:
            raise ValueError

        def succeed() -> None:
            current_callback().call_when_returns(fail)

        environment = Environment(pool=single)
        finalized = Environment(pool=single, finalization=lambda instance, context: fail())
        single.submit(succeed)
        submit_callback(succeed, environment=environment)
        submit_callback(fail, environment=environment)
        submit_callback(print, environment=finalized)
        settle(single)
        assert [owner for _, owner in errors] == [succeed, succeed, fail, print]

    def test_it_dies_with_the_callback(self, pool: ThreadPool) -> None:
        """The instance is dead once the callback has returned."""
        seen: list[CallbackInstance] = []
        pool.submit(lambda: seen.append(current_callback()))
        settle(pool)
        (instance,) = seen
        for call in (
            instance.may_run_long, instance.disassociate,
            lambda: instance.release_semaphore_when_returns(Semaphore(0, 1)),
        ):  # fmt: skip
            with pytest.raises(InvalidState):
                call()

    def test_other_threads_are_refused(self, pool: ThreadPool) -> None:
        """Calls from another thread are refused."""
        blocker = Blocker()
        seen: list[CallbackInstance] = []

        def look() -> None:
            seen.append(current_callback())
            blocker()

        pool.submit(look)
        blocker.wait_until_running()
        with pytest.raises(InvalidState):
            seen[0].may_run_long()
        blocker.release()

    def test_each_run_has_its_own(self, single: ThreadPool) -> None:
        """Each run of a callback has an instance of its own."""
        seen: list[CallbackInstance] = []
        with Work(lambda: seen.append(current_callback()), pool=single) as work:
            work.submit()
            work.submit()
            assert work.wait(LIMIT)
        assert seen[0] is not seen[1]


class TestDisassociate:
    """Section 8, DisassociateCurrentThreadFromCallback."""

    def test_waiters_are_released(self, pool: ThreadPool) -> None:
        """A callback that disassociated counts no longer for those who wait."""
        blocker = Blocker()

        def leave() -> None:
            current_callback().disassociate()
            current_callback().disassociate()  # Twice is harmless.
            blocker()

        with Work(leave, pool=pool) as work:
            work.submit()
            blocker.wait_until_running()
            assert work.wait(LIMIT)
            assert work.statistics().running == 1
            blocker.release()

    def test_only_the_one_that_disassociated_counts_less(self, single: ThreadPool) -> None:
        """Of callbacks that a worker runs one after the other, only the one that disassociated counts less."""
        blocker = occupy(single)
        with (
            Work(int, pool=single) as other,
            Work(lambda: current_callback().disassociate(), pool=single) as work,
        ):
            for _ in range(3):
                other.submit()
            work.submit()
            blocker.release()
            settle(single)
            for each in (other, work):
                assert each.wait(0)
                assert each.statistics().running == 0
            more = occupy(single)
            work.submit()
            other.submit()
            assert not work.wait(0)
            assert not other.wait(0)
            more.release()

    def test_a_waiting_thread_is_woken(self, pool: ThreadPool) -> None:
        """Disassociating releases threads that wait already."""
        go, blocker = threading.Event(), Blocker()

        def leave() -> None:
            go.wait(LIMIT)
            current_callback().disassociate()
            blocker()

        with Work(leave, pool=pool) as work:
            work.submit()
            timer = threading.Timer(0.02, go.set)
            timer.start()
            assert work.wait(LIMIT)
            blocker.release()
            timer.join()

    def test_the_group_still_counts_it(self, pool: ThreadPool) -> None:
        """A cleanup group still waits for a callback that disassociated."""
        order: list[str] = []
        blocker = Blocker()
        group = CleanupGroup()

        def leave() -> None:
            current_callback().disassociate()
            blocker()
            order.append("returned")

        work = Work(leave, environment=Environment(pool=pool, cleanup_group=group))
        work.submit()
        blocker.wait_until_running()
        assert work.wait(LIMIT)
        release = threading.Timer(0.02, blocker.release)
        release.start()
        group.close_members()
        order.append("released")
        assert order == ["returned", "released"]
        group.close()
        release.join()


class TestWhenReturns:
    """Section 8, when-returns actions and their order."""

    def test_the_order(self, pool: ThreadPool) -> None:
        """Body, finalization, lock, mutex, semaphore, event, function; then the waiters."""
        order: list[str] = []

        class Noting:
            def __init__(self, name: str) -> None:
                self.name = name

            def release(self, count: int = 1) -> None:
                order.append(self.name)

            def set(self) -> None:
                order.append(self.name)

        def body() -> None:
            instance = current_callback()
            instance.call_when_returns(lambda: order.append("function"))
            instance.set_event_when_returns(Noting("event"))
            instance.release_semaphore_when_returns(Noting("semaphore"))
            instance.release_mutex_when_returns(Noting("mutex"))
            instance.leave_when_returns(Noting("lock"))
            order.append("body")

        environment = Environment(pool=pool, finalization=lambda instance, context: order.append("finalization"))
        with Work(body, environment=environment) as work:
            work.submit()
            assert work.wait(LIMIT)
            order.append("waiter")
        assert order == [
            "body", "finalization", "lock", "mutex", "semaphore", "event", "function", "waiter",
        ]  # fmt: skip

    def test_the_objects_of_the_engine(self, pool: ThreadPool) -> None:
        """Event, semaphore, mutex and a lock are signaled and released on the worker after the callback."""
        semaphore, lock, mutex = Semaphore(0, 9), threading.RLock(), Mutex()
        with Event(True) as event:

            def body() -> None:
                instance = current_callback()
                lock.acquire()
                mutex.wait()
                instance.leave_when_returns(lock)
                instance.release_mutex_when_returns(mutex)
                instance.release_semaphore_when_returns(semaphore, 3)
                instance.set_event_when_returns(event)
                assert not event.is_signaled()

            with Work(body, pool=pool) as work:
                work.submit()
                assert work.wait(LIMIT)
            assert event.is_signaled()
        assert lock.acquire(timeout=LIMIT)
        assert mutex.wait(LIMIT)
        mutex.release()
        mutex.close()
        assert semaphore.release() == 3

    def test_the_first_of_a_kind_wins(self, pool: ThreadPool) -> None:
        """Of two registrations of one kind the first counts."""
        with Event(True) as first, Event(True) as second:

            def body() -> None:
                current_callback().set_event_when_returns(first)
                current_callback().set_event_when_returns(second)

            with Work(body, pool=pool) as work:
                work.submit()
            assert first.is_signaled()
            assert not second.is_signaled()

    def test_a_step_that_fails_skips_the_later_ones(
        self, pool: ThreadPool, errors: list[tuple[BaseException, object]]
    ) -> None:
        """A failing step is reported and skips the later ones."""
        with Event(True) as event:

            def body() -> None:
                current_callback().release_semaphore_when_returns(Semaphore(1, 1))
                current_callback().set_event_when_returns(event)

            with Work(body, pool=pool) as work:
                work.submit()
            assert not event.is_signaled()
        assert [type(error).__name__ for error, _ in errors] == ["LimitExceeded"]

    def test_a_finalization_that_fails_skips_them(
        self, pool: ThreadPool, errors: list[tuple[BaseException, object]]
    ) -> None:
        """A finalization callback that raises is reported, and the steps behind it are skipped."""
        environment = Environment(pool=pool, finalization=lambda instance, context: 1 / 0)
        with Event(True) as event:
            with Work(lambda: current_callback().set_event_when_returns(event), environment=environment) as work:
                work.submit()
            assert not event.is_signaled()
        assert [type(error) for error, _ in errors] == [ZeroDivisionError]

    def test_they_run_after_a_failure_too(self, pool: ThreadPool, errors: list[object]) -> None:
        """A callback that raises still has its when-returns actions run."""
        with Event(True) as event:

            def body() -> None:
                current_callback().set_event_when_returns(event)
                raise ValueError

            with Work(body, pool=pool) as work:
                work.submit()
            assert event.is_signaled()
        assert len(errors) == 1

    def test_the_event_is_seen_before_wait_returns(self, pool: ThreadPool) -> None:
        """A when-returns event is visible before the wait for the callback returns."""
        with Event(True) as event:
            with Work(lambda: current_callback().set_event_when_returns(event), pool=pool) as work:
                for _ in range(50):
                    event.reset()
                    work.submit()
                    assert work.wait(LIMIT)
                    assert event.is_signaled()

    def test_bad_counts_are_refused(self, pool: ThreadPool, errors: list[tuple[BaseException, object]]) -> None:
        """A semaphore count below 1 is refused at once."""
        pool.submit(lambda: current_callback().release_semaphore_when_returns(Semaphore(0, 1), 0))
        settle(pool)
        assert isinstance(errors[0][0], InvalidParameter)


class TestEnvironment:
    """Section 2."""

    def test_the_defaults(self) -> None:
        """Pool: the default; priority normal; the rest off or none."""
        environment = Environment()
        assert environment.pool is None
        assert environment.priority == 1
        assert not environment.runs_long
        assert not environment.persistent
        assert environment.cleanup_group is None
        assert environment.cancel_callback is None
        assert environment.finalization is None

    def test_later_changes_do_not_reach_objects(self, single: ThreadPool, pool: ThreadPool) -> None:
        """An environment is read at creation; later edits do not change objects made from it."""
        recorder = Recorder()
        environment = Environment(pool=single)
        with Work(recorder, environment=environment) as work:
            environment.pool = pool
            environment.finalization = lambda instance, context: recorder("finalized")
            work.submit()
            assert work.wait(LIMIT)
            assert work.pool is single
        assert recorder.calls == [()]

    def test_the_finalization_gets_instance_and_context(self, pool: ThreadPool) -> None:
        """The finalization callback runs on the worker after each callback, with its instance and context."""
        seen: list[Any] = []
        instances: list[CallbackInstance] = []
        environment = Environment(
            pool=pool,
            finalization=lambda instance, context: seen.append((instance, context, threading.current_thread().name)),
        )
        with Work(lambda: instances.append(current_callback()), environment=environment, context=7) as work:
            work.submit()
            work.submit()
            assert work.wait(LIMIT)
        assert [(instance, context) for instance, context, _ in seen] == [(each, 7) for each in instances]
        assert all(name.startswith("engine:test-worker") for _, _, name in seen)

    def test_a_simple_callback_is_finalized(self, pool: ThreadPool) -> None:
        """A simple callback has its finalization too."""
        seen: list[Any] = []
        environment = Environment(pool=pool, finalization=lambda instance, context: seen.append(context))
        submit_callback(print, environment=environment, context="simple")
        settle(pool)
        assert seen == ["simple"]

    def test_keep_alive_lives_as_long_as_the_object(self, pool: ThreadPool) -> None:
        """What is to be kept alive lives as long as the objects made from the environment."""
        import gc
        import weakref

        class Module:
            pass

        module = Module()
        gone = weakref.ref(module)
        environment = Environment(pool=pool, keep_alive=module)
        work = Work(print, environment=environment)
        del module, environment
        gc.collect()
        assert gone() is not None
        work.close()
        del work
        gc.collect()
        assert gone() is None

    def test_context_variables_travel(self, pool: ThreadPool, clock: ManualClock) -> None:
        """Callbacks see the context variables of whoever submitted or armed, each a copy of its own."""
        seen: list[str] = []

        def look() -> None:
            seen.append(VARIABLE.get())
            VARIABLE.set("changed")

        def submit() -> None:
            VARIABLE.set("mine")
            pool.submit(look)
            with Work(look, pool=pool) as work, Timer(look, pool=pool, clock=clock) as timer:
                work.submit()
                timer.set(1, 1)
                clock.advance(2)
                work.wait(LIMIT)
                timer.wait(LIMIT)
            assert VARIABLE.get() == "mine"

        contextvars.copy_context().run(submit)
        settle(pool)
        assert seen == ["mine"] * 4

    def test_context_variables_can_be_left_behind(self, pool: ThreadPool) -> None:
        """With `inherit_context` off, and by `post`, callbacks do not run in that of whoever submitted."""
        seen: list[str] = []

        def submit() -> None:
            VARIABLE.set("mine")
            pool.post(lambda: seen.append(VARIABLE.get()))
            submit_callback(
                lambda: seen.append(VARIABLE.get()), environment=Environment(pool=pool, inherit_context=False)
            )

        contextvars.copy_context().run(submit)
        settle(pool)
        assert seen == ["none", "none"]

    def test_bad_fields_are_refused_at_creation(self, pool: ThreadPool) -> None:
        """Fields are checked when an object is made."""
        for environment in (Environment(priority=3), Environment(priority=-1)):
            environment.pool = pool
            with pytest.raises(InvalidParameter):
                Work(print, environment=environment)

    def test_caller_runs_callbacks_have_an_instance(self) -> None:
        """A callback that runs on its submitter's thread has an instance as well."""
        with ThreadPool(1, 1, queue_limit=1, policy="caller_runs") as pool:
            blocker = occupy(pool)
            with Event(True) as event, Work(lambda: None, pool=pool) as filler:
                filler.submit()
                pool.submit(lambda: current_callback().set_event_when_returns(event))
                assert event.is_signaled()
                blocker.release()
