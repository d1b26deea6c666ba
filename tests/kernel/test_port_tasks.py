"""Tasks that take packets from a completion port."""

import asyncio
import threading
from typing import Any

import pytest

from engine import (
    AbandonedWait,
    Client,
    CompletionPacket,
    CompletionPort,
    InvalidHandle,
    InvalidParameter,
    Server,
    WaitTimeout,
)
from engine.testing import LIMIT, wait_until


async def waiting(port: CompletionPort, many: int = 1) -> None:
    """Return once so many wait on the port."""
    async with asyncio.timeout(LIMIT):
        while port.statistics().waiting < many:
            await asyncio.sleep(0)


class TestGetAsync:
    """`await port.get_async()`."""

    def test_what_is_queued(self) -> None:
        """Packets come in the order in which they were posted, whole."""

        async def main() -> None:
            with CompletionPort() as port:
                for number in range(3):
                    port.post(number, transferred="x", status=5)
                packets = [await port.get_async() for _ in range(3)]
                assert packets == [CompletionPacket(number, "x", None, 5) for number in range(3)]
                assert port.statistics().taken == 3

        asyncio.run(main())

    def test_what_comes_later(self) -> None:
        """A task that waits is given what a thread posts, at once: it is not queued."""

        async def main() -> None:
            with CompletionPort() as port:
                task = asyncio.create_task(port.get_async(LIMIT))
                await waiting(port)
                await asyncio.to_thread(port.post, 7)
                assert (await task).key == 7
                assert len(port) == 0

        asyncio.run(main())

    def test_a_task_takes_no_slot(self) -> None:
        """A task that has its packet does not count as active: others go on, threads too, at a concurrency of 1."""

        async def main() -> None:
            with CompletionPort(1) as port:
                tasks = [asyncio.create_task(port.get_async(LIMIT)) for _ in range(3)]
                await waiting(port, 3)
                for number in range(4):
                    port.post(number)
                keys = {(await task).key for task in tasks}
                assert port.statistics().active == 0
                keys.add((await asyncio.to_thread(port.get, LIMIT)).key)
                assert keys == {0, 1, 2, 3}

        asyncio.run(main())

    def test_no_free_slot(self) -> None:
        """While as many threads are active as the concurrency value says, a task waits; it is given what is there when
        one of them waits again.
        """

        async def main() -> None:
            with CompletionPort(1) as port:
                port.post(1)
                held, go = threading.Event(), threading.Event()

                def work() -> None:
                    port.get(LIMIT)
                    held.set()
                    go.wait(LIMIT)

                thread = threading.Thread(target=work)
                thread.start()
                wait_until(held.is_set)
                port.post(2)
                with pytest.raises(WaitTimeout):
                    await port.get_async(0)
                with pytest.raises(WaitTimeout):
                    await port.get_async(0.001)
                task = asyncio.create_task(port.get_async(LIMIT))
                await waiting(port)
                go.set()  # Its thread ends, which frees its slot.
                assert (await task).key == 2
                thread.join(LIMIT)

        asyncio.run(main())

    @pytest.mark.parametrize("timeout", [0, 0.001])
    def test_time_is_up(self, timeout: float) -> None:
        """It is a `WaitTimeout`, and nothing is left behind."""

        async def main() -> None:
            with CompletionPort() as port:
                with pytest.raises(WaitTimeout):
                    await port.get_async(timeout)
                statistics = port.statistics()
                assert (statistics.waiting, statistics.active) == (0, 0)
                port.post(1)
                assert (await port.get_async(0)).key == 1

        asyncio.run(main())

    def test_a_task_that_is_cancelled(self) -> None:
        """It takes nothing: a packet that it was given just before goes back to the head."""

        async def main() -> None:
            with CompletionPort() as port:
                task = asyncio.create_task(port.get_async())
                await waiting(port)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert port.statistics().waiting == 0
                task = asyncio.create_task(port.get_async())
                await waiting(port)
                port.post(1)
                port.post(2)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert [(await port.get_async(0)).key for _ in range(2)] == [1, 2]
                statistics = port.statistics()
                assert (statistics.active, statistics.taken) == (0, 2)

        asyncio.run(main())

    def test_a_packet_that_comes_back_is_another_ones(self) -> None:
        """What a cancelled task was given goes to the next one that waits."""

        async def main() -> None:
            with CompletionPort() as port:
                other = asyncio.create_task(port.get_async(LIMIT))
                await waiting(port)
                cancelled = asyncio.create_task(port.get_async(LIMIT))
                await waiting(port, 2)
                port.post(1)  # To the one that has waited shortest.
                cancelled.cancel()
                assert (await other).key == 1

        asyncio.run(main())

    def test_a_port_that_closes(self) -> None:
        """It is `AbandonedWait` for a task that waits, `InvalidHandle` for one that comes later."""

        async def main() -> None:
            port = CompletionPort()
            task = asyncio.create_task(port.get_async())
            await waiting(port)
            port.close()
            with pytest.raises(AbandonedWait):
                await task
            with pytest.raises(InvalidHandle):
                await port.get_async()

        asyncio.run(main())

    @pytest.mark.parametrize("timeout", [-1, float("nan")])
    def test_times_that_are_none(self, timeout: Any) -> None:
        """As for `get`."""

        async def main() -> None:
            with CompletionPort() as port, pytest.raises(InvalidParameter):
                await port.get_async(timeout)

        asyncio.run(main())

    def test_two_loops(self) -> None:
        """Tasks of several loops, in threads of their own, take each packet once."""
        found: list[list[int]] = []

        async def take(port: CompletionPort) -> list[int]:
            return [packet.key async for packet in port]

        with CompletionPort() as port:
            threads = [threading.Thread(target=lambda: found.append(asyncio.run(take(port)))) for _ in range(2)]
            for thread in threads:
                thread.start()
            for number in range(500):
                port.post(number)
            wait_until(lambda: port.statistics().taken == 500)
            port.close()
            for thread in threads:
                thread.join(LIMIT)
        assert sorted(found[0] + found[1]) == list(range(500))


class TestIterating:
    """`async for packet in port`."""

    def test_until_it_closes(self) -> None:
        """It yields packets as they come, and ends when the port is closed."""

        async def main() -> list[int]:
            port = CompletionPort()

            async def take() -> list[int]:
                return [packet.key async for packet in port]

            task = asyncio.create_task(take())
            for number in range(10):
                port.post(number)
                await waiting(port)
            port.close()
            assert [packet async for packet in port] == []
            return await task

        assert asyncio.run(main()) == list(range(10))

    def test_calls(self) -> None:
        """A packet of a call is there though nothing else has the call sent."""

        class Routines:
            def echo(self, value: int) -> int:
                return value

        async def main() -> list[Any]:
            async with Server("tcp://127.0.0.1:0") as server:
                server.register("echo", Routines())
                server.listen()
                async with Client(server.endpoint) as client:
                    with CompletionPort() as port:
                        for number in range(5):
                            client.bind("echo").echo.begin(number, notify=port.packet(key=number))
                        packets = [await port.get_async(LIMIT) for _ in range(5)]
                        return [(packet.key, packet.overlapped.complete()) for packet in packets]

        assert asyncio.run(main()) == [(number, number) for number in range(5)]
