"""Calls of idempotent operations, which are sent again when their connection was lost.

Theory of operation. `begin` has the request of such a call kept before it enters the call. When the connection goes, a
kept call that had left is not ended: it waits for a while (back-off), takes its place at the end of the queue, and
leaves with the next connection. It stays in the client's table all the while, so it ends once and is told of once like
any other. The table tells `Kept.wake` of the outcome, and what was kept goes.

    kept --lost--> backing off --timer--> queued --connected--> sent again --lost--> ...      any --outcome--> forgotten

A call is not sent again if it was cancelled, in either way; if it was sent again `limit` times before; or if the budget
is empty. The budget is a bucket of tokens: each call that is sent again takes one, each answer to a kept call puts back
`REFILL`. So a server that fails as soon as it is called gets, in the long run, a tenth more calls, not several times as
many.

All guarded by the table's lock.

Source: "idempotent attribute"; different from Windows, which ignores it on connections. The budget is that of gRPC's
"Retry Throttling".
"""

import os
from collections.abc import Iterable, Iterator
from itertools import groupby

import msgspec

from transport.frames import CallOptions, Calls
from transport.realtime import monotonic
from transport.wire.codec import EncodedCall, PendingCall, decode, encode_calls, split_args

from ..call import Call, Failure
from ..state import State
from .call_table import CallTable
from .outbox import Special

RETRIES = 3  # Arbitrary; a server that dies four times under the same call is likely to die of it.
RETRY_BUDGET = 1000  # Calls; what a client loses at once with a server that it keeps busy.
REFILL = 0.1  # Tokens an answer; gRPC's own example.
FIRST_WAIT = 0.05  # Seconds, as long as a link waits before it connects again. Each further wait is twice as long,
JITTER = 0.5  # and varies by this part of itself, so that clients of one server do not come back at once.

_PENDING = int(State.PENDING)


class Kept:
    """What is kept of one call."""

    __slots__ = ("_retries", "call", "call_id", "pending", "tries", "why")

    def __init__(self, retries: "Retries", call: "Call[object]", call_id: int, pending: PendingCall | Special) -> None:
        self._retries = retries
        self.call: Call[object] = call
        self.call_id: int = call_id
        self.pending: PendingCall | Special = pending
        # How often it was sent again, or is about to be.
        self.tries: int = 0
        # How its last connection was lost; "" before the first time.
        self.why: str = ""

    def wake(self) -> None:
        """The call has its outcome. Outside all locks."""
        self._retries.over(self)


class Retries:
    """What a client keeps to send again.

    Args: `limit`: how often one call is sent again, at most; 0: nothing is kept. `budget`: tokens to begin with, and at
        most.
    """

    def __init__(self, table: CallTable, limit: int, budget: int) -> None:
        self._table = table
        self._limit = limit
        self._budget = budget
        self._tokens = float(budget)
        self._kept: dict[int, Kept] = {}
        # Those that back off: they are outstanding, and neither queued nor sent.
        self.backing_off: set[int] = set()
        # Counters, for statistics.
        self.sent: int = 0
        self.refused: int = 0

    def keep(self, call: "Call[object]", call_id: int, pending: PendingCall | Special) -> None:
        """Keep the request of a call that is about to be entered in the table. Takes the table's lock."""
        if self._limit:
            kept = Kept(self, call, call_id, pending)
            with self._table.lock:
                self._kept[call_id] = kept
                self._table.expect_locked(call_id, kept)

    def forget_locked(self, call_id: int) -> None:
        """The call was not accepted after all."""
        if self._kept.pop(call_id, None) is not None:
            self._table.expect_nothing_locked(call_id)

    def over(self, kept: Kept) -> None:
        """A call has its outcome. Takes the table's lock."""
        with self._table.lock:
            self._over_locked(kept)

    def collect_locked(self) -> None:
        """Calls that have their outcome count, though `over` has not been called yet: they came just before a loss."""
        for kept in list(self._kept.values()):
            if kept.call._box is not None or kept.call._id != kept.call_id:
                self._over_locked(kept)

    def _over_locked(self, kept: Kept) -> None:
        if self._kept.pop(kept.call_id, None) is None:
            return
        self.backing_off.discard(kept.call_id)
        # Empty if somebody has collected it already, or begun another call with the handle: mostly an answer.
        box = kept.call._box
        if not box or not isinstance(box[0], Failure):
            self._tokens = min(self._budget, self._tokens + REFILL)

    def take_locked(self, call: "Call[object]", why: str) -> bool:
        """The connection of a call that had left was lost, which is `why`: whether the call will be sent again."""
        kept = self._kept.get(call._id)
        if kept is None or call._state != _PENDING or kept.tries >= self._limit:
            return False
        if self._tokens < 1:
            self.refused += 1
            return False
        self._tokens -= 1
        kept.tries += 1
        kept.why = why
        self.backing_off.add(call._id)
        return True

    def waits_locked(self, call_ids: Iterable[int]) -> Iterator[tuple[float, list[int]]]:
        """Say how long calls that were just taken back off, in seconds, each group of them."""
        by_tries = sorted(call_ids, key=self._tries)
        for tries, group in groupby(by_tries, self._tries):
            yield FIRST_WAIT * 2 ** (tries - 1) * (1 + JITTER * _chance()), list(group)

    def _tries(self, call_id: int) -> int:
        return self._kept[call_id].tries

    def renew_locked(self, call_id: int) -> PendingCall | Special | None:
        """Return the request to queue now, for a call that has backed off; None if it does so no more."""
        kept = self._kept.get(call_id)
        if kept is None or call_id not in self.backing_off or self._table.calls.get(call_id) is not kept.call:
            return None
        self.backing_off.discard(call_id)
        self.sent += 1
        timer = kept.call._timer
        left = None if timer is None else max(0.0, timer.when - monotonic())
        pending = kept.pending
        if isinstance(pending, EncodedCall):
            return pending._replace(options=_again(pending.options, kept.tries, left))
        if not isinstance(pending, Special):
            _, target, args, options = pending
            return call_id, target, args, _again(options, kept.tries, left)
        message = decode(pending.frames)
        assert isinstance(message, Calls)
        group = message.groups[0]
        options = _again(group.options, kept.tries, left)
        again = EncodedCall(call_id, message.targets[group.target], split_args(group)[0], options)
        return Special([*encode_calls([again]), *pending.frames[1:]], call_id)

    def lost_locked(self, call_id: int) -> str:
        """How the connection was lost over which the call was sent before; "" if it was not."""
        kept = self._kept.get(call_id)
        return "" if kept is None else kept.why


def _chance() -> float:
    """A number from -1 to 1, whichever. (The module `random` would cost every import of the library 3 ms.)"""
    return int.from_bytes(os.urandom(4)) / (1 << 31) - 1


def _again(options: CallOptions | None, tries: int, left: float | None) -> CallOptions:
    """The options of a call that is sent again."""
    return msgspec.structs.replace(options or CallOptions(), attempt=tries, time_left=left)
