"""Managing a server: this process's, or another one through a binding handle to it.

Theory of operation. Without a binding the functions look at this process. With one they call `Management` there, which
every listening server serves, and block until it answers. A server that does not listen cannot be told from one that
cannot be reached: both are 1722.

Source: "RpcMgmtInqStats", "RpcMgmtIsServerListening", "RpcMgmtStopServerListening", "RpcMgmtSetAuthorizationFn",
"RPC_MGMT_AUTHORIZATION_FN".
"""

from collections.abc import Callable

from .. import CallAttributes, Client, Management, ServerCall, current_call
from ..kernel.checks import check_callback
from .bindings import open_binding
from .constants import (
    RPC_C_MGMT_INQ_STATS,
    RPC_C_MGMT_IS_SERVER_LISTEN,
    RPC_C_MGMT_STOP_SERVER_LISTEN,
    RPC_S_NOT_LISTENING,
    RPC_S_OK,
)
from .errors import returns_status
from .process import only_looking, process
from .values import Box

__all__ = [
    "RPC_STATS_VECTOR", "RpcMgmtInqStats", "RpcMgmtIsServerListening", "RpcMgmtSetAuthorizationFn",
    "RpcMgmtStatsVectorFree", "RpcMgmtStopServerListening",
]  # fmt: skip

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

    Args: `function(binding, operation, status)`: `binding` is that of the call, `operation` one of `RPC_C_MGMT_...`,
        `status` a box with 0. True allows; anything else, and an exception, is 5 for the client. Different from
        Windows: what it puts into the box is not looked at.
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
