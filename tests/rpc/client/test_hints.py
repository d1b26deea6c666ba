"""What is said to somebody who uses the library in a way that cannot work."""

import asyncio
import gc
import logging
import re
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from engine import (
    BadStubData,
    CallTimeout,
    Client,
    Event,
    EventKind,
    InvalidArgumentType,
    InvalidParameter,
    Server,
    ServerCall,
    ServerUnavailable,
    current_call,
    manager,
    wait_all,
    wait_any,
)
from engine.testing import LIMIT, wait_until
from transport import EndpointError

from ..helpers import Bench, limits, status_of
from ..interfaces import Adder, Probe
from ..service import Adding

Benches = Callable[..., Bench]


class Forgetful:
    """Manager routines, most of which forget something."""

    def __init__(self, kept: list[Any]) -> None:
        self.kept = kept

    @manager
    def forgets(self, call: ServerCall) -> None:
        """Never answers."""

    @manager
    def keeps(self, call: ServerCall) -> None:
        """Answers later."""
        self.kept.append(call)

    @manager
    def keeps_the_way_to_answer(self, call: ServerCall) -> None:
        """Answers later, by what it kept."""
        self.kept.append(call.complete)

    @manager
    def subscribes(self, call: ServerCall) -> None:
        """Answers when its client cancels."""
        call.subscribe(EventKind.CLIENT_CANCEL, lambda call, kind: call.complete("cancelled"))
        self.kept.append("subscribed")

    @manager
    def asks(self, call: ServerCall) -> None:
        """Says whether what it is given is what it gets."""
        marked = weakref.WeakSet([current_call()])
        gc.collect()
        call.complete((current_call() is call, current_call() in marked))

    @manager
    async def asks_in_a_task(self, call: ServerCall, aside: bool) -> None:
        """Asks for its handle, itself or in a thread, and never answers."""
        await asyncio.to_thread(current_call) if aside else current_call()

    @manager
    async def keeps_in_a_task(self, call: ServerCall) -> None:
        """Answers later."""
        self.kept.append(call)

    @manager
    def answers(self, call: ServerCall) -> None:
        """Answers at once."""
        call.complete(1)

    @manager
    def returns(self, call: ServerCall) -> int:
        """Returns what should have been the answer."""
        self.kept.append(call)
        return 7


class TestManagerRoutines:
    """A call that cannot be answered any more ends; the server's log says why, once an operation."""

    @pytest.fixture
    def kept(self) -> list[Any]:
        """What the routines have kept."""
        return []

    @pytest.fixture
    def forgetful(self, local: Callable[..., Server], benches: Benches, kept: list[Any]) -> Any:
        """A binding to such routines."""
        server = local()
        server.register("forgetful", Forgetful(kept))
        return benches(server.endpoint).client.bind("forgetful")

    def test_a_handle_that_nobody_has(self, forgetful: Any, caplog: pytest.LogCaptureFixture) -> None:
        """A call whose manager routine drops the handle without an answer ends with 1726; the log says so once."""
        calls = [forgetful.forgets.begin() for _ in range(5)]
        assert {status_of(partial(call.result, LIMIT)) for call in calls} == {1726}
        assert forgetful.answers() == 1
        wait_until(lambda: "forgets" in caplog.text)
        assert caplog.text.count("dropped the handle") == 1

    def test_a_handle_that_is_dropped_later(self, forgetful: Any, kept: list[Any]) -> None:
        """So does one that was kept, as soon as the last reference to its handle is gone, on any thread."""
        calls = [forgetful.keeps.begin(), forgetful.keeps_the_way_to_answer.begin()]
        wait_until(lambda: len(kept) == 2)
        assert not any(call.done() for call in calls)
        kept.clear()
        assert {status_of(partial(call.result, LIMIT)) for call in calls} == {1726}

    def test_a_handle_that_a_subscription_has(self, forgetful: Any, kept: list[Any]) -> None:
        """One that only its subscription has is not lost: the function that is called by it gets the handle."""
        call = forgetful.subscribes.begin()
        wait_until(lambda: kept == ["subscribed"])
        assert not call.wait(0.01)
        call.cancel()
        assert call.result(LIMIT) == "cancelled"

    def test_the_same_handle(self, forgetful: Any) -> None:
        """Each question for the handle of a call gets the same one, in a manager routine that which it was given."""
        assert forgetful.asks() == [True, True]

    @pytest.mark.parametrize("aside", [False, True])
    def test_a_handle_that_a_task_has_asked_for(self, forgetful: Any, aside: bool) -> None:
        """Asking for the handle keeps it for no longer than the routine runs, in the event loop's thread, too."""
        assert status_of(partial(forgetful.asks_in_a_task.begin(aside).result, LIMIT)) == 1726

    @pytest.mark.parametrize("name", ["keeps", "keeps_in_a_task"])
    def test_a_handle_that_a_security_callback_has_asked_for(
        self, local: Callable[..., Server], benches: Benches, kept: list[Any], name: str
    ) -> None:
        """The call does not end when the callback drops the handle: the routine has not been given it yet."""
        server = local()
        server.register("forgetful", Forgetful(kept), security=lambda _: bool(current_call().metadata) or True)
        call = getattr(benches(server.endpoint).client.bind("forgetful"), name).begin()
        wait_until(lambda: len(kept) == 1)
        gc.collect()
        kept.pop().complete(5)
        assert call.result(LIMIT) == 5

    def test_a_handle_that_was_kept(self, forgetful: Any, caplog: pytest.LogCaptureFixture) -> None:
        """One that keeps the handle, or answers, is not."""
        with caplog.at_level(logging.WARNING, "engine.rpc"):
            for _ in range(3):
                forgetful.keeps.begin()
                forgetful.keeps_the_way_to_answer.begin()
                assert forgetful.answers() == 1
        assert caplog.text == ""

    def test_a_value_returned(self, forgetful: Any, caplog: pytest.LogCaptureFixture) -> None:
        """One that returns a value is told of once: the value is no answer."""
        calls = [forgetful.returns.begin() for _ in range(5)]
        wait_until(lambda: not calls[0].done() and "returns" in caplog.text)
        assert forgetful.answers() == 1
        assert caplog.text.count("complete()") == 1
        assert not any(call.done() for call in calls)


class TestArguments:
    """Things of the wrong kind."""

    def test_a_class_for_an_object(self, server: Server) -> None:
        """Registering a class says to pass an instance, with and without a contract."""
        server.unregister(Adder)
        for interface in (Adder, "adder"):
            with pytest.raises(InvalidParameter, match=r"not the class Adding: pass Adding\("):
                server.register(interface, Adding)
        server.register(Adder, Adding())

    def test_a_class_that_needs_no_object(self, server: Server, benches: Benches) -> None:
        """A class whose methods need no instance may be registered."""

        class Static:
            @staticmethod
            def add(left: int, right: int) -> int:
                return left + right

        server.unregister(Adder)
        server.register(Adder, Static)
        server.register("static", Static)
        server.listen()
        client = benches(server.endpoint).client
        assert client.bind(Adder).add(1, 2) == client.bind("static").add(1, 2) == 3

    @pytest.mark.parametrize(
        ("args", "text"),
        [
            ((1, "two"), "add: parameter 'right' must be int: Expected `int`, got `str`"),
            (("one", 2), "add: parameter 'left' must be int: Expected `int`, got `str`"),
            ((1,), "the arguments of add(left: int, right: int) -> int cannot be read: "),
        ],
    )
    def test_a_caller_without_a_contract(
        self, server: Server, benches: Benches, args: tuple[Any, ...], text: str
    ) -> None:
        """Who sends what does not fit is told the parameter and its type by the server, or what the operation takes."""
        server.listen()
        with pytest.raises(BadStubData, match=re.escape(text)):
            benches(server.endpoint).client.bind("test.Adder").add(*args)

    def test_one_object_for_a_list(self, bench: Bench) -> None:
        """Waiting for one object says to pass a list; for one that cannot be in it, what to do instead."""
        with Event() as event:
            for wait in (wait_any, wait_all):
                with pytest.raises(InvalidArgumentType, match=r"not one Event: pass \[it\]"):
                    wait(event)  # type: ignore[arg-type]  # wrong on purpose
                call: Any
                for call in (bench.done(), [bench.done()]):
                    with pytest.raises(InvalidArgumentType, match=r"cannot wait for a Call .* its own wait\(\)"):
                        wait(call)


class TestEndpoints:
    """Connecting to nobody."""

    def test_how_long_it_tried(self, endpoint: str) -> None:
        """The error names the endpoint, and how long it was tried, be that the call's limit or the connection's."""
        for limit in limits(0.25, 2.5, 25.0):
            known = []
            given: list[dict[str, Any]] = [{"connect_timeout": limit}, {"timeout": limit, "connect_timeout": LIMIT}]
            for options in given:
                with Client(endpoint, **options) as client:
                    with pytest.raises((ServerUnavailable, CallTimeout)) as raised:
                        client.bind(Adder).add(1, 2)
                known.append(re.search(rf"{endpoint} within {limit} s.*nobody listens", str(raised.value)) is not None)
            if all(known):  # Otherwise it was not known by then that nobody listens.
                break

    def test_a_port_that_is_not_chosen_yet(self) -> None:
        """The endpoint of a server that does not listen yet may have no port; the client says when it will."""
        with Server("tcp://127.0.0.1:0") as server:
            with pytest.raises(EndpointError, match="once it listens"):
                Client(server.endpoint)


class TestDroppedFailures:
    """A failure that nobody collects is told at the debug level (section 11)."""

    @pytest.fixture(autouse=True)
    def debug(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "engine.rpc")

    def test_an_answer(self, bench: Bench, key: str, caplog: pytest.LogCaptureFixture) -> None:
        """A handle that is dropped with a failure in it is told of, with the operation and the status."""
        call = bench.failed(key, 4711)
        assert "dropped" not in caplog.text
        del call
        assert caplog.text.count("hold failed, and its handle was dropped uncompleted: aborted [STATUS 4711]") == 1

    def test_no_answer(self, caplog: pytest.LogCaptureFixture) -> None:
        """So is one whose call never had an answer."""
        with Client("loopback://nobody", connect_timeout=0.01) as client:
            assert client.bind(Probe).nothing.begin().wait(LIMIT)
        told = "its handle was dropped uncompleted: no connection to loopback://nobody"
        wait_until(lambda: told in caplog.text)  # By the thread that ended the call, if that lets go of it last.
        assert caplog.text.count(told) == 1

    def test_what_is_not_told(self, bench: Bench, key: str, caplog: pytest.LogCaptureFixture) -> None:
        """A failure that was collected, a call that its caller has cancelled, and a result are not told of."""
        assert status_of(bench.failed(key).complete) == 4711
        bench.held(f"{key}-aborted").cancel(abort=True)
        bench.done("result")
        with Client("loopback://nobody", connect_timeout=0.01) as client:
            client.bind(Probe).nothing.begin().cancel(abort=True)
            later = client.bind(Probe).nothing.begin()
            assert later.wait(LIMIT) and status_of(later.complete) == 1722
        assert "dropped" not in caplog.text
