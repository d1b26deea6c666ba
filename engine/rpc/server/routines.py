"""Routines: what is looked up once for the calls of one, what prepares its arguments, and whether a thread is inside.

Theory of operation. The `Entry` of an operation has a list of preparers: context handles, output buffers and pipes are
put in their places before its routine is entered. Each preparer gets the call and the list of its arguments, and
replaces what is its own. It may also leave the call waiting, as one whose context handle is in use: the call then takes
no thread, and is run again from its beginning when its turn has come. What the routine returns goes back to the thread
that runs the call, which answers it as any other.

A thread notes the number of a call, and then calls its routine. Between the two the interpreter switches threads at
one point only, the `RESUME` that each Python function begins with. A thread that is to enter the next routine therefore
looks at the other thread's stack: that one is inside once the frame of its routine is past the `RESUME`, for from there
on it does not stop before the routine has done something. Only a thread that takes over a client from one that has not
come back asks.

    noted -> [may stop] -> RESUME -> [may stop] -> first line -> ...
             not inside                 inside

A routine that is not written in Python has no frame: then it is the function that calls it that stands still. One that
only makes a coroutine has been entered when that was handed to the event loop, and that is when its thread forgets the
number.

Assumes: CPython's frames. (`f_lasti` is where a frame has come to; a frame that has not begun is before its `RESUME`.)

Source: "Context Handles", "RPC_X_SS_CONTEXT_MISMATCH", "RPC_X_SS_IN_NULL_CONTEXT".
"""

import inspect
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from opcode import opmap
from pathlib import Path
from types import CodeType, CoroutineType, FrameType, FunctionType, MethodType
from typing import Any, Final

import msgspec

from transport import Buffer
from transport.foreign import text_of, type_name
from transport.log import Log
from transport.wire.blobs import ArgsDecoder

from ...pool.run_time import RunTime
from ..context import Context
from ..contract.spec import OperationSpec, PlainArgs
from ..errors import BadStubData, NullContext
from ..serving import ServingSlot
from .call import handle_of
from .contexts import ContextBook
from .open_call import OpenCall
from .pipes import ServerPipes, ended_by, generated, pushes, put_pipes
from .policy import AccessPolicy

log: Log = Log("engine.rpc")

# What stands for the result of a routine whose return does not answer its call.
UNANSWERED: Final = object()

_RESUME = opmap["RESUME"]
_LIBRARY = str(Path(__file__).parents[1])

# The code that calls routines; see `calls_routines`.
_callers: set[CodeType] = set()


# Changes the arguments of a call before its routine is entered; False: the call waits, and will be run again from its
# beginning.
Preparer = Callable[[OpenCall, list[Any]], bool]


class Entry:
    """One operation being served."""

    def __init__(self, spec: OperationSpec, function: Callable[..., Any]) -> None:
        # The conditions of its interface, if it has any; `auto` is the same if the interface listens by itself.
        self.policy: AccessPolicy | None = None
        self.auto: AccessPolicy | None = None
        self.spec: OperationSpec = spec
        # What the program has registered, and what is run of it: that, or it with what is awaited around it.
        self.routine: Callable[..., Any] = function
        self.function: Callable[..., Any] = function
        self.decode_args: ArgsDecoder | PlainArgs = spec.decode_args
        # The same for the usual call, which has all its arguments, in band: one step less.
        self.decode_plain: Callable[[Buffer | msgspec.Raw], Sequence[Any]] = spec.decode_args.plain
        # And for several such calls in one step.
        self.decode_many: Callable[[Buffer | msgspec.Raw], Sequence[Sequence[Any]]] = spec.decode_args.many
        self.takes_handle: bool = getattr(function, "__engine_manager__", False) is True
        # Whether the log has a line on a manager routine that forgets to answer. A hint.
        self.warned: bool = False
        # An `async def`: calling it only makes what the event loop begins.
        self.coroutine: bool = inspect.iscoroutinefunction(function)
        # It runs in a task: an `async def`, also one that generates elements.
        self.in_task: bool = self.coroutine or inspect.isasyncgenfunction(function)
        # Entering the routine is quick for sure: it only begins in the event loop, and no policy is asked first.
        self.needs_no_worker: bool = self.coroutine
        # What shows on a thread's stack that it is inside.
        self.code: CodeType | None = code_of(function)
        # Decides whether the thread that calls it lets others go on before. Nothing is known of the first run.
        self.run_time: RunTime = RunTime(slow=True)
        # What the contract says of it, for people.
        self.text: str | None = None
        # What prepares its arguments, in this order. Replaced as a whole.
        self.preparers: tuple[Preparer, ...] = ()
        # Its calls need no record of their own: they are run as the rows of a batch.
        self.plain: bool = not (self.takes_handle or self.coroutine)
        # And a thread that waits may run them: see `helped.py`.
        self.helpable: bool = self.plain and spec.nonblocking

    def prepare(self, *preparers: Preparer) -> None:
        """Have these prepare the arguments, after those that do so already."""
        self.preparers = (*self.preparers, *preparers)
        self.plain = self.plain and not self.preparers
        self.helpable = self.helpable and self.plain

    def restrict(self, policy: AccessPolicy) -> None:
        """Let only those call that `policy` admits."""
        self.policy = policy
        self.auto = policy if policy.auto_listen else None
        self.needs_no_worker = self.plain = self.helpable = False


def preparers_of(spec: OperationSpec) -> tuple[Preparer, ...]:
    """Return what prepares the arguments of an operation."""
    steps = (spec.outputs, _make_buffers), (spec.contexts, _find_contexts), (spec.pipes, put_pipes)
    return tuple(prepare for needed, prepare in steps if needed)


def run_prepared(call: OpenCall, entry: Entry, preparers: Sequence[Preparer], given: Sequence[Any]) -> Any:
    """Prepare the arguments, and run the routine with them.

    Returns: its result, a coroutine that ends with that, or `UNANSWERED`: the routine answers by the handle, the call
        waits, or a pipe that failed has closed it.
    """
    args = list(given)
    for prepare in preparers:
        if not prepare(call, args):
            return UNANSWERED
    handle = None
    if entry.takes_handle:
        handle = handle_of(call)
        call.given = True
    pipes: ServerPipes | None = call.pipes if entry.spec.pipes else None
    try:
        value = entry.function(*args) if handle is None else entry.function(handle, *args)
        if pipes is not None:
            value = generated(pipes, value)
            if type(value) is CoroutineType:
                return _finish_later(call, pipes, value, handle is None)
            if handle is None:
                pipes.before_complete()
    except BaseException as error:
        if pipes is None or not ended_by(call, pipes, error):
            raise
        return UNANSWERED
    if handle is None or type(value) is CoroutineType:
        return value
    return returned(call, value)


async def _finish_later(call: OpenCall, pipes: ServerPipes, coroutine: Coroutine[Any, Any, Any], answers: bool) -> Any:
    try:
        value = await coroutine
        if answers and value is not UNANSWERED:
            pipes.before_complete()
        return value
    except BaseException as error:
        if not ended_by(call, pipes, error):
            raise
        return UNANSWERED


def returned(call: OpenCall, value: object) -> Any:
    """A manager routine has returned: log, once an operation, if that was a value, which is no answer."""
    if value is not None and not call.entry.warned:
        call.entry.warned = True
        log.warning(
            "%r: its manager routine returned a value (%s), which goes nowhere: answer with the handle's complete()",
            call, type_name(value),
        )  # fmt: skip
    return UNANSWERED


def _make_buffers(call: OpenCall, args: list[Any]) -> bool:
    """Put buffers of the call's own in the places of the caller's outputs; the answer is to carry them."""
    spec = call.entry.spec
    for output in spec.outputs:
        try:
            args[output.position] = output.to_work_on(args[output.position])
        except (TypeError, ValueError) as error:
            raise BadStubData(f"{spec.name}: no buffer can be made for {output.name!r}: {text_of(error)}") from None
    call.extras().outputs = [args[output.position] for output in spec.outputs]
    return True


def _find_contexts(call: OpenCall, args: list[Any]) -> bool:
    """Put context handles in the places of their tokens; False, and the call waits, if one of them is in use."""
    spec = call.entry.spec
    book: ContextBook = call.answers.contexts
    needs: list[Context[Any]] = []
    for position, required in spec.contexts:
        if position >= len(args):
            continue  # Left to the routine's default.
        token = args[position]
        if token is not None:
            args[position] = book.find(call, token.token)
            needs.append(args[position])
        elif required:
            raise NullContext("None was given where a context handle is needed")
    return not needs or book.enter(call, needs, spec.shared_context)


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


def inside(place: ServingSlot, call_id: int, noted: object = None) -> bool:
    """Whether the thread of that place has entered the routine of the call whose number it has noted, or is past it.

    Args: `noted` is what it was running then, if it may be running something else by now: a call of another client may
        have the same number.
    """
    work = place.running
    if place.call_id != call_id or work is None or (noted is not None and work is not noted):
        return True  # It has come back.
    entry = work.entry
    if entry.coroutine:
        return False
    frame = sys._current_frames().get(place.ident)
    if pushes(frame, call_id):
        return True
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
    return frame is not None and (
        above is None or (not above.f_code.co_filename.startswith(_LIBRARY) and _has_begun(above))
    )


def _has_begun(frame: FrameType) -> bool:
    """Whether a frame is past its `RESUME`."""
    code = frame.f_code.co_code
    at = 0
    while at < len(code) and code[at] != _RESUME:
        at += 2
    return frame.f_lasti > at
