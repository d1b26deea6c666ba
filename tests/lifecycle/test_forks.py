"""Children of busy parents: what they make anew works, whatever threads of the parent were in the midst of."""

import os

import pytest

from .forking import BUSY_WITH
from .programs import run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

FORKS = 20


@pytest.mark.parametrize("busy", BUSY_WITH)
def test_children_of_busy_parents(busy: str) -> None:
    """A child uses new objects of every kind, and ends, while threads of the parent use such objects."""
    done = run("forking", busy, str(FORKS))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
