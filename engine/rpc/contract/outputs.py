"""Output buffers: `[out]` and `[in, out]` parameters, supplied by the caller and filled when the call is completed.

    class Camera(Interface):
        @operation
        def grab(self, exposure: float, frame: Out[numpy.ndarray]) -> int: ...
        @operation
        def scramble(self, key: bytes, data: InOut[bytearray]) -> None: ...

Theory of operation. A parameter annotated `Out[...]` or `InOut[...]` is a buffer of the caller's. For an `Out` the
request says only how large it is, and the routine gets a buffer of its own of that size, zeroed; for an `InOut` the
request carries the contents, and the routine gets them in a buffer that it may write (`server/outputs.py`). When the
call is answered, the reply is an array of the result and of each buffer's contents. Completing decodes it, and decoding
fills the caller's buffers (`client/buffers.py`). What is large travels out of band, without a copy but the one that
fills the caller's buffer.

    caller's buffer -> size or contents ~~~ the routine's buffer -> contents ~~~ complete -> caller's buffer

Source: "RpcAsyncCompleteCall" (when outputs are valid), "out", "in", "Declaring Asynchronous Functions".
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from transport.foreign import name_of, text_of, type_name
from transport.frames import MAX_MESSAGE_BYTES
from transport.wire.blobs import array_mismatch, bare_type, empty_array, is_array_type

from ...errors import InvalidArgumentType, InvalidParameter
from ..wire_types import ParameterDirection, is_marked

T = TypeVar("T")


# For type checkers these are the types themselves: a caller passes a `bytearray` for an `Out[bytearray]`.
Out = Annotated[T, ParameterDirection.OUT]
InOut = Annotated[T, ParameterDirection.IN_OUT]

# The size of a buffer on the wire: in bytes, or for an array the type of its items and its shape.
BufferSize = int | tuple[str, tuple[int, ...]]


class OutputSpec:
    """One parameter that is a buffer of the caller's: where it stands, which way it goes, what the routine gets."""

    __slots__ = ("annotation", "direction", "is_array", "kind", "name", "position")

    def __init__(self, operation: str, name: str, position: int, kind: Any, direction: ParameterDirection) -> None:
        origin = bare_type(kind)
        self.name: str = name
        self.position: int = position
        self.direction: ParameterDirection = direction
        self.annotation: Any = kind
        self.kind: Any = origin
        self.is_array: bool = is_array_type(origin)
        if not self.is_array and origin not in (bytearray, memoryview):
            raise InvalidParameter(
                f"{operation}: parameter {name!r} is an output, and must be of bytearray, memoryview or numpy.ndarray, "
                f"not {name_of(kind)}"
            )

    @property
    def sent(self) -> Any:
        """What stands in its place in a request."""
        if self.direction is ParameterDirection.OUT:
            return BufferSize
        return self.annotation if self.is_array else bytearray

    @property
    def returned(self) -> Any:
        """What stands in its place in a reply."""
        return self.kind if self.is_array else memoryview

    def check(self, operation: str, value: Any) -> Any:
        """Return the buffer `value` as what is to be filled: an array, or a view of bytes."""
        try:
            if self.is_array:
                if not isinstance(value, self.kind):
                    raise TypeError("it is no array")
                if not value.flags.writeable:
                    raise TypeError("it is read-only")
                if hasattr(value, "mask"):
                    raise TypeError("it is masked: fill its data")
                if (why := array_mismatch(self.annotation, value)) is not None:
                    raise TypeError(f"it {why}")
                size = value.nbytes
            else:
                view = memoryview(value)
                if view.readonly:
                    raise TypeError("it is read-only")
                if not view.c_contiguous:
                    raise TypeError("it has gaps")
                value = view.cast("B") if view.nbytes else memoryview(bytearray())
                size = value.nbytes
        except (TypeError, ValueError, BufferError) as error:
            wanted = self.kind.__name__ if self.is_array else "buffer"
            raise InvalidArgumentType(
                f"{operation}: parameter {self.name!r} must be a writable {wanted}, not {type_name(value)}: "
                f"{text_of(error)}"
            ) from None
        if size > MAX_MESSAGE_BYTES:
            raise InvalidArgumentType(
                f"{operation}: parameter {self.name!r} is a buffer of {size} bytes, a message has {MAX_MESSAGE_BYTES} "
                "at the most: pass a part of it"
            )
        return value

    def to_send(self, target: Any) -> Any:
        """What is sent of the checked buffer."""
        if self.direction is ParameterDirection.IN_OUT:
            return target
        return (target.dtype.str, target.shape) if self.is_array else target.nbytes

    def to_work_on(self, received: Any) -> Any:
        """Make the routine's buffer out of what was received. Raises `ValueError` for a size that cannot be."""
        if self.is_array:
            if self.direction is ParameterDirection.IN_OUT:
                return received.copy()  # An array that arrived looks at the message, and is read-only.
            dtype, shape = received
            array = empty_array(dtype, shape, MAX_MESSAGE_BYTES)
            if (why := array_mismatch(self.annotation, array)) is not None:
                raise ValueError(f"it {why}")
            return array
        if self.direction is ParameterDirection.OUT:
            if not 0 <= received <= MAX_MESSAGE_BYTES:
                raise ValueError(f"{received} bytes, a message has {MAX_MESSAGE_BYTES} at the most")
            received = bytearray(received)
        return memoryview(received) if self.kind is memoryview else received


def outputs_of(operation: str, hints: Mapping[str, Any], parameters: Sequence[str]) -> tuple[OutputSpec, ...]:
    """Return the parameters of an operation that are output buffers. `hints`: its annotations, with their marks."""
    found = []
    for position, name in enumerate(parameters):
        for mark in getattr(hints.get(name), "__metadata__", ()):
            if isinstance(mark, ParameterDirection):
                found.append(OutputSpec(operation, name, position, hints[name].__origin__, mark))
    for name, annotation in hints.items():
        own = getattr(annotation, "__metadata__", ()) if name in parameters else ()
        inside = annotation.__origin__ if any(isinstance(mark, ParameterDirection) for mark in own) else annotation
        if is_marked(inside):
            raise InvalidParameter(
                f"{operation}: {name!r} has an output inside another type: only a whole parameter is one"
            )
    return tuple(found)
