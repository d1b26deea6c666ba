"""The completion port: first-in-first-out packets for last-in-first-out threads, under a concurrency value.

Theory of operation. A port counts *active* threads: those that took something from it (or tried to) and have not
blocked since. It hands out a packet only while `active < concurrency`. A thread that comes to dequeue gives its slot
back first; one that blocks in a library wait or a `blocking()` scope gives it back for as long as it is blocked, and
takes it back unconditionally. Waiting threads form a stack: the newest is released first, and its packet goes to it
directly, without entering the queue.

    event                                   effect (all under _lock)
    post                                    waiter and free slot: newest waiter gets the packet; else queue it
    associated thread dequeues              active -= 1, then try
    try: free slot and a packet             active += 1, take the oldest
    try: nothing takeable                   push on the waiters, block
    wait timed out or was interrupted       leave the waiters, active += 1
    associated thread blocks elsewhere      active -= 1, then release waiters while packets and slots last
    that thread runs again                  active += 1, past the limit if need be

Guarantees: at rest there is never a waiter, a queued packet and a free slot at once. A packet is delivered to exactly
one dequeue: if the chosen thread leaves its wait by an exception (KeyboardInterrupt), the packet goes back to the head.

Source: "I/O Completion Ports", "CreateIoCompletionPort", "GetQueuedCompletionStatus",
"GetQueuedCompletionStatusEx", "PostQueuedCompletionStatus".
"""

import os
import warnings
import weakref
from _thread import allocate_lock
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from .apc import apc_lock, run_apcs
from .driver import driver
from .errors import AbandonedWait, Alerted, Forked, InvalidArgumentType, InvalidHandle, InvalidParameter, QueueFull, WaitTimeout
from .status import Status
from .thread import ThreadRecord, local
from .waiter import Waiter

DEFAULT_CAPACITY = 1 << 20  # Packets that users may leave queued; arbitrary, some 100 MB of packets.


class CompletionPacket(msgspec.Struct, frozen=True, gc=True):
    """What one dequeue returns: four values, carried as they were given.

    Fields:
        key: the completion key of the source, or of the poster. Any value.
        transferred: a byte count for I/O, otherwise whatever the poster chose. Any value.
        overlapped: identifies the operation (for a remote call: its handle, unless the caller chose otherwise). Any value.
        status: 0 for success, otherwise the operation's status number. A failed packet is a packet all the same.
    """

    key: Any = 0
    transferred: Any = 0
    overlapped: Any = None
    status: int = 0


class PortStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a port. `depth` counts queued packets only, not those handed to a thread."""

    concurrency: int
    depth: int
    active: int
    waiting: int
    posted: int
    taken: int
    closed: bool


class PacketQueue(Protocol):
    """What a port keeps its queued packets in; a `deque` is one."""

    def append(self, packet: CompletionPacket, /) -> None: ...
    def appendleft(self, packet: CompletionPacket, /) -> None: ...
    def popleft(self) -> CompletionPacket: ...
    def clear(self) -> None: ...
    def __len__(self) -> int: ...


class PacketTemplate(msgspec.Struct, frozen=True):
    """The packet that an operation will post when it completes: made by `CompletionPort.packet`."""

    port: "CompletionPort"
    key: Any
    transferred: Any
    overlapped: Any


class Unset(msgspec.Struct, frozen=True):
    """The type of `UNSET`."""


UNSET = Unset()  # "No value given", where None is a value.
_ABANDONED = object()
_ALERTED = object()


class CompletionPort:
    """A queue of completion packets that threads take from, newest waiting thread first.

    Args:
        concurrency: how many threads may be active (running after a dequeue) at once; 0 means the number of logical
            processors. Fixed for the port's life. It limits running threads, not waiting ones.
        capacity: how many posted packets may be queued; at the limit `post` raises `QueueFull`. Packets of accepted
            operations are never refused: each operation's own limit bounds them.

    The port belongs to who made it: close it, or use it as a context manager. One that is dropped open is reported as a
    `ResourceWarning`.

    Threads: every method may be called from any thread. Source: "CreateIoCompletionPort".
    Different from Windows: a port is not itself waitable, and `capacity` bounds it.
    """

    __slots__ = (
        "__weakref__", "_active", "_capacity", "_closed", "_concurrency", "_forked", "_lock", "_posted", "_queue", "_taken",
        "_waiters",
    )  # fmt: skip

    def __init__(self, concurrency: int = 0, *, capacity: int = DEFAULT_CAPACITY) -> None:
        if not isinstance(concurrency, int) or isinstance(concurrency, bool):
            raise InvalidArgumentType(f"concurrency must be an int, not {type(concurrency).__name__}")
        if concurrency < 0:
            raise InvalidParameter(f"concurrency must be 0 (the number of logical processors) or more, not {concurrency}")
        if not isinstance(capacity, int) or capacity < 1:
            raise InvalidParameter(f"capacity must be a positive int, not {capacity!r}")
        self._concurrency = concurrency or os.cpu_count() or 1
        self._capacity = capacity
        self._lock = allocate_lock()
        # All below: guarded by _lock. Invariant at rest: not (_waiters and _queue and _active < _concurrency).
        self._queue: PacketQueue = self._make_queue()
        self._waiters: list[Waiter] = []
        self._active = 0
        self._posted = 0
        self._taken = 0
        self._closed = False
        # True in a forked child that inherited the port; written by the fork hook before any thread of the child runs.
        self._forked = False
        _open_ports.add(self)

    def _make_queue(self) -> PacketQueue:
        return deque()

    @property
    def concurrency(self) -> int:
        """The concurrency value, fixed at creation."""
        return self._concurrency

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"depth={len(self._queue)} active={self._active} waiting={len(self._waiters)}"
        return f"<CompletionPort concurrency={self._concurrency} {state}>"

    # Posting

    def post(self, key: Any = 0, transferred: Any = 0, overlapped: Any = None, status: int = 0) -> None:
        """Queue a packet with these values, or hand it to the newest waiting thread.

        Args: any values, none of them looked at; `status` is an int, 0 for success.
        Raises: `InvalidHandle` if the port is closed; `QueueFull` if `capacity` packets are queued.
        Blocks: never. Posting neither takes nor gives back a slot, whoever posts.
        Source: "PostQueuedCompletionStatus". Different from Windows: a status may be posted too.
        """
        packet = CompletionPacket(key, transferred, overlapped, status)
        with self._lock:
            if self._closed:
                raise self._closed_error()
            if not self._waiters or self._active >= self._concurrency:
                if len(self._queue) >= self._capacity:
                    raise QueueFull(f"{self._capacity} packets are queued already: dequeue faster, or make `capacity` larger")
                self._posted += 1
                self._queue.append(packet)
                return
            self._posted += 1
            waiter = self._hand_over_locked(packet)
        waiter.wake()

    def deliver(self, packets: Iterable[CompletionPacket]) -> bool:
        """Queue the packets of accepted operations, in order: as `post`, but `capacity` does not apply.

        Returns False, having dropped them, if the port is closed. Blocks: never.
        """
        woken: list[Waiter] = []
        with self._lock:
            if self._closed:
                return False
            for packet in packets:
                self._posted += 1
                if self._waiters and self._active < self._concurrency:
                    woken.append(self._hand_over_locked(packet))
                else:
                    self._queue.append(packet)
        for waiter in woken:
            waiter.wake()
        return True

    def packet(self, key: Any = 0, transferred: Any = 0, overlapped: Any = UNSET) -> PacketTemplate:
        """Describe the packet that an operation shall post to this port when it completes.

        Give the result as `notify=` when beginning a call. The three values come back unchanged in the packet;
        `overlapped` is the operation's own handle unless given (None counts as given).
        """
        return PacketTemplate(self, key, transferred, overlapped)

    # Dequeuing

    def get(self, timeout: float | None = None) -> CompletionPacket:
        """Take the oldest packet, waiting for one if need be.

        Args: `timeout` in seconds; None waits for ever, 0 polls.
        Returns: the packet. A packet whose `status` is not 0 belongs to a failed operation and is returned all the same.
        Raises: `WaitTimeout` (258) when nothing could be taken in time; `AbandonedWait` (735) if the port is closed while
            waiting; `InvalidHandle` (6) if it was closed before; `InvalidParameter` for a negative timeout.
        Blocks: until a packet is takeable: one is queued and fewer than `concurrency` threads are active.
        Threads: any. The call associates the thread with this port, and the thread counts as active until it blocks,
            ends, or dequeues again; that is so even after a timeout.
        Source: "GetQueuedCompletionStatus".
        """
        record = local.record
        waiter = None
        if timeout is not None:
            _check_timeout(timeout)
            if timeout == 0 and not self._queue:
                driver().run_ready()
        if record.port is not self:
            self._adopt(record)
        with self._lock:
            if self._closed:
                raise self._closed_error()
            if record.slot:
                self._active -= 1
            if self._queue and self._active < self._concurrency:
                self._active += 1
                record.slot = True
                self._taken += 1
                return self._queue.popleft()
            if timeout == 0:
                self._active += 1
                record.slot = True
                raise WaitTimeout("no packet is takeable")
            record.slot = False
            waiter = Waiter()
            self._waiters.append(waiter)
        packet: CompletionPacket = self._block(record, waiter, timeout)
        return packet

    def get_many(self, maximum: int = 64, timeout: float | None = None, *, alertable: bool = False) -> list[CompletionPacket]:
        """Take up to `maximum` packets, oldest first, waiting for the first one if need be; never waits to fill the batch.

        Args: `maximum` >= 1; `timeout` in seconds, None for ever, 0 polls; `alertable` lets queued APCs end the wait.
        Returns: 1 to `maximum` packets. Look at each one's own `status`: a failed packet does not fail the call.
        Raises: as `get`; and `Alerted` (192), nothing taken, when APCs ran instead. Packets that are takeable go before
            APCs for a thread associated with this port; for any other thread pending APCs run first, and the call then
            does not associate it.
        A batch takes one slot, however many packets it has.
        Source: "GetQueuedCompletionStatusEx".
        """
        if not isinstance(maximum, int) or maximum < 1:
            raise InvalidParameter(f"maximum must be an int of 1 or more, not {maximum!r}")
        if timeout is not None:
            _check_timeout(timeout)
            if timeout == 0 and not self._queue:
                driver().run_ready()
        record = local.record
        if alertable and record.apcs and record.port is not self:
            run_apcs(record)
            raise Alerted("APCs ran; the thread was not associated with the port")
        if record.port is not self:
            self._adopt(record)
        with self._lock:
            if self._closed:
                raise self._closed_error()
            if record.slot:
                self._active -= 1
                record.slot = False
            batch = self._take_locked(record, maximum)
            if batch:
                return batch
            if timeout == 0:
                self._active += 1
                record.slot = True
            else:
                waiter = Waiter()
                self._waiters.append(waiter)
        if timeout == 0:
            if alertable and run_apcs(record):
                raise Alerted("APCs ran; no packet was takeable")
            raise WaitTimeout("no packet is takeable")
        if alertable:
            first = self._block_alertably(record, waiter, timeout)
        else:
            first = self._block(record, waiter, timeout)
        batch = [first]
        if maximum > 1 and self._queue:
            with self._lock:
                # The first packet's slot is this batch's slot: more packets need no more slots.
                while len(batch) < maximum and self._queue:
                    self._taken += 1
                    batch.append(self._queue.popleft())
        return batch

    def _adopt(self, record: ThreadRecord) -> None:
        """Associate the thread with this port, leaving another one as if the thread had blocked there for good."""
        if self._closed:
            raise self._closed_error()
        former = record.port
        if former is not None:
            former.depart(record)
        record.port = self

    def _take_locked(self, record: ThreadRecord, maximum: int) -> list[CompletionPacket]:
        batch: list[CompletionPacket] = []
        queue = self._queue
        if queue and self._active < self._concurrency:
            self._active += 1
            record.slot = True
            while queue and len(batch) < maximum:
                batch.append(queue.popleft())
            self._taken += len(batch)
        return batch

    def _hand_over_locked(self, packet: CompletionPacket) -> Waiter:
        """Give the packet and a slot to a waiter; the caller wakes it after releasing the lock."""
        waiter = self._choose_locked()
        waiter.result = packet
        self._active += 1
        self._taken += 1
        return waiter

    def _choose_locked(self) -> Waiter:
        return self._waiters.pop()

    def _block(self, record: ThreadRecord, waiter: Waiter, timeout: float | None) -> Any:
        """Wait for a packet. The waiter is on the stack; on return the thread is active again."""
        try:
            signalled = driver().wait(waiter, timeout)
        except BaseException:
            self._put_back(record, waiter)
            raise
        if not signalled:
            with self._lock:
                if waiter.result is None:
                    self._waiters.remove(waiter)
                    self._active += 1
                    record.slot = True
                    raise WaitTimeout(f"no packet became takeable within {timeout} s")
        result = waiter.result
        if result is _ABANDONED:
            raise AbandonedWait("the completion port was closed while this thread waited on it")
        # The slot was counted by the thread that handed the packet over, under _lock; the field is this thread's own.
        record.slot = True
        if result is _ALERTED:
            run_apcs(record)
            raise Alerted("APCs ran; no packet was taken")
        return result

    def _block_alertably(self, record: ThreadRecord, waiter: Waiter, timeout: float | None) -> Any:
        def alert() -> None:
            with self._lock:
                if waiter.result is not None:
                    return  # A packet was first: the APC stays queued.
                self._waiters.remove(waiter)
                waiter.result = _ALERTED
                self._active += 1
            waiter.wake()

        with apc_lock:
            record.alert = alert
            pending = bool(record.apcs)  # Queued before `alert` was there to be called.
        try:
            if pending:
                alert()
            return self._block(record, waiter, timeout)
        finally:
            with apc_lock:
                record.alert = None

    def _put_back(self, record: ThreadRecord, waiter: Waiter) -> None:
        """The wait ended by an exception: leave the stack, and let nobody miss the packet handed over meanwhile."""
        woken: list[Waiter] = []
        with self._lock:
            result = waiter.result
            if result is None:
                self._waiters.remove(waiter)
                self._active += 1
            elif isinstance(result, CompletionPacket):
                self._taken -= 1
                self._queue.appendleft(result)
                woken = self._pump_locked()
            record.slot = not self._closed
        for other in woken:
            other.wake()

    def _pump_locked(self) -> list[Waiter]:
        """Restore the invariant: hand packets to waiters while both and free slots last."""
        woken: list[Waiter] = []
        while self._waiters and self._queue and self._active < self._concurrency:
            woken.append(self._hand_over_locked(self._queue.popleft()))
        return woken

    # Slots

    def release_slot(self, record: ThreadRecord) -> None:
        """The associated thread blocks outside this port: its slot is free until `retake_slot`."""
        with self._lock:
            if not record.slot or self._closed:
                return
            record.slot = False
            self._active -= 1
            woken = self._pump_locked()
        for waiter in woken:
            waiter.wake()

    def retake_slot(self, record: ThreadRecord) -> None:
        """The associated thread runs again: it is active at once, even past the concurrency value."""
        with self._lock:
            if not record.slot and not self._closed:
                record.slot = True
                self._active += 1

    def depart(self, record: ThreadRecord) -> None:
        """The thread ended, or went to another port: as if it had blocked here for good."""
        self.release_slot(record)

    # End

    def close(self) -> None:
        """Close the port: threads waiting on it get `AbandonedWait`, queued packets are dropped, later use is refused.

        Closing twice does nothing. Blocks: never. Source: "CloseHandle", "GetQueuedCompletionStatus".
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            abandoned, self._waiters = self._waiters, []
            for waiter in abandoned:
                waiter.result = _ABANDONED
            self._queue.clear()
            self._active = 0
        _open_ports.discard(self)
        for waiter in abandoned:
            waiter.wake()

    def _closed_error(self) -> InvalidHandle:
        if self._forked:
            return Forked("this completion port was made before fork(): make a new one in the child")
        return InvalidHandle("the completion port is closed")

    def statistics(self) -> PortStatistics:
        """Return a consistent snapshot of the port's numbers. Never blocks."""
        with self._lock:
            return PortStatistics(
                concurrency=self._concurrency,
                depth=len(self._queue),
                active=self._active,
                waiting=len(self._waiters),
                posted=self._posted,
                taken=self._taken,
                closed=self._closed,
            )

    def __len__(self) -> int:
        """The number of queued packets."""
        return len(self._queue)

    def __bool__(self) -> bool:
        """A port is true, however many packets it holds."""
        return True

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"{self!r} was dropped without close()", ResourceWarning, stacklevel=2, source=self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _check_timeout(timeout: float) -> None:
    # The comparison also refuses NaN.
    if not timeout >= 0:
        raise InvalidParameter(f"timeout must be None or a number of seconds of 0 or more, not {timeout!r}")


# Ports to disable in a forked child: their locks may be held by threads that are not there.
_open_ports: weakref.WeakSet[CompletionPort] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for port in list(_open_ports):
        port._lock = allocate_lock()
        port._forked = port._closed = True
        port._waiters = []
        port._queue.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
