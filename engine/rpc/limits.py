"""What the peer takes in one message, and how what is sent is kept below it.

Theory of operation. Each side says in its greeting how large a message it takes (`max_message_bytes`); the link of a
peer that gets a larger one breaks the connection, and with it everybody's calls. So the sender looks at each message
that is about to leave. Of several calls or replies, half are left for the next message; one that is too large alone
does not leave at all, and its call ends with `BadStubData`. What is known to be too large when it is begun, pushed or
answered is refused there.

Until the server's greeting has come, the client sends nothing above `UNGREETED_BYTES`, which every peer takes: larger
messages, and what is behind them, wait for the greeting.

All under link.lock.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from transport import Buffer, LinkOptions
from transport.foreign import text_of, type_name
from transport.frames import MAX_MESSAGE_BYTES, Cancel, Chunks, Fault
from transport.log import Log
from transport.realtime import monotonic
from transport.wire.codec import EncodedReply, PendingReply, encode, encode_replies, encode_value

from ..errors import InvalidArgumentType
from ..kernel.checks import check_count
from ..kernel.driver import driver
from ..status import Status
from .call import Failure
from .client.call_table import perform
from .client.outbox import Special
from .errors import BadStubData
from .pipes.shipment import SHIPMENT_BYTES

if TYPE_CHECKING:
    from .client.connection import Association
    from .server.peer import Peer

log: Log = Log("engine.rpc")

UNGREETED_BYTES = 64 * 1024  # Arbitrary: room for a first burst of calls. No peer may take less.
# What a shipment may hold besides the push that makes it leave: others, and the heads of all.
_SHIPMENT_REST = 2 * SHIPMENT_BYTES


def check_options(options: dict[str, Any]) -> int:
    """Check the options of the transport, and return how large a message this side takes, by its `max_message_bytes`.

    A link bounds frames, and the protocol's reader has a bound of its own: the smaller one rules.

    Raises: `InvalidArgumentType` for an option that there is not; `InvalidParameter`; `transport.EndpointError`.
    """
    known = LinkOptions.__struct_fields__
    for name in options:
        if name not in known:
            raise InvalidArgumentType(f"there is no option {name!r}; those of the transport are {', '.join(known)}")
    value = check_count("max_message_bytes", options.get("max_message_bytes", MAX_MESSAGE_BYTES), UNGREETED_BYTES)
    LinkOptions(**options)
    return min(value, MAX_MESSAGE_BYTES)


def largest_message(announced: int) -> int:
    """What a peer takes that announced this; 0 stands for no limit."""
    return announced or sys.maxsize


def size_of(frames: list[Buffer]) -> int:
    """The bytes of a message."""
    return sum(map(len, frames))


class Oversize:
    """Tells of what is too large for the peers of one endpoint; the log hears of the first only."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        # Unguarded: two that come first at once are both logged.
        self._reported = False

    def report(self, what: str, size: int, who: str, limit: int) -> str:
        """Return what to tell, in one sentence. Any thread, holding any lock."""
        text = f"{what} takes {size} bytes, and {who} takes no message above {limit} (its max_message_bytes)"
        if not self._reported:
            self._reported = True
            log.warning("%s: not sent: %s; further ones are not told of", self._endpoint, text, later=True)
        return text

    def check_push(self, pipe: str, size: int, who: str, message_limit: int) -> None:
        """Raise `BadStubData` if a push of so many bytes might make a message above the limit; 0: it is not known."""
        if message_limit and size > message_limit - _SHIPMENT_REST:
            raise BadStubData(self.report(f"a push into pipe {pipe!r}", size + _SHIPMENT_REST, who, message_limit))


def fit(client: "Association", frames: list[Buffer]) -> list[Buffer]:
    """Return `frames`, which were just taken from the client's outbox, or less of them; [] if nothing can leave now."""
    outbox = client._outbox
    while True:
        size = size_of(frames)
        if size <= client._message_limit:
            return frames
        taken = outbox.taken
        first = taken[0]
        if len(taken) > 1:
            outbox.put_back()
            frames = outbox.take(len(taken) // 2)
            continue
        if isinstance(first, Special) and not first.call_id and first.shipment is None:
            return frames  # It is about the connection, which cannot do without it.
        if not client._greeted:
            if not client._closing:
                outbox.put_back()
                client._hold(True)
                return []
            # Its call is over: it is left out.
        elif isinstance(first, Special) and first.shipment is not None:
            _split(client, first)
        else:
            _refuse(client, first.call_id if isinstance(first, Special) else first[0], "the call", size)
        if not outbox.queue:
            return []
        frames = outbox.take()


def _split(client: "Association", special: Special) -> None:
    """Have each chunk of a shipment leave alone; a call that has one that is too large ends."""
    assert special.shipment is not None
    alone: list[Special] = []
    for chunk in special.shipment.chunks:
        frames = encode(Chunks([chunk]))
        if size_of(frames) <= client._message_limit:
            alone.append(Special(frames))
        else:
            _refuse(client, chunk.id, f"what was pushed into pipe {chunk.pipe}", size_of(frames))
            alone.append(Special(encode(Cancel([(chunk.id, True)]))))
    client._outgoing.extendleft(reversed(alone))


def _refuse(client: "Association", call_id: int, what: str, size: int) -> None:
    """End a call that cannot be sent."""
    _end(client, call_id, client._oversize.report(what, size, client.endpoint, client._message_limit))


def end_unsent(client: "Association", call_id: int, error: Exception) -> None:
    """End a call that cannot be encoded."""
    text = f"the call cannot be sent: {text_of(error)}"
    log.error("%s: %s", client.endpoint, text, exc_info=error, later=True)
    _end(client, call_id, text)


def _end(client: "Association", call_id: int, text: str) -> None:
    actions: list[Callable[[], object]] = []
    try:
        with client._lock:
            client._table.finish_locked((call_id,), (Failure(BadStubData(text)),), actions)
    finally:
        if actions:
            # Soon, on a thread that holds no link's lock.
            driver().monitor.call_at(monotonic(), partial(perform, actions))


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


def fit_replies(peer: "Peer", taken: list[PendingReply], oversize: Oversize) -> list[Buffer]:
    """Return a message of less answers than `taken`, which are more than the client takes; the others wait again.

    `taken` holds, afterwards, those that are in the message.
    """
    while len(taken) > 1:
        half = len(taken) // 2
        peer.answers.extendleft(reversed(taken[half:]))
        del taken[half:]
        frames = encode_replies(taken)
        if len(frames[0]) <= peer.message_limit:
            return frames
    call_id = taken[0][0]
    text = oversize.report("the answer", len(memoryview(encode_value(taken[0]))), "the client", peer.message_limit)
    taken[0] = EncodedReply(call_id, int(Status.BAD_STUB_DATA), encode_value(Fault("PayloadTooLarge", text)))
    return encode_replies(taken)
