"""NumPy over several servers, without copies: the Mandelbrot set, drawn in tiles by a fleet.

    python -m examples.fleet serve [ENDPOINT [PROCESSES]]       several processes on one endpoint
    python -m examples.fleet draw FILE.pgm [ENDPOINT ...]       one member tells of all; or name several servers

One client balances its calls over all servers. Each tile is written by the link straight into its place in the picture
(`into=`), and a server that dies loses nothing: tiles are idempotent, and are drawn by another one.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine import Client, CompletionPort, Interface, Server, operation
from engine.processes import serve as serve_in_processes
from engine.resolvers import Seed

ENDPOINT = "tcp://127.0.0.1:5555"
ROWS = 16  # Of a tile.
DEPTH = 255  # Steps after which a point counts as one of the set.

Picture = NDArray[np.uint8]


class Tiles(Interface, id="example.Tiles", version=(1, 0)):
    """What each member serves."""

    @operation(idempotent=True)
    def draw(self, real: NDArray[np.float64], imaginary: NDArray[np.float64]) -> Picture:
        """Return for each point of the grid how many steps it takes to leave, at most `DEPTH`."""
        raise NotImplementedError


class Drawing:
    """Implements `Tiles`. NumPy computes; the arrays that came lie over what was received."""

    def draw(self, real: NDArray[np.float64], imaginary: NDArray[np.float64]) -> Picture:
        start = real[np.newaxis, :] + 1j * imaginary[:, np.newaxis]
        at = np.zeros_like(start)
        steps = np.full(start.shape, DEPTH, np.uint8)
        for step in range(DEPTH):
            at = at * at + start
            steps[(np.abs(at) > 2) & (steps == DEPTH)] = step
            at[steps < DEPTH] = 0  # It has left, and must not overflow.
        return steps


def make_server(*endpoints: str) -> Server:
    """A member of the fleet, called in each process."""
    server = Server(*endpoints, workers=1)  # One processor each.
    server.register(Tiles, Drawing())
    return server


def draw(client: Client, width: int, height: int) -> Picture:
    """Have the fleet draw the set; tiles arrive in any order, each in its place."""
    real = np.linspace(-2.2, 0.8, width)
    imaginary = np.linspace(1.2, -1.2, height)
    picture = np.empty((height, width), np.uint8)
    tiles = client.bind(Tiles, causal=False)
    with CompletionPort() as port:
        firsts = range(0, height, ROWS)
        for first in firsts:
            rows = slice(first, first + ROWS)
            tiles.draw.begin(real, imaginary[rows], notify=port, into=picture[rows])
        for _ in firsts:
            port.get().overlapped.complete()
    return picture


def serve(endpoint: str = ENDPOINT, processes: str = "2") -> None:
    """Serve until Ctrl-C or SIGTERM."""
    serve_in_processes(make_server, endpoint, processes=int(processes))


def draw_file(file: str, *endpoints: str) -> None:
    """Write the picture into a file."""
    with Client(endpoints if len(endpoints) > 1 else Seed(*endpoints or [ENDPOINT])) as client:
        picture = draw(client, 1200, 960)
        members = ", ".join(f"{member.endpoint}: {member.calls_finished}" for member in client.members)
    Path(file).write_bytes(b"P5 %d %d 255\n" % picture.shape[::-1] + picture.tobytes())
    print(f"wrote {file}; tiles by {members}")


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"serve": serve, "draw": draw_file}
    commands[sys.argv[1]](*sys.argv[2:])
