"""Running `async def` routines as tasks of an event loop: the server's own (`own_loop.py`) or one of the program's.

Theory of operation. A call is handed to the loop, which decodes its arguments and makes a task of its routine. The
routine's end answers the call. An abort, the end of the client, and that of the time which it gave cancel the task,
once; one that takes no notice goes on, and its answer goes nowhere. A plain cancel only shows in `test_cancel`.

    canceller: note it in the call, look whether the loop has it   |  one of the two sees the other: the task is
    loop:      note that it has the call, look whether to go on    |  cancelled, or not begun

A task that was cancelled before its first step would never run its coroutine, nor close the call: so the interrupt of a
call waits for that step, and what becomes of a task in any other way is seen to as it ends.

Assumes: stores and loads of attributes are atomic and not reordered.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import Context
from functools import partial
from inspect import CORO_CREATED, getcoroutinestate
from typing import Any

from transport.foreign import is_interrupt, text_of, type_name
from transport.log import Log
from transport.realtime import monotonic

from ...errors import CallError, InvalidArgumentType, InvalidAsyncHandle
from ...kernel.lock import Lock
from ...status import Status
from ..errors import CallCancelled, CallTimeout
from ..serving import task_call
from .call import handle_of, log_unanswered
from .open_call import OpenCall
from .routines import UNANSWERED

log: Log = Log("engine.rpc")

TOGETHER = 64  # Routines that are begun in one turn of the loop; arbitrary.


def _close_unbegun(coroutine: Coroutine[Any, Any, Any]) -> None:
    if getcoroutinestate(coroutine) == CORO_CREATED:
        coroutine.close()


def name_task(task: "asyncio.Task[None]", call: OpenCall) -> None:
    """Name a task after its call, as debuggers show it; a factory's own kind of task may have no name."""
    spec = call.entry.spec
    with suppress(AttributeError):
        task.set_name(f"{spec.target.interface}.{spec.name}-{call.id}")


class CoroutineRunner:
    """Runs coroutines that answer calls. Threads: any. Which loop they run in, its subclasses say."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = Lock()
        # Guarded by _lock; read by the loop's thread, and by who cancels a task.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False
        # The coroutines that have not ended, with their calls: put in under _lock, taken out by single operations.
        self._open: dict[Coroutine[Any, Any, Any], OpenCall] = {}
        # The calls that are to be begun there: put in under _lock, taken out by single operations.
        self._handed: deque[OpenCall] = deque()
        # In the loop's thread only. The tasks, which a loop refers to weakly, each with what it steps; None: cancelled.
        self._tasks: dict[OpenCall, tuple[asyncio.Task[None], Coroutine[Any, Any, None] | None]] = {}

    def _loop_locked(self) -> asyncio.AbstractEventLoop:
        """Return the loop that runs the coroutines; raises anything if that cannot be."""
        raise NotImplementedError  # Abstract: whose loop it is.

    def _context(self, call: OpenCall, own: Context) -> Context:
        """Return the context that a routine is to run in, given what preparing its call has set in an empty one."""
        return own

    def stop(self, timeout: float) -> None:
        """Cancel what still runs, and see it ended within `timeout` seconds."""
        raise NotImplementedError  # Abstract: who ends the loop.

    def start(self, call: OpenCall, coroutine: Coroutine[Any, Any, Any], context: Context) -> None:
        """Run `coroutine` in `context`; its outcome closes `call`. Once stopped, close `call` without running it."""
        context.run(task_call.set, (call, handle_of(call)))
        status, text = Status.CALL_CANCELLED, "the server was closed"
        interrupt: BaseException | None = None
        with self._lock:
            loop = None
            if not self._stopped:
                try:
                    loop = self._loop_locked()
                    self._open[coroutine] = call
                    call.runner = self
                    loop.call_soon_threadsafe(self._begin, loop, coroutine, self._context(call, context))
                except BaseException as error:  # What makes loops may be the program's own, and raise anything.
                    self._open.pop(coroutine, None)
                    loop, status, text = None, Status.SERVER_TOO_BUSY, f"no event loop can be had now: {text_of(error)}"
                    interrupt = error if is_interrupt(error) else None
        if loop is None:
            coroutine.close()
            self._fail(call, status, text)
        if interrupt is not None:
            raise interrupt

    def hand_over(self, call: OpenCall) -> None:
        """Have the loop's thread begin `call`, whose routine is an `async def`, after those handed over before."""
        status, text = Status.CALL_CANCELLED, "the server was closed"
        interrupt: BaseException | None = None
        with self._lock:
            if not self._stopped:
                try:
                    loop = self._loop_locked()
                    self._handed.append(call)
                    loop.call_soon_threadsafe(self._begin_handed, loop)
                    return
                except BaseException as error:  # What makes loops may be the program's own, and raise anything.
                    with suppress(ValueError):
                        self._handed.remove(call)
                    status, text = Status.SERVER_TOO_BUSY, f"no event loop can be had now: {text_of(error)}"
                    interrupt = error if is_interrupt(error) else None
        self._fail(call, status, text)
        if interrupt is not None:
            raise interrupt

    def interrupt(self, call: OpenCall, why: str) -> None:
        """Cancel the task of a call, if it runs; `why` is what its `CancelledError` says. Any thread; never blocks."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # The loop is closed: its tasks have ended.
                loop.call_soon_threadsafe(self._interrupt, call, why)

    # In the loop's thread

    def _begin_handed(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin what was handed over, some at a time, so that what runs in the loop goes on meanwhile."""
        handed = self._handed
        for _ in range(TOGETHER):
            if not handed:
                return
            call = handed.popleft()
            turns: Any = call.peer.turns
            turns.begin_in_loop(call)
        loop.call_soon(self._begin_handed, loop)

    def _begin(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], context: Context) -> None:
        call = self._open.get(coroutine)
        if call is None:
            return  # It was given up.
        if not call.begun:
            call.begun = True  # Set first, looked second; see `runner.py`.
            if call.peer.parting and call.answers.give_up(call):
                self._open.pop(coroutine, None)
                coroutine.close()
                call.answers.channel.flush()
                return
        serving = self._serve(call, coroutine)
        try:
            task = loop.create_task(serving, context=context)
            if not asyncio.isfuture(task):
                raise TypeError(f"the event loop's task factory gave a {type_name(task)}, and no task")
            self._tasks[call] = task, serving
            task.add_done_callback(partial(self._ended, call, coroutine))
            name_task(task, call)
        except BaseException as error:
            self._open.pop(coroutine, None)
            _close_unbegun(serving)
            _close_unbegun(coroutine)
            text = f"no task can be had for the routine: {type_name(error)}: {text_of(error)}"
            self._fail(call, Status.CALL_FAILED, text)
            raise
        if call.aborted or call.peer.lost:  # What came before this had nothing to cancel.
            self._interrupt(call, "its call was aborted, or its client is gone")
        elif call.deadline is not None:
            left = max(0.0, call.deadline - monotonic())
            timer = loop.call_later(left, self._interrupt, call, "the time of its call is up")
            task.add_done_callback(lambda _: timer.cancel())

    def _interrupt(self, call: OpenCall, why: str) -> None:
        task, serving = self._tasks.get(call, (None, None))
        options = call.options
        if task is None or serving is None or not call.is_open() or (options is not None and options.one_way):
            return  # It has not begun, and will see; or was cancelled, or answered; or its client waits for nothing.
        if getcoroutinestate(serving) == CORO_CREATED:
            task.get_loop().call_soon(self._interrupt, call, why)
            return
        self._tasks[call] = task, None
        task.cancel(why)

    async def _serve(self, call: OpenCall, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            value = await coroutine
        except asyncio.CancelledError:
            self._fail_cancelled(call)
            raise
        except BaseException as error:
            if coroutine not in self._open:
                raise  # The loop was given up, which has ended the call.
            self._fail(call, 0, "", error)
            if is_interrupt(error):  # In a loop of the main thread: it is for the program.
                raise
        else:
            if not (call.entry.takes_handle or value is UNANSWERED):
                try:
                    call.answers.reply(call, value)
                except (InvalidAsyncHandle, InvalidArgumentType) as error:
                    log_unanswered(call, value, error)
                except MemoryError as error:
                    call.answers.abandon(call, error)
                finally:
                    call.answers.channel.flush()
        finally:
            self._open.pop(coroutine, None)

    def _ended(self, call: OpenCall, coroutine: Coroutine[Any, Any, Any], task: "asyncio.Task[None]") -> None:
        """A task is over. One that was cancelled before its first step, as its loop ended, has closed nothing."""
        self._tasks.pop(call, None)
        if self._open.pop(coroutine, None) is not None:
            _close_unbegun(coroutine)
            self._fail_cancelled(call)

    def _fail_cancelled(self, call: OpenCall) -> None:
        """Close a call whose task was cancelled, unless its routine has closed it."""
        error: CallError = CallCancelled("the routine was cancelled")
        if call.deadline is not None and call.deadline <= monotonic():
            error = CallTimeout("the call's time ran out while its routine ran")
        if call.is_open():
            self._fail(call, 0, "", error)

    def _fail(self, call: OpenCall, status: int, text: str, error: BaseException | None = None) -> None:
        try:
            call.answers.answer_fault(call, status, text, error)
        except InvalidAsyncHandle as closed:
            log.error("%s", closed)  # It names the call.

    def _give_up(self, status: int, text: str) -> None:
        """The loop is used no longer: close the calls that it has not ended."""
        with self._lock:
            left = self._open.copy()
            self._open.clear()
            handed = list(self._handed)
            self._handed.clear()
        for coroutine, call in left.items():
            _close_unbegun(coroutine)
            if call.is_open():
                self._fail(call, status, text)
        for call in handed:
            self._fail(call, status, text)
