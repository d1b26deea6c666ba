"""A new way to notify is one class: plain calls, calls with pipes and a server's subscriptions take it as they are."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from engine import Client, EventKind, Interface, OutPipe, PipePending, Semaphore, Server, ServerCall, manager, operation
from engine.kernel.notification import Notification
from engine.testing import LIMIT, Gate, wait_until


class Release(Notification, frozen=True):
    """Add 1 to a semaphore for each thing that happens."""

    semaphore: Semaphore

    def notify(self, operation: Any, kind: Any) -> None:
        self.semaphore.release()


class Driven(Release, frozen=True):
    """The same, for programs of which no thread waits for the network."""

    needs_driver = True


class Numbers(Interface, id="test.NewNotification"):
    """A plain operation, one with a pipe, and one that is held."""

    @operation
    def double(self, number: int) -> int:
        """Return twice the number."""

    @operation
    def count(self, limit: int, numbers: OutPipe[int]) -> str:
        """Push the numbers below the limit."""

    @operation
    def held(self) -> None:
        """Return when it is cancelled."""


class Routines:
    """What serves them; `cancelled` is released as the held call is cancelled, the gates say how far a call is."""

    def __init__(self) -> None:
        self.cancelled = Semaphore(0, 1)
        self.subscribed = Gate()
        self.asked = Gate()

    def double(self, number: int) -> int:
        return 2 * number

    def count(self, limit: int, numbers: Any) -> str:
        self.asked.pass_through()
        numbers.push(list(range(limit)))
        numbers.push([])
        return "counted"

    @manager
    def held(self, call: ServerCall) -> None:
        call.subscribe(EventKind.CLIENT_CANCEL, Release(self.cancelled))
        self.subscribed.open()
        assert self.cancelled.wait(LIMIT)
        call.complete()


@pytest.fixture
def routines() -> Routines:
    return Routines()


@pytest.fixture
def numbers(routines: Routines, endpoint: str) -> Iterator[Numbers]:
    with Server(endpoint) as server:
        server.register(Numbers, routines)
        server.listen()
        with Client(endpoint) as client:
            yield client.bind(Numbers)


@pytest.mark.parametrize("way", [Release, Driven])
@pytest.mark.parametrize("count", [1, 16])
def test_plain_calls(numbers: Numbers, way: type[Release], count: int) -> None:
    """Each of many calls is notified of once, by one notification for all and by one for each."""
    semaphore = Semaphore(0, 2 * count)
    shared = way(semaphore)
    calls = [numbers.double.begin(number, notify=shared) for number in range(count)]
    calls += [numbers.double.begin(number, notify=way(semaphore)) for number in range(count)]
    for _ in calls:
        assert semaphore.wait(LIMIT)
    assert [call.complete() for call in calls] == [2 * number for number in range(count)] * 2
    assert not semaphore.is_signaled()


def test_needs_driver(numbers: Numbers) -> None:
    """A class that says so gets the network driven: the call ends though no thread asks or waits for it."""
    released: list[EventKind] = []

    class Note(Notification, frozen=True):
        needs_driver = True

        def notify(self, operation: Any, kind: Any) -> None:
            released.append(kind)

    numbers.double.begin(1, notify=Note())
    wait_until(lambda: released == [EventKind.CALL_COMPLETE])


def test_calls_with_pipes(numbers: Numbers, routines: Routines) -> None:
    """Each signal of a call with pipes, and its end, are notified of."""
    semaphore = Semaphore(0, 10)
    call = numbers.count.begin(3, notify=Release(semaphore))
    pipe = call.pipe("numbers")
    with pytest.raises(PipePending):
        pipe.pull()
    routines.asked.open()
    assert semaphore.wait(LIMIT)
    assert list(pipe) == [0, 1, 2]
    assert semaphore.wait(LIMIT)
    assert call.event is EventKind.CALL_COMPLETE
    assert call.complete() == "counted"


def test_subscriptions(numbers: Numbers, routines: Routines) -> None:
    """A server's subscription takes it, too."""
    call = numbers.held.begin()
    routines.subscribed.pass_through()
    call.cancel()
    assert call.result(LIMIT) is None


def test_a_way_that_fails(numbers: Numbers, caplog: pytest.LogCaptureFixture) -> None:
    """What the target refuses is logged; the calls, and the others' notifications, go on."""
    full, free = Semaphore(1, 1), Semaphore(0, 2)
    with caplog.at_level(logging.WARNING):
        calls = [numbers.double.begin(number, notify=Release(full if number % 2 else free)) for number in range(4)]
        assert free.wait(LIMIT)
        assert free.wait(LIMIT)
        assert [call.result(LIMIT) for call in calls] == [0, 2, 4, 6]
        wait_until(lambda: caplog.text.count("could not be delivered") == 2)
