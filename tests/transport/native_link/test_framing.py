"""ZMTP without I/O: what is understood however it is cut, and what is refused before it is kept."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transport.native_link.framing import (
    GREETING_BYTES,
    LARGE_BYTES,
    MAX_COMMAND_BYTES,
    MAX_PARTS,
    Framing,
    FramingError,
    command,
    head,
    hello,
    in_frames,
    ping,
)

LIMIT = 1 << 20


def taken(framing: Framing, data: bytes) -> list[list[bytes]]:
    """The messages that these bytes complete."""
    found: list[list[Any]] = []
    framing.take(data, found)
    return found


def at_a_server(limit: int = LIMIT, first: int = LIMIT, greeted: bool = True) -> Framing:
    """What a server makes of its client's bytes, from after the handshake on."""
    framing = Framing(b"ROUTER", limit, first)
    if greeted:
        assert taken(framing, hello(b"DEALER")) == [] and framing.open
    return framing


def read(framing: Framing, data: bytes) -> Iterator[list[bytes]]:
    """Have it read this in one piece, as a connection does: into the place that it names."""
    found: list[list[Any]]
    while data:
        if framing.filling is None:
            found, data = taken(framing, data), b""
        else:
            size = min(len(framing.filling), len(data))
            framing.filling[:size] = data[:size]
            data = data[size:]
            found = []
            framing.filled(size, found)
        yield from ([bytes(frame) for frame in message] for message in found)


def on_the_wire(*frames: bytes) -> bytes:
    return b"".join(in_frames(list(frames)))


class TestMessages:
    @settings(max_examples=60, deadline=None)
    @given(
        messages=st.lists(
            st.lists(st.sampled_from((0, 1, 255, 256, 700, LARGE_BYTES, 3 * LARGE_BYTES)), min_size=1, max_size=4),
            min_size=1, max_size=6,
        ),
        cuts=st.lists(st.integers(1, 200_000), min_size=1, max_size=8),
    )  # fmt: skip
    def test_however_they_are_cut(self, messages: list[list[int]], cuts: list[int]) -> None:
        """Messages come out as they went in, wherever the stream is cut, with commands between frames."""
        sent = [[os.urandom(size) for size in message] for message in messages]
        stream = hello(b"DEALER") + b"".join(ping(15) + on_the_wire(*message) for message in sent)
        framing, got, turn = at_a_server(greeted=False), [], 0
        while stream:
            size = cuts[turn % len(cuts)]
            turn += 1
            piece, stream = stream[:size], stream[size:]
            got += list(read(framing, piece))
        assert got == sent
        assert framing.answers() == command(b"PONG", b"") * len(sent)

    def test_a_command_may_stand_within_a_message(self) -> None:
        """The frames around it are one message."""
        framing = at_a_server()
        assert taken(framing, head(1, more=True) + b"a" + ping(15) + head(1) + b"b") == [[b"a", b"b"]]

    def test_more_frames_than_a_message_has_are_dropped(self) -> None:
        """Its reader sees that there were too many, and no more is kept of it."""
        framing = at_a_server()
        ((*frames,),) = taken(framing, on_the_wire(*[b"x"] * 1000))
        assert len(frames) == 258
        assert taken(framing, on_the_wire(b"next")) == [[b"next"]]

    def test_a_large_frame_is_read_into_its_place(self) -> None:
        """What remains of it is read to where it stays; what is set aside grows with what has come."""
        framing = at_a_server(1 << 30)
        taken(framing, on_the_wire(b"first"))
        taken(framing, head(1 << 29) + bytes(10))
        assert framing.filling is not None and len(framing.filling) < 1 << 20


class TestCommands:
    def test_a_ping_is_answered_with_what_it_brought(self) -> None:
        """A PONG brings the context back; how long the peer is patient is known then."""
        framing = at_a_server()
        assert taken(framing, command(b"PING", (25).to_bytes(2) + b"context")) == []
        assert framing.answers() == command(b"PONG", b"context") and framing.answers() == b""
        assert framing.patience == 2.5

    def test_others_are_passed_over(self) -> None:
        """What is not known does no harm."""
        framing = at_a_server()
        assert taken(framing, command(b"PONG", b"") + command(b"JOIN", b"x") + on_the_wire(b"m")) == [[b"m"]]

    def test_an_error_says_why(self) -> None:
        """An ERROR ends the connection, with what the peer says."""
        framing = at_a_server(greeted=False)
        with pytest.raises(FramingError, match="no way"):
            taken(framing, hello(b"DEALER")[:GREETING_BYTES] + command(b"ERROR", b"\x06no way"))


REFUSED = {
    "a browser": b"GET / HTTP/1.1\r\n",
    "an old version": b"\xff" + bytes(8) + b"\x7f\x01",
    "other security": hello(b"DEALER")[:12] + b"CURVE".ljust(20, b"\0") + bytes(32),
    "a socket of another kind": hello(b"SUB"),
    "a message before READY": hello(b"DEALER")[:GREETING_BYTES] + on_the_wire(b"early"),
    "another command before READY": hello(b"DEALER")[:GREETING_BYTES] + ping(1),
    "READY twice": hello(b"DEALER") + hello(b"DEALER")[GREETING_BYTES:],
    "READY that is cut off": hello(b"DEALER")[:GREETING_BYTES] + command(b"READY", b"\x0bSocket-Type\0\0\0\xff"),
    "READY with a nameless property": hello(b"DEALER")[:GREETING_BYTES] + command(b"READY", b"\0\0\0\0\0"),
    "a command without a name": hello(b"DEALER") + b"\x04\x01\x00",
    "a command shorter than its name": hello(b"DEALER") + b"\x04\x02\x09P",
    "an empty command": hello(b"DEALER") + b"\x04\x00",
    "a long command": hello(b"DEALER") + b"\x06" + (MAX_COMMAND_BYTES + 1).to_bytes(8),
    "a command that goes on": hello(b"DEALER") + b"\x05\x05\x04PING",
    "reserved flags": hello(b"DEALER") + b"\x08\x01x",
    "a PING without a time": hello(b"DEALER") + command(b"PING", b""),
    "a PING that is long": hello(b"DEALER") + command(b"PING", bytes(40)),
    "a frame that is too large": hello(b"DEALER") + head(LIMIT + 1),
    "a frame of 2^63 bytes": hello(b"DEALER") + head(1 << 63),
    "a message without end": hello(b"DEALER") + (head(0, more=True)) * (MAX_PARTS + 1),
    "a message that is too large": hello(b"DEALER") + (head(10_000, more=True) + bytes(10_000)) * 210,
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused(name: str) -> None:
    """Nothing of it is kept or delivered, whether it comes at once or byte after byte."""
    with pytest.raises(FramingError):
        taken(at_a_server(greeted=False), REFUSED[name])
    framing, data = at_a_server(greeted=False), REFUSED[name]
    with pytest.raises(FramingError):
        for place in range(0, len(data), 997 if len(data) > 1000 else 1):
            list(read(framing, data[place : place + (997 if len(data) > 1000 else 1)]))


def test_a_stranger_has_less_room() -> None:
    """Until its first message is there a client may send less; short frames are held against the limit, too."""
    framing = at_a_server(first=1000)
    with pytest.raises(FramingError):
        taken(framing, head(1001))
    framing = at_a_server(first=1000)
    assert len(taken(framing, on_the_wire(bytes(1000)) + on_the_wire(bytes(5000)))) == 2
    framing = at_a_server(limit=10)
    with pytest.raises(FramingError):
        taken(framing, on_the_wire(b"first") + on_the_wire(bytes(11)))


def test_a_socket_of_another_kind_is_told() -> None:
    """It gets an ERROR before its connection is closed."""
    framing = at_a_server(greeted=False)
    with pytest.raises(FramingError):
        taken(framing, hello(b"PUB"))
    assert framing.answers().endswith(b"Invalid socket type")


def test_what_came_before_counts() -> None:
    """Messages before what is refused are there, though they came in one piece with it."""
    framing, found = at_a_server(), list[list[Any]]()
    with pytest.raises(FramingError):
        framing.take(on_the_wire(b"good") + b"\x08\1x", found)
    assert found == [[b"good"]]
