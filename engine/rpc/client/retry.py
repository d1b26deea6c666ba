"""Calls of idempotent operations, which are sent again when their connection was lost.

Theory of operation. Beginning such a call keeps its request (`track`), and then enters the call. When the connection
goes, a tracked call that had left does not end: it waits for a while (back-off), takes its place at the end of the
queue, and leaves with the next connection. It stays in the call table all the while, so it ends once and its caller is
notified once, as of any other. The table wakes the entry with the outcome, and the request is forgotten.

    tracked --lost--> backing off --timer--> queued --connected--> sent again --lost--> ...   any --outcome--> forgotten

A call is not sent again if it was cancelled, in either way; if it was sent again `limit` times before; or if the budget
is empty. The budget is a bucket of tokens: each call that is sent again takes one, each answer to a tracked call puts
back `REFILL`. So a server that fails as soon as it is called gets, in the long run, a tenth more calls, not several
times as many.

All guarded by the table's lock.

Source: "idempotent attribute"; different from Windows, which ignores it on connections. The budget is that of gRPC's
"Retry Throttling".
"""

import os
from collections.abc import Iterable, Iterator
from itertools import groupby

import msgspec

from transport.frames import CallOptions, Calls
from transport.wire.codec import EncodedCall, PendingCall, decode, encode_calls, split_args

from ..call import Call, time_left
from ..state import Failure, Observer, Outcome
from .call_table import CallTable
from .outbox import LoneMessage

RETRIES = 3  # Arbitrary; a server that dies four times under the same call is likely to die of it.
RETRY_BUDGET = 1000  # Calls; what a client loses at once with a server that it keeps busy.
REFILL = 0.1  # Tokens an answer; gRPC's own example.
FIRST_WAIT = 0.05  # Seconds, as long as a link waits before it connects again. Each further wait is twice as long,
JITTER = 0.5  # and varies by this part of itself, so that clients of one server do not come back at once.


class RetryEntry(Observer, msgspec.Struct, eq=False):
    """What is kept of one call that may be sent again."""

    retries: "Retries"
    call: Call[object]
    call_id: int
    pending: PendingCall | LoneMessage
    outcome: Outcome | None = None
    cancelled: bool = False
    # How often it was sent again, or is about to be.
    tries: int = 0
    # How its last connection was lost; "" before the first time.
    why: str = ""

    def wake(self) -> None:
        """The call has its outcome. Outside all locks."""
        with self.retries.table.lock:
            self.retries.over_locked(self)


class Retries:
    """What a connection keeps to send again.

    Args: `limit`: how often one call is sent again, at most; 0: none is tracked. `budget`: tokens to begin with, and at
        most.
    """

    def __init__(self, table: CallTable, limit: int, budget: int) -> None:
        self.table: CallTable = table
        self._limit = limit
        self._budget = budget
        self._tokens = float(budget)
        self._entries: dict[int, RetryEntry] = {}
        # Those that back off: they are outstanding, and neither queued nor sent.
        self.backing_off: set[int] = set()
        # Counters, for statistics.
        self.sent: int = 0
        self.refused: int = 0

    def track(self, call: Call[object], call_id: int, pending: PendingCall | LoneMessage) -> None:
        """Keep the request of a call that is about to be entered in the table. Takes the table's lock."""
        if self._limit:
            entry = RetryEntry(self, call, call_id, pending)
            with self.table.lock:
                self._entries[call_id] = entry
                self.table.waiting.setdefault(call_id, []).append(entry)

    def forget_locked(self, call_id: int) -> None:
        """The call was not accepted after all."""
        if self._entries.pop(call_id, None) is not None:
            self.table.waiting.pop(call_id, None)

    def collect_locked(self) -> None:
        """Calls that have their outcome count, though `wake` has not been called yet: they came just before a loss."""
        for entry in list(self._entries.values()):
            if entry.outcome is not None:
                self.over_locked(entry)

    def over_locked(self, entry: RetryEntry) -> None:
        """A call has its outcome."""
        if self._entries.pop(entry.call_id, None) is None:
            return
        self.backing_off.discard(entry.call_id)
        if not isinstance(entry.outcome, Failure):
            self._tokens = min(self._budget, self._tokens + REFILL)

    def cancelled_locked(self, call_id: int) -> None:
        """The caller has cancelled the call, which goes on: it is not sent again."""
        entry = self._entries.get(call_id)
        if entry is not None:
            entry.cancelled = True

    def try_retry_locked(self, call_id: int, why: str) -> bool:
        """The connection of a call that had left was lost, which is `why`: whether the call will be sent again."""
        entry = self._entries.get(call_id)
        if entry is None or entry.cancelled or entry.tries >= self._limit:
            return False
        if self._tokens < 1:
            self.refused += 1
            return False
        self._tokens -= 1
        entry.tries += 1
        entry.why = why
        self.backing_off.add(call_id)
        return True

    def waits_locked(self, call_ids: Iterable[int]) -> Iterator[tuple[float, list[int]]]:
        """Say how long calls that were just taken back off, in seconds, each group of them."""
        by_tries = sorted(call_ids, key=self._tries)
        for tries, group in groupby(by_tries, self._tries):
            yield FIRST_WAIT * 2 ** (tries - 1) * (1 + JITTER * _chance()), list(group)

    def _tries(self, call_id: int) -> int:
        return self._entries[call_id].tries

    def renew_locked(self, call_id: int) -> PendingCall | LoneMessage | None:
        """Return the request to queue now, for a call that has backed off; None if it does so no more."""
        entry = self._entries.get(call_id)
        if entry is None or call_id not in self.backing_off or self.table.calls.get(call_id) is not entry.call:
            return None
        self.backing_off.discard(call_id)
        self.sent += 1
        left = time_left(entry.call)
        pending = entry.pending
        if isinstance(pending, EncodedCall):
            return pending._replace(options=_again(pending.options, entry.tries, left))
        if not isinstance(pending, LoneMessage):
            _, target, args, options = pending
            return call_id, target, args, _again(options, entry.tries, left)
        message = decode(pending.frames)
        assert isinstance(message, Calls)
        group = message.groups[0]
        options = _again(group.options, entry.tries, left)
        again = EncodedCall(call_id, message.targets[group.target], split_args(group)[0], options)
        return LoneMessage([*encode_calls([again]), *pending.frames[1:]], call_id)

    def lost_locked(self, call_id: int) -> str:
        """How the connection was lost over which the call was sent before; "" if it was not."""
        entry = self._entries.get(call_id)
        return "" if entry is None else entry.why


def _chance() -> float:
    """A number from -1 to 1, whichever. (The module `random` would cost every import of the library 3 ms.)"""
    return int.from_bytes(os.urandom(4)) / (1 << 31) - 1


def _again(options: CallOptions | None, tries: int, left: float | None) -> CallOptions:
    """The options of a call that is sent again."""
    return msgspec.structs.replace(options or CallOptions(), attempt=tries, time_left=left)
