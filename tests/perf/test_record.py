"""Records: what a run leaves behind, and the arithmetic of ratios."""

import json
from pathlib import Path

import pytest

from perf import record as records
from perf.record import Ratio, Record, Result
from perf.scenario import Against


def made() -> Record:
    """Return a record of two subjects."""
    results = records.results_of(
        "latency", {("engine", "p50_us"): [10.0, 30.0, 20.0], ("raw-zmq", "p50_us"): [10.0, 10.0, 40.0]}
    )
    ratios = records.ratios_of(results, [Against("engine", "raw-zmq")])
    return Record(records.machine(), records.versions(), {"effort": "quick"}, results, ratios)


def test_a_ratio_is_ours_by_theirs_pair_by_pair() -> None:
    """The ratio is the median of the pairs' quotients, which is not the quotient of the medians."""
    assert made().ratios == [Ratio("latency", "p50_us", "engine", "raw-zmq", 1.0, 0.5, 3.0)]


def test_samples_are_kept_and_summed_up() -> None:
    """A result keeps its samples in the order of the rounds, and has their median and unit."""
    assert made().results[0] == Result("latency", "engine", "p50_us", "us", [10.0, 30.0, 20.0], 20.0)


def test_a_ratio_needs_both_sides() -> None:
    """A metric that one side lacks has no ratio."""
    results = records.results_of("x", {("engine", "p50_us"): [1.0], ("other", "p99_us"): [1.0]})
    assert records.ratios_of(results, [Against("engine", "other"), Against("engine", "missing")]) == []


def test_only_the_metric_asked_for_is_compared() -> None:
    """A ratio that names its metric leaves the others alone."""
    results = records.results_of(
        "x", {(who, what): [2.0] for who in ("engine", "other") for what in ("p50_us", "p99_us")}
    )
    assert [ratio.metric for ratio in records.ratios_of(results, [Against("engine", "other", "p99_us")])] == ["p99_us"]


def test_the_file_has_the_agreed_shape(tmp_path: Path) -> None:
    """The JSON has machine, versions, results and ratios, each with its fields."""
    path = tmp_path / "deep" / "record.json"
    records.save(made(), path)
    written = json.loads(path.read_text())
    assert {"machine", "versions", "results", "ratios"} <= set(written)
    assert set(written["results"][0]) == {"scenario", "subject", "metric", "unit", "samples", "median"}
    assert set(written["ratios"][0]) == {"scenario", "metric", "subject", "against", "median", "low", "high"}
    assert written["machine"]["cores"] >= 1
    assert written["versions"]["pyzmq"]


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    """Reading what was written gives the same record."""
    records.save(made(), tmp_path / "a.json")
    again = records.read(tmp_path / "a.json")
    assert again.results == made().results
    assert again.pairs(again.ratios[0]) == [1.0, 3.0, 0.5]


def test_another_file_is_refused(tmp_path: Path) -> None:
    """What is no record is refused by name."""
    (tmp_path / "a.json").write_text('{"results": 3}')
    with pytest.raises(ValueError, match="a.json is no record"):
        records.read(tmp_path / "a.json")
