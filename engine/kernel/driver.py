"""The driver: the one poll set of a process, led by whichever thread is waiting anyway.

Theory of operation. Sources (links, overlapped sockets) register the descriptors whose readability means
"harvest me" (sources.py). Every blocking wait of the library goes through `wait`. There the thread either *leads*: it
polls all sources and harvests what it finds, itself, until its own wait is satisfied, so that a reply needs no
hand-over between threads; or, while another thread leads, it *parks* on the gate of its waiter. Which of the two it
does, and how the leadership passes to another thread, is a table in leadership.py.

What has arrived counts, though no thread has harvested it yet: a wait whose time is up, a limit, an abort and a query
that polls look first (`catch_up`, `look_around`, `harvest`).

A processor with nothing to do halts, and waking it takes longer than a quick call does. So a thread that expects what
it will wait for a moment later (`spin_until`) polls again and again for a while, if it leads, before it sleeps.

A ZeroMQ descriptor is edge-triggered: any send or receive may consume its readiness. So what used a source from
outside calls `mark_ready`: if a thread is polling now, the caller harvests in its place; if not, the next leader
drives the source before it polls. Event loops poll too: they *watch* a second poll set, without the bell, and call
`run_ready`.

    who calls                                             what                            harvests
    who used a source from outside its harvest            mark_ready                      if a thread is polling now, or
                                                                                          an event loop watches
    who wants a source looked at before the next poll     schedule, unschedule            never
    who has scheduled something, and goes on              run_scheduled                   as mark_ready
    an event loop, and the monitor on its ticks           run_ready                       what is scheduled, and ready
    a wait whose time is up                               catch_up                        run_ready, until it has found
    a query that polls                                    look_around                     catch_up, if no thread leads
    a limit or an abort, before it decides                harvest                         one source, and sends nothing

Guarantees: harvesting runs outside the driver's mutex, so sources may wake waiters, mark themselves ready and
unregister from inside it; a thread that is inside a harvest does not begin another one, what it marks is driven after
it.

Assumes: reads and writes of one attribute and `dict` insertion and removal of one key are atomic, and are not
reordered across a lock operation. `mark_ready` adds to `_scheduled` before it reads `_polling`; a leader sets
`_polling` before it empties `_scheduled`: one of the two sees the other. The same holds for `Waiter.signalled`
and `Waiter.interrupt`.
"""

import os
from _thread import get_ident
from collections.abc import Callable
from itertools import islice, repeat, starmap
from math import inf
from sys import modules

from transport.log import Log, asked
from transport.realtime import monotonic

from ..lifecycle import in_child
from .helping import ONCE, Helped, here, relief
from .helping import ring as common
from .leadership import Leadership
from .lock import Lock, each
from .loops import loop_to_hold, warn_of_holding
from .monitor import Monitor
from .poll import READABLE, make_poll
from .sources import Conversing, Source
from .waiter import Waiter

log: Log = Log("engine.kernel")

FOREVER = 3600.0  # Seconds that one poll or park may last; loops go round, so this bounds a system call only.

_GONE = object()

# Processors that this process may use.
PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

SILENCES = 3  # How many sources an error names, at most.

ROUNDS = 64  # Harvests in a row of one thread that looks what has arrived; arbitrary: a flood must not hold it.


class Driver(Leadership):
    """The poll set that all waits of a process share. Use `engine.kernel.driver.driver()` to reach it."""

    term: int
    leader_ident: int

    def __init__(self) -> None:
        super().__init__(Monitor(self))
        # Until when which thread is to stay awake when it leads; None: it may sleep. A hint, written by that thread.
        self._awake: tuple[float, int] | None = None
        # The threads that harvest though they do not lead; each puts and removes itself.
        self._harvesting: set[int] = set()
        # `schedule(source)` has the source driven before the next poll or park of any thread. The dictionary's own
        # method, as each batch of calls that is begun calls it; it stores None.
        self.schedule: Callable[[Source], object] = self._scheduled.setdefault
        # `unschedule(source, None)` takes back `schedule` or `mark_ready`: there is nothing to harvest or to send.
        # Under the source's own lock. The dictionary's own method, as each message that is sent calls it.
        self.unschedule: Callable[[Source, None], None] = self._scheduled.pop
        # Event loops that watch: what to call when there is something to harvest that no descriptor shows.
        self._watchers: dict[Callable[[], None], None] = {}

    # Sources

    def register(self, source: Source) -> None:
        """Poll `source` from now on. Any thread; never blocks. Raises: OSError if the system has no descriptor left."""
        with self._mutex:
            self._poll_locked(source)
        self._poll_again()
        self.mark_ready(source)
        self.ensure_led()

    def unregister(self, source: Source) -> None:
        """Poll `source` no longer; to be called before its descriptors are closed. A harvest may go on."""
        with self._mutex:
            self._forget_locked(source)
            self._resting.pop(source, None)
            self._failing.pop(source, None)
            standby = None if self._needing_progress or self.registered else self._standby
        if standby is not None:
            standby.wake()  # No thread depends on the monitor's leading any more.

    def moved(self, source: Source) -> None:
        """Poll the descriptors that `source` says it has now, not those it had. Under its own lock, if it has one."""
        with self._mutex:
            if source in self.sources:
                self._unpoll_locked(source)
                self._poll_locked(source)
        self._poll_again()

    def _poll_again(self) -> None:
        """What is polled has changed: a poll that is under way may not know."""
        if self._polling and not self._live:
            self._bell.ring()

    def needs_progress(self, source: Source, wanted: bool) -> None:
        """Say whether `source` needs progress while no thread waits; the monitor then sees to it."""
        with self._mutex:
            if source in self._resting:
                self._resting[source] = wanted
            else:
                self._needs_progress_locked(source, wanted)
            standby = None if self._needing_progress or self.registered else self._standby
        if standby is not None:
            standby.wake()
        elif self.vacant():
            self.monitor.arm()

    def _resume(self, source: Source) -> None:
        if self._poll_rested(source):
            self._poll_again()
            self.mark_ready(source)
            self.ensure_led()

    def mark_ready(self, source: Source) -> None:
        """Note that `source` was used from outside, or has more to harvest than a descriptor shows."""
        self._scheduled[source] = None
        self.run_scheduled()

    def run_scheduled(self, waits: bool = False) -> None:
        """Drive what is scheduled in place of the leader, if another thread is polling now, or if the caller `waits`.

        Not if this thread is doing so: it looks again before it polls.
        """
        if not (waits or self._polling or self._watchers):
            return
        me = get_ident()
        if me == self.leader_ident or me in self._harvesting:
            return
        try:
            self._harvesting.add(me)
            self._drive_scheduled()
            if waits and self._scheduled:  # What was sent to the other end of an in-memory link, for one.
                self._drive_scheduled()
        finally:
            self._harvesting.discard(me)
        if self._scheduled:
            # One pass is enough for a thread that has other things to do: the rest is for the thread that polls.
            if self._polling:
                self._bell.ring()
            for call in list(self._watchers):
                call()

    def spin_until(self, until: float) -> None:
        """What the calling thread will wait for now is expected before `until` (as `time.monotonic` counts).

        If it leads then, it does not sleep meanwhile. Only who sent something should say so, about the answer: a thread
        that waits for what others do would keep the interpreter from them. Nor is anything done where there is one
        processor. Costs an attribute store.
        """
        if PROCESSORS > 1:
            self._awake = until, get_ident()

    def run_ready(self) -> bool:
        """Harvest what is there without waiting; True if there may be more. For polls and event loops."""
        me = get_ident()
        if me == self.leader_ident or me in self._harvesting:
            return False
        try:
            self._harvesting.add(me)
            self._drive_scheduled()
            silenced = self._drive_ready(self._poll.poll(0))
        finally:
            self._harvesting.discard(me)
        # The bell may have been meant for a leader that began to poll just now; or there is more for it.
        if self._polling and (silenced or self._scheduled):
            self._bell.ring()
        return bool(self._scheduled)

    def catch_up(self, found: Callable[[], bool] = bool) -> None:
        """Harvest what has arrived by now, without waiting, until `found()`. For who gives up if it finds nothing."""
        for _ in repeat(None, ROUNDS):
            if not self.run_ready() or found():
                return

    def look_around(self) -> None:
        """Harvest what has arrived by now, unless a thread leads, which does so. For queries that poll."""
        if self._leader is None and self.sources:
            self.catch_up()

    def harvest(self, source: "Conversing") -> None:
        """Harvest what has arrived at this source by now, and send nothing. For limits and aborts, which then decide.

        Inside a harvest nothing is done.
        """
        me = get_ident()
        if me == self.leader_ident or me in self._harvesting or source not in self.sources:
            return
        more = False
        try:
            self._harvesting.add(me)
            more = _harvest_all(source)
        except BaseException as error:
            self._failed(source, error)
        finally:
            self._harvesting.discard(me)
        if more:
            self.mark_ready(source)

    def silence(self) -> str:
        """Why nothing may have come, as far as the sources know: what to append to the text of an error."""
        known = filter(None, (getattr(source, "silence", str)() for source in list(self.sources)))
        reasons = list(islice(known, SILENCES))
        return f": {'; '.join(reasons)}" if reasons else ""

    # Help

    def seek_help(self, has: list[Helped]) -> None:
        """Put what `has` holds into the ring of help; for a thread that `may_help`, and so may do it itself."""
        if not relief.watched:
            self._watch_help()
        common.extend(starmap(has.pop, ONCE))
        if not relief.watched:  # Its last look was just before.
            self._watch_help()
        if here.waiter is not None:
            return  # It looks into the ring before it sleeps.
        # It may come to wait, or not. So another thread is notified that waits already.
        waiter = self._leader
        if waiter is not None and waiter.ring is common:
            waiter.nudge()
            return
        try:
            for parked in reversed(self._parked):
                if parked.ring is common:
                    parked.nudge()
                    return
        except RuntimeError:
            pass  # One has just parked or left: it is a matter of a tick at the most.

    def _watch_help(self) -> None:
        relief.watched = True
        try:
            self.monitor.watch(relief)
        except BaseException:
            relief.watched = False
            raise

    # Event loops

    def watch(self, call: Callable[[], None]) -> int:
        """Begin to watch for an event loop; return a descriptor, readable while `run_ready` has work.

        `call()` is called, on any thread, when there is work that no descriptor shows. Returns -1
        where the platform has no such descriptor, or none is left.
        """
        with self._mutex:
            if self._watch is None:
                try:
                    watch = make_poll()
                    each(lambda fd: watch.register(fd, READABLE), self._by_fd)
                except OSError:
                    return -1
                self._watch = watch
            fd = self._watch.fileno()
            if fd >= 0:
                self._watchers[call] = None
        if self._scheduled:
            call()
        return fd

    def unwatch(self, call: Callable[[], None]) -> None:
        """End `watch`."""
        with self._mutex:
            self._watchers.pop(call, None)
        if self.vacant():
            self.monitor.arm()

    # Waiting

    def wait(self, waiter: Waiter, timeout: float | None) -> bool:
        """Lead or park until `waiter` is signalled; return whether it is.

        `timeout` is in seconds, None for ever. Raises what a signal handler raises (KeyboardInterrupt): the
        caller then takes its waiter back, as after a timeout. So it does in the thread of a running event loop if
        what is raised there is the warning.
        """
        if timeout != 0 and "asyncio.runners" in modules and (loop := loop_to_hold()) is not None:
            if self.sources:
                self.catch_up(lambda: waiter.signalled)  # What has arrived is not waited for.
            if not waiter.signalled:
                warn_of_holding(loop)
        outer = here.waiter
        if outer is not None and here.has:
            here.has[0].part(here.has)
        try:
            here.waiter = waiter
            self._wait(waiter, None if timeout is None else monotonic() + timeout)
        finally:
            here.waiter = outer
            if self._successor is waiter:
                self._decline(waiter)
        if not waiter.signalled and self.sources:
            # The time is up. What has arrived meanwhile counts, whichever thread was to harvest it.
            self.catch_up(lambda: waiter.signalled)
        return waiter.signalled

    def _wait(self, waiter: Waiter, deadline: float | None) -> None:
        while not waiter.signalled:
            if self._scheduled:
                # A leader would do it before it polls; a thread that is about to park has no other to leave it to.
                self.run_scheduled(True)
                if waiter.signalled:
                    break
            if not (waiter.ring and waiter.work()):
                try:
                    if self._take_lead(waiter):
                        self._lead(waiter, deadline)
                    elif self.monitor.late:
                        left = inf if deadline is None else deadline - monotonic()
                        waiter.gate.acquire(True, max(0.0, min(left, self.monitor.stand_in())))
                    elif deadline is None:
                        waiter.gate.acquire()  # Without a limit it costs 1-2 us less.
                    elif (left := min(deadline - monotonic(), FOREVER)) > 0:
                        waiter.gate.acquire(True, left)
                finally:
                    try:
                        self._leave(waiter)
                    except BaseException:  # By a signal handler: a leader left behind would stop everybody.
                        self._leave(waiter)
                        raise
            if deadline is not None and monotonic() >= deadline:
                break

    def _lead(self, waiter: Waiter, deadline: float | None) -> None:
        interrupt = self._bell.ring
        poll = self._poll.poll
        ring, me = waiter.ring, self.leader_ident
        while not waiter.signalled and self._successor is None:
            if ring:
                if ring is common:
                    return  # It helps without leading: what it runs may wait, against its promise.
                # What it runs may harvest, as any other thread. It leads on while it runs, unless it is deposed: then
                # its wait is over.
                self.leader_ident = 0
                waiter.work()
                if waiter.signalled:
                    return
                self.leader_ident = me
            self._polling = True
            longest = self.monitor.stand_in() if self.monitor.late else FOREVER
            if self._scheduled:
                self._drive_scheduled()
            # Set for the poll only: what this thread harvests itself needs no bell to be noticed.
            waiter.interrupt = interrupt
            if waiter.signalled:
                return
            timeout = longest
            if deadline is not None:
                timeout = min(deadline - monotonic(), longest)
                if timeout <= 0:
                    return
            ready = self._poll_awake(timeout) if self._awake is not None else None
            if not ready:
                ready = poll(0.0 if self._scheduled or ring else timeout)
            waiter.interrupt = None
            self._polling = False
            if not self._drive_ready(ready) and ready and not waiter.signalled and not ring:
                self._misses += 1

    def _poll_awake(self, timeout: float) -> list[tuple[int, int]] | None:
        """Poll without sleeping for as long as `spin_until` says; the leader's."""
        awake, self._awake = self._awake, None
        if awake is None or awake[1] != self.leader_ident:
            return None
        until = min(awake[0], monotonic() + timeout)
        ready = None
        poll = self._poll.poll
        while not ready and not self._scheduled and monotonic() < until:
            ready = poll(0.0)
        return ready

    def _drive_scheduled(self) -> None:
        scheduled = self._scheduled
        for source in list(scheduled):
            try:
                # The thread that takes the entry out does the work.
                if scheduled.pop(source, _GONE) is not _GONE and source.drive(False):
                    scheduled[source] = None
            except BaseException as error:
                self._failed(source, error)

    def _drive_ready(self, ready: list[tuple[int, int]]) -> bool:
        """Drive the sources of these descriptors; return whether the bell was among them and silenced."""
        silenced = False
        for fd, _ in ready:
            source = self._by_fd.get(fd)
            if source is not None:
                try:
                    if source.drive(True):
                        self._scheduled[source] = None
                except BaseException as error:
                    self._failed(source, error)
            elif fd == self._bell.fd and not self._polling:  # A leader that polls hears it by itself.
                self._bell.silence()
                silenced = True
        return silenced

    # The monitor's side

    def rouse(self) -> None:
        """Have all who wait look around: there is no monitor, so they stand in for it."""
        if self._polling:
            self._bell.ring()
        for waiter in list(self._parked):
            waiter.nudge()
        for call in list(self._watchers):
            call()

    def stand_by(self, waiter: Waiter, until: float | None) -> None:
        """Lead on the monitor's thread until a thread waits, `waiter` is woken or the time is `until`."""
        with self._mutex:
            if self._leader is not None or self._parked:
                return
            self._leader = waiter
            self._misses = 0
            self._standby = waiter
            self.term += 1
            self.leader_ident = get_ident()
        try:
            self._lead(waiter, until)
        finally:
            with self._mutex:
                self._standby = None
            self._leave(waiter)
            self.ensure_led()


def _harvest_all(source: Conversing) -> bool:
    """Harvest until nothing is left; return whether there is more than one thread should take in a row."""
    return all(source.drive(True, False) for _ in repeat(None, ROUNDS))


_driver: Driver | None = None
_driver_lock = Lock()


def driver() -> Driver:
    """Return the process's driver, making it on first use; a forked child gets its own."""
    global _driver
    found = _driver
    if found is None:
        with _driver_lock:
            if _driver is None:
                _driver = Driver()
            found = _driver
    return found


def _harvests(ident: int) -> bool:
    """Whether the thread of that identifier leads, or harvests in the leader's place: others depend on it."""
    found = _driver
    return found is not None and (ident == found.leader_ident or ident in found._harvesting)


asked.append(_harvests)


@in_child
def _forget() -> None:
    # The parent's threads are not here: no leader, no thread parked, no monitor. The inherited poll set is
    # shared with the parent, so it is left alone and a new one is made on first use.
    global _driver
    _driver = None
