"""Calls that move from server to server while somebody attacks: interrupts at each step, deaths, freezes, cancels."""

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

import msgspec
import pytest

from engine import (
    Call,
    Client,
    CompletionPort,
    Discovery,
    InPipe,
    Interface,
    OutPipe,
    Server,
    ServerTooBusy,
    operation,
)
from engine.testing import LIMIT, Gate, wait_until, wait_until_blocked
from transport.frames import Bye, Hello, Reject, Replies, ReplyGroup

from ...one_by_one import calls_in
from ..helpers import (
    RawClient,
    RawServer,
    Service,
    at_step,
    code_in,
    code_named,
    new_endpoint,
    status_of,
    untyped,
    uses_steps,
)
from ..interfaces import Probe

# Where a move is decided and done, but for the harvest that brings it about.
PARTS = [
    *map(code_in, (f"engine/rpc/client/{name}.py" for name in ("fleet", "balance", "awaiting", "retry", "homes"))),
    code_named("move_locked", "engine/rpc/call.py"),
    *(code_named(name, "engine/rpc/client/connection.py") for name in ("_lose", "_left", "_record", "_welcomed")),
    *(code_named(name, "engine/rpc/client/outbox.py") for name in ("withdraw", "left", "numbers")),
]


def moving(code: CodeType) -> bool:
    """Whether this is what moves calls."""
    return any(part(code) for part in PARTS)


def interrupt() -> None:
    """What Ctrl-C does."""
    raise KeyboardInterrupt


class Words(Interface, id="tests.Moving"):
    """What all servers serve."""

    @operation
    def echo(self, number: int) -> int:
        """Return it."""

    @operation(idempotent=True)
    def again(self, number: int) -> int:
        """Return it."""

    @operation
    def busy(self, number: int) -> int:
        """Return it, unless the server is too busy."""

    @operation
    def hold(self, number: int) -> int:
        """Return it once the gate is open."""

    @operation
    def total(self, numbers: InPipe[int]) -> int:
        """Return the sum."""

    @operation
    def count(self, most: int, numbers: OutPipe[int]) -> int:
        """Push that many."""


class Routines:
    """It."""

    def __init__(self, is_busy: bool = False) -> None:
        self.gate = Gate()
        self.is_busy = is_busy
        self.ran: Counter[int] = Counter()

    def echo(self, number: int) -> int:
        """Return it."""
        self.ran[number] += 1
        return number

    def again(self, number: int) -> int:
        """Return it."""
        return number

    def busy(self, number: int) -> int:
        """Refuse, or return it."""
        if self.is_busy:
            self.gate.pass_through()
            raise ServerTooBusy("later")
        self.ran[number] += 1
        return number

    def hold(self, number: int) -> int:
        """Wait for the gate."""
        self.ran[number] += 1
        self.gate.pass_through()
        return number

    def total(self, numbers: InPipe[int]) -> int:
        """Pull all."""
        return sum(untyped(numbers))

    def count(self, most: int, numbers: OutPipe[int]) -> int:
        """Wait for the gate, and push."""
        self.gate.pass_through()
        for number in range(most):
            untyped(numbers).push([number])
        return most


class Lists:
    """A resolver whose lists a test says."""

    def __init__(self, *first: str) -> None:
        self._first = first
        self.discovery: Discovery | None = None

    def run(self, discovery: Discovery) -> None:
        """Say the first list, and wait."""
        if self._first:
            discovery.update(self._first)
        self.discovery = discovery
        while not discovery.closed:
            discovery.wait()

    def say(self, *addresses: str) -> None:
        """Say a list."""
        wait_until(lambda: self.discovery is not None)
        assert self.discovery is not None
        self.discovery.update(addresses)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., tuple[Server, Routines]]]:
    """Starts servers."""
    with ExitStack() as made:

        def start(endpoint: str = "", is_busy: bool = False, **options: Any) -> tuple[Server, Routines]:
            server = Server(endpoint or new_endpoint("ipc", tmp_path), **options)
            made.callback(server.close, 0)
            routines = Routines(is_busy)
            made.callback(routines.gate.open)
            server.register(Words, routines)
            server.listen()
            return server, routines

        yield start


Serve = Callable[..., tuple[Server, Routines]]


def ready(client: Client, number: int) -> None:
    """Return once so many members are ready."""
    wait_until(lambda: [m.state for m in client.members].count("ready") >= number, what=f"{number} members are ready")


@contextmanager
def meanwhile(action: Callable[[], object]) -> Iterator[None]:
    """Have a thread do this once the calling one is blocked within the block: what that brings is its to take."""
    caller = threading.current_thread()

    def act() -> None:
        wait_until_blocked(caller)
        action()

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join(LIMIT)


def steps() -> Iterator[tuple[int, list[bool]]]:
    """Number steps from 0, and say to each a list to which is appended whether it was met; end when none is left.

    Another thread may have done what this one was to be interrupted in, so some are missed and tried again.
    """
    number = missed = 0
    while missed < (10 if number > 10 else 200):
        met: list[bool] = []
        yield number, met
        number, missed = (number + 1, 0) if met[0] else (number, missed + 1)
    assert number > 10, "nothing was interrupted"


def one_outcome_each(
    calls: list[Call[Any]], port: CompletionPort, client: Client, step: int, *allowed: int
) -> list[int]:
    """Each of the calls ends, is told of once, and with one of these statuses; nothing is left of it."""
    for call in calls:
        assert call.wait(LIMIT), f"after an interrupt at step {step} {call} does not end: {client.members}"
    told = [port.get(LIMIT).overlapped for _ in calls]
    assert {id(call) for call in told} == {id(call) for call in calls}
    assert status_of(partial(port.get, 0)) == 258, f"after an interrupt at step {step} a call is told of twice"
    found = [status_of(call.complete) for call in calls]
    assert set(found) <= set(allowed), f"after an interrupt at step {step} calls end with {found}"
    assert client.statistics().outstanding == 0
    return found


Moving = Callable[[RawServer, list[int]], None]


def goodbye(raw: RawServer, numbers: list[int]) -> None:
    """Say that none of the calls has run."""
    raw.say(Bye(1722, "closing", 0))


def untold(raw: RawServer, numbers: list[int]) -> None:
    """Say goodbye, and not which calls have run."""
    raw.say(Bye(1722, "closing"))


def refusal(raw: RawServer, numbers: list[int]) -> None:
    """Refuse the calls."""
    raw.say(Replies([ReplyGroup(numbers, [msgspec.Raw(b"\xc0")] * len(numbers), 1723)]))


@uses_steps
@pytest.mark.timeout(10 * LIMIT)  # Each moves calls some hundred times.
class TestInterrupts:
    """Ctrl-C at any step of a move: each call has one outcome, is told of once, and the client goes on."""

    @pytest.mark.parametrize(("move", "idempotent"), [(goodbye, False), (untold, True), (refusal, True)])
    def test_between_servers(
        self, service: Callable[..., Service], tmp_path: Path, move: Moving, idempotent: bool
    ) -> None:
        """As calls move from one server to another. The interrupted thread is the one that takes what moves them."""
        other = service(new_endpoint("ipc", tmp_path))
        for step, met in steps():
            with RawServer(new_endpoint("ipc", tmp_path)) as raw, CompletionPort() as port:
                lists = Lists(raw.endpoint)
                with Client(lists, connect_timeout=LIMIT) as client:
                    probe = client.bind(Probe, causal=False)
                    operation = probe.again if idempotent else probe.echo
                    calls = [operation.begin(number, notify=port) for number in range(3)]
                    raw.greet()
                    numbers: list[int] = []
                    while len(numbers) < len(calls):
                        numbers += [call.id for call in calls_in(raw.hear())]
                    lists.say(raw.endpoint, other.endpoint)
                    ready(client, 2)
                    with meanwhile(partial(move, raw, numbers)):
                        with at_step(step, moving, interrupt) as reached, suppress(KeyboardInterrupt):
                            calls[0].wait(LIMIT)
                    met.append(step < reached[0])
                    one_outcome_each(calls, port, client, step, 0, 1723, 1726, 1727)
                    lists.say(other.endpoint)  # The first one answers nothing more.
                    assert [probe.again(number) for number in range(3)] == [0, 1, 2]

    def test_out_of_the_lobby(self, service: Callable[..., Service], tmp_path: Path) -> None:
        """As the first server greets, and calls that have waited for one go there."""
        other = service(new_endpoint("ipc", tmp_path))
        for step, met in steps():
            lists = Lists()
            with Client(lists, connect_timeout=LIMIT) as client, CompletionPort() as port:
                probe = client.bind(Probe, causal=False)
                calls = [probe.echo.begin(number, notify=port) for number in range(3)]
                with meanwhile(partial(lists.say, other.endpoint)):
                    with at_step(step, moving, interrupt) as reached, suppress(KeyboardInterrupt):
                        calls[0].wait(LIMIT)
                met.append(step < reached[0])
                one_outcome_each(calls, port, client, step, 0, 1726, 1727)
                assert [probe.echo(number) for number in range(3)] == [0, 1, 2]


class TestDeaths:
    """Servers that are killed and frozen while calls are made."""

    def test_killed_and_frozen_again_and_again(
        self, service: Callable[..., Service], tmp_path: Path, port: CompletionPort
    ) -> None:
        """Whatever dies or stands still, calls that are idempotent are answered, each once."""
        chance = random.Random(7)
        endpoints = [new_endpoint("ipc", tmp_path) for _ in range(3)]
        children = {endpoint: service(endpoint) for endpoint in endpoints}
        with Client(endpoints, connect_timeout=LIMIT, heartbeat=0.3) as client:
            again = client.bind(Probe, causal=False).again
            again(0)
            ready(client, 3)
            begun = 0
            told: Counter[int] = Counter()

            def go_on(calls: int) -> None:
                nonlocal begun
                goal = begun + calls
                while sum(told.values()) < goal:
                    while begun - sum(told.values()) < 32:
                        again.begin(begun, notify=port).user_data = begun
                        begun += 1
                    for packet in port.get_many(32, LIMIT):
                        assert packet.overlapped.complete() == packet.overlapped.user_data
                        told[packet.overlapped.user_data] += 1

            for _ in range(8):
                victim = chance.choice(endpoints)
                if chance.random() < 0.5:
                    children[victim].kill()
                    go_on(200)
                    children[victim] = service(victim)
                else:
                    os.kill(children[victim].pid, signal.SIGSTOP)
                    try:
                        go_on(200)
                    finally:
                        os.kill(children[victim].pid, signal.SIGCONT)
                go_on(50)
            while sum(told.values()) < begun:
                packet = port.get(LIMIT)
                told[packet.overlapped.user_data] += 1
                assert packet.overlapped.complete() == packet.overlapped.user_data
            assert told == Counter(range(begun))
            assert client.statistics().outstanding == 0


def _is_refused(stranger: RawClient) -> bool:
    """Greet, and say whether the server takes nobody."""
    stranger.say(Hello(b"\1" * 16))
    return type(stranger.hear()) is Reject


class TestDrains:
    """Servers that drain while something else goes on."""

    def test_calls_are_cancelled(self, serve: Serve, port: CompletionPort) -> None:
        """Calls that are cancelled while their server drains end once; those that are not run once, and succeed."""
        first, held = serve(workers=2)
        second, other = serve(workers=2)
        with Client([first.endpoint, second.endpoint], connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            ready(client, 2)
            calls = [words.hold.begin(number, notify=port) for number in range(200)]
            wait_until(lambda: held.gate.arrivals and other.gate.arrivals)
            draining = threading.Thread(target=first.drain, args=(LIMIT,))
            draining.start()
            for number, call in enumerate(calls):
                if number % 4 < 2:
                    call.cancel(abort=bool(number % 4))
            for routines in (held, other):
                routines.gate.open()
            told = [port.get(LIMIT).overlapped for _ in calls]
            assert {id(call) for call in told} == {id(call) for call in calls}
            assert status_of(partial(port.get, 0)) == 258
            draining.join(LIMIT)
            ran = held.ran + other.ran
            for number, call in enumerate(calls):
                status = status_of(call.complete)
                if number % 4 < 2:
                    # One that its server has not taken is sent nowhere else, and says that it did not run.
                    assert status in (0, 1727, 1818) and ran[number] <= (status != 1727)
                else:
                    assert status == 0 and ran[number] == 1
            assert client.statistics().outstanding == 0

    def test_pipes_are_open(self, serve: Serve) -> None:
        """A call whose pipe is open is served to its end by a server that drains; one that comes too late did not
        run.
        """
        first, _ = serve()
        lists = Lists(first.endpoint)
        with Client(lists, connect_timeout=LIMIT) as client:
            words = untyped(client.bind(Words, causal=False))
            words.echo(0)
            call = words.total.begin()
            call.pipe("numbers").push([1, 2])
            wait_until(lambda: first.statistics().active == 1)
            draining = threading.Thread(target=first.drain, args=(LIMIT,))
            draining.start()
            with RawClient(first.endpoint, greet=False) as stranger:  # It is refused once the server drains.
                wait_until(partial(_is_refused, stranger))
            late = words.total.begin()
            lists.say(first.endpoint, serve()[0].endpoint)
            call.pipe("numbers").push([3])
            call.pipe("numbers").push([])
            assert call.result(LIMIT) == 6
            draining.join(LIMIT)
            assert status_of(partial(late.result, LIMIT)) == 1727
            assert words.total([1, 2]) == 3

    def test_the_server_of_a_session(self, serve: Serve) -> None:
        """Calls of a session that its draining server has not taken wait for the next one there, in their order."""
        first, held = serve(workers=1)
        with Client([first.endpoint], connect_timeout=LIMIT) as client, client.session() as one:
            words = one.bind(Words)
            holding = words.hold.begin(0)
            held.gate.wait_for_arrivals()
            draining = threading.Thread(target=first.drain, args=(LIMIT,))
            draining.start()
            calls = [words.echo.begin(number) for number in range(50)]
            held.gate.open()
            assert holding.result(LIMIT) == 0
            draining.join(LIMIT)
            serve(first.endpoint)
            assert [call.result(LIMIT) for call in calls] == list(range(50))


class TestResolvers:
    """Resolvers that do what they should not."""

    def test_the_same_again(self, serve: Serve) -> None:
        """A list that has a server several times has it once."""
        endpoint = serve()[0].endpoint
        lists = Lists(endpoint, endpoint, endpoint)
        with Client(lists, connect_timeout=LIMIT) as client:
            assert client.bind(Words, causal=False).echo(1) == 1
            assert [member.state for member in client.members] == ["ready"]

    def test_lists_that_change_all_the_time(self, serve: Serve) -> None:
        """Lists that come one upon another, from several threads, cost no call anything."""
        endpoints = [serve()[0].endpoint for _ in range(3)]
        lists = Lists(*endpoints)
        with Client(lists, connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            words.echo(0)
            chance = random.Random(3)
            choices = [chance.sample(endpoints, chance.randint(1, 3)) for _ in range(100)]
            threads = [
                threading.Thread(target=lambda mine=choices[n::4]: [lists.say(*each) for each in mine])
                for n in range(4)
            ]
            for thread in threads:
                thread.start()
            number = 0
            while any(thread.is_alive() for thread in threads) or number < 500:
                calls = [words.echo.begin(number + each) for each in range(16)]
                assert [call.result(LIMIT) for call in calls] == list(range(number, number + 16))
                number += 16
            lists.say(*endpoints)
            ready(client, 3)
            wait_until(lambda: len(client.members) == 3)

    def test_one_that_blocks(self) -> None:
        """A resolver that never returns, nor says anything, holds up neither calls beyond their limit nor closing."""
        gate = Gate()

        class Blocking:
            def run(self, discovery: Discovery) -> None:
                gate.pass_through()

        try:
            with Client(Blocking(), connect_timeout=0.05) as client:
                gate.wait_for_arrivals()
                assert status_of(lambda: client.bind(Words, causal=False).echo(1)) == 1722
        finally:
            gate.open()

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, RuntimeError, MemoryError])
    def test_one_that_raises(self, serve: Serve, error: type[BaseException]) -> None:
        """Whatever a resolver raises, after an empty list and one that is none, calls go on, and it runs again."""
        endpoint = serve()[0].endpoint
        runs: list[int] = []

        class Raising:
            def run(self, discovery: Discovery) -> None:
                runs.append(1)
                discovery.update([endpoint])
                discovery.update([])
                with suppress(Exception):
                    discovery.update(untyped([7]))
                raise error

        with Client(Raising(), connect_timeout=LIMIT) as client:
            words = client.bind(Words, causal=False)
            wait_until(lambda: len(runs) > 1)
            assert words.echo(1) == 1
