"""A measuring process, seen from inside: it calls one function, and speaks with its parent in lines of JSON.

Their line is a pipe of its own, one object a line: {"ready": ...} from a server that listens,
{"progress": [done, total]} from a long measurement, {"result": ...} at last. The parent closes standard input
when the process is to end, and the operating system does so when the parent dies: no server outlives its run.
"""

import faulthandler
import importlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO, cast

START_LOOK = 0.005  # Seconds between two looks: how far apart processes may start.
PROGRESS_INTERVAL = 0.25  # Seconds between progress lines: often enough for an eye, too seldom to be measured.


class Control:
    """A measuring process's line to its parent. Threads: one at a time."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._next_progress = 0.0

    def send(self, **message: Any) -> None:
        """Send one object."""
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def ready(self, endpoint: str = "", **details: Any) -> None:
        """Say that the server listens, where, and in which process."""
        self.send(ready={"endpoint": endpoint, "pid": os.getpid(), **details})

    def progress(self, done: int, total: int) -> None:
        """Say how far the measurement has come; cheap enough for every batch."""
        now = time.monotonic()
        if now >= self._next_progress:
            self._next_progress = now + PROGRESS_INTERVAL
            self.send(progress=[done, total])

    def wait_for_end(self) -> None:
        """Wait until the parent wants this process to end."""
        while os.read(0, 4096):
            pass

    def wait_for_start(self, file: str) -> None:
        """Say that this process is ready, and wait until its parent makes `file`: see `Lab.together`."""
        self.ready()
        while not os.path.exists(file):
            time.sleep(START_LOOK)

    def end_with_parent(self, end: Callable[[], object] = lambda: os._exit(0)) -> None:
        """End this process when the parent wants it, whatever it does; for servers without a clean stop."""

        def watch() -> None:
            self.wait_for_end()
            end()

        threading.Thread(target=watch, name="perf:end", daemon=True).start()


Entry = Callable[[dict[str, Any], Control], Any]


def main(argv: list[str]) -> int:
    """Run `worker MODULE:FUNCTION SETTINGS PIPE`; SETTINGS is a JSON object, PIPE a file descriptor."""
    target, settings, pipe = argv[1:]
    # A hung process is asked for its stacks before it is killed.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    module, _, name = target.partition(":")
    function = cast(Entry, getattr(importlib.import_module(module), name))
    control = Control(os.fdopen(int(pipe), "w"))
    control.send(result=function(json.loads(settings), control))
    return 0
