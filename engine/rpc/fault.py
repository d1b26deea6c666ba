"""What a client is told of an exception that left its routine.

Source: "Generating Error Information", "Exception Handling".
"""

import traceback

from transport import Fault

from ..kernel.errors import CallError, EngineError
from ..kernel.status import Status
from .errors import RemoteFault

SHORT = 1000  # Characters that are left of a text that cannot be sent as it is; arbitrary.


def describe(error: BaseException, tracebacks: bool) -> tuple[int, Fault]:
    """Return the status and the fault that stand for an exception raised by a routine."""
    trace = "".join(traceback.format_exception(error)) if tracebacks else None
    if isinstance(error, CallError) and error.collected and not isinstance(error, RemoteFault):
        # The outcome of a call that this routine made. Its status says what became of that call, not of this one.
        return Status.REMOTE_FAULT, Fault(type(error).__name__, str(error), trace)
    if isinstance(error, RemoteFault):
        # A fault of a call that this routine made travels on as it came.
        fault = Fault(_told(error.type_name), _told(error.text), trace or error.traceback, error.data)
        return _failure(error.status), fault
    text = (_told(error.args[0]) if error.args else "") if isinstance(error, EngineError) else _told(error)
    status = _failure(error.status) if isinstance(error, EngineError) else Status.REMOTE_FAULT
    return status, Fault(type(error).__name__, text, trace)


def _told(said: object) -> str:
    """Return the text of what an exception says, which may be anything."""
    try:
        return str(said)
    except Exception as unspeakable:
        return f"(its text cannot be told: {type(unspeakable).__name__})"


def short(text: str) -> str:
    """Return so much of a text as can be sent to any client."""
    return text[:SHORT].encode("utf-8", "replace").decode() + ("..." if len(text) > SHORT else "")


def _failure(status: int) -> int:
    """Return `status` if it is one that a failure can have: not 0, which would say that there was none."""
    return int(status) if isinstance(status, int) and 0 < status < 1 << 32 else Status.REMOTE_FAULT
