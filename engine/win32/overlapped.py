"""Overlapped input and output, on the transport's sources: `OverlappedDescriptor`, `OverlappedSocket`.

Theory of operation. A source stands for a file handle that was opened with FILE_FLAG_OVERLAPPED. An `OVERLAPPED` says
what became of the operation that was begun with it last; it is what a packet carries. A source need not have a port:
what is pending goes on whenever a thread waits, and by the monitor's thread when none does.

An operation that succeeded at once is reported by True *and* by a packet, unless the source's mode skips that. One that
ended at once in another way (at the end of a stream, by a broken connection) is reported as one that is pending.

Source: "ReadFile", "WriteFile", "OVERLAPPED", "HasOverlappedIoCompleted", "GetOverlappedResult(Ex)", "CancelIo(Ex)",
"CancelSynchronousIo", "SetFileCompletionNotificationModes", "BindIoCompletionCallback".
"""

from collections.abc import Callable, Sequence
from threading import RLock, Thread
from typing import Any

from transport import OverlappedDescriptor, OverlappedOperation, OverlappedSocket, OverlappedSource
from transport.foreign import shown

from .. import (
    CompletionPacket,
    CompletionPort,
    EngineError,
    Event,
    InvalidHandle,
    InvalidParameter,
    NotFound,
    register_wait,
    submit_callback,
    wait_any,
)
from ..lifecycle import fork_safe
from .constants import ERROR_IO_INCOMPLETE, ERROR_IO_PENDING, INFINITE, STATUS_PENDING
from .errors import SetLastError, expect, fails_with
from .values import Box, routine, seconds, word

__all__ = [
    "OVERLAPPED", "BindIoCompletionCallback", "CancelIo", "CancelIoEx", "CancelSynchronousIo", "GetOverlappedResult",
    "GetOverlappedResultEx", "HasOverlappedIoCompleted", "ReadFile", "SetFileCompletionNotificationModes",
    "WriteFile",
]  # fmt: skip


class OVERLAPPED:
    """One operation: what it is begun with, and what became of it. May be used again for another, afterwards.

    Fields:
        hEvent: an event, which is reset as the operation begins and set when it completes; or None.
        Offset, OffsetHigh: must be 0: streams of bytes and messages have no position.
        Internal: STATUS_PENDING, then 0 or the error number (on Windows: an NTSTATUS).
        InternalHigh: the bytes transferred.
        operation: the transport's `OverlappedOperation`; None before the first.
    """

    __slots__ = ("Offset", "OffsetHigh", "__weakref__", "_lock", "_operation", "hEvent")

    def __init__(self, hEvent: Event | None = None) -> None:
        self.Offset: int = 0
        self.OffsetHigh: int = 0
        self.hEvent: Event | None = hEvent
        # Held while an operation is begun: another thread may take its packet before the begin has returned.
        self._lock = fork_safe(RLock())
        self._operation: OverlappedOperation[Any] | None = None

    @property
    def operation(self) -> OverlappedOperation[Any] | None:
        """The operation that was begun with this last."""
        with self._lock:
            return self._operation

    @property
    def Internal(self) -> int:
        """STATUS_PENDING, or how the operation ended."""
        operation = self.operation
        if operation is None:
            return 0
        return operation.status if operation.done else STATUS_PENDING

    @property
    def InternalHigh(self) -> int:
        """The bytes transferred."""
        operation = self.operation
        return 0 if operation is None else operation.transferred

    def __repr__(self) -> str:
        return f"<OVERLAPPED {self._operation!r}>"


# Beginning


@fails_with(False)
def ReadFile(
    hFile: OverlappedSource,
    lpBuffer: Any,
    nNumberOfBytesToRead: int,
    lpNumberOfBytesRead: Box | None,
    lpOverlapped: OVERLAPPED | None,
) -> bool:
    """Begin to read into the buffer: what there is or comes, of a ZeroMQ socket the first frame of one message.

    Args:
        lpBuffer: a writable buffer, a `bytearray` for one, which belongs to the operation until it completes; its first
            `nNumberOfBytesToRead` bytes are used. (The other frames of a message are in `lpOverlapped.operation`.)
    Returns: True: it is complete, and the box has the byte count; or False with the last error 997: it is pending, 6,
        87 (also for no OVERLAPPED, and no bytes to read), 1816 (too many operations are pending), or the system's
        reason. In the last cases nothing was begun, and no packet comes.
    """
    read, _ = _verbs(hFile)
    return _begin(read, lpBuffer, nNumberOfBytesToRead, lpNumberOfBytesRead, lpOverlapped)


@fails_with(False)
def WriteFile(
    hFile: OverlappedSource,
    lpBuffer: Any,
    nNumberOfBytesToWrite: int,
    lpNumberOfBytesWritten: Box | None,
    lpOverlapped: OVERLAPPED | None,
) -> bool:
    """Begin to write the first `nNumberOfBytesToWrite` bytes of the buffer; to a ZeroMQ socket, as one message.

    Returns: as `ReadFile`.
    """
    _, write = _verbs(hFile)
    return _begin(write, lpBuffer, nNumberOfBytesToWrite, lpNumberOfBytesWritten, lpOverlapped)


Begin = Callable[..., OverlappedOperation[Any]]


def _verbs(handle: object) -> tuple[Begin, Begin]:
    """Return what begins to read, and to write, on this handle."""
    if isinstance(handle, OverlappedSocket):
        return handle.begin_recv, handle.begin_send
    source = expect(handle, OverlappedDescriptor)
    return source.begin_read, source.begin_write


def _begin(begin: Begin, buffer: Any, size: int, done: Box | None, overlapped: OVERLAPPED | None) -> bool:
    view = memoryview(buffer).cast("B")
    if word("the number of bytes", size) > len(view):
        raise ValueError(f"the buffer has {len(view)} bytes, not {size}")
    if overlapped is None:
        raise InvalidParameter("an overlapped handle wants an OVERLAPPED for each operation")
    if overlapped.Offset or overlapped.OffsetHigh:
        raise InvalidParameter("Offset must be 0: this handle has no positions")
    event = overlapped.hEvent
    if event is not None:
        expect(event, Event).reset()
    with overlapped._lock:
        operation = overlapped._operation = begin(view[:size], overlapped=overlapped, event=event)
    if operation.completed_synchronously:
        if done is not None:
            done.value = operation.transferred
        return True
    # A wait for the operation has its source polled if it has no port, for those who wait for the event or spin.
    register_wait(operation, lambda status: None)
    SetLastError(ERROR_IO_PENDING)
    return False


# Results


def HasOverlappedIoCompleted(lpOverlapped: OVERLAPPED) -> bool:
    """Whether the operation is complete: a look, not a wait."""
    return lpOverlapped.Internal != STATUS_PENDING


def GetOverlappedResult(
    hFile: OverlappedSource, lpOverlapped: OVERLAPPED, lpNumberOfBytesTransferred: Box, bWait: bool
) -> bool:
    """Return what became of an operation, waiting for its end if asked to. Returns: as `GetOverlappedResultEx`."""
    return GetOverlappedResultEx(hFile, lpOverlapped, lpNumberOfBytesTransferred, INFINITE if bWait else 0, False)


@fails_with(False)
def GetOverlappedResultEx(
    hFile: OverlappedSource,
    lpOverlapped: OVERLAPPED,
    lpNumberOfBytesTransferred: Box,
    dwMilliseconds: int,
    bAlertable: bool,
) -> bool:
    """Tell what became of an operation, waiting for its end at most so long.

    Returns: True: it succeeded, and the box has the byte count; False with the last error
        996    it is pending, and the time limit is 0: APCs do not run then
        258    it is pending still, the time is up
        192    APCs ran
        6      this is not the handle of a source
        or the operation's own: it failed (995: it was cancelled); the box has what was transferred until then.
    """
    expect(hFile, OverlappedSource)
    limit = seconds(dwMilliseconds)
    operation = lpOverlapped.operation
    if operation is not None and not operation.done:
        if limit == 0:
            raise EngineError("the operation is pending", status=ERROR_IO_INCOMPLETE)
        wait_any([operation], limit, alertable=bool(bAlertable))
    lpNumberOfBytesTransferred.value = lpOverlapped.InternalHigh
    if lpOverlapped.Internal:
        SetLastError(lpOverlapped.Internal)
        return False
    return True


# Cancelling


@fails_with(False)
def CancelIo(hFile: OverlappedSource) -> bool:
    """Cancel what the calling thread has begun and is pending; to find nothing is a success.

    Returns: True; or False with the last error 6.
    """
    expect(hFile, OverlappedSource).cancel_own()
    return True


@fails_with(False)
def CancelIoEx(hFile: OverlappedSource, lpOverlapped: OVERLAPPED | None) -> bool:
    """Cancel the pending operations that were begun with this OVERLAPPED, or with None all of the source's.

    Returns: True: each completes with 995, and its packet comes; or False with the last error 1168 (there is none), 6.
    """
    source = expect(hFile, OverlappedSource)
    if lpOverlapped is None:
        source.cancel()
    else:
        source.cancel(lpOverlapped)
    return True


@fails_with(False)
def CancelSynchronousIo(hThread: Thread) -> bool:
    """Cancel a blocking call of another thread, which cannot be done here: there is never one to be found.

    Returns: False with the last error 1168, or 6 if this is no thread.
    """
    raise NotFound(f"{expect(hThread, Thread)!r} is in no call that could be cancelled")


def _overlapped(handle: object) -> OverlappedSource:
    """Return the source; raises `InvalidHandle` for NULL, `InvalidParameter` for a handle that is not overlapped."""
    if handle is None:
        raise InvalidHandle("the source is NULL")
    if not isinstance(handle, OverlappedSource):
        raise InvalidParameter(f"this is not an overlapped source, but {shown(handle)}")
    return handle


@fails_with(False)
def SetFileCompletionNotificationModes(FileHandle: OverlappedSource, Flags: int) -> bool:
    """Set modes of a source, which stay; `Flags` is an or of the `FILE_SKIP_...` flags.

    Returns: True; or False with the last error 87 for another flag or a handle that is not overlapped, or 6.
    """
    _overlapped(FileHandle).set_completion_modes(Flags)
    return True


# Completion by callback


class _CallbackPort(CompletionPort):
    """What the source takes for a completion port: packets become callbacks. It ends with its source."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[int, Any, Any], object]) -> None:
        super().__init__()
        self._function = function

    def deliver(self, packets: Sequence[CompletionPacket]) -> bool:
        """Have each packet called back."""
        for packet in packets:
            submit_callback(self._function, packet.status, packet.transferred, packet.overlapped)
        return True

    def __del__(self) -> None:
        pass


@fails_with(False)
def BindIoCompletionCallback(
    FileHandle: OverlappedSource, Function: Callable[[int, Any, Any], object], Flags: int
) -> bool:
    """Have `Function(error, transferred, overlapped)` called on the default pool for each operation that completes.

    Returns: True; or False with the last error 87 for a source that has a port or callback already, a handle that is
        not overlapped, or `Flags` that are not 0; 6.
    """
    source = _overlapped(FileHandle)
    if word("Flags", Flags):
        raise InvalidParameter("Flags must be 0")
    _CallbackPort(routine("Function", Function)).associate(source)
    return True
