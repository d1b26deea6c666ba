"""Servers and bindings by the Windows names: section 9, and the string bindings that the samples begin with."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import Client
from engine.testing import LIMIT, wait_until, wait_until_blocked
from engine.win32 import (
    RPC_ASYNC_STATE,
    RPC_C_LISTEN_MAX_CALLS_DEFAULT,
    RPC_CALL_ATTRIBUTES_V1,
    RPC_CALL_ATTRIBUTES_V2,
    RPC_S_ALREADY_LISTENING,
    RPC_S_ASYNC_CALL_PENDING,
    RPC_S_CANNOT_SUPPORT,
    RPC_S_DUPLICATE_ENDPOINT,
    RPC_S_INVALID_ARG,
    RPC_S_INVALID_BINDING,
    RPC_S_INVALID_ENDPOINT_FORMAT,
    RPC_S_INVALID_STRING_BINDING,
    RPC_S_MAX_CALLS_TOO_SMALL,
    RPC_S_NO_CALL_ACTIVE,
    RPC_S_NOT_LISTENING,
    RPC_S_OK,
    RPC_S_PROTSEQ_NOT_SUPPORTED,
    RPC_S_SERVER_TOO_BUSY,
    RPC_S_TYPE_ALREADY_REGISTERED,
    Box,
    RpcAsyncCall,
    RpcAsyncCompleteCall,
    RpcAsyncInitializeHandle,
    RpcBindingBind,
    RpcBindingFree,
    RpcBindingFromStringBinding,
    RpcBindingUnbind,
    RpcMgmtIsServerListening,
    RpcMgmtStopServerListening,
    RpcMgmtWaitServerListen,
    RpcServerInqCallAttributes,
    RpcServerListen,
    RpcServerRegisterIf,
    RpcServerTestCancel,
    RpcServerUnregisterIf,
    RpcServerUseProtseqEp,
    RpcStringBindingCompose,
    RpcStringFree,
    sizeof,
)

from .contract import Desk
from .greeter import Greeter, Hello
from .handles import call_of

ROOT = Path(__file__).resolve().parents[2]


def ended_well(*arguments: str) -> str:
    """Run Python with these arguments, which must end well and silently; return what it printed."""
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=LIMIT)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def in_a_process(*lines: str) -> str:
    """Run these few lines in a process of their own."""
    return ended_well("-c", "\n".join(["from engine.win32 import *", *lines]))


class TestProcesses:
    """Section 9.1, where a process of its own is needed: endpoints are a process's, and never taken back."""

    def test_without_an_endpoint(self) -> None:
        """Listening is 1714, and whatever needs a listening server is 1715."""
        said = in_a_process(
            "print(int(RpcServerListen(1, 10, True)), int(RpcMgmtStopServerListening(None)),",
            "      int(RpcMgmtWaitServerListen()), int(RpcMgmtIsServerListening(None)),",
            "      int(RpcMgmtInqStats(None, Box())))",
        )
        assert said.split() == ["1714", "1715", "1715", "1715", "1715"]

    def test_an_endpoint_that_is_taken(self) -> None:
        """It shows when the process listens: 1720."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            said = in_a_process(
                f"RpcServerUseProtseqEp('ncacn_ip_tcp', 0, '127.0.0.1:{taken.getsockname()[1]}', None)",
                "print(int(RpcServerListen(1, 10, True)), int(RpcMgmtIsServerListening(None)))",
            )
        assert said.split() == ["1720", "1715"]

    def test_ending_while_listening(self, tmp_path: Path) -> None:
        """A process that ends without a stop closes its server, quietly."""
        said = in_a_process(
            f"RpcServerUseProtseqEp('ncalrpc', 0, {str(tmp_path / 'left')!r}, None)",
            "print(int(RpcServerListen(1, 10, True)))",
        )
        assert said.split() == ["0"]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_forked_child(self, tmp_path: Path) -> None:
        """It begins with nothing: no endpoint, not listening; the parent's server is left alone."""
        said = ended_well("-m", "tests.win32.forked", str(tmp_path / "parent"))
        assert said.split() == ["1715", "1714", "0"]


class TestListening:
    """Section 9.1."""

    def test_the_samples_server(self, greeter: Greeter, connect: Callable[[], Any]) -> None:
        """Register, listen in the foreground, serve; a stop from elsewhere ends it, and then it may begin again."""
        for _ in range(2):
            returned: list[int] = []
            thread = threading.Thread(
                target=lambda: returned.append(RpcServerListen(1, RPC_C_LISTEN_MAX_CALLS_DEFAULT, False))  # noqa: B023  # called in this turn
            )
            thread.start()
            wait_until(lambda: RpcMgmtIsServerListening(None) == RPC_S_OK)
            assert connect().greet("World") == "Hello, World!"
            assert RpcMgmtIsServerListening(None) == RPC_S_OK
            assert RpcMgmtStopServerListening(None) == RPC_S_OK
            thread.join(LIMIT)
            assert returned == [RPC_S_OK]

    def test_limits(self, greeter: Greeter) -> None:
        """No calls at all, or fewer than threads, is 1742."""
        assert RpcServerListen(1, 0, True) == RPC_S_MAX_CALLS_TOO_SMALL
        assert RpcServerListen(5, 4, True) == RPC_S_MAX_CALLS_TOO_SMALL
        assert RpcMgmtIsServerListening(None) == RPC_S_NOT_LISTENING
        assert RpcServerListen(4, 0xFFFFFFFF, True) == RPC_S_OK

    def test_too_many_calls(self, greeter: Greeter, connect: Callable[[], Any]) -> None:
        """The call beyond the limit is refused with 1723."""
        assert RpcServerListen(1, 1, True) == RPC_S_OK
        blocked = RPC_ASYNC_STATE()
        RpcAsyncInitializeHandle(blocked, sizeof(blocked))
        hello = connect()
        RpcAsyncCall(blocked, hello.block)
        greeter.gate.wait_for_arrivals(1)
        refused = RPC_ASYNC_STATE()
        RpcAsyncInitializeHandle(refused, sizeof(refused))
        RpcAsyncCall(refused, hello.greet, "World")
        assert call_of(refused).wait(LIMIT)
        assert RpcAsyncCompleteCall(refused, None) == RPC_S_SERVER_TOO_BUSY
        assert RpcAsyncCompleteCall(blocked, None) == RPC_S_ASYNC_CALL_PENDING
        greeter.gate.open()
        assert call_of(blocked).wait(LIMIT)
        assert RpcAsyncCompleteCall(blocked, None) == RPC_S_OK

    def test_stopping_lets_running_calls_finish(self, greeter: Greeter, connect: Callable[[], Any]) -> None:
        """The wait returns after the last one; until then the process listens neither anew nor still."""
        assert RpcServerListen(1, 10, True) == RPC_S_OK
        call = connect().block.begin()
        greeter.gate.wait_for_arrivals(1)
        assert RpcMgmtStopServerListening(None) == RPC_S_OK
        assert RpcMgmtIsServerListening(None) == RpcMgmtStopServerListening(None) == RPC_S_NOT_LISTENING
        assert RpcServerListen(1, 10, True) == RPC_S_ALREADY_LISTENING
        greeter.gate.open()
        assert RpcMgmtWaitServerListen() == RPC_S_OK
        call.result(LIMIT)
        assert RpcMgmtWaitServerListen() == RPC_S_NOT_LISTENING

    def test_one_waiter(self, greeter: Greeter) -> None:
        """A second thread that waits for the stop is refused with 1713."""
        assert RpcServerListen(1, 10, True) == RPC_S_OK
        returned: list[int] = []
        thread = threading.Thread(target=lambda: returned.append(RpcMgmtWaitServerListen()))
        thread.start()
        wait_until_blocked(thread)
        assert RpcMgmtWaitServerListen() == RPC_S_ALREADY_LISTENING
        assert RpcMgmtStopServerListening(None) == RPC_S_OK
        thread.join(LIMIT)
        assert returned == [RPC_S_OK]

    def test_stopped_without_a_waiter(self, greeter: Greeter, connect: Callable[[], Any]) -> None:
        """Nobody need wait for the stop: listening again begins anew."""
        for _ in range(2):
            assert RpcServerListen(1, 10, True) == RPC_S_OK
            assert connect().greet("again") == "Hello, again!"
            assert RpcMgmtStopServerListening(None) == RPC_S_OK
            greeter.gate.open()

    def test_an_endpoint_twice(self, greeter: Greeter, endpoint: str) -> None:
        """It is 1740."""
        assert RpcServerUseProtseqEp("ipc", 0, endpoint, None) == RPC_S_DUPLICATE_ENDPOINT

    def test_a_running_server(self, service: str, client: Client) -> None:
        """In the process that listens: 0, 1713 for listening again, 1712; four counters."""
        desk = client.bind(Desk)
        desk.echo(1)
        before = desk.server()
        assert before["listening"] == RPC_S_OK
        assert before["listen again"] == RPC_S_ALREADY_LISTENING
        assert before["register again"] == RPC_S_TYPE_ALREADY_REGISTERED
        desk.echo(2)
        after = desk.server()
        calls_in, calls_out, packets_in, packets_out = (
            new - old for new, old in zip(after["counters"], before["counters"], strict=True)
        )
        assert (calls_in, calls_out) == (2, 0), "no routine has begun a call"
        assert packets_in == packets_out == 2


class TestBindings:
    """ "Binding Handles", "String Binding"."""

    def test_composing(self) -> None:
        """Protocol sequence, address and endpoint; objects and options are not known."""
        text = Box()
        assert RpcStringBindingCompose(None, "ncacn_ip_tcp", "10.0.0.1", "5555", None, text) == RPC_S_OK
        assert text.value == "ncacn_ip_tcp:10.0.0.1[5555]"
        assert RpcStringFree(text) == RPC_S_OK
        assert text.value is None
        assert RpcStringBindingCompose("id", "tcp", "h", "1", None, text) == RPC_S_CANNOT_SUPPORT  # type: ignore[arg-type]  # wrong on purpose

    @pytest.mark.parametrize(
        ("text", "status"),
        [
            ("nonsense", RPC_S_INVALID_STRING_BINDING),
            ("ncacn_np:host[pipe]", RPC_S_PROTSEQ_NOT_SUPPORTED),
            ("ncacn_ip_tcp:host[port]", RPC_S_INVALID_ENDPOINT_FORMAT),
            ("ncacn_ip_tcp:host[0]", RPC_S_INVALID_ENDPOINT_FORMAT),
        ],
    )
    def test_wrong_ones(self, text: str, status: int) -> None:
        """1700, 1703, 1706."""
        binding = Box("unset")
        assert RpcBindingFromStringBinding(text, binding) == status
        assert binding.value == "unset"

    def test_endpoints_of_servers(self) -> None:
        """The same statuses when an endpoint is to be served."""
        assert RpcServerUseProtseqEp("ncadg_ip_udp", 0, "5", None) == RPC_S_PROTSEQ_NOT_SUPPORTED
        assert RpcServerUseProtseqEp("ncacn_ip_tcp", 0, "http", None) == RPC_S_INVALID_ENDPOINT_FORMAT

    def test_freeing(self) -> None:
        """A handle is freed once: 1702 after that."""
        binding = Box()
        assert RpcBindingFromStringBinding("ncacn_ip_tcp:[5555]", binding) == RPC_S_OK
        client = binding.value
        assert client.endpoint == "tcp://127.0.0.1:5555"
        assert RpcBindingBind(None, client, Hello) == RpcBindingUnbind(client) == RPC_S_CANNOT_SUPPORT
        assert RpcBindingFree(binding) == RPC_S_OK
        assert binding.value is None
        assert RpcBindingFree(binding) == RpcBindingFree(Box(client)) == RPC_S_INVALID_BINDING


class TestCallAttributes:
    """3.8 and 3.10: what is wrong with the question."""

    def test_no_call(self) -> None:
        """1725 where no call is served, 1702 for what is no call."""
        assert RpcServerTestCancel(None) == RPC_S_NO_CALL_ACTIVE
        assert RpcServerTestCancel("no call") == RPC_S_INVALID_BINDING  # type: ignore[arg-type]  # wrong on purpose
        assert RpcServerInqCallAttributes(None, RPC_CALL_ATTRIBUTES_V2()) == RPC_S_NO_CALL_ACTIVE

    def test_wrong_questions(self, greeter: Greeter, connect: Callable[[], Any]) -> None:
        """87 for a version that does not exist or is not the structure's, unknown flags, a length without a box."""
        seen: list[int] = []

        def ask(name: str) -> str:
            for make, field, value in (
                (RPC_CALL_ATTRIBUTES_V2, "Version", 3),
                (RPC_CALL_ATTRIBUTES_V1, "Version", 2),
                (RPC_CALL_ATTRIBUTES_V1, "Flags", 0x10),
                (RPC_CALL_ATTRIBUTES_V2, "Flags", 0x100),
                (RPC_CALL_ATTRIBUTES_V2, "ClientPrincipalNameBufferLength", 10),
                (RPC_CALL_ATTRIBUTES_V1, "Flags", 0x06),
            ):
                attributes = make()
                setattr(attributes, field, value)
                seen.append(RpcServerInqCallAttributes(None, attributes))
            return name

        greeter.greet = ask  # type: ignore[method-assign]  # the test's own
        assert RpcServerUnregisterIf(Hello, None, True) == RPC_S_OK
        assert RpcServerRegisterIf(Hello, None, greeter) == RPC_S_OK
        assert RpcServerListen(1, 10, True) == RPC_S_OK
        connect().greet("World")
        assert seen == [RPC_S_INVALID_ARG] * 5 + [RPC_S_OK]
