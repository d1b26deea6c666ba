"""What one client may have of a server, who is connected, and whom the server asks about."""

from collections.abc import Callable
from typing import Any

import pytest

from engine import (
    AccessDenied,
    CallAttributes,
    CallFailed,
    Client,
    InvalidParameter,
    Management,
    Server,
    ServerTooBusy,
)
from engine.testing import LIMIT, Gate, wait_until
from tests.rpc.helpers import new_endpoint, status_of

MIB = 1 << 20


class Routines:
    """Waits at a gate, or answers at once."""

    def __init__(self) -> None:
        self.gate = Gate()

    def hold(self, data: Any) -> int:
        self.gate.pass_through()
        return len(data)

    def echo(self, value: Any) -> Any:
        return value


@pytest.fixture
def routines() -> Any:
    made = Routines()
    yield made
    made.gate.open()


@pytest.fixture(params=["ipc", "native+ipc", "loopback"])
def serve(
    request: pytest.FixtureRequest, routines: Routines, servers: Callable[..., Server], folder: Any
) -> Callable[..., Server]:
    """A function that starts a server with these options."""

    def start(**options: Any) -> Server:
        server = servers(new_endpoint(request.param, folder), **options)
        server.register("r", routines)
        server.listen()
        return server

    return start


class TestBounds:
    """Each is for one client, or for all; what is above it is refused, by name, and the rest is answered."""

    def test_calls_of_a_client(
        self, serve: Callable[..., Server], routines: Routines, clients: Callable[..., Client]
    ) -> None:
        """`max_client_calls` of one client may be open, and those of another besides."""
        server = serve(max_client_calls=10)
        one, other = clients(server.endpoint), clients(server.endpoint)
        calls = [one.bind("r").hold.begin("x") for _ in range(15)]
        wait_until(lambda: server.statistics().refused == 5)
        more = one.bind("r").echo.begin(1)
        with pytest.raises(ServerTooBusy, match="max_client_calls=10"):
            more.result(LIMIT)
        assert other.bind("r").echo.begin(2).status() in (0, 997)
        routines.gate.open()
        outcomes = sorted(status_of(lambda: call.result(LIMIT)) for call in calls)  # noqa: B023  # called in this turn
        assert outcomes == [0] * 10 + [ServerTooBusy.status] * 5
        assert one.bind("r").echo(3) == 3

    @pytest.mark.parametrize("option", ["max_client_bytes", "max_waiting_bytes"])
    def test_bytes_that_wait(
        self, serve: Callable[..., Server], routines: Routines, clients: Callable[..., Client], option: str
    ) -> None:
        """So it is with bytes, of arguments large and small. Once there is room calls are taken again."""
        server = serve(**{option: 8 * MIB}, workers=1)
        client = clients(server.endpoint)
        holding = client.bind("r").hold
        first = holding.begin(b"")
        routines.gate.wait_for_arrivals()  # From here on nothing that waits begins.
        calls = [holding.begin(bytes(MIB)) for _ in range(30)]
        wait_until(lambda: server.statistics().calls_in == 31)
        wait_until(lambda: sum(call.done() for call in calls) == server.statistics().refused)
        taken = [call for call in calls if not call.done()]
        assert 8 <= len(taken) <= 20
        with pytest.raises(ServerTooBusy, match=option):
            client.bind("r").echo.begin(b"more").result(LIMIT)
        (peer,) = server.peers
        assert 7 * MIB < peer.waiting_bytes < 20 * MIB
        routines.gate.open()
        assert first.result(LIMIT) == 0 and {call.result(LIMIT) for call in taken} == {MIB}
        wait_until(lambda: status_of(lambda: client.bind("r").echo(b"again")) == 0)


class TestPeers:
    """Who is connected."""

    def test_they_are_shown(
        self, serve: Callable[..., Server], routines: Routines, clients: Callable[..., Client]
    ) -> None:
        """Each with what came from it and went to it, and its open calls."""
        server = serve()
        assert server.peers == []
        busy, idle = clients(server.endpoint), clients(server.endpoint)
        idle.bind("r").echo(1)
        call = busy.bind("r").hold.begin(bytes(1000))
        wait_until(lambda: sorted(peer.calls for peer in server.peers) == [0, 1])
        few, many = sorted(server.peers, key=lambda peer: peer.bytes_in)
        assert many.calls == 1 and many.bytes_in > 1000 and few.bytes_out > 0
        assert few.endpoint == server.endpoint and few.since > 1e9 and few.process == many.process
        routines.gate.open()
        assert call.result(LIMIT) == 1000
        idle.close()
        wait_until(lambda: len(server.peers) == 1)

    def test_one_is_disconnected(
        self, serve: Callable[..., Server], routines: Routines, clients: Callable[..., Client]
    ) -> None:
        """Its calls fail at once, the others' do not; it may come again, and a second time nothing happens."""
        server = serve()
        one, other = clients(server.endpoint), clients(server.endpoint)
        calls = [client.bind("r").hold.begin("x") for client in (one, other)]
        wait_until(lambda: sum(peer.calls for peer in server.peers) == 2)
        first, second = sorted(server.peers, key=lambda peer: peer.since)
        assert server.disconnect(first)
        wait_until(lambda: any(call.done() for call in calls))
        assert [call.done() for call in calls].count(True) == 1
        wait_until(lambda: first.id not in [peer.id for peer in server.peers])
        assert not server.disconnect(first)
        routines.gate.open()
        outcomes = [status_of(lambda: call.result(LIMIT)) for call in calls]  # noqa: B023  # called in this turn
        assert sorted(outcomes) == [0, CallFailed.status]
        assert one.bind("r").echo(1) == other.bind("r").echo(1) == 1
        assert second.id in [peer.id for peer in server.peers]


class TestAccess:
    """Who may what."""

    def test_an_operation(self, servers: Callable[..., Server], clients: Callable[..., Client], endpoint: str) -> None:
        """An operation may have a function of its own, which is asked once; the others are not its business."""
        asked: list[str] = []

        def judge(attributes: CallAttributes) -> bool:
            asked.append(attributes.operation)
            return False

        server = servers(endpoint)
        server.register("r", Routines(), operations={"hold": judge})
        server.listen()
        client = clients(endpoint)
        assert client.bind("r").echo(1) == 1
        for _ in range(2):
            with pytest.raises(AccessDenied, match="operation 'hold'"):
                client.bind("r").hold("x")
        assert asked == ["hold"]

    def test_an_operation_that_there_is_not(self, servers: Callable[..., Server], endpoint: str) -> None:
        """It is an error that names it: a guard that guards nothing would go unnoticed."""
        with pytest.raises(InvalidParameter, match="'hodl'"):
            servers(endpoint).register("r", Routines(), operations={"hodl": lambda attributes: True})

    def test_management_from_another_machine(
        self, servers: Callable[..., Server], clients: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only who is on this machine may look, unless the server says otherwise."""
        # Loopback addresses count as others.
        monkeypatch.setattr("engine.rpc.server.listener.is_local", lambda endpoint, address: False)
        for authorize, status in ((None, AccessDenied.status), (lambda attributes: True, 0)):
            server = servers("tcp://127.0.0.1:*", authorize=authorize)
            server.listen()
            management = clients(server.endpoint).bind(Management)
            assert status_of(management.statistics) == status
            assert status_of(management.listening) == status
