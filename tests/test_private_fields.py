"""Private fields stay private: no file reaches into what a class of another file keeps under an underscore.

An access `thing._name` counts unless `thing` is `self` or `cls`, or the file itself gives something that name; so does
importing such a name. A subclass in another file may use what it inherits.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What the standard library documents under an underscore: `sys._getframe`, `os._exit`, a named tuple's `_replace`.
STANDARD = ("sys", "os")
DOCUMENTED = ("_replace", "_asdict", "_fields")

# "file: expression", each with its reason, measured where it is one of speed. At most twelve.
LOOP = "asking for a running loop without an exception, on the way of each call, has no other name in asyncio"
EXCEPTIONS: dict[str, str] = {
    "engine/kernel/loops.py: events._get_running_loop": LOOP,
    "engine/rpc/client/binding.py: events._get_running_loop": LOOP,
    "engine/rpc/server/contexts.py: asyncio._get_running_loop": LOOP,
    "engine/lifecycle.py: threading._register_atexit": "nothing else runs before the threads of pools are joined",
    "transport/lifecycle.py: lock._at_fork_reinit": "a lock that another thread held at the fork has no other remedy",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


def names_given(tree: ast.Module) -> set[str]:
    """Return the names that a file itself defines: functions, variables, fields, `__slots__`."""
    given = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            given.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            given.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            given.add(node.value)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id in ("self", "cls")
        ):
            given.add(node.attr)
    return given


def is_own(holder: ast.expr) -> bool:
    """Whether what holds a field is the object itself, seen as its own class or as its base."""
    if isinstance(holder, ast.Call):
        return isinstance(holder.func, ast.Name) and holder.func.id == "super"
    return isinstance(holder, ast.Name) and holder.id in ("self", "cls", *STANDARD)


def reaches(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, expression) of each access to a private field of somewhere else."""
    tree = ast.parse(source)
    given = names_given(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith(("engine", "transport"))):
            for alias in node.names:
                if is_private(alias.name):
                    yield node.lineno, f"import {alias.name}"
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            if node.attr not in given and not is_own(node.value):
                yield node.lineno, ast.unparse(node)


def found_in(path: Path) -> dict[str, str]:
    """Return where each reach of a file is, by the words in which `EXCEPTIONS` names it."""
    where = path.relative_to(ROOT).as_posix()
    return {
        f"{where}: {expression}": f"{where}:{line}" for line, expression in reaches(path.read_text(encoding="utf-8"))
    }


FILES = sorted(path for package in ("engine", "transport") for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_reaches_into_another_ones_fields(path: Path) -> None:
    """What a class keeps under an underscore is used in its own file, and by what derives from it."""
    assert {line: reach for reach, line in found_in(path).items() if reach not in EXCEPTIONS} == {}


def test_the_exceptions_are_few_and_needed() -> None:
    """There are at most twelve exceptions, and each is still made use of."""
    assert len(EXCEPTIONS) <= 12
    assert EXCEPTIONS.keys() <= {reach for path in FILES for reach in found_in(path)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("call._state", ["call._state"]),
        ("self.call._state = 1", ["self.call._state"]),
        ("super()._state", []),
        ("class A:\n def f(self, other): self._x = other._x", []),
        ("class A:\n __slots__ = ('_x',)\ndef f(a): return a._x", []),
        ("self._x", []),
        ("from .a import _x", ["import _x"]),
        ("from os import _exit", []),
        ("call.__class__", []),
    ],
)
def test_what_counts(source: str, expected: list[str]) -> None:
    """A reach is an access to a private name that the file does not define, on anything but the object itself."""
    assert [expression for _, expression in reaches(source)] == expected
