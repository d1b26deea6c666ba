"""Subscriptions by the Windows names: section 4.5."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from engine import Client
from engine.testing import LIMIT
from engine.win32 import (
    RPC_ASYNC_STATE,
    RPC_S_CALL_CANCELLED,
    RPC_S_CANNOT_SUPPORT,
    RPC_S_INVALID_ARG,
    RPC_S_INVALID_ASYNC_CALL,
    RPC_S_INVALID_ASYNC_HANDLE,
    RPC_S_INVALID_BINDING,
    RPC_S_NO_CALL_ACTIVE,
    RPC_S_OK,
    WAIT_OBJECT_0,
    Box,
    RpcAsyncCall,
    RpcAsyncCancelCall,
    RpcAsyncCompleteCall,
    RpcAsyncInitializeHandle,
    RpcClientCancel,
    RpcClientDisconnect,
    RpcNotificationCallCancel,
    RpcNotificationClientDisconnect,
    RpcNotificationTypeApc,
    RpcNotificationTypeCallback,
    RpcNotificationTypeEvent,
    RpcNotificationTypeHwnd,
    RpcNotificationTypeIoc,
    RpcNotificationTypeNone,
    RpcServerSubscribeForNotification,
    RpcServerUnsubscribeForNotification,
    sizeof,
)

from .contract import Watch
from .handles import call_of

BOTH = RpcNotificationCallCancel | RpcNotificationClientDisconnect
TYPES = (RpcNotificationTypeEvent, RpcNotificationTypeApc, RpcNotificationTypeIoc, RpcNotificationTypeCallback)
_numbers = itertools.count()


@pytest.fixture
def watch(client: Client) -> Watch:
    """The service, to be called asynchronously."""
    return client.bind(Watch)


@pytest.fixture
def aside(service: str) -> Iterator[Watch]:
    """The same service through a connection of its own."""
    with Client(f"ipc://{service}") as made:
        yield made.bind(Watch)


@pytest.fixture
def key() -> str:
    return f"watched-{next(_numbers)}"


def issued(operation: Any, *args: Any) -> RPC_ASYNC_STATE:
    """Issue a call on a new handle, without notification."""
    state = RPC_ASYNC_STATE()
    assert RpcAsyncInitializeHandle(state, sizeof(state)) == RPC_S_OK
    state.NotificationType = RpcNotificationTypeNone
    RpcAsyncCall(state, operation, *args)
    return state


def completed(state: RPC_ASYNC_STATE) -> tuple[int, Any]:
    """Wait for the call, and return its status and its result."""
    reply = Box()
    assert call_of(state).wait(LIMIT)
    return RpcAsyncCompleteCall(state, reply), reply.value


def expected(kind: int, event: int) -> list[Any]:
    """What the subscriber finds: the kind of event where the type carries one."""
    found: dict[int, list[Any]] = {
        RpcNotificationTypeEvent: [WAIT_OBJECT_0],
        RpcNotificationTypeIoc: [True, 1, "key", None],
    }
    return found.get(kind, [[True, None, event]])


class TestSamples:
    """A server that gives up when nobody wants its answer any more."""

    def test_gives_up(self, watch: Watch, aside: Watch, key: str) -> None:
        """Subscribe on the dispatch thread; when told, unsubscribe, look at the count, and abort."""
        state = issued(watch.patient, key)
        aside.entered(key)
        assert RpcAsyncCancelCall(state, False) == RPC_S_OK
        assert completed(state)[0] == RPC_S_CALL_CANCELLED
        told = aside.told(key, RpcNotificationTypeCallback)
        assert told[0][0] == RpcClientCancel

    def test_a_routine_that_waits(self, watch: Watch, aside: Watch, key: str) -> None:
        """A routine that is not asynchronous gets its binding handle where an asynchronous one gets the handle."""
        state = issued(watch.plain, key)
        aside.entered(key)
        assert RpcAsyncCancelCall(state, False) == RPC_S_OK
        assert completed(state) == (RPC_S_OK, [RPC_S_OK, RPC_S_OK, RpcClientCancel])


class TestTypes:
    """Each notification type tells of each kind."""

    @pytest.mark.parametrize("kind", TYPES)
    def test_cancel(self, watch: Watch, aside: Watch, key: str, kind: int) -> None:
        """A cancel."""
        state = issued(watch.hold, key)
        assert aside.subscribe(key, RpcNotificationCallCancel, kind) == RPC_S_OK
        assert RpcAsyncCancelCall(state, False) == RPC_S_OK
        assert aside.told(key, kind) == expected(kind, RpcClientCancel)
        assert aside.unsubscribe(key, RpcNotificationCallCancel) == [RPC_S_OK, 1]
        assert aside.finish(key) == RPC_S_OK
        assert completed(state) == (RPC_S_OK, "finished")

    @pytest.mark.parametrize("kind", TYPES)
    def test_disconnect(self, service: str, aside: Watch, key: str, kind: int) -> None:
        """A client that goes."""
        with Client(f"ipc://{service}") as leaving:
            issued(leaving.bind(Watch).hold, key)
            assert aside.subscribe(key, RpcNotificationClientDisconnect, kind) == RPC_S_OK
        assert aside.told(key, kind) == expected(kind, RpcClientDisconnect)
        assert aside.finish(key) == RPC_S_OK

    @pytest.mark.parametrize("kind", TYPES)
    def test_both(self, watch: Watch, aside: Watch, key: str, kind: int) -> None:
        """Both go into one request, but for an event, which is 87."""
        state = issued(watch.hold, key)
        subscribed = aside.subscribe(key, BOTH, kind)
        if kind == RpcNotificationTypeEvent:
            assert subscribed == RPC_S_INVALID_ARG
        else:
            assert subscribed == RPC_S_OK
            assert RpcAsyncCancelCall(state, False) == RPC_S_OK
            assert aside.told(key, kind) == expected(kind, RpcClientCancel)
            assert aside.unsubscribe(key, RpcNotificationClientDisconnect) == [RPC_S_OK, 0]
        assert aside.finish(key) == RPC_S_OK


class TestStatuses:
    """What is refused."""

    def test_types(self, watch: Watch, aside: Watch, key: str) -> None:
        """87 without a type, and for one that does not exist; 1764 for window messages."""
        issued(watch.hold, key)
        cancel = RpcNotificationCallCancel
        assert aside.subscribe(key, cancel, RpcNotificationTypeNone) == RPC_S_INVALID_ARG
        assert aside.subscribe(key, cancel, 6) == RPC_S_INVALID_ARG
        assert aside.subscribe(key, cancel, RpcNotificationTypeHwnd) == RPC_S_CANNOT_SUPPORT
        assert aside.finish(key) == RPC_S_OK

    @pytest.mark.parametrize("notification", (0, 4, 7))
    def test_kinds(self, watch: Watch, aside: Watch, key: str, notification: int) -> None:
        """1764 for what is neither a cancel nor a disconnect."""
        issued(watch.hold, key)
        assert aside.subscribe(key, notification, RpcNotificationTypeIoc) == RPC_S_CANNOT_SUPPORT
        assert aside.unsubscribe(key, notification) == [RPC_S_CANNOT_SUPPORT, "untouched"]
        assert aside.unsubscribe(key, BOTH) == [RPC_S_CANNOT_SUPPORT, "untouched"], "one kind a request"
        assert aside.finish(key) == RPC_S_OK

    def test_once(self, watch: Watch, aside: Watch, key: str) -> None:
        """1915 for a second time, and for the end of a subscription that there is not."""
        issued(watch.hold, key)
        assert aside.unsubscribe(key, RpcNotificationCallCancel) == [RPC_S_INVALID_ASYNC_CALL, "untouched"]
        assert aside.subscribe(key, RpcNotificationCallCancel, RpcNotificationTypeIoc) == RPC_S_OK
        assert aside.subscribe(key, RpcNotificationCallCancel, RpcNotificationTypeIoc) == RPC_S_INVALID_ASYNC_CALL
        assert aside.finish(key) == RPC_S_OK

    def test_closed(self, watch: Watch, aside: Watch, key: str) -> None:
        """1914 for a call that was closed."""
        issued(watch.hold, key)
        assert aside.finish(key) == RPC_S_OK
        cancel = RpcNotificationCallCancel
        assert aside.subscribe(key, cancel, RpcNotificationTypeIoc) == RPC_S_INVALID_ASYNC_HANDLE
        assert aside.unsubscribe(key, cancel) == [RPC_S_INVALID_ASYNC_HANDLE, "untouched"]

    def test_no_call(self) -> None:
        """1725 where no call is served, 1702 for what is no call."""
        for binding, status in ((None, RPC_S_NO_CALL_ACTIVE), ("no call", RPC_S_INVALID_BINDING)):
            assert RpcServerSubscribeForNotification(binding, 2, 3, None) == status  # type: ignore[arg-type]  # wrong on purpose
            assert RpcServerUnsubscribeForNotification(binding, 2, None) == status  # type: ignore[arg-type]  # wrong on purpose
