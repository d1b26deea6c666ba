"""What a server's routine may ask of its call, on any thread.

Theory of operation. The binding handle of a call is its `ServerCall`, by `RpcAsyncGetCallHandle`; None means the call
that the calling thread serves. Names are counted as C would: bytes of UTF-16 with its closing zero.

Source: "RpcServerTestCancel", "RpcServerInqCallAttributes", "RPC_CALL_ATTRIBUTES_V2", "Authentication-Level Constants".
"""

from typing import Any

from transport.foreign import shown

from .. import InvalidParameter, InvalidState, ServerCall, current_call
from .constants import (
    ERROR_MORE_DATA,
    RPC_PROTSEQ_LRPC,
    RPC_PROTSEQ_TCP,
    RPC_QUERY_CALL_LOCAL_ADDRESS,
    RPC_QUERY_CLIENT_PID,
    RPC_QUERY_CLIENT_PRINCIPAL_NAME,
    RPC_QUERY_SERVER_PRINCIPAL_NAME,
    RPC_S_CALL_IN_PROGRESS,
    RPC_S_INVALID_BINDING,
    RPC_S_OK,
    rcclClientUnknownLocality,
    rcclLocal,
    rcclRemote,
)
from .errors import returns_status
from .values import Box

__all__ = [
    "RPC_CALL_ATTRIBUTES_V1",
    "RPC_CALL_ATTRIBUTES_V2",
    "RpcServerInqCallAttributes",
    "RpcServerTestCancel",
]

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
