"""Which server a context handle is of, for a client of several.

Theory of operation. A handle is good for the connection that it came over. So the results of operations that may bring
one are decoded by a spec of that connection's carrier, which notes it in the handle; a call that is given the handle
goes there. A call that moves before its outcome is known gets the spec of the other carrier.
"""

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import msgspec

from transport import Buffer
from transport.frames import Blob
from transport.wire.blobs import ValueDecoder

from ..context import Context, set_home
from ..contract.spec import OperationSpec


class _Homing(ValueDecoder[Any]):
    """Decodes as `original` does, and notes in each context handle where it is of."""

    def __init__(self, original: OperationSpec, home: object) -> None:
        self.annotation = original.decode_result.annotation
        self.original = original
        self._home = home
        self._decode: Callable[..., Any] = original.decode_result
        self.plain = self._plain

    def _plain(self, raw: Buffer | msgspec.Raw) -> Any:
        return self._noted(self.original.decode_plain(raw))  # type: ignore[arg-type]  # a Raw is what comes

    def __call__(
        self, raw: Buffer | msgspec.Raw, blobs: Sequence[Buffer] = (), descriptors: Sequence[Blob] | None = None
    ) -> Any:
        return self._noted(self._decode(raw, blobs, descriptors))

    def _noted(self, value: Any) -> Any:
        _note(value, self._home)
        return value


def _note(value: Any, home: object) -> None:
    if isinstance(value, Context):
        set_home(value, home)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            _note(item, home)
    elif isinstance(value, dict):
        for item in value.values():
            _note(item, home)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            _note(getattr(value, name), home)


def homed(spec: OperationSpec, home: object) -> OperationSpec:
    """Return the spec by which calls of `spec` over the connection of the carrier `home` are decoded."""
    if not spec.brings_contexts:
        return spec
    own = copy(original_of(spec))
    decoder = _Homing(original_of(spec), home)
    own.decode_result = decoder
    own.decode_plain = decoder.plain
    return own


def original_of(spec: OperationSpec) -> OperationSpec:
    """Return the spec that one of a carrier was made of."""
    decoder = spec.decode_result
    return decoder.original if isinstance(decoder, _Homing) else spec
