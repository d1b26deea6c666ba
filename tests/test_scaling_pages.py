"""The pages on several servers: their code is Python, what it imports is there, and each page is linked."""

import ast
import importlib
import re
from pathlib import Path

import pytest

PAGES = Path(__file__).resolve().parent.parent / "docs" / "scaling"
BLOCKS = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in sorted(PAGES.glob("*.md"))
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]


@pytest.mark.parametrize("code", BLOCKS)
def test_code(code: str) -> None:
    """Each block compiles, and imports from the library what the library has."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] == "engine":
            if node.module == "engine.dask":
                pytest.importorskip("distributed", reason="distributed is not installed")
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


def test_links() -> None:
    """The first page links all others, and no page one that is not there."""
    linked = {
        page.name: set(re.findall(r"\]\(([\w.-]+\.md)", page.read_text(encoding="utf-8")))
        for page in PAGES.glob("*.md")
    }
    assert linked["README.md"] == linked.keys() - {"README.md"}
    assert set().union(*linked.values()) <= linked.keys()
