"""Links driven by hand: poll descriptors, harvest, note what the receiver was told."""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from engine.testing import LIMIT
from transport import Buffer, Link, PeerInfo
from transport.native_link.framing import hello


class Party:
    """A link and everything that it told its receiver, in order."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.log: list[tuple[str, bytes, object]] = []
        self.evictions: list[bytes] = []
        self.vain: list[bool] = []
        self.woken = threading.Event()
        link.wake = self.woken.set

    # What a Receiver has.

    def on_message(self, peer: bytes, frames: list[Buffer]) -> bool | None:
        self.log.append(("message", peer, frames))
        return None

    def on_connected(self, peer: bytes) -> None:
        self.log.append(("connected", peer, None))

    def on_lost(self, peer: bytes, reason: str, evicted: bool = False) -> None:
        self.log.append(("lost", peer, reason))
        if evicted:
            self.evictions.append(peer)

    def on_connect_failed(self, reason: str, vain: bool = False) -> None:
        self.log.append(("refused", b"", reason))
        self.vain.append(vain)

    # What it was told, by kind.

    def of(self, kind: str) -> list[tuple[bytes, object]]:
        return [(peer, content) for what, peer, content in self.log if what == kind]

    @property
    def messages(self) -> list[tuple[bytes, list[bytes]]]:
        return [
            (peer, [bytes(frame) for frame in content])
            for peer, content in self.of("message")
            if isinstance(content, list)
        ]

    @property
    def ups(self) -> list[bytes]:
        return [peer for peer, _ in self.of("connected")]

    @property
    def losses(self) -> list[bytes]:
        return [peer for peer, _ in self.of("lost")]

    @property
    def reasons(self) -> list[str]:
        """Why peers were lost."""
        return [str(reason) for _, reason in self.of("lost")]

    @property
    def refusals(self) -> list[str]:
        return [str(reason) for _, reason in self.of("refused")]

    # The link, under its lock.

    def send(self, peer: bytes, frames: list[Buffer]) -> bool:
        with self.link.lock:
            return self.link.send(peer, frames)

    def harvest(self, limit: int = 64) -> bool:
        with self.link.lock:
            return self.link.harvest(self, limit)

    def ready(self) -> bool:
        with self.link.lock:
            return self.link.ready()

    def writable(self) -> bool:
        with self.link.lock:
            return self.link.writable()

    def info(self, peer: bytes) -> PeerInfo:
        with self.link.lock:
            return self.link.peer_info(peer)

    def close(self) -> None:
        with self.link.lock:
            self.link.close()


@contextmanager
def deaf_server(endpoint: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """A server of ZMTP that welcomes who connects, and reads nothing more until it is told to hear.

    Yields where it listens, on tcp or ipc, and what tells it.
    """
    scheme, _, where = endpoint.partition("://")
    with socket.socket(socket.AF_UNIX if scheme == "ipc" else socket.AF_INET) as listener, ExitStack() as made:
        listener.bind(where if scheme == "ipc" else ("127.0.0.1", 0))
        listener.listen()
        hears = threading.Event()

        def serve() -> None:
            with suppress(OSError):  # The client is gone.
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(hello(b"ROUTER"))
                    hears.wait(LIMIT)
                    while connection.recv(1 << 20):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        made.callback(thread.join, LIMIT)
        made.callback(listener.shutdown, socket.SHUT_RDWR)
        made.callback(hears.set)
        yield endpoint if scheme == "ipc" else f"tcp://127.0.0.1:{listener.getsockname()[1]}", hears.set


def exchange(parties: Sequence[Party], until: Callable[[], object]) -> None:
    """Harvest whenever a descriptor is readable or a link says that it is ready, until `until()` is true."""
    deadline = time.monotonic() + LIMIT
    poll = select.poll()
    for party in parties:
        for descriptor in party.link.descriptors():
            poll.register(descriptor, select.POLLIN)
    while True:
        for party in parties:
            while party.harvest():
                pass
        if until():
            return
        left = deadline - time.monotonic()
        assert left > 0, f"it did not happen: {[party.log for party in parties]}"
        if not any(party.ready() for party in parties):
            # Bounded, because `until` may look at something that no descriptor tells of.
            poll.poll(min(left, 0.05) * 1000)


def wait_ready(party: Party) -> None:
    """Wait until there is something to harvest, and leave it there."""
    deadline = time.monotonic() + LIMIT
    poll = select.poll()
    for descriptor in party.link.descriptors():
        poll.register(descriptor, select.POLLIN)
    while not party.ready():
        left = deadline - time.monotonic()
        assert left > 0, f"nothing came: {party.log}"
        poll.poll(left * 1000)


def settle(parties: Sequence[Party], quiet: float = 0.2) -> None:
    """Harvest until nothing has happened for `quiet` seconds: to show that something does *not* come."""
    poll = select.poll()
    for party in parties:
        for descriptor in party.link.descriptors():
            poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + quiet
    while (left := deadline - time.monotonic()) > 0:
        before = sum(len(party.log) for party in parties)
        for party in parties:
            while party.harvest():
                pass
        if sum(len(party.log) for party in parties) != before:
            deadline = time.monotonic() + quiet
        elif not any(party.ready() for party in parties):
            poll.poll(left * 1000)
