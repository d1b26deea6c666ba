"""The leadership: which of the waiting threads polls, and how it passes from one to another.

Theory of operation. At most one thread leads: it polls all sources and harvests what it finds, until its own wait is
satisfied. The others are parked. Who waits, leaves, or is passed over moves between these states, each step under the
mutex of the driver:

    TRANSITIONS, below, says how a thread moves between its states.

A vacancy is filled by the next thread that waits. The monitor fills it when that takes longer than a tick while
a thread depends on progress: it nudges the thread that parked last, or stands by: leads on its own thread until a
thread waits. Who knows that it will be away for long offers the leadership at once (`ensure_led`).

Guarantees: at most one leader; a parked thread is never forgotten while sources exist.

Assumes: single-key operations of a dict are atomic, and not reordered against attribute loads: a thread that parks is
listed before it looks for sources, who registers the first source looks at the list afterwards.
"""

from _thread import get_ident
from enum import Enum
from typing import Final

from .monitor import Monitor
from .sources import PolledSources
from .waiter import Waiter

LEADER_MISSES = 4  # Polls in a row for others only: two threads that take turns should not unseat each other.


class ThreadState(Enum):
    """What a thread does about the driver."""

    RUNNING = "running"  # It is in no wait, or just on its way into or out of one.
    LEADING = "leading"  # Its waiter is `_leader`.
    PARKED = "parked"  # Its waiter is among `_parked`.


# From, event, to, and what is done.
TRANSITIONS: Final = (
    (
        ThreadState.RUNNING,
        "waits; no thread leads, or it is the successor",
        ThreadState.LEADING,
        "a new term begins",
    ),
    (
        ThreadState.RUNNING,
        "waits; another thread leads",
        ThreadState.PARKED,
        "a monitor that leads is woken: it leaves",
    ),
    (
        ThreadState.RUNNING,
        "waits; the last LEADER_MISSES polls of the leader brought it nothing of its own",
        ThreadState.PARKED,
        "it is the successor now; the bell rings, so that the leader leaves",
    ),
    (
        ThreadState.PARKED,
        "is nudged: no thread leads any more",
        ThreadState.LEADING,
        "a new term begins",
    ),
    (
        ThreadState.PARKED,
        "its wait is satisfied, or its time is up",
        ThreadState.RUNNING,
        "a successor declines",
    ),
    (
        ThreadState.LEADING,
        "its wait is satisfied, or its time is up",
        ThreadState.RUNNING,
        "the successor is nudged; without one the leadership is vacant, no thread is woken",
    ),
    (
        ThreadState.LEADING,
        "there is a successor",
        ThreadState.PARKED,
        "the successor is nudged",
    ),
    (
        ThreadState.LEADING,
        "is away in what it runs (`Waiter.work`), and deposed",
        ThreadState.RUNNING,
        "as when its wait is satisfied; its wait is over before it polls again",
    ),
    (ThreadState.PARKED, "likewise", ThreadState.RUNNING, "a successor declines"),
)


class Leadership(PolledSources):
    """The part of the driver that decides which thread leads."""

    def __init__(self, monitor: Monitor) -> None:
        super().__init__()
        self.monitor = monitor
        # Guarded by _mutex. Invariant: _leader is a waiter inside `_lead`, or None.
        self._leader: Waiter | None = None
        # Waiters on their gate; insertion order is parking order. Each is put and removed by itself, removed also
        # by `offer`; single-key operations, under _mutex where they go with a decision about the leadership.
        self._parked: dict[Waiter, None] = {}
        # Grows with each term of leadership; written under _mutex, read anywhere.
        self.term: int = 0
        # Guarded by _mutex; read by the leader without it, which hears the bell after it was stored. A parked
        # waiter that shall lead next, no other; None: the first that comes.
        self._successor: Waiter | None = None
        # Polls in a row that brought the leader nothing of its own. Written by the leader, read as a hint.
        self._misses = 0
        # Pending waits in which no thread sleeps, by identity: they too need progress though no thread waits.
        # Single-key operations only, by the thread that links or unlinks the wait, which may hold any lock.
        self.registered: dict[int, None] = {}
        # True from before the leader empties _scheduled until it has come back from the poll. Leader only.
        self._polling = False
        # The thread that leads, 0 if none; written by that thread, so comparing it with oneself is exact.
        self.leader_ident: int = 0
        # The monitor's waiter while its thread leads; guarded by _mutex.
        self._standby: Waiter | None = None

    def ensure_led(self) -> None:
        """Offer a vacant leadership to a parked thread at once: the caller is going to be away."""
        if self.vacant() and not (self._parked and self.offer()):
            self.monitor.arm()

    def _take_lead(self, waiter: Waiter) -> bool:
        """Become the leader, or be listed as parked."""
        if not self.sources and self._successor is not waiter:
            # There is nothing to lead: the short way. Listed first, looked again after that; the thread that registers
            # the first source looks at the list after it.
            self._parked[waiter] = None
            if not self.sources:
                return False
            # It goes on, and may lead: no thread shall offer it the leadership meanwhile.
            self._parked.pop(waiter, None)
        mutex = self._mutex
        if mutex.owned():
            mutex.refuse()
        try:
            mutex.acquire()
            successor = self._successor
            if self._leader is None and self.sources and (successor is None or successor is waiter):
                self._leader = waiter
                self._successor = None
                self._misses = 0
                self.term += 1
                self.leader_ident = get_ident()
                mutex.release()
                return True
            if successor is waiter and not self.sources:
                # Its turn came when there is nothing to lead. Kept as the successor, it would keep others from leading
                # what is registered later.
                successor = self._successor = None
            self._parked[waiter] = None
            standby = self._standby
            misplaced = self._leader is not None and self._misses >= LEADER_MISSES
            preempts = misplaced and standby is None and successor is None
            if preempts:
                self._successor = waiter
        except BaseException:
            if mutex.owned():
                mutex.release()
            raise
        mutex.release()
        if standby is not None:
            standby.wake()  # A waiting thread outranks the monitor, which offers the leadership as it leaves.
        elif preempts:
            self._bell.ring()
        return False

    def _decline(self, waiter: Waiter) -> None:
        """The successor's wait ended before it led."""
        with self._mutex:
            if self._successor is waiter:
                self._successor = None
        if self.vacant():
            self.monitor.arm()

    def _leave(self, waiter: Waiter) -> None:
        """Lead no longer, be parked no longer."""
        self._parked.pop(waiter, None)
        if self._leader is waiter:  # Only its own thread makes a waiter the leader; others may depose it.
            waiter.interrupt = None
            successor = None
            mutex = self._mutex
            if mutex.owned():
                mutex.refuse()
            try:
                mutex.acquire()
                if self._leader is waiter:
                    self._polling = False
                    self._leader = None
                    self.leader_ident = 0
                    successor = self._successor
            except BaseException:
                if mutex.owned():
                    mutex.release()
                raise
            mutex.release()
            if successor is not None:
                successor.nudge()
        # Others may depend on progress; and a thread that was offered the leadership may leave without having
        # taken it.
        if not self.monitor.armed and (self._needing_progress or self._parked or self.registered) and self.vacant():
            self.monitor.arm()

    def depose(self, waiter: Waiter) -> bool:
        """Take the leadership from the thread of `waiter`, which is away in what it runs; whether it had it.

        If it was to lead next, it is not any more. For who has just seen to it that its wait ends before it polls
        again, and offers a leadership that is vacant; it is not woken.
        """
        with self._mutex:
            if self._successor is waiter:
                self._successor = None
            if self._leader is not waiter:
                return False
            self._leader = None
            self.leader_ident = 0
            successor = self._successor
        if successor is not None:
            successor.nudge()
        return True

    def vacant(self) -> bool:
        """A thread depends on progress and no thread leads."""
        wanted = self._parked or self._needing_progress or self.registered
        return self._leader is None and bool(self.sources) and bool(wanted)

    def _choose_locked(self) -> Waiter | None:
        """Take out the waiter that parked last, of those that still wait.

        What it needs is still in the caches of a processor, and those that park longest stay asleep: the order in which
        a port releases its waiters, too.
        """
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
            if self._leader is not None or self._successor is not None:
                return True
            chosen = self._choose_locked()
        if chosen is None:
            return False
        chosen.nudge()
        return True
