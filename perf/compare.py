"""Compares two records: what changed, and what may be only noise.

What is tested is the ratio to another subject of the same run where the record has one (whatever the machine
did, it did to both), and the figure itself only where it has none. The test is the exact rank-sum test of
Wilcoxon, Mann and Whitney, two-sided: it assumes nothing of how figures are distributed, and five samples a
side are enough to say something (p = 0.008 when they do not overlap at all), three never are.

A difference counts if p < 0.01, strict because dozens of figures are tested at once, and if it is at least 3
%, since whoever looks closely enough finds that nothing is ever equal.
"""

import math
import statistics
from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

from perf.record import Record
from perf.scenario import lower_is_better

ALPHA = 0.01
LEAST_CHANGE = 0.03
SIZES = ("B", "KiB", "%", "wakes/s", "x", "steps")  # Units of which one has less, not faster.

Word = Literal["faster", "slower", "less", "more", "no difference to be seen", "too few samples"]


class Change(NamedTuple):
    """One figure or ratio in both records. `factor` is the later median divided by the earlier one."""

    scenario: str
    subject: str
    against: str
    metric: str
    before: float
    after: float
    factor: float
    p: float
    word: Word


def compare(before: Record, after: Record) -> list[Change]:
    """Return what both records have, in the order of the later one."""
    changes = []
    in_ratios = {(ratio.scenario, ratio.subject, ratio.metric) for ratio in after.ratios}
    units = {(result.scenario, result.metric): result.unit for result in after.results}
    for ratio in after.ratios:
        earlier = before.find_ratio(ratio.scenario, ratio.metric, ratio.subject, ratio.against)
        if earlier is not None:
            changes.append(
                _change(
                    (ratio.scenario, ratio.subject, ratio.against, ratio.metric),
                    before.pairs(earlier),
                    after.pairs(ratio),
                    units[ratio.scenario, ratio.metric],
                )
            )
    # What others are measured against has no ratio of its own: a change there is the machine's, or theirs.
    bases = {(ratio.scenario, ratio.against, ratio.metric) for ratio in after.ratios}
    for result in after.results:
        key = (result.scenario, result.subject, result.metric)
        past = before.find(*key)
        if past is not None and key not in in_ratios and key not in bases:
            changes.append(
                _change(
                    (result.scenario, result.subject, "", result.metric),
                    past.samples,
                    result.samples,
                    result.unit,
                )
            )
    return changes


def _change(name: tuple[str, str, str, str], before: Sequence[float], after: Sequence[float], unit: str) -> Change:
    old, new = statistics.median(before), statistics.median(after)
    factor = new / old if old else math.inf
    p = rank_sum(tuple(before), tuple(after))
    word: Word = "no difference to be seen"
    if lowest_p(len(before), len(after)) >= ALPHA:
        word = "too few samples"
    elif p < ALPHA and abs(factor - 1) >= LEAST_CHANGE:
        if unit in SIZES:
            word = "less" if factor < 1 else "more"
        else:
            word = "faster" if (factor < 1) == lower_is_better(unit) else "slower"
    return Change(*name, old, new, factor, p, word)


def lowest_p(one: int, other: int) -> float:
    """Return the lowest p that the rank-sum test can yield for so many samples."""
    return 2 / math.comb(one + other, one)


def rank_sum(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the two-sided p of the exact rank-sum test: how likely so uneven ranks are if both come from one
    source.

    Equal values share their ranks' mean; the distribution is that of these very ranks, so it stays exact.
    """
    values = sorted([*one, *other])
    # Twice the mean rank, so that all sums are whole numbers.
    ranks = {value: 2 * values.index(value) + values.count(value) + 1 for value in values}
    all_ranks = tuple(ranks[value] for value in values)
    middle = sum(all_ranks) * len(one) / len(values)
    distance = abs(sum(ranks[value] for value in one) - middle)
    ways = _sums(all_ranks, len(one))
    extreme = sum(count for total, count in ways.items() if abs(total - middle) >= distance - 1e-9)
    return extreme / sum(ways.values())


@cache
def _sums(ranks: tuple[int, ...], take: int) -> dict[int, int]:
    """Return how many ways there are to take `take` of the ranks, by their sum."""
    table: list[dict[int, int]] = [{0: 1}, *({} for _ in range(take))]
    for rank in ranks:
        for size in range(take, 0, -1):
            for total, count in table[size - 1].items():
                table[size][total + rank] = table[size].get(total + rank, 0) + count
    return table[take]
