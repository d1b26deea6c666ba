"""Routines: what is looked up once for the calls of one, and how its arguments are prepared.

Theory of operation. The `Entry` of an operation has a list of preparers: context handles, output buffers and pipes are
put in their places before its routine is entered. Each preparer gets the call and the list of its arguments, and
replaces what is its own. It may also leave the call waiting, as one whose context handle is in use: the call then takes
no thread, and is run again from its beginning when its turn has come. What the routine returns goes back to the thread
that runs the call, which answers it as any other.

A generator or an asynchronous generator serves the operation's one out pipe, see `pipes.py`.

Source: "Context Handles", "RPC_X_SS_CONTEXT_MISMATCH", "RPC_X_SS_IN_NULL_CONTEXT".
"""

import inspect
from collections.abc import Callable, Coroutine, Sequence
from types import CodeType, CoroutineType
from typing import Any, Final

import msgspec

from transport import Buffer
from transport.foreign import text_of, type_name
from transport.log import Log
from transport.wire.blobs import ArgsDecoder

from ..context import Context
from ..contract.spec import OperationSpec, PlainArgs
from ..errors import BadStubData, NullContext
from .admission import AccessPolicy
from .call import handle_of
from .contexts import ContextBook
from .entering import code_of
from .open_call import OpenCall
from .pipes import ServerPipes, ended_by, generated, put_pipes

log: Log = Log("engine.rpc")

# What stands for the result of a routine whose return does not answer its call.
UNANSWERED: Final = object()


# Changes the arguments of a call before its routine is entered; False: the call waits, and will be run again from its
# beginning.
Preparer = Callable[[OpenCall, list[Any]], bool]


class Entry:
    """One operation being served. `mean` is what it was seen to take, in seconds; it decides who runs it.

    Unguarded: `mean` is a running mean of hints, and a lost update is a lost hint; so is `overran`.
    """

    def __init__(self, spec: OperationSpec, function: Callable[..., Any]) -> None:
        # The conditions of its interface, if it has any; `auto` is the same if the interface listens by itself.
        self.policy: AccessPolicy | None = None
        self.auto: AccessPolicy | None = None
        self.spec: OperationSpec = spec
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
        # Entering the routine is quick for sure: it only begins in the event loop, and no policy is asked first.
        self.needs_no_worker: bool = self.coroutine
        # What shows on a thread's stack that it is inside; see `entering`.
        self.code: CodeType | None = code_of(function)
        self.mean: float = 0.0
        # Whether the last run was a long one.
        self.overran: bool = False
        # What prepares its arguments, in this order. Replaced as a whole.
        self.preparers: tuple[Preparer, ...] = ()
        # Its calls need no record of their own: they are run as the rows of a batch.
        self.plain: bool = not (self.takes_handle or self.coroutine)

    def prepare(self, *preparers: Preparer) -> None:
        """Have these prepare the arguments, before those that do so already."""
        self.preparers = (*preparers, *self.preparers)
        self.plain = self.plain and not self.preparers

    def restrict(self, policy: AccessPolicy) -> None:
        """Let only those call that `policy` admits."""
        self.policy = policy
        self.auto = policy if policy.auto_listen else None
        self.needs_no_worker = self.plain = False


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
