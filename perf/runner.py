"""Runs scenarios: rounds of fresh processes, the subjects of each round interleaved.

Every other round goes through the subjects backwards, so that a machine that grows slower over a round is not
always slow for the same one.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from perf import record as records
from perf.lab import Effort, Lab
from perf.record import Missing, Record
from perf.scenario import Scenario


class Watcher(Protocol):
    """Told how a run goes on; `terminal` has one that draws bars."""

    def begin(self, scenario: Scenario, steps: int) -> None:
        """A scenario starts: `steps` runs are ahead."""
        ...

    def step(self, scenario: Scenario, subject: str, done: float) -> None:
        """`done` runs are over, counting the part of the present one, which is `subject`'s."""
        ...

    def end(self, scenario: Scenario, record: Record) -> None:
        """The scenario is over; its figures are in `record`."""
        ...


def run(
    scenarios: Sequence[Scenario],
    effort: Effort,
    watcher: Watcher,
    transport: str = "ipc",
    rounds: int | None = None,
) -> Record:
    """Run scenarios and return the record; `rounds` overrides how often. A failure raises `ChildFailed`."""
    record = Record(
        machine=records.machine(),
        versions=records.versions(),
        settings={
            "effort": effort.name,
            "transport": transport,
            "seconds": effort.seconds,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    for scenario in scenarios:
        _run_one(scenario, effort, watcher, transport, rounds, record)
    return record


def _run_one(
    scenario: Scenario, effort: Effort, watcher: Watcher, transport: str, rounds: int | None, record: Record
) -> None:
    present = []
    for subject in scenario.subjects:
        reason = scenario.missing(subject)
        if reason is None:
            present.append(subject)
        else:
            record.missing.append(Missing(scenario.name, subject, reason))
    if rounds is None:
        rounds = effort.rounds if scenario.rounds is None else effort.pick(*scenario.rounds)
    record.settings[f"{scenario.name}_rounds"] = rounds
    samples: dict[tuple[str, str], list[float]] = {}
    lacking: dict[str, str] = {}
    watcher.begin(scenario, rounds * len(present))
    done = 0
    with TemporaryDirectory(prefix="perf-") as scratch:
        for turn in range(rounds):
            for subject in present if turn % 2 == 0 else reversed(present):
                watcher.step(scenario, subject, done)
                lab = Lab(effort, Path(scratch), transport, _fraction(watcher, scenario, subject, done))
                for metric, value in scenario.run(lab, subject).items():
                    samples.setdefault((subject, metric), []).append(value)
                lacking |= {f"{subject}: {what}": reason for what, reason in lab.lacking.items()}
                done += 1
    record.missing += [Missing(scenario.name, what, reason) for what, reason in lacking.items()]
    # In the order in which the scenario names its subjects, whichever ran first.
    samples = {key: samples[key] for key in sorted(samples, key=lambda key: present.index(key[0]))}
    results = records.results_of(scenario.name, samples)
    record.results += results
    record.ratios += records.ratios_of(results, scenario.ratios)
    watcher.end(scenario, record)


def _fraction(watcher: Watcher, scenario: Scenario, subject: str, done: int) -> Callable[[int, int], None]:
    def progress(part: int, whole: int) -> None:
        watcher.step(scenario, subject, done + part / max(1, whole))

    return progress
