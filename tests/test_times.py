"""Times as programs have them: real numbers of any type, wherever a number of seconds stands."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from engine import (
    CleanupGroup,
    Client,
    CompletionPort,
    Event,
    Executor,
    InvalidArgumentType,
    InvalidParameter,
    Mutex,
    Server,
    ThreadPool,
    Timer,
    Wait,
    WaitableTimer,
    WaitTimeout,
    Work,
    register_wait,
    signal_and_wait,
    sleep,
    wait_all,
    wait_any,
)
from engine.testing import ManualClock
from transport import EndpointError, LinkOptions

numpy = pytest.importorskip("numpy")


class Floating:
    """A number of the program's own."""

    def __float__(self) -> float:
        return 0.0


class Indexed:
    """Another one."""

    def __index__(self) -> int:
        return 0


class Raising:
    """What says that it is a number and is none."""

    def __float__(self) -> float:
        raise RuntimeError("no number today")


REAL: list[Any] = [
    0, 0.0, Fraction(0), Floating(), Indexed(),
    *(numpy.dtype(kind).type(0) for kind in ("f2", "f4", "f8", "i1", "u8", "i8")),
]  # fmt: skip
NEITHER: list[Any] = [
    True, "1", b"1", 1j, Decimal(0), [], [1], Raising(), object(), int, numpy.array(0.0), numpy.array([0.0, 1.0]),
    numpy.bool_(True), numpy.complex64(1), numpy.str_("1"), numpy.timedelta64(1, "s"), numpy.ma.masked,
]  # fmt: skip
OUTSIDE: list[Any] = [
    -1, -0.5, math.nan, Fraction(-1, 2), numpy.float16(-1), numpy.float32("nan"),
    numpy.int64(-1),
]  # fmt: skip

Use = Callable[[Any], object]


def closing(thing: Any, use: Callable[[Any], object]) -> object:
    with thing:
        return use(thing)


def on_a_pool(kind: Any, use: Callable[[Any], object]) -> object:
    return closing(ThreadPool(0, 1), lambda pool: closing(kind(lambda *_: None, pool=pool), use))


def at_once(use: Callable[[], object]) -> None:
    try:
        use()
    except WaitTimeout:
        pass


def in_a_call(begin: Callable[[Any, Any], object]) -> Use:
    def use(seconds: Any) -> object:
        with Client("loopback://nobody-is-here") as client:
            return begin(client.bind("some.service").anything, seconds)

    return use


USES: dict[str, Use] = {
    "Event.wait": lambda t: closing(Event(), lambda event: event.wait(t)),
    "Event.wait, alertable": lambda t: closing(Event(), lambda event: event.wait(t, alertable=True)),
    "Mutex.wait": lambda t: closing(Mutex(), lambda mutex: mutex.wait(t) and mutex.release()),
    "wait_any": lambda t: closing(Event(), lambda event: wait_any([event], t)),
    "wait_all": lambda t: closing(Event(), lambda event: wait_all([event], t)),
    "signal_and_wait": lambda t: closing(Event(), lambda event: signal_and_wait(event, event, t)),
    "sleep": sleep,
    "sleep, alertable": lambda t: sleep(t, alertable=True),
    "port.get": lambda t: closing(CompletionPort(), lambda port: port.get(t)),
    "port.get_many": lambda t: closing(CompletionPort(), lambda port: port.get_many(2, t)),
    "register_wait": lambda t: closing(Event(), lambda event: register_wait(event, lambda status: None, t)),
    "WaitableTimer.set": lambda t: closing(WaitableTimer(), lambda timer: timer.set(t, t)),
    "Timer.set": lambda t: on_a_pool(Timer, lambda timer: timer.set(t, window=t)),
    "Timer.set, period": lambda t: on_a_pool(Timer, lambda timer: timer.set(9, t)),
    "Wait.set": lambda t: closing(Event(), lambda event: on_a_pool(Wait, lambda wait: wait.set(event, t))),
    "Work.wait": lambda t: closing(Work(print), lambda work: work.wait(t)),
    "ThreadPool(idle_limit=)": lambda t: ThreadPool(0, 1, idle_limit=t).stop(),
    "ThreadPool.stop": lambda t: closing(ThreadPool(0, 1), lambda pool: pool.stop(t)),
    "Executor(exit_timeout=)": lambda t: Executor(1, exit_timeout=t).shutdown(),
    "Executor.shutdown": lambda t: closing(Executor(1), lambda executor: executor.shutdown(timeout=t)),
    "CleanupGroup.close_members": lambda t: closing(CleanupGroup(), lambda group: group.close_members(timeout=t)),
    "Client(timeout=)": lambda t: Client("loopback://nobody", timeout=t).close(),
    "Client(connect_timeout=)": lambda t: Client("loopback://nobody", connect_timeout=t).close(),
    "a call's timeout=": in_a_call(lambda operation, t: operation.begin(timeout=t)),
    "Call.wait": in_a_call(lambda operation, t: operation.begin().wait(t)),
    "Server.close": lambda t: closing(Server("loopback://nobody"), lambda server: server.close(t)),
    "ManualClock.advance": lambda t: ManualClock().advance(t),
}


@pytest.mark.parametrize("name", USES)
def test_real_numbers(name: str) -> None:
    """Any real number will do for a time: what has `__float__` or `__index__`, NumPy's included."""
    for seconds in REAL:
        at_once(lambda: USES[name](seconds))  # noqa: B023  # it is called here


@pytest.mark.parametrize("name", USES)
def test_what_is_no_real_number(name: str) -> None:
    """Anything else is refused by its type, bools and arrays too; NaN and negative numbers by their value."""
    for wrong in NEITHER:
        with pytest.raises(InvalidArgumentType):
            USES[name](wrong)
    for wrong in OUTSIDE:
        with pytest.raises(InvalidParameter):
            USES[name](wrong)


@pytest.mark.parametrize("seconds", [numpy.float16(2), numpy.float32(2), Fraction(2)])
def test_the_time_is_waited_for(seconds: Any) -> None:
    """A number of another type means as many seconds, though its own arithmetic is of less precision."""
    clock = ManualClock(monotonic=1_000_000.0)
    fired: list[int] = []
    with Event() as event, WaitableTimer(clock=clock) as timer:
        timer.set(seconds)
        register_wait(event, lambda status: fired.append(status), seconds, clock=clock)
        clock.advance(1.9)
        assert not timer.wait(0) and not fired
        clock.advance(numpy.float16(0.5))
        assert timer.wait(0) and fired
        assert event.wait(numpy.float16(0.01)) is False  # An end by the system's clock, hours after its start.


def test_futures() -> None:
    """A future's time is such a number; a negative one is over, as with the standard library's."""
    with ExitStack() as stack:
        executor = stack.enter_context(Executor(1))
        go = stack.enter_context(Event(manual_reset=True))
        stack.callback(go.set)
        future = executor.submit(go.wait)
        seconds: Any
        for seconds in (0, -1, numpy.float16(0), numpy.float32(-1), Fraction(0)):
            with pytest.raises(TimeoutError):
                future.result(seconds)
        wrong: Any
        for wrong in (numpy.array(0.0), "1", True):
            with pytest.raises(InvalidArgumentType):
                future.exception(wrong)


@pytest.mark.parametrize("name", ["heartbeat", "linger", "connect_timeout"])
def test_links(name: str) -> None:
    """So are the times of a link, which keeps them as floats."""
    for seconds in REAL:
        kept = getattr(LinkOptions(**{name: seconds}), name)
        assert type(kept) is float and kept == 0
    for wrong in NEITHER + OUTSIDE:
        with pytest.raises(EndpointError, match=name):
            LinkOptions(**{name: wrong})
