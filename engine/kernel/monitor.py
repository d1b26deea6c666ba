"""The monitor: one thread a process that sleeps when all is idle.

Theory of operation. The monitor does the three things that cannot be left to the threads that happen to be
waiting: it fires timers; it watches, every `TICK` seconds while anything is armed, for work that is stuck
behind a thread that is away (a vacant leadership, a pool's overrun callback, calls that queue unsent); and it
leads the driver itself when a thread depends on progress and no thread waits. It runs no user code: what it
fires only queues and wakes.

    asleep --arm()--> ticking --QUIET_TICKS without business--> asleep
    ticking --vacant for a tick, no thread parked--> leading --a thread waits--> ticking

The system may refuse to start the thread. Then the monitor is *late*: the threads that wait in the library do its work
meanwhile (`stand_in`), and try again to start it, as does the next that needs it.

Guarantees: nothing that was armed before `arm` returned is forgotten; when all is idle the thread blocks for
good.

Assumes: attribute stores and loads are not reordered across a lock operation. `arm` runs after the state
that it is for was stored; the monitor clears `armed` before it looks at that state for the last time. One of the
two sees the other.
"""

import heapq
import itertools
import threading
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Protocol

from transport.foreign import is_interrupt, shown
from transport.log import Log
from transport.realtime import monotonic
from transport.service import LONGEST, Service, is_ending

from .helping import here
from .lock import Lock, each
from .waiter import Waiter

log: Log = Log("engine.kernel")

# Seconds. Under the interpreter's switch interval of 5 ms, and a hundred times the cost of a tick (~15 us).
TICK = 0.002
SWEEP = 4096  # Timers; below this a sweep for withdrawn ones saves nothing worth having.
QUIET_TICKS = 25  # Ticks without business before sleep: waking the thread costs more than 50 ms of ticking.


class Watched(Protocol):
    """What the monitor looks at on every tick until it says there is no more business."""

    def tick(self) -> bool:
        """Do what is overdue; return whether to be asked again. Must not block, run user code or raise."""


class Led(Protocol):
    """The driver, as the monitor sees it."""

    term: int  # Grows whenever a thread takes the leadership.

    def vacant(self) -> bool:
        """A thread depends on progress and no thread leads."""

    def offer(self) -> bool:
        """Offer the leadership to a parked thread; False if none is parked."""

    def stand_by(self, waiter: Waiter, until: float | None) -> None:
        """Lead until a thread wants to, or until the monotonic time `until`, or until `waiter` is woken."""

    def run_ready(self) -> bool:
        """Harvest what is there without waiting."""

    def rouse(self) -> None:
        """Have the threads that wait look around: there is no monitor."""


class TimerHandle:
    """A function that the monitor will call once at a monotonic time; `cancel` withdraws it."""

    __slots__ = ("function", "when")

    def __init__(self, when: float, function: Callable[[], None]) -> None:
        self.when: float = when
        # None once fired or withdrawn. A single store or load: whichever of `cancel` and firing comes first
        # wins.
        self.function: Callable[[], None] | None = function

    def cancel(self) -> bool:
        """Withdraw; True if the function will not be called. Safe from any thread; never blocks."""
        pending, self.function = self.function, None
        return pending is not None


def _wanted(entry: tuple[float, int, TimerHandle]) -> bool:
    return entry[2].function is not None


class Monitor:
    """Timers, ticks and the leadership of last resort. Made on first use; its thread starts on first need."""

    def __init__(self, driver: Led) -> None:
        self._driver = driver
        self._lock = Lock()
        # Guarded by _lock: the timer heap and the watched things.
        self._timers: list[tuple[float, int, TimerHandle]] = []
        self._order = itertools.count()
        self._watched: dict[Watched, None] = {}
        # What is due and was not called yet: single operations only, appended to and taken from the left by any thread.
        self._due: deque[TimerHandle] = deque()
        self._service = Service("engine:monitor", self._run, log.failed)
        # A thread is needed, and cannot be had. Set by the thread that needed it, cleared by the one that finds it
        # running; read by all who wait, before they sleep.
        self.late: bool = False
        # Held by the thread that stands in.
        self._standing_in = allocate_lock()
        # Opened to wake the thread; a second opening before it woke is harmless.
        self._bell = allocate_lock()
        self._bell.acquire()
        # True while the thread ticks. Set under _lock; read anywhere (see Assumes).
        self.armed: bool = False
        # When the sleeping thread will wake by itself; guarded by _lock.
        self._wakes_at: float | None = None
        # What ends the monitor thread's `stand_by`, None outside one; written by it alone. It is set before
        # the thread publishes when it will wake by itself, so that the thread that rings after that ends the
        # stand-by, begun or not.
        self._standing_by: Waiter | None = None
        # How many timers to have before looking for withdrawn ones; guarded by _lock.
        self._sweep_at = SWEEP

    def arm(self) -> None:
        """Tick for a while: something may be stuck. Costs an attribute read when already ticking."""
        if self.armed:
            return
        with self._lock:
            if self.armed:
                return
            self.armed = True
        self._need()
        self._ring()

    def watch(self, thing: Watched) -> None:
        """Ask `thing.tick()` on every tick until it returns False."""
        with self._lock:
            self._watched[thing] = None
        self.arm()
        if self._standing_by is not None:
            self._ring()

    def call_at(self, when: float, function: Callable[[], None]) -> TimerHandle:
        """Call the quick `function` on the monitor thread at the monotonic time `when`, never early."""
        handle = TimerHandle(when, function)
        with self._lock:
            heapq.heappush(self._timers, (when, next(self._order), handle))
            # A thread that is awake (None) looks at the heap before it sleeps; a sleeping one may need to
            # rise earlier.
            early = self._wakes_at is not None and when < self._wakes_at
            if len(self._timers) > self._sweep_at:
                # Sweeping once the heap has doubled costs each timer a constant; what was withdrawn stays
                # half at most.
                self._timers = list(filter(_wanted, self._timers))
                heapq.heapify(self._timers)
                self._sweep_at = max(SWEEP, 2 * len(self._timers))
        if not self._service.running:
            self._need()
        if early:
            self._ring()
        return handle

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call the quick `function` as soon as can be. Takes no lock and starts no thread: safe in a signal handler.

        Without a monitor the next thread that waits calls it, or the next that needs the monitor starts it.
        """
        self._due.append(TimerHandle(0.0, function))
        if self._service.running:
            self._ring()
        else:
            self.late = True
            self._driver.rouse()

    def _need(self) -> None:
        """See to it that the thread runs, or that those who wait know that it does not."""
        if not self._service.ensure() and not self.late:
            self.late = True
            if not is_ending(self._service.refusal):
                log.error("%s; who waits does the monitor's work meanwhile", self._service, later=True)
            self._driver.rouse()

    def stand_in(self) -> float:
        """Start the thread, or do what it would do now; return for how many seconds that will do. For who waits.

        In the main thread a signal handler may raise in the midst of it: what was not done yet is for the next time.
        """
        if self._service.ensure():
            self.late = False
            return LONGEST
        if not self._standing_in.acquire(False):
            return LONGEST  # Another one does it.
        try:
            next_timer = self._fire_due()
            self._tick_watched()
        finally:
            self._standing_in.release()
        until = inf if next_timer is None else next_timer - monotonic()
        return max(0.0, min(until, TICK if self._watched else LONGEST, self._service.pause_left()))

    def _ring(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:
            pass  # It was rung already and the thread has not looked yet.
        standing_by = self._standing_by
        if standing_by is not None:
            standing_by.wake()

    def _run(self) -> None:
        self.late = here.helps = False
        self._rise()
        quiet = 0
        vacant_term = -1
        while True:
            next_timer = self._fire_due()
            if not self.armed:
                self._sleep(next_timer)
                quiet = 0
                continue
            business = self._tick_watched()
            if self._driver.vacant():
                business = True
                term = self._driver.term
                # Vacant on two ticks with no thread having led between: the last leader is really away.
                if term == vacant_term and not self._driver.offer():
                    self._stand_by()
                vacant_term = term
            else:
                vacant_term = -1
            quiet = 0 if business else quiet + 1
            if quiet > QUIET_TICKS:
                self._disarm()
            else:
                self._sleep(monotonic() + TICK if next_timer is None else min(next_timer, monotonic() + TICK))

    def _disarm(self) -> None:
        with self._lock:
            self.armed = False
        # Whatever was stored before an `arm` that still saw us armed is visible now: look once more.
        if self._watched or self._driver.vacant():
            self.arm()

    def _stand_by(self) -> None:
        if self._watched:  # There are ticks to keep: harvest on each of them instead of leading.
            self._driver.run_ready()
            return
        waiter = self._standing_by = Waiter()
        try:
            until = self._settle(None)
            if not self._watched:
                self._driver.stand_by(waiter, until)
        finally:
            self._standing_by = None
            self._rise()

    def _sleep(self, until: float | None) -> None:
        until = self._settle(until)
        timeout = -1.0 if until is None else min(max(0.0, until - monotonic()), threading.TIMEOUT_MAX)
        self._bell.acquire(True, timeout)
        self._rise()

    def _settle(self, until: float | None) -> float | None:
        """Publish when the thread will wake by itself; a timer pushed since `_fire_due` is not slept over."""
        with self._lock:
            if self._timers and (until is None or self._timers[0][0] < until):
                until = self._timers[0][0]
            self._wakes_at = inf if until is None else until
        return until

    def _rise(self) -> None:
        with self._lock:
            self._wakes_at = None

    def _tick_watched(self) -> bool:
        # Taken out before the tick and put back after it: a `watch` made in between is not lost.
        with self._lock:
            things = list(self._watched)
            self._watched.clear()
        try:
            each(self._tick, things)
        except BaseException:  # A signal handler raised, in the main thread, which stands in: all are asked again.
            with self._lock:
                self._watched.update(dict.fromkeys(things))
            raise
        return bool(things)

    def _tick(self, thing: Watched) -> None:
        try:
            again = thing.tick()
        except BaseException as error:
            if is_interrupt(error):
                raise
            log.error("a monitor tick of %s failed; it is watched no longer", shown(thing), exc_info=error, later=True)
            return
        if again:
            with self._lock:
                self._watched[thing] = None

    def _take_due_locked(self) -> None:
        now, timers, due = monotonic(), self._timers, self._due
        while timers and (timers[0][0] <= now or not _wanted(timers[0])):
            due.append(heapq.heappop(timers)[2])

    def _fire_due(self) -> float | None:
        """Fire what is due; return when the next timer is, or None."""
        while True:
            with self._lock:
                timers = self._timers
                self._take_due_locked()
                if not self._due:
                    return timers[0][0] if timers else None
            self._fire()

    def _fire(self) -> None:
        """Call what is due."""
        due = self._due
        while due:
            try:
                handle = due.popleft()
            except IndexError:
                return  # Taken by another thread, which stood in.
            function, handle.function = handle.function, None
            if function is None:
                continue
            try:
                function()
            except BaseException as error:
                if is_interrupt(error):
                    raise
                log.error("a timer function %s failed", shown(function), exc_info=error, later=True)
