"""What both sides of a native link share: the poll set, what was read and not delivered yet, and when to look again."""

from collections import deque
from collections.abc import Callable
from itertools import repeat
from math import inf
from typing import Any, ClassVar, Final

from transport.endpoint import Endpoint
from transport.errors import EndpointError
from transport.frames import Buffer
from transport.link import BaseLink, LinkOptions, Receiver
from transport.native_link.framing import Framing, hello
from transport.native_link.poll_set import PollSet
from transport.native_link.stream_connection import Ended, StreamConnection, Unwritten
from transport.realtime import monotonic

MESSAGE: Final = 0
CONNECTED: Final = 1
LOST: Final = 2
REFUSED: Final = 3

#: Seconds between two looks at all connections, at most.
LOOK: Final = 5.0
#: How often in a row a connection that is to be closed is read.
_LAST_READS: Final = 64

Entry = tuple[int, StreamConnection | None, Any]


class NativeLink(BaseLink):
    """What both sides share. All fields are guarded by lock."""

    _kind: ClassVar[bytes]

    def __init__(self, endpoint: Endpoint, options: LinkOptions) -> None:
        if options.curve is not None:
            raise EndpointError(f"{endpoint}: CURVE keys are for tcp:// and ipc://: the native link has tls:// (tls=)")
        super().__init__(str(endpoint))
        self._make: Callable[..., StreamConnection] = StreamConnection
        self.kind: str = "native"
        if endpoint.scheme == "tls":
            self.kind = "tls"
            # Here: `ssl` takes its time, and has to be there for this only.
            from transport.native_link.tls import under_tls

            self._make = under_tls(endpoint, options.tls, server=self._kind == b"ROUTER")
        self._target = endpoint
        self._options = options
        self.heartbeat: float = options.heartbeat
        self._hello = hello(self._kind)
        self._backlog = Unwritten()
        # What was read, or has happened, and is to be delivered, in order: (what, connection, content).
        self._queue: deque[Entry] = deque()
        # The entry that is being delivered, or was delivered last.
        self._delivering: Entry | None = None
        #: Whether something was read and not delivered; what was not read the descriptor goes on to show.
        self.arrived: bool = False
        # When to look after the connections whatever the sockets show, and the earliest that `later` is to call at.
        self._due = inf
        self._asked_for = inf
        try:
            self._poll_set = PollSet()
        except OSError as error:
            raise EndpointError(f"{endpoint} cannot be used: {error}") from error

    def descriptors(self) -> list[int]:
        """One, which stands for all sockets."""
        return [self._poll_set.fileno()]

    @property
    def queued_bytes(self) -> int:  # type: ignore[override]  # links without a queue have a number
        """See `Link.queued_bytes`."""
        return self._backlog.bytes

    def ready(self) -> bool:
        """Whether something is to be read, written, delivered, or looked after."""
        if self._asked_for > self._due:
            self._ask_later()
        return bool(self._queue or self._poll_set.poll(0, 1)) or self._due <= monotonic()

    def _look_at(self, when: float) -> None:
        """Look after the connections at this time, at the latest."""
        self._due = min(self._due, when)
        if self._asked_for > self._due:
            self._ask_later()

    def _ask_later(self) -> None:
        """Ask to be harvested when it is due. (As the link is opened there is no driver yet to be asked.)"""
        if self.later is not None:
            self._asked_for = self._due
            self.later(max(0.0, self._due - monotonic()))

    def harvest(self, receiver: Receiver, limit: int = 64) -> bool:
        """Deliver what has arrived; see `Link.harvest`."""
        queue = self._queue
        try:
            if not queue:
                self._read()
                if self._due <= monotonic():
                    self._due = self._asked_for = inf
                    self._look_after(monotonic())
            self._deliver(receiver, limit)
        except BaseException:
            # No memory, for one. Whatever was due is so still. What is no message is delivered again.
            self._look_at(monotonic())
            if queue and queue[0] is self._delivering and queue[0][0] == MESSAGE:
                if self._give_up(receiver, queue[0][1]):
                    queue.popleft()
            raise
        self.arrived = more = bool(queue)
        return more

    def _connection_of(self, socket: Any, limit: int, **about: Any) -> StreamConnection:
        """Make a connection of a socket that has been, or is being, connected; takes frames up to `limit` at first."""
        socket.setblocking(False)
        framing = Framing(self._kind, self._options.max_message_bytes, limit)
        return self._make(socket, self._poll_set, self._backlog, framing, self._hello, **about)

    def _take_from(self, connection: StreamConnection) -> None:
        """Queue what a connection has for us; it is lost if that is its end, or something breaks in."""
        messages: list[list[Buffer]] = []
        ended: Ended | None = None
        try:
            if connection.queued:
                connection.flush()
            try:
                connection.receive(messages)
            except Ended as error:
                ended = type(error)(str(error))  # Its traceback would keep this connection from being freed.
            if connection.framing.open and not connection.ping_at:
                self._opened(connection)
            self._queue.extend(zip(repeat(MESSAGE), repeat(connection), messages, strict=False))
            if ended is not None:
                self._lose(connection, ended)
        except BaseException:
            if not connection.closed:
                self._lose(connection, Ended("interrupted while receiving"))
            raise

    def _take_last(self, connection: StreamConnection, reason: str) -> None:
        """Queue all that has arrived on a connection, and end it for this reason."""
        before = -1
        for _ in range(_LAST_READS):
            if connection.closed or before == len(self._queue):
                break
            before = len(self._queue)
            self._take_from(connection)
        if not connection.closed:
            self._lose(connection, Ended(reason))
        self.arrived = bool(self._queue)

    # What the sides differ in.

    def _read(self) -> None:
        """Queue what has arrived."""
        raise NotImplementedError

    def _look_after(self, now: float) -> None:
        """A time has come at which something may be due."""
        raise NotImplementedError

    def _opened(self, connection: StreamConnection) -> None:
        """The handshake is over."""
        raise NotImplementedError

    def _lose(self, connection: StreamConnection, ended: Ended) -> None:
        """Close a connection, and have that reported after all that has arrived."""
        raise NotImplementedError

    def _deliver(self, receiver: Receiver, limit: int) -> None:
        """Deliver what is queued. Each entry leaves the queue afterwards: an interrupt finds it there."""
        raise NotImplementedError

    def _give_up(self, receiver: Receiver, connection: StreamConnection | None) -> bool:
        """Something broke in on a message, which may be half delivered; false: deliver it again."""
        raise NotImplementedError

    def _release(self) -> None:
        self._queue.clear()
        self._poll_set.close()
