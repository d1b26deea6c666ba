"""A client of several servers: where calls go, what becomes of them when a server goes, and what stays with one."""

import asyncio
import gc
import os
import pkgutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import (
    Address,
    Call,
    CallCancelled,
    CallFailed,
    CallTimeout,
    Client,
    CompletionPort,
    Context,
    ContextMismatch,
    Discovery,
    Event,
    InPipe,
    Interface,
    InvalidArgumentType,
    InvalidHandle,
    InvalidParameter,
    Server,
    ServerTooBusy,
    ServerUnavailable,
    WaitTimeout,
    current_call,
    operation,
)
from engine.testing import LIMIT, Gate, wait_until

from ..helpers import Service, limits, new_endpoint, status_of, untyped
from ..interfaces import Probe


class Words(Interface, id="tests.Fleet"):
    """What all members serve."""

    @operation
    def who(self) -> str:
        """Return the name of the server."""

    @operation
    def echo(self, number: int) -> int:
        """Return it."""

    @operation(idempotent=True)
    def again(self, number: int) -> int:
        """Return it."""

    @operation
    def hold(self) -> str:
        """Answer with the name once the gate is open."""

    @operation
    def busy(self) -> str:
        """Return the name, or raise what the server is to raise."""

    @operation
    def total(self, numbers: InPipe[int]) -> str:
        """Return the name, and the sum."""

    @operation
    def open(self) -> Context[str]:
        """Open a context."""

    @operation
    def several(self) -> list[Context[str]]:
        """Open two."""

    @operation
    def use(self, context: Context[str]) -> str:
        """Return the name of the server, and the state."""

    @operation
    def keep(self, context: Context[str]) -> str:
        """Answer as `hold`."""


class Routines:
    """It, served by one that has a name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.gate = Gate()
        self.raises: Exception | None = None
        self.dropped: Callable[[str], object] = str
        self.ran: Counter[int] = Counter()

    def who(self) -> str:
        """Return the name."""
        return self.name

    def echo(self, number: int) -> int:
        """Return it."""
        self.ran[number] += 1
        return number

    def again(self, number: int) -> int:
        """Return it."""
        return number

    def hold(self) -> str:
        """Wait for the gate; a call that was cancelled meanwhile ends so."""
        self.gate.pass_through()
        if current_call().test_cancel():
            raise CallCancelled("as its caller wants")
        return self.name

    def busy(self) -> str:
        """Raise, or return the name."""
        if self.raises is not None:
            raise self.raises
        return self.name

    def total(self, numbers: InPipe[int]) -> str:
        """Return both."""
        return f"{self.name} {sum(untyped(numbers))}"

    def open(self) -> Context[str]:
        """Open one."""
        return current_call().open_context(self.name, self.dropped)

    def several(self) -> list[Context[str]]:
        """Open two."""
        return [current_call().open_context(self.name) for _ in range(2)]

    def use(self, context: Context[str]) -> str:
        """Return both."""
        return f"{self.name} {context.state}"

    def keep(self, context: Context[str]) -> str:
        """Wait for the gate."""
        return self.hold()


class Servers:
    """Servers of this process, each with a name and an endpoint."""

    def __init__(self, folder: Path, transport: str = "ipc") -> None:
        self._folder = folder
        self._transport = transport
        self._made = ExitStack()
        self.routines: dict[str, Routines] = {}
        self.servers: dict[str, Server] = {}
        self.endpoints: dict[str, str] = {}

    def start(self, *names: str, **options: Any) -> list[str]:
        """Start servers of these names; return their endpoints."""
        for name in names:
            endpoint = self.endpoints.setdefault(name, new_endpoint(self._transport, self._folder))
            server = Server(endpoint, **options)
            self._made.callback(server.close, 0)
            routines = self.routines[name] = Routines(name)
            self._made.callback(routines.gate.open)
            server.register(Words, routines)
            server.listen()
            self.servers[name] = server
        return [self.endpoints[name] for name in names]

    def close(self) -> None:
        """Close all."""
        self._made.close()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """What starts servers."""
    made = Servers(tmp_path)
    yield made
    made.close()


def ready(client: Client, number: int) -> None:
    """Return once so many members are ready."""
    wait_until(lambda: [m.state for m in client.members].count("ready") >= number, what=f"{number} members are ready")


def state_of(client: Client, endpoint: str) -> str:
    """Return the state of the member there; "" if there is none."""
    return next((member.state for member in client.members if member.endpoint == endpoint), "")


def outstanding(client: Client, endpoint: str) -> int:
    """How many calls the member there has."""
    return sum(member.outstanding for member in client.members if member.endpoint == endpoint)


class Finder:
    """A resolver whose lists a test says."""

    def __init__(self, *first: str | Address) -> None:
        self._first = first
        self.discovery: Discovery | None = None
        self.looks = 0

    def run(self, discovery: Discovery) -> None:
        """Say the first list, and count how often a loss is told."""
        if self._first:
            discovery.update(self._first)
        self.discovery = discovery
        while not discovery.closed:
            self.looks += discovery.wait()

    def say(self, *addresses: str | Address) -> None:
        """Say a list."""
        wait_until(lambda: self.discovery is not None)
        assert self.discovery is not None
        self.discovery.update(addresses)


class TestFinding:
    """Who the members are."""

    def test_a_list(self, servers: Servers) -> None:
        """A client of a list calls its servers; one that is nobody harms no call."""
        endpoints = servers.start("a", "b")
        with Client([*endpoints, "ipc:///nowhere/at/all"], connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            assert words.who() in "ab"
            ready(client, 2)
            assert {words.who.begin().result(LIMIT) for _ in range(100)} <= {"a", "b"}
            assert state_of(client, "ipc:///nowhere/at/all") == "connecting"

    def test_a_list_of_one(self, servers: Servers) -> None:
        """A list of one server makes a client of one: bindings are in order."""
        with Client(servers.start("a")) as client:
            assert client.bind(Words).who() == "a"
            assert [member.state for member in client.members] == ["ready"]

    @pytest.mark.parametrize(("wrong", "error"), [([], InvalidParameter), (7, InvalidArgumentType)])
    def test_what_is_no_list(self, wrong: object, error: type[Exception]) -> None:
        """An empty list, and what is no resolver, is refused."""
        with pytest.raises(error):
            Client(untyped(wrong))

    def test_a_resolver(self, servers: Servers) -> None:
        """Members come and go with the lists of a resolver; calls that wait for the first go there."""
        (first,) = servers.start("a")
        finder = Finder()
        with Client(finder, connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            call = words.who.begin()
            assert not call.wait(0.01)
            finder.say(first)
            assert call.result(LIMIT) == "a"
            (second,) = servers.start("b")
            finder.say(second)
            wait_until(lambda: state_of(client, second) == "ready")
            assert [words.who() for _ in range(20)] == ["b"] * 20
            wait_until(lambda: state_of(client, first) == "", what="the one that left is closed")
            finder.say()
            assert words.who() == "b"
            finder.say(first, second)
            wait_until(lambda: state_of(client, first) == "ready")

    def test_a_list_that_cannot_be_taken(self, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
        """A list for which there is no memory changes nothing for calls: a server that had left, and is in it, ends its
        calls as ever, and is there again by the next list.
        """
        first, second, third = servers.start("a", "b", "c")
        finder = Finder(first, second)
        with Client(finder, connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            words.who()
            ready(client, 2)
            calls = [words.hold.begin() for _ in range(8)]
            finder.say(first)
            assert state_of(client, second) == "left" and outstanding(client, second)

            def refuse(*args: Any, **options: Any) -> None:
                raise MemoryError("none left")

            with monkeypatch.context() as patched:
                patched.setattr("engine.rpc.client.connection.Connection.__init__", refuse)
                with pytest.raises(MemoryError):
                    finder.say(second, third)
            assert outstanding(client, first) + outstanding(client, second) == 8
            finder.say(first, second, third)
            ready(client, 3)
            late = [words.hold.begin() for _ in range(2)]
            servers.routines["a"].gate.open()
            wait_until(lambda: not outstanding(client, first))
        assert {status_of(partial(call.result, LIMIT)) for call in [*calls, *late]} == {0, 1818}

    def test_who_has_left_is_closed_at_last(self, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server that has left, and has no calls, is closed though there was no memory for that at first."""
        first, second = servers.start("a", "b")
        finder = Finder(first, second)
        refused = threading.Event()

        def refuse() -> None:
            refused.set()
            raise MemoryError("none left")

        with Client(finder, connect_timeout=LIMIT) as client:
            ready(client, 2)
            with monkeypatch.context() as patched:
                patched.setattr("engine.rpc.client.fleet.default_pool", refuse)
                finder.say(first)
                assert refused.wait(LIMIT)
            wait_until(lambda: servers.servers["b"].statistics().clients == 0)

    def test_who_has_left_and_is_needed_again(self, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server that has left, and was found without calls, is not closed if it has one by then, or is in the list
        again.
        """
        first, second = servers.start("a", "b")
        finder = Finder(second)
        steps: list[Callable[[], object]] = []
        pool = SimpleNamespace(post=steps.append)

        def close_the_idle() -> None:
            wait_until(lambda: steps, what="a server was found without calls")
            while steps:
                steps.pop()()

        with Client(finder, connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            handle = words.open()
            with monkeypatch.context() as patched:
                patched.setattr("engine.rpc.client.fleet.default_pool", lambda: pool)
                finder.say(first)
                wait_until(lambda: steps)
                call = words.keep.begin(handle)
                close_the_idle()
                assert state_of(client, second) == "left"
                servers.routines["b"].gate.open()
                assert call.result(LIMIT) == "b"
                wait_until(lambda: steps)
                finder.say(first, second)
                close_the_idle()
                assert state_of(client, second) == "ready"
                assert words.use(handle) == "b b"

    def test_nothing_is_kept_of_who_has_left(self, servers: Servers) -> None:
        """Of a server that has left, and is closed, a client keeps nothing: servers may come and go for ever."""
        first, second = servers.start("a", "b")
        finder, kind = Finder(first), pkgutil.resolve_name("engine.rpc.client.member:Member")

        def is_kept() -> bool:
            gc.collect()
            return any(type(each) is kind and each.address.endpoint == first for each in gc.get_objects())

        with Client(finder, connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            assert words.who() == "a" and words.who.begin().result(LIMIT) == "a" and is_kept()
            finder.say(second)
            wait_until(lambda: state_of(client, second) == "ready")
            assert words.who() == "b"
            wait_until(lambda: not is_kept())

    def test_an_address_that_changes(self, servers: Servers) -> None:
        """What a list says anew of a server that is known holds at once: its weight, and its zone."""
        one, other = servers.start("a", "b")
        finder = Finder(Address(one, zone="here"), Address(other, zone="there"))
        with Client(finder, zone="here", connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            words.who()
            ready(client, 2)
            finder.say(Address(one, zone="there", weight=3), Address(other, zone="here", weight=5))
            seen = {member.endpoint: (member.zone, member.weight) for member in client.members}
            assert seen == {one: ("there", 3.0), other: ("here", 5.0)}
            assert {words.who() for _ in range(20)} == {"b"}

    def test_that_raises(self, servers: Servers) -> None:
        """A resolver that raises is run again, and changes nothing meanwhile."""
        endpoints = servers.start("a", "b")
        runs: list[int] = []

        class Failing:
            def run(self, discovery: Discovery) -> None:
                runs.append(1)
                discovery.update(endpoints)
                raise OSError("the registry is away")

        with Client(Failing(), connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            wait_until(lambda: len(runs) > 1)
            assert words.who() in "ab"

    def test_a_loss_is_told(self, servers: Servers) -> None:
        """A resolver hears soon that a server was lost."""
        finder = Finder(*servers.start("a", "b"))
        with Client(finder, connect_timeout=LIMIT) as client:
            client.bind(Words, causal=False).who()
            ready(client, 2)
            servers.servers["a"].close()
            wait_until(lambda: client.members and finder.looks)

    def test_none_ever(self) -> None:
        """Without a server calls end in time: 1722, and say for whom they waited."""
        with Client(Finder(), connect_timeout=0.05) as client:
            with pytest.raises(ServerUnavailable, match="Finder"):
                client.bind(Words, causal=False).who()
            with pytest.raises(ServerUnavailable, match="no server is known"):
                client.session()
        with Client(["ipc:///nowhere/1", "ipc:///nowhere/2"], connect_timeout=0.05) as client:
            with pytest.raises(ServerUnavailable, match="ipc:///nowhere/1, ipc:///nowhere/2"):
                client.bind(Words, causal=False).who()

    def test_closing(self, servers: Servers) -> None:
        """A closed client ends its calls, wherever they are, and begins none."""
        with Client(servers.start("a", "b"), connect_timeout=LIMIT) as client, Client(Finder()) as waiting:
            words = client.bind(Words, causal=False)
            calls = [words.hold.begin() for _ in range(4)]
            lobby = waiting.bind(Words, causal=False).who.begin()
        assert [status_of(partial(call.result, LIMIT)) for call in [*calls, lobby]] == [1818] * 5
        with pytest.raises(InvalidHandle):
            words.who()
        assert client.statistics().connection == "closed"


class TestBalance:
    """Where calls go."""

    def test_the_less_loaded(self, servers: Servers) -> None:
        """A server that holds its calls gets few new ones."""
        with Client(servers.start("a", "b", workers=8), connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            words.who()
            ready(client, 2)
            servers.routines["b"].gate.open()
            calls = [words.hold.begin() for _ in range(8)]  # Those of "b" are answered, those of "a" stay.
            wait_until(lambda: sum(call.done() for call in calls) == 8 - outstanding(client, servers.endpoints["a"]))
            if not outstanding(client, servers.endpoints["a"]):  # By chance.
                return
            for number in range(100):
                assert words.echo(number) == number
            assert sum(servers.routines["a"].ran.values()) == 0
            servers.routines["a"].gate.open()
            assert {call.result(LIMIT) for call in calls} == {"a", "b"}

    def test_one_message_for_many(self, servers: Servers, port: CompletionPort) -> None:
        """Calls that are begun together share messages, though there are several servers."""
        with Client(servers.start("a", "b"), connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            words.who()
            ready(client, 2)
            before = client.statistics().messages_sent
            for _ in range(4):
                calls = [words.echo.begin(number) for number in range(256)]
                assert [call.result(LIMIT) for call in calls] == list(range(256))
            assert client.statistics().messages_sent - before < 256

    def test_of_several_all_calls_wait(self, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
        """With several servers as many calls wait for company as one of them has, not half as many: the others keep the
        client busy. So what a message has doubles from one to the next.
        """
        with Client(servers.start("a", "b"), connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            words.who()
            ready(client, 2)
            with monkeypatch.context() as patched:
                patched.setattr("engine.rpc.channel.Channel.defer", str)  # Nothing leaves because time has passed.
                before = client.statistics().messages_sent
                calls = [words.hold.begin() for _ in range(512)]
                # To each of two: 5 by themselves, then 6, 12, 24, 48, 96. Of half as many it would be 28.
                assert client.statistics().messages_sent - before <= 24
            for routines in servers.routines.values():
                routines.gate.open()
            assert {call.result(LIMIT) for call in calls} == {"a", "b"}

    def test_a_lone_call_stays(self, servers: Servers) -> None:
        """Lone calls mostly go to the server that had the last one."""
        with Client(servers.start("a", "b", "c"), connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            words.who()
            ready(client, 3)
            names = [words.who() for _ in range(500)]
            changes = sum(one != other for one, other in zip(names, names[1:], strict=False))
            assert changes < 250  # Each call to another would be some 330.

    def test_one_that_fails(self, servers: Servers) -> None:
        """A server that fails at once, and always looks idle, gets few calls."""
        with Client(servers.start("a", "b", "c"), connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            words.who()
            ready(client, 3)
            servers.routines["a"].raises = ValueError("broken")
            outcomes = Counter(status_of(words.busy) for _ in range(300))
            assert outcomes[0] > 200
            faults = {m.endpoint: m.faults for m in client.members}
            assert faults[servers.endpoints["a"]] == 300 - outcomes[0]

    def test_all_fail(self, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
        """If all servers fail, all fail alike often: one that has just failed does not get the next call, too."""
        monkeypatch.setattr("engine.rpc.client.member.FAULT_TIME", 1e6)  # None is forgotten, however slow this is.
        with Client(servers.start("a", "b"), connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            words.who()
            ready(client, 2)
            for routines in servers.routines.values():
                routines.raises = ValueError("broken")
            for _ in range(100):
                assert status_of(words.busy) != 0
            assert [member.faults for member in client.members] == [50, 50]

    def test_one_that_has_failed_is_not_tried_again(self, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
        """As long as a fault weighs, a server that is fast gets no call of its own: failing is fast."""
        monkeypatch.setattr("engine.rpc.client.member.FAULT_TIME", 1e6)
        monkeypatch.setattr("engine.rpc.client.member.HALF_LIFE", 1e-9)  # Who had no call just now is hoped to be fast.
        with Client(servers.start("a", "b"), connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            words.who()
            ready(client, 2)
            servers.routines["a"].raises = ValueError("broken")
            outcomes = Counter(status_of(words.busy) for _ in range(500))
            assert outcomes[0] in (499, 500)
            assert sum(member.faults for member in client.members) == 500 - outcomes[0]

    def test_a_cancelled_call_is_no_fault(self, servers: Servers) -> None:
        """A server that ends a call because the caller wants it to has not failed."""
        finder = Finder(*servers.start("a"))
        with Client(finder, connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            call = words.hold.begin()
            servers.routines["a"].gate.wait_for_arrivals()
            before = servers.servers["a"].statistics().messages_in
            call.cancel()
            wait_until(lambda: servers.servers["a"].statistics().messages_in > before)
            servers.routines["a"].gate.open()
            assert status_of(partial(call.result, LIMIT)) == 1818
            assert [member.faults for member in client.members] == [0]
            servers.routines["a"].raises = ValueError("broken")
            assert status_of(words.busy) != 0
            assert [member.faults for member in client.members] == [1]

    def test_zones(self, servers: Servers) -> None:
        """The servers of the client's own zone are used while one is ready, then the others, then again these."""
        near, far = servers.start("near", "far")
        addresses = [Address(near, zone="here"), Address(far, zone="there")]
        with Client(addresses, zone="here", connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            words.who()
            ready(client, 2)
            assert {words.who() for _ in range(20)} == {"near"}
            servers.servers["near"].drain()
            assert {words.who() for _ in range(20)} == {"far"}
            servers.start("near")
            wait_until(lambda: state_of(client, near) == "ready")
            assert {words.who() for _ in range(20)} == {"near"}

    def test_weights(self, servers: Servers) -> None:
        """A server of the ninefold weight gets most calls."""
        heavy, light = servers.start("heavy", "light", workers=1)
        with Client([Address(heavy, weight=9), Address(light, weight=1)], connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            words.who()
            ready(client, 2)
            for _ in range(40):
                for call in [words.echo.begin(number) for number in range(32)]:
                    call.result(LIMIT)
            ran = {name: sum(routines.ran.values()) for name, routines in servers.routines.items()}
            assert ran["heavy"] > ran["light"]


class TestMoves:
    """Calls that did not run go to another server."""

    def test_refused(self, servers: Servers) -> None:
        """One that stops refuses; its calls go elsewhere, and it is put aside for a while."""
        with Client(servers.start("a", "b"), connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            words.who()
            ready(client, 2)
            servers.servers["a"].stop()
            assert {words.who() for _ in range(50)} == {"b"}
            for call in [words.who.begin() for _ in range(500)]:
                assert call.result(LIMIT) == "b"

    def test_too_busy(self, servers: Servers) -> None:
        """A server that raises ServerTooBusy means it: another one is asked; if all do, that is the outcome."""
        with Client(servers.start("a", "b"), connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            words.who()
            ready(client, 2)
            servers.routines["a"].raises = ServerTooBusy("later")
            assert {words.busy() for _ in range(50)} == {"b"}
            servers.routines["b"].raises = ServerTooBusy("later")
            with pytest.raises(ServerTooBusy):
                words.busy()

    def test_the_budget(self, servers: Servers) -> None:
        """What is refused goes elsewhere within the client's budget."""
        with Client(servers.start("a", "b"), connect_timeout=LIMIT, retry_budget=0) as client:
            words = client.bind(Words, causal=False)
            words.who()
            ready(client, 2)
            for routines in servers.routines.values():
                routines.raises = ServerTooBusy("later")
            assert {status_of(words.busy) for _ in range(3)} == {1723}
            assert client.statistics().moves == 0

    def test_answers_of_one_that_has_left_fill_the_budget(self, servers: Servers) -> None:
        """What a server has answered counts, though it has left before the budget was needed again."""
        refusing, answering = servers.start("a", "b"), servers.start("c")
        for name in "ab":
            servers.routines[name].raises = ServerTooBusy("later")
        finder = Finder(*refusing)
        with Client(finder, connect_timeout=LIMIT, retry_budget=1) as client:
            words = client.bind(Words, causal=False)
            ready(client, 2)
            assert status_of(words.busy) == 1723 and client.statistics().moves == 1
            assert status_of(words.busy) == 1723 and client.statistics().moves == 1
            finder.say(*answering)
            wait_until(lambda: state_of(client, *answering) == "ready")
            for number in range(10):
                assert words.echo(number) == number
            finder.say(*refusing)
            wait_until(lambda: state_of(client, *answering) == "")
            ready(client, 2)
            assert status_of(words.busy) == 1723 and client.statistics().moves == 2

    def test_drained(self, servers: Servers, port: CompletionPort) -> None:
        """Drains at full rate lose no call, and none runs twice; the handle and the packet stay what they were."""
        names = ["a", "b", "c"]
        with Client(servers.start(*names), connect_timeout=LIMIT) as client:
            begin, template = client.bind(Words, causal=False).echo.begin, port.packet(key=7)
            ran: list[Counter[int]] = []
            begun = ended = 0
            for name in [*names, *names]:
                goal = ended + 1000
                thread = threading.Thread(target=servers.servers[name].drain, args=(LIMIT,))
                ran.append(servers.routines[name].ran)
                while ended < goal or thread.ident is None or thread.is_alive():
                    for _ in range(256 - (begun - ended)):
                        begin(begun, notify=template).user_data = begun
                        begun += 1
                    if ended >= goal - 500 and thread.ident is None:
                        thread.start()
                    with suppress(WaitTimeout):
                        for packet in port.get_many(256, 0.01):
                            assert packet.key == 7 and packet.overlapped.complete() == packet.overlapped.user_data
                            ended += 1
                servers.start(name)
            while ended < begun:
                port.get(LIMIT).overlapped.complete()
                ended += 1
        total: Counter[int] = sum([*ran, *(routines.ran for routines in servers.routines.values())], Counter())
        assert len(total) == begun and set(total.values()) == {1}

    @pytest.mark.parametrize("idempotent", [True, False])
    def test_killed_under_load(
        self, service: Callable[..., Service], folder: Path, port: CompletionPort, idempotent: bool
    ) -> None:
        """When a server is killed, calls that are idempotent lose nothing; of the others what it had in flight."""
        endpoints = [new_endpoint("ipc", folder) for _ in range(3)]
        children = [service(endpoint) for endpoint in endpoints]
        with Client(endpoints, connect_timeout=LIMIT) as client:
            probe = client.bind(Probe, causal=False)
            operation = probe.again if idempotent else probe.echo
            operation(0)
            ready(client, 3)
            begun = ended = failed = 0
            at_most = 0
            while ended < 6000:
                while begun - ended < 48:
                    operation.begin(begun, notify=port).user_data = begun
                    begun += 1
                if ended >= 2000 and children:
                    at_most = max(m.outstanding for m in client.members if m.endpoint == endpoints[-1]) + 48
                    children.pop().kill()
                for packet in port.get_many(64, LIMIT):
                    ended += 1
                    try:
                        assert packet.overlapped.complete() == packet.overlapped.user_data
                    except CallFailed:
                        failed += 1
                if ended >= 2000:
                    children = []
            while ended < begun:
                failed += status_of(port.get(LIMIT).overlapped.complete) != 0
                ended += 1
            assert failed == 0 if idempotent else failed <= at_most
            assert status_of(lambda: port.get(0)) == 258  # Each call was told of once.

    def test_every_way_of_notification(self, service: Callable[..., Service], folder: Path) -> None:
        """A call that moves keeps who waits for it: a thread, an event, a callback, a port, a task."""
        endpoints = [new_endpoint("ipc", folder) for _ in range(2)]
        children = {endpoint: service(endpoint) for endpoint in endpoints}
        with Client(endpoints, connect_timeout=LIMIT) as client, Event() as event, CompletionPort() as port:
            probe = client.bind(Probe, causal=False)
            ready(client, 2)
            called: list[Call[Any]] = []
            calls = [
                probe.hold_again.begin("event", notify=event),
                probe.hold_again.begin("callback", notify=lambda call, kind: called.append(call)),
                probe.hold_again.begin("port", notify=port),
                probe.hold_again.begin("thread"),
                probe.hold_again.begin("task"),
            ]
            wait_until(lambda: sum(member.outstanding for member in client.members) == 5)
            waited: list[object] = []
            thread = threading.Thread(target=lambda: waited.append(calls[3].result(LIMIT)))
            thread.start()

            async def main() -> object:
                async def kill() -> None:
                    await asyncio.sleep(0)
                    children.pop(endpoints[0]).kill()
                    wait_until(lambda: state_of(client, endpoints[0]) == "lost")
                    await asyncio.to_thread(self._end_all, endpoints[1])

                killing = asyncio.create_task(kill())
                result = await calls[4]
                await killing
                return result

            assert asyncio.run(main()) == "task"
            thread.join(LIMIT)
            assert waited == ["thread"]
            assert event.wait(LIMIT) and calls[0].complete() == "event"
            assert port.get(LIMIT).overlapped.complete() == "port"
            wait_until(lambda: called)
            assert called == [calls[1]] and calls[1].complete() == "callback"

    @staticmethod
    def _end_all(endpoint: str) -> None:
        """End all held calls, by whatever server they are held."""
        from ..interfaces import Control

        with Client(endpoint) as aside:
            control = aside.bind(Control)
            for key in ("event", "callback", "port", "thread", "task"):
                control.arrived(key)
                assert control.complete(key, key) == 0

    def test_a_server_that_stands_still(self, service: Callable[..., Service], folder: Path) -> None:
        """A server that is stopped by SIGSTOP is lost after its heartbeats; its calls move, the others go on."""
        endpoints = [new_endpoint("ipc", folder) for _ in range(3)]
        children = [service(endpoint) for endpoint in endpoints]
        with Client(endpoints, connect_timeout=LIMIT, heartbeat=0.3) as client:
            again = client.bind(Probe, causal=False).again
            again(0)
            ready(client, 3)
            os.kill(children[0].pid, signal.SIGSTOP)
            try:
                calls = [again.begin(number) for number in range(300)]
                assert [call.result(LIMIT) for call in calls] == list(range(300))
            finally:
                os.kill(children[0].pid, signal.SIGCONT)

    def test_the_time_limit_runs_on(self, servers: Servers) -> None:
        """A call that moves keeps its time: it ends when that is up, once."""
        with Client(servers.start("a", "b", workers=2), connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            words.who()
            ready(client, 2)
            calls = [words.hold.begin() for _ in range(4)]
            wait_until(lambda: all(m.outstanding for m in client.members))
            thread = threading.Thread(target=servers.servers["a"].drain)
            thread.start()
            wait_until(lambda: not servers.servers["a"].listening)
            late = [words.hold.begin(timeout=0.3) for _ in range(4)]
            servers.routines["a"].gate.open()
            thread.join(LIMIT)
            for call in late:
                with pytest.raises(CallTimeout):
                    call.result(LIMIT)
            servers.routines["b"].gate.open()
            assert {call.result(LIMIT) for call in calls} <= {"a", "b"}

    def test_cancelling_one_that_moved(self, service: Callable[..., Service], folder: Path) -> None:
        """A call that has moved is cancelled where it is."""
        endpoints = [new_endpoint("ipc", folder) for _ in range(2)]
        children = {endpoint: service(endpoint) for endpoint in endpoints}
        with Client(endpoints, connect_timeout=LIMIT) as client:
            probe = client.bind(Probe, causal=False)
            probe.again(0)
            ready(client, 2)
            calls = [probe.hold_again.begin(f"cancelled-{number}") for number in range(4)]
            wait_until(lambda: all(m.outstanding for m in client.members))
            children[endpoints[0]].kill()
            wait_until(lambda: client.statistics().moves >= 1)
            for call in calls:
                call.cancel(abort=True)
            assert {status_of(partial(call.result, LIMIT)) for call in calls} == {1818}
            assert client.statistics().outstanding == 0

    def test_cancelled_while_it_waits(self, servers: Servers) -> None:
        """A cancel of a call that waits for a server follows it there."""
        (endpoint,) = servers.start("a")
        finder = Finder()
        with Client(finder, connect_timeout=LIMIT) as client:
            call = client.bind(Words, causal=False).hold.begin()
            call.cancel()
            finder.say(endpoint)
            wait_until(
                lambda: servers.servers["a"].statistics().messages_in >= 3
            )  # The greeting, the call, the cancel.
            servers.routines["a"].gate.open()
            assert status_of(partial(call.result, LIMIT)) in (0, 1818)

    def test_lost_while_it_backs_off(self, servers: Servers) -> None:
        """A call that was refused twice, and waits a while to be sent again, is not lost with the second server."""
        with Client(servers.start("a", "b"), connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            words.who()
            ready(client, 2)
            for routines in servers.routines.values():
                routines.raises = ServerTooBusy("later")
            calls = [words.busy.begin() for _ in range(20)]
            wait_until(lambda: client.statistics().moves >= 20)
            for routines in servers.routines.values():
                routines.raises = None
            servers.servers["b"].close(0)
            assert {status_of(partial(call.result, LIMIT)) for call in calls} <= {0, 1723}


class TestStaying:
    """What needs one server stays with it."""

    def test_order_has_to_be_given_up(self, servers: Servers) -> None:
        """`bind` of several servers wants `causal=False`, and says what else to do."""
        with Client(servers.start("a", "b")) as client:
            for causal in (None, True):
                with pytest.raises(InvalidParameter, match=r"causal=False.*session"):
                    client.bind(Words, causal=causal)

    def test_a_session(self, servers: Servers) -> None:
        """All calls of a session go to one server, in order, context handles included."""
        with Client(servers.start("a", "b"), connect_timeout=LIMIT) as client:
            ready(client, 2)
            with client.session() as one:
                words = one.bind(Words)
                (name,) = {words.who.begin().result(LIMIT) for _ in range(50)}
                assert servers.endpoints[name] == one.endpoint
                assert words.use(words.open()) == f"{name} {name}"
            assert one.closed
            with pytest.raises(InvalidHandle):
                one.bind(Words)

    def test_a_session_with_a_server_that_leaves_meanwhile(
        self, servers: Servers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A session is with a server of the list, also where the one that was chosen leaves it before it has begun."""
        first, second = servers.start("a", "b")
        finder = Finder(first, second)
        with Client(finder, connect_timeout=LIMIT) as client:
            ready(client, 2)
            choose = pkgutil.resolve_name("engine.rpc.client.balance:Balancer.member")

            def choose_slowly(balancer: Any) -> Any:
                chosen = choose(balancer)
                if chosen.address.endpoint == second:
                    finder.say(first)
                    wait_until(lambda: [member.endpoint for member in client.members] == [first])
                return chosen

            monkeypatch.setattr("engine.rpc.client.balance.Balancer.member", choose_slowly)
            for _ in limits(*[LIMIT] * 1000):  # Until the second one was chosen.
                with client.session() as one:
                    assert one.endpoint == first
                    assert one.bind(Words).who() == "a"
                if len(client.members) == 1:
                    break

    def test_a_session_while_no_server_is_ready(self, servers: Servers) -> None:
        """A session that is begun while no server is ready is rather with one that was not there yet than with one that
        has just gone.
        """
        (gone,) = servers.start("a")
        with Client([gone, "ipc:///nowhere/at/all"], connect_timeout=LIMIT) as client:
            ready(client, 1)
            servers.servers["a"].close(0)
            wait_until(lambda: state_of(client, gone) not in ("ready", "connecting"))
            for _ in range(20):
                with client.session() as one:
                    assert one.endpoint == "ipc:///nowhere/at/all"

    def test_a_session_does_not_move(self, servers: Servers) -> None:
        """The calls of a session end with its server, as those of a client of one."""
        with Client(servers.start("a", "b", workers=2), connect_timeout=LIMIT) as client:
            ready(client, 2)
            with client.session() as one:
                held = one.bind(Words).hold.begin()
                name = next(name for name, endpoint in servers.endpoints.items() if endpoint == one.endpoint)
                servers.routines[name].gate.wait_for_arrivals()
                servers.servers[name].close(0)
                assert status_of(partial(held.result, LIMIT)) == 1726

    def test_a_session_keeps_its_server(self, servers: Servers) -> None:
        """A server that is in the list no more stays connected for a session; others that have left are closed."""
        first, second, third = servers.start("a", "b", "c")
        finder = Finder(first)
        with Client(finder, connect_timeout=LIMIT) as client:
            assert client.bind(Words, causal=False).who() == "a"
            with client.session() as one:
                words = one.bind(Words)
                finder.say(second)
                wait_until(lambda: state_of(client, second) == "ready")
                assert client.bind(Words, causal=False).who() == "b"
                assert words.who() == "a" and state_of(client, first) == "left"
                for _ in range(2):
                    finder.say(second, third)
                    wait_until(lambda: state_of(client, third) == "ready")
                    finder.say(second)
                    wait_until(lambda: state_of(client, third) == "", what="one that has no session is closed")
                assert words.who() == "a" and state_of(client, first) == "left"
            wait_until(lambda: state_of(client, first) == "")

    def test_sessions_of_one_server(self, servers: Servers) -> None:
        """Sessions with the same server share the client's connection to it, and its context handles: those outlive the
        session that they came from, and go with the connection.
        """
        dropped: list[str] = []
        servers.start("a")
        servers.routines["a"].dropped = dropped.append
        with Client(servers.endpoints["a"]) as client:
            with client.session() as one, client.session() as two:
                handle = one.bind(Words).open()
                assert two.bind(Words).use(handle) == "a a"
            with client.session() as three:
                assert three.bind(Words).use(handle) == "a a"
            assert dropped == []
            with Client(servers.endpoints["a"]) as other, other.session() as foreign:
                with pytest.raises(ContextMismatch):
                    foreign.bind(Words).use(handle)
        wait_until(lambda: dropped == ["a"])

    def test_of_a_client_of_one(self, servers: Servers) -> None:
        """A client of one server has sessions, too."""
        with Client(servers.start("a")[0]) as client, client.session() as one:
            assert one.bind(Words).who() == "a"

    def test_context_handles(self, servers: Servers) -> None:
        """A call with a context handle goes to the server of the handle, also of one in a list."""
        with Client(servers.start("a", "b", "c"), connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            ready(client, 3)
            handles = [call.result(LIMIT) for call in [words.open.begin() for _ in range(30)]]
            handles += [handle for _ in range(10) for handle in words.several()]
            for handle in handles:
                one, other = words.use(handle).split()
                assert one == other

    def test_a_handle_whose_server_has_left(self, servers: Servers) -> None:
        """A context handle of a server that is closed is unknown."""
        first, second = servers.start("a", "b")
        finder = Finder(first)
        with Client(finder, connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            handle = words.open()
            finder.say(second)
            wait_until(lambda: state_of(client, first) == "")
            wait_until(lambda: status_of(lambda: words.use(handle)) == ContextMismatch.status)

    def test_pipes(self, servers: Servers) -> None:
        """A call with pipes stays with the server where it began."""
        with Client(servers.start("a", "b"), connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            ready(client, 2)
            for _ in range(10):
                name, total = untyped(words).total([1, 2, 3]).split()
                assert name in "ab" and total == "6"


class TestSeen:
    """What is known of the members."""

    def test_statistics(self, servers: Servers) -> None:
        """The counters of a client are those of all its connections; each is among its members."""
        with Client(servers.start("a", "b"), connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            for number in range(100):
                words.echo(number)
            statistics = client.statistics()
            assert statistics.calls_finished == statistics.calls_begun == 100
            assert sum(member.calls_finished for member in client.members) == 100
            assert statistics.connection == "connected" and "connected" in repr(client)

    def test_counters_only_grow(self, servers: Servers) -> None:
        """What a member had counted that is closed counts on."""
        first, second = servers.start("a", "b")
        finder = Finder(first)
        with Client(finder, connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            for number in range(10):
                words.echo(number)
            finder.say(second)
            wait_until(lambda: state_of(client, first) == "")
            assert words.echo(1) == 1
            wait_until(lambda: client.statistics().calls_finished == 11)

    def test_counters_while_one_is_closed(self, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a member has counted counts on while it is being closed, and a client that is closed closes it, too."""
        first, second = servers.start("a", "b")
        finder, closing, go_on = Finder(first), Gate(), Gate()

        def slowly(connection: Any, notify: bool) -> None:
            closing.open()
            go_on.pass_through()
            connection.close(notify)
            connection.channel.close()

        client = Client(finder, connect_timeout=LIMIT)
        try:
            words = client.bind(Words, causal=False)
            for number in range(10):
                words.echo(number)
            monkeypatch.setattr("engine.rpc.client.fleet._close", slowly)
            finder.say(second)
            closing.pass_through()
            assert client.statistics().calls_finished == 10
            assert words.echo(1) == 1
            assert client.statistics().calls_finished == 11
            client.close()
            wait_until(lambda: servers.servers["a"].statistics().clients == 0)
            assert client.statistics().calls_finished == 11
        finally:
            go_on.open()
            client.close()
        wait_until(lambda: client.statistics().calls_finished == 11)
