"""The network is driven without a waiting thread only while somebody depends on that."""

from collections.abc import Callable
from typing import Any

from engine import Client, Event
from engine.kernel.driver import driver
from engine.testing import LIMIT, Gate, wait_until
from transport.frames import Hello, Welcome

from ...one_by_one import calls_in
from ..helpers import Bench, RawServer, Service
from ..interfaces import Probe


def attended_after(before: set[Any]) -> bool:
    """Whether something is attended that was not before."""
    return bool(set(driver()._needing_progress) - before)


class TestAttention:
    """Nobody's thread is kept awake by calls that are over."""

    def test_callbacks(self, bench: Bench, key: str) -> None:
        """Calls that are told of by a callback are attended until the last of them was."""
        bench.probe.nothing()
        before = set(driver()._needing_progress)
        with Event() as told:
            first = bench.held(f"{key}-1", notify=lambda call, kind: None)
            second = bench.held(f"{key}-2", notify=lambda call, kind: told.set())
            assert attended_after(before)
            bench.control.complete(f"{key}-1", 1)
            assert first.result(LIMIT) == 1
            assert attended_after(before)
            bench.control.complete(f"{key}-2", 2)
            assert told.wait(LIMIT) and second.result(LIMIT) == 2
        wait_until(lambda: not attended_after(before))

    def test_connecting(self, service: Callable[..., Service], endpoint: str) -> None:
        """A call that waits for its server is attended; once it left, a thread that waits is enough."""
        before = set(driver()._needing_progress)
        with Client(endpoint, connect_timeout=None) as client:
            call = client.bind(Probe).echo.begin(1)
            assert attended_after(before)
            service(endpoint)
            assert call.result(LIMIT) == 1
            wait_until(lambda: not attended_after(before))

    def test_what_waited_for_the_greeting(self, endpoint: str) -> None:
        """A call too large to leave before the greeting leaves once that is harvested, by whichever thread; none waits
        for the call, and the monitor is busy.
        """
        monitor = Gate()
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=LIMIT) as client:
            large = client.bind(Probe).echo.begin(bytes(1 << 17))
            assert type(raw.hear()) is Hello
            driver().monitor.call_soon(monitor.pass_through)
            monitor.wait_for_arrivals()
            try:
                raw.say(Welcome(b"\2" * 16))
                wait_until(lambda: driver().harvest(client._connection.channel) or client._connection.session.is_open)
                heard: Any = raw.hear()
            finally:
                monitor.open()
            assert [each.id for each in calls_in(heard)] == [large._id]
