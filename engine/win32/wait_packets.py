"""Wait completion packets: a signal that arrives at a port as a packet.

These are native functions: they return an NTSTATUS and leave the last error alone.

Source: "NtCreateWaitCompletionPacket", "NtAssociateWaitCompletionPacket", "NtCancelWaitCompletionPacket".
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from .. import CompletionPort, EngineError, InvalidArgumentType, InvalidHandle, Status, WaitPacket
from .constants import (
    STATUS_CANCELLED,
    STATUS_INVALID_HANDLE,
    STATUS_INVALID_PARAMETER,
    STATUS_PENDING,
    STATUS_SUCCESS,
)
from .errors import expect
from .values import Box

__all__ = ["NtAssociateWaitCompletionPacket", "NtCancelWaitCompletionPacket", "NtCreateWaitCompletionPacket"]

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
    IoCompletionHandle: CompletionPort,
    TargetObjectHandle: Any,
    KeyContext: Any,
    ApcContext: Any,
    IoStatus: int,
    IoStatusInformation: Any,
    AlreadySignaled: Box | None,
) -> int:
    """Have one packet queued to the port when the target becomes signaled, which consumes the signal.

    Args: the packet's key, overlapped, status (0, or an error number) and byte count; `AlreadySignaled` gets whether
        the target was signaled already.
    Returns: STATUS_SUCCESS; STATUS_INVALID_PARAMETER if the packet is in use, or the target is a mutex;
        STATUS_INVALID_HANDLE for what is closed or of another kind.
    """
    packet, port = expect(WaitCompletionPacketHandle, WaitPacket), expect(IoCompletionHandle, CompletionPort)
    signaled = packet.associate(port, TargetObjectHandle, KeyContext, IoStatusInformation, ApcContext, IoStatus)
    if AlreadySignaled is not None:
        AlreadySignaled.value = signaled
    return STATUS_SUCCESS


@_returns_ntstatus
def NtCancelWaitCompletionPacket(WaitCompletionPacketHandle: WaitPacket, RemoveSignaledPacket: bool) -> int:
    """Withdraw the wait; if so told, take a packet that is queued already back.

    Returns: STATUS_SUCCESS: no packet comes; STATUS_PENDING: it is queued, or about to be; STATUS_CANCELLED: it was
        dequeued, or there was no wait; STATUS_INVALID_HANDLE.
    """
    packet = expect(WaitCompletionPacketHandle, WaitPacket)
    return _CANCELLED[packet.cancel(remove=bool(RemoveSignaledPacket))]
