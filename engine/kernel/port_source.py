"""Sources of completion packets: what can be bound to a port.

Source: "CreateIoCompletionPort"; section 2 of `docs/semantics/completion-port.md`.
"""

import weakref
from collections.abc import Callable, Iterable
from itertools import starmap
from typing import Any, Protocol

from transport.foreign import a_type, shown

from ..errors import InvalidArgumentType, InvalidParameter, translated
from .driver import driver
from .lock import Lock
from .packet import CompletionPacket, PacketSink
from .port_queue import PortQueue, is_full
from .sources import Source


class PortSource(Protocol):
    """Something whose operations can complete as packets: an overlapped socket, for one.

    An implementation must be hashable by identity and weakly referable. After `bind_port` each operation that
    it *accepts* delivers one packet with `key` to `port`, by `port.deliver`, whether the operation succeeds,
    fails or is cancelled. What it did not accept, because it raised at once, delivers none.

    A source that has descriptors to poll, or cannot import this package, also has a method
    `bind_services(services)`. It is called just before `bind_port`, with the port's `PortServices`.

    One that knows has a method `outstanding()`: it returns how many packets it has delivered, and a list of the
    `overlapped` values of those that it owes for accepted operations, those first that are just being delivered. It
    calls nothing of the engine. `Io` asks, to know which operations were begun of those that it forgets.
    """

    def bind_port(self, port: PacketSink, key: Any) -> None:
        """Remember `port` and `key`; called once in the source's life.

        Raise to refuse: `InvalidParameter`, or any exception with a Windows number in `status`, for which the
        engine's own is raised.
        """


class SourceOperation(Protocol):
    """An operation of a source that can be waited for, as it is: `wait_any([operation], timeout)`.

    An implementation must be hashable by identity and weakly referable.
    """

    @property
    def done(self) -> bool:
        """Whether it is complete."""

    def bind_wait(self, services: "Services", event: "Settable") -> None:
        """Have `event.set()` called when it completes; do nothing if it is `done`.

        If the source is not polled, because it has no port, it is from now on, by means of `services`.
        """


class Settable(Protocol):
    """What an operation notifies of its end."""

    def set(self) -> object:
        """It is complete."""


class Services:
    """What the kernel does for a source that is waited for without a port: it is polled by the threads that wait.

    Threads: any. Blocks: never.
    """

    __slots__ = ("needs_progress", "register", "schedule", "unregister")

    def __init__(self) -> None:
        # As `Driver` says: a source is polled, no longer, looked at before the next poll, or needs progress.
        found = driver()
        self.register: Callable[[Source], None] = found.register
        self.unregister: Callable[[Source], None] = found.unregister
        self.schedule: Callable[[Source], object] = found.schedule
        self.needs_progress: Callable[[Source, bool], None] = found.needs_progress

    def deliver(self, outcomes: Iterable[tuple[Any, Any, Any, int]]) -> bool:
        """Queue one packet for each (key, transferred, overlapped, status); False if there is no open port."""
        return False

    def full(self) -> bool:
        """Whether the port has as many packets as it may have: a reason to accept no operation."""
        return False


class PortServices(Services):
    """What the kernel does for a source that has a port: it makes its packets, too."""

    __slots__ = ("_port",)

    def __init__(self, port: PortQueue) -> None:
        super().__init__()
        self._port = port

    def deliver(self, outcomes: Iterable[tuple[Any, Any, Any, int]]) -> bool:
        """Queue one packet for each (key, transferred, overlapped, status); False if the port is closed."""
        return self._port.deliver(list(starmap(CompletionPacket, outcomes)))

    def full(self) -> bool:
        """Whether as many packets are queued as the port's capacity."""
        return is_full(self._port)


_lock = Lock()
# Guarded by _lock. The sources that have a port.
_bound: "weakref.WeakSet[PortSource]" = weakref.WeakSet()


def bind(source: PortSource, port: PortQueue, key: Any) -> None:
    """Bind `source` to `port`, once and for all; raises as `CompletionPort.associate`, having changed nothing."""
    if not callable(getattr(source, "bind_port", None)):
        raise InvalidArgumentType(f"{a_type(source)} cannot be bound to a port: it has no `bind_port`")
    with _lock:
        if source in _bound:
            raise InvalidParameter(f"{shown(source)} is bound to a port already: a source keeps its port for life")
        _bound.add(source)
    try:
        bind_services = getattr(source, "bind_services", None)
        if bind_services is not None:
            bind_services(PortServices(port))
        source.bind_port(port, key)
    except BaseException as error:
        with _lock:
            _bound.discard(source)
        ours = translated(error)
        if ours is None:
            raise
        raise ours from error
