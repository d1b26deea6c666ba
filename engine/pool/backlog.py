"""What a pool has still to run: callbacks, whose they are, and the order in which they are taken.

Theory of operation. The queue holds three strict classes. Within a class the *objects* that have callbacks
queued take turns, one callback each: ten callbacks of one object ahead of ten of another do not hold the
other up. A callback that belongs to no object (a simple one) is an object of its own.

Guarantees: the next callback always comes from the highest class that has any; the callbacks of one object
are taken in the order in which they were queued.

Source: "Thread Pools"; "SetThreadpoolCallbackPriority".
"""

from collections import deque
from collections.abc import Callable
from contextvars import Context
from enum import IntEnum
from typing import Any

import msgspec

from ..kernel.waiter import Waiter

LONG = 200e-6  # Seconds of mean run time above which callbacks start without a slot; a hand-over costs 30 us.


class Priority(IntEnum):
    """The classes of the queue: a free worker takes from the highest one that is not empty."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class Profile:
    """How long the callbacks of one object, or of one function, run: learned from those that ran.

    Not guarded: a lost update loses one sample.
    """

    __slots__ = ("cpu", "fixed", "long", "mean")

    def __init__(self, long: bool = False, *, fixed: bool = False) -> None:
        # Seconds, exponentially weighted; `cpu` is measured only while `long`.
        self.mean = 2 * LONG if long else 0.0
        self.cpu = 0.0
        self.long = long
        # Declared by the user; nothing is learned.
        self.fixed = fixed

    def learn(self, elapsed: float, cpu: float | None) -> None:
        """Take one run into account."""
        if self.fixed:
            return
        # Capped, so that a single outlier (a garbage collection, a wait for the interpreter lock) changes no
        # verdict.
        mean = self.mean + (min(elapsed, 3 * LONG) - self.mean) / 4
        self.mean = mean if mean > LONG / 16 else 0.0
        if cpu is not None:
            self.cpu += (cpu - self.cpu) / 4
        self.long = mean > LONG

    def computes(self) -> bool:
        """Whether it is long because it uses the processor: many such at once would not be faster."""
        return self.cpu > LONG

    def overran(self) -> None:
        """It was seen to block for longer than a tick: treat the next ones as long from their start."""
        if not self.fixed:
            self.mean = 3 * LONG
            self.long = True


class Ledger:
    """What one callback object has queued and running. All fields: guarded by the port's lock."""

    __slots__ = (
        "__weakref__", "_context", "_discarded", "_finalization", "_listed", "_persistent", "_priority",
        "_profile", "_queued", "_running", "_started", "_strays", "_waiters",
    )  # fmt: skip

    def __init__(self, priority: Priority, profile: Profile) -> None:
        # The first five are fixed at creation.
        self._priority = priority
        self._profile = profile
        # The object's context, and the function called with the instance and it after each callback.
        self._context: object = None
        self._finalization: Callable[[Any, Any], object] | None = None
        # Whether a thread that runs its callbacks must never exit.
        self._persistent = False
        self._queued: deque[Callback] = deque()
        # Whether the object is in its class's ring. Invariant: listed, if anything is queued.
        self._listed = False
        # Invariant: _started + _discarded + len(_queued) = the callbacks ever queued.
        self._started = 0
        self._discarded = 0
        self._running = 0
        # Of the running ones, those that disassociated.
        self._strays = 0
        # Threads in wait(); True marks those for whom strays count too.
        self._waiters: list[tuple[Waiter, bool]] = []

    def _disarm(self) -> None:
        """Stop the object's source (a timer, a registered wait). Called outside all locks."""

    def _busy_locked(self, whole: bool) -> bool:
        """Whether anything is outstanding; `whole` counts disassociated callbacks as well."""
        return bool(self._queued) or self._running > (0 if whole else self._strays)

    def _quiet_locked(self) -> list[Waiter]:
        """Return the waiters whose wait is over; the caller wakes them after releasing the lock."""
        over = [waiter for waiter, whole in self._waiters if not self._busy_locked(whole)]
        if over:
            self._waiters = [entry for entry in self._waiters if self._busy_locked(entry[1])]
        return over


class Callback(msgspec.Struct, eq=False):
    """One queued callback: `function(*args)`, in `context` if there is one."""

    function: Callable[..., object]
    args: tuple[Any, ...]
    context: Context | None
    ledger: Ledger | None
    profile: Profile
    priority: Priority = Priority.NORMAL


# What a worker runs. A bare callable is the leanest: normal priority, nothing learned, no ledger.
Item = Callback | Callable[[], object]


class FairQueue:
    """Three strict classes, in each of which objects take turns. Guarded by the port's lock."""

    __slots__ = ("_depth", "_rings", "discarded")

    def __init__(self) -> None:
        self._rings: tuple[deque[Any], ...] = tuple(deque() for _ in Priority)
        # Invariant: the number of callbacks queued. A ring may also list ledgers that have none left.
        self._depth = 0
        # Callbacks that were dropped.
        self.discarded = 0

    def __len__(self) -> int:
        return self._depth

    def append(self, item: Any) -> None:
        self._depth += 1
        if item.__class__ is not Callback:
            self._rings[1].append(item)
            return
        ledger = item.ledger
        if ledger is None:
            self._rings[item.priority].append(item)
            return
        ledger._queued.append(item)
        if not ledger._listed:
            ledger._listed = True
            self._rings[ledger._priority].append(ledger)

    def appendleft(self, item: Any) -> None:
        """Put back what was taken: it is the next of its class."""
        self._depth += 1
        ledger = item.ledger if item.__class__ is Callback else None
        if ledger is None:
            self._rings[getattr(item, "priority", Priority.NORMAL)].appendleft(item)
            return
        ledger._queued.appendleft(item)
        ledger._started -= 1
        ledger._running -= 1
        # Listed twice is harmless: the second time it has its turn, or has nothing left.
        ledger._listed = True
        self._rings[ledger._priority].appendleft(ledger)

    def popleft(self) -> Any:
        for ring in self._rings:
            while ring:
                item = ring.popleft()
                if not isinstance(item, Ledger):
                    self._depth -= 1
                    return item
                queued = item._queued
                if not queued:  # Its callbacks were discarded meanwhile.
                    item._listed = False
                    continue
                callback = queued.popleft()
                if queued:
                    ring.append(item)
                else:
                    item._listed = False
                item._started += 1
                item._running += 1
                self._depth -= 1
                return callback
        raise IndexError("the queue is empty")

    def discard(self, ledger: Ledger) -> int:
        """Drop what `ledger` has queued; return how many."""
        number = len(ledger._queued)
        ledger._queued.clear()
        ledger._discarded += number
        self.discarded += number
        self._depth -= number
        return number

    def clear(self) -> None:
        self.drain()

    def drain(self) -> list[Any]:
        """Drop everything; return it."""
        items: list[Any] = []
        for ring in self._rings:
            for entry in ring:
                if isinstance(entry, Ledger):
                    entry._listed = False
                    items.extend(entry._queued)
                    self.discard(entry)
                else:
                    items.append(entry)
                    self.discarded += 1
            ring.clear()
        self._depth = 0
        return items
