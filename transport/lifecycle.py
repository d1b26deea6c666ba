"""What becomes of links and sources when their process forks and when it ends. Built as `engine.lifecycle`, which this
package does not know: it can be used alone.

In a forked child all locks made by `fork_safe` are made free in place, then hooks run in the order of registration.
At the end of the process hooks run in the order of their stages; each keeps a limit of its own, and one that raises
keeps no other from running.
"""

import atexit
import logging
import os
import weakref
from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

log = logging.getLogger("transport")


class Stage(IntEnum):
    """When a hook runs as the process ends."""

    USERS = 0  # What stands on links, and has last things to say over them.
    LINKS = 1


L = TypeVar("L")
_locks: "weakref.WeakSet[Any]" = weakref.WeakSet()
_hooks: list[Callable[[], object]] = []
_stages: dict[Stage, Callable[[], object]] = {}


def fork_safe(lock: L) -> L:
    """Have `lock` made free in forked children; returns it. It is kept weakly."""
    _locks.add(lock)
    return lock


def in_child(hook: Callable[[], object]) -> None:
    """Have `hook()` called in each forked child. It may store to fields, and take no lock but those of `fork_safe`."""
    _hooks.append(hook)


def at_exit(stage: Stage, hook: Callable[[], object]) -> None:
    """Have `hook()` called as the process ends, before the hooks of what is imported now (pyzmq's)."""
    _stages[stage] = hook
    atexit.unregister(_exit)
    atexit.register(_exit)


def _after_fork_in_child() -> None:
    for lock in list(_locks):
        lock._at_fork_reinit()
    for hook in _hooks:
        _run(hook)


def _exit() -> None:
    for stage in sorted(_stages):
        _run(_stages[stage])


def _run(hook: Callable[[], object]) -> None:
    try:
        hook()
    except Exception:
        log.exception("%r failed", hook)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
