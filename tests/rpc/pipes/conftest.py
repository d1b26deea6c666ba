"""A service of pipes: in a process of its own, and in this one."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine import Client

from ..helpers import Service, factory, new_endpoint
from .interfaces import Hand, Streams
from .service import make_server

SERVICE = "tests.rpc.pipes.service"
TRANSPORTS = ("tcp", "ipc", "native+ipc", "loopback")


class Piped:
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
def piped_service(service: Callable[..., Service]) -> Callable[..., Service]:
    """A function that starts a service of the test's own in another process."""
    return lambda **options: service(module=SERVICE, **options)


@pytest.fixture
def piped_clients() -> Iterator[Callable[..., Piped]]:
    """A function that makes a client with pipes of an endpoint; they are closed with the test."""
    with factory(Piped) as make:
        yield make


@pytest.fixture(params=TRANSPORTS)
def piped(request: pytest.FixtureRequest, piped_clients: Callable[..., Piped]) -> Iterator[Piped]:
    """A client on each transport: the service is in another process where the transport reaches one."""
    if request.param == "loopback":
        server, board = make_server(new_endpoint("loopback", request.getfixturevalue("folder")))
        made = piped_clients(server.endpoint)
        yield made
        made.close()
        server.close(0)
        board.close()
    else:
        yield piped_clients(request.getfixturevalue("services")(request.param, SERVICE))


@pytest.fixture
def far(piped_clients: Callable[..., Piped], services: Callable[..., str]) -> Piped:
    """A client of a service in another process, over ipc."""
    return piped_clients(services("ipc", SERVICE))
