"""The programs that run long, for some seconds each: `make chaos`, `make fuzz` and `make leaks` run them for longer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.testing import LIMIT

from ..certificates import folder

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.untraced,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what a process uses is read from /proc"),
]


def run(program: str, seconds: int, link: str) -> str:
    """Run one of them, with a seed of its own; return what it prints. A failure shows the seed."""
    folder()  # Of certificates: made before the processes that share them.
    command = [sys.executable, "-m", f"tests.long.{program}", str(seconds), "--link", link]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10 * LIMIT, env=os.environ)
    assert found.returncode == 0, found.stdout + found.stderr[-5000:]
    return found.stdout


@pytest.mark.timeout(10 * LIMIT)
@pytest.mark.parametrize("link", ["tcp", "native+tcp"])
class TestShort:
    """A short form of each."""

    def test_chaos(self, link: str) -> None:
        """Each call has exactly one outcome, and a true one, whatever befalls clients and servers."""
        assert "\n0 wrong" in run("chaos", 6, link)

    def test_fuzz(self, link: str) -> None:
        """Whatever a peer sends, at either side, nobody else notices."""
        assert run("fuzz", 6, link).count("\n0 wrong") == 2

    def test_leaks(self, link: str) -> None:
        """Nothing is left of what has ended."""
        assert "\n0 wrong" in run("leaks", 6, link)
