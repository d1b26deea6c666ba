"""The thread pool by the Windows names: "Thread Pool API", sections 1 to 10 of the reference."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine import CompletionPacket, Deadlock, InvalidHandle, PacketSink
from engine.testing import LIMIT, Gate
from engine.win32 import (
    ERROR_INVALID_PARAMETER,
    ERROR_NOT_SUPPORTED,
    ERROR_OPERATION_ABORTED,
    ERROR_TOO_MANY_THREADS,
    NO_ERROR,
    TP_CALLBACK_ENVIRON,
    TP_CALLBACK_INSTANCE,
    TP_CALLBACK_PRIORITY_COUNT,
    TP_CALLBACK_PRIORITY_HIGH,
    TP_CALLBACK_PRIORITY_INVALID,
    TP_CALLBACK_PRIORITY_LOW,
    TP_CLEANUP_GROUP,
    TP_IO,
    TP_POOL,
    TP_TIMER,
    TP_WAIT,
    TP_WORK,
    WAIT_OBJECT_0,
    WAIT_TIMEOUT,
    CallbackMayRunLong,
    CancelThreadpoolIo,
    CloseThreadpool,
    CloseThreadpoolCleanupGroup,
    CloseThreadpoolCleanupGroupMembers,
    CloseThreadpoolIo,
    CloseThreadpoolTimer,
    CloseThreadpoolWait,
    CloseThreadpoolWork,
    CreateEvent,
    CreateMutex,
    CreateSemaphore,
    CreateThreadpool,
    CreateThreadpoolCleanupGroup,
    CreateThreadpoolIo,
    CreateThreadpoolTimer,
    CreateThreadpoolWait,
    CreateThreadpoolWork,
    DestroyThreadpoolEnvironment,
    DisassociateCurrentThreadFromCallback,
    FreeLibraryWhenCallbackReturns,
    GetLastError,
    GetSystemTimeAsFileTime,
    InitializeThreadpoolEnvironment,
    IsThreadpoolTimerSet,
    LeaveCriticalSectionWhenCallbackReturns,
    QueryThreadpoolStackInformation,
    ReleaseMutexWhenCallbackReturns,
    ReleaseSemaphoreWhenCallbackReturns,
    SetEvent,
    SetEventWhenCallbackReturns,
    SetLastError,
    SetThreadpoolCallbackCleanupGroup,
    SetThreadpoolCallbackLibrary,
    SetThreadpoolCallbackPersistent,
    SetThreadpoolCallbackPool,
    SetThreadpoolCallbackPriority,
    SetThreadpoolCallbackRunsLong,
    SetThreadpoolStackInformation,
    SetThreadpoolThreadMaximum,
    SetThreadpoolThreadMinimum,
    SetThreadpoolTimer,
    SetThreadpoolTimerEx,
    SetThreadpoolWait,
    SetThreadpoolWaitEx,
    StartThreadpoolIo,
    SubmitThreadpoolWork,
    TrySubmitThreadpoolCallback,
    WaitForSingleObject,
    WaitForThreadpoolIoCallbacks,
    WaitForThreadpoolTimerCallbacks,
    WaitForThreadpoolWaitCallbacks,
    WaitForThreadpoolWorkCallbacks,
)

from .handles import made

MS = int(LIMIT * 1000)
HOUR = 3600 * 10_000_000  # In units of 100 ns.
Handles = Callable[[Any], Any]


@pytest.fixture
def pool() -> Iterator[Any]:
    """A pool of one persistent thread, as the documentation's recipe makes it."""
    made = CreateThreadpool(None)
    assert made is not None
    SetThreadpoolThreadMaximum(made, 1)
    assert SetThreadpoolThreadMinimum(made, 1)
    yield made
    CloseThreadpool(made)
    assert made.stop(LIMIT)


@pytest.fixture
def environment(pool: Any) -> TP_CALLBACK_ENVIRON:
    made = TP_CALLBACK_ENVIRON()
    InitializeThreadpoolEnvironment(made)
    SetThreadpoolCallbackPool(made, pool)
    return made


@pytest.fixture
def event(handles: Handles) -> Any:
    return handles(CreateEvent(None, False, False, None))


class TestSample:
    """The documentation's sample: a pool, a cleanup group, a work object, a timer."""

    def test_work_and_timer_in_a_group(self, handles: Handles) -> None:
        """Everything that was made is released by the group, in the right order."""
        worked, ticked = (handles(CreateEvent(None, False, False, None)) for _ in range(2))

        def MyWorkCallback(Instance: Any, Parameter: Any, Work: Any) -> None:
            SetEvent(Parameter)

        def MyTimerCallback(Instance: Any, Parameter: Any, Timer: Any) -> None:
            SetEvent(Parameter)

        CallBackEnviron = TP_CALLBACK_ENVIRON()
        InitializeThreadpoolEnvironment(CallBackEnviron)
        pool = CreateThreadpool(None)
        assert pool is not None
        SetThreadpoolThreadMaximum(pool, 1)
        assert SetThreadpoolThreadMinimum(pool, 1)
        cleanupgroup = CreateThreadpoolCleanupGroup()
        assert cleanupgroup is not None
        SetThreadpoolCallbackPool(CallBackEnviron, pool)
        SetThreadpoolCallbackCleanupGroup(CallBackEnviron, cleanupgroup, None)
        work = made(CreateThreadpoolWork(MyWorkCallback, worked, CallBackEnviron))
        assert work is not None
        SubmitThreadpoolWork(work)
        timer = made(CreateThreadpoolTimer(MyTimerCallback, ticked, CallBackEnviron))
        assert timer is not None
        SetThreadpoolTimer(timer, -10_000, 0, 0)
        assert WaitForSingleObject(worked, MS) == WaitForSingleObject(ticked, MS) == WAIT_OBJECT_0
        CloseThreadpoolCleanupGroupMembers(cleanupgroup, False, None)
        CloseThreadpoolCleanupGroup(cleanupgroup)
        CloseThreadpool(pool)
        DestroyThreadpoolEnvironment(CallBackEnviron)
        assert pool.stop(LIMIT)


class TestWork:
    """Sections 3 and 5."""

    def test_each_submission_runs_once(self, environment: Any) -> None:
        """Five submissions, five callbacks, with the context and the object."""
        seen: list[Any] = []
        work = made(
            CreateThreadpoolWork(lambda instance, context, work: seen.append((context, work)), "mine", environment)
        )
        for _ in range(5):
            SubmitThreadpoolWork(work)
        WaitForThreadpoolWorkCallbacks(work, False)
        assert seen == [("mine", work)] * 5
        CloseThreadpoolWork(work)
        with pytest.raises(InvalidHandle):
            SubmitThreadpoolWork(work)

    def test_cancelling_what_is_queued(self, environment: Any) -> None:
        """Waiting with cancel discards what is queued, and waits for what runs."""
        gate, seen = Gate(), []
        blocker = made(CreateThreadpoolWork(lambda *_: gate.pass_through(), None, environment))
        work = made(CreateThreadpoolWork(lambda *_: seen.append(1), None, environment))
        SubmitThreadpoolWork(blocker)
        gate.wait_for_arrivals(1)
        SubmitThreadpoolWork(work)
        WaitForThreadpoolWorkCallbacks(work, True)
        gate.open()
        WaitForThreadpoolWorkCallbacks(blocker, False)
        assert seen == []
        CloseThreadpoolWork(work)
        CloseThreadpoolWork(blocker)

    def test_waiting_for_oneself(self, environment: Any, event: Any) -> None:
        """A callback that waits for its own object raises instead of hanging; disassociated, it may."""

        def callback(instance: Any, context: Any, work: Any) -> None:
            with pytest.raises(Deadlock):
                WaitForThreadpoolWorkCallbacks(work, False)
            DisassociateCurrentThreadFromCallback(instance)
            WaitForThreadpoolWorkCallbacks(work, False)
            SetEventWhenCallbackReturns(instance, event)

        work = made(CreateThreadpoolWork(callback, None, environment))
        SubmitThreadpoolWork(work)
        assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
        CloseThreadpoolWork(work)

    def test_simple_callbacks(self, environment: Any, event: Any) -> None:
        """TrySubmitThreadpoolCallback runs it once, with the context."""
        seen: list[Any] = []

        def callback(instance: Any, context: Any) -> None:
            seen.append(context)
            SetEventWhenCallbackReturns(instance, event)

        assert TrySubmitThreadpoolCallback(callback, "mine", environment)
        assert TrySubmitThreadpoolCallback(callback, "default pool", None)
        while len(seen) < 2:
            assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
        assert sorted(seen) == ["default pool", "mine"]


class TestPools:
    """Sections 1 and 4: what the functions make, and what cannot be set."""

    def test_types(self, pool: Any, environment: Any, event: Any) -> None:
        """The handles, and the instance, are of the types that the header names."""
        group, seen = CreateThreadpoolCleanupGroup(), []
        assert isinstance(pool, TP_POOL)
        assert isinstance(group, TP_CLEANUP_GROUP)
        SetThreadpoolCallbackCleanupGroup(environment, group, None)
        assert isinstance(CreateThreadpoolWork(print, None, environment), TP_WORK)
        assert isinstance(CreateThreadpoolTimer(print, None, environment), TP_TIMER)
        assert isinstance(CreateThreadpoolWait(print, None, environment), TP_WAIT)
        assert isinstance(CreateThreadpoolIo(Source(), print, None, environment), TP_IO)
        assert TrySubmitThreadpoolCallback(lambda instance, context: seen.append(instance), None, environment)
        CloseThreadpoolCleanupGroupMembers(group, False, None)
        assert isinstance(seen[0], TP_CALLBACK_INSTANCE)

    def test_stack_sizes(self, pool: Any) -> None:
        """A pool has no stack size: setting and asking fail with 50."""
        for function in (SetThreadpoolStackInformation, QueryThreadpoolStackInformation):
            SetLastError(NO_ERROR)
            assert function(pool, None) is False
            assert GetLastError() == ERROR_NOT_SUPPORTED == 50


class TestEnvironment:
    """Section 2."""

    def test_initialising(self, pool: Any) -> None:
        """It gives the defaults back."""
        environment = TP_CALLBACK_ENVIRON()
        library, group = object(), CreateThreadpoolCleanupGroup()
        assert group is not None
        SetThreadpoolCallbackPool(environment, pool)
        SetThreadpoolCallbackPriority(environment, TP_CALLBACK_PRIORITY_HIGH)
        SetThreadpoolCallbackRunsLong(environment)
        SetThreadpoolCallbackPersistent(environment)
        SetThreadpoolCallbackLibrary(environment, library)
        SetThreadpoolCallbackCleanupGroup(environment, group, print)
        assert (environment.pool, environment.priority, environment.runs_long) == (pool, 0, True)
        assert (environment.persistent, environment.keep_alive) == (True, library)
        assert (environment.cleanup_group, environment.cancel_callback) == (group, print)
        InitializeThreadpoolEnvironment(environment)
        assert (environment.pool, environment.priority, environment.runs_long) == (None, 1, False)
        CloseThreadpoolCleanupGroup(group)

    def test_a_wrong_priority_fails_the_making(self, environment: Any) -> None:
        """87, for every kind of object."""
        assert TP_CALLBACK_PRIORITY_INVALID == TP_CALLBACK_PRIORITY_COUNT == 3
        for wrong in (10, TP_CALLBACK_PRIORITY_INVALID):
            SetThreadpoolCallbackPriority(environment, wrong)
            for make in (CreateThreadpoolWork, CreateThreadpoolTimer, CreateThreadpoolWait):
                SetLastError(NO_ERROR)
                assert make(print, None, environment) is None
                assert GetLastError() == ERROR_INVALID_PARAMETER
            assert not TrySubmitThreadpoolCallback(print, None, environment)

    def test_priorities(self, environment: Any) -> None:
        """A free worker takes the highest class first."""
        gate, seen = Gate(), []
        assert TrySubmitThreadpoolCallback(lambda *_: gate.pass_through(), None, environment)
        gate.wait_for_arrivals(1)
        for priority in (TP_CALLBACK_PRIORITY_LOW, TP_CALLBACK_PRIORITY_HIGH):
            SetThreadpoolCallbackPriority(environment, priority)
            assert TrySubmitThreadpoolCallback(lambda instance, context: seen.append(context), priority, environment)
        gate.open()
        environment.pool.stop(LIMIT)
        assert seen == [TP_CALLBACK_PRIORITY_HIGH, TP_CALLBACK_PRIORITY_LOW]

    def test_what_is_no_callback_raises(self, environment: Any) -> None:
        """A C compiler would not let it through."""
        with pytest.raises(TypeError):
            CreateThreadpoolWork("no function", None, environment)  # type: ignore[arg-type]  # wrong on purpose


class TestNames:
    """An object is known, in the log too, by the program's function."""

    def test_shown(self, environment: Any) -> None:
        """Each kind of object shows the function that it was made with."""

        def told(*args: Any) -> None: ...

        for make in CreateThreadpoolWork, CreateThreadpoolTimer, CreateThreadpoolWait:
            each = made(make(told, None, environment))
            assert "test_shown.<locals>.told" in repr(each)
            each.close()


class TestInstance:
    """Section 8."""

    def test_when_returns(self, environment: Any, handles: Handles) -> None:
        """Lock, mutex, semaphore, event, and last the function: all after the callback has returned."""
        event = handles(CreateEvent(None, True, False, None))
        semaphore, mutex = made(CreateSemaphore(None, 0, 5, None)), made(CreateMutex(None, False, None))
        lock = threading.Lock()
        seen: list[Any] = []

        def callback(instance: Any, context: Any, work: Any) -> None:
            lock.acquire()
            WaitForSingleObject(mutex, 0)
            SetEventWhenCallbackReturns(instance, event)
            ReleaseSemaphoreWhenCallbackReturns(instance, semaphore, 2)
            ReleaseMutexWhenCallbackReturns(instance, mutex)
            LeaveCriticalSectionWhenCallbackReturns(instance, lock)
            FreeLibraryWhenCallbackReturns(instance, lambda: seen.append(WaitForSingleObject(event, 0)))
            seen.append(WaitForSingleObject(event, 0))

        work = made(CreateThreadpoolWork(callback, None, environment))
        SubmitThreadpoolWork(work)
        WaitForThreadpoolWorkCallbacks(work, False)
        assert seen == [WAIT_TIMEOUT, WAIT_OBJECT_0]
        assert [WaitForSingleObject(semaphore, 0) for _ in range(3)] == [0, 0, WAIT_TIMEOUT]
        assert WaitForSingleObject(mutex, 0) == WAIT_OBJECT_0
        assert not lock.locked()
        CloseThreadpoolWork(work)

    def test_may_run_long(self, environment: Any) -> None:
        """In a pool of one thread there is none to spare: False, with 565."""
        seen: list[Any] = []

        def callback(instance: Any, context: Any, work: Any) -> None:
            seen.append((CallbackMayRunLong(instance), GetLastError()))

        work = made(CreateThreadpoolWork(callback, None, environment))
        SubmitThreadpoolWork(work)
        WaitForThreadpoolWorkCallbacks(work, False)
        SetThreadpoolThreadMaximum(environment.pool, 2)
        SubmitThreadpoolWork(work)
        WaitForThreadpoolWorkCallbacks(work, False)
        assert seen[0] == (False, ERROR_TOO_MANY_THREADS)
        assert seen[1][0] is True
        CloseThreadpoolWork(work)


class TestTimers:
    """Section 6."""

    @pytest.mark.parametrize("due", [0, -1, 1])
    def test_due(self, due: int, environment: Any, event: Any) -> None:
        """Zero is now, negative relative, positive absolute; a one-shot stays "set" after it fired."""
        timer = made(CreateThreadpoolTimer(lambda instance, context, timer: SetEvent(event), None, environment))
        assert not IsThreadpoolTimerSet(timer)
        SetThreadpoolTimer(timer, due, 0, 0)
        assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
        assert IsThreadpoolTimerSet(timer)
        SetThreadpoolTimer(timer, None, 0, 0)
        assert not IsThreadpoolTimerSet(timer)
        WaitForThreadpoolTimerCallbacks(timer, True)
        CloseThreadpoolTimer(timer)

    def test_period(self, environment: Any, event: Any) -> None:
        """It goes on every period until it is disarmed; a wait does not disarm it."""
        timer = made(CreateThreadpoolTimer(lambda instance, context, timer: SetEvent(event), None, environment))
        SetThreadpoolTimer(timer, 0, 1, 0)
        for _ in range(3):
            assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
        WaitForThreadpoolTimerCallbacks(timer, True)
        assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
        SetThreadpoolTimer(timer, None, 0, 0)
        WaitForThreadpoolTimerCallbacks(timer, True)
        CloseThreadpoolTimer(timer)

    @pytest.mark.parametrize("due", [0, -1, 1])
    def test_window(self, due: int, environment: Any, event: Any) -> None:
        """A timer that may be late comes together with another one that expires, in whichever form it is due."""
        late = made(CreateThreadpoolTimer(lambda instance, context, timer: SetEvent(event), None, environment))
        exact = made(CreateThreadpoolTimer(lambda instance, context, timer: None, None, environment))
        SetThreadpoolTimer(late, due, 0, 0xFFFFFFFF)
        SetThreadpoolTimer(exact, -10_000, 0, 0)
        assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
        for timer in (late, exact):
            WaitForThreadpoolTimerCallbacks(timer, False)
            CloseThreadpoolTimer(timer)

    def test_withdrawing(self, environment: Any) -> None:
        """SetThreadpoolTimerEx tells whether an expiry was withdrawn; one that is not due is not waited for."""
        timer = made(CreateThreadpoolTimer(print, None, environment))
        assert not SetThreadpoolTimerEx(timer, -HOUR, 0, 0)
        WaitForThreadpoolTimerCallbacks(timer, False)
        assert SetThreadpoolTimerEx(timer, GetSystemTimeAsFileTime() + HOUR, 0, 100)
        assert SetThreadpoolTimerEx(timer, None, 0, 0)
        assert not SetThreadpoolTimerEx(timer, None, 0, 0)
        CloseThreadpoolTimer(timer)


class TestWaits:
    """Section 7."""

    @pytest.fixture
    def seen(self) -> list[Any]:
        return []

    @pytest.fixture
    def told(self, handles: Handles) -> Any:
        return handles(CreateEvent(None, False, False, None))

    @pytest.fixture
    def wait(self, seen: list[Any], told: Any, environment: Any) -> Iterator[Any]:
        def callback(instance: Any, context: Any, wait: Any, result: int) -> None:
            seen.append((context, result))
            SetEvent(told)

        made = CreateThreadpoolWait(callback, "mine", environment)
        assert made is not None
        yield made
        SetThreadpoolWait(made, None, None)
        WaitForThreadpoolWaitCallbacks(made, True)
        CloseThreadpoolWait(made)

    def test_signaled(self, wait: Any, seen: list[Any], event: Any, told: Any) -> None:
        """One callback a set, with 0; the signal is consumed."""
        for _ in range(2):
            SetThreadpoolWait(wait, event, None)
            SetEvent(event)
            assert WaitForSingleObject(told, MS) == WAIT_OBJECT_0
        SetEvent(event)
        assert WaitForSingleObject(event, 0) == WAIT_OBJECT_0
        assert seen == [("mine", WAIT_OBJECT_0)] * 2

    @pytest.mark.parametrize("timeout", [0, -1, 1])
    def test_timed_out(self, timeout: int, wait: Any, seen: list[Any], event: Any, told: Any) -> None:
        """Zero is at once, negative relative, positive absolute: 258."""
        SetThreadpoolWait(wait, event, timeout)
        assert WaitForSingleObject(told, MS) == WAIT_OBJECT_0
        assert seen == [("mine", WAIT_TIMEOUT)]

    def test_ending_a_wait(self, wait: Any, seen: list[Any], event: Any) -> None:
        """None ends it, the time limit not looked at; a later signal stays in its object."""
        SetThreadpoolWait(wait, event, -HOUR)
        assert SetThreadpoolWaitEx(wait, None, 0)
        assert not SetThreadpoolWaitEx(wait, None, 0)
        SetEvent(event)
        assert WaitForSingleObject(event, 0) == WAIT_OBJECT_0
        assert seen == []


class Source:
    """A source of overlapped operations, which complete when it is told so."""

    def bind_port(self, port: PacketSink, key: Any) -> None:
        self.port, self.key = port, key

    def complete(self, overlapped: Any, transferred: int, status: int = 0) -> None:
        self.port.deliver([CompletionPacket(self.key, transferred, overlapped, status)])


class TestIo:
    """Section 10."""

    def test_completions(self, environment: Any) -> None:
        """Each announced operation calls back with its overlapped, result and bytes; a cancelled one too."""
        seen: list[Any] = []
        source = Source()

        def callback(instance: Any, context: Any, overlapped: Any, result: int, size: int, io: Any) -> None:
            seen.append((context, overlapped, result, size, io))

        io = made(CreateThreadpoolIo(source, callback, "mine", environment))
        for status in (0, ERROR_OPERATION_ABORTED):
            StartThreadpoolIo(io)
            source.complete("operation", 7, status)
        WaitForThreadpoolIoCallbacks(io, False)
        assert seen == [("mine", "operation", 0, 7, io), ("mine", "operation", 995, 7, io)]
        StartThreadpoolIo(io)
        CancelThreadpoolIo(io)
        WaitForThreadpoolIoCallbacks(io, False)
        CloseThreadpoolIo(io)

    def test_a_source_that_cannot_be_bound(self, environment: Any) -> None:
        """87: it is bound already, or is none."""
        source = Source()
        io = made(CreateThreadpoolIo(source, print, None, environment))
        for handle in (source, object()):
            assert CreateThreadpoolIo(handle, print, None, environment) is None
            assert GetLastError() == ERROR_INVALID_PARAMETER
        CloseThreadpoolIo(io)


class TestCleanupGroups:
    """Section 9."""

    def test_cancel_callbacks(self, environment: Any) -> None:
        """Once for each object, idle ones too, on the thread that releases, with both contexts."""
        seen: list[Any] = []
        group = CreateThreadpoolCleanupGroup()
        assert group is not None

        def cancelled(context: Any, cleanup: Any) -> None:
            seen.append((context, cleanup, threading.current_thread()))

        SetThreadpoolCallbackCleanupGroup(environment, group, cancelled)
        gate = Gate()
        busy = made(CreateThreadpoolWork(lambda *_: gate.pass_through(), "busy", environment))
        idle = made(CreateThreadpoolTimer(print, "idle", environment))
        closed = made(CreateThreadpoolWork(print, "closed", environment))
        assert busy and idle and closed
        CloseThreadpoolWork(closed)
        SubmitThreadpoolWork(busy)
        gate.wait_for_arrivals(1)
        for _ in range(10):
            SubmitThreadpoolWork(busy)
        gate.open()
        CloseThreadpoolCleanupGroupMembers(group, True, "cleanup")
        here = threading.current_thread()
        assert seen == [("busy", "cleanup", here), ("idle", "cleanup", here)]
        CloseThreadpoolCleanupGroup(group)
