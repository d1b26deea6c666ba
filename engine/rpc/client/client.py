"""The client: what users call, in front of the connection to a server, or to several.

Theory of operation. A client has a connection (`connection.py`), and a carrier, which begins the calls of its bindings
on that (`carrier.py`). Any number of threads and event loops share them. One of several servers has a connection and a
carrier for each (`fleet.py`), and a balancer in the place of the carrier (`balance.py`), which begins each call on one
of them; nothing of that is imported or asked for a client of one.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

import msgspec

from transport import Curve, Endpoint, TransportOptions
from transport.foreign import shown
from transport.frames import PIPE_WINDOW_BYTES

from ...errors import InvalidArgumentType, InvalidHandle, InvalidParameter
from ...kernel.checks import check_count, check_flag, check_text, check_timeout
from ...kernel.driver import driver
from ...kernel.lock import Once
from ...lifecycle import AsyncCloseable, OpenObjects, Stage, at_exit, close_left_open
from ..address import Address, addresses_of
from ..contract.interface import Interface
from ..interceptors import Interceptor, check_interceptors
from ..limits import check_options
from ..pipes.pipe import MAX_WINDOW
from ..wire_types import check_metadata
from .binding import Binding, Starter, bind_typed
from .carrier import Carrier
from .connection import Connection
from .interception import Interception
from .member import MemberState, MemberStatistics
from .pinned_session import PinnedSession
from .pipes import operation_kind
from .resolver import Resolver, check_resolver
from .retry import RETRIES, RETRY_BUDGET, Retries

if TYPE_CHECKING:
    from .fleet import Fleet
    from .following import Following, MakeFleet

I = TypeVar("I", bound=Interface)  # noqa: E741  # the interface

CONNECT_TIMEOUT = 5.0  # Seconds; long enough for a server that is just starting.
METADATA_BYTES = 48 * 1024  # Of a connection's metadata: with what is around it, a greeting has room for it.
MAX_CALLS = 1 << 20  # Outstanding calls of one client; arbitrary, about 1 GB.


class ClientStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a client's counters; all but `outstanding` and `queued_bytes` only grow.

    `link`: what carries its messages: "zmq", "native", "tls" or "loopback". `queued_bytes` wait to be written to the
    server (over ZeroMQ that is not known).
    `retries`: how often calls of idempotent operations were queued again; `retries_refused`: how often the budget
    forbade it; `moves`: how often calls went from one server of several to another. Of several servers the numbers are
    those of all connections together, `link` has each kind once, and `connection` is "connected" if one of them is; for
    each by itself see `Client.members`.
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
    moves: int = 0


class Client(AsyncCloseable):
    """A client of one server, or of several that serve the same.

    Args:
        endpoint: `tcp://host:port`, `ipc://path`, `inproc://name` or `loopback://name`; `native+tcp://...` and
            `native+ipc://...`: the first two without ZeroMQ's library, whatever the server uses; `tls://host:port`.
            For several servers a list of endpoints or of `Address`, or a resolver, which finds them and follows what
            changes: an object with a method `run(discovery)`, see `Resolver`.
        zone: where the client is: of several servers, those of that zone are used as long as one of them is ready.
        timeout: seconds that a call may take unless it says otherwise; None: no limit. See `BoundOperation.begin` for
            the errors that it ends with: `CallTimeout` is not the only one.
        connect_timeout: seconds that a call may wait for a connection to a server that greets before it ends with
            `ServerUnavailable`, or with `CallFailed` if it was sent to one that has not greeted yet; None: for ever.
            Each call waits for itself, even if one before it has waited in vain.
            Once the server has greeted, a call may take its time; after a lost connection the limit counts again.
        max_calls: outstanding calls allowed, of several servers at each; beginning one more raises `QueueFull`.
        retries: how often a call of an idempotent operation may be sent again, each time that its connection is lost
            before the answer has come; it waits for the next connection as a new call would. 0: never. Other calls are
            never sent twice, nor is one that was cancelled.
        retry_budget: so many calls may be sent again, though they may have run, or to another server because one has
            refused them; and one more for every ten answers. The next one ends as without retries.
        metadata: texts sent with each connection, for the server's routines to read; 48 KiB at most.
        pipe_window: bytes of encoded elements that the server may push into each pipe ahead of what is pulled, 1 or
            more.
        interceptors: generator functions that are run around each call, the first one outermost: see
            `engine.rpc.interceptors`. What is before the `yield` runs in the thread that begins the call, what is after
            it on the default pool, before the program is notified of the outcome; of a blocking call in its own thread.
        options: of the transport, see `transport.LinkOptions`: `heartbeat` (seconds between pings, 5), `linger`
            (seconds that a closed client goes on sending, 1), `max_message_bytes` (the largest message
            taken, 64 KiB or more, 256 MiB; a larger result ends its call with `BadStubData`),
            `curve` (keys), `tls` (an `ssl.SSLContext` for `tls://`; None: one that trusts whom the system does),
            `context` (a ZeroMQ context of your own).

    Of several servers, a call goes to the less loaded of two taken at random, many in one message, and one that is
    alone to the server that had the last. One that did not run, because its server was lost, closes or has refused it,
    goes to another, up to three times; so does one that may have run, if its operation is idempotent. Its handle, its
    notification and what is left of its time stay the same. There is no order among calls to several servers, so `bind`
    wants `causal=False`; what needs one server has a `session`. Calls with a context handle go to the server of the
    handle, calls with pipes stay where they began, and neither moves.

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
        endpoint: str | Endpoint | Iterable[str | Address] | Resolver,
        *,
        zone: str = "",
        timeout: float | None = None,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        max_calls: int = MAX_CALLS,
        retries: int = RETRIES,
        retry_budget: int = RETRY_BUDGET,
        metadata: dict[str, str] | None = None,
        pipe_window: int = PIPE_WINDOW_BYTES,
        interceptors: Iterable[Interceptor] = (),
        **options: Unpack[TransportOptions],
    ) -> None:
        timeout = check_timeout(timeout)
        around = check_interceptors(interceptors)
        check_count("max_calls", max_calls, least=1)
        check_text("zone", zone)
        self._closed_once = Once()
        largest = check_options(Client, options)
        again = Retries(
            check_count("retries", retries),
            check_count("retry_budget", retry_budget, most=1 << 53),  # A float has it exactly.
        )
        settings: dict[str, Any] = {
            "connect_timeout": check_timeout(connect_timeout, "connect_timeout"),
            "pipe_window": check_count("pipe_window", pipe_window, 1, MAX_WINDOW),
            "metadata": {} if metadata is None else check_metadata(metadata, METADATA_BYTES),
        }
        addresses, resolver = _servers_of(endpoint)
        given = [address for address in addresses if isinstance(address, Address)]
        own_keys: Any = options.get("curve")  # A `Curve`, where a server has a key of its own.

        def connect(kind: type[Connection], where: str | Endpoint, keys: Curve | None, **more: Any) -> Connection:
            with_keys = options if keys is None else {**options, "curve": keys}
            made = kind(where, with_keys, largest, again, **settings, **more)
            made.client = self  # It stays open without a reference from the program.
            return made

        ids = count(1)

        def several(name: str, keys: Curve | None, **more: Any) -> "Fleet":
            from .fleet import Fleet as Several  # A client of one server does without it.

            return Several(name, connect, again, keys, zone, timeout, max_calls, ids, **more)

        # A client of several servers has a fleet, and then the connection is the one in which calls wait for a server;
        # one of one server gets the other, for calls without an order, when a binding has such.
        self._fleet: Fleet | None = None
        self._following: Following | None = None
        self._carrier: Starter
        if resolver is None and len(addresses) == 1:
            (only,) = addresses
            where, keys = (only.endpoint, only.keys_of(own_keys)) if isinstance(only, Address) else (only, own_keys)
            self._connection = connect(Connection, where, keys)
            self._carrier = carrier = Carrier(self._connection, timeout, max_calls, ids)
            self._follow = partial(_follow, carrier, partial(several, keys=keys), metadata, {**options, "curve": keys})
        else:
            listed = ", ".join(address.endpoint for address in given)
            name = f"any of {listed}" if listed else shown(resolver, 200)
            self._fleet = several(name, own_keys)
            self._connection, self._carrier = self._fleet.lobby, self._fleet.balancer
        self._interception = Interception(around, self._connection.table, self._connection.endpoint, max_calls)
        try:
            if self._fleet is None:
                self._connection.open()
            else:
                self._fleet.open(given, resolver)
            _open_clients.add(self)
        except BaseException:  # What is open lasts, and nobody would have it to close.
            self._close(False)
            raise

    def add_interceptor(self, interceptor: Interceptor) -> None:
        """Have `interceptor` run around each call that is begun from now on, and around the other interceptors.

        Calls of bindings that were made before are among them. What was read of a binding's operation before, as
        `begin = binding.operation.begin`, goes on without.
        Raises: `InvalidArgumentType` if it cannot be called. Threads: any. Blocks: never.
        """
        self._interception.add(interceptor)

    @property
    def endpoint(self) -> str:
        """The endpoint of the server; of several, those that the client was made with, or its resolver's `repr`."""
        return self._connection.endpoint

    @property
    def members(self) -> list[MemberStatistics]:
        """The servers of the client, as they are now: their states, calls, latency and faults. Blocks: never.

        Of a client of one server one, which is "ready" or "connecting"; and the members that this has named, if calls
        are spread over them: see `bind`.
        """
        driver().look_around()
        if self._fleet is not None:
            return self._fleet.members()
        others = [] if (fleet := self._spread_over) is None else fleet.members()
        return [_only_member(self._connection), *others]

    @property
    def _spread_over(self) -> "Fleet | None":
        """The members that the only server has named."""
        return None if self._following is None else self._following.fleet

    def session(self) -> PinnedSession:
        """Return a session: bindings of it call one server, which is chosen now, in the order in which calls are begun.

        Of a client of one server, that one. Raises: `ServerUnavailable` if no server is known yet; `InvalidHandle` if
        the client is closed. Blocks: never.
        """
        if self.closed:
            raise InvalidHandle("the client is closed")
        if self._fleet is None:
            return PinnedSession(self.endpoint, partial(_bind, self._carrier, self._interception), bool)
        member, carrier = self._fleet.pin()
        bind = partial(_bind, carrier, self._interception)
        return PinnedSession(member.address.endpoint, bind, partial(self._fleet.unpin, member))

    @overload
    def bind(self, interface: type[I], *, causal: bool | None = None) -> I: ...
    @overload
    def bind(self, interface: str, *, causal: bool | None = None) -> Binding: ...
    def bind(self, interface: type[I] | str, *, causal: bool | None = None) -> Any:
        """Return a binding: an object with the interface's operations, each callable and with a `begin`.

        Args:
            interface: an `Interface` class, or the name of one to call without a contract, with plain values.
            causal: the server enters routines in the order in which the calls of this client are begun, but for those
                that have to wait for a context handle. False: calls of this binding have no place in that order, and
                wait for none of the others; if the server names others that serve the same (`Server.members`, as
                `engine.processes.serve` has them do), they are spread over all of them, but for operations with pipes
                or context handles. None: True for a client of one server; of several there is no such order, and False
                has to be said.
        Nothing is sent: whether the server knows the interface shows in the first call. Bindings need no closing.
        Raises: `InvalidParameter` if an operation of the interface has a type that cannot be sent, naming both; and
            unless `causal=False` of a client of several servers.
        """
        if causal is not None:
            check_flag("causal", causal)
        if self._fleet is None:
            starter = self._carrier if causal is not False else self._unordered()
            return _bind(starter, self._interception, interface, causal is not False)
        if causal is not False:
            raise InvalidParameter(
                "calls to several servers have no order: bind with causal=False, or, for one, in a client.session()"
            )
        # What goes to one server may keep its order: that costs nothing.
        return _bind(self._carrier, self._interception, interface, True)

    def _unordered(self) -> Starter:
        """Return what begins calls that have no order, of a client of one server."""
        following = self._following
        if following is None:
            made = self._follow()  # Outside the lock, as it imports.
            with self._connection.table.lock:
                self._following = following = self._following or made
            following.begin_to_follow()
        return following

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
        if self._fleet is not None:
            self._fleet.close(notify)
            _open_clients.discard(self)
            return
        if self._following is not None:
            self._following.close(notify)
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
        if (fleet := self._fleet or self._spread_over) is not None:
            return self._fleet_statistics(fleet)
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

    def _fleet_statistics(self, fleet: "Fleet") -> ClientStatistics:
        with fleet.lock:
            totals = fleet.totals_locked()
            if self._connection is not fleet.lobby:
                totals.add(self._connection)
            ready = self._connection.session.is_open or bool(fleet.balancer.usable)
            return ClientStatistics(
                connection="closed" if self.closed else "connected" if ready else "connecting",
                outstanding=totals.outstanding,
                calls_begun=totals.finished + totals.outstanding,
                calls_finished=totals.finished,
                replies_late=totals.late,
                messages_sent=totals.sent,
                messages_received=totals.received,
                garbage_received=totals.garbage,
                connections=totals.connections,
                retries=fleet.retries.sent,
                retries_refused=fleet.retries.refused,
                link=", ".join(sorted(totals.links)),
                queued_bytes=totals.queued_bytes,
                moves=fleet.retries.moved,
            )

    def __repr__(self) -> str:
        if self._fleet is not None:
            statistics = self._fleet_statistics(self._fleet)
            return f"<Client {self.endpoint} {statistics.connection} outstanding={statistics.outstanding}>"
        connection = self._connection
        state, outstanding = connection.session.name, len(connection.table.calls)
        return f"<Client {self.endpoint} {state} link={connection.channel.link.kind} outstanding={outstanding}>"


def _follow(
    carrier: Carrier, make: "MakeFleet", metadata: dict[str, str] | None, options: TransportOptions
) -> "Following":
    from .asking import CONNECT_TIMEOUT as PATIENCE  # Most clients do without these.
    from .asking import HEARTBEAT
    from .following import Following as Kind

    options.setdefault("heartbeat", HEARTBEAT)
    return Kind(carrier, make, partial(Client, connect_timeout=PATIENCE, retries=0, metadata=metadata, **options))


def _servers_of(
    given: str | Endpoint | Iterable[str | Address] | Resolver,
) -> tuple[Sequence[str | Endpoint | Address], Resolver | None]:
    """Return the servers that a client is given, or what finds them."""
    if isinstance(given, (str, Endpoint)):
        return [given], None
    if isinstance(given, Iterable):
        addresses = addresses_of(given)
        if not addresses:
            raise InvalidParameter("endpoint is an empty list: a client needs one server at least, or a resolver")
        return addresses, None
    return [], check_resolver(given)


def _only_member(connection: Connection) -> MemberStatistics:
    session, table = connection.session, connection.table
    return MemberStatistics(
        endpoint=connection.endpoint, zone="", weight=1.0, outstanding=len(table.calls),
        state=(MemberState.READY if session.is_open else MemberState.CONNECTING).value,
        latency=connection.spinning.took, faults=0, calls_finished=table.finished, connections=session.conversation,
    )  # fmt: skip


def _bind(starter: Starter, interception: Interception, interface: Any, causal: bool) -> Any:
    check_flag("causal", causal)
    if isinstance(interface, str):
        return Binding(starter, interception, interface, causal)
    if isinstance(interface, type) and issubclass(interface, Interface):
        return bind_typed(starter, interception, interface, operation_kind, causal)
    raise InvalidArgumentType(f"interface must be an Interface class or a name, not {shown(interface)}")


def _disable(client: Client) -> None:
    if client._fleet is not None:
        client._fleet.disable()
    if client._following is not None:
        client._following.disable()
    client._connection.disable()
    client._interception.disable()


def _close_all() -> None:
    # No thread is notified: those that wait for calls now are daemons, and end with the process where they are.
    close_left_open(_open_clients, lambda client: client._close(False))


_open_clients = OpenObjects(_disable)
at_exit(Stage.CLIENTS, _close_all)
