"""The page of semantics names tests that exist."""

import ast
import re

from .helpers import ROOT

PAGE = ROOT / "docs" / "semantics" / "async-rpc.md"
FOLDERS = ("rpc", "lifecycle", "pool", "processes", "transport")


def test_every_test_named_on_the_page_exists() -> None:
    """Each test and test class that the page cites is one of calls, of processes, of the pool or of the transport."""
    names = set()
    for path in [path for folder in FOLDERS for path in ROOT.glob(f"tests/{folder}/**/test_*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
    cited = set(re.findall(r"`(test_\w+|Test\w+)`", PAGE.read_text(encoding="utf-8")))
    assert cited - names == set()
    assert len(cited) > 250
