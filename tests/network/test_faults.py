"""What two hosts know of each other while the network between them fails, and when."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from engine.testing import LIMIT, wait_until

from .namespaces import HOSTS, Lacking, Network, network

HEARTBEAT = 0.4  # Seconds; the default is 5.
DEFAULT_KNOWS = 15.0  # Seconds after which, by the default, both sides know at the earliest.

pytestmark = pytest.mark.untraced


class Two:
    """A server and a client, each on its host."""

    def __init__(self, net: Network, link: str) -> None:
        self.net = net
        self._link = link
        self._stack = ExitStack()
        self.server = self.start("server")
        self.client = self.start("client")

    def start(self, host: str, **options: Any) -> "subprocess.Popen[str]":
        endpoint = f"{self._link}://{HOSTS['server']}:5555"
        said = json.dumps({"heartbeat": HEARTBEAT, **options})
        process = self._stack.enter_context(self.net.start(host, "tests.network.agent", host, endpoint, said))
        self._stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline(), "it did not come up"
        return process

    def ask(self, process: "subprocess.Popen[str]", what: str = "") -> str:
        assert process.stdin is not None and process.stdout is not None
        print(what, file=process.stdin, flush=True)
        return process.stdout.readline().strip()

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module", params=["tcp", "native+tcp"])
def two(request: pytest.FixtureRequest) -> Iterator[Two]:
    with ExitStack() as stack:
        try:
            net = stack.enter_context(network())
        except Lacking as why:
            pytest.skip(f"no namespaces with networks can be made: {why}")
        made = Two(net, request.param)
        stack.callback(made.close)
        assert made.ask(made.client, "call") == "ok"
        yield made


@pytest.fixture(autouse=True)
def they_are_connected(two: Two) -> None:
    """As a test begins they are."""
    assert two.ask(two.client, "call") == "ok"
    wait_until(lambda: two.ask(two.server) == "1")


class TestCut:
    """Packets are dropped, and nobody is told."""

    @pytest.mark.parametrize("towards", [("client", "server"), ("client",), ("server",)], ids="-".join)
    def test_both_sides_know(self, two: Two, towards: tuple[str, ...]) -> None:
        """Whichever direction is cut, both sides know after three heartbeats or so: the call that waits ends as one
        that may have run, the server has no client any more. Once the network is whole again, calls are answered.
        """
        assert two.ask(two.client, "hold") == "begun"
        two.net.drop(*towards)
        how, seconds = two.ask(two.client, "held").split()
        assert how == "CallFailed" and float(seconds) < DEFAULT_KNOWS
        wait_until(lambda: two.ask(two.server) == "0")
        two.net.heal(*towards)
        assert two.ask(two.client, "call") == "ok"
        assert two.ask(two.server) == "1"

    def test_a_short_one(self, two: Two) -> None:
        """One that is over before that is made good by the network: nothing is lost."""
        assert two.ask(two.client, "hold") == "begun"
        while True:
            began = time.monotonic()
            two.net.drop("client", "server")
            two.net.heal("client", "server")
            if time.monotonic() < began + 2:  # Else the machine was too slow for a short one.
                break
            wait_until(lambda: two.ask(two.client, "call") == "ok")
        assert two.ask(two.client, "call") == "ok"
        assert two.ask(two.server) == "1"


class TestHalfOpen:
    """One side is gone, and the other was not told."""

    def test_the_server(self, two: Two) -> None:
        """The client knows as after a cut, and comes to the next server."""
        assert two.ask(two.client, "hold") == "begun"
        two.net.drop("client")
        two.server.kill()
        two.server.wait(LIMIT)
        assert two.ask(two.client, "held").startswith("CallFailed")
        two.net.heal("client")
        two.server = two.start("server")
        assert two.ask(two.client, "call") == "ok"

    def test_the_client(self, two: Two) -> None:
        """The server knows as after a cut, and serves the next one."""
        two.net.drop("server")
        two.client.kill()
        two.client.wait(LIMIT)
        wait_until(lambda: two.ask(two.server) == "0")
        two.net.heal("server")
        two.client = two.start("client")
        assert two.ask(two.client, "call") == "ok"


class TestBadNetwork:
    """Packets come late, or not at all."""

    @pytest.mark.parametrize("how", [("delay", "150ms", "30ms"), ("loss", "10%")], ids=["delay", "loss"])
    def test_calls_are_answered(self, two: Two, how: tuple[str, ...]) -> None:
        """Calls are answered, and the connection stays."""
        try:
            two.net.worsen(*how)
        except Lacking as why:
            pytest.skip(f"this kernel cannot delay or lose packets: {why}")
        for _ in range(20):
            assert two.ask(two.client, "call") == "ok"
        assert two.ask(two.server) == "1"
