"""Who is running what: the per-thread records that a pool's port, its workers and their callbacks share.

Theory of operation. `current.runner` is the innermost callback that a thread is running, or the idle worker
that it is. A thread that runs a callback inside another (a submission under "caller_runs") has a chain of
runners.
"""

import threading
from _thread import LockType, allocate_lock
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ..kernel.thread import ThreadRecord
from ..kernel.waiter import Waiter
from .backlog import CallbackCounts, Item, ObjectCallback


class RunnerPort(Protocol):
    """The port of a pool, as what runs in it knows it."""

    def fail(self, error: BaseException, owner: object) -> None:
        """Report an exception that left a callback of `owner`."""

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
        # Made when the callback first asks for it; see instance.py.
        self.instance: Any = None
        # The runner inside whose callback this one runs, if any.
        self.outer: Runner | None = None
        # Guarded by the port's lock. Whether the callback disassociated; a worker's waiter while it is idle.
        self.disassociated: bool = False
        self.seat: IdleWaiter | None = None


class WorkerState(Runner):
    """A worker, as its port sees it. Fields: guarded by the port's lock, unless named."""

    __slots__ = ("off_slot", "computes", "idled", "persistent", "seen", "stuck", "train", "turn")

    def __init__(self, port: RunnerPort, record: ThreadRecord) -> None:
        super().__init__(port, record)
        # Grows with each callback taken; written by the own thread.
        self.turn: int = 0
        # Callbacks fetched together with the one that runs: appended under the lock, taken out by any thread,
        # from the left by this worker to run them, from the right to put them back.
        self.train: deque[Item] = deque()
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


class IdleWaiter(Waiter):
    """An idle worker's waiter. `result` is what it is to run, or None when it is to end."""

    __slots__ = ("worker",)

    def __init__(self, worker: WorkerState) -> None:
        # As `Waiter.__init__`, which would cost another call for each idling.
        self.gate: LockType = allocate_lock()
        self.gate.acquire()
        self.signalled = False
        self.result: object = None
        self.interrupt: Callable[[], None] | None = None
        self.worker: WorkerState = worker


class _Current(threading.local):
    runner: Runner | None = None  # The innermost callback that the thread is running, or the worker it is.


current: _Current = _Current()


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
