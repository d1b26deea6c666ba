"""Measuring processes: they answer, or the parent learns why not."""

import os

import pytest

from engine.testing import LIMIT
from perf.children import Child, ChildFailed


def test_a_worker_function_is_given_settings_and_returns_its_result() -> None:
    """Settings go in, progress and the result come out; what is printed does no harm."""
    seen = []
    with Child("tests.perf.children:add", {"numbers": [1, 2, 3]}) as child:
        result = child.receive("result", LIMIT, lambda done, total: seen.append((done, total)))
    assert result == 6
    assert seen == [(1, 2)]


def test_a_failure_is_shown_with_what_the_process_wrote() -> None:
    """A worker function that raises fails the run, with its standard error and its traceback."""
    with pytest.raises(ChildFailed) as caught, Child("tests.perf.children:fail", {"a": 1}) as child:
        child.receive("result", LIMIT)
    for words in ("tests.perf.children:fail", '{"a": 1}', "exit code 1", "the reason", "ValueError: no good"):
        assert words in str(caught.value)


def test_a_hang_ends_and_shows_the_stacks() -> None:
    """A process that does nothing is given up after the limit, ended, and says where it was."""
    with pytest.raises(ChildFailed, match="did nothing") as caught:
        with Child("tests.perf.children:serve", {}) as child:
            child.receive("ready", LIMIT)
            child.receive("result", 0.01)
    assert "wait_for_end" in str(caught.value)
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_a_server_ends_with_its_context() -> None:
    """Leaving the context ends the process."""
    with Child("tests.perf.children:serve", {}) as child:
        assert child.receive("ready", LIMIT)["endpoint"] == "somewhere"
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_a_failure_names_what_else_was_running() -> None:
    """The server of a failed measurement adds its last words."""
    with pytest.raises(ChildFailed) as caught:
        with Child("tests.perf.children:serve", {}) as server:
            server.receive("ready", LIMIT)
            with Child("tests.perf.children:fail", {}) as child:
                child.receive("result", LIMIT)
    assert any("tests.perf.children:serve" in note for note in caught.value.__notes__)
