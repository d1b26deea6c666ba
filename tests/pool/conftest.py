"""Fixtures of the pool's tests."""

from collections.abc import Iterator

import pytest

from engine import ThreadPool
from engine.testing import LIMIT, ManualClock


@pytest.fixture
def errors() -> list[tuple[BaseException, object]]:
    """What the error handler of the pools below was told."""
    return []


@pytest.fixture
def pool(errors: list[tuple[BaseException, object]]) -> Iterator[ThreadPool]:
    """A pool of up to 8 threads; none leaves, and looks for work once more before it does, while a test waits."""
    made = ThreadPool(0, 8, name="test", idle_limit=2 * LIMIT, on_error=lambda *told: errors.append(told))
    yield made
    assert made.stop(LIMIT, cancel_pending=True)


@pytest.fixture
def single(errors: list[tuple[BaseException, object]]) -> Iterator[ThreadPool]:
    """A pool of one thread."""
    made = ThreadPool(1, 1, name="single", on_error=lambda *told: errors.append(told))
    yield made
    assert made.stop(LIMIT, cancel_pending=True)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()
