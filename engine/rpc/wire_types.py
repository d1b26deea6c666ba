"""Which types a contract may have: those that the wire carries, and arrays only where they travel. Whether a value is
of such a type, and a text one that travels.

Types are looked at as a contract is bound or registered, because what is wrong shows otherwise in the midst of a call,
or in what msgspec says of a type without saying where it stands. `msgspec.inspect` says what a type is made of; a
class that it knows nothing of is a `CustomType` there, which msgspec would take for good until the first value comes.

The types that travel: None, `bool`, `int` (64 bits), `float`, `str`, `bytes`, `bytearray`, `memoryview`, `datetime`,
`date`, `time`, `timedelta`, `UUID`, `Decimal`, enums of ints or of texts, `Literal`; `list`, `tuple`, `set`,
`frozenset`, `dict`, and what `collections.abc` calls `Sequence`, `Set`, `Mapping` and the like; `NamedTuple`,
`TypedDict`, dataclasses, attrs classes without private fields, `msgspec.Struct`; unions that can be told apart by the
kind of value; `NewType`, `Annotated`, aliases, generics and types that contain themselves; `Any` and `object`, for
plain values; `msgspec.Raw` and `Ext`.
"""

import collections.abc
import enum
import typing
from functools import lru_cache
from typing import Any

import msgspec

from transport.foreign import is_interrupt, name_of, shown, text_of, type_name
from transport.frames import MAX_METADATA
from transport.wire.blobs import array_mismatch, array_type, array_unfit, bare_type, is_array_type, plain_scalar
from transport.wire.own_types import ways_of

from ..errors import InvalidArgumentType, InvalidParameter
from .context import Context

# What most contracts have: no need to look inside.
_PLAIN = frozenset((bool, bytes, float, int, object, str, type(None)))


class ParameterDirection(enum.Enum):
    """Which way the contents of a buffer go: the mark of a parameter that is an output, which is no part of a type."""

    OUT = "out"
    IN_OUT = "in, out"


def check_type(what: str, kind: Any, alone: bool = True, handles: bool = True) -> None:
    """Raise `InvalidParameter` unless values of the type `kind` can be sent.

    Args: `what` has that type, for the error. `alone`: its values travel by themselves, and not among others; only
        then may they be arrays. `handles`: there may be context handles inside.
    """
    if kind is Any or (type(kind) is type and kind in _PLAIN):
        return
    try:
        msgspec.msgpack.Decoder(kind)
        parts = _parts(kind)
    except BaseException as error:  # It runs whatever the types are made of.
        if is_interrupt(error):
            raise
        raise InvalidParameter(f"{what} has a type that cannot be sent, {spell(kind)}: {text_of(error)}") from None
    if alone and (array := array_type(kind)) is not None:
        if (why := array_unfit(kind)) is not None:
            raise InvalidParameter(f"{what} has a type that cannot be sent, {spell(kind)}: {why}")
        parts = [part for part in parts if bare_type(getattr(part, "cls", None)) is not array]
    for part in parts:
        if (why := _unfit(part, handles)) is not None:
            raise InvalidParameter(f"{what} has {why} (its type is {spell(kind)})")


def spell(kind: Any) -> str:
    """Write a type as a program would."""
    is_class = isinstance(kind, type) and typing.get_origin(kind) is None
    return name_of(kind) if is_class else text_of(kind).replace("typing.", "")


def _parts(kind: Any) -> list[Any]:
    """Return what msgspec says of a type and of all that is inside it, each once."""
    from msgspec import inspect  # Takes its time; programs with plain contracts never come here.

    parts: list[Any] = []
    seen: set[int] = set()  # Types may contain themselves.

    def look(info: Any) -> None:
        if isinstance(info, tuple):
            for each in info:
                look(each)
        elif isinstance(info, (inspect.Type, inspect.Field)) and id(info) not in seen:
            seen.add(id(info))
            parts.append(info)
            for name in info.__struct_fields__:
                look(getattr(info, name))

    look(inspect.type_info(kind))
    return parts


def _unfit(part: Any, handles: bool) -> str | None:
    """Return what is wrong with one part of a type, and what to do; None if nothing is."""
    from msgspec import inspect

    if isinstance(part, inspect.CustomType):
        kind = bare_type(part.cls)
        if kind is object:
            return None
        if ways_of(kind) is not None:
            return None
        if is_array_type(kind):
            return f"arrays inside another value, where they cannot travel ({spell(kind)})"
        return f"a type that cannot be sent, {spell(part.cls)}: {_instead(kind)}"
    if isinstance(part, inspect.StructType):
        if part.cls is msgspec.Struct:
            return "a type that cannot be sent, msgspec.Struct: name the Struct that is meant"
        if not handles and bare_type(part.cls) is Context:
            return "a context handle inside another value: make it a parameter of its own"
    if isinstance(part, (inspect.StructType, inspect.DataclassType, inspect.TypedDictType, inspect.NamedTupleType)):
        marked = next((name for name, hint in _fields_of(part.cls).items() if is_marked(hint)), None)
        if marked is not None:  # msgspec passes over the mark, and nothing would come back.
            return f"an output inside another value, {spell(part.cls)}.{marked}: make it a parameter of its own"
    if isinstance(part, inspect.DataclassType) and hasattr(part.cls, "__attrs_attrs__"):
        private = next((field.name for field in part.fields if field.name.startswith("_")), None)
        if private is not None:  # msgspec leaves them out, and the other side would have the default.
            return f"a type that cannot be sent, {spell(part.cls)}: its field {private} is private, so rename it"
    if isinstance(part, (inspect.SetType, inspect.FrozenSetType)) and (why := _unhashable(part.item_type)):
        return f"a set of what cannot be in a set, {why}: use a list, or what is frozen"
    if isinstance(part, inspect.DictType) and (why := _unhashable(part.key_type)):
        return f"a dict with keys that cannot be keys, {why}: use a tuple, or what is frozen"
    return None


def _fields_of(kind: Any) -> dict[str, Any]:
    """Return the annotations of a class, with what is added to them."""
    try:
        return typing.get_type_hints(bare_type(kind), include_extras=True)
    except BaseException as error:  # It runs what the annotations say; msgspec, which has read them, was content.
        if is_interrupt(error):
            raise
        return {}


def is_marked(annotation: Any) -> bool:
    """Whether there is a mark of an output anywhere in an annotation."""
    return any(isinstance(mark, ParameterDirection) for mark in getattr(annotation, "__metadata__", ())) or any(
        is_marked(part) for part in typing.get_args(annotation)
    )


def _unhashable(info: Any) -> str | None:
    """Return the name of what cannot be hashed in the type of a key, None if all can."""
    from msgspec import inspect

    if isinstance(info, (inspect.ListType, inspect.DictType, inspect.SetType, inspect.ByteArrayType)):
        return type(info).__name__.removesuffix("Type").lower()
    if isinstance(info, inspect.TypedDictType):
        return spell(info.cls)
    if isinstance(info, (inspect.DataclassType, inspect.StructType)):
        kind = bare_type(info.cls)
        config = getattr(kind, "__struct_config__", None)
        # A Struct has a `__hash__` that raises, unless it is frozen or compares by identity.
        hashable = kind.__hash__ is not None if config is None else config.frozen or not config.eq
        return None if hashable else spell(info.cls)
    inside = getattr(info, "item_types", getattr(info, "types", ()))
    if isinstance(info, inspect.VarTupleType):
        inside = (info.item_type,)
    return next((why for each in inside if (why := _unhashable(each)) is not None), None)


def _instead(kind: Any) -> str:
    """Say what to write in the place of a class that does not travel."""
    if not isinstance(kind, type):
        return "use a type that travels"
    if issubclass(kind, (collections.abc.Iterator, collections.abc.AsyncIterable)):
        return "use a list, or declare a pipe, `OutPipe[...]`, as a parameter of its own, to stream"
    for plain in (bool, int, float, str, bytes, dict, list, tuple, frozenset, set):
        if issubclass(kind, plain):
            return f"use {plain.__name__}"
    if hasattr(kind, "dtype"):
        return "use int, float, bool, str or bytes, which NumPy's scalars stand for"
    if issubclass(kind, collections.abc.Mapping):
        return "use dict"
    if kind is collections.deque or (kind.__module__ == "collections.abc" and hasattr(kind, "__iter__")):
        return "use list"
    return "use a dataclass, a TypedDict or a msgspec.Struct, convert it to text or numbers, or `register_type` it"


def enums_of(kind: Any) -> frozenset[type[enum.Enum]]:
    """Return the enums that a type has inside, or is."""
    try:
        return _enums_of(kind)
    except TypeError:  # It cannot be hashed.
        return _enums_of.__wrapped__(kind)


@lru_cache(maxsize=256)
def _enums_of(kind: Any) -> frozenset[type[enum.Enum]]:
    from msgspec import inspect

    return frozenset(part.cls for part in _parts(kind) if isinstance(part, inspect.EnumType))


# Whether a value is what an annotation says, looked at before it is sent. A peer decodes by the same annotation, and
# refuses what does not conform. Looking here says which argument or element it is, where the caller still knows.


def mismatch(value: Any, wanted: Any) -> str | None:
    """Return why `value` is not what `wanted` says; None if it is, or if only the encoder can tell."""
    if wanted is Any or type(value) is wanted:
        return None
    if wanted in (bytes, bytearray, memoryview):
        if isinstance(value, (bytes, bytearray, memoryview)):
            return None
    elif (array := array_type(wanted)) is not None and isinstance(value, array):
        return array_mismatch(wanted, value)
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


def first_mismatch(values: list[Any] | tuple[Any, ...], wanted: Any) -> str | None:
    """Return why the first of `values` that is not what `wanted` says is not; None if all are."""
    if wanted is Any or all(kind is wanted for kind in set(map(type, values))):
        return None
    return next((why for value in values if (why := mismatch(value, wanted)) is not None), None)


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


def check_metadata(value: dict[str, str], most_bytes: int | None = None) -> dict[str, str]:
    """Return a copy of `value`, of plain `str`, if it maps texts to texts that can be sent.

    Args: `most_bytes` of all of them together; None: any number.
    Raises: `InvalidArgumentType` if it does not, or they are too many or too long.
    """
    try:
        texts = dict(value.items())
        size = len("".join((*texts, *texts.values())).encode())
        # Texts of classes of their own, as of a template engine or an enum, do not travel as they are.
        plain = {str.__str__(name): str.__str__(text) for name, text in texts.items()}
    except (AttributeError, TypeError, ValueError) as error:
        why = text_of(error)
        raise InvalidArgumentType(f"metadata must be a dict of texts, not {shown(value, 100)}: {why}") from None
    if len(plain) > MAX_METADATA:
        raise InvalidArgumentType(f"metadata has {len(plain)} texts, {MAX_METADATA} are allowed")
    if most_bytes is not None and size > most_bytes:
        raise InvalidArgumentType(f"metadata of a connection takes {size} bytes, {most_bytes} are allowed")
    return plain
