"""Timer objects: callbacks at a time, once or periodically.

Theory of operation. A timer has at most one *setting*: due time, period, window. Setting it again replaces
the whole setting; an expiry that is under way checks under the pool's lock that its setting is still the
timer's, and queues its callback in the same step: the timer is armed or the callback is queued, with nothing
in between that a disarming thread could miss. Then the next period is armed, counted from when this one was
due; periods that were missed altogether are made up by one callback at once, and the beat goes on from there.

A setting with a window may wait: it expires together with the next timer of the pool that expires within the
window, or alone at the window's end. So expiries are grouped, and never early.

Relative due times and periods do not count time that the machine sleeps; absolute due times do.

Source: "SetThreadpoolTimer", "SetThreadpoolTimerEx", "IsThreadpoolTimerSet".
"""

from collections.abc import Iterator
from contextvars import Context
from datetime import timedelta
from typing import Any

from ..errors import QueueFull
from ..kernel.checks import LONGEST, check_duration
from ..kernel.clock import Cancellable, Due, WallCall, read_due
from .callback_object import ClockedObject
from .core import CallbackCore
from .fair_queue import NO_LIMIT, ObjectCallback


class Setting:
    """What one `set` asked for. Fields: guarded by the port's lock once the timer has it."""

    __slots__ = ("absolute", "armed", "beat", "call", "context", "due", "period", "window")

    def __init__(self, due: float, absolute: bool, period: float, window: float, context: Context) -> None:
        # When it expires next: a monotonic time; by the wall clock if `absolute`, as only the first expiry can be.
        self.due: float = due
        self.absolute: bool = absolute
        self.period: float = period
        self.window: float = window
        self.context: Context = context
        # Whether it will expire (again).
        self.armed: bool = True
        # How often it has expired, and the call that will make it expire next.
        self.beat: int = 0
        self.call: Cancellable | None = None


class Expiry:
    """What the clock calls when a setting expires for the `beat`-th time. One object, for there may be many."""

    __slots__ = ("beat", "setting", "timer")

    def __init__(self, timer: "Timer", setting: Setting, beat: int) -> None:
        self.timer: Timer = timer
        self.setting: Setting = setting
        self.beat: int = beat

    def __call__(self) -> None:
        self.timer._expire(self.setting, self.beat)


class TimerCore(CallbackCore):
    """The inside of a `Timer`."""

    __slots__ = ("setting",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Guarded by the port's lock.
        self.setting: Setting | None = None

    def replace(self, setting: Setting | None, owner: "Timer | None" = None) -> bool:
        """Have another setting, or none; return whether an expiry was withdrawn."""
        lenient = self.port.lenient
        with self.port.lock:
            former, self.setting = self.setting, setting
            lenient.pop(self, None)
            if setting is not None and setting.window:
                lenient[self] = owner
            withdrawn = former is not None and former.armed
            call = None
            if former is not None:
                former.armed = False
                call = former.call
        if call is not None:
            call.cancel()
        return withdrawn

    def disarm(self) -> None:
        """Expire no more."""
        self.replace(None)


class Timer(ClockedObject):
    """A callback that is queued when it is due, once or periodically.

    Args:
        function, args: each callback is `function(*args)`. In it, `current_callback()` gives its instance.
        pool, environment: where and how callbacks run; give at most one of them.
        context: anything; handed to cancel and finalization callbacks.
        clock: where time comes from; None: the pool's clock.

    A slow callback does not hold the next one back: they may run in parallel.
    """

    __slots__ = ()

    _core: TimerCore
    _kind = TimerCore

    def set(self, due: Due | None, period: float | timedelta = 0.0, window: float | timedelta = 0.0) -> bool:
        """Set the timer, replacing an earlier setting as a whole, or disarm it.

        Args:
            due: when the callback is queued first: seconds from now or a `timedelta`; a `datetime`, by the
                wall clock, one that is past meaning now; 0 for now; None disarms.
            period: seconds between later callbacks; 0: only once. Of a relative timer they are counted from
                when it was due, of an absolute one from its first expiry.
            window: seconds by which a callback may be late, so that it can be grouped with others; never
                early.
        Returns: True if an expiry was withdrawn. False: there was none, and a callback may be queued or
            running; what is queued already still runs.
        Raises: `InvalidHandle` if the timer or its pool is closed; `InvalidParameter`, `InvalidArgumentType`.
        Blocks: never. Source: "SetThreadpoolTimerEx".
        """
        core = self._core
        if due is None:
            if core.closed or core.port.forked:
                core.require_open()
            return core.replace(None)
        when, absolute = read_due(due)
        every = check_duration("period", period, LONGEST)
        late = check_duration("window", window, LONGEST)
        core.require_live()
        clock = core.clock
        now = clock.time() if absolute else clock.monotonic()
        if not absolute:
            when += now
        setting = Setting(when, absolute, every, late, core.capture())
        withdrawn = core.replace(setting, self)
        expire = Expiry(self, setting, 0)
        latest = max(when, now) + late
        if latest <= now:
            expire()
        elif absolute:
            self._arm(setting, 0, WallCall(clock, latest, expire))
        else:
            self._arm(setting, 0, clock.call_at(latest, expire))
        return withdrawn

    def is_set(self) -> bool:
        """Whether the timer has a setting: False when new or disarmed, True even after a one-shot expired.

        Source: "IsThreadpoolTimerSet".
        """
        return self._core.setting is not None

    def _arm(self, setting: Setting, beat: int, call: Cancellable) -> None:
        with self._core.port.lock:
            stale = not setting.armed or setting.beat != beat
            if not stale:
                setting.call = call
        if stale:  # Replaced, or expired with another, before `call` could be seen.
            call.cancel()

    def _expire(self, setting: Setting, beat: int) -> None:
        """Queue the callback of `setting`, and those of timers that were waiting to fire together with it."""
        core = self._core
        now, wall = core.clock.monotonic(), core.clock.time()
        due: list[tuple[Timer, Setting, int]] = [(self, setting, beat)]
        with core.port.lock:
            due += self._company_locked(now, wall)
        for timer, each, its_beat in due:
            timer._queue(each, its_beat, now)

    def _company_locked(self, now: float, wall: float) -> Iterator[tuple["Timer", Setting, int]]:
        """The other timers that were waiting for an expiry, and are due."""
        for core, timer in self._core.port.lenient.items():
            other = core.setting
            passed = other.due <= (wall if other.absolute else now)
            if passed and timer is not self and core.clock is self._core.clock:
                yield timer, other, other.beat

    def _queue(self, setting: Setting, beat: int, now: float) -> None:
        # A Context runs one callback at a time, and those of a periodic timer may overlap.
        core = self._core
        port = core.port
        callback = ObjectCallback(core, self, setting.context.copy())
        call = None
        try:
            with port.lock:
                if core.closed or core.setting is not setting or not setting.armed or setting.beat != beat:
                    return
                beat = setting.beat = beat + 1
                call, setting.call = setting.call, None
                if setting.period:
                    following = (now if setting.absolute else setting.due) + setting.period
                    setting.due, setting.absolute = max(following, now), False
                    if setting.window:
                        port.lenient[core] = self
                else:
                    setting.armed = False
                    port.lenient.pop(core, None)
                todo = port.push_locked(callback, core.intake.limit if setting.period else NO_LIMIT)
        except QueueFull as error:
            port.fail(error, self)
        else:
            port.act(todo)
        if call is not None:
            call.cancel()
        if setting.period:
            latest = setting.due + setting.window
            self._arm(setting, beat, core.clock.call_at(latest, Expiry(self, setting, beat)))
