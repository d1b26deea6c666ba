"""Whose turn it is: no client, and nothing else in a pool, waits for what a routine of another call does."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from engine import Event, Interface, Server, ThreadPool, current_callback
from engine.kernel import leadership
from engine.rpc import serving
from engine.rpc.server import runner
from engine.testing import LIMIT, Gate, wait_until


class Turning(Interface, id="tests.Turning"):
    """Routines that stay, each in a way of its own."""

    def stay(self) -> None: ...
    def wait_and_stay(self) -> None: ...
    def nothing(self) -> None: ...


class Staying:
    """Serves `Turning`. At the gate a thread stays in a way that the library does not know of."""

    def __init__(self) -> None:
        self.gate = Gate()

    def stay(self) -> None:
        self.gate.pass_through()

    def wait_and_stay(self) -> None:
        with Event() as event:
            event.wait(0.01)
        self.gate.pass_through()

    def nothing(self) -> None:
        pass


@pytest.fixture
def staying() -> Staying:
    return Staying()


@pytest.fixture
def serve(servers: Callable[..., Server], endpoint: str, staying: Staying) -> Callable[..., Server]:
    """A function that makes a listening server of `Turning`."""

    def start(**options: Any) -> Server:
        server = servers(endpoint, **options)
        server.register(Turning, staying)
        server.listen()
        return server

    return start


def test_both_kinds_of_calls_of_one_client(
    serve: Callable[..., Server], clients: Callable[..., Any], staying: Staying
) -> None:
    """Calls in order and calls without order of one client do not make way for each other: nobody else waits."""
    client = clients(serve(workers=2).endpoint)
    ordered, free = client.bind(Turning), client.bind(Turning, causal=False)
    # Both places of the client come into the ring while its routine has all workers but one.
    first = ordered.stay.begin()
    staying.gate.wait_for_arrivals()
    for _ in range(20):
        for call in [each.nothing.begin() for each in (ordered, free) for _ in range(10)]:
            call.result(LIMIT)
    assert not first.done()
    staying.gate.open()
    first.result(LIMIT)


class TestOnAPoolOfOneSlot:
    """A pool of the user's lets one of its threads run at a time."""

    def test_behind_a_callback(
        self, serve: Callable[..., Server], clients: Callable[..., Any], staying: Staying
    ) -> None:
        """A call does not wait for a callback that stays."""
        with ThreadPool() as pool:
            pool.submit(staying.stay)
            staying.gate.wait_for_arrivals()
            clients(serve(pool=pool).endpoint).bind(Turning).nothing(timeout=LIMIT)
            assert pool.statistics().off_slot  # The monitor has taken the slot of the callback.
            staying.gate.open()

    def test_behind_a_routine_that_has_waited(
        self, serve: Callable[..., Server], clients: Callable[..., Any], staying: Staying
    ) -> None:
        """A routine that stays after it has waited in the library keeps neither calls nor callbacks from running."""
        with ThreadPool() as pool:
            endpoint = serve(pool=pool).endpoint
            call = clients(endpoint).bind(Turning).wait_and_stay.begin()
            staying.gate.wait_for_arrivals()
            done = threading.Event()
            pool.submit(done.set)
            assert done.wait(LIMIT)
            clients(endpoint).bind(Turning).nothing(timeout=LIMIT)
            staying.gate.open()
            call.result(LIMIT)
            wait_until(lambda: pool.statistics().off_slot == 0)


def test_a_worker_that_is_held_up_before_it_has_the_client(
    serve: Callable[..., Server], clients: Callable[..., Any], staying: Staying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client is taken away from a thread that stays in a routine, however long it took to get there."""
    server, held_up = serve(workers=4), Gate()
    binding = clients(server.endpoint).bind(Turning)

    class Slowly:
        """Where the threads' slots are found, by the first only once the gate is open."""

        @property
        def slot(self) -> Any:
            if not held_up.arrivals:
                held_up.pass_through()
            return serving.current.slot

    monkeypatch.setattr(runner, "current", Slowly())
    calls = [binding.stay.begin(), binding.nothing.begin()]
    held_up.wait_for_arrivals()
    wait_until(lambda: server.pool.statistics().off_slot == 1)  # The monitor has found it away.
    held_up.open()
    staying.gate.wait_for_arrivals()
    calls[1].result(LIMIT)
    assert not calls[0].done()
    staying.gate.open()
    calls[0].result(LIMIT)


def test_what_is_to_be_done_when_the_callback_returns(
    serve: Callable[..., Server], clients: Callable[..., Any]
) -> None:
    """Each routine is a callback of its own: what it wants done at its return is done before another one begins."""
    lock, order = threading.Lock(), list[int]()

    class Routines:
        def leave(self, number: int) -> None:
            assert lock.acquire(timeout=LIMIT)
            current_callback().leave_when_returns(lock)
            order.append(number)

    server = serve(workers=1)
    server.register("leaving", Routines())
    binding = clients(server.endpoint).bind("leaving")
    binding.leave(0)
    for call in [binding.leave.begin(number) for number in range(1, 50)]:
        call.result(LIMIT)
    assert order == list(range(50))
    wait_until(lambda: not lock.locked())


def test_a_worker_that_is_to_lead_next(
    serve: Callable[..., Server], clients: Callable[..., Any], staying: Staying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that was to lead, and stays in a routine first, keeps no other from leading."""
    monkeypatch.setattr(leadership, "LEADER_MISSES", 0)  # Each that waits while another leads is to lead next.
    endpoint = serve(workers=20).endpoint
    for _ in range(12):
        binding = clients(endpoint).bind(Turning)
        binding.nothing(timeout=LIMIT)
        binding.stay.begin()
    staying.gate.wait_for_arrivals(12)
    clients(endpoint).bind(Turning).nothing(timeout=LIMIT)
    staying.gate.open()
