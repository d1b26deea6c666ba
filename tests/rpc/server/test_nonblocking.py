"""Operations that promise never to wait: over loopback the thread that waits runs their routines itself."""

import asyncio
import contextvars
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from threading import get_ident
from types import CodeType, FrameType
from typing import Any

import pytest

from engine import (
    Call,
    CallAttributes,
    Client,
    CompletionPort,
    Context,
    Event,
    Interface,
    InvalidArgumentType,
    InvalidParameter,
    OutPipe,
    Server,
    ServerCall,
    apc,
    current_call,
    manager,
    operation,
    sleep,
    wait_any,
)
from engine.testing import LIMIT, Gate, wait_until, wait_until_blocked
from tests.rpc.helpers import at_step, code_named, limits, new_endpoint, status_of, uses_steps

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("TENANT", default="nobody")


class Quick(Interface, id="tests.Quick"):
    """Each returns by which thread it was run, but for those that say something else."""

    @operation(nonblocking=True)
    def where(self) -> int: ...
    @operation(nonblocking=True)
    def number(self, value: int) -> int:
        """Return `value`."""

    @operation(nonblocking=True)
    def again(self) -> tuple[int, int]:
        """Return where it runs, and where what it calls in turn does."""

    @operation(nonblocking=True)
    def waits(self) -> int:
        """Break the promise."""

    @operation(nonblocking=True)
    def takes_long(self) -> int: ...
    @operation(nonblocking=True)
    def interrupted(self) -> None:
        """Have a signal handler raise."""

    @operation(nonblocking=True)
    def tenant(self) -> str:
        """Return what is set in the context, and set something else."""

    @operation(nonblocking=True)
    def caller(self) -> tuple[str, dict[str, str]]:
        """Return what the call knows of itself."""

    @operation(nonblocking=True)
    def managed(self) -> int: ...
    @operation(nonblocking=True)
    async def coroutine(self) -> int: ...
    @operation
    def ordinary(self) -> int: ...
    @operation
    def nested(self) -> tuple[int, int]:
        """Return where it runs, and where a nonblocking operation that it calls does."""

    @operation
    def held(self) -> int:
        """Return when the gate opens."""


class Routines:
    """They. `other` is a binding, for what they call in turn."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.began: list[int] = []
        self.other: Any = None

    def where(self) -> int:
        return get_ident()

    def number(self, value: int) -> int:
        self.began.append(value)
        return value

    def again(self) -> tuple[int, int]:
        return get_ident(), self.other.where()

    def waits(self) -> int:
        sleep(0.001)  # What breaks the promise: a wait of the library. Nothing waits for its time.
        return get_ident()

    def takes_long(self) -> int:
        until = time.perf_counter() + 0.001
        while time.perf_counter() < until:
            pass
        return get_ident()

    def interrupted(self) -> None:
        signal.raise_signal(signal.SIGUSR1)

    def tenant(self) -> str:
        found = TENANT.get()
        TENANT.set("somebody")
        return found

    def caller(self) -> tuple[str, dict[str, str]]:
        attributes = current_call().attributes()
        return attributes.operation, attributes.metadata

    @manager
    def managed(self, call: ServerCall) -> None:
        call.complete(get_ident())

    async def coroutine(self) -> int:
        return get_ident()

    def ordinary(self) -> int:
        return get_ident()

    def nested(self) -> tuple[int, int]:
        return get_ident(), self.other.where()

    def held(self) -> int:
        self.gate.pass_through()
        return get_ident()


@pytest.fixture
def routines() -> Iterator[Routines]:
    made = Routines()
    yield made
    made.gate.open()


@pytest.fixture
def server(routines: Routines, servers: Callable[..., Server], folder: Any) -> Server:
    made = servers(new_endpoint("loopback", folder), workers=2)
    made.register(Quick, routines)
    made.listen()
    return made


def here(call: Callable[[], int]) -> bool:
    """Whether a routine is run by this thread before long: a worker that is awake just then may be first."""
    return any(call() == get_ident() for _ in range(1000))


@pytest.fixture
def quick(server: Server, clients: Callable[..., Client]) -> Any:
    """A binding over loopback."""
    binding = clients(server.endpoint).bind(Quick)
    binding.ordinary()
    return binding


class TestDeclaring:
    """What the contract takes."""

    def test_a_flag(self) -> None:
        """It is a flag, and refuses anything else."""
        with pytest.raises(InvalidArgumentType, match="nonblocking"):
            operation(nonblocking=1)(Routines.where)  # type: ignore[call-overload]  # the test's point

    def test_what_excludes_it(self, clients: Callable[..., Client]) -> None:
        """An operation with pipes or context handles waits for what they bring, and cannot promise not to."""

        class Piped(Interface):
            @operation(nonblocking=True)
            def read(self, data: OutPipe[int]) -> None: ...

        class Contextual(Interface):
            @operation(nonblocking=True)
            def read(self, file: Context[int]) -> None: ...

        for bad in (Piped, Contextual):
            with pytest.raises(InvalidParameter, match="not nonblocking"):
                clients("loopback://nowhere").bind(bad)


class TestWhere:
    """Which thread runs the routine."""

    def test_a_blocking_call(self, quick: Any) -> None:
        """The thread that calls runs it."""
        assert here(quick.where)

    def test_a_port(self, quick: Any) -> None:
        """The thread that waits for the packet runs it, be it the one that began the call or not."""
        with CompletionPort() as port:

            def take() -> int:
                call = quick.where.begin(notify=port)
                assert port.get(LIMIT).overlapped is call
                where: int = call.complete()
                return where

            assert here(take)

    def test_a_wait_function(self, quick: Any) -> None:
        """So does a thread that waits for an event, alertably or not."""
        for alertable in (False, True):
            with Event() as event:

                def take(event: Event = event, alertable: bool = alertable) -> int:
                    call = quick.where.begin(notify=event)
                    assert wait_any([event], LIMIT, alertable=alertable) == 0
                    where: int = call.complete()
                    return where

                assert here(take)

    def test_another_thread_waits(self, quick: Any) -> None:
        """Begun by a thread that does not come to wait, it is run by the one that waits for its packet."""
        found: list[Any] = []
        with CompletionPort() as port:

            def take() -> None:
                found.append((port.get(LIMIT).overlapped.complete(), get_ident()))

            for _ in range(1000):
                taker = threading.Thread(target=take)
                taker.start()
                wait_until_blocked(port)
                quick.where.begin(notify=port)
                taker.join(LIMIT)
                where, taken = found.pop()
                if where == taken:
                    return
        pytest.fail("it was always run by another")

    def test_nobody_waits(self, quick: Any) -> None:
        """A call that no thread comes to wait for is run by a worker."""
        where: list[int] = []
        call = quick.where.begin(notify=lambda call, kind: where.append(call.complete()))
        wait_until(lambda: where)
        assert where[0] != get_ident() and call is not None

    def test_polling(self, quick: Any) -> None:
        """A thread that polls does not wait: a worker runs it."""
        call = quick.where.begin()
        wait_until(call.done)
        assert call.complete() != get_ident()

    def test_without_the_promise(self, quick: Any) -> None:
        """A routine that has not promised is never run by its caller, nor are those that are more than a routine."""
        for each in (quick.ordinary, quick.managed, quick.coroutine):
            assert each() != get_ident()

    @pytest.mark.parametrize("transport", ["inproc", "ipc"])
    def test_other_links(
        self, transport: str, folder: Any, routines: Routines, servers: Any, clients: Callable[..., Client]
    ) -> None:
        """Over other links the promise changes nothing."""
        server = servers(new_endpoint(transport, folder), workers=2)
        server.register(Quick, routines)
        server.listen()
        assert clients(server.endpoint).bind(Quick).where() != get_ident()

    def test_a_security_callback(self, quick: Any, servers: Any, clients: Any, folder: Any, routines: Routines) -> None:
        """A security callback has promised nothing, so a worker asks it, and runs the routine."""
        asked: list[int] = []

        def admit(attributes: CallAttributes) -> bool:
            asked.append(get_ident())
            return True

        server = servers(new_endpoint("loopback", folder))
        server.register(Quick, routines, security=admit)
        server.listen()
        assert clients(server.endpoint).bind(Quick).where() != get_ident()
        assert asked and get_ident() not in asked

    def test_an_event_loop(self, quick: Any) -> None:
        """The thread of an event loop never runs one: not for a task, not in a wait that holds up the loop."""

        async def main() -> tuple[int, int]:
            awaited = await quick.where.begin()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                return awaited, quick.where()

        assert get_ident() not in asyncio.run(main())

    def test_inside_another_routine(self, quick: Any, routines: Routines) -> None:
        """A routine that waits for a nonblocking operation does not run it inside its own wait."""
        routines.other = quick
        for each in (quick.nested, quick.again):
            outer, inner = each()
            assert outer != inner

    def test_inside_a_signal_handler(self, quick: Any) -> None:
        """A signal handler that has broken in on a wait, and waits itself, runs none: a worker does."""
        found: list[int] = []

        def handle(number: int, frame: FrameType | None) -> None:
            found.append(quick.where())

        main = threading.main_thread()
        assert main.ident == get_ident()

        def send() -> None:
            wait_until_blocked(main)
            signal.pthread_kill(get_ident() if main.ident is None else main.ident, signal.SIGUSR1)
            wait_until(lambda: found)
            event.set()

        former = signal.signal(signal.SIGUSR1, handle)
        try:
            with Event() as event:
                sender = threading.Thread(target=send)
                sender.start()
                assert event.wait(LIMIT)
                sender.join(LIMIT)
        finally:
            signal.signal(signal.SIGUSR1, former)
        assert found and get_ident() not in found


class TestAsInTheRing:
    """What does not depend on which thread runs it."""

    def test_the_order(self, quick: Any, routines: Routines) -> None:
        """Calls of one client begin in order, nonblocking or not, whoever runs them."""
        calls: list[Call[Any]] = []
        expected = []
        for value in range(300):
            if value % 7 == 3:
                calls.append(quick.ordinary.begin())
            calls.append(quick.number.begin(value))
            expected.append(value)
        for call in calls:
            assert call.wait(LIMIT)
        assert routines.began == expected

    def test_behind_one_that_waits(self, quick: Any, routines: Routines) -> None:
        """One that comes behind an ordinary call whose routine waits is run meanwhile: that one has begun."""
        held = quick.held.begin()
        routines.gate.wait_for_arrivals()
        assert isinstance(quick.where(), int)
        routines.gate.open()
        assert held.result(LIMIT) != get_ident()

    def test_its_own_context(self, quick: Any) -> None:
        """It sees nothing of what its caller has set, the caller nothing of what it sets, nor does the next one."""
        TENANT.set("caller")
        assert [quick.tenant(), quick.tenant(), TENANT.get()] == ["nobody", "nobody", "caller"]

    def test_what_it_knows_of_its_call(self, quick: Any) -> None:
        """`current_call` gives it the call, with its metadata."""
        assert quick.caller(metadata={"who": "me"}) == ("caller", {"who": "me"})

    def test_a_time_limit(self, quick: Any) -> None:
        """Calls with a time limit are run, and end in time."""
        assert quick.number(1, timeout=LIMIT) == 1

    def test_an_error(self, quick: Any) -> None:
        """What it raises is the outcome of its call, and nothing for the thread that ran it."""
        with pytest.raises(Exception, match="no attribute"):
            quick.again()
        assert here(quick.where)

    def test_the_end_of_the_server(self, quick: Any, server: Server) -> None:
        """What was begun and has not run as the server closes ends; nothing hangs."""
        calls = [quick.number.begin(value) for value in range(20)]
        server.close()
        for call in calls:
            assert call.wait(LIMIT)
            assert status_of(call.complete) in (0, 1722, 1726, 1727)

    def test_many_threads(self, quick: Any) -> None:
        """Threads that call at once get each its own answers."""
        found: list[bool] = []

        def call(start: int) -> None:
            values = range(start, start + 200)
            found.append([quick.number(value) for value in values] == list(values))

        threads = [threading.Thread(target=call, args=(1000 * start,)) for start in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        assert found == [True] * 6


class TestBrokenPromises:
    """What a routine does that it has promised not to."""

    def test_it_waits(self, quick: Any) -> None:
        """One that waits all the same keeps its caller, and harms no other: they are answered meanwhile, and after."""
        assert [quick.waits() for _ in range(20)]
        assert quick.ordinary() != get_ident()

    def test_it_waits_for_a_network(
        self, quick: Any, routines: Routines, servers: Any, clients: Any, folder: Any
    ) -> None:
        """One that waits for another server's answer over the network gets it."""
        server = servers(new_endpoint("ipc", folder))
        server.register(Quick, Routines())
        server.listen()
        routines.other = clients(server.endpoint).bind(Quick)
        # By whom it is run depends on how long it took before.
        assert all(quick.again()[1] != get_ident() for _ in range(20))

    def test_it_takes_long(self, quick: Any) -> None:
        """One that was seen to take long is run by workers from then on."""
        for _ in limits(*[LIMIT] * 100):
            if quick.takes_long() != get_ident():
                break


class TestInterrupts:
    """A signal handler raises in the thread that runs a routine for itself."""

    @pytest.fixture(autouse=True)
    def handler(self) -> Iterator[None]:
        def handle(number: int, frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        former = signal.signal(signal.SIGUSR1, handle)
        yield
        signal.signal(signal.SIGUSR1, former)

    def test_it_ends_the_call_and_goes_on(self, quick: Any) -> None:
        """The call ends with 1726, and what was raised comes out of the wait; the calls behind it are answered."""
        with CompletionPort() as port:
            for _ in range(1000):
                calls: list[Call[Any]] = []
                with pytest.raises(KeyboardInterrupt):  # If a worker was first, it comes at any time.
                    calls.append(quick.interrupted.begin(notify=port))
                    for value in range(5):
                        calls.append(quick.number.begin(value))
                    port.get(LIMIT)
                    port.get(LIMIT)
                found = [call.status() for call in calls if call.wait(LIMIT)]
                while len(port):
                    port.get(0)
                if found == [1726, 0, 0, 0, 0, 0]:
                    assert [call.result() for call in calls[1:]] == list(range(5))
                    return
        pytest.fail("it was always run by another")

    def test_of_a_blocking_call(self, quick: Any) -> None:
        """A blocking call raises it, and the connection is as good as before."""
        with pytest.raises(KeyboardInterrupt):
            quick.interrupted()
        assert here(quick.where)

    def test_with_options(self, quick: Any) -> None:
        """The same for a call that is run by itself."""
        with pytest.raises(KeyboardInterrupt):
            quick.interrupted(timeout=LIMIT)
        assert here(quick.where)

    @uses_steps
    @pytest.mark.parametrize("most", [1, 3])
    def test_at_any_step(self, quick: Any, server: Server, most: int) -> None:
        """At any step of such a turn it ends the call that was just run, at the most, and all are answered at once.

        As the calls arrive it may cost their message; and at the one step at which an answer may have left or not, the
        conversation.
        """
        turn = ("work", "help", "_let_go", "_run_calls", "_run_rows")
        arrival = ("_post", "_offer", "decline")
        files = ("engine/rpc/server/helped.py", "engine/rpc/server/runner.py", "engine/kernel/helping.py")
        picked = [code_named(name, *files) for name in (turn if most == 1 else arrival)]

        def where(code: CodeType) -> bool:
            return any(pick(code) for pick in picked)

        def interrupt() -> None:
            raise KeyboardInterrupt

        costly: set[int] = set()
        number = missed = 0
        while missed < 10:  # A worker may have run them.
            calls: list[Call[Any]] = []
            with at_step(number, where, interrupt) as reached, suppress(KeyboardInterrupt):
                calls += map(quick.number.begin, range(3))
                calls[-1].wait(LIMIT)
            for call in calls:
                assert call.wait(LIMIT), f"after an interrupt at step {number} {call} does not end"
            statuses = [status_of(call.complete) for call in calls]
            assert set(statuses) <= {0, 1726}, f"at step {number}"
            if sum(map(bool, statuses)) > most:
                costly.add(number)
            assert status_of(partial(quick.number, number)) in (0, 1726)
            assert quick.number(number) == number
            wait_until(lambda: server.statistics().active == 0)
            met = number < reached[0]
            number, missed = number + met, 0 if met else missed + 1
        assert number > 15 and len(costly) <= 4, costly  # It has another number if the calls come in other messages.


def test_an_apc_queued_meanwhile(quick: Any) -> None:
    """A call that an APC notifies of is run in the alertable wait, whose APC then runs."""
    found: list[Any] = []
    quick.where.begin(notify=apc(lambda call, kind: found.append(call.complete())))
    sleep(LIMIT, alertable=True)
    assert found
