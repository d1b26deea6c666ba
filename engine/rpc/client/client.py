"""The client: what users call, in front of the connection to a server.

Theory of operation. A client has a connection (`connection.py`), and a carrier, which begins the calls of its bindings
on that (`carrier.py`). Any number of threads and event loops share them.
"""

from collections.abc import Callable
from typing import Any, TypeVar, overload

import msgspec

from transport import Endpoint
from transport.foreign import shown
from transport.frames import PIPE_WINDOW_BYTES

from ...errors import InvalidArgumentType
from ...kernel.checks import check_count, check_flag, check_timeout
from ...kernel.driver import driver
from ...kernel.lock import Once
from ...lifecycle import AsyncCloseable, OpenObjects, Stage, at_exit, close_left_open
from ..contract.interface import Interface
from ..limits import check_options
from ..pipes.pipe import MAX_WINDOW
from ..wire_types import check_metadata
from .binding import Binding, bind_typed
from .carrier import Begin, Carrier
from .connection import Connection
from .pipes import operation_kind
from .retry import RETRIES, RETRY_BUDGET

I = TypeVar("I", bound=Interface)  # noqa: E741  # the interface

CONNECT_TIMEOUT = 5.0  # Seconds; long enough for a server that is just starting.
METADATA_BYTES = 48 * 1024  # Of a connection's metadata: with what is around it, a greeting has room for it.
MAX_CALLS = 1 << 20  # Outstanding calls of one client; arbitrary, about 1 GB.


class ClientStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a client's counters; all but `outstanding` and `queued_bytes` only grow.

    `link`: what carries its messages: "zmq", "native", "tls" or "loopback". `queued_bytes` wait to be written to the
    server (over ZeroMQ that is not known).
    `retries`: how often calls of idempotent operations were queued again; `retries_refused`: how often the budget
    forbade it.
    """

    connection: str
    outstanding: int
    calls_begun: int
    calls_finished: int
    replies_late: int
    messages_sent: int
    messages_received: int
    garbage_received: int
    connections: int
    retries: int
    retries_refused: int
    link: str
    queued_bytes: int


class Client(AsyncCloseable):
    """A client of one server.

    Args:
        endpoint: `tcp://host:port`, `ipc://path`, `inproc://name` or `loopback://name`; `native+tcp://...` and
            `native+ipc://...`: the first two without ZeroMQ's library, whatever the server uses; `tls://host:port`.
        timeout: seconds that a call may take unless it says otherwise; None: no limit. See `BoundOperation.begin` for
            the errors that it ends with: `CallTimeout` is not the only one.
        connect_timeout: seconds that a call may wait for a connection to a server that greets before it ends with
            `ServerUnavailable`, or with `CallFailed` if it was sent to one that has not greeted yet; None: for ever.
            Each call waits for itself, even if one before it has waited in vain.
            Once the server has greeted, a call may take its time; after a lost connection the limit counts again.
        max_calls: outstanding calls allowed; beginning one more raises `QueueFull`.
        retries: how often a call of an idempotent operation may be sent again, each time that its connection is lost
            before the answer has come; it waits for the next connection as a new call would. 0: never. Other calls are
            never sent twice, nor is one that was cancelled.
        retry_budget: so many calls may be sent again, and one more for every ten answers to calls of such operations.
            The next one ends with `CallFailed`, as without retries.
        metadata: texts sent with each connection, for the server's routines to read; 48 KiB at most.
        pipe_window: bytes of encoded elements that the server may push into each pipe ahead of what is pulled, 1 or
            more.
        options: of the transport, see `transport.LinkOptions`: `heartbeat` (seconds between pings, 5), `linger`
            (seconds that a closed client goes on sending, 1), `max_message_bytes` (the largest message
            taken, 64 KiB or more, 256 MiB; a larger result ends its call with `BadStubData`),
            `curve` (keys), `tls` (an `ssl.SSLContext` for `tls://`; None: one that trusts whom the system does),
            `context` (a ZeroMQ context of your own).

    Connecting happens in the background; the constructor does not wait for it. Close the client, or use it as a context
    manager: it stays open, and goes on serving its calls, without a reference to it. One that is still open when the
    process ends is reported as a `ResourceWarning`.

    Threads: any, at once; calls from several threads share the connection. Not for signal handlers: let one set an
    `Event`, or post to a port, and go on in the thread that waits for that. Blocks: only `close`, for `linger` seconds.
    Source: "Binding Handles"; "Making the Asynchronous Call".
    """

    _instead = "connect a new one there, to the same endpoint"

    def __init__(
        self,
        endpoint: str | Endpoint,
        *,
        timeout: float | None = None,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        max_calls: int = MAX_CALLS,
        retries: int = RETRIES,
        retry_budget: int = RETRY_BUDGET,
        metadata: dict[str, str] | None = None,
        pipe_window: int = PIPE_WINDOW_BYTES,
        **options: Any,
    ) -> None:
        timeout = check_timeout(timeout)
        check_count("max_calls", max_calls, least=1)
        self._closed_once = Once()
        self._connection = Connection(
            endpoint,
            options,
            connect_timeout=check_timeout(connect_timeout, "connect_timeout"),
            pipe_window=check_count("pipe_window", pipe_window, 1, MAX_WINDOW),
            metadata={} if metadata is None else check_metadata(metadata, METADATA_BYTES),
            largest=check_options(options),
            retry_budget=check_count("retry_budget", retry_budget, most=1 << 53),  # A float has it exactly.
            retries=check_count("retries", retries),
        )
        self._connection.client = self
        self._carrier = Carrier(self._connection, timeout, max_calls)
        _open_clients.add(self)

    @property
    def endpoint(self) -> str:
        """The endpoint of the server."""
        return self._connection.endpoint

    @overload
    def bind(self, interface: type[I], *, causal: bool = True) -> I: ...
    @overload
    def bind(self, interface: str, *, causal: bool = True) -> Binding: ...
    def bind(self, interface: type[I] | str, *, causal: bool = True) -> Any:
        """Return a binding: an object with the interface's operations, each callable and with a `begin`.

        Args:
            interface: an `Interface` class, or the name of one to call without a contract, with plain values.
            causal: the server enters routines in the order in which the calls of this client are begun, but for those
                that have to wait for a context handle. False: calls of this binding have no place in that order, and
                wait for none of the others.
        Nothing is sent: whether the server knows the interface shows in the first call. Bindings need no closing.
        Raises: `InvalidParameter` if an operation of the interface has a type that cannot be sent, naming both.
        """
        check_flag("causal", causal)
        if isinstance(interface, str):
            return Binding(self._carrier, interface, causal)
        if isinstance(interface, type) and issubclass(interface, Interface):
            return bind_typed(self._carrier, interface, operation_kind, causal)
        raise InvalidArgumentType(f"interface must be an Interface class or a name, not {shown(interface)}")

    def close(self) -> None:
        """Close the client: calls without an answer end with `CallCancelled`, and what was sent leaves within `linger`
        seconds.

        The client notifies the server, which then releases what it holds for this client. Closing twice does nothing;
        closing again after a signal handler has raised in the midst of it goes on.
        Blocks: no longer than sending takes. Ports and events given as notification targets stay open: they are the
        caller's.
        """
        if not self._connection.forked:
            self._closed_once.do(self._close, True)

    def _close(self, notify: bool) -> None:
        """Close; `notify` the threads that wait for calls, too."""
        self._connection.close(notify)
        _open_clients.discard(self)
        self._connection.channel.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._connection.session.has_left

    def statistics(self) -> ClientStatistics:
        """Return the client's counters. Never blocks.

        Those of calls and retries are of one moment. Messages and garbage are counted under another lock: they may be a
        message ahead of the others, or behind.
        """
        driver().look_around()
        connection = self._connection
        table = connection.table
        with table.lock:
            return ClientStatistics(
                connection=connection.session.name,
                outstanding=len(table.calls),
                calls_begun=table.finished + len(table.calls),
                calls_finished=table.finished,
                replies_late=table.late,
                messages_sent=connection.outbox.messages_sent,
                messages_received=connection.messages_received,
                garbage_received=connection.garbage,
                connections=connection.session.conversation,
                retries=connection.retries.sent,
                retries_refused=connection.retries.refused,
                link=connection.channel.link.kind,
                queued_bytes=connection.channel.link.queued_bytes,
            )

    def __repr__(self) -> str:
        connection = self._connection
        state, outstanding = connection.session.name, len(connection.table.calls)
        return f"<Client {self.endpoint} {state} link={connection.channel.link.kind} outstanding={outstanding}>"


def decorate(client: Client, wrap: Callable[[Connection, Begin], Begin]) -> None:
    """Have calls of bindings that are made from now on begun by `wrap(connection, begin)` only."""
    client._carrier.decorate(lambda begin: wrap(client._connection, begin))


def _disable(client: Client) -> None:
    client._connection.disable()


def _close_all() -> None:
    # No thread is notified: those that wait for calls now are daemons, and end with the process where they are.
    close_left_open(_open_clients, lambda client: client._close(False))


_open_clients = OpenObjects(_disable)
at_exit(Stage.CLIENTS, _close_all)
