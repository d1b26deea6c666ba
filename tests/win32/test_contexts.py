"""Context handles by the Windows names: section 9.4."""

import itertools

import pytest

from engine import Client, Context, ContextMismatch
from engine.testing import LIMIT
from engine.win32 import (
    ERROR_MORE_WRITES,
    RPC_S_INVALID_BINDING,
    RPC_S_NO_CALL_ACTIVE,
    RPC_S_OK,
    RPC_X_SS_CONTEXT_MISMATCH,
    Box,
    RpcSsContextLockExclusive,
    RpcSsContextLockShared,
    RpcSsDestroyClientContext,
)

from .contract import Drawer

_numbers = itertools.count()


@pytest.fixture
def drawer(client: Client) -> Drawer:
    return client.bind(Drawer)


@pytest.fixture
def key() -> str:
    return f"sheet-{next(_numbers)}"


class TestHandles:
    """The handle stands for state at the server."""

    def test_the_samples_use(self, drawer: Drawer, key: str) -> None:
        """Open, use, close; then it is unknown: 6."""
        sheet = drawer.open(key)
        assert [drawer.write(sheet, "one"), drawer.write(sheet, "two")] == [1, 2]
        drawer.close(sheet)
        with pytest.raises(ContextMismatch) as caught:
            drawer.write(sheet, "three")
        assert caught.value.status == RPC_X_SS_CONTEXT_MISMATCH

    def test_destroyed_by_the_client(self, service: str, drawer: Drawer, key: str) -> None:
        """The client drops its half without telling the server; the state is run down when its connection ends."""
        with Client(f"ipc://{service}") as leaving:
            box = Box(leaving.bind(Drawer).open(key))
            RpcSsDestroyClientContext(box)
            assert box.value is None
            leaving.bind(Drawer).go_on(key)
            with pytest.raises(ContextMismatch):
                RpcSsDestroyClientContext(box)
        drawer.dropped(key)


class TestLocks:
    """ "RpcSsContextLockExclusive", "RpcSsContextLockShared"."""

    def test_alone(self, drawer: Drawer, key: str) -> None:
        """A call that shares the handle with nobody has it alone at once, and may share it again."""
        drawer.go_on(key)
        drawer.go_on(f"{key} leaving")
        assert drawer.study(drawer.open(key), key) == [RPC_S_OK, RPC_S_OK]

    def test_two(self, drawer: Drawer, key: str) -> None:
        """Of two that share it and both want it alone, one gets 1120: it must look anew."""
        sheet = drawer.open(key)
        calls = [drawer.study.begin(sheet, key) for _ in range(2)]
        drawer.arrived(key, 2)
        drawer.go_on(key)
        drawer.arrived(f"{key} leaving", 1)  # So both have asked: otherwise the first would still wait.
        assert not any(call.done() for call in calls)
        drawer.go_on(f"{key} leaving")
        assert sorted(call.result(LIMIT)[0] for call in calls) == [RPC_S_OK, ERROR_MORE_WRITES]

    def test_statuses(self) -> None:
        """1725 where no call is served, 1702 for what is no call, 6 for what is no handle."""
        sheet: Context[object] = Context(b"token")
        for lock in (RpcSsContextLockExclusive, RpcSsContextLockShared):
            assert lock(None, sheet) == RPC_S_NO_CALL_ACTIVE
            assert lock("no call", sheet) == RPC_S_INVALID_BINDING  # type: ignore[arg-type]  # wrong on purpose
