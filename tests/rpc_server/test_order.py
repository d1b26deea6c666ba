"""In which order the routines of one client's calls are entered."""

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from engine.testing import LIMIT

from .conftest import Child
from .contract import Order, Watch


@pytest.fixture
def fresh(endpoint: str) -> Any:
    """The endpoint of a service of this test's own, with 8 workers."""
    child = Child("service", endpoint)
    yield endpoint
    child.end()


class TestCausal:
    """Source: "Causal Ordering of Asynchronous Calls"."""

    def test_quick(self, benches: Callable[..., Any], fresh: str) -> None:
        """Quick routines are entered in the order of the calls."""
        bench = benches(fresh)
        calls = [bench.order.quick.begin(number) for number in range(3000)]
        for call in calls:
            call.result(LIMIT)
        assert bench.order.entered() == list(range(3000))

    def test_slow_and_quick_among_other_clients(self, benches: Callable[..., Any], fresh: str) -> None:
        """So are slow ones, which run side by side, and quick ones among them, while others keep workers busy."""
        bench, others = benches(fresh), [benches(fresh) for _ in range(3)]
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
            (bench.order.slow if choose.random() < 0.4 else bench.order.quick).begin(number) for number in range(2000)
        ]
        for call in calls:
            call.result(LIMIT)
        over.set()
        for thread in threads:
            thread.join(LIMIT)
        assert bench.order.entered() == list(range(2000))

    def test_slow_ones_overlap(self, benches: Callable[..., Any], fresh: str) -> None:
        """A routine that does not return keeps none from being entered after it; they may end in any order."""
        bench = benches(fresh)
        first = bench.order.stuck.begin(0, "gate")
        later = [bench.order.stuck.begin(number, f"gate{number}") for number in range(1, 5)]
        bench.aside.bind(Order).wait_entered(4)
        for number, call in enumerate(later, 1):
            bench.order.open(f"gate{number}")
            call.result(LIMIT)
        assert not first.done()
        bench.order.open("gate")
        first.result(LIMIT)
        assert bench.order.entered() == list(range(5))

    def test_threads(self, benches: Callable[..., Any], fresh: str) -> None:
        """Each thread's calls keep their order on a shared client."""
        bench = benches(fresh)

        def issue(start: int) -> None:
            for call in [bench.order.slow.begin(start + number) for number in range(200)]:
                call.result(LIMIT)

        threads = [threading.Thread(target=issue, args=(1000 * number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        entered = bench.order.entered()
        for start in (0, 1000, 2000, 3000):
            mine = [number for number in entered if start <= number < start + 1000]
            assert mine == list(range(start, start + 200))


class TestNonCausal:
    """Source: "Binding Option Constants"."""

    def test_waits_for_none(self, benches: Callable[..., Any], fresh: str) -> None:
        """A call without a place in the order is answered, and so are those before and after it."""
        bench = benches(fresh)
        free = bench.client.bind(Order, causal=False)
        blocked = bench.order.stuck.begin(0, "gate")
        free.quick(1)
        free.open("gate")
        blocked.result(LIMIT)
        assert sorted(bench.order.entered()) == [0, 1]

    def test_all_run(self, benches: Callable[..., Any], fresh: str) -> None:
        """Such calls all run, in whatever order."""
        bench = benches(fresh)
        free = bench.client.bind(Order, causal=False)
        for call in [free.slow.begin(number) for number in range(500)]:
            call.result(LIMIT)
        assert sorted(free.entered()) == list(range(500))

    def test_by_name(self, benches: Callable[..., Any], fresh: str) -> None:
        """A binding by name has the option, too; results are typed and limits kept as on any other."""
        bench = benches(fresh)
        assert bench.client.bind("tests.Watch", causal=False).echo("x") == "x"
        assert 0 < bench.client.bind(Watch, causal=False).time_left(timeout=LIMIT) <= LIMIT
