"""What a source needs of others: the engine, which polls it, and the device that it stands for.

The engine's services and the devices are handed in, so that neither is imported here.
"""

import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

INPUT: Final = 1
OUTPUT: Final = 2


class Settable(Protocol):
    """An event, as an operation sees it."""

    def set(self) -> object:
        """Make it signaled."""


class Driven(Protocol):
    """What a source gives to be polled; the same as the engine's notion of it."""

    def descriptors(self) -> Sequence[int]:
        """The file descriptors to watch for readability."""

    def drive(self, readable: bool) -> bool:
        """Do what can be done; True if there may be more."""


class SourceServices(Protocol):
    """What the engine does for a source: its port does it, or a thread that waits for one of its operations."""

    def deliver(self, outcomes: Iterable[tuple[Any, Any, Any, int]]) -> bool:
        """Queue one packet for each (key, transferred, overlapped, status)."""

    def full(self) -> bool:
        """Whether the port has all the packets that it may have."""

    def register(self, source: Driven) -> None:
        """Have `source` polled from now on."""

    def unregister(self, source: Driven) -> None:
        """Have `source` polled no longer."""

    def schedule(self, source: Driven) -> None:
        """Have `source` driven before any thread polls."""

    def needs_progress(self, source: Driven, wanted: bool) -> None:
        """Say whether `source` needs progress even while no thread waits."""


class Device(Protocol):
    """What the operations of a source are done to: a socket, a descriptor. Used under the lock of the source.

    Directions are `INPUT`, `OUTPUT`, or both.
    """

    #: Handed to `OverlappedOperation._attempt`.
    handle: Any
    #: What an attempt and `ready` may raise because the system said no.
    failures: tuple[type[Exception], ...]
    #: Statuses by which the other end, not the caller, is to blame: an outcome, even if known at once.
    outcomes: frozenset[int]

    def descriptors(self) -> Sequence[int]:
        """What to poll for readability, the same for the life of the source."""

    def ready(self) -> int:
        """Which directions are worth an attempt."""

    def woken(self, wanted: int) -> None:
        """A descriptor was seen to be readable, perhaps: if that is of no use to `wanted`, let it be so no longer."""

    def watch(self, wanted: int) -> None:
        """What is pending may have changed: have the descriptors show what `wanted` waits for."""

    def is_fatal(self, error: Exception) -> bool:
        """Whether the device itself is unusable for good."""

    def status_of(self, error: Exception) -> int:
        """The Windows number for what the system said."""

    def release(self, close: bool) -> None:
        """Let go of the object, which is polled no more; close it too if asked to."""


class Drivable(Protocol):
    """What a hook drives: the operations of a source."""

    def drive(self, readable: bool) -> bool:
        """Do what can be done; True if there may be more."""


class Hook:
    """What is polled in the place of a source, which it does not keep alive unless something is pending."""

    __slots__ = ("__weakref__", "_fds", "_operations", "_services", "pin")

    def __init__(self, operations: Drivable, services: SourceServices, fds: Sequence[int]) -> None:
        self._operations = weakref.ref(operations)
        self._services = services
        self._fds = fds
        # The source while it has pending operations; guarded by its lock.
        self.pin: object = None

    def descriptors(self) -> Sequence[int]:
        return self._fds

    def drive(self, readable: bool) -> bool:
        operations = self._operations()
        if operations is None:
            self._services.unregister(self)
            return False
        return operations.drive(readable)
