"""The client's side."""

import errno
import os
import selectors
import socket as sockets
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import zmq
from zmq.backend import zmq_poll

from transport.chance import about
from transport.endpoint import MAX_IPC_PATH, Endpoint
from transport.errors import EndpointError, LinkClosed
from transport.frames import Buffer
from transport.link import LinkOptions, Receiver
from transport.realtime import monotonic
from transport.service import Pause
from transport.zmq_link.base import NO_COPY_RECEIVE_BYTES, NO_COPY_SEND_BYTES, NOBLOCK, ZmqLink, gone, is_gone

#: Milliseconds before ZeroMQ tries to connect again; doubles up to the maximum.
RECONNECT_MS: Final = 60
RECONNECT_MAX_MS: Final = 1000
#: Each connection has times of its own, more or less by this part: what ZeroMQ adds by chance, one RECONNECT_MS at the
#: most, would have all clients of a server that was away for long come within that when it is back.
JITTER: Final = 0.25
# A look at the monitor serves for this many seconds. Less than RECONNECT_MS ever is: see Guarantees.
LOOK_SERVES: Final = 0.040

_CLOSED: Final = int(zmq.Event.CLOSED)
_RETRIED: Final = int(zmq.Event.CONNECT_RETRIED)
_UP: Final = int(zmq.Event.HANDSHAKE_SUCCEEDED)
_DISCONNECTED: Final = int(zmq.Event.DISCONNECTED)
_BROKEN_OFF: Final = int(zmq.Event.HANDSHAKE_FAILED_NO_DETAIL)
_FAILURES: Final[dict[int, str]] = {
    _BROKEN_OFF: "the peer broke off: it is no ZeroMQ server, or only one side has keys (`curve=`)",
    int(zmq.Event.HANDSHAKE_FAILED_PROTOCOL): "the peer does not speak ZMTP, or only one side has keys (`curve=`)",
    int(zmq.Event.HANDSHAKE_FAILED_AUTH): "the server does not allow this client's key: see its `Curve(allowed=)`",
}
# A server that cannot read what a client has encrypted for another one says nothing, and breaks off.
_WRONG_KEY: Final = "the server broke off: its public key is another than this client's `Curve(server_key=)`, mostly"
_CLIENT_EVENTS: Final = _UP | _DISCONNECTED | _CLOSED | _RETRIED | sum(_FAILURES)


class NestedPollSet:
    """Descriptors that change, polled through one that does not, while a link replaces its sockets.

    Poll sets nest: an epoll or kqueue object has a descriptor of its own, which is readable while one in it is. Where
    the platform has neither (Windows), the descriptors stand for themselves, and `changed` is called at each change.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._selector = selectors.DefaultSelector()
        self._nests = hasattr(self._selector, "fileno")
        self._changed = changed

    def replace(self, descriptors: Iterable[int]) -> None:
        """Have these in the set. Take them out, by giving none, before they are closed."""
        selector = self._selector
        for key in list(selector.get_map().values()):
            selector.unregister(key.fd)
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        if not self._nests:
            self._changed()

    def descriptors(self) -> list[int]:
        """What to poll for readability."""
        if self._nests:
            return [self._selector.fileno()]
        return [key.fd for key in self._selector.get_map().values()]

    def close(self) -> None:
        """Be done; the descriptors themselves are not closed."""
        self._selector.close()


class ZmqClient(ZmqLink):
    """The client's side: one connection, which is made again whenever it breaks.

    A connection that was made again begins with what was handed to the former one and never sent. So the
    socket is replaced by a new one once the loss was reported. (ZMQ_IMMEDIATE would drop those messages, but also
    those that had arrived and were not read yet: replies that came just before their server ended.)
    """

    _kind = zmq.DEALER
    _events = _CLIENT_EVENTS
    _verb = "connect to"

    def __init__(self, endpoint: Endpoint, options: LinkOptions) -> None:
        if endpoint.scheme == "ipc" and not endpoint.name.startswith("@"):
            # The working directory may change before it is connected to anew.
            path = os.path.abspath(endpoint.name)
            if len(os.fsencode(path)) <= MAX_IPC_PATH:
                endpoint = Endpoint("ipc", path)
        # What is polled stays the same when the socket is replaced, if possible.
        try:
            self._poll = NestedPollSet(self._descriptors_changed)
        except OSError as error:
            raise EndpointError(f"cannot connect to {endpoint}: {error}") from error
        # When to try again with another socket, and why there is none, until that was reported.
        self._pause = Pause()
        self._lack = ""
        try:
            super().__init__(endpoint, options)
        except BaseException:
            self._poll.close()
            raise

    def _attach(self, socket: "zmq.Socket[bytes]") -> None:
        # Nothing can be sent before the receiver got `on_connected`.
        self._up = False
        # The next CONNECT_RETRIED is the first attempt after a connection, not one that failed.
        self._first_attempt = False
        # What is known of the attempt under way: how the handshake failed, and whether there was a host to reach.
        self._failure = ""
        self._reached = False
        # Whether ZeroMQ tries again after this attempt. It does not after what it takes for an answer that no other
        # attempt would change: but the server's list of keys may, and so may the server.
        self._goes_on = False
        # Calls wait here, once the server has this many unread. Replies have no bound: there are no more than
        # calls, and those the runtime counts.
        socket.set(zmq.SNDHWM, self._options.max_queued)
        socket.set(zmq.RCVHWM, 0)
        socket.set(zmq.RECONNECT_IVL, round(about(RECONNECT_MS, JITTER)))
        socket.set(zmq.RECONNECT_IVL_MAX, round(about(RECONNECT_MAX_MS, JITTER)))
        socket.set(zmq.CONNECT_TIMEOUT, int(self._options.connect_timeout * 1000))
        if self._options.curve is not None:
            self._options.curve.apply_to_client(socket)
        self._connect(socket)
        self._poll.replace(self._inner_descriptors())

    def _connect(self, socket: "zmq.Socket[bytes]") -> None:
        """Have ZeroMQ connect."""
        self._at = self._target
        socket.connect(os.fsencode(str(self._target)))  # type: ignore[arg-type]  # a path may be no text

    def _replace(self) -> None:
        """Go on with a new socket, now or when there can be one. What waits in the old one is dropped."""
        self._poll.replace(())
        self._close_sockets(linger=0)
        try:
            self._open()
        except EndpointError as error:
            self._go_without(str(error))

    def _try_later(self) -> None:
        """Have another socket try, after a pause."""
        self._poll.replace(())
        self._close_sockets(linger=0)
        self._go_without("")

    def _go_without(self, lack: str) -> None:
        """There is no socket: nothing is sent and nothing arrives, until a harvest has one again."""
        self._up = False
        self._monitored = deque()
        self._lack = lack
        # On the instance, so that it costs nothing while there is one.
        self.ready = lambda: True  # type: ignore[method-assign]  # as said
        self.harvest = self._harvest_nothing  # type: ignore[method-assign]  # likewise
        if self.later is not None:
            self.later(self._pause.refused())

    def _harvest_nothing(self, receiver: Receiver, limit: int = 64) -> bool:
        """Report the loss, and try again to have a socket."""
        for peer, reason in self._losing.items():
            receiver.on_lost(peer, reason)
        self._losing.clear()
        if self._lack:
            receiver.on_connect_failed(self._lack)
            self._lack = ""
        if not self._pause.left():
            try:
                self._open()
            except EndpointError as error:
                self._go_without(str(error))
                receiver.on_connect_failed(str(error))
            else:
                del self.ready, self.harvest
                return self.ready()
        return False

    def _release(self) -> None:
        super()._release()
        self._poll.close()

    def descriptors(self) -> list[int]:
        """One, which stands for the socket's and the monitor's; or those, where that cannot be."""
        return self._poll.descriptors()

    def ready(self) -> bool:
        """Whether a message waits, or something else is to be reported."""
        self._unsure = False
        try:
            return bool(self._monitored or self._losing) or bool(zmq_poll(self._input, 0))
        except zmq.ZMQError as error:
            raise gone(error) from error

    def writable(self) -> bool:
        """Whether the connection is up and the queue has room."""
        return self._up and not self._losing and super().writable()

    def send(self, peer: bytes, frames: list[Buffer]) -> bool:
        """Hand over one message; see `Link.send`."""
        if not self._up or self._losing:
            return False
        if monotonic() - self._looked > LOOK_SERVES and self._monitor is not None:
            if zmq_poll(self._monitor_poll, 0):
                return False  # The connection may be another one by now: a harvest will find out.
            self._looked = monotonic()
        try:
            if len(frames) == 1 and len(frames[0]) < NO_COPY_SEND_BYTES:
                self._send(frames[0], NOBLOCK)
            else:
                self._send_frames(frames)
            # `ready` in line: one call less for each message.
            self._unsure = False
            self.arrived: bool = bool(self._monitored or self._losing) or bool(zmq_poll(self._input, 0))
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            raise gone(error) from error
        return True

    def harvest(self, receiver: Receiver, limit: int = 64) -> bool:
        """Deliver what has arrived; see `Link.harvest`."""
        recv = self._recv
        count = 0
        try:
            while not self._unsure or self.ready():
                try:
                    frame = recv(NOBLOCK, False)
                except zmq.Again:
                    break
                frames: list[Buffer] = [frame.bytes if len(frame) < NO_COPY_RECEIVE_BYTES else frame.buffer]
                if frame.more:
                    self._read_rest(frames)
                count += 1
                # While there is no connection, a message answers something that was meant for the former one.
                if (self._up and receiver.on_message(b"", frames)) or count >= limit:
                    self._unsure = True
                    return not self._losing or self._leave_early(receiver, count)
                if not zmq_poll(self._input, 0):
                    break
            return self._finish_harvest(receiver, count)
        except LinkClosed:  # The process ends: there is no other socket to be had.
            raise
        except BaseException as error:
            if isinstance(error, zmq.ZMQError) and is_gone(error):
                raise gone(error) from error
            # A message may be gone, and with it the answer to a call: have this connection count as lost.
            up = self._up
            self._replace()
            if up:
                self._losing[b""] = "interrupted while receiving"
            raise

    def leave(self) -> None:
        """Close the connection, and go on with a new one; see `Link.leave`."""
        if self._up:
            self._losing[b""] = "left"

    def _look(self, receiver: Receiver) -> None:
        self._read_monitor()
        while self._monitored and not self._losing:
            # What follows a loss waits until the loss was reported, and that waits until all messages were read.
            event, _ = self._monitored.popleft()
            if event == _UP:
                self._up = True
                self._failure = ""
                self._pause.granted()
                receiver.on_connected(b"")
            elif event == _DISCONNECTED:
                self._first_attempt = True
                if self._up:
                    self._losing[b""] = "the connection was closed"
                else:
                    goes_on, self._goes_on = self._goes_on, False
                    self._attempt_failed(receiver, self._failure or "the peer closed it at once", goes_on)
            elif event == _CLOSED:
                self._reached = True
            elif event == _RETRIED:
                if not self._first_attempt:
                    why = why_refused(self._at) if self._reached else "its host cannot be found or reached"
                    self._attempt_failed(receiver, why, True)
                self._first_attempt = self._reached = False
            else:
                self._goes_on = broke_off = event == zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
                why = _WRONG_KEY if broke_off and self._options.curve is not None else _FAILURES[event]
                self._failure = f"the handshake failed: {why}"

    def _attempt_failed(self, receiver: Receiver, why: str, goes_on: bool) -> None:
        """An attempt to connect has failed. ZeroMQ goes on, or has given up."""
        receiver.on_connect_failed(f"cannot connect to {self.endpoint}: {why}")
        if not goes_on:
            self._try_later()

    def _forget(self, peer: bytes) -> None:
        # At once, and not when ZeroMQ has made the next connection: after a message that was too large it never does.
        self._replace()


def why_refused(endpoint: Endpoint) -> str:
    """Why an attempt to connect to this address failed, as far as this side can find out. Sends nothing."""
    if endpoint.scheme == "tcp":
        host = endpoint.host.strip("[]")
        family = sockets.AF_INET6 if ":" in host else sockets.AF_INET
        try:
            with sockets.socket(family, sockets.SOCK_DGRAM) as probe:
                probe.connect((host, endpoint.port))
        except OSError as error:
            return f"it cannot be reached: {error.strerror or error}"
        if not host.startswith("127.") and host != "::1":
            return "nobody listens there, or its host does not answer"
    elif endpoint.scheme == "ipc" and not endpoint.name.startswith("@"):
        try:
            os.stat(endpoint.name)
            if not os.access(endpoint.name, os.W_OK):
                return "this process has no permission to connect to it"
        except OSError as error:
            if error.errno == errno.EACCES:
                return "this process has no permission to enter its folder"
    return "nobody listens there"
