"""The thread pool: where callbacks run, and the limits of that.

Theory of operation. A `ThreadPool` is the public face of a `WorkPort` (dispatch.py), which its workers know
instead of it: a pool that is dropped without being closed is noticed, and its workers leave. This file holds
what users decide: limits, what happens when the queue is full, what is called with errors, and how everything
ends.

Interpreter shutdown: workers are daemon threads, so nothing waits for them without a limit. An exit hook
stops every pool: sources fire no more, queued callbacks are discarded, running ones get `EXIT_GRACE` seconds
together, and whatever still runs then is abandoned, as process exit does on Windows. Who needs queued
callbacks to run stops the pool himself.

Source: "CreateThreadpool", "SetThreadpoolThreadMinimum", "SetThreadpoolThreadMaximum", "CloseThreadpool",
"TrySubmitThreadpoolCallback".
"""

import itertools
from collections.abc import Callable
from contextvars import copy_context
from math import inf
from types import FunctionType, TracebackType
from typing import Any

import msgspec

from transport.foreign import shown
from transport.log import Log

from ..errors import Deadlock, InvalidParameter, InvalidState
from ..kernel.checks import (
    ASYNC,
    MAX_THREADS,
    Deadline,
    check_callback,
    check_clock,
    check_count,
    check_flag,
    check_text,
    check_timeout,
)
from ..kernel.clock import SYSTEM_CLOCK, Clock
from ..kernel.driver import driver
from ..kernel.lock import Lock
from ..lifecycle import Closeable, OpenObjects, Stage, at_exit, in_child
from .dispatch import WorkPort
from .fair_queue import PlainCallback
from .intake import Intake, Policy, called_by
from .running import WorkerState, current, running_on
from .worker import work

log: Log = Log("engine.pool")

DEFAULT_MAXIMUM = 500  # Threads: Windows' figure.
IDLE_LIMIT = 10.0  # Seconds an idle worker above the minimum stays: Windows' figure ("Windows Internals").
DEFAULT_QUEUE_LIMIT = 1 << 20  # Callbacks that users may leave queued; arbitrary, about 200 MB of them.
EXIT_GRACE = 2.0  # Seconds that callbacks running at interpreter exit get, all pools together. Arbitrary.

ErrorHandler = Callable[[BaseException, object], object]


class PoolStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a pool.

    Fields:
        workers: threads, those being started included; idle: of them, those waiting for work.
        running: callbacks that hold a slot; off_slot: callbacks that run without one, being long.
        queued: callbacks not yet started; submitted = queued + started + discarded.
        failures: exceptions that left a callback.
    """

    name: str
    minimum: int
    maximum: int
    concurrency: int
    workers: int
    idle: int
    running: int
    off_slot: int
    queued: int
    submitted: int
    started: int
    discarded: int
    failures: int
    closed: bool


class ThreadPool(Closeable):
    """A pool of worker threads that run callbacks.

    Args:
        minimum: threads kept at all times; started at once.
        maximum: threads at most. 0 is taken as 1.
        name: appears in the threads' names, `engine:NAME-worker-3`.
        concurrency: how many callbacks hold a slot (run and do not block) at once. With the interpreter lock,
            one awake thread is fastest, and one is the default: callbacks that block give their slot back
            (inside the library's waits and `blocking()`, when they say so, when their mean run time is known
            to be over 200 us), and from one that overruns 2-4 ms while others are queued it is taken. So
            blocking callbacks run side by side up to `maximum`.
        queue_limit: callbacks that may be queued by `submit` and `Work.submit`. Armed timers, waits and I/O
            never fail on it.
        policy: what a submission does when the limit is reached: "block" until there is room, "reject" it
            with `QueueFull`, or "caller_runs": run it on the submitting thread. A callback of the pool itself
            never blocks on its own pool's limit, which could never end: it gets `QueueFull`.
        on_error: called as `on_error(error, owner)` on the worker for each exception that leaves a callback;
            the default logs it to `engine.pool`. `owner` is the callback's object, or its function if it has
            none.

        idle_limit: seconds after which an idle thread above the minimum ends.
        clock: where the pool's timers and waits take time from unless they name a clock; tests give a
            `ManualClock`.

    The pool belongs to who made it: `stop` it, `close` it, or use it as a context manager, which stops it.

    Threads: every method may be called from any thread. Not for signal handlers, nor are the pool's objects: let one
        set an `Event` that a `Wait` of the pool waits for. Source: "CreateThreadpool";
        docs/semantics/thread-pool.md.
    Different from Windows: `concurrency`, a bounded queue, and the error handler.
    """

    __slots__ = ("__weakref__", "_intake", "_permanent", "_port")

    def __init__(
        self,
        minimum: int = 0,
        maximum: int = DEFAULT_MAXIMUM,
        *,
        name: str | None = None,
        concurrency: int = 1,
        queue_limit: int = DEFAULT_QUEUE_LIMIT,
        policy: Policy = "block",
        on_error: ErrorHandler | None = None,
        idle_limit: float = IDLE_LIMIT,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._permanent = False
        check_count("minimum", minimum, most=MAX_THREADS)
        check_count("maximum", maximum)
        check_text("name", name)
        check_clock(clock)
        check_count("concurrency", concurrency, least=1)
        check_count("queue_limit", queue_limit, least=1)
        limit = check_timeout(idle_limit, "idle_limit")
        maximum = maximum or 1
        if minimum > maximum:
            raise InvalidParameter(f"minimum must not exceed maximum, {maximum}, but is {minimum}")
        if policy not in ("block", "reject", "caller_runs"):
            raise InvalidParameter(f"policy must be 'block', 'reject' or 'caller_runs', not {shown(policy)}")
        check_callback("on_error", on_error, optional=True)
        name = name or f"pool{next(_numbers)}"
        self._port = WorkPort(name, maximum, concurrency, work, on_error or _log_error)
        self._port.idle_limit = inf if limit is None else limit
        self._intake = Intake(self._port, queue_limit, policy, clock)
        exit_ports.add(self._port)
        if minimum:
            self._port.resize(minimum, maximum)

    @property
    def name(self) -> str:
        """The pool's name, part of its threads' names."""
        return self._port.name

    @property
    def closed(self) -> bool:
        """Whether `close` or `stop` was called."""
        return self._port.ending

    def __repr__(self) -> str:
        seen = self.statistics()
        state = "closed" if seen.closed else f"workers={seen.workers} idle={seen.idle} queued={seen.queued}"
        return f"<ThreadPool {self.name!r} {state}>"

    # Limits

    def set_minimum(self, minimum: int) -> bool:
        """Keep at least `minimum` threads, starting them now; raises the maximum if need be.

        Returns: False if the system refused to start that many threads. Raises: `InvalidHandle` if closed.
        Source: "SetThreadpoolThreadMinimum".
        """
        check_count("minimum", minimum, most=MAX_THREADS)
        self._intake.require_open()
        self._port.resize(minimum, max(minimum, self._port.maximum))
        return self.statistics().workers >= minimum

    def set_maximum(self, maximum: int) -> None:
        """Have at most `maximum` threads (0 is taken as 1); lowers the minimum if need be.

        Running callbacks are not disturbed: excess threads leave as they become idle.
        Source: "SetThreadpoolThreadMaximum".
        """
        check_count("maximum", maximum)
        self._intake.require_open()
        maximum = maximum or 1
        self._port.resize(min(self._port.minimum, maximum), maximum)

    # Submitting

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Queue the simple callback `function(*args)`, in a copy of the caller's context variables.

        Its result is dropped and its exception goes to the pool's error handler: for a result use `Executor`,
        for a callback that is queued again and again, waited for or cancelled use `Work`, for other
        parameters `submit_callback` with an `Environment`.

        Raises: `InvalidHandle` if the pool is closed; `QueueFull` under the "reject" policy.
        Blocks: never, except under the "block" policy when the queue is full.
        Source: "TrySubmitThreadpoolCallback".
        """
        if type(function) is not FunctionType or function.__code__.co_flags & ASYNC:  # The usual ones need no more.
            check_callback("function", function)
        intake = self._intake
        intake.enqueue(PlainCallback(function, args, copy_context(), intake.run_time_of(function)))

    def post(self, function: Callable[[], object], *more: Callable[[], object]) -> None:
        """Queue `function()`, and each of `more` after it: the leanest way in, for code that posts much.

        As `submit`, but the queue's limit does not apply, the context variables are the worker's own, and
        nothing is learned of how long the function runs: put `slow()` around what is.

        Raises: `InvalidHandle` once the pool is stopped. Blocks: never.
        """
        self._port.post((function, *more))

    def slow(self) -> "Slow":
        """Return a context manager to put around what takes long in a callback of this pool.

        Entering gives the callback's slot to another worker and sees to it that a thread attends to the
        sockets. The slot is not taken back: the callback runs on without one until it returns. Outside the
        pool's workers it does nothing.
        """
        return Slow(self._port)

    # End

    def close(self) -> None:
        """Close the pool for new callbacks and return at once.

        Queued callbacks still run, and objects that were armed before still fire; submitting or arming
        through them raises `InvalidHandle`. The threads leave when there is nothing left to run. Closing
        twice does nothing.
        Raises: `InvalidState` for the process's default pool.
        Source: "CloseThreadpool".
        """
        if self._permanent:
            raise InvalidState("the process's default pool is never closed")
        self._port.end()

    def stop(self, timeout: float | None = None, *, cancel_pending: bool = False) -> bool:
        """Close the pool, disarm its objects, and wait until its threads have ended.

        Args: `timeout` in seconds for all of it, None for ever. `cancel_pending` discards what is queued at
            once; otherwise it is run, and what is still queued when the time is up is discarded.
        Returns: True if all threads ended in time. On False some callbacks still run: they cannot be
            interrupted, and their daemon threads end when they return.
        Raises: `Deadlock` when called by a callback of this pool.
        """
        check_flag("cancel_pending", cancel_pending)
        timeout = check_timeout(timeout)
        if running_on(self._port):
            raise Deadlock(f"a callback of the pool {self.name!r} cannot wait for that pool to stop")
        deadline = Deadline(timeout)
        self.close()
        for armed in self._port.armed():
            armed.disarm()
        threads = set(self._port.threads)
        try:
            if not cancel_pending:
                self._port.wait_ended(timeout)
        finally:
            self._port.stop()
        self._port.wait_ended(deadline.left())
        # The last worker has said that it exits; its thread is a few instructions from its end.
        threads |= self._port.threads
        for thread in threads:
            thread.join(deadline.left())
        return not any(thread.is_alive() for thread in threads)

    def statistics(self) -> PoolStatistics:
        """Return a consistent snapshot of the pool's numbers. Never blocks."""
        return PoolStatistics(**self._port.numbers())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(cancel_pending=kind is not None)

    def _dropped_open(self) -> str:
        port = getattr(self, "_port", None)
        return "" if port is None or port.ending else f"the pool {port.name!r}"

    def __del__(self) -> None:
        try:
            super().__del__()
        finally:
            port = getattr(self, "_port", None)
            if port is not None and not port.ending:
                port.drop()


def intake_of(pool: ThreadPool) -> Intake:
    """Return how callbacks enter `pool`: for the objects that run in it."""
    return pool._intake


def port_of(pool: ThreadPool) -> WorkPort:
    """Return the port of `pool`: for what takes turns on its workers."""
    return pool._port


class Slow:
    """The scope that `ThreadPool.slow` returns."""

    __slots__ = ("_port",)

    def __init__(self, port: WorkPort) -> None:
        self._port = port

    def __enter__(self) -> None:
        runner = current.runner
        if isinstance(runner, WorkerState) and runner.port is self._port:
            self._port.leave_slot(runner)
        else:
            driver().ensure_led()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass  # Taking the slot back would make the worker that has it now one too many.


def _log_error(error: BaseException, owner: object) -> None:
    log.error("a callback of %s raised", shown(called_by(owner)), exc_info=error)


_numbers = itertools.count(1)
# The ports to stop at interpreter exit.
exit_ports: OpenObjects[WorkPort] = OpenObjects()
_default: ThreadPool | None = None
_default_lock = Lock()


def default_pool() -> ThreadPool:
    """Return the process's default pool, made on first use and never closed; a forked child has its own."""
    global _default
    if _default is None:
        with _default_lock:
            if _default is None:
                pool = ThreadPool(name="default")
                pool._permanent = True
                _default = pool
    return _default


def _stop_all() -> None:
    ports = list(exit_ports)
    for port in ports:
        for armed in port.armed():
            armed.disarm()
        port.stop()
    deadline = Deadline(EXIT_GRACE)
    for port in ports:
        if not running_on(port):
            port.wait_ended(deadline.left())


@in_child
def _forget_default() -> None:
    global _default
    _default = None


at_exit(Stage.POOLS, _stop_all)
