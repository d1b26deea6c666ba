"""Errors of the transport, split by who can act on them, below the root of the whole library's errors.

EngineError                 root of the engine's errors too, which are in `engine/errors.py`
TransportError              an EngineError
    LocalProtocolError      we were misused: the caller's bug
        PayloadTooLarge     one call or reply is larger than a message may be
        LinkClosed          the link was closed here
        LinkForked          the link was opened by the parent process
    RemoteProtocolError     the peer sent something that is not the protocol; `reason` says what
        VersionMismatch     it speaks another version; `version` is the one it used
    PeerLost                there is no connection to that peer
    EndpointError           the endpoint's text is wrong, or it cannot be used (also a ValueError)
    OverlappedError         an overlapped operation or its source; `status` is the Windows number
        InvalidOperation    87    the call cannot be right: mend it (also a ValueError)
        SourceClosed        6     the source was closed, or given back by `detach`
            SourceForked    6     the source was made by the parent process
        TooManyOperations   1816  a bound was reached; nothing was begun
        OperationNotFound   1168  a cancel found nothing to cancel
        OperationPending    996   the result was asked for before the operation completed
        OperationFailed           the operation failed; `status` says how (995: it was cancelled)
"""

from typing import Any

# What the numbers of overlapped operations and their sources are called.
_NAMES = {
    5: "ACCESS_DENIED",
    6: "INVALID_HANDLE",
    22: "BAD_COMMAND",
    31: "GEN_FAILURE",
    38: "HANDLE_EOF",
    50: "NOT_SUPPORTED",
    64: "NETNAME_DELETED",
    87: "INVALID_PARAMETER",
    109: "BROKEN_PIPE",
    234: "MORE_DATA",
    995: "OPERATION_ABORTED",
    996: "IO_INCOMPLETE",
    1168: "NOT_FOUND",
    1232: "HOST_UNREACHABLE",
    1816: "NOT_ENOUGH_QUOTA",
}


class EngineError(Exception):
    """Base of every error that the library raises on purpose; `status` holds the Windows status number.

    It stands here because the transport imports nothing of the engine, and a program that catches it means both.
    """

    status: int = 1766

    def __init__(self, message: str = "", *, status: int | None = None) -> None:
        super().__init__(message)
        if status is not None:
            self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        # Without `__init__`, which takes other arguments in some classes, and makes the text of them.
        return _restored, (type(self), self.args), self.__dict__

    @staticmethod
    def status_name(number: int) -> str:
        """Return what a status number is called. (The engine has the list, and replaces this.)"""
        return "STATUS"

    def __str__(self) -> str:
        number = int(self.status)
        return f"{self.args[0] if self.args else ''} [{self.status_name(number)} {number}]".lstrip()


def _restored(kind: type[EngineError], args: tuple[Any, ...]) -> EngineError:
    """Return an error as it was pickled or copied."""
    error = kind.__new__(kind)
    error.args = args
    return error


class TransportError(EngineError):
    """Base of every error raised by this package. Its text has no number, but for overlapped operations."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class LocalProtocolError(TransportError):
    """This side did something the protocol or the link does not allow."""


class PayloadTooLarge(LocalProtocolError):
    """One call or reply, encoded, is larger than a message may be."""


class LinkClosed(LocalProtocolError):
    """The link was closed by this process."""


class LinkForked(LocalProtocolError):
    """The link belongs to the parent process: sockets do not survive a fork."""


class RemoteProtocolError(TransportError):
    """The peer sent something that is not the protocol."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class VersionMismatch(RemoteProtocolError):
    """The peer speaks a version of the protocol that this side does not."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the peer speaks version {version} of the protocol, this side does not")
        self.version = version


class PeerLost(TransportError):
    """There is no connection to the peer: it never was, or it is gone."""


class EndpointError(TransportError, ValueError):
    """The endpoint's text is wrong, or the endpoint cannot be used as asked."""


class OverlappedError(TransportError):
    """An overlapped operation or its source says no; `status` is the Windows number."""

    status = 31

    def __str__(self) -> str:
        number = int(self.status)
        return f"{self.args[0]} [{_NAMES.get(number) or self.status_name(number)} {number}]"


class InvalidOperation(OverlappedError, ValueError):
    """An argument is wrong, or this kind of source cannot do that. Nothing was begun."""

    status = 87


class SourceClosed(OverlappedError):
    """The source was closed, or given back by `detach`."""

    status = 6


class SourceForked(SourceClosed):
    """The source was made by the parent process: make one in this process."""


class TooManyOperations(OverlappedError):
    """A bound was reached: pending operations of the source, or packets in its port. Nothing was begun."""

    status = 1816


class OperationNotFound(OverlappedError):
    """A cancel found no pending operation that it is about."""

    status = 1168


class OperationPending(OverlappedError):
    """The operation has not completed yet; asking harmed nothing."""

    status = 996


class OperationFailed(OverlappedError):
    """The operation failed: at once, and then it was not accepted; or later, and `status` is its packet's."""
