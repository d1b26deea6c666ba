"""What a contract may say: each type and operation is served as it is written, or refused before the first call."""

import abc
import array
import collections
import collections.abc
import dataclasses
import enum
import fractions
import functools
import inspect
import ipaddress
import pathlib
import re
import sys
import typing
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Protocol, TypedDict, TypeVar

import msgspec
import pytest

from engine import (
    BadStubData,
    Client,
    Context,
    EngineError,
    InOut,
    InPipe,
    Interface,
    InvalidArgumentType,
    InvalidParameter,
    Operation,
    Out,
    OutPipe,
    Server,
    operation,
)
from engine.testing import LIMIT

from ..helpers import untyped

T = TypeVar("T")


class Plain:
    """A class that nobody knows how to send."""


class PlainProtocol(Protocol):
    """A shape."""

    x: int


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Other(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Mode(enum.IntFlag):
    FAST = 1
    SAFE = 2


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


class Pairs(enum.Enum):
    ONE = (1, 2)


class Huge(enum.Enum):
    ONE = 2**70


class Empty(enum.Enum):
    pass


@dataclasses.dataclass
class Point:
    x: int
    y: list[Colour] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int


@dataclasses.dataclass
class Holder:
    inside: pathlib.Path


@dataclasses.dataclass
class Initial:
    x: int
    start: dataclasses.InitVar[int] = 0


class Record(msgspec.Struct):
    x: int
    when: datetime | None = None


class Fixed(msgspec.Struct, frozen=True):
    x: int


class Complex(msgspec.Struct):
    inside: list[complex]


class Pair(NamedTuple):
    left: int
    right: str = ""


class BadPair(NamedTuple):
    left: fractions.Fraction


class Options(TypedDict, total=False):
    size: int


class BadOptions(TypedDict):
    inside: ipaddress.IPv4Address


class Filled(msgspec.Struct):
    size: int
    data: Out[bytearray]


@dataclasses.dataclass
class Scrambled:
    data: InOut[bytearray]


class FilledPair(NamedTuple):
    data: Out[bytearray]
    size: int = 0


class FilledOptions(TypedDict, total=False):
    data: "Out[bytearray]"


class FilledLater(Filled):
    later: int = 0


class Streamed(msgspec.Struct):
    numbers: OutPipe[int]


@dataclasses.dataclass
class Opened:
    handle: Context[int]


class Box(msgspec.Struct, Generic[T]):
    content: T


class Node(msgspec.Struct):
    children: "list[Node]" = []


class BadNode(msgspec.Struct):
    children: "list[BadNode]"
    value: fractions.Fraction


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: float


class MyInt(int):
    pass


class MyList(list[Any]):
    pass


# The annotations of pipes, where no type checker has one.
Pulled: Any = InPipe
Pushed: Any = OutPipe

UserId = NewType("UserId", int)
Folder = NewType("Folder", pathlib.Path)
NOW = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)

TRAVEL: list[tuple[Any, Any]] = [
    (None, None),
    (bool, True),
    (int, 5),
    (int, -(2**63)),
    (int, 2**64 - 1),
    (float, 1.5),
    (str, "größe"),
    (bytes, b"x"),
    (bytearray, bytearray(b"x")),
    (list, [1, "a"]),
    (list[int], [1]),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2)),
    (tuple, (1, "a")),
    (set[int], {1, 2}),
    (frozenset[str], frozenset("ab")),
    (set[tuple[int, int]], {(1, 2)}),
    (set[tuple[int, ...]], {(1, 2), ()}),
    (dict, {"a": 1}),
    (dict[str, list[int]], {"a": [1]}),
    (dict[int, str], {1: "a"}),
    (dict[bytes, int], {b"k": 1}),
    (dict[tuple[int, int], str], {(1, 2): "a"}),
    (dict[Frozen, int], {Frozen(1): 2}),
    (dict[Fixed, int], {Fixed(1): 2}),
    (dict[Pair, int], {Pair(1): 2}),
    (dict[Colour, int], {Colour.RED: 1}),
    (set[Fixed], {Fixed(1)}),
    (dict[uuid.UUID, date], {uuid.UUID(int=1): date(2024, 2, 29)}),
    (datetime, NOW),
    (datetime, datetime(2024, 2, 29)),
    (date, date(2024, 2, 29)),
    (time, time(1, 2, 3)),
    (timedelta, timedelta(1, 2, 3)),
    (uuid.UUID, uuid.UUID(int=7)),
    (Decimal, Decimal("1.10")),
    (Decimal | int, Decimal(1)),
    (Colour, Colour.BLUE),
    (list[Colour], [Colour.RED]),
    (Colour | None, Colour.RED),
    (Colour | None, None),
    (dict[str, tuple[Colour, int]], {"a": (Colour.RED, 1)}),
    (Level, Level.LOW),
    (list[Level], [Level.LOW]),
    (Access, Access.READ | Access.WRITE),
    (list[Access], [Access(0)]),
    (Mode, Mode.FAST | Mode.SAFE),
    (Literal["a", 1, None], "a"),
    (Point, Point(1, [Colour.RED])),
    (list[Point], [Point(1)]),
    (Record, Record(1, NOW)),
    (Record | None, Record(1)),
    (Pair, Pair(1, "a")),
    (list[Pair], [Pair(1, "a")]),
    (Options, {"size": 1}),
    (Options, {}),
    (Box[int], Box(1)),
    (Box[list[Colour]], Box([Colour.RED])),
    (Node, Node([Node()])),
    (Circle | Square, Square(2.0)),
    (list[Circle | Square], [Circle(1.0), Square(2.0)]),
    (UserId, 5),
    (list[UserId], [UserId(5)]),
    (Annotated[int, "a remark"], 5),
    (Annotated[int, msgspec.Meta(ge=0)], 5),
    (None | int, None),
    (int | str, "a"),
    (Any, {"a": [1, None]}),
    (object, [1]),
    (list[object], [1, "a"]),
    (collections.abc.Sequence[int], [1]),
    (collections.abc.Mapping[str, int], {"a": 1}),
    (collections.abc.Set, {1}),
    (msgspec.msgpack.Ext, msgspec.msgpack.Ext(5, b"x")),
]

# A type, and how the error spells what is wrong with it.
REFUSED: list[tuple[Any, str]] = [
    (pathlib.Path, "Path"),
    (pathlib.PurePosixPath, "PurePosixPath"),
    (ipaddress.IPv4Address, "IPv4Address"),
    (complex, "complex"),
    (fractions.Fraction, "Fraction"),
    (collections.deque, "use list"),
    (collections.deque[int], "use list"),
    (collections.OrderedDict, "use dict"),
    (collections.OrderedDict[str, int], "use dict"),
    (collections.Counter[str], "use dict"),
    (collections.defaultdict[str, int], "use dict"),
    (collections.ChainMap, "use dict"),
    (Plain, "Plain"),
    (PlainProtocol, "PlainProtocol"),
    (MyInt, "use int"),
    (MyList, "use list"),
    (range, "range"),
    (re.Pattern, "Pattern"),
    (array.array, "array"),
    (type, "type"),
    (Callable[[int], int], "Callable"),
    (Exception, "Exception"),
    (Iterator[int], "OutPipe"),
    (collections.abc.AsyncIterator[int], "OutPipe"),
    (collections.abc.Iterable[int], "use list"),
    (typing.Hashable, "Hashable"),
    (list[pathlib.Path], "Path"),
    (dict[pathlib.Path, int], "Path"),
    (dict[str, list[Plain]], "Plain"),
    (tuple[int, complex], "complex"),
    (set[fractions.Fraction], "Fraction"),
    (pathlib.Path | None, "Path"),
    (int | Plain, "Plain"),
    (Holder, "Path"),
    (list[Holder], "Path"),
    (Complex, "complex"),
    (BadPair, "Fraction"),
    (BadOptions, "IPv4Address"),
    (Box[Plain], "Plain"),
    (BadNode, "Fraction"),
    (Folder, "Path"),
    (list[Folder], "Path"),
    (Annotated[pathlib.Path, "a remark"], "Path"),
    (Initial, "InitVar"),
    (Mixed, "Mixed"),
    (Pairs, "Pairs"),
    (Huge, "Integer"),
    (Empty, "Empty|Enum"),
    (Literal[b"x"], "Literal"),
    (Record | Point, "Record|Point"),
    (str | bytes, "str"),
    (list[int] | set[int], "list"),
    (set[list[int]], "a list"),
    (set[dict[str, int]], "dict"),
    (dict[list[int], int], "list"),
    (dict[Record, int], "Record"),
    (dict[Point, int], "Point"),
    (dict[tuple[Record, int], int], "Record"),
    (dict[tuple[Record, ...], int], "Record"),
    (set[tuple[list[int], ...]], "a list"),
    (frozenset[Options], "Options"),
    (msgspec.Struct, "name the Struct"),
    (typing.NoReturn, "NoReturn"),
    (typing.ClassVar[int], "ClassVar"),
    (Pulled[pathlib.Path], "Path"),
    (list[Pulled[int]], "InPipe"),
    (Pulled[int] | None, "InPipe"),
    (Out[pathlib.Path], "Path"),
    (list[Out[bytearray]], "output"),
    (Out[bytearray] | None, "output"),
    (Filled, "output inside another value, Filled.data: make it a parameter"),
    (list[Filled], "Filled.data: make it a parameter"),
    (dict[str, FilledLater | None], "FilledLater.data: make it a parameter"),
    (Box[Scrambled], "Scrambled.data: make it a parameter"),
    (FilledPair, "FilledPair.data: make it a parameter"),
    (FilledOptions, "FilledOptions.data: make it a parameter"),
    (Pulled[Filled], "Filled.data: make it a parameter"),
    (Streamed, "OutPipe.*as a parameter of its own"),
    (Opened, "context handle inside another value: make it a parameter"),
    (list[Context[int]], "context handle"),
    (dict[str, Context[int] | None], "context handle"),
    (Pulled[Context[int]], "context handle"),
    ("list[", "cannot be read"),
    ("Missing", "Missing"),
    ("math.missing", "math"),
]


def echoing(kind: Any, name: str = "value", result: bool = True) -> type[Interface]:
    """Return a contract whose operation takes and returns a value of the type `kind`."""

    def echo(self, value):  # type: ignore[no-untyped-def]  # an annotation is missing on purpose
        raise NotImplementedError

    echo.__annotations__ = {"value": kind, "return": kind} if result else {"value": kind}
    return type("Echo", (Interface,), {"echo": echo}, id="test.Echo")


def returning(kind: Any) -> type[Interface]:
    """Return a contract whose operation returns a value of the type `kind`."""

    def make(self):  # type: ignore[no-untyped-def]  # an annotation is missing on purpose
        raise NotImplementedError

    make.__annotations__ = {"return": kind}
    return type("Maker", (Interface,), {"make": make}, id="test.Maker")


class Echo:
    """Returns what it gets."""

    def echo(self, value: Any) -> Any:
        return value


class Connected:
    """A server and a client of it, in this process."""

    def __init__(self, server: Server, client: Client) -> None:
        self.server = server
        self.client = client

    def serve(self, contract: type[Interface], implementation: Any) -> Any:
        """Register, and return a binding."""
        self.server.register(contract, implementation)
        return self.client.bind(contract)

    def refused(self, contract: type[Interface], match: str) -> None:
        """Both sides refuse a contract, with the same words."""
        said = []
        for use in (self.client.bind, lambda contract: self.server.register(contract, Echo())):
            with pytest.raises(InvalidParameter, match=match) as caught:
                use(contract)
            said.append(str(caught.value))
        assert said[0] == said[1]


@pytest.fixture
def connected() -> Iterator[Connected]:
    """A server and a client of it."""
    with Server("loopback://test-contracts") as server:
        server.listen()
        with Client("loopback://test-contracts") as client:
            yield Connected(server, client)


class TestTypes:
    """The types of parameters and results."""

    @pytest.mark.parametrize(("kind", "value"), TRAVEL)
    def test_that_travel(self, connected: Connected, kind: Any, value: Any) -> None:
        """A value of a type that travels arrives as an equal one of the same type, there and back."""
        got: list[Any] = []

        class Keeping:
            def echo(self, value: Any) -> Any:
                got.append(value)
                return value

        back = connected.serve(echoing(kind), Keeping()).echo(value)
        assert got == [value] and back == value
        assert type(got[0]) is type(back) is type(value)

    @pytest.mark.parametrize(("kind", "said"), REFUSED)
    def test_that_do_not(self, connected: Connected, kind: Any, said: str) -> None:
        """Any other type is refused as the contract is bound or registered, on both sides alike: the error names the
        interface, the operation, the parameter and the type.
        """
        connected.refused(echoing(kind, result=False), f"(?s)^test.Echo.echo.*(value|annotation).*{said}")

    @pytest.mark.parametrize("kind", [pathlib.Path, list[complex], Pushed[int], Out[bytearray], Filled, Iterator[int]])
    def test_of_results(self, connected: Connected, kind: Any) -> None:
        """So is one of a result."""
        connected.refused(returning(kind), "^test.Maker.make: (the result|'return')")

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="`type` statements came with Python 3.12")
    def test_made_by_type_statements(self, connected: Connected) -> None:
        """An alias is what it stands for: an array, a pipe, an output and a context handle too."""
        space: dict[str, Any] = {"Path": pathlib.Path, "InPipe": InPipe, "Out": Out, "Context": Context}
        exec(
            "type Ints = list[int]\ntype Maybe[T] = T | None\ntype Paths = dict[str, Path]\ntype Tree = list[Tree]\n"
            "type Numbers = InPipe[int]\ntype Frame = Out[bytearray]\ntype Handle = Context[int]\n",
            space,
        )
        binding = connected.serve(echoing(space["Ints"]), Echo())
        assert binding.echo([1]) == [1]
        with pytest.raises(InvalidArgumentType):
            binding.echo(["1"])
        connected.server.unregister()
        assert connected.serve(echoing(space["Maybe"][int]), Echo()).echo(None) is None
        connected.server.unregister()
        connected.refused(echoing(space["Paths"], result=False), "Path")
        echo = untyped(connected.client.bind(echoing(space["Numbers"], result=False))).echo
        assert [pipe.name for pipe in echo.spec.pipes] == ["value"]
        echo = untyped(connected.client.bind(echoing(space["Frame"], result=False))).echo
        assert [output.name for output in echo.spec.outputs] == ["value"]
        assert untyped(connected.client.bind(echoing(space["Handle"], result=False))).echo.spec.contexts == ((0, True),)
        try:
            binding = connected.serve(echoing(space["Tree"]), Echo())
        except InvalidParameter:
            pass  # msgspec knows no aliases that contain themselves, yet.
        else:
            assert binding.echo([[], [[]]]) == [[], [[]]]

    def test_of_another_module(self, connected: Connected) -> None:
        """A name that is imported for type checkers only is refused, with what to do."""
        connected.refused(echoing("Widget"), "Widget.*import it there")

    def test_enums_must_be_what_they_say(self, connected: Connected) -> None:
        """A member of another enum is refused before it is sent."""
        binding = connected.serve(echoing(list[Colour]), Echo())
        for wrong in ([Other.RED], [Colour.RED, 5], [Level.LOW]):
            with pytest.raises(InvalidArgumentType, match="'value'"):
                binding.echo(wrong)


class TestNumbers:
    """Ints, floats and truth values."""

    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            (float, 2**70),
            (int, 2**64),
            (int, -(2**63) - 1),
            (list[int], [1, 2**70]),
            (Any, {"a": 2**70}),
            (Record, Record(2**70)),
            (float | None, -(2**70)),
        ],
    )
    def test_outside_of_64_bits(self, connected: Connected, kind: Any, value: Any) -> None:
        """An int that 64 bits do not hold is refused before it is sent: the error names the parameter and the range."""
        binding = connected.serve(echoing(kind), Echo())
        with pytest.raises(InvalidParameter, match=r"'value'.*2\*\*63.*2\*\*64"):
            binding.echo(value)

    def test_outside_of_64_bits_as_a_result(self, connected: Connected) -> None:
        """As a result it is 1783, with the same words."""

        class Huge:
            def make(self) -> int:
                return 2**70

        with pytest.raises(BadStubData, match=r"2\*\*63.*2\*\*64"):
            connected.serve(returning(int), Huge()).make()

    @pytest.mark.parametrize(
        ("kind", "value"), [(int, True), (bool, 1), (int, 1.0), (float, True), (int, "1"), (list[int], [True])]
    )
    def test_of_another_kind(self, connected: Connected, kind: Any, value: Any) -> None:
        """A truth value is no number and a number no truth value; both sides say so."""

        class Wrong:
            def make(self) -> Any:
                return value

        with pytest.raises(InvalidArgumentType, match="'value'"):
            connected.serve(echoing(kind), Echo()).echo(value)
        with pytest.raises(BadStubData):
            connected.serve(returning(kind), Wrong()).make()

    def test_an_int_for_a_float(self, connected: Connected) -> None:
        """An int may stand for a float, and arrives as one."""
        back = connected.serve(echoing(float), Echo()).echo(3)
        assert back == 3.0 and type(back) is float


class TestArrays:
    """NumPy's arrays and scalars."""

    def test_items(self, connected: Connected) -> None:
        """An array of other items than the contract says is refused before it is sent, and nothing is converted."""
        numpy = pytest.importorskip("numpy")
        typed = pytest.importorskip("numpy.typing").NDArray
        binding = connected.serve(echoing(typed[numpy.float64] | None), Echo())
        assert (binding.echo(numpy.ones(3)) == 1).all() and binding.echo(None) is None
        for wrong in (numpy.ones(3, "i4"), numpy.ones(3, "f4"), numpy.ones(3, complex), numpy.array(["a"])):
            with pytest.raises(InvalidArgumentType, match="'value' must be an array of float64, not of .*astype"):
                binding.echo(wrong)
        swapped = numpy.ones(3, numpy.dtype("f8").newbyteorder())
        assert (binding.echo(swapped) == 1).all()

    @pytest.mark.parametrize("items", ["floating", "integer", "generic"])
    def test_kinds_of_items(self, connected: Connected, items: str) -> None:
        """The items may be said by an abstract type."""
        numpy = pytest.importorskip("numpy")
        binding = connected.serve(echoing(numpy.ndarray[Any, numpy.dtype[getattr(numpy, items)]]), Echo())
        for dtype in ("f4", "f8", "i2", "u8", "?"):
            array = numpy.ones(2, dtype)
            if numpy.issubdtype(array.dtype, getattr(numpy, items)):
                assert binding.echo(array).dtype == dtype
            else:
                with pytest.raises(InvalidArgumentType, match="'value'"):
                    binding.echo(array)

    def test_of_a_result(self, connected: Connected) -> None:
        """A result of other items than the contract says is 1783."""
        numpy = pytest.importorskip("numpy")

        class Ints:
            def make(self) -> Any:
                return numpy.ones(3, "i4")

        binding = connected.serve(returning(numpy.ndarray[Any, numpy.dtype[numpy.float64]]), Ints())
        with pytest.raises(BadStubData, match="array of float64, not of int32"):
            binding.make()

    def test_from_a_client_without_the_contract(self, connected: Connected) -> None:
        """The server looks for itself: a client that does not know the contract gets 1783."""
        numpy = pytest.importorskip("numpy")
        connected.server.register(echoing(numpy.ndarray[Any, numpy.dtype[numpy.float64]]), Echo())
        with pytest.raises(BadStubData, match="array of float64, not of int32"):
            connected.client.bind("test.Echo").echo(numpy.ones(3, "i4"))

    def test_dimensions(self, connected: Connected) -> None:
        """So is it with the number of dimensions, where the contract says one."""
        numpy = pytest.importorskip("numpy")
        binding = connected.serve(echoing(numpy.ndarray[tuple[int, int], numpy.dtype[numpy.float64]]), Echo())
        assert binding.echo(numpy.ones((2, 3))).shape == (2, 3)
        with pytest.raises(InvalidArgumentType, match="'value' must be an array of 2 dimensions, not of 1"):
            binding.echo(numpy.ones(3))

    @pytest.mark.parametrize("flow", [Out, InOut])
    def test_outputs(self, connected: Connected, flow: Any) -> None:
        """The caller's buffers are looked at likewise."""
        numpy = pytest.importorskip("numpy")

        class Filling:
            def echo(self, value: Any) -> None:
                value[:] = 7

        contract = echoing(flow[numpy.ndarray[Any, numpy.dtype[numpy.float64]]], result=False)
        binding = connected.serve(contract, Filling())
        array = numpy.zeros(3)
        binding.echo(array)
        assert (array == 7).all()
        with pytest.raises(InvalidArgumentType, match="'value'.*array of float64, not of int32"):
            binding.echo(numpy.zeros(3, "i4"))

    def test_order(self, connected: Connected) -> None:
        """An array in Fortran's order, or with gaps, arrives equal, and in C's order."""
        numpy = pytest.importorskip("numpy")
        binding = connected.serve(echoing(numpy.ndarray), Echo())
        array = numpy.asfortranarray(numpy.arange(24.0).reshape(4, 6))
        for sent in (array, array.T, array[::2, 1::3], array[::-1], array[0, 0]):
            sent = numpy.asanyarray(sent)
            back = binding.echo(sent)
            assert (back == sent).all() and back.shape == sent.shape and back.flags.c_contiguous

    def test_that_never_travel(self, connected: Connected) -> None:
        """Arrays of objects, masked ones and those of other libraries are refused with the contract."""
        numpy = pytest.importorskip("numpy")
        for kind in (numpy.ndarray[Any, numpy.dtype[numpy.object_]], numpy.ma.MaskedArray, numpy.recarray):
            connected.refused(echoing(kind), "'value'.*array")
        connected.refused(echoing(numpy.float64), "'value'.*float64.*use float")
        connected.refused(echoing(untyped(list)[numpy.int64]), "'value'.*int64.*use int")

    @pytest.mark.parametrize(
        ("kind", "make", "plain"),
        [
            (int, lambda n: n.int64(1), 1),
            (list[int], lambda n: [n.int64(1), 2], [1, 2]),
            (dict[str, float], lambda n: {"a": n.float32(0.5)}, {"a": 0.5}),
            (tuple[int, ...], lambda n: (n.uint8(7),), (7,)),
            (list[list[bool]], lambda n: [[n.bool_(True)]], [[True]]),
            (set[int], lambda n: {n.int16(3)}, {3}),
            (dict[int, str], lambda n: {n.int64(1): n.str_("a")}, {1: "a"}),
            (int | None, lambda n: n.int64(1), 1),
            (Record, lambda n: Record(n.int64(1)), Record(1)),
            (list[Any], lambda n: [n.int64(1)], [1]),
            (list[float], lambda n: list(n.ones(2)), [1.0, 1.0]),
        ],
    )
    def test_scalars_inside(self, connected: Connected, kind: Any, make: Any, plain: Any) -> None:
        """NumPy's scalars stand for plain values anywhere inside arguments and results."""
        numpy = pytest.importorskip("numpy")

        class Maker:
            def make(self) -> Any:
                return make(numpy)

        assert connected.serve(echoing(kind), Echo()).echo(make(numpy)) == plain
        assert connected.serve(returning(kind), Maker()).make() == plain

    def test_scalars_of_another_type(self, connected: Connected) -> None:
        """One of another type than the contract says is refused, inside as outside."""
        numpy = pytest.importorskip("numpy")
        binding = connected.serve(echoing(list[int]), Echo())
        for wrong in ([numpy.float64(1)], [numpy.bool_(True)], [1, numpy.str_("a")], [numpy.complex128(1)]):
            with pytest.raises(InvalidArgumentType, match="'value'"):
                binding.echo(wrong)


def contract(source: str, bases: str = "Interface", **space: Any) -> type[Interface]:
    """Return a contract whose body is `source`."""
    names = {**globals(), **space}
    lines = "\n".join("    " + line for line in source.splitlines())
    exec(f"class Bad({bases}):\n{lines}\n", names)
    return names["Bad"]  # type: ignore[no-any-return]  # made by `exec`


class TestOperations:
    """What is an operation."""

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("@staticmethod\ndef extra() -> int: ...", "extra is a staticmethod"),
            ("@classmethod\ndef extra(cls) -> int: ...", "extra is a classmethod"),
            ("@property\ndef extra(self) -> int: ...", "extra is a property"),
            ("@functools.cached_property\ndef extra(self) -> int: ...", "extra is a cached_property"),
            ("@functools.lru_cache\ndef extra(self) -> int: ...", "extra is a _lru_cache_wrapper"),
            ("extra = functools.partial(print)", "extra is a partial"),
            ("extra = functools.partialmethod(print)", "extra is a partialmethod"),
            ("extra = len", "extra is a builtin"),
            ("@typing.overload\ndef extra(self, x: int) -> int: ...\n", "extra has overloads only"),
            ("def __call__(self, x: int) -> int: ...", "__call__"),
            ("def __getitem__(self, x: int) -> int: ...", "__getitem__"),
            ("def extra() -> int: ...", "no `self`"),
            ("def extra(*args) -> int: ...", "no `self`"),
            ("def extra(word: str) -> int: ...", "'word' stands in the place of `self`"),
            ("def extra(self, *args: int) -> int: ...", "args"),
            ("def extra(self, **kwargs: int) -> int: ...", "kwargs"),
            ("def extra(self, *, only: int) -> int: ...", "only"),
            ("def extra(self, timeout: float) -> int: ...", "timeout.*rename"),
            ("def extra(self, x: int = 'a') -> int: ...", "default 'a' of 'x' must be int"),
            ("def extra(self, x: int = None) -> int: ...", "default None of 'x'"),
            ("def extra(self, x: list[int] = ['a']) -> int: ...", "default .* of 'x'"),
            ("def extra(self, x: int = ...) -> int: ...", "default Ellipsis of 'x'"),
            ("def extra(self, x: int = 2**70) -> int: ...", "default .* of 'x'"),
            ("def extra(self, x: Any = object()) -> int: ...", "default .* of 'x'"),
            ("def extra(self, x: Context[int] = None) -> int: ...", "default None of 'x'"),
            ("def extra(self, x: Out[bytearray] = bytearray()) -> int: ...", "'x' is the caller's buffer"),
            ("@operation(one_way=True)\ndef extra(self) -> int: ...", "one-way"),
            ("@operation(duplex=True)\ndef extra(self) -> int: ...", "duplex is about pipes"),
            ("@operation(shared_context=True)\ndef extra(self) -> int: ...", "shared_context is about"),
            (
                "@operation(name='other')\ndef extra(self) -> int: ...\ndef other(self) -> int: ...",
                "both called 'other'",
            ),
            ("@operation\ndef extra(self) -> int: ...\nother = extra", "both called"),
            ("def extra(self) -> Iterator[int]:\n    yield 1", "OutPipe"),
            ("async def extra(self) -> collections.abc.AsyncIterator[int]:\n    yield 1", "OutPipe"),
        ],
    )
    def test_that_no_server_could_be_asked_for(self, connected: Connected, source: str, said: str) -> None:
        """What looks like an operation and can be none is refused by both sides, with what to do: none is left out, and
        no binding runs the contract's own body.
        """
        connected.refused(contract(source), f"extra.*{said}|{said}")

    @pytest.mark.parametrize(
        "source",
        [
            "def echo(self, value: int) -> int: ...",
            "def echo(self, value: int, /) -> int: ...",
            "def echo(self, value): ...",
            "def echo(self, value: int = 5) -> int: ...",
            "def echo(self, value: list[int] = []) -> list[int]: ...",
            "async def echo(self, value: int) -> int: ...",
            "@abc.abstractmethod\ndef echo(self, value: int) -> int: ...",
            "@abc.abstractmethod\n@operation\ndef echo(self, value: int) -> int: ...",
            "@operation\n@abc.abstractmethod\ndef echo(self, value: int) -> int: ...",
            "@typing.overload\ndef echo(self, value: int) -> int: ...\n@typing.overload\n"
            "def echo(self, value: str) -> str: ...\ndef echo(self, value: int | str) -> int | str: ...",
            "echo = lambda self, value: ...",
            "Alias = list[int]\nLIMIT = 5\n_private = len\nclass Nested: pass\ndef echo(self, value: int) -> int: ...",
        ],
    )
    @pytest.mark.parametrize("bases", ["Interface", "Interface, abc.ABC", "Interface, Generic[T]"])
    def test_that_are_served(self, connected: Connected, source: str, bases: str) -> None:
        """Methods however they are declared, abstract ones too, with constants and classes beside them, are served."""
        binding = connected.serve(contract(source, bases), Echo())
        assert isinstance(binding, Interface) and isinstance(untyped(binding).echo, Operation)
        argument: Any = [7] if "list[int] =" in source else 7
        assert untyped(binding).echo(argument) == argument

    def test_of_a_base_that_is_no_interface(self, connected: Connected) -> None:
        """Public methods of any base are operations: a binding calls the server, and a server needs them."""

        class Mixin:
            def extra(self, value: int) -> int: ...

        class Whole(Mixin, Interface):
            def echo(self, value: int) -> int: ...

        class Both(Echo):
            def extra(self, value: int) -> int:
                return -value

        with pytest.raises(InvalidParameter, match="'extra'"):
            connected.server.register(Whole, Echo())
        binding = connected.serve(Whole, Both())
        assert (binding.extra(5), binding.echo(5)) == (-5, 5)

    def test_that_a_base_cannot_have(self, connected: Connected) -> None:
        """What such a base has and no server could be asked for is refused too."""

        class Mixin:
            @property
            def extra(self) -> int:
                return 5

        connected.refused(type("Whole", (Interface, Mixin), {}), "extra is a property")

    def test_hidden_ones(self, connected: Connected) -> None:
        """A method whose name begins with an underscore is no operation: called on a binding it says so."""

        class Half(Interface):
            def echo(self, value: int) -> int: ...
            def _extra(self) -> int: ...
            @staticmethod
            def _other() -> int: ...

            @operation
            def _shown(self) -> int: ...

        class Routines(Echo):
            def _shown(self) -> int:
                return 5

        binding = connected.serve(Half, Routines())
        assert (binding.echo(1), binding._shown()) == (1, 5)
        for hidden in (binding._extra, binding._other):
            with pytest.raises(InvalidParameter, match="is no operation.*underscore"):
                hidden()

    def test_names_by_attribute(self, connected: Connected) -> None:
        """An operation is called as its attribute is, if it is given no other name."""

        def function(self: object, value: int) -> int: ...

        class Renamed(Interface):
            echo = operation(function)  # What else would be `self`?

        assert connected.serve(Renamed, Echo()).echo(5) == 5
        assert Renamed.echo.name == "echo"

    def test_an_implementation_that_derives(self, connected: Connected) -> None:
        """An implementation that derives from the contract, and does not override a method, does not have it."""

        class Two(Interface):
            def one(self) -> int: ...
            def two(self) -> int: ...

        class Half(Two):
            def one(self) -> int:
                return 1

            @property
            def size(self) -> int:
                return 5

            def __call__(self) -> int:
                return 6

        class Whole(Half):
            def two(self) -> int:
                return 2

        with pytest.raises(InvalidParameter, match="no routine 'two'"):
            connected.server.register(Two, Half())
        binding = connected.serve(Two, Whole())
        assert (binding.one(), binding.two()) == (1, 2)

    @pytest.mark.parametrize("name", ["interface_id", "interface_version"])
    def test_names_that_interfaces_have(self, name: str) -> None:
        """The names that every interface has cannot be an operation's."""
        with pytest.raises(InvalidParameter, match=name):
            contract(f"def {name}(self) -> int: ...")

    @pytest.mark.parametrize("function", [3, None, "name", len, print, property(), staticmethod(print), int])
    def test_made_of_what_is_no_method(self, function: Any) -> None:
        """`operation` takes a method."""
        with pytest.raises(EngineError, match="an operation is declared by a method"):
            operation(name="other")(function)

    @pytest.mark.parametrize(
        "option", [name for name, each in inspect.signature(Operation).parameters.items() if each.default is False]
    )
    def test_options_that_are_none(self, option: str) -> None:
        """The options of `operation` are True or False."""
        with pytest.raises(InvalidArgumentType, match=f"{option} must be True or False, not 'yes'"):
            operation(**{option: "yes"})(lambda self: None)  # type: ignore[call-overload]  # wrong on purpose

    def test_functions_in_use(self) -> None:
        """The names that these contracts use exist."""
        assert None not in (abc, functools, operation)


class TestAttrs:
    """Classes of the attrs package."""

    def test_private_fields(self, server: Server) -> None:
        """A class with a private field, wherever it stands in a type, is refused when the contract is registered or
        bound: the field would not travel. Aliases and fields that `__init__` does not take travel.
        """
        attrs = pytest.importorskip("attrs")
        private = attrs.make_class("Private", {"_x": attrs.field(default=0, type=int)})
        public = attrs.make_class(
            "Public", {"x": attrs.field(type=int, alias="z"), "y": attrs.field(init=False, default=3, type=int)}
        )

        def contract(kind: Any) -> Any:
            def echo(self: Any, value: Any) -> Any: ...

            echo.__annotations__.update(value=kind, **{"return": kind})
            return type("Echo", (Interface,), {"echo": echo}, id="test.Attrs")

        class Routines:
            def echo(self, value: Any) -> Any:
                return value

        for kind in (private, list[private], dict[str, private]):  # type: ignore[valid-type]  # made as it runs
            with pytest.raises(InvalidParameter, match="Private: its field _x is private"):
                server.register(contract(kind), Routines())
        server.register(contract(public), Routines())
        server.listen()
        value = public(z=1)
        value.y = 9
        with Client(server.endpoint, timeout=LIMIT) as client:
            assert client.bind(contract(public)).echo(value) == value
