"""What counts as entering a routine, however late the interpreter lets it begin, and which routines are slow."""

import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from types import FrameType
from typing import Any

import pytest

from engine import Interface, Server, ThreadPool
from engine.pool.run_time import RunTime
from engine.rpc.server.routines import Entry
from engine.testing import LIMIT, Gate, wait_until
from transport.frames import CallOptions, Target
from transport.realtime import monotonic
from transport.wire.codec import encode_call

from ..helpers import RawClient, status_of


class Lines(Interface, id="tests.Lines"):
    """Routines of several kinds."""

    def plain(self, number: int) -> None: ...
    def closure(self, number: int) -> None: ...
    def partial(self, number: int) -> None: ...
    def object(self, number: int) -> None: ...
    def coroutine(self, number: int) -> None: ...
    def slow(self, number: int, gate: bool = False) -> None: ...
    def stay(self) -> None: ...
    def nothing(self) -> None: ...


class Late:
    """Routines that note their numbers; a thread that is in `held` stops just before the first line of one of them."""

    def __init__(self) -> None:
        self.noted: list[int] = []
        self.held = threading.Event()
        self.gate = Gate()
        self.staying = Gate()

        def closure(number: int) -> None:
            nonlocal self
            self.noted.append(number)

        self.closure = closure
        self.partial = functools.partial(closure)
        self.object = Called(closure)

    def plain(self, number: int) -> None:
        self.noted.append(number)

    async def coroutine(self, number: int) -> None:
        self.noted.append(number)

    def slow(self, number: int, gate: bool = False) -> None:
        self.noted.append(number)
        if gate:
            self.staying.pass_through()

    def stay(self) -> None:
        self.staying.pass_through()

    def nothing(self) -> None:
        pass


class Called:
    """An object that can be called."""

    def __init__(self, function: Callable[[int], None]) -> None:
        self._function = function

    def __call__(self, number: int) -> None:
        self._function(number)


def run_time_of(server: Server, operation: str) -> RunTime:
    """What the server knows of how long the routine of an operation takes."""
    entry = server._registry.find(Target("tests.Lines", 0, 0, operation))
    assert isinstance(entry, Entry)
    return entry.run_time


@pytest.fixture
def late() -> Iterator[Late]:
    """Routines; the next one to be called in a worker while `held` is set stops before its first line."""
    late = Late()

    def trace(frame: FrameType, event: str, argument: object) -> None:
        names = ("plain", "closure", "slow", "__call__")
        here = frame.f_code.co_name in names and frame.f_code.co_filename == __file__
        if here and late.held.is_set() and threading.current_thread().name.startswith("engine:"):
            late.held.clear()
            late.gate.pass_through()

    former = threading.gettrace()
    threading.settrace(trace)
    yield late
    threading.settrace(former)
    late.gate.open()
    late.staying.open()


class TestBeforeTheFirstLine:
    """A thread that has called a routine may be stopped before the routine's first line."""

    def serve(self, late: Late, servers: Callable[..., Server], endpoint: str) -> Server:
        server = servers(endpoint, workers=8)
        server.register(Lines, late)
        server.listen()
        return server

    def let_pass(self, other: Any, late: Late) -> None:
        """Return when the monitor has taken several looks at all clients, and taken away what may be taken away."""
        for _ in range(3):
            # What is behind a routine that stays runs once the monitor has taken the client away.
            other.stay.begin()
            other.nothing()

    @pytest.mark.parametrize("first", ["plain", "closure", "partial", "object"])
    @pytest.mark.parametrize("second", ["plain", "coroutine"])
    def test_quick(
        self, late: Late, servers: Callable[..., Server], clients: Callable[..., Any], endpoint: str, first: str,
        second: str,
    ) -> None:  # fmt: skip
        """The next routine is not entered before the first line of one that was called, however long that takes."""
        server = self.serve(late, servers, endpoint)
        mine, other = clients(server.endpoint).bind(Lines), clients(server.endpoint).bind(Lines)
        other.nothing()
        late.held.set()
        calls = [getattr(mine, first).begin(1), getattr(mine, second).begin(2)]
        late.gate.wait_for_arrivals()
        self.let_pass(other, late)
        assert late.noted == []
        late.gate.open()
        for call in calls:
            call.result(LIMIT)
        assert late.noted == [1, 2]

    def test_slow(self, late: Late, servers: Callable[..., Server], clients: Callable[..., Any], endpoint: str) -> None:
        """Nor if its thread has passed its place on, because such routines are known to be slow."""
        server = self.serve(late, servers, endpoint)
        mine, other = clients(server.endpoint).bind(Lines), clients(server.endpoint).bind(Lines)
        mine.slow(0)
        run_time_of(server, "slow").overran()
        late.held.set()
        calls = [mine.slow.begin(1, True), mine.plain.begin(2)]
        late.gate.wait_for_arrivals()
        self.let_pass(other, late)
        assert late.noted == [0]
        late.gate.open()
        calls[1].result(LIMIT)
        assert not calls[0].done(), "the second one has waited for the end of the first"
        late.staying.open()
        calls[0].result(LIMIT)
        assert late.noted == [0, 1, 2]


class Watched(deque[Any]):
    """A client's calls; who appends one that nobody could close yet is found out."""

    def __init__(self, table: dict[int, Any]) -> None:
        super().__init__()
        self._table = table
        self.early: list[int] = []
        self.counted = 0

    def append(self, work: Any) -> None:
        numbers = [work.id] if hasattr(work, "id") else work.group.ids
        self.early += [number for number in numbers if number not in self._table]
        self.counted += len(numbers)
        super().append(work)


def test_entered_in_the_table_first(servers: Callable[..., Server], endpoint: str) -> None:
    """Whoever finds a call that waits can close it: it is in the table of its client by then."""
    late = Late()
    server = servers(endpoint)
    server.register("late", late)
    server.register("gated", late, security=lambda attributes: True)
    server.register("automatic", late, auto_listen=True)
    server.listen()
    with RawClient(server.endpoint) as raw:
        (peer,) = server._listeners[0].peers.values()
        calls = Watched(peer.calls)
        peer.turns.calls = calls
        number = 0
        for name in ("late", "gated", "automatic"):
            for operation in ("plain", "coroutine"):
                for options in (None, CallOptions(time_left=60.0), CallOptions(one_way=True), CallOptions(lane=3)):
                    number += 1
                    raw.send(*map(bytes, encode_call(Target(name, 0, 0, operation), number, (number,), options)))
        wait_until(lambda: len(late.noted) == number)
        assert calls.early == []
        assert calls.counted == number
    wait_until(lambda: server.statistics().active == 0)


@pytest.mark.parametrize("computes", [False, True])
def test_a_routine_that_stays(
    servers: Callable[..., Server], clients: Callable[..., Any], endpoint: str, monkeypatch: pytest.MonkeyPatch,
    computes: bool,
) -> None:  # fmt: skip
    """A routine in which the monitor has found a thread is slow from then on, unless it may have computed."""
    used = count(0, 1000 if computes else 0)  # Seconds of processor time, more at each look than there were between.
    monkeypatch.setattr("engine.pool.dispatch.process_time", lambda: next(used))
    monkeypatch.setattr("engine.pool.run_time.SLOW", float("inf"))  # However long the machine has quick ones take.
    late = Late()
    server = servers(endpoint, workers=2)
    server.register(Lines, late)
    server.listen()
    mine = clients(server.endpoint).bind(Lines)
    mine.nothing()
    mine.slow(1)
    call = mine.slow.begin(2, True)
    mine.nothing()  # Runs once the monitor has taken the client away.
    slow = run_time_of(server, "slow").slow
    late.staying.open()
    call.result(LIMIT)
    assert slow is not computes
    assert not run_time_of(server, "nothing").slow


def test_calls_that_are_not_run_teach_nothing(servers: Callable[..., Server], endpoint: str) -> None:
    """A slow routine stays one however many of its calls are closed before they begin: their closing is quick."""
    server = servers(endpoint)
    server.register(Lines, Late())
    server.listen()
    run_time = run_time_of(server, "nothing")
    run_time.overran()
    with RawClient(server.endpoint) as raw:
        for number in range(1, 21):
            target = Target("tests.Lines", 0, 0, "nothing")
            raw.send(*map(bytes, encode_call(target, number, (), CallOptions(time_left=0.0))))
        wait_until(lambda: server.statistics().faults == 20)
    assert run_time.slow


@pytest.mark.parametrize(("waited", "ends"), [(0.0, "run"), (9.9, "run"), (9.99, "closed"), (11.0, "closed")])
def test_calls_that_could_not_be_answered_in_time(
    servers: Callable[..., Server], clients: Callable[..., Any], endpoint: str, monkeypatch: pytest.MonkeyPatch,
    waited: float, ends: str,
) -> None:  # fmt: skip
    """A call of ten seconds is not started when 20 ms or less of them are left; it ends with 1818. The calls behind it
    are not as late as it then, so that a server that is asked for too much answers what it does in time.
    """
    late = Late()
    server = servers(endpoint)
    server.register(Lines, late)
    server.listen()
    monkeypatch.setattr("engine.rpc.server.runner.monotonic", lambda: monotonic() + waited)
    call = clients(endpoint).bind(Lines).plain.begin(1, timeout=10.0)
    assert status_of(lambda: call.result(LIMIT)) == (0 if ends == "run" else 1818)
    assert late.noted == ([1] if ends == "run" else [])


def test_a_one_way_call_is_run_as_long_as_its_time_lasts(
    servers: Callable[..., Server], endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for its answer, so none comes too late."""
    late = Late()
    server = servers(endpoint)
    server.register(Lines, late)
    server.listen()
    waited = 9.99
    monkeypatch.setattr("engine.rpc.server.runner.monotonic", lambda: monotonic() + waited)
    with RawClient(server.endpoint) as raw:
        options = CallOptions(time_left=10.0, one_way=True)
        raw.send(*map(bytes, encode_call(Target("tests.Lines", 0, 0, "plain"), 1, (1,), options)))
        wait_until(lambda: late.noted == [1])


def test_the_first_call(
    servers: Callable[..., Server], clients: Callable[..., Any], endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A routine that has never run holds up no other call, however long it takes; no monitor is needed for that."""
    for name in ("PATIENCE_IDLE", "PATIENCE_BUSY", "PATIENCE_CROWDED"):
        monkeypatch.setattr(f"engine.pool.dispatch.{name}", 1 << 30)
    late = Late()
    server = servers(endpoint, workers=2)
    server.register(Lines, late)
    server.listen()
    mine = clients(server.endpoint).bind(Lines)
    calls = [mine.stay.begin(), mine.nothing.begin()]
    try:
        calls[1].result(LIMIT)
    finally:
        late.staying.open()
    calls[0].result(LIMIT)
    # It is learned after the answer has left; and a slow machine may be away in the midst of a run.
    wait_until(lambda: mine.nothing() or not run_time_of(server, "nothing").slow, what="that its runs are quick")


def test_of_another_client(late: Late, servers: Callable[..., Server], clients: Callable[..., Any]) -> None:
    """A thread that is held up before one client's first call is not taken to be on its way into another's."""
    with ThreadPool(1, 1) as pool:
        server = servers("loopback://numbers", pool=pool)
        server.register(Lines, late)
        server.listen()
        mine, other = clients(server.endpoint).bind(Lines), clients(server.endpoint).bind(Lines)
        run_time_of(server, "slow").slow = True
        other.slow(1)
        late.held.set()
        held = mine.plain.begin(2)
        late.gate.wait_for_arrivals()
        pool.set_maximum(2)
        other.nothing.begin().result(LIMIT)
        assert late.noted == [1]
        late.gate.open()
        held.result(LIMIT)
