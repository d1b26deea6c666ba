"""Registered waits of the older kind, which repeat until they are unregistered.

Theory of operation. Each is a wait object of the default pool that sets itself again after each callback. So callbacks
of one wait do not overlap, where on Windows they may; and while one runs, a signal stays in its object.

Source: "RegisterWaitForSingleObject", "UnregisterWait", "UnregisterWaitEx".
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from transport.foreign import shown

from .. import (
    EngineError,
    Environment,
    Event,
    InvalidArgumentType,
    InvalidHandle,
    InvalidParameter,
    Status,
    Wait,
)
from ..kernel.lock import Lock
from .constants import (
    ERROR_IO_PENDING,
    INVALID_HANDLE_VALUE,
    WAIT_TIMEOUT,
    WT_EXECUTEINIOTHREAD,
    WT_EXECUTEINPERSISTENTTHREAD,
    WT_EXECUTEINWAITTHREAD,
    WT_EXECUTELONGFUNCTION,
    WT_EXECUTEONLYONCE,
)
from .errors import expect, fails_with
from .values import Box, routine, seconds, word

__all__ = ["RegisterWaitForSingleObject", "UnregisterWait", "UnregisterWaitEx"]

_FLAGS = (
    WT_EXECUTEINIOTHREAD
    | WT_EXECUTEINWAITTHREAD
    | WT_EXECUTEONLYONCE
    | WT_EXECUTELONGFUNCTION
    | WT_EXECUTEINPERSISTENTTHREAD
)


class _RegisteredWait:
    """The handle of a registered wait."""

    def __init__(
        self, waitable: Any, callback: Callable[[Any, bool], object], context: Any, timeout: float | None, flags: int
    ) -> None:
        self._waitable = waitable
        self._callback = callback
        self._context = context
        self._timeout = timeout
        self._once = bool(flags & WT_EXECUTEONLYONCE)
        self._lock = Lock()
        # Guarded by _lock.
        self._running = False
        self._over = False
        self._ended: Event | None = None
        environment = Environment(
            runs_long=bool(flags & WT_EXECUTELONGFUNCTION), persistent=bool(flags & WT_EXECUTEINPERSISTENTTHREAD)
        )
        self._wait = Wait(self._run, environment=environment)
        try:
            self._wait.set(waitable, timeout)
        except BaseException:
            self._wait.close()
            raise

    def _run(self, status: Status) -> None:
        with self._lock:
            if self._over or status == Status.ABANDONED_WAIT:  # The object was closed: nothing will signal it.
                return
            self._running = True
        try:
            self._callback(self._context, status == WAIT_TIMEOUT)
        finally:
            with self._lock:
                self._running = False
                ended = self._ended
                if not self._over and not self._once:
                    with suppress(InvalidHandle):  # It was closed meanwhile.
                        self._wait.set(self._waitable, self._timeout)
            if ended is not None:
                ended.set()

    def end(self, ended: Event | None) -> bool:
        """Call back no more; return whether a callback runs, at whose end `ended` is set."""
        with self._lock:
            if self._over:
                raise InvalidHandle("the wait is unregistered already")
            self._over = True
            self._ended = ended
            self._wait.set(None)
            running = self._running
        if ended is not None and not running:
            ended.set()
        return running

    def close(self, join: bool) -> None:
        """Be done, first waiting for a callback that runs if so told."""
        try:
            if join:
                self._wait.wait(cancel_pending=True)
        finally:
            self._wait.close()


@fails_with(False)
def RegisterWaitForSingleObject(
    phNewWaitObject: Box,
    hObject: Any,
    Callback: Callable[[Any, bool], object],
    Context: Any,
    dwMilliseconds: int,
    dwFlags: int,
) -> bool:
    """Have `Callback(Context, timed_out)` called on the default pool whenever the object is signaled or the time is up.

    Args:
        phNewWaitObject: gets the handle, for `UnregisterWait`.
        dwMilliseconds: the time limit of each wait.
        dwFlags: `WT_EXECUTEONLYONCE`: the first call is the last; `WT_EXECUTELONGFUNCTION`; `..INPERSISTENTTHREAD`. The
            other two change nothing: callbacks run on workers only.
    Returns: True; or False with the last error 6 (no object, or a closed one) or 87 (a mutex, another flag).
    An object that stays signaled calls back again and again: use an auto-reset event, or once only.
    """
    if word("dwFlags", dwFlags) & ~_FLAGS:
        raise InvalidParameter(f"dwFlags must be an or of the WT_... flags, not {dwFlags:#x}")
    if hObject is None:
        raise InvalidHandle("there is no object to wait for")
    timeout = seconds(dwMilliseconds)
    try:
        phNewWaitObject.value = _RegisteredWait(hObject, routine("Callback", Callback), Context, timeout, dwFlags)
    except InvalidArgumentType as error:
        raise InvalidHandle(f"{shown(hObject)} cannot be waited for") from error
    return True


def UnregisterWait(WaitHandle: Any) -> bool:
    """End a registered wait, without waiting for a callback that runs. Returns: as `UnregisterWaitEx` with None."""
    return UnregisterWaitEx(WaitHandle, None)


@fails_with(False)
def UnregisterWaitEx(WaitHandle: Any, CompletionEvent: Event | int | None) -> bool:
    """End a registered wait. A callback that is queued does not run any more; one that runs is not interrupted.

    Args: `CompletionEvent`: None: do not wait; INVALID_HANDLE_VALUE: wait for a callback that runs; an event: do not
        wait, it is set when no callback runs (any more).
    Returns: True; or False with the last error 997: a callback runs still, which is no failure; 6; 1131 where waiting
        would never end, in the callback itself.
    """
    wait = expect(WaitHandle, _RegisteredWait)
    blocking = isinstance(CompletionEvent, int) and CompletionEvent == INVALID_HANDLE_VALUE
    event = None if blocking or CompletionEvent is None else expect(CompletionEvent, Event)
    running = wait.end(event)
    wait.close(join=blocking)
    if running and not blocking:
        raise EngineError("a callback of the wait runs still", status=ERROR_IO_PENDING)
    return True
