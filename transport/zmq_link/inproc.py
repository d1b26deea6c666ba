"""Both sides over inproc, where ZeroMQ reports no connections, and makes none again.

Theory of operation. The two sides notify each other by a *sign*: a message of one empty frame, which no peer sends
otherwise.

    client connects, signs --ZeroMQ keeps it until a server binds--> server signs back: connected
    server unbinds, signs to all, closes --> client: lost; goes on with a new socket, which waits for the next server

Guarantees: those of `Link`, but for the end of a client, which its BYE must announce. A server takes clients that do
not sign.

Assumes: a server that closes unbinds first, in the same thread, so that a client that got the sign of the end connects
to the next server and not to this one. (One that is just connecting to a server that is just closing may get neither.)
"""

from collections.abc import Callable
from contextlib import suppress

import zmq

from transport.frames import Buffer
from transport.link import Receiver
from transport.zmq_link.base import NOBLOCK
from transport.zmq_link.client import ZmqClient
from transport.zmq_link.server import ZmqServer

_SIGN = b""


class InprocClient(ZmqClient):
    """The client's side: connected from the server's first sign to its second."""

    def _attach(self, socket: "zmq.Socket[bytes]") -> None:
        super()._attach(socket)
        # The socket can be used from the beginning; whether there is a server is another matter.
        self._up = True
        self._served = False
        socket.send(_SIGN, NOBLOCK)

    def send(self, peer: bytes, frames: list[Buffer]) -> bool:
        """Hand over one message; see `Link.send`."""
        return self._served and super().send(peer, frames)

    def writable(self) -> bool:
        """Whether the connection is up and the queue has room."""
        return self._served and super().writable()

    def harvest(self, receiver: Receiver, limit: int = 64) -> bool:
        """Deliver what has arrived; see `Link.harvest`."""
        socket = self._socket
        more = super().harvest(_Signed(receiver, self._signed), limit)
        # A socket that is new was never looked at.
        return more or (self._socket is not socket and self.ready())

    def _signed(self, receiver: Receiver) -> None:
        """The server has signed."""
        if self._served:
            self._losing[b""] = "the server closed the link"
        else:
            self._served = True
            receiver.on_connected(b"")


class _Signed:
    """Hands messages to a receiver, and signs to the link."""

    def __init__(self, receiver: Receiver, signed: Callable[[Receiver], None]) -> None:
        self._receiver = receiver
        self._signed = signed
        self.on_connected = receiver.on_connected
        self.on_lost = receiver.on_lost
        self.on_connect_failed = receiver.on_connect_failed

    def on_message(self, peer: bytes, frames: list[Buffer]) -> bool | None:
        if frames == [_SIGN]:
            self._signed(self._receiver)
            return False
        return self._receiver.on_message(peer, frames)


class InprocServer(ZmqServer):
    """The server's side: all clients of one endpoint."""

    def _attach(self, socket: "zmq.Socket[bytes]") -> None:
        # Clients that have signed, and know signs.
        self._signed: set[bytes] = set()
        super()._attach(socket)

    def _meet(self, peer: bytes, frame: zmq.Frame, receiver: Receiver) -> bool:
        """The first message of a peer, or the one after its sign."""
        if peer in self._signed or len(frame) or frame.more:
            return super()._meet(peer, frame, receiver)
        self._signed.add(peer)
        self._sign(peer)
        return False

    def _sign(self, peer: bytes) -> None:
        with suppress(zmq.ZMQError):  # It is gone.
            self._send_frames([peer, _SIGN])

    def _release(self) -> None:
        """Sign to the clients; they wait for another server of this name."""
        with suppress(zmq.ZMQError):  # Nothing is left to read, or the context was terminated.
            self._socket.unbind(self.endpoint)
            for peer in self._signed:
                self._sign(peer)
            while True:
                peer, *frames = self._socket.recv_multipart(NOBLOCK)
                if frames == [_SIGN]:  # It has come, and was not met.
                    self._sign(peer)
                    self._sign(peer)
        super()._release()
