"""Running the programs of this folder, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

# Seconds for a whole program; spent only by one that hangs. Less than a test has, so that what it said is shown.
PATIENCE = 100.0


def run(
    name: str, *arguments: str, options: tuple[str, ...] = (), patience: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Run `python -m tests.lifecycle.NAME ARGUMENTS`; fails if it does not end within `patience` seconds."""
    command = [sys.executable, *options, "-m", f"tests.lifecycle.{name}", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True)
    try:
        said, complaints = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        said, complaints = process.communicate()
        raise AssertionError(f"{name} {arguments} did not end; it said:\n{said}\n{complaints}") from None
    return subprocess.CompletedProcess(command, process.returncode, said, complaints)
