"""What each package offers: `__all__` is the whole truth, and all of it is documented."""

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest


def packages() -> list[str]:
    """Return the names of the packages and their subpackages."""
    found = []
    for top in ("engine", "transport", "perf"):
        found.append(top)
        inside = importlib.import_module(top).__path__
        found += [info.name for info in pkgutil.walk_packages(inside, top + ".") if info.ispkg]
    return found


def public_names(module: ModuleType) -> set[str]:
    """Return the names that the module binds for others, less modules: importing binds submodules."""
    return {name for name, value in vars(module).items() if not name.startswith("_") and not inspect.ismodule(value)}


def undocumented(module: ModuleType) -> set[str]:
    """Return the names in `__all__` that are missing, or need a docstring of their own and have none."""
    bare = set()
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name, None)
        if not hasattr(module, name):
            bare.add(name)
        elif inspect.isclass(value):
            text = value.__doc__
            # dataclasses and older enums write a docstring themselves.
            if not text or text.startswith(f"{value.__name__}(") or text == "An enumeration.":
                bare.add(name)
        elif (inspect.isroutine(value) or inspect.ismodule(value)) and not value.__doc__:
            bare.add(name)
    return bare


@pytest.mark.parametrize("package", packages())
class TestExports:
    def test_all_lists_every_public_name(self, package: str) -> None:
        """`__all__` has each public name that the package binds, and each once."""
        module = importlib.import_module(package)
        listed = getattr(module, "__all__", [])
        assert len(listed) == len(set(listed))
        assert public_names(module) - set(listed) == set()

    def test_listed_names_exist_and_are_documented(self, package: str) -> None:
        """Each name in `__all__` exists, and each class and function among them has a docstring."""
        assert undocumented(importlib.import_module(package)) == set()

    def test_the_package_says_what_it_is(self, package: str) -> None:
        """Each package has a docstring."""
        assert importlib.import_module(package).__doc__


def test_gaps_are_found() -> None:
    """A missing, an undocumented and an unlisted name are each reported."""
    module = ModuleType("made_up")
    exec(
        "from dataclasses import dataclass as _dataclass\nimport threading\n"
        "__all__ = ['gone', 'bare', 'Bare', 'Auto', 'told', 'LIMIT', 'NULL', 'Told']\n"
        "def bare(): pass\nclass Bare: pass\n@_dataclass\nclass Auto: x: int = 0\n"
        "def told(): 'Do.'\nclass Told: 'Be.'\nLIMIT = 3\nNULL = None\ndef unlisted(): 'Do.'\n",
        vars(module),
    )
    assert undocumented(module) == {"gone", "bare", "Bare", "Auto"}
    assert public_names(module) - set(module.__all__) == {"unlisted"}
