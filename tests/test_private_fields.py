"""Private fields stay private: no file reaches into what a class of another file keeps under an underscore.

An access `thing._name` counts unless `thing` is `self` or `cls`, or the file itself gives something that name; so does
importing such a name. A subclass in another file may use what it inherits.

Nor does a public class hand such an object out: by a public field, or a method or property that returns a field and
does no more, whose type is a class of the project that is not public. Nor does any other class hand out its private
field in that way: to use what it returns would be to reach into the field.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine
import transport

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

# "class.name", each with its reason; they count as exceptions.
HANDED_OUT: dict[str, str] = {
    "BoundOperation.spec": "the tests of contracts see by it what a declaration comes to",
    "Link.lock": "the contract of a link: who joins it to others holds it",
    "OverlappedOperation.source": "a protocol that has public methods only: the object is the program's own",
}
HANDED_ON: dict[str, str] = {
    "Following.place": "it stands before the carrier that it was given, and says that a call goes there",
    "WorkerThreads.lock": "it guards the pool's objects, too; the slots load their own field on the way of each item",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


def names_given(nodes: list[ast.AST]) -> set[str]:
    """Return the names that a file itself defines: functions, variables, fields, `__slots__`."""
    given = set()
    for node in nodes:
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
    nodes = list(ast.walk(ast.parse(source)))
    given = names_given(nodes)
    for node in nodes:
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


def classes_in(annotation: ast.expr | None) -> set[str]:
    """Return the names in an annotation, in quotes or not."""
    named = set()
    for node in ast.walk(annotation) if annotation is not None else ():
        if isinstance(node, ast.Name):
            named.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named |= classes_in(ast.parse(node.value, mode="eval").body)
    return named


def returns_a_field(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether all that a method does is to return what the object has, or what something that it has has."""
    *documented, last = function.body
    value = last.value if isinstance(last, ast.Return) else None
    if not isinstance(value, ast.Attribute) or not all(isinstance(each, ast.Expr) for each in documented):
        return False
    while isinstance(value, ast.Attribute):
        value = value.value
    return isinstance(value, ast.Name) and value.id == "self"


def returns_a_private_field(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether all that a method does is to return what is kept under an underscore."""
    last = function.body[-1]
    return returns_a_field(function) and isinstance(last, ast.Return) and is_private(getattr(last.value, "attr", ""))


def type_given(field: ast.Assign | ast.AnnAssign, parameters: dict[str, ast.expr | None]) -> ast.expr | None:
    """Return what says of which class a field is: its annotation, that of a parameter, or the class that is called."""
    if isinstance(field, ast.AnnAssign):
        return field.annotation
    if isinstance(field.value, ast.Name):
        return parameters.get(field.value.id)
    return field.value.func if isinstance(field.value, ast.Call) else None


def handed_out(owner: ast.ClassDef) -> Iterator[tuple[str, set[str]]]:
    """Yield (name, names in its type) of each field, and of each method that returns a field."""
    for node in owner.body:
        if isinstance(node, ast.AnnAssign):
            yield ast.unparse(node.target), classes_in(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if returns_a_field(node):
                yield node.name, classes_in(node.returns)
            parameters = {each.arg: each.annotation for each in (*node.args.args, *node.args.kwonlyargs)}
            for field in ast.walk(node):
                if isinstance(field, ast.Assign | ast.AnnAssign):
                    target = field.target if isinstance(field, ast.AnnAssign) else field.targets[0]
                    if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                        yield target.attr, classes_in(type_given(field, parameters))


def all_handed_out(sources: list[str], public: set[str]) -> set[str]:
    """Return "class.name" of what public classes, and their bases, hand out of the other classes of these sources."""
    classes = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    inner = {each.name for each in classes} - public
    owners: set[str] = set()
    bases = public
    while bases := bases - owners:
        owners |= bases
        bases = {name for each in classes if each.name in bases for base in each.bases for name in classes_in(base)}
    return {
        f"{owner.name}.{name}"
        for owner in classes
        if owner.name in owners
        for name, named in handed_out(owner)
        if not name.startswith("_") and named & inner
    }


def frozen(owner: ast.ClassDef) -> bool:
    """Whether what is of this class cannot change: a frozen struct, a named tuple, an enumeration."""
    declared = {*map(ast.unparse, owner.keywords), *map(ast.unparse, owner.bases)}
    return not declared.isdisjoint({"frozen=True", "NamedTuple", "Enum", "IntEnum", "enum.Enum", "enum.IntEnum"})


def all_handed_on(sources: list[str], public: set[str]) -> set[str]:
    """Return "class.name" of the methods and properties of these sources that hand out a private field of their object,
    of a class of the sources that is not public and can change.
    """
    classes = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    inner = {each.name for each in classes if not frozen(each)} - public
    return {
        f"{owner.name}.{node.name}"
        for owner in classes
        for node in owner.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and returns_a_private_field(node)
        and classes_in(node.returns) & inner
    }  # fmt: skip


FILES = sorted(path for package in ("engine", "transport") for path in (ROOT / package).rglob("*.py"))


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    """All reaches, and where they are."""
    return {reach: line for path in FILES for reach, line in found_in(path).items()}


def test_no_file_reaches_into_another_ones_fields(found: dict[str, str]) -> None:
    """What a class keeps under an underscore is used in its own file, and by what derives from it."""
    assert {line: reach for reach, line in found.items() if reach not in EXCEPTIONS} == {}


def test_no_public_class_hands_out_what_is_private() -> None:
    """What a public class has of classes that are not public stays private: it is no public field, nor returned."""
    sources = [path.read_text(encoding="utf-8") for path in FILES]
    assert all_handed_out(sources, {*engine.__all__, *transport.__all__}) == HANDED_OUT.keys()


def test_no_class_hands_out_its_private_field() -> None:
    """A private field is no less private for a property that returns it: no class of the library has one."""
    sources = [path.read_text(encoding="utf-8") for path in FILES]
    found = all_handed_on(sources, {*engine.__all__, *transport.__all__})
    assert found - HANDED_OUT.keys() == HANDED_ON.keys()


def test_the_exceptions_are_few_and_needed(found: dict[str, str]) -> None:
    """There are at most twelve exceptions, and each is still made use of."""
    assert len(EXCEPTIONS) + len(HANDED_OUT) + len(HANDED_ON) <= 12
    assert EXCEPTIONS.keys() <= found.keys()


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


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("inner: Inner", {"A.inner"}),
        ("inner: 'list[Inner] | None'", {"A.inner"}),
        ("def f(self): self.inner: Inner = make()", {"A.inner"}),
        ("def f(self): self.inner = Inner()", {"A.inner"}),
        ("def f(self, given: Inner): self.inner = given", {"A.inner"}),
        ("def f(self) -> Inner: return self._inner", {"A.f"}),
        ("@property\n def f(self) -> 'Inner':\n  'Why.'\n  return self._outer.inner", {"A.f"}),
        ("_inner: Inner", set()),
        ("other: A", set()),
        ("def _f(self) -> Inner: return self._inner", set()),
        ("def f(self) -> Inner: return Inner(self._inner)", set()),
        ("def f(self): inner: Inner = self._inner", set()),
    ],
)
def test_what_is_handed_out(body: str, expected: set[str]) -> None:
    """It counts whether it is annotated, made there, or given as a parameter that is."""
    assert all_handed_out([f"class A:\n {body}", "class Inner: ..."], {"A"}) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("def f(self) -> Inner: return self._inner", {"Outer.f"}),
        ("@property\n def f(self) -> 'Inner | None': return self._inner", {"Outer.f"}),
        ("@property\n def f(self) -> dict[str, Inner]:\n  'Why.'\n  return self.other._inner", {"Outer.f"}),
        ("def f(self) -> Inner: return self.inner", set()),
        ("def f(self) -> Inner: return self._inner.copy()", set()),
        ("def _f(self) -> Inner: return self._inner", set()),
        ("def f(self) -> int: return self._inner", set()),
        ("def f(self) -> Value: return self._value", set()),
        ("def f(self) -> Public: return self._public", set()),
    ],
)
def test_what_is_handed_on(body: str, expected: set[str]) -> None:
    """It counts of any class, unless what is returned cannot change, or is of a public class."""
    others = ["class Inner: ...", "class Public: ...", "class Value(Struct, frozen=True): ..."]
    assert all_handed_on([f"class Outer:\n {body}", *others], {"Public"}) == expected
