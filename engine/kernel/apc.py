"""Asynchronous procedure calls: functions queued to one thread, run inside that thread's alertable waits.

Theory of operation. Each thread has one queue, first in, first out. An alertable wait that finds nothing to
take runs the whole queue, what the functions queue meanwhile included, and then ends with `Alerted`. A wait
that is satisfied leaves the queue alone. When the thread ends, what is still queued is dropped.

Guarantees: a function runs on its target thread only, at most once, holding no lock of the library.

Source: "Asynchronous Procedure Calls", "QueueUserAPC".
"""

import threading
import weakref
from _thread import get_ident
from collections.abc import Callable, Sequence
from functools import partial

from transport.foreign import shown, type_name

from ..errors import Deadlock, EngineError, InvalidArgumentType
from ..lifecycle import in_child
from ..status import Status
from .afterwards import afterwards
from .checks import check_callback
from .lock import Lock, index_of
from .thread import ThreadRecord, end_hooks, local, park, records, start_hooks
from .waiter import Waiter

# Guards every thread's APC queue and its `alert`. Held for a few operations only; nothing else is locked
# inside it.
apc_lock: Lock = Lock()

# Guarded by apc_lock. APCs for threads that have not used the library yet: taken over as they first do.
_early: "weakref.WeakKeyDictionary[threading.Thread, list[Callable[[], object]]]" = weakref.WeakKeyDictionary()


def queue_apc(function: Callable[..., object], *args: object, thread: threading.Thread | int | None = None) -> None:
    """Queue `function(*args)` to a thread, to run inside its next alertable wait.

    Args: `thread` is a `threading.Thread`, a thread identifier, or None for the calling thread. An identifier
        must belong to a thread that has used the library already.
    Raises: `EngineError` with status 31 (GEN_FAILURE) if the thread has ended or is unknown;
        `InvalidArgumentType`.
    Threads: any. Blocks: never. Safe in a signal handler; if that interrupted the engine itself, the APC may be queued
        a moment after the return.
    What the function raises leaves the alertable wait that runs it; the functions behind it stay queued.
    Source: "QueueUserAPC".
    """
    check_callback("function", function)
    apcs = (partial(function, *args) if args else function,)
    try:
        queue_apcs(apcs, thread)
    except Deadlock:  # In a signal handler that interrupted this thread under the lock: nothing was queued.
        afterwards(queue_apcs, apcs, get_ident() if thread is None else thread)


def queue_apcs(apcs: Sequence[Callable[[], object]], thread: threading.Thread | int | None) -> None:
    """Queue several to one thread, as `queue_apc` does one; all of them, or none if it raises."""
    if thread is None:
        record: ThreadRecord | None = local.record
    elif isinstance(thread, threading.Thread):
        record = _record_of(thread, apcs)
        if record is None:
            return
    elif isinstance(thread, int):
        record = records.get(thread)
    else:
        raise InvalidArgumentType(f"thread must be a Thread, an identifier or None, not {type_name(thread)}")
    if record is None:
        raise EngineError(f"thread {shown(thread)} has not used the library, or is unknown", status=Status.GEN_FAILURE)
    with apc_lock:
        if record.ended:
            raise EngineError("the thread has ended", status=Status.GEN_FAILURE)
        record.apcs.extend(apcs)
        alert = record.alert
    _interrupt(alert)


def _interrupt(alert: Callable[[], None] | None) -> None:
    """Interrupt the alertable wait that `alert` belongs to."""
    if alert is not None:
        try:
            alert()
        except Deadlock:  # In a signal handler: the wait was not touched.
            afterwards(alert)
        except BaseException:  # A signal handler raised, perhaps before the thread was woken.
            alert()
            raise


class TimerApc:
    """A timer's APC: at most once in its thread's queue, and withdrawn when the timer is set anew."""

    __slots__ = ("_function", "_queued", "_record", "_withdrawn")

    def __init__(self, function: Callable[[], object], record: ThreadRecord) -> None:
        self._function = function
        self._record = record
        # Guarded by apc_lock, though its own thread clears `_queued` without it, as the first thing it does.
        self._queued = False
        self._withdrawn = False

    def queue(self) -> None:
        """Queue it, unless it is queued, withdrawn, or its thread has ended."""
        record = self._record
        with apc_lock:
            if self._queued or self._withdrawn or record.ended:
                return
            self._queued = True
            record.apcs.append(self)
            alert = record.alert
        _interrupt(alert)

    def withdraw(self) -> None:
        """Take it out of the queue, for good."""
        with apc_lock:
            self._withdrawn = True
            if self._queued:
                apcs = self._record.apcs
                index = index_of(self, apcs)
                if index is not None:  # Else it was taken out: its thread is about to run it.
                    del apcs[index]

    def __call__(self) -> object:
        self._queued = False
        return self._function()


def run_apcs(record: ThreadRecord) -> bool:
    """Run the calling thread's queued APCs, what they queue included; return whether any ran."""
    apcs = record.apcs
    ran = False
    while apcs:
        with apc_lock:
            if not apcs:
                break  # There was a timer's, which withdrew it just now.
            apc = apcs.popleft()
        ran = True
        apc()
    return ran


def wait_alertably(record: ThreadRecord, alert: Callable[[], None], waiter: Waiter, timeout: float | None) -> bool:
    """Wait as `park` does, in the thread of `record`, but let APCs end the wait.

    `alert()` is called when there are any, by the thread that queues one or by this one if they were queued
    before. It decides under the guard of what is waited for whether the APCs come first, and wakes `waiter`
    if so. It may be called again.
    """
    try:
        with apc_lock:
            record.alert = alert
            pending = bool(record.apcs)  # Queued before `alert` was there to be called.
        if pending:
            alert()
        return park(waiter, timeout)
    finally:
        with apc_lock:
            record.alert = None


def _record_of(thread: threading.Thread, apcs: Sequence[Callable[[], object]]) -> ThreadRecord | None:
    """Find the record of `thread`; if it has none yet, keep `apcs` for it and return None."""
    record = records.get(thread.ident) if thread.ident is not None else None
    if record is not None and record.native() is thread:
        return record
    if thread.ident is not None and not thread.is_alive():
        raise EngineError(f"thread {thread.name!r} has ended", status=Status.GEN_FAILURE)
    with apc_lock:
        # It may have made its record just now, and adopted what was kept for it.
        record = records.get(thread.ident) if thread.ident is not None else None
        if record is not None and record.native() is thread:
            return record
        _early.setdefault(thread, []).extend(apcs)
    return None


def _adopt_early(record: ThreadRecord) -> None:
    thread = record.native()
    with apc_lock:
        if thread is not None:
            # In front: who queued early may have found the record since, and queued to it directly.
            record.apcs.extendleft(reversed(_early.pop(thread, [])))


def _drop(record: ThreadRecord) -> None:
    with apc_lock:
        record.ended = True
        record.alert = None
        record.apcs.clear()


@in_child
def _forget() -> None:
    # What was queued belongs to the parent's operations; it runs there.
    _early.clear()
    record = records.get(get_ident())
    if record is not None:
        record.apcs.clear()


start_hooks.append(_adopt_early)
end_hooks.append(_drop)
