"""What many clients do again after a failure they do not do at once: each pause varies by chance, which is played here.

Otherwise all clients of a server that was away would come in the same moment when it is back.
"""

import threading
from functools import partial
from typing import Any

import pytest
import zmq

from engine import Address, Client, Discovery, Interface, Presence, Server, operation
from engine.resolvers import Members, MembersRoutines, Seed
from engine.testing import LIMIT, wait_until
from transport import connect
from transport.frames import Bye

from ..resolvers.daemons import free_port
from ..resolvers.following import following
from .helpers import RawServer, new_endpoint, status_of

CHANCES = [0.0, 0.5, 1.0 - 2**-32]


class Pauses:
    """The pauses that something has asked chance about: how long, and by which part each may be more or less."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, float]] = []

    def about(self, number: float, part: float) -> float:
        """What stands for `about`: no pause at all."""
        self.asked.append((number, part))
        return 0.0


@pytest.fixture
def pauses() -> Pauses:
    """What records pauses."""
    return Pauses()


@pytest.mark.parametrize(
    "chance, first, longest", [(CHANCES[0], 45, 750), (CHANCES[1], 60, 1000), (CHANCES[2], 75, 1250)]
)
def test_a_link_of_zeromq(monkeypatch: pytest.MonkeyPatch, chance: float, first: int, longest: int) -> None:
    """The times between attempts that ZeroMQ is told differ from connection to connection, by a quarter either way."""
    told: dict[int, object] = {}
    really = zmq.Socket.set

    def tell(socket: "zmq.Socket[bytes]", option: int, value: Any) -> None:
        told[option] = value
        really(socket, option, value)

    monkeypatch.setattr("transport.chance.chance", lambda: chance)
    monkeypatch.setattr(zmq.Socket, "set", tell)
    link = connect(f"tcp://127.0.0.1:{free_port()}")
    with link.lock:
        link.close()
    assert (told[zmq.RECONNECT_IVL], told[zmq.RECONNECT_IVL_MAX]) == (first, longest)


def test_a_native_link(monkeypatch: pytest.MonkeyPatch, pauses: Pauses) -> None:
    """The pause before each round doubles, up to a second, and varies by a quarter either way."""
    monkeypatch.setattr("transport.native_link.client.about", pauses.about)
    endpoint = f"native+tcp://127.0.0.1:{free_port()}"
    with Client(endpoint, connect_timeout=LIMIT) as client:
        client.bind("nothing").begin.begin()  # Who waits has the network driven.
        wait_until(lambda: len(pauses.asked) >= 7)
    assert pauses.asked[:7] == [(length, 0.25) for length in (0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0)]


class Twice(Interface, id="tests.Jitter"):
    """What is served."""

    @operation(idempotent=True)
    def again(self) -> int:
        """Return a number."""


def test_calls_that_are_sent_again(monkeypatch: pytest.MonkeyPatch, pauses: Pauses, endpoint: str) -> None:
    """An idempotent call backs off for longer and longer, which varies by half either way."""
    monkeypatch.setattr("engine.rpc.client.retry.about", pauses.about)
    with RawServer(endpoint) as raw, Client(raw.endpoint, connect_timeout=LIMIT) as client:
        call = client.bind(Twice).again.begin()
        for _ in range(4):
            raw.greet()
            raw.hear()
            raw.say(Bye(0, "it may have run"))
        assert status_of(partial(call.result, LIMIT)) == 1726
    assert pauses.asked == [(0.05, 0.5), (0.1, 0.5), (0.2, 0.5)]


def test_a_resolver_that_raises(monkeypatch: pytest.MonkeyPatch, pauses: Pauses) -> None:
    """A registry that cannot be asked is asked again after a pause that doubles, and varies by half either way."""
    monkeypatch.setattr("engine.rpc.client.resolver.about", pauses.about)

    class Failing:
        def run(self, discovery: Discovery) -> None:
            raise OSError("the registry is away")

    with Client(Failing()):
        wait_until(lambda: len(pauses.asked) >= 8)
    assert pauses.asked[:8] == [(length, 0.5) for length in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)]


def test_an_announcer_that_raises(monkeypatch: pytest.MonkeyPatch, pauses: Pauses, tmp_path: Any) -> None:
    """So is one that is to be told of a server."""
    monkeypatch.setattr("engine.rpc.server.announcing.about", pauses.about)

    class Failing:
        def announce(self, presence: Presence) -> None:
            if len(pauses.asked) < 6:
                raise OSError("the registry is away")
            presence.wait()

    with Server(new_endpoint("ipc", tmp_path), announce=Failing()) as server:
        server.listen()
        wait_until(lambda: len(pauses.asked) >= 6)
    assert pauses.asked == [(length, 0.5) for length in (0.5, 1.0, 2.0, 4.0, 8.0, 10.0)]


@pytest.mark.parametrize("chance", CHANCES[:2])
def test_a_loss_that_many_see(monkeypatch: pytest.MonkeyPatch, chance: float) -> None:
    """Clients of a server that was lost look for others not all at once: within a tenth of a second, by chance."""
    monkeypatch.setattr("engine.rpc.client.resolver.chance", lambda: chance)
    monkeypatch.setattr("engine.rpc.client.resolver.LOOK_JITTER", 20 * LIMIT)
    discovery = Discovery(lambda addresses: None)
    looked: list[bool] = []
    thread = threading.Thread(target=lambda: looked.append(discovery.wait()))
    thread.start()
    discovery.look()
    if not chance:
        thread.join(LIMIT)
        assert looked == [True]  # And if it has to wait, it does so still when it is closed.
    else:
        assert discovery.wait(0) is False
    discovery.close()
    thread.join(LIMIT)
    assert not thread.is_alive()


def test_members_that_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks members does so not at once again where nothing is new, nor when one is gone: a pause by chance."""
    drawn: list[float] = []

    def chance() -> float:
        drawn.append(0.0)
        return 0.0

    monkeypatch.setattr("engine.rpc.client.asking.chance", chance)
    routines = MembersRoutines()
    with Server("tcp://127.0.0.1:*") as server:
        server.register(Members, routines)
        server.listen()
        routines.update([Address(server.endpoint)])
        with following(Seed(server.endpoint, connect_timeout=0.5)) as found:
            found.wait_for(server.endpoint)
            assert drawn == []
            wait_until(partial(_answered, routines, drawn))
            before = len(drawn)
            routines.answer_all(closing=True)
            server.close(0)
            wait_until(lambda: len(drawn) > before)


def _answered(routines: MembersRoutines, drawn: list[float]) -> bool:
    routines.answer_all()
    return bool(drawn)
