"""PROTOCOL.md against the code: its hex dumps, its numbers, its limits."""

import re
from pathlib import Path

import pytest

import transport
from transport import (
    MAX_MESSAGE_BYTES,
    MAX_RECORDS,
    PIPE_WINDOW_BYTES,
    TRANSITIONS,
    CallOptions,
    ConversationState,
    Fault,
    Hello,
    Kind,
    Side,
    Target,
    Way,
    encode,
    encode_call,
    encode_reply,
)

PAGE = (Path(transport.__file__).parent / "PROTOCOL.md").read_text(encoding="utf-8")


def dump(name: str) -> bytes:
    """The bytes of a dump: the hex pairs that a line begins with, up to two spaces."""
    found = re.search(rf"^```{name}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"no dump {name}"
    lines = [line.split("  ")[0] for line in found[1].splitlines() if not line.startswith(" ")]
    return bytes.fromhex(" ".join(lines))


THESAURUS = Target("demo.Thesaurus", 1, 0, "synonyms")

DUMPS = {
    "call": lambda: encode_call(THESAURUS, 7, ["quick", 3], CallOptions(time_left=2.5, lane=1)),
    "reply": lambda: encode_reply(7, ["fast", "swift"]),
    "fault": lambda: encode_reply(7, Fault("KeyError", "'slow'"), 1726),
    "hello": lambda: encode(Hello(bytes(range(16)), 4242, "pluto", "example 1.0", 5.0)),
}


@pytest.mark.parametrize("name", DUMPS)
def test_dumps(name: str) -> None:
    """Each dump is what the code sends."""
    (frame,) = DUMPS[name]()
    assert bytes(frame) == dump(name)


def test_kinds() -> None:
    """The table of kinds has each one, with its number."""
    rows = re.findall(r"^\| (\d+) \| ([A-Z]+) \|", PAGE, re.MULTILINE)
    assert {name: int(number) for number, name in rows} == {kind.name: kind.value for kind in Kind}


def test_limits() -> None:
    """The defaults that the page gives are those of the code."""
    for number in (MAX_MESSAGE_BYTES, MAX_RECORDS, PIPE_WINDOW_BYTES):
        assert str(number) in PAGE


@pytest.mark.parametrize(
    "state", [ConversationState.FRESH, ConversationState.GREETED, ConversationState.OPEN]
)
def test_states(state: ConversationState) -> None:
    """The table of states says what the code's table says."""
    row = re.search(rf"^\| {state.name.lower()}\b[^|]*\|(.*)\|$", PAGE, re.MULTILINE)
    assert row
    cells = [set(re.findall("[A-Z]{3,}", cell)) for cell in row[1].split("|")]
    expected = [
        {kind.name for of, kind in TRANSITIONS[side][state] if of is way}
        for side in (Side.CLIENT, Side.SERVER)
        for way in (Way.SENT, Way.RECEIVED)
    ]
    assert cells == expected
