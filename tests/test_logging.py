"""Logging harms nothing: filters and handlers are foreign code, which raises and takes its time."""

import ast
import importlib
import logging
import pkgutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
import transport
from engine import Client, Event, Interface, Server, Status, ThreadPool, operation, register_wait
from engine.testing import LIMIT, wait_until

ROOT = Path(__file__).resolve().parent.parent


def modules() -> list[str]:
    """The names of all modules of the library."""
    return [
        each.name
        for package in (engine, transport)
        for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]


def loggers() -> list[str]:
    """The names of all loggers that the modules of the library have."""
    for name in modules():
        # They need what may not be there.
        if name not in ("engine.kernel.trio_loop", "engine.otel", "engine.prometheus"):
            importlib.import_module(name)
    known = [*logging.Logger.manager.loggerDict, "concurrent.futures"]
    return sorted({name for name in known if name.partition(".")[0] in ("engine", "transport", "concurrent")})


def test_there_is_one_way_to_log() -> None:
    """No module of the library uses `logging` itself, but the one that keeps its handlers in their place."""
    found = []
    for name in modules():
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            if any(each.partition(".")[0] == "logging" for each in names):
                found.append(name)
    assert found == ["transport.log"]


class Probe(Interface, id="test.Logging"):
    """What is called."""

    @operation
    def echo(self, value: int) -> int:
        """Return the value."""

    @operation
    def later(self, value: int) -> int:
        """Return the value, from the server's event loop."""


class Routines:
    """The routines of `Probe`; its results of 13 cannot be sent."""

    def echo(self, value: int) -> Any:
        return object() if value == 13 else value

    async def later(self, value: int) -> Any:
        return object() if value == 13 else value


class Raises(logging.Handler):
    """A handler that raises, and counts how often."""

    def __init__(self, kind: type[BaseException]) -> None:
        super().__init__()
        self.kind = kind
        self.count = 0

    def handle(self, record: logging.LogRecord) -> bool:
        self.count += 1
        raise self.kind("broken handler")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, type[BaseException]], Raises]]:
    """Breaks a logger, until the test ends."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    added: list[tuple[logging.Logger, Raises, int]] = []

    def break_(name: str, kind: type[BaseException]) -> Raises:
        logger, handler = logging.getLogger(name), Raises(kind)
        added.append((logger, handler, logger.level))
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        return handler

    yield break_
    for logger, handler, level in added:
        logger.removeHandler(handler)
        logger.setLevel(level)


def stumble(*_: object) -> None:
    """Raise, in a callback."""
    raise ZeroDivisionError("stumbled")


def use_everything() -> None:
    """Have every kind of thread of the library log, and see that all of them go on."""
    with Event() as never, ThreadPool(1, 1, name="logging") as pool, Server("tcp://127.0.0.1:0", workers=1) as server:
        with Event(manual_reset=True) as told:
            register_wait(never, stumble, 0.001)  # Told by the monitor.
            register_wait(never, lambda status: told.set(), 0.002)
            assert told.wait(LIMIT)
        pool.submit(stumble)
        done = threading.Event()
        pool.submit(done.set)
        assert done.wait(LIMIT)
        server.register(Probe, Routines())
        server.listen()
        with Client(server.endpoint) as client:
            probe = client.bind(Probe)
            for name in ("echo", "later"):
                with pytest.raises(engine.CallError):
                    getattr(probe, name)(13)
                assert getattr(probe, name)(14) == 14


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit])
@pytest.mark.parametrize("name", loggers())
def test_a_handler_that_raises_ends_no_thread(
    name: str, kind: type[BaseException], broken: Callable[[str, type[BaseException]], Raises]
) -> None:
    """Whichever logger has a handler that raises, and whatever it raises: timers fire, callbacks and calls run."""
    broken(name, kind)
    use_everything()


def test_the_scenario_logs(broken: Callable[[str, type[BaseException]], Raises]) -> None:
    """What the test above does is logged by threads of the kernel, of pools and of servers."""
    handlers = [broken(name, ZeroDivisionError) for name in ("engine.kernel", "engine.pool", "engine.rpc")]
    use_everything()
    wait_until(lambda: all(handler.count for handler in handlers))


class Holds(logging.Handler):
    """A handler that takes its time: until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.released = threading.Event()
        self.messages: list[str] = []

    def handle(self, record: logging.LogRecord) -> bool:
        self.messages.append(record.getMessage())
        self.entered.set()
        assert self.released.wait(LIMIT)
        return True


@pytest.fixture
def slow() -> Iterator[Holds]:
    """A slow handler of all loggers of the package: others than the kernel report that the machine is overloaded."""
    logger, handler = logging.getLogger("engine"), Holds()
    logger.addHandler(handler)
    yield handler
    handler.released.set()
    logger.removeHandler(handler)


def test_a_slow_handler_delays_no_timer(slow: Holds) -> None:
    """While a handler is busy with a record of the monitor's, timers fire and time limits end."""
    with Event() as never, Event(manual_reset=True) as told:
        register_wait(never, stumble, 0.001)
        assert slow.entered.wait(LIMIT)
        register_wait(never, lambda status: told.set(), 0.001)
        assert told.wait(LIMIT)


def test_what_nobody_had_time_for_is_counted(slow: Holds) -> None:
    """Records that found too many before them are dropped, and it is told how many. (Others' records may be, too.)"""
    number = 1100
    called: list[Status] = []

    def fail(status: Status) -> None:
        called.append(status)
        stumble(status)

    def dropped() -> int:
        return sum(int(text.split()[0]) for text in list(slow.messages) if "dropped" in text)

    with Event() as never:
        for _ in range(number):
            register_wait(never, fail, 0.001)
        wait_until(lambda: len(called) == number)
        slow.released.set()
        wait_until(lambda: dropped() + sum("failed" in text for text in list(slow.messages)) >= number)
    assert dropped()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_not_taken_for_a_broken_handler(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a signal handler raises in the midst of logging reaches the main thread."""

    class Interrupted(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            signal.raise_signal(number)
            return True

    def stop(*_: object) -> None:
        raise SystemExit(3)

    before = signal.signal(number, stop)  # A shell may have had SIGINT ignored.
    logger, handler = logging.getLogger("engine.kernel"), Interrupted()
    logger.addHandler(handler)
    try:
        with Event(signaled=True) as event, pytest.raises(SystemExit):
            register_wait(event, stumble)
    finally:
        logger.removeHandler(handler)
        signal.signal(number, before)


def test_the_end_of_the_process_waits_for_what_is_to_be_logged() -> None:
    """What the library's threads told just before the process ends is emitted."""
    program = [sys.executable, "-m", "tests.logs_and_ends"]
    found = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    assert (found.returncode, found.stderr.count("ZeroDivisionError: stumbled")) == (0, 1)
