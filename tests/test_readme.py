"""What the README shows runs, and prints what it says."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine import Call, CallbackInstance, Client, CompletionPort, Pipe, Server, ServerCall, Stream, ThreadPool
from engine.testing import LIMIT

from .strict import check_by_mypy, check_by_pyright

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
BLOCKS = BLOCK.findall(README)
IMPORT = "from contract import Thesaurus\n"


def block(word: str) -> str:
    """The example that has `word` in it."""
    (found,) = [text for text in BLOCKS if word in text]
    return str(found)


def example_of(page: str) -> str:
    """The one example of a how-to page."""
    (found,) = BLOCK.findall((ROOT / "docs" / "how-to" / f"{page}.md").read_text(encoding="utf-8"))
    return str(found)


def run(*code: str) -> list[str]:
    """Run code in an interpreter of its own, with all warnings as errors; return the lines that it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(code)], capture_output=True, text=True, cwd=ROOT, timeout=LIMIT
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


class TestExamples:
    """The examples of the README, as they stand there."""

    def test_service_and_client(self) -> None:
        """The contract, the service and the client: the reply is told by packet, and by the blocking twin."""
        contract = block("class Thesaurus(Interface")
        service, client = (block(word).replace(IMPORT, "") for word in ("class Words:", "with Client("))
        service = service.replace("listen(wait=True)", "listen()")
        inside = "".join(f"    {line}\n" for line in client.splitlines())
        assert run(contract, service + inside) == ["7 ['fast', 'swift']", "['fast', 'swift']"]

    def test_ports(self) -> None:
        """On the page of ports: a posted packet, one of a read and one of a process arrive on one port."""
        *packets, last = run(example_of("ports"))
        assert [line[:3] for line in sorted(packets)] == ["1 0", "2 5", "3 0"]
        assert last == "1"

    def test_pool(self) -> None:
        """On the page of the pool: each callback runs, and the executor computes."""
        assert sorted(run(example_of("pool"))) == ["1024", "handled work", "once", "signaled 0"]


@pytest.mark.parametrize("text", BLOCKS)
def test_is_python(text: str) -> None:
    """Each block that is called Python is Python."""
    compile(text, "README.md", "exec")


def test_every_way_to_notify() -> None:
    """The README, the table in notify.py and the error for anything else name each kind of object that is taken."""
    source = (ROOT / "engine" / "rpc" / "notify.py").read_text(encoding="utf-8")
    taken = source.partition("def snapshot(")[2]
    # The classes that are asked for, and their words in the texts. Without one: None, and what can be called.
    words = {"Event": "Event", "CompletionPort": "port", "Notification": "apc(", "CallbackNotification": "callable"}
    assert set(re.findall(r"isinstance\(notify, (\w+)\)", taken)) == set(words)
    error = taken.partition("raise InvalidArgumentType(")[2]
    assert all(word in error for word in ("None", *words.values()))
    page = README.partition("| `notify=` |")[2].partition("\n\n")[0].splitlines()[2:]
    table = source.partition("notify=   ")[2].partition("\n\n")[0].splitlines()[1:]
    for rows, nothing in ((page, "nothing"), (table, "None")):
        first = [re.split(r"  +|\|", row.strip("| "))[0] for row in rows]
        assert len(first) == len(words) + 1
        assert all(any(word in cell for cell in first) for word in (nothing, *words.values()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the examples, each a module."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "contract.py").write_text(block("class Thesaurus(Interface"), encoding="utf-8")
    for name, word in (("service", "class Words:"), ("client", "with Client(")):
        (folder / f"{name}.py").write_text(block(word), encoding="utf-8")
    return folder


@pytest.mark.timeout(10 * LIMIT)
class TestTypes:
    """The examples are clean for strict type checkers."""

    def test_mypy(self, folder: Path) -> None:
        """mypy --strict finds nothing."""
        check_by_mypy(folder)

    def test_pyright(self, folder: Path) -> None:
        """Nor does pyright, in its strict mode."""
        check_by_pyright(folder)


MODULES = ("engine", "engine.testing", "engine.resolvers", "engine.processes", "transport")
METHODS = (Client, Server, CompletionPort, Call, Pipe, ServerCall, Stream, ThreadPool, CallbackInstance)


def test_each_public_name_is_listed() -> None:
    """The list of the public API has each public name, and each method of the objects that are used most."""
    api = README.partition("[start:api]")[2].partition("[end:api]")[0]
    listed = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", api))))
    for module in MODULES:
        loaded = importlib.import_module(module)
        wanted = getattr(loaded, "__all__", None) or [
            name for name, value in vars(loaded).items() if getattr(value, "__module__", "") == module
        ]
        missing = {name for name in wanted if not name.startswith("_")} - listed
        assert not missing, f"{module}: {sorted(missing)}"
    for kind in METHODS:
        missing = {name for name in vars(kind) if not name.startswith("_")} - listed - {"send", "throw"}
        assert not missing, f"{kind.__name__}: {sorted(missing)}"


def test_each_link_leads_somewhere() -> None:
    """The pages that it points to are there."""
    for target in re.findall(r"\]\(([^)#\s]+)", README):
        assert (ROOT / target).exists(), target


def test_each_promise_has_a_test() -> None:
    """Each row of the table of guarantees names tests, classes of tests or files of tests, and these exist."""
    table = README.partition("## What is guaranteed")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (?!promise|---)(.*) \|(.*)\| (.*) \|$", table, re.MULTILINE)
    names = set()
    for path in ROOT.glob("tests/**/test_*.py"):
        names.add(path.name)
        names |= set(re.findall(r"^class (Test\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert len(rows) > 10
    for promise, _, tests in rows:
        cited = set(re.findall(r"`([\w.]+)`", tests))
        assert cited and cited <= names, promise
