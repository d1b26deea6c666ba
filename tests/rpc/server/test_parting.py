"""What becomes of calls that were taken and have not begun, when their client goes or the server closes."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from engine import Context, EventKind, Interface, Server, ServerCall, current_call, manager, operation
from engine.rpc.server import listener
from engine.rpc.server.runner import CallRunner
from engine.testing import LIMIT, Gate, wait_until
from transport.frames import Bye, CallOptions, Cancel, CancelledCall, Reject, Replies, Target
from transport.wire.codec import encode_call, encode_calls

from ...one_by_one import replies_in
from ..helpers import RawClient, status_of

NO_LANE = -1


class Log:
    """Routines that note their numbers, and some that stop."""

    def __init__(self) -> None:
        self.noted: list[int] = []
        self.run_down: list[int] = []
        self.gate = Gate()
        self.told = Gate()

    def stay(self) -> None:
        current_call().subscribe(EventKind.CLIENT_DISCONNECT, lambda call, kind: self.told.pass_through(0.0))
        self.gate.pass_through()

    async def hold_the_loop(self) -> None:
        self.gate.pass_through()

    def note(self, number: int) -> None:
        self.noted.append(number)

    async def note_later(self, number: int) -> None:
        self.noted.append(number)

    @manager
    def note_by_hand(self, call: ServerCall, number: int) -> None:
        self.noted.append(number)
        call.complete()

    def nothing(self) -> None:
        pass


class Desk(Interface, id="tests.Desk"):
    """Contexts."""

    def open(self) -> Context[int]: ...
    @operation
    def use(self, context: Context[int], number: int) -> None: ...


class Opening:
    """Implements `Desk`; the first use stays."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def open(self) -> Context[int]:
        return current_call().open_context(1, lambda context: self._log.run_down.append(context))

    def use(self, context: Context[int], number: int) -> None:
        self._log.noted.append(number)
        if number < 0:
            self._log.gate.pass_through()


@pytest.fixture
def log() -> Iterator[Log]:
    """The routines."""
    log = Log()
    yield log
    log.gate.open()


@pytest.fixture
def serve(servers: Callable[..., Server], log: Log, endpoint: str) -> Callable[..., Server]:
    """A function that makes a server of them that listens."""

    def start(workers: int) -> Server:
        server = servers(endpoint, workers=workers)
        server.register("log", log)
        server.register("gated", log, security=lambda attributes: True)
        server.register(Desk, Opening(log))
        server.listen()
        return server

    return start


def send(raw: RawClient, number: int, name: str, *args: object, **options: Any) -> None:
    """Send a call that is alone in its message."""
    interface, _, name = name.rpartition(".")
    target = Target(interface or "log", 0, 0, name)
    raw.send(*map(bytes, encode_call(target, number, args, CallOptions(**options) if options else None)))


WAYS = ["log.note", "log.note_later", "log.note_by_hand", "gated.note", "gated.note_later"]


class TestTheClientGoes:
    """Nobody waits for such a call any more."""

    @pytest.mark.parametrize("how", ["goodbye", "loss"])
    def test_is_not_run(self, serve: Callable[..., Server], clients: Callable[..., Any], log: Log, how: str) -> None:
        """Calls of a client that is gone are not begun; they are closed, and those of others run."""
        server = serve(1)
        other = clients(server.endpoint).bind("log")
        with RawClient(server.endpoint) as raw:
            send(raw, 1, "stay")
            log.gate.wait_for_arrivals()
            for number, name in enumerate(WAYS, 2):
                send(raw, number, name, number)
                send(raw, number + 100, name, number + 100, time_left=LIMIT)
                send(raw, number + 200, name, number + 200, lane=NO_LANE)
            targets = [Target("log", 0, 0, "note")] * 100
            raw.send(*map(bytes, encode_calls([(1000 + n, target, (n,), None) for n, target in enumerate(targets)])))
            wait_until(lambda: server.statistics().calls_in == 1 + 3 * len(WAYS) + 100)
            if how == "goodbye":
                raw.say(Bye())
        log.told.wait_for_arrivals()
        call = other.note.begin(7)
        log.gate.open()
        call.result(LIMIT)
        wait_until(lambda: server.statistics().active == 0)
        # What needed no worker had been handed to the event loop at once.
        assert [number for number in log.noted if number not in (3, 103, 203)] == [7]

    @pytest.mark.parametrize("how", ["goodbye", "loss"])
    def test_one_way(self, serve: Callable[..., Server], log: Log, how: str) -> None:
        """One-way calls run all the same, in their order: their client was told long ago that they are on their way."""
        server = serve(1)
        with RawClient(server.endpoint) as raw:
            send(raw, 1, "stay")
            log.gate.wait_for_arrivals()
            for number in range(2, 30):
                send(raw, number, "note" if number % 2 else "gated.note", number, one_way=number % 3 == 0)
            wait_until(lambda: server.statistics().calls_in == 29)
            if how == "goodbye":
                raw.say(Bye())
        log.told.wait_for_arrivals()
        log.gate.open()
        wait_until(lambda: server.statistics().active == 0)
        assert log.noted == list(range(3, 30, 3))

    def test_in_the_event_loop(self, serve: Callable[..., Server], log: Log) -> None:
        """An `async def` routine that was handed to the event loop, and has not begun there, is not run either."""
        server = serve(1)
        with RawClient(server.endpoint) as raw:
            send(raw, 1, "hold_the_loop")
            log.gate.wait_for_arrivals()
            for number in range(2, 10):
                send(raw, number, "note_later", number, one_way=number % 3 == 0)
            send(raw, 10, "stay")
            log.gate.wait_for_arrivals(2)
        log.told.wait_for_arrivals()
        log.gate.open()
        wait_until(lambda: server.statistics().active == 0)
        assert log.noted == [3, 6, 9]

    def test_that_waits_for_a_context_handle(
        self, serve: Callable[..., Server], clients: Callable[..., Any], log: Log
    ) -> None:
        """Nor is a call that waits for its turn with a context handle."""
        server = serve(2)
        client = clients(server.endpoint)
        desk = client.bind(Desk)
        context = desk.open()
        desk.use.begin(context, -1)
        log.gate.wait_for_arrivals()
        for number in range(5):
            desk.use.begin(context, number)
        wait_until(lambda: server.statistics().active == 6)
        client.close()
        wait_until(lambda: not server._listeners[0].peers)
        log.gate.open()
        wait_until(lambda: server.statistics().active == 0)
        assert log.noted == [-1]


class TestBrokenOff:
    """A message of a client cannot be read: the conversation begins again."""

    def test_context_handles(self, serve: Callable[..., Server], log: Log) -> None:
        """The handles of the former conversation are run down, once, though the client stays, and greets again."""
        server = serve(1)
        with RawClient(server.endpoint) as raw:
            raw.send(*map(bytes, encode_call(Target("tests.Desk", 1, 0, "open"), 1, (), None)))
            assert [reply.status for reply in replies_in(raw.hear())] == [0]
            assert log.run_down == []
            raw.send(b"CP\x01\x04garbage")
            assert type(raw.hear()) is Reject
            wait_until(lambda: log.run_down == [1])
            raw.greet()
            send(raw, 2, "nothing")
            assert type(raw.hear()) is Replies
        assert log.run_down == [1]


class TestTheServerCloses:
    """What was taken and has not begun did not run, and its client is told so."""

    def test_did_not_run(self, serve: Callable[..., Server], clients: Callable[..., Any], log: Log) -> None:
        """Calls that have not begun when the server closes end with 1722 and never run, those that have with 1726."""
        server = serve(1)
        client = clients(server.endpoint)
        first = client.bind("log").stay.begin()
        log.gate.wait_for_arrivals()
        log.noted.clear()
        calls = [client.bind("log").note.begin(number) for number in range(300)]
        for number, name in enumerate(WAYS):
            interface, _, operation = name.partition(".")
            if name == "log.note_later":
                continue
            for causal in (True, False):
                binding = client.bind(interface, causal=causal)
                calls.append(getattr(binding, operation).begin(number))
                calls.append(getattr(binding, operation).begin(number, timeout=LIMIT))
        calls.append(client.bind("log").note_later.begin(1))  # Behind the others, it has not begun.
        wait_until(lambda: server.statistics().calls_in == 1 + len(calls))
        server.close(0.0)
        assert {status_of(partial(call.result, LIMIT)) for call in calls} == {1722}
        assert status_of(lambda: first.result(LIMIT)) == 1726
        log.gate.open()
        server.pool.stop(LIMIT)
        assert log.noted == []

    def test_in_the_event_loop(self, serve: Callable[..., Server], clients: Callable[..., Any], log: Log) -> None:
        """So do `async def` routines that the event loop has not begun."""
        server = serve(1)
        log_ = clients(server.endpoint).bind("log")
        first = log_.hold_the_loop.begin()
        log.gate.wait_for_arrivals()
        calls = [log_.note_later.begin(number) for number in range(10)]
        log_.nothing()  # Handed over in their order, they are in the loop by now.
        server.close(0.0)
        assert {status_of(partial(call.result, LIMIT)) for call in calls} == {1722}
        assert status_of(lambda: first.result(LIMIT)) == 1726
        log.gate.open()
        assert log.noted == []

    def test_that_waits_for_a_context_handle(
        self, serve: Callable[..., Server], clients: Callable[..., Any], log: Log
    ) -> None:
        """So do calls that wait for their turn with a context handle."""
        server = serve(2)
        desk = clients(server.endpoint).bind(Desk)
        context = desk.open()
        first = desk.use.begin(context, -1)
        log.gate.wait_for_arrivals()
        calls = [desk.use.begin(context, number) for number in range(5)]
        wait_until(lambda: server.statistics().active == 6)
        clients(server.endpoint).bind("log").nothing()
        server.close(0.0)
        assert {status_of(partial(call.result, LIMIT)) for call in calls} <= {1722}
        assert status_of(lambda: first.result(LIMIT)) == 1726
        log.gate.open()
        server.pool.stop(LIMIT)
        assert log.noted == [-1]

    def test_says_what_it_took(self, serve: Callable[..., Server], log: Log) -> None:
        """A goodbye counts the messages with calls that were taken since the greeting, and comes after all answers."""
        server = serve(1)
        with RawClient(server.endpoint) as raw:
            send(raw, 1, "stay")
            log.gate.wait_for_arrivals()
            for number in range(2, 6):
                send(raw, number, "note", number)
            wait_until(lambda: server.statistics().calls_in == 5)
            server.close(0.0)
            answered: dict[int, int] = {}
            while type(message := raw.hear()) is not Bye:
                assert isinstance(message, Replies)
                answered |= {reply.id: reply.status for reply in replies_in(message)}
            assert answered == dict.fromkeys(range(2, 6), 1722)
            assert (message.status, message.taken) == (1722, 5)

    def test_waits_for_who_is_about_to_begin(
        self, serve: Callable[..., Server], log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A call that a worker has taken, and does not begin any more, ends with 1722, too: before the goodbye."""
        taken = Gate()
        is_over, sleep = CallRunner._is_over, time.sleep

        def stop_before(self: CallRunner, *args: Any) -> bool:
            taken.pass_through()
            return is_over(self, *args)

        def let_it_go_on(seconds: float) -> None:
            taken.open()
            sleep(seconds)  # The closing listener pauses; the worker goes on meanwhile.

        monkeypatch.setattr(CallRunner, "_is_over", stop_before)
        monkeypatch.setattr(listener, "sleep", let_it_go_on)
        monkeypatch.setattr(listener, "SETTLING", LIMIT)
        server = serve(1)
        with RawClient(server.endpoint) as raw:
            send(raw, 1, "stay")
            log.gate.wait_for_arrivals()
            note = Target("log", 0, 0, "note")
            raw.send(*map(bytes, encode_calls([(number, note, (number,), None) for number in (2, 3)])))
            # It needs a handle by that, and is looked at before it is begun.
            raw.say(Cancel([CancelledCall(3, False)]))
            raw.say(Cancel([]))  # When this is counted, the one before it was dealt with.
            wait_until(lambda: server.statistics().messages_in == 5)
            log.gate.open()
            assert [reply.id for reply in replies_in(raw.hear())] == [1]
            taken.wait_for_arrivals()
            server.close(0.0)
            taken.open()
            answered: dict[int, int] = {}
            while type(message := raw.hear()) is not Bye:
                answered |= {reply.id: reply.status for reply in replies_in(message)}
            assert answered == {2: 1722, 3: 1722}
        assert log.noted == []

    def test_counts_since_the_greeting(self, serve: Callable[..., Server], log: Log) -> None:
        """After a new greeting the count begins anew, and only messages with calls count."""
        server = serve(1)
        with RawClient(server.endpoint) as raw:
            for _ in range(2):
                for number in range(1, 4):
                    send(raw, number, "nothing")
                    assert type(raw.hear()) is Replies
                if server.statistics().calls_in == 3:
                    raw.send(b"CP\x01\x04garbage")
                    assert type(raw.hear()).__name__ == "Reject"
                    raw.greet()
            server.close()
            message = raw.hear()
            assert isinstance(message, Bye) and message.taken == 3


def test_a_routine_that_ends_after_its_server_was_closed(
    serve: Callable[..., Server], clients: Callable[..., Any], log: Log
) -> None:
    """Its call is not active any more, though its answer goes nowhere."""

    class Plain:
        def stay(self) -> None:
            log.gate.pass_through()

    server = serve(1)
    server.register("plain", Plain())
    call = clients(server.endpoint).bind("plain").stay.begin()
    log.gate.wait_for_arrivals()
    server.close(0.0)
    assert status_of(lambda: call.result(LIMIT)) == 1726
    log.gate.open()
    wait_until(lambda: server.statistics().active == 0)
