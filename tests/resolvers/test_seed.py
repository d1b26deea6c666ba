"""Servers that the members of a fleet tell of."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine import Address, InvalidParameter, Server
from engine.resolvers import Members, MembersRoutines, Seed
from engine.testing import LIMIT, wait_until
from transport import EndpointError

from .following import following

ONE, TWO = Address("tcp://127.0.0.2:1", zone="near"), Address("tcp://127.0.0.3:1", weight=2)


@contextmanager
def member(*addresses: Address) -> Iterator[tuple[Server, MembersRoutines]]:
    """A server that tells of these."""
    routines = MembersRoutines()
    routines.update(addresses)
    with Server("tcp://127.0.0.1:*", "tcp://127.0.0.1:*") as server:
        server.register(Members, routines)
        server.listen()
        try:
            yield server, routines
        finally:
            routines.answer_all(closing=True)


class TestSeed:
    """Whoever knows a member finds all."""

    def test_changes_are_told(self) -> None:
        """The list comes at once, and again when it changes; an empty one changes nothing."""
        with member(ONE) as (server, routines), following(Seed(server.endpoint)) as found:
            found.wait_for(ONE.endpoint)
            routines.update([])
            routines.update([ONE, TWO])
            found.wait_for(ONE.endpoint, TWO.endpoint)
            assert set(found.lists[-1]) == {ONE, TWO}

    def test_nothing_new(self) -> None:
        """A member that answers though nothing has changed is asked again, and the client hears nothing of it."""
        with member(ONE) as (server, routines), following(Seed(server.endpoint)) as found:
            found.wait_for(ONE.endpoint)

            def asked_again() -> bool:
                routines.answer_all()
                return server.statistics().calls_in > 3

            wait_until(asked_again)
            assert found.lists == [[ONE]]

    def test_every_address(self) -> None:
        """A member that listens on every address of its machine is reached where the one that tells of it was."""
        everywhere = [Address("tcp://0.0.0.0:7"), Address("tcp://[::]:8"), ONE]
        with member(*everywhere) as (server, _), following(Seed(server.endpoint)) as found:
            found.wait_for("tcp://127.0.0.1:7", "tcp://127.0.0.1:8", ONE.endpoint)

    def test_a_member_that_leaves(self) -> None:
        """When the one that is asked is gone another one is, whether it is a seed or was told of."""
        with member(TWO) as (last, _):
            with member(ONE, Address(last.endpoint)) as (first, _), following(Seed(first.endpoint)) as found:
                found.wait_for(ONE.endpoint, last.endpoint)
                first.close(0)
                found.wait_for(TWO.endpoint)

    def test_none_answers(self) -> None:
        """Without a member that answers, or one that is of a fleet, `run` raises; it is called again then."""
        with Server("tcp://127.0.0.1:*") as alone:
            alone.listen()
            with following(Seed("tcp://127.0.0.1:1", alone.endpoint, connect_timeout=0.05)) as found:
                wait_until(lambda: found.raised)
                assert "no member of Seed(" in str(found.raised)

    def test_the_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The end of the client ends the call that waits for news, however long that would wait."""
        monkeypatch.setattr("engine.rpc.client.asking.PATIENCE", 10 * LIMIT)
        with member(ONE) as (server, _):
            with following(Seed(server.endpoint)) as found:
                wait_until(lambda: found.lists and server.statistics().active == 1)
            assert found.raised is None  # `following` has seen the thread end.

    def test_arguments(self) -> None:
        """A seed has an endpoint at least, to connect to."""
        with pytest.raises(InvalidParameter):
            Seed()
        with pytest.raises(EndpointError):
            Seed("tcp://*:5555")
