"""Answers that fill buffers of the caller's: results by `into=`, `Out` and `InOut` parameters.

Theory of operation. `into=` is an output like those of the parameters, of the result. A call with such buffers gets an
operation spec of its own, whose decoder (`Filling`) writes into them. Completing decodes, so completing fills: nothing
is touched before, or by a call that failed. What travelled out of band is copied from the message into the buffer,
once. On the wire, an answer with parameters that are outputs is an array; one that fills `into` only is the result.

Guarantees: either all buffers of a call are filled or none; a result that does not fit changes nothing.

Source: "RpcAsyncCompleteCall" (when outputs are valid), "Receiving the Asynchronous Reply".
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from transport import Buffer
from transport.foreign import text_of, type_name
from transport.frames import Blob
from transport.wire.blobs import ValueDecoder

from ...errors import InvalidArgumentType
from ...status import Status
from ..contract.spec import OperationSpec
from ..errors import BadStubData


def filling(spec: OperationSpec, into: Any) -> OperationSpec:
    """Return a spec like `spec` whose result fills `into`: a writable buffer, or a tuple of them and of None.

    Raises: `InvalidArgumentType` if that is not what it is.
    """
    several = isinstance(into, tuple)
    what = f"the result of {spec.name}"
    items = into if several else (into,)
    slots = [None if several and item is None else _Bytes(what, item, _writable(item)) for item in items]
    return _decoded_by(spec, Filling(spec, slots, several, ()))


def with_outputs(begin: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function like a client's `begin`, for operations with outputs: it takes the buffers out."""

    def begin_with_outputs(
        spec: OperationSpec, args: tuple[Any, ...], kwargs: dict[str, Any] | None, *options: Any
    ) -> Any:
        values = list(spec.arrange(args, kwargs or {}))
        outputs: list[_Bytes | _Array] = []
        for output in spec.outputs:
            target = output.check(spec.name, values[output.position])
            values[output.position] = output.to_send(target)
            what = f"what {spec.name} returns for {output.name!r}"
            outputs.append(_Array(what, target) if output.is_array else _Bytes(what, None, target))
        into = spec.decode_result  # A call may have `into=` beside its outputs.
        given = (into.slots, into.several) if isinstance(into, Filling) else ([None], False)
        return begin(_decoded_by(spec, Filling(spec, *given, outputs)), tuple(values), None, *options)

    return begin_with_outputs


def _decoded_by(spec: OperationSpec, decoder: "Filling") -> OperationSpec:
    own = copy.copy(spec)
    own.decode_result = decoder
    own.decode_plain = decoder.__call__
    return own


class _Bytes:
    """A buffer of bytes: it takes any bytes, or array of its own type, that are not more than it has room for."""

    def __init__(self, what: str, given: Any, view: memoryview) -> None:
        self._what = what
        # The type of the items, if it is an array: the bytes of others would mean something else.
        self._dtype = getattr(given, "dtype", None)
        self._view = view

    def check(self, value: Any) -> memoryview:
        """Return the bytes to be copied. Raises `BadStubData` if they are not for this buffer."""
        dtype = self._dtype
        if dtype is not None and getattr(value, "dtype", dtype) != dtype:
            raise BadStubData(f"{self._what} is an array of {value.dtype}, the buffer of {dtype}")
        try:
            view = memoryview(value)
            part = view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())
        except (TypeError, ValueError, BufferError) as error:
            raise BadStubData(f"{self._what} cannot fill a buffer: {text_of(error)}") from error
        if part.nbytes > self._view.nbytes:
            raise BadStubData(
                f"{self._what} has {part.nbytes} bytes, the buffer has {self._view.nbytes}",
                status=Status.BUFFER_TOO_SMALL,
            )
        return part

    def fill(self, part: memoryview) -> memoryview:
        """Copy, and return the part that was filled."""
        filled = self._view[: part.nbytes]
        filled[:] = part
        return filled


class _Array:
    """An array, which takes one of the same type and shape."""

    def __init__(self, what: str, array: Any) -> None:
        self._what = what
        self._array = array

    def check(self, value: Any) -> Any:
        """Return the array to be copied. Raises `BadStubData` if it is not for this one."""
        own = self._array
        if not own.flags.writeable:
            raise BadStubData(f"{self._what} cannot fill the caller's array: that was made read-only meanwhile")
        if (value.dtype, value.shape) != (own.dtype, own.shape):
            raise BadStubData(
                f"{self._what} is {value.dtype}{list(value.shape)}, the caller's array is {own.dtype}{list(own.shape)}"
            )
        return value

    def fill(self, part: Any) -> Any:
        self._array[...] = part
        return self._array


class Filling(ValueDecoder[Any]):
    """Decodes an answer into buffers, and returns the result: of what fills `into`, the filled part as a view.

    Args:
        slots: what the parts of the result go into, None for what is just returned; `several`: the result is a tuple.
        outputs: what the contents of the parameters that are outputs go into.
    """

    def __init__(
        self, spec: OperationSpec, slots: Sequence[_Bytes | None], several: bool, outputs: Sequence[_Bytes | _Array]
    ) -> None:
        self.annotation: Any = spec.decode_result.annotation
        self.plain: Callable[[Buffer | msgspec.Raw], Any] = spec.decode_result.plain
        self._name = spec.name
        self._decode: Callable[..., Any] = spec.decode_outputs if outputs else spec.decode_result
        self.slots = slots
        self.several = several
        self._outputs = outputs

    def __call__(
        self, raw: Buffer | msgspec.Raw, blobs: Sequence[Buffer] = (), descriptors: Sequence[Blob] | None = None
    ) -> Any:
        contents: Sequence[Any] = ()
        if self._outputs:
            result, *contents = self._decode(raw, blobs, descriptors)
        elif descriptors and len(descriptors) == len(blobs) == 1 and not self.several and descriptors[0].kind == "b":
            result = blobs[0]  # Straight from the message.
        else:
            result = self._decode(raw, blobs, descriptors)
        values = result if self.several else (result,)
        if not isinstance(values, (tuple, list)) or len(values) != len(self.slots):
            raise BadStubData(f"the result of {self._name} has other parts than `into`, which has {len(self.slots)}")
        slots: list[Any] = [*self.slots, *self._outputs]
        pairs = zip(slots, (*values, *contents), strict=True)
        parts = [value if slot is None else slot.check(value) for slot, value in pairs]
        filled = [part if slot is None else slot.fill(part) for slot, part in zip(slots, parts, strict=True)]
        # The caller may want to resize what it passed, while it still has the call's handle.
        self._outputs = ()
        return tuple(filled[: len(self.slots)]) if self.several else filled[0]


def _writable(item: Any) -> memoryview:
    try:
        view = memoryview(item)
        if view.readonly or not view.c_contiguous:
            raise TypeError("it cannot be written, or not from end to end")
        return view.cast("B") if view.nbytes else memoryview(bytearray())
    except (TypeError, ValueError, BufferError) as error:
        raise InvalidArgumentType(
            f"into must be a writable buffer, or a tuple of them, not {type_name(item)}: {text_of(error)}"
        ) from error
