"""Events, semaphores, mutexes and waitable timers.

Theory of operation. Names are those of this process: Windows shares named objects between processes, which these
functions cannot. Creating an object under a name that one of the same kind has returns that one, with the last error
183; what else was asked for is not looked at then. With a new name the last error is 0. Security attributes, access
rights and inheritance are not looked at.

Source: "CreateEvent(Ex)", "OpenEvent", "SetEvent", "ResetEvent", "PulseEvent", "CreateSemaphore(Ex)", "OpenSemaphore",
"ReleaseSemaphore", "CreateMutex(Ex)", "OpenMutex", "ReleaseMutex", "CreateWaitableTimer(Ex)", "OpenWaitableTimer",
"SetWaitableTimer", "CancelWaitableTimer".
"""

from collections.abc import Callable
from typing import Any

from .. import Event, InvalidParameter, Mutex, Semaphore, WaitableTimer
from .constants import (
    CREATE_EVENT_INITIAL_SET,
    CREATE_EVENT_MANUAL_RESET,
    CREATE_MUTEX_INITIAL_OWNER,
    CREATE_WAITABLE_TIMER_HIGH_RESOLUTION,
    CREATE_WAITABLE_TIMER_MANUAL_RESET,
    ERROR_NOT_SUPPORTED,
)
from .errors import SetLastError, contained, expect, fails_with
from .handles import create, open_named
from .values import Box, GetSystemTimeAsFileTime, due_time, routine, word

__all__ = [
    "CancelWaitableTimer", "CreateEvent", "CreateEventEx", "CreateMutex", "CreateMutexEx", "CreateSemaphore",
    "CreateSemaphoreEx", "CreateWaitableTimer", "CreateWaitableTimerEx", "OpenEvent", "OpenMutex", "OpenSemaphore",
    "OpenWaitableTimer", "PulseEvent", "ReleaseMutex", "ReleaseSemaphore", "ResetEvent", "SetEvent",
    "SetWaitableTimer",
]  # fmt: skip


def _check_flags(flags: int, known: int) -> None:
    if word("dwFlags", flags) & ~known:
        raise InvalidParameter(f"dwFlags has bits that mean nothing here: {flags & ~known:#x}")


@fails_with(None)
def CreateEvent(lpEventAttributes: object, bManualReset: bool, bInitialState: bool, lpName: str | None) -> Event | None:
    """Make an event, or find the one of that name.

    Returns: its handle; or None with the last error 6 if another kind of object has the name.
    """
    return create(lpName, Event, lambda: Event(bool(bManualReset), bool(bInitialState)))


@fails_with(None)
def CreateEventEx(lpEventAttributes: object, lpName: str | None, dwFlags: int, dwDesiredAccess: int) -> Event | None:
    """Make an event as the `CREATE_EVENT_...` flags say, or find the one of that name.

    Returns: its handle; or None with the last error 87 for another flag, or 6.
    """
    _check_flags(dwFlags, CREATE_EVENT_MANUAL_RESET | CREATE_EVENT_INITIAL_SET)
    manual_reset, signaled = bool(dwFlags & CREATE_EVENT_MANUAL_RESET), bool(dwFlags & CREATE_EVENT_INITIAL_SET)
    return create(lpName, Event, lambda: Event(manual_reset, signaled))


@fails_with(None)
def OpenEvent(dwDesiredAccess: int, bInheritHandle: bool, lpName: str) -> Event | None:
    """Find the event of that name. Returns: its handle; or None with the last error 2 (there is none), 6 or 87."""
    return open_named(lpName, Event)


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
    """Release those who wait now, and make the event nonsignaled. Returns: True; or False with the last error 6.

    A wait that begins just then may be released, too. The page advises against it, for good reason: whether another
    thread waits already is not something to rely on.
    """
    event = expect(hEvent, Event)
    event.set()
    event.reset()
    return True


@fails_with(None)
def CreateSemaphore(
    lpSemaphoreAttributes: object, lInitialCount: int, lMaximumCount: int, lpName: str | None
) -> Semaphore | None:
    """Make a semaphore, or find the one of that name.

    Returns: its handle; or None with the last error 87 for counts that do not fit, 6 if another kind of object has the
        name.
    """
    return create(lpName, Semaphore, lambda: Semaphore(lInitialCount, lMaximumCount))


@fails_with(None)
def CreateSemaphoreEx(
    lpSemaphoreAttributes: object,
    lInitialCount: int,
    lMaximumCount: int,
    lpName: str | None,
    dwFlags: int,
    dwDesiredAccess: int,
) -> Semaphore | None:
    """Make a semaphore, or find the one of that name; `dwFlags` must be 0. Returns: as `CreateSemaphore`."""
    _check_flags(dwFlags, 0)
    return create(lpName, Semaphore, lambda: Semaphore(lInitialCount, lMaximumCount))


@fails_with(None)
def OpenSemaphore(dwDesiredAccess: int, bInheritHandle: bool, lpName: str) -> Semaphore | None:
    """Find the semaphore of that name. Returns: its handle; or None with the last error 2 (there is none), 6 or 87."""
    return open_named(lpName, Semaphore)


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
    """Make a mutex, or find the one of that name, which does not become the caller's.

    Returns: its handle; or None with the last error 6 if another kind of object has the name.
    """
    return create(lpName, Mutex, lambda: Mutex(bool(bInitialOwner)))


@fails_with(None)
def CreateMutexEx(lpMutexAttributes: object, lpName: str | None, dwFlags: int, dwDesiredAccess: int) -> Mutex | None:
    """Make a mutex, or find the one of that name; `dwFlags` is 0 or `CREATE_MUTEX_INITIAL_OWNER`.

    Returns: its handle; or None with the last error 87 for another flag, or 6.
    """
    _check_flags(dwFlags, CREATE_MUTEX_INITIAL_OWNER)
    return create(lpName, Mutex, lambda: Mutex(bool(dwFlags)))


@fails_with(None)
def OpenMutex(dwDesiredAccess: int, bInheritHandle: bool, lpName: str) -> Mutex | None:
    """Find the mutex of that name. Returns: its handle; or None with the last error 2 (there is none), 6 or 87."""
    return open_named(lpName, Mutex)


@fails_with(False)
def ReleaseMutex(hMutex: Mutex) -> bool:
    """Give a mutex up, once for each wait. Returns: True; or False with the last error 288 (not the owner) or 6."""
    expect(hMutex, Mutex).release()
    return True


@fails_with(None)
def CreateWaitableTimer(lpTimerAttributes: object, bManualReset: bool, lpTimerName: str | None) -> WaitableTimer | None:
    """Make a waitable timer, or find the one of that name.

    Returns: its handle; or None with the last error 6 if another kind of object has the name.
    """
    return create(lpTimerName, WaitableTimer, lambda: WaitableTimer(bool(bManualReset)))


@fails_with(None)
def CreateWaitableTimerEx(
    lpTimerAttributes: object, lpTimerName: str | None, dwFlags: int, dwDesiredAccess: int
) -> WaitableTimer | None:
    """Make a waitable timer as the `CREATE_WAITABLE_TIMER_...` flags say, or find the one of that name.

    HIGH_RESOLUTION changes nothing: no timer here waits for a tick of the system's. Returns: its handle; or None with
    the last error 87 for another flag, or 6.
    """
    _check_flags(dwFlags, CREATE_WAITABLE_TIMER_MANUAL_RESET | CREATE_WAITABLE_TIMER_HIGH_RESOLUTION)
    manual_reset = bool(dwFlags & CREATE_WAITABLE_TIMER_MANUAL_RESET)
    return create(lpTimerName, WaitableTimer, lambda: WaitableTimer(manual_reset))


@fails_with(None)
def OpenWaitableTimer(dwDesiredAccess: int, bInheritHandle: bool, lpTimerName: str) -> WaitableTimer | None:
    """Find the waitable timer of that name. Returns: its handle; or None with the last error 2, 6 or 87."""
    return open_named(lpTimerName, WaitableTimer)


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
    completion = None if pfnCompletionRoutine is None else routine("pfnCompletionRoutine", pfnCompletionRoutine)

    def apc() -> None:
        assert completion is not None
        now = GetSystemTimeAsFileTime()
        contained(completion, lpArgToCompletionRoutine)(now & 0xFFFFFFFF, now >> 32)

    timer = expect(hTimer, WaitableTimer)
    timer.set(due_time(lpDueTime), lPeriod / 1000, None if completion is None else apc)
    if fResume:
        SetLastError(ERROR_NOT_SUPPORTED)
    return True


@fails_with(False)
def CancelWaitableTimer(hTimer: WaitableTimer) -> bool:
    """Take a timer's setting back; the signal stays as it is. Returns: True; or False with the last error 6."""
    expect(hTimer, WaitableTimer).cancel()
    return True
