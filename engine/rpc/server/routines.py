"""A routine that takes context handles: tokens in, state out, one call after the other.

Theory of operation. The registry puts a `ContextRoutine` in front of each routine whose operation has context handles
among its parameters. It looks the tokens up, and enters the call with its handles; if one is in use, the call is left
with the book, takes no thread, and is run again from its beginning when its turn has come. It answers for the routine,
so the entry is marked as one that takes the call's handle.

Source: "Context Handles", "RPC_X_SS_CONTEXT_MISMATCH", "RPC_X_SS_IN_NULL_CONTEXT".
"""

from collections.abc import Callable, Coroutine, Sequence
from types import CoroutineType
from typing import Any

from ..context import Context
from ..errors import NullContext
from .call import ServerCall


class ContextRoutine:
    """What is served in the place of `function`.

    Args:
        handles: the positions of the handles among the arguments, and whether each must be there.
        shared: such calls may use a handle at the same time.
        takes_handle: `function` is an asynchronous manager routine.
    """

    def __init__(
        self, function: Callable[..., Any], handles: Sequence[tuple[int, bool]], shared: bool, takes_handle: bool
    ) -> None:
        self._function = function
        self._handles = handles
        self._shared = shared
        self._takes_handle = takes_handle

    def __call__(self, call: ServerCall, *given: Any) -> Coroutine[Any, Any, None] | None:
        """Run the routine, or leave the call waiting."""
        book = call._answers.contexts
        args = list(given)
        needs: list[Context[Any]] = []
        for position, required in self._handles:
            if position >= len(args):
                continue  # Left to the routine's default.
            token = args[position]
            if token is not None:
                args[position] = book.find(call, token.token)
                needs.append(args[position])
            elif required:
                raise NullContext("None was given where a context handle is needed")
        if needs and not book.enter(call, needs, self._shared):
            return None
        if self._takes_handle:
            value = self._function(call, *args)
            return value if type(value) is CoroutineType else None
        value = self._function(*args)
        if type(value) is CoroutineType:
            return _answer_later(call, value)
        call.complete(value)
        return None


async def _answer_later(call: ServerCall, routine: Coroutine[Any, Any, Any]) -> None:
    call.complete(await routine)
