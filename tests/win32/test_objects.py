"""Names of objects, and their functions with flags: "Object Names", "CreateEventEx" and its siblings."""

import gc
import os
import signal
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from engine.testing import LIMIT, Gate
from engine.win32 import (
    CREATE_EVENT_INITIAL_SET,
    CREATE_EVENT_MANUAL_RESET,
    CREATE_MUTEX_INITIAL_OWNER,
    CREATE_WAITABLE_TIMER_HIGH_RESOLUTION,
    CREATE_WAITABLE_TIMER_MANUAL_RESET,
    ERROR_ALREADY_EXISTS,
    ERROR_FILE_NOT_FOUND,
    ERROR_INVALID_HANDLE,
    ERROR_INVALID_PARAMETER,
    ERROR_SUCCESS,
    EVENT_ALL_ACCESS,
    EVENT_MODIFY_STATE,
    FALSE,
    MUTEX_ALL_ACCESS,
    NULL,
    SEMAPHORE_ALL_ACCESS,
    SYNCHRONIZE,
    TIMER_ALL_ACCESS,
    TRUE,
    WAIT_OBJECT_0,
    WAIT_TIMEOUT,
    CloseHandle,
    CreateEvent,
    CreateEventEx,
    CreateMutex,
    CreateMutexEx,
    CreateSemaphore,
    CreateSemaphoreEx,
    CreateWaitableTimer,
    CreateWaitableTimerEx,
    GetLastError,
    OpenEvent,
    OpenMutex,
    OpenSemaphore,
    OpenWaitableTimer,
    ReleaseMutex,
    ReleaseSemaphore,
    SetEvent,
    SetLastError,
    SetWaitableTimer,
    WaitForSingleObject,
)

MS = int(LIMIT * 1000)
Handles = Callable[[Any], Any]

# For each kind: how to make one of that name, and how to find it.
KINDS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "event": (
        lambda name: CreateEvent(NULL, TRUE, FALSE, name),
        lambda name: OpenEvent(EVENT_ALL_ACCESS, FALSE, name),
    ),
    "mutex": (
        lambda name: CreateMutex(NULL, FALSE, name),
        lambda name: OpenMutex(MUTEX_ALL_ACCESS, FALSE, name),
    ),
    "semaphore": (
        lambda name: CreateSemaphore(NULL, 0, 1, name),
        lambda name: OpenSemaphore(SEMAPHORE_ALL_ACCESS, FALSE, name),
    ),
    "timer": (
        lambda name: CreateWaitableTimer(NULL, TRUE, name),
        lambda name: OpenWaitableTimer(TIMER_ALL_ACCESS, FALSE, name),
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]


class TestNames:
    """ "Object Names", "Interprocess Synchronization": the threads of this process."""

    def test_using_named_objects(self, handles: Handles) -> None:
        """As in "Using Named Objects": one thread makes the object, another finds it, and one wakes the other."""
        event = handles(CreateEvent(NULL, TRUE, FALSE, "WriteEvent"))
        assert GetLastError() != ERROR_ALREADY_EXISTS

        def second() -> None:
            found = OpenEvent(EVENT_MODIFY_STATE, FALSE, "WriteEvent")
            assert found is not None
            SetEvent(found)
            CloseHandle(found)

        thread = threading.Thread(target=second)
        thread.start()
        assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
        thread.join(LIMIT)

    def test_one_instance_only(self, handles: Handles) -> None:
        """The idiom by which a program finds out that it is the first: 183 for all others."""
        SetLastError(ERROR_ALREADY_EXISTS)  # From something before.
        mutex = handles(CreateMutex(NULL, TRUE, "only-one"))
        assert GetLastError() == ERROR_SUCCESS
        again = handles(CreateMutex(NULL, TRUE, "only-one"))
        assert (again, GetLastError()) == (mutex, ERROR_ALREADY_EXISTS)
        assert ReleaseMutex(mutex)
        assert not ReleaseMutex(mutex)  # The second one did not own it once more.

    def test_the_same_object(self, kind: Any, handles: Handles) -> None:
        """Creating under a name that is taken, and opening, give the object that has it."""
        create, find = kind
        made = handles(create("name"))
        assert handles(create("name")) is made
        assert GetLastError() == ERROR_ALREADY_EXISTS
        assert handles(find("name")) is made

    def test_without_a_name(self, kind: Any, handles: Handles) -> None:
        """No name, or an empty one: a new object each time, which nobody can open (87)."""
        create, find = kind
        assert len({id(handles(create(name))) for name in (None, None, "", "")}) == 4
        for name in (None, ""):
            assert find(name) is None
            assert GetLastError() == ERROR_INVALID_PARAMETER
        with pytest.raises(TypeError):
            create(5)

    def test_nothing_of_that_name(self, kind: Any) -> None:
        """2; names are told apart by case."""
        create, find = kind
        made = create("Name")
        assert find("name") is None
        assert GetLastError() == ERROR_FILE_NOT_FOUND
        assert CloseHandle(made)
        assert find("Name") is None
        assert GetLastError() == ERROR_FILE_NOT_FOUND

    def test_kinds_share_their_names(self, kind: Any, handles: Handles) -> None:
        """A name of another kind of object is 6, to create and to open."""
        create, find = kind
        for others, _ in KINDS.values():
            if others is create:
                continue
            made = others("taken")
            for use in (create, find):
                SetLastError(0)
                assert use("taken") is None
                assert GetLastError() == ERROR_INVALID_HANDLE
            assert CloseHandle(made)

    def test_the_last_handle_closes(self, kind: Any) -> None:
        """An object is closed with as many handles as it was created and opened; then the name is free."""
        create, find = kind
        made, again, found = create("counted"), create("counted"), find("counted")
        assert CloseHandle(again) and CloseHandle(found)
        assert not made.statistics().closed
        assert CloseHandle(made)
        assert made.statistics().closed
        assert not CloseHandle(made)
        assert GetLastError() == ERROR_INVALID_HANDLE
        fresh = create("counted")
        assert fresh is not made and GetLastError() == ERROR_SUCCESS
        assert CloseHandle(fresh)

    def test_the_name_goes_before_the_object(self, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody is given an object that is about to be closed: its name goes with the last handle, before that."""
        create, find = kind
        made = create("going")
        close, found = type(made).close, list[Any]()

        def look_first(self: Any) -> None:
            found.extend((find("going"), create("going")))
            close(self)

        with monkeypatch.context() as patched:
            patched.setattr(type(made), "close", look_first)
            assert CloseHandle(made)
        assert found[0] is None and found[1] is not made
        assert made.statistics().closed and not found[1].statistics().closed
        assert CloseHandle(found[1])

    def test_a_failed_creation_leaves_no_name(self) -> None:
        """A semaphore that cannot be made (87) has no name either."""
        assert CreateSemaphore(NULL, 2, 1, "bad") is None
        assert GetLastError() == ERROR_INVALID_PARAMETER
        assert OpenSemaphore(SYNCHRONIZE, FALSE, "bad") is None
        assert GetLastError() == ERROR_FILE_NOT_FOUND

    def test_a_name_keeps_nothing_alive(self) -> None:
        """An object that everybody dropped is gone, and with it its name."""
        assert CreateMutex(NULL, FALSE, "dropped") is not None
        gc.collect()
        assert OpenMutex(SYNCHRONIZE, FALSE, "dropped") is None
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            CreateEvent(NULL, FALSE, FALSE, "dropped")
            gc.collect()
        assert [warning.category for warning in seen] == [ResourceWarning]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_forked_child_has_its_own_names(self, handles: Handles) -> None:
        """Names are the process's: a child finds none of its parent's, whatever other threads did at the fork."""
        gate = Gate()

        class Name(str):
            def __hash__(self) -> int:
                gate.pass_through()
                return super().__hash__()

        handles(CreateEvent(NULL, TRUE, FALSE, "parent"))
        busy = threading.Thread(target=OpenEvent, args=(SYNCHRONIZE, FALSE, Name("absent")))
        busy.start()
        gate.wait_for_arrivals()
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(int(LIMIT))
                found = OpenEvent(SYNCHRONIZE, FALSE, "parent")
                made = CreateEvent(NULL, TRUE, TRUE, "parent")
                os._exit(0 if found is None and WaitForSingleObject(made, 0) == WAIT_OBJECT_0 else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        gate.open()
        busy.join(LIMIT)


class TestFlags:
    """ "CreateEventEx", "CreateMutexEx", "CreateSemaphoreEx", "CreateWaitableTimerEx"."""

    @pytest.mark.parametrize("signaled", [0, CREATE_EVENT_INITIAL_SET])
    @pytest.mark.parametrize("manual", [0, CREATE_EVENT_MANUAL_RESET])
    def test_events(self, handles: Handles, signaled: int, manual: int) -> None:
        """Each flag does what the argument of CreateEvent does."""
        event = handles(CreateEventEx(NULL, NULL, signaled | manual, EVENT_ALL_ACCESS))
        first, second = (WAIT_OBJECT_0 if signaled else WAIT_TIMEOUT), (WAIT_OBJECT_0 if manual else WAIT_TIMEOUT)
        assert WaitForSingleObject(event, 0) == first
        SetEvent(event)
        assert [WaitForSingleObject(event, 0) for _ in range(2)] == [WAIT_OBJECT_0, second]

    def test_mutexes(self, handles: Handles) -> None:
        """CREATE_MUTEX_INITIAL_OWNER: the maker owns it."""
        for flags, owned in ((0, FALSE), (CREATE_MUTEX_INITIAL_OWNER, TRUE)):
            assert ReleaseMutex(handles(CreateMutexEx(NULL, NULL, flags, MUTEX_ALL_ACCESS))) == owned

    def test_semaphores(self, handles: Handles) -> None:
        """As CreateSemaphore."""
        semaphore = handles(CreateSemaphoreEx(NULL, 1, 2, "named", 0, SEMAPHORE_ALL_ACCESS))
        assert ReleaseSemaphore(semaphore, 1, NULL) and not ReleaseSemaphore(semaphore, 1, NULL)
        assert handles(OpenSemaphore(SYNCHRONIZE, FALSE, "named")) is semaphore

    def test_timers(self, handles: Handles) -> None:
        """CREATE_WAITABLE_TIMER_MANUAL_RESET: it stays signaled."""
        for flags, again in ((CREATE_WAITABLE_TIMER_HIGH_RESOLUTION, WAIT_TIMEOUT),
                             (CREATE_WAITABLE_TIMER_MANUAL_RESET, WAIT_OBJECT_0)):  # fmt: skip
            timer = handles(CreateWaitableTimerEx(NULL, NULL, flags, TIMER_ALL_ACCESS))
            assert SetWaitableTimer(timer, 0, 0, NULL, NULL, FALSE)
            assert WaitForSingleObject(timer, MS) == WAIT_OBJECT_0
            assert WaitForSingleObject(timer, 0) == again

    def test_other_flags(self) -> None:
        """87."""
        for create in (
            lambda: CreateEventEx(NULL, NULL, 4, 0), lambda: CreateMutexEx(NULL, NULL, 2, 0),
            lambda: CreateSemaphoreEx(NULL, 0, 1, NULL, 1, 0), lambda: CreateWaitableTimerEx(NULL, NULL, 4, 0),
        ):  # fmt: skip
            SetLastError(0)
            assert create() is None
            assert GetLastError() == ERROR_INVALID_PARAMETER
