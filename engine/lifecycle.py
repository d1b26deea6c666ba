"""What becomes of the library when its process forks and when it ends. The one place for both.

Theory of operation. A forked child has one thread, the one that forked. Locks that others held stay held, and what
others were in the midst of changing stays as it is. So the library does four things there, before anything else runs:

    1. every lock made by `fork_safe` is made free, in place: whoever has a name for it has the free one
    2. what modules keep for the process is made new: the hooks of `in_child`, in the order in which they were
       registered, which is that of the imports: what a module is built on comes first
    3. what was open is disabled, kind by kind, each with the function of its `OpenObjects`: using it raises `Forked`
    4. the registries are emptied: the end of the child closes what the child opened

At the end of the process (`at_exit`) the stages run in their order, from what users see down to what that stands on.
The sockets below belong to the transport, which is handed `end` to run before it closes them: which of the two is the
last to register with `atexit` is not known, as ZeroMQ is imported on first use.

Guarantees: a hook that raises keeps no other one from running. After a fork all locks of the library are free, those
that the forking thread had too: it is in a signal handler then, and its child had better not come back from that.

Assumes: hooks of a child store to fields and nothing else: they block on no lock, start no thread and run no code of
users. Each hook of an exit keeps a limit of its own.
"""

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, Generic, TypeVar

__all__ = ["OpenObjects", "Stage", "at_exit", "end", "fork_safe", "in_child"]

log = logging.getLogger("engine")

L = TypeVar("L")
T = TypeVar("T")
Hook = TypeVar("Hook", bound=Callable[[], object])

# All below: written at import and as objects come and go, by single atomic operations; read where no other thread runs
# (in a child), or from a snapshot (at exit).
_locks: "weakref.WeakSet[Any]" = weakref.WeakSet()
_hooks: list[Callable[[], object]] = []
_kinds: "list[OpenObjects[Any]]" = []


def fork_safe(lock: L) -> L:
    """Have `lock` made free in forked children; returns it. It is kept weakly.

    Args: anything that has `_at_fork_reinit`: the locks of `threading`, and its `Condition`.
    """
    _locks.add(lock)
    return lock


def in_child(hook: Hook) -> Hook:
    """Have `hook()` called in each forked child, after those that were registered before it; returns it."""
    _hooks.append(hook)
    return hook


class OpenObjects(Generic[T]):
    """The open objects of one kind, kept weakly.

    Args: `inherited` is what a forked child does with each of its copies; None: nothing.
    Threads: any. Iterating goes over a snapshot.
    """

    def __init__(self, inherited: Callable[[T], object] | None = None) -> None:
        self._objects: weakref.WeakSet[T] = weakref.WeakSet()
        self._inherited = inherited
        _kinds.append(self)

    def add(self, opened: T) -> None:
        """One more is open."""
        self._objects.add(opened)

    def discard(self, closed: T) -> None:
        """One was closed; nothing if it is not known."""
        self._objects.discard(closed)

    def __iter__(self) -> Iterator[T]:
        while True:
            try:
                return iter(list(self._objects))
            except RuntimeError:
                pass  # Another thread opened or closed one meanwhile.

    def disable(self) -> None:
        """In a forked child: these are the parent's."""
        inherited = list(self._objects)
        self._objects = weakref.WeakSet()  # A new one: a thread of the parent may have been iterating over the old.
        if self._inherited is not None:
            for each in inherited:
                _run(self._inherited, each)


class Stage(IntEnum):
    """When a hook runs as the process ends; within a stage the last that was registered comes first.

    Between `EXECUTORS` and `SERVERS` the interpreter joins the threads that are no daemons.
    """

    EXECUTORS = 0  # As the standard executor: what was submitted is run, and later hooks find executors shut down.
    SERVERS = 1
    CLIENTS = 2
    POOLS = 3  # What servers and clients have still to say runs there.


_stages: dict[Stage, list[Callable[[], object]]] = {}


def at_exit(stage: Stage, hook: Callable[[], object]) -> None:
    """Have `hook()` called once as the process ends. It must end within a limit of its own."""
    _stages.setdefault(stage, []).append(hook)


def end_executors() -> None:
    """Run the first stage. For the interpreter."""
    _run_stage(Stage.EXECUTORS)


def end() -> None:
    """Run the other stages. A second call does nothing. For the interpreter, and for what is to end after them."""
    for stage in (Stage.SERVERS, Stage.CLIENTS, Stage.POOLS):
        _run_stage(stage)


def _run_stage(stage: Stage) -> None:
    for hook in reversed(_stages.pop(stage, [])):
        _run(hook)


def _after_fork_in_child() -> None:
    for lock in list(_locks):
        lock._at_fork_reinit()
    for hook in _hooks:
        _run(hook)
    for kind in _kinds:
        kind.disable()


def _run(hook: Callable[..., object], *args: object) -> None:
    try:
        hook(*args)
    except Exception:
        log.exception("%r failed", hook)


# Runs before threads are joined, where the interpreter has such hooks.
getattr(threading, "_register_atexit", atexit.register)(end_executors)
atexit.register(end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
