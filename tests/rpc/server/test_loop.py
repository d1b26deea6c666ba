"""The server's event loop belongs to the server: what a routine does to it ends that routine's call at the most."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from engine import CallError, CallFailed, Client, Interface, RemoteFault, Server, Status, operation
from engine.testing import LIMIT


class Probe(Interface, id="test.Loop"):
    """Routines that do not behave."""

    @operation
    def echo(self, value: int) -> int:
        """Return the value."""

    @operation
    def stop(self) -> int:
        """Stop the loop, and return 1."""

    @operation
    def leave(self, kind: str) -> int:
        """Raise an exception of that kind."""

    @operation
    def leave_by_task(self, kind: str) -> int:
        """Have a task raise an exception of that kind, and return 2."""

    @operation
    def misdirect(self) -> int:
        """Give the loop a task factory that makes no tasks, and return 3."""

    @operation
    def destroy(self) -> int:
        """Destroy what the loop polls by, and wait."""


KINDS: dict[str, type[BaseException]] = {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}


class Routines:
    """The routines of `Probe`."""

    async def echo(self, value: int) -> int:
        await asyncio.sleep(0)
        return value

    async def stop(self) -> int:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        return 1

    async def leave(self, kind: str) -> int:
        raise KINDS[kind]

    async def leave_by_task(self, kind: str) -> int:
        async def leave() -> None:
            raise KINDS[kind]

        task = asyncio.get_running_loop().create_task(leave())
        await asyncio.wait([task])
        assert task.exception() is not None
        return 2

    async def misdirect(self) -> int:
        def refuse(loop: object, coroutine: Any, **named: object) -> None:
            coroutine.close()

        asyncio.get_running_loop().set_task_factory(refuse)  # type: ignore[arg-type]  # it makes no tasks
        return 3

    async def destroy(self) -> int:
        def fail(timeout: float | None = None) -> None:
            raise OSError("destroyed")

        asyncio.get_running_loop()._selector.select = fail  # type: ignore[attr-defined]  # there for the test only
        await asyncio.sleep(LIMIT)  # The loop is to have ended by then.
        return 3


@pytest.fixture
def probe() -> Iterator[Probe]:
    """A served probe; its server closes in good order afterwards."""
    with Server("tcp://127.0.0.1:0", workers=1) as server:
        server.register(Probe, Routines())
        server.listen()
        with Client(server.endpoint, timeout=LIMIT) as client:
            yield client.bind(Probe)


def test_a_routine_that_stops_the_loop(probe: Probe) -> None:
    """The loop goes on: that routine ends as it would, and later ones are served."""
    assert probe.stop() == 1
    assert probe.echo(5) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_routine_that_exits(probe: Probe, kind: str) -> None:
    """Its call ends with a fault that names what it raised, and later ones are served."""
    with pytest.raises(RemoteFault, match=kind):
        probe.leave(kind)
    assert probe.echo(5) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_exits(probe: Probe, kind: str) -> None:
    """The loop goes on, with the routine that waits for the task too."""
    assert probe.leave_by_task(kind) == 2
    assert probe.echo(5) == 5


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_loop_that_cannot_be_had(probe: Probe, error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised by what makes event loops refuses the call, and that call only."""
    real, errors = asyncio.new_event_loop, [error("no loop")]

    def make() -> asyncio.AbstractEventLoop:
        if errors:
            raise errors.pop()
        return real()

    monkeypatch.setattr("asyncio.new_event_loop", make)
    with pytest.raises(CallError) as caught:
        probe.echo(1)
    assert caught.value.status == Status.SERVER_TOO_BUSY
    assert probe.echo(5) == 5


def test_something_that_is_no_loop(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes event loops, and gives something else, refuses the call."""
    monkeypatch.setattr("asyncio.new_event_loop", object)
    with pytest.raises(CallError) as caught:
        probe.echo(1)
    assert caught.value.status == Status.SERVER_TOO_BUSY
    monkeypatch.undo()
    assert probe.echo(5) == 5


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_loop_that_cannot_be_set(probe: Probe, error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that refuses the loop as the thread's own does not keep it from serving."""

    def refuse(loop: object) -> None:
        raise error("not this one")

    monkeypatch.setattr("asyncio.set_event_loop", refuse)
    assert probe.echo(5) == 5


def test_a_task_factory_that_makes_no_tasks(probe: Probe) -> None:
    """Calls for whose routines there are no tasks end with 1726."""
    assert probe.misdirect() == 3
    for _ in range(2):
        with pytest.raises(CallFailed):
            probe.echo(5)


def test_a_loop_that_cannot_go_on(probe: Probe) -> None:
    """Its calls end with `CallFailed`, and later calls get another loop."""
    with pytest.raises(CallFailed):
        probe.destroy()
    for value in range(3):
        try:
            assert probe.echo(value) == value
        except CallError as error:  # It came before the old loop was seen to have failed.
            assert isinstance(error, CallFailed)
    assert probe.echo(5) == 5


def test_closing_a_server_whose_loop_was_stopped() -> None:
    """A server closes though a routine stopped its loop just before, and the calls that wait end."""
    with Server("tcp://127.0.0.1:0", workers=1) as server:
        server.register(Probe, Routines())
        server.listen()
        with Client(server.endpoint, timeout=LIMIT) as client:
            bound = client.bind(Probe)
            assert bound.stop() == 1
            server.close(0.0)
            with pytest.raises(CallError):
                bound.echo(1, timeout=0.1)  # There is no server any more.


def test_what_routines_left_half_run() -> None:
    """An asynchronous generator that a routine has left in the midst is ended with the loop: its `finally` runs there,
    awaiting included.
    """
    ended: list[str] = []
    kept: list[object] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            ended.append("in the loop")

    class Keeping:
        async def keep(self) -> int:
            kept.append(numbers())
            return await anext(kept[-1])  # type: ignore[call-overload,no-any-return]  # it is one

    with Server("loopback://test-loop-half") as server:
        server.register("keeping", Keeping())
        server.listen()
        with Client("loopback://test-loop-half") as client:
            assert client.bind("keeping").keep() == 1
        assert ended == []
    assert ended == ["in the loop"]
