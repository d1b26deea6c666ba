"""Output buffers: `[out]` and `[in, out]` parameters, supplied by the caller and filled when the call is completed.

    class Camera(Interface):
        @operation
        def grab(self, exposure: float, frame: Out[numpy.ndarray]) -> int: ...
        @operation
        def scramble(self, key: bytes, data: InOut[bytearray]) -> None: ...

Theory of operation. A parameter annotated `Out[...]` or `InOut[...]` is a buffer of the caller's. For an `Out` the
request says only how large it is, and the routine gets a buffer of its own of that size, zeroed; for an `InOut` the
request carries the contents, and the routine gets them in a buffer that it may write. When the call is answered, the
reply is an array of the result and of each buffer's contents. Completing decodes it, and decoding fills: an operation
with outputs has a decoder for each call, which knows the caller's buffers.

    caller's buffer -> size or contents ~~~ the routine's buffer -> contents ~~~ complete -> caller's buffer

What is large travels out of band: from the caller's buffer without a copy, and from the frame into the caller's buffer
by the one copy that fills it.

Guarantees: a buffer is touched by `complete` alone, and only if that returns: all buffers of a call are filled, or
none.

Source: "RpcAsyncCompleteCall" (when outputs are valid), "out", "in", "Declaring Asynchronous Functions".
"""

import copy
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import CoroutineType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from transport import Buffer
from transport.foreign import name_of, text_of, type_name
from transport.frames import MAX_MESSAGE_BYTES, Blob
from transport.wire.blobs import ArgsDecoder, ValueDecoder, array_misfit, bare_type, empty_array, is_array_type

from ...errors import InvalidArgumentType, InvalidParameter
from ...status import Status
from ..client.buffers import Filling
from ..errors import BadStubData
from ..server.extras import attachment_of
from ..wire_types import Flow, is_marked

if TYPE_CHECKING:
    from ..server.call import ServerCall
    from .interface import OperationSpec

T = TypeVar("T")


# For type checkers these are the types themselves: a caller passes a `bytearray` for an `Out[bytearray]`.
Out = Annotated[T, Flow.OUT]
InOut = Annotated[T, Flow.IN_OUT]

# The size of a buffer on the wire: in bytes, or for an array the type of its items and its shape.
Room = int | tuple[str, tuple[int, ...]]


class OutputSpec:
    """One parameter that is a buffer of the caller's: where it stands, which way it goes, what the routine gets."""

    __slots__ = ("annotation", "flow", "is_array", "kind", "name", "position")

    def __init__(self, operation: str, name: str, position: int, kind: Any, flow: Flow) -> None:
        origin = bare_type(kind)
        self.name: str = name
        self.position: int = position
        self.flow: Flow = flow
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
        if self.flow is Flow.OUT:
            return Room
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
                if (why := array_misfit(self.annotation, value)) is not None:
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
        if self.flow is Flow.IN_OUT:
            return target
        return (target.dtype.str, target.shape) if self.is_array else target.nbytes

    def to_work_on(self, received: Any) -> Any:
        """Make the routine's buffer out of what was received. Raises `ValueError` for a size that cannot be."""
        if self.is_array:
            if self.flow is Flow.IN_OUT:
                return received.copy()  # An array that arrived looks at the message, and is read-only.
            dtype, shape = received
            array = empty_array(dtype, shape, MAX_MESSAGE_BYTES)
            if (why := array_misfit(self.annotation, array)) is not None:
                raise ValueError(f"it {why}")
            return array
        if self.flow is Flow.OUT:
            if not 0 <= received <= MAX_MESSAGE_BYTES:
                raise ValueError(f"{received} bytes, a message has {MAX_MESSAGE_BYTES} at the most")
            received = bytearray(received)
        return memoryview(received) if self.kind is memoryview else received


def outputs_of(operation: str, hints: Mapping[str, Any], parameters: Sequence[str]) -> tuple[OutputSpec, ...]:
    """Return the parameters of an operation that are output buffers. `hints`: its annotations, with their marks."""
    found = []
    for position, name in enumerate(parameters):
        for mark in getattr(hints.get(name), "__metadata__", ()):
            if isinstance(mark, Flow):
                found.append(OutputSpec(operation, name, position, hints[name].__origin__, mark))
    for name, annotation in hints.items():
        own = getattr(annotation, "__metadata__", ()) if name in parameters else ()
        inside = annotation.__origin__ if any(isinstance(mark, Flow) for mark in own) else annotation
        if is_marked(inside):
            raise InvalidParameter(
                f"{operation}: {name!r} has an output inside another type: only a whole parameter is one"
            )
    return tuple(found)


def reply_decoder(result: Any, outputs: Sequence[OutputSpec]) -> ArgsDecoder:
    """Return what reads a reply: the result, then each buffer's contents."""
    return ArgsDecoder([result, *(output.returned for output in outputs)])


# The client's side


def with_outputs(begin: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function like a client's `begin`, for operations with outputs: it takes the buffers out."""

    def begin_with_outputs(
        spec: "OperationSpec", args: tuple[Any, ...], kwargs: dict[str, Any] | None, *options: Any
    ) -> Any:
        values = list(spec.arrange(args, kwargs or {}))
        targets = []
        for output in spec.outputs:
            target = output.check(spec.name, values[output.position])
            values[output.position] = output.to_send(target)
            targets.append(target)
        own = copy.copy(spec)
        decoder = own.decode_result = _Collecting(spec, targets)
        own.decode_plain = decoder.plain
        return begin(own, tuple(values), None, *options)

    return begin_with_outputs


class _Collecting(ValueDecoder[Any]):
    """Decodes a reply into the caller's buffers, and returns the result."""

    def __init__(self, spec: "OperationSpec", targets: list[Any]) -> None:
        super().__init__(spec.decode_result.annotation)
        self._name = spec.name
        self._outputs = spec.outputs
        self._decode = spec.decode_outputs
        self._targets = targets
        # A call may have `into=` beside its outputs.
        self._filling = spec.decode_result if isinstance(spec.decode_result, Filling) else None
        self.plain = self._collect

    def __call__(
        self, raw: Buffer | msgspec.Raw, blobs: Sequence[Buffer] = (), descriptors: Sequence[Blob] | None = None
    ) -> Any:
        return self._collect(raw, blobs, descriptors)

    def _collect(
        self, raw: Buffer | msgspec.Raw, blobs: Sequence[Buffer] = (), descriptors: Sequence[Blob] | None = None
    ) -> Any:
        result, *contents = self._decode(raw, blobs, descriptors)
        for output, target, content in zip(self._outputs, self._targets, contents, strict=True):
            self._check_fits(output, target, content)
        if self._filling is not None:
            result = self._filling.take(result)
        for output, target, content in zip(self._outputs, self._targets, contents, strict=True):
            if output.is_array:
                target[...] = content
            else:
                target[: content.nbytes] = content
        # The caller may want to resize what it passed, while it still has the call's handle.
        self._targets = []
        return result

    def _check_fits(self, output: OutputSpec, target: Any, content: Any) -> None:
        if output.is_array:
            if (content.dtype, content.shape) != (target.dtype, target.shape):
                raise BadStubData(
                    f"{self._name}: the array for {output.name!r} is {content.dtype}{list(content.shape)}, "
                    f"the caller's is {target.dtype}{list(target.shape)}"
                )
        elif content.nbytes > target.nbytes:
            raise BadStubData(
                f"{self._name}: the contents for {output.name!r} have {content.nbytes} bytes, the buffer has "
                f"{target.nbytes}",
                status=Status.BUFFER_TOO_SMALL,
            )


# The server's side


class OutputRoutine:
    """What is served in the place of `function`, whose operation has outputs.

    Args: takes_handle: `function` is an asynchronous manager routine, or answers for one.
    """

    def __init__(self, spec: "OperationSpec", function: Callable[..., Any], takes_handle: bool) -> None:
        self._spec = spec
        self._function = function
        self._takes_handle = takes_handle

    def __call__(self, call: "ServerCall", *given: Any) -> Coroutine[Any, Any, None] | None:
        """Make the buffers, and run the routine with them."""
        args = list(given)
        spec = self._spec
        for output in spec.outputs:
            try:
                args[output.position] = output.to_work_on(args[output.position])
            except (TypeError, ValueError) as error:
                raise BadStubData(f"{spec.name}: no buffer can be made for {output.name!r}: {text_of(error)}") from None
        attachment_of(call).outputs = [args[output.position] for output in spec.outputs]
        if self._takes_handle:
            value = self._function(call, *args)
            return value if type(value) is CoroutineType else None
        value = self._function(*args)
        if type(value) is CoroutineType:
            return _answer_later(call, value)
        call.complete(value)
        return None


async def _answer_later(call: "ServerCall", routine: Coroutine[Any, Any, Any]) -> None:
    call.complete(await routine)
