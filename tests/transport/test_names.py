"""Hosts by name: every address that a name has is bound, and tried."""

import errno
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.testing import LIMIT, wait_until
from tests.transport.helpers import Party, exchange, settle
from transport import EndpointError, bind, connect

Book = dict[str, list[str]]


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> Book:
    """What the resolver knows: names and their addresses, in order."""
    known: Book = {}
    real = socket.getaddrinfo

    def look_up(host: str, port: Any, *args: Any, **options: Any) -> list[Any]:
        if not host.endswith(".test"):
            return real(host, port, *args, **options)
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [found for address in known[host] for found in real(address, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@pytest.fixture(params=["tcp", "native+tcp"])
def scheme(request: pytest.FixtureRequest) -> str:
    """Each link that knows hosts."""
    return str(request.param)


@pytest.fixture
def parties() -> Any:
    """A function that keeps links, until the end of the test."""
    made: list[Party] = []

    def keep(link: Any) -> Party:
        made.append(Party(link))
        return made[-1]

    yield keep
    for party in made:
        party.close()


Keep = Callable[[Any], Party]


def test_the_second_address(book: Book, parties: Keep, scheme: str) -> None:
    """A client whose server listens on the second address of the name reaches it, again after the server came back."""
    book["two.test"] = ["127.0.0.2", "127.0.0.1"]
    server = parties(bind(f"{scheme}://127.0.0.1:*"))
    port = server.link.endpoint.rpartition(":")[2]
    client = parties(connect(f"{scheme}://two.test:{port}"))
    exchange([server, client], lambda: client.ups)
    assert client.send(b"", [b"hello"])
    exchange([server, client], lambda: server.messages)
    server.close()
    exchange([client], lambda: client.losses)
    book["two.test"] = ["127.0.0.1", "127.0.0.2"]
    again = parties(bind(f"{scheme}://127.0.0.2:{port}"))
    exchange([again, client], lambda: len(client.ups) == 2)


def test_nobody_at_any_address(book: Book, parties: Keep, scheme: str) -> None:
    """The refusal tells of each address."""
    book["two.test"] = ["127.0.0.2", "127.0.0.1"]
    client = parties(connect(f"{scheme}://two.test:1"))
    exchange([client], lambda: client.refusals)
    assert f"127.0.0.2:1: nobody listens there; {scheme}://127.0.0.1:1: nobody listens there" in client.refusals[0]


def test_a_name_that_is_not_known_yet(book: Book, parties: Keep, scheme: str) -> None:
    """The refusal says so; the client goes on looking, and connects once the name is known."""
    server = parties(bind(f"{scheme}://127.0.0.1:*"))
    client = parties(connect(server.link.endpoint.replace("127.0.0.1", "later.test")))
    exchange([client], lambda: client.refusals)
    assert "later.test" in client.refusals[0] and "its host cannot be found: Name or service" in client.refusals[0]
    book["later.test"] = ["127.0.0.1"]
    exchange([server, client], lambda: client.ups)


def test_no_descriptor_for_looking_up(book: Book, parties: Keep, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that cannot look its server up again, as no descriptor is left, tries that until there is one."""
    book["again.test"] = ["127.0.0.1"]
    server = parties(bind(f"{scheme}://127.0.0.1:*"))
    endpoint = server.link.endpoint
    client = parties(connect(endpoint.replace("127.0.0.1", "again.test")))
    exchange([server, client], lambda: client.ups)
    refused: list[int] = []
    real = socket.socketpair

    def refuse(*args: Any, **options: Any) -> Any:
        if len(refused) < 3:
            refused.append(1)
            raise OSError(errno.EMFILE, "Too many open files")
        return real(*args, **options)

    monkeypatch.setattr(socket, "socketpair", refuse)
    server.close()
    exchange([client], lambda: len(client.refusals) >= 3)
    again = parties(bind(endpoint))
    exchange([again, client], lambda: len(client.ups) == 2)
    assert len(refused) == 3


def test_a_resolver_that_hangs(monkeypatch: pytest.MonkeyPatch, parties: Keep, scheme: str) -> None:
    """Neither connecting, nor harvesting, nor closing waits for it."""
    asked, go_on = threading.Event(), threading.Event()

    def hang(*args: Any, **options: Any) -> list[Any]:
        asked.set()
        go_on.wait(LIMIT)
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    threads = threading.active_count()
    client = parties(connect(f"{scheme}://hangs.test:5555"))
    assert asked.wait(LIMIT)
    assert not client.harvest()
    client.close()
    go_on.set()
    wait_until(lambda: threading.active_count() <= threads)


def test_binding_a_name(book: Book, parties: Keep, scheme: str) -> None:
    """A server listens on each address of the name, on one port; its endpoint has the name if there are several."""
    book["two.test"] = ["127.0.0.2", "127.0.0.1"]
    server = parties(bind(f"{scheme}://two.test:*"))
    assert server.link.endpoint.startswith(f"{scheme}://two.test:")
    port = server.link.endpoint.rpartition(":")[2]
    for host in ("127.0.0.1", "127.0.0.2", "two.test"):
        client = parties(connect(f"{scheme}://{host}:{port}"))
        exchange([server, client], lambda: client.ups)  # noqa: B023  # called in this turn


def test_a_port_that_is_taken_at_one_address(
    book: Book, parties: Keep, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the port that the system chose at the first address is taken at the second, another one is chosen."""
    if not scheme.startswith("native"):
        pytest.skip("ZeroMQ binds: what it does cannot be stopped in between")
    book["two.test"] = ["127.0.0.2", "127.0.0.1"]
    taken: list[int] = []
    plain = socket.socket.bind

    def bind_it(self: socket.socket, address: tuple[str, int]) -> None:
        if address[0] == "127.0.0.1" and not taken:
            taken.append(address[1])
            raise OSError(errno.EADDRINUSE, "Address already in use")
        plain(self, address)

    monkeypatch.setattr(socket.socket, "bind", bind_it)
    server = parties(bind(f"{scheme}://two.test:*"))
    monkeypatch.undo()
    port = server.link.endpoint.rpartition(":")[2]
    assert taken
    for host in ("127.0.0.1", "127.0.0.2"):
        client = parties(connect(f"{scheme}://{host}:{port}"))
        exchange([server, client], lambda: client.ups)  # noqa: B023  # called in this turn
    parties(bind(f"{scheme}://127.0.0.2:{taken[0]}"))  # It was given back.


def test_binding_what_is_no_name(book: Book, parties: Keep, scheme: str) -> None:
    """A host that nobody knows is an EndpointError that says so; a name whose port is taken at one address, too."""
    with pytest.raises(EndpointError, match="its host cannot be found"):
        bind(f"{scheme}://nobody.test:*")
    book["two.test"] = ["127.0.0.2", "127.0.0.1"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EndpointError, match="in use"):
            bind(f"{scheme}://two.test:{port}")
        parties(bind(f"{scheme}://127.0.0.2:{port}"))  # It was given back.


def test_ipv6(parties: Keep, scheme: str) -> None:
    """A literal in brackets, on both sides."""
    if not socket.has_ipv6:
        pytest.skip("there is no IPv6 here")
    try:
        server = parties(bind(f"{scheme}://[::1]:*"))
    except EndpointError:
        pytest.skip("IPv6 is switched off")
    assert server.link.endpoint.startswith(f"{scheme}://[::1]:")
    client = parties(connect(server.link.endpoint))
    exchange([server, client], lambda: client.ups)


@pytest.mark.parametrize("addresses", [["192.0.2.99", "127.0.0.1"], ["127.0.0.1", "192.0.2.99"]])
def test_binding_what_is_here(book: Book, parties: Keep, scheme: str, addresses: list[str]) -> None:
    """A server binds those addresses of a name that are this machine's, whichever comes first."""
    book["some.test"] = addresses
    server = parties(bind(f"{scheme}://some.test:*"))
    client = parties(connect(f"{scheme}://127.0.0.1:{server.link.endpoint.rpartition(':')[2]}"))
    exchange([server, client], lambda: client.ups)


def test_binding_what_is_not_here(book: Book, scheme: str) -> None:
    """A name none of whose addresses is this machine's is refused, and so is one that has none."""
    for book["away.test"] in (["192.0.2.99"], []):
        with pytest.raises(EndpointError, match="cannot bind"):
            bind(f"{scheme}://away.test:*")


class TestRace:
    """Addresses of a name that a native client tries beside each other."""

    @pytest.fixture
    def silent(self) -> Iterator[socket.socket]:
        """Somebody who listens on 127.0.0.2, and says nothing."""
        with socket.create_server(("127.0.0.2", 0)) as made:
            made.settimeout(LIMIT)
            yield made

    def test_one_that_is_silent(self, book: Book, parties: Keep, silent: socket.socket) -> None:
        """It keeps the next from being tried for a moment only, whatever `connect_timeout` allows, and is left then."""
        port = silent.getsockname()[1]
        server = parties(bind(f"native+tcp://127.0.0.1:{port}"))
        book["two.test"] = ["127.0.0.2", "127.0.0.1"]
        client = parties(connect(f"native+tcp://two.test:{port}", connect_timeout=2000))
        exchange([server, client], lambda: client.ups)
        assert client.refusals == []
        with silent.accept()[0] as left:
            left.settimeout(LIMIT)
            while left.recv(1000):
                pass
        assert client.send(b"", [b"hello"])
        exchange([server, client], lambda: server.messages)

    def test_all_that_are_silent(self, book: Book, parties: Keep, silent: socket.socket) -> None:
        """The time is for all together; the refusal tells of each, and the client goes on."""
        port = silent.getsockname()[1]
        with socket.create_server(("127.0.0.3", port)):
            book["two.test"] = ["127.0.0.2", "127.0.0.3"]
            client = parties(connect(f"native+tcp://two.test:{port}", connect_timeout=0.3))
            exchange([client], lambda: client.refusals)
        for host in book["two.test"]:
            assert f"native+tcp://{host}:{port}: its host does not answer" in client.refusals[0]
        server = parties(bind(f"native+tcp://127.0.0.3:{port}"))
        exchange([server, client], lambda: client.ups)

    def test_two_that_answer_at_once(self, book: Book, parties: Keep) -> None:
        """One of them gets the client, which is told of one connection; the other hears of nobody."""
        first = parties(bind("native+tcp://127.0.0.2:*"))
        port = first.link.endpoint.rpartition(":")[2]
        second = parties(bind(f"native+tcp://127.0.0.1:{port}"))
        book["two.test"] = ["127.0.0.2", "127.0.0.1"]
        client = parties(connect(f"native+tcp://two.test:{port}", connect_timeout=2000))
        exchange([client], second.ready)  # Neither has answered by now.
        settle([first, second])
        exchange([client], lambda: client.ups)
        assert client.send(b"", [b"hello"])
        exchange([first, second, client], lambda: first.messages or second.messages)
        settle([first, second, client])
        assert len(first.log + second.log) == 2 and [what for what, _, _ in client.log] == ["connected"]

    def test_families_take_turns(self, book: Book, parties: Keep) -> None:
        """One family that leads nowhere does not come first as a whole."""
        book["many.test"] = ["127.0.0.2", "127.0.0.3", "::1", "127.0.0.4"]
        client = parties(connect("native+tcp://many.test:1"))
        exchange([client], lambda: client.refusals)
        tried = re.findall(r"native\+tcp://([^ ]+):1: ", client.refusals[0].partition("://many.test:1: ")[2])
        assert tried == ["127.0.0.2", "[::1]", "127.0.0.3", "127.0.0.4"]
