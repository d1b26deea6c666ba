"""Calls of idempotent operations, sent again when their connection was lost: sections 8.1, 8.2 and 8.5."""

import select
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine import (
    Call,
    CallFailed,
    CallTimeout,
    Client,
    CompletionPort,
    EngineError,
    Event,
    Interface,
    RemoteFault,
    Server,
    ServerCall,
    manager,
    operation,
)
from engine.testing import LIMIT, wait_until
from transport import bind
from transport.frames import Bye, Calls, Hello, Reject, Replies
from transport.wire.codec import encode_value

from ...one_by_one import calls_in, one_reply
from ..helpers import GONE, PENDING, Bench, RawServer, Service, limits, new_endpoint, reach, status_of
from ..interfaces import Probe

Benches = Callable[..., Bench]
Services = Callable[..., Service]


def held_again(bench: Bench, key: str, **options: Any) -> Any:
    """Begin an idempotent call and return it when its routine has begun; the control ends it."""
    call = bench.probe.hold_again.begin(key, **options)
    bench.control.arrived(key)
    return call


def hear_calls(server: RawServer, count: int) -> list[Any]:
    """Take so many calls, in however many messages; return their records in the order of their numbers."""
    records: list[Any] = []
    while len(records) < count:
        message = server.hear()
        assert isinstance(message, Calls)
        records += calls_in(message)
    return sorted(records, key=lambda record: record.id)


class TestKilled:
    """A server that is killed, and started again on the same endpoint."""

    @pytest.mark.parametrize("transport", ["tcp", "ipc", "native+tcp", "native+ipc"])
    def test_sent_again(
        self,
        transport: str,
        folder: Path,
        service: Services,
        benches: Benches,
        key: str,
        port: CompletionPort,
    ) -> None:
        """Idempotent calls go on with the next server, the others end with 1726: each once, told of once."""
        mine = service(new_endpoint(transport, folder))
        bench = benches(mine.endpoint, connect_timeout=LIMIT)
        retried = [held_again(bench, f"{key}-{number}", notify=port) for number in range(20)]
        others = [bench.held(f"{key}-other-{number}", notify=port) for number in range(5)]
        mine.kill()
        assert {id(port.get(LIMIT).overlapped) for _ in others} == {id(call) for call in others}
        assert [status_of(call.complete) for call in others] == [1726] * 5
        assert [call.status() for call in retried] == [PENDING] * 20
        service(mine.endpoint)
        for number in range(20):
            bench.control.arrived(f"{key}-{number}")
            assert bench.control.complete(f"{key}-{number}", number) == 0
        assert {id(port.get(LIMIT).overlapped) for _ in retried} == {id(call) for call in retried}
        assert [call.complete() for call in retried] == list(range(20))
        assert {status_of(call.complete) for call in retried} == {GONE}
        assert status_of(lambda: port.get(0)) == 258
        statistics = bench.client.statistics()
        assert (statistics.retries, statistics.connections, statistics.outstanding) == (20, 2, 0)

    def test_run_once_on_each_server(self, service: Services, benches: Benches, key: str) -> None:
        """A call that is sent again runs once more, not more often."""
        mine = service()
        bench = benches(mine.endpoint, connect_timeout=LIMIT)
        call = held_again(bench, key)
        mine.kill()
        service(mine.endpoint)
        bench.control.arrived(key)
        assert bench.control.complete(key, "at last") == 0
        assert call.result(LIMIT) == "at last"
        assert bench.probe.again("behind") == "behind" and bench.control.noted(key) == 1

    def test_blocking_calls(self, service: Services, benches: Benches) -> None:
        """Who calls again and again, and waits, does not notice that the server was exchanged."""
        mine = service()
        bench = benches(mine.endpoint, connect_timeout=LIMIT)
        calls = [bench.probe.again.begin(number) for number in range(1000)]
        mine.kill()
        mine = service(mine.endpoint)
        assert [call.result(LIMIT) for call in calls] == list(range(1000))
        assert bench.probe.again("goes on") == "goes on"

    def test_large_arguments(self, service: Services, benches: Benches, key: str) -> None:
        """Arguments that travel beside the message are sent again too."""
        mine = service()
        bench = benches(mine.endpoint, connect_timeout=LIMIT)
        held = held_again(bench, key)
        values = [bytes([number]) * 300_000 for number in range(5)]
        calls = [bench.probe.again.begin(value) for value in values]
        mine.kill()
        service(mine.endpoint)
        assert [call.result(LIMIT) for call in calls] == values
        bench.control.arrived(key)
        assert bench.control.complete(key, 1) == 0 and held.result(LIMIT) == 1

    def test_a_server_that_says_goodbye(self, local: Callable[..., Server], benches: Benches, key: str) -> None:
        """What a server that closes has not answered goes to the next one."""
        first = local()
        bench = benches(first.endpoint, connect_timeout=LIMIT)
        call = held_again(bench, key)
        first.close(0)
        local(bench.endpoint)
        control = benches(bench.endpoint, connect_timeout=LIMIT).control  # It never knew the first.
        control.arrived(key)
        assert control.complete(key, "second") == 0 and call.result(LIMIT) == "second"

    def test_not_at_once(self, local: Callable[..., Server], benches: Benches, folder: Any, key: str) -> None:
        """It waits for a while, so that a server that comes back is not met by all its clients in one moment."""
        endpoint = new_endpoint("loopback", folder)
        first = local(endpoint)
        bench = benches(endpoint, connect_timeout=LIMIT)
        held_again(bench, key)
        began = time.monotonic()  # Before the loss: however slow this thread is, the wait began later.
        first.close(0)
        local(endpoint)
        bench.control.arrived(key)
        assert time.monotonic() - began >= 0.02

    def test_lost_again_meanwhile(self, local: Callable[..., Server], benches: Benches, folder: Any, key: str) -> None:
        """Connections that come and go while it waits are none of its tries."""
        endpoint = new_endpoint("loopback", folder)
        first = local(endpoint)
        bench = benches(endpoint, retries=1, connect_timeout=LIMIT)
        call = held_again(bench, key)
        first.close(0)
        for _ in range(3):
            link = bind(endpoint)
            with link.lock:
                link.close()
        local(endpoint)
        bench.control.arrived(key)
        assert bench.control.complete(key, "answer") == 0 and call.result(LIMIT) == "answer"
        assert bench.client.statistics().connections == 5


class TestBounds:
    """A call is not sent again for ever, and not all of them are."""

    def test_each_call(self, service: Services, benches: Benches, key: str) -> None:
        """After `retries` times the call ends with 1726."""
        mine = service()
        bench = benches(mine.endpoint, retries=2, connect_timeout=LIMIT)
        call = held_again(bench, key)
        for _ in range(2):
            mine.kill()
            mine = service(mine.endpoint)
            bench.control.arrived(key)
            assert call.status() == PENDING
        mine.kill()
        with pytest.raises(CallFailed, match="lost"):
            call.result(LIMIT)
        assert bench.client.statistics().retries == 2

    def test_never(self, service: Services, benches: Benches, key: str) -> None:
        """With `retries=0` an idempotent call fails as any other."""
        mine = service()
        bench = benches(mine.endpoint, retries=0, connect_timeout=LIMIT)
        call = held_again(bench, key)
        mine.kill()
        assert status_of(lambda: call.result(LIMIT)) == 1726
        assert bench.client.statistics().retries == 0

    def test_nobody_comes(self, service: Services, benches: Benches, key: str) -> None:
        """If no server comes within `connect_timeout` it ends with 1726: it may have run. The error says all that."""
        mine = service()
        bench = benches(mine.endpoint, connect_timeout=1.0)
        reach(bench.client)
        call = held_again(bench, key)
        mine.kill()
        with pytest.raises(CallFailed, match=r"lost.*to send it again.*no connection to ipc.* within 1\.0 s"):
            call.result(LIMIT)

    def test_its_own_time_limit(self, endpoint: str) -> None:
        """The time limit of the call runs on: 1726 if it ends without a connection, 1818 if it ends with one."""
        for limit in limits(1.0, 4.0, LIMIT / 3):
            with Client(f"{endpoint}{limit}", connect_timeout=LIMIT) as client:
                with RawServer(f"{endpoint}{limit}") as first:
                    again = client.bind(Probe).again
                    calls = [again.begin(0, timeout=limit), again.begin(1, timeout=2 * limit)]
                    first.greet()
                    hear_calls(first, 2)
                    if calls[0].wait(0):  # It took as long as that to get here.
                        continue
                assert status_of(partial(calls[0].result, LIMIT)) == 1726
                with RawServer(f"{endpoint}{limit}") as second:
                    second.greet()
                    if calls[1].wait(0):
                        continue
                    (record,) = hear_calls(second, 1)
                    assert 0 < record.options.time_left < 1.1 * limit
                    with pytest.raises(CallTimeout):
                        calls[1].result(LIMIT)
                    break

    def test_what_is_left_once_there_is_a_connection(self, endpoint: str) -> None:
        """The server is told what is left of the limit as the call leaves: the time that it waited for a connection has
        passed.
        """
        with Client(endpoint, connect_timeout=LIMIT) as client:
            probe = client.bind(Probe)
            calls = [probe.echo.begin(1, timeout=LIMIT), probe.echo.begin([1], timeout=LIMIT)]
            with RawServer(endpoint) as raw:
                raw.greet()
                assert all(0 < record.options.time_left < LIMIT for record in hear_calls(raw, 2))
                for call in calls:
                    call.cancel(abort=True)

    def test_what_is_left_is_sent(self, local: Callable[..., Server], benches: Benches, folder: Any) -> None:
        """The next server is told what is left of the limit, also if it was there before the call was due again."""
        endpoint = new_endpoint("loopback", folder)
        left: list[float | None] = []
        kept: list[ServerCall] = []

        class Patient(Interface, id="test.Patient"):
            @operation(idempotent=True)
            def wait(self) -> None:
                """Is answered by the second server."""

        class Routines:
            @manager
            def wait(self, call: ServerCall) -> None:
                kept.append(call)  # A handle that is dropped ends its call.
                left.append(call.time_left())
                if len(left) == 2:
                    call.complete()

        def serve() -> Server:
            server = local(endpoint)
            server.register(Patient, Routines())
            return server

        first = serve()
        with Client(endpoint, connect_timeout=LIMIT) as client:
            call = client.bind(Patient).wait.begin(timeout=LIMIT)
            assert not call.wait(0)
            wait_until(lambda: len(left) == 1)
            first.close(0)
            serve()
            assert call.result(LIMIT) is None
        assert left[0] is not None and left[1] is not None and left[1] <= left[0] - 0.02

    def test_the_budget(self, service: Services, benches: Benches, key: str) -> None:
        """No more calls are sent again than the client's budget allows; the others end with 1726."""
        mine = service()
        bench = benches(mine.endpoint, retry_budget=3, connect_timeout=LIMIT)
        calls = [held_again(bench, f"{key}-{number}") for number in range(10)]
        mine.kill()
        for call in calls[3:]:
            assert status_of(partial(call.result, LIMIT)) == 1726
        service(mine.endpoint)
        for number in range(3):
            bench.control.arrived(f"{key}-{number}")
            assert bench.control.complete(f"{key}-{number}", number) == 0
        assert [call.result(LIMIT) for call in calls[:3]] == [0, 1, 2]
        statistics = bench.client.statistics()
        assert (statistics.retries, statistics.retries_refused) == (3, 7)

    def test_servers_that_have_not_greeted(self, endpoint: str) -> None:
        """A call that a server did not take is sent again three times; one that has not even greeted does not count."""
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=LIMIT) as client:
            call = client.bind(Probe).echo.begin(1)
            assert type(raw.hear()) is Hello
            hear_calls(raw, 1)
            raw.say(Reject([1], 1722, "closing time"))
            for _ in range(3):
                raw.greet()
                hear_calls(raw, 1)
                raw.say(Bye(1722, "closing time", taken=0))
            raw.greet()
            (record,) = hear_calls(raw, 1)
            raw.say(Replies([one_reply(record.id, 0, msgspec.Raw(b"\x07"))]))
            assert call.result(LIMIT) == 7

    def test_answers_fill_the_budget(self, service: Services, benches: Benches, key: str) -> None:
        """Ten answers allow one call more."""
        mine = service()
        bench = benches(mine.endpoint, retry_budget=1, connect_timeout=LIMIT)
        for answers, expected in ((0, 0), (8, 1726), (1, 0)):
            for number in range(answers):
                assert bench.probe.again(number) == number
            call = held_again(bench, key)
            mine.kill()
            mine = service(mine.endpoint)
            if not expected:
                bench.control.arrived(key)
                assert bench.control.abort(key, 4711) == 0  # An answer, too: a tenth.
                expected = 4711
            assert status_of(partial(call.result, LIMIT)) == expected

    def test_answers_just_before_the_loss(self, endpoint: str) -> None:
        """Answers that were taken in one go with the end of their connection have filled the budget before it."""

        def hear(number: int) -> list[int]:
            return [call.id for call in hear_calls(raw, number)]

        def answers(ids: list[int]) -> Replies:
            return Replies([one_reply(number, 0, msgspec.Raw(b"\x07")) for number in ids])

        with RawServer(endpoint) as raw, Client(endpoint, retry_budget=1, connect_timeout=LIMIT) as client:
            probe = client.bind(Probe)
            first = probe.again.begin(0)
            raw.greet()
            hear(1)
            raw.say(Bye(0, "the budget is empty"))
            raw.greet()
            raw.say(answers(hear(1)))
            assert first.result(LIMIT) == 7
            calls = [probe.again.begin(number) for number in range(13)]
            *answered, lost = hear(13)
            with client._connection.channel.link.lock:  # So that both messages are taken in one harvest.
                raw.say(answers(answered))
                raw.say(Bye(0, "one is left"))
                assert select.select(client._connection.channel.descriptors(), (), (), LIMIT)[0]
            assert [call.result(LIMIT) for call in calls[:-1]] == [7] * 12
            wait_until(lambda: client.statistics().connection != "connected")
            raw.greet()
            assert hear(1) == [lost]
            raw.say(answers([lost]))
            assert calls[-1].result(LIMIT) == 7

    def test_failures_collected_at_once(self, endpoint: str) -> None:
        """A failure is no answer, though its caller has collected it as soon as it was notified: the budget stays."""

        class Collecting(Event):
            call: Call[Any]

            def set(self) -> None:
                status_of(self.call.complete)

        with (
            RawServer(endpoint) as raw,
            Client(endpoint, retries=1, retry_budget=1, connect_timeout=LIMIT) as client,
            ExitStack() as opened,
        ):
            probe = client.bind(Probe)
            for number in range(13):
                event = opened.enter_context(Collecting())
                event.call = probe.again.begin(number, notify=event)
            raw.greet()
            hear_calls(raw, 13)
            raw.say(Bye(0, "one is sent again, and twelve fail"))
            raw.greet()
            hear_calls(raw, 1)
            last = probe.again.begin(13)
            hear_calls(raw, 1)
            raw.say(Bye(0, "the budget is empty"))
            assert status_of(partial(last.result, LIMIT)) == 1726
            assert client.statistics().retries == 1

    @pytest.mark.parametrize("name", ["retries", "retry_budget"])
    @pytest.mark.parametrize("value", [-1, 1.5, "1", None, True])
    def test_settings_that_are_none(self, name: str, value: Any, endpoint: str) -> None:
        """Both are ints of 0 or more."""
        with pytest.raises(EngineError, match=name):
            Client(endpoint, **{name: value})


class TestNever:
    """What is never sent again."""

    def test_an_answer_is_an_answer(self, services: Callable[..., str], benches: Benches, key: str) -> None:
        """A fault from the routine is the outcome, whatever its status."""
        bench = benches(services("ipc"))
        for number, status in enumerate((1726, 1722, 4711)):
            call = held_again(bench, f"{key}-{number}")
            assert bench.control.abort(f"{key}-{number}", status) == 0
            assert status_of(partial(call.result, LIMIT)) == status
            assert bench.control.noted(f"{key}-{number}") == 1
        assert bench.client.statistics().retries == 0

    def test_cancelled_before(self, service: Services, benches: Benches, key: str) -> None:
        """A call whose cancel was asked for ends with its connection, and does not run again."""
        mine = service()
        bench = benches(mine.endpoint, connect_timeout=LIMIT)
        call = held_again(bench, key)
        call.cancel()
        mine.kill()
        assert status_of(lambda: call.result(LIMIT)) == 1726
        assert bench.client.statistics().retries == 0

    @pytest.mark.parametrize(("abort", "status"), [(False, 1726), (True, 1818)])
    def test_cancelled_while_it_waits(
        self, abort: bool, status: int, service: Services, benches: Benches, key: str, port: CompletionPort
    ) -> None:
        """One that is cancelled while it waits for the next server ends at once, and does not run there."""
        mine = service()
        bench = benches(mine.endpoint, connect_timeout=LIMIT)
        call = held_again(bench, key, notify=port)
        kept = held_again(bench, f"{key}-kept")
        other = bench.held(f"{key}-other")
        mine.kill()
        assert status_of(lambda: other.result(LIMIT)) == 1726  # Now the loss is known.
        call.cancel(abort)
        assert port.get(LIMIT).overlapped is call and status_of(call.complete) == status
        service(mine.endpoint)
        bench.control.arrived(f"{key}-kept")
        assert bench.control.complete(f"{key}-kept", "kept") == 0 and kept.result(LIMIT) == "kept"
        bench.probe.note(key)  # Counts one, if nothing else did.
        assert bench.control.noted(key) == 1
        assert bench.client.statistics().retries == 1

    def test_one_way_and_others(self, endpoint: str) -> None:
        """One-way calls, and those of other operations, are not in what the next server gets.

        What it gets says that it was sent before, and is otherwise the same.
        """
        with Client(endpoint, connect_timeout=LIMIT) as client:
            probe = client.bind(Probe)
            with RawServer(endpoint) as first:
                probe.note("once")
                other = probe.echo.begin("once")
                calls = [probe.again.begin(["twice"], metadata={"trace": "x"}), probe.again.begin("twice")]
                first.greet()
                before = hear_calls(first, 4)
            assert status_of(lambda: other.result(LIMIT)) == 1726
            with RawServer(endpoint) as second:
                second.greet()
                after = hear_calls(second, 2)
                assert [record.id for record in after] == [record.id for record in before[2:]]
                assert [bytes(record.args) for record in after] == [bytes(record.args) for record in before[2:]]
                assert [record.options.attempt for record in after] == [1, 1]
                assert after[0].options.metadata == {"trace": "x"}

                second.say(Replies([one_reply(record.id, 0, encode_value("done")) for record in after]))
                assert [call.result(LIMIT) for call in calls] == ["done", "done"]

    def test_when_the_client_closes(self, service: Services, benches: Benches, key: str) -> None:
        """A client that is closed meanwhile ends its calls with 1818, and sends nothing."""
        mine = service()
        bench = benches(mine.endpoint, connect_timeout=LIMIT)
        call = held_again(bench, key)
        other = bench.held(f"{key}-other")
        mine.kill()
        assert status_of(lambda: other.result(LIMIT)) == 1726
        bench.client.close()
        assert status_of(call.complete) == 1818
        assert bench.client.statistics().retries == 0

    def test_a_server_that_breaks_off(self, endpoint: str) -> None:
        """Nothing is sent again to a server that could not read what it got: it may have been just that."""

        with Client(endpoint, connect_timeout=LIMIT) as client, RawServer(endpoint) as server:
            call = client.bind(Probe).again.begin(1)
            server.greet()
            server.hear()
            server.say(Reject([1], 1728, "what?"))
            assert status_of(lambda: call.result(LIMIT)) == 1726
            assert client.statistics().retries == 0

    def test_raised_by_the_routine(self, bench: Bench) -> None:
        """An exception is an answer."""
        with pytest.raises(RemoteFault):
            bench.probe.fail("ValueError", "no")
        assert bench.client.statistics().retries == 0
