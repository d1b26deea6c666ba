"""Managing a server by the Windows names, from its own process and from another: section 9.1."""

import subprocess
from collections.abc import Callable, Iterator

import pytest

from engine import Client
from engine.testing import LIMIT
from engine.win32 import (
    RPC_C_MGMT_INQ_STATS,
    RPC_C_MGMT_IS_SERVER_LISTEN,
    RPC_C_MGMT_STOP_SERVER_LISTEN,
    RPC_C_STATS_CALLS_IN,
    RPC_C_STATS_CALLS_OUT,
    RPC_S_ACCESS_DENIED,
    RPC_S_INVALID_ARG,
    RPC_S_INVALID_BINDING,
    RPC_S_NOT_LISTENING,
    RPC_S_OK,
    RPC_S_SERVER_UNAVAILABLE,
    Box,
    RpcMgmtInqStats,
    RpcMgmtIsServerListening,
    RpcMgmtSetAuthorizationFn,
    RpcMgmtStatsVectorFree,
    RpcMgmtStopServerListening,
    RpcServerListen,
    RpcServerRegisterIf,
)

from .contract import Desk
from .greeter import Greeter


@pytest.fixture
def stranger(victim: tuple[str, "subprocess.Popen[str]"]) -> Iterator[Client]:
    """A client of a service of this test's own."""
    with Client(f"ipc://{victim[0]}", connect_timeout=LIMIT) as made:
        yield made


class TestAnotherProcess:
    """Through a binding handle."""

    def test_looking(self, client: Client, desk: Desk) -> None:
        """Everybody may ask whether it listens, and for its counters; they only grow."""
        assert RpcMgmtIsServerListening(client) == RPC_S_OK
        before, after = Box(), Box()
        assert RpcMgmtInqStats(client, before) == RPC_S_OK
        assert before.value.Count == 4
        desk.echo(1)
        desk.echo(2)
        assert RpcMgmtInqStats(client, after) == RPC_S_OK
        assert after.value.Stats[RPC_C_STATS_CALLS_IN] == before.value.Stats[RPC_C_STATS_CALLS_IN] + 3
        assert RpcMgmtStatsVectorFree(after) == RPC_S_OK
        assert after.value is None

    def test_stopping_is_denied(self, client: Client, desk: Desk) -> None:
        """Nobody may stop it, unless it says otherwise: 5."""
        assert RpcMgmtStopServerListening(client) == RPC_S_ACCESS_DENIED
        assert desk.echo("goes on") == "goes on"

    def test_authorized(self, victim: tuple[str, "subprocess.Popen[str]"], stranger: Client) -> None:
        """An authorization function decides on each operation, until it is taken back; then the service ends."""
        desk = stranger.bind(Desk)
        assert desk.allow([RPC_C_MGMT_IS_SERVER_LISTEN]) == RPC_S_OK
        assert RpcMgmtIsServerListening(stranger) == RPC_S_OK
        assert RpcMgmtInqStats(stranger, Box()) == RPC_S_ACCESS_DENIED
        assert desk.allow([RPC_C_MGMT_INQ_STATS]) == RPC_S_OK
        assert RpcMgmtInqStats(stranger, Box()) == RPC_S_OK
        assert RpcMgmtIsServerListening(stranger) == RPC_S_ACCESS_DENIED
        assert desk.allow(None) == RPC_S_OK
        assert RpcMgmtIsServerListening(stranger) == RPC_S_OK
        assert RpcMgmtStopServerListening(stranger) == RPC_S_ACCESS_DENIED
        assert desk.allow([RPC_C_MGMT_STOP_SERVER_LISTEN]) == RPC_S_OK
        assert RpcMgmtStopServerListening(stranger) == RPC_S_OK
        assert victim[1].wait(LIMIT) == 0

    def test_nobody_there(self, tmp_path: object) -> None:
        """1722 where there is no server."""
        with Client(f"ipc://{tmp_path}/nobody", connect_timeout=0.1) as nobody:
            assert RpcMgmtIsServerListening(nobody) == RPC_S_SERVER_UNAVAILABLE
            assert RpcMgmtStopServerListening(nobody) == RPC_S_SERVER_UNAVAILABLE
            assert RpcMgmtInqStats(nobody, Box()) == RPC_S_SERVER_UNAVAILABLE

    def test_no_binding(self, service: str) -> None:
        """1702 for what is no binding handle, or was freed."""
        with Client(f"ipc://{service}") as freed:
            pass
        for binding in ("no binding", freed):
            assert RpcMgmtStopServerListening(binding) == RPC_S_INVALID_BINDING  # type: ignore[arg-type]  # wrong on purpose
            assert RpcMgmtIsServerListening(binding) == RPC_S_INVALID_BINDING  # type: ignore[arg-type]  # wrong on purpose
            assert RpcMgmtInqStats(binding, Box()) == RPC_S_INVALID_BINDING  # type: ignore[arg-type]  # wrong on purpose


class TestThisProcess:
    """Without a binding."""

    def test_calls_out(self, quiet: None, binding: Callable[[], Client]) -> None:
        """Calls out are those that routines have begun."""

        class Asking:
            def ask(self) -> int:
                box = Box()
                assert RpcMgmtInqStats(None, box) == RPC_S_OK
                before: int = box.value.Stats[RPC_C_STATS_CALLS_OUT]
                there.bind("asking").nothing()
                assert RpcMgmtInqStats(None, box) == RPC_S_OK
                return int(box.value.Stats[RPC_C_STATS_CALLS_OUT] - before)

            def nothing(self) -> None: ...

        assert RpcServerRegisterIf("asking", None, Asking()) == RPC_S_OK
        assert RpcServerListen(1, 10, True) == RPC_S_OK
        there = binding()
        assert there.bind("asking").ask() == 1

    def test_not_asked(self, greeter: Greeter, binding: Callable[[], Client]) -> None:
        """The authorization function is not asked about the process itself; one that raises allows nothing."""
        asked: list[int] = []

        def refuse(binding: object, operation: int, status: Box) -> bool:
            assert status.value == RPC_S_OK
            asked.append(operation)
            raise ValueError("cannot tell")

        assert RpcMgmtSetAuthorizationFn(refuse) == RPC_S_OK
        assert RpcServerListen(1, 10, True) == RPC_S_OK
        assert RpcMgmtIsServerListening(None) == RPC_S_OK
        assert not asked
        assert RpcMgmtIsServerListening(binding()) == RPC_S_ACCESS_DENIED
        assert asked == [RPC_C_MGMT_IS_SERVER_LISTEN]
        assert RpcMgmtStopServerListening(None) == RPC_S_OK

    def test_no_function(self) -> None:
        """87 for what cannot be called; 1715 for a process that does not listen."""
        assert RpcMgmtSetAuthorizationFn(5) == RPC_S_INVALID_ARG  # type: ignore[arg-type]  # wrong on purpose
        assert RpcMgmtInqStats(None, Box()) == RPC_S_NOT_LISTENING
