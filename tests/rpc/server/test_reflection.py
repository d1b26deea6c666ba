"""What a server tells of what it serves."""

from collections.abc import Iterator

import pytest

from engine import (
    Client,
    Health,
    InOut,
    InPipe,
    Interface,
    InterfaceDescription,
    Management,
    OperationDescription,
    Out,
    OutPipe,
    ParameterDescription,
    Reflection,
    Server,
    ServerCall,
    UnknownInterface,
    manager,
    operation,
)

OWN = ["callport.Health", "callport.Management", "callport.Reflection"]


class Told(Interface, id="test.Told", version=(3, 1)):
    """What is told.

    In two parts.
    """

    @operation(idempotent=True, raises=[LookupError])
    def find(self, word: str, most: int | None = 10) -> dict[str, list[int]]:
        """Return where a word is.

        Anywhere.
        """

    @operation(one_way=True)
    def note(self, text) -> None: ...  # type: ignore[no-untyped-def]  # what is told of hints that are not there

    @operation
    def fill(self, frame: Out[bytearray], data: InOut[bytearray]) -> None: ...

    @operation(duplex=True)
    def convert(self, lines: InPipe[str] = ..., numbers: OutPipe[int] = ...) -> float: ...


class Routines:
    """Serves it."""

    def find(self, word: str, most: int | None = 10) -> dict[str, list[int]]:
        return {}

    def note(self, text: object) -> None: ...

    def fill(self, frame: bytearray, data: bytearray) -> None: ...

    def convert(self, lines: object, numbers: object) -> float:
        return 0.0


class Plain:
    """An object without a contract."""

    def add(self, left: int, right: "int" = 2) -> int:
        """Return the sum."""
        return left + right

    def anything(self, *values):  # type: ignore[no-untyped-def]  # what is told of hints that are not there
        return values

    @manager
    def later(self, call: ServerCall, number: int) -> None:
        call.complete(number)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of both."""
    with Server("loopback://reflection") as made:
        made.register(Told, Routines())
        made.register("plain", Plain())
        made.listen()
        yield made


def told(server: Server) -> dict[str, InterfaceDescription]:
    with Client(server.endpoint) as client:
        return {each.name: each for each in client.bind(Reflection).interfaces()}


def test_a_contract(server: Server) -> None:
    """An interface has its version and text, and its operations have what the contract says of them."""
    found = told(server)["test.Told"]
    assert (found.version, found.contract, found.text) == ((3, 1), True, "What is told.\n\nIn two parts.")
    assert found.operations == [
        OperationDescription(
            "find", [ParameterDescription("word", "str"), ParameterDescription("most", "int | None", "10")],
            "dict[str, list[int]]", "Return where a word is.\n\nAnywhere.", idempotent=True, raises=["LookupError"],
        ),
        OperationDescription("note", [ParameterDescription("text", "Any")], "None", "", one_way=True, idempotent=True),
        OperationDescription(
            "fill",
            [
                ParameterDescription("frame", "bytearray", kind="out"),
                ParameterDescription("data", "bytearray", kind="in out"),
            ],
            "None", "",
        ),
        OperationDescription(
            "convert",
            [
                ParameterDescription("lines", "str", kind="in pipe"),
                ParameterDescription("numbers", "int", kind="out pipe"),
            ],
            "float", "", duplex=True,
        ),
    ]  # fmt: skip


def test_an_object_without_a_contract(server: Server) -> None:
    """It is told by its methods' signatures and texts; a manager routine's handle is no parameter."""
    found = told(server)["plain"]
    assert (found.version, found.contract, found.text) == ((0, 0), False, "An object without a contract.")
    assert found.operations == [
        OperationDescription(
            "add", [ParameterDescription("left", "int"), ParameterDescription("right", "int", "2")], "int",
            "Return the sum.",
        ),
        OperationDescription("anything", [ParameterDescription("*values", "Any")], "Any", ""),
        OperationDescription("later", [ParameterDescription("number", "int")], "None", ""),
    ]  # fmt: skip


def test_what_is_served_now(server: Server) -> None:
    """It follows what is registered; the library's own interfaces come last."""
    assert list(told(server)) == ["plain", "test.Told", *OWN]
    server.unregister("plain")
    assert list(told(server)) == ["test.Told", *OWN]


def test_by_name(server: Server) -> None:
    """A caller without the contract gets plain values."""
    with Client(server.endpoint) as client:
        first = client.bind("callport.Reflection").interfaces()[0]
    assert first["name"] == "plain" and first["operations"][0]["parameters"][0] == {
        "name": "left", "type": "int", "default": None, "kind": "value",
    }  # fmt: skip


def test_switched_off() -> None:
    """A server made with `reflection=False` tells nothing, and serves all else."""
    with Server("loopback://no-reflection", reflection=False) as server:
        server.listen()
        with Client(server.endpoint) as client:
            with pytest.raises(UnknownInterface):
                client.bind(Reflection).interfaces()
            assert client.bind(Health).check().ready and client.bind(Management).listening()
