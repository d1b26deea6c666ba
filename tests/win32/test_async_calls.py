"""Asynchronous calls by the Windows names: "RPC_ASYNC_STATE", "Asynchronous Call State", sections 1 to 3 and 5.

The service runs in another process, and is itself written with the Windows names.
"""

import itertools
import os
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from engine import Client, EngineError
from engine.testing import LIMIT
from engine.win32 import (
    INFINITE,
    INVALID_HANDLE_VALUE,
    RPC_ASYNC_STATE,
    RPC_C_AUTHN_LEVEL_PKT_PRIVACY,
    RPC_C_NOTIFY_ON_SEND_COMPLETE,
    RPC_NOTIFICATION_TYPES,
    RPC_S_ASYNC_CALL_PENDING,
    RPC_S_CALL_CANCELLED,
    RPC_S_CALL_FAILED,
    RPC_S_CALL_FAILED_DNE,
    RPC_S_CALL_IN_PROGRESS,
    RPC_S_CANNOT_SUPPORT,
    RPC_S_INVALID_ARG,
    RPC_S_INVALID_ASYNC_CALL,
    RPC_S_INVALID_ASYNC_HANDLE,
    RPC_S_OK,
    RPC_S_SERVER_UNAVAILABLE,
    WAIT_IO_COMPLETION,
    WAIT_OBJECT_0,
    WAIT_TIMEOUT,
    Box,
    CreateEvent,
    CreateIoCompletionPort,
    GetCurrentThread,
    GetLastError,
    GetQueuedCompletionStatus,
    ResetEvent,
    RpcAsyncAbortCall,
    RpcAsyncCall,
    RpcAsyncCancelCall,
    RpcAsyncCompleteCall,
    RpcAsyncGetCallHandle,
    RpcAsyncGetCallStatus,
    RpcAsyncInitializeHandle,
    RpcAsyncRegisterHandle,
    RpcAsyncRegisterInfo,
    RpcCallComplete,
    RpcExceptionCode,
    RpcNotificationTypeApc,
    RpcNotificationTypeCallback,
    RpcNotificationTypeEvent,
    RpcNotificationTypeHwnd,
    RpcNotificationTypeIoc,
    RpcNotificationTypeNone,
    RpcRaiseException,
    SetEvent,
    SleepEx,
    WaitForSingleObject,
    sizeof,
)

from ..rpc.helpers import reach
from .contract import Desk
from .handles import call_of

MS = int(LIMIT * 1000)
_keys = itertools.count()

Handles = Callable[[Any], Any]


def new_key() -> str:
    return f"key-{next(_keys)}"


def initialised() -> RPC_ASYNC_STATE:
    state = RPC_ASYNC_STATE()
    assert RpcAsyncInitializeHandle(state, sizeof(RPC_ASYNC_STATE)) == RPC_S_OK
    return state


def by_event(event: Any) -> RPC_ASYNC_STATE:
    state = initialised()
    state.NotificationType = RpcNotificationTypeEvent
    state.u.hEvent = event
    return state


@pytest.fixture
def event(handles: Handles) -> Any:
    return handles(CreateEvent(None, False, False, None))


@pytest.fixture
def port(handles: Handles) -> Any:
    return handles(CreateIoCompletionPort(INVALID_HANDLE_VALUE, None, 0, 0))


class TestSamples:
    """The ways in which the documentation's samples collect a reply."""

    def test_event(self, desk: Desk, event: Any) -> None:
        """Initialise, choose the event, call, wait for it, complete."""
        Async = RPC_ASYNC_STATE()
        status = RpcAsyncInitializeHandle(Async, sizeof(RPC_ASYNC_STATE))
        assert status == RPC_S_OK
        Async.UserInfo = None
        Async.NotificationType = RpcNotificationTypeEvent
        Async.u.hEvent = event
        try:
            RpcAsyncCall(Async, desk.echo, "hello")
        except EngineError:
            pytest.fail(f"the call raised {RpcExceptionCode()}")
        assert WaitForSingleObject(Async.u.hEvent, MS) == WAIT_OBJECT_0
        nReply = Box()
        assert RpcAsyncCompleteCall(Async, nReply) == RPC_S_OK
        assert nReply.value == "hello"

    def test_polling(self, desk: Desk) -> None:
        """Without a notification the status is asked for until it is not 997."""
        Async = initialised()
        Async.NotificationType = RpcNotificationTypeNone
        RpcAsyncCall(Async, desk.echo, 7)
        while RpcAsyncGetCallStatus(Async) == RPC_S_ASYNC_CALL_PENDING:
            SleepEx(0, False)
        reply = Box()
        assert RpcAsyncCompleteCall(Async, reply) == RPC_S_OK
        assert reply.value == 7

    def test_port(self, desk: Desk, port: Any) -> None:
        """The port gives back the three values that were stored before the call."""
        Async = initialised()
        Async.NotificationType = RpcNotificationTypeIoc
        Async.u.IOC.hIOPort = port
        Async.u.IOC.dwNumberOfBytesTransferred = 17
        Async.u.IOC.dwCompletionKey = "key"
        Async.u.IOC.lpOverlapped = Async
        RpcAsyncCall(Async, desk.echo, "by port")
        size, key, overlapped = Box(), Box(), Box()
        assert GetQueuedCompletionStatus(port, size, key, overlapped, MS)
        assert (size.value, key.value, overlapped.value) == (17, "key", Async)
        reply = Box()
        assert RpcAsyncCompleteCall(overlapped.value, reply) == RPC_S_OK
        assert reply.value == "by port"

    def test_apc(self, desk: Desk) -> None:
        """The routine runs in an alertable sleep of the thread that called, and may complete the call."""
        seen: list[Any] = []

        def routine(pAsync: RPC_ASYNC_STATE, context: None, event: int) -> None:
            reply = Box()
            seen.append((context, event, pAsync.Event, RpcAsyncCompleteCall(pAsync, reply), reply.value))
            seen.append(threading.current_thread())

        Async = initialised()
        Async.NotificationType = RpcNotificationTypeApc
        Async.u.APC.NotificationRoutine = routine
        Async.u.APC.hThread = 0
        RpcAsyncCall(Async, desk.echo, "by APC")
        assert SleepEx(MS, True) == WAIT_IO_COMPLETION
        assert seen == [(None, RpcCallComplete, RpcCallComplete, RPC_S_OK, "by APC"), threading.current_thread()]

    def test_callback(self, desk: Desk, event: Any) -> None:
        """The routine runs on a thread of the engine's, and may complete the call."""
        seen: list[Any] = []

        def routine(pAsync: RPC_ASYNC_STATE, context: None, event_kind: int) -> None:
            reply = Box()
            seen.append((pAsync.UserInfo, event_kind, RpcAsyncCompleteCall(pAsync, reply), reply.value))
            SetEvent(event)

        Async = initialised()
        Async.UserInfo = "mine"
        Async.NotificationType = RpcNotificationTypeCallback
        Async.u.NotificationRoutine = routine
        RpcAsyncCall(Async, desk.echo, "by callback")
        assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
        assert seen == [("mine", RpcCallComplete, RPC_S_OK, "by callback")]

    def test_timeout_of_the_clients_own(self, desk: Desk, control: Desk, event: Any) -> None:
        """At the deadline cancel, wait a while, cancel abortively, wait, complete."""
        Async = by_event(event)
        key = new_key()
        RpcAsyncCall(Async, desk.hold, key)
        control.asked(key, False)
        assert WaitForSingleObject(event, 1) == WAIT_TIMEOUT
        assert RpcAsyncCancelCall(Async, False) == RPC_S_OK
        assert WaitForSingleObject(event, 1) == WAIT_TIMEOUT
        assert RpcAsyncCancelCall(Async, True) == RPC_S_OK
        assert WaitForSingleObject(event, INFINITE) == WAIT_OBJECT_0
        assert RpcAsyncCompleteCall(Async, Box()) == RPC_S_CALL_CANCELLED
        control.give_up(key, 1)


class TestInitialise:
    """3.1, T1 to T3 and T17."""

    def test_wrong_sizes(self) -> None:
        """T2: a size that is too small or too large is 87, and changes nothing."""
        state = RPC_ASYNC_STATE()
        for size in (0, sizeof(RPC_ASYNC_STATE) - 1, sizeof(RPC_ASYNC_STATE) + 1):
            assert RpcAsyncInitializeHandle(state, size) == RPC_S_INVALID_ARG
        assert (state.Size, state.Signature) == (0, 0)

    def test_bad_pointer(self) -> None:
        """T3: what is no handle is 1914."""
        assert RpcAsyncInitializeHandle(cast(Any, None), sizeof(RPC_ASYNC_STATE)) == RPC_S_INVALID_ASYNC_HANDLE

    def test_what_it_writes(self) -> None:
        """T1: the runtime's fields are set, the caller's own are left alone."""
        state = RPC_ASYNC_STATE()
        state.UserInfo, state.Event = "mine", RpcCallComplete
        state.NotificationType = RpcNotificationTypeIoc
        state.u.IOC.dwCompletionKey = 5
        state.Lock = state.Flags = 9
        state.StubInfo = "junk"
        assert RpcAsyncInitializeHandle(state, sizeof(state)) == RPC_S_OK
        assert (state.Size, state.Signature) == (sizeof(RPC_ASYNC_STATE), int.from_bytes(b"ASYC", "little"))
        assert (state.Lock, state.Flags, state.StubInfo, state.RuntimeInfo) == (0, 0, None, None)
        assert (state.UserInfo, state.NotificationType, state.u.IOC.dwCompletionKey) == ("mine", 3, 5)

    @pytest.mark.parametrize("field", ["Size", "Signature", "Lock", "StubInfo"])
    def test_edited_fields(self, field: str, desk: Desk) -> None:
        """A handle whose runtime fields were edited is 1914 from then on."""
        state = initialised()
        setattr(state, field, 1)
        assert RpcAsyncGetCallStatus(state) == RPC_S_INVALID_ASYNC_HANDLE
        with pytest.raises(EngineError) as raised:
            RpcAsyncCall(state, desk.echo, 1)
        assert raised.value.status == RPC_S_INVALID_ASYNC_HANDLE

    def test_registering_does_nothing(self) -> None:
        """3.2: obsolete."""
        assert RpcAsyncRegisterInfo(initialised()) == RPC_S_OK
        assert RpcAsyncRegisterHandle(initialised()) == RPC_S_OK


class Rows:
    """Handles in each state of 1.2."""

    def __init__(self, desk: Desk, control: Desk, event: Any) -> None:
        self.desk, self.control, self.event = desk, control, event
        self.open: list[str] = []

    def make(self, state: str) -> RPC_ASYNC_STATE:
        if state == "raw":
            return RPC_ASYNC_STATE()
        handle = by_event(self.event)
        if state == "idle":
            return handle
        if state == "spent":
            RpcAsyncCall(handle, self.desk.echo, "over")
            assert WaitForSingleObject(self.event, MS) == WAIT_OBJECT_0
            assert RpcAsyncCompleteCall(handle, None) == RPC_S_OK
            return handle
        key = new_key()
        RpcAsyncCall(handle, self.desk.hold, key)
        self.control.asked(key, False)  # Returns once the call has arrived.
        if state == "pending":
            self.open.append(key)
        elif state == "cancelling":
            self.open.append(key)
            assert RpcAsyncCancelCall(handle, False) == RPC_S_OK
        elif state == "cancelled":
            self.open.append(key)
            assert RpcAsyncCancelCall(handle, True) == RPC_S_OK
            assert WaitForSingleObject(self.event, MS) == WAIT_OBJECT_0
        else:
            if state == "done":
                assert self.control.finish(key, "value") == RPC_S_OK
            else:
                assert self.control.give_up(key, 4711) == RPC_S_OK
            assert WaitForSingleObject(self.event, MS) == WAIT_OBJECT_0
        return handle

    def close(self) -> None:
        for key in self.open:
            self.control.give_up(key, 1)


BAD, WAIT, BUSY = RPC_S_INVALID_ASYNC_HANDLE, RPC_S_ASYNC_CALL_PENDING, RPC_S_INVALID_ASYNC_CALL

# 1.4 and T13 to T17: state -> what each function returns.
TABLE: dict[str, dict[str, int]] = {
    "raw": {"status": BAD, "complete": BAD, "cancel": BAD, "abortive": BAD, "initialise": 0, "issue": BAD},
    "idle": {"status": BAD, "complete": BAD, "cancel": BAD, "abortive": BAD, "initialise": 0, "issue": 0},
    "pending": {"status": WAIT, "complete": WAIT, "cancel": 0, "abortive": 0, "initialise": BUSY, "issue": BUSY},
    "cancelling": {"status": WAIT, "complete": WAIT, "cancel": 0, "abortive": 0, "initialise": BUSY, "issue": BUSY},
    "done": {"status": 0, "complete": 0, "cancel": 0, "abortive": 0, "initialise": BUSY, "issue": BUSY},
    "failed": {"status": 4711, "complete": 4711, "cancel": 0, "abortive": 0, "initialise": BUSY, "issue": BUSY},
    "cancelled": {"status": 1818, "complete": 1818, "cancel": 0, "abortive": 0, "initialise": BUSY, "issue": BUSY},
    "spent": {"status": BAD, "complete": BAD, "cancel": BAD, "abortive": BAD, "initialise": 0, "issue": 0},
}


class TestEachState:
    """1.3 and 1.4."""

    @pytest.fixture
    def rows(self, desk: Desk, control: Desk, event: Any) -> Any:
        rows = Rows(desk, control, event)
        yield rows
        rows.close()

    @pytest.mark.parametrize("what", ["status", "complete", "cancel", "abortive", "initialise", "issue"])
    @pytest.mark.parametrize("state", TABLE)
    def test_cell(self, state: str, what: str, rows: Rows, desk: Desk) -> None:
        """Each function returns in each state what the table says."""
        handle = rows.make(state)

        def issue() -> int:
            try:
                RpcAsyncCall(handle, desk.echo, "again")
            except EngineError:
                return RpcExceptionCode()
            return RPC_S_OK

        returned = {
            "status": lambda: RpcAsyncGetCallStatus(handle),
            "complete": lambda: RpcAsyncCompleteCall(handle, Box()),
            "cancel": lambda: RpcAsyncCancelCall(handle, False),
            "abortive": lambda: RpcAsyncCancelCall(handle, True),
            "initialise": lambda: RpcAsyncInitializeHandle(handle, sizeof(handle)),
            "issue": issue,
        }[what]()
        assert returned == TABLE[state][what]

    @pytest.mark.parametrize("state", ["pending", "cancelling", "done", "failed", "cancelled"])
    def test_what_is_rejected_harms_nothing(self, state: str, rows: Rows, desk: Desk) -> None:
        """T17: initialising, or issuing again, leaves the call alone: its status is what it was."""
        handle = rows.make(state)
        before = RpcAsyncGetCallStatus(handle)
        assert RpcAsyncInitializeHandle(handle, sizeof(handle)) == BUSY
        with pytest.raises(EngineError):
            RpcAsyncCall(handle, desk.echo, "again")
        assert RpcAsyncGetCallStatus(handle) == before

    @pytest.mark.parametrize("state", ["done", "failed", "cancelled"])
    def test_a_late_cancel_changes_nothing(self, state: str, rows: Rows) -> None:
        """T14: the outcome stays, and there is no second notification."""
        handle = rows.make(state)
        before = RpcAsyncGetCallStatus(handle)
        assert RpcAsyncCancelCall(handle, True) == RPC_S_OK
        assert RpcAsyncGetCallStatus(handle) == before
        assert WaitForSingleObject(rows.event, 0) == WAIT_TIMEOUT

    def test_early_completing_harms_nothing(self, rows: Rows, control: Desk) -> None:
        """T12: 997, the box untouched, the notification still comes, and then the reply is collected."""
        handle = rows.make("pending")
        reply = Box("untouched")
        assert RpcAsyncCompleteCall(handle, reply) == RPC_S_ASYNC_CALL_PENDING
        assert reply.value == "untouched"
        assert control.finish(rows.open.pop(), "late") == RPC_S_OK
        assert WaitForSingleObject(rows.event, MS) == WAIT_OBJECT_0
        assert RpcAsyncCompleteCall(handle, reply) == RPC_S_OK
        assert reply.value == "late"

    def test_a_failure_leaves_the_box_alone(self, rows: Rows) -> None:
        """1.5: no output is valid on anything but success."""
        reply = Box("untouched")
        assert RpcAsyncCompleteCall(rows.make("failed"), reply) == 4711
        assert reply.value == "untouched"

    def test_reuse(self, rows: Rows, desk: Desk) -> None:
        """C1: a spent handle carries another call, initialised again or not."""
        handle = rows.make("spent")
        for again in (False, True):
            if again:
                assert RpcAsyncInitializeHandle(handle, sizeof(handle)) == RPC_S_OK
            RpcAsyncCall(handle, desk.echo, again)
            assert WaitForSingleObject(rows.event, MS) == WAIT_OBJECT_0
            reply = Box()
            assert RpcAsyncCompleteCall(handle, reply) == RPC_S_OK
            assert reply.value is again

    def test_two_threads_complete(self, rows: Rows) -> None:
        """Of two threads that complete at once, one gets the reply, the other 1914."""
        handle = rows.make("done")
        barrier = threading.Barrier(2)
        seen: list[tuple[int, Any]] = []

        def complete() -> None:
            reply = Box()
            barrier.wait(LIMIT)
            seen.append((RpcAsyncCompleteCall(handle, reply), reply.value))

        threads = [threading.Thread(target=complete) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        assert sorted(seen, key=lambda each: each[0]) == [(0, "value"), (1914, None)]


class TestIssuing:
    """T5, T6 and 2.1."""

    def test_a_call_that_cannot_be_issued_raises(self, service: str, event: Any) -> None:
        """T6: the exception carries the number; nothing is notified, nothing may be completed."""
        closed = Client(f"ipc://{service}")
        desk = closed.bind(Desk)
        closed.close()
        handle = by_event(event)
        with pytest.raises(EngineError) as raised:
            RpcAsyncCall(handle, desk.echo, 1)
        assert raised.value.status == 6
        assert RpcAsyncCompleteCall(handle, None) == RpcAsyncCancelCall(handle, True) == RPC_S_INVALID_ASYNC_HANDLE
        assert WaitForSingleObject(event, 0) == WAIT_TIMEOUT

    @pytest.mark.parametrize(
        ("kind", "status"),
        [
            (RpcNotificationTypeEvent, RPC_S_INVALID_ARG),
            (RpcNotificationTypeApc, RPC_S_INVALID_ARG),
            (RpcNotificationTypeIoc, RPC_S_INVALID_ARG),
            (RpcNotificationTypeHwnd, RPC_S_CANNOT_SUPPORT),
            (RpcNotificationTypeCallback, RPC_S_INVALID_ARG),
            (6, RPC_S_INVALID_ARG),
        ],
    )
    def test_a_target_that_is_missing(self, kind: int, status: int, desk: Desk) -> None:
        """T4: nothing is looked at until the call is issued, and then the target must be there."""
        handle = initialised()
        handle.NotificationType = kind
        with pytest.raises(EngineError) as raised:
            RpcAsyncCall(handle, desk.echo, 1)
        assert raised.value.status == status

    def test_later_edits_change_nothing(self, desk: Desk, control: Desk, port: Any, event: Any) -> None:
        """2.1: type and target are those of the moment of issuing."""
        handle = initialised()
        handle.NotificationType = RpcNotificationTypeIoc
        handle.u.IOC.hIOPort = port
        handle.u.IOC.dwCompletionKey, handle.u.IOC.lpOverlapped = 1, "first"
        key = new_key()
        RpcAsyncCall(handle, desk.hold, key)
        handle.NotificationType = RpcNotificationTypeEvent
        handle.u.hEvent = event
        handle.u.IOC.dwCompletionKey, handle.u.IOC.lpOverlapped = 2, "second"
        handle.u.IOC.hIOPort = None
        control.finish(key, None)
        size, found, overlapped = Box(), Box(), Box()
        assert GetQueuedCompletionStatus(port, size, found, overlapped, MS)
        assert (size.value, found.value, overlapped.value) == (0, 1, "first")
        assert WaitForSingleObject(event, 0) == WAIT_TIMEOUT
        assert RpcAsyncCompleteCall(handle, None) == RPC_S_OK

    @pytest.mark.parametrize("value", [None, 0, "text", (1, 2)])
    def test_the_ports_values_are_not_looked_at(self, value: Any, desk: Desk, port: Any) -> None:
        """2.5: the three values come back as they were, null ones too; the dequeue succeeds."""
        handle = initialised()
        handle.NotificationType = RpcNotificationTypeIoc
        ioc = handle.u.IOC
        ioc.hIOPort = port
        ioc.dwNumberOfBytesTransferred = ioc.dwCompletionKey = ioc.lpOverlapped = value
        RpcAsyncCall(handle, desk.raising, 4711)
        size, key, overlapped = Box("unset"), Box("unset"), Box("unset")
        assert GetQueuedCompletionStatus(port, size, key, overlapped, MS)
        assert (size.value, key.value, overlapped.value) == (value, value, value)
        assert RpcAsyncCompleteCall(handle, None) == 4711

    def test_an_apc_for_another_thread(self, desk: Desk) -> None:
        """2.4: `hThread` chooses the thread."""
        seen: list[threading.Thread] = []
        ready, ran = threading.Event(), threading.Event()

        def wait_for_it() -> None:
            ready.set()
            while SleepEx(MS, True) == WAIT_IO_COMPLETION and not ran.is_set():
                pass

        thread = threading.Thread(target=wait_for_it)
        thread.start()
        assert ready.wait(LIMIT)
        handle = initialised()
        handle.NotificationType = RpcNotificationTypeApc
        handle.u.APC.hThread = thread
        handle.u.APC.NotificationRoutine = lambda state, context, event: (seen.append(GetCurrentThread()), ran.set())
        RpcAsyncCall(handle, desk.echo, 1)
        thread.join(LIMIT)
        assert seen == [thread]
        assert RpcAsyncCompleteCall(handle, None) == RPC_S_OK

    def test_an_event_is_neither_reset_nor_closed(self, desk: Desk, handles: Handles) -> None:
        """2.3: a manual-reset event stays set, also when the next call is issued, until its owner resets it."""
        event = handles(CreateEvent(None, True, True, None))
        handle = by_event(event)
        RpcAsyncCall(handle, desk.echo, 1)
        assert WaitForSingleObject(event, 0) == WAIT_OBJECT_0
        assert call_of(handle).wait(LIMIT)
        assert RpcAsyncCompleteCall(handle, None) == RPC_S_OK
        assert ResetEvent(event)

    def test_options_of_a_call(self, desk: Desk) -> None:
        """Arguments by keyword and a time limit go with the call; the send-complete flag is accepted."""
        handle = initialised()
        handle.Flags = RPC_C_NOTIFY_ON_SEND_COMPLETE
        RpcAsyncCall(handle, desk.echo, value="named", timeout=LIMIT)
        assert call_of(handle).wait(LIMIT)
        reply = Box()
        assert RpcAsyncCompleteCall(handle, reply) == RPC_S_OK
        assert reply.value == "named"


class TestOutcomes:
    """T9, T19, INV-6 and section 8.1."""

    def test_the_server_is_killed(self, victim: Any, event: Any) -> None:
        """T9: 1726 for a call that may have run, 1722 or 1727 for one that did not, each with its notification."""
        path, process = victim
        with Client(f"ipc://{path}", connect_timeout=1.0) as client:
            reach(client)
            desk = client.bind(Desk)
            handle, key = by_event(event), new_key()
            RpcAsyncCall(handle, desk.hold, key)
            assert desk.asked(key, False) == RPC_S_CALL_IN_PROGRESS
            process.kill()
            assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
            assert RpcAsyncGetCallStatus(handle) == RpcAsyncCompleteCall(handle, None) == RPC_S_CALL_FAILED
            RpcAsyncCall(handle, desk.echo, 1)
            assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
            assert RpcAsyncCompleteCall(handle, None) == RPC_S_CALL_FAILED_DNE
        with Client(f"ipc://{path}", connect_timeout=0.05) as client:
            RpcAsyncCall(handle, client.bind(Desk).echo, 1)
            assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
            assert RpcAsyncCompleteCall(handle, None) == RPC_S_SERVER_UNAVAILABLE

    def test_the_issuing_thread_ends(self, desk: Desk, event: Any) -> None:
        """T19 allows such a call to fail; here it does not."""
        handle = by_event(event)
        thread = threading.Thread(target=RpcAsyncCall, args=(handle, desk.echo, "orphan"))
        thread.start()
        thread.join(LIMIT)
        assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
        reply = Box()
        assert RpcAsyncCompleteCall(handle, reply) == RPC_S_OK
        assert reply.value == "orphan"

    def test_told_before_issuing_returns(self, desk: Desk, event: Any) -> None:
        """INV-6: the routine can complete the call though the issuing function may not have returned."""
        rounds = 200
        seen: list[tuple[int, Any]] = []

        def routine(pAsync: RPC_ASYNC_STATE, context: None, kind: int) -> None:
            reply = Box()
            seen.append((RpcAsyncCompleteCall(pAsync, reply), reply.value))
            if len(seen) == rounds:
                SetEvent(event)

        for number in range(rounds):
            handle = initialised()
            handle.NotificationType = RpcNotificationTypeCallback
            handle.u.NotificationRoutine = routine
            RpcAsyncCall(handle, desk.echo, number)
        assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
        assert sorted(seen) == [(RPC_S_OK, number) for number in range(rounds)]

    def test_one_event_for_several_calls(self, desk: Desk, control: Desk, event: Any) -> None:
        """2.3: it says that something changed, not which: ask them all."""
        states, keys = [by_event(event) for _ in range(3)], [new_key() for _ in range(3)]
        for state, key in zip(states, keys, strict=True):
            RpcAsyncCall(state, desk.hold, key)
        assert control.finish(keys[1], None) == RPC_S_OK
        assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
        assert [RpcAsyncGetCallStatus(state) for state in states] == [997, 0, 997]
        for key in (keys[0], keys[2]):
            assert control.finish(key, None) == RPC_S_OK
        while RPC_S_ASYNC_CALL_PENDING in map(RpcAsyncGetCallStatus, states):
            assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
        assert [RpcAsyncCompleteCall(state, None) for state in states] == [RPC_S_OK] * 3


class TestServerSide:
    """3.4, 3.6 to 3.8, 3.10, 4.3 and 5, with the server's functions in the other process."""

    def test_a_routine_without_a_result(self, desk: Desk, event: Any) -> None:
        """It is completed all the same."""
        handle = by_event(event)
        RpcAsyncCall(handle, desk.nothing)
        assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
        assert RpcAsyncCompleteCall(handle, None) == RPC_S_OK

    def test_the_first_closing_wins(self, desk: Desk, control: Desk, event: Any) -> None:
        """4.3: every later complete or abort is 1914."""
        handle, key = by_event(event), new_key()
        RpcAsyncCall(handle, desk.hold, key)
        assert control.give_up(key, 0) == RPC_S_INVALID_ARG
        assert control.finish(key, "first") == RPC_S_OK
        assert control.finish(key, "second") == control.give_up(key, 5) == RPC_S_INVALID_ASYNC_HANDLE
        assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
        reply = Box()
        assert RpcAsyncCompleteCall(handle, reply) == RPC_S_OK
        assert reply.value == "first"

    def test_a_raised_number(self, desk: Desk, event: Any) -> None:
        """A raised number reaches the client unchanged."""
        handle = by_event(event)
        RpcAsyncCall(handle, desk.raising, 0xFFFFFFFF)
        assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
        assert RpcAsyncCompleteCall(handle, None) == 0xFFFFFFFF

    def test_a_failure_numbered_997(self, desk: Desk, control: Desk, event: Any) -> None:
        """A server cannot make an ended call look pending: 997 ends none."""
        handle, key = by_event(event), new_key()
        RpcAsyncCall(handle, desk.hold, key)
        assert control.give_up(key, 997) == RPC_S_INVALID_ARG
        assert RpcAsyncGetCallStatus(handle) == RPC_S_ASYNC_CALL_PENDING
        assert control.give_up(key, 5) == RPC_S_OK
        assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
        assert RpcAsyncCompleteCall(handle, None) == 5

    def test_each_side_has_its_functions(self, desk: Desk, control: Desk, event: Any) -> None:
        """The client's functions refuse a server's handle, and the reverse: 1915."""
        handle, key = by_event(event), new_key()
        assert RpcAsyncAbortCall(handle, 5) == RPC_S_INVALID_ASYNC_HANDLE
        RpcAsyncCall(handle, desk.hold, key)
        assert control.misused(key) == [RPC_S_INVALID_ASYNC_CALL] * 3
        assert RpcAsyncAbortCall(handle, 5) == RPC_S_INVALID_ASYNC_CALL
        assert RpcAsyncGetCallHandle(handle) is handle.RuntimeInfo
        assert control.finish(key, None) == RPC_S_OK

    def test_a_cancel_is_seen_and_answered(self, desk: Desk, control: Desk, event: Any) -> None:
        """5.1: a non-abortive cancel waits for what the server does; testing returns 0 for "cancelled"."""
        handle, key = by_event(event), new_key()
        RpcAsyncCall(handle, desk.hold, key)
        assert control.asked(key, False) == RPC_S_CALL_IN_PROGRESS
        assert control.status_of(key) == 1
        assert RpcAsyncCancelCall(handle, False) == RPC_S_OK
        assert control.asked(key, True) == RPC_S_OK
        assert control.status_of(key) == 2
        assert RpcAsyncGetCallStatus(handle) == RPC_S_ASYNC_CALL_PENDING
        assert control.finish(key, "after all") == RPC_S_OK
        assert WaitForSingleObject(event, MS) == WAIT_OBJECT_0
        reply = Box()
        assert RpcAsyncCompleteCall(handle, reply) == RPC_S_OK
        assert reply.value == "after all"

    def test_call_attributes(self, desk: Desk) -> None:
        """3.10: who calls, over what; what the transport does not know has the length 0."""
        seen = desk.who()
        assert seen["returned"] == RPC_S_OK
        assert seen["ClientPID"] == os.getpid() != seen["pid"]
        assert (seen["IsClientLocal"], seen["ProtocolSequence"]) == (1, 3)
        assert (seen["CallStatus"], seen["OpNum"], seen["InterfaceUuid"]) == (1, "who", "test.win32.Desk")
        assert (seen["NullSession"], seen["AuthenticationLevel"]) == (True, RPC_C_AUTHN_LEVEL_PKT_PRIVACY)
        assert seen["ServerPrincipalNameBufferLength"] == seen["ClientPrincipalNameBufferLength"] == 0
        assert seen["cancelled"] == RPC_S_CALL_IN_PROGRESS


class TestMisuse:
    """What the C compiler would have refused raises."""

    def test_no_exception_has_no_code(self) -> None:
        """The code of an exception can be had only while one is handled; a foreign one has 1766."""
        refused: list[bool] = []

        def ask() -> None:
            with pytest.raises(RuntimeError):
                RpcExceptionCode()
            refused.append(True)

        asking = threading.Thread(target=ask)  # A fresh one: nothing that ran before is being handled there.
        asking.start()
        asking.join(LIMIT)
        assert refused
        try:
            raise KeyError("foreign")
        except KeyError:
            assert RpcExceptionCode() == 1766

    def test_numbers_to_raise(self) -> None:
        """Status 0 is no failure."""
        for number in (0, -1, 1 << 32):
            with pytest.raises(ValueError):
                RpcRaiseException(number)

    def test_sizes(self) -> None:
        """Only the handle has a size."""
        with pytest.raises(TypeError):
            sizeof(int)

    def test_names(self) -> None:
        """The types carry the documented values."""
        assert [kind.value for kind in RPC_NOTIFICATION_TYPES] == [0, 1, 2, 3, 4, 5]
        assert GetLastError() == 0
