"""Interfaces: named, versioned sets of operations that client and server share.

Theory of operation. A class statement that derives from `Interface` is the contract: each public method is an
operation, its annotations are its wire types. Both sides build an `OperationSpec` from it: how to check and order
arguments, how to decode them, how to decode the result. A binding without a contract gets specs made up by name
(`untyped`), with plain values for types.

Source: "The IDL and ACF Files" (what an interface is); "Declaring Asynchronous Functions".
"""

import inspect
import sys
import typing
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial, update_wrapper, wraps
from types import FunctionType, MemberDescriptorType, SimpleNamespace
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, Self, TypeVar, overload

import msgspec

from transport import Buffer
from transport.foreign import a_type, is_interrupt, shown, text_of
from transport.frames import NO_LANE, Blob, Target
from transport.wire.blobs import ArgsDecoder, ValueDecoder, unaliased
from transport.wire.codec import encode_call

from ...errors import InvalidArgumentType, InvalidParameter
from ...kernel.checks import check_flag
from ..call import Call
from ..conformance import misfit
from ..context import Context, context_kind
from ..errors import NullContext
from ..pipes.pipe import DIRECTIONS, PipeSpec
from ..wire_types import check_type, spell
from .outputs import OutputSpec, outputs_of, reply_decoder

if typing.TYPE_CHECKING:
    from ..pipes.stream import Stream

P = ParamSpec("P")
R = TypeVar("R")

# What `begin` takes besides the arguments.
_TAKEN = frozenset(("notify", "timeout", "metadata", "handle", "into"))
_MISSING = inspect.Parameter.empty

Metadata = dict[str, str] | None


def check_name(parameter: str, name: object) -> str:
    """Return `name` as a plain `str` if it can be the name of an interface or an operation.

    Raises: `InvalidParameter` if it cannot.
    """
    plain = str.__str__(name) if isinstance(name, str) else ""
    if not plain or any("\ud800" <= character <= "\udfff" for character in plain):
        raise InvalidParameter(f"{parameter} must be a text that is not empty and can be sent, not {shown(name)}")
    return plain


class Operation(Generic[P, R]):
    """An operation of an interface. Called, it is the blocking call; `begin` is its asynchronous twin.

    Made by the `operation` decorator, or from any public method of an `Interface`. On a binding it calls the server; on
    the interface class itself it only describes.
    """

    # Whether `operation` was given a name; without one it takes that of the attribute.
    _named = True

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        one_way: bool = False,
        idempotent: bool = False,
        duplex: bool = False,
        shared_context: bool = False,
    ) -> None:
        if not isinstance(function, FunctionType):
            raise InvalidArgumentType(
                f"an operation is declared by a method, `def name(self, ...): ...`, not by {shown(function, 100)}"
            )
        update_wrapper(self, function)  # First: what it has may have any name.
        self.function = function
        self._named = name is not None
        self.name: str = check_name("name", function.__name__ if name is None else name)
        check_flag("one_way", one_way)
        check_flag("idempotent", idempotent)
        check_flag("duplex", duplex)
        check_flag("shared_context", shared_context)
        self.one_way: bool = one_way
        self.idempotent: bool = idempotent
        self.duplex: bool = duplex
        self.shared_context: bool = shared_context
        # `unittest.mock` asks this for the arguments of what is no function; a call itself asks the class.
        self.__dict__["__call__"] = _described(function, self.name)

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        """Return the operation itself: what has this is a method for `help` and the like."""
        return self

    def __set_name__(self, owner: type, name: str) -> None:
        if not self._named:
            self.name = check_name("name", name)

    # What a type checker sees. PEP 612 allows no keyword beside `P.kwargs`, so arguments are checked in calls without
    # options; in a call with an option, only the result and the options are.

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(
        self, *args: Any, timeout: float | None, metadata: Metadata = None, into: Any = None, **kwargs: Any
    ) -> R: ...
    @overload
    def __call__(self, *args: Any, metadata: Metadata, into: Any = None, **kwargs: Any) -> R: ...
    @overload
    def __call__(self, *args: Any, into: Any, **kwargs: Any) -> R: ...
    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Call the server, wait, and return the result: `begin`, wait and `complete` in one."""
        raise _unbound(self.name)

    @overload
    def begin(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]: ...
    @overload
    def begin(
        self,
        *args: Any,
        notify: Any,
        timeout: float | None = None,
        metadata: Metadata = None,
        into: Any = None,
        handle: Call[Any] | None = None,
        send_complete: bool = False,
        **kwargs: Any,
    ) -> Call[R]: ...
    @overload
    def begin(
        self,
        *args: Any,
        timeout: float | None,
        metadata: Metadata = None,
        into: Any = None,
        handle: Call[Any] | None = None,
        send_complete: bool = False,
        **kwargs: Any,
    ) -> Call[R]: ...
    @overload
    def begin(
        self,
        *args: Any,
        metadata: Metadata,
        into: Any = None,
        handle: Call[Any] | None = None,
        send_complete: bool = False,
        **kwargs: Any,
    ) -> Call[R]: ...
    @overload
    def begin(
        self, *args: Any, into: Any, handle: Call[Any] | None = None, send_complete: bool = False, **kwargs: Any
    ) -> Call[R]: ...
    @overload
    def begin(self, *args: Any, handle: Call[Any] | None, send_complete: bool = False, **kwargs: Any) -> Call[R]: ...
    @overload
    def begin(self, *args: Any, send_complete: bool, **kwargs: Any) -> Call[R]: ...
    def begin(self, *args: Any, **kwargs: Any) -> Call[R]:
        """Begin the call and return its handle at once. See `BoundOperation.begin` for the arguments."""
        raise InvalidParameter(f"{self.name} belongs to an interface: begin it on a binding, `client.bind(...)`")

    def stream(self, *args: Any, **kwargs: Any) -> "Stream[Any, R]":
        """Begin a call with one out pipe, to be iterated over. See `PipedOperation` for the arguments."""
        raise InvalidParameter(
            f"{self.name} has no pipe to stream from. Pipes are declared by an Interface: a binding by name has none, "
            "and an operation of the class itself is none of a binding"
        )


def _described(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return what stands for the call of an operation of the class itself: it has the signature that callers see."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> NoReturn:
        raise _unbound(name)

    try:
        call.__signature__ = inspect.signature(partial(function, None))  # type: ignore[attr-defined]  # read by `inspect`
    except ValueError:
        pass  # It takes no `self`, which is told where it is bound.
    return call


def _unbound(name: str) -> InvalidParameter:
    return InvalidParameter(f"{name} belongs to an interface: call it on a binding, `client.bind(...)`")


@overload
def operation(function: Callable[Concatenate[Any, P], R], /) -> Operation[P, R]: ...
@overload
def operation(
    *,
    name: str | None = None,
    one_way: bool = False,
    idempotent: bool = False,
    duplex: bool = False,
    shared_context: bool = False,
) -> Callable[[Callable[Concatenate[Any, P], R]], Operation[P, R]]: ...
def operation(function: Any = None, /, **options: Any) -> Any:
    """Declare a method of an `Interface` as an operation; needed only for its options, and for type checkers.

    Args:
        name: the operation's name on the wire, if it is not the method's.
        one_way: nothing comes back: no result, no error, no promise of delivery ("maybe"). Implies idempotent.
        idempotent: running the operation more than once does no harm. A promise to clients, which send a call again on
            their own if its connection is lost before the answer has come, within `Client(retries=, retry_budget=)` and
            the call's time limit. A call sent again comes behind those begun meanwhile. Not for pipes.
        duplex: its pipes may be used in any order, where otherwise all inputs come before all outputs.
        shared_context: calls may use a context handle while others of this kind use it; see `Context`.
    """
    if function is None:
        return lambda function: Operation(function, **options)
    return Operation(function)


class Interface:
    """Base of interfaces. Derive from it, and write each operation as a method with annotations and no body:

        class Thesaurus(Interface, id="example.Thesaurus", version=(1, 0)):
            @operation
            def synonyms(self, word: str) -> list[str]: ...

    Args of the class statement:
        id: the interface's name on the wire; the class's name unless given.
        version: (major, minor). A server serves clients with its own major version and no newer minor one.

    Types may be whatever msgspec encodes: numbers, `str`, `bytes`, lists, tuples, sets, dicts, dataclasses, Structs,
    enums, dates, UUIDs, unions; also `memoryview` and NumPy arrays, which travel without a copy. Constraints
    (`Annotated[int, msgspec.Meta(ge=0)]`) are checked on both sides. A class that msgspec does not know, as `Path` and
    `OrderedDict`, is refused when the contract is bound or registered. A parameter or a result without an annotation
    takes any plain value. Ints have 64 bits.

    Each public method is an operation, with or without the decorator, those of bases that are no interfaces included,
    abstract ones too. Type variables of a generic contract are what a class that derives from it says, as in
    `class Points(Repository[Point])`; one that is left is refused. What no server could be asked for is refused at the
    same time: properties, class and static methods, other callables, `*args`, keyword-only parameters, defaults that do
    not fit. A method whose name begins with an underscore is none, and cannot be called on a binding. Constants and
    nested classes are left alone.

    An array, or None where `ndarray | None` says so, may be an argument or a result, but not a part of another value;
    masked ones do not travel. The items and dimensions of `NDArray[float64]` are checked on both sides, never
    converted. An array arrives in C order, whatever its order was. NumPy's scalars stand for plain values, anywhere
    inside arguments, elements of pipes and results.

    A parameter `Out[...]` or `InOut[...]` of `bytearray`, `memoryview` or a NumPy array is a buffer of the caller's:
    the routine gets one of its own of the same size, and completing the call fills the caller's with what that holds
    when the call is answered. A routine that shrinks its `bytearray` fills as much. Where bytes are asked for, any
    writable buffer without gaps will do; leave it alone, and its size, until the call was completed.

    Pipes, outputs and context handles that a call takes are parameters of their own: inside another value, as a field
    of a dataclass for one, they are refused.
    """

    interface_id: typing.ClassVar[str] = ""
    interface_version: typing.ClassVar[tuple[int, int]] = (1, 0)

    def __init_subclass__(cls, *, id: str | None = None, version: tuple[int, int] = (1, 0), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if (
            not isinstance(version, tuple)
            or len(version) != 2
            or not all(type(part) is int and 0 <= part < 1 << 16 for part in version)
        ):
            raise InvalidParameter(f"version must be (major, minor), two numbers from 0 to 65535, not {shown(version)}")
        for name in ("interface_id", "interface_version"):
            if name in vars(cls):
                raise InvalidParameter(f"{name} is said in the class statement: `class {cls.__name__}(Interface, ...)`")
        cls.interface_id = check_name("id", cls.__name__ if id is None else id)
        cls.interface_version = version


class PlainArgs:
    """Decodes the arguments of a call without a contract: any number of plain values."""

    def __init__(self) -> None:
        self.plain: Callable[[Buffer | msgspec.Raw], list[Any]] = ValueDecoder[list[Any]](list[Any]).plain
        self.many: Callable[[Buffer | msgspec.Raw], list[list[Any]]] = ValueDecoder[list[list[Any]]](
            list[list[Any]]
        ).plain

    def __call__(
        self, raw: msgspec.Raw, blobs: Sequence[Buffer] = (), descriptors: Sequence[Blob] | None = None
    ) -> Sequence[Any]:
        """Decode; see `ArgsDecoder`."""
        args = self.plain(raw)
        return ArgsDecoder([Any] * len(args))(raw, blobs, descriptors) if descriptors else args


class OperationSpec:
    """How one operation's calls are written and read; shared by every binding and every server that uses it."""

    __slots__ = (
        "_checks", "contexts", "decode_args", "decode_outputs", "decode_plain", "decode_result", "directions", "duplex",
        "exact", "idempotent", "lane", "name", "one_way", "only", "outputs", "parameters", "pipes", "required",
        "retried", "shared_context", "signature", "special", "target",
    )  # fmt: skip

    def __init__(
        self, target: Target, described: Operation[..., Any] | None, variables: Mapping[Any, Any] | None = None
    ) -> None:
        self.target: Target = target
        self.name: str = target.operation
        self.one_way: bool = described is not None and described.one_way
        # The order that calls have a place in; None: their connection's.
        self.lane: int | None = None
        self.idempotent: bool = described is not None and (described.idempotent or described.one_way)
        # Whether its calls are sent again when their connection is lost.
        self.retried: bool = self.idempotent and not self.one_way
        self.shared_context: bool = described is not None and described.shared_context
        # Positions of the parameters that are context handles, and whether each must be given.
        self.contexts: tuple[tuple[int, bool], ...] = ()
        # Parameters that are output buffers.
        self.outputs: tuple[OutputSpec, ...] = ()
        # None: without a contract, any number of plain values.
        self.signature: inspect.Signature | None = None
        self.parameters: tuple[str, ...] = ()
        self.required: int = 0
        self._checks: tuple[Any, ...] = ()
        # Parameters that are pipes, and how a call says so on the wire.
        self.pipes: tuple[PipeSpec, ...] = ()
        self.directions: list[tuple[int, str]] | None = None
        self.duplex: bool = described is not None and described.duplex
        # Arguments of exactly these types need no look by `arrange`.
        self.exact: tuple[Any, ...] | None = None
        # The same for the only argument, if one is all there is: a tuple of types costs 0.2 us to make.
        self.only: Any = None
        result: Any = Any
        if described is not None:
            result = self._describe(described.function, variables or {})
        # Whether each call says something of itself that most do not.
        self.special: bool = self.one_way or bool(self.pipes)
        self.decode_result: ValueDecoder[Any] = ValueDecoder(result)
        self.decode_outputs: ArgsDecoder = reply_decoder(result, self.outputs)
        # The same for a result that travelled in band, without the step in between.
        self.decode_plain: Callable[[msgspec.Raw], Any] = self.decode_result.plain
        self.decode_args: ArgsDecoder | PlainArgs = (
            PlainArgs() if self.signature is None else ArgsDecoder(self._wire_types(), self.required)
        )

    def _describe(self, function: Callable[..., Any], variables: Mapping[Any, Any]) -> Any:
        label = f"{self.target.interface}.{self.name}"
        hints = _hints_of(label, function, variables)
        named = _parameters_of(label, function)
        self.signature = inspect.signature(function).replace(parameters=named)
        self.parameters = tuple(parameter.name for parameter in named)
        self.required = sum(parameter.default is _MISSING for parameter in named)
        checks = [_unmarked(hints.get(name, Any)) for name in self.parameters]
        pipes: list[PipeSpec] = []
        for position, (name, check) in enumerate(zip(self.parameters, checks, strict=True)):
            direction = DIRECTIONS.get(typing.get_origin(check) or check)
            if direction is not None:
                element = (typing.get_args(check) or (Any,))[0]
                check_type(f"{label}: pipe {name!r}", element, alone=False, handles=False)
                pipes.append(PipeSpec(name, position, direction, element))
                checks[position] = type(None)  # What stands in its place on the wire.
                self.required = max(self.required, position + 1)
        self.pipes = tuple(pipes)
        if pipes:
            self.directions = [(pipe.position, pipe.direction) for pipe in self.pipes]
            if self.idempotent:
                raise InvalidParameter(f"{label}: an operation with pipes cannot be idempotent or one way")
        elif self.duplex:
            raise InvalidParameter(f"{label}: duplex is about pipes, and the operation has none")
        kinds = [context_kind(annotation) for annotation in checks]
        self.contexts = tuple((at, kind) for at, kind in enumerate(kinds) if kind is not None)
        if self.shared_context and not self.contexts:
            raise InvalidParameter(f"{label}: shared_context is about context handles, and no parameter is one")
        for at, required in self.contexts:
            checks[at] = Context if required else Context | None
        self.outputs = outputs_of(label, hints, self.parameters)
        for output in self.outputs:
            checks[output.position] = Any  # Looked at as the call is begun, by `with_outputs`.
            self.required = max(self.required, output.position + 1)
        if self.outputs and self.one_way:
            raise InvalidParameter(f"{label}: nothing comes back of a one-way operation, so it has no outputs")
        self._checks = self.exact = tuple(checks)
        self.only = checks[0] if len(checks) == 1 else None
        # The result of an `async def` or of an ordinary method is annotated alike: with what the caller gets.
        result = _unmarked(hints.get("return", Any))
        handles = dict(self.contexts)
        for at, (name, kind) in enumerate(zip(self.parameters, self._wire_types(), strict=True)):
            check_type(f"{label}: parameter {name!r}", kind, handles=at in handles)
        check_type(f"{label}: the result", result)
        if self.one_way and result not in (None, type(None), Any):
            raise InvalidParameter(f"{label}: nothing comes back of a one-way operation: its result is None")
        self._check_defaults(label, named)
        return type(None) if result is None else result

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
                why = misfit(parameter.default, kind) or _unsendable(self.target, parameter.default)
            if why is not None:
                default = shown(parameter.default, 100)
                raise InvalidParameter(f"{label}: the default {default} of {parameter.name!r} {why}")

    def without_order(self) -> "OperationSpec":
        """Return a copy for calls that have no place in any order."""
        other = copy(self)
        other.lane = NO_LANE
        other.special = True
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
            if (why := misfit(value, wanted)) is not None:
                raise InvalidArgumentType(f"{self.name}: parameter {name!r} {why}")
        return args


def _hints_of(label: str, function: Callable[..., Any], variables: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the annotations of a method, whatever they are written with, by the names of its parameters.

    Args: `variables`: what stands for the type variables of the generic contract that the method is written in.
    """
    # Those of `class Name[T]` are known by name inside of it only, and annotations may be texts.
    names = {each.__name__: each for each in variables if getattr(each, "__infer_variance__", False)}
    hints = _evaluated(label, function, inspect.unwrap(function).__globals__ if names else None, names or None)
    return {name: _bound(f"{label}: {name!r}", kind, variables) for name, kind in hints.items()}


def _evaluated(
    label: str, annotated: Any, outer: dict[str, Any] | None, inner: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the annotations of a method, or of what else has some, by the names `outer` and `inner`."""
    try:
        hints = typing.get_type_hints(annotated, outer, inner, include_extras=True)
    except NameError as error:
        raise InvalidParameter(
            f"{label}: an annotation names what cannot be found: {text_of(error)}. It is looked for in the module of "
            "the contract: import it there, not for type checkers only"
        ) from None
    except BaseException as error:  # It runs what the annotations say.
        if is_interrupt(error):
            raise
        raise InvalidParameter(f"{label}: an annotation cannot be read: {text_of(error)}") from None
    return hints


def _bound(what: str, kind: Any, variables: Mapping[Any, Any]) -> Any:
    """Return a type with the type variables replaced that stand in it; raise if one is left."""
    kind = _replaced(kind, variables)
    for left in _variables_in(kind):
        raise InvalidParameter(
            f"{what} has a type that cannot be sent, {spell(kind)}: nothing says what {left} stands for: say it where "
            "the contract is derived from the generic one, as in `class Points(Repository[Point])`"
        )
    return unaliased(kind)


def _replaced(kind: Any, variables: Mapping[Any, Any]) -> Any:
    """Return a type with the type variables replaced that are known."""
    if isinstance(kind, TypeVar):
        return variables.get(kind, kind)
    inside = _variables_in(kind)
    return kind[tuple(variables.get(each, each) for each in inside)] if inside else kind


def _variables_in(kind: Any) -> tuple[Any, ...]:
    """Return the type variables of a type; a generic class by itself stands for all of its kinds, and has none."""
    if isinstance(kind, TypeVar):
        return (kind,)
    is_class = isinstance(kind, type) and typing.get_origin(kind) is None
    return () if is_class else getattr(kind, "__parameters__", ())


def _variables_of(interface: type[Interface]) -> dict[type, dict[Any, Any]]:
    """Return, for each base of an interface that is generic, what stands for its type variables there."""
    found: dict[type, dict[Any, Any]] = {}
    for kind in interface.__mro__:  # Each comes before its bases: what it has said of them is known by then.
        for base in vars(kind).get("__orig_bases__", ()):
            origin = typing.get_origin(base)
            wanted = getattr(origin, "__parameters__", ())
            if origin is None or origin in _FOUNDATIONS or not all(isinstance(each, TypeVar) for each in wanted):
                continue
            given = SimpleNamespace(__annotations__=dict(enumerate(typing.get_args(base))))
            module = getattr(sys.modules.get(kind.__module__), "__dict__", {})
            values = _evaluated(kind.__name__, given, module, None).values()  # They may be texts.
            known = found.get(kind, {})
            pairs = zip(wanted, values, strict=True)
            found.setdefault(origin, {each: _replaced(value, known) for each, value in pairs})
    return found


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


def _unmarked(annotation: Any) -> Any:
    """Return an annotation without what is added to it, but for constraints on its values: those both sides check."""
    if typing.get_origin(annotation) is not typing.Annotated:
        return annotation
    constraints = [each for each in annotation.__metadata__ if isinstance(each, msgspec.Meta)]
    kind = unaliased(annotation.__origin__)
    return typing.Annotated[(kind, *constraints)] if constraints else kind


# Classes whose attributes are no part of a contract.
_FOUNDATIONS = frozenset((object, Interface, Generic, typing.Protocol, ABC))


def _members_of(interface: type[Interface]) -> dict[str, Any]:
    """Return what an interface and all its bases define, by name: what overrides comes last."""
    found: dict[str, Any] = {}
    for kind in reversed(interface.__mro__):
        if kind not in _FOUNDATIONS:
            found |= vars(kind)
    return found


def operations_of(interface: type[Interface]) -> dict[str, Operation[..., Any]]:
    """Return the operations of an interface by attribute name, those of all its bases included.

    Raises: `InvalidParameter` for what looks like an operation and can be none, and for a name that two have.
    """
    found: dict[str, Operation[..., Any]] = {}
    names: dict[str, str] = {}
    for attribute, value in _members_of(interface).items():
        described = _operation_in(interface, attribute, value)
        if described is not None:
            other = names.setdefault(described.name, attribute)
            if other != attribute:
                raise InvalidParameter(
                    f"{interface.__name__}: {other!r} and {attribute!r} are both called {described.name!r} on the "
                    "wire: name one of them by @operation(name=...)"
                )
            found[attribute] = described
    return found


def _operation_in(interface: type[Interface], attribute: str, value: Any) -> Operation[..., Any] | None:
    """Return the operation that an attribute of an interface stands for, None for a constant, a class or a hidden
    method.
    """
    if isinstance(value, Operation):
        return value
    where = f"{interface.__name__}.{attribute}"
    if attribute.startswith("_"):
        # A binding would run the body of `__call__` and the like, where those that every class has are its own.
        if (
            isinstance(value, FunctionType) and attribute.endswith("__")
            and attribute not in vars(object) and value.__name__ == attribute and value.__module__ != "typing"
            and not attribute.startswith("__annotat")
        ):  # fmt: skip
            raise InvalidParameter(f"{where}: operations have no such name: give it one without underscores")
        return None
    if isinstance(value, FunctionType):
        if value.__module__ == "typing":
            raise InvalidParameter(f"{where} has overloads only: write the operation itself below them")
        return Operation(value, name=attribute)
    is_type = isinstance(value, type) or typing.get_origin(value) is not None or hasattr(value, "__supertype__")
    if is_type or isinstance(value, MemberDescriptorType):
        return None
    if callable(value) or hasattr(type(value), "__get__"):
        raise InvalidParameter(
            f"{where} is {a_type(value)}, which no server can be asked for: operations are plain methods, "
            "`def name(self, ...): ...`; give it a name that begins with an underscore if it is none"
        )
    return None


def hidden_methods_of(interface: type[Interface]) -> list[str]:
    """Return the names of methods that are no operations, because they begin with an underscore."""
    return [
        name for name, value in _members_of(interface).items()
        if name.startswith("_") and not name.endswith("__")
        and isinstance(value, (FunctionType, staticmethod, classmethod))
    ]  # fmt: skip


def specs_of(interface: type[Interface]) -> dict[str, OperationSpec]:
    """Return the specs of an interface's operations by attribute name; built once a class."""
    specs: dict[str, OperationSpec] | None = interface.__dict__.get("_specs")
    if specs is None:
        major, minor = interface.interface_version
        variables = _variables_of(interface)
        specs = {
            name: OperationSpec(
                Target(interface.interface_id, major, minor, described.name),
                described,
                variables.get(next(kind for kind in interface.__mro__ if name in vars(kind))),
            )
            for name, described in operations_of(interface).items()
        }
        # Two threads may both build them: the results are equal, and one store wins.
        interface._specs = specs  # type: ignore[attr-defined]  # a cache, invisible to type checkers on purpose
    return specs


def untyped(interface_id: str, operation_name: str) -> OperationSpec:
    """Return the spec of an operation that is called by name, without a contract."""
    return OperationSpec(Target(interface_id, 0, 0, operation_name), None)
