"""A process that ends while much of what it has sent is still to leave.

    python -m tests.lifecycle.lingering ENDPOINT

Threads cannot be started any more as it ends, as since CPython 3.12.
"""

import sys
import threading

from engine import Client, Interface, operation
from engine.testing import LIMIT

COUNT, SIZE = 4, 16 * 1024 * 1024  # More than the system takes of a socket.


class Heap(Interface, id="tests.Lingering"):
    """Where it goes."""

    @operation(one_way=True)
    def put(self, data: bytes) -> None:
        """Count it."""

    @operation
    def count(self) -> int:
        """Return how many came."""


def refuse(thread: threading.Thread) -> None:
    """Stand for the end of the interpreter."""
    raise RuntimeError("can't create new thread at interpreter shutdown")


if __name__ == "__main__":
    client = Client(sys.argv[1], linger=LIMIT)
    heap = client.bind(Heap)
    heap.count(timeout=LIMIT)
    for _ in range(COUNT):
        heap.put(bytes(SIZE))
    threading.Thread.start = refuse  # type: ignore[assignment, method-assign]  # for this program only
