"""The ZeroMQ link: a DEALER for a client, a ROUTER for a server, and a socket monitor beside each.

Theory of operation. ZeroMQ's own thread moves bytes, reconnects and answers heartbeats. Here is only what
happens when a thread of the program touches the sockets, always under the link's lock (which is the full
fence that libzmq asks for when a socket moves between threads), never blocking.

`harvest` begins with a receive: it was called because there is something, and asking first would cost 1.6 us.
After each message it asks (a receive that fails costs 4 us, being an exception), and that question also puts
the reading side to sleep, without which the descriptor would not show the next message. The monitor is looked
at when no message came, and now and then: its own descriptor stays readable until then.

Who is lost? The monitor names a connection by its descriptor, the ROUTER by a routing id; the descriptor on a
peer's first message (SRCFD) ties the two. Messages that a dying peer sent may still wait in the ROUTER when
the monitor tells of its end, so `lost` is told when the socket has been seen empty after that.

Guarantees: `connected`, messages, `lost`, in this order and once for each peer. A client hands nothing to a
new connection before `lost` and `connected` were told: the monitor is looked at before a send, unless that
was so recently that a new connection cannot be up (ZeroMQ waits RECONNECT_MS first). An exception from
outside (Ctrl-C) in the middle of a message never makes the rest of it look like another message: its
connection counts as lost.

Assumes: nothing else uses the sockets. inproc has no monitor events: its client counts as connected at once,
and the end of a peer must be told by a BYE.
"""

import atexit
import itertools
import os
import select
import socket as sockets
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, Final

import zmq
from zmq.backend import zmq_poll
from zmq.utils import garbage

from transport import link as links
from transport.endpoint import Endpoint
from transport.errors import EndpointError, LinkClosed, PeerLost
from transport.frames import MAX_BLOBS, Buffer
from transport.link import BaseLink, LinkOptions, PeerInfo, Receiver

#: From this size on a frame is received as a view of ZeroMQ's memory. Below it a copy is cheaper than the
#: view.
NO_COPY_RECEIVE_BYTES: Final = 32 * 1024
#: From this size on a frame is sent without a copy. pyzmq's thread that frees the memory afterwards competes
#: for the GIL: measured, round trips of 64 KiB take 20 % longer, 256 KiB are even, 1 MiB gain a third.
NO_COPY_SEND_BYTES: Final = 512 * 1024

#: Milliseconds before ZeroMQ tries to connect again; doubles up to the maximum.
RECONNECT_MS: Final = 50
RECONNECT_MAX_MS: Final = 1000
# A look at the monitor serves for this many seconds. Less than RECONNECT_MS: see Guarantees.
_LOOK_SERVES: Final = 0.040

#: The monitor is looked at in one of this many harvests that found messages.
_LOOK_EVERY: Final = 16
#: A loss is told after this many messages even if the socket never was empty: a server that is never idle.
_LOSS_WAITS: Final = 10_000

_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENT: Final = struct.Struct("=HI")
_ACCEPTED: Final = int(zmq.Event.ACCEPTED)
_DISCONNECTED: Final = int(zmq.Event.DISCONNECTED)
_CLOSED: Final = int(zmq.Event.CLOSED)
_RETRIED: Final = int(zmq.Event.CONNECT_RETRIED)
_UP: Final = int(zmq.Event.HANDSHAKE_SUCCEEDED)
_FAILURES: Final[dict[int, str]] = {
    int(zmq.Event.HANDSHAKE_FAILED_NO_DETAIL): "the peer broke off, or is not a ZeroMQ server",
    int(zmq.Event.HANDSHAKE_FAILED_PROTOCOL): "the peer does not speak ZMTP, or not the same security",
    int(zmq.Event.HANDSHAKE_FAILED_AUTH): "not authorised",
}
_CLIENT_EVENTS: Final = _UP | _DISCONNECTED | _CLOSED | _RETRIED | sum(_FAILURES)
_SERVER_EVENTS: Final = _ACCEPTED | _DISCONNECTED

_monitor_names: Final = itertools.count()


class _ZmqLink(BaseLink):
    """What both sides share: the socket, its monitor, frames in and out."""

    _kind: int
    _events: int
    _verb: str

    def __init__(self, endpoint: Endpoint, options: LinkOptions) -> None:
        super().__init__(str(endpoint))
        self._target = endpoint
        self._options = options
        # Peers whose end the monitor told of, with the reason; `lost` is told when their messages are read.
        self._losing: dict[bytes, str] = {}
        self._messages_since_loss = 0
        self._harvests = 0
        # The last harvest ended early: whether there is more is not known. (A receive that finds nothing is
        # the dearest way to find out.)
        self._unsure = False
        self._open()

    def _open(self) -> None:
        """Open a socket, and a monitor for it."""
        options = self._options
        context = zmq.Context.shadow(options.context.underlying) if options.context else _shared_context()
        socket = self._socket = context.socket(self._kind)
        # The methods of the C class: those of zmq.Socket add a Python call to each (0.3 us).
        plain: Any = super(zmq.Socket, socket)
        self._recv = plain.recv
        self._send = plain.send
        self._input = [(socket, int(zmq.POLLIN))]
        self._output = [(socket, int(zmq.POLLOUT))]
        self._monitor: zmq.Socket[bytes] | None = None
        # What the monitor told and nobody has dealt with: events, each with its value.
        self._told: deque[tuple[int, int]] = deque()
        # When the monitor was last seen to have nothing to say.
        self._looked = time.monotonic()
        try:
            socket.set(zmq.LINGER, int(options.linger * 1000))
            socket.set(zmq.MAXMSGSIZE, options.max_message_bytes)
            if self._target.scheme == "tcp" and self._target.host.startswith("["):
                socket.set(zmq.IPV6, 1)
            if options.heartbeat and not self._target.local:
                interval = int(options.heartbeat * 1000)
                socket.set(zmq.HEARTBEAT_IVL, interval)
                socket.set(zmq.HEARTBEAT_TIMEOUT, 3 * interval)
                socket.set(zmq.HEARTBEAT_TTL, 3 * interval)
            if not self._target.local:
                self._open_monitor(context)
            self._attach(socket)
        except (zmq.ZMQError, OSError, EndpointError) as error:
            self._close_sockets()
            if isinstance(error, EndpointError):
                raise
            raise EndpointError(f"cannot {self._verb} {self._target}: {error}") from error

    def _attach(self, socket: "zmq.Socket[bytes]") -> None:
        """Set the options of one side, and connect or bind."""
        raise NotImplementedError

    def _open_monitor(self, context: "zmq.Context[Any]") -> None:
        # Not get_monitor_socket(): it names the pair after the socket's descriptor, which may be in use again
        # while the pair of a closed socket still exists.
        name = f"inproc://callport-monitor-{os.getpid()}-{next(_monitor_names)}"
        self._socket.monitor(name, self._events)
        monitor = self._monitor = context.socket(zmq.PAIR)
        monitor.set(zmq.LINGER, 0)
        # No limit: ZeroMQ's thread would block on it. What waits here is bounded by the connections made.
        monitor.set(zmq.RCVHWM, 0)
        monitor.connect(name)
        # Only a reader that has found nothing is told of the next event; from here on every reading ends that
        # way.
        with suppress(zmq.Again):
            monitor.recv(_NOBLOCK)
        self._monitor_poll = select.poll()
        self._monitor_poll.register(monitor.fileno(), select.POLLIN)

    def _close_sockets(self, linger: int | None = None) -> None:
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor.close()
        self._socket.close(linger)

    def _inner_descriptors(self) -> list[int]:
        found = [self._socket.fileno()]
        if self._monitor is not None:
            found.append(self._monitor.fileno())
        return found

    def ready(self) -> bool:
        """Whether a message waits. (The monitor's descriptor speaks for itself: nothing but `harvest` reads
        there.)
        """
        return bool(zmq_poll(self._input, 0))

    def writable(self) -> bool:
        """Whether the socket would take a message."""
        return bool(zmq_poll(self._output, 0))

    def close(self) -> None:
        """Close both sockets; ZeroMQ's thread goes on sending for the linger time."""
        super().close()
        self._close_sockets()

    def _read_monitor(self) -> None:
        """Take what the monitor tells."""
        monitor = self._monitor
        if monitor is None:
            return
        self._looked = time.monotonic()
        if not self._monitor_poll.poll(0):
            return
        with suppress(zmq.Again):
            while True:
                head = monitor.recv(_NOBLOCK)
                if monitor.get(zmq.RCVMORE):
                    monitor.recv(_NOBLOCK)
                    if len(head) == _EVENT.size:
                        self._told.append(_EVENT.unpack(head))

    def _read_rest(self, frames: list[Buffer]) -> None:
        """The frames after the first of a message. More than a message may have are read and dropped."""
        more = True
        while more:
            frame = self._recv(_NOBLOCK, False)
            more = frame.more
            if len(frames) <= MAX_BLOBS + 1:
                frames.append(frame.bytes if len(frame) < NO_COPY_RECEIVE_BYTES else frame.buffer)

    def _skip_message(self) -> None:
        """Something broke in on a message: read the rest of it, so that the next frame begins another."""
        while self._socket.get(zmq.RCVMORE):
            self._recv(_NOBLOCK)

    def _send_frames(self, frames: list[Buffer]) -> None:
        """Send a message of several frames, or of a large one."""
        send = self._send
        last = len(frames) - 1
        index = 0
        try:
            for index, frame in enumerate(frames):
                copy = len(frame) < NO_COPY_SEND_BYTES
                if not copy and not garbage.gc.is_alive():
                    _name_collector()
                send(frame, _MORE if index < last else _NOBLOCK, copy)
        except BaseException as error:
            # A connection that broke in the middle takes back what was sent, and drops what follows up to the
            # end of the message. If something from outside broke in, the message must end too, or the next
            # one would become a part of it; the peer will not take it for good. In both cases an empty frame
            # is that end. (After a first frame that was refused, nothing has begun. After one that was
            # interrupted nobody knows.)
            if last and (index or not isinstance(error, zmq.ZMQError)):
                with suppress(zmq.ZMQError):
                    send(b"", _NOBLOCK)
            raise

    def _settle(self, receiver: Receiver) -> None:
        """Tell of the losses: all messages of those peers were read."""
        self._messages_since_loss = 0
        while self._losing:
            peer, reason = self._losing.popitem()
            self._forget(peer)
            receiver.lost(peer, reason)

    def _leave_early(self, receiver: Receiver, count: int) -> bool:
        """There may be more, but this harvest ends."""
        self._unsure = True
        self._messages_since_loss += count
        if self._losing and self._messages_since_loss > _LOSS_WAITS:
            self._settle(receiver)
        return True

    def _finish_harvest(self, receiver: Receiver, count: int) -> bool:
        """The socket was just seen empty, after `count` messages."""
        if self._losing:
            self._settle(receiver)
        self._harvests += 1
        if not count or self._harvests % _LOOK_EVERY == 0:
            self._look(receiver)
            if self._losing:
                # It may have sent more between the last receive and its end.
                if zmq_poll(self._input, 0):
                    return True
                self._settle(receiver)
        return bool(self._told)

    def _forget(self, peer: bytes) -> None:
        raise NotImplementedError

    def _look(self, receiver: Receiver) -> None:
        raise NotImplementedError


class ZmqClient(_ZmqLink):
    """The client's side: one connection, which ZeroMQ makes again whenever it breaks.

    A connection that was made again begins with what was handed to the former one and never sent. So, once
    ZeroMQ has it, the socket is replaced by a new one. (ZMQ_IMMEDIATE would drop those messages, but also
    those that had arrived and were not read yet: replies that came just before their server ended.)
    """

    _kind = zmq.DEALER
    _events = _CLIENT_EVENTS
    _verb = "connect to"

    def __init__(self, endpoint: Endpoint, options: LinkOptions) -> None:
        # What is polled stays the same when the socket is replaced.
        self._poll = select.epoll()
        try:
            super().__init__(endpoint, options)
        except BaseException:
            self._poll.close()
            raise

    def _attach(self, socket: "zmq.Socket[bytes]") -> None:
        # Nothing can be sent until the receiver was told `connected`.
        self._up = False
        # The former connection is lost: the next one is to be made on a new socket.
        self._worn = False
        # inproc: nobody will tell of the connection, so the first harvest does.
        self._announce = self._target.local
        # The next CONNECT_RETRIED is the first attempt after a connection, not one that failed.
        self._first_attempt = False
        # What is known of the attempt under way: how the handshake failed, and whether there was a host to
        # reach.
        self._failure = ""
        self._reached = False
        # Calls wait here, once the server has this many unread. Replies have no bound: there are no more than
        # calls, and those the runtime counts.
        socket.set(zmq.SNDHWM, self._options.max_queued)
        socket.set(zmq.RCVHWM, 0)
        socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        socket.set(zmq.CONNECT_TIMEOUT, int(self._options.connect_timeout * 1000))
        if self._options.curve is not None:
            self._options.curve.apply_to_client(socket)
        socket.connect(str(self._target))
        for descriptor in self._inner_descriptors():
            self._poll.register(descriptor, select.EPOLLIN)

    def _replace(self) -> None:
        """Go on with a new socket. What waits in the old one is for nobody."""
        for descriptor in self._inner_descriptors():
            self._poll.unregister(descriptor)
        self._close_sockets(linger=0)
        self._open()

    def close(self) -> None:
        """Close both sockets; ZeroMQ's thread goes on sending for the linger time."""
        super().close()
        self._poll.close()

    def descriptors(self) -> list[int]:
        """One, which stands for the socket's and the monitor's."""
        return [self._poll.fileno()]

    def ready(self) -> bool:
        """Whether a message waits, or there is something else to tell."""
        self._unsure = False
        return self._announce or bool(self._told) or bool(zmq_poll(self._input, 0))

    def writable(self) -> bool:
        """Whether the connection is up and the queue has room."""
        return self._up and not self._losing and bool(zmq_poll(self._output, 0))

    def send(self, peer: bytes, frames: list[Buffer]) -> bool:
        """Hand over one message; see `Link.send`."""
        if not self._up or self._losing:
            return False
        if time.monotonic() - self._looked > _LOOK_SERVES and self._monitor is not None:
            if self._monitor_poll.poll(0):
                return False  # the connection may be another one by now: a harvest will tell
            self._looked = time.monotonic()
        try:
            if len(frames) == 1 and len(frames[0]) < NO_COPY_SEND_BYTES:
                self._send(frames[0], _NOBLOCK)
            else:
                self._send_frames(frames)
        except zmq.Again:
            return False
        except zmq.ContextTerminated as error:
            raise LinkClosed("the ZeroMQ context was terminated") from error
        return True

    def harvest(self, receiver: Receiver, limit: int = 64) -> bool:
        """Deliver what has arrived; see `Link.harvest`."""
        try:
            return self._harvest(receiver, limit)
        except zmq.ContextTerminated as error:
            raise LinkClosed("the ZeroMQ context was terminated") from error
        except BaseException:
            # A message may be gone, and with it the answer to a call: have this connection count as lost.
            up = self._up
            self._replace()
            if up:
                self._losing[b""] = "interrupted while receiving"
            raise

    def _harvest(self, receiver: Receiver, limit: int) -> bool:
        recv = self._recv
        count = 0
        if self._announce:
            if self._losing:
                self._settle(receiver)
            self._announce = False
            self._up = True
            receiver.connected(b"")
        while not self._unsure or self.ready():
            try:
                frame = recv(_NOBLOCK, False)
            except zmq.Again:
                break
            frames: list[Buffer] = [frame.bytes if len(frame) < NO_COPY_RECEIVE_BYTES else frame.buffer]
            if frame.more:
                self._read_rest(frames)
            count += 1
            # While there is no connection, a message answers something that was meant for the former one.
            if (self._up and receiver.message(b"", frames)) or count >= limit:
                return self._leave_early(receiver, count)
            if not zmq_poll(self._input, 0):
                break
        return self._finish_harvest(receiver, count)

    def _look(self, receiver: Receiver) -> None:
        self._read_monitor()
        while self._told and not self._losing:
            # What follows a loss waits until the loss was told, and that until all messages were read.
            event, value = self._told.popleft()
            if event == _UP:
                if self._worn:
                    self._replace()
                    return
                self._up = True
                self._failure = ""
                receiver.connected(b"")
            elif event == _DISCONNECTED:
                self._first_attempt = True
                if self._up:
                    self._losing[b""] = "the connection was closed"
                elif not self._worn:
                    receiver.refused(f"{self.endpoint}: {self._failure or 'the peer closed it at once'}")
            elif event == _CLOSED:
                self._reached = True
            elif event == _RETRIED:
                if not self._first_attempt:
                    why = "nobody listens there" if self._reached else "its host cannot be found or reached"
                    receiver.refused(f"cannot connect to {self.endpoint}: {why}; next attempt in {value} ms")
                self._first_attempt = self._reached = False
            else:
                self._failure = f"the handshake failed: {_FAILURES[event]}"

    def _forget(self, peer: bytes) -> None:
        self._worn = self._up
        self._up = False

    def peer_info(self, peer: bytes) -> PeerInfo:
        """Nothing: a client knows its server by the endpoint."""
        return PeerInfo()


class ZmqServer(_ZmqLink):
    """The server's side: all clients of one endpoint."""

    _kind = zmq.ROUTER
    _events = _SERVER_EVENTS
    _verb = "bind"

    def __init__(self, endpoint: Endpoint, options: LinkOptions) -> None:
        # Guarded by lock. Routing id -> what is known; exactly the peers told `connected` and not yet `lost`.
        self._peers: dict[bytes, PeerInfo] = {}
        # Guarded by lock. Descriptors of connections that the monitor told of, with the peer once it was
        # heard.
        self._accepted: dict[int, bytes | None] = {}
        _refuse_taken_path(endpoint)
        super().__init__(endpoint, options)
        self.endpoint = self._socket.get(zmq.LAST_ENDPOINT).decode()

    def _attach(self, socket: "zmq.Socket[bytes]") -> None:
        # Replies have no bound here: there are no more than calls that were taken, and those the runtime
        # counts.
        socket.set(zmq.SNDHWM, 0)
        socket.set(zmq.RCVHWM, self._options.max_queued)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.BACKLOG, 1024)
        if self._options.curve is not None:
            self._options.curve.apply_to_server(socket)
        socket.bind(str(self._target))

    def descriptors(self) -> list[int]:
        """The socket's descriptor and the monitor's."""
        return self._inner_descriptors()

    def send(self, peer: bytes, frames: list[Buffer]) -> bool:
        """Hand over one message; see `Link.send`."""
        if peer not in self._peers:
            raise PeerLost(f"there is no peer {peer.hex()} on {self.endpoint}")
        try:
            self._send_frames([peer, *frames])
        except zmq.Again:
            return False
        except zmq.ContextTerminated as error:
            raise LinkClosed("the ZeroMQ context was terminated") from error
        except zmq.ZMQError as error:
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
                    peer = recv(_NOBLOCK)
                except zmq.Again:
                    break
                frame = recv(_NOBLOCK, False)
                frames: list[Buffer] = [frame.bytes if len(frame) < NO_COPY_RECEIVE_BYTES else frame.buffer]
                if frame.more:
                    self._read_rest(frames)
                if peer not in peers:
                    self._meet(peer, frame, receiver)
                count += 1
                if receiver.message(peer, frames) or count >= limit:
                    return self._leave_early(receiver, count)
                if not zmq_poll(self._input, 0):
                    break
        except zmq.ContextTerminated as error:
            raise LinkClosed("the ZeroMQ context was terminated") from error
        except BaseException:
            self._skip_message()
            # A call may be gone: the peer is forgotten, and its next message answered as a stranger's.
            if peer in peers:
                self._losing[peer] = "interrupted while receiving"
                for descriptor, owner in self._accepted.items():
                    if owner == peer:
                        self._accepted[descriptor] = None
            raise
        return self._finish_harvest(receiver, count)

    def _meet(self, peer: bytes, frame: zmq.Frame, receiver: Receiver) -> None:
        """The first message of a peer: tie its routing id to its connection."""
        # All that the monitor was told before this message was sent: above all that its connection was
        # accepted.
        self._look(receiver)
        self._peers[peer] = PeerInfo(_text(frame, "Peer-Address"), _text(frame, "User-Id"))
        if self._monitor is not None:
            descriptor = frame.get(zmq.SRCFD)
            if descriptor in self._accepted:
                before = self._accepted[descriptor]
                if before is not None:
                    # The descriptor is in use again: the end of its former owner was not told of.
                    self._losing.pop(before, None)
                    self._forget(before)
                    receiver.lost(before, "its connection was replaced")
                self._accepted[descriptor] = peer
            else:
                # Accepted and gone again before it was heard.
                self._losing[peer] = "the connection was closed"
        receiver.connected(peer)

    def _look(self, receiver: Receiver) -> None:
        self._read_monitor()
        while self._told:
            event, descriptor = self._told[0]
            before = self._accepted.pop(descriptor, None)
            if before is not None:
                self._losing[before] = "the connection was closed"
            if event == _ACCEPTED:
                self._accepted[descriptor] = None
            self._told.popleft()

    def _forget(self, peer: bytes) -> None:
        self._peers.pop(peer, None)

    def peer_info(self, peer: bytes) -> PeerInfo:
        """What is known of a peer. Raises PeerLost if it is not known (any more)."""
        try:
            return self._peers[peer]
        except KeyError:
            raise PeerLost(f"there is no peer {peer.hex()} on {self.endpoint}") from None


def _text(frame: zmq.Frame, name: str) -> str:
    """A property of the connection that a frame came on; "" if it has none."""
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""


def _refuse_taken_path(endpoint: Endpoint) -> None:
    """ZeroMQ takes an ipc path away from a server that is alive: ask whether somebody answers there."""
    if endpoint.scheme == "ipc" and not endpoint.name.startswith("@") and endpoint.name != "*":
        with sockets.socket(sockets.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(endpoint.name)
            except OSError:
                return
        raise EndpointError(f"cannot bind {endpoint}: a server listens there")


# The context of all links that were not given one. Not zmq.Context.instance(): nobody terminates that, and
# when the process ends, messages on their way are lost, or their memory is freed under ZeroMQ's thread, which
# then aborts the process.
_shared: "zmq.Context[Any] | None" = None
_shared_lock = threading.Lock()


def _shared_context() -> "zmq.Context[Any]":
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = zmq.Context()
            # A link has three sockets with its monitor; the default of 1023 would be 341 links.
            _shared.set(zmq.MAX_SOCKETS, 16384)
        return _shared


def _name_collector() -> None:
    """Start pyzmq's thread that frees what was sent without a copy, and name it; pyzmq would start it by
    itself.
    """
    collector = garbage.gc
    collector.refs.pop(collector.store(None), None)
    if collector.thread is not None:
        collector.thread.name = "transport:sent-buffers"


def _at_exit() -> None:
    """Close what is open, and wait until what was handed over has left, for the longest linger time at
    most.
    """
    for link in list(links._links):
        if isinstance(link, _ZmqLink):
            # A thread that has been holding this lock for so long hangs in the middle of something.
            if not link.lock.acquire(timeout=1.0):
                return
            try:
                link.close()
            finally:
                link.lock.release()
    if _shared is not None:
        _shared.term()


def _after_fork_in_child() -> None:
    global _shared, _shared_lock
    _shared = None
    _shared_lock = threading.Lock()


# Runs before pyzmq forgets what is being sent without a copy, because `garbage` registered its own hook when
# it was imported.
atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork_in_child)
