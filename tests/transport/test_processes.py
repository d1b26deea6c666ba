"""Links between processes: peers that die, stop, are busy, are strangers, or may not come in."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from engine.testing import LIMIT
from tests.transport.helpers import Party, exchange, settle
from transport import Curve, EndpointError, bind, connect

ROOT = Path(__file__).resolve().parents[2]


class Children:
    """Client processes of one test."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, endpoint: str, then: str = "forever", heartbeat: float = 5.0) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.transport.remote", endpoint, str(heartbeat), then], cwd=ROOT
        )
        self.processes.append(process)
        return process


@pytest.fixture
def children() -> Iterator[Children]:
    found = Children()
    yield found
    for process in found.processes:
        process.kill()
        process.wait()


@pytest.fixture
def server_at(tmp_path: Path) -> Iterator[Callable[..., Party]]:
    parties: list[Party] = []

    def make(scheme: str, **options: Any) -> Party:
        endpoint = "tcp://127.0.0.1:*" if scheme == "tcp" else f"ipc://{tmp_path}/socket"
        parties.append(Party(bind(endpoint, **options)))
        return parties[-1]

    yield make
    for party in parties:
        party.close()


@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
class TestDeath:
    def test_of_one_of_three(self, scheme: str, server_at: Callable[..., Party], children: Children) -> None:
        """After kill -9 exactly that client is lost, and the others go on."""
        server = server_at(scheme)
        processes = [children.start(server.link.endpoint) for _ in range(3)]
        exchange([server], lambda: len(server.messages) == 3)
        peers = {int(frames[0]): peer for peer, frames in server.messages}
        victim = processes[1]
        victim.kill()
        exchange([server], lambda: server.losses)
        settle([server], 0.1)
        assert server.losses == [peers[victim.pid]]
        assert server.send(peers[processes[0].pid], [b"still there?"])

    def test_descriptors_used_again(self, scheme: str, server_at: Callable[..., Party], children: Children) -> None:
        """A client that comes after another has died gets its descriptor, and is told apart from it."""
        server = server_at(scheme)
        for number in range(3):
            process = children.start(server.link.endpoint)
            exchange([server], lambda: len(server.messages) == number + 1)  # noqa: B023  # called in this turn
            process.kill()
            process.wait()
        exchange([server], lambda: len(server.losses) == 3)
        assert [what for what, _, _ in server.log if what != "message"] == ["connected", "lost"] * 3 or (
            server.ups == server.losses
        )
        assert len(set(server.ups)) == 3

    def test_what_was_handed_over_arrives(
        self, scheme: str, server_at: Callable[..., Party], children: Children
    ) -> None:
        """A process that ends at once, with its link open, sends what it handed over: all of it."""
        server = server_at(scheme)
        process = children.start(server.link.endpoint, "large")
        exchange([server], lambda: server.losses)
        assert process.wait(LIMIT) == 0
        assert server.messages[1][1] == [b"large", bytes(range(256)) * 65536]


class TestLiveness:
    def test_a_peer_that_stopped(self, server_at: Callable[..., Party], children: Children) -> None:
        """Its connection stays open, but nothing answers the heartbeats: it is lost."""
        server = server_at("tcp", heartbeat=0.1)
        process = children.start(server.link.endpoint, heartbeat=0.1)
        exchange([server], lambda: server.messages)
        process.send_signal(signal.SIGSTOP)
        try:
            exchange([server], lambda: server.losses)
        finally:
            process.send_signal(signal.SIGCONT)

    def test_a_peer_that_is_busy(self, server_at: Callable[..., Party], children: Children) -> None:
        """It holds the GIL for many heartbeats, and stays: liveness is not progress."""
        for heartbeat in (0.1, 1.0, 5.0):  # The longer ones for a machine that is too busy itself.
            server = server_at("tcp", heartbeat=heartbeat)
            children.start(server.link.endpoint, "busy", heartbeat=heartbeat)
            exchange([server], lambda: server.losses or len(server.messages) == 2)  # noqa: B023  # called in this turn
            if not server.losses:
                break
        assert server.losses == []


class TestStrangers:
    """Who does not keep to the rules costs nobody else anything."""

    def test_not_zeromq(self, server_at: Callable[..., Party]) -> None:
        """A browser, say."""
        server = server_at("tcp")
        port = int(server.link.endpoint.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n" * 10)
            settle([server], 0.1)
        assert server.log == []
        self._serves(server)

    def test_a_message_of_many_frames(self, server_at: Callable[..., Party]) -> None:
        """The link hands over no more than a message may have, and finds the beginning of the next."""
        server = server_at("tcp")
        with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
            stranger.linger = 0
            stranger.connect(server.link.endpoint)
            stranger.send_multipart([b"%d" % number for number in range(5000)])
            stranger.send_multipart([b""])
            stranger.send_multipart([b"", b"next"])
            exchange([server], lambda: len(server.messages) == 3)
        assert len(server.messages[0][1]) < 5000
        assert [frames for _, frames in server.messages[1:]] == [[b""], [b"", b"next"]]
        self._serves(server)

    def test_a_frame_that_is_too_large(self, server_at: Callable[..., Party]) -> None:
        """Its connection is closed, and the frame never was in memory."""
        server = server_at("tcp", max_message_bytes=10_000)
        with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
            stranger.linger = 0
            stranger.connect(server.link.endpoint)
            stranger.send(b"hello")
            exchange([server], lambda: server.messages)
            stranger.send(bytes(10_001))
            exchange([server], lambda: server.losses)
        assert len(server.messages) == 1
        self._serves(server)

    @staticmethod
    def _serves(server: Party) -> None:
        client = Party(connect(server.link.endpoint))
        try:
            exchange([server, client], lambda: client.ups)
            assert client.send(b"", [b"a real one"])
            exchange([server, client], lambda: server.messages[-1:] and server.messages[-1][1] == [b"a real one"])
        finally:
            client.close()


class TestCurve:
    """Keys on both sides."""

    @pytest.fixture
    def keys(self) -> dict[str, tuple[str, str]]:
        return {name: Curve.new_keys() for name in ("server", "friend", "stranger")}

    def test_an_encrypted_link(self, server_at: Callable[..., Party], keys: dict[str, tuple[str, str]]) -> None:
        """Who knows the server's key may connect; who does not, or has no keys, is told that it failed."""
        server = server_at("tcp", curve=Curve(*keys["server"]))
        good = Party(connect(server.link.endpoint, curve=Curve(*keys["friend"], server_key=keys["server"][0])))
        wrong = Party(connect(server.link.endpoint, curve=Curve(*keys["friend"], server_key=keys["friend"][0])))
        bare = Party(connect(server.link.endpoint))
        try:
            exchange([server, good, wrong, bare], lambda: good.ups and wrong.refusals and bare.refusals)
            assert good.send(b"", [b"hello"])
            exchange([server, good], lambda: server.messages)
            assert server.info(server.messages[0][0]).user == ""
            assert not wrong.ups
            assert not bare.ups
        finally:
            for party in (good, wrong, bare):
                party.close()

    def test_keys_that_are_none(self, keys: dict[str, tuple[str, str]]) -> None:
        """They are refused when the link is opened."""
        with pytest.raises(EndpointError, match="40 characters"):
            bind("tcp://127.0.0.1:*", curve=Curve("short", "short"))
        with pytest.raises(EndpointError, match="server_key"):
            connect("tcp://127.0.0.1:5555", curve=Curve(*keys["friend"]))

    def test_a_pair_belongs_together(self, keys: dict[str, tuple[str, str]]) -> None:
        """The public key is known of the secret one; two that are no pair, and what is no secret, are refused."""
        (public, secret), (other, _) = keys["friend"], keys["stranger"]
        assert Curve.public_key_of(secret) == public
        with pytest.raises(EndpointError, match="not of one pair"):
            Curve(other, secret)
        with pytest.raises(EndpointError, match="40 characters"):
            Curve.public_key_of(secret[1:])

    def test_the_secret_is_not_shown(self, keys: dict[str, tuple[str, str]]) -> None:
        """Not in a log by accident."""
        public, secret = keys["friend"]
        assert public in repr(Curve(public, secret))
        assert secret not in repr(Curve(public, secret))


def test_clients_by_name() -> None:
    """With `allowed` only they may connect, and the server knows which is which.

    In a process of its own: the authenticator's thread lives as long as that, and it must end all the same.
    """
    command = [sys.executable, "-W", "ignore", "-m", "tests.transport.authorised"]
    done = subprocess.run(command, timeout=LIMIT, check=False, cwd=ROOT)
    assert done.returncode == 0
