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
from .backlog import Turn
from .callback_object import CallbackObject
from .environment import Environment
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

    __slots__ = (
        "_announced", "_arrivals", "_cancelled", "_completed", "_dropped", "_forgotten", "_owed", "_source",
        "_started_io", "_swallow", "_variables",
    )  # fmt: skip

    def __init__(
        self,
        source: PortSource,
        function: Callable[..., object],
        *args: Any,
        pool: ThreadPool | None = None,
        environment: Environment | None = None,
        context: object = None,
    ) -> None:
        # All guarded by the port's lock. Invariant: _started_io = _announced + _completed + _cancelled +
        # _forgotten.
        self._started_io = 0
        self._announced = 0
        self._completed = 0
        self._cancelled = 0
        self._forgotten = 0
        # Of the forgotten ones, those that were begun, by what their packets will carry; and how many others there are:
        # they were not begun, or the source does not say.
        self._owed: list[Any] = []
        self._swallow = 0
        # Packets that nobody announced; and all that have come.
        self._dropped = 0
        self._arrivals = 0
        super().__init__(function, args, environment, pool, context)
        self._variables = self._capture()
        # None if the source does not say what was begun.
        self._source: weakref.ref[Any] | None = None
        try:
            if hasattr(source, "outstanding"):
                self._source = weakref.ref(source)
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
        self._require_live()
        with self._port.lock:
            self._started_io += 1
            self._announced += 1

    def cancel(self) -> None:
        """Take an announcement back: its operation failed at once, or completed at once without a packet.

        Raises: `InvalidState` if nothing is announced. Blocks: never. Source: "CancelThreadpoolIo".
        """
        with self._port.lock:
            if self._announced:
                self._announced -= 1
                self._cancelled += 1
            elif self._swallow:  # Forgotten meanwhile.
                self._swallow -= 1
            else:
                raise InvalidState("no operation is announced: call start() before each one")
            woken = self._quiet_locked()
        for waiter in woken:
            waiter.wake()

    def io_statistics(self) -> IoStatistics:
        """Return a consistent snapshot of the announcements. Never blocks."""
        with self._port.lock:
            return IoStatistics(
                started=self._started_io,
                announced=self._announced,
                completed=self._completed,
                cancelled=self._cancelled,
                forgotten=self._forgotten,
                dropped=self._dropped,
            )

    def _arrived(self, packet: CompletionPacket) -> None:
        turn = Turn(self, self._variables.copy(), (packet,))
        todo = None
        with self._port.lock:
            self._arrivals += 1
            if self._swallow_locked(packet):
                return
            if self._announced:
                self._announced -= 1
                self._completed += 1
                todo = self._port.push_locked(turn)
            else:
                self._dropped += 1
        if todo is not None:
            self._port.act(todo)
        else:
            log.warning("%r dropped a packet that no start() had announced: %r", self, packet)

    def _busy_locked(self, whole: bool) -> bool:
        return self._announced > 0 or super()._busy_locked(whole)

    def _swallow_locked(self, packet: CompletionPacket) -> bool:
        """Whether the packet is that of an operation that was forgotten."""
        index = next((index for index, owed in enumerate(self._owed) if owed is packet.overlapped), None)
        if index is not None:
            del self._owed[index]
            return True
        # If the source says what was begun, the others were not: what comes is what was announced since, if anything.
        if not self._swallow or (self._source is not None and self._announced):
            return False
        self._swallow -= 1
        return True

    def _forget_locked(self) -> int:
        owed = self._begun_locked()
        self._forgotten += self._announced
        self._swallow += max(0, self._announced - (len(owed) - len(self._owed)))
        self._owed = owed
        self._announced = 0
        return 0  # Their packets would have decided that there are callbacks.

    def _begun_locked(self) -> list[Any]:
        """What the packets that are still to come will carry, those of operations forgotten before included."""
        source = None if self._source is None else self._source()
        if source is None:
            return []
        delivered, coming = source.outstanding()
        # Of those that are just being delivered, some have come already.
        owed: list[Any] = coming[max(0, self._arrivals - delivered) :]
        return owed
