"""How an outcome is recorded: it and its telling come together, whatever breaks in on that, and each comes once."""

import itertools
import sys
from contextlib import suppress
from types import CodeType
from typing import Any

import pytest

from engine import Call, CallCancelled, Client, CompletionPort, Event, Server, apc, sleep
from engine.testing import LIMIT, wait_until

from ..helpers import at_step, code_named, status_of, uses_steps
from ..interfaces import Probe


class Broken(BaseException):
    """What the signal handler raises."""


class OwnEvent(Event):
    """An event of the program's own class."""


class Told:
    """Calls that are told in each of the ways, some of them in a row, and how often each was told of."""

    def __init__(self, client: Client) -> None:
        self.port = CompletionPort()
        self.events = [Event(), Event(), OwnEvent()]
        self.apcs: list[Call[Any]] = []
        self.callbacks: list[Call[Any]] = []
        template = self.port.packet(key="row")
        by_apc = apc(lambda call, kind: self.apcs.append(call))

        def by_callback(call: Call[Any], kind: object) -> None:
            self.callbacks.append(call)

        ways: list[Any] = [template, template, self.port.packet(key="alone"), *self.events]
        ways += [by_apc, by_apc, by_callback, by_callback, None, template]
        echo = client.bind(Probe).echo
        self.calls: list[Call[Any]] = [echo.begin("x", notify=way, timeout=LIMIT) for way in ways]

    def check(self) -> None:
        """Each has ended, and was told of once."""
        assert [status_of(call.complete) for call in self.calls] == [1818] * len(self.calls)
        packets = [packet.overlapped for packet in self.port.get_many(20, 0)]
        assert sorted(map(id, packets)) == sorted(map(id, [*self.calls[:3], self.calls[-1]]))
        assert [event.wait(0) for event in self.events * 2] == [True] * 3 + [False] * 3
        sleep(0, alertable=True)
        assert self.apcs == self.calls[6:8]
        wait_until(lambda: len(self.callbacks) >= 2)
        assert sorted(map(id, self.callbacks)) == sorted(map(id, self.calls[8:10]))
        self.port.close()
        for event in self.events:
            event.close()


def recording(code: CodeType) -> bool:
    """Pick the code that records outcomes, for `at_step`."""
    return code_named("record_locked", "engine/rpc/call.py")(code) or code_named(
        "finish_locked", "engine/rpc/client/call_table.py"
    )(code)


def break_off() -> None:
    raise Broken


@uses_steps
@pytest.mark.untraced
def test_an_interrupt_at_any_step() -> None:
    """A signal handler that raises while outcomes are recorded costs none, and no telling, and repeats none."""
    for number in itertools.count():
        client = Client("tcp://127.0.0.1:9", connect_timeout=None)
        told = Told(client)
        with suppress(Broken), at_step(number, recording, break_off) as reached:
            client.close()
        client.close()
        told.check()
        statistics = client.statistics()
        assert (statistics.calls_finished, statistics.outstanding) == (len(told.calls), 0)
        if reached[0] <= number:
            break
    assert number > 20


@pytest.mark.untraced
def test_no_memory_at_any_step() -> None:
    """An allocation that fails while outcomes are recorded costs none, and no telling, and repeats none."""
    memory = pytest.importorskip("_testcapi")
    for number in (10**9, *range(1, 120)):  # Once without: an interpreter that has just traced the code reworks it.
        with Client("tcp://127.0.0.1:9", connect_timeout=None) as client:
            told = Told(client)
            table = client._connection.table  # No public name reaches all of this without memory for the rest.
            numbers = [call._id for call in told.calls]
            failure = sys.modules["engine.rpc.state"].Failure
            outcomes = [failure(CallCancelled("as told"))] * len(numbers)
            actions: list[Any] = []
            with table.lock:
                memory.set_nomemory(number, number + 1)
                try:
                    table.finish_locked(numbers, outcomes, actions)
                except MemoryError:
                    pass
                finally:
                    memory.remove_mem_hooks()
            for act in actions:
                act()
            told.check()


@pytest.mark.parametrize("size", [1_000, 1_000_000])
def test_what_is_kept_of_a_call(size: int) -> None:
    """A call that has its outcome keeps its arguments no more, though its handle is kept."""
    value = bytes(size)

    def keepers() -> int:
        return sys.getrefcount(value)

    class Routines:
        def take(self, value: object) -> None: ...

    with Server("loopback://kept") as server:
        server.register("kept", Routines())
        server.listen()
        with Client(server.endpoint) as client:
            binding, before = client.bind("kept"), keepers()
            call = binding.take.begin(value)
            assert call.wait(LIMIT)
            binding.take(0)  # What was sent last is kept until the next is.
            wait_until(lambda: keepers() == before)
            assert call.complete() is None
