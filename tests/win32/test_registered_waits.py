"""Waits of the older kind: "RegisterWaitForSingleObject", "UnregisterWaitEx"; section 11 of the thread pool."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from engine.testing import LIMIT, Gate, wait_until, wait_until_blocked
from engine.win32 import (
    ERROR_INVALID_HANDLE,
    ERROR_INVALID_PARAMETER,
    ERROR_IO_PENDING,
    ERROR_POSSIBLE_DEADLOCK,
    FALSE,
    INFINITE,
    INVALID_HANDLE_VALUE,
    NULL,
    TRUE,
    WAIT_OBJECT_0,
    WAIT_TIMEOUT,
    WT_EXECUTEDEFAULT,
    WT_EXECUTELONGFUNCTION,
    WT_EXECUTEONLYONCE,
    Box,
    CloseHandle,
    CreateEvent,
    CreateMutex,
    GetLastError,
    RegisterWaitForSingleObject,
    SetEvent,
    SetLastError,
    TrySubmitThreadpoolCallback,
    UnregisterWait,
    UnregisterWaitEx,
    WaitForSingleObject,
)

MS = int(LIMIT * 1000)
Handles = Callable[[Any], Any]


@pytest.fixture
def event(handles: Handles) -> Any:
    return handles(CreateEvent(NULL, FALSE, FALSE, NULL))


@pytest.fixture
def done(handles: Handles) -> Any:
    return handles(CreateEvent(NULL, TRUE, FALSE, NULL))


class Called:
    """A callback that remembers how it was called, and stops at a gate if it has one."""

    def __init__(self, told: Any, gate: Gate | None = None) -> None:
        self.seen: list[tuple[Any, bool]] = []
        self.returned = 0
        self.told = told
        self.gate = gate

    def __call__(self, context: Any, timed_out: bool) -> None:
        self.seen.append((context, timed_out))
        if self.gate is not None:
            self.gate.pass_through()
        self.returned += 1
        SetEvent(self.told)


@pytest.fixture
def called(handles: Handles) -> Called:
    return Called(handles(CreateEvent(NULL, FALSE, FALSE, NULL)))


def register(waitable: Any, callback: Any, milliseconds: int = INFINITE, flags: int = WT_EXECUTEDEFAULT) -> Any:
    handle = Box()
    assert RegisterWaitForSingleObject(handle, waitable, callback, "context", milliseconds, flags)
    return handle.value


def settle(told: Any) -> None:
    """Return when what is queued on the default pool now has begun."""
    assert TrySubmitThreadpoolCallback(lambda instance, context: SetEvent(told), NULL, NULL)
    assert WaitForSingleObject(told, MS) == WAIT_OBJECT_0


class TestRepeating:
    """It calls back for each signal, until it is unregistered."""

    def test_each_signal(self, event: Any, called: Called) -> None:
        """The callback gets the context, and False for a signal, which is consumed."""
        wait = register(event, called)
        for _ in range(3):
            SetEvent(event)
            assert WaitForSingleObject(called.told, MS) == WAIT_OBJECT_0
        assert called.seen == [("context", FALSE)] * 3
        assert UnregisterWaitEx(wait, INVALID_HANDLE_VALUE)
        SetEvent(event)
        assert WaitForSingleObject(event, 0) == WAIT_OBJECT_0

    def test_each_time_limit(self, event: Any, called: Called) -> None:
        """True when the time was up; and then again."""
        wait = register(event, called, 1)
        for _ in range(2):
            assert WaitForSingleObject(called.told, MS) == WAIT_OBJECT_0
        assert UnregisterWaitEx(wait, INVALID_HANDLE_VALUE)
        assert set(called.seen) == {("context", TRUE)}

    @pytest.mark.parametrize("flags", [WT_EXECUTEONLYONCE, WT_EXECUTEONLYONCE | WT_EXECUTELONGFUNCTION])
    def test_only_once(self, event: Any, called: Called, flags: int) -> None:
        """With that flag the first call is the last; it is unregistered all the same."""
        wait = register(event, called, flags=flags)
        SetEvent(event)
        assert WaitForSingleObject(called.told, MS) == WAIT_OBJECT_0
        SetEvent(event)
        assert WaitForSingleObject(called.told, 20) == WAIT_TIMEOUT
        assert WaitForSingleObject(event, 0) == WAIT_OBJECT_0
        assert UnregisterWait(wait)

    def test_an_object_that_stays_signaled(self, done: Any, called: Called) -> None:
        """It calls back again and again, one call after the other."""
        SetEvent(done)
        wait = register(done, called)
        wait_until(lambda: len(called.seen) > 3)
        assert UnregisterWaitEx(wait, INVALID_HANDLE_VALUE)
        count = len(called.seen)
        assert WaitForSingleObject(done, 0) == WAIT_OBJECT_0
        assert len(called.seen) == count

    def test_an_object_that_is_closed(self, called: Called, caplog: pytest.LogCaptureFixture) -> None:
        """Nothing calls back for it, whether it is closed while waited for or in the callback; it is no failure."""
        event, other = CreateEvent(NULL, TRUE, TRUE, NULL), CreateEvent(NULL, TRUE, FALSE, NULL)

        def close(context: Any, timed_out: bool) -> None:
            CloseHandle(event)
            called(context, timed_out)

        waits = [register(event, close), register(other, called)]
        assert WaitForSingleObject(called.told, MS) == WAIT_OBJECT_0
        assert CloseHandle(other)
        settle(called.told)
        for wait in waits:
            assert UnregisterWaitEx(wait, INVALID_HANDLE_VALUE)
        assert (called.seen, caplog.records) == ([("context", FALSE)], [])

    def test_misuse(self, event: Any, handles: Handles) -> None:
        """87 for a mutex and for another flag, 6 for no object or a closed one; and the box is left alone."""
        closed = CreateEvent(NULL, FALSE, FALSE, NULL)
        CloseHandle(closed)
        box = Box("unset")
        for waitable, flags, error in (
            (handles(CreateMutex(NULL, FALSE, NULL)), 0, ERROR_INVALID_PARAMETER),
            (NULL, 0, ERROR_INVALID_HANDLE),
            ("event", 0, ERROR_INVALID_HANDLE),
            (event, 0x400, ERROR_INVALID_PARAMETER),
            (closed, 0, ERROR_INVALID_HANDLE),
        ):
            SetLastError(0)
            assert not RegisterWaitForSingleObject(box, waitable, print, NULL, INFINITE, flags)
            assert (GetLastError(), box.value) == (error, "unset")
        with pytest.raises(TypeError):
            RegisterWaitForSingleObject(box, event, cast(Any, NULL), NULL, INFINITE, 0)


class TestUnregistering:
    """The three forms, while a callback runs and while none does."""

    @pytest.fixture
    def gate(self) -> Iterator[Gate]:
        made = Gate()
        yield made
        made.open()

    @pytest.fixture
    def running(self, event: Any, called: Called, gate: Gate) -> Any:
        """A wait whose callback runs, until the gate is opened."""
        called.gate = gate
        wait = register(event, called)
        SetEvent(event)
        gate.wait_for_arrivals()
        return wait

    def test_without_waiting(self, event: Any, called: Called, running: Any, gate: Gate) -> None:
        """997 while a callback runs, which is not disturbed; True otherwise; 6 the second time."""
        assert not UnregisterWait(running)
        assert GetLastError() == ERROR_IO_PENDING
        gate.open()
        assert WaitForSingleObject(called.told, MS) == WAIT_OBJECT_0
        idle = register(event, called)
        assert UnregisterWait(idle)
        for handle in (idle, running, NULL):
            SetLastError(0)
            assert not UnregisterWait(handle)
            assert GetLastError() == ERROR_INVALID_HANDLE

    def test_waiting(self, event: Any, called: Called, running: Any, gate: Gate) -> None:
        """INVALID_HANDLE_VALUE: it returns when the callback has; a signal meanwhile stays in the object."""
        returned: list[tuple[bool, bool]] = []
        thread = threading.Thread(
            target=lambda: returned.append(
                (UnregisterWaitEx(running, INVALID_HANDLE_VALUE), WaitForSingleObject(called.told, 0) == WAIT_OBJECT_0)
            )
        )
        thread.start()
        wait_until_blocked(thread)
        SetEvent(event)
        gate.open()
        thread.join(LIMIT)
        assert returned == [(True, True)]
        assert WaitForSingleObject(event, 0) == WAIT_OBJECT_0
        assert UnregisterWaitEx(register(event, called), INVALID_HANDLE_VALUE)

    def test_by_an_event(self, event: Any, called: Called, running: Any, gate: Gate, done: Any) -> None:
        """It is set when the callback has returned (997), or at once if none runs (True)."""
        assert not UnregisterWaitEx(running, done)
        assert GetLastError() == ERROR_IO_PENDING
        assert WaitForSingleObject(done, 0) == WAIT_TIMEOUT
        gate.open()
        assert WaitForSingleObject(done, MS) == WAIT_OBJECT_0
        assert WaitForSingleObject(called.told, 0) == WAIT_OBJECT_0
        assert UnregisterWaitEx(register(event, called), done)
        assert WaitForSingleObject(done, 0) == WAIT_OBJECT_0

    def test_in_the_callback_itself(self, event: Any, done: Any) -> None:
        """997 without waiting; waiting would never end, 1131, where Windows hangs."""
        seen: list[tuple[bool, int]] = []
        for form in (NULL, INVALID_HANDLE_VALUE):
            box = Box()

            def unregister(context: Any, timed_out: bool) -> None:
                seen.append((UnregisterWaitEx(box.value, form), GetLastError()))  # noqa: B023  # called in this turn
                SetEvent(done)

            assert RegisterWaitForSingleObject(box, event, unregister, NULL, INFINITE, WT_EXECUTEDEFAULT)
            SetEvent(event)
            wait_until(lambda: len(seen) > (form is not NULL))  # noqa: B023  # called in this turn
        assert seen == [(False, ERROR_IO_PENDING), (False, ERROR_POSSIBLE_DEADLOCK)]

    @pytest.mark.parametrize("form", [NULL, INVALID_HANDLE_VALUE])
    def test_a_queued_callback_does_not_run(self, called: Called, event: Any, done: Any, form: Any) -> None:
        """What is queued behind others when the wait is unregistered is not called, and not waited for."""
        gate = Gate()
        blockers = [Called(done, gate) for _ in range(2)]  # The default pool of these tests has two threads.
        for blocker in blockers:
            assert TrySubmitThreadpoolCallback(lambda instance, call: call(NULL, FALSE), blocker, NULL)
        gate.wait_for_arrivals(2)
        wait = register(event, called)
        SetEvent(event)
        assert WaitForSingleObject(event, 0) == WAIT_TIMEOUT  # It was taken for the callback.
        assert UnregisterWaitEx(wait, form)
        gate.open()
        wait_until(lambda: all(blocker.returned for blocker in blockers))
        settle(called.told)
        assert called.seen == []
