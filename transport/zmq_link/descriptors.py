"""How many file descriptors the process may still open, and what a server does when they are few.

Theory of operation. ZeroMQ accepts every connection that comes; without a descriptor left it aborts the process (ipc),
or tries again and again (tcp). So a server counts what is left as connections come. Once no more are left than it keeps
for other things, it accepts none, until a thread that looks meanwhile finds that there are more again.

Assumes: a connection is noticed before as many have come as are kept. (ZeroMQ accepts one in some 30 us.) The system
gives out the lowest number that is free, so a high one says by itself that few are left; otherwise half of those that
are left may come before they are counted again.
"""

import os
import sys
import threading
from collections.abc import Callable
from functools import partial

from transport.lock import Lock
from transport.log import Log
from transport.service import Service

log: Log = Log("transport.zmq_link")

#: So many descriptors are kept, see `to_keep`. Arbitrary: more than come before the first is noticed.
LEAST_KEPT = 64
MOST_KEPT = 1024
#: Seconds between two looks for descriptors that are free again.
PAUSE = 0.1


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
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return max(0, limit() - len(os.listdir(folder)) + 1)  # Less the one that lists them.
        except FileNotFoundError:
            continue
        except OSError:
            return 0
    return sys.maxsize


def to_keep() -> int:
    """How many to keep for other things: an eighth of the limit, but no more than half of what is left now."""
    return min(max(LEAST_KEPT, limit() // 8), MOST_KEPT, left() // 2)


class Reserve:
    """The descriptors that a server keeps for other things than new connections.

    Args: shut, reopen: have no connection accepted, and have them accepted again; both under `lock`, which is the
        link's. `reopen` returns whether it could.
    """

    def __init__(self, name: str, lock: Lock, shut: Callable[[], None], reopen: Callable[[], bool]) -> None:
        self._name = name
        self._lock = lock
        self._shut = shut
        self._reopen = reopen
        self._kept = to_keep()
        # How many connections may come before what is left is counted. Guarded by lock.
        self._uncounted = 0
        # While it is shut: set to end the thread that looks. Guarded by lock.
        self._short: threading.Event | None = None

    def accepted(self, descriptor: int) -> None:
        """A connection has come. Under lock."""
        self._uncounted -= 1
        if self._uncounted < 0 or descriptor >= limit() - self._kept:
            free = left() - self._kept
            if free > 0:
                self._uncounted = free // 2
            else:
                self._run_short(free + self._kept)

    def close(self) -> None:
        """Look no longer. Under lock."""
        if self._short is not None:
            self._short.set()

    def _run_short(self, left: int) -> None:
        short = self._short
        if short is None:
            short = threading.Event()
            looking = Service("transport:descriptors", partial(self._look, short, left), log.failed, depended_on=False)
            if looking.ensure():  # If it cannot be started the next connection tries again.
                self._short = short
        if self._short is not None:
            self._shut()

    def _look(self, short: threading.Event, few: int) -> None:
        log.warning(
            "%s: only %d of %d file descriptors are left: new connections wait until more are free "
            "(RLIMIT_NOFILE, `ulimit -n`)", self._name, few, limit(),
        )  # fmt: skip
        while not short.wait(PAUSE):
            if left() <= self._kept + self._kept // 2:
                continue
            with self._lock:
                if short.is_set():
                    return
                if self._reopen():
                    self._short = None
                    self._uncounted = 0
                    return
