"""Endpoints and listening: the life of the process's server.

Source: "RpcServerUseProtseqEp", "RpcServerListen", "RpcMgmtWaitServerListen".
"""

from .. import Misuse
from .bindings import endpoint_of
from .constants import (
    RPC_C_LISTEN_MAX_CALLS_DEFAULT,
    RPC_S_CANNOT_SUPPORT,
    RPC_S_MAX_CALLS_TOO_SMALL,
    RPC_S_OK,
)
from .errors import returns_status
from .process import process

__all__ = ["RpcMgmtWaitServerListen", "RpcServerListen", "RpcServerUseProtseqEp"]

MOST_CALLS = 1 << 20  # The engine's own bound: what "no limit" means. About 1 GB.


@returns_status
def RpcServerUseProtseqEp(Protseq: str, MaxCalls: int, Endpoint: str, SecurityDescriptor: None) -> int:
    """Serve on an endpoint, from the next `RpcServerListen` on, or the next interface that listens by itself.

    Args: `Endpoint`: a port, for every address of this machine, or `host:port`, for tcp; else a path or a name.
        `MaxCalls` is a hint of old, and not looked at.
    Returns: 0; 1703 for an unknown protocol sequence; 1706 for a wrong endpoint; 1740 for one that is used already;
        1764 for a security descriptor.
    """
    if SecurityDescriptor is not None:
        return RPC_S_CANNOT_SUPPORT
    process.add(endpoint_of(Protseq, "*", Endpoint))
    return RPC_S_OK


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
    process.listen(MOST_CALLS if MaxCalls == RPC_C_LISTEN_MAX_CALLS_DEFAULT else min(MaxCalls, 0x7FFFFFFF))
    if not DontWait:
        process.wait()
    return RPC_S_OK


@returns_status
def RpcMgmtWaitServerListen() -> int:
    """Wait for the stop and the last running call. Returns: 0; 1713 if another thread waits; 1715 if not listening."""
    process.wait()
    return RPC_S_OK
