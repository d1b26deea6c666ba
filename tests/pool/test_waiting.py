"""Waiting for an object's callbacks, and closing it."""

import contextvars
import gc

import pytest

from engine import (
    Deadlock,
    Event,
    InvalidArgumentType,
    InvalidHandle,
    InvalidParameter,
    ThreadPool,
    Timer,
    Wait,
    Work,
    current_callback,
)
from engine.testing import LIMIT, Gate, ManualClock, wait_until, wait_until_blocked

from .helpers import Blocker, Recorder, in_thread, joined, occupy, settle


class TestWait:
    """Section 5, WaitFor...Callbacks."""

    def test_an_idle_object_is_not_waited_for(self, pool: ThreadPool) -> None:
        """With nothing outstanding the wait returns at once."""
        with Work(print, pool=pool) as work:
            assert work.wait(0)

    def test_queued_and_running_callbacks_are_waited_for(self, single: ThreadPool) -> None:
        """Without cancel the wait is for queued and for running callbacks."""
        blocker, recorder = occupy(single), Recorder()
        with Work(recorder, pool=single) as work:
            work.submit()
            work.submit()
            assert not work.wait(0)
            assert not work.wait(0.01)
            blocker.release()
            assert work.wait(LIMIT)
            assert recorder.count == 2

    def test_cancel_discards_what_is_queued(self, single: ThreadPool) -> None:
        """With cancel queued callbacks are discarded and counted."""
        blocker, recorder = occupy(single), Recorder()
        with Work(recorder, pool=single) as work:
            for _ in range(3):
                work.submit()
            assert work.wait(LIMIT, cancel_pending=True)
            seen = work.statistics()
            assert (seen.total, seen.started, seen.discarded) == (3, 0, 3)
            blocker.release()
            settle(single)
        assert recorder.count == 0

    def test_cancel_waits_for_what_runs(self, pool: ThreadPool) -> None:
        """Cancel never interrupts a running callback, it waits for it."""
        blocker = Blocker()
        with Work(blocker, pool=pool) as work:
            work.submit()
            blocker.wait_until_running()
            assert not work.wait(0, cancel_pending=True)
            blocker.release()
            assert work.wait(LIMIT, cancel_pending=True)

    def test_cancel_reaches_what_a_worker_has_fetched(self, single: ThreadPool) -> None:
        """Of many queued callbacks all that have not begun are discarded, those that a worker fetched included."""
        blocker, gate, recorder = occupy(single), Gate(), Recorder()

        def first_stops() -> None:
            recorder()
            if recorder.count == 1:
                gate.pass_through()

        with Work(first_stops, pool=single) as work:
            for _ in range(20):
                work.submit()
            blocker.release()
            gate.wait_for_arrivals()
            assert not work.wait(0, cancel_pending=True)
            gate.open()
            assert work.wait(LIMIT)
            seen = work.statistics()
        assert (seen.started, seen.discarded) == (recorder.count, 20 - recorder.count)
        assert recorder.count == 1

    def test_a_discarded_object_can_be_submitted_again(self, single: ThreadPool) -> None:
        """After a cancel the object works as before."""
        blocker, recorder = occupy(single), Recorder()
        with Work(recorder, pool=single) as work:
            work.submit()
            assert work.wait(LIMIT, cancel_pending=True)
            work.submit()
            blocker.release()
            assert work.wait(LIMIT)
        assert recorder.count == 1

    def test_an_armed_timer_is_not_waited_for(self, pool: ThreadPool, clock: ManualClock) -> None:
        """Waiting on an armed, not yet due timer returns at once; with cancel it stays armed."""
        recorder = Recorder()
        with Timer(recorder, pool=pool, clock=clock) as timer:
            timer.set(1)
            assert timer.wait(0)
            assert timer.wait(0, cancel_pending=True)
            clock.advance(1)
            recorder.wait_for(1)

    def test_a_periodic_timer_keeps_ticking_after_cancel(self, pool: ThreadPool, clock: ManualClock) -> None:
        """Cancel does not disarm: a periodic timer goes on."""
        recorder = Recorder()
        with Timer(recorder, pool=pool, clock=clock) as timer:
            timer.set(1, 1)
            clock.advance(1)
            timer.wait(LIMIT, cancel_pending=True)
            before = recorder.count
            clock.advance(1)
            recorder.wait_for(before + 1)

    def test_a_registered_wait_fires_after_cancel(self, pool: ThreadPool) -> None:
        """Cancel does not unregister: a wait armed before it still fires."""
        recorder = Recorder()
        with Event() as event, Wait(recorder, pool=pool) as wait:
            wait.set(event)
            assert wait.wait(0)
            assert wait.wait(0, cancel_pending=True)
            event.set()
            recorder.wait_for(1)

    def test_a_discarded_callback_of_a_wait_loses_its_signal(self, single: ThreadPool) -> None:
        """The signal was consumed when the wait was satisfied; discarding the callback loses it."""
        blocker, recorder = occupy(single), Recorder()
        with Event() as event, Wait(recorder, pool=single) as wait:
            wait.set(event)
            event.set()
            assert wait.wait(LIMIT, cancel_pending=True)
            assert not event.is_signaled()
            blocker.release()
            settle(single)
        assert recorder.count == 0

    def test_disarm_wait_cancel_is_final(self, pool: ThreadPool, clock: ManualClock) -> None:
        """After disarm and wait with cancel no callback of the object runs again."""
        recorder = Recorder()
        with Timer(recorder, pool=pool, clock=clock) as timer:
            timer.set(0.001, 0.001)
            clock.advance(0.05)
            timer.set(None)
            assert timer.wait(LIMIT, cancel_pending=True)
            count = recorder.count
            clock.advance(1)
            settle(pool)
            assert recorder.count == count

    def test_several_threads_may_wait(self, single: ThreadPool) -> None:
        """Several threads may wait for the same object; all are released."""
        blocker = occupy(single)
        with Work(print, pool=single) as work:
            work.submit()
            threads = [in_thread(lambda: work.wait(LIMIT)) for _ in range(4)]
            wait_until_blocked(work, 4)
            blocker.release()
            for thread in threads:
                joined(thread)

    def test_waiting_for_oneself_raises(self, pool: ThreadPool) -> None:
        """Waiting from inside the object's own callback raises 1131 instead of hanging."""
        caught: list[Deadlock] = []

        def wait_for_myself() -> None:
            with pytest.raises(Deadlock) as refused:
                work.wait()
            caught.append(refused.value)

        with Work(wait_for_myself, pool=pool) as work:
            work.submit()
            assert work.wait(LIMIT)
        assert [error.status for error in caught] == [1131]

    def test_a_callback_that_disassociated_may_wait_for_its_object(self, pool: ThreadPool) -> None:
        """Waiting for one's own object is possible after disassociating."""
        recorder = Recorder()

        def wait_for_myself() -> None:
            current_callback().disassociate()
            recorder(work.wait(LIMIT))

        work = Work(wait_for_myself, pool=pool)
        work.submit()
        recorder.wait_for(1)
        assert recorder.calls == [(True,)]
        work.close()

    def test_a_callback_may_wait_for_another_object(self, pool: ThreadPool) -> None:
        """A callback may wait for another object of its pool."""
        recorder = Recorder()
        with Work(recorder, pool=pool) as other:

            def wait() -> None:
                other.submit()
                other.wait(LIMIT)

            with Work(wait, pool=pool) as work:
                work.submit()
                assert work.wait(LIMIT)
        assert recorder.count == 1

    def test_negative_timeouts_are_refused(self, pool: ThreadPool) -> None:
        """A timeout that is negative, or no number, is refused."""
        with Work(print, pool=pool) as work:
            with pytest.raises(InvalidParameter):
                work.wait(-1)
            with pytest.raises(InvalidArgumentType):
                work.wait("1")  # type: ignore[arg-type]  # wrong on purpose


class TestClose:
    """Section 5, Close...; life of an object."""

    def test_queued_callbacks_run_after_the_close(self, single: ThreadPool) -> None:
        """Closing lets queued callbacks run."""
        blocker, recorder = occupy(single), Recorder()
        work = Work(recorder, pool=single)
        work.submit()
        work.submit()
        work.close()
        blocker.release()
        recorder.wait_for(2)

    def test_a_closed_object_is_refused(self, pool: ThreadPool) -> None:
        """Using an object after its close raises 6."""
        work, timer, wait = Work(print, pool=pool), Timer(print, pool=pool), Wait(print, pool=pool)
        with Event() as event:
            for each in (work, timer, wait):
                each.close()
                assert each.closed
            for call in (
                work.submit, work.wait, lambda: timer.set(1), lambda: timer.set(None), timer.wait,
                lambda: wait.set(event), lambda: wait.set(None), wait.wait,
            ):  # fmt: skip
                with pytest.raises(InvalidHandle) as refused:
                    call()
                assert refused.value.status == 6

    def test_closing_disarms(self, pool: ThreadPool, clock: ManualClock) -> None:
        """Closing disarms: no new callbacks come from timers and waits."""
        recorder = Recorder()
        with Event() as event:
            timer, wait = Timer(recorder, pool=pool, clock=clock), Wait(recorder, pool=pool)
            timer.set(1, 1)
            wait.set(event)
            timer.close()
            wait.close()
            clock.advance(5)
            event.set()
            assert event.is_signaled()
        settle(pool)
        assert recorder.count == 0

    def test_closing_in_the_own_callback_is_legal(self, pool: ThreadPool) -> None:
        """An object may be closed by its own callback; it lives until that ends."""
        recorder = Recorder()

        def close() -> None:
            work.close()
            recorder()

        work = Work(close, pool=pool)
        work.submit()
        recorder.wait_for(1)
        assert work.closed

    def test_closing_twice_does_nothing(self, pool: ThreadPool) -> None:
        """Closing again does nothing."""
        work = Work(print, pool=pool)
        work.close()
        work.close()

    def test_the_with_block_waits(self, single: ThreadPool) -> None:
        """Leaving the block waits for what was submitted."""
        recorder = Recorder()
        with Work(recorder, pool=single) as work:
            for _ in range(10):
                work.submit()
        assert recorder.count == 10
        assert work.closed

    def test_a_with_block_that_fails_discards(self, single: ThreadPool) -> None:
        """Leaving the block by an exception discards what is queued."""
        blocker, recorder = occupy(single), Recorder()
        with pytest.raises(KeyError), Work(recorder, pool=single) as work:
            work.submit()
            raise KeyError
        blocker.release()
        settle(single)
        assert recorder.count == 0

    def test_a_dropped_object_is_reported(self, pool: ThreadPool) -> None:
        """An object that is dropped open is a ResourceWarning."""
        work = Work(print, pool=pool)
        with pytest.warns(ResourceWarning, match="dropped"):
            del work
            gc.collect()

    def test_an_object_that_is_dropped_while_its_callback_runs(self, single: ThreadPool) -> None:
        """It is reported when its last callback returns, and the pool goes on."""
        blocker, recorder = Blocker(), Recorder()
        work = Work(blocker, pool=single)
        work.submit()
        blocker.wait_until_running()
        with pytest.warns(ResourceWarning, match="dropped"):
            del work
            blocker.release()
            single.submit(recorder)
            recorder.wait_for(1)
        settle(single)

    def test_finalizers_may_use_the_pool(self, single: ThreadPool) -> None:
        """What goes with an object's last callback, or one that is discarded, may use the pool in its finalizer."""
        recorder = Recorder()

        class Resource:
            def __del__(self) -> None:
                recorder(single.statistics())

        work = Work(lambda resource: None, Resource(), pool=single)
        work.submit()
        work.close()
        del work
        recorder.wait_for(1)
        blocker, variable = occupy(single), contextvars.ContextVar[Resource]("variable")

        def submit() -> None:
            variable.set(Resource())
            discarded.submit()

        with Work(print, pool=single) as discarded:
            contextvars.Context().run(submit)
            assert discarded.wait(LIMIT, cancel_pending=True)
        blocker.release()
        recorder.wait_for(2)

    def test_a_dropped_object_with_queued_callbacks_runs_them(self, single: ThreadPool) -> None:
        """Queued callbacks keep their object until they have run."""
        blocker, recorder = occupy(single), Recorder()
        work = Work(recorder, pool=single)
        work.submit()
        work.close()
        del work
        blocker.release()
        recorder.wait_for(1)


class TestErrors:
    """Section 12: a callback that raises."""

    def test_the_handler_is_told(self, pool: ThreadPool, errors: list[tuple[BaseException, object]]) -> None:
        """An exception goes to the pool's handler, with the object or the function it came from."""

        def fail() -> None:
            raise ValueError("no")

        with Work(fail, pool=pool) as work:
            work.submit()
            assert work.wait(LIMIT)
            pool.submit(fail)
            settle(pool)
            assert [(str(error), owner) for error, owner in errors] == [("no", work), ("no", fail)]
        assert pool.statistics().failures == 2

    @pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
    def test_no_exception_ends_the_worker(
        self, single: ThreadPool, errors: list[tuple[BaseException, object]], kind: type[BaseException]
    ) -> None:
        """Whatever a callback raises, the worker lives on."""
        recorder = Recorder()

        def fail() -> None:
            recorder()
            raise kind

        single.submit(fail)
        single.submit(recorder)
        recorder.wait_for(2)
        assert len(set(recorder.threads)) == 1
        assert isinstance(errors[0][0], kind)

    def test_a_handler_that_fails_is_survived(self, caplog: pytest.LogCaptureFixture) -> None:
        """An error handler that raises is logged and survived."""

        def handler(error: BaseException, owner: object) -> None:
            raise RuntimeError("handler")

        recorder = Recorder()
        with ThreadPool(on_error=handler) as pool:
            pool.submit(lambda: 1 / 0)
            pool.submit(recorder)
        assert recorder.count == 1
        assert "handler" in caplog.text

    def test_without_a_handler_it_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """By default an exception is logged under engine.pool."""
        with ThreadPool() as pool:
            pool.submit(lambda: 1 / 0)
        assert "ZeroDivisionError" in caplog.text
        assert caplog.records[0].name == "engine.pool"

    def test_a_failed_callback_counts_as_returned(self, pool: ThreadPool) -> None:
        """A callback that raised counts as returned."""
        with Work(lambda: 1 / 0, pool=pool) as work:
            work.submit()
            assert work.wait(LIMIT)
            assert work.statistics().running == 0
        wait_until(lambda: pool.statistics().failures == 1)
