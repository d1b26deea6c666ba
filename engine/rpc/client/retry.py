"""Calls that are sent again: those that did not run, and those of idempotent operations whose connection was lost.

Theory of operation. A call keeps its request until its outcome is known. When its connection goes, or its server says
that it did not run, it need not end: it stays in the call table, so it ends once and its caller is notified once, as of
any other. From the first time on an entry says how often it was sent, and why. The table wakes the entry with the
outcome, and it is forgotten.

    sent --did not run--------> queued --connected--> sent again          any --outcome--> forgotten
    sent --lost, idempotent---> backing off --timer--> queued --connected--> sent again

A server that closes says how many messages with calls it has taken. A call of a later one did not run, so it takes its
place in the queue again, at once. One of an idempotent operation that may have run waits for a while (back-off) and
takes its place at the end.

A call is not sent again if it was cancelled, in either way; if it has pipes or context handles, which ended with the
connection; or if it was sent again `limit` times before (`MOST_MOVES`, if it did not run). One that may have run is
not, besides, if the budget is empty. The budget is a bucket of tokens: each call that is sent again takes one, each
answer puts back `REFILL`. So a server that fails as soon as it is called gets, in the long run, a tenth more calls, not
several times as many.

All guarded by the table's lock.

Source: "idempotent attribute"; different from Windows, which ignores it on connections. The budget is that of gRPC's
"Retry Throttling".
"""

from collections.abc import Iterable, Iterator
from itertools import groupby

import msgspec

from transport.chance import about
from transport.frames import CallOptions, Calls
from transport.wire.codec import EncodedCall, PendingCall, decode, encode_calls, split_args

from ..call import Call, is_cancelled, request_of, spec_of, time_left
from ..state import Observer
from .call_table import CallTable
from .outbox import LoneMessage

RETRIES = 3  # Arbitrary; a server that dies four times under the same call is likely to die of it.
MOST_MOVES = 3  # Of a call that did not run; arbitrary: three servers that close one after the other are a series.
RETRY_BUDGET = 1000  # Calls; what a client loses at once with a server that it keeps busy.
REFILL = 0.1  # Tokens an answer; gRPC's own example.
FIRST_WAIT = 0.05  # Seconds, about as long as a link waits before it connects anew. Each further one is twice as long,
JITTER = 0.5  # and varies by this part of itself, so that clients of one server do not come back at once.


class RetryEntry(Observer, msgspec.Struct, eq=False):
    """What is kept of one call that is sent again."""

    retries: "Retries"
    table: CallTable
    call: Call[object]
    call_id: int
    # How often it was sent again, or is about to be: though it may have run, and because it did not.
    tries: int = 0
    moves: int = 0
    # How the connection was lost over which it may have run; "" if it has not.
    why: str = ""
    # It backs off: it is outstanding, and neither queued nor sent.
    backs_off: bool = False

    def wake(self) -> None:
        """The call has its outcome. Outside all locks."""
        with self.table.lock:
            self.retries.over_locked(self)


class Retries:
    """What a client sends again, and how much of it.

    Args: `limit`: how often one call that may have run is sent again, at most; `budget`: tokens to begin with, and at
        most.
    """

    def __init__(self, limit: int, budget: int) -> None:
        self._limit = limit
        self._budget = budget
        self._tokens = float(budget)
        # The tables of the client, each with how many answers of it the budget has counted.
        self._tables: dict[CallTable, int] = {}
        self._entries: dict[int, RetryEntry] = {}
        # Counters, for statistics. Those that went to another server; by who moves them.
        self.moved: int = 0
        self.sent: int = 0
        self.refused: int = 0

    def add_table(self, table: CallTable) -> None:
        """Answers to the calls of this table fill the budget."""
        self._tables[table] = table.answered

    def remove_table(self, table: CallTable) -> None:
        """A connection of the client is closed. Under the table's lock, as `add_table`."""
        self._refill_locked()
        del self._tables[table]

    def forget_locked(self, call_id: int) -> None:
        """The call was not accepted after all."""
        entry = self._entries.pop(call_id, None)
        if entry is not None:
            entry.table.waiting.pop(call_id, None)

    def over_locked(self, entry: RetryEntry) -> None:
        """A call has its outcome."""
        if self._entries.get(entry.call_id) is entry:
            del self._entries[entry.call_id]

    def did_not_run_locked(self, table: CallTable, call_id: int, taken: bool) -> bool:
        """A call that had left did not run: whether it is sent again. `taken`: it was sent to a server that had
        greeted.
        """
        call = table.calls[call_id]
        if not _may_leave_again(call):
            return False
        entry = self._entry_locked(table, call_id, call)
        if entry.moves >= MOST_MOVES:
            return False
        entry.moves += taken
        return True

    def try_retry_locked(self, table: CallTable, call_id: int, why: str) -> bool:
        """The connection of a call that had left was lost, which is `why`: whether it backs off, to be sent again."""
        call = table.calls[call_id]
        if not (self._limit and spec_of(call).retried and _may_leave_again(call)):
            return False
        entry = self._entry_locked(table, call_id, call)
        if entry.tries >= self._limit:
            return False
        if not self._spend_locked():
            return False
        entry.tries += 1
        entry.why = why
        entry.backs_off = True
        return True

    def refused_locked(self, table: CallTable, call_id: int) -> float | None:
        """A server has refused a call, which did not run: return after how many seconds it may go to another one.

        None: it may not. If it has to wait, the caller notes that, by `back_off_locked`.
        """
        call = table.calls[call_id]
        if not _may_leave_again(call):
            return None
        entry = self._entry_locked(table, call_id, call)
        if entry.moves >= MOST_MOVES or not self._spend_locked():
            return None
        entry.moves += 1
        return 0.0 if entry.moves == 1 else _wait(entry.moves - 1)

    def back_off_locked(self, call_id: int) -> None:
        """A call that was refused waits, and has its timer."""
        self._entries[call_id].backs_off = True

    def backs_off_locked(self, call_id: int) -> bool:
        """Whether a call backs off."""
        entry = self._entries.get(call_id)
        return entry is not None and entry.backs_off

    def _entry_locked(self, table: CallTable, call_id: int, call: Call[object]) -> RetryEntry:
        entry = self._entries.get(call_id)
        if entry is None:
            entry = self._entries[call_id] = RetryEntry(self, table, call, call_id)
            table.waiting.setdefault(call_id, []).append(entry)
        return entry

    def _spend_locked(self) -> bool:
        """Take a token, if there is one."""
        self._refill_locked()
        if self._tokens < 1 - 1e-9:  # Tenths do not add up to one.
            self.refused += 1
            return False
        self._tokens -= 1
        return True

    def _refill_locked(self) -> None:
        for table, counted in self._tables.items():
            answered = table.answered
            self._tokens = min(self._budget, self._tokens + REFILL * (answered - counted))
            self._tables[table] = answered

    def waits_locked(self, call_ids: Iterable[int]) -> Iterator[tuple[float, list[int]]]:
        """Say how long calls that were just taken back off, in seconds, each group of them."""
        by_tries = sorted(call_ids, key=self._tries)
        for tries, group in groupby(by_tries, self._tries):
            yield _wait(tries), list(group)

    def _tries(self, call_id: int) -> int:
        return self._entries[call_id].tries

    def rested_locked(self, table: CallTable, call_id: int) -> bool:
        """A call has backed off; False if it does so no more."""
        entry = self._entries.get(call_id)
        if entry is None or not entry.backs_off or table.calls.get(call_id) is not entry.call:
            return False
        entry.backs_off = False
        self.sent += 1 if entry.why else 0
        return True

    def renew_locked(self, call_id: int, call: Call[object]) -> PendingCall | LoneMessage:
        """Return the request of a call that is sent again, or by another connection, to queue now."""
        entry = self._entries.get(call_id)
        tries = 0 if entry is None else entry.tries
        left = time_left(call)
        pending = request_of(call)
        if isinstance(pending, EncodedCall):
            return pending._replace(options=_again(pending.options, tries, left))
        if not isinstance(pending, LoneMessage):
            _, target, args, options = pending
            return call_id, target, args, _again(options, tries, left)
        message = decode(pending.frames)
        assert isinstance(message, Calls)
        group = message.groups[0]
        options = _again(group.options, tries, left)
        if options is None:
            return pending
        again = EncodedCall(call_id, message.targets[group.target], split_args(group)[0], options)
        return LoneMessage([*encode_calls([again]), *pending.frames[1:]], call_id)

    def lost_locked(self, call_id: int) -> str:
        """How the connection was lost over which the call was sent before, and may have run; "" if it was not."""
        entry = self._entries.get(call_id)
        return "" if entry is None else entry.why


def _may_leave_again(call: Call[object]) -> bool:
    """Whether all that a call needs may be sent over another connection, and it ought to run still."""
    spec = spec_of(call)
    return not (is_cancelled(call) or spec.pipes or spec.contexts)


def _wait(times: int) -> float:
    """Return how long a call backs off before it is sent again for so many times, in seconds."""
    return about(FIRST_WAIT * 2.0 ** (times - 1), JITTER)


def _again(options: CallOptions | None, tries: int, left: float | None) -> CallOptions | None:
    """The options of a call that is sent again."""
    if options is None and not tries and left is None:
        return None
    return msgspec.structs.replace(options or CallOptions(), attempt=tries, time_left=left)
