"""Foreign code at a server and at a client: whatever it raises, each call has one outcome, and everybody lives on.

Each place where the library runs code that is not its own is a row of a table, and each way to fail is tried in it.
"""

import dataclasses
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest

from engine import (
    AccessDenied,
    BadStubData,
    CallAttributes,
    CallError,
    Client,
    Context,
    EventKind,
    Interface,
    Management,
    OutPipe,
    RemoteFault,
    Server,
    ServerCall,
    current_call,
    manager,
    operation,
)
from engine.testing import LIMIT, wait_until

from ..hostile import HOSTILE, RAISED

# What is raised, and how the client may be told of it.
Error = Callable[[], BaseException]
WAYS: dict[str, Error] = {
    **{kind.__name__: (lambda kind=kind: kind("raised")) for kind in RAISED},  # type: ignore[misc]  # of no type
    **{make.__name__: (lambda make=make: make(SystemExit)) for make in HOSTILE},  # type: ignore[misc]  # likewise
}

# Set by each test: what the foreign code raises now.
_raised: Error = ValueError


def fail() -> Any:
    """Be foreign code."""
    raise _raised()


class Checked(msgspec.Struct):
    """An argument whose type has a check of its own; on the way back it passes."""

    good: bool

    def __post_init__(self) -> None:
        if not self.good:
            fail()


@dataclasses.dataclass
class Lazy:
    """A result one part of which is made when it is encoded."""

    part: int = 0


Lazy.part = property(lambda self: fail(), lambda self, value: None)  # type: ignore[assignment]  # a field to msgspec


class Places(Interface, id="tests.Places"):
    """Operations that fail in one place each."""

    def routine(self) -> None: ...
    def managed(self) -> None: ...
    def task(self) -> None: ...
    def argument(self, value: Checked) -> None: ...
    def encoder(self) -> Any: ...
    def completed(self) -> Any: ...
    def closing(self) -> int: ...
    def nothing(self) -> int: ...
    def open(self) -> Context[object]: ...

    @operation
    def generator(self, items: OutPipe[int]) -> None:
        """Push, and fail."""
        raise NotImplementedError

    @operation
    def unwilling(self, items: OutPipe[int]) -> None:
        """Push, fail, and fail again when it is closed."""
        raise NotImplementedError

    @operation
    def source(self, items: OutPipe[int]) -> None:
        """Push from a task, and fail."""
        raise NotImplementedError

    @operation
    def elements(self, items: OutPipe[Any]) -> None:
        """Push what cannot be encoded."""
        raise NotImplementedError


class OneWay(Interface, id="tests.Places"):
    """The same to somebody who wants no answer."""

    @operation(one_way=True)
    def routine(self) -> None:
        """Fail."""
        raise NotImplementedError


class Failing:
    """Serves `Places`."""

    def __init__(self) -> None:
        self.run_down = threading.Event()

    def routine(self) -> None:
        fail()

    @manager
    def managed(self, call: ServerCall) -> None:
        fail()

    async def task(self) -> None:
        fail()

    def argument(self, value: Checked) -> None:
        raise AssertionError("it cannot be read")

    def encoder(self) -> Any:
        return Lazy()

    @manager
    def completed(self, call: ServerCall) -> None:
        call.complete(Lazy())

    def closing(self) -> int:
        current_call().subscribe(EventKind.CLIENT_DISCONNECT, lambda call, kind: fail())
        return 1

    def nothing(self) -> int:
        return 7

    def open(self) -> Context[object]:
        def rundown(state: object) -> None:
            self.run_down.set()
            fail()

        return current_call().open_context(object(), rundown)

    def generator(self, items: Any) -> Iterator[int]:
        yield 1
        fail()

    def unwilling(self, items: Any) -> Iterator[int]:
        try:
            yield 1
            fail()
        finally:
            fail()

    async def source(self, items: Any) -> AsyncIterator[int]:
        yield 1
        fail()

    def elements(self, items: Any) -> Iterator[Any]:
        yield Lazy()


# Where foreign code runs for a call, how it is called, and what becomes of the call.
SERVED: dict[str, tuple[Callable[[Client], object], type[CallError]]] = {
    "routine": (lambda client: client.bind(Places).routine.begin(), RemoteFault),
    "manager": (lambda client: client.bind(Places).managed.begin(), RemoteFault),
    "task": (lambda client: client.bind(Places).task.begin(), RemoteFault),
    "argument": (lambda client: client.bind("tests.Places").argument.begin({"good": False}), BadStubData),
    "encoder": (lambda client: client.bind(Places).encoder.begin(), BadStubData),
    "completed": (lambda client: client.bind(Places).completed.begin(), BadStubData),
    "generator": (lambda client: client.bind(Places).generator.stream(), RemoteFault),
    "unwilling": (lambda client: client.bind(Places).unwilling.stream(), RemoteFault),
    "asynchronous generator": (lambda client: client.bind(Places).source.stream(), RemoteFault),
    "elements": (lambda client: client.bind(Places).elements.stream(), BadStubData),
}


def outcome(begun: Any) -> CallError:
    """Return how a call, or a stream, ended."""
    with pytest.raises(CallError) as raised:
        begun.result(LIMIT) if hasattr(begun, "complete") else list(begun)
    return raised.value


def check_drained(server: Server, client: Client) -> None:
    """The server lives, nothing is open, and a stop drains."""
    assert client.bind(Places).nothing(timeout=LIMIT) == 7
    wait_until(lambda: server.statistics().active == 0)
    server.stop()
    assert server.wait(LIMIT)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What foreign code raises in this test."""
    monkeypatch.setitem(globals(), "_raised", WAYS[request.param])
    return str(request.param)


class TestAServer:
    """Foreign code that a server runs."""

    @pytest.mark.parametrize("place", SERVED)
    def test_a_call(
        self, way: str, place: str, servers: Callable[..., Server], clients: Callable[..., Client], endpoint: str
    ) -> None:
        """The call is answered once, with the status of the place where its code failed, and the server drains."""
        server = servers(endpoint, tracebacks=True)
        server.register(Places, Failing())
        server.listen()
        client = clients(server.endpoint)
        begin, status = SERVED[place]
        error = outcome(begin(client))
        if way == "CancelledError" and place in ("task", "asynchronous generator"):
            assert error.status == 1818  # What a task ends with that was cancelled.
        else:
            assert type(error) is status
        check_drained(server, client)

    @pytest.mark.parametrize("place", ["security", "authorize"])
    def test_who_may_call(
        self, way: str, place: str, servers: Callable[..., Server], clients: Callable[..., Client], endpoint: str
    ) -> None:
        """A callback that fails to say who may call refuses: 5."""

        def refuse(attributes: CallAttributes) -> bool:
            return bool(fail())

        server = servers(endpoint, authorize=refuse)
        server.register(Places, Failing())
        server.register("guarded", Failing(), security=refuse)
        server.listen()
        client = clients(server.endpoint)
        binding: Any = client.bind("guarded") if place == "security" else client.bind(Management)
        asked = binding.nothing if place == "security" else binding.statistics
        assert type(outcome(asked.begin())) is AccessDenied
        check_drained(server, client)

    @pytest.mark.parametrize("one_way", [False, True])
    def test_with_options(
        self, way: str, one_way: bool, servers: Callable[..., Server], clients: Callable[..., Client], endpoint: str
    ) -> None:
        """So it is for calls with options, and calls that nobody hears of again."""
        server = servers(endpoint)
        server.register(Places, Failing())
        server.listen()
        client = clients(server.endpoint)
        if one_way:
            client.bind(OneWay).routine()
        else:
            assert type(outcome(client.bind(Places).routine.begin(timeout=LIMIT))) is RemoteFault
        check_drained(server, client)

    def test_a_rundown(
        self, way: str, servers: Callable[..., Server], clients: Callable[..., Client], endpoint: str
    ) -> None:
        """A rundown routine that fails harms nobody."""
        server, routines = servers(endpoint), Failing()
        server.register(Places, routines)
        server.listen()
        with Client(server.endpoint) as leaving:
            leaving.bind(Places).open()
        assert routines.run_down.wait(LIMIT)
        check_drained(server, clients(server.endpoint))

    def test_a_server_that_closes(
        self, way: str, servers: Callable[..., Server], clients: Callable[..., Client], endpoint: str
    ) -> None:
        """Nor does one that runs as the server is closed."""
        server, routines = servers(endpoint), Failing()
        server.register(Places, routines)
        server.listen()
        clients(server.endpoint).bind(Places).open()
        server.close()
        assert routines.run_down.wait(LIMIT)

