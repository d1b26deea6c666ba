"""Overlapped input and output by the Windows names, as Microsoft's samples use them; sections 7, 8, 10 and 11."""

import gc
import socket
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import zmq

from engine import Event
from engine.testing import LIMIT
from engine.win32 import (
    ERROR_HANDLE_EOF,
    ERROR_INVALID_HANDLE,
    ERROR_INVALID_PARAMETER,
    ERROR_IO_INCOMPLETE,
    ERROR_IO_PENDING,
    ERROR_MORE_DATA,
    ERROR_NOT_ENOUGH_QUOTA,
    ERROR_NOT_FOUND,
    ERROR_OPERATION_ABORTED,
    FALSE,
    FILE_SKIP_COMPLETION_PORT_ON_SUCCESS,
    FILE_SKIP_SET_EVENT_ON_HANDLE,
    INFINITE,
    NULL,
    OVERLAPPED,
    STATUS_PENDING,
    TRUE,
    WAIT_IO_COMPLETION,
    WAIT_OBJECT_0,
    WAIT_TIMEOUT,
    BindIoCompletionCallback,
    Box,
    CancelIo,
    CancelIoEx,
    CancelSynchronousIo,
    CloseHandle,
    CreateEvent,
    CreateIoCompletionPort,
    GetCurrentThread,
    GetLastError,
    GetOverlappedResult,
    GetOverlappedResultEx,
    GetQueuedCompletionStatus,
    HasOverlappedIoCompleted,
    PostQueuedCompletionStatus,
    QueueUserAPC,
    ReadFile,
    SetEvent,
    SetFileCompletionNotificationModes,
    SetLastError,
    SleepEx,
    WaitForMultipleObjects,
    WaitForSingleObject,
    WriteFile,
)
from transport import OverlappedDescriptor, OverlappedSocket

MS = int(LIMIT * 1000)
Handles = Callable[[Any], Any]


@pytest.fixture
def ends(handles: Handles) -> Any:
    """The two ends of a connection: a handle for overlapped operations, and a plain socket."""
    mine, other = socket.socketpair()
    with other:
        yield handles(OverlappedDescriptor(mine)), other


@pytest.fixture
def file(ends: Any) -> Any:
    return ends[0]


@pytest.fixture
def other(ends: Any) -> Any:
    return ends[1]


@pytest.fixture
def event(handles: Handles) -> Any:
    return handles(CreateEvent(NULL, TRUE, FALSE, NULL))


@pytest.fixture
def port(handles: Handles, file: Any) -> Any:
    return handles(CreateIoCompletionPort(file, NULL, "key", 0))


def read(file: Any, overlapped: OVERLAPPED, size: int = 16) -> bytearray:
    """Begin to read, which is going to be pending; return the buffer."""
    buffer = bytearray(size)
    assert not ReadFile(file, buffer, size, NULL, overlapped)
    assert GetLastError() == ERROR_IO_PENDING
    return buffer


class Dequeued:
    """What one GetQueuedCompletionStatus returned and stored."""

    def __init__(self, port: Any, milliseconds: int = MS) -> None:
        size, key, overlapped = Box(), Box(), Box()
        self.returned = GetQueuedCompletionStatus(port, size, key, overlapped, milliseconds)
        self.error = 0 if self.returned else GetLastError()
        self.size, self.key, self.overlapped = size.value, key.value, overlapped.value


class TestEventsAndResults:
    """ "Synchronous and Asynchronous I/O", "GetOverlappedResult": no completion port."""

    def test_a_pending_read(self, file: Any, other: Any, event: Any) -> None:
        """997, then the event is set and the result can be had."""
        overlapped = OVERLAPPED(hEvent=event)
        SetEvent(event)
        buffer = read(file, overlapped)
        assert WaitForSingleObject(event, 0) == WAIT_TIMEOUT  # Beginning has reset it.
        assert overlapped.Internal == STATUS_PENDING and not HasOverlappedIoCompleted(overlapped)
        other.send(b"hello")
        assert WaitForSingleObject(event, INFINITE) == WAIT_OBJECT_0
        transferred = Box()
        assert GetOverlappedResult(file, overlapped, transferred, FALSE)
        assert buffer[: transferred.value] == b"hello"
        assert (overlapped.Internal, overlapped.InternalHigh) == (0, 5) and HasOverlappedIoCompleted(overlapped)

    def test_a_read_that_succeeds_at_once(self, file: Any, other: Any, event: Any) -> None:
        """True, with the byte count; the event is set as well."""
        other.send(b"there already")
        buffer, size = bytearray(64), Box()
        assert ReadFile(file, buffer, 5, size, OVERLAPPED(event))
        assert (size.value, buffer[:6]) == (5, b"there\0")
        assert WaitForSingleObject(event, 0) == WAIT_OBJECT_0

    def test_waiting_for_the_result(self, file: Any, other: Any) -> None:
        """With bWait the result is waited for, without an event."""
        overlapped, transferred = OVERLAPPED(), Box()
        buffer = read(file, overlapped)
        sending = threading.Timer(0.01, other.send, (b"late",))
        sending.start()
        assert GetOverlappedResult(file, overlapped, transferred, TRUE)
        assert buffer[: transferred.value] == b"late"
        sending.join(LIMIT)

    def test_spinning(self, file: Any, other: Any) -> None:
        """A program may do other things and look now and then: the operation goes on meanwhile."""
        overlapped = OVERLAPPED()
        read(file, overlapped)
        other.send(b"x")
        while not HasOverlappedIoCompleted(overlapped):
            SleepEx(1, FALSE)
        assert overlapped.InternalHigh == 1

    def test_a_server_of_several_pipes(self, handles: Handles) -> None:
        """As in "Named Pipe Server Using Overlapped I/O": an event for each instance, one wait for all of them."""
        served = []
        pairs = [socket.socketpair() for _ in range(3)]
        pipes = [handles(OverlappedDescriptor(mine)) for mine, _ in pairs]
        events = [handles(CreateEvent(NULL, TRUE, FALSE, NULL)) for _ in pipes]
        overlaps = [OVERLAPPED(event) for event in events]
        buffers = [read(pipe, overlap) for pipe, overlap in zip(pipes, overlaps, strict=True)]
        for index in (2, 0, 1):
            pairs[index][1].send(b"request %d" % index)
            which = WaitForMultipleObjects(len(events), events, FALSE, INFINITE) - WAIT_OBJECT_0
            size = Box()
            assert GetOverlappedResult(pipes[which], overlaps[which], size, FALSE)
            served.append(bytes(buffers[which][: size.value]))
            assert WriteFile(pipes[which], b"answer", 6, size, OVERLAPPED())
            assert size.value == 6 and pairs[which][1].recv(16) == b"answer"
            buffers[which] = read(pipes[which], overlaps[which])
        assert served == [b"request 2", b"request 0", b"request 1"]
        for _, other in pairs:
            other.close()

    def test_the_end_of_the_file(self, file: Any, other: Any) -> None:
        """As in "Testing for the End of a File": the operation pends, and its result is 38."""
        overlapped, transferred = OVERLAPPED(), Box()
        other.close()
        read(file, overlapped)
        assert not GetOverlappedResult(file, overlapped, transferred, TRUE)
        assert (GetLastError(), transferred.value) == (ERROR_HANDLE_EOF, 0)

    def test_polling_runs_no_apcs(self, file: Any) -> None:
        """996 with a time limit of 0, and APCs stay queued, alertable or not."""
        overlapped, ran = OVERLAPPED(), list[Any]()
        read(file, overlapped)
        QueueUserAPC(ran.append, GetCurrentThread(), 1)
        look: Any
        for look in (
            lambda: GetOverlappedResult(file, overlapped, Box(), FALSE),
            lambda: GetOverlappedResultEx(file, overlapped, Box(), 0, TRUE),
        ):
            SetLastError(0)
            assert not look()
            assert GetLastError() == ERROR_IO_INCOMPLETE
        assert ran == []
        assert SleepEx(0, TRUE) == WAIT_IO_COMPLETION

    def test_waiting_alertably(self, file: Any) -> None:
        """192 if APCs ran, 258 when the time is up; a plain wait runs none."""
        overlapped, ran = OVERLAPPED(), list[Any]()
        read(file, overlapped)
        QueueUserAPC(ran.append, GetCurrentThread(), 1)
        for alertable, error in ((FALSE, WAIT_TIMEOUT), (TRUE, WAIT_IO_COMPLETION), (TRUE, WAIT_TIMEOUT)):
            assert not GetOverlappedResultEx(file, overlapped, Box(), 1, alertable)
            assert GetLastError() == error
        assert ran == [1]

    def test_an_overlapped_that_was_not_used(self, file: Any) -> None:
        """It says what a structure of zeros says: success, and nothing transferred."""
        overlapped, transferred = OVERLAPPED(), Box()
        assert HasOverlappedIoCompleted(overlapped)
        assert GetOverlappedResult(file, overlapped, transferred, TRUE) and transferred.value == 0


class TestPort:
    """ "I/O Completion Ports": packets of operations."""

    def test_a_packet_for_each_operation(self, file: Any, other: Any, port: Any) -> None:
        """The packet carries the OVERLAPPED of its operation, pending or done at once, read or written."""
        first, second, third = OVERLAPPED(), OVERLAPPED(), OVERLAPPED()
        read(file, first)
        assert WriteFile(file, b"out", 2, NULL, second)
        other.send(b"in")
        seen = [Dequeued(port), Dequeued(port)]
        assert [(each.returned, each.overlapped, each.size, each.key) for each in seen] == [
            (True, second, 2, "key"), (True, first, 2, "key"),
        ]  # fmt: skip
        assert other.recv(16) == b"ou"
        other.send(b"more")
        assert ReadFile(file, bytearray(16), 16, NULL, third)
        assert Dequeued(port).overlapped is third

    def test_a_failed_operation(self, file: Any, other: Any, port: Any) -> None:
        """False with an OVERLAPPED: the last error is the operation's."""
        overlapped = OVERLAPPED()
        read(file, overlapped)
        other.close()
        seen = Dequeued(port)
        assert (seen.returned, seen.overlapped, seen.error) == (False, overlapped, ERROR_HANDLE_EOF)

    def test_the_result_is_there_with_the_packet(self, file: Any, other: Any, port: Any) -> None:
        """A thread that takes the packet before ReadFile has returned finds the operation in its OVERLAPPED."""
        results = []

        def take() -> None:
            transferred = Box()
            results.append(GetOverlappedResult(file, Dequeued(port).overlapped, transferred, FALSE))
            results.append(transferred.value)

        taking = threading.Thread(target=take)

        class Told(Event):
            def set(self) -> None:  # The operation is complete, ReadFile has not returned.
                super().set()
                PostQueuedCompletionStatus(port, 0, "early", overlapped)
                taking.start()
                taking.join(0.05)

        other.send(b"abc")
        with Told() as event:
            overlapped = OVERLAPPED(event)
            assert ReadFile(file, bytearray(16), 16, NULL, overlapped)
            taking.join(LIMIT)
        assert results == [True, 3]

    def test_skipping_the_port_on_success(self, file: Any, other: Any, port: Any) -> None:
        """With that mode a success at once has no packet, a pending operation has; modes are sticky."""
        assert SetFileCompletionNotificationModes(file, FILE_SKIP_COMPLETION_PORT_ON_SUCCESS)
        assert SetFileCompletionNotificationModes(file, FILE_SKIP_SET_EVENT_ON_HANDLE)
        assert SetFileCompletionNotificationModes(file, 0)
        assert WriteFile(file, b"x", 1, NULL, OVERLAPPED())
        overlapped = OVERLAPPED()
        read(file, overlapped)
        other.send(b"x")
        assert Dequeued(port).overlapped is overlapped
        assert Dequeued(port, 0).error == WAIT_TIMEOUT
        assert not SetFileCompletionNotificationModes(file, 4)
        assert GetLastError() == ERROR_INVALID_PARAMETER

    def test_closing_the_handle(self, file: Any, port: Any) -> None:
        """What is pending fails with 995, once, and delivers its packet."""
        overlapped = OVERLAPPED()
        read(file, overlapped)
        assert CloseHandle(file)
        seen = Dequeued(port)
        assert (seen.returned, seen.overlapped, seen.error) == (False, overlapped, ERROR_OPERATION_ABORTED)


class TestCancelling:
    """ "Canceling Pending I/O Operations"."""

    def test_one_or_all(self, file: Any) -> None:
        """CancelIoEx: the operations of one OVERLAPPED, or all; 1168 if there are none."""
        first, second, third = overlaps = [OVERLAPPED() for _ in range(3)]
        for overlapped in overlaps:
            read(file, overlapped)
        assert CancelIoEx(file, second)
        assert [HasOverlappedIoCompleted(each) for each in overlaps] == [False, True, False]
        assert not CancelIoEx(file, second)
        assert GetLastError() == ERROR_NOT_FOUND
        assert CancelIoEx(file, NULL)
        for overlapped in overlaps:
            assert not GetOverlappedResult(file, overlapped, Box(), TRUE)
            assert GetLastError() == ERROR_OPERATION_ABORTED
        assert not CancelIoEx(file, NULL)
        assert GetLastError() == ERROR_NOT_FOUND

    def test_this_threads_own(self, file: Any) -> None:
        """CancelIo: what this thread began, of others' nothing; to find none is no failure."""
        mine, others = OVERLAPPED(), OVERLAPPED()
        read(file, mine)
        thread = threading.Thread(target=read, args=(file, others))
        thread.start()
        thread.join(LIMIT)
        assert CancelIo(file) and CancelIo(file)
        assert HasOverlappedIoCompleted(mine) and not HasOverlappedIoCompleted(others)

    def test_synchronous_calls(self) -> None:
        """There is never one to be found: 1168; 6 for what is no thread."""
        thread: Any
        for thread, error in ((GetCurrentThread(), ERROR_NOT_FOUND), (NULL, ERROR_INVALID_HANDLE)):
            assert not CancelSynchronousIo(thread)
            assert GetLastError() == error


class TestMisuse:
    """What fails at once begins nothing."""

    @pytest.mark.parametrize("begin", [ReadFile, WriteFile])
    def test_arguments(self, file: Any, begin: Any) -> None:
        """No OVERLAPPED, or a position: 87. What C would not have let pass raises."""
        away = OVERLAPPED()
        away.Offset = 1
        for overlapped in (NULL, away):
            SetLastError(0)
            assert not begin(file, bytearray(4), 4, NULL, overlapped)
            assert GetLastError() == ERROR_INVALID_PARAMETER
        with pytest.raises(ValueError):
            begin(file, bytearray(4), 5, NULL, OVERLAPPED())
        with pytest.raises(TypeError):
            begin(file, "text", 4, NULL, OVERLAPPED())

    def test_buffers_to_read_into(self, file: Any) -> None:
        """One that cannot be written to, or is empty, is 87."""
        for buffer in (b"read-only", bytearray()):
            SetLastError(0)
            assert not ReadFile(file, buffer, len(buffer), NULL, OVERLAPPED())
            assert GetLastError() == ERROR_INVALID_PARAMETER

    def test_handles(self, file: Any, event: Any) -> None:
        """6 for what is no source, or a closed one; an hEvent that is no open event is 6 too."""
        closed_event = CreateEvent(NULL, TRUE, FALSE, NULL)
        assert CloseHandle(closed_event)
        wrong: Any
        handle: Any
        for wrong in (closed_event, "event"):
            SetLastError(0)
            assert not ReadFile(file, bytearray(4), 4, NULL, OVERLAPPED(wrong))
            assert GetLastError() == ERROR_INVALID_HANDLE
        CloseHandle(file)
        for handle in (file, event, NULL):
            use: Any
            for use in (
                lambda: ReadFile(handle, bytearray(4), 4, NULL, OVERLAPPED()),  # noqa: B023  # called in this turn
                lambda: WriteFile(handle, b"x", 1, NULL, OVERLAPPED()),  # noqa: B023  # called in this turn
                lambda: CancelIo(handle),  # noqa: B023  # called in this turn
                lambda: CancelIoEx(handle, NULL),  # noqa: B023  # called in this turn
            ):
                SetLastError(0)
                assert not use()
                assert GetLastError() == ERROR_INVALID_HANDLE
        for handle, error in (
            (file, ERROR_INVALID_HANDLE), (event, ERROR_INVALID_PARAMETER), (NULL, ERROR_INVALID_HANDLE),
        ):  # fmt: skip
            SetLastError(0)
            assert not SetFileCompletionNotificationModes(handle, 0)
            assert GetLastError() == error
        assert not GetOverlappedResult(event, OVERLAPPED(), Box(), FALSE)
        assert GetLastError() == ERROR_INVALID_HANDLE

    def test_the_limit(self, handles: Handles) -> None:
        """More operations than the source takes: 1816."""
        mine, other = socket.socketpair()
        file = handles(OverlappedDescriptor(mine, limit=1))
        read(file, OVERLAPPED())
        assert not ReadFile(file, bytearray(4), 4, NULL, OVERLAPPED())
        assert GetLastError() == ERROR_NOT_ENOUGH_QUOTA
        other.close()


class TestMessages:
    """ZeroMQ sockets, whose messages are read and written whole."""

    @pytest.fixture
    def sockets(self, handles: Handles) -> Iterator[Any]:
        with zmq.Context() as context:
            one, two = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
            one.bind("inproc://messages")
            two.connect("inproc://messages")
            yield handles(OverlappedSocket(one)), handles(OverlappedSocket(two))
            for each in (one, two):
                each.close(0)

    def test_one_message(self, sockets: Any) -> None:
        """What one end writes the other reads."""
        one, two = sockets
        size, overlapped, buffer = Box(), OVERLAPPED(), bytearray(16)
        assert not ReadFile(two, buffer, 16, NULL, overlapped)
        assert WriteFile(one, b"message", 7, size, OVERLAPPED()) and size.value == 7
        assert GetOverlappedResult(two, overlapped, size, TRUE)
        assert buffer[: size.value] == b"message"

    def test_a_message_that_is_too_large(self, sockets: Any) -> None:
        """It is cut, and the result is 234."""
        one, two = sockets
        size, overlapped, buffer = Box(), OVERLAPPED(), bytearray(16)
        assert WriteFile(one, b"message", 7, size, OVERLAPPED())
        ReadFile(two, buffer, 4, NULL, overlapped)
        assert not GetOverlappedResult(two, overlapped, size, TRUE)
        assert (GetLastError(), size.value, buffer[:5]) == (ERROR_MORE_DATA, 4, b"mess\0")


class TestCallbacks:
    """ "BindIoCompletionCallback"."""

    @pytest.fixture
    def seen(self) -> list[Any]:
        return []

    @pytest.fixture
    def told(self, handles: Handles) -> Any:
        return handles(CreateEvent(NULL, FALSE, FALSE, NULL))

    @pytest.fixture
    def bound(self, file: Any, seen: list[Any], told: Any) -> Any:
        def completed(error: int, transferred: int, overlapped: Any) -> None:
            seen.append((error, transferred, overlapped))
            SetEvent(told)

        assert BindIoCompletionCallback(file, completed, 0)
        return file

    def test_each_operation_calls_back(self, bound: Any, other: Any, seen: list[Any], told: Any) -> None:
        """On the default pool, with its error, byte count and OVERLAPPED; a cancelled one too."""
        first, second, third = OVERLAPPED(), OVERLAPPED(), OVERLAPPED()
        read(bound, first)
        other.send(b"abc")
        assert WaitForSingleObject(told, MS) == WAIT_OBJECT_0
        assert WriteFile(bound, b"xy", 2, NULL, second)
        assert WaitForSingleObject(told, MS) == WAIT_OBJECT_0
        read(bound, third)
        assert CancelIoEx(bound, third)
        assert WaitForSingleObject(told, MS) == WAIT_OBJECT_0
        assert seen == [(0, 3, first), (0, 2, second), (ERROR_OPERATION_ABORTED, 0, third)]

    def test_successes_that_skip_it(self, bound: Any, other: Any, seen: list[Any], told: Any) -> None:
        """With that mode a success at once does not call back; nor does what could not be begun."""
        assert SetFileCompletionNotificationModes(bound, FILE_SKIP_COMPLETION_PORT_ON_SUCCESS)
        assert WriteFile(bound, b"xy", 2, NULL, OVERLAPPED())
        assert not ReadFile(bound, b"read-only", 4, NULL, OVERLAPPED())
        overlapped = OVERLAPPED()
        read(bound, overlapped)
        other.send(b"z")
        assert WaitForSingleObject(told, MS) == WAIT_OBJECT_0
        assert seen == [(0, 1, overlapped)]

    def test_it_ends_with_its_source(self) -> None:
        """A source is closed and dropped; nothing is reported as forgotten."""
        mine, other = socket.socketpair()
        file = OverlappedDescriptor(mine)
        assert BindIoCompletionCallback(file, print, 0)
        source = weakref.ref(file)
        assert CloseHandle(file)
        other.close()
        del file
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            gc.collect()
        assert (source(), seen) == (None, [])

    def test_what_cannot_be_bound(self, bound: Any) -> None:
        """87 for a source that is bound already or none, and for flags, 6 for NULL; what cannot be called raises."""
        handle: Any
        for handle, flags, error in (
            (bound, 0, ERROR_INVALID_PARAMETER), (bound, 1, ERROR_INVALID_PARAMETER),
            (threading.current_thread(), 0, ERROR_INVALID_PARAMETER), (NULL, 0, ERROR_INVALID_HANDLE),
        ):  # fmt: skip
            SetLastError(0)
            assert not BindIoCompletionCallback(handle, print, flags)
            assert GetLastError() == error
        assert CreateIoCompletionPort(bound, NULL, 0, 0) is None
        assert GetLastError() == ERROR_INVALID_PARAMETER
        with pytest.raises(TypeError):
            BindIoCompletionCallback(bound, cast(Any, NULL), 0)
