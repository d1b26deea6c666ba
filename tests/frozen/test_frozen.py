"""Version 1 of the protocol is frozen: client and server of then and of now, both ways. PROTOCOL.md, section 14.

The frozen version is that of the commit that brought `peer.py`, taken out of the repository's history. Where there is
none, in a source distribution or a shallow clone, the file of vectors is what remains of it
(`tests/transport/wire/test_vectors.py`), and this is skipped.
"""

import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.testing import LIMIT

ROOT = Path(__file__).resolve().parents[2]
PEER = "tests/frozen/peer.py"
#: What a program of then needs.
PARTS = ("engine", "transport", "tests/__init__.py", "tests/frozen")


def git(*arguments: str) -> bytes:
    """What git says; skips if it says nothing."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, timeout=LIMIT)
    except FileNotFoundError:
        pytest.skip("git is not installed: there is no history to take the frozen version from")
    if done.returncode or not done.stdout.strip():
        pytest.skip(f"there is no history to take the frozen version from: git {arguments[0]} says {done.stderr!r}")
    return done.stdout


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it was when the protocol was frozen."""
    if git("rev-parse", "--is-shallow-repository").strip() != b"false":
        pytest.skip("this clone is shallow: it may not go back to the frozen version")
    commit = git("log", "--diff-filter=A", "--format=%H", "--", PEER).split()[-1].decode()
    folder = tmp_path_factory.mktemp("frozen")
    with tarfile.open(fileobj=io.BytesIO(git("archive", "--format=tar", commit, *PARTS))) as archive:
        archive.extractall(folder, filter="data")
    return folder


@contextmanager
def serving(folder: Path, endpoint: str) -> Iterator[str]:
    """A server of the version in a folder; where it listens."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.frozen.peer", "serve", endpoint], cwd=folder, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        line = server.stdout.readline().strip()
        assert line, server.communicate()[1]
        yield line
        _, complaints = server.communicate(timeout=LIMIT)
        assert server.returncode == 0, complaints
        assert "dropped a message" not in complaints
    finally:
        server.kill()
        server.communicate()


def call(folder: Path, endpoint: str) -> None:
    """Have a client of the version in a folder call all that there is."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.frozen.peer", "call", endpoint], cwd=folder, capture_output=True, text=True,
        timeout=LIMIT,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("checked\n", 0), done.stderr


ENDPOINTS = ["tcp://127.0.0.1:*", "native+tcp://127.0.0.1:*"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_now(endpoint: str) -> None:
    """Client and server of now understand each other."""
    with serving(ROOT, endpoint) as where:
        call(ROOT, where)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_server_of_then(frozen: Path, endpoint: str) -> None:
    """A client of now calls all that a frozen server has."""
    with serving(frozen, endpoint) as where:
        call(ROOT, where)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_client_of_then(frozen: Path, endpoint: str) -> None:
    """A frozen client gets all that it got then."""
    with serving(ROOT, endpoint) as where:
        call(frozen, where)
