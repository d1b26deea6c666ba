"""Interfaces: named, versioned sets of operations that client and server share.

Theory of operation. A class statement that derives from `Interface` is the contract: each public method is an
operation, its annotations are its wire types. Both sides build an `OperationSpec` (`spec.py`) from each.

Source: "The IDL and ACF Files" (what an interface is); "Declaring Asynchronous Functions".
"""

import inspect
import typing
from abc import ABC
from collections.abc import Callable, Iterable
from functools import partial, update_wrapper, wraps
from types import FunctionType, MemberDescriptorType
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, Self, TypeVar, overload

from transport.foreign import a_type, shown
from transport.frames import MAX_NAME, Target

from ...errors import InvalidArgumentType, InvalidParameter
from ...kernel.checks import check_flag
from ...kernel.loops import OURS
from ..call import Call
from ..notify import Notify
from ..pipes.stream import Stream
from .annotations import variables_of
from .spec import OperationSpec

if typing.TYPE_CHECKING:
    from ..pipes.stream import Streams

P = ParamSpec("P")
R = TypeVar("R")

Metadata = dict[str, str] | None
Handle = Call[Any] | None


def check_name(parameter: str, name: object) -> str:
    """Return `name` as a plain `str` if it can be the name of an interface or an operation.

    Raises: `InvalidParameter` if it cannot.
    """
    plain = str.__str__(name) if isinstance(name, str) else ""
    if len(plain) > MAX_NAME:
        raise InvalidParameter(f"{parameter} has {len(plain)} characters, {MAX_NAME} are allowed: {shown(plain, 50)}")
    if not plain or any("\ud800" <= character <= "\udfff" for character in plain):
        raise InvalidParameter(f"{parameter} must be a text that is not empty and can be sent, not {shown(name)}")
    return plain


def check_raises(kinds: Iterable[type[Exception]]) -> tuple[type[Exception], ...]:
    """Return the exception classes that an operation declares, those that derive from others first."""
    found = tuple(kinds) if isinstance(kinds, Iterable) else (kinds,)
    for kind in found:
        if not (isinstance(kind, type) and issubclass(kind, Exception)) or kind.__module__.partition(".")[0] in OURS:
            raise InvalidArgumentType(
                f"raises must be exception classes of Python's or of your own, not {shown(kind, 100)}"
            )
    if len({kind.__name__ for kind in found}) < len(found):
        raise InvalidParameter(f"raises has two classes of one name: {shown(found, 200)}")
    return tuple(sorted(found, key=lambda kind: -len(kind.__mro__)))


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
        nonblocking: bool = False,
        raises: Iterable[type[Exception]] = (),
    ) -> None:
        if not isinstance(function, FunctionType):
            raise InvalidArgumentType(
                f"an operation is declared by a method, `def name(self, ...): ...`, not by {shown(function, 100)}"
            )
        update_wrapper(self, function)  # First: what it has may have any name.
        self.function = function
        self._named = name is not None
        self.name: str = check_name("name", function.__name__ if name is None else name)
        self.one_way: bool = check_flag("one_way", one_way)
        self.idempotent: bool = check_flag("idempotent", idempotent)
        self.duplex: bool = check_flag("duplex", duplex)
        self.shared_context: bool = check_flag("shared_context", shared_context)
        self.nonblocking: bool = check_flag("nonblocking", nonblocking)
        self.raises: tuple[type[Exception], ...] = check_raises(raises)
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
        self, *args: Any, notify: Notify[Call[R]], timeout: float | None = None, metadata: Metadata = None,
        into: Any = None, handle: Handle = None, send_complete: bool = False, user_data: Any = None, **kwargs: Any,
    ) -> Call[R]: ...  # fmt: skip
    @overload
    def begin(
        self, *args: Any, timeout: float | None, metadata: Metadata = None, into: Any = None,
        handle: Handle = None, send_complete: bool = False, user_data: Any = None, **kwargs: Any,
    ) -> Call[R]: ...  # fmt: skip
    @overload
    def begin(
        self, *args: Any, metadata: Metadata, into: Any = None, handle: Handle = None, send_complete: bool = False,
        user_data: Any = None, **kwargs: Any,
    ) -> Call[R]: ...  # fmt: skip
    @overload
    def begin(
        self, *args: Any, into: Any, handle: Handle = None, send_complete: bool = False, user_data: Any = None,
        **kwargs: Any,
    ) -> Call[R]: ...  # fmt: skip
    @overload
    def begin(
        self, *args: Any, handle: Handle, send_complete: bool = False, user_data: Any = None, **kwargs: Any
    ) -> Call[R]: ...
    @overload
    def begin(self, *args: Any, send_complete: bool, user_data: Any = None, **kwargs: Any) -> Call[R]: ...
    @overload
    def begin(self, *args: Any, user_data: Any, **kwargs: Any) -> Call[R]: ...
    def begin(self, *args: Any, **kwargs: Any) -> Call[R]:
        """Begin the call and return its handle at once. See `BoundOperation.begin` for the arguments."""
        raise InvalidParameter(f"{self.name} belongs to an interface: begin it on a binding, `client.bind(...)`")

    if typing.TYPE_CHECKING:
        stream: Streams[P, R]
    else:

        def stream(self, *args: Any, **kwargs: Any) -> Stream[Any, R]:
            """Begin a call with one out pipe, to be iterated over. See `PipedOperation` for the arguments."""
            raise InvalidParameter(
                f"{self.name} has no pipe to stream from. Pipes are declared by an Interface: a binding by name has "
                "none, and an operation of the class itself is none of a binding"
            )


def _described(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return what stands for the call of an operation of the class itself: it has the signature that callers see."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> NoReturn:
        raise _unbound(name)

    try:
        call.__signature__ = inspect.signature(partial(function, None))  # type: ignore[attr-defined]  # read by `inspect`
    except ValueError:
        pass  # It takes no `self`: binding it says so.
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
    nonblocking: bool = False,
    raises: Iterable[type[Exception]] = (),
) -> Callable[[Callable[Concatenate[Any, P], R]], Operation[P, R]]: ...
def operation(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    one_way: bool = False,
    idempotent: bool = False,
    duplex: bool = False,
    shared_context: bool = False,
    nonblocking: bool = False,
    raises: Iterable[type[Exception]] = (),
) -> Any:
    """Declare a method of an `Interface` as an operation; needed only for its options, and for type checkers.

    Args:
        name: the operation's name on the wire, if it is not the method's.
        one_way: nothing comes back: no result, no error, no promise of delivery ("maybe"). Implies idempotent.
        idempotent: running the operation more than once does no harm. A promise to clients, which send a call again on
            their own if its connection is lost before the answer has come, within `Client(retries=, retry_budget=)` and
            the call's time limit. A call sent again comes behind those begun meanwhile. Not for pipes.
        duplex: its pipes may be used in any order, where otherwise all inputs come before all outputs.
        shared_context: calls may use a context handle while others of this kind use it; see `Context`.
        nonblocking: the routine, and the checks of its arguments' own types, never wait, and return soon. A promise to
            callers over `loopback://`: the thread that waits for the call, or any other that waits for something, may
            run the routine itself, which takes a quarter of the time. Without it no routine runs on a thread of a
            caller's. A routine that breaks the promise keeps that thread beyond the end of its wait, and holds up the
            later calls of its client. Operations with pipes or context handles refuse it. Calls that need more than
            their routine are run by workers all the same: those of `async def` and manager routines, with output
            buffers, under a security callback, of bindings without order, and whatever is traced.
        raises: exception classes that are part of the contract, no two of one name. What the routine raises of one of
            them, or of a class derived from it, is raised at the client as that class, made of the same `args` (plain
            values), with the `RemoteFault` as its `__cause__`. It is an answer, and no failure of the server: it is not
            logged, and `Server(fault_details=False)` does not hide it. A client that cannot make it of what has come
            gets the `RemoteFault`, as clients do that do not know the contract. The library's own errors need not be
            declared.
    """

    def declare(method: Any) -> Operation[..., Any]:
        return Operation(
            method, name=name, one_way=one_way, idempotent=idempotent, duplex=duplex, shared_context=shared_context,
            nonblocking=nonblocking, raises=raises,
        )  # fmt: skip

    return declare if function is None else declare(function)


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
        variables = variables_of(interface, _FOUNDATIONS)
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
