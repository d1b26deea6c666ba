"""The scheduler of a thread pool: which callback runs next, and on how many threads.

Theory of operation. The pool's workers are the threads of a port, so the port's slot rules (kernel/slots.py)
say how many of them run: by default one, because under the global interpreter lock one awake thread is
fastest. Every callback that blocks gives its slot back, and the slot releases the next worker:

    it blocks in a library wait or in `blocking()`       as on any port
    it said so: runs-long environment, `may_run_long`    from its start, or from the call on
    it is known to be slow: measured mean above `SLOW`   from its start
    it overruns while others are queued                  the monitor takes the slot away from it

A callback that runs without a slot for one of the last three reasons is *off slot*: it takes none before it
returns. A worker that comes back reports the callback that it finished and takes the next one while it holds the lock
once.

A thread is spawned when something is queued, no idle worker can take it, and a slot is free.

Pushing. What is pushed goes to the inbox, without the lock. While the pool is *saturated* nothing else is
needed: all slots are taken, so a worker is awake that will look into the inbox before it takes its next
callback; the monitor ticks; no thread is wanted. Otherwise the pusher settles under the lock: what is in the inbox
joins the queue, idle workers are given what they can take, threads are spawned.

    pusher:   append to the inbox;  look whether it is saturated
    others:   end that under the lock;  look into the inbox after releasing it              one sees the other

Turns. The calls of a server's clients do not pass through the queue: each client with calls is in the ring, and idle
workers take turns from there without the lock (`running.py`). Those that do so, the awake ones, count as if each had a
slot. A worker that runs callbacks gives a turn to the ring between two of them.

    appender: append to the ring;  look whether a worker is awake
    worker:   be awake no longer;  look into the ring before it sleeps                 one sees the other

Guarantees: a queued callback is started or counted as discarded, exactly once; at rest there is never a
queued callback, a free slot and an idle worker (or room for one more) at once, nor a client in the ring while no worker
is awake and one is idle (or can be spawned); nothing of a user's is let go of under the lock, because finalizers may
use the pool.

Assumes: `append` and `popleft` of a deque are atomic; attribute accesses are not reordered against them and
against lock operations.

One class, whose methods share one lock and one set of counts: hence the length.
"""

from collections import deque
from collections.abc import Callable, Sequence
from threading import TIMEOUT_MAX, get_ident, main_thread
from typing import Any

from transport.log import Log
from transport.realtime import monotonic, process_time

from ..kernel.driver import PROCESSORS, driver
from ..kernel.lock import each
from ..kernel.thread import UNCOUNTED, ThreadRecord, associate, local
from ..kernel.waiter import Waiter, wake
from ..lifecycle import OpenObjects
from .fair_queue import NO_LIMIT, CallbackCounts, Item, ObjectCallback, PlainCallback, run_time_of
from .run_time import RunTime
from .running import IdleWaiter, Runner, WorkerState, come_back, current
from .workers import Todo, WorkerThreads, acquire_late

log: Log = Log("engine.pool")

# Ticks of the monitor (2 ms each) that a running callback may keep others waiting before its slot is taken.
# While the process burns half a processor the callback may merely be waiting for the interpreter lock, for
# up to the 5 ms switch interval, and one more thread would only add to that: hence more patience, and much
# more (arbitrary, 100 ms) once as many callbacks are off slot as there are processors.
PATIENCE_IDLE, PATIENCE_BUSY, PATIENCE_CROWDED = 1, 5, 50

PREFETCH = 32  # Callbacks that a worker fetches in one round under the lock; arbitrary, more gains little.


class WorkPort(WorkerThreads):
    """The port of one pool: its queue, its slots and its threads. The pool's public face is `ThreadPool`."""

    __slots__ = (
        "_computing", "_cpu", "_interruptible", "_looked", "_unled",
        "has_prefetched", "inbox", "lenient", "saturated", "watched",
    )  # fmt: skip

    def __init__(
        self, name: str, maximum: int, concurrency: int, main: Callable[["WorkPort"], None],
        on_error: Callable[[BaseException, object], object],
    ) -> None:  # fmt: skip
        super().__init__(name, maximum, concurrency, main, on_error)
        # The only thread that a signal handler can interrupt, between any two operations.
        self._interruptible = main_thread().ident
        # Any thread appends; taken out under _lock. What was pushed and is not in the queue yet. A worker looks
        # here before it begins a callback that it fetched earlier.
        self.inbox: deque[Item] = deque()
        # Written under _lock, read by the thread that pushes. Invariant: saturated only while all slots are taken, the
        # monitor watches, no thread is wanted and the pool is not stopped.
        self.saturated: bool = False
        # All below: guarded by _lock.
        # False only if no worker has prefetched callbacks.
        self.has_prefetched: bool = False
        # Of the workers that are off slot, those that compute.
        self._computing = 0
        # Whether the monitor ticks for this pool, and what the clocks said when it last did.
        self.watched: bool = False
        self._looked = 0.0
        self._cpu = 0.0
        # Whether idle workers may sleep where the driver does not know of them.
        self._unled = False
        # The cores of timers whose windows let them wait for another's expiry, with their timers.
        self.lenient: dict[Any, Any] = {}
        _ports.add(self)

    # Putting in

    def push(self, item: Item, limit: int = NO_LIMIT) -> None:
        """Queue a callback.

        Raises `QueueFull` if `limit` callbacks are queued, `InvalidHandle` once the pool is stopped. Never
        blocks.
        """
        inbox = self.inbox
        if len(inbox) + self._queue.depth >= limit:
            raise self.full_error(limit)
        if self.stopped:
            raise self.closed_error()
        if self.saturated or not self._hand_over(item):
            inbox.append(item)
            if not self.saturated:
                self._look()

    def push_locked(self, item: Item, limit: int = NO_LIMIT) -> Todo:
        """`push`, for who decides under the lock that there is a callback: at no time is it counted nowhere.

        Returns what to `act` on after releasing the lock. A pool that was stopped discards it. Raises `QueueFull`.
        """
        if len(self.inbox) + self._queue.depth >= limit:
            raise self.full_error(limit)
        self.inbox.append(item)
        return self._settle_locked()

    def post(self, functions: Sequence[Callable[[], object]]) -> None:
        """Queue plain functions, for which there is no limit."""
        if len(functions) == 1:
            self.push(functions[0])
        elif functions:
            if self.stopped:
                raise self.closed_error()
            self.inbox.extend(functions)
            if not self.saturated:
                self._look()

    def _hand_over(self, item: Item) -> bool:
        """Hand `item` to an idle worker if nothing else is queued: the short way, and a common one."""
        if not self._waiters or self.inbox or self.ring:
            return False
        with self._lock:
            if (
                self.inbox
                or self._queue.depth
                or self._active + len(self.awake) >= self._concurrency
                or self.stopped
                or (seat := self._claim_locked()) is None
            ):
                return False
            if type(item) is ObjectCallback:
                item.counts.started += 1
                item.counts.running += 1
            seat.result = item
            self._assign_locked(seat.worker, item)
            self._posted += 1
        if seat.worker.record.ident == get_ident():
            seat.signalled = True
        else:
            seat.wake()
        return True

    def _look(self) -> None:
        """`_settle_locked` and `act`, for the thread that has pushed."""
        lock = self._lock
        if get_ident() == self._interruptible:
            with lock:  # Safe against an interruption just after the lock was acquired.
                todo = self._settle_locked()
        else:
            if not lock.acquire(False):
                acquire_late(lock)
            try:
                todo = self._settle_locked()
            finally:
                lock.release()
        self.act(todo)

    def refresh(self) -> None:
        """Bring what the calling thread pushed, and what was only fetched, into the queue."""
        if self.has_prefetched or self.inbox:
            with self._lock:
                self._recall_locked()
                todo = self._settle_locked()
            self.act(todo)

    def _absorb_locked(self) -> None:
        """Bring what was pushed into the queue; the caller then settles, or is a worker that takes."""
        number = len(self.inbox)
        self._posted += number
        self._queue.take_in(self.inbox, number)

    def _settle_locked(self) -> Todo:
        """Restore what holds at rest, after a slot became free, something was pushed, a limit changed."""
        queue = self._queue
        if self.has_prefetched and self._active + len(self.awake) < self._concurrency:
            self._recall_locked()
        if self.inbox:
            self._absorb_locked()
        if self.stopped:
            self.saturated = False
            woken = self._drain_locked()
            if not self.ring:
                self._retire_locked(0, woken)
            return woken, 0, False
        woken = []
        if queue.depth:
            try:
                self._pump_locked(woken)
            except BaseException:  # By a signal handler: no thread shall sleep on what was handed over.
                wake(woken)
                raise
        if woken and self._capacity_waiters:
            woken += self._admit_locked(len(woken))
        if not queue.depth:
            self.saturated = False
            if self.ending and not self.ring:
                self._retire_locked(0, woken)
            if not self.ring:
                return woken, 0, False
        spawns = self._wanted_locked()
        watch = not self.watched
        self.watched = True
        if not queue.depth:
            return woken, spawns, watch
        taken = self._active + len(self.awake)
        self.saturated = taken >= self._concurrency and (not self.eager or self._workers >= self.maximum)
        return woken, spawns, watch

    def act(self, todo: Todo) -> None:
        while True:
            woken, spawns, watch = todo
            try:
                if woken or self.ring:
                    self._wake_up(woken)
            except MemoryError:
                wake(woken)  # Those of before once more, which does no harm.
                raise
            finally:
                if watch or spawns:
                    self._watch_and_spawn(watch, spawns)
            if self.saturated or not self.inbox:
                return
            with self._lock:  # Pushed by a thread that took the pool for saturated, which it is no longer.
                todo = self._settle_locked()

    def _wake_up(self, woken: list[Waiter]) -> None:
        if self.ring:
            self._rouse_one()
        for waiter in woken:
            # A worker that harvests while it waits may be handed what it harvested: it will see that by itself.
            if isinstance(waiter, IdleWaiter) and waiter.worker.record.ident == get_ident():
                waiter.signalled = True
            else:
                waiter.wake()

    def _watch_and_spawn(self, watch: bool, spawns: int) -> None:
        try:
            if watch:
                driver().monitor.watch(self)
        except Exception:  # No memory: what is queued runs all the same, and the next change asks again.
            with self._lock:
                self.watched = False
            log.exception("the pool %r cannot be watched for callbacks that take long now", self.name)
        finally:
            if spawns:
                self._spawn(spawns)

    def _claim_locked(self) -> IdleWaiter | None:
        """Take a free seat off the stack: the calling thread's own, so that it runs what it found; else the newest."""
        runner = current.runner
        if runner is not None and runner.port is self and (own := runner.seat) is not None and own.claim():
            self._vacate_locked(own)
            return own
        return next(filter(self._claimed_locked, reversed(self._waiters.copy())), None)

    def _claimed_locked(self, seat: IdleWaiter) -> bool:
        if not seat.claim():
            return False
        self._vacate_locked(seat)
        return True

    def _vacate_locked(self, seat: IdleWaiter) -> None:
        self._waiters.remove(seat)
        seat.worker.seat = None

    def _pump_locked(self, woken: list[Waiter]) -> None:
        while (
            self._queue.depth
            and self._active + len(self.awake) < self._concurrency
            and (seat := self._claim_locked()) is not None
        ):
            # A worker that is not the calling thread may be waiting already: it is woken for whatever it is given.
            woken.append(seat)
            self._give_locked(seat)

    def _give_locked(self, seat: IdleWaiter) -> None:
        item: Any = None
        try:
            for popped in self._pops:
                item = popped
                break
            seat.result = item
            self._assign_locked(seat.worker, item)
        except BaseException:  # A signal handler raised: the worker asks for the next, and nothing is lost.
            if item is not None:
                self._queue.appendleft(item)
            seat.result = come_back
            raise

    def _assign_locked(self, worker: WorkerState, item: Item) -> None:
        """Count `item` as taken by `worker`, with a slot unless it is known to be slow."""
        self._taken += 1
        run_time = item.counts.run_time if type(item) is ObjectCallback else run_time_of(item)
        if run_time is not None and run_time.slow and self._may_go_locked(worker, run_time):
            worker.off_slot = True
            self._off_slot += 1
        else:
            worker.record.slot = True
            self._active += 1

    def _may_go_locked(self, worker: WorkerState, run_time: RunTime) -> bool:
        if run_time.computes():
            if self._computing >= PROCESSORS:
                return False
            worker.computes = True
            self._computing += 1
        return True

    # Taking out

    def next(self, worker: WorkerState) -> Item | None:  # noqa: C901  # a hot path
        """Report the callback that `worker` finished and take the next one, idling if need be.

        Returns None when the thread is to end. A callback is counted as started when it is returned.
        """
        record = worker.record
        if record.port is not self:  # The callback took from another port.
            associate(record, self)
        worker.item = None
        worker.turn += 1
        item: Item | None = None
        seat: IdleWaiter | None = None
        woken: list[Waiter] = []
        todo: Todo | None = None
        ended: Sequence[CallbackCounts] = ()
        lock = self._lock
        # A worker is never the main thread, so nothing can interrupt it before the `try`.
        if not lock.acquire(False):
            acquire_late(lock)
        try:
            if worker.prefetched:  # Something else was pushed meanwhile: put back, so that it can take its turn.
                self._recall_locked()
            # Before the report, so that a callback that submitted its own object again still counts.
            if self.inbox:
                self._absorb_locked()
            if worker.done:
                ended = self._report_locked(worker, woken)
            queue = self._queue
            if (
                record.slot
                and queue.depth
                and self._active <= self._concurrency
                and not (self._strict and self._must_exit_locked(worker))
            ):
                # The common case: giving the slot back and taking it again cancel out.
                turn = self.ring and not worker.turned
                worker.turned = bool(turn)
                item = worker.run_alone if turn else queue.popleft()
                run_time = run_time_of(item)
                if turn:
                    pass  # It goes through no queue.
                elif run_time is not None and run_time.slow:
                    record.slot = False
                    self._active -= 1
                    self._assign_locked(worker, item)
                    todo = self._settle_locked()
                else:
                    self._taken += 1
                    if queue.depth and not self._strict and self._active == self._concurrency:
                        queue.prefetch(worker.prefetched, PREFETCH)
                        self._taken += len(worker.prefetched)
                        self.has_prefetched = True
            else:
                if record.slot:
                    record.slot = False
                    self._active -= 1
                elif worker.off_slot:
                    self._return_locked(worker)
                if self._strict and self._must_exit_locked(worker):
                    woken += self._exit_locked(worker)
                elif queue.depth and self._active < self._concurrency:
                    item = queue.popleft()
                    self._assign_locked(worker, item)
                elif self.ending and not queue.depth and not self.ring:
                    woken += self._exit_locked(worker)
                    self._retire_locked(0, woken)
                else:
                    seat = worker.seat = IdleWaiter(worker, self._queue)
                    self._waiters.append(seat)
                if self.inbox or queue.depth or self.has_prefetched or self.stopped:
                    todo = self._settle_locked()
                else:
                    self.saturated = False
            if self._capacity_waiters:
                woken += self._admit_locked(1 + len(worker.prefetched))
        finally:
            lock.release()
        for waiter in woken:
            waiter.wake()
        if todo is not None:
            self.act(todo)
        elif self.inbox and not self.saturated:  # Pushed by a thread that took the pool for saturated.
            self._look()
        del ended  # Before the worker idles.
        if seat is None:
            return item
        item = self._idle(worker, seat)
        if self.ring and item is not come_back:
            self.need()  # It may have harvested something just before it was given the item, which may take long.
        return item

    def _recall_locked(self) -> None:
        """Put back what workers have fetched and not begun: that was only reserved for them."""
        self.has_prefetched = False
        queue = self._queue
        for worker in self._running_workers.values():
            prefetched = worker.prefetched
            while prefetched:
                try:
                    item = prefetched.pop()
                except IndexError:
                    break  # The worker has just begun it.
                queue.appendleft(item)
                self._taken -= 1

    def _report_locked(self, worker: Runner, woken: list[Waiter]) -> list[CallbackCounts]:
        """The callbacks that the worker ran count as running no longer; `woken` gets the waiters to wake.

        Returns whose they were, to be let go of after releasing the lock.
        """
        done = worker.done.copy()
        worker.done.clear()
        if worker.disassociated:  # It was the last one: a worker reports at once when its callback has disassociated.
            worker.disassociated = False
            done[-1].disassociated -= 1
        for counts in done:
            counts.running -= 1
            if counts.once:
                counts.ended_locked()
            if counts.waiters and not counts.queued:
                woken += counts.quiet_locked()
        return done

    def _idle(self, worker: WorkerState, seat: IdleWaiter) -> Item | None:
        worker.idled = True
        turn = worker.turn
        try:
            while not self._sleep(seat):
                with self._lock:
                    if worker.seat is None:
                        break  # Handed something just now.
                    if worker.turn != turn or not self._may_exit_locked(worker):
                        turn = worker.turn  # It was not idle, but ran turns.
                        continue
                    # Off the stack under the lock: nothing can be handed to this worker any more.
                    self._vacate_locked(seat)
                    woken = self._exit_locked(worker)
                wake(woken)
                return None
        except BaseException:  # Raised into the thread from outside: no thread shall miss what it was handed.
            with self._lock:
                if worker.seat is not None:
                    self._vacate_locked(seat)
                elif seat.result is not None and seat.result is not come_back:
                    self._queue.appendleft(seat.result)
                    self._taken -= 1
            raise
        item: Item | None = seat.result  # type: ignore[assignment]  # an object to a waiter; a seat is given items only
        seat.result = None  # A tool that keeps the frames of this thread keeps the seat, and with it the item.
        return item

    def _sleep(self, seat: IdleWaiter) -> bool:
        """Sleep until the seat is given something; False once the idle limit has passed."""
        led = driver()
        # Given something by this very thread, just before it sleeps, the seat is signalled with its gate closed.
        while not seat.signalled:
            if led.sources or led.monitor.late:
                if self._unled:
                    self._rouse()
                return led.wait(seat, self.idle_limit)
            # There is nothing to lead, so the gate alone will do, in half the time.
            self._unled = True
            if self.ring and seat.work():
                continue
            if not seat.gate.acquire(True, min(self.idle_limit, TIMEOUT_MAX)):
                break
        return seat.signalled

    def _rouse(self) -> None:
        """Sources were registered while workers slept at their gates alone: have those wait in the driver instead."""
        with self._lock:
            self._unled = False
            each(Waiter.nudge, self._waiters)

    def crash(self, worker: WorkerState) -> None:
        """The worker's thread ends by an exception raised into it from outside its callback."""
        item = worker.item
        if worker.record.port is not self:
            associate(worker.record, self)
        with self._lock:
            self._recall_locked()
            self._absorb_locked()
            if isinstance(item, ObjectCallback):
                worker.done.append(item.counts)
            worker.item = None
            woken: list[Waiter] = []
            ended = self._report_locked(worker, woken)
            self._drop_slot_locked(worker)
            if worker.off_slot:
                self._return_locked(worker)
            if worker.record in self._running_workers:
                woken += self._exit_locked(worker)
            todo = self._settle_locked()
        todo[0].extend(woken)
        self.act(todo)
        del ended

    # Callbacks that run elsewhere, or are dropped

    def begin(self, item: Item) -> None:
        """Count `item` as started on a thread that is no worker."""
        with self._lock:
            self._posted += 1
            self._taken += 1
            if isinstance(item, ObjectCallback):
                item.counts.started += 1
                item.counts.running += 1

    def finish(self, runner: Runner) -> None:
        """The callback that `begin` counted returned."""
        woken: list[Waiter] = []
        with self._lock:
            self._absorb_locked()
            ended = self._report_locked(runner, woken)
            todo = self._settle_locked()
        todo[0].extend(woken)
        self.act(todo)
        del ended

    def discard(self, counts: CallbackCounts) -> None:
        """Drop what `counts` has queued, and what is on its way, which counts as if it had arrived."""
        with self._lock:
            self._recall_locked()
            self._absorb_locked()
            dropped = self._queue.discard(counts)
            coming = counts.forget_locked()
            counts.discarded += coming
            self._queue.discarded += coming
            self._posted += coming
            woken = counts.quiet_locked()
            woken += self._admit_locked(len(dropped))
            todo = self._settle_locked()
        todo[0].extend(woken)
        self.act(todo)
        del dropped

    def note_cancelled(self) -> None:
        """Something that is queued need not run any more: a thread that waits for room may `purge`."""
        with self._lock:
            self.has_cancelled: bool = True
            woken = self._admit_locked(1)
        for waiter in woken:
            waiter.wake()

    def purge(self, dead: Callable[[PlainCallback], bool]) -> list[PlainCallback]:
        """Drop the simple callbacks that are `dead`; return them. One pass over all that is queued."""
        with self._lock:
            self.has_cancelled = False
            self._absorb_locked()
            dropped = self._queue.purge(dead)
            todo = self._settle_locked()
        self.act(todo)
        return dropped

    def disassociate(self, runner: Runner, counts: CallbackCounts) -> None:
        """The callback that `runner` runs counts for `counts` no longer, except for its cleanup group."""
        with self._lock:
            if runner.disassociated:
                return
            self._absorb_locked()
            runner.disassociated = True
            counts.disassociated += 1
            woken = counts.quiet_locked()
            todo = self._settle_locked()
        todo[0].extend(woken)
        self.act(todo)

    # Turns

    def need(self) -> None:
        """Something is in the ring: see to it that a worker is awake. Takes no lock if one is, or the caller is one."""
        awake = len(self.awake)
        if awake and (awake >= self._concurrency or awake >= len(self.ring)):
            return
        runner = current.runner
        if runner is not None and runner.seat is not None and runner.port is self:
            return  # It looks into the ring before it sleeps.
        if not self._rouse_one():
            self._look()

    def _rouse_one(self) -> bool:
        """Have an idle worker look into the ring, if none is awake; False if there is none."""
        if len(self.awake) >= self._concurrency:
            return True
        with self._lock:
            seats = self._waiters.copy()
        for seat in reversed(seats):
            if seat.token:
                seat.nudge()
                return True
        return False

    def attend(self) -> None:
        """A worker has begun to run turns: have the monitor look after it."""
        if not self.watched:
            self.watched = True
            try:
                driver().monitor.watch(self)
            except BaseException:  # No memory, for one.
                self.watched = False
                raise

    def rested(self) -> None:
        """A worker has run its turns, and is idle again: look what came for the pool meanwhile."""
        if self.crowded:
            self.thin_out()
        if self.saturated or self.inbox or self._queue.depth or self.ending:
            self._look()

    # Slots

    def _drop_slot_locked(self, worker: WorkerState) -> bool:
        """Take the slot from a worker, if it has any; False if it is just coming back to its seat, or has taken from
        another port: then it has one there.
        """
        record = worker.record
        if record.port is not self:
            return False
        if record.slot == UNCOUNTED:
            seat = worker.seat
            if seat is None or not seat.leave():
                return False
            self.awake.pop(seat, None)
            self._vacate_locked(seat)
            driver().depose(seat)
        elif record.slot:
            self._active -= 1
        record.slot = False
        return True

    def _release_slot(self, record: ThreadRecord) -> None:
        """The worker blocks: its slot is free until `_retake_slot`."""
        lock = self._lock
        if not lock.acquire(False):
            acquire_late(lock)
        try:
            if not record.slot:
                return
            worker = self._running_workers.get(record)
            if worker is None or not self._drop_slot_locked(worker):
                return
            todo = self._settle_locked()
        finally:
            lock.release()
        self.act(todo)
        if worker.turns is not None:
            self._part(worker)

    def _retake_slot(self, record: ThreadRecord) -> None:
        """The worker runs again: it is active at once, past the limit if need be, unless it is off slot."""
        lock = self._lock
        if not lock.acquire(False):
            acquire_late(lock)
        try:
            worker = self._running_workers.get(record)
            if worker is not None and not worker.off_slot and not record.slot:
                record.slot = True
                self._active += 1
                worker.stuck = 0
        finally:
            lock.release()

    def leave_slot(self, worker: WorkerState) -> None:
        """The worker's callback runs without a slot from now until it returns. Called by that worker."""
        if not worker.off_slot:  # Set by others under the lock, taken back by the worker only.
            with self._lock:
                todo = self._off_slot_locked(worker)
            self.act(todo)
        driver().ensure_led()

    def spare(self, worker: WorkerState) -> bool:
        """`leave_slot`, and return whether another worker was idle or could be spawned."""
        with self._lock:
            free = len(self._waiters) > len(self.awake)
            spare = free or self._workers < self.maximum
            spawn = spare and not free and not self._starting
            if spawn:
                self._workers += 1
                self._starting += 1
            todo = self._off_slot_locked(worker)
        self.act((todo[0], todo[1] + spawn, todo[2]))
        driver().ensure_led()
        return spare

    def _off_slot_locked(self, worker: WorkerState) -> Todo:
        if not worker.off_slot:
            worker.off_slot = True
            self._off_slot += 1
        self._drop_slot_locked(worker)
        return self._settle_locked()

    def _return_locked(self, worker: WorkerState) -> None:
        worker.off_slot = False
        self._off_slot -= 1
        if worker.computes:
            worker.computes = False
            self._computing -= 1

    def tick(self) -> bool:
        """The monitor's look: take the slot from callbacks that keep others waiting."""
        now, cpu = monotonic(), process_time()
        with self._lock:
            self._absorb_locked()
            busy = cpu - self._cpu > 0.5 * (now - self._looked)
            self._looked, self._cpu = now, cpu
            self.has_prefetched = self.has_prefetched and self._prefetched_locked()
            away: list[WorkerState] = []
            self.watched = False
            # Looked at after that: `attend` looks at it when a worker is awake.
            turning = bool(self.awake or self.ring) or self._turning_locked()
            if (self._queue.depth or self.has_prefetched or turning) and not self.stopped:
                self.watched = True
                if turning or self._active + len(self.awake) >= self._concurrency:
                    crowded = PATIENCE_BUSY if self._off_slot < PROCESSORS else PATIENCE_CROWDED
                    away = self._overrunning_locked(crowded if busy else PATIENCE_IDLE, busy)
            todo = self._settle_locked()
            watched = self.watched
        self.act((todo[0], todo[1], False))
        for worker in away:
            self._depose(worker, not busy)
        return watched

    def _part(self, worker: WorkerState, overran: bool = False) -> None:
        """A worker is away in what it runs: others go on with the rest of its turn, if it is inside a routine."""
        turns, turn = worker.turns, worker.turn
        if turns is not None and turns.take_away(worker.record.ident, overran):
            worker.parted = turn
        for channel in worker.unsent.copy():  # The worker flushes them once more when it has returned.
            channel.flush()

    def _depose(self, worker: WorkerState, overran: bool) -> None:
        """The monitor has found a worker away in what it runs: others go on with the rest of its turn, and lead."""
        self._part(worker, overran)  # Asked again at the next tick, if it is not inside yet.
        with self._lock:
            if worker.turn == worker.seen and worker.record.slot and self._drop_slot_locked(worker):
                worker.off_slot = True
                self._off_slot += 1
            todo = self._settle_locked()
        self.act(todo)
        driver().ensure_led()

    def _prefetched_locked(self) -> bool:
        return any(worker.prefetched for worker in self._running_workers.values())

    def _turning_locked(self) -> bool:
        """Whether a worker runs a turn of which others may have to have the rest."""
        return any(
            worker.turns is not None and worker.parted != worker.turn for worker in self._running_workers.values()
        )

    def _overrunning_locked(self, patience: int, busy: bool) -> list[WorkerState]:
        """Take the slots of workers that are away; return those that run turns, that have theirs."""
        away: list[WorkerState] = []
        for worker in self._running_workers.values():
            item = worker.item
            if worker.turn != worker.seen:
                worker.seen = worker.turn
                worker.stuck = 0
            elif item is not None and worker.turns is not None:
                worker.stuck += 1
                if worker.stuck >= patience and (worker.parted != worker.turn or worker.record.slot):
                    away.append(worker)  # At each tick from here on, until it is inside a routine.
            elif worker.record.slot and item is not None:
                worker.stuck += 1
                if worker.stuck < patience:
                    continue
                worker.stuck = 0
                run_time = run_time_of(item)
                if run_time is not None and not busy:
                    run_time.overran()
                if self._drop_slot_locked(worker):
                    worker.off_slot = True
                    self._off_slot += 1
        return away

    def inherit(self) -> None:
        """In a forked child: the parent's threads are not here."""
        self.forked = self.stopped = self.ending = True
        self.saturated = False
        for seat in self._waiters:  # Of the forking thread, one at most: it does not go on with its wait.
            seat.leave()
        self._waiters = []
        self.ring.clear()
        self.awake.clear()
        # The forking thread may be a worker. It will return from its callback, and have no more to run.
        self._running_workers = {
            record: worker for record, worker in self._running_workers.items() if record is local.record
        }
        self._workers = len(self._running_workers)
        self._active = sum(record.slot is True and record.port is self for record in self._running_workers)
        self._off_slot = sum(worker.off_slot for worker in self._running_workers.values())
        self._starting = 0
        for worker in self._running_workers.values():
            worker.prefetched.clear()
        self.inbox.clear()
        self._queue.clear()
        self.threads.clear()


_ports: OpenObjects[WorkPort] = OpenObjects(WorkPort.inherit)
