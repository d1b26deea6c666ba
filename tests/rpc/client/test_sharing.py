"""One client and many threads; many clients and one server; the order of calls: section 7."""

import asyncio
import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from engine import Client, CompletionPort, EngineError, Server
from engine.testing import LIMIT, wait_until

from ..helpers import Bench, Service, new_endpoint, status_of, untyped
from ..interfaces import Control, Probe
from ..service import make_server

Benches = Callable[..., Bench]


def in_threads(*functions: Callable[[], object]) -> None:
    """Run each function in a thread of its own, at once, and raise what any of them raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(functions))

    def run(function: Callable[[], object]) -> None:
        barrier.wait(LIMIT)
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


class TestManyThreads:
    """One client, any number of threads."""

    @pytest.mark.parametrize("threads", [2, 8])
    def test_blocking_calls(self, any_bench: Bench, threads: int) -> None:
        """Each thread gets the answers to its own calls."""

        def call(name: int) -> None:
            for number in range(50):
                assert any_bench.probe.echo([name, number]) == [name, number]

        in_threads(*(lambda name=name: call(name) for name in range(threads)))
        assert any_bench.client.statistics().outstanding == 0

    def test_every_way_at_once(self, bench: Bench) -> None:
        """Blocking calls, waits, ports, callbacks, events and tasks share a client."""
        rounds = 40

        def blocking() -> None:
            assert [bench.probe.echo(number) for number in range(rounds)] == list(range(rounds))

        def waiting() -> None:
            for number in range(rounds):
                calls = [bench.probe.echo.begin((number, each)) for each in range(4)]
                assert [call.result(LIMIT) for call in calls] == [[number, each] for each in range(4)]

        def port() -> None:
            with CompletionPort() as made:
                for number in range(rounds):
                    bench.probe.echo.begin(number, notify=made)
                assert sorted(made.get(LIMIT).overlapped.complete() for _ in range(rounds)) == list(range(rounds))

        def callback() -> None:
            results: list[int] = []
            done = threading.Event()

            def on_reply(call: Any, kind: Any) -> None:
                results.append(call.complete())
                if len(results) == rounds:
                    done.set()

            for number in range(rounds):
                bench.probe.echo.begin(number, notify=on_reply)
            assert done.wait(LIMIT)
            assert sorted(results) == list(range(rounds))

        def tasks() -> None:
            async def main() -> list[int]:
                found: list[int] = await asyncio.gather(*(bench.probe.echo.begin(number) for number in range(rounds)))
                return found

            assert asyncio.run(main()) == list(range(rounds))

        def polling() -> None:
            for number in range(rounds):
                call = bench.probe.echo.begin(number)
                while not call.done():
                    pass
                assert call.complete() == number

        in_threads(blocking, waiting, port, callback, tasks, polling)
        assert bench.client.statistics().outstanding == 0

    def test_beginning_and_cancelling(self, bench: Bench) -> None:
        """Threads that begin, cancel and complete at random leave nothing behind, and each call ends once."""
        seeds = [random.Random(number) for number in range(4)]

        def work(chance: random.Random) -> None:
            with CompletionPort() as port:
                calls = []
                for number in range(100):
                    calls.append(bench.probe.echo.begin(number, notify=port))
                    if chance.random() < 0.3:
                        chance.choice(calls).cancel(abort=chance.random() < 0.5)
                taken = [port.get(LIMIT).overlapped for _ in calls]
                assert {id(call) for call in taken} == {id(call) for call in calls}
                for number, call in enumerate(calls):
                    try:
                        assert call.complete() == number
                    except EngineError as error:
                        assert error.status == 1818
                assert status_of(lambda: port.get(0)) == 258

        in_threads(*(lambda chance=chance: work(chance) for chance in seeds))
        assert bench.client.statistics().outstanding == 0

    def test_one_consumer_for_many_producers(self, bench: Bench, port: CompletionPort) -> None:
        """Threads may begin calls that another thread collects."""
        in_threads(
            *(
                lambda name=name: [bench.probe.echo.begin([name, n], notify=port) for n in range(100)]
                for name in range(4)
            )
        )
        results = sorted(tuple(port.get(LIMIT).overlapped.complete()) for _ in range(400))
        assert results == [(name, number) for name in range(4) for number in range(100)]

    def test_while_servers_come_and_go(self, service: Callable[..., Service], endpoint: str) -> None:
        """Threads call on while the server is killed and replaced: each call ends, with its answer or 1726, 1727."""
        stop = threading.Event()
        outcomes: list[set[int]] = []

        def call(client: Client) -> None:
            probe, seen = client.bind(Probe), set()
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    assert probe.echo(number) == number
                    seen.add(0)
                except EngineError as error:
                    seen.add(int(error.status))
            outcomes.append(seen)

        mine = service(endpoint)
        with Client(endpoint, connect_timeout=LIMIT) as client:
            probe = client.bind(Probe)
            probe.nothing()
            threads = [threading.Thread(target=call, args=(client,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            try:
                for connection in (2, 3):
                    mine.kill()
                    mine = service(endpoint)
                    wait_until(lambda: client.statistics().connections == connection)  # noqa: B023  # called in this turn
            finally:
                stop.set()
                for thread in threads:
                    thread.join(LIMIT)
            assert probe.echo("still") == "still"
        assert len(outcomes) == 3 and all(seen <= {0, 1726, 1727} for seen in outcomes)


class TestManyClients:
    """One server, any number of clients."""

    def test_each_gets_its_own_answers(self, services: Callable[..., str]) -> None:
        """Clients that number their calls alike do not get each other's answers."""
        clients = [Client(services("tcp")) for _ in range(20)]
        try:
            calls = [
                [client.bind(Probe).echo.begin((name, number)) for number in range(20)]
                for name, client in enumerate(clients)
            ]
            for name, begun in enumerate(calls):
                assert [call.result(LIMIT) for call in begun] == [[name, number] for number in range(20)]
        finally:
            for client in clients:
                client.close()

    def test_one_that_goes_harms_no_other(self, services: Callable[..., str], benches: Benches, key: str) -> None:
        """A client that closes with calls outstanding disturbs nobody else."""
        going, staying = benches(services("ipc")), benches(services("ipc"))
        for number in range(10):
            going.held(f"{key}-{number}")
        held = staying.held(key)
        going.client.close()
        staying.control.seen_disconnected(f"{key}-0")
        for number in range(10):
            assert staying.control.complete(f"{key}-{number}", "nobody") == 0
        staying.control.complete(key, "kept")
        assert held.result(LIMIT) == "kept"

    def test_one_process_of_many_parts(self, folder: Any, benches: Benches) -> None:
        """Servers and clients of several transports share a process and its waiting threads."""
        servers = []
        try:
            for transport in ("tcp", "ipc", "inproc", "loopback") * 2:
                servers.append(make_server(new_endpoint(transport, folder), workers=2)[0])
                servers[-1].listen()
            made = [benches(server.endpoint) for server in servers]
            calls = [(n, bench.probe.echo.begin(n)) for n in range(25) for bench in made]
            assert all(call.result(LIMIT) == number for number, call in calls)
        finally:
            for server in servers:
                server.close(0)


class TestTightQueues:
    """Links that take one message at a time."""

    @pytest.mark.parametrize("transport", ["tcp", "ipc", "inproc", "loopback"])
    def test_all_is_answered(self, transport: str, folder: Any, local: Callable[..., Server], benches: Benches) -> None:
        """However little a link takes at once, every call leaves and every answer comes, small and large."""
        server = local(new_endpoint(transport, folder), max_queued=1)
        bench = benches(server.endpoint, max_queued=1)
        with CompletionPort() as port:
            for number in range(400):
                bench.probe.echo.begin([number] if number % 9 else [number, bytes(100_000)], notify=port)
            assert sorted(port.get(LIMIT).overlapped.complete()[0] for _ in range(400)) == list(range(400))
            values = [bytes([number]) * 200_000 for number in range(30)]
            calls = [untyped(bench.probe.viewed).begin(value) for value in values]
            assert [bytes(call.result(LIMIT)) for call in calls] == values
        wait_until(lambda: server.statistics().active == 0)


class TestOrder:
    """Section 7: which call comes first."""

    def test_replies_have_no_order(self, bench: Bench, key: str) -> None:
        """A reply is matched by its call, in whatever order replies come."""
        calls = [bench.held(f"{key}-{number}") for number in range(6)]
        for number in (3, 1, 5, 0, 4, 2):
            bench.control.complete(f"{key}-{number}", number)
            assert calls[number].result(LIMIT) == number

    def test_one_thread_and_one_worker(self, local: Callable[..., Server], benches: Benches) -> None:
        """With one worker, the calls of one thread are entered in the order in which they were begun."""
        bench = benches(local(workers=1).endpoint)
        calls = [bench.probe.echo.begin(number) for number in range(500)]
        for call in calls:
            call.result(LIMIT)
        assert bench.control.echoed() == list(range(500))

    def test_before_the_connection(self, service: Callable[..., Service], endpoint: str) -> None:
        """So they are if they waited for the connection, large ones among them."""
        with Client(endpoint, connect_timeout=LIMIT) as client:
            values = [number if number % 7 else [number] + ["x" * 100] * 30 for number in range(200)]
            calls = [client.bind(Probe).echo.begin(value) for value in values]
            service(endpoint, workers=1)
            assert [call.result(LIMIT) for call in calls] == values
            assert client.bind(Control).echoed() == values

    def test_a_cancel_follows_its_call(self, local: Callable[..., Server], benches: Benches, key: str) -> None:
        """A cancel never overtakes the call that it is for."""
        bench = benches(local().endpoint)
        for number in range(30):
            name = f"{key}-{number}"
            call = bench.probe.hold.begin(name)
            call.cancel()
            # Either the routine was entered, and sees the cancel, or it was not.
            wait_until(lambda: call.done() or status_of(lambda: bench.control.seen(name)) == 0)  # noqa: B023  # called in this turn
            if not call.done():
                bench.control.seen_cancelled(name)
                bench.control.complete(name)
            assert status_of(partial(call.result, LIMIT)) in (0, 1818)
