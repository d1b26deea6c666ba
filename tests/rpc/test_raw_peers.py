"""Peers that somebody wrote from PROTOCOL.md, in an afternoon, on plain pyzmq: with ours, and with each other."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import Client, RemoteFault, Server
from engine.testing import LIMIT, wait_until

from .raw_peers import CallError, RawClient, RawServer


def look_up(word: str) -> list[str]:
    return {"quick": ["fast", "swift"]}[word]


FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("words", "synonyms"): look_up,
    ("words", "same"): lambda value: value,
}


class Words:
    """The same, for our server."""

    def synonyms(self, word: str) -> list[str]:
        return look_up(word)

    def same(self, value: Any) -> Any:
        return value


class Running:
    """A raw server in a thread of its own."""

    def __init__(self, endpoint: str) -> None:
        self.server = RawServer(endpoint, FUNCTIONS)
        self.endpoint = self.server.endpoint
        self._dismiss = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.server.step(20)
            if self._dismiss.is_set():
                self.server.dismiss()
                self._dismiss.clear()
        self.server.close()

    def dismiss(self) -> None:
        """Dismiss all clients, and return when that was done."""
        self._dismiss.set()
        wait_until(lambda: not self._dismiss.is_set())

    def close(self) -> None:
        self._stop.set()
        self._thread.join(LIMIT)


@pytest.fixture
def running(folder: Path) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def run(endpoint: str = "tcp://127.0.0.1:*") -> Running:
        made.append(Running(endpoint))
        return made[-1]

    yield run
    for each in made:
        each.close()


@pytest.fixture
def client() -> Iterator[Callable[[str], RawClient]]:
    made: list[RawClient] = []

    def connect(endpoint: str) -> RawClient:
        made.append(RawClient(endpoint, LIMIT))
        return made[-1]

    yield connect
    for each in made:
        each.close()


def check(raw: RawClient) -> None:
    """Have results, faults and refusals."""
    assert raw.call("words", "synonyms", "quick") == ["fast", "swift"]
    with pytest.raises(CallError) as caught:
        raw.call("words", "synonyms", "slow")
    assert caught.value.args == (0xE0000001, "KeyError")
    with pytest.raises(CallError) as caught:
        raw.call("words", "none")
    assert caught.value.args[0] == 1745


@pytest.mark.parametrize("scheme", ["tcp", "native+tcp"])
def test_their_client(local: Callable[..., Server], client: Callable[[str], RawClient], scheme: str) -> None:
    """It calls our server of either link; large bytes come out of band."""
    server = local(f"{scheme}://127.0.0.1:*")
    server.register("words", Words())
    raw = client(server.endpoint.removeprefix("native+"))
    check(raw)
    assert raw.call("words", "same", bytes(300_000)) == bytes(300_000)
    assert server.statistics().garbage_received == 0


def test_their_client_stays(local: Callable[..., Server], client: Callable[[str], RawClient], folder: Path) -> None:
    """It goes on with the server that takes the place of the first, over the socket that it has."""
    first = local(f"ipc://{folder}/stays")
    first.register("words", Words())
    raw = client(first.endpoint)
    check(raw)
    first.close(0)
    second = local(f"ipc://{folder}/stays")
    second.register("words", Words())
    with pytest.raises(CallError) as caught:
        raw.call("words", "same", 1)
    assert caught.value.args[0] == 1726
    check(raw)


@pytest.mark.parametrize("scheme", ["tcp", "native+tcp"])
def test_their_server(running: Callable[..., Running], scheme: str) -> None:
    """Our client, of either link, calls it, many at once; a dismissed client comes again."""
    their = running()
    with Client(their.endpoint.replace("tcp", scheme, 1), connect_timeout=LIMIT) as ours:
        words = ours.bind("words")
        assert words.synonyms("quick") == ["fast", "swift"]
        begun = [words.same.begin(number) for number in range(500)]
        assert [call.result(LIMIT) for call in begun] == list(range(500))
        with pytest.raises(RemoteFault, match="slow"):
            words.synonyms("slow")
        assert words.same(bytes(300_000)) == bytes(300_000)
        their.dismiss()
        wait_until(lambda: ours.statistics().connections == 2)
        assert words.synonyms("quick") == ["fast", "swift"]
        assert ours.statistics().garbage_received == 0


def test_each_other(running: Callable[..., Running], client: Callable[[str], RawClient]) -> None:
    """They call each other; a dismissed client goes on over the socket that it has."""
    their = running()
    raw = client(their.endpoint)
    check(raw)
    their.dismiss()
    with pytest.raises(CallError):
        raw.call("words", "same", 1)
    check(raw)
