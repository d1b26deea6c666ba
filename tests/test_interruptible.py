"""What an interrupt cannot leave half done, whatever the interpreter makes of the source.

A signal handler may raise at the jump with which a round of a loop ends, and CPython 3.12 to 3.14 leave some of these
jumps out of the `with` or `try` around the loop: its lock would stay held, and its `finally` not be run. Which jumps
depends on the version; so the rule is about the source: a loop that stands there is a function of its own, since what
leaves a function is met by what called it. (A comprehension is a loop of the function around it since 3.12, and
`any(...)` or `all(...)` of a generator since 3.14. Behaviour under real signals is in `kernel/test_interrupts.py`.)
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for folder in ("engine", "transport") for path in (ROOT / folder).rglob("*.py"))

LOOPS = (ast.For, ast.While)
HIDDEN_LOOPS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)

# Functions whose loop may stand in its `try`, with the reason why nothing is lost at the end of a round.
ALLOWED = {
    "transport/zmq_link/client.py:harvest": "a round ends with its message delivered: there is nothing to mend",
    "transport/zmq_link/server.py:harvest": "a round ends with its message delivered: there is nothing to mend",
    "engine/pool/dispatch.py:_idle": "runs on workers, where no signal handler does",
    "engine/pool/running.py:work": "runs on workers, where no signal handler does",
    "engine/pool/running.py:_returned": "runs on workers, where no signal handler does",
    "engine/rpc/server/own_loop.py:_end_tasks": "runs on the loop's own thread, where no signal handler does",
    "engine/rpc/server/pipes.py:_serve": "runs on workers, where no signal handler does",
}


def is_lock(item: ast.withitem) -> bool:
    """Whether a `with` takes a lock: they are called so here."""
    name = ast.unparse(item.context_expr).rpartition(".")[2]
    return name.endswith(("lock", "mutex", "_binding", "reading", "_making", "_opening", "_guard"))


def must_clean_up(node: ast.Try) -> bool:
    """Whether a `try` has something to do however it is left."""
    catches = {ast.unparse(handler.type) if handler.type else "BaseException" for handler in node.handlers}
    return bool(node.finalbody) or "BaseException" in catches


def goes_round(loop: ast.stmt) -> bool:
    """Whether a loop may have a second round: its body does not end by leaving it."""
    assert isinstance(loop, LOOPS)
    leaves = isinstance(loop.body[-1], ast.Break | ast.Return | ast.Raise)
    return not leaves or any(isinstance(node, ast.Continue) for node in ast.walk(loop))


def exposed(
    node: ast.AST, function: str = "", guarded: bool = False, locked: bool = False
) -> Iterator[tuple[str, int]]:
    """Yield the function and line of each loop that stands in a `with` of a lock, or a `try` that must clean up."""
    if isinstance(node, FUNCTIONS):
        function, guarded, locked = getattr(node, "name", function), False, False
    if (isinstance(node, LOOPS) and guarded and goes_round(node)) or (isinstance(node, HIDDEN_LOOPS) and locked):
        yield function, node.lineno
    inside = set()
    if isinstance(node, ast.With) and any(map(is_lock, node.items)):
        inside, guarded_inside, locked_inside = set(map(id, node.body)), True, True
    elif isinstance(node, ast.Try) and must_clean_up(node):
        inside, guarded_inside, locked_inside = set(map(id, [*node.body, *node.orelse])), True, locked
    for child in ast.iter_child_nodes(node):
        if id(child) in inside:
            yield from exposed(child, function, guarded_inside, locked_inside)
        else:
            yield from exposed(child, function, guarded, locked)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_loop_is_left_with_what_is_around_it(path: Path) -> None:
    """No loop stands in a `with` of a lock or in a `try` that must clean up: each is a function of its own."""
    where = path.relative_to(ROOT).as_posix()
    found = {
        (function, line)
        for function, line in exposed(ast.parse(path.read_text(encoding="utf-8")))
        if f"{where}:{function}" not in ALLOWED
    }
    assert not found, "put the loop into a function of its own"


def test_what_is_allowed_is_there() -> None:
    """Each function that is allowed a loop in its `try` still has one."""
    there = {
        f"{path.relative_to(ROOT).as_posix()}:{function}"
        for path in FILES
        for function, _ in exposed(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert ALLOWED.keys() <= there


@pytest.mark.parametrize(
    ("source", "loops"),
    [
        ("def f():\n with lock:\n  for x in y: g(x)", 1),
        ("def f():\n with lock:\n  for x in y:\n   break", 0),
        ("def f():\n with lock:\n  any(x for x in y)", 1),
        ("def f():\n try:\n  while x: g()\n finally: h()", 1),
        ("def f():\n try:\n  while x: g()\n except ValueError: h()", 0),
        ("def f():\n for x in y:\n  with lock: g(x)", 0),
        ("def f():\n with lock:\n  h(lambda: [x for x in y])", 0),
    ],
)
def test_the_rule(source: str, loops: int) -> None:
    """The rule finds what it is about, and nothing else."""
    assert len(list(exposed(ast.parse(source)))) == loops
