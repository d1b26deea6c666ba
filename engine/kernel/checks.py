"""Checks of what the program passes: numbers, truth values, functions, objects.

Each returns its value, or raises an error that names the parameter and the value: `InvalidArgumentType` for a type
that is wrong, `InvalidParameter` for a value that is out of range. A bool is no number, and a number is no bool.
"""

from transport.foreign import shown

from .errors import InvalidArgumentType


def check_flag(name: str, value: bool) -> bool:
    """Return `value` if it is True or False."""
    if value is not True and value is not False:
        raise InvalidArgumentType(f"{name} must be True or False, not {shown(value, 100)}")
    return value
