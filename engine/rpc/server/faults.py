"""What a routine has raised, as its client hears of it: a status, and a fault with its type, its text and a traceback.

An exception is the program's own: all of it may raise as it is looked at, and nothing here does.

Source: "Exception Handling".
"""

from typing import Any

from transport.foreign import is_interrupt, text_of, traceback_of, type_name
from transport.frames import Fault
from transport.wire.codec import encode_value

from ...errors import CallError, EngineError, status_in
from ...status import Status
from ..errors import RemoteFault

MOST = 64 * 1024  # Characters of a text, and of a traceback, that are sent; arbitrary.
SHORT = 1000  # Characters that are left of a text that cannot be sent as it is; arbitrary.


def is_for_clients(error: BaseException, declared: tuple[type[Exception], ...]) -> bool:
    """Whether a routine has raised an exception to end its call with it: a status, or what its operation declares."""
    try:
        if issubclass(type(error), declared):
            return True
        return issubclass(type(error), CallError) and not error.collected  # type: ignore[attr-defined]  # a CallError
    except BaseException:  # A class of the program's, whose attributes raise.
        return False


def _declared_kind(error: BaseException, declared: tuple[type[Exception], ...]) -> type[Exception] | None:
    return next((kind for kind in declared if issubclass(type(error), kind)), None)


def describe(error: BaseException, tracebacks: bool, declared: tuple[type[Exception], ...] = ()) -> tuple[int, Fault]:
    """Return the status and the fault that stand for an exception raised by a routine. Never raises.

    One that its operation has `declared` is described as that class, with its `args` for its client to make it of.
    """
    trace = traceback_of(error, MOST) if tracebacks else None
    try:
        status, fault = _described(error, trace)
        kind = _declared_kind(error, declared) if declared else None
        return status, fault if kind is None else Fault(kind.__name__, fault.text, trace, _plain(error.args))
    except BaseException:  # A class of the program's, whose attributes raise.
        return Status.REMOTE_FAULT, Fault(type_name(error), text_of(error, MOST), trace)


def _described(error: BaseException, trace: str | None) -> tuple[int, Fault]:
    kind = type(error)
    if not issubclass(kind, EngineError):
        return Status.REMOTE_FAULT, Fault(type_name(error), text_of(error, MOST), trace)
    assert isinstance(error, EngineError)  # For type checkers: it is.
    if issubclass(kind, RemoteFault):
        assert isinstance(error, RemoteFault)
        # A fault of a call that this routine made travels on as it came.
        trace = trace if trace or error.traceback is None else text_of(error.traceback, MOST)
        fault = Fault(text_of(error.type_name), text_of(error.text, MOST), trace, error.data)
        return status_in(error, Status.REMOTE_FAULT), fault
    if issubclass(kind, CallError) and error.collected:  # type: ignore[attr-defined]  # as the line says
        # The outcome of a call that this routine made. Its status says what became of that call, not of this one.
        return Status.REMOTE_FAULT, Fault(type_name(error), text_of(error, MOST), trace)
    text = text_of(error.args[0], MOST) if error.args else ""
    return status_in(error, Status.REMOTE_FAULT), Fault(type_name(error), text, trace)


def _plain(args: tuple[Any, ...]) -> list[Any] | None:
    """Return the arguments of an exception as they travel, None if they do not."""
    try:
        encode_value(args)
        return list(args)
    except BaseException as error:  # Encoding runs the values' own code, which raises what it likes.
        if is_interrupt(error):
            raise
        return None


def short_of(text: str) -> str:
    """Return so much of a text as can be sent to any client."""
    return text[:SHORT].encode("utf-8", "replace").decode() + ("..." if len(text) > SHORT else "")
