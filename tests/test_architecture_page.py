"""What the pages for those who change the library name exists, and their tables are those of the code."""

import ast
import builtins
import functools
import keyword
import re
from collections import defaultdict
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

import pytest

from engine import TRANSITIONS, On, State
from engine.kernel import leadership
from engine.lifecycle import Stage
from engine.pool import running
from engine.rpc.client import member
from engine.rpc.server import turns

from .lock_order import ORDER

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("docs/architecture.md", "docs/compiled-build.md", "docs/free-threading.md", "CONTRIBUTING.md")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

# Words of others, of tools and of endpoints.
FOREIGN = frozenset(
    ["Protocol", "PYTEST_ARGS", "__all__", "__init__", "__slots__", "_locked", "deque", "inproc", "loopback", "msgspec"]
    + ["pyzmq", "stress", "threading.RLock"]
)
ENDS = (".md", ".py", ".toml", "Makefile")


class Names(ast.NodeVisitor):
    """What a file defines: `A`, `A.b`, and by itself every name that is bound, a parameter's too."""

    def __init__(self, path: Path) -> None:
        self.within: list[str] = []
        self.qualified: set[str] = set()
        self.bound: set[str] = set()
        self.visit(ast.parse(path.read_text(encoding="utf-8")))

    def define(self, name: str) -> None:
        self.qualified.add(".".join((*self.within, name)))
        self.bound.add(name)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.define(node.name)
        self.within.append(node.name)
        self.generic_visit(node)
        self.within.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.define(node.name)
        self.bound.update(each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg))
        self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.define(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Store):
            self.define(node.attr)  # In a method of its class.
        self.generic_visit(node)


@functools.cache  # When a test asks, and not for each process that only looks which tests there are.
def defined(path: str) -> Names:
    return Names(ROOT / path)


@functools.cache
def everywhere() -> tuple[set[str], set[str]]:
    """All names that the project defines: whole ones, modules too, and by themselves."""
    paths = [
        path.relative_to(ROOT).as_posix()
        for top in ("engine", "transport", "perf", "tests")
        for path in (ROOT / top).rglob("*.py")
    ]
    modules = {path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in paths}
    return modules.union(*(defined(path).qualified for path in paths)), set().union(
        *(defined(path).bound for path in paths)
    )


TARGETS = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def named(page: str) -> list[str]:
    """What a page names, in code type."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


def exists(name: str) -> bool:
    """Whether there is something of that name; what is no name is no lie."""
    if name.startswith("make "):
        return name.split()[1] in TARGETS
    if re.fullmatch(r"[\w./-]+", name) and ("/" in name or name.endswith(ENDS)):
        return (ROOT / name).exists()
    name = re.sub(r"\(.*\)$|\s?=.*$", "", name)
    if not re.fullmatch(r"[\w.]+", name):
        return True
    first, dot, last = name.rpartition(".")
    whole, bound = everywhere()
    if name in whole or name in FOREIGN or keyword.iskeyword(name) or hasattr(builtins, name):
        return True
    return last in bound if not dot or not first[:1].isupper() else False


def table(first: str, text: str = ARCHITECTURE) -> list[list[str]]:
    """The rows of the table whose head begins with that column; the code type is taken off."""
    found = re.search(rf"^\| {first} \|.*\n\| ---.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert found, first
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found[1].replace("`", "").splitlines()]


def drawn(path: str, *heads: str) -> list[list[str]]:
    """The rows of the table in the docstring of a file, whose columns begin where its heads do."""
    lines = iter((ROOT / path).read_text(encoding="utf-8").splitlines())
    head = next(line for line in lines if re.fullmatch(r" +" + " {2,}".join(map(re.escape, heads)), line))
    starts = [head.index(each) for each in heads]
    rows: list[list[str]] = []
    for line in lines:
        if not line:
            break
        cells = [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
        if cells[0]:
            rows.append(cells)
        else:
            rows[-1] = [f"{before} {more}".strip() for before, more in zip(rows[-1], cells, strict=True)]
    return rows


def rows_of(transitions: Iterable[tuple[Enum | str, ...]]) -> list[list[str]]:
    """The rows of a table of states in the code: of states their values; the code type is taken off."""
    return [
        [str(each.value if isinstance(each, Enum) else each).replace("`", "") for each in row] for row in transitions
    ]


@pytest.mark.parametrize("page", PAGES)
def test_what_is_named_exists(page: str) -> None:
    """Each file, make target, module, class and function that a page names exists."""
    assert [name for name in named(page) if not exists(name)] == []


def test_what_does_not_exist_is_found() -> None:
    """A name that nothing bears any more is reported, of whatever kind it is."""
    for good in ("engine/kernel/driver.py", "engine.testing", "make test", "Driver.wait", "idempotent=True"):
        assert exists(good)
    for bad in ("engine/gone.py", "gone.md", "make gone", "Driver.gone", "gone_now", "Gone", "engine.gone_now"):
        assert not exists(bad)


def test_the_way_of_a_request() -> None:
    """Each function on the way of a request is defined in the file that the page names."""
    steps = re.findall(r"^\| `([\w/]+\.py)` \| (.*?) \|", ARCHITECTURE, re.MULTILINE)
    assert len(steps) > 30
    missing = defaultdict(list)
    for path, functions in steps:
        for name in re.findall(r"`([\w.]+)`", functions):
            if name not in defined(path).qualified:
                missing[path].append(name)
    assert missing == {}


def test_the_states_of_a_call() -> None:
    """The page has the table of a call's states."""
    assert table("state") == [
        [state.name, *(getattr(TRANSITIONS[state].get(event), "name", "") for event in On)] for state in State
    ]


def test_the_members() -> None:
    """The table of how a server among several moves is that of the code."""
    assert table("member") == [
        [state.name, *(getattr(member.TRANSITIONS[state].get(what), "name", "") for what in member.Happening)]
        for state in member.MemberState
    ]


def test_the_leadership() -> None:
    """The page has the table of the leadership."""
    assert table("thread") == rows_of(leadership.TRANSITIONS)


def test_the_turns_of_clients() -> None:
    """The page has the table of who has a client."""
    assert table("client") == rows_of(turns.TRANSITIONS)


def test_the_seats() -> None:
    """The page has the table of an idle worker's seat."""
    assert table("seat") == rows_of(running.TRANSITIONS)


def test_the_slots() -> None:
    """The page has the table of a port's slots."""
    assert table("event") == drawn("engine/kernel/slots.py", "event", "effect (all under _lock)")


def test_the_order_of_locks() -> None:
    """The page has the locks in the order that the tests check."""
    assert [f"{module}:{maker}" for module, maker, _ in table("made in")] == list(ORDER)


def test_the_order_of_the_exit() -> None:
    """The page has the stages of an exit in their order, and the layers below them."""
    order = [row[0] for row in table("when")]
    layers = defined("transport/lifecycle.py").qualified
    assert order[: len(Stage)] == [f"Stage.{stage.name}" for stage in Stage]
    assert set(order[len(Stage) :]) == {name for name in layers if name.startswith("Layer.")} - {"Layer.USERS"}
