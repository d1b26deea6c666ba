"""What a server says that it serves, by its `Reflection`: as text, and as contracts, which calls with pipes need."""

import inspect
from collections.abc import Iterable, Iterator
from textwrap import indent
from types import new_class
from typing import Any

from engine import (
    Client,
    InOutPipe,
    InPipe,
    Interface,
    InterfaceDescription,
    Operation,
    OperationDescription,
    OutPipe,
    ParameterDescription,
    Reflection,
    UnknownInterface,
)

from .output import ExitCode, fail, print_value

# An operation with pipes, and a contract to call it by.
Piped = tuple[type[Interface], OperationDescription]

PIPES: dict[str, Any] = {"in pipe": InPipe, "out pipe": OutPipe, "in out pipe": InOutPipe}


def interfaces(client: Client, name: str, timeout: float) -> list[InterfaceDescription]:
    """Return what the server serves, or of it the interface, or the operation, of that name."""
    try:
        found = client.bind(Reflection).interfaces(timeout=timeout)
    except UnknownInterface:
        raise fail("the server does not tell what it serves (Server(reflection=False))", ExitCode.FAILED) from None
    if not name:
        return found
    whole = [each for each in found if each.name == name]
    interface, _, operation = name.rpartition(".")
    parts = [
        InterfaceDescription(each.name, each.version, [one], each.text, each.contract)
        for each in found
        if each.name == interface
        for one in each.operations
        if one.name == operation
    ]
    if not whole and not parts:
        raise fail(f"the server has no {name!r}; `inspect` without a name shows what it has", ExitCode.FAILED)
    return whole or parts


def texts(found: Iterable[InterfaceDescription]) -> Iterator[str]:
    """Yield interfaces and their operations as a reader wants them."""
    for interface in found:
        major, minor = interface.version
        version = f" {major}.{minor}" if interface.contract else ""
        yield f"{interface.name}{version}{_first_line(interface.text)}"
        for operation in interface.operations:
            parameters = ", ".join(map(_parameter, operation.parameters))
            yield f"  {operation.name}({parameters}) -> {operation.returns}"
            if notes := _notes(operation):
                yield indent(notes, "      ")


def _first_line(text: str) -> str:
    return f": {text.partition(chr(10))[0]}" if text else ""


def _notes(operation: OperationDescription) -> str:
    """The docstring, and what else there is to know."""
    raises = f"raises {', '.join(operation.raises)}" if operation.raises else ""
    flags = [("one way", operation.one_way), ("idempotent", operation.idempotent and not operation.one_way)]
    said = "; ".join(filter(None, [*(name for name, holds in flags if holds), raises]))
    return "\n".join(filter(None, [operation.text, f"({said})" if said else ""]))


def _parameter(parameter: ParameterDescription) -> str:
    kind = "" if parameter.kind == "value" else f"{parameter.kind} of "
    default = "" if parameter.default is None else f" = {parameter.default}"
    return f"{parameter.name}: {kind}{parameter.type}{default}"


def piped(client: Client, interface: str, name: str, timeout: float) -> Piped | None:
    """Return a contract of an operation that has pipes, and what it is; None for one without: its name will do."""
    try:
        found = client.bind(Reflection).interfaces(timeout=timeout)
    except UnknownInterface:
        return None
    for each in found:
        for operation in each.operations:
            if each.name == interface and operation.name == name and any(p.kind in PIPES for p in operation.parameters):
                return _contract(each, operation), operation
    return None


def _contract(interface: InterfaceDescription, operation: OperationDescription) -> type[Interface]:
    def body(self: Any) -> Any: ...

    named = [
        inspect.Parameter(each.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=PIPES.get(each.kind, Any))
        for each in operation.parameters
    ]
    body.__name__ = operation.name
    body.__annotations__ = {each.name: each.annotation for each in named}
    body.__signature__ = inspect.Signature([*inspect.signature(body).parameters.values(), *named])  # type: ignore[attr-defined]  # read by `inspect`
    declared: Operation[..., Any] = Operation(body, name=operation.name, duplex=operation.duplex)
    return new_class(
        "Described", (Interface,), {"id": interface.name, "version": interface.version},
        lambda names: names.update({operation.name: declared}),
    )  # fmt: skip


def stream(client: Client, found: Piped, values: list[Any], given: Iterable[Any], as_json: bool) -> None:
    """Call an operation with pipes: push what is `given`, print what comes, and then the result, if there is one."""
    contract, described = found
    operation = getattr(client.bind(contract), described.name)
    fed = {each.name: given for each in described.parameters if each.kind in ("in pipe", "in out pipe")}
    if any(each.kind in ("out pipe", "in out pipe") for each in described.parameters):
        with operation.stream(*values, **fed) as elements:
            for element in elements:
                print_value(element, as_json)
            result = elements.result
    else:
        result = operation(*values, **fed)
    if result is not None:
        print_value(result, as_json)
