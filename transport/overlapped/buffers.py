"""Views of a caller's memory: what an operation reads from or writes to."""

from typing import Any

from transport.errors import InvalidOperation
from transport.foreign import a_type, type_name


def readable(data: Any) -> memoryview:
    """A view of the data as bytes, empty or not; raises `InvalidOperation` if it has none."""
    try:
        view = memoryview(data)
        if view.c_contiguous:
            return view.cast("B") if view.nbytes else memoryview(b"")
    except TypeError:
        pass  # It has no such view, as the error below says.
    raise InvalidOperation(f"data must be contiguous bytes-like objects, which {a_type(data)} is not")


def writable(buffer: Any) -> memoryview:
    """A view of the buffer as bytes; raises `InvalidOperation` if nothing can be written to it."""
    try:
        view = memoryview(buffer)
        if view.nbytes and view.c_contiguous and not view.readonly:
            return view.cast("B")
    except TypeError:
        pass  # It has no such view, as the error below says.
    raise InvalidOperation(
        f"a buffer must be contiguous memory, writable and not empty, which this {type_name(buffer)} is not"
    )
