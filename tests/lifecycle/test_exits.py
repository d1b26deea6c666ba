"""The end of a process that has closed nothing, and whose threads are in the midst of things."""

import sys

import pytest

from .leaving import WAYS
from .programs import run

# What the process is to end with, where it is not 0.
CODES = {"a-code": 7, "a-text": 1}

COMPLAINTS = ("Traceback", "Exception", "ignored", "Error", "Fatal", "Assertion")


@pytest.mark.parametrize("way", WAYS)
def test_ends(way: str) -> None:
    """A process ends by itself, with its own code, and without a complaint, whatever is open and goes on."""
    if way == "first-use-after-the-main-thread" and (3, 12) <= sys.version_info < (3, 12, 2):
        pytest.skip("this version starts no thread any more when the main thread has ended")
    done = run("leaving", way)
    assert done.returncode == CODES.get(way, 0), done.stderr
    assert done.stdout.splitlines()[-1] == "leaving"
    assert not [word for word in COMPLAINTS if word in done.stderr], done.stderr


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 2), reason="this Python starts no thread once the main one has ended"
)
def test_ends_though_sockets_cannot_be_closed() -> None:
    """A process ends though sockets were dropped that a warning, which is an error, has kept from being closed."""
    done = run("dropping")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "dropping"
    assert "ResourceWarning" in done.stderr, "otherwise this tests nothing"
