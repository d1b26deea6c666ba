"""What the pool's tests say over and over."""

import threading
from collections.abc import Callable
from typing import Any

from engine import ThreadPool, register_wait
from engine.testing import LIMIT, Gate, wait_until


class Recorder:
    """A callback that notes each of its calls: with which arguments, on which thread."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.threads: list[threading.Thread] = []

    def __call__(self, *args: Any) -> None:
        self.threads.append(threading.current_thread())
        self.calls.append(args)

    @property
    def count(self) -> int:
        return len(self.calls)

    def wait_for(self, count: int) -> None:
        """Return once it was called `count` times."""
        wait_until(lambda: self.count >= count, what=f"call {count}")


class Blocker:
    """A callback that stops at a gate until it is released."""

    def __init__(self) -> None:
        self.gate = Gate()

    def __call__(self, *args: Any) -> None:
        self.gate.pass_through()

    def wait_until_running(self, count: int = 1) -> None:
        self.gate.wait_for_arrivals(count)

    def release(self) -> None:
        self.gate.open()


class Delivery:
    """A signal whose delivery is held up: waits are decided by it, and told of that only at the end.

    Make it before the waits in question are set: it holds up whoever signals `waitable` by a wait of its own, which
    is told first.
    """

    def __init__(self, waitable: Any) -> None:
        self.gate = Gate()
        register_wait(waitable, lambda status: self.gate.pass_through())

    def begin(self, signal: Callable[[], object]) -> None:
        """Have `signal()` called in a thread of its own, up to the point where it is held up."""
        self.thread = in_thread(signal)
        self.gate.wait_for_arrivals()

    def end(self) -> None:
        """Let the delivery go on, and wait until it is done."""
        self.gate.open()
        joined(self.thread)


def occupy(pool: ThreadPool) -> Blocker:
    """Make the pool's one worker busy until the blocker that is returned is released."""
    blocker = Blocker()
    pool.submit(blocker)
    blocker.wait_until_running()
    return blocker


def settle(pool: ThreadPool) -> None:
    """Return once nothing is queued or running in the pool."""

    def idle() -> bool:
        seen = pool.statistics()
        return not seen.queued and seen.idle == seen.workers

    wait_until(idle, what="that the pool rests")


def in_thread(function: Callable[[], Any]) -> threading.Thread:
    """Run `function` in a thread of its own."""
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def joined(thread: threading.Thread) -> None:
    """Wait for the end of `thread`, which must come."""
    thread.join(LIMIT)
    assert not thread.is_alive()
