"""The callback environment: what callback objects made with it have in common.

Theory of operation. `TP_CALLBACK_ENVIRON` is the engine's `Environment`; these functions set its fields. It is read
when an object is made, so later changes do not reach that object, and a value that is wrong fails its making.

Source: "InitializeThreadpoolEnvironment", "DestroyThreadpoolEnvironment" and the "SetThreadpoolCallback..." family.
"""

from collections.abc import Callable
from typing import Any

from .. import CleanupGroup, Environment, ThreadPool

__all__ = [
    "TP_CALLBACK_ENVIRON",
    "DestroyThreadpoolEnvironment",
    "InitializeThreadpoolEnvironment",
    "SetThreadpoolCallbackCleanupGroup",
    "SetThreadpoolCallbackLibrary",
    "SetThreadpoolCallbackPersistent",
    "SetThreadpoolCallbackPool",
    "SetThreadpoolCallbackPriority",
    "SetThreadpoolCallbackRunsLong",
]

TP_CALLBACK_ENVIRON = Environment


def InitializeThreadpoolEnvironment(pcbe: Environment) -> None:
    """Give an environment its defaults: the process's pool, normal priority, no group."""
    defaults = Environment()
    for name in Environment.__struct_fields__:
        setattr(pcbe, name, getattr(defaults, name))


def DestroyThreadpoolEnvironment(pcbe: Environment) -> None:
    """Be done with an environment; objects made with it are not touched. It refers to nothing any more."""
    InitializeThreadpoolEnvironment(pcbe)


def SetThreadpoolCallbackPool(pcbe: Environment, ptpp: ThreadPool) -> None:
    """Have callbacks run in this pool."""
    pcbe.pool = ptpp


def SetThreadpoolCallbackPriority(pcbe: Environment, Priority: int) -> None:
    """Set the priority: `TP_CALLBACK_PRIORITY_HIGH`, `..._NORMAL` or `..._LOW`; making an object fails with another."""
    pcbe.priority = Priority


def SetThreadpoolCallbackRunsLong(pcbe: Environment) -> None:
    """Treat each callback as one that may run long."""
    pcbe.runs_long = True


def SetThreadpoolCallbackPersistent(pcbe: Environment) -> None:
    """Have callbacks run on threads that never exit."""
    pcbe.persistent = True


def SetThreadpoolCallbackLibrary(pcbe: Environment, mod: object) -> None:
    """Keep `mod`, any object, alive as long as an object made with the environment."""
    pcbe.keep_alive = mod


def SetThreadpoolCallbackCleanupGroup(
    pcbe: Environment, ptpcg: CleanupGroup, pfng: Callable[[Any, Any], object] | None
) -> None:
    """Have objects join a cleanup group, which calls `pfng(object_context, cleanup_context)` when it cancels one."""
    pcbe.cleanup_group = ptpcg
    pcbe.cancel_callback = pfng
