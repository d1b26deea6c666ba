"""The annotations of a contract: what they say once texts are evaluated and type variables replaced.

Type variables of a generic contract stand for what a class that derives from it says, as in
`class Points(Repository[Point])`.
"""

import inspect
import sys
import typing
from collections.abc import Callable, Container, Mapping
from types import SimpleNamespace
from typing import Any, TypeVar

import msgspec

from transport.foreign import is_interrupt, text_of
from transport.wire.blobs import unaliased

from ...errors import InvalidParameter
from ..wire_types import spell


def hints_of(label: str, function: Callable[..., Any], variables: Mapping[Any, Any]) -> dict[str, Any]:
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


def variables_of(interface: type, foundations: Container[Any]) -> dict[type, dict[Any, Any]]:
    """Return, for each base of an interface that is generic, what stands for its type variables there.

    Args: `foundations`: bases that are no part of the contract.
    """
    found: dict[type, dict[Any, Any]] = {}
    for kind in interface.__mro__:  # Each comes before its bases: what it has said of them is known by then.
        for base in vars(kind).get("__orig_bases__", ()):
            origin = typing.get_origin(base)
            wanted = getattr(origin, "__parameters__", ())
            if origin is None or origin in foundations or not all(isinstance(each, TypeVar) for each in wanted):
                continue
            given = SimpleNamespace(__annotations__=dict(enumerate(typing.get_args(base))))
            module = getattr(sys.modules.get(kind.__module__), "__dict__", {})
            values = _evaluated(kind.__name__, given, module, None).values()  # They may be texts.
            known = found.get(kind, {})
            pairs = zip(wanted, values, strict=True)
            found.setdefault(origin, {each: _replaced(value, known) for each, value in pairs})
    return found


def unmarked(annotation: Any) -> Any:
    """Return an annotation without what is added to it, but for constraints on its values: those both sides check."""
    if typing.get_origin(annotation) is not typing.Annotated:
        return annotation
    constraints = [each for each in annotation.__metadata__ if isinstance(each, msgspec.Meta)]
    kind = unaliased(annotation.__origin__)
    return typing.Annotated[(kind, *constraints)] if constraints else kind
