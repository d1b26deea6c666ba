"""The page: one file, with what the record has."""

import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from perf import record as records
from perf.page import page, write
from perf.record import Missing, Record
from perf.scenario import Against


def made() -> Record:
    """Return a record with something for several plots."""
    latency = records.results_of(
        "latency",
        {(who, f"p{p}_us"): [p, 2.0 * p] for who in ("engine", "raw-zmq") for p in (50, 99)},
    )
    throughput = records.results_of(
        "throughput",
        {
            (who, f"{what}_{width}"): [100.0 * width, 120.0 * width]
            for who in ("engine", "raw-zmq")
            for width in (16, 256)
            for what in ("calls_per_s", "cpu_us_per_call")
        },
    )
    results = latency + throughput
    ratios = records.ratios_of(latency, [Against("engine", "raw-zmq")])
    ratios += records.ratios_of(throughput, [Against("engine", "raw-zmq")])
    missing = [Missing("latency", "peer<1>", "it is not installed")]
    return Record({"cores": 2}, {"python": "3"}, {"effort": "quick"}, results, ratios, missing)


def test_it_fetches_nothing() -> None:
    """No address is in it but the names of XML vocabularies."""
    text = page(made())
    assert set(re.findall(r"https?://[\w.]+", text)) <= {"http://www.w3.org"}
    assert "<script" not in text
    assert "<link" not in text


def test_it_has_plots_tables_and_what_is_missing() -> None:
    """Figures, ratios, goals and missing subjects are there, and names are escaped."""
    text = page(made())
    assert text.count("<svg") == 4  # Goals, the floor, latency, throughput.
    assert "peer&lt;1&gt;" in text
    assert "ours / theirs" in text
    assert "How long does one call take" in text


def test_its_colours_follow_the_reader() -> None:
    """No stand-in colour is left in a plot, and dark has colours of its own."""
    text = page(made())
    assert not re.search(r"#0[1-4]0[1-4]0[1-4]|#0500\d\d", text)
    assert "prefers-color-scheme: dark" in text


def test_an_empty_record_gives_a_page(tmp_path: Path) -> None:
    """A record without results gives a page without plots, not an error."""
    write(Record({}, {}, {}), tmp_path / "new" / "index.html")
    assert "<svg" not in (tmp_path / "new" / "index.html").read_text()
