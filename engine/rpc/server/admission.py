"""Admission: how many calls a server has open, and whether it takes more.

Theory of operation. A server has one `Admission`, which says why a call is refused, and signals when the last one was
closed after a stop. Calls are counted as they arrive and as their answers leave, at each endpoint by itself, under the
link.lock that both hold anyhow. Admission's lock is taken when few more calls may be open, as the server stops, and for
calls that end elsewhere.

    arrival: count the calls, look at `plenty`      |  one of the two sees the other: either the arrival is refused, or
    stop:    set `plenty` to 0, look at the counts  |  the stop waits for it
    answer:  count it off, look at `draining`       |  the last answer ends the stop, or the stop finds no call open
    stop:    set `draining`, look at the counts     |

The last eighth of `max_calls` is kept for clients that have fewer calls open than their even share, which is
`max_calls` by the number of connected clients. So one that has begun more than the server can do does not keep others
out; a client that is alone may have all.

Assumes: stores and loads of attributes are atomic and not reordered.

Source: "RpcServerListen", "RpcMgmtStopServerListening", "RpcMgmtInqStats".
"""

from collections.abc import Iterator, Sized
from contextlib import contextmanager, suppress
from enum import Enum
from math import inf
from operator import attrgetter
from typing import Protocol

import msgspec

from transport import Link
from transport.log import Log
from transport.realtime import monotonic

from ...errors import Forked, InvalidHandle, InvalidState
from ...kernel.event import Event
from ...kernel.lock import Lock
from ...status import Status
from .complaints import Complaints
from .open_call import CloseReason
from .policy import AccessPolicy, Refusal, check_max_calls
from .watch import Watch

log: Log = Log("engine.rpc")

KEPT = 8  # One call in so many of `max_calls` is kept for clients that have few; arbitrary.


class Phase(Enum):
    """Where a server is in its life."""

    IDLE = "idle"
    LISTENING = "listening"
    DRAINING = "draining"
    CLOSED = "closed"


class _Stopped(Event):
    """The event of a server, which is dropped with it: the warning is the server's."""

    __slots__ = ()

    def _dropped_open(self) -> str:
        return ""


class Arrived(Protocol):
    """Who counts the bytes that come: a `Backlog`."""

    arrived: int


class EndpointCounters(msgspec.Struct, eq=False):
    """What one endpoint of a server counts. Under its link.lock, but for what is closed `apart`.

    Calls that arrive are counted as if all were taken, and `examine` decides if more than `plenty` are open: those that
    are refused are answered, and an answer that leaves is counted off.
    """

    admission: "Admission"
    # Calls that arrived, less the answers that left: open are those that were not closed apart.
    open: int = 0
    # Calls that were closed without an answer that leaves with others. Under admission's lock; taken off `open` now
    # and then, under both.
    apart: int = 0
    # Of those that are open, calls that have ended, with answers that wait for clients which do not read.
    unread: int = 0
    # The clients that are connected: the peers of who listens there; and what carries their messages.
    clients: Sized = ()
    link: Link | None = None
    calls_in: int = 0
    messages_in: int = 0
    messages_out: int = 0
    garbage: int = 0
    failures: int = 0
    # Connections of strangers that were closed, and clients that were disconnected for what they left unread.
    strangers: int = 0
    evicted: int = 0
    # What counts the bytes that come in messages.
    backlog: "Arrived | None" = None

    @property
    def bytes_in(self) -> int:
        """Bytes that came in messages."""
        return 0 if self.backlog is None else self.backlog.arrived

    def count_off(self, answers: int) -> None:
        """These answers leave, or have no receiver any more: their calls are over."""
        self.open -= answers
        if self.admission.draining:
            self.admission.end_stop()

    def count_off_apart(self) -> None:
        """A call is over that has no answer, or one that leaves alone. Any thread."""
        with self.admission.lock:
            self.apart += 1
            self.admission.end_stop_locked()


class ServerStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a server. `active` counts calls that arrived and are not closed; but for it, `clients`,
    `queued_bytes` and `stuck` the counters only grow.

    The four that Windows has are `calls_in`, `calls_out` (calls that routines made), `messages_in` and
    `messages_out` (its packets). `failures` counts messages that this side could not deal with: there was no
    memory for one, for example.

    `link` says what carries the messages of each endpoint ("zmq", "native", "tls", "loopback"), once the server
    listens; `clients` have a connection, and `queued_bytes` wait to be written to them (over ZeroMQ that is not known).
    `strangers_refused`: connections that were closed for what came, or did not come in time; `clients_evicted`: those
    of clients that left more unread than the options allow. `bytes_in` came in messages. `stuck` is how many routines
    do not return (`Server(stuck_after=)`), and `late` how often the interpreter was not to be had for a second, as far
    as that was noticed.
    """

    phase: str
    active: int
    calls_in: int
    calls_out: int
    messages_in: int
    messages_out: int
    faults: int
    refused: int
    garbage_received: int
    failures: int
    link: str
    clients: int
    queued_bytes: int
    strangers_refused: int
    clients_evicted: int
    bytes_in: int = 0
    stuck: int = 0
    late: int = 0


class Admission:
    """Which calls a server takes, and how many are open. Threads: any.

    Args: `max_calls` may be open at once; the server has so many `endpoints`.
    """

    def __init__(self, max_calls: int, endpoints: int, max_client_calls: int, watch: Watch) -> None:
        check_max_calls(max_calls)
        self._max_client_calls = max_client_calls
        # Who looks after routines that do not return.
        self.watch: Watch = watch
        # What clients make this server log.
        self.complaints: Complaints = Complaints()
        # Guards all below.
        self.lock: Lock = Lock()
        # Written under the lock, read anywhere.
        self.phase: Phase = Phase.IDLE
        self.max_calls: int = max_calls
        # So many calls may be open without a closer look. Written under the lock, read under link.lock.
        self.plenty: int = 0
        # One for each endpoint, kept while listeners come and go.
        self.endpoints: list[EndpointCounters] = [EndpointCounters(self) for _ in range(endpoints)]
        self.calls_out: int = 0
        self.faults: int = 0
        self.refused: int = 0
        # When calls were refused last because there was no room; monotonic.
        self.refused_at: float = -inf
        # Calls among those open that no stop waits for, less such as were closed and wait to be sent.
        self.auto_active: int = 0
        # Set by `close`: nothing is taken any more, and all calls are waited for.
        self.closing: bool = False
        # Whether a stop, or the close, waits for the last call to be closed. Written under the lock, read anywhere.
        self.draining: bool = False
        # A thread waits for the stop.
        self.waited: bool = False
        # In a forked child, where all of this is the parent's.
        self.forked: bool = False
        # Set while no call is open and the server does not listen.
        self.stopped: Event = _Stopped(manual_reset=True, signaled=True)

    @property
    def active(self) -> int:
        """Calls that arrived and are not closed. Exact under the lock: what is closed meanwhile may count still."""
        return sum(-at.apart + at.open for at in self.endpoints)

    def _move_locked(self, phase: Phase) -> None:
        self.phase = phase
        # Endpoints that take calls at the same time have to ask each other.
        alone = phase is Phase.LISTENING and len(self.endpoints) == 1
        plenty = min(self.max_calls - self.max_calls // KEPT, self._max_client_calls)
        self.plenty = plenty if alone else 0

    def inherit(self) -> None:
        """In a forked child: all of this is the parent's."""
        self._move_locked(Phase.CLOSED)
        self.forked = True

    def check_process(self) -> None:
        """Raise `Forked` in a forked child."""
        if self.forked:
            raise Forked("this server was made before fork(): make a new one in the child")

    def check_open(self) -> None:
        """Raise `InvalidHandle` if the server is closed, or just closing."""
        self.check_process()
        if self.phase is Phase.CLOSED or self.closing:
            raise InvalidHandle("the server is closed")

    @contextmanager
    def starting(self, max_calls: int | None, endpoints: int) -> Iterator[None]:
        """Take calls on so many endpoints from now on, unless this context ends by an exception.

        Raises as `Server.listen`.
        """
        begun = False
        try:
            with self.lock:
                self.check_open()
                if self.phase is not Phase.IDLE:
                    raise InvalidState(f"the server is {self.phase.value} already", status=Status.ALREADY_LISTENING)
                if not endpoints:
                    raise InvalidState("the server has no endpoint to listen on", status=Status.NO_PROTSEQS_REGISTERED)
                self.max_calls = max_calls or self.max_calls
                begun = True
                self._move_locked(Phase.LISTENING)
                self.stopped.reset()
            yield
        except BaseException:
            if begun:
                self._not_started()
            raise

    def _not_started(self) -> None:
        """The endpoints could not be bound."""
        with self.lock:
            if self.phase is Phase.LISTENING:  # Otherwise another thread stops or closes the server meanwhile.
                self._move_locked(Phase.IDLE)
        with suppress(InvalidHandle):  # The server was closed meanwhile.
            self.stopped.set()

    def stop(self) -> None:
        """Take no new calls; raises as `Server.stop`."""
        with self.lock:
            self.check_process()
            if self.phase is not Phase.LISTENING:
                raise InvalidState(f"the server is {self.phase.value}, not listening", status=Status.NOT_LISTENING)
            self._move_locked(Phase.DRAINING)
            ended = self._drained_locked()
        if ended:
            self.stopped.set()

    def close(self, timeout: float, name: str) -> None:
        """Stop, and wait up to `timeout` seconds for all open calls. If that is broken off the server is not closed."""
        try:
            with self.lock:
                drain = self.phase is not Phase.IDLE or self.auto_active > 0
                self.closing = True
                self._move_locked(Phase.DRAINING)
                ended = self._drained_locked()
                if not ended:
                    self.stopped.reset()  # A stop did not wait for all that is waited for now.
            if ended:
                self.stopped.set()
            if drain and not self.stopped.wait(timeout):
                number = self.active
                were = "call was" if number == 1 else "calls were"
                log.warning("%s: %d %s still open %.1f s after the stop", name, number, were, timeout)
            with self.lock:
                self._move_locked(Phase.CLOSED)
        except BaseException:
            if self.phase is not Phase.CLOSED:
                self.closing = False
            raise

    @contextmanager
    def waiting(self, listened: bool) -> Iterator[bool]:
        """Within this context the caller is the one that waits for the stop; False if there is nothing to wait for."""
        with self.lock:
            self.check_process()
            due = self.phase is not Phase.CLOSED
            if due and self.waited:
                raise InvalidState("another thread waits for this server already", status=Status.ALREADY_LISTENING)
            if self.phase is Phase.IDLE and not listened:
                raise InvalidState("the server was not told to listen", status=Status.NOT_LISTENING)
            self.waited = self.waited or due
        try:
            yield due
        finally:
            if due:
                self.waited = False
                if self.phase is Phase.CLOSED:  # The server was closed meanwhile: the event goes with it.
                    self.stopped.close()

    def examine(self, at: EndpointCounters, count: int, own: int) -> tuple[int, Refusal | None]:
        """Return for how many of `count` calls, which are counted already, there is room, and, if for less, why.

        Their client has `own` calls open. Under link.lock.
        """
        with self.lock:
            at.open -= at.apart
            at.apart = 0
            if self.phase is not Phase.LISTENING:
                return 0, Refusal(Status.SERVER_UNAVAILABLE, "the server is not listening")
            if own + count > self._max_client_calls:
                text = f"{_open(own, ' of this client')}, max_client_calls={self._max_client_calls} allows no more"
                busy = Refusal(Status.SERVER_TOO_BUSY, text)
                most_of_one = max(0, self._max_client_calls - own)
                return min(most_of_one, self._room_locked(count, own)[0]), busy
            return self._room_locked(count, own)

    def _room_locked(self, count: int, own: int) -> tuple[int, Refusal | None]:
        """As `examine`, as far as all clients' calls go."""
        most = self.max_calls
        # Who does not read is bounded by bytes: its answers take no room from others.
        room = most - (self.active - count) + self.auto_active + sum(each.unread for each in self.endpoints)
        kept = most // KEPT
        if room - kept >= count:
            return count, None
        share = -(-most // max(1, self.clients()))
        # From what all may have, and then from what is kept.
        common = max(0, room - kept)
        taken = common + max(0, min(room - common, share - own - common))
        if taken >= count:
            return count, None
        if taken < room:
            text = (
                f"{_open(most - room)}, and of max_calls={most} the last {kept} are kept for clients that have "
                f"fewer than {share} open: complete some first"
            )
        else:
            text = f"{_open(most)}, max_calls allows no more at once"
        return taken, Refusal(Status.SERVER_TOO_BUSY, text)

    def clients(self) -> int:
        """How many clients are connected. Any thread."""
        return sum(len(at.clients) for at in self.endpoints)

    def end_stop(self) -> None:
        """A call is over while a stop waits for the last."""
        with self.lock:
            self.end_stop_locked()

    def end_stop_locked(self) -> None:
        """As `end_stop`; nothing if there is no stop."""
        if self.draining and self._drained_locked():
            self.stopped.set()

    def enter(self, policy: AccessPolicy) -> Refusal | None:
        """Count a call of an interface that listens by itself, or return why it is refused."""
        with self.lock:
            if self.closing:
                return Refusal(Status.SERVER_UNAVAILABLE, "the server is closing")
            if policy.max_calls is not None and policy.active >= policy.max_calls:
                text = f"{_open(policy.active, f' of {policy.name!r}')}, max_calls allows no more"
                return Refusal(Status.SERVER_TOO_BUSY, text)
            policy.active += 1
            self.auto_active += 1
            self.end_stop_locked()  # It was counted as one to be waited for.
        return None

    def leave(self, policy: AccessPolicy, how: CloseReason) -> None:
        """A call that `enter` counted was closed; it stays in `active` until its answer was sent."""
        with self.lock:
            policy.active -= 1
            self.auto_active -= 1

    def turn_away(self, count: int) -> None:
        """So many calls were refused because there was no room for them."""
        with self.lock:
            self.refused += count
            self.refused_at = monotonic()

    def called_out(self) -> None:
        """A routine has begun a call of its own."""
        with self.lock:
            self.calls_out += 1

    def _drained_locked(self) -> bool:
        """Whether the stop is complete; the phase moves on then."""
        self.draining = self.phase is Phase.DRAINING
        if self.draining and self.active == (0 if self.closing else self.auto_active):
            self.phase = Phase.IDLE
            self.draining = False
            return True
        return False

    def snapshot(self) -> ServerStatistics:
        """The counters, now."""
        with self.lock:
            return ServerStatistics(
                phase=self.phase.value,
                active=self.active,
                calls_in=self._sum("calls_in"),
                calls_out=self.calls_out,
                messages_in=self._sum("messages_in"),
                messages_out=self._sum("messages_out"),
                faults=self.faults,
                refused=self.refused,
                garbage_received=self._sum("garbage"),
                failures=self._sum("failures"),
                link=self.links(),
                clients=self.clients(),
                queued_bytes=self._queued_bytes(),
                strangers_refused=self._sum("strangers"),
                clients_evicted=self._sum("evicted"),
                bytes_in=self._sum("bytes_in"),
                stuck=self.watch.stuck,
                late=self.watch.late,
            )

    def links(self) -> str:
        """What carries the messages of each endpoint; "" if the server never listened."""
        return ", ".join(at.link.kind for at in self.endpoints if at.link is not None)

    def _queued_bytes(self) -> int:
        return sum(at.link.queued_bytes for at in self.endpoints if at.link is not None)

    def _sum(self, counter: str) -> int:
        return sum(map(attrgetter(counter), self.endpoints))


def _open(number: int, whose: str = "") -> str:
    return f"1 call{whose} is open" if number == 1 else f"{number} calls{whose} are open"
