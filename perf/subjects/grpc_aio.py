"""gRPC's asyncio API on both sides.

What favours it: no protocol buffers; the bytes go through as they are.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from perf.streams import Loop, needs
from perf.subjects.grpc_sync import METHOD
from perf.worker import Control

NOTE = "asyncio on both sides, plain bytes"


def missing() -> str | None:
    """It needs grpcio."""
    return needs("grpc", "grpcio")


def serve(settings: dict[str, Any], control: Control) -> None:
    """Serve echo on a port that the system chooses."""
    import grpc

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # a library without types
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(self.echo)

        async def echo(self, request: bytes, context: Any) -> bytes:
            return request

    async def main() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((Handler(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        control.ready(f"tcp://127.0.0.1:{port}")
        await asyncio.to_thread(control.wait_for_end)
        await server.stop(0)

    asyncio.run(main())


class Client:
    """One channel, made inside the loop that uses it."""

    def __init__(self, endpoint: str) -> None:
        import grpc

        async def connect() -> Any:
            return grpc.aio.insecure_channel(endpoint.removeprefix("tcp://"))

        self._loop = Loop()
        self._channel = self._loop.run(connect())
        self._echo = self._channel.unary_unary(METHOD)

    def one_by_one(self, payloads: Sequence[bytes]) -> list[int]:
        """Await each."""
        return self._loop.one_by_one(self._echo, payloads)

    def stream(self, payloads: Sequence[bytes], outstanding: int) -> None:
        """Tasks."""
        self._loop.stream(self._echo, payloads, outstanding)

    def close(self) -> None:
        """Close the channel, then the loop."""
        self._loop.run(self._channel.close())
        self._loop.close()
