"""Who is connected to a server: what it shows of its clients."""

import msgspec

from transport.realtime import monotonic, time

from .answers import unread_bytes
from .backlog import waiting_bytes
from .open_call import Peer


class ServerPeer(msgspec.Struct, frozen=True):
    """A connected client: a snapshot. Give it to `Server.disconnect`.

    Fields:
        endpoint: of the server, which the client is connected to.
        address: where it comes from, as far as the transport knows; "" if it does not.
        principal: who it proved to be; "" for an anonymous one.
        process, host: what it says of itself; not verified.
        since: when it was first heard, in seconds since the epoch.
        calls: of it that are open.
        bytes_in, bytes_out: of messages that came from it, and that were handed over to the transport for it.
        waiting_bytes: of its calls that wait for a worker.
        unread_bytes: of answers that wait because it does not read, about.
        id: names the connection at its endpoint.
    """

    endpoint: str
    address: str
    principal: str
    process: int
    host: str
    since: float
    calls: int
    bytes_in: int
    bytes_out: int
    waiting_bytes: int
    unread_bytes: int
    id: bytes


def shown_peer(endpoint: str, peer: Peer) -> ServerPeer:
    """Return what is shown of a client. Any thread."""
    return ServerPeer(
        endpoint, peer.address, peer.user, peer.process, peer.host, time() - (monotonic() - peer.since),
        len(peer.calls), peer.bytes_in, peer.bytes_out, waiting_bytes(peer), unread_bytes(peer), peer.id,
    )  # fmt: skip
