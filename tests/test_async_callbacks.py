"""An `async def` where an ordinary function is called: refused where it is given, as nobody would ever await it."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from engine import (
    Client,
    CompletionPort,
    Environment,
    Event,
    Executor,
    Interface,
    InvalidArgumentType,
    Io,
    Server,
    ThreadPool,
    Timer,
    Wait,
    WaitableTimer,
    Work,
    apc,
    current_call,
    queue_apc,
    register_wait,
    submit_callback,
)


async def coroutine(*args: Any) -> None:
    raise AssertionError("nobody runs this")


async def generator(*args: Any) -> AsyncIterator[int]:
    yield 1


class Callbacks:
    async def method(self, *args: Any) -> None:
        await coroutine()

    async def __call__(self, *args: Any) -> None:
        await coroutine()


FUNCTIONS = [coroutine, generator, Callbacks().method, Callbacks(), partial(coroutine, 1), partial(Callbacks().method)]


class Asked(Interface, id="example.Asked"):
    def ask(self) -> int: ...


class Routines:
    def ask(self) -> int:
        return 1


def in_a_pool(use: Callable[[ThreadPool], object]) -> None:
    with ThreadPool(0, 1) as pool:
        use(pool)


def registered(function: Any) -> None:
    with Event() as event:
        register_wait(event, function)


def timed(function: Any) -> None:
    with WaitableTimer() as timer:
        timer.set(9.0, apc=function)


def guarded(function: Any) -> None:
    with Server("loopback://async-callbacks") as server:
        server.register(Asked, Routines(), security=function)


def notified(function: Any) -> None:
    with Client("loopback://async-callbacks") as client:
        client.bind(Asked).ask.begin(notify=function)  # type: ignore[attr-defined]  # it is a binding


def completed(function: Any) -> None:
    with CompletionPort() as port:
        in_a_pool(lambda pool: Io(port, function, pool=pool).close())  # type: ignore[arg-type]  # not looked at before


USES: dict[str, Callable[[Any], object]] = {
    "register_wait": registered,
    "queue_apc": queue_apc,
    "apc": apc,
    "WaitableTimer.set": timed,
    "ThreadPool.submit": lambda function: in_a_pool(lambda pool: pool.submit(function)),
    "submit_callback": submit_callback,
    "ThreadPool(on_error=)": lambda function: ThreadPool(on_error=function).close(),
    "Work": lambda function: in_a_pool(lambda pool: Work(function, pool=pool).close()),
    "Timer": lambda function: in_a_pool(lambda pool: Timer(function, pool=pool).close()),
    "Wait": lambda function: in_a_pool(lambda pool: Wait(function, pool=pool).close()),
    "Io": completed,
    "cancel_callback=": lambda function: Work(print, environment=Environment(cancel_callback=function)).close(),
    "finalization=": lambda function: Work(print, environment=Environment(finalization=function)).close(),
    "security=": guarded,
    "authorize=": lambda function: Server("loopback://async-callbacks", authorize=function).close(),
    "notify=": notified,
}


@pytest.mark.parametrize("name", USES)
def test_callbacks_that_nobody_awaits(name: str) -> None:
    """An `async def` is refused wherever the engine calls a function of the program's, and the error says what to do;
    methods, partials and objects that call one too.
    """
    for function in FUNCTIONS:
        with pytest.raises(InvalidArgumentType, match="run_coroutine_threadsafe"):
            USES[name](function)


def test_rundown_routines() -> None:
    """So is the rundown routine of a context handle."""

    class Opening:
        def ask(self) -> int:
            with pytest.raises(InvalidArgumentType, match="rundown"):
                current_call().open_context(5, rundown=coroutine)
            return 1

    with Server("loopback://async-callbacks") as server, Client("loopback://async-callbacks") as client:
        server.register(Asked, Opening())
        server.listen()
        assert client.bind(Asked).ask() == 1


def test_executors() -> None:
    """An executor calls what it is given, as the standard library's does: the coroutine is the result."""
    with Executor(1) as executor:
        executor.submit(coroutine).result().close()
