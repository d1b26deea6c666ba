"""Who is woken for what waits in a pool's ring and queue, in all orders in which threads can come to meet.

The port, its workers and their seats are the real ones, and so are the clients whose calls are in the ring; an explorer
runs their threads step by step. In each state a seat is where its table says and its token with one thread, and the
slots are counted; in each end nothing waits while a worker sleeps, and all that was accepted has run, once.
"""

from collections.abc import Callable
from typing import Any

import pytest

from engine.kernel.thread import UNCOUNTED
from engine.kernel.waiter import Waiter
from engine.pool.running import TRANSITIONS, SeatState, come_back, current
from engine.rpc.server.turns import TRANSITIONS as CLIENT_TRANSITIONS
from tests.explorer import Explorer, Wrong
from tests.scheduled import LONG, QUICK, Client, Moves, PoolWorld, Port, Seat, substituted


def world(moves: Moves | None, workers: int, concurrency: int = 1, kind: type[Port] = Port) -> PoolWorld:
    return PoolWorld(Moves(CLIENT_TRANSITIONS), moves or Moves(TRANSITIONS), workers, concurrency, kind)


Make = Callable[..., PoolWorld]


def going_to_sleep(moves: Moves | None = None, kind: type[Port] = Port, client: type[Client] = Client) -> PoolWorld:
    """A call arrives, and another while the worker goes to sleep again."""
    made = world(moves, 1, kind=kind)
    one = made.client("client", kind=client, ready=False)
    made.actors["appender"] = made.appender(one, QUICK, QUICK)
    return made


def two_clients(moves: Moves | None = None) -> PoolWorld:
    made = world(moves, 1)
    for name in ("client", "other"):
        made.actors[name] = made.appender(made.client(name, ready=False), QUICK)
    return made


def callback_and_turn(moves: Moves | None = None) -> PoolWorld:
    """A callback is pushed while the worker takes its token, and while it puts it back."""
    made = world(moves, 1)
    made.actors["appender"] = made.appender(made.client("client", ready=False), QUICK)
    made.actors["pusher"] = made.pusher("callback")
    return made


def callbacks(moves: Moves | None = None) -> PoolWorld:
    made = world(moves, 1)
    made.actors |= {"pusher": made.pusher("one", "two"), "other": made.pusher("three")}
    return made


def slow_calls(moves: Moves | None = None) -> PoolWorld:
    """The worker leaves its seat before a slow call, and comes back by `next`."""
    made = world(moves, 2)
    made.actors["appender"] = made.appender(made.client("client", ready=False), LONG, QUICK)
    return made


def blocking_routine(moves: Moves | None = None) -> PoolWorld:
    """A routine blocks: it gives its slot back, and the rest of its client's turn to others."""
    made = world(moves, 2)
    client = made.client("client", ready=False)

    def block() -> None:
        assert current.runner is not None
        record = current.runner.record
        made.port._release_slot(record)
        made.port._retake_slot(record)

    def append() -> None:
        client.call(QUICK, block)
        client.call(QUICK)
        client.arrived()

    made.actors["appender"] = append
    return made


def idle_limit(moves: Moves | None = None) -> PoolWorld:
    """The worker has been idle for long, and leaves, just as a call arrives."""
    made = world(moves, 1)
    made.impatient = True
    made.actors["appender"] = made.appender(made.client("client", ready=False), QUICK)
    return made


def worker_away(moves: Moves | None = None, workers: int = 2) -> PoolWorld:
    """The monitor finds a worker away, wherever that is in the turns that it runs."""
    made = world(moves, workers)
    made.actors["appender"] = made.appender(made.client("client", ready=False), QUICK, QUICK)
    made.actors["monitor"] = made.monitor(2)
    return made


def lowered_maximum(moves: Moves | None = None, kind: type[Port] = Port) -> PoolWorld:
    """The maximum is lowered while both workers run turns, or are about to, or are just back."""
    made = world(moves, 2, 2, kind)
    one, other = made.client("client", ready=False), made.client("other", ready=False)

    def append() -> None:
        for client in (one, other):
            client.call()
            client.arrived()

    made.actors |= {"appender": append, "resizer": lambda: made.port.resize(0, 1)}
    return made


def no_worker_allowed(moves: Moves | None = None, kind: type[Port] = Port) -> PoolWorld:
    """As the one before, with fewer steps."""
    made = world(moves, 1, kind=kind)
    made.actors["appender"] = made.appender(made.client("client", ready=False), QUICK)
    made.actors["resizer"] = lambda: made.port.resize(0, 0)
    return made


def ended(moves: Moves | None = None, kind: type[Port] = Port) -> PoolWorld:
    """The pool ends while the worker runs a turn, or is about to, or is just back."""
    made = world(moves, 1, kind=kind)
    made.actors["appender"] = made.appender(made.client("client", ready=False), QUICK)
    made.actors["closer"] = made.port.end
    return made


SCENARIOS: tuple[Make, ...] = (
    going_to_sleep, two_clients, callback_and_turn, callbacks, slow_calls, blocking_routine, idle_limit, worker_away,
    lowered_maximum, no_worker_allowed, ended,
)  # fmt: skip


@pytest.mark.model
@pytest.mark.parametrize("make", SCENARIOS, ids=lambda make: make.__name__)
def test_no_order_breaks_it(make: Make, model_runs: int | None) -> None:
    """Whatever the order of their steps, workers and those who wake them keep to the table, and nothing is left."""
    with substituted(), Explorer(make) as explorer:
        explored = explorer.explore(model_runs)
    print(f"{make.__name__}: {explored}")
    assert explored.runs > 1 and explored.steps > explored.runs


def test_each_move_is_seen() -> None:
    """The table has no move that these threads do not make: each is seen in one of the first runs."""
    moves = Moves(TRANSITIONS)
    for make in SCENARIOS:
        with substituted(), Explorer(lambda: make(moves)) as explorer:  # noqa: B023  # called in this turn
            explorer.explore(50)
    assert moves.seen.keys() == {(before, after) for before, _, after, _ in TRANSITIONS}


def test_states_are_those_of_the_table() -> None:
    """Each state of a seat is in its table."""
    assert {state for before, _, after, _ in TRANSITIONS for state in (before, after)} == set(SeatState)


# What a small change would make of it: each of these is found.


class Flat(Seat):
    """`work`, in parts that can be put together in another order."""

    def work(self) -> bool:
        try:
            self.running.append(self.token.pop())
        except IndexError:
            return False
        self.begin()
        while self.ring and self.running:
            self.worker.run_turn()
        self.worker.item = None
        try:
            token = self.running.pop()
        except IndexError:
            self.result, self.signalled = come_back, True
        else:
            self.worker.record.slot = False
            self.end(token)
        return True

    def begin(self) -> None:
        self.worker.port.awake[self] = None
        self.worker.record.slot = UNCOUNTED
        self.worker.item = come_back

    def end(self, token: None) -> None:
        self.worker.port.awake.pop(self, None)
        self.token.append(token)
        self.worker.port.rested()


class TokenAfterLook(Flat):
    """The token is put back after the look at what came meanwhile."""

    def end(self, token: None) -> None:
        self.worker.port.awake.pop(self, None)
        self.worker.port.rested()
        self.token.append(token)


class StaysAwake(Flat):
    """The worker is awake until it sleeps."""

    def end(self, token: None) -> None:
        self.token.append(token)
        self.worker.port.rested()


class AsleepAfterLook(Port):
    """For `StaysAwake`: who sleeps is awake no longer, after the look into the ring."""

    def _sleep(self, seat: Any) -> bool:
        while not seat.signalled:
            if self.ring and seat.work():
                continue
            self.awake.pop(seat, None)
            seat.gate.acquire(True, self.idle_limit)
        return True


class AwakeLast(Flat):
    """The worker is put among the awake once the monitor can take its slot, and so take it out of them before."""

    def begin(self) -> None:
        self.worker.record.slot = UNCOUNTED
        self.worker.item = come_back
        self.worker.port.awake[self] = None


class LookedBeforeAppending(Client):
    """Who puts a client into the ring has looked before whether a worker is awake."""

    def arrived(self) -> None:
        if self._claim():
            port = self._scheduler.port
            awake = len(port.awake)
            port.ring.append(self)
            if not awake:
                port.need()


class RetiredBetween(Port):
    """Who retires a worker takes it for idle unless it runs turns: it may be about to."""

    def _retire_each_locked(self, keep: int, woken: list[Waiter]) -> None:
        for seat in list(self._waiters):
            if self._workers <= keep:
                break
            if not seat.claim() and seat.running:
                continue
            seat.worker.seat = None
            woken += [*self._exit_locked(seat.worker), seat]
            self._waiters.remove(seat)


class Overfull(Port):
    """A worker that has run its turns does not look whether there are too many by now."""

    def thin_out(self) -> None:
        pass


def retired_between() -> PoolWorld:
    return ended(kind=RetiredBetween)


def overfull() -> PoolWorld:
    return no_worker_allowed(kind=Overfull)


def asleep_after_look() -> PoolWorld:
    return going_to_sleep(kind=AsleepAfterLook)


def lone_worker_away() -> PoolWorld:
    return worker_away(workers=1)


def looked_before_appending() -> PoolWorld:
    return going_to_sleep(client=LookedBeforeAppending)


SEEDED: tuple[tuple[type[Seat], Callable[[], PoolWorld], str], ...] = (
    (TokenAfterLook, callback_and_turn, "a callback waits while workers sleep"),
    (StaysAwake, asleep_after_look, "a client waits while workers sleep"),
    (AwakeLast, lone_worker_away, "a worker that sleeps is awake"),
    (Seat, retired_between, "which is not in the table"),
    (Seat, overfull, "1 workers stay, of at most 0"),
    (Seat, looked_before_appending, "a client waits while workers sleep"),
)


@pytest.mark.parametrize("make", [going_to_sleep, callback_and_turn, slow_calls], ids=lambda make: make.__name__)
def test_the_parts_are_right(make: Make) -> None:
    """In their right order the parts from which mistakes are made come to what the real seat does."""
    with substituted(Flat), Explorer(make) as explorer:
        explorer.explore(300)


@pytest.mark.parametrize(("seat", "make", "what"), SEEDED, ids=lambda each: getattr(each, "__name__", ""))
def test_what_is_wrong_is_found(seat: type[Seat], make: Callable[[], PoolWorld], what: str) -> None:
    """A seat, a port or a client with a small mistake is found out: some order of the same threads' steps breaks it."""
    with substituted(seat), Explorer(make) as explorer, pytest.raises(Wrong, match=what) as found:
        explorer.explore(4000)
    print(str(found.value).partition("\n")[0])
