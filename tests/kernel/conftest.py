"""Fixtures of the kernel's tests."""

from collections.abc import Callable, Iterator

import pytest

from engine import CompletionPort

from .helpers import Actor


@pytest.fixture
def actor() -> Iterator[Callable[[], Actor]]:
    """A function that makes threads which do what they are told; they end with the test."""
    made: list[Actor] = []

    def make() -> Actor:
        made.append(Actor(f"actor-{len(made)}"))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def port() -> Iterator[CompletionPort]:
    """A port with a concurrency value of 1."""
    with CompletionPort(1) as made:
        yield made
