"""Objects that are not the library's are told of in one way: each place is looked for in the source.

What an exception says, and how a value shows itself, is code of the program's: `transport.foreign` is where it runs.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Texts of the library's own errors, or of those of the system's, by the function that tells of them: nothing that
# derives from a class of the program's comes there.
OWN_ERRORS = {
    "engine/rpc/server/runner.py:_take_apart": "msgspec, splitting what arrived",
    "engine/rpc/server/listener.py:_take_one_by_one": "msgspec, splitting what arrived",
    "engine/rpc/client/connection.py:_arrived": "a message that is not the protocol",
    "engine/rpc/server/pipes.py:take": "likewise",
    "engine/win32/bindings.py:RpcBindingFromStringBinding": "an endpoint's text",
    "engine/win32/bindings.py:endpoint_of": "likewise",
    "engine/win32/this_process.py:_bind_locked": "an endpoint that is taken",
    "transport/overlapped/descriptor.py:__init__": "the system, which has no descriptor left",
    "transport/__init__.py:_open": "the system, or the interpreter's imports",
    "transport/overlapped/pending.py:be_polled": "the system, which has no descriptor left",
    "transport/overlapped/pending.py:_attempt_locked": "the system, or ZeroMQ",
    "transport/wire/blobs.py:_restore_array": "NumPy, of what a peer asks for",
    "transport/wire/blobs.py:empty_array": "likewise",
    "transport/wire/codec.py:decode": "msgspec, decoding the frames of a message",
}

# What is shown by its own `repr`: the library's objects, and texts that were looked at before.
OWN_VALUES = frozenset({
    "__name__", "attribute", "call", "client", "described.name", "descriptor.dtype", "descriptor.kind", "dtype",
    "expect(hThread, Thread)", "first.name", "found", "policy.name", "host", "left", "name", "operation",
    "other", "other.name",
    "output.name", "parameter.name", "pipe", "pipe.name",
    "port", "port.name", "scheme", "self", "server", "spec.name", "target.interface", "target.operation", "text",
    "thread.name",
})  # fmt: skip


SYSTEMS = (
    "engine/cli/",  # A program of its own, which an error may end.
    "transport/zmq_link/",
    "transport/native_link/",
    "transport/lookup.py",
    "transport/unix.py",
    "transport/descriptors.py",
)


def functions() -> Iterator[tuple[str, ast.AST]]:
    """Yield each function of the library, as `path:name`."""
    for top in ("engine", "transport"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name == "transport/foreign.py" or name.startswith(SYSTEMS):
                continue  # The one place; and where there are only ZeroMQ and the system's sockets.
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{name}:{node.name}", node


def told_errors(function: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield where a function puts an exception that it has caught into a text."""
    for handler in ast.walk(function):
        if not isinstance(handler, ast.ExceptHandler) or handler.name is None:
            continue
        for node in ast.walk(handler):
            told: ast.expr | None = None
            if isinstance(node, ast.FormattedValue):
                told = node.value
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("str", "repr"):
                told = node.args[0]
            if isinstance(told, ast.Name) and told.id == handler.name:
                yield told.lineno, handler.name


def test_errors() -> None:
    """An exception that was caught is put into a text by `text_of`, unless it can only be the library's own."""
    found = {f"{where}, line {line}" for where, node in functions() for line, _ in told_errors(node)
             if where not in OWN_ERRORS}  # fmt: skip
    assert found == set()
    known = {where for where, node in functions() if list(told_errors(node))}
    assert set(OWN_ERRORS) <= known, "some of these tell of no error any more"


def test_types() -> None:
    """The name of a type is told by `type_name`, but for the library's own objects."""
    found = [
        f"{where}, line {node.lineno}"
        for where, function in functions()
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr in ("__name__", "__qualname__")
        and isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "type"
        and ast.unparse(node.value.args[0]) not in ("self", "message", "info")
    ]  # fmt: skip
    assert found == []


def test_values() -> None:
    """A value is shown by `shown`, but for the library's own, and texts."""
    found = [
        f"{where}, line {node.lineno}: {ast.unparse(node.value)}"
        for where, function in functions()
        for node in ast.walk(function)
        if isinstance(node, ast.FormattedValue) and node.conversion == ord("r")
        and not ast.unparse(node.value).startswith(("self.", "spec.parameters["))
        and ast.unparse(node.value) not in OWN_VALUES
    ]  # fmt: skip
    assert found == []


def test_tracebacks() -> None:
    """A traceback is formatted by `traceback_of`; a log sees to it itself (`transport/log.py`)."""
    found = [
        f"{where}, line {node.lineno}"
        for where, function in functions()
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("traceback.format")
    ]
    assert found == []
