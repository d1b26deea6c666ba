"""What a run leaves behind: raw samples, medians and ratios, with the machine, the versions and the settings.

Samples of one scenario are in the order of its rounds, and each round ran every subject once: the n-th
samples of two subjects are a pair. A ratio is formed pair by pair, so that what drifts between rounds cancels
out.
"""

import errno
import importlib.metadata
import os
import platform
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from perf.scenario import Against, unit_of


class Result(msgspec.Struct):
    """The samples of one metric of one subject: one a round."""

    scenario: str
    subject: str
    metric: str
    unit: str
    samples: list[float]
    median: float


class Ratio(msgspec.Struct):
    """One subject's metric divided by another's, pair by pair: median, lowest and highest."""

    scenario: str
    metric: str
    subject: str
    against: str
    median: float
    low: float
    high: float


class Missing(msgspec.Struct):
    """A subject that could not be measured, and why."""

    scenario: str
    subject: str
    reason: str


class Record(msgspec.Struct):
    """A whole run."""

    machine: dict[str, str | int | float]
    versions: dict[str, str]
    settings: dict[str, str | int | float]
    results: list[Result] = []
    ratios: list[Ratio] = []
    missing: list[Missing] = []

    def find(self, scenario: str, subject: str, metric: str) -> Result | None:
        """Return one result."""
        wanted = (scenario, subject, metric)
        return next((r for r in self.results if (r.scenario, r.subject, r.metric) == wanted), None)

    def find_ratio(self, scenario: str, metric: str, subject: str, against: str) -> Ratio | None:
        """Return one ratio."""
        wanted = (scenario, metric, subject, against)
        return next((r for r in self.ratios if (r.scenario, r.metric, r.subject, r.against) == wanted), None)

    def by_outstanding(self, scenario: str) -> tuple[list[int], dict[tuple[str, str], dict[int, float]]]:
        """Return the numbers of outstanding calls, and the medians at each, by subject and metric (without number)."""
        rows: dict[tuple[str, str], dict[int, float]] = {}
        for result in self.results:
            metric, _, number = result.metric.rpartition("_")
            if result.scenario == scenario and number.isdecimal():
                rows.setdefault((result.subject, metric), {})[int(number)] = result.median
        return sorted({number for medians in rows.values() for number in medians}), rows

    def pairs(self, ratio: Ratio) -> list[float]:
        """Return the ratio of each pair of runs that `ratio` sums up."""
        ours = self.find(ratio.scenario, ratio.subject, ratio.metric)
        theirs = self.find(ratio.scenario, ratio.against, ratio.metric)
        if ours is None or theirs is None:
            return []
        return paired(ours.samples, theirs.samples)


def paired(ours: Iterable[float], theirs: Iterable[float]) -> list[float]:
    """Return ours divided by theirs, pair by pair."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True) if other]


def results_of(scenario: str, samples: dict[tuple[str, str], list[float]]) -> list[Result]:
    """Sum up samples, given by (subject, metric)."""
    return [
        Result(scenario, subject, metric, unit_of(metric), values, statistics.median(values))
        for (subject, metric), values in samples.items()
    ]


def ratios_of(results: Iterable[Result], wanted: Iterable[Against]) -> list[Ratio]:
    """Form the ratios that a scenario asks for, as far as both sides were measured."""
    by_subject: dict[str, dict[str, Result]] = {}
    for result in results:
        by_subject.setdefault(result.subject, {})[result.metric] = result
    ratios = []
    for pair in wanted:
        theirs = by_subject.get(pair.against, {})
        for metric, ours in by_subject.get(pair.subject, {}).items():
            if metric in theirs and pair.metric in (None, metric):
                quotients = paired(ours.samples, theirs[metric].samples)
                if quotients:
                    median = statistics.median(quotients)
                    ratios.append(Ratio(ours.scenario, metric, *pair[:2], median, min(quotients), max(quotients)))
    return ratios


def machine() -> dict[str, str | int | float]:
    """Describe the machine, and how busy it was when the run began."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    except OSError:
        pass  # Not Linux: the architecture must do.
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "system": platform.platform(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


DISTRIBUTIONS = ("callport", "pyzmq", "msgspec")


def versions(others: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of Python and of what is measured."""
    import zmq

    found = {
        "python": platform.python_version(),
        "build": sys.version.partition("\n")[2] or platform.python_compiler(),
    }
    found["libzmq"] = zmq.zmq_version()
    for name in (*DISTRIBUTIONS, *others):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def check_writable(path: Path) -> None:
    """Make the folder of a record. Raises: `OSError` if the record could not be written there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def save(record: Record, path: Path) -> None:
    """Write a record as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")


def read(path: Path) -> Record:
    """Read a record; raises `ValueError` if the file is not one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path} is no record of this harness: {error}") from error
