"""What tools see of the public names: signatures, help pages and annotations that can be read."""

import importlib
import inspect
import pydoc
import typing
from collections.abc import Iterator
from typing import Any

import pytest

MODULES = ("engine", "engine.testing", "engine.win32", "transport")


def public_things(module: str) -> Iterator[tuple[str, Any]]:
    """Yield the public functions and classes of a module, and the public methods of the classes."""
    loaded = importlib.import_module(module)
    for name in loaded.__all__:
        thing = getattr(loaded, name)
        if inspect.isclass(thing):
            yield f"{module}.{name}", thing
            for attribute in dir(thing):
                raw = inspect.getattr_static(thing, attribute)
                if isinstance(raw, (staticmethod, classmethod)):
                    raw = raw.__func__
                elif isinstance(raw, property):
                    raw = raw.fget
                if inspect.isfunction(raw) and raw.__module__.startswith(("engine", "transport")):
                    if not attribute.startswith("_") or attribute == "__init__":
                        yield f"{module}.{name}.{attribute}", raw
        elif inspect.isfunction(thing):
            yield f"{module}.{name}", thing


@pytest.mark.parametrize("module", MODULES)
def test_signatures(module: str) -> None:
    """Each public function, class and method has a signature that can be asked for."""
    for name, thing in public_things(module):
        if inspect.isclass(thing) and issubclass(thing, (BaseException, dict, tuple, int)):
            continue  # Python's own say nothing.
        try:
            inspect.signature(thing)
        except Exception as error:
            raise AssertionError(f"{name} has no signature") from error


@pytest.mark.parametrize("module", MODULES)
def test_annotations(module: str) -> None:
    """The annotations of each can be evaluated: none names what is imported for type checkers only."""
    for name, thing in public_things(module):
        try:
            typing.get_type_hints(thing, include_extras=True)
            inspect.get_annotations(thing, eval_str=True)
        except Exception as error:
            raise AssertionError(f"the annotations of {name} cannot be read") from error


@pytest.mark.parametrize("module", MODULES)
def test_help(module: str) -> None:
    """`help` of each module, and of each of its public names, has a page."""
    loaded = importlib.import_module(module)
    for thing in (loaded, *(getattr(loaded, name) for name in loaded.__all__)):
        if inspect.ismodule(thing) or inspect.isclass(thing) or inspect.isroutine(thing):
            assert pydoc.render_doc(thing, renderer=vars(pydoc)["plaintext"])
