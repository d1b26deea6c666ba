"""Locks that an interrupt cannot leave held.

A signal handler may raise at the jump with which a round of a loop ends. CPython 3.12 and 3.13 leave that jump, where
an `if` ends the round, out of the `with` around the loop, so that the lock would stay held for ever.
"""

import dis
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for folder in ("engine", "transport") for path in (ROOT / folder).rglob("*.py"))


def codes(code: CodeType) -> Iterator[CodeType]:
    """Each function of a module, whatever it is in."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def unguarded(code: CodeType) -> Iterator[int]:
    """The lines of the jumps of loops inside a `with` that would not leave it."""
    steps = list(dis.get_instructions(code))
    index = {step.offset: number for number, step in enumerate(steps)}
    entries = dis.Bytecode(code).exception_entries

    def handler(offset: int) -> int | None:
        return next((entry.target for entry in entries if entry.start <= offset < entry.end), None)

    def in_with(offset: int) -> bool:
        target = handler(offset)
        while target is not None:
            first = index[target]
            if any(step.opname == "WITH_EXCEPT_START" for step in steps[first : first + 6]):
                return True
            target = handler(target)
        return False

    for step in steps:
        backwards = "JUMP" in step.opname and isinstance(step.argval, int) and step.argval < step.offset
        if backwards and "NO_INTERRUPT" not in step.opname and in_with(step.argval) and handler(step.offset) is None:
            yield step.positions.lineno or 0 if step.positions else 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_loop_in_a_with_leaves_it(path: Path) -> None:
    """No loop stands in a `with` in a shape that an interrupt would leave without leaving the `with`."""
    module = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    found = [(code.co_name, line) for code in codes(module) for line in unguarded(code)]
    assert not found, "put the loop into a function of its own"
