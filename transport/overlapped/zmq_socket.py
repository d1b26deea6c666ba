"""Overlapped ZeroMQ sockets: any socket of the caller's, of any type.

Theory of operation. A ZeroMQ descriptor shows edges, which any send or receive may consume. So a thread
that has used the socket looks at its events afterwards and goes on until they show nothing to do (`advance_locked`
ends that way); an edge that comes later wakes the thread that polls. Attempts are made only when the events allow
them. That also makes operations wait for their turn: a receive on a REQ socket may be begun before the send
that it answers.

Messages are whole: a receive takes one message with all its frames, a send hands one over. A signal handler
may raise in the midst of one (KeyboardInterrupt), also inside pyzmq, after ZeroMQ has moved a frame; then it
cannot be known which frames were moved. Then the rest of the message is skipped, and the receive waits for the next
one; a send ends its message with an empty frame, and fails with 31.

Source: ZeroMQ's manual for `zmq_getsockopt` (ZMQ_FD, ZMQ_EVENTS), `zmq_msg_recv`, `zmq_msg_send`.
"""

import errno
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Final

import zmq
from zmq.backend import zmq_poll

from transport.errors import InvalidOperation
from transport.foreign import a_type, text_of
from transport.lock import Lock
from transport.overlapped.operation import (
    BAD_COMMAND,
    GEN_FAILURE,
    HOST_UNREACHABLE,
    INPUT,
    INVALID_HANDLE,
    ITSELF,
    MORE_DATA,
    NOT_SUPPORTED,
    OK,
    OPERATION_ABORTED,
    OUTPUT,
    OverlappedOperation,
    Settable,
)
from transport.overlapped.source import DEFAULT_LIMIT, OverlappedSource, check_limit, readable, writable

NOBLOCK: Final = int(zmq.NOBLOCK)
MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
_RCVMORE: Final = int(zmq.RCVMORE)

#: What a frame to be sent is kept as; a view is one of bytes.
Frame = bytes | memoryview | zmq.Frame

_SEND_ONLY: Final = frozenset({int(zmq.PUSH), int(zmq.PUB)})
_RECEIVE_ONLY: Final = frozenset({int(zmq.PULL), int(zmq.SUB)})

_STATUSES: Final = {
    errno.EHOSTUNREACH: HOST_UNREACHABLE,
    int(zmq.EFSM): BAD_COMMAND,
    int(zmq.ENOTSUP): NOT_SUPPORTED,
    int(zmq.ENOTSOCK): INVALID_HANDLE,
    int(zmq.ETERM): OPERATION_ABORTED,
}
_FATAL: Final = frozenset({int(zmq.ETERM), int(zmq.ENOTSOCK)})


class _Plain:
    """The socket's methods in C: those of `zmq.Socket` add a Python call to each (0.3 us)."""

    __slots__ = ("get", "recv", "recv_into", "send", "torn")

    def __init__(self, socket: "zmq.Socket[Any]") -> None:
        plain: Any = super(zmq.Socket, socket)
        self.get = plain.get
        self.send = plain.send
        # None before pyzmq 26.4.
        self.recv_into = getattr(plain, "recv_into", None)
        self.recv = plain.recv
        # The rest of a message is to be skipped.
        self.torn = False

    def mend(self) -> None:
        """Skip the rest of a torn message."""
        self.torn = True
        while self.get(_RCVMORE):
            self.recv(NOBLOCK)
        self.torn = False


class ReceiveOperation(OverlappedOperation[list[Any]]):
    """A receive of one message; `result()` and `frames` are its frames."""

    __slots__ = ("_copy", "_parts", "_targets")

    def __init__(self, targets: list[memoryview | None], copy: bool, *begun: Any) -> None:
        super().__init__(*begun)
        self._targets = targets
        self._copy = copy
        # What has arrived of the message: frames, and sizes of those that went into a buffer.
        self._parts: list[zmq.Frame | int] = []
        self._result: list[Any] = []

    @property
    def frames(self) -> list[Any]:
        """The frames received: none while pending; of a message that was cut (234), what found room."""
        return self._result

    def _attempt(self, handle: _Plain) -> int | None:
        if handle.torn:
            handle.mend()
        try:
            while not self._parts or self._more(handle):
                self._receive_frame(handle)
        except zmq.Again:
            return None  # It stays pending.
        return self._finish()

    def _more(self, handle: _Plain) -> bool:
        last = self._parts[-1]
        return bool(handle.get(_RCVMORE)) if isinstance(last, int) else last.more

    def _receive_frame(self, handle: _Plain) -> None:
        index = len(self._parts)
        target = self._targets[index] if index < len(self._targets) else None
        if target is None or handle.recv_into is None:
            self._parts.append(handle.recv(NOBLOCK, False))
        else:
            self._parts.append(handle.recv_into(target, flags=NOBLOCK))

    def _interrupted(self, handle: _Plain) -> int | None:
        self._parts = []
        handle.mend()
        return None

    def _finish(self) -> int:
        frames: list[Any] = []
        total = 0
        status = OK
        for index, part in enumerate(self._parts):
            target = self._targets[index] if index < len(self._targets) else None
            if target is None:
                assert isinstance(part, zmq.Frame), "only a target gets a size"
                frames.append(part.bytes if self._copy else part)
                total += len(part)
                continue
            size = part if isinstance(part, int) else len(part)
            kept = min(size, len(target))
            if not isinstance(part, int):
                target[:kept] = part.buffer[:kept]
            if kept < size:
                status = MORE_DATA
            frames.append(target[:kept])
            total += kept
        self._result = frames
        self._transferred = total
        self._parts = []
        self._targets = []
        return status


class SendOperation(OverlappedOperation[int]):
    """A send of one message; `result()` is its size in bytes."""

    __slots__ = ("_copy", "_frames", "_sent")

    def __init__(self, frames: list[Frame], copy: bool, *begun: Any) -> None:
        super().__init__(*begun)
        self._frames = frames
        self._copy = copy
        self._sent = 0

    def _attempt(self, handle: _Plain) -> int | None:
        frames = self._frames
        last = len(frames) - 1
        try:
            while self._sent <= last:
                flags = MORE if self._sent < last else NOBLOCK
                handle.send(frames[self._sent], flags, self._copy)
                self._sent += 1
        except zmq.ZMQError as error:
            # A connection that broke in the middle takes back what was sent, and drops what follows up to the
            # end of the message: an empty frame is that end. Then the message begins again.
            if 0 < self._sent < last:
                handle.send(b"", NOBLOCK)
            self._sent = 0
            if error.errno == zmq.EAGAIN:
                return None
            raise
        self._result = self._transferred = sum(map(len, frames))
        self._frames = []
        return OK

    def _interrupted(self, handle: _Plain) -> int | None:
        if self._sent == len(self._frames):
            return None  # It is complete but for the last steps of `_attempt`, which come again.
        if len(self._frames) > 1:
            with suppress(zmq.ZMQError):  # Then nothing had begun, or there is no peer to read it.
                handle.send(b"", NOBLOCK)
        return GEN_FAILURE


class _Device:
    """The device: a socket, and what it is asked."""

    failures: tuple[type[Exception], ...] = (zmq.ZMQError,)
    outcomes: frozenset[int] = frozenset()

    def __init__(self, socket: "zmq.Socket[Any]") -> None:
        try:
            self._fds = [socket.fileno()]
            self.kind = int(socket.type)
        except zmq.ZMQError as error:
            raise InvalidOperation(f"the socket cannot be used: {text_of(error)}") from error
        with _claims_lock:
            if socket in _claims:
                raise InvalidOperation("the socket has an OverlappedSocket already")
            _claims.add(socket)
        self.socket = socket
        self.handle = _Plain(socket)
        # What `zmq_poll` is asked: 1.6 us, where the option ZMQ_EVENTS takes 1.9.
        self._interest = [(socket, int(zmq.POLLIN | zmq.POLLOUT))]
        # With ROUTER_MANDATORY the events say whether *some* peer can be sent to; only an attempt shows it of one.
        self._always = OUTPUT if self.kind == zmq.ROUTER else 0

    def descriptors(self) -> Sequence[int]:
        return self._fds

    def ready(self) -> int:
        # ZeroMQ's POLLIN and POLLOUT are INPUT and OUTPUT.
        found = zmq_poll(self._interest, 0)
        return self._always | (found[0][1] if found else 0)

    def woken(self, wanted: int) -> None:
        if not wanted:
            self.ready()  # Looking is what makes the descriptor unreadable.

    def watch(self, wanted: int) -> None:
        """Nothing: the descriptor of a socket shows both directions."""

    def is_fatal(self, error: Exception) -> bool:
        return isinstance(error, zmq.ZMQError) and error.errno in _FATAL

    def status_of(self, error: Exception) -> int:
        assert isinstance(error, zmq.ZMQError), "nothing else is caught"
        return _STATUSES.get(error.errno or 0, GEN_FAILURE)

    def release(self, close: bool) -> None:
        with _claims_lock:
            _claims.discard(self.socket)
        if close:
            self.socket.close()


class OverlappedSocket(OverlappedSource):
    """A ZeroMQ socket whose sends and receives complete as packets on a port.

    Args:
        socket: a plain `zmq.Socket` of any type (not one of `zmq.asyncio`), connected or bound by the caller,
            before or after. From here on it is used through this object.
        limit: how many operations may be pending.

    Raises: `InvalidOperation` (87).

    Receives take messages in the order in which they were begun, sends leave in that order, and neither waits
    for the other. A send that the socket cannot take holds up those behind it; on a ROUTER with
    ROUTER_MANDATORY that goes for a peer whose queue is full.

        with CompletionPort() as port, OverlappedSocket(context.socket(zmq.DEALER)) as dealer:
            port.associate(dealer, key="dealer")
            with dealer.exclusive() as socket:
                socket.connect("tcp://127.0.0.1:5555")
            dealer.begin_recv()
            dealer.begin_send([b"hello"])
            packet = port.get(timeout=1.0)
            print(packet.key, packet.overlapped.result())
    """

    def __init__(self, socket: "zmq.Socket[Any]", *, limit: int = DEFAULT_LIMIT) -> None:
        if not isinstance(socket, zmq.Socket) or hasattr(socket, "_recv_futures"):
            raise InvalidOperation(f"socket must be a plain zmq.Socket, not {a_type(socket)}")
        check_limit(limit)
        self._device = _Device(socket)
        super().__init__(self._device, limit)

    def begin_recv(
        self, into: Any = None, *, copy: bool = True, overlapped: Any = ITSELF, event: Settable | None = None,
        packet: bool = True,
    ) -> ReceiveOperation:  # fmt: skip
        """Begin to receive one message; see `OverlappedSource` for what all begins share.

        Args:
            into: a writable buffer for the first frame, or a list with one for each frame, None where an
                ordinary frame will do (the routing id of a ROUTER). The bytes go straight from ZeroMQ into
                the buffer. (Before pyzmq 26.4, by way of a frame.)
            copy: False: ordinary frames are `zmq.Frame` objects, views of ZeroMQ's memory.
        `result()`, or `frames`: a list of the frames: bytes (or `zmq.Frame`), and a memoryview of what was
            filled for each buffer.
        Transferred: the bytes of all frames. A frame that is larger than its buffer is cut, the rest is lost,
            and the status is 234 (MORE_DATA).
        """
        if self._device.kind in _SEND_ONLY:
            raise InvalidOperation("this type of socket cannot receive", status=NOT_SUPPORTED)
        receive = ReceiveOperation(_targets(into), copy, self, self._completions, overlapped, event, packet)
        return self._pending.begin(receive, self._pending.input)

    def begin_send(
        self, frames: Any, *, copy: bool = True, overlapped: Any = ITSELF, event: Settable | None = None,
        packet: bool = True,
    ) -> SendOperation:  # fmt: skip
        """Begin to send one message; see `OverlappedSource` for what all begins share.

        It completes when ZeroMQ has taken the message, which is not to say that it has arrived.

        Args:
            frames: one frame or a list of them: bytes-like objects or `zmq.Frame`. They belong to the
                operation until it completes.
            copy: False: large frames are not copied, and their memory must not change until ZeroMQ is done
                with it. To learn when: `zmq.Frame(data, copy=False, track=True)`, and its `tracker`.
        `result()`, transferred: the size in bytes.
        """
        if self._device.kind in _RECEIVE_ONLY:
            raise InvalidOperation("this type of socket cannot send", status=NOT_SUPPORTED)
        send = SendOperation(_checked(frames), copy, self, self._completions, overlapped, event, packet)
        return self._pending.begin(send, self._pending.output)

    def exclusive(self) -> "AbstractContextManager[zmq.Socket[Any]]":
        """Lend the socket for other uses: `with source.exclusive() as socket: socket.connect(...)`.

        No other thread uses it meanwhile. Inside, call nothing that blocks, and no method of this object.
        """
        return self._pending.lend(self._device.socket)

    def detach(self) -> "zmq.Socket[Any]":
        """Close this object but not the socket, which is returned: it is the caller's alone again.

        What is pending completes with 995. Raises: `SourceClosed`.
        """
        self._pending.end(close=False)
        return self._device.socket


assert (int(zmq.POLLIN), int(zmq.POLLOUT)) == (INPUT, OUTPUT)

_claims_lock = Lock()
# Guarded by _claims_lock. Sockets that have an OverlappedSocket.
_claims: "weakref.WeakSet[zmq.Socket[Any]]" = weakref.WeakSet()


def _checked(frames: Any) -> list[Frame]:
    """One frame or several, as a list of what can be sent."""
    found = frames if isinstance(frames, list | tuple) else [frames]
    if not found:
        raise InvalidOperation('frames must not be empty: a message has at least one, which may be b""')
    return [frame if isinstance(frame, bytes | zmq.Frame) else readable(frame) for frame in found]


def _targets(into: Any) -> list[memoryview | None]:
    if into is None:
        return []
    if isinstance(into, list | tuple):
        return [None if buffer is None else writable(buffer) for buffer in into]
    return [writable(into)]
