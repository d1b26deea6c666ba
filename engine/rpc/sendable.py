"""Which types a contract may have: those that can be decoded, and arrays only where they travel.

Looked at as a contract is bound or registered, because what is wrong shows otherwise in the midst of a call, or in what
msgspec says of a type without saying where it stands.
"""

import sys
from typing import Any

import msgspec

from transport import array_type, bare_type, is_array_type

from ..kernel.errors import InvalidParameter
from ..kernel.foreign import text_of


def check_type(what: str, kind: Any, alone: bool = True) -> None:
    """Raise `InvalidParameter` unless values of the type `kind` can be sent.

    Args: `what` has that type, for the error. `alone`: its values travel by themselves, and not among others; only
        then may they be arrays.
    """
    try:
        msgspec.msgpack.Decoder(kind)
    except (TypeError, ValueError, NameError) as error:
        raise InvalidParameter(f"{what} has a type that cannot be sent: {text_of(error)}") from None
    # Most programs have no arrays, and need not import what looks for them.
    if "numpy" in sys.modules and not (alone and array_type(kind) is not None) and _holds_array(kind):
        raise InvalidParameter(f"{what} has arrays inside another value, where they cannot travel")


def _holds_array(kind: Any) -> bool:
    """Whether a type is one of arrays, or has them inside."""
    from msgspec import inspect

    seen: set[int] = set()  # Types may contain themselves.

    def look(info: Any) -> bool:
        if isinstance(info, tuple):
            return any(map(look, info))
        if isinstance(info, inspect.CustomType):
            return is_array_type(bare_type(info.cls))
        if not isinstance(info, (inspect.Type, inspect.Field)) or id(info) in seen:
            return False
        seen.add(id(info))
        return any(look(getattr(info, name)) for name in info.__struct_fields__)

    return look(inspect.type_info(kind))
