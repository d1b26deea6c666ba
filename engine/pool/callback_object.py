"""What all callback objects have in common: parameters, waiting for their callbacks, closing.

Theory of operation. An object counts, under its pool's lock, what it has queued and running (`Ledger`); where
its callbacks come from is its own affair (a submission, a timer, a signal, a packet), and so is `_disarm`,
which stops that.

    idle --submit, expiry, signal, packet--> queued n --a worker takes one--> running k --returns--> idle
    queued n --wait(cancel_pending=True), group cancel--> idle
    any --close--> no new callbacks; what is queued and running ends as usual

Guarantees: everything that can fail because of a parameter fails when the object is made; after the source
was disarmed and `wait(cancel_pending=True)` returned, no callback of the object runs again, unless somebody
submits.

Source: "WaitForThreadpoolWorkCallbacks", "CloseThreadpoolWork" and their siblings for timers, waits and I/O.
"""

from collections.abc import Callable
from contextvars import Context, copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from transport.foreign import a_type, name_of, type_name

from ..errors import Deadlock, InvalidArgumentType, InvalidHandle, InvalidParameter
from ..kernel.checks import check_callback, check_flag, check_timeout
from ..kernel.thread import park
from ..kernel.waiter import Waiter
from ..lifecycle import Closeable
from .backlog import Ledger, Priority, Profile, Turn
from .environment import Environment
from .pool import ThreadPool, default_pool, time_left
from .running import current

if TYPE_CHECKING:
    from .cleanup import CleanupGroup

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


class CallbackObject(Ledger, Closeable):
    """Base of `Work`, `Timer`, `Wait` and `Io`.

    Close it, or use it as a context manager: that disarms it, waits for its callbacks (discarding queued ones
    if the block failed) and closes it. One that is dropped open is reported as a `ResourceWarning`.
    """

    __slots__ = (
        "_cancel_callback", "_closed", "_group", "_inherit", "_keep_alive", "_pool", "_port",
    )  # fmt: skip

    def __init__(
        self,
        function: Callable[..., object],
        args: tuple[Any, ...],
        environment: Environment | None,
        pool: ThreadPool | None,
        context: object,
    ) -> None:
        self._closed = True  # Until it is made.
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
        port = pool._port
        if port.ending:
            raise port.closed_error()
        profile = Profile(long=environment.runs_long, fixed=environment.runs_long)
        super().__init__(Priority(environment.priority), profile, function, args)
        self._context = context
        self._finalization = environment.finalization
        self._persistent = environment.persistent
        self._special = environment.finalization is not None or environment.persistent
        self._pool = pool
        self._port = port
        self._inherit = environment.inherit_context
        self._keep_alive = environment.keep_alive
        self._cancel_callback = environment.cancel_callback
        self._group: CleanupGroup | None = environment.cleanup_group
        # Written under the port's lock. Whether it was closed, by its user or by its group.
        self._closed = False
        port.objects.add(self)
        if self._group is not None:
            try:
                self._group._join(self)  # Last, for it may be released from here on.
            except BaseException:
                self._retire()
                raise

    @property
    def pool(self) -> ThreadPool:
        """The pool that runs the callbacks."""
        return self._pool

    @property
    def context(self) -> Any:
        """What was given as `context`, for cancel and finalization callbacks; None if nothing was."""
        return self._context

    @property
    def closed(self) -> bool:
        """Whether the object was closed, or released by its group."""
        return self._closed

    def __repr__(self) -> str:
        seen = self.statistics()
        return f"<{self._title()} {'closed' if seen.closed else f'queued={seen.queued} running={seen.running}'}>"

    def _title(self) -> str:
        return f"{type(self).__name__} {name_of(self._function)}"

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
        if self._closed or self._port.forked:
            self._require_open()
        if current.runner is not None and self._runs_here(whole=False):
            raise Deadlock(f"a callback of {a_type(self)} cannot wait for it: disassociate first")
        if cancel_pending:
            self._port.discard(self)
        return self._wait_quiet(timeout, whole=False)

    def close(self) -> None:
        """Close the object: its source is disarmed and it is refused from now on; what is queued still runs.

        Closing does not wait, so a callback may run after it: the safe order is to disarm,
        `wait(cancel_pending=True)`, close. It may be called in the object's own callback. Closing twice does
        nothing.
        Source: "CloseThreadpoolWork" and its siblings.
        """
        if self._retire():
            self._leave_group()
            self._disarm()

    def statistics(self) -> CallbackStatistics:
        """Return a consistent snapshot. Never blocks."""
        self._port.refresh()
        with self._port.lock:
            queued = len(self._queued) + self._transit_locked()
            return CallbackStatistics(
                total=queued + self._started + self._discarded,
                queued=queued,
                started=self._started,
                discarded=self._discarded,
                running=self._running,
                waiting=len(self._waiters),
                closed=self._closed,
            )

    # For the kinds of object

    def _capture(self) -> Context:
        return copy_context() if self._inherit else Context()

    def _require_open(self) -> None:
        if self._closed:
            raise InvalidHandle(f"the {type(self).__name__} is closed")
        if self._port.forked:
            raise self._port.closed_error()

    def _require_live(self) -> None:
        """Raise unless the object may be submitted or armed."""
        self._require_open()
        if self._port.ending:
            raise self._port.closed_error()

    def _retire(self) -> bool:
        """Mark as closed; False if it was already."""
        with self._port.lock:
            return self._retire_locked()

    def _retire_locked(self) -> bool:
        if self._closed:
            return False
        self._closed = True
        self._port.objects.discard(self)
        return True

    def _retire_when_quiet(self, deadline: float | None) -> bool | None:
        """`_retire`, in one step with nothing being outstanding any more; None if the time runs out before."""
        while self._wait_quiet(time_left(deadline), whole=True):
            with self._port.lock:
                if not self._busy_locked(True):
                    return self._retire_locked()
        return None

    def _leave_group(self) -> None:
        if self._group is not None:
            self._group._leave(self)

    def _runs_here(self, whole: bool) -> bool:
        """Whether the calling thread is inside a callback of this object, of those that count."""
        runner = current.runner
        while runner is not None:
            item = runner.item
            if isinstance(item, Turn) and item.ledger is self and (whole or not runner.stray):
                return True
            runner = runner.outer
        return False

    def _wait_quiet(self, timeout: float | None, whole: bool) -> bool:
        port = self._port
        if port.inbox or port.trains:
            port.refresh()
        with port.lock:
            if not self._busy_locked(whole):
                return True
            waiter = Waiter()
            entry = (waiter, whole)
            self._waiters += (entry,)
        try:
            return park(waiter, timeout)
        finally:
            if not waiter.signalled:
                with self._port.lock:
                    self._unlist_locked(entry)

    def _unlist_locked(self, entry: tuple[Waiter, bool]) -> None:
        self._waiters = tuple(other for other in self._waiters if other is not entry)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._closed:
            self._disarm()
            # Its own callback cannot wait for it; in a forked child there is nothing to wait for.
            if not self._runs_here(whole=False) and not self._port.forked:
                self.wait(cancel_pending=kind is not None)
            self.close()

    def _dropped_open(self) -> str:
        # Without the numbers in its `repr`, which take the lock.
        return "" if getattr(self, "_closed", True) else f"<{self._title()}>"
