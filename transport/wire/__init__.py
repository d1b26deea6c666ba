"""Sans-IO protocol: lists of frames <-> typed messages. It knows no socket, thread or clock.

codec           writers that collect calls or replies into one message; `encode`, `decode`
blobs           large values out of band; typed decoding of arguments and results
conversation    which message may be sent or taken when: a table for each side
"""

from transport.wire.blobs import OOB_LIMIT, ArgsDecoder, ValueDecoder, bare_type, empty_array, split_out_of_band
from transport.wire.codec import (
    COALESCE_BYTES,
    MAX_RECORD_BYTES,
    SETTLED_BYTES,
    CallWriter,
    EncodedCall,
    EncodedReply,
    PendingCall,
    PendingReply,
    ReplyWriter,
    decode,
    encode,
    encode_call,
    encode_calls,
    encode_parts,
    encode_replies,
    encode_reply,
    encode_value,
    settled,
)
from transport.wire.conversation import TRANSITIONS, Conversation, ConversationState, Side, Way

__all__ = [
    "COALESCE_BYTES",
    "MAX_RECORD_BYTES",
    "OOB_LIMIT",
    "TRANSITIONS",
    "ArgsDecoder",
    "CallWriter",
    "Conversation",
    "ConversationState",
    "EncodedCall",
    "EncodedReply",
    "PendingCall",
    "PendingReply",
    "SETTLED_BYTES",
    "ReplyWriter",
    "Side",
    "ValueDecoder",
    "Way",
    "bare_type",
    "decode",
    "empty_array",
    "encode",
    "encode_call",
    "encode_calls",
    "encode_parts",
    "encode_replies",
    "encode_reply",
    "encode_value",
    "settled",
    "split_out_of_band",
]
