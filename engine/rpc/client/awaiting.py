"""The calls that wait for a server to greet, and when each of them has waited too long."""

from collections import deque
from collections.abc import Callable

from transport.realtime import monotonic

from ...kernel.driver import driver
from ...kernel.monitor import TimerHandle


class AwaitingConnection:
    """A queue of call numbers, all with the same time limit, and the timer of the first.

    Args: `timeout` in seconds; None: they wait for ever. `expire` is called when the first has waited too long; it
        takes those that have with `take_expired_locked`.
    Guarded by the table's lock.
    """

    def __init__(self, timeout: float | None, expire: Callable[[], None]) -> None:
        self.timeout: float | None = timeout
        self._expire = expire
        # (when, call number), in order.
        self._calls: deque[tuple[float, int]] = deque()
        self._timer: TimerHandle | None = None

    def add_locked(self, call_id: int) -> None:
        """A call waits from now on."""
        if self.timeout is None:
            return
        self._calls.append((monotonic() + self.timeout, call_id))
        if self._timer is None:
            self._start_locked()

    def take_expired_locked(self) -> list[int]:
        """Return the calls that have waited too long, and start the timer of the next one."""
        now = monotonic()
        expired: list[int] = []
        while self._calls and self._calls[0][0] <= now:
            expired.append(self._calls.popleft()[1])
        self._timer = None
        if self._calls:
            self._start_locked()
        return expired

    def clear_locked(self) -> None:
        """A server has greeted: no call waits for one any more."""
        self._calls.clear()

    def stop_locked(self) -> None:
        """The client closes."""
        if self._timer is not None:
            self._timer.cancel()

    def _start_locked(self) -> None:
        self._timer = driver().monitor.call_at(self._calls[0][0], self._expire)
