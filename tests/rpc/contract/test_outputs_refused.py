"""Buffers and objects that cannot do what they are given for: refused where they are given."""

from typing import Any

import pytest

from engine import Client, InOut, Interface, InvalidArgumentType, InvalidParameter, Out, Server

numpy = pytest.importorskip("numpy")


class Camera(Interface, id="example.Camera"):
    def grab(self, frame: Out[numpy.ndarray]) -> None: ...  # type: ignore[name-defined]  # where it is installed
    def scramble(self, frame: InOut[numpy.ndarray]) -> None: ...  # type: ignore[name-defined]  # likewise


@pytest.mark.parametrize("items", [object, [("x", "f4")], [("x", object)]])
@pytest.mark.parametrize("name", ["grab", "scramble"])
def test_arrays_that_do_not_travel(name: str, items: Any) -> None:
    """An output array whose items do not travel is refused by the client, whether there is a server or not."""
    with Client("loopback://nobody-grabs") as client:
        with pytest.raises(InvalidArgumentType, match="'frame'.*cannot travel"):
            getattr(client.bind(Camera), name)(numpy.zeros(3, items))


@pytest.mark.parametrize("thing", [{}, [], set(), "text", 5, bytearray(), 1.5])
def test_objects_that_nobody_wrote_for_clients(thing: Any) -> None:
    """An object of a class of Python's own is not served by name: `clear` and `pop` are not meant for clients."""
    with Server("loopback://builtins") as server:
        with pytest.raises(InvalidParameter, match="class of yours"):
            server.register("things", thing)


def test_objects_of_derived_classes() -> None:
    """One of a class that derives from such a class is: its author has decided so."""

    class Prices(dict[str, int]):
        def price(self, name: str) -> int:
            return self[name]

    with Server("loopback://builtins") as server, Client("loopback://builtins") as client:
        server.register("prices", Prices(tea=3))
        server.listen()
        assert client.bind("prices").price("tea") == 3
