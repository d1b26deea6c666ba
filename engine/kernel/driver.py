"""The driver: the one poll set of a process, led by whichever thread is waiting anyway.

Theory of operation. Sources (links, overlapped sockets) register the descriptors whose readability means
"harvest me". Every blocking wait of the library goes through `wait`. There the thread either *leads*: it
polls all sources and harvests what it finds, itself, until its own wait is satisfied, so that a reply needs
no hand-over between threads; or, while another thread leads, it *parks* on its waiter's gate.

    running --wait--> leading --own wait satisfied--> running     (a vacancy is left: nobody is woken for it)
    running --wait--> parked  --own wait satisfied--> running
    parked  --nudged--> leading

The leadership goes where the work goes. A leader whose last `MISPLACED` polls in a row brought something, but
never what it waits for itself (the main thread of a service, waiting for its stop), yields to the next thread
that comes to wait: that one is named the heir, and the leader parks in its place.

A vacancy is filled by the next thread that waits. The monitor fills it when that takes longer than a tick
while somebody depends on progress: a parked thread, an *attended* source (a server, a call that will be
told by callback), or a *registered* wait, in which no thread sleeps, on something that a harvest may signal.

What has arrived counts, though nobody has harvested it yet: a wait whose time is up, a limit, an abort and a query
that polls look first (`catch_up`, `look_around`, `harvest`).

A processor with nothing to do halts, and waking it takes longer than a quick call does. So a thread that is told that
what it will wait for is a moment away (`stay_awake`) asks again and again for a while, if it leads, before it sleeps.

A ZeroMQ descriptor is edge-triggered: any send or receive may consume its readiness. So whoever used a source
from outside calls `touched`: if a thread is polling now, the caller harvests in its place; if not, the next
leader looks at the source before it polls. Event loops poll too: they *watch* a second poll set, without the
bell, and call `run_ready`.

Guarantees: at most one leader; a parked thread is never forgotten while sources exist; harvesting runs
outside the driver's mutex, so sources may wake waiters, touch and unregister from inside it; a thread that is
inside a harvest does not begin another one, what it touches is looked at after it.

Assumes: reads and writes of one attribute and `dict` insertion and removal of one key are atomic, and are not
reordered across a lock operation. `touched` adds to `_touched` before it reads `_polling`; a leader sets
`_polling` before it empties `_touched`: one of the two sees the other. The same holds for `Waiter.signalled`
and `Waiter.interrupt`.
"""

import os
from _thread import get_ident
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice, repeat
from math import inf
from sys import modules
from typing import Protocol

from transport.foreign import type_name
from transport.log import Log, asked
from transport.realtime import monotonic
from transport.service import LONGEST, Pause

from ..lifecycle import in_child
from .each import each
from .lock import Lock
from .loops import loop_to_hold, warn_of_holding
from .monitor import Monitor
from .poll import READABLE, Bell, PlainPoll, Poll, Unopened, make_poll
from .waiter import Waiter

log: Log = Log("engine.kernel")

FOREVER = 3600.0  # Seconds that one poll or park may last; loops go round, so this bounds a system call only.


class Source(Protocol):
    """Something the driver polls. It must be hashable by identity."""

    def descriptors(self) -> Sequence[int]:
        """The file descriptors (or, on Windows, socket handles) to watch for readability."""

    def drive(self, readable: bool) -> bool:
        """Harvest what is there; True if there may be more. On any thread; must not block or wait, nor raise.

        One that raises all the same rests for a moment, longer each time, and its `failed(error)`, if it has that, is
        called: it ends what cannot go on.

        `readable`: a descriptor of the source was just seen to be readable; else only the source itself can
        tell. In the main thread a signal handler may raise in the midst of it (KeyboardInterrupt): then it is
        called again, by this or another thread, and what it had begun is for the source to mend.
        """


class Conversing(Source, Protocol):
    """A source that also sends."""

    def drive(self, readable: bool, sends: bool = True) -> bool:
        """As any source; without `sends` it only harvests."""

    def silence(self) -> str:
        """Why nothing comes, for people, if the source knows of something; else ""."""


_GONE = object()
UNOPENED = Unopened()

# Processors that this process may use.
PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

SILENCES = 3  # How many sources an error names, at most.

ROUNDS = 64  # Harvests in a row of one thread that looks what has arrived; arbitrary: a flood must not hold it.

MISPLACED = 4  # Polls in a row for others only: two threads that take turns should not unseat each other.


class Driver:
    """The poll set that all waits of a process share. Use `engine.kernel.driver.driver()` to reach it."""

    def __init__(self) -> None:
        self._mutex = Lock()
        # Guarded by _mutex. Invariant: _leader is a waiter inside `_lead`, or None.
        self._leader: Waiter | None = None
        # Waiters on their gate; insertion order is parking order. Each is put and removed by itself, removed also
        # by `offer`; single-key operations, under _mutex where they go with a decision about the leadership.
        self._parked: dict[Waiter, None] = {}
        # Grows with each term of leadership; written under _mutex, read anywhere.
        self._term = 0
        # Guarded by _mutex; read by the leader without it, which hears the bell after it was stored. A parked
        # waiter that shall lead next, nobody else; None: whoever comes first.
        self._heir: Waiter | None = None
        # Polls in a row that brought the leader nothing of its own. Written by the leader, read as a hint.
        self._foreign = 0
        # Sources that need progress though nobody waits; guarded by _mutex.
        self._attended: dict[Source, None] = {}
        # Pending waits in which no thread sleeps, by identity: they too need progress though nobody waits. Single-key
        # operations only, by whoever links and unlinks the wait, who may hold any lock.
        self.registered: dict[int, None] = {}
        # Guarded by _mutex; read by the leader without it (an entry that vanished meanwhile is skipped).
        self._by_fd: dict[int, Source] = {}
        self.sources: dict[Source, list[int]] = {}
        # Guarded by _mutex. Sources whose harvest has failed, with the pause that follows; of those that are not polled
        # meanwhile, whether they are attended.
        self._failing: dict[Source, Pause] = {}
        self._resting: dict[Source, bool] = {}
        # Sources to look at before polling (see Assumes).
        self._touched: dict[Source, None] = {}
        # True from before the leader empties _touched until it has come back from the poll. Leader only.
        self._polling = False
        # Until when which thread is to stay awake when it leads; None: it may sleep. A hint, written by that thread.
        self._awake: tuple[float, int] | None = None
        # The threads that harvest though they do not lead; each puts and removes itself.
        self._helping: set[int] = set()
        # Event loops that watch: what to call when there is something to harvest that no descriptor shows.
        self._watchers: dict[Callable[[], None], None] = {}
        self._watch: Poll | None = None  # Made on first use; guarded by _mutex.
        # The thread that leads, 0 if none; written by that thread, so comparing it with oneself is exact.
        self.leader_ident: int = 0
        # Made with the first source: waits and timers need no descriptor. Guarded by _mutex; read by whoever has seen a
        # source, or polls.
        self._bell: Bell | Unopened = UNOPENED
        self._poll: Poll = UNOPENED
        # Whether what is registered while a thread polls is polled by it.
        self._live = True
        self._standby: Waiter | None = None
        self.monitor: Monitor = Monitor(self)

    # Sources

    def register(self, source: Source) -> None:
        """Poll `source` from now on. Any thread; never blocks. Raises: OSError if the system has no descriptor left."""
        with self._mutex:
            self._poll_locked(source)
        self._poll_again()
        self.touched(source)
        self.ensure_led()

    def unregister(self, source: Source) -> None:
        """Poll `source` no longer; to be called before its descriptors are closed. A harvest may go on."""
        with self._mutex:
            self._forget_locked(source)
            self._resting.pop(source, None)
            self._failing.pop(source, None)
            standby = None if self._attended or self.registered else self._standby
        if standby is not None:
            standby.wake()  # Nobody depends on the monitor's leading any more.

    def moved(self, source: Source) -> None:
        """Poll the descriptors that `source` says it has now, not those it had. Under its own lock, if it has one."""
        with self._mutex:
            if source in self.sources:
                self._unpoll_locked(source)
                self._poll_locked(source)
        self._poll_again()

    def _open_locked(self) -> None:
        """Have a bell and a poll set; what cannot be had now is tried again with the next source."""
        if self._bell is UNOPENED:
            self._bell = Bell()
        poll = make_poll()
        poll.register(self._bell.fd, READABLE)
        self._live = not isinstance(poll, PlainPoll)
        self._poll = poll

    def _poll_locked(self, source: Source) -> None:
        if self._poll is UNOPENED:
            self._open_locked()
        self.sources[source] = []
        try:
            self._register_locked(source)
        except BaseException:  # Not a descriptor that can be polled.
            self._forget_locked(source)
            raise

    def _register_locked(self, source: Source) -> None:
        for fd in source.descriptors():
            self._by_fd[fd] = source
            self.sources[source].append(fd)
            for poll in self._polls():
                poll.register(fd, READABLE)

    def _poll_again(self) -> None:
        """What is polled has changed: a poll that is under way may not know."""
        if self._polling and not self._live:
            self._bell.ring()

    def _unpoll_locked(self, source: Source) -> None:
        for fd in self.sources.pop(source, ()):
            self._by_fd.pop(fd, None)
            for poll in self._polls():
                try:
                    poll.unregister(fd)
                except (OSError, KeyError, ValueError):
                    log.debug("descriptor %d was closed before its source was unregistered", fd, later=True)

    def _forget_locked(self, source: Source) -> None:
        self._unpoll_locked(source)
        self._attended.pop(source, None)
        self._touched.pop(source, None)

    def _polls(self) -> "Iterator[Poll]":
        yield self._poll
        if self._watch is not None:
            yield self._watch

    def attend(self, source: Source, wanted: bool) -> None:
        """Say whether `source` needs progress while no thread waits; the monitor then sees to it."""
        with self._mutex:
            if source in self._resting:
                self._resting[source] = wanted
            else:
                self._attend_locked(source, wanted)
            standby = None if self._attended or self.registered else self._standby
        if standby is not None:
            standby.wake()
        elif self.vacant():
            self.monitor.arm()

    def _attend_locked(self, source: Source, wanted: bool) -> None:
        if wanted:
            self._attended[source] = None
        else:
            self._attended.pop(source, None)

    def touched(self, source: Source) -> None:
        """Tell that `source` was used from outside, or has more to harvest than a descriptor shows."""
        self._touched[source] = None
        self.look()

    def look(self) -> None:
        """Drive what is due in place of the leader, if another thread is polling now."""
        if self._polling or self._watchers:
            self._help()

    def _help(self) -> None:
        """Drive what was touched, unless this thread is doing so: it looks again before it polls."""
        me = get_ident()
        if me == self.leader_ident or me in self._helping:
            return
        try:
            self._helping.add(me)
            self._drive_touched()
        finally:
            self._helping.discard(me)
        if self._touched:
            # One pass is enough for a thread that has other things to do: the rest is for whoever polls.
            if self._polling:
                self._bell.ring()
            for call in list(self._watchers):
                call()

    def due(self, source: Source) -> None:
        """Have `source` driven before the next poll or park of any thread. Costs a dictionary store."""
        self._touched[source] = None

    def stay_awake(self, until: float) -> None:
        """What the calling thread will wait for now is expected before `until` (as `time.monotonic` counts).

        If it leads then, it does not sleep meanwhile. Only who sent something should say so, about the answer: a thread
        that waits for what others do would keep the interpreter from them. Nor is anything done where there is one
        processor. Costs an attribute store.
        """
        if PROCESSORS > 1:
            self._awake = until, get_ident()

    def withdraw(self, source: Source) -> None:
        """Take back `due` or `touched`: there is nothing to harvest or to send. Under the source's own lock."""
        self._touched.pop(source, None)

    def run_ready(self) -> bool:
        """Harvest what is there without waiting; True if there may be more. For polls and event loops."""
        me = get_ident()
        if me == self.leader_ident or me in self._helping:
            return False
        try:
            self._helping.add(me)
            self._drive_touched()
            silenced = self._drive_ready(self._poll.poll(0))
        finally:
            self._helping.discard(me)
        # The bell may have been meant for a leader that began to poll just now; or there is more for it.
        if self._polling and (silenced or self._touched):
            self._bell.ring()
        return bool(self._touched)

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
        if me == self.leader_ident or me in self._helping or source not in self.sources:
            return
        more = False
        try:
            self._helping.add(me)
            more = _harvest_all(source)
        except BaseException as error:
            self._failed(source, error)
        finally:
            self._helping.discard(me)
        if more:
            self.touched(source)

    def silence(self) -> str:
        """Why nothing may have come, as far as the sources know: what to append to the text of an error."""
        known = filter(None, (getattr(source, "silence", str)() for source in list(self.sources)))
        reasons = list(islice(known, SILENCES))
        return f": {'; '.join(reasons)}" if reasons else ""

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
        if self._touched:
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
        if timeout != 0 and "asyncio.events" in modules and (loop := loop_to_hold()) is not None:
            if self.sources:
                self.catch_up(lambda: waiter.signalled)  # What is there already is not waited for.
            if not waiter.signalled:
                warn_of_holding(loop)
        try:
            self._wait(waiter, None if timeout is None else monotonic() + timeout)
        finally:
            if self._heir is waiter:
                self._renounce(waiter)
        if not waiter.signalled and self.sources:
            # The time is up. What has arrived meanwhile counts, whichever thread was to harvest it.
            self.catch_up(lambda: waiter.signalled)
        return waiter.signalled

    def _wait(self, waiter: Waiter, deadline: float | None) -> None:
        while not waiter.signalled:
            if self._touched:
                # A leader would do it before it polls; a thread that is about to park has nobody to leave it to.
                self._help()
                if waiter.signalled:
                    break
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

    def ensure_led(self) -> None:
        """Offer a vacant leadership to a parked thread at once: the caller is going to be away."""
        if self.vacant() and not (self._parked and self.offer()):
            self.monitor.arm()

    def _take_lead(self, waiter: Waiter) -> bool:
        """Become the leader, or be listed as parked."""
        if not self.sources and self._heir is not waiter:
            # There is nothing to lead: the short way. Listed first, looked again after that; whoever registers
            # the first source looks at the list after it.
            self._parked[waiter] = None
            if not self.sources:
                return False
        mutex = self._mutex
        if mutex.owned():
            mutex.refuse()
        try:
            mutex.acquire()
            heir = self._heir
            if self._leader is None and self.sources and (heir is None or heir is waiter):
                self._leader = waiter
                self._heir = None
                self._foreign = 0
                self._term += 1
                self.leader_ident = get_ident()
                mutex.release()
                return True
            if heir is waiter and not self.sources:
                # Its turn came when there is nothing to lead. Kept as the heir, it would keep others from leading
                # what is registered later.
                heir = self._heir = None
            self._parked[waiter] = None
            standby = self._standby
            misplaced = self._leader is not None and self._foreign >= MISPLACED
            usurps = misplaced and standby is None and heir is None
            if usurps:
                self._heir = waiter
        except BaseException:
            if mutex.owned():
                mutex.release()
            raise
        mutex.release()
        if standby is not None:
            standby.wake()  # A waiting thread outranks the monitor, which offers the leadership as it leaves.
        elif usurps:
            self._bell.ring()
        return False

    def _renounce(self, waiter: Waiter) -> None:
        """The heir's wait ended before it led."""
        with self._mutex:
            if self._heir is waiter:
                self._heir = None
        if self.vacant():
            self.monitor.arm()

    def _leave(self, waiter: Waiter) -> None:
        """Lead no longer, be parked no longer."""
        self._parked.pop(waiter, None)
        if self._leader is waiter:  # Only its own thread makes a waiter the leader, so this is exact.
            self._polling = False
            waiter.interrupt = None
            mutex = self._mutex
            if mutex.owned():
                mutex.refuse()
            try:
                mutex.acquire()
                self._leader = None
                self.leader_ident = 0
                heir = self._heir
            except BaseException:
                if mutex.owned():
                    mutex.release()
                raise
            mutex.release()
            if heir is not None:
                heir.nudge()
        # Others may depend on progress; and a thread that was offered the leadership may leave without having
        # taken it.
        if not self.monitor.armed and (self._attended or self._parked or self.registered) and self.vacant():
            self.monitor.arm()

    def _lead(self, waiter: Waiter, deadline: float | None) -> None:
        ring = self._bell.ring
        poll = self._poll.poll
        while not waiter.signalled and self._heir is None:
            self._polling = True
            longest = self.monitor.stand_in() if self.monitor.late else FOREVER
            if self._touched:
                self._drive_touched()
            # Set for the poll only: what this thread harvests itself needs no bell to be noticed.
            waiter.interrupt = ring
            if waiter.signalled:
                return
            timeout = longest
            if deadline is not None:
                timeout = min(deadline - monotonic(), longest)
                if timeout <= 0:
                    return
            ready = self._poll_awake(timeout) if self._awake is not None else None
            if not ready:
                ready = poll(0.0 if self._touched else timeout)
            waiter.interrupt = None
            self._polling = False
            if not self._drive_ready(ready) and ready and not waiter.signalled:
                self._foreign += 1

    def _poll_awake(self, timeout: float) -> list[tuple[int, int]] | None:
        """Poll without sleeping for as long as `stay_awake` says; the leader's."""
        awake, self._awake = self._awake, None
        if awake is None or awake[1] != self.leader_ident:
            return None
        until = min(awake[0], monotonic() + timeout)
        ready = None
        poll = self._poll.poll
        while not ready and not self._touched and monotonic() < until:
            ready = poll(0.0)
        return ready

    def _drive_touched(self) -> None:
        touched = self._touched
        for source in list(touched):
            try:
                # Whoever takes the entry out does the work.
                if touched.pop(source, _GONE) is not _GONE and source.drive(False):
                    touched[source] = None
            except BaseException as error:
                self._failed(source, error)

    def _failed(self, source: Source, error: BaseException) -> None:
        """A harvest raised: stop it, or go on raising."""
        if not isinstance(error, Exception):  # A signal handler raised: what was there to be seen is still there.
            self._touched[source] = None
            raise error
        try:
            told = f"it is polled again in {self._rest(source):g} s"
        except Exception as failure:  # No memory, for one: it is polled as before, by whoever waits.
            self._touched[source] = None
            told = f"it is polled on, because it cannot be left alone ({type_name(failure)})"
        log.error("the source %r failed; %s", source, told, exc_info=error, later=True)
        try:
            getattr(source, "failed", _tell_nobody)(error)
        except Exception as failure:
            log.error("the source %r failed when it was told that it had", source, exc_info=failure, later=True)

    def _rest(self, source: Source) -> float:
        """Poll a source that has failed no longer, but again after a pause, which is returned.

        It would fail again at once, and for ever, in threads that have nothing to do with it. Who will poll it again is
        settled before it is forgotten.
        """
        with self._mutex:
            if source not in self.sources:
                return 0.0  # Unregistered meanwhile, or it rests already.
            pause = self._failing.setdefault(source, Pause())
            if monotonic() - pause.until > LONGEST:
                pause.granted()
            seconds = pause.refused()
            self._resting[source] = source in self._attended
        try:
            self.monitor.call_at(monotonic() + seconds, partial(self._resume, source))
        except BaseException:
            with self._mutex:
                attended = self._resting.pop(source, None)
                if attended is not None:
                    self._attend_locked(source, attended)
            raise
        with self._mutex:
            if source in self._resting:
                self._forget_locked(source)
        return seconds

    def _resume(self, source: Source) -> None:
        """The rest of a source that had failed is over, unless it was unregistered meanwhile."""
        with self._mutex:
            attended = self._resting.pop(source, None)
            if attended is None:
                return
            try:
                if source not in self.sources:
                    self._poll_locked(source)
            except Exception as error:  # Its descriptors are closed.
                log.error("the source %r cannot be polled any more", source, exc_info=error, later=True)
                return
            self._attend_locked(source, attended)
        self._poll_again()
        self.touched(source)
        self.ensure_led()

    def _drive_ready(self, ready: list[tuple[int, int]]) -> bool:
        """Drive the sources of these descriptors; return whether the bell was among them and silenced."""
        silenced = False
        for fd, _ in ready:
            source = self._by_fd.get(fd)
            if source is not None:
                try:
                    if source.drive(True):
                        self._touched[source] = None
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

    def vacant(self) -> bool:
        """Somebody depends on progress and nobody leads."""
        wanted = self._parked or self._attended or self.registered
        return self._leader is None and bool(self.sources) and bool(wanted)

    def term(self) -> int:
        """A number that grows whenever a thread takes the leadership."""
        return self._term

    def _choose_locked(self) -> Waiter | None:
        """Take out the waiter that parked last, of those that still wait."""
        while self._parked:
            try:
                chosen, _ = self._parked.popitem()
            except KeyError:
                return None  # The last one has just left.
            if not chosen.signalled:
                return chosen
        return None

    def offer(self) -> bool:
        """Offer the leadership to the thread that parked last; False if none is parked."""
        with self._mutex:
            if self._leader is not None or self._heir is not None:
                return True
            chosen = self._choose_locked()
        if chosen is None:
            return False
        chosen.nudge()
        return True

    def stand_by(self, waiter: Waiter, until: float | None) -> None:
        """Lead on the monitor's thread until somebody waits, `waiter` is woken or the time is `until`."""
        with self._mutex:
            if self._leader is not None or self._parked:
                return
            self._leader = waiter
            self._foreign = 0
            self._standby = waiter
            self._term += 1
            self.leader_ident = get_ident()
        try:
            self._lead(waiter, until)
        finally:
            with self._mutex:
                self._standby = None
            self._leave(waiter)
            self.ensure_led()


def _tell_nobody(error: Exception) -> None:
    """Stands for the `failed` of a source that has none."""


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
    return found is not None and (ident == found.leader_ident or ident in found._helping)


asked.append(_harvests)


@in_child
def _forget() -> None:
    # The parent's threads are not here: no leader, nobody parked, no monitor. The inherited poll set is
    # shared with the parent, so it is left alone and a new one is made on first use.
    global _driver
    _driver = None
