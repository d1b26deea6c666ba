"""In which order the routines of one client's calls are entered."""

import random
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ClassVar

import msgspec
import pytest

from engine import CallAttributes, Interface, Server
from engine.testing import LIMIT, Gate

from ..helpers import Service, present
from .conftest import SERVICE, Watched
from .interfaces import Order, Watch


@pytest.fixture
def fresh(service: Callable[..., Service]) -> str:
    """The endpoint of a service of this test's own, with 8 workers."""
    return service(module=SERVICE).endpoint


class TestCausal:
    """Source: "Causal Ordering of Asynchronous Calls"."""

    def test_quick(self, watched_clients: Callable[..., Watched], fresh: str) -> None:
        """Quick routines are entered in the order of the calls."""
        watched = watched_clients(fresh)
        calls = [watched.order.quick.begin(number) for number in range(3000)]
        for call in calls:
            call.result(LIMIT)
        assert watched.order.entered() == list(range(3000))

    def test_slow_and_quick_among_other_clients(self, watched_clients: Callable[..., Watched], fresh: str) -> None:
        """So are slow ones, which run side by side, and quick ones among them, while others keep workers busy."""
        watched, others = watched_clients(fresh), [watched_clients(fresh) for _ in range(3)]
        over = threading.Event()

        def busy(other: Any) -> None:
            while not over.is_set():
                for call in [other.watch.echo.begin(number) for number in range(50)]:
                    call.result(LIMIT)

        threads = [threading.Thread(target=busy, args=(other,)) for other in others]
        for thread in threads:
            thread.start()
        choose = random.Random(1)
        calls = [
            (watched.order.slow if choose.random() < 0.4 else watched.order.quick).begin(number)
            for number in range(2000)
        ]
        for call in calls:
            call.result(LIMIT)
        over.set()
        for thread in threads:
            thread.join(LIMIT)
        assert watched.order.entered() == list(range(2000))

    def test_slow_ones_overlap(self, watched_clients: Callable[..., Watched], fresh: str) -> None:
        """A routine that does not return keeps none from being entered after it; they may end in any order."""
        watched = watched_clients(fresh)
        first = watched.order.stuck.begin(0, "gate")
        later = [watched.order.stuck.begin(number, f"gate{number}") for number in range(1, 5)]
        watched.aside.bind(Order).wait_entered(4)
        for number, call in enumerate(later, 1):
            watched.order.open(f"gate{number}")
            call.result(LIMIT)
        assert not first.done()
        watched.order.open("gate")
        first.result(LIMIT)
        assert watched.order.entered() == list(range(5))

    def test_threads(self, watched_clients: Callable[..., Watched], fresh: str) -> None:
        """Each thread's calls keep their order on a shared client."""
        watched = watched_clients(fresh)

        def issue(start: int) -> None:
            for call in [watched.order.slow.begin(start + number) for number in range(200)]:
                call.result(LIMIT)

        threads = [threading.Thread(target=issue, args=(1000 * number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        entered = watched.order.entered()
        for start in (0, 1000, 2000, 3000):
            mine = [number for number in entered if start <= number < start + 1000]
            assert mine == list(range(start, start + 200))


class Laborious(msgspec.Struct):
    """A value whose making stops at a gate, if there is one."""

    gate: ClassVar[Gate | None] = None
    number: int

    def __post_init__(self) -> None:
        if self.gate is not None:
            self.gate.pass_through()


class Noting(Interface, id="tests.Noting"):
    """Notes what it is called with."""

    def note(self, value: Laborious) -> None: ...


class Blocking(SimpleQueue[bool]):
    """Routines to see that the monitor takes clients away from those that stay. `get` is not written in Python."""

    def __init__(self) -> None:
        self.gate = Gate()

    def stay(self) -> None:
        self.gate.pass_through()

    def nothing(self) -> None:
        pass


class TestEntering:
    """What counts as entering a routine."""

    @pytest.fixture
    def served(self, servers: Callable[..., Server], endpoint: str) -> tuple[Server, Blocking]:
        """A listening server with many workers."""
        server, blocking = servers(endpoint, workers=8), Blocking()
        server.register("blocking", blocking)
        server.listen()
        return server, blocking

    @pytest.mark.parametrize("what", ["security", "decoding"])
    def test_what_comes_before_the_routine(
        self, served: tuple[Server, Blocking], clients: Callable[..., Any], what: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A call keeps its place while a security callback, or the decoding of its arguments, takes its time."""
        (server, blocking), gate, noted = served, Gate(), list[int]()

        class Routines:
            def note(self, value: Laborious) -> None:
                noted.append(value.number)

        class Others:
            def note(self, number: int) -> None:
                noted.append(number)

        def admit(attributes: CallAttributes) -> bool:
            gate.pass_through()
            return True

        server.register(Noting, Routines(), security=admit if what == "security" else None)
        server.register("others", Others())
        client, other = clients(server.endpoint), clients(server.endpoint).bind("blocking")
        client.bind("blocking").nothing()
        value = Laborious(1)
        if what == "decoding":
            monkeypatch.setattr(Laborious, "gate", gate)
        calls = [client.bind(Noting).note.begin(value, timeout=LIMIT), client.bind("others").note.begin(2)]
        gate.wait_for_arrivals()
        staying = []
        for _ in range(3):
            # What is behind a routine that stays runs once the monitor has taken the client away; it looks at all.
            staying.append(other.stay.begin())
            other.nothing(timeout=LIMIT)
        assert noted == []
        gate.open()
        blocking.gate.open()
        for call in calls + staying:
            call.result(LIMIT)
        assert noted == [1, 2]

    def test_a_routine_not_written_in_python(
        self, served: tuple[Server, Blocking], clients: Callable[..., Any]
    ) -> None:
        """A routine that is not written in Python counts as entered when it is called: the next does not wait."""
        server, blocking = served
        binding = clients(server.endpoint).bind("blocking")
        call = binding.get.begin()
        binding.nothing(timeout=LIMIT)
        assert not call.done()
        blocking.put(True)
        assert call.result(LIMIT) is True


class TestNonCausal:
    """Source: "Binding Option Constants"."""

    def test_waits_for_none(self, watched_clients: Callable[..., Watched], fresh: str) -> None:
        """A call without a place in the order is answered, and so are those before and after it."""
        watched = watched_clients(fresh)
        free = watched.client.bind(Order, causal=False)
        blocked = watched.order.stuck.begin(0, "gate")
        free.quick(1)
        free.open("gate")
        blocked.result(LIMIT)
        assert sorted(watched.order.entered()) == [0, 1]

    def test_all_run(self, watched_clients: Callable[..., Watched], fresh: str) -> None:
        """Such calls all run, in whatever order."""
        watched = watched_clients(fresh)
        free = watched.client.bind(Order, causal=False)
        for call in [free.slow.begin(number) for number in range(500)]:
            call.result(LIMIT)
        assert sorted(free.entered()) == list(range(500))

    def test_by_name(self, watched_clients: Callable[..., Watched], fresh: str) -> None:
        """A binding by name has the option, too; results are typed and limits kept as on any other."""
        watched = watched_clients(fresh)
        assert watched.client.bind("tests.Watch", causal=False).echo("x") == "x"
        assert 0 < present(watched.client.bind(Watch, causal=False).time_left(timeout=LIMIT)) <= LIMIT
