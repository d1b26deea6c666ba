"""The outstanding calls of a client: who is waiting for what, and how each call ends exactly once.

Theory of operation. A call that was accepted is in `_calls` under its number until its outcome is known. Taking it out,
under the table's lock, is what decides the outcome: a reply that finds no call is late and is dropped. Under the lock
the outcome is recorded and what is to be told is collected; telling happens afterwards, outside all locks (`Telling`).

Guarantees: each accepted call ends once and is told of once, after its outcome was recorded.
"""

import logging
from _thread import allocate_lock
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from ..kernel.apc import queue_apc
from ..kernel.errors import EngineError
from ..kernel.event import Event
from ..kernel.port import UNSET, CompletionPacket, CompletionPort, PacketTemplate
from ..pool.pool import default_pool
from .call import Call, Outcome
from .notify import ApcNotification, CallbackNotification, EventKind, Notification
from .state import NEXT, On, State

log = logging.getLogger("engine.rpc")

# The column of the state table that an outcome moves along.
_AFTER_OUTCOME = [NEXT[state][On.OUTCOME] for state in State]


class Wakeable(Protocol):
    """A thread or a task that waits for one call."""

    def wake(self) -> None: ...


class Observer:
    """Who waits for a call in order to see how it ended, not to complete it: that may have happened when it wakes."""

    # Set under the table's lock, before `wake`.
    outcome: Outcome | None = None

    def wake(self) -> None:
        """The call has its outcome."""
        raise NotImplementedError


class Telling:
    """What is to be told after outcomes were recorded. Filled under the table's lock, run outside all locks."""

    __slots__ = ("others", "rows", "waiters")

    def __init__(self) -> None:
        # Packets of one port are delivered in one go, in the order of their calls.
        self.rows: dict[CompletionPort, list[CompletionPacket]] = {}
        self.waiters: list[Wakeable] = []
        self.others: list[Callable[[], object]] = []

    def add(self, call: Call[object], notify: Notification) -> None:
        """Add the notification of `call`, which is not a packet."""
        if type(notify) is CallbackNotification:
            told = partial(notify.function, call, EventKind.CALL_COMPLETE)
            self.others.append(lambda: default_pool().post(told))
        elif type(notify) is ApcNotification:
            self.others.append(lambda: queue_apc(notify.function, call, EventKind.CALL_COMPLETE, thread=notify.thread))
        else:
            assert isinstance(notify, Event)
            self.others.append(notify.set)

    def __call__(self) -> None:
        """Tell. Each target is told even if another one fails: it may have been closed, or its thread may be gone."""
        for port, packets in self.rows.items():
            port.deliver(packets)
        for waiter in self.waiters:
            waiter.wake()
        for tell in self.others:
            try:
                tell()
            except EngineError as error:
                log.warning("a call's completion could not be told: %s; the call can still be completed", error)


class CallTable:
    """The calls of one client that have no outcome yet.

    `lock` and `calls` are public: the client guards its writer and its connection state with the same lock, so that
    beginning a call takes one lock, once. Methods ending in `_locked` need it held.
    """

    def __init__(self) -> None:
        self.lock = allocate_lock()
        # All guarded by `lock`.
        self.calls: dict[int, Call[object]] = {}
        self._waiting: dict[int, list[Wakeable]] = {}
        # Calls that will be told by callback: somebody must drive the network though nobody waits.
        self.callbacks = 0
        # Counters, for statistics.
        self.finished = 0
        self.late = 0

    def finish_locked(self, outcomes: Iterable[Outcome], telling: Telling) -> int:
        """Record outcomes, each for the call of its number; what is to be told goes to `telling`.

        Returns how many calls that ended. A call that has ended already keeps its outcome.
        """
        take = self.calls.pop
        rows = telling.rows
        ended = 0
        for outcome in outcomes:
            call = take(outcome.id, None)
            if call is None:
                self.late += 1
                continue
            following = _AFTER_OUTCOME[call._state]
            assert following is not None, "a call in the table is pending"
            call._state = following
            call._box = [outcome]
            ended += 1
            if call._timer is not None:
                call._timer.cancel()
            notify = call._notify
            if type(notify) is PacketTemplate:
                overlapped = notify.overlapped
                packet = CompletionPacket(notify.key, notify.transferred, call if overlapped is UNSET else overlapped)
                row = rows.get(notify.port)
                if row is None:
                    rows[notify.port] = [packet]
                else:
                    row.append(packet)
            elif notify is not None:
                telling.add(call, notify)
                if type(notify) is CallbackNotification:
                    self.callbacks -= 1
            if self._waiting:
                waiters = self._waiting.pop(outcome.id, None)
                if waiters is not None:
                    telling.waiters += waiters
                    for waiter in waiters:
                        if isinstance(waiter, Observer):
                            waiter.outcome = outcome
        self.finished += ended
        return ended

    def finish(self, outcome: Outcome) -> bool:
        """End one call and tell; False if it has ended already. Any thread, holding nothing."""
        telling = Telling()
        with self.lock:
            ended = self.finish_locked((outcome,), telling) == 1
        telling()
        return ended

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
