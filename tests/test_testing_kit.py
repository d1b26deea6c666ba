"""The tools of `engine.testing` for what calls and serves, and the plugin for pytest."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import (
    CallCancelled,
    CallFailed,
    CallTimeout,
    Client,
    CompletionPort,
    Event,
    Interface,
    InvalidParameter,
    OutPipe,
    RemoteFault,
    Server,
    ServerTooBusy,
    ServerUnavailable,
    ThreadPool,
    operation,
)
from engine.testing import LIMIT, Faults, Gate, Pair, Stub, no_leaks, wait_until

ROOT = Path(__file__).resolve().parent.parent


class Thesaurus(Interface, id="test.Thesaurus"):
    """What is served, and played."""

    @operation
    def synonyms(self, word: str) -> list[str]:
        """Return words."""

    @operation(idempotent=True)
    def count(self) -> int:
        """Return a number."""

    @operation
    def all(self, words: OutPipe[str] = ...) -> None:
        """Push words."""


class Words:
    """Serves it."""

    def __init__(self) -> None:
        self.gate = Gate(is_open=True)
        self.entered = 0

    def synonyms(self, word: str) -> list[str]:
        self.entered += 1
        self.gate.pass_through()
        return [word.upper()]

    async def count(self) -> int:
        return 7

    def all(self, words: Any) -> Iterator[str]:
        yield from ("a", "b")


class TestPair:
    """`Pair`: a server and a client in this process."""

    def test_a_binding(self) -> None:
        """It is bound, typed or by name, and closed at the end of the block."""
        with Pair(Thesaurus, Words()) as pair:
            assert pair.binding.synonyms("quick") == ["QUICK"] and pair.binding.count() == 7
            assert list(pair.binding.all.stream()) == ["a", "b"]
            assert not pair.closed
        assert pair.closed and pair.server.closed
        with Pair("words", Words()) as other:
            assert other.binding.synonyms("quick") == ["QUICK"]

    def test_options(self) -> None:
        """Both have the options that are given; what one of them refuses leaves nothing open."""
        with no_leaks():
            with Pair(Thesaurus, Words(), server={"workers": 3}, client={"timeout": 0.01}) as pair:
                assert pair.server.pool.statistics().maximum == 3
                pair.faults.drop()
                with pytest.raises(CallTimeout):
                    pair.binding.synonyms("quick")
            with pytest.raises(InvalidParameter):
                Pair(Thesaurus, Words(), client={"max_calls": 0})

    def test_its_end_waits_for_no_call(self) -> None:
        """A routine that does not return holds nothing up; its call ends as the client closes."""
        words = Words()
        words.gate.close()
        with Pair(Thesaurus, words) as pair:
            call = pair.binding.synonyms.begin("quick")
            words.gate.wait_for_arrivals()
        with pytest.raises(CallCancelled):
            call.complete()
        assert pair.server.closed
        words.gate.open()

    def test_in_a_loop(self) -> None:
        """`async with` closes it, and the loop goes on."""

        async def use() -> None:
            async with Pair(Thesaurus, Words()) as pair:
                assert await pair.binding.synonyms.begin("quick") == ["QUICK"]
            assert pair.closed

        asyncio.run(use(), debug=True)


class TestFaults:
    """`Faults`: what goes wrong with the next calls."""

    def test_refused(self) -> None:
        """As many calls as were ordered are refused, and did not run."""
        words = Words()
        with Pair(Thesaurus, words) as pair:
            pair.faults.refuse(2)
            pair.faults.refuse(error=lambda: ServerUnavailable("closed for today"))
            assert pair.faults.pending == 3
            for kind in (ServerTooBusy, ServerTooBusy, ServerUnavailable):
                with pytest.raises(kind) as caught:
                    pair.binding.synonyms("quick")
                assert not caught.value.may_have_run
            assert words.entered == pair.faults.pending == 0
            assert pair.binding.synonyms("quick") == ["QUICK"]

    def test_dropped(self) -> None:
        """A call that is dropped stays pending until its time is up, or the orders are cleared."""
        with Pair(Thesaurus, Words()) as pair:
            for limit in (0.01, 1.0, 10.0):  # The longer ones for a slow machine, on which it did not arrive before.
                pair.faults.clear()
                pair.faults.drop(2)
                with pytest.raises(CallTimeout):
                    pair.binding.synonyms("quick", timeout=limit)
                if pair.faults.dropped == 1:
                    break
            call = pair.binding.count.begin()
            wait_until(lambda: pair.faults.dropped == 2)
            pair.faults.clear()
            assert pair.faults.dropped == 0
            assert isinstance(call.exception(LIMIT), CallFailed)

    def test_late(self) -> None:
        """A call that is delayed may be too late."""
        with Pair(Thesaurus, Words()) as pair:
            pair.faults.delay(0.2, operation="synonyms")
            assert pair.binding.count() == 7
            with pytest.raises(CallTimeout):
                pair.binding.synonyms("quick", timeout=0.01)
            pair.faults.delay(0.0)
            assert pair.binding.synonyms("quick") == ["QUICK"]

    def test_a_lost_connection(self) -> None:
        """A call whose connection is lost may have run; one that is idempotent is sent again."""
        words = Words()
        with Pair(Thesaurus, words) as pair:
            pair.faults.lose_connection()
            with pytest.raises(CallFailed) as caught:
                pair.binding.synonyms("quick")
            assert caught.value.may_have_run and words.entered == 1
            pair.faults.lose_connection()
            assert pair.binding.count() == 7 and pair.faults.pending == 0

    def test_of_any_server(self, tmp_path: Path) -> None:
        """They are for any server, and any link."""
        with Server(f"ipc://{tmp_path}/faults") as server:
            server.register(Thesaurus, Words())
            server.listen()
            faults = Faults(server)
            faults.refuse()
            with Client(server.endpoint) as client, pytest.raises(ServerTooBusy):
                client.bind(Thesaurus).count()


class TestStub:
    """`Stub`: a service that answers from a table."""

    def test_answers(self) -> None:
        """Values, functions and exceptions; what is not in the table is an error. Calls are noted."""
        answers: dict[str, Any] = {"synonyms": lambda word: [word, word], "count": 3, "all": lambda pipe: iter("xy")}
        with Stub(Thesaurus, answers) as stub:
            assert stub.binding.synonyms("a") == ["a", "a"]
            assert stub.binding.count() == 3
            answers["count"] = ServerTooBusy("full")
            with pytest.raises(ServerTooBusy, match="full"):
                stub.binding.count()
            del answers["count"]
            with pytest.raises(RemoteFault, match="no answer for count"):
                stub.binding.count()
            assert stub.calls == [("synonyms", ("a",)), *[("count", ())] * 3]

    def test_what_is_wrong(self) -> None:
        """A table for another interface is refused; what shows the stub in the traceback, as pytest does, can."""
        stub = Stub.__new__(Stub)
        with pytest.raises(InvalidParameter, match="'synonym'"):
            stub.__init__(Thesaurus, {"synonym": 1})  # type: ignore[misc]  # as a class does when it is called
        assert repr(stub) == "<Stub that could not be made>"


class TestLeaks:
    """`no_leaks`: what is left open is named."""

    @pytest.mark.parametrize("make", [Event, CompletionPort, lambda: ThreadPool(1), lambda: Client("loopback://no")])
    def test_what_is_left(self, make: Any) -> None:
        """It is an error that names it; what was open before, or is closed, is none."""
        earlier = make()
        with no_leaks(), make():
            pass
        with pytest.raises(AssertionError, match=r"left open: <\w+"), no_leaks():
            left = make()
        left.close()
        earlier.close()

    def test_a_call(self) -> None:
        """So is a call that has no outcome."""
        with Pair(Thesaurus, Words()) as pair:
            with pytest.raises(AssertionError, match="test.Thesaurus.synonyms PENDING"), no_leaks():
                pair.faults.drop()
                call = pair.binding.synonyms.begin("quick")
            call.cancel(abort=True)

    def test_what_raises(self) -> None:
        """What the test itself raises counts more."""
        with pytest.raises(LookupError), no_leaks():
            event = Event()
            raise LookupError
        event.close()


PROGRAM = """
import pytest
from engine import Event, Interface, ServerTooBusy, operation


class Words:
    def synonyms(self, word):
        return [word.upper()]


class Contract(Interface, id="words"):
    @operation
    def synonyms(self, word: str) -> list[str]: ...


@pytest.mark.usefixtures("callport_no_leaks")
def test_serve(callport_serve, callport_pair, callport_stub):
    assert callport_serve("words", Words()).synonyms("a") == ["A"]
    pair = callport_pair(Contract, Words())
    pair.faults.refuse()
    with pytest.raises(ServerTooBusy):
        pair.binding.synonyms("a")
    assert callport_stub(Contract, {"synonyms": ["b"]}).binding.synonyms("a") == ["b"]


@pytest.mark.usefixtures("callport_no_leaks")
def test_leak():
    Event.kept = Event()
"""


class TestPlugin:
    """`engine.testing.plugin`, for pytest."""

    def test_fixtures(self, tmp_path: Path) -> None:
        """They serve and play, and find what is left open."""
        (tmp_path / "test_it.py").write_text(PROGRAM)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:callport", "-p", "engine.testing.plugin",
             "-p", "no:cacheprovider"],
            capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=LIMIT,
        )  # fmt: skip
        assert "2 passed" in done.stdout and "1 error" in done.stdout and "left open: <Event" in done.stdout, (
            done.stdout
        )

    def test_it_is_found(self) -> None:
        """The distribution has the entry point."""
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert '[project.entry-points.pytest11]\ncallport = "engine.testing.plugin"' in text

    @pytest.mark.parametrize("module", ["engine", "engine.testing"])
    def test_what_is_not_imported(self, module: str) -> None:
        """Neither the library nor the tools import pytest."""
        program = f"import {module}, sys; sys.exit('pytest' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=LIMIT).returncode == 0
