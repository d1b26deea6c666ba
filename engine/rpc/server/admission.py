"""Admission: how many calls a server has open, whether it takes more, and who may call an interface.

Theory of operation. A server has one `Admission`. It counts calls as they arrive and as their answers leave, under its
lock; it says why a call is refused, and signals when the last one was closed after a stop.

An interface that is registered with conditions has an `AccessPolicy`; the operations of all others have None in its
place. How many may call is decided as calls arrive, under admission's lock. Who may call, and how large, is decided by
the worker that is to run the call, before its arguments are decoded: a security callback is the program's own code, and
may take its time.

How well a connection is protected has two levels here. Encrypted connections (CURVE) have privacy, and so do transports
that do not leave the machine (ipc, inproc, loopback): only the two ends can read or change what passes. Plain tcp has
none, from a loopback address too. The level says nothing of who the client is: that is
`CallAttributes.client_principal`.

Source: "RpcServerListen", "RpcMgmtStopServerListening", "RpcMgmtInqStats", "Interface Registration Flags",
"RpcServerRegisterIf2", "RPC_IF_CALLBACK_FN", "Authentication-Level Constants".
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Protocol

import msgspec

from transport.log import Log

from ...errors import Forked, InvalidHandle, InvalidState, Misuse
from ...kernel.checks import check_callback, check_count, check_flag
from ...kernel.event import Event
from ...kernel.lock import Lock
from ...status import Status
from ..serving import current
from .open_call import CallAttributes, CloseReason, OpenCall

log: Log = Log("engine.rpc")

# Authentication levels, in the numbers that Windows has for them.
NONE = 1
PRIVACY = 6


class TooFewCalls(Misuse, ValueError):
    """A limit of calls that lets none through."""

    status: int = Status.MAX_CALLS_TOO_SMALL


def check_max_calls(value: int) -> None:
    """Raise `Misuse` 1742 unless `value` is an int of 1 or more."""
    check_count("max_calls", value, least=1, raising=TooFewCalls)


class Refusal(msgspec.Struct, frozen=True):
    """Why a call is not taken."""

    status: int
    text: str


class AccessPolicy(msgspec.Struct, eq=False):
    """The conditions of one interface; see `Server.register`."""

    name: str = ""
    max_calls: int | None = None
    max_request_bytes: int | None = None
    auto_listen: bool = False
    security: Callable[[CallAttributes], object] | None = None
    secure_only: bool = False
    local_only: bool = False
    no_cache: bool = False
    # Calls that arrived and are not closed, of an interface that listens by itself. Under admission's lock.
    active: int = 0

    def __post_init__(self) -> None:
        if self.max_calls is not None:
            check_max_calls(self.max_calls)
        if self.max_request_bytes is not None:
            check_count("max_request_bytes", self.max_request_bytes)
        check_callback("security", self.security, optional=True)
        for flag in ("auto_listen", "secure_only", "local_only", "no_cache"):
            check_flag(flag, getattr(self, flag))

    @property
    def needed(self) -> bool:
        """Whether there is any condition."""
        return (
            self.auto_listen or self.secure_only or self.local_only
            or self.max_request_bytes is not None or self.security is not None
        )  # fmt: skip

    def examine(self, call: OpenCall) -> str | None:
        """Return why `call` may not run, None if it may. On a worker, holding nothing."""
        peer = call.peer
        if self.local_only and not peer.local:
            return f"interface {self.name!r} is for callers on this machine"
        if self.secure_only and not peer.user:
            return f"interface {self.name!r} is for callers who prove who they are"
        if self.max_request_bytes is not None:
            size = len(memoryview(call.args)) + sum(map(len, call.blobs or ()))
            if size > self.max_request_bytes:
                return f"a request of {size} bytes; max_request_bytes of {self.name!r} is {self.max_request_bytes}"
        if self.security is not None and not self._admits(call, self.security):
            return f"the security callback of interface {self.name!r} refused"
        return None

    def _admits(self, call: OpenCall, security: Callable[[CallAttributes], object]) -> bool:
        # By policy; belongs to the connection, and goes with it. Two workers may both ask: their answers count alike.
        verdicts = call.peer.verdicts
        known = None if self.no_cache else verdicts.get(self)
        if known is not None:
            return known
        current.slot.call = call  # The thread that runs the next call stores that one.
        try:
            verdict = security(call.attributes()) is True
        except BaseException as error:
            text = "the security callback of interface %r failed: the call is refused"
            log.error(text, self.name, exc_info=error)
            return False
        if not self.no_cache:
            verdicts[self] = verdict
        return verdict


def is_local(endpoint: str, address: str) -> bool:
    """Whether a client that came to `endpoint` from `address` is on this machine, as far as the transport tells."""
    if not endpoint.startswith("tcp:"):
        return True
    return address.removeprefix("::ffff:").startswith("127.") or address == "::1"


class Taker(Protocol):
    """Who takes calls that arrive: a listener."""

    # How many of them count as active and are not entered yet.
    entering: int


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


class Counters(msgspec.Struct):
    """What a server counts, under admission's lock; `messages_in`, `garbage` and `failures` under link.lock."""

    # In the order of `ServerStatistics`.
    calls_in: int = 0
    calls_out: int = 0
    messages_in: int = 0
    messages_out: int = 0
    faults: int = 0
    refused: int = 0
    garbage: int = 0
    failures: int = 0


class ServerStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a server. `active` counts calls that arrived and are not closed; the counters only grow.

    The four that Windows has are `calls_in`, `calls_out` (calls that routines have begun), `messages_in` and
    `messages_out` (its packets). `failures` counts messages that this side could not deal with: there was no
    memory for one, for example.
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


class Admission:
    """Which calls a server takes, and how many are open. Threads: any.

    Args: `max_calls` may be open at once.
    """

    def __init__(self, max_calls: int) -> None:
        check_max_calls(max_calls)
        # Guards all below, but for what `Counters` says.
        self.lock: Lock = Lock()
        self.phase: Phase = Phase.IDLE
        self.max_calls: int = max_calls
        self.counters: Counters = Counters()
        # Calls that arrived and are not closed.
        self.active: int = 0
        # Those among them that no stop waits for, less such as were closed and wait to be sent.
        self.auto_active: int = 0
        # Set by `close`: nothing is taken any more, and all calls are waited for.
        self.closing: bool = False
        # Whether a stop, or the close, waits for the last call to be closed.
        self.draining: bool = False
        # A thread waits for the stop.
        self.waited: bool = False
        # In a forked child, where all of this is the parent's.
        self.forked: bool = False
        # Set while no call is open and the server does not listen.
        self.stopped: Event = _Stopped(manual_reset=True, signaled=True)

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
                self.phase = Phase.LISTENING
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
                self.phase = Phase.IDLE
        with suppress(InvalidHandle):  # The server was closed meanwhile.
            self.stopped.set()

    def stop(self) -> None:
        """Take no new calls; raises as `Server.stop`."""
        with self.lock:
            self.check_process()
            if self.phase is not Phase.LISTENING:
                raise InvalidState(f"the server is {self.phase.value}, not listening", status=Status.NOT_LISTENING)
            self.phase = Phase.DRAINING
            ended = self._drained_locked()
        if ended:
            self.stopped.set()

    def close(self, timeout: float, name: str) -> None:
        """Stop, and wait up to `timeout` seconds for all open calls. If that is broken off the server is not closed."""
        try:
            with self.lock:
                drain = self.phase is not Phase.IDLE or self.auto_active > 0
                self.closing = True
                self.phase = Phase.DRAINING
                ended = self._drained_locked()
                if not ended:
                    self.stopped.reset()  # A stop did not wait for all that is waited for now.
            if ended:
                self.stopped.set()
            if drain and not self.stopped.wait(timeout):
                log.warning("%s: %d calls were still open %s s after the stop", name, self.active, timeout)
            with self.lock:
                self.phase = Phase.CLOSED
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

    def arrive(self, taker: Taker, count: int) -> tuple[int, Refusal | None]:
        """Count calls that arrive; return for how many there is room, and, if for less, why. Under link.lock.

        The taker's `entering` is stored with it, with nothing between the two that an interrupt could come in at.
        """
        lock = self.lock
        if lock.owned():
            lock.refuse()
        try:
            lock.acquire()
            listening = self.phase is Phase.LISTENING
            room = self.max_calls - self.active + self.auto_active if listening else 0
            refusal = self._refusal_locked() if room < count else None
            self.counters.calls_in += count
            self.active += count
            taker.entering = count
        except BaseException:
            if lock.owned():
                lock.release()
            raise
        lock.release()
        return room, refusal

    def _refusal_locked(self) -> Refusal:
        """Why there is no room."""
        if self.phase is Phase.LISTENING:
            return Refusal(Status.SERVER_TOO_BUSY, f"{self.max_calls} calls are open, max_calls allows no more at once")
        return Refusal(Status.SERVER_UNAVAILABLE, "the server is not listening")

    def count_off(self, answers: int, messages: int = 1) -> None:
        """These answers leave, in so many messages, or have no receiver any more: their calls are over."""
        lock = self.lock
        if lock.owned():
            lock.refuse()
        try:
            lock.acquire()
            self.counters.messages_out += messages
            self.active -= answers
            if self.draining and self._drained_locked():
                self.stopped.set()
        except BaseException:
            if lock.owned():
                lock.release()
            raise
        lock.release()

    def enter(self, policy: AccessPolicy) -> Refusal | None:
        """Count a call of an interface that listens by itself, or return why it is refused."""
        with self.lock:
            if self.closing:
                return Refusal(Status.SERVER_UNAVAILABLE, "the server is closing")
            if policy.max_calls is not None and policy.active >= policy.max_calls:
                text = f"{policy.active} calls of {policy.name!r} are open, max_calls allows no more"
                return Refusal(Status.SERVER_TOO_BUSY, text)
            policy.active += 1
            self.auto_active += 1
        return None

    def leave(self, policy: AccessPolicy, how: CloseReason) -> None:
        """A call that `enter` counted was closed; it stays in `active` until its answer was sent."""
        with self.lock:
            policy.active -= 1
            self.auto_active -= 1

    def turn_away(self, count: int) -> None:
        """So many calls were refused because there was no room for them."""
        with self.lock:
            self.counters.refused += count

    def called_out(self) -> None:
        """A routine has begun a call of its own."""
        with self.lock:
            self.counters.calls_out += 1

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
            return ServerStatistics(self.phase.value, self.active, *msgspec.structs.astuple(self.counters))
