"""What is done once, by one thread, and is gone on with if a signal handler has broken it off."""

from collections.abc import Callable
from typing import Any

from .lock import Lock


class Once:
    """Does something once: closing an object, say.

    While a thread does it, and when it was done, others find nothing to do. If an exception leaves it, the next one
    does it again: it has to skip by itself what was done before.
    """

    __slots__ = ("_by", "_lock")

    def __init__(self) -> None:
        self._lock = Lock()
        # Guarded by _lock: who does it, or has done it.
        self._by: object = None

    def do(self, function: Callable[..., object], *args: Any) -> None:
        """Call the function, unless a thread does or did; never blocks by itself."""
        me = object()
        try:
            with self._lock:
                if self._by is not None:
                    return
                self._by = me
            function(*args)
        except BaseException:
            if self._by is me:
                self._by = None
            raise
