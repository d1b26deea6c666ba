"""Whether a thread has entered the routine that it set out to call.

Theory of operation. A thread notes the number of a call, and then calls its routine. Between the two the interpreter
switches threads at one point only, the `RESUME` that each Python function begins with. A thread that is to enter the
next routine therefore looks at the other thread's stack: that one is inside once the frame of its routine is past the
`RESUME`, for from there on it does not stop before the routine has done something. Only a thread that takes over a lane
from one that has not come back asks.

    noted -> [may stop] -> RESUME -> [may stop] -> first line -> ...
             not inside                 inside

A routine that is not written in Python has no frame: then it is the function that calls it that stands still. One that
only makes a coroutine has been entered when that was handed to the event loop, and that is when its thread forgets the
number.

Assumes: CPython's frames. (`f_lasti` is where a frame has come to; a frame that has not begun is before its `RESUME`.)
"""

import inspect
import sys
from functools import partial
from opcode import opmap
from pathlib import Path
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

from ..serving import ServingSlot

_RESUME = opmap["RESUME"]
_LIBRARY = str(Path(__file__).parents[1])

# The code that calls routines; see `calls_routines`.
_callers: set[CodeType] = set()


def calls_routines(*functions: FunctionType) -> None:
    """Make known that these functions call routines once they have noted a call's number."""
    _callers.update(function.__code__ for function in functions)


def code_of(function: Any) -> CodeType | None:
    """Return the code that runs first when `function` is called; None if it is not written in Python."""
    while True:
        if isinstance(function, FunctionType):
            return function.__code__
        if isinstance(function, MethodType):
            function = function.__func__
        elif isinstance(function, partial):
            function = function.func
        else:
            call = inspect.getattr_static(type(function), "__call__", None)
            return call.__code__ if isinstance(call, FunctionType) else None


def inside(place: ServingSlot, call_id: int) -> bool:
    """Whether the thread of that place has entered the routine of the call whose number it has noted, or is past it."""
    work = place.call or place.batch
    if place.call_id != call_id or work is None:
        return True  # It has come back.
    entry = work.entry
    if entry.coroutine:
        return False
    frame = sys._current_frames().get(place.ident)
    if entry.code is None:
        return _calls_what_is_not_python(frame)
    while frame is not None and frame.f_code is not entry.code:
        frame = frame.f_back
    return frame is not None and _has_begun(frame)


def _calls_what_is_not_python(frame: FrameType | None) -> bool:
    above: FrameType | None = None
    while frame is not None and frame.f_code not in _callers:
        above, frame = frame, frame.f_back
    # What it has called in turn counts, unless that is ours: then it is still on its way.
    return frame is not None and (above is None or (_is_foreign(above) and _has_begun(above)))


def _is_foreign(frame: FrameType) -> bool:
    return not frame.f_code.co_filename.startswith(_LIBRARY)


def _has_begun(frame: FrameType) -> bool:
    """Whether a frame is past its `RESUME`."""
    code = frame.f_code.co_code
    at = 0
    while at < len(code) and code[at] != _RESUME:
        at += 2
    return frame.f_lasti > at
