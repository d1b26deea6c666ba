"""One operation that a server serves: its routine, and all that is looked up once for its calls."""

import inspect
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any

import msgspec

from transport import Buffer
from transport.wire.blobs import ArgsDecoder

from ..contract.spec import OperationSpec, PlainArgs
from .admission import AccessPolicy
from .entering import code_of
from .open_call import OpenCall

# Changes the arguments of a call before its routine is entered; False: the call waits, and will be run again from its
# beginning.
Preparer = Callable[[OpenCall, list[Any]], bool]


class Entry:
    """One operation being served. `mean` is what it was seen to take, in seconds; it decides who runs it.

    Unguarded: `mean` is a running mean of hints, and a lost update is a lost hint; so is `overran`.
    """

    __slots__ = (
        "auto", "code", "coroutine", "decode_args", "decode_many", "decode_plain", "function", "mean",
        "needs_no_worker", "overran", "plain", "policy", "preparers", "spec", "takes_handle", "warned",
    )  # fmt: skip

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
