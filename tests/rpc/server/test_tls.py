"""Servers under TLS: whom routines and conditions are told of, and how the calls of those end who are refused."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import CallAttributes, Client, Context, ContextMismatch, Interface, Server, ServerUnavailable, current_call
from engine.testing import wait_until
from tests.certificates import CLIENT, client_context, server_context

from ..helpers import reach

Servers = Callable[..., Server]
Clients = Callable[..., Client]


class Till(Interface):
    """Something that belongs to one client."""

    def open(self) -> Context[list[int]]: ...

    def put(self, till: Context[list[int]], coin: int) -> int: ...

    def owner(self) -> str: ...


class Tills:
    """It, served."""

    def open(self) -> Context[list[int]]:
        return current_call().open_context([])

    def put(self, till: Context[list[int]], coin: int) -> int:
        till.state.append(coin)
        return sum(till.state)

    def owner(self) -> str:
        return current_call().attributes().client_principal


def served(servers: Servers, endpoint: str = "tls://127.0.0.1:*", **conditions: Any) -> Server:
    """A server that listens; clients need a certificate."""
    server = servers(endpoint, tls=server_context())
    server.register(Till, Tills(), **conditions)
    server.listen()
    return server


class TestIdentity:
    def test_of_a_certificate(self, servers: Servers, clients: Clients) -> None:
        """Its name is the principal that conditions and routines see; the connection has privacy."""
        asked: list[CallAttributes] = []

        def known(who: CallAttributes) -> bool:
            asked.append(who)
            return who.client_principal == CLIENT

        server = served(servers, security=known, secure_only=True)
        till = clients(server.endpoint, tls=client_context()).bind(Till)
        assert till.owner() == CLIENT
        assert [(who.client_address, who.authentication_level) for who in asked] == [("127.0.0.1", 6)]

    def test_of_a_user_of_this_machine(self, servers: Servers, clients: Clients, tmp_path: Path) -> None:
        """On `native+ipc` the principal is the user, as the kernel says."""
        server = served(servers, f"native+ipc://{tmp_path}/s", secure_only=True)
        assert clients(server.endpoint).bind(Till).owner() == f"uid:{os.getuid()}"

    def test_of_nobody(self, servers: Servers, clients: Clients) -> None:
        """Who has shown no certificate, as the server asks for none, has no principal."""
        server = servers("tls://127.0.0.1:*", tls=server_context(mutual=False))
        server.register(Till, Tills())
        server.listen()
        assert clients(server.endpoint, tls=client_context()).bind(Till).owner() == ""

    def test_owns_its_context_handles(self, servers: Servers, clients: Clients) -> None:
        """A handle is of who opened it: with another certificate it leads nowhere, whatever the client calls itself."""
        server = served(servers)
        mine = clients(server.endpoint, tls=client_context())
        other = clients(server.endpoint, tls=client_context(own="server"))
        # What somebody would do who has read the greeting and the handle.
        other._connection._association = mine._connection._association
        till = mine.bind(Till).open()
        assert mine.bind(Till).put(till, 2) == 2
        with pytest.raises(ContextMismatch):
            other.bind(Till).put(till, 3)


class TestRefusal:
    @pytest.mark.parametrize(
        ("server", "client", "cause"),
        [
            ("stranger", "client", "its certificate is refused: unable to get local issuer certificate"),
            ("client", "client", "its certificate is refused: IP address mismatch"),
            ("server", "stranger", "it refuses this side: unknown ca"),
            ("server", None, "it refuses this side: certificate required"),
        ],
    )
    def test_ends_the_calls(
        self, servers: Servers, clients: Clients, caplog: pytest.LogCaptureFixture,
        server: str, client: str | None, cause: str,
    ) -> None:  # fmt: skip
        """No call waits for a connection that certificates forbid, and its error says what is wrong; the server's log
        names the peer and the cause.
        """
        house = servers("tls://127.0.0.1:*", tls=server_context(own=server))
        house.register(Till, Tills())
        house.listen()
        visitor = clients(house.endpoint, tls=client_context(own=client), connect_timeout=None)
        calls = [visitor.bind(Till).owner.begin() for _ in range(3)]  # type: ignore[attr-defined]  # bound by a variable
        for call in calls:
            with pytest.raises(ServerUnavailable, match=cause):
                call.result()
        with pytest.raises(ServerUnavailable, match=cause):
            visitor.bind(Till).owner()
        with caplog.at_level(logging.WARNING):
            wait_until(lambda: f"{house.endpoint}: refused a connection from 127.0.0.1: " in caplog.text)

    def test_leaves_none_behind(self, servers: Servers, clients: Clients) -> None:
        """Calls that have ended so are not sent to the server that is there later, with another certificate."""
        stranger = servers("tls://127.0.0.1:*", tls=server_context(own="stranger"))
        stranger.listen()
        visitor = clients(stranger.endpoint, tls=client_context(), connect_timeout=None)
        for _ in range(3):
            with pytest.raises(ServerUnavailable):
                visitor.bind(Till).owner()
        stranger.close()
        server = served(servers, stranger.endpoint)
        reach(visitor)
        assert visitor.bind(Till).owner() == CLIENT
        assert server.statistics().calls_in == 1
