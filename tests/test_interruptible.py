"""What an interrupt cannot leave half done.

A signal handler may raise at the jump with which a round of a loop ends. CPython 3.12 and 3.13 leave that jump, where
an `if` or the loop's own condition comes before it, out of the `with` or `try` around the loop: its lock would stay
held for ever, and its `finally` not be run.
"""

import dis
from collections.abc import Iterator
from itertools import pairwise
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
    """The lines of the jumps of loops that would not leave the `with` or `try` around the loop."""
    steps = list(dis.get_instructions(code))
    index = {step.offset: number for number, step in enumerate(steps)}
    entries = dis.Bytecode(code).exception_entries

    def handler(offset: int) -> int | None:
        return next((entry.target for entry in entries if entry.start <= offset < entry.end), None)

    def guards(target: int) -> bool:
        """Whether a handler is the end of a `with`, a `finally`, or has an `except BaseException`."""
        ahead = steps[index[target] :]
        names = [step.opname for step in ahead[:8]]
        if names[0] != "PUSH_EXC_INFO":
            return False  # The interpreter's own: of a comprehension, a generator.
        end = next(number for number, step in enumerate(ahead) if step.opname in ("RERAISE", "RAISE_VARARGS"))
        return "CHECK_EXC_MATCH" not in names or any(step.argval == "BaseException" for step in ahead[:end])

    def guarded(offset: int) -> bool:
        target = handler(offset)
        while target is not None and not guards(target):
            target = handler(target)
        return target is not None

    for before, step in pairwise(steps):
        backwards = "JUMP" in step.opname and isinstance(step.argval, int) and step.argval < step.offset
        # An `await` has jumps of its own, at which no signal handler is run, or an exception is on its way already.
        awaits = "NO_INTERRUPT" in step.opname or before.opname == "CLEANUP_THROW"
        if backwards and not awaits and guarded(step.argval) and handler(step.offset) is None:
            yield step.positions.lineno or 0 if step.positions else 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_loop_is_left_with_what_is_around_it(path: Path) -> None:
    """No loop stands in a `with` or a `try` in a shape that an interrupt would leave without leaving that."""
    module = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    found = [(code.co_name, line) for code in codes(module) for line in unguarded(code)]
    assert not found, "put the loop into a function of its own"
