"""gRPC's synchronous API: a server with 4 threads, a client that keeps futures.

What favours it: no protocol buffers; the bytes go through as they are.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from perf.measure import ANSWER_TIMEOUT
from perf.streams import by_handles, needs, one_by_one
from perf.worker import Control

NOTE = "4 threads, futures, plain bytes"
METHOD = "/perf.Echo/echo"


def missing() -> str | None:
    """It needs grpcio."""
    return needs("grpc", "grpcio")


def serve(settings: dict[str, Any], control: Control) -> None:
    """Serve echo on a port that the system chooses."""
    import grpc

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # a library without types
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: request)

    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    control.ready(f"tcp://127.0.0.1:{port}")
    control.wait_for_end()
    server.stop(0)


class Client:
    """One channel."""

    def __init__(self, endpoint: str) -> None:
        import grpc

        self._channel = grpc.insecure_channel(endpoint.removeprefix("tcp://"))
        self._echo = self._channel.unary_unary(METHOD)

    def one_by_one(self, payloads: Sequence[bytes]) -> list[int]:
        """The blocking call."""
        return one_by_one(lambda payload: self._echo(payload, timeout=ANSWER_TIMEOUT), payloads)

    def stream(self, payloads: Sequence[bytes], outstanding: int) -> None:
        """Futures."""
        by_handles(self._echo.future, lambda future: future.result(ANSWER_TIMEOUT), payloads, outstanding)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()
