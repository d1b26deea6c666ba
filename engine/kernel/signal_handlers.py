"""Signal handlers that are set for a while, where the program has left Python's own.

Only in the main thread, where alone handlers can be set, and only for signals whose handler is still Python's own: an
application's handlers, and signals that it ignores, are its own business.
"""

import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

from .lock import each

# The handlers that Python begins with. Windows has no SIGHUP.
_DEFAULTS: dict[int, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
if hasattr(signal, "SIGHUP"):
    _DEFAULTS[signal.SIGHUP] = signal.SIG_DFL


class SignalHandlers:
    """Handlers that are in place within its context. Args: `handlers`, by the names of their signals."""

    def __init__(self, handlers: Mapping[str, Callable[..., object]]) -> None:
        wanted = {getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)}
        if threading.current_thread() is not threading.main_thread():
            wanted = {}
        self._handlers = {
            number: handler for number, handler in wanted.items() if signal.getsignal(number) == _DEFAULTS[number]
        }

    def __enter__(self) -> None:
        try:
            each(lambda number: signal.signal(number, self._handlers[number]), self._handlers)
        except BaseException:  # By a handler, that of a signal that has come already.
            self.put_back()
            raise

    def __exit__(self, *error: object) -> None:
        self.put_back()

    def put_back(self) -> None:
        """Give these signals Python's own handlers again; not one for which the program has set its own meanwhile."""
        each(self._put_back, self._handlers)

    def _put_back(self, number: int) -> None:
        if signal.getsignal(number) is self._handlers[number]:
            signal.signal(number, _DEFAULTS[number])
