"""The ZeroMQ context that links share, and what becomes of it when the process ends or forks."""

import atexit
import os
import threading
import weakref
from typing import Any

import zmq
from zmq.utils import garbage

from transport.link import BaseLink

# Guards what follows.
_lock = threading.Lock()
# Not zmq.Context.instance(): nobody terminates that, and when the process ends, messages on their way are
# lost, or their memory is freed under ZeroMQ's thread, which then aborts the process.
_shared: "zmq.Context[Any] | None" = None
_open_links: "weakref.WeakSet[BaseLink]" = weakref.WeakSet()
_longest_linger = 0.0


def shared_context() -> "zmq.Context[Any]":
    """The context of all links that were not given one."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = zmq.Context()
            # A link has three sockets with its monitor; the default of 1023 would be 341 links.
            _shared.set(zmq.MAX_SOCKETS, 16384)
        return _shared


def opened(link: BaseLink, linger: float) -> None:
    """Have a link closed when the process ends, which then waits up to `linger` seconds for its messages."""
    global _longest_linger
    with _lock:
        _open_links.add(link)
        _longest_linger = max(_longest_linger, linger)


def name_collector() -> None:
    """Start pyzmq's thread that frees what was sent without a copy, and name it.

    pyzmq would start it by itself.
    """
    collector = garbage.gc
    collector.refs.pop(collector.store(None), None)
    if collector.thread is not None:
        collector.thread.name = "transport:sent-buffers"


def _at_exit() -> None:
    """Close what is open, and wait until what was handed over has left, for the longest linger time."""
    for link in list(_open_links):
        # A thread that has been holding this lock for so long hangs in the middle of something.
        if not link.lock.acquire(timeout=1.0):
            return
        try:
            link.close()
        finally:
            link.lock.release()
    if _shared is not None:
        # It returns when every socket is closed and has lingered; a link opened just now by another thread
        # would keep it for ever.
        waiting = threading.Thread(target=_shared.term, name="transport:last-messages", daemon=True)
        waiting.start()
        waiting.join(_longest_linger + 1.0)


def _after_fork_in_child() -> None:
    global _shared, _lock
    _shared = None
    _lock = threading.Lock()
    _open_links.clear()


# Runs before pyzmq forgets what is being sent without a copy: `garbage` registered its own hook when it was
# imported above.
atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork_in_child)
