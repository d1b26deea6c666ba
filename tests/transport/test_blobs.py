"""Values out of band, and decoding to annotations."""

import struct
from typing import Any

import msgspec
import pytest

from transport import Buffer, PayloadTooLarge
from transport.frames import Blob, CallOptions, Target
from transport.wire.blobs import OOB_LIMIT, ArgsDecoder, ValueDecoder, empty_array, split_out_of_band
from transport.wire.codec import decode, encode_call, encode_parts, encode_reply

from ..one_by_one import calls_in, replies_in

ECHO = Target("demo.Echo", 1, 0, "echo")
LARGE = bytes(range(256)) * (OOB_LIMIT // 256)


def deliver_call(args: list[object], decoder: ArgsDecoder, options: CallOptions | None = None) -> list[object]:
    """Encode a call, decode it, and decode its arguments."""
    frames = encode_call(ECHO, 1, args, options)
    (call,) = calls_in(decode([bytes(frame) for frame in frames]))
    described = call.options.blobs if call.options else None
    return list(decoder(call.args, frames[1:], described))


def deliver_reply(value: object, annotation: Any = Any) -> Any:
    frames: list[Buffer] = [bytes(frame) for frame in encode_reply(1, value)]
    (reply,) = replies_in(decode(frames))
    return ValueDecoder[Any](annotation)(reply.value, frames[1:], reply.options.blobs if reply.options else None)


class TestSplit:
    """What leaves the body."""

    def test_small_values_stay(self) -> None:
        """There is nothing to split, and the answer is None."""
        assert (
            split_out_of_band([b"small", bytearray(b"small"), memoryview(b"small"), 1, "x" * 100_000, None, [LARGE]])
            is None
        )
        assert split_out_of_band([]) is None

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_large_bytes_leave(self, kind: type) -> None:
        """From OOB_LIMIT on, whatever the kind, and in place of it there is None."""
        value = kind(LARGE)
        split = split_out_of_band([1, value, b"small"])
        assert split is not None
        rest, blobs, descriptors = split
        assert rest == [1, None, b"small"]
        assert [bytes(blob) for blob in blobs] == [LARGE]
        assert descriptors == [Blob(1, "b")]
        assert split_out_of_band([kind(LARGE[:-1])]) is None

    def test_nothing_is_copied(self) -> None:
        """The blob is the caller's own memory."""
        buffer = bytearray(LARGE)
        split = split_out_of_band([LARGE, buffer])
        assert split is not None
        assert split[1][0] is LARGE
        assert split[1][1] is buffer

    def test_a_view_that_is_not_in_one_piece(self) -> None:
        """It is copied into one."""
        view = memoryview(LARGE * 2)[::2]
        split = split_out_of_band([view])
        assert split is not None
        assert bytes(split[1][0]) == view.tobytes()

    def test_a_view_of_wider_items(self) -> None:
        """Its bytes travel."""
        view = memoryview(bytearray(OOB_LIMIT)).cast("d")
        view[0] = 1.5
        split = split_out_of_band([view])
        assert split is not None
        assert struct.unpack_from("d", split[1][0]) == (1.5,)


class TestBytes:
    """Bytes out of band arrive as what the annotation asks for."""

    def test_arguments(self) -> None:
        """Large and small ones, in their places, beside others."""
        decoder = ArgsDecoder([int, bytes, bytearray, str])
        assert deliver_call([1, LARGE, bytearray(LARGE), "x"], decoder) == [1, LARGE, bytearray(LARGE), "x"]
        assert deliver_call([1, b"small", bytearray(b"b"), "x"], decoder) == [
            1,
            b"small",
            bytearray(b"b"),
            "x",
        ]
        assert deliver_call([1, LARGE, bytearray(b"b"), "x"], decoder) == [1, LARGE, bytearray(b"b"), "x"]

    def test_options_are_kept(self) -> None:
        """What the caller set travels with the descriptions."""
        frames = encode_call(ECHO, 1, [LARGE], CallOptions(lane=5))
        (call,) = calls_in(decode(frames))
        options = call.options
        assert options is not None
        assert options.lane == 5
        assert options.blobs == [Blob(0, "b")]

    @pytest.mark.parametrize("annotation", [Any, bytes, bytearray, memoryview, bytes | None])
    def test_results(self, annotation: Any) -> None:
        """The same for a result; a memoryview is read-only."""
        found = deliver_reply(LARGE, annotation)
        assert bytes(found) == LARGE
        if annotation in (bytearray, memoryview):
            assert type(found) is annotation
        if annotation is memoryview:
            assert found.readonly

    def test_a_memoryview_is_not_a_copy(self) -> None:
        """It shows the frame itself."""
        frame = bytearray(LARGE)
        found = ValueDecoder[Any](memoryview)(b"\xc0", [frame], [Blob(0, "b")])
        frame[0] = 99
        assert found[0] == 99

    def test_the_wrong_annotation(self) -> None:
        """It is a ValidationError."""
        with pytest.raises(msgspec.ValidationError):
            deliver_reply(LARGE, int)
        with pytest.raises(msgspec.ValidationError):
            deliver_call([LARGE], ArgsDecoder([str]))

    def test_too_large_for_a_message(self) -> None:
        """The blobs count."""
        with pytest.raises(PayloadTooLarge):
            encode_call(ECHO, 1, [LARGE], max_bytes=1000)
        with pytest.raises(PayloadTooLarge):
            encode_reply(1, LARGE, max_bytes=1000)

    def test_too_many(self) -> None:
        """There is a limit to the frames of a message."""
        with pytest.raises(PayloadTooLarge):
            encode_call(ECHO, 1, [LARGE] * 257)


class TestArgsDecoder:
    """Arguments against annotations."""

    def test_they_are_checked(self) -> None:
        """A wrong one is named by its position."""
        decoder = ArgsDecoder([int, str])
        assert list(decoder(msgspec.msgpack.encode([1, "a"]))) == [1, "a"]
        with pytest.raises(msgspec.ValidationError, match=r"\$\[1\]"):
            decoder(msgspec.msgpack.encode([1, 2]))

    def test_their_number(self) -> None:
        """Missing and superfluous ones are refused, except those that have a default."""
        decoder = ArgsDecoder([int, int, int], required=1)
        for count in (1, 2, 3):
            assert list(decoder(msgspec.msgpack.encode([7] * count))) == [7] * count
        for count in (0, 4):
            with pytest.raises(msgspec.ValidationError):
                decoder(msgspec.msgpack.encode([7] * count))
        with pytest.raises(msgspec.ValidationError, match=r"\$\[1\]"):
            decoder(msgspec.msgpack.encode([7, "x"]))

    def test_many(self) -> None:
        """More than the fifteen that the shortest form of an array holds."""
        decoder = ArgsDecoder([int] * 40, required=20)
        assert list(decoder(msgspec.msgpack.encode(list(range(30))))) == list(range(30))
        assert deliver_call([*range(39), 5], decoder) == [*range(39), 5]

    def test_several_calls(self) -> None:
        """Arguments of several calls are decoded in one step if all have all of them, in band; else it is an error."""
        decoder = ArgsDecoder([int, str], required=1)
        assert decoder.many(msgspec.msgpack.encode([[1, "a"], [2, "b"]])) == [(1, "a"), (2, "b")]
        for wrong in ([[1, "a"], [2]], [[1, "a"], [2, "b", 3]], [[1, "a"], ["x", "b"]], [1, "a"], {"a": 1}):
            with pytest.raises(msgspec.ValidationError):
                decoder.many(msgspec.msgpack.encode(wrong))

    def test_defaults_and_blobs(self) -> None:
        """Both at once."""
        decoder = ArgsDecoder([bytes, int, int], required=2)
        assert deliver_call([LARGE, 2], decoder) == [LARGE, 2]

    @pytest.mark.parametrize(
        "descriptors",
        [[Blob(2, "b")], [Blob(0, "b"), Blob(0, "b")], [Blob(0, "x")], [Blob(0, "b"), Blob(1, "b")]],
        ids=["beyond the arguments", "twice", "unknown kind", "more than frames"],
    )
    def test_descriptions_that_lie(self, descriptors: list[Blob]) -> None:
        """They are a ValidationError."""
        blobs = [LARGE] * (2 if descriptors[0] == descriptors[-1] and len(descriptors) == 2 else 1)
        with pytest.raises(msgspec.ValidationError):
            ArgsDecoder([bytes, int])(msgspec.msgpack.encode([None, 1]), blobs, descriptors)

    def test_what_is_no_array(self) -> None:
        """It is a ValidationError, or a DecodeError if it is nothing at all."""
        decoder = ArgsDecoder([int], required=0)
        with pytest.raises(msgspec.ValidationError):
            decoder(msgspec.msgpack.encode({"a": 1}))
        with pytest.raises(msgspec.ValidationError):
            decoder(msgspec.msgpack.encode(5), [b""], [Blob(0, "b")])
        with pytest.raises(msgspec.DecodeError):
            decoder(b"")

    def test_no_parameters(self) -> None:
        """An operation without any."""
        assert list(ArgsDecoder([])(b"\x90")) == []


class TestArrays:
    """NumPy arrays travel out of band whatever their size."""

    @pytest.fixture(autouse=True)
    def _numpy(self) -> None:
        self.np = pytest.importorskip("numpy")

    def test_round_trip(self) -> None:
        """Type, shape and items are kept, read-only."""
        np = self.np
        for array in (
            np.arange(6, dtype="<i4").reshape(2, 3),
            np.arange(6, dtype=">f8"),
            np.array(5.0),
            np.zeros((0, 4)),
            np.array([1 + 2j]),
            np.array([True, False]),
            np.array(["abc", "de"]),
            np.array([b"abc"]),
            np.array(["2024-01-01"], dtype="M8[s]"),
            np.arange(24).reshape(2, 3, 4)[:, ::2, ::-1],
            np.asfortranarray(np.arange(6).reshape(2, 3)),
        ):
            for annotation in (Any, np.ndarray):
                found = deliver_reply(array, annotation)
                assert found.dtype == array.dtype
                assert found.shape == array.shape
                assert (found == array).all()
                assert not found.flags.writeable
            (found,) = deliver_call([array], ArgsDecoder([np.ndarray]))
            assert (found == array).all()

    def test_an_array_is_not_copied(self) -> None:
        """Neither on leaving nor on arriving."""
        np = self.np
        array = np.zeros(10)
        split = split_out_of_band([array])
        assert split is not None
        array[0] = 1.5
        found = ValueDecoder[Any]()(b"\xc0", split[1], split[2])
        assert found[0] == 1.5

    def test_what_is_not_plain_memory(self) -> None:
        """Arrays of objects and of structures are refused before anything is sent."""
        np = self.np
        for array in (np.array([object()]), np.zeros(2, dtype=[("a", int)])):
            with pytest.raises(TypeError, match="cannot travel"):
                encode_call(ECHO, 1, [array])

    @pytest.mark.parametrize(
        ("dtype", "shape", "size"),
        [
            ("<f8", (2,), 15), ("<f8", (3,), 16), ("O", (2,), 16), ("nonsense", (2,), 16),
            ("f8,i4", (1,), 12), ("(2,)f8", (1,), 16), ("<f8", (1 << 62, 1 << 62), 16), ("", (2,), 16),
        ],
    )  # fmt: skip
    def test_descriptions_that_lie(self, dtype: str, shape: tuple[int, ...], size: int) -> None:
        """They are a ValidationError."""
        with pytest.raises(msgspec.ValidationError):
            ValueDecoder[Any]()(b"\xc0", [bytes(size)], [Blob(0, "a", dtype, shape)])

    def test_the_annotation_counts(self) -> None:
        """An array is not taken for something else; its bytes are to be had on demand."""
        np = self.np
        array = np.arange(3, dtype="<i4")
        with pytest.raises(msgspec.ValidationError, match="array"):
            deliver_reply(array, list[int])
        assert deliver_reply(array, bytes) == array.tobytes()
        assert bytes(deliver_reply(array, memoryview)) == array.tobytes()

    def test_scalars_are_not_arrays(self) -> None:
        """A NumPy number is as unknown to MessagePack as ever; the caller makes it an int."""
        assert split_out_of_band([self.np.int64(5)]) is None


class TestParts:
    """The reply of an operation with outputs: an array, of which each part may be out of band."""

    @pytest.mark.parametrize(
        "parts", [[1, b"a", b""], ["result", LARGE, b"b"], [LARGE, b"a", LARGE + b"b"], [None, LARGE, LARGE]], ids=len
    )
    def test_come_back(self, parts: list[Any]) -> None:
        """Large parts travel as frames of their own, in order; none of them is copied into the body."""
        frames: list[Buffer] = [bytes(frame) for frame in encode_parts(1, parts)]
        assert frames[1:] == [part for part in parts if isinstance(part, bytes) and len(part) >= OOB_LIMIT]
        (reply,) = replies_in(decode(frames))
        described = reply.options.blobs if reply.options else None
        back = ArgsDecoder([Any, memoryview, memoryview])(reply.value, frames[1:], described)
        assert list(back) == parts

    def test_too_large(self) -> None:
        """The limit counts for all of it."""
        with pytest.raises(PayloadTooLarge, match="1000"):
            encode_parts(1, [None, LARGE], max_bytes=1000)


def test_an_empty_array_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that asks for one gets a ValueError's text."""
    import sys

    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ValueError, match="numpy"):
        empty_array("<i4", (1,), 100)


def test_an_array_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a ValidationError that says what is missing, and its bytes can be had all the same."""
    import sys

    monkeypatch.setitem(sys.modules, "numpy", None)
    blob = Blob(0, "a", "<i4", (1,))
    with pytest.raises(msgspec.ValidationError, match="NumPy"):
        ValueDecoder[Any]()(b"\xc0", [bytes(4)], [blob])
    assert ValueDecoder[Any](bytes)(b"\xc0", [bytes(4)], [blob]) == bytes(4)
