"""What the tests' service offers: operations with pipes, and a control that works the server's ends by hand."""

from typing import Any

import msgspec

from engine import InOutPipe, InPipe, Interface, Out, OutPipe, operation


class Point(msgspec.Struct):
    """A Struct to push."""

    x: int
    y: int = 0


class Streams(Interface, id="test.Streams"):
    """Operations with pipes of every sort."""

    @operation
    def total(self, start: int, numbers: InPipe[int] = ...) -> int:
        """Return the sum of the start and the numbers."""

    @operation
    def total_async(self, start: int, numbers: InPipe[int] = ...) -> int:
        """The same by an `async def` routine."""

    @operation
    def total_patiently(self, numbers: InPipe[int] = ...) -> int:
        """The same by one that gives up pulls, and pulls again."""

    @operation
    def first(self, numbers: InPipe[int] = ..., scale: int = 1) -> int:
        """Pull one number and abort the call with it as status."""

    @operation
    def count(self, limit: int, numbers: OutPipe[int] = ...) -> str:
        """Push the numbers below the limit, by a generator; return "counted"."""

    @operation
    def count_async(self, limit: int, numbers: OutPipe[int] = ...) -> None:
        """The same by an asynchronous generator."""

    @operation
    def count_then_fail(self, limit: int, numbers: OutPipe[int] = ...) -> None:
        """Push the numbers below the limit, then raise a KeyError."""

    @operation
    def unsendable(self, numbers: OutPipe[Any] = ...) -> None:
        """Push something that cannot be sent, by a generator."""

    @operation
    def unsendable_async(self, numbers: OutPipe[Any] = ...) -> None:
        """The same by an asynchronous generator."""

    @operation
    def swell(self, size: int, blocks: OutPipe[bytes] = ...) -> None:
        """Push blocks of that size without end."""

    @operation
    def swelled(self) -> int:
        """Return how many blocks the newest `swell` has pushed; -1 once its routine ended."""

    @operation
    def backwards(self, numbers: InOutPipe[int] = ...) -> int:
        """Pull all numbers, then push them backwards; return how many there were."""

    @operation
    def interleaved(self, numbers: InOutPipe[int] = ...) -> None:
        """Push while pulling, which is not the order of things."""

    @operation(duplex=True)
    def doubled(self, numbers: InOutPipe[int] = ...) -> str:
        """Push the double of each number as it comes; return "doubled"."""

    @operation(duplex=True)
    def doubled_async(self, numbers: InOutPipe[int] = ...) -> str:
        """The same by an `async def` routine."""

    @operation
    def mirror(self, points: InPipe[Point] = ..., mirrored: OutPipe[Point] = ...) -> None:
        """Push each point with x and y exchanged, once all were pulled."""

    @operation
    def joined(self, numbers: InPipe[int] = ...) -> bytes:
        """Return the numbers as bytes."""

    @operation
    def counted(self, numbers: OutPipe[int], limit: int) -> bytes:
        """Push the numbers below the limit, by a generator; return them as bytes."""

    @operation
    def collected(self, numbers: InPipe[int], data: Out[bytearray]) -> int:
        """Put the numbers into the caller's buffer; return how many there were."""

    @operation
    def undrained(self, numbers: InPipe[int] = ...) -> int:
        """Return without pulling."""

    @operation
    def held_in(self, key: str, numbers: InPipe[int] = ...) -> Any:
        """Kept until the control ends it."""

    @operation
    def held_out(self, key: str, numbers: OutPipe[int] = ...) -> Any:
        """Kept until the control ends it."""

    @operation
    def held_both(self, key: str, numbers: InOutPipe[int] = ...) -> Any:
        """Kept until the control ends it."""

    @operation
    def held_many(
        self,
        key: str,
        left: InPipe[int] = ...,
        right: InPipe[int] = ...,
        upper: OutPipe[int] = ...,
        lower: OutPipe[int] = ...,
    ) -> Any:
        """Kept until the control ends it."""


class Hand(Interface, id="test.Hand"):
    """Works the server's ends of held calls. What an operation of theirs raises is returned as ["status", number]."""

    @operation
    def arrived(self, key: str) -> None:
        """Return once a call is held under `key`."""

    @operation
    def push(self, key: str, pipe: str, elements: list[Any]) -> Any:
        """Push; return 0 or the status."""

    @operation
    def push_wait(self, key: str, pipe: str, elements: list[Any]) -> Any:
        """Push, waiting for room; return 0 or the status."""

    @operation
    def pull(self, key: str, pipe: str, maximum: int = 1024) -> Any:
        """Pull; return the elements, or the status."""

    @operation
    def pull_wait(self, key: str, pipe: str, maximum: int = 1024) -> Any:
        """Pull, waiting for elements; return them, or the status."""

    @operation
    def tell(self, key: str, send_complete: bool) -> None:
        """Have the sends and receives of the call told."""

    @operation
    def tell_of_itself(self) -> int:
        """Have the sends and receives of this very call told; return the status."""

    @operation
    def told(self, key: str, count: int) -> list[int]:
        """Return the kinds of the next so many signals."""

    @operation
    def complete(self, key: str, value: Any = None) -> int:
        """Complete; return 0 or the status."""

    @operation
    def abort(self, key: str, status: int) -> int:
        """Abort; return 0 or the status."""

    @operation
    def cancelled(self, key: str) -> None:
        """Return once the call was seen to be cancelled."""
