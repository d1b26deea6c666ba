"""The clients of a busy server move as their table says: each move is recorded while real clients call."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from engine import Server, blocking
from engine.pool.dispatch import WorkPort
from engine.rpc.server.turns import TRANSITIONS, ClientState, ClientTurns
from engine.testing import LIMIT
from tests.rpc.helpers import Bench

ALLOWED = {(before, after) for before, _, after in TRANSITIONS}


class Recorder:
    """The moves that were seen, each noted just before others can see it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[ClientTurns, ClientState] = {}
        self.moves: set[tuple[ClientState, ClientState]] = set()

    def note(self, turns: ClientTurns, state: ClientState) -> None:
        with self._lock:
            before = self._states.get(turns, ClientState.IDLE)
            self._states[turns] = state
            if before is not state:
                self.moves.add((before, state))


class Routines:
    def quick(self, number: int) -> int:
        return number

    def slow(self, number: int) -> int:
        time.sleep(0.001)  # It is what the routine does: nothing waits for it to have passed.
        return number

    def block(self, number: int) -> int:
        with blocking():
            return number


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    real_init, real_owner, port_init = ClientTurns.__init__, ClientTurns.__dict__["owner"], WorkPort.__init__

    class Idle(list[None]):
        turns: ClientTurns

        def append(self, token: None) -> None:
            recorder.note(self.turns, ClientState.IDLE)
            super().append(token)

        def extend(self, tokens: Iterable[None]) -> None:
            for token in tokens:
                self.append(token)

    class Ring(deque[Any]):
        def append(self, turns: Any) -> None:
            recorder.note(turns, ClientState.READY)
            super().append(turns)

        def extend(self, several: Iterable[Any]) -> None:
            for turns in several:
                self.append(turns)

    class Owner:
        def __get__(self, turns: ClientTurns, kind: type | None = None) -> Any:
            return real_owner.__get__(turns, kind)

        def __set__(self, turns: ClientTurns, owner: Any) -> None:
            if owner is not None:
                recorder.note(turns, ClientState.OWNED)
            real_owner.__set__(turns, owner)

    def init(self: Any, *args: Any) -> None:
        real_init(self, *args)
        self._idle = Idle(self._idle)
        self._idle.turns = self

    def make_port(self: Any, *args: Any, **more: Any) -> None:
        port_init(self, *args, **more)
        self.ring = Ring()

    monkeypatch.setattr(ClientTurns, "__init__", init)
    monkeypatch.setattr(ClientTurns, "owner", Owner())
    monkeypatch.setattr(WorkPort, "__init__", make_port)
    return recorder


def test_a_busy_server(recorder: Recorder, local: Callable[..., Server], benches: Callable[..., Bench]) -> None:
    """While clients have quick, slow and blocking calls run, no move is seen that is not in the table."""
    server = local(workers=3)
    server.register("busy", Routines())
    bindings = [benches(server.endpoint).client.bind("busy") for _ in range(3)]
    calls = [
        (number, getattr(binding, name).begin(number))
        for number in range(60)
        for binding in bindings
        for name in ("quick", "slow", "quick", "block", "quick")
    ]
    assert [call.result(LIMIT) for _, call in calls] == [number for number, _ in calls]
    assert recorder.moves <= ALLOWED
    assert recorder.moves == {(before, after) for before, after in ALLOWED if before is not after}
