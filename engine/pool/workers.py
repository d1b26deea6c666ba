"""The threads of a pool: how they are spawned and started, when they exit, and how the pool ends.

Theory of operation. A pool's port decides under its lock how many threads are wanted, counts them as
*starting*, and spawns them after releasing the lock. A thread that has started is a worker until it exits:
because it was idle for the idle limit, because there are more workers than the maximum, because it has run its number
of callbacks, or because the pool ends.

The system may refuse to start a thread. Then none is asked for during a pause, which grows with each refusal in a row,
and after it as many are spawned as are wanted by then.

Guarantees: workers <= maximum, except just after it was lowered; if the system refuses a thread, what is queued stays
queued, and the log says so.
"""

import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable
from time import sleep
from typing import Any

from transport.foreign import shown
from transport.log import Log
from transport.realtime import monotonic
from transport.service import Pause, is_ending

from ..errors import Forked, InvalidHandle, QueueFull
from ..kernel.driver import driver
from ..kernel.lock import Lock
from ..kernel.slots import SlotQueue
from ..kernel.thread import ThreadRecord, park
from ..kernel.waiter import Waiter, wake
from ..lifecycle import snapshot
from .fair_queue import NO_LIMIT, CallbackCounts, FairQueue, Item, ObjectCallback
from .running import IdleWaiter, Turns, WorkerState

log: Log = Log("engine.pool")

# What was decided under the port's lock, to be done after releasing it: which waiters to wake, how many threads to
# spawn, and whether the monitor is to watch the port.
Todo = tuple[list[Waiter], int, bool]


def acquire_late(lock: Any) -> None:
    """Acquire a lock that `acquire(False)` has just been refused, letting its holder finish first.

    The holder was switched out in its few instructions under the lock. A thread that blocks on the lock wakes
    up owning it, but not the interpreter lock; the next thread then blocks on it in turn, and from there on
    every operation costs two thread switches (measured: 8 us instead of 2) for as long as both are busy: a
    convoy. Threads that pause instead do not take part; one thread that does block is harmless.
    """
    for _ in range(5):
        sleep(20e-6)
        if lock.acquire(False):
            return
    lock.acquire()


class WorkerThreads(SlotQueue):
    """The part of a pool's port that has to do with threads."""

    __slots__ = (
        "__weakref__", "_capacity_waiters", "_joiners", "_late_items", "_main", "_names", "_off_slot", "_on_error",
        "_refusals", "_running_workers", "_starting", "_strict", "_thread_name", "_workers", "awake", "crowded",
        "eager", "ending", "failures", "forked", "has_cancelled", "idle_limit", "maximum", "minimum", "name", "objects",
        "on_start", "recycle", "ring", "stopped", "threads",
    )  # fmt: skip

    _queue: FairQueue
    _waiters: list[Any]  # Of `IdleWaiter`s.

    def __init__(
        self, name: str, maximum: int, concurrency: int, main: Callable[[Any], None],
        on_error: Callable[[BaseException, object], object],
    ) -> None:  # fmt: skip
        super().__init__(concurrency)
        self.name: str = name
        # What a worker's thread runs: in worker.py, which knows this file.
        self._main = main
        # Called with each exception that left a callback, and the owner of that.
        self._on_error = on_error
        # The next five are fixed before the first push.
        # Spawn as soon as more is queued than idle workers could take, free slot or not.
        self.eager: bool = False
        # Callbacks after which a worker is replaced by a fresh one.
        self.recycle: int = NO_LIMIT
        # Seconds that an idle worker above the minimum stays.
        self.idle_limit: float = 0.0
        # Run first by each worker's thread; the thread ends if it returns False.
        self.on_start: Callable[[], bool] | None = None
        # Whether a worker that comes back may have to exit: it has run its number, or there are too many.
        self._strict = False
        # The callback objects that are not closed: while there are any, the last worker stays.
        self.objects: weakref.WeakSet[CallbackCounts] = weakref.WeakSet()
        # The running threads and those being started; single-element operations only.
        self.threads: set[threading.Thread] = set()
        self._thread_name = f"engine:{name}-worker-"
        self._names = itertools.count(1)
        # What is to be given a turn, oldest first: who takes it out has it. Single operations only.
        self.ring: deque[Turns] = deque()
        # The seats whose workers run turns. Put in by the worker, taken out by the thread that takes its token.
        self.awake: dict[IdleWaiter, None] = {}
        # All below: guarded by _lock. Invariant: _workers = len(_running_workers) + _starting.
        self.minimum: int = 0
        self.maximum: int = maximum
        self._running_workers: dict[ThreadRecord, WorkerState] = {}
        self._workers = 0
        self._starting = 0
        # The pause in spawning that refused threads lead to.
        self._refusals = Pause()
        # Closed: users are refused, and workers exit as soon as nothing is queued. May be read without the lock.
        self.ending: bool = False
        # Nothing is accepted any more.
        self.stopped: bool = False
        # True in a forked child, whose parent's threads are not there; written by the fork hook only.
        self.forked: bool = False
        # Whether there may be more workers than the maximum, so that idle ones are to leave. May be read without the
        # lock.
        self.crowded: bool = False
        # Whether something that is queued need not run any more.
        self.has_cancelled: bool = False
        # What was pushed while the pool stopped, for the thread that stops it next.
        self._late_items: list[Item] = []
        # Workers whose callback runs without a slot until it returns.
        self._off_slot = 0
        # Exceptions that left a callback.
        self.failures: int = 0
        # Threads in `wait_ended`; threads that wait to submit to a full queue, first in, first out.
        self._joiners: list[Waiter] = []
        self._capacity_waiters: deque[Waiter] = deque()

    def _make_queue(self) -> FairQueue:
        return FairQueue()

    def _absorb_locked(self) -> None:
        """Bring what was pushed into the queue: see dispatch.py."""
        raise NotImplementedError

    def _recall_locked(self) -> None:
        """Put back what was fetched and has not begun: see dispatch.py."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Bring all that has not begun into the queue: see dispatch.py."""
        raise NotImplementedError

    def _settle_locked(self) -> Todo:
        """Restore what holds at rest after a change: see dispatch.py."""
        raise NotImplementedError

    def act(self, todo: Todo) -> None:
        """Do what was decided; called outside the lock."""
        raise NotImplementedError

    def prepare(
        self, thread_name: str, first: int, *, eager: bool, recycle: int | None, on_start: Callable[[], bool]
    ) -> None:
        """Settle how threads are called, spawned, replaced and begun; before the first push."""
        self._thread_name = thread_name
        self._names = itertools.count(first)
        self.eager = eager
        self.recycle = recycle or NO_LIMIT
        self._strict = recycle is not None
        self.on_start = on_start

    def armed(self) -> list[CallbackCounts]:
        """Return the callback objects that are not closed."""
        return snapshot(self.objects)

    def fail(self, error: BaseException, owner: object) -> None:
        """Report an exception that left a callback of `owner`. Never raises; called outside all locks."""
        with self._lock:
            self.failures += 1
        try:
            self._on_error(error, owner)
        except BaseException as failure:
            text = "the error handler of the pool %r failed at %s"
            log.error(text, self.name, shown(error), exc_info=failure)

    # Spawning

    def _wanted_locked(self) -> int:
        """Count as starting as many threads as are needed now; the caller spawns them outside the lock."""
        depth = self._queue.depth + (1 if self.ring and not self.awake else 0)
        free = len(self._waiters) - len(self.awake)
        if self.eager:
            wanted = depth - free - self._starting
        elif free > 0:
            return 0
        else:
            wanted = min(depth, self._concurrency - self._active - len(self.awake)) - self._starting
        number = min(wanted, self.maximum - self._workers)
        if number <= 0 or self._refusals.left():
            return 0
        self._workers += number
        self._starting += number
        return number

    def _spawn(self, number: int) -> None:
        for started in range(number):
            name = f"{self._thread_name}{next(self._names)}"
            thread = None
            try:
                thread = threading.Thread(target=self._main, args=(self,), name=name, daemon=True)
                self.threads.add(thread)
                thread.start()
            except BaseException as error:  # The system has no more threads, or the interpreter is shutting down.
                runs = thread in threading.enumerate()  # What was raised may have broken in after its start.
                if thread is not None and not runs:
                    self.threads.discard(thread)
                self._not_spawned(number - started - runs, error)
                if not isinstance(error, Exception):
                    raise
                return
        if self._refusals.until:
            with self._lock:
                self._refusals.granted()

    def _not_spawned(self, number: int, error: BaseException) -> None:
        """So many threads were not started: what is queued waits for a worker, or until others are spawned."""
        with self._lock:
            self._workers -= number
            self._starting -= number
            woken = self._joiners_locked()
            pause = self._refusals.refused()
            ending = self.ending
        for waiter in woken:
            waiter.wake()
        if not ending:
            driver().monitor.call_at(monotonic() + pause, self._spawn_again)
        if not is_ending(error):  # Then what is queued is not run: nothing to complain of.
            log.error("the pool %r cannot start a thread now; it tries again in %g s: %s", self.name, pause, error)

    def _spawn_again(self) -> None:
        """The pause is over: spawn as many as the queue wants by now, and up to the minimum."""
        with self._lock:
            todo = self._settle_locked()
            missing = 0 if self.ending else max(0, self.minimum - self._workers)
            self._workers += missing
            self._starting += missing
        self.act((todo[0], todo[1] + missing, todo[2]))

    def failed_to_start(self, thread: threading.Thread) -> None:
        """A spawned thread ends before it has started to work."""
        self.threads.discard(thread)
        self._not_spawned(1, RuntimeError("the last one ended as it began"))

    def started(self, worker: WorkerState) -> None:
        """A spawned thread is a worker from here on; on that thread."""
        with self._lock:
            self._starting -= 1
            self._running_workers[worker.record] = worker
        worker.record.port = self

    # Exiting

    def _must_exit_locked(self, worker: WorkerState) -> bool:
        return worker.turn > self.recycle or (self._workers > self.maximum and not self._exempt_locked(worker))

    def _exempt_locked(self, worker: WorkerState) -> bool:
        """Whether others exit before this one, which ran a persistent callback: as many as the maximum allows."""
        return worker.persistent and sum(each.persistent for each in self._running_workers.values()) <= self.maximum

    def _may_exit_locked(self, worker: WorkerState) -> bool:
        """Whether a worker that has been idle for long is to exit."""
        if worker.persistent or self._queue.depth or self.ring or self._workers <= self.minimum:
            return False
        return self.ending or self._workers > 1 or not self.objects

    def _exit_locked(self, worker: WorkerState) -> list[Waiter]:
        del self._running_workers[worker.record]
        worker.record.port = None
        self._workers -= 1
        return self._joiners_locked()

    def _joiners_locked(self) -> list[Waiter]:
        if self._workers or self._queue.depth:
            return []
        joiners, self._joiners = self._joiners, []
        return joiners

    def _retire_locked(self, keep: int, woken: list[Waiter]) -> None:
        """Have idle workers exit, the longest idle first, until `keep` threads are left; `woken` grows by them."""
        try:
            self._retire_each_locked(keep, woken)
        except BaseException:  # A signal handler raised: who is no worker any more must hear of it.
            self._retire_each_locked(keep, woken)
            wake(woken)
            raise

    def _retire_each_locked(self, keep: int, woken: list[Waiter]) -> None:
        for seat in list(self._waiters):
            worker = seat.worker
            if worker.seat is not None:  # Otherwise an interrupt has broken off its retirement.
                if self._workers <= keep:
                    break
                if self._exempt_locked(worker) and not self.ending:
                    continue
                if not seat.claim():
                    continue  # Its worker runs turns, or is about to, and looks whether to leave after that.
            if worker.record in self._running_workers:
                woken += self._exit_locked(worker)
            if seat not in woken:
                woken.append(seat)
            self._waiters.remove(seat)  # Last: until then it is found again.

    def resize(self, minimum: int, maximum: int) -> None:
        """Set the limits; spawns up to the minimum at once and retires idle workers above the maximum."""
        with self._lock:
            self.minimum, self.maximum = minimum, maximum
            self._strict = self._strict or self._workers > maximum
            woken: list[Waiter] = []
            self.crowded = True  # A worker that is just back from its turns puts its token back, and looks at this.
            self._retire_locked(maximum, woken)
            self.crowded = self._workers > maximum
            spawns = 0 if self.ending else max(0, minimum - self._workers)
            self._workers += spawns
            self._starting += spawns
            todo = self._settle_locked()
        self.act((woken + todo[0], spawns + todo[1], todo[2]))

    def thin_out(self) -> None:
        """Have idle workers leave while there are more than the maximum."""
        woken: list[Waiter] = []
        with self._lock:
            self._retire_locked(self.maximum, woken)
            self.crowded = self._workers > self.maximum
        wake(woken)

    # The end

    def end(self) -> None:
        """Close for users: workers exit once nothing is queued."""
        woken: list[Waiter] = []
        try:
            with self._lock:
                self.ending = True
                self.minimum = 0
                todo = self._settle_locked()
                woken += todo[0]
                if not self._queue.depth and not self.ring:
                    self._retire_locked(0, woken)
                woken += self._capacity_waiters
                self._capacity_waiters.clear()
            self.act((woken, *todo[1:]))
        except BaseException:  # A signal handler raised: no thread shall sleep on.
            wake(woken)
            raise

    def drop(self) -> None:
        """`end`, for a finalizer: it may run at any point, and its thread may hold this very lock."""
        if not self._lock.owned() and self._lock.acquire(False):
            self._lock.release()
            self.end()
        else:
            # The thread that holds the lock may not look again; the idle limit then ends the workers.
            self.ending = True
            self.minimum = 0

    def stop(self) -> list[Item]:
        """Accept nothing more and drop what is queued; return it. Again: return what came in late."""
        with self._lock:
            self.ending = self.stopped = True
            self.minimum = 0
            self._recall_locked()
            self._absorb_locked()
            woken = self._drain_locked()
            self._retire_locked(0, woken)
            woken += self._joiners_locked()
            woken += self._capacity_waiters
            self._capacity_waiters.clear()
            todo = self._settle_locked()
            # Last: what is to be returned is there the next time, if a signal handler breaks in on any of the above.
            items, self._late_items = self._late_items, []
        try:
            todo[0].extend(woken)
            self.act(todo)
            return items
        except BaseException:  # As above; and what is to be returned is there the next time.
            wake(woken)
            wake(todo[0])
            self._late_items[:0] = items
            raise

    def _drain_locked(self) -> list[Waiter]:
        """Drop what is queued; return the waiters to wake."""
        items = self._queue.drain()
        self._late_items += items
        woken: list[Waiter] = []
        for counts in {item.counts for item in items if isinstance(item, ObjectCallback)}:
            woken += counts.quiet_locked()
        return woken

    def wait_ended(self, timeout: float | None) -> bool:
        """Wait until nothing is queued and no worker is left; the pool must be ending."""
        with self._lock:
            if not self._workers and not self._queue.depth:
                return True
            waiter = Waiter()
            self._joiners.append(waiter)
        try:
            return park(waiter, timeout)
        finally:
            with self._lock:
                if waiter in self._joiners:
                    self._joiners.remove(waiter)

    # Seen from outside

    def wait_for_capacity(self, waiter: Waiter, limit: int) -> bool:
        """Have `waiter` woken when there may be fewer than `limit` callbacks queued; False if that is so already."""
        self.refresh()
        with self._lock:
            if self._queue.depth < limit or self.has_cancelled or self.ending:
                return False
            self._capacity_waiters.append(waiter)
            return True

    def pass_capacity_on(self, waiter: Waiter) -> None:
        """`waiter` leaves and needs no room; if it was woken for some, the next one is woken."""
        following: list[Waiter] = []
        with self._lock:
            if waiter in self._capacity_waiters:
                self._capacity_waiters.remove(waiter)
            else:
                following = self._admit_locked(1)
        for other in following:
            other.wake()

    def _admit_locked(self, places: int) -> list[Waiter]:
        """Return the waiters to wake for so many places that became free in the queue: each looks again."""
        return [self._capacity_waiters.popleft() for _ in range(min(places, len(self._capacity_waiters)))]

    def numbers(self) -> dict[str, Any]:
        """Return the pool's statistics by name, consistent with each other."""
        self.refresh()
        with self._lock:
            return {
                "name": self.name,
                "minimum": self.minimum,
                "maximum": self.maximum,
                "concurrency": self._concurrency,
                "workers": self._workers,
                "idle": len(self._waiters) - len(self.awake),
                "running": self._active + len(self.awake),
                "off_slot": self._off_slot,
                "queued": self._queue.depth,
                "submitted": self._posted,
                "started": self._taken,
                "discarded": self._queue.discarded,
                "failures": self.failures,
                "closed": self.ending,
            }

    @property
    def lock(self) -> Lock:
        """Guards the pool's objects too. Held for a few operations only; no other is taken inside it."""
        return self._lock

    def closed_error(self) -> InvalidHandle:
        """Return the error for use after the end."""
        if self.forked:
            return Forked(f"the pool {self.name!r} was made before fork(): make a new one in the child")
        return InvalidHandle(f"the pool {self.name!r} is closed")

    def full_error(self, limit: int) -> QueueFull:
        """Return the error for a callback for which there is no room."""
        return QueueFull(f"{limit} callbacks are queued in the pool {self.name!r} already")
