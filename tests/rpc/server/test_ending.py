"""What a server that is just closing tells, and leaves behind."""

import signal
import sys
import threading
from pathlib import Path

import pytest

from engine import Client, InvalidHandle, InvalidParameter, Server
from engine.testing import LIMIT, Gate, wait_until
from tests.rpc.helpers import RawClient, interrupted
from transport.frames import Hello, Reject


class Held:
    """A routine that a gate holds."""

    def __init__(self) -> None:
        self.began, self.gate = threading.Event(), Gate()

    def hold(self) -> None:
        """Answer once the gate is open."""
        self.began.set()
        self.gate.pass_through()


def test_who_has_just_greeted(tmp_path: Path) -> None:
    """A client whose greeting a closing server has not answered is refused with 1722, each time that it greets."""
    with Server(f"ipc://{tmp_path}/closing") as server:
        server.listen()
        with RawClient(server.endpoint, greet=False) as raw:
            raw.say(Hello(b"\1" * 16, pid=1, host="raw"))
            heard = raw.hear()  # It is there; what follows comes after the server has begun to close.
            assert type(heard).__name__ == "Welcome"
        listener = server._listeners[0]
        with RawClient(server.endpoint, greet=False) as raw:
            listener.answers.closing = True
            for _ in range(2):
                raw.say(Hello(b"\2" * 16, pid=1, host="raw"))
                refused = raw.hear()
                assert type(refused) is Reject and refused.status == 1722


def test_close_while_it_binds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server that is closed while another thread has it listen leaves no endpoint open, and that one is told."""
    where = f"ipc://{tmp_path}/racing"
    server = Server(where)
    at_bind, go_on = threading.Event(), Gate()
    make = server._listener
    raised: list[BaseException] = []

    def listener(endpoint: object) -> object:
        made = make(endpoint)  # type: ignore[arg-type]  # wrong on purpose
        at_bind.set()
        go_on.pass_through()
        return made

    def listen() -> None:
        try:
            server.listen()
        except InvalidHandle as error:
            raised.append(error)

    monkeypatch.setattr(server, "_listener", listener)
    thread = threading.Thread(target=listen)
    thread.start()
    assert at_bind.wait(LIMIT)
    server.close(0.0)
    go_on.open()
    thread.join(LIMIT)
    assert len(raised) == 1 and server.closed
    with Server(where) as another:
        another.listen()


def test_where_it_was() -> None:
    """After its end a server says where it was: with the port that the system chose."""
    with Server("tcp://127.0.0.1:*") as server:
        server.listen()
        endpoint = server.endpoint
    assert server.endpoint == endpoint and not endpoint.endswith((":0", ":*"))


@pytest.mark.parametrize("timeout", [2**70, 1e300, float("inf")])
def test_a_huge_timeout(timeout: float) -> None:
    """A timeout that is longer than the system can wait is for ever."""
    server = Server("loopback://huge-timeout")
    server.register("held", Held())
    server.listen()
    with Client(server.endpoint):
        server.close(timeout)
    assert server.closed


def test_a_timeout_that_is_no_float() -> None:
    """One that no float can hold is refused."""
    with Server("loopback://huge-timeout") as server:
        with pytest.raises(InvalidParameter):
            server.close(2**1100)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs pthread_kill")
def test_a_close_that_is_broken_off() -> None:
    """A server whose close Ctrl-C breaks off while it waits for a call is open as before, and can be closed again."""
    held = Held()
    with Server("loopback://close-broken-off", workers=1) as server:
        server.register("held", held)
        server.listen()
        with Client(server.endpoint) as client:
            call = client.bind("held").hold.begin()
            assert held.began.wait(LIMIT)
            with interrupted():
                server.close(LIMIT)
            assert not server.closed
            held.gate.open()
            assert call.result(LIMIT) is None
            server.register("another", Held())


def test_calls_that_waited_as_the_server_closed() -> None:
    """They are given up for good: nobody goes on to look after them, and the library's threads sleep."""
    held = Held()
    server = Server("loopback://closed-while-calls-wait", workers=1)
    server.register("held", held)
    server.listen()
    with Client(server.endpoint) as first, Client(server.endpoint) as second:
        running = first.bind("held").hold.begin()
        assert held.began.wait(LIMIT)
        waiting = [second.bind("held").hold.begin() for _ in range(3)]
        wait_until(lambda: server.statistics().calls_in == 4)
        server.close(0.0)
        held.gate.open()
        for call in (running, *waiting):
            assert call.wait(LIMIT)
    # No public name tells whether the monitor sleeps.
    wait_until(lambda: not sys.modules["engine.kernel.driver"].driver().monitor.armed)
