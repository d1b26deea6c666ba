"""The native link under TLS: who is let in, under which name, what is said to who is not, and what strangers can do."""

import gc
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.testing import LIMIT
from tests.certificates import CLIENT, client_context, folder, server_context
from tests.transport.helpers import Party, exchange
from transport import Curve, EndpointError, bind, connect
from transport.native_link.framing import hello
from transport.native_link.tls import TlsConnection, name_in


class House:
    """A server under TLS, and whom it has to do with; all are closed with the test."""

    def __init__(self) -> None:
        self.parties: list[Party] = []
        self.strangers: list[socket.socket] = []
        self.server: Party

    def open(self, context: ssl.SSLContext, **options: Any) -> Party:
        self.server = Party(bind("tls://127.0.0.1:*", tls=context, **options))
        self.parties.append(self.server)
        return self.server

    def client(self, context: ssl.SSLContext | None, host: str = "127.0.0.1", scheme: str = "tls") -> Party:
        client = Party(connect(f"{scheme}://{host}:{self.port}", tls=context))
        self.parties.append(client)
        return client

    @property
    def port(self) -> int:
        return int(self.server.link.endpoint.rpartition(":")[2])

    def stranger(self, says: bytes = b"") -> socket.socket:
        """A bare socket, connected, that has sent this."""
        made = socket.create_connection(("127.0.0.1", self.port))
        self.strangers.append(made)
        made.sendall(says)
        made.setblocking(False)
        return made

    def still_serves(self) -> None:
        """A client is heard, and answered."""
        client = self.client(client_context())
        exchange(self.parties, lambda: client.ups)
        before = len(self.server.messages)
        assert client.send(b"", [b"I am honest"])
        exchange(self.parties, lambda: len(self.server.messages) > before)
        assert self.server.send(self.server.messages[-1][0], [b"so you are"])
        exchange(self.parties, lambda: client.messages)


@pytest.fixture
def house() -> Iterator[House]:
    found = House()
    yield found
    for stranger in found.strangers:
        stranger.close()
    for party in found.parties:
        party.close()


class Foreign:
    """A client by the standard library alone, driven while the server is: a socket, and TLS on memory."""

    def __init__(self, house: House, context: ssl.SSLContext) -> None:
        self.house = house
        self.socket = house.stranger()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1")

    def move(self) -> None:
        """Have what there is go to and fro, once."""
        self.socket.setblocking(True)
        self.socket.sendall(self.outgoing.read())
        self.socket.setblocking(False)
        while self.house.server.harvest():
            pass
        with suppress(BlockingIOError):
            self.incoming.write(self.socket.recv(1 << 16))

    def do(self, step: Callable[[], Any]) -> Any:
        """Have a step of TLS done, whatever has to go to and fro for it."""
        found: list[Any] = []

        def done() -> bool:
            with suppress(ssl.SSLWantReadError):
                found.append(step())
            self.move()
            return bool(found)

        exchange([self.house.server], done)
        return found[0]


class TestWhoIsLetIn:
    def test_by_both_certificates(self, house: House) -> None:
        """The server knows its client by the name in its certificate, and messages go both ways, however large."""
        server = house.open(server_context())
        client = house.client(client_context())
        exchange(house.parties, lambda: client.ups)
        large = os.urandom(5_000_000)
        for frames in ([b"small"], [b"", large, b"x" * 20_000, large], [b"last"]):
            assert client.send(b"", list(frames))
        exchange(house.parties, lambda: len(server.messages) == 3)
        assert [frames for _, frames in server.messages] == [[b"small"], [b"", large, b"x" * 20_000, large], [b"last"]]
        peer = server.ups[0]
        assert (server.info(peer).user, server.info(peer).address) == (CLIENT, "127.0.0.1")
        assert server.send(peer, [large, b"answer"])
        exchange(house.parties, lambda: client.messages)
        assert client.messages == [(b"", [large, b"answer"])]

    def test_by_the_servers_alone(self, house: House) -> None:
        """A server that asks for no certificate takes whoever comes, under no name."""
        server = house.open(server_context(mutual=False))
        client = house.client(client_context(own=None))
        exchange(house.parties, lambda: client.ups)
        assert client.send(b"", [b"hello"])
        exchange(house.parties, lambda: server.messages)
        assert server.info(server.ups[0]).user == ""

    def test_by_a_name(self, house: House) -> None:
        """A host's name is looked up and compared with the certificate, as an address is."""
        house.open(server_context())
        client = house.client(client_context(), host="localhost")
        exchange(house.parties, lambda: client.ups)

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_in_either_version(self, house: House, version: ssl.TLSVersion) -> None:
        """TLS 1.2 and 1.3 both do."""
        house.open(server_context())
        context = client_context()
        context.minimum_version = context.maximum_version = version
        client = house.client(context)
        exchange(house.parties, lambda: client.ups)

    @pytest.mark.parametrize(
        ("certificate", "name"),
        [
            ({}, ""),
            (None, ""),
            ({"subject": ((("organizationName", "o"),), (("commonName", "c"),))}, "c"),
            ({"subject": ((("commonName", "c"),),), "subjectAltName": (("DNS", "d"), ("DNS", "e"))}, "d"),
            ({"subjectAltName": (("IP Address", "::1"), ("DNS", "d"), ("email", "m@d"), ("URI", "spiffe://d/s"))},
             "spiffe://d/s"),
            ({"subjectAltName": (("othername", "<unsupported>"), ("email", "m@d"))}, "m@d"),
        ],
    )  # fmt: skip
    def test_under_which_name(self, certificate: Any, name: str) -> None:
        """The first of its URIs, e-mail addresses, host names, IP addresses, or its common name."""
        assert name_in(certificate) == name


class TestWhoIsNot:
    def refused(self, house: House, client: Party) -> str:
        """What the client is told."""
        exchange(house.parties, lambda: client.refusals)
        assert not client.ups and client.link.endpoint in client.refusals[0]
        return client.refusals[0]

    def logged(self, house: House) -> str:
        """What the server is told."""
        exchange(house.parties, lambda: house.server.refusals)
        assert house.server.refusals[0].startswith("127.0.0.1: ") and not house.server.ups
        return house.server.refusals[0]

    def test_a_server_of_another_authority(self, house: House) -> None:
        """Its client says that the certificate is refused, and why; the server, that the client refuses it."""
        house.open(server_context(own="stranger"))
        assert "certificate is refused: unable to get local issuer" in self.refused(
            house, house.client(client_context())
        )
        assert "it refuses this side: unknown ca" in self.logged(house)

    def test_a_server_of_another_name(self, house: House) -> None:
        """Its client says for which host the certificate is not."""
        house.open(server_context(own="client"))
        assert "not valid for '127.0.0.1'" in self.refused(house, house.client(client_context()))

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    @pytest.mark.parametrize("own", [None, "stranger"])
    def test_a_client_that_is_not_known(self, house: House, own: str | None, version: ssl.TLSVersion) -> None:
        """Both sides say so, whatever the version: with TLS 1.3 the client was through with the handshake by then."""
        house.open(server_context())
        context = client_context(own)
        context.minimum_version = context.maximum_version = version
        client = house.client(context)
        assert "it refuses this side: " in self.refused(house, client)
        cause = "it has no certificate" if own is None else "its certificate is refused: unable to get local issuer"
        assert cause in self.logged(house)
        house.still_serves()

    def test_a_client_without_tls(self, house: House) -> None:
        """It is closed, and the server says why."""
        house.open(server_context())
        self.refused(house, house.client(None, scheme="native+tcp"))
        assert "it does not speak TLS" in self.logged(house)
        house.still_serves()

    def test_a_server_without_tls(self, house: House) -> None:
        """Its client says so."""
        house.server = Party(bind("native+tcp://127.0.0.1:*"))
        house.parties.append(house.server)
        client = house.client(client_context())
        assert "it does not speak TLS" in self.refused(house, client)

    def test_a_server_without_a_certificate(self, house: House) -> None:
        """What is missing shows with the first client."""
        house.open(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self.refused(house, house.client(client_context()))
        assert "load_cert_chain" in self.logged(house)

    def test_a_server_that_the_system_does_not_trust(self, house: House) -> None:
        """A client without a context of its own trusts whom the system does."""
        house.open(server_context())
        assert "certificate is refused" in self.refused(house, house.client(None))

    def test_a_certificate_that_is_renewed(self, house: House) -> None:
        """What the context of a server is given while it listens is shown to those who come then; others stay."""
        context = server_context()
        house.open(context)
        before = house.client(client_context())
        exchange(house.parties, lambda: before.ups)
        context.load_cert_chain(folder() / "stranger.pem")
        after, trusting = house.client(client_context()), house.client(client_context(trusted="other"))
        assert "its certificate is refused" in self.refused(house, after)
        exchange(house.parties, lambda: trusting.ups)
        assert before.send(b"", [b"hello"]) and before.losses == []
        exchange(house.parties, lambda: house.server.messages)

    def test_a_client_that_is_refused_tries_again(self, house: House) -> None:
        """The server may be replaced meanwhile."""
        house.open(server_context(own="stranger"))
        client = house.client(client_context())
        self.refused(house, client)
        endpoint = house.server.link.endpoint
        house.parties.remove(house.server)
        house.server.close()
        house.server = Party(bind(endpoint, tls=server_context()))
        house.parties.append(house.server)
        exchange(house.parties, lambda: client.ups)


class TestOptions:
    @pytest.mark.parametrize(
        ("endpoint", "tls"),
        [
            ("tls://127.0.0.1:*", None), ("tls://127.0.0.1:*", "server.pem"), ("tls://127.0.0.1:*", client_context),
            ("tcp://127.0.0.1:*", server_context), ("native+tcp://127.0.0.1:*", server_context),
        ],
    )  # fmt: skip
    def test_of_a_server_that_are_refused(self, endpoint: str, tls: Any) -> None:
        """A server without a context, or with a client's; and a context that an endpoint over tcp has no use for."""
        with pytest.raises(EndpointError, match="tls"):
            bind(endpoint, tls=tls() if callable(tls) else tls)

    def test_of_a_client_that_are_refused(self) -> None:
        """Likewise."""
        for endpoint, tls in (("tls://h:1", server_context()), ("tcp://h:1", client_context()), ("tls://h:1", True)):
            with pytest.raises(EndpointError, match="tls"):
                connect(endpoint, tls=tls)

    def test_keys(self) -> None:
        """CURVE keys are another link's."""

        keys = Curve(*Curve.new_keys())
        with pytest.raises(EndpointError, match="CURVE"):
            bind("tls://127.0.0.1:*", tls=server_context(), curve=keys)


class TestStrangers:
    @pytest.mark.parametrize(
        "says", [b"", b"\x16\x03\x01\x02\x00\x01", bytes(40), b"GET / HTTP/1.0\r\n\r\n", hello(b"DEALER")]
    )
    def test_who_does_not_shake_hands(self, house: House, says: bytes) -> None:
        """Half a handshake, or what is none, ends within the greeting time, and is told of."""
        server = house.open(server_context(), heartbeat=0, greeting_timeout=0.5)
        stranger = house.stranger(says)

        def ended() -> bool:
            try:
                return not stranger.recv(4096)
            except BlockingIOError:
                return False
            except OSError:
                return True

        exchange([server], ended)
        assert len(server.refusals) == 1 and not server.ups
        house.still_serves()

    def test_many_half_handshakes(self, house: House) -> None:
        """Two hundred that stop in the midst of it keep nobody else from being served."""
        house.open(server_context())
        context, outgoing = client_context(), ssl.MemoryBIO()
        with suppress(ssl.SSLWantReadError):
            context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1").do_handshake()
        opening = outgoing.read()
        for _ in range(200):
            house.stranger(opening)
        house.still_serves()

    def test_byte_by_byte(self, house: House) -> None:
        """However the records are cut."""
        server = house.open(server_context())
        foreign = Foreign(house, client_context())
        foreign.do(foreign.tls.do_handshake)
        foreign.tls.write(hello(b"DEALER") + b"\0\5hello")
        for byte in foreign.outgoing.read():
            foreign.socket.send(bytes((byte,)))
            while server.harvest():
                pass
        exchange([server], lambda: server.messages)
        assert [frames for _, frames in server.messages] == [[b"hello"]]

    def test_records_of_one_byte(self, house: House) -> None:
        """Nor how large they are."""
        server = house.open(server_context())
        foreign = Foreign(house, client_context())
        foreign.do(foreign.tls.do_handshake)
        for byte in hello(b"DEALER") + b"\0\5hello":
            foreign.tls.write(bytes((byte,)))
        foreign.move()
        exchange([server], lambda: server.messages)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        changes=st.lists(
            st.tuples(
                st.sampled_from(("none", "flip", "cut", "more", "twice")), st.integers(0, 5000), st.binary(max_size=50)
            ),
            min_size=1, max_size=5,
        )
    )  # fmt: skip
    def test_anything(self, house: House, changes: list[tuple[str, int, bytes]]) -> None:
        """Whatever becomes of a client's bytes on their way, at any step, the server lives and serves the next one."""
        if not house.parties:
            house.open(server_context())
        server = house.server
        foreign = Foreign(house, client_context())
        for step, (change, where, more) in enumerate(changes):
            with suppress(ssl.SSLError):
                if step < 3:
                    foreign.tls.do_handshake()
                else:
                    foreign.tls.write(hello(b"DEALER") + b"\0\5hello")
            piece = bytearray(foreign.outgoing.read())
            where %= max(1, len(piece))
            if piece and change == "flip":
                piece[where] ^= 1 << where % 8
            elif change == "cut":
                del piece[where:]
            elif change == "more":
                piece += more
            elif change == "twice":
                piece += bytes(piece)
            with suppress(OSError):
                foreign.socket.sendall(piece)
            while server.harvest():
                pass
            with suppress(OSError):
                foreign.incoming.write(foreign.socket.recv(1 << 16))
        foreign.socket.close()
        house.still_serves()

    def test_a_short_message_that_has_to_wait(self, house: House) -> None:
        """What the system does not take at once leaves later, whole and in order, one record after the other."""
        server = house.open(server_context())
        client = house.client(client_context())
        exchange(house.parties, lambda: client.ups)
        assert client.send(b"", [b"hello"])
        exchange(house.parties, lambda: server.messages)
        sent = [os.urandom(16 * 1024 - size) for size in range(1000)]
        for frame in sent:
            assert server.send(server.ups[0], [frame])
        assert server.link.queued_bytes > 1 << 20
        exchange(house.parties, lambda: len(client.messages) == len(sent))
        assert [frames for _, frames in client.messages] == [[frame] for frame in sent]
        assert server.link.queued_bytes == 0

    def test_what_is_forged(self, house: House) -> None:
        """A record that was changed on the way ends the connection; what came before it was delivered."""
        server = house.open(server_context())
        foreign = Foreign(house, client_context())
        foreign.do(foreign.tls.do_handshake)
        foreign.tls.write(hello(b"DEALER") + b"\0\5hello")
        foreign.move()
        exchange([server], lambda: server.messages)
        foreign.tls.write(b"\0\5later")
        changed = bytearray(foreign.outgoing.read())
        changed[-1] ^= 1
        foreign.socket.send(changed)
        exchange([server], lambda: server.losses)
        assert len(server.messages) == 1
        house.still_serves()

    def test_a_message_that_is_too_large(self, house: House) -> None:
        """The bounds are those of the native link: before the first message, and after it."""
        server = house.open(server_context(), max_message_bytes=1_000_000)
        foreign = Foreign(house, client_context())
        foreign.do(foreign.tls.do_handshake)
        foreign.tls.write(hello(b"DEALER") + b"\2" + (1 << 40).to_bytes(8))
        foreign.move()
        exchange([server], lambda: server.refusals)
        assert "it sent a frame of" in server.refusals[0] and not server.ups

    @pytest.mark.parametrize("said", [True, False])
    def test_who_goes(self, house: House, said: bool) -> None:
        """The end of a connection is noticed whether TLS was ended in good order or not."""
        server = house.open(server_context())
        foreign = Foreign(house, client_context())
        foreign.do(foreign.tls.do_handshake)
        foreign.tls.write(hello(b"DEALER") + b"\0\5hello")
        foreign.move()
        exchange([server], lambda: server.messages)
        if said:
            with suppress(ssl.SSLWantReadError):
                while foreign.tls.read(1 << 16):  # What it does not read it cannot end in good order.
                    pass
            with suppress(ssl.SSLWantReadError):
                foreign.tls.unwrap()
            foreign.move()
        else:
            foreign.socket.close()
        exchange([server], lambda: server.losses)

    def test_leaves_nothing_behind(self, house: House) -> None:
        """The memory of a connection is free as soon as it is closed, without Python's cyclic collector."""
        server = house.open(server_context())

        def connections() -> int:
            return sum(type(each) is TlsConnection for each in gc.get_objects())

        gc.collect()
        before = connections()
        gc.disable()
        try:
            for _ in range(3):
                foreign = Foreign(house, client_context())
                foreign.do(foreign.tls.do_handshake)
                foreign.tls.write(hello(b"DEALER") + b"\0\5hello")
                foreign.move()
                exchange([server], lambda: len(server.messages) == len(server.losses) + 1)
                foreign.socket.close()
                exchange([server], lambda: len(server.losses) == len(server.messages))
            assert connections() - before <= 1  # That of the last event, which may be kept until the next.
        finally:
            gc.enable()

    def test_a_server_ends_it_in_good_order(self, house: House) -> None:
        """Its peer can tell the end from one that somebody else made."""
        server = house.open(server_context())
        foreign = Foreign(house, client_context())
        foreign.do(foreign.tls.do_handshake)
        foreign.tls.write(hello(b"DEALER") + b"\0\5hello")
        foreign.move()
        exchange([server], lambda: server.messages)
        house.parties.remove(server)
        server.close()
        foreign.socket.setblocking(True)
        foreign.socket.settimeout(LIMIT)
        while data := foreign.socket.recv(1 << 16):
            foreign.incoming.write(data)
        while foreign.tls.read(1 << 16):
            pass  # It would raise `SSLWantReadError` if there were no end.
