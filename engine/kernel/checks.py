"""Checks of what the program passes: numbers, times, truth values, functions, objects.

Each names the parameter and the value it saw. A bool is no number, and a number is no bool. A value out of range is an
`InvalidParameter`, an object of another type an `InvalidArgumentType`; where a number was wanted it is both, as it is
neither of the type nor in the range.
"""

from datetime import timedelta
from math import inf
from typing import Any, TypeVar

from transport.foreign import shown, type_name

from .errors import EngineError, InvalidArgumentType, InvalidParameter

T = TypeVar("T")

MAX_THREADS = 1 << 16  # More than any system starts; arbitrary, so that a wrong number does not start threads for ever.


class NoNumber(InvalidArgumentType, InvalidParameter):
    """A number was wanted, and the value is none that would do."""


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
        return value
    bounds = f"of {least} or more" if most is None else f"from {least} to {most}"
    kind = InvalidParameter if isinstance(value, int) and not isinstance(value, bool) else NoNumber
    raise (raising or kind)(f"{name} must be an int {bounds}, not {shown(value, 100)}")


def check_seconds(name: str, value: float | None) -> float | None:
    """Return `value` as a float if it is a number of seconds of 0 or more, or None for ever."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NoNumber(f"{name} must be None or a number of seconds of 0 or more, not {shown(value, 100)}")
    return _seconds(name, value, "None or a number of seconds", inf)


def check_timeout(timeout: float | None, name: str = "timeout") -> None:
    """Raise unless `timeout` is None or a number of seconds of 0 or more: the quick form, for each wait."""
    try:
        # The comparison also refuses NaN.
        if timeout is None or (timeout + 0.0 >= 0.0 and timeout is not True and timeout is not False):
            return
    except (TypeError, OverflowError):
        pass
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise NoNumber(f"{name} must be None or a number of seconds, not {type_name(timeout)}")
    check_seconds(name, timeout)


def check_duration(name: str, value: float | timedelta, longest: float = inf) -> float:
    """Return a number of seconds, or a `timedelta`, of 0 or more as seconds."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise NoNumber(f"{name} must be seconds or a timedelta, not {type_name(value)}")
    return _seconds(name, seconds, "a number of seconds", longest)


def _seconds(name: str, value: float, wanted: str, longest: float) -> float:
    try:
        seconds = float(value)
    except OverflowError:
        raise InvalidParameter(f"{name} is larger than any float, {wanted} of 0 or more is wanted") from None
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


def check_kind(name: str, value: Any, kind: type[T], *, optional: bool = False) -> None:
    """Raise unless `value` is of the class `kind`, or None where it is `optional`."""
    if not isinstance(value, kind) and not (optional and value is None):
        wanted = f"{kind.__name__}{' or None' if optional else ''}"
        raise InvalidArgumentType(f"{name} must be of the type {wanted}, not {type_name(value)}")


def check_clock(clock: Any) -> None:
    """Raise unless `clock` has what a `Clock` has."""
    if not all(callable(getattr(clock, name, None)) for name in ("monotonic", "time", "call_at")):
        raise InvalidArgumentType(f"clock must be a Clock, not {type_name(clock)}")
