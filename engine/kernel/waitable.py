"""Dispatcher objects: what threads, callbacks and event loops wait on, and the waits themselves.

Theory of operation. One lock, `dispatcher_lock`, guards the signal state and the wait list of every
dispatcher object of the process. So "all of these at the same instant", "the lowest index signalled" and
"object or APC first" are plain questions asked under one lock. A `WaitBlock` is one pending wait, linked into
each of its objects. Whoever signals an object walks its blocks, oldest first, while it stays signalled; a
block that can now be satisfied consumes its objects at once, is unlinked everywhere, and is told (`finish`)
after the lock was released.

    attempt --satisfied--> (consumed)                     decided exactly once, under dispatcher_lock:
       |                                                  satisfied | timed out | alerted | cancelled | closed
       `--link--> pending --decide--> finish

There are two kinds of block: `ThreadBlock`, a thread asleep in the driver, and `RegisteredWait`, a function to
call: no thread is spent on it, so that thousands may be pending.

Guarantees: a wait is decided once; a decision to satisfy consumes all its objects or none; a wait that ends
by an exception (KeyboardInterrupt) gives back what it had consumed, to the next waiter if there is one;
callbacks run with no lock held.

Lock order: `dispatcher_lock` and `apc_lock` are never held together, and no other lock of the library is taken
inside either. Asking a thread, process or future whether it has ended takes a lock of its own for a moment.

Source: "Wait Functions", "Synchronization Objects"; `docs/semantics/completion-port.md`, section 11.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from transport.foreign import a_type, is_interrupt, shown, type_name
from transport.log import Log
from transport.realtime import monotonic

from ..errors import AbandonedWait, Alerted, Forked, InvalidArgumentType, InvalidHandle, InvalidParameter
from ..lifecycle import Uncopyable, in_child
from ..status import Status
from .afterwards import afterwards, interrupting
from .apc import run_apcs, wait_alertably
from .checks import check_callback, check_clock, check_flag, check_timeout
from .clock import SYSTEM_CLOCK, Cancellable, Clock
from .deadline import Deadline
from .driver import driver
from .each import each
from .lock import Lock
from .thread import ThreadRecord, local, park
from .waiter import Waiter

R = TypeVar("R")

log: Log = Log("engine.kernel")

dispatcher_lock: Lock = Lock()

# How a wait was decided, where it is not the index of the object that satisfied it.
TIMED_OUT = -1
ALERTED = -2
CANCELLED = -3
CLOSED = -4

# What an open object of this process carries; a forked child has a token of its own, a closed object None.
_life = object()


class WaitableStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a dispatcher object. `waiting` counts pending waits: threads, callbacks and tasks."""

    signaled: bool
    waiting: int
    closed: bool


class Waitable(Uncopyable):
    """Base of the dispatcher objects: a signal state, and the waits that are pending on it.

    Threads: every method may be called from any thread. In a signal handler or a finalizer only `Event.set` is safe:
        the others raise `Deadlock` there if their thread was interrupted under a lock that they need.
    """

    __slots__ = ("__weakref__", "_blocks", "_life")

    # Whether a wait hands the object to the thread that waits (a mutex): then only threads can wait for it.
    _owned_by_threads = False
    # Whether `_watch` must be called when a wait becomes pending, because nobody here signals the object.
    _foreign = False
    # Whether what is harvested may signal the object: it is told of a call's end, say.
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

    # Waiting

    def wait(self, timeout: float | None = None, *, alertable: bool = False) -> bool:
        """Wait until the object is signaled, and consume the signal as this kind of object does.

        Args: `timeout` in seconds; None waits for ever, 0 polls. `alertable` lets queued APCs end the wait.
        Returns: True if the wait was satisfied, False if the time ran out, which changes nothing.
        Raises: `Alerted` (192) when APCs ran instead; `InvalidHandle` (6) if the object is closed;
            `AbandonedWait` (735) if it is closed while this thread waits; `InvalidParameter` for a negative
            timeout.
        Blocks: until signaled; the thread's slot on its completion port is free meanwhile. A signal that is
            there beats pending APCs, and pending APCs beat a timeout of 0.
        Source: "WaitForSingleObjectEx".
        """
        return wait_on((self,), False, timeout, alertable).outcome == 0

    async def wait_async(self, timeout: float | None = None) -> bool:
        """Wait in the running event loop; otherwise as `wait`. Cancelling the task loses no signal."""
        from .aio import Completion

        completion = Completion()
        timeout = check_timeout(timeout)
        handle = prepare_wait(self, lambda status: completion.wake(), attended=False)  # The event loop harvests.
        handle.begin(timeout, SYSTEM_CLOCK)
        try:
            await completion
        except BaseException:
            handle.abandon()
            raise
        return handle.collect()

    def __await__(self) -> Generator[Any, None, bool]:
        return self.wait_async().__await__()

    def is_signaled(self) -> bool:
        """Whether a wait by the calling thread would be satisfied now: old as soon as it is known. Never blocks."""
        if self._harvested:
            driver().look_around()
        with dispatcher_lock:
            self._require_open()
            return self._signaled_locked(local.record)

    def statistics(self) -> WaitableStatistics:
        """Return a consistent snapshot. Never blocks."""
        if self._harvested:
            driver().look_around()
        with dispatcher_lock:
            open_ = self._life is _life
            return WaitableStatistics(open_ and self._signaled_locked(None), len(self._blocks), not open_)

    # Signalling, for the objects themselves

    def _release_locked(self, satisfied: "list[WaitBlock]") -> None:
        """Satisfy pending waits, oldest first, while signaled; the caller finishes them unlocked."""
        for block in list(self._blocks):
            if block.outcome is None:
                # In the list before it is decided: whatever happens, it will be told.
                satisfied.append(block)
                if block.attempt_locked():
                    block.unlink_locked()
                else:
                    satisfied.pop()

    # End

    def close(self) -> None:
        """Close the object: waits that are pending end with `AbandonedWait`, later use is refused.

        Closing twice does nothing. Blocks: never.
        """
        decide(self._close_locked)

    def _close_locked(self, abandoned: "list[WaitBlock]") -> None:
        if self._life is _life:
            self._life = None
            abandoned += self._blocks
            each(lambda block: block.decide_locked(CLOSED), abandoned)

    def _is_open(self) -> bool:
        """Whether it is open, and of this process; False for one whose `__init__` failed."""
        return getattr(self, "_life", None) is _life

    def _require_open(self) -> None:
        if self._life is not _life:
            if self._life is None:
                raise InvalidHandle(f"the {type(self).__name__} is closed")
            raise Forked(f"this {type(self).__name__} was made before fork(): make a new one in the child")


# What makes a dispatcher object of a foreign one, or returns None: filled by the modules that know how.
adapters: list[Callable[[object], Waitable | None]] = []


def as_waitable(thing: object) -> Waitable:
    """Return the dispatcher object to wait on for `thing`; raises `InvalidArgumentType` if there is none."""
    if isinstance(thing, Waitable):
        return thing
    for adapt in adapters:
        found = adapt(thing)
        if found is not None:
            return found
    hint = ": use its own wait(), or an engine.Event that it sets" if callable(getattr(thing, "wait", None)) else ""
    raise InvalidArgumentType(f"cannot wait for {kind_of(thing)} together with others{hint}")


def kind_of(thing: object) -> str:
    """Return the type of a thing that is not taken; with its module if one of ours is called the same."""
    name = type_name(thing)
    ours = any(kind.__name__ == name for kind in Waitable.__subclasses__())
    return f"a {type(thing).__module__}.{name}" if ours else a_type(thing)


class WaitBlock:
    """One wait for one object, for the first of several, or for all of them. Used once."""

    __slots__ = ("_consumed", "_every", "_foreign", "_objects", "_record", "abandoned", "outcome")

    def __init__(self, objects: Sequence[Waitable], every: bool, record: ThreadRecord | None) -> None:
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
        """Whether nobody sleeps in this wait."""
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

    def _consume_locked(self, at: tuple[int, Waitable]) -> None:
        """Consume one of all the objects."""
        index, waitable = at
        if waitable._consume_locked(self._record):
            self.abandoned += (index,)
        self._consumed = index + 1

    def link_locked(self) -> None:
        """Become pending: whoever signals one of the objects will find this wait."""
        for index, waitable in enumerate(self._objects):
            waitable._blocks[self] = index
            if waitable._foreign:
                self._foreign = True

    def watch(self) -> None:
        """Have foreign objects watched, now that the wait is pending. Called with no lock held."""
        if self._foreign:
            for waitable in self._objects:
                waitable._watch()

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
        """Tell whoever waits that the wait was decided. A second call does nothing. Called with no lock held."""
        raise NotImplementedError  # Abstract: a thread is woken, a callback is run, a task goes on.


def finish(blocks: Sequence[WaitBlock]) -> None:
    """Tell the waiters of decided waits; with no lock held.

    A signal handler may raise in the midst of it, or just before: the caller then calls it again.
    """
    for block in blocks:
        if block.outcome is not None:
            block.finish()


def decide(step: Callable[..., R], *args: Any) -> R:
    """Take `step(*args, satisfied)` under `dispatcher_lock`, then finish the waits that it added to `satisfied`.

    Returns what `step` returns. A signal handler may raise at any time: what was decided is finished all the same. (In
    line in `Event.set` and in `wait_on`, which are called most.)
    """
    satisfied: list[WaitBlock] = []
    try:
        with dispatcher_lock:
            result = step(*args, satisfied)
        finish(satisfied)
    except BaseException:
        finish(satisfied)
        raise
    return result


class ThreadBlock(WaitBlock):
    """A thread's wait."""

    __slots__ = ("_waiter",)

    outcome: int | None
    _waiter: Waiter  # Set when the wait becomes pending, before anybody can find it.

    def link_locked(self) -> None:
        """Become pending; the thread will `sleep`."""
        self._waiter = Waiter()
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
    objects: Sequence[Waitable],
    every: bool,
    timeout: float | None,
    alertable: bool,
    *,
    signal: Waitable | None = None,
) -> ThreadBlock:
    """Wait in the calling thread for the first of `objects`, or for all.

    `signal` is an object to signal first, without anything happening in between. Raises what `Waitable.wait`
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
                each(Waitable._require_open, objects)
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


class RegisteredWait(WaitBlock, Uncopyable):
    """A wait whose end is told by calling a function; made by `register_wait`.

    In two steps for whoever must know it before it can be decided: `prepare_wait`, then `begin`.
    """

    __slots__ = ("_callback", "_registered", "_timer")

    outcome: int | None

    def __init__(self, waitable: Waitable, callback: Callable[[Status], object], attended: bool = True) -> None:
        super().__init__((waitable,), False, None)
        # Where it shows itself while it is pending, if it depends on what is harvested and nobody else sees to that.
        self._registered = driver().registered if attended and waitable._harvested else None
        # None once it was called.
        self._callback: Callable[[Status], object] | None = callback
        self._timer: Cancellable | None = None

    def begin(self, timeout: float | None, clock: Clock) -> None:
        """Look at the object, and be pending if it is not signaled; do nothing if withdrawn already."""
        (waitable,) = self._objects
        try:
            with dispatcher_lock:
                if self.outcome is not None:
                    return
                if waitable._life is None:
                    self.outcome = CLOSED  # Since the wait was prepared: as if a moment later.
                elif not self.attempt_locked():
                    if timeout == 0:
                        self.outcome = TIMED_OUT
                    else:
                        self.link_locked()
                decided = self.outcome is not None
            if not decided:
                self.watch()
                if self._registered is not None:
                    driver().ensure_led()
                if timeout is not None:
                    self._timer = clock.call_at(clock.monotonic() + timeout, self.expire)
                    if self.outcome is not None:
                        self._timer.cancel()  # It was decided before there was a timer for `finish` to cancel.
        except BaseException:  # The caller gets no handle: there shall be no wait.
            self._callback = None
            self.abandon()
            raise
        if decided:
            _finish_in_turn(self)

    def link_locked(self) -> None:
        """Become pending; somebody has to harvest meanwhile."""
        super().link_locked()
        if self._registered is not None:
            self._registered[id(self)] = None

    def unlink_locked(self) -> None:
        """Be pending no longer."""
        super().unlink_locked()
        if self._registered is not None:
            self._registered.pop(id(self), None)

    def __del__(self) -> None:
        registered = getattr(self, "_registered", None)
        if registered is not None:  # Dropped together with its object.
            registered.pop(id(self), None)

    def expire(self) -> None:
        """End the wait as when its time is up; nothing if it was decided already."""
        if self._registered is not None and self.outcome is None:
            driver().catch_up(lambda: self.outcome is not None)  # A signal that has arrived counts.
        with dispatcher_lock:
            expired = self.decide_locked(TIMED_OUT)
        if expired:
            self.finish()

    def finish(self) -> None:
        """Call the function; afterwards, if a signal handler that interrupted the engine has signaled the object."""
        if interrupting():
            afterwards(self.finish)
            return
        self._retire()
        callback, self._callback = self._callback, None
        if callback is not None:
            try:
                callback(self.status)
            except BaseException as error:
                if is_interrupt(error):
                    raise
                log.error("the callback %s of a registered wait failed", shown(callback), exc_info=error)

    @property
    def status(self) -> Status:
        """How the wait ended, or `PENDING`."""
        if self.outcome is None:
            return Status.PENDING
        return _STATUSES[self.outcome]

    def cancel(self) -> bool:
        """Withdraw the wait; True if the function will not be called. Blocks: never.

        False says that the wait was decided: the function was called, or another thread is about to.
        """
        with dispatcher_lock:
            withdrawn = self.decide_locked(CANCELLED)
        if withdrawn:
            self._retire()
        return withdrawn

    def abandon(self) -> None:
        """Withdraw the wait, and give back what it consumed if it was satisfied already."""
        if self.undo(CANCELLED):
            self._retire()

    def _retire(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.watch()  # One pending wait less: less may have to be watched.

    def collect(self) -> bool:
        """The result of a wait that was decided: True if satisfied, False if timed out."""
        if self.outcome == CLOSED:
            raise AbandonedWait("the object was closed while it was waited for")
        return self.outcome == 0


class _Telling(threading.local):
    # The waits that were decided as they began, inside the callback of another one that was; None outside of that.
    later: "deque[RegisteredWait] | None" = None


_telling = _Telling()


def _finish_in_turn(wait: RegisteredWait) -> None:
    """Call the function of a wait that was decided as it began: one that begins again each time does not nest."""
    if _telling.later is not None:
        _telling.later.append(wait)
        return
    later = _telling.later = deque((wait,))
    try:
        _finish_all(later)
    finally:
        _telling.later = None
        if later:  # A signal handler raised.
            driver().monitor.call_at(monotonic(), partial(_finish_all, later))


def _finish_all(waits: "deque[RegisteredWait]") -> None:
    while waits:
        waits.popleft().finish()


_STATUSES = {
    0: Status.OK,
    TIMED_OUT: Status.TIMEOUT,
    CLOSED: Status.ABANDONED_WAIT,
    CANCELLED: Status.OPERATION_ABORTED,
}


def prepare_wait(waitable: Any, callback: Callable[[Status], object], attended: bool = True) -> RegisteredWait:
    """Check the arguments of `register_wait`, and return its wait before it begins.

    `attended`: the library sees to it that what has arrived is harvested meanwhile; False: the caller does.
    """
    check_callback("callback", callback)
    waitable = as_waitable(waitable)
    if waitable._owned_by_threads:
        raise InvalidParameter(f"{a_type(waitable)} is owned by threads: wait for it in a thread")
    with dispatcher_lock:
        waitable._require_open()
    return RegisteredWait(waitable, callback, attended)


def register_wait(
    waitable: Any,
    callback: Callable[[Status], object],
    timeout: float | None = None,
    *,
    clock: Clock = SYSTEM_CLOCK,
) -> RegisteredWait:
    """Have `callback(status)` called once, when `waitable` is signaled or the time is up.

    Args: `waitable` is anything that `wait_any` takes, except a mutex: that belongs to a thread. `timeout` in
        seconds by `clock`; None: no limit; 0: look once.
        `callback` gets `Status.OK` with the signal consumed, `Status.TIMEOUT`, or `Status.ABANDONED_WAIT` if
        the object was closed. It runs on whichever thread signals the object, on the monitor's for a timeout,
        or inside this call if the wait can be decided at once (inside the callback of such a wait, once that has
        returned); no lock is held. It must be quick, and must not block or raise.
    Returns: a handle: `cancel()` withdraws the wait, and says whether that was in time.
    Raises: `InvalidHandle` if the object is closed; `InvalidParameter`, `InvalidArgumentType`.
    Blocks: never. No thread is spent on a pending wait.
    Source: "RegisterWaitForSingleObject". Different from Windows: the wait is for one signal; register again
        for more.
    """
    timeout = check_timeout(timeout)
    check_clock(clock)
    block = prepare_wait(waitable, callback)
    block.begin(timeout, clock)
    return block


@in_child
def _disown() -> None:
    global _life
    _life = object()
