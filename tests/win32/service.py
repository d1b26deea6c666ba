"""The tests' service, written with the Windows names only: `python -m tests.win32.service PATH`."""

import os
import sys
import threading
from typing import Any

from engine import ServerCall, blocking
from engine.testing import LIMIT, wait_until
from engine.win32 import (
    RPC_ASYNC_STATE,
    RPC_C_LISTEN_MAX_CALLS_DEFAULT,
    RPC_C_PROTSEQ_MAX_REQS_DEFAULT,
    RPC_CALL_ATTRIBUTES_V2,
    RPC_QUERY_CALL_LOCAL_ADDRESS,
    RPC_QUERY_CLIENT_PID,
    RPC_QUERY_CLIENT_PRINCIPAL_NAME,
    RPC_QUERY_SERVER_PRINCIPAL_NAME,
    RPC_S_CALL_IN_PROGRESS,
    RPC_S_OK,
    Box,
    RpcAsyncAbortCall,
    RpcAsyncCancelCall,
    RpcAsyncCompleteCall,
    RpcAsyncGetCallStatus,
    RpcAsyncInitializeHandle,
    RpcMgmtInqStats,
    RpcMgmtIsServerListening,
    RpcMgmtSetAuthorizationFn,
    RpcMgmtStatsVectorFree,
    RpcMgmtStopServerListening,
    RpcMgmtWaitServerListen,
    RpcRaiseException,
    RpcServerInqCallAttributes,
    RpcServerListen,
    RpcServerRegisterIf,
    RpcServerTestCancel,
    RpcServerUnregisterIf,
    RpcServerUseProtseqEp,
    async_manager,
    sizeof,
)

from .contract import Desk, Drawer, Watch
from .drawer import Keeping
from .handles import served_by
from .watching import Watching


class DeskRoutines:
    """Implements `Desk`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # Guarded by _changed.
        self._held: dict[str, RPC_ASYNC_STATE] = {}

    def _find(self, key: str) -> RPC_ASYNC_STATE:
        with blocking(), self._changed:
            assert self._changed.wait_for(lambda: key in self._held, LIMIT)
            return self._held[key]

    def echo(self, value: Any) -> Any:
        return value

    @async_manager
    def nothing(self, pAsync: RPC_ASYNC_STATE) -> None:
        assert RpcAsyncCompleteCall(pAsync, None) == RPC_S_OK

    @async_manager
    def hold(self, pAsync: RPC_ASYNC_STATE, key: str) -> None:
        with self._changed:
            self._held[key] = pAsync
            self._changed.notify_all()

    def finish(self, key: str, value: Any) -> int:
        return RpcAsyncCompleteCall(self._find(key), Box(value))

    def give_up(self, key: str, code: int) -> int:
        return RpcAsyncAbortCall(self._find(key), code)

    def misused(self, key: str) -> list[int]:
        state = self._find(key)
        return [
            RpcAsyncGetCallStatus(state),
            RpcAsyncCancelCall(state, True),
            RpcAsyncInitializeHandle(state, sizeof(RPC_ASYNC_STATE)),
        ]

    def asked(self, key: str, until: bool) -> int:
        binding = served_by(self._find(key))
        if until:
            with blocking():
                wait_until(lambda: RpcServerTestCancel(binding) == RPC_S_OK)
        return RpcServerTestCancel(binding)

    def status_of(self, key: str) -> int:
        attributes = RPC_CALL_ATTRIBUTES_V2()
        assert RpcServerInqCallAttributes(served_by(self._find(key)), attributes) == RPC_S_OK
        return attributes.CallStatus

    def raising(self, code: int) -> int:
        RpcRaiseException(code)

    def who(self) -> dict[str, Any]:
        attributes = RPC_CALL_ATTRIBUTES_V2()
        attributes.Flags = (
            RPC_QUERY_CLIENT_PID
            | RPC_QUERY_CLIENT_PRINCIPAL_NAME
            | RPC_QUERY_SERVER_PRINCIPAL_NAME
            | RPC_QUERY_CALL_LOCAL_ADDRESS
        )
        attributes.ServerPrincipalName = Box()
        attributes.ServerPrincipalNameBufferLength = 100
        returned = RpcServerInqCallAttributes(None, attributes)
        attributes.ServerPrincipalName = None
        return {
            "returned": returned,
            "cancelled": RpcServerTestCancel(None),
            "pid": os.getpid(),
            **vars(attributes),
        }

    def server(self) -> dict[str, Any]:
        statistics = Box()
        assert RpcMgmtInqStats(None, statistics) == RPC_S_OK
        counters = statistics.value.Stats
        RpcMgmtStatsVectorFree(statistics)
        return {
            "listening": RpcMgmtIsServerListening(None),
            "listen again": RpcServerListen(1, 10, True),
            "register again": RpcServerRegisterIf(Desk, None, self),
            "counters": counters,
        }

    def allow(self, operations: list[int] | None) -> int:
        if operations is None:
            return RpcMgmtSetAuthorizationFn(None)
        allowed = operations

        def authorize(binding: ServerCall, operation: int, status: Box) -> bool:
            # The binding is good for what may be asked of any call.
            return RpcServerTestCancel(binding) == RPC_S_CALL_IN_PROGRESS and operation in allowed

        return RpcMgmtSetAuthorizationFn(authorize)

    def stop(self) -> int:
        return RpcMgmtStopServerListening(None)


def check(status: int) -> None:
    if status != RPC_S_OK:
        sys.exit(status)


def main() -> None:
    check(RpcServerUseProtseqEp("ncalrpc", RPC_C_PROTSEQ_MAX_REQS_DEFAULT, sys.argv[1], None))
    check(RpcServerRegisterIf(Desk, None, DeskRoutines()))
    check(RpcServerRegisterIf(Watch, None, Watching()))
    check(RpcServerRegisterIf(Drawer, None, Keeping()))
    check(RpcServerListen(1, RPC_C_LISTEN_MAX_CALLS_DEFAULT, True))
    print("listening", flush=True)
    check(RpcMgmtWaitServerListen())
    check(RpcServerUnregisterIf(None, None, True))


if __name__ == "__main__":
    main()
