"""The completion port: first-in-first-out packets for last-in-first-out threads, under a concurrency value.

Theory of operation. Packets are put in by `port_queue.py`. Who may take one and who is released next is decided in
`slots.py`, under the port's lock. It comes to nothing when a thread that holds a slot comes back for more and finds a
packet: giving the slot back and taking it again cancel out, so that goes without the lock, straight to the deque.

Guarantees: a packet is delivered to exactly one dequeue: if the chosen thread leaves its wait by an exception
(KeyboardInterrupt), the packet goes back to the head.

Assumes: `popleft` of a deque is atomic; attribute accesses are not reordered against it. The counter `_taken` is kept
without the lock: exact where the interpreter has a global lock, else good enough for statistics.

Source: "I/O Completion Ports", "CreateIoCompletionPort", "GetQueuedCompletionStatus",
"GetQueuedCompletionStatusEx", "PostQueuedCompletionStatus".
"""

import os
from collections.abc import Callable
from itertools import repeat, starmap
from types import NoneType
from typing import Any, Self
from weakref import ref

from ..errors import AbandonedWait, Alerted, WaitTimeout
from ..lifecycle import Closeable, OpenObjects
from .apc import run_apcs, wait_alertably
from .bridge import WaitPacket
from .checks import LONGEST, Deadline, check_count, check_flag, check_timeout
from .driver import Driver, driver
from .helping import HelpingWaiter
from .lock import each
from .packet import UNSET, CompletionPacket, PacketQueue, PacketTemplate, PortStatistics
from .port_queue import inherit
from .port_source import PortSource, bind
from .port_tasks import TaskPort
from .thread import PortBinding, ThreadRecord, associate, local
from .waiter import Waiter, wake

DEFAULT_CAPACITY = 1 << 20  # Packets that users may leave queued; arbitrary, some 100 MB of packets.


_ABANDONED = object()
_ALERTED = object()
_TIMED_OUT = object()


def _abandon(waiter: Waiter) -> None:
    waiter.result = _ABANDONED


class CompletionPort(TaskPort, Closeable):
    """A queue of completion packets that threads take from, newest waiting thread first.

    Args:
        source, key: bind this source at once, as `associate` does; if that fails there is no port.
        concurrency: how many threads may be active (running after a dequeue) at once; 0 means the number of
            logical processors. Fixed for the port's life. It limits running threads, not waiting ones.
        capacity: how many posted packets may be queued; at the limit `post` raises `QueueFull`. Packets of
            accepted operations are never refused: each operation's own limit bounds them.

    The port belongs to who made it: close it, or use it as a context manager. One that is dropped open is
    reported as a `ResourceWarning`.

    Tasks take packets by `await port.get_async()`, or `async for packet in port`; see there.

    Threads: every method may be called from any thread. In a signal handler or a finalizer only `post` is safe: the
        others raise `Deadlock` there if their thread was interrupted under a lock that they need.
    Source: "CreateIoCompletionPort". Different from Windows: `capacity` bounds it.
    """

    __slots__ = ("_binding", "_driver", "_plain")

    def __init__(
        self,
        concurrency: int = 0,
        *,
        source: PortSource | None = None,
        key: Any = 0,
        capacity: int = DEFAULT_CAPACITY,
    ) -> None:
        check_count("concurrency", concurrency)
        check_count("capacity", capacity, least=1)
        super().__init__(concurrency or os.cpu_count() or 1, capacity)
        # What associated threads hold of the port.
        self._binding = PortBinding(self)
        # The process's, from the first wait on: a port does not outlast a fork, nor a driver a process.
        self._driver: Driver | None = None
        # Yields the template without values of its own, as long as some operation has it: it has the port, which would
        # otherwise keep itself. A thread that overwrites another's makes one more of them.
        self._plain: Callable[[], PacketTemplate | None] = NoneType
        _open_ports.add(self)
        if source is not None:
            try:
                self.associate(source, key)
            except BaseException:
                self.close()
                raise

    @property
    def concurrency(self) -> int:
        """The concurrency value, fixed at creation."""
        return self._concurrency

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def __repr__(self) -> str:
        state = (
            "closed" if self._closed else f"depth={len(self._queue)} active={self._active} waiting={len(self._waiters)}"
        )
        return f"<CompletionPort concurrency={self._concurrency} {state}>"

    # Sources

    def associate(self, source: PortSource, key: Any = 0) -> Self:
        """Bind `source` to this port: from now on its operations complete here, under `key`.

        A source has one port, for life; many sources may share a port, told apart by their keys.

        Args: `source` has a method `bind_port(port, key)`, see `PortSource`. `key` is any value; it is not
            looked at.
        Returns: the port.
        Raises: `InvalidParameter` (87) for a source that is bound already, or that refuses;
            `InvalidArgumentType` (87) for what is not a source; `InvalidHandle` (6) if the port or the source
            is closed. Then nothing has changed.
        Source: "CreateIoCompletionPort".
        """
        if self._closed:
            raise self._closed_error()
        bind(source, self, key)
        return self

    def associate_wait(
        self, waitable: Any, key: Any = 0, transferred: Any = 0, overlapped: Any = None, status: int = 0
    ) -> WaitPacket:
        """Have one packet queued when `waitable` becomes signaled, which consumes the signal.

        Args: `waitable` is anything `register_wait` takes: an event, semaphore, timer, thread, process,
            future (any object with `done` and `add_done_callback`, but asyncio's).
        Returns: the wait packet: `cancel` withdraws it, `associate` uses it again after its packet was
            dequeued, `already_signaled` tells whether the packet was queued at once.
        Raises: `InvalidHandle` if either is closed; `InvalidParameter` for a mutex; `InvalidArgumentType`.
        Blocks: never; no thread is spent on a pending wait. Source: "NtAssociateWaitCompletionPacket".
        """
        packet = WaitPacket()
        packet.associate(self, waitable, key, transferred, overlapped, status)
        return packet

    def packet(self, key: Any = 0, transferred: Any = 0, overlapped: Any = UNSET) -> PacketTemplate:
        """Describe the packet that an operation shall post to this port when it completes.

        Give the result as `notify=` when beginning a call. The three values come back unchanged in the
        packet; `overlapped` is the operation's own handle unless given (None counts as given).
        """
        if type(key) is type(transferred) is int and not key and not transferred and overlapped is UNSET:
            # One for all operations that are given the port itself, so that their packets are delivered together.
            plain = self._plain()
            if plain is None:
                plain = PacketTemplate(self, 0, 0, UNSET)
                self._plain = ref(plain)
            return plain
        return PacketTemplate(self, key, transferred, overlapped)

    # Dequeuing

    def get(self, timeout: float | None = None) -> CompletionPacket:
        """Take the oldest packet, waiting for one if need be.

        Args: `timeout` in seconds; None waits for ever, 0 polls.
        Returns: the packet. A packet whose `status` is not 0 belongs to a failed operation and is returned
            all the same.
        Raises: `WaitTimeout` (258) when nothing could be taken in time; `AbandonedWait` (735) if the port is
            closed while waiting; `InvalidHandle` (6) if it was closed before; `InvalidParameter` for a
            negative timeout.
        Blocks: until a packet is takeable: one is queued and fewer than `concurrency` threads are active.
        Threads: any. The call associates the thread with this port, and the thread counts as active until it
            blocks, ends, or dequeues again; that is so even after a timeout.
        Source: "GetQueuedCompletionStatus".
        """
        if timeout is not None:
            kind = type(timeout)
            if not ((kind is float or kind is int) and 0 <= timeout < LONGEST):
                timeout = check_timeout(timeout)  # The usual times are looked at in line.
        record = local.record
        queue = self._open
        if queue and record.slot and record.port is self._binding and self._active <= self._concurrency:
            try:
                for packet in self._pops:
                    self._taken += 1
                    return packet
            except IndexError:
                pass  # Another thread was faster.
        return self._take(record, 1, timeout, False)[0]

    def get_many(
        self, maximum: int = 64, timeout: float | None = None, *, alertable: bool = False
    ) -> list[CompletionPacket]:
        """Take up to `maximum` packets, oldest first, waiting for the first but never to fill the batch.

        Args: `maximum` >= 1; `timeout` in seconds, None for ever, 0 polls; `alertable` lets queued APCs end
            the wait.
        Returns: 1 to `maximum` packets. Look at each one's own `status`: a failed packet does not fail the
            call.
        Raises: as `get`; and `Alerted` (192), nothing taken, when APCs ran instead. Packets that are takeable
            go before APCs for a thread associated with this port; for any other thread pending APCs run
            first, and the call then does not associate it.
        A batch takes one slot, however many packets it has.
        Source: "GetQueuedCompletionStatusEx".
        """
        if type(maximum) is not int or maximum < 1:
            check_count("maximum", maximum, least=1)
        if timeout is not None:
            kind = type(timeout)
            if not ((kind is float or kind is int) and 0 <= timeout < LONGEST):
                timeout = check_timeout(timeout)  # As in `get`.
        if alertable is not False:
            check_flag("alertable", alertable)
        record = local.record
        if record.port is not self._binding:
            if self._closed:
                raise self._closed_error()
            if alertable and run_apcs(record):
                raise Alerted("APCs ran; the thread was not associated with the port")
        batch: list[CompletionPacket] = []
        queue = self._open
        if queue and record.slot and record.port is self._binding and self._active <= self._concurrency:
            try:
                self._fill(batch, queue, maximum)
            except BaseException:
                self._undo(record, None, batch)
                raise
            if batch:
                return batch
        deadline = Deadline(timeout) if alertable else None
        while not (batch := self._take(record, maximum, timeout, alertable)):
            timeout = None if deadline is None else deadline.left()
        return batch

    def _fill(self, batch: list[CompletionPacket], queue: PacketQueue, maximum: int) -> None:
        """Move packets from the queue to `batch`, up to `maximum` in all."""
        before = len(batch)
        try:
            # One call of C code: other threads may take from the queue too, so that it can run dry in the
            # middle; what was taken until then stays in the batch.
            batch.extend(starmap(queue.popleft, repeat((), min(len(queue), maximum - before))))
        except IndexError:
            pass  # As said.
        self._taken += len(batch) - before

    def _fill_watched(self, batch: list[CompletionPacket], maximum: int) -> None:
        """`_fill` while something watches what is queued."""
        with self._lock:
            self._fill(batch, self._queue, maximum)

    def _take(  # noqa: C901  # a hot path
        self, record: ThreadRecord, maximum: int, timeout: float | None, alertable: bool
    ) -> list[CompletionPacket]:
        """Dequeue by the book: give the slot back, then try, then block. A hot path: what usually happens is in line.

        Nothing is returned if a timer's APC ended the wait and was withdrawn before it ran.
        """
        if timeout == 0 and not self._queue and driver().sources:
            driver().catch_up()
        if record.port is not self._binding:
            self._adopt(record)
        batch: list[CompletionPacket] = []
        waiter = None
        lock = self._lock
        if lock.owned():
            lock.refuse()
        try:
            lock.acquire()
            if self._closed:
                record.port = None
                record.slot = False
                raise self._closed_error()
            if record.slot:
                self._active -= 1
                record.slot = False
            if self._queue and self._active < self._concurrency:
                self._fill(batch, self._queue, maximum)
            if batch or timeout == 0:
                self._active += 1
                record.slot = True
            else:
                waiter = HelpingWaiter()
                self._waiters.append(waiter)
            lock.release()
            if waiter is None:
                result = batch or _TIMED_OUT
            else:
                if self._queue:  # Posted since, by a thread that saw no waiter; or there is no free slot.
                    self._pump()
                if alertable:
                    signalled = self._sleep_alertably(record, waiter, timeout)
                else:
                    # The slot was given back above.
                    record.waiting = True
                    try:
                        signalled = (self._driver or self._find_driver()).wait(waiter, timeout)
                    finally:
                        record.waiting = False
                if not signalled:
                    self._give_up(waiter)
                result = waiter.result
                # The thread that decided the wait counted this one as active, under _lock; the field is its own.
                record.slot = result is not _ABANDONED
                if type(result) is CompletionPacket:
                    batch.append(result)
                    if maximum > 1 and self._queue:
                        # More packets need no more slots.
                        queue = self._open
                        if queue is not None:
                            self._fill(batch, queue, maximum)
                        else:
                            self._fill_watched(batch, maximum)
        except BaseException:
            if lock.owned():
                lock.release()
            self._undo(record, waiter, batch)
            raise
        return batch or self._end_empty(record, result, timeout, alertable)

    def _find_driver(self) -> Driver:
        found = self._driver = driver()
        return found

    def _end_empty(
        self, record: ThreadRecord, result: object, timeout: float | None, alertable: bool
    ) -> list[CompletionPacket]:
        """Say why a dequeue took nothing: raise, or return nothing as `_take` does."""
        if result is _ABANDONED:
            record.port = None
            raise AbandonedWait("the completion port was closed while this thread waited on it")
        # A time that has run out still lets pending APCs run.
        if alertable and run_apcs(record):
            raise Alerted("APCs ran; no packet was taken")
        if result is _ALERTED:
            return []
        raise WaitTimeout(
            "no packet is takeable"
            if timeout == 0
            else f"no packet became takeable within {timeout} s{driver().silence()}"
        )

    def _adopt(self, record: ThreadRecord) -> None:
        """Associate the thread with this port, leaving another one as if it had blocked there for good."""
        if self._closed:
            raise self._closed_error()
        associate(record, self._binding)

    def _sleep_alertably(self, record: ThreadRecord, waiter: Waiter, timeout: float | None) -> bool:
        """Sleep, the waiter on the stack, until it has a result or an APC comes; return whether it has one."""

        def alert() -> None:
            with self._lock:
                if waiter.result is None:
                    waiter.result = _ALERTED
                    self._active += 1
                    self._waiters.remove(waiter)
            if waiter.result is _ALERTED:  # Else a packet was first: the APC stays queued.
                waiter.wake()

        return wait_alertably(record, alert, waiter, timeout)

    def _give_up(self, waiter: Waiter) -> None:
        """The time is up: leave the stack, unless the wait was decided just now."""
        with self._lock:
            if waiter.result is None:
                self._waiters.remove(waiter)
                waiter.result = _TIMED_OUT
                self._active += 1

    def _undo(self, record: ThreadRecord, waiter: Waiter | None, batch: list[CompletionPacket]) -> None:
        """The dequeue ends by an exception: leave the stack, put what was taken back to the head."""
        with self._lock:
            if self._closed:
                return
            counted = record.slot
            if waiter is not None:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                counted = counted or waiter.result is not None
                if waiter.result is None:
                    waiter.result = _TIMED_OUT  # An APC that comes now finds it decided.
                if isinstance(waiter.result, CompletionPacket) and not batch:
                    batch = [waiter.result]
                    self._taken -= 1
            if not counted:
                self._active += 1
            record.slot = True
            each(self._queue.appendleft, reversed(batch))
        self._pump()
        self._notify_watchers()

    # End

    def close(self) -> None:
        """Close the port: waiting threads get `AbandonedWait`, queued packets are dropped.

        Closing twice does nothing. Blocks: never. Source: "CloseHandle", "GetQueuedCompletionStatus".
        """
        abandoned: list[Waiter] = []
        try:
            with self._lock:
                if self._closed and not self._wait_packets:
                    return
                self._closed = True
                self._open = None
                abandoned += self._waiters
                self._waiters.clear()
                each(_abandon, abandoned)
                self._queue.clear()
                self._active = 0
            _open_ports.discard(self)
            wake(abandoned)
            each(WaitPacket.cancel, list(self._wait_packets or ()))
            self._wait_packets = None
            self._notify_watchers()
        except BaseException:  # A signal handler raised: no thread shall sleep on a closed port.
            each(_abandon, abandoned)
            wake(abandoned)
            self._notify_watchers()
            raise

    def statistics(self) -> PortStatistics:
        """Return a consistent snapshot of the port's numbers. Never blocks."""
        driver().look_around()
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
        """The number of queued packets. Never blocks."""
        driver().look_around()
        return len(self._queue)

    def __bool__(self) -> bool:
        """A port is true, however many packets it holds."""
        return True

    def _dropped_open(self) -> str:
        return "" if getattr(self, "_closed", True) else repr(self)


_open_ports: OpenObjects[CompletionPort] = OpenObjects(inherit)
