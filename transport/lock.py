"""The lock that guards a link's or a source's state: it knows its owner, and no interrupt leaves it held.

It is the engine's (`engine/kernel/lock.py` has the theory), written again in few lines because this package imports
nothing of the engine.
"""

from typing import TYPE_CHECKING

from .errors import LocalProtocolError
from .lifecycle import fork_safe

if TYPE_CHECKING:

    class RLock:
        """What the interpreter's lock has; the published types leave out what tells of its owner."""

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
        def release(self) -> None: ...
        def __exit__(self, *error: object) -> None: ...
        def _is_owned(self) -> bool: ...
        def _at_fork_reinit(self) -> None: ...
else:
    from _thread import RLock


class Lock(RLock):
    """A lock for `with`, of one thread at a time and not reentrant; `owned` tells whether the calling thread has it."""

    __slots__ = ()

    owned = RLock._is_owned

    def __init__(self) -> None:
        fork_safe(self)

    def __enter__(self) -> bool:
        """Take the lock; raises `LocalProtocolError` if the calling thread has it. Blocks: until it is free."""
        if self._is_owned():
            raise LocalProtocolError(
                "called by a signal handler or a finalizer that interrupted this very object: let it set an Event, "
                "and do the rest in a thread that waits for that"
            )
        try:
            return self.acquire()
        except BaseException:
            if self._is_owned():
                self.release()
            raise
