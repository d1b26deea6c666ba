"""Times by which something is to be over, for what waits several times within one limit."""

from threading import TIMEOUT_MAX

from transport.realtime import monotonic


class Deadline:
    """When `timeout` seconds that begin now are over; None: never."""

    __slots__ = ("_when",)

    def __init__(self, timeout: float | None) -> None:
        self._when = None if timeout is None else monotonic() + timeout

    def left(self) -> float | None:
        """Return the seconds until then, 0.0 once it has passed, and what a thread can wait at most; None: no limit."""
        return None if self._when is None else min(max(self._when - monotonic(), 0.0), TIMEOUT_MAX)
