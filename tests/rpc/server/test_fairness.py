"""Whose turn it is: what each client gets of a server that has more to do than it can.

Time is what the routines say that they take, and is moved by nothing else; one worker runs them one after the other,
once the calls of all clients wait. So the order is the same on any machine.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine import Call, Client, Server, ThreadPool
from engine.pool.dispatch import WorkPort
from engine.rpc.server.routines import Entry
from engine.testing import LIMIT, Gate, wait_until
from transport.frames import CallOptions, Target
from transport.wire.codec import encode_call

from ..helpers import RawClient, new_endpoint, status_of

MS = 0.001


class Working:
    """Routines that take so long as they are told, and note who calls."""

    def __init__(self) -> None:
        self.now = 0.0
        self.noted: list[str] = []
        self.gate = Gate()
        self.others = Gate()

    def work(self, who: str, seconds: float) -> None:
        self.noted.append(who)
        self.now += seconds

    other_work = work  # Learned about by itself.

    async def later(self, who: str) -> None:
        self.noted.append(who)

    def hold(self) -> None:
        self.gate.pass_through()

    def stay(self) -> None:
        self.others.pass_through()

    def first(self, number: int) -> "Counter[str]":
        """Who had the first calls, and how many of them."""
        return Counter(self.noted[:number])

    def time_of(self, who: str, number: int, **costs: float) -> float:
        """Which part of the time of the first calls one of them had."""
        spent = {name: count * costs[name] for name, count in self.first(number).items()}
        return spent[who] / sum(spent.values())


@pytest.fixture
def working(monkeypatch: pytest.MonkeyPatch) -> Iterator[Working]:
    """The routines, whose time is that of the server."""
    made = Working()
    monkeypatch.setattr("engine.rpc.server.runner.perf_counter", lambda: made.now)
    monkeypatch.setattr("engine.pool.running.monotonic", lambda: made.now)
    yield made
    made.gate.open()
    made.others.open()


class Queue:
    """The calls of several clients that wait, while the server's only worker is held.

    Args: `seconds` is what `work`, and `more` what `other_work` is known to take.
    """

    def __init__(
        self, working: Working, client: Client, *servers: Server, seconds: float = 2 * MS, more: float = 2 * MS
    ) -> None:
        self._working = working
        self._servers = servers
        routines = client.bind("work")
        for _ in range(3):
            routines.work("", seconds)
            routines.other_work("", more)
        working.noted.clear()
        self._calls: list[Call[Any]] = [routines.hold.begin()]
        working.gate.wait_for_arrivals()

    def add(
        self, client: Client, who: str, count: int, seconds: float = 2 * MS, name: str = "work", **options: Any
    ) -> None:
        """Have a client begin calls that take so long."""
        work = getattr(client.bind("work", **options), name)
        self._calls += [work.begin(who, seconds) for _ in range(count)]
        wait_until(lambda: sum(each.statistics().active for each in self._servers) == len(self._calls))

    def run(self) -> None:
        """Have them all run."""
        self._working.gate.open()
        for call in self._calls:
            call.result(LIMIT)


Start = Callable[..., Server]
Clients = Callable[..., Client]


@pytest.fixture
def start(servers: Start, working: Working) -> Start:
    """A function that makes a listening server with one worker."""

    def make(*endpoints: str, **options: Any) -> Server:
        server = servers(*endpoints, **({"workers": 1} | options))
        server.register("work", working)
        server.listen()
        return server

    return make


class TestTurnsOfClients:
    """Clients take turns by the time that their calls take."""

    def test_busy_clients_and_an_occasional_one(
        self, start: Start, clients: Clients, working: Working, endpoint: str
    ) -> None:
        """Each of four busy clients gets its share, and one that calls now and then is answered after a few calls."""
        queue = Queue(working, clients(endpoint), start(endpoint))
        busy = ["one", "two", "three", "four"]
        for who in busy:
            queue.add(clients(endpoint), who, 50)
        queue.add(clients(endpoint), "occasional", 3)
        queue.run()
        assert working.first(20)["occasional"] == 3
        for number in (50, 100, 150):
            shares = working.first(number)
            assert max(shares[who] for who in busy) - min(shares[who] for who in busy) <= 3

    @pytest.mark.parametrize(("long", "quick"), [(2 * MS, 0.01 * MS), (8 * MS, 0.01 * MS), (8 * MS, 1 * MS)])
    def test_calls_of_different_lengths(
        self, start: Start, clients: Clients, working: Working, endpoint: str, long: float, quick: float
    ) -> None:
        """A client with long calls has no more of the time than one with quick calls: it owes what it had too much."""
        queue = Queue(working, clients(endpoint), start(endpoint), seconds=long, more=quick)
        queue.add(clients(endpoint), "long", 20, long)
        queue.add(clients(endpoint), "quick", int(10 * long / quick), quick, "other_work")
        queue.run()
        end = len(working.noted) - working.noted[::-1].index("quick")
        assert 0.45 < working.time_of("long", end, long=long, quick=quick) < 0.55

    def test_alone(self, start: Start, clients: Clients, working: Working, endpoint: str) -> None:
        """A client that is alone is not held back by what it owes, and owes nothing later for it."""
        server = start(endpoint)
        mine = clients(endpoint)
        for _ in range(20):
            mine.bind("work").work("before", 8 * MS)
        working.noted.clear()
        queue = Queue(working, clients(endpoint), server)
        queue.add(mine, "mine", 10)
        queue.add(clients(endpoint), "other", 10)
        queue.run()
        assert working.first(10)["mine"] >= 3

    def test_calls_without_order(self, start: Start, clients: Clients, working: Working, endpoint: str) -> None:
        """Calls without a place in the order get their client no more than others have."""
        queue = Queue(working, clients(endpoint), start(endpoint))
        queue.add(clients(endpoint), "loose", 50, causal=False)
        queue.add(clients(endpoint), "ordered", 50)
        queue.run()
        shares = working.first(60)
        assert abs(shares["loose"] - shares["ordered"]) <= 4

    def test_several_endpoints(
        self, start: Start, clients: Clients, working: Working, folder: Any, endpoint: str
    ) -> None:
        """Clients of all endpoints of a server take turns with each other."""
        other = new_endpoint("ipc", folder)
        queue = Queue(working, clients(endpoint), start(endpoint, other))
        queue.add(clients(endpoint), "here", 50)
        queue.add(clients(other), "there", 50)
        queue.run()
        shares = working.first(60)
        assert abs(shares["here"] - shares["there"]) <= 4

    def test_several_servers(
        self, start: Start, clients: Clients, working: Working, folder: Any, endpoint: str
    ) -> None:
        """So do those of several servers that have one pool."""
        other = new_endpoint("ipc", folder)
        with ThreadPool(maximum=1) as pool:
            first, second = start(endpoint, pool=pool), start(other, pool=pool)
            for _ in range(3):  # It learns by itself.
                clients(other).bind("work").work("", 2 * MS)
            queue = Queue(working, clients(endpoint), first, second)
            queue.add(clients(endpoint), "here", 50)
            queue.add(clients(other), "there", 50)
            queue.run()
            for server in (first, second):
                server.close()
        shares = working.first(60)
        assert abs(shares["here"] - shares["there"]) <= 4

    def test_callbacks(self, start: Start, clients: Clients, working: Working, endpoint: str) -> None:
        """Callbacks of a pool and calls of a server that is given it alternate."""
        with ThreadPool(maximum=1) as pool, start(endpoint, pool=pool) as server:
            queue = Queue(working, clients(endpoint), server)
            for _ in range(20):
                pool.submit(lambda: working.noted.append("callback"))
            queue.add(clients(endpoint), "call", 20, 1 * MS)
            queue.run()
            wait_until(lambda: working.noted.count("callback") == 20)
        assert 7 <= working.first(20)["callback"] <= 13


class TestWorkers:
    """How many workers a client may have."""

    def test_all_but_one(self, start: Start, clients: Clients, working: Working, endpoint: str) -> None:
        """While others wait, a client whose calls do not end has all workers but one at most."""
        server = start(endpoint, workers=4)
        last, greedy, modest = clients(endpoint), clients(endpoint), clients(endpoint)
        held = last.bind("work").hold.begin()
        working.gate.wait_for_arrivals()
        staying = [greedy.bind("work").stay.begin() for _ in range(7)]
        working.others.wait_for_arrivals(3)
        call = modest.bind("work").work.begin("modest", 0.0)
        wait_until(lambda: server.statistics().active == 9)
        working.gate.open()
        call.result(LIMIT)
        held.result(LIMIT)
        working.others.open()
        for each in staying:
            each.result(LIMIT)

    @pytest.mark.parametrize("operation", ["work", "later"])
    def test_calls_that_are_not_run(
        self, start: Start, clients: Clients, working: Working, endpoint: str, operation: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        """Expired calls are closed many a turn, by the thread that found them: none of them takes a worker."""
        server = start(endpoint)
        entry = server._registry.find(Target("work", 0, 0, operation))
        assert isinstance(entry, Entry)
        entry.run_time.overran()
        queue = Queue(working, clients(endpoint), server)
        left: list[object] = []
        monkeypatch.setattr(WorkPort, "leave_slot", lambda port, worker: left.append(worker))
        with RawClient(server.endpoint) as raw:
            for number in range(1, 301):
                target, options = Target("work", 0, 0, operation), CallOptions(time_left=0.0)
                raw.send(
                    *map(
                        bytes, encode_call(target, number, ("expired", 1.0)[: 2 if operation == "work" else 1], options)
                    )
                )
            wait_until(lambda: server.statistics().calls_in >= 301)
            other = clients(endpoint).bind("work").work.begin("other", 0.0, timeout=LIMIT)
            queue.run()
            assert status_of(lambda: other.result(LIMIT)) == 0
            wait_until(lambda: server.statistics().faults == 300)
        assert working.noted == ["other"]
        assert left in ([], left[:1])
