"""How the completion of a call is told: the notification types.

A notification is fixed when the call is begun: `snapshot` turns what the caller gave as `notify=` into one of the kinds
below, and later changes to the caller's objects change nothing.

    notify=                               type         told by
    None                                  none         nothing: poll `status()`, or wait on the call itself
    an Event                              event        the event is set
    apc(function, thread=...)             APC          function(call, kind) runs in that thread's next alertable wait
    port, or port.packet(key=...)         port         one packet with the caller's three values
    a callable                            callback     function(call, kind) runs on a thread of the default pool

A callback sees the context variables as they were when the call was begun; an APC sees those of its own thread.

The target belongs to the caller before, during and after the call: it is never created, cleared or closed here.

Source: "RPC_NOTIFICATION_TYPES", "RPC_ASYNC_NOTIFICATION_INFO", "Waiting for the Asynchronous Reply".
"""

import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from enum import IntEnum
from functools import partial
from types import FunctionType
from typing import Any

import msgspec

from ..errors import InvalidArgumentType
from ..kernel.checks import ASYNC, check_callback
from ..kernel.event import Event
from ..kernel.packet import PacketTemplate
from ..kernel.port import CompletionPort
from ..kernel.waitable import kind_of


class EventKind(IntEnum):
    """What happened to a call. Each delivered notification carries its kind; `CALL_COMPLETE` is a call's last."""

    CALL_COMPLETE = 0
    SEND_COMPLETE = 1
    RECEIVE_COMPLETE = 2
    CLIENT_DISCONNECT = 3
    CLIENT_CANCEL = 4


class ApcNotification(msgspec.Struct, frozen=True):
    """Run `function(call, kind)` as an APC; made by `apc`."""

    function: Callable[[Any, EventKind], object]
    thread: threading.Thread | int


class CallbackNotification(msgspec.Struct, frozen=True):
    """Run `function(call, kind)` on a thread of the default pool, with the context variables of `context`."""

    function: Callable[[Any, EventKind], object]
    context: Context | None = None

    def bound(self, call: Any, kind: EventKind) -> Callable[[], object]:
        """Return what to run, once."""
        if self.context is None:
            return partial(self.function, call, kind)
        # A copy: a call may be told of several things at once, by several threads.
        return partial(self.context.copy().run, self.function, call, kind)

    def run(self, call: Any, kind: EventKind) -> None:
        """Run it here."""
        self.bound(call, kind)()


Notification = PacketTemplate | Event | ApcNotification | CallbackNotification | None


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


def snapshot(notify: Any) -> Notification:
    """Turn the caller's `notify=` into a notification; raises `InvalidArgumentType` for anything else."""
    if type(notify) is FunctionType and not notify.__code__.co_flags & ASYNC:  # The usual ones need no more.
        return CallbackNotification(notify, copy_context())
    if notify is None or isinstance(notify, (PacketTemplate, Event, ApcNotification)):
        return notify
    if isinstance(notify, CompletionPort):
        return notify.packet()
    if isinstance(notify, CallbackNotification):
        return CallbackNotification(notify.function, copy_context())
    if callable(notify):
        check_callback("notify", notify)
        return CallbackNotification(notify, copy_context())
    raise InvalidArgumentType(
        "notify must be None, an engine.Event, a CompletionPort, port.packet(...), apc(...) or a callable, "
        f"not {kind_of(notify)}"
    )
