"""Messages to frames and back.

Calls (and replies) that share a message are encoded together, in one step of C code: in groups of calls that have
their operation in common, and of replies that have their status in common. `decode` reads any message; it takes
whatever a peer may send, and raises nothing but RemoteProtocolError.

    43 50 01 04  92  groups  targets        (CALLS)
    43 50 01 05  91  groups                 (REPLIES)
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from transport.errors import PayloadTooLarge, RemoteProtocolError, VersionMismatch
from transport.frames import (
    KIND_OF,
    MAGIC,
    MAX_BLOBS,
    MAX_MESSAGE_BYTES,
    MAX_RECORDS,
    PREFIX_BYTES,
    VERSION,
    Buffer,
    CallGroup,
    CallOptions,
    Calls,
    Kind,
    Message,
    Replies,
    ReplyOptions,
    Target,
    Welcome,
)
from transport.wire.blobs import array_length, is_array_type, plain_scalar, split_out_of_band
from transport.wire.large import LARGE_BYTES, read_large
from transport.wire.own_types import ways_of

#: The largest call or reply that is encoded: with what is around it, it stays under what a message may have.
MAX_RECORD_BYTES: Final = MAX_MESSAGE_BYTES - 1024 * 1024


def _plain(value: object) -> object:
    """What the encoder, which does not know `value`, is to encode instead."""
    plain = plain_scalar(value)
    if plain is not value:
        return plain
    kind = type(value)
    if (ways := ways_of(kind)) is not None:
        return ways[0](value)
    if is_array_type(kind):
        raise TypeError("an array inside another value cannot travel: only an argument or a result may be one")
    raise TypeError(f"Encoding objects of type {kind.__qualname__} is unsupported")


_encode: Final = msgspec.msgpack.Encoder(enc_hook=_plain).encode
_split: Final = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode

# Plain integers: comparing with a member of an IntEnum costs three times as much.
_CALLS: Final = Kind.CALLS.value
_REPLIES: Final = Kind.REPLIES.value
_PIPE: Final = Kind.PIPE.value

#: Bytes or text up to this size may be encoded later with others; a longer value is worth a message of its own.
DEFERRABLE_BYTES: Final = 1024
_INT_LEAST, _INT_BEYOND = -(1 << 63), 1 << 64
_INT_TEXT: Final = (
    "an int outside of 64 bits, less than -2**63 or more than 2**64 - 1, does not travel: send a float, text or bytes"
)
_CONSTANTS: Final = frozenset((float, bool, type(None)))

_PLAIN: Final = {tuple}

CALLS_PREFIX: Final = MAGIC + bytes((VERSION, Kind.CALLS))
REPLIES_PREFIX: Final = MAGIC + bytes((VERSION, Kind.REPLIES))


#: Reads what follows `CALLS_PREFIX`, and looks at nothing but its type, as `decode` does.
read_calls: Final = msgspec.msgpack.Decoder(Calls).decode
#: Reads what follows `REPLIES_PREFIX` in most messages with replies: ((numbers, values),), the results of calls that
#: ended well, in band. Raises MsgspecError if it is anything else, which `decode` reads.
read_results: Final = msgspec.msgpack.Decoder(tuple[tuple[tuple[list[int], list[msgspec.Raw]]]]).decode


class EncodedCall(NamedTuple):
    """A call that waits to be sent, its arguments encoded already because they are not `deferrable`."""

    call_id: int
    target: Target
    args: msgspec.Raw
    options: CallOptions | None


#: A call that waits to be sent: its number, its target, its arguments, its options.
PendingCall = tuple[int, Target, Sequence[object], CallOptions | None] | EncodedCall


class EncodedReply(NamedTuple):
    """A reply that waits to be sent, encoded already: its value is not `deferrable`, or it is a failure."""

    call_id: int
    status: int
    value: msgspec.Raw


#: A reply that waits to be sent: the call's number and the result.
PendingReply = tuple[int, object] | EncodedReply


def deferrable(values: Sequence[Any]) -> bool:
    """Whether encoding these values later gives what encoding them now would give, cannot fail, and is small.

    So it is for short bytes and ASCII text, for numbers that MessagePack has, for truth values and None: nothing can
    change them meanwhile. What is not deferrable is encoded at once, with `encode_value`.
    """
    for value in values:
        kind = type(value)
        if kind is bytes:
            if len(value) > DEFERRABLE_BYTES:
                return False
        elif kind is str:
            if len(value) > DEFERRABLE_BYTES or not value.isascii():
                return False
        elif kind is int:
            if not _INT_LEAST <= value < _INT_BEYOND:
                return False
        elif kind not in _CONSTANTS:
            return False
    return True


def encode_value(value: object, max_bytes: int = MAX_RECORD_BYTES) -> msgspec.Raw:
    """Encode arguments or a result now, to be sent later.

    Raises: TypeError, ValueError or OverflowError for what cannot be encoded. PayloadTooLarge.
    """
    try:
        raw = _encode(value)
    except OverflowError:
        raise OverflowError(_INT_TEXT) from None
    if len(raw) > max_bytes:
        raise _too_large(len(raw), max_bytes)
    return msgspec.Raw(raw)


def split_args(group: CallGroup) -> list[msgspec.Raw]:
    """The arguments of each call of a group, still encoded.

    Raises: msgspec.MsgspecError if there are not as many of them as calls.
    """
    count = array_length(group.args)  # Looked at first: there may be a million of them.
    if count != len(group.ids):
        raise msgspec.ValidationError(f"{max(count, 0)} times arguments for {len(group.ids)} calls")
    return _split(group.args)


def encode_calls(calls: Sequence[PendingCall]) -> list[Buffer]:
    """The frames of one message with these calls, one or more. Memory permitting, it cannot fail."""
    if len(calls) == 1:
        call_id, target, args, options = calls[0]
        group = (0, (call_id,), (args,)) if options is None else (0, (call_id,), (args,), options)
        return [CALLS_PREFIX + _encode(((group,), (target,)))]
    # Mostly all calls have one target and no options. (Counting looks at identity first.)
    all_ids, all_targets, all_args, all_options = zip(*calls, strict=True)
    first = all_targets[0]
    if all_targets.count(first) == len(calls) == all_options.count(None):
        return [CALLS_PREFIX + _encode((((0, all_ids, all_args),), (first,)))]
    indexes: dict[Target, int] = {}
    groups: list[tuple[Any, ...]] = []
    last: Target | None = None
    for call_id, target, args, options in calls:
        if options is not None:
            groups.append((indexes.setdefault(target, len(indexes)), [call_id], [args], options))
            last = None
        elif target is last:  # Hashing a target costs as much as encoding a call.
            groups[-1][1].append(call_id)
            groups[-1][2].append(args)
        else:
            groups.append((indexes.setdefault(target, len(indexes)), [call_id], [args]))
            last = target
    return [CALLS_PREFIX + _encode((groups, tuple(indexes)))]


def encode_replies(replies: Sequence[PendingReply]) -> list[Buffer]:
    """The frames of one message with these replies, one or more. Memory permitting, it cannot fail."""
    if len(replies) == 1:
        first = replies[0]
        group: tuple[object, ...] = (first[:1], first[1:])
        if isinstance(first, EncodedReply):
            group = (first[:1], (first.value,), first.status)
        return [REPLIES_PREFIX + _encode(((group,),))]
    if set(map(type, replies)) == _PLAIN:
        return [REPLIES_PREFIX + _encode(((tuple(zip(*replies, strict=True)),),))]
    groups: list[tuple[list[int], list[object], int]] = []
    last: int | None = None
    for reply in replies:
        status, value = (reply.status, reply.value) if isinstance(reply, EncodedReply) else (0, reply[1])
        if status == last:
            groups[-1][0].append(reply[0])
            groups[-1][1].append(value)
        else:
            groups.append(([reply[0]], [value], status))
            last = status
    return [REPLIES_PREFIX + _encode((groups,))]


def encode_call(
    target: Target,
    call_id: int,
    args: Sequence[object],
    options: CallOptions | None = None,
    max_bytes: int = MAX_RECORD_BYTES,
) -> list[Buffer]:
    """The frames of one call that travels alone, its large arguments and arrays as frames of their own.

    Raises: TypeError, ValueError or OverflowError for what cannot be encoded. PayloadTooLarge.
    """
    split = split_out_of_band(args)
    blobs: list[Buffer] = []
    if split is not None:
        args, blobs, descriptors = split
        options = msgspec.structs.replace(options or CallOptions(), blobs=descriptors)
    try:
        frames = encode_calls([(call_id, target, args, options)])
    except OverflowError:
        raise OverflowError(_INT_TEXT) from None
    return _within(frames + blobs, max_bytes)


def encode_reply(
    call_id: int, value: object, status: int = 0, options: ReplyOptions | None = None, max_bytes: int = MAX_RECORD_BYTES
) -> list[Buffer]:
    """The frames of one reply that travels alone, a large result or an array as a frame of its own.

    Raises: as `encode_call`.
    """
    split = split_out_of_band((value,))
    blobs: list[Buffer] = []
    if split is not None:
        _, blobs, descriptors = split
        value = None
        options = msgspec.structs.replace(options or ReplyOptions(), blobs=descriptors)
    return _within(_lone_reply(call_id, value, status, options) + blobs, max_bytes)


def encode_parts(
    call_id: int, parts: Sequence[object], options: ReplyOptions | None = None, max_bytes: int = MAX_RECORD_BYTES
) -> list[Buffer]:
    """As `encode_reply`, for the result and the outputs of an operation: each may be a frame of its own."""
    rest, blobs, descriptors = split_out_of_band(parts) or (parts, [], None)
    options = msgspec.structs.replace(options or ReplyOptions(), blobs=descriptors, outputs=len(parts) - 1)
    return _within(_lone_reply(call_id, rest, 0, options) + blobs, max_bytes)


def _lone_reply(call_id: int, value: object, status: int, options: ReplyOptions | None) -> list[Buffer]:
    try:
        return [REPLIES_PREFIX + _encode(((((call_id,), (value,), status, options),),))]
    except OverflowError:
        raise OverflowError(_INT_TEXT) from None


def _too_large(size: int, most: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the values take {size} bytes, {most} are allowed in one message, whatever max_message_bytes is: split them up"
    )


def _within(frames: list[Buffer], max_bytes: int) -> list[Buffer]:
    """Return `frames` if they are not too large, and not too many."""
    size = sum(map(len, frames))
    if size > max_bytes:
        raise _too_large(size, max_bytes)
    if len(frames) > MAX_BLOBS + 1:
        raise PayloadTooLarge(f"{len(frames) - 1} large values in one call, {MAX_BLOBS} are allowed")
    return frames


def encode(message: Message) -> list[Buffer]:
    """The frames of any message whose blobs, if it has any, are not part of it."""
    body: Any = message
    if type(message) is Welcome and not message.members:
        body = msgspec.structs.astuple(message)[:-1]  # As those read it best who know nothing of members.
    return [MAGIC + bytes((VERSION, KIND_OF[type(message)])) + _encode(body)]


# Prefix -> kind, and what reads the body. A REJECT is the one message that every version can read: it says
# which versions the other side has.
_READERS: Final[dict[bytes, tuple[int, Callable[[Buffer], Any]]]] = {
    MAGIC + bytes((version, kind)): (kind.value, read)
    for kind, read in [(kind, msgspec.msgpack.Decoder(of).decode) for of, kind in KIND_OF.items()]
    for version in (range(256) if kind is Kind.REJECT else (VERSION,))
}


def decode(
    frames: Sequence[Buffer],
    max_bytes: int = MAX_MESSAGE_BYTES,
    max_records: int = MAX_RECORDS,
    max_body_bytes: int = MAX_MESSAGE_BYTES,
) -> Message:
    """Read one message.

    The blobs of a message are its frames from the second on; they belong to its only call or reply.
    Returns: the message; the raw parts of its groups are views of frame 0. How many arguments a group of calls has is
        not looked at.
    Raises: RemoteProtocolError: it is not ours, truncated, too large, of an unknown kind, its body is not
        what the kind says, an index is out of range, a call's number occurs twice, or frames are missing or
        left over. VersionMismatch: it is ours, in a version unknown here.
    """
    if not frames:
        raise RemoteProtocolError("a message is lost: something broke in as it arrived")
    head = frames[0]
    prefix = head[:PREFIX_BYTES] if type(head) is bytes else bytes(head[:PREFIX_BYTES])
    found = _READERS.get(prefix)
    if found is None:
        raise _explain_prefix(prefix)
    kind, read = found
    size = body = len(head)
    if body > max_body_bytes:
        raise RemoteProtocolError(f"a first frame of {body} bytes, {max_body_bytes} are allowed (max_body_bytes)")
    if len(frames) > 1:
        size += sum(map(len, frames[1:]))
    if size > max_bytes:
        raise RemoteProtocolError(f"a message of {size} bytes, {max_bytes} are allowed")
    try:
        # Copying a small body is cheaper than two views.
        if body < 2048:
            message = read(head[PREFIX_BYTES:])
        elif body <= LARGE_BYTES:
            message = read(memoryview(head)[PREFIX_BYTES:])
        else:
            message = read_large(read, memoryview(head)[PREFIX_BYTES:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"the body of {Kind(kind).name} is wrong: {error}") from None
    if kind == _CALLS or kind == _REPLIES:
        groups = message.groups
        # One lone call or reply has mostly nothing that could be wrong.
        if (
            len(groups) != 1
            or len(frames) != 1
            or len(groups[0].ids) != 1
            or groups[0].options is not None
            or (groups[0].target or not message.targets if kind == _CALLS else len(groups[0].values) != 1)
        ):
            _check_groups(message, len(frames) - 1, max_records)
    elif len(frames) > 1:
        raise RemoteProtocolError(f"{Kind(kind).name} has no frames beyond the first")
    elif kind == _PIPE and len(message.chunks) > max_records:
        raise RemoteProtocolError(f"{len(message.chunks)} chunks in one message, {max_records} are allowed")
    return message  # type: ignore[no-any-return]  # what the reader of its kind reads


def _explain_prefix(prefix: bytes) -> RemoteProtocolError:
    """Why no reader is known for this prefix."""
    if len(prefix) < PREFIX_BYTES or not prefix.startswith(MAGIC):
        return RemoteProtocolError("not a message of this protocol")
    if prefix[2] != VERSION:
        return VersionMismatch(prefix[2])
    return RemoteProtocolError(f"unknown kind of message {prefix[3]}")


def _check_groups(message: Calls | Replies, blobs: int, max_records: int) -> None:
    """What the types cannot say about the groups of a message."""
    groups: Sequence[Any] = message.groups  # Of calls if there are targets, else of replies.
    targets = len(message.targets) if type(message) is Calls else -1
    count = described = 0
    for group in groups:
        here = len(group.ids)
        count += here
        if targets >= 0:
            # Below zero an index would count from the end.
            if not 0 <= group.target < targets:
                raise RemoteProtocolError("a call's target is not among the targets of its message")
        elif len(group.values) != here:
            raise RemoteProtocolError(f"{len(group.values)} values for {here} calls")
        if not here:
            raise RemoteProtocolError("a group of none")
        if group.options is not None:
            described += len(group.options.blobs or ())
    if count == 1:
        if described != blobs or blobs > MAX_BLOBS:
            raise RemoteProtocolError(f"{described} values are out of band, {blobs} frames follow")
        return
    if blobs or described:
        raise RemoteProtocolError("what has out-of-band values must travel alone")
    if not 0 < count <= max_records:
        raise RemoteProtocolError(f"{count} records in one message, 1 to {max_records} are allowed")
    ids = groups[0].ids if len(groups) == 1 else [call_id for group in groups for call_id in group.ids]
    if len(set(ids)) != count:
        raise RemoteProtocolError("a call's number occurs twice in one message")
