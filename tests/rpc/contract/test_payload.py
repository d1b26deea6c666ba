"""What travels: contracts, typed arguments and results, large values: section 1.5 and "The IDL and ACF Files"."""

import dataclasses
import datetime
import hashlib
import inspect
import tracemalloc
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import pytest

from engine import (
    BadStubData,
    Client,
    CompletionPort,
    EngineError,
    InPipe,
    Interface,
    InvalidArgumentType,
    InvalidParameter,
    Operation,
    Server,
    operation,
)
from engine.testing import LIMIT
from transport.wire.blobs import OOB_LIMIT

from ..helpers import Bench, status_of, untyped
from ..interfaces import Account, Colour, Point, Probe

Benches = Callable[..., Bench]


def strange(annotations: dict[str, Any]) -> type[Interface]:
    """Return an interface whose only operation, `strange`, has these parameters, and "return" for its result."""

    def function(self: Any, *args: Any) -> Any:
        raise NotImplementedError

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in ("self", *annotations) if name != "return"]
    function.__name__ = "strange"
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # there for the test only
    function.__annotations__ = annotations
    return type("Strange", (Interface,), {"strange": function})


class Returning:
    """Implements `strange`: it returns its argument, or what was put in its place."""

    def __init__(self, *value: Any) -> None:
        self.value = value

    def strange(self, argument: Any = None) -> Any:
        return self.value[0] if self.value else argument


class TestPlainValues:
    """Values without a type of their own."""

    @pytest.mark.parametrize(
        "value",
        [
            None, True, False, 0, 1, -1, 127, 128, -32, -33, 2**31, -(2**31), 2**63 - 1, -(2**63), 2**64 - 1, 0.0, -1.5,
            1e308, "", "text", "größer €", "\N{GRINNING FACE}" * 100, "x" * 2000, b"", b"bytes", bytes(2000), [],
            [1, "two", None], {}, {"key": [1, {"inner": b"x"}]}, {1: "one"}, [[[[]]]],
        ],
        ids=lambda value: f"{type(value).__name__}-{str(value)[:12]!r}",
    )  # fmt: skip
    def test_come_back(self, bench: Bench, value: Any) -> None:
        """Each plain value arrives as it was sent, there and back."""
        back = bench.probe.echo(value)
        assert back == value and type(back) is type(value)

    def test_over_each_transport(self, any_bench: Bench) -> None:
        """That holds on each transport."""
        value = {"list": [1, 2.5, None, True], "bytes": b"\0\1", "text": "größer"}
        assert any_bench.probe.echo(value) == value

    @pytest.mark.parametrize(
        "value",
        [
            object(), 2**64, -(2**63) - 1, "\udcff", lambda: None, {"key": object()}, [2**70], {(): object()},
            [memoryview(bytes(9))[::2]],
        ],
    )  # fmt: skip
    def test_that_cannot_be_sent(self, bench: Bench, value: Any) -> None:
        """A value that cannot be sent is refused by `begin`, naming the operation; other calls are unharmed."""
        beside = [bench.probe.echo.begin(number) for number in range(5)]
        with CompletionPort() as port:
            with pytest.raises(InvalidArgumentType, match="echo"):
                bench.probe.echo.begin(value, notify=port)
            assert status_of(lambda: port.get(0)) == 258
        beside += [bench.probe.echo.begin(number) for number in range(5, 10)]
        assert [call.result(LIMIT) for call in beside] == list(range(10))

    def test_a_value_that_contains_itself(self, bench: Bench) -> None:
        """A list that contains itself is refused."""
        circle: list[Any] = []
        circle.append(circle)
        with pytest.raises(InvalidArgumentType):
            bench.probe.echo(circle)
        assert bench.probe.echo("unharmed") == "unharmed"

    @pytest.mark.parametrize("size", [1, 10, 1000])
    def test_arguments_are_a_snapshot(self, bench: Bench, size: int) -> None:
        """Changing an argument after `begin` changes nothing, whenever the call leaves."""
        for _ in range(10):
            value = ["as begun"] * size
            calls = [bench.probe.echo.begin(value) for _ in range(8)]
            value[0] = "changed"
            assert all(call.result(LIMIT)[0] == "as begun" for call in calls)

    def test_a_bytearray_is_a_snapshot(self, bench: Bench) -> None:
        """So it is with a small `bytearray`."""
        value = bytearray(b"as begun")
        calls = [bench.probe.echo.begin(value) for _ in range(8)]
        value[:] = b"changed!"
        assert all(bytes(call.result(LIMIT)) == b"as begun" for call in calls)


class TestTypedValues:
    """Types that the contract names."""

    def test_struct(self, any_bench: Bench) -> None:
        """A Struct arrives as a Struct."""
        assert any_bench.probe.point(Point(1, -2)) == Point(-1, 2)

    def test_dataclass(self, bench: Bench) -> None:
        """A dataclass arrives as a dataclass."""
        assert bench.probe.account(Account("me", 1.5, ["a"])) == Account("me", 3.0, ["a"])

    def test_standard_types(self, bench: Bench) -> None:
        """Enums, dates, UUIDs, unions and nested containers arrive as their types say."""
        values = (Colour.BLUE, datetime.date(2024, 2, 29), uuid.UUID(int=7), None, {"a": [1, 2]})
        assert bench.probe.plain(*values) == values

    def test_an_int_for_a_float(self, bench: Bench) -> None:
        """Plain values that stand for others are taken: an int for a float."""
        assert bench.probe.account(Account("me", 2)).balance == 4.0

    @pytest.mark.parametrize(
        ("operation_name", "args", "parameter"),
        [
            ("add", ("1", 2), "left"),
            ("add", (1, "2"), "right"),
            ("add", (1.5, 2), "left"),
            ("add", (None, 2), "left"),
            ("add", (True, 2), "left"),
            ("point", ((1, 2),), "point"),
            ("account", (Point(1),), "account"),
            ("plain", (3, datetime.date(2024, 2, 29), uuid.UUID(int=7), None, {}), "colour"),
            ("plain", (Colour.RED, datetime.date(2024, 2, 29), uuid.UUID(int=7), "x", {}), "maybe"),
            ("plain", (Colour.RED, datetime.date(2024, 2, 29), uuid.UUID(int=7), 1, {"a": ["x"]}), "many"),
            ("checksum", ("text",), "data"),
            ("checksum", ([1, 2],), "data"),
        ],
    )
    def test_wrong_types(self, bench: Bench, operation_name: str, args: tuple[Any, ...], parameter: str) -> None:
        """A wrong type is refused before anything is sent, naming the parameter and the type seen."""
        bench.probe.nothing()
        sent = bench.client.statistics().messages_sent
        bound = getattr(bench.probe, operation_name)
        for call in (bound, bound.begin):
            with pytest.raises(InvalidArgumentType, match=rf"'{parameter}' must be .*not"):
                call(*args)
        assert bench.client.statistics().messages_sent == sent

    @pytest.mark.parametrize(
        ("args", "kwargs"),
        [((), {}), ((1, 2, 3), {}), ((1,), {"left": 1}), ((1,), {"middle": 2}), ((), {"right": 1})],
    )
    def test_wrong_numbers(self, bench: Bench, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Missing, surplus, unknown and doubled arguments are refused, naming the operation."""
        with pytest.raises(InvalidArgumentType, match="add"):
            bench.probe.add(*args, **kwargs)
        with pytest.raises(InvalidArgumentType, match="add"):
            bench.probe.add.begin(*args, **kwargs)

    def test_wrong_types_seen_by_the_server(self, bench: Bench) -> None:
        """What a caller without the contract sends wrongly ends with 1783, naming the operation."""
        untyped = bench.client.bind("test.Probe")
        for args in (("x", 1), (), (1, 2, 3), (None,)):
            with pytest.raises(BadStubData, match="add"):
                untyped.add(*args)
        assert untyped.add(1) == 11

    def test_keywords_need_a_contract(self, bench: Bench) -> None:
        """Without a contract arguments have no names."""
        with pytest.raises(InvalidArgumentType, match="keyword"):
            bench.client.bind("test.Probe").add(left=1)

    def test_a_result_of_the_wrong_type(self, bench: Bench) -> None:
        """A result that is not what the contract says gives 1783, naming the operation."""
        with pytest.raises(BadStubData, match="mistyped"):
            bench.probe.mistyped()
        assert bench.client.bind("test.Probe").mistyped() == "not a number"


@dataclasses.dataclass
class Fussy:
    """A type with a check of its own."""

    value: int

    def __post_init__(self) -> None:
        if self.value < 0:
            raise RuntimeError("not below zero")


class TestChecksOfTypes:
    """Types that check their own values, and raise what they like."""

    class Fussing(Interface, id="test.Fussing"):
        """Takes and returns such a type."""

        @operation
        def take(self, fussy: Fussy) -> int:
            """Return the value."""

        @operation
        def give(self, value: int) -> Fussy:
            """Return it wrapped."""

    class Routines:
        """Implements `Fussing`, after a fashion."""

        def take(self, fussy: Fussy) -> int:
            return fussy.value

        def give(self, value: int) -> Any:
            return {"value": value}

    def test_at_the_server(self, local: Callable[..., Server], benches: Benches) -> None:
        """An argument that its type refuses ends the call with 1783; the server lives on."""
        server = local()
        server.register(self.Fussing, self.Routines())
        client = benches(server.endpoint).client
        call = client.bind("test.Fussing").take.begin({"value": -1})
        assert call.wait(LIMIT), "the call was never answered"
        with pytest.raises(BadStubData, match="take"):
            call.complete()
        assert client.bind(self.Fussing).take(Fussy(3)) == 3

    def test_at_the_client(self, local: Callable[..., Server], benches: Benches) -> None:
        """A result that its type refuses gives 1783."""
        server = local()
        server.register(self.Fussing, self.Routines())
        binding = benches(server.endpoint).client.bind(self.Fussing)
        with pytest.raises(BadStubData, match="give"):
            binding.give(-1)
        assert binding.give(3) == Fussy(3)

    def test_before_anything_is_sent(self, local: Callable[..., Server], benches: Benches) -> None:
        """An argument that its type refuses is refused by `begin`, naming the parameter, whatever the type raises."""
        server = local()
        server.register(self.Fussing, self.Routines())
        binding = benches(server.endpoint).client.bind(self.Fussing)
        with pytest.raises(InvalidArgumentType, match="'fussy'"):
            untyped(binding.take).begin({"value": -1})


Natural = Annotated[int, msgspec.Meta(ge=0)]
Short = Annotated[bytes, msgspec.Meta(max_length=100_000)]


class TestConstraints:
    """Constraints on values, in the annotations of a contract."""

    class Bounded(Interface, id="test.Bounded"):
        """Takes and returns such values."""

        @operation
        def root(self, number: Natural) -> Natural:
            """Return the number less 2."""

        @operation
        def total(self, numbers: list[Natural]) -> int:
            """Return the sum."""

        @operation
        def pushed(self, numbers: InPipe[Natural]) -> int:
            """Return the sum."""

        @operation
        def length(self, data: Short) -> int:
            """Return the length."""

        @operation
        def remarked(self, numbers: Annotated[InPipe[int], "a remark"], factor: Annotated[int, "another"] = 2) -> int:
            """Return the product of the sum and the factor."""

    class Routines:
        """Implements `Bounded`."""

        def root(self, number: int) -> int:
            return number - 2

        def total(self, numbers: list[int]) -> int:
            return sum(numbers)

        def pushed(self, numbers: Any) -> int:
            return sum(numbers)

        def length(self, data: bytes) -> int:
            return len(data)

        def remarked(self, numbers: Any, factor: int = 2) -> int:
            total: int = sum(numbers) * factor
            return total

    @pytest.fixture
    def client(self, local: Callable[..., Server], benches: Benches) -> Client:
        """A client of a server of them."""
        server = local()
        server.register(self.Bounded, self.Routines())
        return benches(server.endpoint).client

    def test_values_that_keep_them(self, client: Client) -> None:
        """A value that keeps its constraints is taken."""
        bounded = client.bind(self.Bounded)
        assert (bounded.root(2), bounded.total([0, 1]), bounded.pushed([1, 2])) == (0, 1, 3)
        assert (bounded.length(bytes(100)), untyped(bounded.length)(bytearray(100_000))) == (100, 100_000)

    def test_before_anything_is_sent(self, client: Client) -> None:
        """One that does not is refused by the client, naming the parameter or the pipe."""
        bounded = client.bind(self.Bounded)
        bounded.root(2)  # From here on only calls are sent.
        sent = client.statistics().messages_sent
        with pytest.raises(InvalidArgumentType, match="'number'.*>= 0"):
            bounded.root(-1)
        with pytest.raises(InvalidArgumentType, match="'numbers'.*>= 0"):
            bounded.total([1, -1])
        with pytest.raises(InvalidArgumentType, match="'data'.*length"):
            bounded.length(bytes(100_001))
        assert client.statistics().messages_sent == sent
        with pytest.raises(BadStubData, match="'numbers'.*>= 0"):
            bounded.pushed([1, -1])

    @pytest.mark.parametrize(("name", "value"), [("root", -1), ("total", [-1]), ("length", bytes(100_001))])
    def test_seen_by_the_server(self, client: Client, name: str, value: Any) -> None:
        """The server refuses it likewise, whatever its client knows."""
        with pytest.raises(BadStubData, match=name):
            getattr(client.bind("test.Bounded"), name)(value)

    def test_a_result(self, client: Client) -> None:
        """A result that breaks its constraints gives 1783."""
        with pytest.raises(BadStubData, match="root.*>= 0"):
            client.bind(self.Bounded).root(1)

    def test_remarks(self, client: Client) -> None:
        """What else an annotation carries means nothing."""
        assert client.bind(self.Bounded).remarked(numbers=[1, 2]) == 6


class TestLargeValues:
    """Values that travel beside the message."""

    @pytest.mark.parametrize("size", [0, 1, 1024, OOB_LIMIT - 1, OOB_LIMIT, OOB_LIMIT + 1, 1 << 20])
    def test_bytes(self, any_bench: Bench, size: int) -> None:
        """Bytes of any size arrive as they were, there and back."""
        data = bytes(range(256)) * (size // 256 + 1)
        data = data[:size]
        assert any_bench.probe.reversed_bytes(data) == data[::-1]

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_kinds_of_buffers(self, bench: Bench, kind: type) -> None:
        """A `bytearray` or `memoryview` may stand for `bytes`, small or large; the routine gets what it asked for."""
        for size in (10, 1 << 18):
            assert bench.probe.checksum(kind(b"\1" * size)) == size

    def test_views(self, bench: Bench) -> None:
        """An operation may take and return `memoryview`."""
        for size in (10, 1 << 20):
            view = bench.probe.viewed(memoryview(b"\2" * size))
            assert type(view) is memoryview and view.readonly and bytes(view) == b"\2" * size

    @pytest.mark.parametrize("size", [10, 1 << 19])
    def test_a_view_that_has_gaps(self, local: Callable[..., Server], benches: Benches, size: int) -> None:
        """A `memoryview` that is not contiguous is sent as the bytes it shows, small or large, there and back."""

        class Routines:
            def every_second(self, data: memoryview) -> memoryview:
                return data[::2]

        server = local()
        server.register("gaps", Routines())
        data = bytes(index % 251 for index in range(size))
        every_second = benches(server.endpoint).client.bind("gaps").every_second
        assert bytes(every_second(memoryview(data)[::3], timeout=LIMIT)) == data[::3][::2]

    def test_several_in_one_call(self, bench: Bench) -> None:
        """Large and small arguments mix in one call."""
        assert bench.probe.two_large(b"x" * 300_000, "name", b"y" * 400_000) == (300_000, "name", 400_000)
        assert bench.probe.two_large(b"x", "name", b"y" * 400_000) == (1, "name", 400_000)
        assert bench.probe.two_large(b"", "name", b"") == (0, "name", 0)

    def test_many_outstanding(self, bench: Bench) -> None:
        """Many large calls may be outstanding; each gets its own answer."""
        values = [bytes([number]) * 200_000 for number in range(20)]
        calls = [bench.probe.reversed_bytes.begin(value) for value in values]
        small = [bench.probe.echo.begin(number) for number in range(20)]
        assert [call.result(LIMIT) for call in calls] == values
        assert [call.result(LIMIT) for call in small] == list(range(20))

    def test_inside_other_values(self, bench: Bench) -> None:
        """Large bytes inside a container travel too."""
        value = {"data": [b"z" * 500_000, "text"], "more": b"w" * 100_000}
        assert bench.probe.echo(value) == value

    def test_sixteen_megabytes(self, any_bench: Bench) -> None:
        """Sixteen megabytes arrive unharmed."""
        data = hashlib.sha256(b"seed").digest() * (1 << 19)
        assert hashlib.sha256(untyped(any_bench.probe.viewed)(data)).digest() == hashlib.sha256(data).digest()

    def test_without_a_contract(self, bench: Bench) -> None:
        """Callers without a contract send and get large bytes."""
        untyped = bench.client.bind("test.Probe")
        assert untyped.echo(b"v" * 300_000) == b"v" * 300_000
        assert untyped.checksum(b"\1" * 300_000) == 300_000

    def test_the_wrong_type(self, bench: Bench) -> None:
        """Large bytes for a parameter of another type are refused on either side."""
        with pytest.raises(InvalidArgumentType, match="left"):
            untyped(bench.probe.add)(bytes(300_000), 1)
        with pytest.raises(BadStubData):
            bench.client.bind("test.Probe").add(bytes(300_000), 1)


class TestArrays:
    """NumPy arrays."""

    @pytest.mark.parametrize(
        ("dtype", "shape"),
        [
            ("f8", (1000,)),
            ("f8", (0,)),
            ("i4", (3, 4, 5)),
            ("u1", (256, 256)),
            ("c16", (2, 2)),
            ("?", (7,)),
            (">i2", (9,)),
        ],
    )
    def test_come_back(self, any_bench: Bench, dtype: str, shape: tuple[int, ...]) -> None:
        """Arrays of numbers arrive with their type and shape, whatever their size."""
        numpy = pytest.importorskip("numpy")
        array = numpy.arange(numpy.prod(shape)).reshape(shape).astype(dtype)
        back = any_bench.probe.echo(array)
        assert back.dtype == array.dtype and back.shape == array.shape and (back == array).all()

    def test_in_another_order(self, bench: Bench) -> None:
        """An array with gaps, or in another order, arrives with its values in place."""
        numpy = pytest.importorskip("numpy")
        array = numpy.arange(1_000_000, dtype="f4").reshape(1000, 1000)
        assert (bench.probe.echo(array.T) == array.T).all()
        assert (bench.probe.echo(array[::2, ::3]) == array[::2, ::3]).all()

    @pytest.mark.parametrize("parameters", [False, True])
    def test_in_a_contract(self, local: Callable[..., Server], benches: Benches, parameters: bool) -> None:
        """A contract may name the array type, with or without the type of the items."""
        numpy = pytest.importorskip("numpy")
        kind = pytest.importorskip("numpy.typing").NDArray[numpy.float64] if parameters else numpy.ndarray

        class Arrays(Interface, id="test.Arrays"):
            @operation
            def scale(self, array: kind, factor: float) -> kind:  # type: ignore[valid-type]  # known as it runs
                """Return the array multiplied."""

        class Scaling:
            def scale(self, array: Any, factor: float) -> Any:
                return array * factor

        server = local()
        server.register(Arrays, Scaling())
        arrays = benches(server.endpoint).client.bind(Arrays)
        array = numpy.ones((300, 300))
        assert (arrays.scale(array, 3.0) == array * 3).all()
        with pytest.raises(InvalidArgumentType, match="array"):
            arrays.scale([1, 2, 3], 2.0)

    def test_without_a_copy(self, any_bench: Bench) -> None:
        """A large array is sent from where it is, and one that arrived lies in the message that brought it: neither
        takes memory of its own. So what arrived is read-only.
        """
        numpy = pytest.importorskip("numpy")
        array = numpy.ones(2 << 20)
        any_bench.probe.nothing()
        tracemalloc.start()
        try:
            call = any_bench.probe.echo.begin(array)
            assert call.wait(LIMIT)
            sent = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            back = call.complete()
            received = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
        assert (back == array).all() and not back.flags.owndata and not back.flags.writeable
        assert received < array.nbytes / 4
        if any_bench.client.endpoint.startswith("native+"):  # What the answer takes is counted, with what it grew from.
            assert sent < 2 * array.nbytes
        elif any_bench.client.endpoint.startswith("tls"):  # What waits to be written is encrypted.
            assert sent < 3 * array.nbytes
        elif not any_bench.client.endpoint.startswith(("inproc", "loopback")):  # There the server's memory counts too.
            assert sent < array.nbytes / 4

    def test_of_objects(self, bench: Bench) -> None:
        """An array of objects cannot travel; `begin` says so, naming the parameter."""
        numpy = pytest.importorskip("numpy")
        with pytest.raises(InvalidArgumentType, match="echo: parameter 'value' cannot be sent: an array of object"):
            bench.probe.echo(numpy.array([object()]))
        with pytest.raises(InvalidArgumentType, match="plain: argument 1 cannot be sent: an array of object"):
            bench.client.bind("test.Probe").plain(numpy.array([1]), numpy.array([object()]))
        assert bench.probe.echo("unharmed") == "unharmed"

    def test_of_objects_as_a_result(self, local: Callable[..., Server], benches: Benches) -> None:
        """Returned, it gives 1783, which speaks of the result."""
        numpy = pytest.importorskip("numpy")

        class Routines:
            def objects(self) -> Any:
                return numpy.array([object()])

        server = local()
        server.register("objects", Routines())
        with pytest.raises(BadStubData, match="the result of objects cannot be sent: an array of object"):
            benches(server.endpoint).client.bind("objects").objects()

    @pytest.mark.parametrize("size", [0, 3, 100_000])
    def test_that_may_be_missing(self, local: Callable[..., Server], benches: Benches, size: int) -> None:
        """A contract may ask for an array or None."""
        numpy = pytest.importorskip("numpy")
        contract = strange({"argument": numpy.ndarray | None, "return": numpy.ndarray | None})
        server = local()
        server.register(contract, Returning())
        operation = untyped(benches(server.endpoint).client.bind(contract)).strange
        assert (operation(numpy.arange(size)) == numpy.arange(size)).all()
        assert operation(None) is None
        with pytest.raises(InvalidArgumentType, match="'argument'"):
            operation([1, 2])

    def test_masked(self, local: Callable[..., Server], benches: Benches) -> None:
        """A masked array is refused, since its mask would be lost."""
        masked = pytest.importorskip("numpy").ma.array([1, 2], mask=[False, True])
        server = local()
        server.register("masked", Returning(masked))
        binding = benches(server.endpoint).client.bind("masked")
        with pytest.raises(InvalidArgumentType, match="argument 0.*masked"):
            binding.strange(masked)
        with pytest.raises(BadStubData, match="masked"):
            binding.strange()

    @pytest.mark.parametrize("wrap", [lambda array: [array], lambda array: {"key": (1, array)}])
    def test_inside_other_values(self, local: Callable[..., Server], benches: Benches, wrap: Any) -> None:
        """Arrays do not travel inside other values; it is said what can be done."""
        value = wrap(pytest.importorskip("numpy").arange(3))
        server = local()
        server.register("inside", Returning(value))
        binding = benches(server.endpoint).client.bind("inside")
        with pytest.raises(InvalidArgumentType, match="argument 0.*an array inside another value"):
            binding.strange(value)
        with pytest.raises(BadStubData, match="an array inside another value"):
            binding.strange()

    def test_inside_other_types(self, bench: Bench, server: Server) -> None:
        """A contract that says so is refused as it is bound or registered, naming what has them."""
        array: Any = pytest.importorskip("numpy").ndarray
        pipe: Any = InPipe
        for annotations, named in (
            ({"first": int, "second": list[array]}, "parameter 'second'"),
            ({"first": tuple[array, int]}, "parameter 'first'"),
            ({"first": msgspec.defstruct("Holder", [("arrays", dict[str, array])]) | None}, "parameter 'first'"),
            ({"first": pipe[array]}, "pipe 'first'"),
            ({"return": tuple[int, array | None]}, "the result"),
        ):
            for use in (bench.client.bind, lambda interface: server.register(interface, object())):
                with pytest.raises(InvalidParameter, match=f"strange: {named} has arrays inside another value"):
                    use(strange(annotations))

    def test_types_that_contain_themselves(self, bench: Bench) -> None:
        """A type that contains itself has no arrays inside by that."""
        pytest.importorskip("numpy")
        assert untyped(bench.client.bind(strange({"tree": Tree}))).strange is not None


class Tree(msgspec.Struct):
    """A type that contains itself."""

    children: list["Tree"] = []


class TestScalars:
    """NumPy's scalars stand for plain values."""

    VALUES = (("float64", 1.5, float), ("float32", 0.5, float), ("int64", -3, int), ("uint8", 7, int),
              ("bool_", True, bool), ("str_", "text", str), ("bytes_", b"bytes", bytes))  # fmt: skip

    @pytest.mark.parametrize(("kind", "plain", "wanted"), VALUES)
    def test_as_argument_and_result(
        self, local: Callable[..., Server], benches: Benches, kind: str, plain: Any, wanted: type
    ) -> None:
        """One may be an argument, a result, and a part of a result, and arrives as what the annotation says."""
        scalar = getattr(pytest.importorskip("numpy"), kind)(plain)
        contract = strange({"argument": wanted, "return": wanted})
        server, other = local(), local()
        server.register(contract, Returning())
        other.register("parts", Returning([scalar, {"part": scalar}]))
        back = untyped(benches(server.endpoint).client.bind(contract)).strange(scalar)
        assert back == plain and type(back) is wanted
        assert benches(other.endpoint).client.bind("parts").strange() == [plain, {"part": plain}]

    def test_of_another_type(self, bench: Bench) -> None:
        """One of another type is refused as the plain value would be."""
        numpy = pytest.importorskip("numpy")
        with pytest.raises(InvalidArgumentType, match="'left'"):
            bench.probe.add(numpy.float64(1.5), 1)

    def test_for_which_there_is_none(self, bench: Bench) -> None:
        """One that no plain value stands for is refused."""
        numpy = pytest.importorskip("numpy")
        for value in (numpy.longdouble(1), numpy.complex128(1j), numpy.datetime64("2024-02-29")):
            with pytest.raises(InvalidArgumentType, match="'value' cannot be sent"):
                bench.probe.echo(value)


class TestContracts:
    """Interfaces as classes."""

    def test_names_and_versions(self) -> None:
        """An interface has an id and a version; the class's name and 1.0 unless given."""

        class Bare(Interface):
            pass

        assert (Bare.interface_id, Bare.interface_version) == ("Bare", (1, 0))
        assert (Probe.interface_id, Probe.interface_version) == ("test.Probe", (1, 2))

    @pytest.mark.parametrize("version", [1, (1,), (1, 2, 3), ("1", "0"), (-1, 0), (0, 70000), None])
    def test_versions_that_are_none(self, version: Any) -> None:
        """A version that is none is refused as the class is made."""
        with pytest.raises(InvalidParameter, match="version"):
            type("Bad", (Interface,), {}, version=version)

    @pytest.mark.parametrize("name", ["", 3, "\udcff"])
    def test_names_that_are_none(self, bench: Bench, name: Any) -> None:
        """A name that is none, or cannot be sent, is refused, as an id and as a binding."""
        with pytest.raises(EngineError, match="id"):
            type("Bad", (Interface,), {}, id=name)
        with pytest.raises(EngineError, match="interface"):
            bench.client.bind(name)
        assert bench.probe.echo("unharmed") == "unharmed"

    def test_inherited_operations(self, local: Callable[..., Server], benches: Benches) -> None:
        """An interface has the operations of its bases too."""

        class Base(Interface, id="test.Base"):
            @operation
            def one(self) -> int:
                """Return 1."""

        class Derived(Base, id="test.Derived"):
            @operation
            def two(self) -> int:
                """Return 2."""

        class Both:
            def one(self) -> int:
                return 1

            def two(self) -> int:
                return 2

        server = local()
        server.register(Derived, Both())
        derived = benches(server.endpoint).client.bind(Derived)
        assert (derived.one(), derived.two()) == (1, 2)

    def test_without_the_decorator(self, local: Callable[..., Server], benches: Benches) -> None:
        """A public method is an operation with or without the decorator; hidden ones are none."""

        class Plain(Interface, id="test.Plain"):
            def shown(self, value: int) -> int:
                """Return the value."""

            def _hidden(self) -> None:
                """No operation."""

        class Routines:
            def shown(self, value: int) -> int:
                return value

        server = local()
        server.register(Plain, Routines())
        plain = benches(server.endpoint).client.bind(Plain)
        assert plain.shown(7) == 7
        with pytest.raises(InvalidArgumentType, match="value"):
            untyped(plain.shown)("7")

    def test_a_name_of_its_own(self, bench: Bench) -> None:
        """An operation may have another name on the wire than in the class."""
        assert bench.probe.other_name() == "by another name"
        assert bench.client.bind("test.Probe").renamed() == "by another name"
        assert status_of(bench.client.bind("test.Probe").other_name) == 1745

    @pytest.mark.parametrize("source", ["*args: int", "**kwargs: int", "*, only: int"])
    def test_parameters_that_cannot_be_sent(self, bench: Bench, source: str) -> None:
        """An operation takes plain positional parameters only; others are refused as it is bound."""
        space: dict[str, Any] = {"Interface": Interface}
        exec(f"class Bad(Interface):\n    def bad(self, {source}) -> None: ...\n", space)
        with pytest.raises(InvalidParameter, match="bad"):
            bench.client.bind(space["Bad"])

    @pytest.mark.parametrize(
        ("annotations", "named"),
        [
            ({"fine": int, "mixed": bytes | str}, "parameter 'mixed'"),
            ({"mixed": list[dict[str, bytes | str]]}, "parameter 'mixed'"),
            ({"mixed": untyped(InPipe)[bytes | str]}, "pipe 'mixed'"),
            ({"fine": int, "return": bytes | str}, "the result"),
        ],
    )
    def test_types_that_cannot_be_sent(
        self, bench: Bench, server: Server, annotations: dict[str, Any], named: str
    ) -> None:
        """A type that no decoder could read is refused as the contract is bound or registered, naming what has it."""

        for use in (bench.client.bind, lambda interface: server.register(interface, object())):
            with pytest.raises(InvalidParameter, match=rf"strange: {named}.*bytes \| str"):
                use(strange(annotations))

    @pytest.mark.parametrize("interface", [3, None, int, object()])
    def test_a_binding_to_what_is_none(self, bench: Bench, interface: Any) -> None:
        """Something that is no interface cannot be bound."""
        with pytest.raises(InvalidArgumentType, match="interface"):
            bench.client.bind(interface)

    def test_bindings_are_typed(self, bench: Bench) -> None:
        """A binding is an instance of its interface, and its operations are described."""
        assert isinstance(bench.probe, Probe)
        assert isinstance(bench.probe.echo, Operation)
        assert bench.probe.echo.__doc__ == "Return the value."
        assert bench.probe.note.one_way and not bench.probe.echo.one_way

    def test_many_bindings(self, services: Callable[..., str]) -> None:
        """Bindings are cheap, share the connection, and need no closing."""
        with Client(services("ipc")) as client:
            for number in range(200):
                assert client.bind(Probe).echo(number) == number
            assert client.statistics().connections == 1


class TestOneWay:
    """`maybe`: operations without an answer (8.5)."""

    def test_returns_at_once(self, any_bench: Bench, key: str) -> None:
        """A one-way call is complete when it is accepted, and runs at the server."""
        call = any_bench.probe.note.begin(key)
        assert call.done() and call.complete() is None
        assert any_bench.probe.note(key) is None
        assert any_bench.control.noted(key) >= 1

    def test_is_told_like_any_other(self, bench: Bench, key: str, port: CompletionPort) -> None:
        """Its notification comes, once."""
        call = bench.probe.note.begin(key, notify=port)
        assert port.get(LIMIT).overlapped is call
        assert status_of(lambda: port.get(0)) == 258

    def test_nothing_comes_back(self, bench: Bench) -> None:
        """Not even an error comes back: an unknown operation, or one that fails."""

        class Unknown(Interface, id="test.Probe", version=(1, 0)):
            @operation(one_way=True)
            def unknown(self) -> None:
                """Unknown to the service."""

            @operation(one_way=True)
            def mistyped(self) -> None:
                """Returns a value at the service."""

            @operation(one_way=True)
            def fail(self, kind: str, text: str) -> None:
                """Raises at the service."""

        binding = bench.client.bind(Unknown)
        binding.unknown()
        binding.mistyped()
        binding.fail("ValueError", "nobody hears")
        bench.probe.nothing()
        assert bench.client.statistics().replies_late == 0

    def test_to_nobody(self, endpoint: str) -> None:
        """A one-way call to nobody succeeds: delivery is not promised."""
        with Client(endpoint, connect_timeout=0.05) as client:
            assert client.bind(Probe).note.begin("nobody").complete() is None

    def test_arguments_are_checked(self, bench: Bench) -> None:
        """Its arguments are checked as any."""
        with pytest.raises(InvalidArgumentType, match="key"):
            untyped(bench.probe.note)(3)
