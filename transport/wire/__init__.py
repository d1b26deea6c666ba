"""Sans-IO protocol: lists of frames <-> typed messages. It knows no socket, thread or clock.

codec           calls and replies that share a message; `encode`, `decode`
blobs           large values out of band; typed decoding of arguments and results
conversation    which message may be sent or taken when: a table for each side
"""

from transport.wire.blobs import (
    OOB_LIMIT,
    ArgsDecoder,
    ValueDecoder,
    array_misfit,
    array_type,
    array_unfit,
    bare_type,
    empty_array,
    is_array_type,
    plain_scalar,
    split_out_of_band,
    unaliased,
)
from transport.wire.codec import (
    MAX_RECORD_BYTES,
    SETTLED_BYTES,
    EncodedCall,
    EncodedReply,
    PendingCall,
    PendingReply,
    decode,
    encode,
    encode_call,
    encode_calls,
    encode_parts,
    encode_replies,
    encode_reply,
    encode_value,
    settled,
    split_args,
)
from transport.wire.conversation import TRANSITIONS, Conversation, ConversationState, Side, Way

__all__ = [
    "MAX_RECORD_BYTES",
    "OOB_LIMIT",
    "TRANSITIONS",
    "ArgsDecoder",
    "Conversation",
    "ConversationState",
    "EncodedCall",
    "EncodedReply",
    "PendingCall",
    "PendingReply",
    "SETTLED_BYTES",
    "Side",
    "ValueDecoder",
    "Way",
    "array_misfit",
    "array_type",
    "array_unfit",
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
    "is_array_type",
    "plain_scalar",
    "settled",
    "split_args",
    "split_out_of_band",
    "unaliased",
]
