"""The notification types: how a program is notified of what happens to a call.

A notification is fixed when the call is begun: `snapshot` turns what the caller gave as `notify=` into an object of one
of the classes below, or of `PacketTemplate`, and later changes to the caller's objects change nothing. Each delivers
itself (`kernel/notification.py`): no other file asks of which class it is.

    notify=                               type         how the program is notified
    None                                  none         not at all: poll `status()`, or wait on the call itself
    an Event                              event        the event is set
    apc(function, thread=...)             APC          function(call, kind) runs in that thread's next alertable wait
    port, or port.packet(key=...)         port         one packet with the caller's three values
    a callable                            callback     function(call, kind) runs on a thread of the default pool

A callback sees the context variables as they were when the call was begun; an APC sees those of its own thread.

The target belongs to the caller before, during and after the call: it is never created, cleared or closed here.

Source: "RPC_NOTIFICATION_TYPES", "RPC_ASYNC_NOTIFICATION_INFO", "Waiting for the Asynchronous Reply".
"""

import threading
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from enum import IntEnum
from functools import partial
from itertools import repeat
from operator import attrgetter
from types import FunctionType
from typing import Any, ClassVar, Self, TypeVar

from msgspec.structs import replace

from transport.foreign import shown

from ..errors import EngineError, InvalidArgumentType
from ..kernel.apc import queue_apcs
from ..kernel.checks import ASYNC, check_callback
from ..kernel.event import Event, set_events
from ..kernel.notification import Notification, refused
from ..kernel.port import CompletionPort
from ..kernel.waitable import kind_of
from ..pool.pool import default_pool


class EventKind(IntEnum):
    """What happened to a call. Each delivered notification carries its kind; `CALL_COMPLETE` is a call's last."""

    CALL_COMPLETE = 0
    SEND_COMPLETE = 1
    RECEIVE_COMPLETE = 2
    CLIENT_DISCONNECT = 3
    CLIENT_CANCEL = 4


H = TypeVar("H")

# What `notify=` takes, for a handle of the type `H`.
Notify = Event | CompletionPort | Notification | Callable[[H, EventKind], object] | None


def _shown(calls: Sequence[Any]) -> str:
    return shown(calls[0]) if len(calls) == 1 else f"{len(calls)} calls"


_event_of = attrgetter("event")


class OwnEventNotification(Notification, frozen=True):
    """Set an event, of a class of the caller's, with a way of its own."""

    event: Event

    takes_several_kinds: ClassVar[bool] = False

    def hands_over(self) -> bool:
        """It does not: an event says no more than that something has happened."""
        return False

    def notify(self, call: Any, kind: EventKind) -> None:
        self.event.set()


class EventNotification(OwnEventNotification, frozen=True):
    """Set an event."""

    @staticmethod
    def deliver_row(row: list[Any], kind: EventKind) -> None:
        """Set the events of a row of calls in one round under their lock."""
        for error in set_events(map(_event_of, row[::2])):
            refused("a call", kind, error)


class ApcNotification(Notification, frozen=True):
    """Run `function(call, kind)` as an APC; made by `apc`."""

    function: Callable[[Any, EventKind], object]
    thread: threading.Thread | int

    def deliver(self, calls: Sequence[Any], kind: EventKind) -> bool:
        """Queue an APC for each of the calls, in their order."""
        try:
            queue_apcs(tuple(map(partial, repeat(self.function), calls, repeat(kind))), self.thread)
        except EngineError as error:
            refused(_shown(calls), kind, error)
            return False
        return True

    def guarded(self, guard: Callable[..., object]) -> Self:
        return replace(self, function=partial(guard, self.function))


class CallbackNotification(Notification, frozen=True):
    """Run `function(call, kind)` on a thread of the default pool, with the context variables of `context`."""

    function: Callable[[Any, EventKind], object]
    context: Context | None = None

    needs_driver: ClassVar[bool] = True

    def bound(self, call: Any, kind: EventKind) -> Callable[[], object]:
        """Return what to run, once."""
        if self.context is None:
            return partial(self.function, call, kind)
        # A copy: several threads may notify of one call at once, of several things.
        return partial(self.context.copy().run, self.function, call, kind)

    def notify(self, call: Any, kind: EventKind) -> None:
        default_pool().post(self.bound(call, kind))

    @staticmethod
    def deliver_row(row: list[Any], kind: EventKind) -> None:
        """Post the callbacks of a row of calls at once."""
        calls = row[1::2]
        try:
            default_pool().post(*map(CallbackNotification.bound, row[::2], calls, repeat(kind)))
        except EngineError as error:  # The pool may be closed.
            refused(_shown(calls), kind, error)

    def in_order(self, drain: Callable[[Callable[[Sequence[Any], Any], object]], None]) -> None:
        default_pool().post(partial(drain, self._run))

    def _run(self, calls: Sequence[Any], kind: EventKind) -> None:
        self.bound(calls[0], kind)()

    def guarded(self, guard: Callable[..., object]) -> Self:
        return replace(self, function=partial(guard, self.function))


def apc(function: Callable[[Any, EventKind], object], thread: threading.Thread | int | None = None) -> ApcNotification:
    """Describe an APC notification, to be given as `notify=`.

    Args: `function(call, kind)` runs in an alertable wait of `thread`: a `threading.Thread`, the identifier of one that
        has used the library, or None for the calling thread.
    If that thread has ended when the call completes, the notification is lost; the call can still be completed.
    Different from Windows: None is resolved where `apc` is called, which is where the call is begun unless you store
    it.
    """
    check_callback("function", function)
    return ApcNotification(function, threading.current_thread() if thread is None else thread)


def snapshot(notify: Notify[Any]) -> Notification | None:
    """Turn the caller's `notify=` into a notification; raises `InvalidArgumentType` for anything else."""
    if type(notify) is FunctionType and not notify.__code__.co_flags & ASYNC:  # The usual ones need no more.
        return CallbackNotification(notify, copy_context())
    if type(notify) is CompletionPort:
        return notify.packet()
    if isinstance(notify, Event):
        return EventNotification(notify) if type(notify) is Event else OwnEventNotification(notify)
    if isinstance(notify, CallbackNotification):
        return CallbackNotification(notify.function, copy_context())
    if notify is None or isinstance(notify, Notification):
        return notify
    if isinstance(notify, CompletionPort):
        return notify.packet()
    if callable(notify):
        check_callback("notify", notify)
        return CallbackNotification(notify, copy_context())
    raise InvalidArgumentType(
        "notify must be None, an engine.Event, a CompletionPort, port.packet(...), apc(...) or a callable, "
        f"not {kind_of(notify)}"
    )
