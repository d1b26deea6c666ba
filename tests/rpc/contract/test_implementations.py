"""Routines are compared with what their contract says, as they are registered."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NewType

import msgspec
import pytest

from engine import (
    Client,
    InOutPipe,
    InPipe,
    Interface,
    InvalidArgumentType,
    InvalidParameter,
    OutPipe,
    Pipe,
    Server,
    ServerCall,
    implements,
    manager,
    operation,
)

UserId = NewType("UserId", int)


@dataclass
class Point:
    x: int


@dataclass
class Point3(Point):
    z: int


@dataclass
class Other:
    x: int


class Contract(Interface, id="test.Implementations"):
    """What is implemented, or not."""

    @operation
    def find(self, word: str, near: Point, among: list[str], limit: int | None) -> list[str]: ...

    @operation
    def count(self, limit: int, numbers: OutPipe[int] = ...) -> None: ...

    @operation
    def total(self, numbers: InPipe[int] = ...) -> int: ...

    @operation(duplex=True)
    def doubled(self, numbers: InOutPipe[int] = ...) -> None: ...


class Right:
    """Implements it, without a word about types."""

    def find(self, word, near, among, limit):  # type: ignore[no-untyped-def]  # that is the point
        return [word]

    def count(self, limit: int, numbers: Pipe[int]) -> Iterator[int]:
        yield from range(limit)

    def total(self, numbers: Pipe[int]) -> int:
        return sum(numbers)

    async def doubled(self, numbers: Pipe[int]) -> AsyncIterator[int]:
        async for number in numbers:
            yield 2 * number


def register(**routines: Callable[..., Any]) -> None:
    """Register an implementation that has these routines in the place of the right ones."""
    with Server("loopback://test-implementations") as server:
        server.register(Contract, type("Routines", (Right,), routines)())


# Annotations of word, near, among, limit and the result.
FITTING = (
    (str, Point, list[str], int | None, list[str]),
    (object, Any, Sequence[str], Any, Sequence[str]),
    (str | bytes, Point | None, tuple[str, ...], "float | None", tuple[str, ...]),
    (Annotated[str, "what"], Point3, list, UserId | None, list),
    ("str", "Point", "list[Any]", "int | None", Awaitable[list[str]]),
    ("Unknown", "Other", "list[int]", "str", "int"),  # Nobody can read these.
)
WRONG = (
    ("word", int), ("word", bytes), ("word", list[str]), ("word", Point), ("word", None),
    ("near", Other), ("near", str), ("near", int),
    ("among", str), ("among", list[int]), ("among", Mapping[str, int]),
    ("limit", int), ("limit", str | None),
    ("return", str), ("return", list[int]), ("return", None), ("return", "list[str] | None"),
)  # fmt: skip


class TestAnnotations:
    """Annotations of a routine that contradict those of its operation are refused, where it is sure."""

    @pytest.mark.parametrize("kinds", FITTING)
    def test_that_fit(self, kinds: tuple[Any, ...]) -> None:
        """Wider ones, narrower ones, other kinds of the same on the wire, and those that cannot be read are taken."""

        def find(self, word, near, among, limit):  # type: ignore[no-untyped-def]  # annotated below
            return [word]

        find.__annotations__ = dict(zip(("word", "near", "among", "limit", "return"), kinds, strict=True))
        register(find=find)

    @pytest.mark.parametrize(("name", "kind"), WRONG)
    def test_that_do_not(self, name: str, kind: Any) -> None:
        """The error names the routine, the parameter and both types."""

        def find(self, word, near, among, limit):  # type: ignore[no-untyped-def]  # annotated below
            return [word]

        find.__annotations__ = {name: kind}
        with pytest.raises(
            InvalidParameter, match=f"routine find.*{'to return' if name == 'return' else name}.*contract"
        ):
            register(find=find)

    def test_of_pipes(self) -> None:
        """The elements of pipes are compared, too."""

        def total(self: Any, numbers: Pipe[str]) -> int:
            return 0

        with pytest.raises(InvalidParameter, match="'numbers'"):
            register(total=total)

    def test_of_a_manager(self) -> None:
        """The handle comes first, and what it returns is no result."""

        @manager
        def find(self: Any, call: ServerCall, word: str, near: Point, among: list[str], limit: int | None) -> None:
            call.complete([])

        register(find=find)
        find.__annotations__["word"] = int
        with pytest.raises(InvalidParameter, match="'word'"):
            register(find=find)


class TestGenerators:
    """A generator that serves a pipe need not take it."""

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_that_leaves_its_pipe_out(self, asynchronous: bool) -> None:
        """It gets the other arguments, and what it yields is streamed."""

        def count(self: Any, limit: int) -> Iterator[int]:
            yield from range(limit)

        async def count_later(self: Any, limit: int) -> AsyncIterator[int]:
            for number in range(limit):
                yield number

        class Routines(Right):
            pass

        Routines.count = count_later if asynchronous else count  # type: ignore[method-assign,assignment]  # the point
        with Server("loopback://test-implementations") as server, Client("loopback://test-implementations") as client:
            server.register(Contract, Routines())
            server.listen()
            assert list(client.bind(Contract).count.stream(4)) == [0, 1, 2, 3]

    def test_that_are_none(self) -> None:
        """What pushes by hand takes its pipe, and so does what pulls."""

        def count(self: Any, limit: int) -> str:
            return "no generator"

        def doubled(self: Any) -> Iterator[int]:
            yield 1

        for wrong in ({"count": count}, {"doubled": doubled}):
            with pytest.raises(InvalidParameter, match="cannot take"):
                register(**wrong)

    def test_annotations_of_the_others(self) -> None:
        """They are compared all the same."""

        def count(self: Any, limit: str) -> Iterator[int]:
            yield 1

        with pytest.raises(InvalidParameter, match="'limit'"):
            register(count=count)


class TestImplements:
    """`@implements(Contract.find)` is for type checkers: `tests/typing/sample.py` has what they say."""

    def test_it_changes_nothing(self) -> None:
        """The routine is the very same."""

        def total(self: Any, numbers: Any) -> int:
            return 0

        assert implements(Contract.total)(total) is total  # type: ignore[arg-type]  # not with pipes

    @pytest.mark.parametrize("thing", [None, len, Contract, "find"])
    def test_what_is_no_operation(self, thing: Any) -> None:
        """It is refused."""
        with pytest.raises(InvalidArgumentType, match="operation"):
            implements(thing)


def test_records_that_are_written_alike() -> None:
    """A Struct for a dataclass, or a dict for either, is not found to be wrong: they may be meant to be the same."""

    class Same(msgspec.Struct):
        x: int

    def find(self, word, near, among, limit):  # type: ignore[no-untyped-def]  # annotated below
        return [word]

    find.__annotations__ = {"near": dict[str, int]}
    register(find=find)
    find.__annotations__ = {"near": Same}
    with pytest.raises(InvalidParameter):
        register(find=find)
