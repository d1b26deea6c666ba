"""The call that is being served on this thread, or in this task, and what a call that is begun meanwhile inherits.

A call that a routine makes takes over the time left, if that is shorter, and the metadata of the call that the routine
serves: texts of the outer call are overlaid by those of the inner one's client, and these by the inner call's own. A
routine whose call was answered, and that works on in the background, passes on metadata only: its caller waits no
longer.

Below client and server, which know nothing of each other: a served call is here what `Served` says.
"""

import contextvars
import threading
from _thread import get_ident
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Served(Protocol):
    """A call being served, as it is seen where a call is begun meanwhile: an `OpenCall`."""

    entry: Any  # What serves it.

    def is_open(self) -> bool: ...
    def called_out(self) -> None: ...
    def time_left(self) -> float | None: ...
    def metadata(self) -> dict[str, str]: ...


# Whether this process has, or had, a server: without one no client needs to ask what is served here.
serving: bool = False


def begin_serving() -> None:
    """A server is made."""
    global serving
    serving = True


# The call that a task serves, and its handle: one that runs an `async def` routine, and what it starts.
task_call: contextvars.ContextVar["tuple[Served, object] | None"] = contextvars.ContextVar(
    "engine.task_call", default=None
)


class Batch(Protocol):
    """Calls that have no record yet, and get one when it is asked for."""

    entry: Any

    def open(self, call_id: int) -> Served: ...


class ServingSlot:
    """Where a thread keeps which call it serves. Made and written by that thread only; others read it.

    What a call has run that is not the library's runs in a context of its own, so that nothing that it sets is seen by
    the next one: no tenant, no precision of `decimal`. The context is a new and empty one, not a copy: copies share
    what a variable holds. As long as nothing was set in it, it serves the next call, too.
    """

    __slots__ = ("batch", "call", "call_id", "context", "handle", "ident")

    def __init__(self) -> None:
        self.ident: int = get_ident()
        # The call, if it has a handle; else the batch that it is one of.
        self.call: Served | None = None
        self.batch: Batch | None = None
        # Its number, from just before its routine is entered until it was answered; None otherwise. The other two are
        # set before it, and changed after it was forgotten.
        self.call_id: int | None = None
        # What `current_call` gave here last: kept for as long as the call is served.
        self.handle: object = None
        # Empty whenever no call runs in it.
        self.context: contextvars.Context = contextvars.Context()

    @property
    def running(self) -> Served | Batch | None:
        """What has the call that is being served: its record, or its batch."""
        return self.call or self.batch

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run a part of a call in the context of this slot, in which nothing is set afterwards."""
        try:
            return self.context.run(function, *args)
        finally:
            if self.context:  # Not empty any more.
                self.context = contextvars.Context()

    def take_context(self) -> contextvars.Context:
        """Return the context, for what goes on elsewhere; the next call has another one."""
        taken, self.context = self.context, contextvars.Context()
        return taken


class _CurrentCall(threading.local):
    """The call being served here. Workers store it in their slot; a context variable would cost five times that."""

    def __init__(self) -> None:
        self.slot: ServingSlot = ServingSlot()

    def get(self) -> Served | None:
        """Return the call that this thread, or else this task, serves."""
        slot = self.slot
        if slot.call is not None:
            return slot.call
        if slot.batch is not None and slot.call_id is not None:
            return slot.batch.open(slot.call_id)
        served = task_call.get()
        return None if served is None else served[0]


current: _CurrentCall = _CurrentCall()


def inherit(
    outer: Served, timeout: float | None, metadata: dict[str, str] | None, own: Mapping[str, str]
) -> tuple[float | None, dict[str, str] | None]:
    """Return the timeout and the metadata of a call that is begun while `outer` is being served.

    Args: `own` is what the inner call's connection has said already, and need not be said again.
    """
    outer.called_out()
    left = outer.time_left() if outer.is_open() else None
    if left is not None and (timeout is None or left < timeout):
        timeout = left
    merged = {name: text for name, text in outer.metadata().items() if name not in own} | (metadata or {})
    return timeout, merged or None
