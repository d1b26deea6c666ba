"""What a user finds on the objects that are used most: a new name there is a decision."""

import pytest

import transport
from engine import Client, CompletionPort, Server

CLIENT = "aclose bind close closed endpoint statistics"
SERVER = (
    "aclose close closed endpoint endpoints listen listening name pool register request_stop statistics stop "
    "unregister wait wait_async"
)
# `deliver` is for the sources of a program's own.
PORT = "associate associate_wait close closed concurrency deliver get get_many packet post statistics"
# `close`, `send` and `throw` make it steppable as a coroutine, for `asyncio.create_task`.
CALL = (
    "cancel close complete done event initialize pipe pipes result send state status throw trailing_metadata "
    "user_data wait"
)
# What users of links, endpoints, keys and overlapped sources call; messages and their encoding are not among it.
TRANSPORT = """
    bind connect Link LinkOptions Receiver PeerInfo Keys Buffer Endpoint Curve
    TransportError EndpointError LinkClosed LinkForked PayloadTooLarge PeerLost
    OverlappedError InvalidOperation OperationFailed OperationNotFound OperationPending SourceClosed SourceForked
    TooManyOperations
    OverlappedSource OverlappedSocket OverlappedDescriptor SourceStatistics
    SKIP_PORT_ON_SUCCESS SKIP_SET_EVENT_ON_HANDLE
    OverlappedOperation ReceiveOperation SendOperation ReadOperation WriteOperation
"""


def names_of(thing: object) -> list[str]:
    """Return what completion offers."""
    return [name for name in dir(thing) if not name.startswith("_")]


@pytest.fixture
def server() -> Server:
    """A server that listens."""
    made = Server("loopback://public-names")
    made.register("Things", Things())
    made.listen()
    return made


class Things:
    """What is served."""

    def nothing(self) -> None:
        """Answer."""


def test_names(server: Server) -> None:
    """A client, a server, a port and a call show what their users call, and nothing of what the library calls."""
    with server, Client(server.endpoint) as client, CompletionPort() as port:
        call = client.bind("Things").nothing.begin()
        call.result(10)
        assert names_of(client) == CLIENT.split()
        assert names_of(server) == SERVER.split()
        assert names_of(port) == PORT.split()
        assert names_of(call) == CALL.split()


def test_the_transport() -> None:
    """The transport offers links, endpoints, keys, sources and their errors, and no parts of messages."""
    assert sorted(transport.__all__) == sorted(TRANSPORT.split())
