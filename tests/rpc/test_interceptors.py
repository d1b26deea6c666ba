"""Interceptors of clients and servers: their order, what they may change, and that a call ends once in any case."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine import (
    BadStubData,
    Call,
    CallCancelled,
    CallFailed,
    CallTimeout,
    Client,
    CompletionPort,
    Event,
    Health,
    IncomingCall,
    InPipe,
    Interceptor,
    Interface,
    InvalidArgumentType,
    InvalidState,
    OutgoingCall,
    OutPipe,
    QueueFull,
    RemoteFault,
    Server,
    ServerCall,
    current_call,
    manager,
    operation,
)
from engine.testing import LIMIT, Gate, wait_until

from .helpers import new_endpoint, untyped


class Things(Interface, id="test.Intercepted", version=(2, 1)):
    """Operations of every sort."""

    @operation
    def double(self, number: int, times: int = 2) -> int:
        """Return the product."""

    @operation
    def double_async(self, number: int) -> int:
        """The same by an `async def` routine."""

    @operation
    def double_later(self, number: int) -> int:
        """The same by a manager routine, on another thread."""

    @operation
    def fail(self) -> int:
        """Raise."""

    @operation
    def abort(self, status: int) -> None:
        """End the call by its handle, and return."""

    @operation
    def forget(self) -> None:
        """A manager routine that drops its handle."""

    @operation
    def texts(self) -> dict[str, str]:
        """Return the metadata, with the tenant that was set."""

    @operation
    def stay(self) -> int:
        """Return once the gate is open."""

    @operation(one_way=True)
    def note(self, number: int) -> None:
        """Keep the number."""


class Pipes(Interface, id="test.InterceptedPipes"):
    """Operations with pipes."""

    @operation
    def upto(self, most: int, numbers: OutPipe[int] = ...) -> str:
        """Push numbers, return a text."""

    @operation
    def total(self, numbers: InPipe[int] = ...) -> int:
        """Return the sum."""


tenant: ContextVar[str] = ContextVar("tenant", default="none")


class Routines:
    """Serves both."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.noted: list[int] = []
        self.entered = 0

    def double(self, number: int, times: int = 2) -> int:
        self.entered += 1
        return number * times

    async def double_async(self, number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    @manager
    def double_later(self, call: ServerCall, number: int) -> None:
        threading.Thread(target=call.complete, args=(number * 2,)).start()

    def fail(self) -> int:
        raise LookupError("by name")

    def abort(self, status: int) -> None:
        current_call().abort(status, "aborted")

    @manager
    def forget(self, call: ServerCall) -> None:
        pass

    def texts(self) -> dict[str, str]:
        return current_call().metadata | {"tenant": tenant.get()}

    def stay(self) -> int:
        self.gate.pass_through()
        return 7

    def note(self, number: int) -> None:
        self.noted.append(number)

    def upto(self, most: int, numbers: Any) -> Generator[int, None, str]:
        yield from range(most)
        return "done"

    def total(self, numbers: Any) -> int:
        return sum(numbers)


class Log:
    """Interceptors that write down what happens."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def named(self, name: str) -> Interceptor:
        """One that notes its name as it begins and ends, and how."""

        def intercept(call: Any) -> Iterator[None]:
            self.lines.append(f"{name} begins {call.operation}")
            try:
                yield
            except BaseException as error:
                self.lines.append(f"{name} ends {type(error).__name__}")
                raise
            self.lines.append(f"{name} ends {call.result!r}")

        return intercept


class Pair:
    """A server, and clients of it."""

    def __init__(self, endpoint: str) -> None:
        self.routines = Routines()
        self._stack = ExitStack()
        self.server = Server(endpoint)
        self._stack.callback(self.server.close, 0)
        self.server.register(Things, self.routines)
        self.server.register(Pipes, self.routines)
        self.server.listen()

    def client(self, *interceptors: Interceptor, **options: Any) -> Client:
        return self._stack.enter_context(Client(self.server.endpoint, interceptors=interceptors, **options))

    def things(self, *interceptors: Interceptor) -> Things:
        return self.client(*interceptors).bind(Things)

    def pipes(self, *interceptors: Interceptor) -> Pipes:
        return self.client(*interceptors).bind(Pipes)

    def close(self) -> None:
        self.routines.gate.open()
        self._stack.close()


@pytest.fixture(params=["loopback", "ipc"])
def pair(request: pytest.FixtureRequest, folder: Path) -> Iterator[Pair]:
    """A service that listens."""
    made = Pair(new_endpoint(request.param, folder))
    yield made
    made.close()


def cached(call: Any) -> Iterator[None]:
    """Answers without proceeding."""
    call.result = 77
    return
    yield


def twice(call: Any) -> Iterator[None]:
    """Proceeds twice."""
    yield
    yield


def refusing(call: Any) -> Iterator[None]:
    """Raises before."""
    raise PermissionError("not you")
    yield


def spoiling(call: Any) -> Iterator[None]:
    """Raises after."""
    yield
    raise PermissionError("not that")


def forgiving(call: Any) -> Iterator[None]:
    """Makes a result of a failure."""
    try:
        yield
    except Exception as error:
        call.result = len(type(error).__name__)


def neither(call: Any) -> Iterator[None]:
    """Neither proceeds nor answers."""
    if call.operation == "nothing that there is":
        yield


def swallowing(call: Any) -> Iterator[None]:
    """Catches the failure, and sets no result."""
    try:
        yield
    except Exception as error:
        print(error)


def by_port(call: Any) -> Any:
    """Begin, be told by a port, complete."""
    with CompletionPort() as port:
        begun = call(port)
        assert port.get(LIMIT).overlapped is begun
        return begun.complete()


def by_callback(call: Any) -> Any:
    """Begin, be told by a callback."""
    told: list[Any] = []
    with Event() as event:

        def act(ended: Call[Any], kind: object) -> None:
            told.append(ended)
            event.set()

        begun = call(act)
        assert event.wait(LIMIT) and told == [begun]
    return begun.complete()


def by_await(call: Any) -> Any:
    """Begin, and await."""

    async def awaited() -> Any:
        return await asyncio.wait_for(call(None), LIMIT)

    return asyncio.run(awaited())


WAYS: dict[str, Callable[[Any], Any]] = {
    "wait": lambda call: call(None).result(LIMIT),
    "port": by_port,
    "callback": by_callback,
    "await": by_await,
}


async def awaits(call: Any, limit: int = 0) -> AsyncIterator[None]:
    """An interceptor as there is none."""
    yield


class TestAtAClient:
    """`Client(interceptors=)`."""

    def test_order(self, pair: Pair) -> None:
        """The first begins first and ends last; each sees the result that those within have left."""
        log = Log()
        assert pair.things(log.named("a"), log.named("b")).double(4) == 8
        assert log.lines == ["a begins double", "b begins double", "b ends 8", "a ends 8"]

    def test_what_it_finds(self, pair: Pair) -> None:
        """The call has its target, its arguments with defaults, texts, time limit and endpoint."""
        seen: list[Any] = []

        def look(call: OutgoingCall) -> Iterator[None]:
            seen.append((call.interface, call.operation, call.version, list(call.args), dict(call.metadata)))
            seen.append((call.timeout, call.one_way, call.endpoint))
            yield

        pair.things(look).double(number=3, timeout=LIMIT, metadata={"a": "b"})
        assert seen[0] == ("test.Intercepted", "double", (2, 1), [3, 2], {"a": "b"})
        assert seen[1] == (LIMIT, False, pair.server.endpoint)

    @pytest.mark.parametrize("way", WAYS)
    def test_what_it_changes(self, pair: Pair, way: str) -> None:
        """Arguments, texts and the result are what it makes of them, however the caller is told."""

        def change(call: OutgoingCall) -> Iterator[None]:
            call.metadata["who"] = "me"
            if call.args:
                call.args[0] += 1
            yield
            call.result = ("changed", call.result)

        things = pair.things(change)
        assert WAYS[way](lambda notify: things.double.begin(1, notify=notify)) == ("changed", 4)
        assert WAYS[way](lambda notify: things.texts.begin(notify=notify)) == (
            "changed", {"who": "me", "tenant": "none"},
        )  # fmt: skip

    @pytest.mark.parametrize("way", WAYS)
    def test_a_failure(self, pair: Pair, way: str) -> None:
        """It is raised at the `yield`, and may become another one, or a result."""
        with pytest.raises(RemoteFault, match="by name"):
            WAYS[way](lambda notify: pair.things(Log().named("a")).fail.begin(notify=notify))
        with pytest.raises(PermissionError, match="not that"):
            WAYS[way](lambda notify: pair.things(spoiling).double.begin(1, notify=notify))
        assert WAYS[way](lambda notify: pair.things(forgiving).fail.begin(notify=notify)) == len("RemoteFault")

    @pytest.mark.parametrize("way", WAYS)
    def test_one_that_does_not_proceed(self, pair: Pair, way: str) -> None:
        """The call has the result that it has set, the server is not asked, and the caller is told once."""
        log = Log()
        things = pair.things(log.named("a"), cached, log.named("b"))
        assert WAYS[way](lambda notify: things.double.begin(1, notify=notify)) == 77
        assert pair.routines.entered == 0
        assert log.lines == ["a begins double", "a ends 77"]

    @pytest.mark.parametrize("way", WAYS)
    def test_one_that_sets_no_result(self, pair: Pair, way: str) -> None:
        """One that neither proceeds nor answers, or that swallows the failure, is told of by name, to those around it,
        too; None is a result like another.
        """
        log = Log()
        things = pair.things(log.named("a"), neither)
        with pytest.raises(InvalidState, match="neither.*around 'double' has returned without a `yield`"):
            WAYS[way](lambda notify: things.double.begin(1, notify=notify))
        assert pair.routines.entered == 0
        things = pair.things(log.named("a"), swallowing)
        with pytest.raises(InvalidState, match="swallowing.*around 'fail' has caught RemoteFault") as caught:
            WAYS[way](lambda notify: things.fail.begin(notify=notify))
        assert isinstance(caught.value.__cause__, RemoteFault)
        assert log.lines == ["a begins double", "a ends InvalidState", "a begins fail", "a ends InvalidState"]

        def with_none(call: Any) -> Iterator[None]:
            call.result = None
            if call.operation == "fail":
                with suppress(RemoteFault):
                    yield
                call.result = None

        things = pair.things(with_none)
        assert WAYS[way](lambda notify: things.double.begin(1, notify=notify)) is None
        assert WAYS[way](lambda notify: things.fail.begin(notify=notify)) is None

    def test_one_that_proceeds_twice(self, pair: Pair) -> None:
        """The call is made once, and ends with an error that says so."""
        things = pair.things(twice)
        with pytest.raises(InvalidState, match="second `yield`"):
            things.double(1)
        assert pair.routines.entered == 1

    def test_one_that_raises(self, pair: Pair) -> None:
        """Raised before the `yield`, `begin` raises it: nothing is sent. Those around it are told."""
        log = Log()
        things = pair.things(log.named("a"), refusing, log.named("b"))
        with pytest.raises(PermissionError, match="not you"):
            things.double.begin(1)
        assert pair.routines.entered == 0
        assert log.lines == ["a begins double", "a ends PermissionError"]

    def test_what_cannot_be_begun(self, pair: Pair) -> None:
        """Arguments that do not fit are an error that interceptors see, too."""
        log = Log()
        with pytest.raises(InvalidArgumentType):
            untyped(pair.things(log.named("a")).double)("text")
        assert log.lines == ["a begins double", "a ends InvalidArgumentType"]

    def test_what_is_none(self, pair: Pair) -> None:
        """What cannot be called, or would be awaited, is refused at once; what is no generator, when called."""
        with pytest.raises(InvalidArgumentType, match="interceptors must be a list"):
            Client(pair.server.endpoint, interceptors=untyped(twice))
        with pytest.raises(InvalidArgumentType, match="interceptor"):
            pair.client().add_interceptor(untyped(7))
        for asynchronous in (awaits, partial(awaits, limit=1)):
            with pytest.raises(InvalidArgumentType, match="ordinary generator function.*awaits.*Await before the call"):
                pair.client().add_interceptor(untyped(asynchronous))
        with pytest.raises(InvalidArgumentType, match="generator function.*returned a list"):
            pair.things(untyped(lambda call: [])).double(1)

    def test_bindings_that_were_made_before(self, pair: Pair) -> None:
        """One that is added is around calls of older bindings, by name too, and around the other interceptors."""
        log = Log()
        client = pair.client(log.named("a"))
        things, by_name = client.bind(Things), client.bind("test.Intercepted")
        plain = pair.client()
        other = plain.bind(Things)
        assert by_name.double(1, 2) == other.double(1) == 2
        log.lines.clear()
        for each in (client, plain):
            each.add_interceptor(log.named("b"))
        assert things.double(1) == 2
        assert log.lines == ["b begins double", "a begins double", "a ends 2", "b ends 2"]
        log.lines.clear()
        assert things.double.begin(2).result(LIMIT) == 4 and other.double.begin(3).result(LIMIT) == 6
        assert log.lines == [
            "b begins double", "a begins double", "a ends 4", "b ends 4", "b begins double", "b ends 6",
        ]  # fmt: skip
        log.lines.clear()
        assert other.double(1) == 2 and by_name.double(1, 3) == 3
        assert log.lines == ["b begins double", "b ends 2", *(
            "b begins double", "a begins double", "a ends 3", "b ends 3",
        )]  # fmt: skip

    def test_bindings_that_are_gone(self, pair: Pair) -> None:
        """A client does not keep the bindings that were made of it."""
        client = pair.client()
        for _ in range(10):
            client.bind(Things)
        gc.collect()
        client.add_interceptor(Log().named("a"))  # Raises nothing for those that are gone.
        assert client.bind(Things).double(1) == 2

    def test_its_context(self, pair: Pair) -> None:
        """What it sets in context variables is there after the call, and not in its caller's."""
        found: list[str] = []

        def set_tenant(call: OutgoingCall) -> Iterator[None]:
            tenant.set("acme")
            yield
            found.append(tenant.get())

        pair.things(set_tenant).double(1)
        assert (found, tenant.get()) == (["acme"], "none")

    def test_one_way(self, pair: Pair) -> None:
        """A one-way call ends, with None, as soon as it has left."""
        log = Log()
        pair.things(log.named("a")).note(5)
        wait_until(lambda: pair.routines.noted == [5])
        wait_until(lambda: log.lines == ["a begins note", "a ends None"])

    def test_a_call_that_nobody_collects(self, pair: Pair) -> None:
        """Interceptors are resumed when the outcome is there, whether anybody waits for the call or not."""
        log = Log()
        pair.things(log.named("a")).double.begin(2, notify=lambda call, kind: None)
        wait_until(lambda: log.lines == ["a begins double", "a ends 4"])

    def test_cancel(self, pair: Pair) -> None:
        """An abortive cancel ends the call at once; interceptors are resumed with that by then."""
        log = Log()
        call = pair.things(log.named("a")).stay.begin()
        pair.routines.gate.wait_for_arrivals()
        call.cancel(abort=True)
        with pytest.raises(CallCancelled):
            call.complete()
        assert log.lines == ["a begins stay", "a ends CallCancelled"]

    def test_a_task_that_is_cancelled(self, pair: Pair) -> None:
        """It aborts the call, which interceptors see."""
        log = Log()
        things = pair.things(log.named("a"))

        async def give_up() -> None:
            task = asyncio.create_task(things.stay.begin())
            await asyncio.to_thread(pair.routines.gate.wait_for_arrivals)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(give_up())
        assert log.lines == ["a begins stay", "a ends CallCancelled"]

    def test_the_end_of_the_client(self, pair: Pair) -> None:
        """Closing the client ends its calls, interceptors included, before it returns."""
        log = Log()
        client = pair.client(log.named("a"))
        call = client.bind(Things).stay.begin()
        pair.routines.gate.wait_for_arrivals()
        client.close()
        with pytest.raises(CallCancelled):
            call.complete()
        assert log.lines == ["a begins stay", "a ends CallCancelled"]

    def test_time_limits(self, pair: Pair) -> None:
        """A limit that an interceptor sets holds."""

        def hurry(call: OutgoingCall) -> Iterator[None]:
            call.timeout = 0.01
            yield

        with pytest.raises(CallTimeout):
            pair.things(hurry).stay()

    def test_cancel_while_it_is_resumed(self, pair: Pair) -> None:
        """A call is outstanding until its interceptors are done, and may be cancelled until then: it ends once."""
        gate, ended = Gate(), Event(manual_reset=True)

        def slow(call: OutgoingCall) -> Iterator[None]:
            yield
            gate.pass_through()
            ended.set()

        call = pair.things(slow).double.begin(1, notify=lambda call, kind: None)
        gate.wait_for_arrivals()
        assert not call.done() and call.status() == 997
        call.cancel()
        call.cancel(abort=True)
        with pytest.raises(CallCancelled):
            call.complete()
        gate.open()
        assert ended.wait(LIMIT)
        ended.close()

    def test_many_that_wait(self, pair: Pair) -> None:
        """Calls that are answered and wait for their interceptors are bounded, as those that wait for an answer."""
        gate = Gate()

        def slow(call: OutgoingCall) -> Iterator[None]:
            yield
            gate.pass_through()

        double = pair.client(slow, max_calls=1).bind(Things).double
        call = double.begin(1, notify=lambda call, kind: None)
        gate.wait_for_arrivals()
        with pytest.raises(QueueFull, match="wait for their interceptors"):
            double.begin(2)
        gate.open()
        assert call.result(LIMIT) == 2 and double.begin(2).result(LIMIT) == 4

    def test_a_handle_used_again(self, pair: Pair) -> None:
        """Each call of a handle has interceptors of its own; a handle in use is refused, and goes on."""
        log = Log()
        things = pair.things(log.named("a"))
        handle: Call[Any] = Call()
        assert things.double.begin(1, handle=handle).result(LIMIT) == 2
        stay = things.stay.begin(handle=handle)
        with pytest.raises(InvalidState, match="the handle carries a call"):
            things.double.begin(1, handle=handle)
        pair.routines.gate.open()
        assert stay.result(LIMIT) == 7
        assert log.lines == [
            "a begins double", "a ends 2", "a begins stay", "a begins double", "a ends InvalidState", "a ends 7",
        ]  # fmt: skip

    def test_many_at_once(self, pair: Pair) -> None:
        """Each of many calls has its own outcome."""

        def square(call: OutgoingCall) -> Iterator[None]:
            yield
            call.result = call.result**2

        things = pair.things(square)
        calls = [things.double.begin(number) for number in range(200)]
        assert [call.result(LIMIT) for call in calls] == [(number * 2) ** 2 for number in range(200)]

    def test_buffers(self, pair: Pair) -> None:
        """`into=` and interceptors go together."""
        client = pair.client(Log().named("a"))
        with Server("loopback://interceptors-buffers") as server:
            server.register("bytes", Bytes())
            server.listen()
            buffer = bytearray(3)
            with Client(server.endpoint, interceptors=[Log().named("a")]) as other:
                assert bytes(other.bind("bytes").get(into=buffer)) == b"abc"
        assert buffer == b"abc" and not client.closed

    def test_trailing_metadata(self, pair: Pair) -> None:
        """Texts that came with the answer are there."""

        def stamp(call: IncomingCall) -> Iterator[None]:
            yield
            call.handle.set_trailing_metadata({"took": "1"})

        pair.server.add_interceptor(stamp)
        call = pair.things(Log().named("a")).double.begin(1)
        assert call.result(LIMIT) == 2
        assert call.trailing_metadata == {"took": "1"}

    def test_several_servers(self, pair: Pair) -> None:
        """It is told at which of several servers the call was."""
        seen: list[str] = []

        def look(call: OutgoingCall) -> Iterator[None]:
            yield
            seen.append(call.endpoint)

        with Client([pair.server.endpoint, "ipc:///nowhere/at/all"], interceptors=[look]) as client:
            things = client.bind(Things, causal=False)
            assert things.double.begin(2).result(LIMIT) == 4
            with client.session() as one:
                assert one.bind(Things).double(3) == 6
        assert seen == [pair.server.endpoint] * 2


class Bytes:
    """Serves bytes."""

    def get(self) -> bytes:
        return b"abc"


class TestPipes:
    """Calls with pipes have interceptors, too."""

    def test_at_a_client(self, pair: Pair) -> None:
        """They begin before the first element, end with the call, and may change arguments and the result."""
        log = Log()

        def change(call: OutgoingCall) -> Iterator[None]:
            if call.operation == "upto":
                call.args[0] += 1
            yield
            call.result = ("changed", call.result)

        pipes = pair.pipes(log.named("a"), change)
        with pipes.upto.stream(3) as numbers:
            assert list(numbers) == [0, 1, 2, 3]
        assert untyped(numbers).result == ("changed", "done")
        assert pipes.total([1, 2, 3]) == ("changed", 6)
        assert log.lines == [
            "a begins upto", "a ends ('changed', 'done')", "a begins total", "a ends ('changed', 6)",
        ]  # fmt: skip

    def test_at_a_server(self, pair: Pair) -> None:
        """They run around a generator, and around a routine that pulls."""
        log = Log()
        pair.server.add_interceptor(log.named("a"))
        pipes = pair.pipes()
        with pipes.upto.stream(2) as numbers:
            assert list(numbers) == [0, 1]
        assert pipes.total([4, 5]) == 9
        assert log.lines == ["a begins upto", "a ends 'done'", "a begins total", "a ends 9"]

    def test_what_cannot_be_answered(self, pair: Pair) -> None:
        """One that does not proceed cannot answer a call with pipes, at either side."""
        with pytest.raises(InvalidState, match="has pipes"):
            pair.pipes(cached).upto.stream(2)
        pair.server.add_interceptor(cached)
        with pytest.raises(RemoteFault, match="has pipes"), pair.pipes().upto.stream(2) as numbers:
            list(numbers)

    def test_a_stream_that_is_left(self, pair: Pair) -> None:
        """Leaving it cancels the call, which interceptors see."""
        log = Log()
        with pair.pipes(log.named("a")).upto.stream(1_000_000) as numbers:
            assert next(numbers) == 0
        assert log.lines == ["a begins upto", "a ends CallCancelled"]


class TestAtAServer:
    """`Server(interceptors=)`."""

    @pytest.mark.parametrize("name", ["double", "double_async", "double_later"])
    def test_order_and_changes(self, pair: Pair, name: str) -> None:
        """They run around the routine, of whatever kind it is; arguments and results are what they make of them."""
        log = Log()

        def change(call: IncomingCall) -> Iterator[None]:
            call.args = [call.args[0] + 1, *call.args[1:]]
            yield
            call.result += 100

        for each in (log.named("inner"), change, log.named("outer")):
            pair.server.add_interceptor(each)
        assert getattr(pair.things(), name)(1) == 104
        assert log.lines == [f"outer begins {name}", f"inner begins {name}", "inner ends 4", "outer ends 104"]

    def test_as_the_server_is_made(self) -> None:
        """Those that the server is made with are around what is registered later; the first is the outermost."""
        log = Log()
        with Server("loopback://interceptors", interceptors=[log.named("a"), log.named("b")]) as server:
            server.register(Things, Routines())
            server.listen()
            with Client(server.endpoint) as client:
                assert client.bind(Things).double(1) == 2
                assert client.bind(Health).check().live
        assert log.lines == ["a begins double", "b begins double", "b ends 2", "a ends 2"]

    def test_what_it_finds(self, pair: Pair) -> None:
        """The call has its target, its arguments, its client's texts, and a handle that tells of the client."""
        seen: list[Any] = []

        def look(call: IncomingCall) -> Iterator[None]:
            seen.append((call.interface, call.operation, call.version, list(call.args), call.metadata, call.one_way))
            seen.append(call.handle.attributes().client_is_local)
            yield

        pair.server.add_interceptor(look)
        pair.things().double(3, metadata={"a": "b"})
        assert seen == [("test.Intercepted", "double", (2, 1), [3, 2], {"a": "b"}, False), True]

    def test_its_context(self, pair: Pair) -> None:
        """What it sets in context variables the routine sees, and no other call."""

        def set_tenant(call: IncomingCall) -> Iterator[None]:
            if "tenant" in call.metadata:
                tenant.set(call.metadata["tenant"])
            yield

        pair.server.add_interceptor(set_tenant)
        things = pair.things()
        assert things.texts(metadata={"tenant": "acme"})["tenant"] == "acme"
        assert things.texts()["tenant"] == "none"

    def test_failures(self, pair: Pair) -> None:
        """What a routine raises is raised at the `yield`; so is an abort, with its status."""
        log = Log()
        statuses: list[int] = []

        def look(call: IncomingCall) -> Iterator[None]:
            try:
                yield
            except RemoteFault as error:
                statuses.append(error.status)
                raise

        pair.server.add_interceptor(look)
        pair.server.add_interceptor(log.named("a"))
        things = pair.things()
        with pytest.raises(RemoteFault, match="by name"):
            things.fail()
        with pytest.raises(RemoteFault) as caught:
            things.abort(4711)
        assert caught.value.status == 4711 and statuses == [4711]
        assert log.lines == ["a begins fail", "a ends LookupError", "a begins abort", "a ends RemoteFault"]

    def test_one_that_forgives(self, pair: Pair) -> None:
        """Who catches the failure answers the call."""
        pair.server.add_interceptor(forgiving)
        assert pair.things().fail() == len("LookupError")

    @pytest.mark.parametrize("name", ["double", "double_async", "double_later"])
    def test_one_that_does_not_proceed(self, pair: Pair, name: str) -> None:
        """The call is answered with what it has set, once, and the routine is not entered."""
        log = Log()
        for each in (log.named("inner"), cached, log.named("outer")):
            pair.server.add_interceptor(each)
        assert getattr(pair.things(), name)(1) == 77
        assert pair.routines.entered == 0
        assert log.lines == [f"outer begins {name}", "outer ends 77"]

    @pytest.mark.parametrize("name", ["double", "double_async", "double_later"])
    def test_one_that_sets_no_result(self, pair: Pair, name: str, caplog: pytest.LogCaptureFixture) -> None:
        """One that neither proceeds nor answers, or swallows the failure, is told of by name, in the log too."""
        pair.server.add_interceptor(swallowing)
        with pytest.raises(RemoteFault, match="swallowing.*has caught LookupError and set no"):
            pair.things().fail()
        pair.server.add_interceptor(neither)
        before = pair.server.statistics().faults
        with pytest.raises(RemoteFault, match=f"neither.*around '{name}' has returned without a `yield`"):
            getattr(pair.things(), name)(1)
        assert pair.routines.entered == 0 and pair.server.statistics().faults == before + 1

        def told() -> list[str]:
            return [str(each.exc_info) for each in caplog.records if each.name == "engine.rpc.faults"]

        wait_until(lambda: len(told()) == 2)  # What an event loop's thread has to say is said by another one.
        assert "swallowing" in told()[0] and "neither" in told()[1]

    @pytest.mark.parametrize("name", ["double", "double_async", "double_later"])
    def test_one_that_keeps_the_call(self, pair: Pair, name: str) -> None:
        """It is answered later by the handle, and those around it see that; dropping the handle ends the call."""
        log = Log()
        kept: list[ServerCall] = []

        def keep(call: IncomingCall) -> Iterator[None]:
            kept.append(call.keep())
            return
            yield

        for each in (log.named("inner"), keep, log.named("outer")):
            pair.server.add_interceptor(each)
        begin = getattr(pair.things(), name).begin
        call = begin(1)
        wait_until(lambda: kept)
        kept.pop().complete(5)
        assert call.result(LIMIT) == 5
        assert log.lines == [f"outer begins {name}", "outer ends 5"]
        call = begin(1)
        wait_until(lambda: kept)
        kept.clear()
        assert isinstance(call.exception(LIMIT), CallFailed)

    @pytest.mark.parametrize("name", ["double", "double_async", "double_later"])
    def test_one_that_proceeds_twice(self, pair: Pair, name: str) -> None:
        """The routine runs once, and the call ends with an error that says so."""
        pair.server.add_interceptor(twice)
        with pytest.raises(RemoteFault, match="second `yield`"):
            getattr(pair.things(), name)(1)

    @pytest.mark.parametrize("interceptor", [refusing, spoiling])
    @pytest.mark.parametrize("name", ["double", "double_async", "double_later"])
    def test_one_that_raises(self, pair: Pair, name: str, interceptor: Interceptor) -> None:
        """Its client gets that as what a routine raises; those around it see it."""
        log = Log()
        pair.server.add_interceptor(interceptor)
        pair.server.add_interceptor(log.named("a"))
        with pytest.raises(RemoteFault, match="not ") as caught:
            getattr(pair.things(), name)(1)
        assert caught.value.type_name == "PermissionError"
        assert log.lines == [f"a begins {name}", "a ends PermissionError"]

    def test_a_result_that_cannot_be_sent(self, pair: Pair) -> None:
        """It ends the call with an error, as a routine's would."""

        def spoil(call: IncomingCall) -> Iterator[None]:
            yield
            call.result = object()

        pair.server.add_interceptor(spoil)
        with pytest.raises(BadStubData, match="cannot be sent"):
            pair.things().double(1)

    def test_one_way(self, pair: Pair) -> None:
        """They run around a one-way call, which they know for one."""
        log = Log()
        known: list[bool] = []

        def look(call: IncomingCall) -> Iterator[None]:
            known.append(call.one_way)
            yield

        pair.server.add_interceptor(log.named("a"))
        pair.server.add_interceptor(look)
        pair.things().note(3)
        wait_until(lambda: log.lines == ["a begins note", "a ends None"])
        assert known == [True]

    def test_a_handle_that_is_dropped(self, pair: Pair) -> None:
        """A manager routine that forgets its call has it end, for interceptors too."""
        log = Log()
        pair.server.add_interceptor(log.named("a"))
        with pytest.raises(Exception, match="dropped the handle"):
            pair.things().forget()
        wait_until(lambda: log.lines == ["a begins forget", "a ends CallFailed"])

    def test_both_sides(self, pair: Pair) -> None:
        """One interceptor serves either side."""
        log = Log()
        both = log.named("both")
        pair.server.add_interceptor(both)
        assert pair.things(both).double(1) == 2
        assert log.lines == ["both begins double"] * 2 + ["both ends 2"] * 2
