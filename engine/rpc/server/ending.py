"""How the signals that end a process end a service that waits for them: its running calls are answered first."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ...kernel.signal_handlers import SignalHandlers

# Seconds that the main thread may sleep in one go meanwhile: CPython runs the handler of a signal that came in the few
# instructions before a system call only when that call returns.
SIGNAL_LOOK = 1.0


@contextmanager
def ended_by_signals(stop: Callable[[], object], broken_off: Callable[[], object]) -> Iterator[None]:
    """Within this context the first SIGTERM or Ctrl-C calls `stop`, which must be safe in a signal handler.

    From then on both have Python's own handlers again, so that a second one takes effect at once: if it raises here,
    `broken_off` is called. When the context is left normally after a Ctrl-C, it raises `KeyboardInterrupt`. Where
    `SignalHandlers` sets no handlers, it does nothing.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        handlers.put_back()
        stop()

    handlers = SignalHandlers({"SIGTERM": handle, "SIGINT": handle})
    try:
        with handlers:
            yield
    except BaseException:
        if received:
            broken_off()
        raise
    if signal.SIGINT in received:
        raise KeyboardInterrupt
