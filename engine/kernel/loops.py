"""Waits that would hold up an event loop: they are told of, where the thread is about to sleep and nowhere else.

A thread that runs an event loop must not sleep in a wait of the library: all tasks of the loop stand still meanwhile.
The wait is made all the same, with a `RuntimeWarning` that points at the caller's line; in asyncio's debug mode it is
not made, and the warning is raised.

Assumes: every event loop, uvloop's too, says by `asyncio._set_running_loop` that it runs.
"""

import sys
import warnings
from types import FrameType
from typing import Any

REMEDY = (
    "await instead (`await binding.operation.begin(...)`, `await call`, `await event`, `async for`, `async with`, "
    "`await asyncio.wrap_future(future)`), "
    "or have another thread wait: `await asyncio.to_thread(...)`"
)
OURS = frozenset({"engine", "transport"})


def warn_of_holding(loop: Any) -> None:
    """Say that this thread, which runs `loop`, is about to sleep. Raises the warning in the loop's debug mode."""
    frame: FrameType | None = sys._getframe(1)
    level, name = 2, "a wait"
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in OURS:
        level, name = level + 1, frame.f_code.co_qualname
        frame = frame.f_back
    text = f"{name}() blocks the event loop that runs in this thread: {REMEDY}"
    if loop.get_debug():
        raise RuntimeWarning(text)
    warnings.warn(text, RuntimeWarning, stacklevel=level)
