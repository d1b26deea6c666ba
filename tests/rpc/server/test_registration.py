"""Which interfaces a server serves, "Registering Interfaces", section 9.2; and on what conditions: who may call, how
large, how many at once, and when they listen.
"""

import functools
import pkgutil
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from engine import (
    AccessDenied,
    CallAttributes,
    Client,
    Deadlock,
    EngineError,
    Interface,
    InvalidArgumentType,
    InvalidParameter,
    InvalidState,
    Management,
    Misuse,
    RemoteFault,
    Server,
    ServerCall,
    ServerTooBusy,
    ServerUnavailable,
    UnknownInterface,
    UnknownOperation,
    current_call,
    manager,
    operation,
)
from engine.testing import LIMIT, wait_until, wait_until_blocked
from tests.certificates import for_client, for_server

from ..helpers import ROOT, Bench, Service, status_of
from ..interfaces import Adder
from ..service import Adding
from .conftest import SERVICE, Watched
from .interfaces import Watch

Servers = Callable[..., Server]
Clients = Callable[..., Client]


class Routines:
    """Holds calls, and answers others."""

    def __init__(self) -> None:
        self.held: list[ServerCall] = []

    @manager
    def hold(self, call: ServerCall) -> None:
        self.held.append(call)

    def echo(self, value: Any = None) -> Any:
        return value


class Judge:
    """A security callback that notes whom it was asked about."""

    def __init__(self, *verdicts: Any) -> None:
        self.asked: list[CallAttributes] = []
        self.threads: set[str] = set()
        self._verdicts = list(verdicts)

    def __call__(self, attributes: CallAttributes) -> Any:
        self.asked.append(attributes)
        self.threads.add(threading.current_thread().name)
        verdict = self._verdicts.pop(0) if len(self._verdicts) > 1 else self._verdicts[0]
        if isinstance(verdict, Exception):
            raise verdict
        return verdict


def held(client: Client, routines: Routines, interface: str = "r") -> Any:
    """Begin a call and return it when its routine has it."""
    before = len(routines.held)
    call = client.bind(interface).hold.begin()
    wait_until(lambda: len(routines.held) > before)
    return call


class TestRegistering:
    """9.2: interfaces."""

    def test_before_and_while_listening(self, endpoint: str) -> None:
        """Interfaces may be registered before and while the server listens."""
        with Server(endpoint) as server, Client(endpoint) as client:
            server.listen()
            adder = client.bind(Adder)
            assert status_of(lambda: adder.add(1, 1)) == 1717
            server.register(Adder, Adding())
            assert adder.add(1, 1) == 2

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_manager_routines_that_yield(self, server: Server, asynchronous: bool) -> None:
        """A manager routine of which calling it would run nothing, so that nobody would answer, is refused by name as
        behind a contract, with what to do.
        """

        class Yielding:
            if asynchronous:

                @manager
                async def ask(self, call: ServerCall) -> AsyncIterator[int]:
                    yield 1

            else:

                @manager
                def ask(self, call: ServerCall) -> Iterator[int]:  # type: ignore[misc]  # one or the other
                    yield 1

        class Asked(Interface, id="test.Asked"):
            def ask(self) -> int: ...

        for interface in ("test.Asked", Asked):
            with pytest.raises(InvalidParameter, match="routine ask has a `yield`.*handle"):
                server.register(interface, Yielding())

    def test_twice(self, server: Server) -> None:
        """An interface that is registered already is refused with 1711."""
        with pytest.raises(Misuse) as raised:
            server.register(Adder, Adding())
        assert raised.value.status == 1711

    def test_unknown_interface(self, bench: Bench) -> None:
        """A call of an interface that the server does not have ends with 1717, naming it."""
        with pytest.raises(UnknownInterface, match="test.Adder"):
            bench.client.bind(Adder).add(1, 1)
        with pytest.raises(UnknownInterface, match="nowhere"):
            bench.client.bind("nowhere").anything()
        assert bench.probe.echo("alive") == "alive"

    def test_unknown_operation(self, bench: Bench) -> None:
        """A call of an operation that the interface does not have ends with 1745, naming it."""
        with pytest.raises(UnknownOperation, match="missing"):
            bench.client.bind("test.Probe").missing()

        class Newer(Interface, id="test.Probe", version=(1, 0)):
            @operation
            def added_later(self) -> None:
                """Unknown to the service."""

        with pytest.raises(UnknownOperation, match="added_later"):
            bench.client.bind(Newer).added_later()

    @pytest.mark.parametrize(
        ("version", "served"),
        [((2, 3), True), ((2, 0), True), ((2, 4), False), ((1, 3), False), ((3, 0), False)],
    )
    def test_versions(self, server: Server, endpoint: str, version: tuple[int, int], served: bool) -> None:
        """A server serves its own major version, up to its own minor version."""
        server.listen()

        class Other(Interface, id="test.Adder", version=version):
            @operation
            def add(self, left: int, right: int) -> int:
                """Return the sum."""

        with Client(endpoint) as client:
            if served:
                assert client.bind(Other).add(1, 2) == 3
            else:
                with pytest.raises(UnknownInterface, match="2.3"):
                    client.bind(Other).add(1, 2)

    def test_two_major_versions(self, server: Server, endpoint: str) -> None:
        """Two major versions of an interface may be served side by side, and are unregistered one by one."""

        class Third(Interface, id="test.Adder", version=(3, 0)):
            @operation
            def add(self, left: str, right: str) -> str:
                """Return the texts joined."""

        class Joining:
            def add(self, left: str, right: str) -> str:
                return left + right

        server.register(Third, Joining())
        server.listen()
        with Client(endpoint) as client:
            assert (client.bind(Adder).add(1, 2), client.bind(Third).add("1", "2")) == (3, "12")
            server.unregister(Adder)
            assert status_of(lambda: client.bind(Adder).add(1, 2)) == 1717
            assert client.bind(Third).add("1", "2") == "12"

    def test_an_implementation_that_lacks_a_routine(self, server: Server) -> None:
        """An implementation without a routine for each operation is refused, naming the routine."""
        server.unregister(Adder)
        with pytest.raises(InvalidParameter, match="add"):
            server.register(Adder, object())

    def test_a_routine_with_other_parameters(self, server: Server) -> None:
        """A routine that cannot take the operation's parameters is refused, naming them."""
        server.unregister(Adder)

        class TooFew:
            def add(self, left: int) -> int:
                return left

        class NoHandle:
            @manager
            def add(self, left: int, right: int) -> None:
                """Has no room for the handle."""

        for bad in (TooFew(), NoHandle()):
            with pytest.raises(InvalidParameter, match="left"):
                server.register(Adder, bad)

    @pytest.mark.parametrize("interface", [3, "", None, int])
    def test_an_interface_that_is_none(self, server: Server, interface: Any) -> None:
        """Something that is no interface is refused."""
        with pytest.raises(EngineError, match="interface"):
            server.register(interface, Adding())

    def test_by_name(self, endpoint: str) -> None:
        """An object may be served without a contract: its public methods take and return plain values."""

        class Plain:
            def greet(self, name: str, *others: str) -> str:
                return " ".join(["hello", name, *others])

            def _hidden(self) -> str:
                return "hidden"

        with Server(endpoint) as server, Client(endpoint) as client:
            server.register("greeter", Plain())
            server.listen()
            greeter = client.bind("greeter")
            assert greeter.greet("you") == "hello you"
            assert greeter.greet.begin("you", "and you").result(LIMIT) == "hello you and you"
            with pytest.raises(AttributeError):
                greeter._hidden  # noqa: B018  # looking is what raises
            with pytest.raises(RemoteFault, match="TypeError"):
                greeter.greet()
            with pytest.raises(UnknownOperation):
                greeter.leave()

    def test_a_contract_by_name(self, bench: Bench) -> None:
        """A typed interface can be called by name, in whatever version it is served."""
        assert bench.client.bind("test.Probe").add(1, 2) == 3
        assert bench.client.bind("test.Probe").add(5) == 15


class TestAutoListen:
    """Source: "Interface Registration Flags", auto-listen."""

    def test_served_without_listening(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """It is served from its registration on, though the server does not listen; others are not."""
        server = servers(endpoint)
        server.register("plain", Routines())
        server.register("auto", Routines(), auto_listen=True)
        assert not server.listening
        client = clients(endpoint)
        assert client.bind("auto").echo(1) == 1
        with pytest.raises(ServerUnavailable):
            client.bind("plain").echo(1)

    def test_listen_and_stop_change_nothing(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """It is served before, during and after listening."""
        server = servers(endpoint)
        server.register("auto", Routines(), auto_listen=True)
        server.register("plain", Routines())
        client = clients(endpoint)
        auto, plain = client.bind("auto"), client.bind("plain")
        for _ in range(2):
            assert auto.echo(1) == 1
            server.listen()
            assert (auto.echo(2), plain.echo(2)) == (2, 2)
            server.stop()
            assert server.wait(LIMIT)
            assert auto.echo(3) == 3
            with pytest.raises(ServerUnavailable):
                plain.echo(3)

    def test_stop_does_not_wait_for_it(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """A stop is complete while such calls run; closing waits for them."""
        server, routines = servers(endpoint), Routines()
        server.register("auto", routines, auto_listen=True)
        server.listen()
        call = held(clients(endpoint), routines, "auto")
        server.stop()
        assert server.wait(LIMIT)
        closing = threading.Thread(target=server.close, args=(LIMIT,))
        closing.start()
        wait_until_blocked(closing)
        routines.held[0].complete("answered")
        closing.join(LIMIT)
        assert call.result(LIMIT) == "answered"

    def test_stop_just_before_one(
        self, servers: Servers, clients: Clients, endpoint: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nor does a stop wait for one that arrives in the moment of the stop."""
        server, routines = servers(endpoint), Routines()
        server.register("auto", routines, auto_listen=True)
        server.listen()
        enter = pkgutil.resolve_name("engine.rpc.server.admission:Admission.enter")

        def stop_first(admission: Any, policy: Any) -> Any:
            server.stop()
            return enter(admission, policy)

        monkeypatch.setattr("engine.rpc.server.admission.Admission.enter", stop_first)
        call = held(clients(endpoint), routines, "auto")
        assert server.wait(LIMIT)
        routines.held[0].complete("answered")
        assert call.result(LIMIT) == "answered"

    def test_own_limit(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """It has a limit of its own; the server's does not apply to it."""
        server, routines = servers(endpoint, max_calls=1), Routines()
        server.register("auto", routines, auto_listen=True, max_calls=2)
        server.register("plain", routines)
        server.listen()
        client = clients(endpoint)
        calls = [held(client, routines, "auto"), held(client, routines, "auto"), held(client, routines, "plain")]
        for name in ("auto", "plain"):
            with pytest.raises(ServerTooBusy):
                client.bind(name).echo()
        for call in routines.held:
            call.complete("done")
        assert [call.result(LIMIT) for call in calls] == ["done"] * 3
        assert client.bind("auto").echo(1) == 1
        assert client.bind("plain").echo(1) == 1
        assert server.statistics().refused == 2

    def test_limit_of_others_is_ignored(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """For an interface that does not listen by itself the argument is ignored, but checked."""
        server, routines = servers(endpoint), Routines()
        server.register("r", routines, max_calls=1)
        server.listen()
        client = clients(endpoint)
        held(client, routines)
        held(client, routines)
        with pytest.raises(Misuse) as caught:
            server.register("other", routines, max_calls=0)
        assert caught.value.status == 1742

    def test_unregistering_waits(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """Unregistering it always waits for its calls."""
        server, routines = servers(endpoint), Routines()
        server.register("auto", routines, auto_listen=True)
        client = clients(endpoint)
        call = held(client, routines, "auto")
        over = threading.Event()
        thread = threading.Thread(target=lambda: (server.unregister("auto"), over.set()))
        thread.start()
        with pytest.raises(UnknownInterface):
            while True:  # Until the registration is gone.
                client.bind("auto").echo()
        assert not over.is_set()
        routines.held[0].complete(1)
        assert over.wait(LIMIT)
        thread.join(LIMIT)
        assert call.result(LIMIT) == 1

    def test_endpoint_taken(self, servers: Servers, endpoint: str) -> None:
        """If an endpoint cannot be bound, nothing is registered."""
        first, second = servers(endpoint), servers(endpoint)
        first.register("auto", Routines(), auto_listen=True)
        with pytest.raises(Exception, match="cannot bind"):
            second.register("auto", Routines(), auto_listen=True)
        with pytest.raises(Misuse):
            second.unregister("auto")


class TestUnregister:
    """Source: "RpcServerUnregisterIf"."""

    def test_running_calls_go_on(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """New calls are refused; running ones go on, and nothing waits for them."""
        server, routines = servers(endpoint), Routines()
        server.register("r", routines)
        server.listen()
        client = clients(endpoint)
        call = held(client, routines)
        server.unregister("r")
        with pytest.raises(UnknownInterface, match="'r'"):
            client.bind("r").echo()
        routines.held[0].complete(1)
        assert call.result(LIMIT) == 1

    def test_wait(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """With `wait` it returns when the last running call is closed, calls of clients that are gone included."""
        server, routines = servers(endpoint), Routines()
        server.register("r", routines)
        server.register("other", routines)
        server.listen()
        staying, leaving = clients(endpoint), clients(endpoint)
        held(staying, routines)
        held(leaving, routines)
        held(staying, routines, "other")
        leaving.close()
        wait_until(routines.held[1].disconnected)
        over = threading.Event()
        thread = threading.Thread(target=lambda: (server.unregister("r", wait=True), over.set()))
        thread.start()
        with pytest.raises(UnknownInterface):
            while True:
                staying.bind("r").echo()
        routines.held[0].complete(1)
        assert not over.is_set()
        routines.held[1].abort(1)
        assert over.wait(LIMIT), "it does not wait for the other interface"
        thread.join(LIMIT)

    def test_all(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """None stands for all interfaces but those that listen by themselves."""
        server = servers(endpoint)
        for name in ("one", "two"):
            server.register(name, Routines())
        server.register("auto", Routines(), auto_listen=True)
        server.listen()
        server.unregister()
        client = clients(endpoint)
        for name in ("one", "two"):
            with pytest.raises(UnknownInterface):
                client.bind(name).echo()
        assert client.bind("auto").echo(1) == 1
        server.unregister(wait=True)

    def test_unknown(self, servers: Servers, endpoint: str) -> None:
        """What is not registered has the status 1717; what was unregistered can be registered again."""
        server = servers(endpoint)
        server.register("r", Routines())
        server.unregister("r")
        with pytest.raises(Misuse) as caught:
            server.unregister("r")
        assert caught.value.status == 1717
        server.register("r", Routines())

    def test_from_its_own_routine(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """A routine cannot wait for its own end: it is told so, and nothing is unregistered."""
        server = servers(endpoint)

        class Own:
            def end(self, wait: bool) -> int:
                try:
                    server.unregister("own", wait=wait)
                except Deadlock as error:
                    return int(error.status)
                return 0

        server.register("own", Own())
        server.listen()
        own = clients(endpoint).bind("own")
        assert own.end(True) == 1131
        assert own.end(False) == 0
        with pytest.raises(UnknownInterface):
            own.end(False)


class TestSecurity:
    """Source: "RPC_IF_CALLBACK_FN", "Interface Registration Flags"."""

    @pytest.mark.parametrize("verdict", (False, None, 0, 1, 5, "yes", ValueError("cannot tell")))
    def test_refused(self, servers: Servers, clients: Clients, endpoint: str, verdict: Any) -> None:
        """Anything but True refuses, with the status 5, whatever it was; the routine is not entered."""
        server, routines = servers(endpoint), Routines()
        server.register("r", routines, security=Judge(verdict))
        server.listen()
        with pytest.raises(AccessDenied) as caught:
            clients(endpoint).bind("r").hold()
        assert caught.value.status == 5
        assert not routines.held

    def test_asked_once_a_client(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """The verdict is kept for each client and interface."""
        server, judge, other = servers(endpoint), Judge(True), Judge(True)
        server.register("r", Routines(), security=judge)
        server.register("other", Routines(), security=other)
        server.listen()
        for _ in range(2):
            client = clients(endpoint)
            for number in range(5):
                assert client.bind("r").echo(number) == number
            client.bind("other").echo()
        assert (len(judge.asked), len(other.asked)) == (2, 2)
        assert judge.asked[0].interface == "r" and judge.asked[0].operation == "echo"

    def test_refusal_is_kept(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """So is a refusal; one that came of an exception is not."""
        server, judge = servers(endpoint), Judge(ValueError("not now"), False, True)
        server.register("r", Routines(), security=judge)
        server.listen()
        binding = clients(endpoint).bind("r")
        for _ in range(3):
            with pytest.raises(AccessDenied):
                binding.echo()
        assert len(judge.asked) == 2

    def test_no_cache(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """With `no_cache` it is asked for each call."""
        server, judge = servers(endpoint), Judge(True, False, True)
        server.register("r", Routines(), security=judge, no_cache=True)
        server.listen()
        binding = clients(endpoint).bind("r")
        assert binding.echo(1) == 1
        with pytest.raises(AccessDenied):
            binding.echo(2)
        assert binding.echo(3) == 3
        assert len(judge.asked) == 3

    def test_on_the_pool(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """It runs on a worker, and sees who calls."""
        server, judge = servers(endpoint, name="guarded"), Judge(True)
        server.register("r", Routines(), security=judge)
        server.listen()
        clients(endpoint, metadata={"team": "blue"}).bind("r").echo(metadata={"trace": "1"})
        assert all("guarded" in name for name in judge.threads)
        assert judge.asked[0].metadata == {"team": "blue", "trace": "1"}

    def test_asks_of_its_call(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """In it `current_call()` is the call that it is asked about; afterwards nobody is served on that thread."""
        server, seen = servers(endpoint, workers=1), []

        def judge(attributes: CallAttributes) -> bool:
            seen.append((current_call().attributes() == attributes, current_call().time_left() is not None))
            return len(seen) > 1

        server.register("r", Routines(), security=judge, no_cache=True)
        server.listen()
        binding = clients(endpoint).bind("r")
        with pytest.raises(AccessDenied):
            binding.echo(1, timeout=LIMIT)
        assert binding.echo(2) == 2
        assert seen == [(True, True), (True, False)]

    @pytest.mark.parametrize(
        ("where", "level"),
        (
            ("tcp://127.0.0.1:*", 1),
            ("native+tcp://127.0.0.1:*", 1),
            ("ipc", 6),
            ("native+ipc://*", 6),
            ("tls://127.0.0.1:*", 6),
            ("loopback://level", 6),
            ("inproc://level", 6),
        ),  # fmt: skip
    )
    def test_level(self, servers: Servers, clients: Clients, endpoint: str, where: str, level: int) -> None:
        """The attributes tell how well the connection is protected: privacy where it stays on this machine, and not on
        plain tcp.
        """
        where = endpoint if where == "ipc" else where
        server, judge = servers(where, **for_server(where)), Judge(True)
        server.register("r", Routines(), security=judge)
        server.listen()
        clients(server.endpoint, **for_client(where)).bind("r").echo()
        assert [attributes.authentication_level for attributes in judge.asked] == [level]

    def test_secure_only(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """Where only known callers are allowed, an anonymous one gets 5 before the callback is asked."""
        server, judge = servers(endpoint), Judge(True)
        server.register("r", Routines(), security=judge, secure_only=True)
        server.listen()
        with pytest.raises(AccessDenied):
            clients(endpoint).bind("r").echo()
        assert not judge.asked

    def test_secure_only_admits(self) -> None:
        """One who has proved who he is passes, and the callback learns who that is."""
        # In a process of its own: a server that checks keys leaves pyzmq's thread for it behind.
        subprocess.run([sys.executable, "-m", "tests.rpc.server.secure"], cwd=ROOT, timeout=2 * LIMIT, check=True)

    def test_local_only_refuses(self, servers: Servers, clients: Clients) -> None:
        """Callers that do not come from a loopback address are refused."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))  # Sends nothing: it asks which address would be used.
                address = probe.getsockname()[0]
            except OSError:
                pytest.skip("this machine has no address but loopback")
        server = servers(f"tcp://{address}:*")
        server.register("r", Routines(), local_only=True)
        server.listen()
        with pytest.raises(AccessDenied):
            clients(server.endpoint).bind("r").echo()

    @pytest.mark.parametrize(
        "where",
        (
            "tcp://127.0.0.1:*", "native+tcp://127.0.0.1:*", "ipc", "native+ipc://*", "tls://127.0.0.1:*",
            "loopback://registration", "inproc://registration",
        ),
    )  # fmt: skip
    def test_local_only(self, servers: Servers, clients: Clients, endpoint: str, where: str) -> None:
        """Callers on this machine pass where only they are allowed."""
        where = endpoint if where == "ipc" else where
        server = servers(where, **for_server(where))
        server.register("r", Routines(), local_only=True)
        server.listen()
        assert clients(server.endpoint, **for_client(where)).bind("r").echo(1) == 1

    def test_max_request_bytes(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """A larger request gets 5, whether it travels in band or out of band; another interface is not concerned."""
        server = servers(endpoint)
        server.register("r", Routines(), max_request_bytes=100)
        server.register("other", Routines())
        server.listen()
        client = clients(endpoint)
        assert client.bind("r").echo("x" * 90) == "x" * 90
        for size in (101, 1 << 20):
            with pytest.raises(AccessDenied, match="max_request_bytes"):
                client.bind("r").echo(b"x" * size)
            assert client.bind("other").echo(b"x" * size) == b"x" * size

    @pytest.mark.parametrize(
        ("options", "error"),
        (
            ({"security": 1}, InvalidArgumentType),
            ({"max_request_bytes": -1}, InvalidParameter),
            ({"max_calls": True}, Misuse),
        ),
    )
    def test_misuse(self, servers: Servers, endpoint: str, options: dict[str, Any], error: type[Exception]) -> None:
        """Conditions that make no sense are refused, and nothing is registered."""
        server = servers(endpoint)
        with pytest.raises(error):
            server.register("r", Routines(), **options)
        server.register("r", Routines())


class TestListen:
    """Source: "RpcServerListen", "RpcMgmtWaitServerListen"."""

    @pytest.mark.parametrize("limit", (0, -1, True, "many"))
    def test_limit_too_small(self, servers: Servers, endpoint: str, limit: Any) -> None:
        """A limit below 1 has the status 1742, and the server does not listen."""
        server = servers(endpoint)
        with pytest.raises(Misuse) as caught:
            server.listen(max_calls=limit)
        assert caught.value.status == 1742 and not server.listening
        with pytest.raises(Misuse) as caught:
            servers(endpoint, max_calls=limit)
        assert caught.value.status == 1742

    def test_limit(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """The limit given to `listen` counts from then on."""
        server, routines = servers(endpoint), Routines()
        server.register("r", routines)
        server.listen(max_calls=1)
        client = clients(endpoint)
        held(client, routines)
        with pytest.raises(ServerTooBusy, match="max_calls"):
            client.bind("r").echo()

    def test_statuses(self, servers: Servers, endpoint: str) -> None:
        """1713 twice, 1714 without endpoints, 1715 before listening."""
        server = servers(endpoint)
        for action, status in ((server.stop, 1715), (server.wait, 1715), (servers().listen, 1714)):
            with pytest.raises(InvalidState) as caught:
                action()
            assert caught.value.status == status
        server.register("auto", Routines(), auto_listen=True)
        with pytest.raises(InvalidState) as caught:
            server.wait()
        assert caught.value.status == 1715, "an interface that listens by itself changes nothing"
        server.listen()
        with pytest.raises(InvalidState) as caught:
            server.listen()
        assert caught.value.status == 1713


class TestManagement:
    """Source: "RpcMgmtStopServerListening", "RpcMgmtInqStats", "RpcMgmtSetAuthorizationFn"."""

    def test_looking(self, watched_clients: Callable[..., Watched], services: Callable[..., str]) -> None:
        """Any client may ask whether the server listens, and for its counters; they only grow."""
        watched = watched_clients(services("ipc", SERVICE))
        remote = watched.client.bind(Management)
        assert remote.listening()
        before = remote.statistics()
        watched.watch.nested_time(watched.endpoint, None, None)
        after = remote.statistics()
        assert after.calls_in >= before.calls_in + 3, "two calls, and the asking"
        assert after.calls_out == before.calls_out + 1, "a routine has begun one"
        assert after.messages_in > before.messages_in and after.messages_out > before.messages_out

    def test_remote_stop_is_denied(self, watched_clients: Callable[..., Watched], services: Callable[..., str]) -> None:
        """A stop from a client is denied by default, with the status 5, and the server goes on."""
        watched = watched_clients(services("tcp", SERVICE))
        with pytest.raises(AccessDenied) as caught:
            watched.client.bind(Management).stop()
        assert caught.value.status == 5
        assert watched.watch.echo(1) == 1

    def test_authorized(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """An authorize function decides on all of it."""

        def authorize(who: CallAttributes) -> bool:
            return who.metadata.get("key") == "secret" and who.operation == "stop"

        server = servers(endpoint, authorize=authorize)
        server.register("r", Routines())
        server.listen()
        stranger, friend = clients(endpoint), clients(endpoint, metadata={"key": "secret"})
        for refused in (stranger.bind(Management).stop, friend.bind(Management).statistics):
            with pytest.raises(AccessDenied):
                refused()
        friend.bind(Management).stop()
        assert server.wait(LIMIT)
        with pytest.raises(ServerUnavailable):
            friend.bind(Management).listening()

    def test_authorize_fails(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """One that raises allows nothing."""

        def authorize(who: CallAttributes) -> bool:
            raise ValueError("cannot tell")

        server = servers(endpoint, authorize=authorize)
        server.listen()
        with pytest.raises(AccessDenied):
            clients(endpoint).bind(Management).listening()

    def test_stop_inside_a_routine(self, servers: Servers, clients: Clients, endpoint: str) -> None:
        """A routine may stop its own server; its call is still answered."""
        server = servers(endpoint)

        class Own:
            def stop(self) -> str:
                server.stop()
                return current_call().attributes().operation

        server.register("own", Own())
        server.listen()
        assert clients(endpoint).bind("own").stop() == "stop"
        assert server.wait(LIMIT)


class TestProcesses:
    """Conditions hold between processes as within one."""

    def test_unregistered_while_called(self, service: Callable[..., Service], endpoint: str) -> None:
        """A service that ends while it is called leaves its callers with a status, not with silence."""
        child = service(endpoint, module=SERVICE)
        with Client(endpoint) as client:
            assert client.bind("tests.Watch").echo(1) == 1
            call = client.bind("tests.Watch").hold.begin("never")
            client.bind("tests.Desk").arrived("never")
            child.close()
            with pytest.raises(Exception, match="1726"):
                call.result(LIMIT)


class Caller:
    """An object that can be called."""

    def __call__(self) -> str:
        return "called"


class Served:
    """An object of which some is meant for clients."""

    state = "set by the class"
    helper = Caller()
    kind = dict

    def __init__(self) -> None:
        self.callback = print
        self.own = lambda: "set on the object"

    def method(self) -> str:
        return "a method"

    @staticmethod
    def static(value: int) -> int:
        return value

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__

    @functools.cache  # noqa: B019  # there is one of it
    def cached(self) -> str:
        return "a method that a decorator has wrapped"

    bound = functools.partialmethod(method)

    @property
    def called(self) -> Callable[[], str]:
        raise AssertionError("nobody has asked for it")

    @functools.cached_property
    def later(self) -> Callable[[], str]:
        raise AssertionError("nobody has asked for it")


class Base(Served):
    """What it inherits is served as well."""

    def added(self) -> str:
        return "added"

    method = None  # type: ignore[assignment]  # it is none of this class


class Yields(Interface, id="test.Yields"):
    """A contract without pipes."""

    def numbers(self, most: int) -> list[int]:
        """Return numbers."""


class Generator:
    def numbers(self, most: int) -> Any:
        yield most


class AsyncGenerator:
    async def numbers(self, most: int) -> Any:
        yield most


class ManagerGenerator:
    @manager
    def numbers(self, call: Any, most: int) -> Any:
        call.complete([most])
        yield


class ManagerAsyncGenerator:
    @manager
    async def numbers(self, call: Any, most: int) -> Any:
        call.complete([most])
        yield


@pytest.mark.parametrize("kind", [Generator, AsyncGenerator, ManagerGenerator, ManagerAsyncGenerator])
def test_routines_that_yield(servers: Servers, endpoint: str, kind: type) -> None:
    """A generator as the routine of an operation without pipes is refused when it is registered: no call would run
    it.
    """
    with pytest.raises(InvalidParameter, match="routine numbers has a `yield`"):
        servers(endpoint).register(Yields, kind())


class TestByName:
    """What is served of an object that is registered under a name."""

    @pytest.fixture
    def binding(self, servers: Callable[..., Server], clients: Callable[..., Client], endpoint: str) -> Any:
        """A binding to a server with both objects, by name."""
        server = servers(endpoint)
        server.register("served", Served())
        server.register("base", Base())
        server.listen()
        return clients(server.endpoint).bind

    def test_methods(self, binding: Any) -> None:
        """Public methods are: of the instance, static and of the class, wrapped by decorators, and inherited."""
        served, base = binding("served"), binding("base")
        assert (served.method(), served.static(3), served.of_class()) == ("a method", 3, "Served")
        assert served.cached() == "a method that a decorator has wrapped" and served.bound() == "a method"
        assert (base.added(), base.static(3), base.of_class()) == ("added", 3, "Base")

    @pytest.mark.parametrize("name", ["state", "helper", "kind", "callback", "own", "called", "later"])
    def test_nothing_else(self, binding: Any, name: str) -> None:
        """Nothing else is: no objects that can be called, no functions set on the object, no properties, no classes."""
        with pytest.raises(UnknownOperation):
            getattr(binding("served"), name)()

    def test_a_method_that_was_taken_away(self, binding: Any) -> None:
        """What a class has put in the place of a method counts."""
        with pytest.raises(UnknownOperation):
            binding("base").method()

    def test_properties_are_not_run(self, servers: Callable[..., Server], endpoint: str) -> None:
        """A property is no routine of an interface, and is not run to find that out."""

        class Routines:
            @property
            def hold(self) -> Callable[[str], str]:
                raise AssertionError("nobody has asked for it")

        with pytest.raises(InvalidParameter, match="no routine 'hold'"):
            servers(endpoint).register(Watch, Routines())

    def test_nothing_to_serve(self, servers: Callable[..., Server], endpoint: str) -> None:
        """An object whose class has no public methods is refused, whatever was set on it."""
        with pytest.raises(InvalidParameter, match="no public methods"):
            servers(endpoint).register("nothing", SimpleNamespace(function=print))
