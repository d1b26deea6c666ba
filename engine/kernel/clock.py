"""Clocks: what timers read and are fired by, so that tests can replace time.

Theory of operation. A timer asks its clock to call a function at a *monotonic* time. Relative due times are
monotonic ones: they do not count time that the machine sleeps and do not move when the wall clock is set.
Absolute due times are wall times: a `WallCall` turns one into a monotonic time, and looks at the wall clock
again at least every `WALL_RECHECK` seconds, so that a clock that was set, or a machine that slept, is
noticed.

Guarantees: nothing is called before it is due, by the clock its due time belongs to.

Source: "SetWaitableTimer", "SetThreadpoolTimer", for the two forms of due time.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Protocol

from transport.foreign import number_of, shown, type_name
from transport.realtime import monotonic, time

from ..errors import InvalidArgumentType, InvalidParameter
from .driver import driver

WALL_RECHECK = 1.0  # Seconds by which an absolute timer may be late after the wall clock jumped. Arbitrary.

# Seconds from now, a duration, or an absolute time (a naive `datetime` is local time, as everywhere in
# Python).
Due = float | timedelta | datetime


class Cancellable(Protocol):
    """Something that was arranged to happen later."""

    def cancel(self) -> bool:
        """Withdraw it; True if it will not happen. Safe from any thread; never blocks."""


class Clock(Protocol):
    """A source of time that can call back."""

    def monotonic(self) -> float:
        """Seconds that only grow, from an arbitrary start."""

    def time(self) -> float:
        """Wall time: seconds since 1970 in UTC. It may be set, forwards and backwards."""

    def call_at(self, when: float, function: Callable[[], None]) -> Cancellable:
        """Call the quick `function` once at the monotonic time `when`, never early."""


class SystemClock:
    """The machine's clocks; functions are called on the engine's monitor thread."""

    def monotonic(self) -> float:
        """Seconds that only grow; on Linux they do not count time that the machine sleeps."""
        return monotonic()

    def time(self) -> float:
        """Wall time: seconds since 1970 in UTC."""
        return time()

    def call_at(self, when: float, function: Callable[[], None]) -> Cancellable:
        """Call `function` once at the monotonic time `when`, on the monitor thread."""
        return driver().monitor.call_at(when, function)


SYSTEM_CLOCK = SystemClock()


class WallCall:
    """Calls `function` once at the wall time `when` (seconds since 1970), never early by the wall clock."""

    __slots__ = ("_clock", "_function", "_step", "_when")

    def __init__(self, clock: Clock, when: float, function: Callable[[], None]) -> None:
        self._clock = clock
        self._when = when
        # None once called or withdrawn; a single load and store, as in the monitor's handles.
        self._function: Callable[[], None] | None = function
        self._step = self._arm()

    def _arm(self) -> Cancellable:
        left = min(max(self._when - self._clock.time(), 0.0), WALL_RECHECK)
        return self._clock.call_at(self._clock.monotonic() + left, self._look)

    def _look(self) -> None:
        if self._function is None:
            return
        if self._clock.time() < self._when:
            self._step = self._arm()
            return
        function, self._function = self._function, None
        if function is not None:
            function()

    def cancel(self) -> bool:
        """Withdraw; True if the function will not be called."""
        pending, self._function = self._function, None
        self._step.cancel()
        return pending is not None


def read_due(due: Due) -> tuple[float, bool]:
    """Read a due time.

    Returns: (seconds from now, False) or (seconds since 1970, True).
    Raises: `InvalidArgumentType`; `InvalidParameter` for a number of seconds that is negative, undefined, or more
        than a float can hold.
    """
    if isinstance(due, datetime):
        try:
            return due.timestamp(), True
        except (ValueError, OverflowError):
            # At either end of the calendar there is no local time. A day more or less does not matter there.
            return due.replace(tzinfo=UTC).timestamp(), True
    try:
        seconds = due.total_seconds() if isinstance(due, timedelta) else number_of(due)
    except OverflowError:
        seconds = -inf
    if seconds is None:
        raise InvalidArgumentType(f"due must be seconds, a timedelta or a datetime, not {type_name(due)}")
    if not seconds >= 0:  # So NaN is refused.
        raise InvalidParameter(
            f"due must be 0 or more seconds from now, not {shown(due)}; give a datetime for an absolute time"
        )
    return seconds, False


def call_when_due(clock: Clock, due: tuple[float, bool], function: Callable[[], None]) -> Cancellable:
    """Call `function` once at the due time that `read_due` read."""
    when, absolute = due
    return WallCall(clock, when, function) if absolute else clock.call_at(clock.monotonic() + when, function)
