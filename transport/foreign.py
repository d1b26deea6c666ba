"""How the library names what is not its own: exceptions, values, functions and types of the program's.

Theory of operation. A text about a foreign object is made by foreign code: `__str__`, `__repr__`, the metaclass that
answers for `__name__`, `__notes__`, the loader that a traceback's source lines come from. Whatever goes wrong there
must not take the place of what was to be said, nor end the thread that says it. So every such text is made here.

Guarantees: none of these raises what foreign code raises, `SystemExit` and `KeyboardInterrupt` included. A text that
they return is a plain `str` that can be encoded: lone surrogates are escaped, and what is too long is cut.

`isinstance` asks an object for its `__class__`, which is foreign code as well: ask `issubclass(type(thing), kind)` of
an exception that foreign code has raised. `except kind` asks for nothing.
"""

import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from inspect import CO_VARARGS
from itertools import pairwise
from numbers import Number, Real
from types import FrameType
from typing import Any

LONGEST = 1000  # Characters of a text; arbitrary.

# Those of `type` and `BaseException` themselves: a metaclass, or a subclass, may have others.
_name_of: Callable[[type], str] = type.__dict__["__name__"].__get__
_frames_of: Callable[[BaseException], Any] = BaseException.__dict__["__traceback__"].__get__
_cause_of: Callable[[BaseException], BaseException | None] = BaseException.__dict__["__cause__"].__get__
_context_of: Callable[[BaseException], BaseException | None] = BaseException.__dict__["__context__"].__get__
_is_suppressed: Callable[[BaseException], bool] = BaseException.__dict__["__suppress_context__"].__get__

CHAINED = 20  # Exceptions that are described of a chain that cannot be formatted as a whole; arbitrary.


def type_name(thing: object) -> str:
    """Return the name of the type of `thing`."""
    return _plain(_name_of(type(thing)), LONGEST)


def a_type(thing: object) -> str:
    """Return the name of the type of `thing` with its article: "a list", "an Event"."""
    name = type_name(thing)
    return f"{'an' if name[:1] in tuple('aeioAEIO') else 'a'} {name}"


def text_of(said: object, most: int = LONGEST) -> str:
    """Return what an exception, or anything else, says of itself; at most so many characters of it."""
    try:
        return _plain(str(said), most)
    except BaseException as unspeakable:
        return f"(its text cannot be shown: {type_name(unspeakable)})"


def shown(thing: object, most: int = LONGEST) -> str:
    """Return the `repr` of a thing; at most so many characters of it."""
    try:
        return _plain(repr(thing), most)
    except BaseException as unspeakable:
        return f"<{type_name(thing)}, whose repr raises {type_name(unspeakable)}>"


def number_of(thing: Any) -> float | None:
    """Return a real number of any type as a float, None for what is none: a bool, a text, an array, a `Decimal`.

    Raises: `OverflowError` for a number that no float can hold.
    """
    kind = type(thing)
    try:
        if issubclass(kind, bool) or not (hasattr(kind, "__float__") or hasattr(kind, "__index__")):
            return None
        # Arrays can be made floats too, and so can NumPy's bools, complex numbers and times. A `Decimal` is no `Real`,
        # and adds up with no float.
        if hasattr(kind, "dtype"):
            is_real = issubclass(kind, Real) and thing.dtype.kind in "iuf"  # A `timedelta64` says that it is an int.
        else:
            is_real = issubclass(kind, Real) or not issubclass(kind, Number)
        return float(thing) if is_real else None
    except OverflowError:
        raise
    except BaseException as error:
        if is_interrupt(error):
            raise
        return None


def name_of(function: object) -> str:
    """Return what a function, or a class, calls itself, or else its `repr`."""
    if issubclass(type(function), type):
        return _plain(_name_of(function), LONGEST)  # type: ignore[arg-type]  # it is a class
    try:
        return _plain(function.__qualname__, LONGEST)  # type: ignore[attr-defined]  # not all have one
    except BaseException:
        return shown(function)


def traceback_of(error: BaseException, most: int) -> str:
    """Return the traceback of an exception, as Python prints it; at most so many characters of it."""
    try:
        return _plain("".join(traceback.format_exception(error)), most)
    except BaseException:
        parts = "\n".join(map(_alone, _chain(error)))
        return _plain(f"(shown in parts, the last raised first, because it cannot be formatted)\n{parts}", most)


def stack_of(frame: FrameType, most: int) -> str:
    """Return the stack that ends in a frame, of any thread, as Python prints it: the innermost `most` frames."""
    try:
        return "".join(traceback.format_stack(frame, most))
    except BaseException as error:  # Loaders, which are asked for the lines, are the program's.
        return f"(it cannot be formatted: {type_name(error)})"


def loggable(error: BaseException) -> BaseException:
    """Return what a log is to be given as `exc_info`: formatting it runs the exception's own code."""
    try:
        "".join(traceback.format_exception(error)).encode()
    except BaseException:
        return Untellable(traceback_of(error, LONGEST * CHAINED))
    return error


class Untellable(Exception):
    """Stands in a log for an exception that cannot be formatted; its text is what can be said of it."""


def is_interrupt(error: BaseException) -> bool:
    """Whether what left foreign code was raised by a signal handler in its midst: that is for the main thread to see.

    So is any `KeyboardInterrupt` there; in other threads no handler runs. Handlers are known by their code, and one
    that has set another in its place before it raises by how it was called.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return False
    if issubclass(type(error), KeyboardInterrupt):
        return True
    handlers = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    frames = [frame for frame, _ in traceback.walk_tb(_frames_of(error))]
    return any(frame.f_code in handlers or _handles_a_signal(frame) for frame in frames)


def _handles_a_signal(frame: FrameType) -> bool:
    """Whether a frame was called as signal handlers are: with a number, and the frame that it interrupts, which is the
    one that it goes back to.
    """
    code = frame.f_code
    # Those of `*args` are behind those by keyword.
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & CO_VARARGS)
    given: list[object] = []
    for value in map(frame.f_locals.get, code.co_varnames[:count]):
        given += value if type(value) is tuple else (value,)
    below = frame.f_back
    return below is not None and any(type(number) is int and last is below for number, last in pairwise(given))


def _code_of(handler: object) -> object:
    """Return the code of a signal handler, None if it has none in Python."""
    try:
        if isinstance(handler, partial):
            handler = handler.func
        function = getattr(handler, "__func__", handler)
        if not hasattr(function, "__code__"):  # An object that is called.
            function = type(function).__call__
        return getattr(function, "__code__", None)
    except BaseException:  # Its attributes are foreign code, too.
        return None


def _plain(text: str, most: int) -> str:
    """Return a text that may be of a class of its own as a plain one that can be encoded and is not too long."""
    part = str.__getitem__(text, slice(most))
    if not part.isascii():
        part = part.encode("utf-8", "backslashreplace").decode()
    return f"{part}..." if str.__len__(text) > most else part


def _alone(error: BaseException) -> str:
    """Return the traceback of one exception of a chain."""
    try:
        return "".join(traceback.format_exception(type(error), error, _frames_of(error), chain=False))
    except BaseException:
        pass  # It is shown in parts, below.
    try:
        frames = "Traceback (most recent call last):\n" + "".join(traceback.format_tb(_frames_of(error)))
    except BaseException:
        frames = ""  # Its source lines come from a loader that raises.
    return f"{frames}{type_name(error)}: {text_of(error)}\n"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, what it was raised from, or while what was handled, and so on."""
    following: BaseException | None = error
    for _ in range(CHAINED):
        if following is None:
            return
        yield following
        cause = _cause_of(following)  # Not `or`: an exception may have a truth of its own.
        following = cause if cause is not None or _is_suppressed(following) else _context_of(following)
