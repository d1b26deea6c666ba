"""The server's side: all clients of one endpoint.

Theory of operation. Listeners and connections are in one poll set. A harvest asks it what is ready and reads each of
those once, so that none waits for the others of a client that sends without end. Every few seconds all connections are
looked at: who has not spoken in time, who answers no PING, who does not read.

Guarantees: what a peer can make this side keep is bounded: `framing.py` has the bounds of what is read; `LinkOptions`
those of what is to be written to it, and to all. Past its own bound its connection is closed, and no other's; past that
of all, the connection of the peer for which most waits. There are never more than `max_connections`, nor fewer
descriptors left than `descriptors.to_keep`: who comes then waits in the system's queue. Routing ids are given out here,
whatever peers ask.
"""

import errno
import itertools
import socket as sockets
import struct
from contextlib import suppress
from math import inf
from operator import attrgetter
from typing import Any, Final

from transport.addresses import Addresses
from transport.descriptors import left, limit, to_keep
from transport.endpoint import Endpoint
from transport.errors import EndpointError, PeerLost
from transport.frames import Buffer
from transport.inherited import descriptor_of
from transport.link import LinkOptions, PeerInfo, Receiver
from transport.lookup import addresses_of, is_named
from transport.native_link.base import LOOK, LOST, MESSAGE, REFUSED, NativeLink
from transport.native_link.framing import MAX_FIRST_BYTES
from transport.native_link.stream_connection import Ended, Overrun, Refused, StreamConnection, why
from transport.realtime import monotonic
from transport.unix import UnixListener

#: Seconds for which one part in so many of `max_queued_bytes` may wait for a client that takes no more bytes a second.
GRACE: Final = 5.0
SLOW_PART: Final = 8
SLOW_RATE: Final = 64 * 1024
#: Seconds before connections are accepted again, when there were too many.
_ACCEPT_AGAIN: Final = 0.2
#: Sockets read in one harvest, and messages that wait to be delivered, at most, before more are read.
_AT_ONCE: Final = 16
_ENOUGH: Final = 1024
#: Of these, sockets on which a handshake is computed, which may take a millisecond.
_SHAKING_AT_ONCE: Final = 2
_BACKLOG: Final = 1024
#: Ports that the system may choose for a name of several addresses, until one is free at all of them.
_TRIES: Final = 10

_CREDENTIALS: Final = struct.Struct("3i")
# Of all servers of the process: who comes again is another peer.
_numbers: Final = itertools.count(1)
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENODEV)


class NativeServer(NativeLink):
    """See the theory above. Fields are guarded by lock."""

    _kind = b"ROUTER"

    def __init__(self, endpoint: Endpoint, options: LinkOptions) -> None:
        super().__init__(endpoint, options)
        # By descriptor: what is listened on, and the connections that are not lost.
        self._listeners: dict[int, sockets.socket] = {}
        self._connections: dict[int, StreamConnection] = {}
        self._addresses = Addresses(options.max_address_connections)
        # Exactly the peers of which the receiver got `on_connected` and not yet `on_lost`.
        self._peers: dict[bytes, StreamConnection] = {}
        self._unix: UnixListener | None = None
        self._slow = options.max_queued_bytes // SLOW_PART
        # When to accept again; inf: connections are accepted.
        self._accept_at = inf
        self._kept = to_keep()
        try:
            self._bind()
        except BaseException as error:
            self._release()
            self._refuse(lambda: EndpointError(f"{endpoint} was never bound"))
            if isinstance(error, EndpointError) or not isinstance(error, OSError):
                raise
            raise EndpointError(f"cannot bind {endpoint}: {_why_not(error)}") from error

    # Listening

    def _bind(self) -> None:
        target = self._target
        if target.carrier == "ipc":
            if not hasattr(sockets, "AF_UNIX"):
                raise EndpointError(f"cannot bind {target}: this system has no Unix sockets")
            self._unix = UnixListener(target)
            self._listen(sockets.socket(fileno=self._unix.detach()))
            self.endpoint: str = str(Endpoint(target.scheme, self._unix.name))
            return
        descriptor = descriptor_of(target)
        if descriptor >= 0:
            self._listen(sockets.socket(fileno=descriptor))
            self.endpoint = str(target)
            return
        addresses = addresses_of(target) if is_named(target) else [target]
        tries = 1 if target.port else _TRIES
        while True:
            try:
                port = self._bind_each(addresses)
                break
            except OSError as error:  # The port that the system chose at one address may be taken at another.
                tries -= 1
                if error.errno != errno.EADDRINUSE or not tries:
                    raise
                for descriptor in self._listeners:
                    self._poll_set.remove(descriptor)
                self._stop_listening()
        self.endpoint = str(Endpoint(target.scheme, host=self._name_of(addresses), port=port))

    def _bind_each(self, addresses: list[Endpoint]) -> int:
        """Listen, on one port, at each of them that this machine has, and return the port."""
        missing: OSError | None = None
        port = self._target.port
        for address in addresses:
            try:
                port = self._bind_tcp(address.host, port)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
        if not self._listeners:
            raise missing or OSError(errno.EADDRNOTAVAIL, "its host has no address")
        return port

    def _name_of(self, addresses: list[Endpoint]) -> str:
        """The host as others may write it."""
        if len(addresses) > 1:
            return self._target.host
        return "0.0.0.0" if addresses[0].host == "*" else addresses[0].host  # as asked for

    def _bind_tcp(self, host: str, port: int) -> int:
        """Listen there, and return the port."""
        host = "0.0.0.0" if host == "*" else host.strip("[]")  # as asked for
        family, *_, address = sockets.getaddrinfo(
            host, port, type=sockets.SOCK_STREAM, flags=sockets.AI_NUMERICHOST
        )[0]  # fmt: skip
        socket = sockets.socket(family)
        try:
            socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
            if family == sockets.AF_INET6:
                socket.setsockopt(sockets.IPPROTO_IPV6, sockets.IPV6_V6ONLY, int(host != "::"))
            socket.bind(address)
            socket.listen(_BACKLOG)
            self._listen(socket)
        except BaseException:
            socket.close()
            raise
        return int(socket.getsockname()[1])

    def _listen(self, socket: sockets.socket) -> None:
        socket.setblocking(False)
        self._poll_set.add(socket.fileno())
        self._listeners[socket.fileno()] = socket

    def _stop_listening(self) -> None:
        for socket in self._listeners.values():
            socket.close()
        self._listeners.clear()

    def _accept(self, listener: sockets.socket) -> None:
        """Take one connection that waits there."""
        if len(self._connections) >= self._options.max_connections:
            self._accept_later(f"{len(self._connections)} connections are open, max_connections allows no more")
            return
        try:
            socket, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._accept_later(why(error))
            return  # Otherwise it is gone again.
        host = "" if socket.family == getattr(sockets, "AF_UNIX", None) else str(address[0])
        refusal = self._addresses.enter(host)
        try:
            if refusal:
                raise Refused(f"{host}: {refusal}")
            self._admit(socket, address)
        except BaseException as error:
            if socket.fileno() not in self._connections:
                self._addresses.leave(host)
            socket.close()
            if isinstance(error, Refused):
                self._queue.append((REFUSED, None, Refused(str(error))))  # Without its traceback.
            elif not isinstance(error, OSError):
                raise

    def _admit(self, socket: sockets.socket, address: Any) -> None:
        if socket.family != sockets.AF_UNIX:
            socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        connection = self._connection_of(
            socket, MAX_FIRST_BYTES, peer=next(_numbers).to_bytes(8),
            info=_info_of(socket, address), deadline=monotonic() + self._options.greeting_timeout,
        )  # fmt: skip
        self._connections[connection.fd] = connection
        self._look_at(monotonic() + self._pause)
        if connection.fd >= self._kept and (remaining := left()) < self._kept:
            self._accept_later(f"only {remaining} of {limit()} file descriptors are left (RLIMIT_NOFILE, `ulimit -n`)")

    @property
    def _pause(self) -> float:
        """Seconds between two looks at all connections."""
        return min(self.heartbeat or LOOK, LOOK, self._options.greeting_timeout)

    def _accept_later(self, reason: str) -> None:
        """There is no room for another connection: who comes waits in the system's queue."""
        self._queue.append((REFUSED, None, f"{reason}: new connections wait"))
        self.arrived = True
        if self._accept_at == inf:
            for descriptor in self._listeners:
                self._poll_set.remove(descriptor)
            self._accept_at = monotonic() + _ACCEPT_AGAIN
            self._look_at(self._accept_at)

    def _accept_again(self) -> None:
        for descriptor in self._listeners:
            with suppress(FileExistsError):  # What broke in the last time has left it there.
                self._poll_set.add(descriptor)
        self._accept_at = inf

    # Connections

    def _opened(self, connection: StreamConnection) -> None:
        connection.ping_at = monotonic() + self.heartbeat if self.heartbeat else inf

    def _lose(self, connection: StreamConnection, ended: Ended) -> None:
        if self._connections.pop(connection.fd, None) is not None:
            self._addresses.leave(connection.info.address)
        self._queue.append((LOST, connection, ended))  # Twice, after an interrupt: it is delivered once.
        self.arrived: bool = True
        connection.close()

    def _look_after(self, now: float) -> None:
        if now >= self._accept_at:
            self._accept_again()
        self._look_at(self._accept_at)
        if self._connections:
            self._look_at(now + self._pause)
            for connection in list(self._connections.values()):
                self._look_at_one(connection, now)

    def _look_at_one(self, connection: StreamConnection, now: float) -> None:
        try:
            connection.attend(now, self.heartbeat)
        except Ended as error:
            self._lose(connection, error)
            return
        if not connection.met:
            if now >= connection.deadline:
                self._lose(connection, Refused("it did not speak in time"))
        elif connection.queued <= self._slow:
            connection.deadline = inf
        elif connection.deadline == inf or (now >= connection.deadline and connection.written >= GRACE * SLOW_RATE):
            connection.deadline = now + GRACE
            connection.written = 0
        elif now >= connection.deadline:
            self._lose(connection, Overrun(
                f"it left {connection.queued} bytes unread, and took {connection.written} in {GRACE:g} s"
            ))  # fmt: skip

    def disconnect(self, peer: bytes, reason: str) -> None:
        """Close the connection of a peer at once. Nothing happens if there is none."""
        connection = self._peers.get(peer)
        if connection is not None and not connection.closed:
            self._lose(connection, Ended(reason))
            self._look_at(0.0)

    # Messages

    def writable(self) -> bool:
        """Always: what one peer does not read waits for that peer."""
        return True

    def send(self, peer: bytes, frames: list[Buffer]) -> bool:
        """Hand over one message; see `Link.send`."""
        connection = self._peers.get(peer)
        if connection is None or connection.ended:
            raise PeerLost(f"there is no peer {peer.hex()} on {self.endpoint}")
        if connection.queued > self._options.max_queued_bytes:
            most = self._options.max_queued_bytes
            self._lose(connection, Overrun(f"it left {connection.queued} bytes unread, max_queued_bytes allows {most}"))
        else:
            connection.send(frames)
            if self._backlog.bytes > self._options.max_total_bytes:
                self._relieve()
        if connection.ended:
            raise PeerLost(f"peer {peer.hex()} on {self.endpoint} is gone: {connection.ended}")
        return True

    def _relieve(self) -> None:
        """More waits for all peers than may: disconnect those for which most does."""
        most = self._options.max_total_bytes
        while self._backlog.bytes > most:
            greatest = max(self._connections.values(), key=attrgetter("queued"))
            self._lose(greatest, Overrun(
                f"it left {greatest.queued} bytes unread, most of the {self._backlog.bytes} that wait for all clients; "
                f"max_total_bytes allows {most}"
            ))  # fmt: skip

    def _read(self) -> None:
        shaking = 0
        for descriptor, _ in self._poll_set.poll(0, _AT_ONCE):
            connection = self._connections.get(descriptor)
            if connection is not None:
                if connection.shaking:
                    if shaking == _SHAKING_AT_ONCE:
                        continue  # The next poll shows it again.
                    shaking += 1
                self._take_from(connection)
                if len(self._queue) > _ENOUGH:
                    break
            elif descriptor in self._listeners:
                self._accept(self._listeners[descriptor])

    def _deliver(self, receiver: Receiver, limit: int) -> None:
        queue = self._queue
        ended: bool | None = False
        for _ in range(limit):
            if not queue or ended:
                break
            what, connection, content = self._delivering = queue[0]
            if connection is None:
                receiver.on_connect_failed(str(content), isinstance(content, Refused))
            elif what == MESSAGE:
                if connection.met or self._meet(connection, receiver):
                    ended = receiver.on_message(connection.peer, content)
            elif connection.met:
                receiver.on_lost(connection.peer, str(content), isinstance(content, Overrun))
                connection.met = False
                self._peers.pop(connection.peer, None)
            elif isinstance(content, Refused):
                receiver.on_connect_failed(f"{connection.info.address}: {content}", True)
            queue.popleft()

    def _meet(self, connection: StreamConnection, receiver: Receiver) -> bool:
        """The first message of a peer: it is known from now on."""
        try:
            self._peers[connection.peer] = connection
            connection.met = True
            connection.deadline = inf
            receiver.on_connected(connection.peer)
        except BaseException:
            connection.met = False
            self._peers.pop(connection.peer, None)
            raise
        return True

    def _give_up(self, receiver: Receiver, connection: StreamConnection | None) -> bool:
        if connection is None or not connection.met:
            return False  # Nothing was done with it yet.
        receiver.on_message(connection.peer, [])
        return True

    def peer_info(self, peer: bytes) -> PeerInfo:
        """What is known of a peer. Raises PeerLost if it is not known (any more)."""
        try:
            return self._peers[peer].info
        except KeyError:
            raise PeerLost(f"there is no peer {peer.hex()} on {self.endpoint}") from None

    def _release(self) -> None:
        """Close all connections, and listen no more."""
        self._stop_listening()
        if self._unix is not None:
            self._unix.remove()
        for connection in self._connections.values():
            connection.close(self._options.linger)
        self._connections.clear()
        super()._release()


def _info_of(socket: sockets.socket, address: Any) -> PeerInfo:
    """What the system knows of a peer."""
    if socket.family != sockets.AF_UNIX:
        return PeerInfo(str(address[0]))
    with suppress(AttributeError, OSError):  # Not every system says.
        pid, uid, gid = _CREDENTIALS.unpack(
            socket.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, _CREDENTIALS.size)
        )
        return PeerInfo(f"localhost:{uid}:{gid}:{pid}", f"uid:{uid}")
    return PeerInfo("localhost")


def _why_not(error: OSError) -> str:
    """Why a socket cannot be bound."""
    if isinstance(error, sockets.gaierror):
        return f"its host cannot be found: {error.strerror or error}"
    return why(error)
