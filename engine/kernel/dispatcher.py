"""Dispatcher objects and their waits from the inside: how a wait is decided, once, under one lock.

Theory of operation. One lock, `dispatcher_lock`, guards the signal state and the wait list of every
dispatcher object of the process. So "all of these at the same instant", "the lowest index signalled" and
"object or APC first" are plain questions asked under one lock. A `WaitBlock` is one pending wait, linked into
each of its objects. The thread that signals an object walks its blocks, oldest first, while it stays signalled; a
block that can now be satisfied consumes its objects at once, is unlinked everywhere, and finishes (`finish`)
after the lock was released.

    attempt --satisfied--> (consumed)                     decided exactly once, under dispatcher_lock:
       |                                                  satisfied | timed out | alerted | cancelled | closed
       `--link--> pending --decide--> finish

There are two kinds of block: `ThreadBlock`, a thread asleep in the driver, and `CallbackBlock`, a function to
call (registered_wait.py): no thread is spent on it, so that thousands may be pending.

Guarantees: a wait is decided once; a decision to satisfy consumes all its objects or none; a wait that ends
by an exception (KeyboardInterrupt) gives back what it had consumed, to the next waiter if there is one;
callbacks run with no lock held.

Source: "Wait Functions", "Synchronization Objects"; `docs/semantics/completion-port.md`, section 11.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from transport.foreign import a_type

from ..errors import AbandonedWait, Alerted, Forked, InvalidHandle, InvalidParameter
from ..lifecycle import Uncopyable, in_child
from .apc import run_apcs, wait_alertably
from .checks import Deadline, check_flag, check_timeout
from .driver import driver
from .helping import HelpingWaiter
from .lock import Lock, each
from .thread import ThreadRecord, local, park
from .waiter import Waiter

R = TypeVar("R")

dispatcher_lock: Lock = Lock()

# How a wait was decided, where it is not the index of the object that satisfied it.
TIMED_OUT = -1
ALERTED = -2
CANCELLED = -3
CLOSED = -4

# What an open object of this process carries; a forked child has a token of its own, a closed object None.
_life = object()


class DispatcherObject(Uncopyable):
    """The inside of a dispatcher object: its signal state, and the waits that are pending on it."""

    __slots__ = ("__weakref__", "_blocks", "_life")

    # Whether a wait hands the object to the thread that waits (a mutex): then only threads can wait for it.
    _owned_by_threads = False
    # Whether `_watch` must be called when a wait becomes pending, because nothing here signals the object.
    _foreign = False
    # Whether what is harvested may signal the object: a call that ends sets an event, say. Each class whose objects a
    # notification can signal sets it, also for notifications that a program writes for itself: only then queries see
    # what has arrived, and registered waits have the network driven.
    _harvested = False

    def __init__(self) -> None:
        self._life: object = _life
        # Guarded by dispatcher_lock. Pending waits in order of arrival, each with this object's index in it.
        # Invariant at rest: no block in here could be satisfied.
        self._blocks: dict[WaitBlock, int] = {}

    # What each kind of object defines. All need dispatcher_lock; `record` is the waiting thread's, None for a
    # callback.

    def _signaled_locked(self, record: ThreadRecord | None) -> bool:
        """Whether a wait by this thread would be satisfied now."""
        raise NotImplementedError  # Abstract: what being signaled means is what tells the kinds apart.

    def _consume_locked(self, record: ThreadRecord | None) -> bool:
        """Take what satisfying one wait takes; True if the object was abandoned."""
        return False

    def _restore_locked(self, record: ThreadRecord | None, abandoned: bool) -> None:
        """Undo one `_consume_locked`, whose result was `abandoned`, as if that wait had never been."""

    def _signal_locked(self, record: ThreadRecord, satisfied: "list[WaitBlock]") -> None:
        """Signal the object; the caller finishes, unlocked, what that satisfied."""
        raise InvalidParameter(f"{a_type(self)} cannot be signaled by signal_and_wait")

    def _watch(self) -> None:
        """The pending waits for this foreign object changed. Called with no lock held."""

    # For the kinds of object

    def _release_locked(self, satisfied: "list[WaitBlock]") -> None:
        """Satisfy pending waits, oldest first, while signaled; the caller finishes them unlocked."""
        for block in list(self._blocks):
            if block.outcome is None:
                # In the list before it is decided: whatever happens, it will be finished.
                satisfied.append(block)
                if block.attempt_locked():
                    block.unlink_locked()
                else:
                    satisfied.pop()

    def _close_locked(self, abandoned: "list[WaitBlock]") -> None:
        if self._life is _life:
            self._life = None
            abandoned += self._blocks
            try:
                each(_abandon_locked, abandoned)
            except BaseException:  # A signal handler raised: closing again would find nothing to do.
                each(_abandon_locked, abandoned)
                raise

    def _is_open(self) -> bool:
        """Whether it is open, and of this process; False for one whose `__init__` failed."""
        return getattr(self, "_life", None) is _life

    def _require_open(self) -> None:
        if self._life is not _life:
            if self._life is None:
                raise InvalidHandle(f"the {type(self).__name__} is closed")
            raise Forked(f"this {type(self).__name__} was made before fork(): make a new one in the child")


class WaitBlock:
    """One wait for one object, for the first of several, or for all of them. Used once."""

    __slots__ = ("_consumed", "_every", "_foreign", "_objects", "_record", "abandoned", "outcome")

    def __init__(self, objects: Sequence[DispatcherObject], every: bool, record: ThreadRecord | None) -> None:
        self._foreign = False
        self._objects = objects
        self._every = every
        self._record = record
        # Guarded by dispatcher_lock until decided: None while pending, then an index or one of the codes
        # above.
        self.outcome: int | None = None
        # Guarded likewise. How many objects a wait for all has consumed.
        self._consumed = 0
        # The indexes of the mutexes that were taken over from a thread that had ended.
        self.abandoned: tuple[int, ...] = ()

    @property
    def asynchronous(self) -> bool:
        """Whether no thread sleeps in this wait."""
        return self._record is None

    def attempt_locked(self) -> bool:
        """Satisfy the wait if that is possible now: the lowest index that is signaled, or all at once."""
        record = self._record
        if self._every:
            for waitable in self._objects:
                if not waitable._signaled_locked(record):
                    return False
            try:
                each(self._consume_locked, enumerate(self._objects))
            except BaseException:  # By a signal handler: all or none.
                self._give_back_locked()
                raise
            self.outcome = self.abandoned[0] if self.abandoned else 0
            return True
        for index, waitable in enumerate(self._objects):
            if waitable._signaled_locked(record):
                if waitable._consume_locked(record):
                    self.abandoned = (index,)
                self.outcome = index
                return True
        return False

    def _consume_locked(self, at: tuple[int, DispatcherObject]) -> None:
        """Consume one of all the objects."""
        index, waitable = at
        if waitable._consume_locked(self._record):
            self.abandoned += (index,)
        self._consumed = index + 1

    def link_locked(self) -> None:
        """Become pending: the thread that signals one of the objects will find this wait."""
        for index, waitable in enumerate(self._objects):
            waitable._blocks[self] = index
            if waitable._foreign:
                self._foreign = True

    def watch(self) -> None:
        """Have foreign objects watched, now that the wait is pending. Called with no lock held."""
        if self._foreign:
            for waitable in self._objects:
                waitable._watch()

    def closed_locked(self) -> bool:
        """Whether an object was closed meanwhile."""
        for waitable in self._objects:
            if waitable._life is None:
                return True
        return False

    def unlink_locked(self) -> None:
        """Be pending no longer."""
        for waitable in self._objects:
            waitable._blocks.pop(self, None)

    def decide_locked(self, outcome: int) -> bool:
        """End a pending wait without satisfying it; False if it was decided already."""
        if self.outcome is not None:
            self.unlink_locked()  # Again, if a signal handler has broken that off.
            return False
        self.outcome = outcome
        self.unlink_locked()
        return True

    def undo(self, outcome: int) -> bool:
        """The waiter is going away: end the wait, or give back what it consumed. True if it was pending."""
        return decide(self._undo_locked, outcome)

    def _undo_locked(self, outcome: int, satisfied: "list[WaitBlock]") -> bool:
        if self.decide_locked(outcome):
            return True
        if self.outcome is not None and self.outcome >= 0:
            self._give_back_locked()
            self.outcome = outcome
            each(lambda waitable: waitable._release_locked(satisfied), self._objects)
        return False

    def _give_back_locked(self) -> None:
        """Undo what was consumed."""
        for index in range(self._consumed) if self._every else (self.outcome or 0,):
            self._objects[index]._restore_locked(self._record, index in self.abandoned)
        self._consumed = 0
        self.abandoned = ()

    def finish(self) -> None:
        """Notify what waits that the wait was decided. A second call does nothing. Called with no lock held."""
        raise NotImplementedError  # Abstract: a thread is woken, a callback is run, a task goes on.


def finish(blocks: Sequence[WaitBlock]) -> None:
    """Notify the waiters of decided waits; with no lock held.

    A signal handler may raise in the midst of it, or just before: the caller then calls it again.
    """
    for block in blocks:
        if block.outcome is not None:
            block.finish()


def _abandon_locked(block: WaitBlock) -> None:
    """End a wait for an object that was closed."""
    block.decide_locked(CLOSED)


def decide(step: Callable[..., R], *args: Any) -> R:
    """Take `step(*args, satisfied)` under `dispatcher_lock`, then finish the waits that it added to `satisfied`.

    Returns what `step` returns. A signal handler may raise at any time: what was decided is finished all the same. (In
    line in `Event.set` and in `wait_on`, which are called most.)
    """
    satisfied: list[WaitBlock] = []
    try:
        with dispatcher_lock:
            result = step(*args, satisfied)
        if satisfied:
            finish(satisfied)
    except BaseException:
        finish(satisfied)
        raise
    return result


class ThreadBlock(WaitBlock):
    """A thread's wait."""

    __slots__ = ("_waiter",)

    outcome: int | None
    _waiter: Waiter  # Set when the wait becomes pending, before any thread can find it.

    def link_locked(self) -> None:
        """Become pending; the thread will `sleep`."""
        self._waiter = HelpingWaiter()
        super().link_locked()

    def poll(self) -> None:
        """The wait found nothing and may not block: harvest what has arrived, and look once more."""
        if driver().sources:
            driver().catch_up()
        with dispatcher_lock:
            if not self.attempt_locked():
                self.outcome = TIMED_OUT

    def sleep(self, timeout: float | None, alertable: bool) -> None:
        """Sleep until the pending wait is decided."""
        waiter, record = self._waiter, self._record
        assert record is not None, "the wait is a thread's"
        self.watch()
        if alertable:
            wait_alertably(record, self._alert, waiter, timeout)
        else:
            park(waiter, timeout)
        if self.outcome is None:
            with dispatcher_lock:
                self.decide_locked(TIMED_OUT)

    def _alert(self) -> None:
        with dispatcher_lock:
            self.decide_locked(ALERTED)
        if self.outcome == ALERTED:
            self.finish()

    def finish(self) -> None:
        """Wake the thread."""
        self._waiter.wake()


def wait_on(
    objects: Sequence[DispatcherObject],
    every: bool,
    timeout: float | None,
    alertable: bool,
    *,
    signal: DispatcherObject | None = None,
) -> ThreadBlock:
    """Wait in the calling thread for the first of `objects`, or for all.

    `signal` is an object to signal first, without anything happening in between. Raises what `DispatcherObject.wait`
    raises.
    """
    timeout = check_timeout(timeout)
    if alertable is not False:
        check_flag("alertable", alertable)
    record = local.record
    deadline = Deadline(timeout) if alertable else None
    while True:
        block = ThreadBlock(objects, every, record)
        others: list[WaitBlock] = []
        try:
            with dispatcher_lock:
                each(DispatcherObject._require_open, objects)
                if signal is not None:
                    signal._require_open()
                    signal._signal_locked(record, others)
                if not block.attempt_locked() and timeout != 0:
                    block.link_locked()
            if others:
                finish(others)
            if block.outcome is None:
                if timeout == 0:
                    block.poll()
                else:
                    block.sleep(timeout, alertable)
        except BaseException:  # A signal handler raised: what was consumed goes back, or on to another waiter.
            finish(others)
            block.undo(CANCELLED)
            raise
        if block.outcome == CLOSED:
            raise AbandonedWait("an object was closed while this thread waited on it")
        # A time that has run out still lets pending APCs run. These raise what they raise: the wait is over, it
        # took nothing.
        if block.outcome == ALERTED or (alertable and block.outcome == TIMED_OUT and record.apcs):
            if run_apcs(record):
                raise Alerted("APCs ran; the wait took nothing")
            if block.outcome == ALERTED:  # By a timer, which withdrew its APC: nothing ran, so the wait goes on.
                timeout, signal = None if deadline is None else deadline.left(), None
                continue
        return block


@in_child
def _disown() -> None:
    global _life
    _life = object()
