"""The page of semantics names tests that exist."""

import ast
import re
from itertools import chain
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "semantics" / "completion-port.md"


def test_every_test_named_on_the_page_exists() -> None:
    """Each test and test class that the page cites is in this folder, of overlapped sources, or of Windows' names."""
    names = set()
    elsewhere = ("transport/test_overlapped*.py", "win32/test_waits.py")
    for path in [*HERE.glob("test_*.py"), *chain.from_iterable(map(HERE.parent.glob, elsewhere))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
    cited = set(re.findall(r"`(test_\w+|Test\w+)`", PAGE.read_text(encoding="utf-8")))
    assert cited - names == set()
    assert len(cited) > 150
