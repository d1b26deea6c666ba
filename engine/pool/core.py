"""The inside of a callback object: what it counts, where it runs, how it is waited for and closed; and groups of these.

Theory of operation. Users have an object (`Work`, `Timer`, `Wait`, `Io`) that shows what they call. It holds a core,
which the pool, its workers and the cleanup group know instead. The core does not hold its object: an object that is
dropped open is noticed. What queues a callback, an armed timer or a pending wait holds the object, and so does each
queued callback, so that it is there as long as callbacks come.

    idle --submit, expiry, signal, packet--> queued n --a worker takes one--> running k --returns--> idle
    queued n --wait(cancel_pending=True), group cancel--> idle
    any --close--> no new callbacks; what is queued and running ends as usual

Guarantees: after the source was disarmed and `wait(cancel_pending=True)` returned, no callback of the object runs
again, unless a thread submits.
"""

import weakref
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from ..errors import InvalidHandle
from ..kernel.checks import Deadline
from ..kernel.clock import Clock
from ..kernel.thread import park
from ..kernel.waiter import Waiter
from ..lifecycle import snapshot
from .dispatch import WorkPort
from .fair_queue import CallbackCounts, Priority
from .intake import Intake
from .run_time import RunTime


class CallbackCore(CallbackCounts):
    """The inside of one callback object. `disarm` and the other hooks are those of the kind of object."""

    __slots__ = ("cancel_callback", "clock", "closed", "group", "inherit", "intake", "keep_alive", "port", "title")

    def __init__(
        self,
        title: str,
        intake: Intake,
        priority: Priority,
        run_time: RunTime,
        function: Callable[..., object],
        args: tuple[Any, ...],
    ) -> None:
        super().__init__(priority, run_time, function, args)
        # What errors call the object.
        self.title: str = title
        self.intake: Intake = intake
        self.port: WorkPort = intake.port
        # Below: fixed before the first callback. Where time comes from.
        self.clock: Clock = intake.clock
        # Whether callbacks inherit context variables.
        self.inherit: bool = True
        # What lives as long as the object: its pool, and what its environment says.
        self.keep_alive: object = None
        self.cancel_callback: Callable[[Any, Any], object] | None = None
        self.group: GroupMembers | None = None
        # Written under the port's lock. Whether it was closed, by its user or by its group.
        self.closed: bool = False

    def capture(self) -> Context:
        """Return the context variables for a callback that is submitted or armed now."""
        return copy_context() if self.inherit else Context()

    def require_open(self) -> None:
        """Raise if the object is closed, or made by another process."""
        if self.closed:
            raise InvalidHandle(f"the {self.title} is closed")
        if self.port.forked:
            raise self.port.closed_error()

    def require_live(self) -> None:
        """Raise unless the object may be submitted or armed."""
        self.require_open()
        if self.port.ending:
            raise self.port.closed_error()

    def close(self) -> None:
        """Refuse new callbacks, leave the group, disarm. A second call does nothing."""
        if self.retire():
            if self.group is not None:
                self.group.leave(self)
            self.disarm()

    def retire(self) -> bool:
        """Mark as closed; False if it was already."""
        with self.port.lock:
            return self.retire_locked()

    def retire_locked(self) -> bool:
        """`retire`, for who has the port's lock."""
        if self.closed:
            return False
        self.closed = True
        self.port.objects.discard(self)
        return True

    def retire_when_quiet(self, deadline: Deadline) -> bool | None:
        """`retire`, in one step with nothing being outstanding any more; None if the time runs out before."""
        while self.wait_quiet(deadline.left(), whole=True):
            with self.port.lock:
                if not self.busy_locked(True):
                    return self.retire_locked()
        return None

    def wait_quiet(self, timeout: float | None, whole: bool) -> bool:
        """Wait until nothing is outstanding; `whole` counts disassociated callbacks as well."""
        self.port.refresh()
        with self.port.lock:
            if not self.busy_locked(whole):
                return True
            waiter = Waiter()
            entry = (waiter, whole)
            self.waiters += (entry,)
        try:
            return park(waiter, timeout)
        finally:
            if not waiter.signalled:
                with self.port.lock:
                    self._unlist_locked(entry)

    def _unlist_locked(self, entry: tuple[Waiter, bool]) -> None:
        self.waiters: tuple[tuple[Waiter, bool], ...] = tuple(other for other in self.waiters if other is not entry)


class OnceCore(CallbackCore):
    """A callback without an object: it closes itself once that has run, and leaves its group."""

    __slots__ = ()

    def ended_locked(self) -> None:
        """The callback has returned."""
        self.retire_locked()
        if self.group is not None:
            self.group.leave(self)


class GroupMembers:
    """What belongs to one cleanup group."""

    __slots__ = ("closed", "leaving", "present")

    def __init__(self) -> None:
        self.closed: bool = False
        # In order of creation, with the object of each. Single-key operations and copying only, which are atomic.
        self.present: dict[CallbackCore, object] = {}
        # Those that were closed individually: as long as they live, which what they have queued or running sees to.
        self.leaving: weakref.WeakSet[CallbackCore] = weakref.WeakSet()

    def join(self, core: CallbackCore, owner: object) -> None:
        """Take `owner` in; raises `InvalidHandle` if the group is closed."""
        if self.closed:
            raise InvalidHandle("the cleanup group is closed")
        self.present[core] = owner

    def leave(self, core: CallbackCore) -> None:
        """It was closed: a member no longer, though a release still waits for its callbacks."""
        self.leaving.add(core)
        self.present.pop(core, None)

    def everybody(self) -> list[tuple[CallbackCore, object]]:
        """Return the members with their objects, and after them those that were closed."""
        return [*self.present.items(), *((core, None) for core in snapshot(self.leaving))]

    def take_back(self, released: list[tuple[CallbackCore, object]]) -> None:
        """Some of these were not released after all."""
        for core, owner in released:
            if core.closed:
                self.leave(core)
            else:
                self.present[core] = owner
