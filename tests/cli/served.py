"""What the tests of the command line serve."""

from collections.abc import Generator, Iterator
from typing import Any

from engine import InPipe, Interface, OutPipe, Pipe, Server, operation


class Words:
    """A thesaurus."""

    def synonyms(self, word: str) -> list[str]:
        return {"quick": ["fast", "swift"]}.get(word, [])

    def length(self, values: list[int]) -> int:
        return len(values)

    def text(self) -> str:
        return "plain"

    def missing(self) -> None:
        raise LookupError("no such word")


class Streams(Interface, id="cli.Streams", version=(2, 1)):
    """What streams, either way."""

    @operation
    def upto(self, most: int, numbers: OutPipe[int] = ...) -> str:
        """Push numbers, and return a text."""

    @operation
    def total(self, start: int, numbers: InPipe[int] = ...) -> int:
        """Return the sum."""

    @operation(raises=[LookupError], duplex=True)
    def double(self, numbers: InPipe[int] = ..., doubles: OutPipe[int] = ...) -> None: ...


class StreamRoutines:
    """Serves it."""

    def upto(self, most: int, numbers: Any) -> Generator[int, None, str]:
        yield from range(most)
        return "done"

    def total(self, start: int, numbers: Pipe[int]) -> int:
        return start + sum(numbers)

    def double(self, numbers: Any, doubles: Any) -> Iterator[int]:
        for number in numbers:
            yield number * 2


def streaming() -> Server:
    server = Server("tcp://127.0.0.1:*")
    server.register(Streams, StreamRoutines())
    return server


def silent() -> Server:
    server = Server("tcp://127.0.0.1:*", reflection=False)
    server.register("made", Words())
    return server


def spread(*endpoints: str) -> Server:
    server = Server(*endpoints)
    server.register("made", Words())
    return server


def secured(*endpoints: str, **options: Any) -> Server:
    server = Server(*endpoints, **options)
    server.register("made", Words())
    return server


def make() -> Server:
    server = Server("tcp://127.0.0.1:*")
    server.register("made", Words())
    return server


instance = Words()
number = 7
