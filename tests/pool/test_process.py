"""Interpreter exit and fork, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.testing import LIMIT

ROOT = Path(__file__).resolve().parent.parent.parent


def run(name: str) -> subprocess.CompletedProcess[str]:
    """Run a program of `programs.py` in a fresh interpreter; it must exit by itself."""
    command = [sys.executable, "-W", "error", "-m", "tests.pool.programs", name]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, cwd=ROOT)


class TestExit:
    """Section 12, interpreter shutdown."""

    def test_idle_threads_do_not_keep_the_process(self) -> None:
        """Idle workers, armed timers and waits do not keep the interpreter from exiting."""
        done = run("idle_threads")
        assert done.returncode == 0
        assert done.stdout == "ran\n"

    def test_queued_callbacks_are_discarded_and_running_ones_finish(self) -> None:
        """At exit queued callbacks are discarded, and running ones get a moment to finish."""
        done = run("queued_callbacks")
        assert done.returncode == 0
        assert done.stdout == "finished\n"

    def test_a_callback_that_hangs_does_not_keep_the_process(self) -> None:
        """A callback that never returns is abandoned."""
        done = run("a_callback_that_hangs")
        assert done.returncode == 0

    def test_an_executors_calls_are_run(self) -> None:
        """At exit an executor's calls are run, and no more are accepted."""
        done = run("an_executors_calls")
        assert done.returncode == 0
        assert done.stdout == "0\n1\n2\n"

    def test_an_executors_calls_have_a_limit(self) -> None:
        """Calls that outlast the exit limit are abandoned, with a log entry."""
        done = run("an_executors_calls_that_hang")
        assert done.returncode == 0
        assert done.stdout == ""
        assert "still run" in done.stderr


@pytest.mark.skipif(not hasattr(sys, "getswitchinterval") or sys.platform == "win32", reason="no fork")
class TestFork:
    """A forked child has none of its parent's threads."""

    def test_inherited_pools_are_refused_and_nothing_hangs(self) -> None:
        """In the child inherited pools and objects raise `Forked`; new ones work, the default pool is new."""
        done = run("inherited_pools")
        assert done.stdout == "0\n", done.stderr

    def test_waiting_for_what_ran_at_the_fork_is_refused(self) -> None:
        """In the child waits for callbacks and calls that run in the parent raise `Forked`, and end every wait."""
        done = run("what_ran_at_the_fork")
        assert done.stdout == "0\n", done.stderr

    def test_locks_that_were_held_at_the_fork(self) -> None:
        """Futures can be used in the child though threads of the parent were in the midst of using some."""
        done = run("locks_that_were_held")
        assert done.stdout == "0\n", done.stderr

    def test_forking_in_a_callback(self) -> None:
        """A child that is forked in a callback runs that one to its end, none of those behind it, and ends."""
        done = run("forking_in_a_callback")
        assert sorted(done.stdout.splitlines()) == ["0", "5", "in the child 1 1"]
        assert done.stderr == ""

    def test_leaving_blocks_in_the_child(self) -> None:
        """A child leaves the blocks of inherited objects, and itself, without waiting and without an error."""
        done = run("leaving_blocks")
        assert done.stdout == "7\n", done.stderr

    def test_forking_while_the_pool_is_busy(self) -> None:
        """Forks in the midst of the pool's work leave children that end."""
        done = run("a_busy_pool")
        assert done.stdout == "{0} True\n", done.stderr
