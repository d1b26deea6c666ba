"""The server: interfaces, endpoints, a pool of workers, and its life from listening to stopped.

    IDLE --listen--> LISTENING --stop--> DRAINING --last call closed--> IDLE     any --close--> CLOSED

While LISTENING, calls run. While DRAINING, running calls go on and new ones are refused with `ServerUnavailable`; the
clients stay connected.

Source: "RpcServerListen", "RpcMgmtStopServerListening", "RpcMgmtWaitServerListen", "RpcMgmtInqStats".
"""

import atexit
import logging
import os
import socket
import warnings
import weakref
from _thread import allocate_lock
from contextlib import suppress
from enum import Enum
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from transport import PIPE_WINDOW_BYTES, Endpoint, Limits, Welcome, bind

from ..kernel.errors import Deadlock, Forked, InvalidHandle, InvalidParameter, InvalidState, Misuse
from ..kernel.event import Event
from ..kernel.status import Status
from ..pool.pool import ThreadPool
from .binding import check_seconds
from .interface import Interface
from .listener import Listener
from .pipe import check_window
from .registry import Registry
from .server_call import current

if TYPE_CHECKING:
    from .coroutines import CoroutineRunner

log = logging.getLogger("engine.rpc")

WORKERS = 4  # Threads for routines; enough to hide short waits, few enough not to fight over the interpreter.
MAX_CALLS = 1 << 20  # Calls that may be open at once; arbitrary, about 1 GB.
CLOSE_TIMEOUT = 5.0  # Seconds that leaving a `with` block waits for running calls.


class Phase(Enum):
    """Where a server is in its life."""

    IDLE = "idle"
    LISTENING = "listening"
    DRAINING = "draining"
    CLOSED = "closed"


class Counters(msgspec.Struct):
    """What a server counts; guarded by the server's lock, except that `messages_in` and `garbage` are counted under
    link.lock."""

    calls_in: int = 0
    messages_in: int = 0
    messages_out: int = 0
    faults: int = 0
    refused: int = 0
    garbage: int = 0


class ServerStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a server. `active` counts calls that arrived and are not closed; the counters only grow."""

    phase: str
    active: int
    calls_in: int
    messages_in: int
    messages_out: int
    faults: int
    refused: int
    garbage_received: int


class Server:
    """Serves interfaces on endpoints.

    Args:
        endpoints: where to listen: `tcp://host:port` (port 0: the system chooses), `ipc://path`, `inproc://name`,
            `loopback://name`.
        workers: how many threads may run routines at once, 1 or more.
        pool: a `ThreadPool` of the caller's to run routines on, instead of one of the server's own.
        max_calls: calls that may be open at once; the next one is refused with `ServerTooBusy`.
        tracebacks: send the traceback of a routine that raised to the client.
        pipe_window: bytes of encoded elements that a client may push into each pipe ahead of what is pulled, 1 or more.
        name: appears in thread names and log records.
        options: of the transport, as for `Client`.

    Register interfaces before or after `listen`. Close the server, or use it as a context manager: it goes on serving
    though nobody refers to it. One that is still open when the process ends is reported as a `ResourceWarning`.

    Threads: every method may be called from any thread, `stop` from a routine too.
    Source: "RpcServerUseProtseqEp", "RpcServerListen".
    """

    def __init__(
        self,
        *endpoints: str | Endpoint,
        workers: int = WORKERS,
        pool: ThreadPool | None = None,
        max_calls: int = MAX_CALLS,
        tracebacks: bool = False,
        pipe_window: int = PIPE_WINDOW_BYTES,
        name: str = "server",
        **options: Any,
    ) -> None:
        self._phase = Phase.CLOSED
        self._forked = False
        if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
            raise InvalidParameter(f"workers must be an int of 1 or more, not {workers!r}")
        if not isinstance(max_calls, int) or isinstance(max_calls, bool) or max_calls < 1:
            raise Misuse(f"max_calls must be an int of 1 or more, not {max_calls!r}", status=Status.MAX_CALLS_TOO_SMALL)
        self._endpoints = [Endpoint.parse(endpoint) for endpoint in endpoints]
        self._options = options
        self.name = name
        self.tracebacks = tracebacks
        self.pipe_window = check_window(pipe_window)
        self.registry = Registry()
        self.counters = Counters()
        # Made for the first `async def` routine; guarded by `lock`.
        self._coroutines: CoroutineRunner | None = None
        self._instance = os.urandom(16)
        self._max_calls = max_calls
        # Guards all below, and the fields of the listeners.
        self.lock = allocate_lock()
        self._listeners: list[Listener] = []
        # Calls that arrived and are not closed.
        self.active = 0
        # Whether `closed_locked` is to be told of closed calls.
        self.draining = False
        self._waited = False
        self._closing = False
        # Set while no call is open and the server does not listen.
        self._stopped = Event(manual_reset=True, signaled=True)
        self._owns_pool = pool is None
        self.pool = pool or ThreadPool(workers, workers, name=name)
        self._phase = Phase.IDLE
        _open_servers.add(self)

    # Interfaces

    def register(self, interface: type[Interface] | str, implementation: Any) -> None:
        """Serve `interface` by the methods of `implementation`.

        Args:
            interface: an `Interface` class; `implementation` needs a method for each of its operations, of the same
                name. Or a name: all public methods of `implementation` are served without a contract.
            implementation: any object. Methods run on the pool's threads, several at once; those marked with `manager`
                get the call's handle and answer when they like. `async def` methods run in the server's event loop and
                need no worker. A cancel, or the end of the client's patience, interrupts no routine of any kind: it
                shows in `test_cancel`, `disconnected` and `time_left` of the call's handle (`current_call()`).
        Raises: `InvalidParameter` if a method is missing or does not take the operation's parameters; `Misuse` 1711
            (ALREADY_REGISTERED).
        Source: "RpcServerRegisterIf".
        """
        self.registry.register(interface, implementation)

    def unregister(self, interface: type[Interface] | str) -> None:
        """Serve `interface` no longer: new calls are refused with `UnknownInterface`, running ones go on.

        Raises: `Misuse` 1717 (UNKNOWN_IF) if it is not registered. Source: "RpcServerUnregisterIf".
        """
        self.registry.unregister(interface)

    # Life

    def listen(self, *, wait: bool = False) -> None:
        """Begin to take calls.

        Args: `wait` True returns only after `stop` and the last running call, as `self.wait()`.
        Raises: `InvalidState` 1713 (ALREADY_LISTENING), 1714 (NO_PROTSEQS_REGISTERED) without an endpoint;
            `transport.EndpointError` if an endpoint is taken; `InvalidHandle` if the server is closed.
        Source: "RpcServerListen".
        """
        with self.lock:
            self._check_open()
            if self._phase is not Phase.IDLE:
                raise InvalidState(f"the server is {self._phase.value} already", status=Status.ALREADY_LISTENING)
            if not self._endpoints:
                raise InvalidState("the server has no endpoint to listen on", status=Status.NO_PROTSEQS_REGISTERED)
            self._phase = Phase.LISTENING
            bound = bool(self._listeners)
        self._stopped.reset()
        if not bound:
            try:
                for endpoint in self._endpoints:
                    self._listeners.append(Listener(self, bind(endpoint, **self._options)))
            except BaseException:
                listeners, self._listeners = self._listeners, []
                for listener in listeners:
                    listener.close()
                self._phase = Phase.IDLE
                self._stopped.set()
                raise
        if wait:
            self.wait()

    def stop(self) -> None:
        """Take no new calls; running ones go on. Returns at once; `wait` waits for the last one.

        Raises: `InvalidState` 1715 (NOT_LISTENING). Source: "RpcMgmtStopServerListening".
        """
        with self.lock:
            if self._phase is not Phase.LISTENING:
                raise InvalidState(f"the server is {self._phase.value}, not listening", status=Status.NOT_LISTENING)
            self._phase = Phase.DRAINING
            ended = self._drained_locked()
        if ended:
            self._stopped.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server was stopped and its last call was closed; False if `timeout` (seconds) ran out first.

        Raises: `InvalidState` 1713 (ALREADY_LISTENING) if another thread waits already, 1715 (NOT_LISTENING) if the
            server never listened. Source: "RpcMgmtWaitServerListen".
        """
        check_seconds("timeout", timeout)
        with self.lock:
            if self.closed:
                return True
            if self._waited:
                raise InvalidState("another thread waits for this server already", status=Status.ALREADY_LISTENING)
            if self._phase is Phase.IDLE and not self._listeners:
                raise InvalidState("the server was not told to listen", status=Status.NOT_LISTENING)
            self._waited = True
        try:
            return self._stopped.wait(timeout)
        finally:
            self._waited = False
            if self.closed:
                self._stopped.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._phase is Phase.CLOSED

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Stop, wait up to `timeout` seconds for running calls, tell the clients, and release everything.

        Calls that are still open then end with `CallFailed` at their clients. Closing twice does nothing.
        Raises: `Deadlock` in a routine of this server: it would wait for itself. `stop` does not wait.
        Blocks: for `timeout` seconds at the most, plus as long again for workers that do not come back.
        """
        check_seconds("timeout", timeout)
        here = current.get()
        if here is not None and here._listener.serves(self):
            raise Deadlock("a routine cannot close its own server, which would wait for the routine: call stop() in it")
        with self.lock:
            if self.closed or self._closing:
                return
            self._closing = True
            drain = self._phase is not Phase.IDLE
            self._phase = Phase.DRAINING
            ended = self._drained_locked()
        if ended:
            self._stopped.set()
        deadline = monotonic() + timeout
        if drain and not self._stopped.wait(timeout):
            log.warning("%s: %d calls were still open %s s after the stop", self.name, self.active, timeout)
        with self.lock:
            self._phase = Phase.CLOSED
            listeners, self._listeners = self._listeners, []
        _open_servers.discard(self)
        for listener in listeners:
            listener.close()
        with suppress(InvalidHandle):  # Closed by the thread that waited, on its way out.
            self._stopped.set()
        left = max(0.1, deadline - monotonic())
        if self._coroutines is not None:
            self._coroutines.stop(left)
        if self._owns_pool:
            self.pool.stop(left)
        if not self._waited:  # Otherwise the event goes with the thread that still waits on it.
            self._stopped.close()

    @property
    def endpoint(self) -> str:
        """The first endpoint, as bound: with the port that the system chose."""
        return self.endpoints[0]

    @property
    def endpoints(self) -> list[str]:
        """All endpoints, as bound once the server listens."""
        if self._listeners:
            return [listener.endpoint for listener in self._listeners]
        return [str(endpoint) for endpoint in self._endpoints]

    @property
    def listening(self) -> bool:
        """Whether new calls are taken. Source: "RpcMgmtIsServerListening"."""
        return self._phase is Phase.LISTENING

    def statistics(self) -> ServerStatistics:
        """Return a snapshot of the server's counters. Never blocks. Source: "RpcMgmtInqStats"."""
        with self.lock:
            counters = self.counters
            return ServerStatistics(
                phase=self._phase.value,
                active=self.active,
                calls_in=counters.calls_in,
                messages_in=counters.messages_in,
                messages_out=counters.messages_out,
                faults=counters.faults,
                refused=counters.refused,
                garbage_received=counters.garbage,
            )

    # What the listeners ask. `lock` is held where the name says so.

    def welcome(self) -> Welcome:
        """What is said to a client that greets."""
        limits = Limits(pipe_window_bytes=self.pipe_window)
        return Welcome(self._instance, os.getpid(), socket.gethostname(), "callport", limits=limits)

    @property
    def coroutines(self) -> "CoroutineRunner":
        """What runs `async def` routines."""
        from .coroutines import CoroutineRunner  # Here, because who has none need not import asyncio (20 ms).

        with self.lock:
            if self._coroutines is None:
                self._coroutines = CoroutineRunner(self.name)
                if self.closed:  # By a call that was still waiting for a worker.
                    self._coroutines.stop(0)
            return self._coroutines

    def room_locked(self) -> int:
        """How many more calls may be accepted now."""
        return self._max_calls - self.active if self._phase is Phase.LISTENING else 0

    def refusal_locked(self) -> tuple[int, str]:
        """Why there is no room."""
        if self._phase is Phase.LISTENING:
            return Status.SERVER_TOO_BUSY, f"{self._max_calls} calls are open, and the server takes no more at once"
        return Status.SERVER_UNAVAILABLE, "the server is not listening"

    def closed_locked(self) -> None:
        """A call was closed while draining, and is not counted in `active` any more."""
        if self._drained_locked():
            self._stopped.set()

    def _drained_locked(self) -> bool:
        """Whether the stop is complete; the phase moves on then."""
        self.draining = self._phase is Phase.DRAINING
        if self.draining and self.active == 0:
            self._phase = Phase.IDLE
            self.draining = False
            return True
        return False

    def _check_open(self) -> None:
        if self._forked:
            raise Forked("this server was made before fork(): make a new one in the child")
        if self._phase is Phase.CLOSED:
            raise InvalidHandle("the server is closed")

    def __repr__(self) -> str:
        return f"<Server {self.name} {', '.join(self.endpoints)} {self._phase.value} active={self.active}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# Servers to report at exit, and to disable in a forked child: their locks may be held by threads that are not there.
_open_servers: weakref.WeakSet[Server] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for server in list(_open_servers):
        server.lock = allocate_lock()
        server._phase = Phase.CLOSED
        server._forked = True
    _open_servers.clear()


def _at_exit() -> None:
    for server in list(_open_servers):
        warnings.warn(f"{server!r} was never closed", ResourceWarning, stacklevel=1, source=server)
        server.close(0.0)


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
