"""What closed links have still to send: one thread writes it, within their linger time, and ends.

Theory of operation. A link that is closed must not block, and has no thread. Mostly nothing is left then. What is left
goes to a thread of this file's, with the sockets: it writes as they take it, and closes each when it is done, or when
its time is up. The end of the process waits for it, and does the same where there is no thread to be had any more.

Assumes: single operations of a deque are atomic; what is appended before `ensure` the thread finds (`Service`).
"""

import selectors
import socket as sockets
from collections import deque
from contextlib import suppress

from transport.frames import Buffer
from transport.lifecycle import Layer, at_exit, in_child
from transport.log import Log
from transport.realtime import monotonic
from transport.service import Service, is_ending

log: Log = Log("transport")


class Farewell:
    """What is left to be sent on one socket, which is its own from now on."""

    def __init__(self, socket: sockets.socket, pieces: deque[Buffer], until: float) -> None:
        self._socket = socket
        self._pieces = pieces
        self.until = until

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def write(self) -> bool:
        """Send what the socket takes; return whether it was closed, as all has left, or the peer is gone."""
        try:
            while self._pieces:
                sent = self._socket.send(self._pieces[0])
                rest = memoryview(self._pieces.popleft())[sent:]
                if rest:
                    self._pieces.appendleft(rest)
        except BlockingIOError:
            return False
        except OSError:
            pass
        self.close()
        return True

    def close(self) -> None:
        """Give up."""
        with suppress(OSError):
            self._socket.shutdown(sockets.SHUT_WR)
        self._socket.close()


# By single atomic operations: what was not taken up by the thread yet.
_new: deque[Farewell] = deque()
# How long the last of them may take; written under no lock, as what is lost of it is little.
_until = 0.0
_service: Service


def linger(socket: sockets.socket, pieces: deque[Buffer], seconds: float) -> None:
    """Have these leave within so many seconds, and the socket closed. Never blocks."""
    global _until
    farewell = Farewell(socket, pieces, monotonic() + seconds)
    _until = max(_until, farewell.until)
    _new.append(farewell)
    if not _service.ensure() and not is_ending(_service.refusal):  # No thread is to be had.
        with suppress(ValueError):
            _new.remove(farewell)
            farewell.close()


def _write_all() -> None:
    with selectors.DefaultSelector() as selector:
        while _new or selector.get_map():
            while _new:
                farewell = _new.popleft()
                if not farewell.write():
                    selector.register(farewell, selectors.EVENT_WRITE)
            _write_some(selector)


def _write_some(selector: selectors.BaseSelector) -> None:
    """Write where that can be, and close those whose time is up. What is new waits 20 ms at most."""
    for key, _ in selector.select(0.02):
        farewell: Farewell = key.fileobj  # type: ignore[assignment]  # as registered
        selector.unregister(farewell)
        if not farewell.write():
            selector.register(farewell, selectors.EVENT_WRITE)
    for key in list(selector.get_map().values()):
        farewell = key.fileobj  # type: ignore[assignment]  # as registered
        if monotonic() >= farewell.until:
            selector.unregister(farewell)
            farewell.close()


def _finish() -> None:
    """The process ends: wait until all has left, or its time is up. Threads may be had no longer."""
    if _new and not _service.running:
        _write_all()
    _service.join(max(0.0, _until - monotonic()) + 0.1)


@in_child
def _renew() -> None:
    """Begin with none, and no thread."""
    global _service, _until
    _new.clear()
    _until = 0.0
    _service = Service("transport:linger", _write_all, log.failed, more=lambda: bool(_new), depended_on=False)


_renew()
at_exit(Layer.SOCKETS, _finish)
