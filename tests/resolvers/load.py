"""Calls from several threads, each of them accounted for, while servers come and go."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from engine import Client, EngineError, Resolver
from engine.testing import LIMIT, wait_until

from .contract import Adder

CALLERS = 4


class Load:
    """What became of the calls."""

    def __init__(self) -> None:
        # Each thread adds to its own place.
        self.answered = [0] * CALLERS
        self.failed: list[BaseException] = []
        self.over = False

    def go_on(self, calls: int = 100) -> None:
        """Wait until so many more calls were answered."""
        goal = sum(self.answered) + calls
        wait_until(lambda: sum(self.answered) >= goal or self.failed, what="calls are answered")
        assert self.failed == []


@contextmanager
def load(resolver: Resolver) -> Iterator[tuple[Load, Client]]:
    """Call the servers of a resolver; at the end none has failed."""
    state = Load()

    def call(place: int) -> None:
        number = 0
        while not state.over:
            number += 1
            try:
                assert numbers.add(number, place) == number + place
            except (EngineError, AssertionError) as error:
                state.failed.append(error)
                return
            state.answered[place] += 1

    with Client(resolver, connect_timeout=LIMIT, timeout=LIMIT, heartbeat=0.3) as client:
        numbers = client.bind(Adder, causal=False)
        threads = [threading.Thread(target=call, args=(place,)) for place in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield state, client
        finally:
            state.over = True
            for thread in threads:
                thread.join(LIMIT)
        assert state.failed == []
        assert client.statistics().outstanding == 0
        assert client.statistics().calls_finished == client.statistics().calls_begun == sum(state.answered)


class Adding:
    """A server in a process of its own."""

    def __init__(self, endpoint: str, *registry: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.resolvers.adding", endpoint, *registry],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.endpoint = self.process.stdout.readline().strip()

    def drain(self) -> None:
        """Have it leave in good order, and wait for that."""
        self.process.communicate("", LIMIT)
        assert self.process.returncode == 0

    def kill(self) -> None:
        """Have it die."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def ending(*servers: Adding) -> Iterator[None]:
    """Kill what is left of them."""
    try:
        yield
    finally:
        for server in servers:
            server.kill()
