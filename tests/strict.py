"""What strict type checkers say of programs in a folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.testing import LIMIT

ROOT = Path(__file__).resolve().parent.parent


def check_by_mypy(folder: Path, *options: str) -> None:
    """`mypy --strict` finds nothing in the modules of a folder."""
    programs = map(str, sorted(folder.glob("*.py")))
    cache = f"--cache-dir={ROOT / '.mypy_cache' / 'programs'}"  # Of the library, mostly, which all programs import.
    _check("mypy", "--config-file=", "--strict", "--follow-imports=silent", cache, *options, *programs, folder=folder)


def check_by_pyright(folder: Path) -> None:
    """pyright, in its strict mode, finds nothing there; the test is skipped where it is not installed."""
    pytest.importorskip("pyright", reason="pyright is not installed")
    config = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(config), encoding="utf-8")
    _check("pyright", "--pythonpath", sys.executable, str(folder), folder=folder)


def _check(checker: str, *arguments: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", checker, *arguments], cwd=folder, capture_output=True, text=True, timeout=5 * LIMIT,
        env={**os.environ, "MYPYPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
