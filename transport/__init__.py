"""Messages between processes: what they are, and how they get there.

    errors      who did what wrong
    log         how the library logs, the engine too: by handlers that can do no harm
    service     threads that are started when they are needed, and again
    realtime    clocks that no test freezes
    chance      numbers for pauses that are spread out
    foreign     how messages name objects that are not ours, here and in the engine
    endpoint    endpoint text <-> value
    frames      message values, one struct for each kind
    wire        sans-IO: values <-> lists of frames, out-of-band values, which message is allowed when
    link        what a link is: whole messages in, whole messages out
    importing   modules that are imported when they are needed, which no Ctrl-C halves
    lookup      hosts that are named, looked up on a thread of their own
    inherited   sockets that listen already, which other processes handed over
    unix        Unix sockets that servers listen on
    descriptors how many file descriptors are left
    zmq_link    over ZeroMQ: tcp, ipc, inproc
    native_link the same over plain sockets, without ZeroMQ's library: native+tcp, native+ipc, tls
    loopback    inside one process, without ZeroMQ
    security    CURVE keys
    overlapped  any ZeroMQ socket or file descriptor, its operations completing as packets on a port

Public names are those of links, endpoints, keys, overlapped sources and their errors. The engine, and peers that tests
play, import messages from `transport.frames` and their encoding from the files of `transport.wire`.

This package imports nothing of `engine`. Arrows: zmq_link, native_link, loopback -> link; wire -> frames -> errors.
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
from transport.importing import load as _load
from transport.link import Keys, Link, LinkOptions, PeerInfo, Receiver, TransportOptions
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
    "SKIP_PORT_ON_SUCCESS", "SKIP_SET_EVENT_ON_HANDLE", "Buffer", "Curve", "Endpoint", "EndpointError",
    "InvalidOperation", "Keys", "Link", "LinkClosed", "LinkForked", "LinkOptions", "OperationFailed",
    "OperationNotFound", "OperationPending", "OverlappedDescriptor", "OverlappedError", "OverlappedOperation",
    "OverlappedSocket", "OverlappedSource", "PayloadTooLarge", "PeerInfo", "PeerLost", "ReadOperation",
    "ReceiveOperation", "Receiver", "SendOperation", "SourceClosed", "SourceForked", "SourceStatistics",
    "TooManyOperations", "TransportError", "TransportOptions", "WriteOperation", "bind", "connect",
]  # fmt: skip


def connect(
    endpoint: str | Endpoint, *, connect_timeout: float = 5.0, **options: typing.Unpack[TransportOptions]
) -> Link:
    """Open the client's side.

    Args: endpoint: where the server is. connect_timeout, options: the fields of `LinkOptions`.
    Returns: at once; the receiver is notified when the connection is up, and of every attempt that failed.
    Raises: EndpointError.
    """
    endpoint = Endpoint.parse(endpoint)
    endpoint.require_connectable()
    return _open(endpoint, LinkOptions(connect_timeout=connect_timeout, **options), bound=False)


def bind(endpoint: str | Endpoint, **options: typing.Unpack[TransportOptions]) -> Link:
    """Open the server's side.

    Args: as `connect`.
    Raises: EndpointError: the text is wrong, or the endpoint is taken, or not to be had.
    """
    return _open(Endpoint.parse(endpoint), LinkOptions(**options), bound=True)


def _open(endpoint: Endpoint, options: LinkOptions, bound: bool) -> Link:
    """Open one side. Imports what serves the endpoint: a program that uses the loopback only loads no ZeroMQ."""
    if endpoint.scheme == "loopback":
        from transport import loopback

        return (loopback.LoopbackServer if bound else loopback.LoopbackClient)(endpoint, options)
    if options.tls is not None and endpoint.carrier == "tcp" and endpoint.scheme != "tls":
        raise EndpointError(f"{endpoint}: tls= is for tls://, and over tcp all else would be sent in clear text")
    if endpoint.native:
        from transport import native_link

        return (native_link.NativeServer if bound else native_link.NativeClient)(endpoint, options)
    try:
        _load("transport.zmq_link")
        from transport import lookup, zmq_link
    except (OSError, ImportError) as error:  # No descriptor is left to read the modules with, for one.
        raise EndpointError(f"{endpoint} cannot be used: ZeroMQ cannot be loaded: {error}") from error
    if endpoint.scheme == "inproc":
        return (zmq_link.InprocServer if bound else zmq_link.InprocClient)(endpoint, options)
    if bound:
        return zmq_link.ZmqServer(endpoint, options)
    return (zmq_link.NamedClient if lookup.is_named(endpoint) else zmq_link.ZmqClient)(endpoint, options)


def __getattr__(name: str) -> typing.Any:
    """Import `transport.overlapped` when a name of it is first used: the engine does not need it to start."""
    if name in __all__:
        value = globals()[name] = getattr(_load("transport.overlapped"), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
