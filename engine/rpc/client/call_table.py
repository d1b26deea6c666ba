"""The outstanding calls of a connection: which threads and tasks wait for them, and how each call ends exactly once.

Theory of operation. A call that was accepted is in `calls` under its number until its outcome is known. The thread that
takes it out, under the table's lock, decides the outcome: a reply that finds no call is late and is dropped. Under the
lock that thread records the outcome and collects the notifications; it delivers them afterwards, outside all locks.

Guarantees: each accepted call ends once, and its notification is delivered once, after its outcome was recorded.
Wherever a signal handler raises or memory is short, an outcome is not parted from its notification, nor is that
repeated (`record_locked`). A signal handler that raises during the delivery costs the step that it broke off, at the
most: the packets, the events or the callbacks of a row of calls; their outcomes are there all the same.
"""

from collections.abc import Callable, Iterable
from operator import call as call_it
from typing import Any

from ...kernel.aio import Completion
from ...kernel.helping import HelpingWaiter
from ...kernel.lock import Lock, each
from ...kernel.waiter import Wakeable
from ..call import Call, is_elsewhere_locked, pipes_of, record_locked
from ..state import Failure, Outcome

# What waits for a call in order to complete it: a thread, a task.
_COLLECTORS = frozenset({HelpingWaiter, Completion})


def perform(actions: Iterable[Callable[[], object]]) -> None:
    """Do what was collected under a lock. A signal handler that raises costs the step it broke off, at the most."""
    left = iter(actions)
    try:
        each(call_it, left)
    except BaseException:
        perform(left)
        raise


class CallTable:
    """The calls of one connection that have no outcome yet. Hashable by identity.

    The connection guards its state with the same lock, so that a call that needs both takes one lock, once. Methods
    ending in `_locked` need it held.

    Args: `beside`: a table of the same client. They share their lock, their numbers and what waits for calls, so that a
        call moves from one to the other in one step.
    """

    def __init__(self, beside: "CallTable | None" = None) -> None:
        self.lock: Lock
        if beside is None:
            self.lock = Lock()
        else:
            self.lock = beside.lock
        # All guarded by `lock`. The calls that have no outcome, and what waits for them, by their numbers.
        self.calls: dict[int, Call[object]] = {}
        self.waiting: dict[int, list[Wakeable]] = {} if beside is None else beside.waiting
        # How many calls need the network to be driven though no thread waits: see `Notification.needs_driver`.
        self.need_driver: int = 0
        # Counters, for statistics: calls that have ended, and outcomes that came for those that had.
        self.finished: int = 0
        self.late: int = 0
        # Those among them that had no answer: a lost connection, a time limit, a cancel.
        self.failed: int = 0

    @property
    def answered(self) -> int:
        """How many calls have ended by an answer."""
        return self.finished - self.failed

    # It stands in `call.py`, as it writes the fields of calls. As an attribute it costs no call more.
    record_locked = record_locked

    def finish_locked(
        self, call_ids: Iterable[int], outcomes: Iterable[Outcome], actions: list[Callable[[], object]]
    ) -> int:
        """Record outcomes, each for the call of its number; what is to be done, outside all locks, goes to `actions`.

        Returns how many calls that ended. A call that has ended already keeps its outcome.
        Broken off by a signal handler or for want of memory, it goes on with the others before it raises. The numbers
        and the outcomes can be gone through again.
        """
        try:
            self.failed += [*map(type, outcomes)].count(Failure)
            return self.record_locked(call_ids, outcomes, actions)
        except BaseException:
            self.record_again_locked(call_ids, outcomes, actions)
            raise

    def record_again_locked(
        self, call_ids: Iterable[int], outcomes: Iterable[Outcome], actions: list[Callable[[], object]]
    ) -> None:
        """Go on with what `record_locked` was broken off in: what it has ended is passed over."""
        late = self.late
        self.record_locked(call_ids, outcomes, actions)
        self.late = late  # Those that it had ended were found to be gone.

    def finish(self, call_id: int, outcome: Outcome) -> bool:
        """End one call and notify of that; False if it has ended already. Any thread, holding nothing."""
        actions: list[Callable[[], object]] = []
        try:
            with self.lock:
                return self.finish_locked((call_id,), (outcome,), actions) == 1
        finally:
            perform(actions)

    def await_outcome(self, call_id: int, call: Call[object], waiter: Wakeable) -> bool:
        """Have `waiter` woken when the call ends; False if it has ended already."""
        with self.lock:
            if self.calls.get(call_id) is not call and not is_elsewhere_locked(self, call_id, call):
                return False
            self.waiting.setdefault(call_id, []).append(waiter)
            return True

    def forget_waiter(self, call_id: int, waiter: Wakeable) -> None:
        """Take a waiter back, after a timeout or an interrupt."""
        with self.lock:
            waiters = self.waiting.get(call_id)
            if waiters is not None and waiter in waiters:
                waiters.remove(waiter)
                if not waiters:
                    del self.waiting[call_id]

    def is_given_up(self, call_id: int, call: Call[Any], completion: Completion | None) -> bool:
        """A task waits no longer, by `completion` if it did: whether no task waits for the call or a pipe of it now."""
        if completion is not None:
            self.forget_waiter(call_id, completion)
        pipes = pipes_of(call)
        return not self._awaited(call_id, call) and not (pipes is not None and pipes.waited_for())

    def _awaited(self, call_id: int, call: Call[object]) -> bool:
        """Whether a thread or a task waits for the call, in order to complete it."""
        with self.lock:
            waiters = self.waiting.get(call_id, ())
            here = self.calls.get(call_id) is call or is_elsewhere_locked(self, call_id, call)
            return here and not _COLLECTORS.isdisjoint(map(type, waiters))
