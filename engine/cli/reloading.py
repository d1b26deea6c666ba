"""Serving anew whenever a Python file changes, for who writes the service."""

import shlex
import sys
from contextlib import suppress
from pathlib import Path

# Seconds in which running calls may be answered before the next one is started.
GRACE = 10


def run(arguments: list[str], folder: Path) -> None:
    """Run `callport` with these arguments in a process of its own, and again after each change of a Python file below
    `folder`; until SIGTERM or Ctrl-C. One that could not begin is tried again at the next change.

    Raises: `ModuleNotFoundError` without watchfiles.
    """
    import watchfiles

    with suppress(KeyboardInterrupt):  # It raises it for either signal that comes while a process is replaced.
        watchfiles.run_process(
            folder, target=shlex.join([sys.executable, "-m", "engine", *arguments]), target_type="command",
            watch_filter=watchfiles.PythonFilter(), sigint_timeout=GRACE,
        )  # fmt: skip
