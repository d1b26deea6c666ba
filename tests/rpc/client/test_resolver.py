"""Resolvers and what they are given: whole lists, early looks, failures, the end."""

import threading
from collections.abc import Iterator

import msgspec
import pytest

from engine import Address, Discovery, InvalidArgumentType, InvalidParameter
from engine.testing import LIMIT, wait_until
from transport import Curve, EndpointError

from ..helpers import untyped


class TestAddress:
    def test_a_value(self) -> None:
        """An address is a value: it compares, hashes and is encoded by its fields."""
        address = Address("tcp://10.0.0.1:5555", zone="eu-1a", weight=2)
        assert address == Address("tcp://10.0.0.1:5555", "eu-1a", 2.0)
        assert len({address, Address("tcp://10.0.0.1:5555", "eu-1a", 2.0)}) == 1
        assert msgspec.json.decode(msgspec.json.encode(address), type=Address) == address

    @pytest.mark.parametrize("endpoint", ["tcp://*:5555", "tcp://127.0.0.1:0", "ipc://*", "words:5555"])
    def test_nowhere_to_connect_to(self, endpoint: str) -> None:
        """What is good to bind only, or no endpoint, is refused."""
        with pytest.raises(EndpointError):
            Address(endpoint)

    @pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
    def test_a_weight_that_is_none(self, weight: float) -> None:
        """A weight is a number of more than 0; the error names it."""
        with pytest.raises(InvalidParameter, match="weight"):
            Address("tcp://10.0.0.1:5555", weight=weight)
        with pytest.raises(InvalidParameter, match="weight"):
            Address("tcp://10.0.0.1:5555", weight=untyped("2"))

    def test_keys(self) -> None:
        """An address that has a server's key puts it into its client's; without one, or for a client without keys,
        nothing changes.
        """
        public, _ = Curve.new_keys()
        own = Curve(*Curve.new_keys(), server_key=Curve.new_keys()[0])
        assert Address("tcp://10.0.0.1:5555", server_key=public).keys_of(own) == msgspec.structs.replace(
            own, server_key=public
        )
        assert Address("tcp://10.0.0.1:5555").keys_of(own) is own
        assert Address("tcp://10.0.0.1:5555", server_key=public).keys_of(None) is None


class TestDiscovery:
    @pytest.fixture
    def lists(self) -> list[list[Address]]:
        """What was accepted."""
        return []

    @pytest.fixture
    def discovery(self, lists: list[list[Address]]) -> Iterator[Discovery]:
        """One whose lists go there."""
        made = Discovery(lists.append)
        yield made
        made.close()

    def test_whole_lists(self, discovery: Discovery, lists: list[list[Address]]) -> None:
        """A list of endpoints and addresses is taken as a whole; of one that stands twice the last counts."""
        discovery.update(["tcp://10.0.0.1:1", Address("tcp://10.0.0.2:1"), Address("tcp://10.0.0.1:1", zone="near")])
        assert lists == [[Address("tcp://10.0.0.1:1", zone="near"), Address("tcp://10.0.0.2:1")]]

    def test_an_empty_list(self, discovery: Discovery, lists: list[list[Address]]) -> None:
        """A list without a server changes nothing."""
        discovery.update([])
        assert lists == []

    @pytest.mark.parametrize("wrong", ["tcp://10.0.0.1:1", 7, [7]])
    def test_what_is_no_list(self, discovery: Discovery, lists: list[list[Address]], wrong: object) -> None:
        """What is no list of addresses is refused, and nothing of it is taken."""
        with pytest.raises(InvalidArgumentType):
            discovery.update(untyped(wrong))
        assert lists == []

    def test_waiting(self, discovery: Discovery) -> None:
        """A wait ends after its time, and earlier if a server was lost: once for each look, whenever that was."""
        assert discovery.wait(0) is False
        discovery.look()
        discovery.look()
        assert discovery.wait(LIMIT) is True
        assert discovery.wait(0.01) is False

    def test_the_end(self, discovery: Discovery) -> None:
        """The end of the client ends a wait, and calls what wanted to know, once; later at once."""
        called: list[str] = []
        discovery.on_close(lambda: called.append("first"))
        ended: list[bool] = []
        thread = threading.Thread(target=lambda: ended.append(discovery.wait()))
        thread.start()
        discovery.close()
        discovery.close()
        thread.join(LIMIT)
        discovery.on_close(lambda: called.append("second"))
        assert (ended, called, discovery.closed) == ([True], ["first", "second"], True)
        wait_until(lambda: not thread.is_alive(), what="the thread ends")

    def test_after_the_end(self, discovery: Discovery, lists: list[list[Address]]) -> None:
        """A list that comes after the end is passed over."""
        discovery.close()
        discovery.update(["tcp://10.0.0.1:1"])
        assert lists == []
