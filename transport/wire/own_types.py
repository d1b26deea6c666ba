"""Types of a program's own, or of a library's, that msgspec does not know: how they are written, and read back.

Theory of operation. What is registered is asked by msgspec's hooks, where it meets a value or an annotation of a class
that it does not know. Decoders that are made before anything is registered have no hook: so a program that registers
nothing pays nothing, and types come before the contracts that use them.

Assumes: single keys of a `dict`.
"""

import typing
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from transport.foreign import type_name

T = TypeVar("T")

Encode = Callable[[Any], Any]
Decode = Callable[[type[Any], Any], Any]

# By class.
_known: dict[type, tuple[Encode, Decode]] = {}


def learn(kind: type, encode: Encode, decode: Decode) -> None:
    """From now on values of this class, and of those that derive from it, are written and read by these functions."""
    _known[kind] = encode, decode


def ways_of(kind: object) -> tuple[Encode, Decode] | None:
    """Return how values of a class are written and read; None if that was not registered."""
    if not _known or not isinstance(kind, type):
        return None
    return next((found for base in kind.__mro__ if (found := _known.get(base)) is not None), None)


def decoder(kind: Any) -> Callable[..., Any]:
    """Return what decodes values of that type."""
    return msgspec.msgpack.Decoder(kind, dec_hook=_read if _known else None).decode


def _read(kind: Any, value: Any) -> Any:
    known = typing.get_origin(kind) or kind
    ways = ways_of(known)
    if ways is not None:
        return ways[1](kind, value)
    if isinstance(value, known):
        return value
    raise TypeError(f"Expected `{known.__name__}`, got `{type_name(value)}`")
