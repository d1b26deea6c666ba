"""The tests' service: its routines, and a program that serves them."""

import asyncio
import os
import threading
from collections import Counter
from typing import Any

import msgspec

from engine import (
    Client,
    RemoteFault,
    Server,
    ServerCall,
    blocking,
    current_call,
    manager,
)
from engine.testing import LIMIT, wait_until

from ..certificates import for_server
from .helpers import status_of
from .interfaces import Account, Control, Point, Probe
from .serving import serve


class Unspeakable(Exception):
    """An exception that cannot say what happened."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Board:
    """Where held calls wait: by key, until the control ends them. Several calls may have come under one key."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # All guarded by _changed.
        self._held: dict[str, ServerCall] = {}
        self._futures: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Future[Any]]] = {}
        self._waiting: dict[str, list[ServerCall]] = {}
        self.notes: Counter[str] = Counter()
        self.echoed: list[Any] = []

    def put(self, key: str, call: ServerCall) -> None:
        with self._changed:
            self._held[key] = call
            waiting = self._waiting.pop(key, [])
            self._changed.notify_all()
        for each in waiting:
            each.complete()

    def when_there(self, key: str, call: ServerCall) -> None:
        """Answer `call` once something is held under `key`."""
        with self._changed:
            if key not in self._held:
                self._waiting.setdefault(key, []).append(call)
                return
        call.complete()

    def get(self, key: str) -> ServerCall:
        with self._changed:
            return self._held[key]

    def note(self, key: str) -> None:
        with self._changed:
            self.notes[key] += 1
            self._changed.notify_all()

    def noted(self, key: str) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self.notes[key], LIMIT)
            return self.notes[key]

    def put_future(self, key: str, loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Any]") -> None:
        with self._changed:
            self._futures[key] = loop, future

    def resolve(self, key: str, value: object) -> bool:
        """End the coroutine that waits under `key`, if one does."""
        with self._changed:
            found = self._futures.pop(key, None)
        if found is None:
            return False
        loop, future = found
        loop.call_soon_threadsafe(lambda: future.done() or future.set_result(value))
        return True


class ProbeRoutines:
    """Implements `Probe`."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def echo(self, value: Any) -> Any:
        self._board.echoed.append(value)
        return value

    def add(self, left: int, right: int = 10) -> int:
        return left + right

    def nothing(self) -> None:
        pass

    @manager
    def hold(self, call: ServerCall, key: str) -> None:
        self._board.put(key, call)

    async def hold_coroutine(self, key: str) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._board.put_future(key, loop, future)
        self._board.put(key, current_call())
        return await future

    def fail(self, kind: str, text: str) -> int:
        if kind == "Unspeakable":
            raise Unspeakable
        if kind == "SystemExit":
            raise SystemExit(text)
        if kind == "surrogate":
            raise OSError("no such file: \udcff")
        kinds: dict[str, type[BaseException]] = {
            kind.__name__: kind for kind in (ValueError, KeyError, KeyboardInterrupt, ZeroDivisionError)
        }
        raise kinds[kind](text)

    def fail_with_status(self, status: int) -> int:
        raise RemoteFault("as told", status=status)

    def mistyped(self) -> Any:
        return "not a number"

    def unsendable(self, kind: str) -> Any:
        circle: list[Any] = []
        circle.append(circle)
        return {
            "object": object(),
            "huge": 1 << 70,
            "surrogate": "\udcff",
            "circle": circle,
            "gaps": [memoryview(bytes(9))[::2]],
        }[kind]

    def point(self, point: Point) -> Point:
        return Point(-point.x, -point.y)

    def account(self, account: Account) -> Account:
        return Account(account.owner, account.balance * 2, account.tags)

    def plain(self, *args: Any) -> Any:
        return args

    def checksum(self, data: bytes) -> int:
        assert type(data) is bytes
        return sum(data)

    def reversed_bytes(self, data: bytes) -> bytes:
        return data[::-1]

    def zeros(self, size: int) -> bytes:
        return bytes(size)

    def filled(self, size: int) -> bytes:
        return b"x" * size  # Memory of zeros alone is none until it is read.

    def viewed(self, data: memoryview) -> memoryview:
        assert type(data) is memoryview
        return data

    def two_large(self, left: bytes, name: str, right: bytes) -> tuple[int, str, int]:
        return len(left), name, len(right)

    def who(self) -> dict[str, Any]:
        call = current_call()
        return {**msgspec.structs.asdict(call.attributes()), "repr": repr(call), "server_process": os.getpid()}

    def time_left(self) -> float | None:
        return current_call().time_left()

    def nested(self, endpoint: str, depth: int) -> int:
        if depth == 0:
            return 0
        with Client(endpoint) as client:
            return 1 + client.bind(Probe).nested(endpoint, depth - 1)

    def other_name(self) -> str:
        return "by another name"

    def again(self, value: Any) -> Any:
        return value

    @manager
    def hold_again(self, call: ServerCall, key: str) -> None:
        self._board.note(key)
        self._board.put(key, call)

    def note(self, key: str) -> None:
        self._board.note(key)


class ControlRoutines:
    """Implements `Control`."""

    def __init__(self, board: Board) -> None:
        self._board = board

    @manager
    def arrived(self, call: ServerCall, key: str) -> None:
        self._board.when_there(key, call)

    def complete(self, key: str, value: Any = None) -> int:
        if self._board.resolve(key, value):
            return 0
        return status_of(lambda: self._board.get(key).complete(value))

    def abort(self, key: str, status: int, text: str = "") -> int:
        call = self._board.get(key)
        if status == 997:  # A server of another make might send it.
            call._call.answers.answer_fault(call._call, status, text)
            return 0
        return status_of(lambda: call.abort(status, text))

    def close_twice(self, key: str, first: str, second: str) -> tuple[int, int]:
        call = self._board.get(key)
        ways = {"complete": lambda: call.complete("done"), "abort": lambda: call.abort(4711, "given up")}
        return status_of(ways[first]), status_of(ways[second])

    def close_at_once(self, key: str, threads: int) -> list[int]:
        call = self._board.get(key)
        barrier = threading.Barrier(threads)
        statuses: list[int] = []

        def close(value: int) -> None:
            barrier.wait(LIMIT)
            statuses.append(status_of(lambda: call.complete(value)))

        running = [threading.Thread(target=close, args=(number,)) for number in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join(LIMIT)
        return sorted(statuses)

    def seen(self, key: str) -> tuple[bool, bool, int]:
        call = self._board.get(key)
        return call.test_cancel(), call.disconnected(), call.attributes().status

    def seen_cancelled(self, key: str) -> None:
        call = self._board.get(key)
        with blocking():
            wait_until(call.test_cancel)

    def seen_disconnected(self, key: str) -> None:
        call = self._board.get(key)
        with blocking():
            wait_until(call.disconnected)

    def noted(self, key: str) -> int:
        with blocking():
            return self._board.noted(key)

    def echoed(self) -> list[Any]:
        return self._board.echoed


class Adding:
    """Implements `Adder`."""

    def add(self, left: int, right: int) -> int:
        return left + right


def make_server(*endpoints: str, **options: Any) -> tuple[Server, Board]:
    """Return a server of the probe and the control that does not listen yet, and where its calls are held."""
    board = Board()
    server = Server(*endpoints, **for_server(*endpoints), **options)
    server.register(Probe, ProbeRoutines(board))
    server.register(Control, ControlRoutines(board))
    return server, board


if __name__ == "__main__":
    serve(lambda *endpoints, **options: make_server(*endpoints, **options)[0])
