"""How fast is an operation of a server that runs? One thread keeps so many calls outstanding.

For a first idea: `perf` is the harness that measures pairs, and checks every answer.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from engine import CallError, Client, CompletionPort, SystemClock

now: Callable[[], float] = SystemClock().monotonic


class Measured(msgspec.Struct):
    """What was found: calls a second, and milliseconds from begin to the packet for 50, 99 of 100, and the slowest."""

    calls: int
    faults: int
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    slowest_ms: float


def measure(client: Client, interface: str, name: str, args: list[Any], calls: int, outstanding: int) -> Measured:
    """Make `calls` calls, with at most `outstanding` open at once. An error of a call is counted, not raised."""
    begin = getattr(client.bind(interface), name).begin
    took: list[float] = []
    faults = begun = 0
    with CompletionPort() as port:
        template = port.packet()
        start = now()
        while len(took) < calls:
            while begun < calls and begun - len(took) < outstanding:
                begin(*args, notify=template).user_data = now()
                begun += 1
            for packet in port.get_many(outstanding):
                call = packet.overlapped
                took.append(now() - call.user_data)
                try:
                    call.complete()
                except CallError:
                    faults += 1
        seconds = now() - start
    took.sort()
    p50, p99 = (took[int((len(took) - 1) * part)] * 1000 for part in (0.5, 0.99))
    return Measured(calls, faults, calls / seconds, p50, p99, took[-1] * 1000)
