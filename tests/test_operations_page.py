"""The page on operations has each limit of a server, and each of its numbers."""

import inspect
import re
from pathlib import Path

import engine
from engine import Server, ServerStatistics
from transport import LinkOptions

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def first_cells(heading: str) -> set[str]:
    """The names in the first column of the table below a heading."""
    section = PAGE.partition(f"## {heading}")[2].partition("\n## ")[0]
    return {
        name for row in re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }


def test_each_limit_exists() -> None:
    """What the page calls an option is one of the server's, or of its links; no limit in bytes or calls is left out."""
    options = set(inspect.signature(Server).parameters) | set(LinkOptions.__struct_fields__)
    listed = first_cells("Limits, and how to choose them") - {"Server"}
    assert listed <= options
    assert {name for name in options if name.startswith("max_")} - {"max_queued"} <= listed


def test_each_number_is_explained() -> None:
    """The fields of the statistics are those of the page."""
    assert first_cells("What the numbers mean") == set(ServerStatistics.__struct_fields__)


def test_each_name_exists() -> None:
    """So do methods of the server and names of the library that the page speaks of."""
    for name in re.findall(r"`server\.(\w+)", PAGE):
        assert hasattr(Server, name), name
    assert hasattr(engine, "Health")
