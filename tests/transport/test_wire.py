"""Messages to frames and back: what the writers promise, and what `decode` makes of anything at all."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transport import (
    Buffer,
    Bye,
    CallOptions,
    Calls,
    CallWriter,
    Cancel,
    Credit,
    Fault,
    Hello,
    Kind,
    Limits,
    LocalProtocolError,
    Message,
    PayloadTooLarge,
    Pipe,
    PipeChunk,
    Reject,
    RemoteProtocolError,
    Replies,
    ReplyOptions,
    ReplyWriter,
    Target,
    ValueDecoder,
    VersionMismatch,
    Welcome,
    decode,
    encode,
    encode_call,
    encode_reply,
)

ECHO = Target("demo.Echo", 1, 0, "echo")
ADD = Target("demo.Math", 2, 1, "add")


def plain(frames: list[Buffer]) -> list[bytes]:
    return [bytes(frame) for frame in frames]


def values(message: Message) -> list[tuple[int, object]]:
    """(call id, arguments or value) of each record."""
    assert isinstance(message, Calls | Replies)
    return [
        (record.id, msgspec.msgpack.decode(record.args if isinstance(message, Calls) else record.value))
        for record in message.records  # type: ignore[union-attr]
    ]


class TestCallWriter:
    """Collecting calls for one message."""

    def test_calls_share_a_message(self) -> None:
        """Each keeps its number, target, arguments and options; equal targets are sent once."""
        writer = CallWriter()
        writer.add(ECHO, 1, ["a"])
        writer.add(ADD, 2, (1, 2), CallOptions(time_left=1.5, lane=3))
        writer.add(Target("demo.Echo", 1, 0, "echo"), 3, [])
        assert writer.count == 3
        message = decode(plain(writer.take()))
        assert isinstance(message, Calls)
        assert values(message) == [(1, ["a"]), (2, [1, 2]), (3, [])]
        assert [message.targets[record.target] for record in message.records] == [ECHO, ADD, ECHO]
        assert len(message.targets) == 2
        assert [record.options for record in message.records] == [
            None,
            CallOptions(time_left=1.5, lane=3),
            None,
        ]

    def test_one_frame(self) -> None:
        """However many calls, they are one frame."""
        writer = CallWriter()
        for number in range(500):
            writer.add(ECHO, number, [number])
        (frame,) = writer.take()
        assert values(decode([frame])) == [(number, [number]) for number in range(500)]

    def test_the_arguments_are_a_snapshot(self) -> None:
        """Changing them after `add` changes nothing."""
        writer = CallWriter()
        argument = [1, 2]
        writer.add(ECHO, 1, [argument])
        argument.append(3)
        assert values(decode(writer.take())) == [(1, [[1, 2]])]

    @pytest.mark.parametrize("first", [True, False])
    def test_what_cannot_be_encoded(self, first: bool) -> None:
        """It raises TypeError, and the writer is as it was: the other calls leave whole."""
        writer = CallWriter()
        if not first:
            writer.add(ECHO, 1, ["a"])
        before = writer.count, writer.size
        with pytest.raises(TypeError):
            writer.add(ADD, 2, ["x" * 100, object()])
        assert (writer.count, writer.size) == before
        writer.add(ECHO, 3, ["c"])
        message = decode(writer.take())
        assert values(message) == ([] if first else [(1, ["a"])]) + [(3, ["c"])]
        assert isinstance(message, Calls)
        assert {message.targets[record.target] for record in message.records} == {ECHO}

    def test_a_record_that_is_too_large(self) -> None:
        """It raises PayloadTooLarge, and the writer is as it was; many small ones may be larger in all."""
        writer = CallWriter(max_bytes=100)
        writer.add(ECHO, 1, ["a" * 80])
        with pytest.raises(PayloadTooLarge, match="100 are allowed"):
            writer.add(ECHO, 2, ["b" * 100])
        writer.add(ECHO, 3, ["c" * 80])
        assert [number for number, _ in values(decode(writer.take()))] == [1, 3]

    def test_nothing_to_take(self) -> None:
        """Taking from an empty writer is the caller's mistake."""
        for writer in (CallWriter(), ReplyWriter()):
            with pytest.raises(LocalProtocolError):
                writer.take()

    def test_it_is_empty_after_take(self) -> None:
        """The next message has nothing of the one before, and what was taken does not change any more."""
        writer = CallWriter()
        writer.add(ECHO, 1, [1])
        writer.add(ADD, 2, [2])
        first = writer.take()
        copy = plain(first)
        assert (writer.count, writer.size) == (0, 0)
        writer.add(ADD, 3, [3])
        second = decode(writer.take())
        writer.add(ADD, 4, [4])
        third = decode(writer.take())
        writer.add(ECHO, 5, [5])
        fourth = decode(writer.take())
        assert plain(first) == copy
        for message, number, target in ((second, 3, ADD), (third, 4, ADD), (fourth, 5, ECHO)):
            assert values(message) == [(number, [number])]
            assert isinstance(message, Calls)
            assert message.targets == [target]

    def test_size_grows(self) -> None:
        """`size` counts the bytes that wait."""
        writer = CallWriter()
        assert writer.size == 0
        writer.add(ECHO, 1, ["x" * 1000])
        assert 1000 < writer.size < 1050


class TestReplyWriter:
    """Collecting replies for one message."""

    def test_results_and_faults(self) -> None:
        """A result comes with status 0, a fault with its own; both in one message."""
        writer = ReplyWriter()
        writer.add(7, {"a": 1})
        writer.add_fault(8, 1726, Fault("ValueError", "no", "trace", {"code": 5}))
        writer.add_fault(9, 1727)
        writer.add(10, None, options=ReplyOptions(metadata={"k": "v"}))
        message = decode(writer.take())
        assert isinstance(message, Replies)
        assert [(record.id, record.status) for record in message.records] == [
            (7, 0),
            (8, 1726),
            (9, 1727),
            (10, 0),
        ]
        assert ValueDecoder[object]()(message.records[0].value) == {"a": 1}
        assert ValueDecoder[Fault](Fault)(message.records[1].value) == Fault(
            "ValueError", "no", "trace", {"code": 5}
        )
        assert ValueDecoder[Fault | None](Fault | None)(message.records[2].value) is None
        assert message.records[3].options == ReplyOptions(metadata={"k": "v"})

    def test_a_fault_needs_a_status(self) -> None:
        """Status 0 is success."""
        with pytest.raises(LocalProtocolError):
            ReplyWriter().add_fault(1, 0)

    def test_what_cannot_be_encoded(self) -> None:
        """The writer is as it was."""
        writer = ReplyWriter()
        writer.add(1, "a")
        with pytest.raises(TypeError):
            writer.add(2, object())
        with pytest.raises(PayloadTooLarge):
            ReplyWriter(max_bytes=10).add(3, "x" * 100)
        assert values(decode(writer.take())) == [(1, "a")]

    def test_types_of_the_field(self) -> None:
        """Structs, dataclasses, dates and the like travel, and are decoded to their annotation."""

        @dataclass
        class Point:
            x: int
            y: list[datetime]

        value = Point(1, [datetime(2024, 5, 6, tzinfo=UTC)])
        for sent, kind in ((value, Point), (UUID(int=5), UUID), ({1: {"a"}}, dict[int, set[str]])):
            message = decode(encode_reply(1, sent))
            assert isinstance(message, Replies)
            assert ValueDecoder[object](kind)(message.records[0].value) == sent


CONTROL: list[Message] = [
    Hello(bytes(16), 7, "host", "callport 1", 5.0, Limits(1, 2, 3, 4), {"a": "b"}),
    Welcome(bytes(range(16)), 8, "host", "callport 1", 0.0, Limits(), {}),
    Reject([1, 2], 1722, "not now"),
    Cancel([(1, True), (2, False)]),
    Bye(0, "done"),
    Pipe([PipeChunk(1, 0, False, msgspec.Raw(b"\x92\x01\x02")), PipeChunk(1, 0, True, msgspec.Raw(b"\x90"))]),
    Credit([(1, 0, 4096)]),
]


class TestEncode:
    """The other kinds."""

    @pytest.mark.parametrize("message", CONTROL, ids=lambda message: type(message).__name__)
    def test_round_trip(self, message: Message) -> None:
        """What was encoded is decoded again, equal."""
        again = decode(plain(encode(message)))
        assert type(again) is type(message)
        assert msgspec.msgpack.encode(again) == msgspec.msgpack.encode(message)

    def test_every_kind_has_a_number(self) -> None:
        """The fourth byte says which it is."""
        numbers = {encode(message)[0][3] for message in CONTROL} | {
            encode_call(ECHO, 1, [])[0][3],
            encode_reply(1, None)[0][3],
        }
        assert numbers == set(Kind)

    def test_a_newer_peer_may_say_more(self) -> None:
        """Elements at the end and keys that are not known are ignored; missing ones take their defaults."""
        more = b"CP\x01\x01" + msgspec.msgpack.encode(
            [bytes(16), 1, "h", "l", 1.0, [1, 2, 3, 4, 5], {}, "new"]
        )
        message = decode([more])
        assert isinstance(message, Hello)
        assert message.limits == Limits(1, 2, 3, 4)
        less = decode([b"CP\x01\x01" + msgspec.msgpack.encode([bytes(16)])])
        assert less == Hello(bytes(16))
        record = [5, 0, [], {"t": 1.0, "new": [1]}, "new"]
        calls = decode([b"CP\x01\x04" + msgspec.msgpack.encode([[record], [["i", 1, 0, "o"]], "new"])])
        assert isinstance(calls, Calls)
        assert calls.records[0].options == CallOptions(time_left=1.0)


def body(kind: int, value: object) -> list[Buffer]:
    return [b"CP\x01" + bytes((kind,)) + msgspec.msgpack.encode(value)]


TARGETS = [["i", 1, 0, "o"]]

GARBAGE: dict[str, Callable[[], list[Buffer]]] = {
    "no frames": list,
    "an empty frame": lambda: [b""],
    "two bytes": lambda: [b"CP"],
    "not ours": lambda: [b"HTTP/1.1 200 OK"],
    "unknown kind": lambda: body(77, []),
    "no body": lambda: [b"CP\x01\x04"],
    "truncated": lambda: [bytes(encode_call(ECHO, 1, ["abc"])[0])[:-3]],
    "left over": lambda: [bytes(encode_call(ECHO, 1, ["abc"])[0]) + b"\0"],
    "not an array": lambda: body(Kind.CALLS, {"a": 1}),
    "a number as text": lambda: body(Kind.CALLS, [[["1", 0, []]], TARGETS]),
    "a target that is not there": lambda: body(Kind.CALLS, [[[1, 1, []]], TARGETS]),
    "a target that is not there, of several": lambda: body(Kind.CALLS, [[[1, 0, []], [2, 1, []]], TARGETS]),
    "a target below zero": lambda: body(Kind.CALLS, [[[1, -1, []]], TARGETS]),
    "a target below zero, of several": lambda: body(Kind.CALLS, [[[1, -1, []], [2, 0, []]], TARGETS]),
    "no records": lambda: body(Kind.CALLS, [[], TARGETS]),
    "no replies": lambda: body(Kind.REPLIES, [[]]),
    "a call twice": lambda: body(Kind.CALLS, [[[1, 0, []], [1, 0, []]], TARGETS]),
    "a reply twice": lambda: body(Kind.REPLIES, [[[1, 0, 5], [1, 0, 6]]]),
    "a blob without description": lambda: [*encode_call(ECHO, 1, [1]), b"blob"],
    "a description without blob": lambda: body(Kind.REPLIES, [[[1, 0, None, {"b": [[0, "b"]]}]]]),
    "blobs for several": lambda: [*body(Kind.REPLIES, [[[1, 0, 5], [2, 0, 6]]]), b"blob"],
    "a blob after a BYE": lambda: [*encode(Bye()), b"blob"],
    "a negative position": lambda: [*body(Kind.REPLIES, [[[1, 0, None, {"b": [[-1, "b"]]}]]]), b"blob"],
    "text that is none": lambda: [b"CP\x01\x07\x92\x00\xa1\xff"],
    "too deep": lambda: [b"CP\x01\x05\x91\x91\x93\x01\x00" + b"\x91" * 100_000],
    "an endless array": lambda: [b"CP\x01\x04\x92\xdd\xff\xff\xff\xff"],
    "negative credit": lambda: body(Kind.CREDIT, [[[1, 0, -5]]]),
    "a short cancel": lambda: body(Kind.CANCEL, [[[1]]]),
}


class TestGarbage:
    """Whatever a peer sends, `decode` answers with a message or with RemoteProtocolError."""

    @pytest.mark.parametrize("name", GARBAGE)
    def test_is_refused(self, name: str) -> None:
        """It raises RemoteProtocolError, which says why."""
        with pytest.raises(RemoteProtocolError) as caught:
            decode(GARBAGE[name]())
        assert caught.value.reason

    def test_another_version(self) -> None:
        """It raises VersionMismatch with the version, for every kind but REJECT."""
        frames = plain(encode(Bye()))
        with pytest.raises(VersionMismatch) as caught:
            decode([frames[0][:2] + b"\x09" + frames[0][3:]])
        assert caught.value.version == 9

    def test_a_reject_of_another_version(self) -> None:
        """A REJECT is read whatever its version: it says which versions the peer has."""
        frame = bytes(encode(Reject([9], 1722, "too old"))[0])
        assert decode([frame[:2] + b"\x09" + frame[3:]]) == Reject([9], 1722, "too old")

    def test_limits(self) -> None:
        """More bytes or records than the caller allows are refused; as many are not."""
        writer = CallWriter()
        for number in range(3):
            writer.add(ECHO, number, [])
        frames = writer.take()
        size = len(frames[0])
        decode(frames, max_bytes=size, max_records=3)
        with pytest.raises(RemoteProtocolError, match="bytes"):
            decode(frames, max_bytes=size - 1)
        with pytest.raises(RemoteProtocolError, match="records"):
            decode(frames, max_records=2)
        large = encode_reply(1, bytes(100_000))
        with pytest.raises(RemoteProtocolError, match="bytes"):
            decode(large, max_bytes=100_000)

    @given(st.lists(st.binary(max_size=60), max_size=4))
    def test_random_frames(self, frames: list[bytes]) -> None:
        """Random frames never do anything else."""
        self._try(frames)

    @given(
        st.sampled_from([*range(12), 255]),
        st.binary(max_size=200),
        st.lists(st.binary(max_size=9), max_size=2),
    )
    def test_random_bodies(self, kind: int, content: bytes, blobs: list[bytes]) -> None:
        """Nor do random bodies behind a right prefix."""
        self._try([b"CP\x01" + bytes((kind,)) + content, *blobs])

    @settings(max_examples=300)
    @given(st.data())
    def test_mutations(self, data: st.DataObject) -> None:
        """Nor do real messages that were cut or changed in places."""
        frames = data.draw(st.sampled_from(REAL))
        which = data.draw(st.integers(0, len(frames) - 1))
        frame = bytearray(frames[which])
        for _ in range(data.draw(st.integers(0, 3))):
            if frame:
                frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(frame)))
        changed = list(frames)
        changed[which] = bytes(frame[:cut]) if data.draw(st.booleans()) else bytes(frame)
        self._try(changed)

    @staticmethod
    def _try(frames: list[bytes]) -> None:
        try:
            message = decode(frames)
        except RemoteProtocolError as error:
            assert error.reason
            return
        if isinstance(message, Calls):
            for record in message.records:
                assert 0 <= record.target < len(message.targets)


def _several() -> list[Buffer]:
    writer = CallWriter()
    writer.add(
        ECHO, 1, ["text", 1, 2.5, None, [True], {"k": b"bytes"}], CallOptions(metadata={"a": "b"}, lane=1)
    )
    writer.add(ADD, 2, [1, 2], CallOptions(time_left=3.5, one_way=True, attempt=1, pipes=[(1, "i")]))
    return writer.take()


REAL: list[list[bytes]] = [
    *(plain(encode(message)) for message in CONTROL),
    plain(_several()),
    plain(encode_call(ECHO, 1, [1, bytes(70_000)])),
    plain(encode_reply(1, bytes(70_000))),
    plain(encode_reply(1, Fault("E", "text"), 1726)),
]
