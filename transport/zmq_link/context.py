"""The ZeroMQ context that links share, and what becomes of it when the process ends or forks."""

import os
import weakref
from contextlib import ExitStack
from typing import Any, Final

import zmq
from zmq.utils import garbage

from transport.errors import LinkClosed
from transport.lifecycle import Layer, at_exit, fork_safe, in_child
from transport.link import BaseLink
from transport.lock import Lock

#: Descriptors that a context and a link in it may need at once: 5 for the context, 2 or 3 for each of its sockets; and
#: some more, because they are needed by several threads.
ROOM: Final = 16

# Guards what follows.
_lock = Lock()
# Not zmq.Context.instance(): nothing terminates that, and when the process ends, messages on their way are
# lost, or their memory is freed under ZeroMQ's thread, which then aborts the process.
_shared: "zmq.Context[Any] | None" = None
_open_links: "weakref.WeakSet[BaseLink]" = weakref.WeakSet()
# The process is about to end: no new sockets.
_ending = False


def shared_context() -> "zmq.Context[Any]":
    """The context of all links that were not given one."""
    global _shared
    with _lock:
        if _ending:
            raise LinkClosed("the process is ending: no link can be opened any more")
        if _shared is None:
            _shared = zmq.Context()
            # A link has three sockets with its monitor; the default of 1023 would be 341 links.
            _shared.set(zmq.MAX_SOCKETS, 16384)
        return _shared


def look_for_room() -> None:
    """Raise `OSError` if so few descriptors are left that ZeroMQ might lack one, which ends the process.

    Others may take them meanwhile: this is a look, no reservation.
    """
    with ExitStack() as room:
        _open_many(room)


def _open_many(room: ExitStack) -> None:
    for _ in range(ROOM):
        room.enter_context(open(os.devnull, "rb", buffering=0))


def opened(link: BaseLink) -> None:
    """Have a link closed when the process ends."""
    _open_links.add(link)


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
    global _ending
    with _lock:
        _ending = True
    for link in list(_open_links):
        # A thread that has been holding this lock for so long hangs in the middle of something.
        if not link.lock.acquire(timeout=1.0):
            return
        try:
            link.close()
        finally:
            link.lock.release()
    if _shared is not None:
        # Bounded: every socket is closed, no other will be opened, and each lingers for a limited time.
        _shared.term()


def _forget() -> None:
    global _shared
    _shared = None
    _open_links.clear()


in_child(_forget)
# pyzmq does not see to this one, under which it starts the thread that frees what was sent without a copy.
fork_safe(garbage.gc._lock)
# Runs before pyzmq forgets what is being sent without a copy: `garbage` registered its own hook when it was
# imported above.
at_exit(Layer.LINKS, _at_exit)
