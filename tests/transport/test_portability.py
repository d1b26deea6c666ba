"""Platforms that lack `select.epoll`, or `select.poll` as well: the same promises, in a process where they are gone."""

import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.testing import LIMIT

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[[str], None]


# As macOS would be if it had no kqueue either, and as Windows is. (With kqueue poll sets nest, as with epoll.)
@pytest.fixture(params=["epoll", "epoll poll"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """A function that runs one of `poll_sets.py` where these functions are missing."""

    def run_without(name: str) -> None:
        command = [sys.executable, "-m", "tests.transport.lacking", name, str(tmp_path), *request.param.split()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, cwd=ROOT)
        assert done.returncode == 0, done.stdout + done.stderr

    return run_without


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="there is nothing to take away")
class TestWithoutPollSets:
    """What the driver, the links and the waits do by epoll elsewhere."""

    def test_calls(self, run: Run) -> None:
        """Calls of several threads, calls told by packet, and calls that are awaited are answered."""
        run("calls")

    def test_a_client_whose_server_comes_back(self, run: Run) -> None:
        """A client replaces its socket when the connection is lost; threads that poll go on with the new one."""
        run("a_server_that_comes_back")

    def test_sources_that_come(self, run: Run) -> None:
        """A thread that polls takes notice of a source that another one registers."""
        run("sources_that_come")

    def test_sources_that_go(self, run: Run) -> None:
        """A poll is not disturbed by a descriptor that is closed in the midst of it."""
        run("sources_that_go")

    def test_processes(self, run: Run) -> None:
        """The end of a process is noticed."""
        run("processes")

    @pytest.mark.untraced
    def test_descriptors_are_refused(self, run: Run) -> None:
        """Overlapped descriptors want a poll set that can be polled itself: 50, and the descriptor is left alone."""
        run("descriptors")
