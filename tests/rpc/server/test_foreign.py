"""Foreign code at a server and at a client: whatever it raises, each call has one outcome, and everybody lives on.

Each place where the library runs code that is not its own is a row of a table, and each way to fail is tried in it.
"""

import dataclasses
import threading
import traceback
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
    Event,
    EventKind,
    InPipe,
    Interface,
    InvalidArgumentType,
    InvalidAsyncHandle,
    Management,
    OutPipe,
    RemoteFault,
    Server,
    ServerCall,
    apc,
    current_call,
    manager,
    operation,
    sleep,
)
from engine.testing import LIMIT, wait_until

from ...hostile import HOSTILE, RAISED

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

    @operation
    def routine(self) -> None: ...
    @operation
    def managed(self) -> None: ...
    @operation
    def task(self) -> None: ...
    @operation
    def argument(self, value: Checked) -> None: ...
    @operation
    def encoder(self) -> Any: ...
    @operation
    def completed(self) -> Any: ...
    @operation
    def closing(self) -> int: ...
    @operation
    def nothing(self) -> int: ...
    @operation
    def open(self) -> Context[object]: ...
    @operation
    def unchecked(self) -> Any: ...

    @operation
    def fed(self, items: InPipe[int]) -> int:
        """Return how many were pushed."""

    @operation
    def generator(self, items: OutPipe[int] = ...) -> None:
        """Push, and fail."""

    @operation
    def unwilling(self, items: OutPipe[int] = ...) -> None:
        """Push, fail, and fail again when it is closed."""

    @operation
    def source(self, items: OutPipe[int] = ...) -> None:
        """Push from a task, and fail."""

    @operation
    def elements(self, items: OutPipe[Any] = ...) -> None:
        """Push what cannot be encoded."""


class OneWay(Interface, id="tests.Places"):
    """The same to somebody who wants no answer."""

    @operation(one_way=True)
    def routine(self) -> None:
        """Fail."""


class Fussy(Interface, id="tests.Places"):
    """The same to a client that checks what it gets."""

    @operation
    def unchecked(self) -> Checked:
        """Return what does not pass the check."""


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

    def unchecked(self) -> Any:
        return {"good": False}

    def fed(self, items: Any) -> int:
        return sum(1 for _ in items)

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


def elsewhere(action: Callable[[], Any]) -> Any:
    """Return what `action` returns in a thread of its own, to which no Ctrl-C comes."""
    found: list[Any] = []
    raised: list[str] = []

    def run() -> None:
        try:
            found.append(action())
        except BaseException as error:  # Not raised again: pytest cannot tell of all that is raised here.
            raised.append(traceback.format_tb(error.__traceback__)[-1])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(LIMIT)
    assert not raised
    return found[0]


class Refusing(Event):
    """An event with a way of its own to be set."""

    def set(self) -> None:
        """Fail."""
        fail()


class TestAClient:
    """Foreign code that a client runs."""

    @pytest.fixture
    def places(self, servers: Callable[..., Server], clients: Callable[..., Client], endpoint: str) -> Client:
        """A client of a server with `Places`."""
        server = servers(endpoint)
        server.register(Places, Failing())
        server.listen()
        return clients(server.endpoint)

    @pytest.mark.parametrize("options", [{}, {"into": bytearray(8)}, {"timeout": LIMIT}], ids=["", "into", "limit"])
    def test_a_result(self, way: str, places: Client, options: dict[str, Any]) -> None:
        """A result whose check fails ends its call with 1783, whatever the check raises."""

        def ask() -> None:
            call = places.bind(Fussy).unchecked.begin(**options)
            call.wait(LIMIT)
            with pytest.raises(BadStubData):
                call.complete()
            with pytest.raises(InvalidAsyncHandle):
                call.complete()

        elsewhere(ask)
        assert places.bind(Places).nothing(timeout=LIMIT) == 7

    def test_an_argument(self, way: str, places: Client) -> None:
        """An argument that cannot be encoded is refused as the call is begun, and nothing is sent."""

        def ask() -> None:
            with pytest.raises(InvalidArgumentType):
                places.bind("tests.Places").routine.begin(Lazy())

        elsewhere(ask)
        assert places.statistics().outstanding == 0
        assert places.bind(Places).nothing(timeout=LIMIT) == 7

    def test_a_callback(self, way: str, places: Client) -> None:
        """A callback that fails changes nothing for its call, nor for the next one."""
        for _ in range(4):
            told = threading.Event()

            def tell(call: object, kind: object, told: threading.Event = told) -> None:
                told.set()
                fail()

            call = places.bind(Places).nothing.begin(notify=tell)
            assert told.wait(LIMIT)
            assert call.complete() == 7

    def test_a_callback_of_pipes(self, way: str, places: Client) -> None:
        """After a callback that fails the signals that follow are told all the same."""
        told: list[EventKind] = []
        call = places.bind(Places).fed.begin(notify=lambda call, kind: (told.append(kind), fail()))
        call.pipe("items").push_wait([1])
        call.pipe("items").push_wait([])
        wait_until(lambda: EventKind.CALL_COMPLETE in told)
        assert call.complete() == 1

    def test_an_event(self, way: str, places: Client) -> None:
        """An event that cannot be set changes nothing for its call."""
        with Refusing() as event:

            def ask() -> int:
                call = places.bind(Places).nothing.begin(notify=event)
                return int(call.result(LIMIT))

            assert elsewhere(ask) == 7
        assert places.bind(Places).nothing(timeout=LIMIT) == 7

    def test_an_apc(self, way: str, places: Client) -> None:
        """What an APC raises leaves the alertable wait that ran it; its call is there to be completed."""

        def ask() -> int:
            call = places.bind(Places).nothing.begin(notify=apc(lambda call, kind: fail()))
            try:
                sleep(LIMIT, alertable=True)
            except BaseException:  # Not `pytest.raises`, which asks what it was.
                return int(call.complete())
            return 0

        assert elsewhere(ask) == 7

    def test_what_is_pushed(self, way: str, places: Client) -> None:
        """An iterable that fails while it is pushed ends its call."""

        def items() -> Iterator[int]:
            yield 1
            fail()

        def ask() -> None:
            call = places.bind(Places).fed.begin(items())
            with pytest.raises(CallError) as raised:
                call.result(LIMIT)
            assert raised.value.status == 1818 and str(raised.value).encode()

        elsewhere(ask)
        assert places.bind(Places).nothing(timeout=LIMIT) == 7
