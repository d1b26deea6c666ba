"""What a signal handler may not do at once, because its own thread was interrupted under a lock, is done afterwards.

Theory of operation. An operation that is safe in a signal handler tries to do its work where it is. If it meets a lock
that its thread holds (`Deadlock`), nothing has been changed under that lock, and what is left to do goes to a thread of
its own. That thread waits for the lock like any other; the interrupted one lets go of it as soon as the handler
returns. If no thread can be had, the monitor asks again; if it cannot be had either, a thread that waits does what is
left.

Assumes: `append` and `popleft` of a deque are atomic, and starting a thread takes no lock that Python code can hold.
"""

import sys
import threading
from _thread import get_ident, start_new_thread
from collections import deque
from collections.abc import Callable

from transport.foreign import is_interrupt, shown
from transport.log import Log
from transport.realtime import monotonic

from .driver import driver
from .lock import any_owned

log: Log = Log("engine.kernel")

PAUSE = 0.01  # Seconds until a thread is asked for again.


def interrupting() -> bool:
    """Whether the caller is, or is called by, a signal handler that interrupted the engine under one of its locks."""
    if get_ident() != threading.main_thread().ident:
        return False  # Signal handlers run in the main thread.
    # Most callers can be told from their stack: nothing of the engine is below the first frame that is not its own.
    frame, outside = sys._getframe(1), False
    while True:
        if not frame.f_globals.get("__name__", "").startswith(("engine.", "transport.")):
            outside = True
        elif outside:
            return any_owned()
        if frame.f_back is None:
            return False
        frame = frame.f_back


# What `afterwards` was given; appended to by any thread, taken out by the threads that it starts.
_waiting: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()


def afterwards(function: Callable[..., object], *args: object) -> None:
    """Have `function(*args)` called soon, on a thread of its own. Safe in a signal handler. Blocks: never.

    For what a signal handler cannot do because its own thread was interrupted under a lock.
    """
    _waiting.append((function, args))
    try:
        start_new_thread(_call_waiting, ())
    except (RuntimeError, MemoryError):
        driver().monitor.call_soon(_start_again)


def _start_again() -> None:
    """No thread could be had for what waits. On the monitor's thread, or on a thread that stands in for it."""
    try:
        start_new_thread(_call_waiting, ())
    except (RuntimeError, MemoryError):
        monitor = driver().monitor
        if monitor.late and not any_owned():
            _call_waiting()
        else:
            monitor.call_at(monotonic() + PAUSE, _start_again)


def _call_waiting() -> None:
    while _waiting:
        try:
            function, args = _waiting.popleft()
        except IndexError:
            return  # Another thread took it.
        try:
            function(*args)
        except BaseException as error:
            if is_interrupt(error):  # In the main thread, which stands in for the monitor.
                raise
            log.error("%s failed, which a signal handler had asked for", shown(function), exc_info=error)
