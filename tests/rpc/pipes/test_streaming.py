"""The four kinds of streaming, by iterators and asynchronous iterators, on both sides."""

import asyncio
import contextlib
import contextvars
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from engine import (
    BadStubData,
    CallCancelled,
    EngineError,
    InvalidArgumentType,
    InvalidParameter,
    PipePending,
    RemoteFault,
)
from engine.testing import LIMIT, Gate, wait_until

from ..helpers import Child, interrupted, limits, present, status_of, untyped
from .conftest import Piped
from .interfaces import Point


async def later(count: int) -> AsyncIterator[int]:
    """Yield the numbers below `count`, letting other tasks run in between."""
    for number in range(count):
        await asyncio.sleep(0)
        yield number


class TestStreamUnary:
    """Many elements to the server, one result back."""

    @pytest.mark.parametrize("name", ["total", "total_async"])
    def test_a_blocking_call(self, piped: Piped, name: str) -> None:
        """The calling thread pushes what the iterable yields, and gets the result."""
        assert getattr(piped.streams, name)(5, range(1000)) == 5 + sum(range(1000))
        assert getattr(piped.streams, name)(5, numbers=iter([1, 2])) == 8
        assert getattr(piped.streams, name)(start=5, numbers=[]) == 5

    def test_a_pipe_in_the_first_place(self, far: Piped) -> None:
        """A pipe may be given by name wherever it stands, and the defaults of the others hold."""
        assert status_of(lambda: far.streams.first(numbers=[4711])) == 4711
        assert status_of(lambda: untyped(far.streams.first)(2, numbers=[4711])) == 9422
        assert status_of(lambda: far.streams.first([4711], 3)) == 14133

    def test_a_blocking_call_in_an_event_loop(self, far: Piped) -> None:
        """In asyncio's debug mode it is refused before anything was sent, or taken from the iterable."""
        items = iter([1, 2])

        async def main() -> None:
            far.streams.total(5, items)

        before = far.client.statistics().calls_begun
        with pytest.raises(RuntimeWarning, match=r"^PipedOperation\.__call__\(\) blocks"):
            asyncio.run(main(), debug=True)
        assert far.client.statistics().calls_begun == before and list(items) == [1, 2]

    def test_begin_with_an_iterable(self, piped: Piped) -> None:
        """The library pushes it, from another thread; the call is completed as any other."""
        call = piped.streams.total.begin(5, range(1000))
        assert call.result(LIMIT) == 5 + sum(range(1000))

    def test_begin_with_an_asynchronous_iterable(self, piped: Piped) -> None:
        """A task of the running loop pushes it."""

        async def main() -> int:
            calls = [piped.streams.total.begin(number, later(50)) for number in range(3)]
            return [await call for call in calls] == [sum(range(50)) + number for number in range(3)]

        assert asyncio.run(main())

    def test_an_asynchronous_iterable_without_a_loop(self, far: Piped) -> None:
        """There is nobody to iterate over it."""
        with pytest.raises(InvalidArgumentType, match="event loop"):
            far.streams.total.begin(5, later(1))
        with pytest.raises(InvalidArgumentType, match="iterable"):
            far.streams.total(5, later(1))

    def test_an_iterable_that_raises_in_a_blocking_call(self, piped: Piped) -> None:
        """Its exception comes out, and the call is cancelled."""

        def broken() -> Iterator[int]:
            yield 1
            raise LookupError("no more")

        with pytest.raises(LookupError, match="no more"):
            piped.streams.total(5, broken())
        assert piped.client.statistics().outstanding == 0

    def test_an_iterable_that_raises_elsewhere(self, piped: Piped) -> None:
        """The call ends with 1818, which says why."""

        def broken() -> Iterator[int]:
            yield 1
            raise LookupError("no more")

        call = piped.streams.total.begin(5, broken())
        assert call.wait(LIMIT)
        with pytest.raises(CallCancelled, match="LookupError: no more") as caught:
            call.complete()
        assert isinstance(caught.value.__cause__, LookupError)

    def test_a_server_that_wants_no_more(self, piped: Piped) -> None:
        """Its outcome is what the caller gets, and the iterable is left alone."""

        def endless() -> Iterator[int]:
            while True:
                yield 4711

        assert status_of(lambda: piped.streams.first(numbers=endless())) == 4711
        call = piped.streams.first.begin(numbers=endless())
        assert call.wait(LIMIT) and status_of(call.complete) == 4711

    def test_what_is_no_iterable(self, far: Piped) -> None:
        """It is refused, and nothing is sent."""
        for bad in (5, "text", b"bytes"):
            with pytest.raises(InvalidArgumentType, match="numbers"):
                untyped(far.streams.total).begin(5, bad)
        with pytest.raises(InvalidArgumentType, match="left out|leave it out"):
            untyped(far.streams.count).begin(5, numbers=[1])
        with pytest.raises(InvalidArgumentType):
            untyped(far.streams.total).begin("five", [1])
        with pytest.raises(InvalidArgumentType):
            untyped(far.streams.total).begin()
        with pytest.raises(InvalidArgumentType, match="needs an iterable"):
            far.streams.total(5)
        with pytest.raises(InvalidArgumentType, match="twice"):
            untyped(far.streams.total).begin(5, [1], numbers=[1])
        assert far.client.statistics().outstanding == 0


class TestUnaryStream:
    """One request, many elements back."""

    def test_for_in_an_event_loop(self, piped: Piped) -> None:
        """In asyncio's debug mode `for` is refused at the first element, even if it is there, and the call ends."""

        async def main() -> None:
            stream = piped.streams.count.stream(3)
            wait_until(lambda: stream.call.done())
            with pytest.raises(RuntimeWarning, match=r"^Stream\.__next__\(\) blocks"):
                next(stream)
            assert list(stream) == []

        asyncio.run(main(), debug=True)

    def test_for(self, piped: Piped) -> None:
        """A stream yields the elements; its result is there at the end."""
        stream = piped.streams.count.stream(2500)
        assert stream.result is None
        assert list(stream) == list(range(2500))
        assert stream.result == "counted"
        assert list(stream) == []

    def test_async_for(self, piped: Piped) -> None:
        """The same in an event loop, several streams at once."""

        async def gather(limit: int) -> list[int]:
            stream = piped.streams.count.stream(limit)
            found = [number async for number in stream]
            assert stream.result == "counted"
            return found

        async def main() -> list[list[int]]:
            return list(await asyncio.gather(*(gather(limit) for limit in (0, 1, 700))))

        assert asyncio.run(main()) == [[], [0], list(range(700))]

    def test_an_asynchronous_generator(self, piped: Piped) -> None:
        """It serves the pipe as a generator does."""
        stream = piped.streams.count_async.stream(1500)
        assert list(stream) == list(range(1500))
        assert stream.result is None

    def test_a_generator_that_raises(self, piped: Piped) -> None:
        """What it had yielded arrives, then its error."""
        stream = piped.streams.count_then_fail.stream(10)
        found = []
        with pytest.raises(RemoteFault, match="after counting") as caught:
            for number in stream:
                found.append(number)
        assert found == list(range(10))
        assert caught.value.type_name == "KeyError"

    @pytest.mark.parametrize("name", ["unsendable", "unsendable_async"])
    def test_a_generator_that_yields_what_cannot_be_sent(self, piped: Piped, name: str) -> None:
        """The caller gets 1783, as for a result that cannot be sent."""
        with pytest.raises(BadStubData, match="pipe 'numbers'"):
            list(getattr(piped.streams, name).stream(timeout=LIMIT))

    @pytest.mark.parametrize("name", ["count", "count_async"])
    def test_calls_in_the_loop(self, piped: Piped, name: str) -> None:
        """While a generator waits until it may push, later calls of its client are entered: readers make some."""
        for _ in range(2):  # The second time its server knows that it takes long.
            with getattr(piped.streams, name).stream(1 << 20) as stream:
                for number in range(80):
                    assert next(stream) == number
                    assert piped.streams.total(number, [1], timeout=LIMIT) == number + 1

    def test_iterating_over_a_pipe_of_a_call(self, piped: Piped) -> None:
        """A pipe iterates too; the call is completed by hand."""
        call = piped.streams.count.begin(100)
        assert list(call.pipe("numbers")) == list(range(100))
        assert call.result(LIMIT) == "counted"

        async def main() -> tuple[list[int], str]:
            call = piped.streams.count.begin(100)
            return [number async for number in call.pipe("numbers")], await call

        assert asyncio.run(main()) == (list(range(100)), "counted")

    def test_left_early_in_a_with_block(self, piped: Piped) -> None:
        """The call is cancelled, and the routine ends."""
        with piped.streams.swell.stream(1000) as stream:
            for block in stream:
                assert len(block) == 1000
                break
        assert piped.client.statistics().outstanding == 0
        wait_until(lambda: piped.aside.swelled() == -1)
        stream.close()
        assert list(stream) == []

    def test_dropped_early(self, piped: Piped) -> None:
        """A stream that is dropped has its call cancelled as well."""
        for _ in piped.streams.swell.stream(1000):
            break
        gc.collect()
        wait_until(lambda: piped.aside.swelled() == -1)
        wait_until(lambda: piped.client.statistics().outstanding == 0)

    def test_left_early_in_a_task(self, piped: Piped) -> None:
        """A task that is cancelled while it waits for an element leaves the call to be cancelled."""

        async def main() -> None:
            async with piped.streams.held_out.stream("never pushed") as stream:
                task = asyncio.ensure_future(anext(aiter(stream)))
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(main())
        assert piped.client.statistics().outstanding == 0

    def test_the_end_of_a_block_in_a_task(self, piped: Piped) -> None:
        """The end of an `async with` block cancels the call at once, though the stream is kept, and its end was not
        reached.
        """

        async def main() -> None:
            async with piped.streams.swell.stream(10) as stream:
                assert await anext(stream) == bytes(10)
            assert stream.call.status() == 1818

        asyncio.run(main())

    def test_a_task_that_is_cancelled(self, piped: Piped, key: str) -> None:
        """A task that is cancelled in the midst of `async for` cancels the call at once, though the stream is kept."""
        stream = piped.streams.held_out.stream(key)
        piped.hand.arrived(key)

        async def main() -> None:
            async def read() -> None:
                async for _ in stream:
                    pass

            task = asyncio.create_task(read())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert piped.client.statistics().outstanding == 0
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

        asyncio.run(main())
        piped.hand.cancelled(key)
        assert list(stream) == []

    def test_a_thread_that_is_interrupted(self, piped: Piped, key: str) -> None:
        """So does a thread that a signal handler interrupts while it waits for an element."""
        stream = piped.streams.held_out.stream(key)
        piped.hand.arrived(key)
        with interrupted():
            next(stream)
        assert piped.client.statistics().outstanding == 0
        piped.hand.cancelled(key)
        assert list(stream) == []

    def test_closed_in_a_task(self, piped: Piped) -> None:
        """`aclose` cancels the call, as `contextlib.aclosing` expects it of whatever is iterated over."""

        async def main() -> None:
            async with contextlib.aclosing(piped.streams.swell.stream(100_000)) as stream:
                async for _ in stream:
                    break
            assert piped.client.statistics().outstanding == 0
            await stream.aclose()
            assert [item async for item in stream] == []

        asyncio.run(main())
        wait_until(lambda: piped.aside.swelled() == -1)

    def test_what_cannot_be_streamed(self, far: Piped) -> None:
        """Streaming takes one pipe to pull; calling outright takes none."""
        with pytest.raises(InvalidParameter):
            far.streams.total.stream(5, [1])
        with pytest.raises(InvalidParameter):
            far.streams.held_many.stream("key")
        with pytest.raises(InvalidParameter):
            far.hand.arrived.stream("key")
        with pytest.raises(InvalidParameter, match="stream"):
            far.streams.count(5)
        with pytest.raises(InvalidArgumentType, match="numbers"):
            far.streams.backwards.stream()
        assert far.client.statistics().outstanding == 0


class TestStreamStream:
    """Many elements both ways."""

    def test_in_then_out(self, piped: Piped) -> None:
        """By default the routine pulls all before it pushes."""
        stream = piped.streams.backwards.stream(range(300))
        assert list(stream) == list(reversed(range(300)))
        assert stream.result == 300

    def test_two_pipes(self, piped: Piped) -> None:
        """An in pipe and an out pipe do the same."""
        stream = piped.streams.mirror.stream([Point(number) for number in range(50)])
        assert list(stream) == [Point(0, number) for number in range(50)]

    @pytest.mark.parametrize("name", ["doubled", "doubled_async"])
    def test_both_at_once(self, piped: Piped, name: str) -> None:
        """A duplex operation answers each element before the next is there."""
        answered = Gate()

        def questions() -> Iterator[int]:
            yield 1
            answered.pass_through()
            yield 2

        stream = getattr(piped.streams, name).stream(questions())
        assert next(stream) == 2
        answered.open()
        assert list(stream) == [4]
        assert stream.result == "doubled"

    def test_both_at_once_in_a_loop(self, piped: Piped) -> None:
        """The same with asynchronous iterators."""

        async def main() -> list[int]:
            answered = asyncio.Event()

            async def questions() -> AsyncIterator[int]:
                yield 1
                await answered.wait()
                yield 2

            stream = piped.streams.doubled.stream(questions())
            found = [await anext(stream)]
            answered.set()
            return found + [number async for number in stream]

        assert asyncio.run(main()) == [2, 4]

    def test_by_hand_in_a_duplex_call(self, piped: Piped) -> None:
        """A client may pull before it has pushed all, if the operation is duplex."""
        call = piped.streams.doubled.begin()
        pipe = call.pipe("numbers")
        for number in range(10):
            pipe.push([number])
            assert pipe.pull_wait(timeout=LIMIT) == [2 * number]
        pipe.push([])
        assert pipe.pull_wait(timeout=LIMIT) == []
        assert call.result(LIMIT) == "doubled"

    def test_by_hand_in_a_task(self, piped: Piped) -> None:
        """The same, awaited."""

        async def main() -> Any:
            call = piped.streams.doubled_async.begin()
            pipe = call.pipe("numbers")
            for number in range(10):
                await pipe.push_async([number])
                assert await pipe.pull_async() == [2 * number]
            await pipe.push_async([])
            assert await pipe.pull_async() == []
            return await call

        assert asyncio.run(main()) == "doubled"


class TestCancelledTasks:
    """A task that is cancelled while it waits for a pipe gives its call up, as one that awaits the call does."""

    @staticmethod
    async def cancelled(awaitable: Any) -> None:
        """Cancel a task once it waits."""
        task = asyncio.ensure_future(awaitable)
        await asyncio.sleep(0)  # One turn of the loop: the task has run as far as it goes.
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    def test_while_it_iterates(self, piped: Piped, key: str) -> None:
        """The server is told, though all handles are dropped, and the client has no call left."""
        handles = [piped.held("held_out", key)]

        async def read() -> None:
            async for _ in handles.pop().pipe("numbers"):
                pass

        asyncio.run(self.cancelled(read()))
        piped.hand.cancelled(key)
        assert piped.client.statistics().outstanding == 0

    def test_while_it_pulls(self, piped: Piped, key: str) -> None:
        """The handle is still completed, and tells that its call was cancelled. A thread that has waited before, and
        waits no longer, does not keep the call alive.
        """
        call = piped.held("held_out", key)
        with pytest.raises(PipePending):
            call.pipe("numbers").pull_wait(timeout=0.001)
        asyncio.run(self.cancelled(call.pipe("numbers").pull_async()))
        assert call.status() == 1818
        with pytest.raises(CallCancelled):
            call.complete()
        piped.hand.cancelled(key)

    def test_while_it_pushes(self, piped: Piped, key: str) -> None:
        """A push that waits for room likewise."""
        call = piped.held("held_in", key)
        call.pipe("numbers").push([1] * 1_000_000)  # Beyond the window: the next one waits.
        asyncio.run(self.cancelled(call.pipe("numbers").push_async([1])))
        assert status_of(call.complete) == 1818
        piped.hand.cancelled(key)

    @pytest.mark.parametrize("other", ["the call", "the pipe"])
    def test_while_another_waits(self, piped: Piped, key: str, other: str) -> None:
        """The call goes on for as long as another task waits for it, or for a pipe of it."""
        call = piped.held("held_out", key)
        pipe = call.pipe("numbers")

        async def main() -> None:
            waits: Any = asyncio.ensure_future(pipe.pull_async() if other == "the pipe" else call)
            await self.cancelled(pipe.pull_async())
            assert call.status() == 997
            if other == "the pipe":
                await self.cancelled(call)
                assert call.status() == 997
            await self.cancelled(waits)
            assert call.status() == 1818

        asyncio.run(main())
        piped.hand.cancelled(key)

    def test_while_the_library_pushes(self, piped: Piped, key: str) -> None:
        """What the library itself pushes from an iterable keeps no call alive."""
        endless = iter(lambda: 1, 0)

        async def main() -> None:
            call = piped.streams.held_both.begin(key, endless)
            await asyncio.to_thread(piped.hand.arrived, key)
            await asyncio.to_thread(wait_until, lambda: call._pipes.find("numbers").pushers)  # It waits for room.
            await self.cancelled(call.pipe("numbers").pull_async())
            assert call.status() == 1818

        asyncio.run(main())
        piped.hand.cancelled(key)

    def test_by_a_time_limit(self, piped: Piped, key: str) -> None:
        """`asyncio.wait_for` cancels what it waits for; behind a shield the pull, and the call, go on."""
        call = piped.held("held_out", key)

        async def main() -> Any:
            pulling = asyncio.ensure_future(call.pipe("numbers").pull_async())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(pulling), 0.001)
            assert await asyncio.to_thread(piped.hand.push, key, "numbers", [7]) == 0
            return await pulling

        assert asyncio.run(main()) == [7]
        assert piped.hand.abort(key, 1) == 0

    def test_in_a_routine(self, piped: Piped) -> None:
        """A routine may give up a pull, and pull again: its call is its own to answer."""
        assert piped.streams.total_patiently([1, 2, 3]) == 6


class TestBuffers:
    """Results and outputs that fill the caller's buffers, beside pipes."""

    def test_into_of_a_blocking_call(self, piped: Piped) -> None:
        """The result fills the buffer when the call was completed."""
        buffer = bytearray(4)
        assert bytes(piped.streams.joined([1, 2, 3], into=buffer)) == b"\1\2\3"
        assert buffer == b"\1\2\3\0"

    def test_into_of_begin(self, piped: Piped) -> None:
        """Not before."""
        buffer = bytearray(4)
        call = piped.streams.joined.begin(range(4), into=buffer)
        assert call.wait(LIMIT) and buffer == bytes(4)
        call.complete()
        assert buffer == b"\0\1\2\3"

    def test_into_of_a_stream(self, piped: Piped) -> None:
        """The end of a stream completes its call, and fills the buffer; leaving it early does not."""
        buffer = bytearray(4)
        stream = piped.streams.counted.stream(4, into=buffer)
        assert list(stream) == [0, 1, 2, 3] and bytes(present(stream.result)) == b"\0\1\2\3" == buffer
        other = bytearray(4)
        with piped.streams.counted.stream(4, into=other) as stream:
            next(stream)
        assert other == bytes(4)

    def test_an_output(self, piped: Piped) -> None:
        """An operation may have pipes and outputs."""
        buffer = bytearray(4)
        assert piped.streams.collected([1, 2], buffer) == 2 and buffer == b"\1\2\0\0"
        call = untyped(piped.streams.collected).begin(buffer)
        call.pipe("numbers").push([9])
        call.pipe("numbers").push([])
        assert call.wait(LIMIT) and buffer == b"\1\2\0\0"
        assert call.complete() == 1 and buffer == b"\11\2\0\0"

    def test_what_is_no_buffer(self, far: Piped) -> None:
        """It is refused as the call is begun, and nothing is sent."""
        for begin in (far.streams.joined, far.streams.joined.begin):
            with pytest.raises(InvalidArgumentType, match="into"):
                begin([1], into=b"readonly")
        with pytest.raises(InvalidArgumentType, match="'data'"):
            untyped(far.streams.collected).begin([1], b"readonly")
        with pytest.raises(InvalidArgumentType, match="into"):
            far.streams.counted.stream(4, into="text")
        assert far.client.statistics().calls_begun == 0


class TestByName:
    """Bindings without a contract know of no pipes, and say so."""

    def test_streaming(self, far: Piped) -> None:
        """There is nothing to stream from; the error says what to bind instead."""
        with pytest.raises(InvalidParameter, match="Interface"):
            far.client.bind("test.Streams").count.stream(5)

    @pytest.mark.parametrize("args", [(5,), (5, [1]), (5, None), ()])
    def test_calling(self, far: Piped, args: tuple[Any, ...]) -> None:
        """The server refuses the call with 1783, and says so too."""
        with pytest.raises(BadStubData, match="total .*pipes need the Interface class"):
            far.client.bind("test.Streams").total(*args)


class TestContext:
    """What an iterable runs in."""

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_context_variables(self, piped: Piped, asynchronous: bool) -> None:
        """An iterable that the library iterates over aside sees the context variables of `begin`."""
        variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

        def items() -> Iterator[int]:
            yield variable.get()

        async def items_async() -> AsyncIterator[int]:
            yield variable.get()

        async def main() -> int:
            variable.set(41)
            call = piped.streams.total.begin(1, items_async() if asynchronous else items())
            variable.set(5)
            return await call

        assert asyncio.run(main()) == 42


class TestFailures:
    """Section 8: a peer that goes ends every wait on a pipe, with the right status."""

    def test_a_killed_server(self, piped_service: Any, piped_clients: Any) -> None:
        """A pull that waits, a push that waits and an awaiting task all end with 1726."""
        running = piped_service()
        piped = piped_clients(running.endpoint)
        reading = piped.held("held_out", "reading")
        writing = piped.held("held_in", "writing")
        stream = piped.streams.held_out.stream("streaming")
        piped.hand.arrived("streaming")
        writing.pipe("numbers").push([1] * 1_000_000)  # Beyond the window: the next one waits.
        assert status_of(lambda: writing.pipe("numbers").push([1])) == 997

        async def main() -> list[int]:
            async def fail(awaitable: Any) -> int:
                try:
                    await awaitable
                except EngineError as error:
                    return int(error.status)
                return 0

            waiting = [
                asyncio.ensure_future(fail(reading.pipe("numbers").pull_async())),
                asyncio.ensure_future(fail(writing.pipe("numbers").push_async([1]))),
                asyncio.ensure_future(fail(anext(stream))),
            ]
            await asyncio.sleep(0)
            running.kill()
            return list(await asyncio.gather(*waiting))

        assert asyncio.run(main()) == [1726, 1726, 1726]
        assert status_of(reading.complete) == 1914

    def test_a_killed_server_and_a_waiting_thread(self, piped_service: Any, piped_clients: Any) -> None:
        """A thread that iterates gets 1726 too."""
        running = piped_service()
        piped = piped_clients(running.endpoint)
        stream = piped.streams.swell.stream(10)
        next(stream)
        running.kill()
        with pytest.raises(EngineError) as caught:
            for _ in stream:
                pass
        assert caught.value.status == 1726

    def test_a_client_that_closes(self, piped: Piped, piped_clients: Any) -> None:
        """A routine that waits for room is ended when its client is gone."""
        other = piped_clients(piped.client.endpoint)
        stream = other.streams.swell.stream(100_000)
        next(stream)
        other.close()
        wait_until(lambda: piped.aside.swelled() == -1)
        with pytest.raises(CallCancelled):
            for _ in stream:
                pass

    def test_a_killed_client(self, piped_service: Any, piped_clients: Any, children: Callable[..., Child]) -> None:
        """So it is when the client is killed."""
        running = piped_service()
        piped = piped_clients(running.endpoint)
        reader = children("tests.rpc.pipes.reader", running.endpoint)
        assert reader.said == "pulled" and piped.aside.swelled() > 0
        reader.kill()
        wait_until(lambda: piped.aside.swelled() == -1)

    def test_a_time_limit(self, piped: Piped) -> None:
        """It ends a stream, and the routine that serves it."""
        for limit in limits(0.05, 0.5, 5.0, LIMIT / 4):
            stream = piped.streams.swell.stream(100_000, timeout=limit)
            assert stream.call.wait(LIMIT)
            with pytest.raises(EngineError) as caught:
                for _ in stream:
                    pass
            assert caught.value.status == 1818
            if piped.aside.swelled():  # Otherwise the routine had not begun by then.
                break
        wait_until(lambda: piped.aside.swelled() == -1)

    def test_nobody_is_there(self) -> None:
        """A call with pipes that reaches no server ends as any other, and so do its pipes."""
        from engine import Client

        from .interfaces import Streams

        with Client("loopback://nobody", connect_timeout=0.01) as client:
            streams = client.bind(Streams)
            assert status_of(lambda: streams.total(5, [1])) == 1722
            assert status_of(lambda: list(streams.count.stream(5))) == 1722
            call = streams.count.begin(5)
            assert status_of(lambda: call.pipe("numbers").pull_wait()) == 1722

    def test_interrupted_waits(self, far: Piped, key: str) -> None:
        """A wait that ran out leaves nothing behind: the next one gets what comes."""
        call = far.held("held_out", key)
        for _ in range(3):
            with pytest.raises(PipePending):
                call.pipe("numbers").pull_wait(timeout=0.001)
        assert far.hand.push(key, "numbers", [1]) == 0
        assert call.pipe("numbers").pull_wait(timeout=LIMIT) == [1]
