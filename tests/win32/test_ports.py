"""Completion ports by the Windows names: "CreateIoCompletionPort" and what belongs to it; sections 2, 5, 6, 7 and 9."""

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from engine import CompletionPacket, CompletionPort, PacketSink
from engine.testing import LIMIT, wait_until_blocked
from engine.win32 import (
    ERROR_ABANDONED_WAIT_0,
    ERROR_INVALID_HANDLE,
    ERROR_INVALID_PARAMETER,
    ERROR_NOT_ENOUGH_QUOTA,
    ERROR_OPERATION_ABORTED,
    INFINITE,
    INVALID_HANDLE_VALUE,
    OVERLAPPED_ENTRY,
    WAIT_IO_COMPLETION,
    WAIT_OBJECT_0,
    WAIT_TIMEOUT,
    Box,
    CloseHandle,
    CreateIoCompletionPort,
    CreateThreadpoolIo,
    GetCurrentThread,
    GetLastError,
    GetQueuedCompletionStatus,
    GetQueuedCompletionStatusEx,
    PostQueuedCompletionStatus,
    QueueUserAPC,
    SetLastError,
    WaitForSingleObject,
)
from transport import OverlappedDescriptor

MS = int(LIMIT * 1000)
Handles = Callable[[Any], Any]


class Source:
    """A source of overlapped operations, which complete when it is told so."""

    closed = False

    def bind_port(self, port: PacketSink, key: Any) -> None:
        self.port, self.key = port, key

    def complete(self, overlapped: Any, transferred: int, status: int = 0) -> None:
        self.port.deliver([CompletionPacket(self.key, transferred, overlapped, status)])

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def port(handles: Handles) -> Any:
    return handles(CreateIoCompletionPort(INVALID_HANDLE_VALUE, None, 0, 0))


class Dequeued:
    """One GetQueuedCompletionStatus: what it returned, and what it stored."""

    def __init__(self, port: Any, milliseconds: int) -> None:
        size, key, overlapped = Box("unset"), Box("unset"), Box("unset")
        SetLastError(4711)
        self.returned = GetQueuedCompletionStatus(port, size, key, overlapped, milliseconds)
        self.error = GetLastError()
        self.size, self.key, self.overlapped = size.value, key.value, overlapped.value

    @property
    def nothing(self) -> bool:
        """Whether it tells of no packet: the other values are left alone."""
        return (self.returned, self.overlapped, self.size, self.key) == (False, None, "unset", "unset")


class TestCreating:
    """Section 2: the four forms."""

    def test_a_new_port(self, handles: Handles) -> None:
        """No source and no port: a new, empty port with that concurrency value; 0 is the number of processors."""
        assert handles(CreateIoCompletionPort(INVALID_HANDLE_VALUE, None, "ignored", 3)).concurrency == 3
        assert handles(CreateIoCompletionPort(INVALID_HANDLE_VALUE, None, 0, 0)).concurrency >= 1

    def test_binding(self, port: Any) -> None:
        """A source and a port: bound under the key, the same port returned, the number not looked at."""
        source = Source()
        assert CreateIoCompletionPort(source, port, "key", 99) is port
        source.complete("operation", 12)
        seen = Dequeued(port, MS)
        assert (seen.returned, seen.size, seen.key, seen.overlapped) == (True, 12, "key", "operation")

    def test_both_at_once(self, handles: Handles) -> None:
        """A source without a port: a new port, and the source bound to it."""
        source = Source()
        port = handles(CreateIoCompletionPort(source, None, 5, 2))
        assert (source.port, source.key, port.concurrency) == (port, 5, 2)

    def test_a_port_without_a_source(self, port: Any) -> None:
        """No source, existing port: 87."""
        assert CreateIoCompletionPort(INVALID_HANDLE_VALUE, port, 0, 0) is None
        assert GetLastError() == ERROR_INVALID_PARAMETER

    def test_what_cannot_be_bound(self, port: Any) -> None:
        """A source that is not overlapped, or that is bound already, is 87; alone, it leaves no port behind."""
        source = Source()
        assert CreateIoCompletionPort(source, port, 0, 0) is port
        for handle, existing in ((source, port), (source, None), (object(), port), (object(), None)):
            SetLastError(0)
            assert CreateIoCompletionPort(handle, existing, 0, 0) is None
            assert GetLastError() == ERROR_INVALID_PARAMETER

    def test_bad_handles(self, port: Any) -> None:
        """NULL, what is no port, and a closed port are 6."""
        CloseHandle(port)
        existing: Any
        for handle, existing in ((None, None), (Source(), "no port"), (Source(), port)):
            SetLastError(0)
            assert CreateIoCompletionPort(handle, existing, 0, 0) is None
            assert GetLastError() == ERROR_INVALID_HANDLE

    def test_closed_sources(self, port: Any) -> None:
        """An overlapped source is closed once; then it is no handle any more, to be bound neither: 6."""
        read, write = os.pipe()
        source = OverlappedDescriptor(read)
        assert CloseHandle(source)
        for use in (
            lambda: CloseHandle(source),
            lambda: CreateIoCompletionPort(source, port, 0, 0),
            lambda: CreateIoCompletionPort(source, None, 0, 0),
            lambda: CreateThreadpoolIo(source, print, None, None),
        ):
            SetLastError(0)
            assert not use()
            assert GetLastError() == ERROR_INVALID_HANDLE
        os.close(write)


class TestDequeue:
    """Section 5: return values, last errors, and what is stored."""

    def test_success(self, port: Any) -> None:
        """True, the three values, the last error as it was."""
        assert PostQueuedCompletionStatus(port, 3, "key", "overlapped")
        seen = Dequeued(port, INFINITE)
        assert (seen.returned, seen.size, seen.key, seen.overlapped, seen.error) == (
            True,
            3,
            "key",
            "overlapped",
            4711,
        )

    def test_a_posted_null(self, port: Any) -> None:
        """A posted packet whose overlapped is null is a success."""
        assert PostQueuedCompletionStatus(port, 0, 0, None)
        seen = Dequeued(port, 0)
        assert (seen.returned, seen.size, seen.key, seen.overlapped) == (True, 0, 0, None)

    def test_a_failed_operation(self, port: Any) -> None:
        """False with an overlapped that is not null is a packet: the last error is the operation's."""
        source = Source()
        CreateIoCompletionPort(source, port, "key", 0)
        source.complete("operation", 1, ERROR_OPERATION_ABORTED)
        seen = Dequeued(port, 0)
        assert (seen.returned, seen.size, seen.key, seen.overlapped) == (False, 1, "key", "operation")
        assert seen.error == ERROR_OPERATION_ABORTED
        assert Dequeued(port, 0).error == WAIT_TIMEOUT

    @pytest.mark.parametrize("milliseconds", [0, 1])
    def test_timeout(self, port: Any, milliseconds: int) -> None:
        """False, null, 258; the other two are not written."""
        seen = Dequeued(port, milliseconds)
        assert seen.nothing
        assert seen.error == WAIT_TIMEOUT

    def test_closed_while_waiting(self, port: Any) -> None:
        """Section 7: every thread that waits gets False, null, 735; whoever comes later 6."""
        seen: list[Dequeued] = []
        threads = [threading.Thread(target=lambda: seen.append(Dequeued(port, INFINITE))) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_until_blocked(port, 3)
        assert CloseHandle(port)
        for thread in threads:
            thread.join(LIMIT)
        assert [(each.nothing, each.error) for each in seen] == [(True, ERROR_ABANDONED_WAIT_0)] * 3
        late = Dequeued(port, INFINITE)
        assert (late.nothing, late.error) == (True, ERROR_INVALID_HANDLE)

    def test_no_port(self) -> None:
        """What is no port is 6."""
        seen = Dequeued(object(), 0)
        assert (seen.nothing, seen.error) == (True, ERROR_INVALID_HANDLE)

    def test_the_errors_of_threads_are_their_own(self, port: Any) -> None:
        """The last error belongs to a thread."""
        assert Dequeued(port, 0).error == WAIT_TIMEOUT
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(GetLastError()))
        thread.start()
        thread.join(LIMIT)
        assert (seen, GetLastError()) == ([0], WAIT_TIMEOUT)


class TestBatch:
    """Sections 5 and 6: the batched dequeue."""

    def test_what_is_there(self, port: Any) -> None:
        """It takes what is there, in order, up to the count; the entries have their own status words."""
        source = Source()
        CreateIoCompletionPort(source, port, "source", 0)
        PostQueuedCompletionStatus(port, 1, "posted", "a")
        source.complete("b", 2, ERROR_OPERATION_ABORTED)
        PostQueuedCompletionStatus(port, 3, "posted", None)
        entries = [OVERLAPPED_ENTRY() for _ in range(2)]
        removed = Box()
        assert GetQueuedCompletionStatusEx(port, entries, 2, removed, MS, False)
        assert removed.value == 2
        assert entries == [OVERLAPPED_ENTRY("posted", "a", 0, 1), OVERLAPPED_ENTRY("source", "b", 995, 2)]
        assert GetQueuedCompletionStatusEx(port, entries, 2, removed, MS, False)
        assert (removed.value, len(entries), entries[0]) == (1, 2, OVERLAPPED_ENTRY("posted", None, 0, 3))

    def test_failures(self, port: Any) -> None:
        """258; 87 for a count of 0, which stores nothing; 6."""
        removed = Box("unset")
        target: Any
        for target, count, error in (
            (port, 1, WAIT_TIMEOUT),
            (port, 0, ERROR_INVALID_PARAMETER),
            (None, 1, ERROR_INVALID_HANDLE),
        ):
            assert not GetQueuedCompletionStatusEx(target, [], count, removed, 0, False)
            assert (GetLastError(), removed.value) == (error, "unset")

    def test_apcs(self, port: Any) -> None:
        """A thread that is new to the port runs its APCs first, 192; one that is associated takes the packet."""
        ran: list[int] = []
        entries: list[OVERLAPPED_ENTRY] = []
        removed = Box()
        PostQueuedCompletionStatus(port, 0, "first", None)
        assert QueueUserAPC(ran.append, GetCurrentThread(), 1)
        assert not GetQueuedCompletionStatusEx(port, entries, 8, removed, MS, True)
        assert (GetLastError(), ran, entries) == (WAIT_IO_COMPLETION, [1], [])
        assert GetQueuedCompletionStatusEx(port, entries, 8, removed, MS, True)
        PostQueuedCompletionStatus(port, 0, "second", None)
        assert QueueUserAPC(ran.append, GetCurrentThread(), 2)
        assert GetQueuedCompletionStatusEx(port, entries, 8, removed, MS, True)
        assert (entries[0].lpCompletionKey, ran) == ("second", [1])
        assert not GetQueuedCompletionStatusEx(port, entries, 8, removed, 0, False)
        assert (GetLastError(), ran) == (WAIT_TIMEOUT, [1])
        assert not GetQueuedCompletionStatusEx(port, entries, 8, removed, 0, True)
        assert (GetLastError(), ran) == (WAIT_IO_COMPLETION, [1, 2])


class TestPosting:
    """Section 9."""

    @pytest.mark.parametrize("value", [None, 0, -1, "text", object()])
    def test_any_values(self, port: Any, value: Any) -> None:
        """The three values are not looked at."""
        assert PostQueuedCompletionStatus(port, value, value, value)
        seen = Dequeued(port, 0)
        assert (seen.returned, seen.size, seen.key, seen.overlapped) == (True, value, value, value)

    def test_failures(self, port: Any, handles: Handles) -> None:
        """6 for a closed port or none; 1816 where the queue has its limit."""
        bounded = handles(CompletionPort(capacity=1))
        assert PostQueuedCompletionStatus(bounded, 0, 0, None)
        CloseHandle(port)
        target: Any
        for target, error in (
            (port, ERROR_INVALID_HANDLE),
            (5, ERROR_INVALID_HANDLE),
            (bounded, ERROR_NOT_ENOUGH_QUOTA),
        ):
            assert not PostQueuedCompletionStatus(target, 0, 0, None)
            assert GetLastError() == error

    def test_the_port_as_an_object(self, port: Any) -> None:
        """Section 14: waiting for the port itself succeeds while packets are queued, and takes none."""
        assert WaitForSingleObject(port, 0) == WAIT_TIMEOUT
        PostQueuedCompletionStatus(port, 0, 0, None)
        assert WaitForSingleObject(port, 0) == WAIT_OBJECT_0
        assert Dequeued(port, 0).returned


class TestClosing:
    """ "CloseHandle"."""

    def test_a_source(self) -> None:
        """A source is closed by it, once."""
        source = Source()
        assert CloseHandle(source)
        assert source.closed
        assert not CloseHandle(source)
        assert GetLastError() == ERROR_INVALID_HANDLE

    @pytest.mark.parametrize("handle", [None, 0, INVALID_HANDLE_VALUE, "text"])
    def test_what_is_no_handle(self, handle: Any) -> None:
        """It is 6."""
        assert not CloseHandle(handle)
        assert GetLastError() == ERROR_INVALID_HANDLE

    def test_a_thread(self) -> None:
        """Closing a thread's handle does not end the thread."""
        assert CloseHandle(GetCurrentThread())


class TestTimes:
    """What no C program could pass raises."""

    @pytest.mark.parametrize(("milliseconds", "kind"), [(-1, ValueError), (1 << 32, ValueError), (1.5, TypeError)])
    def test_times(self, port: Any, milliseconds: Any, kind: type[Exception]) -> None:
        """A DWORD is an int of 32 bits."""
        with pytest.raises(kind):
            Dequeued(port, milliseconds)
