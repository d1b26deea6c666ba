"""Races that were closed, each reached by a lock that lies once."""

import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from engine import (
    CleanupGroup,
    Environment,
    Event,
    Executor,
    InvalidHandle,
    Io,
    Status,
    ThreadPool,
    Timer,
    Wait,
    Work,
    submit_callback,
)
from engine.kernel.thread import park
from engine.pool import intake
from engine.pool.core import CallbackCore, GroupMembers
from engine.testing import LIMIT, ManualClock, wait_until, wait_until_blocked

from .helpers import Blocker, Recorder, in_thread, joined, occupy, settle
from .test_io import Pipe


class LyingLock:
    """A lock that lets something happen just after a release, once."""

    def __init__(self, real: Any, happens: Callable[[], bool]) -> None:
        self.real = real
        self.happens = happens

    def acquire(self, *args: object) -> bool:
        taken: bool = self.real.acquire(*args)
        return taken

    def release(self) -> None:
        self.real.release()
        if self.happens():
            self.happens = lambda: False

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


def lie(real: Any, happens: Callable[[], bool]) -> Any:
    """A lying lock, to be put in the place of a real one."""
    return LyingLock(real, happens)


def test_a_push_while_the_last_worker_goes_to_sleep_is_seen(single: ThreadPool) -> None:
    """A thread that found the pool saturated pushes just after the worker has found nothing: the worker looks again."""
    port = single._port
    recorder = Recorder()

    def push() -> bool:
        # What `push` does after it has read that the pool is saturated, which it was a moment ago.
        if "worker" not in threading.current_thread().name or not port._waiters:
            return False
        port.inbox.append(recorder)
        return True

    port._lock = lie(port._lock, push)
    single.submit(int)
    recorder.wait_for(1)
    wait_until(lambda: single.statistics().idle == 1)


def test_what_is_closed_while_it_is_set_is_told_as_closed(pool: ThreadPool) -> None:
    """The object is closed between the look at it and the beginning of the wait: the callback gets 735."""
    recorder, event = Recorder(), Event()
    with Wait(recorder, pool=pool) as wait:
        pool._port._lock = lie(pool._port._lock, lambda: event.close() or True)
        wait.set(event)
        recorder.wait_for(1)
    assert recorder.calls == [(Status.ABANDONED_WAIT,)]


def test_a_wait_that_is_disarmed_while_it_is_set_does_not_begin(pool: ThreadPool) -> None:
    """Another thread disarms the object before the wait has begun: it is withdrawn, and takes no signal."""
    recorder, disarmed = Recorder(), list[bool | None]()

    def disarm() -> bool:
        if not disarmed:
            disarmed.append(None)
            disarmed.append(wait.set(None))
        return True

    with Event() as event, Wait(recorder, pool=pool) as wait:
        pool._port._lock = lie(pool._port._lock, disarm)
        wait.set(event)
        assert disarmed == [None, True]
        event.set()
        assert event.is_signaled()
    settle(pool)
    assert recorder.count == 0


def test_a_packet_is_announced_or_its_callback_counts(pool: ThreadPool) -> None:
    """While a packet arrives there is no moment at which it is announced no longer and not queued yet."""
    sums: list[int] = []

    def count() -> bool:
        pool._port._lock = honest
        sums.append(io.io_statistics().announced + io.statistics().total)
        pool._port._lock = lying
        return False

    pipe = Pipe()
    with Io(pipe, int, pool=pool) as io:
        io.start()
        honest = pool._port._lock
        lying = pool._port._lock = lie(honest, count)
        pipe.complete("operation")
        pool._port._lock = honest
        assert io.wait(LIMIT)
    assert set(sums) == {1}


def test_a_timer_that_expires_while_it_is_closed_stays_silent(pool: ThreadPool, clock: ManualClock) -> None:
    """The timer expires after it was marked as closed and before it was disarmed: no callback comes."""
    recorder = Recorder()
    timer = Timer(recorder, pool=pool, clock=clock)
    timer.set(1)

    def expire() -> bool:
        pool._port._lock = honest
        clock.advance(1)
        return True

    honest = pool._port._lock
    pool._port._lock = lie(honest, expire)
    timer.close()
    settle(pool)
    assert recorder.count == 0


def test_a_release_closes_what_is_quiet_and_nothing_else(single: ThreadPool, clock: ManualClock) -> None:
    """A timer that was found quiet expires before its group has closed it: its callback is waited for."""
    order: list[str] = []
    group, blocker = CleanupGroup(), occupy(single)
    timer = Timer(order.append, "ran", environment=Environment(pool=single, cleanup_group=group), clock=clock)
    releases = 0

    def expire() -> bool:
        nonlocal releases
        if threading.current_thread() is not releaser:
            return False
        releases += 1
        if releases < 3:  # It was disarmed, and what it had queued discarded; now it was found quiet.
            return False
        single._port._lock = honest
        timer.set(0)
        return True

    def release() -> None:
        group.close_members(True)
        order.append("released")

    honest = single._port._lock
    single._port._lock = lie(honest, expire)
    releaser = threading.Thread(target=release)
    releaser.start()
    wait_until(lambda: timer.statistics().waiting)
    blocker.release()
    joined(releaser)
    assert order == ["ran", "released"]


def test_a_finalizer_in_the_midst_of_the_pool(pool: ThreadPool) -> None:
    """An open object that the garbage collector finds while its pool's lock is held is reported without that lock."""
    dropped = [Work(print, pool=pool)]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pool._port._lock:
            dropped.clear()
    assert [each.category for each in told] == [ResourceWarning]


def test_a_thread_woken_in_vain_wakes_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several threads that wait for room one is woken and finds that another was faster: it sleeps on, too."""
    parked, recorder = Recorder(), Recorder()

    def counting(waiter: Any, timeout: float | None) -> bool:
        parked()
        return park(waiter, timeout)

    monkeypatch.setattr(intake, "park", counting)
    with ThreadPool(1, 1, queue_limit=1) as pool, Work(print, pool=pool) as work:
        blocker = occupy(pool)
        work.submit()
        submitters = [in_thread(lambda: pool.submit(recorder)) for _ in range(4)]
        for submitter in submitters:
            wait_until_blocked(submitter)

        def be_faster() -> bool:
            if threading.current_thread() is not threading.main_thread():
                return False
            pool._port._lock = honest
            pool.submit(recorder)
            return True

        honest = pool._port._lock
        pool._port._lock = lie(honest, be_faster)
        assert work.wait(0, cancel_pending=True)
        wait_until(lambda: parked.count == 5)
        for _ in range(1000):
            pool.statistics()
        assert parked.count == 5
        blocker.release()
        for submitter in submitters:
            joined(submitter)
    assert recorder.count == 5


def test_a_simple_callback_is_released_or_runs(pool: ThreadPool) -> None:
    """A group that is released while a simple callback is being submitted cancels it or waits for it, never neither."""
    recorder, cancelled = Recorder(), Recorder()

    class Releasing(GroupMembers):
        """What is released as soon as something has joined."""

        def join(self, core: CallbackCore, owner: object) -> None:
            super().join(core, owner)
            group.close_members(True)

    group = CleanupGroup()
    group._members = Releasing()
    environment = Environment(pool=pool, cleanup_group=group, cancel_callback=cancelled)
    with pytest.raises(InvalidHandle):
        submit_callback(recorder, environment=environment)
    work = Work(recorder, environment=environment)
    assert work.closed
    settle(pool)
    assert cancelled.count == 2
    assert recorder.count == 0


def test_a_call_that_is_cancelled_while_another_comes_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call is cancelled after a submitter has found nothing to sweep, and before it waits: it looks again."""
    with Executor(1, queue_limit=1) as executor:
        blocker = Blocker()
        executor.submit(blocker)
        blocker.wait_until_running()
        queued = executor.submit(int)
        # Asked between the two.
        monkeypatch.setattr(intake, "running_on", lambda port: not queued.cancel())
        submitter = in_thread(lambda: executor.submit(int))
        wait_until(lambda: not submitter.is_alive(), LIMIT)
        monkeypatch.undo()
        assert queued.cancelled()
        blocker.release()
