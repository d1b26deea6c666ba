"""The pages of the site: their examples run, their links lead somewhere, and each page is in the navigation."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from engine.testing import LIMIT

from .strict import check_by_mypy, check_by_pyright

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Pages whose code needs keys, registries or several machines: each with the test that it has of its own.
ELSEWHERE = {"security.md": "test_security_page.py"} | {
    page: "test_scaling_pages.py" for page in PAGES if page.startswith("scaling/")
}


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


# Pages about a library that the extra `test` has, and an older environment may lack.
NEEDS = {"how-to/logging.md": "structlog"}
PROGRAMS = [
    page
    for page in PAGES
    if BLOCK.search(text_of(page)) and page not in ELSEWHERE and (page not in NEEDS or find_spec(NEEDS[page]))
]

# The page whose code is tests.
TESTS = "how-to/testing.md"
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:callport", "-p", "engine.testing.plugin")


@pytest.mark.timeout(10 * LIMIT)
@pytest.mark.parametrize("page", PROGRAMS)
def test_code(page: str, tmp_path: Path) -> None:
    """The code of a page is one program, which runs from its first block to its last without a warning; or tests."""
    program = tmp_path / "program.py"
    program.write_text("\n".join(BLOCK.findall(text_of(page))), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", *(PYTEST if page == TESTS else ()), str(program)],
        capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, timeout=5 * LIMIT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert page != TESTS or re.search(r"^\d+ passed in", done.stdout, re.MULTILINE)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs of the pages, each a module."""
    folder = tmp_path_factory.mktemp("pages")
    for page in PROGRAMS:
        name = f"page_{page.removesuffix('.md').replace('/', '_').replace('-', '_')}.py"
        (folder / name).write_text("\n".join(BLOCK.findall(text_of(page))), encoding="utf-8")
    return folder


@pytest.mark.timeout(10 * LIMIT)
class TestTypes:
    """The programs of the pages are clean for strict type checkers."""

    def test_mypy(self, programs: Path) -> None:
        """mypy --strict finds nothing but that contracts have no bodies."""
        check_by_mypy(programs, "--disable-error-code=empty-body")

    def test_pyright(self, programs: Path) -> None:
        """pyright, in its strict mode, finds nothing."""
        check_by_pyright(programs)


def test_code_that_runs_elsewhere() -> None:
    """What other tests try of the pages is there."""
    assert all((ROOT / "tests" / test).exists() for test in ELSEWHERE.values())


@pytest.mark.parametrize("page", PAGES)
def test_links(page: str) -> None:
    """A link within the site leads to a file."""
    for target in LINK.findall(re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)):
        path = target.partition("#")[0]
        if path and "://" not in path:
            assert ((DOCS / page).parent / path).exists(), f"{page} points to {target}"


def test_each_page_is_in_the_navigation() -> None:
    """A reader finds every page, and none is named that is not there."""
    named = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(named) == PAGES
