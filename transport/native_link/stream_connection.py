"""One connection of a link: a stream socket that never blocks, and what waits to be written to it.

Theory of operation. A message is handed to the system as it is sent, without a copy; what the system does not take now
waits here, and the poll set is asked for writability until it is gone. (A socket that is still connecting takes nothing
and is not writable: its greeting waits in the same way, and its failure shows as the end of the connection.)

Guarantees: bytes leave in the order in which they were given. What breaks in between two steps ends the connection, as
it is not known how much of a frame has left or come.

Assumes: its link's lock is held.
"""

import errno
import socket as sockets
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Final

from transport.errors import TransportError
from transport.frames import Buffer
from transport.link import PeerInfo
from transport.native_link import lingering
from transport.native_link.framing import SHORT_HEADS, Framing, FramingError, head, in_frames, ping
from transport.native_link.poll_set import PollSet

#: Most that is read at once of what is to be told apart yet.
READ_BYTES: Final = 64 * 1024
#: Up to this size a message of one frame is sent in one piece with its head.
JOINED_BYTES: Final = 16 * 1024
#: What the system is asked to take of a Unix socket before it is read; as much as it grants.
UNIX_BUFFER_BYTES: Final = 512 * 1024
#: From this size on a frame that waits to be written is not copied: it must not change meanwhile.
NO_COPY_BYTES: Final = 512 * 1024
#: Up to so many bytes that wait to be written, PINGs are answered.
ANSWERS_BYTES: Final = 64 * 1024
#: How often in a row one large frame is read on: others wait meanwhile.
_READS: Final = 16
#: Buffers handed to the system in one call; any system takes that many.
_GATHERED: Final = 512
#: An unanswered PING more, and the peer is lost.
PINGS: Final = 3

# Where a write to a connection that the peer has closed would be a signal.
_FLAGS: Final = getattr(sockets, "MSG_NOSIGNAL", 0)
#: What the system says when an address is not served, or not to be reached.
WHY: Final = {
    errno.ECONNREFUSED: "nobody listens there",
    errno.ENOENT: "nobody listens there",
    errno.EACCES: "this process has no permission to connect to it",
    errno.EPERM: "this process has no permission to connect to it",
    errno.EAGAIN: "too many wait there to be accepted",
    errno.ETIMEDOUT: "its host does not answer",
    errno.ECONNRESET: "the connection was reset",
    errno.EPIPE: "the connection was closed",
}


class Ended(TransportError):
    """The connection is at its end; the text says why."""


class Refused(Ended):
    """What one side says or shows is not taken by the other: the same would happen again."""


class Overrun(Ended):
    """This side ends it: the peer has left too much unread."""


class Unwritten:
    """What waits to be written on all connections of a link."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes: int = 0


def why(error: OSError) -> str:
    """Say why a socket failed."""
    return WHY.get(error.errno or 0) or error.strerror or str(error)


class StreamConnection:
    """See the theory above.

    Args:
        socket: of the connection's own; closed by `close`.
        poll_set: it is in there until then.
        backlog: what waits on this connection is part of it.
        hello: what it begins with.
        peer: the name of the peer at the link's receiver.
    """

    #: Whether a handshake comes before the greeting.
    handshakes: ClassVar[bool] = False

    __slots__ = (
        "_backlog", "_out", "_poll_set", "_recv", "_send", "_socket", "closed", "deadline", "ended", "fd", "framing",
        "heard", "info", "met", "peer", "ping_at", "queued", "shaking", "unanswered", "written",
    )  # fmt: skip

    def __init__(
        self, socket: sockets.socket, poll_set: PollSet, backlog: Unwritten, framing: Framing, hello: bytes,
        *, peer: bytes = b"", info: PeerInfo | None = None, deadline: float = 0.0,
    ) -> None:  # fmt: skip
        self.framing: Framing = framing
        self.peer: bytes = peer
        self.info: PeerInfo = info or PeerInfo()
        self.fd: int = socket.fileno()
        #: When it must have come further than it has: be open, have spoken, or be read.
        self.deadline: float = deadline
        #: Whether the receiver was called with it.
        self.met: bool = False
        #: Whether anything came since the last PING, when the next one is due, and how many were not answered.
        self.heard: bool = False
        self.ping_at: float = 0.0
        self.unanswered: int = 0
        #: Bytes that wait to be written; and how many that had waited were, since this was last set to 0.
        self.queued: int = 0
        self.written: int = 0
        #: Whether who the peer is is still to be shown, by a handshake that takes a while to compute.
        self.shaking: bool = self.handshakes
        #: Why nothing can be sent any more; "" while it can. What has arrived can still be read.
        self.ended: str = ""
        #: Whether `close` was called.
        self.closed: bool = False
        self._backlog = backlog
        self._socket = socket
        self._recv = socket.recv
        self._send: Callable[[bytes, int], int] = socket.send
        self._poll_set = poll_set
        self._out: deque[Buffer] = deque()
        if socket.family == getattr(sockets, "AF_UNIX", None):  # Those of TCP grow by themselves.
            socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, UNIX_BUFFER_BYTES)
        poll_set.add(self.fd)
        self.write([hello])

    @property
    def waiting(self) -> int:
        """How many pieces of messages wait to be written."""
        return len(self._out)

    def receive(self, messages: list[list[Buffer]]) -> None:
        """Read what is there, and append the messages that it completes. Raises: Ended, after those before it."""
        framing = self.framing
        try:
            if framing.filling is None:
                data = self._recv(READ_BYTES)
                if not data:
                    raise Ended(self.ended or "the connection was closed")
                framing.take(data, messages)
            else:
                self._fill(messages)
        except BlockingIOError:
            return
        except OSError as error:
            raise Ended(self.ended or why(error)) from None
        except FramingError as error:
            self.write([framing.answers()])
            raise Refused(f"the connection was closed here: {error}") from None
        self.heard = True
        if framing.owed:
            self._answer()

    def _answer(self) -> None:
        """Answer PINGs, unless so much waits that it shows as well that this side is alive."""
        answers = self.framing.answers()
        if self.queued < ANSWERS_BYTES:
            self.write([answers])

    def _fill(self, messages: list[list[Buffer]]) -> None:
        """Read the rest of a large frame into its place, as far as it is there."""
        framing = self.framing
        for _ in range(_READS):
            filling = framing.filling
            if filling is None:
                return
            try:
                count = self._socket.recv_into(filling)
            except BlockingIOError:
                return
            if not count:
                raise Ended("the connection was closed in the midst of a message")
            del filling  # Its memory is to grow.
            framing.filled(count, messages)

    def send(self, frames: list[Buffer]) -> None:
        """Send one message. What the system does not take now waits; a peer that is gone shows in `ended`."""
        frame = frames[0]
        if len(frames) > 1 or len(frame) > JOINED_BYTES or self.queued:
            self.write(in_frames(frames))
            return
        # `write` in line, for the common message: in one piece, which is quicker than two.
        size = len(frame)
        data = (SHORT_HEADS[size] if size < 256 else head(size)) + frame
        try:
            sent = self._send(data, _FLAGS)
            if sent < len(data):
                self._keep([data], sent)
        except BlockingIOError:
            self._keep([data], 0)
        except OSError as error:
            self._give_up(why(error))
        except BaseException:
            self._give_up("interrupted while sending")
            raise

    def write(self, pieces: list[Buffer]) -> None:
        """Send these bytes, after all that waits."""
        if self.ended:
            return
        sent = 0
        try:
            if not self._out:
                sent = self._socket.sendmsg(pieces, (), _FLAGS)
            self._keep(pieces, sent)
        except BlockingIOError:
            self._keep(pieces, 0)
        except OSError as error:
            self._give_up(why(error))
        except BaseException:
            self._give_up("interrupted while sending")
            raise

    def _keep(self, pieces: list[Buffer], sent: int) -> None:
        """So many bytes of these have left: the rest waits."""
        idle = not self._out
        before = self.queued
        for piece in pieces:
            size = len(piece)
            if sent >= size:
                sent -= size
                continue
            rest = memoryview(piece)[sent:]
            sent = 0
            self._out.append(rest if size >= NO_COPY_BYTES else bytes(rest))
            self.queued += len(rest)
        self._backlog.bytes += self.queued - before
        if idle and self._out:
            self._poll_set.change(self.fd, writes=True)

    def flush(self) -> None:
        """Write what waits, as far as the system takes it."""
        try:
            self._flush()
        except BlockingIOError:
            pass
        except OSError as error:
            self._give_up(why(error))
        except BaseException:
            self._give_up("interrupted while sending")
            raise

    def _flush(self) -> None:
        out = self._out
        while out:
            pieces = [out[index] for index in range(min(len(out), _GATHERED))]
            sent = self._socket.sendmsg(pieces, (), _FLAGS)
            self.queued -= sent
            self._backlog.bytes -= sent
            self.written += sent
            for piece in pieces:
                if sent < len(piece):
                    out[0] = memoryview(piece)[sent:]
                    return
                sent -= len(piece)
                out.popleft()
        self._poll_set.change(self.fd, writes=False)

    def _give_up(self, reason: str) -> None:
        """Nothing can be sent any more. What has arrived is read first, up to the end."""
        self.ended = self.ended or reason
        self._out.clear()
        self._forget()
        self._poll_set.change(self.fd, writes=False)
        with suppress(OSError):  # It is, or never was connected.
            self._socket.shutdown(sockets.SHUT_WR)

    def _forget(self) -> None:
        """Nothing waits here any more."""
        self._backlog.bytes -= self.queued
        self.queued = 0

    def attend(self, now: float, heartbeat: float) -> None:
        """Send a PING, if one is due. Raises: Ended, if too many were not answered."""
        if not heartbeat or not self.framing.open or not self.framing.pings or now < self.ping_at:
            return
        if self.ping_at:
            self.unanswered = 0 if self.heard else self.unanswered + 1
            if self.unanswered >= PINGS:
                raise Ended(f"the peer was not heard for {PINGS * heartbeat:g} s")
        self.heard = False
        self.ping_at = now + heartbeat
        self.write([ping(PINGS * heartbeat)])

    def close(self, linger: float = 0.0) -> None:
        """Close it; what waits to be written leaves within `linger` seconds, in the background. Again: no effect."""
        if self.closed:
            return
        if linger and self._out:
            self.flush()
        self.closed = True
        self._forget()
        self._poll_set.remove(self.fd)
        if linger and self._out:
            lingering.linger(self._socket, self._out, linger)
        else:
            self._socket.close()
            self._out.clear()
        self.ended = self.ended or "the connection was closed here"
