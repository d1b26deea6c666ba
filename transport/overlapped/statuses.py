"""The Windows numbers that operations end with, and what those that a failed one ends with mean, for people."""

from typing import Final

OK: Final = 0
ACCESS_DENIED: Final = 5
INVALID_HANDLE: Final = 6
BAD_COMMAND: Final = 22
GEN_FAILURE: Final = 31
HANDLE_EOF: Final = 38
NOT_SUPPORTED: Final = 50
NETNAME_DELETED: Final = 64
BROKEN_PIPE: Final = 109
MORE_DATA: Final = 234
OPERATION_ABORTED: Final = 995
PENDING: Final = 997
HOST_UNREACHABLE: Final = 1232

MEANINGS: Final = {
    ACCESS_DENIED: "access was denied",
    INVALID_HANDLE: "the object was closed",
    HANDLE_EOF: "end of stream",
    NETNAME_DELETED: "the peer broke the connection off",
    BROKEN_PIPE: "the other end of the pipe was closed",
    MORE_DATA: "there was more than the buffer takes",
    OPERATION_ABORTED: "cancelled",
    HOST_UNREACHABLE: "there is no such peer",
}
