"""Opening links: which implementation serves which scheme.

The implementations are imported when they are needed: a program that only uses the loopback never loads
ZeroMQ.
"""

from typing import Any

from transport.endpoint import Endpoint
from transport.errors import EndpointError
from transport.link import Link, LinkOptions


def _load_zmq_link(endpoint: Endpoint) -> Any:
    try:
        from transport import zmq_link
    except (OSError, ImportError) as error:  # No descriptor is left to read the modules with, for one.
        raise EndpointError(f"{endpoint} cannot be used: ZeroMQ cannot be loaded: {error}") from error
    return zmq_link


def connect(endpoint: str | Endpoint, **options: Any) -> Link:
    """Open the client's side.

    Args: endpoint: where the server is. options: the fields of `LinkOptions`.
    Returns: at once; the receiver is notified when the connection is up, and of every attempt that failed.
    Raises: EndpointError.
    """
    endpoint = Endpoint.parse(endpoint)
    endpoint.require_connectable()
    if endpoint.scheme == "loopback":
        from transport import loopback

        return loopback.LoopbackClient(endpoint, LinkOptions(**options))
    zmq_link = _load_zmq_link(endpoint)
    kind = zmq_link.ZmqClient
    if endpoint.scheme == "inproc":
        kind = zmq_link.InprocClient
    elif zmq_link.is_named(endpoint):
        kind = zmq_link.NamedClient
    link: Link = kind(endpoint, LinkOptions(**options))
    return link


def bind(endpoint: str | Endpoint, **options: Any) -> Link:
    """Open the server's side.

    Args: as `connect`.
    Raises: EndpointError: the text is wrong, or the endpoint is taken, or not to be had.
    """
    endpoint = Endpoint.parse(endpoint)
    if endpoint.scheme == "loopback":
        from transport import loopback

        return loopback.LoopbackServer(endpoint, LinkOptions(**options))
    zmq_link = _load_zmq_link(endpoint)
    kind = zmq_link.InprocServer if endpoint.scheme == "inproc" else zmq_link.ZmqServer
    link: Link = kind(endpoint, LinkOptions(**options))
    return link
