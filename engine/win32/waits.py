"""Waiting for objects, sleeping, and APCs; times in milliseconds, results as Windows' numbers.

    0 + index      the object at that index was signaled (WAIT_OBJECT_0)
    128 + index    the same; a mutex, taken over from a thread that had ended (WAIT_ABANDONED_0)
    192            APCs ran (WAIT_IO_COMPLETION)
    258            the time is up (WAIT_TIMEOUT)
    0xFFFFFFFF     failed; `GetLastError` tells why (WAIT_FAILED)

Handles are those of events, semaphores, mutexes, waitable timers, ports, threads (`threading.Thread`), processes and
futures. An object that is closed while it is waited for fails the wait with 735.

Source: "WaitForSingleObject(Ex)", "WaitForMultipleObjects(Ex)", "SignalObjectAndWait", "SleepEx", "QueueUserAPC".
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from transport.foreign import shown

from .. import (
    AbandonedWait,
    Alerted,
    Event,
    InvalidArgumentType,
    InvalidHandle,
    Misuse,
    Mutex,
    Semaphore,
    WaitResult,
    WaitTimeout,
    queue_apc,
    signal_and_wait,
    sleep,
    wait_all,
    wait_any,
)
from .constants import ERROR_INVALID_HANDLE, WAIT_FAILED
from .errors import SetLastError, contained, fails_with
from .values import routine, seconds, word

__all__ = [
    "QueueUserAPC", "SignalObjectAndWait", "Sleep", "SleepEx", "WaitForMultipleObjects", "WaitForMultipleObjectsEx",
    "WaitForSingleObject", "WaitForSingleObjectEx",
]  # fmt: skip


def _waited(wait: Callable[[], WaitResult]) -> int:
    """Return what a wait came to as Windows' number."""
    try:
        return wait().status
    except (Alerted, WaitTimeout) as error:
        return error.status
    except InvalidArgumentType:  # Not something to wait for.
        SetLastError(ERROR_INVALID_HANDLE)
    except (AbandonedWait, Misuse) as error:
        SetLastError(error.status)
    return WAIT_FAILED


def WaitForSingleObject(hHandle: Any, dwMilliseconds: int) -> int:
    """Wait for one object. Returns: 0, 128, 258 or WAIT_FAILED."""
    return WaitForSingleObjectEx(hHandle, dwMilliseconds, False)


def WaitForSingleObjectEx(hHandle: Any, dwMilliseconds: int, bAlertable: bool) -> int:
    """Wait for one object, alertably if so told. Returns: 0, 128, 192, 258 or WAIT_FAILED."""
    return WaitForMultipleObjectsEx(1, (hHandle,), False, dwMilliseconds, bAlertable)


def WaitForMultipleObjects(nCount: int, lpHandles: Sequence[Any], bWaitAll: bool, dwMilliseconds: int) -> int:
    """Wait for the first of several objects, or for all. Returns: as `WaitForMultipleObjectsEx`, less 192."""
    return WaitForMultipleObjectsEx(nCount, lpHandles, bWaitAll, dwMilliseconds, False)


def WaitForMultipleObjectsEx(
    nCount: int, lpHandles: Sequence[Any], bWaitAll: bool, dwMilliseconds: int, bAlertable: bool
) -> int:
    """Wait for the first of several objects, or for all at the same instant.

    Args: the first `nCount` of `lpHandles` count: 1 to 64 different ones.
    Returns: the index, plus 128 if that is an abandoned mutex; 192; 258; or WAIT_FAILED with the last error 87 for a
        list that is empty, too long or holds an object twice, 6 for what is closed or no handle, 735.
    """
    timeout = seconds(dwMilliseconds)
    handles = lpHandles[: word("nCount", nCount)]
    if len(handles) < nCount:
        raise ValueError(f"nCount is {nCount}, but there are only {len(handles)} handles")
    wait = wait_all if bWaitAll else wait_any
    return _waited(lambda: wait(handles, timeout, alertable=bool(bAlertable)))


def SignalObjectAndWait(hObjectToSignal: Any, hObjectToWaitOn: Any, dwMilliseconds: int, bAlertable: bool) -> int:
    """Signal one object and wait for another, with nothing in between.

    Returns: 0, 128, 192, 258 or WAIT_FAILED; with the last error 298 (a semaphore at its maximum), 288 (a mutex of
        somebody else's) or 6 nothing was waited for.
    """
    timeout = seconds(dwMilliseconds)

    def wait() -> WaitResult:
        if not isinstance(hObjectToSignal, (Event, Semaphore, Mutex)):
            raise InvalidHandle(f"{shown(hObjectToSignal)} cannot be signaled")
        return signal_and_wait(hObjectToSignal, hObjectToWaitOn, timeout, alertable=bool(bAlertable))

    return _waited(wait)


def Sleep(dwMilliseconds: int) -> None:
    """Sleep; 0 only lets other threads run."""
    sleep(seconds(dwMilliseconds))


def SleepEx(dwMilliseconds: int, bAlertable: bool) -> int:
    """Sleep. Returns: 0 after the full time; 192 if it was alertable and APCs ran, pending ones at once."""
    return sleep(seconds(dwMilliseconds), alertable=bool(bAlertable))


@fails_with(False)
def QueueUserAPC(pfnAPC: Callable[[Any], object], hThread: threading.Thread | int, dwData: Any) -> bool:
    """Queue `pfnAPC(dwData)` to a thread, to run inside its next alertable wait.

    Args: `hThread` is a `threading.Thread` or an identifier of one that has used the library.
    Returns: True; or False with the last error 31 if the thread has ended, 6 if this is no thread.
    An `EngineError` that leaves the routine leaves the wait as the cause of a `RuntimeError`, so that it is not taken
    for the wait's own; other exceptions leave it as they are.
    """
    if not isinstance(hThread, (threading.Thread, int)):
        raise InvalidHandle(f"{shown(hThread)} is not a thread")
    queue_apc(contained(routine("pfnAPC", pfnAPC)), dwData, thread=hThread)
    return True
