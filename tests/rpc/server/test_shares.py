"""How many calls each client of a server may have open, when one has begun more than the server takes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from engine import Call, Client, Server, ServerTooBusy
from engine.testing import LIMIT, Gate, wait_until

from ..helpers import status_of

TOO_BUSY = 1723
CLOSED = 1722


class Holding:
    """A routine that stays, and one that does not."""

    def __init__(self) -> None:
        self.gate = Gate()

    def hold(self) -> None:
        self.gate.pass_through()

    def echo(self, value: int) -> int:
        return value


class TestShares:
    """The last eighth of `max_calls` is for clients that have fewer calls open than `max_calls` by the clients."""

    @pytest.fixture
    def held(self, servers: Callable[..., Server]) -> Any:
        """A function that makes a listening server, and a function that makes a client of it."""
        routines: list[Holding] = []

        def serve(*endpoints: str, **options: Any) -> tuple[Server, Holding]:
            server = servers(*endpoints, **options)
            routines.append(Holding())
            server.register("holding", routines[-1])
            server.listen()
            return server, routines[-1]

        yield serve
        for each in routines:
            each.gate.open()

    def begin(self, client: Client, count: int) -> list[Call[Any]]:
        """Have a client begin calls that stay; return those that were not refused."""
        calls = [client.bind("holding").hold.begin() for _ in range(count)]
        client.bind("holding", causal=False).nothing.begin().wait(LIMIT)  # Refused, one way or the other, after them.
        return [call for call in calls if not call.done()]

    def test_a_greedy_client(self, held: Any, clients: Callable[..., Client], endpoint: str) -> None:
        """Modest clients are never refused beside one that begins twice as many calls as the server takes."""
        server, routines = held(endpoint, max_calls=2000, workers=4)
        modest = [clients(endpoint) for _ in range(4)]
        for client in modest:
            client.bind("holding").echo(0)
        greedy = clients(endpoint)
        greedy.bind("holding").echo(0)
        taken = self.begin(greedy, 4000)
        assert len(taken) == 1750
        calls = [client.bind("holding").echo.begin(number) for client in modest for number in range(10)]
        routines.gate.open()
        for number, call in enumerate(calls):
            assert call.result(LIMIT) == number % 10
        for call in taken:
            call.result(LIMIT)
        wait_until(lambda: server.statistics().active == 0)

    def test_a_client_that_is_alone(self, held: Any, clients: Callable[..., Client], endpoint: str) -> None:
        """It may have all calls open that the server takes; the text of the refusal names the limit."""
        held(endpoint, max_calls=40)
        client = clients(endpoint)
        assert len(self.begin(client, 60)) == 40
        with pytest.raises(ServerTooBusy, match=r"^40 calls are open, max_calls allows no more at once"):
            client.bind("holding").hold()

    def test_what_is_kept(self, held: Any, clients: Callable[..., Client], endpoint: str) -> None:
        """Of the calls that are kept a client may have those that its share lacks; the text says so. None is taken
        beyond `max_calls`.
        """
        server, _ = held(endpoint, max_calls=40)
        first, second, third = [clients(endpoint) for _ in range(3)]
        for client in (first, second, third):
            client.bind("holding").echo(0)
        assert len(self.begin(first, 60)) == 35
        text = r"^35 calls are open, and of max_calls=40 the last 5 are kept for clients that have fewer than 14 open"
        with pytest.raises(ServerTooBusy, match=text):
            first.bind("holding").hold()
        assert len(self.begin(second, 3)) == 3
        assert len(self.begin(third, 3)) == 2
        for client in (first, second, third):
            assert status_of(client.bind("holding").hold) == TOO_BUSY
        assert server.statistics().active == 40

    def test_a_share_that_is_reached(self, held: Any, clients: Callable[..., Client], endpoint: str) -> None:
        """A client that has its share gets nothing of what is kept, and all of what is not."""
        held(endpoint, max_calls=40)
        first, second = [clients(endpoint) for _ in range(2)]
        for client in (first, second):
            client.bind("holding").echo(0)
        assert len(self.begin(first, 16)) == 16
        assert len(self.begin(second, 40)) == 20, "19 are left, and one more until its share"
        assert len(self.begin(first, 40)) == 4

    @pytest.mark.parametrize("most", [1, 7])
    def test_small_limits(self, held: Any, clients: Callable[..., Client], endpoint: str, most: int) -> None:
        """Below eight calls nothing is kept."""
        held(endpoint, max_calls=most)
        first, second = clients(endpoint), clients(endpoint)
        for client in (first, second):
            client.bind("holding").echo(0)
        assert len(self.begin(first, 20)) == most
        assert status_of(partial(second.bind("holding").echo, 1)) == TOO_BUSY

    def test_a_client_that_leaves(self, held: Any, clients: Callable[..., Client], endpoint: str) -> None:
        """Once the others are gone, the one that is left may have all."""
        server, _ = held(endpoint, max_calls=40)
        first, second = clients(endpoint), clients(endpoint)
        for client in (first, second):
            client.bind("holding").echo(0)
        assert len(self.begin(first, 60)) == 35
        second.close()

        wait_until(lambda: len(self.begin(first, 1)) == 1)
        assert len(self.begin(first, 60)) == 4
        assert server.statistics().active == 40

    def test_several_endpoints(self, held: Any, clients: Callable[..., Client], endpoint: str) -> None:
        """They have one limit between them."""
        server, routines = held(endpoint, "loopback://shares", max_calls=40)
        first, second = clients(endpoint), clients("loopback://shares")
        for client in (first, second):
            client.bind("holding").echo(0)
        assert len(self.begin(first, 60)) == 35
        assert len(self.begin(second, 60)) == 5
        assert server.statistics().active == 40
        server.stop()
        assert status_of(partial(second.bind("holding").echo, 1)) == CLOSED
        assert not server.wait(0)
        routines.gate.open()
        assert server.wait(LIMIT)
        assert server.statistics().active == 0
