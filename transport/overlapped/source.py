"""What overlapped sources have in common for their users: the way to a port, modes, cancelling, the end.

A source has a device, which knows the socket or the descriptor, and pending operations, which know the rest.

Source: "SetFileCompletionNotificationModes", "CancelIo", "CancelIoEx"; sections 2, 7, 8 and 10 of
`docs/semantics/completion-port.md`.
"""

from _thread import get_ident
from functools import partial
from typing import Any, Final

import msgspec

from transport.errors import InvalidOperation
from transport.foreign import a_type, shown, type_name
from transport.lifecycle import Closeable
from transport.overlapped.operation import (
    SKIP_PORT_ON_SUCCESS,
    SKIP_SET_EVENT_ON_HANDLE,
    Device,
    OverlappedOperation,
    Sentinel,
    SourceServices,
    begun_by,
)
from transport.overlapped.pending import PendingOperations

#: How many operations may be pending on a source unless the caller says otherwise. Arbitrary: well above what
#: one thread keeps in flight, and 1 MB of operations at most.
DEFAULT_LIMIT: Final = 1024


#: As `overlapped` of a cancel: whatever is pending.
EVERY: Final[Any] = Sentinel("EVERY")


class SourceStatistics(msgspec.Struct, frozen=True):
    """A snapshot: accepted = pending + succeeded + failed; cancelled operations count as failed."""

    accepted: int
    pending: int
    succeeded: int
    failed: int


class OverlappedSource(Closeable):
    """Base of the sources: something whose operations are begun now and complete later, as packets.

    Associate it with a port, `port.associate(source, key)`: once, for its life. From then on each operation
    that it accepts delivers exactly one packet: `key`, the bytes transferred, the operation (or the caller's
    own `overlapped`), and its status. That includes what is pending at that time. Before that no thread polls, so
    that what cannot be done at once waits for the association or the next `begin_...`; but a wait of the engine
    for an operation, `wait_any([operation], timeout)`, has the source polled from then on, port or not.

    Args that every `begin_...` method takes:
        overlapped: any value, for the packet and for `cancel`; the operation object unless given.
        event: an object with a method `set`, called when the operation completes, before its packet is
            queued. The caller makes it nonsignaled before it begins.
        packet: False: this operation delivers no packet, only its event is set.

    What every `begin_...` method does:
        Returns: the operation, which was accepted: done already (`completed_synchronously`), or pending.
        Raises: `InvalidOperation` (87) for arguments that cannot be right, and 50 for what this source
            cannot do; `TooManyOperations` (1816) at the limit, or if the port's capacity of packets is
            queued; `SourceClosed` (6); `OperationFailed` with the system's reason if the start fails at once.
            Then nothing was begun, and no packet comes.
        Blocks: never.

    The source takes its object over: use that through `exclusive` only, until `close` (which closes it too)
    or `detach` (which gives it back). It is a context manager. One that is dropped open is reported as a
    `ResourceWarning`.

    Threads: every method may be called from any thread. Not for signal handlers and finalizers: there they raise
        `LocalProtocolError` if their thread was interrupted under the source's lock.
    """

    _instead = "make one there, of what it was made of"

    def __init__(self, device: Device, limit: int) -> None:
        self._pending = PendingOperations(self, device, limit)
        self._completions = self._pending.completions

    def bind_services(self, services: SourceServices) -> None:
        """For the port only: take what it gives. Called just before `bind_port`."""
        self._completions.services = services

    def bind_port(self, port: Any, key: Any) -> None:
        """For the port only: call `port.associate(source, key)` instead."""
        self._pending.bind_port(key)

    def outstanding(self) -> tuple[int, list[Any]]:
        """For the engine: how many packets were handed over, and the `overlapped` of each that is still to come.

        Those that are just being handed over count as still to come, and are the first.
        """
        pending = self._pending
        with pending.lock:
            return self._completions.outstanding_locked((*pending.input, *pending.output))

    @property
    def closed(self) -> bool:
        """Whether it was closed, given back by `detach`, or found unusable."""
        return self._pending.closed

    @property
    def modes(self) -> int:
        """The modes that are set: `SKIP_PORT_ON_SUCCESS`, `SKIP_SET_EVENT_ON_HANDLE` or both, else 0."""
        return self._completions.modes

    def set_completion_modes(self, modes: int) -> None:
        """Set modes, which stay: those that are not given again stay set too.

        Args: `modes` is an or of `SKIP_PORT_ON_SUCCESS` (1): an operation that succeeds at once delivers no
            packet; and `SKIP_SET_EVENT_ON_HANDLE` (2), which is remembered and changes nothing: a source has
            no event of its own, and an operation's event is set in any case.
        Operations that are pending deliver their packets all the same.
        Raises: `InvalidOperation` (87) for another bit; `SourceClosed`.
        Source: "SetFileCompletionNotificationModes".
        """
        if not isinstance(modes, int) or modes & ~(SKIP_PORT_ON_SUCCESS | SKIP_SET_EVENT_ON_HANDLE):
            raise InvalidOperation(f"modes must be an or of the SKIP_... constants, not {shown(modes)}")
        with self._pending.lock:
            self._pending.require_open_locked()
            self._completions.modes |= modes

    def cancel(self, overlapped: Any = EVERY) -> None:
        """Ask for pending operations to end: those that carry `overlapped`, or every one.

        Args: `overlapped` is what was given to `begin_...`, or an operation. Objects are compared by
            identity; numbers, texts and bytes by value. Two operations with the same one are both cancelled.
        Each completes with 995 (OPERATION_ABORTED) here and now, and delivers its packet. What was complete
        stays so: its packet comes, or has come.
        Raises: `OperationNotFound` (1168) if nothing is pending that it is about; `SourceClosed`.
        Source: "CancelIoEx". Different from Windows, where 995 is one of three ways to end.
        """
        self._pending.cancel(None if overlapped is EVERY else partial(_carries, overlapped))

    def cancel_own(self) -> int:
        """Ask for the pending operations that the calling thread began to end; return how many there were.

        To find none is no error. Otherwise as `cancel`. Source: "CancelIo".
        """
        return self._pending.cancel(begun_by(get_ident()), required=False)

    def close(self) -> None:
        """Close the source and its object: what is pending completes with 995, once each.

        A port that it was associated with stays open. Closing twice does nothing. Blocks: never.
        Source: "CloseHandle". Different from Windows: 995 for a pipe's end too.
        """
        self._pending.end(close=True)

    def statistics(self) -> SourceStatistics:
        """Return a consistent snapshot of the source's numbers. Never blocks."""
        return SourceStatistics(*self._pending.statistics())

    def __repr__(self) -> str:
        return repr(self._pending)

    def _dropped_open(self) -> str:
        pending = getattr(self, "_pending", None)
        return "" if pending is None or pending.closed else repr(self)


def check_limit(limit: object) -> None:
    """Raise `InvalidOperation` unless it is how many operations may be pending."""
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise InvalidOperation(f"limit must be a positive int, not {shown(limit)}")


def _carries(wanted: Any, operation: OverlappedOperation[Any]) -> bool:
    carried = operation.overlapped
    if carried is wanted or operation is wanted:
        return True
    return type(carried) is type(wanted) and isinstance(wanted, int | str | bytes) and bool(carried == wanted)


def readable(data: Any) -> memoryview:
    """A view of the data as bytes, empty or not; raises `InvalidOperation` if it has none."""
    try:
        view = memoryview(data)
        if view.c_contiguous:
            return view.cast("B") if view.nbytes else memoryview(b"")
    except TypeError:
        pass  # It has no such view, as the error below says.
    raise InvalidOperation(f"data must be contiguous bytes-like objects, which {a_type(data)} is not")


def writable(buffer: Any) -> memoryview:
    """A view of the buffer as bytes; raises `InvalidOperation` if nothing can be written to it."""
    try:
        view = memoryview(buffer)
        if view.nbytes and view.c_contiguous and not view.readonly:
            return view.cast("B")
    except TypeError:
        pass  # It has no such view, as the error below says.
    raise InvalidOperation(
        f"a buffer must be contiguous memory, writable and not empty, which this {type_name(buffer)} is not"
    )
