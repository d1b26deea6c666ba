"""A connection that a ROUTER has accepted: who speaks on it, how it is ended, and what its peer has not read yet.

Theory of operation. ZeroMQ's monitor names a connection by its descriptor. That is ZeroMQ's, which may close it at any
time, and the system gives its number to the next one who asks. So what is to be ended is looked at first, through a
duplicate: the connection has a number that no other has. Then both its directions are shut: ZeroMQ reads its end, as of
any peer that goes.

ZeroMQ does not say what it still has for a peer. So what was handed over is counted, and once in `MARK_BYTES` a message
is a *mark*: ZeroMQ says when its memory is free again, and then all that was handed over before has left, and itself.

    handed over:  | left | .......... mark ........ |        the mark is free: what counts is what came after it
"""

import os
import socket as sockets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import zmq

from transport.frames import Buffer
from transport.link import PeerInfo
from transport.zmq_link.base import ensure_collector, source_of

#: So many bytes for a peer are not known to have left before one message is a mark.
MARK_BYTES: Final = 1024 * 1024
#: What a message takes besides its bytes, about.
MESSAGE_BYTES: Final = 128


class Accepted:
    """See the theory above. Guarded by the link's lock."""

    __slots__ = ("_number", "descriptor", "evicted", "peer", "since", "why")

    def __init__(self, descriptor: int, since: float) -> None:
        self.descriptor: int = descriptor
        #: When it was accepted; monotonic.
        self.since: float = since
        #: The peer that speaks on it, once one has.
        self.peer: bytes | None = None
        #: Whether it was ended because its peer does not read.
        self.evicted: bool = False
        #: Why it was ended here; "" if it was not.
        self.why: str = ""
        self._number = _number_of(descriptor)

    @property
    def host(self) -> str:
        """The host that it comes from, over TCP; else ""."""
        at = self._number[2] if self._number else ""
        return str(at[0]) if isinstance(at, tuple) else ""

    @property
    def where(self) -> str:
        """The address that it comes from."""
        return self.host or str((self._number[2] if self._number else "") or "localhost")

    def end(self, why: str) -> None:
        """End the connection, if it is there still. The monitor reports that."""
        if self.why:
            return
        self.why = why
        with suppress(OSError), _duplicate(self.descriptor) as found:  # An error: it is gone.
            if _number_of(found.fileno()) == self._number:
                found.shutdown(sockets.SHUT_RDWR)


@contextmanager
def _duplicate(descriptor: int) -> Iterator[sockets.socket]:
    """A socket of its own for a descriptor's file. Forgotten, as by an interrupt, it is closed."""
    copy, made = -1, None
    try:
        if os.name == "nt":
            original = sockets.socket(fileno=descriptor)
            try:
                made = original.dup()
            finally:
                original.detach()
        else:
            copy = os.dup(descriptor)
            made = sockets.socket(fileno=copy)
        yield made
    finally:
        if made is not None:
            made.close()
        elif copy >= 0:  # Its number is another file's by now.
            os.close(copy)


def _number_of(descriptor: int) -> tuple[Any, ...]:
    """What no other connection of this process has: the number of its socket, where the system gives one, and whence it
    comes. Empty if it is gone.
    """
    with suppress(OSError):
        number = os.fstat(descriptor).st_ino if os.name != "nt" else 0
        with _duplicate(descriptor) as found:
            return number, found.getsockname(), found.getpeername()
    return ()


class HeardPeer:
    """A peer that was heard. Guarded by the link's lock."""

    __slots__ = ("_before", "_mark", "accepted", "full_since", "handed", "info", "number")

    def __init__(self, number: bytes, info: PeerInfo, accepted: Accepted | None) -> None:
        #: Its routing id.
        self.number: bytes = number
        self.info: PeerInfo = info
        #: None over inproc, and if it is gone already.
        self.accepted: Accepted | None = accepted
        #: Bytes that were handed over and are not known to have left.
        self.handed: int = 0
        #: Since when it has so many that it is given no more; 0: it has not.
        self.full_since: float = 0.0
        self._mark: Any = None
        # What of `handed` has left when the mark has.
        self._before = 0

    def settle(self) -> None:
        """Look what has left."""
        if self._mark is not None and self._mark.done:
            self.handed -= self._before
            self._mark = None

    @property
    def has_mark(self) -> bool:
        """Whether a mark is on its way, so that it will be known what has left."""
        return self._mark is not None

    def marked(self, frames: list[Buffer], size: int) -> list[Any]:
        """Return what to send of a message that is about to be handed over, of so many bytes: its last frame is the
        mark, unless there is one on its way, so that it is known when the message has left, too.

        One that goes back as it came cannot be a mark: then the first is.
        """
        if self._mark is not None or self.accepted is None:
            return frames
        if len(frames) > 1 and source_of(frames[-1]) is not None:
            at, self._before = 0, self.handed
        else:
            at, self._before = len(frames) - 1, self.handed + size
        ensure_collector()
        made = zmq.Frame(frames[at], track=True, copy=False, copy_threshold=0)
        self._mark = made.tracker
        return [*frames[:at], made, *frames[at + 1 :]]
