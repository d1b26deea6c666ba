"""How sends and receives of pipes are told by the Windows names: sections 2.8 and 6.3.

The service is in this process, and written with the Windows names: its routine hands its handle and its pipe over to
the test, which works both ends.
"""

from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import pytest

from engine import Client, EngineError, InPipe, Interface, OutPipe, Pipe, PipePending, Server, operation
from engine.testing import LIMIT
from engine.win32 import (
    INVALID_HANDLE_VALUE,
    RPC_ASYNC_STATE,
    RPC_C_NOTIFY_ON_SEND_COMPLETE,
    RPC_S_INVALID_ARG,
    RPC_S_OK,
    WAIT_IO_COMPLETION,
    WAIT_OBJECT_0,
    WAIT_TIMEOUT,
    Box,
    CreateEvent,
    CreateIoCompletionPort,
    GetCurrentThread,
    GetLastError,
    GetQueuedCompletionStatus,
    RpcAsyncAbortCall,
    RpcAsyncCall,
    RpcAsyncCompleteCall,
    RpcAsyncInitializeHandle,
    RpcCallComplete,
    RpcNotificationTypeApc,
    RpcNotificationTypeEvent,
    RpcNotificationTypeIoc,
    RpcReceiveComplete,
    RpcSendComplete,
    SleepEx,
    WaitForSingleObject,
    async_manager,
    sizeof,
)

from .handles import call_of

MS = int(LIMIT * 1000)

Handles = Callable[[Any], Any]


class Pipes(Interface, id="test.win32.Pipes"):
    """Operations with a pipe, and one without."""

    @operation
    def take(self, numbers: InPipe[int]) -> int:
        """Return the sum."""

    @operation
    def give(self, numbers: OutPipe[int]) -> int:
        """Push numbers."""

    @operation
    def nothing(self) -> None:
        """Return nothing."""


class Routines:
    """Implements `Pipes`."""

    def __init__(self) -> None:
        self.begun: Queue[tuple[RPC_ASYNC_STATE, Pipe[int]]] = Queue()

    @async_manager
    def take(self, pAsync: RPC_ASYNC_STATE, numbers: Pipe[int]) -> None:
        self.begun.put((pAsync, numbers))

    give = take

    def nothing(self) -> None:
        pass


class Bench:
    """Both ends: the binding, and what the routine was given."""

    def __init__(self, client: Client, routines: Routines) -> None:
        self.pipes = client.bind(Pipes)
        self.routines = routines

    def begin(self, operation: Any) -> tuple[Any, RPC_ASYNC_STATE, Pipe[int]]:
        """Begin a call; return it, and the routine's handle and pipe."""
        call = operation.begin()
        return call, *self.routines.begun.get(timeout=LIMIT)


@pytest.fixture
def bench() -> Iterator[Bench]:
    routines = Routines()
    with Server("loopback://win32-pipes") as server:
        server.register(Pipes, routines)
        server.listen()
        with Client(server.endpoint) as client:
            yield Bench(client, routines)


@pytest.fixture
def port(handles: Handles) -> Any:
    return handles(CreateIoCompletionPort(INVALID_HANDLE_VALUE, None, 0, 0))


def by_port(state: RPC_ASYNC_STATE, port: Any, key: str) -> None:
    """Fill the notification fields in."""
    state.NotificationType = RpcNotificationTypeIoc
    state.u.IOC.hIOPort = port
    state.u.IOC.dwCompletionKey = key


def told(port: Any, milliseconds: int = MS) -> Any:
    """Return the key of the next packet; None if there is none in time."""
    transferred, key, overlapped = Box(), Box(), Box()
    if GetQueuedCompletionStatus(port, transferred, key, overlapped, milliseconds):
        return key.value
    assert GetLastError() == WAIT_TIMEOUT
    return None


class TestClient:
    """Source: "RPC_ASYNC_STATE" (Flags)."""

    def test_send_complete(self, bench: Bench, port: Any) -> None:
        """With the flag the sends are told, that of the request first; `Event` says what was told."""
        state = RPC_ASYNC_STATE()
        assert RpcAsyncInitializeHandle(state, sizeof(state)) == RPC_S_OK
        by_port(state, port, "client")
        state.Flags = RPC_C_NOTIFY_ON_SEND_COMPLETE
        RpcAsyncCall(state, bench.pipes.take)
        assert told(port) == "client" and state.Event == RpcSendComplete
        server, numbers = bench.routines.begun.get(timeout=LIMIT)
        call_of(state).pipe("numbers").push([1, 2])
        assert told(port) == "client" and state.Event == RpcSendComplete
        call_of(state).pipe("numbers").push([])
        assert told(port) == "client"
        assert RpcAsyncCompleteCall(server, Box(sum(numbers))) == RPC_S_OK
        assert told(port) == "client" and state.Event == RpcCallComplete
        assert RpcAsyncCompleteCall(state, None) == RPC_S_OK

    def test_without_the_flag(self, bench: Bench, port: Any) -> None:
        """Initialising clears the flag, and without it only the end of the call is told."""
        state = RPC_ASYNC_STATE()
        state.Flags = RPC_C_NOTIFY_ON_SEND_COMPLETE
        assert RpcAsyncInitializeHandle(state, sizeof(state)) == RPC_S_OK
        by_port(state, port, "client")
        RpcAsyncCall(state, bench.pipes.take)
        server, _ = bench.routines.begun.get(timeout=LIMIT)
        assert RpcAsyncAbortCall(server, 4711) == RPC_S_OK
        assert told(port) == "client" and state.Event == RpcCallComplete
        assert told(port, 0) is None
        assert RpcAsyncCompleteCall(state, None) == 4711

    def test_without_pipes(self, bench: Bench, port: Any) -> None:
        """A call without pipes has no sends to tell of: the flag changes nothing."""
        state = RPC_ASYNC_STATE()
        assert RpcAsyncInitializeHandle(state, sizeof(state)) == RPC_S_OK
        by_port(state, port, "client")
        state.Flags = RPC_C_NOTIFY_ON_SEND_COMPLETE
        RpcAsyncCall(state, bench.pipes.nothing)
        assert told(port) == "client" and state.Event == RpcCallComplete
        assert RpcAsyncCompleteCall(state, None) == RPC_S_OK


class TestServer:
    """Source: "Server-side Asynchronous Pipe Handling"."""

    def test_receive_complete(self, bench: Bench, port: Any) -> None:
        """What the routine fills in before it pulls for the first time is how a receive is told."""
        call, state, numbers = bench.begin(bench.pipes.take)
        by_port(state, port, "server")
        with pytest.raises(PipePending):
            numbers.pull()
        assert told(port, 0) is None
        call.pipe("numbers").push([1, 2])
        assert told(port) == "server" and state.Event == RpcReceiveComplete
        assert numbers.pull() == [1, 2]
        call.pipe("numbers").push([])
        assert RpcAsyncCompleteCall(state, Box(sum(numbers))) == RPC_S_OK
        assert call.result(LIMIT) == 0

    def test_send_complete(self, bench: Bench, handles: Handles) -> None:
        """With the flag sends are told too."""
        call, state, numbers = bench.begin(bench.pipes.give)
        state.NotificationType = RpcNotificationTypeEvent
        state.u.hEvent = handles(CreateEvent(None, False, False, None))
        state.Flags = RPC_C_NOTIFY_ON_SEND_COMPLETE
        numbers.push([1])
        assert WaitForSingleObject(state.u.hEvent, MS) == WAIT_OBJECT_0 and state.Event == RpcSendComplete
        numbers.push([])
        assert list(call.pipe("numbers")) == [1]
        assert RpcAsyncCompleteCall(state, Box(1)) == RPC_S_OK
        assert call.result(LIMIT) == 1

    def test_later_edits_change_nothing(self, bench: Bench, port: Any, handles: Handles) -> None:
        """Once the routine has used a pipe the fields are not looked at any more."""
        call, state, numbers = bench.begin(bench.pipes.take)
        by_port(state, port, "before")
        with pytest.raises(PipePending):
            numbers.pull()
        by_port(state, handles(CreateIoCompletionPort(INVALID_HANDLE_VALUE, None, 0, 0)), "after")
        call.pipe("numbers").push([1])
        assert told(port) == "before"
        assert RpcAsyncAbortCall(state, 4711) == RPC_S_OK

    def test_an_apc_needs_a_thread(self, bench: Bench) -> None:
        """A routine names the thread of its APCs: without one the pull raises 87, and harms nothing."""
        seen: list[Any] = []
        call, state, numbers = bench.begin(bench.pipes.take)
        state.NotificationType = RpcNotificationTypeApc
        state.u.APC.NotificationRoutine = lambda *told: seen.append(told)
        with pytest.raises(EngineError) as raised:
            numbers.pull()
        assert raised.value.status == RPC_S_INVALID_ARG
        state.u.APC.hThread = GetCurrentThread()
        with pytest.raises(PipePending):
            numbers.pull()
        call.pipe("numbers").push([1])
        assert SleepEx(MS, True) == WAIT_IO_COMPLETION
        assert seen == [(state, None, RpcReceiveComplete)]
        assert RpcAsyncAbortCall(state, 4711) == RPC_S_OK
