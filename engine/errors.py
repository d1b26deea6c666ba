"""The error tree. Every error the library raises on purpose is an `EngineError` and carries a status number. (The root
is the transport's, whose own errors are below it too: see `transport/errors.py`.)

    EngineError
    |-- Misuse                      you can mend the call you made
    |   |-- InvalidParameter        87    also a ValueError: an argument's value is out of range
    |   |-- InvalidArgumentType     87    also a TypeError: an argument's type is wrong
    |   |-- InvalidState            1915  the operation does not fit the object's state
    |   |   |-- InvalidAsyncHandle  1914  the handle carries no call: never used, or spent
    |   |   `-- NotOwner            288   releasing a mutex one does not own
    |   |-- LimitExceeded           298   a count would pass its maximum
    |   |-- InvalidHandle           6     the object was closed before the operation began
    |   |   `-- Forked              6     the object was inherited through fork()
    |   `-- Deadlock                1131  waiting here could never end
    |-- CallPending                 997   also a TimeoutError: not complete yet; ask again later
    |-- WaitTimeout                 258   also a TimeoutError
    |-- Alerted                     192   an alertable wait ran APCs instead
    |-- AbandonedWait               735   the port was closed under the waiting thread
    |-- QueueFull                   1816  a bounded queue is full
    |-- NotFound                    1168  a targeted cancel found nothing to cancel
    |-- OperationAborted            995   the operation was cancelled
    `-- CallError                         the outcome of a remote call (engine.rpc adds its branches)

An error says what happened, which value was seen and what to do. `status` is an `int` (a `Status` member
where the number is listed), so that `except EngineError as e: return e.status` ports a Windows program line
by line.
"""

from transport.errors import EngineError as EngineError
from transport.errors import TransportError
from transport.foreign import is_interrupt, text_of

from .status import Status

EngineError.status_name = staticmethod(Status.name_of)  # type: ignore[method-assign]  # the transport has no names


class Misuse(EngineError):
    """The caller can mend this: an argument, or an operation in the wrong state."""

    status: int = Status.INVALID_PARAMETER


class InvalidParameter(Misuse, ValueError):
    """An argument's value is out of range; the message names the parameter and the value seen."""


class InvalidArgumentType(Misuse, TypeError):
    """An argument's type is wrong; the message names the parameter and the type seen."""


class InvalidState(Misuse):
    """The operation does not fit the state that the object is in; the message names the state."""

    status: int = Status.INVALID_ASYNC_CALL


class InvalidAsyncHandle(InvalidState):
    """The handle carries no call that could be asked about: it was never used, or its call is over."""

    status: int = Status.INVALID_ASYNC_HANDLE


class NotOwner(InvalidState):
    """A mutex was released by a thread that does not own it."""

    status: int = Status.NOT_OWNER


class LimitExceeded(Misuse):
    """A count would pass its maximum (a semaphore's, for one); nothing was changed."""

    status: int = Status.TOO_MANY_POSTS


class InvalidHandle(Misuse):
    """The object was closed before the operation began."""

    status: int = Status.INVALID_HANDLE


class Forked(InvalidHandle):
    """The object was made before `fork()` and is used in the child: make a new one there."""


class Deadlock(Misuse):
    """The wait could never end, because the waiting thread itself is what it waits for."""

    status: int = Status.POSSIBLE_DEADLOCK


class CallPending(EngineError, TimeoutError):
    """The outcome is not known yet, now or in the time given. Asking harmed nothing: the notification still comes."""

    status: int = Status.PENDING


class WaitTimeout(EngineError, TimeoutError):
    """The time ran out before the wait was satisfied; nothing was taken and nothing was changed."""

    status: int = Status.TIMEOUT


class Alerted(EngineError):
    """An alertable wait ended because APCs ran; nothing was taken. Wait again, with the time that is left."""

    status: int = Status.IO_COMPLETION


class AbandonedWait(EngineError):
    """The completion port was closed while the thread was waiting on it."""

    status: int = Status.ABANDONED_WAIT


class QueueFull(EngineError):
    """A bounded queue is full; nothing was queued."""

    status: int = Status.NOT_ENOUGH_QUOTA


class NotFound(EngineError):
    """A targeted cancel found no operation to cancel."""

    status: int = Status.NOT_FOUND


class OperationAborted(EngineError):
    """The operation was cancelled before it could finish."""

    status: int = Status.OPERATION_ABORTED


class CallError(EngineError):
    """The outcome of a remote call was not success; `status` tells which.

    `collected` is True for one that `complete` raised. A routine that raises one of its own making ends its call with
    that status; one that lets a collected error pass ends it as with any other exception, by a `RemoteFault`.

    `may_have_run` is False if the routine was not entered, for sure: whatever the operation does, trying again is safe.
    """

    status: int = Status.CALL_FAILED
    collected = False
    may_have_run: bool = True


def is_collected(error: BaseException) -> bool:
    """Whether an exception is the outcome of a call, and somebody has collected it: see `CallError`. Never raises."""
    try:
        return bool(getattr(error, "collected", False))
    except BaseException as failure:  # It is of a class of the program's, whose attributes raise what they like.
        if is_interrupt(failure):
            raise
        return False


def status_in(error: BaseException, otherwise: int) -> int:
    """Return the status that an exception of the engine's carries; `otherwise` for any other, and for a number that no
    failure can have: 0 would say that there was none, 997 that the call has not ended. Never raises.
    """
    if not issubclass(type(error), EngineError):
        return otherwise
    try:
        status = getattr(error, "status", None)
        fits = isinstance(status, int) and 0 < status < 1 << 32 and status != Status.PENDING
        return int(status) if fits else otherwise  # type: ignore[arg-type]  # it is a number then
    except BaseException as failure:  # It is of a class of the program's, whose attributes raise what they like.
        if is_interrupt(failure):
            raise
        return otherwise


_KINDS: dict[int, type[EngineError]] = {
    int(kind.status): kind for kind in (InvalidHandle, InvalidParameter, NotFound, OperationAborted, QueueFull)
}


def translated(error: BaseException) -> EngineError | None:
    """The engine's error for one of the transport's, or another library's, that carries a Windows number in `status`;
    None for others.
    """
    if issubclass(type(error), EngineError) and not issubclass(type(error), TransportError):
        return None
    try:
        status = getattr(error, "status", None)
        message = text_of(error.args[0]) if error.args else ""
        if not isinstance(status, int):
            return None
        status = int(status)
    except BaseException as failure:  # It is of a class of the program's, whose attributes raise what they like.
        if is_interrupt(failure):
            raise
        return None
    return _KINDS.get(status, EngineError)(message, status=status)
