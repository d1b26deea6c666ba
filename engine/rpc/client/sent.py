"""Which calls have left over a client's connection, and in which of its messages.

Theory of operation. A server that closes says how many of the messages with calls it has taken. So a client counts
them, and keeps, for each, the numbers of its calls. Those whose calls have all ended are forgotten now and then: when
twice as many messages are kept as had outstanding calls the last time, so that looking costs little for each call, and
what is kept is in proportion to what is outstanding.

Guarantees: an outstanding call is in here if, and only if, it has left over this connection, or was just put back into
the queue because the link had no room for it.

All under link.lock.
"""

from collections.abc import KeysView, Sequence

FEW_MESSAGES = 64  # Arbitrary: with up to 128 calls each, what is kept of ended calls is some hundred KB.


class Sent:
    """The messages with calls that have left in one conversation. Whoever sends appends to `messages` directly."""

    __slots__ = ("count", "messages", "most")

    def __init__(self) -> None:
        # How many have left.
        self.count: int = 0
        # Which of them each is, and the numbers of its calls; oldest first.
        self.messages: list[tuple[int, Sequence[int]]] = []
        # When there are more than these, `forget` is due.
        self.most: int = FEW_MESSAGES

    def forget(self, outstanding: KeysView[int]) -> None:
        """Keep the messages of which calls are outstanding."""
        self.messages = [message for message in self.messages if not outstanding.isdisjoint(message[1])]
        self.most = FEW_MESSAGES + 2 * len(self.messages)

    def take_back(self) -> None:
        """The message counted last did not leave after all, and will not."""
        self.messages = [message for message in self.messages if message[0] != self.count]
        self.count -= 1

    def numbers(self) -> dict[int, int]:
        """Return, for each outstanding call that has left, the number of its message."""
        return {call_id: number for number, calls in self.messages for call_id in calls}
