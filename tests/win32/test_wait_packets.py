"""Wait completion packets by their native names: section 13."""

from collections.abc import Callable
from typing import Any

import pytest

from engine.win32 import (
    ERROR_HANDLE_EOF,
    FALSE,
    INVALID_HANDLE_VALUE,
    NULL,
    STATUS_CANCELLED,
    STATUS_INVALID_HANDLE,
    STATUS_INVALID_PARAMETER,
    STATUS_PENDING,
    STATUS_SUCCESS,
    TRUE,
    WAIT_OBJECT_0,
    Box,
    CloseHandle,
    CreateEvent,
    CreateIoCompletionPort,
    CreateMutex,
    GetLastError,
    GetQueuedCompletionStatus,
    NtAssociateWaitCompletionPacket,
    NtCancelWaitCompletionPacket,
    NtCreateWaitCompletionPacket,
    SetEvent,
    WaitForSingleObject,
)

Handles = Callable[[Any], Any]


@pytest.fixture
def port(handles: Handles) -> Any:
    return handles(CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, 0))


@pytest.fixture
def event(handles: Handles) -> Any:
    return handles(CreateEvent(NULL, FALSE, FALSE, NULL))


@pytest.fixture
def packet() -> Any:
    box = Box()
    assert NtCreateWaitCompletionPacket(box, 0, NULL) == STATUS_SUCCESS
    return box.value


def associate(packet: Any, port: Any, target: Any, status: int = STATUS_SUCCESS) -> tuple[int, Any]:
    signaled = Box("unset")
    returned = NtAssociateWaitCompletionPacket(packet, port, target, "key", "context", status, 7, signaled)
    return returned, signaled.value


def dequeue(port: Any) -> tuple[Any, ...]:
    size, key, overlapped = Box(), Box(), Box()
    returned = GetQueuedCompletionStatus(port, size, key, overlapped, 0)
    return returned, size.value, key.value, overlapped.value


def test_a_signal_arrives_as_a_packet(packet: Any, port: Any, event: Any) -> None:
    """Once, with the values given; after it was dequeued the packet may be associated again."""
    for _ in range(2):
        assert associate(packet, port, event) == (STATUS_SUCCESS, False)
        assert dequeue(port)[0] is False
        SetEvent(event)
        assert dequeue(port) == (True, 7, "key", "context")
    SetEvent(event)
    assert WaitForSingleObject(event, 0) == WAIT_OBJECT_0


def test_a_status_of_its_own(packet: Any, port: Any, event: Any) -> None:
    """A packet may tell of a failure."""
    assert associate(packet, port, event, ERROR_HANDLE_EOF)[0] == STATUS_SUCCESS
    SetEvent(event)
    assert dequeue(port) == (False, 7, "key", "context")
    assert GetLastError() == ERROR_HANDLE_EOF


def test_an_object_that_is_signaled_already(packet: Any, port: Any, event: Any) -> None:
    """It is told, and the packet is queued at once; nobody need ask."""
    SetEvent(event)
    assert associate(packet, port, event) == (STATUS_SUCCESS, True)
    assert dequeue(port)[0]
    assert NtAssociateWaitCompletionPacket(packet, port, event, 0, 0, 0, 0, NULL) == STATUS_SUCCESS
    assert CloseHandle(packet)  # Withdraws it.
    SetEvent(event)
    assert dequeue(port)[0] is False


def test_cancelling(packet: Any, port: Any, event: Any) -> None:
    """Withdrawn; queued, still coming; queued, pulled back; dequeued, or never associated."""
    assert NtCancelWaitCompletionPacket(packet, FALSE) == STATUS_CANCELLED
    associate(packet, port, event)
    assert NtCancelWaitCompletionPacket(packet, FALSE) == STATUS_SUCCESS
    SetEvent(event)
    associate(packet, port, event)
    assert NtCancelWaitCompletionPacket(packet, FALSE) == STATUS_PENDING
    assert NtCancelWaitCompletionPacket(packet, TRUE) == STATUS_SUCCESS
    assert dequeue(port)[0] is False
    SetEvent(event)
    associate(packet, port, event)
    assert dequeue(port)[0]
    assert NtCancelWaitCompletionPacket(packet, TRUE) == STATUS_CANCELLED


def test_failures(packet: Any, port: Any, event: Any, handles: Handles) -> None:
    """STATUS_INVALID_PARAMETER while in use, and for a mutex; STATUS_INVALID_HANDLE for another kind, or closed."""
    mutex = handles(CreateMutex(NULL, FALSE, NULL))
    assert associate(packet, port, mutex) == (STATUS_INVALID_PARAMETER, "unset")
    for arguments in ((event, port, event), (packet, event, event), (packet, port, NULL)):
        assert associate(*arguments) == (STATUS_INVALID_HANDLE, "unset")
    assert NtCancelWaitCompletionPacket(event, FALSE) == STATUS_INVALID_HANDLE
    assert associate(packet, port, event)[0] == STATUS_SUCCESS
    assert associate(packet, port, event) == (STATUS_INVALID_PARAMETER, "unset")
    assert CloseHandle(event)
    assert dequeue(port)[0] is False  # 735: the packet comes, so that nobody waits in vain.
    assert associate(packet, port, event)[0] == STATUS_INVALID_HANDLE
    assert CloseHandle(port)
