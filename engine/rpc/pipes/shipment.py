"""Elements of a call's pipes that leave in one message.

What is pushed into one pipe in a row shares a chunk: the elements of encoded arrays are joined under one new head.
"""

from collections.abc import Callable

import msgspec

from transport import Buffer
from transport.frames import Chunks, PipeChunk
from transport.wire.codec import encode

SHIPMENT_BYTES = 16 * 1024  # A shipment of this size leaves at once; a message costs as much as 4 KiB of copying.
SHIPMENT_CHUNKS = 1024  # Far below what a message may have, and enough to make its own cost vanish.


class Shipment:
    """Chunks of one call's pipes that leave in one message. What is pushed into one pipe in a row shares a chunk."""

    __slots__ = ("_body", "_count", "_seal", "chunks", "size")

    def __init__(self, seal: Callable[["Shipment"], object]) -> None:
        # Called as the shipment leaves: what is pushed from then on goes into another one.
        self._seal = seal
        # Guarded by the set's lock, as long as this is the one that it gathers in.
        self.chunks: list[PipeChunk] = []
        # Bytes of encoded elements.
        self.size: int = 0
        # The elements of the last chunk, of which the chunk itself has the first only; and how many they are.
        self._body = bytearray()
        self._count = 0

    def add(self, call_id: int, pipe: int, raw: msgspec.Raw) -> int:
        """Add encoded elements of a pipe; return by how many bytes the elements of the message have grown."""
        last = self.chunks[-1] if self.chunks else None
        elements = memoryview(raw)
        if last is None or last.pipe != pipe or len(self._body) + len(elements) > SHIPMENT_BYTES:
            self._close()
            self.chunks.append(PipeChunk(call_id, pipe, False, elements))
            grown = len(elements)
        else:
            if not self._count:
                self._count = _append(self._body, last.elements)
            before = _head_size(self._count) + len(self._body)
            self._count += _append(self._body, elements)
            grown = _head_size(self._count) + len(self._body) - before
        self.size += grown
        return grown

    def end(self, call_id: int, pipe: int) -> None:
        """Add that no more will follow in a pipe; it costs nothing."""
        last = self.chunks[-1] if self.chunks else None
        if last is None or last.pipe != pipe:
            self._close()
            last = PipeChunk(call_id, pipe, False, memoryview(b""))
            self.chunks.append(last)
        last.end = True

    def _close(self) -> None:
        """Give the last chunk all of its elements."""
        if self._count:
            self.chunks[-1].elements = memoryview(_head(self._count) + self._body)
        self._body, self._count = bytearray(), 0

    def take(self) -> list[Buffer]:
        """The frames of the message; nothing is added from now on."""
        self._seal(self)
        self._close()
        return encode(Chunks(self.chunks))


def _append(body: bytearray, view: memoryview) -> int:
    """Append the elements of an encoded array, and return how many they are."""
    kind = view[0]
    head = 1 if kind < 0xDC else 3 if kind == 0xDC else 5  # MessagePack's fixarray, array 16, array 32.
    body += view[head:]
    return kind & 0x0F if head == 1 else int.from_bytes(view[1:head])


def _head(count: int) -> bytes:
    """The head of an encoded array of so many elements."""
    if count < 16:
        return bytes((0x90 | count,))
    return b"\xdc" + count.to_bytes(2) if count < 1 << 16 else b"\xdd" + count.to_bytes(4)


def _head_size(count: int) -> int:
    return 1 if count < 16 else 3 if count < 1 << 16 else 5
