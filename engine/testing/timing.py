"""Timing without sleeping: a clock moved by hand, a sequencer, gates, and waits for what comes true.

Sequencer and gates are deliberately not waits of the engine: a thread that stops in one keeps its slot on its
completion port and does not drive sockets, as one that computes. Everything that waits here does so for `LIMIT` seconds
at most, and then raises `WaitTimeout`, so that a wrong expectation is a failed test and not a hang.
"""

import heapq
import itertools
import threading
import time
from _thread import allocate_lock
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from transport.foreign import shown
from transport.realtime import monotonic

from ..errors import InvalidParameter, WaitTimeout
from ..kernel.checks import check_duration
from ..kernel.clock import Cancellable
from ..kernel.thread import records
from ..lifecycle import fork_safe

LIMIT = 120.0  # Seconds: what only a hang reaches, however busy the machine is.


class _Call:
    """A function that a `ManualClock` will call."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], None]) -> None:
        # None once called or withdrawn.
        self.function: Callable[[], None] | None = function

    def cancel(self) -> bool:
        pending, self.function = self.function, None
        return pending is not None


class ManualClock:
    """A clock that moves only by `advance`, and fires timers on the thread that moves it.

    Args:
        monotonic: what `monotonic()` reads to begin with, in seconds.
        wall: what `time()` reads to begin with: seconds since 1970, or a `datetime`.

    Threads: any. Timers fire inside `advance`, in the order of their due times, each at the very time it is due.
    """

    def __init__(self, monotonic: float = 0.0, wall: float | datetime = 946_684_800.0) -> None:
        self._lock = fork_safe(allocate_lock())
        # All guarded by _lock.
        self._now = monotonic
        self._offset = (wall.timestamp() if isinstance(wall, datetime) else wall) - monotonic
        self._calls: list[tuple[float, int, _Call]] = []
        self._order = itertools.count()

    def monotonic(self) -> float:
        """The monotonic time, in seconds."""
        return self._now

    def time(self) -> float:
        """The wall time, in seconds since 1970."""
        return self._now + self._offset

    def call_at(self, when: float, function: Callable[[], None]) -> Cancellable:
        """Call `function` inside the `advance` that reaches the monotonic time `when`, or the next one."""
        call = _Call(function)
        with self._lock:
            heapq.heappush(self._calls, (when, next(self._order), call))
        return call

    def advance(self, seconds: float = 0.0) -> None:
        """Move both times forward, firing what becomes due. What a function raises stops it there."""
        seconds = check_duration("seconds", seconds)
        with self._lock:
            target = self._now + seconds
        while True:
            with self._lock:
                if not self._calls or self._calls[0][0] > target:
                    self._now = max(self._now, target)
                    return
                when, _, call = heapq.heappop(self._calls)
                self._now = max(self._now, when)
            function, call.function = call.function, None
            if function is not None:
                function()

    def set_wall(self, wall: float | datetime) -> None:
        """Set the wall time, as an administrator may: monotonic time does not move, nothing fires."""
        with self._lock:
            self._offset = (wall.timestamp() if isinstance(wall, datetime) else wall) - self._now

    @property
    def pending(self) -> int:
        """How many functions are waiting for their time."""
        with self._lock:
            calls = list(self._calls)
        return sum(call.function is not None for _, _, call in calls)


class Sequencer:
    """Runs steps of several threads in the order of their numbers.

        step = Sequencer()
        # one thread:                 # another:
        with step(0): ...             with step(1): ...
        with step(2): ...

    Each number from 0 up is used once; a step begins when the one before it has ended.
    """

    def __init__(self) -> None:
        self._changed = fork_safe(threading.Condition())
        # Guarded by _changed. The step that may run.
        self._turn = 0

    @contextmanager
    def __call__(self, number: int, limit: float = LIMIT) -> Iterator[None]:
        """Return the scope of step `number`: entering it waits for its turn, `limit` seconds at most."""
        with self._changed:
            if number < self._turn:
                raise InvalidParameter(f"step {number} has been already, it is the turn of {self._turn}")
            if not self._changed.wait_for(lambda: self._turn == number, limit):
                raise WaitTimeout(f"step {number} waited {limit} s, it is still the turn of {self._turn}")
        try:
            yield
        finally:
            with self._changed:
                self._turn += 1
                self._changed.notify_all()


class Gate:
    """A place where threads stop until it is opened.

    Args: is_open: whether it is open to begin with.
    """

    def __init__(self, is_open: bool = False) -> None:
        self._changed = fork_safe(threading.Condition())
        # Guarded by _changed.
        self._open = is_open
        self._arrived = 0

    def pass_through(self, limit: float = LIMIT) -> None:
        """Be counted as arrived, and stop until the gate is open."""
        with self._changed:
            self._arrived += 1
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._open, limit):
                raise WaitTimeout(f"the gate was not opened within {limit} s")

    def open(self) -> None:
        """Let all pass, now and later."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def close(self) -> None:
        """Let no thread pass any more."""
        with self._changed:
            self._open = False

    @property
    def arrivals(self) -> int:
        """How many threads have come to the gate so far, those that passed included."""
        return self._arrived

    def wait_for_arrivals(self, count: int = 1, limit: float = LIMIT) -> None:
        """Wait until `count` threads have come to the gate."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._arrived >= count, limit):
                raise WaitTimeout(f"{self._arrived} of {count} threads came to the gate within {limit} s")


def wait_until(condition: Callable[[], object], limit: float = LIMIT, what: str = "the condition") -> None:
    """Return once `condition()` is true. It is asked again and again, some thousand times a second."""
    deadline = monotonic() + limit
    while not condition():
        if monotonic() >= deadline:
            raise WaitTimeout(f"{what} did not come true within {limit} s")
        time.sleep(0.0002)


def wait_until_blocked(target: Any, count: int = 1, limit: float = LIMIT) -> None:
    """Return once `count` waits are pending on `target`, or, if it is a thread, once it sleeps in a wait.

    Args: `target` is a port, an event or other dispatcher object, or anything else with
        `statistics().waiting`; or a `threading.Thread`.
    """
    if isinstance(target, threading.Thread):
        wait_until(lambda: _sleeps(target), limit, f"that {target.name} waits")
    else:
        wait_until(lambda: target.statistics().waiting >= count, limit, f"that {count} wait on {shown(target)}")


def _sleeps(thread: threading.Thread) -> bool:
    record = None if thread.ident is None else records.get(thread.ident)
    return record is not None and record.native() is thread and record.waiting
