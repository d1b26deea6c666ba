"""The library's own threads: each runs one function when that is needed."""

import threading

import pytest

from engine.testing import LIMIT, Gate, wait_until
from transport.service import Service


def fail(text: str, error: BaseException) -> None:
    """Nothing of what the services below do is to be reported."""
    raise AssertionError(text) from error


class TestEnsure:
    """Who needs a service calls `ensure`."""

    def test_a_function_that_has_returned_already(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A thread that has ended before `ensure` looks at it has run the function: it runs once a call."""
        ran: list[int] = []
        start = threading.Thread.start

        def start_and_end(thread: threading.Thread) -> None:
            start(thread)
            thread.join(LIMIT)
            assert len(ran) < 10, "the function is run without end"

        service = Service("quick", lambda: ran.append(1), fail)
        monkeypatch.setattr(threading.Thread, "start", start_and_end)
        assert service.ensure()
        assert ran == [1]
        assert service.ensure()
        assert ran == [1, 1]

    def test_a_function_that_runs(self) -> None:
        """While a thread runs the function no other one is started."""
        gate, ran = Gate(), []
        service = Service("slow", lambda: (ran.append(1), gate.pass_through()), fail)
        assert service.ensure() and service.ensure()
        gate.open()
        wait_until(lambda: not service.running)
        assert ran == [1]

    def test_refused_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A thread that is refused once is started at once on the second attempt, and the function runs once."""
        ran: list[int] = []
        refused: list[int] = []
        start = threading.Thread.start

        def refuse_first(thread: threading.Thread) -> None:
            if not refused:
                refused.append(1)
                raise RuntimeError("can't start new thread")
            start(thread)
            thread.join(LIMIT)

        monkeypatch.setattr(threading.Thread, "start", refuse_first)
        service = Service("refused", lambda: ran.append(1), fail)
        assert service.ensure()
        assert ran == [1]


class TestJoin:
    """Who waits for the end of a service calls `join`."""

    def test_a_thread_that_has_not_begun(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that was started, and was not seen to run yet, is waited for."""
        gate, ran = Gate(), []
        begin = Service._begin
        monkeypatch.setattr(Service, "_begin", lambda self: gate.pass_through() or begin(self))
        service = Service("late", lambda: ran.append(1), fail)
        assert service.join(0)
        assert service.ensure()
        assert not service.join(0.01)
        gate.open()
        assert service.join(LIMIT) and ran == [1]
