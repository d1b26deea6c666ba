"""How the signals that end a process end a service that waits for them: its running calls are answered first.

Only in the main thread, where alone handlers can be set, and only for signals whose handler is still Python's own: an
application's handlers, and signals that it ignores, are its own business.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ...kernel.lock import each

# Seconds that the main thread may sleep in one go meanwhile: CPython runs the handler of a signal that came in the few
# instructions before a system call only when that call returns.
SIGNAL_LOOK = 1.0

# The signals that end a process, each with the handler that Python begins with.
_DEFAULTS: "dict[signal.Signals, Any]" = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}


@contextmanager
def ended_by_signals(stop: Callable[[], object], broken_off: Callable[[], object]) -> Iterator[None]:
    """Within this context the first SIGTERM or Ctrl-C calls `stop`, which must be safe in a signal handler.

    From then on both have Python's own handlers again, so that a second one takes effect at once: if it raises here,
    `broken_off` is called. When the context is left normally after a Ctrl-C, it raises `KeyboardInterrupt`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        put_back()
        stop()

    def put_back() -> None:
        for number in replaced:
            if signal.getsignal(number) is handle:  # Else the application has set its own meanwhile.
                signal.signal(number, _DEFAULTS[number])

    replaced = [number for number, default in _DEFAULTS.items() if signal.getsignal(number) == default]
    try:
        each(lambda number: signal.signal(number, handle), replaced)
        yield
    except BaseException:
        if received:
            broken_off()
        raise
    finally:
        put_back()
    if signal.SIGINT in received:
        raise KeyboardInterrupt
