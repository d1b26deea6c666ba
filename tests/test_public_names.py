"""What a user finds on the objects that are used most: a new name there is a decision."""

import os

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
# `bind_port`, `bind_services`, `outstanding` and `bind_wait` are what a port, a pool and a wait call.
SOURCE = (
    "begin_read begin_write bind_port bind_services cancel cancel_own close closed detach exclusive modes outstanding "
    "set_completion_modes statistics"
)
OPERATION = "bind_wait cancel completed_synchronously done overlapped result source status transferred"
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


def test_overlapped_sources() -> None:
    """A source and its operations show what their users call."""
    reader, writer = os.pipe()
    os.close(writer)
    with transport.OverlappedDescriptor(reader) as source:
        assert names_of(source) == SOURCE.split()
        assert names_of(source.begin_read()) == OPERATION.split()
