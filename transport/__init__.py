"""Messages between processes: what they are, and how they get there.

    errors      who did what wrong
    log         how the library logs, the engine too: by handlers that can do no harm
    service     threads that are started when they are needed, and again
    realtime    clocks that no test freezes
    foreign     how messages name objects that are not ours, here and in the engine
    endpoint    endpoint text <-> value
    frames      message values, one struct for each kind
    wire        sans-IO: values <-> lists of frames, out-of-band values, which message is allowed when
    link        what a link is: whole messages in, whole messages out
    zmq_link    over ZeroMQ: tcp, ipc, inproc
    loopback    inside one process, without ZeroMQ
    opening     `connect` and `bind`: which link serves which endpoint
    security    CURVE keys
    overlapped  any ZeroMQ socket or file descriptor, its operations completing as packets on a port

Public names are those of links, endpoints, keys, overlapped sources and their errors. The engine, and peers that tests
play, import messages from `transport.frames` and their encoding from the files of `transport.wire`.

This package imports nothing of `engine`. Arrows: zmq_link, loopback -> link; wire -> frames -> errors.
`PROTOCOL.md` describes the messages for those who write another implementation.
"""

import typing

from transport.endpoint import Endpoint
from transport.errors import (
    EndpointError,
    InvalidOperation,
    LinkClosed,
    LinkForked,
    OperationFailed,
    OperationNotFound,
    OperationPending,
    OverlappedError,
    PayloadTooLarge,
    PeerLost,
    SourceClosed,
    SourceForked,
    TooManyOperations,
    TransportError,
)
from transport.frames import Buffer
from transport.link import Keys, Link, LinkOptions, PeerInfo, Receiver
from transport.opening import bind, connect
from transport.security import Curve

if typing.TYPE_CHECKING:
    from transport.overlapped import (
        SKIP_PORT_ON_SUCCESS,
        SKIP_SET_EVENT_ON_HANDLE,
        OverlappedDescriptor,
        OverlappedOperation,
        OverlappedSocket,
        OverlappedSource,
        ReadOperation,
        ReceiveOperation,
        SendOperation,
        SourceStatistics,
        WriteOperation,
    )

__all__ = [
    "SKIP_PORT_ON_SUCCESS",
    "SKIP_SET_EVENT_ON_HANDLE",
    "Buffer",
    "Curve",
    "Endpoint",
    "EndpointError",
    "InvalidOperation",
    "Keys",
    "Link",
    "LinkClosed",
    "LinkForked",
    "LinkOptions",
    "OverlappedOperation",
    "OperationFailed",
    "OperationNotFound",
    "OperationPending",
    "OverlappedDescriptor",
    "OverlappedError",
    "OverlappedSocket",
    "OverlappedSource",
    "PayloadTooLarge",
    "PeerInfo",
    "PeerLost",
    "ReadOperation",
    "ReceiveOperation",
    "Receiver",
    "SendOperation",
    "SourceClosed",
    "SourceForked",
    "SourceStatistics",
    "TooManyOperations",
    "TransportError",
    "WriteOperation",
    "bind",
    "connect",
]


def __getattr__(name: str) -> typing.Any:
    """Import `transport.overlapped` when a name of it is first used: the engine does not need it to start."""
    if name in __all__:
        from transport import overlapped

        value = globals()[name] = getattr(overlapped, name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
