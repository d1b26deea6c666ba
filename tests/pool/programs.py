"""Programs that `test_process.py` runs, each in a process of its own: how pools end with it, and what a fork leaves.

python -W error -m tests.pool.programs NAME
"""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent import futures
from typing import Any

from engine import (
    CleanupGroup,
    Environment,
    Executor,
    Forked,
    Semaphore,
    ThreadPool,
    Timer,
    Wait,
    Work,
    default_pool,
)
from engine.pool import future
from engine.testing import LIMIT

CHILD_LIMIT = 100  # Seconds: spent only by a child that hangs.


def tell_exit_code(child: int) -> None:
    """Print the exit code of a child."""
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def forked(action: Callable[[], object]) -> bool:
    """Whether the action is refused with `Forked`, which says why."""
    try:
        action()
    except Forked as refused:
        return "before fork()" in str(refused)
    return False


# Exit.


def idle_threads() -> None:
    """Leave idle workers, an armed timer and a wait behind."""
    pool = ThreadPool(4)
    timer = Timer(print, pool=pool)
    timer.set(100)
    wait = Wait(print, pool=pool)
    wait.set(Semaphore(0, 1))
    ran = threading.Event()
    default_pool().submit(lambda: (print("ran"), ran.set()))
    ran.wait()


def queued_callbacks() -> None:
    """Leave one callback that runs and one that is queued behind."""
    pool = ThreadPool(1, 1)
    begun = threading.Event()
    pool.submit(lambda: (begun.set(), threading.main_thread().join(), print("finished", flush=True)))
    pool.submit(print, "queued")
    begun.wait()


def a_callback_that_hangs() -> None:
    """Leave one behind that never returns."""
    pool = ThreadPool()
    begun = threading.Event()
    pool.submit(lambda: (begun.set(), threading.Event().wait()))
    begun.wait()


def an_executors_calls() -> None:
    """Leave calls of an executor behind."""
    executor = Executor(1)
    for number in range(3):
        executor.submit(print, number)


def an_executors_calls_that_hang() -> None:
    """Leave a call behind that never returns, and another behind it."""
    executor = Executor(1, exit_timeout=0.1)
    begun = threading.Event()
    executor.submit(lambda: (begun.set(), threading.Event().wait()))
    executor.submit(print, "queued")
    begun.wait()


# Fork. What a child finds wrong ends it with another exit code than 0.


def inherited_pools() -> None:
    """Use pools of the parent's, and new ones, in the child."""
    pool = ThreadPool(2)
    work = Work(int, pool=pool)
    default_pool().submit(int)
    before = default_pool()
    child = os.fork()
    if not child:
        if not all(forked(use) for use in (lambda: pool.submit(int), work.submit, lambda: pool.set_minimum(1))):
            os._exit(1)
        if default_pool() is before:
            os._exit(2)
        ran = threading.Event()
        default_pool().submit(ran.set)
        os._exit(0 if ran.wait(LIMIT) and pool.stop(LIMIT) else 3)
    tell_exit_code(child)


def what_ran_at_the_fork() -> None:
    """Wait in the child for callbacks and calls that run in the parent."""
    go = threading.Event()
    entered = threading.Semaphore(0)

    def body() -> None:
        entered.release()
        go.wait(LIMIT)

    pool = ThreadPool()
    group = CleanupGroup()
    work = Work(body, environment=Environment(pool=pool, cleanup_group=group))
    work.submit()
    executor = Executor(1)
    running = executor.submit(body)
    queued, late, cancelled = (executor.submit(int) for _ in range(3))
    entered.acquire()
    entered.acquire()
    cancelled.cancel()
    child = os.fork()
    if not child:
        signal.alarm(CHILD_LIMIT)
        for use in (
            work.wait, lambda: work.wait(0, cancel_pending=True), group.close_members, running.result, queued.result,
            lambda: executor.submit(int),
        ):  # fmt: skip
            if not forked(use):
                os._exit(1)
        try:
            executor.submit(int)
        except RuntimeError:  # As the standard library's own raises, too.
            pass
        else:
            os._exit(2)
        calls: list[futures.Future[Any]] = [running, queued, cancelled]
        assert len(futures.wait(calls).done) == 3
        assert cancelled.cancelled() and isinstance(running.exception(), Forked)
        told: list[Any] = []
        late.add_done_callback(told.append)
        assert told == [late]
        executor.shutdown()
        work.close()
        os._exit(0)
    tell_exit_code(child)
    go.set()
    work.close()
    pool.stop()


def locks_that_were_held() -> None:
    """Use futures in the child whose locks other threads held at the fork."""
    go = threading.Event()
    held = threading.Semaphore(0)
    executor = Executor(1)
    calls: list[Any] = [executor.submit(go.wait, LIMIT), executor.submit(int)]

    def hold(lock: Any) -> None:
        with lock:
            held.release()
            go.wait(LIMIT)

    for lock in (calls[0]._condition, calls[1]._condition, future._settled, future._guard):
        threading.Thread(target=hold, args=(lock,)).start()
        held.acquire()
    child = os.fork()
    if not child:
        signal.alarm(CHILD_LIMIT)
        assert all(isinstance(call.exception(), Forked) for call in calls)
        assert Executor(1).submit(pow, 2, 3).result() == 8
        os._exit(0)
    tell_exit_code(child)
    go.set()
    executor.shutdown()


def forking_in_a_callback() -> None:
    """Fork in a callback that others are queued behind."""
    pool = ThreadPool(1, 1)
    begun, go = threading.Event(), threading.Event()
    parent = os.getpid()
    ran: list[int] = []
    children: list[int] = []

    def body() -> None:
        ran.append(1)
        if len(ran) == 1:
            children.append(os.fork())
        if os.getpid() != parent:
            seen = pool.statistics()
            print("in the child", seen.workers, seen.running + seen.off_slot, flush=True)

    pool.submit(lambda: (begun.set(), go.wait()))
    begun.wait()
    with Work(body, pool=pool) as work:
        for _ in range(5):
            work.submit()
        go.set()
    tell_exit_code(children[0])
    print(len(ran))
    pool.stop()


def leaving_blocks() -> None:
    """Leave the child in the midst of the blocks of the parent's objects."""
    go, entered = threading.Event(), threading.Event()

    def body() -> None:
        entered.set()
        go.wait(LIMIT)

    with ThreadPool() as pool, CleanupGroup() as group, Executor(1) as executor:
        environment = Environment(pool=pool, cleanup_group=group)
        with Work(body, environment=environment) as work:
            work.submit()
            executor.submit(go.wait, LIMIT)
            entered.wait()
            Work(int, environment=environment)
            child = os.fork()
            if not child:
                signal.alarm(CHILD_LIMIT)
                sys.exit(7)
            tell_exit_code(child)
            go.set()


def a_busy_pool() -> None:
    """Fork in the midst of the pool's work."""
    pool = ThreadPool(4)
    ended: list[int] = []
    work = Work(lambda: ended or work.submit(), pool=pool)
    for _ in range(4):
        work.submit()
    codes = set()
    for _ in range(30):
        child = os.fork()
        if not child:
            os._exit(default_pool().statistics().workers)
        codes.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    ended.append(1)
    print(codes, pool.stop(LIMIT))


if __name__ == "__main__":
    if sys.argv[1] not in ("an_executors_calls", "an_executors_calls_that_hang"):
        warnings.simplefilter("ignore")  # Of what is not closed, and of forks in a process with threads.
    globals()[sys.argv[1]]()
