"""A lane: the calls of one connection that wait to be run, in the order in which they were begun.

Theory of operation. Arriving calls are appended to their connection's lane, and a runner is posted to the pool. One
runner at a time has the lane: only it takes calls and enters their routines, so routines are entered in order. Quick
ones run one after the other on that thread, and their answers share messages. Just before a routine whose measured mean
is above `SLOW` the lane goes to another runner, and the thread gives up its slot and the leadership, so that slow calls
run side by side on as many workers as the pool has. From a runner that stays inside a routine, the monitor takes the
lane away. A runner notes in its `ServingSlot` which routine it is about to enter; the thread that takes a lane over
from it asks whether it is inside by now (`routines.py`), and takes no call before.

    runner has the lane, takes a call
      quick -> run it, learn, next
      slow  -> give the slot back, pass the lane on, run it, send its answer, take the lane again if nobody has it
    next runner -> is the one before it inside its routine? not yet: sleep a moment, ask again
    monitor sees the same call waiting at two ticks -> is the runner inside a routine? pass the lane on, send answers

A routine that is an `async def` counts as entered when it was handed to the event loop, which begins them in order. If
nobody has the lane that is done at once, by the thread that found the call, so that it needs no worker.

Calls that have no place in any order (see `Client.bind`), and those that begin again, have lanes of their own. Ordinary
calls wait as batches (`open_call.py`), others one by one.

A call whose client is gone is closed when its turn comes, and not run, unless it is one way: for that client it was
done as it was begun. Once the endpoint closes, no call is begun.

    runner: note the call, look at `parting`   |  one of the two sees the other: what was noted too late to be seen is
    closer: set `parting`, look what is noted  |  not begun by the runner, and what was begun is not told to have waited

Guarantees: the routine of a call is entered after that of the call before it, whose first line has begun by then; they
may end in any order. No call that arrived waits behind a slow routine for longer than two ticks while a worker is free.
A runner takes what waited when it began; what came later has its place behind the other lanes.

Assumes: stores and loads of attributes are atomic and not reordered.

One class, and the few that only it uses, because who has the lane decides every step: hence the length.

Source: "Causal Ordering of Asynchronous Calls".
"""

import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextvars import Context
from types import CoroutineType
from typing import Any

import msgspec

from transport.foreign import text_of, type_name
from transport.log import Log
from transport.realtime import monotonic, perf_counter, sleep
from transport.wire.codec import DEFERRABLE_BYTES, deferrable

from ...errors import CallError, InvalidArgumentType, InvalidAsyncHandle, InvalidHandle
from ...kernel.driver import driver
from ...kernel.lock import Lock
from ...pool.pool import ThreadPool
from ...status import Status
from ..errors import AccessDenied, BadStubData, CallCancelled, CallTimeout
from ..serving import ServingSlot, current
from .answers import Answers
from .call import ServerCall, handle_of, log_unanswered
from .open_call import Batch, OpenCall
from .pipes import advice
from .routines import UNANSWERED, Entry, calls_routines, inside, returned, run_prepared

log: Log = Log("engine.rpc")

SLOW = 200e-6  # Seconds. A hand-over between threads costs ~30 us on each side; below a few of them it does not pay.
LEARNING = 0.1  # Weight of the newest run in the running mean: about ten runs to change one's mind.
MOST = 16 * SLOW  # Seconds that one run counts for at most: enough to change one's mind, and to change it back in five.
NOTABLE = SLOW / 10  # What takes less is not learned: most routines never get a mean.
TIMED_TOGETHER = 16  # Quick calls that one look at the clock is for: it costs as much as decoding their arguments.
# Seconds between two looks at a thread that is about to enter its routine, the first and the longest: it goes on as
# soon as it gets a processor.
FIRST_LOOK, LAST_LOOK = 50e-6, 1e-3

# What becomes of a batch: see `Lane._run_rows`.
_APART, _USED = object(), object()


class Lanes(msgspec.Struct, eq=False):
    """What the lanes of one server share."""

    # Runs the routines.
    pool: ThreadPool
    # Has the event loop run a coroutine in a context; its end closes the call.
    start: Callable[[OpenCall, Coroutine[Any, Any, Any], Context], object]

    def resume(self, call: OpenCall) -> None:
        """Run a call again that had to wait for a context handle."""
        answers = call.answers
        assert isinstance(answers, Answers)
        Lane(self, answers, [call]).post()


class Lane:
    """Calls that are entered in order."""

    __slots__ = (
        "_answers", "_careful", "_entering", "_holder", "_lanes", "_lock", "_posted", "_seen", "_watched", "calls",
    )  # fmt: skip

    def __init__(self, lanes: Lanes, answers: Answers, calls: Iterable[Batch | OpenCall] = ()) -> None:
        self._lanes = lanes
        self._answers = answers
        # Appended under link.lock, taken by the holder. Whoever appends calls `post` after it, outside of the lock.
        # Invariant: a batch has calls that are not run yet.
        self.calls: deque[Batch | OpenCall] = deque(calls)
        self._lock = Lock()
        # The place of the thread that has the lane; None: nobody. Set under _lock; read by anybody.
        self._holder: ServingSlot | None = None
        # The thread that has passed the lane on, as it was about to enter the routine of this call; None: it is inside
        # for sure. Written by who has the lane.
        self._entering: tuple[ServingSlot, int] | None = None
        # A runner was posted and has not begun. Under _lock.
        # Invariant, whenever _lock is free: calls wait => a runner is posted, or somebody has the lane, or `post` is
        # about to be called.
        self._posted = False
        # Whether calls took long lately, so that each is timed by itself. Written by the holder.
        self._careful = False
        # What waited first at the monitor's last tick. Monitor only.
        self._seen: object = None
        # The monitor was told. A hint: a lost update registers once more.
        self._watched = False

    def post(self) -> None:
        """Have the calls run."""
        try:
            first = self.calls[0]
        except IndexError:
            return  # An earlier runner has taken them.
        if first.entry.needs_no_worker:
            self._begin_coroutines()
            if not self.calls:
                return
        lock = self._lock
        if lock.owned():
            lock.refuse()
        try:
            lock.acquire()
            busy = self._holder
            if not self._posted:
                self._answers.posted.append(self)
                self._post_locked()
        except BaseException:
            if lock.owned():
                lock.release()
            raise
        lock.release()
        several = len(self.calls) > 1 or (type(first) is Batch and len(first.group.ids) > 1)
        if (busy or several) and not self._watched:
            self._watched = True
            driver().monitor.watch(self)

    def _begin_coroutines(self) -> None:
        """Begin the `async def` routines that come first: they run in the server's event loop, and need no worker."""
        with self._lock:
            if self._holder is not None or not self._is_entered():
                return
            self._holder = place = current.slot
        # The thread that harvests may do so in the midst of a routine of its own.
        outer, place.call, place.call_id = (place.call, place.call_id, place.take_context()), None, None
        try:
            self._run_first(place)
        finally:
            place.call, place.call_id, place.context = outer
            # Not `_give_back`: who called goes on, and looks for calls after this.
            with self._lock:
                if self._holder is place:
                    self._holder = None
        self._answers.channel.flush()

    def _run_first(self, place: ServingSlot) -> None:
        calls = self.calls
        while self._holder is place and calls and (call := calls[0]).entry.needs_no_worker:
            assert type(call) is OpenCall
            calls.popleft()
            self._run_one(call, call.entry, False, place)
            place.call_id = None

    def _post_locked(self) -> None:
        if not self._posted:
            self._posted = True
            try:
                self._lanes.pool.post(self._run)
            except InvalidHandle:
                # The server has closed, and told its clients: what waits here is nobody's business any more.
                log.debug("calls arrived after the workers had gone", later=True)

    def tick(self) -> bool:
        """The monitor's tick: if no call was taken since the last one, the holder is away: the others must not wait."""
        if self._answers.channel.closed:  # What waits here was given up, and is not going to be run.
            self._watched = False
            return False
        first: object
        try:
            first = self.calls[0]
            if type(first) is Batch and first.rows:
                first = first.rows[0]
        except IndexError:
            self._seen = None
            # Told first, looked second: `post` comes after the calls, and asks.
            self._watched = False
            if not self.calls:
                return False
            self._watched = True
            return True
        if first is self._seen and self._take_away():
            self.post()
        self._seen = first
        self._answers.channel.flush()
        return True

    def _take_away(self) -> bool:
        """Take the lane from a holder that has entered a routine; return whether nobody has it."""
        with self._lock:
            holder = self._holder
            # Taken first, looked second: a holder that comes out of its routine says so, and then asks before it takes
            # another call, and waits for the lock to do so.
            self._holder = None
            if holder is not None and ((call_id := holder.call_id) is None or not inside(holder, call_id)):
                self._holder = holder
            return self._holder is None

    def _pass_on(self, place: ServingSlot, call_id: int) -> None:
        """Let another runner have the lane: the next step of this one is to enter a slow routine."""
        lock = self._lock
        lock.acquire()
        try:
            if self.calls:
                self._post_locked()
            self._lanes.pool.slow().__enter__()
            self._entering = place, call_id
            self._holder = None
        finally:
            lock.release()

    def _is_entered(self) -> bool:
        """Whether the thread that passed the lane on is inside its routine. For who has the lane, or takes it."""
        if self._entering is not None and inside(*self._entering):
            self._entering = None
        return self._entering is None

    def _await_entry(self) -> None:
        """Wait until the thread that passed the lane on is inside its routine. For who has the lane."""
        pause = FIRST_LOOK
        while not self._is_entered():
            sleep(pause)
            pause = min(2 * pause, LAST_LOOK)

    def is_settled(self) -> bool:
        """Whether no thread is just on its way into a routine. Unguarded: for when no further ones set out."""
        holder, entering = self._holder, self._entering
        if holder is not None and ((call_id := holder.call_id) is None or not inside(holder, call_id)):
            return False
        return entering is None or inside(*entering)

    def waiting(self) -> Iterator[OpenCall]:
        """The calls among the batches that wait, while no thread runs any. (The others know it of themselves.)"""
        for work in self.calls.copy():
            if isinstance(work, Batch):
                yield from work.waiting()

    def _take(self, place: ServingSlot) -> int:
        """Take the lane, if it is free, for as many calls as are returned."""
        with self._lock:
            if self._holder is None and self.calls:
                self._holder = place
                return 1
            return 1 if self._holder is place and self.calls else 0

    def _give_back(self, place: ServingSlot) -> None:
        """Let go of the lane, if this thread has it; see to it that somebody takes what came meanwhile."""
        lock = self._lock
        lock.acquire()
        try:
            if self._holder is place:
                self._holder = None
                if self.calls:
                    self._post_locked()
        finally:
            lock.release()

    def _run(self) -> None:
        """Run the calls that wait. On a pool worker."""
        calls = self.calls
        posted = self._answers.posted
        flush = self._answers.channel.flush
        place = current.slot
        lock = self._lock
        lock.acquire()
        try:
            self._posted = False
            try:
                posted.remove(self)
            except ValueError:
                pass  # A runner posted this one.
            if self._holder is not None:
                return  # Whoever has the lane goes on with these calls, or has them posted again.
            self._holder = place
            left = len(calls)
        finally:
            lock.release()
        careful, self._careful = self._careful, False
        try:
            if self._entering is not None:
                self._await_entry()
            self._run_calls(left, place, careful)
            place.call = place.batch = place.handle = None
            # What runs next may answer in the same messages, unless one of its routines blocks.
            if posted:
                self._answers.channel.expect()
            else:
                flush()
        finally:
            self._give_back(place)

    def _run_calls(self, left: int, place: ServingSlot, careful: bool) -> None:
        calls = self.calls
        while left:
            work = calls[0]
            left -= 1
            try:
                if isinstance(work, OpenCall):
                    calls.popleft()
                    self._run_alone(work, place)
                elif (rest := place.context.run(self._run_rows, work, place, careful)) is not None:
                    left += self._go_on(work, rest, place, careful)
            except BaseException as error:  # No memory, for one: what a routine raises does not come here.
                self._abandon(work, place, error)
            if self._holder is not place:  # Passed on, or taken away.
                left = self._take(place)
                if left:
                    self._await_entry()

    def _abandon(self, work: Batch | OpenCall, place: ServingSlot, error: BaseException) -> None:
        """This side has failed at calls: what is open of them ends with `CallFailed`, and nothing of them is run."""
        answers = self._answers
        current_id, place.call_id = place.call_id, None
        if isinstance(work, OpenCall):
            peer, calls = work.peer, [work]
        else:
            peer, ids = work.peer, [] if current_id is None else [current_id]
            if self._holder is place:  # Otherwise the others are run by who has the lane.
                if self.calls and self.calls[0] is work:
                    self.calls.popleft()
                ids += work.group.ids if work.rows is None else [call_id for call_id, _ in work.rows]
                if work.rows is not None:
                    work.rows.clear()
            calls = [work.open(call_id) for call_id in ids]
        unanswered = False
        for call in calls:
            call.aborted = True  # Some may wait in the lane again by now.
            try:
                answers.reply_fault(call, Status.CALL_FAILED, None, f"the server failed at it: {type_name(error)}")
            except InvalidAsyncHandle:
                # It failed at the answer, unless the routine has answered by itself.
                unanswered = unanswered or (call.id == current_id and not call.entry.takes_handle)
        answers.fail_at(peer, error, current_id if unanswered else None)
        place.call = place.batch = None
        place.take_context()

    def _take_apart(self, batch: Batch) -> int:
        """Have the calls of a batch that cannot be decoded in one step wait one by one; return how many."""
        try:
            alone = batch.apart()
        except msgspec.MsgspecError as error:
            for call in batch.open_all():
                _refuse(self._answers, call, BadStubData(f"the arguments cannot be read: {error}"))
            return 0
        self.calls.extendleft(reversed(alone))
        return len(alone)

    def _go_on(self, batch: Batch, rest: Any, place: ServingSlot, careful: bool) -> int:
        """Go on with a batch for which the context of `place` will not do; `rest` is what `_run_rows` has returned.

        Returns: as how many calls of their own it goes on, if its arguments cannot be decoded in one step.
        """
        while rest is not None:
            if rest is _APART:
                place.take_context()
                self.calls.popleft()
                return self._take_apart(batch)
            if rest is not _USED:
                call, coroutine = rest
                self._answer(call, coroutine, place)
            place.call_id = None
            place.take_context()  # Nothing of a call outlives it.
            if not batch.rows or self._holder is not place:
                break
            rest = place.context.run(self._run_rows, batch, place, careful)
        return 0

    def _run_rows(self, batch: Batch, place: ServingSlot, careful: bool) -> Any:  # noqa: C901  # a hot path
        """Run calls of the lane's first batch, as long as this thread has the lane.

        They run in the context of `place`, one after the other, for as long as nothing is set in it.
        Returns: None if no more are to be run; `_APART`; `_USED` if the next needs another context; or a call and its
            coroutine, which is to be begun outside of the context, as it goes on in it.
        """
        # Flat, because this runs for every ordinary call.
        context = place.context
        if batch.rows is None and not batch.unpack():
            return _APART
        if context:  # What decoding has set is not for the routines.
            return _USED
        calls, answers, entry, rows, peer = self.calls, self._answers, batch.entry, batch.rows, batch.peer
        function, queue, take_out, outgoing = entry.function, peer.answers, peer.calls.pop, answers.outgoing
        assert rows is not None
        careful = careful or len(rows) < TIMED_TOGETHER or entry.mean > NOTABLE
        place.call = None
        place.batch = batch
        slow = entry.mean > SLOW
        number = 0
        left: Any = None
        now = perf_counter()
        while rows:
            call_id, args = rows.popleft()
            if not rows:
                calls.popleft()
            if batch.records and self._is_over(batch, call_id, place):
                continue
            place.call_id = call_id  # Once inside the routine, the lane may be taken away.
            if peer.parting:
                answers.give_up(batch.open(call_id))
                place.call_id = None
                if self._holder is not place:
                    break
                continue
            if slow:
                answers.channel.flush()
                self._pass_on(place, call_id)
            try:
                value = function(*args)
            except BaseException as error:
                # BaseException too: a routine that exits or is interrupted must not take a worker with it.
                _fail(answers, batch.open(call_id), error)
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
            if slow:
                answers.channel.flush()
            if context and left is None:
                left = _USED
            number += 1
            if careful or number == TIMED_TOGETHER or left is not None:
                # Where one call ends the next begins.
                then, now = now, perf_counter()
                took = (now - then) / number
                if took > NOTABLE or entry.mean or entry.overran:
                    self._learn(entry, took, number)
                    careful = careful or self._careful
                    slow = entry.mean > SLOW
                number = 0
                if left is not None:
                    return left
            place.call_id = None
            if self._holder is not place:
                break
        return None

    def _is_over(self, batch: Batch, call_id: int, place: ServingSlot) -> bool:
        """Whether a call of a batch in which some have handles need not be run; else it is the one served here."""
        place.call = call = batch.records.get(call_id)
        if call is None or not call.aborted:
            return False
        place.call_id = call_id
        _refuse(self._answers, call, CallCancelled("aborted before it was started"))
        place.call_id = None
        return True

    def _learn(self, entry: Entry, took: float, number: int = 1) -> None:
        """Take into account that so many calls took so many seconds each."""
        if took > NOTABLE:
            self._careful = True
        # A thread that gets no processor meanwhile is long about the quickest routine. That happens to the same one
        # seldom twice in a row.
        before, entry.overran = entry.overran, number == 1 and took > SLOW
        if number == 1 and (took > NOTABLE or entry.mean) and (before or not entry.overran):
            entry.mean += ((took if took < MOST else MOST) - entry.mean) * LEARNING

    def _run_alone(self, call: OpenCall, place: ServingSlot) -> None:
        """Run a call that has a handle from the beginning."""
        entry = call.entry
        flush = self._answers.channel.flush
        then = perf_counter()
        slow = entry.mean > SLOW
        if slow:
            flush()
        self._run_one(call, entry, slow, place)
        place.call_id = None
        if slow:
            flush()
        self._learn(entry, perf_counter() - then)

    def _run_one(self, call: OpenCall, entry: Entry, slow: bool, place: ServingSlot) -> None:  # noqa: C901  # a hot path
        answers = self._answers
        if call.peer.parting and answers.give_up(call):
            return
        if call.options is not None or call.aborted or entry.policy is not None:
            if call.aborted:
                _refuse(answers, call, CallCancelled("aborted before it was started"))
                return
            if call.deadline is not None and monotonic() >= call.deadline:
                # Told as what it is: its client may hear of it before its own clock tells it.
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
                text = f"the arguments of {entry.spec.name} cannot be read: {text_of(error)}{advice(call)}"
                _refuse(answers, call, BadStubData(text))
                return
        if place.context:
            place.take_context()
        place.call = call
        place.call_id = call.id  # As in `_run_rows`.
        call.begun = not entry.coroutine
        if call.peer.parting and answers.give_up(call):
            return
        if slow:
            self._pass_on(place, call.id)
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
            place.run(_fail, answers, call, error)
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
            self._lanes.start(call, value, place.take_context())
            return
        place.context.run(self._reply, call, value)  # Who called this looks what was set.

    def _reply(self, call: OpenCall, value: object) -> None:
        """Answer a call with what its routine returned, now."""
        try:
            self._answers.reply(call, value)
        except (InvalidArgumentType, InvalidAsyncHandle) as error:
            log_unanswered(call, value, error)


calls_routines(Lane._run_rows, Lane._run_one)  # type: ignore[arg-type]  # functions, seen from the class


def _decode_large(call: OpenCall, entry: Entry) -> Sequence[Any]:
    """Decode arguments of which some travelled out of band, or were left to the routine's defaults."""
    options = call.options
    return entry.decode_args(call.args, call.blobs or (), None if options is None else options.blobs)


def _refuse(answers: Answers, call: OpenCall, error: CallError) -> None:
    """Close a call that was not started."""
    try:
        answers.reply_fault(call, 0, error)
    except InvalidAsyncHandle:
        log.debug("%r was closed before it was started", call)


def _fail(answers: Answers, call: OpenCall, error: BaseException) -> None:
    """Close a call whose routine raised; if the routine had closed it before, only report what it raised."""
    try:
        answers.reply_fault(call, 0, error)
    except InvalidAsyncHandle:
        log.error("%r raised after it was closed", call, exc_info=error)
