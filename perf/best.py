"""Ours against the best peer, by how many calls are outstanding.

The best is the one to which our paired ratio is the lowest; the floor, which is no peer, stands beside it.
"""

import re
from typing import NamedTuple

from perf.record import Ratio, Record

OURS, FLOOR = "engine", "raw-zmq"
SCENARIOS = ("peers", "unix_peers")


class Best(NamedTuple):
    """One number of outstanding calls: calls a second of ours and of the best peer, and the ratios."""

    scenario: str
    outstanding: int
    ours: float
    theirs: float
    ratio: Ratio
    floor: Ratio | None


def best_peers(record: Record) -> list[Best]:
    """Return what the record has, by scenario and number of outstanding calls."""
    found: dict[tuple[str, int], Ratio] = {}
    for ratio in record.ratios:
        match = re.fullmatch(r"calls_per_s_(\d+)", ratio.metric)
        if match and ratio.scenario in SCENARIOS and ratio.subject == OURS and ratio.against != FLOOR:
            key = ratio.scenario, int(match[1])
            if key not in found or ratio.median < found[key].median:
                found[key] = ratio
    rows = []
    for (scenario, outstanding), ratio in sorted(found.items()):
        ours = record.find(scenario, OURS, ratio.metric)
        theirs = record.find(scenario, ratio.against, ratio.metric)
        assert ours is not None and theirs is not None
        floor = record.find_ratio(scenario, ratio.metric, OURS, FLOOR)
        rows.append(Best(scenario, outstanding, ours.median, theirs.median, ratio, floor))
    return rows
