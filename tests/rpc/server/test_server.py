"""Servers and their life: "RpcServerListen", "RpcMgmtInqStats", section 9."""

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine import (
    Client,
    EngineError,
    InvalidHandle,
    InvalidParameter,
    InvalidState,
    Misuse,
    Server,
    ServerCall,
    ServerUnavailable,
    ThreadPool,
    manager,
)
from engine.testing import LIMIT, Gate, wait_until, wait_until_blocked
from transport import EndpointError
from transport.frames import Bye

from ..helpers import Bench, RawClient, Service, at_line, code_in, new_endpoint, status_of
from ..interfaces import Adder, Control, Probe
from ..service import Adding, make_server

Benches = Callable[..., Bench]


class TestListening:
    """9.1: listen, stop, wait."""

    def test_not_waiting(self, server: Server, endpoint: str) -> None:
        """`listen` returns at once; from then on calls are taken."""
        assert not server.listening
        server.listen()
        assert server.listening
        with Client(endpoint) as client:
            assert client.bind(Adder).add(1, 2) == 3

    def test_waiting(self, server: Server) -> None:
        """`listen(wait=True)` returns after the stop."""
        thread = threading.Thread(target=server.listen, kwargs={"wait": True})
        thread.start()
        wait_until(lambda: server.listening)
        wait_until_blocked(thread)
        server.stop()
        thread.join(LIMIT)
        assert not thread.is_alive() and not server.listening

    def test_ctrl_c_at_any_line(self) -> None:
        """An interrupt at any line of `listen` leaves a server that listens, or one that can be told to again."""

        def interrupt() -> None:
            raise KeyboardInterrupt

        servers: list[Server] = []  # None of them is freed meanwhile, which has lines of its own.
        for number in itertools.count():
            with Server(f"loopback://interrupted-{number}") as server:
                servers.append(server)
                with at_line(number, code_in("engine/rpc/server"), interrupt) as reached, suppress(KeyboardInterrupt):
                    server.listen()
                if not server.listening:
                    assert server.statistics().phase == "idle", f"after an interrupt at line {number}"
                    server.listen()
                server.stop()
                assert server.wait(LIMIT)
            if reached[0] <= number:
                break
        assert number > 5

    def test_twice(self, server: Server) -> None:
        """A second `listen` raises 1713."""
        server.listen()
        assert status_of(server.listen) == 1713

    def test_without_endpoints(self) -> None:
        """A server without an endpoint cannot listen: 1714."""
        with Server() as server:
            assert status_of(server.listen) == 1714

    @pytest.mark.parametrize("endpoint", ["nonsense", "tcp://", "http://example.com", "ipc://", "tcp://host:port"])
    def test_on_what_is_no_endpoint(self, endpoint: str) -> None:
        """A text that is no endpoint is refused, naming it."""
        with pytest.raises(EndpointError, match=endpoint.partition(":")[0]):
            Server(endpoint)
        with pytest.raises(EndpointError, match=endpoint.partition(":")[0]):
            Client(endpoint)

    @pytest.mark.parametrize("transport", ["tcp", "ipc", "native+tcp", "inproc", "loopback"])
    def test_on_an_endpoint_that_is_taken(self, transport: str, folder: Path) -> None:
        """An endpoint that another server has raises as `listen` is called; the server can listen later."""
        with Server(new_endpoint(transport, folder)) as first:
            first.listen()
            with Server(new_endpoint("ipc", folder), first.endpoint) as second:
                second.register(Adder, Adding())
                with pytest.raises(EndpointError):
                    second.listen()
                assert not second.listening
                first.close()

                def listens() -> bool:
                    try:
                        second.listen()
                    except EndpointError:
                        return False
                    return True

                # ZeroMQ releases a name a little after its socket was closed.
                wait_until(listens)
                with Client(second.endpoint) as client:
                    assert client.bind(Adder).add(1, 2) == 3

    @pytest.mark.parametrize("transport", ["tcp", "ipc", "native+tcp", "inproc", "loopback"])
    def test_where_another_has_just_closed(self, transport: str, folder: Path) -> None:
        """A server can listen at once where another one has just been closed."""
        endpoint = new_endpoint(transport, folder)
        for _ in range(30):
            with Server(endpoint, workers=1) as server:
                server.listen()
                endpoint = server.endpoint

    def test_is_listening_when_all_is_bound(self, folder: Path) -> None:
        """A server says that it listens once its endpoints are bound, and never if one of them cannot be."""
        seen: list[bool] = []

        class Keys:
            """Asked for while an endpoint is being bound; makes none."""

            def apply_to_server(self, socket: Any) -> None:
                seen.append(server.listening)

        free, taken = new_endpoint("ipc", folder), new_endpoint("ipc", folder)
        with Server(taken, curve=Keys()) as server:  # type: ignore[arg-type]  # half is enough
            server.listen()
            assert server.listening
            with Server(free, taken, curve=Keys()) as server:  # type: ignore[arg-type]  # half is enough
                with pytest.raises(EndpointError):
                    server.listen()
                assert not server.listening
        assert seen == [False] * 3

    def test_several_endpoints(self, folder: Path, benches: Benches) -> None:
        """All interfaces are reached on all endpoints, whatever the transports."""
        endpoints = [new_endpoint(transport, folder) for transport in ("tcp", "ipc", "inproc", "loopback")]
        with make_server(*endpoints)[0] as server:
            server.listen()
            assert server.endpoints[1:] == endpoints[1:]
            assert server.endpoint == server.endpoints[0]
            assert not server.endpoint.endswith("*")
            for number, each in enumerate(server.endpoints):
                bench = benches(each)
                assert bench.probe.echo(number) == number
                assert bench.control.echoed() == list(range(number + 1))

    def test_stopping_without_listening(self, server: Server) -> None:
        """Stopping a server that does not listen raises 1715, and so does stopping twice."""
        assert status_of(server.stop) == 1715
        server.listen()
        server.stop()
        assert status_of(server.stop) == 1715

    def test_waiting_without_listening(self, server: Server) -> None:
        """Waiting for a server that never listened raises 1715."""
        assert status_of(server.wait) == 1715

    def test_two_that_wait(self, server: Server) -> None:
        """A second thread that waits gets 1713; the first one goes on waiting."""
        server.listen()
        results: list[bool] = []
        thread = threading.Thread(target=lambda: results.append(server.wait(LIMIT)))
        thread.start()
        wait_until_blocked(thread)
        assert status_of(lambda: server.wait(0)) == 1713
        server.stop()
        thread.join(LIMIT)
        assert results == [True]
        assert server.wait(0)

    def test_waiting_with_a_limit(self, server: Server) -> None:
        """A wait whose time runs out returns False, and another may follow."""
        server.listen()
        assert not server.wait(0) and not server.wait(0.01)
        server.stop()
        assert server.wait(LIMIT)

    def test_stop_lets_running_calls_end(self, endpoint: str, benches: Benches, key: str) -> None:
        """After the stop running calls go on, new ones are refused with 1722 (C12), and `wait` waits for the last."""
        server, board = make_server(endpoint)
        with server:
            server.listen()
            bench = benches(endpoint)
            call = bench.held(key)
            server.stop()
            assert not server.listening
            assert not server.wait(0.01)
            with pytest.raises(ServerUnavailable, match="not listening"):
                bench.probe.echo(1)
            assert server.statistics().phase == "draining"
            board.get(key).complete("ended")
            assert server.wait(LIMIT)
            assert call.result(LIMIT) == "ended"
            assert server.statistics().phase == "idle"

    def test_the_last_answer_leaves_before_wait_returns(self, endpoint: str, benches: Benches, key: str) -> None:
        """A server that is closed as soon as `wait` returns has answered all its calls."""
        for number in range(20):
            server, board = make_server(f"{endpoint}{number}")
            with server:
                server.listen()
                bench = benches(server.endpoint)
                calls = [bench.held(f"{key}{number}-{each}") for each in range(3)]
                server.stop()
                for each in range(3):
                    board.get(f"{key}{number}-{each}").complete(bytes(each * 100_000))
                assert server.wait(LIMIT)
            assert [len(call.result(LIMIT)) for call in calls] == [0, 100_000, 200_000]

    def test_stopping_from_a_routine(self, local: Callable[..., Server], benches: Benches) -> None:
        """A routine may stop its own server; its call is answered."""
        servers: list[Server] = []

        class Routines:
            def stop(self) -> str:
                servers[0].stop()
                return "stopping"

        servers.append(local())
        servers[0].register("stops", Routines())
        assert benches(servers[0].endpoint).client.bind("stops").stop() == "stopping"
        assert servers[0].wait(LIMIT)

    def test_listening_again(self, endpoint: str, benches: Benches, key: str) -> None:
        """A stopped server may listen again; its clients stay connected."""
        server, board = make_server(endpoint)
        with server:
            server.listen()
            bench = benches(endpoint)
            bench.held(key)
            server.stop()
            assert status_of(server.listen) == 1713
            board.get(key).complete()
            assert server.wait(LIMIT)
            assert status_of(lambda: bench.probe.echo(1)) == 1722
            server.listen()
            assert bench.probe.echo(2) == 2
            assert bench.client.statistics().connections == 1

    def test_a_stop_does_not_end_pending_calls(self, endpoint: str, benches: Benches, key: str) -> None:
        """A call that nobody completes keeps the server from stopping, until it is closed for good."""
        server, _ = make_server(endpoint)
        server.listen()
        call = benches(endpoint).held(key)
        server.stop()
        assert not server.wait(0.02)
        server.close(0)
        assert status_of(lambda: call.result(LIMIT)) == 1726


class TestClosing:
    """The end of a server."""

    def test_a_closed_server(self, server: Server) -> None:
        """A closed server refuses to listen and to be given interfaces, and closing it again does nothing."""
        server.listen()
        server.close()
        server.close()
        assert server.closed
        uses: list[Callable[[], object]] = [server.listen, lambda: server.register("late", Adding())]
        for use in uses:
            with pytest.raises(InvalidHandle):
                use()
        assert status_of(server.stop) == 1715
        assert server.wait(0)

    def test_the_clients_are_told(self, server: Server) -> None:
        """Each client hears that the server goes, and so need not wait for answers that nobody will give."""
        server.listen()
        with RawClient(server.endpoint) as first, RawClient(server.endpoint) as second:
            server.close()
            assert [type(each.hear()) for each in (first, second)] == [Bye, Bye]

    def test_in_a_coroutine(self, endpoint: str, benches: Benches, key: str) -> None:
        """Leaving `async with` waits for running calls as `close` does, and the event loop goes on meanwhile."""
        server, board = make_server(endpoint)
        server.listen()
        call = benches(endpoint).held(key)

        async def main() -> None:
            async with server:
                closing = asyncio.create_task(server.aclose(LIMIT))
                while server.listening:
                    await asyncio.sleep(0)
                board.get(key).complete("answered by the loop")
                await closing
                assert server.closed
            assert await call == "answered by the loop"

        asyncio.run(main())

    def test_waiting_in_a_coroutine(self, server: Server) -> None:
        """`wait_async` waits as `wait` does, one at a time; a task that is cancelled leaves its place."""
        server.listen()

        async def main() -> None:
            assert not await server.wait_async(0)
            waiting = asyncio.create_task(server.wait_async())
            await asyncio.sleep(0)
            with pytest.raises(InvalidState, match="waits for this server already"):
                await server.wait_async()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            waiting = asyncio.create_task(server.wait_async())
            await asyncio.sleep(0)
            server.stop()
            assert await waiting
            await server.aclose()
            assert await server.wait_async()

        asyncio.run(main())

    def test_plainly_in_a_coroutine(self, endpoint: str, benches: Benches, key: str) -> None:
        """A `close` that has to wait warns in a coroutine; in debug mode it raises, and closing it again goes on."""
        server, _ = make_server(endpoint)
        server.listen()
        benches(endpoint).held(key)

        async def main() -> None:
            server.close(0.01)

        with pytest.raises(RuntimeWarning, match=r"^Server\.close\(\) blocks the event loop"):
            asyncio.run(main(), debug=True)
        assert not server.listening and not server.closed
        with pytest.warns(RuntimeWarning, match=r"^Server\.close\(\) blocks the event loop"):
            asyncio.run(main())
        assert server.closed

    def test_with_nothing_to_wait_for(self, server: Server) -> None:
        """One that need not wait does not."""
        server.listen()

        async def main() -> None:
            server.close()

        asyncio.run(main(), debug=True)
        assert server.closed

    def test_a_client_in_a_coroutine(self, server: Server) -> None:
        """Clients are closed by `async with`, too."""
        server.listen()

        async def main() -> int:
            async with Client(server.endpoint) as client:
                total = await client.bind(Adder).add.begin(1, 2)
            assert client.closed
            await client.aclose()
            return total

        assert asyncio.run(main(), debug=True) == 3

    def test_from_several_threads(self, server: Server, endpoint: str) -> None:
        """Several threads may close a server at once."""
        server.listen()
        errors: list[int] = []
        threads = [threading.Thread(target=lambda: errors.append(status_of(server.close))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        wait_until(lambda: server.closed)
        assert errors == [0] * 4

    def test_while_a_thread_waits(self, server: Server) -> None:
        """Closing releases the thread that waits for the server."""
        server.listen()
        results: list[bool] = []
        thread = threading.Thread(target=lambda: results.append(server.wait(LIMIT)))
        thread.start()
        wait_until_blocked(thread)
        server.close()
        thread.join(LIMIT)
        assert results == [True]

    def test_from_a_routine(self, local: Callable[..., Server], benches: Benches) -> None:
        """A routine that closes its own server, which would wait for it, is told so; the server goes on."""
        servers: list[Server] = []

        class Routines:
            def close(self) -> None:
                servers[0].close(0)

            async def close_in_a_coroutine(self) -> None:
                servers[0].close(0)

        servers.append(local())
        servers[0].register("closes", Routines())
        binding = benches(servers[0].endpoint).client.bind("closes")
        assert status_of(binding.close) == 1131
        assert status_of(binding.close_in_a_coroutine) == 1131
        assert servers[0].listening

    def test_the_endpoint_is_free_again(self, endpoint: str) -> None:
        """A closed server's endpoint can be used by the next one at once."""
        for number in range(5):
            with make_server(endpoint)[0] as server, Client(endpoint) as client:
                server.listen()
                assert client.bind(Probe).echo(number) == number

    def test_never_listened(self, endpoint: str) -> None:
        """A server that never listened closes too."""
        with Server(endpoint) as server:
            pass
        assert server.closed

    def test_a_pool_of_the_callers(self, endpoint: str) -> None:
        """A pool that the server was given runs the routines, and stays open."""
        names: list[str] = []

        class Routines:
            def name(self) -> str:
                names.append(threading.current_thread().name)
                return names[-1]

        with ThreadPool(1, 2, name="mine") as pool:
            with Server(endpoint, pool=pool) as server:
                server.register("names", Routines())
                server.listen()
                with Client(endpoint) as client:
                    assert client.bind("names").name().startswith("engine:mine-worker-")
            done = threading.Event()
            pool.submit(done.set)
            assert done.wait(LIMIT)

    @pytest.mark.parametrize("workers", [0, -1, "4", 1.5, True])
    def test_workers_that_are_none(self, endpoint: str, workers: Any) -> None:
        """A number of workers that is none is refused."""
        with pytest.raises(InvalidParameter, match="workers"):
            Server(endpoint, workers=workers)

    @pytest.mark.parametrize("max_calls", [0, -1, "4", True])
    def test_a_limit_that_is_none(self, endpoint: str, max_calls: Any) -> None:
        """A limit of calls below 1 is refused with 1742."""
        with pytest.raises(Misuse) as raised:
            Server(endpoint, max_calls=max_calls)
        assert raised.value.status == 1742

    @pytest.mark.parametrize("timeout", [-1, "5", float("nan")])
    def test_times_that_are_none(self, server: Server, timeout: Any) -> None:
        """Times that are no number of seconds are refused."""
        server.listen()
        with pytest.raises(EngineError, match="timeout"):
            server.wait(timeout)
        with pytest.raises(EngineError, match="timeout"):
            server.close(timeout)
        assert server.listening


class TestStatistics:
    """RpcMgmtInqStats."""

    def test_counters_grow(self, local: Callable[..., Server], benches: Benches, key: str) -> None:
        """Calls, messages, faults and refusals are counted; `active` is what is open now."""
        server = local()
        bench = benches(server.endpoint)
        before = server.statistics()
        assert before.active == 0
        bench.probe.echo(1)
        status_of(lambda: bench.probe.fail("ValueError", ""))
        call = bench.held(key)
        after = server.statistics()
        assert after.active == 1
        assert after.calls_in == before.calls_in + 4
        assert after.messages_in > before.messages_in and after.messages_out > before.messages_out
        assert after.faults == before.faults + 1
        bench.control.complete(key)
        call.result(LIMIT)
        wait_until(lambda: server.statistics().active == 0)

    def test_each_refused_call_is_counted(self, local: Callable[..., Server], benches: Benches, key: str) -> None:
        """Calls refused for the limit are counted one by one, however many share a message."""
        server = local(max_calls=7)
        bench = benches(server.endpoint)
        calls = [bench.probe.hold.begin(f"{key}-{number}") for number in range(40)]
        refused = [call for call in calls[7:] if status_of(partial(call.result, LIMIT)) == 1723]
        assert len(refused) == 33
        assert server.statistics().refused == 33 and server.statistics().active == 7
        for call in calls[:7]:
            call.cancel(abort=True)

    def test_of_a_client(self, bench: Bench, key: str) -> None:
        """A client counts its calls, messages and connections."""
        bench.probe.echo(1)
        call = bench.held(key)
        now = bench.client.statistics()
        assert (now.connection, now.connections, now.outstanding) == ("connected", 1, 1)
        assert (now.calls_begun, now.calls_finished, now.replies_late, now.garbage_received) == (2, 1, 0, 0)
        assert now.messages_sent >= 3 and now.messages_received >= 2
        bench.control.complete(key)
        call.result(LIMIT)
        assert bench.client.statistics().outstanding == 0

    def test_none_is_lost(self, local: Callable[..., Server], benches: Benches) -> None:
        """After any number of calls, failures, cancels and timeouts nothing is left open on either side."""
        server = local(workers=2)
        bench = benches(server.endpoint)
        calls = [bench.probe.echo.begin(number) for number in range(200)]
        calls += [bench.probe.fail.begin("ValueError", "") for _ in range(50)]
        calls += [bench.probe.unsendable.begin("object") for _ in range(20)]
        calls += [bench.client.bind("nowhere").nothing.begin() for _ in range(20)]
        for call in calls[::3]:
            call.cancel(abort=True)
        for call in calls:
            call.wait(LIMIT)
        wait_until(lambda: server.statistics().active == 0)
        assert bench.client.statistics().outstanding == 0

    def test_repr(self, server: Server, endpoint: str) -> None:
        """A server shows its name, endpoint and phase."""
        server.listen()
        assert "server" in repr(server) and endpoint in repr(server) and "listening" in repr(server)


class TestWorkers:
    """Threads for routines."""

    def test_names(self, endpoint: str) -> None:
        """Threads have names that a debugger can use."""

        class Routines:
            def name(self) -> str:
                return threading.current_thread().name

        with Server(endpoint, name="mine") as server, Client(endpoint) as client:
            server.register("names", Routines())
            server.listen()
            assert client.bind("names").name().startswith("engine:mine-worker-")

    def test_a_quick_call_behind_blocking_ones(self, local: Callable[..., Server], benches: Benches) -> None:
        """A quick call is answered while others block all but one worker."""
        gate = Gate()

        class Routines:
            def block(self) -> None:
                gate.pass_through()

        server = local(workers=3)
        server.register("blocks", Routines())
        bench = benches(server.endpoint)
        blocking = [bench.client.bind("blocks").block.begin() for _ in range(2)]
        gate.wait_for_arrivals(2)
        assert bench.probe.echo("quick") == "quick"
        gate.open()
        for call in blocking:
            call.result(LIMIT)

    def test_in_one_message_with_a_blocking_one(self, local: Callable[..., Server], benches: Benches) -> None:
        """Calls that share a message with one that blocks are answered by other workers."""
        gate = Gate()

        class Routines:
            def block(self) -> None:
                gate.pass_through()

        server = local(workers=2)
        server.register("blocks", Routines())
        bench = benches(server.endpoint)
        bench.probe.nothing()
        held = [bench.probe.hold.begin(f"fill-{number}") for number in range(8)]
        blocking = bench.client.bind("blocks").block.begin()
        calls = [bench.probe.echo.begin(number) for number in range(20)]
        assert [call.result(LIMIT) for call in calls] == list(range(20))
        gate.open()
        blocking.result(LIMIT)
        for call in held:
            call.cancel(abort=True)


class TestLogging:
    """What a server reports."""

    def test_a_normal_life_is_silent(
        self, endpoint: str, benches: Benches, caplog: pytest.LogCaptureFixture, key: str
    ) -> None:
        """Calls, failures and an orderly end log nothing but what a routine raised."""
        with caplog.at_level(logging.INFO):
            with make_server(endpoint)[0] as server:
                server.listen()
                bench = benches(endpoint)
                bench.probe.echo(1)
                status_of(lambda: bench.probe.fail("ValueError", ""))
                call = bench.held(key)
                bench.control.complete(key)
                call.result(LIMIT)
                bench.close()
        assert {record.name for record in caplog.records} <= {"engine.rpc.faults"}

    def test_the_service_is_silent_too(self, service: Callable[..., Service], benches: Benches) -> None:
        """A service in its own process that was used and ended has logged nothing."""
        mine = service()
        bench = benches(mine.endpoint)
        bench.probe.echo(1)
        assert bench.client.bind(Control).echoed() == [1]
        bench.close()
        mine.order("close")
        assert mine.log() == ""


def test_manager_calls_show_what_they_are(local: Callable[..., Server], benches: Benches) -> None:
    """A call's handle on the server shows its operation."""
    seen: list[str] = []

    class Routines:
        @manager
        def look(self, call: ServerCall) -> None:
            seen.append(repr(call))
            call.complete()

    server = local()
    server.register("looks", Routines())
    benches(server.endpoint).client.bind("looks").look()
    assert "looks.look" in seen[0]


def test_states_are_told_apart() -> None:
    """Using an object in the wrong state is told apart from a bad argument."""
    assert not issubclass(InvalidState, InvalidParameter)
