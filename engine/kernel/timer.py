"""Waitable timers: objects that become signaled at a time, and may queue an APC then.

Theory of operation. A timer has at most one *setting*: due time, period, APC. Setting it again replaces the
setting as a whole; an expiry that is under way checks under `dispatcher_lock` that its setting is still the
timer's. Each expiry signals the timer, then queues the APC to the thread that set it, then arms the next
period.

Source: "Waitable Timer Objects", "SetWaitableTimer", "CancelWaitableTimer"; section 12 of
`docs/semantics/completion-port.md`.
"""

from collections.abc import Callable
from datetime import timedelta

from .apc import TimerApc
from .checks import LONGEST, check_callback, check_clock, check_duration, check_flag
from .clock import SYSTEM_CLOCK, Cancellable, Clock, Due, call_when_due, read_due
from .dispatcher import WaitBlock, decide, dispatcher_lock
from .thread import local
from .waitable import Flag


class _Setting:
    """What one `set` asked for."""

    __slots__ = ("apc", "call", "due", "period")

    def __init__(self, period: float, apc: TimerApc | None) -> None:
        self.period = period
        self.apc = apc
        # The monotonic time of the expiry that is armed; None before the first one of an absolute due time.
        self.due: float | None = None
        self.call: Cancellable | None = None

    def withdraw(self) -> None:
        if self.call is not None:
            self.call.cancel()
        if self.apc is not None:
            self.apc.withdraw()


class WaitableTimer(Flag):
    """An object that becomes signaled when it is due, once or periodically.

    Args:
        manual_reset: True: stays signaled until set again, for every wait. False (a synchronization timer):
            each expiry satisfies one wait; expiries that find no wait coalesce.
        clock: where time comes from; tests give a `ManualClock`.

    Close the timer, or use it as a context manager. One that is dropped open is reported as a
    `ResourceWarning`.

    Not for signal handlers, which `Event.set` is for.
    """

    __slots__ = ("_clock", "_setting")

    def __init__(self, manual_reset: bool = False, *, clock: Clock = SYSTEM_CLOCK) -> None:
        check_flag("manual_reset", manual_reset)
        check_clock(clock)
        super().__init__()
        self._manual_reset = manual_reset
        self._clock = clock
        # Guarded by dispatcher_lock.
        self._signaled = False
        self._setting: _Setting | None = None

    def set(self, due: Due, period: float | timedelta = 0.0, apc: Callable[[], object] | None = None) -> None:
        """Set the timer, replacing an earlier setting and clearing the signal.

        Args:
            due: when it first expires: seconds from now or a `timedelta`, which do not count time that the
                machine sleeps; or a `datetime`, by the wall clock; one that is past means now. Never early.
            period: seconds between later expiries, counted from the time when the last one was due; 0: only
                once.
            apc: queued at each expiry to the thread that calls `set`, if it has not ended, unless it is
                queued already. One of an earlier setting that has not run yet is withdrawn.
        Raises: `InvalidHandle` if closed; `InvalidParameter`, `InvalidArgumentType`.
        Blocks: never. Source: "SetWaitableTimer".
        """
        when = read_due(due)
        seconds = check_duration("period", period, LONGEST)
        check_callback("apc", apc, optional=True)
        setting = _Setting(seconds, None if apc is None else TimerApc(apc, local.record))
        if not when[1]:
            setting.due = self._clock.monotonic() + when[0]
        with dispatcher_lock:
            self._require_open()
            former, self._setting = self._setting, setting
            self._signaled = False
        if former is not None:
            former.withdraw()
        self._arm(setting, call_when_due(self._clock, when, lambda: self._expire(setting)))

    def cancel(self) -> None:
        """Take the setting back: the timer will not expire, a queued APC is withdrawn.

        Raises: `InvalidHandle` if closed. Blocks: never. Source: "CancelWaitableTimer".
        """
        with dispatcher_lock:
            self._require_open()
            former, self._setting = self._setting, None
        if former is not None:
            former.withdraw()

    def close(self) -> None:
        """Cancel and close the timer: pending waits end with `AbandonedWait`, later use is refused."""
        super().close()
        with dispatcher_lock:
            former, self._setting = self._setting, None
        if former is not None:
            former.withdraw()

    def _arm(self, setting: _Setting, call: Cancellable) -> None:
        setting.call = call
        if self._setting is not setting:  # Replaced before `withdraw` could see the call.
            call.cancel()

    def _expire(self, setting: _Setting) -> None:
        if not decide(self._expire_locked, setting):
            return
        if setting.apc is not None:
            setting.apc.queue()
        if setting.period:
            clock = self._clock
            now = clock.monotonic()
            due = now if setting.due is None else setting.due
            # Periods that were missed altogether are not made up for.
            setting.due = due + setting.period * (int(max(now - due, 0.0) / setting.period) + 1)
            self._arm(setting, clock.call_at(setting.due, lambda: self._expire(setting)))

    def _expire_locked(self, setting: _Setting, satisfied: list[WaitBlock]) -> bool:
        """Be signaled, if the setting is still the timer's; return whether it is."""
        if self._setting is not setting:
            return False
        self._signaled = True
        self._release_locked(satisfied)
        return True

    def __repr__(self) -> str:
        return f"<WaitableTimer {self._state()} waiting={len(self._blocks)}>"
