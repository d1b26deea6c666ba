"""Worker functions for the tests of `perf.children`."""

import sys
import threading
from typing import Any

from perf.worker import Control


def add(settings: dict[str, Any], control: Control) -> int:
    """Report progress, print something, and return a sum."""
    print("to standard output")
    control.progress(1, 2)
    return sum(settings["numbers"])


def fail(settings: dict[str, Any], control: Control) -> None:
    """Say why on standard error, and raise."""
    print("the reason", file=sys.stderr)
    raise ValueError("no good")


def hang_here(settings: dict[str, Any], control: Control) -> None:
    """Never return."""
    threading.Event().wait()


def serve(settings: dict[str, Any], control: Control) -> None:
    """Be ready, and stay until the end."""
    control.ready("somewhere")
    control.wait_for_end()
