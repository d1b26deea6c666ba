"""Work objects, submitted as often as one likes, and simple callbacks, submitted once.

Source: "CreateThreadpoolWork", "SubmitThreadpoolWork", "TrySubmitThreadpoolCallback".
"""

from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from ..errors import QueueFull
from .backlog import Turn
from .callback_object import CallbackObject
from .environment import Environment
from .pool import ThreadPool


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

    def __init__(
        self,
        function: Callable[..., object],
        *args: Any,
        pool: ThreadPool | None = None,
        environment: Environment | None = None,
        context: object = None,
    ) -> None:
        super().__init__(function, args, environment, pool, context)

    def submit(self) -> None:
        """Queue the callback once more.

        Raises: `InvalidHandle` if the object or its pool is closed, even while this waits for room; `QueueFull`
            under the pool's "reject" policy.
        Blocks: never, except under the "block" policy when the pool's queue is full.
        Source: "SubmitThreadpoolWork", which cannot fail; here a pool's queue has a limit.
        """
        if self._closed or self._port.ending:
            self._require_live()
        turn = Turn(self, copy_context() if self._inherit else Context())
        try:
            self._port.push(turn, self._pool._queue_limit)
        except QueueFull:
            self._pool._overflow(turn, self._require_live)


class SimpleCallback(CallbackObject):
    """One callback; it closes itself once that has run, and leaves its group."""

    __slots__ = ()

    def _dropped_open(self) -> str:
        return ""  # There is nobody who could close it.

    def _ended_locked(self) -> None:
        self._retire_locked()
        self._leave_group()


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
    simple = SimpleCallback(function, args, environment, None, context)
    simple._once = True
    try:
        # Only its group can close it.
        require_live = None if simple._group is None else simple._require_live
        simple._pool._enqueue(Turn(simple, simple._capture()), require_live)
    except BaseException:
        simple.close()
        raise
