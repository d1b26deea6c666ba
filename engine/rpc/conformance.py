"""Whether a value is what an annotation says, looked at before it is sent.

A peer decodes by the same annotation, and would refuse what does not conform. Looking here says which argument or
element it is, where the caller still knows.
"""

from typing import Any

import msgspec

from transport.foreign import is_interrupt, text_of, type_name
from transport.wire.blobs import array_misfit, array_type, plain_scalar

from .wire_types import enums_of, spell


def misfit(value: Any, wanted: Any) -> str | None:
    """Return why `value` is not what `wanted` says; None if it is, or if only the encoder can tell."""
    if wanted is Any or type(value) is wanted:
        return None
    if wanted in (bytes, bytearray, memoryview):
        if isinstance(value, (bytes, bytearray, memoryview)):
            return None
    elif (array := array_type(wanted)) is not None and isinstance(value, array):
        return array_misfit(wanted, value)
    try:
        try:
            _convert(value, wanted)
        except msgspec.ValidationError:
            _convert(_as_sent(value, wanted), wanted)
    except msgspec.ValidationError as error:
        return f"must be {spell(wanted)}, not {type_name(value)}: {text_of(error)}"
    except TypeError:
        pass  # msgspec does not know the type; the encoder has the last word on the value.
    except BaseException as error:  # Looking runs the types' own code, which raises what it likes.
        if is_interrupt(error):
            raise
        return f"cannot be looked at: {type_name(error)}: {text_of(error)}"
    return None


def first_misfit(values: list[Any] | tuple[Any, ...], wanted: Any) -> str | None:
    """Return why the first of `values` that is not what `wanted` says is not; None if all are."""
    if wanted is Any or all(kind is wanted for kind in set(map(type, values))):
        return None
    return next((why for value in values if (why := misfit(value, wanted)) is not None), None)


def _convert(value: Any, wanted: Any) -> None:
    # Plain values only may stand for others (an int for a float); Structs and classes must be what they say.
    msgspec.convert(value, wanted, from_attributes=False, builtin_types=(bytes, bytearray, memoryview))


def _as_sent(value: Any, wanted: Any) -> Any:
    """Return `value` with what the encoder makes of NumPy's scalars, and of members of the enums that `wanted` has, in
    their places: `convert` knows neither.
    """
    enums = enums_of(wanted)

    def plain(part: Any) -> Any:
        kind = type(part)
        if kind in enums:
            return part.value
        if kind is dict:
            return {plain(key): plain(each) for key, each in part.items()}
        if kind in (list, tuple, set, frozenset):
            return kind(map(plain, part))
        return plain_scalar(part)

    return plain(value)
