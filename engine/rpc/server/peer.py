"""A client as a server's endpoint knows it: what it said of itself, its open calls, and the answers that wait for it.

`listener.py` makes one for each connection, and says which thread may do what.
"""

import sys
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from transport import Buffer, PeerInfo
from transport.frames import PIPE_WINDOW_BYTES
from transport.wire.codec import PendingReply
from transport.wire.conversation import Conversation, Side

if TYPE_CHECKING:
    from ..pipes.shipment import Shipment
    from .admission import AccessPolicy
    from .batch import Batch
    from .call import ServerCall


class CallQueue(Protocol):
    """The calls of one connection that wait to be run, in the order in which they were begun."""

    # Appended under link.lock, by a thread that calls `post` after it, outside of the lock.
    calls: "deque[Batch | ServerCall]"

    def post(self) -> None:
        """Have the calls run."""

    def is_settled(self) -> bool:
        """Whether no thread is just on its way into a routine. Unguarded: for when no further ones set out."""

    def waiting(self) -> "Iterator[ServerCall]":
        """The calls among the batches that wait, while no thread runs any. (The others know it of themselves.)"""


class Peer:
    """A connected client."""

    __slots__ = (
        "__weakref__", "address", "answers", "association", "calls", "conversation", "garbage", "greeted", "host", "id",
        "joined", "lane", "local", "lost", "message_limit", "metadata", "parting", "pipe_window", "process", "queued",
        "refused", "taken", "user", "verdicts",
    )  # fmt: skip

    def __init__(self, id: bytes, info: PeerInfo, local: bool, lane: "CallQueue") -> None:
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
        # Under link.lock.
        self.conversation: Conversation = Conversation(Side.SERVER)
        self.garbage: int = 0
        self.refused: bool = False
        # Calls are in order: after the greeting, before the goodbye. Under link.lock.
        self.greeted: bool = False
        # How many messages of calls were taken since the greeting. Under link.lock.
        self.taken: int = 0
        # What the greeting said.
        self.association: bytes = b""
        # Whether it was counted among the connections of its association.
        self.joined: bool = False
        self.process: int = 0
        self.host: str = ""
        self.metadata: dict[str, str] = {}
        self.pipe_window: int = PIPE_WINDOW_BYTES
        self.message_limit: int = sys.maxsize
        # What security callbacks said of it. Single atomic operations only.
        self.verdicts: dict[AccessPolicy, bool] = {}
        # Calls that arrived and are not closed. Taking a call out is closing it: one atomic operation, anywhere.
        self.calls: dict[int, ServerCall | Batch] = {}
        # Answers to be sent, or a message of its own: its frames, or what makes them. Appended anywhere, taken under
        # link.lock.
        self.answers: deque[PendingReply | list[Buffer] | Shipment] = deque()
        # Whether the peer waits in `Answers.outgoing`.
        self.queued: bool = False
