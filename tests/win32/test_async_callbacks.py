"""An `async def` where a function of Windows calls back: refused where it is given, as nobody would ever await it."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine import Client, EngineError, Event, Interface, InvalidParameter, WaitableTimer
from engine.win32 import (
    NULL,
    RPC_ASYNC_STATE,
    BindIoCompletionCallback,
    Box,
    CreateThreadpoolIo,
    CreateThreadpoolTimer,
    CreateThreadpoolWait,
    CreateThreadpoolWork,
    GetCurrentThread,
    QueueUserAPC,
    RegisterWaitForSingleObject,
    RpcAsyncCall,
    RpcAsyncInitializeHandle,
    RpcMgmtSetAuthorizationFn,
    RpcNotificationTypeApc,
    RpcNotificationTypeCallback,
    RpcServerRegisterIfEx,
    SetWaitableTimer,
    TrySubmitThreadpoolCallback,
    async_manager,
    sizeof,
)
from transport import OverlappedDescriptor


async def coroutine(*args: Any) -> None:
    raise AssertionError("nobody runs this")


class Asked(Interface, id="test.Asked"):
    """Something to call."""

    def ask(self) -> int: ...  # a contract has no bodies


class Routines:
    """Serves it."""

    def ask(self) -> int:
        return 1


def bound(function: Any) -> None:
    left, right = socket.socketpair()
    with right, OverlappedDescriptor(left) as source:
        BindIoCompletionCallback(source, function, 0)


def opened(function: Any) -> None:
    left, right = socket.socketpair()
    with right, OverlappedDescriptor(left) as source:
        CreateThreadpoolIo(source, function, None, None)


def registered(function: Any) -> None:
    with Event() as event:
        RegisterWaitForSingleObject(Box(), event, function, None, 0, 0)


def timed(function: Any) -> None:
    with WaitableTimer() as timer:
        SetWaitableTimer(timer, -1, 0, function, None, False)


# As a C compiler would: what is given is no such function.
RAISE: dict[str, Callable[[Any], object]] = {
    "BindIoCompletionCallback": bound,
    "CreateThreadpoolIo": opened,
    "CreateThreadpoolTimer": lambda function: CreateThreadpoolTimer(function, None, None),
    "CreateThreadpoolWait": lambda function: CreateThreadpoolWait(function, None, None),
    "CreateThreadpoolWork": lambda function: CreateThreadpoolWork(function, None, None),
    "QueueUserAPC": lambda function: QueueUserAPC(function, GetCurrentThread(), None),
    "RegisterWaitForSingleObject": registered,
    "SetWaitableTimer": timed,
    "TrySubmitThreadpoolCallback": lambda function: TrySubmitThreadpoolCallback(function, None, None),
}


@pytest.mark.parametrize("name", RAISE)
def test_callbacks_that_nobody_awaits(name: str) -> None:
    """An `async def` raises, and the error says what to do."""
    with pytest.raises(TypeError, match="run_coroutine_threadsafe"):
        RAISE[name](coroutine)


def test_functions_that_return_a_status() -> None:
    """Where the function returns a status, that is 87."""
    assert RpcMgmtSetAuthorizationFn(coroutine) == 87  # type: ignore[arg-type]  # what the test is about
    assert RpcServerRegisterIfEx(Asked, None, Routines(), 0, 1, coroutine) == 87  # type: ignore[arg-type]  # likewise


@pytest.fixture
def asked() -> Iterator[Any]:
    """A binding whose calls reach nobody."""
    with Client("loopback://win32-async-callbacks") as client:
        yield client.bind(Asked)


@pytest.mark.parametrize("kind", [RpcNotificationTypeApc, RpcNotificationTypeCallback])
def test_notification_routines(asked: Any, kind: int) -> None:
    """A call that would be told by an `async def` is not issued: 87."""
    handle = RPC_ASYNC_STATE()
    RpcAsyncInitializeHandle(handle, sizeof(RPC_ASYNC_STATE))
    handle.NotificationType = kind
    handle.u.APC.NotificationRoutine = handle.u.NotificationRoutine = coroutine
    handle.u.APC.hThread = NULL
    with pytest.raises(EngineError, match="run_coroutine_threadsafe") as raised:
        RpcAsyncCall(handle, asked.ask)
    assert raised.value.status == 87


def test_manager_routines_that_yield() -> None:
    """Nothing would run of a generator function as an asynchronous manager routine: it cannot be marked as one."""

    def generator(self: Any, state: Any) -> Iterator[int]:
        yield 1

    with pytest.raises(InvalidParameter, match="has a `yield`"):
        async_manager(generator)
