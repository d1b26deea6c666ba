"""Cancelling and time limits: "RpcAsyncCancelCall", "Receiving Cancellations", section 5."""

import gc
import pkgutil
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from engine import (
    Call,
    CallCancelled,
    CallTimeout,
    Client,
    CompletionPort,
    EngineError,
    Interface,
    RemoteFault,
    Server,
    State,
    current_call,
    operation,
)
from engine.testing import LIMIT, wait_until
from transport.frames import CallOptions, Calls, Fault, Replies, Target

from ...one_by_one import calls_in, one_call, one_reply, replies_in
from ..helpers import PENDING, Bench, RawClient, RawServer, Service, limits, status_of
from ..interfaces import Probe

Benches = Callable[..., Bench]


class TestNonAbortive:
    """5.1: a cancel that asks."""

    def test_the_server_is_told_and_the_client_waits(self, any_bench: Bench, key: str) -> None:
        """The server sees the cancel; the call stays pending until the server ends it."""
        call = any_bench.held(key)
        call.cancel()
        any_bench.control.seen_cancelled(key)
        assert call.state is State.CANCELLING
        assert call.status() == PENDING
        any_bench.control.complete(key, "finished all the same")
        assert call.result(LIMIT) == "finished all the same"

    def test_the_outcome_is_the_servers(self, bench: Bench, key: str) -> None:
        """If the server aborts, its code is the outcome."""
        call = bench.held(key)
        call.cancel()
        bench.control.abort(key, 1818, "as asked")
        assert status_of(lambda: call.result(LIMIT)) == 1818

    def test_again_and_again(self, bench: Bench, key: str) -> None:
        """Cancelling twice does no harm."""
        call = bench.held(key)
        for _ in range(3):
            call.cancel()
        bench.control.complete(key, 1)
        assert call.result(LIMIT) == 1

    def test_then_abortive(self, bench: Bench, key: str) -> None:
        """The documented way to build a time limit: ask first, abort after a while (5.3)."""
        call = bench.held(key)
        call.cancel()
        assert not call.wait(0.01)
        call.cancel(abort=True)
        assert call.wait(LIMIT)
        with pytest.raises(CallCancelled):
            call.complete()


class TestAbortive:
    """5.1: a cancel that does not wait."""

    def test_at_once(self, any_bench: Bench, key: str) -> None:
        """The call is done at once with 1818, without waiting for the server, which is told."""
        call = any_bench.held(key)
        call.cancel(abort=True)
        assert call.status() == 1818
        with pytest.raises(CallCancelled) as raised:
            call.complete()
        assert raised.value.status == 1818 and not isinstance(raised.value, TimeoutError)
        any_bench.control.seen_cancelled(key)

    def test_a_late_reply_is_discarded(self, any_bench: Bench, key: str) -> None:
        """A reply that comes afterwards is dropped and counted; other calls are unharmed."""
        before = any_bench.client.statistics().replies_late
        call = any_bench.held(key)
        call.cancel(abort=True)
        assert any_bench.control.complete(key, "late") == 0
        any_bench.probe.nothing()
        wait_until(lambda: any_bench.probe.nothing() or any_bench.client.statistics().replies_late == before + 1)
        assert status_of(call.complete) == 1818

    def test_the_handle_can_be_used_while_the_late_reply_is_under_way(self, bench: Bench, key: str) -> None:
        """A late reply never ends the next call on the same handle."""
        call = bench.held(key)
        call.cancel(abort=True)
        assert status_of(call.complete) == 1818
        bench.probe.hold.begin(key + "2", handle=call)
        bench.control.arrived(key + "2")
        bench.control.complete(key, "late")
        bench.probe.nothing()
        assert call.status() == PENDING
        bench.control.complete(key + "2", "in time")
        assert call.result(LIMIT) == "in time"

    def test_before_it_was_sent(self, endpoint: str) -> None:
        """A call that waits for a connection can be aborted."""
        with Client(endpoint) as client:
            call = client.bind(Probe).echo.begin(1)
            call.cancel(abort=True)
            assert status_of(call.complete) == 1818

    def test_a_call_aborted_before_it_was_sent_does_not_hang_others(
        self, service: Callable[..., Service], endpoint: str
    ) -> None:
        """Calls that were begun beside it before the connection are answered."""
        with Client(endpoint, connect_timeout=LIMIT) as client:
            calls = [client.bind(Probe).echo.begin(number) for number in range(10)]
            for call in calls[::2]:
                call.cancel(abort=True)
            service(endpoint)
            assert [call.result(LIMIT) for call in calls[1::2]] == [1, 3, 5, 7, 9]
            assert {status_of(call.complete) for call in calls[::2]} == {1818}

    def test_from_another_thread(self, bench: Bench, key: str) -> None:
        """A thread that waits is released by a cancel from another one."""
        call = bench.held(key)
        statuses: list[int] = []
        thread = threading.Thread(target=lambda: statuses.append(status_of(lambda: call.result(LIMIT))))
        thread.start()
        call.cancel(abort=True)
        thread.join(LIMIT)
        assert statuses == [1818]

    def test_many_at_once(self, bench: Bench, key: str, port: CompletionPort) -> None:
        """Any number of calls may be aborted; each is told of once."""
        calls = [bench.held(f"{key}-{number}", notify=port) for number in range(20)]
        for call in calls:
            call.cancel(abort=True)
        assert {id(port.get(LIMIT).overlapped) for _ in calls} == {id(call) for call in calls}
        assert bench.client.statistics().outstanding == 0


class TestRaces:
    """5.2: the first outcome wins."""

    @pytest.mark.parametrize("abort", [False, True])
    def test_after_the_reply(self, any_bench: Bench, abort: bool) -> None:
        """A cancel after the reply has arrived changes nothing (T14, C13)."""
        call = any_bench.done("kept")
        call.cancel(abort)
        assert call.state is State.DONE
        assert call.complete() == "kept"

    @pytest.mark.parametrize("abort", [False, True])
    def test_after_a_failure(self, bench: Bench, key: str, abort: bool) -> None:
        """A cancel does not replace a failure."""
        call = bench.failed(key, 4711)
        call.cancel(abort)
        assert status_of(call.complete) == 4711

    def test_against_the_reply(self, bench: Bench) -> None:
        """Whichever comes first is the outcome, and it comes once."""
        with CompletionPort() as port:
            calls = [bench.probe.echo.begin(number, notify=port) for number in range(200)]
            for call in calls[::-1]:
                call.cancel(abort=True)
            taken = [port.get(LIMIT).overlapped for _ in calls]
            assert {id(call) for call in taken} == {id(call) for call in calls}
            outcomes = [status_of(call.complete) for call in calls]
            assert set(outcomes) <= {0, 1818}
            bench.probe.nothing()
            assert status_of(lambda: port.get(0)) == 258


class TestTimeLimit:
    """5.4: a limit of the call's own; an extension, since Windows has none for asynchronous calls (C5)."""

    def test_ends_with_1818(self, any_bench: Bench, key: str) -> None:
        """A call whose time ran out ends with `CallTimeout`, which is a `TimeoutError` with status 1818."""
        any_bench.probe.nothing()
        call = any_bench.probe.hold.begin(key, timeout=0.02)
        assert call.wait(LIMIT)
        with pytest.raises(CallTimeout) as raised:
            call.complete()
        assert raised.value.status == 1818 and isinstance(raised.value, TimeoutError)

    def test_of_zero(self, bench: Bench, key: str) -> None:
        """A limit of zero leaves no time."""
        bench.probe.nothing()
        with pytest.raises(CallTimeout):
            bench.probe.hold(key, timeout=0)

    def test_noticed_by_the_server_first(self, endpoint: str) -> None:
        """A client whose server is the first to see that the time is up is told the same."""
        with RawServer(endpoint) as raw, Client(endpoint) as client:
            call = client.bind(Probe).echo.begin(1, timeout=LIMIT)
            raw.greet()
            [asked] = calls_in(raw.hear())
            fault = msgspec.Raw(msgspec.msgpack.encode(Fault("CallTimeout", "too late")))
            raw.say(Replies([one_reply(asked.id, 1818, fault)]))
            with pytest.raises(CallTimeout, match="too late"):
                call.result(LIMIT)

    def test_told_by_the_server(self, server: Server) -> None:
        """The server says of a call whose time is up that it is, and does not start it."""
        server.listen()
        with RawClient(server.endpoint) as raw:
            expired = one_call(1, 0, msgspec.Raw(msgspec.msgpack.encode((1, 2))), CallOptions(time_left=0.0))
            raw.say(Calls([expired], [Target("test.Adder", 2, 3, "add")]))
            [told] = replies_in(raw.hear())
            assert told.status == 1818
            assert msgspec.msgpack.decode(told.value, type=Fault).type == "CallTimeout"

    def test_none_by_default(self, bench: Bench) -> None:
        """By default there is none, and the routine sees none."""
        assert bench.probe.time_left() is None

    def test_the_clients_default(self, benches: Benches, services: Callable[..., str], key: str) -> None:
        """A client's limit holds for each call that does not say otherwise."""
        bench = benches(services("ipc"), timeout=0.02)
        bench.probe.echo(1, timeout=LIMIT)
        assert status_of(lambda: bench.probe.hold(key)) == 1818
        left = bench.probe.time_left(timeout=LIMIT)
        assert left is not None and LIMIT / 2 < left <= LIMIT

    def test_the_routine_sees_it(self, bench: Bench) -> None:
        """A routine can ask how long its client still waits."""
        left = bench.probe.time_left(timeout=LIMIT)
        assert left is not None and 0 < left <= LIMIT

    def test_in_time(self, bench: Bench) -> None:
        """A call that is answered in time is not disturbed by its limit."""
        assert bench.probe.echo(1, timeout=LIMIT) == 1
        assert bench.probe.echo.begin(2, timeout=LIMIT).result() == 2

    def test_the_server_is_not_told(self, bench: Bench, key: str) -> None:
        """Running out of time is no cancel: the server is not told (C11)."""
        bench.probe.nothing()
        for limit in limits(0.05, 0.5, 5.0, LIMIT / 2):
            held = f"{key}-{limit}"
            call = bench.probe.hold.begin(held, timeout=limit)
            assert status_of(partial(call.result, LIMIT)) == 1818
            bench.probe.nothing()
            try:
                assert bench.control.seen(held) == (False, False, 1)
                break
            except RemoteFault:
                pass  # Its routine had not begun by then.

    def test_expired_work_is_not_started(self, local: Callable[..., Any], benches: Benches, key: str) -> None:
        """A call whose time ran out before its routine was entered is not run."""
        server = local(workers=1)
        bench = benches(server.endpoint)
        entered, gate = threading.Event(), threading.Event()

        class Routines:
            def block(self) -> None:
                entered.set()
                gate.wait(LIMIT)

        server.register("blocks", Routines())
        blocking = bench.client.bind("blocks").block.begin()
        assert entered.wait(LIMIT)
        late = bench.probe.note.begin(key, timeout=0.01)
        held = bench.probe.hold.begin(key, timeout=0.01)
        assert status_of(lambda: held.result(LIMIT)) == 1818
        # The server counts from when it hears of a call: by now it has heard of both, if they left at all.
        assert status_of(bench.client.bind("nobody").nothing) == 1717
        heard = time.monotonic()
        wait_until(lambda: time.monotonic() > heard + 0.01)
        gate.set()
        blocking.result(LIMIT)
        assert late.wait(LIMIT)
        wait_until(lambda: server.statistics().active == 0)
        with pytest.raises(RemoteFault):
            bench.control.seen(key)

    def test_work_that_would_be_late_is_not_started(
        self, local: Callable[..., Any], benches: Benches, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A call of whose time only the last part is left is not run: its client would hardly get the answer. One that
        has no answer is run as long as any of its time is left.
        """
        # All of it is the last part, so that this needs no time to pass.
        monkeypatch.setattr("engine.rpc.server.runner.LAST_PART", 1.0)
        monkeypatch.setattr("engine.rpc.server.runner.LAST_SECONDS", 1e6)
        ran: list[str] = []

        class Hurried(Interface, id="test.Hurried"):
            @operation
            def answer(self) -> None: ...

            @operation(one_way=True)
            def note(self) -> None: ...

        class Routines:
            def answer(self) -> None:
                ran.append("answer")

            def note(self) -> None:
                ran.append("note")

        server = local()
        server.register(Hurried, Routines())
        binding = benches(server.endpoint).client.bind(Hurried)
        with pytest.raises(CallTimeout, match="before it was started"):
            binding.answer(timeout=LIMIT)
        binding.note.begin(timeout=LIMIT).result(LIMIT)
        wait_until(lambda: ran)
        assert ran == ["note"]

    @pytest.mark.parametrize("timeout", [-1, "soon", float("nan"), False, 10**400])
    def test_a_limit_that_is_none(self, bench: Bench, timeout: Any) -> None:
        """A limit that is no number of seconds is refused, by `begin`, by a call, and by the client."""
        with pytest.raises(EngineError, match="timeout"):
            bench.probe.echo.begin(1, timeout=timeout)
        with pytest.raises(EngineError, match="timeout"):
            bench.probe.echo(1, timeout=timeout)
        with pytest.raises(EngineError, match="timeout"):
            Client(bench.endpoint, timeout=timeout)
        assert bench.probe.echo("unharmed") == "unharmed"

    @pytest.mark.parametrize("timeout", [float("inf"), 1e300, 10**30])
    def test_a_limit_that_never_comes(self, bench: Bench, timeout: float) -> None:
        """A limit may be as large as a number can be."""
        assert bench.probe.echo("x", timeout=timeout) == "x"
        assert bench.probe.echo("unharmed") == "unharmed"

    def test_that_is_set_late(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a call that has ended before its limit was set nothing waits for that: a client that is closed is gone."""
        limit = pkgutil.resolve_name("engine.rpc.call:limit")

        def limit_late(call: Call[Any], timer: Any) -> None:
            assert call.wait(LIMIT)
            limit(call, timer)

        monkeypatch.setattr("engine.rpc.client.carrier.limit", limit_late)
        client = Client(bench.endpoint)
        assert client.bind(Probe).echo.begin("x", timeout=1e6).result(LIMIT) == "x"
        client.close()
        gone = weakref.ref(client)
        del client
        wait_until(lambda: gc.collect() >= 0 and gone() is None)

    def test_on_a_reused_handle(self, bench: Bench, key: str) -> None:
        """The limit of a former call never ends the next one on the handle."""
        for limit in limits(0.05, 0.5, 5.0, LIMIT / 4):
            call = bench.probe.echo.begin(1, timeout=limit)
            if status_of(partial(call.result, LIMIT)) == 0:
                break
        bench.probe.hold.begin(key, handle=call)
        bench.control.arrived(key)
        assert not call.wait(2 * limit)
        bench.control.complete(key, 2)
        assert call.result(LIMIT) == 2


class TestTheServersSide:
    """4.4: noticing cancels."""

    def test_still_owes_one_closing(self, bench: Bench, key: str) -> None:
        """After noticing a cancel the server still completes or aborts, once."""
        call = bench.held(key)
        call.cancel()
        bench.control.seen_cancelled(key)
        assert bench.control.close_twice(key, "abort", "complete") == (0, 1914)
        assert status_of(lambda: call.result(LIMIT)) == 4711

    def test_the_attributes_tell(self, bench: Bench, key: str) -> None:
        """The call's attributes say 2 once it is cancelled."""
        call = bench.held(key)
        assert bench.control.seen(key) == (False, False, 1)
        call.cancel(abort=True)
        bench.control.seen_cancelled(key)
        assert bench.control.seen(key) == (True, False, 2)

    def test_a_reply_after_an_abortive_cancel_goes_nowhere(self, bench: Bench, key: str) -> None:
        """Completing a call whose client has aborted it works, and reaches nobody."""
        call = bench.held(key)
        call.cancel(abort=True)
        bench.control.seen_cancelled(key)
        assert bench.control.complete(key, "nobody") == 0
        assert bench.control.complete(key, "again") == 1914
        assert status_of(call.complete) == 1818

    def test_a_coroutine_is_not_interrupted(self, bench: Bench, key: str) -> None:
        """A cancel interrupts no routine, `async def` ones included."""
        call = bench.probe.hold_coroutine.begin(key)
        bench.control.arrived(key)
        call.cancel()
        bench.control.seen_cancelled(key)
        assert bench.control.complete(key, "not interrupted") == 0
        assert call.result(LIMIT) == "not interrupted"

    @pytest.mark.parametrize("timeout", [None, LIMIT])
    @pytest.mark.parametrize("abort", [False, True])
    def test_cancelled_before_it_was_started(
        self, local: Callable[..., Any], benches: Benches, abort: bool, timeout: float | None
    ) -> None:
        """A cancel keeps no routine from being started, which can see it; a call that was aborted before is not run."""
        server = local(workers=1)
        bench = benches(server.endpoint)
        entered, gate = threading.Event(), threading.Event()
        seen: list[bool] = []

        class Routines:
            def block(self) -> None:
                entered.set()
                gate.wait(LIMIT)

            def look(self) -> str:
                seen.append(current_call().test_cancel())
                return "started"

        server.register("blocks", Routines())
        binding = bench.client.bind("blocks")
        blocking = binding.block.begin()
        assert entered.wait(LIMIT)
        arrived = server.statistics().calls_in
        call = binding.look.begin(timeout=timeout)
        wait_until(lambda: server.statistics().calls_in > arrived)
        call.cancel(abort)
        # In order behind the cancel: once it is taken, so is that.
        arrived = server.statistics().calls_in
        last = bench.probe.nothing.begin()
        wait_until(lambda: server.statistics().calls_in > arrived)
        gate.set()
        blocking.result(LIMIT)
        last.result(LIMIT)
        assert seen == ([] if abort else [True])
        if abort:
            assert status_of(call.complete) == 1818
        else:
            assert call.result(LIMIT) == "started"
