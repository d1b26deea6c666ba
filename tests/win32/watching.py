"""A service that wants to know of cancels and disconnects, written with the Windows names only."""

import threading
from typing import Any

from engine import blocking
from engine.testing import LIMIT, wait_until
from engine.win32 import INVALID_HANDLE_VALUE as NO_FILE
from engine.win32 import (
    RPC_ASYNC_NOTIFICATION_INFO,
    RPC_ASYNC_STATE,
    RPC_S_CALL_CANCELLED,
    RPC_S_OK,
    Box,
    CreateEvent,
    CreateIoCompletionPort,
    GetQueuedCompletionStatus,
    RpcAsyncAbortCall,
    RpcAsyncCompleteCall,
    RpcAsyncGetCallHandle,
    RpcNotificationCallCancel,
    RpcNotificationClientDisconnect,
    RpcNotificationTypeApc,
    RpcNotificationTypeCallback,
    RpcNotificationTypeEvent,
    RpcNotificationTypeIoc,
    RpcServerSubscribeForNotification,
    RpcServerTestCancel,
    RpcServerUnsubscribeForNotification,
    SleepEx,
    WaitForSingleObject,
    async_manager,
)

from .handles import made, served_by

MS = int(LIMIT * 1000)


class Held:
    """A call that is held, and where its subscriber is told."""

    def __init__(self, pAsync: RPC_ASYNC_STATE) -> None:
        self.state = pAsync
        self.told: list[list[Any]] = []
        self.event = CreateEvent(None, False, False, None)
        self.port = CreateIoCompletionPort(NO_FILE, None, 0, 0)
        self.thread = threading.Thread(target=self._sleep, daemon=True)
        self.thread.start()

    def _sleep(self) -> None:
        while True:
            SleepEx(MS, True)

    def note(self, pAsync: object, context: None, event: int) -> None:
        self.told.append([pAsync is self.state, context, int(event)])

    def targets(self) -> RPC_ASYNC_NOTIFICATION_INFO:
        info = RPC_ASYNC_NOTIFICATION_INFO()
        info.hEvent = self.event
        info.IOC.hIOPort = self.port
        info.IOC.dwNumberOfBytesTransferred = 1
        info.IOC.dwCompletionKey = "key"
        info.IOC.lpOverlapped = None
        info.APC.NotificationRoutine = self.note
        info.APC.hThread = self.thread
        info.NotificationRoutine = self.note
        return info


class Watching:
    """Implements `Watch`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # Guarded by _changed.
        self._held: dict[str, Held | None] = {}

    def entered(self, key: str) -> None:
        with blocking(), self._changed:
            assert self._changed.wait_for(lambda: key in self._held, LIMIT)

    def _enter(self, key: str, held: Held | None) -> None:
        with self._changed:
            self._held[key] = held
            self._changed.notify_all()

    def _find(self, key: str) -> Held:
        self.entered(key)
        held = self._held[key]
        assert held is not None
        return held

    @async_manager
    def hold(self, pAsync: RPC_ASYNC_STATE, key: str) -> None:
        self._enter(key, Held(pAsync))

    @async_manager
    def patient(self, pAsync: RPC_ASYNC_STATE, key: str) -> None:
        def give_up(pAsync: RPC_ASYNC_STATE, context: None, event: int) -> None:
            binding, queued = served_by(pAsync), Box()
            for notification in (RpcNotificationCallCancel, RpcNotificationClientDisconnect):
                assert RpcServerUnsubscribeForNotification(binding, notification, queued) == RPC_S_OK
            held.told.append([int(event), queued.value])
            assert RpcAsyncAbortCall(pAsync, RPC_S_CALL_CANCELLED) == RPC_S_OK

        held = Held(pAsync)
        info = RPC_ASYNC_NOTIFICATION_INFO()
        info.NotificationRoutine = give_up
        both = RpcNotificationCallCancel | RpcNotificationClientDisconnect
        assert RpcServerSubscribeForNotification(None, both, RpcNotificationTypeCallback, info) == RPC_S_OK
        info.NotificationRoutine = None  # Copied: this changes nothing.
        self._enter(key, held)

    def plain(self, key: str) -> list[Any]:
        told: list[Any] = []
        changed = made(CreateEvent(None, True, False, None))

        def note(binding: Any, context: None, event: int) -> None:
            told.extend([RpcServerTestCancel(binding), int(event)])
            changed.set()

        info = RPC_ASYNC_NOTIFICATION_INFO()
        info.NotificationRoutine = note
        status = RpcServerSubscribeForNotification(None, RpcNotificationCallCancel, RpcNotificationTypeCallback, info)
        self._enter(key, None)
        WaitForSingleObject(changed, MS)
        return [status, *told]

    def subscribe(self, key: str, notification: int, kind: int) -> int:
        held = self._find(key)
        binding = RpcAsyncGetCallHandle(held.state)
        return RpcServerSubscribeForNotification(binding, notification, kind, held.targets())  # type: ignore[arg-type]  # it is a server's

    def unsubscribe(self, key: str, notification: int) -> list[Any]:
        queued = Box("untouched")
        binding = RpcAsyncGetCallHandle(self._find(key).state)
        return [RpcServerUnsubscribeForNotification(binding, notification, queued), queued.value]  # type: ignore[arg-type]  # it is a server's

    def told(self, key: str, kind: int) -> list[Any]:
        held = self._find(key)
        if kind == RpcNotificationTypeEvent:
            return [WaitForSingleObject(held.event, MS)]
        if kind == RpcNotificationTypeIoc:
            transferred, port_key, overlapped = Box(), Box(), Box("unset")
            assert held.port is not None
            got = GetQueuedCompletionStatus(held.port, transferred, port_key, overlapped, MS)
            return [got, transferred.value, port_key.value, overlapped.value]
        assert kind in (RpcNotificationTypeApc, RpcNotificationTypeCallback)
        with blocking():
            wait_until(lambda: held.told)
        return held.told

    def finish(self, key: str) -> int:
        return RpcAsyncCompleteCall(self._find(key).state, Box("finished"))
