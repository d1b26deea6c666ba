"""The event loop in which a server runs its `async def` routines.

One loop on one thread, started by the first such routine. A routine that blocks it holds up the others.

Theory of operation. Routines are foreign code, and can stop the loop, or have `SystemExit` leave it: then it goes on. A
loop that fails before it has turned once is of no use any more: its calls end with `CallFailed`, and the next call gets
another one. If neither loop nor thread can be had, the call is refused with `ServerTooBusy`: it has not run.

    none --start--> running --stopped, SystemExit--> running     running --fails at once--> none     any --stop--> ended
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import Context
from inspect import CORO_CREATED, getcoroutinestate
from typing import Any

from transport.foreign import is_interrupt, text_of, type_name
from transport.log import Log
from transport.realtime import monotonic
from transport.service import Service

from ...errors import InvalidArgumentType, InvalidAsyncHandle
from ...kernel.lock import Lock
from ...status import Status
from ..serving import task_call
from .call import handle_of, log_unanswered
from .open_call import OpenCall
from .routines import UNANSWERED

log: Log = Log("engine.rpc")

TOGETHER = 64  # Routines that are begun in one turn of the loop; arbitrary.
ENDINGS = 3  # How often the end of the coroutines is tried, if they stop the loop. Arbitrary.


def _close_unbegun(coroutine: Coroutine[Any, Any, Any]) -> None:
    if getcoroutinestate(coroutine) == CORO_CREATED:
        coroutine.close()


class CoroutineRunner:
    """Runs coroutines that answer calls. Threads: any."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = Lock()
        self._service = Service(f"engine:{name}-loop", self._run, log.failed, more=self._wanted)
        # Guarded by _lock; read by the loop's thread.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False
        # The coroutines that have not ended, with their calls: put in under _lock, taken out by single operations.
        self._open: dict[Coroutine[Any, Any, Any], OpenCall] = {}
        # The calls that are to be begun there: put in under _lock, taken out by single operations.
        self._handed: deque[OpenCall] = deque()
        # In the loop's thread only. Keeps tasks alive: a loop refers to them weakly.
        self._tasks: set[asyncio.Task[None]] = set()

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
                    loop.call_soon_threadsafe(self._begin, loop, coroutine, context)
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

    def _loop_locked(self) -> asyncio.AbstractEventLoop:
        """Return the loop, which runs; raises anything if that cannot be."""
        loop = self._loop
        if loop is None:
            loop = asyncio.new_event_loop()
            if not isinstance(loop, asyncio.AbstractEventLoop):
                raise TypeError(f"asyncio.new_event_loop() gave a {type_name(loop)}")
            self._loop = loop
            with suppress(AttributeError):  # A loop in C has a clock of its own.
                loop.time = monotonic  # type: ignore[method-assign]  # its own can be frozen
        if not self._service.ensure():
            raise RuntimeError(str(self._service))
        return loop

    def _begin(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], context: Context) -> None:
        call = self._open[coroutine]
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
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        except BaseException as error:
            self._open.pop(coroutine, None)
            _close_unbegun(serving)
            _close_unbegun(coroutine)
            text = f"no task can be had for the routine: {type_name(error)}: {text_of(error)}"
            self._fail(call, Status.CALL_FAILED, text)
            raise

    def _wanted(self) -> bool:
        with self._lock:
            return self._loop is not None and not self._stopped

    def _run(self) -> None:
        loop = self._loop
        if loop is None:
            return
        try:
            asyncio.set_event_loop(loop)
        except BaseException as error:  # Routines find the loop that runs without it.
            log.error("%s: the event loop could not be set: %s", self._name, type_name(error), exc_info=error)
        while not self._stopped:
            turned: list[bool] = []
            try:
                loop.call_soon(turned.append, True)
                loop.run_forever()
                if not self._stopped:
                    log.warning("%s: a routine has stopped the event loop, which goes on", self._name)
            except BaseException as error:
                told = "goes on" if turned else "is replaced by another one"
                log.error("%s: %s left the event loop, which %s", self._name, type_name(error), told, exc_info=error)
                if not turned:
                    self._give_up(loop, Status.CALL_FAILED, "the server's event loop failed")
                    return
        try:
            self._end_tasks(loop)
        finally:
            self._give_up(loop, Status.CALL_CANCELLED, "the server was closed")

    def _end_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel what still runs, and wait until it has ended. Routines may stop the loop meanwhile."""
        for _ in range(ENDINGS):
            try:
                with suppress(NotImplementedError):  # Not every loop has one.
                    loop.set_task_factory(None)  # A routine's may give no tasks.
                # Every task has begun then: one that is cancelled before would never await its coroutine.
                loop.run_until_complete(asyncio.sleep(0))
                for task in self._tasks:
                    task.cancel()
                if self._tasks:
                    loop.run_until_complete(asyncio.wait(self._tasks))
                loop.run_until_complete(loop.shutdown_asyncgens())
                return
            except BaseException as error:
                log.debug("%s: %s broke in on the end of its coroutines", self._name, type_name(error))

    def _give_up(self, loop: asyncio.AbstractEventLoop, status: int, text: str) -> None:
        """The loop is used no longer: close it, and the calls that it has not ended."""
        with self._lock:
            self._loop = None
            left = self._open.copy()
            self._open.clear()
            handed = list(self._handed)
            self._handed.clear()
        self._tasks.clear()
        try:
            loop.close()
        except BaseException as error:
            log.debug("%s: %s broke in on the end of its event loop", self._name, type_name(error))
        for coroutine, call in left.items():
            _close_unbegun(coroutine)
            self._fail(call, status, text)
        for call in handed:
            self._fail(call, status, text)

    async def _serve(self, call: OpenCall, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            value = await coroutine
        except asyncio.CancelledError:
            self._fail(call, Status.CALL_CANCELLED, "the routine was cancelled")
            raise
        except BaseException as error:
            if coroutine not in self._open:
                raise  # The loop was given up, which has ended the call.
            self._fail(call, 0, "", error)
        else:
            if not (call.entry.takes_handle or value is UNANSWERED):
                try:
                    call.answers.answer(call, value)
                except (InvalidAsyncHandle, InvalidArgumentType) as error:
                    log_unanswered(call, value, error)
        finally:
            self._open.pop(coroutine, None)

    def _fail(self, call: OpenCall, status: int, text: str, error: BaseException | None = None) -> None:
        try:
            call.answers.answer_fault(call, status, text, error)
        except InvalidAsyncHandle as closed:
            log.error("%r: %s", call, closed)

    def stop(self, timeout: float) -> None:
        """Cancel what still runs and end the thread, within `timeout` seconds."""
        with self._lock:
            self._stopped = True
            loop = self._loop
            runs = self._service.running
        if loop is None:
            return
        if not runs:
            loop.close()  # Again, if that is broken off: it does nothing then.
            return
        with suppress(RuntimeError):  # It was closed just now.
            loop.call_soon_threadsafe(loop.stop)
        if not self._service.join(timeout):
            log.warning("%s: a coroutine did not end within %s s of its cancellation", self._name, timeout)
