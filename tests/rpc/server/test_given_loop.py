"""`async def` routines in the program's own event loop, and what ends their tasks in any loop."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from engine import (
    Call,
    CallCancelled,
    CallError,
    CallFailed,
    CallTimeout,
    Client,
    Deadlock,
    Interface,
    InvalidArgumentType,
    OutPipe,
    Pipe,
    RemoteFault,
    Server,
    ServerTooBusy,
    manager,
    operation,
)
from engine.testing import LIMIT, wait_until

ENDPOINT = "tcp://127.0.0.1:0"
tenant = contextvars.ContextVar("tenant", default="nobody")


class Work(Interface, id="test.GivenLoop"):
    """What the routines of these tests do."""

    @operation
    def put(self, value: int) -> str: ...

    @operation
    def hold(self, answer: str = "") -> str: ...

    @operation
    def open(self) -> None: ...

    @operation
    def handled(self) -> str: ...

    @operation
    def numbers(self, numbers: OutPipe[int] = ...) -> None: ...

    @operation(one_way=True)
    def send(self) -> None: ...

    @operation
    def fail(self) -> None: ...


class Routines:
    """Tell in `told` what becomes of them."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.told: list[str] = []
        self.gate: asyncio.Event = asyncio.Event()

    async def put(self, value: int) -> str:
        await self.queue.put(value)
        task = asyncio.current_task()
        assert task is not None
        where = threading.current_thread() is threading.main_thread()
        mine, _ = tenant.get(), tenant.set(f"of {value}")
        return f"{mine} {where} {task.get_name()}"

    async def hold(self, answer: str = "") -> str:
        self.told.append("begun")
        try:
            await self.gate.wait()
        except asyncio.CancelledError as error:
            self.told.append(f"cancelled: {error}")
            await asyncio.sleep(0)  # A second cancel would end this, and not let the next line be.
            self.told.append("ended")
            if answer:
                return answer
            raise
        return "through"

    async def open(self) -> None:
        self.gate.set()

    @manager
    async def handled(self, call: Any) -> None:
        call.complete("answered")
        await self.hold()

    async def numbers(self, numbers: Pipe[int]) -> AsyncIterator[int]:
        try:
            yield 1
            await self.hold()
        finally:
            self.told.append("closed")

    async def send(self) -> None:
        await self.hold()

    async def fail(self) -> None:
        raise KeyError("of the routine")


async def until(condition: Callable[[], object]) -> None:
    """Return once the condition holds, and let the loop go on meanwhile."""
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0.001)  # Between two looks.


@pytest.fixture(params=["the program's", "its own"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[[Routines, Work], Awaitable[None]]], Routines]]:
    """Runs a test in a loop, with a server whose routines run in that or in the server's own, and a client."""

    def run(test: Callable[[Routines, Work], Awaitable[None]]) -> Routines:
        routines = Routines()

        async def main() -> None:
            server = Server(ENDPOINT)
            server.register(Work, routines)
            if request.param == "its own":
                server.listen()
            async with server:
                if request.param != "its own":
                    server.listen()
                async with Client(server.endpoint) as client:
                    await test(routines, client.bind(Work))

        asyncio.run(main())
        return routines

    yield run


Run = Callable[[Callable[[Routines, Work], Awaitable[None]]], Routines]


class TestTheProgramsLoop:
    """A server that is entered by `async with`, or given a loop, runs its `async def` routines there."""

    @pytest.mark.parametrize("given", [False, True])
    def test_beside_the_programs_tasks(self, given: bool) -> None:
        """They run in its thread, share its queue, have its context and the names of their calls; what one sets in its
        context, no other sees.
        """

        async def main() -> None:
            routines = Routines()
            tenant.set("mine")
            loop = asyncio.get_running_loop() if given else None
            async with Server(ENDPOINT, loop=loop) as server:
                server.register(Work, routines)
                server.listen()
                async with Client(server.endpoint) as client:
                    work = client.bind(Work)
                    for value in (1, 2):
                        told = await work.put.begin(value)
                        assert told == f"mine True test.GivenLoop.put-{value}"
                        assert await routines.queue.get() == value
                        assert tenant.get() == "mine"

        asyncio.run(main())

    @pytest.mark.parametrize("given", [False, True])
    def test_waiting_in_its_thread(self, given: bool) -> None:
        """`listen(wait=True)`, and `wait()`, are refused where no routine could get on meanwhile, and nothing is done;
        the error names what to await instead.
        """

        async def main() -> None:
            loop = asyncio.get_running_loop() if given else None
            async with Server(ENDPOINT, loop=loop) as server:
                server.register(Work, Routines())
                with pytest.raises(Deadlock, match=r"`server\.listen\(\)`.*`await server\.wait_async\(\)`"):
                    server.listen(wait=True)
                assert not server.listening
                server.listen()
                with pytest.raises(Deadlock, match="wait_async"):
                    server.wait()
                assert not await asyncio.to_thread(server.wait, 0.001)  # Others may.
                server.stop()
                assert await server.wait_async(LIMIT)

        asyncio.run(main())

    def test_a_loop_that_does_not_run_yet(self) -> None:
        """Calls wait until it runs."""
        loop = asyncio.new_event_loop()
        routines = Routines()
        try:
            with Server(ENDPOINT, loop=loop) as server:
                server.register(Work, routines)
                server.listen()
                with Client(server.endpoint) as client:
                    call = client.bind(Work).put.begin(5)
                    wait_until(lambda: server.statistics().calls_in > 0)
                    assert not call.done()
                    assert loop.run_until_complete(asyncio.wait_for(call, LIMIT)) == "nobody True test.GivenLoop.put-1"
        finally:
            loop.close()

    def test_a_loop_that_was_closed(self) -> None:
        """Calls are refused: they have not run. The server closes in good order."""
        loop = asyncio.new_event_loop()
        loop.close()
        with Server(ENDPOINT, loop=loop) as server:
            server.register(Work, Routines())
            server.listen()
            with Client(server.endpoint) as client, pytest.raises(ServerTooBusy, match="no event loop"):
                client.bind(Work).put(5)

    def test_a_program_that_ends_its_loop(self) -> None:
        """The end of `asyncio.run` cancels the tasks of routines as any other; their calls end with 1818."""
        routines = Routines()
        with Server(ENDPOINT) as server:
            server.register(Work, routines)

            async def main() -> Any:
                await server.__aenter__()
                server.listen()
                client = Client(server.endpoint)
                call = client.bind(Work).hold.begin()
                await until(lambda: routines.told)
                return client, call

            client, call = asyncio.run(main())
            with client, pytest.raises(CallCancelled, match="the routine was cancelled"):
                call.result(LIMIT)
            assert routines.told == ["begun", "cancelled: ", "ended"]

    def test_what_routines_raise(self, run: Run) -> None:
        """It is the outcome of the call, and nothing of it is left to the loop's handler of exceptions."""
        unhandled: list[Any] = []

        async def test(routines: Routines, work: Work) -> None:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
            with pytest.raises(RemoteFault, match="KeyError: 'of the routine'"):
                await work.fail.begin()

        run(test)
        assert unhandled == []

    def test_closing(self) -> None:
        """A server that closes cancels the tasks that are left, once, and waits for their ends."""
        routines = Routines()

        async def main() -> None:
            async with Server(ENDPOINT) as server:
                server.register(Work, routines)
                server.listen()
                async with Client(server.endpoint) as client:
                    call = client.bind(Work).hold.begin()
                    await until(lambda: routines.told)
                    await server.aclose(0)
                    assert routines.told == ["begun", "cancelled: the server was closed", "ended"]
                    with pytest.raises(CallFailed):
                        await call

        asyncio.run(main())

    def test_closing_in_the_loops_own_thread(self) -> None:
        """It warns, cancels the tasks, and does not wait for what only its own thread could do."""
        routines = Routines()

        async def main() -> None:
            server = await Server(ENDPOINT).__aenter__()
            server.register(Work, routines)
            server.listen()
            async with Client(server.endpoint) as client:
                call = client.bind(Work).hold.begin()
                await until(lambda: routines.told)
                with pytest.warns(RuntimeWarning, match="aclose|async with"):
                    server.close(0.01)
                with pytest.raises(CallError):
                    await call
                await until(lambda: "ended" in routines.told)

        asyncio.run(main())

    @pytest.mark.parametrize("loop", ["asyncio", 5, object()])
    def test_what_is_no_loop(self, loop: Any) -> None:
        """Anything but an event loop is refused."""
        with pytest.raises(InvalidArgumentType, match="loop must be"):
            Server(ENDPOINT, loop=loop)


class TestInterrupts:
    """Nobody waits for the answer any more: the task is cancelled, and the call is closed once."""

    def test_an_abort(self, run: Run) -> None:
        """An abortive cancel cancels the task, and says why."""

        async def test(routines: Routines, work: Work) -> None:
            call = work.hold.begin()
            await until(lambda: routines.told)
            call.cancel(abort=True)
            with pytest.raises(CallCancelled):
                await call
            await until(lambda: "ended" in routines.told)

        assert run(test).told == ["begun", "cancelled: the client has cancelled the call", "ended"]

    def test_a_cancel(self, run: Run) -> None:
        """A plain cancel only tells."""

        async def test(routines: Routines, work: Work) -> None:
            call = work.hold.begin()
            await until(lambda: routines.told)
            call.cancel()
            assert await work.put.begin(1)  # In order behind the cancel.
            await work.open.begin()
            assert await call == "through"

        assert run(test).told == ["begun"]

    def test_a_task_that_is_cancelled(self, run: Run) -> None:
        """A client's task that is cancelled, by a time-out or a task group, cancels the routine's."""

        async def test(routines: Routines, work: Work) -> None:
            for wait in (lambda call: asyncio.wait_for(call, 0.001), _in_a_group):
                call = work.hold.begin()
                await until(lambda: routines.told)
                with pytest.raises((TimeoutError, ExceptionGroup)):
                    await wait(call)
                await until(lambda: "ended" in routines.told)
                routines.told.clear()

        run(test)

    def test_the_time_of_the_call(self, run: Run) -> None:
        """So does the end of its time limit, which the server watches itself."""

        async def test(routines: Routines, work: Work) -> None:
            for seconds in (0.1, 1.0, LIMIT):  # On a busy machine it may not be begun in time.
                with pytest.raises(CallTimeout):
                    await work.hold.begin(timeout=seconds)
                if routines.told:
                    break
            await until(lambda: "ended" in routines.told)

        assert run(test).told == ["begun", "cancelled: the time of its call is up", "ended"]

    def test_a_client_that_goes(self, run: Run) -> None:
        """So does the end of the client's connection; a one-way call goes on: its client was told that it is done."""
        served = Routines()

        async def test(routines: Routines, work: Work) -> None:
            async with Server(ENDPOINT) as server:
                server.register(Work, served)
                server.listen()
                async with Client(server.endpoint) as client:
                    client.bind(Work).send.begin()
                    client.bind(Work).hold.begin()
                    await until(lambda: len(served.told) == 2)
                await until(lambda: "ended" in served.told)
                served.gate.set()
                await until(lambda: server.statistics().active == 0)

        run(test)
        assert served.told == ["begun", "begun", "cancelled: the client is gone", "ended"]

    def test_a_routine_that_takes_no_notice(self, run: Run) -> None:
        """Its answer goes nowhere; nothing is closed twice."""

        async def test(routines: Routines, work: Work) -> None:
            call = work.hold.begin("all the same")
            await until(lambda: routines.told)
            call.cancel(abort=True)
            with pytest.raises(CallCancelled):
                await call
            await until(lambda: "ended" in routines.told)
            assert await work.put.begin(1)

        run(test)

    def test_what_was_answered(self, run: Run) -> None:
        """The task of a manager routine that has answered its call goes on, whatever becomes of the client."""

        async def test(routines: Routines, work: Work) -> None:
            call = work.handled.begin()
            assert await call == "answered"
            await until(lambda: routines.told)
            assert await work.put.begin(1)
            await work.open.begin()

        assert run(test).told == ["begun"]

    def test_a_stream(self, run: Run) -> None:
        """A stream that is left ends its asynchronous generator, which runs its `finally`."""

        async def test(routines: Routines, work: Work) -> None:
            async with work.numbers.stream() as stream:
                assert await anext(stream) == 1
                await until(lambda: routines.told)
            await until(lambda: "closed" in routines.told)

        run(test)

    def test_a_task_that_never_begun(self) -> None:
        """A call that is aborted while its loop does not run is not run when it does."""
        loop = asyncio.new_event_loop()
        routines = Routines()
        try:
            with Server(ENDPOINT, loop=loop) as server:
                server.register(Work, routines)
                server.listen()
                with Client(server.endpoint) as client:
                    work = client.bind(Work)
                    call = work.hold.begin()
                    wait_until(lambda: server.statistics().calls_in > 0)
                    arrived = server.statistics().messages_in
                    call.cancel(abort=True)
                    wait_until(lambda: server.statistics().messages_in > arrived)
                    assert loop.run_until_complete(asyncio.wait_for(work.put.begin(1), LIMIT))
                    assert routines.told == []
        finally:
            loop.close()


async def _in_a_group(call: Call[Any]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(call)
        raise ValueError("the group ends")
