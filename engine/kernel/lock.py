"""The lock that guards the engine's state: the transport's (`transport/lock.py` has the theory), with our error."""

from typing import ClassVar

from transport import lock

from ..errors import Deadlock
from ..lifecycle import locks


class Lock(lock.Lock):
    """A lock for `with`, of one thread at a time and not reentrant; raises `Deadlock` where its own thread has it."""

    __slots__ = ()

    refusal: ClassVar[type[Exception]] = Deadlock


def any_owned() -> bool:
    """Whether the calling thread has a lock of the library's."""
    return any(isinstance(each, lock.Lock) and each.owned() for each in locks())
