"""Bindings: a client's view of one interface, as an object with operations to call.

A typed binding is an instance of (a hidden subclass of) the interface class, so type checkers see the contract's own
signatures. A binding by name makes up operations as they are asked for.

Source: "Binding Handles".
"""

import inspect
import types
from collections.abc import Callable
from functools import update_wrapper
from sys import modules
from typing import Any, NoReturn, Protocol, TypeVar

from transport.foreign import shown
from transport.frames import Target

from ...errors import InvalidParameter
from ...kernel.loops import holding, loop_to_hold
from ...lifecycle import Uncopyable
from ..call import Call, abandon, carrying
from ..contract.interface import Interface, Operation, check_name, hidden_methods_of, specs_of
from ..contract.spec import OperationSpec
from ..notify import Notify
from .buffers import filling, with_outputs
from .carrier import Begin, Carrier
from .interception import Interception

I = TypeVar("I", bound=Interface)  # noqa: E741  # the interface


class Starter(Protocol):
    """What begins the calls of a binding: a `Carrier`, or, for a client of several servers, a `Balancer`."""

    @property
    def begin(self) -> Begin:
        """Begins any call."""

    def shortcut(self, spec: OperationSpec) -> Begin | None:
        """Return what begins the usual calls of an operation; None: none is usual."""

    def prepared(self, spec: OperationSpec) -> OperationSpec:
        """Return how calls of `spec` are written and read."""

    def place(self) -> Carrier:
        """Return the carrier of a call that stays with one server."""

    def bound(self, operation: "BoundOperation") -> None:
        """An operation of a binding was made, whose calls this begins."""


class BoundOperation(Operation[..., Any], Uncopyable):
    """An operation of one binding: call it and wait for the result, or `begin` the call and collect the result
    later.
    """

    _instead = "bind anew, by a client of that place"

    def __init__(self, starter: Starter, interception: Interception, spec: OperationSpec, described: Any) -> None:
        self._starter = starter
        self._interception = interception
        spec = starter.prepared(spec)
        self.spec: OperationSpec = spec
        self.name: str = spec.name
        self.one_way: bool = spec.one_way
        self.idempotent: bool = spec.idempotent
        self.shared_context: bool = spec.shared_context
        # As a bound method has them. `described` is the contract's own, None if there is no contract.
        self.__name__: str = getattr(described, "__name__", spec.name)
        self.__qualname__: str = getattr(described, "__qualname__", spec.name)
        self.__doc__ = None if described is None else described.__doc__
        if spec.signature is not None:
            self.__signature__: inspect.Signature = spec.signature
        interception.follow(self._equip)
        starter.bound(self)

    def turn(self, starter: Starter, spec: OperationSpec) -> None:
        """Have `starter` begin the calls from now on, as `spec` says."""
        self._starter, self.spec = starter, spec
        self._equip()

    def _equip(self) -> None:
        """Begin calls in the shortest way, or through the client's interceptors if it has some."""
        starter, spec = self._starter, self.spec
        begin = with_outputs(starter.begin) if spec.outputs else starter.begin
        self._straight = begin
        if self._interception.interceptors:
            self._begin = self._interception.around(begin)
            self.__dict__.pop("begin", None)
            return
        self._begin = begin
        shortcut = starter.shortcut(spec)
        if shortcut is not None:
            self.begin = update_wrapper(shortcut, BoundOperation.begin)  # type: ignore[method-assign]  # on the instance: that is what it is for
        else:
            self.__dict__.pop("begin", None)

    def __repr__(self) -> str:
        return f"<operation {self.spec.target.interface}.{self.name}>"

    def begin(
        self,
        *args: Any,
        notify: Notify[Call[Any]] = None,
        timeout: float | None = None,
        metadata: dict[str, str] | None = None,
        handle: Call[Any] | None = None,
        into: Any = None,
        user_data: Any = None,
        **kwargs: Any,
    ) -> Call[Any]:
        """Begin the call and return its handle at once.

        Args:
            args, kwargs: the operation's arguments. They are encoded now: changing them later changes nothing, except
                for large `bytes`-like values and arrays (64 KiB or more), which must be left alone until the call ends.
            notify: how the caller is notified of the completion; see `engine.rpc.notify`. None: not at all.
            timeout: seconds until the call ends with `CallTimeout` if there is no reply; None: the client's default. If
                it could not be sent for want of a server, it ends with `ServerUnavailable`, or `CallFailedDne` once
                there has been a connection; both say that it did not run.
            metadata: texts for the routine to read.
            handle: a handle to use again instead of a new one; its call must be over.
            into: a writable buffer (`bytearray`, `memoryview`, array) that completing the call fills with its result,
                bytes or an array; or, for a tuple as result, a tuple of such buffers, with None for what is no buffer.
                `complete` then returns the filled part of each as a view. A result that does not fit is `BadStubData`
                with status 122, and changes nothing.
            user_data: anything of the caller's, for `Call.user_data`: it is there before any notification.
        Raises: `InvalidArgumentType` naming the parameter, or if the arguments are larger than the server takes (before
            a connection that is not known, and the call ends with `BadStubData`); `InvalidHandle` if the client is
            closed; `QueueFull` if too many calls are outstanding; `InvalidState` if `handle` carries a call. A call
            that raises here was not sent, and nothing will be notified.
        Threads: any. Blocks: never.
        Source: "Making the Asynchronous Call".
        """
        spec = self.spec if into is None else filling(self.spec, into)
        return self._begin(spec, args, kwargs, notify, timeout, metadata, carrying(handle, user_data))

    def __call__(
        self,
        *args: Any,
        timeout: float | None = None,
        metadata: dict[str, str] | None = None,
        into: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Call the server and return the result; takes the arguments of `begin` but for those about the handle.

        In a thread that runs an event loop it warns before anything is sent; in asyncio's debug mode nothing is.
        """
        # In line, as this runs for every blocking call: a thread that runs an event loop has imported asyncio.
        events = modules["asyncio.events"] if "asyncio.runners" in modules else None
        if events is not None and events._get_running_loop() is not None:
            if not self.one_way and (loop := loop_to_hold()) is not None:
                with holding(loop, awaited(self)):
                    return self(*args, timeout=timeout, metadata=metadata, into=into, **kwargs)
        spec = self.spec if into is None else filling(self.spec, into)
        if self._interception.interceptors:
            return self._interception.call(self._straight, spec, args, kwargs, timeout, metadata)
        call = self._begin(spec, args, kwargs, None, timeout, metadata, None)
        try:
            call.wait()
        except BaseException:
            # Interrupted: no caller holds the handle, so the call ends here.
            abandon(call)
            raise
        return call.complete()


def awaited(operation: BoundOperation) -> str:
    """Say what to write instead of a blocking call of `operation` in a coroutine."""
    interface, name = operation.spec.target.interface, operation.__name__
    return (
        f"await instead (`await binding.{name}.begin(...)`, with the binding to {shown(interface)}), "
        "or have another thread wait: `await asyncio.to_thread(...)`"
    )


class Binding(Uncopyable):
    """A binding by name, without a contract: any public attribute is an operation that takes and returns plain
    values.
    """

    _instead = "bind anew, by a client of that place"

    def __init__(self, starter: Starter, interception: Interception, interface: str, causal: bool) -> None:
        self._interface = check_name("interface", interface)
        self._starter = starter
        self._interception = interception
        self._causal = causal

    def __getattr__(self, name: str) -> BoundOperation:
        if name.startswith("_"):
            raise AttributeError(name)
        spec = OperationSpec(Target(self._interface, 0, 0, check_name("the operation", name)))
        spec = spec if self._causal else spec.without_order()
        bound = BoundOperation(self._starter, self._interception, spec, None)
        self.__dict__[name] = bound
        return bound

    def __repr__(self) -> str:
        return f"<binding to {self._interface!r}>"


def bind_typed(
    starter: Starter, interception: Interception, interface: type[I],
    kind: Callable[[OperationSpec], type[BoundOperation]], causal: bool,
) -> I:  # fmt: skip
    """Return an instance of `interface` whose operations, of the kinds that `kind` says, call the server."""
    specs = specs_of(interface)
    binding = _blank(interface)
    for name in hidden_methods_of(interface):
        setattr(binding, name, _refusal(interface, name))
    for name, spec in specs.items():
        kept = spec if causal else spec.without_order()
        setattr(binding, name, kind(spec)(starter, interception, kept, getattr(interface, name)))
    return binding


def _blank(interface: type[I]) -> I:
    """Return an instance of an interface that has not been initialised."""
    if not inspect.isabstract(interface):
        return object.__new__(interface)
    # What is abstract in a contract is what its server has to implement; a binding has all of it.
    options = {"id": interface.interface_id, "version": interface.interface_version}
    concrete: Any = types.new_class(interface.__name__, (interface,), options)
    concrete.__abstractmethods__ = frozenset()
    return object.__new__(concrete)  # type: ignore[no-any-return]  # made just above


def _refusal(interface: type[Interface], name: str) -> Callable[..., Any]:
    """Return what stands on a binding in the place of a method that is no operation."""

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise InvalidParameter(
            f"{interface.__name__}.{name} is no operation, as its name begins with an underscore: rename it, or "
            "declare it with @operation(name=...)"
        )

    return refuse
