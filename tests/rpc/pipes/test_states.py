"""What both ends of a pipe do, step by step: "Asynchronous Pipes", "Asynchronous Pipe State", section 6."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from engine import (
    BadStubData,
    CallCancelled,
    CallPending,
    CompletionPort,
    EngineError,
    EventKind,
    InPipe,
    Interface,
    InvalidArgumentType,
    InvalidAsyncHandle,
    InvalidParameter,
    InvalidState,
    OutPipe,
    PipeError,
    PipePending,
    RemoteFault,
    State,
    Status,
    operation,
)
from engine.testing import LIMIT

from ..helpers import status_of, untyped
from .conftest import Piped
from .interfaces import Point

SEND, RECEIVE, COMPLETE = EventKind.SEND_COMPLETE, EventKind.RECEIVE_COMPLETE, EventKind.CALL_COMPLETE
GONE = 1914


def pull(pipe: Any, count: int) -> list[Any]:
    """Pull so many elements, waiting."""
    taken: list[Any] = []
    while len(taken) < count:
        some = pipe.pull_wait(count - len(taken), LIMIT)
        assert some, "the end came early"
        taken += some
    return taken


class TestModel:
    """Section 6.1: what push and pull are."""

    def test_elements_arrive_in_order_and_once(self, piped: Piped, key: str) -> None:
        """What is pushed in several steps is pulled in that order, whatever the borders were."""
        call = piped.held("held_in", key)
        pipe = call.pipe("numbers")
        pipe.push([1, 2, 3])
        pipe.push((4,))
        pipe.push(range(5, 8))
        assert piped.hand.pull_wait(key, "numbers", 2) == [1, 2]
        got = [1, 2]
        while len(got) < 7:
            got += piped.hand.pull_wait(key, "numbers", 4)
        assert got == list(range(1, 8))

    def test_what_was_pushed_may_change(self, far: Piped, key: str) -> None:
        """When push returns, the buffer may be used again."""
        call = far.held("held_in", key)
        buffer = [1, 2]
        call.pipe("numbers").push(buffer)
        buffer[:] = [0, 0]
        assert far.hand.pull_wait(key, "numbers") == [1, 2]

    def test_no_elements_end_the_stream(self, piped: Piped, key: str) -> None:
        """A push of nothing is the end; it is pulled as an empty list."""
        call = piped.held("held_in", key)
        call.pipe("numbers").push([1])
        call.pipe("numbers").push([])
        assert piped.hand.pull_wait(key, "numbers") == [1]
        assert piped.hand.pull_wait(key, "numbers") == []
        assert piped.hand.complete(key, "end") == 0
        assert call.result(LIMIT) == "end"

    def test_pull_says_pending(self, piped: Piped, key: str) -> None:
        """Nothing there yet is 997, and harms nothing."""
        call = piped.held("held_out", key)
        pipe = call.pipe("numbers")
        for _ in range(3):
            with pytest.raises(PipePending) as caught:
                pipe.pull()
            assert caught.value.status == 997 and isinstance(caught.value, CallPending)
        assert call.state is State.PENDING
        assert piped.hand.push(key, "numbers", [1]) == 0
        assert pull(pipe, 1) == [1]

    def test_pull_takes_no_more_than_asked(self, far: Piped, key: str) -> None:
        """The rest stays for the next pull."""
        call = far.held("held_out", key)
        assert far.hand.push(key, "numbers", [1, 2, 3, 4, 5]) == 0
        pipe = call.pipe("numbers")
        assert pipe.pull_wait(2, LIMIT) == [1, 2]
        assert pipe.pull(1) == [3]
        assert pipe.pull(100) == [4, 5]

    def test_a_wait_with_a_limit(self, far: Piped, key: str) -> None:
        """A pull that waits in vain says pending, and takes nothing."""
        call = far.held("held_out", key)
        assert status_of(lambda: call.pipe("numbers").pull_wait(timeout=0.001)) == 997
        assert status_of(lambda: call.pipe("numbers").pull_wait(timeout=0)) == 997
        assert far.hand.push(key, "numbers", [1]) == 0
        assert pull(call.pipe("numbers"), 1) == [1]

    def test_elements_of_a_type(self, piped: Piped) -> None:
        """Elements are of the type that the annotation says, on both sides."""
        stream = piped.streams.mirror.stream(points=[Point(1, 2), Point(3, 4)])
        assert list(stream) == [Point(2, 1), Point(4, 3)]

    def test_an_element_of_another_type(self, piped: Piped, key: str) -> None:
        """An element that is not what the annotation says fails the pull with 1783, and with it the call."""

        class Other(Interface, id="test.Streams"):
            @operation
            def held_in(self, key: str, numbers: InPipe[Any]) -> Any:
                """As the service has it, but for the elements."""

        call = untyped(piped.client.bind(Other).held_in).begin(key)
        piped.hand.arrived(key)
        call.pipe("numbers").push(["one"])
        assert piped.hand.pull_wait(key, "numbers") == ["status", 1783]
        assert call.wait(LIMIT)
        assert status_of(call.complete) == 1783

    @pytest.mark.parametrize("bad", [["one"], [1, 2, None], (1.5,), [True], {"two"}], ids=str)
    def test_an_element_of_another_type_pushed_by_the_client(self, piped: Piped, key: str, bad: Any) -> None:
        """It is refused before it is sent, naming the pipe: 1783, and the call is over as after any failed push."""
        call = piped.held("held_in", key)
        pipe = call.pipe("numbers")
        pipe.push([7])
        with pytest.raises(BadStubData, match="pipe 'numbers' must be int, not") as caught:
            pipe.push(bad)
        assert caught.value.status == 1783
        assert piped.hand.pull_wait(key, "numbers") == [7]
        piped.hand.cancelled(key)
        assert status_of(call.complete) == 1914
        assert status_of(lambda: pipe.push(["one"])) == 1914

    def test_an_element_of_another_type_pushed_by_the_server(self, piped: Piped, key: str) -> None:
        """The routine gets 1783 before it is sent, and the caller gets it as the outcome of its call."""
        call = piped.held("held_out", key)
        assert piped.hand.push(key, "numbers", ["one"]) == ["status", 1783]
        assert call.wait(LIMIT)
        with pytest.raises(BadStubData, match="pipe 'numbers' must be int, not str"):
            call.complete()

    def test_an_element_of_another_type_from_an_iterable(self, piped: Piped) -> None:
        """An iterable that yields one ends its call with that error, whoever pushes what it yields."""
        with pytest.raises(BadStubData, match="pipe 'numbers' must be int, not str"):
            untyped(piped.streams.total)(5, [1, "two"])
        call = untyped(piped.streams.total).begin(5, [1, "two"])
        assert call.wait(LIMIT)
        with pytest.raises(BadStubData, match="pipe 'numbers' must be int, not str"):
            call.complete()
        stream = untyped(piped.streams.mirror).stream(points=[Point(1), (1, 2)])
        with pytest.raises(BadStubData, match="pipe 'points' must be Point, not tuple"):
            list(stream)

    def test_what_may_stand_for_an_element(self, far: Piped, key: str) -> None:
        """Plain values that stand for others are taken, as with arguments: an int for a float, any buffer for bytes."""

        class Other(Interface, id="test.Streams"):
            @operation
            def held_many(
                self,
                key: str,
                left: InPipe[float],
                right: InPipe[bytes | None],
                upper: OutPipe[int],
                lower: OutPipe[int],
            ) -> Any:
                """As the service has it, but for the elements."""

        call = untyped(far.client.bind(Other).held_many).begin(key)
        call.pipe("left").push([1, 2.5])
        with pytest.raises(BadStubData, match="pipe 'left' must be float"):
            call.pipe("left").push(["1"])

    def test_an_element_that_cannot_be_sent(self, far: Piped, key: str) -> None:
        """What cannot be encoded, or is no iterable, is refused, and the call goes on."""
        call = far.held("held_in", key)
        for bad in ([2**70], "text", b"bytes", 5):
            with pytest.raises(InvalidArgumentType):
                call.pipe("numbers").push(bad)
        call.pipe("numbers").push([1])
        assert far.hand.pull_wait(key, "numbers") == [1]

    def test_an_element_that_cannot_be_encoded(self, far: Piped, key: str) -> None:
        """Whatever encoding runs into, it is refused likewise."""

        class Other(Interface, id="test.Streams"):
            @operation
            def held_in(self, key: str, numbers: InPipe[Any]) -> Any:
                """As the service has it, but for the elements."""

        call = untyped(far.client.bind(Other).held_in).begin(key)
        with pytest.raises(InvalidArgumentType, match="pipe 'numbers'"):
            call.pipe("numbers").push([memoryview(bytes(9))[::2]])
        call.pipe("numbers").push([1])
        assert far.hand.pull_wait(key, "numbers") == [1]

    def test_several_threads_share_a_pipe(self, far: Piped) -> None:
        """Elements pulled by several threads at once are divided: none lost, none twice."""
        call = far.streams.count.begin(5000)
        pipe = call.pipe("numbers")
        shares: list[list[int]] = [[], []]

        def work(share: list[int]) -> None:
            try:
                while some := pipe.pull_wait(7, LIMIT):
                    share += some
            except (PipeError, InvalidAsyncHandle):
                pass  # The other thread had the end.

        threads = [threading.Thread(target=work, args=(share,)) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        assert sorted(shares[0] + shares[1]) == list(range(5000))
        assert all(share == sorted(share) for share in shares)


class TestDeclaration:
    """What an interface says of its pipes, and how they are found."""

    def test_pipes_are_found_by_name(self, far: Piped, key: str) -> None:
        """The call has this side's ends, by the names of their parameters."""
        call = far.held("held_many", key)
        assert list(call.pipes) == ["left", "right", "upper", "lower"]
        assert type(call.pipe("left")) is InPipe and type(call.pipe("lower")) is OutPipe
        with pytest.raises(InvalidParameter, match="left, right, upper, lower"):
            call.pipe("middle")

    def test_what_a_pipe_shows(self, far: Piped, key: str) -> None:
        """A pipe shows what a program does with it, and nothing of what moves it."""
        pipe = far.held("held_out", key).pipe("numbers")
        verbs = {f"{verb}{way}" for verb in ("push", "pull") for way in ("", "_wait", "_async")}
        assert {name for name in dir(pipe) if not name.startswith("_")} == verbs | {"name"}

    def test_a_call_without_pipes(self, far: Piped) -> None:
        """It has none, and says so."""
        call = far.hand.arrived.begin("nobody")
        assert call.pipes == {}
        with pytest.raises(InvalidParameter):
            call.pipe("numbers")
        call.cancel(abort=True)

    def test_what_excludes_pipes(self) -> None:
        """An operation with pipes is neither idempotent nor one way."""
        with pytest.raises(InvalidParameter, match="idempotent"):

            class Bad(Interface):
                @operation(idempotent=True)
                def read(self, data: OutPipe[int]) -> None: ...

            from engine import Client

            with Client("loopback://nowhere") as client:
                client.bind(Bad)

    def test_a_handle_is_used_again(self, far: Piped, key: str) -> None:
        """A handle may carry one call with pipes after another; the old pipes are over."""
        call = far.held("held_in", key)
        old = call.pipe("numbers")
        old.push([])
        assert far.hand.pull_wait(key, "numbers") == []
        assert far.hand.complete(key, 1) == 0
        assert call.result(LIMIT) == 1
        far.streams.count.begin(2, handle=call)
        assert status_of(lambda: old.push([1])) == GONE
        assert list(call.pipe("numbers")) == [0, 1]
        assert call.result(LIMIT) == "counted"

    def test_a_handle_in_use(self, far: Piped, key: str) -> None:
        """A handle that carries a call is refused, and its call left alone."""
        call = far.held("held_in", key)
        with pytest.raises(InvalidState):
            far.streams.count.begin(2, handle=call)
        call.pipe("numbers").push([5])
        assert far.hand.pull_wait(key, "numbers") == [5]


class TestClientStates:
    """Section 6.2: what a client does with each kind of pipe."""

    def test_in(self, piped: Piped, key: str, port: CompletionPort) -> None:
        """Issue, wait for the send; push and wait; the null push; wait for call-complete; complete."""
        call = piped.held("held_in", key, notify=port, send_complete=True)
        assert port.get(LIMIT).event == SEND, "the issue counts as a send"
        for number in range(3):
            call.pipe("numbers").push([number])
            assert port.get(LIMIT).event == SEND
        call.pipe("numbers").push([])
        assert port.get(LIMIT).event == SEND
        got: list[int] = []
        while some := piped.hand.pull_wait(key, "numbers"):
            got += some
        assert got == [0, 1, 2]
        assert piped.hand.complete(key, 9) == 0
        packet = port.get(LIMIT)
        assert packet.event == COMPLETE and packet.overlapped is call
        assert call.complete() == 9

    def test_out(self, piped: Piped, key: str, port: CompletionPort) -> None:
        """Issue; pull, and if pending wait for receive-complete; pull gives 0; wait for call-complete; complete."""
        call = piped.held("held_out", key, notify=port)
        pipe = call.pipe("numbers")
        assert status_of(pipe.pull) == 997
        assert piped.hand.push(key, "numbers", [1, 2]) == 0
        packet = port.get(LIMIT)
        assert packet.event == RECEIVE and packet.overlapped is call and call.event is RECEIVE
        assert pipe.pull() == [1, 2]
        assert status_of(pipe.pull) == 997
        assert piped.hand.push(key, "numbers", []) == 0
        assert port.get(LIMIT).event == RECEIVE
        assert pipe.pull() == []
        assert piped.hand.complete(key, "done") == 0
        assert port.get(LIMIT).event == COMPLETE
        assert call.event is COMPLETE
        assert call.complete() == "done"

    def test_in_out(self, piped: Piped, key: str, port: CompletionPort) -> None:
        """First the in part, to the null push; then the out part."""
        call = piped.held("held_both", key, notify=port)
        pipe = call.pipe("numbers")
        pipe.push([1])
        pipe.push([])
        assert piped.hand.pull_wait(key, "numbers") == [1]
        assert piped.hand.pull_wait(key, "numbers") == []
        assert piped.hand.push(key, "numbers", [2]) == 0
        assert piped.hand.push(key, "numbers", []) == 0
        assert pull(pipe, 1) == [2]
        assert pipe.pull_wait(timeout=LIMIT) == []
        assert piped.hand.complete(key) == 0
        assert port.get(LIMIT).event == COMPLETE
        assert call.complete() is None

    def test_elements_pushed_at_once(self, far: Piped) -> None:
        """A client need not wait for anything between issuing and pushing."""
        calls = [far.streams.total.begin(number) for number in range(20)]
        for call in calls:
            call.pipe("numbers").push([1, 2])
            call.pipe("numbers").push([])
        assert [call.result(LIMIT) for call in calls] == [number + 3 for number in range(20)]

    def test_a_failure_while_sending(self, piped: Piped, key: str, port: CompletionPort) -> None:
        """Call-complete with a failure while sending: stop, complete, done."""
        call = piped.held("held_in", key, notify=port)
        call.pipe("numbers").push([1])
        assert piped.hand.abort(key, 4711) == 0
        assert port.get(LIMIT).event == COMPLETE
        assert call.status() == 4711
        with pytest.raises(RemoteFault) as caught:
            call.complete()
        assert caught.value.status == 4711
        assert call.state is State.SPENT

    def test_a_failed_push_ends_the_call(self, piped: Piped, key: str) -> None:
        """A push after the call has failed raises its status; nothing is left to complete or to cancel."""
        call = piped.held("held_in", key)
        assert piped.hand.abort(key, 4711) == 0
        assert call.wait(LIMIT)
        assert status_of(lambda: call.pipe("numbers").push([1])) == 4711
        assert call.state is State.SPENT
        assert status_of(call.complete) == GONE
        assert status_of(call.cancel) == GONE
        assert status_of(lambda: call.pipe("numbers").push([1])) == GONE

    def test_a_failed_pull_ends_the_call(self, piped: Piped, key: str) -> None:
        """What had arrived is pulled first; then the pull raises the call's status, and ends it."""
        call = piped.held("held_out", key)
        assert piped.hand.push(key, "numbers", [1, 2]) == 0
        assert piped.hand.abort(key, 4711) == 0
        assert call.wait(LIMIT)
        assert call.pipe("numbers").pull() == [1, 2]
        assert status_of(call.pipe("numbers").pull) == 4711
        assert status_of(call.complete) == GONE

    def test_the_application_wants_out(self, piped: Piped, key: str, port: CompletionPort) -> None:
        """Cancel, wait for call-complete, complete; the server hears of it."""
        call = piped.held("held_out", key, notify=port)
        call.cancel(abort=True)
        assert port.get(LIMIT).event == COMPLETE
        with pytest.raises(CallCancelled):
            call.complete()
        piped.hand.cancelled(key)
        assert piped.hand.push(key, "numbers", [1]) == ["status", 1818]

    def test_a_cancel_that_only_asks(self, piped: Piped, key: str) -> None:
        """The pipes go on until the server ends the call."""
        call = piped.held("held_out", key)
        call.cancel()
        piped.hand.cancelled(key)
        assert piped.hand.push(key, "numbers", [1]) == 0
        assert piped.hand.push(key, "numbers", []) == 0
        assert piped.hand.complete(key, "late") == 0
        assert list(call.pipe("numbers")) == [1]
        assert call.result(LIMIT) == "late"


class TestServerStates:
    """Section 6.3: what a server does with each kind of pipe."""

    def test_in(self, piped: Piped, key: str) -> None:
        """Pull, wait if pending, to the end; complete."""
        call = piped.held("held_in", key)
        piped.hand.tell(key, False)
        assert piped.hand.pull(key, "numbers") == ["status", 997]
        call.pipe("numbers").push([1])
        assert piped.hand.told(key, 1) == [RECEIVE]
        assert piped.hand.pull(key, "numbers") == [1]
        assert piped.hand.pull(key, "numbers") == ["status", 997]
        call.pipe("numbers").push([])
        assert piped.hand.told(key, 1) == [RECEIVE]
        assert piped.hand.pull(key, "numbers") == []
        assert piped.hand.complete(key) == 0
        assert call.result(LIMIT) is None

    def test_out(self, piped: Piped, key: str) -> None:
        """Push, wait for send-complete, the null push, wait, complete."""
        call = piped.held("held_out", key)
        piped.hand.tell(key, True)
        for elements in ([1], [2, 3], []):
            assert piped.hand.push(key, "numbers", elements) == 0
            assert piped.hand.told(key, 1) == [SEND]
        assert piped.hand.complete(key) == 0
        assert list(call.pipe("numbers")) == [1, 2, 3]
        assert call.result(LIMIT) is None

    def test_an_abort_with_open_pipes(self, piped: Piped, key: str) -> None:
        """Aborting needs no discipline; what is done with the pipes afterwards is 1914."""
        call = piped.held("held_both", key)
        assert piped.hand.abort(key, 4711) == 0
        assert call.wait(LIMIT) and status_of(call.complete) == 4711
        assert piped.hand.pull(key, "numbers") == ["status", GONE]
        assert piped.hand.push(key, "numbers", [1]) == ["status", GONE]

    def test_a_failed_pull_closes_the_call(self, piped: Piped, key: str) -> None:
        """The call is gone, without a closing action, and its client has the status."""
        call = piped.held("held_in", key)
        call.pipe("numbers").push([])
        assert piped.hand.pull_wait(key, "numbers") == []
        assert piped.hand.pull(key, "numbers") == ["status", 1918]
        assert piped.hand.complete(key) == GONE
        assert piped.hand.abort(key, 1) == GONE
        assert call.wait(LIMIT) and status_of(call.complete) == 1918

    def test_a_failure_while_waiting_on_a_pull(self, piped: Piped, key: str) -> None:
        """The wait is told, and the call can be aborted."""
        call = piped.held("held_in", key)
        piped.hand.tell(key, False)
        assert piped.hand.pull(key, "numbers") == ["status", 997]
        call.cancel(abort=True)
        assert piped.hand.told(key, 1) == [RECEIVE]
        assert piped.hand.abort(key, 1818) == 0

    def test_a_failure_while_pushing(self, piped: Piped, key: str) -> None:
        """Completing returns the failure."""
        call = piped.held("held_out", key)
        assert piped.hand.push(key, "numbers", [1]) == 0
        call.cancel(abort=True)
        piped.hand.cancelled(key)
        assert piped.hand.complete(key) == 1818
        assert piped.hand.complete(key) == GONE

    def test_a_routine_that_raises(self, piped: Piped) -> None:
        """What it raises is the outcome, whatever the pipes are at."""
        call = piped.streams.first.begin(numbers=[4711, 2, 3])
        assert call.wait(LIMIT) and status_of(call.complete) == 4711

    def test_signals_need_pipes(self, far: Piped) -> None:
        """A call without pipes has no sends and receives to be told of."""
        assert far.hand.tell_of_itself() == 87


class TestDiscipline:
    """Section 6.4: order and discipline, on both sides."""

    def test_client_pushes_after_the_end(self, piped: Piped, key: str) -> None:
        """Pushing after the null push is 1916, and ends the call."""
        call = piped.held("held_in", key)
        call.pipe("numbers").push([])
        assert status_of(lambda: call.pipe("numbers").push([1])) == Status.PIPE_CLOSED
        assert status_of(call.complete) == GONE
        piped.hand.cancelled(key)

    def test_client_pulls_after_the_end(self, piped: Piped) -> None:
        """Pulling after the end is 1918, and ends the call."""
        call = piped.streams.count.begin(3)
        assert list(call.pipe("numbers")) == [0, 1, 2]
        assert status_of(call.pipe("numbers").pull) == Status.PIPE_EMPTY
        assert status_of(call.complete) == GONE

    @pytest.mark.parametrize("name", ["held_in", "held_out", "held_both"])
    def test_client_completes_too_early(self, piped: Piped, key: str, name: str) -> None:
        """Completing before all pipes are processed is 1917, and final like any answer but 997: the handle is spent,
        and can carry another call.
        """
        call = piped.held(name, key)
        assert status_of(call.complete) == Status.PIPE_DISCIPLINE_ERROR
        assert status_of(call.complete) == GONE
        assert call.state is State.SPENT
        piped.hand.cancelled(key)
        assert getattr(piped.streams, name).begin(key, handle=call) is call
        call.cancel(abort=True)

    @pytest.mark.parametrize(
        ("name", "use", "cure"),
        [
            ("held_in", lambda call: call.complete(), r"'numbers' was not pushed to its end: push an empty list last"),
            ("held_out", lambda call: call.complete(), r"'numbers' was not pulled to its end: iterate over it, or"),
            ("held_both", lambda call: call.pipe("numbers").pull(), r"^pipe 'numbers' must be pushed to its end before"
             r" it is pulled: @operation\(duplex=True\)"),
            ("held_many", lambda call: call.pipe("right").push([1]), r"^pipe 'left' must be pushed to its end before"
             r" pipe 'right' is used: @operation\(duplex=True\)"),
            ("held_in", lambda call: call.pipe("numbers").push(1), r"not int: push\(\[element\]\) pushes one"),
        ],
    )  # fmt: skip
    def test_what_to_do_instead(self, far: Piped, key: str, name: str, use: Callable[[Any], Any], cure: str) -> None:
        """Each error of a pipe's use says what to do: push an empty list, drain it, declare `duplex`, pass a list."""
        call = far.held(name, key)
        with pytest.raises(EngineError, match=cure):
            use(call)
        call.close()

    def test_client_completes_in_time(self, far: Piped, key: str) -> None:
        """After the null push, completing a call without an outcome is 997, and it stays good."""
        call = far.held("held_in", key)
        call.pipe("numbers").push([])
        assert status_of(call.complete) == 997
        assert far.hand.pull_wait(key, "numbers") == []
        assert far.hand.complete(key, 5) == 0
        assert call.result(LIMIT) == 5

    def test_client_completes_with_elements_left(self, piped: Piped) -> None:
        """A call that succeeded cannot be completed before its output is pulled."""
        call = piped.streams.count.begin(3)
        assert call.wait(LIMIT) and call.status() == 0
        assert status_of(call.complete) == Status.PIPE_DISCIPLINE_ERROR
        assert status_of(call.complete) == GONE

    def test_client_pulls_before_it_has_pushed_all(self, piped: Piped, key: str) -> None:
        """The in part of a pipe comes first: 1831."""
        call = piped.held("held_both", key)
        assert status_of(call.pipe("numbers").pull) == Status.WRONG_PIPE_ORDER
        assert status_of(call.complete) == GONE

    @pytest.mark.parametrize(("name", "verb"), [("held_in", "pull"), ("held_out", "push")])
    def test_client_goes_the_wrong_way(self, piped: Piped, key: str, name: str, verb: str) -> None:
        """Pulling an in pipe and pushing an out pipe is 1831."""
        pipe = piped.held(name, key).pipe("numbers")
        assert status_of(lambda: pipe.push([1]) if verb == "push" else pipe.pull()) == Status.WRONG_PIPE_ORDER

    def test_several_pipes_in_order(self, piped: Piped, key: str) -> None:
        """All inputs from left to right, each drained before the next; then all outputs from left to right."""
        call = piped.held("held_many", key)
        for name, number in (("left", 1), ("right", 2)):
            call.pipe(name).push([number])
            call.pipe(name).push([])
        for name, number in (("left", 1), ("right", 2)):
            assert piped.hand.pull_wait(key, name) == [number]
            assert piped.hand.pull_wait(key, name) == []
        for name, number in (("upper", 3), ("lower", 4)):
            assert piped.hand.push(key, name, [number]) == 0
            assert piped.hand.push(key, name, []) == 0
        assert piped.hand.complete(key) == 0
        assert list(call.pipe("upper")) == [3]
        assert list(call.pipe("lower")) == [4]
        assert call.result(LIMIT) is None

    def test_client_pushes_the_wrong_pipe_first(self, far: Piped, key: str) -> None:
        """1831."""
        assert status_of(lambda: far.held("held_many", key).pipe("right").push([1])) == Status.WRONG_PIPE_ORDER

    def test_client_pulls_the_wrong_pipe_first(self, far: Piped, key: str) -> None:
        """1831."""
        call = far.held("held_many", key)
        call.pipe("left").push([])
        call.pipe("right").push([])
        assert status_of(call.pipe("lower").pull) == Status.WRONG_PIPE_ORDER

    def test_server_pulls_the_wrong_pipe_first(self, piped: Piped, key: str) -> None:
        """1831, and the call is closed with it."""
        call = piped.held("held_many", key)
        assert piped.hand.pull(key, "right") == ["status", 1831]
        assert call.wait(LIMIT) and status_of(call.complete) == 1831

    def test_server_pushes_before_it_has_pulled_all(self, piped: Piped, key: str) -> None:
        """1831."""
        call = piped.held("held_both", key)
        call.pipe("numbers").push([1])
        assert piped.hand.push(key, "numbers", [1]) == ["status", 1831]
        assert call.wait(LIMIT) and status_of(call.complete) == 1831

    def test_server_pushes_the_wrong_pipe_first(self, far: Piped, key: str) -> None:
        """1831."""
        call = far.held("held_many", key)
        for name in ("left", "right"):
            call.pipe(name).push([])
            assert far.hand.pull_wait(key, name) == []
        assert far.hand.push(key, "lower", [1]) == ["status", 1831]

    def test_server_pushes_after_the_end(self, piped: Piped, key: str) -> None:
        """1916."""
        call = piped.held("held_out", key)
        assert piped.hand.push(key, "numbers", []) == 0
        assert piped.hand.push(key, "numbers", [1]) == ["status", 1916]
        assert call.wait(LIMIT) and status_of(call.complete) == 1916

    @pytest.mark.parametrize("name", ["held_in", "held_out"])
    def test_server_completes_too_early(self, piped: Piped, key: str, name: str) -> None:
        """1917: on the server from completing, on the client as the outcome."""
        call = piped.held(name, key)
        assert piped.hand.complete(key) == 1917
        assert piped.hand.complete(key) == GONE
        assert call.wait(LIMIT) and status_of(call.complete) == 1917

    def test_an_ordinary_routine_returns_too_early(self, piped: Piped) -> None:
        """The client gets 1917 instead of its result."""
        call = piped.streams.undrained.begin(numbers=[1, 2])
        assert call.wait(LIMIT) and status_of(call.complete) == 1917

    def test_a_generator_that_pushes_while_it_pulls(self, piped: Piped) -> None:
        """Without `duplex` that is 1831."""
        with pytest.raises(PipeError) as caught:
            list(piped.streams.interleaved.stream(numbers=[1, 2]))
        assert caught.value.status == 1831
