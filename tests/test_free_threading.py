"""The page on builds without the interpreter lock names all that is relied on."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "free-threading.md"

# What an assumption that goes beyond locks speaks of.
WITHOUT_LOCK = re.compile(r"atomic|reorder|bytecode|fence")


def assuming() -> set[str]:
    """The files whose header assumes more than that locks work."""
    found = set()
    for folder in ("engine", "transport"):
        for path in (ROOT / folder).rglob("*.py"):
            header = path.read_text(encoding="utf-8").split('"""')[1:2]
            assumed = re.search(r"^Assumes:.*?(?=\n\n|\Z)", header[0], re.DOTALL | re.MULTILINE) if header else None
            if assumed and WITHOUT_LOCK.search(assumed.group(0)):
                found.add(path.relative_to(ROOT).as_posix())
    return found


def test_each_file_that_assumes_something_is_on_the_page() -> None:
    """Every file that relies on more than locks is in the page's table, and no other one."""
    listed = set(re.findall(r"^\| `([\w/]+\.py)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == assuming()
