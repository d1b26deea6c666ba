"""Services to call: in processes of their own, and in this one, on each transport."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import Client, CompletionPort, Event, Server
from tests.lasting import lasting_threads

from .helpers import Bench, Child, Service, factory, new_endpoint
from .interfaces import Adder
from .service import Adding, make_server

TRANSPORTS = ("tcp", "ipc", "native+tcp", "native+ipc", "tls", "inproc", "loopback")
_numbers = itertools.count()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for ipc endpoints, with a short name: theirs are bounded."""
    return tmp_path_factory.mktemp("rpc")


@pytest.fixture(scope="package", autouse=True)
def threads_of_the_process() -> Iterator[None]:
    """Threads that outlast a test start before the tests count threads, and end with the last of them."""
    with lasting_threads():
        yield


@pytest.fixture(scope="session")
def services(folder: Path) -> Iterator[Callable[..., str]]:
    """A function that returns the endpoint of a service in another process, one for each transport and program."""
    running: dict[tuple[str, str], Service] = {}
    with factory(Service) as start:

        def find(transport: str, module: str = "tests.rpc.service") -> str:
            if (transport, module) not in running:
                running[transport, module] = start(new_endpoint(transport, folder), module=module)
            return running[transport, module].endpoint

        yield find


@pytest.fixture
def service(folder: Path) -> Iterator[Callable[..., Service]]:
    """A function that starts a service of the test's own in another process."""
    with factory(Service) as start:
        yield lambda *endpoints, **options: start(*(endpoints or (new_endpoint("ipc", folder),)), **options)


@pytest.fixture
def children() -> Iterator[Callable[..., Child]]:
    """A function that starts a program in a process of its own; they end with the test."""
    with factory(Child) as start:
        yield start


@pytest.fixture
def endpoint(folder: Path) -> str:
    """An ipc endpoint that nobody uses."""
    return new_endpoint("ipc", folder)


@pytest.fixture
def server(endpoint: str) -> Iterator[Server]:
    """A server of `Adder` in this process that does not listen yet."""
    with Server(endpoint) as made:
        made.register(Adder, Adding())
        yield made


@pytest.fixture
def local(folder: Path) -> Iterator[Callable[..., Server]]:
    """A function that makes a listening server of the probe in this process."""
    running: list[Server] = []

    def start(*endpoints: str, **options: Any) -> Server:
        server, _ = make_server(*(endpoints or (new_endpoint("ipc", folder),)), **options)
        running.append(server)
        server.listen()
        return server

    yield start
    for each in running:
        each.close(0)


@pytest.fixture
def servers() -> Iterator[Callable[..., Server]]:
    """A function that makes a server in this process that does not listen yet; they are closed with the test, and wait
    for no call that it has left open.
    """
    with factory(Server, 0.0) as make:
        yield make


@pytest.fixture
def clients() -> Iterator[Callable[..., Client]]:
    """A function that makes a client; they are closed with the test."""
    with factory(Client) as make:
        yield make


@pytest.fixture
def benches() -> Iterator[Callable[..., Bench]]:
    """A function that makes a bench for an endpoint; they are closed with the test."""
    with factory(Bench) as make:
        yield make


@pytest.fixture
def bench(benches: Callable[..., Bench], services: Callable[..., str]) -> Bench:
    """A client of a service in another process, over ipc."""
    return benches(services("ipc"))


@pytest.fixture(params=TRANSPORTS)
def any_bench(request: pytest.FixtureRequest, benches: Callable[..., Bench]) -> Bench:
    """A client on each transport: the service is in another process where the transport reaches one."""
    if request.param not in ("inproc", "loopback"):
        endpoint = request.getfixturevalue("services")(request.param)
    else:
        server = request.getfixturevalue("local")(new_endpoint(request.param, request.getfixturevalue("folder")))
        endpoint = server.endpoint
    return benches(endpoint)


@pytest.fixture
def port() -> Iterator[CompletionPort]:
    """A port to be told through."""
    with CompletionPort() as made:
        yield made


@pytest.fixture
def events() -> Iterator[Callable[..., Event]]:
    """A function that makes an event; they are closed with the test."""
    with factory(Event) as make:
        yield make


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A key for a held call that no other test uses."""
    return f"{request.node.name}-{next(_numbers)}"
