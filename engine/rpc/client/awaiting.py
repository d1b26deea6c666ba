"""The calls that have to wait for a connection: begun while there is none, or when theirs was lost.

Theory of operation. Each has `connect_timeout` seconds until the server has greeted, after which it ends: with
`ServerUnavailable` (or `CallFailedDne`, if the server was reached before) if it has not left, and never will; with
`CallFailed` if it has, as what accepts a connection and does not greet may be a slow server, which may have begun it.

When a connection is lost, calls that had left end with `CallFailed`, at once, unless they are sent again (`retry.py`);
the others wait for the next connection, and so do those that the server says it has not taken.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import repeat

from transport.frames import Cancel, CancelledCall
from transport.realtime import monotonic
from transport.wire.codec import encode

from ...kernel.driver import driver
from ...kernel.monitor import TimerHandle
from ..channel import Channel
from ..errors import CallFailed, CallFailedDne, error_for
from ..state import Failure, Outcome
from .call_table import CallTable, perform
from .elsewhere import Actions, Elsewhere
from .outbox import LoneMessage, Outbox
from .retry import Retries
from .session import EndpointSession


class AwaitingConnection:
    """The calls of one connection that wait for a server to greet, in a queue, as all have the same time limit.

    Args: `attend_locked` has the network driven though no thread waits, if that is needed now. `timeout` in seconds;
        None: they wait for ever.
    Guarded by the table's lock.
    """

    def __init__(
        self, channel: Channel, attend_locked: Callable[[], object], session: EndpointSession, table: CallTable,
        outbox: Outbox, retries: Retries, timeout: float | None,
    ) -> None:  # fmt: skip
        self._channel = channel
        self._attend_locked = attend_locked
        self._session = session
        self._table = table
        self._outbox = outbox
        self._retries = retries
        self._timeout = timeout
        # The other servers of the client, if it has several; set once.
        self.elsewhere: Elsewhere | None = None
        # (when, call number), in order.
        self._calls: deque[tuple[float, int]] = deque()
        # The timer of the first.
        self._timer: TimerHandle | None = None
        # An interrupt has broken off the sorting of what a conversation has left.
        self._unsorted = False

    def add_locked(self, call_id: int) -> None:
        """A call waits from now on."""
        if self._timeout is None:
            return
        self._calls.append((monotonic() + self._timeout, call_id))
        if self._timer is None:
            self._start_locked()

    def clear_locked(self) -> None:
        """A server has greeted: no call waits for one any more."""
        self._calls.clear()

    def stop_locked(self) -> None:
        """The client closes."""
        if self._timer is not None:
            self._timer.cancel()

    def withdraw_locked(self, call_id: int) -> bool:
        """Have a call not leave that waits to; return False if it leaves just now, or has left."""
        return self._retries.backs_off_locked(call_id) or call_id in self._outbox.withdraw({call_id})

    # A conversation is over

    def sort_out_locked(
        self, text: str, again: bool, read: int | None, greeted: bool, actions: Actions
    ) -> dict[int, Outcome]:
        """Have each call of a conversation that was lost wait for the next one, or be sent again; return how others
        end.

        Args: `text` says how it was lost. `again`: calls that had left may be sent again. `read`: how many messages
            with calls the server says it has taken; the calls of the later ones did not run. `greeted`: by the server.
        """
        # What waits in the queue again has not left after all.
        again_from_the_start, self._unsorted = self._unsorted, True
        left = self._outbox.left()
        unsent = self._outbox.numbers()
        untaken: list[int] = []
        retried: list[int] = []
        moving: list[int] = []
        ended: dict[int, Outcome] = {}
        for call_id, call in list(self._table.calls.items()):
            moves = self.elsewhere is not None and self.elsewhere.may_move(call)
            backs_off = self._retries.backs_off_locked(call_id)
            if call_id in unsent or call_id not in left or backs_off:
                # One that is in no queue backs off, or is just being begun, by a thread that will find no connection.
                if moves and call_id in unsent:
                    moving.append(call_id)
                else:
                    self.add_locked(call_id)
                    if again_from_the_start and backs_off:
                        retried.append(call_id)  # It may have no timer yet; with two, the second does nothing.
            elif read is not None and left[call_id] > read:
                if again and self._retries.did_not_run_locked(self._table, call_id, greeted):
                    if moves:
                        moving.append(call_id)
                    else:
                        self.add_locked(call_id)
                        untaken.append(call_id)
                else:
                    ended[call_id] = Failure(CallFailedDne(f"{text}, before it took this call"))
            elif again and self._retries.try_retry_locked(self._table, call_id, text):
                self.add_locked(call_id)
                retried.append(call_id)
            else:
                ended[call_id] = Failure(CallFailed(text))
        # Before those that were begun later.
        for call_id in sorted(untaken, reverse=True):
            self._outbox.queue.appendleft(self._retries.renew_locked(call_id, self._table.calls[call_id]))
        if self.elsewhere is not None and moving:
            self.elsewhere.move_locked(moving, actions)
        self._attend_locked()
        for wait, group in self._retries.waits_locked(retried):
            driver().monitor.call_at(monotonic() + wait, partial(self.send_again, group))
        self._unsorted = False
        return ended

    def refused_locked(self, status: int, text: str) -> dict[int, Outcome]:
        """How the outstanding calls end: over a former connection they may have run."""
        return {
            call_id: Failure(CallFailed(f"{lost}; {text}") if lost else error_for(status, text))
            for call_id in list(self._table.calls)
            for lost in (self._retries.lost_locked(call_id),)
        }

    def send_again(self, call_ids: list[int]) -> None:
        """These calls have backed off."""
        actions: Actions = [self._channel.flush]
        with self._table.lock:
            if self._session.has_left:
                return
            self._queue_again_locked(call_ids, actions)
        perform(actions)

    def _queue_again_locked(self, call_ids: list[int], actions: Actions) -> None:
        # A call whose connection was lost while it was being begun is there already.
        queued = self._outbox.numbers()
        for call_id in call_ids:
            if self._retries.rested_locked(self._table, call_id) and call_id not in queued:
                call = self._table.calls[call_id]
                if self.elsewhere is not None and self.elsewhere.may_move(call):
                    self.elsewhere.move_locked([call_id], actions)
                else:
                    self._outbox.queue.append(self._retries.renew_locked(call_id, call))

    # No server has greeted in time

    def _give_up(self) -> None:
        """End the calls that have waited for a server too long."""
        actions: list[Callable[[], object]] = []
        driver().harvest(self._channel)  # A greeting that has arrived counts.
        try:
            with self._table.lock:
                left = self._end_unreached_locked(self._take_expired_locked(), actions)
                if left and self._session.linked:
                    self._outbox.queue.append(LoneMessage(encode(Cancel([*map(CancelledCall, left, repeat(True))]))))
                self._attend_locked()
        finally:
            perform(actions)
        if left:
            self._channel.flush()

    def _end_unreached_locked(self, expired: list[int], actions: list[Callable[[], object]]) -> list[int]:
        """End the calls that waited for a server too long; return those that may have left."""
        # They must not run later on, when their callers know that they did not. What may have left, a server that
        # greets late may run before it reads that it should not.
        unsent = self._outbox.withdraw(set(expired)) | set(filter(self._retries.backs_off_locked, expired))
        ended = list(filter(self._table.calls.__contains__, expired))
        left = [call_id for call_id in ended if call_id not in unsent]
        waited = self._timeout
        assert waited is not None
        outcomes = [
            Failure(self._session.unreachable(waited, self._retries.lost_locked(call_id), call_id not in unsent))
            for call_id in ended
        ]
        self._table.finish_locked(ended, outcomes, actions)
        return left

    def _take_expired_locked(self) -> list[int]:
        """Return the calls that have waited too long, and start the timer of the next one."""
        now = monotonic()
        expired: list[int] = []
        while self._calls and self._calls[0][0] <= now:
            expired.append(self._calls.popleft()[1])
        self._timer = None
        if self._calls:
            self._start_locked()
        return expired

    def _start_locked(self) -> None:
        self._timer = driver().monitor.call_at(self._calls[0][0], self._give_up)
