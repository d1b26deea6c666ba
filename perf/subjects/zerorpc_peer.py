"""zerorpc: ZeroMQ and MessagePack under gevent.

What favours it: nothing but its own asynchronous calls.
"""

from collections.abc import Sequence
from typing import Any

from perf.measure import ANSWER_TIMEOUT
from perf.streams import by_handles, free_port, needs, one_by_one
from perf.worker import Control

NOTE = "gevent, asynchronous results"


def missing() -> str | None:
    """It needs zerorpc."""
    return needs("zerorpc", "zerorpc")


def serve(settings: dict[str, Any], control: Control) -> None:
    """Serve echo."""
    import zerorpc

    class Service:
        def echo(self, data: bytes) -> bytes:
            return data

    endpoint = f"tcp://127.0.0.1:{free_port()}"
    server = zerorpc.Server(Service(), heartbeat=None)
    server.bind(endpoint)
    control.end_with_parent()
    control.ready(endpoint)
    server.run()


class Client:
    """One client."""

    def __init__(self, endpoint: str) -> None:
        import zerorpc

        self._client = zerorpc.Client(endpoint, timeout=ANSWER_TIMEOUT, heartbeat=None)

    def one_by_one(self, payloads: Sequence[bytes]) -> list[int]:
        """The blocking call."""
        return one_by_one(self._client.echo, payloads)

    def stream(self, payloads: Sequence[bytes], outstanding: int) -> None:
        """Asynchronous results."""
        echo = self._client.echo
        by_handles(
            lambda payload: echo(payload, **{"async": True}),
            lambda result: result.get(timeout=ANSWER_TIMEOUT),
            payloads,
            outstanding,
        )

    def close(self) -> None:
        """Close the client."""
        self._client.close()
