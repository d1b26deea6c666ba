"""The program's own event loop, in which a server runs its `async def` routines beside the program's tasks.

Theory of operation. The loop is the program's: it is neither started, stopped nor closed here, and its task factory,
its debug mode and its exception handler are in force. Tasks begin in the context that the server was given the loop
in, with what its calls add: each in a copy, as `asyncio.create_task` has it. While the loop does not run, calls wait; a
loop that was closed refuses them with `ServerTooBusy`. A server that closes cancels the tasks that are left, and waits
for their ends, unless the thread that closes it is the one that runs the loop.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import cast

from transport.log import Log

from ...kernel.event import Event
from ...kernel.loops import EventLoop, running_loop
from ...status import Status
from .coroutines import CoroutineRunner
from .open_call import OpenCall

log: Log = Log("engine.rpc")


class GivenLoop(CoroutineRunner):
    """Runs coroutines in a loop of the program's. Threads: any.

    Args: `loop` runs in whichever thread the program runs it, now or later.
    """

    def __init__(self, name: str, loop: EventLoop, context: Context) -> None:
        super().__init__(name)
        self._loop = cast(asyncio.AbstractEventLoop, loop)
        self._base = context

    def _loop_locked(self) -> asyncio.AbstractEventLoop:
        assert self._loop is not None, "it was given one"
        return self._loop

    def _context(self, call: OpenCall, own: Context) -> Context:
        context = self._base.copy()
        for variable, value in own.items():
            context.run(variable.set, value)
        return context

    def stop(self, timeout: float) -> None:
        """Cancel what still runs, and wait up to `timeout` seconds for its end, unless this thread runs the loop."""
        loop = self._loop_locked()
        with self._lock:
            self._stopped = True
        try:
            if running_loop() is loop:
                self._cancel_all()
            elif loop.is_running():
                with Event() as ended:
                    loop.call_soon_threadsafe(self._end, loop, ended.set)
                    if not ended.wait(timeout):
                        log.warning("%s: a coroutine did not end within %s s of its cancellation", self._name, timeout)
        except RuntimeError:
            pass  # The loop was closed just now, and its tasks have ended with it.
        self._give_up(Status.CALL_CANCELLED, "the server was closed")

    def _cancel_all(self) -> list["asyncio.Task[None]"]:
        tasks = [task for task, _ in self._tasks.values()]
        for task in tasks:
            task.cancel("the server was closed")
        return tasks

    def _end(self, loop: asyncio.AbstractEventLoop, ended: Callable[[], object]) -> None:
        left = set(self._cancel_all())

        def over(task: "asyncio.Task[None]") -> None:
            left.discard(task)
            if not left:
                with suppress(Exception):  # Nobody waits any more.
                    ended()

        if not left:
            ended()
        for task in tuple(left):
            task.add_done_callback(over)
