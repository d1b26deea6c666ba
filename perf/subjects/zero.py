"""Zero (zeroapi), over TCP and uvloop, which its documentation calls its fastest: asyncio, msgspec, worker
processes.

What favours it: its workers are processes, each with an interpreter of its own, one for each core. It has no
calls outstanding beside others on one connection, so its pool gets a connection for each.
"""

import os
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any

from perf.measure import ANSWER_TIMEOUT
from perf.streams import Loop, free_port, host_and_port, needs
from perf.worker import Control

NOTE = "TCP, uvloop, a worker process for each core"
CONNECTIONS = 256


def missing() -> str | None:
    """It needs zeroapi, and uvloop for its best."""
    return needs("zero", "zeroapi") or needs("uvloop", "uvloop")


def echo(data: bytes) -> bytes:
    """Return `data`."""
    return data


def serve(settings: dict[str, Any], control: Control) -> None:
    """Serve echo with a worker process for each core."""
    from zero import ZeroServer
    from zero.protocols.tcp import TCPServer

    port = free_port()
    server = ZeroServer(host="127.0.0.1", port=port, protocol=TCPServer)
    server.register_rpc(echo)
    # Its own handler ends its processes.
    control.end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    # It listens some time later, which the client waits for: a thread here that did might hold a lock at the fork.
    control.ready(f"tcp://127.0.0.1:{port}")
    server.run()


class Client:
    """An asyncio client."""

    def __init__(self, endpoint: str) -> None:
        import uvloop
        from zero import AsyncZeroClient
        from zero.protocols.tcp import AsyncTCPClient

        host, port = host_and_port(endpoint)
        _wait_for(host, port)
        self._client = AsyncZeroClient(
            host, port, int(ANSWER_TIMEOUT * 1000), protocol=AsyncTCPClient, pool_size=CONNECTIONS
        )
        self._loop = Loop(uvloop.new_event_loop)
        # Connects, before several tasks would do it at once.
        self._loop.stream(self._echo, [b"hello"], 1)

    async def _echo(self, payload: bytes) -> bytes:
        answer: bytes = await self._client.call("echo", payload, return_type=bytes)
        return answer

    def one_by_one(self, payloads: Sequence[bytes]) -> list[int]:
        """Await each."""
        return self._loop.one_by_one(self._echo, payloads)

    def stream(self, payloads: Sequence[bytes], outstanding: int) -> None:
        """Tasks."""
        self._loop.stream(self._echo, payloads, outstanding)

    def close(self) -> None:
        """Close the loop, and with it the connections."""
        self._loop.close()


def _wait_for(host: str, port: int) -> None:
    """Wait until somebody listens there."""
    limit = time.monotonic() + ANSWER_TIMEOUT
    while True:
        try:
            socket.create_connection((host, port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.01)
