"""Threads wait while others import asyncio."""

import subprocess
import sys
from pathlib import Path

from engine.testing import LIMIT

ROOT = Path(__file__).resolve().parents[2]


def test_a_wait_meanwhile() -> None:
    """A wait at any step of the import is a wait as any other, though what asks for loops is only half there."""
    program = [sys.executable, "-m", "tests.kernel.importing"]
    found = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) > 10
