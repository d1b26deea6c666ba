"""A program that ends while the monitor has something to log, and the handler is still to be asked."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine import Event, register_wait  # the tree that this file is in


def stumble(status: object) -> None:
    raise ZeroDivisionError("stumbled")


with Event() as never, Event() as told:
    register_wait(never, stumble, 0.001)
    register_wait(never, lambda status: told.set(), 0.002)
    told.wait()
