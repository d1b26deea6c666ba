"""Scenarios: each asks one question, of several subjects, and says in which unit it is answered.

A scenario is a module of `perf.scenarios` with a `SCENARIO`. Its docstring opens with the question, the unit,
and what would make the number wrong.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from perf.lab import Lab
from perf.subject import missing

Figures = Mapping[str, float]

# Beside "engine": the same over the native link, and under TLS. Where subjects are modules two are called so; else
# `over_links` has them.
NATIVE, TLS = "engine-native", "engine-tls"


class Against(NamedTuple):
    """A ratio to form, run by run: `subject`'s metric by `against`'s. `metric` None: each that both have."""

    subject: str
    against: str
    metric: str | None = None


def over_links(run: Callable[[Lab, str], Figures]) -> Callable[[Lab, str], Figures]:
    """Return a `run` that knows `NATIVE` and `TLS` too: "engine", over another link between the processes."""

    @functools.wraps(run)
    def over_any(lab: Lab, subject: str) -> Figures:
        if subject not in (NATIVE, TLS):
            return run(lab, subject)
        lab.transport = "tls" if subject == TLS else f"native+{lab.transport}"
        return run(lab, "engine")

    return over_any


def _missing_link(subject: str) -> str | None:
    return missing(TLS) if subject == TLS else None


@dataclass(frozen=True)
class Scenario:
    """What to run and how to read it.

    Fields:
        run: one run of one subject, in fresh processes: returns its metrics.
        subjects: in the order of tables; interleaved when run.
        ratios: which pairs are compared.
        rounds: how often each subject is run at each effort; None: as often as the effort says.
        default: whether it is part of a run that names no scenario, at each effort: quick, normal, full.
        missing: says why a subject cannot be run here, None if it can.
        headline: metrics shown in the terminal; empty: all of them.
        by_outstanding: whether each metric's name ends in a number of outstanding calls, and tables have a column for
            each.
    """

    name: str
    run: Callable[[Lab, str], Figures]
    subjects: Sequence[str]
    ratios: Sequence[Against] = ()
    rounds: tuple[int, int, int] | None = None
    default: tuple[bool, bool, bool] = (False, True, True)
    missing: Callable[[str], str | None] = _missing_link
    headline: Sequence[str] = ()
    by_outstanding: bool = False


def names() -> list[str]:
    """Return the names of all scenarios, in the order in which they are listed and run."""
    import perf.scenarios

    found = {info.name for info in pkgutil.iter_modules(perf.scenarios.__path__)}
    first = [name for name in perf.scenarios.ORDER if name in found]
    return first + sorted(found - set(first))


def load(name: str) -> Scenario:
    """Import the scenario called `name`; a name with dots is a module of somebody else's."""
    module = importlib.import_module(name if "." in name else f"perf.scenarios.{name}")
    scenario: Scenario = module.SCENARIO
    return scenario


def description(scenario: Scenario) -> str:
    """Return what a scenario says of itself: its question, a blank line, then how it is measured."""
    return inspect.getdoc(importlib.import_module(scenario.run.__module__)) or ""


def question(scenario: Scenario) -> str:
    """Return the question that a scenario asks."""
    return description(scenario).partition("\n")[0]


def unit_of(metric: str) -> str:
    """Return a metric's unit, which its name tells."""
    for part, unit in UNITS.items():
        if part in metric:
            return unit
    raise KeyError(f"metric {metric!r} names no unit")


def lower_is_better(unit: str) -> bool:
    """Whether less of this unit is better."""
    return unit not in ("1/s", "MB/s")


# Looked for in this order: a name may hold two of them, cpu_us_per_call for one.
UNITS = {
    "_growth": "x",
    "wakes_per_s": "wakes/s",
    "calls_per_s": "1/s",
    "files_per_s": "1/s",
    "ops_per_s": "1/s",
    "mb_per_s": "MB/s",
    "bytes_per_call": "B",
    "python_calls": "steps",
    "c_calls": "steps",
    "timed_calls": "steps",
    "system_calls": "steps",
    "switches": "steps",
    "lost": "calls",
    "drains": "drains",
    "ended_calls": "calls",
    "_kib": "KiB",
    "percent": "%",
    "_us": "us",
    "_ns": "ns",
    "_ms": "ms",
    "_s": "s",
}
