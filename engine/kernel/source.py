"""Sources of completion packets: what can be bound to a port.

Source: "CreateIoCompletionPort"; section 2 of `docs/semantics/completion-port.md`.
"""

import weakref
from _thread import allocate_lock
from typing import TYPE_CHECKING, Any, Protocol

from .errors import InvalidArgumentType, InvalidParameter

if TYPE_CHECKING:
    from .port import CompletionPort


class PortSource(Protocol):
    """Something whose operations can complete as packets: an overlapped socket, for one.

    An implementation must be hashable by identity and weakly referable. After `bind_port` each operation that
    it *accepts* delivers one packet with `key` to `port`, by `port.deliver`, whether the operation succeeds,
    fails or is cancelled. What it did not accept, because it raised at once, delivers none.
    """

    def bind_port(self, port: "CompletionPort", key: Any) -> None:
        """Remember `port` and `key`; called once in the source's life. Raise `InvalidParameter` to refuse."""


_lock = allocate_lock()
# Guarded by _lock. The sources that have a port.
_bound: "weakref.WeakSet[PortSource]" = weakref.WeakSet()


def bind(source: PortSource, port: "CompletionPort", key: Any) -> None:
    """Bind `source` to `port`, once and for all; raises `InvalidParameter`, having changed nothing."""
    if not callable(getattr(source, "bind_port", None)):
        raise InvalidArgumentType(
            f"a {type(source).__name__} cannot be bound to a port: it has no `bind_port`"
        )
    with _lock:
        if source in _bound:
            raise InvalidParameter(f"{source!r} is bound to a port already: a source keeps its port for life")
        _bound.add(source)
    try:
        source.bind_port(port, key)
    except BaseException:
        with _lock:
            _bound.discard(source)
        raise
