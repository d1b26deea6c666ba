"""The server's side.

Theory of operation, besides that of the package. ZeroMQ reads of each peer whatever comes: a bound for what waits to be
read (RCVHWM) would have it abort the process if a peer dies past it. So this side reads always, and who is above it
counts. For the same reason no peer is refused what it sends; it is disconnected (`accepted.py`): of too many
connections the last, who has not spoken in time, who leaves much unread for long, and who gives itself a number as only
ZeroMQ gives them out (`door.py` says what that is about).

What was handed to ZeroMQ and is not known to have left is counted, for each peer and in all (`accepted.py`). It is the
more, the rarer messages are marks; so with many peers there are more of them, and no more than one part in `UNKNOWN` of
`max_total_bytes` is due to that.

ZeroMQ has memory for what a disconnected peer has not read until this side has read all that the peer has sent. So that
is passed over; and while there is much of it, who has not read what it was handed is handed no more.

All of it looks at one table of connections, under one lock: hence the length.

Guarantees: what waits to be sent to a peer is bounded by an eighth of `max_queued_bytes` and a message; for longer than
`GRACE` it is not that much. What waits for all is bounded by `max_total_bytes` and one part in `UNKNOWN` of it: past it
the one for which most waits is disconnected. What is left of those that were disconnected is not more than that again.
"""

import errno
import itertools
import os
import socket as sockets
import time
from collections import deque
from collections.abc import Iterable
from math import inf
from operator import attrgetter
from typing import Any, Final

import zmq
from zmq.backend import zmq_poll

from transport.addresses import Addresses
from transport.descriptors import Reserve
from transport.endpoint import Endpoint
from transport.errors import EndpointError, PeerLost
from transport.frames import Buffer
from transport.inherited import descriptor_of
from transport.link import LinkOptions, PeerInfo, Receiver
from transport.lookup import addresses_of, is_named
from transport.realtime import monotonic
from transport.unix import Taken, UnixListener
from transport.zmq_link.accepted import MARK_BYTES, MESSAGE_BYTES, Accepted, HeardPeer
from transport.zmq_link.base import (
    MORE,
    NO_COPY_RECEIVE_BYTES,
    NO_COPY_SEND_BYTES,
    NOBLOCK,
    ZmqLink,
    gone,
    is_gone,
)
from transport.zmq_link.door import Door, open_door, random_numbers, shut_door

#: Seconds for which an endpoint that is taken is tried again: ZeroMQ gives that of a closed server free in the
#: background, mostly within a few milliseconds.
FREE_WITHIN: Final = 0.25
#: How many lost peers are remembered; arbitrary: the late messages of one come within a moment.
GONE_KEPT: Final = 256

#: One part in so many of `max_queued_bytes` may not be known to have left for a peer before it is given no more; and
#: seconds for which that may be so.
SLOW_PART: Final = 8
GRACE: Final = 5.0
#: Of `max_total_bytes`, one part in so many may have left without that being known, or be handed over before a count.
UNKNOWN: Final = 8
#: Seconds between two looks at who has not spoken.
_LOOK: Final = 1.0
#: So many connections may be heard before the monitor has reported them.
_SLACK: Final = 1024

_ACCEPTED: Final = int(zmq.Event.ACCEPTED)
_DISCONNECTED: Final = int(zmq.Event.DISCONNECTED)
_SERVER_EVENTS: Final = _ACCEPTED | _DISCONNECTED

_names: Final = itertools.count()


class ZmqServer(ZmqLink):
    """The server's side: all clients of one endpoint."""

    _kind = zmq.ROUTER
    _events = _SERVER_EVENTS
    _verb = "bind"

    def __init__(self, endpoint: Endpoint, options: LinkOptions) -> None:
        # Guarded by lock. Routing id -> what is known of the peers that had `on_connected` and no `on_lost` yet.
        self._peers: dict[bytes, HeardPeer] = {}
        # Guarded by lock. Those of them whose connections this side has ended, and the bytes that each has not read.
        self._ended: dict[bytes, int] = {}
        # Guarded by lock. Bytes that were handed over for all of them, ever; above how many of these to count how many
        # wait; and above how many that wait for a peer its messages are marks.
        self._handed = 0
        self._count_at: float = inf if endpoint.local else options.max_total_bytes
        self._mark_bytes = MARK_BYTES
        # Guarded by lock. By descriptor: connections that the monitor has reported. How many it has reported, ever.
        self._accepted: dict[int, Accepted] = {}
        self._accepts = 0
        self._addresses = Addresses(options.max_address_connections)
        # Guarded by lock. Those of them that have not spoken, by descriptor, the oldest first.
        self._silent: dict[int, Accepted] = {}
        # Guarded by lock. When to look at them; inf: there are none.
        self._due = inf
        # The number that ZeroMQ gave out first.
        self._first: int | None = None
        self._door: Door | None = None
        # Guarded by lock. Peers whose connections ended lately: ZeroMQ reports that before it hands over what it read
        # in the same step, and that is dropped once the loss was reported.
        self._gone: deque[bytes] = deque(maxlen=GONE_KEPT)
        # What is listened on, if that is a Unix socket.
        self._unix: UnixListener | None = None
        self._accepting = False
        super().__init__(endpoint, options)
        self._reserve = Reserve(self.endpoint, self.lock, self._shut, self._reopen, watch=self._unix is not None)

    def _open(self) -> None:
        random_numbers()
        super()._open()

    def _attach(self, socket: "zmq.Socket[bytes]") -> None:
        # What waits to be sent is counted here, in bytes; for RCVHWM see the theory above.
        socket.set(zmq.SNDHWM, 0)
        # Over inproc there is no engine that could abort.
        socket.set(zmq.RCVHWM, self._options.max_queued if self._target.local else 0)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.BACKLOG, 1024)
        socket.set(zmq.HANDSHAKE_IVL, max(1, int(self._options.greeting_timeout * 1000)))
        curve = self._options.curve
        if curve is not None:
            curve.apply_to_server(socket)
        if not self._target.local:
            self._first = _first_number(socket)
            known = None if curve is None or not hasattr(curve, "asks") else curve.asks()
            if known is not None or self._options.context is None:
                self._door = Door(self._options.connection_rate, known, self._options.greeting_timeout)
                open_door(socket, self._door)
            elif curve is not None:
                # Otherwise a handler of the context is asked about this one's clients too.
                socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._bind(socket)

    def _release(self) -> None:
        super()._release()
        self._reserve.close()

    def _close_sockets(self, linger: int | None = None) -> None:
        if self._door is not None:
            shut_door(self._socket, self._door)
            self._door = None
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
        """Bind every address that the host's name has here, on one port; or accept where this process is to."""
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

    def ready(self) -> bool:
        """Whether a message waits, or it is time to look at who has not spoken."""
        self._unsure = False
        try:
            return bool(zmq_poll(self._input, 0)) or (self._due < inf and self._due <= monotonic())
        except zmq.ZMQError as error:
            raise gone(error) from error

    def send(self, peer: bytes, frames: list[Buffer]) -> bool:
        """Hand over one message; see `Link.send`."""
        try:
            known = self._peers[peer]
        except KeyError:
            raise PeerLost(f"there is no peer {peer.hex()} on {self.endpoint}") from None
        try:
            alone = len(frames) == 1
            size = MESSAGE_BYTES + (len(frames[0]) if alone else sum(map(len, frames)))
            if known.handed + size > self._mark_bytes:
                if not self._may_have(known):
                    return False
                frames = known.marked(frames, size)
            known.handed += size
            self._handed += size
            if alone and size < NO_COPY_SEND_BYTES:
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
            if self._handed > self._count_at:
                self._relieve()
            # `ready` in line: one call less for each message.
            self._unsure = False
            self.arrived: bool = bool(zmq_poll(self._input, 0))
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if is_gone(error):
                raise gone(error) from error
            raise PeerLost(f"peer {peer.hex()} on {self.endpoint} is gone: {error}") from error
        return True

    def _may_have(self, peer: HeardPeer) -> bool:
        """Whether a peer that much was handed over for is given more now. One that left it unread too long is lost."""
        peer.settle()
        accepted = peer.accepted
        if accepted is not None and accepted.why:
            raise PeerLost(f"{accepted.where} was disconnected from {self.endpoint}: {accepted.why}")
        # Without a mark on its way nothing would ever be known to have left: the next message is one.
        if accepted is None or peer.handed <= self._options.max_queued_bytes // SLOW_PART or not peer.has_mark:
            peer.full_since = 0.0
            return accepted is None or not (self._ended and peer.has_mark and self._is_crowded())
        now = monotonic()
        peer.full_since = peer.full_since or now
        if now - peer.full_since > GRACE:
            self._evict(peer, f"it left {peer.handed} bytes unread for {GRACE:g} s")
        return False

    def _is_crowded(self) -> bool:
        """Whether ZeroMQ still has much of what the disconnected have not read."""
        return sum(self._ended.values()) > self._options.max_total_bytes // UNKNOWN

    def _counted(self) -> list[HeardPeer]:
        """Return the peers whose connections go on, with what is not known to have left of what they were handed."""
        counted = [peer for peer in self._peers.values() if peer.accepted is not None and not peer.accepted.why]
        for peer in counted:
            peer.settle()
        return counted

    def unread_bytes(self) -> int:
        """What was handed over, and ZeroMQ is not known to be rid of; see `Link.unread_bytes`."""
        return sum(peer.handed for peer in self._counted())

    def _relieve(self) -> None:
        """Count what waits for all peers; if that is more than may, disconnect those for which most does."""
        most = self._options.max_total_bytes
        left = sorted(self._counted(), key=attrgetter("handed"))
        waiting = sum(peer.handed for peer in left)
        while waiting > most:
            peer = left.pop()
            self._evict(peer, (
                f"it left {peer.handed} bytes unread, most of the {waiting} that wait for all clients; "
                f"max_total_bytes allows {most}"
            ))  # fmt: skip
            waiting -= peer.handed
        self._count_at = self._handed + max(most - waiting, most // UNKNOWN)
        self._look_for_marks()

    def _look_for_marks(self) -> None:
        most = self._options.max_total_bytes // UNKNOWN // max(1, len(self._peers))
        self._mark_bytes = min(MARK_BYTES, most)

    def _evict(self, peer: HeardPeer, why: str) -> None:
        """End the connection of a peer that does not read."""
        assert peer.accepted is not None, "what has left is known"
        peer.accepted.evicted = True
        self._hang_up(peer, peer.accepted, why)

    def _hang_up(self, peer: HeardPeer, accepted: Accepted, why: str) -> None:
        """End the connection of a peer that was heard."""
        self._ended[peer.number] = peer.handed
        accepted.end(why)

    @staticmethod
    def _refuse_stranger(accepted: Accepted, why: str, receiver: Receiver) -> None:
        """End the connection of one who was not heard yet."""
        if not accepted.why:
            accepted.end(why)
            receiver.on_connect_failed(f"{accepted.where}: {why}", True)

    def _is_evicted(self, peer: bytes) -> bool:
        known = self._peers.get(peer)
        return known is not None and known.accepted is not None and known.accepted.evicted

    def disconnect(self, peer: bytes, reason: str) -> None:
        """End the connection of a peer; see `Link.disconnect`."""
        known = self._peers.get(peer)
        if known is None:
            return
        if known.accepted is not None:
            self._hang_up(known, known.accepted, reason)
        else:
            self._losing[peer] = reason
            if self.later is not None:
                self.later(0.0)

    def harvest(self, receiver: Receiver, limit: int = 64) -> bool:
        """Deliver what has arrived; see `Link.harvest`."""
        if self._due < inf and self._due <= monotonic():
            self._look_at_silent(receiver)
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
                heard = (peer in peers or self._meet(peer, frame, receiver)) and peer not in self._ended
                ended = heard and receiver.on_message(peer, frames)
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
                found = self._accepted.get(rest.get(zmq.SRCFD))
                peer = (found and found.peer) or b""
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
        accepted = None
        if self._monitor is not None:
            try:
                accepted = self._accepted.get(frame.get(zmq.SRCFD))
            except zmq.ZMQError:
                return False
            if accepted is not None and self._is_made_up(peer):
                self._refuse_stranger(accepted, "it gave itself a number as ZeroMQ gives them", receiver)
                return False
            if accepted is None or (accepted.peer is not None and _later(accepted.peer, peer)):
                accepted = None
                self._end(peer)  # Accepted and gone again before it was heard.
            else:
                if accepted.peer is not None:
                    self._end(accepted.peer)
                accepted.peer = peer
                self._silent.pop(accepted.descriptor, None)
        info = PeerInfo(_text(frame, "Peer-Address"), _text(frame, "User-Id"))
        try:
            self._peers[peer] = HeardPeer(peer, info, accepted)
            self._look_for_marks()
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
                self._addresses.leave(before.host)
                self._silent.pop(descriptor, None)
                if before.peer is not None:
                    self._end(before.peer, before.why)
            if event == _ACCEPTED:
                self._accept(descriptor, receiver)
            self._monitored.popleft()

    def _accept(self, descriptor: int, receiver: Receiver) -> None:
        """A connection has come."""
        self._accepts += 1
        accepted = self._accepted[descriptor] = self._silent[descriptor] = Accepted(descriptor, monotonic())
        refusal = self._addresses.enter(accepted.host)
        if len(self._accepted) > self._options.max_connections:
            refusal = "there are too many connections"
        if refusal:
            self._refuse_stranger(accepted, refusal, receiver)
        if self._due == inf:
            self._look_in(_LOOK)
        self._reserve.accepted(descriptor)

    def _look_in(self, seconds: float) -> None:
        self._due = monotonic() + seconds
        if self.later is not None:
            self.later(seconds)

    def _look_at_silent(self, receiver: Receiver) -> None:
        """End those that have not spoken in time. (What they have said by now was read, unless this side is behind.)"""
        self._due = inf
        self._look(receiver)
        if self._silent and not zmq_poll(self._input, 0):
            late = monotonic() - self._options.greeting_timeout
            for accepted in self._silent.values():
                if accepted.since > late:
                    break
                self._refuse_stranger(accepted, "it did not speak in time", receiver)
        if self._silent:
            self._look_in(_LOOK)

    def _is_made_up(self, peer: bytes) -> bool:
        """Whether a peer has given itself a number that ZeroMQ has not given out."""
        number = _number(peer)
        if number is None or self._first is None:
            return False
        return not 0 < (number - self._first) % (1 << 32) <= self._accepts + _SLACK

    def _forget(self, peer: bytes) -> None:
        self._peers.pop(peer, None)
        self._ended.pop(peer, None)

    def _end(self, peer: bytes, why: str = "") -> None:
        """Its connection is gone: `on_lost` follows when its messages are read, and none that comes later counts."""
        self._losing[peer] = why or "the connection was closed"
        if _number(peer) is not None:  # One that chose its routing id may come again under it.
            self._gone.append(peer)

    def peer_info(self, peer: bytes) -> PeerInfo:
        """What is known of a peer. Raises PeerLost if it is not known (any more)."""
        try:
            return self._peers[peer].info
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


def _first_number(socket: "zmq.Socket[bytes]") -> int | None:
    """The number that ZeroMQ gives to the first peer of a socket: one of this process's own, over inproc."""
    name = f"inproc://callport-first-{os.getpid()}-{next(_names)}"
    socket.bind(name)
    try:
        with socket.context.socket(zmq.DEALER) as first:
            first.set(zmq.LINGER, 0)
            first.connect(name)
            first.send(b"", NOBLOCK)
            peer, _ = socket.recv_multipart(NOBLOCK)
    finally:
        socket.unbind(name)
    return _number(peer)


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
