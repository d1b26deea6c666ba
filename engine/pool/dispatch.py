"""The heart of a thread pool: a completion port for callbacks that hires its own threads.

Theory of operation. The pool's workers are the port's threads, so the port's slot rules say how many of them
run: by default one, because under the global interpreter lock one awake thread is fastest. Every callback
that blocks gives its slot back, and the slot releases the next worker:

    it blocks in a library wait or in `blocking()`       as on any port
    it said so: runs-long environment, `may_run_long`    from its start, or from the call on
    it is known to be long: measured mean above `LONG`   from its start
    it overruns while others are queued                  the monitor takes the slot away from it

A callback that runs without a slot for one of the last three reasons is *away*: it takes none before it
returns. A worker that comes back for more reports the callback that it finished and takes the next one in one
round under the lock.

Growth: a thread is hired when something is queued, no idle worker can take it, and a slot is free. Whoever
notices that hires, after releasing the lock.

Guarantees: a queued callback is started or counted as discarded, exactly once; at rest there is never a
queued callback, a free slot and an idle worker (or room for one more) at once; `workers <= maximum`, except
just after it was lowered.

Assumes: the store of an attribute is atomic.
"""

import itertools
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from threading import get_ident
from time import monotonic, process_time
from typing import Any, cast

from ..kernel.driver import driver
from ..kernel.errors import Forked, InvalidHandle, QueueFull
from ..kernel.port import CompletionPort, PacketQueue
from ..kernel.thread import ThreadRecord, park
from ..kernel.waiter import Waiter
from .backlog import Callback, FairQueue, Item, Ledger, Profile
from .runner import Runner, Seat, WorkerState, current

log = logging.getLogger("engine.pool")

IDLE_LIMIT = 10.0  # Seconds an idle worker above the minimum stays: Windows' figure ("Windows Internals").
NO_LIMIT = 1 << 62

# Ticks of the monitor (2 ms each) that a running callback may keep others waiting before its slot is taken.
# While the process burns a whole processor the callback may merely be waiting for the interpreter lock, for
# up to the 5 ms switch interval, and one more thread would only add to that: hence more patience, and much
# more (arbitrary, 100 ms) once as many callbacks are away as there are processors.
PATIENCE_IDLE, PATIENCE_BUSY, PATIENCE_CROWDED = 1, 5, 50
PROCESSORS = os.cpu_count() or 1


class WorkPort(CompletionPort):
    """The port of one pool: its queue, its slots and its threads. The pool's public face is `ThreadPool`."""

    __slots__ = (
        "_away", "_computing", "_cpu", "_crew", "_ending", "_leavers", "_looked", "_main", "_room",
        "_starting", "_stopped", "_watched", "_workers", "eager", "failures", "maximum", "minimum", "name",
        "names", "objects", "on_error", "on_start", "recycle", "threads",
    )  # fmt: skip

    _queue: FairQueue
    _waiters: list[Any]  # Of `Seat`s.

    def __init__(
        self, name: str, minimum: int, maximum: int, concurrency: int, main: Callable[["WorkPort"], None],
        on_error: Callable[[BaseException, object], object],
    ) -> None:  # fmt: skip
        super().__init__(concurrency)
        self.name = name
        # What a worker's thread runs: in worker.py, which knows this file.
        self._main = main
        # Told of each exception that left a callback, and whose it was.
        self.on_error = on_error
        # Run first by each worker's thread; the thread ends if it returns False. Fixed before the first push.
        self.on_start: Callable[[], bool] | None = None
        # Hire as soon as more is queued than idle workers could take, free slot or not. Fixed before the
        # first push.
        self.eager = False
        # Callbacks after which a worker is replaced by a fresh one. Fixed before the first push.
        self.recycle = NO_LIMIT
        # The callback objects that are not closed: while there are any, the last worker stays.
        self.objects: weakref.WeakSet[Ledger] = weakref.WeakSet()
        # The running threads and those being started; single-element operations only.
        self.threads: set[threading.Thread] = set()
        self.names = itertools.count(1)
        # All below: guarded by _lock. Invariant: _workers = len(_crew) + _starting.
        self.minimum = minimum
        self.maximum = maximum
        self._crew: dict[ThreadRecord, WorkerState] = {}
        self._workers = 0
        self._starting = 0
        # Workers whose callback runs without a slot until it returns; those among them that compute.
        self._away = 0
        self._computing = 0
        # Closed: workers leave as soon as nothing is queued. Stopped: nothing is accepted any more.
        self._ending = False
        self._stopped = False
        # Threads in `wait_ended`.
        self._leavers: list[Waiter] = []
        # Whether the monitor ticks for this pool, and what the clocks said when it last did.
        self._watched = False
        self._looked = 0.0
        self._cpu = 0.0
        # Threads that wait to submit to a full queue, first in, first out.
        self._room: deque[Waiter] = deque()
        self.failures = 0

    def _make_queue(self) -> PacketQueue:
        return FairQueue()

    # Putting in

    def push(self, item: Item, limit: int = NO_LIMIT) -> None:
        """Queue a callback, or hand it to an idle worker.

        Raises `QueueFull` if `limit` callbacks are queued, `InvalidHandle` once the pool is stopped. Never
        blocks.
        """
        seat: Seat | None = None
        hires = 0
        watch = False
        with self._lock:
            if self._stopped or self._closed:
                raise self._closed_error()
            if self._waiters and self._active < self._concurrency:
                if item.__class__ is Callback and item.ledger is not None:
                    item.ledger._started += 1
                    item.ledger._running += 1
                seat = self._hand_over_locked(item)
            else:
                queue = self._queue
                if len(queue) >= limit:
                    raise QueueFull(f"{limit} callbacks are queued already")
                queue.append(item)
                if not self._watched:
                    self._watched = watch = True
                if self._workers < self.maximum:
                    hires = self._vacancies_locked()
            self._posted += 1
        if seat is not None:
            self._wake(seat)
        else:
            if watch:
                driver().monitor.watch(self)
            if hires:
                self._hire(hires)

    def _wake(self, seat: Seat) -> None:
        # A worker that harvests while it waits may be handed what it harvested: it will see that by itself.
        if seat.worker.record.ident == get_ident():
            seat.signalled = True
        else:
            seat.wake()

    def _choose_locked(self) -> Seat:
        """Prefer the thread that is harvesting, so that it runs what it found; else the newest idle one."""
        runner = current.runner
        seat = None if runner is None or runner.port is not self else runner.seat
        if seat is None:
            newest: Seat = self._waiters.pop()
            return newest
        self._waiters.remove(seat)
        return seat

    def _hand_over_locked(self, packet: Any) -> Seat:
        seat = self._choose_locked()
        worker = seat.worker
        worker.seat = None
        seat.result = packet
        self._assign_locked(worker, packet)
        return seat

    def _assign_locked(self, worker: WorkerState, item: Item) -> None:
        """Count `item` as taken by `worker`, with a slot unless it is known to be long."""
        self._taken += 1
        worker.turn += 1
        if item.__class__ is Callback and item.profile.long and self._may_go_locked(worker, item.profile):
            worker.away = True
            self._away += 1
        else:
            worker.record.slot = True
            self._active += 1

    def _may_go_locked(self, worker: WorkerState, profile: Profile) -> bool:
        if profile.computes():
            if self._computing >= PROCESSORS:
                return False
            worker.computes = True
            self._computing += 1
        return True

    # Taking out

    def next(self, worker: WorkerState) -> Item | None:
        """Report the callback that `worker` finished and take the next one, idling if need be; None: end the
        thread.

        The result is already counted as started.
        """
        record = worker.record
        if record.port is not self:  # The callback took from another port.
            self._rejoin(record)
        item: Item | None = None
        woken: list[Waiter] = []
        seat: Seat | None = None
        hires = 0
        lock = self._lock
        # A worker is never the main thread, so no KeyboardInterrupt can arise between the two lines.
        lock.acquire()
        try:
            if worker.item is not None:
                woken = self.finish_locked(worker)
            if record.slot:
                record.slot = False
                self._active -= 1
            elif worker.away:
                self._return_locked(worker)
            queue = self._queue
            if self._workers > self.maximum or worker.turn >= self.recycle or (self._ending and not queue):
                woken += self._leave_locked(worker)
                woken += self._pump_locked()
                if self._ending and not queue:
                    woken += self._dismiss_locked()
                hires = self._vacancies_locked()
            elif queue and self._active < self._concurrency:
                item = queue.popleft()
                self._assign_locked(worker, item)
                if self._room:
                    woken.append(self._room.popleft())
                if worker.away and queue:
                    woken += self._pump_locked()
                    hires = self._vacancies_locked()
            else:
                seat = worker.seat = Seat(worker)
                self._waiters.append(seat)
        finally:
            lock.release()
        if woken or hires:
            self._act(woken, hires)
        return item if seat is None else self._idle(worker, seat)

    def _idle(self, worker: WorkerState, seat: Seat) -> Item | None:
        try:
            while not driver().wait(seat, IDLE_LIMIT):
                with self._lock:
                    if worker.seat is None:
                        break  # Handed something just now.
                    if not self._may_leave_locked(worker):
                        continue
                    # Off the stack under the lock: nothing can be handed to this worker any more.
                    self._waiters.remove(seat)
                    worker.seat = None
                    woken = self._leave_locked(worker)
                self._act(woken, 0)
                return None
        except BaseException:  # Raised into the thread from outside: nobody shall miss what it was handed.
            with self._lock:
                if worker.seat is not None:
                    self._waiters.remove(seat)
                    worker.seat = None
                elif seat.result is not None:
                    self._queue.appendleft(seat.result)
            raise
        return cast("Item | None", seat.result)

    def _may_leave_locked(self, worker: WorkerState) -> bool:
        if worker.persistent or self._queue or self._workers <= self.minimum:
            return False
        return self._ending or self._workers > 1 or not self.objects

    def _rejoin(self, record: ThreadRecord) -> None:
        if record.port is not None:
            record.port.depart(record)
        record.port = self

    def finish_locked(self, runner: Runner) -> list[Waiter]:
        """The runner's callback returned: it stops counting. Return the waiters to wake."""
        item, runner.item = runner.item, None
        ledger = item.ledger if item.__class__ is Callback else None
        if ledger is None:
            return []
        ledger._running -= 1
        if runner.stray:
            runner.stray = False
            ledger._strays -= 1
        return ledger._quiet_locked() if ledger._waiters else []

    def begin(self, item: Item) -> None:
        """Count `item` as started on a thread that is no worker."""
        with self._lock:
            self._posted += 1
            self._taken += 1
            if item.__class__ is Callback and item.ledger is not None:
                item.ledger._started += 1
                item.ledger._running += 1

    def finish(self, runner: Runner) -> None:
        """The callback that `begin` counted returned."""
        with self._lock:
            woken = self.finish_locked(runner)
        self._act(woken, 0)

    def fail(self, error: BaseException, owner: object) -> None:
        """Report an exception that left a callback of `owner`. Never raises; called outside all locks."""
        with self._lock:
            self.failures += 1
        try:
            self.on_error(error, owner)
        except BaseException:
            log.exception("the error handler of the pool %r failed, told of %r", self.name, error)

    # Slots

    def release_slot(self, record: ThreadRecord) -> None:
        """The worker blocks: its slot is free until `retake_slot`."""
        with self._lock:
            if not record.slot:
                return
            record.slot = False
            self._active -= 1
            woken = self._pump_locked()
            hires = self._vacancies_locked()
        self._act(woken, hires)

    def retake_slot(self, record: ThreadRecord) -> None:
        """The worker runs again: it is active at once, past the limit if need be, unless it is away."""
        with self._lock:
            worker = self._crew.get(record)
            if worker is not None and not worker.away and not record.slot:
                record.slot = True
                self._active += 1

    def go_away(self, worker: WorkerState) -> None:
        """The worker's callback runs without a slot from now until it returns. Called by that worker."""
        with self._lock:
            if worker.away:
                return
            woken, hires = self._away_locked(worker)
        self._act(woken, hires)
        driver().ensure_led()

    def spare(self, worker: WorkerState) -> bool:
        """`go_away`, and tell whether another worker was idle or could be hired; True if away already."""
        with self._lock:
            if worker.away:
                return True
            spare = bool(self._waiters) or self._workers < self.maximum
            hire = spare and not self._waiters and not self._starting
            if hire:
                self._workers += 1
                self._starting += 1
            woken, hires = self._away_locked(worker)
        self._act(woken, hires + hire)
        driver().ensure_led()
        return spare

    def disassociate(self, runner: Runner, ledger: Ledger) -> None:
        """The callback that `runner` runs counts for `ledger` no longer, except for its cleanup group."""
        with self._lock:
            if runner.stray:
                return
            runner.stray = True
            ledger._strays += 1
            woken = ledger._quiet_locked()
        self._act(woken, 0)

    def _away_locked(self, worker: WorkerState) -> tuple[list[Waiter], int]:
        worker.away = True
        self._away += 1
        if worker.record.slot:
            worker.record.slot = False
            self._active -= 1
        return self._pump_locked(), self._vacancies_locked()

    def _return_locked(self, worker: WorkerState) -> None:
        worker.away = False
        self._away -= 1
        if worker.computes:
            worker.computes = False
            self._computing -= 1

    def tick(self) -> bool:
        """The monitor's look: take the slot from callbacks that keep others waiting."""
        woken: list[Waiter] = []
        hires = 0
        now, cpu = monotonic(), process_time()
        with self._lock:
            busy = cpu - self._cpu > 0.9 * (now - self._looked)
            self._looked, self._cpu = now, cpu
            if not self._queue or self._stopped:
                self._watched = False
                return False
            if self._active >= self._concurrency:
                crowded = PATIENCE_BUSY if self._away < PROCESSORS else PATIENCE_CROWDED
                patience = crowded if busy else PATIENCE_IDLE
                for worker in self._crew.values():
                    if worker.turn != worker.seen:
                        worker.seen = worker.turn
                        worker.stuck = 0
                    elif worker.record.slot and worker.item is not None:
                        worker.stuck += 1
                        if worker.stuck >= patience:
                            worker.stuck = 0
                            self._overran_locked(worker, busy)
            woken += self._pump_locked()
            hires = self._vacancies_locked()
        self._act(woken, hires)
        return True

    def _overran_locked(self, worker: WorkerState, busy: bool) -> None:
        item = worker.item
        if not busy and item.__class__ is Callback:
            item.profile.overran()
        worker.away = True
        self._away += 1
        worker.record.slot = False
        self._active -= 1

    # Threads

    def _vacancies_locked(self) -> int:
        """Count as starting as many threads as are needed now; the caller hires them outside the lock."""
        depth = len(self._queue)
        if self.eager:
            wanted = depth - len(self._waiters) - self._starting
        elif self._waiters:
            return 0
        else:
            wanted = min(depth, self._concurrency - self._active) - self._starting
        number = min(wanted, self.maximum - self._workers)
        if number <= 0:
            return 0
        self._workers += number
        self._starting += number
        return number

    def _act(self, woken: list[Waiter], hires: int) -> None:
        for waiter in woken:
            waiter.wake()
        if hires:
            self._hire(hires)

    def _hire(self, number: int) -> None:
        for started in range(number):
            name = f"engine:{self.name}-worker-{next(self.names)}"
            thread = threading.Thread(target=self._main, args=(self,), name=name, daemon=True)
            self.threads.add(thread)
            try:
                thread.start()
            except RuntimeError:  # The system has no more threads, or the interpreter is shutting down.
                self.threads.discard(thread)
                log.exception("the pool %r could not start %s", self.name, name)
                with self._lock:
                    # What is queued stays queued: a running worker takes it, or the monitor tries again.
                    self._workers -= number - started
                    self._starting -= number - started
                    woken = self._gone_locked()
                self._act(woken, 0)
                return

    def arrive(self, worker: WorkerState) -> None:
        """A hired thread reports for the first time, on that thread."""
        with self._lock:
            self._starting -= 1
            self._crew[worker.record] = worker
        worker.record.port = self

    def crash(self, worker: WorkerState) -> None:
        """The worker's thread ends by an exception raised into it from outside its callback."""
        with self._lock:
            woken: list[Waiter] = self.finish_locked(worker) if worker.item is not None else []
            if worker.record.slot:
                worker.record.slot = False
                self._active -= 1
            if worker.away:
                self._return_locked(worker)
            if worker.record in self._crew:
                woken += self._leave_locked(worker)
            woken += self._pump_locked()
            hires = self._vacancies_locked()
        self._act(woken, hires)

    def _leave_locked(self, worker: WorkerState) -> list[Waiter]:
        del self._crew[worker.record]
        worker.record.port = None
        self._workers -= 1
        return self._gone_locked()

    def _gone_locked(self) -> list[Waiter]:
        if self._workers or self._queue:
            return []
        leavers, self._leavers = self._leavers, []
        return leavers

    def _dismiss_locked(self, keep: int = 0) -> list[Waiter]:
        """Send idle workers away, the longest idle first, until `keep` threads are left."""
        woken: list[Waiter] = []
        while self._waiters and self._workers > keep:
            seat: Seat = self._waiters.pop(0)
            seat.worker.seat = None
            seat.result = None
            woken.append(seat)
            woken += self._leave_locked(seat.worker)
        return woken

    def resize(self, minimum: int, maximum: int) -> None:
        """Set the limits; hires up to the minimum at once and dismisses idle workers above the maximum."""
        with self._lock:
            self.minimum, self.maximum = minimum, maximum
            woken = self._dismiss_locked(maximum)
            hires = 0 if self._ending else max(0, minimum - self._workers)
            self._workers += hires
            self._starting += hires
            hires += self._vacancies_locked()
        self._act(woken, hires)

    @property
    def ending(self) -> bool:
        """Whether the pool was closed for its users; sources armed before that may still fire."""
        return self._ending or self._closed

    def end(self) -> None:
        """Close for users: workers leave once nothing is queued."""
        with self._lock:
            self._ending = True
            self.minimum = 0
            woken = [] if self._queue else self._dismiss_locked()
            woken += self._room
            self._room.clear()
        self._act(woken, 0)

    def stop(self) -> list[Item]:
        """Accept nothing more and drop what is queued; return it."""
        with self._lock:
            self._ending = self._stopped = True
            self.minimum = 0
            woken: list[Waiter] = []
            items: list[Item] = self._queue.drain()
            for ledger in {item.ledger for item in items if isinstance(item, Callback)}:
                if ledger is not None:
                    woken += ledger._quiet_locked()
            woken += self._dismiss_locked()
            woken += self._gone_locked()
            woken += self._room
            self._room.clear()
        self._act(woken, 0)
        return items

    def drop(self) -> None:
        """`end`, for a finalizer: it may run in the midst of anything, holding this very lock included."""
        if self._lock.acquire(False):
            self._lock.release()
            self.end()
        else:
            # Who holds the lock may not look again; the idle limit then ends the workers.
            self._ending = True
            self.minimum = 0

    def wait_ended(self, timeout: float | None) -> bool:
        """Wait until nothing is queued and no worker is left; the pool must be ending."""
        with self._lock:
            if not self._workers and not self._queue:
                return True
            waiter = Waiter()
            self._leavers.append(waiter)
        try:
            return park(waiter, timeout)
        finally:
            with self._lock:
                if waiter in self._leavers:
                    self._leavers.remove(waiter)

    # Seen from outside

    def wait_for_room(self, waiter: Waiter, limit: int) -> bool:
        """Have `waiter` woken when fewer than `limit` callbacks are queued; False if that is so already."""
        with self._lock:
            if len(self._queue) < limit or self._ending:
                return False
            self._room.append(waiter)
            return True

    def pass_room_on(self, waiter: Waiter) -> None:
        """`waiter` left; if it was woken for room that it does not use, the next one is told."""
        with self._lock:
            if waiter in self._room:
                self._room.remove(waiter)
                return
            following = [self._room.popleft()] if self._room else []
        self._act(following, 0)

    def numbers(self) -> dict[str, Any]:
        """Return the pool's statistics by name, consistent with each other."""
        with self._lock:
            queue = self._queue
            return {
                "name": self.name,
                "minimum": self.minimum,
                "maximum": self.maximum,
                "concurrency": self._concurrency,
                "workers": self._workers,
                "idle": len(self._waiters),
                "running": self._active,
                "away": self._away,
                "queued": len(queue),
                "submitted": self._posted,
                "started": self._taken,
                "discarded": queue.discarded,
                "failures": self.failures,
                "closed": self._ending or self._closed,
            }

    def closed_error(self) -> InvalidHandle:
        """Return the error for use after the end."""
        return self._closed_error()

    def _closed_error(self) -> InvalidHandle:
        if self._forked:
            return Forked(f"the pool {self.name!r} was made before fork(): make a new one in the child")
        return InvalidHandle(f"the pool {self.name!r} is closed")

    def __del__(self) -> None:
        pass  # A pool's end is `ThreadPool`'s business; the port's own warning would be for another use.
