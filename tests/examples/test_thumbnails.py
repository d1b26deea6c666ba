"""examples/thumbnails.py: pictures in, small ones out."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("PIL", reason="Pillow is not installed")

from PIL import Image

from engine import Client, Server
from engine.testing import LIMIT
from examples import thumbnails
from examples.thumbnails import NoPicture, Shrinking, Thumbnails, shrink_all


@pytest.fixture
def client() -> Iterator[Client]:
    with Server("tcp://127.0.0.1:*", workers=2) as server:
        server.register(Thumbnails, Shrinking())
        server.listen()
        with Client(server.endpoint, timeout=LIMIT) as client:
            yield client


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(made, kind)
    return made.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_a_picture(client: Client, kind: str) -> None:
    """It fits into the square, and keeps its shape."""
    small = Image.open(io.BytesIO(client.bind(Thumbnails).make(picture(400, 200, kind), 100)))
    assert (small.format, small.size) == ("JPEG", (100, 50))


@pytest.mark.parametrize("data", [b"", b"no picture", picture(400, 200)[:60]])
def test_no_picture(client: Client, data: bytes) -> None:
    """What is none, or is cut off, is told by the exception of the contract."""
    with pytest.raises(NoPicture):
        client.bind(Thumbnails).make(data)


def test_a_large_picture(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of too many pixels is refused before it is decoded."""
    monkeypatch.setattr(thumbnails, "MOST_PIXELS", 10_000)
    with pytest.raises(NoPicture, match="400 x 200 pixels are too many"):
        client.bind(Thumbnails).make(picture(400, 200))


def test_a_folder(client: Client, tmp_path: Path) -> None:
    """A thumbnail of each picture is written, under the same name; files that are none are counted."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for number in range(20):
        (source / f"{number}.png").write_bytes(picture(300, 100 + number))
    (source / "notes.txt").write_text("no picture", encoding="utf-8")
    assert shrink_all(client, iter(sorted(source.iterdir())), target) == (20, 1)
    assert {path.name for path in target.iterdir()} == {f"{number}.jpg" for number in range(20)}
