"""How callbacks of users enter a pool: under its limit and its policy, with what is known of how long they run.

Theory of operation. A callback that finds room goes to the pool's port. Where the queue is full, the pool's policy
says whether the submitter waits for room, runs the callback itself, or is refused.
"""

import types
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from ..errors import QueueFull
from ..kernel.clock import Clock
from ..kernel.thread import park
from ..kernel.waiter import Waiter
from .dispatch import WorkPort
from .fair_queue import ObjectCallback, PlainCallback
from .run_time import RunTime
from .running import running_on
from .worker import run_here

KNOWN = 1024  # Functions whose run time a pool remembers. Arbitrary.

Policy = Literal["block", "reject", "caller_runs"]


class Intake:
    """What users' callbacks pass on their way into one pool.

    Threads: any.
    """

    __slots__ = ("_policy", "_run_times", "clock", "limit", "port", "reclaim")

    def __init__(self, port: WorkPort, limit: int, policy: Policy, clock: Clock) -> None:
        self.port: WorkPort = port
        # Callbacks that may be queued.
        self.limit: int = limit
        self._policy = policy
        # Where the pool's objects take time from unless they name a clock.
        self.clock: Clock = clock
        # Makes room by dropping what need not run, and says whether there was any: none, unless one is set.
        self.reclaim: Callable[[], bool] = bool
        # Run times of simple callbacks by what identifies their function. Single-key operations only.
        self._run_times: dict[object, RunTime] = {}

    def enqueue(self, item: PlainCallback | ObjectCallback, require_live: Callable[[], None] | None = None) -> None:
        """Queue a callback, or do what the policy says.

        `require_live` raises if the callback may be queued no longer; None: the pool's closing is all that counts.
        """
        port = self.port
        if port.ending:
            raise port.closed_error()
        try:
            if require_live is None:
                port.push(item, self.limit)
            else:
                self._push_live(item, require_live)
        except QueueFull:
            self.overflow(item, require_live or self.require_open)

    def overflow(self, item: PlainCallback | ObjectCallback, require_live: Callable[[], None]) -> None:
        """Do what the policy says with a callback that found the queue full."""
        port = self.port
        while True:
            full = not self.reclaim()
            if full and self._policy == "caller_runs":
                run_here(port, item)
                return
            if full and (self._policy == "reject" or running_on(port)):
                raise port.full_error(self.limit)
            waiter = Waiter()
            try:
                if full and port.wait_for_capacity(waiter, self.limit):
                    park(waiter, None)
                self._push_live(item, require_live)
                return
            except QueueFull:
                continue  # Another thread was faster.
            except BaseException:
                port.pass_capacity_on(waiter)
                raise

    def _push_live(self, item: PlainCallback | ObjectCallback, require_live: Callable[[], None]) -> None:
        """Queue a callback unless its object is closed: in one step, so that nothing comes after a teardown."""
        with self.port.lock:
            require_live()
            todo = self.port.push_locked(item, self.limit)
        self.port.act(todo)

    def require_open(self) -> None:
        """Raise if the pool is closed."""
        if self.port.ending:
            raise self.port.closed_error()

    def run_time_of(self, function: Callable[..., object]) -> RunTime:
        """Return what is known of the run time of `function`."""
        key = _identity(function)
        run_time = self._run_times.get(key)
        if run_time is None:
            if len(self._run_times) >= KNOWN:
                self._run_times.clear()
            run_time = self._run_times[key] = RunTime(slow=self.port.eager)
        return run_time


def _identity(function: Any) -> object:
    """Return what stands for a function in the table of run times; keeps no object of the user's alive."""
    if isinstance(function, types.FunctionType):
        return function.__code__
    function = called_by(function)
    if isinstance(function, types.MethodType):
        function = function.__func__
    try:
        return function.__code__
    except AttributeError:
        return getattr(function, "__qualname__", None) or type(function)


def called_by(function: Any) -> Any:
    """Return the function that a partial of it calls in the end."""
    while isinstance(function, partial):
        # `asyncio.to_thread` hands in `partial(context.run, function, ...)`, and so do callbacks of calls.
        inner = function.func
        function = function.args[0] if getattr(inner, "__name__", "") == "run" and function.args else inner
    return function
