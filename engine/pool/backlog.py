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

NO_LIMIT = 1 << 62
LONG = 200e-6  # Seconds of mean run time above which callbacks start without a slot; a hand-over costs 30 us.


class Priority(IntEnum):
    """The classes of the queue: a free worker takes from the highest one that is not empty."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class Profile(msgspec.Struct, gc=False):
    """How long the callbacks of one object, or of one function, run: learned from those that ran.

    Not guarded: a lost update loses one sample.
    """

    long: bool = False
    # Declared by the user; nothing is learned.
    fixed: bool = False
    # Seconds, exponentially weighted; `cpu` is measured only while `long`.
    mean: float = 0.0
    cpu: float = 0.0

    def __post_init__(self) -> None:
        if self.long:
            self.mean = 2 * LONG

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
        "__weakref__", "_args", "_context", "_discarded", "_finalization", "_function", "_once",
        "_persistent", "_priority", "_profile", "_queued", "_running", "_special", "_started", "_strays",
        "_waiters",
    )  # fmt: skip

    def __init__(
        self, priority: Priority, profile: Profile, function: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        # Down to `_once`: fixed before the first callback.
        self._priority = priority
        self._profile = profile
        # Each callback is `_function(*_args, *more)`.
        self._function = function
        self._args = args
        # The object's context, and the function called with the instance and it after each callback.
        self._context: object = None
        self._finalization: Callable[[Any, Any], object] | None = None
        # Whether a thread that runs its callbacks must never exit.
        self._persistent = False
        # Whether one of the last two is given.
        self._special = False
        # Whether its first callback is its last one.
        self._once = False
        self._queued: deque[Turn] = deque()
        # Invariant: _started + _discarded + len(_queued) = the callbacks ever queued.
        self._started = 0
        self._discarded = 0
        self._running = 0
        # Of the running ones, those that disassociated.
        self._strays = 0
        # Threads in wait(); True marks those for whom strays count too.
        self._waiters: tuple[tuple[Waiter, bool], ...] = ()

    def _owner(self) -> object:
        """Return whose its callbacks are, as users know it: the object, or the function of a simple callback."""
        return self._function if self._once else self

    def _disarm(self) -> None:
        """Stop the object's source (a timer, a registered wait). Called outside all locks."""

    def _transit_locked(self) -> int:
        """The number of callbacks that the source has decided and not queued yet."""
        return 0

    def _forget_locked(self) -> int:
        """Have the source forget what it has decided or is going to; return how many were decided."""
        return 0

    def _ended_locked(self) -> None:
        """The callback of an object that has only one has returned."""

    def _busy_locked(self, whole: bool) -> bool:
        """Whether anything is outstanding; `whole` counts disassociated callbacks as well."""
        return bool(self._queued) or self._running > (0 if whole else self._strays) or self._transit_locked() > 0

    def _quiet_locked(self) -> list[Waiter]:
        """Return the waiters whose wait is over; the caller wakes them after releasing the lock."""
        if not self._waiters or self._busy_locked(False):
            return []
        if not self._strays:
            everybody, self._waiters = self._waiters, ()
            return [waiter for waiter, _ in everybody]
        over = [waiter for waiter, whole in self._waiters if not whole]
        self._waiters = tuple(entry for entry in self._waiters if entry[1])
        return over


# Not looked at by the garbage collector, which would go through all that is queued again and again: a
# callback leaves every cycle that it is part of when it is run or dropped.
class Simple(msgspec.Struct, eq=False, gc=False):
    """A queued callback that belongs to no object: `function(*args)`, in `context`."""

    function: Callable[..., object]
    args: tuple[Any, ...]
    context: Context
    profile: Profile
    priority: Priority = Priority.NORMAL


class Turn(msgspec.Struct, eq=False, gc=False):
    """One queued callback of an object: its function with its arguments and `more`, in `context`."""

    ledger: Ledger
    context: Context
    more: tuple[Any, ...] = ()


# What a worker runs. A bare callable is the leanest: normal priority, nothing learned, no ledger.
Item = Turn | Simple | Callable[[], object]


def owner_of(item: Item | None) -> object:
    """Return whose callback `item` is."""
    if isinstance(item, Turn):
        return item.ledger._owner()
    return item.function if isinstance(item, Simple) else item


def profile_of(item: Item | None) -> Profile | None:
    """Return what is known of the run time of `item`, if anything ever is."""
    if isinstance(item, Turn):
        return item.ledger._profile
    return item.profile if isinstance(item, Simple) else None


class FairQueue:
    """Three strict classes, in each of which objects take turns. Guarded by the port's lock.

    Invariant: a ledger is in its class's ring, once, exactly while it has callbacks queued.
    """

    __slots__ = ("_rings", "depth", "discarded")

    def __init__(self) -> None:
        # Of ledgers, simple callbacks and bare callables.
        self._rings: tuple[deque[Any], ...] = tuple(deque() for _ in Priority)
        # Invariant: the number of callbacks queued.
        self.depth: int = 0
        # Callbacks that were dropped.
        self.discarded: int = 0

    def __len__(self) -> int:
        return self.depth

    def append(self, item: Any) -> None:
        self.take_in(deque((item,)), 1)

    def take_in(self, inbox: deque[Any], number: int) -> None:
        """Append the first `number` entries of `inbox`."""
        take, simple = inbox.popleft, self._rings[1]
        for _ in range(number):
            item = take()
            if type(item) is Turn:
                ledger = item.ledger
                if not ledger._queued:
                    self._rings[ledger._priority].append(ledger)
                ledger._queued.append(item)
            elif type(item) is Simple:
                self._rings[item.priority].append(item)
            else:
                simple.append(item)
        self.depth += number

    def appendleft(self, item: Any) -> None:
        """Put back what was taken: it is the next of its class."""
        self.depth += 1
        if not isinstance(item, Turn):
            self._rings[item.priority if isinstance(item, Simple) else Priority.NORMAL].appendleft(item)
            return
        ledger = item.ledger
        ring = self._rings[ledger._priority]
        if not ledger._queued:
            ring.appendleft(ledger)
        elif ring[-1] is ledger:
            ring.rotate(1)  # Its turn was the latest one taken, and is given back.
        else:
            ring.remove(ledger)
            ring.appendleft(ledger)
        ledger._queued.appendleft(item)
        ledger._started -= 1
        ledger._running -= 1

    def fetch(self, train: deque[Any], number: int) -> None:
        """Move up to `number` callbacks to `train`, in the order in which `popleft` would return them.

        Stops before one that is known to be long, and behind one whose end somebody may be waiting for.
        """
        high, normal, low = self._rings
        left = number
        while left and (ring := high or normal or low):
            entry = ring[0]
            if not isinstance(entry, Ledger):
                if type(entry) is Simple and entry.profile.long:
                    break
                train.append(ring.popleft())
                left -= 1
                continue
            if entry._profile.long:
                break
            queued = entry._queued
            several = 1
            if len(queued) == 1:
                ring.popleft()
            elif len(ring) > 1:
                ring.rotate(-1)  # It has had its turn.
            else:
                several = min(left, len(queued) - 1)  # Alone in its class, it has all turns.
            train.extend([queued.popleft() for _ in range(several)])
            entry._started += several
            entry._running += several
            left -= several
            if not queued and entry._waiters:
                break
        self.depth -= number - left

    def popleft(self) -> Any:
        high, normal, low = self._rings
        ring = high or normal or low
        self.depth -= 1
        entry = ring[0]
        if not isinstance(entry, Ledger):
            return ring.popleft()
        queued = entry._queued
        if len(queued) > 1:
            ring.rotate(-1)  # It has had its turn.
        else:
            ring.popleft()
        entry._started += 1
        entry._running += 1
        return queued.popleft()

    def discard(self, ledger: Ledger) -> deque[Turn]:
        """Drop what `ledger` has queued; return it."""
        dropped = ledger._queued
        if dropped:
            number = len(dropped)
            self._rings[ledger._priority].remove(ledger)
            ledger._queued = deque()
            ledger._discarded += number
            self.discarded += number
            self.depth -= number
        return dropped

    def sweep(self, dead: Callable[[Simple], bool]) -> list[Simple]:
        """Drop the simple callbacks that are `dead`; return them."""
        dropped: list[Simple] = []
        for ring in self._rings:
            for _ in range(len(ring)):
                entry = ring.popleft()
                (dropped if type(entry) is Simple and dead(entry) else ring).append(entry)
        self.depth -= len(dropped)
        self.discarded += len(dropped)
        return dropped

    def clear(self) -> None:
        self.drain()

    def drain(self) -> list[Any]:
        """Drop everything; return it."""
        items: list[Any] = []
        for ring in self._rings:
            for entry in list(ring):
                if isinstance(entry, Ledger):
                    items.extend(self.discard(entry))
                else:
                    items.append(entry)
                    self.discarded += 1
            ring.clear()
        self.depth = 0
        return items
