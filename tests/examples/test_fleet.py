"""examples/fleet.py: a picture drawn by several servers."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("numpy", reason="NumPy is not installed")

import numpy as np

from engine import Client, Server
from engine.testing import LIMIT
from examples.fleet import DEPTH, Drawing, Picture, draw, make_server

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT = 60, 100  # The last tile is not a whole one.


@pytest.fixture(scope="module")
def expected() -> Picture:
    """The picture, as one process draws it."""
    return Drawing().draw(np.linspace(-2.2, 0.8, WIDTH), np.linspace(1.2, -1.2, HEIGHT))


@pytest.fixture
def members() -> Iterator[list[Server]]:
    with ExitStack() as stack:
        servers = [stack.enter_context(make_server("tcp://127.0.0.1:*")) for _ in range(3)]
        for server in servers:
            server.listen()
        yield servers


def test_a_picture(members: list[Server], expected: Picture) -> None:
    """All tiles are in their places, whichever server has drawn them."""
    with Client([server.endpoint for server in members], timeout=LIMIT) as client:
        picture = draw(client, WIDTH, HEIGHT)
    assert np.array_equal(picture, expected)
    assert picture[HEIGHT // 2, WIDTH * 2 // 3] == DEPTH and picture[0, 0] < 5


def test_a_member_that_leaves(members: list[Server], expected: Picture) -> None:
    """A fleet that loses a member still draws all of it."""
    with Client([server.endpoint for server in members], timeout=LIMIT) as client:
        draw(client, WIDTH, HEIGHT)
        members[0].close(0)
        assert np.array_equal(draw(client, WIDTH, HEIGHT), expected)


def test_the_program(tmp_path: Path) -> None:
    """Two processes serve at one endpoint, whose members tell of each other; the file is a picture."""
    fleet = subprocess.Popen(
        [sys.executable, "-u", "-c",
         "import logging; logging.basicConfig(level='INFO', format='%(message)s'); "
         "from examples.fleet import serve; serve('tcp://127.0.0.1:*')"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert fleet.stderr is not None
        endpoint = next(line.split()[2] for line in fleet.stderr if line.startswith("serving at"))
        file = tmp_path / "set.pgm"
        done = subprocess.run(
            [sys.executable, "-m", "examples.fleet", "draw", str(file), endpoint],
            cwd=ROOT, capture_output=True, text=True, timeout=LIMIT,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert file.read_bytes().startswith(b"P5 1200 960 255\n") and file.stat().st_size == 1200 * 960 + 16
    finally:
        fleet.terminate()
        fleet.communicate(timeout=LIMIT)
    assert fleet.returncode == 0
