"""What all callback objects have in common for their users: environment, waiting for their callbacks, closing.

Theory of operation. The object is a thin face: what it counts and where it runs is in its core (core.py). Where its
callbacks come from is the affair of each kind (a submission, a timer, a signal, a packet), and so is the core's
`disarm`, which stops that.

Guarantees: everything that can fail because of a parameter fails when the object is made.

Source: "WaitForThreadpoolWorkCallbacks", "CloseThreadpoolWork" and their siblings for timers, waits and I/O;
"InitializeThreadpoolEnvironment" and the "SetThreadpoolCallback..." family.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from transport.foreign import a_type, name_of, shown, type_name

from ..errors import Deadlock, InvalidArgumentType, InvalidParameter
from ..kernel.checks import check_callback, check_clock, check_flag, check_kind, check_timeout
from ..kernel.clock import Clock
from ..lifecycle import Closeable
from .cleanup import CleanupGroup, members_of
from .core import CallbackCore
from .fair_queue import Priority
from .pool import ThreadPool, default_pool, intake_of
from .run_time import RunTime
from .running import CallbackInstance, current, runs_here


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


_DEFAULTS = Environment()


class CallbackStatistics(msgspec.Struct, frozen=True):
    """A snapshot of one callback object: of `total` callbacks each is queued, started or discarded.

    `queued` includes those that the source has decided and that are on their way to the queue. `running`
    callbacks have not returned; `waiting` threads are in `wait`, or release the group.
    """

    total: int
    queued: int
    started: int
    discarded: int
    running: int
    waiting: int
    closed: bool


class CallbackObject(Closeable):
    """Base of `Work`, `Timer`, `Wait` and `Io`.

    Args:
        function, args: each callback is `function(*args)`. In it, `current_callback()` gives its instance.
        pool, environment: where and how callbacks run; give at most one of them.
        context: anything; handed to cancel and finalization callbacks.

    Close it, or use it as a context manager: that disarms it, waits for its callbacks (discarding queued ones
    if the block failed) and closes it. One that is dropped open is reported as a `ResourceWarning`.
    """

    __slots__ = ("__weakref__", "_core", "_pool")

    # What the core of this kind of object is.
    _kind: type[CallbackCore] = CallbackCore

    def __init__(
        self,
        function: Callable[..., object],
        *args: Any,
        pool: ThreadPool | None = None,
        environment: Environment | None = None,
        context: object = None,
    ) -> None:
        made = make_core(self._kind, self, type(self).__name__, function, args, environment, pool, context)
        self._core: CallbackCore = made[0]
        self._pool = made[1]

    @property
    def pool(self) -> ThreadPool:
        """The pool that runs the callbacks."""
        return self._pool

    @property
    def context(self) -> Any:
        """What was given as `context`, for cancel and finalization callbacks; None if nothing was."""
        return self._core.context

    @property
    def closed(self) -> bool:
        """Whether the object was closed, or released by its group."""
        return self._core.closed

    def __repr__(self) -> str:
        seen = self.statistics()
        return f"<{self._title()} {'closed' if seen.closed else f'queued={seen.queued} running={seen.running}'}>"

    def _title(self) -> str:
        return f"{type(self).__name__} {name_of(self._core.function)}"

    def wait(self, timeout: float | None = None, *, cancel_pending: bool = False) -> bool:
        """Wait until no callback of this object is queued or running.

        Callbacks that disassociated do not count. The source is untouched: an armed timer stays armed, and
        one that is not due yet is not waited for.

        Args: `timeout` in seconds, None for ever, 0 asks. `cancel_pending` first discards what is queued;
            what runs is never interrupted.
        Returns: False if the time ran out.
        Raises: `Deadlock` inside a callback of this object that has not disassociated; `InvalidHandle` if
            closed, `Forked` in a child of the process that made it; `InvalidParameter` for a negative timeout.
        Threads: any, several at once. Blocks: as said; the thread's slot is free meanwhile.
        Source: "WaitForThreadpoolWorkCallbacks". Different from Windows, which hangs for ever
            where `Deadlock` is raised here.
        """
        if timeout is not None:
            timeout = check_timeout(timeout)
        check_flag("cancel_pending", cancel_pending)
        core = self._core
        if core.closed or core.port.forked:
            core.require_open()
        if current.runner is not None and runs_here(core, whole=False):
            raise Deadlock(f"a callback of {a_type(self)} cannot wait for it: disassociate first")
        if cancel_pending:
            core.port.discard(core)
        return core.wait_quiet(timeout, whole=False)

    def close(self) -> None:
        """Close the object: its source is disarmed and it is refused from now on; what is queued still runs.

        Closing does not wait, so a callback may run after it: the safe order is to disarm,
        `wait(cancel_pending=True)`, close. It may be called in the object's own callback. Closing twice does
        nothing.
        Source: "CloseThreadpoolWork" and its siblings.
        """
        self._core.close()

    def statistics(self) -> CallbackStatistics:
        """Return a consistent snapshot. Never blocks."""
        core = self._core
        core.port.refresh()
        with core.port.lock:
            queued = len(core.queued) + core.transit_locked()
            return CallbackStatistics(
                total=queued + core.started + core.discarded,
                queued=queued,
                started=core.started,
                discarded=core.discarded,
                running=core.running,
                waiting=len(core.waiters),
                closed=core.closed,
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        core = self._core
        if not core.closed:
            core.disarm()
            # Its own callback cannot wait for it; in a forked child there is nothing to wait for.
            if not runs_here(core, whole=False) and not core.port.forked:
                self.wait(cancel_pending=kind is not None)
            core.close()

    def _dropped_open(self) -> str:
        # Without the numbers in its `repr`, which take the lock.
        core = getattr(self, "_core", None)
        return "" if core is None or core.closed else f"<{self._title()}>"


class ClockedObject(CallbackObject):
    """Base of `Timer` and `Wait`.

    Args: as of any callback object, and
        clock: where time comes from; None: the pool's clock.
    """

    __slots__ = ()

    def __init__(
        self,
        function: Callable[..., object],
        *args: Any,
        pool: ThreadPool | None = None,
        environment: Environment | None = None,
        context: object = None,
        clock: Clock | None = None,
    ) -> None:
        if clock is not None:
            check_clock(clock)
        super().__init__(function, *args, pool=pool, environment=environment, context=context)
        if clock is not None:
            self._core.clock = clock


K = TypeVar("K", bound=CallbackCore)


def make_core(
    kind: type[K],
    owner: object,
    title: str,
    function: Callable[..., object],
    args: tuple[Any, ...],
    environment: Environment | None,
    pool: ThreadPool | None,
    context: object,
) -> tuple[K, ThreadPool]:
    """Check the parameters of `owner`, which is being made; return its core, and the pool that it runs in.

    The pool and the group know the core from here on, and may end it. Raises what the constructor raises.
    """
    check_callback("function", function)
    if environment is None:
        environment = _DEFAULTS
    elif pool is not None:
        raise InvalidParameter("give a pool or an environment, which names one, not both")
    if not isinstance(environment, Environment):
        raise InvalidArgumentType(f"environment must be an Environment, not {type_name(environment)}")
    environment.check()
    pool = pool or environment.pool or default_pool()
    if not isinstance(pool, ThreadPool):
        raise InvalidArgumentType(f"pool must be a ThreadPool, not {type_name(pool)}")
    intake = intake_of(pool)
    port = intake.port
    if port.ending:
        raise port.closed_error()
    run_time = RunTime(slow=environment.runs_long, fixed=environment.runs_long)
    core = kind(title, intake, Priority(environment.priority), run_time, function, args)
    core.context = context
    core.finalization = environment.finalization
    core.persistent = environment.persistent
    core.special = environment.finalization is not None or environment.persistent
    core.inherit = environment.inherit_context
    core.keep_alive = pool, environment.keep_alive
    core.cancel_callback = environment.cancel_callback
    core.group = None if environment.cleanup_group is None else members_of(environment.cleanup_group)
    port.objects.add(core)
    if core.group is not None:
        try:
            core.group.join(core, owner)
        except BaseException:
            core.retire()
            raise
    return core, pool
