"""Clients that have a process to themselves: nobody else's threads do their work."""

import gc
import subprocess
import sys
import warnings
from collections.abc import Callable

import pytest

from engine import Server
from engine.testing import LIMIT
from transport import EndpointError

from ..helpers import ROOT, Bench, Service


class Program:
    """A scenario of `alone.py`, running."""

    def __init__(self, scenario: str, endpoint: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.rpc.client.alone", scenario, endpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )

    def end(self) -> tuple[str, str]:
        """End its input, wait for it to end, and return what it said, and what it complained of."""
        try:
            said, complaints = self._process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            said, complaints = self._process.communicate()
            raise AssertionError(f"it did not end; it said:\n{said}\n{complaints}") from None
        assert self._process.returncode == 0, complaints
        return said.strip(), complaints


def run(scenario: str, endpoint: str) -> str:
    """Run a scenario, and return what it said."""
    return Program(scenario, endpoint).end()[0]


class TestNobodyWaits:
    """Progress while no thread waits in the library."""

    def test_one_way(self, service: Callable[..., Service], benches: Callable[..., Bench]) -> None:
        """A one-way call leaves though the client was not connected when it was begun, and nothing waits."""
        mine = service()
        program = Program("one_way", mine.endpoint)
        assert benches(mine.endpoint).control.noted("alone") == 1
        assert program.end()[0] == "ended"

    def test_begun_and_left(self, service: Callable[..., Service], benches: Callable[..., Bench]) -> None:
        """A call leaves, once there is a connection, though its thread does something else."""
        mine = service()
        program = Program("begun_and_left", mine.endpoint)
        control = benches(mine.endpoint).control
        control.arrived("left")
        assert control.noted("left") == 1
        assert program.end()[0] == "0 997"

    def test_deferred_calls(self, service: Callable[..., Service], benches: Callable[..., Bench]) -> None:
        """Calls that wait to be batched leave within a tick though their thread computes."""
        mine = service()
        program = Program("busy_elsewhere", mine.endpoint)
        assert benches(mine.endpoint).control.noted("busy") == 1
        assert program.end()[0] == "arrived"

    @pytest.mark.parametrize(
        ("scenario", "said"),
        [("callback", "called back"), ("polling", "polled polled"), ("many", str(999 * 500 + 99 * 100))],
    )
    def test_replies(self, services: Callable[..., str], scenario: str, said: str) -> None:
        """Replies come by callback, by polling, and in each kind of wait."""
        assert run(scenario, services("tcp")) == said

    def test_unreachable(self, endpoint: str) -> None:
        """A call to nobody ends with 1722 in time."""
        assert run("unreachable", endpoint) == "1722"


class TestInterrupts:
    """Ctrl-C."""

    def test_in_a_blocking_call(self, services: Callable[..., str]) -> None:
        """It ends the call, tells the server, and leaves the client in order."""
        assert run("interrupted", services("ipc")).split("\n") == ["interrupted", "in order 0"]


class TestForks:
    """fork()."""

    def test_a_client_in_the_child(self, services: Callable[..., str]) -> None:
        """The child's copy refuses without a hang; a new client works there, and the parent's goes on."""
        assert run("forked", services("ipc")) == "0 parent parent"

    def test_a_server_in_the_child(self, endpoint: str) -> None:
        """The child's copy refuses, and so do its calls; a new server works there, and the parent's goes on."""
        assert run("forked_server", endpoint) == "0 parent 4711"


class TestEnds:
    """The end of a process, and dropped clients."""

    def test_never_closed(self, services: Callable[..., str]) -> None:
        """A client that was never closed is reported as the process ends, which it does."""
        said, complaints = Program("never_closed", services("ipc")).end()
        assert said == "used"
        assert "was never closed" in complaints

    def test_never_closed_where_warnings_are_errors(self, endpoint: str) -> None:
        """Nobody could catch it then: it is a line of the log, without a traceback."""
        said, complaints = Program("never_closed_strictly", endpoint).end()
        assert said == "left"
        assert complaints.count("was never closed") == 2 and "Traceback" not in complaints

    def test_dropped_servers(self, endpoint: str) -> None:
        """A server that did not get to listen and was dropped is told of once, by its own name and no part of it."""
        server = Server(f"{endpoint}/none/such", name="dropped-server")
        with pytest.raises(EndpointError):
            server.listen()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            del server
            gc.collect()
        assert [each.category for each in told] == [ResourceWarning]
        assert "<Server dropped-server" in str(told[0].message)

    def test_with_calls_outstanding(self, services: Callable[..., str]) -> None:
        """A process ends though calls are outstanding and nothing was closed."""
        assert run("exits_with_calls", services("ipc")) == "exits"
