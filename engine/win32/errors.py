"""How failures are told here: a return value, and a number that each thread keeps.

Theory of operation. The engine raises; these functions return. `fails_with` stands between: an `EngineError` becomes
the function's documented failure value, its status the thread's last error. What the C compiler would have refused (an
argument of a wrong type or out of its range) is no failure of the function and raises `TypeError` or `ValueError`, as
every other exception comes out as it is, `KeyboardInterrupt` among them.

An APC runs inside a wait, so an `EngineError` of its own would look like the wait's. `contained` keeps them apart.

Source: "GetLastError", "SetLastError".
"""

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from transport.foreign import shown, text_of, type_name

from .. import EngineError, InvalidHandle

__all__ = ["GetLastError", "SetLastError"]

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F")
T = TypeVar("T")


class _Last(threading.local):
    number = 0


_last = _Last()


def GetLastError() -> int:
    """Return the calling thread's last error number; successful functions leave it as it is."""
    return _last.number


def SetLastError(dwErrCode: int) -> None:
    """Set the calling thread's last error number."""
    _last.number = int(dwErrCode)


def fails_with(value: F) -> Callable[[Callable[P, R]], Callable[P, R | F]]:
    """Have a function return `value`, and set the last error, where it would raise an error with a status."""

    def decorate(function: Callable[P, R]) -> Callable[P, R | F]:
        @wraps(function)
        def face(*args: P.args, **kwargs: P.kwargs) -> R | F:
            try:
                return function(*args, **kwargs)
            except EngineError as error:
                SetLastError(error.status)
                return value

        return face

    return decorate


def returns_status(function: Callable[P, int]) -> Callable[P, int]:
    """Have a function return the status of the `EngineError` that it would raise, as the RPC functions do."""

    @wraps(function)
    def face(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return function(*args, **kwargs)
        except EngineError as error:
            return error.status

    return face


def expect(handle: Any, kind: type[T]) -> T:
    """Return `handle` if it is of that kind; raise `InvalidHandle` (6) otherwise."""
    if not isinstance(handle, kind):
        raise InvalidHandle(f"this is not the handle of a {kind.__name__}, but {shown(handle)}")
    return handle


def contained(routine: Callable[..., object], *args: object) -> Callable[..., object]:
    """Return a function for an APC: `routine(*args, ...)`, an `EngineError` of its own raised as a `RuntimeError`."""

    def run(*more: object) -> None:
        try:
            routine(*args, *more)
        except EngineError as error:
            raise RuntimeError(f"an APC raised {type_name(error)}: {text_of(error)}") from error

    return run
