"""The native link: ZMTP over plain sockets, without libzmq; any ZeroMQ peer understands it.

    framing     sans-IO: bytes <-> messages, the handshake, PING and PONG, and what a peer may send
    poll_set    the sockets of a link, polled through one descriptor
    connection  one socket that never blocks, and what waits to be written to it
    lingering   what closed links have still to send
    base        what was read and is to be delivered, and when to look again
    client      one connection, made again whenever it breaks: a DEALER to its server
    server      all clients of an endpoint: a ROUTER to them

Theory of operation. There is no thread, but for what a closed link has left: a thread that waits in the program reads
and writes the sockets itself. Descriptors show a *level*: what a harvest leaves in a socket they show again. So what
was read is all that has to be remembered.

    poll -> harvest: read -> queue -> deliver          send -> socket, or what waits for it to be writable

PINGs are sent, and answered, by that thread too: a process that does nothing of it for three heartbeats is lost to its
peers, as one that holds the interpreter's lock for so long.

Guarantees: `on_connected`, messages, `on_lost`, in this order, once for each peer; what an interrupt tears ends the
connection. What a peer can make this side keep is bounded (`framing.py`, `server.py`).

Assumes: all fields of a link and its connections are guarded by the link's lock.
"""

from transport.native_link.client import NativeClient
from transport.native_link.server import NativeServer

__all__ = ["NativeClient", "NativeServer"]
