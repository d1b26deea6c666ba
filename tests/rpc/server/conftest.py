"""A service whose routines, handles and order can be watched, in another process, and clients of it to kill."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine import Client

from ..helpers import Child, factory
from .interfaces import Desk, Keeper, Order, Store, Watch

SERVICE = "tests.rpc.server.service"


class Watched:
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


@pytest.fixture
def watched_clients() -> Iterator[Callable[..., Watched]]:
    """A function that makes a watched client of an endpoint; they are closed with the test."""
    with factory(Watched) as make:
        yield make


@pytest.fixture
def watched(watched_clients: Callable[..., Watched], services: Callable[..., str]) -> Watched:
    """A client of the service in another process, over ipc."""
    return watched_clients(services("ipc", SERVICE))


@pytest.fixture(params=("tcp", "ipc"))
def any_watched(
    request: pytest.FixtureRequest, watched_clients: Callable[..., Watched], services: Callable[..., str]
) -> Watched:
    """The same, over tcp and over ipc."""
    return watched_clients(services(request.param, SERVICE))


@pytest.fixture
def caller(children: Callable[..., Child]) -> Callable[..., Child]:
    """A function that starts a client in a process of its own."""
    return lambda *arguments: children("tests.rpc.server.caller", *arguments)
