"""What pages say of how the library is packaged is so."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
INSTALL = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
STABILITY = (ROOT / "docs" / "stability.md").read_text(encoding="utf-8")
OURS = {"test", "docs", "package", "dev"}  # For work on the library itself.


def test_extras() -> None:
    """Each extra is on the page, and the page has no other."""
    table = set(re.findall(r"^\| `([\w-]+)` \|", INSTALL, re.MULTILINE))
    assert table == set(PROJECT["optional-dependencies"]) - OURS
    assert all(f"`{extra}`" in INSTALL for extra in OURS)


def test_pythons() -> None:
    """The Pythons of the page, of the classifiers and of `make test-all` are the same, from the oldest allowed."""
    classified = re.findall(
        r"Programming Language :: Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE
    )
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    tried = re.findall(r"^VERSIONS := (.*)$", makefile, re.MULTILINE)[0].split()
    said = re.findall(r"^CPython (.*)\. One", STABILITY, re.MULTILINE)[0].replace(" and ", ", ").split(", ")
    assert classified == tried == said
    assert PROJECT["requires-python"] == f">={classified[0]}"


def test_modules_that_are_promised() -> None:
    """The modules whose names are promised are there, and have an `__all__` or are documented as a whole."""
    row = next(line for line in STABILITY.splitlines() if line.startswith("| names in `__all__`"))
    named = re.findall(r"`((?:engine|transport)[\w.]*)`", row)
    assert len(named) > 8
    for name in named:
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), name
