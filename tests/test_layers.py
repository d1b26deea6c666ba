"""The arrows between the parts: who may import whom, read from the source against one table.

Imports count wherever they stand, inside functions and under `TYPE_CHECKING` too: a lazy arrow is an arrow.
"""

import ast
import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Imports of anything else (the standard library, msgspec, ...) are free.
GOVERNED = frozenset({"engine", "transport", "perf", "examples", "tests", "zmq"})

# A module or package, and all that it may import besides itself. The most specific row that holds the
# importing module counts; an entry on the right stands for everything inside it.
ARROWS: dict[str, tuple[str, ...]] = {
    "engine": ("engine", "transport"),
    "engine.status": (),
    "engine.errors": ("engine.status", "transport.errors", "transport.foreign"),
    "engine.lifecycle": ("transport.lifecycle", "transport.log"),
    # What both packages need stands in the one that imports nothing of the other.
    "engine.kernel": (
        "engine.errors",
        "engine.lifecycle",
        "engine.status",
        "transport.errors",
        "transport.foreign",
        "transport.lock",
        "transport.log",
        "transport.realtime",
        "transport.service",
    ),
    "engine.pool": (
        "engine.errors",
        "engine.kernel",
        "engine.lifecycle",
        "engine.status",
        "transport.foreign",
        "transport.log",
        "transport.realtime",
        "transport.service",
    ),
    "engine.rpc": ("engine.pool", "engine.kernel", "engine.errors", "engine.lifecycle", "engine.status", "transport"),
    # The ground that the rooms of calls stand on, from the lowest up, and the rooms that both sides share.
    "engine.rpc.errors": ("engine.errors", "engine.status"),
    "engine.rpc.state": ("engine.errors", "engine.rpc.errors", "transport"),
    "engine.rpc.address": ("engine.errors", "engine.kernel.checks", "transport"),
    "engine.rpc.context": ("engine.errors", "engine.lifecycle"),
    "engine.rpc.wire_types": ("engine.errors", "engine.rpc.context", "transport"),
    "engine.rpc.notify": ("engine.errors", "engine.kernel", "engine.pool", "transport.foreign"),
    "engine.rpc.call": (
        "engine.errors",
        "engine.kernel",
        "engine.lifecycle",
        "engine.rpc.errors",
        "engine.rpc.notify",
        "engine.rpc.pipes.pipe",
        "engine.rpc.state",
        "engine.status",
        "transport",
    ),
    "engine.rpc.channel": ("engine.kernel", "transport"),
    "engine.rpc.limits": (
        "engine.errors",
        "engine.kernel.checks",
        "engine.rpc.errors",
        "engine.rpc.pipes.shipment",
        "transport",
    ),
    "engine.rpc.serving": (),
    "engine.rpc.interceptors": ("engine.errors", "engine.kernel.checks", "transport.foreign"),
    "engine.rpc.contract": (
        "engine.errors",
        "engine.kernel",
        "engine.rpc.address",
        "engine.rpc.call",
        "engine.rpc.context",
        "engine.rpc.errors",
        "engine.rpc.notify",
        "engine.rpc.pipes",
        "engine.rpc.wire_types",
        "transport",
    ),
    "engine.rpc.pipes": (
        "engine.errors",
        "engine.kernel",
        "engine.lifecycle",
        "engine.rpc.call",
        "engine.rpc.channel",
        "engine.rpc.errors",
        "engine.rpc.notify",
        "engine.rpc.wire_types",
        "engine.status",
        "transport",
    ),
    # Client and server import nothing of each other.
    "engine.rpc.client": (
        "engine.errors",
        "engine.kernel",
        "engine.lifecycle",
        "engine.pool",
        "engine.rpc.address",
        "engine.rpc.call",
        "engine.rpc.channel",
        "engine.rpc.context",
        "engine.rpc.contract",
        "engine.rpc.errors",
        "engine.rpc.interceptors",
        "engine.rpc.limits",
        "engine.rpc.notify",
        "engine.rpc.pipes",
        "engine.rpc.serving",
        "engine.rpc.state",
        "engine.rpc.wire_types",
        "engine.status",
        "transport",
    ),
    "engine.rpc.server": (
        "engine.errors",
        "engine.kernel",
        "engine.lifecycle",
        "engine.pool",
        "engine.rpc.address",
        "engine.rpc.channel",
        "engine.rpc.context",
        "engine.rpc.contract",
        "engine.rpc.errors",
        "engine.rpc.interceptors",
        "engine.rpc.limits",
        "engine.rpc.notify",
        "engine.rpc.pipes",
        "engine.rpc.serving",
        "engine.rpc.wire_types",
        "engine.status",
        "transport",
    ),
    # What stands on calls: who the servers are, several processes of one, and what tests and telemetry are made of.
    "engine.resolvers": ("engine.errors", "engine.kernel", "engine.rpc", "transport"),
    "engine.processes": ("engine.errors", "engine.kernel", "engine.resolvers", "engine.rpc", "transport"),
    "engine.testing": ("engine.errors", "engine.kernel", "engine.lifecycle", "engine.pool", "engine.rpc", "transport"),
    "engine.call_status": ("engine.errors", "engine.rpc.errors", "engine.status"),
    "engine.otel": (
        "engine.call_status",
        "engine.errors",
        "transport.foreign",
        "transport.log",
        "transport.realtime",
    ),
    "engine.prometheus": (
        "engine.call_status",
        "engine.errors",
        "transport.foreign",
        "transport.log",
        "transport.realtime",
    ),
    "engine.dask": (
        "engine.errors",
        "engine.kernel.checks",
        "engine.rpc.client",
        "engine.rpc.server",
        "transport.foreign",
        "transport.log",
    ),
    "engine.__main__": ("engine.cli",),
    # How a user's object is shown, what guards state and what is a callback are nobody's public names.
    "engine.win32": ("transport.foreign", "engine.kernel.checks", "engine.kernel.lock"),
    "transport": ("zmq",),
    "transport.errors": (),
    "transport.foreign": (),
    "transport.lifecycle": ("transport.foreign",),
    "transport.lock": ("transport.errors", "transport.lifecycle"),
    "transport.realtime": (),
    "transport.importing": (),
    "transport.chance": (),
    "transport.service": ("transport.lock", "transport.realtime"),
    "transport.log": ("transport.foreign", "transport.service", "transport.lifecycle"),
    "transport.endpoint": ("transport.errors", "transport.foreign"),
    "transport.frames": ("transport.errors",),
    "transport.wire": ("transport.frames", "transport.errors", "transport.foreign"),
    "transport.link": (
        "transport.lock",
        "transport.lifecycle",
        "transport.endpoint",
        "transport.errors",
        "transport.foreign",
        "transport.frames",
    ),
    "transport.loopback": (
        "transport.lock",
        "transport.lifecycle",
        "transport.link",
        "transport.endpoint",
        "transport.errors",
        "transport.frames",
    ),
    "transport.addresses": (),
    "transport.security": ("transport.errors", "transport.foreign", "transport.importing", "transport.lock", "zmq"),
    "transport.descriptors": ("transport.lifecycle", "transport.lock", "transport.log", "transport.service"),
    "transport.unix": ("transport.descriptors", "transport.endpoint", "transport.errors"),
    "transport.lookup": ("transport.endpoint", "transport.errors", "transport.log", "transport.service"),
    "transport.inherited": ("transport.endpoint", "transport.errors", "transport.lookup"),
    "transport.zmq_link": (
        "transport.chance",
        "transport.addresses",
        "transport.inherited",
        "transport.descriptors",
        "transport.lock",
        "transport.lifecycle",
        "transport.link",
        "transport.lookup",
        "transport.log",
        "transport.endpoint",
        "transport.errors",
        "transport.foreign",
        "transport.frames",
        "transport.realtime",
        "transport.service",
        "transport.unix",
        "zmq",
    ),
    "transport.native_link": (
        "transport.chance",
        "transport.addresses",
        "transport.inherited",
        "transport.descriptors",
        "transport.link",
        "transport.lifecycle",
        "transport.log",
        "transport.service",
        "transport.lookup",
        "transport.endpoint",
        "transport.errors",
        "transport.frames",
        "transport.realtime",
        "transport.unix",
    ),
    "transport.overlapped": (
        "transport.errors",
        "transport.foreign",
        "transport.lifecycle",
        "transport.lock",
        "transport.log",
        "zmq",
    ),
    "perf": ("zmq",),
    "examples": ("zmq",),
    # The command line is a user of the library.
    "engine.cli": (),
    # Peers written by hand speak the protocol; what it is made of is nobody else's public name.
    "tests": (
        "perf",
        "examples",
        "zmq",
        "transport.errors",
        "transport.frames",
        "transport.wire",
        "transport.native_link.framing",
    ),
}

# Users of the library, who see these modules and in them no name that begins with an underscore.
OUTSIDE = frozenset({"engine.cli", "engine.otel", "engine.prometheus", "engine.win32", "perf", "examples", "tests"})
PUBLIC = frozenset(
    {
        "engine",
        "engine.cli",
        "engine.dask",
        "engine.lifecycle",
        "engine.processes",
        "engine.resolvers",
        "engine.otel",
        "engine.prometheus",
        "engine.testing",
        "engine.testing.plugin",
        "engine.win32",
        "transport",
    }
)

# Tests that look inside, as paths under tests/, each with the reason why no public name would do.
WHITE_BOX: dict[str, str] = {
    "lock_order.py": "it looks at every lock there is, and no public name lists them",
    "test_lock_order.py": "as above",
    "test_architecture_page.py": "it holds the page to tables of the code that are nobody's public names",
    "lifecycle/holding.py": "it holds every lock there is, and no public name lists them",
    "rpc/server/test_fairness.py": "whether a call takes a worker, and what is known of its routine, has no name",
    "rpc/server/test_parting.py": "a thread stands still between two lines of the library, which nothing public can do",
    "rpc/server/test_turns.py": "as above",
    "rpc/server/test_tls.py": "one client calls itself by another's name, which is chosen at random",
    "rpc/client/test_arrived.py": "what arrived lies there until a thread looks: no public name can bring that about",
    "kernel/interrupted.py": "as for the tests of the driver, below",
    "transport/poll_sets.py": "as below: whether a thread polls has no public name",
    "kernel/test_driver.py": "sources are registered by the transport; no public name reaches the driver alone",
    "transport/test_foreign.py": "how a foreign object is told of shows elsewhere in the midst of other texts",
    "transport/test_service.py": "how often a service's function runs shows elsewhere in a thread that never ends",
    "transport/test_descriptors.py": "when a thread looks, and what is free again by then, no public name decides",
    "transport/test_addresses.py": "as the next: it would take a network of IPv6",
    "transport/test_zmq_bounds.py": "as the next",
    "transport/native_link/test_bounds.py": "its bounds take many seconds or megabytes to reach, and are no options",
    "transport/native_link/test_tls.py": "as above",
    "pool/test_harvest.py": "as above",
    "pool/test_run_time.py": "what was learned shows elsewhere in how long others wait, which depends on the machine",
    "rpc/test_new_notification.py": "a new way to notify is a class, and what it derives from has no public name",
    "rpc/client/arrived.py": "as above",
    "rpc/client/test_spinning.py": "how busy a machine is and what follows from it has no public name",
    "rpc/client/test_attention.py": "what is attended has no public name: it is seen by a thread that sleeps no more",
    "rpc/server/test_entering.py": "what a server has learned of its routines shows elsewhere in how long others wait",
    "rpc/server/test_turns_shortage.py": "which allocation fails, and where a client is after it, has no public name",
    "scheduled.py": "an explorer takes the steps of the scheduler's own objects, one by one",
    "rpc/server/test_turns_model.py": "as above",
    "rpc/server/test_turns_busy.py": "where a client is has no public name",
    "pool/test_seats_model.py": "as above",
    "kernel/test_leadership_model.py": "as above",
    "pool/programs.py": "a fork finds the locks of futures held, which only who holds them can bring about",
    "pool/test_races.py": "a race is reached by putting a lock that lies in the place of the pool's own",
}


@functools.lru_cache(maxsize=1)  # Each file is asked for several times in a row.
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))))


class Tree:
    """The Python files below a folder that belong to the project, by module name."""

    def __init__(self, root: Path) -> None:
        self.files: dict[str, Path] = {}
        for top in sorted(GOVERNED):
            for path in sorted((root / top).rglob("*.py")):
                parts = path.relative_to(root).with_suffix("").parts
                self.files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        # Packages without an `__init__.py` are modules to import, too.
        self.modules = {name.rsplit(".", depth)[0] for name in self.files for depth in range(name.count(".") + 1)}

    def imports(self, importer: str) -> Iterator[tuple[int, str, str]]:
        """Yield (line, module, name) of each import; name is "" where the module itself is imported."""
        path = self.files[importer]
        package = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
        for node in nodes(path):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name, ""
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    above = package.split(".")[: package.count(".") + 2 - node.level]
                    base = ".".join([*above, base] if base else above)
                for alias in node.names:
                    if f"{base}.{alias.name}" in self.modules:
                        yield node.lineno, f"{base}.{alias.name}", ""
                    else:
                        yield node.lineno, base, alias.name

    def reaches(self, importer: str) -> Iterator[tuple[int, str, str]]:
        """Yield (line, module, name) of each `module.name` in the source, for modules of the library."""
        imported = {module.partition(".")[0] for _, module, name in self.imports(importer) if not name}
        for node in nodes(self.files[importer]):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute | ast.Name):
                module = ast.unparse(node.value)
                if module in self.modules and module.partition(".")[0] in imported - OUTSIDE:
                    yield node.lineno, module, node.attr


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def hidden(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def violations(root: Path) -> list[str]:
    """Return one line for each arrow in the tree that the table does not have."""
    tree = Tree(root)
    found = []
    for importer, path in tree.files.items():
        where = path.relative_to(root).as_posix()
        if where.removeprefix("tests/") in WHITE_BOX and within(importer, "tests"):
            continue
        row = max((row for row in ARROWS if within(importer, row)), key=len)
        outside = row in OUTSIDE
        for line, module, name in tree.imports(importer):
            if module.partition(".")[0] not in GOVERNED:
                continue
            allowed = any(within(module, entry) for entry in (row, *ARROWS[row]))
            if not allowed and not (outside and module in PUBLIC):
                found.append(f"{where}:{line}: {importer} imports {module}")
            elif outside and module in PUBLIC and hidden(name):
                found.append(f"{where}:{line}: {importer} imports the private {module}.{name}")
        if outside:
            for line, module, name in tree.reaches(importer):
                inner = f"{module}.{name}"
                if hidden(name) or (inner in tree.modules and inner not in PUBLIC):
                    found.append(f"{where}:{line}: {importer} reaches into {inner}")
    return found


def test_imports_follow_the_arrows() -> None:
    """Every import in the project is one that the table allows."""
    assert violations(ROOT) == []


def rooms(tree: Tree) -> set[str]:
    """Return the packages of the library, and the files that stand beside them on the same floor."""
    modules = {name for name in tree.files if name.partition(".")[0] in ("engine", "transport")}
    packages = {name for name in modules if tree.files[name].name == "__init__.py"}
    floors = {name.rpartition(".")[0] for name in packages}
    return {name for name in modules if name in packages or name.rpartition(".")[0] in floors}


def test_each_room_has_its_row() -> None:
    """A package, or a file beside packages, that the table does not name could import whatever its folder may."""
    assert rooms(Tree(ROOT)) - ARROWS.keys() == set()


def in_circles(root: Path) -> set[str]:
    """Return the modules of the library that import themselves by way of others."""
    tree = Tree(root)
    library = [module for module in tree.files if within(module, "engine") or within(module, "transport")]
    arrows = {
        importer: {module for _, module, _ in tree.imports(importer) if module in tree.files} - {importer}
        for importer in library
    }
    found = set()
    for start in library:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for module in arrows.get(todo.pop(), ()):
                if module not in seen:
                    seen.add(module)
                    todo.append(module)
        if start in seen:
            found.add(start)
    return found


def test_no_circle() -> None:
    """No file imports itself by way of others, whether at run time, in a function or for an annotation."""
    assert in_circles(ROOT) == set()


def test_a_circle_is_found(tmp_path: Path) -> None:
    """A circle of three files is reported, one of them lazy; what leads to it is not in it."""
    lay(
        tmp_path,
        {
            "engine/one.py": "from engine import two\n",
            "engine/two.py": "def f():\n    from .three import x\n",
            "engine/three.py": "if x:\n    import engine.one\n",
            "engine/__init__.py": "from engine.one import x\n",
        },
    )
    assert in_circles(tmp_path) == {"engine.one", "engine.two", "engine.three"}


def test_long_files_say_why() -> None:
    """A file of the library with more than 500 lines says at its top why it is one file."""
    silent = [
        path.relative_to(ROOT).as_posix()
        for package in ("engine", "transport")
        for path in (ROOT / package).rglob("*.py")
        if (text := path.read_text(encoding="utf-8")).count("\n") > 500
        and "hence the length" not in (ast.get_docstring(ast.parse(text)) or "")
    ]
    assert silent == []


# Classes that share a name, because one is what another file sees of the other, or the other for a package's errors.
ONE_THING = frozenset({"Batch", "Lock", "Settable"})


def test_a_class_name_means_one_thing() -> None:
    """No two classes of the library have one name and two meanings."""
    bearers = Counter(
        node.name
        for package in ("engine", "transport")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, number in bearers.items() if number > 1} == ONE_THING


def test_the_table_names_what_exists() -> None:
    """No row of the table, public module or white-box test is a name that nothing bears any more."""
    modules = Tree(ROOT).modules
    assert {row for row in ARROWS if row not in modules} == set()
    assert {name for name in WHITE_BOX if not (ROOT / "tests" / name).is_file()} == set()


BAD_TREE = {
    "engine/kernel/port.py": ("import zmq\n", "engine.kernel.port imports zmq"),
    "engine/kernel/event.py": ("def f():\n    from engine.pool import work\n", "event imports engine.pool"),
    "engine/kernel/wait.py": ("from .. import rpc\n", "engine.kernel.wait imports engine.rpc"),
    "engine/pool/work.py": ("from engine.rpc.call import Call\n", "engine.pool.work imports engine.rpc.call"),
    "engine/pool/io.py": ("import zmq.utils\n", "engine.pool.io imports zmq.utils"),
    "engine/rpc/call.py": ("import perf\n", "engine.rpc.call imports perf"),
    "engine/rpc/contract/spec.py": ("from ..client import Client\n", "spec imports engine.rpc.client"),
    "engine/rpc/server/call.py": ("from ..client import client\n", "server.call imports engine.rpc.client"),
    "engine/win32/ports.py": ("from ..kernel import port\n", "win32.ports imports engine.kernel"),
    "transport/link.py": ("from . import zmq_link\n", "transport.link imports transport.zmq_link"),
    "transport/zmq_link.py": ("from engine import Event\n", "transport.zmq_link imports engine"),
    "transport/wire.py": ("if x:\n    from transport.link import Link\n", "wire imports transport.link"),
    "perf/floor.py": ("from engine.kernel.port import Port\n", "perf.floor imports engine.kernel.port"),
    "perf/scenarios/latency.py": ("import engine\nengine._x\n", "reaches into engine._x"),
    "examples/service.py": ("from engine import _secret\n", "imports the private engine._secret"),
    "tests/test_a.py": ("from transport import zmq_link\n", "tests.test_a imports transport.zmq_link"),
    "perf/scenarios/spoken.py": ("from transport import wire\n", "perf.scenarios.spoken imports transport.wire"),
    "tests/rpc/test_b.py": ("import engine\nengine.rpc.Call()\n", "reaches into engine.rpc"),
}

GOOD_TREE = {
    "engine/__init__.py": "from engine.kernel.port import Port\nfrom engine import rpc as _rpc\n",
    "engine/kernel/port.py": "import threading\nfrom ._locks import Lock\nfrom . import event\n",
    "engine/kernel/_locks.py": "",
    "engine/kernel/event.py": "from engine.kernel._locks import Lock\n",
    "engine/pool/work.py": "from ..kernel.port import Port\n",
    "engine/rpc/client.py": "import transport\nfrom ..pool import work\nfrom transport.wire import decode\n",
    "engine/win32.py": "from . import Port\nfrom transport import connect\n",
    "transport/__init__.py": "from transport.zmq_link import connect\n",
    "transport/wire.py": "from .frames import encode\n",
    "transport/frames.py": "import msgspec\n",
    "transport/zmq_link.py": "import zmq\nfrom transport import link\n",
    "transport/link.py": "import transport.errors\n",
    "perf/floor.py": "import zmq\nimport engine.win32\nengine.Event().set()\nengine.__all__\n",
    "perf/run.py": "from perf._record import record\nfrom engine import Event, testing\n",
    "perf/_record.py": "",
    "tests/test_a.py": "from perf.floor import f\nfrom engine.testing import gate\nfrom .helpers import _g\n",
    "tests/helpers.py": "import transport\nfrom transport.wire import decode\n",
}


def lay(root: Path, tree: dict[str, str]) -> None:
    for name, source in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")


@pytest.mark.parametrize("name", BAD_TREE)
def test_a_forbidden_arrow_is_found(name: str, tmp_path: Path) -> None:
    """Each kind of forbidden import is reported, with its file, and nothing else is."""
    source, message = BAD_TREE[name]
    lay(tmp_path, dict.fromkeys(BAD_TREE, "") | {name: source})
    found = violations(tmp_path)
    assert len(found) == 1
    assert found[0].startswith(name + ":")
    assert message in found[0]


def test_allowed_arrows_are_left_alone(tmp_path: Path) -> None:
    """Nothing is reported of a tree that keeps to the table."""
    lay(tmp_path, GOOD_TREE)
    assert violations(tmp_path) == []


def test_a_white_box_test_may_look_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test on the white-box list may import anything."""
    lay(tmp_path, {"tests/kernel/test_inside.py": "from engine.kernel.driver import _poll\n"})
    assert len(violations(tmp_path)) == 1
    monkeypatch.setitem(WHITE_BOX, "kernel/test_inside.py", "made up")
    assert violations(tmp_path) == []
