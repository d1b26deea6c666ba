"""The process's server: endpoints, interfaces, listening.

Theory of operation. Windows has one server a process, and functions without a server argument. Endpoints and interfaces
are kept here; the first `RpcServerListen` makes a `Server` of them, on the process's default pool. As on Windows its
endpoints stay open, and its clients connected, when it stops; it is closed when the process ends. Listening anew with
more endpoints, or another limit, makes another `Server`, and the clients connect again.

    idle --listen--> listening --stop--> draining --last call closed--> idle

Who wants more servers, keys or a pool of his own uses `engine.Server`.

Guarded by `_Process.lock`, which is held while endpoints are bound; nothing of the user's runs under it.

Source: "RpcServerUseProtseqEp", "RpcServerRegisterIf", "RpcServerRegisterIfEx", "RpcServerUnregisterIf",
"RpcServerListen", "RpcMgmtStopServerListening", "RpcMgmtWaitServerListen", "RpcMgmtIsServerListening",
"RpcMgmtInqStats".
"""

import atexit
import os
import threading
from time import monotonic
from typing import Any

from transport import Endpoint as _Endpoint
from transport import EndpointError

from .. import Client, EngineError, Interface, InvalidParameter, InvalidState, Misuse, Server, default_pool, sleep
from .bindings import endpoint_of
from .constants import (
    RPC_C_LISTEN_MAX_CALLS_DEFAULT,
    RPC_S_ACCESS_DENIED,
    RPC_S_ALREADY_LISTENING,
    RPC_S_CANNOT_SUPPORT,
    RPC_S_CANT_CREATE_ENDPOINT,
    RPC_S_DUPLICATE_ENDPOINT,
    RPC_S_INVALID_BINDING,
    RPC_S_MAX_CALLS_TOO_SMALL,
    RPC_S_NO_PROTSEQS_REGISTERED,
    RPC_S_NOT_LISTENING,
    RPC_S_OK,
    RPC_S_TYPE_ALREADY_REGISTERED,
    RPC_S_UNKNOWN_IF,
)
from .errors import returns_status
from .values import Box

__all__ = [
    "RPC_STATS_VECTOR",
    "RpcMgmtInqStats",
    "RpcMgmtIsServerListening",
    "RpcMgmtStatsVectorFree",
    "RpcMgmtStopServerListening",
    "RpcMgmtWaitServerListen",
    "RpcServerListen",
    "RpcServerRegisterIf",
    "RpcServerRegisterIfEx",
    "RpcServerUnregisterIf",
    "RpcServerUseProtseqEp",
]

# Seconds in which an endpoint that was closed just now becomes free: ZeroMQ's thread does it, and tells nobody.
# Arbitrary; it takes milliseconds.
REBIND = 2.0

# What interfaces are told apart by: name and major version.
_Key = tuple[str, int]


class RPC_STATS_VECTOR:
    """Counters that only grow; `Stats` is indexed by `RPC_C_STATS_CALLS_IN` and its siblings.

    Calls out are those that the process makes as a client, which nobody counts here: 0. Packets are messages.
    """

    def __init__(self, Stats: list[int]) -> None:
        self.Count = len(Stats)
        self.Stats = Stats


class _Process:
    """What this process serves."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # All guarded by lock.
        self.endpoints: list[_Endpoint] = []
        self.interfaces: dict[_Key, tuple[Any, Any]] = {}
        # Made by the first `listen`.
        self.server: Server | None = None
        # What `server` was made of: the endpoints, and the limit.
        self.made_of: tuple[list[_Endpoint], int | None] = [], None
        # Listening has begun, every endpoint open, and nobody has waited for its end yet.
        self.begun = False
        # The end of the process will close the server.
        self.hooked = False

    def listening(self) -> Server:
        """Return the server that takes calls; raises 1715 if there is none."""
        server = self.server
        if server is None or not self.begun or not server.listening:
            raise InvalidState("the process is not listening", status=RPC_S_NOT_LISTENING)
        return server

    def listen(self, max_calls: int | None) -> Server:
        """Have a server of what is registered listen."""
        with self.lock:
            server = self.server
            if server is not None and server.statistics().phase != "idle":
                raise InvalidState("the process listens already", status=RPC_S_ALREADY_LISTENING)
            if not self.endpoints:
                raise InvalidState("no endpoint to listen on", status=RPC_S_NO_PROTSEQS_REGISTERED)
            self.begun = False
            patience = 0.0
            if server is None or self.made_of != (self.endpoints, max_calls):
                if server is not None:
                    server.close(0)
                    patience = REBIND
                server = self._make_locked(max_calls)
            try:
                _listen(server, patience)
            except EndpointError as error:
                raise EngineError(str(error), status=RPC_S_CANT_CREATE_ENDPOINT) from error
            finally:
                if not self.hooked:
                    # Not before: the transport's own hook, which must run after this one, was registered meanwhile.
                    self.hooked = True
                    atexit.register(self.at_exit)
            self.begun = True
        return server

    def _make_locked(self, max_calls: int | None) -> Server:
        if max_calls is None:
            server = Server(*self.endpoints, pool=default_pool())
        else:
            server = Server(*self.endpoints, pool=default_pool(), max_calls=max_calls)
        self.server = server
        self.made_of = self.endpoints.copy(), max_calls
        for interface, implementation in self.interfaces.values():
            server.register(interface, implementation)
        return server

    def wait(self) -> None:
        """Wait until the server has stopped, and its last call was closed."""
        server = self.server
        if server is None or not self.begun:
            raise InvalidState("the process is not listening", status=RPC_S_NOT_LISTENING)
        server.wait()
        self.begun = server.listening  # Another thread may have begun anew.

    def at_exit(self) -> None:
        """Close the server, if this is the process that made it."""
        server, self.server = self.server, None
        if server is not None:
            server.close(0)


def _listen(server: Server, patience: float) -> None:
    """Have the server listen; for `patience` seconds an endpoint that is taken may become free."""
    deadline = monotonic() + patience
    while True:
        try:
            server.listen()
            return
        except EndpointError:
            if monotonic() >= deadline:
                raise
        sleep(0.005)


_process = _Process()


def _key(interface: type[Interface] | str) -> _Key:
    if isinstance(interface, str):
        return interface, 0
    if isinstance(interface, type) and issubclass(interface, Interface):
        return interface.interface_id, interface.interface_version[0]
    raise TypeError(f"an interface is an Interface class or a name, not {interface!r}")


def _local(binding: object) -> None:
    """Managing another process: refused, as a Windows server does by default."""
    if isinstance(binding, Client):
        raise EngineError("a server is not managed from outside", status=RPC_S_ACCESS_DENIED)
    if binding is not None:
        raise InvalidState(f"{binding!r} is not a binding handle", status=RPC_S_INVALID_BINDING)


# Endpoints and interfaces


@returns_status
def RpcServerUseProtseqEp(Protseq: str, MaxCalls: int, Endpoint: str, SecurityDescriptor: None) -> int:
    """Serve on an endpoint, from the next `RpcServerListen` on.

    Args: `Endpoint`: a port, for every address of this machine, or `host:port`, for tcp; else a path or a name.
        `MaxCalls` is a hint of old, and not looked at.
    Returns: 0; 1703 for an unknown protocol sequence; 1706 for a wrong endpoint; 1740 for one that is used already;
        1764 for a security descriptor.
    """
    if SecurityDescriptor is not None:
        return RPC_S_CANNOT_SUPPORT
    endpoint = endpoint_of(Protseq, "*", Endpoint)
    with _process.lock:
        if endpoint in _process.endpoints:
            return RPC_S_DUPLICATE_ENDPOINT
        _process.endpoints.append(endpoint)
    return RPC_S_OK


@returns_status
def RpcServerRegisterIf(IfSpec: type[Interface] | str, MgrTypeUuid: None, MgrEpv: Any) -> int:
    """Serve an interface by the methods of `MgrEpv`, before or after listening.

    Returns: 0; 1712 if it is registered; 87 if a routine is missing; 1764 for a type: there is one manager only.
    """
    if MgrTypeUuid is not None:
        return RPC_S_CANNOT_SUPPORT
    if MgrEpv is None:
        raise InvalidParameter("MgrEpv must be the object whose methods are the routines")
    key = _key(IfSpec)
    with _process.lock:
        known = key in _process.interfaces
    if known:
        return RPC_S_TYPE_ALREADY_REGISTERED
    # Whether the routines fit the interface is to be told now, though the server may be made later.
    with Server(pool=default_pool()) as rehearsal:
        rehearsal.register(IfSpec, MgrEpv)
    with _process.lock:
        if key in _process.interfaces:
            return RPC_S_TYPE_ALREADY_REGISTERED
        _process.interfaces[key] = IfSpec, MgrEpv
        if _process.server is not None:
            _process.server.register(IfSpec, MgrEpv)
    return RPC_S_OK


def RpcServerRegisterIfEx(
    IfSpec: type[Interface] | str, MgrTypeUuid: None, MgrEpv: Any, Flags: int, MaxCalls: int, IfCallback: None
) -> int:
    """Serve an interface: as `RpcServerRegisterIf`. Returns: 1764 for flags or a security callback.

    `MaxCalls` counts for auto-listen interfaces only, which are among the flags.
    """
    if Flags or IfCallback is not None:
        return RPC_S_CANNOT_SUPPORT
    return RpcServerRegisterIf(IfSpec, MgrTypeUuid, MgrEpv)


@returns_status
def RpcServerUnregisterIf(
    IfSpec: type[Interface] | str | None, MgrTypeUuid: None, WaitForCallsToComplete: bool
) -> int:
    """Serve an interface no longer, or none at all; calls that run go on.

    Returns: 0; 1717 if it is not registered; 1764 for a type, or for waiting while calls are open.
    """
    if MgrTypeUuid is not None:
        return RPC_S_CANNOT_SUPPORT
    with _process.lock:
        server = _process.server
        if WaitForCallsToComplete and server is not None and server.statistics().active:
            return RPC_S_CANNOT_SUPPORT
        if IfSpec is None:
            keys = list(_process.interfaces)
        elif _key(IfSpec) in _process.interfaces:
            keys = [_key(IfSpec)]
        else:
            return RPC_S_UNKNOWN_IF
        for key in keys:
            interface, _ = _process.interfaces.pop(key)
            if server is not None:
                server.unregister(interface)
    return RPC_S_OK


# Listening


@returns_status
def RpcServerListen(MinimumCallThreads: int, MaxCalls: int, DontWait: bool) -> int:
    """Take calls; return at once if told not to wait, else after the stop and the last running call.

    Args: `MinimumCallThreads` is a hint, and the pool decides. `MaxCalls` may be open at once, the next one is refused
        with 1723; `RPC_C_LISTEN_MAX_CALLS_DEFAULT`: no limit of yours.
    Returns: 0; 1713 if the process listens already; 1714 without an endpoint; 1742 for fewer calls than threads, or
        none; 1720 if an endpoint is taken.
    """
    if MaxCalls < 1 or MaxCalls < MinimumCallThreads:
        raise Misuse(f"MaxCalls is {MaxCalls}, which is too small", status=RPC_S_MAX_CALLS_TOO_SMALL)
    limit = None if MaxCalls == RPC_C_LISTEN_MAX_CALLS_DEFAULT else min(MaxCalls, 0x7FFFFFFF)
    _process.listen(limit)
    if not DontWait:
        _process.wait()
    return RPC_S_OK


@returns_status
def RpcMgmtWaitServerListen() -> int:
    """Wait for the stop and the last running call. Returns: 0; 1713 if another thread waits; 1715 if not listening."""
    _process.wait()
    return RPC_S_OK


@returns_status
def RpcMgmtStopServerListening(Binding: Client | None) -> int:
    """Take no new calls; running ones go on. May be called from a routine.

    Returns: 0; 1715 if not listening; 5 for another process's server; 1702.
    """
    _local(Binding)
    _process.listening().stop()
    return RPC_S_OK


@returns_status
def RpcMgmtIsServerListening(Binding: Client | None) -> int:
    """Ask whether the process takes calls. Returns: 0: yes; 1715: no; 5 for another process's server; 1702."""
    _local(Binding)
    _process.listening()
    return RPC_S_OK


@returns_status
def RpcMgmtInqStats(Binding: Client | None, Statistics: Box) -> int:
    """Put an `RPC_STATS_VECTOR` into the box. Returns: 0; 1715 if not listening; 5 for another process's; 1702."""
    _local(Binding)
    seen = _process.listening().statistics()
    Statistics.value = RPC_STATS_VECTOR([seen.calls_in, 0, seen.messages_in, seen.messages_out])
    return RPC_S_OK


def RpcMgmtStatsVectorFree(StatsVector: Box) -> int:
    """Forget a vector. Returns: 0."""
    StatsVector.value = None
    return RPC_S_OK


def _after_fork_in_child() -> None:
    global _process
    _process = _Process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
