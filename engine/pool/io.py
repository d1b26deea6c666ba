"""I/O objects: a callback for each announced operation that completes.

Theory of operation. An `Io` object is bound to a source of overlapped operations as a port would be; the
packets that the source delivers are its callbacks. Every operation is announced before it is begun (`start`),
so that the object knows what to wait for; an operation that will deliver no packet is taken back (`cancel`).

    announced --packet--> queued --worker--> running
    announced --cancel (it failed at once, or completed at once without a packet)--> forgotten by both sides
    announced --wait(cancel_pending=True)--> swallowed when its packet comes

Source: "CreateThreadpoolIo", "StartThreadpoolIo", "CancelThreadpoolIo", "WaitForThreadpoolIoCallbacks".
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from transport.log import Log

from ..kernel.errors import InvalidState
from ..kernel.packet import CompletionPacket
from ..kernel.port import CompletionPort
from ..kernel.source import PortSource, bind
from .backlog import Turn
from .environment import Environment
from .pool import ThreadPool
from .source import CallbackObject

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
        "_announced", "_cancelled", "_completed", "_dropped", "_forgotten", "_started_io", "_swallow",
        "_variables",
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
        # Of the forgotten ones, those whose packets may still come; and packets that nobody announced.
        self._swallow = 0
        self._dropped = 0
        super().__init__(function, args, environment, pool, context)
        self._variables = self._capture()
        try:
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
            elif self._swallow:  # Forgotten meanwhile: no packet will come for it.
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
            if self._swallow:
                self._swallow -= 1
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

    def _forget_locked(self) -> int:
        self._forgotten += self._announced
        self._swallow += self._announced
        self._announced = 0
        return 0  # Their packets would have decided that there are callbacks.
