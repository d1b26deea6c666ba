"""Clients and servers of both links over sockets, native and libzmq's, calling each other."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from engine import Server, WaitTimeout
from engine.testing import LIMIT, wait_until

from .helpers import Bench, limits, new_endpoint

Benches = Callable[..., Bench]


@pytest.fixture(params=["tcp", "ipc"])
def carrier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["native to libzmq", "libzmq to native"])
def across(
    request: pytest.FixtureRequest, carrier: str, folder: Path, local: Callable[..., Server], benches: Benches
) -> Benches:
    """A function that makes a client on one link of a server on the other, with the server's options."""
    client, _, server = request.param.partition(" to ")

    def make(**options: float) -> Bench:
        where = local(new_endpoint(f"native+{carrier}" if server == "native" else carrier, folder), **options).endpoint
        bare = where.removeprefix("native+")
        return benches(f"native+{bare}" if client == "native" else bare)

    return make


@pytest.fixture
def bench(across: Benches) -> Bench:
    """Such a client."""
    return across()


def test_calls(bench: Bench) -> None:
    """Calls, one by one and many at once, are answered; large values come back whole."""
    assert bench.probe.echo("small") == "small"
    calls = [bench.probe.echo.begin(number) for number in range(500)]
    assert [call.result(LIMIT) for call in calls] == list(range(500))
    for size in (1000, 64 << 10, 1 << 20, 20 << 20):
        value = os.urandom(size)
        assert bench.probe.echo(value) == value
    several = [os.urandom(size) for size in (70_000, 5 << 20, 300_000)] * 4
    calls = [bench.probe.echo.begin(value) for value in several]
    assert [call.result(LIMIT) for call in calls] == several
    assert bench.client.statistics().connections == 1


def test_a_fault_and_a_cancel(bench: Bench, key: str) -> None:
    """What is no value travels as well."""
    assert bench.failed(key).status() == 4711
    call = bench.held(f"{key}-2")
    call.cancel(abort=True)
    assert call.status() == 1818


def test_an_idle_client_stays(across: Benches) -> None:
    """No thread waits on the client's side for many of the server's heartbeats: PINGs are answered all the same."""
    for heartbeat in limits(0.1, 1.0):
        bench = across(heartbeat=heartbeat)
        assert bench.probe.echo("first") == "first"
        with suppress(WaitTimeout):
            wait_until(lambda: bench.client.statistics().connections != 1, 15 * heartbeat)  # noqa: B023  # in this turn
        assert bench.probe.echo("again") == "again"
        if bench.client.statistics().connections == 1:
            break
