"""Generic contracts: what stands for their type variables is said where another contract derives from them."""

from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import pytest

from engine import Client, Interface, InvalidArgumentType, InvalidParameter, Server, operation

from ..helpers import untyped

K = TypeVar("K")
T = TypeVar("T")
U = TypeVar("U")


@dataclass
class Point:
    x: int
    y: int


class Repository(Interface, Generic[K, T]):
    """A contract with two variables."""

    @operation
    def get(self, key: K) -> T: ...
    def put(self, key: K, value: T | None, rest: "Annotated[list[T], 'a remark']") -> "dict[K, T]": ...


class ByName(Repository[str, U], Generic[U]):
    """One of them is said; the other goes by another name."""

    def names(self) -> list[str]: ...


class Points(ByName["Point"], id="example.Points"):
    """All are said, one by a text."""


class Served:
    """An implementation of `Points`."""

    def get(self, key: str) -> Any:
        return Point(1, len(key))

    def put(self, key: str, value: Any, rest: Any) -> Any:
        assert value is None or type(value) is Point
        return dict.fromkeys([key], *rest)

    def names(self) -> list[str]:
        return ["a"]


def test_types_travel() -> None:
    """A type variable of a generic contract is the type that the derived contract says, through several levels, alone
    or inside another type, in parameters and results.
    """
    with Server("loopback://generic") as server, Client("loopback://generic") as client:
        server.register(Points, Served())
        server.listen()
        points = client.bind(Points)
        assert points.get("four") == Point(1, 4)
        assert points.put("k", None, [Point(2, 3)]) == {"k": Point(2, 3)}
        assert points.names() == ["a"]
        with pytest.raises(InvalidArgumentType, match="'key'"):
            untyped(points.get)(5)
        with pytest.raises(InvalidArgumentType, match="'value'"):
            points.put("k", "no point", [])  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(InvalidArgumentType, match="'rest'"):
            points.put("k", None, [1])  # type: ignore[list-item]  # wrong on purpose


class Bare(ByName):  # type: ignore[type-arg]  # of anything
    """Says nothing."""


class Alone(Interface):
    """Has a variable that belongs to no class."""

    def echo(self, value: list[T]) -> int: ...


@pytest.mark.parametrize("contract", [Repository, ByName, Bare, Alone])
def test_variables_that_are_left(contract: type[Interface]) -> None:
    """A type variable that nothing stands for is refused where the contract is bound, and where it is registered."""
    with Server("loopback://generic") as server, Client("loopback://generic") as client:
        with pytest.raises(InvalidParameter, match=r"nothing says what ~\w stands for"):
            client.bind(contract)
        with pytest.raises(InvalidParameter, match=r"nothing says what ~\w stands for"):
            server.register(contract, Served())


def test_what_stands_for_a_variable_must_travel() -> None:
    """A type that cannot be sent is refused in the place of a variable as elsewhere."""

    class Odd(Repository[str, complex]):
        pass

    with Client("loopback://generic") as client, pytest.raises(InvalidParameter, match="complex"):
        client.bind(Odd)
