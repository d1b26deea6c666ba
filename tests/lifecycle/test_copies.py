"""What can be pickled and copied, and what cannot: every public class is one or the other."""

import copy
import pickle
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from enum import Enum
from functools import partial
from typing import Any

import msgspec
import pytest
import zmq

import engine
import transport
from engine import (
    CleanupGroup,
    Client,
    CompletionPort,
    Context,
    Discovery,
    EngineError,
    Environment,
    Event,
    Executor,
    InPipe,
    Interface,
    Io,
    Management,
    Mutex,
    OutPipe,
    Pipe,
    Presence,
    RemoteFault,
    Semaphore,
    Server,
    ServerCall,
    ThreadPool,
    Timer,
    Wait,
    WaitableTimer,
    WaitPacket,
    WaitResult,
    Work,
    current_call,
    current_callback,
    manager,
    operation,
    register_wait,
)
from engine.testing import LIMIT
from transport import (
    Curve,
    Endpoint,
    LinkOptions,
    OverlappedDescriptor,
    OverlappedSocket,
    bind,
    connect,
    errors,
    frames,
)
from transport.errors import RemoteProtocolError, VersionMismatch

PUBLIC = {
    f"{module.__name__}.{name}": kind
    for module in (engine, transport)
    for name in module.__all__
    if isinstance(kind := getattr(module, name), type)
}
# What messages are made of, and who did what wrong.
PUBLIC |= {
    f"{module.__name__}.{name}": kind
    for module in (errors, frames)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and kind.__module__ == module.__name__
}

WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": partial(lambda protocol, value: pickle.loads(pickle.dumps(value, protocol)), protocol)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


class Kept(Interface, id="tests.copies.Kept", version=(1, 0)):
    """Operations that show the server's side."""

    @operation
    def open(self) -> Context[int]:
        """A context handle."""

    @operation
    def pull(self, numbers: InPipe[int] = ...) -> int:
        """Has a pipe."""

    @operation
    def push(self, numbers: OutPipe[int] = ...) -> int:
        """Has one the other way."""


class Keeping:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.arrived = engine.Semaphore(0, 100)

    def open(self) -> Context[int]:
        """Make a handle."""
        self.kept.append(current_call())
        raise NotImplementedError

    @manager
    def push(self, call: ServerCall, numbers: "Pipe[int]") -> None:
        """Keep the call."""
        self.kept.append(call)

    @manager
    def pull(self, call: ServerCall, numbers: "Pipe[int]") -> None:
        """Keep the call and its pipe."""
        self.kept.extend([call, numbers])
        self.arrived.release()


@pytest.fixture(scope="module")
def identities() -> Iterator[dict[str, Any]]:
    """One of each thing that is itself and nothing else, by a name to call it."""
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        enter = stack.enter_context
        event, port, pool = enter(Event()), enter(CompletionPort()), enter(ThreadPool(1))
        environment = Environment(pool=pool)
        server = enter(Server("loopback://copies"))
        keeping = Keeping()
        stack.callback(server.close, 0)
        server.register(Kept, keeping)
        server.listen()
        client = enter(Client("loopback://copies"))
        binding = client.bind(Kept)
        piped = binding.pull.begin()
        assert keeping.arrived.wait(LIMIT)
        ours, theirs = map(enter, socket.socketpair())
        source = enter(OverlappedDescriptor(ours))
        other, another = (enter(OverlappedDescriptor(each)) for each in map(enter, socket.socketpair()))
        pair = enter(OverlappedSocket(enter(enter(zmq.Context()).socket(zmq.PAIR))))
        link = bind("loopback://copies-link")
        stack.callback(link.close)
        far = connect("loopback://copies-link")
        stack.callback(far.close)
        callbacks: list[Any] = []
        pool.submit(lambda: (callbacks.append(current_callback()), event.set()))
        assert event.wait(LIMIT)
        executor = enter(Executor(1))
        timer = WaitableTimer()
        stack.callback(timer.close)
        found.update(
            event=event, mutex=Mutex(), semaphore=Semaphore(0, 1), waitable_timer=timer, port=port,
            wait_packet=WaitPacket(), registered_wait=register_wait(event, lambda status: None), pool=pool,
            work=enter(Work(int, environment=environment)), timer=enter(Timer(int, environment=environment)),
            wait=enter(Wait(int, environment=environment)), group=CleanupGroup(), executor=executor,
            discovery=Discovery(print), session=client.session(), presence=Presence(engine.Address("tcp://127.0.0.1:1")),
            future=executor.submit(int), callback=callbacks[0], server=server,
            client=client, binding=client.bind("by name"), typed=binding,
            operation=binding.open, piped_operation=binding.pull, stream=binding.push.stream(), call=piped,
            server_call=keeping.kept[0],
            pipe=keeping.kept[1], clients_pipe=piped.pipe("numbers"), source=source, zmq_source=pair,
            read=source.begin_read(1), write=another.begin_write(b"x"), receive=pair.begin_recv(),
            io=enter(Io(other, lambda *_: None, environment=environment)), link=link, client_link=far,
            template=port.packet(1), management=client.bind(Management), context=Context(b"0" * 16),
        )  # fmt: skip
        yield found


NAMES = (
    "event", "mutex", "semaphore", "waitable_timer", "port", "wait_packet", "registered_wait", "pool", "work", "timer",
    "wait", "group", "executor", "future", "callback", "server", "client", "binding", "operation", "piped_operation",
    "stream", "call", "server_call", "pipe", "clients_pipe", "source", "zmq_source", "read", "write", "receive", "io",
    "link", "client_link", "context",
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_what_has_an_identity(identities: dict[str, Any], name: str, way: str) -> None:
    """It is refused by a `TypeError` that names it and says what to do, as it is pickled and not at a later use."""
    with pytest.raises(TypeError, match=rf"^an? {type(identities[name]).__name__} cannot be pickled or copied.*: \w+"):
        WAYS[way](identities[name])


# Instances of what checks its fields.
VALUES: dict[str, Any] = {
    "transport.Endpoint": Endpoint.parse("tcp://127.0.0.1:5555"),
    "transport.LinkOptions": LinkOptions(max_queued=3),
    "transport.Curve": Curve(*Curve.new_keys(), "c" * 40, allowed=frozenset({"d" * 40})),
    "engine.WaitResult": WaitResult(3, True),
    "engine.Address": engine.Address("tcp://127.0.0.1:5555", "near", 2.0),
    "engine.SystemClock": engine.SystemClock(),
    "engine.blocking": engine.blocking(),
}

STRUCTS = {
    name: kind
    for name, kind in PUBLIC.items()
    if issubclass(kind, msgspec.Struct) and name not in VALUES and name not in (
        "engine.Call", "engine.ServerCall", "engine.Context", "engine.PacketTemplate",
    )
}  # fmt: skip


def _fields(value: Any) -> Any:
    return msgspec.structs.asdict(value) if isinstance(value, msgspec.Struct) else getattr(value, "__dict__", None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*VALUES, *STRUCTS])
def test_values(name: str, way: str) -> None:
    """A value is copied and pickled, with all it holds."""
    if name in VALUES:
        value = VALUES[name]
    else:
        fields = STRUCTS[name].__struct_fields__
        value = STRUCTS[name](**{field: number for number, field in enumerate(fields)})
    found = WAYS[way](value)
    assert type(found) is type(value)
    assert _fields(found) == _fields(value)
    assert repr(found) == repr(value) or "object at" in repr(value)


@pytest.mark.parametrize("way", WAYS)
def test_members(way: str) -> None:
    """Members of enumerations and the mark for "no value given" stay the same objects."""
    members = [member for kind in PUBLIC.values() if issubclass(kind, Enum) for member in kind]
    for member in [*members, engine.UNSET]:
        assert WAYS[way](member) is member


def test_bindings(identities: dict[str, Any]) -> None:
    """A binding of a contract is its operations: a copy has the same ones, and they cannot be pickled."""
    for name in ("typed", "management"):
        binding = identities[name]
        assert vars(copy.copy(binding)) == vars(binding)
        for way in WAYS:
            if way != "copy":
                with pytest.raises(TypeError, match="a BoundOperation cannot be pickled or copied.*: bind anew"):
                    WAYS[way](binding)


def test_templates(identities: dict[str, Any]) -> None:
    """A packet's template has its port: it can be copied, but not pickled or copied deeply."""
    template = identities["template"]
    found = copy.copy(template)
    assert _fields(found) == _fields(template)
    for way in WAYS:
        if way != "copy":
            with pytest.raises(TypeError, match="a CompletionPort cannot be pickled or copied"):
                WAYS[way](template)


class Own(EngineError):
    """A user's, whose arguments are not its text."""

    def __init__(self, number: int, *, why: str) -> None:
        super().__init__(f"{number} went wrong: {why}", status=number)
        self.why = why


ERRORS: dict[str, Any] = {
    "engine.RemoteFault": RemoteFault("it broke", type_name="ValueError", traceback="...", data={"a": 1}, status=77),
    "transport.RemoteProtocolError": RemoteProtocolError("out of turn"),
    "transport.VersionMismatch": VersionMismatch(3),
    "own": Own(5, why="of its own"),
    **{
        f"{name} with {'a' if status else 'no'} status": kind("what happened", status=status)
        for name, kind in PUBLIC.items()
        if issubclass(kind, EngineError) and kind not in (RemoteFault, RemoteProtocolError, VersionMismatch)
        for status in (None, 4711)
    },
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str, way: str) -> None:
    """Every error keeps its type, text, status, fields and notes."""
    error = ERRORS[name]
    if not hasattr(error, "__notes__"):
        error.add_note("a note")
    found = WAYS[way](error)
    assert type(found) is type(error)
    assert (str(found), repr(found), found.args) == (str(error), repr(error), error.args)
    assert vars(found) == vars(error)
    assert found.status == error.status


# Public classes without instances to copy, each with the reason.
NEITHER = {
    "engine.Interface": "contracts are classes; what a client binds is a Binding",
    "engine.Health": "as the one before",
    "engine.Reflection": "likewise",
    "engine.Operation": "belongs to a contract",
    "engine.Clock": "a protocol",
    "engine.PacketSink": "a protocol",
    "engine.Announcer": "a protocol",
    "engine.Resolver": "a protocol",
    "engine.PortSource": "a protocol",
    "transport.Keys": "a protocol",
    "transport.TransportOptions": "for type checkers",
    "transport.Link": "a protocol",
    "transport.Receiver": "a protocol",
    "engine.InPipe": "an annotation",
    "engine.OutPipe": "as above",
    "engine.InOutPipe": "as above",
    "transport.SendOperation": "as those that receive",
}


def test_no_class_is_forgotten(identities: dict[str, Any]) -> None:
    """Each public class is tried above, itself or by a class below it, or has a reason not to be."""
    tried = {kind for value in identities.values() for kind in type(value).__mro__}
    left = {
        name
        for name, kind in PUBLIC.items()
        if kind not in tried
        and not issubclass(kind, (BaseException, Enum))
        and name not in {*VALUES, *STRUCTS, *NEITHER}
    }
    assert left == set()
