"""The message of some answers, which their client takes.

Theory of operation. An answer that cannot be encoded, or is too large alone, is replaced by its call's failure; of
several answers that are too large together, half wait for the next message.
"""

from transport import Buffer
from transport.foreign import text_of, type_name
from transport.frames import Fault
from transport.log import Log
from transport.wire.codec import EncodedReply, PendingReply, encode_replies, encode_value

from ...status import Status
from ..limits import SizeLimit, split_to_fit
from .peer import Peer

log: Log = Log("engine.rpc")


def encode_answers(taken: list[PendingReply]) -> list[Buffer]:
    """Return the message of these answers; in the place of one that cannot be encoded its call's failure is `taken`."""
    try:
        return encode_replies(taken)
    except Exception:
        for at, answer in enumerate(taken):
            try:
                encode_replies([answer])
            except Exception as error:
                fault = Fault(type_name(error), f"the answer cannot be sent: {text_of(error)}")
                taken[at] = EncodedReply(answer[0], int(Status.BAD_STUB_DATA), encode_value(fault))
                log.error("an answer cannot be sent", exc_info=error, later=True)
        return encode_replies(taken)


def fit_replies(peer: Peer, taken: list[PendingReply], limit: SizeLimit) -> list[Buffer]:
    """Return a message of less answers than `taken`, which are more than the client takes; the others wait again.

    `taken` holds, afterwards, those that are in the message.
    """
    frames, number = split_to_fit(taken, encode_replies, peer.session.message_limit)
    peer.answers.extendleft(reversed(taken[number:]))
    del taken[number:]
    if len(frames[0]) <= peer.session.message_limit:
        return frames
    call_id = taken[0][0]
    text = limit.report("the answer", len(memoryview(encode_value(taken[0]))), peer.session.message_limit)
    taken[0] = EncodedReply(call_id, int(Status.BAD_STUB_DATA), encode_value(Fault("PayloadTooLarge", text)))
    return encode_replies(taken)
