"""Outcomes of remote calls that are not success: the branches of `CallError`.

    CallError
    |-- Unavailable                    there is no server that serves the call now: an HTTP 503
    |   |-- ServerUnavailable    1722  no server was reached: the call did not run
    |   |-- CallFailed           1726  the connection broke: the call may have run
    |   |-- CallFailedDne        1727  the connection broke: the call did not run
    |   `-- ServerTooBusy        1723  refused for a limit: the call did not run
    |-- CallCancelled            1818  cancelled, by either side
    |   `-- CallTimeout          1818  also a TimeoutError: the call's own time ran out
    |-- AccessDenied             5     refused by the server's security
    |-- ContextMismatch          6     a context handle that the server does not know
    |-- NullContext              1775  None where a context handle is needed
    |-- UnknownInterface         1717  no such interface, or not in that version
    |-- UnknownOperation         1745  the interface has no such operation
    |-- BadStubData              1783  arguments or result could not be decoded, or are too large
    |-- PeerProtocolError        1728  the peer speaks another version, or not this protocol
    |-- PipeError                1831, 1916, 1917, 1918  a pipe was used out of turn
    `-- RemoteFault              any   the routine raised, or aborted with a code of its own

A routine may raise any of them to end its call with that status: `raise ServerTooBusy("come back later")`.
"""

from collections.abc import Mapping

from ..errors import CallError
from ..status import Status


class Unavailable(CallError):
    """There is no server that serves the call now, and perhaps there is one later: none was reached, the connection was
    lost, or it has too much to do. `except Unavailable` is what an HTTP 503 is made of; `may_have_run` tells whether
    trying again is safe.
    """


class ServerUnavailable(Unavailable):
    """The server could not be reached, or takes no calls; the call did not run. Trying again is safe."""

    status: int = Status.SERVER_UNAVAILABLE
    may_have_run = False


class CallFailed(Unavailable):
    """The connection was lost after the call had been sent; it may have run. Try again only what is idempotent."""

    status: int = Status.CALL_FAILED


class CallFailedDne(Unavailable):
    """The connection was lost before the call was sent, or before a server that closed had taken it; it did not run.
    Trying again is safe.
    """

    status: int = Status.CALL_FAILED_DNE
    may_have_run = False


class ServerTooBusy(Unavailable):
    """The server refused the call for a limit of its own; it did not run. Try again after a while."""

    status: int = Status.SERVER_TOO_BUSY
    may_have_run = False


class CallCancelled(CallError):
    """The call was cancelled; whether it ran is not known."""

    status: int = Status.CALL_CANCELLED


class CallTimeout(CallCancelled, TimeoutError):
    """The time given to the call ran out; whether it ran is not known. An extension: Windows has it for no
    asynchronous call."""


class AccessDenied(CallError):
    """The server's security refused the call; it did not run."""

    status: int = Status.ACCESS_DENIED
    may_have_run = False


class ContextMismatch(CallError):
    """A context handle was closed, or is not this client's, or not this server's; the routine was not entered."""

    status: int = Status.RPC_X_SS_CONTEXT_MISMATCH
    may_have_run = False


class NullContext(CallError):
    """None was given where a context handle is needed; the routine was not entered."""

    status: int = Status.IN_NULL_CONTEXT
    may_have_run = False


class UnknownInterface(CallError):
    """The server has no interface of that name in that version."""

    status: int = Status.UNKNOWN_IF
    may_have_run = False


class UnknownOperation(CallError):
    """The interface has no operation of that name."""

    status: int = Status.PROCNUM_OUT_OF_RANGE
    may_have_run = False


class BadStubData(CallError):
    """Arguments or a result could not be decoded as their types say, or are larger than the other side takes."""

    status: int = Status.BAD_STUB_DATA


class PeerProtocolError(CallError):
    """The peer speaks another version of the protocol, or something else altogether."""

    status: int = Status.PROTOCOL_ERROR


class PipeError(CallError):
    """A pipe was used out of turn; `status` says how."""

    status: int = Status.WRONG_PIPE_ORDER


class RemoteFault(CallError):
    """The routine raised an exception, or aborted its call with a code.

    Fields:
        status: the code; `Status.REMOTE_FAULT` for an exception that carries none.
        type_name: the exception's type, as `"ValueError"`; empty for an abort.
        text: what the exception said.
        traceback: the routine's traceback if the server's policy sends it, else None.
        data: what the server attached to the fault, else None.
    """

    status: int = Status.REMOTE_FAULT

    def __init__(
        self,
        text: str = "",
        *,
        type_name: str = "",
        traceback: str | None = None,
        data: object = None,
        status: int | None = None,
    ) -> None:
        super().__init__(f"{type_name}: {text}" if type_name else text, status=status)
        self.type_name = type_name
        self.text = text
        self.traceback = traceback
        self.data = data


# The class that stands for each status, where there is one.
BY_STATUS: Mapping[int, type[CallError]] = {
    kind.status: kind
    for kind in (
        ServerUnavailable, CallFailed, CallFailedDne, ServerTooBusy, CallCancelled, AccessDenied, ContextMismatch,
        NullContext, UnknownInterface, UnknownOperation, BadStubData, PeerProtocolError,
    )
} | {
    Status.WRONG_PIPE_ORDER: PipeError,
    Status.PIPE_CLOSED: PipeError,
    Status.PIPE_DISCIPLINE_ERROR: PipeError,
    Status.PIPE_EMPTY: PipeError,
}  # fmt: skip


def error_for(
    status: int, text: str, type_name: str = "", traceback: str | None = None, data: object = None
) -> CallError:
    """Return the error that stands for `status`: its own class if it has one, else a `RemoteFault` that carries it."""
    kind = BY_STATUS.get(status)
    if kind is CallCancelled and type_name == CallTimeout.__name__:
        kind = CallTimeout  # They have one status.
    if kind is None:
        return RemoteFault(text, type_name=type_name, traceback=traceback, data=data, status=status)
    return kind(text or Status.name_of(status), status=status)
