"""`transport/vectors.json`, the record of the frozen wire, on both sides' sessions."""

import hashlib
import json
from typing import Any

import pytest

from transport import Buffer
from transport.errors import RemoteProtocolError
from transport.frames import Kind, Reject, Welcome
from transport.wire.codec import decode
from transport.wire.session import ClientSession, Received, ServerSession

from . import vectors

VECTORS: list[dict[str, Any]] = json.loads(vectors.FILE.read_text(encoding="utf-8"))["vectors"]

#: How many of each side's vectors there were as version 1 was frozen, and what they were.
FROZEN = {
    "server": (163, "342262ba2f545e93df75663981d61de1c6acc37a576e6abe1fa495c84fb99cfc"),
    "client": (84, "06a66512113881b2b5074915202b72f3f43588cd9f1ee5928b4702f95b039a64"),
}


def frames_of(vector: dict[str, Any]) -> list[Buffer]:
    """The message, as it arrives."""
    return [bytes.fromhex(frame) for frame in vector["frames"]]


def of(side: str) -> list[Any]:
    """Parameters for the vectors that this side gets."""
    return [pytest.param(vector, id=vector["name"]) for vector in VECTORS if vector["to"] == side]


def named(side: str, name: str) -> list[Buffer]:
    """The frames of one vector."""
    return next(frames_of(vector) for vector in VECTORS if (vector["to"], vector["name"]) == (side, name))


def take(session: ClientSession | ServerSession, frames: list[Buffer]) -> Received:
    """What a runtime does with a message that arrives."""
    screened = session.screen(frames) if isinstance(session, ServerSession) else None
    if screened is not None:
        return screened
    try:
        message = decode(frames)
    except RemoteProtocolError as error:
        return session.unreadable(error, frames)
    return session.receive(message)


def test_the_file_is_what_the_script_makes() -> None:
    """The encoders send what the file says; `python -m tests.transport.wire.vectors` writes it again."""
    assert vectors.FILE.read_text(encoding="utf-8") == vectors.generate()


@pytest.mark.parametrize("side", FROZEN)
def test_what_was_frozen(side: str) -> None:
    """The vectors of the frozen version are there, in their order, as they were. New ones come after them."""
    count, digest = FROZEN[side]
    found = [vector for vector in VECTORS if vector["to"] == side][:count]
    assert len(found) == count
    assert hashlib.sha256(json.dumps(found).encode()).hexdigest() == digest, (
        "version 1 of the protocol was changed: peers that are in use would not understand each other any more"
    )


def test_names() -> None:
    """Each side's vectors have names of their own; there are some for each kind that it gets."""
    names = [(vector["to"], vector["name"]) for vector in VECTORS]
    assert len(set(names)) == len(names)
    for side, missing in (
        ("server", {Kind.WELCOME, Kind.REJECT, Kind.REPLIES}),
        ("client", {Kind.HELLO, Kind.CALLS, Kind.CANCEL}),
    ):
        taken = {bytes(frames_of(each)[0])[3] for each in VECTORS if each["to"] == side and "meaning" in each}
        assert taken == set(Kind) - missing


class TestServer:
    """What a server gets."""

    @pytest.mark.parametrize("vector", of("server"))
    def test_session(self, vector: dict[str, Any]) -> None:
        """It means what the file says, and has the consequence that the file says."""
        session = ServerSession(lambda: Welcome(bytes(16)))
        if vector["state"] != "fresh":
            take(session, named("server", "hello"))
        if vector["state"] == "rejected":
            session.break_off(1728, "")
        found = take(session, frames_of(vector))
        rejected = [answer.status for answer in found.answers if type(answer) is Reject] == [1728]
        welcomed = [type(answer) for answer in found.answers] == [Welcome]
        silent = found.error is None and not found.answers
        ended = found.ended and vector["state"] == "open"
        assert {
            "taken": silent and found.message is not None and not found.ended,
            "welcomed": welcomed and found.error is None and session.is_open,
            "dropped": found.message is None and not found.answers and not found.ended,
            "rejected": rejected and found.error is not None and ended == (vector["state"] == "open"),
            "ends": silent and ended,
        }[vector["consequence"]]
        if "meaning" in vector:
            assert vectors.plain(found.message) == vector["meaning"]


class TestClient:
    """What a client gets."""

    @pytest.mark.parametrize("vector", of("client"))
    def test_session(self, vector: dict[str, Any]) -> None:
        """It means what the file says, and has the consequence that the file says; a client answers nothing."""
        session = ClientSession()
        session.begin()
        if vector["state"] != "greeted":
            take(session, named("client", "welcome"))
        if vector["state"] == "rejected":
            session.receive(Reject([1], 1728))
        before = session.state
        found = take(session, frames_of(vector))
        assert found.answers == ()
        assert {
            "taken": found.message is not None and session.is_open,
            "dropped": found.message is None and session.state is before,
            "ends": found.message is not None and not session.is_open,
        }[vector["consequence"]]
        if "meaning" in vector:
            assert vectors.plain(found.message) == vector["meaning"]
        if vector["consequence"] == "ends":
            session.begin()
