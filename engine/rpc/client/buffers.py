"""Answers that fill buffers of the caller's: results by `into=`, `Out` and `InOut` parameters.

Theory of operation. A call with such buffers gets an operation spec of its own, whose decoders write into them.
Completing decodes, so completing fills: nothing is touched before, or by a call that failed. What travelled out of band
is copied from the message into the buffer, once.

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
from ..contract.outputs import OutputSpec
from ..contract.spec import OperationSpec
from ..errors import BadStubData


def filling(spec: OperationSpec, into: Any) -> OperationSpec:
    """Return a spec like `spec` whose result fills `into`: a writable buffer, or a tuple of them and of None.

    Raises: `InvalidArgumentType` if that is not what it is.
    """
    own = copy.copy(spec)
    decoder = own.decode_result = Filling(spec, into)
    own.decode_plain = decoder.plain
    return own


class Filling(ValueDecoder[Any]):
    """Decodes a result into buffers. What it returns is the filled part of each, as a view."""

    def __init__(self, spec: OperationSpec, into: Any) -> None:
        super().__init__(spec.decode_result.annotation)
        self._name = spec.name
        self._decode = spec.decode_result
        self._alone = not isinstance(into, tuple)
        items = (into,) if self._alone else into
        # The types of the items of those that are arrays: the bytes of others would mean something else.
        self._dtypes = [getattr(item, "dtype", None) for item in items]
        self._buffers = [None if item is None and not self._alone else _writable(item) for item in items]
        self.plain: Callable[[Buffer | msgspec.Raw], Any] = self._fill_plain

    def __call__(
        self, raw: Buffer | msgspec.Raw, blobs: Sequence[Buffer] = (), descriptors: Sequence[Blob] | None = None
    ) -> Any:
        if descriptors and len(descriptors) == len(blobs) == 1 and self._alone and descriptors[0].kind == "b":
            return self._fill([blobs[0]])[0]
        return self.take(self._decode(raw, blobs, descriptors))

    def _fill_plain(self, raw: Buffer | msgspec.Raw) -> Any:
        return self.take(self._decode.plain(raw))

    def take(self, value: Any) -> Any:
        """Fill the buffers with a decoded result."""
        if self._alone:
            return self._fill([value])[0]
        if not isinstance(value, (tuple, list)) or len(value) != len(self._buffers):
            raise BadStubData(f"the result of {self._name} has other parts than `into`, which has {len(self._buffers)}")
        return tuple(self._fill(value))

    def _fill(self, values: Sequence[Any]) -> list[Any]:
        parts: list[Any] = []
        for value, buffer, dtype in zip(values, self._buffers, self._dtypes, strict=True):
            if buffer is None:
                parts.append(value)
                continue
            if dtype is not None and getattr(value, "dtype", dtype) != dtype:
                raise BadStubData(f"the result of {self._name} is an array of {value.dtype}, the buffer of {dtype}")
            try:
                view = memoryview(value)
                part = view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())
            except (TypeError, ValueError, BufferError) as error:
                raise BadStubData(f"the result of {self._name} cannot fill a buffer: {text_of(error)}") from error
            if part.nbytes > buffer.nbytes:
                raise BadStubData(
                    f"the result of {self._name} has {part.nbytes} bytes, the buffer has {buffer.nbytes}",
                    status=Status.BUFFER_TOO_SMALL,
                )
            parts.append(part)
        for index, buffer in enumerate(self._buffers):
            if buffer is not None:
                size = parts[index].nbytes
                buffer[:size] = parts[index]
                parts[index] = buffer[:size]
        return parts


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


def with_outputs(begin: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function like a client's `begin`, for operations with outputs: it takes the buffers out."""

    def begin_with_outputs(
        spec: OperationSpec, args: tuple[Any, ...], kwargs: dict[str, Any] | None, *options: Any
    ) -> Any:
        values = list(spec.arrange(args, kwargs or {}))
        targets = []
        for output in spec.outputs:
            target = output.check(spec.name, values[output.position])
            values[output.position] = output.to_send(target)
            targets.append(target)
        own = copy.copy(spec)
        decoder = own.decode_result = _FillingOutputs(spec, targets)
        own.decode_plain = decoder.plain
        return begin(own, tuple(values), None, *options)

    return begin_with_outputs


class _FillingOutputs(ValueDecoder[Any]):
    """Decodes a reply into the caller's buffers, and returns the result."""

    def __init__(self, spec: OperationSpec, targets: list[Any]) -> None:
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
