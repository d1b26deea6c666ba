"""What goes wrong, and how it is told: "Error Handling", "Dealing with Loss of Connectivity", section 8."""

import asyncio
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine import (
    AccessDenied,
    BadStubData,
    CallCancelled,
    CallError,
    CallFailed,
    CallFailedDne,
    CallTimeout,
    Client,
    CompletionPort,
    EngineError,
    InvalidHandle,
    PeerProtocolError,
    PipeError,
    QueueFull,
    RemoteFault,
    ServerTooBusy,
    ServerUnavailable,
    Status,
    UnknownInterface,
    UnknownOperation,
)
from engine.testing import LIMIT, wait_until
from transport import bind
from transport.frames import Bye, Calls, Cancel, Hello, Reject, Replies, Welcome
from transport.wire.codec import encode_reply, encode_value

from ...one_by_one import calls_in, one_reply
from ..helpers import GONE, PENDING, Bench, RawServer, Service, limits, new_endpoint, reach, status_of
from ..interfaces import Control, Probe
from ..service import make_server

Benches = Callable[..., Bench]


def hear_numbers(raw: RawServer, count: int) -> list[int]:
    """Take so many calls, in however many messages; return their numbers as they come."""
    numbers: list[int] = []
    while len(numbers) < count:
        heard = raw.hear()
        assert isinstance(heard, Calls)
        numbers += [record.id for record in calls_in(heard)]
    return numbers


def answer_next(raw: RawServer, value: object) -> None:
    """Take a call that comes alone, and answer it."""
    heard = raw.hear()
    assert isinstance(heard, Calls)
    (record,) = calls_in(heard)
    raw.send(*map(bytes, encode_reply(record.id, value)))


class TestStatuses:
    """8.1, section 10: each failure has its class and its number."""

    @pytest.mark.parametrize(
        ("kind", "status"),
        [
            (ServerUnavailable, 1722),
            (CallFailed, 1726),
            (CallFailedDne, 1727),
            (ServerTooBusy, 1723),
            (CallCancelled, 1818),
            (CallTimeout, 1818),
            (AccessDenied, 5),
            (UnknownInterface, 1717),
            (UnknownOperation, 1745),
            (BadStubData, 1783),
            (PeerProtocolError, 1728),
            (PipeError, 1831),
            (RemoteFault, 0xE0000001),
        ],
    )
    def test_number(self, kind: type[CallError], status: int) -> None:
        """The class carries the number, and is a `CallError`."""
        error = kind("text")
        assert error.status == status and isinstance(error, EngineError)
        assert f"{status}]" in str(error)

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (1722, ServerUnavailable),
            (1726, CallFailed),
            (1727, CallFailedDne),
            (1723, ServerTooBusy),
            (1818, CallCancelled),
            (5, AccessDenied),
            (1717, UnknownInterface),
            (1745, UnknownOperation),
            (1783, BadStubData),
            (1728, PeerProtocolError),
            (1831, PipeError),
            (1916, PipeError),
            (1917, PipeError),
            (1918, PipeError),
            (4711, RemoteFault),
            (87, RemoteFault),
        ],
    )
    def test_class(self, bench: Bench, key: str, status: int, kind: type[CallError]) -> None:
        """A code that the server aborts with is raised as the class that stands for it, and unchanged (8.3)."""
        call = bench.failed(key, status)
        with pytest.raises(CallError) as raised:
            call.complete()
        assert type(raised.value) is kind and raised.value.status == status
        assert "aborted" in str(raised.value)


class TestNeverThere:
    """1722: a server that was never reached."""

    @pytest.mark.parametrize("target", ["ipc", "tcp", "inproc", "loopback"])
    def test_ends_in_time(self, target: str, endpoint: str, listener_port: CompletionPort) -> None:
        """A call to nobody ends with `ServerUnavailable` after `connect_timeout`, once, told of once."""
        where = {"ipc": endpoint, "tcp": "tcp://127.0.0.1:1"}.get(target, f"{target}://nobody")
        with Client(where, connect_timeout=0.05) as client:
            call = client.bind(Probe).echo.begin(1, notify=listener_port)
            assert listener_port.get(LIMIT).overlapped is call
            with pytest.raises(ServerUnavailable):
                call.complete()
            assert status_of(call.complete) == GONE
            assert status_of(lambda: listener_port.get(0)) == 258

    def test_the_reason_is_told(self) -> None:
        """The error names the endpoint, and says why if that is known."""
        for limit in limits(0.3, 3.0, 30.0):
            with Client("tcp://127.0.0.1:1", connect_timeout=limit) as client:
                with pytest.raises(ServerUnavailable, match=r"tcp://127.0.0.1:1") as raised:
                    client.bind(Probe).echo(1)
            if "nobody listens" in str(raised.value):  # Otherwise that was not known by then.
                break

    def test_each_waits_its_own_time(self, endpoint: str) -> None:
        """Calls begun later end later: each has `connect_timeout` for itself."""
        with Client(endpoint, connect_timeout=0.05) as client:
            for _ in range(3):
                assert status_of(lambda: client.bind(Probe).echo(1)) == 1722

    def test_a_server_that_comes_in_time(self, service: Callable[..., Service], endpoint: str) -> None:
        """Calls wait for a server that is just starting."""
        with Client(endpoint, connect_timeout=LIMIT) as client:
            calls = [client.bind(Probe).echo.begin(number) for number in range(100)]
            assert calls[0].status() == PENDING
            service(endpoint)
            assert [call.result(LIMIT) for call in calls] == list(range(100))

    def test_without_a_limit(self, endpoint: str) -> None:
        """With `connect_timeout=None` a call waits for as long as nobody cancels it."""
        with Client(endpoint, connect_timeout=None) as client:
            call = client.bind(Probe).echo.begin(1)
            assert not call.wait(0.05)
            call.cancel(abort=True)
            assert status_of(call.complete) == 1818

    def test_what_left_runs_for_as_long_as_it_takes(self, endpoint: str) -> None:
        """A call that was begun before the connection may run longer than `connect_timeout` once it has left."""
        # However slow the machine is, it connects within one of these.
        for number, limit in enumerate((0.1, 1.0, 10.0, LIMIT)):
            where = f"{endpoint}{number}"
            with Client(where, connect_timeout=limit) as client:
                call = client.bind(Probe).echo.begin(1)
                with RawServer(where) as raw:
                    raw.greet()
                    while not raw.socket.poll(10) and not call.done():
                        pass
                    if call.done():
                        continue  # It had not left by then.
                    (asked,) = calls_in(raw.hear())
                    assert not call.wait(2 * limit)
                    raw.say(Replies([one_reply(asked.id, 0, msgspec.Raw(encode_value("there")))]))
                    assert call.result(LIMIT) == "there"
                    break

    def test_many_calls_end_once_each(self, endpoint: str, listener_port: CompletionPort) -> None:
        """Thousands of calls to nobody end once each."""
        with Client(endpoint, connect_timeout=0.05) as client:
            calls = {id(client.bind(Probe).echo.begin(n, notify=listener_port.packet(key=n))): n for n in range(3000)}
            assert sorted(listener_port.get(LIMIT).key for _ in calls) == list(range(3000))
            assert client.statistics().outstanding == 0

    def test_what_was_given_up_never_runs(self, service: Callable[..., Service], endpoint: str) -> None:
        """A call that ended with 1722 did not run, and does not run later: trying again is safe (8.1)."""
        with Client(endpoint, connect_timeout=0.2) as client:
            probe = client.bind(Probe)
            calls = [probe.echo.begin(0)]
            while not calls[0].done():
                calls.append(probe.echo.begin(len(calls)))
                calls[-1].wait(0.005)
            service(endpoint)
            outcomes = [status_of(partial(call.result, LIMIT)) for call in calls]
            assert outcomes[0] == 1722 and set(outcomes) <= {0, 1722}
            with Client(endpoint) as other:
                ran = other.bind(Control).echoed()
        assert ran == [number for number, outcome in enumerate(outcomes) if outcome == 0]

    def test_what_was_aborted_or_ran_out_before_it_was_sent(
        self, service: Callable[..., Service], endpoint: str
    ) -> None:
        """Calls that ended before there was a connection harm none of those that wait beside them.

        One whose own time ran out before it could be sent, after an attempt to connect has failed, is known not to
        have run: 1722.
        """
        with Client(endpoint, connect_timeout=LIMIT) as client:
            probe = client.bind(Probe)
            kept = [probe.echo.begin(0)]
            aborted = probe.echo.begin(1)
            wait_until(lambda: status_of(lambda: probe.echo.begin(2, timeout=0.01).result(LIMIT)) == 1722)
            kept.append(probe.echo.begin(3))
            aborted.cancel(abort=True)
            service(endpoint)
            assert [call.result(LIMIT) for call in kept] == [0, 3]


@pytest.fixture
def listener_port() -> Any:
    """A port to be told through."""
    with CompletionPort() as made:
        yield made


class TestKilled:
    """1726: a server that dies with calls outstanding."""

    @pytest.mark.parametrize("transport", ["tcp", "ipc", "native+tcp", "native+ipc"])
    def test_each_call_fails_once(
        self,
        transport: str,
        folder: Path,
        service: Callable[..., Service],
        benches: Benches,
        key: str,
        port: CompletionPort,
    ) -> None:
        """Each outstanding call ends with `CallFailed`, once, and is told of once."""
        mine = service(new_endpoint(transport, folder))
        bench = benches(mine.endpoint)
        calls = [bench.held(f"{key}-{number}", notify=port) for number in range(20)]
        mine.kill()
        told = [port.get(LIMIT).overlapped for _ in calls]
        assert {id(call) for call in told} == {id(call) for call in calls}
        for call in calls:
            with pytest.raises(CallFailed, match="lost"):
                call.complete()
            assert status_of(call.complete) == GONE
        assert status_of(lambda: port.get(0)) == 258
        assert bench.client.statistics().outstanding == 0

    def test_under_load(self, service: Callable[..., Service], benches: Benches, port: CompletionPort) -> None:
        """A server that dies in the midst of many calls leaves each with one outcome: a value, 1726 or 1727."""
        mine = service()
        bench = benches(mine.endpoint, connect_timeout=0.1)
        wait_until(lambda: status_of(lambda: bench.probe.echo(0)) == 0)  # On a busy machine connecting takes longer.
        calls = [bench.probe.echo.begin(number, notify=port) for number in range(1500)]
        for _ in range(300):
            port.get(LIMIT)
        mine.kill()
        for _ in range(1200):
            port.get(LIMIT)
        assert status_of(lambda: port.get(0)) == 258
        outcomes = [status_of(call.complete) for call in calls]
        assert set(outcomes) <= {0, 1726, 1727} and outcomes.count(0) >= 300

    def test_each_sort_of_waiter(self, service: Callable[..., Service], benches: Benches, key: str) -> None:
        """Threads that wait on the calls, blocking calls and awaiting tasks are all released."""
        mine = service()
        bench = benches(mine.endpoint)
        statuses: list[int] = []
        waited = bench.held(key)
        threads = [
            threading.Thread(target=lambda: statuses.append(status_of(lambda: waited.result(LIMIT)))),
            threading.Thread(target=lambda: statuses.append(status_of(lambda: bench.probe.hold(key + "b")))),
            threading.Thread(target=lambda: statuses.append(status_of(lambda: asyncio.run(awaiting())))),
        ]

        async def awaiting() -> None:
            await bench.probe.hold.begin(key + "a")

        for thread in threads:
            thread.start()
        bench.control.arrived(key + "b")
        bench.control.arrived(key + "a")
        mine.kill()
        for thread in threads:
            thread.join(LIMIT)
        assert statuses == [1726] * 3

    def test_answers_that_had_arrived_are_kept(
        self, service: Callable[..., Service], benches: Benches, key: str
    ) -> None:
        """An answer that arrived before the server died is the outcome."""
        mine = service()
        bench = benches(mine.endpoint)
        call = bench.held(key)
        bench.control.complete(key, "just in time")
        mine.kill()
        assert call.result(LIMIT) == "just in time"

    def test_a_new_server_in_its_place(self, service: Callable[..., Service], benches: Benches, key: str) -> None:
        """When a server comes back, the client finds it, and goes on."""
        mine = service()
        bench = benches(mine.endpoint)
        call = bench.held(key)
        mine.kill()
        assert status_of(lambda: call.result(LIMIT)) == 1726
        service(mine.endpoint)
        assert bench.probe.echo("back") == "back"
        assert bench.client.statistics().connections == 2

    def test_again_and_again(self, service: Callable[..., Service], benches: Benches, key: str) -> None:
        """That works as often as it has to."""
        mine = service()
        bench = benches(mine.endpoint)
        for number in range(3):
            assert bench.probe.echo(number) == number
            held = bench.held(key)
            mine.kill()
            assert status_of(partial(held.result, LIMIT)) == 1726
            mine = service(mine.endpoint)
        assert bench.probe.echo("still") == "still"

    def test_afterwards_nobody_comes(self, service: Callable[..., Service], benches: Benches, key: str) -> None:
        """Calls begun after the loss end with 1727 if no server comes: they did not run."""
        mine = service()
        bench = benches(mine.endpoint, connect_timeout=0.05)
        wait_until(lambda: status_of(lambda: bench.probe.echo(0)) == 0)  # On a busy machine connecting takes longer.
        call = bench.held(key)
        mine.kill()
        assert status_of(lambda: call.result(LIMIT)) == 1726
        with pytest.raises(CallFailedDne):
            bench.probe.echo(1)


class TestGracefulEnd:
    """A server that says goodbye."""

    @pytest.mark.parametrize("transport", ["tcp", "ipc", "native+tcp", "inproc", "loopback"])
    def test_outstanding_calls_fail(
        self, transport: str, folder: Any, local: Callable[..., Any], benches: Benches, key: str
    ) -> None:
        """Calls that are still open when a server closes end with 1726, once."""
        server = local(new_endpoint(transport, folder))
        bench = benches(server.endpoint)
        calls = [bench.held(f"{key}-{number}") for number in range(5)]
        server.close(0)
        assert [status_of(partial(call.result, LIMIT)) for call in calls] == [1726] * 5

    def test_running_calls_end_first(self, endpoint: str, benches: Benches, key: str) -> None:
        """A server that is closed with time to spare answers its running calls first, and takes no new ones."""
        server, board = make_server(endpoint)
        server.listen()
        bench = benches(endpoint)
        call = bench.held(key)
        closing = threading.Thread(target=server.close, args=(LIMIT,))
        closing.start()
        wait_until(lambda: not server.listening)
        assert status_of(lambda: bench.probe.echo(1)) == 1722
        board.get(key).complete("to the last")
        assert call.result(LIMIT) == "to the last"
        closing.join(LIMIT)
        assert server.closed

    @pytest.mark.parametrize("transport", ["tcp", "ipc", "native+tcp", "inproc", "loopback"])
    def test_a_new_server_in_its_place(
        self, transport: str, folder: Any, local: Callable[..., Any], benches: Benches, key: str
    ) -> None:
        """After a graceful end the client finds the next server."""
        server = local(new_endpoint(transport, folder))
        bench = benches(server.endpoint)
        assert bench.probe.echo(1) == 1
        held = bench.held(key)
        server.close(0)
        assert status_of(lambda: held.result(LIMIT)) == 1726  # The client has noticed.
        local(bench.endpoint)
        assert bench.probe.echo(2) == 2


class TestClosedClient:
    """A client that is closed."""

    def test_outstanding_calls_are_cancelled(self, any_bench: Bench, key: str) -> None:
        """Calls that are outstanding end with 1818, and can be completed after the close."""
        calls = [any_bench.held(f"{key}-{number}") for number in range(3)]
        any_bench.client.close()
        assert [status_of(call.complete) for call in calls] == [1818] * 3

    def test_replies_that_had_arrived_are_kept(self, bench: Bench) -> None:
        """A call that was done stays so."""
        call = bench.done("kept")
        bench.client.close()
        assert call.complete() == "kept"

    def test_nothing_can_be_begun(self, bench: Bench) -> None:
        """Beginning a call on a closed client raises 6, and nothing is told."""
        bench.client.close()
        assert bench.client.closed
        with CompletionPort() as port:
            with pytest.raises(InvalidHandle):
                bench.probe.echo.begin(1, notify=port)
            with pytest.raises(InvalidHandle):
                bench.probe.echo(1)
            assert status_of(lambda: port.get(0)) == 258

    def test_closing_twice(self, bench: Bench) -> None:
        """Closing again does nothing."""
        bench.client.close()
        bench.client.close()

    def test_at_once_from_several_threads(self, bench: Bench, key: str) -> None:
        """Several threads may close at once; calls end once."""
        with CompletionPort() as port:
            call = bench.held(key, notify=port)
            threads = [threading.Thread(target=bench.client.close) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(LIMIT)
            assert port.get(0).overlapped is call
            assert status_of(lambda: port.get(0)) == 258

    def test_waiting_threads_are_released(self, bench: Bench, key: str) -> None:
        """A thread that waits for a call is released as its client is closed."""
        call = bench.held(key)
        statuses: list[int] = []
        thread = threading.Thread(target=lambda: statuses.append(status_of(lambda: call.result(LIMIT))))
        thread.start()
        bench.client.close()
        thread.join(LIMIT)
        assert statuses == [1818]

    def test_in_a_callback(self, bench: Bench) -> None:
        """A client may be closed from a callback of its own."""
        closed = threading.Event()

        def close(call: Any, kind: Any) -> None:
            bench.client.close()
            closed.set()

        bench.probe.echo.begin(1, notify=close)
        assert closed.wait(LIMIT)
        assert bench.client.closed

    def test_before_it_was_connected(self, endpoint: str) -> None:
        """A client may be closed before it has reached anybody; its calls end."""
        client = Client(endpoint)
        call = client.bind(Probe).echo.begin(1)
        client.close()
        assert status_of(call.complete) == 1818

    def test_what_was_begun_before_is_sent(self, services: Callable[..., str], benches: Benches, key: str) -> None:
        """One-way calls that were accepted leave before the close."""
        bench = benches(services("ipc"))
        bench.probe.nothing()
        for _ in range(50):
            bench.probe.note.begin(key)
        bench.client.close()
        control = benches(services("ipc")).control
        wait_until(lambda: control.noted(key) == 50)

    def test_many_clients(self, services: Callable[..., str]) -> None:
        """Opening and closing clients leaks no descriptor."""

        def used() -> int:
            return len(os.listdir("/proc/self/fd"))

        for _ in range(3):
            with Client(services("ipc")) as client:
                client.bind(Probe).nothing()
        before = used()
        for _ in range(20):
            with Client(services("ipc")) as client:
                client.bind(Probe).nothing()
        wait_until(lambda: used() <= before + 2)


class TestLimits:
    """Limits on what is outstanding."""

    def test_of_a_client(self, benches: Benches, services: Callable[..., str], key: str) -> None:
        """A client refuses to begin more calls than `max_calls`, and takes them again when some have ended."""
        bench = benches(services("ipc"), max_calls=3)
        calls = [bench.held(f"{key}-{number}") for number in range(3)]
        with pytest.raises(QueueFull, match="max_calls"):
            bench.probe.echo.begin(1)
        calls[0].cancel(abort=True)
        assert bench.probe.echo(1) == 1

    def test_of_a_server(self, service: Callable[..., Service], benches: Benches, key: str) -> None:
        """A server refuses calls above `max_calls` with 1723, naming it; pending calls count."""
        mine = service(max_calls=3)
        bench = benches(mine.endpoint)
        calls = [bench.held(f"{key}-{number}") for number in range(2)]
        third = bench.probe.hold.begin(f"{key}-2")
        wait_until(lambda: mine.order("statistics")["active"] == 3)
        for _ in range(2):
            with pytest.raises(ServerTooBusy, match="max_calls"):
                bench.probe.echo(1)
        assert mine.order("statistics")["refused"] == 2
        for call in (*calls, third):
            call.cancel(abort=True)

    @pytest.mark.parametrize("max_calls", [0, -1, "3", 1.5, True])
    def test_that_are_none(self, endpoint: str, max_calls: Any) -> None:
        """A limit that is no number of calls is refused."""
        with pytest.raises(EngineError, match="max_calls"):
            Client(endpoint, max_calls=max_calls)

    def test_the_statuses_of_misuse(self) -> None:
        """Misuse of the library is told apart from failures of calls."""
        assert not issubclass(InvalidHandle, CallError) and not issubclass(QueueFull, CallError)
        assert Status.name_of(1722) == "SERVER_UNAVAILABLE"


class TestRefusal:
    """A server that will not talk."""

    def test_outstanding_and_later_calls(self, endpoint: str) -> None:
        """When the server rejects the connection, outstanding calls end, and later ones do not hang."""
        for limit in limits(2.0, 10.0, LIMIT / 4):
            with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=limit) as client:
                probe = client.bind(Probe)
                calls = [probe.echo.begin(number) for number in range(3)]
                raw.hear()
                raw.say(Reject([99], 1728, "too old"))
                assert calls[0].wait(LIMIT)
                if calls[0].status() == 1722:  # The greeting took longer than that.
                    continue
                for call in calls:
                    with pytest.raises(PeerProtocolError, match="too old"):
                        call.result(LIMIT)
                later = probe.echo.begin("later")
                assert later.wait(LIMIT), "a call to a server that will not talk hangs"
                assert status_of(later.complete) in (1727, 1728)
                break

    def test_a_server_that_may_talk_another_time(self, endpoint: str) -> None:
        """One that speaks this version is greeted again over a new connection: its refusal may be of that moment."""
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=LIMIT) as client:
            probe = client.bind(Probe)
            call = probe.echo.begin("refused")
            assert type(raw.hear()) is Hello
            refused = raw.peer
            raw.say(Reject([1], 1728, "I have missed something"))
            with pytest.raises(PeerProtocolError, match="I have missed something"):
                call.result(LIMIT)
            later = probe.echo.begin("later")
            while raw.peer == refused:
                heard = raw.hear()
            assert type(heard) is Hello
            raw.say(Welcome(b"\2" * 16))
            assert type(raw.hear()) is Calls
            assert not later.done()

    def test_a_server_that_has_lost_the_thread(self, endpoint: str) -> None:
        """When the server rejects in the midst, what was sent fails with 1726, and the conversation begins again."""
        with RawServer(endpoint) as raw, Client(endpoint) as client:
            probe = client.bind(Probe)
            for text in ("first", "second"):
                call = probe.echo.begin(text)
                raw.greet()
                assert type(raw.hear()) is Calls
                raw.say(Reject([1], 1728, "lost the thread"))
                with pytest.raises(CallFailed, match="lost the thread"):
                    call.result(LIMIT)

    def test_a_goodbye_in_the_midst(self, endpoint: str) -> None:
        """When the server says goodbye, calls that had been sent fail with 1726."""
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=LIMIT) as client:
            call = client.bind(Probe).echo.begin(1)
            raw.greet()
            raw.hear()
            raw.say(Bye(0, "closing time"))
            with pytest.raises(CallFailed, match="closing time"):
                call.result(LIMIT)

    def test_a_goodbye_says_what_was_taken(self, endpoint: str) -> None:
        """Calls of messages that the server says it has not taken did not run, and go to the next; the others may have
        run (1726).

        Only messages with calls count, also those of one call with large values.
        """
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=LIMIT) as client:
            probe = client.bind(Probe)
            first = probe.echo.begin(1)
            raw.greet()
            assert type(raw.hear()) is Calls
            first.cancel()
            assert type(raw.hear()) is Cancel
            calls = [first]
            for value in (bytes(100_000), 3, bytes(100_000)):
                calls.append(probe.echo.begin(value))
                assert type(raw.hear()) is Calls
            raw.say(Bye(1722, "closing time", taken=2))
            assert [status_of(partial(call.result, LIMIT)) for call in calls[:2]] == [1726, 1726]
            raw.greet()
            for call, value in zip(calls[2:], (3, 4), strict=True):
                answer_next(raw, value)
                assert call.result(LIMIT) == value

    def test_what_was_not_taken_comes_first(self, endpoint: str) -> None:
        """Calls that go to the next server keep their places before those that were begun later."""
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=LIMIT) as client:
            probe = client.bind(Probe)
            calls = [probe.echo.begin(number) for number in range(3)]
            raw.greet()
            numbers = hear_numbers(raw, 3)
            reach(client)
            raw.say(Bye(1722, "closing time", taken=0))
            wait_until(lambda: client.statistics().connection != "connected")
            calls += [probe.echo.begin(number) for number in range(3, 6)]
            raw.greet()
            heard = hear_numbers(raw, 6)
            assert heard[:3] == numbers and heard == sorted(heard)
            assert not any(call.done() for call in calls)

    def test_no_server_takes_it(self, endpoint: str) -> None:
        """A call that one server after another leaves ends with 1727: it is sent again three times."""
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=LIMIT) as client:
            call = client.bind(Probe).echo.begin(1)
            for _ in range(4):
                raw.greet()
                assert type(raw.hear()) is Calls
                raw.say(Bye(1722, "closing time", taken=0))
            assert status_of(partial(call.result, LIMIT)) == 1727

    def test_one_that_was_cancelled(self, endpoint: str) -> None:
        """A call that its caller has cancelled, and that was not taken, is not sent again: 1727."""
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=LIMIT) as client:
            call = client.bind(Probe).echo.begin(1)
            raw.greet()
            assert type(raw.hear()) is Calls
            call.cancel()
            raw.say(Bye(1722, "closing time", taken=0))
            assert status_of(partial(call.result, LIMIT)) == 1727

    def test_a_greeting_that_a_closing_server_refuses(self, endpoint: str) -> None:
        """What was sent with a greeting that is refused with 1722 has not run: it waits for the next server, within
        `connect_timeout`, however often that happens.
        """
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=LIMIT) as client:
            call = client.bind(Probe).echo.begin(1)
            assert type(raw.hear()) is Hello
            assert type(raw.hear()) is Calls
            raw.say(Reject([1], 1722, "closing time"))
            for _ in range(2):
                assert type(raw.hear()) is Hello  # No call follows at once any more: it might be lost with the server.
                raw.say(Reject([1], 1722, "closing time"))
            raw.greet()
            answer_next(raw, 7)
            assert call.result(LIMIT) == 7

    def test_each_conversation_counts_its_own(self, endpoint: str) -> None:
        """The messages that a goodbye counts are those since the last greeting."""
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=LIMIT) as client:
            probe = client.bind(Probe)
            for _ in range(2):
                calls = []
                for number in range(3):
                    calls.append(probe.echo.begin(number))
                    if not number:
                        raw.greet()
                    assert type(raw.hear()) is Calls
                if not client.statistics().connections > 1:
                    raw.say(Reject([1], 1728, "lost the thread"))
                    assert {status_of(partial(call.result, LIMIT)) for call in calls} == {1726}
            raw.say(Bye(1722, "closing time", taken=2))
            assert [status_of(partial(call.result, LIMIT)) for call in calls[:2]] == [1726, 1726]
            raw.greet()
            answer_next(raw, 2)
            assert calls[2].result(LIMIT) == 2

    def test_a_goodbye_after_many_calls(self, endpoint: str) -> None:
        """What was taken is known of an old call as of a new one, however many calls have ended in between."""
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=LIMIT) as client:
            probe = client.bind(Probe)
            old, middle = probe.echo.begin("old"), None
            raw.greet()
            raw.hear()
            for number in range(1000):
                call = probe.echo.begin(number)
                message = raw.hear()
                assert isinstance(message, Calls)
                if number == 500:
                    middle = call
                    continue
                raw.send(*map(bytes, encode_reply(message.groups[0].ids[0], number)))
                assert call.result(LIMIT) == number
            assert middle is not None
            raw.say(Bye(1722, "closing time", taken=501))
            assert status_of(partial(old.result, LIMIT)) == 1726
            raw.greet()
            answer_next(raw, 500)
            assert middle.result(LIMIT) == 500

    def test_what_the_link_had_not_taken(self, local: Callable[..., Any], folder: Any) -> None:
        """When the connection is lost, what had left may have run; what the link had no room for goes to the next."""

        class Reader:
            """Takes what arrives, and forgets it."""

            def on_message(self, peer: bytes, frames: Any) -> None: ...
            def on_connected(self, peer: bytes) -> None: ...
            def on_lost(self, peer: bytes, reason: str, evicted: bool = False) -> None: ...
            def on_connect_failed(self, reason: str, vain: bool = False) -> None: ...

        def something_has_come() -> bool:
            first.status()
            with link.lock:
                return link.ready()

        endpoint = new_endpoint("loopback", folder)
        link = bind(endpoint, max_queued=1)
        with Client(endpoint, connect_timeout=LIMIT) as client:
            first = client.bind(Probe).echo.begin(1)
            wait_until(something_has_come)
            with link.lock:
                link.harvest(Reader())
            wait_until(something_has_come)
            second = client.bind(Probe).echo.begin(2)
            assert second.status() == PENDING
            with link.lock:
                link.close()
            assert status_of(lambda: first.result(LIMIT)) == 1726
            local(endpoint)
            assert second.result(LIMIT) == 2

    def test_a_server_that_reads_nothing(self, endpoint: str, service: Callable[..., Service]) -> None:
        """Calls pile up before a server that reads nothing; when another takes its place, nothing old disturbs it."""
        with Client(endpoint, max_queued=1, connect_timeout=LIMIT) as client:
            probe = client.bind(Probe)
            with RawServer(endpoint, receive_limit=1) as raw:
                probe.note.begin("to connect")
                assert type(raw.hear()).__name__ == "Hello"
                raw.say(Welcome(b"\2" * 16))
                calls = [probe.checksum.begin(bytes(300_000)) for _ in range(60)]
                # The greeting, what connected, and one call at least: what has left may have run.
                wait_until(lambda: client.statistics().messages_sent > 2)
                assert not any(call.done() for call in calls)
            mine = service(endpoint)
            outcomes = [status_of(partial(call.result, LIMIT)) for call in calls]
            assert set(outcomes) <= {0, 1726}
            assert 1726 in outcomes
            assert probe.echo("undisturbed") == "undisturbed"
            assert mine.order("statistics")["garbage_received"] == 0


class TestLargeBacklogs:
    """More calls than fit into one message."""

    def test_begun_before_the_connection(self, service: Callable[..., Service], endpoint: str) -> None:
        """Any number of calls may wait for the connection: all are answered."""
        with Client(endpoint, connect_timeout=LIMIT) as client, CompletionPort() as port:
            probe = client.bind(Probe)
            template = port.packet()
            for number in range(20_000):
                probe.add.begin(number, 1, notify=template)
            service(endpoint)
            total = 0
            for _ in range(20_000):
                total += port.get(LIMIT).overlapped.complete()
            assert total == sum(range(1, 20_001))

    def test_of_large_arguments(self, service: Callable[..., Service], endpoint: str) -> None:
        """Calls with large arguments may wait for the connection, and do not make one message too large together."""
        with Client(endpoint, connect_timeout=LIMIT) as client:
            probe = client.bind(Probe)
            value = ["x" * 1000] * 1000
            calls = [probe.echo.begin(value) for _ in range(40)]
            service(endpoint, max_message_bytes=8 * 1024 * 1024)
            assert all(call.result(LIMIT) == value for call in calls)
