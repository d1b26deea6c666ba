"""trio's run as the bridge to event loops sees it: so that a task of trio awaits what one of asyncio does.

Theory of operation. `aio.py` knows a loop by the few methods that it uses, and by the futures that it makes. `TrioLoop`
has them, on trio's low level: a future has the task that awaits it rescheduled, a descriptor is watched by a system
task. anyio needs nothing more, whichever of the two it runs on.

Imported when something is awaited where no loop of asyncio runs.

Source: "Low-level operations" of trio's reference.
"""

from collections.abc import Callable, Generator
from typing import Any

import trio


class TrioFuture:
    """What one task awaits, once. In trio's thread."""

    __slots__ = ("_done", "_task")

    def __init__(self) -> None:
        self._done = False
        # The task, while it waits.
        self._task: Any = None

    def done(self) -> bool:
        """Whether it was resolved."""
        return self._done

    def set_result(self, result: None) -> None:
        """Resolve it: the task goes on."""
        self._done = True
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def __iter__(self) -> Generator[Any, Any, None]:
        if self._done:
            yield from trio.lowlevel.checkpoint().__await__()
            return
        self._task = trio.lowlevel.current_task()
        yield from trio.lowlevel.wait_task_rescheduled(self._abort).__await__()

    __await__ = __iter__

    def _abort(self, raise_cancel: Any) -> Any:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class TrioLoop:
    """One `trio.run`. Used in its thread, except where said."""

    def __init__(self) -> None:
        self._token: Any = trio.lowlevel.current_trio_token()
        self._watches: dict[int, Any] = {}

    def create_future(self) -> TrioFuture:
        return TrioFuture()

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function soon. Any thread. Raises: `RuntimeError` after the end of the run."""
        self._token.run_sync_soon(function, *args)

    call_soon_threadsafe = call_soon

    def call_later(self, seconds: float, function: Callable[..., object]) -> None:
        """Call a function after so many seconds."""

        async def call() -> None:
            await trio.sleep(seconds)
            function()

        trio.lowlevel.spawn_system_task(call)

    def add_reader(self, fd: int, function: Callable[[], object]) -> None:
        """Call a function whenever the descriptor is readable."""
        scope = self._watches[fd] = trio.CancelScope()

        async def watch() -> None:
            with scope:
                while True:
                    await trio.lowlevel.wait_readable(fd)
                    function()

        trio.lowlevel.spawn_system_task(watch)

    def remove_reader(self, fd: int) -> None:
        """End `add_reader`."""
        self._watches.pop(fd).cancel()

    def is_closed(self) -> bool:
        """False: who asks is in its thread."""
        return False

    def get_debug(self) -> bool:
        """False: trio has no such mode."""
        return False


_loop: Any = trio.lowlevel.RunVar("engine.loop")


def running_trio() -> TrioLoop:
    """Return the run that this thread is in. Raises: `RuntimeError` if there is none."""
    found: TrioLoop | None = _loop.get(None)
    if found is None:
        found = TrioLoop()
        _loop.set(found)
    return found
