"""Tasks that take packets from a completion port: `await port.get_async()`, and `async for packet in port`.

Theory of operation. A task waits on the port's stack as a thread does, and is handed its packet as a thread is; what
wakes it resolves what it awaits. It takes a slot with that only until its loop comes to it: a task is no thread, and
neither is nor stays associated with a port. A task that is cancelled meanwhile puts its packet back to the head.

    stack --packet, slot--> handed over --the loop comes to it--> has the packet, gives the slot back

Source: "GetQueuedCompletionStatus". Awaiting is an addition.
"""

from collections.abc import Callable
from functools import partial
from typing import Self

from transport.realtime import monotonic

from ..errors import AbandonedWait, WaitTimeout
from .aio import Completion
from .checks import check_timeout
from .driver import driver
from .packet import CompletionPacket
from .port_queue import PortQueue
from .waiter import Waiter

_TIMED_OUT = object()  # What a waiter has in the place of a packet.


class TaskWaiter(Waiter):
    """A task that waits for a packet."""

    __slots__ = ("completion",)

    def __init__(self) -> None:
        super().__init__()
        self.completion: Completion = Completion()
        # Called with each wake-up of a thread that polls; this one wakes the task.
        self.interrupt: Callable[[], None] | None = self.completion.wake


class TaskPort(PortQueue):
    """The part of a completion port that tasks take packets from."""

    __slots__ = ()

    async def get_async(self, timeout: float | None = None) -> CompletionPacket:
        """As `get`, but the task waits, and neither it nor its thread is associated with the port.

        Args: `timeout` in seconds; None waits for ever, 0 polls.
        Raises: as `get`. A task that is cancelled while it waits takes nothing.
        Packets go to the thread or task that has waited shortest. A task counts as active from when it is given a
        packet until its loop has come to it, and not while it works on the packet.
        """
        timeout = check_timeout(timeout)
        if not self._queue and driver().sources:
            driver().catch_up()
        packet = self._take_queued()
        if packet is not None:
            return packet
        if timeout == 0:
            raise WaitTimeout("no packet is takeable")
        waiter = TaskWaiter()
        try:
            with self._lock:
                if self._closed:
                    raise self._closed_error()
                self._waiters.append(waiter)
            if self._queue:  # Posted since, by a thread that saw no waiter; or there is no free slot.
                self._pump()
            await self._wait(waiter, timeout)
        except BaseException:
            self._withdraw(waiter)
            raise
        return self._received(waiter, timeout)

    def _take_queued(self) -> CompletionPacket | None:
        with self._lock:
            if self._closed:
                raise self._closed_error()
            if self._active < self._concurrency:
                try:
                    for packet in self._pops:
                        self._taken += 1
                        return packet
                except IndexError:
                    pass  # There is none.
        return None

    async def _wait(self, waiter: TaskWaiter, timeout: float | None) -> None:
        timer = None
        if timeout is not None:
            timer = driver().monitor.call_at(monotonic() + timeout, partial(self._expire, waiter))
        try:
            waiter.completion.bridge.turn_soon()  # What was begun before may still have to be sent.
            await waiter.completion
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, waiter: TaskWaiter) -> None:
        """The time is up: leave the stack, unless the wait was decided just now. On any thread."""
        with self._lock:
            if waiter.result is None:
                self._waiters.remove(waiter)
                waiter.result = _TIMED_OUT
        waiter.wake()

    def _received(self, waiter: TaskWaiter, timeout: float | None) -> CompletionPacket:
        """Return what the task was given, and give its slot back; raise if it was given nothing."""
        found = waiter.result
        if isinstance(found, CompletionPacket):
            self._give_back()
            return found
        if found is _TIMED_OUT:
            raise WaitTimeout(f"no packet became takeable within {timeout} s{driver().silence()}")
        raise AbandonedWait("the completion port was closed while this task waited on it")

    def _withdraw(self, waiter: TaskWaiter) -> None:
        """The task was cancelled: leave the stack, or put what it was given back to the head."""
        with self._lock:
            found = waiter.result
            if found is None and waiter in self._waiters:
                self._waiters.remove(waiter)
                return
            if self._closed or not isinstance(found, CompletionPacket):
                return
            self._queue.appendleft(found)
            self._taken -= 1
        self._give_back()
        self._notify_watchers()

    def _give_back(self) -> None:
        with self._lock:
            if not self._closed:
                self._active -= 1
        if self._waiters and self._queue:
            self._pump()

    def __aiter__(self) -> Self:
        """Iterate over the packets as they come; the iteration ends when the port is closed."""
        return self

    async def __anext__(self) -> CompletionPacket:
        if self._closed:
            raise StopAsyncIteration
        try:
            return await self.get_async()
        except AbandonedWait:
            raise StopAsyncIteration from None
