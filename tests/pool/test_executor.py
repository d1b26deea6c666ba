"""The executor."""

import asyncio
import contextvars
import gc
import importlib.util
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, Future, InvalidStateError, ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any, Literal

import pytest

from engine import Deadlock, Executor, InvalidParameter, Priority, QueueFull
from engine.testing import LIMIT, Gate, wait_until, wait_until_blocked

from .helpers import Blocker, in_thread, joined

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="none")


class TestStandard:
    """What the standard executor promises."""

    @pytest.mark.skipif(
        importlib.util.find_spec("test.test_concurrent_futures") is None
        or sys.version_info < (3, 12)
        or importlib.util.find_spec("test.test_concurrent_futures.test_thread_pool") is None,
        reason="this Python does not carry the tests of concurrent.futures as a package",
    )
    @pytest.mark.timeout(10 * LIMIT)
    def test_it_passes_the_standard_tests(self) -> None:
        """CPython's own tests of thread pools, waiting, completion and shutdown pass unchanged."""
        runner = Path(__file__).with_name("run_cpython_tests.py")
        done = subprocess.run([sys.executable, runner], capture_output=True, text=True, timeout=9 * LIMIT)
        assert done.returncode == 0, done.stderr
        assert "OK" in done.stderr

    def test_results_and_errors(self) -> None:
        """A future has the call's result, or what it raised."""
        with Executor(2) as executor:
            assert executor.submit(pow, 2, 8).result(LIMIT) == 256
            failed = executor.submit(divmod, 1, 0)
            with pytest.raises(ZeroDivisionError):
                failed.result(LIMIT)
            assert list(executor.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))

    def test_no_exception_of_a_call_is_reported_twice(self, caplog: pytest.LogCaptureFixture) -> None:
        """What a call raises goes to its future and nowhere else, `SystemExit` included."""
        with Executor(1) as executor:
            assert isinstance(executor.submit(sys.exit, 3).exception(LIMIT), SystemExit)
            assert executor.submit(int).result(LIMIT) == 0
        assert not caplog.records

    def test_it_is_a_thread_pool_executor(self) -> None:
        """It is a `ThreadPoolExecutor` to whoever asks."""
        with Executor(3) as executor:
            assert isinstance(executor, ThreadPoolExecutor)
            assert executor._max_workers == 3

    def test_it_shows_what_monitoring_looks_at(self) -> None:
        """Its threads, the length of its queue and its state are where the standard executor has them."""
        blocker = Blocker()
        with Executor(1) as executor:
            executor.submit(blocker)
            blocker.wait_until_running()
            for _ in range(3):
                executor.submit(int)
            assert executor._work_queue.qsize() == 3
            assert len(executor._threads) == 1
            assert not executor._broken and not executor._shutdown
            blocker.release()
        assert executor._work_queue.qsize() == 0
        assert executor._shutdown

    def test_futures_look_like_standard_ones(self) -> None:
        """A future's `repr`, and the error of a wrong transition, read as those of the standard library's."""
        with Executor(1) as executor:
            future = executor.submit(int)
            assert future.result(LIMIT) == 0
        assert re.fullmatch("<Future at 0x[0-9a-f]+ state=finished returned int>", repr(future))
        with pytest.raises(InvalidStateError, match="FINISHED: <Future at 0x[0-9a-f]+ state=finished returned int>"):
            future.set_result(1)

    def test_calls_run_side_by_side_at_once(self) -> None:
        """Calls of a function never seen before run side by side, without any stall being noticed first."""
        everybody = threading.Barrier(5)
        with Executor(5) as executor:
            done, _ = wait([executor.submit(everybody.wait, LIMIT) for _ in range(5)], LIMIT)
            assert len(done) == 5

    def test_quick_calls_share_a_thread(self) -> None:
        """Once a function is known to be quick, its calls run on one awake thread."""
        with Executor(8) as executor:
            for future in [executor.submit(threading.get_ident) for _ in range(200)]:
                future.result(LIMIT)
            idents = {executor.submit(threading.get_ident).result(LIMIT) for _ in range(20)}
            seen = executor.statistics()
            assert seen.off_slot == 0
            assert len(idents) <= 8

    def test_cancelled_futures_do_not_run(self) -> None:
        """A future that was cancelled in time does not run."""
        blocker, ran = Blocker(), threading.Event()
        with Executor(1) as executor:
            executor.submit(blocker)
            blocker.wait_until_running()
            future = executor.submit(ran.set)
            assert future.cancel()
            blocker.release()
        assert not ran.is_set()

    def test_shutdown_refuses(self) -> None:
        """After the shutdown `submit` raises RuntimeError."""
        executor = Executor(1)
        executor.shutdown()
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            executor.submit(int)

    def test_a_dropped_executor_finishes_and_its_threads_end(self) -> None:
        """An executor that is dropped finishes what was submitted; its threads end."""
        executor = Executor(2)
        futures = [executor.submit(pow, 2, number) for number in range(50)]
        threads = executor._threads
        del executor
        gc.collect()
        assert [future.result(LIMIT) for future in futures] == [2**number for number in range(50)]
        for thread in threads:
            joined(thread)

    @pytest.mark.parametrize("bad", [0, -1])
    def test_bad_numbers_of_workers(self, bad: int) -> None:
        """A number of workers below 1 is refused with a ValueError."""
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            Executor(bad)

    def test_names(self) -> None:
        """Threads are called PREFIX_0 and so on, by default with the name of the class and a number: Executor-0_0."""
        with Executor(1, "mine") as executor:
            assert executor.submit(lambda: threading.current_thread().name).result(LIMIT) == "mine_0"
        with Executor(1) as executor:
            first = executor.submit(lambda: threading.current_thread().name).result(LIMIT)
        with Executor(1) as executor:
            second = executor.submit(lambda: threading.current_thread().name).result(LIMIT)
        found = [re.fullmatch(r"Executor-(\d+)_0", name) for name in (first, second)]
        numbers = [int(match[1]) for match in found if match]
        assert numbers[1] == numbers[0] + 1

    def test_an_initializer_runs_first_in_each_thread(self) -> None:
        """The initializer runs in each thread before its first call."""
        local = threading.local()
        with Executor(4, initializer=setattr, initargs=(local, "value", 7)) as executor:
            assert set(executor.map(lambda _: local.value, range(50))) == {7}

    def test_an_initializer_that_fails_breaks_the_executor(self, caplog: pytest.LogCaptureFixture) -> None:
        """If an initializer raises, pending and later calls fail with BrokenThreadPool."""
        from concurrent.futures.thread import BrokenThreadPool

        gate = Gate()

        def fail() -> None:
            gate.pass_through()
            raise ValueError("initializer")

        with Executor(1, initializer=fail) as executor:
            futures = [executor.submit(int) for _ in range(3)]
            gate.open()
            for future in futures:
                with pytest.raises(BrokenThreadPool):
                    future.result(LIMIT)
            with pytest.raises(BrokenThreadPool):
                executor.submit(int)
        assert "initializer" in caplog.text


class TestMore:
    """What the standard executor lacks."""

    def test_the_queue_can_be_bounded(self) -> None:
        """A full queue rejects, blocks or makes the caller run, as chosen."""
        blocker = Blocker()
        with Executor(1, queue_limit=1, policy="reject") as executor:
            executor.submit(blocker)
            blocker.wait_until_running()
            executor.submit(int)
            with pytest.raises(QueueFull):
                executor.submit(int)
            blocker.release()
        blocker = Blocker()
        with Executor(1, queue_limit=1, policy="caller_runs") as executor:
            executor.submit(blocker)
            blocker.wait_until_running()
            executor.submit(int)
            assert executor.submit(threading.get_ident).result(0) == threading.get_ident()
            blocker.release()

    @pytest.mark.parametrize("policy", ["reject", "caller_runs", "block"])
    def test_a_cancelled_call_makes_room(self, policy: Literal["reject", "caller_runs", "block"]) -> None:
        """A queued call that is cancelled leaves its place to another; whoever waits for it is told."""
        blocker = Blocker()
        with Executor(1, queue_limit=2, policy=policy) as executor:
            blocker.release()
            for _ in range(10):  # From here on it is known to be quick, and submitting is at its shortest.
                executor.submit(blocker).result(LIMIT)
            blocker.gate.close()
            executor.submit(blocker)
            blocker.wait_until_running(11)
            calls = [executor.submit(int), executor.submit_at(Priority.LOW, int)]
            assert [call.cancel() for call in calls] == [True, True]
            later = [executor.submit(threading.get_ident) for _ in range(2)]
            assert not any(call.done() for call in later)
            assert executor.statistics().queued == 2
            assert wait(calls, LIMIT).not_done == set()
            blocker.release()
            assert {call.result(LIMIT) for call in later} != {threading.get_ident()}
        seen = executor.statistics()
        assert (seen.submitted, seen.started, seen.discarded) == (15, 13, 2)

    def test_a_cancelled_call_lets_a_blocked_submitter_go(self) -> None:
        """A thread that waits for room gets it from a call that is cancelled meanwhile."""
        blocker = Blocker()
        with Executor(1, queue_limit=1) as executor:
            executor.submit(blocker)
            blocker.wait_until_running()
            queued = executor.submit(int)
            submitter = in_thread(lambda: executor.submit(int))
            wait_until_blocked(submitter)
            assert queued.cancel()
            joined(submitter)
            blocker.release()

    def test_priorities(self) -> None:
        """A free thread takes calls from the highest class first."""
        blocker = Blocker()
        order: list[str] = []
        with Executor(1) as executor:
            executor.submit(blocker)
            blocker.wait_until_running()
            executor.submit_at(Priority.LOW, order.append, "low")
            executor.submit(order.append, "normal")
            executor.submit_at(Priority.HIGH, order.append, "high")
            blocker.release()
        assert order == ["high", "normal", "low"]

    def test_context_variables_travel(self) -> None:
        """Calls see the context variables of the submitter."""
        VARIABLE.set("mine")
        try:
            with Executor(2) as executor:
                assert executor.submit(VARIABLE.get).result(LIMIT) == "mine"
                executor.submit(VARIABLE.set, "theirs").result(LIMIT)
                assert VARIABLE.get() == "mine"
        finally:
            VARIABLE.set("none")

    def test_a_shutdown_that_always_ends(self) -> None:
        """With a timeout the shutdown ends: calls that have not begun are cancelled, running ones left behind."""
        blocker = Blocker()
        executor = Executor(1)
        running = executor.submit(blocker)
        blocker.wait_until_running()
        queued = executor.submit(int)
        began = time.monotonic()
        executor.shutdown(timeout=0.05)
        assert time.monotonic() - began < LIMIT
        assert queued.cancelled()
        assert running.running()
        blocker.release()
        assert running.result(LIMIT) is None
        executor.shutdown(timeout=LIMIT)

    def test_cancelled_futures_are_seen_by_whoever_waits(self) -> None:
        """Futures cancelled by the shutdown end `wait` and `as_completed`."""
        blocker = Blocker()
        executor = Executor(1)
        first = executor.submit(blocker)
        blocker.wait_until_running()
        futures = [executor.submit(int) for _ in range(3)]
        seen: list[Future[int]] = []
        waiter = in_thread(lambda: seen.extend(as_completed(futures, LIMIT)))
        executor.shutdown(wait=False, cancel_futures=True)
        joined(waiter)
        assert len(seen) == 3
        blocker.release()
        first.result(LIMIT)
        executor.shutdown()

    def test_workers_are_replaced(self) -> None:
        """After its number of calls a thread is replaced by a fresh one."""
        with Executor(1, max_tasks_per_worker=5) as executor:
            idents = [executor.submit(lambda: threading.current_thread().name).result(LIMIT) for _ in range(20)]
        assert len(set(idents)) == 4
        assert all(idents.count(ident) == 5 for ident in idents)
        with pytest.raises(InvalidParameter):
            Executor(1, max_tasks_per_worker=0)

    def test_a_call_cannot_wait_for_the_shutdown(self) -> None:
        """A call that waits for its own executor's shutdown gets Deadlock."""
        with Executor(1) as executor:
            assert isinstance(executor.submit(executor.shutdown).exception(LIMIT), Deadlock)
            executor.submit(executor.shutdown, False).result(LIMIT)

    def test_it_is_asyncios_default_executor(self) -> None:
        """It works as the default executor of an event loop."""

        async def main() -> list[int]:
            asyncio.get_running_loop().set_default_executor(executor)
            found: list[int] = await asyncio.gather(*(asyncio.to_thread(pow, 2, number) for number in range(20)))
            return found

        executor = Executor(4)
        assert asyncio.run(main()) == [2**number for number in range(20)]
        assert executor._shutdown

    def test_it_is_dasks_pool(self) -> None:
        """Dask computes its graphs on it: their order kept, errors raised, graphs inside of tasks too."""
        import dask
        from dask.delayed import delayed

        names = set()

        @delayed  # type: ignore[untyped-decorator]  # Dask's own are untyped
        def square(number: int) -> int:
            names.add(threading.current_thread().name)
            return number * number

        @delayed  # type: ignore[untyped-decorator]  # likewise
        def nested() -> Any:
            return delayed(sum)([square(number) for number in range(5)]).compute()

        with Executor(4, "dasks") as executor, dask.config.set(scheduler="threads", pool=executor):
            total = delayed(sum)([square(number) for number in range(200)])
            assert total.compute() == sum(number * number for number in range(200))
            assert nested().compute() == 30
            with pytest.raises(ZeroDivisionError):
                delayed(divmod)(1, 0).compute()
        assert names and all(name.startswith("dasks_") for name in names)

    def test_nested_calls_do_not_lock_up(self) -> None:
        """A call that waits for another call of the executor lets that one run."""

        def outer() -> int:
            return executor.submit(pow, 2, 5).result(LIMIT)

        with Executor(4) as executor:
            assert [executor.submit(outer).result(LIMIT) for _ in range(20)] == [32] * 20

    def test_a_full_house_of_waiting_calls(self) -> None:
        """Calls that wait for results are library waits: they hold no slot, so their subcalls run at once."""

        def tree(depth: int) -> int:
            if not depth:
                return 1
            return sum(future.result(LIMIT) for future in [executor.submit(tree, depth - 1) for _ in range(2)])

        with Executor(40) as executor:
            assert executor.submit(tree, 4).result(LIMIT) == 16

    def test_waiting_with_a_limit(self) -> None:
        """`result` and `exception` with a timeout raise TimeoutError, and the future stays good."""
        blocker = Blocker()
        with Executor(1) as executor:
            future = executor.submit(blocker)
            blocker.wait_until_running()
            for wait_for in (future.result, future.exception):
                with pytest.raises(TimeoutError):
                    wait_for(0.01)
            sleeper = in_thread(lambda: future.result(LIMIT))
            blocker.release()
            joined(sleeper)
            assert future.result(0) is None

    def test_a_cancelled_future_wakes_who_sleeps_on_it(self) -> None:
        """Cancelling a future wakes threads in `result`."""
        blocker, woken = Blocker(), threading.Event()
        with Executor(1) as executor:
            executor.submit(blocker)
            blocker.wait_until_running()
            future = executor.submit(int)

            def sleep() -> None:
                with pytest.raises(CancelledError):
                    future.result(LIMIT)
                woken.set()

            sleeper = in_thread(sleep)
            wait_until_blocked(sleeper)
            assert future.cancel()
            joined(sleeper)
            assert woken.is_set()
            blocker.release()

    def test_statistics(self) -> None:
        """The executor shows its pool's statistics."""
        with Executor(2) as executor:
            executor.submit(int).result(LIMIT)
            wait_until(lambda: executor.statistics().idle == executor.statistics().workers)
            seen = executor.statistics()
        assert seen.maximum == 2
        assert seen.started == 1
