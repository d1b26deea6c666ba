"""Which server a call goes to, of those that a client has.

Theory of operation. A call goes where the last one went while that waits to be batched: one choice for each message,
so that many calls share few. Else two servers are taken at random, and the call goes to the one with the smaller load
(`member.py`), in proportion to their weights. So one that is slow has as many calls waiting as the others, and gets few
new ones.

A call that is alone goes to the server that had the last one: its caches are warm, and it is about to poll, which
saves up to 40 % of the round trip. Not if another one, taken at random, can be hoped to be twice as fast: of several
clients that found the same one first, some go elsewhere. What was not measured lately is hoped to be faster than it
was, so that each server is tried now and then.

Servers of the client's own zone come before others, as long as one of them is ready. Those that have refused a call are
put aside, at most half of those that are ready. If none is ready, calls wait in the lobby.

    begin -> choose -> the member's carrier          none is ready -> the lobby --one is--> its carrier

Assumes: stores and loads of attributes are atomic. `usable` and what follows from it is written under the lock that all
tables of the client share, and read without; who reads it too early finds a server that does not take the call, which
then moves on (`fleet.py`).
"""

from bisect import bisect
from collections.abc import Callable, Iterable
from itertools import accumulate
from math import inf
from random import Random
from typing import Any, Final

from transport.realtime import monotonic

from ...errors import InvalidHandle
from ...kernel.lock import Lock
from ..call import Call
from ..context import Context, home_of
from ..contract.spec import OperationSpec
from ..errors import ContextMismatch, ServerUnavailable
from .carrier import Carrier
from .homes import homed
from .member import Happening, Member, MemberState

WORSE: Final = 2.0  # So many times what another server can be hoped to take is reason enough to leave a warm one.


class Balancer:
    """Begins the calls of a client of several servers, each on one of them.

    Args: `lobby` has the calls for which no server is ready; `zone`: the client's own; `lock`: that of all tables;
        `first`: of a connection of the client's that is no member's.
    """

    def __init__(self, lobby: Member, zone: str, lock: Lock, first: Carrier | None) -> None:
        self.lobby: Member = lobby
        self.first: Carrier | None = first
        self._zone = zone
        self._lock = lock
        self._random = Random().random
        # All written under the lock. All members that are in the list or have calls still, by their endpoints; those
        # that get calls; the sums of their weights, None if they are all alike; and when some of that may change.
        self.members: dict[str, Member] = {}
        self.usable: tuple[Member, ...] = ()
        self._weights: list[float] | None = None
        self._look_at = inf
        # Where the last call went. A hint.
        self._chosen = lobby
        self.closed: bool = False
        # What begins the calls of an operation at a member, by both: made when it is first needed.
        self._begins: dict[tuple[OperationSpec, Member], Callable[..., Call[Any]]] = {}

    # Choosing. Any thread, holding nothing, or the lock.

    def choose(self) -> Member:
        """Return where the next message of calls goes."""
        now = monotonic()
        if now >= self._look_at:
            self._look(now)
        usable = self.usable
        number = len(usable)
        if number <= 1:
            chosen = usable[0] if number else self.lobby
        else:
            last = chosen = self._chosen
            if last.table.calls or last.fresh_faults or last.state is not MemberState.READY or last not in usable:
                chosen = self._lighter(usable, number)
            else:
                rival = usable[int(self._random() * number)]
                if not (rival is last or rival.table.calls or rival.fresh_faults):
                    if last.measure(now) > WORSE * rival.expected(now):
                        chosen = rival
        self._chosen = chosen
        return chosen

    def _lighter(self, usable: tuple[Member, ...], number: int) -> Member:
        """Of two members at random, return the one with the smaller load."""
        weights, random = self._weights, self._random
        if weights is None:
            first = int(random() * number)
            second = int(random() * (number - 1))
            second += second >= first
        else:
            first, second = bisect(weights, random() * weights[-1]), bisect(weights, random() * weights[-1])
        one, other = usable[first], usable[second]
        if (len(one.table.calls) + one.fresh_faults) * other.weight <= (
            len(other.table.calls) + other.fresh_faults
        ) * one.weight:
            return one
        return other

    def other_than_locked(self, member: Member) -> Member | None:
        """Return where a call may go that `member` did not run; None: nowhere now."""
        others = tuple(each for each in self.usable if each is not member)
        if not others:
            return None
        return min((others[int(self._random() * len(others))] for _ in range(2)), key=_load)

    def _look(self, now: float) -> None:
        """Time has passed: faults weigh less, penalties are over."""
        if self._lock.owned():
            self.look_locked(now)
        else:
            with self._lock:
                self.look_locked(now)

    def look_locked(self, now: float | None = None) -> None:
        """Work out which members get calls."""
        now = monotonic() if now is None else now
        for member in self.members.values():
            member.forget_faults_locked(now)
            if member.state is MemberState.PENALISED and now >= member.aside_until:
                member.advance_locked(Happening.FORGIVEN)
        there = [m for m in self.members.values() if m.state is MemberState.READY or m.state is MemberState.PENALISED]
        near = [member for member in there if self._zone and member.address.zone == self._zone]
        there = near or there
        # The longest put aside first: these come back if more than half are.
        aside = sorted((m for m in there if m.state is MemberState.PENALISED), key=_aside_until)
        kept_aside = set(aside[len(aside) - min(len(aside), len(there) // 2) :])
        usable = tuple(member for member in there if member not in kept_aside)
        weights = [member.weight for member in usable]
        self._weights = None if len(set(weights)) <= 1 else list(accumulate(weights))
        self.usable = usable
        # Of one server no more than half of the calls wait to be batched, so that it has something to do meanwhile. Of
        # several all may: the others have, and each message costs as much as a dozen calls.
        for member in usable:
            member.carrier.outbox.halves = int(len(usable) == 1 and not member.carrier.connection.local)
        changes = [member.next_change() for member in there] + [member.aside_until for member in aside]
        self._look_at = min(changes, default=inf)

    # What bindings ask for: see `Carrier`

    def begin(
        self, spec: OperationSpec, args: tuple[Any, ...], kwargs: dict[str, Any] | None, notify: Any,
        timeout: float | None, metadata: dict[str, str] | None, handle: Call[Any] | None, pipes: Any = None,
    ) -> Call[Any]:  # fmt: skip
        """Accept a call, or raise; see `Carrier.begin`."""
        if pipes is not None:
            return pipes.carrier.begin(spec, args, kwargs, notify, timeout, metadata, handle, pipes)  # type: ignore[no-any-return]  # a carrier's
        home = _home_among(args, kwargs, self.first) if spec.contexts or spec.signature is None else None
        if home is not None and home.table.lock is self._lock:
            try:
                return home.begin(homed(spec, home), args, kwargs, notify, timeout, metadata, handle)
            except InvalidHandle:
                if self.closed or not home.session.has_left:
                    raise
                raise ContextMismatch(
                    "the server of the context handle is among those of this client no more"
                ) from None
        while True:
            carrier = self.choose().carrier
            try:
                return carrier.begin(homed(spec, carrier), args, kwargs, notify, timeout, metadata, handle)
            except InvalidHandle:
                if self.closed or not carrier.session.has_left:
                    raise  # Else that member was closed just now.

    def shortcut(self, spec: OperationSpec) -> Callable[..., Call[Any]] | None:
        """Return what does for the usual call what `BoundOperation.begin` does for any; None: there is none."""
        if spec.contexts or spec.signature is None or self.lobby.carrier.shortcut(spec) is None:
            return None
        begins = self._begins

        def begin_balanced(*args: Any, **more: Any) -> Call[Any]:
            member = self._chosen
            outbox = member.carrier.outbox
            if not 0 < len(outbox.queue) <= outbox.batch_threshold or member.state is not MemberState.READY:
                member = self.choose()
            begin = begins.get((spec, member)) or self._prepare(spec, member)
            try:
                return begin(*args, **more)
            except InvalidHandle:
                if self.closed or not member.session.has_left:
                    raise
            return begin_balanced(*args, **more)

        return begin_balanced

    def _prepare(self, spec: OperationSpec, member: Member) -> Callable[..., Call[Any]]:
        begin = member.carrier.begin_usual(homed(spec, member.carrier))
        self._begins[spec, member] = begin
        return begin

    def forget(self, member: Member) -> None:
        """A member is closed."""
        for key in [key for key in list(self._begins) if key[1] is member]:
            self._begins.pop(key, None)

    def bound(self, operation: object) -> None:
        """Nothing: an operation of a binding stays with the balancer."""

    def prepared(self, spec: OperationSpec) -> OperationSpec:
        """Return the spec itself: each member has one of its own."""
        return spec

    def place(self) -> Carrier:
        """Return the carrier of a member, for what stays there. Raises: `ServerUnavailable` if none is known yet."""
        return self.member().carrier

    def member(self) -> Member:
        """Return a member that is ready, or else one that may become so; see `place`."""
        member = self.choose()
        if member is self.lobby:
            known = [each for each in list(self.members.values()) if each.state is not MemberState.LEFT]
            if not known:
                raise ServerUnavailable("no server is known yet: what stays with one cannot begin before")
            # Rather one that has not been there yet than one that has just gone.
            known = [each for each in known if each.state is MemberState.CONNECTING] or known
            member = known[int(self._random() * len(known))]
        return member


def _load(member: Member) -> float:
    return (len(member.table.calls) + member.fresh_faults) / member.weight


def _aside_until(member: Member) -> float:
    return member.aside_until


def _home_among(args: Iterable[Any], kwargs: dict[str, Any] | None, first: Carrier | None) -> Carrier | None:
    """Return the carrier of the server that the context handles among the arguments are of: `first`, where none is
    noted in them.
    """
    handles = [value for value in (*args, *(kwargs or {}).values()) if isinstance(value, Context)]
    homes = [home for handle in handles if isinstance(home := home_of(handle), Carrier)]
    return homes[0] if homes else first if handles else None
