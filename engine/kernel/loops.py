"""Waits that would hold up an event loop: a warning is given where the thread is about to sleep.

A thread that runs an event loop must not sleep in a wait of the library: all tasks of the loop stand still meanwhile.
The wait is made all the same, with a `RuntimeWarning` that points at the caller's line; in asyncio's debug mode it is
not made, and the warning is raised.

A function that does something which cannot be taken back, and then waits for what becomes of it, warns of that before
it does anything, whether it would have to sleep or not: `with holding(loop):`. The wait itself is silent then.

No event loop runs where asyncio was not imported. Another thread may be importing it just now: once it has come to
`asyncio.runners`, all of `asyncio.events` is there.

Assumes: every event loop, uvloop's too, says by `asyncio._set_running_loop` that it runs.
"""

import sys
import threading
import warnings
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Protocol

REMEDY = (
    "await instead (`await binding.operation.begin(...)`, `await call`, `await event`, `async for`, `async with`, "
    "`await asyncio.wrap_future(future)`), "
    "or have another thread wait: `await asyncio.to_thread(...)`"
)
OURS = frozenset({"engine", "transport"})


class EventLoop(Protocol):
    """An event loop of asyncio, or one that stands for it: so far as the library asks who gives it one."""

    def call_soon_threadsafe(self, callback: Callable[..., Any], /, *args: Any) -> object: ...
    def is_running(self) -> bool: ...


def warn_of_holding(loop: Any, remedy: str = REMEDY) -> None:
    """Say that this thread, which runs `loop`, is about to sleep. Raises the warning in the loop's debug mode."""
    frame: FrameType | None = sys._getframe(1)
    level, name = 2, "a wait"
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in OURS:
        level, name = level + 1, frame.f_code.co_qualname
        frame = frame.f_back
    text = f"{name}() blocks the event loop that runs in this thread: {remedy}"
    if loop.get_debug():
        raise RuntimeWarning(text)
    warnings.warn(text, RuntimeWarning, stacklevel=level)


class _Warned(threading.local):
    """Whether the thread is in a function that has warned of its wait beforehand."""

    warned: bool = False


_local = _Warned()


def loop_to_hold() -> Any:
    """Return the event loop that runs in this thread, and that a wait would have to warn of; None: there is none."""
    loop = running_loop()
    if loop is None and (loop := _trio_run()) is None:
        return None
    return None if _local.warned else loop


def _trio_run() -> Any:
    """Return the run of trio that this thread is in, or None."""
    trio = sys.modules.get("trio.lowlevel")
    in_run = getattr(trio, "in_trio_run", None)  # It may just be being imported, too.
    if in_run is None or not in_run():
        return None
    from .trio_loop import running_trio  # Takes as long to import as the whole engine; who runs trio has it.

    return running_trio()


def running_loop() -> Any:
    """Return the event loop that runs in this thread, or None."""
    if "asyncio.runners" not in sys.modules:
        return None
    events = sys.modules["asyncio.events"]
    return events._get_running_loop()


class holding:
    """The scope in which a function does what it warned of as the scope was entered: it holds up `loop`.

    Entering raises the warning in the loop's debug mode. `remedy`: what to do instead.
    """

    __slots__ = ("_loop", "_remedy")

    def __init__(self, loop: Any, remedy: str = REMEDY) -> None:
        self._loop = loop
        self._remedy = remedy

    def __enter__(self) -> None:
        warn_of_holding(self._loop, self._remedy)
        _local.warned = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _local.warned = False
