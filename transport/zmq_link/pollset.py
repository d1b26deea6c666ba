"""Descriptors that change, polled through one that does not.

Theory of operation. Poll sets nest: an epoll or kqueue object has a descriptor of its own, which is readable while one
of those in it is. Where the platform has neither (Windows), the descriptors stand for themselves, and `changed` is
called whenever there are others.
"""

import selectors
from collections.abc import Callable, Iterable


class PollSet:
    """What a link is polled by while it replaces its sockets."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._selector = selectors.DefaultSelector()
        self._nests = hasattr(self._selector, "fileno")
        self._changed = changed

    def replace(self, descriptors: Iterable[int]) -> None:
        """Have these in the set. Take them out, by giving none, before they are closed."""
        selector = self._selector
        for key in list(selector.get_map().values()):
            selector.unregister(key.fd)
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        if not self._nests:
            self._changed()

    def descriptors(self) -> list[int]:
        """What to poll for readability."""
        if self._nests:
            return [self._selector.fileno()]
        return [key.fd for key in self._selector.get_map().values()]

    def close(self) -> None:
        """Be done; the descriptors themselves are not closed."""
        self._selector.close()
