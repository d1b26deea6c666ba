"""Awaiting calls from event loops."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from engine import Call, CallCancelled, EngineError, InvalidAsyncHandle, Server, State
from engine.testing import LIMIT, wait_until_blocked

from .helpers import Bench, Service

Benches = Callable[..., Bench]
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

    def test_a_call_that_is_done(self, bench: Bench) -> None:
        """Awaiting a call whose reply is there gives it at once; again raises 1914."""
        call = bench.done("there")

        async def main() -> None:
            assert await call == "there"
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
        """Of two tasks that await one call one gets the value and the other 1914."""
        call = bench.held(key)

        async def main() -> list[Any]:
            both = asyncio.gather(bench_await(call), bench_await(call), return_exceptions=True)
            await asyncio.sleep(0)
            bench.control.complete(key, "once")
            return await both

        first, second = asyncio.run(main())
        assert "once" in (first, second)
        assert isinstance(second if first == "once" else first, InvalidAsyncHandle)

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

        async def main(number: int) -> int:
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


async def bench_await(call: "Call[Any]") -> Any:
    """A coroutine that awaits a call, for tasks."""
    return await call
