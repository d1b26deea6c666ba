"""What both sides share: the socket, its monitor, frames in and out; and the ZeroMQ context that links share."""

import itertools
import os
import struct
import threading
import weakref
from collections import deque
from contextlib import ExitStack, suppress
from typing import Any, Final

import zmq
from zmq.backend import zmq_poll
from zmq.utils import garbage

from transport.endpoint import Endpoint
from transport.errors import EndpointError, LinkClosed
from transport.frames import MAX_BLOBS, Buffer
from transport.lifecycle import Layer, at_exit, fork_safe, in_child
from transport.link import BaseLink, LinkOptions, Receiver
from transport.lock import Lock
from transport.realtime import monotonic

#: From this size on a frame is received as a view of ZeroMQ's memory. Below it a copy is cheaper than the view.
NO_COPY_RECEIVE_BYTES: Final = 32 * 1024
#: From this size on a frame is sent without a copy. pyzmq's thread that frees the memory afterwards competes
#: for the GIL: measured, round trips of 64 KiB take 20 % longer, 256 KiB are even, 1 MiB gain a third.
NO_COPY_SEND_BYTES: Final = 512 * 1024

#: The monitor is looked at in one of this many harvests that found messages.
_LOOK_EVERY: Final = 16
#: A loss is reported after this many messages even if the socket never was empty: a server that is never idle.
_LOSS_WAITS: Final = 10_000

NOBLOCK: Final = int(zmq.NOBLOCK)
MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENT: Final = struct.Struct("=HI")

_GONE: Final = frozenset({int(zmq.ETERM), int(zmq.ENOTSOCK)})

_monitor_names: Final = itertools.count()


def _as_it_came(frame: Buffer) -> Any:
    """Return what to send of a large frame: the very one that it was received as, if it is the whole of that.

    Then ZeroMQ counts one more reference. Otherwise it calls back when the memory is free, by a thread of pyzmq's that
    needs the interpreter for it. (Two threads that count at once are kept apart by the global lock only.)
    """
    source = source_of(frame)
    if source is not None:
        return source
    ensure_collector()
    return frame


def source_of(frame: Buffer) -> Any:
    """Return the frame that was received of which this is the whole; None if there is none."""
    if type(frame) is memoryview:
        source: Any = frame.obj
        if type(source) is zmq.Frame and len(source) == frame.nbytes:
            return source
    return None


def is_gone(error: zmq.ZMQError) -> bool:
    """Whether the socket was taken away: its context was terminated, or destroyed with all that it had."""
    return error.errno in _GONE


def gone(error: zmq.ZMQError) -> LinkClosed:
    """What a link raises whose socket was taken away, or is of no use any more."""
    return LinkClosed(f"the ZeroMQ socket cannot be used any more: {error}")


class ZmqLink(BaseLink):
    """What both sides share."""

    kind = "zmq"
    _kind: int
    _events: int
    _verb: str

    def __init__(self, endpoint: Endpoint, options: LinkOptions) -> None:
        super().__init__(str(endpoint))
        self._target = endpoint
        self._options = options
        self.heartbeat: float = 0.0 if endpoint.local else options.heartbeat
        # Peers whose end the monitor saw, with the reason; the receiver gets `on_lost` when their messages are read.
        self._losing: dict[bytes, str] = {}
        self._messages_since_loss = 0
        self._harvests = 0
        # The last harvest ended early: whether there is more is not known. (A receive that finds nothing is
        # the dearest way to find out.)
        self._unsure = False
        # See `Link.arrived`.
        self.arrived: bool = False
        self._open()
        _open_links.add(self)
        global _longest_linger
        with _lock:
            _longest_linger = max(_longest_linger, options.linger)

    def _open(self) -> None:
        """Open a socket, and a monitor for it."""
        options = self._options
        try:
            look_for_room()
            context = zmq.Context.shadow(options.context.underlying) if options.context else shared_context()
            socket = context.socket(self._kind)
        except (zmq.ZMQError, OSError) as error:  # No descriptor is left, for one.
            raise EndpointError(f"cannot {self._verb} {self._target}: {error}") from error
        self._socket = socket
        # The methods of the C class: those of zmq.Socket add a Python call to each (0.3 us).
        plain: Any = super(zmq.Socket, socket)
        self._recv = plain.recv
        self._send = plain.send
        self._input = [(socket, int(zmq.POLLIN))]
        self._output = [(socket, int(zmq.POLLOUT))]
        self._monitor: zmq.Socket[bytes] | None = None
        # What was read from the monitor and not dealt with: events, each with its value.
        self._monitored: deque[tuple[int, int]] = deque()
        # When the monitor was last seen to have nothing to say.
        self._looked = monotonic()
        try:
            socket.set(zmq.LINGER, int(options.linger * 1000))
            socket.set(zmq.MAXMSGSIZE, options.max_message_bytes)
            if self._target.scheme == "tcp" and self._target.host.startswith("["):
                socket.set(zmq.IPV6, 1)
            if options.heartbeat and not self._target.local:
                interval = int(options.heartbeat * 1000)
                socket.set(zmq.HEARTBEAT_IVL, interval)
                socket.set(zmq.HEARTBEAT_TIMEOUT, 3 * interval)
                socket.set(zmq.HEARTBEAT_TTL, 3 * interval)
            if not self._target.local:
                self._open_monitor(context)
            self._attach(socket)
        except BaseException as error:
            self._close_sockets()
            if isinstance(error, EndpointError) or not isinstance(error, zmq.ZMQError | OSError):
                raise
            raise EndpointError(f"cannot {self._verb} {self._target}: {error}") from error

    def _attach(self, socket: "zmq.Socket[bytes]") -> None:
        """Set the options of one side, and connect or bind."""
        raise NotImplementedError

    def _open_monitor(self, context: "zmq.Context[Any]") -> None:
        # Not get_monitor_socket(): it names the pair after the socket's descriptor, which may be in use again
        # while the pair of a closed socket still exists.
        name = f"inproc://callport-monitor-{os.getpid()}-{next(_monitor_names)}"
        self._socket.monitor(name, self._events)
        monitor = self._monitor = context.socket(zmq.PAIR)
        monitor.set(zmq.LINGER, 0)
        # No limit: ZeroMQ's thread would block on it. What waits here is bounded by the connections made.
        monitor.set(zmq.RCVHWM, 0)
        monitor.connect(name)
        # The descriptor shows the next event only to a reader that has found nothing; from here on every reading ends
        # that way.
        with suppress(zmq.Again):  # Mostly there is nothing yet.
            monitor.recv(NOBLOCK)
        # By its descriptor: asking the socket takes twice as long.
        self._monitor_poll = [(monitor.fileno(), int(zmq.POLLIN))]

    def _close_sockets(self, linger: int | None = None) -> None:
        """Close both; nothing if they are closed already, because no others could be opened in their place."""
        monitor = self._monitor
        if monitor is not None:
            with suppress(zmq.ZMQError):  # Taken away: nothing is left to be reported.
                self._socket.disable_monitor()
            monitor.close()
            self._monitor = None
        self._socket.close(linger)

    def _inner_descriptors(self) -> list[int]:
        found = [self._socket.fileno()]
        if self._monitor is not None:
            found.append(self._monitor.fileno())
        return found

    def ready(self) -> bool:
        """Whether a message waits. (The monitor's descriptor speaks for itself: only `harvest` reads it.)"""
        self._unsure = False
        try:
            return bool(zmq_poll(self._input, 0))
        except zmq.ZMQError as error:
            raise gone(error) from error

    def writable(self) -> bool:
        """Whether the socket would take a message."""
        try:
            return bool(zmq_poll(self._output, 0))
        except zmq.ZMQError as error:
            raise gone(error) from error

    def _release(self) -> None:
        """Close both sockets; ZeroMQ's thread goes on sending for the linger time."""
        self._close_sockets()

    def _read_monitor(self) -> None:
        """Read the events of the monitor."""
        monitor = self._monitor
        if monitor is None:
            return
        self._looked = monotonic()
        if not zmq_poll(self._monitor_poll, 0):
            return
        with suppress(zmq.Again):  # All are read.
            while True:
                head = monitor.recv(NOBLOCK)
                if monitor.get(zmq.RCVMORE):
                    monitor.recv(NOBLOCK)
                    if len(head) == _EVENT.size:
                        self._monitored.append(_EVENT.unpack(head))

    def _read_rest(self, frames: list[Buffer]) -> None:
        """The frames after the first of a message. More than a message may have are read and dropped."""
        more = True
        while more:
            frame = self._recv(NOBLOCK, False)
            more = frame.more
            if len(frames) <= MAX_BLOBS + 1:
                frames.append(frame.bytes if len(frame) < NO_COPY_RECEIVE_BYTES else frame.buffer)

    def _skip_message(self) -> zmq.Frame | None:
        """Something broke in on a message: read the rest of it, so that the next frame begins another.

        Returns: its last frame; None if it had been read.
        """
        rest = None
        while self._socket.get(zmq.RCVMORE):
            rest = self._recv(NOBLOCK, False)
        return rest

    def _send_frames(self, frames: list[Buffer]) -> None:
        """Send a message of several frames, or of a large one."""
        sent: list[Buffer] = []
        try:
            self._send_each(frames, sent)
        except BaseException as error:
            if len(frames) > 1:
                self._end_message(bool(sent), error)
            raise

    def _end_message(self, begun: bool, error: BaseException) -> None:
        """A message of several frames was broken off, perhaps before its first one was sent: end it."""
        # A connection that broke in the middle takes back what was sent, and drops what follows up to the end of the
        # message. If something from outside broke in, the message must end too, or the next one would become a part of
        # it; the peer will not take it for good. In both cases an empty frame is that end. (After a first frame that
        # was refused, nothing has begun. After one that was interrupted, something may have.)
        if begun or not isinstance(error, zmq.ZMQError):
            with suppress(zmq.ZMQError):  # The peer is gone, or nothing had begun: there is nothing to end.
                self._send(b"", NOBLOCK)

    def _send_each(self, frames: list[Buffer], sent: list[Buffer]) -> None:
        last = len(frames) - 1
        for index, frame in enumerate(frames):
            copy = len(frame) < NO_COPY_SEND_BYTES
            if not copy:
                frame = _as_it_came(frame)
            self._send(frame, MORE if index < last else NOBLOCK, copy)
            sent.append(frame)

    def _report_losses(self, receiver: Receiver) -> None:
        """Report the losses: all messages of those peers were read."""
        self._messages_since_loss = 0
        while self._losing:
            peer, reason = self._losing.popitem()
            evicted = self._is_evicted(peer)
            self._forget(peer)
            receiver.on_lost(peer, reason, evicted)

    def _leave_early(self, receiver: Receiver, count: int) -> bool:
        """There may be more, but this harvest ends; a loss is waiting to be reported."""
        self._messages_since_loss += count
        if self._messages_since_loss > _LOSS_WAITS:
            self._report_losses(receiver)
        return True

    def _finish_harvest(self, receiver: Receiver, count: int) -> bool:
        """The socket was just seen empty, after `count` messages."""
        if self._losing:
            self._report_losses(receiver)
        self._harvests += 1
        if not count or self._harvests % _LOOK_EVERY == 0:
            self._look(receiver)
            if self._losing:
                # It may have sent more between the last receive and its end.
                if zmq_poll(self._input, 0):
                    return True
                self._report_losses(receiver)
        return bool(self._monitored)

    def _is_evicted(self, peer: bytes) -> bool:
        """Whether this side has ended the connection of a peer that is lost."""
        return False

    def _forget(self, peer: bytes) -> None:
        raise NotImplementedError

    def _look(self, receiver: Receiver) -> None:
        raise NotImplementedError


#: Descriptors that a context and a link in it may need at once: 5 for the context, 2 or 3 for each of its sockets; and
#: some more, because they are needed by several threads.
ROOM: Final = 16
#: Seconds that ZeroMQ has, at the end of the process, to end once what was handed over has left. Arbitrary.
ENDING: Final = 1.0

# Guards what follows.
_lock = Lock()
# Not zmq.Context.instance(): nothing terminates that, and when the process ends, messages on their way are
# lost, or their memory is freed under ZeroMQ's thread, which then aborts the process.
_shared: "zmq.Context[Any] | None" = None
_open_links: "weakref.WeakSet[ZmqLink]" = weakref.WeakSet()
# The longest linger time of a link, in seconds.
_longest_linger = 0.0
# The process is about to end: no new sockets.
_ending = False


def shared_context() -> "zmq.Context[Any]":
    """The context of all links that were not given one."""
    global _shared
    with _lock:
        if _ending:
            raise LinkClosed("the process is ending: no link can be opened any more")
        if _shared is None:
            _shared = zmq.Context()
            # A link has three sockets with its monitor; the default of 1023 would be 341 links.
            _shared.set(zmq.MAX_SOCKETS, 16384)
        return _shared


def look_for_room() -> None:
    """Raise `OSError` if so few descriptors are left that ZeroMQ might lack one, which ends the process.

    Others may take them meanwhile: this is a look, no reservation.
    """
    with ExitStack() as room:
        _open_many(room)


def _open_many(room: ExitStack) -> None:
    for _ in range(ROOM):
        room.enter_context(open(os.devnull, "rb", buffering=0))


def ensure_collector() -> None:
    """Start pyzmq's thread that frees what was sent without a copy, and name it; nothing if it runs.

    pyzmq would start it by itself.
    """
    collector = garbage.gc
    if collector.is_alive():
        return
    collector.refs.pop(collector.store(None), None)
    if collector.thread is not None:
        collector.thread.name = "transport:sent-buffers"


def _at_exit() -> None:
    """Close what is open, and wait until what was handed over has left, for the longest linger time."""
    global _ending
    with _lock:
        _ending = True
    for link in list(_open_links):
        # A thread that has been holding this lock for so long hangs in the middle of something.
        if not link.lock.acquire(timeout=1.0):
            return
        try:
            link.close()
        finally:
            link.lock.release()
    if _shared is not None:
        # No other socket will be opened, and each that is closed lingers for a limited time. One that was dropped and
        # could not be closed, because a warning of it is an error, would be waited for without end.
        ending = threading.Thread(target=_shared.term, name="transport:ending", daemon=True)
        try:
            ending.start()
        except RuntimeError:  # No thread is to be had.
            ending.run()
        else:
            ending.join(_longest_linger + ENDING)


def _forget() -> None:
    global _shared
    _shared = None
    _open_links.clear()


in_child(_forget)
# pyzmq does not see to this one, under which it starts the thread that frees what was sent without a copy.
fork_safe(garbage.gc._lock)
# Runs before pyzmq forgets what is being sent without a copy: `garbage` registered its own hook when it was
# imported above.
at_exit(Layer.LINKS, _at_exit)
