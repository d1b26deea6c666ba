"""A batch: the calls of one message, run by the pool's workers.

Theory of operation. A batch is posted to the pool once, and its runner takes the calls in the order in which they
arrived. Quick routines run one after the other on that one thread, and their answers share messages. A routine whose
measured mean is above `SLOW` (or that is seen to overrun) is another matter: before it starts, what is left of the
batch is posted for another worker, and the thread gives up its slot and the leadership, so that slow calls run side by
side on as many workers as the pool has.

    runner takes a call
      quick -> run it, learn, next
      slow  -> post the rest, give the slot back, run it, send its answer, next
    monitor sees no call taken for a tick, some left -> post the rest, send what was answered

Guarantees: a call is taken once (a deque's `popleft` is atomic), in the order of arrival; no call that arrived waits
behind a slow one while a worker is free.
"""

import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic, perf_counter
from types import CoroutineType
from typing import TYPE_CHECKING, Any

import msgspec

from ..kernel.driver import driver
from ..kernel.errors import InvalidArgumentType, InvalidAsyncHandle
from ..kernel.status import Status
from .registry import Entry
from .server_call import ServerCall, current

if TYPE_CHECKING:
    from ..pool.pool import ThreadPool
    from .listener import Listener

log = logging.getLogger("engine.rpc")

SLOW = 200e-6  # Seconds. A hand-over between threads costs ~30 us on each side; below a few of them it does not pay.
LEARNING = 0.1  # Weight of the newest run in the running mean: about ten runs to change one's mind.


class Batch:
    """Calls that arrived together."""

    __slots__ = ("_calls", "_listener", "_pool", "_posted", "_seen")

    def __init__(self, listener: "Listener", pool: "ThreadPool", calls: deque[ServerCall]) -> None:
        self._listener = listener
        self._pool = pool
        # Shared by all runners of this batch; single atomic operations only.
        self._calls = calls
        # A runner was posted and has not begun. A hint: a lost update posts one runner too many, which finds nothing.
        self._posted = False
        # How many calls were left at the monitor's last tick. Monitor only.
        self._seen = -1

    def post(self) -> None:
        """Hand the batch to the pool."""
        self._listener.batches.append(self)
        self._post_runner()
        if len(self._calls) > 1:
            driver().monitor.watch(self)

    def tick(self) -> bool:
        """The monitor's tick: if nothing was taken since the last one, the runner is away, and the others must not
        wait.
        """
        left = len(self._calls)
        if not left:
            return False
        if left == self._seen:
            self._post_runner()
        self._seen = left
        self._listener.channel.flush()
        return True

    def _post_runner(self) -> None:
        if not self._posted:
            self._posted = True
            self._pool.post(self._run)

    def _run(self) -> None:
        """Run calls until none is left. On a pool worker."""
        self._posted = False
        calls = self._calls
        batches = self._listener.batches
        flush = self._listener.channel.flush
        with suppress(ValueError):
            batches.remove(self)  # Only its first runner finds it there.
        now = perf_counter()
        while calls:
            try:
                slow = calls[0]._entry.mean > SLOW
                if not slow:
                    call = calls.popleft()
            except IndexError:
                break  # Another runner took the last one between two looks.
            if slow:
                # All that may let another runner go first comes before a call is taken, because calls are entered in
                # the order in which they are taken.
                if len(calls) > 1:
                    self._post_runner()
                flush()
                with self._pool.slow():
                    taken = _take(calls)
                    if taken is None:
                        break
                    call = taken
                    self._run_one(call, call._entry)
                flush()
            else:
                self._run_one(call, call._entry)
            entry = call._entry
            # One look at the clock a call: where one ends the next begins.
            then, now = now, perf_counter()
            took = now - then
            if took > SLOW / 10 or entry.mean:
                entry.mean += (took - entry.mean) * LEARNING
        current.set(None)
        # What the next batch answers may share a message with this one's answers.
        if not batches:
            flush()

    def _run_one(self, call: ServerCall, entry: Entry) -> None:
        listener = self._listener
        if call._cancelled or (call._deadline is not None and monotonic() >= call._deadline):
            why = "cancelled" if call._cancelled else "its time ran out"
            _refuse(listener, call, Status.CALL_CANCELLED, f"{why} before it was started")
            return
        if entry.gate is not None and (refusal := entry.gate.examine(call)) is not None:
            _refuse(listener, call, Status.ACCESS_DENIED, refusal)
            return
        try:
            args = entry.decode_plain(call._args) if call._blobs is None else _decode_large(call, entry)
        except msgspec.MsgspecError:
            try:
                args = _decode_large(call, entry)
            except msgspec.MsgspecError as error:
                text = f"the arguments of {entry.spec.name} cannot be read: {error}"
                _refuse(listener, call, Status.BAD_STUB_DATA, text)
                return
        current.set(call)
        try:
            value = entry.function(call, *args) if entry.takes_handle else entry.function(*args)
        except BaseException as error:
            # BaseException too: a routine that exits or is interrupted must not take a worker with it.
            _fail(listener, call, error)
            return
        if type(value) is CoroutineType:
            listener.start(call, value)
        elif not entry.takes_handle:
            try:
                listener.reply(call, value)
            except (InvalidArgumentType, InvalidAsyncHandle) as error:
                log.error("%r: %s", call, error)


def _take(calls: deque[ServerCall]) -> ServerCall | None:
    try:
        return calls.popleft()
    except IndexError:
        return None


def _decode_large(call: ServerCall, entry: Entry) -> Sequence[Any]:
    """Decode arguments of which some travelled out of band, or were left to the routine's defaults."""
    options = call._options
    return entry.decode_args(call._args, call._blobs or (), None if options is None else options.blobs)


def _refuse(listener: "Listener", call: ServerCall, status: int, text: str) -> None:
    """Close a call that was not started."""
    try:
        listener.reply_fault(call, status, None, text)
    except InvalidAsyncHandle:
        log.debug("%r was closed before it was started", call)


def _fail(listener: "Listener", call: ServerCall, error: BaseException) -> None:
    """Close a call whose routine raised; if the routine had closed it before, only report what it raised."""
    try:
        listener.reply_fault(call, 0, error)
    except InvalidAsyncHandle:
        log.error("%r raised after it was closed", call, exc_info=error)
