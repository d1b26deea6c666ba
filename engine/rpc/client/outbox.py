"""What a client has to send: calls that wait for company, and messages of their own.

Theory of operation. Any thread appends, with no lock; one thread at a time takes, under link.lock. A call waits as the
tuple that will be encoded with others when it leaves; a `Special` is a message already.

Guarantees: what one thread appends leaves in the order in which it was appended. A call that cannot be encoded ends by
itself, and those that would have shared its message leave.

Assumes: `deque.append`, `popleft`, `copy` and `remove` are atomic.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from transport import Buffer
from transport.wire.codec import PendingCall, encode_calls

from ..batching import COALESCE_RECORDS, take_together
from ..pipes.shipment import Shipment


class Special(msgspec.Struct, eq=False):
    """A message of its own in the queue: a call with large values, or one that is no call (number 0).

    One without frames is a shipment of elements for pipes; its frames are made as it leaves.
    """

    frames: list[Buffer]
    call_id: int = 0
    shipment: Shipment | None = None


class Outbox:
    """The queue of one client. `queue` is public: beginning a call appends to it directly."""

    __slots__ = ("_end", "queue", "taken")

    def __init__(self, end: Callable[[int, Exception], None]) -> None:
        # Ends the call of this number, which cannot be encoded. Under link.lock.
        self._end = end
        # Oldest first.
        self.queue: deque[PendingCall | Special] = deque()
        # Under link.lock: what the message taken last was made of.
        self.taken: Sequence[PendingCall | Special] = ()

    def take(self, most: int = COALESCE_RECORDS) -> list[Buffer]:
        """Take the frames of the next message, of `most` calls; none if there is none. Under link.lock."""
        queue = self.queue
        self.taken = ()
        try:
            first = queue.popleft()
        except IndexError:
            return []
        if isinstance(first, Special):
            self.taken = [first]
            if first.shipment is not None and not first.frames:
                first.frames = first.shipment.take()  # Kept: the link may not take them.
            return first.frames
        calls: list[PendingCall] = [first]
        self.taken = calls
        if queue:
            take_together(queue, calls, most)
        try:
            return encode_calls(calls)
        except Exception:
            return self._take_apart(calls)

    def _take_apart(self, calls: list[PendingCall]) -> list[Buffer]:
        """Take the frames of the next message again, without those of `calls` that cannot be encoded: they end."""
        good: list[PendingCall] = []
        for call in calls:
            try:
                encode_calls([call])
                good.append(call)
            except Exception as error:
                self._end(call[0], error)
        self.taken = good
        try:
            return encode_calls(good) if good else self.take()
        except BaseException:
            self.put_back()  # No memory for all of them, for one.
            raise

    def put_back(self) -> None:
        """The message taken last did not leave: what it was made of is the oldest again. Under link.lock."""
        self.queue.extendleft(reversed(self.taken))
        self.taken = ()

    def taken_numbers(self) -> set[int]:
        """The numbers of the calls in the message taken last; 0 stands for what is no call. Under link.lock."""
        return {_number(pending) for pending in self.taken}

    def numbers(self) -> set[int]:
        """The numbers of the calls that have not left."""
        return {_number(pending) for pending in self.queue.copy()}

    def withdraw(self, call_ids: set[int]) -> set[int]:
        """Take these calls out of the queue; return those that never leave now: the others do just now, or have."""
        found: set[int] = set()
        for pending in self.queue.copy():
            if (number := _number(pending)) in call_ids:
                with suppress(ValueError):  # It leaves just now.
                    self.queue.remove(pending)
                    found.add(number)
        return found

    def discard(self, special: Special) -> None:
        """Take a message of its own out of the queue, if it is still there."""
        with suppress(ValueError):  # It has left.
            self.queue.remove(special)

    def refresh_limits(self, time_left: dict[int, float]) -> None:
        """Tell calls that waited for a connection what is left of their time limits."""
        for pending in self.queue.copy():
            if not isinstance(pending, Special) and pending[3] is not None and pending[0] in time_left:
                pending[3].time_left = time_left[pending[0]]


def _number(pending: PendingCall | Special) -> int:
    return pending.call_id if isinstance(pending, Special) else pending[0]
