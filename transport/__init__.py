"""Messages between processes: what they are, and how they get there.

    errors      who did what wrong
    log         how the library logs, the engine too: by handlers that can do no harm
    service     threads that are started when they are needed, and again
    realtime    clocks that nobody can freeze
    foreign     how objects that are not ours are told of; the engine tells of them so, too
    endpoint    endpoint text <-> value
    frames      message values, one struct for each kind
    wire        sans-IO: values <-> lists of frames, out-of-band values, which message is allowed when
    link        what a link is: whole messages in, whole messages out
    zmq_link    over ZeroMQ: tcp, ipc, inproc
    loopback    inside one process, without ZeroMQ
    opening     `connect` and `bind`: which link serves which endpoint
    security    CURVE keys
    overlapped  any ZeroMQ socket or file descriptor, its operations completing as packets on a port

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
    LocalProtocolError,
    OperationFailed,
    OperationNotFound,
    OperationPending,
    OverlappedError,
    PayloadTooLarge,
    PeerLost,
    RemoteProtocolError,
    SourceClosed,
    SourceForked,
    TooManyOperations,
    TransportError,
    VersionMismatch,
)
from transport.frames import (
    LIBRARY,
    MAX_MESSAGE_BYTES,
    MAX_RECORDS,
    PIPE_WINDOW_BYTES,
    Blob,
    Buffer,
    Bye,
    CallGroup,
    CallOptions,
    Calls,
    Cancel,
    Credit,
    Fault,
    Hello,
    Kind,
    Limits,
    Message,
    Pipe,
    PipeChunk,
    Reject,
    Replies,
    ReplyGroup,
    ReplyOptions,
    Target,
    Welcome,
)
from transport.link import Keys, Link, LinkOptions, PeerInfo, Receiver
from transport.opening import bind, connect
from transport.security import Curve
from transport.wire import (
    MAX_RECORD_BYTES,
    OOB_LIMIT,
    SETTLED_BYTES,
    TRANSITIONS,
    ArgsDecoder,
    Conversation,
    ConversationState,
    EncodedCall,
    EncodedReply,
    PendingCall,
    PendingReply,
    Side,
    ValueDecoder,
    Way,
    array_misfit,
    array_type,
    array_unfit,
    bare_type,
    decode,
    empty_array,
    encode,
    encode_call,
    encode_calls,
    encode_parts,
    encode_replies,
    encode_reply,
    encode_value,
    is_array_type,
    plain_scalar,
    settled,
    split_args,
    split_out_of_band,
    unaliased,
)

if typing.TYPE_CHECKING:
    from transport.overlapped import (
        SKIP_PORT_ON_SUCCESS,
        SKIP_SET_EVENT_ON_HANDLE,
        Operation,
        OverlappedDescriptor,
        OverlappedSocket,
        OverlappedSource,
        ReadOperation,
        ReceiveOperation,
        SendOperation,
        SourceStatistics,
        WriteOperation,
    )

__all__ = [
    "LIBRARY",
    "MAX_MESSAGE_BYTES",
    "MAX_RECORDS",
    "MAX_RECORD_BYTES",
    "OOB_LIMIT",
    "PIPE_WINDOW_BYTES",
    "SETTLED_BYTES",
    "SKIP_PORT_ON_SUCCESS",
    "SKIP_SET_EVENT_ON_HANDLE",
    "TRANSITIONS",
    "ArgsDecoder",
    "Blob",
    "Buffer",
    "Bye",
    "CallGroup",
    "CallOptions",
    "Calls",
    "Cancel",
    "Conversation",
    "ConversationState",
    "Credit",
    "Curve",
    "Endpoint",
    "EndpointError",
    "Fault",
    "Hello",
    "InvalidOperation",
    "Keys",
    "Kind",
    "Limits",
    "Link",
    "LinkClosed",
    "LinkForked",
    "LinkOptions",
    "LocalProtocolError",
    "Message",
    "Operation",
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
    "EncodedCall",
    "EncodedReply",
    "PendingCall",
    "PendingReply",
    "Pipe",
    "PipeChunk",
    "ReadOperation",
    "ReceiveOperation",
    "Receiver",
    "Reject",
    "RemoteProtocolError",
    "Replies",
    "ReplyGroup",
    "ReplyOptions",
    "SendOperation",
    "Side",
    "SourceClosed",
    "SourceForked",
    "SourceStatistics",
    "Target",
    "TooManyOperations",
    "TransportError",
    "ValueDecoder",
    "VersionMismatch",
    "Way",
    "Welcome",
    "WriteOperation",
    "array_misfit",
    "array_type",
    "array_unfit",
    "bare_type",
    "bind",
    "connect",
    "decode",
    "empty_array",
    "encode",
    "encode_call",
    "encode_calls",
    "encode_parts",
    "encode_replies",
    "encode_reply",
    "encode_value",
    "is_array_type",
    "plain_scalar",
    "settled",
    "split_args",
    "split_out_of_band",
    "unaliased",
]


def __getattr__(name: str) -> typing.Any:
    """Import `transport.overlapped` when a name of it is first used: the engine does not need it to start."""
    if name in __all__:
        from transport import overlapped

        value = globals()[name] = getattr(overlapped, name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
