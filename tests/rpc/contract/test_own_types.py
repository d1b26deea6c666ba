"""Classes that msgspec does not know, and the program does: `register_type`, and the recipes of `docs/types.md`."""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import GenericAlias
from typing import Any

import pytest

from engine import (
    BadStubData,
    Client,
    Interface,
    InvalidArgumentType,
    InvalidParameter,
    OutPipe,
    Pipe,
    Server,
    operation,
    register_type,
)
from transport.wire import own_types

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "types.md").read_text(encoding="utf-8")
ENDPOINT = "loopback://test-own-types"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins with nothing registered, and leaves nothing."""
    monkeypatch.setattr(own_types, "_known", {})


def recipe(word: str) -> dict[str, Any]:
    """Run the block of the page that has `word` in it; return its names."""
    (found,) = [text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if word in text]
    names: dict[str, Any] = {"__name__": __name__}
    exec(found, names)
    return names


@pytest.fixture
def echoing() -> Iterator[Callable[..., Any]]:
    """Makes the operation `echo` of a contract whose only parameter and result are of that type, and streams them."""
    opened: list[Any] = []

    def make(kind: Any, answer: Callable[[Any], Any] = lambda value: value) -> Any:
        class Contract(Interface, id="test.OwnTypes"):
            @operation
            def echo(self, value: kind) -> kind: ...

            @operation
            def stream(self, value: kind, values: OutPipe[kind]) -> None: ...

        class Routines:
            def echo(self, value: Any) -> Any:
                return answer(value)

            def stream(self, value: Any, values: Pipe[Any]) -> Iterator[Any]:
                yield from (value, value)

        server, client = Server(ENDPOINT), Client(ENDPOINT)
        opened.extend((server, client))
        server.register(Contract, Routines())
        server.listen()
        return client.bind(Contract)

    yield make
    for each in reversed(opened):
        each.close()


class TestRegistered:
    """A class that both sides have said how to write and read."""

    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            (Fraction, Fraction(1, 3)),
            (Path, Path("/a/b")),
            (list[Fraction], [Fraction(1, 3)]),
            (dict[str, Path | None], {"a": Path("b"), "c": None}),
            (tuple[Fraction, Path], (Fraction(2), Path("."))),
        ],
    )
    def test_it_travels(self, echoing: Callable[..., Any], kind: Any, value: Any) -> None:
        """As an argument, a result and an element of a pipe, alone and inside of others."""
        recipe("Fraction")
        bound = echoing(kind)
        assert bound.echo(value) == value
        assert bound.echo.begin(value).result() == value
        assert list(bound.stream.stream(value)) == [value, value]

    def test_what_is_none(self, echoing: Callable[..., Any]) -> None:
        """A value of another class is refused as it is sent; what cannot be made again is `BadStubData`."""
        recipe("Fraction")
        bound = echoing(Fraction, lambda value: "no fraction")
        with pytest.raises(InvalidArgumentType, match="Fraction"):
            bound.echo("1/3")
        with pytest.raises(BadStubData, match="no fraction"):
            bound.echo(Fraction(1, 3))

    def test_unregistered(self, echoing: Callable[..., Any]) -> None:
        """A class that nobody has registered is refused with the contract, and the error says what to do."""
        with pytest.raises(InvalidParameter, match="register_type"):
            echoing(Fraction)

    @pytest.mark.parametrize("wrong", [("Fraction", str, str), (Fraction, None, str), (Fraction, str, 5)])
    def test_arguments(self, wrong: Any) -> None:
        """A class and two functions."""
        with pytest.raises(InvalidArgumentType):
            register_type(*wrong)

    def test_without_a_contract(self) -> None:
        """It can be sent, and arrives as it is written."""
        recipe("Fraction")

        class Routines:
            def echo(self, value: Any) -> Any:
                return [value, Fraction(2, 3)]

        with Server(ENDPOINT) as server, Client(ENDPOINT) as client:
            server.register("echo", Routines())
            server.listen()
            assert client.bind("echo").echo(Fraction(1, 3)) == ["1/3", "2/3"]


class TestRecipes:
    """What the page shows."""

    def test_pydantic(self, echoing: Callable[..., Any]) -> None:
        """Models, nested ones, and what their validation says."""
        pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed: it is part of the extra `test`")
        recipe("pydantic")
        Inner = pydantic.create_model("Inner", amount=(pydantic.conint(ge=0), ...))
        Order = pydantic.create_model("Order", name=(str, ...), parts=(GenericAlias(list, (Inner,)), []))
        order = Order(name="a", parts=[Inner(amount=1)])
        assert echoing(GenericAlias(list, (Order,))).echo([order]) == [order]

    def test_pydantic_refuses(self, echoing: Callable[..., Any]) -> None:
        """What the other side's validation finds wrong is told."""
        pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed: it is part of the extra `test`")
        recipe("pydantic")
        Inner = pydantic.create_model("Inner", amount=(pydantic.conint(ge=0), ...))
        with pytest.raises(BadStubData, match="amount"):
            echoing(Inner, lambda value: {"amount": -1}).echo(Inner(amount=1))

    def test_attrs(self, echoing: Callable[..., Any]) -> None:
        """Classes of attrs travel as they are."""
        Point = recipe("attrs")["Point"]
        assert echoing(Point).echo(Point(1, 2)) == Point(1, 2)
