"""Interceptors of a server that await: async generator functions around `async def` routines."""

import asyncio
import gc
import itertools
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from msgspec import UNSET

from engine import (
    AccessDenied,
    AsyncInterceptor,
    BadStubData,
    CallCancelled,
    CallFailed,
    Client,
    Health,
    IncomingCall,
    InPipe,
    Interface,
    InvalidArgumentType,
    InvalidAsyncHandle,
    InvalidState,
    OutPipe,
    RemoteFault,
    Server,
    ServerCall,
    UnknownInterface,
    current_call,
    manager,
    operation,
)
from engine.testing import LIMIT, wait_until

from ..helpers import at_step, code_named, new_endpoint, untyped, uses_steps

SERVER = "engine/rpc/server/"
WHERE = {
    "intercept": "registry.py", "_surround_locked": "registry.py", "await_around": "intercepting.py",
    "prepare": "routines.py",
}  # fmt: skip
PICKS = [code_named(name, SERVER + file) for name, file in WHERE.items()]


def adding(code: CodeType) -> bool:
    """Pick the code that has interceptors run around routines."""
    return any(pick(code) for pick in PICKS)


class Awaited(Interface, id="test.Awaited"):
    """Operations whose routines are all asynchronous."""

    @operation
    def double(self, number: int) -> int:
        """Return the product."""

    @operation
    def double_later(self, number: int) -> int:
        """The same by a manager routine."""

    @operation
    def fail(self) -> int:
        """Raise."""

    @operation
    def stay(self) -> int:
        """Wait to be cancelled."""

    @operation
    def tenant(self) -> str:
        """Return who is being served."""

    @operation
    def upto(self, most: int, numbers: OutPipe[int] = ...) -> None:
        """Push numbers."""

    @operation
    def total(self, numbers: InPipe[int] = ...) -> int:
        """Return the sum."""


class Plain(Interface, id="test.AwaitedPlain"):
    """One that an ordinary routine serves."""

    @operation
    def double(self, number: int) -> int:
        """Return the product."""


tenant: ContextVar[str] = ContextVar("tenant", default="none")


class Routines:
    """Serves `Awaited`."""

    def __init__(self) -> None:
        self.entered = 0
        self.staying = threading.Event()

    async def double(self, number: int) -> int:
        self.entered += 1
        await asyncio.sleep(0)
        return number * 2

    @manager
    async def double_later(self, call: ServerCall, number: int) -> None:
        await asyncio.sleep(0)
        call.complete(number * 2)

    async def fail(self) -> int:
        raise LookupError("by name")

    async def stay(self) -> int:
        self.staying.set()
        await asyncio.Event().wait()
        return 7

    async def tenant(self) -> str:
        return f"{tenant.get()} {current_call().metadata.get('for')}"

    async def upto(self, most: int, numbers: Any) -> AsyncIterator[int]:
        for number in range(most):
            yield number

    async def total(self, numbers: Any) -> int:
        return sum([number async for number in numbers])


class PlainRoutines:
    """Serves `Plain`."""

    def double(self, number: int) -> int:
        return number * 2


class Log:
    """Interceptors that write down what happens."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def awaited(self, name: str) -> AsyncInterceptor:
        async def intercept(call: Any) -> AsyncIterator[None]:
            await asyncio.sleep(0)
            self.lines.append(f"{name} begins")
            try:
                yield
            except BaseException as error:
                await asyncio.sleep(0)
                self.lines.append(f"{name} ends {type(error).__name__}")
                raise
            await asyncio.sleep(0)
            self.lines.append(f"{name} ends {call.result!r}")

        return intercept

    def plain(self, name: str) -> Any:
        def intercept(call: Any) -> Iterator[None]:
            self.lines.append(f"{name} begins")
            yield
            self.lines.append(f"{name} ends {call.result!r}")

        return intercept


@pytest.fixture(params=["loopback", "ipc"])
def server(request: pytest.FixtureRequest, folder: Path) -> Iterator[Server]:
    """One that serves `Awaited`, and listens."""
    with Server(new_endpoint(request.param, folder)) as made:
        made.register(Awaited, Routines())
        made.listen()
        yield made


@pytest.fixture
def service(server: Server) -> Iterator[Awaited]:
    """What its clients call."""
    with Client(server.endpoint) as client:
        yield client.bind(Awaited)


async def answering(call: IncomingCall) -> AsyncIterator[None]:
    """Answers without proceeding."""
    await asyncio.sleep(0)
    call.result = 77
    return
    yield


async def twice(call: IncomingCall) -> AsyncIterator[None]:
    """Proceeds twice."""
    yield
    yield


async def refusing(call: IncomingCall) -> AsyncIterator[None]:
    """Raises before."""
    await asyncio.sleep(0)
    raise AccessDenied("not you")
    yield


async def spoiling(call: IncomingCall) -> AsyncIterator[None]:
    """Raises after."""
    yield
    await asyncio.sleep(0)
    raise AccessDenied("not that")


async def forgiving(call: IncomingCall) -> AsyncIterator[None]:
    """Makes a result of a failure."""
    try:
        yield
    except Exception as error:
        call.result = len(type(error).__name__)


class TestAround:
    """What runs when."""

    def test_order_and_changes(self, server: Server, service: Awaited) -> None:
        """They are around the routine, the first outermost, inside of those that do not await; arguments and results
        are what they make of them.
        """
        log = Log()

        async def change(call: IncomingCall) -> AsyncIterator[None]:
            call.args = [call.args[0] + 1]
            yield
            call.result += 100

        for each in (log.plain("sync"), log.awaited("inner"), change, log.awaited("outer")):
            server.add_interceptor(each)
        assert service.double(1) == 104
        assert log.lines == [
            "sync begins", "outer begins", "inner begins", "inner ends 4", "outer ends 104", "sync ends 104",
        ]  # fmt: skip

    def test_as_the_server_is_made(self) -> None:
        """Those that the server is made with are around what is registered later, and not around the library's own."""
        log = Log()
        made = Server("loopback://awaited-interceptors", interceptors=[log.awaited("a"), log.awaited("b")])
        with made as server:
            server.register(Awaited, Routines())
            server.listen()
            with Client(server.endpoint) as client:
                assert client.bind(Awaited).double(1) == 2
                assert client.bind(Health).check().live
        assert log.lines == ["a begins", "b begins", "b ends 2", "a ends 2"]

    def test_a_manager_routine(self, server: Server, service: Awaited) -> None:
        """They are around the routine, which answers by its handle."""
        log = Log()
        server.add_interceptor(log.awaited("a"))
        assert service.double_later(4) == 8
        wait_until(lambda: log.lines == ["a begins", "a ends None"])

        async def change(call: IncomingCall) -> AsyncIterator[None]:
            call.args = [call.args[0] + 1]
            yield

        server.add_interceptor(change)
        assert service.double_later(4) == 10

    def test_pipes(self, server: Server, service: Awaited) -> None:
        """They are around what reads a pipe, and what generates one."""
        log = Log()
        server.add_interceptor(log.awaited("a"))
        with service.upto.stream(3) as numbers:
            assert list(numbers) == [0, 1, 2]
        assert service.total([1, 2, 3]) == 6
        assert log.lines == ["a begins", "a ends None", "a begins", "a ends 6"]

    def test_its_context(self, server: Server, service: Awaited) -> None:
        """What it sets in context variables the routine sees, and no other call; it knows which call it is around."""

        async def set_tenant(call: IncomingCall) -> AsyncIterator[None]:
            await asyncio.sleep(0)
            if "for" in call.metadata:
                tenant.set("acme")
            assert call.handle.attributes().client_is_local and current_call() is call.handle
            yield

        server.add_interceptor(set_tenant)
        assert untyped(service.tenant)(metadata={"for": "them"}) == "acme them"
        assert service.tenant() == "none None"

    def test_a_routine_that_fails(self, server: Server, service: Awaited) -> None:
        """What a routine raises is raised at the `yield`, and who catches it answers the call."""
        log = Log()
        server.add_interceptor(log.awaited("a"))
        with pytest.raises(RemoteFault, match="by name"):
            service.fail()
        server.add_interceptor(forgiving)
        assert service.fail() == len("LookupError")
        assert log.lines == ["a begins", "a ends LookupError"] * 2

    def test_a_manager_routine_that_fails(self) -> None:
        """As of any other: who catches it answers the call, which the routine has not."""

        class Failing(Routines):
            @manager
            async def double_later(self, call: ServerCall, number: int) -> None:
                if number > 1:
                    call.complete(number)
                raise LookupError("by name")

        with Server("loopback://awaited-interceptors") as server:
            server.register(Awaited, Failing())
            server.add_interceptor(forgiving)
            server.listen()
            with Client(server.endpoint) as client:
                service = client.bind(Awaited)
                assert service.double_later(1) == len("LookupError")
                assert service.double_later(2) == 2

    @pytest.mark.parametrize("kind", [SystemExit, GeneratorExit])
    def test_a_routine_that_would_end_more_than_itself(self, kind: type[BaseException]) -> None:
        """They are resumed with whatever a routine raises, before its client has that."""

        class Ending(Routines):
            async def fail(self) -> int:
                raise kind("by itself")

        async def catch(call: IncomingCall) -> AsyncIterator[None]:
            try:
                yield
            except kind:
                await asyncio.sleep(0)
                call.result = 3

        with Server("loopback://awaited-interceptors", interceptors=[catch]) as server:
            server.register(Awaited, Ending())
            server.listen()
            with Client(server.endpoint) as client:
                assert client.bind(Awaited).fail() == 3

    def test_a_pipe_whose_routine_fails(self) -> None:
        """Who catches it answers the call, though elements were left, as around an ordinary routine; whoever uses its
        pipe then is told that it is over.
        """
        left: list[Any] = []

        class Failing(Routines):
            async def total(self, numbers: Any) -> int:
                left.append(numbers)
                async for _ in numbers:
                    raise LookupError("by name")
                return 0

        with Server("loopback://awaited-interceptors", interceptors=[forgiving]) as server:
            server.register(Awaited, Failing())
            server.listen()
            with Client(server.endpoint) as client:
                assert client.bind(Awaited).total([1, 2, 3]) == len("LookupError")
                with pytest.raises(InvalidAsyncHandle):
                    left.pop().pull(1)

    def test_one_that_fails_after_the_routine(self, server: Server, service: Awaited) -> None:
        """Who is around it finds no result of what has failed."""
        results: list[object] = []

        async def catch(call: IncomingCall) -> AsyncIterator[None]:
            try:
                yield
            except AccessDenied:
                results.append(call.result)
                call.result = 3

        server.add_interceptor(spoiling)
        server.add_interceptor(catch)
        assert service.double(1) == 3
        assert results == [UNSET]

    def test_a_loop_that_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a loop that the program ends while a call runs nothing is awaited any more, and nothing complains."""
        complaints: list[Any] = []
        monkeypatch.setattr(sys, "unraisablehook", complaints.append)
        log, loop, routines = Log(), asyncio.new_event_loop(), Routines()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        with Server("loopback://awaited-interceptors", loop=loop, interceptors=[log.awaited("a")]) as server:
            server.register(Awaited, routines)
            server.listen()
            with Client(server.endpoint) as client:
                call = client.bind(Awaited).stay.begin()
                assert routines.staying.wait(LIMIT)
                loop.call_soon_threadsafe(loop.stop)
                thread.join(LIMIT)
                loop.close()
                server.close(0)
                assert call.wait(LIMIT)
        del server, client, call
        gc.collect()
        assert log.lines == ["a begins"] and not complaints

    def test_a_cancelled_task(self, server: Server, service: Awaited) -> None:
        """An abort of the client cancels the task, in the routine, and they see that."""
        log = Log()
        server.add_interceptor(log.awaited("a"))
        call = service.stay.begin()
        wait_until(lambda: log.lines == ["a begins"])
        call.cancel(abort=True)
        with pytest.raises(CallCancelled):
            call.complete()
        wait_until(lambda: log.lines == ["a begins", "a ends CancelledError"])


@uses_steps
class TestBrokenOff:
    """Who adds some is interrupted."""

    @pytest.mark.parametrize("awaits", [True, False])
    def test_adding_is_interrupted_anywhere(self, awaits: bool) -> None:
        """What is added was added, or was not; once more, and it is around each routine."""
        log = Log()
        added = log.awaited("a") if awaits else log.plain("a")

        def interrupt() -> None:
            raise KeyboardInterrupt

        for number in itertools.count():
            with Server("loopback://awaited-interceptors") as server:
                server.register(Awaited, Routines())
                with at_step(number, adding, interrupt) as reached, suppress(KeyboardInterrupt):
                    server.add_interceptor(added)
                if reached[0] <= number:
                    break
                server.listen()
                with Client(server.endpoint) as client:
                    service = client.bind(Awaited)
                    service.double(1)
                    before = log.lines.count("a begins")
                    assert before in (0, 1)
                    if not before:
                        server.add_interceptor(added)
                    log.lines.clear()
                    assert (service.double(1), service.tenant()) == (2, "none None")
                    assert log.lines.count("a begins") == 2
                    log.lines.clear()
        assert number > 5


class TestNotProceeding:
    """Those that answer, or raise."""

    @pytest.mark.parametrize("name", ["double", "double_later"])
    def test_one_that_answers(self, server: Server, service: Awaited, name: str) -> None:
        """The call is answered with what it has set, once, and the routine is not entered."""
        log = Log()
        for each in (log.awaited("inner"), answering, log.awaited("outer")):
            server.add_interceptor(each)
        assert getattr(service, name)(1) == 77
        assert log.lines == ["outer begins", "outer ends 77"]

    def test_pipes_cannot_be_answered(self, server: Server, service: Awaited) -> None:
        """A call with pipes can only be let proceed, or refused."""
        server.add_interceptor(answering)
        with pytest.raises(RemoteFault, match="total has pipes"):
            service.total([])

    @pytest.mark.parametrize("name", ["double", "double_later"])
    def test_an_answer_that_cannot_be_sent(
        self, server: Server, service: Awaited, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Its client is told, and the log says why, once."""

        async def answer(call: IncomingCall) -> AsyncIterator[None]:
            call.result = threading.Lock()
            return
            yield

        server.add_interceptor(answer)
        with pytest.raises(BadStubData):
            getattr(service, name)(1)
        wait_until(lambda: "cannot be sent" in caplog.text)
        server.close()
        assert "closed before" not in caplog.text

    def test_pipes_can_be_kept(self, server: Server, service: Awaited) -> None:
        """Who has taken a call with pipes over ends it later."""
        log, kept = Log(), list[ServerCall]()

        async def keep(call: IncomingCall) -> AsyncIterator[None]:
            kept.append(call.keep())
            return
            yield

        server.add_interceptor(keep)
        server.add_interceptor(log.awaited("a"))
        call = service.total.begin([1, 2])
        wait_until(lambda: len(log.lines) == 2)
        assert log.lines == ["a begins", "a ends None"]
        kept.pop().abort(4711, "no sums")
        assert "no sums" in str(call.exception(LIMIT))

    @pytest.mark.parametrize("name", ["double", "double_later"])
    def test_one_that_keeps_the_call(self, server: Server, service: Awaited, name: str) -> None:
        """It is answered later by the handle; dropping that ends the call."""
        kept: list[ServerCall] = []

        async def keep(call: IncomingCall) -> AsyncIterator[None]:
            await asyncio.sleep(0)
            kept.append(call.keep())
            return
            yield

        server.add_interceptor(keep)
        begin = getattr(service, name).begin
        call = begin(1)
        wait_until(lambda: kept)
        kept.pop().complete(5)
        assert call.result(LIMIT) == 5
        call = begin(1)
        wait_until(lambda: kept)
        kept.clear()
        assert isinstance(call.exception(LIMIT), CallFailed)

    @pytest.mark.parametrize("name", ["double", "total", "upto"])
    @pytest.mark.parametrize(("interceptor", "said"), [(refusing, "not you"), (spoiling, "not that")])
    def test_one_that_raises(
        self, server: Server, service: Awaited, name: str, interceptor: AsyncInterceptor, said: str
    ) -> None:
        """Its client gets that as what a routine raises; those around it see it."""
        log = Log()
        server.add_interceptor(interceptor)
        server.add_interceptor(log.awaited("a"))
        calls: dict[str, Callable[[], Any]] = {
            "double": lambda: service.double(1),
            "total": lambda: service.total([1]),
            "upto": lambda: list(service.upto.stream(3)),
        }
        with pytest.raises(AccessDenied, match=said):
            calls[name]()
        assert log.lines == ["a begins", "a ends AccessDenied"]

    def test_one_that_sets_no_result(self, server: Server, service: Awaited) -> None:
        """One that neither proceeds nor answers, or swallows the failure, is told of by name."""

        async def neither(call: IncomingCall) -> AsyncIterator[None]:
            if call.operation == "nothing that there is":
                yield

        async def swallowing(call: IncomingCall) -> AsyncIterator[None]:
            with suppress(RemoteFault):
                yield

        server.add_interceptor(neither)
        server.add_interceptor(swallowing)
        with pytest.raises(RemoteFault, match="neither.*around 'double' has returned without a `yield`"):
            service.double(1)

        async def other(call: IncomingCall) -> AsyncIterator[None]:
            with suppress(InvalidState):
                yield

        server.add_interceptor(other)
        with pytest.raises(RemoteFault, match="other.*around 'double' has caught InvalidState and set no"):
            service.double(1)

    def test_one_that_proceeds_twice(self, server: Server, service: Awaited) -> None:
        """The routine runs once, and the call ends with an error that says so, whatever its end raises then."""
        server.add_interceptor(twice)
        with pytest.raises(RemoteFault, match="second `yield`"):
            service.double(1)

        ended: list[str] = []

        async def fail_at_the_end(call: IncomingCall) -> AsyncIterator[None]:
            yield
            try:
                yield
            finally:
                await asyncio.sleep(0)
                ended.append(call.operation)
                raise LookupError("at its end")

        with Server("loopback://awaited-interceptors", interceptors=[fail_at_the_end]) as other:
            other.register(Awaited, Routines())
            other.listen()
            with Client(other.endpoint) as client, pytest.raises(RemoteFault, match="second `yield`"):
                client.bind(Awaited).double(1)
            assert ended == ["double"]

    def test_an_interrupt_as_one_ends(self) -> None:
        """In a loop of the main thread it is for the program, also where what one raises else would not count."""

        async def interrupted(call: IncomingCall) -> AsyncIterator[None]:
            yield
            try:
                yield
            finally:
                raise KeyboardInterrupt

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda *told: None)
            async with Server("loopback://awaited-interceptors", interceptors=[interrupted]) as server:
                server.register(Awaited, Routines())
                server.listen()
                async with Client(server.endpoint) as client:
                    await client.bind(Awaited).double.begin(1)

        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())


class TestWhatCannotBe:
    """What is refused where it is given."""

    def test_an_ordinary_routine_that_is_there(self, server: Server, service: Awaited) -> None:
        """One that awaits cannot run around it; nothing is added."""
        server.register(Plain, PlainRoutines())
        with pytest.raises(InvalidArgumentType, match=r"refusing.* awaits.*'double'.*make that an `async def`"):
            server.add_interceptor(refusing)
        assert service.double(1) == 2

    def test_an_ordinary_routine_that_comes_later(self, server: Server) -> None:
        """It is not registered, so that nobody calls it without what is to run around it."""
        server.add_interceptor(refusing)
        with pytest.raises(InvalidArgumentType, match="'double', an ordinary routine"):
            server.register(Plain, PlainRoutines())
        with Client(server.endpoint) as client, pytest.raises(UnknownInterface):
            client.bind(Plain).double(1)

    @pytest.mark.parametrize("given", [lambda plain: plain, partial])
    def test_an_async_def_without_a_yield(self, server: Server, given: Callable[[Any], Any]) -> None:
        """It is none that could let a call proceed."""

        async def plain(call: IncomingCall) -> None:
            pass

        with pytest.raises(InvalidArgumentType, match="async generator function, with one `yield`, and .*has none"):
            server.add_interceptor(given(plain))
        with pytest.raises(InvalidArgumentType, match="interceptor"):
            server.add_interceptor(untyped(7))

    def test_one_that_returns_something_else(self, server: Server, service: Awaited) -> None:
        """The call ends with an error that says what it is to be."""

        class Odd:
            async def __call__(self, call: IncomingCall) -> AsyncIterator[None]:
                yield

        odd = Odd()
        server.add_interceptor(odd)
        assert service.double(1) == 2
        Odd.__call__ = lambda self, call: []  # type: ignore[assignment,method-assign,return-value]  # on purpose
        with pytest.raises(RemoteFault, match="async generator function.*returned a list"):
            service.double(1)
