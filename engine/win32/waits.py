"""Waiting for objects, sleeping, and APCs; times in milliseconds, results as Windows' numbers.

    0 + index      the object at that index was signaled (WAIT_OBJECT_0)
    128 + index    the same; a mutex, taken over from a thread that had ended (WAIT_ABANDONED_0)
    192            APCs ran (WAIT_IO_COMPLETION)
    258            the time is up (WAIT_TIMEOUT)
    0xFFFFFFFF     failed; `GetLastError` tells why (WAIT_FAILED)

Handles are those of events, semaphores, mutexes, waitable timers, ports, threads (`threading.Thread`), processes and
futures. An object that is closed while it is waited for fails the wait with 735.

Registered waits of the older kind repeat until they are unregistered. Each is a wait object of the default pool that
sets itself again after each callback. So callbacks of one wait do not overlap, where on Windows they may; and while one
runs, a signal stays in its object.

Source: "WaitForSingleObject(Ex)", "WaitForMultipleObjects(Ex)", "SignalObjectAndWait", "SleepEx", "QueueUserAPC",
"RegisterWaitForSingleObject", "UnregisterWait", "UnregisterWaitEx".
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from transport.foreign import shown

from .. import (
    AbandonedWait,
    Alerted,
    EngineError,
    Environment,
    Event,
    InvalidArgumentType,
    InvalidHandle,
    InvalidParameter,
    Misuse,
    Mutex,
    Semaphore,
    Status,
    Wait,
    WaitResult,
    WaitTimeout,
    queue_apc,
    signal_and_wait,
    sleep,
    wait_all,
    wait_any,
)
from ..kernel.lock import Lock
from .constants import (
    ERROR_INVALID_HANDLE,
    ERROR_IO_PENDING,
    INVALID_HANDLE_VALUE,
    WAIT_FAILED,
    WAIT_TIMEOUT,
    WT_EXECUTEINIOTHREAD,
    WT_EXECUTEINPERSISTENTTHREAD,
    WT_EXECUTEINWAITTHREAD,
    WT_EXECUTELONGFUNCTION,
    WT_EXECUTEONLYONCE,
)
from .errors import SetLastError, contained, expect, fails_with
from .values import Box, named, routine, seconds, word

__all__ = [
    "QueueUserAPC", "RegisterWaitForSingleObject", "SignalObjectAndWait", "Sleep", "SleepEx", "UnregisterWait",
    "UnregisterWaitEx", "WaitForMultipleObjects", "WaitForMultipleObjectsEx", "WaitForSingleObject",
    "WaitForSingleObjectEx",
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
    """Wait for one object, alertably if asked to. Returns: 0, 128, 192, 258 or WAIT_FAILED."""
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


_FLAGS = (
    WT_EXECUTEINIOTHREAD
    | WT_EXECUTEINWAITTHREAD
    | WT_EXECUTEONLYONCE
    | WT_EXECUTELONGFUNCTION
    | WT_EXECUTEINPERSISTENTTHREAD
)


class _RegisteredWait:
    """The handle of a registered wait."""

    def __init__(
        self, waitable: Any, callback: Callable[[Any, bool], object], context: Any, timeout: float | None, flags: int
    ) -> None:
        self._waitable = waitable
        self._callback = callback
        self._context = context
        self._timeout = timeout
        self._once = bool(flags & WT_EXECUTEONLYONCE)
        self._lock = Lock()
        # Guarded by _lock.
        self._running = False
        self._over = False
        self._ended: Event | None = None
        environment = Environment(
            runs_long=bool(flags & WT_EXECUTELONGFUNCTION), persistent=bool(flags & WT_EXECUTEINPERSISTENTTHREAD)
        )
        self._wait = Wait(named(lambda status: self._run(status), callback), environment=environment)
        try:
            self._wait.set(waitable, timeout)
        except BaseException:
            self._wait.close()
            raise

    def _run(self, status: Status) -> None:
        with self._lock:
            if self._over or status == Status.ABANDONED_WAIT:  # The object was closed: nothing will signal it.
                return
            self._running = True
        try:
            self._callback(self._context, status == WAIT_TIMEOUT)
        finally:
            with self._lock:
                self._running = False
                ended = self._ended
                if not self._over and not self._once:
                    with suppress(InvalidHandle):  # It was closed meanwhile.
                        self._wait.set(self._waitable, self._timeout)
            if ended is not None:
                ended.set()

    def end(self, ended: Event | None) -> bool:
        """Call back no more; return whether a callback runs, at whose end `ended` is set."""
        with self._lock:
            if self._over:
                raise InvalidHandle("the wait is unregistered already")
            self._over = True
            self._ended = ended
            self._wait.set(None)
            running = self._running
        if ended is not None and not running:
            ended.set()
        return running

    def close(self, join: bool) -> None:
        """Be done, first waiting for a callback that runs if asked to."""
        try:
            if join:
                self._wait.wait(cancel_pending=True)
        finally:
            self._wait.close()


@fails_with(False)
def RegisterWaitForSingleObject(
    phNewWaitObject: Box,
    hObject: Any,
    Callback: Callable[[Any, bool], object],
    Context: Any,
    dwMilliseconds: int,
    dwFlags: int,
) -> bool:
    """Have `Callback(Context, timed_out)` called on the default pool whenever the object is signaled or the time is up.

    Args:
        phNewWaitObject: gets the handle, for `UnregisterWait`.
        dwMilliseconds: the time limit of each wait.
        dwFlags: `WT_EXECUTEONLYONCE`: the first call is the last; `WT_EXECUTELONGFUNCTION`; `..INPERSISTENTTHREAD`. The
            other two change nothing: callbacks run on workers only.
    Returns: True; or False with the last error 6 (no object, or a closed one) or 87 (a mutex, another flag).
    An object that stays signaled calls back again and again: use an auto-reset event, or once only.
    """
    if word("dwFlags", dwFlags) & ~_FLAGS:
        raise InvalidParameter(f"dwFlags must be an or of the WT_... flags, not {dwFlags:#x}")
    if hObject is None:
        raise InvalidHandle("there is no object to wait for")
    timeout = seconds(dwMilliseconds)
    try:
        phNewWaitObject.value = _RegisteredWait(hObject, routine("Callback", Callback), Context, timeout, dwFlags)
    except InvalidArgumentType as error:
        raise InvalidHandle(f"{shown(hObject)} cannot be waited for") from error
    return True


def UnregisterWait(WaitHandle: Any) -> bool:
    """End a registered wait, without waiting for a callback that runs. Returns: as `UnregisterWaitEx` with None."""
    return UnregisterWaitEx(WaitHandle, None)


@fails_with(False)
def UnregisterWaitEx(WaitHandle: Any, CompletionEvent: Event | int | None) -> bool:
    """End a registered wait. A callback that is queued does not run any more; one that runs is not interrupted.

    Args:
        CompletionEvent: None: do not wait; INVALID_HANDLE_VALUE: wait for a callback that runs; an event: do not wait,
            it is set when no callback runs (any more).
    Returns: True; or False with the last error 997: a callback runs still, which is no failure; 6; 1131 where waiting
        would never end, in the callback itself.
    """
    wait = expect(WaitHandle, _RegisteredWait)
    blocking = isinstance(CompletionEvent, int) and CompletionEvent == INVALID_HANDLE_VALUE
    event = None if blocking or CompletionEvent is None else expect(CompletionEvent, Event)
    running = wait.end(event)
    wait.close(join=blocking)
    if running and not blocking:
        raise EngineError("a callback of the wait runs still", status=ERROR_IO_PENDING)
    return True
