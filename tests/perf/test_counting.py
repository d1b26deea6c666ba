"""Counting: no step is missed, whichever thread takes it, and what cannot be counted is said."""

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from perf import counting, runner, scenario
from perf.counting import Profile, SystemCalls, system_calls_missing
from perf.lab import EFFORTS
from perf.scenarios import counts
from tests.perf.test_runner import Silent

TIMES = 1000


@pytest.fixture
def profile() -> Iterator[Profile]:
    """One that is taken away again."""
    made = Profile()
    yield made
    sys.setprofile(None)
    threading.setprofile(None)


def step() -> None:
    """One Python call and one C call."""
    abs(0)


def steps() -> None:
    """Many."""
    for _ in range(TIMES):
        step()


@pytest.mark.untraced
class TestProfile:
    def test_each_thread_is_counted(self, profile: Profile) -> None:
        """Python and C calls of the thread that counts and of one that starts later are all there."""
        profile.install()
        steps()
        thread = threading.Thread(target=steps)
        thread.start()
        thread.join()
        sys.setprofile(None)
        python, c, timed = profile.read()
        assert 2 * TIMES <= python < 2 * TIMES + 100  # Starting a thread takes some, too.
        assert 2 * TIMES <= c < 2 * TIMES + 100
        assert timed == 0

    def test_what_time_decides_is_counted_apart(self, profile: Profile) -> None:
        """The calls of a thread that has a beat of its own, and of a wait that stays awake, are no steps of a call."""

        def _poll_awake() -> None:
            steps_of_a_wait = [abs(0) for _ in range(TIMES)]
            assert steps_of_a_wait

        profile.install()
        thread = threading.Thread(target=steps, name="engine:monitor")
        thread.start()
        thread.join()
        sys.setprofile(None)
        assert profile.read()[2] >= 2 * TIMES


@pytest.mark.skipif(system_calls_missing() is not None, reason=str(system_calls_missing()))
def test_system_calls_of_all_threads_are_counted() -> None:
    """The kernel counts those of threads that start later, too."""
    counter = SystemCalls(os.getpid())
    thread = threading.Thread(target=lambda: [os.getppid() for _ in range(TIMES)])
    before = counter.read()
    thread.start()
    thread.join()
    counted = counter.read() - before
    counter.close()
    assert TIMES <= counted < 2 * TIMES


def test_a_machine_that_does_not_count_system_calls_is_said_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the right to ask the kernel, the record says so for each subject, and has the other counts."""
    monkeypatch.setattr(counting, "_EVENT_ID", tmp_path / "id")
    monkeypatch.setattr(counts, "CALLS", {1: 100})
    found = scenario.load("counts")
    only = scenario.Scenario(found.name, found.run, ("raw-zmq",))
    record = runner.run([only], EFFORTS["quick"], Silent(), rounds=1)
    (entry,) = record.missing
    assert entry.subject == "raw-zmq: system calls" and "run as root" in entry.reason
    assert record.find("counts", "raw-zmq", "client_python_calls_1")
    assert record.find("counts", "raw-zmq", "server_switches_1")
    assert not record.find("counts", "raw-zmq", "client_system_calls_1")
