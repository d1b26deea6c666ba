"""Most messages go a short way through a client, and all others a long one: no program can tell which."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import pytest

from engine import Client, CompletionPort
from engine.testing import LIMIT, wait_until
from transport.frames import Calls, Credit, Replies
from transport.wire.codec import REPLIES_PREFIX

from ...one_by_one import calls_in
from ..helpers import RawServer, status_of
from ..interfaces import Probe

CALLS = 4

# What one group of a message with replies says: which calls it answers, and with which values.
GROUPS: dict[str, tuple[list[Any], list[Any]]] = {
    "one": ([2], ["a"]),
    "several": ([2, 3, 4], ["a", "b", "c"]),
    "in no order": ([5, 2], ["d", "a"]),
    "of another type": ([2, 3], [7, "b"]),
    "one that is not outstanding": ([99], ["a"]),
    "some that are not outstanding": ([99, 3, 98], ["x", "b", "y"]),
    "none": ([], []),
    "one twice": ([2, 2], ["a", "b"]),
    "too few values": ([2, 3], ["a"]),
    "too many values": ([2], ["a", "b"]),
    "no numbers": (["two"], ["a"]),
    "a number below zero": ([-1], ["a"]),
}

# The ways to write it down: in few bytes, and with what else there may be, said to be none.
WAYS: dict[str, Callable[[list[Any], list[Any]], Any]] = {
    "short": lambda ids, values: [[[ids, values]]],
    "with a status": lambda ids, values: [[[ids, values, 0]]],
    "with options": lambda ids, values: [[[ids, values, 0, None]]],
    "with what a later version says": lambda ids, values: [[[ids, values, 0, None, "more"]], "more"],
}


def seen(endpoint: str, message: Any, rest: tuple[bytes, ...] = ()) -> dict[str, Any]:
    """What a program sees of calls to which a server says this, and of the client."""
    with RawServer(endpoint) as server, Client(server.endpoint) as client, CompletionPort() as port:
        probe = client.bind(Probe)
        probe.echo.begin("to connect")
        server.greet()
        calls = [probe.echo.begin(number, notify=port.packet(key=number)) for number in range(CALLS)]
        assert not calls[-1].wait(0)
        heard = 0
        while heard < CALLS + 1:
            calls_heard = server.hear()
            assert isinstance(calls_heard, Calls)
            heard += len(list(calls_in(calls_heard)))
        before = client.statistics().messages_received
        server.send(REPLIES_PREFIX + msgspec.msgpack.encode(message), *rest)
        server.say(Credit([]))  # What is before it was taken when it was.
        wait_until(lambda: [call.done() for call in calls] and client.statistics().messages_received > before + 1)
        wait_until(lambda: len(port) == sum(call.done() for call in calls))
        packets = []
        with suppress(TimeoutError):
            while True:
                packets.append(port.get(0).key)
        statistics = client.statistics()
        return {
            "outcomes": [status_of(partial(call.result, 0)) if call.done() else None for call in calls],
            "packets": packets,
            "garbage": statistics.garbage_received,
            "late": statistics.replies_late,
            "outstanding": statistics.outstanding,
            "finished": statistics.calls_finished,
        }


class TestReplies:
    """Replies say the same, in however many bytes."""

    @pytest.mark.parametrize("group", GROUPS)
    def test_in_any_way(self, group: str, endpoint: str) -> None:
        """What becomes of the calls, and what the client counts, does not depend on the way they are written down."""
        found = {way: seen(endpoint, write(*GROUPS[group])) for way, write in WAYS.items()}
        assert all(each == found["short"] for each in found.values()), found

    def test_of_great_depth(self, endpoint: str) -> None:
        """Nor on how deep a value is: one that is too deep for the interpreter makes it garbage."""
        deep = msgspec.Raw(b"\x91" * 30_000 + b"\xc0")
        found = [seen(endpoint, write([2], [deep])) for write in WAYS.values()]
        assert all(each == found[0] for each in found)

    def test_of_two_groups(self, endpoint: str) -> None:
        """Nor on how many groups they come in."""
        one = seen(endpoint, [[[[2, 3], ["a", "b"]]]])
        assert seen(endpoint, [[[[2], ["a"]], [[3], ["b"]]]]) == one
        assert one["packets"] == [0, 1] and one["outcomes"][:2] == [0, 0]

    def test_with_frames_that_do_not_belong_there(self, endpoint: str) -> None:
        """A frame too many makes it garbage, in either way."""
        found = [seen(endpoint, write([2], ["a"]), (b"more",)) for write in WAYS.values()]
        assert all(each == found[0] for each in found)
        assert found[0]["garbage"] == 1 and found[0]["outstanding"] == CALLS + 1

    @pytest.mark.parametrize("size", [1_000, 3_000, 40_000])
    def test_of_any_size(self, size: int, endpoint: str) -> None:
        """Nor on how large they are."""
        text = "x" * size
        found = [seen(endpoint, write([2, 3], [text, text])) for write in WAYS.values()]
        assert all(each == found[0] for each in found)
        assert found[0]["outcomes"][:2] == [0, 0]


class TestCalls:
    """Calls arrive in the order in which they were begun, whether they are encoded early or late."""

    def test_of_all_kinds(self, endpoint: str) -> None:
        """Short ones, such as may change, and large ones take turns."""
        values: list[Any] = ["a", "b", ["c"], "d", "e", bytes(1 << 17), "f", ["g"], ["h"], "i"]
        with RawServer(endpoint) as server, Client(server.endpoint) as client:
            probe = client.bind(Probe)
            calls = [probe.echo.begin(value) for value in values]
            server.greet()
            numbers: list[int] = []
            while len(numbers) < len(values):
                message = server.hear()
                assert isinstance(message, Calls)
                numbers += [call.id for call in calls_in(message)]
            assert numbers == list(range(1, len(values) + 1))
            server.say(Replies([]))
            for call in calls:
                call.cancel(abort=True)
                assert call.wait(LIMIT)
