"""Registering interfaces by the Windows names: section 9.2."""

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine import AccessDenied, Client, Context, ServerCall, ServerTooBusy, UnknownInterface, current_call
from engine.testing import LIMIT, wait_until_blocked
from engine.win32 import (
    RPC_C_AUTHN_LEVEL_NONE,
    RPC_C_AUTHN_LEVEL_PKT_PRIVACY,
    RPC_C_LISTEN_MAX_CALLS_DEFAULT,
    RPC_CALL_ATTRIBUTES_V2,
    RPC_IF_ALLOW_CALLBACKS_WITH_NO_AUTH,
    RPC_IF_ALLOW_LOCAL_ONLY,
    RPC_IF_ALLOW_SECURE_ONLY,
    RPC_IF_AUTOLISTEN,
    RPC_IF_SEC_NO_CACHE,
    RPC_S_ACCESS_DENIED,
    RPC_S_CANNOT_SUPPORT,
    RPC_S_INVALID_ARG,
    RPC_S_MAX_CALLS_TOO_SMALL,
    RPC_S_NOT_LISTENING,
    RPC_S_OK,
    RPC_S_TYPE_ALREADY_REGISTERED,
    RPC_S_UNKNOWN_IF,
    Box,
    RpcBindingFree,
    RpcBindingFromStringBinding,
    RpcMgmtIsServerListening,
    RpcMgmtStopServerListening,
    RpcMgmtWaitServerListen,
    RpcServerInqCallAttributes,
    RpcServerListen,
    RpcServerRegisterIf,
    RpcServerRegisterIf2,
    RpcServerRegisterIf3,
    RpcServerRegisterIfEx,
    RpcServerUnregisterIf,
    RpcServerUnregisterIfEx,
    RpcServerUseProtseqEp,
)

from .contract import Desk
from .greeter import Greeter, Hello

ANY_SIZE = 0xFFFFFFFF
MANY = RPC_C_LISTEN_MAX_CALLS_DEFAULT
_tcp: list[str] = []

Bind = Callable[[], Client]


@pytest.fixture
def unregistered(quiet: None) -> Iterator[Greeter]:
    """An implementation that nobody has registered yet; it is unregistered afterwards, whatever its flags."""
    made = Greeter()
    yield made
    made.gate.open()
    RpcServerUnregisterIf(Hello, None, True)


@pytest.fixture
def over_tcp(endpoint: str) -> Iterator[Callable[[], Any]]:
    """A function that makes a binding over plain tcp; call it when the process listens. Use it before that."""
    if not _tcp:
        with socket.create_server(("127.0.0.1", 0)) as free:
            _tcp.append(f"127.0.0.1:{free.getsockname()[1]}")
        assert RpcServerUseProtseqEp("ncacn_ip_tcp", 0, _tcp[0], None) == RPC_S_OK
    box = Box()

    def connect() -> Any:
        host, port = _tcp[0].split(":")
        assert RpcBindingFromStringBinding(f"ncacn_ip_tcp:{host}[{port}]", box) == RPC_S_OK
        return box.value.bind(Hello)

    yield connect
    RpcBindingFree(box)


def listen() -> None:
    assert RpcServerListen(1, MANY, True) == RPC_S_OK


class Judge:
    """A security callback that returns a status, and notes what it learnt of its callers."""

    def __init__(self, *verdicts: Any) -> None:
        self.seen: list[RPC_CALL_ATTRIBUTES_V2] = []
        self._verdicts = list(verdicts)

    def __call__(self, interface: object, binding: ServerCall) -> Any:
        assert interface is Hello
        attributes = RPC_CALL_ATTRIBUTES_V2()
        assert RpcServerInqCallAttributes(binding, attributes) == RPC_S_OK
        assert RpcServerInqCallAttributes(None, attributes) == RPC_S_OK, "it runs on the dispatch thread"
        self.seen.append(attributes)
        return self._verdicts.pop(0) if len(self._verdicts) > 1 else self._verdicts[0]


class TestRegistering:
    """ "RpcServerRegisterIf"."""

    def test_while_listening(self, greeter: Greeter, connect: Callable[[], Any]) -> None:
        """Interfaces come and go while the process listens."""
        listen()
        hello = connect()
        assert RpcServerUnregisterIf(Hello, None, False) == RPC_S_OK
        with pytest.raises(UnknownInterface):
            hello.greet("nobody")
        assert RpcServerRegisterIfEx(Hello, None, greeter, 0, 10, None) == RPC_S_OK
        assert hello.greet("World") == "Hello, World!"

    def test_statuses(self, greeter: Greeter) -> None:
        """1712 for a second manager, 1717 for an unknown interface, 87 for one that does not fit."""
        assert RpcServerRegisterIf(Hello, None, greeter) == RPC_S_TYPE_ALREADY_REGISTERED
        assert RpcServerUnregisterIf(Desk, None, False) == RPC_S_UNKNOWN_IF
        assert RpcServerRegisterIf(Desk, None, object()) == RPC_S_INVALID_ARG
        assert RpcServerRegisterIf(Desk, None, None) == RPC_S_INVALID_ARG
        assert RpcServerUnregisterIf("unknown", None, False) == RPC_S_UNKNOWN_IF
        assert RpcServerUnregisterIfEx(Desk, None, True) == RPC_S_UNKNOWN_IF
        with pytest.raises(TypeError):
            RpcServerRegisterIf(5, None, greeter)  # type: ignore[arg-type]  # wrong on purpose

    def test_what_is_absent(self, unregistered: Greeter) -> None:
        """Managers by type, other flags and security descriptors: 1764, and nothing is registered."""
        nil: Any = "a type"
        greeter = unregistered
        assert RpcServerRegisterIf(Hello, nil, greeter) == RPC_S_CANNOT_SUPPORT
        assert RpcServerRegisterIf2(Hello, nil, greeter, 0, 10, 10, None) == RPC_S_CANNOT_SUPPORT
        assert RpcServerRegisterIfEx(Hello, None, greeter, 0x02, 10, None) == RPC_S_CANNOT_SUPPORT
        assert RpcServerRegisterIf3(Hello, None, greeter, 0, 10, 10, None, nil) == RPC_S_CANNOT_SUPPORT
        assert RpcServerUseProtseqEp("ipc", 0, "unused", nil) == RPC_S_CANNOT_SUPPORT
        assert RpcServerUnregisterIf(Hello, None, False) == RPC_S_UNKNOWN_IF
        assert RpcServerUnregisterIf(Hello, nil, False) == RPC_S_CANNOT_SUPPORT

    def test_a_callback_that_is_none(self, unregistered: Greeter) -> None:
        """87, and nothing is registered."""
        assert RpcServerRegisterIfEx(Hello, None, unregistered, 0, 10, 5) == RPC_S_INVALID_ARG  # type: ignore[arg-type]  # wrong on purpose
        assert RpcServerRegisterIf(Hello, None, unregistered) == RPC_S_OK


class TestUnregistering:
    """ "RpcServerUnregisterIf", "RpcServerUnregisterIfEx"."""

    def test_waiting(self, greeter: Greeter, connect: Callable[[], Any]) -> None:
        """Told to wait it returns with the last running call, and new ones are refused meanwhile."""
        listen()
        hello = connect()
        call = hello.block.begin()
        greeter.gate.wait_for_arrivals(1)
        returned: list[int] = []
        thread = threading.Thread(target=lambda: returned.append(RpcServerUnregisterIf(Hello, None, True)))
        thread.start()
        wait_until_blocked(thread)
        with pytest.raises(UnknownInterface):
            hello.greet("nobody")
        assert not returned
        greeter.gate.open()
        thread.join(LIMIT)
        assert returned == [RPC_S_OK]
        call.result(LIMIT)

    def test_not_waiting(self, greeter: Greeter, connect: Callable[[], Any]) -> None:
        """Otherwise it returns at once, and the running call is answered."""
        listen()
        call = connect().block.begin()
        greeter.gate.wait_for_arrivals(1)
        assert RpcServerUnregisterIf(None, None, False) == RPC_S_OK
        assert not call.done()
        greeter.gate.open()
        call.result(LIMIT)

    def test_in_its_own_routine(self, unregistered: Greeter, connect: Callable[[], Any]) -> None:
        """A routine that would wait for its own end gets 1131; its interface is served as before."""
        unregistered.greet = lambda name: str(int(RpcServerUnregisterIf(Hello, None, True)))  # type: ignore[method-assign]  # the test's own
        assert RpcServerRegisterIf(Hello, None, unregistered) == RPC_S_OK
        listen()
        hello = connect()
        assert [hello.greet("first"), hello.greet("again")] == ["1131", "1131"]
        assert RpcServerUnregisterIf(Hello, None, True) == RPC_S_OK

    @pytest.mark.parametrize("rundown", (0, 1))
    def test_rundown(self, quiet: None, binding: Bind, rundown: int) -> None:
        """Context handles are run down with their interface if that is asked for."""
        gone: list[str] = []

        class Files:
            def open(self, name: str) -> Context[str]:
                return current_call().open_context(name, gone.append)

        assert RpcServerRegisterIf("files", None, Files()) == RPC_S_OK
        listen()
        assert binding().bind("files").open("one") is not None
        assert RpcServerUnregisterIfEx("files", None, rundown) == RPC_S_OK
        assert gone == ["one"] * rundown


class TestAutoListen:
    """ "Interface Registration Flags": RPC_IF_AUTOLISTEN."""

    def test_life(self, unregistered: Greeter, connect: Callable[[], Any]) -> None:
        """Served from registration to unregistration, whether the process listens or not."""
        assert RpcServerRegisterIfEx(Hello, None, unregistered, RPC_IF_AUTOLISTEN, MANY, None) == RPC_S_OK
        assert RpcMgmtIsServerListening(None) == RPC_S_NOT_LISTENING, "it says nothing of such interfaces"
        hello = connect()
        assert hello.greet("World") == "Hello, World!"
        listen()
        assert hello.greet("again") == "Hello, again!"
        assert RpcMgmtStopServerListening(None) == RPC_S_OK
        assert RpcMgmtWaitServerListen() == RPC_S_OK
        assert RpcServerUnregisterIf(None, None, True) == RPC_S_OK
        assert hello.greet("still") == "Hello, still!", "all interfaces are all but these"
        assert RpcServerUnregisterIf(Hello, None, False) == RPC_S_OK
        with pytest.raises(UnknownInterface):
            hello.greet("nobody")

    def test_limit(self, unregistered: Greeter, connect: Callable[[], Any]) -> None:
        """It has a limit of its own: 1723 beyond it, 1742 for none at all."""
        flags = RPC_IF_AUTOLISTEN
        assert RpcServerRegisterIfEx(Hello, None, unregistered, flags, 0, None) == RPC_S_MAX_CALLS_TOO_SMALL
        assert RpcServerRegisterIfEx(Hello, None, unregistered, flags, 1, None) == RPC_S_OK
        hello = connect()
        call = hello.block.begin()
        unregistered.gate.wait_for_arrivals(1)
        with pytest.raises(ServerTooBusy):
            hello.greet("too many")
        unregistered.gate.open()
        call.result(LIMIT)

    def test_limit_of_others(self, unregistered: Greeter, connect: Callable[[], Any]) -> None:
        """The limit of any other interface is not looked at."""
        assert RpcServerRegisterIfEx(Hello, None, unregistered, 0, 0, None) == RPC_S_OK
        listen()
        assert connect().greet("World") == "Hello, World!"

    def test_an_endpoint_more(
        self, unregistered: Greeter, over_tcp: Callable[[], Any], connect: Callable[[], Any]
    ) -> None:
        """It is reached on all endpoints of the process."""
        assert RpcServerRegisterIfEx(Hello, None, unregistered, RPC_IF_AUTOLISTEN, MANY, None) == RPC_S_OK
        assert connect().greet("ipc") == "Hello, ipc!"
        assert over_tcp().greet("tcp") == "Hello, tcp!"

    def test_an_endpoint_added_later(self, unregistered: Greeter, connect: Callable[[], Any], path: str) -> None:
        """An endpoint that comes later is served from the next listening on, with the conditions as they were."""
        judge = Judge(RPC_S_OK)
        assert RpcServerRegisterIfEx(Hello, None, unregistered, RPC_IF_AUTOLISTEN, MANY, judge) == RPC_S_OK
        hello = connect()
        assert hello.greet("before") == "Hello, before!"
        assert RpcServerUseProtseqEp("ncalrpc", 0, f"{path}-later", None) == RPC_S_OK
        listen()
        with Client(f"ipc://{path}-later") as later:
            assert later.bind(Hello).greet("there") == "Hello, there!"
        assert connect().greet("here") == "Hello, here!"
        assert len(judge.seen) == 3


class TestSecurity:
    """ "RPC_IF_CALLBACK_FN", "Interface Registration Flags"."""

    def test_zero_admits(self, unregistered: Greeter, connect: Callable[[], Any]) -> None:
        """0 admits; it is asked once a connection, and knows who calls."""
        judge = Judge(RPC_S_OK)
        assert RpcServerRegisterIfEx(Hello, None, unregistered, 0, MANY, judge) == RPC_S_OK
        listen()
        hello = connect()
        assert [hello.greet("a"), hello.greet("b")] == ["Hello, a!", "Hello, b!"]
        assert connect().greet("c") == "Hello, c!"
        assert [seen.AuthenticationLevel for seen in judge.seen] == [RPC_C_AUTHN_LEVEL_PKT_PRIVACY] * 2
        assert judge.seen[0].OpNum == "greet"

    @pytest.mark.parametrize("verdict", (RPC_S_ACCESS_DENIED, 1, -1, None, "0", True, False))
    def test_others_refuse(self, unregistered: Greeter, connect: Callable[[], Any], verdict: Any) -> None:
        """Anything else refuses with 5, whatever it is; a truth value too, of which one is equal to 0."""
        assert RpcServerRegisterIfEx(Hello, None, unregistered, 0, MANY, Judge(verdict)) == RPC_S_OK
        listen()
        with pytest.raises(AccessDenied) as caught:
            connect().greet("nobody")
        assert caught.value.status == RPC_S_ACCESS_DENIED

    def test_no_cache(self, unregistered: Greeter, connect: Callable[[], Any]) -> None:
        """With RPC_IF_SEC_NO_CACHE it is asked for each call."""
        judge = Judge(0, RPC_S_ACCESS_DENIED, 0)
        assert RpcServerRegisterIfEx(Hello, None, unregistered, RPC_IF_SEC_NO_CACHE, MANY, judge) == RPC_S_OK
        listen()
        hello = connect()
        assert hello.greet("a") == "Hello, a!"
        with pytest.raises(AccessDenied):
            hello.greet("b")
        assert hello.greet("c") == "Hello, c!"

    def test_before_the_callback(self, unregistered: Greeter, over_tcp: Callable[[], Any]) -> None:
        """An interface with a callback refuses callers without authentication before it is asked."""
        judge = Judge(RPC_S_OK)
        assert RpcServerRegisterIfEx(Hello, None, unregistered, 0, MANY, judge) == RPC_S_OK
        listen()
        with pytest.raises(AccessDenied):
            over_tcp().greet("nobody")
        assert not judge.seen

    def test_no_auth(self, unregistered: Greeter, over_tcp: Callable[[], Any]) -> None:
        """With RPC_IF_ALLOW_CALLBACKS_WITH_NO_AUTH it is asked about them as well."""
        judge, flags = Judge(RPC_S_OK), RPC_IF_ALLOW_CALLBACKS_WITH_NO_AUTH
        assert RpcServerRegisterIfEx(Hello, None, unregistered, flags, MANY, judge) == RPC_S_OK
        listen()
        assert over_tcp().greet("World") == "Hello, World!"
        assert [seen.AuthenticationLevel for seen in judge.seen] == [RPC_C_AUTHN_LEVEL_NONE]

    def test_secure_only(self, unregistered: Greeter, over_tcp: Callable[[], Any], connect: Callable[[], Any]) -> None:
        """With RPC_IF_ALLOW_SECURE_ONLY callers without authentication get 5; a local transport is always private."""
        assert RpcServerRegisterIfEx(Hello, None, unregistered, RPC_IF_ALLOW_SECURE_ONLY, MANY, None) == RPC_S_OK
        listen()
        with pytest.raises(AccessDenied):
            over_tcp().greet("nobody")
        assert connect().greet("World") == "Hello, World!"

    def test_local_only(self, unregistered: Greeter, over_tcp: Callable[[], Any]) -> None:
        """With RPC_IF_ALLOW_LOCAL_ONLY callers on this machine pass."""
        assert RpcServerRegisterIfEx(Hello, None, unregistered, RPC_IF_ALLOW_LOCAL_ONLY, MANY, None) == RPC_S_OK
        listen()
        assert over_tcp().greet("World") == "Hello, World!"

    def test_size(self, unregistered: Greeter, connect: Callable[[], Any]) -> None:
        """Larger requests than `MaxRpcSize` get 5."""
        assert RpcServerRegisterIf2(Hello, None, unregistered, 0, MANY, 100, None) == RPC_S_OK
        listen()
        hello = connect()
        assert hello.greet("x" * 80) == f"Hello, {'x' * 80}!"
        with pytest.raises(AccessDenied):
            hello.greet("x" * 101)

    def test_any_size(self, unregistered: Greeter, connect: Callable[[], Any]) -> None:
        """0xFFFFFFFF is no limit."""
        assert RpcServerRegisterIf3(Hello, None, unregistered, 0, MANY, ANY_SIZE, None, None) == RPC_S_OK
        listen()
        assert len(connect().greet("x" * 100_000)) > 100_000
