"""What errors and logs name, so that their reader knows what is meant and what to do."""

import asyncio
import functools
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import (
    Client,
    CompletionPort,
    EngineError,
    InPipe,
    Interface,
    InvalidArgumentType,
    InvalidParameter,
    Server,
    Unavailable,
    current_call,
    operation,
    signal_and_wait,
    wait_any,
)
from engine.testing import LIMIT, wait_until
from transport import Curve, EndpointError, OperationFailed, OverlappedDescriptor, PayloadTooLarge
from transport.wire.codec import encode_value


class Adding(Interface, id="test.messages.Adding"):
    """An operation with a pipe."""

    @operation
    def total(self, numbers: InPipe[int]) -> None:
        """Aborts."""


class Routines:
    """Routines, some of which close their call themselves."""

    def echo(self, value: Any) -> Any:
        return value

    def abort(self) -> None:
        current_call().abort(4711, "mine")

    async def abort_later(self) -> None:
        current_call().abort(4711, "mine")

    def total(self, numbers: Any) -> None:
        list(numbers)
        current_call().abort(4711, "mine")

    def twice(self) -> int:
        current_call().complete(1)
        return 2


@pytest.fixture
def pair() -> Any:
    """A server and a client of it."""
    with Server("loopback://messages") as server, Client("loopback://messages", timeout=LIMIT) as client:
        server.register("routines", Routines())
        server.register(Adding, Routines())
        server.listen()
        yield client


class TestKinds:
    """Types are named as their users know them."""

    def test_an_event_of_threading(self, pair: Client) -> None:
        """Where an engine.Event is wanted and a threading.Event was given, the error names both with their modules."""
        event: Any = threading.Event()
        with pytest.raises(InvalidArgumentType, match=r"an engine\.Event.*not a threading\.Event"):
            pair.bind("routines").echo.begin(1, notify=event)
        with pytest.raises(InvalidArgumentType, match=r"a threading\.Event here.*an engine\.Event"):
            wait_any([event])

    @pytest.mark.parametrize(
        ("use", "said"),
        [
            (lambda port: wait_any([1]), "wait for an int"),
            (lambda port: signal_and_wait(1.5, 1), "signal a float"),
            (lambda port: port.associate(object(), 1), "^an object cannot"),
            (lambda port: signal_and_wait(port, port, 0), "signal a CompletionPort"),
        ],
    )
    def test_articles(self, use: Callable[[CompletionPort], Any], said: str) -> None:
        """The article fits the name."""
        with CompletionPort() as port, pytest.raises((InvalidArgumentType, InvalidParameter), match=said):
            use(port)


class TestWhatIsMeant:
    """A slip is answered with what was meant."""

    def test_a_parameter(self, pair: Client) -> None:
        """An argument by a name that no parameter has is named, with the nearest that there is."""
        total: Any = pair.bind(Adding).total
        for call in (total, total.begin):
            with pytest.raises(
                InvalidArgumentType, match=r"^total has no parameter 'number' \(did you mean 'numbers'\?\)"
            ):
                call(number=[1])

    def test_several_endpoints_in_one_text(self) -> None:
        """They are given as a list."""
        with pytest.raises(EndpointError, match="takes a list"):
            Client("tcp://a:1,tcp://b:2")

    def test_a_blocking_call_in_a_coroutine(self, pair: Client) -> None:
        """The warning says how this very operation is awaited."""
        echo = pair.bind("routines").echo

        async def main() -> None:
            with pytest.warns(RuntimeWarning, match=r"`await binding\.echo\.begin\(\.\.\.\)`.*'routines'"):
                assert echo(1) == 1

        asyncio.run(main())


class TestLogs:
    """What is logged of the user's own code."""

    def test_a_callback_that_does_not_fit(self, pair: Client, caplog: pytest.LogCaptureFixture) -> None:
        """A callback that takes other arguments is named, not what the library wrapped it in."""

        def takes_nothing() -> None:
            pass

        told: list[Any] = [takes_nothing, functools.partial(takes_nothing)]
        for callback in told:
            pair.bind("routines").echo.begin(1, notify=callback).result(LIMIT)
        wait_until(lambda: caplog.text.count("a callback of <function") == 2)
        assert caplog.text.count(".takes_nothing at ") == 2 and "partial" not in caplog.messages[-1]

    @pytest.mark.parametrize("name", ["abort", "abort_later", "total"])
    def test_a_routine_that_closes_its_call(self, pair: Client, caplog: pytest.LogCaptureFixture, name: str) -> None:
        """A routine that aborts its own call and returns nothing has said what it wants: nothing is logged."""
        call = pair.bind(Adding).total.begin([1]) if name == "total" else getattr(pair.bind("routines"), name).begin()
        with pytest.raises(EngineError, match="mine") as raised:
            call.result(LIMIT)
        assert raised.value.status == 4711
        pair.bind("routines").echo(1)
        pair.bind("routines").twice()
        wait_until(lambda: "was closed before" in caplog.text)  # A result beside another one is lost, and told of.
        said = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
        errors = [text for text in said if "dropped a message" not in text]  # Counted, and told late: another test's.
        assert len(errors) == 1 and ".twice" in errors[0]
        assert errors[0].count("<ServerCall") == 1, "it names the call once"


class TestTransport:
    """The transport's errors."""

    def test_the_end_of_a_stream(self) -> None:
        """The error of a failed operation says what its status means, and calls it by its name."""
        reading, writing = os.pipe()
        with OverlappedDescriptor(reading) as source, CompletionPort() as port:
            port.associate(source, 1)
            cancelled = source.begin_read(1)
            source.cancel()
            with pytest.raises(OperationFailed, match=r"failed: cancelled \[OPERATION_ABORTED 995\]"):
                cancelled.result()
            os.close(writing)
            ended = source.begin_read(1)
            wait_any([ended], LIMIT)
            with pytest.raises(OperationFailed, match=r"failed: .*(end|closed).* \[(HANDLE_EOF 38|BROKEN_PIPE 109)\]"):
                ended.result()

    def test_values_that_are_too_large(self) -> None:
        """The error names the option that does not help, and what does."""
        with pytest.raises(PayloadTooLarge, match="whatever max_message_bytes is: split"):
            encode_value(b"12345", 4)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("another server's", r"server_key="),
        ("not allowed", r"does not allow this client's key"),
        ("none", r"only one side has keys"),
    ],
)
def test_wrong_keys(keys: str, said: str) -> None:
    """A client that cannot connect for its keys is told which of them it is, and where it is said."""
    own, mine, other = Curve.new_keys(), Curve.new_keys(), Curve.new_keys()
    curves = {
        "another server's": Curve(*mine, server_key=other[0]),
        "not allowed": Curve(*other, server_key=own[0]),
        "none": None,
    }
    with Server("tcp://127.0.0.1:0", curve=Curve(*own, allowed={mine[0]})) as server:
        server.listen()
        for limit in (1.0, 5.0, 25.0):
            with Client(server.endpoint, curve=curves[keys], connect_timeout=limit) as client:
                with pytest.raises(Unavailable) as raised:
                    client.bind("anything").call()
            if re.search(said, str(raised.value)):
                return
    raise AssertionError(str(raised.value))


@pytest.mark.parametrize(
    ("hidden", "program", "said"),
    [
        ("transport", "import engine", "is not this library's, but {file}: rename it"),
        ("engine", "from engine import Server", "cannot import name 'Server' from 'engine' ({file})"),
        ("engine", "import engine.testing", "No module named 'engine.testing'; 'engine' is not a package"),
    ],
)
def test_a_module_of_the_same_name(tmp_path: Path, hidden: str, program: str, said: str) -> None:
    """A module of the program's that hides one of the library's is named; where Python says it, docs/install.md has its
    words.
    """
    file = tmp_path / f"{hidden}.py"
    file.write_text("", encoding="utf-8")
    root = Path(__file__).resolve().parent.parent
    path = os.pathsep.join((str(tmp_path), str(root)))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert said.format(file=file) in done.stderr
    assert said.format(file=f"/home/me/{hidden}.py").removesuffix(" it") in (root / "docs" / "install.md").read_text()
