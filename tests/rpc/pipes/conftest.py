"""Services with pipes: in a process of their own, and in this one."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import Client
from engine.testing import LIMIT

from ..helpers import new_endpoint
from .interfaces import Hand, Streams
from .service import make_server

ROOT = Path(__file__).resolve().parents[3]
TRANSPORTS = ("tcp", "ipc", "loopback")


class Service:
    """The tests' service in a process of its own."""

    def __init__(self, endpoint: str, *options: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.rpc.pipes.service", endpoint, *map(str, options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.endpoint = self.process.stdout.readline().strip()

    def kill(self) -> None:
        """Kill the process as an operator does: no goodbye, no flushing."""
        self.process.kill()
        self.process.wait(LIMIT)

    def end(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.close()
            self.process.wait(LIMIT)
        except BrokenPipeError:
            pass
        finally:
            self.process.kill()
            self.process.wait(LIMIT)
            self.process.stdout.close()


class Bench:
    """A client under test and, beside it, one that works the server's ends by hand."""

    def __init__(self, endpoint: str, **options: Any) -> None:
        self.client = Client(endpoint, **options)
        self.streams = self.client.bind(Streams)
        self._aside = Client(endpoint)
        self.hand = self._aside.bind(Hand)
        self.aside = self._aside.bind(Streams)

    def held(self, name: str, key: str, **options: Any) -> Any:
        """Begin a call that the server keeps; return it when its routine has begun."""
        call = getattr(self.streams, name).begin(key, **options)
        self.hand.arrived(key)
        return call

    def close(self) -> None:
        self.client.close()
        self._aside.close()


@pytest.fixture
def service(folder: Path) -> Iterator[Callable[..., Service]]:
    """A function that starts a service of the test's own in another process."""
    running: list[Service] = []

    def start(*options: object) -> Service:
        running.append(Service(new_endpoint("ipc", folder), *options))
        return running[-1]

    yield start
    for each in running:
        each.end()


@pytest.fixture(scope="session")
def lasting(folder: Path) -> Iterator[Callable[[str], str]]:
    """A function that returns the endpoint of a service in another process, one for each transport."""
    running: dict[str, Service] = {}

    def find(transport: str) -> str:
        if transport not in running:
            running[transport] = Service(new_endpoint(transport, folder))
        return running[transport].endpoint

    yield find
    for each in running.values():
        each.end()


@pytest.fixture
def benches() -> Iterator[Callable[..., Bench]]:
    """A function that makes a bench for an endpoint; they are closed with the test."""
    made: list[Bench] = []

    def make(endpoint: str, **options: Any) -> Bench:
        made.append(Bench(endpoint, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(params=TRANSPORTS)
def bench(request: pytest.FixtureRequest, benches: Callable[..., Bench]) -> Iterator[Bench]:
    """A client on each transport: the service is in another process where the transport reaches one."""
    if request.param == "loopback":
        server, board = make_server(new_endpoint("loopback", request.getfixturevalue("folder")))
        bench = benches(server.endpoint)
        yield bench
        bench.close()
        server.close(0)
        board.close()
    else:
        yield benches(request.getfixturevalue("lasting")(request.param))


@pytest.fixture
def far(benches: Callable[..., Bench], lasting: Callable[[str], str]) -> Bench:
    """A client of a service in another process, over ipc."""
    return benches(lasting("ipc"))
