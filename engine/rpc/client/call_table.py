"""The outstanding calls of a client: who is waiting for what, and how each call ends exactly once.

Theory of operation. A call that was accepted is in `_calls` under its number until its outcome is known. Taking it out,
under the table's lock, is what decides the outcome: a reply that finds no call is late and is dropped. Under the lock
the outcome is recorded and what is to be told is collected; telling happens afterwards, outside all locks.

Guarantees: each accepted call ends once and is told of once, after its outcome was recorded. Wherever a signal handler
raises or memory is short, an outcome is not parted from its telling, nor is that repeated (`record_locked`). A signal
handler that raises in the midst of the telling costs the step that it broke off, at the most: the packets, the events
or the callbacks of a row of calls; their outcomes are there all the same.
"""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import repeat
from operator import call as call_it
from typing import Any, Protocol

from transport.foreign import is_interrupt, text_of
from transport.log import Log

from ...errors import EngineError
from ...kernel.aio import Completion
from ...kernel.apc import queue_apcs
from ...kernel.each import each
from ...kernel.event import Event, set_events
from ...kernel.lock import Lock
from ...kernel.packet import UNSET, CompletionPacket, PacketTemplate
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

        Whatever raises in it, each call has its outcome, is out of the table and its telling is in `actions`, or none
        of that: what may raise comes first, and from the line where `actions`, or a list that is in it, grows until the
        call is out there is no call of anything, no jump back, and nothing that needs memory.
        """
        calls, waiting, before = self.calls, self._waiting, self.finished
        # Calls in a row are mostly told in one way: the packets of one template are made, and delivered, in one go, and
        # so are APCs of one function. Events are set, and callbacks posted, in one go.
        common: PacketTemplate | ApcNotification | None = None
        alike: list[Any] = []
        events: list[Any] = []
        callbacks: list[Any] = []
        for call, outcome in zip(map(calls.get, call_ids), outcomes, strict=False):
            if call is None:
                self.late += 1
                continue
            # Once it has its outcome, the handle may carry another call.
            call_id, notify = call._id, call._notify
            box = [outcome]
            finished, open_callbacks = self.finished + 1, self.callbacks
            waiters = waiting.get(call_id) if waiting else None
            if waiters is not None:  # This one is told by itself, so that one list grows.
                common, events, callbacks = None, [], []
            told: list[Any] = actions
            ways: tuple[Any, ...] = ()
            if notify is None:
                pass
            elif notify is common:
                told, ways = alike, (call,)
            elif type(notify) is PacketTemplate:
                common, alike = notify, [call]
                ways = (partial(_deliver, notify, alike),)
            elif type(notify) is ApcNotification:
                common, alike = notify, [call]
                ways = (partial(_queue, notify, alike),)
            elif type(notify) is Event:
                if events:
                    told, ways = events, (notify,)
                else:
                    events = [notify]
                    ways = (partial(_set_all, events),)
            elif type(notify) is CallbackNotification:
                bound = notify.bound(call, _COMPLETE)
                open_callbacks -= 1
                if callbacks:
                    told, ways = callbacks, (bound,)
                else:
                    callbacks = [bound]
                    ways = (partial(_call, callbacks),)
            elif isinstance(notify, Event):
                ways = (partial(_set, notify),)
            if waiters is not None:
                for waiter in waiters:
                    if isinstance(waiter, Observer):
                        waiter.outcome = outcome
                    ways = (*ways, waiter.wake)
            if call._timer is not None:
                call._timer.cancel()
            told += ways  # Grows, or raises and does not; `append` would be a call.
            call._state = _DONE
            call._box = box
            self.finished = finished
            self.callbacks = open_callbacks
            del calls[call_id]
            if waiters is not None:
                del waiting[call_id]
        return self.finished - before

    def finish(self, call_id: int, outcome: Outcome) -> bool:
        """End one call and tell; False if it has ended already. Any thread, holding nothing."""
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
