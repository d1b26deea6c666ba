"""Slots: how many threads may run after a dequeue, and which one is released next.

Theory of operation. A port counts *active* threads: those that took something from it (or tried to) and have
not blocked since. It hands out a packet only while `active < concurrency`. A thread that comes to dequeue
gives its slot back first; one that blocks in a library wait or a `blocking()` scope gives it back for as long
as it is blocked, and takes it back unconditionally. Waiting threads form a stack: the newest is released
first, and its packet goes to it directly, without entering the queue.

    event                                   effect (all under _lock)
    post                                    waiter and free slot: newest waiter gets the packet; else queue it
    associated thread dequeues              active -= 1, then try
    try: free slot and a packet             active += 1, take the oldest
    try: nothing takeable                   push on the waiters, block
    wait timed out or was interrupted       leave the waiters, active += 1
    associated thread blocks elsewhere      active -= 1, then release waiters while packets and slots last
    that thread runs again                  active += 1, past the limit if need be

Guarantees: at rest there is never a waiter, a queued packet and a free slot at once.

Source: "I/O Completion Ports"; section 4 of `docs/semantics/completion-port.md`.
"""

from _thread import allocate_lock
from collections import deque

from .packet import CompletionPacket, PacketQueue
from .thread import ThreadRecord
from .waiter import Waiter


class SlotQueue:
    """A queue of packets, a stack of waiting threads, a count of active ones. Base of the port."""

    __slots__ = ("_active", "_closed", "_concurrency", "_lock", "_posted", "_queue", "_taken", "_waiters")

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._lock = allocate_lock()
        # All below: guarded by _lock. Invariant at rest: not (_waiters and _queue and _active <
        # _concurrency).
        self._queue: PacketQueue = self._make_queue()
        self._waiters: list[Waiter] = []
        self._active = 0
        self._posted = 0
        self._taken = 0
        # Closed: nothing is counted any more.
        self._closed = False

    def _make_queue(self) -> PacketQueue:
        return deque()

    def _hand_over_locked(self, packet: CompletionPacket) -> Waiter:
        """Give the packet and a slot to a waiter; the caller wakes it after releasing the lock."""
        waiter = self._choose_locked()
        waiter.result = packet
        self._active += 1
        self._taken += 1
        return waiter

    def _choose_locked(self) -> Waiter:
        return self._waiters.pop()

    def _pump_locked(self) -> list[Waiter]:
        """Restore the invariant: hand packets to waiters while both and free slots last."""
        woken: list[Waiter] = []
        while self._waiters and self._queue and self._active < self._concurrency:
            try:
                packet = self._queue.popleft()
            except IndexError:
                break  # A thread that needs no lock took it.
            woken.append(self._hand_over_locked(packet))
        return woken

    def _pump(self) -> None:
        """Hand over what was queued while a thread went to sleep."""
        with self._lock:
            woken = self._pump_locked()
        for waiter in woken:
            waiter.wake()

    def release_slot(self, record: ThreadRecord) -> None:
        """The associated thread blocks outside this port: its slot is free until `retake_slot`."""
        with self._lock:
            if not record.slot:
                return
            record.slot = False
            if self._closed:
                return
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
