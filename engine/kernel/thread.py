"""What the kernel knows of each thread: its port, its slot there, its APC queue, and when it ends.

Theory of operation. A `ThreadRecord` is made the first time a thread uses the library and is reached through
thread-local storage. `park` is every real wait of the library: inside it, as inside a `blocking` scope, the
thread's slot on its port is free for another. When a thread ends, its thread-local storage goes, and with it
a `_Departure` whose finalizer takes the thread off its port and drops its APC queue.

Assumes: CPython clears a thread's local storage on that thread as it ends.
"""

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, TypeAlias

from .driver import driver
from .waiter import Waiter


class SlotOwner(Protocol):
    """A completion port, as a thread sees the one it is associated with."""

    def _release_slot(self, record: "ThreadRecord") -> None:
        """The thread blocks, has ended or goes to another port: give its slot back, which may release another."""

    def _retake_slot(self, record: "ThreadRecord") -> None:
        """The thread runs again: take a slot at once, past the limit if need be."""


class PortBinding:
    """What a thread holds of its port: enough for its slot, not enough to keep the port alive."""

    __slots__ = ("_port",)

    def __init__(self, port: SlotOwner) -> None:
        self._port = weakref.ref(port)

    def _release_slot(self, record: "ThreadRecord") -> None:
        port = self._port()
        if port is None:
            record.slot = False
        else:
            port._release_slot(record)

    def _retake_slot(self, record: "ThreadRecord") -> None:
        port = self._port()
        if port is not None:
            port._retake_slot(record)


class Abandonable(Protocol):
    """What a thread owns, and others get when it ends: a mutex."""

    def _abandon_locked(self, satisfied: list[Any]) -> None:
        """The owner has ended; add to `satisfied` the waits that this satisfies."""


UNCOUNTED = 2  # A slot: see `ThreadRecord.slot`.

Scopes: TypeAlias = "tuple[blocking, int, Scopes] | None"


class ThreadRecord:
    """The kernel's record of one thread. Used by the thread itself, except where a guard is named."""

    __slots__ = (
        "__weakref__",
        "alert",
        "apcs",
        "ended",
        "ident",
        "mutexes",
        "native",
        "port",
        "scopes",
        "slot",
        "waiting",
    )

    def __init__(self) -> None:
        self.ident: int = threading.get_ident()
        # Lets the record answer for `threading.Thread` objects without keeping them alive.
        self.native: weakref.ref[threading.Thread] = weakref.ref(threading.current_thread())
        # The port this thread is associated with: the one it last dequeued from, or tried to. At most one.
        self.port: SlotOwner | None = None
        # Guarded by the port's lock. True: this thread is counted in the port's `active`; False: it is not.
        # `UNCOUNTED`: it runs in the midst of its wait, and has a slot that only its pool knows (`pool/running.py`).
        self.slot: int = False
        # The scopes that the thread is inside: the innermost, whether it gave the slot back, and the rest.
        self.scopes: Scopes = None
        # True while the thread is inside a library wait that blocks. Written by the thread, read by any thread.
        self.waiting: bool = False
        # Guarded by `apc_lock`. First in, first out; dropped when the thread ends.
        self.apcs: deque[Callable[[], object]] = deque()
        # Guarded by `apc_lock`. Interrupts the alertable wait this thread is in, None outside one.
        self.alert: Callable[[], None] | None = None
        # Guarded by `apc_lock`.
        self.ended: bool = False
        # Guarded by `dispatcher_lock`. The mutexes that the thread owns.
        self.mutexes: set[Abandonable] = set()


def associate(record: ThreadRecord, port: SlotOwner) -> None:
    """The thread of `record`, which calls, belongs to `port` from now on: another one is left as if it ended there."""
    former = record.port
    if former is not None:
        former._release_slot(record)
    record.port = port


# Called with the record of each thread that first uses the library, or that ended; on that thread, holding
# nothing.
start_hooks: list[Callable[[ThreadRecord], None]] = []
end_hooks: list[Callable[[ThreadRecord], None]] = []


class _Departure:
    """Lives in the thread's local storage and nowhere else: its finalizer runs when the thread ends."""

    __slots__ = ("_pid", "_record")

    def __init__(self, record: ThreadRecord) -> None:
        self._record = record
        self._pid = os.getpid()

    def __del__(
        self, getpid: Callable[[], int] = os.getpid, is_finalizing: Callable[[], bool] = sys.is_finalizing
    ) -> None:
        # (The module's names may be gone when the main thread ends, as the interpreter shuts down.)
        # A forked child drops the storage of its parent's threads before any fork hook runs. They have not
        # ended, and the locks that they held will never be released here. Nor will those of the daemon threads that
        # the interpreter has stopped wherever they were, when the main thread ends as the last.
        if self._pid != getpid() or is_finalizing():
            return
        record = self._record
        port, record.port = record.port, None
        if port is not None:
            port._release_slot(record)
        for hook in end_hooks:
            hook(record)


class _Local(threading.local):
    def __init__(self) -> None:  # Runs once in each thread, at its first access.
        self.record: ThreadRecord = ThreadRecord()
        self.departure: _Departure = _Departure(self.record)
        records[self.record.ident] = self.record
        for hook in start_hooks:
            hook(self.record)


# By thread identifier, for APCs sent to a `threading.Thread` or an identifier. An identifier is reused only
# after its thread ended; the newer thread's record then replaces the older. Single-key operations only.
records: "weakref.WeakValueDictionary[int, ThreadRecord]" = weakref.WeakValueDictionary()

local: _Local = _Local()


def park(waiter: Waiter, timeout: float | None) -> bool:
    """Sleep in `Driver.wait`, the slot given back meanwhile; return whether the wait was satisfied."""
    if waiter.signalled:
        return True  # Nothing to block for: only a real wait gives the slot back.
    record = local.record
    port = record.port
    record.waiting = True
    try:
        if port is None or not record.slot:
            return driver().wait(waiter, timeout)
        try:
            port._release_slot(record)
            return driver().wait(waiter, timeout)
        finally:
            if record.port is not None:  # Another one by now, if the thread has dequeued there meanwhile.
                record.port._retake_slot(record)
    finally:
        record.waiting = False


class blocking:
    """A context manager that says "this thread blocks": its slot is free inside it.

    Use it around calls that block outside the library (a database query, `time.sleep`, file I/O), so that
    another thread of the port, or another worker of the pool, may run meanwhile. Leaving the scope takes the
    slot back at once, which may pass the concurrency value for a moment; the excess drains as threads come
    back for more. In a thread that is associated with no port the scope does nothing.

    Scopes nest, and a thread may dequeue inside one: the entry that gave the slot back is the one that takes
    it again, and a thread that has no slot at that time has none to give. One scope may be kept and entered
    by several threads at once, and again inside itself.

    Threads: what an entry gives back is the slot of the thread that enters. Blocks: never.
    Source: "I/O Completion Ports". Windows sees every blocking call; a library learns of them here, and
    counts its own waits by itself. A thread that blocks in any other way keeps its slot.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        record = local.record
        gives = record.slot
        if gives and record.port is not None:
            try:
                record.port._release_slot(record)
                if gives == UNCOUNTED:  # It has led meanwhile, perhaps.
                    driver().ensure_led()
            except BaseException:  # A signal handler raised: the scope was not entered.
                record.port._retake_slot(record)
                raise
        record.scopes = self, gives, record.scopes

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        record = local.record
        scopes = record.scopes
        gave = False
        while scopes:  # Once, but for scopes that were entered inside this one and not left before it.
            scope, given, scopes = scopes
            if given:
                gave = True
            if scope is self:
                break
        else:
            return  # This thread did not enter it: it collects another one's generator, for one.
        record.scopes = scopes
        if gave and record.port is not None:
            record.port._retake_slot(record)
