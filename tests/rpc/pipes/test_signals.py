"""What is told of a call with pipes: sections 2.1 and 2.8."""

from queue import Queue
from typing import Any

import pytest

from engine import (
    Client,
    CompletionPort,
    Event,
    EventKind,
    InOutPipe,
    InPipe,
    Interface,
    InvalidParameter,
    OutPipe,
    Pipe,
    PipePending,
    Server,
    ServerCall,
    apc,
    manager,
    operation,
    sleep,
)
from engine.testing import LIMIT, wait_until

from ..helpers import status_of
from .conftest import Piped

RECEIVE, COMPLETE = EventKind.RECEIVE_COMPLETE, EventKind.CALL_COMPLETE


class TestSignals:
    """Sections 2.1 and 2.8: several signals of one call to one target, the last one last."""

    def script(self, piped: Piped, call: Any, key: str, wait: Any) -> None:
        """One pending pull, one element, the end, and the completion."""
        pipe = call.pipe("numbers")
        assert status_of(pipe.pull) == 997
        assert piped.hand.push(key, "numbers", [1]) == 0
        wait(1)
        assert pipe.pull() == [1]
        assert piped.hand.push(key, "numbers", []) == 0
        assert piped.hand.complete(key, "end") == 0
        wait(2)
        assert call.status() == 0
        assert pipe.pull() == []
        assert call.complete() == "end"

    def test_callback(self, piped: Piped, key: str) -> None:
        """Each call of the function gets its kind."""
        told: list[Any] = []
        call = piped.held("held_out", key, notify=lambda call, kind: told.append((call, kind)))
        self.script(piped, call, key, lambda count: wait_until(lambda: len(told) == count))
        assert told == [(call, RECEIVE), (call, COMPLETE)]

    def test_apc(self, piped: Piped, key: str) -> None:
        """Each APC gets its kind, in an alertable wait of its thread."""
        told: list[Any] = []
        call = piped.held("held_out", key, notify=apc(lambda call, kind: told.append((call, kind))))

        def wait(count: int) -> None:
            while len(told) < count:
                assert sleep(LIMIT, alertable=True) == 192

        self.script(piped, call, key, wait)
        assert told == [(call, RECEIVE), (call, COMPLETE)]

    def test_port(self, piped: Piped, key: str, port: CompletionPort) -> None:
        """Each packet has the caller's three values, and its kind."""
        told: list[Any] = []
        call = piped.held("held_out", key, notify=port.packet(key="k", transferred=3))

        def wait(count: int) -> None:
            while len(told) < count:
                packet = port.get(LIMIT)
                told.append((packet.key, packet.transferred, packet.overlapped, packet.event))

        self.script(piped, call, key, wait)
        assert told == [("k", 3, call, RECEIVE), ("k", 3, call, COMPLETE)]

    def test_event(self, piped: Piped, key: str) -> None:
        """The event is set each time; the handle tells the kind."""
        with Event() as event:
            call = piped.held("held_out", key, notify=event)
            kinds: list[Any] = []

            def wait(count: int) -> None:
                assert event.wait(LIMIT)
                kinds.append(call.event)

            self.script(piped, call, key, wait)
            assert kinds == [RECEIVE, COMPLETE]
            assert not event.is_set()

    def test_nothing(self, piped: Piped, key: str) -> None:
        """Without a target, polling shows the same."""
        call = piped.held("held_out", key)
        pipe = call.pipe("numbers")

        def wait(count: int) -> None:
            wait_until(lambda: call.event is (RECEIVE if count == 1 else COMPLETE) or (call.status() and False))

        self.script(piped, call, key, wait)
        assert pipe.name == "numbers"

    def test_a_receive_that_nobody_waits_for(self, far: Piped, key: str, port: CompletionPort) -> None:
        """Elements that arrive without a pending pull signal nothing."""
        call = far.held("held_out", key, notify=port)
        assert far.hand.push(key, "numbers", [1]) == 0
        assert far.hand.push(key, "numbers", []) == 0
        assert far.hand.complete(key) == 0
        assert port.get(LIMIT).event == COMPLETE
        assert list(call.pipe("numbers")) == [1]
        assert call.complete() is None

    def test_sends_are_not_told_unless_asked_for(self, far: Piped, key: str, port: CompletionPort) -> None:
        """Without the flag the only signal of an in pipe is call-complete."""
        call = far.held("held_in", key, notify=port)
        call.pipe("numbers").push([1])
        call.pipe("numbers").push([])
        assert far.hand.pull_wait(key, "numbers") == [1]
        assert far.hand.pull_wait(key, "numbers") == []
        assert far.hand.complete(key) == 0
        assert port.get(LIMIT).event == COMPLETE
        assert port.statistics().depth == 0

    def test_nothing_is_told_after_a_failed_pipe(self, far: Piped, key: str, port: CompletionPort) -> None:
        """A push that failed has ended the call: no completion is told of."""
        call = far.held("held_in", key, notify=port)
        call.pipe("numbers").push([])
        assert status_of(lambda: call.pipe("numbers").push([1])) == 1916
        far.hand.cancelled(key)
        call.initialize()
        assert port.statistics().posted == 0

    def test_a_callback_that_raises(self, far: Piped, key: str, caplog: pytest.LogCaptureFixture) -> None:
        """It is logged, and the next signal comes all the same."""
        told: list[EventKind] = []

        def note(call: Any, kind: EventKind) -> None:
            told.append(kind)
            raise KeyError(kind)

        call = far.held("held_out", key, notify=note)
        self.script(far, call, key, lambda count: wait_until(lambda: len(told) == count))
        wait_until(lambda: sum("the callback of" in record.message for record in caplog.records) == 2)

    def test_kinds_of_pipes(self) -> None:
        """The three annotations are three types of one kind."""
        assert len({InPipe, OutPipe, InOutPipe}) == 3


class Sums(Interface, id="test.Sums"):
    """Operations to be worked by hand."""

    @operation
    def total(self, numbers: InPipe[int]) -> int:
        """Return the sum."""

    @operation
    def nothing(self) -> None:
        """Return nothing."""


class TestBeforePipes:
    """Source: "Server-side Asynchronous Pipe Handling": choosing how to be told as the pipes are first used."""

    @pytest.fixture
    def calls(self) -> Any:
        """A binding, and the calls that its routines got, which the test ends."""
        begun: Queue[ServerCall] = Queue()

        class Routines:
            """Hands its calls over."""

            @manager
            def total(self, call: ServerCall, numbers: Pipe[int]) -> None:
                begun.put(call)

            @manager
            def nothing(self, call: ServerCall) -> None:
                begun.put(call)

        with Server("loopback://before-pipes") as server:
            server.register(Sums, Routines())
            server.listen()
            with Client(server.endpoint) as client:
                yield client.bind(Sums), begun

    def test_before_the_first_use(self, calls: Any, port: CompletionPort) -> None:
        """The function is called once, before the first push or pull, and what it chooses counts for that one."""
        sums, begun = calls
        asked: list[ServerCall] = []
        call = sums.total.begin()
        served = begun.get(timeout=LIMIT)
        served.before_pipes(lambda: (asked.append(served), served.notify_pipes(port.packet(key="chosen"))))
        assert (asked, served.event) == ([], None)
        for number in range(2):
            with pytest.raises(PipePending):
                served.pipe("numbers").pull()
            assert asked == [served]
            call.pipe("numbers").push([number])
            assert port.get(LIMIT).key == "chosen" and served.event is RECEIVE
            assert served.pipe("numbers").pull() == [number]
        served.abort(4711)

    def test_a_function_that_raises(self, calls: Any) -> None:
        """The push or pull raises what the function raised, nothing has happened, and the next one asks again."""
        sums, begun = calls
        call = sums.total.begin()
        served = begun.get(timeout=LIMIT)
        call.pipe("numbers").push([1])
        answers: list[Any] = [KeyError("not yet"), None]

        def prepare() -> None:
            if (error := answers.pop(0)) is not None:
                raise error

        served.before_pipes(prepare)
        with pytest.raises(KeyError):
            served.pipe("numbers").pull_wait()
        assert served.pipe("numbers").pull_wait() == [1]
        assert answers == []
        served.abort(4711)

    def test_without_pipes(self, calls: Any) -> None:
        """A call without pipes has no use for it."""
        sums, begun = calls
        sums.nothing.begin()
        served = begun.get(timeout=LIMIT)
        assert served.event is None
        with pytest.raises(InvalidParameter):
            served.before_pipes(lambda: None)
        served.complete()
