"""The doors of servers: ZeroMQ asks at them whether a connection is let in, before anything of its peer counts.

Theory of operation. ZeroMQ asks one handler for each context (ZAP), in the midst of a connection's handshake. It is a
thread here, the keeper's, so that no handshake depends on who harvests. Each server has a `Door` under a domain of its
own, which says who the peer is, and how long it has to wait. A peer that has to wait is answered later. Who is allowed
may be asked of the program's own code, which may take long: another thread asks, one for each door, while there are
questions.

    handshake -> the keeper's socket -> door of the domain ------------------------> answer, now or at its time
                                                |  keys are asked for                    ^
                                                +--> its questions -> who is allowed ----+

The keeper's thread has the sockets to itself. Once there are no doors it closes them, and takes the keeper out of the
list, in one step: until then a new door is one more of the same keeper, however late its thread comes to look.

The pace is what makes a known assertion of libzmq hard to reach: a ROUTER numbers its peers one after the other, from
where C's `rand` has it begin, and aborts the process if a peer has given itself the number that is next. So the numbers
begin where no peer can know (`random_numbers`), and only so many can be tried in a second.

Guarantees: a door that is shut, as the process is stuck, lets no peer in. A peer that is refused for its key hears so;
who is refused for another reason may come again (ZAP's 300: after any other answer ZeroMQ's clients never do), once
ZeroMQ has given its handshake up. The program's own code holds up only the clients of its own server. What waits
is bounded: the questions of a door in number, and both they and who has to wait by the time after which ZeroMQ gives a
handshake up.

Assumes: a context that the user gave may have a handler of the user's. It is asked for keys' sake only.

Source: "27/ZAP" of rfc.zeromq.org.
"""

import ctypes
import heapq
import itertools
import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import ceil
from typing import Any, Final, NamedTuple
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
#: Seconds for which the closing of the last door waits for the keeper's thread to end.
_ENDING: Final = 1.0
#: Arbitrary: so many clients of one server may wait until it is known whether they are allowed.
MOST_QUESTIONS: Final = 1000
#: Questions that are taken between two looks at what else there is to do.
_TAKEN_AT_ONCE: Final = 100

# Answers, as ZAP has them.
_WELCOME: Final = b"200", b"OK"
_CLOSED: Final = b"300", b"the server is closed"
_BUSY: Final = b"300", b"too many clients connect at once"
_UNKNOWN: Final = b"300", b"it cannot be found out whether this client is allowed"
_REFUSED: Final = b"400", b"not authorised"

# Who owns a key: the name of the client, or None if it is not let in. Asked for each connection.
Known = Callable[[str], str | None]

_numbers = itertools.count(1)


class Pace:
    """How many may come in: `rate` in a second on average, `BURST_SECONDS` of them at once. Of one thread.

    Args: `patience`: no peer waits for longer than so many seconds.
    """

    def __init__(self, rate: float, patience: float) -> None:
        self._rate = rate
        self._patience = patience
        # When the next one may come, if none had come before; up to a burst in the past.
        self._next = 0.0

    def wait(self, now: float) -> float | None:
        """Another one is there: return for how many seconds it has to wait; None: too long, and it takes no place."""
        due = max(self._next, now - BURST_SECONDS) + 1 / self._rate
        if due > now + self._patience:
            return None
        self._next = due
        return max(0.0, due - now)


class _Question(NamedTuple):
    """Whether the owner of a key is allowed. The answer begins with the frames of `head`."""

    head: list[bytes]
    door: "Door"
    key: str
    since: float


class _Asker:
    """Asks the program's own code who is allowed, by a thread that there is while there are questions."""

    def __init__(self, known: Known, patience: float) -> None:
        self._known = known
        self._patience = patience
        # Appended to by the keeper's thread, taken from by this one's.
        self._questions: deque[tuple[_Keeper, _Question]] = deque()
        more = lambda: bool(self._questions)  # noqa: E731  # a line of its own
        self._service = Service("transport:asking", self._run, log.failed, more=more, depended_on=False)

    def ask(self, keeper: "_Keeper", question: _Question) -> bool:
        """The keeper gets an answer later; False if too many wait. (If no thread can be had they wait for the next.)"""
        if len(self._questions) >= MOST_QUESTIONS:
            return False
        self._questions.append((keeper, question))
        self._service.ensure()
        return True

    def _run(self) -> None:
        while self._questions:
            keeper, question = self._questions.popleft()
            if monotonic() - question.since <= self._patience:  # Otherwise who wanted to know is gone.
                keeper.answer(question, *self._ask(question.key))

    def _ask(self, key: str) -> tuple[tuple[bytes, bytes], str]:
        """Return the answer, and the name of the client."""
        try:
            user = self._known(key)
        except BaseException as error:  # The program's own code.
            log.error("who is allowed cannot be found out, and a client is refused: %s", text_of(error), exc_info=error)
            return _UNKNOWN, ""
        return (_REFUSED, "") if user is None else (_WELCOME, user)


class Door:
    """Who is let in to one server, and how fast.

    Args: `known`: who owns a key; None: keys are not asked for. `patience`: seconds after which ZeroMQ ends the
        connection of one that was not answered.
    """

    def __init__(self, rate: float, known: Known | None, patience: float) -> None:
        self.domain: str = f"callport-{next(_numbers)}"
        self.asker: _Asker | None = None if known is None else _Asker(known, patience)
        self.pace: Pace = Pace(rate, patience)


class _Keeper:
    """Answers for all doors of one context."""

    def __init__(self, context: "zmq.Context[Any]") -> None:
        # Weak: that of a server which was dropped open keeps no thread. Guarded by _lock, as all that is changed below.
        self.doors: WeakValueDictionary[str, Door] = WeakValueDictionary()
        self._answers: list[tuple[_Question, tuple[bytes, bytes], str]] = []
        # Whether the thread was woken, and has not looked yet.
        self._woken = False
        self._closed = False
        self._of = context.underlying
        self._socket = context.socket(zmq.ROUTER)
        self._control = context.socket(zmq.PAIR)
        self._other_end = context.socket(zmq.PAIR)
        try:
            self._socket.set(zmq.RCVHWM, 0)
            name = f"inproc://callport-doors-{os.getpid()}-{next(_numbers)}"
            self._control.bind(name)
            self._other_end.connect(name)
            # Answers that wait for their time: when, a number, frames. The thread's own.
            self._later: list[tuple[float, int, list[bytes]]] = []
            self._thread = Service("transport:doors", self._run, log.failed)
            self._socket.bind(_ADDRESS)
            _keepers[self._of] = self  # Here, so that an interrupt leaves none that is bound and not found.
        except BaseException:
            self._close_locked()
            raise

    def start(self) -> bool:
        return self._thread.ensure()

    def stop_locked(self) -> None:
        """There are no doors. The thread ends, unless there are some again by then."""
        if self._thread.running:
            self._wake_locked()
        else:
            self._close_locked()

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended."""
        self._thread.join(timeout)

    def answer(self, question: _Question, answer: tuple[bytes, bytes], user: str) -> None:
        """Whether that client is allowed. Any thread."""
        with _lock:
            self._answers.append((question, answer, user))
            self._wake_locked()

    def _wake_locked(self) -> None:
        if not self._woken and not self._closed:
            self._woken = True
            with suppress(zmq.ZMQError):  # The context was terminated: the thread gets an error for that.
                self._control.send(b"", zmq.NOBLOCK)

    def _close_locked(self) -> None:
        self._closed = True
        _keepers.pop(self._of, None)
        with suppress(zmq.ZMQError):  # It was not bound. Closing alone would give the address free in the background.
            self._socket.unbind(_ADDRESS)
        for socket in (self._socket, self._control, self._other_end):
            socket.close(0)

    def _run(self) -> None:
        """Answer until there are no doors. The sockets are this thread's meanwhile, but for one end of the control."""
        poller = zmq.Poller()
        try:
            while self._goes_on():
                poller.register(self._socket, zmq.POLLIN)
                poller.register(self._other_end, zmq.POLLIN)
                poller.poll(self._send_due())
                self._take()
        except zmq.ZMQError as error:
            if error.errno not in (zmq.ETERM, zmq.ENOTSOCK):
                raise
            with _lock:  # The context is gone, and whom to answer.
                self._close_locked()

    def _goes_on(self) -> bool:
        """Deal with what the thread was woken for. False: it is to end, and all is closed."""
        with suppress(zmq.Again):
            while True:
                self._other_end.recv(zmq.NOBLOCK)
        with _lock:
            self._woken = False
            if not self._closed and not self.doors:
                self._close_locked()
            if self._closed:
                return False
            answers, self._answers = self._answers, []
        for question, answer, user in answers:
            if question.door.domain not in self.doors:
                self._reply(question.head, _CLOSED)
            elif answer is _WELCOME:
                self._let_in(question.head, question.door, user)
            else:
                self._reply(question.head, answer)
        return True

    def _send_due(self) -> int | None:
        """Send the answers whose time has come; return in how many milliseconds that of the next one does."""
        now = monotonic()
        while self._later and self._later[0][0] <= now:
            self._send(heapq.heappop(self._later)[2])
        return ceil((self._later[0][0] - now) * 1000) if self._later else None

    def _take(self) -> None:
        """Take questions that are there."""
        with suppress(zmq.Again):
            for _ in range(_TAKEN_AT_ONCE):
                self._hear(self._socket.recv_multipart(zmq.NOBLOCK))

    def _hear(self, question: list[bytes]) -> None:
        asks, empty, version, number, domain, _, _, mechanism, *credentials = question
        head = [asks, empty, version, number]
        door = self.doors.get(domain.decode())
        if door is None:
            self._reply(head, _CLOSED)
        elif door.asker is None:
            self._let_in(head, door, "")
        elif mechanism != b"CURVE":
            self._reply(head, _REFUSED)
        elif not door.asker.ask(self, _Question(head, door, z85.encode(credentials[0]).decode(), monotonic())):
            self._reply(head, _BUSY)

    def _let_in(self, head: list[bytes], door: Door, user: str) -> None:
        """Answer one that is allowed, now or at its time."""
        wait = door.pace.wait(monotonic())
        if wait is None:
            self._reply(head, _BUSY)
        elif wait > 0:
            heapq.heappush(self._later, (monotonic() + wait, next(_numbers), _frames(head, _WELCOME, user)))
        else:
            self._reply(head, _WELCOME, user)

    def _reply(self, head: list[bytes], answer: tuple[bytes, bytes], user: str = "") -> None:
        self._send(_frames(head, answer, user))

    def _send(self, frames: list[bytes]) -> None:
        with suppress(zmq.ZMQError):  # Who asked is gone.
            self._socket.send_multipart(frames, zmq.NOBLOCK)


def _frames(head: list[bytes], answer: tuple[bytes, bytes], user: str) -> list[bytes]:
    return [*head, *answer, user.encode(), b""]


# Guards what follows.
_lock = Lock()
# By the address of the context, for which there may be many objects.
_keepers: dict[int, _Keeper] = {}


def open_door(socket: "zmq.Socket[Any]", door: Door) -> None:
    """Have ZeroMQ ask at `door` for all who come to a socket that is to be bound. Raises: EndpointError.

    `shut_door` is owed, whatever becomes of this.
    """
    with _lock:
        keeper = _keepers.get(socket.context.underlying)
        if keeper is None:
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
    """The socket is about to be closed. The thread ends with the last door, so that the context can be terminated.

    Waits for that a moment. Nothing depends on it: a new door is opened all the same.
    """
    with suppress(zmq.ZMQError):  # The context was terminated.
        with _lock:
            keeper = _keepers.get(socket.context.underlying)
            if keeper is None:
                return
            keeper.doors.pop(door.domain, None)
            if keeper.doors:
                return
            keeper.stop_locked()
        keeper.join(_ENDING)


def random_numbers() -> None:
    """Have the C library's `rand` begin anew at random: a ROUTER made next by this thread numbers its peers from there.

    Nobody seeds it otherwise, and the ROUTERs of all processes would begin at the same number.
    """
    with suppress(OSError, AttributeError):  # A system without it.
        _c_library().srand(ctypes.c_uint(int.from_bytes(os.urandom(4))))


def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)


in_child(_keepers.clear)
