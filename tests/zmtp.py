"""A peer that speaks ZMTP over a bare socket, and so may do what no ZeroMQ socket does."""

import socket
import struct
from types import TracebackType
from typing import Self

from engine.testing import LIMIT
from transport.frames import Hello
from transport.native_link.framing import GREETING_BYTES, command, hello, in_frames
from transport.wire.codec import encode


class Zmtp:
    """A connection to a server; use it as a context manager.

    Args: `name`: the routing id that it gives itself; `host`: the address of this machine that it comes from.
    """

    def __init__(self, endpoint: str, name: bytes = b"", *, small: bool = False, host: str = "") -> None:
        where = endpoint.partition("://")[2]
        tcp = endpoint.partition("://")[0].endswith("tcp")
        self.socket = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        if small:  # It lets little wait to be read.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        if host:
            self.socket.bind((host, 0))
        host, _, port = where.rpartition(":")
        self.socket.connect((host, int(port)) if tcp else where)
        described = b"\x0bSocket-Type\0\0\0\6DEALER\x08Identity" + len(name).to_bytes(4) + name
        self.socket.sendall(hello(b"DEALER")[:GREETING_BYTES] + command(b"READY", described))

    def ready(self) -> Self:
        """Wait until the server is ready, too."""
        said = b""
        while b"READY" not in said:
            some = self.socket.recv(GREETING_BYTES)
            assert some, "the server has closed the connection"
            said += some
        return self

    def say(self, *frames: bytes) -> None:
        """Send a message."""
        self.socket.sendall(b"".join(bytes(piece) for piece in in_frames(list(frames))))

    def greet(self) -> Self:
        """Be ready, and say hello; what the server answers is not read."""
        self.ready().say(*map(bytes, encode(Hello(b"\1" * 16, host="bare"))))
        return self

    def ended(self) -> bool:
        """Read on; return once the server has closed the connection, within the limit."""
        try:
            while self.socket.recv(1 << 20):
                pass
        except ConnectionError:
            pass
        return True

    def reset(self) -> None:
        """Go without a word, so that what waits at both ends is lost."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
