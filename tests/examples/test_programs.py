"""The programs of the examples that serve: they start, answer, and end in good order."""

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine import Client, Health
from engine.testing import LIMIT

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("program", "needs"),
    [
        ("ledger {endpoint} {folder}/ledger.sqlite", None),
        ("log_tail serve {folder}/log {endpoint}", None),
        ("thumbnails serve {endpoint}", "PIL"),
    ],
)
def test_a_program_that_serves(program: str, needs: str | None, tmp_path: Path) -> None:
    """It serves where it is told to, and SIGTERM ends it."""
    if needs is not None and importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    endpoint = f"ipc://{tmp_path}/socket"
    module, *arguments = program.format(endpoint=endpoint, folder=tmp_path).split()
    process = subprocess.Popen(
        [sys.executable, "-m", f"examples.{module}", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == f"serving at {endpoint}\n"
    with Client(endpoint, timeout=LIMIT, connect_timeout=LIMIT) as client:
        assert client.bind(Health).check().live
    process.send_signal(signal.SIGTERM)
    _, complaints = process.communicate(timeout=LIMIT)
    assert process.returncode == 0 and "Traceback" not in complaints, complaints
