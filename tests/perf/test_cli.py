"""The command line: what it needs, what it writes where, and what it shows on a narrow terminal."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rich")

from rich.console import Console
from rich.table import Table

from perf import cli, goals
from perf import record as records
from perf.compare import compare
from perf.record import Record
from perf.scenario import Against
from perf.terminal import change_table, goal_table, outstanding_table, scenario_table, spell

NARROW = 80
ROOT = Path(__file__).resolve().parents[2]


def test_without_the_extra() -> None:
    """Where what draws tables is not installed, it says what to install, in one line."""
    script = (
        "import runpy, sys\nsys.modules['rich'] = None\nsys.argv = ['perf', 'list']\n"
        "runpy.run_module('perf', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr == "the harness needs rich: pip install 'callport[perf]'\n"


def test_it_writes_below_the_current_folder(tmp_path: Path) -> None:
    """A run and its page are kept below the current folder, not where the harness is installed, or where one says."""
    options = cli.parser().parse_args
    assert options(["run"]).out == options(["profile", "x"]).out == Path("perf-report")
    assert options(["run", "--out", "elsewhere"]).out == Path("elsewhere")
    assert options(["report"]).record == Path("perf-report/latest.json")


def test_where_it_may_not_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run whose record could not be kept ends before anything is measured, and says what to do."""
    (tmp_path / "file").touch()
    taken = str(tmp_path / "file")
    for arguments in (["--out", taken], ["--out", str(tmp_path), "--json", f"{taken}/x"]):
        assert cli.main(["run", "--quick", *arguments]) == 2
        assert re.search(r"file\S* cannot be written \(.+\): say where by --out or --json", capsys.readouterr().err)


def test_a_page_is_written_beside_its_record(tmp_path: Path) -> None:
    """`report` writes the page beside the record, unless it is told where."""
    pytest.importorskip("matplotlib")
    results = records.results_of("latency", {(who, "p50_us"): [1.0, 2.0] for who in ("engine", "raw-zmq")})
    records.save(Record({}, {}, {}, results), tmp_path / "latest.json")
    for arguments, page in (([], "index.html"), (["--out", str(tmp_path / "other.html")], "other.html")):
        done = subprocess.run(
            [sys.executable, "-m", "perf", "report", str(tmp_path / "latest.json"), *arguments],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "</html>" in (tmp_path / page).read_text(encoding="utf-8")


def made() -> Record:
    """A record with long names, large figures, and ratios to several peers."""
    subjects = {"engine": 1.0, "raw-zmq": 1.3, "engine-loopback": 0.7, "grpc-aio-of-another-kind": 11.7}
    samples = {
        (subject, metric): [factor * value * drift for drift in (1.0, 1.21, 1.47)]
        for subject, factor in subjects.items()
        for metric, value in (("calls_per_s_of_4096_outstanding", 1_234_567.0), ("cpu_us_per_call_of_4096", 12.34))
    }
    results = records.results_of("throughput", samples)
    ratios = records.ratios_of(results, [Against("engine", other) for other in subjects if other != "engine"])
    return Record({}, {}, {}, results, ratios)


def drawn(table: Table) -> list[str]:
    """The lines of the table on a narrow terminal."""
    out = io.StringIO()
    Console(width=NARROW, file=out).print(table)
    return out.getvalue().splitlines()


def test_no_figure_is_cut_off() -> None:
    """On 80 columns each figure of the tables is there in full; what is too wide are names, which are folded."""
    record = made()
    shown = drawn(scenario_table(record, "throughput"))
    for result in record.results:
        assert any(spell(result.median) in line for line in shown)
        assert any(f"{spell(min(result.samples))} - {spell(max(result.samples))}" in line for line in shown)
    words = " ".join(shown)
    for ratio in record.ratios:
        assert spell(ratio.low) in words and spell(ratio.high) in words
    changes = list(compare(record, record))
    lines = drawn(change_table(changes))
    for change in changes:
        figures = rf"{re.escape(spell(change.before))} .*{change.factor:.3f} .*{change.p:.3f}"
        assert any(re.search(figures, line) for line in lines)
    for line in (*shown, *lines, *drawn(goal_table(goals.verdicts(record)))):
        assert "\u2026" not in line and len(line) <= NARROW


def test_counts_have_a_column_for_each_number_of_outstanding_calls() -> None:
    """Where a scenario asks for it, a row is a subject's metric, and each number of outstanding calls a column."""
    samples = {("engine", f"client_c_calls_{number}"): [100.0 / number] for number in (1, 4, 16)}
    record = Record({}, {}, {}, records.results_of("counts", samples))
    lines = drawn(outstanding_table(record, "counts"))
    assert any(re.search(r"1 +4 +16", line) for line in lines)
    assert any(re.search(r"engine +client_c_calls +100 +25.0 +6.25", line) for line in lines)
