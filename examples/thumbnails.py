"""A service that makes thumbnails, and a client that has many under way at once.

    python -m examples.thumbnails serve [ENDPOINT]
    python -m examples.thumbnails make [ENDPOINT] FROM-FOLDER TO-FOLDER

Needs Pillow, which lets go of the interpreter while it decodes and shrinks: several workers are quicker than one. A
port tells of each picture that is ready, and the client begins the next one then: no more than a few are in memory.
"""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from engine import Client, CompletionPort, EngineError, Interface, Server, operation

ENDPOINT = "tcp://127.0.0.1:5555"
UNDER_WAY = 8  # Pictures that the client has at the server.
MOST_PIXELS = 50_000_000  # Above it a picture is refused: a file of some kB may stand for gigabytes.


class NoPicture(Exception):
    """What was sent is no picture, or too large a one. Its argument says why."""


class Thumbnails(Interface, id="example.Thumbnails", version=(1, 0)):
    """What is served."""

    @operation(idempotent=True, raises=[NoPicture])
    def make(self, picture: bytes, size: int = 128) -> bytes:
        """Return a JPEG that fits into a square of `size` pixels. Raises: `NoPicture`."""
        raise NotImplementedError


class Shrinking:
    """Implements `Thumbnails`."""

    def make(self, picture: bytes, size: int) -> bytes:
        try:
            with Image.open(io.BytesIO(picture)) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise NoPicture(f"{image.width} x {image.height} pixels are too many")
                image.draft("RGB", (size, size))  # A JPEG is decoded at a fraction of its size.
                small = image.convert("RGB")
        except (UnidentifiedImageError, OSError) as error:  # Cut off, for one.
            raise NoPicture(str(error)) from error
        small.thumbnail((size, size))
        made = io.BytesIO()
        small.save(made, "JPEG", quality=80)
        return made.getvalue()


def serve(endpoint: str = ENDPOINT) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    with Server(endpoint, workers=4, max_body_bytes=32 << 20) as server:
        server.register(Thumbnails, Shrinking())
        print("serving at", endpoint, flush=True)
        server.listen(wait=True)


def shrink_all(client: Client, pictures: Iterator[Path], target: Path) -> tuple[int, int]:
    """Write a thumbnail of each picture into a folder; return how many were made, and how many were none."""
    make = client.bind(Thumbnails, causal=False).make
    made = wrong = under_way = 0
    with CompletionPort() as port:
        while True:
            while under_way < UNDER_WAY and (path := next(pictures, None)) is not None:
                make.begin(path.read_bytes(), notify=port.packet(key=path), timeout=60.0)
                under_way += 1
            if not under_way:
                return made, wrong
            packet = port.get()
            under_way -= 1
            try:
                (target / packet.key.name).with_suffix(".jpg").write_bytes(packet.overlapped.complete())
                made += 1
            except (NoPicture, EngineError) as error:
                print(f"{packet.key}: {error}", file=sys.stderr)
                wrong += 1


def make(*arguments: str) -> None:
    """Make thumbnails of all files of a folder."""
    endpoint, source, target = arguments if len(arguments) == 3 else (ENDPOINT, *arguments)
    Path(target).mkdir(exist_ok=True)
    with Client(endpoint) as client:
        made, wrong = shrink_all(client, (path for path in Path(source).iterdir() if path.is_file()), Path(target))
    print(f"{made} thumbnails, {wrong} files were no pictures")


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"serve": serve, "make": make}
    commands[sys.argv[1]](*sys.argv[2:])
