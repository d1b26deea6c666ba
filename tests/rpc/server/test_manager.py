"""The server's side of a call: "Handling Asynchronous Calls", "Sending the Asynchronous Reply", section 4."""

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from engine import (
    Client,
    EngineError,
    InvalidState,
    RemoteFault,
    Server,
    ServerCall,
    ServerTooBusy,
    Status,
    current_call,
    manager,
)
from engine.testing import LIMIT, Gate, wait_until

from ..helpers import GONE, PENDING, Bench, Child, Service, present, status_of
from ..interfaces import Probe

Benches = Callable[..., Bench]


class TestManagerRoutine:
    """4.1: the asynchronous manager routine."""

    def test_returning_does_not_complete(self, any_bench: Bench, key: str) -> None:
        """A routine that has returned has not answered; another thread does, later."""
        call = any_bench.held(key)
        assert call.status() == PENDING
        assert any_bench.control.complete(key, {"answer": 42}) == 0
        assert call.result(LIMIT) == {"answer": 42}

    def test_in_any_order(self, any_bench: Bench, key: str) -> None:
        """Calls may be completed in another order than they came in; each client call gets its own answer."""
        calls = [any_bench.held(f"{key}-{number}") for number in range(10)]
        for number in reversed(range(10)):
            any_bench.control.complete(f"{key}-{number}", number)
        assert [call.result(LIMIT) for call in calls] == list(range(10))

    def test_on_the_dispatch_thread(self, local: Callable[..., Server], benches: Benches) -> None:
        """Completing before the routine returns is legal."""

        class Routines:
            @manager
            def at_once(self, call: ServerCall, value: int) -> None:
                call.complete(value + 1)

        server = local()
        server.register("once", Routines())
        assert benches(server.endpoint).client.bind("once").at_once(1) == 2

    def test_what_a_manager_routine_returns_is_ignored(self, local: Callable[..., Server], benches: Benches) -> None:
        """Only completing answers: a value that the routine returns goes nowhere."""
        calls: list[ServerCall] = []

        class Routines:
            @manager
            def returns(self, call: ServerCall) -> str:
                calls.append(call)
                return "ignored"

        server = local()
        server.register("returns", Routines())
        call = benches(server.endpoint).client.bind("returns").returns.begin()
        wait_until(lambda: calls)
        assert not call.wait(0.02)
        calls[0].complete("meant")
        assert call.result(LIMIT) == "meant"

    def test_nothing_to_return(self, bench: Bench, key: str) -> None:
        """A call without a result is completed like any other (3.4)."""
        call = bench.held(key)
        assert bench.control.complete(key) == 0
        assert call.result(LIMIT) is None

    def test_a_pending_call_costs_no_thread(self, local: Callable[..., Server], benches: Benches, key: str) -> None:
        """Thousands of calls may pend on one worker, and others are answered meanwhile."""
        server = local(workers=1)
        bench = benches(server.endpoint)
        before = threading.active_count()
        calls = [bench.probe.hold.begin(f"{key}-{number}") for number in range(2000)]
        bench.control.arrived(f"{key}-1999")
        assert bench.probe.echo("meanwhile") == "meanwhile"
        assert threading.active_count() <= before
        assert server.statistics().active >= 2000
        for number in range(2000):
            bench.control.complete(f"{key}-{number}", number)
        assert [call.result(LIMIT) for call in calls] == list(range(2000))

    def test_both_faces_are_one_wire(self, bench: Bench, key: str) -> None:
        """A blocking client calls an asynchronous routine, and the reverse."""
        thread = threading.Thread(target=lambda: (bench.control.arrived(key), bench.control.complete(key, "blocking")))
        thread.start()
        assert bench.probe.hold(key) == "blocking"
        thread.join(LIMIT)
        assert bench.probe.add.begin(1, 1).result(LIMIT) == 2

    def test_routines_run_side_by_side(self, local: Callable[..., Server], benches: Benches) -> None:
        """Routines that block run side by side, as many as there are workers, even when nobody said that they do."""
        gate = Gate()

        class Routines:
            def block(self) -> None:
                gate.pass_through()

        server = local(workers=4)
        server.register("blocks", Routines())
        binding = benches(server.endpoint).client.bind("blocks")
        calls = [binding.block.begin() for _ in range(4)]
        gate.wait_for_arrivals(4)
        gate.open()
        for call in calls:
            call.result(LIMIT)


class TestHandOff:
    """4.2: before and after the hand-off point."""

    def test_raising_before(self, any_bench: Bench) -> None:
        """What a routine raises reaches the client, with its type and text, and the server lives on."""
        with pytest.raises(RemoteFault) as raised:
            any_bench.probe.fail("ValueError", "before the hand-off")
        fault = raised.value
        assert (fault.type_name, fault.text, fault.status) == ("ValueError", "before the hand-off", Status.REMOTE_FAULT)
        assert fault.traceback is None
        assert any_bench.probe.echo("alive") == "alive"

    @pytest.mark.parametrize("kind", ["KeyError", "ZeroDivisionError", "SystemExit", "KeyboardInterrupt"])
    def test_any_exception(self, bench: Bench, kind: str) -> None:
        """Any exception ends its call only, even one that would end a thread or the process."""
        with pytest.raises(RemoteFault) as raised:
            bench.probe.fail(kind, "told")
        assert raised.value.type_name == kind
        assert "told" in raised.value.text
        assert bench.probe.echo("alive") == "alive"

    @pytest.mark.parametrize(("kind", "type_name"), [("Unspeakable", "Unspeakable"), ("surrogate", "OSError")])
    def test_an_exception_that_is_hard_to_tell(self, bench: Bench, kind: str, type_name: str) -> None:
        """An exception whose text cannot be made, or not be sent, still ends its call, and names its type."""
        call = bench.probe.fail.begin(kind, "")
        assert call.wait(LIMIT), "the call was never answered"
        with pytest.raises(RemoteFault) as raised:
            call.complete()
        assert raised.value.type_name == type_name

    @pytest.mark.parametrize("text", [ValueError("within"), 7, None, b"bytes", object()])
    def test_an_error_with_a_text_that_is_none(self, local: Callable[..., Server], benches: Benches, text: Any) -> None:
        """Whatever stands where an error's text should be, and whatever else cannot be sent, the status arrives."""

        class Routines:
            def strange(self) -> None:
                raise RemoteFault(text, status=4711, type_name=text, data=object())

        server = local()
        server.register("strange", Routines())
        call = benches(server.endpoint).client.bind("strange").strange.begin()
        assert call.wait(LIMIT), "the call was never answered"
        assert status_of(call.complete) == 4711

    @pytest.mark.parametrize("status", [5, 87, 1726, 1818, 4711, 0xFFFFFFFF])
    def test_raising_with_a_status(self, bench: Bench, status: int) -> None:
        """The status that a raised error carries is the call's outcome."""
        assert status_of(lambda: bench.probe.fail_with_status(status)) == status

    @pytest.mark.parametrize("status", [0, -1, 1 << 32, (1 << 64) - 1])
    def test_raising_with_a_status_that_is_none(self, bench: Bench, status: int) -> None:
        """A raised error whose status says "success", or is no status, is a fault all the same (8.3)."""
        call = bench.probe.fail_with_status.begin(status)
        assert call.wait(LIMIT), "the call was never answered"
        with pytest.raises(RemoteFault) as raised:
            call.complete()
        assert raised.value.status == Status.REMOTE_FAULT

    def test_the_errors_of_the_library(self, local: Callable[..., Server], benches: Benches) -> None:
        """A routine may end its call with any of the library's own errors."""

        class Routines:
            def busy(self) -> None:
                raise ServerTooBusy("come back later")

        server = local()
        server.register("busy", Routines())
        with pytest.raises(ServerTooBusy, match="come back later"):
            benches(server.endpoint).client.bind("busy").busy()

    def test_aborting_after(self, bench: Bench, key: str) -> None:
        """After the hand-off a worker aborts with a code, which is the outcome."""
        call = bench.held(key)
        assert bench.control.abort(key, 4711, "no result") == 0
        with pytest.raises(RemoteFault) as raised:
            call.result(LIMIT)
        assert (raised.value.status, raised.value.text, raised.value.type_name) == (4711, "no result", "")

    @pytest.mark.parametrize("how", ["complete", "abort"])
    def test_raising_after_closing(
        self, local: Callable[..., Server], benches: Benches, how: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An exception after the call was closed is reported here and never sent: the first outcome stays."""

        class Routines:
            @manager
            def stumble(self, call: ServerCall) -> None:
                call.complete("kept") if how == "complete" else call.abort(4711)
                raise ValueError("stray")

        server = local()
        server.register("stumbles", Routines())
        call = benches(server.endpoint).client.bind("stumbles").stumble.begin()
        assert call.wait(LIMIT)
        if how == "complete":
            assert call.complete() == "kept"
        else:
            assert status_of(call.complete) == 4711
        wait_until(lambda: "stray" in caplog.text)

    def test_raising_in_a_manager_routine_before_closing(self, local: Callable[..., Server], benches: Benches) -> None:
        """A manager routine that raises has aborted its call; closing it afterwards gives 1914."""
        calls: list[ServerCall] = []

        class Routines:
            @manager
            def stumble(self, call: ServerCall) -> None:
                calls.append(call)
                raise ValueError("before")

        server = local()
        server.register("stumbles", Routines())
        with pytest.raises(RemoteFault, match="before"):
            benches(server.endpoint).client.bind("stumbles").stumble()
        assert status_of(lambda: calls[0].complete(1)) == GONE
        assert status_of(lambda: calls[0].abort(1)) == GONE

    def test_tracebacks_by_policy(self, service: Callable[..., Service], benches: Benches) -> None:
        """A server that was told to sends the traceback of what a routine raised."""
        bench = benches(service(tracebacks=True).endpoint)
        with pytest.raises(RemoteFault) as raised:
            bench.probe.fail("ValueError", "traced")
        assert "in fail" in present(raised.value.traceback)
        with pytest.raises(RemoteFault) as raised:
            bench.probe.fail("surrogate", "")
        assert raised.value.type_name == "OSError"


class TestClosingTwice:
    """4.3: the first closing wins, every later one gets 1914."""

    @pytest.mark.parametrize("first", ["complete", "abort"])
    @pytest.mark.parametrize("second", ["complete", "abort"])
    def test_each_pair(self, any_bench: Bench, key: str, first: str, second: str) -> None:
        """Of two closings the first is the outcome."""
        call = any_bench.held(key)
        assert tuple(any_bench.control.close_twice(key, first, second)) == (0, GONE)
        assert call.wait(LIMIT)
        if first == "complete":
            assert call.complete() == "done"
        else:
            assert status_of(call.complete) == 4711

    def test_at_once(self, bench: Bench, key: str) -> None:
        """Of several threads that close at once one wins; the client gets one answer."""
        call = bench.held(key)
        assert list(bench.control.close_at_once(key, 8)) == [0] + [GONE] * 7
        assert call.result(LIMIT) in range(8)
        bench.probe.nothing()
        assert bench.client.statistics().replies_late == 0

    @pytest.mark.parametrize("status", [0, -1, 1 << 32, True, "5", None])
    def test_aborting_without_a_code(self, local: Callable[..., Server], benches: Benches, status: Any) -> None:
        """Aborting needs a code that is not 0; without one, 87, and the call stays open."""
        calls: list[ServerCall] = []

        class Routines:
            @manager
            def keep(self, call: ServerCall) -> None:
                calls.append(call)

        server = local()
        server.register("keeps", Routines())
        call = benches(server.endpoint).client.bind("keeps").keep.begin()
        wait_until(lambda: calls)
        assert status_of(lambda: calls[0].abort(status)) == 87
        calls[0].complete("still open")
        assert call.result(LIMIT) == "still open"

    @pytest.mark.parametrize("text", [7, None, b"bytes"])
    def test_aborting_with_a_text_that_is_none(self, local: Callable[..., Server], benches: Benches, text: Any) -> None:
        """A text that is none is refused likewise."""
        raised: list[int] = []

        class Routines:
            @manager
            def strange(self, call: ServerCall) -> None:
                raised.append(status_of(lambda: call.abort(5, text)))
                call.complete("still open")

        server = local()
        server.register("strange", Routines())
        assert benches(server.endpoint).client.bind("strange").strange(timeout=LIMIT) == "still open"
        assert raised == [87]


class TestUnsendable:
    """A result that cannot be sent."""

    @pytest.mark.parametrize("kind", ["object", "huge", "surrogate", "circle", "gaps"])
    def test_from_a_plain_routine(self, any_bench: Bench, kind: str) -> None:
        """The client gets 1783 with the reason, and the server lives on."""
        call = any_bench.probe.unsendable.begin(kind)
        assert call.wait(LIMIT), "the call was never answered"
        assert status_of(call.complete) == 1783
        assert any_bench.probe.echo("alive") == "alive"

    def test_from_a_manager_routine(self, local: Callable[..., Server], benches: Benches) -> None:
        """`complete` raises where it is called, and closes the call with 1783."""
        raised: list[int] = []

        class Routines:
            @manager
            def bad(self, call: ServerCall) -> None:
                raised.append(status_of(lambda: call.complete(object())))
                raised.append(status_of(lambda: call.complete("again")))

        server = local()
        server.register("bad", Routines())
        assert status_of(lambda: benches(server.endpoint).client.bind("bad").bad()) == 1783
        wait_until(lambda: len(raised) == 2)  # The client is answered before its routine goes on.
        assert raised == [87, GONE]

    def test_outputs_are_a_snapshot(self, local: Callable[..., Server], benches: Benches) -> None:
        """What was completed with is what is sent: changing it afterwards changes nothing."""

        class Routines:
            @manager
            def changing(self, call: ServerCall) -> None:
                value = ["as completed"]
                call.complete(value)
                value[0] = "changed"

        server = local()
        server.register("changes", Routines())
        assert benches(server.endpoint).client.bind("changes").changing() == ["as completed"]


class TestCoroutines:
    """`async def` routines."""

    def test_value(self, any_bench: Bench, key: str) -> None:
        """A coroutine's return value is the answer, and it holds no worker meanwhile."""
        call = any_bench.probe.hold_coroutine.begin(key)
        any_bench.control.arrived(key)
        assert any_bench.probe.echo("meanwhile") == "meanwhile"
        any_bench.control.complete(key, "awaited")
        assert call.result(LIMIT) == "awaited"

    def test_raising_and_handles(self, local: Callable[..., Server], benches: Benches) -> None:
        """What a coroutine raises is the outcome; a manager coroutine gets its handle; both know their call."""

        class Routines:
            async def stumble(self) -> None:
                raise ValueError("in a coroutine")

            @manager
            async def handled(self, call: ServerCall, value: int) -> None:
                assert current_call() is call
                call.complete(value + 1)

            async def unsendable(self) -> Any:
                return object()

        server = local()
        server.register("coroutines", Routines())
        binding = benches(server.endpoint).client.bind("coroutines")
        with pytest.raises(RemoteFault, match="ValueError: in a coroutine"):
            binding.stumble()
        assert binding.handled(1) == 2
        assert status_of(binding.unsendable) == 1783

    def test_many_side_by_side(self, bench: Bench, key: str) -> None:
        """Any number of coroutines may wait at once."""
        calls = [bench.probe.hold_coroutine.begin(f"{key}-{number}") for number in range(100)]
        for number in range(100):
            bench.control.arrived(f"{key}-{number}")
        for number in range(100):
            bench.control.complete(f"{key}-{number}", number)
        assert [call.result(LIMIT) for call in calls] == list(range(100))

    def test_outstanding_as_the_server_closes(
        self, local: Callable[..., Server], benches: Benches, key: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Coroutines that are still open when the server closes are cancelled, and their calls fail."""
        server = local()
        bench = benches(server.endpoint)
        calls = [bench.probe.hold_coroutine.begin(f"{key}-{number}") for number in range(3)]
        for number in range(3):
            bench.control.arrived(f"{key}-{number}")
        server.close(0)
        assert [status_of(partial(call.result, LIMIT)) for call in calls] == [1726] * 3

    def test_need_no_worker(self, local: Callable[..., Server], benches: Benches) -> None:
        """Coroutines are begun, and go on, while routines that came before them block every worker."""
        gate = Gate()

        class Routines:
            def block(self) -> None:
                gate.pass_through()

            async def think(self, word: str) -> str:
                await asyncio.sleep(0)
                return word

        server = local(workers=1)
        server.register("routines", Routines())
        routines = benches(server.endpoint).client.bind("routines")
        blocking = routines.block.begin()
        gate.wait_for_arrivals()

        async def main() -> list[str]:
            return [await routines.think.begin(word) for word in ("one", "two")]

        assert asyncio.run(main()) == ["one", "two"]
        assert not blocking.done()
        gate.open()
        blocking.result(LIMIT)


class TestCallAttributes:
    """3.10: who calls, and over what."""

    def test_what_is_called(self, bench: Bench) -> None:
        """The attributes name interface, version and operation, and say that the call is in progress."""
        who = bench.probe.who()
        assert (who["interface"], list(who["version"]), who["operation"]) == ("test.Probe", [1, 2], "who")
        assert who["status"] == 1
        assert who["client_principal"] == ""

    def test_who_calls(self, bench: Bench) -> None:
        """They name the client's process and host; the server is another process."""
        who = bench.probe.who()
        assert who["client_process"] == os.getpid() != who["server_process"]
        assert who["client_host"] == socket.gethostname()

    def test_where_from(self, benches: Benches, services: Callable[..., str]) -> None:
        """Over tcp they name the client's address."""
        assert benches(services("tcp")).probe.who()["client_address"] == "127.0.0.1"

    def test_metadata(self, benches: Benches, services: Callable[..., str]) -> None:
        """The connection's texts are overlaid with the call's own."""
        bench = benches(services("ipc"), metadata={"from": "client", "both": "client"})
        assert bench.probe.who()["metadata"] == {"from": "client", "both": "client"}
        who = bench.probe.who(metadata={"both": "call", "only": "call"})
        assert who["metadata"] == {"from": "client", "both": "call", "only": "call"}
        begun = bench.probe.who.begin(metadata={"only": "begun"})
        assert begun.result(LIMIT)["metadata"] == {"from": "client", "both": "client", "only": "begun"}
        assert bench.probe.who()["metadata"] == {"from": "client", "both": "client"}

    @pytest.mark.parametrize("metadata", [{"a": 1}, {1: "a"}, "ab", [("a", "b")], {"a": "\udcff"}, {"a": None}])
    def test_metadata_that_is_none(self, bench: Bench, metadata: Any) -> None:
        """Metadata that are not texts are refused by `begin`, by a call and by the client, and harm no other call."""
        for refused in (
            lambda: bench.probe.who.begin(metadata=metadata),
            lambda: bench.probe.who(metadata=metadata),
            lambda: Client(bench.endpoint, metadata=metadata),
        ):
            with pytest.raises(EngineError, match="metadata"):
                refused()
        calls = [bench.probe.echo.begin(number) for number in range(10)]
        assert [call.result(LIMIT) for call in calls] == list(range(10))

    def test_metadata_are_a_snapshot(self, bench: Bench) -> None:
        """Changing the metadata after `begin` changes nothing."""
        for _ in range(20):
            metadata = {"when": "begun"}
            calls = [bench.probe.who.begin(metadata=metadata) for _ in range(6)]
            metadata["when"] = "later"
            assert {call.result(LIMIT)["metadata"]["when"] for call in calls} == {"begun"}

    def test_after_the_client_has_gone(self, services: Callable[..., str], benches: Benches, key: str) -> None:
        """Once the client is gone the call says so: disconnected, status 3; its closing goes nowhere."""
        gone = benches(services("ipc"))
        gone.held(key)
        gone.client.close()
        control = benches(services("ipc")).control
        control.seen_disconnected(key)
        assert list(control.seen(key)) == [False, True, 3]
        assert control.complete(key, "nobody") == 0
        assert control.complete(key, "nobody") == GONE

    def test_cancelled_and_gone(self, services: Callable[..., str], benches: Benches, key: str) -> None:
        """A call that was cancelled and whose client is gone is disconnected, above all: status 3."""
        going = benches(services("ipc"))
        going.held(key).cancel()
        control = benches(services("ipc")).control
        control.seen_cancelled(key)
        assert list(control.seen(key)) == [True, False, 2]
        going.client.close()
        control.seen_disconnected(key)
        assert list(control.seen(key)) == [True, True, 3]

    def test_after_the_client_was_killed(
        self, services: Callable[..., str], benches: Benches, caller: Callable[..., Child], key: str
    ) -> None:
        """A client process that was killed is noticed too."""
        client = caller(services("tcp"), "probe", key)
        control = benches(services("tcp")).control
        control.arrived(key)
        assert list(control.seen(key)) == [False, False, 1]
        client.kill()
        control.seen_disconnected(key)
        assert control.complete(key, "nobody") == 0


class TestCurrentCall:
    """`current_call`, as a cancel test with a binding of zero (3.8)."""

    def test_in_a_routine(self, bench: Bench) -> None:
        """In a routine it is the call being served."""
        assert bench.probe.who()["repr"].endswith("test.Probe.who>")

    def test_elsewhere(self) -> None:
        """Where no call is being served it raises 1725."""
        with pytest.raises(InvalidState) as raised:
            current_call()
        assert raised.value.status == 1725

    def test_on_another_thread_of_the_server(self, local: Callable[..., Server], benches: Benches) -> None:
        """A thread that a routine hands over to has no current call; it takes the handle with it."""
        seen: list[object] = []

        class Routines:
            @manager
            def hand_over(self, call: ServerCall) -> None:
                def work() -> None:
                    seen.append(status_of(current_call))
                    call.complete(call.attributes().operation)

                thread = threading.Thread(target=work)
                thread.start()
                thread.join(LIMIT)

        server = local()
        server.register("hands", Routines())
        assert benches(server.endpoint).client.bind("hands").hand_over() == "hand_over"
        assert seen == [1725]

    def test_after_a_routine(self, local: Callable[..., Server], benches: Benches) -> None:
        """A worker that has ended a routine serves no call any more."""
        server = local(workers=1)
        bench = benches(server.endpoint)
        bench.probe.nothing()
        seen: list[int] = []
        done = threading.Event()
        server.pool.submit(lambda: (seen.append(status_of(current_call)), done.set()))
        assert done.wait(LIMIT)
        assert seen == [1725]


class TestNestedCalls:
    """Calls made inside routines."""

    @pytest.mark.parametrize("workers", [1, 4])
    def test_to_another_server(self, service: Callable[..., Service], benches: Benches, workers: int) -> None:
        """A routine may call another server, and wait."""
        first, second = service(workers=workers), service(workers=workers)
        assert benches(first.endpoint).probe.nested(second.endpoint, 1) == 1

    def test_to_its_own_server(self, service: Callable[..., Service], benches: Benches) -> None:
        """A routine may call its own server, as deep as there are workers."""
        mine = service(workers=4)
        assert benches(mine.endpoint).probe.nested(mine.endpoint, 3) == 3

    def test_a_routine_that_only_begins(self, local: Callable[..., Server], benches: Benches) -> None:
        """A manager routine that answers from a callback of its own call needs one worker for any depth."""
        clients: list[Client] = []

        class Routines:
            @manager
            def deep(self, call: ServerCall, depth: int) -> None:
                if depth == 0:
                    call.complete(0)
                else:
                    inner = clients[0].bind("deep").deep
                    inner.begin(depth - 1, notify=lambda done, kind: call.complete(1 + done.complete()))

        server = local(workers=1)
        server.register("deep", Routines())
        clients.append(benches(server.endpoint).client)
        assert clients[0].bind("deep").deep(20) == 20

    def test_awaited_in_a_coroutine(self, local: Callable[..., Server], benches: Benches) -> None:
        """An `async def` routine may await calls, of another server and of its own, with one worker in each."""
        clients: list[Client] = []

        class Routines:
            async def total(self, values: list[int]) -> int:
                calls = [client.bind(Probe).echo.begin(value) for value in values for client in clients]
                return sum(await asyncio.gather(*calls))

        server, other = local(workers=1), local(workers=1)
        server.register("totals", Routines())
        clients += [benches(server.endpoint).client, benches(other.endpoint).client]
        assert clients[0].bind("totals").total([1, 2, 3]) == 12

    def test_several_clients_nest_at_once(self, service: Callable[..., Service], benches: Benches) -> None:
        """Nested calls of several clients at once all end."""
        outer, inner = service(workers=2), service(workers=2)
        bench = benches(outer.endpoint)
        calls = [bench.probe.nested.begin(inner.endpoint, 1) for _ in range(6)]
        assert [call.result(LIMIT) for call in calls] == [1] * 6


def test_the_probe_is_served_by_contract() -> None:
    """The service implements every operation of its contract."""
    assert len([name for name in vars(Probe) if not name.startswith("_")]) > 20
