"""What a user finds on the objects that are used most: a new name there is a decision."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

import transport
from engine import (
    CallbackInstance,
    CleanupGroup,
    Client,
    CompletionPort,
    Event,
    Executor,
    Io,
    Mutex,
    PacketSink,
    Semaphore,
    Server,
    ThreadPool,
    Timer,
    Wait,
    WaitableTimer,
    WaitPacket,
    Work,
    register_wait,
)
from engine.testing import LIMIT

CLIENT = "aclose add_interceptor bind close closed endpoint members session statistics"
SERVER = (
    "aclose add_interceptor close closed disconnect drain drain_async endpoint endpoints health listen listening "
    "members name peers pool register request_stop statistics stop unregister wait wait_async"
)
# `deliver` is for the sources of a program's own.
PORT = "associate associate_wait close closed concurrency deliver get get_async get_many packet post statistics"
# `close`, `send` and `throw` make it steppable as a coroutine, for `asyncio.create_task`.
CALL = (
    "cancel close complete done event exception initialize pipe pipes result send state status throw trailing_metadata "
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
    bind connect Link LinkOptions TransportOptions Receiver PeerInfo Keys Buffer Endpoint Curve
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
        call.result(LIMIT)
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


class Quiet:
    """A source of packets that delivers none."""

    def bind_port(self, port: PacketSink, key: Any) -> None:
        """Be bound."""


WAITABLE = "is_signaled statistics wait wait_async"
OBJECT = "context pool statistics wait"

# By what makes one, with the names besides `close`.
CLOSED: dict[Callable[[], Any], str] = {
    Event: f"{WAITABLE} is_set manual_reset reset set",
    lambda: Semaphore(0, 1): f"{WAITABLE} acquire release",
    Mutex: f"{WAITABLE} abandoned acquire release",
    WaitableTimer: f"{WAITABLE} cancel set",
    ThreadPool: "closed name post set_maximum set_minimum slow statistics stop submit",
    CleanupGroup: "close_members",
    lambda: Work(int): f"{OBJECT} closed submit",
    lambda: Timer(int): f"{OBJECT} closed is_set set",
    lambda: Wait(int): f"{OBJECT} closed set",
    lambda: Io(Quiet(), int): f"{OBJECT} cancel closed io_statistics start",
}


@pytest.mark.parametrize("make", CLOSED)
def test_names_of_what_is_closed(make: Callable[[], Any]) -> None:
    """What threads wait on, a pool and its objects show what their users call."""
    with closing(make()) as thing:
        assert names_of(thing) == sorted([*CLOSED[make].split(), "close"])


def test_other_names() -> None:
    """So do an executor, a running callback, a wait packet and a registered wait."""
    with Executor(1) as executor, Event() as event:
        assert set(names_of(executor)) - set(names_of(ThreadPoolExecutor)) == {"statistics", "submit_at"}
        assert names_of(register_wait(event, print)) == "cancel status".split()
    assert names_of(WaitPacket()) == "already_signaled associate cancel".split()
    whens = [f"{verb}_when_returns" for verb in ("call", "leave", "release_mutex", "release_semaphore", "set_event")]
    assert names_of(CallbackInstance) == sorted([*whens, "context", "disassociate", "may_run_long", "source"])
