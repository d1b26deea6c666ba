"""One of the servers of a client that has several: how it is, as far as the client knows.

Theory of operation. A member has a connection of its own, which connects, and connects again, by itself. Its state says
whether new calls go there; `TRANSITIONS` says when it moves:

    CONNECTING --greeted--> READY --a call was refused--> PENALISED --1 s--> READY
    READY, PENALISED --goodbye--> DRAINING, --lost--> LOST     DRAINING, LOST --greeted--> READY
    any --taken out of the list--> LEFT --in the list again--> as its connection is

Calls that it has go on in every state. One that LEFT is closed when it has none and no session is pinned to it.

What it is worth is its load: its outstanding calls, and its faults of the last second, each of which weighs as much as
an outstanding call. So one that fails at once, and always looks idle, is not preferred. Of calls that are alone the
client knows how long they took.

Guarded by the table's lock, which all members of a client share; single fields are read anywhere, as hints.
"""

from collections import deque
from enum import Enum, auto
from typing import Final

import msgspec

from transport.realtime import monotonic

from ..address import Address
from .call_table import CallTable
from .carrier import Carrier
from .session import EndpointSession

FAULT_TIME: Final = 1.0  # Seconds that a fault weighs; measured: of three servers one that fails gets 2 % of the calls.
FAULT_STEP: Final = 0.125  # Seconds within which faults are counted together, so that few numbers are kept.
PENALTY: Final = 1.0  # Seconds that a server which has refused a call is put aside.
RECENT: Final = 0.2  # How much the last lone call counts in the mean of how long they take.
HALF_LIFE: Final = 1.0  # Seconds after which a latency that was not measured again is taken for half of it.


class MemberState(Enum):
    """Whether a member gets new calls, and if not, why."""

    CONNECTING = "connecting"  # It has not greeted yet.
    READY = "ready"
    PENALISED = "penalised"  # It has refused a call, and is put aside for a while.
    DRAINING = "draining"  # It has said goodbye.
    LOST = "lost"  # Its connection is gone.
    LEFT = "left"  # It is in the list no more.


class Happening(Enum):
    """What moves a member."""

    GREETED = auto()
    REFUSED = auto()
    FORGIVEN = auto()
    GOODBYE = auto()
    GONE = auto()
    REMOVED = auto()


_S, _H = MemberState, Happening
_ANYWHERE: Final = {_H.REMOVED: _S.LEFT}

#: State -> what happens -> next state. What is missing changes nothing.
TRANSITIONS: Final[dict[MemberState, dict[Happening, MemberState]]] = {
    _S.CONNECTING: {_H.GREETED: _S.READY, **_ANYWHERE},
    _S.READY: {_H.REFUSED: _S.PENALISED, _H.GOODBYE: _S.DRAINING, _H.GONE: _S.LOST, **_ANYWHERE},
    _S.PENALISED: {_H.FORGIVEN: _S.READY, _H.GOODBYE: _S.DRAINING, _H.GONE: _S.LOST, **_ANYWHERE},
    _S.DRAINING: {_H.GREETED: _S.READY, **_ANYWHERE},
    _S.LOST: {_H.GREETED: _S.READY, **_ANYWHERE},
    _S.LEFT: {},
}


class MemberStatistics(msgspec.Struct, frozen=True):
    """A snapshot of one server of a client.

    `outstanding`: calls that it has; `latency`: how long lone calls took lately, in seconds, 0.0 if none was measured
    (within one process none is); `faults`: calls that it answered with an error, be it one that a routine raised,
    declared or not, or a refusal, but for status 1818 (cancelled, or out of time); calls that were lost with the
    connection do not count. A client of one server counts none: 0.
    """

    endpoint: str
    zone: str
    weight: float
    state: str
    outstanding: int
    latency: float
    faults: int
    calls_finished: int
    connections: int


class Member:
    """One server, and what is known of it. Args: `carrier` of the calls that may go elsewhere."""

    def __init__(self, address: Address, carrier: Carrier) -> None:
        self.address: Address = address
        self.weight: float = address.weight
        self.carrier: Carrier = carrier
        self.table: CallTable = carrier.table
        self.session: EndpointSession = carrier.session
        self._spinning = carrier.connection.spinning
        self.state: MemberState = MemberState.CONNECTING
        # Until when it is put aside, and how many sessions are pinned to it.
        self.aside_until: float = 0.0
        self.sessions: int = 0
        # Faults in all; and those that weigh still: (until when, how many), oldest first, and their number.
        self.faults: int = 0
        self._recent: deque[list[float]] = deque()
        self.fresh_faults: int = 0
        # The mean time of lone calls, in seconds, and when it was measured; by who chooses.
        self.latency: float = 0.0
        self._measured_at = 0.0

    def advance_locked(self, what: Happening) -> bool:
        """Something happens; return whether its state changes by that."""
        following = TRANSITIONS[self.state].get(what)
        if following is None:
            return False
        self.state = following
        return True

    def return_locked(self) -> None:
        """It is in the list again."""
        if self.state is MemberState.LEFT:
            self.state = MemberState.READY if self.session.is_open else MemberState.CONNECTING

    def fault_locked(self, count: int) -> None:
        """It has answered so many calls with a failure."""
        self.faults += count
        until = monotonic() + FAULT_TIME
        if self._recent and until - self._recent[-1][0] < FAULT_STEP:
            self._recent[-1][1] += count
        else:
            self._recent.append([until, count])
        self.fresh_faults += count

    def forget_faults_locked(self, now: float) -> None:
        """Faults of more than a second ago weigh nothing any more."""
        while self._recent and self._recent[0][0] <= now:
            self.fresh_faults -= int(self._recent.popleft()[1])

    def next_change(self) -> float:
        """When its faults weigh less, at the soonest."""
        return self._recent[0][0] if self._recent else float("inf")

    def measure(self, now: float) -> float:
        """Return how long a lone call takes here, in seconds."""
        took = self._spinning.took
        if took:
            self._spinning.took = 0.0
            self.latency += (took - self.latency) * (RECENT if self.latency else 1.0)
            self._measured_at = now
        return self.latency

    def expected(self, now: float) -> float:
        """Return what a lone call can be hoped to take here: the less, the longer none was made."""
        half_lives = min((now - self._measured_at) / HALF_LIFE, 60.0)
        return float(self.measure(now) * 0.5**half_lives)

    def statistics_locked(self) -> MemberStatistics:
        """Return a snapshot."""
        return MemberStatistics(
            endpoint=self.address.endpoint, zone=self.address.zone, weight=self.weight, state=self.state.value,
            outstanding=len(self.table.calls), latency=self.latency, faults=self.faults,
            calls_finished=self.table.finished, connections=self.session.conversation,
        )  # fmt: skip
