"""What a client is told of an exception that left its routine.

Source: "Generating Error Information", "Exception Handling".
"""

from transport.foreign import text_of, traceback_of, type_name
from transport.frames import Fault

from ...errors import CallError, EngineError
from ...status import Status
from ..errors import RemoteFault

MOST = 64 * 1024  # Characters of a text, and of a traceback, that are sent; arbitrary.
SHORT = 1000  # Characters that are left of a text that cannot be sent as it is; arbitrary.


def describe(error: BaseException, tracebacks: bool) -> tuple[int, Fault]:
    """Return the status and the fault that stand for an exception raised by a routine. Never raises."""
    trace = traceback_of(error, MOST) if tracebacks else None
    try:
        return _described(error, trace)
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
        return _failure(error.status), fault
    if issubclass(kind, CallError) and error.collected:  # type: ignore[attr-defined]  # as the line says
        # The outcome of a call that this routine made. Its status says what became of that call, not of this one.
        return Status.REMOTE_FAULT, Fault(type_name(error), text_of(error, MOST), trace)
    text = text_of(error.args[0], MOST) if error.args else ""
    return _failure(error.status), Fault(type_name(error), text, trace)


def short(text: str) -> str:
    """Return so much of a text as can be sent to any client."""
    return text[:SHORT].encode("utf-8", "replace").decode() + ("..." if len(text) > SHORT else "")


def _failure(status: int) -> int:
    """Return `status` if it is one that a failure can have: not 0, which would say that there was none, nor 997, which
    would say that the call has not ended.
    """
    fits = isinstance(status, int) and 0 < status < 1 << 32 and status != Status.PENDING
    return int(status) if fits else Status.REMOTE_FAULT
