"""The event loop of a server's own: one thread, for the `async def` routines of a server that was given no loop.

Started by the first such routine. A routine that blocks it holds up the others.

Theory of operation. Routines are foreign code, and can stop the loop, or have `SystemExit` leave it: then it goes on. A
loop that fails before it has turned once is of no use any more: its calls end with `CallFailed`, and the next call gets
another one. If neither loop nor thread can be had, the call is refused with `ServerTooBusy`: it has not run.

    none --start--> running --stopped, SystemExit--> running     running --fails at once--> none     any --stop--> ended
"""

import asyncio
from contextlib import suppress

from transport.foreign import type_name
from transport.log import Log
from transport.realtime import monotonic
from transport.service import Service

from ...status import Status
from .coroutines import CoroutineRunner

log: Log = Log("engine.rpc")

ENDINGS = 3  # How often the end of the coroutines is tried, if they stop the loop. Arbitrary.


class OwnLoop(CoroutineRunner):
    """Runs coroutines in a loop that it makes, and ends. Threads: any."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._service = Service(f"engine:{name}-loop", self._run, log.failed, more=self._wanted)

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
                then = "goes on" if turned else "is replaced by another one"
                log.error("%s: %s left the event loop, which %s", self._name, type_name(error), then, exc_info=error)
                if not turned:
                    self._end(loop, Status.CALL_FAILED, "the server's event loop failed")
                    return
        try:
            self._end_tasks(loop)
        finally:
            self._end(loop, Status.CALL_CANCELLED, "the server was closed")

    def _end_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel what still runs, and wait until it has ended. Routines may stop the loop meanwhile."""
        for _ in range(ENDINGS):
            try:
                with suppress(NotImplementedError):  # Not every loop has one.
                    loop.set_task_factory(None)  # A routine's may give no tasks.
                # Every task has begun then: one that is cancelled before would never await its coroutine.
                loop.run_until_complete(asyncio.sleep(0))
                tasks = [task for task, _ in self._tasks.values()]
                for task in tasks:
                    task.cancel()
                if tasks:
                    loop.run_until_complete(asyncio.wait(tasks))
                loop.run_until_complete(loop.shutdown_asyncgens())
                return
            except BaseException as error:
                log.debug("%s: %s broke in on the end of its coroutines", self._name, type_name(error))

    def _end(self, loop: asyncio.AbstractEventLoop, status: int, text: str) -> None:
        """The loop is used no longer: close it, and the calls that it has not ended."""
        with self._lock:
            self._loop = None
        self._tasks.clear()
        try:
            loop.close()
        except BaseException as error:
            log.debug("%s: %s broke in on the end of its event loop", self._name, type_name(error))
        self._give_up(status, text)

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
