"""What the library does while the system refuses to start threads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from engine.testing import LIMIT

ROOT = Path(__file__).resolve().parent.parent


def outcome(name: str) -> str:
    """Run one of the programs of `starving.py`; return what it printed."""
    program = [sys.executable, "-m", "tests.starving", name]
    found = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    assert (found.returncode, "Traceback" in found.stderr) == (0, False), found.stderr
    return found.stdout.strip()


@pytest.mark.parametrize("name", ["timer", "timer_for_good", "timer_without_wait", "timer_while_another_waits"])
def test_timers_fire(name: str) -> None:
    """A timer fires though the monitor could be started on a later attempt only; or never, if a thread waits for it."""
    assert outcome(name) == "fired"


@pytest.mark.parametrize("name", ["limit", "limit_for_good", "awaited", "awaited_for_good"])
def test_time_limits_end(name: str) -> None:
    """A call's time runs out, and a task's wait ends at its limit, though there is no monitor."""
    assert outcome(name) == "timeout"


def test_a_callback_that_overruns() -> None:
    """What is queued behind a callback that is away is let past it though there is no monitor, if a thread waits."""
    assert outcome("overrun") == "ran"


def test_a_signal_handler_loses_nothing() -> None:
    """What a signal handler may not do under the lock that it met is done by whoever waits, if no thread can be had."""
    assert outcome("handler") == "satisfied"


def test_a_pool_hires_again_with_a_pause() -> None:
    """What is queued runs once a worker can be started; until then few attempts are made, and few are told of."""
    assert outcome("pool") == "True,True"


def test_a_pool_gets_its_minimum() -> None:
    """A pool that was refused the workers that it keeps has them later, though nothing is queued."""
    assert outcome("minimum") == "two"


def test_a_loop_that_cannot_be_started_refuses_its_calls() -> None:
    """Without a thread for the event loop a call ends with 1723: it did not run. The next one gets its thread."""
    assert outcome("loop") == "1723,2"


def test_a_loop_is_started_again() -> None:
    """One refusal is not the end: the call is served."""
    assert outcome("loop_once") == "1,2"


def test_a_resolver_is_run_later() -> None:
    """A client whose resolver got no thread finds its servers when one can be had."""
    assert outcome("resolver") == "1,3"


def test_there_is_one_way_to_start_a_thread() -> None:
    """Threads are started by the library's services and by pools only, which know what a refusal means."""
    found = {
        path.relative_to(ROOT).as_posix()
        for package in ("engine", "transport")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("Thread", "start_new_thread")
    }
    # Signal handlers may start a thread of their own, which takes no lock that Python code can hold; and as the process
    # ends, what a refused thread was to wait for is waited for without one. What a refused thread was to import is
    # imported without one.
    left = {"engine/kernel/afterwards.py", "transport/importing.py", "transport/zmq_link/base.py"}
    assert found == {"engine/pool/workers.py", "transport/service.py"} | left
