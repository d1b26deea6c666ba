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
from .run_time import RunTime

NO_LIMIT = 1 << 62


class Priority(IntEnum):
    """The classes of the queue: a free worker takes from the highest one that is not empty."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class CallbackCounts:
    """What one callback object has queued and running. All fields: guarded by the port's lock."""

    __slots__ = (
        "__weakref__", "args", "context", "disassociated", "discarded", "finalization", "function", "once",
        "persistent", "priority", "queued", "run_time", "running", "special", "started", "waiters",
    )  # fmt: skip

    def __init__(
        self, priority: Priority, run_time: RunTime, function: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        # Down to `once`: fixed before the first callback.
        self.priority: Priority = priority
        self.run_time: RunTime = run_time
        # Each callback is `function(*args, *more)`.
        self.function: Callable[..., object] = function
        self.args: tuple[Any, ...] = args
        # The object's context, and the function called with the instance and it after each callback.
        self.context: object = None
        self.finalization: Callable[[Any, Any], object] | None = None
        # Whether a thread that runs its callbacks must never exit.
        self.persistent: bool = False
        # Whether one of the last two is given.
        self.special: bool = False
        # Whether its first callback is its last one.
        self.once: bool = False
        self.queued: deque[ObjectCallback] = deque()
        # Invariant: started + discarded + len(queued) = the callbacks ever queued.
        self.started: int = 0
        self.discarded: int = 0
        self.running: int = 0
        # Of the running ones, those that disassociated.
        self.disassociated: int = 0
        # Threads in wait(); True marks those that wait for disassociated callbacks, too.
        self.waiters: tuple[tuple[Waiter, bool], ...] = ()

    def disarm(self) -> None:
        """Stop the object's source (a timer, a registered wait). Called outside all locks."""

    def transit_locked(self) -> int:
        """The number of callbacks that the source has decided and not queued yet."""
        return 0

    def forget_locked(self) -> int:
        """Have the source forget what it has decided or is going to; return how many were decided."""
        return 0

    def ended_locked(self) -> None:
        """The callback of an object that has only one has returned."""

    def busy_locked(self, whole: bool) -> bool:
        """Whether anything is outstanding; `whole` counts disassociated callbacks as well."""
        return bool(self.queued) or self.running > (0 if whole else self.disassociated) or self.transit_locked() > 0

    def quiet_locked(self) -> list[Waiter]:
        """Return the waiters whose wait is over; the caller wakes them after releasing the lock."""
        if not self.waiters or self.busy_locked(False):
            return []
        if not self.disassociated:
            entries, self.waiters = self.waiters, ()
            return [waiter for waiter, _ in entries]
        over = [waiter for waiter, whole in self.waiters if not whole]
        self.waiters = tuple(entry for entry in self.waiters if entry[1])
        return over


# The garbage collector does not track these: it would go through all that is queued again and again, and a
# callback leaves every cycle that it is part of when it is run or dropped.
class PlainCallback(msgspec.Struct, eq=False, gc=False):
    """A queued callback that belongs to no object: `function(*args)`, in `context`."""

    function: Callable[..., object]
    args: tuple[Any, ...]
    context: Context
    run_time: RunTime
    priority: Priority = Priority.NORMAL


class ObjectCallback(msgspec.Struct, eq=False, gc=False):
    """One queued callback of `owner`: the function of its `counts` with its arguments and `more`, in `context`.

    `owner` is whose it is, as users know it: the object, or the function if it has none.
    """

    counts: CallbackCounts
    owner: object
    context: Context
    more: tuple[Any, ...] = ()


# What a worker runs. A bare callable is the leanest: normal priority, nothing learned, no counts.
Item = ObjectCallback | PlainCallback | Callable[[], object]


def owner_of(item: Item | None) -> object:
    """Return whose callback `item` is."""
    if isinstance(item, ObjectCallback):
        return item.owner
    return item.function if isinstance(item, PlainCallback) else item


def run_time_of(item: Item | None) -> RunTime | None:
    """Return what is known of the run time of `item`, if anything ever is."""
    if isinstance(item, ObjectCallback):
        return item.counts.run_time
    return item.run_time if isinstance(item, PlainCallback) else None


class FairQueue:
    """Three strict classes, in each of which objects take turns. Guarded by the port's lock.

    Invariant: the counts of an object are in its class's ring, once, exactly while it has callbacks queued.
    """

    __slots__ = ("_rings", "depth", "discarded")

    def __init__(self) -> None:
        # Of counts, simple callbacks and bare callables.
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
            if type(item) is ObjectCallback:
                counts = item.counts
                if not counts.queued:
                    self._rings[counts.priority].append(counts)
                counts.queued.append(item)
            elif type(item) is PlainCallback:
                self._rings[item.priority].append(item)
            else:
                simple.append(item)
        self.depth += number

    def appendleft(self, item: Any) -> None:
        """Put back what was taken: it is the next of its class."""
        self.depth += 1
        if not isinstance(item, ObjectCallback):
            self._rings[item.priority if isinstance(item, PlainCallback) else Priority.NORMAL].appendleft(item)
            return
        counts = item.counts
        ring = self._rings[counts.priority]
        if not counts.queued:
            ring.appendleft(counts)
        elif ring[-1] is counts:
            ring.rotate(1)  # Its turn was the latest one taken, and is given back.
        else:
            ring.remove(counts)
            ring.appendleft(counts)
        counts.queued.appendleft(item)
        counts.started -= 1
        counts.running -= 1

    def prefetch(self, into: deque[Any], number: int) -> None:
        """Move up to `number` callbacks to `into`, in the order in which `popleft` would return them.

        Stops before one that is known to be slow, and behind one whose end a thread may be waiting for.
        """
        high, normal, low = self._rings
        left = number
        while left and (ring := high or normal or low):
            entry = ring[0]
            if not isinstance(entry, CallbackCounts):
                if type(entry) is PlainCallback and entry.run_time.slow:
                    break
                into.append(ring.popleft())
                left -= 1
                continue
            if entry.run_time.slow:
                break
            queued = entry.queued
            several = 1
            if len(queued) == 1:
                ring.popleft()
            elif len(ring) > 1:
                ring.rotate(-1)  # It has had its turn.
            else:
                several = min(left, len(queued) - 1)  # Alone in its class, it has all turns.
            into.extend([queued.popleft() for _ in range(several)])
            entry.started += several
            entry.running += several
            left -= several
            if not queued and entry.waiters:
                break
        self.depth -= number - left

    def popleft(self) -> Any:
        high, normal, low = self._rings
        ring = high or normal or low
        self.depth -= 1
        entry = ring[0]
        if not isinstance(entry, CallbackCounts):
            return ring.popleft()
        queued = entry.queued
        if len(queued) > 1:
            ring.rotate(-1)  # It has had its turn.
        else:
            ring.popleft()
        entry.started += 1
        entry.running += 1
        return queued.popleft()

    def discard(self, counts: CallbackCounts) -> deque[ObjectCallback]:
        """Drop what `counts` has queued; return it."""
        dropped = counts.queued
        if dropped:
            number = len(dropped)
            self._rings[counts.priority].remove(counts)
            counts.queued = deque()
            counts.discarded += number
            self.discarded += number
            self.depth -= number
        return dropped

    def purge(self, dead: Callable[[PlainCallback], bool]) -> list[PlainCallback]:
        """Drop the simple callbacks that are `dead`; return them."""
        dropped: list[PlainCallback] = []
        for ring in self._rings:
            for _ in range(len(ring)):
                entry = ring.popleft()
                (dropped if type(entry) is PlainCallback and dead(entry) else ring).append(entry)
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
                if isinstance(entry, CallbackCounts):
                    items.extend(self.discard(entry))
                else:
                    items.append(entry)
                    self.discarded += 1
            ring.clear()
        self.depth = 0
        return items
