"""A client as a server's endpoint knows it: what it said of itself, its open calls, and the answers that wait for it.

`listener.py` makes one for each connection, and says which thread may do what.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

from transport import Buffer, PeerInfo
from transport.wire.codec import PendingReply
from transport.wire.session import ServerSession

from ..pipes.shipment import Shipment


class Entered(Protocol):
    """What stands in a peer's table for an open call: an `OpenCall`, or the `Batch` that it is one of."""

    # What serves it: an `Entry` of the registry.
    entry: Any


class CallQueue(Protocol):
    """The calls of one connection that wait to be run, in the order in which they were begun."""

    # Appended under link.lock, by a thread that calls `post` after it, outside of the lock.
    calls: deque[Any]

    def post(self) -> None:
        """Have the calls run."""

    def is_settled(self) -> bool:
        """Whether no thread is just on its way into a routine. Unguarded: for when no further ones set out."""

    def waiting(self) -> Iterator[Any]:
        """The calls among the batches that wait, while no thread runs any. (The others know it of themselves.)"""


class Peer:
    """A connected client."""

    __slots__ = (
        "__weakref__", "address", "answers", "association", "calls", "garbage", "host", "id", "lane", "local", "lost",
        "metadata", "parting", "process", "queued", "session", "user", "verdicts",
    )  # fmt: skip

    def __init__(self, id: bytes, info: PeerInfo, local: bool, lane: CallQueue, session: ServerSession) -> None:
        self.id: bytes = id
        self.lane: CallQueue = lane
        self.address: str = info.address
        self.user: str = info.user
        self.local: bool = local
        # Set once, under the server's lock; read anywhere.
        self.lost: bool = False
        # Nothing of it is begun any more but, while the listener is open, one-way calls: it is lost, or the listener
        # closes. Set once, under link.lock; read anywhere.
        self.parting: bool = False
        # How far the conversation has come, and what the client takes. Under link.lock.
        self.session: ServerSession = session
        self.garbage: int = 0
        # What the greeting said.
        self.association: bytes = b""
        self.process: int = 0
        self.host: str = ""
        self.metadata: dict[str, str] = {}
        # What security callbacks said of it, by `AccessPolicy`. Single atomic operations only.
        self.verdicts: dict[object, bool] = {}
        # Calls that arrived and are not closed. Taking a call out is closing it: one atomic operation, anywhere.
        self.calls: dict[int, Entered] = {}
        # Answers to be sent, or a message of its own: its frames, or what makes them. Appended anywhere, taken under
        # link.lock.
        self.answers: deque[PendingReply | list[Buffer] | Shipment] = deque()
        # Whether the peer waits in `Answers.outgoing`.
        self.queued: bool = False
