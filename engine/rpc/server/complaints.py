"""What clients can make a server log, at a rate that they cannot choose.

Theory of operation. The first line of a kind is logged at once. For `QUIET` seconds after it those of its kind are only
counted; then the last of them is logged, with how many were left out, and so on. So a stranger who sends garbage a
million times costs a line in some seconds, and the log shows the first one and the latest.

    first ---> line      second, third, ... ---> counted      after QUIET ---> line: the last of them, and how many

A kind is the text of the line without what is put into it.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from transport.log import Log
from transport.realtime import monotonic

from ...kernel.driver import driver
from ...kernel.lock import Lock

log: Log = Log("engine.rpc")

QUIET = 3.0  # Seconds between two lines of one kind; arbitrary.

_Line: TypeAlias = Callable[[str], None]  # Logs a line, with that behind it.


class Complaints:
    """The lines of one server, about all its clients. Threads: any, holding any lock but one that stands below."""

    def __init__(self) -> None:
        self._lock = Lock()
        # By kind: the last line that was left out since one was logged, and how many there were. Guarded by _lock.
        self._left_out: dict[str, tuple[_Line | None, int]] = {}

    def warning(self, message: str, *args: object) -> None:
        """Log a line that a client has caused. Locks may be held: it is handed over in any case."""
        self._log(message, lambda more: log.warning(message + more, *args, later=True))

    def error(self, message: str, *args: object, exc_info: BaseException, later: bool = False) -> None:
        """As `warning`, with an exception; of those that are left out only the last is kept. `later` as in `Log`."""
        self._log(message, lambda more: log.error(message + more, *args, exc_info=exc_info, later=later))

    def _log(self, kind: str, line: _Line) -> None:
        with self._lock:
            known = self._left_out.get(kind)
            self._left_out[kind] = (None, 0) if known is None else (line, known[1] + 1)
        if known is None:
            line("")
            self._go_on(kind)

    def _go_on(self, kind: str) -> None:
        driver().monitor.call_at(monotonic() + QUIET, partial(self._sum_up, kind))

    def _sum_up(self, kind: str) -> None:
        """The time is up: log how many were left out, if any were."""
        with self._lock:
            line, count = self._left_out.pop(kind)
            if line is not None:
                self._left_out[kind] = (None, 0)
        if line is not None:
            line(f"; {count - 1} more like it in the last {QUIET:g} s" if count > 1 else "")
            self._go_on(kind)
