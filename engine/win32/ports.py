"""Completion ports.

Source: "CreateIoCompletionPort", "GetQueuedCompletionStatus", "GetQueuedCompletionStatusEx",
"PostQueuedCompletionStatus", "OVERLAPPED_ENTRY".
"""

from typing import Any

import msgspec

from .. import CompletionPort as Port
from .. import EngineError, InvalidHandle, InvalidParameter
from .constants import INVALID_HANDLE_VALUE
from .errors import SetLastError, expect, fails_with
from .values import Box, seconds, word

__all__ = [
    "OVERLAPPED_ENTRY",
    "CreateIoCompletionPort",
    "GetQueuedCompletionStatus",
    "GetQueuedCompletionStatusEx",
    "PostQueuedCompletionStatus",
]


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
