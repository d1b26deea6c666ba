"""The order of routines while processes starve each other of a processor."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.testing import LIMIT

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound to a processor")


@pytest.mark.parametrize(
    ("sequences", "calls"), [(36, 100), pytest.param(540, 1000, marks=[pytest.mark.stress, pytest.mark.timeout(1200)])]
)
def test_order(sequences: int, calls: int) -> None:
    """Routines of all kinds are entered in the order of their calls, though six processes have one processor."""
    program = [sys.executable, "-m", "tests.rpc.ordering", str(sequences), "--calls", str(calls)]
    found = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=10 * LIMIT)
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.startswith(f"{sequences} sequences of {calls} calls, 0 wrong")
