"""How large a message each side takes, and how what is sent is kept below it.

Theory of operation. Each side says in its greeting how large a message it takes (`max_message_bytes`); the link of a
peer that gets a larger one breaks the connection, and all calls of it fail. A server says, too, how large a first frame
it decodes (`max_body_bytes`), and ends the conversation with who sends a larger one. So the sender looks at each
message that is about to leave. Of several calls or replies, half are left for the next message; one that is too large
alone does not leave at all, and its call ends with `BadStubData`. What is known to be too large when it is begun,
pushed or answered is refused there.

Until the server's greeting has come, the client sends nothing larger than what every peer takes (`UNGREETED`): larger
messages, and what is behind them, wait for the greeting.
"""

import sys
from collections.abc import Callable, Sequence
from inspect import signature
from typing import TypeVar

from transport import Buffer, LinkOptions, TransportOptions
from transport.frames import MAX_MESSAGE_BYTES
from transport.log import Log
from transport.wire.session import UNGREETED

from ..kernel.checks import check_count, check_names
from .errors import BadStubData
from .pipes.shipment import SHIPMENT_BYTES

log: Log = Log("engine.rpc")

T = TypeVar("T")

# What a shipment may hold besides the push that makes it leave: others, and the heads of all.
_SHIPMENT_REST = 2 * SHIPMENT_BYTES


def check_options(kind: type, options: TransportOptions) -> int:
    """Check the options of the transport, and return how large a message this side takes, by its `max_message_bytes`.

    Args: `kind` is the class whose constructor was given them: its own options were meant, perhaps.

    A link bounds frames, and the protocol's reader has a bound of its own: the smaller one rules.

    Raises: `InvalidArgumentType` for an option that there is not; `InvalidParameter`; `transport.EndpointError`.
    """
    known = LinkOptions.__struct_fields__
    if not options.keys() <= set(known):
        own = [each.name for each in signature(kind).parameters.values() if each.kind is each.KEYWORD_ONLY]
        check_names(kind.__name__, "option", options, dict.fromkeys((*own, *known)))
    value = check_count(
        "max_message_bytes", options.get("max_message_bytes", MAX_MESSAGE_BYTES), UNGREETED.message_bytes
    )
    LinkOptions(**options)
    return min(value, MAX_MESSAGE_BYTES)


def size_of(frames: list[Buffer]) -> int:
    """The bytes of a message."""
    return sum(map(len, frames))


def split_to_fit(
    records: Sequence[T], encode: Callable[[Sequence[T]], list[Buffer]], limit: int
) -> tuple[list[Buffer], int]:
    """Return the frames of the first of `records`, and how many these are: half of them, a quarter, ... until they fit.

    One alone is returned whatever its size.
    """
    number = len(records)
    while True:
        number = max(number >> 1, 1)
        frames = encode(records[:number])
        if number == 1 or size_of(frames) <= limit:
            return frames, number


class SizeLimit:
    """How large a message the peer takes, and what is reported of larger ones; only the first report is logged.

    Args: `endpoint` is the one that the log names, `who` takes the messages.
    """

    def __init__(self, endpoint: str, who: str) -> None:
        self._endpoint = endpoint
        self._who = who
        # In bytes. `known`: the peer has said what it takes. Under link.lock; read as a hint elsewhere.
        self.bytes: int = UNGREETED.message_bytes
        # Of its first frame, at most as much.
        self.body: int = UNGREETED.message_bytes
        self.known: bool = False
        # Unguarded: two that come first at once are both logged.
        self._reported = False

    def fits(self, frames: list[Buffer]) -> bool:
        """Whether the peer takes a message of these frames."""
        return len(frames[0]) <= self.body and size_of(frames) <= self.bytes

    def report(self, what: str, size: int, limit: int = 0, body: int = 0) -> str:
        """Return, in one sentence, that `what` is too large. Any thread, holding any lock.

        Args: `limit` is that of one of several peers, where this is for them all. `body`: how much of `size` is not
            beside the first frame.
        """
        most = limit or self.bytes
        if size > most:
            text = f"{what} takes {size} bytes, and {self._who} takes no message above {most} (its max_message_bytes)"
        else:
            text = (
                f"{what} takes {body} bytes without its arrays and large byte strings, and {self._who} takes no more"
                f" than {self.body} of them in one message (its max_body_bytes)"
            )
        if not self._reported:
            self._reported = True
            log.warning("%s: not sent: %s; further ones are not reported", self._endpoint, text, later=True)
        return text

    def check_push(self, pipe: str, size: int, limit: int = 0) -> None:
        """Raise `BadStubData` if a push of so many bytes might make a message that the peer is known not to take."""
        most = limit or (self.body if self.known else sys.maxsize)
        size += _SHIPMENT_REST
        if size > most:
            raise BadStubData(self.report(f"a push into pipe {pipe!r}", size, limit, size))
