"""A server and the registry that announces it, whichever that is."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import pytest

from engine import Address, InvalidArgumentType, InvalidParameter, Presence, Server
from engine.testing import LIMIT, Gate, wait_until
from transport import EndpointError


class Board:
    """A registry in memory."""

    def __init__(self) -> None:
        self.addresses: list[Address] = []
        self.asked: SimpleQueue[Presence] = SimpleQueue()
        self.failures = 0
        self.leaving: Callable[[], object] = lambda: None

    def announce(self, presence: Presence) -> None:
        self.asked.put(presence)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the board is not there")
        self.addresses.append(presence.address)
        while not presence.wait(0.01):
            pass
        assert presence.wait(0) and presence.wait()
        self.leaving()
        self.addresses.remove(presence.address)


@contextmanager
def serving(board: Any, endpoint: str = "tcp://127.0.0.1:*", **options: Any) -> Iterator[Server]:
    """A server that listens."""
    with Server(endpoint, announce=board, insecure=True, **options) as server:
        server.listen()
        yield server


class TestAnnouncing:
    """From `listen` until it stops."""

    def test_while_it_listens(self) -> None:
        """It is announced once it listens, with the port that it has, and was withdrawn when `close` returns."""
        board = Board()
        with Server("tcp://127.0.0.1:*", announce=board) as server:
            assert board.asked.empty()
            server.listen()
            wait_until(lambda: board.addresses)
            assert board.addresses == [Address(server.endpoint)]
        assert board.addresses == []

    def test_leaving_comes_first(self) -> None:
        """While a server that closes is being withdrawn it still takes calls."""
        board, gate, seen = Board(), Gate(is_open=True), list[bool]()
        with serving(board) as server:
            wait_until(lambda: board.addresses)
            board.leaving = lambda: (seen.append(server.listening), gate.pass_through())
        assert seen == [True]

    def test_stop(self) -> None:
        """A server that stops leaves, without `stop` waiting for that; when it listens again it is back."""
        board, gate = Board(), Gate()
        with serving(board) as server:
            wait_until(lambda: board.addresses)
            board.leaving = gate.pass_through
            server.stop()
            assert board.addresses
            gate.open()
            wait_until(lambda: not board.addresses)
            assert server.wait(LIMIT)
            server.listen()
            wait_until(lambda: board.addresses)

    def test_a_registry_that_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What it raises changes nothing for the server, and it is asked again."""
        monkeypatch.setattr("engine.rpc.server.announcing.FIRST_PAUSE", 0.001)
        board = Board()
        board.failures = 3
        with serving(board) as server:
            wait_until(lambda: board.addresses)
            assert server.listening
        assert board.addresses == []

    def test_no_thread_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """While the system refuses the thread that it takes, the server serves; it is announced when there is one."""
        refused: list[str] = []
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if thread.name == "engine:announcing" and len(refused) < 4:
                refused.append(thread.name)
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)
        board = Board()
        with serving(board) as server:
            assert refused and server.listening
            wait_until(lambda: board.addresses)
        assert len(refused) == 4 and board.addresses == []

    def test_a_registry_that_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that does not come to an end holds up `close` for a limit."""
        board, gate = Board(), Gate()
        board.leaving = gate.pass_through
        try:
            with serving(board) as server:
                wait_until(lambda: board.addresses)
                server.close(0.01)
            assert board.addresses
        finally:
            gate.open()

    def test_one_that_never_listened(self) -> None:
        """A server that did not listen is never announced."""
        board = Board()
        with Server("tcp://127.0.0.1:*", announce=board):
            pass
        assert board.asked.empty()


class TestWhere:
    """Which address is announced."""

    @pytest.mark.parametrize("endpoint", ["tcp://*:*", "tcp://0.0.0.0:5555", "tcp://[::]:5555", "native+tcp://*:*"])
    def test_every_address(self, endpoint: str) -> None:
        """One that is every address of the machine is none to announce: the error says what to do."""
        with pytest.raises(InvalidParameter, match=r"advertise='tcp://HOST:\*'"):
            Server(endpoint, announce=Board())

    def test_in_one_process(self) -> None:
        """Nobody else reaches a loopback endpoint."""
        with pytest.raises(InvalidParameter, match="this process only"):
            Server("loopback://announced", announce=Board())

    def test_the_bound_port(self) -> None:
        """`*` in what is advertised is the port that was bound."""
        board = Board()
        with serving(board, "tcp://*:*", advertise="tcp://words.example.com:*") as server:
            wait_until(lambda: board.addresses)
            port = server.endpoint.rpartition(":")[2]
            assert board.addresses == [Address(f"tcp://words.example.com:{port}")]

    def test_an_address(self) -> None:
        """An `Address` is announced as it is."""
        board, address = Board(), Address("tcp://10.0.0.7:5555", zone="eu-1a", weight=2)
        with serving(board, advertise=address):
            wait_until(lambda: board.addresses)
            assert board.addresses == [address]

    def test_no_address(self) -> None:
        """What is no endpoint, or no registry, is refused as the server is made."""
        with pytest.raises(EndpointError):
            Server("tcp://127.0.0.1:*", announce=Board(), advertise="words")
        with pytest.raises(InvalidArgumentType, match="announce"):
            Server("tcp://127.0.0.1:*", announce=7)  # type: ignore[arg-type]  # wrong on purpose
