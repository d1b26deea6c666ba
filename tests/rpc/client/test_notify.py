"""How a completion is told: "Waiting for the Asynchronous Reply", "RPC_NOTIFICATION_TYPES", section 2."""

import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine import (
    AbandonedWait,
    Call,
    CallbackNotification,
    CompletionPort,
    Event,
    EventKind,
    InvalidArgumentType,
    Status,
    WaitTimeout,
    apc,
    queue_apc,
    sleep,
    wait_all,
)
from engine.testing import LIMIT, wait_until, wait_until_blocked

from ..helpers import GONE, PENDING, Bench, Service, status_of

Benches = Callable[..., Bench]
Find = Callable[[str], str]


class Listener:
    """What a notification type is given, and what came of it: a list of (call, kind, status seen when told)."""

    def __init__(self, kind: str) -> None:
        self.told: list[tuple[Any, object, int]] = []
        self._changed = threading.Condition()
        self.port = CompletionPort()
        self.event = Event()
        self.notify: Any = {
            "event": self.event,
            "apc": apc(self._note),
            "port": self.port,
            "callback": self._note,
        }[kind]
        self._kind = kind
        # Calls that are told by an event, which does not say of which.
        self.expected: list[Call[Any]] = []

    def _note(self, call: "Call[Any]", kind: EventKind) -> None:
        with self._changed:
            self.told.append((call, kind, call.status()))
            self._changed.notify_all()

    def wait(self, count: int = 1) -> None:
        """Wait until `count` calls were told of."""
        if self._kind == "callback":
            with self._changed:
                assert self._changed.wait_for(lambda: len(self.told) >= count, LIMIT)
        elif self._kind == "apc":
            while len(self.told) < count:
                assert sleep(LIMIT, alertable=True) == Status.IO_COMPLETION
        elif self._kind == "port":
            for _ in range(count):
                call = self.port.get(LIMIT).overlapped
                self.told.append((call, EventKind.CALL_COMPLETE, call.status()))
        else:
            done: list[Call[Any]] = []
            while len(done) < count:
                assert self.event.wait(LIMIT)
                done = [call for call in self.expected if call.status() != PENDING]
            self.told = [(call, EventKind.CALL_COMPLETE, call.status()) for call in done]

    def more(self) -> bool:
        """Whether something is told that `wait` has not taken."""
        if self._kind == "port":
            return status_of(lambda: self.port.get(0)) == 0
        if self._kind == "apc":
            return sleep(0, alertable=True) == Status.IO_COMPLETION
        if self._kind == "event":  # Signals coalesce: only after a single one is another one too many.
            return self.event.wait(0) and len(self.expected) <= 1
        return len(self.told) > len(self.expected)


TOLD = ("event", "apc", "port", "callback")


@pytest.fixture(params=TOLD)
def listener(request: pytest.FixtureRequest) -> Iterator[Listener]:
    """Each notification type that tells something."""
    made = Listener(request.param)
    yield made
    made.port.close()
    made.event.close()


class TestCommonRules:
    """2.1: what holds for all types."""

    def test_told_once_with_the_outcome_there(self, any_bench: Bench, listener: Listener) -> None:
        """A call is told of once; by then its outcome is recorded and it can be completed (INV-5)."""
        call = any_bench.probe.echo.begin("x", notify=listener.notify)
        listener.expected.append(call)
        listener.wait()
        assert listener.told == [(call, EventKind.CALL_COMPLETE, 0)]
        assert call.complete() == "x"
        assert call.event is EventKind.CALL_COMPLETE
        assert not listener.more()

    def test_a_failure_is_told_too(self, bench: Bench, listener: Listener, key: str) -> None:
        """A call that the server aborts is told of as complete, like any other."""
        call = bench.held(key, notify=listener.notify)
        listener.expected.append(call)
        bench.control.abort(key, 4711)
        listener.wait()
        assert listener.told == [(call, EventKind.CALL_COMPLETE, 4711)]
        assert not listener.more()

    @pytest.mark.parametrize("abort", [False, True])
    def test_a_cancelled_call_is_told_once(self, bench: Bench, listener: Listener, key: str, abort: bool) -> None:
        """Cancelling raises the ordinary notification, once, through the same target."""
        call = bench.held(key, notify=listener.notify)
        listener.expected.append(call)
        call.cancel(abort)
        bench.control.complete(key, "late")
        listener.wait()
        assert listener.told == [(call, EventKind.CALL_COMPLETE, 1818 if abort else 0)]
        bench.probe.nothing()
        assert not listener.more()

    def test_a_timeout_is_told_once(self, bench: Bench, listener: Listener, key: str) -> None:
        """A call whose time ran out is told of once."""
        call = bench.probe.hold.begin(key, notify=listener.notify, timeout=0.01)
        listener.expected.append(call)
        listener.wait()
        assert listener.told == [(call, EventKind.CALL_COMPLETE, 1818)]

    def test_a_lost_server_is_told_once(
        self, service: Callable[..., Service], benches: Benches, listener: Listener, key: str
    ) -> None:
        """Calls that the death of the server ends are told of once each."""
        mine = service()
        bench = benches(mine.endpoint)
        calls = [bench.held(f"{key}-{number}", notify=listener.notify) for number in range(10)]
        listener.expected += calls
        mine.kill()
        listener.wait(10)
        assert sorted(map(id, calls)) == sorted(id(call) for call, _, _ in listener.told)
        assert {status for _, _, status in listener.told} == {1726}
        assert not listener.more()

    def test_closing_the_client_is_told_once(
        self, benches: Benches, services: Find, listener: Listener, key: str
    ) -> None:
        """Calls that `close` ends are told of once each."""
        bench = benches(services("ipc"))
        calls = [bench.held(f"{key}-{number}", notify=listener.notify) for number in range(3)]
        listener.expected += calls
        bench.client.close()
        listener.wait(3)
        assert [status for _, _, status in listener.told] == [1818] * 3

    def test_nothing_for_a_call_that_was_refused(self, bench: Bench, listener: Listener) -> None:
        """A call that raised while being issued is never told of (T6)."""
        with pytest.raises(InvalidArgumentType):
            bench.probe.add.begin("one", notify=listener.notify)
        assert bench.probe.add(1, 1) == 2
        assert not listener.more()

    def test_many_calls(self, any_bench: Bench, listener: Listener) -> None:
        """Each of many outstanding calls is told of once."""
        calls = [any_bench.probe.echo.begin(number, notify=listener.notify) for number in range(200)]
        listener.expected += calls
        listener.wait(200)
        assert sorted(call.complete() for call, _, _ in listener.told) == list(range(200))
        assert not listener.more()

    @pytest.mark.parametrize("notify", [3, "event", [], object()])
    def test_a_target_that_is_none(self, bench: Bench, notify: Any) -> None:
        """Something that cannot be told is refused as the call is issued, naming the parameter."""
        with pytest.raises(InvalidArgumentType, match="notify"):
            bench.probe.echo.begin(1, notify=notify)

    def test_one_handle_told_in_different_ways(
        self, events: Callable[..., Event], bench: Bench, port: CompletionPort
    ) -> None:
        """Each call on a handle has the target it was issued with."""
        event = events()
        call = bench.probe.echo.begin(1, notify=event)
        assert event.wait(LIMIT)
        call.complete()
        bench.probe.echo.begin(2, notify=port, handle=call)
        assert port.get(LIMIT).overlapped.complete() == 2
        assert not event.wait(0)


class TestNone:
    """2.2: no notification."""

    def test_polling(self, any_bench: Bench) -> None:
        """The call is followed by polling its status."""
        call = any_bench.probe.echo.begin("x")
        wait_until(lambda: call.status() != PENDING)
        assert call.complete() == "x"

    def test_cancel_then_poll(self, bench: Bench, key: str) -> None:
        """After an abortive cancel the status is final."""
        call = bench.held(key)
        call.cancel(abort=True)
        assert call.status() == 1818


class TestEvent:
    """2.3: an event."""

    def test_signals_coalesce(self, events: Callable[..., Event], bench: Bench) -> None:
        """Several completions may be one signal: every call must be asked."""
        event = events()
        calls = [bench.probe.echo.begin(number, notify=event) for number in range(5)]
        for call in calls:
            call.wait(LIMIT)
        assert event.wait(LIMIT)
        assert [call.complete() for call in calls] == list(range(5))

    def test_manual_reset_stays_set(self, events: Callable[..., Event], bench: Bench) -> None:
        """A manual-reset event stays set: the next call on it wakes at once, and completing it may give 997."""
        event = events(manual_reset=True)
        bench.probe.echo.begin(1, notify=event).result(LIMIT)
        assert event.wait(0) and event.wait(0)

    def test_auto_reset_releases_one(self, events: Callable[..., Event], bench: Bench) -> None:
        """An auto-reset event is reset by the waiter it releases."""
        event = events()
        bench.probe.echo.begin(1, notify=event).result(LIMIT)
        assert event.wait(LIMIT)
        assert not event.wait(0)

    def test_issuing_does_not_reset(self, events: Callable[..., Event], bench: Bench, key: str) -> None:
        """An event that was set before the call is issued stays set (C15)."""
        event = events(manual_reset=True, signaled=True)
        call = bench.held(key, notify=event)
        assert event.wait(0)
        assert status_of(call.complete) == PENDING

    def test_the_event_is_the_callers(self, events: Callable[..., Event], benches: Benches, services: Find) -> None:
        """Closing the client neither closes nor resets the event."""
        event = events(manual_reset=True)
        bench = benches(services("ipc"))
        bench.probe.echo.begin(1, notify=event).result(LIMIT)
        bench.client.close()
        assert event.wait(0)
        event.reset()

    def test_together_with_other_objects(self, events: Callable[..., Event], bench: Bench) -> None:
        """Events of calls can be waited for together, as any object."""
        made = [events() for _ in range(3)]
        calls = [bench.probe.echo.begin(number, notify=event) for number, event in enumerate(made)]
        wait_all(made, LIMIT)
        assert [call.complete() for call in calls] == [0, 1, 2]

    def test_a_closed_event_costs_nothing_but_the_signal(
        self, events: Callable[..., Event], bench: Bench, key: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A call whose event was closed meanwhile can be completed, and so can those that end with it."""
        event, other = events(), events()
        first = bench.held(key, notify=event)
        second = bench.held(key + "2", notify=other)
        event.close()
        bench.control.complete(key, 1)
        bench.control.complete(key + "2", 2)
        assert other.wait(LIMIT)
        assert (first.result(LIMIT), second.complete()) == (1, 2)


class TestApc:
    """2.4: an asynchronous procedure call."""

    def test_only_in_an_alertable_wait(self, bench: Bench) -> None:
        """The routine runs in an alertable wait of its thread, not in any other."""
        ran: list[object] = []
        call = bench.probe.echo.begin(1, notify=apc(lambda call, kind: ran.append(call)))
        assert call.wait(LIMIT)
        assert sleep(0) == Status.OK
        assert ran == []
        assert sleep(LIMIT, alertable=True) == Status.IO_COMPLETION
        assert ran == [call]

    def test_the_status_is_final_while_it_is_queued(self, bench: Bench) -> None:
        """The call can be completed while its APC still waits."""
        ran: list[int] = []
        call = bench.probe.echo.begin(7, notify=apc(lambda call, kind: ran.append(status_of(call.complete))))
        assert call.result(LIMIT) == 7
        assert sleep(LIMIT, alertable=True) == Status.IO_COMPLETION
        assert ran == [GONE]

    def test_all_in_one_wait(self, bench: Bench) -> None:
        """All that are queued run in one alertable wait, in order, on the thread that waits."""
        ran: list[tuple[object, int]] = []

        def note(call: "Call[Any]", kind: EventKind) -> None:
            ran.append((call.complete(), threading.get_ident()))

        for number in range(3):
            assert bench.probe.echo.begin(number, notify=apc(note)).wait(LIMIT)
        queue_apc(lambda: ran.append(("last", threading.get_ident())))
        assert sleep(LIMIT, alertable=True) == Status.IO_COMPLETION
        me = threading.get_ident()
        assert ran == [(0, me), (1, me), (2, me), ("last", me)]

    def test_a_thread_that_was_chosen(self, bench: Bench) -> None:
        """The routine runs on the thread that was named."""
        ran: list[int | None] = []
        ready = threading.Event()

        def wait_alertably() -> None:
            ready.set()
            sleep(LIMIT, alertable=True)

        thread = threading.Thread(target=wait_alertably)
        thread.start()
        assert ready.wait(LIMIT)
        bench.probe.echo.begin(1, notify=apc(lambda call, kind: ran.append(threading.get_ident()), thread))
        thread.join(LIMIT)
        assert ran == [thread.ident]

    def test_a_thread_that_has_ended(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        """If the thread has ended the notification is lost, with a warning, and the call can be completed."""
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join(LIMIT)
        call = bench.probe.echo.begin("still", notify=apc(lambda call, kind: None, thread))
        assert call.result(LIMIT) == "still"
        wait_until(lambda: "could not be delivered" in caplog.text)

    def test_a_raising_routine(self, bench: Bench) -> None:
        """What the routine raises leaves the alertable wait; later notifications still come."""

        def stumble(call: "Call[Any]", kind: EventKind) -> None:
            raise ZeroDivisionError

        ran: list[object] = []
        bench.probe.echo.begin(1, notify=apc(stumble)).wait(LIMIT)
        bench.probe.echo.begin(2, notify=apc(lambda call, kind: ran.append(call.complete()))).wait(LIMIT)
        with pytest.raises(ZeroDivisionError):
            sleep(LIMIT, alertable=True)
        assert sleep(LIMIT, alertable=True) == Status.IO_COMPLETION
        assert ran == [2]

    def test_completing_and_issuing_inside(self, bench: Bench) -> None:
        """The routine may complete its call (C8) and issue another."""
        ran: list[object] = []

        def second(call: "Call[Any]", kind: EventKind) -> None:
            ran.append(call.complete())

        def first(call: "Call[Any]", kind: EventKind) -> None:
            ran.append(call.complete())
            bench.probe.echo.begin("second", notify=apc(second))

        bench.probe.echo.begin("first", notify=apc(first))
        while len(ran) < 2:
            assert sleep(LIMIT, alertable=True) == Status.IO_COMPLETION
        assert ran == ["first", "second"]

    def test_a_routine_that_is_none(self) -> None:
        """A routine that cannot be called is refused."""
        with pytest.raises(InvalidArgumentType):
            apc(3)  # type: ignore[arg-type]  # wrong on purpose


class TestPort:
    """2.5: a completion port."""

    @pytest.mark.parametrize(
        "values", [(1, 2, 3), ("key", b"transferred", {"over": "lapped"}), (None, None, None), (0, 0, 0)]
    )
    def test_the_three_values(self, bench: Bench, port: CompletionPort, values: tuple[Any, Any, Any]) -> None:
        """The packet carries the caller's three values as they were given, None too; its status is 0."""
        key, transferred, overlapped = values
        template = port.packet(key=key, transferred=transferred, overlapped=overlapped)
        bench.probe.echo.begin(1, notify=template)
        packet = port.get(LIMIT)
        assert packet.key is key and packet.transferred is transferred and packet.overlapped is overlapped
        assert packet.status == 0

    def test_without_values(self, bench: Bench, port: CompletionPort) -> None:
        """A bare port gives the call itself as the overlapped value."""
        call = bench.probe.echo.begin(1, notify=port)
        packet = port.get(LIMIT)
        assert (packet.key, packet.transferred) == (0, 0)
        assert packet.overlapped is call

    def test_never_coalesced(self, bench: Bench, port: CompletionPort) -> None:
        """There is one packet a call, with or without a waiter."""
        calls = [bench.probe.echo.begin(number, notify=port.packet(key=number)) for number in range(50)]
        for call in calls:
            assert call.wait(LIMIT)
        wait_until(lambda: port.statistics().depth == 50)
        assert sorted(port.get(0).key for _ in calls) == list(range(50))

    def test_one_template_for_many_calls(self, bench: Bench, port: CompletionPort) -> None:
        """A template may serve any number of calls."""
        template = port.packet(key="all")
        calls = {id(bench.probe.echo.begin(number, notify=template)): number for number in range(10)}
        assert len(calls) <= 10
        assert {port.get(LIMIT).key for _ in range(10)} == {"all"}

    def test_a_failed_call_is_a_packet_like_any_other(self, bench: Bench, port: CompletionPort, key: str) -> None:
        """The dequeue succeeds even though the call failed; the failure shows on completing."""
        call = bench.held(key, notify=port)
        bench.control.abort(key, 4711)
        packet = port.get(LIMIT)
        assert packet.status == 0 and packet.overlapped is call
        assert status_of(call.complete) == 4711

    def test_several_consumers(self, bench: Bench, port: CompletionPort) -> None:
        """Several threads may take the packets; each packet goes to one of them."""
        results: list[object] = []

        def consume() -> None:
            while True:
                try:
                    results.append(port.get(LIMIT).overlapped.complete())
                except AbandonedWait:
                    return

        threads = [threading.Thread(target=consume) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(300):
            bench.probe.echo.begin(number, notify=port)
        wait_until(lambda: len(results) == 300)
        wait_until_blocked(port, 3)
        port.close()
        for thread in threads:
            thread.join(LIMIT)
        assert sorted(map(int, map(str, results))) == list(range(300))

    def test_timeout_and_poll(self, bench: Bench, port: CompletionPort, key: str) -> None:
        """A dequeue without a packet ends with 258, and a wait of zero polls."""
        bench.held(key, notify=port)
        for timeout in (0, 0.01):
            with pytest.raises(WaitTimeout):
                port.get(timeout)

    def test_polling_a_port_brings_the_reply(self, any_bench: Bench, port: CompletionPort) -> None:
        """A consumer that only polls the port sees the packet in the end."""
        any_bench.probe.echo.begin(1, notify=port)
        wait_until(lambda: status_of(lambda: port.get(0)) == 0)

    def test_closed_before_the_reply(self, bench: Bench, key: str, caplog: pytest.LogCaptureFixture) -> None:
        """A port that was closed meanwhile costs the packet only: the call can be completed, and others are told."""
        closed, other = CompletionPort(), CompletionPort()
        with other:
            first = bench.held(key, notify=closed)
            second = bench.held(key + "2", notify=other)
            closed.close()
            bench.control.complete(key, 1)
            bench.control.complete(key + "2", 2)
            assert other.get(LIMIT).overlapped is second
            assert (first.result(LIMIT), second.complete()) == (1, 2)

    def test_the_port_is_the_callers(self, benches: Benches, services: Find, port: CompletionPort) -> None:
        """Closing the client leaves the port open."""
        bench = benches(services("ipc"))
        bench.probe.echo.begin(1, notify=port).result(LIMIT)
        bench.client.close()
        port.post(key="still open")
        assert {port.get(0).key, port.get(0).key} == {0, "still open"}

    def test_mixed_with_packets_of_ones_own(self, bench: Bench, port: CompletionPort) -> None:
        """Calls and posted packets share one port."""
        port.post(key="posted")
        bench.probe.echo.begin(1, notify=port.packet(key="called"))
        assert {port.get(LIMIT).key for _ in range(2)} == {"posted", "called"}


class TestCallback:
    """2.7: a callback."""

    def test_on_an_engine_thread(self, bench: Bench) -> None:
        """The routine gets the call and the kind of event, on a thread of the engine (C14)."""
        told: list[tuple[object, object, str]] = []
        come = threading.Event()

        def on_reply(call: "Call[Any]", kind: EventKind) -> None:
            told.append((call, kind, threading.current_thread().name))
            come.set()

        call = bench.probe.echo.begin(1, notify=on_reply)
        assert come.wait(LIMIT)
        assert told[0][:2] == (call, EventKind.CALL_COMPLETE)
        assert told[0][2].startswith("engine:")

    def test_nobody_needs_to_wait(self, any_bench: Bench) -> None:
        """The reply is taken and told of though no thread waits in the library."""
        come = threading.Event()
        any_bench.probe.echo.begin(1, notify=lambda call, kind: come.set())
        assert come.wait(LIMIT)

    def test_context_variables(self, any_bench: Bench) -> None:
        """A callback sees the context variables as they were when its call was begun; what it sets is its own."""
        variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable", default="none")
        seen: list[object] = []

        def note(call: "Call[Any]", kind: EventKind) -> None:
            seen.append((call.complete(), variable.get()))
            variable.set("set by a callback")

        for notify in (note, CallbackNotification(note)):
            for number in range(5):
                variable.set(number)
                any_bench.probe.echo.begin(number, notify=notify)
                variable.set("changed since")
        wait_until(lambda: len(seen) == 10)
        assert sorted(seen, key=repr) == sorted([(number, number) for number in range(5)] * 2)
        assert variable.get() == "changed since"

    def test_a_raising_callback(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        """What a callback raises is reported, and harms neither the call nor the engine."""

        def stumble(call: "Call[Any]", kind: EventKind) -> None:
            raise ZeroDivisionError("stumbled")

        calls = [bench.probe.echo.begin(number, notify=stumble) for number in range(10)]
        assert [call.result(LIMIT) for call in calls] == list(range(10))
        come = threading.Event()
        bench.probe.echo.begin(1, notify=lambda call, kind: come.set())
        assert come.wait(LIMIT)
        wait_until(lambda: caplog.text.count("ZeroDivisionError: stumbled") == 10)

    def test_completing_inside(self, bench: Bench) -> None:
        """A callback may complete its call (C8)."""
        results: list[object] = []
        come = threading.Event()

        def on_reply(call: "Call[Any]", kind: EventKind) -> None:
            results.append(call.complete())
            come.set()

        call = bench.probe.echo.begin("inside", notify=on_reply)
        assert come.wait(LIMIT)
        assert results == ["inside"]
        assert status_of(call.complete) == GONE

    def test_a_slow_callback(self, bench: Bench) -> None:
        """A callback that blocks holds up neither calls nor other callbacks."""
        gate, come = threading.Event(), threading.Event()
        try:
            bench.probe.echo.begin(1, notify=lambda call, kind: gate.wait(LIMIT))
            bench.probe.echo.begin(2, notify=lambda call, kind: come.set())
            assert bench.probe.echo(3) == 3
            assert come.wait(LIMIT)
        finally:
            gate.set()

    def test_calling_inside(self, bench: Bench) -> None:
        """A callback may make a blocking call."""
        results: list[object] = []
        come = threading.Event()

        def on_reply(call: "Call[Any]", kind: EventKind) -> None:
            results.append(bench.probe.add(call.complete(), 1))
            come.set()

        bench.probe.echo.begin(41, notify=on_reply)
        assert come.wait(LIMIT)
        assert results == [42]


class TestSnapshot:
    """2.1 (1): the target is fixed when the call is issued."""

    def test_later_changes(self, bench: Bench, port: CompletionPort, key: str) -> None:
        """Changing the objects that a template was made of changes nothing."""
        values = ["as issued"]
        call = bench.held(key, notify=port.packet(key=values, overlapped=None))
        bench.control.complete(key)
        packet = port.get(LIMIT)
        assert packet.key is values and packet.overlapped is None
        assert call.complete() is None


def test_logging_is_under_the_engines_name(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """What is reported is logged under `engine`."""

    def stumble(call: "Call[Any]", kind: EventKind) -> None:
        raise ValueError("reported")

    with caplog.at_level(logging.WARNING):
        bench.probe.echo.begin(1, notify=stumble).result(LIMIT)
        wait_until(lambda: "reported" in caplog.text)
    assert {record.name.partition(".")[0] for record in caplog.records} == {"engine"}
