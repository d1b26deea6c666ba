"""What has arrived counts, whoever was to take it: before a limit or an abort, in a query, in a registered wait."""

import subprocess
import sys

import pytest

from engine.kernel.driver import driver
from engine.testing import LIMIT

from ... import lock_order
from ..helpers import PENDING, ROOT, Bench


def run(scenario: str) -> list[str]:
    """Run a scenario of `arrived.py` in a process of its own, and return the words that it said."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.rpc.client.arrived", scenario, "tcp://127.0.0.1:*"],
        capture_output=True, cwd=ROOT, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


class TestLimits:
    """An answer that has arrived before the end of a wait or a call is the outcome."""

    def test_of_a_call(self) -> None:
        """A call whose time is up ends with the answer that had arrived, though no thread has waited for it."""
        assert run("limit") == ["arrived"]

    def test_of_a_wait(self) -> None:
        """A wait whose time is up, however short it was, ends with what had arrived."""
        assert run("out_of_time") == ["True"] * 4

    def test_of_a_registered_wait(self) -> None:
        """A registered wait whose event was signaled before its time is up says so (0), not that it is up (258)."""
        assert run("registered_limit") == ["0"]

    def test_an_abort(self) -> None:
        """Aborting a call whose answer has arrived does nothing: it is complete."""
        assert run("abort") == ["arrived"]

    def test_closing(self) -> None:
        """Closing a client does not end calls whose answer has arrived."""
        assert run("closing") == ["arrived"]


class TestQueries:
    """A program that polls."""

    def test_each(self) -> None:
        """Each query of a call, an event, a semaphore, a port and a client sees what has arrived."""
        assert run("queries") == ["True"] * 16

    def test_behind_many(self) -> None:
        """An answer behind many others, in messages of their own, is seen too."""
        assert run("many") == ["True"]

    def test_in_the_midst_of_a_harvest(self, bench: Bench, key: str, caplog: pytest.LogCaptureFixture) -> None:
        """A query of a signal handler that interrupted the use of a link leaves the link alone, and in order."""
        call = bench.held(key)
        with bench.client._connection.channel.link.lock:
            driver().schedule(bench.client._connection.channel)
            assert call.status() == PENDING
        lock_order.found.clear()  # It was the test that had the lock of a link.
        assert bench.control.complete(key, "answered") == 0 and call.result(LIMIT) == "answered"
        assert not caplog.records


class TestRegisteredWaits:
    """Waits in which no thread sleeps."""

    def test_progress_needs_nobody_who_waits(self) -> None:
        """`register_wait`, `associate_wait` and a pool's `Wait` end on an event or port that a call tells."""
        assert run("registered") == ["True"] * 5

    @pytest.mark.parametrize("scenario", ["registered_semaphore", "registered_future"])
    def test_what_else_a_call_signals(self, scenario: str) -> None:
        """A registered wait ends on whatever a notification of the program's own signals."""
        assert run(scenario) == ["True"]

    def test_idle(self) -> None:
        """They cost no processor time while nothing arrives, nor after they have ended."""
        assert run("idle") == ["True"] * 2
