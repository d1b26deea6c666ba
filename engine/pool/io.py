"""I/O objects: a callback for each announced operation that completes.

Theory of operation. An `Io` object is bound to a source of overlapped operations as a port would be; the
packets that the source delivers are its callbacks. Every operation is announced before it is begun (`start`),
so that the object knows what to wait for; an operation that will deliver no packet is taken back (`cancel`).

    announced --packet--> queued --worker--> running
    announced --cancel (it failed at once, or completed at once without a packet)--> forgotten by both sides
    announced --wait(cancel_pending=True)--> forgotten: if it was begun, its packet is swallowed when it comes

What was begun, the source says (`PortSource.outstanding`); if it does not, all that was announced counts as begun.

Source: "CreateThreadpoolIo", "StartThreadpoolIo", "CancelThreadpoolIo", "WaitForThreadpoolIoCallbacks".
"""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from transport.log import Log

from ..errors import InvalidState
from ..kernel.packet import CompletionPacket
from ..kernel.port import CompletionPort
from ..kernel.port_source import PortSource, bind
from .callback_object import CallbackObject, Environment
from .core import CallbackCore
from .fair_queue import ObjectCallback
from .pool import ThreadPool

log: Log = Log("engine.pool")


class IoStatistics(msgspec.Struct, frozen=True):
    """A snapshot: started = announced + completed + cancelled + forgotten; `dropped`: not announced."""

    started: int
    announced: int
    completed: int
    cancelled: int
    forgotten: int
    dropped: int


class _IoPort(CompletionPort):
    """What the source takes for a completion port."""

    __slots__ = ("_io",)

    def __init__(self, io: "Io") -> None:
        super().__init__(1)
        self._io = io

    def post(self, key: Any = 0, transferred: Any = 0, overlapped: Any = None, status: int = 0) -> None:
        """Queue a callback with these values, if an operation was announced."""
        self._io._arrived(CompletionPacket(key, transferred, overlapped, status))

    def deliver(self, packets: Sequence[CompletionPacket]) -> bool:
        """Queue a callback for each packet that was announced."""
        for packet in packets:
            self._io._arrived(packet)
        return True

    def _dropped_open(self) -> str:
        return ""  # It holds no packets, and ends with its object and its source.


class IoCore(CallbackCore):
    """The inside of an `Io`: the operations that were announced."""

    __slots__ = (
        "announced", "arrivals", "cancelled", "completed", "dropped", "forgotten", "owed", "source", "started_io",
        "swallow",
    )  # fmt: skip

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # All guarded by the port's lock. Invariant: started_io = announced + completed + cancelled +
        # forgotten.
        self.started_io: int = 0
        self.announced: int = 0
        self.completed: int = 0
        self.cancelled: int = 0
        self.forgotten: int = 0
        # Of the forgotten ones, those that were begun, by what their packets will carry; and how many others there are:
        # they were not begun, or the source does not say.
        self.owed: list[Any] = []
        self.swallow: int = 0
        # Packets that were not announced; and all that have come.
        self.dropped: int = 0
        self.arrivals: int = 0
        # None if the source does not say what was begun.
        self.source: weakref.ref[Any] | None = None

    def busy_locked(self, whole: bool) -> bool:
        """Whether anything is announced, queued or running."""
        return self.announced > 0 or super().busy_locked(whole)

    def swallow_locked(self, packet: CompletionPacket) -> bool:
        """Whether the packet is that of an operation that was forgotten."""
        index = next((index for index, owed in enumerate(self.owed) if owed is packet.overlapped), None)
        if index is not None:
            del self.owed[index]
            return True
        # If the source says what was begun, the others were not: what comes is what was announced since, if anything.
        if not self.swallow or (self.source is not None and self.announced):
            return False
        self.swallow -= 1
        return True

    def forget_locked(self) -> int:
        """Forget what is announced."""
        owed = self._begun_locked()
        self.forgotten += self.announced
        self.swallow += max(0, self.announced - (len(owed) - len(self.owed)))
        self.owed = owed
        self.announced = 0
        return 0  # Their packets would have decided that there are callbacks.

    def _begun_locked(self) -> list[Any]:
        """What the packets that are still to come will carry, those of operations forgotten before included."""
        source = None if self.source is None else self.source()
        if source is None:
            return []
        delivered, coming = source.outstanding()
        # Of those that are just being delivered, some have come already.
        owed: list[Any] = coming[max(0, self.arrivals - delivered) :]
        return owed


class Io(CallbackObject):
    """A callback for each operation of a source that completes.

    Args:
        source: an overlapped socket or another source that can be associated with a port. It is bound to this
            object for life.
        function, args: each callback is `function(*args, packet)`, with the operation's `CompletionPacket`:
            `overlapped` identifies it, `status` is 0 or its error (995 if it was cancelled), `transferred`
            the byte count.
        pool, environment: where and how callbacks run; give at most one of them.
        context: anything; handed to cancel and finalization callbacks.

    Raises: what `CompletionPort.associate` raises, if the source cannot be bound.
    Announce every operation with `start` before beginning it. Callbacks run in parallel and in any order.
    """

    __slots__ = ("_variables",)

    _core: IoCore
    _kind = IoCore

    def __init__(
        self,
        source: PortSource,
        function: Callable[..., object],
        *args: Any,
        pool: ThreadPool | None = None,
        environment: Environment | None = None,
        context: object = None,
    ) -> None:
        super().__init__(function, *args, pool=pool, environment=environment, context=context)
        core = self._core
        self._variables = core.capture()
        try:
            if hasattr(source, "outstanding"):
                core.source = weakref.ref(source)
            bind(source, _IoPort(self), self)
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Announce one operation, which is about to be begun.

        From here on `wait` waits for it. Raises: `InvalidHandle` if the object or its pool is closed. Blocks:
        never.
        Source: "StartThreadpoolIo".
        """
        core = self._core
        core.require_live()
        with core.port.lock:
            core.started_io += 1
            core.announced += 1

    def cancel(self) -> None:
        """Take an announcement back: its operation failed at once, or completed at once without a packet.

        Raises: `InvalidState` if nothing is announced. Blocks: never. Source: "CancelThreadpoolIo".
        """
        core = self._core
        with core.port.lock:
            if core.announced:
                core.announced -= 1
                core.cancelled += 1
            elif core.swallow:  # Forgotten meanwhile.
                core.swallow -= 1
            else:
                raise InvalidState("no operation is announced: call start() before each one")
            woken = core.quiet_locked()
        for waiter in woken:
            waiter.wake()

    def io_statistics(self) -> IoStatistics:
        """Return a consistent snapshot of the announcements. Never blocks."""
        core = self._core
        with core.port.lock:
            return IoStatistics(
                started=core.started_io,
                announced=core.announced,
                completed=core.completed,
                cancelled=core.cancelled,
                forgotten=core.forgotten,
                dropped=core.dropped,
            )

    def _arrived(self, packet: CompletionPacket) -> None:
        core = self._core
        callback = ObjectCallback(core, self, self._variables.copy(), (packet,))
        todo = None
        with core.port.lock:
            core.arrivals += 1
            if core.swallow_locked(packet):
                return
            if core.announced:
                core.announced -= 1
                core.completed += 1
                todo = core.port.push_locked(callback)
            else:
                core.dropped += 1
        if todo is not None:
            core.port.act(todo)
        else:
            log.warning("%r dropped a packet that no start() had announced: %r", self, packet)
