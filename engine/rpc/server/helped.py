"""The running of `nonblocking` calls by threads of their own process that wait, in the place of a worker.

Theory of operation. Over loopback the client is in the process of the server. If the next call of its client is of an
operation that promises never to wait, the client goes into the ring of what waiting threads help with
(`kernel/helping.py`) instead of that of the pool. Who takes it out has it, as a worker has, and runs its calls by the
same functions, until one comes that has not promised, or was measured to be slow: then the client goes into the pool's
ring. So the order of its calls, its account, what its calls see of themselves and how they are answered are the same.

    ring of help --a thread takes it--> its list `has` --moved, in one step--> ring of help | ring of the pool | idle

The thread may be the main one, into whose routine a signal handler may raise. Then the call ends with 1726, the thread
lets go of the client, and what was raised goes on to who waits. What is raised between two routines ends the call that
was just taken out, if there is one; the others wait for their turn.

A thread leads nothing while it helps, and has no seat: there is nothing that the monitor could take from it. Should
the routine wait for something of the library's, against its promise, others go on with the client (`part`).

Assumes: as `kernel/helping.py`.
"""

from itertools import compress, starmap
from operator import not_
from typing import Any, Final

from transport.foreign import is_interrupt
from transport.realtime import perf_counter

from ...errors import InvalidAsyncHandle
from ...kernel.driver import driver
from ...kernel.helping import ONCE, here, may_help
from ...status import Status
from ..serving import ServingSlot, current
from .answers import Answers
from .open_call import Batch, OpenCall
from .runner import CallRunner
from .turns import TURN, Account, Scheduler

INTERRUPTED: Final = "an exception of a signal handler broke in on the thread that ran it for its caller"


class HelpedRunner(CallRunner):
    """The calls of one client over loopback that have an order."""

    __slots__ = ("_interrupt",)

    def __init__(self, scheduler: Scheduler, account: Account, answers: Answers) -> None:
        super().__init__(scheduler, account, answers)
        # What a signal handler has raised in the thread that runs them as help. Written by that thread.
        self._interrupt: BaseException | None = None

    def _post(self) -> None:
        if not self.calls:
            return
        has: list[Any] = []
        try:
            try:
                has.extend(compress((self,), map(not_, starmap(self._idle.pop, ONCE))))
            except IndexError:
                return  # It is in a ring, or its owner looks again.
            self._offer(has)
        except BaseException:
            if has:
                self.decline(has)
            else:
                self._scheduler.port.need()
            raise

    def arrived(self) -> None:
        try:  # `post` in line.
            self._post()
        except MemoryError:
            self._once_more()

    def _offer(self, has: list[Any]) -> None:
        """Put the client where it is to be next: a ring, or to its rest. `has` has it; for who has the client."""
        calls, port = self.calls, self._scheduler.port
        if not calls:
            # Looked at again after that, as who appends looks for the token after it.
            self._idle.extend(compress((None,), starmap(has.pop, ONCE)))
            self.post()
            return
        entry = calls[0].entry
        if self._entering is None or self._is_entered():
            # In debt it would be passed over.
            affordable = self.account.debt < TURN or not port.ring
            if entry.helpable and affordable and not entry.run_time.slow and may_help():
                driver().seek_help(has)
                return
            if entry.needs_no_worker:
                self._hand_over()
                self._offer(has)
                return
        self.decline(has)

    def help(self, has: list[Any]) -> None:
        """Run calls for a turn; see `kernel.helping.Helped`."""
        self.owner = place = current.slot
        until = 0.0
        try:
            self._now = now = perf_counter()
            until = now + TURN
            self._run_calls(place, None, until)
        except BaseException as error:  # A signal handler raised outside of the calls.
            self._interrupt = error
        try:
            place.call = place.batch = place.handle = place.call_id = None
            self._let_go(has, self._now - until)
            self._answers.channel.flush()
        except BaseException as error:
            self._interrupt = error
            self._let_go(has, 0.0)
            self._answers.channel.defer()
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            raise interrupt

    def decline(self, has: list[Any]) -> None:
        """Let workers run the calls, if there are any; see `kernel.helping.Helped`."""
        port = self._scheduler.port
        try:
            port.ring.extend(starmap(has.pop, ONCE))
        except MemoryError:
            self._not_listed(has)
            raise
        port.need()

    def part(self, has: list[Any]) -> None:
        """Let others go on, as one that blocks inside a routine does; see `kernel.helping.Helped`."""
        owner = self.owner
        with self._lock:
            if owner is None or not self._may_take_away(owner):
                return  # It waits as it decodes arguments, say.
            self.owner = None
            self.account.held.add(owner)
        self._offer(has)

    def _let_go(self, has: list[Any], over: float) -> None:
        """The turn is over, and took so many seconds more than it may. Done again if an interrupt broke it off."""
        if has:
            self.owner = None
            if over > 0:
                self.account.charge(over)
            self._offer(has)
        else:
            self.post()

    # What is raised in the place of a call's outcome

    def _fail(self, call: OpenCall, error: BaseException) -> None:
        if here.has is None or not is_interrupt(error):
            super()._fail(call, error)
            return
        self._stop(error)
        self._end(call)

    def _abandon(self, work: Batch | OpenCall, place: ServingSlot, error: BaseException) -> None:
        """As a worker's, but what was not taken out yet waits for its turn if a signal handler has raised."""
        if here.has is None or not is_interrupt(error):
            super()._abandon(work, place, error)
            return
        self._stop(error)
        closed = place.call_id
        if isinstance(work, OpenCall):
            if self.calls and self.calls[0] is work:
                return
            under_way = [work.id]
        else:
            rows = work.rows
            if rows is None:
                return
            waiting = {call_id for call_id, _ in rows}
            ids = work.group.ids
            under_way = [call_id for call_id in ids if call_id not in waiting and _is_open(work, call_id)]
            if not rows and self.calls and self.calls[0] is work:
                self.calls.popleft()
        for call_id in under_way:
            self._end(work if isinstance(work, OpenCall) else work.open(call_id))
        if closed is not None and closed not in under_way:
            self._answers.fail_at(work.peer, error, closed)  # Its answer may have been lost.

    def _stop(self, error: BaseException) -> None:
        """No further call is run in this turn."""
        self._interrupt = error
        if self.owner is current.slot:
            self.owner = None

    def _end(self, call: OpenCall) -> None:
        try:
            self._answers.reply_fault(call, Status.CALL_FAILED, None, INTERRUPTED)
        except InvalidAsyncHandle:
            pass  # It has its outcome.


def _is_open(batch: Batch, call_id: int) -> bool:
    found = batch.peer.calls.get(call_id)
    return found is not None and (found is batch or found is batch.records.get(call_id))
