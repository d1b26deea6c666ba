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
the monitor reports its end, so the receiver gets `on_lost` when the socket has been seen empty after that.

Guarantees: `on_connected`, messages, `on_lost`, in this order and once for each peer. A client hands nothing to a new
connection before its receiver got `on_lost` and `on_connected`: it looks at the monitor before a send, unless it did so
recently that a new connection cannot be up (ZeroMQ waits RECONNECT_MS first). An exception from outside (Ctrl-C) in the
middle of a message never makes the rest of it look like another message: its connection counts as lost.

A host's name is looked up here, not by ZeroMQ, and all its addresses are used: `named.py`. Why a server's Unix socket
is made here, and what happens when few descriptors are left: `unix.py` and `descriptors.py` of `transport`.

Assumes: nothing else uses the sockets. inproc has no monitor events: see `inproc.py`.
"""

from transport.zmq_link.client import ZmqClient
from transport.zmq_link.inproc import InprocClient, InprocServer
from transport.zmq_link.named import NamedClient
from transport.zmq_link.server import ZmqServer

__all__ = ["InprocClient", "InprocServer", "NamedClient", "ZmqClient", "ZmqServer"]
