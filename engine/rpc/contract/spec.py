"""How the calls of one operation are written and read: what both sides build from a contract.

A binding without a contract gets specs made up by name, with plain values for types.

Source: "The IDL and ACF Files" (what an interface is).
"""

import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from operator import attrgetter
from typing import Any, Protocol

import msgspec

from transport import Buffer
from transport.foreign import is_interrupt, shown, text_of
from transport.frames import NO_LANE, Blob, PipeArgument, Target
from transport.wire.blobs import ArgsDecoder, ValueDecoder
from transport.wire.codec import encode_call
from transport.wire.large import read_large

from ...errors import InvalidArgumentType, InvalidParameter
from ...kernel.checks import check_names
from ..context import Context, context_kind, mentions_context
from ..errors import NullContext
from ..pipes.pipe import DIRECTIONS, PipeSpec
from ..wire_types import check_type, mismatch, spell
from .annotations import hints_of, unmarked
from .outputs import OutputSpec, outputs_of

# What `begin` takes besides the arguments.
_TAKEN = frozenset(("notify", "timeout", "metadata", "handle", "into", "user_data"))
_MISSING = inspect.Parameter.empty
# How msgspec says in which of the arguments something is wrong, and where within it.
_WHERE = re.compile(r" - at `\$\[(\d+)\](.*)`$")


class Declaration(Protocol):
    """What a contract says of one operation; an `Operation` is one."""

    @property
    def function(self) -> Callable[..., Any]: ...

    one_way: bool
    idempotent: bool
    duplex: bool
    shared_context: bool
    nonblocking: bool
    raises: tuple[type[Exception], ...]


class PlainArgs:
    """Decodes the arguments of a call without a contract: any number of plain values."""

    def __init__(self) -> None:
        self.plain: Callable[[Buffer | msgspec.Raw], list[Any]] = ValueDecoder[list[Any]](list[Any]).plain
        several: ValueDecoder[list[list[Any]]] = ValueDecoder(list[list[Any]])
        self.many: Callable[[Buffer | msgspec.Raw], list[list[Any]]] = several.plain

    def __call__(
        self, raw: msgspec.Raw, blobs: Sequence[Buffer] = (), descriptors: Sequence[Blob] | None = None
    ) -> Sequence[Any]:
        """Decode; see `ArgsDecoder`."""
        args = read_large(self.plain, raw)
        return ArgsDecoder([Any] * len(args))(raw, blobs, descriptors) if descriptors else args


class OperationSpec:
    """Checks and orders the arguments of one operation, and decodes arguments and results; shared by every binding and
    every server that uses it.
    """

    __slots__ = (
        "_checks", "annotated", "brings_contexts", "contexts", "decode_args", "decode_outputs", "decode_plain",
        "decode_result",
        "directions", "duplex", "exact", "idempotent", "lane", "name", "nonblocking", "one_way", "only", "outputs",
        "parameters", "pipes", "raises", "required", "retried", "shared_context", "signature", "special", "target",
    )  # fmt: skip

    def __init__(
        self, target: Target, declared: Declaration | None = None, variables: Mapping[Any, Any] | None = None
    ) -> None:
        self.target: Target = target
        self.name: str = target.operation
        self.one_way: bool = declared is not None and declared.one_way
        # The order that calls have a place in; None: their connection's.
        self.lane: int | None = None
        self.idempotent: bool = declared is not None and (declared.idempotent or declared.one_way)
        # Whether its calls are sent again when their connection is lost.
        self.retried: bool = self.idempotent and not self.one_way
        self.shared_context: bool = declared is not None and declared.shared_context
        # Whether a thread that waits may run its routine, over loopback.
        self.nonblocking: bool = declared is not None and declared.nonblocking
        # Exceptions that are part of the contract, those that derive from others first.
        self.raises: tuple[type[Exception], ...] = () if declared is None else declared.raises
        # Positions of the parameters that are context handles, and whether each must be given.
        self.contexts: tuple[tuple[int, bool], ...] = ()
        # Parameters that are output buffers.
        self.outputs: tuple[OutputSpec, ...] = ()
        # None: without a contract, any number of plain values.
        self.signature: inspect.Signature | None = None
        self.parameters: tuple[str, ...] = ()
        # The types of the parameters, and at the end of the result, as the contract says them.
        self.annotated: tuple[Any, ...] = ()
        self.required: int = 0
        self._checks: tuple[Any, ...] = ()
        # Parameters that are pipes, and how a call says so on the wire.
        self.pipes: tuple[PipeSpec, ...] = ()
        self.directions: list[PipeArgument] | None = None
        self.duplex: bool = declared is not None and declared.duplex
        # Arguments of exactly these types need no look by `arrange`.
        self.exact: tuple[Any, ...] | None = None
        # The same for the only argument, if one is all there is: a tuple of types costs 0.2 us to make.
        self.only: Any = None
        result: Any = Any
        if declared is not None:
            result = self._describe(declared.function, variables or {})
        # Whether the result may have a context handle in it.
        self.brings_contexts: bool = mentions_context(result)
        # Whether each call says something of itself that most do not.
        self.special: bool = self.one_way or bool(self.pipes)
        self.decode_result: ValueDecoder[Any] = ValueDecoder(result)
        # The result, then the contents of each buffer.
        self.decode_outputs: ArgsDecoder = ArgsDecoder([result, *map(attrgetter("returned"), self.outputs)])
        # The same for a result that travelled in band, without the step in between.
        self.decode_plain: Callable[[msgspec.Raw], Any] = self.decode_result.plain
        self.decode_args: ArgsDecoder | PlainArgs = (
            PlainArgs() if self.signature is None else ArgsDecoder(self._wire_types(), self.required)
        )

    def _describe(self, function: Callable[..., Any], variables: Mapping[Any, Any]) -> Any:
        """Take from the method of the contract what it says; return the type of the result."""
        label = f"{self.target.interface}.{self.name}"
        hints = hints_of(label, function, variables)
        named = _parameters_of(label, function)
        self.signature = inspect.signature(function).replace(parameters=named)
        self.parameters = tuple(parameter.name for parameter in named)
        self.required = sum(parameter.default is _MISSING for parameter in named)
        checks = [unmarked(hints.get(name, Any)) for name in self.parameters]
        self.annotated = (*checks, unmarked(hints.get("return", Any)))
        self._find_pipes(label, checks)
        self._find_contexts(label, checks)
        self._find_outputs(label, checks, hints)
        self._checks = self.exact = tuple(checks)
        self.only = checks[0] if len(checks) == 1 else None
        # The result of an `async def` or of an ordinary method is annotated alike: with what the caller gets.
        result = unmarked(hints.get("return", Any))
        self._check_types(label, result)
        self._check_defaults(label, named)
        return type(None) if result is None else result

    def _find_pipes(self, label: str, checks: list[Any]) -> None:
        """Take the parameters that are pipes; `checks` has what stands in their places on the wire afterwards."""
        pipes: list[PipeSpec] = []
        for position, (name, check) in enumerate(zip(self.parameters, checks, strict=True)):
            direction = DIRECTIONS.get(typing.get_origin(check) or check)
            if direction is not None:
                element = (typing.get_args(check) or (Any,))[0]
                check_type(f"{label}: pipe {name!r}", element, alone=False, handles=False)
                pipes.append(PipeSpec(name, position, direction, element))
                checks[position] = type(None)
                self.required = max(self.required, position + 1)
        self.pipes = tuple(pipes)
        if pipes:
            self.directions = [PipeArgument(pipe.position, pipe.direction) for pipe in self.pipes]
            if self.idempotent:
                raise InvalidParameter(f"{label}: an operation with pipes cannot be idempotent or one way")
            if self.nonblocking:
                raise InvalidParameter(f"{label}: an operation with pipes waits for their elements: not nonblocking")
        elif self.duplex:
            raise InvalidParameter(f"{label}: duplex is about pipes, and the operation has none")

    def _find_contexts(self, label: str, checks: list[Any]) -> None:
        """Take the parameters that are context handles."""
        kinds = [context_kind(annotation) for annotation in checks]
        self.contexts = tuple((at, kind) for at, kind in enumerate(kinds) if kind is not None)
        if self.shared_context and not self.contexts:
            raise InvalidParameter(f"{label}: shared_context is about context handles, and no parameter is one")
        if self.nonblocking and self.contexts:
            raise InvalidParameter(f"{label}: calls wait for the context handles they take: not nonblocking")
        for at, required in self.contexts:
            checks[at] = Context if required else Context | None

    def _find_outputs(self, label: str, checks: list[Any], hints: Mapping[str, Any]) -> None:
        """Take the parameters that are output buffers."""
        self.outputs = outputs_of(label, hints, self.parameters)
        for output in self.outputs:
            checks[output.position] = Any  # The client looks at it as the call is begun: it must be a buffer.
            self.required = max(self.required, output.position + 1)
        if self.outputs and self.one_way:
            raise InvalidParameter(f"{label}: nothing comes back of a one-way operation, so it has no outputs")

    def _check_types(self, label: str, result: Any) -> None:
        """Refuse types that do not travel."""
        handles = dict(self.contexts)
        for at, (name, kind) in enumerate(zip(self.parameters, self._wire_types(), strict=True)):
            check_type(f"{label}: parameter {name!r}", kind, handles=at in handles)
        check_type(f"{label}: the result", result)
        if self.one_way and result not in (None, type(None), Any):
            raise InvalidParameter(f"{label}: nothing comes back of a one-way operation: its result is None")

    def _check_defaults(self, label: str, named: Sequence[inspect.Parameter]) -> None:
        """Refuse defaults that a call could not be made with."""
        pipes = {pipe.position for pipe in self.pipes}
        outputs = {output.position for output in self.outputs}
        for at, (parameter, kind) in enumerate(zip(named, self._checks, strict=True)):
            if parameter.default is _MISSING or at in pipes:  # What stands for a pipe is for type checkers.
                continue
            if at in outputs:
                raise InvalidParameter(f"{label}: parameter {parameter.name!r} is the caller's buffer: no default fits")
            if parameter.default is Ellipsis:
                why: str | None = "stands for nothing: write the value itself"
            else:
                why = mismatch(parameter.default, kind) or _unsendable(self.target, parameter.default)
            if why is not None:
                default = shown(parameter.default, 100)
                raise InvalidParameter(f"{label}: the default {default} of {parameter.name!r} {why}")

    def without_order(self) -> "OperationSpec":
        """Return a copy for calls that have no place in any order."""
        other = copy(self)
        other.lane = NO_LANE
        other.special = True
        return other

    def with_order(self) -> "OperationSpec":
        """Return a copy for calls that have their place in the order of their connection."""
        other = copy(self)
        other.lane = None
        other.special = self.one_way or bool(self.pipes)
        return other

    def _wire_types(self) -> tuple[Any, ...]:
        """What the server decodes arguments to: a missing context handle has a status of its own, and of an output
        only the size may be sent.
        """
        kinds = list(self._checks)
        for at, _ in self.contexts:
            kinds[at] = Context | None
        for output in self.outputs:
            kinds[output.position] = output.sent
        return tuple(kinds)

    def arrange(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return the arguments in wire order, checked against the contract.

        Raises: `InvalidArgumentType`, naming the parameter: one is missing, unknown, given twice or of the wrong type.
        """
        if self.signature is None:
            if kwargs:
                raise InvalidArgumentType(f"{self.name}: arguments by keyword need an interface: {', '.join(kwargs)}")
            return args
        if kwargs or len(args) != len(self._checks):
            args = self._bind(args, kwargs)
        for value, wanted in zip(args, self._checks, strict=True):
            if type(value) is not wanted and wanted is not Any:
                return self._checked(args)
        return args

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        assert self.signature is not None
        check_names(self.name, "parameter", kwargs, self.parameters)
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArgumentType(f"{self.name}{text_of(self.signature)}: {text_of(error)}") from None
        bound.apply_defaults()
        return tuple(bound.arguments.values())

    def _checked(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        for name, value, wanted in zip(self.parameters, args, self._checks, strict=True):
            if value is None and wanted is Context:
                raise NullContext(f"{self.name}: parameter {name!r} is a context handle, and must not be None")
            if (why := mismatch(value, wanted)) is not None:
                raise InvalidArgumentType(f"{self.name}: parameter {name!r} {why}")
        return args

    def misfit(self, error: BaseException) -> str:
        """Say of arguments that were sent why they cannot be decoded, naming the parameter: their caller may have no
        contract.
        """
        text = text_of(error)
        found = _WHERE.search(text)
        at = -1 if found is None else int(found[1])
        if found is None or at >= len(self.parameters) or at in {pipe.position for pipe in self.pipes}:
            takes = "" if self.signature is None or self.pipes else text_of(self.signature)
            return f"the arguments of {self.name}{takes} cannot be read: {text}"
        within = f" - at `${found[2]}`" if found[2] else ""
        wanted = spell(self.annotated[at])
        return f"{self.name}: parameter {self.parameters[at]!r} must be {wanted}: {text[: found.start()]}{within}"


def _parameters_of(label: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of an operation, without `self`; raise if a caller could not give them."""
    first, *named = inspect.signature(function).parameters.values() or (None,)
    if first is None or first.kind not in (first.POSITIONAL_OR_KEYWORD, first.POSITIONAL_ONLY):
        raise InvalidParameter(f"{label}: the method takes no `self`: write it first")
    if first.name != "self" and first.annotation is not _MISSING:
        raise InvalidParameter(f"{label}: {first.name!r} stands in the place of `self`: write `self` before it")
    for parameter in named:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise InvalidParameter(f"{label}: parameter {parameter} cannot be sent, only positional ones can")
        if parameter.name in _TAKEN:
            raise InvalidParameter(
                f"{label}: parameter {parameter.name!r} has the name of an option of `begin`: rename it"
            )
    return named


def _unsendable(target: Target, value: Any) -> str | None:
    """Return why a value cannot be sent, None if it can."""
    try:
        encode_call(target, 0, (value,))
    except BaseException as error:  # Encoding runs the value's own code.
        if is_interrupt(error):
            raise
        return f"cannot be sent: {text_of(error)}"
    return None
