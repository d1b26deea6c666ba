"""What becomes of the library when its process forks and when it ends: the ground floor, which knows nothing else.

Theory of operation. A forked child has one thread, the one that forked. Locks that others held stay held, and what
others were in the midst of changing stays as it is. So there, before anything else runs:

    1. every lock made by `fork_safe` is made free, in place: every name for it stands for the free one
    2. the hooks of `in_child` run, in the order in which they were registered, which is that of the imports: what a
       module is built on comes first. What modules keep for the process is made new, what was open is disabled

At the end of the process the hooks of `at_exit` run, those of the uppermost layer first.

Guarantees: a hook that raises keeps no other one from running. After a fork all locks of the library are free, those
that the forking thread had too: it is in a signal handler then, and its child had better not come back from that.

Assumes: hooks of a child store to fields and nothing else: they block on no lock, start no thread and run no code of
users. Each hook of an exit keeps a limit of its own.
"""

import atexit
import os
import warnings
import weakref
from collections.abc import Callable
from enum import IntEnum
from types import TracebackType
from typing import Any, ClassVar, NoReturn, Self, SupportsIndex, TypeVar

from transport.foreign import a_type, is_interrupt

L = TypeVar("L")
Hook = TypeVar("Hook", bound=Callable[[], object])


class Layer(IntEnum):
    """What ends first as the process does: each layer uses those below it."""

    USERS = 0  # What stands on links, and has last things to say over them.
    LINKS = 1
    SOCKETS = 2  # What links have left to be written by others.
    LOG = 3  # What the others have logged.


# All below: written by single atomic operations; read where no other thread runs (in a child), or that do not change
# any more (at exit).
_locks: "weakref.WeakSet[Any]" = weakref.WeakSet()
_hooks: list[Callable[[], object]] = []
_layers: dict[Layer, Callable[[], object]] = {}
# Set once, as the log is imported.
_report: Callable[[str, object], object] = print


def fork_safe(lock: L) -> L:
    """Have `lock` made free in forked children; returns it. It is kept weakly.

    Args: anything that has `_at_fork_reinit`: the locks of `threading`, and its `Condition`.
    """
    _locks.add(lock)
    return lock


def locks() -> list[Any]:
    """Every lock that `fork_safe` has made and that is still used. Any thread."""
    return snapshot(_locks)


def snapshot(objects: "weakref.WeakSet[L]") -> list[L]:
    """What is in the set, which other threads add to and take from."""
    while True:
        try:
            return list(objects)
        except RuntimeError:
            pass  # One was added or went meanwhile.


def in_child(hook: Hook) -> Hook:
    """Have `hook()` called in each forked child, after those that were registered before it; returns it."""
    _hooks.append(hook)
    return hook


def at_exit(layer: Layer, hook: Callable[[], object]) -> None:
    """Have `hook()` called as the process ends, before the hooks of what is imported now (pyzmq's)."""
    _layers[layer] = hook
    atexit.unregister(_exit)
    atexit.register(_exit)


def run_hook(hook: Callable[..., object], *args: object) -> None:
    """Call a hook; log what it raises."""
    try:
        hook(*args)
    except BaseException as error:
        if is_interrupt(error):
            raise
        _report("%r failed", hook)


def report_by(report: Callable[[str, object], object]) -> None:
    """Have `report("%r failed", hook)` called when a hook has raised, while that is handled. By the log."""
    global _report
    _report = report


class Uncopyable:
    """A base of what has an identity: threads wait for it, sockets and calls are its own, in one process.

    Pickling and copying raise `TypeError` at once, where a copy would be of no use: `_instead` says what to do.
    """

    __slots__ = ()

    _instead: ClassVar[str] = "make a new one where it is needed"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"{a_type(self)} cannot be pickled or copied, for it is the one that threads of this process use: "
            f"{self._instead}"
        )

    def __copy__(self) -> NoReturn:
        self.__reduce_ex__(4)


class Closeable(Uncopyable):
    """A base of what belongs to who made it: it is closed by `close`, or by leaving a `with`."""

    __slots__ = ()

    def close(self) -> None:
        """Close it. Closing twice does nothing."""
        raise NotImplementedError  # Abstract.

    def _dropped_open(self) -> str:
        """What to call the object if it was not closed, else "".

        A finalizer asks: it may run in the midst of anything, and after an `__init__` that failed.
        """
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        name = self._dropped_open()
        if name:
            warnings.warn(f"{name} was dropped without close()", ResourceWarning, stacklevel=2, source=self)


def _after_fork_in_child() -> None:
    for lock in list(_locks):
        lock._at_fork_reinit()
    for hook in _hooks:
        run_hook(hook)


def _exit() -> None:
    for layer in sorted(_layers):
        run_hook(_layers[layer])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
