"""Reflection: what a server serves, for any client that asks: interfaces, their operations, types and texts.

Every server that listens serves `Reflection`, unless it is made with `reflection=False`. It shows what the contract
says, or, of an object that is served by name, what its methods say. Who may call an operation is another matter: what
is shown here of an interface is shown to every client that can connect.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from transport.foreign import name_of, shown

from ..contract.interface import Interface, operation
from ..contract.spec import OperationSpec
from ..wire_types import ParameterDirection, spell

KINDS = {"i": "in pipe", "o": "out pipe", "b": "in out pipe"}  # Of pipes, by their directions.
OUTPUTS = {ParameterDirection.OUT: "out", ParameterDirection.IN_OUT: "in out"}


class ParameterDescription(msgspec.Struct, frozen=True):
    """A parameter of an operation.

    Fields:
        name.
        type: of its values, or of a pipe's elements, as a program writes it; "Any" if nothing says it.
        default: as a program writes it; None: a caller must give it.
        kind: "value"; for a buffer of the caller's "out" or "in out"; for a pipe "in pipe" (to the server), "out pipe"
            or "in out pipe".
    """

    name: str
    type: str
    default: str | None = None
    kind: str = "value"


class OperationDescription(msgspec.Struct, frozen=True):
    """An operation. Fields: as its declaration says; `returns` is the type of the result; `text` its docstring."""

    name: str
    parameters: list[ParameterDescription]
    returns: str
    text: str
    one_way: bool = False
    idempotent: bool = False
    duplex: bool = False
    raises: list[str] = []


class InterfaceDescription(msgspec.Struct, frozen=True):
    """An interface in one version. Fields: `text` is its docstring; `contract` is False if it is served by name."""

    name: str
    version: tuple[int, int]
    operations: list[OperationDescription]
    text: str
    contract: bool


class Reflection(Interface, id="callport.Reflection", version=(1, 0)):
    """What every server serves to everybody, if it is not switched off: `client.bind(Reflection)`."""

    @operation
    def interfaces(self) -> list[InterfaceDescription]:
        """Return what the server serves now, in the order of names, the library's own interfaces last."""
        raise NotImplementedError


class ReflectionRoutines:
    """Serves `Reflection` for one server."""

    def __init__(self, described: Callable[[], list[InterfaceDescription]]) -> None:
        self._described = described

    def interfaces(self) -> list[InterfaceDescription]:
        return self._described()


def describe(spec: OperationSpec, function: Callable[..., Any], text: str | None) -> OperationDescription:
    """Describe an operation that `function` serves; `text` is the contract's docstring, if there is a contract."""
    if spec.signature is None:
        text = getattr(function, "__doc__", None)
        parameters, returns = _told_by(function)
    else:
        parameters, returns = list(_parameters(spec, spec.signature)), _spelled(spec.annotated[-1])
    return OperationDescription(
        spec.name, parameters, returns, inspect.cleandoc(text) if isinstance(text, str) else "", spec.one_way,
        spec.idempotent, spec.duplex, [name_of(kind) for kind in spec.raises],
    )  # fmt: skip


def _parameters(spec: OperationSpec, signature: inspect.Signature) -> Iterator[ParameterDescription]:
    pipes = {pipe.position: pipe for pipe in spec.pipes}
    outputs = {output.position: output for output in spec.outputs}
    for at, parameter in enumerate(signature.parameters.values()):
        if at in pipes:
            pipe = pipes[at]
            yield ParameterDescription(parameter.name, spell(pipe.element), None, KINDS[pipe.direction])
        else:
            kind = OUTPUTS[outputs[at].direction] if at in outputs else "value"
            yield ParameterDescription(parameter.name, spell(spec.annotated[at]), _default(parameter), kind)


def _told_by(function: Callable[..., Any]) -> tuple[list[ParameterDescription], str]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # Something built in, which does not say what it takes.
        return [], "Any"
    parameters = list(signature.parameters.values())
    if getattr(function, "__engine_manager__", False) is True:
        parameters = parameters[1:]  # The handle.
    return [
        ParameterDescription(
            ("*" if each.kind is each.VAR_POSITIONAL else "") + each.name, _spelled(each.annotation), _default(each)
        )
        for each in parameters
        if each.kind not in (each.KEYWORD_ONLY, each.VAR_KEYWORD)
    ], _spelled(signature.return_annotation)  # fmt: skip


def _default(parameter: inspect.Parameter) -> str | None:
    return None if parameter.default is parameter.empty else shown(parameter.default, 200)


def _spelled(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return "Any"
    if annotation in (None, type(None)):
        return "None"
    return annotation if isinstance(annotation, str) else spell(annotation)
