"""Whether a value is what an annotation says, looked at before it is sent.

A peer decodes by the same annotation, and would refuse what does not conform. Looking here says which argument or
element it is, where the caller still knows.
"""

from typing import Any

import msgspec

from transport import array_type, plain_scalar

from ..kernel.foreign import is_interrupt, name_of, text_of, type_name


def misfit(value: Any, wanted: Any) -> str | None:
    """Return why `value` is not what `wanted` says; None if it is, or if only the encoder can tell."""
    if wanted is Any or type(value) is wanted or _is_buffer_for(value, wanted):
        return None
    try:
        # Plain values only may stand for others (an int for a float); Structs and classes must be what they say.
        plain = plain_scalar(value)
        msgspec.convert(plain, wanted, from_attributes=False, builtin_types=(bytes, bytearray, memoryview))
    except msgspec.ValidationError as error:
        return f"must be {_spell(wanted)}, not {type_name(value)}: {text_of(error)}"
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


def _is_buffer_for(value: Any, wanted: Any) -> bool:
    """Whether `value` may travel where bytes or an array are asked for."""
    if wanted in (bytes, bytearray, memoryview):
        return isinstance(value, (bytes, bytearray, memoryview))
    array = array_type(wanted)
    return array is not None and isinstance(value, array)


def _spell(wanted: Any) -> str:
    return name_of(wanted) if isinstance(wanted, type) else text_of(wanted).replace("typing.", "")
