"""Objects whose description is code that fails: exceptions and values of a program that does what it likes.

`HOSTILE` has a maker for each way in which a description can fail. What each raises in turn is `RAISED`, as no `except
Exception` stops it.
"""

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

RAISED = (ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)

LONG = 5_000_000  # Characters: far more than anybody wants to read.


class Text(str):
    """A text that cannot be put together with others."""

    def _fail(self, *args: Any) -> NoReturn:
        raise SystemExit("a text's own code")

    __str__ = __repr__ = __format__ = __len__ = __getitem__ = encode = __add__ = __eq__ = _fail  # type: ignore[assignment]  # hostile on purpose
    __hash__ = str.__hash__


def _class(**attributes: Any) -> type[BaseException]:
    return type("Hostile", (Exception,), attributes)


def _raising(kind: type[BaseException]) -> Callable[..., NoReturn]:
    def fail(*args: Any) -> NoReturn:
        raise kind("the description failed")

    return fail


def silent(kind: type[BaseException]) -> BaseException:
    """An exception that says nothing, and raises `kind` if it is asked to."""
    fail = _raising(kind)
    return _class(__str__=fail, __repr__=fail)("said")


def unbelievable(kind: type[BaseException]) -> BaseException:
    """One that raises when it is asked what it is, or whether it is true."""
    fail = _raising(kind)
    return _class(__class__=property(fail), __bool__=fail, __eq__=fail, __hash__=fail, __len__=fail)("said")


def nameless(kind: type[BaseException]) -> BaseException:
    """One whose class raises when it is asked for anything, its name above all."""
    fail = _raising(kind)
    meta = type("Meta", (type,), {"__getattribute__": fail, "__repr__": fail})
    made: BaseException = meta("Hostile", (Exception,), {})("said")
    return made


def annotated(kind: type[BaseException]) -> BaseException:
    """One whose notes cannot be read."""
    return _class(__notes__=property(_raising(kind)))("said")


def untraceable(kind: type[BaseException]) -> BaseException:
    """One whose traceback, cause, context and arguments cannot be read."""
    fail = property(_raising(kind))
    return _class(__traceback__=fail, __cause__=fail, __context__=fail, __suppress_context__=fail, args=fail)("said")


def caused(kind: type[BaseException]) -> BaseException:
    """One whose cause says nothing."""
    error = ValueError("said")
    error.__cause__ = silent(kind)
    return error


def noted(kind: type[BaseException]) -> BaseException:
    """One with a note that is no text, and says nothing."""
    error = ValueError("said")
    error.__notes__ = [silent(kind)]  # type: ignore[list-item]  # that is the point
    return error


def enormous(kind: type[BaseException]) -> BaseException:
    """One that says more than anybody wants to read."""
    return ValueError("x" * LONG)


def unencodable(kind: type[BaseException]) -> BaseException:
    """One whose text cannot be encoded."""
    return ValueError("said \udc80 \ud800")


def of_its_own_text(kind: type[BaseException]) -> BaseException:
    """One whose text is of a class of its own, which can do nothing with it."""
    return _class(__str__=lambda self: Text("said"))("said")


def no_text(kind: type[BaseException]) -> BaseException:
    """One whose text is none."""
    return _class(__str__=lambda self: 7)("said")


def recursing(kind: type[BaseException]) -> BaseException:
    """One whose text asks for itself."""
    return _class(__str__=lambda self: str(self))("said")


HOSTILE: tuple[Callable[[type[BaseException]], BaseException], ...] = (
    silent, unbelievable, nameless, annotated, untraceable, caused, noted, enormous, unencodable, of_its_own_text,
    no_text, recursing,
)  # fmt: skip


class Value:
    """A value that cannot be shown: neither itself nor its class can be told of."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        raise self.kind("the description failed")

    __str__ = __repr__
