"""The callback environment: what the objects made from it have in common.

Source: "InitializeThreadpoolEnvironment" and the "SetThreadpoolCallback..." family.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from transport.foreign import shown

from ..errors import InvalidParameter
from ..kernel.checks import check_callback, check_flag, check_kind
from .backlog import Priority
from .cleanup import CleanupGroup
from .instance import CallbackInstance
from .pool import ThreadPool


class Environment(msgspec.Struct, kw_only=True, eq=False):
    """Parameters for the callback objects made from it. Read when an object is made: later changes do not
    reach it.

    Fields:
        pool: where callbacks run; None: the process's default pool.
        priority: a `Priority`. A free worker takes from the highest class that has anything; nothing is
            preempted, and low can starve.
        runs_long: treat each callback as if it had called `may_run_long`: it starts without a slot.
        persistent: run callbacks only on threads that never exit: a worker that once ran one is exempt from
            the idle exit until its pool ends, or the maximum is set below the number of such workers.
        cleanup_group: the group that the objects join.
        cancel_callback: called by the group as `cancel_callback(object_context, cleanup_context)`, on the
            thread that releases it, once for each object that it released with cancel.
        finalization: called as `finalization(instance, object_context)` on the worker, right after each
            callback.
        keep_alive: anything; it is kept referenced as long as an object made from this environment is (in
            place of a loaded library).
        inherit_context: run callbacks in a copy of the context variables of the thread that submitted or armed; False:
            each in an empty context.

    An object that is made checks the fields: `InvalidParameter` (87) or `InvalidArgumentType` (87).
    """

    pool: ThreadPool | None = None
    priority: int = Priority.NORMAL
    runs_long: bool = False
    persistent: bool = False
    cleanup_group: CleanupGroup | None = None
    cancel_callback: Callable[[Any, Any], object] | None = None
    finalization: Callable[[CallbackInstance, Any], object] | None = None
    keep_alive: object = None
    inherit_context: bool = True

    def check(self) -> None:
        """Raise unless objects can be made from this environment."""
        if self.priority not in (Priority.HIGH, Priority.NORMAL, Priority.LOW):
            raise InvalidParameter(f"priority must be HIGH (0), NORMAL (1) or LOW (2), not {shown(self.priority)}")
        if self.pool is not None:
            check_kind("pool", self.pool, ThreadPool, optional=True)
        if self.cleanup_group is not None:
            check_kind("cleanup_group", self.cleanup_group, CleanupGroup, optional=True)
        if self.cancel_callback is not None:
            check_callback("cancel_callback", self.cancel_callback, optional=True)
        if self.finalization is not None:
            check_callback("finalization", self.finalization, optional=True)
        for name in ("runs_long", "persistent", "inherit_context"):
            check_flag(name, getattr(self, name))
