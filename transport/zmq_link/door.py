"""The doors of servers: ZeroMQ asks at them whether a connection is let in, before anything of its peer counts.

Theory of operation. ZeroMQ asks one handler for each context (ZAP), in the midst of a connection's handshake. It is a
thread here, so that no handshake depends on who harvests. Each server has a `Door` under a domain of its own: it says
who the peer is, and how long it has to wait. Whoever has to wait is answered later.

    handshake -> the keeper's socket -> door of the domain -> answer, now or at its time

The pace is what makes a known assertion of libzmq hard to reach: a ROUTER numbers its peers one after the other, from
where C's `rand` has it begin, and aborts the process if a peer has given itself the number that is next. So the numbers
begin where nobody can know (`random_numbers`), and only so many can be tried in a second.

Guarantees: a door that is shut, as the process is stuck, lets nobody in. A peer that is refused for its key hears so.

Assumes: a context that the user gave may have a handler of the user's. It is asked for keys' sake only.

Source: "27/ZAP" of rfc.zeromq.org.
"""

import ctypes
import heapq
import itertools
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from math import ceil
from typing import Any, Final
from weakref import WeakValueDictionary

import zmq
from zmq.utils import z85

from transport.errors import EndpointError
from transport.foreign import text_of
from transport.lifecycle import in_child
from transport.lock import Lock
from transport.log import Log
from transport.realtime import monotonic
from transport.service import Service

log: Log = Log("transport")

_ADDRESS: Final = "inproc://zeromq.zap.01"
#: So many seconds' worth of connections are let in at once, after a time without any.
BURST_SECONDS: Final = 10.0
#: Seconds that ending the thread may take.
_ENDING: Final = 1.0

# Who owns a key: the name of the client, or None if it is not let in. Asked for each connection.
Known = Callable[[str], str | None]

_numbers = itertools.count(1)


class Pace:
    """How many may come in: `rate` in a second on average, `BURST_SECONDS` of them at once. Of one thread."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        # When the next one may come, if none had come before; up to a burst in the past.
        self._next = 0.0

    def wait(self, now: float) -> float:
        """Another one is there: return for how many seconds it has to wait."""
        self._next = max(self._next, now - BURST_SECONDS) + 1 / self._rate
        return max(0.0, self._next - now)


class Door:
    """Who is let in to one server, and how fast.

    Args: `known`: who owns a key; None: keys are not asked for.
    """

    def __init__(self, rate: float, known: Known | None) -> None:
        self.domain: str = f"callport-{next(_numbers)}"
        self.known = known
        self.pace = Pace(rate)


class _Keeper:
    """Answers for all doors of one context."""

    def __init__(self, context: "zmq.Context[Any]") -> None:
        # Weak: that of a server which was dropped open keeps no thread.
        self.doors: WeakValueDictionary[str, Door] = WeakValueDictionary()
        # Whether it was told to stop.
        self.stopped: bool = False
        self._socket = context.socket(zmq.ROUTER)
        self._control = context.socket(zmq.PAIR)
        self._other_end = context.socket(zmq.PAIR)
        try:
            self._socket.set(zmq.RCVHWM, 0)
            name = f"inproc://callport-doors-{os.getpid()}-{next(_numbers)}"
            self._control.bind(name)
            self._other_end.connect(name)
            # Answers that wait for their time: when, a number, frames.
            self._later: list[tuple[float, int, list[bytes]]] = []
            self._thread = Service("transport:doors", self._run, log.failed)
            self._socket.bind(_ADDRESS)
            _keepers[context.underlying] = self  # Here, so that an interrupt leaves none that is bound and not found.
        except BaseException:
            self._close()
            raise

    def start(self) -> bool:
        return self._thread.ensure()

    def stop(self) -> None:
        self.stopped = True
        with suppress(zmq.ZMQError):  # The context was terminated.
            self._control.send(b"", zmq.NOBLOCK)
        if self._thread.join(_ENDING):
            self._close()
        else:  # The program's own code holds it up, and it has the sockets.
            log.warning("%s does not end: who is allowed is still being asked", self._thread.name)

    def _close(self) -> None:
        with suppress(zmq.ZMQError):  # It was not bound. Closing alone would give the address free in the background.
            self._socket.unbind(_ADDRESS)
        for socket in (self._socket, self._control, self._other_end):
            socket.close(0)

    def _run(self) -> None:
        """Answer until told to end. The sockets are this thread's meanwhile, but for one end of the control."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._other_end, zmq.POLLIN)
        try:
            while True:
                pause = ceil(max(0.0, self._later[0][0] - monotonic()) * 1000) if self._later else None
                ready = dict(poller.poll(pause))
                if self._other_end in ready:
                    return
                now = monotonic()
                while self._later and self._later[0][0] <= now:
                    self._reply(heapq.heappop(self._later)[2])
                if self._socket in ready:
                    self._take()
        except zmq.ZMQError as error:
            if error.errno not in (zmq.ETERM, zmq.ENOTSOCK):  # The context is gone, and whom to answer.
                raise

    def _take(self) -> None:
        """Take the questions that are there."""
        with suppress(zmq.Again):
            while True:
                wait, answer = self._answer(self._socket.recv_multipart(zmq.NOBLOCK))
                if wait > 0:
                    heapq.heappush(self._later, (monotonic() + wait, next(_numbers), answer))
                else:
                    self._reply(answer)

    def _reply(self, frames: list[bytes]) -> None:
        with suppress(zmq.ZMQError):  # Who asked is gone.
            self._socket.send_multipart(frames, zmq.NOBLOCK)

    def _answer(self, question: list[bytes]) -> tuple[float, list[bytes]]:
        """Return the answer to a question, and how many seconds it is to wait."""
        asks, empty, version, number, domain, _, _, mechanism, *credentials = question
        door = self.doors.get(domain.decode())
        wait, status, text, user = 0.0, b"400", b"not authorised", ""
        if door is None:
            # Temporary. Any other refusal would have ZeroMQ's client never try again, not at the next server either.
            status, text = b"300", b"the server is closed"
        else:
            found = self._user(door, mechanism, credentials)
            if found is not None:
                wait, status, text, user = door.pace.wait(monotonic()), b"200", b"OK", found
        return wait, [asks, empty, version, number, status, text, user.encode(), b""]

    @staticmethod
    def _user(door: Door, mechanism: bytes, credentials: list[bytes]) -> str | None:
        if door.known is None:
            return ""
        if mechanism != b"CURVE":
            return None
        try:
            return door.known(z85.encode(credentials[0]).decode())
        except BaseException as error:  # The program's own code.
            log.error("who is allowed cannot be told, and a client is refused: %s", text_of(error), exc_info=error)
            return None


# Guards what follows.
_lock = Lock()
# By the address of the context, for which there may be many objects.
_keepers: dict[int, _Keeper] = {}


def open_door(socket: "zmq.Socket[Any]", door: Door) -> None:
    """Have ZeroMQ ask at `door` for all who come to a socket that is to be bound. Raises: EndpointError.

    `shut_door` is owed, whatever becomes of this.
    """
    with _lock:
        address = socket.context.underlying
        keeper = _keepers.get(address)
        if keeper is not None and keeper.stopped:  # An interrupt came just then.
            keeper.stop()
        if keeper is None or keeper.stopped:
            try:
                keeper = _Keeper(socket.context)
            except zmq.ZMQError as error:
                if error.errno != zmq.EADDRINUSE:
                    raise
                text = "the context has another ZAP handler, so `allowed` cannot be asked about"
                raise EndpointError(text) from error
        keeper.doors[door.domain] = door
        if not keeper.start():
            raise EndpointError("nobody can be let in: no thread can be started")
    socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.set(zmq.ZAP_DOMAIN, door.domain.encode())


def shut_door(socket: "zmq.Socket[Any]", door: Door) -> None:
    """The socket is about to be closed. The thread ends with the last door, so that the context can be terminated."""
    with _lock, suppress(zmq.ZMQError):  # The context was terminated.
        address = socket.context.underlying
        keeper = _keepers.get(address)
        if keeper is not None and keeper.doors.pop(door.domain, door) and not keeper.doors:
            keeper.stop()
            del _keepers[address]


def random_numbers() -> None:
    """Have the C library's `rand` begin anew at random: a ROUTER made next by this thread numbers its peers from there.

    Nobody seeds it otherwise, and the ROUTERs of all processes would begin at the same number.
    """
    with suppress(OSError, AttributeError):  # A system without it.
        _c_library().srand(ctypes.c_uint(int.from_bytes(os.urandom(4))))


def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)


in_child(_keepers.clear)
