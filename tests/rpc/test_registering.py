"""Which interfaces a server serves: "Registering Interfaces", section 9.2."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from engine import (
    Client,
    EngineError,
    Interface,
    InvalidParameter,
    Misuse,
    RemoteFault,
    Server,
    ServerCall,
    UnknownInterface,
    UnknownOperation,
    manager,
    operation,
)
from engine.testing import LIMIT

from .helpers import Bench, status_of
from .interfaces import Adder, Probe
from .service import Adding, make_server

Benches = Callable[..., Bench]


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
                def ask(self, call: ServerCall) -> Iterator[int]:
                    yield 1

        class Asked(Interface, id="test.Asked"):
            def ask(self) -> int: ...  # type: ignore[empty-body]  # a contract has no bodies

        for interface in ("test.Asked", Asked):
            with pytest.raises(InvalidParameter, match="routine ask has a `yield`.*handle"):
                server.register(interface, Yielding())

    def test_twice(self, server: Server) -> None:
        """An interface that is registered already is refused with 1711."""
        with pytest.raises(Misuse) as raised:
            server.register(Adder, Adding())
        assert raised.value.status == 1711

    def test_unregistering(self, endpoint: str, benches: Benches, key: str) -> None:
        """After `unregister` new calls get 1717, running ones go on."""
        server, board = make_server(endpoint)
        with server:
            server.listen()
            bench = benches(endpoint)
            call = bench.held(key)
            server.unregister(Probe)
            with pytest.raises(UnknownInterface, match="test.Probe"):
                bench.probe.echo(1)
            board.get(key).complete("went on")
            assert call.result(LIMIT) == "went on"
            assert status_of(lambda: server.unregister(Probe)) == 1717

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
                raise NotImplementedError

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
                raise NotImplementedError

        server.register(Third, Adding())
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
                greeter._hidden  # noqa: B018
            with pytest.raises(RemoteFault, match="TypeError"):
                greeter.greet()
            with pytest.raises(UnknownOperation):
                greeter.leave()

    def test_a_contract_by_name(self, bench: Bench) -> None:
        """A typed interface can be called by name, in whatever version it is served."""
        assert bench.client.bind("test.Probe").add(1, 2) == 3
        assert bench.client.bind("test.Probe").add(5) == 15
