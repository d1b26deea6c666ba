"""Flow control: a slow reader bounds what a fast writer and the connection hold. PROTOCOL.md, "Pipes"."""

from collections.abc import Iterator
from typing import Any

import pytest

from engine import CompletionPort, EventKind, InvalidParameter, PipePending, Server
from engine.testing import LIMIT, wait_until
from transport.frames import PIPE_WINDOW_BYTES

from ..helpers import status_of
from .conftest import Piped

WINDOW = PIPE_WINDOW_BYTES
BLOCK = 16 * 1024
BOUND = WINDOW // BLOCK + 2  # Blocks: a window's worth, the one that passes it, and the one being pushed.


def fill(pipe: Any, elements: list[int]) -> int:
    """Push until there is no room; return how often."""
    count = 0
    while True:
        try:
            pipe.push(elements)
        except PipePending:
            return count
        count += 1


class TestWindow:
    """What may be pushed ahead of what is pulled."""

    def test_a_server_stops_for_a_slow_client(self, piped: Piped) -> None:
        """A generator is not run further than a window ahead of what the client has pulled."""
        call = piped.streams.swell.begin(BLOCK)
        wait_until(lambda: piped.aside.swelled() >= WINDOW // BLOCK)
        pipe = call.pipe("blocks")
        pulled = 0
        for _ in range(200):
            pulled += len(pipe.pull_wait(1, LIMIT))
            assert piped.aside.swelled() <= pulled + BOUND
        call.cancel(abort=True)
        wait_until(lambda: piped.aside.swelled() == -1)

    def test_a_client_stops_for_a_slow_server(self, piped: Piped, key: str) -> None:
        """A push beyond the window says pending; when the server has pulled, there is room again."""
        call = piped.held("held_in", key)
        pipe = call.pipe("numbers")
        block = [100] * BLOCK
        first = fill(pipe, block)
        assert first <= BOUND
        taken = 0
        while taken < WINDOW // 2 + BLOCK:
            taken += len(piped.hand.pull_wait(key, "numbers", BLOCK))
        pipe.push_wait(block, LIMIT)
        assert 0 < fill(pipe, block) <= BOUND

    def test_an_iterable_is_not_run_ahead(self, far: Piped, key: str) -> None:
        """What is fed by the library waits for room as well."""
        yielded = 0

        def blocks() -> Iterator[int]:
            nonlocal yielded
            while True:
                yielded += 1
                yield yielded

        call = far.streams.held_in.begin(key, blocks())
        far.hand.arrived(key)
        # Each number is a chunk of four bytes or more, so that many fill the window.
        wait_until(lambda: yielded > WINDOW // 8)
        assert far.hand.pull_wait(key, "numbers", 3) == [1, 2, 3]
        assert yielded <= WINDOW // 2 + 10
        call.cancel(abort=True)

    def test_room_is_told(self, piped: Piped, key: str, port: CompletionPort) -> None:
        """A push that was refused is followed by send-complete as soon as there is room."""
        call = piped.held("held_in", key, notify=port)
        block = [100] * BLOCK
        fill(call.pipe("numbers"), block)
        assert port.statistics().posted == 0
        taken = 0
        while taken < WINDOW // 2 + BLOCK:
            taken += len(piped.hand.pull_wait(key, "numbers", BLOCK))
        assert port.get(LIMIT).event == EventKind.SEND_COMPLETE
        call.pipe("numbers").push(block)

    def test_sends_are_complete_when_the_next_would_be_taken(
        self, piped: Piped, key: str, port: CompletionPort
    ) -> None:
        """A push that uses up the window is complete when the server has made room."""
        call = piped.held("held_in", key, notify=port, send_complete=True)
        assert port.get(LIMIT).event == EventKind.SEND_COMPLETE
        call.pipe("numbers").push([100] * WINDOW)
        assert port.statistics().depth == 0
        taken = 0
        while taken < WINDOW:
            taken += len(piped.hand.pull_wait(key, "numbers", BLOCK))
        assert port.get(LIMIT).event == EventKind.SEND_COMPLETE
        assert port.statistics().depth == 0

    def test_one_push_may_be_larger_than_the_window(self, piped: Piped) -> None:
        """It is taken whole, and delivered."""
        call = piped.streams.total.begin(0)
        call.pipe("numbers").push([1] * (3 * WINDOW))
        call.pipe("numbers").push_wait([1], LIMIT)
        call.pipe("numbers").push([])
        assert call.result(LIMIT) == 3 * WINDOW + 1

    def test_the_end_needs_no_room(self, far: Piped, key: str) -> None:
        """The null push is taken whatever is on the way."""
        call = far.held("held_in", key)
        fill(call.pipe("numbers"), [100] * BLOCK)
        call.pipe("numbers").push([])
        assert status_of(call.complete) == 997

    def test_a_push_that_waits_in_vain(self, far: Piped, key: str) -> None:
        """With a time limit it says pending, and nothing was pushed."""
        call = far.held("held_in", key)
        fill(call.pipe("numbers"), [100] * BLOCK)
        assert status_of(lambda: call.pipe("numbers").push_wait([1], 0.001)) == 997

    def test_pipes_have_windows_of_their_own(self, far: Piped, key: str) -> None:
        """One full pipe stops no other call."""
        full = far.held("held_in", key)
        fill(full.pipe("numbers"), [100] * BLOCK)
        assert far.streams.total(1, range(1000)) == 1 + sum(range(1000))


class TestSettings:
    """The size of the windows."""

    def test_a_client_with_a_small_window(self, far: Piped, piped_clients: Any) -> None:
        """The server keeps to what the client said when it connected."""
        piped = piped_clients(far.client.endpoint, pipe_window=1000)
        call = piped.streams.swell.begin(100)
        pipe = call.pipe("blocks")
        pulled = 0
        for _ in range(100):
            pulled += len(pipe.pull_wait(1, LIMIT))
            assert piped.aside.swelled() <= pulled + 1000 // 100 + 2
        call.cancel(abort=True)

    def test_a_server_with_another_window(self, piped_service: Any, piped_clients: Any) -> None:
        """The client keeps to what the server said in its welcome."""
        piped = piped_clients(piped_service(pipe_window=4 * WINDOW).endpoint)
        call = piped.held("held_in", "wide")
        assert 3 * WINDOW // BLOCK < fill(call.pipe("numbers"), [100] * BLOCK) <= 4 * WINDOW // BLOCK + 2
        narrow = piped_clients(piped_service(pipe_window=1000).endpoint)
        call = narrow.held("held_in", "narrow")
        assert fill(call.pipe("numbers"), [100] * 100) <= 11

    @pytest.mark.parametrize("bad", [0, -1, 1.5, True, "1", None])
    def test_a_window_that_makes_no_sense(self, far: Piped, piped_clients: Any, bad: Any) -> None:
        """It is refused."""
        with pytest.raises(InvalidParameter, match="pipe_window"):
            piped_clients(far.client.endpoint, pipe_window=bad)
        with pytest.raises(InvalidParameter, match="pipe_window"):
            Server("loopback://unused", pipe_window=bad)
