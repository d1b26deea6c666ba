"""RPyC: objects over a socket; asynchronous results over one connection."""

from collections.abc import Sequence
from typing import Any

from perf.measure import ANSWER_TIMEOUT
from perf.streams import by_handles, host_and_port, needs, one_by_one
from perf.worker import Control

NOTE = "threaded server, asynchronous results"


def missing() -> str | None:
    """It needs rpyc."""
    return needs("rpyc", "rpyc")


def serve(settings: dict[str, Any], control: Control) -> None:
    """Serve echo on a port that the system chooses."""
    import rpyc
    from rpyc.utils.server import ThreadedServer

    class Service(rpyc.Service):  # type: ignore[misc]  # a library without types
        def exposed_echo(self, data: bytes) -> bytes:
            return data

    server = ThreadedServer(Service, hostname="127.0.0.1", port=0)
    control.end_with_parent()
    control.ready(f"tcp://127.0.0.1:{server.port}")
    server.start()


class Client:
    """One connection."""

    def __init__(self, endpoint: str) -> None:
        import rpyc

        host, port = host_and_port(endpoint)
        self._connection = rpyc.connect(host, port, config={"sync_request_timeout": ANSWER_TIMEOUT})
        self._echo = self._connection.root.echo
        self._begin = rpyc.async_(self._echo)

    def one_by_one(self, payloads: Sequence[bytes]) -> list[int]:
        """The blocking call."""
        return one_by_one(self._echo, payloads)

    def stream(self, payloads: Sequence[bytes], outstanding: int) -> None:
        """Asynchronous results, whose value is waited for."""
        by_handles(self._begin, lambda result: result.value, payloads, outstanding)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
