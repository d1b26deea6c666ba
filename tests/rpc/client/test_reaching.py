"""Servers that greet late, or never, or say goodbye and stay: a raw socket that speaks the protocol as it likes."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine import (
    CallFailed,
    CallPending,
    CallTimeout,
    Client,
    CompletionPort,
    Management,
    Server,
    ServerUnavailable,
    WaitTimeout,
    wait_any,
)
from engine.testing import LIMIT, wait_until
from transport import bind
from transport.frames import Bye, Calls, Cancel, CancelledCall, Hello, Reject, Replies, Welcome
from transport.wire.codec import encode

from ...one_by_one import calls_in, one_reply
from ..helpers import RawServer, new_endpoint, reach, status_of
from ..interfaces import Probe

BRIEF = 0.1  # Seconds; a limit that is meant to pass.


def answer(raw: RawServer, value: object) -> None:
    """Take the next call, and answer it."""
    message: Any = raw.hear()
    assert type(message) is Calls, message
    encoded = msgspec.Raw(msgspec.msgpack.encode(value))
    raw.say(Replies([one_reply(calls_in(message)[0].id, 0, encoded)]))


class TestNeverGreeted:
    """What accepts a connection, and takes the client's greeting for nothing."""

    def test_its_calls_end(self, endpoint: str) -> None:
        """A call that has left for it ends with 1726 after `connect_timeout`, as a slow server may have begun it, and
        so does each later one; the error says what is wrong.
        """
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=BRIEF) as client:
            reach(client, "greeting")
            probe = client.bind(Probe)
            for number in range(2):
                call = probe.echo.begin(number)
                if not number:
                    assert type(raw.hear()) is Hello
                with pytest.raises(CallFailed, match=f"greeting from {endpoint} .* may run"):
                    call.result(LIMIT)
            assert client.statistics().connection == "greeting"

    def test_it_is_told_not_to_begin_them(self, endpoint: str) -> None:
        """Should it be a slow server after all, it finds each call that was given up aborted."""
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=BRIEF) as client:
            reach(client, "greeting")
            probe = client.bind(Probe)
            call = probe.echo.begin("given up")
            assert type(raw.hear()) is Hello and type(raw.hear()) is Calls
            assert status_of(lambda: call.result(LIMIT)) == 1726
            probe.echo.begin("behind that").wait(0)
            message = raw.hear()
            assert type(message) is Cancel and message.calls == [CancelledCall(call._id, True)]

    def test_what_waited_for_the_greeting_never_leaves(self, endpoint: str) -> None:
        """A call too large to leave before the greeting ends with 1722, and so do those behind it: none was sent, and
        none is once the greeting comes. Nor is one whose own time ran out.
        """
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=BRIEF) as client:
            probe = client.bind(Probe)
            large = probe.echo.begin(bytes(1 << 17))
            behind = probe.echo.begin("behind it")
            assert type(raw.hear()) is Hello
            assert status_of(lambda: large.result(LIMIT)) == 1722
            assert status_of(lambda: behind.result(LIMIT)) == 1722
            raw.say(Welcome(b"\2" * 16))
            reach(client)
            call = probe.echo.begin("served")
            heard: Any = raw.hear()
            assert [each.id for each in calls_in(heard)] == [call._id]

    def test_what_ran_out_before_the_greeting_never_leaves(self, endpoint: str) -> None:
        """A call whose time ran out while it waited for the greeting is not sent when that comes."""
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=LIMIT) as client:
            probe = client.bind(Probe)
            # The large one keeps the other from leaving until that one's time is over, too.
            late = [probe.echo.begin(bytes(1 << 17), timeout=5 * BRIEF), probe.echo.begin("behind it", timeout=BRIEF)]
            assert type(raw.hear()) is Hello
            assert [status_of(partial(call.result, LIMIT)) for call in late] == [1818, 1818]
            raw.say(Welcome(b"\2" * 16))
            reach(client)
            call = probe.echo.begin("served")
            heard: Any = raw.hear()
            assert [each.id for each in calls_in(heard)] == [call._id]

    def test_a_late_greeting(self, endpoint: str) -> None:
        """Once it greets, later calls are served, though earlier ones were given up."""
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=BRIEF) as client:
            reach(client, "greeting")
            probe = client.bind(Probe)
            assert status_of(lambda: probe.echo.begin("given up").result(LIMIT)) == 1726
            raw.greet()
            assert type(raw.hear()) is Calls and type(raw.hear()) is Cancel
            reach(client)
            call = probe.echo.begin("served")
            answer(raw, "served")
            assert call.result(LIMIT) == "served"

    def test_without_a_limit(self, endpoint: str) -> None:
        """With `connect_timeout=None` a call waits for the greeting for as long as it takes."""
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=None) as client:
            call = client.bind(Probe).echo.begin("patient")
            assert type(raw.hear()) is Hello
            assert not call.wait(BRIEF)
            raw.say(Welcome(b"\2" * 16))
            answer(raw, "greeted")
            assert call.result(LIMIT) == "greeted"

    def test_the_limit_counts_again(self, endpoint: str) -> None:
        """After a lost connection the limit counts anew, to the greeting of the next server: 1726."""
        with Client(endpoint, connect_timeout=BRIEF) as client:
            probe = client.bind(Probe)
            with RawServer(endpoint) as raw:
                reach(client, "greeting")
                raw.greet()
                reach(client)
            reach(client, "connecting")
            with RawServer(endpoint):
                reach(client, "greeting")
                with pytest.raises(CallFailed):
                    probe.echo.begin("second").result(LIMIT)


class TestGoodbyes:
    """A server that says goodbye and keeps its socket, as a ROUTER must that cannot close one connection."""

    @pytest.mark.parametrize("transport", ["tcp", "ipc", "native+tcp", "native+ipc"])
    def test_later_calls(self, transport: str, folder: Any) -> None:
        """The client closes the connection and greets over a new one: later calls are served."""
        with RawServer(new_endpoint(transport, folder)) as raw, Client(raw.endpoint, connect_timeout=LIMIT) as client:
            probe = client.bind(Probe)
            call = probe.echo.begin("outstanding")
            raw.greet()
            assert type(raw.hear()) is Calls
            former = raw.peer
            raw.say(Bye(1722, "restarting"))
            assert status_of(lambda: call.result(LIMIT)) == 1726
            later = probe.echo.begin("later")
            raw.greet()
            assert raw.peer != former
            answer(raw, "served")
            assert later.result(LIMIT) == "served"

    def test_in_one_process(self, folder: Any) -> None:
        """Over an in-memory link it does so, too."""
        link = bind(new_endpoint("loopback", folder))
        heard: list[tuple[bytes, Any]] = []

        class Reader:
            """Answers each greeting with a greeting and a goodbye."""

            def on_message(self, peer: bytes, frames: Any) -> None:
                heard.append((peer, frames))

            def on_connected(self, peer: bytes) -> None: ...
            def on_lost(self, peer: bytes, reason: str, evicted: bool = False) -> None: ...

        def has_come() -> bool:
            client.statistics()
            with link.lock:
                link.harvest(Reader())  # type: ignore[arg-type]  # a server's has no `on_connect_failed`
            return bool(heard)

        with Client(link.endpoint) as client:
            client.bind(Probe).note.begin("connect")
            peers = []
            for _ in range(2):
                wait_until(has_come)
                peers.append(heard[0][0])
                heard.clear()
                with link.lock:
                    assert link.send(peers[-1], encode(Welcome(b"\2" * 16)))
                    assert link.send(peers[-1], encode(Bye(0, "another one, please")))
            assert peers[0] != peers[1]
        with link.lock:
            link.close()

    def test_again_and_again(self, endpoint: str) -> None:
        """From a server that answers each greeting with a goodbye the client stays away for a while."""
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=LIMIT) as client:
            client.bind(Probe).echo.begin("never served")
            hellos: list[Any] = []
            while len(hellos) < 3:
                # Nothing is outstanding: the client moves while somebody asks.
                wait_until(lambda: client.statistics() and raw.socket.poll(0))
                if type(raw.hear()) is Hello:
                    hellos.append(time.monotonic())
                    raw.say(Bye(0, "not now"))
            assert hellos[2] - hellos[0] > 0.5


class TestNoServer:
    """A client that was started before its server: errors of waiting say so."""

    def test_what_is_said(self, endpoint: str, port: CompletionPort) -> None:
        """A wait, a call that is not complete and a call's own limit name the endpoint, and how many calls wait."""
        with Client(endpoint, connect_timeout=None) as client:
            probe = client.bind(Probe)
            calls = [probe.echo.begin(number, notify=port) for number in range(2)]
            wait_until(lambda: "nobody listens" in client._connection.silence())
            said = f"no server was ever reached at {endpoint}, 2 calls wait for it.*nobody listens there"
            with pytest.raises(WaitTimeout, match=f"became takeable.*{said}"):
                port.get(BRIEF)
            with pytest.raises(WaitTimeout, match=f"not satisfied.*{said}"):
                wait_any([port], BRIEF)
            with pytest.raises(CallPending, match=said):
                calls[0].complete()
            with pytest.raises(CallPending, match=said):
                calls[0].result(BRIEF)
            with pytest.raises(ServerUnavailable, match="nobody listens there"):
                probe.echo(3, timeout=BRIEF)

    def test_one_that_accepts_at_last(self, endpoint: str) -> None:
        """Once something accepts the connection, why attempts had failed before is said no more."""
        with Client(endpoint, connect_timeout=None) as client:
            call = client.bind(Probe).echo.begin(1)
            wait_until(lambda: "nobody listens" in client._connection.silence())
            with RawServer(endpoint) as raw:
                assert type(raw.hear()) is Hello
                with pytest.raises(CallPending, match=f"{endpoint} has not greeted, 1 call waits for it\\) "):
                    call.complete()

    def test_one_that_does_not_greet(self, endpoint: str, port: CompletionPort) -> None:
        """What accepts connections and does not greet is named too, in a call's own limit as well."""
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=None) as client:
            reach(client, "greeting")
            call = client.bind(Probe).echo.begin(1, timeout=BRIEF, notify=port)
            assert type(raw.hear()) is Hello
            assert port.get(LIMIT).overlapped is call
            with pytest.raises(CallTimeout, match=f"{endpoint} has not greeted, 1 call waits"):
                call.complete()

    def test_nothing_is_said_of_a_slow_one(self, endpoint: str, port: CompletionPort) -> None:
        """A server that has greeted and does not answer is no reason that the library knows of."""
        with RawServer(endpoint) as raw, Client(endpoint, connect_timeout=LIMIT) as client:
            client.bind(Probe).echo.begin(1, notify=port)
            raw.greet()
            assert type(raw.hear()) is Calls
            reach(client)
            with pytest.raises(WaitTimeout) as raised:
                port.get(BRIEF)
            assert endpoint not in str(raised.value)


def test_what_a_refused_greeting_was_to_bring(endpoint: str) -> None:
    """Calls that end because the greeting is refused never leave, however long they had to wait for a connection."""
    with Client(endpoint, connect_timeout=LIMIT) as client:
        probe = client.bind(Probe)
        with RawServer(endpoint) as raw:
            refused = [probe.echo.begin(value) for value in (bytes(1 << 17), "behind it")]
            assert type(raw.hear()) is Hello
            raw.say(Reject([], 1722, "not now"))
            assert [status_of(partial(call.result, LIMIT)) for call in refused] == [1722, 1722]
        with RawServer(endpoint) as raw:
            call = probe.echo.begin("served")
            raw.greet()
            answer(raw, "served")
            assert call.result(LIMIT) == "served"


def test_a_path_is_of_the_directory_in_which_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of a relative path goes on with that file when its process changes its directory."""
    monkeypatch.chdir(tmp_path)
    with Server("ipc://r") as server:
        server.listen()
        client = Client("ipc://r", connect_timeout=LIMIT)
        management = client.bind(Management)
        assert management.listening()
    reach(client, "connecting")  # Before it knows of the loss, a call may be lost with it.
    monkeypatch.chdir("/")
    with client, Server(f"ipc://{tmp_path}/r") as server:
        server.listen()
        assert management.listening()
