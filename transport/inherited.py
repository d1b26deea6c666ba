"""Sockets that listen already: made by one process, and handed to others, which all accept on them.

Theory of operation. A supervisor makes the socket of an endpoint (`listen`) and gives it to each of its processes as
that starts; there it is put down (`hand_over`) before a server is made, and who binds that endpoint accepts on it. Each
connection goes to whichever process is first. The endpoint outlives each of them, and the supervisor, too.

Guarantees: no accept blocks, though another process was quicker: the socket is nonblocking, for all who have it.

Assumes: single keys of a dict are stored and loaded atomically.
"""

import os
import socket as sockets

from transport.endpoint import Endpoint
from transport.errors import EndpointError
from transport.lookup import addresses_of, is_named

BACKLOG = 1024

# The sockets that this process was given, by the text of their endpoint; they stay open as long as it lives.
_handed: dict[str, sockets.socket] = {}


def listen(endpoint: Endpoint) -> tuple[Endpoint, sockets.socket]:
    """Return a socket that listens at an endpoint of TCP's, and the endpoint with its port.

    Raises: `EndpointError` if it is taken, or cannot be had.
    """
    if endpoint.carrier != "tcp":
        raise EndpointError(f"{endpoint}: only what is reached over TCP can be listened on by several processes")
    try:
        where = addresses_of(endpoint)[0] if is_named(endpoint) else endpoint
        host = "0.0.0.0" if where.host == "*" else where.host.strip("[]")
        family = sockets.AF_INET6 if ":" in host else sockets.AF_INET
        listening = sockets.create_server(
            (host, endpoint.port), family=family, backlog=BACKLOG, dualstack_ipv6=host == "::"
        )
    except (OSError, ValueError) as error:
        raise EndpointError(f"cannot listen on {endpoint}: {getattr(error, 'strerror', None) or error}") from error
    listening.setblocking(False)
    return Endpoint(endpoint.scheme, host=endpoint.host, port=listening.getsockname()[1]), listening


def hand_over(endpoint: Endpoint, listening: sockets.socket) -> None:
    """Have who binds this endpoint in this process accept on that socket."""
    _handed[str(endpoint)] = listening


def descriptor_of(endpoint: Endpoint) -> int:
    """Return a descriptor of the socket that was handed over for an endpoint, for the caller to close; -1: none was."""
    listening = _handed.get(str(endpoint))
    return -1 if listening is None else os.dup(listening.fileno())
