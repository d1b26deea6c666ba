"""Decoding what is large, without the collector.

Theory of operation. A decoder makes nothing that can be garbage before it returns, but each list that it makes counts
for Python's cyclic collector, which walks all of them again and again meanwhile: of a frame of nested lists that takes
three times as long as the decoding, with the interpreter lock held. So the collector waits.

Assumes: no code switches the collector off for good while a thread decodes what is large; that thread would switch it
on again.
"""

import gc
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from transport.frames import Buffer

T = TypeVar("T")

#: What is longer is large, in bytes: below, decoding takes less than 10 ms with the collector.
LARGE_BYTES: Final = 64 * 1024


def read_large(read: Callable[[Buffer | msgspec.Raw], T], raw: Buffer | msgspec.Raw) -> T:
    """Return `read(raw)`; the collector is off meanwhile if `raw` is large. Raises what `read` raises."""
    if len(memoryview(raw)) <= LARGE_BYTES:
        return read(raw)
    collects = gc.isenabled()
    try:
        if collects:
            gc.disable()
        return read(raw)
    finally:
        if collects:
            gc.enable()
