"""Classes that msgspec does not know, as a program says to write and read them.

`transport/wire/own_types.py` has them; here is what a program says it by.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from transport.foreign import shown
from transport.wire.own_types import learn

from ...errors import InvalidArgumentType
from ...kernel.checks import check_callable

T = TypeVar("T")


def register_type(kind: type[T], encode: Callable[[T], Any], decode: Callable[[type[T], Any], T]) -> None:
    """Have values of a class travel that msgspec does not know, and of those that derive from it.

        register_type(Fraction, encode=str, decode=lambda kind, text: kind(text))

    Args:
        encode: `encode(value)` returns what is sent: anything that travels.
        decode: `decode(kind, sent)` makes the value again: `kind` is the class that the annotation names. A `TypeError`
            or `ValueError` says that what was sent is none: the call ends with `BadStubData`.
    Both sides do so, before the contracts that use the class are bound or registered: best in the module of the
    contract. They then stand anywhere in arguments, results and elements of pipes, but for keys of a dict. Without a
    contract such values can be sent, and arrive as what `encode` has made of them.
    For the whole process. Registering again replaces. Threads: any. Blocks: never.
    Raises: `InvalidArgumentType` for what is no class, or no function.
    """
    if not isinstance(kind, type):
        raise InvalidArgumentType(f"kind must be a class, not {shown(kind, 100)}")
    check_callable("encode", encode)
    check_callable("decode", decode)
    learn(kind, encode, decode)
