"""How many file descriptors the process may still open, and what a server does when they are few.

Theory of operation. ZeroMQ accepts every connection that comes; without a descriptor left it aborts the process (ipc),
or tries again and again (tcp). So a server counts what is left as connections come, and on ipc, where its program may
use them up while none come, a thread counts once a second as well. Once no more are left than it keeps for other
things, it accepts none, until that thread finds that there are more again. One thread looks for all servers of the
process.

    open --few are left--> shut --half as many again as are kept--> open          any --close--> closed

Assumes: it is noticed in time. As many connections as are kept do not come before the first is noticed. (ZeroMQ accepts
one in some 30 us.) And a program does not use up, between two looks, all that was left, the kept ones too: if an ipc
client connects before the next look then, ZeroMQ ends the process. The system gives out the lowest number that is free,
so a high one says by itself that few are left; otherwise half of those that are left may come before they are counted
again.
"""

import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

from transport.lifecycle import in_child, snapshot
from transport.lock import Lock
from transport.log import Log
from transport.service import Service

log: Log = Log("transport")

#: So many descriptors are kept, see `to_keep`. Arbitrary: more than come before the first is noticed.
LEAST_KEPT = 64
MOST_KEPT = 1024
#: Seconds between two looks, while few are left and while there are enough. (A look takes some 60 us, waking included.)
PAUSE, LOOK = 0.1, 1.0


def limit() -> int:
    """How many descriptors this process may have."""
    try:
        import resource
    except ImportError:  # Windows: no limit that a process comes near to.
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def left() -> int:
    """How many descriptors this process may still open; 0 if none could be opened to count."""
    return max(0, limit() - _open_now())


def _open_now() -> int:
    with suppress(OSError):
        counted = os.stat("/proc/self/fd").st_size
        if counted:  # Linux 6.2 and later; elsewhere it is always 0. Listing a thousand takes 400 us.
            return counted
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(folder)) - 1  # Less the one that lists them.
        except FileNotFoundError:
            continue
        except OSError:
            return limit()
    return 0


def to_keep() -> int:
    """How many to keep for other things: an eighth of the limit, but no more than half of what is left now."""
    return min(max(LEAST_KEPT, limit() // 8), MOST_KEPT, left() // 2)


class Reserve:
    """The descriptors that a server keeps for other things than new connections.

    Args: shut, reopen: have no connection accepted, and have them accepted again; both under `lock`, which is the
        link's, and again for as long as it is so. `reopen` returns whether it could.
        watch: look also while no connection comes.
    """

    def __init__(
        self, name: str, lock: Lock, shut: Callable[[], None], reopen: Callable[[], bool], *, watch: bool
    ) -> None:  # fmt: skip
        self._name = name
        self._lock = lock
        self._shut = shut
        self._reopen = reopen
        self._watch = watch
        self._kept = to_keep()
        # How many connections may come before what is left is counted. Guarded by lock.
        self._uncounted = 0
        # How many were left when it was shut; None: it is open. Written under lock, read by the thread.
        self._few: int | None = None
        self._warned = False  # Of the thread alone.
        if watch:
            _watched.add(self)
            _looking.ensure()  # If it cannot be started the next connection that finds few tries again.

    def accepted(self, descriptor: int) -> None:
        """A connection has come. Under lock."""
        self._uncounted -= 1
        if self._uncounted < 0 or descriptor >= limit() - self._kept:
            self._counted(left())

    def close(self) -> None:
        """Look no longer. Under lock."""
        _watched.discard(self)
        _stirred.set()

    def _counted(self, left: int, looking: bool = False) -> None:
        """So many are left: shut it, or, if the thread is `looking`, reopen it, if it is time to. Under lock."""
        if left <= self._kept:
            first = self._few is None
            if first:  # Before a thread asks whether it is wanted.
                self._few = left
                _watched.add(self)
                _stirred.set()
            if _looking.ensure():
                self._shut()
            elif first:  # No thread would reopen it: the next connection tries again.
                self._accept_again()
        elif self._few is None:
            self._uncounted = (left - self._kept) // 2
        elif looking and left > self._kept + self._kept // 2 and self._reopen():  # By then the thread has warned.
            self._accept_again()
            self._uncounted = 0

    def _accept_again(self) -> None:
        self._few = None
        if not self._watch:
            _watched.discard(self)

    def look(self, found: int) -> bool:
        """So many are left, says the thread: warn once while it is shut. Return whether it is to look again soon."""
        few = self._few
        if few is not None and not self._warned:
            log.warning(
                "%s: only %d of %d file descriptors are left: new connections wait until more are free "
                "(RLIMIT_NOFILE, `ulimit -n`)", self._name, few, limit(),
            )  # fmt: skip
        self._warned = few is not None
        if few is not None or found <= self._kept:  # The lock is others' while nothing changes.
            try:
                with self._lock:
                    if self in _watched and self._few == few:  # Otherwise it is closed, or that is logged first.
                        self._counted(found, looking=True)
            except Exception as error:  # The other servers' turn comes all the same.
                log.error("%s: cannot go on to accept", self._name, exc_info=error)
                return False
        return self._few is not None


# Those that the thread looks after: on ipc while they are open or shut, others while they are shut. By single atomic
# operations. The thread keeps none of them alive while it waits: a server that is dropped is looked after no longer.
_watched: "weakref.WeakSet[Reserve]" = weakref.WeakSet()
# Set when the thread had better not wait any longer.
_stirred: threading.Event
_looking: Service


def _look() -> None:
    pause = LOOK
    while _watched:
        _stirred.wait(pause)
        _stirred.clear()
        pause = _look_at_all()


def _look_at_all() -> float:
    """Look once for all; return for how many seconds to wait then."""
    found = left()
    shut = [reserve.look(found) for reserve in snapshot(_watched)]
    return PAUSE if any(shut) else LOOK


@in_child
def _renew() -> None:
    """Begin with no server, and no thread."""
    global _stirred, _looking
    _watched.clear()
    _stirred = threading.Event()
    _looking = Service("transport:descriptors", _look, log.failed, more=lambda: bool(_watched), depended_on=False)


_renew()
