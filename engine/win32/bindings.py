"""String bindings, and the client's binding handles.

Theory of operation. A string binding is `protocol sequence:address[endpoint]`. The protocol sequences are the engine's
own (tcp, ipc, inproc, loopback), and of Windows' names those that have a counterpart: ncacn_ip_tcp is tcp, ncalrpc is
ipc, its endpoint a path. A binding handle is a `Client`; `handle.bind(interface)` has the operations to call. The ones
made here are `BindingHandle`s, clients whose options may change: what is begun afterwards is begun with them.

Source: "RpcStringBindingCompose", "RpcBindingFromStringBinding", "RpcBindingFree", "RpcStringFree",
"RpcBindingSetOption", "RpcMgmtSetComTimeout", "Binding Time-out Constants", "RpcBindingBind".
"""

import re
from collections.abc import Callable
from typing import Any

from transport import Endpoint, EndpointError
from transport.foreign import shown, type_name

from .. import Call, Client, EngineError, InvalidState
from .constants import (
    RPC_C_BINDING_INFINITE_TIMEOUT,
    RPC_C_BINDING_MAX_TIMEOUT,
    RPC_C_BINDING_MIN_TIMEOUT,
    RPC_C_OPT_BINDING_NONCAUSAL,
    RPC_C_OPT_CALL_TIMEOUT,
    RPC_C_OPT_DONT_LINGER,
    RPC_C_OPT_UNIQUE_BINDING,
    RPC_S_CANNOT_SUPPORT,
    RPC_S_INVALID_BINDING,
    RPC_S_INVALID_ENDPOINT_FORMAT,
    RPC_S_INVALID_STRING_BINDING,
    RPC_S_INVALID_TIMEOUT,
    RPC_S_OK,
    RPC_S_PROTSEQ_NOT_SUPPORTED,
    RPC_S_WRONG_KIND_OF_BINDING,
)
from .errors import returns_status
from .values import Box, seconds, word

__all__ = [
    "BindingHandle", "RpcBindingBind", "RpcBindingFree", "RpcBindingFromStringBinding", "RpcBindingSetOption",
    "RpcBindingUnbind", "RpcMgmtSetComTimeout", "RpcStringBindingCompose", "RpcStringFree",
]  # fmt: skip

_SCHEMES = {
    "ncacn_ip_tcp": "tcp", "ncalrpc": "ipc", "tcp": "tcp", "ipc": "ipc", "inproc": "inproc", "loopback": "loopback",
}  # fmt: skip
_BINDING = re.compile(r"(?P<protseq>\w+):(?P<address>.*)\[(?P<endpoint>[^]]+)\]")


class BindingHandle(Client):
    """What `RpcBindingFromStringBinding` makes: a client with options, which `RpcBindingSetOption` changes.

    Fields:
        causal: calls have a place in the order of the client's calls.
        call_timeout: seconds that a call may take unless it says otherwise; None: no limit.
    Both count for calls that are begun from then on, by bindings made before as well.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self.causal = True
        self.call_timeout: float | None = None
        carrier: Any = self._carrier  # That of one server.
        carrier.decorate(self._with_options)

    def _with_options(self, begin: Callable[..., Call[Any]]) -> Callable[..., Call[Any]]:
        """Return what begins calls with the options of that moment."""

        def begin_with_options(
            spec: Any, args: Any, kwargs: Any, notify: Any, timeout: float | None, *more: Any
        ) -> Call[Any]:
            chosen = spec if self.causal else spec.without_order()
            return begin(chosen, args, kwargs, notify, self.call_timeout if timeout is None else timeout, *more)

        return begin_with_options


def open_binding(binding: object) -> Client:
    """Return the binding handle; raises 1702 for what is none, or was freed."""
    if not isinstance(binding, Client) or binding.closed:
        raise InvalidState(f"{shown(binding)} is not an open binding handle", status=RPC_S_INVALID_BINDING)
    return binding


def endpoint_of(protseq: str, address: str, endpoint: str) -> Endpoint:
    """Return the engine's endpoint; raises 1703 for an unknown protocol sequence, 1706 for a wrong endpoint."""
    scheme = _SCHEMES.get(protseq)
    if scheme is None:
        raise EngineError(f"there is no protocol sequence {shown(protseq)} here", status=RPC_S_PROTSEQ_NOT_SUPPORTED)
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
        Binding.value = BindingHandle(endpoint)
    except EndpointError as error:
        raise EngineError(str(error), status=RPC_S_INVALID_ENDPOINT_FORMAT) from error
    return RPC_S_OK


@returns_status
def RpcBindingFree(Binding: Box) -> int:
    """Close the binding handle in the box and set that to None; calls that are outstanding end with 1818.

    Returns: 0; 1702 for what is no binding handle, or was freed.
    """
    client = open_binding(Binding.value)
    Binding.value = None
    client.close()
    return RPC_S_OK


@returns_status
def RpcBindingSetOption(hBinding: Client, option: int, optionValue: int) -> int:
    """Set an option of a binding handle, for all calls that are begun from now on.

    Args:
        option: `RPC_C_OPT_BINDING_NONCAUSAL`, `RPC_C_OPT_CALL_TIMEOUT`, `RPC_C_OPT_UNIQUE_BINDING` or
            `RPC_C_OPT_DONT_LINGER`.
        optionValue: of the first, True: calls have no place in the order of this client's calls. Of the second,
            milliseconds until a call ends with 1818; 0 or INFINITE: no limit. Different from Windows: counted from the
            beginning of the call, and it holds for asynchronous calls too. Of the third, nothing to choose: each
            binding handle has a connection of its own. Of the last, True only: no connection outlives its binding
            handle.
    Returns: 0; 1764 for another option, and for lingering; 1701 for a `Client` that was not made by
        `RpcBindingFromStringBinding`, which has the same as `bind(causal=)` and `timeout=`, and for DONT_LINGER before
        the first call; 1702 for what is no open binding handle.
    """
    open_binding(hBinding)
    value = word("optionValue", optionValue)
    if not isinstance(hBinding, BindingHandle):
        return RPC_S_WRONG_KIND_OF_BINDING
    if option == RPC_C_OPT_BINDING_NONCAUSAL:
        hBinding.causal = not value
    elif option == RPC_C_OPT_CALL_TIMEOUT:
        hBinding.call_timeout = seconds(value) or None
    elif option == RPC_C_OPT_DONT_LINGER:
        if hBinding.statistics().calls_begun == 0:
            return RPC_S_WRONG_KIND_OF_BINDING
        return RPC_S_OK if value else RPC_S_CANNOT_SUPPORT
    elif option != RPC_C_OPT_UNIQUE_BINDING:
        return RPC_S_CANNOT_SUPPORT
    return RPC_S_OK


@returns_status
def RpcMgmtSetComTimeout(Binding: Client, Timeout: int) -> int:
    """Say after which silence a peer is looked for: from `RPC_C_BINDING_MIN_TIMEOUT` to `RPC_C_BINDING_MAX_TIMEOUT`.

    There is nothing to choose: a peer that has gone is found by the heartbeat of the connection within 15 s, sooner
    than Windows would by any of these, and one that is merely slow is never given up.
    Returns: 0; 1764 for `RPC_C_BINDING_INFINITE_TIMEOUT`, never to look; 1709 for another number; 1702 for what is no
        open binding handle.
    """
    open_binding(Binding)
    if not isinstance(Timeout, int):
        raise TypeError(f"Timeout must be an int, not {type_name(Timeout)}")
    if Timeout == RPC_C_BINDING_INFINITE_TIMEOUT:
        return RPC_S_CANNOT_SUPPORT
    return RPC_S_OK if RPC_C_BINDING_MIN_TIMEOUT <= Timeout <= RPC_C_BINDING_MAX_TIMEOUT else RPC_S_INVALID_TIMEOUT


def RpcBindingBind(pAsync: object, Binding: Client, IfSpec: object) -> int:
    """Bind asynchronously: not offered, because binding sends nothing. Returns: 1764."""
    return RPC_S_CANNOT_SUPPORT


def RpcBindingUnbind(Binding: Client) -> int:
    """Undo an asynchronous bind: there is none. Returns: 1764."""
    return RPC_S_CANNOT_SUPPORT
