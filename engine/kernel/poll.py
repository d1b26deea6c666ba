"""Poll sets: what the driver asks which descriptors are readable, and the bell that interrupts it.

Theory of operation. Where the kernel keeps the set (epoll, kqueue), a descriptor that is registered while a thread
polls is polled by it, and the set has a descriptor of its own. Elsewhere (Windows) a set is made anew for each poll.
"""

import os
import select
import selectors
import socket
from typing import Protocol


class Bell:
    """Interrupts a poll from another thread: an eventfd where there is one, else a socket pair."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self.fd: int = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._receiver, self._sender = socket.socketpair()
            self._receiver.setblocking(False)
            self._sender.setblocking(False)
            self.fd = self._receiver.fileno()

    def ring(self) -> None:
        try:
            if hasattr(os, "eventfd"):
                os.eventfd_write(self.fd, 1)
            else:
                self._sender.send(b"\0")
        except BlockingIOError:
            pass  # It rings already.

    def silence(self) -> None:
        try:
            if hasattr(os, "eventfd"):
                os.eventfd_read(self.fd)
            else:
                self._receiver.recv(4096)
        except BlockingIOError:
            pass  # It does not ring.


class Unopened:
    """Stands for a poll set and its bell until there is something to poll: neither needs a descriptor so far."""

    fd = -1

    def ring(self) -> None:
        """No thread polls."""

    def silence(self) -> None:
        """It did not ring."""

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        return []

    def register(self, fd: int, mask: int) -> None:
        raise NotImplementedError("there is no poll set yet")  # The driver makes one before its first source.

    def unregister(self, fd: int) -> None:
        """Nothing is polled."""

    def fileno(self) -> int:
        return -1


READABLE = 1  # `select.EPOLLIN` and `selectors.EVENT_READ` alike.


class SelectorPoll(selectors.DefaultSelector):
    """What the driver uses of `select.epoll`, by the standard `selectors` where there is kqueue.

    On Linux the plain epoll object is used: its round costs 0.4 us, a selector's 0.8 us.
    """

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        return [(key.fd, events) for key, events in self.select(timeout)]


class PlainPoll:
    """The same where the kernel keeps no poll set: what is registered while a thread polls is not polled by it."""

    def __init__(self) -> None:
        # Single-key operations only.
        self._fds: dict[int, None] = {}

    def register(self, fd: int, mask: int) -> None:
        self._fds[fd] = None

    def unregister(self, fd: int) -> None:
        del self._fds[fd]

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        with selectors.DefaultSelector() as selector:  # A new one: `select.poll` objects serve one thread at a time.
            for fd in list(self._fds):
                selector.register(fd, READABLE)
            try:
                return [(key.fd, events) for key, events in selector.select(timeout)]
            except OSError:
                return []  # One was unregistered and closed meanwhile: the next poll is without it.

    def fileno(self) -> int:
        return -1


class Poll(Protocol):
    """What the driver uses of a poll set."""

    def register(self, fd: int, mask: int, /) -> object: ...
    def unregister(self, fd: int, /) -> object: ...
    def poll(self, timeout: float, /) -> list[tuple[int, int]]: ...
    def fileno(self) -> int: ...


def make_poll() -> Poll:
    if hasattr(select, "epoll"):
        return select.epoll()
    return SelectorPoll() if hasattr(selectors.DefaultSelector, "fileno") else PlainPoll()
