"""How foreign objects are told of: whatever their code does, there is a text."""

import signal
import threading
from collections.abc import Callable

import pytest

from transport import foreign

from ..hostile import HOSTILE, LONG, RAISED, Text, Value


def raised(error: BaseException) -> BaseException:
    """Return an exception with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("make", HOSTILE)
class TestExceptions:
    """Exceptions whose own code fails in each way."""

    def test_text(self, make: Callable[[type[BaseException]], BaseException], kind: type[BaseException]) -> None:
        """There is a plain, short text that can be encoded, and it names what went wrong if that is all."""
        text = foreign.text_of(make(kind))
        assert type(text) is str and len(text) <= foreign.LONGEST + len("...") and text.encode()

    def test_type(self, make: Callable[[type[BaseException]], BaseException], kind: type[BaseException]) -> None:
        """The name of the type is told without asking for it."""
        assert foreign.type_name(make(kind)) in ("Hostile", "ValueError")

    def test_traceback(self, make: Callable[[type[BaseException]], BaseException], kind: type[BaseException]) -> None:
        """As much of the traceback is told as can be: at least where it was raised, and what it is."""
        text = foreign.traceback_of(raised(make(kind)), 100_000)
        assert type(text) is str and len(text) <= 100_003 and text.encode()
        assert "in raised" in text and ("Hostile" in text or "ValueError" in text)

    def test_log(self, make: Callable[[type[BaseException]], BaseException], kind: type[BaseException]) -> None:
        """A log gets an exception that it can format."""
        error = raised(make(kind))
        told = foreign.loggable(error)
        assert told is error or ("Hostile" in str(told) or "ValueError" in str(told))

    def test_shown(self, make: Callable[[type[BaseException]], BaseException], kind: type[BaseException]) -> None:
        """So is its `repr`."""
        text = foreign.shown(make(kind), 50)
        assert type(text) is str and len(text) <= 200 and text.encode()


class TestOthers:
    """Values and functions."""

    def test_texts_are_told_as_they_are(self) -> None:
        """What can be told is told: nothing is cut, escaped or put in other words."""
        assert foreign.text_of(ValueError("naïve")) == "naïve"
        assert foreign.shown({"a": 1}) == "{'a': 1}"
        assert foreign.name_of(raised) == "raised" and foreign.name_of(int) == "int"
        error = raised(ValueError("said"))
        assert foreign.loggable(error) is error
        assert foreign.traceback_of(error, 10_000).endswith("ValueError: said\n")

    def test_surrogates_are_escaped(self) -> None:
        """A lone surrogate is told by its number; the rest of the text is as it was."""
        assert foreign.text_of(ValueError("é\udc80")) == "é\\udc80"

    def test_long_texts_are_cut(self) -> None:
        """Of a text that is too long the beginning is told, and that there was more."""
        assert foreign.text_of(ValueError("x" * LONG), 10) == "x" * 10 + "..."
        assert foreign.shown(10**5000, 10).startswith("<int, whose repr raises ValueError")

    @pytest.mark.parametrize("kind", RAISED)
    def test_values(self, kind: type[BaseException]) -> None:
        """A value that cannot be shown is told by its type, and by what it raised."""
        assert foreign.shown(Value(kind)) == f"<Value, whose repr raises {kind.__name__}>"
        assert foreign.name_of(Value(kind)) == foreign.shown(Value(kind))
        assert foreign.text_of(Value(kind)) == f"(its text cannot be shown: {kind.__name__})"
        assert foreign.type_name(Text("x")) == "Text" and foreign.text_of(Text("x")).startswith("(its text cannot be")

    def test_a_chain_is_told_in_parts(self) -> None:
        """If one exception of a chain cannot be formatted, the others are told all the same."""

        class Silent(Exception):
            @property
            def __notes__(self) -> list[str]:  # type: ignore[override]  # more hostile than a type allows
                raise SystemExit

        first, last = raised(Silent("first")), ValueError("last")
        last.__cause__ = first
        text = foreign.traceback_of(raised(last), 10_000)
        assert "ValueError: last" in text and "Silent: first" in text


class TestInterrupts:
    """What a signal handler raises in the midst of foreign code is told from what that code raises."""

    @pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="a signal of its own is needed")
    @pytest.mark.parametrize("kind", RAISED)
    def test_a_handler(self, kind: type[BaseException]) -> None:
        """What a handler raises is an interrupt, whatever it is; what other code raises is none, but for Ctrl-C."""

        def handle(number: int, frame: object) -> None:
            raise kind

        former = signal.signal(signal.SIGUSR1, handle)
        try:
            with pytest.raises(kind) as interrupted:
                signal.raise_signal(signal.SIGUSR1)
            assert foreign.is_interrupt(interrupted.value)
        finally:
            signal.signal(signal.SIGUSR1, former)
        assert foreign.is_interrupt(raised(kind())) is (kind is KeyboardInterrupt)

    def test_other_threads(self) -> None:
        """In other threads no handler runs: a KeyboardInterrupt there is foreign code's own."""
        found: list[bool] = []
        thread = threading.Thread(target=lambda: found.append(foreign.is_interrupt(raised(KeyboardInterrupt()))))
        thread.start()
        thread.join()
        assert found == [False]
