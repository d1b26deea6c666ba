"""The servers of a client that has several: who they are, and what becomes of calls that one of them does not run.

Theory of operation. Each member has a connection of its own, with its table of calls, queue and link, and all of them
have one lock, one row of numbers and one budget of retries. So a call moves from one to another in one step: it leaves
a table, enters the other and its queue, and its handle, its number, its notification, the threads that wait for it and
what is left of its time stay what they were. Where a call is, and when it moves, is `MOVES`.

    balancer.begin -> a member's carrier ... lost, refused, left -> `_Others.move_locked` -> another member's queue
                   -> the lobby, if no member is ready, until one is

The lobby is a connection to no server: its calls wait, each within `connect_timeout`, as those of a client of one
server do. Calls that are pinned, by a session, by pipes or by context handles, stay where they are.

The list of members is pushed, by the program as the client is made or by a resolver (`resolver.py`). Who is in it no
more gets no more calls; its connection is closed when its calls are over and no session is pinned to it.

Guarantees: those of `call_table.py`, whatever a call moves through. A call that may have run is sent again only if its
operation is idempotent.

Lock order: the lock of updates, link.lock of one connection, the table's lock. Nobody takes two link.locks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from os import urandom
from typing import Any, Final

import msgspec

from transport import Curve, EndpointError
from transport.foreign import text_of
from transport.frames import Cancel, CancelledCall
from transport.log import Log
from transport.realtime import monotonic
from transport.service import Service
from transport.wire.codec import encode

from ...errors import EngineError
from ...kernel.driver import driver
from ...kernel.lock import Lock, each
from ...kernel.monitor import TimerHandle
from ...kernel.starting import start
from ...pool.pool import default_pool
from ...status import Status
from ..address import Address
from ..call import Call, carrier_of, is_cancelled, move_locked, spec_of
from .balance import Balancer
from .call_table import perform
from .carrier import Carrier
from .connection import Connection
from .elsewhere import Actions
from .homes import homed, original_of
from .member import PENALTY, Happening, Member, MemberState, MemberStatistics
from .outbox import LoneMessage
from .resolver import Discovery, Resolver, follow
from .retry import Retries

log: Log = Log("engine.rpc")

# Where a call is, what happens, and where it is then.
MOVES: Final = (
    ("queued, in the lobby", "a member greets", "queued, at that member"),
    ("queued, at a member", "its connection is lost", "queued, at another, or in the lobby"),
    ("sent", "the server says that it has not taken it", "queued, at another, or in the lobby"),
    ("sent", "it is refused (1722, 1723, 1727), within the budget", "queued, at another"),
    ("sent", "it is refused again", "backing off"),
    ("sent", "its connection is lost, it is idempotent, within the budget", "backing off"),
    ("backing off", "the time is over", "queued, at another, at the same, or in the lobby"),
    ("queued, or sent", "it is pinned, and its connection is lost", "as for a client of one server"),
)

# The statuses of an answer that say that the call did not run, for a reason that another server may not have.
NOT_RUN: Final = frozenset({Status.SERVER_UNAVAILABLE, Status.SERVER_TOO_BUSY, Status.CALL_FAILED_DNE})

SWEEP: Final = 0.5  # Seconds between two looks at members that have left, whose calls go on.

Connecting = Callable[..., Connection]


class _Others:
    """What the connection of one member knows of the others: see `Elsewhere`."""

    def __init__(self, fleet: "Fleet", own: Member) -> None:
        self._fleet = fleet
        self._own = own

    def may_move(self, call: Call[Any]) -> bool:
        spec = spec_of(call)
        return not (self._fleet.balancer.closed or carrier_of(call).pinned or spec.pipes or spec.contexts)

    def move_locked(self, call_ids: Iterable[int], actions: Actions) -> None:
        wanted = set(call_ids)
        touched: dict[Member, None] = {}
        try:
            self._move_all_locked(wanted, touched, actions)
        except BaseException:  # An interrupt: what it has kept from moving would be in no queue, and never leave.
            self._move_all_locked(wanted, touched, actions)
            raise

    def _move_all_locked(self, wanted: set[int], touched: dict[Member, None], actions: Actions) -> None:
        """Move those that have not; `touched` takes where to. It can be gone through again."""
        own = self._own
        own.carrier.outbox.withdraw(wanted)
        for call_id in sorted(wanted):
            call = own.table.calls.get(call_id)
            if call is not None:
                self._move_one_locked(call_id, call, touched)
        for target in touched:
            target.carrier.connection.attend_locked()
            actions.append(target.carrier.channel.flush)
        own.carrier.connection.attend_locked()

    def _move_one_locked(self, call_id: int, call: Call[Any], touched: dict[Member, None]) -> None:
        balancer, own, retries = self._fleet.balancer, self._own, self._fleet.retries
        target = balancer.other_than_locked(own)
        if target is None:
            target = own if own in balancer.usable else balancer.lobby
        carrier = target.carrier
        messages: tuple[Any, ...] = (retries.renew_locked(call_id, call),)
        if is_cancelled(call):  # While it waited: that follows it.
            messages = (*messages, LoneMessage(encode(Cancel([CancelledCall(call_id, False)]))))
        # First what may be broken off: awaiting a call where it is not yet does no harm.
        touched[target] = None
        if not target.session.is_open:
            carrier.connection.awaiting.add_locked(call_id)
        spec = homed(original_of(spec_of(call)), carrier)
        retries.moved += target is not own and own is not balancer.lobby
        move_locked(call, own.table, target.table, carrier, spec, carrier.outbox.queue, messages)

    def answered_locked(self, status: int, call_ids: Iterable[int], actions: Actions) -> set[int]:
        own, fleet = self._own, self._fleet
        call_ids = [call_id for call_id in call_ids if call_id in own.table.calls]
        if status != Status.CALL_CANCELLED:
            own.fault_locked(len(call_ids))
        if status == Status.SERVER_UNAVAILABLE:
            own.aside_until = monotonic() + PENALTY
            own.advance_locked(Happening.REFUSED)
        fleet.balancer.look_locked()
        moved: set[int] = set()
        if status not in NOT_RUN:
            return moved
        at_once: list[int] = []
        for call_id in call_ids:
            if not self.may_move(own.table.calls[call_id]) or fleet.balancer.other_than_locked(own) is None:
                continue
            wait = fleet.retries.refused_locked(own.table, call_id)
            if wait is None:
                continue
            moved.add(call_id)
            if wait:
                again = partial(own.carrier.connection.awaiting.send_again, [call_id])
                driver().monitor.call_at(monotonic() + wait, again)
                # Afterwards: what backs off has a timer, wherever an interrupt comes.
                fleet.retries.back_off_locked(call_id)
            else:
                at_once.append(call_id)
        if at_once:
            self.move_locked(at_once, actions)
        return moved

    def greeted_locked(self, actions: Actions) -> None:
        self._own.advance_locked(Happening.GREETED)
        self._fleet.ready_locked(actions)

    def lost_locked(self, goodbye: bool, actions: Actions) -> None:
        self._own.advance_locked(Happening.GOODBYE if goodbye else Happening.GONE)
        self._fleet.balancer.look_locked()
        actions.append(self._fleet.look)

    def unreachable(self, reason: str) -> None:
        self._fleet.unreachable(self._own, reason)


class _Lobby(Connection):
    """A connection to no server, whose calls wait until a member is ready."""

    def on_connect_failed(self, reason: str, vain: bool = False) -> None:
        """Nothing: there is never a server there."""


class Totals(msgspec.Struct):
    """Counters of all connections of a client, those that are closed included."""

    outstanding: int = 0
    finished: int = 0
    late: int = 0
    sent: int = 0
    received: int = 0
    garbage: int = 0
    connections: int = 0
    queued_bytes: int = 0
    # What carries the messages of those that are open.
    links: frozenset[str] = frozenset()

    def add(self, connection: Connection) -> None:
        """Add those of one."""
        table = connection.table
        self.outstanding += len(table.calls)
        self.finished += table.finished
        self.late += table.late
        self.sent += connection.outbox.messages_sent
        self.received += connection.messages_received
        self.garbage += connection.garbage
        self.connections += connection.session.conversation
        if not connection.session.has_left and not isinstance(connection, _Lobby):
            self.queued_bytes += connection.channel.link.queued_bytes
            self.links |= {connection.channel.link.kind}


class Fleet:
    """The members of a client, and the lobby.

    Args:
        name: what errors call the servers while none is known.
        connect: `connect(kind, endpoint, keys, ...)` makes a connection, which is not open yet.
        curve: the client's keys.
        zone, timeout, max_calls: see `Client`.
        ids: the numbers of calls, which are unique among the connections of the client.
        first: of a connection that the client has beside the fleet; who cannot be connected to is left out then.
        when_ready: called outside all locks, again and again, when a member is.
    """

    def __init__(
        self, name: str, connect: Connecting, retries: Retries, curve: Curve | None, zone: str, timeout: float | None,
        max_calls: int, ids: Iterator[int], first: Carrier | None = None,
        when_ready: Callable[[], object] | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.retries: Retries = retries
        self._connect = connect
        self._curve = curve
        self._timeout = timeout
        self._max_calls = max_calls
        self._ids = ids
        self._when_ready = when_ready
        # Held while a list of members is taken.
        self._updating = Lock()
        nowhere = f"loopback://callport-lobby-{urandom(8).hex()}"
        # Where calls wait for a member.
        self.lobby: Connection = connect(
            _Lobby, nowhere, None, name=name, beside=None if first is None else first.connection
        )
        member = Member(Address(nowhere), self._carrier(self.lobby))
        self.lock: Lock = self.lobby.table.lock
        self.balancer: Balancer = Balancer(member, zone, self.lock, first)
        # Under the lock: members that have left, whose calls go on; those that are just being closed; what those had
        # counted that are closed; the timer that looks at the first.
        self._left: list[Member] = []
        self._closing: list[Member] = []
        self._gone = Totals()
        self._sweeping: TimerHandle | None = None
        self._lobby_others = _Others(self, member)
        self._discovery: Discovery | None = None
        self._beside = first is not None

    def open(self, addresses: Sequence[Address], resolver: Resolver | None) -> None:
        """Begin, with the first members; or with a resolver, that says who they are. `close` is owed, whatever becomes
        of this.
        """
        self.lobby.open(self._lobby_others)
        self._update(addresses, self._beside)
        if resolver is not None:
            self._discovery = discovery = Discovery(self._take)
            service = Service("engine:resolver", partial(follow, resolver, discovery), log.failed, depended_on=False)
            start(service, lambda: not discovery.closed)

    def _carrier(self, connection: Connection) -> Carrier:
        return Carrier(connection, self._timeout, self._max_calls, self._ids)

    @property
    def connections(self) -> list[Connection]:
        """Those of all members, and the lobby."""
        members = [*list(self.balancer.members.values()), *list(self._left), *list(self._closing)]
        return [*(member.carrier.connection for member in members), self.lobby]

    # Who the members are

    def _take(self, addresses: Sequence[Address]) -> None:
        self._update(addresses, True)

    def _update(self, addresses: Sequence[Address], later: bool) -> None:
        """Take a whole list of members; `later`: who cannot be connected to is left out, with a line in the log."""
        with self._updating:
            fresh: list[Member] = []
            try:
                self._take_in(addresses, later, fresh)
            except BaseException:  # No memory, for one.
                with self.lock:
                    self._leave_out_locked(fresh)
                raise

    def _take_in(self, addresses: Sequence[Address], later: bool, fresh: list[Member]) -> None:
        """As `_update`; `fresh` takes the members that were none before, as they are made."""
        members = self.balancer.members
        wanted = {address.endpoint: address for address in addresses}
        for address in addresses:
            known = members.get(address.endpoint)
            if known is None or known.address.server_key != address.server_key:
                member = self._returning(address) or self._joined(address, later)
                if member is not None:
                    fresh.append(member)
        with self.lock:
            if self.balancer.closed:
                gone = fresh
            else:
                gone = []
                self._change_locked(wanted, fresh)
        for member in gone:
            _close(member.carrier.connection, True)
        for member in fresh:
            if member not in gone and not member.carrier.connection.opened:
                member.carrier.connection.open(_Others(self, member))

    def _leave_out_locked(self, fresh: list[Member]) -> None:
        """A list was not taken: those of it that were none before leave, and are closed once they have no calls."""
        members = dict(self.balancer.members)
        for member in fresh:
            if members.get(member.address.endpoint) is member:
                if member.carrier.connection.opened:
                    continue  # It is complete.
                del members[member.address.endpoint]
            member.advance_locked(Happening.REMOVED)
            self._left.append(member)
        self.balancer.members = members
        self.balancer.look_locked()
        if self._left:
            self._sweep_later_locked()

    def _returning(self, address: Address) -> Member | None:
        """Return the member that has left, and is there again before it was closed."""
        with self.lock:
            return _take_out(self._left, address)

    def _joined(self, address: Address, later: bool) -> Member | None:
        try:
            connection = self._connect(Connection, address.endpoint, address.keys_of(self._curve), beside=self.lobby)
        except (EndpointError, EngineError) as error:
            if not later:
                raise
            text = "%s cannot be connected to, and is left out: %s"
            log.error(text, address.endpoint, text_of(error), later=True)  # The list is being taken.
            return None
        return Member(address, self._carrier(connection))

    def _change_locked(self, wanted: dict[str, Address], fresh: list[Member]) -> None:
        members = dict(self.balancer.members)
        for endpoint, member in list(members.items()):
            address = wanted.get(endpoint)
            if address is None or address.server_key != member.address.server_key:
                member.advance_locked(Happening.REMOVED)
                self._left.append(member)
                del members[endpoint]
            else:
                member.address, member.weight = address, address.weight
        for member in fresh:
            member.return_locked()
            address = wanted[member.address.endpoint]
            member.address, member.weight = address, address.weight
            members[address.endpoint] = member
        self.balancer.members = members
        actions: Actions = []
        self.ready_locked(actions)
        if actions:  # Soon, on a thread that holds nothing.
            driver().monitor.call_at(monotonic(), partial(perform, actions))
        if self._left:
            self._sweep_later_locked()

    # What members report

    def ready_locked(self, actions: Actions) -> None:
        """Members may be ready that were not: calls that wait for one go there."""
        balancer, lobby, others = self.balancer, self.lobby, self._lobby_others
        balancer.look_locked()
        if balancer.usable:
            lobby.session.reached = True
            lobby.session.refusal = ""
            movable = {call_id for call_id, call in list(lobby.table.calls.items()) if others.may_move(call)}
            # One that is just being begun is in no queue yet: the thread that begins it will find that it can move.
            others.move_locked(lobby.outbox.numbers() & movable, actions)
            lobby.outbox.withdraw({0})  # What was to follow them.
            if self._when_ready is not None:
                actions.append(self._when_ready)

    def unreachable(self, member: Member, reason: str) -> None:
        """A member cannot be connected to: calls that wait in vain say so."""
        if not self.balancer.usable:
            self.lobby.session.refusal = reason

    def look(self) -> None:
        """A server was lost."""
        if self._discovery is not None:
            self._discovery.look()

    # Members that have left

    def _sweep_later_locked(self) -> None:
        if self._sweeping is None and not self.balancer.closed:
            self._sweeping = driver().monitor.call_at(monotonic() + SWEEP, self._sweep)

    def _sweep(self) -> None:
        """Have those closed that have left and have nothing to do; on the monitor."""
        with self.lock:
            self._sweeping = None
            idle = self._idle_locked()
            if self._left:
                self._sweep_later_locked()
        for member in idle:
            default_pool().post(partial(self._let_go, member))

    def _idle_locked(self) -> list[Member]:
        return [member for member in self._left if _is_idle(member)]

    def _let_go(self, member: Member) -> None:
        with self.lock:
            if member not in self._left or not _is_idle(member):
                return  # It is there again, or was seen to.
            self._closing.append(member)
            self._left.remove(member)
            self.retries.remove_table(member.table)
            self.balancer.forget(member)
        connection = member.carrier.connection
        _close(connection, True)
        with self.lock:
            self._closing.remove(member)
            self._gone.add(connection)

    # For the client

    def members(self) -> list[MemberStatistics]:
        """Return how each member is, those included that have left and have calls still."""
        with self.lock:
            self.balancer.look_locked()
            return [*map(Member.statistics_locked, [*self.balancer.members.values(), *self._left])]

    def totals_locked(self) -> Totals:
        """Return the counters of all connections together."""
        totals = msgspec.structs.replace(self._gone)
        for connection in self.connections:
            totals.add(connection)
        return totals

    def pin(self) -> tuple[Member, Carrier]:
        """Return a member, which stays connected until `unpin`, and a carrier of calls that stay with it.

        Raises: `ServerUnavailable` if no server is known yet.
        """
        while True:
            member = self.balancer.member()
            with self.lock:
                if member.state is MemberState.LEFT:
                    continue  # It has just left the list, and may be closed by now.
                member.sessions += 1
            return member, Carrier(member.carrier.connection, self._timeout, self._max_calls, self._ids, pinned=True)

    def unpin(self, member: Member) -> None:
        """A session is over."""
        with self.lock:
            member.sessions -= 1

    def close(self, notify: bool) -> None:
        """Close all connections; `notify` the threads that wait for calls."""
        with self.lock:
            self.balancer.closed = True
            if self._sweeping is not None:
                self._sweeping.cancel()
        if self._discovery is not None:
            self._discovery.close()
        each(lambda connection: connection.close(notify), self.connections)
        each(lambda connection: connection.channel.close(), self.connections)

    def disable(self) -> None:
        """This is the copy of a forked child."""
        self.balancer.closed = True
        for connection in self.connections:
            connection.disable()


def _close(connection: Connection, notify: bool) -> None:
    connection.close(notify)
    connection.channel.close()


def _is_idle(member: Member) -> bool:
    return not (member.table.calls or member.sessions)


def _take_out(left: list[Member], address: Address) -> Member | None:
    """Take the member that is at this address out of those that have left."""
    for member in left:
        if (member.address.endpoint, member.address.server_key) == (address.endpoint, address.server_key):
            left.remove(member)
            return member
    return None
