"""What becomes of the exceptions of routines: at the server's log, and at the client."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine import (
    CallPending,
    CallTimeout,
    Client,
    CompletionPort,
    Interface,
    InvalidArgumentType,
    InvalidAsyncHandle,
    InvalidParameter,
    RemoteFault,
    Server,
    ServerUnavailable,
    Unavailable,
    current_call,
    operation,
)
from engine.testing import LIMIT, wait_until

NOWHERE = "tcp://127.0.0.1:1"


class Missing(Exception):
    """One of a program's own, with fields of its own."""

    def __init__(self, key: str, places: list[int]) -> None:
        super().__init__(key, places)
        self.key = key
        self.places = places


class Odd(Exception):
    """One that cannot be made of what it shows."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class Shelf(Interface, id="test.Faults"):
    """What is called."""

    @operation(raises=[LookupError, Missing, Odd])
    def get(self, key: str) -> str: ...

    @operation
    def fail(self) -> None: ...

    @operation
    def fail_in_the_loop(self) -> None: ...

    @operation
    def told(self) -> None: ...

    @operation
    def fail_late(self) -> None: ...


class Routines:
    """The routines of `Shelf`."""

    def get(self, key: str) -> str:
        if key == "missing":
            raise Missing(key, [1, 2])
        if key == "odd":
            raise Odd(1, 2)
        if key == "other":
            raise ZeroDivisionError(key)
        if key == "untold":
            raise LookupError(object())
        return {"there": "it is"}[key]

    def fail(self) -> None:
        raise ZeroDivisionError("the password is 5")

    async def fail_in_the_loop(self) -> None:
        raise ZeroDivisionError("the password is 5")

    def told(self) -> None:
        raise RemoteFault("as agreed", status=9000)

    def fail_late(self) -> None:
        current_call().abort(9001, "as agreed")
        raise ZeroDivisionError("after the end")


@pytest.fixture
def shelf() -> Iterator[Callable[..., Shelf]]:
    """Makes a binding to a server with these options."""
    opened: list[Any] = []

    def make(**options: Any) -> Shelf:
        server = Server("tcp://127.0.0.1:0", **options)
        server.register(Shelf, Routines())
        server.listen()
        client = Client(server.endpoint)
        opened.extend((server, client))
        return client.bind(Shelf)

    yield make
    for each in reversed(opened):
        each.close()


def records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was logged of faults, once there is something: a thread that others depend on leaves it to another."""
    found: list[logging.LogRecord] = []
    wait_until(lambda: found.extend(each for each in caplog.records if each.name == "engine.rpc.faults") or found)
    return found


class TestLog:
    """The server logs what a routine raises, once, and what was raised for the client not at all."""

    @pytest.mark.parametrize("name", ["fail", "fail_in_the_loop"])
    @pytest.mark.parametrize("details", [True, False])
    def test_once(
        self, shelf: Callable[..., Shelf], caplog: pytest.LogCaptureFixture, name: str, details: bool
    ) -> None:
        """One record, with the operation, the caller, the number of the call and the traceback; each is a field, too,
        and so is the number that the client is told if it is to know no more.
        """
        bound = shelf(fault_details=details)
        call = getattr(bound, name).begin()
        with pytest.raises(RemoteFault) as raised:
            call.result(LIMIT)
        (record,) = records(caplog)
        fields: Any = record
        assert record.levelno == logging.ERROR
        assert fields.operation == f"test.Faults.{name}"
        assert fields.call_id == 1
        assert "process " in fields.caller and "127.0.0.1" in fields.caller
        assert record.exc_info is not None and record.exc_info[0] is ZeroDivisionError
        assert f"test.Faults.{name} raised ZeroDivisionError in call 1 of " in record.getMessage()
        assert (fields.fault in str(raised.value)) is not details

    def test_what_was_meant_for_the_client(self, shelf: Callable[..., Shelf], caplog: pytest.LogCaptureFixture) -> None:
        """A status that a routine raises, and what its operation declares, are no errors of the server's."""
        caplog.set_level(logging.DEBUG)
        bound = shelf()
        with pytest.raises(RemoteFault, match="as agreed"):
            bound.told()
        with pytest.raises(LookupError):
            bound.get("nowhere")
        assert [record for record in caplog.records if record.name == "engine.rpc.faults"] == []

    def test_after_the_call_was_closed(self, shelf: Callable[..., Shelf], caplog: pytest.LogCaptureFixture) -> None:
        """What a routine raises after it has closed its call is logged once, as what no client was told."""
        bound = shelf()
        with pytest.raises(RemoteFault, match="as agreed"):
            bound.fail_late()
        found: list[logging.LogRecord] = []
        wait_until(lambda: found.extend(each for each in caplog.records if each.exc_info) or found)
        (record,) = found
        assert "raised after it was closed" in record.getMessage()
        assert record.exc_info is not None and record.exc_info[0] is ZeroDivisionError

    def test_level_and_redaction(self, shelf: Callable[..., Shelf], caplog: pytest.LogCaptureFixture) -> None:
        """Both are the logger's own business: `engine.rpc.faults` has its level and its filters."""
        logger = logging.getLogger("engine.rpc.faults")

        def redact(record: logging.LogRecord) -> bool:
            record.levelno, record.levelname, record.exc_info = logging.WARNING, "WARNING", None
            return True

        logger.addFilter(redact)
        try:
            with pytest.raises(RemoteFault):
                shelf().fail()
        finally:
            logger.removeFilter(redact)
        (record,) = records(caplog)
        assert record.levelno == logging.WARNING
        assert "password" not in caplog.text
        caplog.clear()
        logger.setLevel(logging.CRITICAL)
        try:
            with pytest.raises(RemoteFault):
                shelf().fail()
        finally:
            logger.setLevel(logging.NOTSET)
        assert caplog.records == []


class TestNotes:
    """The routine's traceback stands where people look."""

    @pytest.mark.parametrize("key", ["other", "missing"])
    def test_traceback(self, shelf: Callable[..., Shelf], key: str) -> None:
        """`Server(tracebacks=True)` sends it, and the error has it as a note, a declared one on its cause."""
        with pytest.raises((RemoteFault, Missing)) as raised:
            shelf(tracebacks=True).get(key)
        error = raised.value if isinstance(raised.value, RemoteFault) else raised.value.__cause__
        assert error is not None
        (note,) = error.__notes__
        assert note.startswith("At the server:\nTraceback") and "in get" in note


class TestDeclared:
    """`@operation(raises=...)`: the classes are part of the contract."""

    @pytest.mark.parametrize("details", [True, False])
    def test_as_themselves(self, shelf: Callable[..., Shelf], details: bool) -> None:
        """What was declared arrives as what it is, with its arguments; what derives from it arrives as what was
        declared. The fault is the cause.
        """
        bound = shelf(fault_details=details)
        assert bound.get("there") == "it is"
        with pytest.raises(Missing) as raised:
            bound.get("missing")
        assert (raised.value.key, raised.value.places) == ("missing", [1, 2])
        assert isinstance(raised.value.__cause__, RemoteFault)
        with pytest.raises(LookupError) as found:
            bound.get("nowhere")
        assert type(found.value) is LookupError and found.value.args == ("nowhere",)

    def test_awaited(self, shelf: Callable[..., Shelf]) -> None:
        """Awaiting raises it, each time."""
        bound = shelf()

        async def main() -> None:
            call = bound.get.begin("missing")
            for _ in range(2):
                with pytest.raises(Missing):
                    await call

        asyncio.run(main())

    def test_what_cannot_be_made_again(self, shelf: Callable[..., Shelf]) -> None:
        """It arrives as the fault, with a note that says why; so does what was not declared."""
        bound = shelf()
        with pytest.raises(RemoteFault, match="Odd: 1 and 2") as raised:
            bound.get("odd")
        assert "cannot be made" in raised.value.__notes__[0]
        with pytest.raises(RemoteFault, match="ZeroDivisionError"):
            bound.get("other")

    def test_arguments_that_do_not_travel(self, shelf: Callable[..., Shelf]) -> None:
        """The class arrives, made of its text."""
        with pytest.raises(LookupError, match="object object"):
            shelf().get("untold")

    def test_a_client_without_the_contract(self) -> None:
        """It gets the fault."""
        with Server("loopback://test-faults") as server, Client("loopback://test-faults") as client:
            server.register(Shelf, Routines())
            server.listen()
            with pytest.raises(RemoteFault, match="Missing"):
                client.bind("test.Faults").get("missing")

    @pytest.mark.parametrize("raises", [[int], ["LookupError"], [BaseException], [SystemExit], [CallTimeout], 5])
    def test_what_cannot_be_declared(self, raises: Any) -> None:
        """Only exceptions that are the program's, or Python's, and end no interpreter."""
        with pytest.raises(InvalidArgumentType, match="raises"):
            operation(raises=raises)(lambda self: None)

    def test_two_of_one_name(self) -> None:
        """They could not be told apart on the wire."""
        other = type("Missing", (Exception,), {})
        with pytest.raises(InvalidParameter, match="one name"):
            operation(raises=[Missing, other])(lambda self: None)


class TestWhatRan:
    """One `except` makes a 503, and each error says whether trying again is safe."""

    def test_unavailable(self) -> None:
        """What no server has served now is `Unavailable`."""
        with Client(NOWHERE, connect_timeout=0.01) as client:
            with pytest.raises(Unavailable) as raised:
                client.bind(Shelf).fail()
        assert type(raised.value) is ServerUnavailable and not raised.value.may_have_run

    def test_may_have_run(self, shelf: Callable[..., Shelf]) -> None:
        """A fault of the routine says that it has run, what no routine was entered for that it has not."""
        bound = shelf()
        with pytest.raises(RemoteFault) as raised:
            bound.fail()
        assert raised.value.may_have_run


class TestPending:
    """A time that is up is a `TimeoutError` that says what is pending, since when, and why."""

    @pytest.mark.parametrize("how", ["result", "exception"])
    def test_a_server_that_was_never_reached(self, how: str) -> None:
        """It says so, and counts from the first wait."""
        with Client(NOWHERE, connect_timeout=None) as client:
            call = client.bind(Shelf).fail.begin()
            texts = []
            for _ in range(2):
                with pytest.raises(TimeoutError, match="no server was ever reached at tcp://127.0.0.1:1") as raised:
                    getattr(call, how)(0.01)
                assert isinstance(raised.value, CallPending)
                texts.append(str(raised.value).partition("since ")[2].partition(",")[0])
            assert texts[0] == texts[1]

    def test_a_port(self) -> None:
        """So does a wait on the port that is to be told."""
        with Client(NOWHERE, connect_timeout=None) as client, CompletionPort() as port:
            client.bind(Shelf).fail.begin(notify=port)
            with pytest.raises(TimeoutError, match="no server was ever reached"):
                port.get(0.01)


class TestException:
    """`call.exception()`, as a future has it."""

    def test_it_collects_nothing(self, shelf: Callable[..., Shelf]) -> None:
        """It returns the error, again and again, and None for a result; completing raises it."""
        bound = shelf()
        failed, missing, fine = bound.fail.begin(), bound.get.begin("missing"), bound.get.begin("there")
        for _ in range(2):
            assert isinstance(failed.exception(LIMIT), RemoteFault)
            assert isinstance(missing.exception(LIMIT), Missing)
            assert fine.exception(LIMIT) is None
        with pytest.raises(RemoteFault):
            failed.complete()
        assert fine.complete() == "it is"
        with pytest.raises(InvalidAsyncHandle):
            fine.exception()

    def test_after_it_was_awaited(self, shelf: Callable[..., Shelf]) -> None:
        """It is there still."""
        call = shelf().get.begin("missing")

        async def main() -> None:
            with pytest.raises(Missing):
                await call

        asyncio.run(main())
        assert isinstance(call.exception(), Missing)


class TestUserData:
    """`begin(..., user_data=)`."""

    def test_it_is_there_first(self, shelf: Callable[..., Shelf]) -> None:
        """A packet's call has it, however soon the packet comes; a handle that is used again keeps its own."""
        bound = shelf()
        with CompletionPort() as port:
            for number in range(10):
                bound.get.begin("there", notify=port, user_data=number)
            found = [port.get(LIMIT).overlapped for _ in range(10)]
            assert sorted(call.user_data for call in found) == list(range(10))
        call = found[0]
        call.complete()
        kept = call.user_data
        assert bound.get.begin("there", handle=call) is call
        assert call.user_data == kept
        call.result(LIMIT)
        bound.get.begin("there", handle=call, user_data="another")
        assert call.user_data == "another"
