"""The contract of a link, held by every kind: the rules at the top of `transport/link.py`."""

import gc
import os
import re
import select
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any, cast

import pytest
import zmq

from engine.testing import LIMIT
from tests.certificates import CLIENT, for_client, for_server
from tests.transport.helpers import Party, deaf_server, exchange, settle, wait_ready
from transport import (
    EndpointError,
    Link,
    LinkClosed,
    LinkForked,
    PeerLost,
    bind,
    connect,
)

_names = count()

# Where a server that does not harvest reads no more, after a while.
READS_NO_MORE = ("native+tcp", "native+ipc", "tls", "inproc", "loopback")

KINDS = ("tcp", "ipc", "native+tcp", "native+ipc", "tls", "inproc", "loopback")


class House:
    """Makes parties on endpoints of one kind, and closes them all."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.native = kind == "tls" or kind.startswith("native+")
        self.over_tcp = kind.endswith(("tcp", "tls"))
        self.folder = folder
        self.parties: list[Party] = []

    def endpoint(self) -> str:
        """An endpoint that nobody has bound."""
        if self.over_tcp:
            return f"{self.kind}://127.0.0.1:*"
        if self.kind.endswith("ipc"):
            return f"{self.kind}://{self.folder}/{next(_names)}"
        return f"{self.kind}://test-{next(_names)}"

    def server(self, endpoint: str | None = None, **options: Any) -> Party:
        endpoint = endpoint or self.endpoint()
        return self._add(Party(bind(endpoint, **for_server(endpoint), **options)))

    def client(self, server: Party | str, **options: Any) -> Party:
        endpoint = server if isinstance(server, str) else server.link.endpoint
        return self._add(Party(connect(endpoint, **for_client(endpoint), **options)))

    def _add(self, party: Party) -> Party:
        self.parties.append(party)
        return party

    def pair(self, **options: Any) -> tuple[Party, Party]:
        """A server and a client that know of each other; the client's first message was b"hello"."""
        server = self.server(**options)
        client = self.client(server, **options)
        exchange([server, client], lambda: client.ups)
        assert client.send(b"", [b"hello"])
        exchange([server, client], lambda: server.messages)
        return server, client


@pytest.fixture(params=KINDS)
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    found = House(request.param, tmp_path)
    yield found
    for party in found.parties:
        party.close()
    found.parties.clear()
    gc.collect()


def test_every_scheme() -> None:
    """Every scheme that an endpoint may have is a kind of link in this suite."""
    with pytest.raises(EndpointError) as caught:
        bind("none-of-them://name")
    assert re.findall(r"([\w+]+)://", str(caught.value).partition("is not one of")[2]) == list(KINDS)


class TestMessages:
    def test_a_message_arrives_whole(self, house: House) -> None:
        """Frames arrive as they were sent, small and large, each as one."""
        server, client = house.pair()
        frames = [b"", b"a", bytes(40_000), os.urandom(700_000)]
        assert client.send(b"", list(frames))
        exchange([server, client], lambda: len(server.messages) == 2)
        assert server.messages[1][1] == frames

    def test_both_ways(self, house: House) -> None:
        """The server answers the peer that a message came from; the client's peer has no name."""
        server, client = house.pair()
        peer = server.messages[0][0]
        frames = [b"answer", os.urandom(1_000_000)]
        assert server.send(peer, list(frames))
        exchange([server, client], lambda: client.messages)
        assert client.messages == [(b"", frames)]

    def test_order_is_kept(self, house: House) -> None:
        """Messages of one peer arrive in the order sent, each once."""
        server, client = house.pair()
        for number in range(300):
            while not client.send(b"", [b"%d" % number]):
                exchange([server, client], client.writable)
        exchange([server, client], lambda: len(server.messages) == 301)
        assert [frames[0] for _, frames in server.messages[1:]] == [b"%d" % number for number in range(300)]

    def test_a_harvest_takes_no_more_than_its_limit(self, house: House) -> None:
        """If it took that many, it says that there may be more."""
        server, client = house.pair()
        for number in range(5):
            assert server.send(server.messages[0][0], [b"%d" % number])
        while (before := len(client.messages)) < 5:
            wait_ready(client)
            more = client.harvest(limit=2)
            taken = len(client.messages) - before
            assert taken <= 2
            assert more or taken < 2
        assert [frames for _, frames in client.messages] == [[b"%d" % number] for number in range(5)]

    def test_a_server_takes_no_more_than_its_limit_either(self, house: House) -> None:
        """Of many messages of its clients a server takes so many at a time, and says that there are more."""
        server, client = house.pair()
        before = len(server.messages)
        for number in range(5):
            assert client.send(b"", [b"%d" % number])
        while (taken := len(server.messages)) < before + 5:
            wait_ready(server)
            more = server.harvest(limit=2)
            new = len(server.messages) - taken
            assert new <= 2
            assert more or new < 2
        assert [frames for _, frames in server.messages[before:]] == [[b"%d" % number] for number in range(5)]

    def test_a_receiver_ends_the_harvest(self, house: House) -> None:
        """If `message` returns true the rest is left to the next harvest, and nothing is lost."""
        server, client = house.pair()
        peer = server.messages[0][0]
        for number in range(3):
            assert server.send(peer, [b"%d" % number])

        class One(Party):
            def on_message(self, peer: bytes, frames: list[Any]) -> bool:
                super().on_message(peer, frames)
                return True

        one = One(client.link)
        for expected in (1, 2, 3):
            wait_ready(one)
            one.harvest()
            assert len(one.messages) == expected
        assert [frames for _, frames in one.messages] == [[b"0"], [b"1"], [b"2"]]

    def test_a_send_looks_what_has_arrived(self, house: House) -> None:
        """Either side sees, as it has sent, that there is something to harvest, or that there is nothing.

        A link whose descriptor goes on to show what was not read says only what it has read, and not delivered.
        """
        server, client = house.pair()
        if house.native:
            assert server.send(server.messages[0][0], [b"shown"])
            wait_ready(client)
            assert client.send(b"", [b"sent"]) and not client.link.arrived
            assert select.select(client.link.descriptors(), [], [], 0)[0]
            return
        peer = server.messages[0][0]
        exchange([server, client], lambda: not any(party.ready() for party in (server, client)))
        assert client.send(b"", [b"one"])
        wait_ready(server)
        assert server.send(peer, [b"two"]) and server.link.arrived
        wait_ready(client)
        assert client.send(b"", [b"three"]) and client.link.arrived
        exchange([server, client], lambda: len(server.messages) == 3 and len(client.messages) == 1)
        for sent in (client.send(b"", [b"four"]), server.send(peer, [bytes(1 << 20)])):
            assert sent
        exchange([server, client], lambda: len(server.messages) == 4 and len(client.messages) == 2)
        assert client.send(b"", [b"five"]) and not client.link.arrived
        exchange([server, client], lambda: len(server.messages) == 5)
        assert server.send(peer, [b"six"]) and not server.link.arrived

    def test_clients_are_told_apart(self, house: House) -> None:
        """Each client is a peer of its own, and gets what was sent to it."""
        server = house.server()
        clients = [house.client(server) for _ in range(5)]
        exchange([server, *clients], lambda: all(client.ups for client in clients))
        for number, client in enumerate(clients):
            assert client.send(b"", [b"%d" % number])
        exchange([server, *clients], lambda: len(server.messages) == 5)
        assert len(set(server.ups)) == 5
        for peer, frames in server.messages:
            assert server.send(peer, [b"you are ", *frames])
        exchange([server, *clients], lambda: all(client.messages for client in clients))
        for number, client in enumerate(clients):
            assert client.messages == [(b"", [b"you are ", b"%d" % number])]

    def test_what_was_sent_is_a_snapshot_of_frames_that_were_copied(self, house: House) -> None:
        """A small frame may be changed as soon as `send` returned."""
        server, client = house.pair()
        if house.kind == "loopback":
            pytest.skip("the first frame of a message is handed over as it is")
        buffer = bytearray(b"before")
        assert client.send(b"", [buffer])
        buffer[:] = b"after!"
        exchange([server, client], lambda: len(server.messages) == 2)
        assert server.messages[1][1] == [b"before"]


class TestLife:
    def test_connected_comes_first(self, house: House) -> None:
        """Both sides are told of a peer before its first message, once."""
        server, client = house.pair()
        assert client.send(b"", [b"again"])
        exchange([server, client], lambda: len(server.messages) == 2)
        assert [what for what, _, _ in server.log] == ["connected", "message", "message"]
        assert [what for what, _, _ in client.log if what != "refused"] == ["connected"]
        assert len({peer for _, peer, _ in server.log}) == 1

    def test_nothing_is_taken_before_connected(self, house: House) -> None:
        """A send before `connected` was told returns False, and nothing is sent."""
        server = house.server()
        client = house.client(server)
        assert not client.send(b"", [b"too early"])
        assert not client.writable()
        exchange([server, client], lambda: client.ups)
        assert client.writable()
        assert client.send(b"", [b"now"])
        exchange([server, client], lambda: server.messages)
        settle([server, client], 0.05)
        assert [frames for _, frames in server.messages] == [[b"now"]]

    def test_a_client_that_closes_is_lost(self, house: House) -> None:
        """After all its messages, with a reason; sending to it raises PeerLost afterwards."""
        if house.kind == "inproc":
            pytest.skip("ZeroMQ tells nothing of inproc peers: a BYE does")
        server, client = house.pair()
        other = house.client(server)
        exchange([server, other], lambda: other.ups)
        assert other.send(b"", [b"I stay"])
        for number in range(100):
            assert client.send(b"", [b"%d" % number])
        client.close()
        exchange([server, other], lambda: server.losses)
        peer = server.messages[0][0]
        assert server.losses == [peer]
        kinds = [what for what, of, _ in server.log if of == peer]
        assert kinds == ["connected"] + ["message"] * 101 + ["lost"]
        with pytest.raises(PeerLost):
            server.send(peer, [b"too late"])
        assert len(server.ups) == 2

    def test_one_message_and_gone(self, house: House) -> None:
        """What a client handed over before it closed arrives; then it is lost, however late one looks."""
        if house.kind == "inproc":
            pytest.skip("ZeroMQ tells nothing of inproc peers")
        server = house.server()
        client = house.client(server)
        exchange([server, client], lambda: client.ups)
        assert client.send(b"", [b"only this"])
        client.close()
        settle([], 0.1)
        exchange([server], lambda: server.losses)
        assert [what for what, _, _ in server.log] == ["connected", "message", "lost"]

    def test_a_client_that_never_spoke_is_not_mentioned(self, house: House) -> None:
        """The server hears of a peer with its first message."""
        server = house.server()
        client = house.client(server)
        exchange([server, client], lambda: client.ups)
        client.close()
        settle([server], 0.1)
        assert server.log == []

    def test_an_unknown_peer(self, house: House) -> None:
        """Sending to it, or asking about it, raises PeerLost."""
        server, _ = house.pair()
        with pytest.raises(PeerLost):
            server.send(b"nobody", [b"x"])
        with pytest.raises(PeerLost):
            server.info(b"nobody")

    def test_a_server_that_closes_is_lost(self, house: House) -> None:
        """After all its messages; the client can send nothing then."""
        server, client = house.pair()
        for number in range(20):
            assert server.send(server.messages[0][0], [b"%d" % number])
        server.close()
        exchange([client], lambda: client.losses)
        assert [what for what, _, _ in client.log if what != "refused"] == (["connected"] + ["message"] * 20 + ["lost"])
        assert not client.send(b"", [b"x"])
        assert not client.writable()

    def test_a_server_that_comes_back(self, house: House) -> None:
        """The client connects again by itself, and is a new peer."""
        server, client = house.pair()
        first = server.messages[0][0]
        endpoint = server.link.endpoint
        server.close()
        exchange([client], lambda: client.losses)
        again = self._bind_again(house, endpoint)
        exchange([again, client], lambda: len(client.ups) == 2)
        assert client.send(b"", [b"hello again"])
        exchange([again, client], lambda: again.messages)
        peer, frames = again.messages[0]
        assert frames == [b"hello again"]
        assert peer != first
        kinds = [what for what, _, _ in client.log if what != "refused"]
        assert kinds == ["connected", "lost", "connected"]

    def test_a_client_that_leaves(self, house: House) -> None:
        """It closes the connection once it has read what had arrived, and is a new peer over the next one."""
        if house.kind == "inproc":
            pytest.skip("there a server tells of its end by itself")
        server, client = house.pair()
        first = server.messages[0][0]
        assert server.send(first, [b"the last words"])
        wait_ready(client)
        with client.link.lock:
            client.link.leave()
        assert client.ready() and not client.send(b"", [b"too late"])
        exchange([server, client], lambda: len(client.ups) == 2 and server.losses == [first])
        told = [what for what, _, _ in client.log if what != "refused"]
        assert told == ["connected", "message", "lost", "connected"]
        assert client.send(b"", [b"hello again"])
        exchange([server, client], lambda: len(server.messages) == 2)
        assert server.messages[1][0] != first and server.messages[1][1] == [b"hello again"]

    def test_nothing_reaches_the_next_server_unannounced(self, house: House) -> None:
        """While its server was replaced, nobody harvested the client: it sends nothing until it was told."""
        server, client = house.pair()
        endpoint = server.link.endpoint
        server.close()
        again = self._bind_again(house, endpoint)
        observer = house.client(endpoint)
        exchange([again, observer], lambda: observer.ups)
        settle([again, observer], 0.3)  # time enough for the client's own connection
        # Without a thread that looks, it may be taken by the connection that has ended, and be lost with it.
        assert not client.send(b"", [b"meant for the other"]) or house.native
        exchange([again, client], lambda: len(client.ups) == 2)
        assert again.messages == []

    def test_a_server_that_closes_before_it_has_met_a_client(self, house: House) -> None:
        """The client finds the next server."""
        server = house.server()
        endpoint = server.link.endpoint
        client = house.client(endpoint)
        server.close()
        again = self._bind_again(house, endpoint)

        def heard() -> bool:
            # More than once: what is sent over the first connection, which is just ending, is lost with it.
            client.send(b"", [b"hello"])
            return bool(again.messages)

        exchange([again, client], heard)

    @staticmethod
    def _bind_again(house: House, endpoint: str) -> Party:
        bound: list[Party] = []

        def try_it() -> bool:
            # ZeroMQ gives an endpoint free in the background.
            try:
                bound.append(house.server(endpoint))
            except EndpointError:
                return False
            return True

        exchange([], try_it)
        return bound[0]


class TestRefusal:
    def test_nobody_listens(self, house: House) -> None:
        """The receiver is told, and the link goes on trying."""
        if house.kind == "inproc":
            pytest.skip("ZeroMQ waits silently for an inproc server")
        endpoint = house.endpoint()
        if house.over_tcp:
            taken = house.server()
            endpoint = taken.link.endpoint
            taken.close()
            exchange([], lambda: self._is_free(endpoint))
        client = house.client(endpoint)
        exchange([client], lambda: client.refusals)
        assert endpoint in client.refusals[0]
        assert not client.ups
        server = TestLife._bind_again(house, endpoint)
        exchange([server, client], lambda: client.ups)

    @staticmethod
    def _is_free(endpoint: str) -> bool:
        """Whether nobody listens there any more: ZeroMQ gives an endpoint free in the background."""
        host, port = endpoint.partition("://")[2].split(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) != 0

    def test_nobody_is_there_yet(self, house: House) -> None:
        """A client is not connected before there is a server, and sends nothing until then."""
        if house.over_tcp:
            pytest.skip("without a server there is no endpoint")
        endpoint = house.endpoint()
        client = house.client(endpoint)
        settle([client], 0.05)
        assert not client.ups and not client.writable() and not client.send(b"", [b"too early"])
        server = house.server(endpoint)
        exchange([server, client], lambda: client.ups)
        assert client.send(b"", [b"now"])
        exchange([server, client], lambda: server.messages)
        assert [frames for _, frames in server.messages] == [[b"now"]]

    def test_a_client_needs_a_place_to_go(self) -> None:
        """A port or host that only a server can use is refused at once."""
        for text in ("tcp://127.0.0.1:*", "tcp://127.0.0.1:0", "tcp://*:5555"):
            with pytest.raises(EndpointError):
                connect(text)

    def test_a_taken_endpoint(self, house: House) -> None:
        """Binding it again raises EndpointError and leaves its server alone."""
        server, client = house.pair()
        with pytest.raises(EndpointError):
            house.server(server.link.endpoint)
        assert client.send(b"", [b"still there?"])
        exchange([server, client], lambda: len(server.messages) == 2)

    def test_an_endpoint_that_is_not_to_be_had(self) -> None:
        """It is an EndpointError that says so."""
        with pytest.raises(EndpointError, match="cannot bind"):
            bind("tcp://192.0.2.1:5555")
        with pytest.raises(EndpointError, match="cannot bind"):
            bind("ipc:///nonexistent/folder/socket")

    @pytest.mark.parametrize(
        "option",
        [
            {"max_queued": 0},
            {"max_message_bytes": 0},
            {"max_queued": 1 << 31},
            {"heartbeat": -1},
            {"linger": -1.0},
            {"linger": float("inf")},
            {"heartbeat": float("nan")},
            {"connect_timeout": 5000},
        ],
        ids=str,
    )
    def test_settings_out_of_range(self, option: dict[str, Any]) -> None:
        """They are refused by name: 0 and -1 mean something else to ZeroMQ."""
        with pytest.raises(EndpointError, match=next(iter(option))):
            bind("tcp://127.0.0.1:*", **option)


class LateFrame(bytes):
    """A frame as the server's link takes it, of a connection on the descriptor that it is told."""

    descriptor: int
    bytes, more = b"late", False

    def get(self, option: object) -> int:
        return self.descriptor


def feed(link: Any, messages: list[tuple[bytes, int]]) -> None:
    """Have a server's link receive these messages next, each of one frame: who sent it, and its descriptor."""
    frames: list[bytes] = []
    for peer, descriptor in messages:
        frame = LateFrame(b"late")
        frame.descriptor = descriptor
        frames += [peer, frame]
    # Readable for as long as there are any.
    ends = os.pipe()
    os.write(ends[1], b"x")
    before = link._input
    link._input = [(ends[0], int(zmq.POLLIN))]

    def receive(*how: object) -> bytes:
        if not frames:
            raise zmq.Again
        taken = frames.pop(0)
        if not frames:
            link._input = before
            for end in ends:
                os.close(end)
        return taken

    link._recv = receive


class TestBounds:
    @pytest.mark.parametrize("house", READS_NO_MORE, indirect=True)
    def test_a_full_queue_says_not_now(self, house: House) -> None:
        """`send` returns False instead of queueing without end, and what was taken arrives."""
        server, client = house.pair(max_queued=10)
        payload = bytes(100_000)
        taken = 0
        # ZeroMQ's thread makes room as long as the kernel takes more.
        while (sent := client.send(b"", [b"%d" % taken, payload])) or client.writable():
            taken += sent
            assert taken < 10_000, "nothing bounds the queue"
        exchange([server, client], client.writable)
        assert client.send(b"", [b"last"])
        exchange([server, client], lambda: server.messages[-1][1] == [b"last"])
        numbers = [frames[0] for _, frames in server.messages[1:-1]]
        assert numbers == [b"%d" % number for number in range(taken)]

    @pytest.mark.parametrize("sender", ["server", "client"])
    def test_a_frame_that_is_too_large(self, house: House, sender: str) -> None:
        """Its connection ends, and the client makes another; what came before was delivered."""
        if house.kind == "inproc":
            pytest.skip("ZeroMQ has no such limit inproc")
        server, client = parties = house.pair(max_message_bytes=10_000)
        peer = server.messages[0][0]
        party, other, to = (server, client, peer) if sender == "server" else (client, server, b"")
        assert party.send(to, [b"before", bytes(10_000)])
        # ZeroMQ may tell of the loss before it hands over what it read in the same step: it shall not be one step.
        exchange(parties, lambda: other.messages and other.messages[-1][1][0] == b"before")
        assert party.send(to, [b"small", bytes(10_001)])
        exchange(parties, lambda: len(client.ups) == 2 and server.losses)
        assert (client.losses, server.losses) == ([b""], [peer])
        assert [frames[0] for _, frames in other.messages if frames[0] != b"hello"] == [b"before"]
        assert client.send(b"", [b"again"])
        exchange(parties, lambda: server.messages[-1][1] == [b"again"])
        assert server.messages[-1][0] != peer

    @pytest.mark.parametrize("house", ["tcp", "ipc"], indirect=True)
    def test_what_comes_after_its_end_was_told(self, house: House) -> None:
        """A message that ZeroMQ hands over after it has told of its peer's end is dropped; nothing is told twice."""
        server, client = house.pair()
        peer = server.messages[0][0]
        client.close()
        exchange([server], lambda: server.losses)

        feed(server.link, [(peer, 1 << 20)])
        server.harvest()
        assert (server.ups, server.losses, len(server.messages)) == ([peer], [peer], 1)

    @pytest.mark.parametrize("house", ["tcp", "ipc"], indirect=True)
    @pytest.mark.parametrize("former", [1, 0xFFFFFFFF])
    @pytest.mark.parametrize("order", ["ABBA", "BABA", "ABAB", "BAAB", "AABB", "BBAA"])
    def test_a_descriptor_that_is_used_again(self, house: House, former: int, order: str) -> None:
        """A client that comes as another one goes, and gets its descriptor, stays; the other one is lost, once."""
        server, descriptor = house.server(), 1 << 20
        peers = {name: b"\0" + ((former + later) % (1 << 32)).to_bytes(4) for later, name in enumerate("AB")}
        accepted, gone = int(zmq.Event.ACCEPTED), int(zmq.Event.DISCONNECTED)
        cast(Any, server.link)._first = former - 1
        cast(Any, server.link)._monitored.extend([(accepted, descriptor), (gone, descriptor), (accepted, descriptor)])
        feed(server.link, [(peers[name], descriptor) for name in order])
        while server.harvest():
            pass
        assert [peer for peer, _ in server.messages] == [peers[name] for name in order]
        assert sorted(server.ups) == sorted(peers.values())
        assert server.losses == [peers["A"]]
        feed(server.link, [(peers["A"], descriptor)])
        server.harvest()
        assert (len(server.ups), server.losses, len(server.messages)) == (2, [peers["A"]], 4)

    @pytest.mark.parametrize("house", ["tcp", "ipc"], indirect=True)
    def test_a_peer_that_chose_its_name_may_come_again(self, house: House) -> None:
        """A client with a routing id of its own, which it should not have, is heard under it each time it connects, but
        not before ZeroMQ has forgotten its former connection, which may be some time after that is lost.
        """
        server = house.server()
        for turn in range(1, 3):
            while len(server.messages) < turn:
                with zmq.Context() as context, context.socket(zmq.DEALER) as client:
                    client.routing_id = b"named"
                    client.connect(server.link.endpoint)
                    client.send(b"%d" % turn)
                    until = monotonic() + 1  # Then it connects anew: what it sent was not heard, and never will be.
                    exchange([server], lambda: len(server.messages) == turn or monotonic() > until)  # noqa: B023  # called in this turn
            exchange([server], lambda: len(server.losses) == turn)  # noqa: B023  # called in this turn
        assert server.messages == [(b"named", [b"1"]), (b"named", [b"2"])]

    @pytest.mark.parametrize("house", ["tcp", "ipc"], indirect=True)
    def test_a_server_that_does_not_read(self, house: House) -> None:
        """`send` returns False there too; it is not so with one that only does not harvest, for ZeroMQ reads always."""
        with deaf_server(house.endpoint()) as (endpoint, hear):
            client = house.client(endpoint, max_queued=10)
            exchange([client], lambda: client.ups)
            while client.send(b"", [bytes(100_000)]) or client.writable():
                pass
            hear()
            exchange([client], client.writable)
            assert client.send(b"", [b"last"])

    @pytest.mark.parametrize("house", READS_NO_MORE, indirect=True)
    def test_room_is_told_of(self, house: House) -> None:
        """A client that was told "not now" sees a descriptor, or is woken, when there is room again."""
        server, client = house.pair(max_queued=10)
        while client.send(b"", [bytes(100_000)]) or client.writable():
            pass
        client.woken.clear()
        if house.kind == "loopback":
            while server.harvest():
                pass
            assert client.woken.wait(LIMIT)
        exchange([client, server], client.writable)


class TestUse:
    def test_a_closed_link(self, house: House) -> None:
        """Every use raises LinkClosed; closing again has no effect."""
        server, client = house.pair()
        peer = server.messages[0][0]
        for party in (server, client):
            party.close()
            party.close()
            uses: list[Callable[[], object]] = [
                partial(party.send, peer, [b"x"]),
                party.harvest,
                party.ready,
                party.writable,
                party.link.descriptors,
            ]
            for use in uses:
                with pytest.raises(LinkClosed, match="closed"):
                    use()

    def test_any_thread_may_use_a_link(self, house: House) -> None:
        """One at a time, under the lock: ten threads send, another harvests."""
        server, client = house.pair(max_queued=10_000)

        def work(name: int) -> None:
            for number in range(50):
                assert client.send(b"", [b"%d" % name, b"%d" % number])

        threads = [threading.Thread(target=work, args=(name,)) for name in range(10)]
        for thread in threads:
            thread.start()
        exchange([server, client], lambda: len(server.messages) == 501)
        for thread in threads:
            thread.join()
        for name in range(10):
            numbers = [frames[1] for _, frames in server.messages[1:] if frames[0] == b"%d" % name]
            assert numbers == [b"%d" % number for number in range(50)]

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_forked_child(self, house: House) -> None:
        """In the child every use raises LinkForked, whoever held the lock; the parent's goes on working."""
        server, client = house.pair()
        with client.link.lock:
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    for party in (server, client):
                        for use in (lambda p=party: p.send(b"", [b"x"]), party.harvest, party.ready):
                            try:
                                use()
                            except LinkForked:
                                continue
                            os._exit(2)
                        party.close()
                    code = 0
                finally:
                    os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert client.send(b"", [b"from the parent"])
        exchange([server, client], lambda: len(server.messages) == 2)

    def test_the_bound_endpoint_is_the_real_one(self, house: House) -> None:
        """A port chosen by the system is filled in."""
        server = house.server()
        assert "*" not in server.link.endpoint
        assert server.link.endpoint.startswith(house.kind)
        assert server.link.endpoint in repr(server.link)

    def test_peer_info(self, house: House) -> None:
        """The server knows where a peer is, and who, if that was proved or the system tells."""
        server, _ = house.pair()
        info = server.info(server.messages[0][0])
        assert info.user == {"tls": CLIENT, "native+ipc": f"uid:{os.getuid()}"}.get(house.kind, "")
        if house.over_tcp:
            assert info.address == "127.0.0.1"


class Interrupted(Party):
    """A receiver that breaks in once, as Ctrl-C does."""

    armed = True

    def __init__(self, link: Link, log: list[tuple[str, bytes, object]] | None = None) -> None:
        super().__init__(link)
        if log is not None:
            self.log = log

    def on_message(self, peer: bytes, frames: list[Any]) -> None:
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt
        super().on_message(peer, frames)


class TestInterruption:
    def test_of_a_client(self, house: House) -> None:
        """A message may be gone, so the connection counts as lost, and another is made."""
        if house.kind == "inproc":
            pytest.skip("a server hears nothing of it there")
        server, client = house.pair()
        peer = server.messages[0][0]
        assert server.send(peer, [b"a", b"b"])
        broken = Interrupted(client.link)
        with pytest.raises(KeyboardInterrupt):
            exchange([broken], lambda: False)
        exchange([server, client], lambda: len(client.ups) == 2)
        assert [what for what, _, _ in client.log if what != "refused"] == ["connected", "lost", "connected"]
        exchange([server, client], lambda: server.losses == [peer])
        assert client.send(b"", [b"fine"])
        exchange([server, client], lambda: len(server.messages) == 2)

    def test_of_a_server(self, house: House) -> None:
        """The message comes again without frames: its peer is not lost, and what it says next is understood."""
        server, client = house.pair()
        assert client.send(b"", [b"a", b"b"])
        with pytest.raises(KeyboardInterrupt):
            exchange([Interrupted(server.link, server.log)], lambda: False)
        assert client.send(b"", [b"c", b"d"])
        exchange([server, client], lambda: len(server.messages) == 3)
        assert [frames for _, frames in server.messages] == [[b"hello"], [], [b"c", b"d"]]
        assert [what for what, _, _ in server.log] == ["connected", "message", "message", "message"]
        assert server.send(server.messages[0][0], [b"still here"])
        exchange([server, client], lambda: client.messages)

    def test_of_a_server_that_meets_a_peer(self, house: House) -> None:
        """A peer whose first message was lost is met with the next one."""
        server = house.server()
        client = house.client(server)
        exchange([server, client], lambda: client.ups)
        assert client.send(b"", [b"a", b"b"])

        class Meeting(Party):
            def on_connected(self, peer: bytes) -> None:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            exchange([Meeting(server.link)], lambda: False)
        assert client.send(b"", [b"c", b"d"])
        exchange([server, client], lambda: [b"c", b"d"] in [frames for _, frames in server.messages])
        assert [what for what, _, _ in server.log][:2] == ["connected", "message"]
        assert len(server.ups) == 1
