"""Awaiting calls from event loops."""

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, TypeVarTuple

import pytest

from engine import Call, CallCancelled, EngineError, Event, InvalidAsyncHandle, RemoteFault, Server, State
from engine.testing import LIMIT, wait_until, wait_until_blocked

from ..helpers import Bench, Service

Benches = Callable[..., Bench]
Args = TypeVarTuple("Args")
Find = Callable[[str], str]


class TestAwait:
    """Awaiting a call from an event loop."""

    def test_value_and_failure(self, any_bench: Bench) -> None:
        """`await` gives the result, or raises the failure."""

        async def main() -> None:
            assert await any_bench.probe.echo.begin("x") == "x"
            with pytest.raises(EngineError):
                await any_bench.probe.fail.begin("ValueError", "awaited")

        asyncio.run(main())

    def test_many_at_once(self, any_bench: Bench) -> None:
        """Many calls can be awaited together."""

        async def main() -> list[Any]:
            return await asyncio.gather(*(any_bench.probe.echo.begin(number) for number in range(200)))

        assert asyncio.run(main()) == list(range(200))

    def test_again(self, bench: Bench) -> None:
        """A call that was awaited may be awaited again, in another loop too: the result is the same object."""
        call = bench.done(["there"])

        async def main() -> Any:
            first = await call
            assert await call is first
            return first

        assert asyncio.run(main()) is asyncio.run(bench_await(call))

    def test_a_failure_again(self, bench: Bench) -> None:
        """So is the error, whose traceback does not grow with each."""
        call = bench.probe.fail.begin("ValueError", "awaited")

        async def main() -> None:
            raised: list[EngineError] = []
            lengths = []
            for _ in range(3):
                try:
                    await call
                except EngineError as error:
                    raised.append(error)
                    lengths.append(len(traceback.extract_tb(error.__traceback__)))
            assert raised[0] is raised[1] is raised[2]
            assert len(set(lengths)) == 1

        asyncio.run(main())

    def test_awaiting_collects(self, bench: Bench) -> None:
        """A call that was awaited is spent: completing it raises 1914, and so does awaiting what was completed."""
        awaited, completed = bench.done(), bench.done()
        completed.complete()

        async def main() -> None:
            await awaited
            for collect in (awaited.complete, awaited.result, awaited.status):
                with pytest.raises(InvalidAsyncHandle):
                    collect()
            with pytest.raises(InvalidAsyncHandle):
                await completed

        asyncio.run(main())

    def test_a_handle_used_again(self, bench: Bench) -> None:
        """A handle that carries another call gives the outcome of that one."""

        async def main() -> None:
            call = bench.probe.echo.begin(1)
            assert await call == 1
            bench.probe.echo.begin(2, handle=call)
            assert await call == await call == 2
            call.initialize()
            with pytest.raises(InvalidAsyncHandle):
                await call

        asyncio.run(main())

    def test_a_handle_without_a_call(self) -> None:
        """Awaiting a handle that carries no call raises 1914."""

        async def main() -> None:
            with pytest.raises(InvalidAsyncHandle):
                await Call()

        asyncio.run(main())

    def test_two_loops(self, bench: Bench) -> None:
        """Several event loops, each on its thread, may use one client at once."""
        results: list[list[Any]] = []

        async def main() -> list[Any]:
            found = []
            for number in range(50):
                found += await asyncio.gather(*(bench.probe.echo.begin(number) for _ in range(4)))
            return found

        threads = [threading.Thread(target=lambda: results.append(asyncio.run(main()))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        assert results == [[number for number in range(50) for _ in range(4)]] * 2

    def test_while_a_thread_waits_too(self, bench: Bench, key: str) -> None:
        """A loop gets its replies while another thread waits, and the other way round."""
        call = bench.held(key)
        results: list[object] = []
        waiter = threading.Thread(target=lambda: results.append(call.result(LIMIT)))
        waiter.start()
        wait_until_blocked(waiter)

        async def main() -> None:
            for number in range(20):
                assert await bench.probe.echo.begin(number) == number
            assert await bench.client.bind("test.Control").complete.begin(key, "both") == 0

        asyncio.run(main())
        waiter.join(LIMIT)
        assert results == ["both"]

    def test_a_cancelled_task_aborts_its_call(self, bench: Bench, key: str) -> None:
        """Cancelling the task that awaits a call aborts the call, and the server is told."""
        call = bench.held(key)

        async def main() -> None:
            task = asyncio.ensure_future(bench_await(call))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert call.state is State.DONE
        with pytest.raises(CallCancelled):
            call.complete()
        bench.control.seen_cancelled(key)

    def test_a_time_limit_of_asyncio(self, bench: Bench, key: str) -> None:
        """`asyncio.timeout` works around a call."""

        async def main() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await bench.probe.hold.begin(key)
            assert await bench.probe.echo.begin("after") == "after"

        asyncio.run(main())

    def test_two_tasks_await_one_call(self, bench: Bench, key: str) -> None:
        """Each of several tasks that await one call gets its outcome."""
        call = bench.held(key)

        async def main() -> tuple[Any, ...]:
            all_ = asyncio.gather(bench_await(call), bench_await(call), asyncio.create_task(call))
            await asyncio.sleep(0)
            await bench.control.complete.begin(key, "each")
            return await all_

        assert asyncio.run(main()) == ["each"] * 3

    @pytest.mark.parametrize("as_task", [False, True])
    def test_one_of_two_tasks_is_cancelled(self, bench: Bench, key: str, as_task: bool) -> None:
        """The other one gets the outcome; only when the last one is cancelled is the call aborted."""
        call, lost = bench.held(key), bench.held(f"{key}-lost")
        make: Any = asyncio.create_task if as_task else lambda each: asyncio.ensure_future(bench_await(each))

        async def main() -> None:
            cancelled, other, begun_never = make(call), make(call), make(call)
            begun_never.cancel()
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            await bench.control.complete.begin(key, "the other's")
            assert await other == "the other's"
            tasks = [make(lost), make(lost)]
            await asyncio.sleep(0)
            for task in tasks:
                assert lost.state is State.PENDING
                task.cancel()
                await asyncio.wait([task])
            assert lost.state is State.DONE

        asyncio.run(main())
        bench.control.seen_cancelled(f"{key}-lost")

    def test_a_task_is_cancelled_while_a_thread_waits(self, bench: Bench, key: str) -> None:
        """The thread, in `result`, goes on waiting and gets the outcome."""
        call = bench.held(key)
        results: list[object] = []
        waiter = threading.Thread(target=lambda: results.append(call.result(LIMIT)))
        waiter.start()
        wait_until_blocked(waiter)

        async def main() -> None:
            task = asyncio.ensure_future(bench_await(call))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        bench.control.complete(key, "the thread's")
        waiter.join(LIMIT)
        assert results == ["the thread's"]

    def test_a_lost_server(self, service: Callable[..., Service], benches: Benches, key: str) -> None:
        """Awaited calls fail when the server dies."""
        mine = service()
        bench = benches(mine.endpoint)
        call = bench.held(key)

        async def main() -> None:
            task = asyncio.ensure_future(bench_await(call))
            await asyncio.sleep(0)
            mine.kill()
            with pytest.raises(EngineError) as raised:
                await task
            assert raised.value.status == 1726

        asyncio.run(main())

    def test_one_loop_after_another(self, bench: Bench) -> None:
        """Any number of loops, one after the other, may use one client."""

        async def main(number: int) -> Any:
            return await bench.probe.echo.begin(number)

        assert [asyncio.run(main(number)) for number in range(20)] == list(range(20))

    def test_a_call_begun_in_another_loop(self, bench: Bench, key: str) -> None:
        """A call belongs to no loop: it may be begun in one and awaited in the next."""

        async def begin() -> "Call[Any]":
            return bench.probe.hold.begin(key)

        call = asyncio.run(begin())
        bench.control.arrived(key)
        bench.control.complete(key, "elsewhere")
        assert asyncio.run(bench_await(call)) == "elsewhere"

    def test_a_loop_that_serves_too(self, local: Callable[..., Server], benches: Benches) -> None:
        """Client and server may live in one process, with an event loop that awaits."""
        server = local()
        bench = benches(server.endpoint)

        async def main() -> int:
            return sum(await asyncio.gather(*(bench.probe.echo.begin(number) for number in range(20))))

        assert asyncio.run(main()) == sum(range(20))


class TestAsyncio:
    """A call is to asyncio's functions what a future or a coroutine is."""

    def test_tasks(self, bench: Bench, key: str) -> None:
        """Tasks are made of calls, by `create_task`, `ensure_future` and task groups, several of one call too."""
        failing = bench.probe.fail.begin("ValueError", "in a task")

        async def main() -> list[Any]:
            call = bench.probe.hold.begin(key)
            await bench.control.arrived.begin(key)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(call), asyncio.create_task(call), asyncio.ensure_future(call)]
                await asyncio.sleep(0)
                await bench.control.complete.begin(key, "of a task")
            with pytest.raises(RemoteFault, match="in a task"):
                await asyncio.create_task(failing)
            return [await task for task in tasks]

        assert asyncio.run(main()) == ["of a task"] * 3

    def test_name(self, bench: Bench) -> None:
        """A task that is made of a call is shown with the operation's name."""

        async def main() -> str:
            task = asyncio.create_task(bench.probe.echo.begin("named"))
            shown = repr(task)
            await task
            return shown

        assert ".echo()" in asyncio.run(main())

    def test_run(self, bench: Bench) -> None:
        """`asyncio.run` runs a call that was begun outside."""
        assert asyncio.run(bench.probe.echo.begin("run")) == "run"

    def test_a_task_is_cancelled(self, bench: Bench, key: str) -> None:
        """A task of a call that is cancelled aborts the call, whether it has begun or not."""

        async def main() -> None:
            for number, begins in enumerate((False, True)):
                call = bench.probe.hold.begin(f"{key}-{number}")
                await bench.control.arrived.begin(f"{key}-{number}")
                task = asyncio.create_task(call)
                if begins:
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert call.state is State.DONE
                with pytest.raises(CallCancelled):
                    await call
                await bench.control.seen_cancelled.begin(f"{key}-{number}")

        asyncio.run(main())

    def test_shield(self, bench: Bench, key: str) -> None:
        """A call behind a shield goes on though its waits are cancelled, one after the other, and is awaited then."""

        async def main() -> Any:
            call = bench.probe.hold.begin(key)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(call), 0.001)
            assert not call.done()
            await bench.control.arrived.begin(key)
            await bench.control.complete.begin(key, "shielded")
            return await call

        assert asyncio.run(main()) == "shielded"

    def test_the_others(self, bench: Bench, key: str) -> None:
        """`gather`, `wait_for`, `as_completed` take calls; `wait` takes tasks of them, and says so."""

        async def main() -> None:
            echo = bench.probe.echo
            call = echo.begin("same")
            assert await asyncio.gather(call, call, echo.begin("other")) == ["same", "same", "other"]
            assert await asyncio.wait_for(echo.begin(1), LIMIT) == 1
            assert {await each for each in asyncio.as_completed([echo.begin(2), echo.begin(3)])} == {2, 3}
            with pytest.raises(TypeError, match="tasks"):
                await asyncio.wait([echo.begin(4)])  # type: ignore[type-var]  # that is what is said
            done, _ = await asyncio.wait([asyncio.create_task(echo.begin(5))])
            assert done.pop().result() == 5
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(bench.probe.hold.begin(key), 0.001)

        asyncio.run(main())

    def test_a_group_that_fails(self, bench: Bench, key: str) -> None:
        """When one task of a group fails, the calls of the others are aborted."""

        async def main() -> None:
            call = bench.probe.hold.begin(key)
            await bench.control.arrived.begin(key)
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(call)
                    group.create_task(bench.probe.fail.begin("ValueError", "the first"))
            assert call.state is State.DONE
            await bench.control.seen_cancelled.begin(key)

        asyncio.run(main())

    def test_closed_as_a_coroutine(self, bench: Bench, key: str) -> None:
        """`close`, said of a coroutine that nobody awaits any more, aborts the call."""
        call = bench.held(key)
        call.close()
        call.close()
        with pytest.raises(CallCancelled):
            call.complete()
        call.close()
        bench.control.seen_cancelled(key)


class Loop(asyncio.SelectorEventLoop):
    """A loop that tells which descriptors it was asked to watch."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: list[Any] = []
        self.ever = 0

    def add_reader(self, fd: Any, callback: Callable[[*Args], Any], *args: *Args) -> None:
        super().add_reader(fd, callback, *args)
        self.watched.append(fd)
        self.ever += 1

    def remove_reader(self, fd: Any) -> bool:
        self.watched.remove(fd)
        return super().remove_reader(fd)


class TestLoops:
    """What the library asks of a loop."""

    def test_nothing_is_left_behind(self, bench: Bench) -> None:
        """A descriptor is watched only while something is awaited: a loop with nothing to await is not woken."""
        loop = Loop()
        before = list(loop.watched)

        async def main() -> None:
            for number in range(3):
                assert await bench.probe.echo.begin(number) == number
            for _ in range(3):  # Tasks that await one thing after another go on watching for a turn.
                await asyncio.sleep(0)
            assert loop.watched == before

        try:
            loop.run_until_complete(main())
            assert loop.ever > len(before)
        finally:
            loop.close()

    def test_one_thread_after_another(self, bench: Bench, key: str) -> None:
        """A loop may be run by one thread and later by another: what ends in the first wakes it there."""
        loop = asyncio.new_event_loop()
        loop.set_debug(True)  # Then it refuses what another thread does to it without waking it.
        call = bench.held(key)
        ended: list[object] = []

        def run() -> None:
            with pytest.raises(CallCancelled):
                loop.run_until_complete(bench_await(call))
            ended.append(True)

        try:
            with Event() as event, pytest.raises(TimeoutError):
                loop.run_until_complete(asyncio.wait_for(event.wait_async(), 0.001))
            other = threading.Thread(target=run, daemon=True)
            other.start()
            wait_until(lambda: sys._current_frames()[other.ident or 0].f_code.co_name == "select")
            call.cancel(abort=True)
            other.join(LIMIT)
            assert ended == [True]
        finally:
            loop.close()


async def bench_await(call: "Call[Any]") -> Any:
    """A coroutine that awaits a call, for tasks."""
    return await call
