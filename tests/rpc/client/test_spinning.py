"""Who has sent a call stays awake for the answer only as long as no other needs the processors."""

import os
import sys
from collections.abc import Callable, Sequence

import pytest

from engine.rpc.client import spinning
from engine.rpc.client.spinning import WINDOW, Spinning, idle_time

Looks = Callable[..., list[bool]]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Say what one client finds, look after look: whether others need the processors.

    Args: the parts of the time for which the processors were idle before each look; `windows`: how long each is.
    """

    def find(parts: Sequence[float], processors: int = 2, windows: Sequence[float] = ()) -> list[bool]:
        found, idle, now, one = [], 1000.0, 5000.0, Spinning(16)
        monkeypatch.setattr(spinning, "idle_time", lambda: (idle, processors))
        one.look(now)
        for part, window in zip(parts, windows or [1.0] * len(parts), strict=True):
            assert one.due == now + WINDOW
            now += WINDOW * window
            idle += part * WINDOW * window * processors
            one.look(now)
            found.append(one.scarce)
        return found

    return find


class TestLooking:
    """Whether others need the processors is decided by how long these were idle."""

    @pytest.mark.parametrize("processors", [2, 64])
    def test_no_processor_is_idle(self, looks: Looks, processors: int) -> None:
        """It begins awake, ends that where no processor is idle, and begins anew where they are idle for long."""
        found = looks([0.3, 0.05, 0.01, 0.0, 0.05, 0.3, 0.05], processors)
        assert found == [False, False, True, True, True, False, False]

    def test_in_between_nothing_changes(self, looks: Looks) -> None:
        """What a thread that is awake takes of the idle time does not end its being awake, nor the lack of it."""
        assert looks([0.05] * 5) == [False] * 5
        assert looks([0.0] + [0.05] * 5) == [True] * 6

    def test_what_is_long_ago(self, looks: Looks) -> None:
        """Of a client that was not used for a while, nothing is concluded from that time."""
        assert looks([0.0, 0.0], windows=[10.0, 1.0]) == [False, True]
        assert looks([0.0, 0.9, 0.9], windows=[1.0, 10.0, 1.0]) == [True, True, False]

    def test_the_system_does_not_say(self, looks: Looks) -> None:
        """Where idle time is not known, it stays awake."""
        assert looks([0.0, 0.0], processors=0) == [False, False]


class TestIdleTime:
    """How long the processors were idle."""

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not say")
    def test_the_usable_processors_are_counted(self) -> None:
        """It is the time of the processors that this process may use, together, and does not shrink."""
        idle, processors = idle_time()
        assert processors == len(os.sched_getaffinity(0))
        assert 0 <= idle <= idle_time()[0]

    def test_it_cannot_be_read(self, monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]) -> None:
        """Where there is no such file, or one of another make, it is not known."""
        monkeypatch.setattr(spinning, "_COUNTS", os.fspath(tmp_path) + "/none")
        assert idle_time() == (0.0, 0)
        with open(os.fspath(tmp_path) + "/other", "w") as other:
            other.write("cpu0 of another make\n")
        monkeypatch.setattr(spinning, "_COUNTS", other.name)
        assert idle_time() == (0.0, 0)
