"""Overlapped operations: begun now, complete later, as packets on a completion port.

    operation    one operation: its arguments, its outcome, its packet; what it needs of a port and of a device
    pending      the operations of a source: two queues, attempts, cancelling
    source       what sources have in common for their users: the way to a port, the end
    zmq_socket   ZeroMQ sockets of any type
    descriptor   file descriptors: pipes, stream sockets, terminals

Arrows: zmq_socket, descriptor -> source -> pending -> operation. The engine is handed in: a port
gives its `SourceServices`.
"""

from transport.overlapped.descriptor import OverlappedDescriptor, ReadOperation, WriteOperation
from transport.overlapped.operation import SKIP_PORT_ON_SUCCESS, SKIP_SET_EVENT_ON_HANDLE, OverlappedOperation
from transport.overlapped.source import OverlappedSource, SourceStatistics
from transport.overlapped.zmq_socket import OverlappedSocket, ReceiveOperation, SendOperation

__all__ = [
    "SKIP_PORT_ON_SUCCESS", "SKIP_SET_EVENT_ON_HANDLE", "OverlappedOperation", "OverlappedDescriptor",
    "OverlappedSocket", "OverlappedSource", "ReadOperation", "ReceiveOperation", "SendOperation",
    "SourceStatistics", "WriteOperation",
]  # fmt: skip
