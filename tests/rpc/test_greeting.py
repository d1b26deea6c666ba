"""What client and server say of themselves as they meet: PROTOCOL.md, "HELLO and WELCOME"."""

import tomllib
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Client, Server
from engine.testing import wait_until
from transport.frames import LIBRARY, Hello, Reject, Welcome

from .helpers import RawClient, RawServer

ROOT = Path(__file__).resolve().parents[2]

said = attrgetter("library", "heartbeat")


class TestGreeting:
    """Both sides name their implementation and the pings that they send."""

    @pytest.mark.parametrize("heartbeat", [5.0, 0.5, 0])
    def test_of_a_server(self, local: Callable[..., Server], heartbeat: float) -> None:
        """A server names the library with its version, and the seconds between its pings, 0 for none."""
        server = local(heartbeat=heartbeat)
        with RawClient(server.endpoint, greet=False) as raw:
            raw.say(Hello(b"\1" * 16))
            message = raw.hear()
            assert isinstance(message, Welcome)
            assert said(message) == (LIBRARY, heartbeat)

    @pytest.mark.parametrize("options", [{}, {"heartbeat": 0.5}, {"heartbeat": 0}])
    def test_of_a_client(self, endpoint: str, options: dict[str, Any]) -> None:
        """So does a client; every 5 seconds is the default."""
        with RawServer(endpoint) as raw, Client(endpoint, **options) as client:
            client.bind("any").call.begin()
            message = raw.hear()
            assert isinstance(message, Hello)
            assert said(message) == (LIBRARY, options.get("heartbeat", 5.0))

    def test_the_version(self) -> None:
        """The version that is told, and that `engine.__version__` tells, is that of the project."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert LIBRARY == f"{project['name']} {project['version']}"
        assert engine.__version__ == project["version"]

    @pytest.mark.parametrize("association", [b"", b"\1" * 15, b"\1" * 17])
    def test_an_association_of_another_length(self, local: Callable[..., Server], association: bytes) -> None:
        """A greeting with an association of other than 16 bytes is garbage: it is refused, and another may come."""
        server = local()
        with RawClient(server.endpoint, greet=False) as raw:
            raw.say(Hello(association))
            answer = raw.hear()
            assert isinstance(answer, Reject) and "16" in answer.reason
            raw.greet()
        assert server.statistics().garbage_received == 1

    @pytest.mark.parametrize("instance", [b"", b"\1" * 15, b"\1" * 17])
    def test_an_instance_of_another_length(self, endpoint: str, instance: bytes) -> None:
        """Nor is a server's greeting with such an instance taken for one."""
        with RawServer(endpoint) as raw, Client(endpoint) as client:
            call = client.bind("any").call.begin()
            assert isinstance(raw.hear(), Hello)
            raw.say(Welcome(instance))
            raw.say(Welcome(b"\2" * 16))
            wait_until(lambda: not call.done() and client.statistics().connection == "connected")
            assert client.statistics().garbage_received == 1
