"""Calls that are outstanding together leave together: a message costs far more than a call."""

from typing import Any

from engine import Client
from transport.frames import Calls

from ...one_by_one import calls_in
from ..helpers import RawServer
from ..interfaces import Probe

OUTSTANDING = 64


def hear_calls(server: RawServer, count: int) -> list[list[Any]]:
    """Take so many calls; return their numbers, message by message."""
    messages: list[list[Any]] = []
    while sum(map(len, messages)) < count:
        message = server.hear()
        assert isinstance(message, Calls)
        messages.append([record.id for record in calls_in(message)])
    return messages


class TestMessages:
    """How many messages calls leave in."""

    def test_while_connected(self, endpoint: str) -> None:
        """Many outstanding calls leave in fewer messages than there are calls, in the order begun."""
        with RawServer(endpoint) as server, Client(endpoint) as client:
            probe = client.bind(Probe)
            probe.echo.begin("to connect")
            server.greet()
            assert hear_calls(server, 1) == [[1]]
            calls = [probe.echo.begin(number) for number in range(OUTSTANDING)]
            assert not calls[-1].wait(0)
            messages = hear_calls(server, OUTSTANDING)
            assert len(messages) < OUTSTANDING // 2
            assert sum(messages, []) == list(range(2, OUTSTANDING + 2))

    def test_before_the_connection(self, endpoint: str) -> None:
        """What waited for the connection leaves in one message."""
        with Client(endpoint, connect_timeout=None) as client:
            probe = client.bind(Probe)
            for number in range(OUTSTANDING):
                probe.echo.begin(number)
            with RawServer(endpoint) as server:
                server.greet()
                assert hear_calls(server, OUTSTANDING) == [list(range(1, OUTSTANDING + 1))]
