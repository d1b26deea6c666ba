"""Whether a server says how it is, and names routines that do not return."""

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine import Call, CallTimeout, Client, EngineError, Health, HealthReport, Server
from engine.testing import LIMIT, wait_until
from tests.rpc.helpers import Service, status_of


class Routines:
    """Does not return until it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def stay(self) -> None:
        self.go.wait(LIMIT)


@pytest.fixture
def routines() -> Iterator[Routines]:
    made = Routines()
    yield made
    made.go.set()


@pytest.fixture
def serve(servers: Callable[..., Server], endpoint: str, routines: Routines) -> Callable[..., Server]:
    """A function that starts a server with these options."""

    def start(**options: Any) -> Server:
        server = servers(endpoint, **options)
        server.register("r", routines)
        server.listen()
        return server

    return start


def test_a_server_that_is_well(serve: Callable[..., Server], clients: Callable[..., Client]) -> None:
    """It is live and ready, by the one who asks over the network and by the one who has it."""
    server = serve()
    report = clients(server.endpoint).bind(Health).check()
    assert report == server.health() == HealthReport(live=True, ready=True, reasons=[])


def test_workers_that_are_stuck(
    serve: Callable[..., Server], routines: Routines, clients: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    """Each routine that does not return is named once, with its stack. Once all workers have one, the server says that
    it is not live, though it has no worker left to say so; when they return it is well again.
    """
    server = serve(workers=2, stuck_after=0.2)
    client = clients(server.endpoint)
    calls = [client.bind("r").stay.begin()]
    wait_until(lambda: server.statistics().stuck == 1)
    assert server.health().live
    calls.append(client.bind("r").stay.begin())
    wait_until(lambda: server.statistics().stuck == 2)
    report = client.bind(Health).check()
    assert not report.live and not report.ready and "stuck" in report.reasons[0]
    wait_until(lambda: caplog.text.count("has not returned") == 2)
    assert "r.stay" in caplog.text and "self.go.wait(LIMIT)" in caplog.text
    routines.go.set()
    for call in calls:
        call.result(LIMIT)
    wait_until(lambda: not server.statistics().stuck)
    assert client.bind(Health).check().live
    assert caplog.text.count("has not returned") == 2


def test_what_the_log_shows_of_a_stuck_routine(
    serve: Callable[..., Server], routines: Routines, clients: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    """The stack begins with the routine: how the library came to call it is left out."""
    server = serve(workers=1, stuck_after=0.2)
    call = clients(server.endpoint).bind("r").stay.begin()
    wait_until(lambda: "has not returned" in caplog.text)
    (text,) = [each.getMessage() for each in caplog.records if "has not returned" in each.getMessage()]
    first = re.findall(r'^  File ".*", line \d+, in (\w+)$', text, re.MULTILINE)[0]
    assert first == "stay", text
    routines.go.set()
    call.result(LIMIT)


def test_no_worker_is_left(
    serve: Callable[..., Server], routines: Routines, clients: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    """When routines that wait have all workers, the log says so once, with how many calls wait and what to do, and the
    error of a call whose time is up says what it may have waited for.
    """
    server = serve(workers=2, stuck_after=0.2)
    routine = clients(server.endpoint).bind("r")
    calls = [routine.stay.begin() for _ in range(2)]
    wait_until(lambda: server.statistics().active == 2)
    with pytest.raises(CallTimeout, match=rf"no reply from {server.endpoint} within 0.1 s: .*waits for a free worker"):
        routine.stay(timeout=0.1)
    calls += [routine.stay.begin() for _ in range(3)]
    wait_until(lambda: "all workers (2)" in caplog.text)
    assert re.search(r"in routines that do not return, \d calls? waits? for one: raise workers=", caplog.text)
    routines.go.set()
    for call in calls:
        call.result(LIMIT)
    assert caplog.text.count("all workers (2)") == 1


def test_a_routine_that_calls_its_own_server(
    serve: Callable[..., Server], clients: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    """Where such a call has no worker to run it, the log says that it comes from the server's own process."""
    server = serve(workers=1, stuck_after=0.2)
    inner = clients(server.endpoint).bind("own").inner

    class Own:
        def inner(self) -> int:
            return 1

        def outer(self) -> int:
            begun.append(inner.begin())
            return int(begun[0].result())

    begun: list[Call[int]] = []
    server.register("own", Own())
    call = clients(server.endpoint).bind("own").outer.begin()
    wait_until(lambda: "all workers (1)" in caplog.text)
    assert "1 call waits" in caplog.text
    assert "From this very process: 1. A routine that calls its own server takes a second worker" in caplog.text
    begun[0].cancel(abort=True)
    with pytest.raises(EngineError):
        call.result(LIMIT)


def test_a_limit_that_is_reached(serve: Callable[..., Server], clients: Callable[..., Client]) -> None:
    """A server that refuses calls is live, and not ready."""
    server = serve(max_client_calls=1)
    stay = clients(server.endpoint).bind("r").stay
    calls = [stay.begin() for _ in range(3)]
    wait_until(lambda: server.statistics().refused == 2)
    report = server.health()
    assert report.live and not report.ready and "limit" in report.reasons[0]
    assert sum(call.done() for call in calls) <= 2


def test_a_server_that_stops(serve: Callable[..., Server], clients: Callable[..., Client]) -> None:
    """It is not ready; clients that ask are refused, which says the same."""
    server = serve()
    check = clients(server.endpoint).bind(Health).check
    assert check().ready
    server.stop()
    assert status_of(check) == 1722
    assert server.health().live and not server.health().ready


def test_the_interpreter_is_not_to_be_had(service: Callable[..., Service]) -> None:
    """A routine that holds it for seconds, in C code, is named, while another one is being watched."""
    mine = service(module="tests.rpc.victim")
    with Client(mine.endpoint, timeout=LIMIT) as client:
        victim: Any = client.bind("victim")
        slow = victim.slow.begin(6.0)
        victim.echo(1)
        victim.stick(3.0)
        slow.result(LIMIT)
        wait_until(lambda: "the interpreter was not to be had" in mine.log())
        assert mine.order("statistics")["late"] >= 1
