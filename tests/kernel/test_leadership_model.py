"""Which thread leads, in all orders in which threads that wait, and those who wake them, can come to meet.

The driver and the waiters are the real ones, with a poll set and a bell that the explorer sees; it runs their threads
step by step. At no time do two threads poll; in each end who was sent something has it, and of those that wait on one
leads, unless nobody has to.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest

from engine.kernel import waiter as waiters
from engine.kernel.driver import Driver
from engine.kernel.leadership import LEADER_MISSES, TRANSITIONS, Leadership, ThreadState
from engine.kernel.waiter import Waiter
from tests import explorer
from tests.explorer import Explorer, Scenario, Wrong, called
from tests.scheduled import Moves
from tests.watched import Attribute, Deque, Dict, Field, Gate, List, Lock, Set


class Sleeper(Waiter):
    """A wait of one thread. `calls` is what it runs meanwhile, if it is an idle worker."""

    __slots__ = ("calls", "running")
    signalled = Attribute(Waiter, "signalled")
    interrupt = Attribute(Waiter, "interrupt")

    def __init__(self, name: str) -> None:
        with explorer.untold():
            super().__init__()
        called(name, self)
        called(f"{name}.gate", self.gate)
        self.calls = called(f"{name}.calls", Deque())
        self.running = called(f"{name}.running", List())

    def __hash__(self) -> int:
        return id(self)

    def work(self) -> bool:
        """As `IdleWaiter.work`: its wait ends if another thread has taken it away meanwhile."""
        self.running.append(None)
        self.calls.popleft()()
        try:
            self.running.pop()
        except IndexError:
            self.signalled = True
        return True


class Wire:
    """A source: what arrives is called when it is harvested. Watched as one with the poll that it ends."""

    def __init__(self) -> None:
        self.arrived: deque[Callable[[], object]] = deque()

    def descriptors(self) -> list[int]:
        return [1]

    def arrive(self, act: Callable[[], object]) -> None:
        explorer.step(self, True)
        self.arrived.append(act)

    def drive(self, readable: bool) -> bool:
        while True:
            explorer.step(self, True)
            if not self.arrived:
                return False
            self.arrived.popleft()()


class PollSet:
    """A poll set with its bell, which is level-triggered, as theirs are."""

    fd = 2

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._registered: set[int] = set()
        self._rung = False
        # Who polls, and may have to wait.
        self.polling: str | None = None

    def register(self, fd: int, mask: int) -> None:
        explorer.step(self._wire, True)
        self._registered.add(fd)

    def unregister(self, fd: int) -> None:
        explorer.step(self._wire, True)
        self._registered.discard(fd)

    def ring(self) -> None:
        explorer.step(self._wire, True)
        self._rung = True

    def silence(self) -> None:
        explorer.step(self._wire, True)
        self._rung = False

    def fileno(self) -> int:
        return -1

    def _ready(self) -> list[tuple[int, int]]:
        found = [(1, 1)] if self._wire.arrived and 1 in self._registered else []
        return found + ([(self.fd, 1)] if self._rung else [])

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        if timeout:
            assert self.polling is None, "two threads poll"
            self.polling = explorer.current_name()
        explorer.step(self._wire, False, lambda: not timeout or bool(self._ready()))
        if timeout:
            self.polling = None
        return self._ready()


class WatchedMonitor:
    """As the monitor does: armed, it offers a vacant leadership."""

    armed = Field("armed")
    late = False

    def __init__(self) -> None:
        called("monitor", self)
        self.armed = False
        self.driver: Any = None

    def arm(self) -> None:
        self.armed = True

    def run(self) -> None:
        while True:
            explorer.step(self, True, lambda: bool(self.__dict__["armed"]), "armed")
            self.__dict__["armed"] = False
            if self.driver.vacant():
                self.driver.offer()


class WatchedDriver(Driver):
    """The driver."""

    _leader = Field("_leader")
    _successor = Field("_successor")
    _polling = Field("_polling")
    leader_ident = Field("leader_ident")

    def __init__(self, wire: Wire) -> None:
        called("driver", self)
        with mock.patch("engine.kernel.driver.Monitor", lambda driver: WatchedMonitor()):
            super().__init__()
        self.monitor.driver = self  # type: ignore[attr-defined]  # the explorer puts its own in its place
        self._mutex = called("mutex", Lock())  # type: ignore[assignment]  # the explorer puts its own in its place
        self._poll: Any = called("poll", PollSet(wire))
        self._bell = self._poll  # type: ignore[assignment]  # the explorer puts its own in its place
        self.sources = called("sources", Dict())
        self._parked = called("parked", Dict())
        self._scheduled = called("scheduled", Dict())
        self._harvesting = called("harvesting", Set())
        self.schedule, self.unschedule = self._scheduled.setdefault, self._scheduled.pop

    def state(self, waiter: Waiter, waits: bool) -> ThreadState | None:
        """What the table calls the state of the thread of `waiter`; None: between two."""
        leads, parked = self._leader is waiter, waiter in self._parked
        assert not (leads and parked), "a thread leads that is parked"
        return (
            ThreadState.LEADING if leads else ThreadState.PARKED if parked else None if waits else ThreadState.RUNNING
        )


class DriverWorld(Scenario):
    """Threads that wait, one source, and who sends them something by it."""

    def __init__(self, moves: Moves, kind: type[WatchedDriver] = WatchedDriver, registered: bool = True) -> None:
        self.moves = moves
        moves.begin()
        self.wire = called("wire", Wire())
        self.driver = kind(self.wire)
        self.waits: dict[str, bool] = {}
        self.sleepers: dict[str, Any] = {}
        self.sent: set[str] = set()
        self.actors = {"monitor": self.driver.monitor.run}  # type: ignore[attr-defined]  # the explorer puts its own in its place
        if registered:
            self.driver.register(self.wire)
            self.driver._drive_scheduled()

    def sleeper(self, name: str, kind: type[Sleeper] = Sleeper, asleep: bool = False) -> Any:
        """A thread that waits for something to be sent to it; `asleep`: it does so from the beginning."""
        made = self.sleepers[name] = kind(name)
        self.waits[name] = False
        self.moves.see(made, ThreadState.RUNNING)

        def wait() -> None:
            self.waits[name] = True
            self.driver.wait(made, None)
            self.waits[name] = False
            self.moves.see(made, ThreadState.RUNNING)

        if asleep:
            wait.prologue = True  # type: ignore[attr-defined]  # the explorer puts its own in its place
        self.actors[name] = wait
        return made

    def sender(self, *names: str) -> Callable[[], None]:
        """Who sends something to each of them, over the wire."""

        def send() -> None:
            for name in names:
                self.wire.arrive(self.sleepers[name].wake)
                self.sent.add(name)

        return send

    def check(self) -> None:
        for name, waiter in self.sleepers.items():
            self.moves.see(waiter, self.driver.state(waiter, self.waits[name]))
            leads = self.driver._leader is waiter
            assert leads or self.driver._poll.polling != name, "a thread polls that does not lead"

    def check_end(self) -> None:
        waiting = {name for name, waits in self.waits.items() if waits}
        late = waiting & self.sent
        assert not late, f"{late} wait for what was sent to them"
        leads = [name for name, waiter in self.sleepers.items() if self.driver._leader is waiter]
        assert leads or not waiting or not self.driver.sources, f"{waiting} wait, and no thread leads"
        if not waiting:
            assert self.driver._leader is None and not self.driver._parked and self.driver._successor is None


@pytest.fixture(autouse=True)
def watched_gates() -> Iterator[None]:
    with mock.patch.object(waiters, "allocate_lock", Gate):
        yield


def new_moves() -> Moves:
    return Moves(TRANSITIONS)


Make = Callable[..., DriverWorld]


def two_wait(moves: Moves | None = None) -> DriverWorld:
    """Two threads wait, and what they wait for comes: who leads first may have to hand over."""
    world = DriverWorld(moves or new_moves())
    world.sleeper("one")
    world.sleeper("other")
    world.actors["sender"] = world.sender("one", "other")
    return world


def one_wakes_the_other(moves: Moves | None = None, kind: type[Sleeper] = Sleeper) -> DriverWorld:
    """A thread wakes one that leads, or is about to."""
    world = DriverWorld(moves or new_moves())
    world.sleeper("one", kind)

    def wake() -> None:
        world.sent.add("one")
        world.sleepers["one"].wake()

    world.actors["waker"] = wake
    return world


def misplaced(moves: Moves | None = None) -> DriverWorld:
    """The leader's polls bring only what is for others: the next that comes to wait is its successor."""
    world = DriverWorld(moves or new_moves())
    world.sleeper("one")
    world.sleeper("other")
    world.driver._misses = LEADER_MISSES

    def leave_it(waiter: Any) -> bool:
        led = Leadership._take_lead(world.driver, waiter)
        if led:
            world.driver._misses = LEADER_MISSES
        return led

    world.driver._take_lead = leave_it  # type: ignore[method-assign]  # the explorer puts its own in its place
    world.actors["sender"] = world.sender("other")
    return world


def with_deposer(world: DriverWorld, worker: Any, looks: int) -> DriverWorld:
    """Who looks so often at a worker that runs something, and deposes it if it still does."""
    worker.ring = worker.calls

    def depose() -> None:
        for _ in range(looks):
            explorer.step(worker.running, False, lambda: list.__len__(worker.running) > 0)
            try:
                worker.running.pop()
            except IndexError:
                continue
            world.driver.depose(worker)
            world.driver.ensure_led()
            world.sent.add("worker")  # Its wait ends.
            return

    world.actors["deposer"] = depose
    return world


def away(moves: Moves | None = None, kind: type[WatchedDriver] = WatchedDriver) -> DriverWorld:
    """A worker is away in what it runs, which it had before or has harvested, and is deposed; another one waits."""
    world = DriverWorld(moves or new_moves(), kind)
    worker = world.sleeper("worker")
    world.sleeper("other")
    with explorer.untold():
        worker.calls.append(int)

    def send() -> None:
        world.wire.arrive(lambda: worker.calls.append(int))
        world.sender("other")()

    world.actors["sender"] = send
    return with_deposer(world, worker, 2)


def leader_away(moves: Moves | None = None, kind: type[WatchedDriver] = WatchedDriver) -> DriverWorld:
    """The leader is deposed as it is away in what it has harvested, or just back; another one is parked."""
    world = DriverWorld(moves or new_moves(), kind)
    worker = world.sleeper("worker", asleep=True)
    world.sleeper("other", asleep=True)
    world.prepare = lambda: world.wire.arrived.append(lambda: worker.calls.append(int))  # type: ignore[method-assign]  # the explorer puts its own in its place
    return with_deposer(world, worker, 1)


def first_source(moves: Moves | None = None, kind: type[WatchedDriver] = WatchedDriver) -> DriverWorld:
    """The first source is registered while a thread comes to wait, and finds none."""
    world = DriverWorld(moves or new_moves(), kind, registered=False)
    world.sleeper("one")

    def register() -> None:
        world.driver.register(world.wire)
        world.sender("one")()

    world.actors["registrar"] = register
    return world


SCENARIOS: tuple[Make, ...] = (two_wait, one_wakes_the_other, misplaced, away, leader_away, first_source)


@pytest.mark.model
@pytest.mark.parametrize("make", SCENARIOS, ids=lambda make: make.__name__)
def test_no_order_breaks_it(make: Make, model_runs: int | None) -> None:
    """Whatever the order of their steps, one thread at most polls, and nobody waits for what was sent to it."""
    with Explorer(make) as explorer_:
        explored = explorer_.explore(model_runs)
    print(f"{make.__name__}: {explored}")
    assert explored.runs > 1 and explored.steps > explored.runs


def test_each_move_is_seen() -> None:
    """The table has no move that these threads do not make."""
    moves = new_moves()
    for make in SCENARIOS:
        with Explorer(lambda: make(moves)) as explorer_:  # noqa: B023  # called in this turn
            explorer_.explore(200)
    assert moves.seen.keys() == {(before, after) for before, _, after, _ in TRANSITIONS}


# What a small change would make of it: each of these is found.


class LooksFirst(Sleeper):
    """Who wakes it looks whether it polls before it says that the wait is satisfied."""

    def wake(self) -> None:
        interrupt = self.interrupt
        self.signalled = True
        try:
            self.gate.release()
        except RuntimeError:
            pass
        if interrupt is not None:
            interrupt()


class DeposesAnyone(WatchedDriver):
    """Takes the leadership from whoever has it."""

    def depose(self, waiter: Waiter) -> bool:
        with self._mutex:
            self._leader = None
            self.leader_ident = 0
        return True


class LeavesUnasked(WatchedDriver):
    """A leader that leaves does not ask again, under the lock, whether it leads still."""

    def _leave(self, waiter: Waiter) -> None:
        self._parked.pop(waiter, None)
        if self._leader is waiter:
            waiter.interrupt = None
            with self._mutex:
                self._polling = False
                self._leader = None
                self.leader_ident = 0
        if not self.monitor.armed and self._parked and self.vacant():
            self.monitor.arm()


class ParksUnseen(WatchedDriver):
    """A thread looks whether there is something to lead, and is listed as parked after that."""

    def _take_lead(self, waiter: Waiter) -> bool:
        if not self.sources:
            self._parked[waiter] = None
            return False
        return super()._take_lead(waiter)


SEEDED: tuple[tuple[Callable[[], DriverWorld], str], ...] = (
    (lambda: one_wakes_the_other(kind=LooksFirst), "wait for what was sent"),
    (lambda: leader_away(kind=DeposesAnyone), "a thread polls that does not lead"),
    (lambda: leader_away(kind=LeavesUnasked), "a thread polls that does not lead"),
    (lambda: first_source(kind=ParksUnseen), "wait for what was sent"),
)
NAMES = ("looks first", "deposes anyone", "leaves unasked", "parks unseen")


@pytest.mark.parametrize(("make", "what"), SEEDED, ids=NAMES)
def test_what_is_wrong_is_found(make: Callable[[], DriverWorld], what: str) -> None:
    """A driver or a waiter with a small mistake is found out: some order of the same threads' steps breaks it."""
    with Explorer(make) as explorer_, pytest.raises(Wrong, match=what) as found:
        explorer_.explore(4000)
    print(str(found.value).partition("\n")[0])
