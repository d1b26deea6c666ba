"""Where a client's connection is in its life, and a snapshot of a client."""

from enum import Enum

import msgspec


class Connection(Enum):
    """Where a client's connection is in its life."""

    CONNECTING = "connecting"  # There is no connection.
    GREETING = "greeting"  # There is one, and this side has greeted; the server has not.
    CONNECTED = "connected"
    CLOSED = "closed"


class ClientStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a client's counters; all but `outstanding` only grow.

    `retries`: how often calls of idempotent operations were queued again; `retries_refused`: how often the budget
    forbade it.
    """

    connection: str
    outstanding: int
    calls_begun: int
    calls_finished: int
    replies_late: int
    messages_sent: int
    messages_received: int
    garbage_received: int
    connections: int
    retries: int
    retries_refused: int
