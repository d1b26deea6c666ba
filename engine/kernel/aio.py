"""The bridge to event loops, asyncio's and trio's: a task awaits what any thread completes, and the loop drives the
sockets meanwhile.

Theory of operation. While a loop awaits something of the engine it watches the driver's descriptor, as it
watches its own sockets, and harvests on its own thread what arrives: a reply that a task awaits needs no
other thread. `Completion` is the one thing tasks await; completing it from the loop's thread resolves it in
place, from another thread it joins a batch that costs the loop one wake-up. A loop that cannot watch a
descriptor (the proactor of Windows) leaves the driving to the monitor.

Guarantees: a completion is resolved once, on its loop; the descriptor is watched only while something is
awaited.

Assumes: `deque.append` and `popleft` are atomic, and are not reordered against a lock operation.
"""

import threading
import weakref
from _thread import get_ident
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from sys import modules
from typing import TYPE_CHECKING, Any

from .driver import Driver, driver

if TYPE_CHECKING:
    import asyncio  # Takes longer to import than the whole engine; who runs a loop has it.


class LoopBridge:
    """What the engine keeps for one running event loop. Used on the loop's thread, except where said."""

    def __init__(self, loop: "asyncio.AbstractEventLoop") -> None:
        # The bridge is found through its loop, and must not keep it alive.
        self.of: weakref.ref[asyncio.AbstractEventLoop] = weakref.ref(loop)
        self.ident: int = get_ident()
        self._awaited = 0
        self._driver: Driver | None = None
        self._fd = -1
        # Any thread appends; the loop's thread takes. Futures that wait to be resolved.
        self._completed: deque[asyncio.Future[None]] = deque()
        # True from when a wake-up of the loop was arranged until it looks. A lost update costs one more
        # wake-up.
        self._called = False
        # Whether `_leave`, or `_turn`, is among what the loop will call next. Loop's thread only.
        self._leaving = False
        self.turning: bool = False
        # Whether `_stand_in_again` is among what the loop will call.
        self._late = False

    def hold(self) -> None:
        """Something more is awaited."""
        self._awaited += 1
        if self._driver is None:
            self._driver = driver()
            self._fd = self._driver.watch(self._call)
            if self._driver.monitor.late:
                self._call()
            if self._fd >= 0:
                try:
                    self.loop().add_reader(self._fd, self._harvest)
                    return
                except NotImplementedError:  # The loop cannot watch a descriptor: see Theory of operation.
                    self._driver.unwatch(self._call)
                    self._fd = -1
            self._driver.needs_progress(self, True)

    def release(self) -> None:
        """Something is awaited no longer."""
        self._awaited -= 1
        if self._awaited == 0 and not self._leaving:
            # A task that awaits one thing after another would begin and end the watch each time.
            try:
                self.loop().call_soon(self._leave)
                self._leaving = True
            except RuntimeError:
                self._leave()  # The loop is closed.

    def turn_soon(self) -> None:
        """Drive what is due as soon as the tasks that are ready now have run: they may have more to send."""
        if not self.turning:
            self.turning = True
            self.loop().call_soon(self._turn)

    def _turn(self) -> None:
        self.turning = False
        if driver().run_ready():
            self.turn_soon()

    def _leave(self) -> None:
        self._leaving = False
        if self._awaited == 0 and self._driver is not None:
            if self._fd >= 0:
                loop = self.of()
                if loop is not None and not loop.is_closed():
                    loop.remove_reader(self._fd)
                self._driver.unwatch(self._call)
            else:
                self._driver.needs_progress(self, False)
            self._driver = None

    def complete_soon(self, future: "asyncio.Future[None]") -> None:
        """Resolve `future` on the loop's thread. Any thread."""
        self._completed.append(future)
        if not self._called:
            self._called = True
            self._call()

    def descriptors(self) -> Sequence[int]:
        """None: where the bridge is a source that needs progress, it is there only to say that progress is needed."""
        return ()

    def drive(self, readable: bool) -> bool:
        """Nothing to do."""
        return False

    def loop(self) -> "asyncio.AbstractEventLoop":
        """The loop, which is running."""
        loop = self.of()
        assert loop is not None, "a loop that runs is alive"
        return loop

    def _call(self) -> None:
        """Have the loop look around. Any thread."""
        loop = self.of()
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self._look)
                return
        except RuntimeError:
            pass  # The loop was closed, so no thread awaits any more.
        driver().unwatch(self._call)

    def _look(self) -> None:
        self._called = False
        completed = self._completed
        while completed:
            _resolve(completed.popleft())
        if self._driver is not None and self._fd >= 0:
            self._harvest()
            if self._driver.monitor.late:
                self._stand_in()

    def _stand_in(self) -> None:
        """There is no monitor: do its work on this loop, for as long as something is awaited."""
        if self._driver is not None and self._driver.monitor.late and not self._late:
            self._late = True
            self.loop().call_later(self._driver.monitor.stand_in(), self._stand_in_again)

    def _stand_in_again(self) -> None:
        self._late = False
        self._stand_in()

    def _harvest(self) -> None:
        # More than one round at a time would keep the loop's other work waiting.
        if self._driver is not None and self._driver.run_ready():
            self.loop().call_soon(self._harvest)


class _Latest(threading.local):
    """The bridge that the thread used last: it mostly runs one loop."""

    bridge: LoopBridge | None = None


_latest = _Latest()

# Tasks of `start_task`: an event loop refers to its tasks weakly. Single atomic operations only.
_tasks: set[Any] = set()

# Guarded by being used for a loop by that loop's thread only.
_bridges: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopBridge]" = weakref.WeakKeyDictionary()


def _running_loop() -> "asyncio.AbstractEventLoop":
    """Return the running event loop. The first call puts `asyncio.get_running_loop` in the place of this function."""
    global _running_loop
    from asyncio import get_running_loop as _running_loop

    return _running_loop()


def _other_loop(error: RuntimeError) -> "asyncio.AbstractEventLoop":
    """Return the loop that runs on this thread though it is none of asyncio's; raise `error` if there is none."""
    if "trio" not in modules:
        raise error
    from .trio_loop import running_trio

    return running_trio()  # type: ignore[return-value]  # it has what is used of one


def start_task(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Have the running event loop run `function()` as a task. Raises: `RuntimeError` if none runs."""
    try:
        loop = _running_loop()
    except RuntimeError as error:
        if "trio" not in modules:
            raise error
        from trio.lowlevel import spawn_system_task

        spawn_system_task(function)
        return
    task = loop.create_task(function())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def _bridge_of(loop: "asyncio.AbstractEventLoop") -> LoopBridge:
    """Return the bridge of the loop that runs on this thread, making it on first use."""
    found = _bridges.get(loop)
    # A loop may be run by one thread now and by another later.
    if found is None or found.ident != get_ident():
        found = _bridges[loop] = LoopBridge(loop)
    _latest.bridge = found
    return found


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class Completion:
    """Something that a task awaits and any thread completes, once.

    Make it in the running loop; `wake` completes it, from any thread; `await` it in its loop, once.
    Cancelling the task leaves the completion as it is: take it back from the thread that would have called `wake`.

    Awaiting it is awaiting `future` between `bridge.hold()` and `bridge.release()`: who is in a hurry does that itself.
    """

    __slots__ = ("bridge", "future")

    def __init__(self) -> None:
        try:
            loop = _running_loop()
        except RuntimeError as error:
            loop = _other_loop(error)
        found = _latest.bridge
        self.bridge: LoopBridge = found if found is not None and found.of() is loop else _bridge_of(loop)
        self.future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        """Complete: the task that awaits goes on. Any thread; never blocks. A second call does nothing."""
        if get_ident() == self.bridge.ident:
            _resolve(self.future)
        else:
            self.bridge.complete_soon(self.future)

    def __await__(self) -> Generator[Any, None, None]:
        self.bridge.hold()
        try:
            yield from self.future
        finally:
            self.bridge.release()
