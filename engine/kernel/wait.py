"""Waits for several objects, the hand-over wait, and sleeping.

Source: "WaitForMultipleObjectsEx", "SignalObjectAndWait", "SleepEx"; sections 11 and 12 of
`docs/semantics/completion-port.md`.
"""

import time
from collections.abc import Iterable
from typing import Any, Self

from transport.foreign import a_type, type_name

from ..errors import InvalidArgumentType, InvalidParameter, WaitTimeout
from ..status import Status
from . import exits  # noqa: F401  # It teaches `as_waitable` about threads, processes and futures.
from .apc import run_apcs, wait_alertably
from .checks import Deadline, check_flag, check_timeout
from .dispatcher import TIMED_OUT, ThreadBlock, wait_on
from .driver import driver
from .loops import holding, loop_to_hold
from .thread import local, park
from .waitable import Waitable, as_waitable
from .waiter import Waiter

MAXIMUM_WAIT_OBJECTS = 64  # As on Windows. For more, use callbacks: `register_wait`, or packets: `associate_wait`.


class WaitResult(int):
    """Which object satisfied a wait: its index, as an `int`.

    `abandoned` is True if it is a mutex that was taken over from a thread that had ended; `status` is the
    number that Windows returns: the index, plus 128 if abandoned.
    """

    abandoned: bool

    def __new__(cls, index: int, abandoned: bool = False) -> Self:
        """Make a result for the object at `index`."""
        self = super().__new__(cls, index)
        self.abandoned = abandoned
        return self

    @property
    def status(self) -> int:
        """WAIT_OBJECT_0 + index, or WAIT_ABANDONED_0 + index."""
        return int(self) + (Status.WAIT_ABANDONED if self.abandoned else 0)

    def __repr__(self) -> str:
        return f"WaitResult({int(self)}{', abandoned=True' if self.abandoned else ''})"


def wait_any(objects: Iterable[Any], timeout: float | None = None, *, alertable: bool = False) -> WaitResult:
    """Wait until one of `objects` is signaled, and consume that one's signal only.

    Args: `objects`: 1 to 64 different ones: events, semaphores, mutexes, waitable timers, completion ports,
        threads, processes, futures, overlapped operations. `timeout` in seconds; None waits for ever, 0
        polls. `alertable` lets queued APCs end the wait.
    Returns: the index of the object; the lowest, if several are signaled when the wait begins.
    Raises: `WaitTimeout` (258), nothing changed; `Alerted` (192) when APCs ran instead; `AbandonedWait` (735)
        if an object is closed meanwhile; `InvalidHandle` (6) if one was closed before; `InvalidParameter`
        (87) for an empty list, a long one, or one that holds an object twice; `InvalidArgumentType` for what
        cannot be waited for.
    Blocks: until signaled; the thread's slot on its completion port is free meanwhile. A signal that is there
        beats pending APCs, and pending APCs beat a timeout of 0.
    Source: "WaitForMultipleObjectsEx".
    """
    return _result(wait_on(_checked(objects), False, timeout, alertable), timeout)


def wait_all(objects: Iterable[Any], timeout: float | None = None, *, alertable: bool = False) -> WaitResult:
    """Wait until all `objects` are signaled at the same instant, and consume all of their signals at once.

    Nothing is held while waiting: until all are signaled, others may take any of them. Returns 0, or the
    lowest index of an abandoned mutex. Otherwise as `wait_any`.
    """
    return _result(wait_on(_checked(objects), True, timeout, alertable), timeout)


def signal_and_wait(signal: Any, wait: Any, timeout: float | None = None, *, alertable: bool = False) -> WaitResult:
    """Signal one object and wait for another, with nothing in between.

    Args: `signal`: an event is set, a semaphore is released by 1, a mutex is released. `wait`: what to wait
        for; it may be the same object. `timeout`, `alertable`: as for `wait_any`.
    Returns: 0; `abandoned` tells about a mutex. Raises: as `wait_any`; and what signalling raises
        (`LimitExceeded`, `NotOwner`), in which case there is no wait. After a `WaitTimeout` or `Alerted` the
        signal has been given.
    Source: "SignalObjectAndWait". Different from Windows: the two halves are atomic, which its page does not
        promise.
    """
    if not isinstance(signal, Waitable):
        raise InvalidArgumentType(f"cannot signal {a_type(signal)}")
    timeout = check_timeout(timeout)
    if timeout != 0 and (loop := loop_to_hold()) is not None:  # Before the signal is given.
        with holding(loop):
            return signal_and_wait(signal, wait, timeout, alertable=alertable)
    return _result(wait_on((as_waitable(wait),), False, timeout, alertable, signal=signal), timeout)


def sleep(seconds: float | None, *, alertable: bool = False) -> Status:
    """Sleep; with `alertable`, until APCs were queued and have run.

    Args: `seconds`; None sleeps for ever. 0 only lets other threads run, and keeps the thread's slot on its
        port.
    Returns: `Status.OK` after the full time, `Status.WAIT_IO_COMPLETION` (192) if APCs ran: pending ones run
        at once, whatever `seconds` is. Raises: `InvalidParameter` for a negative time.
    Blocks: for that time; the thread's slot on its completion port is free meanwhile. Source: "SleepEx".
    """
    seconds = check_timeout(seconds)
    check_flag("alertable", alertable)
    record = local.record
    if alertable and run_apcs(record):
        return Status.WAIT_IO_COMPLETION
    if seconds == 0:
        time.sleep(0)
        return Status.OK
    if not alertable:
        park(Waiter(), seconds)
        return Status.OK
    deadline = Deadline(seconds)
    while True:
        waiter = Waiter()
        woken = wait_alertably(record, waiter.wake, waiter, seconds)
        if run_apcs(record):
            return Status.WAIT_IO_COMPLETION
        if not woken:
            return Status.OK
        seconds = deadline.left()  # A timer withdrew the APC that woke this thread: nothing ran.


def _checked(objects: Iterable[Any]) -> list[Waitable]:
    try:
        given = list(objects)
    except TypeError:
        as_waitable(objects)  # Raises if a list would not help.
        kind = type_name(objects)
        raise InvalidArgumentType(f"objects must be a list of what to wait for, not one {kind}: pass [it]") from None
    if not 1 <= len(given) <= MAXIMUM_WAIT_OBJECTS:
        raise InvalidParameter(f"a wait takes 1 to {MAXIMUM_WAIT_OBJECTS} objects, not {len(given)}")
    waitables = [as_waitable(each) for each in given]
    if len({id(each) for each in waitables}) != len(waitables):
        raise InvalidParameter("the list holds an object twice")
    return waitables


def _result(block: ThreadBlock, timeout: float | None) -> WaitResult:
    outcome = block.outcome
    if outcome is None or outcome == TIMED_OUT:
        why = "" if timeout == 0 else driver().silence()
        raise WaitTimeout(f"the wait was not satisfied within {timeout} s{why}")
    return WaitResult(outcome, bool(block.abandoned))
