"""No client of a server, and no seat of a worker, is lost for an allocation that fails, whichever it is."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest

from engine import ThreadPool
from engine.pool.pool import port_of
from engine.pool.running import IdleWaiter
from engine.rpc.server.turns import Account, ClientTurns, Scheduler

memory = pytest.importorskip("_testcapi")
MOST = 40  # More than any of these steps allocates: the last ones of a sweep find memory throughout.


@contextmanager
def failing(number: int) -> Iterator[None]:
    """The allocation of that number fails, within."""
    memory.set_nomemory(number, number + 1)
    try:
        yield
    finally:
        memory.remove_mem_hooks()


def crowd() -> deque[Any]:
    """A ring whose next entry needs a new block of the deque's."""
    ring: deque[Any] = deque()
    ring.append(None)
    for _ in range(200):
        before = ring.__sizeof__()
        ring.append(None)
        if ring.__sizeof__() > before:
            ring.pop()
            break
    return ring


class Place:
    """Of a thread that has a client."""

    ident = 7
    call_id = None


class Turns(ClientTurns):
    """A client, without a server, whose one call waits for a worker."""

    __slots__ = ()

    def __init__(self) -> None:
        port: Any = SimpleNamespace(ring=crowd(), need=lambda: None, awake=())
        watch: Any = SimpleNamespace(note=lambda place: bytes(100))  # It allocates, as the real one does.
        super().__init__(Scheduler(port, None, None, watch), Account())  # type: ignore[arg-type]  # it starts nothing
        self._lock = threading.Lock()  # type: ignore[assignment]  # what looks after the order of locks allocates, too
        self.calls.append(SimpleNamespace(entry=SimpleNamespace(needs_no_worker=False)))  # type: ignore[arg-type]  # a call

    def places(self) -> list[str]:
        """Where the client is: in the ring, idle, or had by a thread."""
        found = ["ring"] * self._scheduler.port.ring.count(self)
        return found + ["idle"] * len(self._idle) + ["owned"] * (self.owner is not None)

    def had(self, place: Any) -> None:
        """A thread takes it."""
        self._idle.clear()
        self.owner = place

    def _may_take_away(self, owner: Any) -> bool:
        return True


def end_turn(turns: Turns, place: Any) -> None:
    turns._end_turn(place, 0.001)


def take_away(turns: Turns, place: Any) -> None:
    turns.take_away(place.ident, False)


class TestAClient:
    """A client, as one allocation fails on its way."""

    @pytest.mark.parametrize("step", [ClientTurns.post, ClientTurns.arrived])
    def test_calls_arrive(self, step: Callable[[ClientTurns], None]) -> None:
        """It is in the ring once, all the same."""
        for number in (10**9, *range(MOST)):
            turns = Turns()
            with failing(number):
                step(turns)
            assert turns.places() == ["ring"], number

    @pytest.mark.parametrize("step", [end_turn, take_away])
    @pytest.mark.parametrize("calls", [True, False])
    def test_it_is_let_go(self, step: Callable[[Turns, Any], None], calls: bool) -> None:
        """It is where it is to be next, or is had still, and let go of the next time."""
        for number in (10**9, *range(MOST)):
            turns, place = Turns(), Place()
            if not calls:
                turns.calls.clear()
            turns.had(place)
            with suppress(MemoryError), failing(number):
                step(turns, place)
            if turns.places() == ["owned"]:
                step(turns, place)
            assert turns.places() == ["ring" if calls else "idle"], number


class TestASeat:
    """The seat of an idle worker, as one allocation fails."""

    def test_turns_are_run(self) -> None:
        """It is free again, and its worker counted as awake no longer."""
        for number in (10**9, *range(MOST)):
            port: Any = SimpleNamespace(
                ring=deque([SimpleNamespace(take_turn=lambda worker: None)]), awake={}, watched=True, saturated=False,
                inbox=(), ending=False, crowded=False,
            )  # fmt: skip
            worker: Any = SimpleNamespace(
                port=port, record=SimpleNamespace(slot=False), unsent=[], item=None, turns=None, off_slot=False, turn=0,
                instance=None,
            )  # fmt: skip
            seat = IdleWaiter(worker, SimpleNamespace(depth=0))  # type: ignore[arg-type]  # of which it asks the depth only
            with suppress(MemoryError), failing(number):
                seat.work()
            assert (list(seat.token), list(seat.running), port.awake) == ([None], [], {}), number
            assert (worker.record.slot, worker.item) == (False, None), number


class TestAPool:
    """What a pool does after a change, as it has no memory for a part of it."""

    def test_threads_that_were_counted_are_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A thread that cannot be woken keeps none from being started."""

        class Broken:
            def wake(self) -> None:
                raise MemoryError

        started: list[int] = []
        with ThreadPool(2) as pool:
            port = port_of(pool)
            monkeypatch.setattr(type(port), "_spawn", lambda port, number: started.append(number))
            with pytest.raises(MemoryError):
                port.act(([Broken()], 1, False))  # type: ignore[list-item]  # all that is asked of a waiter
            monkeypatch.undo()
        assert started == [1]

    def test_it_is_watched_the_next_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The monitor that could not take it on is asked again."""
        asked: list[object] = []

        def watch(thing: object) -> None:
            asked.append(thing)
            if len(asked) == 1:
                raise MemoryError

        with ThreadPool(2) as pool:
            port = port_of(pool)
            port.watched = False
            monitor: Any = SimpleNamespace(monitor=SimpleNamespace(watch=watch))
            monkeypatch.setattr("engine.pool.dispatch.driver", lambda: monitor)
            with pytest.raises(MemoryError):
                port.attend()
            port.attend()
            monkeypatch.undo()
        assert asked == [port, port]
