"""What a routine may ask of its call, on any thread: who calls, context handles, whether the client is gone.

Theory of operation. The binding handle of a call is its `ServerCall`, by `RpcAsyncGetCallHandle`; None means the call
that the calling thread serves. A context handle is an `engine.Context`: a routine makes one by `open_context` of its
call's binding handle, with the rundown routine, and closes it by `close`; what it gets in a parameter is what the
functions here take as `UserContext`. Names are counted as C would: bytes of UTF-16 with its closing zero.

Source: "RpcServerTestCancel", "RpcServerInqCallAttributes", "RPC_CALL_ATTRIBUTES_V2", "Authentication-Level Constants",
"Context Handles", "RpcSsDestroyClientContext", "RpcSsContextLockExclusive", "RpcSsContextLockShared",
"RpcServerSubscribeForNotification", "RpcServerUnsubscribeForNotification", "RPC_NOTIFICATIONS".
"""

from typing import Any

from transport.foreign import shown

from .. import Context, ContextMismatch, EventKind, InvalidParameter, InvalidState, ServerCall, current_call
from .async_state import RPC_ASYNC_NOTIFICATION_INFO, state_of, target
from .constants import (
    ERROR_MORE_DATA,
    ERROR_MORE_WRITES,
    RPC_PROTSEQ_LRPC,
    RPC_PROTSEQ_TCP,
    RPC_QUERY_CALL_LOCAL_ADDRESS,
    RPC_QUERY_CLIENT_PID,
    RPC_QUERY_CLIENT_PRINCIPAL_NAME,
    RPC_QUERY_SERVER_PRINCIPAL_NAME,
    RPC_S_CALL_IN_PROGRESS,
    RPC_S_CANNOT_SUPPORT,
    RPC_S_INVALID_BINDING,
    RPC_S_OK,
    RpcNotificationCallCancel,
    RpcNotificationClientDisconnect,
    rcclClientUnknownLocality,
    rcclLocal,
    rcclRemote,
)
from .errors import returns_status
from .values import Box

__all__ = [
    "RPC_CALL_ATTRIBUTES_V1", "RPC_CALL_ATTRIBUTES_V2", "RpcServerInqCallAttributes",
    "RpcServerSubscribeForNotification", "RpcServerTestCancel", "RpcServerUnsubscribeForNotification",
    "RpcSsContextLockExclusive", "RpcSsContextLockShared", "RpcSsDestroyClientContext",
]  # fmt: skip

_QUERIES = {
    1: RPC_QUERY_SERVER_PRINCIPAL_NAME | RPC_QUERY_CLIENT_PRINCIPAL_NAME,
    2: RPC_QUERY_SERVER_PRINCIPAL_NAME
    | RPC_QUERY_CLIENT_PRINCIPAL_NAME
    | RPC_QUERY_CALL_LOCAL_ADDRESS
    | RPC_QUERY_CLIENT_PID,
}


class RPC_CALL_ATTRIBUTES_V1:
    """Who calls. Set `Version`, `Flags` and, for a name, a box and the bytes it may have; the rest is filled in.

    `AuthenticationLevel` is 6 (privacy) where the connection is encrypted or does not leave the machine, 1 (none) on
    plain tcp. `NullSession`: the client has not proved who it is. `AuthenticationService` stays 0, and
    `ServerPrincipalName` is not known here: its length becomes 0.
    """

    def __init__(self) -> None:
        self.Version = 1
        self.Flags = 0
        self.ServerPrincipalName: Box | None = None
        self.ServerPrincipalNameBufferLength = 0
        self.ClientPrincipalName: Box | None = None
        self.ClientPrincipalNameBufferLength = 0
        self.AuthenticationLevel = 0
        self.AuthenticationService = 0
        self.NullSession = False


class RPC_CALL_ATTRIBUTES_V2(RPC_CALL_ATTRIBUTES_V1):
    """Who calls, over what, and how the call stands.

    `CallStatus` is 1 in progress, 2 cancelled or 3 disconnected: compare for equality. `CallLocalAddress` is not known
    here and stays None. Different from Windows: `OpNum` is the operation's name, `InterfaceUuid` the interface's id.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Version = 2
        self.KernelModeCaller = False
        self.ProtocolSequence = 0
        self.IsClientLocal = 0
        self.ClientPID: int | None = None
        self.CallStatus = 0
        self.CallType = 0
        self.CallLocalAddress: Any = None
        self.OpNum = ""
        self.InterfaceUuid = ""


def served(binding: object) -> ServerCall:
    """Return the call that a binding handle stands for, None for the one served here; raises 1702, 1725."""
    if binding is None:
        return current_call()
    if not isinstance(binding, ServerCall):
        raise InvalidState(f"{shown(binding)} is not the binding handle of a call", status=RPC_S_INVALID_BINDING)
    return binding


@returns_status
def RpcServerTestCancel(BindingHandle: ServerCall | None) -> int:
    """Ask whether the client has cancelled. Mind the numbers.

    Returns: 0: yes, cancelled; 1791 (CALL_IN_PROGRESS): no; 1725: no call is being served by this thread; 1702: this is
        no call's handle. The call must still be completed or aborted.
    """
    return RPC_S_OK if served(BindingHandle).test_cancel() else RPC_S_CALL_IN_PROGRESS


@returns_status
def RpcServerInqCallAttributes(ClientBinding: ServerCall | None, RpcCallAttributes: RPC_CALL_ATTRIBUTES_V1) -> int:
    """Fill in who calls, and over what.

    Returns: 0; 87 for another version than 1 or 2, flags the version has not, or a length without a box; 234 for a name
        that does not fit, with the length that it needs; 1725 and 1702 as `RpcServerTestCancel`.
    """
    wanted = RpcCallAttributes
    call = served(ClientBinding)
    if wanted.Version not in _QUERIES or (wanted.Version == 2) != isinstance(wanted, RPC_CALL_ATTRIBUTES_V2):
        raise InvalidParameter(f"Version must be 1 or 2, as the structure is, not {wanted.Version}")
    if wanted.Flags & ~_QUERIES[wanted.Version]:
        raise InvalidParameter(f"Flags {wanted.Flags:#x} has some that version {wanted.Version} does not know")
    for name in ("ServerPrincipalName", "ClientPrincipalName"):
        if getattr(wanted, f"{name}BufferLength") and getattr(wanted, name) is None:
            raise InvalidParameter(f"{name} has a length, and no box")
    known = call.attributes()
    principal = known.client_principal
    wanted.AuthenticationLevel = known.authentication_level
    wanted.NullSession = not principal
    if isinstance(wanted, RPC_CALL_ATTRIBUTES_V2):
        wanted.ProtocolSequence, wanted.IsClientLocal = _place(known.client_address)
        wanted.CallStatus = known.status
        wanted.OpNum = known.operation
        wanted.InterfaceUuid = known.interface
        if wanted.Flags & RPC_QUERY_CLIENT_PID:
            wanted.ClientPID = known.client_process
    if wanted.Flags & RPC_QUERY_SERVER_PRINCIPAL_NAME:
        wanted.ServerPrincipalNameBufferLength = 0
    if wanted.Flags & RPC_QUERY_CLIENT_PRINCIPAL_NAME:
        room = wanted.ClientPrincipalNameBufferLength
        needed = len(principal.encode("utf-16-le")) + 2 if principal else 0
        wanted.ClientPrincipalNameBufferLength = needed
        if room < needed:
            return ERROR_MORE_DATA
        if wanted.ClientPrincipalName is not None:
            wanted.ClientPrincipalName.value = principal
    return RPC_S_OK


def _place(address: str) -> tuple[int, int]:
    """Return the protocol sequence and the locality of a client's address."""
    if address == "loopback" or address.startswith("localhost:"):
        return RPC_PROTSEQ_LRPC, rcclLocal
    if not address:
        return RPC_PROTSEQ_LRPC, rcclClientUnknownLocality
    local = address.startswith("127.") or address in ("::1", "::ffff:127.0.0.1")
    return RPC_PROTSEQ_TCP, rcclLocal if local else rcclRemote


def RpcSsDestroyClientContext(ContextHandle: Box) -> None:
    """Forget a context handle on the client, and set the box to None. The server does not get to know.

    Its state is run down when the client's connection ends, as all that the client has left open.
    Raises: `ContextMismatch` (6) if there is no context handle in the box.
    """
    if not isinstance(ContextHandle.value, Context):
        raise ContextMismatch(f"{shown(ContextHandle.value)} is not a context handle")
    ContextHandle.value = None


@returns_status
def RpcSsContextLockExclusive(ServerBindingHandle: ServerCall | None, UserContext: Context[Any]) -> int:
    """Use a context handle alone from now on, which the call has shared so far; wait for the others.

    Args: `ServerBindingHandle`: of the call; None for the call that the calling thread serves.
    Returns: 0; 1120 (MORE_WRITES): the call has the handle alone, but another had it alone first, so that all that was
        known of its state must be looked at anew; 1131 if waiting could never end; 1915 for a handle that the call was
        not given; 1914 if the call was closed; 1725 and 1702 as `RpcServerTestCancel`.
    """
    return RPC_S_OK if served(ServerBindingHandle).lock_context(_context(UserContext)) else ERROR_MORE_WRITES


@returns_status
def RpcSsContextLockShared(ServerBindingHandle: ServerCall | None, UserContext: Context[Any]) -> int:
    """Share a context handle from now on, which the call has used alone. Returns: as `RpcSsContextLockExclusive`."""
    served(ServerBindingHandle).lock_context(_context(UserContext), shared=True)
    return RPC_S_OK


def _context(handle: object) -> Context[Any]:
    if not isinstance(handle, Context):
        raise ContextMismatch(f"{shown(handle)} is not a context handle")
    return handle


_KINDS = {
    RpcNotificationClientDisconnect: EventKind.CLIENT_DISCONNECT,
    RpcNotificationCallCancel: EventKind.CLIENT_CANCEL,
}


@returns_status
def RpcServerSubscribeForNotification(
    Binding: ServerCall | None, Notification: int, NotificationType: int, NotificationInfo: RPC_ASYNC_NOTIFICATION_INFO
) -> int:
    """Be notified when the client cancels the call, or is gone; at once if it happened before.

    Args:
        Binding: of the call; None for the call that the calling thread serves.
        Notification: `RpcNotificationClientDisconnect`, `RpcNotificationCallCancel`, or both by `|`.
        NotificationType: how to notify, as in an `RPC_ASYNC_STATE`.
        NotificationInfo: the target, likewise; read now only. A routine gets the handle of an asynchronous call, the
            binding handle of another; None; and `RpcClientDisconnect` or `RpcClientCancel`.
    Closing the call ends its subscriptions.
    Returns: 0; 1764 for another notification, or window messages; 87 without a type, for both by an event, and for a
        target that is none; 1915 for a second time; 1914 if the call was closed; 1725 and 1702 as
        `RpcServerTestCancel`.
    """
    call = served(Binding)
    kinds = [kind for number, kind in _KINDS.items() if Notification & number]
    if not kinds or Notification & ~(RpcNotificationClientDisconnect | RpcNotificationCallCancel):
        return RPC_S_CANNOT_SUPPORT
    call.subscribe(kinds, target(NotificationType, NotificationInfo, state_of(call) or call))
    return RPC_S_OK


@returns_status
def RpcServerUnsubscribeForNotification(
    Binding: ServerCall | None, Notification: int, NotificationsQueued: Box | None
) -> int:
    """End a subscription; put into the box how many notifications were queued: 0 or 1. One that is queued still comes.

    Args: `Notification`: one, not both.
    Returns: 0; 1764 for another notification; 1915 if there is no such subscription; 1914, 1725 and 1702 as above.
    """
    call = served(Binding)
    kind = _KINDS.get(Notification)
    if kind is None:
        return RPC_S_CANNOT_SUPPORT
    queued = call.unsubscribe(kind)
    if NotificationsQueued is not None:
        NotificationsQueued.value = queued
    return RPC_S_OK
