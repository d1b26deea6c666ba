"""Dispatcher objects as their users know them: what threads, callbacks and event loops wait on.

How waits are decided is in dispatcher.py, waits in which no thread sleeps are in registered_wait.py.

Source: "Wait Functions", "Synchronization Objects"; `docs/semantics/completion-port.md`, section 11.
"""

from collections.abc import Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from transport.foreign import a_type, type_name

from ..errors import InvalidArgumentType, InvalidParameter
from ..lifecycle import Closeable
from ..status import Status
from .checks import check_callback, check_clock, check_timeout
from .clock import SYSTEM_CLOCK, Clock
from .dispatcher import DispatcherObject, decide, dispatcher_lock, wait_on
from .driver import driver
from .registered_wait import CallbackBlock, RegisteredWait
from .thread import ThreadRecord, local


class WaitableStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a dispatcher object. `waiting` counts pending waits: threads, callbacks and tasks."""

    signaled: bool
    waiting: int
    closed: bool


class Waitable(DispatcherObject):
    """Base of the dispatcher objects: a signal state, and the waits that are pending on it.

    Threads: every method may be called from any thread. In a signal handler or a finalizer only `Event.set` is safe:
        the others raise `Deadlock` there if their thread was interrupted under a lock that they need.
    """

    __slots__ = ()

    def wait(self, timeout: float | None = None, *, alertable: bool = False) -> bool:
        """Wait until the object is signaled, and consume the signal as this kind of object does.

        Args: `timeout` in seconds; None waits for ever, 0 polls. `alertable` lets queued APCs end the wait.
        Returns: True if the wait was satisfied, False if the time ran out, which changes nothing.
        Raises: `Alerted` (192) when APCs ran instead; `InvalidHandle` (6) if the object is closed;
            `AbandonedWait` (735) if it is closed while this thread waits; `InvalidParameter` for a negative
            timeout.
        Blocks: until signaled; the thread's slot on its completion port is free meanwhile. A signal that is
            there beats pending APCs, and pending APCs beat a timeout of 0.
        Source: "WaitForSingleObjectEx".
        """
        return wait_on((self,), False, timeout, alertable).outcome == 0

    async def wait_async(self, timeout: float | None = None) -> bool:
        """Wait in the running event loop; otherwise as `wait`. Cancelling the task loses no signal."""
        from .aio import Completion

        completion = Completion()
        timeout = check_timeout(timeout)
        block = self._prepare(lambda status: completion.wake(), needs_progress=False)  # The event loop harvests.
        block.begin(timeout, SYSTEM_CLOCK)
        try:
            await completion
        except BaseException:
            block.abandon()
            raise
        return block.collect()

    def __await__(self) -> Generator[Any, None, bool]:
        return self.wait_async().__await__()

    def is_signaled(self) -> bool:
        """Whether a wait by the calling thread would be satisfied now: old as soon as it is known. Never blocks."""
        if self._harvested:
            driver().look_around()
        record = local.record
        with dispatcher_lock:
            self._require_open()
            return self._signaled_locked(record)

    def statistics(self) -> WaitableStatistics:
        """Return a consistent snapshot. Never blocks."""
        if self._harvested:
            driver().look_around()
        with dispatcher_lock:
            open_ = self._is_open()
            return WaitableStatistics(open_ and self._signaled_locked(None), len(self._blocks), not open_)

    def close(self) -> None:
        """Close the object: waits that are pending end with `AbandonedWait`, later use is refused.

        Closing twice does nothing. Blocks: never.
        """
        decide(self._close_locked)

    def _prepare(self, callback: Callable[[Status], object], needs_progress: bool = True) -> CallbackBlock:
        """Return a wait that has not begun; see `prepare_wait`."""
        check_callback("callback", callback)
        if self._owned_by_threads:
            raise InvalidParameter(f"{a_type(self)} is owned by threads: wait for it in a thread")
        with dispatcher_lock:
            self._require_open()
        return CallbackBlock(self, callback, needs_progress and self._harvested)


class Flag(Waitable, Closeable):
    """Base of what is signaled or not: for every wait if `_manual_reset`, else the one that is satisfied resets it."""

    __slots__ = ("_manual_reset", "_signaled")

    _manual_reset: bool
    _signaled: bool  # Guarded by dispatcher_lock.

    def _signaled_locked(self, record: ThreadRecord | None) -> bool:
        return self._signaled

    def _consume_locked(self, record: ThreadRecord | None) -> bool:
        if not self._manual_reset:
            self._signaled = False
        return False

    def _restore_locked(self, record: ThreadRecord | None, abandoned: bool) -> None:
        if not self._manual_reset:
            self._signaled = True

    def _state(self) -> str:
        return "closed" if self._life is None else "signaled" if self._signaled else "nonsignaled"

    def _dropped_open(self) -> str:
        return repr(self) if self._is_open() else ""


class Acquirable(Waitable):
    """Base of what is acquired by a wait, and released: a context manager, which does both."""

    __slots__ = ()

    if TYPE_CHECKING:

        def acquire(self, timeout: float | None = None, *, alertable: bool = False) -> bool: ...
    else:
        acquire = Waitable.wait

    def release(self) -> object:
        """Give back what one wait took."""
        raise NotImplementedError  # Abstract: who may, and what that satisfies, tells the kinds apart.

    def __enter__(self) -> Self:
        self.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


# What makes a dispatcher object of a foreign one, or returns None: filled by the modules that know how.
adapters: list[Callable[[object], Waitable | None]] = []


def as_waitable(thing: object) -> Waitable:
    """Return the dispatcher object to wait on for `thing`; raises `InvalidArgumentType` if there is none."""
    if isinstance(thing, Waitable):
        return thing
    for adapt in adapters:
        found = adapt(thing)
        if found is not None:
            return found
    hint = "use its own wait(), or an engine.Event" if callable(getattr(thing, "wait", None)) else "it is no Waitable"
    raise InvalidArgumentType(f"cannot wait for {kind_of(thing)} here: {hint}")


def kind_of(thing: object) -> str:
    """Return the type of a thing that is not taken; with its module if one of ours is called the same."""
    name = type_name(thing)
    ours = any(kind.__name__ == name for base in (Flag, Acquirable) for kind in base.__subclasses__())
    return f"a {type(thing).__module__}.{name}" if ours else a_type(thing)


def prepare_wait(waitable: Any, callback: Callable[[Status], object]) -> CallbackBlock:
    """Check the arguments of `register_wait`, and return its wait before it begins."""
    return as_waitable(waitable)._prepare(callback)


def register_wait(
    waitable: Any,
    callback: Callable[[Status], object],
    timeout: float | None = None,
    *,
    clock: Clock = SYSTEM_CLOCK,
) -> RegisteredWait:
    """Have `callback(status)` called once, when `waitable` is signaled or the time is up.

    Args: `waitable` is anything that `wait_any` takes, except a mutex: that belongs to a thread. `timeout` in
        seconds by `clock`; None: no limit; 0: look once.
        `callback` gets `Status.OK` with the signal consumed, `Status.TIMEOUT`, or `Status.ABANDONED_WAIT` if
        the object was closed. It runs on whichever thread signals the object, on the monitor's for a timeout,
        or inside this call if the wait can be decided at once (inside the callback of such a wait, once that has
        returned); no lock is held. It must be quick, and must not block or raise.
    Returns: a handle: `cancel()` withdraws the wait, and says whether that was in time.
    Raises: `InvalidHandle` if the object is closed; `InvalidParameter`, `InvalidArgumentType`.
    Blocks: never. No thread is spent on a pending wait.
    Source: "RegisterWaitForSingleObject". Different from Windows: the wait is for one signal; register again
        for more.
    """
    timeout = check_timeout(timeout)
    if clock is not SYSTEM_CLOCK:
        check_clock(clock)
    block = prepare_wait(waitable, callback)
    block.begin(timeout, clock)
    return RegisteredWait(block)
