"""Checks of what the program passes: numbers, times, truth values, functions, objects; and how long a limit lasts.

Each names the parameter and the value it saw. A bool is no number, and a number is no bool. A value out of range is an
`InvalidParameter`, an object of another type an `InvalidArgumentType`; where a number was wanted it is both, as it is
neither of the type nor in the range. Times may be real numbers of any type, and become Python's own.
"""

import sys
from collections.abc import Collection, Iterable
from datetime import timedelta
from functools import partial
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from math import inf
from threading import TIMEOUT_MAX
from types import FunctionType, MethodType
from typing import Any, TypeVar

from transport.foreign import name_of, number_of, shown, type_name
from transport.realtime import monotonic

from ..errors import EngineError, InvalidArgumentType, InvalidParameter

T = TypeVar("T")

ASYNC = CO_COROUTINE | CO_ASYNC_GENERATOR  # What marks the code of an `async def`.

LONGEST = sys.float_info.max  # Seconds: an int may be larger, and then fits no arithmetic with times.
MAX_THREADS = 1 << 16  # More than any system starts; arbitrary, so that a wrong number does not start threads for ever.


class NoNumber(InvalidArgumentType, InvalidParameter):
    """A number was wanted, and the value is none that would do."""


def check_names(owner: str, what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raise `InvalidArgumentType` for a name that is none of those `known`: it says which one may be meant, and all."""
    for name in given:
        if name not in known:
            from difflib import get_close_matches  # Who makes no mistake does without it.

            meant = get_close_matches(name, known, 1)
            asked = f" (did you mean {shown(meant[0])}?)" if meant else ""
            raise InvalidArgumentType(
                f"{owner} has no {what} {shown(name)}{asked}; it has {', '.join(known) or 'none'}"
            )


def check_flag(name: str, value: bool) -> bool:
    """Return `value` if it is True or False."""
    if value is not True and value is not False:
        raise InvalidArgumentType(f"{name} must be True or False, not {shown(value, 100)}")
    return value


def check_count(
    name: str, value: int, least: int = 0, most: int | None = None, *, raising: type[EngineError] | None = None
) -> int:
    """Return `value` if it is an int from `least` to `most`; else raise, of the kind `raising` if one is given."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value and (most is None or value <= most):
        return int.__int__(value)  # A plain one: others do not travel.
    bounds = f"of {least} or more" if most is None else f"from {least} to {most}"
    kind = InvalidParameter if isinstance(value, int) and not isinstance(value, bool) else NoNumber
    raise (raising or kind)(f"{name} must be an int {bounds}, not {shown(value, 100)}")


def check_timeout(timeout: float | None, name: str = "timeout") -> float | None:
    """Return `timeout` if it is None, or a number of seconds of 0 or more of whatever type, as a float."""
    if timeout is None:
        return None
    kind = type(timeout)
    # The comparison also refuses NaN; the other one what no float can hold.
    if (kind is float or kind is int) and 0 <= timeout < LONGEST:
        return timeout + 0.0
    return _seconds(name, timeout, "None or a number of seconds", inf)


class Deadline:
    """When `timeout` seconds that begin now are over, for what waits several times within them; None: never."""

    __slots__ = ("_when",)

    def __init__(self, timeout: float | None) -> None:
        self._when = None if timeout is None else monotonic() + timeout

    def left(self) -> float | None:
        """Return the seconds until then, 0.0 once it has passed, and what a thread can wait at most; None: no limit."""
        return None if self._when is None else min(max(self._when - monotonic(), 0.0), TIMEOUT_MAX)


def check_duration(name: str, value: float | timedelta, longest: float = inf) -> float:
    """Return a number of seconds, or a `timedelta`, of 0 or more as seconds."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    return _seconds(name, seconds, "seconds or a timedelta", longest)


def _seconds(name: str, value: float, wanted: str, longest: float) -> float:
    """Return a real number of whatever type as a float: what has `__float__` or `__index__`, but no bool, no array."""
    try:
        seconds = number_of(value)
    except OverflowError:
        raise InvalidParameter(f"{name} is larger than any float, {wanted} of 0 or more is wanted") from None
    if seconds is None:
        raise NoNumber(f"{name} must be {wanted} of 0 or more, not {shown(value, 100)}")
    if not 0 <= seconds <= longest:  # So NaN is refused.
        raise InvalidParameter(f"{name} must be {wanted} of 0 or more, not {shown(value, 100)}")
    return seconds


def check_text(name: str, value: str | None) -> None:
    """Raise unless `value` is a text, or None."""
    if value is not None and not isinstance(value, str):
        raise InvalidArgumentType(f"{name} must be a text, not {type_name(value)}")


def check_callable(name: str, value: object, *, optional: bool = False) -> None:
    """Raise unless `value` can be called, or is None where it is `optional`."""
    if not callable(value) and not (optional and value is None):
        raise InvalidArgumentType(f"{name} must be callable{' or None' if optional else ''}, not {type_name(value)}")


def check_callback(name: str, value: object, *, optional: bool = False) -> None:
    """Raise unless `value` can be called, and does its work when it is: the call of an `async def` only makes what
    would have to be awaited. None is good where it is `optional`.
    """
    kind = type(value)
    if kind is FunctionType:
        if value.__code__.co_flags & ASYNC:  # type: ignore[attr-defined]  # a function has it
            raise _never_run(name, value)
    elif not callable(value):
        check_callable(name, value, optional=optional)
    elif kind is MethodType or kind is partial:
        check_callback(name, value.__func__ if kind is MethodType else value.func)  # type: ignore[attr-defined]  # each has its own
    else:
        call = getattr(kind, "__call__")  # noqa: B004, B009  # its class's method is wanted, not whether it has one
        if type(call) is FunctionType and call.__code__.co_flags & ASYNC:
            raise _never_run(name, value)


def _never_run(name: str, function: object) -> InvalidArgumentType:
    return InvalidArgumentType(
        f"{name} must be an ordinary function, not the `async def` {name_of(function)}, which nobody would await here: "
        "pass a function that hands it to a loop, `asyncio.run_coroutine_threadsafe(function(...), loop)`"
    )


def check_kind(name: str, value: Any, kind: type[T], *, optional: bool = False) -> None:
    """Raise unless `value` is of the class `kind`, or None where it is `optional`."""
    if not isinstance(value, kind) and not (optional and value is None):
        wanted = f"{kind.__name__}{' or None' if optional else ''}"
        raise InvalidArgumentType(f"{name} must be of the type {wanted}, not {type_name(value)}")


def check_clock(clock: Any) -> None:
    """Raise unless `clock` has what a `Clock` has."""
    if not all(callable(getattr(clock, name, None)) for name in ("monotonic", "time", "call_at")):
        raise InvalidArgumentType(f"clock must be a Clock, not {type_name(clock)}")
