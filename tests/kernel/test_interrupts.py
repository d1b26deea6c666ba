"""Signal handlers that raise (Ctrl-C, for one) in the midst of waits: nothing hangs, and nothing is lost."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.testing import LIMIT

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")

ROOT = Path(__file__).resolve().parents[2]


def run(name: str) -> None:
    """Run a program of `interrupted.py` in a fresh interpreter."""
    command = [sys.executable, "-X", "dev", "-m", "tests.kernel.interrupted", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


class TestOneInterrupt:
    """A wait that a signal handler ends."""

    def test_every_wait_can_be_interrupted(self) -> None:
        """Ctrl-C works in every wait, and leaves nothing pending."""
        run("every_wait_can_be_interrupted")

    def test_a_leader_can_be_interrupted(self) -> None:
        """So does a wait that drives sources; the leadership is given up."""
        run("a_leader_can_be_interrupted")

    def test_the_thread_is_active_afterwards(self) -> None:
        """An interrupted dequeue holds a slot, as one that timed out."""
        run("the_thread_is_active_afterwards")

    def test_polls_go_on_afterwards(self) -> None:
        """After an interrupt the same objects serve as before."""
        run("polls_go_on_afterwards")

    def test_a_packet_that_goes_back_is_seen(self) -> None:
        """A thread that waits for the port itself hears of a packet that an interrupted dequeue puts back."""
        run("a_packet_that_goes_back_is_seen")


@pytest.mark.untraced
class TestManyInterrupts:
    """A main thread that is interrupted thousands of times, at any instruction of a wait."""

    def test_signals_are_conserved(self) -> None:
        """A semaphore's count that an interrupted wait had taken is given back or handed on."""
        run("signals_are_conserved")

    def test_interrupted_signals_wake(self) -> None:
        """A thread that a signal was given to wakes up, wherever the thread that signals is interrupted."""
        run("interrupted_signals_wake")

    def test_ports_neither_hang_nor_drift(self) -> None:
        """The accounting of a port is intact after thousands of interrupted dequeues."""
        run("ports_neither_hang_nor_drift")

    def test_interrupted_posts_are_seen(self) -> None:
        """A thread that waits for the port itself takes what interrupted posts have queued, to the last packet."""
        run("interrupted_posts_are_seen")

    def test_the_leadership_survives(self) -> None:
        """However often the leader is interrupted, other threads go on being served."""
        run("the_leadership_survives")
