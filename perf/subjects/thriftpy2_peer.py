"""thriftpy2: Thrift's binary protocol over TCP, compiled with Cython.

It has no calls that are outstanding beside others on one connection, so several threads have a connection
each. One call at a time, it pays no thread between socket and caller, which any library on ZeroMQ does.
"""

from collections.abc import Sequence
from io import StringIO
from typing import Any

from perf.measure import ANSWER_TIMEOUT
from perf.streams import by_threads, free_port, host_and_port, needs, one_by_one
from perf.worker import Control

NOTE = "threaded server, 8 threads with a connection each"
THREADS = 8
CONTRACT = "service Echo { binary echo(1: binary data) }"


def missing() -> str | None:
    """It needs thriftpy2."""
    return needs("thriftpy2", "thriftpy2")


def contract() -> Any:
    """Return the compiled interface."""
    import thriftpy2

    return thriftpy2.load_fp(StringIO(CONTRACT), "perf_thrift")


def serve(settings: dict[str, Any], control: Control) -> None:
    """Serve echo."""
    from thriftpy2.rpc import make_server

    class Service:
        def echo(self, data: bytes) -> bytes:
            return data

    port = free_port()
    server = make_server(contract().Echo, Service(), "127.0.0.1", port, client_timeout=None)
    server.trans.listen()
    control.end_with_parent()
    control.ready(f"tcp://127.0.0.1:{port}")
    server.serve()


class Client:
    """A connection for each thread."""

    def __init__(self, endpoint: str) -> None:
        from thriftpy2.rpc import make_client

        host, port = host_and_port(endpoint)
        self._clients = [
            make_client(contract().Echo, host, port, timeout=int(ANSWER_TIMEOUT * 1000)) for _ in range(THREADS)
        ]

    def one_by_one(self, payloads: Sequence[bytes]) -> list[int]:
        """The blocking call."""
        return one_by_one(self._clients[0].echo, payloads)

    def stream(self, payloads: Sequence[bytes], outstanding: int) -> None:
        """Threads."""
        by_threads([client.echo for client in self._clients], payloads)

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients:
            client.close()
