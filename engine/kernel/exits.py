"""Threads, processes, futures and operations as things to wait for: signaled once they ended, and for good.

Theory of operation. Each gets one dispatcher object, made when it is first waited for and kept as long as it
lives. What it says is read from the thing itself, so it is never out of date; the rest is about hearing of
the end in time:

    future    its own done-callback; any object will do that has `done` and `add_done_callback`. These are code of
              others, so they are called before a wait, and never under a lock
    operation an event of its own; its source is polled from then on, whether it has a port or not
    process   a descriptor that becomes readable when it ends (pidfd, or multiprocessing's sentinel), as a
              source of the driver; where there is none, it is looked at repeatedly
    thread    Python notifies no other, so the monitor looks: soon after it ends if it has used the library, else
              every `LOOK_MAX` seconds at worst, and only while a thread waits

Source: "Wait Functions"; section 11 of `docs/semantics/completion-port.md`.
"""

import os
import select
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

from transport.realtime import monotonic

from .dispatcher import WaitBlock, decide, dispatcher_lock
from .driver import driver
from .lock import Lock
from .port_source import Services, SourceOperation
from .thread import ThreadRecord, end_hooks
from .waitable import Waitable, adapters

# Seconds between looks: doubling, so that a wait for long costs the monitor 0.1 %.
LOOK_FIRST, LOOK_MAX = 0.001, 0.02


class ExitWaitable(Waitable):
    """A foreign thing that ends once."""

    __slots__ = ()

    _foreign = True

    def prepare(self) -> None:
        """A wait is about to begin. Called with no lock held."""

    def _ended(self) -> bool:
        """Whether it has ended."""
        raise NotImplementedError  # Each kind of thing is asked in its own way; none is a plain `ExitWaitable`.

    def _signaled_locked(self, record: ThreadRecord | None) -> bool:
        return self._ended()

    def notify(self) -> None:
        """It has ended, or may have. Called with no lock held."""
        decide(self._release_locked)


class PolledExit(ExitWaitable):
    """One that is looked at repeatedly while a thread waits."""

    __slots__ = ("_looking", "_pause")

    def __init__(self) -> None:
        super().__init__()
        # Guarded by dispatcher_lock. Whether the monitor is going to look; how long until it looks again.
        self._looking = False
        self._pause = LOOK_FIRST

    def _watch(self) -> None:
        with dispatcher_lock:
            self._pause = LOOK_FIRST
            begin = not self._looking
            self._looking = True
        if begin:
            driver().monitor.call_at(monotonic() + LOOK_FIRST, self._look)

    def _look(self) -> None:
        self.notify()
        with dispatcher_lock:
            again = self._looking = bool(self._blocks)
            pause = self._pause
            self._pause = min(2 * pause, LOOK_MAX)
        if again:
            driver().monitor.call_at(monotonic() + pause, self._look)


class ThreadExit(PolledExit):
    __slots__ = ("_thread",)

    def __init__(self, thread: threading.Thread) -> None:
        super().__init__()
        self._thread = weakref.ref(thread)

    def _ended(self) -> bool:
        thread = self._thread()
        if thread is None:
            return True
        if thread.is_alive():
            return False
        try:
            thread.join(0)  # Tells one that has ended from one that has not started.
        except RuntimeError:
            return False
        return not thread.is_alive()

    def look_soon(self) -> None:
        """The thread is about to end: look at it as soon as it has, if a thread waits for it."""
        if self._blocks:
            with dispatcher_lock:
                self._pause = LOOK_FIRST
            driver().monitor.call_at(monotonic(), self._look)


class ProcessExit(PolledExit):
    """A process that is looked at: the platform offers no descriptor."""

    __slots__ = ("_poll",)

    def __init__(self, poll: Callable[[], object]) -> None:
        super().__init__()
        self._poll = poll

    def _ended(self) -> bool:
        return self._poll() is not None


class DescriptorExit(ExitWaitable):
    """A process with a descriptor that is readable once it has ended."""

    __slots__ = ("_wanted", "_fd", "_lock", "_poll", "_registered")

    def __init__(self, fd: int) -> None:
        super().__init__()
        # Ours to close; -1 once the process was seen to have ended.
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._lock = Lock()
        # Guarded by _lock. Whether the driver polls the descriptor, and whether it does so though no thread
        # waits.
        self._registered = False
        self._wanted = False

    def _ended(self) -> bool:
        return self._fd < 0 or bool(self._poll.poll(0))

    def _watch(self) -> None:
        with self._lock:
            if self._fd < 0:
                return
            register = not self._registered
            self._registered = True
        if register:
            try:
                driver().register(self)
            except OSError:  # No descriptor is left for the poll set: it is looked at until there is one.
                with self._lock:
                    self._registered = False
                driver().monitor.call_at(monotonic() + LOOK_MAX, self._look)
                return
        with self._lock:
            with dispatcher_lock:
                # Who waits with a callback or a packet does not drive anything.
                wanted = self._fd >= 0 and _any_asynchronous(self._blocks)
            if wanted != self._wanted:
                self._wanted = wanted
                driver().needs_progress(self, wanted)

    def _look(self) -> None:
        self.notify()
        with dispatcher_lock:
            again = bool(self._blocks)
        if again:
            self._watch()

    def descriptors(self) -> Sequence[int]:
        return (self._fd,)

    def drive(self, readable: bool) -> bool:
        if readable:
            driver().unregister(self)
            with self._lock:
                fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)
            self.notify()
        return False

    def __del__(self) -> None:
        fd = getattr(self, "_fd", -1)
        if fd >= 0:
            os.close(fd)


class Future(Protocol):
    """What counts as a future: `concurrent.futures` has one, as have Dask, gRPC and others."""

    def done(self) -> bool: ...
    def add_done_callback(self, fn: Callable[[Any], object], /) -> object: ...


class FutureEnd(ExitWaitable):
    __slots__ = ("_done", "_future", "_subscribed")

    _harvested = True

    def __init__(self, future: Future) -> None:
        super().__init__()
        self._future = weakref.ref(future)
        # Written without a lock, from False to True; two threads that do so at once give it a callback too many.
        self._done = False
        self._subscribed = False

    def prepare(self) -> None:
        if self._done:
            return
        future = self._future()
        if future is None or future.done():
            self._done = True
        elif not self._subscribed:
            future.add_done_callback(self._note_end)
            self._subscribed = True

    def _note_end(self, future: object) -> None:
        self._done = True
        self.notify()

    def _ended(self) -> bool:
        return self._done


class OperationEnd(ExitWaitable):
    """An operation of an overlapped source."""

    __slots__ = ("_operation",)

    def __init__(self, operation: SourceOperation) -> None:
        super().__init__()
        self._operation = weakref.ref(operation)
        operation.bind_wait(Services(), self)

    def _ended(self) -> bool:
        operation = self._operation()
        return operation is None or operation.done

    if TYPE_CHECKING:

        def set(self) -> None: ...
    else:
        set = ExitWaitable.notify


def _any_asynchronous(blocks: Iterable[WaitBlock]) -> bool:
    return any(block.asynchronous for block in blocks)


class _Reference(weakref.ref[Any]):
    """A key for one thing and no other: things may be equal and yet end at different times, or have no hash."""

    __slots__ = ("_id",)

    _id: int

    def __new__(cls, thing: object, callback: Callable[[Any], object] | None = None) -> Self:
        self = super().__new__(cls, thing, callback)
        self._id = id(thing)
        return self

    def __hash__(self) -> int:
        return self._id

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Reference) and (thing := self()) is not None and thing is other())


_lock = Lock()
# Guarded by _lock, but that an entry goes by itself when its thing does. One dispatcher object for each thing, which
# must not keep the thing alive.
_known: dict[_Reference, ExitWaitable] = {}


def _adapt(thing: object) -> Waitable | None:
    """Return the dispatcher object of a thread, process, future or operation; None for anything else."""
    make = _maker(thing)
    if make is None:
        return None
    with _lock:
        end = _known.get(_Reference(thing))
    if end is None:
        made = make(thing)
        with _lock:
            end = _known.setdefault(_Reference(thing, _forget), made)
    end.prepare()
    return end


def _forget(reference: _Reference) -> None:
    _known.pop(reference, None)


def _maker(thing: object) -> Callable[[Any], ExitWaitable] | None:
    kind = type(thing)
    if isinstance(thing, threading.Thread):
        return ThreadExit
    # There can be no object of a class whose module was not imported.
    subprocess = sys.modules.get("subprocess")
    if subprocess is not None and isinstance(thing, subprocess.Popen):
        return _of_popen
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and isinstance(thing, processes.BaseProcess):
        return _of_process
    if callable(getattr(kind, "bind_wait", None)):
        return OperationEnd
    if hasattr(kind, "_asyncio_future_blocking"):  # asyncio's: only the thread of its loop may touch it.
        return None
    if callable(getattr(kind, "done", None)) and callable(getattr(kind, "add_done_callback", None)):
        return FutureEnd if kind.__weakrefoffset__ else None
    return None


def _of_popen(popen: Any) -> ExitWaitable:
    if popen.poll() is None and hasattr(os, "pidfd_open") and hasattr(select, "poll"):
        try:
            # The identifier cannot have been given to another process: no thread has collected this one's exit
            # status.
            return DescriptorExit(os.pidfd_open(popen.pid))
        except OSError:
            pass  # No such call in this kernel, or no descriptor left.
    reference = weakref.ref(popen)

    def poll() -> object:
        found = reference()
        return True if found is None else found.poll()

    return ProcessExit(poll)


def _of_process(process: Any) -> ExitWaitable:
    reference = weakref.ref(process)

    def poll() -> object:
        found = reference()
        return True if found is None else found.exitcode

    if process.pid is None or process.exitcode is not None or not hasattr(select, "poll"):
        return ProcessExit(poll)
    if hasattr(os, "pidfd_open"):
        fd = -1
        try:
            fd = os.pidfd_open(process.pid)
            os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return DescriptorExit(fd)
        except OSError:  # No such call here, or no child of ours: a fork server's.
            if fd >= 0:
                os.close(fd)
    # Readable a moment before the exit status can be had, hence second choice.
    return DescriptorExit(os.dup(process.sentinel))


def _thread_ended(record: ThreadRecord) -> None:
    """A thread that has used the library is about to end: look at it soon, if a thread waits for it."""
    thread = record.native()
    with _lock:
        end = None if thread is None else _known.get(_Reference(thread))
    if isinstance(end, ThreadExit):
        end.look_soon()


adapters.append(_adapt)
end_hooks.append(_thread_ended)
