"""Messages between processes: what they are, and how they get there.

    errors      who did what wrong
    endpoint    endpoint text <-> value
    frames      message values, one struct for each kind
    wire        sans-IO: values <-> lists of frames, out-of-band values, which message is allowed when
    link        what a link is: whole messages in, whole messages out
    zmq_link    over ZeroMQ: tcp, ipc, inproc
    loopback    inside one process, without ZeroMQ
    opening     `connect` and `bind`: which link serves which endpoint
    security    CURVE keys

This package imports nothing of `engine`. Arrows: zmq_link, loopback -> link; wire -> frames -> errors.
`PROTOCOL.md` describes the messages for those who write another implementation.
"""

from transport.endpoint import Endpoint
from transport.errors import (
    EndpointError,
    LinkClosed,
    LinkForked,
    LocalProtocolError,
    PayloadTooLarge,
    PeerLost,
    RemoteProtocolError,
    TransportError,
    VersionMismatch,
)
from transport.frames import (
    MAX_MESSAGE_BYTES,
    MAX_RECORDS,
    PIPE_WINDOW_BYTES,
    Blob,
    Buffer,
    Bye,
    CallOptions,
    CallRecord,
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
    ReplyOptions,
    ReplyRecord,
    Target,
    Welcome,
)
from transport.link import Keys, Link, LinkOptions, PeerInfo, Receiver
from transport.opening import bind, connect
from transport.security import Curve
from transport.wire import (
    COALESCE_BYTES,
    MAX_RECORD_BYTES,
    OOB_LIMIT,
    TRANSITIONS,
    ArgsDecoder,
    CallWriter,
    Conversation,
    ConversationState,
    ReplyWriter,
    Side,
    ValueDecoder,
    Way,
    decode,
    encode,
    encode_call,
    encode_reply,
    split_out_of_band,
)

__all__ = [
    "COALESCE_BYTES",
    "MAX_MESSAGE_BYTES",
    "MAX_RECORDS",
    "MAX_RECORD_BYTES",
    "OOB_LIMIT",
    "PIPE_WINDOW_BYTES",
    "TRANSITIONS",
    "ArgsDecoder",
    "Blob",
    "Buffer",
    "Bye",
    "CallOptions",
    "CallRecord",
    "CallWriter",
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
    "Keys",
    "Kind",
    "Limits",
    "Link",
    "LinkClosed",
    "LinkForked",
    "LinkOptions",
    "LocalProtocolError",
    "Message",
    "PayloadTooLarge",
    "PeerInfo",
    "PeerLost",
    "Pipe",
    "PipeChunk",
    "Receiver",
    "Reject",
    "RemoteProtocolError",
    "Replies",
    "ReplyOptions",
    "ReplyRecord",
    "ReplyWriter",
    "Side",
    "Target",
    "TransportError",
    "ValueDecoder",
    "VersionMismatch",
    "Way",
    "Welcome",
    "bind",
    "connect",
    "decode",
    "encode",
    "encode_call",
    "encode_reply",
    "split_out_of_band",
]
