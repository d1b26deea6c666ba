"""`[out]` and `[in, out]` parameters: buffers of the caller's, filled on complete. Sections 1.1, 1.5 and 11."""

import array
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine import (
    BadStubData,
    Call,
    CallCancelled,
    CompletionPort,
    InOut,
    Interface,
    InvalidArgumentType,
    InvalidParameter,
    Out,
    RemoteFault,
    Server,
    ServerCall,
    Status,
    manager,
    operation,
)
from engine.testing import LIMIT
from transport.frames import MAX_MESSAGE_BYTES

from ..helpers import Bench, new_endpoint, untyped

numpy: Any = pytest.importorskip("numpy")
pytest.importorskip("numpy.typing")

LARGE = 300_000  # Bytes: they travel out of band.


class Buffers(Interface, id="test.Buffers"):
    """Operations with outputs of every sort."""

    @operation
    def read(self, start: int, data: Out[bytearray]) -> int:
        """Fill the buffer with numbers from `start`; return its size."""

    @operation
    def read_some(self, size: int, data: Out[bytearray]) -> None:
        """Leave `size` bytes in the buffer."""

    @operation
    def reverse(self, data: InOut[memoryview]) -> str:
        """Turn the contents around; return "reversed"."""

    @operation
    async def reverse_async(self, data: InOut[bytearray]) -> str:
        """The same by an `async def` routine."""

    @operation
    def later(self, key: str, data: InOut[bytearray]) -> str:
        """A manager routine: the test answers."""

    @operation
    def fail(self, data: Out[bytearray], more: InOut[bytearray]) -> None:
        """Write into both, then raise."""

    @operation
    def several(self, first: Out[bytearray], number: int, second: InOut[bytearray], third: Out[bytearray]) -> bytes:
        """Put the sizes into the buffers, and return the `second` as it came."""

    @operation
    def scale(self, factor: float, values: InOut[numpy.ndarray], before: Out[numpy.ndarray]) -> int:
        """Multiply in place; `before` gets the values as they were. Return how many there are."""

    @operation
    def reshape(self, values: Out[numpy.typing.NDArray[numpy.float64]]) -> None:
        """Answer, by hand, with an array of another shape."""


class Routines:
    """Implements `Buffers`; keeps what `later` was given."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.held: tuple[ServerCall, bytearray] | None = None

    def read(self, start: int, data: bytearray) -> int:
        assert type(data) is bytearray and not any(data)
        for at in range(len(data)):
            data[at] = (start + at) % 256
        return len(data)

    def read_some(self, size: int, data: bytearray) -> None:
        data[:] = b"x" * size

    def reverse(self, data: memoryview) -> str:
        assert type(data) is memoryview and not data.readonly
        data[:] = bytes(data)[::-1]
        return "reversed"

    async def reverse_async(self, data: bytearray) -> str:
        data.reverse()
        return "reversed"

    @manager
    def later(self, call: ServerCall, key: str, data: bytearray) -> None:
        self.held = (call, data)
        self.arrived.set()

    def fail(self, data: bytearray, more: bytearray) -> None:
        data[:] = b"y" * len(data)
        more.clear()
        raise KeyError("after writing")

    def several(self, first: bytearray, number: int, second: bytearray, third: bytearray) -> bytes:
        came = bytes(second)
        for data in (first, second, third):
            data[:] = bytes([len(data) % 256]) * len(data)
        return came

    def scale(self, factor: float, values: Any, before: Any) -> int:
        assert values.flags.writeable and (values.dtype, values.shape) == (before.dtype, before.shape)
        before[...] = values
        values[...] = (values * factor).astype(values.dtype)
        return int(values.size)

    @manager
    def reshape(self, call: ServerCall, values: Any) -> None:
        values.resize((values.size,), refcheck=False)
        call.complete()


class Fixture:
    """A server of `Buffers`, what its routines hold, and a binding."""

    def __init__(self, endpoint: str, benches: Callable[..., Bench]) -> None:
        self.routines = Routines()
        self.server = Server(endpoint)
        self.server.register(Buffers, self.routines)
        self.server.listen()
        self.client = benches(self.server.endpoint).client
        self.binding = self.client.bind(Buffers)

    def hold(self, buffer: Any, **options: Any) -> tuple[Call[str], ServerCall, bytearray]:
        """Begin `later`; return the call, the server's handle, and the routine's buffer."""
        call: Call[str] = self.binding.later.begin("key", buffer, **options)
        assert self.routines.arrived.wait(LIMIT)
        assert self.routines.held is not None
        return call, *self.routines.held


@pytest.fixture(params=["tcp", "ipc", "native+tcp", "inproc", "loopback"])
def each(request: pytest.FixtureRequest, benches: Callable[..., Bench], folder: Any) -> Iterator[Fixture]:
    """The service on each transport."""
    fixture = Fixture(new_endpoint(request.param, folder), benches)
    yield fixture
    fixture.server.close(0)


@pytest.fixture
def one(benches: Callable[..., Bench], folder: Any) -> Iterator[Fixture]:
    """The service over ipc."""
    fixture = Fixture(new_endpoint("ipc", folder), benches)
    yield fixture
    fixture.server.close(0)


class TestFilledOnComplete:
    """Buffers are filled exactly when the call is completed, and only if it succeeded (1.5)."""

    @pytest.mark.parametrize("size", [0, 1, 1000, LARGE])
    def test_out(self, each: Fixture, size: int) -> None:
        """The routine gets a zeroed buffer of the caller's size; its contents are the caller's on complete."""
        buffer = bytearray(b"\xff" * size)
        call = each.binding.read.begin(5, buffer)
        assert call.wait(LIMIT)
        assert buffer == b"\xff" * size, "nothing is touched before completing"
        assert call.complete() == size
        assert buffer == bytes((5 + at) % 256 for at in range(size))

    @pytest.mark.parametrize("size", [0, 1, 1000, LARGE])
    @pytest.mark.parametrize("name", ["reverse", "reverse_async"])
    def test_in_out(self, each: Fixture, name: str, size: int) -> None:
        """The routine gets the contents, and what it leaves is the caller's on complete."""
        buffer = bytearray(at % 251 for at in range(size))
        wanted = bytes(buffer)[::-1]
        call = getattr(each.binding, name).begin(buffer)
        assert call.wait(LIMIT)
        assert buffer == wanted[::-1], "nothing is touched before completing"
        assert call.complete() == "reversed"
        assert buffer == wanted

    def test_the_blocking_twin(self, one: Fixture) -> None:
        """A blocking call fills them too, by position or by name."""
        buffer = bytearray(3)
        assert one.binding.read(7, buffer) == 3 and buffer == b"\7\10\11"
        assert one.binding.read(start=1, data=buffer) == 3 and buffer == b"\1\2\3"

    def test_a_manager_routine(self, one: Fixture) -> None:
        """The buffers of an asynchronous manager routine are final when it completes the call, from any thread."""
        buffer = bytearray(b"abc")
        call, handle, data = one.hold(buffer)
        assert data == b"abc" and not call.done()
        data[:] = b"xyz"
        handle.complete("done")
        assert call.result(LIMIT) == "done" and buffer == b"xyz"

    def test_told_before_filled(self, one: Fixture, port: CompletionPort) -> None:
        """A notification fills nothing: whoever takes the packet completes, and finds the buffer filled then."""
        buffer = bytearray(4)
        one.binding.read.begin(1, buffer, notify=port)
        call = port.get(LIMIT).overlapped
        assert buffer == bytes(4)
        call.complete()
        assert buffer == b"\1\2\3\4"

    def test_less_than_there_is_room_for(self, one: Fixture) -> None:
        """What the routine leaves fills the buffer from its beginning; the rest stays as it was."""
        buffer = bytearray(b"-----")
        one.binding.read_some(2, buffer)
        assert buffer == b"xx---"

    def test_several(self, each: Fixture) -> None:
        """Several outputs, large and small, in any places among the parameters, with a large result beside them."""
        first, second, third = bytearray(LARGE), bytearray(b"s" * (LARGE + 1)), bytearray(3)
        assert each.binding.several(first, 1, second, third) == b"s" * (LARGE + 1)
        assert first == bytes([LARGE % 256]) * LARGE
        assert second == bytes([(LARGE + 1) % 256]) * (LARGE + 1)
        assert third == b"\3\3\3"

    def test_together_with_into(self, one: Fixture) -> None:
        """The result may fill a buffer of its own; if that one is too small, none is filled."""
        first, second, third, result = bytearray(1), bytearray(b"ab"), bytearray(1), bytearray(9)
        one.binding.several(first, 1, second, third, into=result)
        assert (first, second, third, result[:2]) == (b"\1", b"\2\2", b"\1", b"ab")
        second[:] = b"ab"
        call = one.binding.several.begin(first, 1, second, third, into=bytearray(1))
        assert call.wait(LIMIT)
        with pytest.raises(BadStubData):
            call.complete()
        assert second == b"ab"

    def test_the_buffer_is_free_afterwards(self, one: Fixture) -> None:
        """Once the call was completed the buffer may be resized, though the handle is still there."""
        buffer = bytearray(4)
        call = one.binding.read.begin(1, buffer)
        assert call.result(LIMIT) == 4
        buffer += b"more"
        assert buffer == b"\1\2\3\4more"
        assert call.state.name == "SPENT"


class TestLeftAlone:
    """On any other outcome than success no output is valid, and none is touched."""

    def test_a_fault(self, each: Fixture) -> None:
        """A routine that wrote, and then raised, changes nothing at the caller's."""
        data, more = bytearray(b"data"), bytearray(b"more")
        with pytest.raises(RemoteFault, match="after writing"):
            each.binding.fail(data, more)
        assert (data, more) == (b"data", b"more")

    def test_an_abort(self, one: Fixture) -> None:
        """So it is if the call is aborted."""
        buffer = bytearray(b"abc")
        call, handle, data = one.hold(buffer)
        data[:] = b"xyz"
        handle.abort(4711)
        assert call.wait(LIMIT)
        with pytest.raises(RemoteFault):
            call.complete()
        assert buffer == b"abc"

    def test_a_cancelled_call(self, one: Fixture) -> None:
        """An abortive cancel leaves the buffer to the caller at once; a late reply does not fill it."""
        buffer = bytearray(b"abc")
        call, handle, data = one.hold(buffer)
        call.cancel(abort=True)
        with pytest.raises(CallCancelled):
            call.complete()
        data[:] = b"xyz"
        handle.complete("late")
        one.binding.read(0, bytearray(1))  # Behind the late reply.
        assert buffer == b"abc"

    def test_contents_that_do_not_fit(self, one: Fixture) -> None:
        """More than there is room for is 122, names the parameter, and fills nothing."""
        buffer = bytearray(b"abc")
        call = one.binding.read_some.begin(4, buffer)
        assert call.wait(LIMIT)
        with pytest.raises(BadStubData, match="'data'") as caught:
            call.complete()
        assert caught.value.status == Status.BUFFER_TOO_SMALL == 122
        assert buffer == b"abc"

    def test_an_array_of_another_shape(self, one: Fixture) -> None:
        """It is 1783, and nothing is filled."""
        values = numpy.ones((2, 3))
        with pytest.raises(BadStubData, match="'values'") as caught:
            one.binding.reshape(values)
        assert caught.value.status == 1783
        assert (values == 1).all()


class TestKindsOfBuffers:
    """What a caller may supply."""

    @pytest.mark.parametrize("size", [3, LARGE])
    def test_a_view(self, one: Fixture, size: int) -> None:
        """A part of a buffer is filled where it is."""
        buffer = bytearray(size + 4)
        assert untyped(one.binding.read)(1, memoryview(buffer)[2:-2]) == size
        assert buffer[:4] == b"\0\0\1\2" and buffer[-2:] == b"\0\0"

    @pytest.mark.parametrize("count", [4, LARGE // 4])
    def test_an_array_of_the_standard_library(self, one: Fixture, count: int) -> None:
        """An `array.array` is filled as bytes; its items are the caller's business."""
        items = array.array("I", range(count))
        wanted = items.tobytes()[::-1]
        assert untyped(one.binding.reverse)(items) == "reversed"
        assert items.tobytes() == wanted

    def test_a_numpy_array_as_bytes(self, one: Fixture) -> None:
        """A NumPy array may stand for bytes."""
        items = numpy.zeros(4, "u1")
        assert one.binding.read(1, items) == 4
        assert items.tolist() == [1, 2, 3, 4]

    def test_an_array_that_became_read_only(self, one: Fixture) -> None:
        """It is refused as the call is completed, before any other buffer of the call is filled."""
        values, before = numpy.ones(3), numpy.zeros(3)
        call = one.binding.scale.begin(2.0, values, before)
        before.flags.writeable = False
        assert call.wait(LIMIT)
        with pytest.raises(BadStubData, match="read-only"):
            call.complete()
        assert values.tolist() == [1.0, 1.0, 1.0]

    @pytest.mark.parametrize("dtype", ["<f8", ">i4", "u1", "<c16", "?"])
    @pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4), (300, 200)])
    def test_numpy_arrays(self, one: Fixture, dtype: str, shape: tuple[int, ...]) -> None:
        """Where an array is asked for the routine gets one of the caller's type and shape."""
        values = numpy.arange(numpy.prod(shape, dtype=int)).reshape(shape).astype(dtype)
        was = values.copy()
        before = numpy.empty(shape, dtype)
        assert one.binding.scale(2.0, values, before) == values.size
        assert (before == was).all() and (values == (was * 2.0).astype(dtype)).all()

    def test_arrays_with_gaps(self, one: Fixture) -> None:
        """A slice, or a transposed array, is filled where it is."""
        base = numpy.zeros((4, 6))
        base[::2, ::3] = 1
        before = numpy.zeros((2, 2)).T
        one.binding.scale(5.0, base[::2, ::3], before)
        assert (before == 1).all() and base.sum() == 20 and (base[::2, ::3] == 5).all()


class TestRefused:
    """What is refused as the call is begun: nothing is sent, and the parameter is named."""

    @pytest.mark.parametrize(
        "bad",
        [b"readonly", memoryview(b"readonly"), "text", 5, None, [1], memoryview(bytearray(9))[::2],
         numpy.zeros(4)[::2]],
        ids=["bytes", "readonly", "text", "5", "None", "list", "strided", "strided array"],
    )  # fmt: skip
    def test_what_cannot_be_filled(self, one: Fixture, bad: Any) -> None:
        """A read-only buffer, one with gaps, or none at all."""
        for begin in (lambda: one.binding.read.begin(1, bad), lambda: one.binding.read(1, bad)):
            with pytest.raises(InvalidArgumentType, match="'data' must be a writable buffer"):
                begin()
        with pytest.raises(InvalidArgumentType, match="'second'"):
            one.binding.several.begin(bytearray(1), 1, bad, bytearray(1))
        assert one.client.statistics().calls_begun == 0

    def test_arrays_that_cannot_be_filled(self, one: Fixture) -> None:
        """A read-only array, or something else where an array is asked for."""
        readonly = numpy.zeros(3)
        readonly.flags.writeable = False
        for bad in (readonly, numpy.ma.array(numpy.zeros(3)), bytearray(24), [1.0]):
            with pytest.raises(InvalidArgumentType, match="'before' must be a writable ndarray"):
                one.binding.scale.begin(1.0, numpy.zeros(3), bad)
        with pytest.raises(InvalidArgumentType, match="scale"):
            one.binding.scale.begin(1.0, numpy.array([object()]), numpy.zeros(1))
        assert one.client.statistics().calls_begun == 0

    def test_a_buffer_larger_than_any_message(self, one: Fixture) -> None:
        """It could not be filled: the limit and the size are named."""
        huge = numpy.empty(MAX_MESSAGE_BYTES + 1, "u1")  # Memory that is never touched.
        with pytest.raises(InvalidArgumentType, match=f"'data'.*{MAX_MESSAGE_BYTES + 1}.*{MAX_MESSAGE_BYTES}"):
            one.binding.read.begin(1, huge)
        with pytest.raises(InvalidArgumentType, match="'values'"):
            one.binding.reshape.begin(huge)

    def test_missing_arguments(self, one: Fixture) -> None:
        """The buffers are arguments like others: each must be there."""
        with pytest.raises(InvalidArgumentType, match="data"):
            untyped(one.binding.read).begin(1)
        with pytest.raises(InvalidArgumentType, match="'start'"):
            untyped(one.binding.read).begin("one", bytearray(1))

    @pytest.mark.parametrize("room", [-1, MAX_MESSAGE_BYTES + 1, 1 << 62, "text", None, 1.5, ["<f8", [1]]], ids=str)
    def test_a_size_that_cannot_be(self, one: Fixture, room: Any) -> None:
        """A peer that asks for a buffer beyond all bounds gets 1783, and the server goes on."""
        with pytest.raises(BadStubData, match="read"):
            one.client.bind("test.Buffers").read(1, room)
        assert one.binding.read(1, bytearray(2)) == 2

    @pytest.mark.parametrize(
        "room",
        [
            5, ["|O", [1]], ["<f8", [-1]], ["<f8", [-2, -2]], ["<f8", [1 << 40, 1 << 40]], ["(3,)<f8", [1]],
            ["nonsense", [1]], ["u1", [MAX_MESSAGE_BYTES + 1]],
        ],
        ids=str,
    )  # fmt: skip
    def test_an_array_that_cannot_be(self, one: Fixture, room: Any) -> None:
        """So it is with arrays: of objects, of no size, of a type that is none."""
        with pytest.raises(BadStubData, match="reshape: no buffer can be made for .values."):
            one.client.bind("test.Buffers").reshape(room)

    def test_a_declaration_that_cannot_be(self, one: Fixture) -> None:
        """An output is a buffer, and something comes back."""

        class Text(Interface):
            @operation
            def read(self, data: Out[str]) -> None:
                """A text cannot be filled."""

        class OneWay(Interface):
            @operation(one_way=True)
            def read(self, data: Out[bytearray]) -> None:
                """Nothing comes back."""

        with pytest.raises(InvalidParameter, match="'data'"):
            one.client.bind(Text)
        with pytest.raises(InvalidParameter, match="one-way"):
            one.client.bind(OneWay)


class TestWithoutACopy:
    """Large contents travel as frames of their own (10)."""

    def test_memory(self, benches: Callable[..., Bench]) -> None:
        """Filling a large array takes no second buffer at the client: peak memory grows by less than one more."""
        import tracemalloc

        size = 16 << 20
        fixture = Fixture("loopback://outputs", benches)
        try:
            values, before = numpy.ones(size // 8), numpy.empty(size // 8)
            call = fixture.binding.scale.begin(2.0, values, before)
            assert call.wait(LIMIT)
            gc.collect()
            tracemalloc.start()
            call.complete()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < size // 4
            assert (values == 2).all() and (before == 1).all()
        finally:
            fixture.server.close(0)
