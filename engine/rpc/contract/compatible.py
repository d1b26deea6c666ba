"""Whether what a routine is annotated with can be right, given what its contract says.

Theory of operation. Annotations say more than can be decided here: generics, protocols, aliases, names that cannot be
read; and on the wire a tuple will do for a list, and a dict for a dataclass. So only what is wrong for sure is found: a
text where a number is said, a list where it is a text, two classes of records that have nothing to do with each other,
also inside of containers and unions. Type checkers find more: see `implements`.
"""

import collections.abc
import dataclasses
import types
import typing
from typing import Any

import msgspec

from ..pipes.pipe import Pipe

# Classes that stand for each other on the wire, by what they are there. A record is anything with fields.
_KINDS: dict[type, str] = {
    str: "text",
    types.NoneType: "nothing",
    **dict.fromkeys((bool, int, float), "number"),
    **dict.fromkeys((bytes, bytearray, memoryview), "bytes"),
    **dict.fromkeys((list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Set), "array"),
    **dict.fromkeys((dict, collections.abc.Mapping), "map"),
}
_RECORD = "record"
_AS_RECORDS = frozenset(("array", "map", _RECORD))  # What records are written as.


def contradicts(given: Any, taken: Any) -> bool:
    """Whether a value of the type `given` is none of the type `taken`, for sure."""
    given, taken = _bare(given), _bare(taken)
    if _is_union(given):
        return any(contradicts(part, taken) for part in typing.get_args(given))
    if _is_union(taken):
        return all(contradicts(given, part) for part in typing.get_args(taken))
    given_class, taken_class = typing.get_origin(given) or given, typing.get_origin(taken) or taken
    kinds = _kind(given_class), _kind(taken_class)
    if None in kinds:
        return False
    if kinds == (_RECORD, _RECORD):
        return not (issubclass(given_class, taken_class) or issubclass(taken_class, given_class))
    if kinds[0] != kinds[1]:
        return _RECORD not in kinds or not _AS_RECORDS.issuperset(kinds)
    inner, outer = typing.get_args(given), typing.get_args(taken)
    return len(inner) == len(outer) and any(map(contradicts, inner, outer))


def _kind(kind: Any) -> str | None:
    """Return what a class is on the wire; None for one of which that is not known."""
    if not isinstance(kind, type):
        return None
    if issubclass(kind, Pipe):
        return "pipe"
    is_record = issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind) or hasattr(kind, "__attrs_attrs__")
    return _RECORD if is_record else _KINDS.get(kind)


def _bare(annotation: Any) -> Any:
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):  # A `NewType`.
            annotation = annotation.__supertype__
        elif hasattr(annotation, "__value__"):  # What a `type` statement has made.
            annotation = annotation.__value__
        else:
            return types.NoneType if annotation is None else annotation


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)
