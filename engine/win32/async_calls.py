"""Asynchronous calls: issuing, asking, completing, cancelling, aborting.

Theory of operation. The functions return their documented numbers. Only `RpcAsyncCall` raises: it stands for the
generated stub, which raises when a call cannot be issued; the exception's number is `RpcExceptionCode()` in the
`except` block, and there is nothing to complete, then.

The last four cancel the synchronous calls of a thread, which is not offered: where Windows has another thread end a
blocking call, here each call has a handle by which to end it: begin it, and `RpcAsyncCancelCall`.

Source: "RpcAsyncInitializeHandle", "RpcAsyncGetCallStatus", "RpcAsyncCompleteCall", "RpcAsyncCancelCall",
"RpcAsyncAbortCall", "RpcAsyncGetCallHandle", "RpcAsyncRegisterInfo", "RpcExceptionCode", "RpcRaiseException",
"RpcCancelThread", "RpcCancelThreadEx", "RpcMgmtSetCancelTimeout", "RpcTestCancel".
"""

import sys
from typing import Any, NoReturn

from transport.foreign import shown

from .. import (
    Call,
    CallError,
    CallPending,
    EngineError,
    InvalidAsyncHandle,
    InvalidParameter,
    InvalidState,
    Operation,
    PipedOperation,
    RemoteFault,
    ServerCall,
)
from .async_state import RPC_ASYNC_STATE, client_call, notification, sends_are_told, stamp, usable
from .constants import (
    RPC_ASYNC_VERSION_1_0,
    RPC_S_ASYNC_CALL_PENDING,
    RPC_S_CALL_FAILED,
    RPC_S_CANNOT_SUPPORT,
    RPC_S_OK,
)
from .errors import returns_status
from .values import Box

__all__ = [
    "RpcAsyncAbortCall", "RpcAsyncCall", "RpcAsyncCancelCall", "RpcAsyncCompleteCall", "RpcAsyncGetCallHandle",
    "RpcAsyncGetCallStatus", "RpcAsyncInitializeHandle", "RpcAsyncRegisterHandle", "RpcAsyncRegisterInfo",
    "RpcCancelThread", "RpcCancelThreadEx", "RpcExceptionCode", "RpcMgmtSetCancelTimeout", "RpcRaiseException",
    "RpcTestCancel",
]  # fmt: skip


@returns_status
def RpcAsyncInitializeHandle(pAsync: RPC_ASYNC_STATE, Size: int) -> int:
    """Make a handle ready for a call; `UserInfo`, `Event`, `NotificationType` and `u` stay as they are.

    Returns: 0; 87 for any other size than `sizeof(RPC_ASYNC_STATE)`; 1914 for what is no handle; 1915 while a call is
        outstanding on it. Then nothing has changed, and that call is left alone.
    """
    if not isinstance(pAsync, RPC_ASYNC_STATE):
        raise InvalidAsyncHandle(f"{shown(pAsync)} is not an RPC_ASYNC_STATE")
    if Size != RPC_ASYNC_VERSION_1_0:
        raise InvalidParameter(f"Size must be {RPC_ASYNC_VERSION_1_0}, not {Size}")
    if isinstance(pAsync.RuntimeInfo, Call):
        pAsync.RuntimeInfo.initialize()
    elif pAsync.RuntimeInfo is not None:
        raise InvalidState("the handle is a server's: complete or abort its call")
    stamp(pAsync)
    return RPC_S_OK


def RpcAsyncRegisterInfo(pAsync: RPC_ASYNC_STATE) -> int:
    """Do nothing, as on Windows. Returns: 0."""
    return RPC_S_OK


def RpcAsyncRegisterHandle(pAsync: RPC_ASYNC_STATE) -> int:
    """Do nothing: what `RpcAsyncRegisterInfo` is called in old examples. Returns: 0."""
    return RPC_S_OK


def RpcAsyncCall(
    pAsync: RPC_ASYNC_STATE,
    operation: Operation[..., Any],
    *args: Any,
    timeout: float | None = None,
    metadata: dict[str, str] | None = None,
    **kwargs: Any,
) -> None:
    """Issue a call on a handle: what the stub of an `[async]` operation does.

        RpcAsyncCall(state, client.bind(Thesaurus).synonyms, "quick")

    Args: `operation` is one of a binding's; `args` and `kwargs` are its arguments, the others as for `begin`.
    Raises: an `EngineError` if the call cannot be issued; nothing will be notified, nothing may be completed. 1914: the
        handle is not initialised; 1915: it carries a call, which is left alone; 87: the notification fields are wrong;
        1764: window messages.
    Blocks: never. Returns: nothing; the outcome comes by `RpcAsyncCompleteCall`.
    """
    call = usable(pAsync).RuntimeInfo
    if isinstance(call, ServerCall):
        raise InvalidState("the handle is a server's: calls are issued on one of the client's own")
    notify = notification(pAsync)
    if call is None:
        # In place before the call leaves: another thread may be notified of its end before `begin` returns.
        call = pAsync.RuntimeInfo = Call()
    if isinstance(operation, PipedOperation) and sends_are_told(pAsync):
        kwargs.setdefault("send_complete", True)
    operation.begin(*args, notify=notify, handle=call, timeout=timeout, metadata=metadata, **kwargs)


@returns_status
def RpcAsyncGetCallStatus(pAsync: RPC_ASYNC_STATE) -> int:
    """Return 997 while the call is pending, 0 after success, another number after a failure, 1914 if there is no call.

    Changes nothing. Client only: 1915 for a server's handle.
    """
    return client_call(pAsync).status()


@returns_status
def RpcAsyncCompleteCall(pAsync: RPC_ASYNC_STATE, Reply: Box | None) -> int:
    """Collect the outcome of a call, or, on the server, send it.

    Client: Returns 997 while the call is pending: nothing has changed. Otherwise the call is over: 0, with the result
        in the box, if there is one; or the failure's number, the box left alone. 1914 if there is no call, or another
        thread was first. A failure that a server chose to number 997 is reported as 1726.
    Server: sends the value in the box; None for a routine without a result. Returns 0; 1914 if the call was closed
        before; 87 for a value that cannot be sent, which the client gets as the outcome.
    """
    call = usable(pAsync).RuntimeInfo
    if isinstance(call, ServerCall):
        call.complete(None if Reply is None else Reply.value)
        return RPC_S_OK
    try:
        value = client_call(pAsync).complete()
    except CallPending:
        return RPC_S_ASYNC_CALL_PENDING
    except CallError as error:
        return RPC_S_CALL_FAILED if error.status == RPC_S_ASYNC_CALL_PENDING else error.status
    if Reply is not None:
        Reply.value = value
    return RPC_S_OK


@returns_status
def RpcAsyncCancelCall(pAsync: RPC_ASYNC_STATE, fAbort: bool) -> int:
    """Ask for the call to be ended: by the server, or with `fAbort` here and now, with 1818.

    Returns: 0: the request was handled, which says nothing of the outcome. The notification still comes, and the call
        is still completed. 1914 if there is no call; 1915 for a server's handle.
    """
    client_call(pAsync).cancel(bool(fAbort))
    return RPC_S_OK


@returns_status
def RpcAsyncAbortCall(pAsync: RPC_ASYNC_STATE, ExceptionCode: int) -> int:
    """Server: end a call with a failure; the number reaches the client unchanged.

    Returns: 0; 87 for the number 0; 1914 if the call was closed before; 1915 for a client's handle.
    """
    call = usable(pAsync).RuntimeInfo
    if call is None:
        raise InvalidAsyncHandle("the handle carries no call")
    if not isinstance(call, ServerCall):
        raise InvalidState("this is for the server, and the handle is a client's")
    call.abort(ExceptionCode)
    return RPC_S_OK


def RpcAsyncGetCallHandle(pAsync: RPC_ASYNC_STATE) -> Call[Any] | ServerCall | None:
    """Return what stands for the call: on the server, what `RpcServerTestCancel` and the like want."""
    return pAsync.RuntimeInfo


def RpcExceptionCode() -> int:
    """Return the number of the exception being handled; 1766 (INTERNAL_ERROR) for one that is not the engine's.

    Raises: `RuntimeError` outside of an `except` block.
    """
    error = sys.exc_info()[1]
    if error is None:
        raise RuntimeError("no exception is being handled here")
    return error.status if isinstance(error, EngineError) else EngineError.status


def RpcRaiseException(Exception: int) -> NoReturn:
    """Server: end the running routine's call with that number. Raises: `ValueError` for 0, or more than 32 bits."""
    if not 0 < Exception < 1 << 32:
        raise ValueError(f"the number must be from 1 to 2**32 - 1, not {Exception}")
    raise RemoteFault("", status=Exception)


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
    """Ask whether this thread is to end its blocking calls, which cannot be asked. Returns: 1764; 0 would mean yes."""
    return RPC_S_CANNOT_SUPPORT
