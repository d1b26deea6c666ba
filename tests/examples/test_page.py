"""The page of examples."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")


def test_each_example_is_listed() -> None:
    """The page has each example that there is, and no other."""
    there = {
        path.name + "/" * path.is_dir() for path in (ROOT / "examples").iterdir() if not path.name.startswith("__")
    }
    assert set(re.findall(r"^\| `([\w./]+)` \|", PAGE, re.MULTILINE)) == there
