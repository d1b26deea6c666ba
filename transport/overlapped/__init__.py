"""Overlapped operations: begun now, complete later, as packets on a completion port.

    operation    one operation: its arguments, its outcome
    services     what a port does for a source, and what it polls
    source       what sources share: queues, cancelling, the way to a port, the end
    zmq_socket   ZeroMQ sockets of any type
    descriptor   file descriptors: pipes, stream sockets, terminals

Arrows: zmq_socket, descriptor -> source -> services, operation. The engine is handed in: a port gives its
`SourceServices`.
"""

from transport.overlapped import operation as _operation
from transport.overlapped.descriptor import OverlappedDescriptor, ReadOperation, WriteOperation
from transport.overlapped.operation import ITSELF, OverlappedOperation, Settable
from transport.overlapped.services import SourceServices
from transport.overlapped.source import (
    EVERY,
    SKIP_PORT_ON_SUCCESS,
    SKIP_SET_EVENT_ON_HANDLE,
    OverlappedSource,
    SourceStatistics,
)
from transport.overlapped.zmq_socket import OverlappedSocket, ReceiveOperation, SendOperation

# The annotations of `OverlappedOperation` name these two, which its module could not import without a circle.
vars(_operation).update(OverlappedSource=OverlappedSource, SourceServices=SourceServices)

__all__ = [
    "EVERY",
    "ITSELF",
    "SKIP_PORT_ON_SUCCESS",
    "SKIP_SET_EVENT_ON_HANDLE",
    "OverlappedOperation",
    "OverlappedDescriptor",
    "OverlappedSocket",
    "OverlappedSource",
    "ReadOperation",
    "ReceiveOperation",
    "SendOperation",
    "SourceServices",
    "Settable",
    "SourceStatistics",
    "WriteOperation",
]
