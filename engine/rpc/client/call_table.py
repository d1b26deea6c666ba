"""The outstanding calls of a client: which threads and tasks wait for them, and how each call ends exactly once.

Theory of operation. A call that was accepted is in `calls` under its number until its outcome is known. The thread that
takes it out, under the table's lock, decides the outcome: a reply that finds no call is late and is dropped. Under the
lock that thread records the outcome and collects the notifications; it delivers them afterwards, outside all locks.

Guarantees: each accepted call ends once, and its notification is delivered once, after its outcome was recorded.
Wherever a signal handler raises or memory is short, an outcome is not parted from its notification, nor is that
repeated (`record_locked`). A signal handler that raises during the delivery costs the step that it broke off, at the
most: the packets, the events or the callbacks of a row of calls; their outcomes are there all the same.
"""

from collections.abc import Callable, Iterable
from functools import partial
from operator import call as call_it
from typing import Any

from ...kernel.aio import Completion
from ...kernel.each import each
from ...kernel.lock import Lock
from ...kernel.notification import Notification
from ...kernel.waiter import Waiter, Wakeable
from ..call import Call, Outcome
from ..notify import EventKind
from ..state import NEXT, On, State

# Where an outcome takes a call that has none, whatever its state.
_DONE = int(State.DONE)
assert NEXT[State.PENDING][On.OUTCOME] == NEXT[State.CANCELLING][On.OUTCOME] == _DONE

_COMPLETE = EventKind.CALL_COMPLETE

# What waits for a call in order to complete it: a thread, a task.
_COLLECTORS = frozenset({Waiter, Completion})


class Observer:
    """Something that waits for a call to see how it ended, not to complete it: a thread may have done so by then."""

    # Set under the table's lock, before `wake`.
    outcome: Outcome | None = None

    def wake(self) -> None:
        """The call has its outcome."""
        raise NotImplementedError  # Abstract: each observer goes on in its own way.


def perform(actions: Iterable[Callable[[], object]]) -> None:
    """Do what was collected under a lock. A signal handler that raises costs the step it broke off, at the most."""
    left = iter(actions)
    try:
        each(call_it, left)
    except BaseException:
        perform(left)
        raise


class CallTable:
    """The calls of one client that have no outcome yet.

    `lock` and `calls` are public: the client guards its writer and its connection state with the same lock, so that
    beginning a call takes one lock, once. Methods ending in `_locked` need it held.
    """

    def __init__(self) -> None:
        self.lock: Lock = Lock()
        # All guarded by `lock`.
        self.calls: dict[int, Call[object]] = {}
        self._waiting: dict[int, list[Wakeable]] = {}
        # How many calls need the network to be driven though no thread waits: see `Notification.needs_driver`.
        self.need_driver: int = 0
        # Counters, for statistics.
        self.finished: int = 0
        self.late: int = 0

    def finish_locked(
        self, call_ids: Iterable[int], outcomes: Iterable[Outcome], actions: list[Callable[[], object]]
    ) -> int:
        """Record outcomes, each for the call of its number; what is to be done, outside all locks, goes to `actions`.

        Returns how many calls that ended. A call that has ended already keeps its outcome.
        Broken off by a signal handler or for want of memory, it goes on with the others before it raises. The numbers
        and the outcomes can be gone through again.
        """
        try:
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

    def record_locked(
        self, call_ids: Iterable[int], outcomes: Iterable[Outcome], actions: list[Callable[[], object]]
    ) -> int:
        """What `finish_locked` does, for callers that go on by themselves if it is broken off.

        Whatever raises in it, each call has its outcome, is out of the table and its notification is in `actions`, or
        none of that: what may raise comes first, and from the line where `actions`, or a list that is in it, grows
        until the call is out there is no call of anything, no jump back, and nothing that needs memory.
        """
        calls, waiting, before = self.calls, self._waiting, self.finished
        # Calls in a row mostly have one notification, or notifications of one class: those are delivered in one step.
        common: Notification | None = None
        deliver_row: Callable[[list[Any], EventKind], object] | None = None
        row: list[Any] = []
        for call, outcome in zip(map(calls.get, call_ids), outcomes, strict=False):
            if call is None:
                self.late += 1
                continue
            # Once it has its outcome, the handle may carry another call.
            call_id, notify = call._id, call._notify
            box = [outcome]
            finished, need_driver = self.finished + 1, self.need_driver
            waiters = waiting.get(call_id) if waiting else None
            if waiters is not None:  # Its notification is delivered by itself, so that one list grows.
                common = deliver_row = None
            grown: list[Any] = actions
            added: tuple[Any, ...] = ()
            if notify is not None:
                need_driver -= notify.needs_driver
                if notify is common:
                    grown, added = row, (call,)
                elif (jointly := notify.deliver_row) is None:
                    common, deliver_row, row = notify, None, [call]
                    added = (partial(notify.deliver, row, _COMPLETE),)
                elif jointly is deliver_row:
                    grown, added = row, (notify, call)
                else:
                    common, deliver_row, row = None, jointly, [notify, call]
                    added = (partial(jointly, row, _COMPLETE),)
            if waiters is not None:
                for waiter in waiters:
                    if isinstance(waiter, Observer):
                        waiter.outcome = outcome
                    added = (*added, waiter.wake)
            if call._timer is not None:
                call._timer.cancel()
            grown += added  # Grows, or raises and does not; `append` would be a call.
            call._state = _DONE
            call._box = box
            self.finished = finished
            self.need_driver = need_driver
            del calls[call_id]
            if waiters is not None:
                del waiting[call_id]
        return self.finished - before

    def finish(self, call_id: int, outcome: Outcome) -> bool:
        """End one call and notify of that; False if it has ended already. Any thread, holding nothing."""
        actions: list[Callable[[], object]] = []
        try:
            with self.lock:
                return self.finish_locked((call_id,), (outcome,), actions) == 1
        finally:
            perform(actions)

    def expect_locked(self, call_id: int, waiter: Wakeable) -> None:
        """Have `waiter` woken when the call of that number ends, which is about to be entered."""
        self._waiting.setdefault(call_id, []).append(waiter)

    def expect_nothing_locked(self, call_id: int) -> None:
        """The call of that number was not entered after all."""
        self._waiting.pop(call_id, None)

    def await_outcome(self, call: Call[object], waiter: Wakeable) -> bool:
        """Have `waiter` woken when the call ends; False if it has ended already."""
        with self.lock:
            if self.calls.get(call._id) is not call:
                return False
            self._waiting.setdefault(call._id, []).append(waiter)
            return True

    def forget_waiter(self, call: Call[object], waiter: Wakeable) -> None:
        """Take a waiter back, after a timeout or an interrupt."""
        with self.lock:
            waiters = self._waiting.get(call._id)
            if waiters is not None and waiter in waiters:
                waiters.remove(waiter)
                if not waiters:
                    del self._waiting[call._id]

    def awaited(self, call: Call[object]) -> bool:
        """Whether a thread or a task waits for the call, in order to complete it."""
        with self.lock:
            waiters = self._waiting.get(call._id, ())
            return self.calls.get(call._id) is call and not _COLLECTORS.isdisjoint(map(type, waiters))
