"""String bindings, and the client's binding handles.

Theory of operation. A string binding is `protocol sequence:address[endpoint]`. The protocol sequences are the engine's
own (tcp, ipc, inproc, loopback), and of Windows' names those that have a counterpart: ncacn_ip_tcp is tcp, ncalrpc is
ipc, its endpoint a path. A binding handle is a `Client`; `handle.bind(interface)` has the operations to call.

Source: "RpcStringBindingCompose", "RpcBindingFromStringBinding", "RpcBindingFree", "RpcStringFree",
"RpcBindingSetOption", "RpcBindingBind".
"""

import re

from transport import Endpoint, EndpointError

from .. import Client, EngineError, InvalidState
from .constants import (
    RPC_S_CANNOT_SUPPORT,
    RPC_S_INVALID_BINDING,
    RPC_S_INVALID_ENDPOINT_FORMAT,
    RPC_S_INVALID_STRING_BINDING,
    RPC_S_OK,
    RPC_S_PROTSEQ_NOT_SUPPORTED,
)
from .errors import returns_status
from .values import Box

__all__ = [
    "RpcBindingBind",
    "RpcBindingFree",
    "RpcBindingFromStringBinding",
    "RpcBindingSetOption",
    "RpcBindingUnbind",
    "RpcStringBindingCompose",
    "RpcStringFree",
]

_SCHEMES = {
    "ncacn_ip_tcp": "tcp", "ncalrpc": "ipc", "tcp": "tcp", "ipc": "ipc", "inproc": "inproc", "loopback": "loopback",
}  # fmt: skip
_BINDING = re.compile(r"(?P<protseq>\w+):(?P<address>.*)\[(?P<endpoint>[^]]+)\]")


def endpoint_of(protseq: str, address: str, endpoint: str) -> Endpoint:
    """Return the engine's endpoint; raises 1703 for an unknown protocol sequence, 1706 for a wrong endpoint."""
    scheme = _SCHEMES.get(protseq)
    if scheme is None:
        raise EngineError(f"there is no protocol sequence {protseq!r} here", status=RPC_S_PROTSEQ_NOT_SUPPORTED)
    text = f"{address}:{endpoint}" if scheme == "tcp" and ":" not in endpoint else endpoint
    try:
        return Endpoint.parse(f"{scheme}://{text}")
    except EndpointError as error:
        raise EngineError(str(error), status=RPC_S_INVALID_ENDPOINT_FORMAT) from error


@returns_status
def RpcStringBindingCompose(
    ObjUuid: None, Protseq: str, NetworkAddr: str | None, Endpoint: str, Options: None, StringBinding: Box
) -> int:
    """Put a string binding together, in the box. Returns: 0; 1764 for an object or options: there are none."""
    if ObjUuid is not None or Options is not None:
        return RPC_S_CANNOT_SUPPORT
    StringBinding.value = f"{Protseq}:{NetworkAddr or ''}[{Endpoint}]"
    return RPC_S_OK


def RpcStringFree(String: Box) -> int:
    """Forget a string. Returns: 0."""
    String.value = None
    return RPC_S_OK


@returns_status
def RpcBindingFromStringBinding(StringBinding: str, Binding: Box) -> int:
    """Make a binding handle, in the box. Nothing is sent: whether there is a server shows in the first call.

    Without an address a tcp binding is to this machine.
    Returns: 0; 1700 for what is no string binding; 1703, 1706.
    """
    found = _BINDING.fullmatch(StringBinding)
    if found is None:
        return RPC_S_INVALID_STRING_BINDING
    endpoint = endpoint_of(found["protseq"], found["address"] or "127.0.0.1", found["endpoint"])
    try:
        Binding.value = Client(endpoint)
    except EndpointError as error:
        raise EngineError(str(error), status=RPC_S_INVALID_ENDPOINT_FORMAT) from error
    return RPC_S_OK


@returns_status
def RpcBindingFree(Binding: Box) -> int:
    """Close the binding handle in the box and set that to None; calls that are outstanding end with 1818.

    Returns: 0; 1702 for what is no binding handle, or was freed.
    """
    client = Binding.value
    if not isinstance(client, Client) or client.closed:
        raise InvalidState(f"{client!r} is not an open binding handle", status=RPC_S_INVALID_BINDING)
    Binding.value = None
    client.close()
    return RPC_S_OK


def RpcBindingSetOption(hBinding: Client, option: int, optionValue: object) -> int:
    """Set an option of a binding: there are none here; a call's time limit is its `timeout=`. Returns: 1764."""
    return RPC_S_CANNOT_SUPPORT


def RpcBindingBind(pAsync: object, Binding: Client, IfSpec: object) -> int:
    """Bind asynchronously: not offered, because binding sends nothing. Returns: 1764."""
    return RPC_S_CANNOT_SUPPORT


def RpcBindingUnbind(Binding: Client) -> int:
    """Undo an asynchronous bind: there is none. Returns: 1764."""
    return RPC_S_CANNOT_SUPPORT
