"""Races, closed one step at a time: what happens elsewhere happens here at each line of the code that it may meet.

A thread is interrupted as it reaches line after line, and what another thread might do is done there and then.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from types import CodeType
from typing import Any

import pytest

from engine import Call, Client, CompletionPort, Event, InvalidAsyncHandle, InvalidHandle, Server, State
from engine.testing import LIMIT, Gate, no_leaks, wait_until
from transport.frames import Bye, Reject, Target
from transport.wire.codec import encode_calls

from ..certificates import for_client, for_server
from .helpers import (
    Bench,
    Elsewhere,
    RawClient,
    RawServer,
    at_line,
    at_step,
    code_in,
    code_named,
    new_endpoint,
    reach,
    status_of,
    uses_steps,
)
from .interfaces import Probe
from .service import make_server

Benches = Callable[..., Bench]

LINES = 40  # As many as one such piece of work has at the most; how many run differs with what comes first.

# Where a call is begun, where the usual one is, by way of a binding without types, and where it is cancelled.
BEGIN = code_named("begin", "engine/rpc/client/carrier.py")
USUAL = code_named("begin_usual", "engine/rpc/client/carrier.py")
CANCEL = code_named("cancel", "engine/rpc/call.py", "engine/rpc/client/carrier.py")


class TestSending:
    """A message that is begun while another thread uses the link leaves all the same."""

    def test_a_call_begun_at_any_line(self, any_bench: Bench) -> None:
        """A call begun at any line of a channel's work is answered, though its thread leaves the sending to others."""
        probe = any_bench.probe
        probe.nothing()
        for number in range(LINES):
            begun: list[Call[Any]] = []

            def begin(begun: list[Call[Any]] = begun) -> None:
                begun.append(probe.echo.begin("in between"))

            with at_line(number, code_in("engine/rpc/channel.py"), begin):
                assert probe.echo("first") == "first"
            for call in begun:
                assert call.wait(LIMIT), f"the call begun at line {number} was never sent"
                assert call.complete() == "in between"

    @pytest.mark.parametrize("transport", ["ipc", "native+ipc", "loopback"])
    def test_an_answer_given_at_any_line(self, transport: str, folder: Any, benches: Benches, key: str) -> None:
        """An answer given at any line of a server's work, on the client's side too, reaches the client."""
        server, board = make_server(new_endpoint(transport, folder))
        with server:
            server.listen()
            bench = benches(server.endpoint)
            for number in range(LINES):
                name = f"{key}-{number}"
                call = bench.held(name)
                answer = Elsewhere(partial(lambda name: board.get(name).complete("answered"), name))
                with at_line(number, code_in("engine/rpc/channel.py"), answer) as lines:
                    assert bench.probe.echo("first") == "first"
                answer.join()
                if number >= lines[0]:
                    board.get(name).complete("answered")
                assert call.wait(LIMIT), f"the answer given at line {number} was never sent"
                assert call.complete() == "answered"

    def test_answers_wait_for_no_other_batch(self, local: Callable[..., Server], benches: Benches) -> None:
        """Answers leave though the calls that came after theirs are not answered yet, and block the only worker."""
        gates = {"first": Gate(), "second": Gate()}

        class Routines:
            def quick(self) -> str:
                return "quick"

            def block(self, name: str) -> str:
                gates[name].pass_through()
                return name

        server = local(workers=1)
        server.register("blocks", Routines())
        client = benches(server.endpoint).client
        binding = client.bind("blocks")
        first = binding.block.begin("first")
        gates["first"].wait_for_arrivals()
        begun = server.statistics().calls_in
        quick, second = binding.quick.begin(), binding.block.begin("second")
        wait_until(lambda: server.statistics().calls_in == begun + 2)
        gates["first"].open()
        gates["second"].wait_for_arrivals()
        try:
            assert first.wait(LIMIT), "an answer waits for a routine that blocks"
            assert quick.wait(LIMIT), "an answer waits for a routine that blocks"
        finally:
            gates["second"].open()
        assert (first.complete(), quick.complete(), second.result(LIMIT)) == ("first", "quick", "second")


class TestAnswering:
    """What breaks in on an answer."""

    @pytest.mark.parametrize("value", ["small", bytes(1 << 18), ["encoded at once"]], ids=["small", "large", "list"])
    def test_losing_the_client_at_any_line(self, endpoint: str, benches: Benches, key: str, value: Any) -> None:
        """When the client goes at any line of an answer, the call is over all the same: the server can stop."""
        hold = Target("test.Probe", 1, 2, "hold")
        server, board = make_server(endpoint)
        with server:
            server.listen()
            control = benches(endpoint).control
            for number in range(LINES):
                name = f"{key}-{number}"
                with RawClient(endpoint) as raw:
                    raw.send(*map(bytes, encode_calls([(1, hold, (name,), None)])))
                    control.arrived(name)
                    call = board.get(name)
                    lose = Elsewhere(
                        partial(lambda raw, call: (raw.say(Bye(0, "")), wait_until(call.disconnected)), raw, call)
                    )
                    with at_line(number, code_in("engine/rpc/server/listener.py"), lose):
                        call.complete(value)
                    lose.join()
            server.stop()
            assert server.wait(LIMIT), f"{server.statistics().active} calls are counted as open"
            assert server.statistics().active == 0


WAYS = pytest.mark.parametrize(
    ("where", "interface"), [(BEGIN, Probe), (USUAL, Probe.interface_id)], ids=["any call", "usual call"]
)


class TestBeginning:
    """What breaks in on the beginning of a call. The two ways to begin one keep the same promises."""

    @WAYS
    def test_closing_at_any_line(self, services: Callable[..., str], where: Any, interface: Any) -> None:
        """Closed at any line of `begin`, the client refuses the call or ends it: nothing is left pending."""
        for number in itertools.count():
            with CompletionPort() as port:
                client = Client(services("ipc"))
                probe = client.bind(interface)
                probe.nothing()
                reach(client)
                call = None
                with at_line(number, where, client.close) as lines:
                    try:
                        call = probe.echo.begin("closed?", notify=port)
                    except InvalidHandle:
                        pass
                client.close()
                if call is not None:
                    assert call.done()
                    assert port.get(0).overlapped is call
                    assert status_of(call.complete) in (0, 1818)
                assert status_of(partial(port.get, 0)) == 258
            if number >= lines[0]:
                break
        assert number > 10

    @WAYS
    def test_losing_the_server_at_any_line(self, endpoint: str, where: Any, interface: Any) -> None:
        """When the connection is lost at any line of `begin`, the call ends once, or waits for the next connection."""
        for number in itertools.count():
            with CompletionPort() as port, RawServer(f"{endpoint}{number}") as raw:
                with Client(raw.endpoint, connect_timeout=0.05) as client:
                    probe = client.bind(interface)
                    client.bind(Probe).note("to connect")
                    raw.greet()
                    reach(client)  # Its end counts as a loss. The limit is for the next one, which nobody greets.
                    waiting = probe.echo.begin("waiting")

                    def lose(raw: RawServer = raw, client: Client = client, waiting: Call[Any] = waiting) -> None:
                        raw.say(Bye(0, "gone"))
                        while client.statistics().connection == "connected":
                            status_of(waiting.status)

                    with at_line(number, where, lose) as lines:
                        call = probe.echo.begin("lost?", notify=port)
                    if number < lines[0]:
                        assert port.get(LIMIT).overlapped is call
                        assert status_of(call.complete) in (1726, 1727)
                        assert status_of(partial(port.get, 0)) == 258
            if number >= lines[0]:
                break
        assert number > 10

    @WAYS
    def test_ctrl_c_at_any_line(self, bench: Bench, where: Any, interface: Any) -> None:
        """An interrupt at any line of `begin` costs that call at most: all others are answered."""
        probe = bench.client.bind(interface)
        probe.nothing()

        def interrupt() -> None:
            raise KeyboardInterrupt

        for number in itertools.count():
            with at_line(number, where, interrupt) as lines:
                try:
                    call = probe.echo.begin("interrupted")
                except KeyboardInterrupt:
                    call = None
            others = [probe.echo.begin(each) for each in range(8)]
            for each, other in enumerate(others):
                assert other.wait(LIMIT), f"after an interrupt at line {number} a call is not answered"
                assert other.complete() == each
            if call is not None:
                assert call.result(LIMIT) == "interrupted"
                break
        assert number > 10 and number >= lines[0]

    @uses_steps
    @pytest.mark.parametrize("servers", ["loopback://nobody", ["loopback://nobody", "loopback://nor-here"]])
    def test_ctrl_c_as_a_client_is_made(self, servers: Any) -> None:
        """An interrupt at any step of making a client leaves none that is open."""

        def interrupt() -> None:
            raise KeyboardInterrupt

        with no_leaks():
            for number in itertools.count(0, 3):
                with at_step(number, code_in("engine/rpc/"), interrupt) as steps:
                    with suppress(KeyboardInterrupt):
                        client = Client(servers)
                if number >= steps[0]:
                    break
            client.close()
        assert number > 10

    def test_ctrl_c_at_any_line_of_a_wait(self, bench: Bench, key: str) -> None:
        """An interrupt at any line of a wait leaves the call pending, and it can be waited for again.

        An interrupt in the middle of a harvest may cost the connection, and then the calls end.
        """

        def interrupt() -> None:
            raise KeyboardInterrupt

        for number in range(LINES):
            name = f"{key}-{number}"
            call = bench.held(name)
            with at_line(number, code_in("engine/rpc"), interrupt):
                try:
                    call.wait(0.001)
                except KeyboardInterrupt:
                    pass
            bench.control.complete(name, "unharmed")
            assert call.wait(LIMIT), f"after an interrupt at line {number} the call does not end"
            assert status_of(call.complete) in (0, 1726)
            assert bench.probe.echo(number) == number

    @uses_steps
    @pytest.mark.timeout(10 * LIMIT)  # There are many steps.
    @pytest.mark.parametrize("name, options", [("echo", {}), ("echo", {"timeout": LIMIT}), ("nobody", {})])
    @pytest.mark.parametrize("transport", ["ipc", "native+ipc", "tls", "inproc", "loopback"])
    def test_ctrl_c_as_a_server_takes_calls(
        self, transport: str, folder: Any, name: str, options: dict[str, Any]
    ) -> None:
        """An interrupt at any step of a server's taking of a message ends or answers each of its calls, at once.

        The server's only worker is busy, so the thread that waits for the calls takes them, too.
        """

        def interrupt() -> None:
            raise KeyboardInterrupt

        gates: list[Gate] = []

        class Routines:
            def echo(self, value: int) -> int:
                return value

            def hold(self) -> None:
                gates[-1].pass_through()

        steps = ("on_message", "_receive", "_take_calls", "_take_groups", "_take_one_by_one")
        taking = [code_named(step, "engine/rpc/server/listener.py") for step in steps]
        taking.append(code_named("arrive", "engine/rpc/server/admission.py"))
        native = "transport/native_link/"
        harvest = code_named("harvest", "transport/zmq_link/server.py", "transport/loopback.py", f"{native}base.py")
        deliver = code_named("_deliver", "transport/loopback.py", f"{native}server.py")
        read = code_in(native)

        def where(code: CodeType) -> bool:
            return harvest(code) or deliver(code) or read(code) or any(taken(code) for taken in taking)

        place = new_endpoint(transport, folder)
        with Server(place, workers=1, **for_server(place)) as server, ExitStack() as clients:
            server.register("echo", Routines())
            server.listen()
            how = for_client(place)
            other = clients.enter_context(Client(server.endpoint, **how))
            other.bind("echo").echo(0)
            number = missed = 0
            while missed < 10:  # Another thread may have taken them.
                with Client(server.endpoint, **how) as client:
                    echo = client.bind("echo").echo
                    assert echo(number) == number
                    gates.append(Gate())
                    held = other.bind("echo").hold.begin()
                    while not gates[-1].arrivals:
                        held.wait(0.001)
                    calls: list[Call[Any]] = []
                    begin = partial(client.bind(name).echo.begin, **options)
                    with at_step(number, where, interrupt) as reached, suppress(KeyboardInterrupt):
                        calls += map(begin, range(3))
                        while server.statistics().active < 4 and not all(call.done() for call in calls):
                            calls[-1].wait(0.05)
                    gates[-1].open()
                    for call in [*calls, held]:
                        assert call.wait(LIMIT), f"after an interrupt at step {number} {call} does not end"
                        assert status_of(call.complete) in (0, 1717, 1726)
                    # Its connection may be lost by then, or be lost with it.
                    assert status_of(partial(echo, number)) in (0, 1726, 1727)
                    assert echo(number) == number
                    wait_until(lambda: server.statistics().active == 0)
                met = number < reached[0]
                number, missed = number + met, 0 if met else missed + 1
            assert number > 10

    def test_ctrl_c_as_a_message_is_taken(self, bench: Bench, key: str) -> None:
        """An interrupt at any line of the taking of a message loses none of the calls in it: all are answered."""
        probe = bench.probe
        held = [bench.held(f"{key}-{number}") for number in range(12)]  # So the others wait to be batched.
        taking = code_named("_take", "engine/rpc/client/outbox.py")
        deeper = ("take_together", "encode_calls", "next_message")
        values = ["short", ["encoded at once"], bytes(1 << 18)]

        def where(code: CodeType) -> bool:
            named = code.co_name in deeper and code_in("engine/rpc/c")(code)
            return taking(code) or named or code_named("encode_calls", "transport/wire/codec.py")(code)

        def interrupt() -> None:
            raise KeyboardInterrupt

        for number in itertools.count():
            calls: list[Call[Any]] = []
            with at_line(number, where, interrupt) as reached:
                for _ in range(3):
                    with suppress(KeyboardInterrupt):
                        calls += map(probe.echo.begin, values)
                with suppress(KeyboardInterrupt):
                    calls[-1].wait(LIMIT)
            for call in calls:
                assert call.wait(LIMIT), f"after an interrupt at line {number} {call} was never sent"
                assert call.complete() in values
            assert probe.echo(number) == number
            if reached[0] <= number:
                break
        assert number > 10
        for number in range(12):
            bench.control.complete(f"{key}-{number}", "answered")
        assert all(call.wait(LIMIT) for call in held)

    @uses_steps
    @pytest.mark.parametrize("transport", ["ipc", "native+ipc", "tls", "inproc", "loopback"])
    @pytest.mark.parametrize("value", [["x" * 20_000], bytes(1 << 17)], ids=["one frame", "two frames"])
    def test_ctrl_c_as_a_call_is_sent(self, transport: str, value: Any, folder: Any) -> None:
        """An interrupt at any step of sending leaves no call waiting: that call, and those beside it, end or run."""

        def interrupt() -> None:
            raise KeyboardInterrupt

        class Routines:
            def echo(self, value: Any) -> Any:
                return value

        sending = (
            "send", "_send_frames", "_send_each", "_end_message", "_offer", "write", "_keep",
            "_encrypted", "_in_records", "_send_encrypted",
        )  # fmt: skip

        def where(code: CodeType) -> bool:
            return code.co_name in sending and code_in("transport")(code)

        place = new_endpoint(transport, folder)
        with Server(place, workers=1, **for_server(place)) as server:
            server.register("echo", Routines())
            server.listen()
            how = for_client(place)
            number = missed = 0
            while missed < 10:  # Another thread may have sent it.
                with Client(server.endpoint, connect_timeout=LIMIT, **how) as client:
                    echo = client.bind("echo").echo
                    echo(None)
                    calls: list[Call[Any]] = []
                    with at_step(number, where, interrupt) as reached, suppress(KeyboardInterrupt):
                        calls.append(echo.begin(value))  # It leaves at once.
                    calls.append(echo.begin("last"))
                    for call in calls:
                        assert call.wait(LIMIT), f"after an interrupt at step {number} {call} does not end"
                        assert status_of(call.complete) in (0, 1726)
                    assert echo("afterwards") == "afterwards"
                    wait_until(partial(_is_idle, client))
                met = number < reached[0]
                number, missed = number + met, 0 if met else missed + 1
            assert number > 3

    @pytest.mark.parametrize("message", [Bye(1722, "closing time"), Reject([1], 1728, "what?")], ids=["bye", "reject"])
    def test_ctrl_c_as_a_conversation_ends(self, message: Bye | Reject, folder: Any) -> None:
        """An interrupt at any line of the taking of a BYE or REJECT leaves no call waiting for an answer."""

        def interrupt() -> None:
            raise KeyboardInterrupt

        for number in itertools.count():
            with RawServer(new_endpoint("ipc", folder)) as raw, Client(raw.endpoint, connect_timeout=LIMIT) as client:
                call = client.bind(Probe).echo.begin("x")
                raw.greet()
                raw.hear()
                wait_until(partial(_is_connected, client))
                raw.say(message)
                with at_line(number, code_in("engine/rpc/client"), interrupt) as reached, suppress(KeyboardInterrupt):
                    call.wait(LIMIT)
                assert call.wait(LIMIT), f"after an interrupt at line {number} the call does not end"
                assert status_of(call.complete) == 1726
            if reached[0] <= number:
                break

    def test_ctrl_c_while_many_are_told(self, bench: Bench) -> None:
        """An interrupt in the midst of telling of many calls costs what one step tells of, at the most."""
        for number, interrupted in interruptions("drive", code_in("engine/rpc/channel.py")):
            with CompletionPort() as port:
                # Each with a template of its own, so each is told by itself.
                interrupted(bench, [port.packet(key=each) for each in range(12)])
                told = [packet.key for packet in port.get_many(20, 0)]
                assert len(told) == len(set(told)) >= 11, f"after an interrupt at line {number} only {told} were told"

    def test_ctrl_c_while_many_events_are_set(self, bench: Bench) -> None:
        """One in the midst of setting the events of many calls costs one of them at the most."""
        for number, interrupted in interruptions("_set_locked", code_in("engine/kernel/event.py")):
            with ExitStack() as opened:
                events = [opened.enter_context(Event(manual_reset=True)) for _ in range(12)]
                interrupted(bench, events)
                unset = [each for each, event in enumerate(events) if not event.wait(0)]
                assert len(unset) <= 1, f"after an interrupt at line {number} the events {unset} are not set"


def interruptions(
    function: str, where: Callable[[CodeType], bool]
) -> Iterator[tuple[int, Callable[[Bench, Sequence[Any]], None]]]:
    """For each line of a function, what begins calls with these notifications, and is interrupted there meanwhile."""
    came = 0

    def interrupt() -> None:
        nonlocal came
        came += 1
        raise KeyboardInterrupt

    def chosen(code: CodeType) -> bool:
        return code.co_name == function and where(code)

    for number in range(LINES):

        def interrupted(bench: Bench, ways: Sequence[Any], number: int = number) -> None:
            calls = [bench.probe.echo.begin(each, notify=way) for each, way in enumerate(ways)]
            with at_line(number, chosen, interrupt), suppress(KeyboardInterrupt):
                calls[-1].wait(LIMIT)
            for call in calls:
                assert call.wait(LIMIT)
                assert status_of(call.complete) in (0, 1726)
            bench.probe.nothing()  # What was left is told by whoever waits next.

        yield number, interrupted
    assert came


def _is_idle(client: Client) -> bool:
    """Whether no call of a client is outstanding, now that it has looked around."""
    client.bind("echo").echo(None)
    return not client.statistics().outstanding


def _is_connected(client: Client) -> bool:
    return client.statistics().connection == "connected"


class TestCancelling:
    """What a cancel meets."""

    @pytest.mark.parametrize("abort", [False, True])
    def test_the_reply_arrives_at_any_line(self, bench: Bench, abort: bool) -> None:
        """Whichever of reply and cancel comes first, the call has one outcome and is told of once (T14)."""
        with CompletionPort() as port:
            for number in range(LINES):
                call = bench.probe.echo.begin("replied", notify=port)
                arrive = Elsewhere(partial(call.wait, LIMIT))
                with at_line(number, CANCEL, arrive):
                    call.cancel(abort)
                arrive.join()
                packet = port.get(LIMIT)
                assert packet.overlapped is call
                assert status_of(call.complete) in (0, 1818)  # 1818: the cancel was there before the routine began.
                with pytest.raises(InvalidAsyncHandle):
                    call.complete()
                assert status_of(lambda: port.get(0)) == 258
                assert call.state is State.SPENT
