"""The life of a client's call: "RPC_ASYNC_STATE", "Asynchronous Call State", sections 1 and 3 of the reference."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import CodeType
from typing import Any

import pytest

from engine import (
    TRANSITIONS,
    Call,
    CallCancelled,
    CallPending,
    CompletionPort,
    EngineError,
    EventKind,
    InvalidAsyncHandle,
    InvalidState,
    On,
    RemoteFault,
    State,
)
from engine.testing import LIMIT

from ..helpers import GONE, PENDING, Bench, at_line, code_named, code_of, status_of
from ..interfaces import Probe

Benches = Callable[..., Bench]

# Where a call is begun.
BEGIN = code_named("begin", "engine/rpc/client/carrier.py")


class TestTransitions:
    """1.3: the table itself."""

    ALLOWED = {
        (State.IDLE, On.ISSUE): State.ISSUING,
        (State.IDLE, On.REINITIALIZE): State.IDLE,
        (State.ISSUING, On.ACCEPTED): State.PENDING,
        (State.ISSUING, On.REFUSED): State.SPENT,
        (State.PENDING, On.OUTCOME): State.DONE,
        (State.PENDING, On.CANCEL): State.CANCELLING,
        (State.CANCELLING, On.OUTCOME): State.DONE,
        (State.CANCELLING, On.CANCEL): State.CANCELLING,
        (State.DONE, On.COMPLETE): State.SPENT,
        (State.DONE, On.CANCEL): State.DONE,
        (State.SPENT, On.ISSUE): State.ISSUING,
        (State.SPENT, On.REINITIALIZE): State.IDLE,
    }

    @pytest.mark.parametrize("event", On)
    @pytest.mark.parametrize("state", State)
    def test_each_cell(self, state: State, event: On) -> None:
        """Each pair of state and event leads where the reference says, or nowhere."""
        assert TRANSITIONS[state].get(event) == self.ALLOWED.get((state, event))


# What each operation comes to in each state (1.4): a status, or a value; and the state afterwards.
ROWS: dict[str, dict[str, tuple[object, State]]] = {
    "idle": {
        "status": (GONE, State.IDLE),
        "done": (False, State.IDLE),
        "complete": (GONE, State.IDLE),
        "wait": (GONE, State.IDLE),
        "result": (GONE, State.IDLE),
        "cancel": (GONE, State.IDLE),
        "abort": (GONE, State.IDLE),
        "initialize": (None, State.IDLE),
        "begin": ("again", State.SPENT),
        "event": (None, State.IDLE),
    },
    "pending": {
        "status": (PENDING, State.PENDING),
        "done": (False, State.PENDING),
        "complete": (PENDING, State.PENDING),
        "wait": (False, State.PENDING),
        "result": (PENDING, State.PENDING),
        "cancel": (None, State.CANCELLING),
        "abort": (None, State.DONE),
        "initialize": (1915, State.PENDING),
        "begin": (1915, State.PENDING),
        "event": (None, State.PENDING),
    },
    "cancelling": {
        "status": (PENDING, State.CANCELLING),
        "done": (False, State.CANCELLING),
        "complete": (PENDING, State.CANCELLING),
        "wait": (False, State.CANCELLING),
        "result": (PENDING, State.CANCELLING),
        "cancel": (None, State.CANCELLING),
        "abort": (None, State.DONE),
        "initialize": (1915, State.CANCELLING),
        "begin": (1915, State.CANCELLING),
        "event": (None, State.CANCELLING),
    },
    "succeeded": {
        "status": (0, State.DONE),
        "done": (True, State.DONE),
        "complete": ("value", State.SPENT),
        "wait": (True, State.DONE),
        "result": ("value", State.SPENT),
        "cancel": (None, State.DONE),
        "abort": (None, State.DONE),
        "initialize": (1915, State.DONE),
        "begin": (1915, State.DONE),
        "event": (EventKind.CALL_COMPLETE, State.DONE),
    },
    "failed": {
        "status": (4711, State.DONE),
        "done": (True, State.DONE),
        "complete": (4711, State.SPENT),
        "wait": (True, State.DONE),
        "result": (4711, State.SPENT),
        "cancel": (None, State.DONE),
        "abort": (None, State.DONE),
        "initialize": (1915, State.DONE),
        "begin": (1915, State.DONE),
        "event": (EventKind.CALL_COMPLETE, State.DONE),
    },
    "cancelled": {
        "status": (1818, State.DONE),
        "done": (True, State.DONE),
        "complete": (1818, State.SPENT),
        "wait": (True, State.DONE),
        "result": (1818, State.SPENT),
        "cancel": (None, State.DONE),
        "abort": (None, State.DONE),
        "initialize": (1915, State.DONE),
        "begin": (1915, State.DONE),
        "event": (EventKind.CALL_COMPLETE, State.DONE),
    },
    "spent": {
        "status": (GONE, State.SPENT),
        "done": (True, State.SPENT),
        "complete": (GONE, State.SPENT),
        "wait": (GONE, State.SPENT),
        "result": (GONE, State.SPENT),
        "cancel": (GONE, State.SPENT),
        "abort": (GONE, State.SPENT),
        "initialize": (None, State.IDLE),
        "begin": ("again", State.SPENT),
        "event": (EventKind.CALL_COMPLETE, State.SPENT),
    },
}


def call_in(state: str, bench: Bench, key: str) -> "Call[Any]":
    """Return a call that is in the state of that row."""
    if state == "idle":
        return Call()
    if state == "succeeded":
        return bench.done("value")
    if state == "failed":
        return bench.failed(key, 4711)
    if state == "spent":
        call = bench.done()
        call.complete()
        return call
    call = bench.held(key)
    if state == "cancelling":
        call.cancel()
    elif state == "cancelled":
        call.cancel(abort=True)
    return call


def perform(operation: str, call: "Call[Any]", bench: Bench) -> object:
    """Perform the operation; return its value, or the status of what it raised."""
    actions: dict[str, Callable[[], object]] = {
        "status": call.status,
        "done": call.done,
        "complete": call.complete,
        "wait": lambda: call.wait(0),
        "result": lambda: call.result(0),
        "cancel": call.cancel,
        "abort": lambda: call.cancel(abort=True),
        "initialize": call.initialize,
        "begin": lambda: bench.probe.echo.begin("again", handle=call).result(LIMIT),
        "event": lambda: call.event,
    }
    try:
        return actions[operation]()
    except EngineError as error:
        return int(error.status)


class TestCells:
    """1.4: what each operation comes to in each state."""

    @pytest.mark.parametrize("state", ROWS)
    @pytest.mark.parametrize("operation", ROWS["idle"])
    def test_each_cell(self, any_bench: Bench, key: str, state: str, operation: str) -> None:
        """Each operation gives what the table says, and leaves the call in the state that it says."""
        call = call_in(state, any_bench, key)
        assert (perform(operation, call, any_bench), call.state) == ROWS[state][operation]

    @pytest.mark.parametrize("state", ["pending", "cancelling"])
    @pytest.mark.parametrize("operation", ["status", "done", "complete", "wait", "result", "initialize", "begin"])
    def test_what_is_refused_harms_nothing(self, bench: Bench, key: str, state: str, operation: str) -> None:
        """After each operation on a pending call, the call still gets its outcome (T12, T15, T17)."""
        call = call_in(state, bench, key)
        perform(operation, call, bench)
        assert bench.control.complete(key, "in the end") == 0
        assert call.result(LIMIT) == "in the end"


class TestEarlyComplete:
    """T12: completing before the reply."""

    def test_nothing_is_consumed(self, any_bench: Bench, key: str) -> None:
        """`complete` before the reply raises `CallPending` each time, and the reply is collected afterwards."""
        call = any_bench.held(key)
        for _ in range(3):
            with pytest.raises(CallPending):
                call.complete()
        assert any_bench.control.complete(key, "late") == 0
        assert call.wait(LIMIT)
        assert call.complete() == "late"

    def test_the_notification_still_comes(self, bench: Bench, key: str, port: CompletionPort) -> None:
        """A premature `complete` does not cost the notification."""
        call = bench.held(key, notify=port)
        with pytest.raises(CallPending):
            call.complete()
        bench.control.complete(key)
        assert port.get(LIMIT).overlapped is call

    def test_polling_alone_brings_the_reply(self, any_bench: Bench) -> None:
        """A caller that only polls sees the call complete: asking takes what has arrived."""
        call = any_bench.probe.echo.begin("polled")
        while call.status() == PENDING:
            pass
        assert call.complete() == "polled"

    def test_completing_alone_brings_the_reply(self, any_bench: Bench) -> None:
        """A caller that only tries to complete succeeds in the end."""
        call = any_bench.probe.echo.begin("tried")
        while (outcome := perform("complete", call, any_bench)) == PENDING:
            pass
        assert outcome == "tried"


def recording(code: CodeType) -> bool:
    """Pick the code that records outcomes, for `at_line`."""
    return code_named("record_locked", "engine/rpc/call.py")(code)


class TestExactlyOneOutcome:
    """INV-2, INV-3, INV-5, INV-6, T13: once accepted, a call becomes complete once, and is collected once."""

    def test_second_complete(self, any_bench: Bench) -> None:
        """A second `complete` raises 1914 and has no effect."""
        call = any_bench.done("first")
        assert call.complete() == "first"
        for _ in range(2):
            with pytest.raises(InvalidAsyncHandle):
                call.complete()

    def test_a_failure_is_final_too(self, bench: Bench, key: str) -> None:
        """A failure is delivered once; completing again raises 1914."""
        call = bench.failed(key)
        with pytest.raises(RemoteFault):
            call.complete()
        with pytest.raises(InvalidAsyncHandle):
            call.complete()

    def test_two_threads_complete_at_once(self, bench: Bench) -> None:
        """Of several threads that complete at once one gets the value; the others get 1914."""
        threads = 4
        calls = [bench.done(number) for number in range(50)]
        outcomes: list[list[object]] = [[] for _ in calls]
        barrier = threading.Barrier(threads)

        def complete_all() -> None:
            for call, outcome in zip(calls, outcomes, strict=True):
                barrier.wait(LIMIT)
                try:
                    outcome.append(call.complete())
                except InvalidAsyncHandle:
                    outcome.append("gone")

        running = [threading.Thread(target=complete_all) for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join(LIMIT)
        for number, outcome in enumerate(outcomes):
            assert sorted(map(str, outcome)) == [str(number), "gone", "gone", "gone"]

    def test_done_means_that_it_can_be_completed(self, bench: Bench) -> None:
        """At every step of recording an outcome: a call that is done has a status, and can be completed (INV-5)."""
        number = 0
        while True:
            call = bench.probe.echo.begin("value")
            seen: list[object] = []

            def look(call: Call[Any] = call, seen: list[object] = seen) -> None:
                if call.done() or call.wait(0):
                    seen.extend([call.status(), perform("complete", call, bench)])

            with at_line(number, recording, look) as lines:
                call.wait(LIMIT)
            assert seen in ([], [0, "value"])
            assert call.state is (State.SPENT if seen else State.DONE)
            if lines[0] == 0:
                continue  # Another thread took the reply.
            if number >= lines[0]:
                break
            number += 1
        assert number > 10

    @pytest.mark.parametrize("operation", ["status", "done", "complete", "wait", "cancel"])
    def test_the_reply_arrives_at_any_line(self, bench: Bench, operation: str) -> None:
        """Whenever the reply arrives while an operation looks at the call, its answer is that of before or after."""
        number = 0
        lines = [1]
        expected: dict[str, set[Any]] = {
            "status": {PENDING, 0},
            "done": {False, True},
            "complete": {"value", PENDING},
            "wait": {True, False},
            "cancel": {None},
        }
        answers = expected[operation]
        while number < lines[0]:
            call = bench.probe.echo.begin("value")

            def wait(call: Call[Any] = call) -> None:
                with suppress(InvalidAsyncHandle):  # The reply was fast, and the operation has just collected it.
                    call.wait(LIMIT)

            def arrive(wait: Callable[[], None] = wait) -> None:
                other = threading.Thread(target=wait)
                other.start()
                other.join(LIMIT)

            with at_line(number, code_of(getattr(Call, operation)), arrive) as lines:
                answer = perform(operation, call, bench)
            assert answer in answers
            if operation != "complete" or answer == PENDING:
                assert call.result(LIMIT) == "value"
            number += 1

    def test_the_notification_may_come_first(self, bench: Bench) -> None:
        """A notification may be seen before `begin` has returned; the call is in order then (INV-6)."""
        come = threading.Event()
        before_return: list[bool] = []

        def on_reply(call: "Call[Any]", kind: EventKind) -> None:
            call.complete()
            come.set()

        def let_it_come() -> None:
            bench.client.statistics()
            before_return.append(come.wait(LIMIT))

        lines = [0]
        while not before_return:  # How many lines `begin` runs depends on what other threads send.
            come.clear()
            # The last line of `begin`, where it returns the handle.
            with at_line(lines[0] - 1, BEGIN, let_it_come) as lines:
                call = bench.probe.echo.begin("early", notify=on_reply)
            assert come.wait(LIMIT)
        assert before_return == [True]
        assert call.state is State.SPENT

    def test_reply_without_a_reader_is_kept(self, bench: Bench) -> None:
        """An outcome waits for as long as nobody collects it."""
        first = bench.done("kept")
        for number in range(10):
            assert bench.probe.echo(number) == number
        assert first.complete() == "kept"


class TestReuse:
    """T1, T16, T17, INV-1, C1: one handle, one call after another."""

    def test_with_initialising(self, any_bench: Bench) -> None:
        """A handle carries another call after `initialize`."""
        call = any_bench.done("first")
        assert call.complete() == "first"
        call.initialize()
        assert call.state is State.IDLE
        assert any_bench.probe.echo.begin("second", handle=call) is call
        assert call.result(LIMIT) == "second"

    def test_without_initialising(self, bench: Bench) -> None:
        """A spent handle may carry another call as it is."""
        call = bench.done("first")
        call.complete()
        bench.probe.add.begin(1, 2, handle=call)
        assert call.result(LIMIT) == 3

    def test_a_failed_call_leaves_the_handle_usable(self, bench: Bench, key: str) -> None:
        """After a failure the handle can be used again."""
        call = bench.failed(key)
        assert status_of(call.complete) == 4711
        bench.probe.echo.begin("again", handle=call)
        assert call.result(LIMIT) == "again"

    def test_many_times(self, bench: Bench) -> None:
        """One handle can carry a thousand calls."""
        call: Call[Any] = Call()
        for number in range(1000):
            bench.probe.echo.begin(number, handle=call)
            assert call.result(LIMIT) == number

    def test_user_data_stays(self, bench: Bench) -> None:
        """`user_data` is the caller's: initialising and issuing leave it alone (T1)."""
        call: Call[Any] = Call(user_data="mine")
        bench.probe.echo.begin(1, handle=call)
        assert call.result(LIMIT) == 1
        call.initialize()
        assert call.user_data == "mine"

    def test_a_used_handle_on_another_client(self, benches: Benches, services: Callable[..., str]) -> None:
        """A handle belongs to no client: the next call on it may be another one's."""
        one, other = benches(services("ipc")), benches(services("tcp"))
        call = one.done("ipc")
        call.complete()
        other.probe.echo.begin("tcp", handle=call)
        assert call.result(LIMIT) == "tcp"

    def test_issuing_on_a_busy_handle_sends_nothing(self, bench: Bench, key: str) -> None:
        """`begin` on a handle whose call is pending raises, sends nothing, and leaves all calls alone (T17)."""
        call = bench.held(key)
        with pytest.raises(InvalidState):
            bench.probe.note.begin(key, handle=call)
        others = [bench.probe.echo.begin(number) for number in range(20)]
        assert [other.result(LIMIT) for other in others] == list(range(20))
        bench.control.complete(key, "unharmed")
        assert call.result(LIMIT) == "unharmed"
        bench.probe.note(key)
        assert bench.control.noted(key) == 1

    @pytest.mark.parametrize("handle", [3, "call", object()])
    def test_a_handle_that_is_none(self, bench: Bench, handle: Any) -> None:
        """`begin` with something else than a handle raises, naming the parameter, and harms no other call."""
        with pytest.raises(EngineError, match="handle"):
            bench.probe.echo.begin(1, handle=handle)
        others = [bench.probe.echo.begin(number) for number in range(20)]
        assert [other.result(LIMIT) for other in others] == list(range(20))


class TestQuery:
    """3.3: status queries."""

    def test_any_thread_may_ask(self, bench: Bench, key: str) -> None:
        """Status, state and completion are the same from another thread."""
        call = bench.held(key)
        seen: list[object] = []

        def ask() -> None:
            seen.append(call.status())
            bench.control.complete(key, "there")
            seen.append(call.wait(LIMIT))
            seen.append(call.status())

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(LIMIT)
        assert seen == [PENDING, True, 0]
        assert call.complete() == "there"

    def test_asking_changes_nothing(self, bench: Bench) -> None:
        """A status may be asked for any number of times, before and after the outcome."""
        call = bench.done()
        assert [call.status() for _ in range(5)] == [0] * 5
        assert call.complete() == "value"

    @pytest.mark.parametrize("status", [1, 5, 87, 1726, 1818, 4711, 0xFFFFFFFF])
    def test_the_servers_code(self, bench: Bench, key: str, status: int) -> None:
        """The query tells the very code that completing will give."""
        call = bench.failed(key, status)
        assert call.status() == status
        assert status_of(call.complete) == status

    def test_a_code_that_means_pending(self, bench: Bench, key: str) -> None:
        """A call that the server ended with 997 is still seen to have ended."""
        call = bench.failed(key, PENDING)
        assert call.status() not in (0, PENDING)
        with pytest.raises(RemoteFault) as raised:
            call.complete()
        assert raised.value.status == PENDING
        assert call.state is State.SPENT


class TestRunningOut:
    """A result that was not there in time."""

    def test_it_is_a_timeout_error(self, bench: Bench, key: str) -> None:
        """`result` raises a `TimeoutError` with status 997, which says what was waited for and for how long."""
        call = bench.held(key)
        with pytest.raises(
            TimeoutError, match=r"call \d+, test\.Probe\.hold, is pending, .* since \d\d:\d\d:\d\d, for 0\.0"
        ) as raised:
            call.result(0.01)
        assert isinstance(raised.value, CallPending) and raised.value.status == PENDING
        bench.control.complete(key, "later")
        assert call.result(LIMIT) == "later"

    def test_asking_without_waiting(self, bench: Bench, key: str) -> None:
        """So does asking for it without time to wait, by `result(0)` and by `complete`."""
        call = bench.held(key)
        asks: list[Callable[[], object]] = [lambda: call.result(0), call.complete]
        for ask in asks:
            with pytest.raises(TimeoutError, match=r"call \d+, test\.Probe\.hold,") as raised:
                ask()
            assert raised.value.status == PENDING  # type: ignore[attr-defined]  # it is a CallPending


class TestWait:
    """Waiting for the reply on the call itself (2.2)."""

    def test_a_timeout_leaves_the_call_alone(self, any_bench: Bench, key: str) -> None:
        """A wait that timed out returns False, and the call goes on."""
        call = any_bench.held(key)
        assert not call.wait(0.01)
        assert call.state is State.PENDING
        any_bench.control.complete(key, 1)
        assert call.wait(LIMIT)
        assert call.complete() == 1

    def test_several_threads_may_wait(self, bench: Bench, key: str) -> None:
        """All threads that wait on one call are released by its outcome."""
        call = bench.held(key)
        released: list[bool] = []
        running = [threading.Thread(target=lambda: released.append(call.wait(LIMIT))) for _ in range(4)]
        for thread in running:
            thread.start()
        bench.control.complete(key)
        for thread in running:
            thread.join(LIMIT)
        assert released == [True] * 4

    def test_waiting_long_costs_no_processor_time(self, bench: Bench, key: str) -> None:
        """The waiting thread stays awake for a moment at most, however quick the calls before were."""
        for _ in range(10):
            bench.probe.echo("quick")
        call = bench.probe.hold.begin(key)
        before = time.thread_time()
        assert not call.wait(0.2)
        assert time.thread_time() - before < 0.05
        call.cancel(abort=True)

    @pytest.mark.parametrize("timeout", [-1, -0.001, float("nan"), "1", True, 10**400])
    def test_a_timeout_that_is_none(self, bench: Bench, key: str, timeout: Any) -> None:
        """A timeout that is no number of seconds is refused, with the value seen."""
        call = bench.held(key)
        with pytest.raises(EngineError, match="timeout"):
            call.wait(timeout)

    def test_result_waits_and_completes(self, bench: Bench, key: str) -> None:
        """`result` is waiting and completing in one."""
        call = bench.probe.echo.begin("both")
        assert call.result(LIMIT) == "both"
        assert status_of(lambda: call.result(LIMIT)) == GONE


class TestBlockingTwin:
    """Calling is beginning, waiting and completing in one."""

    def test_value(self, any_bench: Bench) -> None:
        """A blocking call returns the result."""
        assert any_bench.probe.add(2, 3) == 5
        assert any_bench.probe.nothing() is None

    def test_failure(self, any_bench: Bench) -> None:
        """A blocking call raises what completing would raise."""
        with pytest.raises(RemoteFault, match="ValueError: told so"):
            any_bench.probe.fail("ValueError", "told so")

    def test_arguments_by_keyword_and_default(self, bench: Bench) -> None:
        """Keywords and defaults are those of the contract, in both twins."""
        assert bench.probe.add(right=1, left=2) == 3
        assert bench.probe.add(5) == 15
        assert bench.probe.add.begin(right=1, left=2).result(LIMIT) == 3
        assert bench.probe.add.begin(5).result(LIMIT) == 15

    def test_own_time_limit(self, bench: Bench, key: str) -> None:
        """`timeout=` of a blocking call ends it with 1818."""
        with pytest.raises(CallCancelled):
            bench.probe.hold(key, timeout=0.01)


class TestOutputs:
    """1.5: what a completed call gives."""

    def test_no_value_on_failure(self, bench: Bench, key: str) -> None:
        """Whatever was sent, a call that failed gives an error and no value."""
        call = bench.failed(key)
        with pytest.raises(RemoteFault) as raised:
            call.complete()
        assert (raised.value.status, raised.value.text, raised.value.type_name) == (4711, "aborted", "")

    def test_a_result_of_the_wrong_type(self, bench: Bench) -> None:
        """A result that is not what the contract says completes the call with 1783, once."""
        call = bench.probe.mistyped.begin()
        assert call.wait(LIMIT)
        assert status_of(call.complete) == 1783
        assert status_of(call.complete) == GONE

    def test_each_call_has_an_error_of_its_own(self, bench: Bench, key: str) -> None:
        """Two failures raise two objects."""
        first, second = bench.failed(key), bench.failed(key + "2")
        errors = []
        for call in (first, second):
            with pytest.raises(RemoteFault) as raised:
                call.complete()
            errors.append(raised.value)
        assert errors[0] is not errors[1]


class TestRepr:
    """What a person sees."""

    def test_call(self, bench: Bench, key: str) -> None:
        """A handle shows its operation and its state."""
        call = bench.held(key)
        assert "test.Probe.hold" in repr(call) and "PENDING" in repr(call)
        assert "IDLE" in repr(Call())

    def test_binding_and_client(self, bench: Bench) -> None:
        """A client shows its endpoint and state, an operation its interface and name."""
        assert bench.endpoint in repr(bench.client)
        assert "test.Probe.echo" in repr(bench.probe.echo)
        assert "test.Probe" in repr(bench.client.bind("test.Probe"))

    def test_operations_of_the_contract_itself(self) -> None:
        """An operation of the interface, rather than of a binding, says what to do."""
        with pytest.raises(EngineError, match="bind"):
            Probe.echo(1)
        with pytest.raises(EngineError, match="bind"):
            Probe.echo.begin(1)
