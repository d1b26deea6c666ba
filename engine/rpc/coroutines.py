"""The event loop in which a server runs its `async def` routines.

One loop on one thread, started by the first such routine. A routine that blocks it holds up the others; blocking work
belongs into ordinary routines, which run on the pool.
"""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any

from transport.log import Log
from transport.realtime import monotonic

from ..kernel.errors import InvalidArgumentType, InvalidAsyncHandle
from ..kernel.lock import Lock
from ..kernel.status import Status
from .server_call import ServerCall, task_call

if TYPE_CHECKING:
    from .listener import Listener

log = Log("engine.rpc")


class CoroutineRunner:
    """Runs coroutines that answer calls. Threads: any."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = Lock()
        # Guarded by _lock.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False
        # In the loop's thread only. Keeps tasks alive: a loop refers to them weakly.
        self._tasks: set[asyncio.Task[None]] = set()

    def start(
        self, listener: "Listener", call: ServerCall, coroutine: Coroutine[Any, Any, Any], context: Context
    ) -> None:
        """Run `coroutine` in `context`; what it returns or raises closes `call`. Once stopped, close the call without
        running it.
        """
        context.run(task_call.set, call)

        def begin() -> None:
            if not call._begun:
                call._begun = True  # Set first, looked second; see `lane.py`.
                if call._peer.parting and listener.give_up(call):
                    coroutine.close()
                    listener.channel.flush()
                    return
            task = loop.create_task(self._serve(listener, call, coroutine), context=context)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        with self._lock:
            stopped = self._stopped
            if not stopped:
                loop = self._loop or self._start_locked()
                loop.call_soon_threadsafe(begin)
        if stopped:
            coroutine.close()
            self._close(call, lambda: listener.answer_fault(call, Status.CALL_CANCELLED, "the server was closed"))

    def _start_locked(self) -> asyncio.AbstractEventLoop:
        self._loop = loop = asyncio.new_event_loop()
        with suppress(AttributeError):  # A loop in C has a clock of its own.
            loop.time = monotonic  # type: ignore[method-assign]  # its own can be frozen
        self._thread = threading.Thread(target=self._run, args=(loop,), name=f"engine:{self._name}-loop", daemon=True)
        self._thread.start()
        return loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            # Every task has begun then: one that is cancelled before would never await its coroutine.
            loop.run_until_complete(asyncio.sleep(0))
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                loop.run_until_complete(asyncio.wait(self._tasks))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    async def _serve(self, listener: "Listener", call: ServerCall, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            value = await coroutine
        except asyncio.CancelledError:
            self._close(call, lambda: listener.answer_fault(call, Status.CALL_CANCELLED, "the routine was cancelled"))
            raise
        except BaseException as error:
            failure = error
            self._close(call, lambda: listener.answer_error(call, failure))
        else:
            if not call._entry.takes_handle:
                self._close(call, lambda: listener.answer(call, value))

    def _close(self, call: ServerCall, answer: Any) -> None:
        try:
            answer()
        except (InvalidAsyncHandle, InvalidArgumentType) as error:
            log.error("%r: %s", call, error)

    def stop(self, timeout: float) -> None:
        """Cancel what still runs and end the thread, within `timeout` seconds."""
        with self._lock:
            self._stopped = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout)
        if thread.is_alive():
            log.warning("%s: a coroutine did not end within %s s of its cancellation", self._name, timeout)
