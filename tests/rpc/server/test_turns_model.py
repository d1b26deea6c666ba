"""Who has a client, in all orders in which threads can come to meet over it.

The client is the real one, up to the routines that it calls; an explorer runs its threads step by step. In each state
the client is where its table says: idle, in the ring once, or with one thread. In each end no call is lost, and those
in order were entered in order.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from engine.rpc.server.turns import TRANSITIONS, ClientState
from tests.explorer import Explorer, Wrong
from tests.scheduled import IN_LOOP, LONG, QUICK, Client, ClientWorld, LooseClient, Moves, substituted

Make = Callable[[Moves, type[Client]], ClientWorld]


@pytest.fixture(autouse=True)
def watched_scheduler() -> Iterator[None]:
    with substituted():
        yield


def two_appenders(moves: Moves, kind: type[Client]) -> ClientWorld:
    world = ClientWorld(moves)
    client = world.client("client", kind=kind, ready=False)
    world.actors = {"one": world.appender(client, QUICK), "other": world.appender(client, QUICK)}
    return world


def appender_and_owner(moves: Moves, kind: type[Client]) -> ClientWorld:
    world = ClientWorld(moves)
    client = world.client("client", QUICK, kind=kind)
    world.actors = {"appender": world.appender(client, QUICK), "owner": world.taker(1)}
    return world


def two_appenders_and_owner(moves: Moves, kind: type[Client]) -> ClientWorld:
    world = ClientWorld(moves)
    client = world.client("client", QUICK, kind=kind)
    world.actors = {
        "one": world.appender(client, QUICK),
        "other": world.appender(client, QUICK),
        "owner": world.taker(1),
    }
    return world


def owner_and_monitor(moves: Moves, kind: type[Client]) -> ClientWorld:
    world = ClientWorld(moves)
    client = world.client("client", QUICK, QUICK, kind=kind)
    world.actors = {"owner": world.taker(1), "monitor": lambda: client.take_away(1, True)}
    return world


def owner_monitor_and_taker(moves: Moves, kind: type[Client]) -> ClientWorld:
    world = owner_and_monitor(moves, kind)
    world.actors["taker"] = world.taker(2)
    return world


def owner_monitor_and_appender(moves: Moves, kind: type[Client]) -> ClientWorld:
    world = ClientWorld(moves)
    client = world.client("client", QUICK, kind=kind)
    world.actors = {
        "owner": world.taker(1),
        "monitor": lambda: client.take_away(1, True),
        "appender": world.appender(client, QUICK),
    }
    return world


def loose_owner_monitor_and_taker(moves: Moves, kind: type[Client]) -> ClientWorld:
    """Calls without order, the second of which the event loop is to begin: any thread may hand it over."""
    world = ClientWorld(moves)
    client = world.client("client", QUICK, IN_LOOP, QUICK, kind=LooseClient if kind is Client else kind)
    world.actors = {
        "owner": world.taker(1), "monitor": lambda: client.take_away(1, True), "taker": world.taker(2),
    }  # fmt: skip
    return world


def loose_passing_on(moves: Moves, kind: type[Client]) -> ClientWorld:
    """Calls without order of which the first is known to be slow: it may be taken away just before it is passed on."""
    world = ClientWorld(moves)
    client = world.client("client", LONG, QUICK, QUICK, kind=LooseClient if kind is Client else kind)
    world.actors = {
        "owner": world.taker(1), "monitor": lambda: client.take_away(1, True), "taker": world.taker(2),
    }  # fmt: skip
    return world


def passing_on_and_taker(moves: Moves, kind: type[Client]) -> ClientWorld:
    """Calls known to be slow: the thread passes the client on just before each."""
    world = ClientWorld(moves)
    world.client("client", LONG, LONG, kind=kind)
    world.actors = {"owner": world.taker(1), "taker": world.taker(2)}
    return world


def passing_on_and_appender(moves: Moves, kind: type[Client]) -> ClientWorld:
    world = ClientWorld(moves)
    client = world.client("client", LONG, kind=kind)
    world.actors = {"owner": world.taker(1), "taker": world.taker(2), "appender": world.appender(client, QUICK)}
    return world


def turn_that_ends(moves: Moves, kind: type[Client]) -> ClientWorld:
    """Calls of which nobody knew that each of them takes the whole turn, of two clients."""
    world = ClientWorld(moves)
    for name in ("client", "other"):
        client = world.client(name, QUICK, QUICK, kind=kind)
        calls: Iterable[Any] = client.calls
        for call in calls:
            call.seconds = 1e-3
    world.actors = {"owner": world.taker(1), "taker": world.taker(2)}
    return world


SCENARIOS: tuple[Make, ...] = (
    two_appenders, appender_and_owner, two_appenders_and_owner, owner_and_monitor, owner_monitor_and_taker,
    owner_monitor_and_appender, passing_on_and_taker, passing_on_and_appender, turn_that_ends,
    loose_owner_monitor_and_taker, loose_passing_on,
)  # fmt: skip


@pytest.mark.model
@pytest.mark.parametrize("make", SCENARIOS, ids=lambda make: make.__name__)
def test_no_order_breaks_it(make: Make, model_runs: int | None) -> None:
    """Whatever the order of their steps, threads that meet over a client keep to its table, and lose nothing."""
    with Explorer(lambda: make(Moves(TRANSITIONS), Client)) as explorer:
        explored = explorer.explore(model_runs)
    print(f"{make.__name__}: {explored}")
    assert explored.runs > 1 and explored.steps > explored.runs


def test_each_move_is_seen() -> None:
    """The table has no move that these threads do not make: each is seen in one of the first runs."""
    moves = Moves(TRANSITIONS)
    for make in SCENARIOS:
        with Explorer(lambda: make(moves, Client)) as explorer:  # noqa: B023  # called in this turn
            explorer.explore(50)
    assert moves.seen.keys() == {(before, after) for before, _, after in TRANSITIONS if before is not after}


# What a small change would make of it: each of these is found.


class TokenAfterLook(Client):
    """Puts the token of an idle client back after it has looked whether calls wait."""

    def _let_go_locked(self) -> bool:
        if self.calls:
            return True
        self._idle.append(None)
        return False

    def _end_turn(self, place: Any, over: float) -> None:
        with self._lock:
            self.account.held.discard(place)
            if self.owner is not place:
                return
            self.owner = None
            listed = self._let_go_locked()
        if listed:
            self._list([None])


class ListedTwice(Client):
    """Looks whether the token is there, and takes it in another step."""

    def arrived(self) -> None:
        if self._idle:
            self._idle.clear()
            self._scheduler.port.ring.append(self)


class PassedOnFirst(Client):
    """Lets others have the client before it notes that it is about to enter a routine of it."""

    def _pass_on(self, place: Any, call_id: int, cost: float) -> None:
        with self._lock:
            self.account.held.add(place)
            self.account.charge(cost)
            self.owner = None
            listed = self._let_go_locked()
        if listed:
            self._list([None])
        self._note_entering(place, call_id)


class AskedWithoutLock(Client):
    """Asks whether it has the client still while the monitor may be just looking, when nobody seems to have it."""

    def _end_turn(self, place: Any, over: float) -> None:
        if self.owner is place:
            super()._end_turn(place, over)
        else:
            self.account.held.discard(place)


class RestoredWithoutLock(Client):
    """The monitor gives the client back without the lock."""

    def take_away(self, ident: int, overran: bool) -> bool:
        owner = self.owner
        if owner is None or owner.ident != ident:
            return True
        self.owner = None
        if not self._may_take_away(owner):
            self.owner = owner
            return False
        return super().take_away(ident, overran)


class LookedFirst(Client):
    """The monitor looks whether the thread is inside, and takes the client after that."""

    def take_away(self, ident: int, overran: bool) -> bool:
        with self._lock:
            owner = self.owner
            if owner is None or owner.ident != ident or not self._may_take_away(owner):
                return owner is None
            self.owner = None
            self.account.held.add(owner)
            listed = self._let_go_locked()
        if listed:
            self._list([None])
        return True


class TakenWithoutLock(LooseClient):
    """Looks whether it has the client, and takes a call in another step."""

    def _take(self, place: Any) -> Any:
        try:
            return self.calls.popleft() if self.owner is place else None
        except IndexError:
            return None


SEEDED: tuple[tuple[type[Client], Make, str], ...] = (
    (TokenAfterLook, appender_and_owner, "has 1 calls, and is ClientState.IDLE"),
    (ListedTwice, two_appenders, "client is .*READY.*READY"),
    (PassedOnFirst, passing_on_and_taker, "out of order"),
    (AskedWithoutLock, owner_and_monitor, "and is ClientState.OWNED"),
    (RestoredWithoutLock, owner_and_monitor, "ClientState.OWNED"),
    (TakenWithoutLock, loose_owner_monitor_and_taker, "IndexError|twice|lost"),
    (LookedFirst, owner_monitor_and_taker, "IndexError|out of order|ClientState"),
)


@pytest.mark.parametrize(("kind", "make", "what"), SEEDED, ids=lambda each: getattr(each, "__name__", ""))
def test_what_is_wrong_is_found(kind: type[Client], make: Make, what: str) -> None:
    """A client with a small mistake is found out: some order of the same threads' steps breaks it."""
    with Explorer(lambda: make(Moves(TRANSITIONS), kind)) as explorer, pytest.raises(Wrong, match=what) as found:
        explorer.explore()
    print(found.value)


def test_states_are_those_of_the_table() -> None:
    """Each state of a client is in its table, as one that it leaves and one that it comes to."""
    for column in (0, 2):
        assert {row[column] for row in TRANSITIONS} == set(ClientState)
