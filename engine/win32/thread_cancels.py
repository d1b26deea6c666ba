"""Cancelling the synchronous calls of a thread: not offered.

Windows has a thread's blocking call ended by another thread. Here each call has a handle by which to end it: begin it,
and `RpcAsyncCancelCall`. Using these functions for asynchronous calls is wrong on Windows, too.

Source: "RpcCancelThread", "RpcCancelThreadEx", "RpcMgmtSetCancelTimeout", "RpcTestCancel".
"""

from .constants import RPC_S_CANNOT_SUPPORT

__all__ = ["RpcCancelThread", "RpcCancelThreadEx", "RpcMgmtSetCancelTimeout", "RpcTestCancel"]


def RpcCancelThread(Thread: object) -> int:
    """End the blocking calls of a thread: not offered. Returns: 1764."""
    return RPC_S_CANNOT_SUPPORT


def RpcCancelThreadEx(Thread: object, Timeout: int) -> int:
    """End the blocking calls of a thread, within a time: not offered. Returns: 1764."""
    return RPC_S_CANNOT_SUPPORT


def RpcMgmtSetCancelTimeout(Timeout: int) -> int:
    """Say how long a cancelled blocking call of this thread goes on waiting: not offered. Returns: 1764."""
    return RPC_S_CANNOT_SUPPORT


def RpcTestCancel() -> int:
    """Ask whether this thread was told to end its blocking calls, which nobody can. Returns: 1764; 0 would mean yes."""
    return RPC_S_CANNOT_SUPPORT
