"""Objects, waits and APCs by the Windows names: "Synchronization Functions", sections 11 and 12."""

import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from engine.testing import LIMIT, wait_until, wait_until_blocked
from engine.win32 import (
    ERROR_ABANDONED_WAIT_0,
    ERROR_GEN_FAILURE,
    ERROR_INVALID_HANDLE,
    ERROR_INVALID_PARAMETER,
    ERROR_NOT_OWNER,
    ERROR_NOT_SUPPORTED,
    ERROR_TOO_MANY_POSTS,
    INFINITE,
    MAXIMUM_WAIT_OBJECTS,
    WAIT_ABANDONED_0,
    WAIT_FAILED,
    WAIT_IO_COMPLETION,
    WAIT_OBJECT_0,
    WAIT_TIMEOUT,
    Box,
    CancelWaitableTimer,
    CloseHandle,
    CreateEvent,
    CreateMutex,
    CreateSemaphore,
    CreateWaitableTimer,
    GetCurrentThread,
    GetCurrentThreadId,
    GetLastError,
    GetSystemTimeAsFileTime,
    PulseEvent,
    QueueUserAPC,
    ReleaseMutex,
    ReleaseSemaphore,
    ResetEvent,
    SetEvent,
    SetLastError,
    SetWaitableTimer,
    SignalObjectAndWait,
    Sleep,
    SleepEx,
    WaitForMultipleObjects,
    WaitForMultipleObjectsEx,
    WaitForSingleObject,
    WaitForSingleObjectEx,
)

from .handles import made

MS = int(LIMIT * 1000)
SECOND = 10_000_000  # In units of 100 ns.

Handles = Callable[[Any], Any]


@pytest.fixture
def event(handles: Handles) -> Any:
    return handles(CreateEvent(None, False, False, None))


@pytest.fixture
def other(handles: Handles) -> Any:
    return handles(CreateEvent(None, False, False, None))


@pytest.fixture
def timer(handles: Handles) -> Any:
    return handles(CreateWaitableTimer(None, False, None))


def in_thread(function: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


class TestEvents:
    """ "Event Objects"."""

    def test_auto_reset(self, event: Any) -> None:
        """Set it: one wait is satisfied, the next times out; sets in between coalesce."""
        assert SetEvent(event) and SetEvent(event)
        assert WaitForSingleObject(event, 0) == WAIT_OBJECT_0
        assert WaitForSingleObject(event, 0) == WAIT_TIMEOUT

    def test_manual_reset(self, handles: Handles) -> None:
        """It stays set until it is reset; it may begin set."""
        event = handles(CreateEvent(None, True, True, None))
        assert [WaitForSingleObject(event, 0) for _ in range(2)] == [WAIT_OBJECT_0] * 2
        assert ResetEvent(event)
        assert WaitForSingleObject(event, 0) == WAIT_TIMEOUT

    @pytest.mark.parametrize("manual", [False, True])
    def test_a_pulse_without_waiters_is_lost(self, handles: Handles, manual: bool) -> None:
        """The state is nonsignaled after it, whatever it was."""
        for initial in (False, True):
            event = handles(CreateEvent(None, manual, initial, None))
            assert PulseEvent(event)
            assert WaitForSingleObject(event, 0) == WAIT_TIMEOUT

    @pytest.mark.parametrize("manual", [False, True])
    def test_a_pulse_releases_who_waits(self, handles: Handles, manual: bool) -> None:
        """One waiting thread goes, or all of them with manual reset; the event is nonsignaled."""
        event: Any = handles(CreateEvent(None, manual, False, None))
        ended: list[int] = []
        threads = [threading.Thread(target=lambda: ended.append(WaitForSingleObject(event, INFINITE))) for _ in "ab"]
        for thread in threads:
            thread.start()
        wait_until(lambda: event.statistics().waiting == 2)
        assert PulseEvent(event)
        wait_until(lambda: len(ended) == (2 if manual else 1))
        assert WaitForSingleObject(event, 0) == WAIT_TIMEOUT
        assert SetEvent(event)
        for thread in threads:
            thread.join(LIMIT)
        assert ended == [WAIT_OBJECT_0] * 2

    def test_handles_of_another_kind(self, event: Any) -> None:
        """Each function wants its own kind of object, and an open one: else 6."""
        mutex = made(CreateMutex(None, False, None))
        assert CloseHandle(mutex) and CloseHandle(event)
        for function, *args in (
            (SetEvent, mutex), (SetEvent, event), (ResetEvent, None), (PulseEvent, event), (ReleaseMutex, mutex),
            (ReleaseMutex, event), (ReleaseSemaphore, event, 1, None), (CancelWaitableTimer, event),
            (SetWaitableTimer, event, 0, 0, None, None, False), (CloseHandle, event),
        ):  # fmt: skip
            SetLastError(0)
            assert not function(*args)
            assert GetLastError() == ERROR_INVALID_HANDLE


class TestSemaphoresAndMutexes:
    """ "Semaphore Objects", "Mutex Objects"."""

    def test_semaphore(self) -> None:
        """Waits count down, releases count up and give the count before."""
        semaphore = made(CreateSemaphore(None, 1, 2, None))
        before = Box()
        assert WaitForSingleObject(semaphore, 0) == WAIT_OBJECT_0
        assert WaitForSingleObject(semaphore, 0) == WAIT_TIMEOUT
        assert ReleaseSemaphore(semaphore, 2, before)
        assert before.value == 0

    def test_semaphore_limits(self) -> None:
        """298 beyond the maximum, 87 for counts that make no sense; nothing has changed then."""
        semaphore = made(CreateSemaphore(None, 1, 2, None))
        before = Box("unset")
        for count, error in ((2, ERROR_TOO_MANY_POSTS), (0, ERROR_INVALID_PARAMETER), (-1, ERROR_INVALID_PARAMETER)):
            assert not ReleaseSemaphore(semaphore, count, before)
            assert (GetLastError(), before.value) == (error, "unset")
        assert ReleaseSemaphore(semaphore, 1, None)
        assert CreateSemaphore(None, 3, 2, None) is None
        assert GetLastError() == ERROR_INVALID_PARAMETER

    def test_mutex(self) -> None:
        """Recursive: as many releases as waits, one more is 288."""
        mutex = made(CreateMutex(None, True, None))
        assert WaitForSingleObject(mutex, 0) == WAIT_OBJECT_0
        assert ReleaseMutex(mutex) and ReleaseMutex(mutex)
        assert not ReleaseMutex(mutex)
        assert GetLastError() == ERROR_NOT_OWNER

    def test_abandoned_mutex(self, event: Any) -> None:
        """Its owner ended: 128 plus the index, and the mutex is owned."""
        mutexes = [made(CreateMutex(None, False, None)) for _ in range(2)]
        for mutex in mutexes:
            in_thread(partial(WaitForSingleObject, mutex, INFINITE)).join(LIMIT)
        assert WaitForSingleObject(mutexes[0], MS) == WAIT_ABANDONED_0
        assert WaitForMultipleObjects(2, [event, mutexes[1]], False, MS) == WAIT_ABANDONED_0 + 1
        assert ReleaseMutex(mutexes[0]) and ReleaseMutex(mutexes[1])


class TestWaitableTimers:
    """ "Waitable Timer Objects"."""

    @pytest.mark.parametrize("due", [0, -1, 1, -SECOND // 1000])
    def test_due(self, timer: Any, due: int) -> None:
        """Negative counts from now, positive is absolute, what is past means now."""
        assert SetWaitableTimer(timer, due, 0, None, None, False)
        assert WaitForSingleObject(timer, MS) == WAIT_OBJECT_0
        assert WaitForSingleObject(timer, 0) == WAIT_TIMEOUT

    @pytest.mark.parametrize("due", [-3600 * SECOND, -(1 << 63), (1 << 63) - 1])
    def test_far_away(self, timer: Any, due: int) -> None:
        """The ends of the range are far away; cancelling leaves the signal as it is."""
        assert SetWaitableTimer(timer, due, 0, None, None, False)
        assert WaitForSingleObject(timer, 0) == WAIT_TIMEOUT
        assert CancelWaitableTimer(timer)

    def test_absolute(self, timer: Any) -> None:
        """It is not signaled before its FILETIME."""
        due = GetSystemTimeAsFileTime() + SECOND // 50
        assert SetWaitableTimer(timer, due, 0, None, None, False)
        assert WaitForSingleObject(timer, MS) == WAIT_OBJECT_0
        assert GetSystemTimeAsFileTime() >= due

    def test_period(self, timer: Any) -> None:
        """It goes on every period; a negative one is 87."""
        assert SetWaitableTimer(timer, 0, 1, None, None, False)
        assert [WaitForSingleObject(timer, MS) for _ in range(3)] == [WAIT_OBJECT_0] * 3
        assert not SetWaitableTimer(timer, 0, -1, None, None, False)
        assert GetLastError() == ERROR_INVALID_PARAMETER

    def test_completion_routine(self, timer: Any) -> None:
        """It runs in an alertable wait of the thread that set the timer, with its argument and a time."""
        seen: list[Any] = []

        def routine(argument: Any, low: int, high: int) -> None:
            seen.append((argument, GetCurrentThreadId(), (high << 32) + low))

        began = GetSystemTimeAsFileTime()
        assert SetWaitableTimer(timer, -1, 0, routine, "argument", False)
        assert SleepEx(MS, True) == WAIT_IO_COMPLETION
        ((argument, thread, when),) = seen
        assert (argument, thread) == ("argument", GetCurrentThreadId())
        assert began <= when <= GetSystemTimeAsFileTime()

    def test_waking_the_machine(self, timer: Any) -> None:
        """It cannot be done here: the timer is set, and the last error says 50."""
        assert SetWaitableTimer(timer, 0, 0, None, None, True)
        assert GetLastError() == ERROR_NOT_SUPPORTED
        assert WaitForSingleObject(timer, MS) == WAIT_OBJECT_0


class TestWaiting:
    """ "Wait Functions"."""

    def test_any(self, event: Any, other: Any) -> None:
        """The lowest index that is signaled, and only that one is consumed."""
        assert SetEvent(event) and SetEvent(other)
        assert WaitForMultipleObjects(2, [event, other], False, MS) == WAIT_OBJECT_0
        assert WaitForMultipleObjects(2, [event, other], False, MS) == WAIT_OBJECT_0 + 1
        assert WaitForMultipleObjects(2, [event, other], False, 1) == WAIT_TIMEOUT

    def test_all(self, event: Any, other: Any) -> None:
        """All at the same instant; nothing is taken until then."""
        assert SetEvent(event)
        assert WaitForMultipleObjects(2, [event, other], True, 1) == WAIT_TIMEOUT
        assert SetEvent(other)
        assert WaitForMultipleObjects(2, [event, other], True, MS) == WAIT_OBJECT_0
        assert WaitForMultipleObjects(2, [event, other], False, 0) == WAIT_TIMEOUT

    def test_the_count_counts(self, event: Any) -> None:
        """Only the first `nCount` handles are looked at; more than there are raises."""
        assert WaitForMultipleObjects(1, [event, None], False, 0) == WAIT_TIMEOUT
        with pytest.raises(ValueError):
            WaitForMultipleObjects(2, [event], False, 0)

    def test_bad_lists(self, event: Any) -> None:
        """87 for an empty list, a long one, or one with an object twice; 6 for what is no handle or closed."""
        closed = CreateEvent(None, False, False, None)
        CloseHandle(closed)
        many = [event] * (MAXIMUM_WAIT_OBJECTS + 1)
        for handles, error in (
            ([], ERROR_INVALID_PARAMETER), (many, ERROR_INVALID_PARAMETER), ([event, event], ERROR_INVALID_PARAMETER),
            ([None], ERROR_INVALID_HANDLE), ([event, "no"], ERROR_INVALID_HANDLE), ([closed], ERROR_INVALID_HANDLE),
        ):  # fmt: skip
            SetLastError(0)
            assert WaitForMultipleObjects(len(handles), handles, False, 0) == WAIT_FAILED
            assert GetLastError() == error

    def test_closed_while_waiting(self, event: Any) -> None:
        """The wait fails with 735."""
        seen: list[tuple[int, int]] = []
        thread = in_thread(lambda: seen.append((WaitForSingleObject(event, INFINITE), GetLastError())))
        wait_until_blocked(event)
        assert CloseHandle(event)
        thread.join(LIMIT)
        assert seen == [(WAIT_FAILED, ERROR_ABANDONED_WAIT_0)]

    def test_threads_and_processes(self) -> None:
        """They are signaled once they have ended; closing their handles ends nothing."""
        thread = in_thread(lambda: None)
        assert WaitForSingleObject(thread, MS) == WAIT_OBJECT_0
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        assert CloseHandle(process)
        assert WaitForSingleObject(process, 0) == WAIT_TIMEOUT
        process.communicate(b"\n")
        assert WaitForSingleObject(process, MS) == WAIT_OBJECT_0

    def test_signal_and_wait(self, event: Any, other: Any) -> None:
        """One object is signaled, the other waited for; the same one may be both."""
        SetEvent(other)
        assert SignalObjectAndWait(event, other, MS, False) == WAIT_OBJECT_0
        assert WaitForSingleObject(event, 0) == WAIT_OBJECT_0
        assert SignalObjectAndWait(event, event, MS, False) == WAIT_OBJECT_0
        assert WaitForSingleObject(event, 0) == WAIT_TIMEOUT
        assert SignalObjectAndWait(event, other, 0, False) == WAIT_TIMEOUT

    def test_signal_that_fails(self, event: Any, timer: Any) -> None:
        """A failing signal fails the call, and nothing is waited for."""
        SetEvent(event)
        full, free = CreateSemaphore(None, 1, 1, None), CreateMutex(None, False, None)
        for signal, error in (
            (full, ERROR_TOO_MANY_POSTS), (free, ERROR_NOT_OWNER), (timer, ERROR_INVALID_HANDLE),
            (None, ERROR_INVALID_HANDLE),
        ):  # fmt: skip
            assert SignalObjectAndWait(signal, event, 0, False) == WAIT_FAILED
            assert GetLastError() == error
        assert WaitForSingleObject(event, 0) == WAIT_OBJECT_0


class TestApcs:
    """ "Asynchronous Procedure Calls"."""

    def test_an_alertable_wait_runs_them_all(self, event: Any) -> None:
        """First in, first out, all of them, then 192 once; a plain wait runs none."""
        ran: list[int] = []
        for number in range(3):
            assert QueueUserAPC(ran.append, GetCurrentThread(), number)
        assert WaitForSingleObject(event, 0) == WAIT_TIMEOUT
        Sleep(0)
        assert ran == []
        assert WaitForSingleObjectEx(event, MS, True) == WAIT_IO_COMPLETION
        assert ran == [0, 1, 2]
        assert WaitForSingleObjectEx(event, 0, True) == WAIT_TIMEOUT

    def test_a_signal_comes_first(self, event: Any) -> None:
        """A signaled object beats pending APCs, which beat a time that is up."""
        ran: list[int] = []
        QueueUserAPC(ran.append, GetCurrentThread(), 1)
        SetEvent(event)
        assert WaitForMultipleObjectsEx(1, [event], True, MS, True) == WAIT_OBJECT_0
        assert ran == []
        assert WaitForMultipleObjectsEx(1, [event], False, 0, True) == WAIT_IO_COMPLETION
        assert ran == [1]

    def test_sleeping(self) -> None:
        """A full sleep is 0, an alertable one with a pending APC 192, at once, for 0 too."""
        assert SleepEx(1, True) == 0
        QueueUserAPC(lambda data: None, GetCurrentThread(), None)
        assert SleepEx(0, False) == 0
        assert SleepEx(0, True) == WAIT_IO_COMPLETION

    def test_waking_another_thread(self, event: Any) -> None:
        """An APC ends the alertable wait of its thread."""
        seen: list[int] = []
        thread = in_thread(lambda: seen.append(WaitForSingleObjectEx(event, INFINITE, True)))
        wait_until_blocked(thread)
        assert QueueUserAPC(seen.append, thread, 1)
        thread.join(LIMIT)
        assert seen == [1, WAIT_IO_COMPLETION]

    def test_a_thread_that_has_ended(self) -> None:
        """31; what is no thread is 6; what cannot be called raises."""
        thread = in_thread(lambda: None)
        thread.join(LIMIT)
        target: Any
        for target, error in ((thread, ERROR_GEN_FAILURE), (None, ERROR_INVALID_HANDLE)):
            assert not QueueUserAPC(print, target, 0)
            assert GetLastError() == error
        with pytest.raises(TypeError):
            QueueUserAPC(None, GetCurrentThread(), 0)  # type: ignore[arg-type]  # wrong on purpose

    def test_an_error_in_an_apc_is_not_the_waits(self, event: Any) -> None:
        """An engine error that leaves a routine is seen as such, not as a wait that failed."""
        QueueUserAPC(lambda data: event.wait(-1), GetCurrentThread(), None)
        with pytest.raises(RuntimeError, match="InvalidParameter"):
            SleepEx(MS, True)
        assert GetLastError() == 0
