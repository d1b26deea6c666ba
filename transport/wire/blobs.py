"""Large values that travel out of band, and typed decoding of arguments and results.

A large `bytes`-like argument or an array is not copied into the MessagePack body: nil stands in its place,
the value travels as a frame of its own, and a `Blob` in the options says which place and what it is. On
arrival the frame's memory becomes the value: an array or a `memoryview` without a copy, `bytes` with one.

Guarantees: what comes out of here never aliases memory that its sender can change, and is read-only unless
the annotation asks for `bytearray`. Assumes: the caller leaves a buffer alone from the moment it hands it in until the
call is complete (as with any overlapped operation); only values that are encoded into the body are snapshots.
"""

import functools
import importlib
import math
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from transport.foreign import name_of
from transport.frames import MAX_DIMENSIONS, MAX_DTYPE, Blob, Buffer
from transport.wire.large import read_large
from transport.wire.own_types import decoder

T = TypeVar("T")

#: From this size on, bytes travel out of band. Measured, both sides together: a frame of its own costs 10 us;
#: copying into and out of the body costs 3 us at 32 KiB, 6 us at 64 KiB, 170 us at 128 KiB, when the
#: allocator turns to the system.
OOB_LIMIT: Final = 64 * 1024

#: Kinds of NumPy types whose items are plain memory. Left out: objects, and structures (their text does not
#: describe them).
_ARRAY_KINDS: Final = frozenset("biufcSUVmM?")

#: Kinds of NumPy scalars that a plain value can stand for: truth values, numbers, bytes and text.
_SCALAR_KINDS: Final = frozenset("biufSU")

_BYTES: Final = frozenset((bytes, bytearray, memoryview))

# What is known of argument types: True if values may have to leave the body. A cache of hasattr(), which is
# what costs. Unguarded: entries are only ever added or all dropped, and both are atomic; a lost one is found again.
_suspects: dict[type, bool] = {**dict.fromkeys(_BYTES, True), **dict.fromkeys((int, str, float, bool), False)}
_suspect = _suspects.get


def is_array_type(kind: object) -> bool:
    """Whether a class is one of arrays, as NumPy's is."""
    # NumPy's scalars have no length, but those that are text or bytes.
    return (
        isinstance(kind, type) and hasattr(kind, "dtype") and hasattr(kind, "shape") and hasattr(kind, "__len__")
        and not issubclass(kind, (str, bytes))
    )  # fmt: skip


def plain_scalar(value: Any) -> Any:
    """Return the number, text or bytes that a NumPy scalar stands for; anything else as it is."""
    kind = type(value)
    if hasattr(kind, "dtype") and not is_array_type(kind) and getattr(value.dtype, "kind", None) in _SCALAR_KINDS:
        plain = value.item()
        if type(plain) is not kind:  # As a number is that Python has no type for.
            return plain
    return value


def _is_suspect(kind: type) -> bool:
    if len(_suspects) > 4096:  # classes made on the fly: do not keep them alive for ever
        _suspects.clear()
        _suspects.update(dict.fromkeys(_BYTES, True))
    found = _suspects[kind] = is_array_type(kind)
    return found


def split_out_of_band(args: Sequence[Any]) -> tuple[list[object], list[Buffer], list[Blob]] | None:
    """Take the large values and arrays out of `args`.

    Returns: None if there are none (the usual case, and a cheap answer). Otherwise the arguments with None in
        their places, the blobs, and their descriptions in the same order.
    Raises: TypeError for an array whose items are not plain memory.
    """
    for value in args:
        kind = type(value)
        if kind is bytes:
            if len(value) >= OOB_LIMIT:
                return _split(args)
        elif _suspect(kind, True) and _leaves(value):
            return _split(args)
    return None


def _leaves(value: Any) -> bool:
    """Whether a value must leave the body: its type alone did not rule it out."""
    kind = type(value)
    if kind in _BYTES:
        view = memoryview(value)
        # What has gaps is copied as it leaves; the encoder does not take it.
        return view.nbytes >= OOB_LIMIT or not view.c_contiguous
    found = _suspects.get(kind)
    return found if found is not None else _is_suspect(kind)


def _split(args: Sequence[Any]) -> tuple[list[object], list[Buffer], list[Blob]]:
    rest = list(args)
    blobs: list[Buffer] = []
    descriptors: list[Blob] = []
    for position, value in enumerate(args):
        kind = type(value)
        if not _leaves(value):
            continue
        if kind is bytes or kind is bytearray:
            blob: Buffer = value
            descriptor = Blob(position, "b")
        elif kind is memoryview:
            view = memoryview(value)
            blob = view.cast("B") if view.c_contiguous else view.tobytes()
            descriptor = Blob(position, "b")
        else:
            blob, descriptor = _describe_array(position, value)
        rest[position] = None
        blobs.append(blob)
        descriptors.append(descriptor)
    return rest, blobs, descriptors


def _is_plain(dtype: Any) -> bool:
    """Whether arrays with items of this type travel."""
    return getattr(dtype, "kind", None) in _ARRAY_KINDS and getattr(dtype, "fields", None) is None


def _describe_array(position: int, array: Any) -> tuple[Buffer, Blob]:
    dtype = array.dtype
    if not _is_plain(dtype):
        raise TypeError(f"an array of {dtype} cannot travel, its items are not plain numbers or text")
    if hasattr(array, "mask"):
        raise TypeError("a masked array cannot travel, its mask would be lost: send `filled()`, or data and mask")
    if not dtype.itemsize and math.prod(array.shape):
        raise TypeError(f"an array of {dtype} cannot travel, its items take no bytes")
    descriptor = Blob(position, "a", dtype.str, tuple(int(extent) for extent in array.shape))
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(array, numpy.ndarray):
        # Through bytes, because some items (dates, long text) have no buffer format of their own.
        items = numpy.ascontiguousarray(array).reshape(-1)
        return (memoryview(items.view("u1")) if items.size and dtype.itemsize else b""), descriptor
    view = memoryview(array)
    return (view.cast("B") if view.c_contiguous and view.nbytes else view.tobytes()), descriptor


class ValueDecoder(Generic[T]):
    """Decodes one result to its annotation.

    Args: annotation: any type that msgspec decodes, or a buffer or array type. `Any` gives plain values.
    Threads: any, at once.
    """

    def __init__(self, annotation: Any = Any) -> None:
        self.annotation = annotation
        #: Decodes a result that is not out of band: the same as a call, with one step less.
        self.plain: Callable[[Buffer | msgspec.Raw], T] = decoder(annotation)

    def __call__(
        self, raw: Buffer | msgspec.Raw, blobs: Sequence[Buffer] = (), descriptors: Sequence[Blob] | None = None
    ) -> T:
        """Decode. Raises msgspec.ValidationError or msgspec.DecodeError if it is not what the annotation says."""
        if not descriptors:
            return self.plain(raw)
        if len(descriptors) != 1 or len(blobs) != 1:
            raise msgspec.ValidationError("a result is at most one out-of-band value, and its frame must be there")
        return _restore(descriptors[0], blobs[0], self.annotation, "the result")  # type: ignore[no-any-return]  # one R


class ArgsDecoder:
    """Decodes the arguments of a call to their annotations.

    Args: annotations: one for each parameter. required: how many a caller must send; None: all. The call's
        routine has defaults for the rest.
    Threads: any, at once.
    """

    def __init__(self, annotations: Sequence[Any], required: int | None = None) -> None:
        self.annotations: tuple[Any, ...] = tuple(annotations)
        self.required: int = len(self.annotations) if required is None else required
        #: Decodes all of them if none is out of band: the same as a call, with one step less.
        self.plain: Callable[[Buffer | msgspec.Raw], tuple[Any, ...]] = decoder(
            tuple[self.annotations]  # type: ignore[name-defined]  # made at run time
        )
        #: Decodes the arguments of several calls that all have all of them, in band.
        self.many: Callable[[Buffer | msgspec.Raw], list[tuple[Any, ...]]] = decoder(
            list[tuple[self.annotations]]  # type: ignore[name-defined]  # made at run time
        )
        # By (number of arguments, positions out of band): what is left to decode. Unguarded, as `_suspects`.
        self._others: dict[tuple[int, tuple[int, ...]], Callable[..., Any]] = {}

    def __call__(
        self, raw: Buffer | msgspec.Raw, blobs: Sequence[Buffer] = (), descriptors: Sequence[Blob] | None = None
    ) -> Sequence[Any]:
        """Decode. Returns a tuple or list, as long as the caller's.

        Raises: msgspec.ValidationError: names the argument's position, as in "Expected `int`, got `str` - at
            `$[1]`". msgspec.DecodeError: the bytes are not MessagePack.
        """
        if not descriptors:
            try:
                return read_large(self.plain, raw)
            except msgspec.ValidationError:
                count = array_length(raw)
                if not self.required <= count < len(self.annotations):
                    raise
            return read_large(self._other(count, ()), raw)
        count = array_length(raw)
        if not self.required <= count <= len(self.annotations):
            raise msgspec.ValidationError(f"Expected `array` of length {len(self.annotations)}, got {count}")
        positions = tuple(descriptor.position for descriptor in descriptors)
        if len(positions) != len(blobs):
            raise msgspec.ValidationError(f"{len(positions)} out-of-band arguments but {len(blobs)} frames")
        if len(set(positions)) != len(positions) or not all(0 <= position < count for position in positions):
            raise msgspec.ValidationError(f"out-of-band positions {positions} do not fit {count} arguments")
        args = list(read_large(self._other(count, positions), raw))
        for descriptor, blob in zip(descriptors, blobs, strict=True):
            position = descriptor.position
            args[position] = _restore(descriptor, blob, self.annotations[position], f"`$[{position}]`")
        return args

    def _other(self, count: int, positions: tuple[int, ...]) -> Callable[..., Any]:
        decode = self._others.get((count, positions))
        if decode is None:
            kinds = tuple(None if at in positions else kind for at, kind in enumerate(self.annotations[:count]))
            decode = decoder(tuple[kinds])  # type: ignore[valid-type]  # made at run time
            if len(self._others) >= 64:  # positions come from the peer: a bound, not a policy
                self._others.clear()
            self._others[count, positions] = decode
        return decode


def array_length(raw: Buffer | msgspec.Raw) -> int:
    """How many elements the encoded array has; -1 if it is none."""
    head = bytes(memoryview(raw)[:5])
    if head and head[0] & 0xF0 == 0x90:
        return head[0] & 0x0F
    if head[:1] == b"\xdc" and len(head) >= 3:
        return int.from_bytes(head[1:3])
    if head[:1] == b"\xdd" and len(head) == 5:
        return int.from_bytes(head[1:5])
    return -1


def bare_type(annotation: Any) -> Any:
    """Return the class that `annotation` stands for, without its parameters: `ndarray` for `NDArray[float64]`.

    Aliases made by `type` statements are followed; what is no alias and has no parameters comes back as it is.
    """
    while True:
        origin = typing.get_origin(annotation)
        if origin is not None:
            annotation = origin
        elif hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        else:
            return annotation


def unaliased(annotation: Any) -> Any:
    """Follow what `type` statements and `NewType` made, parameters included, up to the type that is meant."""
    while True:
        origin = typing.get_origin(annotation)
        if hasattr(origin, "__value__"):
            annotation = origin.__value__[typing.get_args(annotation)]
        elif hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        else:
            return annotation


def array_type(annotation: Any) -> Any:
    """Return the class of arrays that `annotation` asks for, as `NDArray[float64] | None` does; None: it does not."""
    return next(filter(is_array_type, map(bare_type, _members(annotation))), None)


def array_unfit(annotation: Any) -> str | None:
    """Why arrays can never arrive as `annotation`, an `array_type`, says; None if they can."""
    kind = array_type(annotation)
    numpy = sys.modules.get("numpy")
    if numpy is None or not issubclass(numpy.ndarray, kind):
        return "only NumPy's own arrays travel: use numpy.ndarray"
    items, _ = _asked_of_array(annotation)
    if items and not any(_may_travel(numpy, item) for item in items):
        return "arrays of such items do not travel, they are not plain numbers or text"
    return None


def array_mismatch(annotation: Any, array: Any) -> str | None:
    """Why an array is not what `annotation`, as in `NDArray[float64]`, says of its items and dimensions; None if it is.

    The order of the bytes of an item does not matter.
    """
    if not _is_plain(array.dtype):
        return f"is an array of {array.dtype} and cannot travel, its items are not plain numbers or text"
    items, dimensions = _asked_of_array(annotation)
    if items and not issubclass(array.dtype.type, items):
        names = " or ".join(item.__name__ for item in items)
        return f"must be an array of {names}, not of {array.dtype}: convert it with `astype`"
    if dimensions is not None and len(array.shape) != dimensions:
        return f"must be an array of {dimensions} dimensions, not of {len(array.shape)}"
    return None


def _asked_of_array(annotation: Any) -> tuple[tuple[type, ...], int | None]:
    """The types of items that an array may have, () for any, and how many dimensions, None for any number."""
    try:
        return _asked(annotation)
    except TypeError:  # It cannot be hashed.
        return _asked.__wrapped__(annotation)


@functools.lru_cache(maxsize=256)
def _asked(annotation: Any) -> tuple[tuple[type, ...], int | None]:
    for kind in _members(annotation):
        kind = unaliased(kind)
        parameters = typing.get_args(kind)
        if len(parameters) == 2 and is_array_type(bare_type(kind)):
            shape, dtype = parameters
            items = [item for part in typing.get_args(dtype) for item in _members(part)]
            extents = typing.get_args(shape)
            known = bool(items) and all(isinstance(item, type) and item is not Any for item in items)
            fixed = typing.get_origin(shape) is tuple and Ellipsis not in extents
            return (tuple(items) if known else (), len(extents) if fixed else None)
    return (), None


def _members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; of anything else, itself."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _may_travel(numpy: Any, item: type) -> bool:
    """Whether some arrays of the type `item`, which may be an abstract one, travel."""
    dtypes = map(numpy.dtype, numpy.typecodes["All"])
    return any(issubclass(dtype.type, item) for dtype in dtypes if dtype.kind in _ARRAY_KINDS)


def _restore(descriptor: Blob, blob: Buffer, annotation: Any, where: str) -> Any:
    """Make the value out of its frame; without a copy, unless a type of its own is asked for."""
    if descriptor.kind == "b":
        if annotation is memoryview:
            return memoryview(blob).toreadonly()
        if annotation is bytearray:
            return bytearray(blob)
        value = bytes(blob)  # the same object if it is bytes already
        if annotation is bytes or annotation is Any or annotation is object:
            return value
        return msgspec.convert(value, annotation, builtin_types=(bytes,))
    if descriptor.kind == "a":
        return _restore_array(descriptor, blob, annotation, where)
    raise msgspec.ValidationError(f"unknown out-of-band kind {descriptor.kind!r} - at {where}")


def _restore_array(descriptor: Blob, blob: Buffer, annotation: Any, where: str) -> Any:
    if annotation is memoryview:
        return memoryview(blob).toreadonly()
    if annotation is bytes:
        return bytes(blob)
    try:
        numpy: Any = importlib.import_module("numpy")  # not a dependency: who sends arrays has it
    except ImportError:
        raise msgspec.ValidationError(f"an array arrived, and NumPy is not installed - at {where}") from None
    kind = numpy.ndarray if annotation is Any or annotation is object else array_type(annotation)
    if kind is None or not issubclass(numpy.ndarray, kind):
        raise msgspec.ValidationError(f"Expected `{name_of(annotation)}`, got an array - at {where}")
    try:
        dtype = _plain_dtype(numpy, descriptor.dtype)
        if _bytes_of(descriptor.shape, dtype, descriptor.dtype) != len(blob):
            shape = list(descriptor.shape)
            raise ValueError(f"{len(blob)} bytes do not fill shape {shape} of {descriptor.dtype!r}")
        array = numpy.ndarray(descriptor.shape, dtype, blob)
        if (why := array_mismatch(annotation, array)) is not None:
            raise ValueError(why)
    except (TypeError, ValueError, SyntaxError) as error:
        raise msgspec.ValidationError(f"{error} - at {where}") from None
    array.flags.writeable = False
    return array


def _plain_dtype(numpy: Any, text: str) -> Any:
    """The type of items that `text` says, if arrays of it travel."""
    if len(text) > MAX_DTYPE:  # NumPy would read it as a list of fields.
        raise ValueError(f"a type of {len(text)} characters, {MAX_DTYPE} are allowed")
    dtype = numpy.dtype(text)
    if dtype.kind not in _ARRAY_KINDS or dtype.fields is not None or dtype.subdtype is not None:
        raise ValueError(f"arrays of {text!r} do not travel")
    return dtype


def _bytes_of(shape: Sequence[int], dtype: Any, text: str) -> int:
    """How many bytes an array of a peer's has.

    Raises: ValueError if it has more dimensions than NumPy allows, or items without any bytes: nothing that came bounds
        how many there are.
    """
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"an array of {len(shape)} dimensions, {MAX_DIMENSIONS} are allowed")
    count = math.prod(shape)
    if count and not dtype.itemsize:
        raise ValueError(f"an array of {count} items of {text!r}, which take no bytes")
    return count * int(dtype.itemsize)


def empty_array(dtype: str, shape: Sequence[int], max_bytes: int) -> Any:
    """Return a NumPy array of zeros, of the type and shape that a peer asks for.

    Raises: ValueError if there is no such array, or it has more than `max_bytes`.
    """
    try:
        numpy: Any = importlib.import_module("numpy")  # not a dependency: who sends arrays has it
        items = _plain_dtype(numpy, dtype)
    except (ImportError, TypeError, SyntaxError) as error:
        raise ValueError(str(error)) from None
    if _bytes_of(shape, items, dtype) > max_bytes:
        raise ValueError(f"an array of shape {list(shape)} of {dtype!r}, {max_bytes} bytes are allowed")
    return numpy.zeros(tuple(shape), items)
