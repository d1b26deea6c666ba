"""How a failing test of this suite is reported."""

import subprocess
import sys
from pathlib import Path

from engine.testing import LIMIT

ROOT = Path(__file__).parents[1]
TWO = """
import pytest
from tests import hostile

def fails(value: object) -> None:
    raise AssertionError("what it found")

@pytest.mark.parametrize("kind", hostile.RAISED)
def test_one(kind: type[BaseException]) -> None:
    fails(hostile.silent(kind))

def test_another() -> None:
    pass
"""


def test_values_that_end_who_asks_what_they_are(tmp_path: Path) -> None:
    """A failure among hostile values is reported, and the tests after it are run."""
    (tmp_path / "test_two.py").write_text(TWO)
    asked = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", str(tmp_path)]
    said = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=10 * LIMIT, check=False)
    assert said.returncode == 1, said.stdout + said.stderr
    assert "5 failed, 1 passed" in said.stdout and said.stdout.count("AssertionError: what it found") >= 5
