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

from collections import deque

from ..lifecycle import Uncopyable
from .lock import Lock
from .packet import CompletionPacket, PacketQueue
from .thread import ThreadRecord
from .waiter import Waiter, wake


class SlotQueue(Uncopyable):
    """A queue of packets, a stack of waiting threads, a count of active ones. Base of the port."""

    __slots__ = ("_active", "_closed", "_concurrency", "_lock", "_pops", "_posted", "_queue", "_taken", "_waiters")

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._lock = Lock()
        # All below: guarded by _lock. Invariant at rest: not (_waiters and _queue and _active <
        # _concurrency).
        self._queue: PacketQueue = self._make_queue()
        # Takes the oldest packet, as one step of a `for` loop: unlike after a call, no signal handler can raise
        # between the taking and the assignment, which would lose the packet. IndexError: the queue is empty.
        self._pops = iter(self._queue.popleft, None)
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
        waiter = self._waiters[-1]
        del self._waiters[-1]
        return waiter

    def _pump_locked(self, woken: list[Waiter]) -> None:
        """Restore the invariant: hand packets to waiters while both and free slots last; the caller wakes them."""
        while self._waiters and self._queue and self._active < self._concurrency:
            self._pump_one_locked(woken)

    def _pump_one_locked(self, woken: list[Waiter]) -> None:
        packet = None
        try:
            for packet in self._pops:  # noqa: B007  # used after the loop, which takes one: see `_pops`
                break
            assert packet is not None, "an empty queue raises"
            woken.append(self._hand_over_locked(packet))
        except IndexError:
            pass  # A thread that needs no lock took it.
        except BaseException:  # A signal handler raised: no thread shall miss what was handed over.
            if packet is not None and not (woken and woken[-1].result is packet):
                self._queue.appendleft(packet)
            raise

    def _pump(self) -> None:
        """Restore the invariant, and wake who was given something."""
        woken: list[Waiter] = []
        try:
            with self._lock:
                self._pump_locked(woken)
            wake(woken)
        except BaseException:
            wake(woken)
            self._notify_watchers()
            raise

    def _notify_watchers(self) -> None:
        """A packet was queued, or went back into the queue: what looks at it is to look again."""

    def _release_slot(self, record: ThreadRecord) -> None:
        """The associated thread blocks outside this port, ended or left it: its slot is free until `_retake_slot`."""
        try:
            with self._lock:
                if record.slot:
                    record.slot = False
                    if not self._closed:
                        self._active -= 1
        finally:
            if self._waiters and self._queue:
                self._pump()

    def _retake_slot(self, record: ThreadRecord) -> None:
        """The associated thread runs again: it is active at once, even past the concurrency value."""
        with self._lock:
            if not record.slot and not self._closed:
                record.slot = True
                self._active += 1
