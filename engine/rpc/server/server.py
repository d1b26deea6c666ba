"""The server: interfaces, endpoints, a pool of workers, and its life from listening to stopped.

    IDLE --listen--> LISTENING --stop--> DRAINING --last call closed--> IDLE     any --close, drain--> CLOSED

While DRAINING, running calls go on and new ones are refused with `ServerUnavailable`; the clients stay connected. A
`drain` refuses none: it leaves them where they are, and sends each client, as it closes, which it has taken.
Interfaces that listen by themselves are served in all phases but CLOSED; a stop does not wait for their calls, a close
does.

Half of this file says what its public methods take, raise and wait for: hence the length.

Source: "RpcServerListen", "RpcMgmtStopServerListening", "RpcMgmtWaitServerListen", "RpcMgmtInqStats".
"""

import os
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from itertools import accumulate
from operator import attrgetter
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any, Self, Unpack

import msgspec

from transport import Endpoint, LinkOptions, TransportOptions, bind
from transport.foreign import a_type, text_of
from transport.frames import (
    LIBRARY,
    MAX_BODY_BYTES,
    MAX_MEMBERS,
    MAX_MESSAGE_BYTES,
    PIPE_WINDOW_BYTES,
    Limits,
    Welcome,
)
from transport.log import Log
from transport.realtime import monotonic
from transport.wire.session import UNGREETED

from ...errors import Deadlock, InvalidArgumentType, InvalidHandle, InvalidParameter, InvalidState
from ...kernel.afterwards import afterwards
from ...kernel.checks import (
    MAX_THREADS,
    check_callback,
    check_count,
    check_duration,
    check_flag,
    check_kind,
    check_text,
    check_timeout,
)
from ...kernel.lock import Lock, Once, each
from ...kernel.loops import EventLoop, holding, loop_to_hold, running_loop
from ...lifecycle import AsyncCloseable, OpenObjects, Stage, at_exit, close_left_open, in_thread
from ...pool.pool import ThreadPool, port_of
from ..address import Address, addresses_of
from ..contract.interface import Interface
from ..interceptors import AsyncInterceptor, Interceptor, check_interceptor, check_interceptors
from ..limits import check_options
from ..pipes.pipe import MAX_WINDOW
from ..serving import begin_serving, current
from .admission import Admission, Phase, ServerStatistics
from .announcing import LEAVE, Announcement, Announcer, advertised, check_announcer
from .answers import Answers
from .contexts import ContextBook
from .ending import SIGNAL_LOOK, ended_by_signals
from .health import Health, HealthReport, HealthRoutines
from .listener import Listener
from .management import Authorize, Management, ManagementRoutines
from .open_call import CallAttributes, OpenCall, Peer, await_closed
from .peers import ServerPeer
from .policy import NONE, PRIVACY, AccessPolicy, check_max_calls
from .reflection import Reflection, ReflectionRoutines
from .registry import Registry
from .turns import Scheduler
from .watch import Watch

if TYPE_CHECKING:
    from .coroutines import CoroutineRunner

log: Log = Log("engine.rpc")

WORKERS = 4  # Threads for routines; enough to hide short waits, few enough not to fight over the interpreter.
MAX_CALLS = 1 << 20  # Calls that may be open at once; arbitrary, about 1 GB.
MEMBERS_BYTES = 32 * 1024  # Of endpoints in a greeting, for which every client takes 64 KiB.
MAX_CLIENT_CALLS = 1 << 18  # Of those, one client's; arbitrary.
MAX_CLIENT_BYTES = 256 * 1024 * 1024  # Of calls that wait, one client's; arbitrary.
MAX_WAITING_BYTES = 1024 * 1024 * 1024  # And of all clients at one endpoint; arbitrary.
STUCK_AFTER = 30.0  # Seconds; arbitrary: few routines mean to take so long.
MAX_UNREAD_BYTES = 64 * 1024 * 1024  # Arbitrary: more than a client that reads ever leaves.
REFUSING = 5.0  # Seconds for which a server that has refused calls for want of room says that it is not ready.
LISTEN_AWAITED = "call `server.listen()` and then `await server.wait_async()` in a coroutine"
CLOSE_TIMEOUT = 5.0  # Seconds that leaving a `with` block waits for running calls.


class _Workers(ThreadPool):
    """The pool of a server, which is dropped with it: the warning is the server's."""

    __slots__ = ()

    def _dropped_open(self) -> str:
        return ""


class Server(AsyncCloseable):
    """Serves interfaces on endpoints.

    Args:
        endpoints: where to listen: `tcp://host:port` (port 0: the system chooses), `ipc://path`, `inproc://name`,
            `loopback://name`; `native+tcp://...` and `native+ipc://...`: the first two without ZeroMQ's library;
            `tls://host:port`, with `tls`.
        workers: how many threads may run routines at once, 1 or more. A routine that calls its own server needs another
            one of them meanwhile: with `workers=1` such a call ends only by its timeout. While calls of other clients
            wait, one client has all of them but one at most; those that it had before it keeps until they return.
        pool: a `ThreadPool` of the caller's to run routines on, instead of one of the server's own.
        max_calls: calls that may be open at once; the next one is refused with `ServerTooBusy`. The last eighth is for
            clients that have fewer open than their even share (`max_calls` by the number of connected clients), so that
            one that asks for too much does not keep the others out; a client that is alone may have all.
        authorize: `authorize(attributes)` decides who may use `Management`: True allows `attributes.operation` to that
            client. None: clients on this machine may look, nobody may stop the server.
        tracebacks: send the traceback of a routine that raised to the client.
        fault_details: False hides from clients what an exception says that a routine did not raise for them: all but
            `CallError` and its subclasses. The log gets the exception with a number, and the client that number.
        insecure: True if the networks that plain tcp endpoints are reached by are trusted; otherwise one at anything
            but a loopback address, without keys (`curve`), is warned of in the log.
        pipe_window: bytes of encoded elements that a client may push into each pipe ahead of what is pulled, 1 or more.
        max_body_bytes: the most bytes of a message that are decoded, 64 KiB or more; byte strings of 64 KiB and more
            and arrays do not count, as they travel beside. Clients know it, and keep below it: a call with larger
            arguments, or a larger push into a pipe, is refused. Decoding holds the interpreter, 0.1 s at the worst for
            the 1 MiB that is the default.
        loop: the event loop of asyncio, running now or later, in which `async def` routines run beside the program's
            own tasks, each in a copy of this context (`contextvars`). None: the loop in which the server is entered by
            `async with`, if it does not listen by then; else one that the server makes, with a thread of its own, for
            the first such routine. The loop stays the program's: it is not closed, and a routine that blocks it holds
            up the program.
        announce: a registry in which the server announces itself once it listens (`engine.resolvers.Etcd`, or what has
            such a method, see `Announcer`); it leaves before it stops. None: in none.
        advertise: where clients reach it, for the registry: an `Address`, or an endpoint, whose port may be `*` for the
            one that is bound. None: at the first endpoint; one that is every address of the machine will not do.
        max_client_calls: calls that one client may have open; the next one is refused with `ServerTooBusy`.
        max_client_bytes, max_waiting_bytes: bytes of calls that may wait for a worker, of one client and of all at one
            endpoint; past that calls are refused likewise, in the second case those of clients that have more than an
            even share waiting.
        max_unread_bytes: bytes of answers, and of elements of pipes, that may wait for one client because it does not
            read; past that it is disconnected. So is one that leaves what was handed to the transport unread for 5 s
            (16 MiB; see docs/security.md). If more than `max_total_bytes` wait for all clients of an endpoint, what was
            handed to the transport included, the one for which most waits is.
        stuck_after: seconds after which a routine that has not returned is named in the log, once, with its stack; it
            counts in `statistics().stuck`, and for `Health`.
        interceptors: generator functions that are run around each routine that is registered, the first one outermost,
            where the routine runs: see `engine.rpc.interceptors`. `Health`, `Management` and `Reflection` go without.
            Async generator functions, too, if all routines are `async def`: they run inside of the others.
        reflection: serve `Reflection`, which shows every client that can connect what is served: the names, types and
            docstrings of all interfaces, whatever `register` says about who may call them.
        name: appears in thread names and log records.
        options: of the transport, as for `Client`; `tls` has the server's certificate, and `max_connections`,
            `max_address_connections`, `max_queued_bytes`, `max_total_bytes` and `greeting_timeout` bound what those may
            do who come from elsewhere, see `transport.LinkOptions`. Clients get to know `max_message_bytes`, and keep
            below it.

    Register interfaces before or after `listen`. Close the server, or use it as a context manager: it goes on serving
    though nothing refers to it. One that is still open when the process ends is reported as a `ResourceWarning`.

    Threads: every method may be called from any thread, `stop` from a routine too. In a signal handler only
    `request_stop` and `stop` are safe: the others raise `Deadlock` there if their thread was interrupted under a lock
    that they need. In a forked child the copy of a server, and the calls that it had, raise `Forked`; make a new one
    there.
    Source: "RpcServerUseProtseqEp", "RpcServerListen".
    """

    _instead = "hand over its endpoint, and connect a client to that"

    def __init__(
        self,
        *endpoints: str | Endpoint,
        workers: int = WORKERS,
        pool: ThreadPool | None = None,
        max_calls: int = MAX_CALLS,
        tracebacks: bool = False,
        fault_details: bool = True,
        insecure: bool = False,
        authorize: Authorize | None = None,
        pipe_window: int = PIPE_WINDOW_BYTES,
        max_body_bytes: int = MAX_BODY_BYTES,
        loop: EventLoop | None = None,
        announce: Announcer | None = None,
        advertise: Address | str | None = None,
        max_client_calls: int = MAX_CLIENT_CALLS,
        max_client_bytes: int = MAX_CLIENT_BYTES,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        max_unread_bytes: int = MAX_UNREAD_BYTES,
        stuck_after: float = STUCK_AFTER,
        interceptors: Iterable[Interceptor | AsyncInterceptor] = (),
        reflection: bool = True,
        name: str = "server",
        **options: Unpack[TransportOptions],
    ) -> None:
        check_count("workers", workers, 1, MAX_THREADS)
        check_max_calls(max_calls)
        check_flag("tracebacks", tracebacks)
        check_flag("fault_details", fault_details)
        check_flag("insecure", insecure)
        check_flag("reflection", reflection)
        if tracebacks and not fault_details:
            raise InvalidParameter("tracebacks=True sends what fault_details=False hides: choose one of the two")
        check_text("name", name)
        check_callback("authorize", authorize, optional=True)
        check_kind("pool", pool, ThreadPool, optional=True)
        if loop is not None and not hasattr(loop, "call_soon_threadsafe"):  # Anybody's loop: uvloop's is of no base.
            raise InvalidArgumentType(f"loop must be an event loop of asyncio, or None, not {a_type(loop)}")
        self._endpoints = [Endpoint.parse(endpoint) for endpoint in endpoints]
        self._options = options
        self._largest = check_options(Server, options)
        self._has_keys: bool = options.get("curve") is not None
        self.name = name
        self._tracebacks = tracebacks
        self._fault_details = fault_details
        self._insecure = insecure
        self._max_body_bytes: int = check_count(
            "max_body_bytes", max_body_bytes, UNGREETED.message_bytes, MAX_MESSAGE_BYTES
        )
        self._max_client_calls: int = check_count("max_client_calls", max_client_calls, 1)
        self._most_waiting: tuple[int, int] = (
            check_count("max_client_bytes", max_client_bytes, 1),
            check_count("max_waiting_bytes", max_waiting_bytes, 1),
        )
        stuck_after = check_duration("stuck_after", stuck_after)
        self._max_unread_bytes: int = check_count("max_unread_bytes", max_unread_bytes, 1)
        self._pipe_window: int = check_count("pipe_window", pipe_window, 1, MAX_WINDOW)
        self._registry: Registry = Registry()
        self._registry.intercept(*check_interceptors(interceptors, may_await=True))
        self._announcer: Announcer | None = check_announcer(announce)
        self._advertise = advertise
        if announce is not None and self._endpoints:
            # Before it is bound, when the port may still be unknown: what cannot be announced is said here.
            advertised(advertise, msgspec.structs.replace(self._endpoints[0], port=self._endpoints[0].port or 1))
        self._instance = os.urandom(16)
        # Held while the endpoints are bound, so that they are bound once. Lock order: before all others.
        self._binding = Lock()
        self._closed_once = Once()
        # All below: guarded by admission's lock. Made for the first `async def` routine.
        self._coroutines: CoroutineRunner | None = None
        # The program's loop for them, and the context for their tasks; None: they get a loop of their own.
        self._loop: tuple[EventLoop, Context] | None = None if loop is None else (loop, copy_context())
        self._listeners: list[Listener] = []
        # Where they listen, or did.
        self._bound: list[str] = []
        # The endpoints of its fellows, for greetings. Replaced as a whole.
        self._members: list[str] = []
        # While it is in the registry. Stored by who listens and who closes, read by who stops.
        self._announcement: Announcement | None = None
        # Whether `listen` succeeded, ever; and whether a stop was asked for before that. Attributes that are only
        # stored and loaded, in this order by `listen` and in the other by `request_stop`: one of the two stops.
        self._listened = False
        self._stop_requested = False
        # Whether a second signal has ended the wait in `listen` for what runs: `close` does not take it up again then.
        self._hurried = False
        self._owns_pool = pool is None
        self.pool: ThreadPool = _Workers(workers, workers, name=name) if pool is None else pool
        watch = Watch(stuck_after, name, self._jam)
        self._scheduler: Scheduler = Scheduler(port_of(self.pool), self._start, self._hand_over, watch)
        self._contexts: ContextBook = ContextBook(self.pool, self._scheduler.resume)
        self._admission: Admission = Admission(max_calls, len(self._endpoints), self._max_client_calls, watch)
        management = ManagementRoutines(self._admission, authorize)
        self._registry.register(Management, management, AccessPolicy(), lasting=True)
        self._registry.register(Health, HealthRoutines(self.health), AccessPolicy(), lasting=True)
        if reflection:
            routines = ReflectionRoutines(self._registry.described)
            self._registry.register(Reflection, routines, AccessPolicy(), lasting=True)
        begin_serving()
        _open_servers.add(self)

    def add_interceptor(self, interceptor: Interceptor | AsyncInterceptor) -> None:
        """Have `interceptor` run around each routine that is entered from now on, and around the other interceptors.

        What is registered already is among it. Raises: `InvalidArgumentType` if it cannot be called, or if it awaits
        and a routine that is registered is none that can be awaited. Threads: any. Blocks: never.
        """
        self._registry.intercept(check_interceptor(interceptor, may_await=True))

    def register(
        self,
        interface: type[Interface] | str,
        implementation: Any,
        *,
        max_calls: int | None = None,
        max_request_bytes: int | None = None,
        auto_listen: bool = False,
        security: Callable[[CallAttributes], object] | None = None,
        operations: Mapping[str, Callable[[CallAttributes], object]] | None = None,
        secure_only: bool = False,
        local_only: bool = False,
        no_cache: bool = False,
    ) -> None:
        """Serve `interface` by the methods of `implementation`.

        Args:
            interface: an `Interface` class; `implementation` needs a method for each of its operations, of the same
                name, and a property is none. Or a name: the public methods that the class of `implementation` or a
                base of it defines, static and class methods included, are served without a contract; not what was set
                on the object itself, nor properties, which are not run.
            implementation: any object. Methods run on the pool's threads, several at once (those of operations that are
                declared `nonblocking` also on threads of this process that wait, over loopback); those marked with
                `manager` get the call's handle and answer when they like. `async def` methods run in the server's event
                loop and need no worker. A cancel, or the end of the client's patience, interrupts no routine of any
                kind: it shows in `test_cancel`, `disconnected` and `time_left` of the call's handle (`current_call()`).
                Each call runs in an empty context (`contextvars`) of its own. A routine sends a status by raising a
                `CallError` that has one, or by `current_call().abort(status, text)`. Keyword-only parameters are
                refused: operations are called by position. Annotations that contradict the contract's are refused, too;
                type checkers see more by `implements`. A generator that serves an `OutPipe` need not take it.
            max_calls: with `auto_listen`, calls of this interface that may be open at once, the next one is refused
                with `ServerTooBusy`; None: any number. Otherwise the server's own limit rules, and this one is ignored.
            max_request_bytes: a call with larger arguments, encoded, ends with `AccessDenied`.
            auto_listen: serve it from now until it is unregistered, whatever `listen` and `stop` say. The endpoints are
                bound now if they are not yet.
            security: `security(attributes)` admits a client by returning True; on anything else, or an exception, the
                call ends with `AccessDenied`. Asked once for each connection, before the first call runs. It runs on
                the pool, and `current_call()` in it is the call it is asked about; the client's later calls wait for
                it. Different from Windows: anonymous clients are asked about too, unless `secure_only`; and 0, which
                admits there, does not.
            operations: for some operations, by name, another such function, which is asked besides `security`, once for
                each connection and operation.
            secure_only: clients that have not proved who they are get `AccessDenied`.
            local_only: so do clients on other machines: those that come over tcp from anything but a loopback address.
            no_cache: ask `security` for each call.
        Raises: `InvalidParameter` if a method is missing or does not take the operation's parameters, or one of these
            has a type that cannot be sent; `Misuse` 1711 (ALREADY_REGISTERED), 1742 (MAX_CALLS_TOO_SMALL); with
            `auto_listen` also what `listen` raises if an endpoint cannot be bound; `InvalidHandle` if the server is
            closed.
        Source: "RpcServerRegisterIf", "RpcServerRegisterIf2", "Interface Registration Flags".
        """
        name = interface if isinstance(interface, str) else getattr(interface, "__name__", "")
        policy = AccessPolicy(
            name, max_calls, max_request_bytes, auto_listen, security, secure_only, local_only, no_cache,
            dict(operations or {}),
        )  # fmt: skip
        with self._admission.lock:
            self._admission.check_open()
        if auto_listen:
            self._bind()
        self._registry.register(interface, implementation, policy, lasting=False)

    def unregister(
        self, interface: type[Interface] | str | None = None, *, wait: bool = False, run_down: bool = False
    ) -> None:
        """Serve `interface` no longer: new calls are refused with `UnknownInterface`, running ones go on.

        Args:
            interface: what was registered; None for all interfaces but those that listen by themselves.
            wait: return when the last running call of it is closed. Always so for an interface that listens by itself.
            run_down: wait likewise, and then run down the context handles that its operations have opened; those that
                calls of other interfaces still use are run down when these are closed. The rundown routines of the
                rest have ended when this returns. Otherwise handles stay, for the case that it is registered again.
        Raises: `Misuse` 1717 (UNKNOWN_IF) if it is not registered; `Deadlock`, and nothing is unregistered, if the
            calling routine serves one of the calls to be waited for.
        Source: "RpcServerUnregisterIf", "RpcServerUnregisterIfEx".
        """
        self._admission.check_process()
        check_flag("wait", wait)
        check_flag("run_down", run_down)
        served = self._registry.served(interface)
        wait = wait or run_down
        if wait and (loop := loop_to_hold()) is not None:
            with holding(loop):
                return self.unregister(interface, wait=wait, run_down=run_down)
        awaited = {entry for _, each in served if wait or each.auto_listen for entry in each.entries.values()}
        serving = current.get()
        if serving is not None and serving.entry in awaited and serving.is_open():
            raise Deadlock("a routine cannot wait for the end of its own call: unregister without waiting")
        self._registry.unregister(key for key, _ in served)
        if awaited:  # No new ones come.
            for call in [call for listener in list(self._listeners) for call in listener.running(awaited)]:
                await_closed(call)
        if run_down:
            self._contexts.run_down([key for key, _ in served])

    def listen(self, *, max_calls: int | None = None, wait: bool = False) -> None:
        """Begin to take calls.

        Args:
            max_calls: calls that may be open at once from now on; None: as before.
            wait: True returns only after `stop` and the last running call, as `self.wait()`. In the main thread it then
                ends a service as users expect, for signals whose handler is still Python's own: SIGTERM requests a
                stop, and the call returns when the last running call was closed; Ctrl-C does the same, and then raises
                `KeyboardInterrupt`. After the first signal both have Python's own handlers again: a second SIGTERM
                kills the process, a second Ctrl-C raises `KeyboardInterrupt` at once, and closing the server does not
                wait for running calls then. (A routine that goes on delays the end of the process by up to 2 s more.)
                The handlers are put back before it returns or raises. `listen()` and then `wait()` set none.
                In a coroutine call `listen()` and then `await server.wait_async()`: this would hold up its event loop,
                with a warning.
        Raises: `Misuse` 1742 (MAX_CALLS_TOO_SMALL) for a limit below 1; `InvalidState` 1713 (ALREADY_LISTENING), 1714
            (NO_PROTSEQS_REGISTERED) without an endpoint;
            `transport.EndpointError` if an endpoint is taken; `InvalidHandle` if the server is closed; `Deadlock`, and
            it does not listen, for `wait` in the thread that runs the loop of the server's `async def` routines.
        Source: "RpcServerListen".
        """
        check_flag("wait", wait)
        if wait and (loop := loop_to_hold()) is not None:
            self._check_awaits(loop)
            with holding(loop, LISTEN_AWAITED):
                return self.listen(max_calls=max_calls, wait=wait)
        if max_calls is not None:
            check_max_calls(max_calls)
        with self._admission.starting(max_calls, len(self._endpoints)):
            self._bind()
            self._listened = True
        self._join_registry()
        if self._stop_requested:
            self.request_stop()
        if wait:
            with ended_by_signals(self.request_stop, partial(setattr, self, "_hurried", True)):
                while not self.wait(SIGNAL_LOOK):
                    pass

    def _check_awaits(self, loop: object) -> None:
        """Refuse to wait without an end in the thread that runs `loop`, if this server's routines need it."""
        with self._admission.lock:
            own = self._loop
        if own is not None and own[0] is loop:
            raise Deadlock(
                "the `async def` routines of this server run in the event loop of this thread, and none would get on "
                f"while it waits: {LISTEN_AWAITED}"
            )

    def _bind(self) -> None:
        """Bind the endpoints, all or none, if they are not bound."""
        with self._binding:
            if self._listeners:
                return
            listeners: list[Listener] = []
            try:
                each(lambda number: listeners.append(self._listener(number)), range(len(self._endpoints)))
                bound = list(map(attrgetter("endpoint"), listeners))
                with self._admission.lock:
                    self._admission.check_open()  # Who closes the server from here on finds them.
                    self._listeners, self._bound = listeners, bound
            except BaseException:
                each(Listener.close, listeners)
                raise
            self._warn_of_exposure()

    def _join_registry(self) -> None:
        """Be announced, if there is a registry."""
        if self._announcer is not None:
            announcement = Announcement(self._announcer, advertised(self._advertise, Endpoint.parse(self.endpoint)))
            self._announcement = announcement
            announcement.begin()

    def _leave_registry(self, timeout: float) -> None:
        """Be announced no longer. Blocks: until the registry has taken note, for `timeout` seconds at most."""
        announcement, self._announcement = self._announcement, None
        if announcement is not None:
            announcement.end(timeout)

    def _warn_of_exposure(self) -> None:
        """Say so if strangers may read and make calls."""
        endpoints = [] if self._insecure else map(Endpoint.parse, self._bound)
        exposed = [str(each) for each in endpoints if not self._is_private(each) and each.is_exposed()]
        if exposed:
            log.warning(
                "%s: listens on %s without keys: whoever reaches that can read, change and make calls. "
                "Use tls://, or give it keys (curve=..., for tcp://), or insecure=True if the network is trusted",
                self.name, ", ".join(exposed), later=True,
            )  # fmt: skip

    def _is_private(self, endpoint: Endpoint) -> bool:
        """Whether only the two ends can read and change what passes there."""
        return endpoint.carrier != "tcp" or endpoint.scheme == "tls" or self._has_keys

    def _listener(self, number: int) -> Listener:
        link = bind(self._endpoints[number], **self._options)
        try:
            level = PRIVACY if self._is_private(self._endpoints[number]) else NONE
            counters = self._admission.endpoints[number]
            answers = Answers(
                link.endpoint, counters, self._contexts, self._tracebacks, self._fault_details, level,
                self._max_unread_bytes, LinkOptions(**self._options).max_total_bytes,
            )  # fmt: skip
            return Listener(
                link, answers, self._registry, self._scheduler, self._welcome, self._pipe_window, self._max_body_bytes,
                self._most_waiting,
            )  # fmt: skip
        except BaseException:
            with link.lock:
                link.close()
            raise

    def stop(self) -> None:
        """Take no new calls; running ones go on. Returns at once; `wait` waits for the last one.

        Raises: `InvalidState` 1715 (NOT_LISTENING). Safe in a signal handler, where `request_stop` is what is meant.
        Source: "RpcMgmtStopServerListening".
        """
        if (announcement := self._announcement) is not None:
            announcement.leave()
        try:
            self._admission.stop()
        except Deadlock:  # In a signal handler that interrupted this thread under the lock: nothing was changed.
            afterwards(self.request_stop)

    def request_stop(self) -> None:
        """Begin to stop, as `stop`, whatever state the server is in: for signal handlers.

        A server that never listened yet stops as soon as it does; one that is stopping or closed is left alone.
        Safe in a signal handler, `signal.signal(signal.SIGTERM, lambda *_: server.request_stop())`, and in a callback
        of any kind. If the handler interrupted the engine itself, the stop begins a moment after the return.
        Threads: any. Blocks: never. Raises: nothing.
        """
        self._stop_requested = not self._listened
        with suppress(InvalidState, InvalidHandle):  # It does not listen, or is closed: there is nothing to stop.
            self.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server was stopped and its last call was closed; False if `timeout` (seconds) ran out first.

        Raises: `InvalidState` 1713 (ALREADY_LISTENING) if another thread waits already, 1715 (NOT_LISTENING) if the
            server never listened; `Deadlock` without a `timeout` in the thread that runs the loop of the server's
            `async def` routines, where `wait_async` is meant. Source: "RpcMgmtWaitServerListen".
        """
        timeout = check_timeout(timeout)
        if timeout is None and (loop := running_loop()) is not None:
            self._check_awaits(loop)
        with self._admission.waiting(self._listened) as stops:
            return not stops or self._admission.stopped.wait(timeout)

    async def wait_async(self, timeout: float | None = None) -> bool:
        """As `wait`, but the task waits."""
        timeout = check_timeout(timeout)
        with self._admission.waiting(self._listened) as stops:
            return not stops or await self._admission.stopped.wait_async(timeout)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._admission.phase is Phase.CLOSED

    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """Stop, wait up to `timeout` seconds (None: for ever) for running calls, notify clients, release everything.

        Calls that still run then end with `CallFailed` at their clients, which may have run; those that were taken and
        have not begun with `ServerUnavailable`, and never run. Those that were not taken go to the next server there,
        as with `drain`, which unlike this refuses no call while others still run.
        Closing twice does nothing. After a second signal has broken off a `listen(wait=True)` it waits for no calls.
        Raises: `Deadlock` in a routine of this server: it would wait for itself. `stop` does not wait.
        Blocks: for `timeout` seconds at the most, plus as long again for workers that do not come back. In a coroutine
        that holds up the event loop, with a warning (in asyncio's debug mode it is raised, and closing once more goes
        on): use `aclose`, or `async with`.
        """
        self._end(timeout, self._close)

    def drain(self, grace: float | None = CLOSE_TIMEOUT) -> None:
        """Close without a failed call: leave the registry, take no more calls and refuse none, wait up to `grace`
        seconds (None: for ever) for those that run, say goodbye, and release everything.

        Calls that arrive meanwhile are left unread: the goodbye tells their clients, which send them to another server
        (a client of several, at once), or to the next one at this endpoint, if it comes within their `connect_timeout`.
        So none is lost, whether its operation is idempotent or not; only one with pipes or a context handle, which it
        cannot do without, ends with `CallFailedDne`. Cancels, elements of pipes and credit of running calls still
        count. Who connects meanwhile is refused. What still runs after `grace` seconds ends as when the server closes.

        Draining a server that is closed does nothing. Raises, and blocks, as `close`; in a coroutine use `drain_async`.
        """
        self._end(grace, self._drain)

    async def drain_async(self, grace: float | None = CLOSE_TIMEOUT) -> None:
        """As `drain`, in another thread: the event loop goes on. It is done also if the task is cancelled."""
        await in_thread(self.drain, grace)

    def _end(self, timeout: float | None, how: Callable[[float], None]) -> None:
        """Close, within `timeout` seconds, unless it was done."""
        limit = check_timeout(timeout)
        timeout = 0.0 if self._hurried else TIMEOUT_MAX if limit is None else min(limit, TIMEOUT_MAX)
        here = current.get()
        if isinstance(here, OpenCall) and here.answers.admission is self._admission:
            raise Deadlock("a routine cannot close its own server, which would wait for the routine: call stop() in it")
        if not self._admission.forked:
            self._closed_once.do(how, timeout)

    def _drain(self, timeout: float) -> None:
        deadline = monotonic() + timeout
        self._leave_registry(min(timeout, LEAVE))
        each(Listener.drain, self._listeners)
        self._close(max(0.0, deadline - monotonic()))

    def _close(self, timeout: float) -> None:
        """Close. Whatever was done before it was broken off is not done again."""
        deadline = monotonic() + timeout
        self._leave_registry(min(timeout, LEAVE))
        if not self.closed:
            self._admission.close(timeout, self.name)
        each(Listener.close, self._listeners)
        with suppress(InvalidHandle):  # Closed by the thread that waited, on its way out.
            self._admission.stopped.set()
        left = max(0.1, deadline - monotonic())
        try:
            if self._coroutines is not None:
                self._coroutines.stop(left)
            if self._owns_pool:
                self.pool.stop(left)
        finally:
            if not self._admission.waited:  # Otherwise the event goes with the thread that still waits on it.
                self._admission.stopped.close()
        self._listeners = []
        _open_servers.discard(self)

    async def __aenter__(self) -> Self:
        with self._admission.lock:
            if self._loop is None and not self._listeners and (loop := running_loop()) is not None:
                self._loop = loop, copy_context()
        return self

    async def aclose(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """As `close`, in another thread: the event loop goes on. It is done also if the task is cancelled."""
        await in_thread(self.close, timeout)

    @property
    def endpoint(self) -> str:
        """The first endpoint, as bound: with the port that the system chose."""
        return self.endpoints[0]

    @property
    def endpoints(self) -> list[str]:
        """All endpoints, as bound once the server listens; after its end as they were."""
        return list(self._bound) or [str(endpoint) for endpoint in self._endpoints]

    @property
    def members(self) -> list[str]:
        """The endpoints of the servers that serve the same, this one among them, as its greetings name them; or none.

        A client that is given this endpoint alone uses the others, too, for calls that have no order, and asks this
        server's `engine.resolvers.Members` for changes, if that is registered. `engine.processes.serve` sets it.
        Assigning takes endpoints or addresses, and counts for who connects from then on; of a list of more
        than 32 KiB, or 1024, the first. Raises: `transport.EndpointError` for what is no endpoint to connect to.
        """
        return list(self._members)

    @members.setter
    def members(self, addresses: Iterable[Address | str]) -> None:
        members = [address.endpoint for address in addresses_of(addresses)][:MAX_MEMBERS]
        sizes = accumulate(len(os.fsencode(member)) for member in members)
        self._members = members[: sum(size <= MEMBERS_BYTES for size in sizes)]

    @property
    def listening(self) -> bool:
        """Whether new calls are taken, on all endpoints. Source: "RpcMgmtIsServerListening"."""
        # The phase comes before the endpoints are bound, so that no call is refused that comes in between.
        return self._admission.phase is Phase.LISTENING and bool(self._listeners)

    @property
    def peers(self) -> list[ServerPeer]:
        """The clients that are connected now: a snapshot. Any thread; never blocks."""
        return [peer for listener in list(self._listeners) for peer in listener.shown_peers()]

    def disconnect(self, peer: ServerPeer, reason: str = "the server has disconnected it") -> bool:
        """End the connection of a client, which may come again; False if it is gone already.

        Its running calls go on, and their answers go nowhere; its client loses them with `CallFailed`. To keep it out,
        take its key from those that are allowed first (`transport.Curve`). `reason` is for the log of this side.
        Any thread. Blocks: for as long as another thread uses the endpoint. Over inproc its client does not notice.
        Raises: `InvalidArgumentType` if `peer` is none of `peers`.
        """
        check_kind("peer", peer, ServerPeer)
        check_text("reason", reason)
        self._admission.check_process()
        return any(
            listener.disconnect(peer.id, reason)
            for listener in list(self._listeners)
            if listener.endpoint == peer.endpoint
        )

    def health(self) -> HealthReport:
        """Return how the server is, as `Health` answers every client that asks. Any thread; never blocks."""
        dead = [listener.endpoint for listener in list(self._listeners) if not listener.alive]
        wrong = [f"{endpoint} is dead" for endpoint in dead]
        stuck = self._admission.watch.stuck
        if stuck >= self.pool.statistics().maximum:
            wrong.append(f"all workers are stuck: {stuck} routines do not return")
        live = not wrong and not self.closed
        if not self.listening:
            wrong.append(f"the server is {self._admission.phase.value}")
        if monotonic() - self._admission.refused_at < REFUSING:
            wrong.append("calls are refused: a limit is reached")
        return HealthReport(live, not wrong, wrong)

    def _jam(self, stuck: Sequence[Peer]) -> str:
        """What to say of routines that do not return, of calls of these clients, if no worker is left; else ""."""
        workers = self.pool.statistics().maximum
        if len(stuck) < workers:
            return ""
        here = (os.getpid(), text_of(socket.gethostname()))
        peers = self.peers
        waiting = max(sum(peer.calls for peer in peers) - len(stuck), 0)
        own = sum(peer.calls for peer in peers if (peer.process, peer.host) == here)
        own -= sum((peer.process, peer.host) == here for peer in stuck)
        text = (
            f"all workers ({workers}) are in routines that do not return, "
            f"{waiting} {'call waits' if waiting == 1 else 'calls wait'} for one: "
            "raise workers=, write what only waits as `async def`, or bound its waits by a timeout"
        )
        if own > 0:
            text += f". From this very process: {own}. A routine that calls its own server takes a second worker"
        return text

    def statistics(self) -> ServerStatistics:
        """Return a snapshot of the server's counters. Never blocks. Source: "RpcMgmtInqStats"."""
        return self._admission.snapshot()

    def _welcome(self, heartbeat: float) -> Welcome:
        """What is said to a client that greets, over a link with such a heartbeat."""
        limits = Limits(
            message_bytes=self._largest,
            outstanding_calls=self._max_client_calls,
            pipe_window_bytes=self._pipe_window,
        )
        return Welcome(
            self._instance, os.getpid(), text_of(socket.gethostname()), LIBRARY, heartbeat, limits,
            body_bytes=self._max_body_bytes, members=self._members,
        )  # fmt: skip

    def _start(self, call: OpenCall, coroutine: Coroutine[Any, Any, Any], context: Context) -> None:
        """Run an `async def` routine in the event loop, in `context` or with what is in it; its end closes the call."""
        self._coroutine_runner().start(call, coroutine, context)

    def _hand_over(self, call: OpenCall) -> None:
        """Have the server's event loop begin a call of an `async def` routine."""
        self._coroutine_runner().hand_over(call)

    def _coroutine_runner(self) -> "CoroutineRunner":
        # Here: a program without such routines need not import asyncio (20 ms).
        from .given_loop import GivenLoop
        from .own_loop import OwnLoop

        with self._admission.lock:
            if self._coroutines is None:
                self._coroutines = OwnLoop(self.name) if self._loop is None else GivenLoop(self.name, *self._loop)
                if self.closed:  # By a call that was still waiting for a worker.
                    self._coroutines.stop(0)
            return self._coroutines

    def __repr__(self) -> str:
        phase, active = self._admission.phase.value, self._admission.active
        link = self._admission.links()
        return f"<Server {self.name} {', '.join(self.endpoints)} {phase}{link and f' link={link}'} active={active}>"

    def _dropped_open(self) -> str:
        # One that listens is not dropped: its endpoints refer to it.
        return "" if not hasattr(self, "_admission") or self.closed else repr(self)


def _inherited(server: Server) -> None:
    server._admission.inherit()
    for listener in server._listeners:
        listener.forked()


def _close_all() -> None:
    close_left_open(_open_servers, lambda server: server.close(0.0))


_open_servers = OpenObjects(_inherited)
at_exit(Stage.SERVERS, _close_all)
