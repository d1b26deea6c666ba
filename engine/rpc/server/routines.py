"""Routines whose arguments are prepared: context handles, output buffers and pipes are put in their places first.

Theory of operation. The `Entry` of an operation has a list of preparers. Before its routine is entered each of them
gets the call and the list of its arguments, and replaces what is its own. A preparer may also leave the call waiting,
as one whose context handle is in use: the call then takes no thread, and is run again from its beginning when its turn
has come. What the routine returns goes back to the thread that runs the call, which answers it as any other.

A generator or an asynchronous generator serves the operation's one out pipe, see `pipes.py`.

Source: "Context Handles", "RPC_X_SS_CONTEXT_MISMATCH", "RPC_X_SS_IN_NULL_CONTEXT".
"""

from collections.abc import Coroutine, Sequence
from types import CoroutineType
from typing import Any, Final

from transport.foreign import text_of, type_name
from transport.log import Log

from ..context import Context
from ..contract.spec import OperationSpec
from ..errors import BadStubData, NullContext
from .call import handle_of
from .contexts import ContextBook
from .entry import Entry, Preparer
from .open_call import OpenCall
from .pipes import ServerPipes, ended_by, generated, put_pipes

log: Log = Log("engine.rpc")

# What stands for the result of a routine whose return does not answer its call.
UNANSWERED: Final = object()


def preparers_of(spec: OperationSpec) -> tuple[Preparer, ...]:
    """Return what prepares the arguments of an operation."""
    preparers: list[Preparer] = []
    if spec.outputs:
        preparers.append(_make_buffers)
    if spec.contexts:
        preparers.append(_find_contexts)
    if spec.pipes:
        preparers.append(put_pipes)
    return tuple(preparers)


def run_prepared(call: OpenCall, entry: Entry, preparers: Sequence[Preparer], given: Sequence[Any]) -> Any:
    """Prepare the arguments, and run the routine with them.

    Returns: its result, a coroutine that ends with that, or `UNANSWERED`: the routine answers by the handle, the call
        waits, or a pipe that failed has closed it.
    """
    args = list(given)
    for prepare in preparers:
        if not prepare(call, args):
            return UNANSWERED
    handle = handle_of(call) if entry.takes_handle else None
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
        if answers:
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
    spec, book = call.entry.spec, call.answers.contexts
    assert isinstance(book, ContextBook)
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
