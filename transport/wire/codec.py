"""Messages to frames and back.

Two writers collect the calls (or replies) that are to share one message. Each encodes a record at once, at
the end of one buffer: the arguments are a snapshot from then on, and what waits is one object however many
records there are. `decode` reads any message; it takes whatever a peer may send, and raises nothing but
RemoteProtocolError.

A message of records looks like this, so that a writer can reserve the head and fill in the count when the
message leaves:

    43 50 01 04  92  dd nn nn nn nn  record record ...  targets        (CALLS)
    43 50 01 05  91  dd nn nn nn nn  record record ...                 (REPLIES)
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from transport.errors import LocalProtocolError, PayloadTooLarge, RemoteProtocolError, VersionMismatch
from transport.frames import (
    KIND_OF,
    MAGIC,
    MAX_BLOBS,
    MAX_MESSAGE_BYTES,
    MAX_RECORDS,
    PREFIX_BYTES,
    VERSION,
    Buffer,
    CallOptions,
    Calls,
    Fault,
    Kind,
    Message,
    Replies,
    ReplyOptions,
    Target,
)
from transport.wire.blobs import split_out_of_band

#: Take a message from its writer once it is this large: more in one message saves nothing (a send costs as
#: much as 4 KiB of copying) and keeps the peer waiting for the first of it. Together with a record's own
#: bound it keeps any message under the peer's limit.
COALESCE_BYTES: Final = 64 * 1024
MAX_RECORD_BYTES: Final = MAX_MESSAGE_BYTES - 1024 * 1024

_encoder = msgspec.msgpack.Encoder()
_encode: Final = _encoder.encode
_encode_into: Final = _encoder.encode_into

# Filled in already for the most frequent count of records: one.
_CALLS_HEAD: Final = MAGIC + bytes((VERSION, Kind.CALLS)) + b"\x92\xdd\0\0\0\1"
_REPLIES_HEAD: Final = MAGIC + bytes((VERSION, Kind.REPLIES)) + b"\x91\xdd\0\0\0\1"
_HEAD_BYTES: Final = len(_CALLS_HEAD)
_COUNT: Final = slice(_HEAD_BYTES - 4, _HEAD_BYTES)
# Plain integers: comparing with a member of an IntEnum costs three times as much.
_CALLS: Final = Kind.CALLS.value
_REPLIES: Final = Kind.REPLIES.value
_PIPE: Final = Kind.PIPE.value


class CallWriter:
    """Collects calls that will share one message.

    Args: max_bytes: the largest record taken.
    Threads: not safe; the caller's lock guards it.
    """

    __slots__ = ("count", "_buffer", "_end", "_indexes", "_last", "_last_index", "_max_bytes", "_tail")

    def __init__(self, max_bytes: int = MAX_RECORD_BYTES) -> None:
        #: Records waiting.
        self.count = 0
        self._max_bytes = max_bytes
        self._buffer = bytearray(_CALLS_HEAD)
        # Invariant: what is encoded ends here, outside `add` the buffer does too.
        self._end = _HEAD_BYTES
        self._indexes: dict[Target, int] = {}
        # The target of the newest record, and its index: calls in a row mostly have one target, and hashing
        # it costs as much as encoding.
        self._last: Target | None = None
        self._last_index = 0
        # The targets, encoded; empty if they changed since. Messages in a row mostly have the same one.
        self._tail = b""

    @property
    def size(self) -> int:
        """Bytes waiting, without the head and the targets."""
        return self._end - _HEAD_BYTES

    def add(
        self, target: Target, call_id: int, args: Sequence[object], options: CallOptions | None = None
    ) -> None:
        """Encode a call into the message. The arguments may change afterwards.

        Raises: TypeError: an argument cannot be encoded. PayloadTooLarge: the record is too large. Either
            leaves the writer as it was.
        """
        index = self._last_index if target is self._last else self._index_of(target)
        buffer = self._buffer
        try:
            _encode_into(
                (call_id, index, args) if options is None else (call_id, index, args, options), buffer, -1
            )
        except BaseException:
            del buffer[self._end :]
            raise
        end = len(buffer)
        if end > self._max_bytes:
            _check_size(buffer, self._end, self._max_bytes)
        self._end = end
        self.count += 1

    def _index_of(self, target: Target) -> int:
        """The index of another target than that of the newest record."""
        if not self.count:
            # They were kept from the last message, for the case that this one has the same.
            self._indexes = {}
        index = self._indexes.get(target)
        if index is None:
            # If the call turns out not to be encodable, its message names a target that it does not use:
            # harmless.
            index = self._indexes[target] = len(self._indexes)
            self._tail = b""
        self._last, self._last_index = target, index
        return index

    def take(self) -> list[Buffer]:
        """The frames of the message; the writer is empty then. Raises LocalProtocolError if there is nothing
        to take.
        """
        count = self.count
        if not count:
            raise LocalProtocolError("no call waits in this writer")
        buffer = self._buffer
        if count != 1:
            buffer[_COUNT] = count.to_bytes(4)
        buffer += self._tail or self._encode_tail()
        self.count = 0
        self._buffer = bytearray(_CALLS_HEAD)
        self._end = _HEAD_BYTES
        return [buffer]

    def _encode_tail(self) -> bytes:
        tail = _encode(tuple(self._indexes))
        if len(self._indexes) == 1:
            self._tail = tail
        else:
            self._indexes = {}
            self._last = None
        return tail


class ReplyWriter:
    """Collects replies that will share one message; the twin of `CallWriter`."""

    __slots__ = ("count", "_buffer", "_end", "_max_bytes")

    def __init__(self, max_bytes: int = MAX_RECORD_BYTES) -> None:
        #: Records waiting.
        self.count = 0
        self._max_bytes = max_bytes
        self._buffer = bytearray(_REPLIES_HEAD)
        self._end = _HEAD_BYTES

    @property
    def size(self) -> int:
        """Bytes waiting, without the head."""
        return self._end - _HEAD_BYTES

    def add(self, call_id: int, value: object, status: int = 0, options: ReplyOptions | None = None) -> None:
        """Encode a reply into the message. Raises as `CallWriter.add`."""
        buffer = self._buffer
        try:
            _encode_into(
                (call_id, status, value) if options is None else (call_id, status, value, options), buffer, -1
            )
        except BaseException:
            del buffer[self._end :]
            raise
        end = len(buffer)
        if end > self._max_bytes:
            _check_size(buffer, self._end, self._max_bytes)
        self._end = end
        self.count += 1

    def add_fault(
        self, call_id: int, status: int, fault: Fault | None = None, options: ReplyOptions | None = None
    ) -> None:
        """Encode a failure. Raises as `add`, and LocalProtocolError for status 0, which is no failure."""
        if status == 0:
            raise LocalProtocolError("status 0 is success: a fault needs another")
        self.add(call_id, fault, status, options)

    def take(self) -> list[Buffer]:
        """The frames of the message; the writer is empty then. Raises LocalProtocolError if there is nothing
        to take.
        """
        count = self.count
        if not count:
            raise LocalProtocolError("no reply waits in this writer")
        buffer = self._buffer
        if count != 1:
            buffer[_COUNT] = count.to_bytes(4)
        self.count = 0
        self._buffer = bytearray(_REPLIES_HEAD)
        self._end = _HEAD_BYTES
        return [buffer]


def _check_size(buffer: bytearray, start: int, max_bytes: int) -> None:
    """Take the record that begins at `start` out again if it alone is too large."""
    size = len(buffer) - start
    if size > max_bytes:
        del buffer[start:]
        raise PayloadTooLarge(f"the values take {size} bytes, {max_bytes} are allowed in one record")


#: Bytes or text up to this size may be encoded later with others; a longer value is worth a message of its own.
SETTLED_BYTES: Final = 1024
_INT_LEAST, _INT_BEYOND = -(1 << 63), 1 << 64
_CONSTANTS: Final = frozenset((float, bool, type(None)))

_CALLS_PREFIX: Final = MAGIC + bytes((VERSION, Kind.CALLS))
_REPLIES_PREFIX: Final = MAGIC + bytes((VERSION, Kind.REPLIES))



class EncodedCall(NamedTuple):
    """A call that waits to be sent, its arguments encoded already because they are not `settled`."""

    call_id: int
    target: Target
    args: msgspec.Raw
    options: CallOptions | None


#: A call that waits to be sent: its number, its target, its arguments, its options.
PendingCall = tuple[int, Target, Sequence[object], CallOptions | None] | EncodedCall


class EncodedReply(NamedTuple):
    """A reply that waits to be sent, its value encoded already because it is not `settled`."""

    call_id: int
    status: int
    value: msgspec.Raw


#: A reply that waits to be sent: the call's number, the status, the value.
PendingReply = tuple[int, int, object] | EncodedReply


def settled(values: Sequence[object]) -> bool:
    """Whether encoding these values later gives what encoding them now would give, cannot fail, and is small.

    So it is for short bytes and ASCII text, for numbers that MessagePack has, for truth values and None: nobody can
    change them meanwhile. What is not settled is encoded at once, with `encode_value`.
    """
    for value in values:
        kind = type(value)
        if kind is bytes:
            if len(value) > SETTLED_BYTES:  # type: ignore[arg-type]
                return False
        elif kind is str:
            if len(value) > SETTLED_BYTES or not value.isascii():  # type: ignore[arg-type, attr-defined]
                return False
        elif kind is int:
            if not _INT_LEAST <= value < _INT_BEYOND:  # type: ignore[operator]
                return False
        elif kind not in _CONSTANTS:
            return False
    return True


def encode_value(value: object, max_bytes: int = MAX_RECORD_BYTES) -> msgspec.Raw:
    """Encode arguments or a result now, to be sent later.

    Raises: TypeError, ValueError or OverflowError for what cannot be encoded. PayloadTooLarge.
    """
    raw = _encode(value)
    if len(raw) > max_bytes:
        raise PayloadTooLarge(f"the values take {len(raw)} bytes, {max_bytes} are allowed")
    return msgspec.Raw(raw)


def encode_calls(calls: Sequence[PendingCall]) -> list[Buffer]:
    """The frames of one message with these calls, one or more. Cannot fail."""
    if len(calls) == 1:
        call_id, target, args, options = calls[0]
        record = (call_id, 0, args) if options is None else (call_id, 0, args, options)
        return [_CALLS_PREFIX + _encode(((record,), (target,)))]
    # Mostly all calls have one target and no options.
    first = calls[0][1]
    alike = [(call_id, 0, args) for call_id, target, args, options in calls if target is first and options is None]
    if len(alike) == len(calls):
        return [_CALLS_PREFIX + _encode((alike, (first,)))]
    indexes: dict[Target, int] = {}
    last, at = None, 0
    records = []
    for call_id, target, args, options in calls:
        if target is not last:  # Hashing a target costs as much as encoding a record, and mostly there is one.
            last, at = target, indexes.setdefault(target, len(indexes))
        records.append((call_id, at, args) if options is None else (call_id, at, args, options))
    return [_CALLS_PREFIX + _encode((records, tuple(indexes)))]


def encode_replies(replies: Sequence[PendingReply]) -> list[Buffer]:
    """The frames of one message with these replies, one or more. Cannot fail."""
    return [_REPLIES_PREFIX + _encode((replies,))]


def encode_call(
    target: Target,
    call_id: int,
    args: Sequence[object],
    options: CallOptions | None = None,
    max_bytes: int = MAX_RECORD_BYTES,
) -> list[Buffer]:
    """The frames of one call that travels alone, its large arguments and arrays as frames of their own.

    Raises: TypeError, PayloadTooLarge, as `CallWriter.add`.
    """
    writer = CallWriter(max_bytes)
    split = split_out_of_band(args)
    if split is None:
        writer.add(target, call_id, args, options)
        return writer.take()
    rest, blobs, descriptors = split
    with_blobs = msgspec.structs.replace(options or CallOptions(), blobs=descriptors)
    writer.add(target, call_id, rest, with_blobs)
    return _with_blobs(writer.take(), blobs, max_bytes)


def encode_reply(
    call_id: int,
    value: object,
    status: int = 0,
    options: ReplyOptions | None = None,
    max_bytes: int = MAX_RECORD_BYTES,
) -> list[Buffer]:
    """The frames of one reply that travels alone, a large result or an array as a frame of its own."""
    writer = ReplyWriter(max_bytes)
    split = split_out_of_band((value,))
    if split is None:
        writer.add(call_id, value, status, options)
        return writer.take()
    _, blobs, descriptors = split
    writer.add(call_id, None, status, msgspec.structs.replace(options or ReplyOptions(), blobs=descriptors))
    return _with_blobs(writer.take(), blobs, max_bytes)


def encode_parts(call_id: int, parts: Sequence[object], max_bytes: int = MAX_RECORD_BYTES) -> list[Buffer]:
    """As `encode_reply`, for the result and the outputs of an operation: each may be a frame of its own."""
    rest, blobs, descriptors = split_out_of_band(parts) or (parts, [], [])
    writer = ReplyWriter(max_bytes)
    writer.add(call_id, rest, 0, ReplyOptions(blobs=descriptors) if descriptors else None)
    return _with_blobs(writer.take(), blobs, max_bytes)


def _with_blobs(frames: list[Buffer], blobs: list[Buffer], max_bytes: int) -> list[Buffer]:
    size = len(frames[0]) + sum(map(len, blobs))
    if size > max_bytes:
        raise PayloadTooLarge(f"the values take {size} bytes, {max_bytes} are allowed")
    if len(blobs) > MAX_BLOBS:
        raise PayloadTooLarge(f"{len(blobs)} large values in one call, {MAX_BLOBS} are allowed")
    return frames + blobs


def encode(message: Message) -> list[Buffer]:
    """The frames of any message whose blobs, if it has any, are not part of it."""
    buffer = bytearray(MAGIC + bytes((VERSION, KIND_OF[type(message)])))
    _encode_into(message, buffer, -1)
    return [buffer]


# Prefix -> kind, and what reads the body. A REJECT is the one message that every version can read: it says
# which versions the other side has.
_READERS: Final[dict[bytes, tuple[int, Callable[[Buffer], Any]]]] = {
    MAGIC + bytes((version, kind)): (kind.value, read)
    for kind, read in [(kind, msgspec.msgpack.Decoder(of).decode) for of, kind in KIND_OF.items()]
    for version in (range(256) if kind is Kind.REJECT else (VERSION,))
}


def decode(
    frames: Sequence[Buffer], max_bytes: int = MAX_MESSAGE_BYTES, max_records: int = MAX_RECORDS
) -> Message:
    """Read one message.

    The blobs of a message are its frames from the second on; they belong to its only record.
    Returns: the message; the raw parts of its records are views of frame 0.
    Raises: RemoteProtocolError: it is not ours, truncated, too large, of an unknown kind, its body is not
        what the kind says, an index is out of range, a call's number occurs twice, or frames are missing or
        left over. VersionMismatch: it is ours, in a version unknown here.
    """
    if not frames:
        raise RemoteProtocolError("a message without frames")
    head = frames[0]
    prefix = head[:PREFIX_BYTES] if type(head) is bytes else bytes(head[:PREFIX_BYTES])
    found = _READERS.get(prefix)
    if found is None:
        raise _explain_prefix(prefix)
    kind, read = found
    size = len(head)
    if len(frames) > 1:
        size += sum(map(len, frames[1:]))
    if size > max_bytes:
        raise RemoteProtocolError(f"a message of {size} bytes, {max_bytes} are allowed")
    try:
        # Copying a small body is cheaper than two views.
        message = read(head[PREFIX_BYTES:] if size < 2048 else memoryview(head)[PREFIX_BYTES:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"the body of {Kind(kind).name} is wrong: {error}") from None
    if kind == _CALLS or kind == _REPLIES:
        records = message.records
        # Most of what there is to check has nothing to say about one record without options.
        if (
            len(records) != 1
            or len(frames) != 1
            or records[0].options is not None
            or (kind == _CALLS and (records[0].target or not message.targets))
        ):
            _check_records(message, len(frames) - 1, max_records)
    elif len(frames) > 1:
        raise RemoteProtocolError(f"{Kind(kind).name} has no frames beyond the first")
    elif kind == _PIPE and len(message.chunks) > max_records:
        raise RemoteProtocolError(f"{len(message.chunks)} chunks in one message, {max_records} are allowed")
    return message  # type: ignore[no-any-return]


def _explain_prefix(prefix: bytes) -> RemoteProtocolError:
    """Why no reader is known for this prefix."""
    if len(prefix) < PREFIX_BYTES or not prefix.startswith(MAGIC):
        return RemoteProtocolError("not a message of this protocol")
    if prefix[2] != VERSION:
        return VersionMismatch(prefix[2])
    return RemoteProtocolError(f"unknown kind of message {prefix[3]}")


def _check_records(message: Calls | Replies, blobs: int, max_records: int) -> None:
    """What the types cannot say about the records of a message."""
    records = message.records
    count = len(records)
    if count == 1:
        record = records[0]
        options = record.options
        described = len(options.blobs) if options is not None and options.blobs is not None else 0
        if described != blobs or blobs > MAX_BLOBS:
            raise RemoteProtocolError(f"{described} values are out of band, {blobs} frames follow")
        in_range = type(message) is Replies or 0 <= record.target < len(message.targets)  # type: ignore[union-attr]
    else:
        if blobs:
            raise RemoteProtocolError("a record with out-of-band values must travel alone")
        if not 0 < count <= max_records:
            raise RemoteProtocolError(f"{count} records in one message, 1 to {max_records} are allowed")
        if len({record.id for record in records}) != count:
            raise RemoteProtocolError("a call's number occurs twice in one message")
        in_range = True
        if isinstance(message, Calls):
            # From a set, because it mostly has one member. Below zero an index would count from the end.
            used = {record.target for record in message.records}
            in_range = min(used) >= 0 and max(used) < len(message.targets)
    if not in_range:
        raise RemoteProtocolError("a call's target is not among the targets of its message")
