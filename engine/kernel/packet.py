"""Completion packets: what a port queues and a dequeue returns.

Source: "GetQueuedCompletionStatus", "OVERLAPPED_ENTRY", for the fields.
"""

from collections.abc import Sequence
from itertools import repeat
from typing import Any, Protocol

import msgspec

from .notification import Notification


class CompletionPacket(msgspec.Struct, frozen=True, gc=True):
    """What one dequeue returns: five values, carried as they were given.

    Fields:
        key: the completion key of the source, or of the poster. Any value.
        transferred: a byte count for I/O, otherwise whatever the poster chose. Any value.
        overlapped: identifies the operation (for a remote call: its handle, unless the caller chose
            otherwise). Any value.
        status: 0 for success, otherwise the operation's status number. A failed packet is a packet all the
            same.
        event: for a remote call, what has happened to it: an `EventKind`. 0: the operation is complete, as
            every other packet says.
    """

    key: Any = 0
    transferred: Any = 0
    overlapped: Any = None
    status: int = 0
    event: int = 0


class PortStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a port. `depth` counts queued packets only, not those handed to a thread."""

    concurrency: int
    depth: int
    active: int
    waiting: int
    posted: int
    taken: int
    closed: bool


class PacketQueue(Protocol):
    """What a port keeps its queued packets in; a `deque` is one."""

    def append(self, packet: CompletionPacket, /) -> None: ...
    def appendleft(self, packet: CompletionPacket, /) -> None: ...
    def popleft(self) -> CompletionPacket: ...
    def clear(self) -> None: ...
    def __len__(self) -> int: ...


class PacketSink(Protocol):
    """What packets are delivered to: a `CompletionPort`, as the sources that are bound to it know it."""

    def deliver(self, packets: Sequence[CompletionPacket], /) -> bool:
        """Queue the packets of accepted operations, in order; False, having dropped them, if it is closed."""


class Unset(msgspec.Struct, frozen=True):
    """The type of `UNSET`, of which there is one."""

    def __reduce__(self) -> str:
        return "UNSET"

    def __copy__(self) -> "Unset":
        return self


UNSET = Unset()  # "No value given", where None is a value.


class PacketTemplate(Notification, frozen=True, weakref=True):
    """The packet that an operation will post when it completes: made by `CompletionPort.packet`."""

    port: PacketSink
    key: Any
    transferred: Any
    overlapped: Any

    def hands_over(self) -> bool:
        """Whether the packet gets the operation: unless it has another value in its place."""
        return self.overlapped is UNSET

    def deliver(self, operations: Sequence[Any], kind: Any) -> bool:
        """Post a packet for each of the operations, in their order. False if the port is closed, which drops them."""
        key, transferred, overlapped = self.key, self.transferred, self.overlapped
        if len(operations) == 1:
            given = operations[0] if overlapped is UNSET else overlapped
            return self.port.deliver((CompletionPacket(key, transferred, given, 0, kind),))
        each = operations if overlapped is UNSET else repeat(overlapped, len(operations))
        packets = map(CompletionPacket, repeat(key), repeat(transferred), each, repeat(0), repeat(kind))
        return self.port.deliver(list(packets))
