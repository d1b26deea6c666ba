"""The scheduler's own objects, watched, for an explorer to run: clients, and the places of threads.

What runs are the library's methods; what stands in for something else is named so. Routines are what a `Routine` says:
they take time, which is each thread's own, and nothing else. Whether a thread is inside one it says itself, instead of
its frames.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

from engine.kernel.thread import ThreadRecord
from engine.kernel.waiter import Waiter
from engine.pool import dispatch, running
from engine.pool.dispatch import WorkPort
from engine.pool.fair_queue import FairQueue
from engine.pool.run_time import SLOW, RunTime
from engine.pool.running import IdleWaiter, Runner, SeatState, WorkerState
from engine.pool.worker import loop
from engine.pool.workers import WorkerThreads
from engine.rpc import serving
from engine.rpc.server import runner, turns
from engine.rpc.server.open_call import OpenCall
from engine.rpc.server.runner import CallRunner, LooseRunner
from engine.rpc.server.turns import Account, ClientState, ClientTurns, Scheduler
from engine.rpc.serving import ServingSlot

from . import explorer
from .explorer import Scenario, called, spend
from .watched import Attribute, Deque, Dict, Gate, List, Lock, Set

QUICK, LONG = 0.0, SLOW * 4  # Seconds that routines take: the second is known to be slow.
IN_LOOP = -1.0  # Stands for those of an `async def`, which the event loop begins.


class Moves:
    """The states that objects were seen in, held against the table of how they move."""

    def __init__(self, transitions: Any) -> None:
        self._allowed = {(row[0], row[2]) for row in transitions}
        self._before: dict[object, Enum] = {}
        # All that was seen to happen, over many runs.
        self.seen: Counter[tuple[Enum, Enum]] = Counter()

    def begin(self) -> None:
        """Forget the objects of the run before."""
        self._before.clear()

    def see(self, thing: object, state: Enum | None) -> None:
        """A thing is in that state now, or between two."""
        before = self._before.get(thing)
        if state is None or state is before:
            return
        self._before[thing] = state
        if before is not None:
            assert (before, state) in self._allowed, f"{before} is followed by {state}, which is not in the table"
            self.seen[before, state] += 1


class _Entered(ServingSlot):
    __slots__ = ("entered",)

    def __init__(self) -> None:
        super().__init__()
        # The number of the call inside whose routine the thread is.
        self.entered: int | None = None


class Place(_Entered):
    """A thread's place. Its two fields are watched as one thing."""

    __slots__ = ()
    call_id = Attribute(ServingSlot, "call_id", "")
    entered = Attribute(_Entered, "entered", "")


def inside(place: Any, call_id: int, noted: object = None) -> bool:
    """As `routines.inside`: by what the thread says."""
    explorer.step(place, False)
    return is_inside(place, call_id, noted)


def is_inside(place: Any, call_id: int, noted: object = None) -> bool:
    with explorer.untold():
        if noted is not None and place.running is not noted:
            return True
        return bool(place.call_id != call_id or place.entered == call_id)


class TimedCall(OpenCall, eq=False, kw_only=True):
    """A call whose routine takes so long, and does that."""

    seconds: float
    body: Callable[[], object]


UNWATCHED: Any = SimpleNamespace(note=lambda place: None)


class Client(CallRunner):
    """The calls of one client: the real ones, but for the routine and what tells of failures."""

    __slots__ = ("name", "world")
    has_order = True
    owner = Attribute(ClientTurns, "owner")
    _entering = Attribute(ClientTurns, "_entering")

    def __init__(self, world: "World", name: str) -> None:
        channel = SimpleNamespace(flush=lambda: None)
        account = Account()
        account.held = called(f"{name}.held", Set())
        scheduler = Scheduler(world.port, world.refuse, partial(world.hand_over, self), UNWATCHED)
        super().__init__(scheduler, account, SimpleNamespace(channel=channel))  # type: ignore[arg-type]  # the explorer puts its own in its place
        called(name, self)
        self.calls = called(f"{name}.calls", Deque())
        self._idle = called(f"{name}.idle", List([None]))
        self._lock = called(f"{name}.lock", Lock())  # type: ignore[assignment]  # the explorer puts its own in its place
        self.name = name
        self.world = world

    def __hash__(self) -> int:
        return id(self)

    def state(self) -> ClientState | None:
        """What the table calls the state; None: between two. Raises AssertionError if it is in two at once."""
        found = [ClientState.IDLE] * len(self._idle)
        found += [ClientState.READY] * sum(each is self for each in self.world.port.ring)
        found += [ClientState.OWNED] * (self.owner is not None)
        assert len(found) <= 1, f"{self.name} is {found}"
        return found[0] if found else None

    def call(self, seconds: float = QUICK, body: Callable[[], object] = int) -> None:
        """A call arrives, and is in the queue; its routine does `body`."""
        run_time = RunTime(slow=seconds > SLOW, fixed=True, mean=seconds)
        entry = SimpleNamespace(needs_no_worker=seconds == IN_LOOP, run_time=run_time)
        call: Any = TimedCall(None, None, 0, entry, None, seconds=seconds, body=body)  # type: ignore[arg-type]  # the explorer puts its own in its place
        self.calls.append(call)
        call.id = self.world.arrived[self.name]  # Still in the step in which it was appended.
        self.world.arrived[self.name] += 1

    def _run_one(self, call: Any, entry: Any, slow: WorkerState | None, place: Any) -> None:
        place.call = call
        place.call_id = call.id
        if slow is not None:
            self._leave(place, slow, call.id, entry.run_time.mean)
        place.entered = call.id
        self.world.enter(self, call.id)
        spend(call.seconds)
        call.body()
        place.entered = None

    def _is_entered(self) -> bool:
        entered = super()._is_entered()
        if not entered:
            with explorer.untold():
                self.world.looked_at = self._entering
        return entered

    def _abandon(self, work: Any, place: Any, error: BaseException) -> None:
        assert explorer.running is not None
        explorer.running.fail(error)
        raise error


class LooseClient(Client, LooseRunner):
    """The calls of one client that have no order."""

    __slots__ = ()
    has_order = False


class StubPort:
    """What a client needs of a port: the ring. Its workers are threads that take from there until it is empty."""

    maximum = 3

    def __init__(self) -> None:
        self.ring: Any = called("ring", Deque())
        self.awake: dict[object, None] = {}

    def need(self) -> None:
        pass

    def leave_slot(self, worker: WorkerState) -> None:
        worker.off_slot = True


class World(Scenario):
    """One or more clients, and what has become of their calls."""

    def __init__(self, port: Any, moves: Moves) -> None:
        self.port = port
        self.moves = moves
        moves.begin()
        self.arrived: Counter[str] = Counter()
        self.entered: defaultdict[str, list[int]] = defaultdict(list)
        self.clients: list[Client] = []
        # Of the last thread that has found that another is about to enter its routine: whom it waits for.
        self.looked_at: tuple[ServingSlot, int, object] | None = None
        self.actors = {}

    def client(self, name: str, *seconds: float, kind: type[Client] = Client, ready: bool = True) -> Client:
        """A client with calls that take so long; in the ring if it is `ready`."""
        client = kind(self, name)
        self.clients.append(client)
        for each in seconds:
            client.call(each)
        if ready:
            client.arrived()
        return client

    def refuse(self, *args: object) -> None:
        raise AssertionError("the event loop has nothing to do here")

    def hand_over(self, client: Client, call: OpenCall) -> None:
        """The event loop begins a call when it was handed over, for all that others can tell."""
        explorer.step(client, True, part="loop")
        self.enter(client, call.id)

    def enter(self, client: Client, call_id: int) -> None:
        """A routine is entered just now."""
        ids = self.entered[client.name]
        wrong = call_id != len(ids) if client.has_order else call_id in ids
        if wrong and explorer.running is not None:
            what = "out of order" if client.has_order else "twice"
            explorer.running.fail(AssertionError(f"call {call_id} of {client.name} is entered {what}"))
        ids.append(call_id)

    def appender(self, client: Client, *seconds: float) -> Callable[[], None]:
        """Who has calls arrive."""

        def append() -> None:
            for each in seconds:
                client.call(each)
                client.arrived()

        return append

    def check(self) -> None:
        for client in self.clients:
            self.moves.see(client, client.state())

    def check_end(self) -> None:
        for client in self.clients:
            left = self.arrived[client.name] - len(self.entered[client.name])
            assert len(client.calls) == left, f"{left - len(client.calls)} calls of {client.name} are lost"
            # It may have been put into the ring for a call that its owner has found before that.
            expected = (ClientState.READY,) if left else (ClientState.IDLE, ClientState.READY)
            assert client.state() in expected, f"{client.name} has {left} calls, and is {client.state()}"
            assert not client.account.held, f"{client.name} has workers that have left it"


def take_place(ident: int) -> Place:
    """The calling thread has a new place, which others know by that number."""
    with explorer.untold():
        place = Place()
    place.ident = ident
    serving.current.slot = called(f"place {ident}", place)
    return place


class ClientWorld(World):
    """Clients alone, and threads that take them out of the ring until that is empty."""

    def __init__(self, moves: Moves) -> None:
        super().__init__(called("port", StubPort()), moves)

    def taker(self, ident: int) -> Callable[[], None]:
        """Who takes clients out of the ring."""

        def take() -> None:
            take_place(ident)
            worker = WorkerState(self.port, ThreadRecord())
            while self.port.ring and not worker.off_slot:
                worker.run_turn()

        return take


class Record(ThreadRecord):
    """What the kernel knows of a worker's thread."""

    __slots__ = ()
    slot = Attribute(ThreadRecord, "slot")


class Worker(WorkerState):
    """A worker of a pool."""

    __slots__ = ("name",)
    turn = Attribute(WorkerState, "turn")
    turns = Attribute(WorkerState, "turns")
    parted = Attribute(WorkerState, "parted")
    off_slot = Attribute(WorkerState, "off_slot")
    item = Attribute(Runner, "item")
    seat = Attribute(Runner, "seat")

    def __init__(self, port: WorkPort, record: ThreadRecord, name: str) -> None:
        super().__init__(port, record)
        self.name = name
        called(name, self)
        called(f"{name}.record", record)


class Seat(IdleWaiter):
    """The seat of an idle worker."""

    __slots__ = ("last",)
    signalled = Attribute(Waiter, "signalled")
    result = Attribute(Waiter, "result")

    worker: Any

    def __init__(self, worker: Any, queue: FairQueue) -> None:
        with explorer.untold():
            super().__init__(worker, queue)
            name = f"{worker.name}.seat"
            called(name, self)
            self.token = called(f"{name}.token", List([None]))
            self.running = called(f"{name}.running", List())
            called(f"{name}.gate", self.gate)
            self.last = SeatState.FREE  # In which it was seen.
            worker.port.world.seats.append(self)

    def state(self) -> SeatState | None:
        """What the table calls the state; None: between two. Raises AssertionError if it is in two at once."""
        found = [SeatState.FREE] * len(self.token) + [SeatState.RUNNING] * len(self.running)
        assert len(found) <= 1, f"the seat is {found}"
        if found:
            self.last = found[0]
        elif not any(each is self for each in self.worker.port.waiting):  # Off the stack.
            return SeatState.LEFT if self.last is SeatState.RUNNING else SeatState.GIVEN
        return found[0] if found else None


class Queue(FairQueue):
    """The queue of a pool. What is in it is guarded by the port's lock; how much that is others read, too."""

    __slots__ = ()
    depth = Attribute(FairQueue, "depth")


class Port(WorkPort):
    """The port of a pool, whose workers are actors: it spawns no thread."""

    __slots__ = ("world",)
    world: "PoolWorld"
    saturated = Attribute(WorkPort, "saturated")
    watched = Attribute(WorkPort, "watched")
    ending = Attribute(WorkerThreads, "ending")
    stopped = Attribute(WorkerThreads, "stopped")
    maximum = Attribute(WorkerThreads, "maximum")
    crowded = Attribute(WorkerThreads, "crowded")

    def __init__(self, workers: int, concurrency: int) -> None:
        super().__init__("model", workers, concurrency, print, self._failed)
        called("port", self)
        self.ring = called("ring", Deque())
        self.awake = called("awake", Dict())
        self.inbox = called("inbox", Deque())
        self._waiters = called("seats", List())
        self._lock = called("port.lock", Lock())  # type: ignore[assignment]  # the explorer puts its own in its place
        called("queue", self._queue)
        self._workers = self._starting = workers
        self.idle_limit = 1.0

    def _make_queue(self) -> FairQueue:
        return Queue()

    def _failed(self, error: BaseException, owner: object) -> None:
        assert explorer.running is not None
        explorer.running.fail(error)

    def _spawn(self, number: int) -> None:
        self.world.spawned += number

    @property
    def waiting(self) -> Any:
        """The seats of the stack."""
        return self._waiters

    def check(self) -> None:
        """What holds whenever no thread has the lock."""
        if self._lock.locked():  # type: ignore[attr-defined]  # the explorer puts its own in its place
            return
        counted = sum(worker.record.slot is True for worker in self._running_workers.values())
        assert self._active == counted, f"{self._active} slots are taken, and {counted} workers have one"
        off = sum(worker.off_slot for worker in self._running_workers.values())
        assert self._off_slot == off, f"{self._off_slot} are counted as off slot, and {off} are"
        assert self._workers == len(self._running_workers) + self._starting, "the workers are miscounted"

    def check_end(self) -> None:
        self.check()
        assert not self.awake, "a worker that sleeps is awake"
        assert not self.inbox, "what was pushed was not seen"
        if self._running_workers and not self._starting:  # Otherwise a thread is on its way.
            assert not self._queue.depth, "a callback waits while workers sleep"
            assert not self.ring, "a client waits while workers sleep"
        assert self._workers <= self.maximum, f"{self._workers} workers stay, of at most {self.maximum}"
        for worker in self._running_workers.values():
            seat: Any = worker.seat
            assert seat is not None and seat.state() is SeatState.FREE, "a worker has no seat"


class PoolWorld(World):
    """Clients, and the workers of a pool, which sleep in the beginning."""

    port: Port

    def __init__(
        self, moves: Moves, seat_moves: Moves, workers: int, concurrency: int = 1, kind: type[Port] = Port
    ) -> None:
        port = kind(workers, concurrency)
        port.world = self
        super().__init__(port, moves)
        self.seat_moves = seat_moves
        seat_moves.begin()
        self.seats: list[Seat] = []
        # Threads that were asked for, and that do not come.
        self.spawned = 0
        # Whether the workers' idle limit passes whenever they sleep.
        self.impatient = False
        self.pushed: Counter[str] = Counter()
        self.ran: Counter[str] = Counter()
        for number in range(workers):
            self.actors[f"worker {number}"] = self.worker(f"worker {number}")

    def worker(self, name: str) -> Callable[[], None]:
        def run() -> None:
            with explorer.untold():
                worker = Worker(self.port, Record(), name)
            running.current.runner = worker
            called(f"{name}.place", take_place(worker.record.ident))
            try:
                self.port.started(worker)
                loop(self.port, worker)
            finally:
                running.current.runner = None

        run.prologue = True  # type: ignore[attr-defined]  # the explorer puts its own in its place
        return run

    def pusher(self, *names: str) -> Callable[[], None]:
        """Who queues callbacks."""

        def run(name: str) -> None:
            self.ran[name] += 1

        def push() -> None:
            for name in names:
                self.port.push(partial(run, name))
                self.pushed[name] += 1

        return push

    def prepare(self) -> None:
        for seat in self.seats:
            seat.gate.expires = self.impatient  # type: ignore[attr-defined]  # the explorer puts its own in its place

    def monitor(self, ticks: int) -> Callable[[], None]:
        """Who ticks so often."""

        def tick() -> None:
            for _ in range(ticks):
                self.port.tick()

        return tick

    def check(self) -> None:
        super().check()
        for seat in self.seats:
            self.seat_moves.see(seat, seat.state())
        self.port.check()

    def check_end(self) -> None:
        super().check_end()
        self.port.check_end()
        assert self.ran == self.pushed, f"{self.pushed} was pushed, and {self.ran} ran"


# There is nothing to lead: workers sleep at their gates.
NO_DRIVER = SimpleNamespace(
    sources=(), monitor=SimpleNamespace(late=False, watch=id), ensure_led=lambda: None, depose=id,
)  # fmt: skip


@contextmanager
def substituted(seat: type[Seat] = Seat) -> Iterator[None]:
    """While it lasts, the scheduler's files look at each thread's own clock, and wait where the explorer sees it.

    Idle workers have seats of that kind.
    """

    def look(seconds: float) -> None:
        run = explorer.running
        assert run is not None
        looked_at = run.scenario.looked_at  # type: ignore[attr-defined]  # the explorer puts its own in its place
        explorer.step(looked_at[0], False, lambda: is_inside(*looked_at))

    with (
        mock.patch.multiple(turns, inside=inside, sleep=look),
        mock.patch.multiple(runner, perf_counter=explorer.now, monotonic=explorer.now),
        mock.patch.multiple(running, monotonic=explorer.now, allocate_lock=Gate),
        mock.patch.multiple(
            dispatch, monotonic=explorer.now, process_time=explorer.now, driver=lambda: NO_DRIVER, IdleWaiter=seat
        ),
    ):
        yield
