"""Context handles: dropping one on the client, locking one on the server.

Theory of operation. A context handle is an `engine.Context`. A routine makes one by `open_context` of its call's
binding handle (`RpcAsyncGetCallHandle`, or `current_call()`), with the rundown routine, and closes it by `close`; what
it gets in a parameter is what the functions here take as `UserContext`.

Source: "Context Handles", "RpcSsDestroyClientContext", "RpcSsContextLockExclusive", "RpcSsContextLockShared".
"""

from typing import Any

from transport.foreign import shown

from .. import Context, ContextMismatch, ServerCall
from .call_attributes import served
from .constants import ERROR_MORE_WRITES, RPC_S_OK
from .errors import returns_status
from .values import Box

__all__ = ["RpcSsContextLockExclusive", "RpcSsContextLockShared", "RpcSsDestroyClientContext"]


def RpcSsDestroyClientContext(ContextHandle: Box) -> None:
    """Forget a context handle on the client, and set the box to None. The server is not told.

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
