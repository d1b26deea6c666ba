"""What measuring processes share: payloads, percentiles, processor time.

Kept free of everything heavy: it is loaded beside what is being measured.
"""

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ANSWER_TIMEOUT = 20.0  # Seconds that any one answer may take before the run fails.


class WrongAnswer(Exception):
    """A server's answer is not the one that the call asks for."""


def payloads(count: int, size: int = 64) -> list[bytes]:
    """Return `count` payloads of `size` bytes, each different: a serial number, then filling."""
    width = min(8, size)
    filling = bytes(range(33, 97)) * (size // 64 + 1)
    filling = filling[: size - width]
    return [serial.to_bytes(width, "little") + filling for serial in range(count)]


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of values in ascending order."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def spread_us(times_ns: list[int]) -> dict[str, float]:
    """Return the percentiles of durations in nanoseconds, in microseconds."""
    ordered = sorted(times_ns)
    return {f"p{percent:g}_us": percentile(ordered, percent) / 1000 for percent in (50, 90, 99, 99.9)}


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, to the nanosecond.

    `resource.getrusage` counts from the start of the process and cannot see another one's until it is dead;
    this is Linux's clock of a process, named by the formula of clock_getcpuclockid(3).
    """
    return time.clock_gettime((~pid << 3) | 2)


def family(pid: int) -> list[int]:
    """Return a process and all that it has started, and that have been started by those."""
    found = [pid]
    for member in found:
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class CpuMeter:
    """Processor time of some processes between `start` and `stop`."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self.seconds = 0.0

    def start(self) -> None:
        """Begin to count."""
        self._before = [cpu_seconds(pid) for pid in self._pids]

    def stop(self) -> list[float]:
        """Return the seconds that each process has used since `start`."""
        used = [cpu_seconds(pid) - before for pid, before in zip(self._pids, self._before, strict=True)]
        self.seconds = sum(used)
        return used


def calibrated(run: Any, seconds: float, first: int, most: int = 1 << 22) -> int:
    """Run `run(count)` for a warm-up, and return a count that takes about `seconds`.

    The warm-up grows until it takes a tenth of that time: the first calls of a process (imports, first
    connection, caches) say nothing of the later ones.
    """
    count = first
    while True:
        start = time.perf_counter()
        run(count)
        took = time.perf_counter() - start
        if took >= seconds / 10 or count >= most:
            return max(first, min(most, int(count * seconds / took)))
        count = min(most, count * 4)
