"""Races that were closed, each reached by a lock that lies once."""

import threading
from collections.abc import Callable

from engine import ThreadPool
from engine.testing import wait_until

from .helpers import Recorder


class LyingLock:
    """A lock that lets something happen just after a release, once."""

    def __init__(self, real: "threading.Lock", happens: Callable[[], bool]) -> None:
        self.real = real
        self.happens = happens

    def acquire(self, *args: object) -> bool:
        return self.real.acquire(*args)

    def release(self) -> None:
        self.real.release()
        if self.happens():
            self.happens = lambda: False

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


def test_a_push_while_the_last_worker_goes_to_sleep_is_seen(single: ThreadPool) -> None:
    """A thread that found the pool calm pushes just after the worker has found nothing: the worker looks again."""
    port = single._port
    recorder = Recorder()

    def push() -> bool:
        # What `push` does after it has read that the pool is calm, which it was a moment ago.
        if "worker" not in threading.current_thread().name or not port._waiters:
            return False
        port.inbox.append(recorder)
        return True

    port._lock = LyingLock(port._lock, push)
    single.submit(int)
    recorder.wait_for(1)
    wait_until(lambda: single.statistics().idle == 1)
