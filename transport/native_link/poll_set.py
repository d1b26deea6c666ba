"""The sockets of a link, polled through one descriptor that stays the same.

Poll sets nest: one has a descriptor of its own, which is readable while something in it is ready; so the one who polls
for reading only is woken, too, when a socket can be written to. A link of this kind exists only where that is so.
"""

import select
import selectors
from collections.abc import Callable
from typing import Any, Final

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE


class PollSet:
    """Sockets, by their descriptors. Raises: OSError where no set with a descriptor can be had."""

    #: `poll(timeout, most)`: what is ready, descriptors with what is known of each. At most so many, where it can.
    poll: Callable[[float, int], list[tuple[int, int]]]

    def __init__(self) -> None:
        if hasattr(select, "epoll"):
            self._set: Any = select.epoll()
            self.poll = self._set.poll
        else:
            self._set = selectors.DefaultSelector()
            self.poll = self._select
            if not hasattr(self._set, "fileno"):
                raise OSError("this system's poll sets have no descriptor")

    def _select(self, timeout: float, most: int) -> list[tuple[int, int]]:
        return [(key.fd, events) for key, events in self._set.select(timeout)]

    def add(self, descriptor: int, writes: bool = False) -> None:
        """Have this one polled for reading, and for writing if it `writes`."""
        self._set.register(descriptor, _events(writes))

    def change(self, descriptor: int, writes: bool) -> None:
        """Poll it for writing, too, or no longer."""
        self._set.modify(descriptor, _events(writes))

    def remove(self, descriptor: int) -> None:
        """Poll it no longer; before it is closed."""
        self._set.unregister(descriptor)

    def fileno(self) -> int:
        """Return the descriptor of the set."""
        return int(self._set.fileno())

    def close(self) -> None:
        """Close the set; not what is in it."""
        self._set.close()


def _events(writes: bool) -> int:
    # The values of `select.EPOLLIN` and `EPOLLOUT` are others than those of `selectors`.
    if hasattr(select, "epoll"):
        return select.EPOLLIN | select.EPOLLOUT if writes else select.EPOLLIN
    return READ | WRITE if writes else READ
