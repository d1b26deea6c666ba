"""Completion ports, and wait completion packets: a signal that arrives at a port as a packet.

The functions of wait completion packets are native ones: they return an NTSTATUS and leave the last error alone.

Source: "CreateIoCompletionPort", "GetQueuedCompletionStatus", "GetQueuedCompletionStatusEx",
"PostQueuedCompletionStatus", "OVERLAPPED_ENTRY", "NtCreateWaitCompletionPacket", "NtAssociateWaitCompletionPacket",
"NtCancelWaitCompletionPacket".
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import msgspec

from .. import CompletionPort as Port
from .. import EngineError, InvalidArgumentType, InvalidHandle, InvalidParameter, Status, WaitPacket
from .constants import (
    INVALID_HANDLE_VALUE,
    STATUS_CANCELLED,
    STATUS_INVALID_HANDLE,
    STATUS_INVALID_PARAMETER,
    STATUS_PENDING,
    STATUS_SUCCESS,
)
from .errors import SetLastError, expect, fails_with
from .values import Box, seconds, word

__all__ = [
    "CreateIoCompletionPort", "GetQueuedCompletionStatus", "GetQueuedCompletionStatusEx",
    "NtAssociateWaitCompletionPacket", "NtCancelWaitCompletionPacket", "NtCreateWaitCompletionPacket",
    "OVERLAPPED_ENTRY", "PostQueuedCompletionStatus",
]  # fmt: skip


class OVERLAPPED_ENTRY(msgspec.Struct):
    """One packet of a batch. `Internal` is 0, or the failed operation's error number (on Windows: its NTSTATUS)."""

    lpCompletionKey: Any = 0
    lpOverlapped: Any = None
    Internal: int = 0
    dwNumberOfBytesTransferred: Any = 0


@fails_with(None)
def CreateIoCompletionPort(
    FileHandle: Any, ExistingCompletionPort: Port | None, CompletionKey: Any, NumberOfConcurrentThreads: int
) -> Port | None:
    """Make a port, bind a source to a port, or both.

        CreateIoCompletionPort(INVALID_HANDLE_VALUE, None, 0, n)     a new port; n is its concurrency value, the key
                                                                     is not looked at
        CreateIoCompletionPort(source, port, key, 0)                 bind the source under the key; n is not looked at
        CreateIoCompletionPort(source, None, key, n)                 both; if binding fails there is no port

    Returns: the port; or None with the last error 87 for a source that is bound already or cannot be bound, or a port
        without a source to bind, 6 for what is no handle or is closed.
    """
    word("NumberOfConcurrentThreads", NumberOfConcurrentThreads)
    if FileHandle is None:
        raise InvalidHandle("the source is NULL: give INVALID_HANDLE_VALUE for none")
    none = isinstance(FileHandle, int) and FileHandle == INVALID_HANDLE_VALUE
    if ExistingCompletionPort is None:
        return Port(NumberOfConcurrentThreads, source=None if none else FileHandle, key=CompletionKey)
    if none:
        raise InvalidParameter("a port was given, and no source to bind to it")
    return expect(ExistingCompletionPort, Port).associate(FileHandle, CompletionKey)


def GetQueuedCompletionStatus(
    CompletionPort: Port,
    lpNumberOfBytesTransferred: Box,
    lpCompletionKey: Box,
    lpOverlapped: Box,
    dwMilliseconds: int,
) -> bool:
    """Take one packet, waiting for it if need be. Look at what is in `lpOverlapped` before the return value.

        returns  overlapped  last error
        True     any         as it was             the packet of an operation that succeeded, or a posted one
        False    not None    the operation's       the packet of an operation that failed: it was taken
        False    None        258, 735 or 6         no packet: time is up, port closed meanwhile, port closed before

    Without a packet `lpOverlapped` is set to None and the other two boxes are left alone.
    """
    timeout = seconds(dwMilliseconds)
    try:
        packet = expect(CompletionPort, Port).get(timeout)
    except EngineError as error:
        lpOverlapped.value = None
        SetLastError(error.status)
        return False
    lpNumberOfBytesTransferred.value = packet.transferred
    lpCompletionKey.value = packet.key
    lpOverlapped.value = packet.overlapped
    if packet.status:
        SetLastError(packet.status)
        return False
    return True


@fails_with(False)
def GetQueuedCompletionStatusEx(
    CompletionPort: Port,
    lpCompletionPortEntries: list[OVERLAPPED_ENTRY],
    ulCount: int,
    ulNumEntriesRemoved: Box,
    dwMilliseconds: int,
    fAlertable: bool,
) -> bool:
    """Take up to `ulCount` packets, waiting for the first but never to fill the batch.

    They are put into the first places of the list, and their number into `ulNumEntriesRemoved`.
    Returns: True if there was a packet: look at each one's own `Internal`; or False with the last error 258, 192 (APCs
        ran instead), 735, 6, or 87 for a `ulCount` of 0. Then nothing was stored.
    """
    timeout = seconds(dwMilliseconds)
    packets = expect(CompletionPort, Port).get_many(word("ulCount", ulCount), timeout, alertable=bool(fAlertable))
    lpCompletionPortEntries[: len(packets)] = [
        OVERLAPPED_ENTRY(packet.key, packet.overlapped, packet.status, packet.transferred) for packet in packets
    ]
    ulNumEntriesRemoved.value = len(packets)
    return True


@fails_with(False)
def PostQueuedCompletionStatus(
    CompletionPort: Port, dwNumberOfBytesTransferred: Any, dwCompletionKey: Any, lpOverlapped: Any
) -> bool:
    """Queue a packet with these three values, which are not looked at.

    Returns: True; or False with the last error 6, or 1816 if the port's queue is full.
    """
    expect(CompletionPort, Port).post(dwCompletionKey, dwNumberOfBytesTransferred, lpOverlapped)
    return True


P = ParamSpec("P")

_CANCELLED = {
    Status.OK: STATUS_SUCCESS,
    Status.PENDING: STATUS_PENDING,
    Status.OPERATION_ABORTED: STATUS_CANCELLED,
}


def _returns_ntstatus(function: Callable[P, int]) -> Callable[P, int]:
    @wraps(function)
    def face(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return function(*args, **kwargs)
        except (InvalidHandle, InvalidArgumentType):  # Closed, or of another kind.
            return STATUS_INVALID_HANDLE
        except EngineError:
            return STATUS_INVALID_PARAMETER

    return face


@_returns_ntstatus
def NtCreateWaitCompletionPacket(WaitCompletionPacketHandle: Box, DesiredAccess: int, ObjectAttributes: object) -> int:
    """Make a wait completion packet, to be associated. Returns: STATUS_SUCCESS, its handle in the box."""
    WaitCompletionPacketHandle.value = WaitPacket()
    return STATUS_SUCCESS


@_returns_ntstatus
def NtAssociateWaitCompletionPacket(
    WaitCompletionPacketHandle: WaitPacket,
    IoCompletionHandle: Port,
    TargetObjectHandle: Any,
    KeyContext: Any,
    ApcContext: Any,
    IoStatus: int,
    IoStatusInformation: Any,
    AlreadySignaled: Box | None,
) -> int:
    """Have one packet queued to the port when the target becomes signaled, which consumes the signal.

    Args:
        KeyContext: the packet's key.
        ApcContext: its overlapped.
        IoStatus: its status: 0, or an error number.
        IoStatusInformation: its byte count.
        AlreadySignaled: gets whether the target was signaled already.
    Returns: STATUS_SUCCESS; STATUS_INVALID_PARAMETER if the packet is in use, or the target is a mutex;
        STATUS_INVALID_HANDLE for what is closed or of another kind.
    """
    packet, port = expect(WaitCompletionPacketHandle, WaitPacket), expect(IoCompletionHandle, Port)
    signaled = packet.associate(port, TargetObjectHandle, KeyContext, IoStatusInformation, ApcContext, IoStatus)
    if AlreadySignaled is not None:
        AlreadySignaled.value = signaled
    return STATUS_SUCCESS


@_returns_ntstatus
def NtCancelWaitCompletionPacket(WaitCompletionPacketHandle: WaitPacket, RemoveSignaledPacket: bool) -> int:
    """Withdraw the wait; if asked to, take a packet that is queued already back.

    Returns: STATUS_SUCCESS: no packet comes; STATUS_PENDING: it is queued, or about to be; STATUS_CANCELLED: it was
        dequeued, or there was no wait; STATUS_INVALID_HANDLE.
    """
    packet = expect(WaitCompletionPacketHandle, WaitPacket)
    return _CANCELLED[packet.cancel(remove=bool(RemoveSignaledPacket))]
