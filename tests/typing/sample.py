"""A service and its callers, as a user writes them. Each line is right, unless its comment names the error."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

import transport
from engine import (
    Call,
    Client,
    CompletionPort,
    EventKind,
    InOut,
    InOutPipe,
    InPipe,
    Interface,
    Out,
    OutPipe,
    Pipe,
    ServerCall,
    Stream,
    implements,
    manager,
    operation,
)
from engine.resolvers import Seed


class Words(Interface, id="example.Words"):
    """A contract."""

    @operation
    def synonyms(self, word: str, limit: int = 10) -> list[str]:
        """Return words that mean the same."""
        raise NotImplementedError

    @operation(idempotent=True)
    def anything(self, value: Any) -> str:
        """Take whatever there is."""
        raise NotImplementedError

    @operation
    def grab(self, frame: Out[bytearray], tail: InOut[memoryview]) -> int:
        """Fill buffers."""
        raise NotImplementedError

    @operation
    def total(self, start: int, numbers: InPipe[int] = ...) -> int:
        """Add up."""
        raise NotImplementedError

    @operation
    def count(self, limit: int, numbers: OutPipe[int] = ...) -> str:
        """Count."""
        raise NotImplementedError

    @operation(duplex=True)
    def doubled(self, numbers: InOutPipe[int] = ...) -> None:
        """Push the double of each."""

    @operation
    def pick(self, names: InPipe[str], fields: object, at: float, rows: OutPipe[bytes] = ..., unit: str = "") -> int:
        """Push what was picked."""
        raise NotImplementedError

    @operation
    def told_nothing(self) -> list[str]: ...  # error: empty-body


class Checked:
    """Implements some of it, held to it by type checkers."""

    @implements(Words.synonyms)
    def synonyms(self, word: str, limit: int = 10) -> list[str]:
        return [word] * limit

    @implements(Words.anything)
    @manager
    def anything(self, call: ServerCall, value: object) -> None:
        call.complete(str(value))

    @implements(Words.grab)
    async def grab(self, frame: bytearray, tail: memoryview) -> int:
        return len(frame)


class Wrong:
    """Implements it otherwise."""

    @implements(Words.synonyms)  # error: arg-type
    def synonyms(self, word: int, limit: int = 10) -> list[str]:
        return []

    @implements(Words.synonyms)  # error: arg-type
    def missing(self, word: str) -> list[str]:
        return [word]

    @implements(Words.synonyms)  # error: arg-type
    async def late(self, word: str, limit: int = 10) -> str:
        return word


class Routines:
    """Implements the contract."""

    def synonyms(self, word: str, limit: int) -> list[str]:
        return [word] * limit

    @manager
    def anything(self, call: ServerCall, value: object) -> None:
        call.complete(str(value))

    def grab(self, frame: bytearray, tail: memoryview) -> int:
        frame[:1] = tail[:1]
        return len(frame)

    def total(self, start: int, numbers: Pipe[int]) -> int:
        return start + sum(numbers) + sum(numbers.pull_wait())

    def count(self, limit: int, numbers: Pipe[int]) -> Iterator[int]:
        yield from range(limit)

    def pick(self, names: Pipe[str], fields: object, at: float, rows: Pipe[bytes], unit: str) -> Iterator[bytes]:
        yield from (name.encode() for name in names)

    async def doubled(self, numbers: Pipe[int]) -> None:
        async for number in numbers:
            await numbers.push_async([2 * number])


def generated() -> Iterator[int]:
    """Something to push."""
    yield 1


async def generated_later() -> AsyncIterator[int]:
    """Something to push, later."""
    yield 1


def told(call: Call[list[str]], kind: EventKind) -> None:
    """A callback."""


def blocking_calls(words: Words) -> None:
    """The result's type, and the arguments'."""
    assert_type(words.synonyms("quick"), list[str])
    assert_type(words.synonyms("quick", limit=3), list[str])
    assert_type(words.synonyms("quick", timeout=1.5), list[str])
    assert_type(words.synonyms("quick", metadata={"who": "me"}), list[str])
    assert_type(words.anything(object()), str)
    words.synonyms(5)  # error: call-overload
    words.synonyms("quick", "three")  # error: call-overload
    words.synonyms()  # error: call-overload
    words.synonyms("quick", timout=1.5)  # error: call-overload
    words.unknown()  # error: attr-defined


def begun_calls(words: Words, port: CompletionPort) -> None:
    """Handles know what they will return; without options, arguments are checked."""
    assert_type(words.synonyms.begin("quick"), Call[list[str]])
    assert_type(words.synonyms.begin("quick", notify=port.packet(key=7)).complete(), list[str])
    assert_type(words.synonyms.begin("quick", notify=told, timeout=1).result(2.0), list[str])
    assert_type(words.synonyms.begin("quick", handle=None), Call[list[str]])
    assert_type(words.synonyms.begin("quick", user_data=object()), Call[list[str]])
    assert_type(words.synonyms.begin("quick").exception(), Exception | None)
    words.synonyms.begin("quick", notify=lambda call, kind: print(call.complete()[0].upper(), kind.name))
    words.synonyms.begin(5)  # error: call-overload
    words.synonyms.begin("quick", notify=threading.Event())  # error: call-overload
    words.synonyms.begin("quick", notify=generated)  # error: arg-type
    words.synonyms.begin("quick", timeout="soon")  # error: call-overload
    wrong: int = words.synonyms.begin("quick", notify=port).complete()  # error: assignment
    del wrong


async def awaited_calls(words: Words) -> None:
    """Awaiting a handle gives the result."""
    assert_type(await words.synonyms.begin("quick"), list[str])
    assert_type(await asyncio.create_task(words.synonyms.begin("quick")), list[str])
    assert_type(await asyncio.wait_for(words.synonyms.begin("quick"), 1.5), list[str])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(words.synonyms.begin("quick"))
    assert_type(task.result(), list[str])


def buffers(words: Words) -> None:
    """An output takes a buffer of its type."""
    assert_type(words.grab(bytearray(5), memoryview(bytearray(5))), int)
    assert_type(words.grab.begin(bytearray(5), memoryview(bytearray(5))), Call[int])
    words.anything(1, into=bytearray(5))
    words.grab("text", memoryview(bytearray(5)))  # error: call-overload


def pipes(words: Words) -> None:
    """Any iterable may be pushed, and streams are iterated over."""
    assert_type(words.total(5, generated()), int)
    words.total(5, range(10))
    words.total(5, numbers=[1, 2])
    words.total(5, ["one"])  # error: list-item
    assert_type(words.total.begin(5, generated_later()), Call[int])
    assert_type(words.total.begin(5), Call[int])
    assert_type(words.count.begin(5, notify=told, send_complete=True), Call[str])
    for number in words.count.stream(5):
        assert_type(number, int)
    for number in words.doubled.stream(generated()):
        assert_type(number, int)
    stream = words.count.stream(limit=5)
    assert_type(stream, Stream[int, str])
    assert_type(stream.result, str | None)
    assert_type(words.count.stream(5, timeout=1.5), Stream[int, str])
    assert_type(words.count.stream(5, metadata={"who": "me"}), Stream[int, str])
    assert_type(words.pick.stream(["a"], {}, 0.5), Stream[bytes, int])
    words.count.stream("five")  # error: call-overload
    words.count.stream()  # error: call-overload
    words.count.stream(5, timout=1.5)  # error: call-overload
    wrong: Stream[str, str] = words.count.stream(5)  # error: assignment
    del wrong


async def asynchronous_pipes(words: Words) -> None:
    """The same in a task."""
    async for number in words.count.stream(5):
        assert_type(number, int)
    async for number in words.doubled.stream(generated_later()):
        assert_type(number, int)


def bindings(client: Client) -> None:
    """A binding is an instance of its interface; one by name takes anything."""
    assert_type(client.bind(Words), Words)
    Client("tcp://127.0.0.1:1", connection_rate=5.0, greeting_timeout=1.0, curve=None)
    Client("tcp://127.0.0.1:1", max_queued_bytes="many")  # error: arg-type
    Client("tcp://127.0.0.1:1", heartbeet=5.0)  # error: call-arg
    Seed("tcp://127.0.0.1:1", heartbeet=5.0)  # error: call-arg
    transport.connect("tcp://127.0.0.1:1", heartbeet=5.0)  # error: call-arg
    print(client.bind("example.Words").synonyms("quick"))
    assert_type(Words.synonyms.name, str)
