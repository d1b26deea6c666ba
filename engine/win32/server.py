"""Servers: endpoints, interfaces and on which conditions, listening; and managing this process's or another one.

Theory of operation. The flags of an interface become the conditions of `Server.register`. Two things differ there and
are as on Windows here. A security callback admits by returning 0. Who "has authenticated" is decided by the
authentication level of the connection, so that callers on ipc count as such, as they do on Windows' local transport;
the engine's own `secure_only` asks for a caller who has proved who he is, which this process's server cannot check: it
has no keys.

Without a binding the management functions look at this process. With one they call `Management` there, which every
listening server serves, and block until it answers. A server that does not listen cannot be told from one that cannot
be reached: both are 1722.

Source: "RpcServerUseProtseqEp", "RpcServerListen", "RpcMgmtWaitServerListen", "RpcServerRegisterIf",
"RpcServerRegisterIf2", "RpcServerRegisterIf3", "RpcServerRegisterIfEx", "Interface Registration Flags",
"RPC_IF_CALLBACK_FN", "RpcServerUnregisterIf", "RpcServerUnregisterIfEx", "RpcMgmtInqStats",
"RpcMgmtIsServerListening", "RpcMgmtStopServerListening", "RpcMgmtSetAuthorizationFn", "RPC_MGMT_AUTHORIZATION_FN".
"""

from collections.abc import Callable
from typing import Any

from .. import CallAttributes, Client, Interface, InvalidParameter, Management, Misuse, ServerCall, current_call
from ..kernel.checks import check_callback
from .bindings import endpoint_of, open_binding
from .constants import (
    INFINITE,
    RPC_C_AUTHN_LEVEL_NONE,
    RPC_C_LISTEN_MAX_CALLS_DEFAULT,
    RPC_C_MGMT_INQ_STATS,
    RPC_C_MGMT_IS_SERVER_LISTEN,
    RPC_C_MGMT_STOP_SERVER_LISTEN,
    RPC_IF_ALLOW_CALLBACKS_WITH_NO_AUTH,
    RPC_IF_ALLOW_LOCAL_ONLY,
    RPC_IF_ALLOW_SECURE_ONLY,
    RPC_IF_AUTOLISTEN,
    RPC_IF_SEC_NO_CACHE,
    RPC_S_CANNOT_SUPPORT,
    RPC_S_MAX_CALLS_TOO_SMALL,
    RPC_S_NOT_LISTENING,
    RPC_S_OK,
)
from .errors import returns_status
from .this_process import Registered, only_looking, process
from .values import Box, word

__all__ = [
    "RPC_STATS_VECTOR", "RpcMgmtInqStats", "RpcMgmtIsServerListening", "RpcMgmtSetAuthorizationFn",
    "RpcMgmtStatsVectorFree", "RpcMgmtStopServerListening", "RpcMgmtWaitServerListen", "RpcServerListen",
    "RpcServerRegisterIf", "RpcServerRegisterIf2", "RpcServerRegisterIf3", "RpcServerRegisterIfEx",
    "RpcServerUnregisterIf", "RpcServerUnregisterIfEx", "RpcServerUseProtseqEp",
]  # fmt: skip

MOST_CALLS = 1 << 20  # The engine's own bound: what "no limit" means. About 1 GB.


@returns_status
def RpcServerUseProtseqEp(Protseq: str, MaxCalls: int, Endpoint: str, SecurityDescriptor: None) -> int:
    """Serve on an endpoint, from the next `RpcServerListen` on, or the next interface that listens by itself.

    Args:
        MaxCalls: a hint of old, and not looked at.
        Endpoint: a port, for every address of this machine, or `host:port`, for tcp; else a path or a name.
    Returns: 0; 1703 for an unknown protocol sequence; 1706 for a wrong endpoint; 1740 for one that is used already;
        1764 for a security descriptor.
    """
    if SecurityDescriptor is not None:
        return RPC_S_CANNOT_SUPPORT
    process.add(endpoint_of(Protseq, "*", Endpoint))
    return RPC_S_OK


@returns_status
def RpcServerListen(MinimumCallThreads: int, MaxCalls: int, DontWait: bool) -> int:
    """Take calls; return at once if asked not to wait, else after the stop and the last running call.

    Args:
        MinimumCallThreads: a hint, and the pool decides.
        MaxCalls: how many may be open at once, the next one is refused with 1723; `RPC_C_LISTEN_MAX_CALLS_DEFAULT`: no
            limit of yours.
    Returns: 0; 1713 if the process listens already; 1714 without an endpoint; 1742 for fewer calls than threads, or
        none; 1720 if an endpoint is taken.
    """
    if MaxCalls < 1 or MaxCalls < MinimumCallThreads:
        raise Misuse(f"MaxCalls is {MaxCalls}, which is too small", status=RPC_S_MAX_CALLS_TOO_SMALL)
    process.listen(MOST_CALLS if MaxCalls == RPC_C_LISTEN_MAX_CALLS_DEFAULT else min(MaxCalls, 0x7FFFFFFF))
    if not DontWait:
        process.wait()
    return RPC_S_OK


@returns_status
def RpcMgmtWaitServerListen() -> int:
    """Wait for the stop and the last running call. Returns: 0; 1713 if another thread waits; 1715 if not listening."""
    process.wait()
    return RPC_S_OK


# `callback(interface, binding)`: 0 admits. `binding` is that of the call, as `RpcServerInqCallAttributes` wants it.
IfCallback = Callable[[type[Interface] | str, ServerCall], int]

_FLAGS = (
    RPC_IF_AUTOLISTEN | RPC_IF_ALLOW_SECURE_ONLY | RPC_IF_ALLOW_CALLBACKS_WITH_NO_AUTH | RPC_IF_ALLOW_LOCAL_ONLY
    | RPC_IF_SEC_NO_CACHE
)  # fmt: skip


@returns_status
def RpcServerRegisterIf(IfSpec: type[Interface] | str, MgrTypeUuid: None, MgrEpv: Any) -> int:
    """Serve an interface by the methods of `MgrEpv`, before or after listening.

    Returns: 0; 1712 if it is registered; 87 if a routine is missing; 1764 for a type: there is one manager only.
    """
    return _register(IfSpec, MgrTypeUuid, MgrEpv, 0, RPC_C_LISTEN_MAX_CALLS_DEFAULT, INFINITE, None)


@returns_status
def RpcServerRegisterIf2(
    IfSpec: type[Interface] | str,
    MgrTypeUuid: None,
    MgrEpv: Any,
    Flags: int,
    MaxCalls: int,
    MaxRpcSize: int,
    IfCallbackFn: IfCallback | None,
) -> int:
    """Serve an interface on conditions; callers who do not meet them get 5 (ACCESS_DENIED).

    Args:
        Flags: of `RPC_IF_AUTOLISTEN` (serve it from now until it is unregistered, whether the process listens or not),
            `RPC_IF_ALLOW_SECURE_ONLY` (connections with an authentication level above none only),
            `RPC_IF_ALLOW_CALLBACKS_WITH_NO_AUTH` (the callback is asked about the others too, which are refused before
            it otherwise), `RPC_IF_ALLOW_LOCAL_ONLY` (callers on this machine only) and `RPC_IF_SEC_NO_CACHE` (ask the
            callback for each call).
        MaxCalls: of an auto-listen interface, that may be open at once: the next one is refused with 1723. Of others
            it is not looked at.
        MaxRpcSize: bytes that a request's encoded arguments may have; 0xFFFFFFFF: any number.
        IfCallbackFn: `callback(interface, binding)` admits a client by returning 0; anything else, and an exception,
            refuses it. Asked once for each connection. None: no callback.
    Returns: 0; 1712, 87 and 1764 as `RpcServerRegisterIf`; 1764 for other flags; 1742 for an auto-listen interface that
        may have no calls; 1720 for one if an endpoint is taken.
    """
    return _register(IfSpec, MgrTypeUuid, MgrEpv, Flags, MaxCalls, MaxRpcSize, IfCallbackFn)


@returns_status
def RpcServerRegisterIf3(
    IfSpec: type[Interface] | str,
    MgrTypeUuid: None,
    MgrEpv: Any,
    Flags: int,
    MaxCalls: int,
    MaxRpcSize: int,
    IfCallback: IfCallback | None,
    SecurityDescriptor: None,
) -> int:
    """Serve an interface on conditions: as `RpcServerRegisterIf2`. Returns: also 1764 for a security descriptor."""
    if SecurityDescriptor is not None:
        return RPC_S_CANNOT_SUPPORT
    return _register(IfSpec, MgrTypeUuid, MgrEpv, Flags, MaxCalls, MaxRpcSize, IfCallback)


@returns_status
def RpcServerRegisterIfEx(
    IfSpec: type[Interface] | str,
    MgrTypeUuid: None,
    MgrEpv: Any,
    Flags: int,
    MaxCalls: int,
    IfCallback: IfCallback | None,
) -> int:
    """Serve an interface on conditions: as `RpcServerRegisterIf2`, requests of any size."""
    return _register(IfSpec, MgrTypeUuid, MgrEpv, Flags, MaxCalls, INFINITE, IfCallback)


@returns_status
def RpcServerUnregisterIf(IfSpec: type[Interface] | str | None, MgrTypeUuid: None, WaitForCallsToComplete: bool) -> int:
    """Serve an interface no longer, or none that does not listen by itself; calls that run go on.

    Args: `WaitForCallsToComplete`: return when they are closed. An auto-listen interface always waits.
    Returns: 0; 1717 if it is not registered; 1764 for a type; 1131 in a routine that would wait for itself: then
        nothing has changed.
    """
    return _unregister(IfSpec, MgrTypeUuid, bool(WaitForCallsToComplete), False)


@returns_status
def RpcServerUnregisterIfEx(IfSpec: type[Interface] | str | None, MgrTypeUuid: None, RundownContextHandles: int) -> int:
    """Serve an interface no longer, wait for its calls, and, on request, run down the context handles it has opened.

    Returns: as `RpcServerUnregisterIf`.
    """
    return _unregister(IfSpec, MgrTypeUuid, True, bool(RundownContextHandles))


def _register(
    interface: type[Interface] | str,
    kind: None,
    implementation: Any,
    flags: int,
    max_calls: int,
    max_bytes: int,
    callback: IfCallback | None,
) -> int:
    if kind is not None or word("Flags", flags) & ~_FLAGS:
        return RPC_S_CANNOT_SUPPORT
    if implementation is None:
        raise InvalidParameter("MgrEpv must be the object whose methods are the routines")
    conditions = {
        "security": _security(interface, flags, callback),
        "auto_listen": bool(flags & RPC_IF_AUTOLISTEN),
        "local_only": bool(flags & RPC_IF_ALLOW_LOCAL_ONLY),
        "no_cache": bool(flags & RPC_IF_SEC_NO_CACHE),
        "max_request_bytes": None if word("MaxRpcSize", max_bytes) == INFINITE else max_bytes,
    }
    if flags & RPC_IF_AUTOLISTEN and word("MaxCalls", max_calls) != RPC_C_LISTEN_MAX_CALLS_DEFAULT:
        conditions["max_calls"] = max_calls
    process.register(Registered(interface, implementation, conditions))
    return RPC_S_OK


def _security(
    interface: type[Interface] | str, flags: int, callback: IfCallback | None
) -> Callable[[CallAttributes], bool] | None:
    """Return what admits clients, as the engine asks it; None if all are."""
    check_callback("the security callback", callback, optional=True)
    no_auth = flags & RPC_IF_ALLOW_CALLBACKS_WITH_NO_AUTH
    secure = bool(flags & RPC_IF_ALLOW_SECURE_ONLY) or (callback is not None and not no_auth)
    if callback is None and not secure:
        return None

    def admits(attributes: CallAttributes) -> bool:
        if secure and attributes.authentication_level <= RPC_C_AUTHN_LEVEL_NONE:
            return False
        if callback is None:
            return True
        verdict = callback(interface, current_call())
        if isinstance(verdict, bool):  # False is equal to 0, and would admit.
            raise TypeError(f"a security callback returns a status, of which 0 admits, not {verdict}")
        return verdict == RPC_S_OK

    return admits


def _unregister(interface: type[Interface] | str | None, kind: None, wait: bool, run_down: bool) -> int:
    if kind is not None:
        return RPC_S_CANNOT_SUPPORT
    process.unregister(interface, wait, run_down)
    return RPC_S_OK


# `authorize(binding, operation, status)`: True allows a client what it asks for.
AuthorizationFn = Callable[[ServerCall, int, Box], bool]

_OPERATIONS = {
    "statistics": RPC_C_MGMT_INQ_STATS,
    "listening": RPC_C_MGMT_IS_SERVER_LISTEN,
    "stop": RPC_C_MGMT_STOP_SERVER_LISTEN,
}


class RPC_STATS_VECTOR:
    """Counters that only grow; `Stats` is indexed by `RPC_C_STATS_CALLS_IN` and its siblings.

    Calls out are those that routines have begun. Packets are messages.
    """

    def __init__(self, Stats: list[int]) -> None:
        self.Count: int = len(Stats)
        self.Stats = Stats


@returns_status
def RpcMgmtStopServerListening(Binding: Client | None) -> int:
    """Take no new calls; running ones go on. Without a binding it may be called from a routine.

    Returns: 0; 1715 if this process is not listening. Another process: 5, which is the default; 1722 if it cannot be
        reached or does not listen; 1702 for what is no open binding handle.
    """
    if Binding is None:
        process.listening().stop()
    else:
        open_binding(Binding).bind(Management).stop()
    return RPC_S_OK


@returns_status
def RpcMgmtIsServerListening(Binding: Client | None) -> int:
    """Ask whether a server takes calls. Returns: 0: yes; 1715: no, this process does not; else as for the stop."""
    if Binding is None:
        process.listening()
        return RPC_S_OK
    return RPC_S_OK if open_binding(Binding).bind(Management).listening() else RPC_S_NOT_LISTENING


@returns_status
def RpcMgmtInqStats(Binding: Client | None, Statistics: Box) -> int:
    """Put an `RPC_STATS_VECTOR` into the box. Returns: 0; 1715 if this process is not listening; else as for the
    stop."""
    seen = process.listening().statistics() if Binding is None else open_binding(Binding).bind(Management).statistics()
    Statistics.value = RPC_STATS_VECTOR([seen.calls_in, seen.calls_out, seen.messages_in, seen.messages_out])
    return RPC_S_OK


def RpcMgmtStatsVectorFree(StatsVector: Box) -> int:
    """Forget a vector. Returns: 0."""
    StatsVector.value = None
    return RPC_S_OK


@returns_status
def RpcMgmtSetAuthorizationFn(AuthorizationFn: AuthorizationFn | None) -> int:
    """Decide what clients may ask of this process; from now on, and None for the default: they may look, not stop.

    Args:
        AuthorizationFn: `function(binding, operation, status)`: `binding` is that of the call, `operation` one of
            `RPC_C_MGMT_...`, `status` a box with 0. True allows; anything else, and an exception, is 5 for the client.
            Different from Windows: what it puts into the box is not looked at.
    Returns: 0; 87 for what cannot be called, and for an `async def`.
    """
    if AuthorizationFn is None:
        process.authorize = only_looking
        return RPC_S_OK
    check_callback("AuthorizationFn", AuthorizationFn)
    function = AuthorizationFn

    def authorize(attributes: CallAttributes) -> bool:
        return function(current_call(), _OPERATIONS[attributes.operation], Box(RPC_S_OK)) is True

    process.authorize = authorize
    return RPC_S_OK
