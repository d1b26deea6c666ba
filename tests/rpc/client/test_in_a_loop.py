"""Waits in a thread that runs an event loop: they hold it up, and are told of."""

import asyncio
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from engine import Client, CompletionPort, Event, Executor, Semaphore, Server, signal_and_wait, sleep, wait_any
from engine.testing import LIMIT, wait_until

from ..helpers import Bench

SHORT = 0.001


def in_a_loop(action: Callable[[], Any], debug: bool = False) -> Any:
    """Return what `action` returns, called in a coroutine."""

    async def main() -> Any:
        return action()

    return asyncio.run(main(), debug=debug)


@pytest.fixture
def waits(bench: Bench, key: str) -> Iterator[dict[str, Callable[[], Any]]]:
    """Waits of all kinds, which block for a moment."""
    call = bench.held(key)

    def polled(wait: Callable[[], Any]) -> Callable[[], Any]:
        def until_it_ran_out() -> None:
            with suppress(TimeoutError):
                wait()

        return until_it_ran_out

    with CompletionPort() as port, Event() as event:
        semaphore = Semaphore(0, 1)
        yield {
            "call.wait": lambda: call.wait(SHORT),
            "call.result": polled(lambda: call.result(SHORT)),
            "port.get": polled(lambda: port.get(SHORT)),
            "port.get_many": polled(lambda: port.get_many(4, SHORT)),
            "event.wait": lambda: event.wait(SHORT),
            "alertable": lambda: event.wait(SHORT, alertable=True),
            "semaphore.wait": lambda: semaphore.wait(SHORT),
            "wait_any": polled(lambda: wait_any([event, semaphore], SHORT)),
            "sleep": lambda: sleep(SHORT),
        }


KINDS = (
    "call.wait", "call.result", "port.get", "port.get_many", "event.wait", "alertable", "semaphore.wait",
    "wait_any", "sleep",
)  # fmt: skip


class TestWarning:
    """A `RuntimeWarning` names the remedy, where a wait would block."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_each_kind(self, waits: dict[str, Callable[[], Any]], kind: str) -> None:
        """Each kind of wait warns, at the line that waits, and waits all the same."""
        with pytest.warns(RuntimeWarning, match=r"blocks the event loop.*await") as told:
            in_a_loop(waits[kind])
        assert {each.filename for each in told} == {__file__}

    @pytest.mark.parametrize("kind", KINDS)
    def test_in_debug_mode(self, bench: Bench, waits: dict[str, Callable[[], Any]], kind: str) -> None:
        """In asyncio's debug mode the warning is raised, and nothing is left behind."""
        with pytest.raises(RuntimeWarning, match=r"blocks the event loop.*await"):
            in_a_loop(waits[kind], debug=True)
        assert bench.probe.echo("unharmed") == "unharmed"

    def test_an_operation_that_is_refused_is_over(self, bench: Bench, key: str) -> None:
        """The call of a blocking operation whose wait was refused is aborted: nobody holds its handle."""
        bench.probe.nothing()
        before = bench.client.statistics().outstanding
        with pytest.raises(RuntimeWarning):
            in_a_loop(lambda: bench.probe.hold(key), debug=True)
        assert bench.client.statistics().outstanding == before

    def test_a_refused_operation_was_not_sent(self, bench: Bench) -> None:
        """In debug mode a blocking operation is refused before anything is sent, however fast its answer would be."""
        bench.probe.nothing()
        before = bench.client.statistics()
        with pytest.raises(RuntimeWarning, match=r"^BoundOperation\.__call__\(\) blocks"):
            in_a_loop(bench.probe.nothing, debug=True)
        after = bench.client.statistics()
        assert (after.calls_begun, after.messages_sent) == (before.calls_begun, before.messages_sent)

    @pytest.mark.parametrize("ready", [True, False])
    def test_nothing_is_done_before_it_is_refused(self, server: Server, ready: bool) -> None:
        """What would first do something and then wait has done nothing, whether it would have had to wait or not."""
        with Event() as given, Event(manual_reset=True, signaled=ready) as awaited:
            with pytest.raises(RuntimeWarning, match=r"^signal_and_wait\(\) blocks"):
                in_a_loop(lambda: signal_and_wait(given, awaited, LIMIT), debug=True)
            assert not given.wait(0)

        class Routines:
            def word(self) -> str:
                return "word"

        server.register("words", Routines())
        with pytest.raises(RuntimeWarning, match=r"^Server\.listen\(\) blocks.*`await server\.wait_async\(\)`"):
            in_a_loop(lambda: server.listen(wait=True), debug=True)
        assert not server.listening
        with pytest.raises(RuntimeWarning, match=r"^Server\.unregister\(\) blocks"):
            in_a_loop(lambda: server.unregister("words", wait=True), debug=True)
        server.unregister("words")

    def test_an_operation_whose_answer_is_there(self) -> None:
        """A blocking operation warns once for each call, whether its answer was there before it slept or not."""

        class Routines:
            def quick(self) -> int:
                return 1

        with Server("loopback://always-told") as server, Client("loopback://always-told") as client:
            server.register("routines", Routines())
            server.listen()
            quick = client.bind("routines").quick
            with pytest.warns(RuntimeWarning, match="blocks the event loop") as told:
                assert in_a_loop(lambda: sum(quick() for _ in range(50))) == 50
            assert [each.filename for each in told] == [__file__] * 50

    def test_an_executors_future(self) -> None:
        """So does the future of an executor, and the shutdown of one that is busy."""
        with Event() as event:
            executor = Executor(1)
            future = executor.submit(event.wait, LIMIT)
            with pytest.warns(RuntimeWarning, match=r"^CallFuture\.result\(\) blocks"), pytest.raises(TimeoutError):
                in_a_loop(lambda: future.result(SHORT))
            with pytest.warns(RuntimeWarning, match=r"^Executor\.shutdown\(\) blocks"):
                in_a_loop(lambda: executor.shutdown(timeout=SHORT))
            event.set()
            executor.shutdown(timeout=LIMIT)

    def test_an_operation(self, bench: Bench, key: str) -> None:
        """A blocking operation warns too, and the warning names what was called."""
        with pytest.warns(RuntimeWarning, match=r"^BoundOperation\.__call__\(\) blocks") as told:

            def finish() -> None:
                wait_until(lambda: len(told))
                bench.control.arrived(key)
                bench.control.complete(key, "waited for")

            finishing = threading.Thread(target=finish)
            finishing.start()
            assert in_a_loop(lambda: bench.probe.hold(key)) == "waited for"
            finishing.join(LIMIT)
        assert [each.filename for each in told] == [__file__]


class TestNoWarning:
    """What does not block is silent; so are waits where no event loop runs."""

    def test_what_is_there(self, bench: Bench, key: str) -> None:
        """Waits that find what they wait for, or only look, block nothing."""
        with CompletionPort() as port, Event(signaled=True, manual_reset=True) as event, Executor(1) as executor:
            done, held = bench.done(), bench.held(key)
            future = executor.submit(int)
            future.result(LIMIT)

            def look() -> None:
                assert done.wait() and done.result() == "value"
                assert not held.wait(0) and not held.done()
                assert event.wait() and event.wait(0)
                port.post(7)
                assert port.get().key == 7
                with pytest.raises(TimeoutError):
                    port.get(0)
                assert future.result() == 0
                sleep(0)

            in_a_loop(look, debug=True)

    def test_what_has_arrived(self, bench: Bench, key: str) -> None:
        """So does a wait for a call whose answer has arrived and was not looked at yet."""
        call = bench.held(key)
        bench.control.complete(key, "arrived")
        bench.probe.nothing()  # Its answer comes after the other's.
        assert in_a_loop(call.result, debug=True) == "arrived"

    def test_other_threads(self, bench: Bench) -> None:
        """A thread beside the loop may wait."""

        async def main() -> Any:
            return await asyncio.to_thread(bench.probe.echo, 1)

        assert asyncio.run(main(), debug=True) == 1

    def test_after_the_loop(self, bench: Bench) -> None:
        """Once the loop has ended its thread may wait."""
        asyncio.run(asyncio.sleep(0))
        assert bench.probe.echo(1) == 1


class TestRoutines:
    """An `async def` routine runs in an event loop, too."""

    def test_a_routine_that_blocks_its_loop(self, server: Server, benches: Callable[..., Bench]) -> None:
        """A wait in an `async def` routine warns as well."""
        told: list[str] = []

        class Routines:
            async def block(self) -> None:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    sleep(SHORT)
                told.extend(str(each.message) for each in caught)

        server.register("blocks", Routines())
        server.listen()
        benches(server.endpoint).client.bind("blocks").block()
        assert len(told) == 1 and told[0].startswith("sleep() blocks the event loop")
