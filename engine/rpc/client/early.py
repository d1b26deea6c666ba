"""Calls that are encoded as they are begun: their arguments may change before they leave, or are large.

Theory of operation. Most calls wait as plain values and are encoded with others as they leave. These wait encoded:
small ones still share a message, one with large values or arrays is a message of its own.
"""

from typing import TYPE_CHECKING, Any

from transport.foreign import is_interrupt, text_of
from transport.frames import CallOptions
from transport.wire.blobs import split_out_of_band
from transport.wire.codec import EncodedCall, PendingCall, encode_call, encode_value

from ...errors import InvalidArgumentType
from ...kernel.checks import NoNumber
from ..contract.spec import OperationSpec
from ..limits import size_of
from .outbox import Special

if TYPE_CHECKING:
    from .connection import Association

LONE_BYTES = 16 * 1024  # A call of this size waits for no company.


def encode_early(
    client: "Association", spec: OperationSpec, call_id: int, args: tuple[Any, ...], options: CallOptions | None
) -> tuple[PendingCall | Special, bool]:
    """Encode a call; tell whether it is to leave at once.

    Raises: `InvalidArgumentType` if it cannot be sent, or not to this server, naming the parameter or the size; for an
        int that does not fit 64 bits one that is an `InvalidParameter` too.
    """
    pending: EncodedCall | Special
    try:
        if split_out_of_band(args) is not None:
            frames = encode_call(spec.target, call_id, args, options)
            pending, size, due = Special(frames, call_id), size_of(frames), True
        else:
            encoded = encode_value(args)
            size = len(memoryview(encoded))
            pending, due = EncodedCall(call_id, spec.target, encoded, options), size > LONE_BYTES
    except OverflowError as error:
        raise NoNumber(f"{spec.name}: {_culprit(spec, args)} is out of range: {text_of(error)}") from None
    except BaseException as error:  # Encoding runs the values' own code, which raises what it likes.
        if is_interrupt(error):
            raise
        raise InvalidArgumentType(f"{spec.name}: {_culprit(spec, args)} cannot be sent: {text_of(error)}") from error
    if size > client._message_limit and client._greeted:
        text = client._oversize.report(f"a call of {spec.name}", size, client.endpoint, client._message_limit)
        raise InvalidArgumentType(text)
    return pending, due


def _culprit(spec: OperationSpec, args: tuple[Any, ...]) -> str:
    """Name the argument that cannot be encoded."""
    for position, value in enumerate(args):
        try:
            encode_call(spec.target, 0, (value,))
        except BaseException as error:
            if is_interrupt(error):
                raise
            return f"parameter {spec.parameters[position]!r}" if spec.parameters else f"argument {position}"
    return "what it is called with, taken together,"
