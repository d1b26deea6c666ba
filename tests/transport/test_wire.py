"""Messages to frames and back: what the encoders promise, and what `decode` makes of anything at all."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transport import Buffer, PayloadTooLarge
from transport.errors import RemoteProtocolError, VersionMismatch
from transport.frames import (
    Blob,
    Bye,
    CallGroup,
    CallOptions,
    Calls,
    Cancel,
    CancelledCall,
    Chunks,
    Credit,
    Fault,
    Grant,
    Hello,
    Kind,
    Limits,
    Message,
    PipeArgument,
    PipeChunk,
    Reject,
    Replies,
    ReplyOptions,
    Target,
    Welcome,
)
from transport.wire.blobs import OOB_LIMIT, ValueDecoder
from transport.wire.codec import (
    DEFERRABLE_BYTES,
    EncodedCall,
    EncodedReply,
    PendingCall,
    PendingReply,
    decode,
    deferrable,
    encode,
    encode_call,
    encode_calls,
    encode_parts,
    encode_replies,
    encode_reply,
    encode_value,
    split_args,
)

from ..one_by_one import calls_in, replies_in

ECHO = Target("demo.Echo", 1, 0, "echo")
ADD = Target("demo.Math", 2, 1, "add")
SUB = Target("demo.Math", 2, 1, "sub")
NIL = msgspec.Raw(b"\xc0")
#: To compare values with: 1 and True are equal, and not the same on the wire.
packed = msgspec.msgpack.encode


def plain(frames: list[Buffer]) -> list[bytes]:
    return [bytes(frame) for frame in frames]


def calls_of(frames: list[Buffer]) -> list[tuple[int, Target, object, CallOptions | None]]:
    """(number, target, arguments, options) of each call, in order, as a peer gets them."""
    return [
        (call.id, call.target, msgspec.msgpack.decode(call.args), call.options)
        for call in calls_in(decode(plain(frames)))
    ]


def results_of(frames: list[Buffer]) -> list[tuple[int, int, object]]:
    """(number, status, value) of each reply, in order, as a peer gets them."""
    return [
        (reply.id, reply.status, msgspec.msgpack.decode(reply.value)) for reply in replies_in(decode(plain(frames)))
    ]


def call_groups(frames: list[Buffer]) -> list[tuple[Target, list[int]]]:
    """The target and the numbers of each group."""
    message = decode(frames)
    assert isinstance(message, Calls)
    return [(message.targets[group.target], group.ids) for group in message.groups]


def reply_groups(frames: list[Buffer]) -> list[tuple[int, list[int]]]:
    """The status and the numbers of each group."""
    message = decode(frames)
    assert isinstance(message, Replies)
    return [(group.status, group.ids) for group in message.groups]


class TestCalls:
    """Calls that share a message."""

    def test_each_is_whole(self) -> None:
        """Each keeps its number, target, arguments and options, and its place; equal targets are sent once."""
        options = CallOptions(time_left=1.5, lane=3)
        frames = encode_calls(
            [
                (1, ECHO, ("a",), None),
                (2, ADD, (1, 2), options),
                (3, Target("demo.Echo", 1, 0, "echo"), (), None),
                EncodedCall(4, ADD, encode_value([[3], 4]), None),
            ]
        )
        assert calls_of(frames) == [
            (1, ECHO, ["a"], None),
            (2, ADD, [1, 2], options),
            (3, ECHO, [], None),
            (4, ADD, [[3], 4], None),
        ]
        message = decode(frames)
        assert isinstance(message, Calls)
        assert len(message.targets) == 2

    def test_one_frame(self) -> None:
        """However many calls, they are one frame, and those of one operation are one group."""
        (frame,) = encode_calls([(number, ECHO, (number,), None) for number in range(500)])
        assert calls_of([frame]) == [(number, ECHO, [number], None) for number in range(500)]
        assert call_groups([frame]) == [(ECHO, list(range(500)))]

    @pytest.mark.parametrize(
        ("operations", "groups"),
        [
            ([ECHO], [(ECHO, [0])]),
            ([ECHO, ECHO], [(ECHO, [0, 1])]),
            ([ECHO, ADD], [(ECHO, [0]), (ADD, [1])]),
            ([ECHO, ECHO, ADD], [(ECHO, [0, 1]), (ADD, [2])]),
            ([ECHO, ADD, ADD, ECHO], [(ECHO, [0]), (ADD, [1, 2]), (ECHO, [3])]),
            ([ADD, SUB, ECHO, ECHO, ECHO, ADD], [(ADD, [0]), (SUB, [1]), (ECHO, [2, 3, 4]), (ADD, [5])]),
        ],
    )
    @pytest.mark.parametrize("encoded", [False, True])
    def test_groups(self, operations: list[Target], groups: list[tuple[Target, list[int]]], encoded: bool) -> None:
        """Calls in a row that have one operation share a group; those apart do not, for calls stay in order."""
        calls: list[PendingCall] = [(number, target, (number,), None) for number, target in enumerate(operations)]
        if encoded:
            calls = [EncodedCall(number, target, encode_value(args), None) for number, target, args, _ in calls]
        frames = encode_calls(calls)
        assert call_groups(frames) == groups
        assert calls_of(frames) == [(number, target, [number], None) for number, target in enumerate(operations)]
        message = decode(frames)
        assert isinstance(message, Calls)
        assert len(message.targets) == len(set(operations))

    def test_options_are_alone(self) -> None:
        """A call with options has a group of its own, also among calls of its operation and beside equal options."""
        late = CallOptions(time_left=1.0)
        options = [None, None, late, CallOptions(time_left=1.0), None, late, None, None]
        frames = encode_calls([(number, ECHO, (), of) for number, of in enumerate(options)])
        assert [ids for _, ids in call_groups(frames)] == [[0, 1], [2], [3], [4], [5], [6, 7]]
        assert [of for *_, of in calls_of(frames)] == options
        for pair in ([None, late], [late, None], [late, late], [late]):
            frames = encode_calls([(number, ECHO, (number,), of) for number, of in enumerate(pair)])
            assert calls_of(frames) == [(number, ECHO, [number], of) for number, of in enumerate(pair)]

    def test_a_snapshot(self) -> None:
        """What `encode_value` has encoded is what leaves, though the arguments have changed since."""
        argument = [1, 2]
        call = EncodedCall(1, ECHO, encode_value((argument,)), None)
        argument.append(3)
        assert calls_of(encode_calls([call])) == [(1, ECHO, [[1, 2]], None)]
        assert [args for _, _, args, _ in calls_of(encode_calls([call, (2, ECHO, (5,), None)]))] == [[[1, 2]], [5]]

    def test_a_message_stays_as_it_is(self) -> None:
        """Encoding further messages changes nothing of those before."""
        first = encode_calls([(1, ECHO, (1,), None), (2, ADD, (2,), None)])
        copy = plain(first)
        second = encode_calls([(3, ADD, (3,), None)])
        assert plain(first) == copy
        message = decode(second)
        assert isinstance(message, Calls)
        assert message.targets == [ADD]


class TestLoneCalls:
    """Calls that travel alone."""

    def test_in_band(self) -> None:
        """Without large arguments it is what `encode_calls` makes of it."""
        for options in (None, CallOptions(time_left=2.5, metadata={"a": "b"})):
            assert encode_call(ECHO, 7, ["a", [1]], options) == encode_calls([(7, ECHO, ["a", [1]], options)])

    def test_out_of_band(self) -> None:
        """Its large arguments follow as frames, described in its options, and it is the only call of the message."""
        large = bytes(OOB_LIMIT)
        frames = encode_call(ECHO, 7, [1, large, "x", large], CallOptions(lane=2))
        assert frames[1:] == [large, large]
        assert len(frames[0]) < 100
        options = CallOptions(lane=2, blobs=[Blob(1, "b"), Blob(3, "b")])
        assert calls_of(frames) == [(7, ECHO, [1, None, "x", None], options)]

    def test_the_options_stay_the_callers(self) -> None:
        """Describing large arguments does not change the options that were given."""
        options = CallOptions(lane=2)
        encode_call(ECHO, 7, [bytes(OOB_LIMIT)], options)
        assert options == CallOptions(lane=2)

    def test_what_cannot_be_encoded(self) -> None:
        """It raises TypeError, ValueError or OverflowError, as does `encode_value`."""
        for wrong in (object(), 1 << 64, "\ud800"):
            for encoder in (lambda wrong: encode_call(ECHO, 1, ["x", wrong]), encode_value):
                with pytest.raises((TypeError, ValueError, OverflowError)):
                    encoder(wrong)

    def test_what_is_too_large(self) -> None:
        """It raises PayloadTooLarge, which tells the limit; what is just as large as allowed is encoded."""
        size = len(encode_call(ECHO, 1, ["x" * 100])[0])
        assert calls_of(encode_call(ECHO, 1, ["x" * 100], max_bytes=size)) == [(1, ECHO, ["x" * 100], None)]
        with pytest.raises(PayloadTooLarge, match=f"{size - 1} are allowed"):
            encode_call(ECHO, 1, ["x" * 100], max_bytes=size - 1)
        assert encode_value("x" * 9, max_bytes=10) == msgspec.Raw(b"\xa9" + b"x" * 9)
        with pytest.raises(PayloadTooLarge, match="10 are allowed"):
            encode_value("x" * 10, max_bytes=10)


class Text(str):
    """Text that may be more than text."""


class Number(int):
    """A number that may be more than a number."""


class TestSettled:
    """Values that may be encoded later."""

    @pytest.mark.parametrize(
        "value",
        [
            None, True, False, 0, -1, -(1 << 63), (1 << 64) - 1, 1.5, float("nan"), float("inf"), "", "text", b"",
            b"\xff", "x" * DEFERRABLE_BYTES, b"x" * DEFERRABLE_BYTES,
        ],
        ids=lambda value: repr(value)[:20],
    )  # fmt: skip
    def test_are(self, value: object) -> None:
        """Constants, numbers that MessagePack has, short bytes and ASCII text."""
        assert deferrable((value,))
        assert deferrable((1, value, "x"))
        encode_value(value)

    @pytest.mark.parametrize(
        "value",
        [
            [], (), {}, [1], bytearray(b"x"), memoryview(b"x"), object(), Text("x"), Number(1), Fault("E"), 1 << 64,
            -(1 << 63) - 1, "é", "\ud800", "x" * (DEFERRABLE_BYTES + 1), b"x" * (DEFERRABLE_BYTES + 1),
            datetime(2024, 1, 1), Kind.BYE,
        ],
        ids=lambda value: repr(value)[:12],
    )  # fmt: skip
    def test_are_not(self, value: object) -> None:
        """What can change, what cannot be encoded, what is long; one of them is enough."""
        assert not deferrable((value,))
        assert not deferrable((1, value, "x"))

    def test_nothing(self) -> None:
        """No arguments are deferrable."""
        assert deferrable(())

    @given(
        st.lists(
            st.one_of(
                st.none(), st.booleans(), st.integers(), st.integers(-(1 << 65), 1 << 65), st.floats(),
                st.text(max_size=20), st.binary(max_size=20), st.lists(st.integers(), max_size=2),
                st.binary(min_size=DEFERRABLE_BYTES - 1, max_size=DEFERRABLE_BYTES + 2),
            ),
            max_size=4,
        )
    )  # fmt: skip
    def test_can_be_encoded(self, values: list[Any]) -> None:
        """Encoding deferrable values cannot fail, and gives little."""
        if deferrable(values):
            assert len(memoryview(encode_value(values))) <= 5 + len(values) * (DEFERRABLE_BYTES + 5)


class TestReplies:
    """Replies that share a message."""

    def test_results_and_faults(self) -> None:
        """A result comes with status 0, a fault with its own; both in one message, each with its number."""
        fault = Fault("ValueError", "no", "trace", {"code": 5})
        replies = replies_in(
            decode(
                plain(
                    encode_replies(
                        [
                            EncodedReply(7, 0, encode_value({"a": 1})),
                            EncodedReply(8, 1726, encode_value(fault)),
                            EncodedReply(9, 1727, NIL),
                            (10, None),
                        ]
                    )
                )
            )
        )
        assert [(reply.id, reply.status) for reply in replies] == [(7, 0), (8, 1726), (9, 1727), (10, 0)]
        assert ValueDecoder[object]()(replies[0].value) == {"a": 1}
        assert ValueDecoder[Fault](Fault)(replies[1].value) == fault
        assert ValueDecoder[Fault | None](Fault | None)(replies[2].value) is None
        assert ValueDecoder[object]()(replies[3].value) is None

    def test_one_frame(self) -> None:
        """However many results, they are one frame and one group."""
        (frame,) = encode_replies([(number, number) for number in range(500)])
        assert results_of([frame]) == [(number, 0, number) for number in range(500)]
        assert reply_groups([frame]) == [(0, list(range(500)))]

    @pytest.mark.parametrize(
        ("statuses", "groups"),
        [
            ([0], [(0, [0])]),
            ([5], [(5, [0])]),
            ([0, 0], [(0, [0, 1])]),
            ([5, 5], [(5, [0, 1])]),
            ([0, 5], [(0, [0]), (5, [1])]),
            ([5, 0, 0, 5], [(5, [0]), (0, [1, 2]), (5, [3])]),
            ([0, 0, 5, 5, 6, 0], [(0, [0, 1]), (5, [2, 3]), (6, [4]), (0, [5])]),
        ],
    )
    @pytest.mark.parametrize("encoded", [False, True])
    def test_groups(self, statuses: list[int], groups: list[tuple[int, list[int]]], encoded: bool) -> None:
        """Replies in a row that have one status share a group, whether they were encoded before or not."""
        frames = encode_replies(
            [
                EncodedReply(number, status, encode_value(number)) if status or encoded else (number, number)
                for number, status in enumerate(statuses)
            ]
        )
        assert reply_groups(frames) == groups
        assert results_of(frames) == [(number, status, number) for number, status in enumerate(statuses)]

    def test_encoded_and_not(self) -> None:
        """Results that were encoded before share a group with those that were not."""
        frames = encode_replies([(1, "a"), EncodedReply(2, 0, encode_value(["b"])), (3, b"c")])
        assert reply_groups(frames) == [(0, [1, 2, 3])]
        assert results_of(frames) == [(1, 0, "a"), (2, 0, ["b"]), (3, 0, b"c")]

    def test_a_snapshot(self) -> None:
        """What `encode_value` has encoded is what leaves, though the result has changed since."""
        result = [1, 2]
        reply = EncodedReply(1, 0, encode_value(result))
        result.append(3)
        assert results_of(encode_replies([reply])) == [(1, 0, [1, 2])]


class TestLoneReplies:
    """Replies that travel alone."""

    def test_in_band(self) -> None:
        """Its number, status, value and options arrive."""
        options = ReplyOptions(metadata={"k": "v"})
        for status, of in ((0, None), (0, options), (1726, None), (1726, options)):
            (reply,) = replies_in(decode(plain(encode_reply(7, [1], status, of))))
            assert (reply.id, reply.status, reply.options) == (7, status, of)
            assert msgspec.msgpack.decode(reply.value) == [1]

    def test_out_of_band(self) -> None:
        """A large result follows as a frame, described in the options, and is the only reply of the message."""
        large = bytes(OOB_LIMIT)
        frames = encode_reply(7, large, options=ReplyOptions(metadata={"k": "v"}))
        assert frames[1:] == [large]
        assert len(frames[0]) < 100
        (reply,) = replies_in(decode(plain(frames)))
        assert (reply.id, reply.status) == (7, 0)
        assert reply.options == ReplyOptions(metadata={"k": "v"}, blobs=[Blob(0, "b")])

    def test_what_cannot_be_encoded(self) -> None:
        """It raises TypeError, or PayloadTooLarge if it is too large."""
        for encoder in (encode_reply, lambda number, value, **limit: encode_parts(number, [None, value], **limit)):
            with pytest.raises(TypeError):
                encoder(2, object())
            with pytest.raises(PayloadTooLarge, match="10 are allowed"):
                encoder(3, "x" * 100, max_bytes=10)

    def test_types_of_the_field(self) -> None:
        """Structs, dataclasses, dates and the like travel, and are decoded to their annotation."""

        @dataclass
        class Point:
            x: int
            y: list[datetime]

        value = Point(1, [datetime(2024, 5, 6, tzinfo=UTC)])
        for sent, kind in ((value, Point), (UUID(int=5), UUID), ({1: {"a"}}, dict[int, set[str]])):
            for frames in (encode_reply(1, sent), encode_replies([EncodedReply(1, 0, encode_value(sent))])):
                (reply,) = replies_in(decode(frames))
                assert ValueDecoder[object](kind)(reply.value) == sent


SHORT = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1), st.floats(),
    st.text(st.characters(max_codepoint=127), max_size=8), st.binary(max_size=8),
)  # fmt: skip
ANYTHING = st.recursive(
    SHORT | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
OPTIONS = st.builds(
    CallOptions,
    time_left=st.none() | st.floats(0, 10),
    metadata=st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    lane=st.sampled_from([None, -1, 0, 5]),
    one_way=st.booleans(),
    attempt=st.integers(0, 2),
    pipes=st.none() | st.just([PipeArgument(1, "i")]),
)
# Equal targets, of which some are the same object and some are not.
TARGETS = st.sampled_from([ECHO, Target("demo.Echo", 1, 0, "echo"), ADD, SUB, Target("demo.Math", 2, 1, "sub")])
NUMBERS = st.lists(st.integers(0, (1 << 64) - 1) | st.integers(0, 300), min_size=1, max_size=12, unique=True)


class TestRoundTrips:
    """Whatever shares a message comes out one by one, in order, as it went in."""

    @settings(max_examples=300)
    @given(st.data())
    def test_calls(self, data: st.DataObject) -> None:
        """Calls of any operations, with and without options, encoded before and not; each target is sent once."""
        calls: list[PendingCall] = []
        expected = []
        for number in data.draw(NUMBERS):
            target = data.draw(TARGETS)
            options = data.draw(st.none() | OPTIONS)
            if data.draw(st.booleans()):
                args = tuple(data.draw(st.lists(SHORT, max_size=3)))
                calls.append((number, target, args, options))
            else:
                args = tuple(data.draw(st.lists(ANYTHING, max_size=3)))
                calls.append(EncodedCall(number, target, encode_value(args), options))
            expected.append((number, target, packed(args), options))
        frames = encode_calls(calls)
        message = decode(plain(frames))
        assert [(call.id, call.target, bytes(call.args), call.options) for call in calls_in(message)] == expected
        assert isinstance(message, Calls)
        assert len(message.targets) == len({target for _, target, *_ in expected})

    @settings(max_examples=300)
    @given(st.data())
    def test_replies(self, data: st.DataObject) -> None:
        """Results and failures, encoded before and not."""
        replies: list[PendingReply] = []
        expected = []
        for number in data.draw(NUMBERS):
            status = data.draw(st.sampled_from([0, 0, 0, 5, 1726, (1 << 32) - 1]))
            if status == 0 and data.draw(st.booleans()):
                value = data.draw(SHORT)
                replies.append((number, value))
            else:
                value = data.draw(ANYTHING)
                replies.append(EncodedReply(number, status, encode_value(value)))
            expected.append((number, status, packed(value), None))
        message = decode(plain(encode_replies(replies)))
        assert [
            (reply.id, reply.status, bytes(reply.value), reply.options) for reply in replies_in(message)
        ] == expected


CONTROL: list[Message] = [
    Hello(bytes(16), 7, "host", "callport 1", 5.0, Limits(1, 2, 3, 4), {"a": "b"}),
    Welcome(bytes(range(16)), 8, "host", "callport 1", 0.0, Limits(), {}),
    Welcome(bytes(range(16)), members=["tcp://10.0.0.1:5555", "tcp://10.0.0.2:5555"]),
    Reject([1, 2], 1722, "not now"),
    Cancel([CancelledCall(1, True), CancelledCall(2, False)]),
    Bye(0, "done"),
    Bye(1722, "closing", 12),
    Chunks([PipeChunk(1, 0, False, memoryview(b"\x92\x01\x02")), PipeChunk(1, 0, True, memoryview(b""))]),
    Credit([Grant(1, 0, 4096)]),
]


class TestEncode:
    """The other kinds."""

    @pytest.mark.parametrize("message", CONTROL, ids=lambda message: type(message).__name__)
    def test_round_trip(self, message: Message) -> None:
        """What was encoded is decoded again, equal."""
        again = decode(plain(encode(message)))
        assert type(again) is type(message)
        assert packed(again) == packed(message)

    def test_every_kind_has_a_number(self) -> None:
        """The fourth byte says which it is."""
        numbers = {encode(message)[0][3] for message in CONTROL} | {
            encode_call(ECHO, 1, [])[0][3],
            encode_reply(1, None)[0][3],
        }
        assert numbers == set(Kind)

    @pytest.mark.parametrize(
        "frames", [encode_calls([(1, ECHO, (1,), None), (2, ECHO, (2,), None)]), encode_replies([(1, "a"), (2, "b")])]
    )
    def test_what_was_decoded(self, frames: list[Buffer]) -> None:
        """Calls and replies that were decoded can be encoded again, as other messages can."""
        again = decode(encode(decode(frames)))
        look: Any = calls_in if isinstance(again, Calls) else replies_in
        assert look(again) == look(decode(frames))


def body(kind: int, value: object) -> list[Buffer]:
    return [b"CP\x01" + bytes((kind,)) + packed(value)]


#: Encoded targets: two.
TWO = [["i", 1, 0, "o"], ["i", 1, 0, "p"]]


def calls(*groups: object) -> list[Buffer]:
    """A message of calls, however wrong."""
    return body(Kind.CALLS, [groups, TWO])


def replies(*groups: object) -> list[Buffer]:
    """A message of replies, however wrong."""
    return body(Kind.REPLIES, [groups])


class TestDecode:
    """Messages of peers that are not quite like this implementation."""

    def test_a_newer_peer_may_say_more(self) -> None:
        """Elements at the end and keys that are not known are ignored; missing ones take their defaults."""
        more = body(Kind.HELLO, [bytes(16), 1, "h", "l", 1.0, [1, 2, 3, 4, 5], {}, "new"])
        message = decode(more)
        assert isinstance(message, Hello)
        assert message.limits == Limits(1, 2, 3, 4)
        assert decode(body(Kind.HELLO, [bytes(16)])) == Hello(bytes(16))
        target = ["i", 1, 0, "o", "new"]
        group = [0, [5], [[1]], {"t": 1.0, "new": [1]}, "new"]
        assert calls_of(body(Kind.CALLS, [[group], [target], "new"])) == [
            (5, Target("i", 1, 0, "o"), [1], CallOptions(time_left=1.0))
        ]
        group = [[5], [1], 0, {"m": {"a": "b"}, "new": 1}, "new"]
        (reply,) = replies_in(decode(body(Kind.REPLIES, [[group], "new"])))
        assert (reply.id, reply.status, reply.options) == (5, 0, ReplyOptions(metadata={"a": "b"}))

    def test_defaults(self) -> None:
        """Options may be missing or nil; a status that is missing is success."""
        for group in ([0, [1, 2], [["a"], ["b"]]], [0, [1, 2], [["a"], ["b"]], None]):
            assert [args for _, _, args, _ in calls_of(calls(group))] == [["a"], ["b"]]
        for group in ([[1, 2], ["a", "b"]], [[1, 2], ["a", "b"], 0], [[1, 2], ["a", "b"], 0, None]):
            assert results_of(replies(group)) == [(1, 0, "a"), (2, 0, "b")]

    def test_other_ways_of_grouping(self) -> None:
        """A target may have several groups in a row, or none; options may be empty, and are those of all in a group."""
        found = calls_of(
            calls([1, [1], [[]]], [1, [2], [[]], {}], [1, [3, 4], [[], []]], [1, [5, 6], [[], []], {"l": 1}])
        )
        assert [number for number, *_ in found] == [1, 2, 3, 4, 5, 6]
        assert [options.lane for *_, options in found[4:] if options] == [1, 1]
        assert {target.operation for _, target, *_ in found} == {"p"}
        found_results = results_of(replies([[1], [7]], [[2], [8], 0, {}], [[3, 4], [9, 10], 0, {"m": {}}]))
        assert found_results == [(1, 0, 7), (2, 0, 8), (3, 0, 9), (4, 0, 10)]

    def test_any_form_of_an_array(self) -> None:
        """The long forms of a head are as good as the short ones, also around groups, numbers and arguments."""
        long = b"\xdd\0\0\0\1"
        target = long[:-1] + b"\4" + b"\xd9\1i\x01\x00\xd9\1o"
        group = long[:-1] + b"\3" + b"\xcc\0" + long + b"\xcf\0\0\0\0\0\0\0\5" + long + long + b"\x07"
        frame = b"CP\x01\x04" + long[:-1] + b"\2" + long + group + long + target
        assert calls_of([frame]) == [(5, Target("i", 1, 0, "o"), [7], None)]

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    @pytest.mark.parametrize("size", [1, 10_000])
    def test_any_buffer(self, kind: Any, size: int) -> None:
        """Frames may be any kind of buffer, small or large."""
        frames = [kind(bytes(frame)) for frame in encode_calls([(1, ECHO, ("x" * size,), None), (2, ECHO, (), None)])]
        assert calls_of(frames) == [(1, ECHO, ["x" * size], None), (2, ECHO, [], None)]

    def test_as_many_blobs_as_allowed(self) -> None:
        """256 blobs are in order."""
        described = {"b": [[at, "b"] for at in range(256)]}
        blobs = [b"x"] * 256
        assert isinstance(decode([*calls([0, [1], [[None] * 256], described]), *blobs]), Calls)
        assert isinstance(decode([*replies([[1], [[None] * 256], 0, described]), *blobs]), Replies)


class TestSplitArgs:
    """Arguments of the calls of a group."""

    def test_each_its_own(self) -> None:
        """An encoded array for each call, in order, whatever is in it."""
        (group,) = self._groups([0, [3, 1], [["a"], [None, {"k": 1}]]])
        assert [msgspec.msgpack.decode(raw) for raw in split_args(group)] == [["a"], [None, {"k": 1}]]

    def test_what_is_in_them_is_not_looked_at(self) -> None:
        """Arguments that are none, or wrong text, are their own call's affair."""
        (group,) = self._groups([0, [1, 2, 3], [5, ["\N{BULLET}"], None]])
        assert [bytes(raw) for raw in split_args(group)] == [b"\x05", b"\x91\xa3\xe2\x80\xa2", b"\xc0"]
        # Two calls, the first with a text that is not UTF-8.
        (group,) = self._groups([0, [1, 2], msgspec.Raw(b"\x92\x91\xa1\xff\x90")])
        assert [bytes(raw) for raw in split_args(group)] == [b"\x91\xa1\xff", b"\x90"]

    @pytest.mark.parametrize("args", [[], [[1]], [[1], [2], [3]], None, 7, "ab", {"a": 1, "b": 2}], ids=repr)
    def test_not_as_many_as_calls(self, args: object) -> None:
        """The message is in order, and its other groups too; splitting the arguments raises MsgspecError."""
        wrong, right = self._groups([0, [1, 2], args], [1, [3], [[5]]])
        with pytest.raises(msgspec.MsgspecError):
            split_args(wrong)
        assert [bytes(raw) for raw in split_args(right)] == [b"\x91\x05"]

    @staticmethod
    def _groups(*groups: object) -> list[CallGroup]:
        message = decode(calls(*groups))
        assert isinstance(message, Calls)
        return message.groups


B1 = {"b": [[0, "b"]]}

#: What is sent, and what the error says of it.
GARBAGE: dict[str, tuple[Callable[[], list[Buffer]], str]] = {
    "no frames": (list, "is lost"),
    "an empty frame": (lambda: [b""], "not a message"),
    "two bytes": (lambda: [b"CP"], "not a message"),
    "not ours": (lambda: [b"HTTP/1.1 200 OK"], "not a message"),
    "unknown kind": (lambda: body(77, []), "unknown kind of message 77"),
    "no body": (lambda: [b"CP\x01\x04"], "CALLS is wrong"),
    "truncated": (lambda: [bytes(encode_call(ECHO, 1, ["abc"])[0])[:-3]], "CALLS is wrong"),
    "left over": (lambda: [bytes(encode_call(ECHO, 1, ["abc"])[0]) + b"\0"], "CALLS is wrong"),
    "not an array": (lambda: body(Kind.CALLS, {"a": 1}), "CALLS is wrong"),
    "no targets": (lambda: body(Kind.CALLS, [[[0, [1], [[]]]]]), "CALLS is wrong"),
    "a target of three": (lambda: body(Kind.CALLS, [[[0, [1], [[]]]], [["i", 1, 0]]]), "CALLS is wrong"),
    "a group of calls that is a map": (lambda: calls({"a": 1}), "CALLS is wrong"),
    "a group of calls without arguments": (lambda: calls([0, [1]]), "CALLS is wrong"),
    "a group of replies without values": (lambda: replies([[1]]), "REPLIES is wrong"),
    "a number as text": (lambda: calls([0, ["1"], [[]]]), "CALLS is wrong"),
    "a number for an array of them": (lambda: calls([0, 1, [[]]]), "CALLS is wrong"),
    "a number beyond all": (lambda: calls([0, [1.5], [[]]]), "CALLS is wrong"),
    "a target as text": (lambda: calls(["0", [1], [[]]]), "CALLS is wrong"),
    "options as an array": (lambda: calls([0, [1], [[]], []]), "CALLS is wrong"),
    "a status as text": (lambda: replies([[1], [5], "0"]), "REPLIES is wrong"),
    "values as a map": (lambda: replies([[1], {1: 5}]), "REPLIES is wrong"),
    "a target that is not there": (lambda: calls([2, [1], [[]]]), "not among the targets"),
    "a target that is not there, later on": (lambda: calls([0, [1], [[]]], [2, [2], [[]]]), "not among the targets"),
    "a target that is not there, of none": (lambda: body(Kind.CALLS, [[[0, [1], [[]]]], []]), "not among the targets"),
    "a target below zero": (lambda: calls([-1, [1], [[]]]), "not among the targets"),
    "a target below zero, of several": (lambda: calls([-1, [1, 2], [[], []]], [0, [3], [[]]]), "not among the targets"),
    "no groups of calls": (lambda: calls(), "0 records"),
    "no groups of replies": (lambda: replies(), "0 records"),
    "an empty group of calls": (lambda: calls([0, [], []]), "a group of none"),
    "an empty group of calls beside others": (lambda: calls([0, [1, 2], [[], []]], [0, [], []]), "a group of none"),
    "an empty group of calls beside one": (lambda: calls([0, [], []], [0, [1], [[]]]), "a group of none"),
    "an empty group of replies": (lambda: replies([[], []]), "a group of none"),
    "an empty group of replies beside one": (lambda: replies([[], []], [[1], [5]]), "a group of none"),
    "more replies than values": (lambda: replies([[1, 2], [5]]), "1 values for 2"),
    "more values than replies": (lambda: replies([[1], [5, 6]]), "2 values for 1"),
    "values for nobody": (lambda: replies([[], [5]]), "1 values for 0"),
    "replies without values": (lambda: replies([[1], []]), "0 values for 1"),
    "not as many values, in the second group": (
        lambda: replies([[1], [5]], [[2, 3], [6]], [[4], [7, 8]]),
        "1 values for 2",
    ),
    "options of no calls": (lambda: calls([0, [], [], {"t": 1.0}], [0, [1], [[]]]), "a group of none"),
    "options of no replies": (lambda: replies([[], [], 0, {"m": {}}], [[1], [5]]), "a group of none"),
    "a description in a group of several": (lambda: calls([0, [1, 2], [[None], [None]], B1]), "must travel alone"),
    "a call twice in a group": (lambda: calls([0, [1, 1], [[], []]]), "twice"),
    "a call twice in two groups": (lambda: calls([0, [1], [[]]], [1, [2, 1], [[], []]]), "twice"),
    "a call twice, with options": (lambda: calls([0, [1], [[]], {"t": 1.0}], [0, [1], [[]]]), "twice"),
    "a reply twice in a group": (lambda: replies([[1, 2, 1], [5, 6, 7]]), "twice"),
    "a reply twice in two groups": (lambda: replies([[1], [5]], [[1], [None], 1726]), "twice"),
    "a blob without description": (lambda: [*encode_call(ECHO, 1, [1]), b"blob"], "0 values are out of band, 1 frames"),
    "a description without blob": (lambda: replies([[1], [None], 0, B1]), "1 values are out of band, 0 frames"),
    "more blobs than descriptions": (lambda: [*calls([0, [1], [[None]], B1]), b"x", b"y"], "1 values are .*, 2 frames"),
    "blobs of several replies": (lambda: [*replies([[1, 2], [5, 6]]), b"blob"], "must travel alone"),
    "blobs of one of several replies": (
        lambda: [*replies([[1], [None], 0, B1], [[2], [6]]), b"blob"],
        "must travel alone",
    ),
    "blobs of one of several calls": (
        lambda: [*calls([0, [1], [[None]], B1], [0, [2], [[]]]), b"blob"],
        "must travel alone",
    ),
    "a description in one of several calls": (
        lambda: calls([0, [1], [[]]], [0, [2], [[None]], B1]),
        "must travel alone",
    ),
    "a blob and no groups": (lambda: [*calls(), b"blob"], "alone"),
    "too many blobs": (
        lambda: [*calls([0, [1], [[None] * 257], {"b": [[at, "b"] for at in range(257)]}]), *[b"x"] * 257],
        "257 frames",
    ),
    "a blob after a BYE": (lambda: [*encode(Bye()), b"blob"], "BYE has no frames"),
    "a negative position": (lambda: [*replies([[1], [None], 0, {"b": [[-1, "b"]]}]), b"blob"], "REPLIES is wrong"),
    "text that is none": (lambda: [b"CP\x01\x07\x92\x00\xa1\xff"], "BYE is wrong"),
    "too deep": (lambda: [b"CP\x01\x05\x91\x91\x92\x91\x01\x91" + b"\x91" * 100_000], "REPLIES is wrong"),
    "too deep, in arguments": (lambda: [b"CP\x01\x04\x92\x91\x93\x00\x91\x01" + b"\x91" * 100_000], "CALLS is wrong"),
    "an endless array": (lambda: [b"CP\x01\x04\x92\xdd\xff\xff\xff\xff"], "CALLS is wrong"),
    "endless numbers": (lambda: [b"CP\x01\x04\x92\x91\x93\x00\xdd\xff\xff\xff\xff\x01"], "CALLS is wrong"),
    "negative credit": (lambda: body(Kind.CREDIT, [[[1, 0, -5]]]), "CREDIT is wrong"),
    "an association too short": (lambda: body(Kind.HELLO, [bytes(15)]), "HELLO is wrong"),
    "an association too long": (lambda: body(Kind.HELLO, [bytes(17)]), "HELLO is wrong"),
    "an instance too short": (lambda: body(Kind.WELCOME, [b""]), "WELCOME is wrong"),
    "an instance too long": (lambda: body(Kind.WELCOME, [bytes(32)]), "WELCOME is wrong"),
    "less than no messages taken": (lambda: body(Kind.BYE, [0, "", -1]), "BYE is wrong"),
    "a short cancel": (lambda: body(Kind.CANCEL, [[[1]]]), "CANCEL is wrong"),
}


class TestGarbage:
    """Whatever a peer sends, `decode` answers with a message or with RemoteProtocolError."""

    @pytest.mark.parametrize("name", GARBAGE)
    def test_is_refused(self, name: str) -> None:
        """It raises RemoteProtocolError, which says why."""
        make, why = GARBAGE[name]
        with pytest.raises(RemoteProtocolError, match=why) as caught:
            decode(make())
        assert caught.value.reason

    def test_another_version(self) -> None:
        """It raises VersionMismatch with the version, for every kind but REJECT."""
        for frames in (encode(Bye()), encode_call(ECHO, 1, []), encode_reply(1, None)):
            (frame,) = plain(frames)
            with pytest.raises(VersionMismatch) as caught:
                decode([frame[:2] + b"\x09" + frame[3:]])
            assert caught.value.version == 9

    def test_a_reject_of_another_version(self) -> None:
        """A REJECT is read whatever its version: it says which versions the peer has."""
        frame = bytes(encode(Reject([9], 1722, "too old"))[0])
        assert decode([frame[:2] + b"\x09" + frame[3:]]) == Reject([9], 1722, "too old")

    @pytest.mark.parametrize(
        "frames",
        [
            encode_calls([(number, ECHO, (), None) for number in range(3)]),
            encode_calls([(1, ECHO, (), None), (2, ECHO, (), None), (3, ADD, (), None)]),
            encode_replies([(number, None) for number in range(3)]),
            encode_replies([(1, None), EncodedReply(2, 5, NIL), (3, None)]),
            encode(Chunks([PipeChunk(1, 0, False, memoryview(b"\x90"))] * 3)),
        ],
        ids=["calls of a group", "calls of two groups", "replies of a group", "replies of three groups", "chunks"],
    )
    def test_limits(self, frames: list[Buffer]) -> None:
        """More bytes, or more calls, replies or chunks, than the caller allows are refused; as many are not."""
        size = len(frames[0])
        decode(frames, max_bytes=size, max_records=3)
        with pytest.raises(RemoteProtocolError, match=f"{size - 1} are allowed"):
            decode(frames, max_bytes=size - 1)
        with pytest.raises(RemoteProtocolError, match="3 .* 2 are allowed"):
            decode(frames, max_records=2)

    def test_blobs_count(self) -> None:
        """The limit of bytes is for all frames together."""
        large = encode_reply(1, bytes(100_000))
        size = sum(map(len, large))
        decode(large, max_bytes=size)
        with pytest.raises(RemoteProtocolError, match="bytes"):
            decode(large, max_bytes=size - 1)

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

    @settings(max_examples=500)
    @given(st.data())
    def test_groups_that_do_not_fit(self, data: st.DataObject) -> None:
        """Of groups of the right types, `decode` takes those that the protocol's page allows, and no others."""
        of_calls = data.draw(st.booleans())
        targets = data.draw(st.sampled_from([2, 2, 2, 1, 0]))
        groups = data.draw(st.lists(CALL_GROUPS if of_calls else REPLY_GROUPS, max_size=3))
        # The page's list of garbage.
        all_ids = [group[1 if of_calls else 0] for group in groups]
        all_options = [group[3] for group in groups]
        numbers = [number for ids in all_ids for number in ids]
        described = sum(len(options.get("b", ())) for options in all_options if options is not None)
        blobs = data.draw(st.sampled_from([described, described, 0, 1]))
        right = (
            groups
            and all(all_ids)
            and len(numbers) == len(set(numbers))
            and described == blobs
            and (described == 0 or len(numbers) == 1)
        )
        if of_calls:
            right = right and all(0 <= target < targets for target, *_ in groups)
        else:
            right = right and all(len(ids) == len(values) for ids, values, *_ in groups)
        sent = body(Kind.CALLS, [groups, TWO[:targets]]) if of_calls else replies(*groups)
        frames = [*sent, *[b"blob"] * blobs]
        if right:
            message = decode(frames)
            assert isinstance(message, Calls | Replies)
            assert [number for group in message.groups for number in group.ids] == numbers
        else:
            with pytest.raises(RemoteProtocolError):
                decode(frames)

    @staticmethod
    def _try(frames: list[bytes]) -> None:
        """Decode; what comes of it, if it is calls or replies, can be relied upon."""
        try:
            message = decode(frames)
        except RemoteProtocolError as error:
            assert error.reason
            return
        if not isinstance(message, Calls | Replies):
            return
        numbers = [number for group in message.groups for number in group.ids]
        assert numbers and len(numbers) == len(set(numbers))
        described = 0
        for group in message.groups:
            assert group.ids
            if group.options is not None:
                described += len(group.options.blobs or ())
        assert described == len(frames) - 1
        assert not described or len(numbers) == 1
        if isinstance(message, Replies):
            assert all(len(group.values) == len(group.ids) for group in message.groups)
            return
        for group in message.groups:
            assert 0 <= group.target < len(message.targets)
            try:
                args = split_args(group)
            except msgspec.MsgspecError:
                continue
            assert len(args) == len(group.ids)


# Groups as they are before encoding, most of them right.
IDS = st.lists(st.integers(0, 99), min_size=1, max_size=3) | st.lists(st.integers(0, 3), max_size=3)
GROUP_OPTIONS: st.SearchStrategy[Any] = st.sampled_from(
    [None, None, None, None, None, None, {}, {"m": {}}, B1, {"b": [[0, "b"], [1, "b"]]}]
)
CALL_GROUPS: st.SearchStrategy[Any] = st.tuples(st.sampled_from([0, 0, 0, 1, 2, -1]), IDS, st.just([[]]), GROUP_OPTIONS)
REPLY_GROUPS = IDS.flatmap(
    lambda ids: st.tuples(
        st.just(ids),
        st.just([5] * len(ids)) | st.just([6] * len(ids)) | st.lists(st.none(), max_size=3),
        st.sampled_from([0, 0, 5]),
        GROUP_OPTIONS,
    )
)

REAL: list[list[bytes]] = [
    *(plain(encode(message)) for message in CONTROL),
    plain(
        encode_calls(
            [
                (1, ECHO, ("text", 1, 2.5, None, [True], {"k": b"bytes"}), CallOptions(metadata={"a": "b"}, lane=1)),
                (2, ADD, (1, 2), CallOptions(time_left=3.5, one_way=True, attempt=1, pipes=[PipeArgument(1, "i")])),
                (3, ADD, (3, 4), None),
                (4, ADD, (5, 6), None),
                (5, ECHO, (), None),
            ]
        )
    ),
    plain(encode_calls([(number, ECHO, (number, "x"), None) for number in range(5)])),
    plain(encode_call(ECHO, 1, [1, bytes(70_000)])),
    plain(encode_replies([(1, "a"), (2, 2.5), EncodedReply(3, 0, encode_value([1])), EncodedReply(4, 1727, NIL)])),
    plain(encode_replies([(number, number) for number in range(5)])),
    plain(encode_reply(1, bytes(70_000))),
    plain(encode_reply(1, Fault("E", "text"), 1726)),
    plain(encode_parts(1, [None, bytes(70_000), bytearray(70_000)])),
]
