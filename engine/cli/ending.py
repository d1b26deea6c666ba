"""Waiting for the signals that end a service."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from engine import Event

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Seconds that the main thread sleeps in one go: CPython runs the handler of a signal that came in the few instructions
# before a system call only when that call returns.
LOOK = 1.0


@contextmanager
def first_signal() -> Iterator[Callable[[], None]]:
    """Yield a function that waits for the first SIGTERM or Ctrl-C from here on.

    From that one on both end the process at once, as they do by themselves.
    """
    with Event() as came:

        def handle(number: int, frame: FrameType | None) -> None:
            for each in SIGNALS:
                signal.signal(each, signal.SIG_DFL)
            came.set()

        def wait() -> None:
            while not came.wait(LOOK):
                pass

        for each in SIGNALS:
            signal.signal(each, handle)
        yield wait
