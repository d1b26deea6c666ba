"""Whether the thread that sent a call polls for the answer for a moment, before it sleeps: adaptive spinning.

Theory of operation. A call that is answered at once takes some 60 us; a processor that has halted meanwhile takes about
as long again to wake, twice a call. So while few calls are outstanding, a thread that sends and then waits does not
sleep for a moment (`Driver.spin_until`), provided that the last answer came within that moment. A slow server costs
one such moment, once. Of many outstanding calls, answers are there before anybody has to wait.

Not within one process: the server needs the interpreter that the waiting thread would keep busy.

All under link.lock.
"""

from transport.realtime import monotonic

from ...kernel.driver import driver

FEW_CALLS = 16
MOMENT = 0.0003  # Seconds; arbitrary: the quick calls of a machine that is not busy end within half of them.


class SpinPolicy:
    """What one connection knows of how soon its answers come."""

    __slots__ = ("_few", "_sent_at", "_swift")

    def __init__(self, local: bool) -> None:
        self._few = 0 if local else FEW_CALLS
        # When the last message left while few calls were outstanding, 0 if an answer has come since.
        self._sent_at = 0.0
        # Whether the last one that came so came within the moment.
        self._swift = True

    def sent(self, outstanding: int) -> None:
        """The calling thread sends a message while so many calls are outstanding."""
        if 0 < outstanding <= self._few:
            self._sent_at = now = monotonic()
            if self._swift:
                driver().spin_until(now + MOMENT)

    def answered(self) -> None:
        """Answers have come."""
        if self._sent_at:
            self._swift = monotonic() - self._sent_at < MOMENT
            self._sent_at = 0.0
