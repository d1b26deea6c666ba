"""The two bridges between ports and waits: a signal that arrives as a packet, and a port that is waited for.

Source: "NtAssociateWaitCompletionPacket", "NtCancelWaitCompletionPacket"; sections 13 and 14 of
`docs/semantics/completion-port.md`.
"""

import weakref
from typing import Any

from transport.foreign import type_name

from ..errors import Deadlock, InvalidArgumentType, InvalidState
from ..lifecycle import Uncopyable
from ..status import Status
from .afterwards import afterwards
from .checks import check_flag
from .clock import SYSTEM_CLOCK
from .dispatcher import decide
from .lock import Lock
from .packet import CompletionPacket
from .port_queue import PortQueue, find, get_signal, is_signaled, watch
from .registered_wait import CallbackBlock
from .thread import ThreadRecord
from .waitable import Waitable, adapters, prepare_wait


class WaitPacket(Uncopyable):
    """A packet that is queued to a port when something becomes signaled: once for each `associate`.

    It is in use from `associate` until its packet was dequeued or it was cancelled.
    `CompletionPort.associate_wait` makes one and associates it; keep it only if it may have to be cancelled
    or is to be used again.

    Threads: every method may be called from any thread.
    """

    __slots__ = (
        "__weakref__",
        "_block",
        "_lock",
        "_packet",
        "_port",
        "_starting",
        "_delivered",
        "already_signaled",
    )

    def __init__(self) -> None:
        self._lock = Lock()
        # Guarded by _lock, but for `_packet` and `_delivered`, which the thread that signals writes once: before and
        # after queueing.
        self._port: PortQueue | None = None
        self._packet: CompletionPacket | None = None
        self._block: CallbackBlock | None = None
        self._delivered = False
        self._starting = False
        # Whether the object was signaled when it was last associated, so that the packet was queued at once.
        self.already_signaled: bool = False

    def associate(
        self,
        port: PortQueue,
        waitable: Any,
        key: Any = 0,
        transferred: Any = 0,
        overlapped: Any = None,
        status: int = 0,
    ) -> bool:
        """Have one packet with these values queued to `port` when `waitable` becomes signaled.

        Returns: whether it was signaled already. Raises: `InvalidState` with status 87 while the packet is in
        use; otherwise as `CompletionPort.associate_wait`. If the object is closed while the wait is pending,
        the packet comes with status 735 (ABANDONED_WAIT) instead of the one given. If the port is closed, the
        wait is withdrawn.
        """
        if not isinstance(port, PortQueue):
            raise InvalidArgumentType(f"port must be a CompletionPort, not {type_name(port)}")

        def deliver(outcome: Status) -> None:
            packet = CompletionPacket(key, transferred, overlapped, status if outcome is Status.OK else outcome)
            self._packet = packet
            port.deliver((packet,))
            self._delivered = True

        with self._lock:
            if self._starting or self._in_use_locked():
                raise InvalidState(
                    "the wait packet is in use: dequeue its packet or cancel it first",
                    status=Status.INVALID_PARAMETER,
                )
            self._starting = True
            self._port, self._block, self._delivered = port, None, False
        block = None
        try:
            watch(port, self)
            begun = prepare_wait(waitable, deliver)
            begun.begin(None, SYSTEM_CLOCK)
            block = begun
            self.already_signaled = block.status is not Status.PENDING
        finally:
            with self._lock:
                self._starting = False
                self._block = block
        return self.already_signaled

    def cancel(self, *, remove: bool = False) -> Status:
        """Withdraw the wait; with `remove`, pull the packet back if it is queued already.

        Returns:
            `OK`: withdrawn, no packet will come. `PENDING` (997): the packet is queued or about to be, and
            still comes. `OPERATION_ABORTED` (995): nothing to withdraw: the packet was dequeued, or this was
            never associated.
        """
        check_flag("remove", remove)
        with self._lock:
            block = self._block
            if self._starting:
                return Status.PENDING
            if block is None:
                return Status.OPERATION_ABORTED
            if block.cancel():
                self._block = None
                return Status.OK
            if not self._delivered:
                return Status.PENDING
            if self._queued_locked(remove):
                if remove:
                    self._block = None
                    return Status.OK
                return Status.PENDING
            self._block = None
            return Status.OPERATION_ABORTED

    def _in_use_locked(self) -> bool:
        return self._block is not None and (not self._delivered or self._queued_locked(False))

    def _queued_locked(self, remove: bool) -> bool:
        assert self._port is not None and self._packet is not None, "it was associated"
        return find(self._port, self._packet, remove)


class PortSignal(Waitable):
    """A port as something to wait for: signaled while packets are queued, and for good once it is closed.

    A wait consumes nothing. A packet that is handed straight to a thread in a dequeue is never queued, and so
    wakes no thread here.
    """

    __slots__ = ("_port",)

    _harvested = True

    def __init__(self, port: PortQueue) -> None:
        super().__init__()
        self._port = weakref.ref(port)

    def notify(self) -> None:
        """A packet was queued, or the port closed. Called with no lock held."""
        try:
            decide(self._release_locked)
        except Deadlock:  # In a signal handler: nothing was looked at.
            afterwards(self.notify)

    def _signaled_locked(self, record: ThreadRecord | None) -> bool:
        port = self._port()
        return port is None or is_signaled(port)


def _adapt(thing: object) -> Waitable | None:
    """Return the dispatcher object that is signaled while packets are queued; None for anything but a port."""
    return get_signal(thing, PortSignal) if isinstance(thing, PortQueue) else None


adapters.append(_adapt)
