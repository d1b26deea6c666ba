"""How failures are reported here: a return value, and a number that each thread keeps.

Theory of operation. The engine raises; these functions return. `fails_with` stands between: an `EngineError` becomes
the function's documented failure value, its status the thread's last error. What the C compiler would have refused (an
argument of a wrong type or out of its range) is no failure of the function and raises `TypeError` or `ValueError`, as
every other exception comes out as it is, `KeyboardInterrupt` among them. `typed` stands around every public function,
so that none stumbles over what an object has not.

An APC runs inside a wait, so an `EngineError` of its own would look like the wait's. `contained` keeps them apart.

Source: "GetLastError", "SetLastError".
"""

import inspect
import threading
from collections.abc import Callable
from functools import wraps
from types import UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from transport.foreign import shown, text_of, type_name

from .. import EngineError, InvalidArgumentType, InvalidHandle

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
    if not isinstance(dwErrCode, int):
        raise InvalidArgumentType(f"dwErrCode must be an int, not {type_name(dwErrCode)}")
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


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function raise `InvalidArgumentType` where it stumbles over an argument that is not what its annotation
    says, as the C compiler would: looked at only if it has stumbled.
    """

    @wraps(function)
    def face(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (AttributeError, LookupError) as error:
            why = _wrong_argument(function, args, kwargs)
            if why is None:
                raise  # Out of a routine of the program's.
            raise InvalidArgumentType(why) from error

    return face


def _wrong_argument(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Return which argument is not of the class that its annotation says; None if all are."""
    hints = get_type_hints(function)
    for name, value in inspect.signature(function).bind(*args, **kwargs).arguments.items():
        hint = hints.get(name)
        members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        kinds = tuple(get_origin(each) or each for each in members)
        if all(isinstance(kind, type) for kind in kinds) and not isinstance(value, kinds):
            wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
            return f"{function.__name__}: {name} must be of the type {wanted}, not {type_name(value)}"
    return None


def expect(handle: Any, kind: type[T]) -> T:
    """Return `handle` if it is of that kind; raise `InvalidHandle` (6) otherwise."""
    if not isinstance(handle, kind):
        raise InvalidHandle(f"the handle must be one of the kind {kind.__name__}, not {shown(handle)}")
    return handle


def contained(routine: Callable[..., object], *args: object) -> Callable[..., object]:
    """Return a function for an APC: `routine(*args, ...)`, an `EngineError` of its own raised as a `RuntimeError`."""

    def run(*more: object) -> None:
        try:
            routine(*args, *more)
        except EngineError as error:
            raise RuntimeError(f"an APC raised {type_name(error)}: {text_of(error)}") from error

    return run
