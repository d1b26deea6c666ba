"""The server's side."""

import errno
import os
import socket as sockets
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import zmq
from zmq.backend import zmq_poll

from transport import security
from transport.descriptors import Reserve
from transport.endpoint import Endpoint
from transport.errors import EndpointError, PeerLost
from transport.frames import Buffer
from transport.inherited import descriptor_of
from transport.link import LinkOptions, PeerInfo, Receiver
from transport.lookup import addresses_of, is_named
from transport.realtime import monotonic
from transport.unix import Taken, UnixListener
from transport.zmq_link.base import MORE, NO_COPY_RECEIVE_BYTES, NO_COPY_SEND_BYTES, NOBLOCK, ZmqLink, gone, is_gone

#: Seconds for which an endpoint that is taken is tried again: ZeroMQ gives that of a closed server free in the
#: background, mostly within a few milliseconds.
FREE_WITHIN: Final = 0.25
#: How many lost peers are remembered; arbitrary: the late messages of one come within a moment.
GONE_KEPT: Final = 256

_ACCEPTED: Final = int(zmq.Event.ACCEPTED)
_DISCONNECTED: Final = int(zmq.Event.DISCONNECTED)
_SERVER_EVENTS: Final = _ACCEPTED | _DISCONNECTED


class ZmqServer(ZmqLink):
    """The server's side: all clients of one endpoint."""

    _kind = zmq.ROUTER
    _events = _SERVER_EVENTS
    _verb = "bind"

    def __init__(self, endpoint: Endpoint, options: LinkOptions) -> None:
        # Guarded by lock. Routing id -> what is known of the peers that had `on_connected` and no `on_lost` yet.
        self._peers: dict[bytes, PeerInfo] = {}
        # Guarded by lock. Descriptors of connections that the monitor has reported, with the peer once it has spoken.
        self._accepted: dict[int, bytes | None] = {}
        # Guarded by lock. Peers whose connections ended lately: ZeroMQ reports that before it hands over what it read
        # in the same step, and that is dropped once the loss was reported.
        self._gone: deque[bytes] = deque(maxlen=GONE_KEPT)
        # What is listened on, if that is a Unix socket.
        self._unix: UnixListener | None = None
        self._accepting = False
        super().__init__(endpoint, options)
        self._reserve = Reserve(self.endpoint, self.lock, self._shut, self._reopen, watch=self._unix is not None)

    def _attach(self, socket: "zmq.Socket[bytes]") -> None:
        # Replies have no bound here: there are no more than calls that were taken, which the runtime counts.
        socket.set(zmq.SNDHWM, 0)
        socket.set(zmq.RCVHWM, self._options.max_queued)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.BACKLOG, 1024)
        if self._options.curve is not None:
            self._options.curve.apply_to_server(socket)
        self._bind(socket)

    def _release(self) -> None:
        super()._release()
        self._reserve.close()

    def _close_sockets(self, linger: int | None = None) -> None:
        security.release(self._socket)
        if self._unix is not None:
            self._unix.remove()
        super()._close_sockets(linger)

    def _bind(self, socket: "zmq.Socket[bytes]") -> None:
        """Bind, if no other has the endpoint: try for a while, as it may be that of a server that has just closed."""
        bind = {"tcp": self._bind_tcp, "ipc": self._bind_ipc}.get(self._target.scheme, self._bind_at)
        deadline = monotonic() + FREE_WITHIN
        while True:
            try:
                bind(socket)
                return
            except (Taken, zmq.ZMQError) as error:
                taken = isinstance(error, Taken) or error.errno == zmq.EADDRINUSE
                if not taken or self._target.local or monotonic() >= deadline:
                    raise
            time.sleep(0.005)

    def _bind_at(self, socket: "zmq.Socket[bytes]") -> None:
        socket.bind(str(self._target))
        self.endpoint: str = _last_endpoint(socket)

    def _bind_ipc(self, socket: "zmq.Socket[bytes]") -> None:
        if not hasattr(sockets, "AF_UNIX"):  # Windows.
            self._bind_at(socket)
            return
        self._unix = UnixListener(self._target)
        self.endpoint = f"ipc://{self._unix.name}"
        endpoint: Any = os.fsencode(self.endpoint)  # A path may be no text.
        descriptor = self._unix.detach()
        try:
            socket.set(zmq.USE_FD, descriptor)
            socket.bind(endpoint)
            self._accepting = True
        except BaseException:
            try:
                socket.unbind(
                    endpoint
                )  # An interrupt came after the binding: ZeroMQ has the descriptor, and closes it.
            except zmq.ZMQError:
                os.close(descriptor)
            raise

    def _shut(self) -> None:
        """Have no connection accepted: few descriptors are left."""
        if self._unix is None:
            return  # ZeroMQ bears it, and tries again.
        if not self._unix.abstract:
            self._unix.shut()
        elif self._accepting:
            # There is no other name for it: its clients lose their connections, which is better than the process.
            self._socket.unbind(self.endpoint)
            self._accepting = False

    def _reopen(self) -> bool:
        """Have connections accepted again; False if that cannot be yet."""
        if self._unix is not None and not self._unix.abstract:
            self._unix.reopen()
        elif self._unix is not None:
            try:
                self._bind_ipc(self._socket)
            except (Taken, zmq.ZMQError):  # ZeroMQ gives the name free in the background.
                return False
        return True

    def _bind_tcp(self, socket: "zmq.Socket[bytes]") -> None:
        """Bind every address that the host's name has here, on one port; or accept where this process was told to."""
        descriptor = descriptor_of(self._target)
        if descriptor >= 0:
            socket.set(zmq.USE_FD, descriptor)  # From here on ZeroMQ's to close.
            self._bind_at(socket)
            return
        addresses = [self._target]
        if is_named(self._target):
            try:
                addresses = addresses_of(self._target)
            except OSError as error:
                self._bind_interface(socket, error)
                return
        bound: list[str] = []
        try:
            _bind_each(socket, addresses, bound)
        except BaseException:
            for endpoint in bound:
                socket.unbind(endpoint)
            raise
        several = Endpoint("tcp", host=self._target.host, port=_port_of(bound))
        self.endpoint = bound[0] if len(bound) == 1 else str(several)

    def _bind_interface(self, socket: "zmq.Socket[bytes]", unknown: OSError) -> None:
        """The host is not known: it may be the name of a network interface, which ZeroMQ knows."""
        try:
            self._bind_at(socket)
        except zmq.ZMQError as error:
            if error.errno != errno.ENODEV:
                raise
            text = f"cannot bind {self._target}: its host cannot be found: {unknown.strerror or unknown}"
            raise EndpointError(text) from unknown

    def descriptors(self) -> list[int]:
        """The socket's descriptor and the monitor's."""
        return self._inner_descriptors()

    def send(self, peer: bytes, frames: list[Buffer]) -> bool:
        """Hand over one message; see `Link.send`."""
        if peer not in self._peers:
            raise PeerLost(f"there is no peer {peer.hex()} on {self.endpoint}")
        try:
            if len(frames) == 1 and len(frames[0]) < NO_COPY_SEND_BYTES:
                begun = False
                try:
                    self._send(peer, MORE)
                    begun = True
                    self._send(frames[0], NOBLOCK)
                except BaseException as error:
                    self._end_message(begun, error)
                    raise
            else:
                self._send_frames([peer, *frames])
            # `ready` in line: one call less for each message.
            self._unsure = False
            self.arrived = bool(zmq_poll(self._input, 0))
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if is_gone(error):
                raise gone(error) from error
            raise PeerLost(f"peer {peer.hex()} on {self.endpoint} is gone: {error}") from error
        return True

    def harvest(self, receiver: Receiver, limit: int = 64) -> bool:
        """Deliver what has arrived; see `Link.harvest`."""
        recv = self._recv
        peers = self._peers
        count = 0
        peer = b""
        try:
            while not self._unsure or self.ready():
                try:
                    peer = recv(NOBLOCK)
                except zmq.Again:
                    break
                frame = recv(NOBLOCK, False)
                frames: list[Buffer] = [frame.bytes if len(frame) < NO_COPY_RECEIVE_BYTES else frame.buffer]
                if frame.more:
                    self._read_rest(frames)
                count += 1
                met = peer in peers or self._meet(peer, frame, receiver)
                ended = met and receiver.on_message(peer, frames)
                peer = b""
                if ended or count >= limit:
                    self._unsure = True
                    return not self._losing or self._leave_early(receiver, count)
                if not zmq_poll(self._input, 0):
                    break
        except BaseException as error:
            if isinstance(error, zmq.ZMQError) and is_gone(error):
                raise gone(error) from error
            # A call may be gone. What a stranger says next is answered as a stranger's.
            for each in self._senders(peer, self._skip_message()):
                receiver.on_message(each, [])
            raise
        return self._finish_harvest(receiver, count)

    def _senders(self, peer: bytes, rest: zmq.Frame | None) -> list[bytes]:
        """Whose message something broke in on: who they may be, of those that are known.

        Args: `peer`: b"" if not even that was learned. `rest`: the last frame, if it was not read yet.
        """
        if not peer and rest is not None:
            try:
                peer = self._accepted.get(rest.get(zmq.SRCFD)) or b""
            except zmq.ZMQError:  # On inproc.
                return list(self._peers)
        return [peer] if peer in self._peers else []

    def _meet(self, peer: bytes, frame: zmq.Frame, receiver: Receiver) -> bool:
        """The first message of a peer: tie its routing id to its connection.

        A descriptor may have been used by one connection after another, and what the earlier one has sent be read
        after what the later one has: of two peers that were heard on one descriptor, the later one has it.

        Returns: False if it has none, or had one that is lost: the message is dropped. None has a peer older than
            ZMTP 3.0, as which ZeroMQ takes whatever does not begin like one (a browser).
        """
        # All that the monitor reported before this message was sent: above all that its connection was accepted.
        self._look(receiver)
        if peer in self._gone:
            return False
        if self._monitor is not None:
            try:
                descriptor = frame.get(zmq.SRCFD)
            except zmq.ZMQError:
                return False
            owner = self._accepted.get(descriptor)
            if descriptor not in self._accepted or (owner is not None and _later(owner, peer)):
                self._end(peer)  # Accepted and gone again before it was heard.
            else:
                if owner is not None:
                    self._end(owner)
                self._accepted[descriptor] = peer
        info = PeerInfo(_text(frame, "Peer-Address"), _text(frame, "User-Id"))
        try:
            self._peers[peer] = info
            receiver.on_connected(peer)
        except BaseException:
            self._forget(peer)  # Its next message is the first that counts.
            raise
        return True

    def _look(self, receiver: Receiver) -> None:
        self._read_monitor()
        while self._monitored:
            event, descriptor = self._monitored[0]
            before = self._accepted.pop(descriptor, None)
            if before is not None:
                self._end(before)
            if event == _ACCEPTED:
                self._accepted[descriptor] = None
                self._reserve.accepted(descriptor)
            self._monitored.popleft()

    def _forget(self, peer: bytes) -> None:
        self._peers.pop(peer, None)

    def _end(self, peer: bytes) -> None:
        """Its connection is gone: `on_lost` follows when its messages are read, and none that comes later counts."""
        self._losing[peer] = "the connection was closed"
        if _number(peer) is not None:  # One that chose its routing id may come again under it.
            self._gone.append(peer)

    def peer_info(self, peer: bytes) -> PeerInfo:
        """What is known of a peer. Raises PeerLost if it is not known (any more)."""
        try:
            return self._peers[peer]
        except KeyError:
            raise PeerLost(f"there is no peer {peer.hex()} on {self.endpoint}") from None


def _bind_each(socket: "zmq.Socket[bytes]", addresses: Iterable[Endpoint], bound: list[str]) -> None:
    """Bind the addresses of a name that are this machine's (the others, or all of IPv6, may not be), one at least."""
    missing: zmq.ZMQError | EndpointError = EndpointError("cannot bind: the host has no address")
    for address in addresses:
        socket.set(zmq.IPV6, int(address.host.startswith("[")))
        try:
            socket.bind(str(Endpoint("tcp", host=address.host, port=address.port or _port_of(bound))))
        except zmq.ZMQError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENODEV):
                raise
            missing = error
        else:
            bound.append(_last_endpoint(socket))
    if not bound:
        raise missing


def _last_endpoint(socket: "zmq.Socket[bytes]") -> str:
    """What the socket was bound to last."""
    found = socket.get(zmq.LAST_ENDPOINT)
    assert isinstance(found, bytes), "it is a text"
    return os.fsdecode(found)


def _port_of(bound: list[str]) -> int:
    """The port that the system chose; 0 before."""
    return Endpoint.parse(bound[0]).port if bound else 0


def _number(peer: bytes) -> int | None:
    """The number that ZeroMQ gave a peer, counting on, as its routing id; None: the peer chose its own."""
    return int.from_bytes(peer[1:]) if len(peer) == 5 and not peer[0] else None


def _later(peer: bytes, other: bytes) -> bool:
    """Whether `peer` is known to have come later than `other`."""
    one, two = _number(peer), _number(other)
    return one is not None and two is not None and 0 < (one - two) % (1 << 32) < 1 << 31


def _text(frame: zmq.Frame, name: str) -> str:
    """A property of the connection that a frame came on; "" if it has none."""
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""
