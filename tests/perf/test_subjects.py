"""Subjects: each library that is installed answers, and each that is not says what to install."""

import pkgutil
from pathlib import Path

import pytest

import perf.subjects
from perf.lab import Effort, Lab
from perf.subject import load

NAMES = [info.name for info in pkgutil.iter_modules(perf.subjects.__path__)]


@pytest.mark.parametrize("name", NAMES)
class TestEachSubject:
    def test_its_answers_are_right(self, name: str, tmp_path: Path) -> None:
        """Its client gets the right answers of its server, one call at a time and with several outstanding."""
        reason = load(name).missing()
        if reason is not None:
            pytest.skip(reason)
        lab = Lab(Effort("quick", 0.01, 1), tmp_path)
        with lab.server(name) as server:
            assert lab.measure("perf.echo:latency", server, subject=name)["p50_us"] > 0
        with lab.server(name) as server:
            figures = lab.measure("perf.echo:throughput", server, subject=name, outstanding=[16])
            assert figures["calls_per_s_16"] > 0

    def test_it_says_how_it_is_measured(self, name: str) -> None:
        """It names the mode that it is measured in."""
        assert load(name).NOTE
        assert load(name).__doc__

    def test_what_is_missing_is_said(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """If nothing is installed that can be, a subject that needs something says what."""
        monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
        reason = load(name).missing()
        assert reason is None or "is not installed: " in reason or name.startswith("engine")
