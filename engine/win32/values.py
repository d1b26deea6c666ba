"""What C has and Python has not: places for results, milliseconds that may be INFINITE, and FILETIMEs.

Source: "FILETIME", "GetSystemTimeAsFileTime", "SetWaitableTimer", "SetThreadpoolTimer" (the two forms of due time).
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from transport.foreign import name_of, shown, text_of, type_name

from .. import InvalidArgumentType
from ..kernel.checks import check_callback
from .constants import INFINITE

__all__ = ["Box", "GetSystemTimeAsFileTime"]

_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
_EPOCH_TO_1970 = 116_444_736_000_000_000  # 100 ns units.
_LAST = datetime.max.replace(tzinfo=UTC)
_UNITS = 10_000_000  # A second in units of 100 ns.


class Box:
    """A place for one value: what C passes the address of. Give it where a function stores a result.

    key = Box()
    GetQueuedCompletionStatus(port, size, key, overlapped, INFINITE)
    use(key.value)
    """

    __slots__ = ("value",)

    def __init__(self, value: Any = None) -> None:
        self.value: Any = value

    def __repr__(self) -> str:
        return f"Box({shown(self.value)})"


def GetSystemTimeAsFileTime() -> int:
    """Return the wall time as the number in a FILETIME: 100 ns units since 1601 in UTC."""
    return time.time_ns() // 100 + _EPOCH_TO_1970


def word(name: str, value: int) -> int:
    """Return `value` if it fits a DWORD; raises `TypeError` or `ValueError` for what no C program could pass."""
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type_name(value)}")
    if not 0 <= value <= 0xFFFFFFFF:
        raise ValueError(f"{name} must be from 0 to 0xFFFFFFFF, not {value}")
    return value


def routine(name: str, function: Any) -> Callable[..., object]:
    """Return a callback function; raises `TypeError` for what no C compiler would take for one, and for an `async def`,
    which nobody would await.
    """
    try:
        check_callback(name, function)
    except InvalidArgumentType as error:
        raise TypeError(text_of(error.args[0])) from None
    return function  # type: ignore[no-any-return]  # it was looked at


def named(callback: Callable[..., None], function: Callable[..., object]) -> Callable[..., None]:
    """Give a callback the name of the program's function that it calls: logs and `repr` show it by that."""
    callback.__qualname__ = name_of(function)
    return callback


def seconds(milliseconds: int) -> float | None:
    """Return a time limit as the engine wants it: in seconds, None for INFINITE."""
    word("the time limit", milliseconds)
    return None if milliseconds == INFINITE else milliseconds / 1000


def due_time(units: int) -> float | datetime:
    """Read a due time in 100 ns units: negative counts from now, positive is a FILETIME. Never early by rounding."""
    if not isinstance(units, int):
        raise TypeError(f"a due time must be an int, in units of 100 ns, not {type_name(units)}")
    if units < 0:
        return -units / _UNITS
    try:
        return _EPOCH + timedelta(microseconds=-(-units // 10))
    except OverflowError:
        return _LAST  # The year 10000, where Python's calendar ends, is as good as never.
