"""The pool as a `concurrent.futures` executor.

Theory of operation. An `Executor` is a `ThreadPoolExecutor` to everybody who asks (asyncio's default executor
must be one), and a `ThreadPool` of its own inside: a call is a simple callback that runs the function and
settles its future. Threads are started eagerly, as in the standard one: one for each call that no idle worker
can take, up to `max_workers`. A function that the executor does not know yet is taken to block, so that calls
run side by side from the first one on; once it is known to be quick, its calls share one awake thread.

Interpreter shutdown: calls that were submitted are run, for `exit_timeout` seconds; then what is queued is
cancelled and what runs is abandoned, with a log entry. No call is accepted from there on.

Guarantees: each future is settled exactly once: by its call, or cancelled; `shutdown` ends within its limit.
"""

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures._base import CANCELLED
from concurrent.futures.thread import BrokenThreadPool
from contextvars import copy_context
from functools import partial
from math import inf
from typing import Any, ParamSpec, TypeVar

from transport.log import Log

from ..errors import Deadlock, Forked, InvalidHandle, InvalidParameter
from ..kernel.checks import Deadline, check_count, check_text, check_timeout
from ..kernel.lock import each
from ..lifecycle import OpenObjects, Stage, Uncopyable, at_exit
from .dispatch import WorkPort
from .fair_queue import Item, PlainCallback, Priority
from .future import CallFuture
from .intake import Policy
from .pool import DEFAULT_QUEUE_LIMIT, PoolStatistics, ThreadPool, exit_ports, intake_of
from .running import running_on

log: Log = Log("engine.pool")
# Where the standard executor reports, and where its users look, initializers that fail.
standard_log: Log = Log("concurrent.futures")

EXIT_TIMEOUT = 60.0  # Seconds; longer than most calls take, shorter than most operators wait. Arbitrary.

P = ParamSpec("P")
T = TypeVar("T")


class Executor(ThreadPoolExecutor, Uncopyable):
    """Runs calls on a pool of threads and returns futures: a drop-in for `ThreadPoolExecutor`, with more to
    it.

    Args:
        max_workers: threads at most; None: the processors plus 4, but 32 at most.
        thread_name_prefix: threads are called `PREFIX_0` and so on; "": `Executor-0_0`, as the standard one's are.
        initializer, initargs: called first by each thread; if that raises, the executor is broken, and
            pending and later calls fail with `BrokenThreadPool`.
        queue_limit, policy: how many calls may be queued, and what `submit` does then: "block" until there is
            room (a call of this executor itself gets `QueueFull` instead), "reject" the call with
            `QueueFull`, or "caller_runs". A queued call that is cancelled makes room.
        max_tasks_per_worker: calls after which a thread is replaced by a fresh one; None: never.
        exit_timeout: seconds that calls get to finish when the interpreter exits.

    Calls run in a copy of the submitter's context variables. Threads that idle for 10 seconds end.
    An executor that is dropped finishes what was submitted; its threads then end.

    Threads: every method may be called from any thread. Not for signal handlers, as the standard library's.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        queue_limit: int = DEFAULT_QUEUE_LIMIT,
        policy: Policy = "block",
        max_tasks_per_worker: int | None = None,
        exit_timeout: float = EXIT_TIMEOUT,
    ) -> None:
        # The base class is only what we are; how it works is replaced as a whole.
        if max_workers is None:
            processors = getattr(os, "process_cpu_count", os.cpu_count)() or 1
            max_workers = min(32, processors + 4)
        if not isinstance(max_workers, int) or max_workers > 0:  # As the standard library's says it.
            check_count("max_workers", max_workers, least=1)
        else:
            raise InvalidParameter("max_workers must be greater than 0")
        check_text("thread_name_prefix", thread_name_prefix)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_worker is not None:
            check_count("max_tasks_per_worker", max_tasks_per_worker, least=1)
        limit = check_timeout(exit_timeout, "exit_timeout")
        self._max_workers = max_workers
        prefix = thread_name_prefix or f"{type(self).__name__}-{next(_numbers)}"
        self._pool = _InnerPool(0, max_workers, name=prefix, queue_limit=queue_limit, policy=policy)
        self._intake = intake = intake_of(self._pool)
        port = intake.port
        intake.reclaim = partial(_drop_cancelled, port)
        exit_ports.discard(port)  # Executors see to their own end.
        self._state = _State(port, initializer, initargs, inf if limit is None else limit)
        port.prepare(prefix + "_", 0, eager=True, recycle=max_tasks_per_worker, on_start=self._state.start)
        _states.add(self._state)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule `fn(*args, **kwargs)` and return the future of its result.

        Raises: `RuntimeError` after the shutdown; in a forked child one that is `Forked`, too;
            `BrokenThreadPool` when an initializer failed; `QueueFull` under the "reject" policy.
        Blocks: never, except under the "block" policy when the queue is full.
        """
        return self._submit(Priority.NORMAL, fn, args, kwargs)

    def submit_at(self, priority: Priority, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule as `submit` does, in another class: a free thread takes from the highest that has anything."""
        return self._submit(Priority(priority), fn, args, kwargs)

    def _submit(
        self, priority: Priority, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[T]:
        state = self._state
        if state.broken:
            raise BrokenThreadPool(state.broken)
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        future = CallFuture[T](state.port)
        intake = self._intake
        call = PlainCallback(run_call, (future, fn, args, kwargs), copy_context(), intake.run_time_of(fn), priority)
        try:
            intake.enqueue(call)
        except InvalidHandle:
            if state.broken:
                raise BrokenThreadPool(state.broken) from None
            if state.port.forked:
                raise ForkedExecutor("this executor was made before fork(): make a new one in the child") from None
            raise RuntimeError("cannot schedule new futures after shutdown") from None
        if state.port.stopped:  # Meanwhile, and the thread that stopped it may not have seen this call.
            state.settle_queued()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, timeout: float | None = None) -> None:
        """Accept no more calls, and finish those that were submitted.

        Args: `wait` until that is done and the threads have ended. `cancel_futures` cancels the calls that
            have not begun. `timeout` in seconds limits the waiting, None: for ever; when the time is up,
            calls that have not begun are cancelled and those that run are left behind: their threads do not
            keep the interpreter from exiting.
        Raises: `Deadlock` if a call of this executor waits for its end.
        """
        timeout = check_timeout(timeout)
        state = self._state
        if wait and running_on(state.port):
            raise Deadlock("a call cannot wait for the end of its own executor")
        state.port.end()
        if cancel_futures:
            state.settle_queued()
        if wait:
            state.wait_ended(timeout)

    def statistics(self) -> PoolStatistics:
        """Return the statistics of the pool inside. Never blocks."""
        return self._pool.statistics()

    # What users of the standard executor are used to look at.

    @property
    def _threads(self) -> set[threading.Thread]:  # type: ignore[override]  # read only: typeshed has an attribute
        return set(self._state.port.threads)

    @property
    def _work_queue(self) -> "_WorkQueue":  # type: ignore[override]  # read only: typeshed has an attribute
        return _WorkQueue(self._pool)

    @property
    def _broken(self) -> bool:  # type: ignore[override]  # read only: typeshed has an attribute
        return bool(self._state.broken)

    @property
    def _shutdown(self) -> bool:  # type: ignore[override]  # read only: typeshed has an attribute
        return self._pool.closed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} max_workers={self._max_workers} {self._pool!r}>"


class ForkedExecutor(Forked, RuntimeError):
    """`Forked`, for callers that expect what the standard executor raises where it accepts no more calls."""


class _WorkQueue:
    """The queue of an executor, for callers that look how long it is."""

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool

    def qsize(self) -> int:
        """The number of calls that have not begun, cancelled ones included, as in the standard executor."""
        return self._pool.statistics().queued


class _InnerPool(ThreadPool):
    """The pool of an executor, with which it is dropped."""

    __slots__ = ()

    def _dropped_open(self) -> str:
        return ""


def _drop_cancelled(port: WorkPort) -> bool:
    """Drop the calls that were cancelled; return whether there were any."""
    if not port.has_cancelled:
        return False
    calls = port.purge(lambda call: call.args[0].is_cancelled())
    for call in calls:
        call.args[0].set_running_or_notify_cancel()
    return bool(calls)


class _State:
    """What the executor's threads need of it; they must not keep it alive."""

    def __init__(
        self, port: WorkPort, initializer: Callable[..., object] | None, initargs: tuple[Any, ...], exit_timeout: float
    ) -> None:
        self.port = port
        self._initializer = initializer
        self._initargs = initargs
        self.exit_timeout = exit_timeout
        # What is wrong, once an initializer has failed.
        self.broken = ""

    def start(self) -> bool:
        """Initialize the calling thread, which has just been started; False if that failed."""
        if self._initializer is None:
            return True
        try:
            self._initializer(*self._initargs)
        except BaseException as error:
            # Before any caller is notified, as the standard executor does; it raises nothing.
            standard_log.critical("Exception in initializer:", exc_info=error)
            self.broken = "a thread's initializer failed: this executor runs nothing any more"
            self.settle_queued()
            return False
        return True

    def settle_queued(self) -> None:
        """Run no more calls: fail those that have not begun if the executor is broken, else cancel them."""
        items = self.port.stop()
        try:
            each(self._settle, items)
        except BaseException:  # A signal handler raised: no thread shall wait for what will never run.
            each(self._settle, items)
            raise

    def _settle(self, item: Item) -> None:
        """Give a call that will not run its outcome, unless it has one."""
        assert isinstance(item, PlainCallback)
        future: Future[Any] = item.args[0]
        if not self.broken:
            future.cancel()
        # Unlike `cancel`, this notifies the threads that wait for a cancelled future in `wait` or `as_completed`.
        if not future.done() or future._state == CANCELLED:
            if future.set_running_or_notify_cancel():
                future.set_exception(BrokenThreadPool(self.broken))

    def wait_ended(self, timeout: float | None) -> bool:
        """Wait until all threads have ended; at the limit cancel what is queued, and return False."""
        deadline = Deadline(timeout)
        threads = set(self.port.threads)
        ended = self.port.wait_ended(timeout)
        self.settle_queued()
        threads |= self.port.threads
        for thread in threads:
            thread.join(deadline.left())
        return ended


def run_call(future: Future[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Run one call and settle its future."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:
        future.set_exception(error)
        # The exception's traceback holds this frame, which must not hold the future that holds the exception.
        del future
    else:
        future.set_result(result)


_numbers = itertools.count()
_states: OpenObjects[_State] = OpenObjects()
_exiting = False


def _finish_all() -> None:
    global _exiting
    _exiting = True
    states = list(_states)
    for state in states:
        state.port.end()
    limits = [Deadline(state.exit_timeout) for state in states]
    for state, limit in zip(states, limits, strict=True):
        if not state.wait_ended(limit.left()):
            log.warning("the interpreter exits though calls of the executor %r still run", state.port.name)


at_exit(Stage.EXECUTORS, _finish_all)
