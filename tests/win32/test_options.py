"""Options of a binding handle by the Windows names: section 3.12."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from engine import CallTimeout, Client
from engine.testing import LIMIT, Gate
from engine.win32 import (
    INFINITE,
    RPC_ASYNC_STATE,
    RPC_C_BINDING_DEFAULT_TIMEOUT,
    RPC_C_BINDING_INFINITE_TIMEOUT,
    RPC_C_BINDING_MAX_TIMEOUT,
    RPC_C_BINDING_MIN_TIMEOUT,
    RPC_C_OPT_BINDING_NONCAUSAL,
    RPC_C_OPT_CALL_TIMEOUT,
    RPC_C_OPT_DONT_LINGER,
    RPC_C_OPT_UNIQUE_BINDING,
    RPC_S_CALL_CANCELLED,
    RPC_S_CANNOT_SUPPORT,
    RPC_S_INVALID_BINDING,
    RPC_S_INVALID_TIMEOUT,
    RPC_S_OK,
    RPC_S_WRONG_KIND_OF_BINDING,
    RpcAsyncCall,
    RpcAsyncInitializeHandle,
    RpcBindingSetOption,
    RpcCancelThread,
    RpcCancelThreadEx,
    RpcMgmtSetCancelTimeout,
    RpcMgmtSetComTimeout,
    RpcServerListen,
    RpcServerRegisterIfEx,
    RpcTestCancel,
    sizeof,
)

from .contract import Desk
from .greeter import Greeter, Hello
from .handles import call_of

Bind = Callable[[], Client]


@pytest.fixture
def listening(greeter: Greeter) -> Greeter:
    assert RpcServerListen(1, 10, True) == RPC_S_OK
    return greeter


class TestCallTimeout:
    """RPC_C_OPT_CALL_TIMEOUT."""

    def test_ends_calls(self, listening: Greeter, binding: Bind) -> None:
        """A call without an answer in that time ends with 1818, whether it was begun before as a binding or after."""
        handle = binding()
        hello = handle.bind(Hello)
        assert RpcBindingSetOption(handle, RPC_C_OPT_CALL_TIMEOUT, 50) == RPC_S_OK
        for bound in (hello, handle.bind(Hello)):
            with pytest.raises(CallTimeout) as caught:
                bound.block()
            assert caught.value.status == RPC_S_CALL_CANCELLED

    def test_ends_calls_on_a_handle(self, listening: Greeter, binding: Bind) -> None:
        """So does one that is begun on an asynchronous handle, or by `begin`, over a connection that is there."""
        handle, state = binding(), RPC_ASYNC_STATE()
        hello: Any = handle.bind(Hello)
        hello.greet("World")
        assert RpcBindingSetOption(handle, RPC_C_OPT_CALL_TIMEOUT, 50) == RPC_S_OK
        assert RpcAsyncInitializeHandle(state, sizeof(state)) == RPC_S_OK
        RpcAsyncCall(state, hello.block)
        for call in (call_of(state), hello.block.begin()):
            assert call.wait(LIMIT)
            assert call.status() == RPC_S_CALL_CANCELLED

    @pytest.mark.parametrize("none", (0, INFINITE))
    def test_none(self, listening: Greeter, binding: Bind, none: int) -> None:
        """0 and INFINITE take it back; a call's own limit counts in any case."""
        handle = binding()
        hello: Any = handle.bind(Hello)
        assert RpcBindingSetOption(handle, RPC_C_OPT_CALL_TIMEOUT, 1) == RPC_S_OK
        assert hello.greet("in time", timeout=LIMIT) == "Hello, in time!"
        assert RpcBindingSetOption(handle, RPC_C_OPT_CALL_TIMEOUT, none) == RPC_S_OK
        call = hello.block.begin()
        listening.gate.wait_for_arrivals(1)
        assert not call.wait(0.05), "longer than the limit was"
        listening.gate.open()
        call.result(LIMIT)


class TestNonCausal:
    """RPC_C_OPT_BINDING_NONCAUSAL."""

    def test_waits_for_none(self, quiet: None, binding: Bind) -> None:
        """Calls begun from then on have no place in the order, until it is taken back.

        What the others wait for is a security callback that has not decided about the first of them.
        """
        gate = Gate()

        class Routines:
            greet = "Hello, {}!".format

        def callback(interface: object, binding: object) -> int:
            if not gate.arrivals:
                gate.pass_through()
            return RPC_S_OK

        assert RpcServerRegisterIfEx("ordered", None, Routines(), 0, 10, callback) == RPC_S_OK
        assert RpcServerListen(1, 10, True) == RPC_S_OK
        handle = binding()
        bound = handle.bind("ordered")
        calls = [bound.greet.begin("first")]
        gate.wait_for_arrivals()
        calls.append(bound.greet.begin("after it"))
        assert RpcBindingSetOption(handle, RPC_C_OPT_BINDING_NONCAUSAL, True) == RPC_S_OK
        assert bound.greet("World") == "Hello, World!"
        assert bound.greet.begin("all").result(LIMIT) == "Hello, all!"
        assert RpcBindingSetOption(handle, RPC_C_OPT_BINDING_NONCAUSAL, False) == RPC_S_OK
        calls.append(bound.greet.begin("in its place"))
        assert not any(call.done() for call in calls)
        gate.open()
        assert [call.result(LIMIT) for call in calls] == ["Hello, first!", "Hello, after it!", "Hello, in its place!"]


class TestOthers:
    """What there is nothing to choose about."""

    def test_of_connections(self, listening: Greeter, binding: Bind) -> None:
        """Each handle has a connection of its own, and it does not linger; that can be said after a call only: 1701."""
        handle = binding()
        for value in (True, False):
            assert RpcBindingSetOption(handle, RPC_C_OPT_UNIQUE_BINDING, value) == RPC_S_OK
            assert RpcBindingSetOption(handle, RPC_C_OPT_DONT_LINGER, value) == RPC_S_WRONG_KIND_OF_BINDING
        handle.bind(Hello).greet("World")
        assert RpcBindingSetOption(handle, RPC_C_OPT_DONT_LINGER, True) == RPC_S_OK
        assert RpcBindingSetOption(handle, RPC_C_OPT_DONT_LINGER, False) == RPC_S_CANNOT_SUPPORT

    def test_statuses(self, client: Client, service: str, binding: Bind) -> None:
        """1764 for another option, 1701 for a client of another kind, 1702 for what is none; values are numbers."""
        handle = binding()
        assert RpcBindingSetOption(handle, 1, 0) == RPC_S_CANNOT_SUPPORT
        assert RpcBindingSetOption(client, RPC_C_OPT_CALL_TIMEOUT, 1) == RPC_S_WRONG_KIND_OF_BINDING
        assert client.bind(Desk).echo(1) == 1
        with Client(f"ipc://{service}") as freed:
            pass
        for wrong in ("no binding", freed):
            assert RpcBindingSetOption(wrong, RPC_C_OPT_CALL_TIMEOUT, 1) == RPC_S_INVALID_BINDING  # type: ignore[arg-type]  # wrong on purpose
        for value in (-1, 1 << 32):
            with pytest.raises(ValueError):
                RpcBindingSetOption(handle, RPC_C_OPT_CALL_TIMEOUT, value)
        with pytest.raises(TypeError):
            RpcBindingSetOption(handle, RPC_C_OPT_CALL_TIMEOUT, "soon")  # type: ignore[arg-type]  # wrong on purpose

    def test_communication_timeout(self, client: Client, service: str) -> None:
        """Any finite one is there already; 1764 for none, 1709 for another number, 1702 for what is no binding."""
        for value in (RPC_C_BINDING_MIN_TIMEOUT, RPC_C_BINDING_DEFAULT_TIMEOUT, RPC_C_BINDING_MAX_TIMEOUT):
            assert RpcMgmtSetComTimeout(client, value) == RPC_S_OK
        assert RpcMgmtSetComTimeout(client, RPC_C_BINDING_INFINITE_TIMEOUT) == RPC_S_CANNOT_SUPPORT
        for value in (-1, 11):
            assert RpcMgmtSetComTimeout(client, value) == RPC_S_INVALID_TIMEOUT
        with Client(f"ipc://{service}") as freed:
            pass
        for wrong in ("no binding", freed):
            assert RpcMgmtSetComTimeout(wrong, 5) == RPC_S_INVALID_BINDING  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(TypeError):
            RpcMgmtSetComTimeout(client, "long")  # type: ignore[arg-type]  # wrong on purpose

    def test_blocking_calls_of_a_thread(self) -> None:
        """They are not cancelled as a thread's: 1764, also where 0 would mean that they were."""
        assert RpcCancelThread(threading.current_thread()) == RPC_S_CANNOT_SUPPORT
        assert RpcCancelThreadEx(threading.current_thread(), 1) == RPC_S_CANNOT_SUPPORT
        assert RpcMgmtSetCancelTimeout(1) == RPC_S_CANNOT_SUPPORT
        assert RpcTestCancel() == RPC_S_CANNOT_SUPPORT
