"""Services to call in processes of their own, and clients of them to kill."""

import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import Client, Server
from engine.testing import LIMIT

from ..helpers import new_endpoint
from .interfaces import Desk, Keeper, Order, Store, Watch

ROOT = Path(__file__).resolve().parents[3]


class Child:
    """A process that says one line when it is ready, and ends with its standard input."""

    def __init__(self, module: str, *args: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"tests.rpc.server.{module}", *args],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], LIMIT)
        self.said = self.process.stdout.readline().decode() if ready else ""
        assert self.said, "the child did not get ready"

    def kill(self) -> None:
        """Kill it as an operator does: no goodbye, no flushing."""
        self.process.kill()
        self.process.wait(LIMIT)

    def end(self) -> None:
        """Have it end in good order."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(LIMIT)
        finally:
            self.process.kill()
            self.process.wait(LIMIT)
            self.process.stdout.close()


class Bench:
    """A client of the service, and beside it another that looks at what the service holds."""

    def __init__(self, endpoint: str, **options: Any) -> None:
        self.endpoint = endpoint
        self.client = Client(endpoint, **options)
        self.aside = Client(endpoint)
        self.watch = self.client.bind(Watch)
        self.store = self.client.bind(Store)
        self.order = self.client.bind(Order)
        self.desk = self.aside.bind(Desk)
        self.keeper = self.aside.bind(Keeper)

    def held(self, key: str, **options: Any) -> Any:
        """Begin a call and return it when its routine has it."""
        call = self.watch.hold.begin(key, **options)
        self.desk.arrived(key)
        return call

    def close(self) -> None:
        self.client.close()
        self.aside.close()


@pytest.fixture(scope="session")
def services(folder: Path) -> Iterator[Callable[[str], str]]:
    """A function that returns the endpoint of the service in another process, one for each transport."""
    running: dict[str, tuple[Child, str]] = {}

    def find(transport: str) -> str:
        if transport not in running:
            child = Child("service", new_endpoint(transport, folder))
            running[transport] = child, json.loads(child.said)[0]
        return running[transport][1]

    yield find
    for child, _ in running.values():
        child.end()


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


@pytest.fixture
def bench(benches: Callable[..., Bench], services: Callable[[str], str]) -> Bench:
    """A client of the service in another process, over ipc."""
    return benches(services("ipc"))


@pytest.fixture(params=("tcp", "ipc"))
def any_bench(request: pytest.FixtureRequest, benches: Callable[..., Bench], services: Callable[[str], str]) -> Bench:
    """The same, over tcp and over ipc."""
    return benches(services(request.param))


@pytest.fixture
def caller() -> Iterator[Callable[..., Child]]:
    """A function that starts a client in a process of its own."""
    started: list[Child] = []

    def start(*args: str) -> Child:
        started.append(Child("caller", *args))
        return started[-1]

    yield start
    for child in started:
        child.end()


@pytest.fixture
def servers() -> Iterator[Callable[..., Server]]:
    """A function that makes a server in this process that does not listen yet; they are closed with the test."""
    made: list[Server] = []

    def make(*endpoints: str, **options: Any) -> Server:
        made.append(Server(*endpoints, **options))
        return made[-1]

    yield make
    for each in made:
        each.close(0)


@pytest.fixture
def clients() -> Iterator[Callable[..., Client]]:
    """A function that makes a client; they are closed with the test."""
    made: list[Client] = []

    def make(endpoint: str, **options: Any) -> Client:
        made.append(Client(endpoint, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
