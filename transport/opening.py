"""Opening links: which implementation serves which scheme.

The implementations are imported when they are needed: a program that only uses the loopback never loads
ZeroMQ.
"""

from typing import Any

from transport.endpoint import Endpoint
from transport.link import Link, LinkOptions


def connect(endpoint: str | Endpoint, **options: Any) -> Link:
    """Open the client's side.

    Args: endpoint: where the server is. options: the fields of `LinkOptions`.
    Returns: at once; the receiver is told when the connection is up, and of every attempt that failed.
    Raises: EndpointError.
    """
    endpoint = Endpoint.parse(endpoint)
    endpoint.require_connectable()
    if endpoint.scheme == "loopback":
        from transport import loopback

        return loopback.LoopbackClient(endpoint, LinkOptions(**options))
    from transport import zmq_link

    kind: type[zmq_link.ZmqClient] = zmq_link.ZmqClient
    if endpoint.scheme == "inproc":
        kind = zmq_link.InprocClient
    elif zmq_link.is_named(endpoint):
        kind = zmq_link.NamedClient
    return kind(endpoint, LinkOptions(**options))


def bind(endpoint: str | Endpoint, **options: Any) -> Link:
    """Open the server's side.

    Args: as `connect`.
    Raises: EndpointError: the text is wrong, or the endpoint is taken, or not to be had.
    """
    endpoint = Endpoint.parse(endpoint)
    if endpoint.scheme == "loopback":
        from transport import loopback

        return loopback.LoopbackServer(endpoint, LinkOptions(**options))
    from transport import zmq_link

    kind = zmq_link.InprocServer if endpoint.scheme == "inproc" else zmq_link.ZmqServer
    return kind(endpoint, LinkOptions(**options))
