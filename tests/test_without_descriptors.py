"""What the library does while the system has no file descriptor left."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.testing import LIMIT

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sets RLIMIT_NOFILE")


def outcome(name: str) -> str:
    """Run one of the programs of `without_descriptors.py`; return what it printed."""
    program = [sys.executable, "-m", "tests.without_descriptors", name]
    found = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    assert (found.returncode, "Traceback" in found.stderr) == (0, False), found.stderr
    return found.stdout.strip()


@pytest.mark.parametrize("name", ["wait", "port", "timer", "registered", "pool", "executor", "awaited", "process"])
def test_nothing_to_poll(name: str) -> None:
    """Waits, timers, registered waits, pools and tasks need no descriptor of the library's own."""
    assert outcome(name) == "True"


def test_a_source_is_refused() -> None:
    """A source that cannot be polled is refused with 1816, once and not for ever."""
    assert outcome("source") == "True"


@pytest.mark.parametrize("name", ["client", "server", "another"])
def test_a_link_is_refused(name: str) -> None:
    """A client or server for which there are too few descriptors raises `EndpointError`; later it works."""
    assert outcome(name) == "True"
