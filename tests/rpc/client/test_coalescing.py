"""Calls that are outstanding together leave together: a message costs far more than a call."""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from engine import Call, Client, Server
from engine.testing import LIMIT, wait_until_blocked
from transport.frames import Calls, Replies, ReplyGroup
from transport.wire.codec import encode_value

from ...one_by_one import calls_in
from ..helpers import RawServer, new_endpoint
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


FEW = 4
ROUNDS = 50  # Of a slow machine the monitor may take the answers, and then it is not known who will wait.


def answer(server: RawServer, numbers: Sequence[int]) -> None:
    """Answer these calls in one message."""
    nothing = msgspec.Raw(encode_value(None))
    server.say(Replies([ReplyGroup(list(numbers), [nothing] * len(numbers))]))


class TestFew:
    """Calls of which only a few are outstanding."""

    def begin(self, server: RawServer, probe: Any) -> tuple[list[Call[Any]], list[int]]:
        """Begin a few calls, behind one that is answered; return them, and their numbers."""
        first = probe.echo.begin("to connect")
        server.greet()
        answer(server, sum(hear_calls(server, 1), []))
        assert first.wait(LIMIT)
        calls = [probe.echo.begin(number) for number in range(FEW)]
        assert not calls[-1].wait(0)
        return calls, sum(hear_calls(server, FEW), [])

    def test_of_a_thread_that_takes_the_answers(self, endpoint: str) -> None:
        """A thread that takes the answers to its calls, and begins others, sends those together."""
        with RawServer(endpoint) as server, Client(endpoint) as client:
            probe = client.bind(Probe)
            calls, numbers = self.begin(server, probe)
            for _ in range(ROUNDS):
                answer(server, numbers)
                assert calls[-1].wait(LIMIT)
                calls = [probe.echo.begin(number) for number in range(FEW)]
                assert not calls[-1].wait(0)
                messages = hear_calls(server, FEW)
                if len(messages) < FEW:
                    return
                numbers = sum(messages, [])
            raise AssertionError(f"each of {FEW} calls left by itself, {ROUNDS} times")

    def test_of_a_thread_that_never_waits(self, endpoint: str) -> None:
        """What a thread begins whose answers another one takes leaves at once, as nobody knows when it will wait."""
        with RawServer(endpoint) as server, Client(endpoint) as client:
            probe = client.bind(Probe)
            calls, numbers = self.begin(server, probe)
            other = threading.Thread(target=partial(calls[-1].wait, LIMIT))
            other.start()
            wait_until_blocked(other)
            answer(server, numbers)
            other.join(LIMIT)
            begun = [probe.echo.begin(number) for number in range(FEW)]
            assert len(hear_calls(server, FEW)) == len(begun)


class Echo:
    """A service without a contract."""

    def echo(self, value: int) -> int:
        return value


def test_within_one_process(servers: Callable[..., Server], clients: Callable[..., Client], folder: Path) -> None:
    """Over loopback the calls that a thread keeps outstanding leave together as it comes to wait, however few."""
    server = servers(new_endpoint("loopback", folder))
    server.register("echo", Echo())
    server.listen()
    client = clients(server.endpoint)
    echo = client.bind("echo").echo
    for _ in range(ROUNDS):
        for outstanding in (2, 3, 16):
            for _ in range(2):  # The first time shows how many are outstanding.
                before = client.statistics().messages_sent
                calls = [echo.begin(number) for number in range(outstanding)]
                assert [call.result(LIMIT) for call in reversed(calls)] == list(reversed(range(outstanding)))
                sent = client.statistics().messages_sent - before
            if sent > 1:
                break  # The monitor's tick was first.
        else:
            return
    raise AssertionError("they never left together")
