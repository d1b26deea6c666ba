"""ZMTP 3.1 without I/O: bytes of a connection <-> messages; the greeting, the NULL handshake, PING and PONG.

    greeting --64 bytes that fit--> handshake --READY--> open          any --what does not fit--> FramingError

Theory of operation. A frame is a byte of flags, its length (one byte, or eight) and its body; a message is one frame or
several, a command is one, and may stand between the frames of a message. `take` is given bytes as they come and returns
the messages that they complete. Of a large frame that has only begun, `filling` is the memory that the rest is to be
read into, so that it is copied no more.

Guarantees: every length is held against a limit before anything of that length is kept. What a peer makes this side
keep is 256 KiB, or at most four times what it has sent; frames after those that a message may have are dropped.

Source: "23/ZMTP" and "37/ZMTP" (3.1) of rfc.zeromq.org: "Formal Grammar", "The NULL Security Mechanism", "Connection
Heartbeating".
"""

from math import inf
from struct import Struct
from typing import Final

from transport.errors import RemoteProtocolError
from transport.frames import MAX_BLOBS, Buffer

MORE: Final = 1
LONG: Final = 2
COMMAND: Final = 4

GREETING_BYTES: Final = 64
#: Longest command taken. Arbitrary: a READY has some 50 bytes, a PING 22 at most.
MAX_COMMAND_BYTES: Final = 4096
#: Most frames of a message, those that are dropped counted. Arbitrary: above what any peer of ours has a use for.
MAX_PARTS: Final = 4096
#: Longest first message of a client, before which nothing else is known of it: a HELLO.
MAX_FIRST_BYTES: Final = 64 * 1024

#: From this size on the rest of a frame is read into its place. Below it a copy is cheaper.
LARGE_BYTES: Final = 32 * 1024
#: What is set aside for a large frame at first, and how many times as much whenever that is full.
_FIRST_BYTES: Final = 256 * 1024
_GROWTH: Final = 4

_GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
_LONG_HEAD: Final = Struct(">BQ")
#: What stands before the body of a short frame, by its size, unless more follow.
SHORT_HEADS: Final = tuple(bytes((0, size)) for size in range(256))
# Whom each kind of socket talks to.
_PEERS: Final = {b"DEALER": (b"REP", b"DEALER", b"ROUTER"), b"ROUTER": (b"REQ", b"DEALER", b"ROUTER")}


class FramingError(RemoteProtocolError):
    """The peer sent what is not ZMTP, or more than is taken of it: its connection is to be closed."""


def head(size: int, more: bool = False) -> bytes:
    """What stands before the body of a message's frame."""
    if size < 256:
        return b"\x01%c" % size if more else SHORT_HEADS[size]
    return _LONG_HEAD.pack(LONG | more, size)


def in_frames(frames: list[Buffer]) -> list[Buffer]:
    """Return what to send of a message, in order: heads and bodies."""
    pieces: list[Buffer] = []
    for frame in frames[:-1]:
        pieces += head(len(frame), True), frame
    last = frames[-1]
    return [*pieces, head(len(last)), last]


def command(name: bytes, data: bytes) -> bytes:
    """Return a command, which is short."""
    return bytes((COMMAND, 1 + len(name) + len(data), len(name))) + name + data


def hello(kind: bytes) -> bytes:
    """Return what a socket of this kind begins a connection with: it need not wait for the peer's greeting."""
    described = b"".join(
        bytes((len(name),)) + name + len(value).to_bytes(4) + value
        for name, value in ((b"Socket-Type", kind), (b"Identity", b""))
    )
    return _GREETING + command(b"READY", described)


def ping(patience: float) -> bytes:
    """Return a PING; the peer may take this side for dead after so many seconds without another."""
    return command(b"PING", min(int(patience * 10), 0xFFFF).to_bytes(2))


class Framing:
    """What a connection receives.

    Args:
        kind: of this side's socket, b"DEALER" or b"ROUTER".
        max_bytes: the largest frame that is taken; a message takes twice as much at most.
        first_bytes: likewise, of the first message.
    """

    __slots__ = (
        "_body", "_careful", "_count", "_filled", "_flags", "_greeted", "_kind", "_left", "_limit", "_max_bytes",
        "_parts", "_room", "_size", "_total", "filling", "open", "owed", "patience", "pings",
    )  # fmt: skip

    def __init__(self, kind: bytes, max_bytes: int, first_bytes: int) -> None:
        self._kind = kind
        self._max_bytes = max_bytes
        # The largest frame that is taken now; and whether every frame is looked at: until the first message is there.
        self._limit = min(first_bytes, max_bytes)
        self._careful = True
        #: Whether the handshake is over: messages may be sent, and come.
        self.open: bool = False
        #: Whether the peer answers PINGs: ZMTP 3.0 has none.
        self.pings: bool = False
        #: Seconds without a word after which the peer may take this side for dead.
        self.patience: float = inf
        #: What is to be sent back, and was not taken by `answers` yet.
        self.owed: list[bytes] = []
        #: Where the next bytes are to be read into; None: anywhere, for `take`.
        self.filling: memoryview | None = None
        self._greeted = False
        # What is no whole frame yet, unless it is being filled.
        self._left = b""
        # Of the message under way: its frames, how many there were, and their bytes.
        self._parts: list[Buffer] = []
        self._count = self._total = 0
        # Of the frame that is being filled: its flags, its size, its memory, and how much of that is filled.
        self._flags = self._size = self._filled = 0
        self._body = bytearray()
        # How much is set aside for a large frame at once: as much as one has taken before.
        self._room = _FIRST_BYTES

    def take(self, data: bytes, messages: list[list[Buffer]]) -> None:
        """These bytes came: append the messages that they complete, those before an error too. Raises: FramingError."""
        if self._left:
            data = self._left + data
            self._left = b""
        position, end = 0, len(data)
        if not self._greeted:
            position = self._greet(data)
            if not position:
                self._left = data
                return
        while end - position >= 2:
            flags, size, start = data[position], data[position + 1], position + 2
            if flags & LONG:
                start = position + 9
                if start > end:
                    break
                size = int.from_bytes(data[position + 1 : start])
            if flags or self._count or self._careful:
                self._check(flags, size)
            stop = start + size
            if stop > end:
                if size >= LARGE_BYTES:
                    self._fill(flags, size, data[start:])
                    return
                break
            position = stop
            if not flags and not self._count:
                messages.append([data[start:stop]])
            elif flags & COMMAND:
                self._obey(data[start:stop])
            else:
                self._add(flags, data[start:stop], messages)
            if self._careful and messages:
                self._relax()
        self._left = data[position:]

    def filled(self, count: int, messages: list[list[Buffer]]) -> None:
        """So many bytes were read into `filling`: append the message that they complete. Raises: FramingError."""
        self._filled += count
        self.filling = None  # The memory cannot grow while a view of it exists.
        if self._filled == self._size:
            body, self._body = self._body, bytearray()
            self._room = max(self._room, self._size)
            self._add(self._flags, memoryview(body).toreadonly(), messages)
            if self._careful and messages:
                self._relax()
        else:
            if self._filled == len(self._body):
                self._body += bytes(min(self._size, _GROWTH * self._filled) - self._filled)
            self.filling = memoryview(self._body)[self._filled :]

    def answers(self) -> bytes:
        """Take what is to be sent back."""
        owed, self.owed = self.owed, []
        return b"".join(owed)

    def _greet(self, data: bytes) -> int:
        """Return how long the greeting is; 0 if not all of it is there. Refused as early as may be."""
        if data[:1] != b"\xff" or (len(data) > 9 and not data[9] & 1):
            raise FramingError("it does not speak ZMTP")
        if len(data) > 10 and data[10] < 3:
            raise FramingError(f"it speaks version {data[10]} of ZMTP, this side speaks 3.1")
        if len(data) < GREETING_BYTES:
            return 0
        mechanism = data[12:32].rstrip(b"\0")
        if mechanism != b"NULL":
            raise FramingError(f"it asks for the security mechanism {mechanism!r}, this side has NULL")
        self._greeted = True
        self.pings = data[10:12] >= b"\x03\x01"
        return GREETING_BYTES

    def _check(self, flags: int, size: int) -> None:
        """Raise unless such a frame may come now."""
        if flags & COMMAND:
            if size > MAX_COMMAND_BYTES:
                raise FramingError(f"it sent a command of {size} bytes, more than {MAX_COMMAND_BYTES}")
        elif not self.open:
            raise FramingError("it sent a message before it was READY")
        elif size > self._limit or self._total + size > 2 * self._limit:
            raise FramingError(f"it sent a frame of {size} bytes, {self._total} before it: {self._limit} are taken")
        if flags > COMMAND | LONG or flags == COMMAND | MORE:
            raise FramingError(f"it sent a frame with flags 0x{flags:02x}")

    def _fill(self, flags: int, size: int, begun: bytes) -> None:
        """Have the rest of a large frame read into its place."""
        self._flags, self._size, self._filled = flags, size, len(begun)
        self._body = bytearray(min(size, self._room))
        self._body[: len(begun)] = begun
        self.filling = memoryview(self._body)[len(begun) :]

    def _relax(self) -> None:
        """The first message is there."""
        self._limit = self._max_bytes
        self._careful = self._limit < 256  # A short frame may be too long.

    def _add(self, flags: int, body: Buffer, messages: list[list[Buffer]]) -> None:
        """A frame of a message is there."""
        self._total += len(body)
        self._count += 1
        if self._count > MAX_PARTS:
            raise FramingError(f"it sent a message of more than {MAX_PARTS} frames")
        if len(self._parts) <= MAX_BLOBS + 1:  # One more than a message may have: its reader sees that it had.
            self._parts.append(body)
        if not flags & MORE:
            messages.append(self._parts)
            self._parts = []
            self._count = self._total = 0

    def _obey(self, body: bytes) -> None:
        """A command is there. One that is not known is passed over."""
        size = body[0] if body else 0
        name, data = body[1 : 1 + size], body[1 + size :]
        if len(name) != size or not size:
            raise FramingError("it sent a command without a name")
        if name == b"ERROR":
            raise FramingError(f"it refuses this side: {bytes(data[1 : 1 + data[0]])!r}" if data else "it refuses")
        if not self.open:
            if name != b"READY":
                raise FramingError(f"it sent {name!r} before it was READY")
            self._ready(data)
        elif name == b"READY":
            raise FramingError("it was READY twice")
        elif name == b"PING":
            if not 2 <= len(data) <= 18:
                raise FramingError(f"it sent a PING of {len(data)} bytes")
            self.patience = int.from_bytes(data[:2]) / 10 or inf
            self.owed.append(command(b"PONG", data[2:]))

    def _ready(self, data: bytes) -> None:
        """The peer has described itself."""
        kind = b""
        while data:
            name_end = 1 + data[0]
            start = name_end + 4
            stop = start + int.from_bytes(data[name_end:start])
            if name_end == 1 or stop > len(data) or start > len(data):
                raise FramingError("its READY is cut off")
            if data[1:name_end].lower() == b"socket-type":
                kind = data[start:stop]
            data = data[stop:]
        if kind not in _PEERS[self._kind]:
            self.owed.append(command(b"ERROR", b"\x13Invalid socket type"))
            raise FramingError(f"its socket is a {kind!r}, which does not go with {self._kind.decode()}")
        self.open = True
