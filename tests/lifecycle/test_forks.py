"""Forked children: what they make anew works, whatever threads of the parent were in the midst of."""

import ast
import os
from collections.abc import Iterator

import pytest

from engine.testing import LIMIT

from .forking import BUSY_WITH
from .inside import PLACES
from .programs import ROOT, run

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

FORKS = 20

# Locks that no child comes across, by file, each with the reason.
UNREGISTERED = {
    "engine/kernel/waiter.py": "the gate of one wait of one thread: a child waits by new ones",
    "engine/kernel/helping.py": "as above",
    "engine/pool/running.py": "as above",
    "engine/kernel/monitor.py": "the bell of a thread that is not in the child, whose driver makes a new monitor",
    "transport/overlapped/operation.py": "is only ever tried",
    "engine/rpc/client/resolver.py": "a resolver's thread is not in the child, where its client refuses to be used",
    "engine/processes/supervisor.py": "is only ever tried",
    "engine/pool/future.py": "a future's own condition, which is dropped in a child",
    "engine/kernel/lock.py": "is registered as it is made",
    "transport/lock.py": "as above",
}

MAKERS = {"allocate_lock", "RLock", "Condition", "TryLock", "Semaphore", "BoundedSemaphore", "Barrier"}


@forks
@pytest.mark.timeout(10 * LIMIT)  # There are many of them.
@pytest.mark.parametrize("busy", BUSY_WITH)
def test_children_of_busy_parents(busy: str) -> None:
    """A child uses new objects of every kind, and ends, while threads of the parent use such objects."""
    done = run("forking", busy, str(FORKS), patience=9 * LIMIT)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@forks
@pytest.mark.parametrize("place", PLACES)
def test_children_that_are_forked_inside(place: str) -> None:
    """So does a child that is forked inside a callback, an APC, a task or a routine, which may call out."""
    done = run("inside", place, "4")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@forks
def test_every_lock_is_free() -> None:
    """So does a child that was forked while another thread held all locks at once; what it inherited refuses."""
    done = run("holding")
    locks, code = map(int, done.stdout.split())
    assert code == 0, done.stderr
    assert locks > 30


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(method: str) -> None:
    """Processes that `multiprocessing` starts use new objects, leave some open, and end with code 0."""
    done = run("processes", method)
    assert (done.returncode, done.stdout) == (0, "0 0 0 0\n"), done.stderr


def _unregistered(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that make a lock of the interpreter's, and do not hand it to `fork_safe`."""
    registered = {
        argument
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fork_safe"
        for argument in node.args
    }
    threading = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in ("threading", "_thread")
        for alias in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or node in registered:
            continue
        match node.func:
            case ast.Name(name) if name in threading and name in MAKERS | {"Lock"}:
                yield node.lineno
            case ast.Attribute(ast.Name("threading" | "_thread"), name) if name in MAKERS | {"Lock"}:
                yield node.lineno


def _sources() -> Iterator[tuple[str, ast.AST]]:
    for top in ("engine", "transport"):
        for path in sorted((ROOT / top).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def test_every_lock_is_registered() -> None:
    """A lock that is made anywhere in the library is one that children find free, but for those with a reason."""
    assert {
        f"{name}:{line}" for name, tree in _sources() for line in _unregistered(tree) if name not in UNREGISTERED
    } == set()


def test_hooks_have_one_place() -> None:
    """Fork and exit hooks of the interpreter are registered in the lifecycle files only."""
    hooks = {"register_at_fork", "_register_atexit", "atexit"}
    found = {
        name
        for name, tree in _sources()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in hooks)
        or (isinstance(node, ast.Import) and any(alias.name in hooks for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module in hooks)
    }
    assert found == {"engine/lifecycle.py", "transport/lifecycle.py"}
