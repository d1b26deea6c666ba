"""Events, semaphores, mutexes and waitable timers.

Theory of operation. Objects with names are shared between processes by Windows; here they belong to one process, and a
name is refused with 50 (NOT_SUPPORTED). Security attributes are not looked at.

Source: "CreateEvent", "SetEvent", "ResetEvent", "PulseEvent", "CreateSemaphore", "ReleaseSemaphore", "CreateMutex",
"ReleaseMutex", "CreateWaitableTimer", "SetWaitableTimer", "CancelWaitableTimer".
"""

from collections.abc import Callable
from typing import Any

from .. import EngineError, Event, InvalidParameter, Mutex, Semaphore, WaitableTimer
from .constants import ERROR_NOT_SUPPORTED
from .errors import SetLastError, contained, expect, fails_with
from .values import Box, GetSystemTimeAsFileTime, due_time

__all__ = [
    "CancelWaitableTimer",
    "CreateEvent",
    "CreateMutex",
    "CreateSemaphore",
    "CreateWaitableTimer",
    "PulseEvent",
    "ReleaseMutex",
    "ReleaseSemaphore",
    "ResetEvent",
    "SetEvent",
    "SetWaitableTimer",
]


def _refuse_name(name: object) -> None:
    if name is not None:
        raise EngineError(f"objects have no names here, but {name!r} was given", status=ERROR_NOT_SUPPORTED)


@fails_with(None)
def CreateEvent(
    lpEventAttributes: object, bManualReset: bool, bInitialState: bool, lpName: str | None
) -> Event | None:
    """Make an event. Returns: its handle; or None with the last error 50 if it is to have a name."""
    _refuse_name(lpName)
    return Event(bool(bManualReset), bool(bInitialState))


@fails_with(False)
def SetEvent(hEvent: Event) -> bool:
    """Signal an event. Returns: True; or False with the last error 6."""
    expect(hEvent, Event).set()
    return True


@fails_with(False)
def ResetEvent(hEvent: Event) -> bool:
    """Make an event nonsignaled. Returns: True; or False with the last error 6."""
    expect(hEvent, Event).reset()
    return True


@fails_with(False)
def PulseEvent(hEvent: Event) -> bool:
    """Release those who wait now, and make the event nonsignaled. Returns: True; or False with the last error 6."""
    expect(hEvent, Event).pulse()
    return True


@fails_with(None)
def CreateSemaphore(
    lpSemaphoreAttributes: object, lInitialCount: int, lMaximumCount: int, lpName: str | None
) -> Semaphore | None:
    """Make a semaphore. Returns: its handle; or None with the last error 87 for counts that do not fit, or 50."""
    _refuse_name(lpName)
    return Semaphore(lInitialCount, lMaximumCount)


@fails_with(False)
def ReleaseSemaphore(hSemaphore: Semaphore, lReleaseCount: int, lpPreviousCount: Box | None) -> bool:
    """Add to a semaphore's count.

    Returns: True, with the count before in the box if there is one; or False with the last error 298 (the maximum
        would be passed), 87 (a count below 1) or 6. Then nothing has changed.
    """
    before = expect(hSemaphore, Semaphore).release(lReleaseCount)
    if lpPreviousCount is not None:
        lpPreviousCount.value = before
    return True


@fails_with(None)
def CreateMutex(lpMutexAttributes: object, bInitialOwner: bool, lpName: str | None) -> Mutex | None:
    """Make a mutex. Returns: its handle; or None with the last error 50 if it is to have a name."""
    _refuse_name(lpName)
    return Mutex(bool(bInitialOwner))


@fails_with(False)
def ReleaseMutex(hMutex: Mutex) -> bool:
    """Give a mutex up, once for each wait. Returns: True; or False with the last error 288 (not the owner) or 6."""
    expect(hMutex, Mutex).release()
    return True


@fails_with(None)
def CreateWaitableTimer(
    lpTimerAttributes: object, bManualReset: bool, lpTimerName: str | None
) -> WaitableTimer | None:
    """Make a waitable timer. Returns: its handle; or None with the last error 50 if it is to have a name."""
    _refuse_name(lpTimerName)
    return WaitableTimer(bool(bManualReset))


@fails_with(False)
def SetWaitableTimer(
    hTimer: WaitableTimer,
    lpDueTime: int,
    lPeriod: int,
    pfnCompletionRoutine: Callable[[Any, int, int], object] | None,
    lpArgToCompletionRoutine: Any,
    fResume: bool,
) -> bool:
    """Set a timer, replacing its former setting.

    Args:
        lpDueTime: in units of 100 ns: negative counts from now; positive is a FILETIME, one that is past means now.
        lPeriod: milliseconds between later expiries; 0: only one.
        pfnCompletionRoutine: called as `routine(argument, low, high)` in an alertable wait of the thread that set the
            timer. Different from Windows: the two halves are the FILETIME at which it is called, not signaled.
        fResume: no sleeping machine can be woken from here: the timer is set, and the last error is 50.
    Returns: True; or False with the last error 87 (a negative period) or 6.
    """
    if lPeriod < 0:
        raise InvalidParameter(f"lPeriod must be 0 or more milliseconds, not {lPeriod}")
    if pfnCompletionRoutine is not None and not callable(pfnCompletionRoutine):
        raise TypeError(f"pfnCompletionRoutine must be callable, not {type(pfnCompletionRoutine).__name__}")

    def apc() -> None:
        assert pfnCompletionRoutine is not None
        now = GetSystemTimeAsFileTime()
        contained(pfnCompletionRoutine, lpArgToCompletionRoutine)(now & 0xFFFFFFFF, now >> 32)

    timer = expect(hTimer, WaitableTimer)
    timer.set(due_time(lpDueTime), lPeriod / 1000, None if pfnCompletionRoutine is None else apc)
    if fResume:
        SetLastError(ERROR_NOT_SUPPORTED)
    return True


@fails_with(False)
def CancelWaitableTimer(hTimer: WaitableTimer) -> bool:
    """Take a timer's setting back; the signal stays as it is. Returns: True; or False with the last error 6."""
    expect(hTimer, WaitableTimer).cancel()
    return True
