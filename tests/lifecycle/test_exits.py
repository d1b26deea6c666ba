"""The end of a process that has closed nothing, and whose threads are in the midst of things."""

import sys

import pytest

from engine import Server
from engine.testing import LIMIT, wait_until

from .leaving import WAYS
from .lingering import COUNT, Heap
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


@pytest.mark.parametrize("scheme", ["tcp", "native+tcp"])
def test_what_was_sent_leaves(scheme: str) -> None:
    """What a process has sent leaves within its linger time, though it ends and no thread can be started any more."""
    sizes: list[int] = []

    class Heaping:
        def put(self, data: bytes) -> None:
            sizes.append(len(data))

        def count(self) -> int:
            return len(sizes)

    with Server(f"{scheme}://127.0.0.1:*") as server:
        server.register(Heap, Heaping())
        server.listen()
        done = run("lingering", server.endpoint, options=("-W", "ignore::ResourceWarning"))
        assert done.returncode == 0, done.stderr
        wait_until(lambda: len(sizes) == COUNT, limit=LIMIT)
