"""What becomes of the engine's objects when their process forks and when it ends. The one place for both.

Theory of operation. `transport.lifecycle` has the ground: locks that a forked child finds free, hooks that run there,
and an exit that runs before sockets are closed. Here is what open objects need beside that:

    fork    each kind of them is disabled in the child, by the function of its `OpenObjects`: using one raises `Forked`.
            The registry is empty then: the end of the child closes what the child opened
    exit    stages in their order, from what users see down to what that stands on

Guarantees: a hook that raises keeps no other one from running.

Assumes: each hook of an exit keeps a limit of its own.
"""

import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Generic, Self, TypeVar

from transport import lifecycle as ground
from transport.lifecycle import Closeable, Uncopyable, fork_safe, in_child, locks, run_hook, snapshot
from transport.log import Log

__all__ = [
    "AsyncCloseable", "Closeable", "OpenObjects", "Stage", "Uncopyable", "at_exit", "close_left_open", "fork_safe",
    "in_child", "in_thread", "locks", "snapshot",
]  # fmt: skip

log: Log = Log("engine")

T = TypeVar("T")


class OpenObjects(Generic[T]):
    """The open objects of one kind, kept weakly.

    Args: `inherited` is what a forked child does with each of its copies; None: nothing.
    Threads: any. Iterating goes over a snapshot.
    """

    def __init__(self, inherited: Callable[[T], object] | None = None) -> None:
        # Added to and discarded from by single atomic operations.
        self._objects: weakref.WeakSet[T] = weakref.WeakSet()
        self._inherited = inherited
        in_child(self._disable)

    def add(self, opened: T) -> None:
        """One more is open."""
        self._objects.add(opened)

    def discard(self, closed: T) -> None:
        """One was closed; nothing if it is not known."""
        self._objects.discard(closed)

    def __iter__(self) -> Iterator[T]:
        return iter(snapshot(self._objects))

    def _disable(self) -> None:
        inherited = list(self._objects)
        self._objects = weakref.WeakSet()  # A new one: a thread of the parent may have been iterating over the old.
        if self._inherited is not None:
            for each in inherited:
                run_hook(self._inherited, each)


def close_left_open(objects: OpenObjects[T], close: Callable[[T], object]) -> None:
    """Close what is still open as the process ends, and warn of each; where warnings are errors, in a line of the log.

    That is raised to no caller: a traceback would be of this function.
    """
    for left in objects:
        text = f"{left!r} was never closed"
        try:
            warnings.warn(text, ResourceWarning, stacklevel=1, source=left)
        except ResourceWarning:
            log.warning("%s", text)
        finally:
            close(left)


async def in_thread(function: Callable[..., object], *args: object) -> None:
    """Call a function in another thread: the event loop, asyncio's or trio's, goes on. It is done also if the task is
    cancelled.
    """
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(function, *args)
        return
    from asyncio import to_thread  # Who runs a loop has it.

    await to_thread(function, *args)


class AsyncCloseable(Closeable):
    """A base of what is closed by leaving an `async with`, too."""

    __slots__ = ()

    async def aclose(self) -> None:
        """As `close`, in another thread: the event loop goes on. It is done also if the task is cancelled."""
        await in_thread(self.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()


class Stage(IntEnum):
    """When a hook runs as the process ends; within a stage the last that was registered comes first.

    Between `EXECUTORS` and `CLIENTS` the interpreter joins the threads that are no daemons.
    """

    EXECUTORS = 0  # As the standard executor: what was submitted is run, and later hooks find executors shut down.
    CLIENTS = 1  # Before the servers of the process, whose end threads that wait for calls would notice.
    SERVERS = 2
    POOLS = 3  # What servers have still to do runs there.


_stages: dict[Stage, list[Callable[[], object]]] = {stage: [] for stage in Stage}


def at_exit(stage: Stage, hook: Callable[[], object]) -> None:
    """Have `hook()` called once as the process ends. It must end within a limit of its own."""
    _stages[stage].append(hook)


def _run_stage(stage: Stage) -> None:
    for hook in reversed(_stages[stage]):
        run_hook(hook)


def _end() -> None:
    for stage in (Stage.CLIENTS, Stage.SERVERS, Stage.POOLS):
        _run_stage(stage)


# Private, and what the standard executor uses: nothing else runs before threads are joined.
threading._register_atexit(_run_stage, Stage.EXECUTORS)  # type: ignore[attr-defined]  # the standard executor's own way
ground.at_exit(ground.Layer.USERS, _end)
