"""What a program hangs into calls and servers, interceptors, resolvers and announcers, raises what it likes.

Each place is a row of a table, and each way to fail is tried in it: each call has its outcome, and all goes on.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from engine import Client, Discovery, Interface, Presence, RemoteFault, Server, operation
from engine.prometheus import CallMetrics
from engine.testing import LIMIT

from ..hostile import HOSTILE, RAISED, Value

Error = Callable[[], BaseException]
WAYS: dict[str, Error] = {
    **{kind.__name__: (lambda kind=kind: kind("raised")) for kind in RAISED},  # type: ignore[misc]  # of no type
    **{make.__name__: (lambda make=make: make(SystemExit)) for make in HOSTILE},  # type: ignore[misc]  # likewise
}


class Echo(Interface, id="tests.HostileHooks"):
    """What is called."""

    @operation
    def echo(self, value: int) -> int:
        """Return the value."""


class Routines:
    """Serves `Echo`."""

    def echo(self, value: int) -> int:
        return value


@pytest.fixture(params=WAYS)
def raised(request: pytest.FixtureRequest) -> Error:
    """Makes what is raised in this test."""
    return WAYS[request.param]


def before(raised: Error) -> Callable[[Any], Iterator[None]]:
    """Return an interceptor that fails before the calls of 13."""

    def run(call: Any) -> Iterator[None]:
        if call.args == [13]:
            raise raised()
        yield

    return run


def after(raised: Error) -> Callable[[Any], Iterator[None]]:
    """Return one that fails after them."""

    def run(call: Any) -> Iterator[None]:
        yield
        if call.args == [13]:
            raise raised()

    return run


def elsewhere(action: Callable[[], object]) -> object:
    """Return what `action` returns in a thread of its own, or what it raises: no Ctrl-C comes there."""
    ended: list[object] = []

    def run() -> None:
        try:
            ended.append(action())
        except BaseException as error:
            ended.append(error)  # Not raised again: pytest cannot tell of all that is raised here.

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive()
    return ended[0]


WHERE = pytest.mark.parametrize("where", [before, after])


class TestInterceptors:
    """They fail, and their call ends with that."""

    @WHERE
    @pytest.mark.parametrize("measured", [False, True])
    def test_at_a_client(self, raised: Error, where: Any, measured: bool) -> None:
        """A call raises what its interceptor did, and the next one is answered; who measures calls changes nothing."""
        around = [CallMetrics(CollectorRegistry())] if measured else []
        failing = raised()
        with Server("loopback://hostile-hooks", workers=2) as server:
            server.register(Echo, Routines())
            server.listen()
            with Client(server.endpoint, interceptors=[*around, where(lambda: failing)]) as client:
                echo = client.bind(Echo).echo
                for call in (lambda: echo(13), lambda: echo.begin(13).result(LIMIT)):
                    assert elsewhere(call) is failing
                    assert elsewhere(lambda: echo.begin(7).result(LIMIT)) == 7

    @WHERE
    @pytest.mark.parametrize("measured", [False, True])
    def test_at_a_server(self, raised: Error, where: Any, measured: bool) -> None:
        """A call ends with `RemoteFault`, the next one is answered, and nothing is open."""
        around = [CallMetrics(CollectorRegistry())] if measured else []
        with Server("loopback://hostile-hooks", workers=2, interceptors=[*around, where(raised)]) as server:
            server.register(Echo, Routines())
            server.listen()
            with Client(server.endpoint) as client:
                echo = client.bind(Echo).echo
                assert type(elsewhere(lambda: echo(13, timeout=LIMIT))) is RemoteFault
                assert echo(7, timeout=LIMIT) == 7
            server.stop()
            assert server.wait(LIMIT)


class Failing:
    """A resolver and an announcer that fail twice, and do what they are for then; what they are cannot be shown."""

    __repr__ = Value(SystemExit).__repr__

    def __init__(self, raised: Error, endpoint: str = "") -> None:
        self.raised = raised
        self.endpoint = endpoint
        self.left = 2
        self.announced = threading.Event()

    def fail(self) -> None:
        """Raise, the first times."""
        if self.left:
            self.left -= 1
            raise self.raised()

    def end(self) -> None:
        """Raise."""
        raise self.raised()

    def run(self, discovery: Discovery) -> None:
        """Resolve."""
        self.fail()
        discovery.on_close(self.end)
        discovery.update([self.endpoint])
        discovery.wait()
        self.end()

    def announce(self, presence: Presence) -> None:
        """Announce."""
        self.fail()
        self.announced.set()
        presence.wait()
        self.end()


class TestThreadsOfTheirOwn:
    """What runs in a thread of its own fails, and is run again."""

    def test_a_resolver(self, raised: Error, monkeypatch: pytest.MonkeyPatch) -> None:
        """A resolver finds its servers in the end, and one that fails as its client closes harms nobody."""
        monkeypatch.setattr("engine.rpc.client.resolver.FIRST_PAUSE", 0.001)
        with Server("loopback://hostile-hooks", workers=2) as server:
            server.register(Echo, Routines())
            server.listen()

            def call() -> int:
                with Client(Failing(raised, server.endpoint)) as client:
                    return client.bind(Echo, causal=False).echo(7, timeout=LIMIT)

            assert elsewhere(call) == 7

    def test_an_announcer(self, raised: Error, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server is announced in the end, and closes though withdrawing it fails."""
        monkeypatch.setattr("engine.rpc.server.announcing.FIRST_PAUSE", 0.001)
        announcer = Failing(raised)
        with Server("tcp://127.0.0.1:*", announce=announcer, workers=2) as server:
            server.listen()
            assert announcer.announced.wait(LIMIT)
