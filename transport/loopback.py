"""The in-memory link: client and server in one process, whole messages handed over as they are.

Theory of operation. Each side has a queue of what it is to harvest: (what, peer, content). A send appends to
the other side's queue and calls its `wake`. No lock is shared: each side's state is guarded by its own link's
lock, and the queues are deques, whose `append` and `popleft` are atomic (also in free-threaded builds). A
registry finds a server by name, and keeps the clients that wait for one. A frame that is too large for the other side
ends the connection, as it does on a network, and another one is made.

Guarantees: those of `Link`. The blobs of a message are those of the sender, not copies, unless the sender
could still change them: then they are copied, since what was received must stay as it is. Each side's queue is bounded.
"""

import itertools
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from transport.endpoint import Endpoint
from transport.errors import EndpointError, PeerLost
from transport.frames import Buffer
from transport.lifecycle import in_child
from transport.link import BaseLink, LinkOptions, PeerInfo, Receiver
from transport.lock import Lock

_MESSAGE: Final = 0
_CONNECTED: Final = 1
_LOST: Final = 2
_REFUSED: Final = 3


class _Loopback(BaseLink):
    """What both sides share."""

    kind = "loopback"
    _serves = False  # Whether this is the server's side.

    def __init__(self, endpoint: Endpoint, options: LinkOptions) -> None:
        super().__init__(str(endpoint))
        self._name = endpoint.name
        self._max_queued = options.max_queued
        self._max_bytes = options.max_message_bytes
        # What is to be harvested: (what, peer, content). Appended to by the other side, without a lock.
        self._queue: deque[tuple[int, bytes, Any]] = deque()
        # What a link says of that, without a call of a function in Python: see `Link`.
        self.arrived: object = self._queue
        self.ready: Callable[[], bool] = partial(bool, self._queue)
        # Guarded by lock. The entry that is being delivered, or was delivered last.
        self._delivering: tuple[int, bytes, Any] | None = None
        # Guarded by lock. Exactly the peers of which the receiver got `on_connected` and not yet `on_lost`; of a client
        # what its server calls it.
        self._known: set[bytes] = set()
        # Senders that found the queue full, to be woken when it is half empty. Added to by the other side.
        self._starved: set[_Loopback] = set()
        self._closed = False

    def descriptors(self) -> list[int]:
        """None: see `wake`."""
        return []

    def _put(self, what: int, peer: bytes, content: Any) -> None:
        """Called by the other side, and when connecting."""
        self._queue.append((what, peer, content))
        wake = self.wake
        if wake is not None:
            wake()

    def _offer(self, sender: "_Loopback", peer: bytes, frames: list[Buffer]) -> bool:
        """Called by the other side: take a message, or say that there is no room and wake it when there is."""
        if len(self._queue) >= self._max_queued:
            self._starved.add(sender)
            # Had the queue been emptied between the two lines above, no harvest would look at the set again.
            if len(self._queue) >= self._max_queued:
                return False
        if len(frames[0]) > self._max_bytes:
            self._break(sender, peer)
            return True
        if len(frames) > 1:
            if max(map(len, frames)) > self._max_bytes:
                self._break(sender, peer)
                return True
            frames = [frames[0], *map(_frozen, frames[1:])]
        self._queue.append((_MESSAGE, peer, frames))
        wake = self.wake
        if wake is not None:
            wake()
        return True

    def _break(self, sender: "_Loopback", peer: bytes) -> None:
        """End the connection over which `sender` sent a frame that is too large here, and make another."""
        raise NotImplementedError

    def harvest(self, receiver: Receiver, limit: int = 64) -> bool:
        """Deliver what has arrived; see `Link.harvest`."""
        queue = self._queue
        try:
            # `_deliver` in line, for one message, as most harvests find it.
            if len(queue) == 1 and queue[0][0] == _MESSAGE and queue[0][1] in self._known:
                _, peer, frames = self._delivering = queue[0]
                receiver.on_message(peer if self._serves else b"", frames)
                queue.popleft()
            else:
                self._deliver(receiver, limit)
        except BaseException:
            # What is no message is delivered again.
            if queue and queue[0] is self._delivering and queue[0][0] == _MESSAGE:
                if self._give_up(receiver, queue[0][1]):
                    queue.popleft()
            raise
        if self._starved:
            self._feed()
        return bool(queue)

    def _deliver(self, receiver: Receiver, limit: int) -> None:
        """Deliver what is in the queue. Each entry leaves it afterwards: an interrupt finds it there."""
        raise NotImplementedError

    def _give_up(self, receiver: Receiver, peer: bytes) -> bool:
        """Something broke in on a message of that peer, which may be half delivered; false: deliver it again."""
        raise NotImplementedError

    def _feed(self) -> None:
        """After a harvest: wake the links that wait for room."""
        if self._starved and len(self._queue) <= self._max_queued // 2:
            while self._starved:
                wake = self._starved.pop().wake
                if wake is not None:
                    wake()

    def _release(self) -> None:
        self._closed = True
        self._delivering = None
        self._queue.clear()


class LoopbackClient(_Loopback):
    """The client's side."""

    def __init__(self, endpoint: Endpoint, options: LinkOptions) -> None:
        super().__init__(endpoint, options)
        # Guarded by lock. Who the last harvest said we are connected to, and what we are called there.
        self._server: LoopbackServer | None = None
        self._peer = b""
        # Guarded by _registry_lock, read without it. The connection that the last harvest reported is gone.
        self._cut = False
        with _registry_lock:
            server = _servers.get(self._name)
            if server is None:
                _waiting.setdefault(self._name, weakref.WeakSet()).add(self)
                self._put(_REFUSED, b"", f"cannot connect to {endpoint}: nobody listens there yet")
            else:
                server._attach(self)

    def send(self, peer: bytes, frames: list[Buffer]) -> bool:
        """Hand over one message; see `Link.send`."""
        server = self._server
        if server is None or server._closed or self._cut:
            return False
        queue = server._queue
        if len(frames) == 1 and len(queue) < server._max_queued and len(frames[0]) <= server._max_bytes:
            queue.append((_MESSAGE, self._peer, frames))  # `_offer` in line, for most messages.
            if (wake := server.wake) is not None:
                wake()
            return True
        return server._offer(self, self._peer, frames)

    def writable(self) -> bool:
        """Whether there is a server, with room in its queue."""
        server = self._server
        return server is not None and not server._closed and not self._cut and len(server._queue) < server._max_queued

    def _deliver(self, receiver: Receiver, limit: int) -> None:
        queue = self._queue
        ended: bool | None = False
        for _ in range(limit):
            if not queue or ended:
                break
            what, peer, content = self._delivering = queue[0]
            if what == _MESSAGE:
                ended = receiver.on_message(b"", content)
            elif what == _CONNECTED:
                self._server, self._peer = content, peer
                self._cut = False
                self._known = {peer}
                receiver.on_connected(b"")
            elif what == _LOST:
                if self._server is not None:
                    self._known.clear()
                    receiver.on_lost(b"", content)
                    self._server = None
            else:
                receiver.on_connect_failed(content)
            queue.popleft()

    def _give_up(self, receiver: Receiver, peer: bytes) -> bool:
        self.leave()  # The answer to a call may be gone.
        return True

    def leave(self) -> None:
        """Close the connection, and go on with a new one; see `Link.leave`."""
        with _registry_lock:
            server = self._server
            if server is not None and server._clients.get(self._peer) is self:
                self._cut = True
                server._detach(self)
                self._put(_LOST, b"", "left")
                server._attach(self)

    def _break(self, sender: _Loopback, peer: bytes) -> None:
        assert isinstance(sender, LoopbackServer)
        sender._cut_off(self, peer)

    def _release(self) -> None:
        """Detach from the server, whose next harvest reports it."""
        super()._release()
        with _registry_lock:
            _waiting.get(self._name, weakref.WeakSet()).discard(self)
            server = _servers.get(self._name)
            if server is not None:
                server._detach(self)


class LoopbackServer(_Loopback):
    """The server's side."""

    _serves = True

    def __init__(self, endpoint: Endpoint, options: LinkOptions) -> None:
        super().__init__(endpoint, options)
        # Guarded by _registry_lock, read without it by `send`. Exactly the clients that are attached.
        self._clients: dict[bytes, LoopbackClient] = {}
        # Guarded by _registry_lock, read without it. Peers that were cut off, until their client is heard of anew: a
        # message that was just being handed over may come after their end, and does not bring them back.
        self._cut_peers: dict[bytes, LoopbackClient] = {}
        with _registry_lock:
            if self._name in _servers:
                self._refuse(lambda: EndpointError(f"{endpoint} was never bound"))
                raise EndpointError(f"cannot bind {endpoint}: a server listens there")
            _servers[self._name] = self
            self._attach_waiting()

    def _attach_waiting(self) -> None:
        """Called with _registry_lock held."""
        for client in list(_waiting.pop(self._name, ())):
            self._attach(client)

    def _attach(self, client: LoopbackClient) -> None:
        """Called with _registry_lock held."""
        peer = next(_peers).to_bytes(8)
        self._clients[peer] = client
        client._put(_CONNECTED, peer, self)

    def _break(self, sender: _Loopback, peer: bytes) -> None:
        assert isinstance(sender, LoopbackClient)
        self._cut_off(sender, peer)

    def _cut_off(self, client: LoopbackClient, peer: bytes, reason: str = "a message was too large") -> None:
        """End a connection, and make another."""
        with _registry_lock:
            if self._clients.pop(peer, None) is not client:
                return
            client._cut = True
            self._cut_peers[peer] = client
            self._put(_LOST, peer, reason)
            client._put(_LOST, b"", reason)
            self._attach(client)

    def disconnect(self, peer: bytes, reason: str) -> None:
        """End the connection of a peer, whose client comes again as another; see `Link.disconnect`."""
        client = self._clients.get(peer)
        if client is not None:
            self._cut_off(client, peer, reason)

    def _heard(self, peer: bytes) -> bool:
        """A peer's first message came: whether it is taken. What its client said over an earlier connection is past."""
        with _registry_lock:
            if peer in self._cut_peers:
                return False
            self._forget_cut(self._clients.get(peer))
            return True

    def _forget_cut(self, client: LoopbackClient | None) -> None:
        """Called with _registry_lock held."""
        self._cut_peers = {cut: of for cut, of in self._cut_peers.items() if of is not client}

    def _detach(self, client: LoopbackClient) -> None:
        """Called with _registry_lock held: a client closes."""
        for peer, attached in list(self._clients.items()):
            if attached is client:
                del self._clients[peer]
                self._put(_LOST, peer, "the client closed the link")

    def send(self, peer: bytes, frames: list[Buffer]) -> bool:
        """Hand over one message; see `Link.send`."""
        client = self._clients.get(peer)
        if client is None:
            raise PeerLost(f"there is no peer {peer.hex()} on {self.endpoint}")
        queue = client._queue
        if len(frames) == 1 and len(queue) < client._max_queued and len(frames[0]) <= client._max_bytes:
            queue.append((_MESSAGE, peer, frames))  # `_offer` in line, for most messages.
            if (wake := client.wake) is not None:
                wake()
            return True
        return client._offer(self, peer, frames)

    def writable(self) -> bool:
        """A server finds out by sending: it has no one peer."""
        return True

    def _deliver(self, receiver: Receiver, limit: int) -> None:
        queue = self._queue
        known = self._known
        ended: bool | None = False
        for _ in range(limit):
            if not queue or ended:
                break
            what, peer, content = self._delivering = queue[0]
            if what == _MESSAGE:
                if peer in known or self._meet(peer, receiver):
                    ended = receiver.on_message(peer, content)
            elif peer in known:
                receiver.on_lost(peer, content)
                known.discard(peer)
            queue.popleft()

    def _give_up(self, receiver: Receiver, peer: bytes) -> bool:
        if peer not in self._known:
            return False  # Nothing was done with it yet.
        receiver.on_message(peer, [])
        return True

    def _meet(self, peer: bytes, receiver: Receiver) -> bool:
        """The first message of a peer: whether it is taken."""
        if self._cut_peers and not self._heard(peer):
            return False
        try:
            self._known.add(peer)
            receiver.on_connected(peer)
        except BaseException:
            self._known.discard(peer)
            raise
        return True

    def peer_info(self, peer: bytes) -> PeerInfo:
        """What is known of a peer: that it is in this process. Raises PeerLost if it is not known (any more)."""
        if peer not in self._known:
            raise PeerLost(f"there is no peer {peer.hex()} on {self.endpoint}")
        return PeerInfo(address="loopback")

    def _release(self) -> None:
        """Detach the clients; they wait for another server of this name."""
        super()._release()
        with _registry_lock:
            if _servers.get(self._name) is self:
                del _servers[self._name]
            self._detach_all()

    def _detach_all(self) -> None:
        """Called with _registry_lock held."""
        for client in self._clients.values():
            client._put(_LOST, b"", "the server closed the link")
            _waiting.setdefault(self._name, weakref.WeakSet()).add(client)
        self._clients.clear()


def _frozen(blob: Buffer) -> Buffer:
    """The blob itself if it cannot change, otherwise a copy."""
    if type(blob) is bytes or (type(blob) is memoryview and type(blob.obj) is bytes):
        return blob
    return bytes(blob)


# By name. _registry_lock guards both; holding it, no other lock is taken (but what a `wake` may take).
_registry_lock = Lock()
_servers: dict[str, LoopbackServer] = {}
_waiting: dict[str, "weakref.WeakSet[LoopbackClient]"] = {}
_peers: Final = itertools.count(1)


def _forget() -> None:
    """In a forked child: the names belong to the parent's links."""
    _servers.clear()
    _waiting.clear()


in_child(_forget)
