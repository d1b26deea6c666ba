"""Which interfaces a server serves, and which routine serves which operation.

Theory of operation. Registering builds an `Entry` for each operation. A call names its target (interface, version,
operation); `find` looks it up once for each distinct target and remembers the answer, refusals included.

Source: "Registering Interfaces", "RpcServerRegisterIf2", "RpcServerUnregisterIf".
"""

import inspect
import typing
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial, partialmethod, singledispatchmethod
from types import BuiltinFunctionType, FunctionType, MemberDescriptorType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import msgspec

from transport.foreign import name_of, shown, text_of, type_name
from transport.frames import Target

from ...errors import InvalidArgumentType, InvalidParameter, Misuse
from ...kernel.checks import check_callable
from ...kernel.lock import Lock
from ...status import Status
from ..contract.compatible import contradicts
from ..contract.interface import Interface, Operation, specs_of
from ..contract.spec import OperationSpec
from ..interceptors import AsyncInterceptor, Interceptor, awaits
from ..wire_types import spell
from .call import ServerCall
from .intercepting import await_around, cannot_await, first_unfit, intercept
from .open_call import OpenCall
from .policy import AccessPolicy, Refusal
from .reflection import InterfaceDescription, describe
from .routines import Entry, Preparer, preparers_of

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

REMEMBERED_TARGETS = 4096  # Bound on what clients can make a server remember; arbitrary.


def manager(function: F) -> F:
    """Mark a routine as an asynchronous manager routine: it takes the call's handle before the operation's arguments.

    Its return does not answer the call; `complete` or `abort` on the handle does, from any thread, at any time. An
    exception that leaves it aborts the call, unless that was closed before, and closing it afterwards raises 1914:
    do not raise once the call is handed on.

        @manager
        def synonyms(self, call: ServerCall, word: str) -> None:
            queue.put((call, word))

    Source: "Handling Asynchronous Calls".
    """
    check_callable("function", function)
    function.__engine_manager__ = True  # type: ignore[attr-defined]  # a mark on the caller's own function
    return function


class Implements(Generic[P, R]):
    """What `implements` returns: takes the routine, and gives it back."""

    @overload
    def __call__(
        self, routine: Callable[Concatenate[S, P], Coroutine[Any, Any, R]], /
    ) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, routine: Callable[Concatenate[S, P], R], /) -> Callable[Concatenate[S, P], R]: ...
    @overload
    def __call__(
        self, routine: Callable[Concatenate[S, ServerCall, P], None], /
    ) -> Callable[Concatenate[S, ServerCall, P], None]: ...
    def __call__(self, routine: Any, /) -> Any:
        check_callable("routine", routine)
        return routine


def implements(operation: Operation[P, R], /) -> Implements[P, R]:
    """Have type checkers compare a routine with its operation: the parameters, their names, and the result.

        class Words:
            @implements(Thesaurus.synonyms)
            def synonyms(self, word: str) -> list[str]:
                return [word]

    The routine itself is returned, an ordinary one, an `async def`, or one that `manager` marks. At run time nothing is
    looked at: `Server.register` compares annotations, those of pipes too, and sees that no routine is missing.
    Raises: `InvalidArgumentType` for what is no operation of an interface class.
    """
    if not isinstance(operation, Operation):
        raise InvalidArgumentType(f"implements takes an operation of an interface class, not {shown(operation, 100)}")
    return Implements()


class RegisteredInterface(msgspec.Struct, frozen=True, eq=False):
    """One registered interface."""

    minor: int
    entries: dict[str, Entry]
    auto_listen: bool
    lasting: bool
    # What it says of itself, for people; and whether that is a contract's, or an object's that is served by name.
    text: str
    contract: bool


Interfaces = dict[str, dict[int, RegisteredInterface]]  # By name and major version.


class Registry:
    """The interfaces of one server. Registering may come before or after listening.

    Threads: any. `find` relies on single dictionary operations; `register` and `unregister` replace whole dictionaries.
    """

    def __init__(self) -> None:
        # Guards changes; reading takes a whole dictionary and needs no lock.
        self._lock = Lock()
        self._interfaces: Interfaces = {}
        self.found: dict[Target, Entry | Refusal] = {}
        # Those of each entry but the lasting ones', the outermost first. Replaced as a whole.
        self._interceptors: tuple[Interceptor, ...] = ()
        self._awaited: tuple[AsyncInterceptor, ...] = ()

    def intercept(self, *interceptors: Any) -> None:
        """Have these run around each routine, also of what is served already, and around the interceptors there are.

        Raises: `InvalidArgumentType` for one that awaits if there is an ordinary routine; then none is added.
        """
        awaited = tuple(each for each in interceptors if awaits(each))
        others = tuple(each for each in interceptors if not awaits(each))
        with self._lock:
            entries = self._intercepted_locked()
            unfit = first_unfit(entries) if awaited else None
            if unfit is None:
                others, awaited = (*others, *self._interceptors), (*awaited, *self._awaited)
                # First what may be broken off: an entry that finds none around it is run as before.
                self._surround_locked(entries, bool(others), bool(awaited))
                self._interceptors, self._awaited = others, awaited
        if unfit is not None:
            raise cannot_await(awaited[0], unfit)

    def _surround_locked(self, entries: Iterable[Entry], begins: bool, awaits: bool) -> None:
        """Have what there is of each kind run around these, unless it does so already."""
        for entry in entries:
            if begins and self._intercept not in entry.preparers:
                entry.prepare(self._intercept)
            if awaits and entry.function is entry.routine:
                await_around(entry, lambda: self._awaited)

    def _intercepted_locked(self) -> list[Entry]:
        return [
            entry for _, served in _all(self._interfaces) if not served.lasting for entry in served.entries.values()
        ]

    def _intercept(self, call: OpenCall, args: list[Any]) -> bool:
        return intercept(call, args, self._interceptors)

    def register(
        self, interface: type[Interface] | str, implementation: Any, policy: AccessPolicy, lasting: bool
    ) -> None:
        """Serve `interface` by the methods of `implementation`, under `policy`; see `Server.register`.

        A `lasting` one stays when all interfaces are unregistered.
        """
        name, major = _key(interface)
        if isinstance(interface, str):
            if not interface:
                raise InvalidParameter("interface must be a name that is not empty")
            entries, minor = _entries_by_name(interface, implementation), 0
            said = implementation if isinstance(implementation, type) else type(implementation)
        else:
            entries, minor = _entries(interface, implementation), interface.interface_version[1]
            said = interface
        text = inspect.cleandoc(said.__doc__) if isinstance(said.__doc__, str) else ""
        if unknown := policy.operations.keys() - entries.keys():
            raise InvalidParameter(f"interface {name!r} has no operations {', '.join(sorted(map(shown, unknown)))}")
        for entry in entries.values():
            if policy.needed:
                entry.restrict(policy)
        with self._lock:
            awaited = () if lasting else self._awaited
            unfit = first_unfit(entries.values()) if awaited else None
            if major in self._interfaces.get(name, {}):
                raise Misuse(
                    f"interface {name!r} version {major} is registered already: unregister it first",
                    status=Status.ALREADY_REGISTERED,
                )
            if unfit is None:
                if not lasting:
                    self._surround_locked(entries.values(), bool(self._interceptors), bool(awaited))
                served = RegisteredInterface(
                    minor, entries, policy.auto_listen, lasting, text, not isinstance(interface, str)
                )
                versions = {**self._interfaces.get(name, {}), major: served}
                self._interfaces = {**self._interfaces, name: versions}
                self.found = {}
        if unfit is not None:
            raise cannot_await(awaited[0], unfit)

    def described(self) -> list[InterfaceDescription]:
        """Return what is served, in the order of names, the library's own last."""
        return [
            InterfaceDescription(
                name, (major, served.minor), [describe(e.spec, e.function, e.text) for e in served.entries.values()],
                served.text, served.contract,
            )
            for (name, major), served in sorted(_all(self._interfaces), key=lambda each: (each[1].lasting, each[0]))
        ]  # fmt: skip

    def served(self, interface: type[Interface] | str | None) -> list[tuple[tuple[str, int], "RegisteredInterface"]]:
        """Return what `unregister` would remove, with its key; raise as it would."""
        if interface is None:
            return [
                (key, served) for key, served in _all(self._interfaces) if not (served.auto_listen or served.lasting)
            ]
        name, major = _key(interface)
        versions = self._interfaces.get(name, {})
        if major not in versions:
            raise Misuse(f"interface {name!r} is not registered", status=Status.UNKNOWN_IF)
        return [((name, major), versions[major])]

    def unregister(self, keys: Iterable[tuple[str, int]]) -> None:
        """Serve these interfaces no longer; those that are gone already are passed over."""
        with self._lock:
            self._interfaces = _without(self._interfaces, set(keys))
            self.found = {}

    def find(self, target: Target) -> Entry | Refusal:
        """Return the entry that serves `target`, or why there is none."""
        found = self.found
        answer = found.get(target)
        if answer is None:
            answer = self._look_up(target)
            if len(found) < REMEMBERED_TARGETS:
                found[target] = answer
        return answer

    def _look_up(self, target: Target) -> Entry | Refusal:
        versions = self._interfaces.get(target.interface)
        if not versions:
            return Refusal(Status.UNKNOWN_IF, f"the server has no interface {target.interface!r}")
        # Version 0.0 is a caller without a contract: it takes what there is, the newest first.
        major = target.major if (target.major, target.minor) != (0, 0) or 0 in versions else max(versions)
        served = versions.get(major)
        if served is None or served.minor < target.minor:
            has = ", ".join(f"{major}.{served.minor}" for major, served in sorted(versions.items()))
            return Refusal(
                Status.UNKNOWN_IF,
                f"the server has interface {target.interface!r} in version {has}, not {target.major}.{target.minor}",
            )
        entry = served.entries.get(target.operation)
        if entry is None:
            return Refusal(
                Status.PROCNUM_OUT_OF_RANGE, f"interface {target.interface!r} has no operation {target.operation!r}"
            )
        return entry


def _all(interfaces: Interfaces) -> list[tuple[tuple[str, int], RegisteredInterface]]:
    return [((name, major), served) for name, versions in interfaces.items() for major, served in versions.items()]


def _without(interfaces: Interfaces, keys: set[tuple[str, int]]) -> Interfaces:
    left: Interfaces = {}
    for (name, major), served in _all(interfaces):
        if (name, major) not in keys:
            left.setdefault(name, {})[major] = served
    return left


def _refuse_class(implementation: Any, attributes: Iterable[str]) -> None:
    """Raise if the implementation is a class, whose methods want an instance."""
    if isinstance(implementation, type):
        for attribute in attributes:
            if inspect.isfunction(inspect.getattr_static(implementation, attribute, None)):
                name = name_of(implementation)
                raise InvalidParameter(f"implementation must be an object, not the class {name}: pass {name}(...)")


def _key(interface: type[Interface] | str) -> tuple[str, int]:
    """Return the name and the major version of an interface; raise `InvalidArgumentType` for anything else."""
    if isinstance(interface, str):
        return interface, 0
    if not (isinstance(interface, type) and issubclass(interface, Interface)):
        raise InvalidArgumentType(f"interface must be an Interface class or a name, not {shown(interface)}")
    return interface.interface_id, interface.interface_version[0]


def _entries(interface: type[Interface], implementation: Any) -> dict[str, Entry]:
    """Return the entries of a contract; raise if the implementation does not fit it."""
    entries = {}
    _refuse_class(implementation, specs_of(interface))
    for attribute, spec in specs_of(interface).items():
        function = _routine(implementation, attribute)
        # An implementation may derive from the contract: what it does not override is the contract's.
        inherited = getattr(function, "__func__", None) is getattr(interface, attribute)
        if not callable(function) or isinstance(function, Operation) or inherited:
            raise InvalidParameter(
                f"{type_name(implementation)} has no routine {attribute!r}, which {interface.__name__} asks for"
            )
        entry = Entry(spec, function)
        entry.text = getattr(interface, attribute).__doc__
        more = _check_fits(entry, attribute)
        entry.prepare(*preparers_of(spec), *more)
        entries[spec.name] = entry
    return entries


# What stands in a class for a method of its instances. What only looks like one, a property or an object that can be
# called, is not meant for clients, and reading it may run the program's code.
_METHODS = (FunctionType, BuiltinFunctionType, staticmethod, classmethod, partialmethod, singledispatchmethod)


def _is_method(static: object) -> bool:
    """Whether what a class has under some name is a method."""
    # Decorators may wrap a method in what can be called and is bound to an instance, as `functools.cache` does.
    return isinstance(static, _METHODS) or (
        callable(static) and hasattr(type(static), "__get__") and not isinstance(static, Operation)
    )


def _public_methods(implementation: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public methods that the class of an object, or a base of it, defines, bound to the object.

    What was set on the object itself is not among them: it may be any callable that the object works with.
    """
    is_class = isinstance(implementation, type)  # One whose methods need no instance.
    kind: type = implementation if is_class else type(implementation)
    defined: dict[str, Any] = {}
    for each in reversed(kind.__mro__):
        defined.update(vars(each))
    for attribute, static in sorted(defined.items()):
        if not attribute.startswith("_") and _is_method(static):
            bind = getattr(static, "__get__", None)  # What is built in has none.
            function = static if bind is None else bind(None if is_class else implementation, kind)
            if callable(function) and not isinstance(function, type):
                yield attribute, function


def _routine(implementation: Any, attribute: str) -> Any:
    """Return the routine of an operation, None if there is none. A property is none, and is not run."""
    static = inspect.getattr_static(implementation, attribute, None)
    if hasattr(type(static), "__get__") and not (_is_method(static) or isinstance(static, MemberDescriptorType)):
        return None
    return getattr(implementation, attribute, None)


def _generates(entry: Entry) -> bool:
    """Whether the routine has a `yield`."""
    flags = 0 if entry.code is None else entry.code.co_flags
    return flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR) != 0


def _check_runs(entry: Entry, attribute: str) -> None:
    """Raise if calling the routine would run nothing of it."""
    if _generates(entry) and (entry.takes_handle or not entry.spec.pipes):
        how = "Answer by the call's handle" if entry.takes_handle else "Return the result, as a list"
        raise InvalidParameter(
            f"routine {attribute} has a `yield`: calling it would run nothing of it. {how}; to stream, declare a pipe "
            "in an `Interface`, `OutPipe[...]`"
        )


def _check_fits(entry: Entry, attribute: str) -> Sequence[Preparer]:
    """Raise if the routine cannot be called as its operation is; return what its arguments need beside the usual."""
    _check_runs(entry, attribute)
    try:
        signature = inspect.signature(entry.function)
    except (TypeError, ValueError):
        return ()  # Something built in, which does not say what it takes.
    spec = entry.spec
    count = len(spec.parameters) + entry.takes_handle
    annotated = spec.annotated
    try:
        signature.bind(*range(count))
    except TypeError as error:
        outputs = [pipe for pipe in spec.pipes if pipe.outbound]
        if _generates(entry) and len(outputs) == 1 and not outputs[0].inbound and _takes(signature, count - 1):
            # What a generator yields is pushed into its pipe for it.
            at = outputs[0].position
            _check_annotations(entry, attribute, (*annotated[:at], *annotated[at + 1 :]))
            return (partial(_leave_out, at),)
        handle = "the call's handle and " if entry.takes_handle else ""
        raise InvalidParameter(
            f"routine {attribute}{text_of(signature)} cannot take {handle}({', '.join(spec.parameters)}): "
            f"{text_of(error)}"
        ) from None
    _check_annotations(entry, attribute, annotated)
    return ()


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _leave_out(at: int, call: OpenCall, args: list[Any]) -> bool:
    del args[at]
    return True


def _check_annotations(entry: Entry, attribute: str, annotated: Sequence[Any]) -> None:
    """Raise if the routine is annotated with what cannot be, given what the contract says of its parameters and of the
    result.
    """
    function: Any = entry.function
    try:
        hints = typing.get_type_hints(getattr(function, "__func__", function))
        names = list(inspect.signature(function).parameters)[entry.takes_handle :]
    except Exception:  # They name what is not there at run time, for one.
        return
    *parameters, result = annotated
    for name, said in zip(names, parameters, strict=False):
        if contradicts(said, taken := hints.get(name, Any)):
            raise InvalidParameter(
                f"routine {attribute}: parameter {name!r} is annotated {spell(taken)}; the contract says {spell(said)}"
            )
    returned = hints.get("return", Any)
    if entry.takes_handle or _generates(entry):
        return
    if typing.get_origin(returned) in (Awaitable, Coroutine):
        returned = typing.get_args(returned)[-1]
    elif entry.spec.pipes and not entry.coroutine and typing.get_origin(returned) is not None:
        return  # It hands on what generates, perhaps.
    if contradicts(returned, result):
        raise InvalidParameter(
            f"routine {attribute} is annotated to return {spell(returned)}, and the contract says {spell(result)}"
        )


def _entries_by_name(name: str, implementation: Any) -> dict[str, Entry]:
    """Return the entries of an object served without a contract: its public methods, typed by their annotations."""
    if isinstance(implementation, Interface):
        raise InvalidParameter("register an implementation of an Interface under the interface, not under a name")
    kind = type(implementation)
    if kind.__module__ == "builtins" and kind is not type:
        raise InvalidParameter(
            f"implementation must be an object of a class of yours, not a {type_name(implementation)}, whose methods "
            "are not meant for clients: write a class with the operations"
        )
    _refuse_class(implementation, (attribute for attribute in dir(implementation) if not attribute.startswith("_")))
    entries = {
        attribute: Entry(OperationSpec(Target(name, 0, 0, attribute), None), function)
        for attribute, function in _public_methods(implementation)
    }
    for attribute, entry in entries.items():
        if entry.takes_handle:  # What another one yields cannot be sent, and its caller gets that as an error.
            _check_runs(entry, attribute)
    if not entries:
        raise InvalidParameter(f"{type_name(implementation)} has no public methods to serve as {name!r}")
    return entries
