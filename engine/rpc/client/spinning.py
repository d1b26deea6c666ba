"""Adaptive spinning: whether a thread that has sent a call stays awake until the answer comes.

Theory of operation. A call that is answered at once takes some 60 us; a processor that has halted meanwhile takes about
as long again to wake, twice a call. So while few calls are outstanding, a thread that sends and then waits polls for a
moment before it sleeps (`Driver.spin_until`), if the last answer came within that moment. A slow server costs one such
moment, once. Of many outstanding calls, answers are there before a thread has to wait. Not within one process: the
server needs the interpreter that the waiting thread would keep busy.

What it takes is time in which a processor would have halted. Where none halts, because others compute, a thread that
stays awake takes the processor from the very server that it waits for: a call takes twice as long then, and three times
the processor time. So every `WINDOW` seconds the kernel is asked for how long the processors were idle meanwhile.

    spins  --idle for less than SCARCE of the time--> sleeps
    sleeps --idle for more than AMPLE of the time---> spins

Between these nothing changes: spinning itself takes idle time, so that one bound for both would have it begin and end
without end. Where the kernel does not say (elsewhere than on Linux) it spins.

All under link.lock.
"""

import os

SPIN_CALLS = 16  # Most of them outstanding.
SPIN_TIME = 0.0003  # Seconds; arbitrary: the quick calls of a machine that is not busy end within half of them.

WINDOW = 0.5  # Seconds: long enough for the hundredths of a second in which the kernel counts.
# Parts of the time of all processors. Measured on two: idle for 5 % and more while a client spins on a machine that
# has nothing else to do, for 25 % and more while it sleeps there, and for 1 % at the most where one other computes.
SCARCE = 0.02
AMPLE = 0.1

_COUNTS = "/proc/stat"
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Spinning:
    """What one connection knows of how soon answers come, and of how busy the machine is.

    Args: `most` outstanding calls for which a thread stays awake; 0: for none.
    """

    __slots__ = ("_idle", "_since", "due", "most", "scarce", "sent_at", "swift", "took")

    def __init__(self, most: int) -> None:
        self.most: int = most
        # When the last message left while few calls were outstanding, 0 if an answer has come since; and whether the
        # last answer that came so came within the moment.
        self.sent_at: float = 0.0
        self.swift: bool = True
        # How long that one took, in seconds; 0 once that was looked at, which any thread may do.
        self.took: float = 0.0
        # Others need the processors.
        self.scarce: bool = False
        # When it is time to `look` again; and since when the processors were idle for how long.
        self.due: float = 0.0
        self._since = self._idle = 0.0

    def look(self, now: float) -> None:
        """See how busy the machine was since the last look, if that was one window ago. It costs 20 us."""
        idle, processors = idle_time()
        lasted = now - self._since
        if lasted < 2 * WINDOW and processors:  # Of what is longer ago, others may have been the reason.
            part = (idle - self._idle) / (lasted * processors)
            self.scarce = part < (AMPLE if self.scarce else SCARCE)
        self._since, self._idle = now, idle
        self.due = now + WINDOW


def idle_time() -> tuple[float, int]:
    """For how many seconds the processors that this process may use have been idle, together; and how many they are.

    Returns: (0.0, 0) if the system does not say.
    """
    try:
        usable = {b"cpu%d" % number for number in os.sched_getaffinity(0)}
        with open(_COUNTS, "rb", buffering=0) as counts:
            rows = map(bytes.split, counts.readall().splitlines())
        # Idle, and idle while a disk is waited for.
        idle = [int(row[4]) + int(row[5]) for row in rows if row and row[0] in usable]
    except (AttributeError, OSError, ValueError, IndexError):
        return 0.0, 0
    return sum(idle) / _TICKS, len(idle)
