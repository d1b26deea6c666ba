"""What a source and its port know of each other, without either importing the other."""

import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from transport.overlapped.source import OverlappedSource


class Driven(Protocol):
    """What a source gives to be polled; the same as the engine's notion of it."""

    def descriptors(self) -> Sequence[int]:
        """The file descriptors to watch for readability."""

    def drive(self, readable: bool) -> bool:
        """Do what can be done; True if there may be more."""


class SourceServices(Protocol):
    """What the engine does for a source: its port, or whoever waits for one of its operations."""

    def deliver(self, outcomes: Iterable[tuple[Any, Any, Any, int]]) -> bool:
        """Queue one packet for each (key, transferred, overlapped, status)."""

    def full(self) -> bool:
        """Whether the port has all the packets that it may have."""

    def register(self, source: Driven) -> None:
        """Have `source` polled from now on."""

    def unregister(self, source: Driven) -> None:
        """Have `source` polled no longer."""

    def due(self, source: Driven) -> None:
        """Have `source` driven before anybody polls."""

    def attend(self, source: Driven, wanted: bool) -> None:
        """Say whether `source` needs progress even while no thread waits."""


class Hook:
    """What is polled in the place of a source, which it does not keep alive unless something is pending."""

    __slots__ = ("__weakref__", "_fds", "_services", "_source", "pin")

    def __init__(self, source: "OverlappedSource", services: SourceServices, fds: Sequence[int]) -> None:
        self._source = weakref.ref(source)
        self._services = services
        self._fds = fds
        # The source while it has pending operations; guarded by its lock.
        self.pin: OverlappedSource | None = None

    def descriptors(self) -> Sequence[int]:
        return self._fds

    def drive(self, readable: bool) -> bool:
        source = self._source()
        if source is None:
            self._services.unregister(self)
            return False
        return source._drive(readable)
