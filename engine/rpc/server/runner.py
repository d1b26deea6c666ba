"""The running of a client's calls by who has it: decoding, the routine, and its answer.

Theory of operation. `take_turn` runs calls as long as the thread has the client (`turns.py`) and the turn lasts.
Ordinary calls wait as batches (`open_call.py`), and run as rows of one loop; others have records, and run one by one,
by the general way. The first look at the clock of a call is the last of the one before it.

A call whose client is gone is closed when its turn comes, and not run, unless it is one way: for that client it was
done as it was begun. Once the endpoint closes, no call is begun.

    runner: note the call, look at `parting`   |  one of the two sees the other: what was noted too late to be seen is
    closer: set `parting`, look what is noted  |  not begun by the runner, and what was begun is not closed as unbegun

Assumes: stores and loads of attributes are atomic and not reordered.

One class, because the loop over rows is the hot path of a server, and all else is what it leaves to be done: hence the
length.
"""

import weakref
from collections import deque
from collections.abc import Sequence
from types import CoroutineType
from typing import Any

import msgspec

from transport.foreign import is_interrupt, type_name
from transport.log import Log
from transport.realtime import monotonic, perf_counter
from transport.wire.codec import DEFERRABLE_BYTES, deferrable
from transport.wire.large import read_large

from ...errors import CallError, InvalidArgumentType, InvalidAsyncHandle
from ...pool.running import WorkerState, after_return
from ...status import Status
from ..errors import AccessDenied, BadStubData, CallCancelled, CallTimeout
from ..serving import ServingSlot, current
from .answers import Answers
from .call import ServerCall, handle_of, log_unanswered
from .open_call import Batch, OpenCall
from .pipes import advice
from .routines import UNANSWERED, Entry, calls_routines, returned, run_prepared
from .turns import TURN, Account, ClientTurns, Scheduler

log: Log = Log("engine.rpc")

# A call that has waited until so much of its time is left is not started: its answer would come too late, mostly, and
# all calls behind it would be as late. A server that is asked for too much would answer nothing in time.
LAST_PART, LAST_SECONDS = 1 / 8, 0.02  # Arbitrary: more than what a busy server and its client are late.
TIMED_TOGETHER = 16  # Quick calls that one look at the clock is for: it costs as much as decoding their arguments.

# What becomes of a batch: see `CallRunner._run_rows`.
_APART, _USED = object(), object()


class CallRunner(ClientTurns):
    """The calls of one client that have an order, and the running of them.

    Args: `answers` closes them.
    """

    __slots__ = ("_answers", "_careful", "_now", "_until")

    owner: ServingSlot | None

    def __init__(self, scheduler: Scheduler, account: Account, answers: Answers) -> None:
        super().__init__(scheduler, account)
        self._answers = answers
        # Whether calls took long lately, so that each is timed by itself. Written by who has the client.
        self._careful = False
        # When the last call that was timed had ended, and the next began. Written by who has the client.
        self._now = 0.0
        # When the turn is over. Written by who has the client.
        self._until = 0.0

    def take_turn(self, worker: WorkerState) -> None:
        """Run calls for a while; see `pool.running.Turns`."""
        port = worker.port
        ring, account = port.ring, self.account
        try:
            if (ring or self._entering is not None) and not self._may_begin(ring, max(1, port.maximum - 1)):
                return
        except MemoryError:
            self._relist()
            return
        self.owner = place = current.slot
        over = 0.0
        try:
            channel = self._answers.channel
            if channel not in worker.unsent:
                worker.unsent.append(channel)
            self._now = now = perf_counter()
            until = now + TURN
            if ring and account.debt:
                until -= account.debt
            account.debt = 0.0
            self._until = until
            self._run_calls(place, worker, until)
            over = self._now - until
        except BaseException as error:  # No memory, for one.
            if self.calls:
                self._abandon(self.calls[0], place, error)
        finally:
            place.call = place.batch = place.handle = None
            self._end_turn(place, over)

    def begin_in_loop(self, call: OpenCall) -> None:
        """Begin an `async def` routine. In the thread of its event loop."""
        if call.handed or not call.is_open():
            return  # It was begun before, or given up.
        call.handed = True
        place = current.slot
        try:
            self._run_one(call, call.entry, None, place)
            if not call.is_open():  # It was refused, or failed, and made no task, which would send its answer.
                self._answers.channel.flush()
        except BaseException as error:  # No memory, for one.
            self._abandon(call, place, error)
            if is_interrupt(error):  # In a loop of the main thread: it is for the program.
                raise
        finally:
            place.call = place.call_id = place.handle = None

    def _run_calls(self, place: ServingSlot, worker: WorkerState | None, until: float) -> None:
        """Run calls until the turn ends. Without a worker, on a thread that waits: see `helped.py`."""
        calls = self.calls
        careful, self._careful = self._careful, False
        while self.owner is place and calls:
            work = calls[0]
            if worker is None and not work.entry.helpable:
                return
            try:
                if isinstance(work, Batch):
                    if (rest := place.context.run(self._run_rows, work, place, worker, careful, until)) is not None:
                        self._go_on(work, rest, place, worker, careful, until)
                elif work.entry.needs_no_worker:
                    self._hand_over()
                else:
                    calls.popleft()
                    self._run_alone(work, place, worker)
            except BaseException as error:  # No memory, for one: what a routine raises does not come here.
                self._abandon(work, place, error)
            if self._now >= until:
                return

    def _abandon(self, work: Batch | OpenCall, place: ServingSlot, error: BaseException) -> None:
        """This side has failed at calls: what is open of them ends with `CallFailed`, and nothing of them is run."""
        answers = self._answers
        current_id, place.call_id = place.call_id, None
        if isinstance(work, OpenCall):
            peer, calls = work.peer, [work]
        else:
            peer, ids = work.peer, [] if current_id is None else [current_id]
            if self._has(place):  # Otherwise the others are run by who has the client.
                if self.calls and self.calls[0] is work:
                    self.calls.popleft()
                ids += work.group.ids if work.rows is None else [call_id for call_id, _ in work.rows]
                if work.rows is not None:
                    work.rows.clear()
            calls = [work.open(call_id) for call_id in ids]
        unanswered = False
        for call in calls:
            call.aborted = True  # Some may wait again by now.
            try:
                answers.reply_fault(call, Status.CALL_FAILED, None, f"the server failed at it: {type_name(error)}")
            except InvalidAsyncHandle:
                # It failed at the answer, unless the routine has answered by itself.
                unanswered = unanswered or (call.id == current_id and not call.entry.takes_handle)
        answers.fail_at(peer, error, current_id if unanswered else None)
        place.call = place.batch = None
        place.take_context()

    def _take_apart(self, batch: Batch) -> None:
        """Have the calls of a batch that cannot be decoded in one step wait one by one."""
        try:
            alone = batch.apart()
        except msgspec.MsgspecError as error:
            for call in batch.open_all():
                _refuse(self._answers, call, BadStubData(f"the arguments cannot be read: {error}"))
            return
        self.calls.extendleft(reversed(alone))

    def _go_on(
        self, batch: Batch, rest: Any, place: ServingSlot, worker: WorkerState | None, careful: bool, until: float
    ) -> None:
        """Go on with a batch for which the context of `place` will not do; `rest` is what `_run_rows` has returned."""
        while rest is not None:
            if rest is _APART:
                place.take_context()
                self.calls.popleft()
                self._take_apart(batch)
                return
            if worker is not None and worker.instance is not None:
                place.context.run(after_return, worker)
            if rest is not _USED:
                call, coroutine = rest
                self._answer(call, coroutine, place)
            place.call_id = None
            place.take_context()  # Nothing of a call outlives it.
            if not batch.rows or self.owner is not place:
                break
            rest = place.context.run(self._run_rows, batch, place, worker, careful, until)

    def _run_rows(  # noqa: C901  # a hot path
        self, batch: Batch, place: ServingSlot, worker: WorkerState | None, careful: bool, until: float
    ) -> Any:
        """Run calls of the first batch, as long as this thread has the client and the turn lasts.

        They run in the context of `place`, one after the other, for as long as nothing is set in it.
        Returns: None if no more are to be run; `_APART`; `_USED` if the next needs another context, or something is to
            be done now that this one has returned; or a call and its coroutine, which is to be begun outside of the
            context, as it goes on in it.
        """
        # Flat, because this runs for every ordinary call.
        context, entry, rows = place.context, batch.entry, batch.rows
        if rows is None:
            if entry.preparers:  # By now: telemetry was switched on meanwhile.
                return _APART
            try:
                args = batch.group.args
                decoded = read_large(entry.decode_many, args) if batch.large else entry.decode_many(args)
            except BaseException:  # Decoding runs into whatever was sent, and runs the types' own checks.
                return _APART
            ids = batch.group.ids
            if len(decoded) != len(ids):
                return _APART
            rows = batch.rows = deque(zip(ids, decoded, strict=True))
            if context:  # What decoding has set is not for the routines.
                return _USED
        calls, answers, peer = self.calls, self._answers, batch.peer
        function, queue, take_out, outgoing = entry.function, peer.answers, peer.calls.pop, answers.outgoing
        run_time = entry.run_time
        careful = careful or len(rows) < TIMED_TOGETHER or not run_time.notable
        place.call = None
        place.batch = batch
        slow, charged = run_time.slow, 0.0
        number = 0
        left: Any = None
        now = self._now
        while rows:
            call_id, args = rows.popleft()
            if not rows:
                calls.popleft()
            if batch.records and self._is_over(batch, call_id, place):
                continue
            place.call_id = call_id  # Once inside the routine, the client may be taken away.
            if peer.parting:
                answers.give_up(batch.open(call_id))
                place.call_id = None
                continue
            if slow:
                charged = run_time.mean
                self._leave(place, worker, call_id, charged)
            try:
                value = function(*args)
            except BaseException as error:
                # BaseException too: a routine that exits or is interrupted must not take a worker with it.
                self._fail(batch.open(call_id), error)
            else:
                if batch.records or not (
                    (type(value) is bytes and len(value) <= DEFERRABLE_BYTES) or deferrable((value,))
                ):
                    if type(value) is CoroutineType:
                        left = batch.open(call_id), value
                    else:
                        self._reply(batch.open(call_id), value)
                elif (found := take_out(call_id, None)) is batch:
                    queue.append((call_id, value))
                    place.call_id = None
                    if not peer.queued:  # `enqueue` in line.
                        peer.queued = True
                        outgoing.append(peer)
                elif isinstance(found, OpenCall):
                    answers.conclude(found, value)  # Its handle was made just now.
                else:
                    self._reply(batch.open(call_id), value)  # Its handle is just being made, or has closed it.
            if (context or (worker is not None and worker.instance is not None)) and left is None:
                left = _USED
            number += 1
            if careful or number == TIMED_TOGETHER or left is not None:
                # Where one call ends the next begins.
                then = now
                self._now = now = perf_counter()
                took = (now - then) / number
                if took > run_time.notable:
                    run_time.learn(took)
                    slow = run_time.slow
                    self._careful = careful = True
                number = 0
                if self.owner is not place:
                    place.call_id = None
                    if not self._come_back(place, took - charged):
                        answers.channel.flush()
                        return left
                if left is not None:
                    return left
                place.call_id = None
                if now >= until:
                    break
            place.call_id = None
            if self.owner is not place and not self._come_back(place, 0.0):
                answers.channel.flush()
                break
        return None

    def _leave(self, place: ServingSlot, worker: WorkerState | None, call_id: int, cost: float) -> None:
        """Give up the client, the seat and the leadership: the next step of this thread is to enter a slow routine."""
        if worker is None:
            return  # It was measured to be slow in this very turn, which ends after it.
        worker.send()
        self._pass_on(place, call_id, self._now + cost - self._until)  # What is left of the turn pays for it.
        worker.parted = worker.turn
        worker.port.leave_slot(worker)

    def _is_over(self, batch: Batch, call_id: int, place: ServingSlot) -> bool:
        """Whether a call of a batch in which some have handles need not be run; else it is the one served here."""
        place.call = call = batch.records.get(call_id)
        if call is None or not call.aborted:
            return False
        place.call_id = call_id
        _refuse(self._answers, call, CallCancelled("aborted before it was started"))
        place.call_id = None
        return True

    def _run_alone(self, call: OpenCall, place: ServingSlot, worker: WorkerState | None) -> None:
        """Run a call that has a handle from the beginning."""
        then, run_time = self._now, call.entry.run_time
        slow, charged = run_time.slow, run_time.mean
        self._run_one(call, call.entry, worker if slow else None, place)
        place.call_id = None
        if worker is not None and worker.instance is not None:
            place.run(after_return, worker)
        now = perf_counter()
        took = now - then
        if took > run_time.notable and call.begun:  # What was closed without being run says nothing of runs.
            run_time.learn(took)
            self._careful = True
        if self.owner is not place and not self._come_back(place, took - charged if slow else took):
            self._answers.channel.flush()
        else:
            self._now = now

    def _run_one(  # noqa: C901  # a hot path
        self, call: OpenCall, entry: Entry, slow: WorkerState | None, place: ServingSlot
    ) -> None:
        """Run a call; a worker that is given as `slow` leaves before it enters the routine."""
        answers = self._answers
        if call.peer.parting and answers.give_up(call):
            return
        if call.options is not None or call.aborted or entry.policy is not None:
            if call.aborted:
                _refuse(answers, call, CallCancelled("aborted before it was started"))
                return
            if (
                call.deadline is not None
                and (left := call.deadline - monotonic()) <= LAST_SECONDS
                and _comes_too_late(call, left)
            ):
                # Answered with what it is: its client may get that before its own clock shows it.
                _refuse(answers, call, CallTimeout("the call's time ran out before it was started"))
                return
            if entry.policy is not None and (refusal := place.run(entry.policy.examine, call)) is not None:
                _refuse(answers, call, AccessDenied(refusal))
                return
        try:
            run = place.context.run
            args = run(entry.decode_plain, call.args) if call.blobs is None else run(_decode_large, call, entry)
        except BaseException:  # Decoding runs into whatever was sent, and runs the types' own checks.
            try:
                args = place.run(_decode_large, call, entry)
            except BaseException as error:
                _refuse(answers, call, BadStubData(f"{entry.spec.misfit(error)}{advice(call)}"))
                return
        if place.context:
            place.take_context()
        place.call = call
        place.call_id = call.id  # As in `_run_rows`.
        call.begun = not entry.coroutine
        if call.peer.parting and answers.give_up(call):
            return
        if slow is not None:
            self._leave(place, slow, call.id, entry.run_time.mean)
        try:
            run = place.context.run
            preparers = entry.preparers
            if preparers:
                value = run(run_prepared, call, entry, preparers, args)
            elif entry.takes_handle:
                if call.handle is not None:  # A security callback has asked for it.
                    handle = handle_of(call)
                else:
                    handle = ServerCall(call)  # `handle_of` in line. Kept until the routine has returned.
                    call.handle = weakref.ref(handle)
                call.given = True
                value = run(entry.function, handle, *args)
            else:
                value = run(entry.function, *args)
        except BaseException as error:
            # BaseException too: a routine that exits or is interrupted must not take a worker with it.
            place.run(self._fail, call, error)
            return
        if type(value) is CoroutineType or not (entry.takes_handle or value is UNANSWERED):
            self._answer(call, value, place)
        elif value is not None and value is not UNANSWERED:
            returned(call, value)
        place.handle = None
        if place.context:
            place.take_context()

    def _answer(self, call: OpenCall, value: object, place: ServingSlot) -> None:
        """Answer a call with what its routine returned, now or when that has run."""
        if type(value) is CoroutineType:
            # It goes on in the context in which it was begun.
            self._scheduler.start(call, value, place.take_context())
            return
        place.context.run(self._reply, call, value)  # Who called this looks what was set.

    def _fail(self, call: OpenCall, error: BaseException) -> None:
        """Close a call whose routine raised; if the routine had closed it before, only report what it raised."""
        try:
            self._answers.reply_fault(call, 0, error)
        except InvalidAsyncHandle:
            log.error("%r raised after it was closed", call, exc_info=error)

    def _reply(self, call: OpenCall, value: object) -> None:
        """Answer a call with what its routine returned, now."""
        try:
            self._answers.reply(call, value)
        except (InvalidArgumentType, InvalidAsyncHandle) as error:
            log_unanswered(call, value, error)


calls_routines(CallRunner._run_rows, CallRunner._run_one)  # type: ignore[arg-type]  # functions, seen from the class


class LooseRunner(CallRunner):
    """The calls of one client that have no order: others go on with them wherever the thread is that has them."""

    __slots__ = ()

    def _note_entering(self, place: ServingSlot, call_id: int) -> None:
        pass  # The next one need not come after it.

    def _may_take_away(self, owner: ServingSlot) -> bool:
        return True

    def _run_calls(self, place: ServingSlot, worker: WorkerState | None, until: float) -> None:
        while self._now < until and (call := self._take(place)) is not None:
            try:
                if call.entry.needs_no_worker:
                    self._scheduler.hand_over(call)
                else:
                    self._run_alone(call, place, worker)
            except BaseException as error:  # No memory, for one: what a routine raises does not come here.
                self._abandon(call, place, error)

    def _take(self, place: ServingSlot) -> OpenCall | None:
        """Take a call, if this thread has the client and there is one."""
        with self._lock:  # The client may be taken away at any time; who has it then is the only one to take.
            call = self.calls.popleft() if self.owner is place and self.calls else None
        assert not isinstance(call, Batch)
        return call


def _decode_large(call: OpenCall, entry: Entry) -> Sequence[Any]:
    """Decode arguments that are large, of which some travelled out of band, or were left to the routine's defaults."""
    options = call.options
    return entry.decode_args(call.args, call.blobs or (), None if options is None else options.blobs)


def _comes_too_late(call: OpenCall, left: float) -> bool:
    """Whether a call that is to be started now would hardly be answered in the time that its client leaves it."""
    options = call.options
    if options is None or options.time_left is None or options.one_way:
        return left <= 0
    return left <= options.time_left * LAST_PART


def _refuse(answers: Answers, call: OpenCall, error: CallError) -> None:
    """Close a call that was not started."""
    try:
        answers.reply_fault(call, 0, error)
    except InvalidAsyncHandle:
        log.debug("%r was closed before it was started", call)
