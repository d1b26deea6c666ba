"""The page of semantics names tests that exist."""

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "semantics" / "thread-pool.md"


def test_every_test_that_the_page_names_exists() -> None:
    """Each `test_...` and `Test...` on the page is a test in this folder."""
    source = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py"))
    existing = set(re.findall(r"(?:def|class) (test_\w+|Test\w+)", source)) | {"TestPoolModel"}
    named = set(re.findall(r"`(test_\w+|Test\w+)`", PAGE.read_text(encoding="utf-8")))
    assert named - existing == set()
