"""Servers by the records of a name, from a real DNS server; and by the system's resolver."""

import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from engine import Address, Discovery, InvalidArgumentType, InvalidParameter
from engine.resolvers import Dns
from engine.testing import LIMIT, wait_until
from transport import EndpointError

from .daemons import Dnsmasq
from .following import following

pytest.importorskip("dns", reason="dnspython is not installed")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Dnsmasq]:
    """A DNS server whose records live for a second."""
    with Dnsmasq(tmp_path) as started:
        yield started


class TestAddresses:
    """A name, and the port of each of its addresses."""

    def test_records_that_come_and_go(self, server: Dnsmasq) -> None:
        """Each address of the name has a server; one more is found while all is well, one that goes is gone."""
        server.tell("127.0.0.2 words.test", "127.0.0.3 words.test")
        with following(Dns("words.test", 5555, nameserver=server.endpoint)) as found:
            found.wait_for("tcp://127.0.0.2:5555", "tcp://127.0.0.3:5555")
            server.tell("127.0.0.2 words.test", "127.0.0.3 words.test", "127.0.0.4 words.test")
            found.wait_for("tcp://127.0.0.2:5555", "tcp://127.0.0.3:5555", "tcp://127.0.0.4:5555")
            server.tell("127.0.0.4 words.test")
            found.wait_for("tcp://127.0.0.4:5555")

    def test_a_new_record_is_used_at_the_next_look(self, server: Dnsmasq) -> None:
        """The look that follows its TTL finds a new record: at most one query that was under way comes before."""
        server.tell("127.0.0.2 words.test")
        asked: dict[int, int] = {}

        def accept(addresses: list[Address]) -> None:
            asked.setdefault(len(addresses), server.said("query[A] words.test"))

        discovery = Discovery(accept)
        thread = threading.Thread(target=Dns("words.test", 5555, nameserver=server.endpoint).run, args=(discovery,))
        thread.start()
        try:
            for number in range(1, 4):
                wait_until(partial(asked.__contains__, number))
                before = server.said("query[A] words.test")
                server.tell(*(f"127.0.0.{each} words.test" for each in range(2, number + 3)))
                wait_until(partial(asked.__contains__, number + 1))
                assert asked[number + 1] - before <= 2
        finally:
            discovery.close()
            thread.join(LIMIT)
        assert not thread.is_alive()

    @pytest.mark.parametrize(("ttl", "taken", "least"), [(1, 0.0, 1.0), (3, 2.0, 1.0), (1, 5.0, 0.0)])
    def test_the_next_look_is_due(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ttl: int, taken: float, least: float
    ) -> None:
        """It is within a quarter of a second of the end of the TTL, which runs on while the client takes the list."""
        now = 0.0
        waits: list[float] = []

        class Once:
            closed = False

            def update(self, addresses: list[Address]) -> None:
                nonlocal now
                assert addresses == [Address("tcp://127.0.0.2:5555")]
                now += taken

            def wait(self, seconds: float) -> None:
                waits.append(seconds)
                self.closed = True

        monkeypatch.setattr("engine.resolvers.dns.monotonic", lambda: now)
        with Dnsmasq(tmp_path, ttl=ttl) as server:
            server.tell("127.0.0.2 words.test")
            Dns("words.test", 5555, nameserver=server.endpoint).run(Once())  # type: ignore[arg-type]  # as much as it uses
        assert least <= waits[0] <= least + 0.25

    def test_no_record_any_more(self, server: Dnsmasq) -> None:
        """A name without records takes no server away, and is asked for again until it has some."""
        server.tell("127.0.0.2 words.test")
        with following(Dns("words.test", 5555, nameserver=server.endpoint)) as found:
            found.wait_for("tcp://127.0.0.2:5555")
            server.tell()
            missed = server.said("words.test is NXDOMAIN")
            wait_until(lambda: server.said("words.test is NXDOMAIN") > missed + 1)
            assert found.now() == {"tcp://127.0.0.2:5555"}
            server.tell("127.0.0.3 words.test")
            found.wait_for("tcp://127.0.0.3:5555")

    def test_a_loss_is_a_reason_to_look(self, tmp_path: Path) -> None:
        """After a loss the records are asked for at once, however long they live."""
        with Dnsmasq(tmp_path, ttl=3600) as server:
            server.tell("127.0.0.2 words.test")
            with following(Dns("words.test", 5555, nameserver=server.endpoint)) as found:
                found.wait_for("tcp://127.0.0.2:5555")
                server.tell("127.0.0.3 words.test")
                found.discovery.look()
                found.wait_for("tcp://127.0.0.3:5555")

    def test_records_are_not_asked_for_before_their_time(self, tmp_path: Path) -> None:
        """While all is well a record that lives long is asked for once."""
        with Dnsmasq(tmp_path, ttl=3600) as server:
            server.tell("127.0.0.2 words.test", "127.0.0.2 other.test")
            with (
                following(Dns("words.test", 5555, nameserver=server.endpoint)) as found,
                following(Dns("short.test", 5555, nameserver=server.endpoint)),
            ):
                found.wait_for("tcp://127.0.0.2:5555")
                wait_until(lambda: server.said("short.test is NXDOMAIN") > 2)  # Asked for each second.
                assert server.said("query[A] words.test") == 1

    def test_only_one_family(self, server: Dnsmasq) -> None:
        """A host that has both kinds of addresses is one server; one that has IPv6 only is found by that."""
        server.tell("127.0.0.2 both.test", "::1 both.test", "::1 six.test")
        with following(Dns("both.test", 5555, nameserver=server.endpoint)) as found:
            found.wait_for("tcp://127.0.0.2:5555")
        with following(Dns("six.test", 5555, nameserver=server.endpoint, scheme="native+tcp")) as found:
            found.wait_for("native+tcp://[::1]:5555")

    def test_the_server_dies(self, server: Dnsmasq, monkeypatch: pytest.MonkeyPatch) -> None:
        """A DNS server that gives no answer is an error of `run`, which is then called again; the list stays."""
        monkeypatch.setattr("engine.resolvers.dns.PATIENCE", 0.3)
        server.tell("127.0.0.2 words.test")
        dns = Dns("words.test", 5555, nameserver=server.endpoint)
        with following(dns) as found:
            found.wait_for("tcp://127.0.0.2:5555")
            server.kill()
            wait_until(lambda: found.raised)
            assert found.now() == {"tcp://127.0.0.2:5555"}
        server.start()
        with following(dns) as found:
            found.wait_for("tcp://127.0.0.2:5555")

    def test_the_systems_resolver(self) -> None:
        """With an interval the system is asked, which knows more than DNS does."""
        with following(Dns("localhost", 5555, interval=0.01)) as found:
            wait_until(lambda: len(found.lists) > 2)
            assert found.now() in ({"tcp://127.0.0.1:5555"}, {"tcp://[::1]:5555"})

    def test_the_systems_resolver_finds_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name that the system does not know, for now or for ever, gives no list, and is looked up again."""
        asked: list[object] = []

        def unknown(name: str, *rest: object) -> None:
            asked.append(name)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        with following(Dns("words.test", 5555, interval=0.01)) as found:
            wait_until(lambda: len(asked) > 6)
            assert found.lists == [] and found.raised is None


class TestServices:
    """SRV records, which say the ports."""

    def test_priority_and_weight(self, tmp_path: Path) -> None:
        """The records of the best priority count; each server has its record's port and weight."""
        records = (
            "--srv-host=_words._tcp.test,one.test,5001,1,10",
            "--srv-host=_words._tcp.test,two.test,5002,1,30",
            "--srv-host=_words._tcp.test,spare.test,5003,2,10",
        )
        with Dnsmasq(tmp_path, *records) as server:
            server.tell("127.0.0.2 one.test", "127.0.0.3 two.test", "127.0.0.4 spare.test")
            with following(Dns("_words._tcp.test", nameserver=server.endpoint)) as found:
                found.wait_for("tcp://127.0.0.2:5001", "tcp://127.0.0.3:5002")
                assert set(found.lists[-1]) == {
                    Address("tcp://127.0.0.2:5001", weight=10),
                    Address("tcp://127.0.0.3:5002", weight=30),
                }

    def test_one_target_is_unknown(self, tmp_path: Path) -> None:
        """A record whose host has no address is no server; the others are."""
        records = ("--srv-host=_words._tcp.test,one.test,5001,1,0", "--srv-host=_words._tcp.test,gone.test,5002,1,0")
        with Dnsmasq(tmp_path, *records) as server:
            server.tell("127.0.0.2 one.test")
            with following(Dns("_words._tcp.test", nameserver=server.endpoint)) as found:
                found.wait_for("tcp://127.0.0.2:5001")


class TestArguments:
    """What cannot be is refused as it is made."""

    @pytest.mark.parametrize(
        ("arguments", "options"),
        [
            (("words.test", 0), {}),
            (("words.test", 70000), {}),
            (("words.test", 5555), {"scheme": "ipc"}),
            (("words.test", 5555), {"interval": -1}),
            (("words.test",), {"interval": 1}),
            (("words.test", 5555), {"interval": 1, "nameserver": "127.0.0.1"}),
        ],
    )
    def test_refused(self, arguments: tuple[str, ...], options: dict[str, object]) -> None:
        """Numbers out of range, and options that do not go together."""
        with pytest.raises(InvalidParameter):
            Dns(*arguments, **options)  # type: ignore[arg-type]  # wrong on purpose

    def test_names(self) -> None:
        """What is no name of a host."""
        with pytest.raises(EndpointError):
            Dns("two words", 5555)
        with pytest.raises(InvalidArgumentType):
            Dns(7, 5555)  # type: ignore[arg-type]  # wrong on purpose

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without dnspython, what needs it says what to install; addresses of a name are found by the system."""
        monkeypatch.setattr("engine.resolvers.dns.find_spec", lambda name: None)
        with pytest.raises(ImportError, match=r"callport\[dns\]"):
            Dns("_words._tcp.test")
        with following(Dns("localhost", 5555)) as found:
            wait_until(lambda: found.lists)
