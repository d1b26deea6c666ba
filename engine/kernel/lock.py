"""The lock that guards the engine's state, and loops and steps for use under it or where an interrupt is to be mended.

The lock is the transport's, with our error: `transport/lock.py` has the theory, and says why loops are functions.
"""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar

from transport import lock

from ..errors import Deadlock
from ..lifecycle import locks

T = TypeVar("T")


class Lock(lock.Lock):
    """A lock for `with`, of one thread at a time and not reentrant; raises `Deadlock` where its own thread has it."""

    __slots__ = ()

    refusal: ClassVar[type[Exception]] = Deadlock


def any_owned() -> bool:
    """Whether the calling thread has a lock of the library's."""
    return any(isinstance(each, lock.Lock) and each.owned() for each in locks())


def each(function: Callable[[T], object], things: Iterable[T]) -> None:
    """Call `function` with each of them, in their order."""
    for thing in things:
        function(thing)


def index_of(thing: object, things: Iterable[object]) -> int | None:
    """Where `thing` itself is, None if nowhere. Calls no `__eq__`, which may be a user's."""
    return next((index for index, other in enumerate(things) if other is thing), None)


class Once:
    """Does something once: closing an object, say; it is gone on with if a signal handler has broken it off.

    While a thread does it, and when it was done, others find nothing to do. If an exception leaves it, the next one
    does it again: it has to skip by itself what was done before.
    """

    __slots__ = ("_by", "_lock")

    def __init__(self) -> None:
        self._lock = Lock()
        # Guarded by _lock: who does it, or has done it.
        self._by: object = None

    def do(self, function: Callable[..., object], *args: Any) -> None:
        """Call the function, unless a thread does or did; never blocks by itself."""
        me = object()
        try:
            with self._lock:
                if self._by is not None:
                    return
                self._by = me
            function(*args)
        except BaseException:
            if self._by is me:
                self._by = None
            raise
