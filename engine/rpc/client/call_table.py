"""The outstanding calls of a client: who is waiting for what, and how each call ends exactly once.

Theory of operation. A call that was accepted is in `_calls` under its number until its outcome is known. Taking it out,
under the table's lock, is what decides the outcome: a reply that finds no call is late and is dropped. Under the lock
the outcome is recorded and what is to be told is collected; telling happens afterwards, outside all locks.

Guarantees: each accepted call ends once and is told of once, after its outcome was recorded.
"""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import repeat
from typing import Protocol

from transport.foreign import is_interrupt, text_of
from transport.log import Log

from ...errors import EngineError
from ...kernel.aio import Completion
from ...kernel.apc import queue_apcs
from ...kernel.event import Event, set_events
from ...kernel.lock import Lock
from ...kernel.port import UNSET, CompletionPacket, PacketTemplate
from ...kernel.waiter import Waiter
from ...pool.pool import default_pool
from ..call import Call, Outcome
from ..notify import ApcNotification, CallbackNotification, EventKind
from ..state import NEXT, On, State

log: Log = Log("engine.rpc")

# Where an outcome takes a call that has none, whatever its state.
_DONE = int(State.DONE)
assert NEXT[State.PENDING][On.OUTCOME] == NEXT[State.CANCELLING][On.OUTCOME] == _DONE


_COMPLETE = EventKind.CALL_COMPLETE
_NOTHING = repeat(None)

# What waits for a call in order to complete it: a thread, a task.
_COLLECTORS = frozenset({Waiter, Completion})


class Wakeable(Protocol):
    """A thread or a task that waits for one call."""

    def wake(self) -> None: ...


class Observer:
    """Who waits for a call in order to see how it ended, not to complete it: that may have happened when it wakes."""

    # Set under the table's lock, before `wake`.
    outcome: Outcome | None = None

    def wake(self) -> None:
        """The call has its outcome."""
        raise NotImplementedError  # Abstract: each observer goes on in its own way.


def _set(event: Event) -> None:
    """Set an event that tells of the end of a call: one of a class of the caller's, with a way of its own."""
    try:
        event.set()
    except BaseException as error:
        if is_interrupt(error):
            raise
        _warn(1, error)


def _set_all(events: list[Event]) -> None:
    """Set events that tell of the end of calls. Some may have been closed."""
    for error in set_events(events):
        _warn(1, error)


def _call(callbacks: list[Callable[[], object]]) -> None:
    """Have the callbacks run that tell of the end of calls. The pool may be closed."""
    try:
        default_pool().post(*callbacks)
    except EngineError as error:
        _warn(len(callbacks), error)


def _queue(notify: ApcNotification, calls: list[Call[object]]) -> None:
    """Queue the APCs that tell of the end of these calls, in their order. The thread may be gone."""
    told = map(partial, repeat(notify.function), calls, repeat(_COMPLETE))
    try:
        queue_apcs(tuple(told), notify.thread)
    except EngineError as error:
        _warn(len(calls), error)


def _warn(number: int, error: BaseException) -> None:
    why = text_of(error)
    log.warning("the completion of calls (%d) could not be told: %s; they can still be completed", number, why)


def _deliver(template: PacketTemplate, calls: list[Call[object]]) -> None:
    """Post the packets that tell of the end of these calls, in their order."""
    key, transferred, overlapped = template.key, template.transferred, template.overlapped
    given = calls if overlapped is UNSET else repeat(overlapped)
    template.port.deliver(
        [CompletionPacket(key, transferred, calls[0] if overlapped is UNSET else overlapped)]
        if len(calls) == 1
        else list(map(CompletionPacket, repeat(key, len(calls)), repeat(transferred), given))
    )


def perform(actions: Iterable[Callable[[], object]]) -> None:
    """Do what was collected under a lock."""
    for act in actions:
        act()


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
        # Calls that will be told by callback: somebody must drive the network though nobody waits.
        self.callbacks: int = 0
        # Counters, for statistics.
        self.finished: int = 0
        self.late: int = 0

    def finish_locked(
        self, call_ids: Iterable[int], outcomes: Iterable[Outcome], actions: list[Callable[[], object]]
    ) -> int:
        """Record outcomes, each for the call of its number; what is to be done, outside all locks, goes to `actions`.

        Returns how many calls that ended. A call that has ended already keeps its outcome.
        """
        # Calls in a row are mostly told in one way: the packets of one template are made, and delivered, in one go, and
        # so are APCs of one function. Events are set, and callbacks posted, in one go.
        common: PacketTemplate | ApcNotification | None = None
        alike: list[Call[object]] = []
        events: list[Event] = []
        callbacks: list[Callable[[], object]] = []
        ended = 0
        waiting = self._waiting
        for call, outcome in zip(map(self.calls.pop, call_ids, _NOTHING), outcomes, strict=False):
            if call is None:
                self.late += 1
                continue
            call._state = _DONE
            call._box = [outcome]
            ended += 1
            notify = call._notify
            if notify is common is not None:
                alike.append(call)
            elif type(notify) is PacketTemplate:
                common = notify
                alike = [call]
                actions.append(partial(_deliver, notify, alike))
            elif type(notify) is ApcNotification:
                common = notify
                alike = [call]
                actions.append(partial(_queue, notify, alike))
            elif type(notify) is Event:
                if not events:
                    actions.append(partial(_set_all, events))
                events.append(notify)
            elif type(notify) is CallbackNotification:
                if not callbacks:
                    actions.append(partial(_call, callbacks))
                callbacks.append(notify.bound(call, _COMPLETE))
            elif isinstance(notify, Event):
                actions.append(partial(_set, notify))
            if call._timer is not None:
                call._timer.cancel()
            if waiting and (waiters := waiting.pop(call._id, None)) is not None:
                for waiter in waiters:
                    if isinstance(waiter, Observer):
                        waiter.outcome = outcome
                    actions.append(waiter.wake)
        self.finished += ended
        self.callbacks -= len(callbacks)
        return ended

    def finish(self, call_id: int, outcome: Outcome) -> bool:
        """End one call and tell; False if it has ended already. Any thread, holding nothing."""
        actions: list[Callable[[], object]] = []
        with self.lock:
            ended = self.finish_locked((call_id,), (outcome,), actions) == 1
        perform(actions)
        return ended

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
