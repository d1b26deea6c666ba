"""Running: rounds, turns, missing subjects, and a server that lies."""

import json
from pathlib import Path
from typing import Any

import pytest

from perf import runner
from perf.children import ChildFailed
from perf.cli import main
from perf.lab import EFFORTS, Effort, Lab
from perf.record import Record
from perf.scenario import Against, Figures, Scenario


class Silent:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def begin(self, scenario: Scenario, steps: int) -> None:
        """Keep how many steps are ahead."""
        self.ahead = steps

    def step(self, scenario: Scenario, subject: str, done: float) -> None:
        """Keep the step."""
        self.steps.append(done)

    def end(self, scenario: Scenario, record: Record) -> None:
        """Nothing more."""


def made(ran: list[str], missing: str | None = None) -> Scenario:
    """Return a scenario that measures nothing, and notes which subject it ran."""

    def run(lab: Lab, subject: str) -> Figures:
        ran.append(subject)
        return {"p50_us": float(len(ran))}

    return Scenario(
        "made_up", run, ("engine", "raw", "peer"), (Against("engine", "raw"),),
        missing=lambda subject: "it is not installed" if subject == missing else None,
    )  # fmt: skip


def test_subjects_take_turns_and_every_other_round_goes_backwards() -> None:
    """Rounds are interleaved; samples stay in the order of the rounds."""
    ran: list[str] = []
    watcher = Silent()
    record = runner.run([made(ran)], EFFORTS["quick"], watcher)
    assert ran == ["engine", "raw", "peer", "peer", "raw", "engine", "engine", "raw", "peer"]
    assert [result.samples for result in record.results] == [[1, 6, 7], [2, 5, 8], [3, 4, 9]]
    assert watcher.ahead == 9
    assert watcher.steps == list(range(9))


def test_a_missing_subject_is_said_to_be_missing() -> None:
    """It is not run, has no figures, and the record says why."""
    ran: list[str] = []
    record = runner.run([made(ran, missing="peer")], EFFORTS["quick"], Silent(), rounds=1)
    assert ran == ["engine", "raw"]
    assert [(entry.subject, entry.reason) for entry in record.missing] == [("peer", "it is not installed")]


def test_a_wrong_answer_fails_the_run(tmp_path: Path) -> None:
    """A server that changes one byte in a hundred answers is found out, in either way of calling."""
    lab = Lab(Effort("quick", 0.05, 1), tmp_path)
    questions: dict[str, dict[str, Any]] = {"latency": {}, "throughput": {"outstanding": [16]}}
    for question, settings in questions.items():
        with pytest.raises(ChildFailed, match="WrongAnswer"):
            with lab.server("tests.perf.lying") as server:
                lab.measure(f"perf.echo:{question}", server, subject="tests.perf.lying", **settings)


def test_the_command_line_runs_a_scenario_and_saves_its_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run latency --json FILE` measures us and the floor, prints a table, and saves both."""
    monkeypatch.setattr("perf.cli.RECORD", tmp_path / "latest.json")
    assert main(["run", "latency", "--quick", "--rounds", "1", "--json", str(tmp_path / "a.json")]) == 0
    written = json.loads((tmp_path / "a.json").read_text())
    measured = {(result["subject"], result["metric"]) for result in written["results"]}
    assert {
        ("engine", "p50_us"),
        ("engine", "p99_us"),
        ("raw-zmq", "p50_us"),
        ("raw-zmq", "p99_us"),
    } <= measured
    ratio = next(r for r in written["ratios"] if r["metric"] == "p50_us" and r["subject"] == "engine")
    assert ratio["against"] == "raw-zmq"
    assert ratio["median"] > 0
    assert "p50_us" in capsys.readouterr().out
    assert (tmp_path / "latest.json").exists()


@pytest.mark.parametrize("wrong", [["run", "no_such"], ["run", "--rounds", "0"], ["compare", "none.json", "none.json"]])
def test_what_cannot_be_done_is_said(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong name, number or file gives exit code 2 and a word of explanation."""
    assert main(wrong) == 2
    assert capsys.readouterr().err


def test_what_a_subject_could_not_measure_is_said_once() -> None:
    """Of a figure that cannot be had on this machine, the record says which and why."""

    def run(lab: Lab, subject: str) -> Figures:
        lab.lacks("wakes", "nobody counts them")
        return {"p50_us": 1.0}

    record = runner.run([Scenario("made_up", run, ("engine",))], EFFORTS["quick"], Silent(), rounds=2)
    assert [(entry.subject, entry.reason) for entry in record.missing] == [("engine: wakes", "nobody counts them")]
