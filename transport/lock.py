"""The lock that guards shared state, the engine's too: it knows its owner, and no interrupt leaves it held.

Theory of operation. A signal handler may run, and raise, whenever the main thread calls something, enters a function or
jumps back in a loop. If it raises just after a lock was taken, and before the block that it guards has begun, no thread
releases the lock: since CPython 3.14 that can happen in a plain `with lock:`, whose entry is an ordinary call. `Lock`
therefore takes itself inside a `try` of its own, and asks in the `except` whether it has itself. From the return of
`__enter__` to the first step of the block there is no call, so nothing can raise.

The handler may also call the engine, and so meet a lock that its own thread holds, in the midst of what it interrupted.
To wait there would be to wait for ever, and to go on would be to work on half of a change: `refusal` is raised,
`Deadlock` by the engine's locks. The few operations that are safe in a signal handler leave what they cannot do there
to another thread (`engine/kernel/afterwards.py`). A finalizer that the garbage collector runs is in the same position.

Loops are the other half: the jump back of a loop is a place where a handler may raise, and CPython 3.12 to 3.14 leave
some of these jumps out of the `with` or `try` around them. A loop that stands in one is a function of its own;
`tests/test_interruptible.py` looks.

Where an `except BaseException` must clean up anyway, and in the few places that every message passes, the same stands
in line, without the call of a Python function that `with` costs here:

    if lock.owned():
        lock.refuse()
    try:
        lock.acquire()
        ...
    except BaseException:
        if lock.owned():
            lock.release()
        raise
    lock.release()

Every lock is free in a forked child, whichever thread had it (`transport/lifecycle.py`).

Workers and other threads that are never the main one may use `acquire` and `release` themselves.
"""

from typing import TYPE_CHECKING, ClassVar, NoReturn

from transport.errors import LocalProtocolError
from transport.lifecycle import fork_safe

if TYPE_CHECKING:

    class _Owned:
        """What the interpreter's lock has; the published types leave out what says who owns it."""

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
        def release(self) -> None: ...
        def __exit__(self, *error: object) -> None: ...
        def _is_owned(self) -> bool: ...
        def _at_fork_reinit(self) -> None: ...
else:
    from _thread import RLock as _Owned


class Lock(_Owned):
    """A lock for `with`, of one thread at a time and not reentrant; `owned` says whether the calling thread has it.

    In a forked child it is free. Raises: `refusal` where its own thread asks for it again.
    """

    __slots__ = ()

    refusal: ClassVar[type[Exception]] = LocalProtocolError

    if TYPE_CHECKING:

        def owned(self) -> bool: ...

    else:
        owned = _Owned._is_owned

    def __init__(self) -> None:
        fork_safe(self)

    def __enter__(self) -> bool:
        """Take the lock; raises `refusal` if the calling thread has it. Blocks: until it is free."""
        if self._is_owned():
            self.refuse()
        try:
            return self.acquire()
        except BaseException:
            if self._is_owned():
                self.release()
            raise

    def refuse(self) -> NoReturn:
        """Raise `refusal`: the calling thread has the lock."""
        raise self.refusal(
            "called by a signal handler or a finalizer that interrupted this very object: there, use only what is "
            "documented to be safe in a signal handler, such as Event.set, CompletionPort.post, Server.request_stop"
        )
