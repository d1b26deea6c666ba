"""Foreign code on a pool: whatever it raises is reported, once, and no worker, waiter or future is lost by it."""

import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from typing import Any

import pytest

from engine import (
    CleanupGroup,
    CompletionPort,
    Environment,
    Event,
    Executor,
    InvalidArgumentType,
    InvalidParameter,
    ThreadPool,
    Timer,
    Wait,
    Work,
    current_callback,
    register_wait,
    submit_callback,
    wait_any,
)
from engine.testing import LIMIT, ManualClock

from ..hostile import HOSTILE, RAISED, Value
from .helpers import settle

Error = Callable[[], BaseException]
WAYS: dict[str, Error] = {
    **{kind.__name__: (lambda kind=kind: kind("raised")) for kind in RAISED},  # type: ignore[misc]  # of no type
    **{make.__name__: (lambda make=make: make(SystemExit)) for make in HOSTILE},  # type: ignore[misc]  # likewise
}
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="none")


@pytest.fixture(params=WAYS)
def fail(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Foreign code."""
    make = WAYS[request.param]

    def fail(*args: Any) -> Any:
        raise make()

    return fail


def simple(pool: ThreadPool, fail: Callable[..., Any]) -> None:
    pool.submit(fail)


def posted(pool: ThreadPool, fail: Callable[..., Any]) -> None:
    pool.post(fail)


def work(pool: ThreadPool, fail: Callable[..., Any]) -> None:
    with Work(fail, pool=pool) as each:
        each.submit()
        assert each.wait(LIMIT)


def timer(pool: ThreadPool, fail: Callable[..., Any]) -> None:
    clock = ManualClock()
    with Timer(fail, pool=pool, clock=clock) as each:
        each.set(1)
        clock.advance(1)
        assert each.wait(LIMIT)


def wait(pool: ThreadPool, fail: Callable[..., Any]) -> None:
    with Event() as event, Wait(fail, pool=pool) as each:
        each.set(event)
        event.set()
        assert each.wait(LIMIT)


def finalization(pool: ThreadPool, fail: Callable[..., Any]) -> None:
    submit_callback(lambda: None, environment=Environment(pool=pool, finalization=fail))


def when_returns(pool: ThreadPool, fail: Callable[..., Any]) -> None:
    pool.submit(lambda: current_callback().call_when_returns(fail))


def cancel_callback(pool: ThreadPool, fail: Callable[..., Any]) -> None:
    group = CleanupGroup()
    Work(print, environment=Environment(pool=pool, cleanup_group=group, cancel_callback=fail))
    group.close_members(cancel=True, timeout=LIMIT)
    group.close()


PLACES = (simple, posted, work, timer, wait, finalization, when_returns, cancel_callback)


class TestCallbacks:
    """Callbacks of each kind."""

    @pytest.mark.parametrize("place", PLACES)
    @pytest.mark.parametrize("handler", ["default", "own", "failing"])
    def test_a_failure(
        self, place: Callable[[ThreadPool, Callable[..., Any]], None], handler: str, fail: Callable[..., Any]
    ) -> None:
        """What a callback raises goes to the pool's error handler; the worker goes on, even if that fails too."""
        told: list[str] = []

        def note(error: BaseException, owner: object) -> None:
            told.append("told")
            if handler == "failing":
                fail()

        with ThreadPool(1, 1, on_error=None if handler == "default" else note) as pool:
            before = {thread.ident for thread in threading.enumerate() if thread.name.startswith("engine:")}
            place(pool, fail)
            settle(pool)
            done = threading.Event()
            pool.submit(done.set)
            assert done.wait(LIMIT)
            assert pool.statistics().failures == 1
            assert told == ([] if handler == "default" else ["told"])
            assert before <= {thread.ident for thread in threading.enumerate()}

    def test_a_registered_wait(self, fail: Callable[..., Any]) -> None:
        """What the callback of a registered wait raises does not reach whoever signals the object."""

        def signal() -> None:
            with Event(manual_reset=True) as event:
                register_wait(event, fail)
                event.set()
                done.append(event.is_set())

        done: list[bool] = []
        thread = threading.Thread(target=signal)
        thread.start()
        thread.join(LIMIT)
        assert done == [True]


class TestExecutor:
    """Calls of an executor, and what is done when they are done."""

    def test_a_done_callback(self, fail: Callable[..., Any]) -> None:
        """A done callback that fails keeps none of the others from being called, and nobody waiting."""
        called = threading.Event()
        gate = threading.Event()
        with Executor(1) as executor:
            future = executor.submit(gate.wait, LIMIT)
            future.add_done_callback(fail)
            future.add_done_callback(lambda future: called.set())
            waiting = [threading.Thread(target=future.result, args=(LIMIT,)) for _ in range(2)]
            for thread in waiting:
                thread.start()
            gate.set()
            assert future.result(LIMIT) is True and called.wait(LIMIT)
            for thread in waiting:
                thread.join(LIMIT)
                assert not thread.is_alive()
            assert executor.submit(int).result(LIMIT) == 0

    def test_an_initializer(self, fail: Callable[..., Any]) -> None:
        """An initializer that fails breaks the executor: what waits in it ends, and nothing more is accepted."""
        with Executor(2, initializer=fail) as executor:
            with pytest.raises(BrokenExecutor):
                executor.submit(int).result(LIMIT)
            with pytest.raises(BrokenExecutor):
                executor.submit(int)


class TestContexts:
    """Context variables."""

    @pytest.fixture
    def single(self) -> Iterator[ThreadPool]:
        """A pool of one thread, so that every callback could see what the one before has set."""
        with ThreadPool(1, 1) as pool:
            yield pool

    def test_left_behind(self, single: ThreadPool) -> None:
        """Without `inherit_context` each callback runs in an empty context of its own."""
        found: list[str] = []

        def look(*args: Any) -> None:
            found.append(VARIABLE.get())
            VARIABLE.set("changed")

        environment = Environment(pool=single, inherit_context=False)
        with Work(look, environment=environment) as work, Event() as event, Wait(look, environment=environment) as wait:
            for _ in range(3):
                work.submit()
                submit_callback(look, environment=environment)
                wait.set(event)
                event.set()
                assert wait.wait(LIMIT)
            assert work.wait(LIMIT)
        settle(single)
        assert found == ["none"] * 9

    def test_finalization(self, single: ThreadPool) -> None:
        """What is done after a callback sees what that has set, and leaves nothing to the next one."""
        found: list[str] = []

        def finalize(instance: object, context: object) -> None:
            found.append(VARIABLE.get())
            VARIABLE.set("finalized")

        environment = Environment(pool=single, finalization=finalize)
        submit_callback(lambda: VARIABLE.set("set"), environment=environment)
        submit_callback(lambda: found.append(VARIABLE.get()), environment=environment)
        single.post(lambda: found.append(VARIABLE.get()))
        settle(single)
        assert found == ["set", "none", "none", "none"]


class TestArguments:
    """Arguments that cannot be shown."""

    @pytest.mark.parametrize("kind", RAISED)
    def test_values(self, kind: type[BaseException]) -> None:
        """An argument that is refused is told of, though it cannot be shown."""
        value: Any = Value(kind)
        with pytest.raises(InvalidArgumentType, match="Value"):
            ThreadPool(on_error=value)
        with pytest.raises(InvalidParameter, match=f"whose repr raises {kind.__name__}"):
            ThreadPool(policy=value)
        with pytest.raises(InvalidArgumentType, match="Value"):
            wait_any([value])
        with CompletionPort() as port, pytest.raises(InvalidArgumentType, match="Value"):
            port.associate(value, 1)

    @pytest.mark.parametrize("kind", RAISED)
    def test_functions(self, kind: type[BaseException]) -> None:
        """A callback object tells of itself, though its function cannot be shown."""

        class Function(Value):
            def __call__(self) -> None:
                """Do nothing."""

            def __getattr__(self, name: str) -> Any:
                raise kind

        with ThreadPool() as pool, Work(Function(kind), pool=pool) as work:
            assert f"Function, whose repr raises {kind.__name__}" in repr(work)
