"""PROTOCOL.md against the code: its hex dumps, its numbers, its limits."""

import datetime
import decimal
import re
import uuid
from pathlib import Path

import msgspec
import pytest

import transport
from transport.frames import MAX_MESSAGE_BYTES, MAX_RECORDS, PIPE_WINDOW_BYTES, CallOptions, Fault, Hello, Kind, Target
from transport.wire.blobs import ValueDecoder
from transport.wire.codec import EncodedReply, encode, encode_call, encode_calls, encode_replies, encode_value
from transport.wire.conversation import TRANSITIONS, ConversationState, Direction, Side

PAGE = (Path(transport.__file__).parent / "PROTOCOL.md").read_text(encoding="utf-8")


def dump(name: str) -> bytes:
    """The bytes of a dump: the hex pairs that a line begins with, up to two spaces."""
    found = re.search(rf"^```{name}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"no dump {name}"
    lines = [line.split("  ")[0] for line in found[1].splitlines() if not line.startswith(" ")]
    return bytes.fromhex(" ".join(lines))


SYNONYMS = Target("demo.Thesaurus", 1, 0, "synonyms")
COUNT = Target("demo.Thesaurus", 1, 0, "count")
SLOW = Fault("KeyError", "'slow'")

DUMPS = {
    "call": lambda: encode_call(SYNONYMS, 7, ["quick", 3], CallOptions(time_left=2.5, lane=1)),
    "reply": lambda: encode_replies([EncodedReply(7, 0, encode_value(["fast", "swift"]))]),
    "fault": lambda: encode_replies([EncodedReply(7, 0xE0000001, encode_value(SLOW))]),
    "calls": lambda: encode_calls(
        [
            (8, SYNONYMS, ("quick", 3), None),
            (9, SYNONYMS, ("slow", 3), None),
            (10, COUNT, (), None),
            (11, SYNONYMS, ("big", 1), CallOptions(time_left=2.5)),
        ]
    ),
    "replies": lambda: encode_replies([(10, 2), (8, ["fast"]), EncodedReply(9, 0xE0000001, encode_value(SLOW))]),
    "hello": lambda: encode(Hello(bytes(range(16)), 4242, "pluto", "example 1.0", 5.0)),
}


@pytest.mark.parametrize("name", DUMPS)
def test_dumps(name: str) -> None:
    """Each dump is what the code sends."""
    (frame,) = DUMPS[name]()
    assert bytes(frame) == dump(name)


#: What the table of values says, by an example for each of its rows that have one.
TEXTS: list[tuple[object, str]] = [
    (datetime.datetime(2024, 1, 2, 3, 4, 5), "2024-01-02T03:04:05"),
    (datetime.date(2024, 1, 2), "2024-01-02"),
    (datetime.time(3, 4), "03:04:00"),
    (datetime.timedelta(days=1, seconds=2.5), "P1DT2.5S"),
    (decimal.Decimal("1.50"), "1.50"),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
]


@pytest.mark.parametrize(("value", "text"), TEXTS)
def test_values_as_text(value: object, text: str) -> None:
    """These travel as the text that the page shows, which is read as what it was."""
    raw = encode_value(value)
    assert msgspec.msgpack.decode(raw) == text and f"`{text}`" in PAGE
    assert ValueDecoder[object](type(value))(raw) == value


def test_other_values() -> None:
    """A time with a zone is the extension -1, a set and a tuple are arrays, a structure is a map by names."""

    class Point(msgspec.Struct, tag=True):
        x: int

    for value, plain in (((1, 2), [1, 2]), ({1}, [1]), (Point(5), {"type": "Point", "x": 5}), ({1: "a"}, {1: "a"})):
        assert msgspec.msgpack.decode(encode_value(value)) == plain
    zoned = encode_value(datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC))
    assert bytes(memoryview(zoned))[:2] == b"\xd6\xff"
    for wrong, kind in ((1.0, int), ({"1": "a"}, dict[int, str]), (b"x", str), ("x", bytes), (1, bool)):
        with pytest.raises(msgspec.ValidationError):
            ValueDecoder[object](kind)(encode_value(wrong))
    assert ValueDecoder[object](float)(encode_value(1)) == 1.0


def test_size_of_a_call() -> None:
    """The page says how long its call is."""
    assert f"({len(dump('call'))} bytes)" in PAGE


def test_kinds() -> None:
    """The table of kinds has each one, with its number."""
    rows = re.findall(r"^\| (\d+) \| ([A-Z]+) \|", PAGE, re.MULTILINE)
    assert {name: int(number) for number, name in rows} == {kind.name: kind.value for kind in Kind}


def test_sections() -> None:
    """Each kind has a heading that names it."""
    named = {
        word for heading in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE) for word in re.findall("[A-Z]{3,}", heading)
    }
    assert {kind.name for kind in Kind} <= named


def test_limits() -> None:
    """The defaults that the page gives are those of the code."""
    for number in (MAX_MESSAGE_BYTES, MAX_RECORDS, PIPE_WINDOW_BYTES):
        assert str(number) in PAGE


@pytest.mark.parametrize("state", [state for state in ConversationState if state is not ConversationState.LEAVING])
def test_states(state: ConversationState) -> None:
    """The table of states says what the code's table says."""
    row = re.search(rf"^\| {state.name.lower()}\b[^|]*\|(.*)\|$", PAGE, re.MULTILINE)
    assert row
    cells = [set(re.findall("[A-Z]{3,}", cell)) for cell in row[1].split("|")]
    expected = [
        {kind.name for of, kind in TRANSITIONS[side][state] if of is direction}
        for side in (Side.CLIENT, Side.SERVER)
        for direction in (Direction.SENT, Direction.RECEIVED)
    ]
    assert cells == expected
