"""How many bytes of calls wait at an endpoint, for each client and in all.

Theory of operation. Each message that arrives adds its bytes to two totals, its client's and the endpoint's, which
only grow. Nothing is taken off as calls begin: once a total has grown by as much as there was room for, what waits is
counted anew, from the queues. So a message costs two additions, and counting is rare. While too much waits, it is
counted again every `PAUSE` seconds in which some come; in between, what has come counts as waiting.

    arrived: ---------------- room at the last count ----------------> count again: room left, or refuse

Guarantees: no more than a limit and a message waits. A client for which nothing waits may always send one message.

Assumes: the link's lock is held.
"""

from collections.abc import Callable, Mapping

from transport.realtime import monotonic

from ...status import Status
from .open_call import Batch, OpenCall, Peer
from .policy import Refusal

PAUSE = 0.01  # Seconds between two countings while too much waits; arbitrary: counting takes some milliseconds at most.


def waiting_bytes(peer: Peer) -> int:
    """The bytes of a client's calls that wait for a worker."""
    return sum(map(_bytes_of, peer.turns.calls.copy())) + sum(map(_bytes_of, peer.loose.calls.copy()))


def _bytes_of(work: Batch | OpenCall) -> int:
    if isinstance(work, Batch):
        return len(memoryview(work.group.args))
    return len(memoryview(work.args or b"")) + sum(map(len, work.blobs or ()))


class Backlog:
    """See the theory above.

    Args: `peers` are the endpoint's clients; so many bytes may wait for one client, and for all of them; `clients` says
        how many clients the server has.
    """

    def __init__(
        self, peers: Mapping[bytes, Peer], most_of_one: int, most_of_all: int, clients: Callable[[], int]
    ) -> None:
        self._peers = peers
        self._most_of_one = most_of_one
        self._most_of_all = most_of_all
        self._clients = clients
        # Bytes that have arrived, ever; and above how many more may wait than shall.
        self.arrived: int = 0
        self.look_at: int = most_of_all
        # Of a client, at first: it cannot leave more waiting than it has sent.
        self.first_look: int = most_of_one
        # When it may be counted again what waits of all clients.
        self._again = 0.0

    def look(self, peer: Peer) -> Refusal | None:
        """Return why calls of this client are refused, None if they are not. Quick, unless it is time to look."""
        if peer.bytes_in <= peer.look_at and self.arrived <= self.look_at:
            return None
        now = monotonic()
        if self.arrived > self.look_at and now >= self._again:
            self._again = now + PAUSE
            waiting = sum(map(waiting_bytes, list(self._peers.values())))
            self.look_at = self.arrived + self._most_of_all - waiting
        if now >= peer.count_again:
            peer.count_again = now + PAUSE
            peer.look_at = peer.bytes_in + self._most_of_one - waiting_bytes(peer)
        # What has come since it was counted may all wait.
        waiting = self._most_of_one - (peer.look_at - peer.bytes_in)
        if waiting > self._most_of_one:
            text = f"max_client_bytes is {self._most_of_one}"
        elif self.arrived > self.look_at and waiting > (share := self._most_of_all // max(1, self._clients())):
            text = f"a client's share of max_waiting_bytes is {share}"
        else:
            return None
        return Refusal(
            Status.SERVER_TOO_BUSY, f"{waiting} bytes of this client's calls wait, and {text}: complete some first"
        )
