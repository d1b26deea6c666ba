"""Texts of classes of their own, as template engines make them: wherever a text is wanted they travel as plain ones."""

import enum
import itertools
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from engine import BadStubData, Client, Interface, Server, ServerCall, current_call, manager, operation
from engine.testing import LIMIT
from transport.wire.codec import encode_calls, encode_replies

_numbers = itertools.count()


class Safe(str):
    """A text that a template need not escape."""


class Tenant(enum.StrEnum):
    """A text of an enum."""

    ACME = "acme"


class Seconds(float):
    """A number of a class of its own."""


class Bytes(int):
    """Another."""


class Texts(Interface, id=Safe("test.Texts")):
    """A contract whose names are such texts."""

    @operation(name=Safe("metadata"))
    def told(self) -> dict[str, str]:
        """Return the metadata of the call."""

    @operation
    def add(self, left: int, right: int) -> int:
        """Return the sum."""

    @operation
    def refuse(self) -> None:
        """Abort."""


class Routines:
    """What the server does."""

    def told(self) -> dict[str, str]:
        call = current_call()
        call.set_trailing_metadata({Safe("by"): Safe("pluto")})
        return dict(call.metadata)

    def add(self, left: int, right: int) -> int:
        return left + right

    @manager
    def refuse(self, call: ServerCall) -> None:
        call.abort(4711, Safe("no " * 1000))


@pytest.fixture(params=["loopback", "ipc"])
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where a server serves the contract, and the same routines by name."""
    number = next(_numbers)
    where = {"loopback": f"loopback://texts-{number}", "ipc": f"ipc://@callport-texts-{number}-{id(object())}"}
    with Server(where[request.param]) as server:
        server.register(Texts, Routines())
        server.register(Safe("by-name"), Routines())
        server.listen()
        yield where[request.param]


@pytest.mark.parametrize("text", [Safe("x"), Tenant.ACME], ids=["class", "enum"])
class TestTextsOfOtherClasses:
    """They are what they say."""

    def test_metadata_of_a_call(self, endpoint: str, text: str) -> None:
        """They may be names and values of a call's metadata."""
        with Client(endpoint, timeout=LIMIT) as client:
            call = client.bind(Texts).told.begin(metadata={text: text})
            assert call.result(LIMIT) == {str(text): str(text)}
            assert call.trailing_metadata == {"by": "pluto"}

    def test_metadata_of_a_connection(self, endpoint: str, text: str) -> None:
        """They may be names and values of a client's metadata."""
        with Client(endpoint, timeout=LIMIT, metadata={text: text}) as client:
            assert client.bind(Texts).told() == {str(text): str(text)}


class TestNames:
    """Names of interfaces and operations."""

    def test_of_interfaces_and_operations(self, endpoint: str) -> None:
        """A binding by name takes them, and so does what it is asked for."""
        with Client(endpoint, timeout=LIMIT) as client:
            assert getattr(client.bind(Safe("by-name")), Safe("add"))(1, 2) == 3

    def test_text_of_an_abort(self, endpoint: str) -> None:
        """A call is aborted with the whole of such a text."""
        with Client(endpoint, timeout=LIMIT) as client:
            call = client.bind(Texts).refuse.begin()
            assert call.wait(LIMIT)
            with pytest.raises(Exception, match=r"(no ){1000}"):
                call.complete()


class TestNumbers:
    """Numbers of classes of their own among the settings that the other side is told."""

    def test_settings(self, endpoint: str) -> None:
        """They are what they say, in a client's settings and in a server's."""
        settings: dict[str, Any] = {
            "pipe_window": Bytes(4096), "max_message_bytes": Bytes(1 << 20), "heartbeat": Seconds(7.0)
        }  # fmt: skip
        where = f"{endpoint}-2"
        with Server(where, **settings) as server, Client(where, timeout=Seconds(LIMIT), **settings) as client:
            server.register(Texts, Routines())
            server.listen()
            assert client.bind(Texts).add(1, 2) == 3

    def test_name_of_the_host(self, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The name of a host that is no text keeps nobody from greeting."""
        monkeypatch.setattr(socket, "gethostname", lambda: "pl\udcfcto")
        with Client(endpoint, timeout=LIMIT) as client:
            assert client.bind(Texts).add(1, 2) == 3


class TestWhatCannotBeEncoded:
    """A message that cannot be encoded, whatever the cause."""

    def check_all_but_one(self, client: Client, why: str) -> None:
        """Of many calls the one that has the number 13, or comes to 26, ends with that; the others are answered."""
        add = client.bind(Texts).add
        calls = {value: add.begin(value, value) for value in range(40)}
        bad = calls.pop(13)
        assert {value: call.result(LIMIT) for value, call in calls.items()} == {v: 2 * v for v in calls}
        with pytest.raises(BadStubData, match=why):
            bad.result(LIMIT)

    def test_a_call_ends_by_itself(self, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """It ends with a status; those that share its message, and those behind it, are answered."""

        def fails(calls: Any) -> Any:
            if any(call[2] == (13, 13) for call in calls):
                raise MemoryError("thirteen")
            return encode_calls(calls)

        monkeypatch.setattr("engine.rpc.client.outbox.encode_calls", fails)
        with Client(endpoint, timeout=LIMIT) as client:
            self.check_all_but_one(client, "thirteen")
            assert client.statistics().outstanding == 0

    def test_an_answer_ends_its_call(self, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The call is told so; the other answers arrive."""

        def fails(answers: Any) -> Any:
            if any(type(answer) is tuple and answer[1] == 26 for answer in answers):
                raise MemoryError("twenty-six")
            return encode_replies(answers)

        monkeypatch.setattr("engine.rpc.server.answers.encode_replies", fails)
        with Client(endpoint, timeout=LIMIT) as client:
            self.check_all_but_one(client, "twenty-six")
