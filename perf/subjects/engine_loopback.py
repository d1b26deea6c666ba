"""Us inside one process: client and server over the loopback link, without ZeroMQ.

What favours it: no second process, no socket, and one interpreter's lock, which nobody else wants.
"""

import os
from typing import Any

from engine import Server
from perf.subjects.engine import WORKERS, EchoService
from perf.subjects.engine import Client as PortClient
from perf.worker import Control

NOTE = "client and server in one process"


def missing() -> str | None:
    """We are always there."""
    return None


def serve(settings: dict[str, Any], control: Control) -> None:
    """Nothing to serve here: the server is in the client's process."""
    control.ready()
    control.wait_for_end()


class Client(PortClient):
    """A client, and its server."""

    def __init__(self, endpoint: str) -> None:
        self._server = Server(f"loopback://perf-{os.getpid()}", workers=WORKERS)
        self._server.register(self.contract, EchoService())
        self._server.listen()
        super().__init__(self._server.endpoint)

    def close(self) -> None:
        """Close both."""
        super().close()
        self._server.close()
