"""A routine whose operation has outputs: buffers of its own in the places of the caller's.

What they hold when the call is answered goes into the reply; see `contract/outputs.py`.
"""

from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any

from transport.foreign import text_of

from ..contract.spec import OperationSpec
from ..errors import BadStubData
from .call import ServerCall
from .extras import attachment_of


class OutputRoutine:
    """What is served in the place of `function`, whose operation has outputs.

    Args: takes_handle: `function` is an asynchronous manager routine, or answers for one.
    """

    def __init__(self, spec: OperationSpec, function: Callable[..., Any], takes_handle: bool) -> None:
        self._spec = spec
        self._function = function
        self._takes_handle = takes_handle

    def __call__(self, call: ServerCall, *given: Any) -> Coroutine[Any, Any, None] | None:
        """Make the buffers, and run the routine with them."""
        args = list(given)
        spec = self._spec
        for output in spec.outputs:
            try:
                args[output.position] = output.to_work_on(args[output.position])
            except (TypeError, ValueError) as error:
                raise BadStubData(f"{spec.name}: no buffer can be made for {output.name!r}: {text_of(error)}") from None
        attachment_of(call).outputs = [args[output.position] for output in spec.outputs]
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
