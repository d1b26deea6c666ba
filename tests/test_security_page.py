"""The page on security names each attack, what became of it, and tests that exist."""

import ast
import inspect
import re
from pathlib import Path

from engine import Server
from transport import frames

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (T\d+) \|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|$", PAGE, re.MULTILINE)
STATES = {"cured", "expensive", "documented", "open"}


def test_each_attack_has_a_state() -> None:
    """There are twelve attacks, each of them in one of the states that the page explains."""
    assert [row[0] for row in ROWS] == [f"T{number}" for number in range(1, 13)]
    assert {row[2].strip() for row in ROWS} <= STATES
    assert {state for state in STATES if f"*{state}*" in PAGE} == STATES


def test_what_is_cured_has_a_test() -> None:
    """A cured attack has tests, and each test, class of tests or file of tests that the table names exists."""
    names = set()
    for path in ROOT.glob("tests/**/test_*.py"):
        names.add(path.name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
    for number, _, state, _, tests in ROWS:
        cited = set(re.findall(r"`([\w.]+)`", tests))
        assert cited <= names, number
        assert cited or state.strip() != "cured", number


def test_the_numbers_are_those_of_the_code() -> None:
    """The bounds that the page gives are the code's, and its options are the server's."""
    assert frames.MAX_BODY_BYTES == 1 << 20 and frames.MAX_GREETING_BYTES == 64 << 10
    assert str(frames.MAX_RECORDS) in PAGE and f"{frames.MAX_NAME} characters" in PAGE
    for option in ("max_body_bytes", "max_calls", "insecure", "fault_details"):
        assert f"`{option}" in PAGE and option in inspect.signature(Server).parameters
