"""Handles as these tests know them: the Windows names return what may be NULL, or of either side."""

from typing import Any, TypeVar

from engine import Call, ServerCall
from engine.win32 import RPC_ASYNC_STATE, RpcAsyncGetCallHandle

T = TypeVar("T")


def made(handle: T | None) -> T:
    """A handle that was made: it is not NULL."""
    assert handle is not None
    return handle


def call_of(state: RPC_ASYNC_STATE) -> Call[Any]:
    """The call of a client's handle."""
    call = RpcAsyncGetCallHandle(state)
    assert isinstance(call, Call)
    return call


def served_by(state: RPC_ASYNC_STATE) -> ServerCall:
    """The call of a routine's handle."""
    call = RpcAsyncGetCallHandle(state)
    assert isinstance(call, ServerCall)
    return call
