"""The queue inside a completion port: packets are put in here, and what watches it is notified.

Theory of operation. Who may take a packet and who is released next is decided in `slots.py`, under the lock of the
queue. It comes to nothing when a packet is queued behind others, so that goes without the lock, straight to the deque:
append, then look for waiters, since some may have come meanwhile. A thread that is going to block shows itself among
the waiters first, and looks at the queue after that; so of a thread that posts and one that goes to sleep, one sees the
other. Once something watches what is queued (a wait for the port, a `WaitPacket`), every thread takes the lock.

Assumes: `append` and `extend` of a deque are atomic; attribute accesses are not reordered against them. The counter
`_posted` is kept without the lock: exact where the interpreter has a global lock, else good enough for statistics.

Source: "PostQueuedCompletionStatus".
"""

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from ..errors import Deadlock, Forked, InvalidHandle, QueueFull
from .afterwards import afterwards
from .lock import index_of
from .packet import CompletionPacket
from .slots import SlotQueue
from .waiter import Waiter, wake


class QueueWatcher(Protocol):
    """What is notified when a packet was queued, or the port closed."""

    def notify(self) -> None: ...


W = TypeVar("W", bound=QueueWatcher)


class PortQueue(SlotQueue):
    """The part of a completion port into which packets are put."""

    __slots__ = ("__weakref__", "_capacity", "_forked", "_open", "_signal", "_wait_packets")

    def __init__(self, concurrency: int, capacity: int) -> None:
        super().__init__(concurrency)
        self._capacity = capacity
        # True in a forked child that inherited the port; written by the fork hook before any thread of the child runs.
        self._forked = False
        # The queue, for those who need no lock; None when all must take it: the queue is a subclass's, or something
        # watches what is queued, or the port is closed. Changed under _lock.
        self._open: deque[CompletionPacket] | None = self._queue if isinstance(self._queue, deque) else None
        # Set once, under _lock, when a thread waits for the port itself.
        self._signal: QueueWatcher | None = None
        # Guarded by _lock. The `WaitPacket`s whose waits are to be withdrawn when the port closes.
        self._wait_packets: weakref.WeakSet[Any] | None = None

    def post(self, key: Any = 0, transferred: Any = 0, overlapped: Any = None, status: int = 0) -> None:
        """Queue a packet with these values, or hand it to the newest waiting thread.

        Args: any values, none of them looked at; `status` is an int, 0 for success.
        Raises: `InvalidHandle` if the port is closed; `QueueFull` if `capacity` packets are queued.
        Blocks: never. Posting neither takes nor gives back a slot, whichever thread posts. Safe in a signal handler; if
            that interrupted the engine itself, the packet may be takeable a moment after the return.
        Source: "PostQueuedCompletionStatus". Different from Windows: a status may be posted too.
        """
        packet = CompletionPacket(key, transferred, overlapped, status)
        queue = self._open
        if queue is not None and len(queue) < self._capacity:
            try:
                queue.append(packet)
                self._posted += 1
                if self._waiters and self._active < self._concurrency:
                    self._pump()
                if self._open is not queue:
                    self._overtaken()
            except Deadlock:  # In a signal handler. The packet is queued; no thread was given it.
                afterwards(self._look_again)
            except BaseException:
                self._look_again()
                raise
        else:
            try:
                self._put(packet)
            except Deadlock:  # In a signal handler: nothing was changed.
                if len(self._queue) >= self._capacity:
                    raise self._full_error() from None
                afterwards(self.deliver, (packet,))

    def _put(self, packet: CompletionPacket) -> None:
        """Post under the lock: the port is watched, full or closed."""
        woken: list[Waiter] = []
        try:
            with self._lock:
                if self._closed:
                    raise self._closed_error()
                queued = self._put_locked((packet,), self._capacity, woken)
            wake(woken)
            if queued:
                self._notify_watchers()
        except BaseException:
            wake(woken)
            self._notify_watchers()
            raise

    def deliver(self, packets: Sequence[CompletionPacket]) -> bool:  # noqa: C901  # a hot path
        """Queue the packets of accepted operations, in order: as `post`, but `capacity` does not apply.

        Returns False, having dropped them, if the port is closed. Blocks: never.
        """
        queue, waiters, lock = self._open, self._waiters, self._lock
        if queue is not None and not waiters:
            try:
                queue.extend(packets)
                self._posted += len(packets)
                if self._waiters and self._active < self._concurrency:
                    self._pump()
                if self._open is not queue:
                    self._overtaken()
            except BaseException:
                self._look_again()
                raise
            return True
        if lock.owned():
            lock.refuse()
        first: Waiter | None = None
        woken: list[Waiter] = []
        queued = False
        try:
            lock.acquire()
            if self._closed:
                lock.release()
                return False
            if waiters and self._active < self._concurrency:
                # `_hand_over_locked` in line: this is the way of every reply to a waiting thread.
                first = waiters[-1]
                del waiters[-1]
                first.result = packets[0]
                self._active += 1
                self._taken += 1
                self._posted += 1
                packets = packets[1:]
            if (
                packets
                and queue is not None
                and queue is self._open
                and not (waiters and self._active < self._concurrency)
            ):
                # As `_put_locked` does if no thread is to have one.
                queue.extend(packets)
                self._posted += len(packets)
                queued = True
            elif packets:
                queued = self._put_locked(packets, None, woken)
            lock.release()
            if first is not None:
                # `Waiter.wake` in line: it may be this very thread, which polls.
                first.signalled = True
                try:
                    first.gate.release()
                except RuntimeError:
                    pass
                if first.interrupt is not None:
                    first.interrupt()
            if woken:
                wake(woken)
            if queued and self._signal is not None:
                self._notify_watchers()
        except BaseException:
            if lock.owned():
                lock.release()
            if first is not None:
                first.wake()
            wake(woken)
            self._notify_watchers()
            raise
        return True

    def _put_locked(self, packets: Sequence[CompletionPacket], capacity: int | None, woken: list[Waiter]) -> bool:
        """Hand packets over as long as a thread waits for them, and queue the rest; return whether there was a rest."""
        number = 0
        while self._waiters and self._active < self._concurrency and number < len(packets):
            waiter = self._choose_locked()
            waiter.result = packets[number]
            number += 1
            self._active += 1
            self._taken += 1
            self._posted += 1
            woken.append(waiter)
        rest = packets[number:]
        if capacity is not None and len(self._queue) + len(rest) > capacity:
            raise self._full_error()
        deque(map(self._queue.append, rest), 0)  # One call of C code.
        self._posted += len(rest)
        return bool(rest)

    def _full_error(self) -> QueueFull:
        return QueueFull(f"{self._capacity} packets are queued: dequeue faster, or make `capacity` larger")

    def _look_again(self) -> None:
        """What was queued without the lock may be for a thread that waits, or have come too late."""
        self._pump()
        self._overtaken()

    def _overtaken(self) -> None:
        """The port was closed, or watched, while a packet was queued without the lock."""
        with self._lock:
            if self._closed:
                self._queue.clear()
        self._notify_watchers()

    def _notify_watchers(self) -> None:
        if self._signal is not None:
            self._signal.notify()

    def _closed_error(self) -> InvalidHandle:
        if self._forked:
            return Forked("this completion port was made before fork(): make a new one in the child")
        return InvalidHandle("the completion port is closed")

    def _inherit(self) -> None:
        """In a forked child: the port is the parent's."""
        self._forked = self._closed = True
        self._open = None
        self._waiters = []
        self._wait_packets = None
        self._queue.clear()

    # For those who look at what is queued

    def _watch(self, wait_packet: Any = None) -> None:
        """Have every post and dequeue take the lock, because something looks at what is queued.

        Raises: `InvalidHandle` if the port is closed. A `wait_packet` is cancelled when the port closes.
        """
        with self._lock:
            if self._closed:
                raise self._closed_error()
            self._open = None
            if wait_packet is not None:
                if self._wait_packets is None:
                    self._wait_packets = weakref.WeakSet()
                self._wait_packets.add(wait_packet)

    def _find(self, packet: CompletionPacket, remove: bool) -> bool:
        """Whether this very packet is queued; with `remove` it is taken out."""
        with self._lock:
            queue = self._queue
            if not isinstance(queue, deque):
                return False
            index = index_of(packet, queue)
            if remove and index is not None:
                del queue[index]
            return index is not None

    def _get_signal(self, make: Callable[["PortQueue"], W]) -> W:
        """Return the port as something to wait for, made by `make(self)` when it is first asked for."""
        self._watch()
        with self._lock:
            signal: Any = self._signal
            if signal is None:
                signal = self._signal = make(self)
            made: W = signal
            return made

    def _is_signaled(self) -> bool:
        """Whether a packet is queued, or the port closed."""
        return self._closed or len(self._queue) > 0

    def _is_full(self) -> bool:
        """Whether as many packets are queued as the port's capacity."""
        return len(self._queue) >= self._capacity


# The same for other files of the kernel: a port shows its users what they call, and nothing else.
watch: Callable[..., None] = PortQueue._watch
find: Callable[[PortQueue, CompletionPacket, bool], bool] = PortQueue._find
get_signal: Callable[[PortQueue, Callable[[PortQueue], W]], W] = PortQueue._get_signal
is_signaled: Callable[[PortQueue], bool] = PortQueue._is_signaled
is_full: Callable[[PortQueue], bool] = PortQueue._is_full
inherit: Callable[[PortQueue], None] = PortQueue._inherit
