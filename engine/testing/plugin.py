"""The fixtures for pytest, which finds them by the entry point `callport` of `pytest11`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from .leaks import no_leaks
from .pair import Pair
from .stub import Stub


@pytest.fixture
def callport_pair() -> Iterator[Callable[..., Pair[Any]]]:
    """A function that makes a `Pair`, which is closed after the test; it takes what that takes."""
    with ExitStack() as made:
        yield lambda *args, **options: made.enter_context(Pair(*args, **options))


@pytest.fixture
def callport_serve(callport_pair: Callable[..., Pair[Any]]) -> Callable[..., Any]:
    """A function that serves an interface, by an implementation, and returns a binding; see `Pair`."""
    return lambda *args, **options: callport_pair(*args, **options).binding


@pytest.fixture
def callport_stub() -> Iterator[Callable[..., Stub[Any]]]:
    """A function that makes a `Stub`, which is closed after the test; it takes what that takes."""
    with ExitStack() as made:
        yield lambda *args, **options: made.enter_context(Stub(*args, **options))


@pytest.fixture
def callport_no_leaks() -> Iterator[None]:
    """Fails the test if it leaves something open: `@pytest.mark.usefixtures("callport_no_leaks")`; see `no_leaks`."""
    with no_leaks():
        yield
