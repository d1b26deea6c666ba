"""Contracts are typed: what a strict type checker finds in a sample, and what it does not."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.testing import LIMIT

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = Path(__file__).with_name("sample.py")


def test_a_strict_type_checker() -> None:
    """mypy --strict finds the errors that the sample's comments name, on their lines, and no others."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", "--strict", "--no-error-summary", "--follow-imports=silent",
         "--hide-error-context", "--show-error-codes", str(SAMPLE)],
        cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    found = {
        (int(match[1]), match[2])
        for match in re.finditer(r"^[^:\n]*sample\.py:(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE)
    }
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    wanted = {
        (number, match[1])
        for number, line in enumerate(lines, 1)
        if (match := re.search(r"# error: ([\w-]+)$", line)) is not None
    }
    assert found == wanted, done.stdout


def test_pyright() -> None:
    """pyright finds them on the same lines; it lets methods without a body pass."""
    pytest.importorskip("pyright", reason="pyright is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", str(SAMPLE)],
        cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    found = {each["range"]["start"]["line"] + 1 for each in json.loads(done.stdout)["generalDiagnostics"]}
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    wanted = {number for number, line in enumerate(lines, 1) if re.search(r"# error: (?!empty-body)[\w-]+$", line)}
    assert found == wanted, done.stdout
