"""Where the time of a scenario goes: py-spy looks at its processes from outside while they run.

py-spy slows nothing down and sees all threads, and the C frames too if asked. It needs the right to look into
other processes (root, or a container with SYS_PTRACE).
"""

import shutil
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from perf.lab import Effort, Lab
from perf.scenario import Scenario

SECONDS = 4.0  # For each figure: at 500 looks a second some thousand looks.
RATE = 500
ROWS = 25


def profile(scenario: Scenario, subject: str, native: bool, folder: Path, console: Console) -> int:
    """Run a scenario once under py-spy; print where its processes were, and leave flame graphs."""
    command = _py_spy()
    if subject not in scenario.subjects:
        raise ValueError(f"{scenario.name} has no subject {subject!r}; it has {', '.join(scenario.subjects)}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    looking = [command, "record", "--rate", str(RATE), "--format", "raw", "--threads"]
    looking.append("--native" if native else "--nonblocking")  # C frames can only be seen of a process at rest.

    def prefix(target: str) -> list[str]:
        name = target.removeprefix("perf.").replace(":", ".")
        return [*looking, "--output", str(folder / f"{name}.raw"), "--"]

    with tempfile.TemporaryDirectory(prefix="perf-") as scratch:
        figures = scenario.run(Lab(Effort("quick", SECONDS, 1), Path(scratch), prefix=prefix), subject)
    console.print("  ".join(f"{name} {value:,.4g}" for name, value in figures.items()))
    for path in sorted(folder.glob("*.raw")):
        console.print(_table(path))
    console.print(f"stacks in {folder} (one line a stack: for flamegraph.pl, speedscope.app, inferno)")
    return 0


def _py_spy() -> str:
    beside = Path(sysconfig.get_path("scripts")) / "py-spy"
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise ValueError("py-spy is not installed: pip install 'callport[perf]'")
    return found


def _table(path: Path) -> Table:
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in path.read_text(errors="replace").splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [frame for frame in stack.split(";") if not frame.startswith(("process ", "thread ("))]
        if not frames:
            continue
        own[frames[-1]] += int(count)
        for frame in set(frames):
            within[frame] += int(count)
    total = max(1, own.total())
    table = Table(title=f"{path.stem}: {total} looks", title_justify="left", box=None)
    table.add_column("own", justify="right")
    table.add_column("with callees", justify="right")
    table.add_column("where")
    for frame, looks in own.most_common(ROWS):
        table.add_row(f"{looks / total:.1%}", f"{within[frame] / total:.1%}", frame)
    return table
