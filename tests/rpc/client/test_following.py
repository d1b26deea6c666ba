"""A client of one endpoint whose server names others: calls without an order are spread, all else stays."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine import Address, Client, Context, ContextMismatch, InPipe, Interface, Server, current_call, operation
from engine.resolvers import Members, MembersRoutines
from engine.testing import LIMIT, Gate, wait_until
from transport import EndpointError
from transport.frames import Calls, Welcome
from transport.wire.codec import encode_reply

from ...certificates import client_context, server_context
from ..helpers import RawServer, new_endpoint, untyped


class Words(Interface, id="tests.Following"):
    """What all members serve."""

    @operation
    def who(self) -> str:
        """Return the name of the server."""

    @operation(idempotent=True)
    def again(self, number: int) -> int:
        """Return it."""

    @operation
    def hold(self, number: int) -> str:
        """Answer with the name once the gate is open."""

    @operation
    def total(self, numbers: InPipe[int]) -> str:
        """Return the name of the server."""

    @operation
    def open(self) -> Context[str]:
        """Open a context."""

    @operation
    def use(self, context: Context[str]) -> str:
        """Return the state."""


class Routines:
    """It, served by one that has a name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.gate = Gate()
        self.entered: list[int] = []

    def who(self) -> str:
        """Return the name."""
        return self.name

    def again(self, number: int) -> int:
        """Return it."""
        return number

    def hold(self, number: int) -> str:
        """Wait for the gate."""
        self.entered.append(number)
        self.gate.pass_through()
        return self.name

    def total(self, numbers: InPipe[int]) -> str:
        """Pull all."""
        list(untyped(numbers))
        return self.name

    def open(self) -> Context[str]:
        """Open one."""
        return current_call().open_context(self.name)

    def use(self, context: Context[str]) -> str:
        """Return it."""
        return context.state


class Fleet:
    """Servers of this process, which name each other."""

    def __init__(self, folder: Path, transport: str = "ipc") -> None:
        self._folder = folder
        self._transport = transport
        self._keys: dict[str, Any] = {"tls": server_context()} if transport == "tls" else {}
        self._made = ExitStack()
        self.servers: dict[str, Server] = {}
        self.routines: dict[str, Routines] = {}
        self.tells: dict[str, MembersRoutines] = {}

    def start(self, *names: str, tell: bool = True) -> None:
        """Start these, and have all name all; with `tell` they tell of changes."""
        for name in names:
            server = Server(new_endpoint(self._transport, self._folder), name=name, **self._keys)
            self.servers[name] = server
            self._made.callback(server.close, 0)
            routines = self.routines[name] = Routines(name)
            self._made.callback(routines.gate.open)
            server.register(Words, routines)
            if tell:
                tells = self.tells[name] = MembersRoutines()
                self._made.callback(tells.answer_all, closing=True)
                server.register(Members, tells)
            server.listen()
        self.name(*self.servers)

    def name(self, *names: str, others: Sequence[str] = ()) -> None:
        """Have all name these, and `others` before them, and tell of them."""
        members = [*others, *(self.servers[name].endpoint for name in names)]
        for server in self.servers.values():
            server.members = members
        for tells in self.tells.values():
            tells.update(map(Address, members))

    def drain(self, name: str) -> None:
        """Have one leave in good order: those that ask it for changes wait no longer, too."""
        self.tells[name].answer_all(closing=True)
        self.servers[name].drain(LIMIT)

    def close(self) -> None:
        """End all."""
        self._made.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """What starts servers."""
    made = Fleet(tmp_path)
    yield made
    made.close()


def states(client: Client) -> list[str]:
    """Those of the client's own server, and of the members after it."""
    return [member.state for member in client.members]


def members(client: Client) -> set[str]:
    """Return the endpoints of the members that it has besides its own server."""
    return {member.endpoint for member in client.members[1:] if member.state != "left"}


def spread(words: Words, *names: str) -> None:
    """Wait until calls of this binding go to all of these."""
    found: set[str] = set()

    def all_found() -> bool:
        calls = [words.who.begin() for _ in range(16)]
        found.update(call.result(LIMIT) for call in calls)
        return found >= set(names)

    wait_until(all_found, what=f"calls go to {names}")


class TestSpread:
    """Calls without an order go to all members, the others to one."""

    def test_all_are_used(self, fleet: Fleet) -> None:
        """Calls of a binding without order go to all members, those of others stay with the server that was given."""
        fleet.start("a", "b")
        with Client(fleet.servers["a"].endpoint, connect_timeout=LIMIT) as client:
            ordered, free = client.bind(Words), client.bind(Words, causal=False)
            spread(free, "a", "b")
            assert {ordered.who() for _ in range(50)} == {"a"}
            assert {member.endpoint for member in client.members[1:]} == set(fleet.servers["b"].members)
            statistics = client.statistics()
            assert statistics.connection == "connected" and statistics.outstanding == 0
            assert statistics.calls_begun == statistics.calls_finished > 50

    def test_none_has_to_ask(self, fleet: Fleet) -> None:
        """A client all of whose calls are in order connects to no member."""
        fleet.start("a", "b")
        with Client(fleet.servers["a"].endpoint, connect_timeout=LIMIT) as client:
            assert client.bind(Words).who() == "a"
            assert states(client) == ["ready"]
            assert fleet.servers["b"].statistics().clients == 0

    def test_none_is_named(self, fleet: Fleet) -> None:
        """A server that names nobody has its client to itself."""
        fleet.start("a", "b")
        fleet.name()
        with Client(fleet.servers["a"].endpoint, connect_timeout=LIMIT) as client:
            free = client.bind(Words, causal=False)
            assert {free.who() for _ in range(50)} == {"a"}
            assert states(client) == ["ready"]

    def test_bindings_of_all_kinds(self, fleet: Fleet) -> None:
        """Bindings that are made before and after the greeting are turned, also operations that are kept, and bindings
        by name.
        """
        fleet.start("a", "b")
        with Client(fleet.servers["a"].endpoint, connect_timeout=LIMIT) as client:
            first = client.bind(Words, causal=False)
            kept = first.who
            spread(first, "a", "b")
            found = {kept.begin().result(LIMIT) for _ in range(100)} | {kept() for _ in range(5)}
            assert found <= {"a", "b"}
            spread(client.bind(Words, causal=False), "a", "b")
            untold = client.bind("tests.Following", causal=False)
            spread(untyped(untold), "a", "b")

    def test_changes(self, fleet: Fleet) -> None:
        """Members that come later are used, and those that leave no more."""
        fleet.start("a", "b")
        with Client(fleet.servers["a"].endpoint, connect_timeout=LIMIT) as client:
            free = client.bind(Words, causal=False)
            spread(free, "a", "b")
            fleet.start("c")
            spread(free, "c")
            fleet.name("b", "c")
            wait_until(lambda: "left" not in states(client) and len(states(client)) == 3)
            assert {free.who.begin().result(LIMIT) for _ in range(50)} <= {"b", "c"}
            assert client.bind(Words).who() == "a"  # What is in order stays.

    def test_an_order_waits_for_its_server(self, fleet: Fleet) -> None:
        """Calls in an order go to no other server though others are known, but to the next one at the endpoint."""
        fleet.start("a", "b")
        endpoint = fleet.servers["a"].endpoint
        with Client(endpoint, connect_timeout=LIMIT) as client:
            ordered, words = client.bind(Words), client.bind(Words, causal=False)
            spread(words, "a", "b")
            fleet.servers["a"].close(0)
            wait_until(lambda: states(client)[0] == "connecting")
            calls = [ordered.who.begin() for _ in range(8)]
            for number in range(16):
                assert words.again(number) == number
            assert not any(call.done() for call in calls)
            with Server(endpoint) as following:
                following.register(Words, Routines("the next"))
                following.listen()
                assert [call.result(LIMIT) for call in calls] == ["the next"] * 8

    def test_a_member_leaves_in_good_order(self, fleet: Fleet) -> None:
        """Calls that a member does not take any more move: none fails, and each runs once."""
        fleet.start("a", "b")
        with Client(fleet.servers["a"].endpoint, connect_timeout=LIMIT) as client:
            free = client.bind(Words, causal=False)
            spread(free, "a", "b")
            calls = [free.hold.begin(number) for number in range(40)]
            wait_until(lambda: fleet.routines["b"].entered)
            draining = threading.Thread(target=fleet.drain, args=("b",))
            draining.start()
            for routines in fleet.routines.values():
                routines.gate.open()
            assert {call.result(LIMIT) for call in calls} <= {"a", "b"}
            draining.join(LIMIT)
            ran = Counter(fleet.routines["a"].entered) + Counter(fleet.routines["b"].entered)
            assert ran == Counter(range(40))

    def test_no_changes_are_told(self, fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
        """A server that names members and tells of no changes is taken at its word, without a complaint."""
        fleet.start("a", "b", tell=False)
        with Client(fleet.servers["a"].endpoint, connect_timeout=LIMIT) as client:
            spread(client.bind(Words, causal=False), "a", "b")
        assert not caplog.records

    def test_again_after_a_failure(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A client that had no memory for the members of one greeting takes those of the next."""
        fleet.start("a", "b")
        endpoint = fleet.servers["a"].endpoint
        refused = threading.Event()

        def refuse(*args: Any, **options: Any) -> None:
            refused.set()
            raise MemoryError("none left")

        with Client(endpoint, connect_timeout=LIMIT) as client:
            free = client.bind(Words, causal=False)
            with monkeypatch.context() as patched:
                patched.setattr("engine.rpc.client.fleet.Fleet.open", refuse)
                assert free.who() == "a"
                assert refused.wait(LIMIT)
                wait_until(lambda: "none left" in caplog.text)
            fleet.servers["a"].close(0)
            with Server(endpoint) as following:
                following.register(Words, Routines("the next"))
                following.members = [endpoint, fleet.servers["b"].endpoint]
                following.listen()
                spread(free, "the next", "b")

    def test_handles_and_pipes_stay(self, fleet: Fleet) -> None:
        """Operations with pipes or context handles stay with the server that was given, whatever binding they are of;
        a handle goes there by a binding without a contract, too.
        """
        fleet.start("a", "b")
        with Client(fleet.servers["a"].endpoint, connect_timeout=LIMIT) as client:
            ordered, free = client.bind(Words), client.bind(Words, causal=False)
            early = free.open()
            spread(free, "a", "b")
            untold = client.bind("tests.Following", causal=False)
            for handle in (early, free.open(), ordered.open()):
                assert {free.use(handle), ordered.use(handle), untold.use(handle)} == {"a"}
            assert {free.total([1, 2]) for _ in range(10)} == {"a"}
            with client.session() as one:
                assert {one.bind(Words).who() for _ in range(10)} == {"a"}
            with Client(fleet.servers["b"].endpoint, connect_timeout=LIMIT) as other:
                with pytest.raises(ContextMismatch):
                    other.bind(Words).use(early)


class TestNames:
    """What a greeting may name."""

    def test_what_no_client_takes(self, caplog: pytest.LogCaptureFixture) -> None:
        """Names of another kind of connection, and what is no endpoint, are passed over."""
        names = ["ipc:///etc/passwd", "loopback://x", "native+tcp://127.0.0.1:1", "tls://127.0.0.1:1", "what?", ""]
        with RawServer("tcp://127.0.0.1:*") as raw, Client(raw.endpoint, connect_timeout=LIMIT) as client:
            free = client.bind("words", causal=False)
            call = free.who.begin()
            raw.hear()
            raw.say(Welcome(b"\2" * 16, members=names))
            asked = raw.hear()
            assert isinstance(asked, Calls)
            raw.send(*map(bytes, encode_reply(asked.groups[0].ids[0], "a")))
            assert call.result(LIMIT) == "a"
            wait_until(lambda: "names a member that is none" in caplog.text)
            assert len(client.members) == 1

    @pytest.mark.parametrize("how", ["named", "told"])
    @pytest.mark.parametrize("transport", ["tcp", "native+tcp", "ipc", "tls"])
    def test_members_that_are_reached_otherwise(self, tmp_path: Path, transport: str, how: str) -> None:
        """No server leads a client to another kind of connection, by its greeting or by what it tells later: from a
        private connection to one in clear text, from the network to files and objects of the client's own machine.
        """
        kinds = ["tcp://127.0.0.1:1", "native+tcp://127.0.0.1:1", "tls://127.0.0.1:1", "ipc:///etc/passwd"]
        others = [each for each in (*kinds, "loopback://x") if not each.startswith(f"{transport}:")]
        with ExitStack() as stack:
            fleet = Fleet(tmp_path, transport)
            stack.callback(fleet.close)
            fleet.start("a", "b", tell=how == "told")
            first, second = (fleet.servers[name].endpoint for name in "ab")
            if how == "named":
                fleet.name("a", "b", others=others)
            keys: Any = {"tls": client_context()} if transport == "tls" else {}
            client = stack.enter_context(Client(first, connect_timeout=LIMIT, **keys))
            spread(client.bind(Words, causal=False), "a", "b")
            assert members(client) == {first, second}
            if how == "told":
                fleet.name("b", others=others)
                wait_until(lambda: first not in members(client), what="the list is taken")
                assert members(client) == {second}

    def test_what_a_server_says(self) -> None:
        """A server names endpoints that can be connected to, and no more of them than a greeting has room for."""
        with Server("loopback://names") as server:
            assert server.members == []
            with pytest.raises(EndpointError):
                server.members = ["tcp://*:5555"]
            server.members = ["loopback://names", "loopback://names", "loopback://other"]
            assert server.members == ["loopback://names", "loopback://other"]
            server.members = [f"tcp://127.0.0.1:{port}" for port in range(1, 3000)]
            assert len(server.members) == 1024
            server.members = [f"loopback://{number:0500}" for number in range(100)]
            assert len(server.members) == 64

    def test_every_address(self, fleet: Fleet) -> None:
        """A member that listens on every address of its machine is reached where the one that names it was."""
        with ExitStack() as stack:
            members = []
            for name in "ab":
                server = stack.enter_context(Server("tcp://0.0.0.0:*", insecure=True))
                server.register(Words, Routines(name))
                server.listen()
                members.append(server)
            for server in members:
                server.members = [each.endpoint for each in members]
            port = members[0].endpoint.rpartition(":")[2]
            client = stack.enter_context(Client(f"tcp://127.0.0.1:{port}", connect_timeout=LIMIT))
            spread(client.bind(Words, causal=False), "a", "b")
            assert all(member.endpoint.startswith("tcp://127.0.0.1:") for member in client.members)


class TestEnd:
    """Closing."""

    @pytest.mark.parametrize("moment", range(8))
    def test_at_any_moment(self, fleet: Fleet, moment: int) -> None:
        """A client that is closed while it begins to follow leaves no connection behind."""
        fleet.start("a", "b")
        client = Client(fleet.servers["a"].endpoint, connect_timeout=LIMIT)
        free = client.bind(Words, causal=False)
        for _ in range(moment):
            free.who()
        client.close()
        for server in fleet.servers.values():
            wait_until(partial(_has_no_client, server))
        assert client.statistics().connection == "closed" and client.statistics().outstanding == 0

    def test_calls_at_members(self, fleet: Fleet) -> None:
        """Calls that are outstanding at members end with the client."""
        fleet.start("a", "b")
        with Client(fleet.servers["a"].endpoint, connect_timeout=LIMIT) as client:
            free = client.bind(Words, causal=False)
            spread(free, "a", "b")
            calls: list[Any] = [free.hold.begin(number) for number in range(10)]
        assert all(call.done() for call in calls)


def _has_no_client(server: Server) -> bool:
    return server.statistics().clients == 0
