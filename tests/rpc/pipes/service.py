"""The service of the tests of pipes: its routines, and a program that serves them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

from engine import (
    CompletionPort,
    EngineError,
    Pipe,
    RemoteFault,
    Server,
    ServerCall,
    blocking,
    current_call,
    manager,
)
from engine.testing import LIMIT, wait_until

from ..helpers import status_of
from ..serving import serve
from .interfaces import Hand, Point, Streams


def attempt(action: Callable[[], Any]) -> Any:
    """Return what the action returns, or ["status", number] if it raises."""
    try:
        return action()
    except EngineError as error:
        return ["status", int(error.status)]


class Board:
    """Calls that are held, by key, and the port that their signals go to."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[str, ServerCall] = {}
        self.ports: dict[str, CompletionPort] = {}
        self.blocks = 0

    def hold(self, key: str, call: ServerCall) -> None:
        with self._changed:
            self._held[key] = call
            self._changed.notify_all()

    def close(self) -> None:
        for port in self.ports.values():
            port.close()

    def get(self, key: str) -> ServerCall:
        with blocking(), self._changed:
            assert self._changed.wait_for(lambda: key in self._held, LIMIT)
            return self._held[key]


class StreamRoutines:
    """Routines with pipes."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def total(self, start: int, numbers: Pipe[int]) -> int:
        return start + sum(numbers)

    async def total_async(self, start: int, numbers: Pipe[int]) -> int:
        async for number in numbers:
            start += number
        return start

    async def total_patiently(self, numbers: Pipe[int]) -> int:
        given_up = asyncio.ensure_future(numbers.pull_async())
        await asyncio.sleep(0)
        waited = given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        total = 0 if waited else sum(given_up.result())
        async for number in numbers:
            total += number
        return total

    def first(self, numbers: Pipe[int], scale: int = 1) -> int:
        raise RemoteFault("the first", status=numbers.pull_wait(1)[0] * scale)

    def count(self, limit: int, numbers: Pipe[int]) -> Generator[int, None, str]:
        yield from range(limit)
        return "counted"

    async def count_async(self, limit: int, numbers: Pipe[int]) -> AsyncIterator[int]:
        for number in range(limit):
            yield number

    def count_then_fail(self, limit: int, numbers: Pipe[int]) -> Iterator[int]:
        yield from range(limit)
        raise KeyError("after counting")

    def unsendable(self, numbers: Pipe[Any]) -> Iterator[Any]:
        yield memoryview(bytes(9))[::2]

    async def unsendable_async(self, numbers: Pipe[Any]) -> AsyncIterator[Any]:
        yield memoryview(bytes(9))[::2]

    def swell(self, size: int, blocks: Pipe[bytes]) -> Iterator[bytes]:
        self._board.blocks = 0
        try:
            while True:
                self._board.blocks += 1
                yield bytes(size)
        finally:
            self._board.blocks = -1

    def swelled(self) -> int:
        return self._board.blocks

    def backwards(self, numbers: Pipe[int]) -> int:
        pulled = list(numbers)
        for number in reversed(pulled):
            numbers.push_wait([number])
        numbers.push([])
        return len(pulled)

    def interleaved(self, numbers: Pipe[int]) -> Iterator[int]:
        yield from numbers

    def doubled(self, numbers: Pipe[int]) -> Generator[int, None, str]:
        for number in numbers:
            yield 2 * number
        return "doubled"

    async def doubled_async(self, numbers: Pipe[int]) -> str:
        async for number in numbers:
            await numbers.push_async([2 * number])
        numbers.push([])
        return "doubled"

    def mirror(self, points: Pipe[Point], mirrored: Pipe[Point]) -> Iterator[Point]:
        pulled = list(points)
        assert all(type(point) is Point for point in pulled)
        for point in pulled:
            yield Point(point.y, point.x)

    def joined(self, numbers: Pipe[int]) -> bytes:
        return bytes(numbers)

    def counted(self, numbers: Pipe[int], limit: int) -> Generator[int, None, bytes]:
        yield from range(limit)
        return bytes(range(limit))

    def collected(self, numbers: Pipe[int], data: bytearray) -> int:
        data[:] = bytes(numbers)
        return len(data)

    def undrained(self, numbers: Pipe[int]) -> int:
        return 7

    @manager
    def held_in(self, call: ServerCall, key: str, numbers: Pipe[int]) -> None:
        self._board.hold(key, call)

    @manager
    def held_out(self, call: ServerCall, key: str, numbers: Pipe[int]) -> None:
        self._board.hold(key, call)

    @manager
    def held_both(self, call: ServerCall, key: str, numbers: Pipe[int]) -> None:
        self._board.hold(key, call)

    @manager
    def held_many(self, call: ServerCall, key: str, *pipes: Any) -> None:
        self._board.hold(key, call)


class HandRoutines:
    """Works the ends of held calls."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def arrived(self, key: str) -> None:
        self._board.get(key)

    def push(self, key: str, pipe: str, elements: list[Any]) -> Any:
        return attempt(lambda: self._board.get(key).pipes[pipe].push(elements) or 0)

    def push_wait(self, key: str, pipe: str, elements: list[Any]) -> Any:
        return attempt(lambda: self._board.get(key).pipes[pipe].push_wait(elements) or 0)

    def pull(self, key: str, pipe: str, maximum: int = 1024) -> Any:
        return attempt(lambda: self._board.get(key).pipes[pipe].pull(maximum))

    def pull_wait(self, key: str, pipe: str, maximum: int = 1024) -> Any:
        return attempt(lambda: self._board.get(key).pipes[pipe].pull_wait(maximum))

    def tell(self, key: str, send_complete: bool) -> None:
        port = self._board.ports[key] = CompletionPort()
        self._board.get(key).notify_pipes(port.packet(key=key), send_complete=send_complete)

    def tell_of_itself(self) -> int:
        return status_of(lambda: current_call().notify_pipes(None))

    def told(self, key: str, count: int) -> list[int]:
        port = self._board.ports[key]
        return [int(port.get(LIMIT).event) for _ in range(count)]

    def complete(self, key: str, value: Any = None) -> int:
        return status_of(lambda: self._board.get(key).complete(value))

    def abort(self, key: str, status: int) -> int:
        return status_of(lambda: self._board.get(key).abort(status))

    def cancelled(self, key: str) -> None:
        call = self._board.get(key)
        with blocking():
            wait_until(call.test_cancel)


def make_server(endpoint: str, **options: Any) -> tuple[Server, Board]:
    """Return a server of both interfaces that listens, and where its calls are held."""
    board = Board()
    server = Server(endpoint, **options)
    server.register(Streams, StreamRoutines(board))
    server.register(Hand, HandRoutines(board))
    server.listen()
    return server, board


if __name__ == "__main__":
    serve(lambda endpoint, **options: make_server(endpoint, **options)[0])
