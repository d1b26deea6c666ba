"""Work objects, submitted as often as one likes, and simple callbacks, submitted once.

Source: "CreateThreadpoolWork", "SubmitThreadpoolWork", "TrySubmitThreadpoolCallback".
"""

from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from ..errors import QueueFull
from .callback_object import CallbackObject, Environment, make_core
from .core import OnceCore
from .fair_queue import ObjectCallback


class Work(CallbackObject):
    """A callback that can be queued any number of times.

    Args:
        function, args: each callback is `function(*args)`. In it, `current_callback()` gives its instance.
        pool, environment: where and how callbacks run; give at most one of them.
        context: anything; handed to cancel and finalization callbacks.

    Submissions are counted, not merged; the callbacks of one object may run in parallel. For one at a time
    use a pool with a maximum of 1.
    """

    __slots__ = ()

    def submit(self) -> None:
        """Queue the callback once more.

        Raises: `InvalidHandle` if the object or its pool is closed, even while this waits for room; `QueueFull`
            under the pool's "reject" policy.
        Blocks: never, except under the "block" policy when the pool's queue is full.
        Source: "SubmitThreadpoolWork", which cannot fail; here a pool's queue has a limit.
        """
        core = self._core
        if core.closed or core.port.ending:
            core.require_live()
        callback = ObjectCallback(core, self, copy_context() if core.inherit else Context())
        try:
            core.port.push(callback, core.intake.limit)
        except QueueFull:
            core.intake.overflow(callback, core.require_live)


def submit_callback(
    function: Callable[..., object],
    *args: Any,
    environment: Environment | None = None,
    context: object = None,
) -> None:
    """Queue the simple callback `function(*args)` with the parameters of `environment`.

    Raises and blocks: as `ThreadPool.submit`; `InvalidHandle` also if the group is released while this waits for
    room. Source: "TrySubmitThreadpoolCallback".
    """
    core, _ = make_core(OnceCore, function, "callback", function, args, environment, None, context)
    core.once = True
    try:
        # Only its group can close it.
        require_live = None if core.group is None else core.require_live
        core.intake.enqueue(ObjectCallback(core, function, core.capture()), require_live)
    except BaseException:
        core.close()
        raise
