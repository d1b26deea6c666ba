"""Which thread runs what: the records that a pool's port and workers share, and the running callback as it sees itself.

Theory of operation. `current.runner` is the innermost callback that a thread is running, or the idle worker
that it is. A thread that runs a callback inside another (a submission under "caller_runs") has a chain of
runners. A `CallbackInstance` is made when a callback first asks for it, so that those that never ask pay nothing. It
belongs to one run of one callback and is dead once that returned.

After the body returns, on the same thread and in this order: the finalization callback; leave the lock;
release the mutex; release the semaphore; set the event; the function that was to be called. A step that fails
is reported to the pool's error handler and the later ones are skipped. Only then does the callback stop
counting and its waiters wake, so an event set here is seen before `wait` returns.

What takes turns (`Turns`: the calls of one client of a server) waits in the ring of its pool, and an idle worker runs
it in the midst of its wait (`IdleWaiter.work`): it stays on the stack of idle workers, keeps the leadership if it has
it, and takes no lock. The *token* of its seat decides what becomes of it; taking it out of its list is one atomic step:

    TRANSITIONS, below, says how a seat moves between its states.

Assumes: `append` and `pop` of a list are atomic, and not reordered against attribute stores.

Source: "CallbackMayRunLong", "DisassociateCurrentThreadFromCallback", "SetEventWhenCallbackReturns" and its
siblings.
"""

import threading
from _thread import LockType, allocate_lock
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Protocol

from transport.realtime import monotonic

from ..errors import InvalidState
from ..kernel.checks import check_callback, check_count
from ..kernel.port_source import Settable
from ..kernel.thread import UNCOUNTED, ThreadRecord
from ..kernel.waiter import Waiter
from ..lifecycle import Uncopyable
from .fair_queue import CallbackCounts, FairQueue, Item, ObjectCallback, owner_of

ROUND = 1e-3  # Seconds that a worker runs turns before it looks what has arrived, and what waits in its pool.


class SeatState(Enum):
    """Where the token of a seat is, and so who decides what its worker does next."""

    FREE = "free"  # In `IdleWaiter.token`: the thread that takes it out.
    RUNNING = "running"  # In `IdleWaiter.running`: its worker, which runs turns.
    GIVEN = "given"  # Gone, by another thread: it has something to run, or is to leave.
    LEFT = "left"  # Gone, while its worker ran turns: the wait ends when that is back.


# From, event, to, and what is done.
TRANSITIONS: Final = (
    (
        SeatState.FREE,
        "its worker takes the token, to run turns",
        SeatState.RUNNING,
        "the slot is UNCOUNTED, the seat is `awake`",
    ),
    (
        SeatState.FREE,
        "another thread takes it, under the port's lock",
        SeatState.GIVEN,
        "off the stack: it gets something to run, or leaves",
    ),
    (
        SeatState.RUNNING,
        "its worker has run its turns, takes it back",
        SeatState.FREE,
        "not `awake`; then it looks what came meanwhile",
    ),
    (
        SeatState.RUNNING,
        "its worker blocks, or is about to run something slow; or the monitor finds it away",
        SeatState.LEFT,
        "off the stack, no slot, no leadership; the worker comes back by `WorkPort.next`",
    ),
)


def come_back() -> None:
    """What an idle worker is given to run when it has lost its seat: it asks for the next."""


class Sends(Protocol):
    """What has something to send once a round of turns is over: a channel."""

    def flush(self) -> None: ...


class Turns(Protocol):
    """What runs in turns with others of its kind: the calls of one client. In the ring of its pool once, or run."""

    def take_turn(self, worker: "WorkerState") -> None:
        """Run for a while, on a worker. Must not raise. What it has to send it adds to `worker.unsent`."""

    def take_away(self, ident: int, overran: bool) -> bool:
        """The thread of that identifier is away in what it runs: whether others may go on with the rest.

        `overran`: it has been away for too long, so that what it runs is to be known as slow.
        """


class RunnerPort(Protocol):
    """The port of a pool, as what runs in it knows it."""

    maximum: int
    ending: bool
    crowded: bool
    # What was pushed and is not queued yet; whether pushers need do nothing more; whether the monitor ticks.
    inbox: deque[Item]
    saturated: bool
    watched: bool
    ring: deque[Turns]
    awake: "dict[IdleWaiter, None]"

    def fail(self, error: BaseException, owner: object) -> None:
        """Report an exception that left a callback of `owner`."""

    def attend(self) -> None:
        """A worker has begun to run turns: have the monitor look after it."""

    def rested(self) -> None:
        """A worker has run its turns, and is idle again."""

    def spare(self, worker: "WorkerState") -> bool:
        """The callback takes long: have it hold up no other; whether another worker is idle or can be started."""

    def leave_slot(self, worker: "WorkerState") -> None:
        """The callback runs without a slot from now until it returns."""

    def disassociate(self, runner: "Runner", counts: CallbackCounts) -> None:
        """The callback counts for those who wait for its object no longer."""


class Runner:
    """Where a callback is running: a worker, or a thread that runs one in the place of a worker."""

    __slots__ = ("done", "instance", "item", "outer", "port", "record", "seat", "disassociated")

    def __init__(self, port: RunnerPort, record: ThreadRecord) -> None:
        self.port: RunnerPort = port
        self.record: ThreadRecord = record
        # What runs now, None between callbacks. Written by the own thread.
        self.item: Item | None = None
        # The counts of the callbacks that ran since the last report. Used by the own thread.
        self.done: list[CallbackCounts] = []
        # Made when the callback first asks for it.
        self.instance: CallbackInstance | None = None
        # The runner inside whose callback this one runs, if any.
        self.outer: Runner | None = None
        # Guarded by the port's lock. Whether the callback disassociated; a worker's waiter while it is idle.
        self.disassociated: bool = False
        self.seat: IdleWaiter | None = None


class WorkerState(Runner):
    """A worker, as its port sees it. Fields: guarded by the port's lock, unless named."""

    __slots__ = (
        "computes", "idled", "off_slot", "parted", "persistent", "prefetched", "seen", "stuck", "turn", "turned",
        "turns", "unsent",
    )  # fmt: skip

    def __init__(self, port: RunnerPort, record: ThreadRecord) -> None:
        super().__init__(port, record)
        # Grows with each callback taken; written by the own thread.
        self.turn: int = 0
        # Callbacks fetched together with the one that runs: appended under the lock, taken out by any thread,
        # from the left by this worker to run them, from the right to put them back.
        self.prefetched: deque[Item] = deque()
        # The monitor's notes: `turn` as last seen, and for how many ticks it has been the same.
        self.seen: int = -1
        self.stuck: int = 0
        # Whether its callback runs without a slot until it returns; whether it is counted as computing
        # meanwhile.
        self.off_slot: bool = False
        self.computes: bool = False
        # Set by the own thread when it idled, cleared by its loop.
        self.idled: bool = False
        # Exempt from the idle exit, and from leaving for a lowered maximum before others: it ran a persistent callback.
        self.persistent: bool = False
        # Whose turn it runs, if any client's; written by the own thread. What has something to send after it.
        self.turns: Turns | None = None
        self.unsent: list[Sends] = []
        # The `turn` whose rest others have: the worker blocks, or was found away. Written by who has parted them.
        self.parted: int = -1
        # Whether the last that it took was a turn, so that the next is a callback if there is one. Own thread.
        self.turned: bool = False

    def run_turn(self) -> None:
        """Give a turn to what comes next in the ring, if there is anything."""
        self.turn += 1
        try:
            turns = self.turns = self.port.ring.popleft()
        except IndexError:
            return
        try:
            turns.take_turn(self)
        finally:
            self.turns = None
            if self.instance is not None:
                after_return(self)

    def run_alone(self) -> None:
        """Run a turn between two callbacks."""
        self.run_turn()
        self.send()

    def send(self) -> None:
        """Have leave what the turns have left to be sent."""
        unsent = self.unsent
        while unsent:
            unsent.pop().flush()


class IdleWaiter(Waiter):
    """An idle worker's waiter. `result` is what it is to run, or None when it is to end."""

    __slots__ = ("_queue", "running", "token", "worker")

    def __init__(self, worker: WorkerState, queue: FairQueue) -> None:
        # As `Waiter.__init__`, which would cost another call for each idling.
        self.gate: LockType = allocate_lock()
        self.gate.acquire()
        self.signalled = False
        self.result: object = None
        self.interrupt: Callable[[], None] | None = None
        self.ring: deque[Turns] = worker.port.ring
        self.worker: WorkerState = worker
        # Of the port.
        self._queue: FairQueue = queue
        # The token is in the first while the seat is free, in the second while its worker runs turns. Deques keep the
        # room for it: moving it needs no memory.
        self.token: deque[None] = deque((None,))
        self.running: deque[None] = deque()

    def claim(self) -> bool:
        """Take the token of a free seat, to give its worker something or to send it away: it has no seat any more.

        Under the port's lock. No signal handler gets between the two: they are one step of a loop.
        """
        worker = self.worker
        try:
            for worker.seat in iter(self.token.pop, 0):  # The token is None.
                return True
        except IndexError:
            pass
        return False

    def leave(self) -> bool:
        """Take the token of a worker that runs turns: it does not go on with its wait."""
        try:
            self.running.pop()
        except IndexError:
            return False
        return True

    def work(self) -> bool:
        """Run turns, for a round; False if the worker is given something else just now. See `Waiter.work`."""
        # Flat, because every message with calls passes here.
        worker = self.worker
        running, port, record, ring, unsent = self.running, worker.port, worker.record, self.ring, worker.unsent
        try:
            running.append(self.token.pop())
        except IndexError:
            return False
        try:
            port.awake[self] = None  # First: who drops the slot takes it out.
            record.slot = UNCOUNTED
            worker.item = come_back  # It is running something, whatever asks.
            if not port.watched:
                port.attend()
            until = monotonic() + ROUND
            while ring and (running or worker.off_slot):
                worker.turn += 1  # `run_turn` in line.
                try:
                    turns = worker.turns = ring.popleft()
                except IndexError:
                    break
                turns.take_turn(worker)
                if worker.instance is not None:
                    after_return(worker)
                if running:
                    if monotonic() >= until:
                        break
                else:
                    # It runs on without a slot, after a slow call, for as long as nothing else waits.
                    worker.send()
                    if port.inbox or self._queue.depth or port.ending or port.crowded:
                        break
            while unsent:
                unsent.pop().flush()
        finally:
            worker.item = worker.turns = None
            try:
                token = running.pop()
            except IndexError:  # Left.
                self.result = come_back
                self.signalled: bool = True
            else:
                record.slot = False
                port.awake.pop(self, None)
                self.token.append(token)
                if port.saturated or port.inbox or self._queue.depth or port.ending or port.crowded:
                    port.rested()
        return True


class _CurrentRunner(threading.local):
    runner: Runner | None = None  # The innermost callback that the thread is running, or the worker it is.


current: _CurrentRunner = _CurrentRunner()


def running_on(port: RunnerPort) -> bool:
    """Whether the calling thread is inside a callback of `port`'s pool."""
    runner = current.runner
    while runner is not None:
        if runner.port is port and runner.item is not None:
            return True
        runner = runner.outer
    return False


def runs_here(counts: CallbackCounts, whole: bool) -> bool:
    """Whether the calling thread is inside a callback of this object; `whole` counts disassociated ones as well."""
    runner = current.runner
    while runner is not None:
        item = runner.item
        if isinstance(item, ObjectCallback) and item.counts is counts and (whole or not runner.disassociated):
            return True
        runner = runner.outer
    return False


class _Releasable(Protocol):
    def release(self) -> object: ...


class _Countable(Protocol):
    def release(self, count: int, /) -> object: ...


class CallbackInstance(Uncopyable):
    """The running callback; get it by `current_callback()`.

    Threads: its methods may be called by the callback's own thread only, and before it returns; anything else
    raises `InvalidState`. Of each kind of when-returns action the first one counts, as on Windows.
    """

    __slots__ = ("_actions", "_counts", "_long", "_owner", "_runner")

    def __init__(self, runner: Runner, callback: ObjectCallback | None) -> None:
        # None once the callback returned.
        self._runner: Runner | None = runner
        self._counts = counts = None if callback is None else callback.counts
        self._owner = None if callback is None or callback.counts.once else callback.owner
        # Whether the callback said that it runs long, or its environment did.
        self._long = counts is not None and counts.run_time.fixed
        # By the order in which they are run.
        self._actions: dict[int, Callable[[], object]] = {}

    @property
    def source(self) -> Any:
        """The object whose callback this is (`Work`, `Timer`, `Wait`, `Io`), None for a simple callback."""
        return self._owner

    @property
    def context(self) -> Any:
        """The context given when the object was made, or the simple callback submitted."""
        return None if self._counts is None else self._counts.context

    def _own(self) -> Runner:
        runner = self._runner
        if runner is None:
            raise InvalidState("the callback has returned, and its instance went with it")
        running = current.runner
        if running is not runner:
            raise InvalidState("only the thread that runs the callback may do this, for its innermost one")
        return runner

    def may_run_long(self) -> bool:
        """Say that this callback will take long, so that it holds up no other.

        Returns: True if another worker is idle or was started; False if there is none (Windows: 565,
            TOO_MANY_THREADS). The callback counts as long in both cases: False is information, not refusal.
            True again when it was said before, or by the environment.
        Source: "CallbackMayRunLong".
        """
        runner = self._own()
        if self._long or not isinstance(runner, WorkerState):
            return True
        self._long = True
        return runner.port.spare(runner)

    def disassociate(self) -> None:
        """Stop counting for those who wait for this object's callbacks; a cleanup group still counts this
        one.

        Doing it twice is harmless. Source: "DisassociateCurrentThreadFromCallback".
        """
        runner = self._own()
        if self._counts is not None:
            runner.port.disassociate(runner, self._counts)

    def leave_when_returns(self, lock: _Releasable) -> None:
        """Release `lock`, which this thread holds, after the callback.

        Source: "LeaveCriticalSectionWhenCallbackReturns".
        """
        self._own()
        self._actions.setdefault(0, lock.release)

    def release_mutex_when_returns(self, mutex: _Releasable) -> None:
        """Release `mutex`, which this thread owns, after the callback.

        Source: "ReleaseMutexWhenCallbackReturns".
        """
        self._own()
        self._actions.setdefault(1, mutex.release)

    def release_semaphore_when_returns(self, semaphore: _Countable, count: int = 1) -> None:
        """Release `semaphore` by `count` after the callback.

        Source: "ReleaseSemaphoreWhenCallbackReturns".
        """
        self._own()
        check_count("count", count, least=1)
        self._actions.setdefault(2, lambda: semaphore.release(count))

    def set_event_when_returns(self, event: Settable) -> None:
        """Set `event` after the callback. Source: "SetEventWhenCallbackReturns"."""
        self._own()
        self._actions.setdefault(3, event.set)

    def call_when_returns(self, function: Callable[[], object]) -> None:
        """Call `function()` last, after the callback: the place to give up what the callback needed.

        Source: "FreeLibraryWhenCallbackReturns", which needs a kernel that can unload code behind the
            caller's back.
        """
        self._own()
        check_callback("function", function)
        self._actions.setdefault(4, function)

    def _returned(self) -> None:
        runner, self._runner = self._runner, None
        assert runner is not None
        runner.instance = None
        try:
            for step in sorted(self._actions):
                self._actions[step]()
        except BaseException as error:
            runner.port.fail(error, owner_of(runner.item))


def instance_of(runner: Runner) -> CallbackInstance:
    """Return the instance of the callback that `runner` runs, making it on first use."""
    if runner.instance is None:
        item = runner.item
        runner.instance = CallbackInstance(runner, item if isinstance(item, ObjectCallback) else None)
    return runner.instance


def current_callback() -> CallbackInstance:
    """Return the instance of the callback that the calling thread is running: the innermost one.

    Raises: `InvalidState` outside of callbacks.
    """
    runner = current.runner
    if runner is None or runner.item is None:
        raise InvalidState("this thread is not running a callback of a pool")
    return instance_of(runner)


def after_return(runner: Runner) -> None:
    """Do what was promised for the return of the callback that `runner` ran. Never raises."""
    instance = instance_of(runner)
    counts = instance._counts
    if counts is not None and counts.persistent and isinstance(runner, WorkerState):
        runner.persistent = True
    if counts is not None and counts.finalization is not None:
        try:
            counts.finalization(instance, counts.context)
        except BaseException as error:
            runner.port.fail(error, owner_of(runner.item))
            instance._actions.clear()
    instance._returned()
