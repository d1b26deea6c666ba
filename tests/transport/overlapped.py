"""Words for what the tests of overlapped sources do."""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterable
from typing import Any

import pytest
import zmq

from engine import CompletionPacket, CompletionPort, WaitTimeout
from engine.testing import LIMIT
from transport import OverlappedSocket, OverlappedSource


def take(port: CompletionPort) -> CompletionPacket:
    """The next packet, which is bound to come."""
    return port.get(LIMIT)


def assert_packet(port: CompletionPort, **expected: Any) -> CompletionPacket:
    """Take the next packet and compare the fields named."""
    packet = take(port)
    assert {name: getattr(packet, name) for name in expected} == expected
    return packet


def assert_empty(port: CompletionPort) -> None:
    """Nothing is queued, and nothing that could complete now is pending."""
    with pytest.raises(WaitTimeout):
        port.get(0)


def assert_idle(port: CompletionPort) -> None:
    """A thread that waits on the port finds nothing, and sleeps: it takes no processor time."""
    before = time.thread_time()
    with pytest.raises(WaitTimeout):
        port.get(0.1)
    assert time.thread_time() - before < 0.05


class Told:
    """An event that counts."""

    def __init__(self) -> None:
        self.count = 0

    def set(self) -> None:
        self.count += 1


class ByHand:
    """What a port does for a source, done only when told to: no other thread takes part."""

    def __init__(self, source: OverlappedSource) -> None:
        self.outcomes: list[tuple[Any, Any, Any, int]] = []
        self._due: list[Any] = []
        self._registered: list[Any] = []
        source.bind_services(self)
        source.bind_port(None, "key")

    def drive(self) -> None:
        """Drive what is polled, as whoever waits does when its descriptor is readable; then what is due."""
        for source in self._registered:
            source.drive(True)
        self.drive_due()

    def drive_due(self) -> None:
        """Drive what is due."""
        while self._due:
            if (source := self._due.pop()).drive(False):
                self._due.append(source)

    def deliver(self, outcomes: Iterable[tuple[Any, Any, Any, int]]) -> bool:
        self.outcomes += outcomes
        return True

    def full(self) -> bool:
        return False

    def register(self, source: Any) -> None:
        self._registered.append(source)

    def unregister(self, source: Any) -> None:
        self._registered.remove(source)

    def schedule(self, source: Any) -> None:
        self._due.append(source)

    def needs_progress(self, source: Any, wanted: bool) -> None:
        pass


class Wires:
    """Makes connected sockets, and closes all that was made."""

    def __init__(self) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self._count = 0
        self._stack = contextlib.ExitStack()

    def plain(self, kind: int, **options: int) -> "zmq.Socket[bytes]":
        """A plain socket."""
        socket: zmq.Socket[bytes] = self.context.socket(kind)
        socket.linger = 0
        for name, value in options.items():
            socket.set(getattr(zmq, name), value)
        self._stack.callback(socket.close)
        return socket

    def pair(
        self, one: int = zmq.PAIR, other: int = zmq.PAIR, transport: str = "inproc"
    ) -> "tuple[zmq.Socket[bytes], zmq.Socket[bytes]]":
        """Two plain sockets, the second connected to the first."""
        bound, connected = self.plain(one), self.plain(other)
        self._count += 1
        bound.bind(f"inproc://{self._count}" if transport == "inproc" else "tcp://127.0.0.1:*")
        connected.connect(bound.get_string(zmq.LAST_ENDPOINT))
        return bound, connected

    def overlapped(self, socket: "zmq.Socket[bytes]", **options: Any) -> OverlappedSocket:
        """The socket as a source."""
        source = OverlappedSocket(socket, **options)
        self._stack.callback(source.close)
        return source

    def keep(self, source: Any) -> Any:
        """Have it closed at the end."""
        self._stack.callback(source.close)
        return source

    def close(self) -> None:
        self._stack.close()
        self.context.term()


def in_thread(function: Any, *args: Any) -> Any:
    """Run the function in a thread of its own; return or raise what it did."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.extend((True, function(*args)))
        except BaseException as error:
            outcome.extend((False, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(LIMIT)
    good, value = outcome
    if good:
        return value
    raise value


def fill(fd: int) -> int:
    """Write to a non-blocking descriptor until it takes no more; return how many bytes it took."""
    written = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            written += os.write(fd, bytes(4096))
    return written


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError as error:
        assert error.errno == errno.EBADF
        return False
    return True
