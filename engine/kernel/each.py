"""Loops as functions, for use under a lock or in a `try` that must clean up: see `transport/lock.py`, on interrupts."""

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def each(function: Callable[[T], object], things: Iterable[T]) -> None:
    """Call `function` with each of them, in their order."""
    for thing in things:
        function(thing)


def index_of(thing: object, things: Iterable[object]) -> int | None:
    """Where `thing` itself is, None if nowhere. Calls no `__eq__`, which may be a user's."""
    return next((index for index, other in enumerate(things) if other is thing), None)
